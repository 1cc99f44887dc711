use std::time::Duration;

use bytes::Bytes;
use messaging::channels::{ChannelKind, Life, Refresh, channel};
use messaging::clock::Timestamp;
use messaging::directory::{Account, AccountState, CredentialRow};
use messaging::exchange::HttpResponse;

use crate::support::{NOW, kind_of, settings};
use crate::{SECRET, account, support};

const DAY: Duration = Duration::from_secs(24 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);
use ChannelKind::{Instagram, Messenger};

/// An account whose token was set now; Messenger's with its app's id.
fn connected(kind: ChannelKind, api_base: Option<&str>) -> Account {
    let mut account = match kind {
        Messenger => support::account(kind, &[("page_id", "1"), ("app_id", "77"), ("access_token", "EAA/+="), ("app_secret", SECRET)]),
        _ => support::account(kind, &[("instagram_id", "1"), ("access_token", "IG/+="), ("app_secret", SECRET)]),
    };
    account.secrets.get_mut("access_token").unwrap().set_at = NOW;
    account.row.api_base = api_base.map(str::to_owned);
    account
}

#[test]
fn the_requests() {
    let cases = [
        (Instagram, None, Some("https://graph.instagram.com/refresh_access_token?grant_type=ig_refresh_token&access_token=IG%2F%2B%3D")),
        (Instagram, Some("https://graph.facebook.com"), None),
        (
            Messenger,
            None,
            Some(
                "https://graph.facebook.com/v26.0/oauth/access_token?grant_type=fb_exchange_token&client_id=77&client_secret=test-app-secret&fb_exchange_token=EAA%2F%2B%3D",
            ),
        ),
    ];
    for (kind, base, url) in cases {
        let request = channel(kind).refresh_request(&connected(kind, base), &settings(kind)).ok();
        assert_eq!(request.as_ref().map(|request| request.url.as_str()), url, "{}", kind.name());
        assert!(request.is_none_or(|request| request.method == http::Method::GET && !format!("{request:?}").contains("IG")));
    }
    assert!(channel(Messenger).refresh_request(&account(Messenger), &settings(Messenger)).is_err(), "without the app's id");
}

#[test]
fn when_it_is_due() {
    let at = |after: Duration| Some(NOW.plus(after));
    let ends = |account: &mut Account, after: Option<Duration>, given_up: bool| {
        let mut row = CredentialRow::unknown(account.row.tenant, account.row.id);
        (row.of, row.access_until, row.given_up) = (NOW, after.map(|after| NOW.plus(after)), given_up);
        account.credential = Some(row);
    };
    let facebook = Some("https://graph.facebook.com:443/");
    /// Where, what is known (its end, given up), when due, when it ends.
    type Case = (ChannelKind, Option<&'static str>, Option<(Option<Duration>, bool)>, Option<Timestamp>, Option<Timestamp>);
    let cases: Vec<Case> = vec![
        // A token of any age: as early as the platform takes it.
        (Instagram, None, None, at(25 * HOUR), None),
        (Instagram, None, Some((Some(60 * DAY), false)), at(50 * DAY), at(60 * DAY)),
        (Instagram, None, Some((Some(5 * DAY), false)), at(25 * HOUR), at(5 * DAY)),
        (Instagram, None, Some((Some(60 * DAY), true)), None, at(60 * DAY)),
        (Instagram, facebook, None, None, None),
        (Messenger, None, None, at(Duration::ZERO), None),
        (Messenger, None, Some((Some(60 * DAY), false)), at(50 * DAY), at(60 * DAY)),
        // The platform named no end.
        (Messenger, None, Some((None, false)), None, None),
    ];
    for (number, (kind, base, known, due, ends_at)) in cases.into_iter().enumerate() {
        let mut account = connected(kind, base);
        if let Some((after, given_up)) = known {
            ends(&mut account, after, given_up);
        }
        let life = channel(kind).life(&account);
        assert_eq!((life.due(&account), life.ends_at), (due, ends_at), "{number}");
        account.row.state = AccountState::Broken;
        assert_eq!(life.due(&account), None, "{number}: a token that is refused cannot be exchanged");
    }
    assert_eq!(channel(Messenger).life(&account(Messenger)), Life::ENDLESS, "without the app's id");
}

#[test]
fn what_the_answers_mean() {
    let error = |code: i64, subcode: i64| {
        format!(r#"{{"error":{{"message":"x","type":"OAuthException","code":{code},"error_subcode":{subcode}}}}}"#)
    };
    let cases = [
        (200, r#"{"access_token":"IGnew","token_type":"bearer","expires_in":5183944}"#.to_owned(), "done"),
        (200, r#"{"access_token":"IG new","expires_in":5183944}"#.to_owned(), "later"),
        (200, "{}".to_owned(), "later"),
        (200, "<html>".to_owned(), "later"),
        (400, error(190, 463), "broken"),
        (401, error(190, 0), "broken"),
        (400, error(102, 0), "broken"),
        (400, error(4, 0), "later"),
        (500, error(2, 0), "later"),
        (503, error(999, 0), "later"),
        (400, error(100, 0), "unable"),
        (400, error(101, 0), "unable"),
        (429, String::new(), "later"),
        (502, String::new(), "later"),
    ];
    for (status, body, expected) in cases {
        let response = HttpResponse { status, body: Bytes::from(body.clone()), ..HttpResponse::default() };
        for kind in [Instagram, Messenger] {
            let refresh = channel(kind).refreshed(&connected(kind, None), &response, NOW);
            assert_eq!(kind_of(&refresh), expected, "{status} {body}");
            if let Refresh::Done(tokens) = refresh {
                assert_eq!((tokens.access.expose(), tokens.refresh, tokens.refresh_until), ("IGnew", None, None));
                assert_eq!(tokens.access_until, Some(NOW.plus(Duration::from_secs(5_183_944))));
            }
            let refuses = channel(kind).refuses_credential(&response);
            assert_eq!(refuses, expected == "broken", "{status} {body}");
        }
    }
    let endless = HttpResponse { status: 200, body: Bytes::from_static(br#"{"access_token":"EAAnew"}"#), ..HttpResponse::default() };
    let Refresh::Done(tokens) = channel(Messenger).refreshed(&connected(Messenger, None), &endless, NOW) else { panic!() };
    assert_eq!(tokens.access_until, None);
}
