//! The RSA key of an X.509 certificate. The certificate came over verified TLS from a host that the channel has checked, so its
//! own chain proves nothing more; its key and its time are all that is read.

use data_encoding::BASE64;
use ring::signature::{RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use crate::clock::Timestamp;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, the version.
const VERSION: u8 = 0xa0;
/// 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// How a message was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digest {
    /// SNS signature version 1.
    Sha1,
    /// SNS signature version 2.
    Sha256,
}

/// A certificate's key and when it holds.
pub(super) struct Certificate<'a> {
    /// The `RSAPublicKey`, DER.
    key: &'a [u8],
    /// When it begins and ends to hold.
    from: Timestamp,
    until: Timestamp,
}

/// The DER of a PEM text's first certificate.
pub(super) fn pem(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    BASE64.decode(body.as_bytes()).ok()
}

impl<'a> Certificate<'a> {
    /// Reads the DER.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (body, _) = expect(certificate, SEQUENCE)?;
        let (tag, _, after) = element(body)?;
        // Version 1 has no version.
        let body = if tag == VERSION { after } else { body };
        let (_, _, body) = element(body)?; // serial number
        let (_, body) = expect(body, SEQUENCE)?; // algorithm
        let (_, body) = expect(body, SEQUENCE)?; // issuer
        let (validity, body) = expect(body, SEQUENCE)?;
        let (_, body) = expect(body, SEQUENCE)?; // subject
        let (info, _) = expect(body, SEQUENCE)?;
        let (from, rest) = time(validity)?;
        let (until, _) = time(rest)?;
        let (algorithm, info) = expect(info, SEQUENCE)?;
        let (object, _) = expect(algorithm, OBJECT_ID)?;
        let (bits, _) = expect(info, BIT_STRING)?;
        let (unused, key) = bits.split_first()?;
        (object == RSA_ENCRYPTION && *unused == 0).then_some(Self { key, from, until })
    }

    /// Whether it holds now, and its key made this signature.
    pub fn signed(&self, digest: Digest, message: &[u8], signature: &[u8], now: Timestamp) -> bool {
        if now < self.from || now > self.until {
            return false;
        }
        let algorithm = match digest {
            Digest::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Digest::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, self.key).verify(message, signature).is_ok()
    }
}

/// Tag, content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short if short < 0x80 => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        // Nothing in a certificate is longer than 64 KiB, and the other forms are not DER.
        _ => return None,
    };
    Some((*tag, rest.get(..length)?, rest.get(length..)?))
}

fn expect(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == wanted).then_some((content, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, text, rest) = element(der)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let full = match (tag, text.len()) {
        // RFC 5280, 4.1.2.5.1: 50 to 99 are of the last century.
        (UTC_TIME, 12) if text < "5" => format!("20{text}"),
        (UTC_TIME, 12) => format!("19{text}"),
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |at: usize| full[at..at + 2].parse::<u8>().ok();
    let date = mail_parser::DateTime {
        year: full[..4].parse().ok()?,
        month: part(4)?,
        day: part(6)?,
        hour: part(8)?,
        minute: part(10)?,
        second: part(12)?,
        tz_before_gmt: false,
        tz_hour: 0,
        tz_minute: 0,
    };
    if !date.is_valid() {
        return None;
    }
    Some((Timestamp::from_secs(u64::try_from(date.to_timestamp()).unwrap_or(0)), rest))
}
