//! Refreshes an account's credential: the call, and what follows from the answer.
//!
//! Whoever calls [`refresh`] holds the lease on the account's refreshes, so that one of them is under way in all processes. New
//! tokens are durable before anything else happens: from the call to that moment the work belongs to a task of its own, which a
//! lease that is lost or a process that drains does not cut. What dies with the process is asked for again with the same token: the
//! platform then gives tokens, or says that it is used up, and the account is broken and told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use messaging::accounts::{Accounts, StateChange};
use messaging::channels::{Channel, ChannelKind, ChannelSettings, Refresh, Tokens, channel};
use messaging::clock::SharedClock;
use messaging::directory::{Account, AccountState, StateReason};
use messaging::metrics::{self, PlatformOperation, PlatformOutcome};

use crate::options::OutboundCall;

/// First and longest wait between two tries to make new tokens durable.
const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What refreshes work with.
#[derive(Clone)]
pub struct Parts {
    /// Changes accounts.
    pub accounts: Accounts,
    /// The way out.
    pub caller: Arc<dyn OutboundCall>,
    /// The channels that are on.
    pub channels: BTreeMap<ChannelKind, ChannelSettings>,
    /// Time.
    pub clock: SharedClock,
}

/// How a refresh ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The account's row is as it should be: new tokens, or a credential that is given up.
    Settled,
    /// To be tried again, not before the wait where the platform named one.
    Again(Option<Duration>),
}

/// Refreshes an account's credential once.
pub async fn refresh(parts: &Parts, account: Arc<Account>) -> Ended {
    let parts = parts.clone();
    // A task of its own: whoever waits here may be dropped, an answer may not.
    let work = tokio::spawn(async move { one(&parts, &account).await });
    work.await.unwrap_or_else(|_| {
        metrics::PANICS.at([]).increment(1);
        Ended::Again(None)
    })
}

async fn one(parts: &Parts, account: &Account) -> Ended {
    let channel = channel(account.channel);
    let Some(settings) = parts.channels.get(&account.channel) else { return Ended::Again(None) };
    let request = match channel.refresh_request(account, settings) {
        Ok(request) => request,
        Err(why) => {
            tracing::warn!(account = %account.row.id, %why, "a credential cannot be refreshed");
            return give_up(parts, account).await;
        }
    };
    let started = parts.clock.now();
    let answer = parts.caller.call(request, settings.timeout).await;
    let now = parts.clock.now();
    let (kind, operation) = (account.channel.index(), PlatformOperation::Refresh.index());
    metrics::PLATFORM_REQUEST_DURATION_SECONDS.at([kind, operation]).record(now.since(started).as_secs_f64());
    let refresh = match answer {
        Ok(response) => channel.refreshed(account, &response, now),
        Err(_) => {
            metrics::PLATFORM_REQUESTS.at([kind, operation, PlatformOutcome::Connect.index()]).increment(1);
            tracing::warn!(account = %account.row.id, "a refresh of a credential brought no answer, it is tried again");
            return Ended::Again(None);
        }
    };
    metrics::PLATFORM_REQUESTS.at([kind, operation, outcome_of(&refresh).index()]).increment(1);
    match refresh {
        Refresh::Done(tokens) => store(parts, account, &tokens).await,
        Refresh::Later { after, detail } => {
            tracing::warn!(account = %account.row.id, detail, "a credential is refreshed later");
            Ended::Again(after)
        }
        Refresh::Lost { detail } => {
            tracing::warn!(account = %account.row.id, detail, "nobody knows whether a credential was refreshed, the same token is tried again");
            Ended::Again(None)
        }
        Refresh::Unable { detail } => {
            tracing::warn!(account = %account.row.id, detail, "a credential is not refreshed, it is used until its end");
            give_up(parts, account).await
        }
        Refresh::Broken { detail } => refused(parts, channel, account, detail).await,
    }
}

/// Makes new tokens durable, however long the store is away: they exist nowhere else.
async fn store(parts: &Parts, account: &Account, tokens: &Tokens) -> Ended {
    let mut wait = STORE_RETRY.0;
    loop {
        match parts.accounts.renew(account, tokens).await {
            Ok(true) => {
                tracing::info!(account = %account.row.id, "a credential was refreshed");
                return Ended::Settled;
            }
            Ok(false) => {
                tracing::info!(account = %account.row.id, "a refreshed credential is left out: the account has another one by now");
                return Ended::Settled;
            }
            Err(error) => {
                tracing::error!(account = %account.row.id, %error, "a refreshed credential is not stored yet, trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(STORE_RETRY.1);
            }
        }
    }
}

async fn refused(parts: &Parts, channel: &dyn Channel, account: &Account, detail: String) -> Ended {
    tracing::warn!(account = %account.row.id, channel = channel.kind().name(), detail, "the platform refuses to refresh a credential");
    let about = Some(account.secrets_set_at());
    let change = StateChange { owner: account.owner, state: AccountState::Broken, reason: StateReason::RefreshRefused, detail, about };
    if let Err(error) = parts.accounts.change_state(&change).await {
        tracing::warn!(account = %account.row.id, %error, "the state of an account is not changed yet");
        return Ended::Again(None);
    }
    give_up(parts, account).await
}

async fn give_up(parts: &Parts, account: &Account) -> Ended {
    match parts.accounts.give_up(account).await {
        Ok(_) => Ended::Settled,
        Err(error) => {
            tracing::warn!(account = %account.row.id, %error, "that a credential is given up is not stored yet");
            Ended::Again(None)
        }
    }
}

fn outcome_of(refresh: &Refresh) -> PlatformOutcome {
    match refresh {
        Refresh::Done(_) => PlatformOutcome::Ok,
        Refresh::Later { .. } | Refresh::Lost { .. } => PlatformOutcome::ServerError,
        Refresh::Unable { .. } => PlatformOutcome::Permanent,
        Refresh::Broken { .. } => PlatformOutcome::Auth,
    }
}
