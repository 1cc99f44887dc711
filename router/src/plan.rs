//! What a decision asks for: the vocabulary between the pure core and the hands.

use std::sync::Arc;

use bytes::Bytes;
use messaging::accounts::StateChange;
use messaging::clock::Timestamp;
use messaging::content::{Content, Handle};
use messaging::event::Event;
use messaging::ids::{AccountId, ConversationId, DeliveryId, EndpointId, MediaId, MessageId};
use messaging::media::Wanted;
use messaging::outcome::Verdict;
use messaging::record::{Class, Record, SendCommand};
use messaging::state::FeedPosition;
use messaging::store::Queue;
use messaging::tenant::Tenant;
use serde::{Deserialize, Serialize};

/// Where an effect goes, and by which line: an account has one for each class of sends. Order holds within a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// A subscriber.
    Endpoint(EndpointId),
    /// A platform account.
    Account(AccountId, Class),
}

impl Destination {
    /// Its queue in `later`.
    pub fn queue(self) -> Queue {
        match self {
            Self::Endpoint(EndpointId(id)) | Self::Account(AccountId(id), Class::Interactive) => Queue::Destination(id),
            Self::Account(AccountId(id), Class::Bulk) => Queue::Bulk(id),
        }
    }

    /// The same, without a class: one lane serves both lines of an account.
    pub fn lane(self) -> Self {
        match self {
            Self::Endpoint(id) => Self::Endpoint(id),
            Self::Account(id, _) => Self::Account(id, Class::Interactive),
        }
    }

    /// By which line it goes.
    pub fn class(self) -> Class {
        match self {
            Self::Endpoint(_) => Class::Interactive,
            Self::Account(_, class) => class,
        }
    }
}

/// An event on its way to one endpoint.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// Its place in the feed, to find it again.
    pub feed: FeedPosition,
    /// The body, byte for byte the same at every try.
    pub body: Bytes,
    /// To whom.
    pub endpoint: EndpointId,
    /// (event, endpoint).
    pub id: DeliveryId,
    /// `trunkline-sequence`.
    pub sequence: u64,
    /// How many before it were given up.
    pub gap: u32,
}

/// A message on its way to the platform.
#[derive(Debug, Clone)]
pub struct Sending {
    /// What the merchant asked for.
    pub command: SendCommand,
    /// On which account.
    pub account: AccountId,
    /// To whom now (a chat may have moved).
    pub to: Handle,
    /// The platform's id of the message that it answers.
    pub reply_to: Option<String>,
}

/// Leave to go, given once the intent is durable.
#[derive(Debug, Clone)]
pub struct Go {
    /// What is sent: the merchant's content, or its fallback.
    pub content: Content,
    /// The tag that it needs.
    pub tag: Option<String>,
    /// The way to write back, while it can be used.
    pub via: Option<String>,
}

/// What is to be done at a destination.
#[derive(Debug, Clone)]
pub enum Work {
    /// Deliver an event.
    Deliver(Arc<Delivery>),
    /// Send a message.
    Send(Arc<Sending>),
}

/// One thing to do, in order within its (destination, conversation).
#[derive(Debug, Clone)]
pub struct Task {
    /// On whose behalf.
    pub tenant: Tenant,
    /// The unit of order.
    pub conversation: ConversationId,
    /// When the record that caused it was accepted.
    pub accepted_at: Timestamp,
    /// When it was first put in `later`; `ZERO` when it never was.
    pub parked_at: Timestamp,
    /// Tries made so far, by the schedule's count.
    pub attempts: u32,
    /// Tries that a former owner may have made beside: `trunkline-attempt` rises with each, the schedule does not.
    pub repeats: u32,
    /// What.
    pub work: Work,
}

impl Task {
    /// Where it goes.
    pub fn destination(&self) -> Destination {
        match &self.work {
            Work::Deliver(delivery) => Destination::Endpoint(delivery.endpoint),
            Work::Send(sending) => Destination::Account(sending.account, sending.command.class),
        }
    }
}

