//! What the platform's answers mean.

use std::time::Duration;

use bytes::Bytes;
use messaging::channels::Outgoing;
use messaging::content::{Content, Handle, Text};
use messaging::exchange::HttpResponse;
use messaging::outcome::{Reason, Throttled, Verdict};
use serde_json::{Value, json};

use super::telegram;

fn outcome(status: u16, retry_after: Option<u64>, body: &str, via: Option<&str>) -> Verdict {
    let content = Content::Text(Text { body: "Hi".to_owned(), preview_url: None });
    let to = Handle::chat("4711");
    let send =
        Outgoing { message: "msg_x", to: &to, content: &content, reply_to: None, via, tag: None, now: messaging::clock::Timestamp::ZERO };
    let response = HttpResponse {
        status,
        retry_after: retry_after.map(Duration::from_secs),
        body: Bytes::from(body.to_owned()),
        ..HttpResponse::default()
    };
    telegram().outcome(&send, &response)
}

fn error(code: u16, description: &str, parameters: Value) -> String {
    json!({ "ok": false, "error_code": code, "description": description, "parameters": parameters }).to_string()
}

fn sent(platform_id: Option<&str>) -> Verdict {
    Verdict::Sent { platform_id: platform_id.map(str::to_owned), handles: Vec::new() }
}

