//! The call for a send: method and body.

use serde_json::{Map, Value, json};

use super::MessageKey;
use super::check::{INBOUND_ONLY, NO_TEMPLATES, is_custom_emoji};
use crate::channels::{Outgoing, Unsendable};
use crate::content::{Button, Content, Interactive, List, Location, Media, Reaction, Receipt, Text};

/// Buttons beside each other; more would be too narrow to read on a phone.
const BUTTONS_PER_ROW: usize = 3;

/// A method of the Bot API with its parameters.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) body: Map<String, Value>,
}

pub(super) fn call(send: &Outgoing<'_>) -> Result<Call, Unsendable> {
    let chat = recipient(send)?;
    let (method, parameters) = match send.content {
        Content::Text(text) => ("sendMessage", text_parameters(text)),
        Content::Image(media) => ("sendPhoto", media_parameters("photo", media)?),
        Content::Video(media) if media.animated == Some(true) => ("sendAnimation", media_parameters("animation", media)?),
        Content::Video(media) => ("sendVideo", media_parameters("video", media)?),
        Content::Audio(media) if media.voice == Some(true) => ("sendVoice", media_parameters("voice", media)?),
        Content::Audio(media) => ("sendAudio", media_parameters("audio", media)?),
        Content::Document(media) => ("sendDocument", media_parameters("document", media)?),
        Content::Sticker(media) => ("sendSticker", media_parameters("sticker", media)?),
        Content::Location(location) => place_parameters(location),
        Content::Contacts(cards) => ("sendContact", contact_parameters(cards)?),
        Content::Interactive(interactive) => ("sendMessage", interactive_parameters(interactive)),
        Content::Reaction(reaction) => ("setMessageReaction", reaction_parameters(reaction, send, chat)?),
        Content::Read(receipt) => ("readBusinessMessage", read_parameters(receipt, send, chat)?),
        Content::Typing(_) => ("sendChatAction", json!({ "action": "typing" })),
        Content::Template(_) => return Err(Unsendable(NO_TEMPLATES.to_owned())),
        Content::InteractiveReply(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => {
            return Err(Unsendable(format!("{} {INBOUND_ONLY}", send.content.kind())));
        }
    };
    let Value::Object(mut body) = parameters else {
        return Err(Unsendable("the parameters are no object".to_owned()));
    };
    body.insert("chat_id".to_owned(), Value::from(chat));
    if let Some(via) = send.via {
        body.insert("business_connection_id".to_owned(), Value::from(via));
    }
    if let Some(reply) = reply_parameters(send, chat) {
        body.insert("reply_parameters".to_owned(), reply);
    }
    Ok(Call { method, body })
}

fn recipient(send: &Outgoing<'_>) -> Result<i64, Unsendable> {
    let is_chat = matches!(send.to.scheme(), "chat" | "group");
    let id = send.to.value().parse().ok().filter(|id| is_chat && *id != 0);
    id.ok_or_else(|| Unsendable("the recipient is not a telegram chat".to_owned()))
}

/// The message that a send answers. It is sent even when that message is gone: better without the link than not at all.
fn reply_parameters(send: &Outgoing<'_>, chat: i64) -> Option<Value> {
    let reply_to = send.reply_to.filter(|_| send.content.is_message())?;
    // A pressed button is no message, so there is nothing to link to.
    let key = MessageKey::from_platform_id(reply_to)?;
    // A group that became a supergroup, or another business connection: the message stayed behind, its number means another one here.
    if (key.chat, key.via) != (chat, send.via) {
        return None;
    }
    Some(json!({ "message_id": key.message, "allow_sending_without_reply": true }))
}

fn text_parameters(text: &Text) -> Value {
    if text.preview_url == Some(false) {
        return json!({ "text": text.body, "link_preview_options": { "is_disabled": true } });
    }
    json!({ "text": text.body })
}

/// A file by its id or link. Its name and type are the link's own: they can only be set with an upload.
fn media_parameters(field: &str, media: &Media) -> Result<Value, Unsendable> {
    let file = match (&media.id, &media.link) {
        (Some(file), None) | (None, Some(file)) => file,
        (Some(_), Some(_)) | (None, None) => return Err(Unsendable(format!("{field} needs exactly one of id and link"))),
    };
    let mut parameters = Map::new();
    parameters.insert(field.to_owned(), Value::from(file.as_str()));
    if let Some(caption) = media.caption.as_deref().filter(|caption| !caption.is_empty() && field != "sticker") {
        parameters.insert("caption".to_owned(), Value::from(caption));
    }
    let has_length = matches!(field, "video" | "animation" | "audio" | "voice");
    if let Some(seconds) = media.duration_s.filter(|_| has_length) {
        parameters.insert("duration".to_owned(), Value::from(seconds));
    }
    Ok(Value::Object(parameters))
}

fn place_parameters(location: &Location) -> (&'static str, Value) {
    let (latitude, longitude) = (location.latitude, location.longitude);
    if let (Some(title), Some(address)) = (&location.name, &location.address) {
        return ("sendVenue", json!({ "latitude": latitude, "longitude": longitude, "title": title, "address": address }));
    }
    let mut parameters = json!({ "latitude": latitude, "longitude": longitude });
    if let Some(seconds) = location.live_period_s {
        parameters["live_period"] = Value::from(seconds);
    }
    ("sendLocation", parameters)
}

fn contact_parameters(cards: &[Value]) -> Result<Value, Unsendable> {
    match cards {
        [only] => card(only).map_err(|rule| Unsendable(rule.to_owned())),
        _ => Err(Unsendable("telegram sends exactly one contact card".to_owned())),
    }
}

/// The parameters of a contact card: Telegram's own shape, or the one of WhatsApp with its first phone number.
pub(super) fn card(card: &Value) -> Result<Value, &'static str> {
    let member = |pointer: &str| card.pointer(pointer).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let phone = member("/phone_number").or_else(|| member("/phones/0/phone")).or_else(|| member("/phones/0/wa_id"));
    let phone = phone.ok_or("needs phone_number, or phones with a phone")?;
    // A formatted name holds the last name already.
    let first = member("/first_name").or_else(|| member("/name/first_name"));
    let last = member("/last_name").or_else(|| member("/name/last_name")).filter(|_| first.is_some());
    let first = first.or_else(|| member("/name/formatted_name")).ok_or("needs first_name, or name with first_name or formatted_name")?;
    let mut parameters = json!({ "phone_number": phone, "first_name": first });
    for (name, value) in [("last_name", last), ("vcard", member("/vcard"))] {
        if let Some(value) = value {
            parameters[name] = Value::from(value);
        }
    }
    Ok(parameters)
}

