use std::time::Duration;

use bytes::Bytes;
use messaging::channels::tiktok::oauth::{ACCESS_LIFE, REFRESH_BEFORE, Refresh, read_refresh, refresh_at, refresh_request};
use messaging::clock::Timestamp;
use messaging::exchange::HttpResponse;
use serde_json::{Value, json};

use crate::support::{NOW, settings};
use crate::{BUSINESS, KIND, SECRET, account, support};

fn read(status: u16, body: &str) -> Refresh {
    let response = HttpResponse { status, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() };
    read_refresh(&account(), &response, NOW)
}

fn good(data: Value) -> String {
    json!({"code": 0, "message": "OK", "request_id": "1", "data": data}).to_string()
}

#[test]
fn the_request() {
    let request = refresh_request(&account(), &settings(KIND)).unwrap();
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("POST", "https://business-api.tiktok.com/open_api/v1.3/tt_user/oauth2/refresh_token/")
    );
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let expected =
        json!({"client_id": "7000000000000000001", "client_secret": SECRET, "grant_type": "refresh_token", "refresh_token": "rft.token"});
    assert_eq!(body, expected);
    assert!(!request.url.contains("rft") && request.headers.iter().all(|(name, _)| name != "access-token"));
    assert!(refresh_request(&support::account(KIND, &[("client_key", "1"), ("client_secret", "s")]), &settings(KIND)).is_err());
}

#[test]
fn it_is_due_before_the_token_ends() {
    assert_eq!(refresh_at(&account()), Timestamp::ZERO.plus(ACCESS_LIFE - REFRESH_BEFORE), "the test's token was set at the epoch");
    assert!(REFRESH_BEFORE >= Duration::from_secs(3_600));
}

#[test]
fn new_tokens() {
    let data = json!({"access_token": "act.2", "expires_in": 86_400, "refresh_token": "rft.2", "refresh_token_expires_in": 31_536_000, "open_id": BUSINESS, "scope": "a,b"});
    let Refresh::Done(tokens) = read(200, &good(data)) else { panic!() };
    assert_eq!((tokens.access.expose(), tokens.refresh.as_ref().unwrap().expose()), ("act.2", "rft.2"));
    assert_eq!(tokens.access_until, NOW.plus(Duration::from_secs(86_400)));
    assert_eq!(tokens.refresh_until, Some(NOW.plus(Duration::from_secs(31_536_000))));
    assert!(!format!("{tokens:?}").contains("act.2") && !format!("{tokens:?}").contains("rft.2"));
    let Refresh::Done(tokens) = read(200, &good(json!({"access_token": "act.3"}))) else { panic!() };
    assert_eq!((tokens.refresh, tokens.refresh_until, tokens.access_until), (None, None, NOW.plus(ACCESS_LIFE)));
}

#[test]
fn what_else_may_come() {
    let code = |code: i64| json!({"code": code, "message": "x"}).to_string();
    let other = good(json!({"access_token": "act.2", "refresh_token": "rft.2", "open_id": "_000SOMEBODYELSE"}));
    let cases = [
        (200, code(40_105), "broken"),
        (200, code(40_002), "broken"),
        (200, code(40_100), "later"),
        (200, code(51_065), "lost"),
        (200, code(1), "lost"),
        (200, good(json!({})), "lost"),
        (200, other, "broken"),
        (200, "<html>".to_owned(), "lost"),
        (502, String::new(), "lost"),
        (429, String::new(), "later"),
        (401, String::new(), "broken"),
    ];
    for (status, body, expected) in cases {
        let refresh = read(status, &body);
        let kind = match &refresh {
            Refresh::Done(_) => "done",
            Refresh::Later { .. } => "later",
            Refresh::Lost { .. } => "lost",
            Refresh::Broken { .. } => "broken",
        };
        assert_eq!(kind, expected, "{status} {body}");
        assert!(!format!("{refresh:?}").contains("act.2"));
    }
}
