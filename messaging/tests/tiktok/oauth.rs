use std::time::Duration;

use bytes::Bytes;
use messaging::channels::{Life, Refresh};
use messaging::clock::Timestamp;
use messaging::directory::{Account, AccountState, CredentialRow};
use messaging::exchange::HttpResponse;
use serde_json::{Value, json};

use crate::support::{NOW, settings};
use crate::{BUSINESS, KIND, SECRET, account, support, tiktok};

const HOUR: Duration = Duration::from_secs(3_600);

fn answer(status: u16, body: &str) -> HttpResponse {
    HttpResponse { status, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() }
}

fn read(status: u16, body: &str) -> Refresh {
    tiktok().refreshed(&account(), &answer(status, body), NOW)
}

fn good(data: Value) -> String {
    json!({"code": 0, "message": "OK", "request_id": "1", "data": data}).to_string()
}

#[test]
fn the_request() {
    let request = tiktok().refresh_request(&account(), &settings(KIND)).unwrap();
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("POST", "https://business-api.tiktok.com/open_api/v1.3/tt_user/oauth2/refresh_token/")
    );
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let expected =
        json!({"client_id": "7000000000000000001", "client_secret": SECRET, "grant_type": "refresh_token", "refresh_token": "rft.token"});
    assert_eq!(body, expected);
    assert!(!request.url.contains("rft") && request.headers.iter().all(|(name, _)| name != "access-token"));
    assert!(tiktok().refresh_request(&support::account(KIND, &[("client_key", "1"), ("client_secret", "s")]), &settings(KIND)).is_err());
}

/// An account whose access token was set now, in a state, and what is known of it.
fn account_in(state: AccountState, known: Option<&dyn Fn(&mut CredentialRow)>) -> Account {
    let mut account = account();
    account.row.state = state;
    account.secrets.get_mut("access_token").unwrap().set_at = NOW;
    account.credential = known.map(|edit| {
        let mut row = CredentialRow::unknown(account.row.tenant, account.row.id);
        row.of = NOW;
        edit(&mut row);
        row
    });
    account
}

#[test]
fn it_is_due_before_the_token_ends_and_at_once_when_it_is_refused() {
    let (day, year) = (NOW.plus(24 * HOUR), NOW.plus(365 * 24 * HOUR));
    let refreshed = |row: &mut CredentialRow| (row.access_until, row.refresh_until) = (Some(day), Some(year));
    let given_up = |row: &mut CredentialRow| row.given_up = true;
    let of_another = |row: &mut CredentialRow| (row.of, row.given_up) = (NOW.plus(HOUR), true);
    let early = Some(NOW.plus(18 * HOUR));
    use AccountState::{Active, Broken, Paused};
    /// The state, what is known, when a refresh is due, by when a person must come.
    type Case<'a> = (AccountState, Option<&'a dyn Fn(&mut CredentialRow)>, Option<Timestamp>, Option<Timestamp>);
    let cases: [Case<'_>; 8] = [
        (Active, None, early, None),
        (Paused, None, early, None),
        (Active, Some(&refreshed), early, Some(year)),
        (Broken, None, Some(Timestamp::ZERO), None),
        // Its token came a moment ago, so its age is not the trouble.
        (Broken, Some(&refreshed), Some(NOW.plus(HOUR)), Some(year)),
        (Broken, Some(&given_up), None, None),
        (Active, Some(&given_up), None, None),
        (Active, Some(&of_another), early, None),
    ];
    for (number, (state, known, due, ends_at)) in cases.into_iter().enumerate() {
        let account = account_in(state, known);
        let life = tiktok().life(&account);
        assert_eq!((life.due(&account), life.ends_at), (due, ends_at), "{number}");
        assert_eq!(life, Life { refresh_at: early, access_until: Some(day), ends_at, revives: true }, "{number}");
    }
}

#[test]
fn new_tokens() {
    let data = json!({"access_token": "act.2", "expires_in": 86_400, "refresh_token": "rft.2", "refresh_token_expires_in": 31_536_000, "open_id": BUSINESS, "scope": "a,b"});
    let Refresh::Done(tokens) = read(200, &good(data)) else { panic!() };
    assert_eq!((tokens.access.expose(), tokens.refresh.as_ref().unwrap().expose()), ("act.2", "rft.2"));
    assert_eq!(tokens.access_until, Some(NOW.plus(24 * HOUR)));
    assert_eq!(tokens.refresh_until, Some(NOW.plus(Duration::from_secs(31_536_000))));
    assert!(!format!("{tokens:?}").contains("act.2") && !format!("{tokens:?}").contains("rft.2"));
    let Refresh::Done(tokens) = read(200, &good(json!({"access_token": "act.3"}))) else { panic!() };
    assert_eq!((tokens.refresh, tokens.refresh_until, tokens.access_until), (None, None, Some(NOW.plus(24 * HOUR))));
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
        assert_eq!(support::kind_of(&refresh), expected, "{status} {body}");
        assert!(!format!("{refresh:?}").contains("act.2"));
    }
}

#[test]
fn which_answers_refuse_the_token() {
    let code = |code: i64| json!({"code": code, "message": "x"}).to_string();
    let cases = [
        (200, code(40_105), true),
        (200, code(40_102), true),
        (200, code(40_001), false),
        (200, code(0), false),
        (401, "x".into(), true),
        (502, "x".into(), false),
    ];
    for (status, body, refused) in cases {
        assert_eq!(tiktok().refuses_credential(&answer(status, &body)), refused, "{status} {body}");
    }
}
