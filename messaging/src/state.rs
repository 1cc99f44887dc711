//! The rows' contents: what a shard knows of a conversation, and what is kept of a message.

use serde::{Deserialize, Serialize};

use crate::channels::ChannelKind;
use crate::clock::Timestamp;
use crate::content::Handle;
use crate::event::Event;
use crate::ids::{AccountId, ContactId, ConversationId, EndpointId, EventId, ID_BYTES, MessageId, TenantId};
use crate::outcome::{Reason, Status, Step};
use crate::seal::{DataKey, KEY_BYTES, OpenError, Sealed};
use crate::store::Work;

mod newest;

use newest::Newest;

/// What a shard knows of a conversation. Sealed with the tenant's key at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Its account.
    pub account: AccountId,
    /// Its channel.
    pub channel: ChannelKind,
    /// The person.
    pub contact: ContactId,
    /// The conversation goes by another id (the same person was first seen under another handle).
    pub alias_of: Option<ConversationId>,
    /// All handles of the person, first the one that the key was computed from.
    pub handles: Vec<Handle>,
    /// The person's name, as the platform or the merchant gave it.
    pub name: Option<String>,
    /// The person's user name.
    pub username: Option<String>,
    /// Free text is allowed until then; `ZERO` when it never was.
    pub window_until: Timestamp,
    /// Events told so far about the present window.
    pub window_told: WindowTold,
    /// The newest platform time that was stored: what is later has surely not been seen.
    pub newest_platform_at: Timestamp,
    /// The newest inbound message, for receipts: platform id.
    pub newest_inbound: Option<String>,
    /// Last activity in either direction.
    pub active_at: Timestamp,
    /// Stored, not otherwise used.
    pub restricted: bool,
    /// Wants no marketing messages.
    pub opted_out: bool,
    /// Blocked us or is gone.
    pub unreachable: bool,
    /// Where the numbering stands, per endpoint.
    pub sequences: Vec<Sequence>,
    /// The key that seals this person's message bodies. Destroying it erases them.
    pub key: [u8; KEY_BYTES],
    /// The due time of the window timer that stands in `later`; `ZERO` when none does.
    pub timer_at: Timestamp,
    /// The way to write back (Telegram's business connection, Discord's interaction token).
    pub via: Option<String>,
    /// Until when that way can be used; `ZERO`: until another comes.
    pub via_until: Timestamp,
    /// When the window was last opened; `ZERO` when it never was. Tags count from here.
    pub opened_at: Timestamp,
    /// Free messages sent since then.
    pub free_sent: u32,
    /// Our newest messages that are not known to be read, oldest first: what a watermark moves.
    pub awaiting: Vec<Awaiting>,
    /// What was sent until then reached the person: a message whose answer comes after its watermark is moved by this.
    pub delivered_upto: Timestamp,
    /// What was sent until then was read.
    pub read_upto: Timestamp,
    /// What came at `newest_platform_at`. In memory only: platforms' times are whole seconds, and several pieces share one.
    #[serde(skip)]
    newest: Newest,
}

/// One of our messages that a watermark may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaiting {
    /// Its id.
    pub message: MessageId,
    /// The time in its row's key.
    pub at: Timestamp,
    /// When its request was written.
    pub sent_at: Timestamp,
}

/// Most messages of a conversation that wait for a watermark; the oldest are forgotten.
pub const AWAITING_MAX: usize = 64;

/// Where the numbering of a conversation's deliveries to one endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The last `trunkline-sequence` given.
    pub last: u64,
    /// How many were given up since the last one that arrived.
    pub gap: u32,
}

/// How far the subscribers know about the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum WindowTold {
    /// Nothing, or that it closed.
    #[default]
    Closed,
    /// That it opened.
    Opened,
    /// That it will soon close.
    Closing,
}

