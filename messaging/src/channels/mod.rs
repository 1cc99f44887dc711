//! The platforms. A channel is a pure thing: it judges bytes and builds bytes, does no I/O, and says everything
//! particular to its platform in one place: verify and split, parse, window rule, budgets, request, outcome.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::content::{Content, Handle};
use crate::directory::{Account, SecretPair};
use crate::event::EventType;
use crate::exchange::{HttpRequest, HttpResponse, WebhookRequest};
use crate::limit::Budget;
use crate::outcome::{Reason, Status, Verdict, named_enum};
use crate::seal::Secret;

pub mod telegram;
pub mod whatsapp;

named_enum! {
/// The platforms that are built in.
ChannelKind {
    /// WhatsApp Cloud API.
    Whatsapp = "whatsapp",
    /// Telegram Bot API.
    Telegram = "telegram",
}
}

impl ChannelKind {
    /// The channel of that name, as it stands in paths.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// The one match: everything else asks the trait.
pub fn channel(kind: ChannelKind) -> &'static dyn Channel {
    match kind {
        ChannelKind::Whatsapp => &whatsapp::Whatsapp,
        ChannelKind::Telegram => &telegram::Telegram,
    }
}

/// A platform.
pub trait Channel: Send + Sync {
    /// Which.
    fn kind(&self) -> ChannelKind;

    /// The members of an account of this channel.
    fn fields(&self) -> &'static [AccountField];

    /// Prepares the account's secrets for `receive`: done once per directory snapshot, not per request.
    fn verifier(&self, secrets: &BTreeMap<String, SecretPair>) -> Verifier;

    /// Judges a webhook request over its raw bytes, in constant time, before any parsing; then splits it into one piece
    /// per inner event.
    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal>;

    /// What one piece says. Accepts unknown keys, unknown kinds (as `Unsupported` or `Platform`, with the raw part) and
    /// missing optional keys.
    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed>;

    /// How long free text is allowed after the person's last word; none: always.
    fn window(&self, settings: &ChannelSettings) -> Option<Duration>;

    /// The budgets of the outside world that a send uses, widest last.
    fn budgets(&self, settings: &ChannelSettings, to: &Handle) -> Vec<Budget>;

    /// What a refusal of a webhook costs with this platform.
    fn refusal_cost(&self) -> RefusalCost;

    /// The handle of the API's `to` object, or what is wrong with it (pointer relative to `to`).
    fn recipient(&self, to: &Map<String, Value>) -> Result<Handle, Fault>;

    /// The handle of the short form, as in `?to=`.
    fn short_recipient(&self, to: &str) -> Result<Handle, Fault>;

    /// The API's `to` object of a handle.
    fn recipient_json(&self, handle: &Handle) -> Value;

    /// Everything that is wrong with a content for this recipient, with the platform's limits, not just the first fault.
    /// Pointers are relative to the message, such as `/text/body`.
    fn check(&self, content: &Content, to: &Handle) -> Vec<Fault>;

    /// The platform's request.
    fn request(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable>;

    /// What the platform's answer means for this send.
    fn outcome(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Verdict;

    /// A cheap call that shows whether the account's credential works, for `POST /v1/accounts/{id}/check`.
    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest;

    /// How an unknown send can be settled.
    fn settlement(&self) -> Settlement;
}

/// How the fate of a send that may or may not have arrived becomes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The platform's statuses carry our id (`biz_opaque_callback_data`).
    ByStatus,
    /// Never by itself: it stays unknown until the tenant decides.
    Never,
}

/// A member of an account.
#[derive(Debug, Clone, Copy)]
pub struct AccountField {
    /// Its name in the API.
    pub name: &'static str,
    /// Write-only and sealed, or shown.
    pub secret: bool,
    /// Whether an account needs it.
    pub required: bool,
    /// What it is, for help and errors.
    pub help: &'static str,
    /// Whether a value may be used, or why not.
    pub check: fn(&str) -> Result<(), &'static str>,
}

/// What a node's configuration says about a channel.
#[derive(Debug, Clone)]
pub struct ChannelSettings {
    /// The platform's address, without a slash at the end.
    pub api_base: String,
    /// The platform's API version, such as `v23.0`.
    pub api_version: String,
    /// How long a call may take.
    pub timeout: Duration,
    /// Sends a second for one account.
    pub per_account: f64,
    /// Sends a second to one recipient.
    pub per_pair: f64,
    /// The window, where the channel has one.
    pub window: Duration,
    /// How long before its end subscribers are told.
    pub window_warning: Duration,
}

impl ChannelSettings {
    /// The address to use for an account.
    pub fn base<'a>(&'a self, account: &'a Account) -> &'a str {
        account.row.api_base.as_deref().unwrap_or(&self.api_base).trim_end_matches('/')
    }
}

/// Secrets prepared for verification.
#[derive(Clone)]
pub enum Verifier {
    /// Meta: HMAC-SHA256 states for the app secrets, and the verify tokens of the handshake.
    Meta {
        /// One state per live secret.
        app_secrets: Vec<Hmac<Sha256>>,
        /// Live verify tokens.
        verify_tokens: Vec<Secret>,
    },
    /// Telegram: secret tokens.
    Tokens(Vec<Secret>),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(redacted)")
    }
}

