//! How an account's credential stays alive: what a channel says of its life, and what became of a refresh.
//!
//! The facts stand in the channels' folders; the worker that calls is the gateway's. What it owes them:
//!
//! * one refresh of an account at a time, in all processes (a lease): two of them with one refresh token end with a dead one;
//! * new tokens durable, in one change of the directory, before either is used and before anything else is done;
//! * after [`Refresh::Lost`] the same token again: the platform says whether it is used up;
//! * after [`Refresh::Broken`] the account is broken: a person has to connect it again.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::directory::{Account, AccountState};
use crate::seal::Secret;

/// The member that calls carry.
pub const ACCESS_TOKEN: &str = "access_token";
/// The member that gets new tokens, where there is one.
pub const REFRESH_TOKEN: &str = "refresh_token";

/// An account that is refused although its token was just refreshed is not refreshed again before this: the token is not its trouble.
const REVIVED_AGAIN_AFTER: Duration = Duration::from_secs(3_600);
/// Longest life of a token that is believed.
const LIFE_MAX: Duration = Duration::from_secs(400 * 24 * 3_600);

/// The life of an account's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// From when on it is to be refreshed; none: it cannot be, or need not.
    pub refresh_at: Option<Timestamp>,
    /// When what calls carry ends; none: never, or nobody knows.
    pub access_until: Option<Timestamp>,
    /// By when a person must connect the account again unless a refresh moves it; none: never, or nobody knows.
    pub ends_at: Option<Timestamp>,
    /// Whether a refresh helps when the platform refuses the credential already.
    pub revives: bool,
}

impl Life {
    /// A credential that does not end, as far as anybody knows.
    pub const ENDLESS: Self = Self { refresh_at: None, access_until: None, ends_at: None, revives: false };

    /// When a refresh is due; none: not by itself.
    pub fn due(&self, account: &Account) -> Option<Timestamp> {
        let known = account.known();
        if known.is_some_and(|known| known.given_up) {
            return None;
        }
        match account.row.state {
            // Whoever's token was refreshed a moment ago and is refused again has another trouble than its age.
            AccountState::Broken if self.revives && known.is_some() => Some(account.token_set_at().plus(REVIVED_AGAIN_AFTER)),
            AccountState::Broken if self.revives => self.refresh_at.map(|_| Timestamp::ZERO),
            AccountState::Broken => None,
            AccountState::Active | AccountState::Paused | AccountState::Blocked | AccountState::Unverified => self.refresh_at,
        }
    }
}

/// The tokens of an account, new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The access token.
    pub access: Secret,
    /// How long it lasts; none: it does not end.
    pub access_until: Option<Timestamp>,
    /// The next refresh token; none: there is none, or the one that was used stays good.
    pub refresh: Option<Secret>,
    /// How long that lasts, when the platform says so.
    pub refresh_until: Option<Timestamp>,
}

/// What became of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// New tokens: to be made durable before they are used.
    Done(Tokens),
    /// Not done, and what was used is as good as before.
    Later {
        /// How long to wait, when the platform says so.
        after: Option<Duration>,
        /// The platform's code.
        detail: String,
    },
    /// Perhaps done: what was used may be used up.
    Lost {
        /// What was seen.
        detail: String,
    },
    /// Not done, and asking again does not help. What was used stays good until its end.
    Unable {
        /// The platform's code.
        detail: String,
    },
    /// The credential is good for nothing any more.
    Broken {
        /// The platform's code, or what does not fit.
        detail: String,
    },
}

/// The end of something that lasts as many seconds from now on as a member says.
pub(crate) fn end_of(data: &Map<String, Value>, name: &str, now: Timestamp) -> Option<Timestamp> {
    let seconds = data.get(name).and_then(Value::as_u64).filter(|seconds| *seconds > 0)?;
    Some(now.plus(Duration::from_secs(seconds).min(LIFE_MAX)))
}
