//! What a message says, in one vocabulary for both directions and all channels; and who it is from or to.
//!
//! The JSON form is the public contract: a `type` and a member of that name.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::MediaId;

/// Room for a content's members that rarely grows.
const MEMBERS_BYTES: usize = 1024;

/// One id that a platform gives a person or chat: `scheme:value`. Personal data: never printed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(String);

impl Handle {
    /// A handle of a scheme: `phone`, `bsuid`, `chat`, `group`, `psid`, `igsid`, `conversation`, `user`, `channel`, `mail`,
    /// `order`, `customer`, `comment` or `account`.
    pub fn new(scheme: &str, value: &str) -> Self {
        Self(format!("{scheme}:{value}"))
    }
    /// A phone number: digits only, so that `+1 650-555-1234` and `16505551234` are one.
    pub fn phone(number: &str) -> Self {
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        Self(format!("phone:{digits}"))
    }
    /// A WhatsApp business-scoped user id.
    pub fn bsuid(id: &str) -> Self {
        Self::new("bsuid", id)
    }
    /// A chat of a bot.
    pub fn chat(id: &str) -> Self {
        Self::new("chat", id)
    }
    /// A group.
    pub fn group(id: &str) -> Self {
        Self::new("group", id)
    }
    /// The account itself: for events that belong to no person.
    pub fn account() -> Self {
        Self::new("account", "")
    }
    /// The whole handle, as the conversation's key is computed from it.
    pub fn expose(&self) -> &str {
        &self.0
    }
    /// The part before the colon.
    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }
    /// The part after the colon.
    pub fn value(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, value)| value)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({}:redacted)", self.scheme())
    }
}

/// A picture, sound, film, file or sticker: by link or by the platform's id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// Our id of it: in, for `GET /v1/media/{id}`; out, of a file that was uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaId>,
    /// Our own link to its bytes, good for a while (in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The platform's media id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A public https link that the platform fetches (out), or the platform's short-lived link (in).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// SHA-256 as the platform gives it (base64 on WhatsApp).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Text beside the medium.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// File name of a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// A voice note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<bool>,
    /// A moving sticker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub animated: Option<bool>,
    /// Length in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u64>,
}

/// Plain text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The text.
    pub body: String,
    /// Whether links are shown with a preview.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview_url: Option<bool>,
}

/// A place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Name of the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address of the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Link to the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Seconds that a live location is updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_period_s: Option<u64>,
}

/// A button that sends its id back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Button {
    /// What comes back when it is pressed.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// Opens this link in place of sending the id back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// One row of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What comes back when it is chosen.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// Smaller text below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A titled group of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Title, needed when there are several sections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A list to choose from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Text of the button that opens the list.
    pub button: String,
    /// The sections.
    pub sections: Vec<Section>,
}

/// A message with things to press: buttons, or a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interactive {
    /// The text.
    pub body: String,
    /// Text above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Text below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
    /// Buttons. Exactly one of `buttons` and `list`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<Button>,
    /// A list. Exactly one of `buttons` and `list`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<List>,
}

/// What a person pressed or filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InteractiveReply {
    /// `button`, `list`, `template_button`, `callback`, `form` or `call_permission`.
    pub kind: String,
    /// The id of the button or row, or the button's payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A row's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The answers of a form, as the platform gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// An approved template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// Its language, such as `en_US`.
    pub language: String,
    /// The body's parameters in order; the short form of `components`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
    /// Components in the platform's own shape, for headers, buttons and named parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<Value>,
}

/// An emoji on a message; none takes it away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    /// Our id of the message, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The platform's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_id: Option<String>,
    /// The emoji; absent or empty removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emoji: Option<String>,
}

/// A read receipt or typing notice for a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Our id of the message; default: the newest inbound one of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The platform's id of the message, filled in by the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_id: Option<String>,
}

/// A mail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// The subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The text as HTML. Of a stranger: never to be shown without cleaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Addresses of the main recipients (in; out it is the message's `to`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Addresses of further recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cc: Vec<String>,
    /// Addresses of hidden recipients (out).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bcc: Vec<String>,
    /// Where answers are to go, when not to the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// What is attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Media>,
    /// Part of a mailing: gets `List-Unsubscribe` with this link (out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsubscribe: Option<String>,
}

/// A kind that has no name of its own here: nothing is thrown away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unsupported {
    /// The platform's name of the kind.
    pub kind: String,
    /// The platform's part, as it came.
    pub raw: Value,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Plain text.
    Text(Text),
    /// A picture.
    Image(Media),
    /// A film.
    Video(Media),
    /// A sound or voice note.
    Audio(Media),
    /// A file.
    Document(Media),
    /// A sticker.
    Sticker(Media),
    /// A place.
    Location(Location),
    /// Contact cards, in the platform's shape.
    Contacts(Vec<Value>),
    /// Things to press (out).
    Interactive(Interactive),
    /// What was pressed (in).
    InteractiveReply(InteractiveReply),
    /// An approved template (out).
    Template(Template),
    /// An emoji on a message (out; inbound ones are events of their own).
    Reaction(Reaction),
    /// Read receipt (out).
    Read(Receipt),
    /// Typing notice (out).
    Typing(Receipt),
    /// A basket, in the platform's shape (in).
    Order(Value),
    /// A payment, in the platform's shape (in).
    Payment(Value),
    /// A mail.
    Email(Email),
    /// Several parts under one platform id (text with pictures, several pictures).
    Mixed(Vec<Content>),
    /// Anything else.
    Unsupported(Unsupported),
}

