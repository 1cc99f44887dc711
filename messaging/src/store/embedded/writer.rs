//! The one thread that writes. What waits when it looks becomes one group: one frame of the journal and, if any of it must
//! survive power loss, one sync for all. Then its rows join those in memory, as one; when these are many they are frozen and drained.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fjall::UserKey;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::Disk;
use super::drain::{Drain, Drained, Job};
use super::expiry::stamped;
use super::journal::{Journal, Row};
use super::keys;
use super::memory::Memory;
use super::node::Node;
use super::reader::Pool;
use super::sweep::Sweeper;
use super::tables::{Tables, poisoned};
use crate::clock::SharedClock;
use crate::store::{Durability, Lease, LeaseAnswer, LeaseOn, StoreError, Write};

/// Commands waiting for the writer; beyond, callers wait.
pub(super) const QUEUE_MAX: usize = 256;
/// Commands in one group.
const GROUP_MAX_COMMANDS: usize = 64;
/// A group that has this many bytes takes no further command: it would only make the others wait.
const GROUP_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// What the store adds to a row on disk, about.
const ROW_OVERHEAD_BYTES: u64 = 64;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub(super) enum Command {
    Apply {
        batch: Arc<Vec<Write>>,
        durability: Durability,
        reply: Reply<()>,
    },
    Sync {
        reply: Reply<()>,
    },
    Lease {
        on: LeaseOn,
        owner: [u8; 16],
        ttl: Duration,
        reply: Reply<LeaseAnswer>,
    },
    Release {
        lease: Lease,
        reply: Reply<()>,
    },
    ChangeDirectory {
        expected: u64,
        changes: Vec<(String, Option<Vec<u8>>)>,
        reply: Reply<u64>,
    },
    /// Measure the disk.
    Measure,
    /// Drain what stands in memory, and leave nothing of it in the journal's files.
    Drain,
    /// Do what came before, then let go of the files.
    Close,
}

/// What a command gets once its group is written.
enum Outcome {
    Done(Reply<()>),
    Lease(Reply<LeaseAnswer>, LeaseAnswer),
    Version(Reply<u64>, u64),
}

impl Outcome {
    fn send(self, result: Result<(), StoreError>) {
        // Who gave up waiting is not told.
        match self {
            Self::Done(reply) => drop(reply.send(result)),
            Self::Lease(reply, answer) => drop(reply.send(result.map(|()| answer))),
            Self::Version(reply, version) => drop(reply.send(result.map(|()| version))),
        }
    }
}

/// How the journal is made to sync.
pub(super) type SyncFn = fn(&mut Journal) -> io::Result<()>;

/// The writer thread's state.
pub(super) struct Writer {
    pub(super) tables: Tables,
    pub(super) memory: Arc<Memory>,
    pub(super) journal: Journal,
    pub(super) drain: Drain,
    /// The thread that takes away what is over; it ends first, for it works with the tables.
    pub(super) sweeper: Option<Sweeper>,
    /// The rows in memory are to be drained though they are few.
    pub(super) drain_all: bool,
    /// Bytes of rows in memory at which they are drained.
    pub(super) memory_bytes: usize,
    pub(super) node: Node,
    pub(super) disk: Arc<Disk>,
    pub(super) clock: SharedClock,
    pub(super) sync: SyncFn,
    /// A write or sync has failed: the kernel may have dropped what it could not write, so a later success would prove nothing.
    pub(super) broken: bool,
    /// The directory's version, once it is durable.
    pub(super) version: watch::Sender<u64>,
    /// The threads that read; they end with this one.
    pub(super) pools: Vec<Pool>,
}

/// What is written together.
#[derive(Default)]
struct Group {
    rows: Vec<Row>,
    bytes: u64,
    synced: bool,
    outcomes: Vec<Outcome>,
}

