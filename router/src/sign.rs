//! Signatures of deliveries by Standard Webhooks: symmetric, `v1`.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use messaging::directory::SecretPair;
use messaging::seal::Secret;
use sha2::Sha256;

/// The header that names the event; the same in every attempt.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// The header with the time of the attempt in seconds since the epoch.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The header with the signatures.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const SECRET_PREFIX: &str = "whsec_";

/// Why a delivery cannot be signed. Says nothing of the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A signing secret is not `whsec_` and base64, or is empty.
    #[error("the endpoint's signing secret is not whsec_ followed by base64")]
    Secret,
    /// The id holds something that would make the signed text ambiguous: it is joined with dots.
    #[error("the webhook id must be printable ASCII without dots")]
    Id,
}

/// An endpoint's secrets, ready to sign: made once per directory snapshot, not per delivery.
#[derive(Clone)]
pub struct Signer {
    /// The states of keyed MACs, newest secret first.
    states: Vec<Hmac<Sha256>>,
}

impl Signer {
    /// From an endpoint's secrets. `previous_valid` says whether the one before the last rotation still signs.
    ///
    /// # Errors
    /// When a secret that is to sign is malformed.
    pub fn new(secrets: &SecretPair, previous_valid: bool) -> Result<Self, SignError> {
        let mut states = vec![state(&secrets.current)?];
        if let Some(previous) = secrets.previous.as_ref().filter(|_| previous_valid) {
            states.push(state(previous)?);
        }
        Ok(Self { states })
    }

    /// The three headers of a delivery: the id, the time in seconds since the epoch, and a signature per secret, newest first.
    /// `body` must be the very bytes that are sent.
    ///
    /// # Errors
    /// When the id cannot be signed.
    pub fn headers(&self, id: &str, timestamp_s: u64, body: &[u8]) -> Result<[(HeaderName, HeaderValue); 3], SignError> {
        if id.is_empty() || id.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'.') {
            return Err(SignError::Id);
        }
        let timestamp = timestamp_s.to_string();
        let mut signatures = String::with_capacity(self.states.len() * 48);
        for state in &self.states {
            let mut mac = state.clone();
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            if !signatures.is_empty() {
                signatures.push(' ');
            }
            signatures.push_str("v1,");
            BASE64.encode_append(&mac.finalize().into_bytes(), &mut signatures);
        }
        let value = |text: String| HeaderValue::try_from(text).expect("printable ASCII is a header value");
        Ok([(WEBHOOK_ID, value(id.to_owned())), (WEBHOOK_TIMESTAMP, value(timestamp)), (WEBHOOK_SIGNATURE, value(signatures))])
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

/// Signs once, without keeping a [`Signer`].
///
/// # Errors
/// As [`Signer::new`] and [`Signer::headers`].
pub fn headers(
    secrets: &SecretPair,
    previous_valid: bool,
    id: &str,
    timestamp_s: u64,
    body: &[u8],
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    Signer::new(secrets, previous_valid)?.headers(id, timestamp_s, body).map(Vec::from)
}

fn state(secret: &Secret) -> Result<Hmac<Sha256>, SignError> {
    let text = secret.expose();
    let text = text.strip_prefix(SECRET_PREFIX).unwrap_or(text).as_bytes();
    let key = BASE64.decode(text).or_else(|_| BASE64_NOPAD.decode(text)).map_err(|_| SignError::Secret)?;
    if key.is_empty() {
        return Err(SignError::Secret);
    }
    Ok(Hmac::new_from_slice(&key).expect("HMAC takes keys of any length"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use messaging::clock::{Clock, SystemClock, Timestamp};
    use standardwebhooks::Webhook;

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDsuZMLuzNZ5o=";
    const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn rotated() -> SecretPair {
        let mut pair = SecretPair::new(Secret::new(OLD), Timestamp::ZERO);
        pair.rotate(Secret::new(NEW), Timestamp::from_secs(1));
        pair
    }

    fn now_s() -> u64 {
        SystemClock::default().now().as_secs()
    }

    fn verifies(secret: &str, headers: &[(HeaderName, HeaderValue)], body: &[u8]) -> bool {
        let headers = HeaderMap::from_iter(headers.iter().cloned());
        Webhook::new(secret).expect("a good secret").verify(body, &headers).is_ok()
    }

    #[test]
    fn the_public_library_verifies_what_we_sign() {
        let once = SecretPair::new(Secret::new(OLD), Timestamp::ZERO);
        let bare = SecretPair::new(Secret::new(&OLD[6..]), Timestamp::ZERO);
        // The secrets, whether the previous one signs, and which of old, new and another's then verify.
        let cases = [
            (&once, true, [true, false, false]),
            (&bare, true, [true, false, false]),
            (&rotated(), true, [true, true, false]),
            (&rotated(), false, [false, true, false]),
        ];
        for body in [&b""[..], b"{}", "{\"text\":\"gr\u{fc}n\"}".as_bytes(), &[b'x'; 20_000]] {
            for (secrets, previous_valid, expected) in &cases {
                let signed = headers(secrets, *previous_valid, "evt_2x4y", now_s(), body).unwrap();
                for (secret, expected) in [OLD, NEW, OTHER].into_iter().zip(expected) {
                    assert_eq!(verifies(secret, &signed, body), *expected, "{secret} of {} bytes", body.len());
                }
                assert!(!verifies(NEW, &signed, b"another body"));
            }
        }
    }

    #[test]
    fn the_published_vector_comes_out() {
        let secrets = SecretPair::new(Secret::new(OLD), Timestamp::ZERO);
        let signed = headers(&secrets, false, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#).unwrap();
        let text = signed.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect::<Vec<_>>();
        let expected = [
            "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp: 1614265330",
            "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ];
        assert_eq!(text, expected);
    }

    #[test]
    fn the_newest_secret_signs_first() {
        let both = headers(&rotated(), true, "evt_1", 7, b"x").unwrap();
        let new_only = headers(&rotated(), false, "evt_1", 7, b"x").unwrap();
        let old_only = headers(&SecretPair::new(Secret::new(OLD), Timestamp::ZERO), true, "evt_1", 7, b"x").unwrap();
        let text = |headers: &[(HeaderName, HeaderValue)]| headers[2].1.to_str().unwrap().to_owned();
        assert_eq!(text(&both), format!("{} {}", text(&new_only), text(&old_only)));
    }

    #[test]
    fn bad_secrets_and_ids_are_refused() {
        for secret in ["", "whsec_", "whsec_not base64", "whsec_AAAAA", "whsk_AAAA"] {
            let secrets = SecretPair::new(Secret::new(secret), Timestamp::ZERO);
            assert_eq!(Signer::new(&secrets, true).err(), Some(SignError::Secret), "{secret:?}");
        }
        let mut secrets = rotated();
        secrets.previous = Some(Secret::new("damaged!"));
        assert!(Signer::new(&secrets, true).is_err() && Signer::new(&secrets, false).is_ok());

        let signer = Signer::new(&rotated(), true).unwrap();
        for id in ["", "evt.1", "evt 1", "evt\r\n1", "\u{e9}"] {
            assert_eq!(signer.headers(id, 7, b"").err(), Some(SignError::Id), "{id:?}");
        }
        assert_eq!(format!("{signer:?}"), "Signer(redacted)");
    }
}