/// How a task ended at its lane.
#[derive(Debug)]
pub enum TaskEnd {
    /// The endpoint took the event.
    Delivered {
        /// It had failed, since then, and is well again.
        recovered: Option<Timestamp>,
    },
    /// The endpoint did not: try again after the schedule, not before `after`.
    DeliveryFailed {
        /// `Retry-After` of the endpoint.
        after: Option<std::time::Duration>,
        /// The endpoint as a whole fails: nothing goes to it before this probe.
        probe: Option<Timestamp>,
        /// The endpoint has failed without pause for as long as the node allows: disable it.
        disable: bool,
    },
    /// The endpoint is gone (410).
    EndpointGone,
    /// The platform judged the message.
    Judged {
        /// How.
        verdict: Verdict,
        /// When the newest secret was set of the credential that it was sent with; none: it was not sent.
        credential: Option<Timestamp>,
    },
    /// Nothing was tried: the budget, the breaker or the destination's state says not before then.
    Deferred {
        /// When to offer it again.
        until: Timestamp,
        /// Whether it is the whole destination that waits, or this conversation.
        whole: bool,
    },
    /// The code that tried panicked: whether anything was written cannot be told.
    Panicked,
    /// The owner said no at the last moment (cancelled, window closed, lease lost).
    Withdrawn,
}

/// What a row in `later` remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterRow {
    /// On whose behalf.
    pub tenant: messaging::ids::TenantId,
    /// The unit of order.
    pub conversation: ConversationId,
    /// Not before.
    pub due: Timestamp,
    /// Past this it only waits to be failed; `MAX` when there is no such time.
    pub deadline: Timestamp,
    /// Tries made so far, by the schedule's count.
    pub attempts: u32,
    /// Tries that former owners may have made beside.
    pub repeats: u32,
    /// Under which lease it was written: every later owner may have tried once more without a trace.
    pub epoch: u64,
    /// When the record that caused it was accepted.
    pub accepted_at: Timestamp,
    /// When it was first put here.
    pub parked_at: Timestamp,
    /// What.
    pub what: LaterWork,
}

/// What is to be done later: references only, the content stands in its own row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaterWork {
    /// Deliver the event at this place of the feed.
    Deliver {
        /// The event's place.
        feed: FeedPosition,
        /// `trunkline-sequence`.
        sequence: u64,
    },
    /// Send this message (its row's time is the second).
    Send(MessageId, Timestamp),
    /// Look at the conversation's window.
    Window,
    /// A scheduled send is due.
    Scheduled(MessageId, Timestamp),
}

/// A row of the intents: the platform may have this message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentRow {
    /// Its conversation.
    pub conversation: ConversationId,
    /// The time of its row.
    pub at: Timestamp,
    /// Under which lease.
    pub epoch: u64,
    /// Which try.
    pub attempt: u32,
}

/// A medium to be kept.
#[derive(Debug)]
pub struct MediaJob {
    /// Which, and where it is.
    pub wanted: Wanted,
    /// Its bytes, where they came with the message: kept before the message's rows are stored, because they are nowhere else.
    pub bytes: Option<Bytes>,
}

/// What the decisions of one step ask for, beside the rows.
#[derive(Debug, Default)]
pub struct Effects {
    /// New tasks, in order.
    pub tasks: Vec<Task>,
    /// Scheduled sends whose time has come.
    pub scheduled: Vec<Task>,
    /// Timers to set: when, what.
    pub timers: Vec<LaterRow>,
    /// Records for other shards.
    pub records: Vec<Record>,
    /// Accounts that the platform refused or blocked.
    pub accounts: Vec<StateChange>,
    /// Messages taken back while they wait.
    pub cancelled: Vec<(AccountId, MessageId)>,
    /// Media of messages that came in.
    pub media: Vec<MediaJob>,
    /// Media of messages that were withdrawn.
    pub forgotten: Vec<(Tenant, MediaId)>,
}

/// Something seen, for `trunkline tail`: redacted, sampled.
#[derive(Debug, Clone, Serialize)]
pub struct TailLine {
    /// When.
    pub at: Timestamp,
    /// `send`, `delivery` or `refusal`.
    pub what: &'static str,
    /// Channel or endpoint.
    pub target: String,
    /// Message or event.
    pub subject: String,
    /// How it ended.
    pub outcome: &'static str,
    /// Which try.
    pub attempt: u32,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Where tail lines go; lines are lost when nobody looks.
pub type Tail = Arc<tokio::sync::broadcast::Sender<TailLine>>;