impl Conversation {
    /// A conversation that begins. The contact's key comes in as an argument.
    pub fn new(
        id: ConversationId,
        account: AccountId,
        channel: ChannelKind,
        contact: ContactId,
        handle: Handle,
        key: [u8; KEY_BYTES],
    ) -> Self {
        Self {
            id,
            account,
            channel,
            contact,
            alias_of: None,
            handles: vec![handle],
            name: None,
            username: None,
            window_until: Timestamp::ZERO,
            window_told: WindowTold::Closed,
            newest_platform_at: Timestamp::ZERO,
            newest_inbound: None,
            active_at: Timestamp::ZERO,
            restricted: false,
            opted_out: false,
            unreachable: false,
            sequences: Vec::new(),
            key,
            timer_at: Timestamp::ZERO,
            via: None,
            via_until: Timestamp::ZERO,
            opened_at: Timestamp::ZERO,
            free_sent: 0,
            awaiting: Vec::new(),
            delivered_upto: Timestamp::ZERO,
            read_upto: Timestamp::ZERO,
            newest: Newest::default(),
        }
    }

    /// Whether a piece of this platform time and id has surely not been stored: no need to look it up.
    pub fn is_surely_new(&self, at: Timestamp, id: &[u8; ID_BYTES]) -> bool {
        at > self.newest_platform_at || (at == self.newest_platform_at && self.newest.surely_lacks(id))
    }

    /// Remembers that a piece was stored.
    pub fn note_stored(&mut self, at: Timestamp, id: &[u8; ID_BYTES]) {
        if at > self.newest_platform_at {
            self.newest_platform_at = at;
            self.newest = Newest::begun();
        }
        if at == self.newest_platform_at {
            self.newest.add(id);
        }
    }

    /// The way to write back, while it can be used.
    pub fn usable_via(&self, now: Timestamp) -> Option<&str> {
        let usable = self.via_until == Timestamp::ZERO || now < self.via_until;
        self.via.as_deref().filter(|_| usable)
    }

    /// Remembers a message that a watermark may move.
    pub fn await_watermark(&mut self, message: Awaiting) {
        if self.awaiting.len() >= AWAITING_MAX {
            self.awaiting.remove(0);
        }
        self.awaiting.push(message);
    }

    /// The handle of a scheme, when the person has one.
    pub fn handle(&self, scheme: &str) -> Option<&Handle> {
        self.handles.iter().find(|handle| handle.scheme() == scheme)
    }

    /// The contact's key.
    pub fn contact_key(&self) -> DataKey {
        DataKey::from_bytes(self.key)
    }

    /// The next sequence number for an endpoint, counted.
    pub fn next_sequence(&mut self, endpoint: EndpointId) -> u64 {
        let sequence = self.sequence(endpoint);
        sequence.last += 1;
        sequence.last
    }

    /// Where the numbering for an endpoint stands.
    pub fn sequence(&mut self, endpoint: EndpointId) -> &mut Sequence {
        let at = match self.sequences.iter().position(|sequence| sequence.endpoint == endpoint) {
            Some(at) => at,
            None => {
                self.sequences.push(Sequence { endpoint, last: 0, gap: 0 });
                self.sequences.len() - 1
            }
        };
        &mut self.sequences[at]
    }
}

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From the person.
    In,
    /// From us.
    Out,
    /// From the business by another way.
    Echo,
}

/// What is kept of a message beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageMeta {
    /// Which way it went.
    pub direction: Direction,
    /// The `type`.
    pub kind: String,
    /// Where it stands.
    pub status: Status,
    /// Its account.
    pub account: AccountId,
    /// To whom (out).
    pub to: Option<Handle>,
    /// The platform's id.
    pub platform_id: Option<String>,
    /// How it came to stand there.
    pub history: Vec<Step>,
    /// The last reason.
    pub reason: Option<Reason>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Not sent after this.
    pub expires_at: Option<Timestamp>,
    /// Not sent before this.
    pub not_before: Option<Timestamp>,
    /// How many times it was tried.
    pub attempt: u32,
    /// Under which lease it was last tried.
    pub epoch: u64,
    /// The platform may have taken it twice.
    pub possible_duplicate: bool,
    /// It stands in `later`, which owns it: a replay of its record leaves it alone.
    pub parked: bool,
    /// Tells a repeated request from another under the same idempotency key.
    pub fingerprint: [u8; 16],
}

