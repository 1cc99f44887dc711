//! The webhooks that TikTok posts: JSON in a string in JSON.

use bytes::Bytes;
use messaging::clock::Timestamp;
use serde_json::{Value, json};

use super::CLIENT_KEY;
use crate::platform::Sim;

/// An event with its content.
pub(super) fn envelope(sim: &Sim, event: &str, content: &Value) -> Bytes {
    let body = json!({
        "client_key": CLIENT_KEY, "event": event, "create_time": sim.now().as_secs(), "user_openid": sim.options.account,
        "content": content.to_string(),
    });
    Bytes::from(body.to_string())
}

/// What every event of a conversation says.
fn between(sim: &Sim, conversation: &str, at: Timestamp, from_person: bool) -> Value {
    let person = json!({"id": format!("user-of-{conversation}"), "role": "personal_account"});
    let business = json!({"id": sim.options.account, "role": "business_account"});
    let (from, to) = if from_person { ("test_customer", "example_shop") } else { ("example_shop", "test_customer") };
    let unique = person["id"].clone();
    let (from_user, to_user) = if from_person { (person, business) } else { (business, person) };
    json!({
        "from": from, "to": to, "from_user": from_user, "to_user": to_user, "unique_identifier": unique,
        "conversation_id": conversation, "timestamp": at.as_millis(),
    })
}

fn with(mut content: Value, more: Value) -> Value {
    if let (Some(content), Value::Object(more)) = (content.as_object_mut(), more) {
        content.extend(more);
    }
    content
}

/// Something that a person did.
pub(super) fn from_person(sim: &Sim, event: &str, conversation: &str, at: Timestamp, message: Option<&str>, said: Value) -> Bytes {
    let mut content = with(between(sim, conversation, at, true), said);
    if let Some(message) = message {
        content["message_id"] = json!(message);
        content["is_follower"] = json!(true);
        content["message_tag"] = json!({"source": "APP"});
    }
    envelope(sim, event, &content)
}

/// A message of the business comes back.
pub(super) fn echo(sim: &Sim, conversation: &str, message: &str, at: Timestamp, said: Value) -> Bytes {
    let own = json!({"message_id": message, "message_tag": {"source": "API"}});
    envelope(sim, "im_send_msg", &with(with(between(sim, conversation, at, false), own), said))
}

/// The person read everything up to now.
pub(super) fn read(sim: &Sim, conversation: &str, upto: Timestamp) -> Bytes {
    from_person(sim, "im_mark_read_msg", conversation, upto, None, json!({"read": {"last_read_timestamp": upto.as_millis()}}))
}

/// Somebody in Europe wrote: to whom and when, no more.
pub(super) fn european(sim: &Sim) -> Bytes {
    let business = json!({"id": sim.options.account, "role": "business_account"});
    envelope(sim, "im_receive_msg_eu", &json!({"to": "example_shop", "to_user": business, "timestamp": sim.now().as_millis()}))
}
