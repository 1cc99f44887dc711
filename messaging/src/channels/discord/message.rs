//! Frames of the Gateway: messages, their changes and ends, reactions. A piece holds the event's name, its number, the bot's own user
//! id, and what the event says.

use serde_json::{Value, json};

use super::content::content;
use super::news::names;
use super::parse::inbound;
use super::wire::{Object, array, count, flag, malformed, object, owned, text, time, time_of};
use super::{CHANNEL, USER, nonce};
use crate::channels::{Inbound, InboundBody, Malformed, PieceKind, StatusUpdate};
use crate::clock::Timestamp;
use crate::content::Handle;
use crate::outcome::Status;

/// `type` of a channel between a person and the bot.
pub(super) const DIRECT: u64 = 1;
/// `type` of a component that is a button.
pub(super) const BUTTON: u64 = 2;
/// Types of messages that somebody wrote: plain, answer, by a command, by a menu's command. The others are the platform's notices.
const WRITTEN: [u64; 4] = [0, 19, 20, 23];
/// `type` of a reference that passes a message on.
const FORWARD: u64 = 1;
/// Members of a message that subscribers may want, as they came.
const COPIED: [&str; 4] = ["guild_id", "webhook_id", "thread", "sticker_items"];

/// Events that say nothing to us: the connection's own, and who is typing or there.
const SILENT: [&str; 8] = [
    "READY",
    "RESUMED",
    "TYPING_START",
    "PRESENCE_UPDATE",
    "GUILD_CREATE",
    "GUILD_MEMBERS_CHUNK",
    "MESSAGE_POLL_VOTE_ADD",
    "MESSAGE_POLL_VOTE_REMOVE",
];

/// Whether an event is worth a record. Our own follow-ups and reactions come back as well: what made them knows of them already.
pub(super) fn is_told(name: &str, event: &Object, bot: &str) -> bool {
    if SILENT.contains(&name) {
        return false;
    }
    match name {
        "MESSAGE_CREATE" | "MESSAGE_UPDATE" => {
            let by_token = event.contains_key("webhook_id") || event.contains_key("interaction_metadata");
            !(is_own(event, bot) && by_token)
        }
        "MESSAGE_REACTION_ADD" | "MESSAGE_REACTION_REMOVE" => text(event, "user_id") != Some(bot),
        _ => true,
    }
}

pub(super) fn kind_of(name: &str) -> PieceKind {
    match name {
        "MESSAGE_CREATE" | "MESSAGE_UPDATE" | "MESSAGE_DELETE" | "MESSAGE_DELETE_BULK" => PieceKind::Message,
        _ if name.starts_with("MESSAGE_REACTION_") => PieceKind::Reaction,
        _ => PieceKind::Other,
    }
}

/// The conversation of an event: its channel, else the account.
pub(super) fn place(event: &Object) -> Handle {
    text(event, "channel_id").map_or_else(Handle::account, |channel| Handle::new(CHANNEL, channel))
}

pub(super) fn parse(mut members: Object) -> Result<Inbound, Malformed> {
    let name = owned(&members, "t").ok_or_else(|| malformed("a frame without the event's name"))?;
    let bot = owned(&members, "bot").unwrap_or_default();
    let Some(Value::Object(event)) = members.remove("d") else { return Err(malformed("a frame without an event")) };
    match name.as_str() {
        "MESSAGE_CREATE" => created(event, &bot),
        "MESSAGE_UPDATE" => changed(event, &bot),
        "MESSAGE_DELETE" | "MESSAGE_DELETE_BULK" => deleted(&event),
        "MESSAGE_REACTION_ADD" | "MESSAGE_REACTION_REMOVE" => reacted(&name, &event),
        _ => Ok(platform(name, event)),
    }
}

fn is_own(event: &Object, bot: &str) -> bool {
    !bot.is_empty() && object(event, "author").and_then(|author| text(author, "id")) == Some(bot)
}

fn is_direct(event: &Object) -> bool {
    match count(event, "channel_type") {
        Some(kind) => kind == DIRECT,
        None => text(event, "guild_id").is_none(),
    }
}

fn written_at(event: &Object, id: &str) -> Timestamp {
    let said = time(event, "timestamp");
    if said == Timestamp::ZERO { time_of(id) } else { said }
}

fn id_of(event: &Object) -> Result<String, Malformed> {
    owned(event, "id").ok_or_else(|| malformed("a message without id"))
}

fn created(event: Object, bot: &str) -> Result<Inbound, Malformed> {
    let id = id_of(&event)?;
    let at = written_at(&event, &id);
    let own = is_own(&event, bot);
    if own && let Some(ours) = text(&event, "nonce").and_then(nonce::message) {
        return Ok(sent(&event, id, at, ours.to_string()));
    }
    let kind = count(&event, "type").unwrap_or(0);
    if !WRITTEN.contains(&kind) {
        let handle = place(&event);
        let body = InboundBody::Platform { kind: format!("MESSAGE_CREATE {kind}"), raw: Value::Object(event) };
        return Ok(inbound(handle, id, at, body));
    }
    let (content, reply_to) = (content(&event), reply_to(&event));
    let body = if own { InboundBody::Echo { content, reply_to } } else { InboundBody::Message { content, reply_to } };
    let mut inbound = inbound(place(&event), id, at, body);
    inbound.opens_window = !own;
    who_and_where(&mut inbound, &event, own);
    Ok(inbound)
}

