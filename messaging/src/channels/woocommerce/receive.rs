//! From a stranger's request to a verified piece.

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;

use super::wire::Told;
use crate::channels::{Answer, Piece, Received, Refusal, Verifier, any_mac_matches};
use crate::exchange::WebhookRequest;

const SIGNATURE: HeaderName = HeaderName::from_static("x-wc-webhook-signature");
const TOPIC: HeaderName = HeaderName::from_static("x-wc-webhook-topic");
const RESOURCE: HeaderName = HeaderName::from_static("x-wc-webhook-resource");
const EVENT: HeaderName = HeaderName::from_static("x-wc-webhook-event");
const SOURCE: HeaderName = HeaderName::from_static("x-wc-webhook-source");
const DELIVERY: HeaderName = HeaderName::from_static("x-wc-webhook-delivery-id");

const TAG_BYTES: usize = 32;
/// A tag in base64.
const TAG_CHARS: usize = 44;
/// What the body of an activation ping begins with; the webhook's number follows.
const PING: &[u8] = b"webhook_id=";
/// Digits of a webhook's number.
const PING_DIGITS_MAX: usize = 20;
/// Longest header that is kept, in characters.
const HEADER_CHARS_MAX: usize = 256;

pub(super) fn receive(request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
    if !request.is_post {
        return Err(Refusal::Method);
    }
    // Nobody signs it, so it does nothing; without exactly 200 the webhook cannot be switched on.
    if is_ping(request) {
        return Ok(Received::Answered { pieces: Vec::new(), answer: Answer::empty(200, None) });
    }
    let Verifier::Mac(states) = verifier else { return Err(Refusal::Unauthentic) };
    let tag = signature(request.headers).ok_or(Refusal::Unauthentic)?;
    if !any_mac_matches(states, request.body, &tag) {
        return Err(Refusal::Unauthentic);
    }
    Ok(Received::Pieces(vec![piece(request.headers, request.body)]))
}

fn is_ping(request: &WebhookRequest<'_>) -> bool {
    let is_bare = !request.headers.contains_key(SIGNATURE) && !request.headers.contains_key(TOPIC);
    let Some(digits) = request.body.strip_prefix(PING) else { return false };
    is_bare && (1..=PING_DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
}

/// The one signature header: base64, not hex.
fn signature(headers: &HeaderMap) -> Option<[u8; TAG_BYTES]> {
    let mut values = headers.get_all(SIGNATURE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let text = value.as_bytes();
    if text.len() != TAG_CHARS {
        return None;
    }
    BASE64.decode(text).ok()?.try_into().ok()
}

/// A header, or nothing when it is not there or odd.
fn header(headers: &HeaderMap, name: HeaderName) -> &str {
    let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    if text.len() > HEADER_CHARS_MAX { "" } else { text }
}

fn topic(headers: &HeaderMap) -> String {
    let whole = header(headers, TOPIC);
    if !whole.is_empty() {
        return whole.to_owned();
    }
    match (header(headers, RESOURCE), header(headers, EVENT)) {
        ("", _) | (_, "") => String::new(),
        (resource, event) => format!("{resource}.{event}"),
    }
}

/// The one event of a request, with what its headers say of it.
fn piece(headers: &HeaderMap, body: &Bytes) -> Piece {
    let Ok(data) = serde_json::from_slice::<&RawValue>(body) else { return Piece::unparsable(body.clone()) };
    let told = Told {
        topic: topic(headers),
        delivery: header(headers, DELIVERY).to_owned(),
        source: header(headers, SOURCE).to_owned(),
        pulled: false,
        data,
    };
    told.piece()
}
