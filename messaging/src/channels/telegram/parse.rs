//! What an update says.

use serde_json::{Map, Value};

use super::content::content;
use super::context::context;
use super::receive::{Located, UpdateKind, locate};
use super::{MessageKey, chat_handle};
use crate::channels::{ContactInfo, Inbound, InboundBody, Malformed};
use crate::clock::Timestamp;
use crate::content::{Content, InteractiveReply};

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// An update's object, with what the envelope says.
struct Update {
    located: Located,
    object: Object,
}

pub(super) fn parse(piece: &[u8]) -> Result<Inbound, Malformed> {
    let located = locate(piece).ok_or_else(|| malformed("not an update"))?;
    // The parser's own words may quote the text, so only the place is told.
    let mut members: Object =
        serde_json::from_slice(piece).map_err(|error| Malformed(format!("not JSON at line {} column {}", error.line(), error.column())))?;
    let Some((name, kind)) = located.kind else {
        return Ok(unknown_kind(&located, members));
    };
    let Some(Value::Object(object)) = members.remove(name) else {
        return Err(Malformed(format!("{name} is not an object")));
    };
    let update = Update { located, object };
    match kind {
        UpdateKind::Message | UpdateKind::BusinessMessage => update.message(kind),
        UpdateKind::EditedMessage | UpdateKind::EditedBusinessMessage => update.edit(),
        UpdateKind::DeletedBusinessMessages => update.deletion(),
        UpdateKind::MessageReaction => update.reaction(),
        UpdateKind::CallbackQuery => Ok(update.callback()),
        UpdateKind::MyChatMember => Ok(update.membership(name)),
        // A channel has no person who writes: posts are told as they are, and so is all that needs an answer of its own kind.
        UpdateKind::ChannelPost
        | UpdateKind::EditedChannelPost
        | UpdateKind::BusinessConnection
        | UpdateKind::GuestMessage
        | UpdateKind::MessageReactionCount
        | UpdateKind::InlineQuery
        | UpdateKind::ChosenInlineResult
        | UpdateKind::ShippingQuery
        | UpdateKind::PreCheckoutQuery
        | UpdateKind::PurchasedPaidMedia
        | UpdateKind::Poll
        | UpdateKind::PollAnswer
        | UpdateKind::ChatMember
        | UpdateKind::ChatJoinRequest
        | UpdateKind::ChatBoost
        | UpdateKind::RemovedChatBoost
        | UpdateKind::ManagedBot => Ok(update.platform(name)),
    }
}

fn malformed(what: &str) -> Malformed {
    Malformed(what.to_owned())
}

/// A kind that came after Bot API 10.1: told with its raw part.
fn unknown_kind(located: &Located, mut members: Object) -> Inbound {
    members.remove("update_id");
    let (kind, raw) = if members.len() == 1 {
        members.into_iter().next().expect("it has one member")
    } else {
        ("unknown".to_owned(), Value::Object(members))
    };
    let contact = ContactInfo { handles: vec![located.handle()], ..ContactInfo::default() };
    inbound(located, update_key(located), contact, InboundBody::Platform { kind, raw })
}

/// An event without anything special: the caller fills in the rest.
fn inbound(located: &Located, platform_id: String, contact: ContactInfo, body: InboundBody) -> Inbound {
    debug_assert_eq!(contact.handles.first(), Some(&located.handle()), "the key is computed from the first handle");
    Inbound {
        platform_id,
        qualifier: String::new(),
        at: Timestamp::ZERO,
        contact,
        opens_window: false,
        from_ad: false,
        body,
        context: Map::new(),
    }
}

/// The platform id of an update that is no message.
fn update_key(located: &Located) -> String {
    format!("update:{}", located.update_id)
}

impl Update {
    fn message(self, kind: UpdateKind) -> Result<Inbound, Malformed> {
        let (chat, key) = self.message_key()?;
        let at = time(&self.object, "date");
        if let Some(new) = int(&self.object, "migrate_to_chat_id").filter(|id| *id != 0) {
            let body = InboundBody::Rekeyed { handles: vec![chat_handle(new)] };
            return Ok(Inbound { at, ..inbound(&self.located, key, self.contact(), body) });
        }
        let (content, reply_to) = (content(&self.object), self.reply_to(chat));
        let ours = kind == UpdateKind::BusinessMessage && self.is_from_the_business(chat);
        let body = if ours { InboundBody::Echo { content, reply_to } } else { InboundBody::Message { content, reply_to } };
        let context = context(&self.object, chat);
        Ok(Inbound { at, opens_window: !ours, context, ..inbound(&self.located, key, self.contact(), body) })
    }

