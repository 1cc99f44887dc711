//! What a platform says, in our words.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::content::{Content, Handle};
use crate::event::EventType;
use crate::outcome::{Reason, Status};

/// What one piece says.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// The platform's id of the event: with its kind and qualifier the key of deduplication. Empty: the bytes are hashed.
    pub platform_id: String,
    /// Tells several events about one platform id apart (a status, a participant).
    pub qualifier: String,
    /// The platform's time; `ZERO` when it says none.
    pub at: Timestamp,
    /// The person.
    pub contact: ContactInfo,
    /// Whether it opens the window.
    pub opens_window: bool,
    /// Whether the person came by an ad: some platforms give more time then (`WindowRule::after_ad`).
    pub from_ad: bool,
    /// What happened.
    pub body: InboundBody,
    /// Context for subscribers: referral, forwarded, group, product, album …; merged into the event's data.
    pub context: Map<String, Value>,
}

/// What is said of a person.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContactInfo {
    /// All handles that the piece names, first the one that the key is computed from.
    pub handles: Vec<Handle>,
    /// Name.
    pub name: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// The way to write back: a business connection (Telegram), an interaction's token (Discord).
    pub via: Option<String>,
    /// How long that way can be used, from the platform's time on; none: until another comes.
    pub via_for: Option<Duration>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum InboundBody {
    /// The person wrote.
    Message {
        /// What.
        content: Content,
        /// The platform's id of the message that it answers.
        reply_to: Option<String>,
    },
    /// The business wrote by another way.
    Echo {
        /// What.
        content: Content,
        /// The platform's id of the message that it answers.
        reply_to: Option<String>,
    },
    /// News of a message of ours.
    Status(StatusUpdate),
    /// An emoji on a message, or none any more.
    Reaction {
        /// The platform's id of the message.
        target: String,
        /// The emoji; none takes it away.
        emoji: Option<String>,
    },
    /// All our messages of the conversation up to a point reached this state.
    Watermark {
        /// `Delivered` or `Read`.
        status: Status,
        /// What was sent until then, by the platform's clock; `ZERO`: what was sent until the newest of `messages`.
        upto: Timestamp,
        /// The platform's ids of messages that are named beside, or in its place.
        messages: Vec<String>,
    },
    /// A message was changed.
    Edit {
        /// The platform's id of the message.
        target: String,
        /// What it says now.
        content: Content,
    },
    /// Messages were withdrawn: their content is to be forgotten.
    Delete {
        /// The platform's ids of the messages.
        targets: Vec<String>,
    },
    /// The person wants (no) messages of a category.
    Preference {
        /// Opted out, or in again.
        opted_out: bool,
        /// Of what, as the platform names it.
        category: String,
    },
    /// The person has other handles now.
    Rekeyed {
        /// The new ones.
        handles: Vec<Handle>,
    },
    /// The person blocked us, or let us in again.
    Reachable(bool),
    /// News of the account or its templates.
    Account {
        /// `AccountStateChanged` or `TemplateChanged`.
        event: EventType,
        /// The event's data.
        data: Map<String, Value>,
    },
    /// A thing of the shop was made, changed or removed. Sealed as a person's data when the first handle is a person's.
    Resource {
        /// `OrderCreated` and its like.
        event: EventType,
        /// Its member in the event's data, such as `order`.
        name: &'static str,
        /// The thing, as the platform shows it.
        data: Value,
    },
    /// An authentic notice without a type of its own (comments, policy notices, handovers).
    Platform {
        /// The platform's name of it.
        kind: String,
        /// Its raw part.
        raw: Value,
    },
}

impl InboundBody {
    /// Its kind, as it goes into ids. Never changes.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Message { .. } => "message",
            Self::Echo { .. } => "echo",
            Self::Status(_) => "status",
            Self::Reaction { .. } => "reaction",
            Self::Edit { .. } => "edit",
            Self::Delete { .. } => "delete",
            Self::Preference { .. } => "preference",
            Self::Rekeyed { .. } => "rekeyed",
            Self::Reachable(_) => "reachable",
            Self::Account { .. } => "account",
            Self::Watermark { .. } => "watermark",
            Self::Resource { .. } => "resource",
            Self::Platform { .. } => "platform",
        }
    }
}

/// News of a message of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusUpdate {
    /// The platform's id of the message.
    pub message: String,
    /// The new state: `Sent`, `Delivered`, `Read` or `Failed`.
    pub status: Status,
    /// The platform's own word for it.
    pub platform_status: String,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// The platform's code and text.
    pub detail: Option<String>,
    /// Our message id, given back by the platform.
    pub callback: Option<String>,
    /// Price and conversation, in the platform's shape.
    pub extra: Map<String, Value>,
}
