//! Sources that we connect to, and what else goes on for an account without anybody asking.
//!
//! ```text
//! directory -> keeper: which accounts want which work -> slot: lease -> Worker::run(Job) -> Inlet -> LOG
//! ```
//!
//! A kind of work is a `job::Worker`; the keeper knows nothing else of it. Each work of an account is done by one process at a time:
//! whoever holds its lease (`LeaseOn::Account`). What it must remember stands in one sealed row (`Key::Work`), written under the lease.
//!
//! To add a kind: a variant of `messaging::store::Work`, a `Worker`, and its line in `workers`.

pub mod discord;

mod connection;
mod inlet;
pub(crate) mod job;
mod keeper;
mod pull;
pub(crate) mod refresh;
pub(crate) mod refused;
mod slot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::options::Parts;
use job::Worker;
use messaging::metrics::SupervisedTask;
use messaging::supervise::spawn_again;
use refused::Refused;

/// How long works may take to end when the process drains.
const STOP: Duration = Duration::from_secs(12);

/// Every kind of work that this process can do.
fn workers(parts: &Parts, refused: &Arc<Refused>) -> Vec<Arc<dyn Worker>> {
    let mut workers: Vec<Arc<dyn Worker>> = vec![Arc::new(refresh::Refresher::new(parts))];
    if let Some(dial) = &parts.dial {
        workers.push(Arc::new(connection::Connection::new(parts, dial)));
        workers.push(Arc::new(pull::Puller::new(parts, refused.clone())));
    }
    workers
}

/// The accounts' work of a process.
pub(crate) struct Connectors {
    stop: watch::Sender<bool>,
    keeper: JoinHandle<()>,
}

impl Connectors {
    /// Begins. Must be called in a runtime.
    pub(crate) fn start(parts: &Parts, refused: &Arc<Refused>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let workers = workers(parts, refused);
        let parts = parts.clone();
        let keeper = spawn_again(SupervisedTask::Connectors, move || keeper::run(parts.clone(), workers.clone(), stopped.clone()));
        Self { stop, keeper }
    }

    /// Ends all work, gives the leases back, and returns when nothing runs any more.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP, &mut self.keeper).await.is_err() {
            tracing::warn!("works of accounts were cut at the end of the drain, their leases run out by themselves");
        }
    }
}

impl Drop for Connectors {
    /// Cuts what still runs.
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