/// Header, body and footer as one text: Telegram has no places for them.
pub(super) fn interactive_text(interactive: &Interactive) -> String {
    let parts = [interactive.header.as_deref(), Some(interactive.body.as_str()), interactive.footer.as_deref()];
    let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join("\n\n")
}

/// Text with an inline keyboard. A list shows all its rows at once, so its own button and the sections' titles have no place.
fn interactive_parameters(interactive: &Interactive) -> Value {
    let rows = match &interactive.list {
        Some(list) => list_rows(list),
        None => button_rows(&interactive.buttons),
    };
    json!({ "text": interactive_text(interactive), "reply_markup": { "inline_keyboard": rows } })
}

fn button_rows(buttons: &[Button]) -> Vec<Value> {
    let key = |button: &Button| match &button.url {
        Some(url) => json!({ "text": button.title, "url": url }),
        None => json!({ "text": button.title, "callback_data": button.id }),
    };
    buttons.chunks(BUTTONS_PER_ROW).map(|row| Value::Array(row.iter().map(key).collect())).collect()
}

fn list_rows(list: &List) -> Vec<Value> {
    let mut keyboard = Vec::new();
    for row in list.sections.iter().flat_map(|section| &section.rows) {
        let text = match row.description.as_deref().filter(|description| !description.is_empty()) {
            Some(description) => format!("{} – {description}", row.title),
            None => row.title.clone(),
        };
        keyboard.push(json!([{ "text": text, "callback_data": row.id }]));
    }
    keyboard
}

/// The message in this chat that a reaction or receipt is about.
fn target(platform_id: Option<&str>, send: &Outgoing<'_>, chat: i64) -> Result<i64, Unsendable> {
    let key = platform_id.ok_or_else(|| Unsendable("the message has no id with telegram".to_owned()))?;
    match MessageKey::from_platform_id(key) {
        Some(key) if (key.chat, key.via) == (chat, send.via) => Ok(key.message),
        Some(_) => Err(Unsendable("the message is of another chat or business connection".to_owned())),
        None => Err(Unsendable("the event is not a message of telegram".to_owned())),
    }
}

fn reaction_parameters(reaction: &Reaction, send: &Outgoing<'_>, chat: i64) -> Result<Value, Unsendable> {
    if send.via.is_some() {
        return Err(Unsendable("telegram has no reactions on behalf of a business account".to_owned()));
    }
    let message = target(reaction.platform_id.as_deref(), send, chat)?;
    let reactions = match reaction.emoji.as_deref().filter(|emoji| !emoji.is_empty()) {
        Some(id) if is_custom_emoji(id) => json!([{ "type": "custom_emoji", "custom_emoji_id": id }]),
        Some(emoji) => json!([{ "type": "emoji", "emoji": emoji }]),
        None => json!([]),
    };
    Ok(json!({ "message_id": message, "reaction": reactions }))
}

fn read_parameters(receipt: &Receipt, send: &Outgoing<'_>, chat: i64) -> Result<Value, Unsendable> {
    if send.via.is_none() {
        return Err(Unsendable("bots have no read receipts: only a business connection can mark messages as read".to_owned()));
    }
    let message = target(receipt.platform_id.as_deref(), send, chat)?;
    Ok(json!({ "message_id": message }))
}
