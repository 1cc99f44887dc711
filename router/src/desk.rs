//! The desk that decisions are made on: the states and rows that a step has loaded, the writes and effects it collects.
//! No I/O happens here: what was not loaded is not there.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::RandomState;
use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::Timestamp;
use messaging::directory::Directory;
use messaging::ids::{AccountId, ConversationId, IdHasher, MessageId, PlatformRef};
use messaging::media::LinkTerms;
use messaging::metrics;
use messaging::record::{Record, SendCommand};
use messaging::seal::DataKey;
use messaging::state::{Conversation, Direction, FeedPosition, MessageMeta, MessageRow, Pointer};
use messaging::store::{Key, Write};
use messaging::tenant::Tenant;

use crate::plan::Effects;

mod news;

pub use news::{Home, News};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Conversations that a shard remembers.
pub type States = Map<ConversationId, (Tenant, Conversation)>;

/// What decisions may ask about the world.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Wall time: the later of the clock and the newest log time.
    pub now: Timestamp,
    /// The shard.
    pub shard: u16,
    /// Under which lease it works.
    pub epoch: u64,
    /// The directory.
    pub directory: &'a Directory,
    /// Computes ids.
    pub ids: &'a IdHasher,
    /// The channels' settings.
    pub channels: &'a BTreeMap<ChannelKind, ChannelSettings>,
    /// How links to media are made.
    pub links: &'a LinkTerms,
}

/// A message's row, opened.
#[derive(Debug, Clone)]
pub struct OpenMessage {
    /// Its conversation and time: its key.
    pub conversation: ConversationId,
    /// Time part of its key.
    pub at: Timestamp,
    /// Its id.
    pub id: MessageId,
    /// Its head.
    pub meta: MessageMeta,
    row: MessageRow,
}

/// The desk of one step.
pub struct Desk<'a> {
    /// The world.
    pub world: World<'a>,
    /// States in use.
    pub states: &'a mut States,
    rows: Map<Key, Option<Vec<u8>>>,
    dirty: Vec<ConversationId>,
    /// The same, to be asked.
    is_dirty: HashSet<ConversationId, RandomState>,
    writes: Vec<Write>,
    /// What is to be done.
    pub effects: Effects,
    feed: &'a mut u64,
    fresh_key: &'a mut (dyn FnMut() -> [u8; 32] + Send),
    /// The time that the rows of the present record carry.
    write_at: Timestamp,
    /// What the present record changed on the desk, to be undone when its decision fails half-way.
    undo: Vec<(Key, Option<Option<Vec<u8>>>)>,
}

/// Where the desk stood before a record's decision.
pub struct Mark {
    writes: usize,
    dirty: usize,
    tasks: usize,
    scheduled: usize,
    timers: usize,
    records: usize,
    accounts: usize,
    cancelled: usize,
    media: usize,
    forgotten: usize,
    conversation: ConversationId,
    state: Option<(Tenant, Conversation)>,
}

/// A decision cannot be made: the record goes to quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Its tenant or account is not in the directory.
    Owner,
    /// A row that it needs does not open.
    Row,
    /// A body that does not parse.
    Body,
    /// The code failed on it at every try.
    Panic,
    /// The log does not take it for the shard that it belongs to.
    TooLarge,
}

impl Unfit {
    /// The short name in the quarantine and its metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "unknown_owner",
            Self::Row => "damaged_row",
            Self::Body => "unparsable",
            Self::Panic => "panicked",
            Self::TooLarge => "too_large",
        }
    }
}

impl<'a> Desk<'a> {
    /// A desk over loaded states.
    pub fn new(world: World<'a>, states: &'a mut States, feed: &'a mut u64, fresh_key: &'a mut (dyn FnMut() -> [u8; 32] + Send)) -> Self {
        Self {
            world,
            states,
            rows: Map::default(),
            dirty: Vec::new(),
            is_dirty: HashSet::default(),
            writes: Vec::new(),
            effects: Effects::default(),
            feed,
            fresh_key,
            write_at: world.now,
            undo: Vec::new(),
        }
    }

    /// Lays a loaded row on the desk.
    pub fn lay(&mut self, key: Key, value: Option<Vec<u8>>) {
        self.rows.entry(key).or_insert(value);
    }

    /// Whether a row was loaded.
    pub fn has(&self, key: &Key) -> bool {
        self.rows.contains_key(key)
    }

    /// The rows of what follows carry this time.
    pub fn begin(&mut self, at: Timestamp) {
        self.write_at = at;
    }

    /// Remembers where the desk stands before the decision of a record of this conversation.
    pub fn mark(&mut self, conversation: ConversationId) -> Mark {
        self.undo.clear();
        Mark {
            writes: self.writes.len(),
            dirty: self.dirty.len(),
            tasks: self.effects.tasks.len(),
            scheduled: self.effects.scheduled.len(),
            timers: self.effects.timers.len(),
            records: self.effects.records.len(),
            accounts: self.effects.accounts.len(),
            cancelled: self.effects.cancelled.len(),
            media: self.effects.media.len(),
            forgotten: self.effects.forgotten.len(),
            conversation,
            state: self.states.get(&conversation).cloned(),
        }
    }

