//! The pure heart: (conversation state, directory snapshot, record or outcome, now) -> rows and effects. No I/O, no clock, no
//! chance: everything comes in on the desk.

use std::fmt::Write as _;
use std::time::Duration;

use messaging::channels::{ChannelKind, Inbound, channel};
use messaging::clock::Timestamp;
use messaging::content::Handle;
use messaging::directory::Account;
use messaging::ids::{AccountId, ContactId, ConversationId, EventId, ID_BYTES, IdHasher, MessageId};
use messaging::outcome::Outcome;
use messaging::record::{Command, Notice, Record};
use messaging::state::{Conversation, Pointer};
use messaging::store::Key;
use messaging::tenant::Tenant;

use crate::desk::{Desk, Unfit};

pub mod account;
pub mod inbound;
pub mod media;
pub mod outbound;
pub mod watermark;
pub mod window;

/// About the bytes of an event's data before its message.
const PLACE_AND_PERSON_BYTES: usize = 384;

/// A record, parsed.
#[derive(Debug)]
pub enum Parsed {
    /// What a platform said, and the id under which it is stored: its message's, or its event's.
    Inbound(Box<Inbound>, [u8; ID_BYTES]),
    /// What a merchant or shard asked for.
    Command(Box<Command>),
}

/// Parses a record's body.
pub fn parse(record: &Record, ids: &IdHasher) -> Result<Parsed, Unfit> {
    use messaging::record::RecordKind;
    let inbound = match record.kind {
        RecordKind::Inbound => channel(record.channel).parse(&record.body).map_err(|_| Unfit::Body)?,
        RecordKind::Unparsable => return Err(Unfit::Body),
        RecordKind::Notice => serde_json::from_slice::<Notice>(&record.body).map_err(|_| Unfit::Body)?.into_inbound(),
        RecordKind::Command => {
            return serde_json::from_slice(&record.body).map(|command| Parsed::Command(Box::new(command))).map_err(|_| Unfit::Body);
        }
    };
    let id = inbound::stored_id(record, &inbound, ids);
    Ok(Parsed::Inbound(Box::new(inbound), id))
}

/// Other conversations that the record's handles would be keys of, and that the state does not know yet.
pub fn strangers(record: &Record, parsed: &Parsed, state: Option<&Conversation>, ids: &IdHasher) -> Vec<ConversationId> {
    let Parsed::Inbound(inbound, _) = parsed else { return Vec::new() };
    let known = |handle: &Handle| state.is_some_and(|state| state.handles.contains(handle));
    let news = inbound.contact.handles.iter().filter(|handle| !known(handle));
    let keys = news.map(|handle| ids.conversation(record.tenant.id(), record.account, handle.expose()));
    keys.filter(|id| *id != record.conversation).collect()
}

/// The rows that a record's decision reads: pointers, and messages whose place is known. What is later than the state's newest
/// stored platform time has surely not been seen, which spares the read.
pub fn pointers(record: &Record, parsed: &Parsed, state: Option<&Conversation>, ids: &IdHasher) -> Vec<Key> {
    match parsed {
        Parsed::Inbound(inbound, id) => inbound::pointers(record, inbound, *id, state, ids),
        Parsed::Command(command) => outbound::pointers(record, command, ids),
    }
}

/// Decides one record.
pub fn record(desk: &mut Desk<'_>, record: &Record, parsed: &Parsed) -> Result<Outcome, Unfit> {
    desk.begin(record.accepted_at);
    match parsed {
        Parsed::Inbound(inbound, id) => inbound::decide(desk, record, inbound, *id),
        Parsed::Command(command) => outbound::decide(desk, record, command),
    }
}

/// The account of a record, or why there is none.
pub(crate) fn account_of<'a>(desk: &Desk<'a>, tenant: Tenant, account: AccountId) -> Result<&'a Account, Unfit> {
    desk.world.directory.account_of(tenant, account).map(std::convert::AsRef::as_ref).ok_or(Unfit::Owner)
}

/// The state of a record's conversation; begins one when there is none.
pub(crate) fn state_for(
    desk: &mut Desk<'_>,
    tenant: Tenant,
    account: AccountId,
    kind: ChannelKind,
    id: ConversationId,
    handle: &Handle,
) -> bool {
    if desk.states.contains_key(&id) {
        return false;
    }
    let contact = desk.world.ids.contact(id);
    let key = desk.fresh_key();
    desk.states.insert(id, (tenant, Conversation::new(id, account, kind, contact, handle.clone(), key)));
    lead_there(desk, tenant, contact, id);
    desk.touch(id);
    true
}

