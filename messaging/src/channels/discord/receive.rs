//! Verify and split: one signature over time and raw body, then one pass that keeps only the kind and the conversation.

use std::borrow::Cow;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{CHANNEL, USER};
use crate::channels::{Answer, ED25519_KEY_BYTES, Piece, PieceKind, Received, Refusal, Verifier};
use crate::clock::Timestamp;
use crate::content::Handle;
use crate::exchange::WebhookRequest;

/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;
/// Digits of the longest time that is read.
const TIME_DIGITS_MAX: usize = 12;
/// How old a signature may be: Discord brings webhook events again for 10 minutes and does not say whether it signs them anew.
const AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// How far a signature's time may be ahead of our clock.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);
/// A key of public test vectors: what an account without a key is judged by, so that it costs what others cost. Its verdict does not
/// count.
const DECOY: [u8; ED25519_KEY_BYTES] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6,
    0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// What Discord sends to the address for interactions.
pub(super) mod kinds {
    pub const PING: u64 = 1;
    pub const COMMAND: u64 = 2;
    pub const COMPONENT: u64 = 3;
    pub const AUTOCOMPLETE: u64 = 4;
    pub const MODAL: u64 = 5;
}

/// What we answer: the message comes later, or the message below the button stays as it is.
const PONG: u8 = 1;
const MESSAGE_LATER: u8 = 5;
const UPDATE_LATER: u8 = 6;
const SUGGESTIONS: u8 = 8;

pub(super) fn receive(request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
    if !request.is_post {
        return Err(Refusal::Method);
    }
    if !is_authentic(request, verifier) {
        return Err(Refusal::Unauthentic);
    }
    let Some(located) = locate(request.body) else {
        return Ok(Received::Pieces(vec![Piece::unparsable(request.body.clone())]));
    };
    let piece = |kind| vec![Piece::new(located.handle.clone(), kind, request.body.clone())];
    let (pieces, answer) = match located.said {
        Said::EventPing => (Vec::new(), no_content()),
        Said::Ping => (Vec::new(), Answer::json(200, &json!({ "type": PONG }))),
        Said::Event => (piece(PieceKind::Account), no_content()),
        Said::Interaction(kind) => (piece(kind_of(kind)), answer(kind, located.below_a_message)),
    };
    Ok(Received::Answered { pieces, answer })
}

/// The piece's kind. Suggestions are asked for with every key that is pressed: they are no word of the person.
pub(super) fn kind_of(interaction: u64) -> PieceKind {
    match interaction {
        kinds::COMMAND | kinds::COMPONENT | kinds::MODAL => PieceKind::Message,
        _ => PieceKind::Other,
    }
}

/// What one pass over a request finds.
pub(super) struct Located {
    pub said: Said,
    /// Whom it concerns.
    pub handle: Handle,
    /// Whether an interaction came from a message's own button or selection.
    pub below_a_message: bool,
}

/// Finds kind and conversation without keeping anything else. None: nothing of Discord's. `parse` starts from it too, so both name the
/// same conversation.
pub(super) fn locate(body: &[u8]) -> Option<Located> {
    let envelope = serde_json::from_slice::<Envelope<'_>>(body).ok()?;
    let said = envelope.said();
    let handle = if said == Said::Event { envelope.person() } else { envelope.place() };
    Some(Located { said, handle, below_a_message: envelope.message.is_some() })
}

/// 204 without a body, and with a media type all the same: Discord checks for one.
fn no_content() -> Answer {
    Answer::empty(204, Some("application/json"))
}

/// The answer to an interaction, once it is durable.
fn answer(kind: u64, below_a_message: bool) -> Answer {
    match deferral(kind, below_a_message) {
        Some(body) => Answer::json(200, &body),
        // A kind of tomorrow: taken, and answered by nobody.
        None => Answer::empty(202, None),
    }
}

