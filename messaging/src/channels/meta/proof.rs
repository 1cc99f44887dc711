//! How Meta proves that a request is its own: a signature over the raw body, and a handshake by a token.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use http::HeaderName;
use percent_encoding::percent_decode_str;

use crate::channels::{HandshakeReply, Refusal, Verifier, any_mac_matches};
use crate::exchange::WebhookRequest;

const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("x-hub-signature-256");
const SIGNATURE_PREFIX: &[u8] = b"sha256=";
/// Bytes of a tag.
pub(super) const TAG_BYTES: usize = 32;
/// Longest challenge that is echoed, in bytes.
const CHALLENGE_BYTES_MAX: usize = 1024;

/// Judges a request of a Meta product: a handshake's answer, or none for an authentic POST.
pub(in crate::channels) fn authentic(request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Option<HandshakeReply>, Refusal> {
    let Verifier::Meta { app_secrets, verify_tokens } = verifier else { return Err(Refusal::Unauthentic) };
    if !request.is_post {
        let right = |token: &[u8]| verify_tokens.iter().fold(false, |found, live| found | live.matches(token));
        return handshake(request.query, right).map(Some);
    }
    let tag = signature(request.headers).ok_or(Refusal::Unauthentic)?;
    if !any_mac_matches(app_secrets, request.body, &tag) {
        return Err(Refusal::Unauthentic);
    }
    Ok(None)
}

/// The one signature header: `sha256=` and 64 lowercase hex digits.
fn signature(headers: &http::HeaderMap) -> Option<[u8; TAG_BYTES]> {
    let mut values = headers.get_all(SIGNATURE_HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let hex = value.as_bytes().strip_prefix(SIGNATURE_PREFIX)?;
    if hex.len() != 2 * TAG_BYTES {
        return None;
    }
    let mut tag = [0; TAG_BYTES];
    HEXLOWER.decode_mut(hex, &mut tag).ok()?;
    Some(tag)
}

fn handshake(query: &str, is_right_token: impl Fn(&[u8]) -> bool) -> Result<HandshakeReply, Refusal> {
    let token = parameter(query, "hub.verify_token").ok_or(Refusal::Unauthentic)?;
    // Judged before anything else is looked at, so that only the token decides what the asker learns.
    if !is_right_token(&token) || parameter(query, "hub.mode").as_deref() != Some(b"subscribe") {
        return Err(Refusal::Unauthentic);
    }
    let challenge = parameter(query, "hub.challenge").ok_or(Refusal::Malformed)?;
    if challenge.is_empty() || challenge.len() > CHALLENGE_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    let body = String::from_utf8(challenge).map_err(|_| Refusal::Malformed)?;
    Ok(HandshakeReply { status: 200, body })
}

/// The first value of a query parameter, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key) == name.as_bytes() {
            return Some(decoded(value));
        }
    }
    None
}

pub(super) fn decoded(text: &str) -> Vec<u8> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    percent_decode_str(&spaced).collect()
}