/// Leads from the contact's id to its conversation: the API takes either.
fn lead_there(desk: &mut Desk<'_>, tenant: Tenant, contact: ContactId, id: ConversationId) {
    let pointer = Pointer { message: Some((id, Timestamp::ZERO, MessageId([0; 16]))), event: None };
    desk.put_blind(Key::Pointer(tenant.id(), contact.0), pointer.encode());
}

/// How often the pointer of a conversation in use is written anew: shorter than pointers are kept.
const POINTER_RENEWED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Notes that the conversation is in use, and keeps the pointer alive that leads to it: it ends by its retention, the conversation
/// does not.
pub(crate) fn in_use(desk: &mut Desk<'_>, tenant: Tenant, id: ConversationId, at: Timestamp) -> Result<(), Unfit> {
    let (_, state) = desk.states.get_mut(&id).ok_or(Unfit::Row)?;
    let before = state.active_at;
    state.active_at = before.max(at);
    let contact = state.contact;
    let stretch = |at: Timestamp| at.as_secs() / POINTER_RENEWED.as_secs();
    if before > Timestamp::ZERO && stretch(before) < stretch(at) {
        lead_there(desk, tenant, contact, id);
    }
    desk.touch(id);
    Ok(())
}

/// JSON text of a string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("strings serialise")
}

/// The contact as subscribers see it.
fn put_contact(out: &mut String, conversation: &Conversation) {
    let _ = write!(out, "{{\"id\":\"{}\"", conversation.contact);
    if let Some(name) = &conversation.name {
        let _ = write!(out, ",\"name\":{}", quoted(name));
    }
    if let Some(username) = &conversation.username {
        let _ = write!(out, ",\"username\":{}", quoted(username));
    }
    for handle in conversation.handles.iter().filter(|handle| handle.scheme() != "account") {
        if let serde_json::Value::Object(members) = channel(conversation.channel).recipient_json(handle) {
            for (name, value) in members {
                let _ = write!(out, ",{}:{value}", quoted(&name));
            }
        }
    }
    out.push('}');
}

/// The data of an event: where it happened, who, the message, and what else the kind has (`extra`: members with a comma in front).
pub(crate) fn data(conversation: &Conversation, message: &str, extra: &str) -> String {
    let mut out = place_and_person(conversation, message.len() + extra.len());
    out.push_str(r#","message":"#);
    out.push_str(message);
    out.push_str(extra);
    out.push('}');
    out
}

/// The data of an event without a message.
pub(crate) fn plain_data(conversation: &Conversation, extra: &str) -> String {
    let mut out = place_and_person(conversation, extra.len());
    out.push_str(extra);
    out.push('}');
    out
}

/// The beginning of an event's data, in a buffer with room for so many bytes more.
fn place_and_person(conversation: &Conversation, more: usize) -> String {
    let mut out = String::with_capacity(PLACE_AND_PERSON_BYTES + more);
    let Conversation { channel, account, id, .. } = conversation;
    let _ = write!(out, r#"{{"channel":"{}","account":"{account}","conversation":"{id}","contact":"#, channel.name());
    put_contact(&mut out, conversation);
    out
}

/// The id of an event that has no message of its own.
pub(crate) fn event_id(record: &Record, inbound: &Inbound, kind: &str, ids: &IdHasher) -> EventId {
    let tenant = record.tenant.id();
    if inbound.platform_id.is_empty() {
        let hash = ids.content(tenant, record.account, &record.body);
        return ids.event(tenant, record.account, kind, &hash, &inbound.qualifier);
    }
    ids.event(tenant, record.account, kind, inbound.platform_id.as_bytes(), &inbound.qualifier)
}

/// The id of a message that the platform brought.
pub(crate) fn inbound_message_id(record: &Record, inbound: &Inbound, ids: &IdHasher) -> MessageId {
    let tenant = record.tenant.id();
    if inbound.platform_id.is_empty() {
        return MessageId(ids.content(tenant, record.account, &record.body));
    }
    ids.inbound_message(tenant, record.account, &inbound.platform_id)
}
