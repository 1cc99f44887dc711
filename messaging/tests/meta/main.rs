//! Messenger and Instagram: signatures, every sample's event, sends with their limits, answers, damage.

mod damage;
mod events;
mod oauth;
mod outcomes;
mod sends;
mod signatures;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use messaging::channels::{ChannelKind, Piece, Received, channel};
use messaging::directory::Account;
use serde_json::Value;
use sha2::Sha256;

pub const SECRET: &str = "test-app-secret";

/// The account that the samples are about.
pub fn account(kind: ChannelKind) -> Account {
    let identity = match kind {
        ChannelKind::Messenger => ("page_id", "1234567890"),
        _ => ("instagram_id", "17841400000000001"),
    };
    support::account(kind, &[identity, ("access_token", "EAAG"), ("app_secret", SECRET), ("verify_token", "meatyhamhock")])
}

pub fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// The pieces of an authentic body.
pub fn pieces(kind: ChannelKind, body: &Bytes) -> Vec<Piece> {
    match support::post(kind, &[("X-Hub-Signature-256", &signature(body))], body, &account(kind).verifier) {
        Ok(Received::Pieces(pieces)) => pieces,
        other => panic!("{other:?}"),
    }
}

/// What a body says, one line an event, with the account that each names.
pub fn told(kind: ChannelKind, body: &Value) -> Vec<String> {
    let pieces = pieces(kind, &Bytes::from(body.to_string()));
    let line = |piece: &Piece| {
        if piece.is_unparsable() {
            return "unparsable".to_owned();
        }
        let inbound = channel(kind).parse(piece.body()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(inbound.contact.handles.first(), Some(piece.handle()), "the key is the first handle");
        support::summary(&inbound)
    };
    pieces.iter().map(line).collect()
}
