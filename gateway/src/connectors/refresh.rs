//! Refreshes credentials before they end, and at once where the platform refuses one that a refresh revives.
//!
//! The work is wanted only while a refresh is due. It runs under its lease, and looks at the newest directory first, so that one of many
//! triggers in many processes makes the call and the others find it done.
//!
//! New tokens are durable before anything else happens: from the call to that moment the work belongs to a task of its own, which is not
//! cut with the run. What dies with the process is asked for again with the same token: the platform then gives tokens, or says that it
//! is used up, and the account is broken and told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use messaging::BoxFuture;
use messaging::accounts::{Accounts, StateChange};
use messaging::channels::{Channel, ChannelKind, ChannelSettings, Refresh, Tokens, channel};
use messaging::clock::{SharedClock, Timestamp};
use messaging::directory::{Account, AccountState, StateReason};
use messaging::metrics::{self, PlatformOperation, PlatformOutcome};
use messaging::store::Work;

use super::job::{Job, Over, Worker};
use crate::options::{self, OutboundCall};

/// How long a call may take, whatever its channel says: less than a run has that is told to stop.
const CALL_MAX: Duration = Duration::from_secs(6);
/// Wait after a refresh that was not settled, where the platform names none. The pauses between runs come on top.
const TRY_AGAIN: Duration = Duration::from_secs(15);
/// Longest wait that a platform may name: a day's share that is used up.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// First and longest wait between two tries to make new tokens durable.
const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What refreshes work with.
#[derive(Clone)]
pub(crate) struct Parts {
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
pub(crate) enum Ended {
    /// The account's row is as it should be: new tokens, or a credential that is given up.
    Settled,
    /// To be tried again, not before the wait where the platform named one.
    Again(Option<Duration>),
}

/// The work of refreshing.
pub(super) struct Refresher {
    parts: Parts,
}

impl Refresher {
    pub(super) fn new(parts: &options::Parts) -> Self {
        let (accounts, caller) = (parts.accounts(), parts.caller.clone());
        Self { parts: Parts { accounts, caller, channels: parts.channels.clone(), clock: parts.clock.clone() } }
    }
}

impl Worker for Refresher {
    fn work(&self) -> Work {
        Work::Refresh
    }

    fn wants(&self, account: &Account) -> bool {
        is_due(account, self.parts.clock.now())
    }

    fn run(&self, mut job: Job) -> BoxFuture<'_, Over> {
        Box::pin(async move {
            let id = job.account.owner.account;
            let directory = match self.parts.accounts.reload().await {
                Ok(directory) => directory,
                Err(error) => {
                    tracing::warn!(account = %id, %error, "the directory cannot be read before a refresh");
                    return Over::Again;
                }
            };
            // Another process may have done it a moment ago.
            let Some(account) = directory.account(id).filter(|account| is_due(account, self.parts.clock.now())) else { return Over::Again };
            let wait = match refresh(&self.parts, account.clone()).await {
                Ended::Settled => return Over::Again,
                Ended::Again(wait) => wait.map_or(TRY_AGAIN, |wait| wait.min(WAIT_MAX)),
            };
            tokio::select! {
                () = self.parts.clock.sleep(wait) => {}
                () = job.stop.told() => {}
            }
            Over::Again
        })
    }
}

fn is_due(account: &Account, now: Timestamp) -> bool {
    channel(account.channel).life(account).due(account).is_some_and(|due| due <= now)
}

/// Refreshes an account's credential once. Whoever calls holds the lease.
pub(crate) async fn refresh(parts: &Parts, account: Arc<Account>) -> Ended {
    let parts = parts.clone();
    // A task of its own: whoever waits here may be dropped, an answer may not.
    let work = tokio::spawn(async move { one(&parts, &account).await });
    work.await.unwrap_or(Ended::Again(None))
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
    let answer = parts.caller.call(request, settings.timeout.min(CALL_MAX)).await;
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