    /// Takes back everything since the mark: a decision that failed half-way leaves nothing behind. (Places of the feed that
    /// were given out stay unused.)
    pub fn roll_back(&mut self, mark: &Mark) {
        self.writes.truncate(mark.writes);
        for id in self.dirty.drain(mark.dirty..) {
            self.is_dirty.remove(&id);
        }
        self.effects.tasks.truncate(mark.tasks);
        self.effects.scheduled.truncate(mark.scheduled);
        self.effects.timers.truncate(mark.timers);
        self.effects.records.truncate(mark.records);
        self.effects.accounts.truncate(mark.accounts);
        self.effects.cancelled.truncate(mark.cancelled);
        self.effects.media.truncate(mark.media);
        self.effects.forgotten.truncate(mark.forgotten);
        match &mark.state {
            Some(state) => self.states.insert(mark.conversation, state.clone()),
            None => self.states.remove(&mark.conversation),
        };
        for (key, before) in self.undo.drain(..).rev() {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// A row, as loaded or as written in this step.
    pub fn row(&self, key: &Key) -> Option<&[u8]> {
        self.rows.get(key)?.as_deref()
    }

    /// Writes a row.
    pub fn put(&mut self, key: Key, value: Vec<u8>) {
        let before = self.rows.insert(key, Some(value.clone()));
        self.undo.push((key, before));
        self.writes.push(Write::put(key, value, self.write_at));
    }

    /// Writes a row that nothing in this step reads again: no copy is kept.
    pub fn put_blind(&mut self, key: Key, value: Vec<u8>) {
        self.writes.push(Write::put(key, value, self.write_at));
    }

    /// Takes in a write made elsewhere (`later`).
    pub fn write(&mut self, write: Write) {
        let before = self.rows.insert(write.key, write.value.clone());
        self.undo.push((write.key, before));
        self.writes.push(write);
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: Key) {
        let before = self.rows.insert(key, None);
        self.undo.push((key, before));
        self.writes.push(Write::delete(key, self.write_at));
    }

    /// The tenant's key.
    pub fn tenant_key(&self, tenant: Tenant) -> Result<&'a DataKey, Unfit> {
        self.world.directory.tenant_key(tenant).ok_or(Unfit::Owner)
    }

    /// Marks a state as changed.
    pub fn touch(&mut self, id: ConversationId) {
        if self.is_dirty.insert(id) {
            self.dirty.push(id);
        }
    }

    /// A contact's new key.
    pub fn fresh_key(&mut self) -> [u8; 32] {
        (self.fresh_key)()
    }

    /// The channel's settings.
    pub fn settings(&self, kind: ChannelKind) -> Result<&'a ChannelSettings, Unfit> {
        self.world.channels.get(&kind).ok_or(Unfit::Owner)
    }

    /// Seals the changed states and gives the writes (states last) and effects.
    pub fn finish(mut self) -> (Vec<Write>, Effects) {
        for id in std::mem::take(&mut self.dirty) {
            let Some((tenant, conversation)) = self.states.get(&id) else { continue };
            let Some(key) = self.world.directory.tenant_key(*tenant) else { continue };
            let value = conversation.seal(tenant.id(), key);
            self.writes.push(Write::put(Key::Conversation(tenant.id(), id), value, self.write_at));
        }
        (self.writes, self.effects)
    }

    // ---- messages -------------------------------------------------------------------------------------------------

    /// Where a message's row stands, if its pointer was loaded.
    pub fn pointer(&self, key: &Key) -> Option<Pointer> {
        Pointer::decode(self.row(key)?).ok()
    }

    /// A message by its id.
    pub fn message(&self, tenant: Tenant, id: MessageId) -> Result<Option<OpenMessage>, Unfit> {
        match self.pointer(&Key::Pointer(tenant.id(), id.0)).and_then(|pointer| pointer.message) {
            Some(place) => self.message_at(tenant, place),
            None => Ok(None),
        }
    }

    /// A message by its platform id.
    pub fn message_by_platform_id(&self, tenant: Tenant, account: AccountId, reference: PlatformRef) -> Result<Option<OpenMessage>, Unfit> {
        match self.pointer(&Key::PlatformId(tenant.id(), account, reference)).and_then(|pointer| pointer.message) {
            Some(place) => self.message_at(tenant, place),
            None => Ok(None),
        }
    }

    /// A message whose place is known.
    pub fn message_at(
        &self,
        tenant: Tenant,
        (conversation, at, id): (ConversationId, Timestamp, MessageId),
    ) -> Result<Option<OpenMessage>, Unfit> {
        let Some(bytes) = self.row(&Key::Message(tenant.id(), conversation, at, id)) else { return Ok(None) };
        let row = MessageRow::decode(bytes).map_err(|_| Unfit::Row)?;
        let meta = row.open_meta(tenant.id(), id, self.tenant_key(tenant)?).map_err(|_| Unfit::Row)?;
        Ok(Some(OpenMessage { conversation, at, id, meta, row }))
    }