/// A send of ours came back: it was taken, whatever became of the answer.
fn sent(event: &Object, id: String, at: Timestamp, message: String) -> Inbound {
    let update = StatusUpdate {
        message: id.clone(),
        status: Status::Sent,
        platform_status: "MESSAGE_CREATE".to_owned(),
        reason: None,
        detail: None,
        callback: Some(message),
        extra: Object::new(),
    };
    Inbound { qualifier: "sent".to_owned(), ..inbound(place(event), id, at, InboundBody::Status(update)) }
}

/// Only what has a time of change was changed by its author; the platform itself adds previews of links.
fn changed(event: Object, bot: &str) -> Result<Inbound, Malformed> {
    let id = id_of(&event)?;
    let Some(edited) = owned(&event, "edited_timestamp") else { return Ok(platform("MESSAGE_UPDATE".to_owned(), event)) };
    let body = InboundBody::Edit { target: id.clone(), content: content(&event) };
    let own = is_own(&event, bot);
    let mut inbound = inbound(place(&event), id, time(&event, "edited_timestamp"), body);
    inbound.qualifier = format!("edit:{edited}");
    who_and_where(&mut inbound, &event, own);
    Ok(inbound)
}

fn deleted(event: &Object) -> Result<Inbound, Malformed> {
    let mut targets: Vec<String> = array(event, "ids").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    targets.extend(owned(event, "id"));
    let first = targets.first().cloned().ok_or_else(|| malformed("a deletion without an id"))?;
    let mut inbound = inbound(place(event), first, Timestamp::ZERO, InboundBody::Delete { targets });
    copy(&mut inbound, event);
    Ok(inbound)
}

/// A reaction has neither id nor time: its bytes are its id, and the event's number tells a second one from the first.
fn reacted(name: &str, event: &Object) -> Result<Inbound, Malformed> {
    let target = owned(event, "message_id").ok_or_else(|| malformed("a reaction without a message"))?;
    let emoji = object(event, "emoji").and_then(emoji);
    let taken = name == "MESSAGE_REACTION_REMOVE";
    let body = InboundBody::Reaction { target, emoji: emoji.clone().filter(|_| !taken) };
    let mut inbound = inbound(place(event), String::new(), Timestamp::ZERO, body);
    copy(&mut inbound, event);
    if taken && let Some(emoji) = emoji {
        inbound.context.insert("removed".to_owned(), emoji.into());
    }
    let Some(user) = text(event, "user_id") else { return Ok(inbound) };
    if text(event, "guild_id").is_some() {
        let member = object(event, "member").and_then(|member| object(member, "user"));
        inbound.context.insert("from".to_owned(), member.map_or_else(|| json!({ "id": user }), person));
    } else {
        inbound.contact.handles.push(Handle::new(USER, user));
    }
    Ok(inbound)
}

/// An emoji, or `name:id` of a guild's own.
fn emoji(emoji: &Object) -> Option<String> {
    match (text(emoji, "name"), text(emoji, "id")) {
        (Some(name), Some(id)) => Some(format!("{name}:{id}")),
        (None, Some(id)) => Some(format!("_:{id}")),
        (name, None) => name.map(str::to_owned),
    }
}

fn platform(name: String, event: Object) -> Inbound {
    let handle = place(&event);
    // Without a member of its own that names it, the event's bytes are its id.
    inbound(handle, String::new(), Timestamp::ZERO, InboundBody::Platform { kind: name, raw: Value::Object(event) })
}

/// The message that this one answers.
fn reply_to(event: &Object) -> Option<String> {
    let reference = object(event, "message_reference")?;
    owned(reference, "message_id").filter(|_| count(reference, "type").unwrap_or(0) != FORWARD)
}

fn who_and_where(inbound: &mut Inbound, event: &Object, own: bool) {
    copy(inbound, event);
    let forwarded = object(event, "message_reference").is_some_and(|reference| count(reference, "type") == Some(FORWARD));
    if forwarded {
        inbound.context.insert("forwarded".to_owned(), true.into());
    }
    let Some(author) = object(event, "author").filter(|_| !own) else { return };
    if is_direct(event) {
        (inbound.contact.name, inbound.contact.username) = names(author);
        inbound.contact.handles.extend(text(author, "id").map(|id| Handle::new(USER, id)));
    } else {
        inbound.context.insert("from".to_owned(), person(author));
    }
}

fn copy(inbound: &mut Inbound, event: &Object) {
    for name in COPIED {
        if let Some(value) = event.get(name).filter(|value| !value.is_null()) {
            inbound.context.insert(name.to_owned(), value.clone());
        }
    }
}

/// A person among several, for the context.
pub(super) fn person(user: &Object) -> Value {
    let (name, username) = names(user);
    let mut shown = json!({ "id": text(user, "id"), "name": name, "username": username });
    if flag(user, "bot") {
        shown["bot"] = true.into();
    }
    shown
}
