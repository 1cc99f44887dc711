//! What stands around a message, for subscribers: album, quote, forward, group, sender.

use serde_json::{Map, Value, json};

use super::parse::{Object, int, name_of, object, text};

/// Members that go into the context as they came.
const COPIED: [&str; 11] = [
    "business_connection_id",
    "effect_id",
    "entities",
    "external_reply",
    "forward_origin",
    "media_group_id",
    "message_thread_id",
    "quote",
    "reply_to_story",
    "sender_chat",
    "via_bot",
];

/// The command of a deep link, `t.me/bot?start=payload`.
const START: &str = "/start";

/// The context of a message in a chat, or of what happened to one.
pub(super) fn context(message: &Object, chat: i64) -> Map<String, Value> {
    let mut context = Map::new();
    for name in COPIED {
        if let Some(value) = message.get(name) {
            context.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(entities) = message.get("caption_entities") {
        context.insert("entities".to_owned(), entities.clone());
    }
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            context.insert(name.to_owned(), value);
        }
    };
    put("group", group(message));
    put("from", sender(message, chat));
    put("start_payload", text(message, "text").and_then(start_payload).map(Value::from));
    put("sticker_emoji", object(message, "sticker").and_then(|sticker| text(sticker, "emoji")).map(Value::from));
    put("button_text", object(message, "web_app_data").and_then(|form| text(form, "button_text")).map(Value::from));
    put("contact_is_sender", own_contact(message));
    // An unsupported medium keeps its words.
    put("caption", text(message, "caption").filter(|_| !has_captioned_medium(message)).map(Value::from));
    context
}

fn has_captioned_medium(message: &Object) -> bool {
    ["photo", "animation", "voice", "audio", "video", "document"].iter().any(|medium| message.contains_key(*medium))
}

/// The group, where the chat is one.
fn group(message: &Object) -> Option<Value> {
    let chat = object(message, "chat").or_else(|| object(message, "message").and_then(|message| object(message, "chat")))?;
    let id = int(chat, "id").filter(|id| *id < 0)?;
    Some(json!({ "id": id.to_string(), "title": text(chat, "title"), "type": text(chat, "type") }))
}

/// Who did it, where that is not the one whom the chat is with. Ids as texts: they go to JavaScript too.
fn sender(message: &Object, chat: i64) -> Option<Value> {
    let from = object(message, "from").or_else(|| object(message, "user"))?;
    let id = int(from, "id").filter(|id| *id != chat)?;
    Some(json!({ "id": id.to_string(), "name": name_of(from), "username": text(from, "username") }))
}

/// Whether a contact card is the sender's own: the only proof of a number that Telegram gives.
fn own_contact(message: &Object) -> Option<Value> {
    let card = object(message, "contact")?;
    let sender = object(message, "from").and_then(|from| int(from, "id"));
    Some(Value::Bool(sender.is_some() && int(card, "user_id") == sender))
}

/// The payload of `/start payload` or `/start@bot payload`.
fn start_payload(text: &str) -> Option<&str> {
    let (command, payload) = text.split_once(' ')?;
    let rest = command.strip_prefix(START)?;
    let payload = payload.trim();
    ((rest.is_empty() || rest.starts_with('@')) && !payload.is_empty()).then_some(payload)
}