    /// The content of a message, opened with its contact's key. The conversation must be loaded.
    pub fn content_of(&self, tenant: Tenant, message: &OpenMessage) -> Result<Option<String>, Unfit> {
        let Some((_, conversation)) = self.states.get(&message.conversation) else { return Ok(None) };
        message.row.open_content(tenant.id(), message.id, &conversation.contact_key()).map_err(|_| Unfit::Row)
    }

    /// The send command of one of our messages.
    pub fn command_of(&self, tenant: Tenant, message: &OpenMessage) -> Result<Option<SendCommand>, Unfit> {
        let Some(text) = self.content_of(tenant, message)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|_| Unfit::Row)
    }

    /// Writes a message's changed head.
    pub fn save(&mut self, tenant: Tenant, message: &mut OpenMessage) -> Result<(), Unfit> {
        let key = self.tenant_key(tenant)?;
        message.row.set_meta(tenant.id(), message.id, &message.meta, key);
        self.put(Key::Message(tenant.id(), message.conversation, message.at, message.id), message.row.encode());
        Ok(())
    }

    /// Replaces or takes away a message's content.
    pub fn set_content(&mut self, tenant: Tenant, message: &mut OpenMessage, content: Option<&str>) -> Result<(), Unfit> {
        let Some((_, conversation)) = self.states.get(&message.conversation) else { return Err(Unfit::Row) };
        let key = conversation.contact_key();
        message.row.content = content.map(|text| MessageRow::seal_content(tenant.id(), message.id, text, &key));
        self.save(tenant, message)
    }

    /// Writes a new message and the pointers to it.
    pub fn new_message(
        &mut self,
        tenant: Tenant,
        place: (ConversationId, Timestamp, MessageId),
        contact_key: &DataKey,
        meta: MessageMeta,
        content: &str,
        event: Option<FeedPosition>,
    ) -> Result<OpenMessage, Unfit> {
        let (conversation, at, id) = place;
        let row = MessageRow::seal(tenant.id(), id, &meta, self.tenant_key(tenant)?, Some(content), contact_key);
        let key = Key::Message(tenant.id(), conversation, at, id);
        if meta.direction == Direction::Out {
            self.put(key, row.encode());
        } else {
            self.put_blind(key, row.encode());
        }
        // Kept on the desk, so that a second copy in the same step is found.
        self.put(Key::Pointer(tenant.id(), id.0), Pointer { message: Some(place), event }.encode());
        Ok(OpenMessage { conversation, at, id, meta, row })
    }
}

/// Counts a finished record.
pub fn count(record: &Record, outcome: messaging::outcome::Outcome) {
    use messaging::record::RecordKind;
    let direction = match record.kind {
        RecordKind::Inbound | RecordKind::Unparsable | RecordKind::Notice => 0,
        RecordKind::Command => 1,
    };
    metrics::ROUTER_RECORDS.at([direction, record.channel.index(), outcome.index()]).increment(1);
    if outcome == messaging::outcome::Outcome::Duplicate {
        metrics::ROUTER_DUPLICATES.at([metrics::DuplicateScope::Store.index()]).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use messaging::ids::TenantId;

    #[test]
    fn a_decision_that_fails_half_way_leaves_nothing_behind() {
        let directory = Directory::default();
        let (ids, channels) = (IdHasher::new(b"x"), BTreeMap::new());
        let links = LinkTerms { public_url: None, ttl: std::time::Duration::ZERO };
        let world = World {
            now: Timestamp::from_secs(1),
            shard: 0,
            epoch: 1,
            directory: &directory,
            ids: &ids,
            channels: &channels,
            links: &links,
        };
        let (mut states, mut feed) = (States::default(), 0);
        let mut key = || [0; 32];
        let mut desk = Desk::new(world, &mut states, &mut feed, &mut key);
        let row = |n: u8| Key::Pointer(TenantId([1; 16]), [n; 16]);
        desk.lay(row(1), Some(vec![1]));
        desk.put(row(2), vec![2]);
        let tenant = Tenant::for_tests(TenantId([1; 16]));
        let id = ConversationId([5; 16]);
        let mark = desk.mark(id);
        desk.put(row(1), vec![9]);
        desk.put(row(1), vec![10]);
        desk.delete(row(2));
        desk.put(row(3), vec![3]);
        let handle = messaging::content::Handle::chat("1");
        crate::decide::state_for(&mut desk, tenant, AccountId([2; 16]), ChannelKind::Telegram, id, &handle);
        desk.roll_back(&mark);
        assert_eq!(desk.row(&row(1)), Some(&[1][..]));
        assert_eq!(desk.row(&row(2)), Some(&[2][..]));
        assert_eq!(desk.row(&row(3)), None);
        assert!(!desk.has(&row(3)) && desk.states.is_empty());
        let (writes, effects) = desk.finish();
        assert_eq!(writes.len(), 1);
        assert!(effects.tasks.is_empty());
    }
}
