//! Refreshes credentials before they end, and at once where the platform refuses one that a refresh revives.
//!
//! Every gateway looks for what is due. An account's refresh runs under the lease on that work, and looks at the newest directory
//! once it has it, so that one of many triggers in many processes makes the call and the others find it done.
//!
//! New tokens are durable before anything else happens: from the call to that moment the work belongs to a task of its own, which a
//! waiter that is dropped does not cut, and for which a draining process waits. What dies with the process is asked for again with
//! the same token: the platform then gives tokens, or says that it is used up, and the account is broken and told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use messaging::accounts::{Accounts, StateChange};
use messaging::channels::{Channel, ChannelKind, ChannelSettings, Refresh, Tokens, channel};
use messaging::clock::{SharedClock, Timestamp};
use messaging::directory::{Account, AccountState, Directory, StateReason};
use messaging::ids::AccountId;
use messaging::metrics::{self, PlatformOperation, PlatformOutcome};
use messaging::seal::fill_random;
use messaging::store::{LeaseAnswer, LeaseOn, Store, Work};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::options::OutboundCall;

/// How often what is due is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Refreshes under way in one process.
const UNDER_WAY_MAX: usize = 16;
/// How long a refresh has its account for itself.
const LEASE: Duration = Duration::from_secs(120);
/// A call is begun only this early in a lease: the rest is for the answer and its way into the store.
const BEGUN_WITHIN: Duration = Duration::from_secs(30);
/// Another process is at it: how soon to look what came of it.
const OTHERS_LOOK: Duration = Duration::from_secs(5);
/// First and longest wait after a refresh that was not settled, where the platform names none; doubles, with a share of chance.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(15 * 60));
/// First and longest wait between two tries to make new tokens durable.
const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a draining process waits for refreshes under way.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// What refreshes work with.
#[derive(Clone)]
pub struct Parts {
    /// Has the leases.
    pub store: Arc<dyn Store>,
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
    /// The account's row is as it should be: new tokens, a credential that is given up, or nothing is due any more.
    Settled,
    /// To be tried again, not before the wait where one is known.
    Again(Option<Duration>),
}

/// An account whose refresh was not settled.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    tries: u32,
    until: Timestamp,
}

/// Refreshes what is due until told to stop; then waits for what is under way.
pub async fn run(parts: Parts, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way: JoinSet<(AccountId, Ended)> = JoinSet::new();
    let mut busy: Vec<AccountId> = Vec::with_capacity(UNDER_WAY_MAX);
    let mut waiting: HashMap<AccountId, Waiting> = HashMap::new();
    loop {
        tokio::select! {
            // A sender that is gone means the same.
            _ = stop.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {}
            Some(ended) = under_way.join_next() => {
                let Ok((id, ended)) = ended else { continue };
                busy.retain(|busy| *busy != id);
                note(&mut waiting, id, ended, parts.clock.now());
                continue;
            }
        }
        let (now, directory) = (parts.clock.now(), parts.accounts.directory());
        // Bounded by the accounts that are due.
        waiting.retain(|id, _| directory.account(*id).is_some_and(|account| is_due(account, now)));
        for account in due(&directory, now) {
            let id = account.row.id;
            if busy.len() >= UNDER_WAY_MAX {
                break;
            }
            if busy.contains(&id) || waiting.get(&id).is_some_and(|waiting| now < waiting.until) {
                continue;
            }
            busy.push(id);
            let parts = parts.clone();
            under_way.spawn(async move { (id, refresh_leased(&parts, id).await) });
        }
    }
    let drained = async { while under_way.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::error!("refreshes of credentials are still under way at the end of the drain");
    }
}

fn is_due(account: &Account, now: Timestamp) -> bool {
    channel(account.channel).life(account).due(account).is_some_and(|due| due <= now)
}

/// The accounts that are due, those that wait longest first.
fn due(directory: &Directory, now: Timestamp) -> Vec<&Arc<Account>> {
    let mut due: Vec<&Arc<Account>> = directory.accounts().filter(|account| is_due(account, now)).collect();
    due.sort_by_key(|account| (channel(account.channel).life(account).due(account), account.row.id));
    due
}

fn note(waiting: &mut HashMap<AccountId, Waiting>, id: AccountId, ended: Ended, now: Timestamp) {
    match ended {
        Ended::Settled => {
            waiting.remove(&id);
        }
        Ended::Again(after) => {
            let one = waiting.entry(id).or_insert(Waiting { tries: 0, until: now });
            let wait = TRY_AGAIN.0.saturating_mul(1 << one.tries.min(10)).min(TRY_AGAIN.1);
            one.until = now.plus(after.unwrap_or_else(|| wait.mul_f64(0.5 + 0.5 * chance())));
            one.tries = one.tries.saturating_add(u32::from(after.is_none()));
        }
    }
}

/// Between 0 and 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// Refreshes an account's credential under the lease on that work, if it is still due by the newest directory.
pub async fn refresh_leased(parts: &Parts, id: AccountId) -> Ended {
    // Drawn anew each time: to itself, too, this process is another owner.
    let mut owner = [0; 16];
    fill_random(&mut owner);
    let begun = parts.clock.monotonic();
    let lease = match parts.store.lease(LeaseOn::Account(id, Work::Refresh), owner, LEASE).await {
        Ok(LeaseAnswer::Held(lease)) => lease,
        Ok(LeaseAnswer::HeldByOther(_)) => return Ended::Again(Some(OTHERS_LOOK)),
        Err(error) => {
            tracing::warn!(account = %id, %error, "no lease on the refresh of a credential");
            return Ended::Again(None);
        }
    };
    let ended = match parts.accounts.reload().await {
        Err(error) => {
            tracing::warn!(account = %id, %error, "the directory cannot be read before a refresh");
            Ended::Again(None)
        }
        Ok(directory) => match directory.account(id).filter(|account| is_due(account, parts.clock.now())) {
            Some(_) if parts.clock.monotonic().saturating_sub(begun) > BEGUN_WITHIN => Ended::Again(None),
            Some(account) => refresh(parts, account.clone()).await,
            None => Ended::Settled,
        },
    };
    if let Err(error) = parts.store.release(lease).await {
        tracing::debug!(account = %id, %error, "the lease on a refresh is not given back, it runs out");
    }
    ended
}

/// Refreshes an account's credential once. Whoever calls holds the lease.
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
