//! Damaged bodies: whatever a stranger or a fault makes of an update, nothing panics, nothing is lost without a word, and what is
//! understood belongs to the conversation that it was keyed by.

use bytes::Bytes;
use messaging::channels::Received;
use proptest::prelude::*;
use serde_json::Value;

use super::{TOKEN, fixture, fixture_names, post, telegram, verifier_of};

fn check(body: Vec<u8>) {
    let body = Bytes::from(body);
    let received = post(&body, Some(TOKEN.as_bytes()), &verifier_of(TOKEN)).expect("authentic");
    let Received::Pieces(pieces) = received else { panic!("telegram has no handshake") };
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0].body(), &body);
    match telegram().parse(pieces[0].body()) {
        Ok(inbound) => {
            assert!(!pieces[0].is_unparsable());
            assert_eq!(inbound.contact.handles.first(), Some(pieces[0].handle()));
            assert!(!inbound.platform_id.is_empty());
        }
        Err(error) => assert!(!error.0.is_empty()),
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
fn every_cut() {
    for name in fixture_names() {
        let body = fixture(&name);
        for end in 0..body.len() {
            check(body[..end].to_vec());
        }
    }
}

#[test]
fn every_member_taken_away_or_of_another_type() {
    let strange = ["null", "true", "-1", "0", "1.5", "18446744073709551615", "1e300", "\"\"", "\"x\"", "[]", "{}", "[[]]", "[null]"];
    for name in fixture_names() {
        let original: Value = serde_json::from_slice(&fixture(&name)).unwrap();
        let mut places = Vec::new();
        pointers(&original, "", &mut places);
        for place in &places {
            for other in strange {
                let mut bent = original.clone();
                *bent.pointer_mut(place).unwrap() = serde_json::from_str(other).unwrap();
                check(bent.to_string().into_bytes());
            }
            let Some((parent, member)) = place.rsplit_once('/') else { continue };
            let mut bent = original.clone();
            match bent.pointer_mut(parent).unwrap() {
                Value::Object(members) => drop(members.remove(member)),
                Value::Array(items) => drop(items.remove(member.parse().unwrap())),
                _ => unreachable!("a parent has members"),
            }
            check(bent.to_string().into_bytes());
        }
    }
}

#[test]
fn deep_nesting() {
    for depth in [100, 127, 128, 129, 100_000] {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        check(format!(r#"{{"update_id":1,"kind_of_tomorrow":{deep}}}"#).into_bytes());
        check(format!(r#"{{"update_id":1,"message":{{"chat":{{"id":1}},"message_id":1,"x":{deep}}}}}"#).into_bytes());
    }
}

proptest! {
    #[test]
    fn flipped_bytes(which in 0..32usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut body = fixture(&fixture_names()[which]).to_vec();
        for (index, byte) in flips {
            let at = index.index(body.len());
            body[at] = byte;
        }
        check(body);
    }

    #[test]
    fn forged_tokens_never_pass(forged in "[A-Za-z0-9_-]{0,40}", cut in 0..TOKEN.len(), flip in 0..TOKEN.len(), bit in 0..7u8) {
        let mut bent = TOKEN.as_bytes().to_vec();
        bent[flip] ^= 1 << bit;
        let longer = format!("{TOKEN}{forged}x");
        let body = fixture("message-text.json");
        for presented in [forged.as_bytes(), &TOKEN.as_bytes()[..cut], longer.as_bytes(), &bent] {
            // A header cannot hold control characters; such a request never gets here.
            if presented != TOKEN.as_bytes() && http::HeaderValue::from_bytes(presented).is_ok() {
                prop_assert!(post(&body, Some(presented), &verifier_of(TOKEN)).is_err());
            }
        }
    }
}
