//! Damaged requests: whatever a stranger or a fault makes of a mail, nothing panics, nothing is lost without a word, and what is
//! understood belongs to the conversation that it was keyed by.

use bytes::Bytes;
use messaging::channels::{ChannelKind, Received};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{NOW, fixture};
use super::{SECRET, Wire, bridged, email, form, mac, sample, verifier};

fn check(wire: &Wire, provider: &str) {
    let Ok(received) = wire.judged(&verifier(provider), None, NOW) else { return };
    let Received::Pieces(pieces) = received else { panic!("{provider} has no handshake") };
    assert!(!pieces.is_empty(), "an authentic request is never lost without a word");
    for piece in &pieces {
        match email().parse(piece.body()) {
            Ok(inbound) => {
                assert!(!piece.is_unparsable());
                assert_eq!(inbound.contact.handles.first(), Some(piece.handle()));
                assert!(piece.account().is_none());
            }
            Err(error) => assert!(piece.is_unparsable() && !error.0.is_empty()),
        }
    }
}

fn raw(name: &str) -> Vec<u8> {
    fixture(ChannelKind::Email, name)["body_text"].as_str().unwrap().as_bytes().to_vec()
}

/// The head of a piece and what follows, as the channel writes them; SES's cannot be signed here.
fn check_ses(message: &str) {
    let piece = format!("{{\"source\":\"ses\",\"id\":\"n1\"}}\n{message}");
    if let Err(error) = email().parse(piece.as_bytes()) {
        assert!(!error.0.is_empty());
    }
}

#[test]
fn every_cut() {
    let mail = raw("raw-mime-bridge.json");
    for end in 0..mail.len() {
        check(&bridged(&mail[..end], &[]), "bridge");
    }
    for name in ["mailgun-inbound.json", "mailgun-inbound-attachments.json", "postmark-inbound-attachment.json"] {
        let (wire, provider) = sample(name);
        for end in (0..wire.body.len()).step_by(3) {
            check(&Wire { body: wire.body.slice(..end), ..wire.clone() }, provider);
        }
    }
    for name in ["sns-ses-bounce.json", "sns-ses-received-with-content.json"] {
        let message = fixture(ChannelKind::Email, name)["body"]["Message"].as_str().unwrap().to_owned();
        (0..message.len()).filter(|end| message.is_char_boundary(*end)).step_by(3).for_each(|end| check_ses(&message[..end]));
    }
}

/// Every pointer of a document.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| pointers(member, &format!("{at}/{name}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| pointers(item, &format!("{at}/{i}"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_member_taken_away_or_of_another_type() {
    let strange =
        [json!(null), json!(true), json!(-1), json!(1e300), json!(""), json!("x"), json!("a@b"), json!([]), json!({}), json!([null])];
    let bend = |original: &Value, each: &dyn Fn(Value)| {
        let mut places = Vec::new();
        pointers(original, "", &mut places);
        for place in &places {
            for other in &strange {
                let mut bent = original.clone();
                *bent.pointer_mut(place).unwrap() = other.clone();
                each(bent);
            }
            let Some((parent, member)) = place.rsplit_once('/') else { continue };
            let mut bent = original.clone();
            match bent.pointer_mut(parent).unwrap() {
                Value::Object(members) => drop(members.remove(member)),
                Value::Array(items) => drop(items.remove(member.parse().unwrap())),
                _ => unreachable!("a parent has members"),
            }
            each(bent);
        }
    };
    let (wire, _) = sample("postmark-inbound-attachment.json");
    bend(&serde_json::from_slice(&wire.body).unwrap(), &|bent| {
        check(&Wire { body: Bytes::from(bent.to_string()), ..wire.clone() }, "postmark");
    });
    for name in ["sns-ses-bounce.json", "sns-ses-complaint.json", "sns-ses-received-s3.json", "sns-ses-received-with-content.json"] {
        let message = fixture(ChannelKind::Email, name)["body"]["Message"].as_str().unwrap().to_owned();
        bend(&serde_json::from_str(&message).unwrap(), &|bent| check_ses(&bent.to_string()));
    }
    let event = json!({ "event": "failed", "severity": "permanent", "reason": "bounce", "timestamp": 1.5, "recipient": "a@example.com",
        "message": { "headers": { "message-id": "x" } }, "delivery-status": { "code": 550, "message": "no" } });
    bend(&event, &|bent| {
        let (time, token) = (NOW.as_secs().to_string(), "t");
        let signature = mac(SECRET, &[time.as_bytes(), token.as_bytes()]);
        let body = json!({ "signature": { "timestamp": time, "token": token, "signature": signature }, "event-data": bent });
        check(&Wire::new(&[("content-type", "application/json")], body.to_string()), "mailgun");
    });
}

