use std::time::Duration;

use bytes::Bytes;
use messaging::channels::{Hold, Outgoing};
use messaging::content::{Content, Handle, Media, Receipt, Text};
use messaging::exchange::HttpResponse;
use messaging::limit::BudgetScope;
use messaging::outcome::{Reason, Throttled, Verdict};
use serde_json::json;

use crate::support::NOW;
use crate::tiktok;

fn text() -> Content {
    Content::Text(Text { body: "hi".into(), preview_url: None })
}

fn answered(content: &Content, status: u16, body: &str) -> (Verdict, Vec<Hold>) {
    let to = Handle::new("conversation", "C");
    let send = Outgoing { message: "msg_1", to: &to, content, reply_to: None, via: None, tag: None, now: NOW };
    let response = HttpResponse { status, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() };
    (tiktok().outcome(&send, &response), tiktok().holds(&send, &response))
}

fn error(code: i64, message: &str) -> String {
    json!({"code": code, "message": message, "request_id": "2026112110000001", "data": {}}).to_string()
}

#[test]
fn every_code_whatever_the_http_status() {
    use Reason::*;
    let refused: &[(Reason, &[i64], &str)] = &[
        (Auth, &[40_102, 40_104, 40_105], "Access token is incorrect"),
        (WindowClosed, &[40_064], "blocked due to messaging restrictions"),
        (QuotaExceeded, &[40_064], "You are sending messages too fast. Take a rest."),
        (Rejected, &[40_001, 40_002, 40_908, 40_999], "no"),
        (RecipientInvalid, &[40_007], "not found"),
    ];
    for status in [200, 400, 401, 429, 500] {
        for (reason, codes, message) in refused {
            for code in *codes {
                let expected = Verdict::Refused { reason: *reason, detail: format!("{code} (request 2026112110000001)") };
                assert_eq!(answered(&text(), status, &error(*code, message)), (expected, Vec::new()), "{status}");
            }
        }
        for code in [50_000, 50_002, 51_065] {
            let (verdict, holds) = answered(&text(), status, &error(code, "System error"));
            let Verdict::RetryLater { reason: ServerError, hold: Throttled::Conversation, after: None, .. } = verdict else {
                panic!("{verdict:?}")
            };
            assert!(holds.is_empty());
        }
    }
    let picture = Content::Image(Media { id: Some("1".into()), ..Media::default() });
    let Verdict::Refused { reason, .. } = answered(&picture, 200, &error(40_007, "no")).0 else { panic!() };
    assert_eq!(reason, Rejected, "the picture may be what does not exist");
}

#[test]
fn too_frequent_holds_the_whole_app() {
    // NOW is 10:00 UTC: fourteen hours of the day are left.
    let cases = [
        ("Requests are too frequent", 1, None),
        ("exceeds the QPM limit", 300, Some(300)),
        ("Too many requests per minute", 300, Some(300)),
        ("App QPD limit reached", 14 * 3_600, Some(14 * 3_600)),
    ];
    for code in [40_100, 40_016, 40_133] {
        for (message, held, after) in cases {
            let (verdict, holds) = answered(&text(), 200, &error(code, message));
            let expected = Verdict::RetryLater {
                reason: Reason::RateLimited,
                hold: Throttled::App,
                after: after.map(Duration::from_secs),
                detail: format!("{code} (request 2026112110000001)"),
            };
            assert_eq!(verdict, expected, "{message}");
            assert_eq!(holds, [Hold { scope: BudgetScope::App, wait: Duration::from_secs(held) }], "{message}");
        }
    }
}

#[test]
fn what_was_taken() {
    let ok = |id: &str| json!({"code": 0, "message": "OK", "data": {"message": {"message_id": id}}}).to_string();
    let sent = |id: Option<&str>| Verdict::Sent { platform_id: id.map(str::to_owned), handles: Vec::new() };
    let typing = Content::Typing(Receipt { message: None, platform_id: None });
    assert_eq!(answered(&text(), 200, &ok("M1")).0, sent(Some("M1")));
    assert_eq!(answered(&typing, 200, &ok("")).0, sent(None), "an action leaves no message");
    assert_eq!(answered(&text(), 200, r#"{"code":0,"message":"OK","data":{}}"#).0, sent(None), "taken all the same");
    assert_eq!(answered(&text(), 200, r#"{"code":"0"}"#).0, sent(None));
}

#[test]
fn answers_of_others() {
    let kind = |status, body: &str| match answered(&text(), status, body).0 {
        Verdict::Sent { .. } => "sent",
        Verdict::RetryLater { .. } => "later",
        Verdict::Refused { reason: Reason::Auth, .. } => "auth",
        Verdict::Refused { .. } => "refused",
        Verdict::Moved { .. } => "moved",
        Verdict::Unknown { .. } => "unknown",
    };
    let cases = [
        (200, "<html>ok?", "unknown"),
        (200, "{}", "unknown"),
        (200, r#"{"code":20001,"message":"partial"}"#, "unknown"),
        (200, r#"{"code":1.5}"#, "unknown"),
        (500, r#"{"code":0}"#, "unknown"),
        (502, "", "unknown"),
        (503, "", "unknown"),
        (301, "", "refused"),
        (403, "", "refused"),
        (404, "", "refused"),
        (401, "", "auth"),
        (408, "", "later"),
        (429, "", "later"),
    ];
    for (status, body, expected) in cases {
        assert_eq!(kind(status, body), expected, "{status} {body}");
    }
}

#[test]
fn details_name_nobody() {
    let (verdict, _) = answered(&text(), 200, &error(40_002, "recipient ada@example.com +15550100 is wrong"));
    assert!(!format!("{verdict:?}").contains("ada") && !format!("{verdict:?}").contains("1555"));
}
