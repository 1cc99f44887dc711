//! The corpus, from the fixtures of `messaging/tests`: what `corpus/<subject>` holds at least.

use std::path::Path;

use data_encoding::BASE64;
use messaging::channels::ChannelKind;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::Input;
use crate::proof::{Keys, NOW, Proof, SnsVectors};
use crate::subject::SUBJECTS;

/// Seeds of a subject: names and bytes.
pub fn seeds(subject: &str, fixtures: &Path) -> Vec<(String, Vec<u8>)> {
    let Some((_, kind, proof)) = SUBJECTS.iter().find(|(name, ..)| *name == subject) else { return Vec::new() };
    let folder = fixtures.join(kind.name());
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("a channel has fixtures") {
        names.push(entry.expect("an entry").file_name().into_string().expect("a plain name"));
    }
    names.sort();
    let mut out = Vec::new();
    for name in names.iter().filter(|name| belongs(*kind, *proof, name)) {
        let sample: Value = serde_json::from_slice(&std::fs::read(folder.join(name)).expect("a fixture")).expect("JSON");
        let stem = name.trim_end_matches(".json").to_owned();
        out.push((stem.clone(), of_sample(&sample)));
        if let Some(message) = sample["body"]["Message"].as_str() {
            out.push((format!("{stem}-message"), Input::write(&[], message.as_bytes())));
        }
    }
    out.extend(beside(*proof));
    out
}

/// Whose sample a file is: e-mail's are of several providers.
fn belongs(kind: ChannelKind, proof: Proof, name: &str) -> bool {
    let prefix = match proof {
        Proof::Bridge => "raw-mime",
        Proof::Form => "mailgun",
        Proof::Basic => "postmark",
        Proof::Sns => "sns",
        Proof::Ecdsa => "sendgrid",
        Proof::Hub | Proof::Token | Proof::TimedMac | Proof::ShopMac | Proof::Ed25519 => "",
    };
    debug_assert!(prefix.is_empty() || kind == ChannelKind::Email);
    name.starts_with(prefix)
}

fn of_sample(sample: &Value) -> Vec<u8> {
    if sample.get("$wrapper").is_none() {
        return Input::write(&[], sample.to_string().as_bytes());
    }
    let mut headers = Vec::new();
    for (name, value) in sample["headers"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let matters = !name.starts_with("user-agent") && !name.starts_with("x-amz") && !value.starts_with('<');
        if matters || name.starts_with("x-gateway-envelope") {
            headers.push((name.clone(), value.to_owned()));
        }
    }
    let content_type = sample["headers"]["content-type"].as_str().unwrap_or_default();
    let body = match (&sample["body"], &sample["body_text"]) {
        (Value::Null, Value::String(text)) => text.clone().into_bytes(),
        (Value::Null, _) => form(sample, content_type),
        (body, _) => body.to_string().into_bytes(),
    };
    Input::write(&headers, &body)
}

/// A form of either kind, with Mailgun's proof put in.
fn form(sample: &Value, content_type: &str) -> Vec<u8> {
    let field = |name: &str| sample["form"][name].as_str().unwrap_or_default();
    let proof = Keys::of(1).hex(&[field("timestamp").as_bytes(), field("token").as_bytes()]);
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for (name, value) in sample["form"].as_object().into_iter().flatten() {
        let value = if name == "signature" { &proof } else { value.as_str().unwrap_or_default() };
        fields.push((name, value));
    }
    let Some((_, boundary)) = content_type.split_once("boundary=") else {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        return pairs.join("&").into_bytes();
    };
    let mut out = Vec::new();
    for (name, value) in fields {
        out.extend(format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes());
    }
    for file in sample["files"].as_array().into_iter().flatten() {
        let text = |name: &str| file[name].as_str().unwrap_or_default();
        let head = format!("Content-Disposition: form-data; name=\"{}\"; filename=\"{}\"", text("field"), text("filename"));
        out.extend(format!("--{boundary}\r\n{head}\r\nContent-Type: {}\r\n\r\n", text("content_type")).into_bytes());
        out.extend(BASE64.decode(text("content_b64").as_bytes()).expect("base64"));
        out.extend(b"\r\n");
    }
    out.extend(format!("--{boundary}--\r\n").into_bytes());
    out
}

/// What no sample shows: news of providers, handshakes, what Amazon signed and with what.
fn beside(proof: Proof) -> Vec<(String, Vec<u8>)> {
    let plain = |name: &str, body: String| (name.to_owned(), Input::write(&[], body.as_bytes()));
    match proof {
        Proof::Hub => vec![plain("handshake", "hub.mode=subscribe&hub.verify_token=guess&hub.challenge=1%2B1".to_owned())],
        Proof::Form => {
            let (time, token) = (NOW.as_secs().to_string(), "t");
            let signature = Keys::of(1).hex(&[time.as_bytes(), token.as_bytes()]);
            let event = json!({ "event": "failed", "severity": "permanent", "reason": "bounce", "timestamp": 1.5,
                "recipient": "a@example.com", "message": { "headers": { "message-id": "x" } },
                "delivery-status": { "code": 550, "message": "no" } });
            let body = json!({ "signature": { "timestamp": time, "token": token, "signature": signature }, "event-data": event });
            vec![plain("event", body.to_string())]
        }
        Proof::Basic => {
            let bounce = json!({ "RecordType": "Bounce", "Type": "HardBounce", "TypeCode": 1, "MessageID": "m1", "Email": "a@example.com",
                "BouncedAt": "2026-11-20T10:00:00Z", "Description": "no such user" });
            vec![plain("bounce", bounce.to_string())]
        }
        Proof::Ecdsa => {
            let events = json!([{ "email": "a@example.com", "timestamp": NOW.as_secs(), "event": "bounce", "sg_event_id": "e1",
                "sg_message_id": "m1.filter", "smtp-id": "<1@example.com>", "reason": "550 no", "status": "5.1.1", "type": "bounce" },
                { "email": "b@example.com", "timestamp": NOW.as_secs(), "event": "delivered", "sg_event_id": "e2" }]);
            vec![plain("events", events.to_string())]
        }
        Proof::Sns => {
            let vectors = SnsVectors::read();
            let mut out = Vec::new();
            for (number, body) in vectors.bodies.iter().enumerate() {
                out.push((format!("signed-{number}"), Input::write(&[], body)));
            }
            out.push(("certificate-pem".to_owned(), Input::write(&[], &vectors.certificate)));
            let text = String::from_utf8_lossy(&vectors.certificate).into_owned();
            let inner: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
            out.push(("certificate-der".to_owned(), Input::write(&[], &BASE64.decode(inner.as_bytes()).expect("base64"))));
            out
        }
        Proof::Token | Proof::TimedMac | Proof::ShopMac | Proof::Ed25519 | Proof::Bridge => Vec::new(),
    }
}
