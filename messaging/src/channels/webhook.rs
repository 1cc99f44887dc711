//! From a stranger's request to verified pieces: what is judged with, and what comes of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::content::Handle;
use crate::directory::SecretPair;
use crate::exchange::HttpRequest;
use crate::outcome::named_enum;
use crate::seal::Secret;

/// Bytes of an Ed25519 public key.
pub const ED25519_KEY_BYTES: usize = 32;

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
    /// HMAC-SHA256 states, one per live secret (WooCommerce).
    Mac(Vec<Hmac<Sha256>>),
    /// HMAC-SHA256 states over a time and the body (TikTok).
    TimedMac {
        /// One state per live secret.
        states: Vec<Hmac<Sha256>>,
        /// How old a signature may be.
        max_age: Duration,
    },
    /// Ed25519 public keys (Discord).
    Ed25519(Vec<[u8; ED25519_KEY_BYTES]>),
    /// E-mail: by the account's provider.
    Mail(MailVerifier),
}

impl Verifier {
    /// Whether one judgement takes tens of microseconds, which is what a public-key signature costs: such requests are judged beside
    /// the threads that serve connections.
    pub fn is_slow(&self) -> bool {
        match self {
            Self::Ed25519(_) => true,
            Self::Mail(mail) => match mail {
                MailVerifier::Ecdsa(_) | MailVerifier::Sns { .. } => true,
                MailVerifier::Bridge(_) | MailVerifier::Mailgun(_) | MailVerifier::Basic(_) | MailVerifier::Nothing => false,
            },
            Self::Meta { .. } | Self::Tokens(_) | Self::Mac(_) | Self::TimedMac { .. } => false,
        }
    }
}

/// How the provider of an e-mail account proves that a request is its own.
#[derive(Clone)]
pub enum MailVerifier {
    /// The raw-MIME bridge of ours: HMAC-SHA256 over time and body.
    Bridge(Vec<Hmac<Sha256>>),
    /// Mailgun: HMAC-SHA256 over time and token, keyed with the webhook signing key.
    Mailgun(Vec<Hmac<Sha256>>),
    /// Postmark: `user:password` of HTTP Basic, as they stand in the hook's address.
    Basic(Vec<Secret>),
    /// Amazon SNS: RSA by a certificate that the request names; only these topics.
    Sns {
        /// ARNs of the topics that are ours.
        topics: Vec<String>,
    },
    /// SendGrid: ECDSA P-256 public keys, as uncompressed points.
    Ecdsa(Vec<Vec<u8>>),
    /// The account says too little: nothing passes.
    Nothing,
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
    /// The inner events; 200 without a body once they are durable.
    Pieces(Vec<Piece>),
    /// The inner events, and the answer that the platform wants once they are durable. Without pieces: the answer at once
    /// (a ping).
    Answered {
        /// The inner events.
        pieces: Vec<Piece>,
        /// The answer.
        answer: Answer,
    },
    /// The platform wants to be called before it sends events (SNS `SubscribeURL`). The channel has checked the host. The
    /// gateway makes the call and answers 200 when it succeeds, and else the channel's own refusal.
    Confirm(HttpRequest),
}

/// An answer to a webhook that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The media type; none: no header.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: Some("application/json"), body: Bytes::from(body.to_string()) }
    }
    /// A status without a body. Platforms that ask for a `Content-Type` all the same get one.
    pub fn empty(status: u16, content_type: Option<&'static str>) -> Self {
        Self { status, content_type, body: Bytes::new() }
    }
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
    about: Option<About>,
}

/// Which account a piece is about, where one hook of the platform serves several: by the platform's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The account of this id (`Channel::identity`).
    Account(Box<str>),
    /// No account by itself, but what several belong to (`Channel::group`), such as a WhatsApp Business Account: the path's account,
    /// when it belongs to it, speaks for all of them.
    Group(Box<str>),
}

impl Piece {
    pub(in crate::channels) fn new(handle: Handle, kind: PieceKind, body: Bytes) -> Self {
        Self { handle, kind, body, unparsable: false, about: None }
    }
    /// Authentic, but not to be understood: goes to quarantine.
    pub(in crate::channels) fn unparsable(body: Bytes) -> Self {
        Self { handle: Handle::account(), kind: PieceKind::Other, body, unparsable: true, about: None }
    }
    /// Says which account it is about, by the platform's id of it (`Channel::identity`), where one hook serves several.
    pub(in crate::channels) fn about(mut self, account: &str) -> Self {
        self.about = Some(About::Account(account.into()));
        self
    }
    /// The same where several cases were told apart before.
    pub(in crate::channels) fn about_whom(mut self, about: Option<About>) -> Self {
        self.about = about;
        self
    }
    /// What it is about; none: the account of the path. Another account than the path's gets it only when that account's own secrets
    /// verify the request as well.
    pub fn subject(&self) -> Option<&About> {
        self.about.as_ref()
    }
    /// The platform's id of the account that it is about, where it names one.
    pub fn account(&self) -> Option<&str> {
        match &self.about {
            Some(About::Account(id)) => Some(id),
            Some(About::Group(_)) | None => None,
        }
    }
    /// The same piece with other bytes that say the same.
    pub(in crate::channels) fn with_body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
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
