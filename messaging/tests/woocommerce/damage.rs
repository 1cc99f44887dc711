//! Whatever comes: no panic, nothing vanishes, and no event about a thing or a person that the bytes do not name.

use bytes::Bytes;
use messaging::channels::woocommerce::pull::{Pull, read};
use messaging::clock::Timestamp;
use messaging::exchange::HttpResponse;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{fixture, fixture_names};
use crate::{DELIVERY, KIND, account, piece, shop};

/// Topics and bodies.
fn samples() -> Vec<(String, Vec<u8>)> {
    let names = fixture_names(KIND).into_iter().filter(|name| name != "ping.json");
    let sample = |name: String| {
        let sample = fixture(KIND, &name);
        (sample["headers"]["x-wc-webhook-topic"].as_str().unwrap().to_owned(), sample["body"].to_string().into_bytes())
    };
    names.map(sample).collect()
}

fn holds(topic: &str, body: &Bytes) {
    let piece = piece(&[("X-WC-Webhook-Topic", topic), ("X-WC-Webhook-Delivery-ID", DELIVERY)], body);
    assert_eq!(piece.account(), None);
    if piece.is_unparsable() {
        assert_eq!(piece.handle().scheme(), "account");
        return;
    }
    let whole: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_too_deep = whole.is_null() && body.as_ref() != b"null";
    let named = match &whole["id"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let is_named = matches!(piece.handle().scheme(), "account" | "notice") || piece.handle().value() == named;
    assert!(is_named || is_too_deep, "a thing that nobody named");
    let Ok(inbound) = shop().parse(piece.body()) else {
        assert!(is_too_deep, "only what is too deep is not understood");
        return;
    };
    assert_eq!(inbound.contact.handles, [piece.handle().clone()], "the parser keys as the splitter does");
    assert!(!inbound.platform_id.is_empty() || !inbound.qualifier.is_empty());
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
    for depth in [100, 126, 127, 128, 129, 50_000] {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        holds("order.updated", &Bytes::from(format!(r#"{{"id":1,"meta_data":{deep}}}"#)));
        holds("action.x", &Bytes::from(deep));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn bytes_may_be_flipped_and_cut(which in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let samples = samples();
        let (topic, mut body) = which.get(&samples).clone();
        for (place, byte) in flips {
            let place = place.index(body.len());
            body[place] = byte;
        }
        if cuts {
            body.truncate(cut.index(body.len()));
        }
        holds(&topic, &Bytes::from(body));
    }

    #[test]
    fn any_member_may_be_anything(which in any::<prop::sample::Index>(), place in 0usize..40, by in 0usize..9, topic in "[a-z_.]{0,12}|order\\.deleted|coupon\\.updated") {
        let odd = [Value::Null, json!(true), json!(-1), json!(1.5), json!(u64::MAX), json!(""), json!("x\u{0}y"), json!([1, 2]), json!({"id": {"a": []}})];
        let samples = samples();
        let (own, body) = which.get(&samples).clone();
        let whole: Value = serde_json::from_slice(&body).unwrap();
        let mut at = place;
        let bent = Bytes::from(replaced(&whole, &mut at, &odd[by]).to_string());
        holds(&own, &bent);
        holds(&topic, &bent);
        // As an answer to a pull it neither panics nor turns into somebody else's.
        let list = Bytes::from(format!("[{}]", String::from_utf8_lossy(&bent)));
        let answer = HttpResponse { status: 200, body: list, ..HttpResponse::default() };
        let found = read(&account(), &Pull::since(Timestamp::ZERO), &answer).unwrap();
        for piece in found.pieces {
            prop_assert!(piece.is_unparsable() || matches!(piece.handle().scheme(), "order" | "account"));
            let _ = shop().parse(piece.body());
        }
    }

    #[test]
    fn any_bytes_may_come(body in prop::collection::vec(any::<u8>(), 0..300)) {
        holds("order.created", &Bytes::from(body.clone()));
        let _ = shop().parse(&body);
    }
}
