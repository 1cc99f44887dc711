//! The shape of a webhook: an envelope whose `content` is JSON inside a string, one event each. Splitter and parser read it the
//! same way, so that both name the same account and the same conversation.

use serde_json::{Map, Value};

use super::{COMMENT, CONVERSATION};
use crate::channels::PieceKind;
use crate::clock::Timestamp;
use crate::content::Handle;

/// Above this a number is milliseconds and not seconds: the year 5138 in seconds, 1973 in milliseconds.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// A person's message.
pub(super) const RECEIVED: &str = "im_receive_msg";
/// A message of the business, ours included.
pub(super) const SENT: &str = "im_send_msg";
/// The person came by an advertisement or a link.
pub(super) const REFERRAL: &str = "im_referral_msg";
/// The person read.
pub(super) const READ: &str = "im_mark_read_msg";
/// A comment of somebody who seems to want something.
pub(super) const HIGH_INTENT: &str = "im_receive_high_intent_comment";
/// A comment.
pub(super) const COMMENT_UPDATE: &str = "comment.update";
/// The app may no longer act for the account.
pub(super) const REMOVED: &str = "authorization.removed";

/// An event, taken apart.
pub(super) struct Event {
    /// All of the envelope.
    pub envelope: Map<String, Value>,
    /// The event's name; empty when it has none.
    pub kind: String,
    /// What it says.
    pub content: Map<String, Value>,
}

impl Event {
    /// None: not an event, or one whose content cannot be read.
    pub fn read(body: &[u8]) -> Option<Self> {
        let envelope: Map<String, Value> = serde_json::from_slice(body).ok()?;
        let kind = text(&envelope, "event")?.to_owned();
        let content = match envelope.get("content") {
            Some(Value::String(inner)) if inner.is_empty() => Map::new(),
            Some(Value::String(inner)) => serde_json::from_str(inner).ok()?,
            Some(Value::Object(inner)) => inner.clone(),
            None | Some(Value::Null) => Map::new(),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_)) => return None,
        };
        Some(Self { envelope, kind, content })
    }

    /// The business account that it is about.
    pub fn account(&self) -> Option<&str> {
        text(&self.envelope, "user_openid")
    }

    /// Whether it tells of a comment.
    pub fn is_comment(&self) -> bool {
        matches!(self.kind.as_str(), HIGH_INTENT | COMMENT_UPDATE)
    }

    /// The conversation or comment that it concerns; else the account.
    pub fn handle(&self) -> Handle {
        if let Some(conversation) = text(&self.content, "conversation_id") {
            return Handle::new(CONVERSATION, conversation);
        }
        match id(&self.content, "comment_id") {
            Some(comment) if self.is_comment() => Handle::new(COMMENT, &comment),
            Some(_) | None => Handle::account(),
        }
    }

    pub fn piece_kind(&self) -> PieceKind {
        match self.kind.as_str() {
            RECEIVED | SENT if self.reactions().is_some() => PieceKind::Reaction,
            RECEIVED | SENT => PieceKind::Message,
            READ => PieceKind::Status,
            REMOVED => PieceKind::Account,
            _ => PieceKind::Other,
        }
    }

    /// The reactions of an event that is one: the platform puts several into one list.
    pub fn reactions(&self) -> Option<&Vec<Value>> {
        let is_reaction = text(&self.content, "type") == Some("reaction");
        self.content.get("reaction").filter(|_| is_reaction)?.as_array()
    }

    /// The platform's time: the content's own, which is finer, else the envelope's.
    pub fn at(&self) -> Timestamp {
        let own = time(&self.content, "timestamp");
        if own == Timestamp::ZERO { time(&self.envelope, "create_time") } else { own }
    }
}

/// A text that says something.
pub(super) fn text<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    map.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// A member that is an object.
pub(super) fn object<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    map.get(name)?.as_object()
}

/// An id, which stands as text or as a whole number.
pub(super) fn id(map: &Map<String, Value>, name: &str) -> Option<String> {
    match map.get(name)? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A time in seconds or milliseconds; `ZERO` when there is none.
pub(super) fn time(map: &Map<String, Value>, name: &str) -> Timestamp {
    let number = match map.get(name) {
        Some(Value::Number(number)) => number.as_u64().unwrap_or(0),
        Some(Value::String(digits)) => digits.parse().unwrap_or(0),
        Some(_) | None => 0,
    };
    if number >= MILLISECONDS_FROM { Timestamp::from_millis(number) } else { Timestamp::from_secs(number) }
}
