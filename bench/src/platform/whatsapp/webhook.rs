//! The webhooks that Meta posts.

use bytes::Bytes;
use messaging::clock::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{CustomerMessage, digits};
use crate::platform::PersonsFile;

/// The business account that the simulator says it belongs to.
const BUSINESS_ACCOUNT: &str = "102290129340398";
/// The number that the simulator shows.
const DISPLAY_NUMBER: &str = "15550783881";

/// A status of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It left the platform.
    Sent,
    /// It reached the device.
    Delivered,
    /// It was read.
    Read,
    /// It failed with this code.
    Failed(u32),
}

/// The names of the statuses, lowest first.
pub const STATUS_NAMES: [&str; 4] = ["sent", "delivered", "read", "failed"];

impl Status {
    /// The platform's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => STATUS_NAMES[0],
            Self::Delivered => STATUS_NAMES[1],
            Self::Read => STATUS_NAMES[2],
            Self::Failed(_) => STATUS_NAMES[3],
        }
    }
}

/// Wraps the members of a `value` into an event of the field `messages`.
fn envelope(account: &str, mut value: Map<String, Value>) -> Bytes {
    value.insert("messaging_product".to_owned(), json!("whatsapp"));
    value.insert("metadata".to_owned(), json!({ "display_phone_number": DISPLAY_NUMBER, "phone_number_id": account }));
    let event = json!({
        "object": "whatsapp_business_account",
        "entry": [{ "id": BUSINESS_ACCOUNT, "changes": [{ "value": value, "field": "messages" }] }],
    });
    Bytes::from(as_meta_writes(&event.to_string()))
}

/// Meta escapes everything outside ASCII as lowercase `\u00e4`, and the slash; the signature covers those bytes.
fn as_meta_writes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut units = [0u16; 2];
    for c in text.chars() {
        match c {
            '/' => out.push_str("\\/"),
            c if c.is_ascii() => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

/// A customer's file.
pub(super) fn file(account: &str, wamid: &str, from: &str, id: &str, file: &PersonsFile, at: Timestamp) -> Bytes {
    let sha256 = data_encoding::BASE64.encode(&Sha256::digest(&file.bytes));
    let mut part = json!({ "id": id, "mime_type": file.mime_type, "sha256": sha256 });
    if let Some(name) = &file.filename {
        part["filename"] = json!(name);
    }
    let mut body = json!({ "from": from, "id": wamid, "timestamp": at.as_secs().to_string(), "type": file.kind });
    body[file.kind] = part;
    let contact = json!({ "profile": { "name": "Test Customer" }, "wa_id": from });
    envelope(account, Map::from_iter([("contacts".to_owned(), json!([contact])), ("messages".to_owned(), json!([body]))]))
}

/// A customer's message.
pub(super) fn message(account: &str, id: &str, message: &CustomerMessage, at: Timestamp) -> Bytes {
    let from = digits(&message.from);
    let mut body = json!({
        "from": from, "id": id, "timestamp": at.as_secs().to_string(), "type": "text", "text": { "body": message.text },
    });
    if let Some(reply_to) = &message.reply_to {
        body["context"] = json!({ "from": DISPLAY_NUMBER, "id": reply_to });
    }
    let contact = json!({ "profile": { "name": message.name }, "wa_id": from });
    envelope(account, Map::from_iter([("contacts".to_owned(), json!([contact])), ("messages".to_owned(), json!([body]))]))
}

/// A status. As with the real platform, `failed` comes without contacts and pricing.
pub(super) fn status(account: &str, wamid: &str, to: &str, status: Status, at: Timestamp, callback: Option<&str>) -> Bytes {
    let mut body = json!({
        "id": wamid, "status": status.name(), "timestamp": at.as_secs().to_string(), "recipient_id": to,
    });
    if let Some(callback) = callback {
        body["biz_opaque_callback_data"] = json!(callback);
    }
    let mut value = Map::new();
    match status {
        Status::Failed(code) => {
            let title = super::graph::title(code);
            body["errors"] = json!([{ "code": code, "title": title, "message": title, "error_data": { "details": title } }]);
        }
        Status::Sent | Status::Delivered => {
            body["pricing"] = json!({ "billable": true, "pricing_model": "PMP", "category": "service", "type": "regular" });
            value.insert("contacts".to_owned(), json!([{ "profile": { "name": "Test Customer" }, "wa_id": to }]));
        }
        Status::Read => {
            value.insert("contacts".to_owned(), json!([{ "profile": { "name": "Test Customer" }, "wa_id": to }]));
        }
    }
    value.insert("statuses".to_owned(), json!([body]));
    envelope(account, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_meta_does_and_reads_back() {
        let written = CustomerMessage::text("+1 555 0100", "grün / 👍 \"x\"");
        let body = message("42", "wamid.1", &written, Timestamp::from_secs(1_795_168_800));
        assert!(body.is_ascii());
        let value: Value = serde_json::from_slice(&body).unwrap();
        let inner = &value["entry"][0]["changes"][0]["value"];
        assert_eq!(inner["messages"][0]["text"]["body"], "grün / 👍 \"x\"");
        assert_eq!(inner["messages"][0]["from"], "15550100");
        assert_eq!(inner["messages"][0]["timestamp"], "1795168800");
        assert_eq!(inner["metadata"]["phone_number_id"], "42");
    }
}