#[test]
fn taken() {
    let message = r#"{"ok":true,"result":{"message_id":9,"chat":{"id":4711},"date":1,"text":"Hi"}}"#;
    for (body, via, expected) in [
        (message, None, sent(Some("4711:9"))),
        (message, Some("bc"), sent(Some("4711:9:bc"))),
        (r#"{"ok":true,"result":{"message_id":9}}"#, None, sent(Some("4711:9"))),
        (r#"{"ok":true,"result":{"message_id":9,"chat":{"id":-7}}}"#, None, sent(Some("-7:9"))),
        (r#"{"ok":true,"result":true}"#, None, sent(None)),
        (r#"{"ok":true}"#, None, sent(None)),
    ] {
        assert_eq!(outcome(200, None, body, via), expected, "{body}");
    }
}

#[test]
fn refused_for_good() {
    use Reason::{AccountDisabled, Auth, RecipientInvalid, Rejected, WindowClosed};
    for (code, description, reason) in [
        (400, "Bad Request: chat not found", RecipientInvalid),
        (400, "Bad Request: PEER_ID_INVALID", RecipientInvalid),
        (400, "Bad Request: message is too long", Rejected),
        (400, "Bad Request: wrong file identifier/HTTP URL specified", Rejected),
        (400, "Bad Request: BUSINESS_PEER_USAGE_MISSING", WindowClosed),
        (400, "Bad Request: BUSINESS_PEER_INVALID", Rejected),
        (400, "", Rejected),
        (401, "Unauthorized", Auth),
        (404, "Not Found", Auth),
        (403, "Forbidden: bot was blocked by the user", RecipientInvalid),
        (403, "Forbidden: user is deactivated", RecipientInvalid),
        (403, "Forbidden: bot can't initiate conversation with a user", RecipientInvalid),
        (403, "Forbidden: bot can't send messages to bots", RecipientInvalid),
        (403, "Forbidden: bot was kicked from the supergroup chat", RecipientInvalid),
        (403, "Forbidden: bot is not a member of the channel chat", RecipientInvalid),
        (403, "Forbidden: BUSINESS_PEER_USAGE_MISSING", WindowClosed),
        (403, "Forbidden: peer outside 24h", WindowClosed),
        (403, "Forbidden: not enough rights to send messages on behalf of the business account", Rejected),
        (403, "Forbidden: not enough rights to send text messages to the chat", Rejected),
        (409, "Conflict: terminated by other getUpdates request", AccountDisabled),
        (413, "Request Entity Too Large", Rejected),
        (418, "teapot", Rejected),
    ] {
        let verdict = outcome(code, None, &error(code, description, json!({})), None);
        let detail = format!("{code} {description}").trim_end().to_owned();
        assert_eq!(verdict, Verdict::Refused { reason, detail });
    }
}

#[test]
fn a_group_that_moved() {
    let body =
        error(400, "Bad Request: group chat was upgraded to a supergroup chat", json!({ "migrate_to_chat_id": -1_001_234_567_890_i64 }));
    assert_eq!(outcome(400, None, &body, None), Verdict::Moved { to: Handle::group("-1001234567890") });
}

#[test]
fn slowed_down() {
    let words = "Too Many Requests: retry after 35";
    for (body, header, seconds) in [
        (error(429, words, json!({ "retry_after": 7 })), Some(9), Some(7)),
        (error(429, words, json!({})), Some(9), Some(35)),
        (error(429, "Too Many Requests", json!({})), Some(9), Some(9)),
        (error(429, "Too Many Requests", json!({})), None, None),
        (error(429, words, json!({ "retry_after": -1 })), None, None),
        (error(429, words, json!({ "retry_after": u64::MAX })), None, Some(86_400)),
        ("<html>".to_owned(), Some(9), Some(9)),
    ] {
        let Verdict::RetryLater { reason, hold, after, .. } = outcome(429, header, &body, None) else { panic!("{body}") };
        assert_eq!((reason, hold), (Reason::RateLimited, Throttled::Conversation));
        assert_eq!(after.map(|after| after.as_secs()), seconds, "{body}");
    }
}

/// What the platform said itself may be tried again; what it may have taken may not.
#[test]
fn failed() {
    for (status, body, again) in [
        (500, error(500, "Internal Server Error", json!({})), true),
        (500, error(500, "Internal Server Error: RPC_SEND_FAIL", json!({})), true),
        (503, error(503, "Service Unavailable", json!({})), true),
        (500, error(500, "Internal Server Error: restart", json!({})), false),
        (500, error(500, "Internal Server Error: Request aborted", json!({})), false),
        (502, error(502, "Bad Gateway", json!({})), false),
        (504, error(504, "Gateway Timeout", json!({})), false),
        (500, "<html>500</html>".to_owned(), false),
        (502, String::new(), false),
        (503, "{}".to_owned(), false),
        (500, r#"{"ok":true,"result":true}"#.to_owned(), false),
        (200, String::new(), false),
        (200, "<html>".to_owned(), false),
        (200, "{}".to_owned(), false),
        (200, r#"{"ok":false}"#.to_owned(), false),
        (200, r#"{"ok":true,"result":{"message_id":9"#.to_owned(), false),
    ] {
        match outcome(status, None, &body, None) {
            Verdict::RetryLater { reason: Reason::ServerError, hold: Throttled::Conversation, .. } => assert!(again, "{status} {body}"),
            Verdict::Unknown { reason: Reason::ServerError, .. } => assert!(!again, "{status} {body}"),
            other => panic!("{status} {body}: {other:?}"),
        }
    }
}

/// An answer of something between us and the platform: the platform has not seen the request.
#[test]
fn not_the_platforms_answer() {
    for (status, reason) in
        [(301, Reason::Rejected), (400, Reason::Rejected), (401, Reason::Auth), (404, Reason::Auth), (409, Reason::AccountDisabled)]
    {
        let verdict = outcome(status, None, "<html>", None);
        assert_eq!(verdict, Verdict::Refused { reason, detail: format!("http {status}, no JSON") });
    }
}

#[test]
fn details_hold_nothing_personal() {
    let description = r#"Bad Request: inline keyboard button URL "https://x.example/ada" of @ada 16505551234 "Ada Lovelace" is invalid"#;
    let Verdict::Refused { detail, .. } = outcome(400, None, &error(400, description, json!({})), None) else { panic!("refused") };
    assert_eq!(detail, "400 Bad Request: inline keyboard button URL … of … … … … is invalid");
    let Verdict::Refused { detail, .. } = outcome(400, None, &error(400, &"x ".repeat(500), json!({})), None) else { panic!("refused") };
    assert_eq!(detail.chars().count(), 160);
}
