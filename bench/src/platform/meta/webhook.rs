//! The webhooks that the two products post.

use bytes::Bytes;
use messaging::clock::Timestamp;
use serde_json::{Value, json};

use super::{MetaProduct, State};
use crate::platform::Sim;

fn millis(at: Timestamp) -> u64 {
    at.as_micros() / 1_000
}

fn envelope(sim: &Sim, state: &State, event: Value) -> Bytes {
    let object = match state.product {
        MetaProduct::Messenger => "page",
        MetaProduct::Instagram => "instagram",
    };
    let account = &sim.options.account;
    let body = json!({"object": object, "entry": [{"id": account, "time": millis(sim.now()), "messaging": [event]}]});
    Bytes::from(body.to_string())
}

/// Something that a person did.
pub(super) fn from_person(sim: &Sim, state: &State, person: &str, at: Timestamp, mut event: Value) -> Bytes {
    event["sender"] = json!({"id": person});
    event["recipient"] = json!({"id": sim.options.account});
    event["timestamp"] = json!(millis(at));
    envelope(sim, state, event)
}

/// The account's own message comes back.
pub(super) fn echo(sim: &Sim, state: &State, person: &str, mut message: Value, mid: &str, at: Timestamp) -> Bytes {
    message["mid"] = json!(mid);
    message["is_echo"] = json!(true);
    if state.product == MetaProduct::Messenger {
        message["app_id"] = json!(1_517_776_481_860_111u64);
    }
    let account = &sim.options.account;
    let event = json!({"sender": {"id": account}, "recipient": {"id": person}, "timestamp": millis(at), "message": message});
    envelope(sim, state, event)
}

/// Everything sent before the mark reached the person (Messenger only; without a time of its own).
pub(super) fn delivery(sim: &Sim, state: &State, person: &str, mid: &str, mark: Timestamp) -> Bytes {
    let account = &sim.options.account;
    let delivery = json!({"mids": [mid], "watermark": millis(mark)});
    envelope(sim, state, json!({"sender": {"id": person}, "recipient": {"id": account}, "delivery": delivery}))
}

/// The person saw everything up to here.
pub(super) fn read(sim: &Sim, state: &State, person: &str, mid: &str, mark: Timestamp, at: Timestamp) -> Bytes {
    let read = match state.product {
        MetaProduct::Messenger => json!({"read": {"watermark": millis(mark)}}),
        MetaProduct::Instagram => json!({"read": {"mid": mid}}),
    };
    from_person(sim, state, person, at, read)
}
