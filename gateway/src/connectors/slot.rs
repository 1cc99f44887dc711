//! One work of one account: waits for its lease, works under it, and stops before it ends.
//!
//! ```text
//! asked ---- TTL/3: renew ---- 2/3 TTL: told to stop ---- 9/10 TTL: dropped ---- TTL: another may have it
//! ```
//! All on the monotonic clock, counted from before the store was asked, so that our end is never later than the row's.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use messaging::clock::SharedClock;
use messaging::directory::Account;
use messaging::ids::AccountId;
use messaging::metrics::{self, AccountWork, WorkEnd};
use messaging::seal::fill_random;
use messaging::state::WorkNote;
use messaging::store::{Held, Key, Lease, LeaseAnswer, LeaseOn, StoreError};
use tokio::sync::{Semaphore, watch};

use super::job::{Job, Note, Over, Stop, Worker};
use super::keeper::LOOK;
use crate::options::Parts;

/// How long a lease lasts; renewed after a third of it. Whoever takes over from a process that died waits so long at most.
pub(super) const TTL: Duration = Duration::from_secs(30);
/// Longest wait before another's lease is looked at again.
const OTHERS_LOOK: Duration = Duration::from_secs(10);
/// Wait between tries to renew while the store does not answer.
const RENEW_PAUSE: Duration = Duration::from_secs(1);
/// How long a work that is told to stop has for it.
const STOP: Duration = Duration::from_secs(8);
/// How long giving a lease back may take.
const RELEASE: Duration = Duration::from_secs(2);
/// Pauses after a work that ended or a store that is away: doubled from the first to the longest, half of it by chance.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// What the keeper wants of a slot.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    /// The account to work for; none: end.
    account: Option<Arc<Account>>,
}

impl Orders {
    pub(super) fn work(account: Arc<Account>) -> Self {
        Self { account: Some(account) }
    }

    /// Takes the newest row of the account. Says whether it is another than before.
    pub(super) fn change(&mut self, account: Option<Arc<Account>>) -> bool {
        let revision = |account: &Option<Arc<Account>>| account.as_ref().map(|account| account.row.revision);
        let is_new = revision(&self.account) != revision(&account);
        self.account = account;
        is_new
    }
}

/// Whether a work may go on as it is: nothing that it works with has changed.
fn is_same(one: &Account, other: &Account) -> bool {
    (&one.row.public, &one.row.api_base, &one.secrets) == (&other.row.public, &other.row.api_base, &other.secrets)
}

/// Doubling pauses.
struct Pauses(Duration);

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = jittered(self.0);
        self.0 = (self.0 * 2).min(PAUSE_LONGEST);
        pause
    }
}

/// Between half of it and all.
pub(super) fn jittered(span: Duration) -> Duration {
    let mut bits = [0; 4];
    fill_random(&mut bits);
    span.mul_f64(0.5 + f64::from(u32::from_le_bytes(bits)) / f64::from(u32::MAX) / 2.0)
}

/// When the lease was asked for last, in microseconds of the monotonic clock.
struct Term(AtomicU64);

