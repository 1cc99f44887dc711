use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use messaging::channels::{ChannelKind, Hold, Outgoing, channel};
use messaging::content::{Content, Handle, Receipt, Text};
use messaging::exchange::HttpResponse;
use messaging::limit::BudgetScope;
use messaging::outcome::{Reason, Throttled, Verdict};
use serde_json::json;

use crate::support::NOW;

fn judged(content: &Content, status: u16, headers: HeaderMap, body: &str) -> Verdict {
    let to = Handle::new("psid", "42");
    let send = Outgoing { message: "msg_1", to: &to, content, reply_to: None, via: None, tag: None, now: NOW };
    let response = HttpResponse { status, headers, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() };
    channel(ChannelKind::Messenger).outcome(&send, &response)
}

fn text() -> Content {
    Content::Text(Text { body: "hi".into(), preview_url: None })
}

fn error(code: i64, subcode: i64) -> Verdict {
    let body = json!({"error": {"message": "a name may stand here", "code": code, "error_subcode": subcode, "fbtrace_id": "A"}});
    judged(&text(), if code == 190 { 401 } else { 400 }, HeaderMap::new(), &body.to_string())
}

#[test]
fn each_documented_error() {
    use Reason as R;
    let refused = [
        (10, 2018278, R::WindowClosed),
        (10, 2018065, R::WindowClosed),
        (10, 2534022, R::WindowClosed),
        (10, 2018108, R::RecipientInvalid),
        (551, 1545041, R::RecipientInvalid),
        (551, 0, R::RecipientInvalid),
        (100, 2018001, R::RecipientInvalid),
        (100, 2534014, R::RecipientInvalid),
        (100, 2534029, R::RecipientInvalid),
        (200, 2534041, R::RecipientInvalid),
        (100, 2534122, R::RecipientInvalid),
        (100, 2018109, R::Rejected),
        (100, 0, R::Rejected),
        (2534025, 0, R::Rejected),
        (100, 2534025, R::Rejected),
        (10, 1893063, R::AccountDisabled),
        (190, 0, R::Auth),
        (200, 0, R::Auth),
        (10, 0, R::Auth),
    ];
    for (code, subcode, wanted) in refused {
        let verdict = error(code, subcode);
        let Verdict::Refused { reason, detail } = &verdict else { panic!("{code}/{subcode}: {verdict:?}") };
        assert_eq!(*reason, wanted, "{code}/{subcode}");
        assert!(!detail.contains("name"), "the platform's text may quote a person: {detail}");
    }
    for (code, subcode) in [(4, 0), (4, 2018022), (17, 0), (32, 0), (613, 0), (613, 2534040)] {
        let verdict = error(code, subcode);
        let Verdict::RetryLater { reason: R::RateLimited, hold: Throttled::Account, after: Some(_), .. } = verdict else {
            panic!("{code}: {verdict:?}")
        };
    }
    for code in [1, 2, 1200] {
        assert!(matches!(error(code, 0), Verdict::RetryLater { reason: R::ServerError, hold: Throttled::Conversation, .. }), "{code}");
    }
    assert!(matches!(error(1, 1357046), Verdict::Unknown { .. }), "it may have been sent all the same");
    assert!(matches!(error(987_654, 0), Verdict::Refused { reason: R::Rejected, .. }));
}

#[test]
fn what_is_not_known_is_never_tried_again_blindly() {
    let unknown = [(200, "<html>"), (200, "{}"), (200, r#"{"recipient_id":"42"}"#), (500, "<html>"), (503, r#"{"error":{"code":987654}}"#)];
    for (status, body) in unknown {
        let verdict = judged(&text(), status, HeaderMap::new(), body);
        assert!(matches!(verdict, Verdict::Unknown { .. }), "{status} {body}: {verdict:?}");
    }
    let verdict = judged(&text(), 401, HeaderMap::new(), "nothing");
    assert!(matches!(verdict, Verdict::Refused { reason: Reason::Auth, .. }));
}

#[test]
fn what_was_taken() {
    let sent = judged(&text(), 200, HeaderMap::new(), r#"{"recipient_id":"42","message_id":"m_1"}"#);
    assert_eq!(sent, Verdict::Sent { platform_id: Some("m_1".into()), handles: Vec::new() });
    let typing = Content::Typing(Receipt { message: None, platform_id: None });
    let done = judged(&typing, 200, HeaderMap::new(), r#"{"recipient_id":"42"}"#);
    assert_eq!(done, Verdict::Sent { platform_id: None, handles: Vec::new() });
}

#[test]
fn usage_headers_hold_the_account_back() {
    let headers = |name: &'static str, value: &str| HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]);
    let business = |minutes: u64| {
        headers(
            "x-business-use-case-usage",
            &json!({"1": [{"type": "messenger", "call_count": 100, "estimated_time_to_regain_access": minutes}]}).to_string(),
        )
    };
    let app = |share: u64| headers("x-app-usage", &json!({"call_count": share, "total_time": 1, "total_cputime": 2}).to_string());
    let hold = |seconds: u64| vec![Hold { scope: BudgetScope::Account, wait: Duration::from_secs(seconds) }];
    let cases = [
        (HeaderMap::new(), vec![]),
        (business(0), vec![]),
        (business(7), hold(420)),
        (business(10_000), hold(3_600)),
        (app(94), vec![]),
        (app(96), hold(60)),
        (headers("x-app-usage", "nonsense"), vec![]),
    ];
    let (content, to) = (text(), Handle::new("psid", "42"));
    let send = Outgoing { message: "msg_1", to: &to, content: &content, reply_to: None, via: None, tag: None, now: NOW };
    for (headers, wanted) in cases {
        let response = HttpResponse { status: 200, headers: headers.clone(), ..HttpResponse::default() };
        assert_eq!(channel(ChannelKind::Instagram).holds(&send, &response), wanted, "{headers:?}");
    }
    let verdict = judged(&text(), 400, business(7), r#"{"error":{"code":4}}"#);
    assert!(matches!(verdict, Verdict::RetryLater { after: Some(after), .. } if after == Duration::from_secs(420)), "{verdict:?}");
}
