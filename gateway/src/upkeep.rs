//! What a gateway looks after in its accounts, beside their requests: news that wait for the log, signatures that fail, credentials
//! that end, and the gauges of all that. Every gateway does it; what two of them see at once is one change and one event.

use std::sync::Arc;
use std::time::Duration;

use messaging::accounts::StateChange;
use messaging::channels::{ChannelKind, channel};
use messaging::clock::Timestamp;
use messaging::directory::{Account, AccountState, Directory, StateReason};
use messaging::metrics::{self, AccountLabel};
use tokio::time::MissedTickBehavior;

use crate::shared::Shared;
use crate::signatures::Trouble;

/// How often news are looked for.
const NEWS_EVERY: Duration = Duration::from_secs(1);
/// How many of those looks there are to one look at everything else.
const LOOKS: u32 = 5;
/// News that are younger are being told by whoever made them.
const NEWS_AGE_MIN: Duration = Duration::from_secs(1);
/// Accounts whose news are told in one look.
const TOLD_MAX: usize = 256;
/// How long before a credential's end its tenant is told, when no refresh has moved it by then.
const WARN_BEFORE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long after its end a credential counts as broken: a refresh that is under way may still come.
const ENDED_AFTER: Duration = Duration::from_secs(60);

/// Looks after them until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(NEWS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0u32.. {
        ticks.tick().await;
        tell(&shared).await;
        if number % LOOKS == 0 {
            look(&shared).await;
        }
    }
}

/// Puts news that wait on the log.
pub(crate) async fn tell(shared: &Shared) {
    let now = shared.now();
    let directory = shared.accounts.directory();
    let waits = |account: &&Arc<Account>| {
        let news = account.credential.as_ref().and_then(|row| row.news.first());
        news.is_some_and(|first| first.at.plus(NEWS_AGE_MIN) <= now)
    };
    for account in directory.accounts().filter(waits).take(TOLD_MAX) {
        shared.accounts.tell(account.owner).await;
    }
}

/// One look at all accounts.
pub(crate) async fn look(shared: &Shared) {
    let fresh = shared.signatures.take_fresh();
    if !fresh.is_empty()
        && let Err(error) = shared.accounts.verified(&fresh).await
    {
        // The next authentic webhook of each says it again.
        tracing::debug!(%error, "authentic accounts are not noted yet");
    }
    let (now, directory) = (shared.now(), shared.accounts.directory());
    measure(&directory);
    for (id, trouble, detail) in shared.signatures.troubles(&directory, now) {
        let Some(account) = directory.account(id) else { continue };
        let (state, reason) = match trouble {
            Trouble::Begins => (AccountState::Unverified, StateReason::BadSignature),
            Trouble::Ends => (AccountState::Active, StateReason::SignaturesGood),
        };
        change(shared, account, state, reason, detail).await;
    }
    for account in directory.accounts() {
        let life = channel(account.channel).life(account);
        if let Some(end) = life.access_until.filter(|end| end.plus(ENDED_AFTER) <= now)
            && account.row.state.sends()
        {
            change(shared, account, AccountState::Broken, StateReason::RefreshRefused, format!("it ended at {end}")).await;
        } else if let Some(end) = life.ends_at.filter(|end| is_soon(*end, now))
            && account.credential.as_ref().and_then(|row| row.warned_of) != Some(end)
            && let Err(error) = shared.accounts.warn(account.owner, end).await
        {
            tracing::warn!(account = %account.row.id, %error, "the end of a credential is not told yet");
        }
    }
}

fn is_soon(end: Timestamp, now: Timestamp) -> bool {
    now < end && end.minus(WARN_BEFORE) <= now
}

async fn change(shared: &Shared, account: &Account, state: AccountState, reason: StateReason, detail: String) {
    // What fails now is seen again at the next look.
    let change = StateChange { owner: account.owner, state, reason, detail, about: Some(account.secrets_set_at()) };
    if let Err(error) = shared.accounts.change_state(&change).await {
        tracing::warn!(account = %account.row.id, %error, "the state of an account is not changed yet");
    }
}

/// Sets the gauges.
fn measure(directory: &Directory) {
    let mut counts = vec![[0u32; AccountLabel::ALL.len()]; ChannelKind::ALL.len()];
    let mut ends: Vec<Option<Timestamp>> = vec![None; ChannelKind::ALL.len()];
    for account in directory.accounts() {
        let kind = account.channel.index();
        counts[kind][AccountLabel::from(account.row.state).index()] += 1;
        if let Some(end) = channel(account.channel).life(account).ends_at {
            ends[kind] = Some(ends[kind].map_or(end, |known| known.min(end)));
        }
    }
    for (kind, (counts, end)) in counts.iter().zip(ends).enumerate() {
        for (state, count) in counts.iter().enumerate() {
            metrics::PLATFORM_ACCOUNTS.at([kind, state]).set(f64::from(*count));
        }
        metrics::PLATFORM_CREDENTIAL_EXPIRY_TIMESTAMP_SECONDS.at([kind]).set(end.map_or(0.0, |end| end.as_secs() as f64));
    }
}