impl Content {
    /// The `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Image(_) => "image",
            Self::Video(_) => "video",
            Self::Audio(_) => "audio",
            Self::Document(_) => "document",
            Self::Sticker(_) => "sticker",
            Self::Location(_) => "location",
            Self::Contacts(_) => "contacts",
            Self::Interactive(_) => "interactive",
            Self::InteractiveReply(_) => "interactive_reply",
            Self::Template(_) => "template",
            Self::Reaction(_) => "reaction",
            Self::Read(_) => "read",
            Self::Typing(_) => "typing",
            Self::Order(_) => "order",
            Self::Payment(_) => "payment",
            Self::Email(_) => "email",
            Self::Mixed(_) => "mixed",
            Self::Unsupported(_) => "unsupported",
        }
    }

    /// Its media in order, each with the `type` that it stands under; what is attached to a mail counts as documents.
    pub fn media(&self) -> Vec<(&'static str, &Media)> {
        match self {
            Self::Image(media) | Self::Video(media) | Self::Audio(media) | Self::Document(media) | Self::Sticker(media) => {
                vec![(self.kind(), media)]
            }
            Self::Email(mail) => mail.attachments.iter().map(|media| ("document", media)).collect(),
            Self::Mixed(parts) => parts.iter().flat_map(Self::media).collect(),
            Self::Text(_)
            | Self::Location(_)
            | Self::Contacts(_)
            | Self::Interactive(_)
            | Self::InteractiveReply(_)
            | Self::Template(_)
            | Self::Reaction(_)
            | Self::Read(_)
            | Self::Typing(_)
            | Self::Order(_)
            | Self::Payment(_)
            | Self::Unsupported(_) => Vec::new(),
        }
    }

    /// The same, to be changed.
    pub fn media_mut(&mut self) -> Vec<&mut Media> {
        match self {
            Self::Image(media) | Self::Video(media) | Self::Audio(media) | Self::Document(media) | Self::Sticker(media) => vec![media],
            Self::Email(mail) => mail.attachments.iter_mut().collect(),
            Self::Mixed(parts) => parts.iter_mut().flat_map(Self::media_mut).collect(),
            Self::Text(_)
            | Self::Location(_)
            | Self::Contacts(_)
            | Self::Interactive(_)
            | Self::InteractiveReply(_)
            | Self::Template(_)
            | Self::Reaction(_)
            | Self::Read(_)
            | Self::Typing(_)
            | Self::Order(_)
            | Self::Payment(_)
            | Self::Unsupported(_) => Vec::new(),
        }
    }

    /// Whether it is a message to the person, and not a receipt or reaction about one.
    pub fn is_message(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Typing(_) | Self::Reaction(_))
    }

    /// The members `"type":"…","…":{…}`, without braces: to be put into a larger object.
    pub fn members(&self) -> String {
        let mut out = Vec::with_capacity(MEMBERS_BYTES);
        out.extend_from_slice(b"\"type\":\"");
        out.extend_from_slice(self.kind().as_bytes());
        out.push(b'"');
        let brace = out.len();
        serde_json::to_writer(&mut out, self).expect("content serialises");
        // The object's braces go: its members stand beside the type.
        out[brace] = b',';
        out.pop();
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    /// From a parsed object that has `type` and a member of that name.
    pub fn from_members(object: &Map<String, Value>) -> Result<Self, String> {
        let kind = object.get("type").and_then(Value::as_str).ok_or("type is missing")?;
        let body = object.get(kind).ok_or_else(|| format!("the member {kind} is missing"))?;
        let tagged = Map::from_iter([(kind.to_owned(), body.clone())]);
        serde_json::from_value(Value::Object(tagged)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_a_type_and_a_member_of_that_name() {
        let content = Content::Text(Text { body: "a \"b\"".into(), preview_url: None });
        let json = format!("{{{}}}", content.members());
        assert_eq!(json, r#"{"type":"text","text":{"body":"a \"b\""}}"#);
        let object: Map<String, Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(Content::from_members(&object), Ok(content));
    }

    #[test]
    fn one_phone_number_has_one_handle() {
        assert_eq!(Handle::phone("+1 650-555-1234"), Handle::phone("16505551234"));
        assert!(!format!("{:?}", Handle::phone("16505551234")).contains("650"));
    }
}
