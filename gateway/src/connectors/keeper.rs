//! Looks which accounts want which work, and has a slot for each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use messaging::directory::{Account, Directory};
use messaging::ids::AccountId;
use messaging::metrics;
use messaging::store::Work;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::job::Worker;
use super::slot::{Orders, Slot};
use crate::options::Parts;

/// Works that one process does at once; the others are for other processes, or wait.
pub(super) const WORKS_MAX: usize = 1_000;
/// How often the directory's snapshot is looked at. It is itself refreshed once a second.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// Which work of which account.
type Of = (AccountId, Work);

/// A slot that was started.
struct Running {
    orders: watch::Sender<Orders>,
    task: JoinHandle<()>,
}

/// All slots: one per account and work that is wanted.
struct Keeper {
    parts: Parts,
    workers: Vec<Arc<dyn Worker>>,
    places: Arc<Semaphore>,
    slots: BTreeMap<Of, Running>,
}

/// Keeps the works until told to stop; returns when all have ended.
pub(super) async fn run(parts: Parts, workers: Vec<Arc<dyn Worker>>, mut stop: watch::Receiver<bool>) {
    let clock = parts.clock.clone();
    let mut keeper = Keeper { parts, workers, places: Arc::new(Semaphore::new(WORKS_MAX)), slots: BTreeMap::new() };
    loop {
        let directory = keeper.parts.keeper.shared().load_full();
        keeper.forget_ended().await;
        // Also when the directory stands still: some works are wanted at their time.
        keeper.follow(&directory);
        tokio::select! {
            () = clock.sleep(LOOK) => {}
            _ = stop.wait_for(|told| *told) => break,
        }
    }
    keeper.leave().await;
}

impl Keeper {
    /// Takes slots that have ended out: one that is wanted all the same is begun again.
    async fn forget_ended(&mut self) {
        let ended: Vec<_> = self.slots.iter().filter(|(_, slot)| slot.task.is_finished()).map(|(of, _)| *of).collect();
        for of in ended {
            let Some(slot) = self.slots.remove(&of) else { continue };
            if slot.task.await.is_err() {
                // Its lease runs out by itself, so it does not come again at once.
                metrics::TASK_RESTARTS.at([metrics::SupervisedTask::Work.index()]).increment(1);
                tracing::error!(account = %of.0, work = ?of.1, "a work of an account ended in a panic, it comes again with its lease");
            }
        }
    }

    /// Has a slot for each work that the snapshot wants, and for no other.
    fn follow(&mut self, directory: &Directory) {
        let mut wanted: BTreeMap<Of, (Arc<Account>, Arc<dyn Worker>)> = BTreeMap::new();
        for account in directory.accounts().filter(|account| self.parts.channels.contains_key(&account.channel)) {
            for worker in self.workers.iter().filter(|worker| worker.wants(account)) {
                wanted.insert((account.owner.account, worker.work()), (account.clone(), worker.clone()));
            }
        }
        for (of, slot) in &self.slots {
            let account = wanted.remove(of).map(|(account, _)| account);
            slot.orders.send_if_modified(|orders| orders.change(account));
        }
        for (of, (account, worker)) in wanted {
            let (orders, taken) = watch::channel(Orders::work(account));
            let slot = Slot { parts: self.parts.clone(), worker, places: self.places.clone(), account: of.0 };
            self.slots.insert(of, Running { orders, task: tokio::spawn(slot.serve(taken)) });
        }
    }

    /// Ends all, side by side.
    async fn leave(&mut self) {
        for slot in self.slots.values() {
            slot.orders.send_if_modified(|orders| orders.change(None));
        }
        for slot in self.slots.values_mut() {
            // How it ended does not matter any more.
            let _ = (&mut slot.task).await;
        }
        self.slots.clear();
    }
}

impl Drop for Keeper {
    /// Only when the keeper itself is cut off.
    fn drop(&mut self) {
        for slot in self.slots.values() {
            slot.task.abort();
        }
    }
}
