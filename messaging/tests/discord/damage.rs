//! Whatever comes: no panic, and no event about an account or a person that the bytes do not name.

use bytes::Bytes;
use messaging::channels::Piece;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{fixture, fixture_names};
use crate::{KIND, discord, read, received};

fn samples() -> Vec<Vec<u8>> {
    fixture_names(KIND).into_iter().map(|name| fixture(KIND, &name).to_string().into_bytes()).collect()
}

/// Every text of a value.
fn spelled(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| spelled(item, found)),
        Value::Object(members) => members.values().for_each(|member| spelled(member, found)),
        Value::Number(_) | Value::Null | Value::Bool(_) => {}
    }
}

/// What must hold for the piece of any authentic bytes. A piece that cannot be understood goes to quarantine.
fn fits(piece: &Piece, named: &[String]) {
    let is_named = |id: &str| named.iter().any(|text| text == id);
    assert_eq!(piece.account(), None);
    assert!(piece.handle().scheme() == "account" || is_named(piece.handle().value()), "a place that nobody named");
    if piece.is_unparsable() {
        return;
    }
    let Ok(inbound) = discord().parse(piece.body()) else { return };
    assert_eq!(inbound.contact.handles.first(), Some(piece.handle()), "the parser keys as the splitter does");
    for handle in &inbound.contact.handles {
        assert!(handle.scheme() == "account" || is_named(handle.value()), "somebody whom nobody named");
    }
}

fn holds(body: &Bytes) {
    // Ids may also stand in what is no JSON as a whole, before or after the damage.
    let mut named: Vec<String> = String::from_utf8_lossy(body).split('"').map(str::to_owned).collect();
    let whole = serde_json::from_slice::<Value>(body).ok();
    if let Some(whole) = &whole {
        spelled(whole, &mut named);
    }
    let (pieces, answer) = received(body);
    assert!(!pieces.is_empty() || answer.is_some(), "nothing vanishes");
    pieces.iter().for_each(|piece| fits(piece, &named));
    // The same bytes by the Gateway.
    if let Some(frame) = whole.filter(Value::is_object) {
        if let Some(piece) = read(&frame) {
            fits(&piece, &named);
        }
        if let Some(piece) = read(&json!({"t": "INTERACTION_CREATE", "s": 1, "d": frame})) {
            fits(&piece, &named);
        }
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
        for body in [format!(r#"{{"type":2,"id":"1","data":{deep}}}"#), format!(r#"{{"type":1,"event":{{"data":{deep}}}}}"#), deep] {
            holds(&Bytes::from(body));
        }
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
    fn any_member_may_be_anything(which in any::<prop::sample::Index>(), place in 0usize..70, by in 0usize..9) {
        let odd = [Value::Null, json!(true), json!(-1), json!(1.5), json!(u64::MAX), json!(""), json!("x\u{0}y"), json!([1, 2]), json!({"id": {"a": []}})];
        let samples = samples();
        let whole: Value = serde_json::from_slice(which.get(&samples).as_slice()).unwrap();
        let mut at = place;
        holds(&Bytes::from(replaced(&whole, &mut at, &odd[by]).to_string()));
    }

    #[test]
    fn any_bytes_may_come(body in prop::collection::vec(any::<u8>(), 0..300)) {
        holds(&Bytes::from(body.clone()));
        let _ = discord().parse(&body);
    }
}
