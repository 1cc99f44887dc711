use std::time::Duration;

use bytes::Bytes;
use messaging::channels::{Hold, Outgoing};
use messaging::content::Handle;
use messaging::exchange::HttpResponse;
use messaging::limit::BudgetScope;
use messaging::outcome::{Reason, Throttled, Verdict};
use serde_json::json;

use crate::discord;
use crate::sends::text;
use crate::support::NOW;

/// By which way a send went.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Channel,
    Token,
    Opening,
}

fn answered(way: Way, status: u16, headers: &[(&str, &str)], body: &str) -> (Verdict, Vec<Hold>) {
    let to = if way == Way::Opening { Handle::new("user", "30") } else { Handle::new("channel", "10") };
    let via = (way == Way::Token).then_some("token");
    let content = text();
    let send = Outgoing { message: "msg_1", to: &to, content: &content, reply_to: None, via, tag: None, now: NOW };
    let mut response = HttpResponse { status, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() };
    for (name, value) in headers {
        response.headers.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        if *name == "retry-after" {
            response.retry_after = value.parse().ok().map(Duration::from_secs);
        }
    }
    (discord().outcome(&send, &response), discord().holds(&send, &response))
}

fn error(code: u64, message: &str) -> String {
    json!({"code": code, "message": message}).to_string()
}

/// A verdict in a word.
fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Sent { platform_id, .. } => format!("sent {}", platform_id.as_deref().unwrap_or("-")),
        Verdict::Moved { to } => format!("moved {}", to.expose()),
        Verdict::Refused { reason, .. } => format!("refused {}", reason.name()),
        Verdict::RetryLater { reason, hold, after, .. } => {
            format!("later {} {hold:?} {:?}", reason.name(), after.map(|after| after.as_millis()))
        }
        Verdict::Unknown { reason, .. } => format!("unknown {}", reason.name()),
    }
}

