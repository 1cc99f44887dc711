//! What a message says.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::content::{Content, InteractiveReply, Location, Media, Text, Unsupported};

/// A message's body. Odd members are as if they were not there.
pub(super) struct Body<'a>(pub &'a Map<String, Value>);

impl Body<'_> {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Bool(true))
    }

    fn attachments(&self) -> impl Iterator<Item = &Value> {
        self.0.get("attachments").and_then(Value::as_array).into_iter().flatten()
    }

    /// What it says; what belongs beside goes into `context`.
    pub fn content(&self, context: &mut Map<String, Value>) -> Content {
        let text = self.text("text");
        if let Some(payload) = self.0.get("quick_reply").and_then(|reply| reply.get("payload")).and_then(Value::as_str) {
            let title = text.map(str::to_owned);
            return reply("quick_reply", Some(payload.to_owned()), title);
        }
        let mut parts = Vec::new();
        parts.extend(text.map(|text| Content::Text(Text { body: text.to_owned(), preview_url: None })));
        let stickers: Vec<String> = self.attachments().filter(|one| kind_of(one) == "sticker").map(sticker_id).collect();
        for one in self.attachments() {
            // From June to August 2026 a sticker came as a picture as well.
            if kind_of(one) == "image" && stickers.contains(&sticker_id(one)) && !sticker_id(one).is_empty() {
                continue;
            }
            match beside(one).filter(|_| text.is_some()) {
                Some((name, value)) => drop(context.insert(name.to_owned(), value)),
                None => parts.push(attachment(one)),
            }
        }
        match parts.len() {
            0 => Content::Unsupported(Unsupported { kind: self.unknown_kind().to_owned(), raw: Value::Object(self.0.clone()) }),
            1 => parts.remove(0),
            _ => Content::Mixed(parts),
        }
    }

    fn unknown_kind(&self) -> &'static str {
        if self.flag("is_unsupported") { "unsupported" } else { "unknown" }
    }
}

/// A press, in our words.
pub(super) fn reply(kind: &str, id: Option<String>, title: Option<String>) -> Content {
    Content::InteractiveReply(InteractiveReply { kind: kind.to_owned(), id, title, description: None, data: None })
}

fn kind_of(attachment: &Value) -> &str {
    attachment.get("type").and_then(Value::as_str).unwrap_or("unknown")
}

fn sticker_id(attachment: &Value) -> String {
    match attachment.pointer("/payload/sticker_id") {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(_) | None => String::new(),
    }
}

/// What is no part of the message but stands beside its text: a link's preview, the product that it is about.
fn beside(attachment: &Value) -> Option<(&'static str, Value)> {
    let payload = attachment.get("payload")?;
    match kind_of(attachment) {
        "fallback" => Some(("link_preview", payload.clone())),
        "template" => payload.get("product").map(|product| ("referred_product", product.clone())),
        _ => None,
    }
}

fn attachment(raw: &Value) -> Content {
    let kind = kind_of(raw);
    let unsupported = || Content::Unsupported(Unsupported { kind: kind.to_owned(), raw: raw.clone() });
    let link = raw.pointer("/payload/url").and_then(Value::as_str).filter(|url| !url.is_empty());
    let media = |link: &str| Media { link: Some(link.to_owned()), ..Media::default() };
    match (kind, link) {
        ("image", Some(link)) => Content::Image(media(link)),
        ("video", Some(link)) => Content::Video(media(link)),
        ("audio", Some(link)) => Content::Audio(media(link)),
        ("file", Some(link)) => Content::Document(media(link)),
        ("sticker", Some(link)) => {
            let id = Some(sticker_id(raw)).filter(|id| !id.is_empty());
            Content::Sticker(Media { id, ..media(link) })
        }
        ("like_heart", _) => Content::Sticker(Media { id: Some("like_heart".to_owned()), ..Media::default() }),
        ("location", _) => location(raw).unwrap_or_else(unsupported),
        // Shares, stories and reels: what they are is known only to the platform.
        _ => unsupported(),
    }
}

fn location(raw: &Value) -> Option<Content> {
    #[derive(Deserialize)]
    struct Coordinates {
        lat: f64,
        long: f64,
    }
    let place = Coordinates::deserialize(raw.pointer("/payload/coordinates")?).ok()?;
    let fits = (-90.0..=90.0).contains(&place.lat) && (-180.0..=180.0).contains(&place.long);
    let location = Location { latitude: place.lat, longitude: place.long, name: None, address: None, url: None, live_period_s: None };
    fits.then_some(Content::Location(location))
}
