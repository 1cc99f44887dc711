//! Keeping the tokens alive: TikTok's facts. The access token lasts a day; the refresh token lasts long and **changes when it is
//! used**, so that losing an answer may lose the account. What the worker owes them stands in `channels::credential`.

use std::time::Duration;

use serde_json::json;

use super::outcome::Answer;
use super::send::{post, url};
use super::wire::text;
use crate::channels::{ChannelSettings, Life, REFRESH_TOKEN, Refresh, Tokens, Unsendable, end_of};
use crate::clock::Timestamp;
use crate::directory::Account;
use crate::exchange::{HttpRequest, HttpResponse};
use crate::seal::Secret;

/// How long an access token lasts, where the platform does not say.
const ACCESS_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// How long before its end it is refreshed: room for a platform that is away for some hours.
const REFRESH_BEFORE: Duration = Duration::from_secs(6 * 3_600);

pub(super) fn life(account: &Account) -> Life {
    let known = account.known();
    let access_until = known.and_then(|known| known.access_until).unwrap_or(account.token_set_at().plus(ACCESS_LIFE));
    Life {
        refresh_at: Some(access_until.minus(REFRESH_BEFORE)),
        access_until: Some(access_until),
        ends_at: known.and_then(|known| known.refresh_until),
        revives: true,
    }
}

pub(super) fn request(account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
    let (key, secret, token) = (account.public("client_key"), account.secret("client_secret"), account.secret(REFRESH_TOKEN));
    if key.is_empty() || secret.is_empty() || token.is_empty() {
        return Err(Unsendable("the account needs client_key, client_secret and refresh_token".into()));
    }
    let body = json!({"client_id": key, "client_secret": secret, "grant_type": "refresh_token", "refresh_token": token});
    Ok(post(url(account, settings, "tt_user/oauth2/refresh_token"), None, &body))
}

pub(super) fn read(account: &Account, response: &HttpResponse, now: Timestamp) -> Refresh {
    let Some(answer) = Answer::read(response) else {
        let detail = format!("http {} without a code", response.status);
        return match response.status {
            408 | 429 => Refresh::Later { after: response.retry_after, detail },
            300..=499 => Refresh::Broken { detail },
            _ => Refresh::Lost { detail },
        };
    };
    let detail = answer.detail();
    match answer.code {
        0 => tokens(account, &answer, now),
        40_016 | 40_100 | 40_133 => Refresh::Later { after: answer.hold(now).or(response.retry_after), detail },
        // It failed, and nobody says how far it came.
        50_000..=59_999 => Refresh::Lost { detail },
        40_000..=49_999 => Refresh::Broken { detail },
        _ => Refresh::Lost { detail },
    }
}

fn tokens(account: &Account, answer: &Answer, now: Timestamp) -> Refresh {
    let data = &answer.data;
    let whose = text(data, "open_id").or_else(|| text(data, "creator_id"));
    if whose.is_some_and(|id| id != account.public("business_id")) {
        // Another account's token must never write to this one's people.
        return Refresh::Broken { detail: "the tokens are of another account".into() };
    }
    let Some(access) = text(data, "access_token") else {
        return Refresh::Lost { detail: "an answer without an access token".into() };
    };
    Refresh::Done(Tokens {
        access: Secret::new(access),
        access_until: Some(end_of(data, "expires_in", now).unwrap_or(now.plus(ACCESS_LIFE))),
        refresh: text(data, "refresh_token").map(Secret::new),
        refresh_until: end_of(data, "refresh_token_expires_in", now),
    })
}
