//! What a kind of work is, and what it works with.

use std::sync::Arc;

use messaging::BoxFuture;
use messaging::clock::SharedClock;
use messaging::directory::Account;
use messaging::seal::DataKey;
use messaging::state::WorkNote;
use messaging::store::{Durability, Held, Key, LeaseOn, Store, StoreError, Work, Write};
use tokio::sync::watch;

/// A kind of work. One value serves all accounts of the process.
pub(crate) trait Worker: Send + Sync {
    /// Which kind.
    fn work(&self) -> Work;

    /// Whether it is to be done for an account now. Asked some times a second for every account; does no I/O.
    fn wants(&self, account: &Account) -> bool;

    /// Does it, until `job.stop` is told or it cannot go on. It runs only under the lease. When it is told to stop it has some seconds
    /// to end in order; then, and when the lease is about to end, it is dropped where it stands: nothing that it does may depend on
    /// its own end. When the account's members change it is told to stop, and run again with the account as it is then.
    fn run(&self, job: Job) -> BoxFuture<'_, Over>;
}

/// Why a work ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// It was told to stop, or cannot go on now: again after a pause, which grows.
    Again,
    /// Nothing but a change of the account's row helps. The lease is kept meanwhile, so that no other process tries in vain.
    Stuck,
}

/// One run of a work.
pub(crate) struct Job {
    /// The account as it is now.
    pub account: Arc<Account>,
    /// What the work remembers.
    pub note: Arc<Note>,
    /// Told when it is to end.
    pub stop: Stop,
}

/// Resolves when a work is to end.
#[derive(Clone)]
pub(crate) struct Stop(pub(super) watch::Receiver<bool>);

impl Stop {
    /// Returns when it is told; at once when it was.
    pub async fn told(&mut self) {
        // A sender that is gone tells as well.
        let _ = self.0.wait_for(|told| *told).await;
    }
}

/// The row of a work, under its lease.
pub(crate) struct Note {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: SharedClock,
    pub(super) held: Held,
    pub(super) key: DataKey,
    pub(super) account: Arc<Account>,
    /// What was kept before this run; empty: nothing.
    pub(super) last: Vec<u8>,
}

impl Note {
    /// What was kept before this run; empty: nothing.
    pub fn last(&self) -> &[u8] {
        &self.last
    }

    /// Keeps a few bytes, at most [`WorkNote::BYTES_MAX`], for whoever does this work next.
    ///
    /// # Errors
    /// The store did not take them, or the lease has run out; then nothing is changed.
    pub async fn keep(&self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let LeaseOn::Account(account, work) = self.held.lease.on else { return Err(StoreError::Unheld) };
        let tenant = self.account.owner.tenant.id();
        let Some(value) = WorkNote(bytes).seal(tenant, account, work, &self.key) else {
            tracing::error!(%account, "the note of an account's work is too long, the one before stays");
            return Err(StoreError::Full);
        };
        let write = Write::put(Key::Work(tenant, account, work), value, self.clock.now());
        self.store.apply_step(&self.held, Arc::new(vec![write]), Durability::Synced).await
    }
}
