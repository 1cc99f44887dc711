//! The e-mail channel, seen from outside: what it takes from whom, what it understands, what it mails, how it reads the answers.

#[path = "email/damage.rs"]
mod damage;
#[path = "email/news.rs"]
mod news;
#[path = "email/outcome.rs"]
mod outcome;
#[path = "email/parse.rs"]
mod parse;
#[path = "email/receive.rs"]
mod receive;
#[path = "email/request.rs"]
mod request;
mod support;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use messaging::channels::{Channel, ChannelKind, Inbound, Piece, Received, Refusal, Verifier, channel};
use messaging::clock::Timestamp;
use messaging::exchange::WebhookRequest;
use serde_json::Value;
use sha2::Sha256;
use support::{NOW, account, fixture};

pub const SECRET: &str = "test-signing-key-0001";
pub const CREDENTIALS: &str = "pm:s3cret";
pub const TOPIC: &str = "arn:aws:sns:eu-west-1:000000000000:ses-inbound";

pub fn email() -> &'static dyn Channel {
    channel(ChannelKind::Email)
}

/// The verifier of an account of a provider.
pub fn verifier(provider: &str) -> Verifier {
    let members: &[(&str, &str)] = match provider {
        "postmark" => &[("provider", "postmark"), ("credentials", CREDENTIALS)],
        "ses" => &[("provider", "ses"), ("topic", TOPIC)],
        "mailgun" => &[("provider", "mailgun"), ("secret", SECRET)],
        "bridge" => &[("provider", "bridge"), ("secret", SECRET)],
        other => panic!("no test account of {other}"),
    };
    account(ChannelKind::Email, members).verifier
}

pub fn mac(secret: &str, parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

/// A request as it goes over the wire.
#[derive(Clone)]
pub struct Wire {
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Wire {
    pub fn new(headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { headers, body: body.into() }
    }

    pub fn judged(&self, verifier: &Verifier, fetched: Option<&Bytes>, now: Timestamp) -> Result<Received, Refusal> {
        let mut map = http::HeaderMap::new();
        for (name, value) in &self.headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        email().receive(&WebhookRequest { is_post: true, query: "", headers: &map, body: &self.body, now, fetched }, verifier)
    }
}

/// A mail through our bridge, signed now.
pub fn bridged(raw: &[u8], envelope: &[(&str, &str)]) -> Wire {
    let time = NOW.as_secs().to_string();
    let signature = format!("t={time},v1={}", mac(SECRET, &[time.as_bytes(), b".", raw]));
    let mut headers = vec![("content-type", "message/rfc822"), ("x-gateway-signature", signature.as_str())];
    headers.extend(envelope);
    Wire::new(&headers, raw.to_vec())
}

/// The fields as a form of either kind, with Mailgun's proof put in.
pub fn form(sample: &Value, content_type: &str) -> Bytes {
    let mut fields: Vec<(String, String)> = Vec::new();
    for (name, value) in sample["form"].as_object().unwrap() {
        fields.push((name.clone(), value.as_str().unwrap().to_owned()));
    }
    let of = |name: &str| fields.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value).to_owned();
    let signature = mac(SECRET, &[of("timestamp").as_bytes(), of("token").as_bytes()]);
    fields.iter_mut().filter(|(name, _)| name == "signature").for_each(|(_, value)| value.clone_from(&signature));
    let Some((_, boundary)) = content_type.split_once("boundary=") else {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        return Bytes::from(pairs.join("&"));
    };
    let mut out = Vec::new();
    for (name, value) in &fields {
        out.extend(format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes());
    }
    for file in sample["files"].as_array().into_iter().flatten() {
        let text = |name: &str| file[name].as_str().unwrap();
        let head = format!("Content-Disposition: form-data; name=\"{}\"; filename=\"{}\"", text("field"), text("filename"));
        out.extend(format!("--{boundary}\r\n{head}\r\nContent-Type: {}\r\n\r\n", text("content_type")).into_bytes());
        out.extend(BASE64.decode(text("content_b64").as_bytes()).unwrap());
        out.extend(b"\r\n");
    }
    out.extend(format!("--{boundary}--\r\n").into_bytes());
    Bytes::from(out)
}

pub fn pieces(received: Result<Received, Refusal>) -> Vec<Piece> {
    match received {
        Ok(Received::Pieces(pieces)) => pieces,
        other => panic!("no pieces: {other:?}"),
    }
}

/// What the pieces say; each is keyed by the first handle that it names.
pub fn parsed(pieces: &[Piece]) -> Vec<Inbound> {
    let parse = |piece: &Piece| {
        let inbound = email().parse(piece.body()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(inbound.contact.handles.first(), Some(piece.handle()));
        assert!(!piece.is_unparsable());
        inbound
    };
    pieces.iter().map(parse).collect()
}

/// A sample as a signed request of its provider, except SNS's, which only Amazon can sign.
pub fn sample(name: &str) -> (Wire, &'static str) {
    let sample = fixture(ChannelKind::Email, name);
    let content_type = sample["headers"]["content-type"].as_str().unwrap();
    if name.starts_with("mailgun") {
        return (Wire::new(&[("content-type", content_type)], form(&sample, content_type)), "mailgun");
    }
    if name.starts_with("postmark") {
        let basic = format!("Basic {}", BASE64.encode(CREDENTIALS.as_bytes()));
        let headers = [("content-type", content_type), ("authorization", basic.as_str())];
        return (Wire::new(&headers, sample["body"].to_string()), "postmark");
    }
    assert!(name.starts_with("raw-mime"), "{name}");
    let envelope: Vec<(&str, &str)> = ["x-gateway-envelope-from", "x-gateway-envelope-to"]
        .into_iter()
        .map(|name| (name, sample["headers"][name].as_str().unwrap()))
        .collect();
    (bridged(sample["body_text"].as_str().unwrap().as_bytes(), &envelope), "bridge")
}