/// A message's row: head sealed with the tenant's key, content with the contact's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    /// Where it stands.
    pub meta: Sealed<MessageMeta>,
    /// What it says: in and echo, the event's data as JSON; out, the send command as JSON. Gone when the person withdrew it.
    pub content: Option<Sealed<String>>,
}

/// Most steps of a message's history that are kept; later ones replace the last.
pub const HISTORY_MAX: usize = 32;

impl MessageMeta {
    /// Moves up the lattice, or says no.
    pub fn advance(&mut self, step: Step) -> bool {
        if !self.status.may_become(step.status) {
            return false;
        }
        self.status = step.status;
        self.reason = step.reason.or(self.reason.filter(|_| step.status == Status::Unknown));
        self.note(step);
        true
    }

    /// Adds a step to the history without a change of state.
    pub fn note(&mut self, step: Step) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop();
        }
        self.history.push(step);
    }
}

/// Where an id leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// A message's conversation and time.
    pub message: Option<(ConversationId, Timestamp, MessageId)>,
    /// An event's place in the feed.
    pub event: Option<FeedPosition>,
}

/// A place in the feed: events of one shard, in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct FeedPosition {
    /// The shard.
    pub shard: u16,
    /// Rises within the shard, also across restarts and owners.
    pub order: u64,
}

/// An event's row. Its head holds ids and times only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Its head.
    pub event: Event,
    /// Where its data is.
    pub data: EventData,
    /// The `trunkline-sequence` that each endpoint was to get it with: so a delivery that is taken up again after a crash
    /// carries the same number.
    pub sequences: Vec<(EndpointId, u64)>,
    /// The conversation that these numbers are of, where the event names none; none either: the account's own.
    pub numbered_in: Option<ConversationId>,
}

impl EventRow {
    /// The conversation whose deliveries it stands among; none: the account's own.
    pub fn flow(&self) -> Option<ConversationId> {
        self.event.conversation.or(self.numbered_in)
    }
}

/// How far a shard is with the feed: what stands at or before `settled` is delivered, given up, or in `later`. After a crash
/// the next owner takes up what stands behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FeedProgress {
    /// The last order of the settled prefix.
    pub settled: u64,
}

/// Where an event's data is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventData {
    /// Here, as JSON, sealed with the contact's key.
    Sealed(Sealed<String>),
    /// Here, as JSON: no person's data (account, template and endpoint events).
    Plain(String),
    /// It is the content of the message.
    Message,
}

/// A parked record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its account.
    pub account: AccountId,
    /// Its channel.
    pub channel: ChannelKind,
    /// Why: one of a few short names.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The record, as it stood on the log (sealed).
    pub record: Vec<u8>,
}

/// What a kind of work of an account remembers between runs and processes: bytes of its own making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkNote(pub Vec<u8>);

impl WorkNote {
    /// Longest note, in bytes.
    pub const BYTES_MAX: usize = 4 * 1024;

    fn aad(tenant: TenantId, account: AccountId, work: Work) -> Vec<u8> {
        [&aad("work", tenant, &account.0)[..], &[work.code()]].concat()
    }
    /// For the store, sealed with the tenant's key. None: it is too long.
    pub fn seal(&self, tenant: TenantId, account: AccountId, work: Work, key: &DataKey) -> Option<Vec<u8>> {
        (self.0.len() <= Self::BYTES_MAX).then(|| key.seal(&Self::aad(tenant, account, work), &self.0))
    }
    /// From the store.
    ///
    /// # Errors
    /// It was sealed with another key or for another place.
    pub fn open(tenant: TenantId, account: AccountId, work: Work, key: &DataKey, bytes: &[u8]) -> Result<Self, BadRow> {
        Ok(Self(key.open(&Self::aad(tenant, account, work), bytes)?))
    }
}

/// A row that does not open or is of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored row does not open")]
pub struct BadRow;

impl From<OpenError> for BadRow {
    fn from(_: OpenError) -> Self {
        Self
    }
}
impl From<postcard::Error> for BadRow {
    fn from(_: postcard::Error) -> Self {
        Self
    }
}

