//! Discord: signatures, every sample's event, the Gateway's frames, sends with their limits, answers, damage.

mod damage;
mod events;
mod frames;
mod outcomes;
mod sends;
mod signatures;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use messaging::channels::discord::socket::{self, Event};
use messaging::channels::{Answer, Channel, ChannelKind, Piece, Received, channel};
use messaging::directory::Account;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::Value;
use serde_json::value::RawValue;

pub const KIND: ChannelKind = ChannelKind::Discord;
/// The application's id, and the bot's own user id.
pub const BOT: &str = "1200000000000000001";
/// Signs as the application.
const SEED: [u8; 32] = [7; 32];

pub fn discord() -> &'static dyn Channel {
    channel(KIND)
}

fn key(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).unwrap()
}

/// The account that the samples are about.
pub fn account() -> Account {
    account_with(&[])
}

pub fn account_with(more: &[(&str, &str)]) -> Account {
    let public = data_encoding::HEXLOWER.encode(key(&SEED).public_key().as_ref());
    let mut members = vec![("application_id", BOT), ("public_key", &public), ("bot_token", "bot.token")];
    members.extend_from_slice(more);
    support::account(KIND, &members)
}

/// The headers of a body that was signed at this time.
pub fn signed(seed: &[u8; 32], time: &str, body: &[u8]) -> [(&'static str, String); 2] {
    let signature = key(seed).sign(&[time.as_bytes(), body].concat());
    [("X-Signature-Ed25519", data_encoding::HEXLOWER.encode(signature.as_ref())), ("X-Signature-Timestamp", time.to_owned())]
}

/// What comes of an authentic body.
pub fn received(body: &Bytes) -> (Vec<Piece>, Option<Answer>) {
    let headers = signed(&SEED, &support::NOW.as_secs().to_string(), body);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    match support::post(KIND, &headers, body, &account().verifier) {
        Ok(Received::Answered { pieces, answer }) => (pieces, Some(answer)),
        Ok(Received::Pieces(pieces)) => (pieces, None),
        other => panic!("{other:?}"),
    }
}

/// The record of a frame of the Gateway.
pub fn read(frame: &Value) -> Option<Piece> {
    let said = RawValue::from_string(frame["d"].to_string()).unwrap();
    let (name, number) = (frame["t"].as_str().unwrap_or_default(), frame["s"].as_u64().unwrap_or_default());
    socket::piece(&Event { name, number, session: "sess", bot: BOT, said: &said })
}

/// What a piece says, in one line.
pub fn line(piece: &Piece) -> String {
    if piece.is_unparsable() {
        return "unparsable".to_owned();
    }
    let inbound = discord().parse(piece.body()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(inbound.contact.handles.first(), Some(piece.handle()), "the key is the first handle");
    assert_eq!(piece.account(), None);
    support::summary(&inbound)
}

/// What a sample says: a frame where it has an `op`, else a request.
pub fn told(sample: &Value) -> Vec<String> {
    let pieces = match sample.get("op") {
        Some(_) => read(sample).into_iter().collect(),
        None => received(&Bytes::from(sample.to_string())).0,
    };
    pieces.iter().map(line).collect()
}
