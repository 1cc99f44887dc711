//! From a stranger's request to verified pieces.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use http::HeaderName;
use serde_json::Value;
use sha2::Sha256;

use super::wire::Event;
use crate::channels::{Piece, Received, Refusal, Verifier};
use crate::clock::Timestamp;
use crate::exchange::WebhookRequest;

const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("tiktok-signature");
const TAG_BYTES: usize = 32;
/// Digits of a time in seconds: enough for the next 31,000 years.
const TIME_DIGITS_MAX: usize = 12;
/// How far ahead of our clock a signature may be.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);
/// Reactions of one event; an event with more is kept whole.
const REACTIONS_MAX: usize = 64;

pub(super) fn receive(request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
    if !request.is_post {
        return Err(Refusal::Method);
    }
    let Verifier::TimedMac { states, max_age } = verifier else { return Err(Refusal::Unauthentic) };
    let signature = Signature::of(request.headers).ok_or(Refusal::Unauthentic)?;
    // The signature first: what the time says counts only when it is theirs.
    if !signature.is_by(states, request.body) || !signature.is_timely(request.now, *max_age) {
        return Err(Refusal::Unauthentic);
    }
    Ok(Received::Pieces(pieces(request.body)))
}

/// The one signature header, by name: `t=<unix seconds>,s=<64 lowercase hex digits>`.
struct Signature<'a> {
    /// The time as it was written: it is signed as text.
    time: &'a str,
    tag: [u8; TAG_BYTES],
}

impl<'a> Signature<'a> {
    fn of(headers: &'a http::HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(SIGNATURE_HEADER).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let (mut time, mut hex) = (None, None);
        for part in value.to_str().ok()?.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            let twice = match name {
                "t" => time.replace(value).is_some(),
                "s" => hex.replace(value).is_some(),
                // Room for schemes to come.
                _ => false,
            };
            if twice {
                return None;
            }
        }
        let (time, hex) = (time?, hex?);
        let is_time = !time.is_empty() && time.len() <= TIME_DIGITS_MAX && time.bytes().all(|byte| byte.is_ascii_digit());
        if !is_time || hex.len() != 2 * TAG_BYTES {
            return None;
        }
        let mut tag = [0; TAG_BYTES];
        HEXLOWER.decode_mut(hex.as_bytes(), &mut tag).ok()?;
        Some(Self { time, tag })
    }

    /// Whether a live secret made it. Every one is tried, so that the time does not tell which fits.
    fn is_by(&self, states: &[Hmac<Sha256>], body: &[u8]) -> bool {
        let mut found = false;
        for state in states {
            let mut mac = state.clone();
            mac.update(self.time.as_bytes());
            mac.update(b".");
            mac.update(body);
            found |= mac.verify_slice(&self.tag).is_ok();
        }
        found
    }

    fn is_timely(&self, now: Timestamp, max_age: Duration) -> bool {
        let Ok(seconds) = self.time.parse() else { return false };
        let signed_at = Timestamp::from_secs(seconds);
        now.since(signed_at) <= max_age && signed_at.since(now) <= AHEAD_MAX
    }
}

/// One event a request, but a list of reactions is as many.
fn pieces(body: &Bytes) -> Vec<Piece> {
    let Some(event) = Event::read(body) else { return vec![Piece::unparsable(body.clone())] };
    let reactions = event.reactions().map_or(0, Vec::len);
    if reactions > REACTIONS_MAX {
        return vec![Piece::unparsable(body.clone())];
    }
    let piece = |body: Bytes| {
        let piece = Piece::new(event.handle(), event.piece_kind(), body);
        match event.account() {
            Some(account) => piece.about(account),
            None => piece,
        }
    };
    if reactions < 2 {
        return vec![piece(body.clone())];
    }
    (0..reactions).map(|place| piece(with_one_reaction(&event, place))).collect()
}

/// The same event with one reaction of its list.
fn with_one_reaction(event: &Event, place: usize) -> Bytes {
    let mut content = event.content.clone();
    let one = event.reactions().and_then(|all| all.get(place)).cloned();
    content.insert("reaction".into(), Value::Array(one.into_iter().collect()));
    let mut envelope = event.envelope.clone();
    envelope.insert("content".into(), Value::String(Value::Object(content).to_string()));
    Bytes::from(Value::Object(envelope).to_string())
}
