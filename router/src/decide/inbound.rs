//! What a platform says becomes rows and events.

use std::borrow::Cow;
use std::fmt::Write as _;

use messaging::channels::{Inbound, InboundBody, StatusUpdate};
use messaging::clock::Timestamp;
use messaging::content::Content;
use messaging::event::EventType;
use messaging::ids::{EventId, ID_BYTES, IdHasher, MessageId};
use messaging::metrics;
use messaging::outcome::{Outcome, Reason, Status, Step};
use messaging::record::{Command, Record};
use messaging::state::{Conversation, Direction, MessageMeta};
use messaging::store::Key;

use super::{account_of, data, event_id, inbound_message_id, media, plain_data, quoted, state_for, watermark, window};
use crate::desk::{Desk, Home, News, OpenMessage, Unfit};

/// About the bytes of a message as subscribers see it, beside its content.
const HEAD_BYTES: usize = 256;

/// The platform ids of messages that a piece refers to.
fn targets(inbound: &Inbound) -> Vec<&str> {
    match &inbound.body {
        InboundBody::Message { reply_to, .. } | InboundBody::Echo { reply_to, .. } => reply_to.as_deref().into_iter().collect(),
        InboundBody::Status(update) => vec![update.message.as_str()],
        InboundBody::Reaction { target, .. } | InboundBody::Edit { target, .. } => vec![target],
        InboundBody::Delete { targets } => targets.iter().map(String::as_str).collect(),
        InboundBody::Watermark { messages, .. } => messages.iter().map(String::as_str).collect(),
        InboundBody::Preference { .. }
        | InboundBody::Rekeyed { .. }
        | InboundBody::Reachable(_)
        | InboundBody::Account { .. }
        | InboundBody::Resource { .. }
        | InboundBody::Platform { .. } => Vec::new(),
    }
}

/// The pointers that the decision reads.
pub fn pointers(record: &Record, inbound: &Inbound, id: [u8; ID_BYTES], state: Option<&Conversation>, ids: &IdHasher) -> Vec<Key> {
    let tenant = record.tenant.id();
    let mut keys = Vec::new();
    for target in targets(inbound) {
        keys.push(Key::PlatformId(tenant, record.account, ids.platform_ref(tenant, record.account, target)));
        keys.push(Key::Pointer(tenant, ids.inbound_message(tenant, record.account, target).0));
    }
    if let InboundBody::Status(StatusUpdate { callback: Some(callback), .. }) = &inbound.body
        && let Ok(id) = callback.parse::<MessageId>()
    {
        keys.push(Key::Pointer(tenant, id.0));
    }
    if let (InboundBody::Watermark { .. }, Some(state)) = (&inbound.body, state) {
        keys.extend(watermark::keys(tenant, record.conversation, state));
    }
    if let InboundBody::Echo { .. } = inbound.body {
        // An echo of our own send has the send's platform id.
        keys.push(Key::PlatformId(tenant, record.account, ids.platform_ref(tenant, record.account, &inbound.platform_id)));
    }
    let surely_new = inbound.at > Timestamp::ZERO && state.is_none_or(|state| state.is_surely_new(inbound.at, &id));
    if !surely_new {
        keys.push(Key::Pointer(tenant, id));
    }
    keys
}

/// The id under which a piece is stored, by which it is known when it comes again.
pub fn stored_id(record: &Record, inbound: &Inbound, ids: &IdHasher) -> [u8; ID_BYTES] {
    match &inbound.body {
        InboundBody::Message { .. } | InboundBody::Echo { .. } => inbound_message_id(record, inbound, ids).0,
        InboundBody::Status(_)
        | InboundBody::Reaction { .. }
        | InboundBody::Edit { .. }
        | InboundBody::Delete { .. }
        | InboundBody::Watermark { .. }
        | InboundBody::Preference { .. }
        | InboundBody::Rekeyed { .. }
        | InboundBody::Reachable(_)
        | InboundBody::Account { .. }
        | InboundBody::Resource { .. }
        | InboundBody::Platform { .. } => event_id(record, inbound, inbound.body.kind_name(), ids).0,
    }
}

