//! What a message holds: text, attachments, stickers; one of them, or several under one id.

use serde_json::Value;

use super::wire::{Object, array, count, object, owned, text};
use crate::content::{Content, Media, Text, Unsupported};

/// The flag of a voice message.
const VOICE: u64 = 1 << 13;
/// `format_type` of a sticker that does not move.
const STILL_PNG: u64 = 1;

pub(super) fn content(message: &Object) -> Content {
    // A message that was passed on stands inside, as it was then.
    let passed_on = array(message, "message_snapshots").first().and_then(Value::as_object);
    let message = passed_on.and_then(|snapshot| object(snapshot, "message")).unwrap_or(message);
    let said = text(message, "content");
    let mut media: Vec<Content> = array(message, "attachments").iter().filter_map(|one| attachment(one, message)).collect();
    media.extend(array(message, "sticker_items").iter().filter_map(sticker));
    match (said, media.len()) {
        (None, 0) => other(message),
        (Some(said), 0) => plain(said),
        (None, 1) => media.remove(0),
        (Some(said), 1) => captioned(media.remove(0), said),
        (said, _) => Content::Mixed(said.map(plain).into_iter().chain(media).collect()),
    }
}

fn plain(text: &str) -> Content {
    Content::Text(Text { body: text.to_owned(), preview_url: None })
}

/// A medium with the text beside it; a sticker has no text.
fn captioned(medium: Content, said: &str) -> Content {
    let with = |media: Media| Media { caption: Some(said.to_owned()), ..media };
    match medium {
        Content::Image(media) => Content::Image(with(media)),
        Content::Video(media) => Content::Video(with(media)),
        Content::Audio(media) => Content::Audio(with(media)),
        Content::Document(media) => Content::Document(with(media)),
        other => Content::Mixed(vec![plain(said), other]),
    }
}

fn attachment(one: &Value, message: &Object) -> Option<Content> {
    let one = one.as_object()?;
    let voice = count(message, "flags").unwrap_or(0) & VOICE != 0;
    let media = Media {
        id: Some(owned(one, "id")?),
        link: owned(one, "url"),
        mime_type: owned(one, "content_type"),
        size_bytes: count(one, "size"),
        caption: owned(one, "description"),
        filename: owned(one, "filename"),
        voice: voice.then_some(true),
        duration_s: one.get("duration_secs").and_then(Value::as_f64).map(|seconds| seconds.round() as u64),
        ..Media::default()
    };
    let kind = media.mime_type.as_deref().and_then(|kind| kind.split('/').next()).unwrap_or_default();
    Some(match kind {
        "image" => Content::Image(media),
        "video" => Content::Video(media),
        "audio" => Content::Audio(media),
        _ => Content::Document(media),
    })
}

fn sticker(one: &Value) -> Option<Content> {
    let one = one.as_object()?;
    let animated = count(one, "format_type").map(|format| format != STILL_PNG);
    Some(Content::Sticker(Media { id: Some(owned(one, "id")?), filename: owned(one, "name"), animated, ..Media::default() }))
}

/// Polls, cards of programs, and what comes next. A message without anything: the bot may not read what it says.
fn other(message: &Object) -> Content {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    for name in ["poll", "activity", "embeds", "components"] {
        if let Some(raw) = message.get(name).filter(|value| !empty(value)) {
            return Content::Unsupported(Unsupported { kind: name.to_owned(), raw: raw.clone() });
        }
    }
    Content::Unsupported(Unsupported { kind: "unreadable".to_owned(), raw: Value::Object(message.clone()) })
}
