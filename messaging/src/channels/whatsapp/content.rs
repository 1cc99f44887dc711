//! What a message says, in our vocabulary. A kind or shape that is not known gives none, and the caller keeps the raw part.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::wire::Parts;
use crate::content::{Content, InteractiveReply, Location, Media, Text};

#[derive(Deserialize)]
struct TextPart {
    body: String,
}

#[derive(Deserialize)]
struct MediaPart {
    id: Option<String>,
    url: Option<String>,
    mime_type: Option<String>,
    sha256: Option<String>,
    file_size: Option<u64>,
    caption: Option<String>,
    filename: Option<String>,
    voice: Option<bool>,
    animated: Option<bool>,
}

#[derive(Deserialize)]
struct LocationPart {
    latitude: f64,
    longitude: f64,
    name: Option<String>,
    address: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct ButtonPart {
    payload: Option<String>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct InteractivePart {
    #[serde(rename = "type")]
    kind: String,
    button_reply: Option<Choice>,
    list_reply: Option<Choice>,
    nfm_reply: Option<Form>,
    call_permission_reply: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    id: Option<String>,
    title: Option<String>,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Form {
    name: Option<String>,
    body: Option<String>,
    response_json: Option<Value>,
}

/// The content of a message of a kind; none when it is of a kind or shape that is not known here.
pub(super) fn content(kind: &str, parts: &Parts<'_>) -> Option<Content> {
    Some(match kind {
        "text" => Content::Text(Text { body: part::<TextPart>(parts.text)?.body, preview_url: None }),
        "image" => Content::Image(media(parts.image)?),
        "video" => Content::Video(media(parts.video)?),
        "audio" => Content::Audio(media(parts.audio)?),
        "document" => Content::Document(media(parts.document)?),
        "sticker" => Content::Sticker(media(parts.sticker)?),
        "location" => Content::Location(location(parts.location)?),
        "contacts" => Content::Contacts(part(parts.contacts)?),
        "interactive" => Content::InteractiveReply(interactive(part(parts.interactive)?)?),
        "button" => Content::InteractiveReply(template_button(part(parts.button)?)),
        "order" => Content::Order(part(parts.order)?),
        _ => return None,
    })
}

/// A raw part in a shape, if it has it.
pub(super) fn part<T: DeserializeOwned>(raw: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

fn media(raw: Option<&RawValue>) -> Option<Media> {
    let part: MediaPart = part(raw)?;
    Some(Media {
        id: part.id,
        link: part.url,
        mime_type: part.mime_type,
        sha256: part.sha256,
        size_bytes: part.file_size,
        caption: part.caption,
        filename: part.filename,
        voice: part.voice,
        animated: part.animated,
        ..Media::default()
    })
}

fn location(raw: Option<&RawValue>) -> Option<Location> {
    let part: LocationPart = part(raw)?;
    Some(Location {
        latitude: part.latitude,
        longitude: part.longitude,
        name: part.name,
        address: part.address,
        url: part.url,
        live_period_s: None,
    })
}

fn template_button(part: ButtonPart) -> InteractiveReply {
    InteractiveReply { kind: "template_button".into(), id: part.payload, title: part.text, description: None, data: None }
}

fn interactive(part: InteractivePart) -> Option<InteractiveReply> {
    match part.kind.as_str() {
        "button_reply" => Some(choice("button", part.button_reply?)),
        "list_reply" => Some(choice("list", part.list_reply?)),
        "nfm_reply" => {
            let form = part.nfm_reply?;
            let data = form.response_json.map(answers);
            Some(InteractiveReply { kind: "form".into(), id: form.name, title: form.body, description: None, data })
        }
        "call_permission_reply" => {
            let reply = part.call_permission_reply?;
            let response = reply.get("response").and_then(Value::as_str).map(str::to_owned);
            Some(InteractiveReply { kind: "call_permission".into(), id: response, title: None, description: None, data: Some(reply) })
        }
        _ => None,
    }
}

fn choice(kind: &str, choice: Choice) -> InteractiveReply {
    InteractiveReply { kind: kind.into(), id: choice.id, title: choice.title, description: choice.description, data: None }
}

/// JSON inside a string, unless it is none.
fn answers(response: Value) -> Value {
    match response {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        other => other,
    }
}
