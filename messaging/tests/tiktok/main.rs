//! TikTok: signatures, every sample's event, sends with their limits, answers, tokens, damage.

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
use messaging::channels::{Channel, ChannelKind, Piece, Received, channel};
use messaging::directory::Account;
use serde_json::Value;
use sha2::Sha256;

pub const KIND: ChannelKind = ChannelKind::Tiktok;
pub const SECRET: &str = "tt_app_secret_0123456789";
pub const BUSINESS: &str = "_000EXAMPLEbusinessOpenIdAAAAAAAAAAAA";
pub const CONVERSATION: &str = "u5JhpselBAhoPOlnH0tZ9y07kg+/EXAMPLE==";

pub fn tiktok() -> &'static dyn Channel {
    channel(KIND)
}

/// The account that the samples are about.
pub fn account() -> Account {
    account_with(&[])
}

pub fn account_with(more: &[(&str, &str)]) -> Account {
    let mut members = vec![
        ("business_id", BUSINESS),
        ("client_key", "7000000000000000001"),
        ("access_token", "act.token"),
        ("refresh_token", "rft.token"),
        ("client_secret", SECRET),
    ];
    members.extend_from_slice(more);
    support::account(KIND, &members)
}

/// The header of a body that was signed at this second.
pub fn signature(secret: &str, at: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    format!("t={at},s={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// The pieces of an authentic body.
pub fn pieces(body: &Bytes) -> Vec<Piece> {
    let header = signature(SECRET, support::NOW.as_secs(), body);
    match support::post(KIND, &[("TikTok-Signature", &header)], body, &account().verifier) {
        Ok(Received::Pieces(pieces)) => pieces,
        other => panic!("{other:?}"),
    }
}

/// What a body says, one line an event.
pub fn told(body: &Value) -> Vec<String> {
    let line = |piece: &Piece| {
        if piece.is_unparsable() {
            return "unparsable".to_owned();
        }
        let inbound = tiktok().parse(piece.body()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(inbound.contact.handles.first(), Some(piece.handle()), "the key is the first handle");
        assert_eq!(piece.account(), Some(BUSINESS));
        support::summary(&inbound)
    };
    pieces(&Bytes::from(body.to_string())).iter().map(line).collect()
}

/// An event with this content.
pub fn event(kind: &str, content: &Value) -> Value {
    serde_json::json!({
        "client_key": "7000000000000000001", "event": kind, "create_time": 1_795_168_800, "user_openid": BUSINESS,
        "content": content.to_string(),
    })
}
