//! What a message of a person holds.

use serde_json::Value;

use super::parse::{Object, count, object, text};
use crate::content::{Content, InteractiveReply, Location, Media, Text, Unsupported};

/// Reads one member of a message; none when it has not the shape that it should have.
type Reader = fn(&Object, &Value) -> Option<Content>;

/// Members that are content, in the order in which they count: an animation comes with a document, a venue with a location.
static READERS: [(&str, Reader); 14] = [
    ("text", |_, value| Some(Content::Text(Text { body: value.as_str()?.to_owned(), preview_url: None }))),
    ("photo", photo),
    ("animation", |message, value| Some(Content::Video(Media { animated: Some(true), ..media(message, value)? }))),
    ("voice", |message, value| Some(Content::Audio(Media { voice: Some(true), ..media(message, value)? }))),
    ("audio", |message, value| media(message, value).map(Content::Audio)),
    ("video", |message, value| media(message, value).map(Content::Video)),
    ("video_note", |message, value| media(message, value).map(Content::Video)),
    ("document", |message, value| media(message, value).map(Content::Document)),
    ("sticker", sticker),
    ("venue", venue),
    ("location", |_, value| location(value).map(Content::Location)),
    ("contact", |_, value| value.is_object().then(|| Content::Contacts(vec![value.clone()]))),
    ("web_app_data", web_app_data),
    ("successful_payment", |_, value| value.is_object().then(|| Content::Payment(value.clone()))),
];

/// Members that say who, when and how, but not what.
const ENVELOPE: [&str; 36] = [
    "author_signature",
    "business_connection_id",
    "caption",
    "caption_entities",
    "chat",
    "date",
    "direct_messages_topic",
    "edit_date",
    "effect_id",
    "entities",
    "external_reply",
    "forward_origin",
    "from",
    "has_media_spoiler",
    "has_protected_content",
    "is_automatic_forward",
    "is_from_offline",
    "is_paid_post",
    "is_topic_message",
    "link_preview_options",
    "media_group_id",
    "message_id",
    "message_thread_id",
    "paid_star_count",
    "quote",
    "reply_markup",
    "reply_to_checklist_task_id",
    "reply_to_message",
    "reply_to_story",
    "sender_boost_count",
    "sender_business_bot",
    "sender_chat",
    "sender_tag",
    "show_caption_above_media",
    "suggested_post_info",
    "via_bot",
];

pub(super) fn content(message: &Object) -> Content {
    for (name, reader) in &READERS {
        if let Some(value) = message.get(*name) {
            return reader(message, value).unwrap_or_else(|| unsupported(name, value));
        }
    }
    other(message)
}

/// Polls, dice, stories, service notices and whatever comes next. An object says more than a flag, so it is taken before.
fn other(message: &Object) -> Content {
    let mut members = message.iter().filter(|(name, _)| !ENVELOPE.contains(&name.as_str()));
    let flag = members.clone().next();
    match members.find(|(_, value)| value.is_object() || value.is_array()).or(flag) {
        Some((name, value)) => unsupported(name, value),
        None => unsupported("unknown", &Value::Object(message.clone())),
    }
}

fn unsupported(kind: &str, raw: &Value) -> Content {
    Content::Unsupported(Unsupported { kind: kind.to_owned(), raw: raw.clone() })
}

fn media(message: &Object, file: &Value) -> Option<Media> {
    let file = file.as_object()?;
    let owned = |member: &str| text(file, member).map(str::to_owned);
    Some(Media {
        id: Some(text(file, "file_id")?.to_owned()),
        mime_type: owned("mime_type"),
        size_bytes: count(file, "file_size"),
        caption: text(message, "caption").map(str::to_owned),
        filename: owned("file_name"),
        duration_s: count(file, "duration"),
        ..Media::default()
    })
}

/// The largest of a photo's sizes; of equal ones the last.
fn photo(message: &Object, sizes: &Value) -> Option<Content> {
    let area = |size: &&Value| {
        let side = |member: &str| size.get(member).and_then(Value::as_u64).unwrap_or(0);
        side("width").saturating_mul(side("height"))
    };
    let largest = sizes.as_array()?.iter().max_by_key(area)?;
    media(message, largest).map(Content::Image)
}

fn sticker(message: &Object, value: &Value) -> Option<Content> {
    let moves = ["is_animated", "is_video"].iter().any(|flag| value.get(flag).and_then(Value::as_bool) == Some(true));
    Some(Content::Sticker(Media { animated: Some(moves), ..media(message, value)? }))
}

fn location(value: &Value) -> Option<Location> {
    let value = value.as_object()?;
    let degrees = |member: &str| value.get(member).and_then(Value::as_f64);
    Some(Location {
        latitude: degrees("latitude")?,
        longitude: degrees("longitude")?,
        name: None,
        address: None,
        url: None,
        live_period_s: count(value, "live_period"),
    })
}

fn venue(_: &Object, value: &Value) -> Option<Content> {
    let venue = value.as_object()?;
    let place = location(venue.get("location")?)?;
    let owned = |member: &str| text(venue, member).map(str::to_owned);
    Some(Content::Location(Location { name: owned("title"), address: owned("address"), ..place }))
}

/// A filled-in form: its answers are a text that only the merchant's web app understands.
fn web_app_data(message: &Object, value: &Value) -> Option<Content> {
    let title = object(message, "web_app_data").and_then(|form| text(form, "button_text")).map(str::to_owned);
    let data = value.get("data").filter(|data| data.is_string())?.clone();
    Some(Content::InteractiveReply(InteractiveReply { kind: "form".to_owned(), id: None, title, description: None, data: Some(data) }))
}
