//! How each platform proves a request: what an account needs for it, how a request is signed, and how a signature goes wrong.

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use messaging::clock::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::Value;
use sha2::Sha256;

use crate::Input;

/// All samples share one clock: 2026-11-20T10:00:00Z.
pub const NOW: Timestamp = Timestamp(1_795_168_800_000_000);
/// The topic of the samples and of SNS's vectors.
pub const TOPIC: &str = "arn:aws:sns:eu-west-1:000000000000:ses-inbound";
/// What stands before the point of a P-256 key in DER.
const P256_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

/// The ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Meta's `X-Hub-Signature-256`.
    Hub,
    /// Telegram's token, which no body is part of.
    Token,
    /// TikTok's MAC over time and body.
    TimedMac,
    /// WooCommerce's MAC over the body.
    ShopMac,
    /// Discord's signature over time and body.
    Ed25519,
    /// Our mail bridge's MAC over time and body.
    Bridge,
    /// Mailgun's MAC over two of the form's own fields.
    Form,
    /// Postmark's user and password, which no body is part of.
    Basic,
    /// Amazon's, by a certificate: nobody here can sign, so only the published vectors pass.
    Sns,
    /// SendGrid's signature over time and body.
    Ecdsa,
}

/// An account's means to prove.
pub struct Keys {
    secret: String,
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    random: SystemRandom,
}

impl Keys {
    /// Ours (1) and another's (2).
    pub fn of(account: u8) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("random bytes");
        Self {
            secret: format!("fuzz-secret-of-account-{account}"),
            ed25519: Ed25519KeyPair::from_seed_unchecked(&[account; 32]).expect("32 bytes are a seed"),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("just made"),
            random,
        }
    }

    fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }

    /// A MAC in hex.
    pub fn hex(&self, parts: &[&[u8]]) -> String {
        HEXLOWER.encode(&self.mac(parts))
    }

    fn basic(&self) -> String {
        format!("fuzz:{}", self.secret)
    }
}

impl Proof {
    /// The members of an account, public or secret as the channel says.
    pub fn members(self, keys: &Keys) -> Vec<(&'static str, String)> {
        let secret = || keys.secret.clone();
        match self {
            Self::Hub => vec![("app_secret", secret()), ("verify_token", secret())],
            Self::Token => vec![("secret_token", secret())],
            Self::TimedMac => vec![("client_secret", secret())],
            Self::ShopMac => vec![("webhook_secret", secret())],
            Self::Ed25519 => vec![("public_key", HEXLOWER.encode(keys.ed25519.public_key().as_ref()))],
            Self::Bridge => vec![("provider", "bridge".into()), ("secret", secret())],
            Self::Form => vec![("provider", "mailgun".into()), ("secret", secret())],
            Self::Basic => vec![("provider", "postmark".into()), ("credentials", keys.basic())],
            Self::Sns => vec![("provider", "ses".into()), ("topic", TOPIC.into())],
            Self::Ecdsa => {
                let mut der = HEXLOWER.decode(P256_PREFIX.as_bytes()).expect("hex");
                der.extend(keys.p256.public_key().as_ref());
                vec![("provider", "sendgrid".into()), ("public_key", BASE64.encode(&der))]
            }
        }
    }

    /// The same request with its proof; false where only the sender's own bytes can be one.
    pub fn sign(self, input: &mut Input, keys: &Keys) -> bool {
        let time = NOW.as_secs().to_string();
        let (t, body) = (time.as_bytes(), input.body.clone());
        match self {
            Self::Hub => input.put("x-hub-signature-256", &format!("sha256={}", keys.hex(&[&body]))),
            Self::Token => input.put("x-telegram-bot-api-secret-token", &keys.secret),
            Self::TimedMac => input.put("tiktok-signature", &format!("t={time},s={}", keys.hex(&[t, b".", &body]))),
            Self::ShopMac => input.put("x-wc-webhook-signature", &BASE64.encode(&keys.mac(&[&body]))),
            Self::Ed25519 => {
                let signature = keys.ed25519.sign(&[t, &body].concat());
                input.put("x-signature-timestamp", &time);
                input.put("x-signature-ed25519", &HEXLOWER.encode(signature.as_ref()));
            }
            Self::Bridge => input.put("x-gateway-signature", &format!("t={time},v1={}", keys.hex(&[t, b".", &body]))),
            Self::Basic => input.put("authorization", &format!("Basic {}", BASE64.encode(keys.basic().as_bytes()))),
            Self::Ecdsa => {
                let signature = keys.p256.sign(&keys.random, &[t, &body].concat()).expect("random bytes");
                input.put("x-twilio-email-event-webhook-timestamp", &time);
                input.put("x-twilio-email-event-webhook-signature", &BASE64.encode(signature.as_ref()));
            }
            Self::Form | Self::Sns => return false,
        }
        true
    }