/// HMAC states for the live values of a secret.
pub(crate) fn mac_states(pair: Option<&SecretPair>) -> Vec<Hmac<Sha256>> {
    let live = pair.into_iter().flat_map(SecretPair::both).filter(|secret| !secret.is_empty());
    live.map(|secret| Hmac::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length")).collect()
}

/// The live values of a secret.
pub(crate) fn live_secrets(pair: Option<&SecretPair>) -> Vec<Secret> {
    pair.into_iter().flat_map(SecretPair::both).filter(|secret| !secret.is_empty()).cloned().collect()
}

/// Checks a MAC against every live secret; constant time for each.
pub(crate) fn any_mac_matches(states: &[Hmac<Sha256>], message: &[u8], tag: &[u8]) -> bool {
    let mut found = false;
    for state in states {
        let mut mac = state.clone();
        mac.update(message);
        found |= mac.verify_slice(tag).is_ok();
    }
    found
}

/// What a verified request holds. Only a channel can make one.
#[derive(Debug)]
pub enum Received {
    /// A handshake; the answer.
    Handshake(HandshakeReply),
    /// The inner events.
    Pieces(Vec<Piece>),
}

/// The answer to a handshake: always `text/plain` and `nosniff`.
#[derive(Debug, PartialEq, Eq)]
pub struct HandshakeReply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

named_enum! {
/// What kind of thing a piece is, for metrics and shedding.
PieceKind {
    /// A message.
    Message = "message",
    /// A delivery or read status.
    Status = "status",
    /// A merchant's send (not made by channels).
    Send = "send",
    /// A reaction.
    Reaction = "reaction",
    /// A notice about the account, its templates or its standing.
    Account = "account",
    /// Anything else.
    Other = "other",
}
}

/// One inner event of a verified request: the only thing of a stranger's that becomes a record. Its fields are private and
/// its constructors belong to this folder, so unverified bytes cannot reach the log.
#[derive(Debug, Clone)]
pub struct Piece {
    handle: Handle,
    kind: PieceKind,
    body: Bytes,
    unparsable: bool,
}

impl Piece {
    pub(in crate::channels) fn new(handle: Handle, kind: PieceKind, body: Bytes) -> Self {
        Self { handle, kind, body, unparsable: false }
    }
    /// Authentic, but not to be understood: goes to quarantine.
    pub(in crate::channels) fn unparsable(body: Bytes) -> Self {
        Self { handle: Handle::account(), kind: PieceKind::Other, body, unparsable: true }
    }
    /// Whom it concerns: the conversation's key is computed from it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
    /// Its kind.
    pub fn kind(&self) -> PieceKind {
        self.kind
    }
    /// Its bytes, for `Channel::parse`.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
    /// Whether it could not be split.
    pub fn is_unparsable(&self) -> bool {
        self.unparsable
    }
}

/// A webhook request is not taken. From outside, an unknown account and a bad signature look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No or a wrong signature or token.
    Unauthentic,
    /// A handshake without what it needs.
    Malformed,
    /// The channel has no such request.
    Method,
}

/// A piece that does not parse: goes to quarantine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

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
    /// Business connection, for replies on behalf (Telegram).
    pub via: Option<String>,
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
    /// An authentic notice without a type of its own.
    Platform {
        /// The platform's name of it.
        kind: String,
        /// Its raw part.
        raw: Value,
    },
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

/// A send, ready to be turned into a request.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Our id, as text: given to the platform where it gives it back.
    pub message: &'a str,
    /// To whom.
    pub to: &'a Handle,
    /// What.
    pub content: &'a Content,
    /// The platform's id of the message that it answers.
    pub reply_to: Option<&'a str>,
    /// Business connection (Telegram).
    pub via: Option<&'a str>,
}

/// Something is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer.
    pub pointer: String,
    /// What, with the rule.
    pub detail: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// A content that this channel cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsendable(pub String);

/// What it costs to refuse a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalCost {
    /// The status to refuse with while the log is away.
    pub status: u16,
    /// How long the platform brings a refused event again.
    pub redelivered_for: Duration,
    /// After how long of refusals the platform punishes (unsubscribes, disables); none: never.
    pub punished_after: Option<Duration>,
}

/// The longest text by Unicode characters that a platform takes, as a fault when it is longer or empty.
pub(crate) fn check_chars(faults: &mut Vec<Fault>, pointer: &str, text: &str, max: usize) {
    let chars = text.chars().count();
    if chars == 0 {
        faults.push(Fault::new(pointer, "must not be empty"));
    } else if chars > max {
        faults.push(Fault::new(pointer, format!("has {chars} characters, at most {max} are allowed")));
    }
}
