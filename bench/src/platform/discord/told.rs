//! What the platform tells: messages, reactions, interactions.

use bytes::Bytes;
use messaging::clock::Timestamp;
use serde_json::{Value, json};

use crate::platform::Sim;

/// A time as the platform writes it.
pub(super) fn time(at: Timestamp) -> String {
    json!(at).as_str().map(|text| text.replace('Z', "+00:00")).unwrap_or_default()
}

/// A person.
pub(super) fn person(user: &str) -> Value {
    json!({ "id": user, "username": format!("user_{user}"), "discriminator": "0", "global_name": format!("User {user}"), "bot": false })
}

/// The bot as a user.
pub(super) fn bot(sim: &Sim) -> Value {
    json!({ "id": sim.options.account, "username": "simulated-shop", "discriminator": "0", "global_name": null, "bot": true })
}

fn by(sim: &Sim, id: &str, channel: &str, author: Value, text: &str) -> Value {
    json!({
        "id": id, "channel_id": channel, "channel_type": 1, "type": 0, "author": author, "content": text, "timestamp": time(sim.now()),
        "edited_timestamp": null, "tts": false, "mention_everyone": false, "mentions": [], "mention_roles": [], "attachments": [],
        "embeds": [], "components": [], "pinned": false, "flags": 0,
    })
}

/// A message of a person in a direct conversation.
pub(super) fn message(sim: &Sim, id: &str, channel: &str, user: &str, text: &str) -> Value {
    by(sim, id, channel, person(user), text)
}

/// A message of the bot, with what it was made of.
pub(super) fn own(sim: &Sim, id: &str, channel: &str, made_of: &Value) -> Value {
    let mut message = by(sim, id, channel, bot(sim), made_of["content"].as_str().unwrap_or_default());
    for name in ["embeds", "components", "nonce", "message_reference"] {
        if let Some(value) = made_of.get(name) {
            message[name] = value.clone();
        }
    }
    message
}

/// A reaction in a direct conversation.
pub(super) fn reaction(user: &str, channel: &str, message: &str, emoji: &str) -> Value {
    json!({ "user_id": user, "channel_id": channel, "message_id": message, "emoji": { "id": null, "name": emoji }, "burst": false, "type": 0 })
}

/// An interaction in a direct conversation, without its data.
pub(super) fn interaction(sim: &Sim, id: &str, token: &str, kind: u64, channel: &str, user: &str) -> Value {
    json!({
        "version": 1, "type": kind, "id": id, "application_id": sim.options.account, "token": token, "channel_id": channel,
        "channel": { "id": channel, "type": 1 }, "user": person(user), "locale": "en-US", "app_permissions": "442368",
        "entitlements": [], "authorizing_integration_owners": { "0": "0" }, "context": 1, "attachment_size_limit": 10_485_760,
    })
}

/// The interaction that only asks whether the address answers.
pub(super) fn ping(sim: &Sim, id: &str) -> Bytes {
    let ping = json!({ "version": 1, "type": 1, "id": id, "application_id": sim.options.account, "token": "sim.ping", "entitlements": [] });
    Bytes::from(ping.to_string())
}
