//! Damaged bodies: authentic or not, they never panic, and whatever is let through as understood does parse.

use std::time::Instant;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use messaging::exchange::WebhookRequest;
use proptest::prelude::*;
use serde_json::Value;
use sha2::Sha256;

use crate::{APP_SECRET, fixture, fixture_names, pieces, sign, verifier, whatsapp};

/// Receives a body as authentic, and parses what comes of it.
fn take(body: Vec<u8>) {
    // A stranger's bytes may reach the parser only after a bug elsewhere; even then it must not panic.
    let _ = whatsapp().parse(&body);
    let pieces = pieces(body.clone());
    assert!(!pieces.is_empty(), "something vanished");
    for piece in &pieces {
        match whatsapp().parse(piece.body()) {
            Ok(inbound) if !piece.is_unparsable() => assert_eq!(inbound.contact.handles[0], *piece.handle(), "two opinions on the key"),
            Err(error) if !piece.is_unparsable() => panic!("{error}: {:?} of {:?}", piece.body(), Bytes::from(body)),
            Ok(_) | Err(_) => {}
        }
    }
}

/// All places in a value, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(key, member)| places(member, &format!("{at}/{key}"), out)),
        Value::Array(elements) => elements.iter().enumerate().for_each(|(place, element)| places(element, &format!("{at}/{place}"), out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn odd_values() -> Vec<Value> {
    let text = ["null", "true", "0", "-1", "1e300", "18446744073709551615", "[]", "{}", "[[]]", "[{},{}]", "[null]", r#""""#, r#""0""#];
    let mut values: Vec<Value> = text.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    values.extend(["US.ENT.1", "+", "-", "~/", "\u{0}", "ä\u{202e}👍", "99999999999999999999"].map(Value::from));
    values
}

#[test]
fn every_member_of_every_fixture_may_be_missing_odd_or_double() {
    for name in fixture_names() {
        let whole = fixture(&name);
        let mut all = Vec::new();
        places(&whole, "", &mut all);
        for place in all {
            for odd in odd_values() {
                let mut body = whole.clone();
                *body.pointer_mut(&place).unwrap() = odd;
                take(body.to_string().into_bytes());
            }
            let Some((parent, key)) = place.rsplit_once('/') else { continue };
            let mut body = whole.clone();
            match body.pointer_mut(parent).unwrap() {
                Value::Object(members) => {
                    let value = members.remove(key).unwrap();
                    members.insert(format!("{key}_renamed"), value);
                }
                Value::Array(elements) => elements.push(elements[0].clone()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => unreachable!("a parent has children"),
            }
            take(body.to_string().into_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_may_be_flipped_and_cut(file in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let names = fixture_names();
        let mut body = fixture(&names[file.index(names.len())]).to_string().into_bytes();
        for (place, byte) in flips {
            let place = place.index(body.len());
            body[place] ^= byte;
        }
        if cuts {
            body.truncate(cut.index(body.len()));
        }
        take(body);
    }

    #[test]
    fn any_bytes_may_come(body in prop::collection::vec(any::<u8>(), 0..200)) {
        take(body);
    }

    #[test]
    fn no_other_signature_passes(other in "[0-9a-f]{64}") {
        let body = Bytes::from(fixture("text").to_string());
        let forged = format!("sha256={other}");
        prop_assume!(forged != sign(&body));
        prop_assert!(crate::post(&[("x-hub-signature-256", &forged)], &body, &verifier()).is_err());
    }
}

/// `cargo test --release -p messaging --test whatsapp -- --ignored --nocapture what_a_webhook_costs`
#[test]
#[ignore = "a measurement: run it alone and optimised"]
fn what_a_webhook_costs() {
    // Many windows shorter than a time slice: the best of them is undisturbed even on a busy machine.
    const ROUNDS: u32 = 500;
    const WINDOWS: u32 = 400;
    let one = |name: &str, padding: usize| {
        let mut body = fixture(name);
        let text = "x".repeat(padding);
        if let Some(place) = body.pointer_mut("/entry/0/changes/0/value/messages/0/text/body") {
            *place = text.into();
        }
        body
    };
    let padding = 1024 - one("text", 0).to_string().len();
    let mut batch = one("text", padding);
    let message = batch["entry"][0]["changes"][0]["value"]["messages"][0].clone();
    batch["entry"][0]["changes"][0]["value"]["messages"] = Value::Array(vec![message; 10]);
    for (label, body) in [("one message", one("text", padding)), ("one status", one("status-sent", 0)), ("ten messages", batch)] {
        let body = Bytes::from(body.to_string());
        let verifier = verifier();
        let headers = HeaderMap::from_iter([("x-hub-signature-256".parse().unwrap(), sign(&body).parse().unwrap())]);
        let request = WebhookRequest {
            is_post: true,
            query: "",
            headers: &headers,
            body: &body,
            now: messaging::clock::Timestamp::ZERO,
            fetched: None,
        };
        let state = Hmac::<Sha256>::new_from_slice(APP_SECRET.as_bytes()).unwrap();
        let tag = data_encoding::HEXLOWER.decode(&sign(&body).as_bytes()[7..]).unwrap();
        let time = |work: &dyn Fn()| {
            let best_of = (0..WINDOWS).map(|_| {
                let start = Instant::now();
                (0..ROUNDS).for_each(|_| work());
                start.elapsed() / ROUNDS
            });
            best_of.min().unwrap()
        };
        let mac = time(&|| {
            let mut mac = state.clone();
            mac.update(&body);
            mac.verify_slice(std::hint::black_box(&tag)).unwrap();
        });
        let text = std::str::from_utf8(&body).unwrap();
        let scan = time(&|| drop(std::hint::black_box(serde_json::from_str::<serde::de::IgnoredAny>(text))));
        let whole = time(&|| drop(std::hint::black_box(whatsapp().receive(&request, &verifier))));
        let pieces = pieces(body.clone());
        let parse = time(&|| pieces.iter().for_each(|piece| drop(std::hint::black_box(whatsapp().parse(piece.body())))));
        println!(
            "{label}, {} bytes: hmac {mac:?}, json scanned once {scan:?}, receive {whole:?}, beyond hmac {:?}, parse {parse:?}",
            body.len(),
            whole - mac
        );
    }
}