    /// In a private chat of a business account whatever the person did not write was written by the owner or by a bot for them.
    fn is_from_the_business(&self, chat: i64) -> bool {
        let sender = object(&self.object, "from").and_then(|from| int(from, "id"));
        self.object.contains_key("sender_business_bot") || (chat > 0 && sender.is_some_and(|sender| sender != chat))
    }

    fn edit(self) -> Result<Inbound, Malformed> {
        let (chat, key) = self.message_key()?;
        let body = InboundBody::Edit { target: key.clone(), content: content(&self.object) };
        let edited = time(&self.object, "edit_date");
        let at = if edited == Timestamp::ZERO { time(&self.object, "date") } else { edited };
        // Not the edit's time: a live location may change twice in a second.
        let qualifier = format!("edit:{}", self.located.update_id);
        let context = context(&self.object, chat);
        Ok(Inbound { at, qualifier, context, ..inbound(&self.located, key, self.contact(), body) })
    }

    fn deletion(self) -> Result<Inbound, Malformed> {
        let chat = self.chat()?;
        let ids = self.object.get("message_ids").and_then(Value::as_array).ok_or_else(|| malformed("deletion without message_ids"))?;
        let via = text(&self.object, "business_connection_id");
        let mut targets = Vec::with_capacity(ids.len());
        for id in ids {
            let message = id.as_i64().ok_or_else(|| malformed("deletion with a message id that is no number"))?;
            targets.push(MessageKey { chat, message, via }.platform_id());
        }
        let body = InboundBody::Delete { targets };
        let context = context(&self.object, chat);
        Ok(Inbound { context, ..inbound(&self.located, update_key(&self.located), self.contact(), body) })
    }

    fn reaction(self) -> Result<Inbound, Malformed> {
        let (chat, target) = self.message_key()?;
        let reactions =
            self.object.get("new_reaction").and_then(Value::as_array).ok_or_else(|| malformed("reaction without new_reaction"))?;
        let emoji = reactions.first().map(emoji_of);
        let mut context = context(&self.object, chat);
        if reactions.len() > 1 {
            context.insert("reactions".to_owned(), Value::Array(reactions.clone()));
        }
        let body = InboundBody::Reaction { target, emoji };
        let at = time(&self.object, "date");
        Ok(Inbound { at, context, ..inbound(&self.located, update_key(&self.located), self.contact(), body) })
    }

    /// A pressed button. It has no time of its own: the message below it is the bot's, and may be old.
    fn callback(self) -> Inbound {
        let data = text(&self.object, "data");
        let message = object(&self.object, "message");
        let target = message.and_then(|message| {
            let chat = object(message, "chat").and_then(|chat| int(chat, "id"))?;
            let via = text(message, "business_connection_id");
            Some(MessageKey { chat, message: int(message, "message_id")?, via }.platform_id())
        });
        let title = message.zip(data).and_then(|(message, data)| pressed_title(message, data));
        let mut context = context(&self.object, self.located.chat.unwrap_or_default());
        for (from, to) in [("id", "callback_query_id"), ("inline_message_id", "inline_message_id"), ("game_short_name", "game_short_name")]
        {
            if let Some(value) = text(&self.object, from) {
                context.insert(to.to_owned(), Value::from(value));
            }
        }
        if let Some(target) = &target {
            context.insert("target".to_owned(), Value::from(target.as_str()));
        }
        let reply = InteractiveReply { kind: "callback".to_owned(), id: data.map(str::to_owned), title, description: None, data: None };
        let body = InboundBody::Message { content: Content::InteractiveReply(reply), reply_to: target };
        Inbound { opens_window: true, context, ..inbound(&self.located, update_key(&self.located), self.contact(), body) }
    }

    /// The person blocked the bot or let it in again. In groups it is about the bot's place there, and told as it is.
    fn membership(self, name: &str) -> Inbound {
        let private = self.located.chat.is_some_and(|chat| chat > 0);
        let status = object(&self.object, "new_chat_member").and_then(|member| text(member, "status"));
        let reachable = match status {
            Some("kicked" | "left") if private => false,
            Some("member") if private => true,
            _ => return self.platform(name),
        };
        let at = time(&self.object, "date");
        Inbound { at, ..inbound(&self.located, update_key(&self.located), self.contact(), InboundBody::Reachable(reachable)) }
    }

