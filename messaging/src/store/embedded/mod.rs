//! The embedded store, on fjall: one process, one folder.
//!
//! The engine blocks (locks, syncs, stalls while it merges), so nothing here touches it on an async worker: one thread writes
//! (`writer`), a few read (`reader`), and callers wait on channels. All queues have limits; when one is full its callers
//! wait.
//!
//! After a write or sync that failed the store takes no further ones: what the kernel could not write it may have dropped,
//! and a later sync that succeeds would not bring it back.

mod disk;
mod keys;
#[cfg(test)]
mod measure;
mod node;
mod reader;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::disk::Disk;
use self::node::Node;
use self::reader::{POINT_READERS, Pool, Query, SCANNERS};
use self::tables::Tables;
use self::writer::{Command, SyncFn, Writer, sync_journal};
use super::{DirectoryRows, Durability, EmbeddedSettings, Found, Key, Lease, LeaseAnswer, LeaseOn, Scan, Store, StoreError, Write};
use crate::BoxFuture;
use crate::clock::SharedClock;

/// The embedded store. Dropped without `close`, it closes on its own a little later.
pub struct EmbeddedStore {
    commands: mpsc::Sender<Command>,
    reads: mpsc::Sender<Query>,
    scans: mpsc::Sender<Query>,
    disk: Arc<Disk>,
    clock: SharedClock,
    /// The directory's version, as far as it is durable.
    version: watch::Receiver<u64>,
    /// Its sender goes when the files are let go of.
    ended: watch::Receiver<()>,
}

impl EmbeddedStore {
    pub(super) fn open(settings: EmbeddedSettings, clock: SharedClock) -> Result<Self, StoreError> {
        Self::open_with(settings, clock, sync_journal)
    }

    /// Blocks: recovers what the last process left.
    fn open_with(settings: EmbeddedSettings, clock: SharedClock, sync: SyncFn) -> Result<Self, StoreError> {
        let tables = Tables::open(&settings)?;
        let node = Node::load(&tables)?;
        let disk = Arc::new(Disk::new(settings.dir, settings.max_bytes));
        disk.measure(&tables);

        let thread_failed = |error: std::io::Error| StoreError::Unavailable(format!("cannot start a thread: {error}"));
        let (read_pool, reads) = Pool::start(&tables, "store-read", POINT_READERS).map_err(thread_failed)?;
        let (scan_pool, scans) = Pool::start(&tables, "store-scan", SCANNERS).map_err(thread_failed)?;
        let (commands, waiting) = mpsc::channel(writer::QUEUE_MAX);
        let (ends, ended) = watch::channel(());
        let (version_changes, version) = watch::channel(node.version());
        let writer = Writer {
            tables,
            node,
            disk: disk.clone(),
            clock: clock.clone(),
            sync,
            broken: false,
            version: version_changes,
            pools: vec![read_pool, scan_pool],
        };
        let thread = std::thread::Builder::new().name("store-write".to_owned());
        thread.spawn(move || writer.run(waiting, ends)).map_err(thread_failed)?;
        Ok(Self { commands, reads, scans, disk, clock, version, ended })
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
        Box::pin(ask(&self.reads, |answer| Query::Read { keys, answer }))
    }

    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        Box::pin(ask(&self.scans, move |answer| Query::Scan { scan, limit, answer }))
    }

    fn apply(&self, batch: Vec<Write>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |reply| Command::Apply { batch, durability, reply }))
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(|reply| Command::Sync { reply }))
    }

    fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>> {
        Box::pin(self.write(move |reply| Command::Lease { on, owner, ttl, reply }))
    }

    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |reply| Command::Release { lease, reply }))
    }

    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async { if self.commands.is_closed() { Err(StoreError::Closed) } else { Ok(*self.version.borrow()) } })
    }

    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>> {
        Box::pin(ask(&self.scans, |answer| Query::Directory { answer }))
    }

    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.write(move |reply| Command::ChangeDirectory { expected, changes, reply }))
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