#[test]
fn every_documented_answer() {
    use Way::{Channel, Opening, Token};
    let e = |code| error(code, "words");
    let limited = |global: bool| json!({"message": "You are being rate limited.", "retry_after": 1.5, "global": global}).to_string();
    let cases: Vec<(Way, u16, String, &str)> = vec![
        (Channel, 200, r#"{"id":"5"}"#.into(), "sent 5"),
        (Token, 200, r#"{"id":"5"}"#.into(), "sent 5"),
        (Channel, 204, String::new(), "sent -"),
        (Opening, 200, r#"{"id":"77","type":1}"#.into(), "moved channel:77"),
        (Channel, 200, "<html>".into(), "unknown server_error"),
        (Channel, 200, r#"{"id":"x"}"#.into(), "unknown server_error"),
        (Opening, 200, "{}".into(), "later server_error Conversation None"),
        (Channel, 403, e(50_007), "refused recipient_invalid"),
        (Channel, 403, e(50_278), "refused recipient_invalid"),
        (Opening, 403, e(50_278), "refused recipient_invalid"),
        (Channel, 404, e(10_003), "refused recipient_invalid"),
        (Opening, 400, e(10_013), "refused recipient_invalid"),
        (Channel, 403, e(50_001), "refused recipient_invalid"),
        (Channel, 403, e(50_013), "refused recipient_invalid"),
        (Channel, 404, e(10_008), "refused rejected"),
        (Token, 404, e(10_015), "refused rejected"),
        (Token, 404, e(10_062), "refused rejected"),
        (Token, 401, e(50_027), "refused rejected"),
        (Token, 400, e(40_094), "refused quota_exceeded"),
        (Token, 400, e(40_060), "sent -"),
        (Channel, 413, e(40_005), "refused rejected"),
        (Channel, 400, e(50_035), "refused rejected"),
        (Channel, 400, e(200_000), "refused rejected"),
        (Channel, 400, e(240_000), "refused rejected"),
        (Opening, 400, e(40_003), "later rate_limited Conversation Some(60000)"),
        (Channel, 429, e(20_016), "later rate_limited Conversation None"),
        (Channel, 429, e(20_028), "later rate_limited Conversation None"),
        (Channel, 503, e(130_000), "later server_error Conversation None"),
        (Channel, 401, e(0), "refused auth"),
        (Opening, 401, e(0), "refused auth"),
        (Channel, 401, String::new(), "refused auth"),
        (Channel, 429, limited(false), "later rate_limited Conversation Some(1500)"),
        (Channel, 429, limited(true), "later rate_limited App Some(1500)"),
        (Channel, 429, "error code: 1015".into(), "later rate_limited App Some(600000)"),
        (Channel, 403, "<html>".into(), "later rate_limited App Some(600000)"),
        (Channel, 404, "<html>".into(), "refused rejected"),
        (Channel, 302, String::new(), "refused rejected"),
        (Channel, 500, e(0), "unknown server_error"),
        (Channel, 502, "<html>".into(), "unknown server_error"),
        (Token, 502, "<html>".into(), "unknown server_error"),
        (Opening, 502, "<html>".into(), "later server_error Conversation None"),
        (Opening, 500, e(0), "later server_error Conversation None"),
    ];
    for (way, status, body, expected) in cases {
        assert_eq!(word(&answered(way, status, &[], &body).0), expected, "{way:?} {status} {body}");
    }
}

#[test]
fn what_the_headers_say_of_budgets() {
    const REMAINING: &str = "x-ratelimit-remaining";
    const RESET: &str = "x-ratelimit-reset-after";
    let hold = |scope, millis| vec![Hold { scope, wait: Duration::from_millis(millis) }];
    let limited = |after: f64| json!({"message": "m", "retry_after": after, "global": false}).to_string();
    let sent = r#"{"id":"5"}"#.to_owned();
    type Headers = &'static [(&'static str, &'static str)];
    let cases: Vec<(u16, Headers, String, Vec<Hold>)> = vec![
        (200, &[(REMAINING, "0"), (RESET, "4.25")], sent.clone(), hold(BudgetScope::Route, 4_250)),
        (200, &[(REMAINING, "1"), (RESET, "4.25")], sent.clone(), vec![]),
        (200, &[(REMAINING, "0")], sent.clone(), vec![]),
        (200, &[(REMAINING, "0"), (RESET, "0")], sent.clone(), vec![]),
        (200, &[(REMAINING, "0"), (RESET, "-3")], sent.clone(), vec![]),
        (200, &[(REMAINING, "0"), (RESET, "NaN")], sent.clone(), vec![]),
        (200, &[(REMAINING, "0"), (RESET, "1e300")], sent, vec![]),
        (400, &[(REMAINING, "0"), (RESET, "2")], error(50_035, "Invalid Form Body"), hold(BudgetScope::Route, 2_000)),
        (400, &[], error(40_003, "too fast"), hold(BudgetScope::Route, 60_000)),
        (429, &[("x-ratelimit-scope", "user")], limited(64.57), hold(BudgetScope::Route, 64_570)),
        (429, &[("x-ratelimit-scope", "shared")], limited(1.0), hold(BudgetScope::Route, 1_000)),
        (429, &[("x-ratelimit-scope", "global")], limited(1.0), hold(BudgetScope::App, 1_000)),
        (429, &[("x-ratelimit-global", "true")], limited(1.0), hold(BudgetScope::App, 1_000)),
        (429, &[("retry-after", "7")], json!({"message": "m"}).to_string(), hold(BudgetScope::Route, 7_000)),
        (429, &[("retry-after", "7")], "banned".to_owned(), hold(BudgetScope::App, 7_000)),
        (429, &[], limited(1e9), hold(BudgetScope::Route, 3_600_000)),
    ];
    for (status, headers, body, expected) in cases {
        assert_eq!(answered(Way::Channel, status, headers, &body).1, expected, "{status} {headers:?} {body}");
    }
}

#[test]
fn a_slow_channel_waits_as_long_as_it_is_told() {
    for code in [20_016, 20_028] {
        let body = json!({"code": code, "message": "slow", "retry_after": 12.5}).to_string();
        let (verdict, _) = answered(Way::Channel, 429, &[], &body);
        let Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::Conversation, after, .. } = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(after, Some(Duration::from_millis(12_500)));
    }
}

#[test]
fn details_hold_nothing_of_persons() {
    let message = "Cannot reach 1200000000000000030 at https://a.example/x or ada@example.com now";
    let Verdict::Refused { detail, .. } = answered(Way::Channel, 400, &[], &error(50_035, message)).0 else { panic!() };
    assert_eq!(detail, "400 50035 Cannot reach … at … or … now");
    let Verdict::Refused { detail, .. } = answered(Way::Channel, 400, &[], &error(50_035, &"é ".repeat(5_000))).0 else { panic!() };
    assert_eq!(detail.chars().count(), 160);
}
