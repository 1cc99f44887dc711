//! The embedded store: one process, one folder. A journal of our own (`journal`), the newest rows in memory (`memory`), and below
//! them sorted tables of fjall, which the rows are drained into by the thousand (`drain`).
//!
//! Fjall could do all of it, and did: its skiplist, journal and small files cost two to three times as much per row. What is left to
//! it is what it is good at: tables, filters, the cache, merging.
//!
//! The disk blocks, so nothing here touches it on an async worker: one thread writes (`writer`), one drains, a few read (`reader`),
//! one takes away what is over (`sweep`; which rows those are, `expiry` knows), and callers wait on channels. What memory knows is
//! answered at once. All queues have limits; when one is full its callers wait.
//!
//! After a write or sync that failed the store takes no further ones: what the kernel could not write it may have dropped,
//! and a later sync that succeeds would not bring it back.

mod disk;
mod drain;
mod expiry;
mod journal;
mod keys;
#[cfg(test)]
mod measure;
mod memory;
mod node;
mod reader;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::disk::Disk;
use self::drain::Drain;
use self::expiry::Expiry;
use self::journal::Journal;
use self::memory::{Memory, Rows};
use self::node::Node;
use self::reader::{POINT_READERS, Partly, Pool, Query, SCANNERS};
use self::sweep::{Sweep, Sweeper};
use self::tables::Tables;
use self::writer::{Command, SyncFn, Writer};
use super::in_flight::InFlight;
use super::{DirectoryRows, Durability, EmbeddedSettings, Found, Held, Key, Lease, LeaseAnswer, LeaseOn, Scan, Store, StoreError, Write};
use crate::BoxFuture;
use crate::clock::SharedClock;
use crate::metrics::{self, StoreOperation, StoreOutcome, SupervisedTask};
use crate::supervise::vital_here;

/// Bytes of rows in memory at which they are drained; as much again may be on its way. Less on a small disk.
const MEMORY_BYTES: u64 = 24 * 1024 * 1024;

/// The embedded store. Dropped without `close`, it closes on its own a little later.
pub struct EmbeddedStore {
    commands: mpsc::Sender<Command>,
    reads: mpsc::Sender<Query>,
    scans: mpsc::Sender<Query>,
    memory: Arc<Memory>,
    disk: Arc<Disk>,
    clock: SharedClock,
    expiry: Arc<Expiry>,
    /// The directory's version, as far as it is durable.
    version: watch::Receiver<u64>,
    /// Its sender goes when the files are let go of.
    ended: watch::Receiver<()>,
    #[cfg(test)]
    waker: sweep::Waker,
}

impl EmbeddedStore {
    pub(super) fn open(settings: EmbeddedSettings, clock: SharedClock) -> Result<Self, StoreError> {
        let memory_bytes = MEMORY_BYTES.min(settings.max_bytes / 8) as usize;
        Self::open_with(settings, clock, Journal::sync, memory_bytes)
    }

    /// Blocks: recovers what the last process left.
    fn open_with(settings: EmbeddedSettings, clock: SharedClock, sync: SyncFn, memory_bytes: usize) -> Result<Self, StoreError> {
        let tables = Tables::open(&settings, clock.clone())?;
        let expiry = tables.expiry().clone();
        let mut rows = Rows::default();
        let journal = Journal::open(&settings.dir, |row| rows.put(row)).map_err(|error| match error {
            journal::OpenError::Io(error) => StoreError::Unavailable(format!("{}: disk i/o: {error}", settings.dir.display())),
            journal::OpenError::Damaged(text) => StoreError::Damaged(text),
        })?;
        let memory = Arc::new(Memory::new(rows, tables.snapshot()));
        let node = Node::load(&tables, &memory)?;
        let disk = Arc::new(Disk::new(settings.dir, settings.max_bytes));
        disk.measure(&tables);

        let thread_failed = |error: std::io::Error| StoreError::Unavailable(format!("cannot start a thread: {error}"));
        let (read_pool, reads) = Pool::start(&tables, &memory, "store-read", POINT_READERS).map_err(thread_failed)?;
        let (scan_pool, scans) = Pool::start(&tables, &memory, "store-scan", SCANNERS).map_err(thread_failed)?;
        let drain = Drain::start(tables.clone(), memory.clone()).map_err(thread_failed)?;
        let (commands, waiting) = mpsc::channel(writer::QUEUE_MAX);
        let sweep = Sweep {
            tables: tables.clone(),
            memory: memory.clone(),
            disk: disk.clone(),
            clock: clock.clone(),
            commands: commands.downgrade(),
        };
        let sweeper = Sweeper::start(sweep).map_err(thread_failed)?;
        #[cfg(test)]
        let waker = sweeper.waker();
        let (ends, ended) = watch::channel(());
        let (version_changes, version) = watch::channel(node.version());
        let writer = Writer {
            tables,
            memory: memory.clone(),
            journal,
            drain,
            sweeper: Some(sweeper),
            drain_all: false,
            memory_bytes,
            node,
            disk: disk.clone(),
            clock: clock.clone(),
            sync,
            broken: false,
            version: version_changes,
            pools: vec![read_pool, scan_pool],
        };
        let thread = std::thread::Builder::new().name("store-write".to_owned());
        thread.spawn(move || vital_here(SupervisedTask::StoreWriter, || writer.run(waiting, ends))).map_err(thread_failed)?;
        Ok(Self {
            commands,
            reads,
            scans,
            memory,
            disk,
            clock,
            expiry,
            version,
            ended,
            #[cfg(test)]
            waker,
        })
    }