    fn platform(self, name: &str) -> Inbound {
        let (contact, at) = (self.contact(), time(&self.object, "date"));
        let body = InboundBody::Platform { kind: name.to_owned(), raw: Value::Object(self.object) };
        Inbound { at, ..inbound(&self.located, update_key(&self.located), contact, body) }
    }

    fn chat(&self) -> Result<i64, Malformed> {
        self.located.chat.ok_or_else(|| malformed("no chat"))
    }

    /// The chat, and the platform id of the message.
    fn message_key(&self) -> Result<(i64, String), Malformed> {
        let chat = self.chat()?;
        let message = int(&self.object, "message_id").ok_or_else(|| malformed("no message_id"))?;
        let key = MessageKey { chat, message, via: text(&self.object, "business_connection_id") };
        Ok((chat, key.platform_id()))
    }

    /// The platform id of the message that this one answers.
    fn reply_to(&self, chat: i64) -> Option<String> {
        let answered = object(&self.object, "reply_to_message")?;
        let chat = object(answered, "chat").and_then(|chat| int(chat, "id")).unwrap_or(chat);
        let key = MessageKey { chat, message: int(answered, "message_id")?, via: text(&self.object, "business_connection_id") };
        Some(key.platform_id())
    }

    /// Who or what the conversation is with: the person, or the group.
    fn contact(&self) -> ContactInfo {
        let mut contact = ContactInfo { handles: vec![self.located.handle()], ..ContactInfo::default() };
        let message = object(&self.object, "message");
        let via = |object: &Object| text(object, "business_connection_id").map(str::to_owned);
        contact.via = via(&self.object).or_else(|| message.and_then(via));
        let Some(id) = self.located.chat else {
            return contact;
        };
        let places = [
            object(&self.object, "chat"),
            message.and_then(|message| object(message, "chat")),
            object(&self.object, "from"),
            object(&self.object, "user"),
            object(&self.object, "voter_chat"),
        ];
        let described = places.into_iter().flatten().find(|place| int(place, "id") == Some(id));
        if let Some(described) = described {
            contact.name = name_of(described);
            contact.username = text(described, "username").map(str::to_owned);
        }
        contact
    }
}

/// The emoji, the id of a custom one, or the kind's name where it has neither (paid): a reaction is never taken for its removal.
fn emoji_of(reaction: &Value) -> String {
    let member = |name: &str| reaction.get(name).and_then(Value::as_str);
    member("emoji").or_else(|| member("custom_emoji_id")).or_else(|| member("type")).unwrap_or("unknown").to_owned()
}

/// What the button with this data shows.
fn pressed_title(message: &Object, data: &str) -> Option<String> {
    let rows = object(message, "reply_markup")?.get("inline_keyboard")?.as_array()?;
    let mut buttons = rows.iter().filter_map(Value::as_array).flatten();
    let pressed = buttons.find(|button| button.get("callback_data").and_then(Value::as_str) == Some(data))?;
    Some(pressed.get("text")?.as_str()?.to_owned())
}

/// A chat's title, or a person's first and last name.
pub(super) fn name_of(who: &Object) -> Option<String> {
    if let Some(title) = text(who, "title") {
        return Some(title.to_owned());
    }
    match (text(who, "first_name"), text(who, "last_name")) {
        (Some(first), Some(last)) => Some(format!("{first} {last}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
        (None, None) => None,
    }
}

pub(super) fn object<'a>(of: &'a Object, member: &str) -> Option<&'a Object> {
    of.get(member).and_then(Value::as_object)
}

/// A text that says something.
pub(super) fn text<'a>(of: &'a Object, member: &str) -> Option<&'a str> {
    of.get(member).and_then(Value::as_str).filter(|text| !text.is_empty())
}

pub(super) fn int(of: &Object, member: &str) -> Option<i64> {
    of.get(member).and_then(Value::as_i64)
}

pub(super) fn count(of: &Object, member: &str) -> Option<u64> {
    of.get(member).and_then(Value::as_u64)
}

fn time(of: &Object, member: &str) -> Timestamp {
    count(of, member).map_or(Timestamp::ZERO, Timestamp::from_secs)
}