impl Term {
    fn new(asked: Duration) -> Self {
        let term = Self(AtomicU64::new(0));
        term.set(asked);
        term
    }
    fn set(&self, asked: Duration) {
        self.0.store(u64::try_from(asked.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
    fn asked(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }
    /// When the work must be dropped.
    fn cut(&self) -> Duration {
        self.asked() + TTL - TTL / 10
    }
}

/// How holding a lease ended.
enum Let {
    /// The work is not wanted any more.
    Go,
    /// The lease is another's, or may be soon.
    Lost,
}

/// What happened to a run.
enum Run {
    Over(Over),
    Changed,
    Lost,
}

/// One work of one account.
pub(super) struct Slot {
    pub(super) parts: Parts,
    pub(super) worker: Arc<dyn Worker>,
    /// Places for works of the process.
    pub(super) places: Arc<Semaphore>,
    pub(super) account: AccountId,
}

impl Slot {
    /// Works whenever it has a place and the lease, until the orders say to end.
    pub(super) async fn serve(self, mut orders: watch::Receiver<Orders>) {
        let on = LeaseOn::Account(self.account, self.worker.work());
        let mut pauses = Pauses(PAUSE_FIRST);
        while orders.borrow_and_update().account.is_some() {
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.wait(LOOK, &mut orders).await;
                continue;
            };
            // Drawn anew each time, so that the epoch rises even when this process had it before.
            let mut owner = [0; 16];
            fill_random(&mut owner);
            let asked = self.clock().monotonic();
            let pause = match self.parts.store.lease(on, owner, TTL).await {
                Ok(LeaseAnswer::Held(lease)) => match self.hold(lease, asked, &mut orders).await {
                    Let::Go => return,
                    Let::Lost => {
                        tracing::warn!(account = %self.account, work = ?self.worker.work(), "lease lost, the work stopped");
                        pauses.next()
                    }
                },
                Ok(LeaseAnswer::HeldByOther(other)) => {
                    pauses = Pauses(PAUSE_FIRST);
                    let left = other.until.since(self.clock().now());
                    jittered(left.clamp(PAUSE_FIRST, OTHERS_LOOK))
                }
                Err(error) => {
                    tracing::debug!(account = %self.account, %error, "no lease on the account's work yet");
                    pauses.next()
                }
            };
            drop(place);
            self.wait(pause, &mut orders).await;
        }
    }

    fn clock(&self) -> &SharedClock {
        &self.parts.clock
    }

    /// Waits so long, or until the orders change.
    async fn wait(&self, pause: Duration, orders: &mut watch::Receiver<Orders>) {
        tokio::select! {
            () = self.clock().sleep(pause) => {}
            _ = orders.changed() => {}
        }
    }

    /// Works, again and again, while the lease is kept; gives it back at the end.
    async fn hold(&self, lease: Lease, asked: Duration, orders: &mut watch::Receiver<Orders>) -> Let {
        let term = Arc::new(Term::new(asked));
        let ended = {
            let mut kept = pin!(self.keep(lease, &term));
            self.work(lease, &term, kept.as_mut(), orders).await
        };
        if matches!(ended, Let::Go) && self.clock().monotonic() < term.cut() {
            let released = tokio::time::timeout(RELEASE, self.parts.store.release(lease)).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::debug!(account = %self.account, "the lease on the account's work is not given back, it runs out by itself");
            }
        }
        ended
    }

    /// Renews the lease; returns when it cannot be kept any longer.
    async fn keep(&self, lease: Lease, term: &Term) {
        let clock = self.clock();
        loop {
            sleep_to(clock, term.asked() + TTL / 3).await;
            let give_up = term.asked() + TTL * 2 / 3;
            loop {
                let asked = clock.monotonic();
                let answer = tokio::select! {
                    answer = self.parts.store.lease(lease.on, lease.owner, TTL) => answer,
                    () = sleep_to(clock, give_up) => return,
                };
                match answer {
                    Ok(LeaseAnswer::Held(held)) if held.epoch == lease.epoch => {
                        // An answer that came too late to renew in time renews nothing.
                        if clock.monotonic() >= give_up {
                            return;
                        }
                        term.set(asked);
                        break;
                    }
                    // Another had it in between, or has it.
                    Ok(LeaseAnswer::Held(_) | LeaseAnswer::HeldByOther(_)) => return,
                    Err(error) => tracing::debug!(account = %self.account, %error, "the lease on the account's work is not renewed"),
                }
                sleep_to(clock, (clock.monotonic() + RENEW_PAUSE).min(give_up)).await;
                if clock.monotonic() >= give_up {
                    return;
                }
            }
        }
    }

    async fn work(
        &self,
        lease: Lease,
        term: &Arc<Term>,
        mut kept: Pin<&mut impl Future<Output = ()>>,
        orders: &mut watch::Receiver<Orders>,
    ) -> Let {
        let work = AccountWork::from(self.worker.work());
        let mut pauses = Pauses(PAUSE_FIRST);
        loop {
            let Some(account) = orders.borrow_and_update().account.clone() else { return Let::Go };
            let note = tokio::select! {
                note = self.note(lease, term, &account) => note,
                () = kept.as_mut() => return Let::Lost,
                _ = orders.changed() => continue,
            };
            let began = self.clock().monotonic();
            let run = self.run_once(&account, note, term, kept.as_mut(), orders).await;
            let reason = match run {
                Run::Over(Over::Again) => WorkEnd::Again,
                Run::Over(Over::Stuck) => WorkEnd::Stuck,
                Run::Changed => WorkEnd::Told,
                Run::Lost => WorkEnd::Unleased,
            };
            metrics::ACCOUNT_WORK_ENDS.at([work.index(), reason.index()]).increment(1);
            if self.clock().monotonic() >= began + PAUSE_LONGEST {
                pauses = Pauses(PAUSE_FIRST);
            }
            let pause = match run {
                Run::Lost => return Let::Lost,
                Run::Changed => continue,
                Run::Over(Over::Again) => Some(pauses.next()),
                Run::Over(Over::Stuck) => None,
            };
            let paused = async {
                match pause {
                    Some(pause) => self.clock().sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = paused => {}
                _ = orders.changed() => {}
                () = kept.as_mut() => return Let::Lost,
            }
        }
    }

    /// One run, until it ends or must end.
    async fn run_once(
        &self,
        account: &Arc<Account>,
        note: Note,
        term: &Term,
        mut kept: Pin<&mut impl Future<Output = ()>>,
        orders: &mut watch::Receiver<Orders>,
    ) -> Run {
        let (stop, told) = watch::channel(false);
        let job = Job { account: account.clone(), note: Arc::new(note), stop: Stop(told) };
        let _counted = Counted::begin(self.worker.work().into());
        let mut running = pin!(self.worker.run(job));
        let why = loop {
            tokio::select! {
                over = running.as_mut() => return Run::Over(over),
                () = kept.as_mut() => break Run::Lost,
                changed = orders.changed() => {
                    let newest = orders.borrow_and_update().account.clone();
                    // A keeper that is gone wants nothing any more.
                    if changed.is_err() || newest.is_none_or(|newest| !is_same(account, &newest)) {
                        break Run::Changed;
                    }
                }
            }
        };
        stop.send_replace(true);
        let cut = (self.clock().monotonic() + STOP).min(term.cut());
        tokio::select! {
            _ = running => {}
            () = sleep_to(self.clock(), cut) => {
                tracing::warn!(account = %self.account, work = ?self.worker.work(), "a work that was told to stop did not, and is cut off");
            }
        }
        why
    }

    /// What the work remembers. Asked until the store answers: a work that begins without what it remembers loses something.
    async fn note(&self, lease: Lease, term: &Arc<Term>, account: &Arc<Account>) -> Note {
        let (clock, holds) = (self.clock().clone(), term.clone());
        let held = Held { lease, holds: Arc::new(move || clock.monotonic() < holds.cut()) };
        let (tenant, work) = (account.owner.tenant, self.worker.work());
        let mut pauses = Pauses(PAUSE_FIRST);
        loop {
            let key = self.parts.keeper.shared().load().tenant_key(tenant).cloned();
            let row = self.parts.store.read(vec![Key::Work(tenant.id(), self.account, work)]).await;
            match (key, row.map(|mut rows| rows.pop().flatten())) {
                (Some(key), Ok(row)) => {
                    let opened = row.map(|row| WorkNote::open(tenant.id(), self.account, work, &key, &row)).transpose();
                    let last = opened.unwrap_or_else(|_| {
                        tracing::error!(account = %self.account, "what the account's work remembers does not open, it begins anew");
                        None
                    });
                    let (store, clock) = (self.parts.store.clone(), self.clock().clone());
                    return Note { store, clock, held, key, account: account.clone(), last: last.map_or(Vec::new(), |note| note.0) };
                }
                // The tenant goes, and with it the account: the keeper will say so.
                (None, Ok(_)) => {}
                (_, Err(error)) => self.not_read(&error),
            }
            self.clock().sleep(pauses.next()).await;
        }
    }

    fn not_read(&self, error: &StoreError) {
        tracing::warn!(account = %self.account, %error, "what the account's work remembers is not read yet");
    }
}

/// Sleeps to a time of the monotonic clock.
async fn sleep_to(clock: &SharedClock, at: Duration) {
    clock.sleep(at.saturating_sub(clock.monotonic())).await;
}

/// Counts a work while it runs.
struct Counted(AccountWork);

impl Counted {
    fn begin(work: AccountWork) -> Self {
        metrics::ACCOUNT_WORKS.at([work.index()]).increment(1.0);
        Self(work)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::ACCOUNT_WORKS.at([self.0.index()]).decrement(1.0);
    }
}