/// What is said at once to an interaction, the same by HTTP and by the callback route: the real answer follows by its token.
pub(super) fn deferral(kind: u64, below_a_message: bool) -> Option<serde_json::Value> {
    match kind {
        kinds::COMMAND => Some(json!({ "type": MESSAGE_LATER })),
        kinds::COMPONENT => Some(json!({ "type": UPDATE_LATER })),
        kinds::MODAL if below_a_message => Some(json!({ "type": UPDATE_LATER })),
        kinds::MODAL => Some(json!({ "type": MESSAGE_LATER })),
        kinds::AUTOCOMPLETE => Some(json!({ "type": SUGGESTIONS, "data": { "choices": [] } })),
        _ => None,
    }
}

fn is_authentic(request: &WebhookRequest<'_>, verifier: &Verifier) -> bool {
    let Verifier::Ed25519(keys) = verifier else { return false };
    let Some(time) = request.headers.get("x-signature-timestamp").map(http::HeaderValue::as_bytes) else { return false };
    let Some(signature) = request.headers.get("x-signature-ed25519").and_then(|value| signature(value.as_bytes())) else { return false };
    // Time and body are signed without anything between them: only digits are a time, so that neither can borrow from the other.
    let Some(said) = seconds(time) else { return false };
    if request.now.since(said) > AGE_MAX || said.since(request.now) > AHEAD_MAX {
        return false;
    }
    let signed = [time, request.body].concat();
    if keys.is_empty() {
        std::hint::black_box(UnparsedPublicKey::new(&ED25519, DECOY).verify(&signed, &signature).is_ok());
        return false;
    }
    keys.iter().any(|key| UnparsedPublicKey::new(&ED25519, key).verify(&signed, &signature).is_ok())
}

fn signature(hex: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
    if hex.len() != 2 * SIGNATURE_BYTES {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode(hex).ok()?.try_into().ok()
}

fn seconds(digits: &[u8]) -> Option<Timestamp> {
    if digits.is_empty() || digits.len() > TIME_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(Timestamp::from_secs)
}

/// What kind of request it is: both kinds come to one address of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// An interaction that only asks whether we are there.
    Ping,
    /// A webhook event that only asks whether we are there.
    EventPing,
    /// A webhook event.
    Event,
    /// An interaction of this type.
    Interaction(u64),
}

/// What routing needs of a request. Nothing else is kept.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: u64,
    #[serde(borrow, default)]
    event: Option<Event<'a>>,
    #[serde(borrow, default)]
    channel_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    user: Option<Person<'a>>,
    #[serde(borrow, default)]
    member: Option<Member<'a>>,
    #[serde(default)]
    message: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    data: Option<EventData<'a>>,
}

#[derive(Deserialize)]
struct EventData<'a> {
    #[serde(borrow, default)]
    user: Option<Person<'a>>,
}

#[derive(Deserialize)]
struct Member<'a> {
    #[serde(borrow, default)]
    user: Option<Person<'a>>,
}

#[derive(Deserialize)]
struct Person<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
}

impl Envelope<'_> {
    fn said(&self) -> Said {
        match self.kind {
            _ if self.event.is_some() => Said::Event,
            0 => Said::EventPing,
            kinds::PING => Said::Ping,
            kind => Said::Interaction(kind),
        }
    }

    /// Whom a webhook event is about: the person, or the account.
    fn person(&self) -> Handle {
        let user = self.event.as_ref().and_then(|event| event.data.as_ref()).and_then(|data| data.user.as_ref());
        user.and_then(Person::handle).unwrap_or_else(Handle::account)
    }

    /// Where an interaction took place: the channel, else the person.
    fn place(&self) -> Handle {
        if let Some(channel) = self.channel_id.as_deref().filter(|id| !id.is_empty()) {
            return Handle::new(CHANNEL, channel);
        }
        let user = self.user.as_ref().or_else(|| self.member.as_ref().and_then(|member| member.user.as_ref()));
        user.and_then(Person::handle).unwrap_or_else(Handle::account)
    }
}

impl Person<'_> {
    fn handle(&self) -> Option<Handle> {
        self.id.as_deref().filter(|id| !id.is_empty()).map(|id| Handle::new(USER, id))
    }
}