    /// Runs a request and counts it.
    async fn counted<T>(&self, operation: StoreOperation, request: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let began = self.clock.monotonic();
        let _in_flight = InFlight::begin();
        let done = request.await;
        let took = self.clock.monotonic().saturating_sub(began);
        metrics::STORE_REQUESTS.at([operation.index(), StoreOutcome::of(&done).index()]).increment(1);
        metrics::STORE_REQUEST_DURATION_SECONDS.at([operation.index()]).record(took.as_secs_f64());
        done
    }

    /// Hands the writer a command and waits for its reply.
    async fn write<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command) -> Result<T, StoreError> {
        ask(&self.commands, command).await
    }
}

/// Puts a question, waiting while the queue is full, and waits for the answer. A thread that is gone has closed.
async fn ask<Q, T>(queue: &mpsc::Sender<Q>, question: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Q) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    queue.send(question(answer)).await.map_err(|_| StoreError::Closed)?;
    answered.await.map_err(|_| StoreError::Closed)?
}

impl Store for EmbeddedStore {
    fn read(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        let read = async move {
            if self.reads.is_closed() {
                return Err(StoreError::Closed);
            }
            let read = Partly::look(&self.memory, &keys);
            if read.is_whole() {
                return Ok(read.values(&self.expiry.now()));
            }
            ask(&self.reads, |answer| Query::Read { read, answer }).await
        };
        Box::pin(self.counted(StoreOperation::Read, read))
    }

    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        Box::pin(self.counted(StoreOperation::Scan, ask(&self.scans, move |answer| Query::Scan { scan, limit, answer })))
    }

    fn apply(&self, batch: Vec<Write>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        let write = self.write(move |reply| Command::Apply { batch: Arc::new(batch), durability, reply });
        Box::pin(self.counted(StoreOperation::Apply, write))
    }

    /// A batch is one frame of the journal, so it is one anyway.
    fn apply_step(&self, held: &Held, batch: Arc<Vec<Write>>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        if !(held.holds)() {
            return Box::pin(std::future::ready(Err(StoreError::Unheld)));
        }
        Box::pin(self.counted(StoreOperation::Apply, self.write(move |reply| Command::Apply { batch, durability, reply })))
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.counted(StoreOperation::Sync, self.write(|reply| Command::Sync { reply })))
    }

    fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>> {
        Box::pin(self.counted(StoreOperation::Lease, self.write(move |reply| Command::Lease { on, owner, ttl, reply })))
    }

    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.counted(StoreOperation::Release, self.write(move |reply| Command::Release { lease, reply })))
    }

    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let version = async { if self.commands.is_closed() { Err(StoreError::Closed) } else { Ok(*self.version.borrow()) } };
        Box::pin(self.counted(StoreOperation::DirectoryVersion, version))
    }

    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>> {
        Box::pin(self.counted(StoreOperation::Directory, ask(&self.scans, |answer| Query::Directory { answer })))
    }

    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>> {
        let write = self.write(move |reply| Command::ChangeDirectory { expected, changes, reply });
        Box::pin(self.counted(StoreOperation::ChangeDirectory, write))
    }

    fn disk(&self) -> (u64, u64) {
        if self.disk.is_stale(self.clock.monotonic()) {
            // When the queue is full the writer writes, and measures by itself.
            let _ = self.commands.try_send(Command::Measure);
        }
        (self.disk.used(), self.disk.limit())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // It fails when another call came first; then wait for the end as that one does.
            let _ = self.commands.send(Command::Close).await;
            let mut ended = self.ended.clone();
            while ended.changed().await.is_ok() {}
        })
    }
}
