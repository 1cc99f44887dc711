//! What the tests of several channels need: accounts, settings as a node has them, fixtures, and an event in one line.
#![allow(dead_code, reason = "every test crate takes what it needs")]

pub mod sign;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use messaging::channels::{ChannelKind, ChannelSettings, ContactInfo, Inbound, InboundBody, Received, Refresh, Refusal, Verifier, channel};
use messaging::clock::Timestamp;
use messaging::config::Config;
use messaging::content::Handle;
use messaging::directory::{Account, AccountRow, AccountState, SecretPair};
use messaging::exchange::WebhookRequest;
use messaging::ids::{AccountId, TenantId};
use messaging::metrics::RunMode;
use messaging::seal::{Sealed, Secret};
use messaging::tenant::{Owned, Tenant};
use serde_json::{Map, Value};

/// All samples share one clock: 2026-11-20T10:00:00Z.
pub const NOW: Timestamp = Timestamp(1_795_168_800_000_000);

/// An account of a channel with these members, secret or not as the channel says.
pub fn account(kind: ChannelKind, members: &[(&str, &str)]) -> Account {
    let (tenant, id) = (TenantId([1; 16]), AccountId([2; 16]));
    let (mut public, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in members {
        let field = channel(kind).fields().iter().find(|field| field.name == *name);
        if field.unwrap_or_else(|| panic!("{} has no member {name}", kind.name())).secret {
            secrets.insert((*name).to_owned(), SecretPair::new(Secret::new(*value), Timestamp::ZERO));
        } else {
            public.insert((*name).to_owned(), (*value).to_owned());
        }
    }
    let verifier = channel(kind).verifier(&public, &secrets);
    let row = AccountRow {
        id,
        tenant,
        channel: kind,
        name: "test".into(),
        api_base: None,
        public,
        secrets: Sealed::from_stored(Vec::new()),
        state: AccountState::Active,
        state_reason: None,
        created_at: Timestamp::ZERO,
        revision: 1,
    };
    Account { owner: Owned { tenant: Tenant::for_tests(tenant), account: id }, channel: kind, row, secrets, verifier, credential: None }
}

/// A channel's settings as they are without a file.
pub fn settings(kind: ChannelKind) -> ChannelSettings {
    let loaded = Config::load(RunMode::Dev, None, std::iter::empty(), &[]).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.config.channels[&kind].clone()
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The names of a channel's samples, sorted.
pub fn fixture_names(kind: ChannelKind) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(fixtures().join(kind.name())) else { return Vec::new() };
    let mut names: Vec<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A sample.
pub fn fixture(kind: ChannelKind, name: &str) -> Value {
    let path = fixtures().join(kind.name()).join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"))).unwrap()
}

/// A channel's signature vectors.
pub fn vectors(kind: ChannelKind) -> Vec<Value> {
    let path = fixtures().join(format!("signatures-{}.json", kind.name()));
    let Ok(text) = std::fs::read(path) else { return Vec::new() };
    let file: Value = serde_json::from_slice(&text).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

/// A POST with these headers.
pub fn post(kind: ChannelKind, headers: &[(&str, &str)], body: &Bytes, verifier: &Verifier) -> Result<Received, Refusal> {
    post_at(NOW, kind, headers, body, verifier)
}

/// A POST with these headers, at another time.
pub fn post_at(
    now: Timestamp,
    kind: ChannelKind,
    headers: &[(&str, &str)],
    body: &Bytes,
    verifier: &Verifier,
) -> Result<Received, Refusal> {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        map.append(name, value.parse().unwrap());
    }
    let request = WebhookRequest { is_post: true, query: "", headers: &map, body, now, fetched: None };
    channel(kind).receive(&request, verifier)
}

/// An event in one line.
pub fn summary(inbound: &Inbound) -> String {
    let Inbound { platform_id, qualifier, at, contact, opens_window, from_ad, body, context } = inbound;
    let ContactInfo { handles: named, name, username, via, via_for } = contact;
    let mut line = what(body);
    if !platform_id.is_empty() || !qualifier.is_empty() {
        line += &format!(" | {platform_id} {qualifier}");
    }
    line += &format!(" | {} | {}", at.as_micros() / 1_000, handles(named));
    for said in [name, username, via].into_iter().flatten() {
        line += &format!(" | {said}");
    }
    for (said, word) in [(*opens_window, "opens"), (*from_ad, "by ad"), (via_for.is_some(), "for a while")] {
        if said {
            line += &format!(" | {word}");
        }
    }
    if !context.is_empty() {
        line += &format!(" | {}", object(context));
    }
    line
}

fn handles(handles: &[Handle]) -> String {
    handles.iter().map(|handle| handle.expose()).collect::<Vec<_>>().join(" ")
}

fn object(map: &Map<String, Value>) -> String {
    Value::Object(map.clone()).to_string()
}

fn what(body: &InboundBody) -> String {
    let reply = |reply: &Option<String>| reply.as_ref().map_or(String::new(), |id| format!(" to {id}"));
    match body {
        InboundBody::Message { content, reply_to } => format!("message {}{}", content.members(), reply(reply_to)),
        InboundBody::Echo { content, reply_to } => format!("echo {}{}", content.members(), reply(reply_to)),
        InboundBody::Status(update) => format!(
            "status {} {} {} reason={} detail={:?} callback={:?} {}",
            update.message,
            update.status.name(),
            update.platform_status,
            update.reason.map_or("none", |reason| reason.name()),
            update.detail,
            update.callback,
            object(&update.extra)
        ),
        InboundBody::Watermark { status, upto, messages } => {
            format!("watermark {} {} {}", status.name(), upto.as_micros() / 1_000, messages.join(" "))
        }
        InboundBody::Reaction { target, emoji } => format!("reaction {} on {target}", emoji.as_deref().unwrap_or("none")),
        InboundBody::Edit { target, content } => format!("edit {target} {}", content.members()),
        InboundBody::Delete { targets } => format!("delete {}", targets.join(" ")),
        InboundBody::Preference { opted_out, category } => format!("preference opted_out={opted_out} {category}"),
        InboundBody::Rekeyed { handles: new } => format!("rekeyed {}", handles(new)),
        InboundBody::Reachable(reachable) => format!("reachable {reachable}"),
        InboundBody::Account { event, data } => format!("{} {}", event.name(), object(data)),
        InboundBody::Resource { event, name, data } => format!("{} {name} {data}", event.name()),
        InboundBody::Platform { kind, raw } => format!("platform {kind} {raw}"),
    }
}

/// What became of a refresh, in one word.
pub fn kind_of(refresh: &Refresh) -> &'static str {
    match refresh {
        Refresh::Done(_) => "done",
        Refresh::Later { .. } => "later",
        Refresh::Lost { .. } => "lost",
        Refresh::Unable { .. } => "unable",
        Refresh::Broken { .. } => "broken",
    }
}