    /// The header that holds the proof.
    fn header(self) -> Option<&'static str> {
        match self {
            Self::Hub => Some("x-hub-signature-256"),
            Self::Token => Some("x-telegram-bot-api-secret-token"),
            Self::TimedMac => Some("tiktok-signature"),
            Self::ShopMac => Some("x-wc-webhook-signature"),
            Self::Ed25519 => Some("x-signature-ed25519"),
            Self::Bridge => Some("x-gateway-signature"),
            Self::Basic => Some("authorization"),
            Self::Ecdsa => Some("x-twilio-email-event-webhook-signature"),
            Self::Form | Self::Sns => None,
        }
    }

    /// Signed requests gone wrong, none of which may pass: the old proof with another body, and other proofs with the body.
    pub fn damaged(self, signed: &Input) -> Vec<(&'static str, Input)> {
        let Some(header) = self.header() else { return Vec::new() };
        let mut out = Vec::new();
        if !matches!(self, Self::Token | Self::Basic) {
            for (what, body) in other_bodies(&signed.body) {
                out.push((what, Input { headers: signed.headers.clone(), body }));
            }
        }
        let mut without = signed.clone();
        without.headers.remove(header);
        out.push(("no proof", without));
        let value = signed.headers[header].as_bytes();
        for (what, value) in [("a proof cut short", &value[..value.len() - 1]), ("a proof of nothing", b"")] {
            let mut other = signed.clone();
            other.headers.insert(header, http::HeaderValue::from_bytes(value).expect("part of a header"));
            out.push((what, other));
        }
        let mut bent = value.to_vec();
        // Past the scheme's own name, in the proof itself.
        let place = bent.len() - 6 - usize::from(signed.body.first().copied().unwrap_or(0)) % 12;
        bent[place] = if bent[place] == b'0' { b'1' } else { b'0' };
        let mut other = signed.clone();
        other.headers.insert(header, http::HeaderValue::from_bytes(&bent).expect("part of a header"));
        out.push(("a proof with another digit", other));
        out
    }
}

/// The body with a bit flipped at a place that the bytes decide, with one byte more, and with one less.
fn other_bodies(body: &Bytes) -> Vec<(&'static str, Bytes)> {
    let mut longer = body.to_vec();
    longer.push(b' ');
    let mut out = vec![("a longer body", Bytes::from(longer))];
    let Some(last) = body.len().checked_sub(1) else { return out };
    out.push(("a shorter body", body.slice(..last)));
    let seed = body.iter().fold(last, |seed, byte| seed.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let mut flipped = body.to_vec();
    flipped[seed % body.len()] ^= 1 << (seed % 7);
    out.push(("a flipped bit", Bytes::from(flipped)));
    out
}

/// SNS's published vectors that are authentic: certificate, and each one's body and text that was signed.
pub struct SnsVectors {
    pub certificate: Bytes,
    pub bodies: Vec<Vec<u8>>,
    pub signed: Vec<String>,
}

impl SnsVectors {
    pub fn read() -> Self {
        let file: Value = serde_json::from_str(include_str!("../../messaging/tests/fixtures/signatures-email.json")).expect("JSON");
        let (mut certificate, mut bodies, mut signed) = (Bytes::new(), Vec::new(), Vec::new());
        for vector in file["vectors"].as_array().into_iter().flatten() {
            let text = |name: &str| vector[name].as_str().unwrap_or_default().to_owned();
            if text("scheme") != "aws-sns" || text("expect") != "valid" {
                continue;
            }
            certificate = Bytes::from(text("certificate_pem"));
            bodies.push(BASE64.decode(text("body_b64").as_bytes()).expect("base64"));
            signed.push(text("string_to_sign"));
        }
        Self { certificate, bodies, signed }
    }

    /// Whether these are the words that Amazon signed.
    pub fn has_signed(&self, body: &[u8]) -> bool {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let names: &[&str] = match said["Type"].as_str() {
            Some("Notification") => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
        };
        let mut text = String::new();
        for name in names {
            if let Some(value) = said[*name].as_str() {
                text += &format!("{name}\n{value}\n");
            }
        }
        self.signed.contains(&text)
    }
}