/// Decides a piece.
pub fn decide(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, id: [u8; ID_BYTES]) -> Result<Outcome, Unfit> {
    account_of(desk, record.tenant, record.account)?;
    if desk.row(&Key::Pointer(record.tenant.id(), id)).is_some() {
        return Ok(Outcome::Duplicate);
    }
    let handle = inbound.contact.handles.first().cloned().unwrap_or_else(messaging::content::Handle::account);
    let began = state_for(desk, record.tenant, record.account, record.channel, record.conversation, &handle);
    learn(desk, record, inbound, began);
    if inbound.opens_window {
        window::open(desk, record, inbound.at, inbound.from_ad)?;
    }
    let outcome = match &inbound.body {
        InboundBody::Message { content, reply_to } => {
            message(desk, record, inbound, MessageId(id), content, reply_to.as_deref(), Direction::In)?
        }
        InboundBody::Echo { content, reply_to } => {
            message(desk, record, inbound, MessageId(id), content, reply_to.as_deref(), Direction::Echo)?
        }
        InboundBody::Status(update) => status(desk, record, inbound, update)?,
        InboundBody::Reaction { target, emoji } => {
            let head = format!(
                r#"{},"emoji":{}}}"#,
                target_head(desk, record, target)?,
                emoji.as_deref().map_or_else(|| "null".to_owned(), quoted)
            );
            about_message(desk, record, inbound, EventType::MessageReaction, &head)?
        }
        InboundBody::Watermark { status, upto, messages } => watermark::apply(desk, record, inbound.at, *status, *upto, messages)?,
        InboundBody::Resource { event, name, data } => {
            let extra = format!(r#","{name}":{data}"#);
            if handle.scheme() == "account" {
                account_event(desk, record, inbound, *event, &extra)?
            } else {
                personal_event(desk, record, inbound, *event, &extra)?
            }
        }
        InboundBody::Edit { target, content } => edit(desk, record, inbound, target, content)?,
        InboundBody::Delete { targets } => delete(desk, record, inbound, targets)?,
        InboundBody::Preference { opted_out, category } => preference(desk, record, inbound, *opted_out, category)?,
        InboundBody::Rekeyed { handles } => rekeyed(desk, record, inbound, handles)?,
        InboundBody::Reachable(reachable) => reachable_again(desk, record, inbound, *reachable)?,
        InboundBody::Account { event, data } => {
            let extra = format!(r#","change":{}"#, serde_json::to_string(data).expect("json serialises"));
            account_event(desk, record, inbound, *event, &extra)?
        }
        InboundBody::Platform { kind, raw } => {
            let extra = format!(r#","kind":{},"raw":{raw}"#, quoted(kind));
            if handle.scheme() == "account" {
                account_event(desk, record, inbound, EventType::PlatformEvent, &extra)?
            } else {
                personal_event(desk, record, inbound, EventType::PlatformEvent, &extra)?
            }
        }
    };
    let (_, state) = desk.states.get_mut(&record.conversation).ok_or(Unfit::Row)?;
    state.note_stored(inbound.at, &id);
    super::in_use(desk, record.tenant, record.conversation, record.accepted_at)?;
    Ok(outcome)
}

/// Takes in what the piece says of the person, and links the conversations of handles not known before.
fn learn(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, began: bool) {
    let Some((_, state)) = desk.states.get_mut(&record.conversation) else { return };
    if inbound.contact.name.is_some() {
        state.name.clone_from(&inbound.contact.name);
    }
    if inbound.contact.username.is_some() {
        state.username.clone_from(&inbound.contact.username);
    }
    if inbound.contact.via.is_some() {
        state.via.clone_from(&inbound.contact.via);
        let from = if inbound.at == Timestamp::ZERO { record.accepted_at } else { inbound.at.min(record.accepted_at) };
        state.via_until = inbound.contact.via_for.map_or(Timestamp::ZERO, |length| from.plus(length));
    }
    if let InboundBody::Message { .. } = inbound.body {
        state.unreachable = false;
    }
    let mut links = Vec::new();
    for handle in &inbound.contact.handles {
        if state.handles.contains(handle) && !began {
            continue;
        }
        if !state.handles.contains(handle) {
            state.handles.push(handle.clone());
        }
        links.push(desk.world.ids.conversation(record.tenant.id(), record.account, handle.expose()));
    }
    for other in links {
        if other != record.conversation {
            link(desk, record, other);
        }
    }
}

/// Asks the shard of another conversation to make it an alias of this one.
fn link(desk: &mut Desk<'_>, record: &Record, other: messaging::ids::ConversationId) {
    let Some(account) = desk.world.directory.account_of(record.tenant, record.account) else { return };
    let command = Command::Link { to: record.conversation };
    desk.effects.records.push(Record::command(account.owner, record.channel, other, &command, record.accepted_at));
}

fn message(
    desk: &mut Desk<'_>,
    record: &Record,
    inbound: &Inbound,
    id: MessageId,
    content: &Content,
    reply_to: Option<&str>,
    direction: Direction,
) -> Result<Outcome, Unfit> {
    let tenant = record.tenant;
    if direction == Direction::Echo {
        let reference = desk.world.ids.platform_ref(tenant.id(), record.account, &inbound.platform_id);
        if desk.message_by_platform_id(tenant, record.account, reference)?.is_some() {
            return Ok(Outcome::Duplicate);
        }
    }
    let at = if inbound.at == Timestamp::ZERO { record.accepted_at } else { inbound.at.min(record.accepted_at) };
    let content = &*media::announce(desk, record, inbound, &inbound.platform_id, (record.conversation, at, id), content)?;
    let members = content.members();
    let mut head = String::with_capacity(members.len() + HEAD_BYTES);
    let _ = write!(head, r#"{{"id":"{id}","direction":"{}""#, if direction == Direction::In { "in" } else { "echo" });
    if !inbound.platform_id.is_empty() {
        let _ = write!(head, r#","platform_id":{}"#, quoted(&inbound.platform_id));
    }
    let _ = write!(head, r#","at":"{at}",{members}"#);
    if let Some(target) = reply_to {
        let _ = write!(head, r#","reply_to":{}}}"#, target_head(desk, record, target)?);
    }
    if !inbound.context.is_empty() {
        let _ = write!(head, r#","context":{}"#, serde_json::to_string(&inbound.context).expect("json serialises"));
    }
    head.push('}');
    let feed = desk.next_feed();
    let meta = MessageMeta {
        direction,
        kind: content.kind().to_owned(),
        status: Status::Delivered,
        account: record.account,
        to: None,
        platform_id: (!inbound.platform_id.is_empty()).then(|| inbound.platform_id.clone()),
        history: Vec::new(),
        reason: None,
        accepted_at: record.accepted_at,
        expires_at: None,
        not_before: None,
        attempt: 0,
        epoch: 0,
        possible_duplicate: false,
        parked: false,
        fingerprint: [0; 16],
    };
    let (_, state) = desk.states.get_mut(&record.conversation).ok_or(Unfit::Row)?;
    if direction == Direction::In && !inbound.platform_id.is_empty() {
        state.newest_inbound = Some(inbound.platform_id.clone());
    }
    let (data, contact_key) = (data(state, &head, ""), state.contact_key());
    desk.new_message(tenant, (record.conversation, at, id), &contact_key, meta, &data, Some(feed))?;
    let kind = if direction == Direction::In { EventType::MessageReceived } else { EventType::MessageEchoed };
    emit(desk, record, inbound, kind, EventId::of_message(id), Some(id), true, &data, Home::Message, Some(feed))?;
    Ok(Outcome::Done)
}

/// `{"platform_id":…,"id":…` of a message that a piece refers to, without the closing brace.
fn target_head(desk: &Desk<'_>, record: &Record, target: &str) -> Result<String, Unfit> {
    let mut head = format!(r#"{{"platform_id":{}"#, quoted(target));
    if let Some(message) = find(desk, record, target)? {
        let _ = write!(head, r#","id":"{}""#, message.id);
    }
    Ok(head)
}

/// A message by the platform's id: one of ours, or one that came in.
fn find(desk: &Desk<'_>, record: &Record, platform_id: &str) -> Result<Option<OpenMessage>, Unfit> {
    let tenant = record.tenant;
    let reference = desk.world.ids.platform_ref(tenant.id(), record.account, platform_id);
    if let Some(message) = desk.message_by_platform_id(tenant, record.account, reference)? {
        return Ok(Some(message));
    }
    desk.message(tenant, desk.world.ids.inbound_message(tenant.id(), record.account, platform_id))
}

fn status(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, update: &StatusUpdate) -> Result<Outcome, Unfit> {
    if let Some(reported) = metrics::ReportedStatus::of(update.status) {
        metrics::MESSAGE_STATUS.at([record.channel.index(), reported.index()]).increment(1);
    }
    let tenant = record.tenant;
    let ours = match update.callback.as_deref().and_then(|text| text.parse::<MessageId>().ok()) {
        Some(id) => desk.message(tenant, id)?,
        None => None,
    };
    let reference = desk.world.ids.platform_ref(tenant.id(), record.account, &update.message);
    let found = match ours {
        Some(message) => Some(message),
        None => desk.message_by_platform_id(tenant, record.account, reference)?,
    };
    if update.reason == Some(Reason::WindowClosed) {
        window::close_early(desk, record)?;
    }
    if update.reason == Some(Reason::OptedOut)
        && let Some((_, state)) = desk.states.get_mut(&record.conversation)
    {
        state.opted_out = true;
    }
    let mut extra = format!(r#","platform_status":{}"#, quoted(&update.platform_status));
    if !update.extra.is_empty() {
        let _ = write!(extra, r#","platform":{}"#, serde_json::to_string(&update.extra).expect("json serialises"));
    }
    let at = if inbound.at == Timestamp::ZERO { record.accepted_at } else { inbound.at };
    let Some(mut message) = found else {
        return foreign_status(desk, record, inbound, update, &extra);
    };
    if message.meta.direction != Direction::Out {
        return Ok(Outcome::Duplicate);
    }
    if message.meta.platform_id.is_none() {
        message.meta.platform_id = Some(update.message.clone());
        let pointer = messaging::state::Pointer { message: Some((message.conversation, message.at, message.id)), event: None };
        desk.put(Key::PlatformId(tenant.id(), record.account, reference), pointer.encode());
        desk.save(tenant, &mut message)?;
    }
    if !desk.states.contains_key(&message.conversation) {
        // The status came under another handle than the send: its conversation is not loaded here, and its own shard moves it.
        return Ok(Outcome::Duplicate);
    }
    let attempt = message.meta.attempt;
    let step = Step { at, status: update.status, reason: update.reason, detail: update.detail.clone(), attempt };
    let moved = desk.advance(tenant, &mut message, step, &extra)?;
    if moved && update.status == Status::Sent {
        watermark::wait(desk, tenant, &mut message)?;
    }
    Ok(if moved { Outcome::Done } else { Outcome::Duplicate })
}

/// A status of a message that was not sent through us: told, with the platform's id only.
fn foreign_status(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, update: &StatusUpdate, extra: &str) -> Result<Outcome, Unfit> {
    let kind = match update.status {
        Status::Sent => EventType::MessageSent,
        Status::Delivered => EventType::MessageDelivered,
        Status::Read => EventType::MessageRead,
        Status::Failed | Status::Cancelled | Status::Expired => EventType::MessageFailed,
        Status::Accepted | Status::Queued | Status::Sending | Status::Unknown => EventType::MessageUnknown,
    };
    let mut head = format!(r#"{{"platform_id":{},"status":"{}""#, quoted(&update.message), update.status.name());
    if let Some(reason) = update.reason {
        let _ = write!(head, r#","reason":"{}""#, reason.name());
    }
    if let Some(detail) = &update.detail {
        let _ = write!(head, r#","detail":{}"#, quoted(detail));
    }
    head.push('}');
    let (_, state) = desk.states.get(&record.conversation).ok_or(Unfit::Row)?;
    let data = data(state, &head, extra);
    let id = event_id(record, inbound, "status", desk.world.ids);
    emit(desk, record, inbound, kind, id, None, true, &data, Home::Event, None)?;
    Ok(Outcome::Done)
}

fn about_message(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, kind: EventType, head: &str) -> Result<Outcome, Unfit> {
    let (_, state) = desk.states.get(&record.conversation).ok_or(Unfit::Row)?;
    let mut extra = String::new();
    if !inbound.context.is_empty() {
        let _ = write!(extra, r#","context":{}"#, serde_json::to_string(&inbound.context).expect("json serialises"));
    }
    let data = data(state, head, &extra);
    let id = event_id(record, inbound, inbound.body.kind_name(), desk.world.ids);
    emit(desk, record, inbound, kind, id, None, true, &data, Home::Event, None)?;
    Ok(Outcome::Done)
}

fn edit(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, target: &str, content: &Content) -> Result<Outcome, Unfit> {
    let found = find(desk, record, target)?;
    let content = match &found {
        Some(message) if message.meta.direction != Direction::Out => {
            let row = (message.conversation, message.at, message.id);
            media::announce(desk, record, inbound, target, row, content)?
        }
        Some(_) | None => Cow::Borrowed(content),
    };
    let head = format!("{},{}}}", target_head(desk, record, target)?, content.members());
    if let Some(mut message) = found
        && message.meta.direction != Direction::Out
        && desk.states.contains_key(&message.conversation)
    {
        let (_, state) = desk.states.get(&message.conversation).ok_or(Unfit::Row)?;
        let new = data(state, &head, r#","edited":true"#);
        desk.set_content(record.tenant, &mut message, Some(&new))?;
    }
    about_message(desk, record, inbound, EventType::MessageEdited, &head)
}

/// The person withdrew messages: their content is forgotten here, and subscribers are told to forget it.
fn delete(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, targets: &[String]) -> Result<Outcome, Unfit> {
    let mut heads = Vec::with_capacity(targets.len());
    for target in targets {
        heads.push(format!("{}}}", target_head(desk, record, target)?));
        if let Some(mut message) = find(desk, record, target)?
            && desk.states.contains_key(&message.conversation)
        {
            media::withdraw(desk, record.tenant, &message)?;
            desk.set_content(record.tenant, &mut message, None)?;
        } else {
            // Withdrawn before it came: the pointer makes the message a duplicate when it does.
            let id = desk.world.ids.inbound_message(record.tenant.id(), record.account, target);
            let nothing = messaging::state::Pointer { message: None, event: None };
            desk.put(Key::Pointer(record.tenant.id(), id.0), nothing.encode());
            if let Some((_, state)) = desk.states.get_mut(&record.conversation) {
                // Else the message, of the same second perhaps, would be taken for surely new and told.
                state.note_stored(inbound.at, &id.0);
            }
        }
    }
    let first = heads.first().cloned().unwrap_or_else(|| "{}".to_owned());
    let (_, state) = desk.states.get(&record.conversation).ok_or(Unfit::Row)?;
    let data = data(state, &first, &format!(r#","messages":[{}]"#, heads.join(",")));
    let id = event_id(record, inbound, "delete", desk.world.ids);
    emit(desk, record, inbound, EventType::MessageDeleted, id, None, true, &data, Home::Event, None)?;
    Ok(Outcome::Done)
}

fn preference(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, opted_out: bool, category: &str) -> Result<Outcome, Unfit> {
    let (_, state) = desk.states.get_mut(&record.conversation).ok_or(Unfit::Row)?;
    state.opted_out = opted_out;
    let kind = if opted_out { EventType::ContactOptedOut } else { EventType::ContactOptedIn };
    personal_event(desk, record, inbound, kind, &format!(r#","category":{}"#, quoted(category)))
}

fn rekeyed(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, handles: &[messaging::content::Handle]) -> Result<Outcome, Unfit> {
    let (_, state) = desk.states.get_mut(&record.conversation).ok_or(Unfit::Row)?;
    let mut links = Vec::new();
    for handle in handles {
        // The newest handle of a scheme is the one to write to.
        state.handles.retain(|known| known == handle || known.scheme() != handle.scheme());
        if !state.handles.contains(handle) {
            state.handles.insert(0, handle.clone());
        }
        links.push(desk.world.ids.conversation(record.tenant.id(), record.account, handle.expose()));
    }
    for other in links {
        if other != record.conversation {
            link(desk, record, other);
        }
    }
    personal_event(desk, record, inbound, EventType::ContactUpdated, r#","change":"handles""#)
}

fn reachable_again(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, reachable: bool) -> Result<Outcome, Unfit> {
    let (_, state) = desk.states.get_mut(&record.conversation).ok_or(Unfit::Row)?;
    state.unreachable = !reachable;
    personal_event(desk, record, inbound, EventType::ContactUpdated, &format!(r#","change":"reachable","reachable":{reachable}"#))
}

fn personal_event(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, kind: EventType, extra: &str) -> Result<Outcome, Unfit> {
    let (_, state) = desk.states.get(&record.conversation).ok_or(Unfit::Row)?;
    let mut extra = extra.to_owned();
    if !inbound.context.is_empty() {
        let _ = write!(extra, r#","context":{}"#, serde_json::to_string(&inbound.context).expect("json serialises"));
    }
    let data = plain_data(state, &extra);
    let id = event_id(record, inbound, inbound.body.kind_name(), desk.world.ids);
    emit(desk, record, inbound, kind, id, None, true, &data, Home::Event, None)?;
    Ok(Outcome::Done)
}

fn account_event(desk: &mut Desk<'_>, record: &Record, inbound: &Inbound, kind: EventType, extra: &str) -> Result<Outcome, Unfit> {
    let data = format!(r#"{{"channel":"{}","account":"{}"{extra}}}"#, record.channel.name(), record.account);
    let id = event_id(record, inbound, inbound.body.kind_name(), desk.world.ids);
    emit(desk, record, inbound, kind, id, None, false, &data, Home::Event, None)?;
    Ok(Outcome::Done)
}

#[allow(clippy::too_many_arguments, reason = "one call site per kind of event, each names all of it")]
fn emit(
    desk: &mut Desk<'_>,
    record: &Record,
    inbound: &Inbound,
    kind: EventType,
    id: EventId,
    message: Option<MessageId>,
    personal: bool,
    data: &str,
    home: Home,
    feed: Option<messaging::state::FeedPosition>,
) -> Result<(), Unfit> {
    let at = if inbound.at == Timestamp::ZERO { record.accepted_at } else { inbound.at };
    desk.emit(News { personal, message, at, home, feed, ..News::of(record, kind, id, data) })
}
