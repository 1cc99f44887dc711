//! The store over CQL: ScyllaDB and Apache Cassandra 5, with nothing that only one of them understands.
//!
//! * Tables and partitions: `keys`, and `deploy/scylla/migrations`. One table per kind of key; `migrations` makes them.
//! * Writes: `writer`. A shard's step is made one by a journal (`journal`); any other batch goes out in waves (`waves`), as many requests at once
//!   (`packs`: which rows share one). All carry a write time (`stamps`: why a former owner's late writes lose) and a time to live.
//! * Reads: `reader`. Leases and directory: `node`, the only lightweight transactions beside the migrations' lock.
//!
//! What is acknowledged was written by a quorum of the replicas. Servers write their commit logs to disk periodically (every
//! ten seconds by default), so a server that loses power loses the last seconds; the others have them. Three replicas in
//! places that do not lose power together make every acknowledged write durable, so both kinds of [`Durability`] are alike
//! here and `sync` has nothing to do. With one replica a loss of power can lose what was acknowledged: for tests, or with
//! `commitlog_sync: batch` (ScyllaDB: `--commitlog-sync batch`).
//!
//! Clocks of nodes must agree to well within a lease's time (NTP): leases are compared with the clock of whoever asks.

mod connect;
mod failure;
mod journal;
mod keys;
mod marks;
pub mod migrations;
mod node;
mod packs;
mod reader;
mod replicas;
mod settings;
mod stamps;
mod statements;
mod sweep;
mod waves;
mod writer;

pub use settings::{BadName, BatchLimits, Compression, Consistency, ScyllaSettings};

use std::sync::Arc;
use std::time::Duration;

use ::scylla::client::session::Session;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use self::connect::Profiles;
use self::failure::Failure;
use self::journal::JournalStatements;
use self::marks::Marks;
use self::node::NodeStatements;
use self::stamps::Stamps;
use self::statements::Statements;
use self::sweep::Held;
use self::writer::Expiry;
use super::in_flight::InFlight;
use super::{DirectoryRows, Durability, Found, Key, Lease, LeaseAnswer, LeaseOn, Scan, Store, StoreError, Write};
use crate::BoxFuture;
use crate::clock::SharedClock;
use crate::metrics;
use crate::metrics::SupervisedTask;
use crate::metrics::{StoreOperation, StoreOutcome};
use crate::supervise::spawn_again;

/// Requests of the whole process that are under way at once. A node's connection carries 32,768; servers shed load long before.
const REQUESTS_IN_FLIGHT_MAX: usize = 1024;

/// The CQL store.
pub struct ScyllaStore {
    inner: Arc<Inner>,
    sweeper: AbortHandle,
}

struct Inner {
    session: Session,
    keyspace: String,
    profiles: Profiles,
    statements: Statements,
    node: NodeStatements,
    journal: JournalStatements,
    limits: BatchLimits,
    expiry: Expiry,
    clock: SharedClock,
    stamps: Stamps,
    marks: Marks,
    held: Held,
    /// Closed with the store.
    requests: Semaphore,
}

/// Connects to the cluster and checks its schema: one that is too old is an error that names the cure, one that is newer a
/// warning. Boxed here, as the other calls that outsiders make: an `async fn` is compiled where it is awaited, with all that it
/// uses of the driver.
pub fn open(settings: ScyllaSettings, clock: SharedClock) -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> {
    Box::pin(connected(settings, clock))
}

async fn connected(settings: ScyllaSettings, clock: SharedClock) -> Result<Arc<dyn Store>, StoreError> {
    let limits = BatchLimits { partitions: settings.batches.partitions.max(1), rows: settings.batches.rows.max(1), ..settings.batches };
    let profiles = Profiles::new(&settings);
    let session = connect::connect(&settings, &profiles).await?;
    migrations::check(&session, &settings.keyspace).await?;
    let statements = Statements::prepare(&session, &settings.keyspace, &profiles, limits.rows).await?;
    let node = NodeStatements::prepare(&session, &settings.keyspace, &profiles).await?;
    let journal = JournalStatements::prepare(&session, &settings.keyspace, &profiles).await?;
    let inner = Arc::new(Inner {
        session,
        profiles,
        statements,
        node,
        journal,
        limits,
        expiry: Expiry::of(&settings.retention),
        keyspace: settings.keyspace,
        clock: clock.clone(),
        stamps: Stamps::default(),
        marks: Marks::default(),
        held: Held::default(),
        requests: Semaphore::new(REQUESTS_IN_FLIGHT_MAX),
    });
    let swept = Arc::downgrade(&inner);
    let sweeper = spawn_again(SupervisedTask::Sweep, move || sweep::run(swept.clone(), clock.clone())).abort_handle();
    Ok(Arc::new(ScyllaStore { inner, sweeper }))
}

impl Inner {
    /// Runs an operation and counts it.
    async fn counted<T>(&self, operation: StoreOperation, work: impl Future<Output = Result<T, Failure>>) -> Result<T, StoreError> {
        let began = self.clock.monotonic();
        let _in_flight = InFlight::begin();
        let done = if self.requests.is_closed() { Err(StoreError::Closed.into()) } else { work.await };
        let outcome = done.as_ref().map_or_else(Failure::outcome, |_| StoreOutcome::Ok);
        metrics::STORE_REQUESTS.at([operation.index(), outcome.index()]).increment(1);
        let took = self.clock.monotonic().saturating_sub(began);
        metrics::STORE_REQUEST_DURATION_SECONDS.at([operation.index()]).record(took.as_secs_f64());
        done.map_err(StoreError::from)
    }
}

impl Store for ScyllaStore {
    fn read(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        Box::pin(async move { self.inner.counted(StoreOperation::Read, self.inner.read(&keys)).await })
    }

    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        Box::pin(self.inner.counted(StoreOperation::Scan, self.inner.scan(scan, limit)))
    }

    fn apply(&self, batch: Vec<Write>, _: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.inner.counted(StoreOperation::Apply, self.inner.apply(&batch)).await })
    }

    fn apply_step(&self, held: &super::Held, batch: Arc<Vec<Write>>, _: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        let held = held.clone();
        Box::pin(async move { self.inner.counted(StoreOperation::Apply, self.inner.apply_step(&held, &batch)).await })
    }

    /// What is acknowledged is as durable as the cluster makes it.
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.inner.counted(StoreOperation::Sync, std::future::ready(Ok(()))))
    }

    fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>> {
        Box::pin(self.inner.counted(StoreOperation::Lease, self.inner.lease(on, owner, ttl)))
    }

    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.inner.counted(StoreOperation::Release, self.inner.release(lease)))
    }

    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.inner.counted(StoreOperation::DirectoryVersion, self.inner.directory_version()))
    }

    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>> {
        Box::pin(self.inner.counted(StoreOperation::Directory, self.inner.directory()))
    }

    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let change = self.inner.change_directory(expected, &changes);
            self.inner.counted(StoreOperation::ChangeDirectory, change).await
        })
    }

    fn disk(&self) -> (u64, u64) {
        (0, 0)
    }

    /// What is under way ends; what comes after is refused. Connections go with the store.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.sweeper.abort();
            self.inner.requests.close();
        })
    }
}

impl Drop for ScyllaStore {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}
