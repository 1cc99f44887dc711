//! Keeping the tokens alive: the pure part. The access token lasts a day; the refresh token lasts long and **changes when it is
//! used**, so that losing an answer may lose the account.
//!
//! What a worker must do around it:
//!
//! * one refresh of an account at a time, in all processes (a lease): two of them with one refresh token end with a dead one;
//! * both new tokens durable, in one change of the account's row, before either is used;
//! * after [`Refresh::Lost`] the same refresh token once more, and only then [`Refresh::Broken`];
//! * after [`Refresh::Broken`] the account is broken: a person has to authorise again;
//! * an account that a send found broken (`Reason::Auth`) is refreshed at once, and active again when that succeeds.

use std::time::Duration;

use serde_json::{Value, json};

use super::outcome::Answer;
use super::send::{post, url};
use super::wire::text;
use crate::channels::{ChannelSettings, Unsendable};
use crate::clock::Timestamp;
use crate::directory::Account;
use crate::exchange::{HttpRequest, HttpResponse};
use crate::seal::Secret;

/// How long an access token lasts, where the platform does not say.
pub const ACCESS_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// How long before its end it is refreshed: room for a platform that is away for some hours.
pub const REFRESH_BEFORE: Duration = Duration::from_secs(6 * 3_600);
/// Longest life that is believed.
const LIFE_MAX: Duration = Duration::from_secs(400 * 24 * 3_600);

/// The tokens of an account, new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The access token.
    pub access: Secret,
    /// How long it lasts.
    pub access_until: Timestamp,
    /// The next refresh token; none: the one that was used stays good.
    pub refresh: Option<Secret>,
    /// How long that lasts, when the platform says so.
    pub refresh_until: Option<Timestamp>,
}

/// What became of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// New tokens: to be made durable before they are used.
    Done(Tokens),
    /// Not done, and the refresh token is as good as before.
    Later {
        /// How long to wait, when the platform says so.
        after: Option<Duration>,
        /// The platform's code.
        detail: String,
    },
    /// Perhaps done: the refresh token may be used up.
    Lost {
        /// What was seen.
        detail: String,
    },
    /// Never again with this refresh token.
    Broken {
        /// The platform's code, or what does not fit.
        detail: String,
    },
}

/// When an account's access token is to be refreshed: a while before its end, counted from when it was set.
pub fn refresh_at(account: &Account) -> Timestamp {
    let set_at = account.secrets.get("access_token").map_or(Timestamp::ZERO, |pair| pair.set_at);
    set_at.plus(ACCESS_LIFE - REFRESH_BEFORE)
}

/// The request for new tokens.
///
/// # Errors
/// The account lacks the app's key, its secret or a refresh token.
pub fn refresh_request(account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
    let (key, secret, token) = (account.public("client_key"), account.secret("client_secret"), account.secret("refresh_token"));
    if key.is_empty() || secret.is_empty() || token.is_empty() {
        return Err(Unsendable("the account needs client_key, client_secret and refresh_token".into()));
    }
    let body = json!({"client_id": key, "client_secret": secret, "grant_type": "refresh_token", "refresh_token": token});
    Ok(post(url(account, settings, "tt_user/oauth2/refresh_token"), None, &body))
}

/// What the answer to [`refresh_request`] says.
pub fn read_refresh(account: &Account, response: &HttpResponse, now: Timestamp) -> Refresh {
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
    let until = |name: &str| {
        let seconds = data.get(name).and_then(Value::as_u64).filter(|seconds| *seconds > 0)?;
        Some(now.plus(Duration::from_secs(seconds).min(LIFE_MAX)))
    };
    Refresh::Done(Tokens {
        access: Secret::new(access),
        access_until: until("expires_in").unwrap_or(now.plus(ACCESS_LIFE)),
        refresh: text(data, "refresh_token").map(Secret::new),
        refresh_until: until("refresh_token_expires_in"),
    })
}
