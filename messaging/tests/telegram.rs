//! The Telegram channel, seen from outside: what it takes, what it understands, what it sends, how it reads the answers.

#[path = "telegram/account.rs"]
mod account;
#[path = "telegram/check.rs"]
mod check;
#[path = "telegram/damage.rs"]
mod damage;
#[path = "telegram/outcome.rs"]
mod outcome;
#[path = "telegram/parse.rs"]
mod parse;
#[path = "telegram/receive.rs"]
mod receive;
#[path = "telegram/request.rs"]
mod request;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use messaging::channels::{Channel, ChannelKind, ChannelSettings, Piece, Received, Refusal, Verifier, channel};
use messaging::clock::Timestamp;
use messaging::directory::{Account, AccountRow, AccountState, SecretPair};
use messaging::exchange::WebhookRequest;
use messaging::ids::{AccountId, TenantId};
use messaging::seal::{Sealed, Secret};
use messaging::tenant::{Owned, Tenant};

pub const TOKEN: &str = "aB3_-x9QmTz0123456789";
pub const BOT_TOKEN: &str = "7000000001:AAEXAMPLE-token_0";

pub fn telegram() -> &'static dyn Channel {
    channel(ChannelKind::Telegram)
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A fixture's JSON, compact as Telegram sends it.
pub fn fixture(name: &str) -> Bytes {
    let text = std::fs::read(fixtures().join("telegram").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Bytes::from(value.to_string())
}

pub fn fixture_names() -> Vec<String> {
    let entries = std::fs::read_dir(fixtures().join("telegram")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn secrets(secret_token: SecretPair) -> BTreeMap<String, SecretPair> {
    let bot_token = SecretPair::new(Secret::new(BOT_TOKEN), Timestamp::ZERO);
    BTreeMap::from([("bot_token".to_owned(), bot_token), ("secret_token".to_owned(), secret_token)])
}

pub fn verifier_of(secret_token: &str) -> Verifier {
    telegram().verifier(&std::collections::BTreeMap::new(), &secrets(SecretPair::new(Secret::new(secret_token), Timestamp::ZERO)))
}

pub fn post(body: &Bytes, presented: Option<&[u8]>, verifier: &Verifier) -> Result<Received, Refusal> {
    let mut headers = http::HeaderMap::new();
    if let Some(token) = presented {
        headers.insert("X-Telegram-Bot-Api-Secret-Token", http::HeaderValue::from_bytes(token).unwrap());
    }
    telegram().receive(&WebhookRequest { is_post: true, query: "", headers: &headers, body, now: Timestamp::ZERO, fetched: None }, verifier)
}

/// The one piece of an authentic request.
pub fn piece(body: &Bytes) -> Piece {
    match post(body, Some(TOKEN.as_bytes()), &verifier_of(TOKEN)).expect("authentic") {
        Received::Pieces(mut pieces) if pieces.len() == 1 => pieces.remove(0),
        other => panic!("not one piece: {other:?}"),
    }
}

pub fn account(api_base: Option<&str>) -> Account {
    let (tenant, id) = (TenantId([1; 16]), AccountId([2; 16]));
    let secrets = secrets(SecretPair::new(Secret::new(TOKEN), Timestamp::ZERO));
    let row = AccountRow {
        id,
        tenant,
        channel: ChannelKind::Telegram,
        name: "bot".to_owned(),
        api_base: api_base.map(str::to_owned),
        public: BTreeMap::new(),
        secrets: Sealed::from_stored(Vec::new()),
        state: AccountState::Active,
        state_reason: None,
        created_at: Timestamp::ZERO,
        revision: 1,
    };
    let verifier = telegram().verifier(&std::collections::BTreeMap::new(), &secrets);
    Account {
        owner: Owned { tenant: Tenant::for_tests(tenant), account: id },
        channel: ChannelKind::Telegram,
        row,
        secrets,
        verifier,
        credential: None,
    }
}

pub fn settings() -> ChannelSettings {
    ChannelSettings {
        api_base: "https://api.telegram.org".to_owned(),
        api_version: String::new(),
        timeout: Duration::from_secs(10),
        per_account: 30.0,
        per_pair: 1.0,
        window: Duration::ZERO,
        window_warning: Duration::ZERO,
        ..ChannelSettings::default()
    }
}