#[test]
fn forms_of_every_shape() {
    for content_type in
        ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"", "text/plain", "", ";;;="]
    {
        for body in ["", "--", "--x", "--x\r\n\r\n", "--x\r\n\r\n\r\n--x--", "a=%zz&&&=", "{\"signature\":1}"] {
            check(&Wire::new(&[("content-type", content_type)], body), "mailgun");
        }
    }
}

proptest! {
    #[test]
    fn flipped_bytes_of_a_mail(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut mail = raw("raw-mime-bridge.json");
        for (index, byte) in flips {
            let at = index.index(mail.len());
            mail[at] = byte;
        }
        check(&bridged(&mail, &[("x-gateway-envelope-from", "a@example.com")]), "bridge");
    }

    #[test]
    fn any_mail(mail in prop::collection::vec(any::<u8>(), 0..400), head in "[ -~\r\n]{0,200}") {
        check(&bridged(&[head.as_bytes(), &mail].concat(), &[]), "bridge");
        check(&bridged(&[b"From: a@example.com\r\n", head.as_bytes(), b"\r\n\r\n", &mail].concat(), &[]), "bridge");
    }

    #[test]
    fn flipped_bytes_of_forms(which in 0..3usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let name = ["mailgun-inbound.json", "mailgun-inbound-attachments.json", "mailgun-inbound-mime.json"][which];
        let sample = fixture(ChannelKind::Email, name);
        let content_type = sample["headers"]["content-type"].as_str().unwrap();
        let mut body = form(&sample, content_type).to_vec();
        for (index, byte) in flips {
            let at = index.index(body.len());
            body[at] = byte;
        }
        check(&Wire::new(&[("content-type", content_type)], body), "mailgun");
    }

    #[test]
    fn forged_signatures_never_pass(forged in "[0-9a-f]{0,80}", flip in 0..64usize, time in any::<u32>()) {
        let good = bridged(b"From: a@example.com\r\n\r\nhi", &[]);
        let signature = good.headers[1].1.clone();
        let at = signature.len() - 64 + flip;
        let bent = format!("{}{}{}", &signature[..at], if &signature[at..=at] == "0" { "1" } else { "0" }, &signature[at + 1..]);
        for other in [bent, format!("t={time},v1={forged}"), format!("t={},v1={forged}", NOW.as_secs()), format!("v1={forged}"), forged] {
            let mut wire = good.clone();
            wire.headers[1].1 = other;
            prop_assert!(wire.judged(&verifier("bridge"), None, NOW).is_err());
        }
    }

    #[test]
    fn any_piece(piece in prop::collection::vec(any::<u8>(), 0..200), source in 0..7usize, index in 0..4usize) {
        let _ = email().parse(&piece);
        let source = ["mime", "mailgun", "mailgun_event", "postmark", "sendgrid", "sendgrid_event", "ses"][source];
        let head = format!("{{\"source\":\"{source}\",\"index\":{index}}}\n");
        let _ = email().parse(&[head.as_bytes(), &piece].concat());
    }
}
