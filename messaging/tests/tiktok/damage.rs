//! Whatever comes: no panic, and no event about an account or a person that the bytes do not name.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{fixture, fixture_names};
use crate::{KIND, pieces, tiktok};

fn samples() -> Vec<Vec<u8>> {
    fixture_names(KIND).into_iter().map(|name| fixture(KIND, &name).to_string().into_bytes()).collect()
}

/// Every text and number of a value, and of the JSON inside its texts.
fn spelled(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            if let Ok(inner) = serde_json::from_str::<Value>(text) {
                spelled(&inner, found);
            }
            found.push(text.clone());
        }
        Value::Number(number) => found.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| spelled(item, found)),
        Value::Object(members) => members.values().for_each(|member| spelled(member, found)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// What must hold for any authentic body.
fn holds(body: &Bytes) {
    let mut named = Vec::new();
    if let Ok(whole) = serde_json::from_slice(body) {
        spelled(&whole, &mut named);
    }
    let is_named = |id: &str| named.iter().any(|text| text == id);
    let pieces = pieces(body);
    assert!(!pieces.is_empty(), "nothing vanishes");
    for piece in pieces {
        if let Some(account) = piece.account() {
            assert!(is_named(account), "an account that nobody named: {account}");
        }
        assert!(piece.handle().scheme() == "account" || is_named(piece.handle().value()), "a person that nobody named");
        if piece.is_unparsable() {
            continue;
        }
        let inbound = tiktok().parse(piece.body()).expect("what was split is understood");
        assert_eq!(inbound.contact.handles, [piece.handle().clone()], "the parser keys as the splitter does");
    }
}

/// A value with another value at one of its places, counted through.
fn replaced(value: &Value, at: &mut usize, by: &Value) -> Value {
    if *at == 0 {
        *at = usize::MAX;
        return by.clone();
    }
    *at = at.saturating_sub(1);
    match value {
        Value::Object(members) => Value::Object(members.iter().map(|(name, inner)| (name.clone(), replaced(inner, at, by))).collect()),
        Value::Array(items) => Value::Array(items.iter().map(|inner| replaced(inner, at, by)).collect()),
        other => other.clone(),
    }
}

#[test]
fn deep_nesting() {
    for depth in [100, 127, 128, 129, 50_000] {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        holds(&Bytes::from(format!(r#"{{"event":"x","content":{deep}}}"#)));
        holds(&Bytes::from(json!({"event": "im_receive_msg", "content": format!(r#"{{"type":"a","a":{deep}}}"#)}).to_string()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn bytes_may_be_flipped_and_cut(which in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let mut body = which.get(&samples()).clone();
        for (place, byte) in flips {
            let place = place.index(body.len());
            body[place] = byte;
        }
        if cuts {
            body.truncate(cut.index(body.len()));
        }
        holds(&Bytes::from(body));
    }

    #[test]
    fn any_member_may_be_anything(which in any::<prop::sample::Index>(), place in 0usize..40, by in 0usize..9, inside in any::<bool>()) {
        let odd = [Value::Null, json!(true), json!(-1), json!(1.5), json!(u64::MAX), json!(""), json!("x\u{0}y"), json!([1, 2]), json!({"id": {"a": []}})];
        let samples = samples();
        let mut whole: Value = serde_json::from_slice(which.get(&samples).as_slice()).unwrap();
        let mut at = place;
        if inside {
            let content: Value = serde_json::from_str(whole["content"].as_str().unwrap()).unwrap();
            whole["content"] = replaced(&content, &mut at, &odd[by]).to_string().into();
        } else {
            whole = replaced(&whole, &mut at, &odd[by]);
        }
        holds(&Bytes::from(whole.to_string()));
    }

    #[test]
    fn any_bytes_may_come(body in prop::collection::vec(any::<u8>(), 0..300)) {
        holds(&Bytes::from(body.clone()));
        let _ = tiktok().parse(&body);
    }
}
