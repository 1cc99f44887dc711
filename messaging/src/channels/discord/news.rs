//! Webhook events: somebody added the application, or took it away; and what else is told there. They have no ids: their bytes are.

use serde_json::Value;

use super::parse::inbound;
use super::wire::{Object, malformed, object, owned, text, time};
use crate::channels::{Inbound, InboundBody, Malformed};
use crate::content::Handle;

/// The person took the application away: no consent is left.
const DEAUTHORIZED: &str = "APPLICATION_DEAUTHORIZED";

pub(super) fn parse(mut members: Object, handle: Handle) -> Result<Inbound, Malformed> {
    let Some(Value::Object(event)) = members.remove("event") else { return Err(malformed("event is not an object")) };
    let kind = text(&event, "type").unwrap_or("unknown").to_owned();
    let at = time(&event, "timestamp");
    let user = object(&event, "data").and_then(|data| object(data, "user"));
    let (name, username) = user.map_or((None, None), names);
    let is_person = handle != Handle::account();
    let body = if kind == DEAUTHORIZED && is_person {
        InboundBody::Preference { opted_out: true, category: kind }
    } else {
        InboundBody::Platform { kind, raw: Value::Object(event) }
    };
    let mut said = inbound(handle, String::new(), at, body);
    said.contact.name = name;
    said.contact.username = username;
    Ok(said)
}

/// The name that a person chose to show, and the user name.
pub(super) fn names(user: &Object) -> (Option<String>, Option<String>) {
    let username = owned(user, "username");
    (owned(user, "global_name").or_else(|| username.clone()), username)
}
