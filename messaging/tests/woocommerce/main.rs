//! WooCommerce: signatures, every sample's event, repeats, notes, answers, reconciliation, damage.

mod damage;
mod events;
mod notes;
mod pulls;
mod signatures;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use messaging::channels::{Channel, ChannelKind, Inbound, Piece, Received, channel};
use messaging::directory::Account;
use serde_json::Value;
use sha2::Sha256;

pub const KIND: ChannelKind = ChannelKind::Woocommerce;
pub const SECRET: &str = "wc_webhook_secret";
pub const DELIVERY: &str = "b0e7aef5a0e0c2d6f1b2c3d4e5f60718";

pub fn shop() -> &'static dyn Channel {
    channel(KIND)
}

pub fn account() -> Account {
    let members =
        [("source", "https://shop.example.com/"), ("webhook_secret", SECRET), ("consumer_key", "ck_1"), ("consumer_secret", "cs_1")];
    support::account(KIND, &members)
}

pub fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    data_encoding::BASE64.encode(&mac.finalize().into_bytes())
}

/// The one piece of an authentic body with these headers beside the signature.
pub fn piece(headers: &[(&str, &str)], body: &Bytes) -> Piece {
    let signature = signature(body);
    let mut all = vec![("X-WC-Webhook-Signature", signature.as_str())];
    all.extend_from_slice(headers);
    match support::post(KIND, &all, body, &account().verifier) {
        Ok(Received::Pieces(mut pieces)) if pieces.len() == 1 => pieces.remove(0),
        other => panic!("{other:?}"),
    }
}

/// What a piece says.
pub fn inbound(piece: &Piece) -> Inbound {
    let inbound = shop().parse(piece.body()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(inbound.contact.handles, [piece.handle().clone()], "the key is the first handle");
    assert_eq!(piece.account(), None, "a hook is one shop's");
    inbound
}

/// What a body about a topic says.
pub fn told(topic: &str, body: &Value) -> Inbound {
    told_by(topic, DELIVERY, body)
}

/// The same, by a delivery of this id.
pub fn told_by(topic: &str, delivery: &str, body: &Value) -> Inbound {
    let headers = [("X-WC-Webhook-Topic", topic), ("X-WC-Webhook-Delivery-ID", delivery)];
    inbound(&piece(&headers, &Bytes::from(body.to_string())))
}
