//! What it costs to judge and split one webhook, each channel. Run with
//! `cargo test -p messaging --release --test verify_cost -- --ignored --nocapture`.
//!
//! The bar: at most 2 us beyond the MAC for 1 KiB of Meta's. Public-key signatures are judged off the threads that serve
//! (`Verifier::is_slow`): what they cost is told as well.
//!
//! Figures of 30 November 2026: beyond the MAC's 0.7 us, WhatsApp 1.2 us, Messenger 1.6 us, Instagram 1.5 us, WooCommerce 1.1 us,
//! TikTok 3.2 us, a mail by the bridge 5.3 us; Telegram, which has no MAC, 1.0 us in all. Discord's Ed25519 takes 48 us, SendGrid's
//! ECDSA 53 us.

mod support;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName};
use messaging::channels::{ChannelKind, Received, channel};
use messaging::exchange::WebhookRequest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::Sha256;
use support::sign::{self, Pairs, signed};
use support::{NOW, account, fixture};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "a-secret-of-an-account-0001";
const BODY_BYTES: usize = 1024;
/// CPU time that a figure is taken over, in the kernel's ticks of 10 ms.
const TICKS: u64 = 60;
/// Calls between two looks at the time.
const CALLS: u64 = 500;
/// What stands before the point of a P-256 key in DER.
const P256_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

/// CPU time of this thread, in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("linux");
    let after_name = stat.rsplit(") ").next().expect("a thread has a name");
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

/// Microseconds of CPU that a call takes.
fn cost(mut call: impl FnMut()) -> f64 {
    let (begun, mut calls) = (ticks(), 0_u64);
    loop {
        for _ in 0..CALLS {
            call();
        }
        calls += CALLS;
        let used = ticks() - begun;
        if used >= TICKS {
            return used as f64 * 10_000.0 / calls as f64;
        }
    }
}

/// A sample with its text made so long that the whole has 1 KiB.
fn padded(kind: ChannelKind, name: &str, pointer: &str) -> Bytes {
    let mut sample = fixture(kind, name);
    let text = |sample: &mut Value, chars: usize| *sample.pointer_mut(pointer).expect("a text") = "x".repeat(chars).into();
    text(&mut sample, 0);
    let without = sample.to_string().len();
    text(&mut sample, BODY_BYTES - without);
    Bytes::from(sample.to_string())
}

fn tiktok() -> Bytes {
    let mut event = fixture(ChannelKind::Tiktok, "im-receive-msg-text.json");
    let mut content: Value = serde_json::from_str(event["content"].as_str().expect("text")).expect("JSON");
    let with = |content: &mut Value, event: &mut Value, chars: usize| {
        content["text"]["body"] = "x".repeat(chars).into();
        event["content"] = content.to_string().into();
        event.to_string()
    };
    let without = with(&mut content, &mut event, 0).len();
    Bytes::from(with(&mut content, &mut event, BODY_BYTES.saturating_sub(without)))
}

/// A request of a channel: name, members of the account, headers, body.
struct Case {
    name: &'static str,
    kind: ChannelKind,
    members: Pairs,
    headers: Pairs,
    body: Bytes,
}

fn cases(p256: &EcdsaKeyPair) -> Vec<Case> {
    use ChannelKind as K;
    let case = |name, kind, body: Bytes| {
        let (members, headers) = signed(kind, SECRET, &body);
        Case { name, kind, members, headers, body }
    };
    let order = json!({"id": 727, "status": "processing", "customer_note": "x".repeat(BODY_BYTES - 60)}).to_string();
    let mail = format!("From: ada@example.com\r\nTo: support@example.net\r\nMessage-ID: <1@example.com>\r\n\r\n{}\r\n", "x".repeat(930));
    let events = json!([{"email": "a@example.com", "timestamp": NOW.as_secs(), "event": "delivered", "sg_event_id": "e",
        "response": "x".repeat(900)}]);
    vec![
        case("whatsapp", K::Whatsapp, padded(K::Whatsapp, "text.json", "/entry/0/changes/0/value/messages/0/text/body")),
        case("messenger", K::Messenger, padded(K::Messenger, "text.json", "/entry/0/messaging/0/message/text")),
        case("instagram", K::Instagram, padded(K::Instagram, "text.json", "/entry/0/messaging/0/message/text")),
        case("telegram", K::Telegram, padded(K::Telegram, "message-text.json", "/message/text")),
        case("tiktok", K::Tiktok, tiktok()),
        case("woocommerce", K::Woocommerce, order.into()),
        case("email (bridge)", K::Email, mail.into()),
        sendgrid(p256, events.to_string().into()),
        case("discord", K::Discord, padded(K::Discord, "interaction-slash-command-dm.json", "/data/options/0/value")),
    ]
}

/// SendGrid's signature is another than the bridge's.
fn sendgrid(key: &EcdsaKeyPair, body: Bytes) -> Case {
    let time = NOW.as_secs().to_string();
    let mut point = HEXLOWER.decode(P256_PREFIX.as_bytes()).expect("hex");
    point.extend(key.public_key().as_ref());
    let tag = key.sign(&SystemRandom::new(), &[time.as_bytes(), &body].concat()).expect("random bytes");
    let headers =
        vec![("x-twilio-email-event-webhook-timestamp", time), ("x-twilio-email-event-webhook-signature", BASE64.encode(tag.as_ref()))];
    let members = vec![("provider", "sendgrid".to_owned()), ("public_key", BASE64.encode(&point))];
    Case { name: "email (sendgrid)", kind: ChannelKind::Email, members, headers, body }
}

#[test]
#[ignore = "measures; see the top"]
fn verify_and_split() {
    let random = SystemRandom::new();
    let ed25519 = sign::ed25519(SECRET);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("random bytes");
    let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("just made");
    let state = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key");
    for Case { name, kind, members, headers, body } in cases(&p256) {
        let members: Vec<(&str, &str)> = members.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let verifier = account(kind, &members).verifier;
        let mut map = HeaderMap::new();
        for (name, value) in &headers {
            map.insert(HeaderName::from_static(name), value.parse().expect("a header"));
        }
        let request = WebhookRequest { is_post: true, query: "", headers: &map, body: &body, now: NOW, fetched: None };
        let receive = || match channel(kind).receive(&request, &verifier).expect("authentic") {
            Received::Pieces(pieces) | Received::Answered { pieces, .. } => assert_eq!(pieces.len(), 1, "{name}"),
            other => panic!("{name}: {other:?}"),
        };
        let message = [NOW.as_secs().to_string().as_bytes(), &body].concat();
        let proof = match kind {
            ChannelKind::Telegram => 0.0,
            ChannelKind::Discord => {
                let (key, tag) = (UnparsedPublicKey::new(&ED25519, ed25519.public_key()), ed25519.sign(&message));
                cost(|| key.verify(&message, tag.as_ref()).expect("right"))
            }
            ChannelKind::Email if name.contains("sendgrid") => {
                let tag = p256.sign(&random, &message).expect("random bytes");
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, p256.public_key());
                cost(|| key.verify(&message, tag.as_ref()).expect("right"))
            }
            ChannelKind::Whatsapp
            | ChannelKind::Messenger
            | ChannelKind::Instagram
            | ChannelKind::Tiktok
            | ChannelKind::Email
            | ChannelKind::Woocommerce => cost(|| {
                let mut mac = state.clone();
                mac.update(&body);
                std::hint::black_box(mac.finalize());
            }),
        };
        let whole = cost(receive);
        println!("{name:<17} {} bytes: {whole:6.2} us, of which the proof {proof:6.2} us, beyond it {:5.2} us", body.len(), whole - proof);
    }
}
