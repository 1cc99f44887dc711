//! Whatever comes: no panic, and no event about an account or a person that the bytes do not name.

use bytes::Bytes;
use messaging::channels::{ChannelKind, Piece, channel};
use proptest::prelude::*;
use serde_json::Value;

use crate::pieces;
use crate::support::{fixture, fixture_names};

const KINDS: [ChannelKind; 2] = [ChannelKind::Messenger, ChannelKind::Instagram];

fn samples() -> Vec<(ChannelKind, Vec<u8>)> {
    let of = |kind| fixture_names(kind).into_iter().map(move |name| (kind, fixture(kind, &name).to_string().into_bytes()));
    KINDS.into_iter().flat_map(of).collect()
}

/// What must hold for any authentic body.
fn holds(kind: ChannelKind, body: &Bytes) {
    // What JSON's own escapes spell counts as named.
    let named = |id: &str| {
        let whole: Result<Value, _> = serde_json::from_slice(body);
        let plain = String::from_utf8_lossy(body).into_owned();
        plain.contains(id)
            || whole.is_ok_and(|whole| whole.to_string().contains(id) || whole.to_string().contains(&serde_json::to_string(id).unwrap()))
    };
    let pieces = pieces(kind, body);
    assert!(!pieces.is_empty(), "nothing vanishes");
    for piece in pieces {
        if let Some(account) = piece.account() {
            assert!(named(account), "an account that nobody named: {account}");
        }
        assert!(piece.handle().scheme() == "account" || named(piece.handle().value()), "a person that nobody named");
        if piece.is_unparsable() {
            continue;
        }
        let Ok(inbound) = channel(kind).parse(piece.body()) else { continue };
        assert_eq!(inbound.contact.handles.first(), Some(piece.handle()), "the parser keys as the splitter does");
        for handle in &inbound.contact.handles {
            assert!(handle.scheme() == "account" || named(handle.value()));
        }
    }
}

#[test]
fn what_names_no_event_is_kept() {
    // Found by the fuzzer: a list of a name that nobody knows yet.
    let unknown = r#"{"object":"instagram","entry":[{"id":"17","lessaging":[{"sender":{"id":"1"}}],"time":1},{"id":"18","messaging":[]}]}"#;
    for (body, accounts) in [
        (unknown, &[Some("17"), Some("18")][..]),
        (r#"{"object":"instagram","entry":[{}]}"#, &[None]),
        (r#"{"object":"instagram","entry":[]}"#, &[None]),
        ("[]", &[None]),
    ] {
        let pieces = pieces(ChannelKind::Instagram, &Bytes::from(body));
        assert!(pieces.iter().all(Piece::is_unparsable), "{body}");
        assert_eq!(pieces.iter().map(Piece::account).collect::<Vec<_>>(), accounts, "{body}");
    }
}

/// Every place of a value, replaced by another value.
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn bytes_may_be_flipped_and_cut(which in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let samples = samples();
        let (kind, mut body) = which.get(&samples).clone();
        for (place, byte) in flips {
            let place = place.index(body.len());
            body[place] = byte;
        }
        if cuts {
            body.truncate(cut.index(body.len()));
        }
        holds(kind, &Bytes::from(body));
    }

    #[test]
    fn any_member_may_be_anything(which in any::<prop::sample::Index>(), place in 0usize..40, by in 0usize..9) {
        let samples = samples();
        let (kind, body) = which.get(&samples).clone();
        let odd = [Value::Null, Value::from(true), Value::from(-1), Value::from(1.5), Value::from(u64::MAX), Value::from(""), Value::from("x\u{0}y"), Value::from(vec![1, 2]), serde_json::json!({"id": {"a": []}})];
        let whole: Value = serde_json::from_slice(&body).unwrap();
        let mut at = place;
        holds(kind, &Bytes::from(replaced(&whole, &mut at, &odd[by]).to_string()));
    }

    #[test]
    fn any_bytes_may_come(body in prop::collection::vec(any::<u8>(), 0..300)) {
        for kind in KINDS {
            holds(kind, &Bytes::from(body.clone()));
            let _ = channel(kind).parse(&body);
        }
    }
}
