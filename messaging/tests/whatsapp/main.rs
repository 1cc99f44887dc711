//! The WhatsApp channel, seen from outside through the `Channel` trait.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use messaging::channels::{self, Channel, ChannelKind, ContactInfo, Inbound, InboundBody, Piece, Received, Refusal, Verifier};
use messaging::clock::Timestamp;
use messaging::content::Handle;
use messaging::directory::SecretPair;
use messaging::exchange::WebhookRequest;
use messaging::seal::Secret;
use serde_json::{Map, Value};
use sha2::Sha256;

mod damage;
mod fixtures;
mod outcomes;
mod sends;
mod signatures;
mod splits;

pub const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

pub fn whatsapp() -> &'static dyn Channel {
    channels::channel(ChannelKind::Whatsapp)
}

pub fn verifier_of(app_secrets: &[&str], verify_token: &str) -> Verifier {
    let mut secrets = BTreeMap::new();
    if let Some((first, rest)) = app_secrets.split_first() {
        let mut pair = SecretPair::new(Secret::new(*first), Timestamp::ZERO);
        for secret in rest {
            pair.rotate(Secret::new(*secret), Timestamp::ZERO);
        }
        secrets.insert("app_secret".to_owned(), pair);
    }
    secrets.insert("verify_token".to_owned(), SecretPair::new(Secret::new(verify_token), Timestamp::ZERO));
    whatsapp().verifier(&std::collections::BTreeMap::new(), &secrets)
}

pub fn verifier() -> Verifier {
    verifier_of(&[APP_SECRET], "token")
}

pub fn sign(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(APP_SECRET.as_bytes()).unwrap();
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

pub fn post(headers: &[(&'static str, &str)], body: &Bytes, verifier: &Verifier) -> Result<Received, Refusal> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    whatsapp().receive(&WebhookRequest { is_post: true, query: "", headers: &map, body, now: Timestamp::ZERO, fetched: None }, verifier)
}

/// The pieces of a body that is signed well.
pub fn pieces(body: impl Into<Bytes>) -> Vec<Piece> {
    let body = body.into();
    match post(&[("x-hub-signature-256", &sign(&body))], &body, &verifier()) {
        Ok(Received::Pieces(pieces)) => pieces,
        other => panic!("{other:?}"),
    }
}

pub fn fixture_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/whatsapp")
}

/// A fixture as compact JSON.
pub fn fixture(name: &str) -> Value {
    let text = std::fs::read_to_string(fixture_dir().join(format!("{name}.json"))).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap()
}

pub fn fixture_names() -> Vec<String> {
    let files = std::fs::read_dir(fixture_dir()).unwrap();
    let mut names: Vec<String> = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

pub fn parse(piece: &Piece) -> Inbound {
    whatsapp().parse(piece.body()).unwrap_or_else(|error| panic!("{error}: {:?}", piece.body()))
}

fn handles(list: &[Handle]) -> String {
    list.iter().map(Handle::expose).collect::<Vec<_>>().join(" ")
}

fn object(map: &Map<String, Value>) -> String {
    Value::Object(map.clone()).to_string()
}

/// Everything that an event says, in a line.
pub fn summary(inbound: &Inbound) -> String {
    let Inbound { platform_id, qualifier, at, contact, opens_window, from_ad: _, body, context } = inbound;
    let ContactInfo { handles: named, name, username, via, via_for: _ } = contact;
    let mut line = what(body);
    if !platform_id.is_empty() || !qualifier.is_empty() {
        line += &format!(" | {platform_id} {qualifier}");
    }
    line += &format!(" | {} | {}", at.as_secs(), handles(named));
    for said in [name, username, via].into_iter().flatten() {
        line += &format!(" | {said}");
    }
    if *opens_window {
        line += " | opens";
    }
    if !context.is_empty() {
        line += &format!(" | {}", object(context));
    }
    line.replace("wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQzQTAwMDAwMDAwMDAwMDAwMDA", "wamid~").replace("13491208655302741918", "1349~")
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
        InboundBody::Reaction { target, emoji } => format!("reaction {emoji:?} on {target}"),
        InboundBody::Edit { target, content } => format!("edit {target} {}", content.members()),
        InboundBody::Delete { targets } => format!("delete {targets:?}"),
        InboundBody::Preference { opted_out, category } => format!("preference opted_out={opted_out} {category}"),
        InboundBody::Rekeyed { handles: new } => format!("rekeyed {}", handles(new)),
        InboundBody::Reachable(reachable) => format!("reachable {reachable}"),
        InboundBody::Account { event, data } => format!("{} {}", event.name(), object(data)),
        InboundBody::Platform { kind, raw } => format!("platform {kind} {raw}"),
        InboundBody::Watermark { .. } | InboundBody::Resource { .. } => "whatsapp has none".to_owned(),
    }
}
