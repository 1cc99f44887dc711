//! What a message says, in our vocabulary. A kind or shape that is not known keeps its raw part.

use serde_json::{Map, Value};

use super::wire::{object, text};
use crate::content::{Button, Content, Interactive, InteractiveReply, Media, Text, Unsupported};

/// The content of a message.
pub(super) fn content(said: &Map<String, Value>) -> Content {
    let kind = text(said, "type").unwrap_or("unknown");
    known(kind, said).unwrap_or_else(|| {
        let raw = said.get(kind).cloned().unwrap_or_else(|| Value::Object(said.clone()));
        Content::Unsupported(Unsupported { kind: kind.to_owned(), raw })
    })
}

fn known(kind: &str, said: &Map<String, Value>) -> Option<Content> {
    let part = object(said, kind);
    Some(match kind {
        "text" => {
            let body = part?.get("body")?.as_str()?.to_owned();
            match object(said, "reply_source_payload") {
                Some(source) => pressed(source, body),
                None => Content::Text(Text { body, preview_url: None }),
            }
        }
        "image" => Content::Image(by_id(part?)?),
        "video" => Content::Video(by_id(part?)?),
        // An emoji of the platform's own is a picture as well.
        "sticker" | "emoji" => Content::Sticker(Media { link: Some(text(part?, "url")?.to_owned()), ..Media::default() }),
        "template" => card(part?)?,
        _ => return None,
    })
}

/// A button of a card was pressed: the platform writes its label as the person's text.
fn pressed(source: &Map<String, Value>, label: String) -> Content {
    let id = text(source, "reply_source_unique_id").map(str::to_owned);
    Content::InteractiveReply(InteractiveReply { kind: "button".into(), id, title: Some(label), description: None, data: None })
}

fn by_id(part: &Map<String, Value>) -> Option<Media> {
    Some(Media { id: Some(text(part, "media_id")?.to_owned()), ..Media::default() })
}

/// A card with buttons, as it is told back: nested and with other names than in the request.
fn card(part: &Map<String, Value>) -> Option<Content> {
    let [element] = part.get("elements")?.as_array()?.as_slice() else { return None };
    let body = element.get("title")?.as_str()?.to_owned();
    let mut buttons = Vec::new();
    for button in element.get("buttons")?.as_array()? {
        let member = |name: &str| button.get(name).and_then(Value::as_str);
        let title = member("text").or_else(|| member("title"))?.to_owned();
        buttons.push(Button { id: member("id").unwrap_or_default().to_owned(), title, url: None });
    }
    Some(Content::Interactive(Interactive { body, header: None, footer: None, buttons, list: None }))
}