impl Writer {
    /// Works until it is closed or nobody can ask any more. `ended` tells, by being dropped, that the files are let go of.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>, ended: watch::Sender<()>) {
        while let Some(first) = commands.blocking_recv() {
            if !self.run_group(first, &mut commands) {
                break;
            }
        }
        commands.close();
        if let Some(sweeper) = self.sweeper.take() {
            sweeper.stop();
        }
        for pool in self.pools.drain(..) {
            pool.stop();
        }
        let drained = self.drain.stop();
        if let Some(Ok(numbers)) = drained {
            // What is not let go of is read again at the next opening, which changes nothing.
            let _ = self.journal.release(&numbers);
        }
        let _ = self.journal.sync();
        // The engine ends its threads when the last handle goes, and with it the readers' view.
        drop((self.memory, self.tables));
        drop(commands);
        drop(ended);
    }

    /// Collects a group and writes it. `false` when it was the last.
    fn run_group(&mut self, first: Command, commands: &mut mpsc::Receiver<Command>) -> bool {
        let mut group = Group::default();
        let mut next = Some(first);
        let mut taken = 0;
        let mut last = false;
        while let Some(command) = next {
            if !self.add(command, &mut group) {
                last = true;
                break;
            }
            taken += 1;
            if taken >= GROUP_MAX_COMMANDS || group.bytes >= GROUP_MAX_BYTES {
                break;
            }
            next = commands.try_recv().ok();
        }
        group.synced |= last;
        self.write(group);
        !last
    }

    /// Adds a command to the group, or answers it. `false` for the one that ends the thread.
    fn add(&mut self, command: Command, group: &mut Group) -> bool {
        match command {
            Command::Apply { batch, durability, reply } => self.add_batch(&batch, durability, reply, group),
            Command::Sync { reply } => {
                group.synced = true;
                group.outcomes.push(Outcome::Done(reply));
            }
            Command::Lease { on, owner, ttl, reply } => {
                let now = self.clock.now();
                let (answer, written) = self.node.take_lease(&mut group.rows, (on, owner, ttl), now);
                group.synced |= written;
                group.outcomes.push(Outcome::Lease(reply, answer));
            }
            Command::Release { lease, reply } => {
                group.synced |= self.node.release_lease(&mut group.rows, &lease);
                group.outcomes.push(Outcome::Done(reply));
            }
            Command::ChangeDirectory { expected, changes, reply } => match self.node.change_directory(&mut group.rows, expected, changes) {
                Ok(version) => {
                    group.synced = true;
                    group.outcomes.push(Outcome::Version(reply, version));
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Measure => self.measure(),
            Command::Drain => self.drain_all = true,
            Command::Close => return false,
        }
        true
    }

    fn add_batch(&self, batch: &[Write], durability: Durability, reply: Reply<()>, group: &mut Group) {
        let bytes: u64 = batch.iter().map(size_of).sum();
        let puts = batch.iter().any(|write| write.value.is_some());
        if puts && self.disk.is_full(&self.tables, group.bytes + bytes) {
            return drop(reply.send(Err(StoreError::Full)));
        }
        for write in batch {
            let table = keys::table_of(&write.key);
            let key = UserKey::from(keys::encode(&write.key).as_ref());
            let value = write.value.as_ref().map(|value| stamped(table, &key, value, write.at));
            group.rows.push((table, key, value));
        }
        group.bytes += bytes;
        group.synced |= durability == Durability::Synced;
        group.outcomes.push(Outcome::Done(reply));
    }

    fn write(&mut self, group: Group) {
        let Group { rows, bytes, synced, outcomes } = group;
        let result = self.commit(rows, synced);
        if result.is_ok() {
            if self.disk.wrote(bytes) {
                self.measure();
            }
            self.version.send_if_modified(|version| std::mem::replace(version, self.node.version()) != self.node.version());
        }
        for outcome in outcomes {
            outcome.send(result.clone());
        }
    }

    fn commit(&mut self, rows: Vec<Row>, synced: bool) -> Result<(), StoreError> {
        if self.broken {
            return Err(poisoned());
        }
        let written = self.record(&rows, synced).map_err(|error| StoreError::Unavailable(format!("disk i/o: {error}")));
        let written = written.and_then(|()| {
            let active = self.memory.add(rows);
            self.look_after_draining(active)
        });
        self.broken |= written.is_err();
        written
    }

    /// Into the kernel's hands at least, so that the process's death loses nothing.
    fn record(&mut self, rows: &[Row], synced: bool) -> io::Result<()> {
        if !rows.is_empty() {
            self.journal.begin_frame();
            for (table, key, value) in rows {
                self.journal.add(*table, key, value.as_deref());
            }
            self.journal.write_frame()?;
        }
        if synced { (self.sync)(&mut self.journal) } else { Ok(()) }
    }

    /// Frees what was drained; has the rows in memory drained when they are many. Then it waits for those before.
    fn look_after_draining(&mut self, active_bytes: usize) -> Result<(), StoreError> {
        let is_much = active_bytes >= self.memory_bytes || self.journal.has_many_files() || self.drain_all;
        if let Some(drained) = self.drain.ended(is_much) {
            self.free(drained)?;
        }
        if !is_much {
            return Ok(());
        }
        let Some(rows) = self.memory.freeze() else { return Ok(()) };
        let journals = self.rotate().map_err(|error| StoreError::Unavailable(format!("disk i/o: {error}")))?;
        self.drain.begin(Job { rows, journals });
        Ok(())
    }

    /// Begins another file of the journal; a fresh one if nothing of before is to stand in it.
    fn rotate(&mut self) -> io::Result<Vec<u64>> {
        if std::mem::take(&mut self.drain_all) {
            self.journal.delete_spares()?;
        }
        self.journal.rotate()
    }

    fn free(&mut self, drained: Drained) -> Result<(), StoreError> {
        let numbers = drained?;
        self.journal.release(&numbers).map_err(|error| StoreError::Unavailable(format!("disk i/o: {error}")))
    }

    fn measure(&mut self) {
        // Else the engine keeps the files that it has merged since the last draining.
        self.memory.refresh(self.tables.snapshot());
        self.disk.measure(&self.tables);
    }
}

/// About how many bytes a write takes on disk.
fn size_of(write: &Write) -> u64 {
    write.value.as_ref().map_or(0, Vec::len) as u64 + ROW_OVERHEAD_BYTES
}