fn aad(table: &str, tenant: TenantId, id: &[u8; 16]) -> Vec<u8> {
    [table.as_bytes(), &tenant.0, id].concat()
}

impl Conversation {
    /// For the store, sealed with the tenant's key.
    pub fn seal(&self, tenant: TenantId, key: &DataKey) -> Vec<u8> {
        key.seal_value(&aad("conversation", tenant, &self.id.0), self).into_bytes()
    }
    /// From the store.
    pub fn open(tenant: TenantId, id: ConversationId, key: &DataKey, bytes: &[u8]) -> Result<Self, BadRow> {
        Ok(key.open_value(&aad("conversation", tenant, &id.0), bytes)?)
    }
}

/// Packs a row into a buffer of about its size, so that it does not grow step by step.
fn packed<T: Serialize>(row: &T, about: usize) -> Vec<u8> {
    postcard::to_extend(row, Vec::with_capacity(about)).expect("our own types serialise")
}

impl MessageRow {
    /// A row of a head and, while it is kept, a content.
    pub fn seal(
        tenant: TenantId,
        message: MessageId,
        meta: &MessageMeta,
        key: &DataKey,
        content: Option<&str>,
        contact_key: &DataKey,
    ) -> Self {
        let content = content.map(|text| Self::seal_content(tenant, message, text, contact_key));
        Self { meta: key.seal_value(&aad("message", tenant, &message.0), meta), content }
    }
    /// The content alone.
    pub fn seal_content(tenant: TenantId, message: MessageId, content: &str, contact_key: &DataKey) -> Sealed<String> {
        Sealed::from_stored(contact_key.seal_once(&aad("message.content", tenant, &message.0), content.as_bytes()))
    }
    /// The head.
    pub fn open_meta(&self, tenant: TenantId, message: MessageId, key: &DataKey) -> Result<MessageMeta, BadRow> {
        Ok(key.open_value(&aad("message", tenant, &message.0), self.meta.as_bytes())?)
    }
    /// Puts another head in.
    pub fn set_meta(&mut self, tenant: TenantId, message: MessageId, meta: &MessageMeta, key: &DataKey) {
        self.meta = key.seal_value(&aad("message", tenant, &message.0), meta);
    }
    /// The content; none when the person withdrew it.
    pub fn open_content(&self, tenant: TenantId, message: MessageId, contact_key: &DataKey) -> Result<Option<String>, BadRow> {
        let Some(content) = &self.content else { return Ok(None) };
        let plain = contact_key.open(&aad("message.content", tenant, &message.0), content.as_bytes())?;
        String::from_utf8(plain).map(Some).map_err(|_| BadRow)
    }
    /// For the store.
    pub fn encode(&self) -> Vec<u8> {
        packed(self, self.meta.as_bytes().len() + self.content.as_ref().map_or(0, |content| content.as_bytes().len()) + 16)
    }
    /// From the store.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRow> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

impl Pointer {
    /// For the store.
    pub fn encode(&self) -> Vec<u8> {
        packed(self, 96)
    }
    /// From the store.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRow> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

impl EventData {
    /// Seals data that says something of a person.
    pub fn seal(tenant: TenantId, event: EventId, data: &str, contact_key: &DataKey) -> Self {
        Self::Sealed(Sealed::from_stored(contact_key.seal_once(&aad("event.data", tenant, &event.0), data.as_bytes())))
    }
    /// Opens sealed data.
    pub fn open(sealed: &Sealed<String>, tenant: TenantId, event: EventId, contact_key: &DataKey) -> Result<String, BadRow> {
        let plain = contact_key.open(&aad("event.data", tenant, &event.0), sealed.as_bytes())?;
        String::from_utf8(plain).map_err(|_| BadRow)
    }
}

impl EventRow {
    /// For the store.
    pub fn encode(&self) -> Vec<u8> {
        packed(self, 256)
    }
    /// From the store.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRow> {
        if let Ok(row) = postcard::from_bytes(bytes) {
            return Ok(row);
        }
        // Rows of before end with the numbers.
        let (event, data, sequences) = postcard::from_bytes(bytes)?;
        Ok(Self { event, data, sequences, numbered_in: None })
    }
}
