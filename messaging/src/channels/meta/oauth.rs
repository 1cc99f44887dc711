//! Keeping tokens alive: Meta's facts. A long-lived token lasts 60 days, and is exchanged for a new one while it is good; the old one
//! stays good until its own end, so that a lost answer costs nothing. A token that is refused already cannot be exchanged.
//!
//! * Instagram login: `GET /refresh_access_token`, once the token is 24 hours old. With Facebook login the token is a page's.
//! * Messenger: `GET /{version}/oauth/access_token` with `fb_exchange_token`, which needs `app_id`. A page's token mostly has no end;
//!   nobody knows before it is asked, so it is exchanged once when it is given, and again only when the answer named an end.

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::outcome::error_of;
use crate::channels::{ACCESS_TOKEN, ChannelSettings, Life, Refresh, Tokens, Unsendable, end_of};
use crate::clock::Timestamp;
use crate::directory::Account;
use crate::exchange::{HttpRequest, HttpResponse};
use crate::seal::Secret;

/// How long before its end a token is exchanged: ten days in which the platform or we may be away.
const REFRESH_BEFORE: Duration = Duration::from_secs(10 * 24 * 3_600);
/// A younger token of Instagram is not refreshed; an hour more, for clocks that differ.
const AGE_MIN: Duration = Duration::from_secs(25 * 3_600);
/// The host of accounts with Facebook login.
const FACEBOOK_HOST: &str = "graph.facebook.com";

/// What a value of a query may hold as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The life of an Instagram account's token.
pub(in crate::channels) fn instagram_life(account: &Account) -> Life {
    if is_of_facebook(account) {
        return Life::ENDLESS;
    }
    let of_age = account.token_set_at().plus(AGE_MIN);
    // A person's token may be of any age: the first refresh, as early as it can be, says when it ends.
    life(account, of_age, |end| end.minus(REFRESH_BEFORE).max(of_age))
}

/// The life of a page's token.
pub(in crate::channels) fn page_life(account: &Account) -> Life {
    if account.public("app_id").is_empty() {
        return Life::ENDLESS;
    }
    life(account, account.token_set_at(), |end| end.minus(REFRESH_BEFORE))
}

fn life(account: &Account, first: Timestamp, before: impl Fn(Timestamp) -> Timestamp) -> Life {
    let (refresh_at, access_until) = match account.known() {
        Some(known) => (known.access_until.map(before), known.access_until),
        None => (Some(first), None),
    };
    Life { refresh_at, access_until, ends_at: access_until, revives: false }
}

fn is_of_facebook(account: &Account) -> bool {
    let base = account.row.api_base.as_deref().unwrap_or_default();
    base.split_once("://").is_some_and(|(_, rest)| rest.split(['/', ':']).next() == Some(FACEBOOK_HOST))
}

pub(in crate::channels) fn instagram_request(account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
    if is_of_facebook(account) {
        return Err(Unsendable("a token of Facebook login is not refreshed".into()));
    }
    let token = token(account)?;
    let query = [("grant_type", "ig_refresh_token"), (ACCESS_TOKEN, token)];
    Ok(get(format!("{}/refresh_access_token", settings.base(account)), &query))
}

pub(in crate::channels) fn page_request(account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
    let (id, secret, token) = (account.public("app_id"), account.secret("app_secret"), token(account)?);
    if id.is_empty() || secret.is_empty() {
        return Err(Unsendable("the account needs app_id and app_secret".into()));
    }
    let query = [("grant_type", "fb_exchange_token"), ("client_id", id), ("client_secret", secret), ("fb_exchange_token", token)];
    Ok(get(format!("{}/{}/oauth/access_token", settings.base(account), settings.api_version), &query))
}

fn token(account: &Account) -> Result<&str, Unsendable> {
    Some(account.secret(ACCESS_TOKEN)).filter(|token| !token.is_empty()).ok_or_else(|| Unsendable("the account has no access token".into()))
}

/// The platform takes these members in the query only. The URL is a secret by that: it is never logged.
fn get(address: String, query: &[(&str, &str)]) -> HttpRequest {
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY))).collect();
    HttpRequest { method: http::Method::GET, url: format!("{address}?{}", query.join("&")), headers: Vec::new(), body: Bytes::new() }
}

/// What the answer says.
pub(in crate::channels) fn refreshed(response: &HttpResponse, now: Timestamp) -> Refresh {
    if let Some((code, detail)) = error_of(response) {
        return match code {
            102 | 190 => Refresh::Broken { detail },
            1 | 2 | 4 | 17 | 32 | 613 => Refresh::Later { after: response.retry_after, detail },
            _ if response.status == 429 || response.status >= 500 => Refresh::Later { after: response.retry_after, detail },
            _ => Refresh::Unable { detail },
        };
    }
    let detail = format!("http {} without a token", response.status);
    if !(200..300).contains(&response.status) {
        // Said by whoever stands in front of the platform: nothing is used up by it.
        return Refresh::Later { after: response.retry_after, detail };
    }
    let Ok(data) = serde_json::from_slice::<Map<String, Value>>(&response.body) else { return Refresh::Later { after: None, detail } };
    let token = data.get(ACCESS_TOKEN).and_then(Value::as_str).filter(|token| crate::channels::check_secret(token).is_ok());
    match token {
        Some(token) => Refresh::Done(Tokens {
            access: Secret::new(token),
            access_until: end_of(&data, "expires_in", now),
            refresh: None,
            refresh_until: None,
        }),
        None => Refresh::Later { after: None, detail },
    }
}

/// Whether an answer says that the token is refused.
pub(in crate::channels) fn refuses(response: &HttpResponse) -> bool {
    error_of(response).map_or(response.status == 401, |(code, _)| matches!(code, 102 | 190))
}
