//! The embedded log: one physical log for all topics and partitions, group commit, no service beside it.
//!
//! # Layout
//!
//! A folder has:
//! * `log.json`: what was fixed when it was made (format, partitions, a random id), with a checksum;
//! * `<place>.seg`: segments, preallocated and filled with zeros, named after the place of their first byte; the bytes of the
//!   groups in them stand in [`format`];
//! * `finished`: how far each topic and partition is finished, in two slots (`finished`);
//! * `lock`: held while the log is open.
//!
//! # Why it is safe to crash at any byte
//!
//! * The writer writes one group at a time and the next only when the one before is durable (`O_DSYNC`). So at most one
//!   group, the last, is torn: its checksums say so, it was never acknowledged nor shown to a reader, and opening cuts it,
//!   which means that it overwrites it with zeros. A bad group with a later one behind it was durable once: that is damage, and
//!   opening refuses, or skips it when the operator says so. A group's header carries a random id of the log, its own place
//!   and the end of the group before it, so neither payloads nor old bytes pass for groups and no missing group is overlooked.
//! * A group begins in the middle of a disk block whose first part is durable already. Rewriting that part with the same bytes
//!   is taken to be harmless, as SQLite takes it too ("powersafe overwrite").
//! * A segment appears under its name when it is whole and synced. It is deleted after the durable low place stands behind it.
//! * Finished positions go to the slot that does not hold the newest intact state. With them goes the known end of the log, so
//!   damage of the last groups is told from a torn tail from the next `finish` or the close on.
//!
//! # After a failed write
//!
//! No room (`ENOSPC`, or `max_bytes` with nothing finished to drop): appends get `Full` until there is room; the failed
//! group's place is overwritten by the next group. Any other failure: what is on disk is not known, so the log takes nothing
//! more until it is opened again; what was durable can still be taken and finished.
//!
//! # Retention
//!
//! Whole segments whose records are all finished are deleted when they are older than `retention`, or earlier when `max_bytes`
//! leaves no room for the next segment. An unfinished record is never deleted.

mod cache;
mod core;
pub mod disk;
mod finished;
mod finishing;
mod format;
mod queue;
mod reader;
mod recover;
mod state;
mod upkeep;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use self::core::{Core, StopOnDrop};
use self::queue::{Call, PENDING, QUEUE_RECORDS_MAX, Results};
use super::{AppendError, ClaimChange, EmbeddedSettings, Finished, Lag, Log, LogError, NewRecord, Position, ShardReader};
use crate::BoxFuture;
use crate::clock::SharedClock;
use crate::metrics::SupervisedTask;
use crate::supervise::{again_here, vital_here};

/// Segments begin at multiples of this, and their length is one.
const SEGMENT_ALIGN: u64 = 4096;
/// The smallest segment.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The largest segment: offsets within groups are 32-bit.
const SEGMENT_BYTES_MAX: u64 = 2 << 30;
/// The largest payload that can be configured.
const RECORD_BYTES_MAX: usize = 512 << 20;

/// The writer and upkeep.
type Threads = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// An open embedded log.
pub struct EmbeddedLog {
    core: Arc<Core>,
    threads: Threads,
    assigned: AtomicBool,
    _stop: StopOnDrop,
}

impl EmbeddedLog {
    /// Opens the log in a folder, or makes it.
    pub(super) fn open(settings: EmbeddedSettings, clock: SharedClock) -> Result<Self, LogError> {
        Self::open_with(settings, clock, None)
    }

    /// The same, with faults planted.
    fn open_with(settings: EmbeddedSettings, clock: SharedClock, faults: Option<disk::Faults>) -> Result<Self, LogError> {
        let (core, writer) = recover::open(settings, clock, faults)?;
        let upkeep = core.clone();
        let stop = StopOnDrop(core.clone());
        let threads = vec![
            std::thread::Builder::new().name("log-writer".into()).spawn(move || vital_here(SupervisedTask::LogWriter, || writer.run()))?,
            std::thread::Builder::new()
                .name("log-upkeep".into())
                .spawn(move || again_here(SupervisedTask::LogUpkeep, || upkeep::run(&upkeep)))?,
        ];
        Ok(Self { core, threads: Arc::new(Mutex::new(threads)), assigned: AtomicBool::new(false), _stop: stop })
    }

    /// What a batch's records get at once; `PENDING` for those that go to the writer.
    fn judge(&self, batch: &[NewRecord]) -> Results {
        let settings = &self.core.settings;
        let judged = batch.iter().map(|record| {
            if record.payload.len() > settings.max_record {
                return Err(AppendError::TooLarge { max: settings.max_record });
            }
            if record.partition >= settings.partitions {
                return Err(AppendError::Partition);
            }
            PENDING
        });
        judged.collect()
    }

    /// Gives a batch to the writer; or what came of it at once.
    fn enqueue(&self, batch: Vec<NewRecord>) -> Result<oneshot::Receiver<Results>, Results> {
        let results = self.judge(&batch);
        if !results.contains(&PENDING) {
            return Err(results);
        }
        let bytes = batch.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(record, _)| record.payload.len()).sum();
        let (done, answer) = oneshot::channel();
        let call = Call { batch, results, since: self.core.clock.monotonic(), bytes, done };
        if self.core.is_full() && !self.core.queue.is_stopping() {
            return Err(call.failed(u64::MAX, AppendError::Full).results);
        }
        match self.core.queue.push(call) {
            Ok(()) => Ok(answer),
            Err((call, error)) => Err(call.failed(u64::MAX, error).results),
        }
    }
}

impl Log for EmbeddedLog {
    fn partitions(&self) -> u16 {
        self.core.settings.partitions
    }

    fn max_record(&self) -> usize {
        self.core.settings.max_record
    }

    /// The batch is queued when this is called, so calls that are made one after another are appended in that order. Dropping
    /// the future does not take the batch back.
    fn append(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        let records = batch.len();
        let queued = self.enqueue(batch);
        Box::pin(async move {
            match queued {
                Ok(answer) => answer.await.unwrap_or_else(|_| vec![Err(AppendError::Closed); records]),
                Err(results) => results,
            }
        })
    }

    fn claims(&self) -> BoxFuture<'_, ClaimChange> {
        Box::pin(async move {
            if self.assigned.swap(true, Ordering::AcqRel) {
                std::future::pending::<()>().await;
            }
            let shards = 0..self.core.settings.partitions;
            let readers = shards.map(|shard| Box::new(reader::Reader { core: self.core.clone(), shard }) as Box<dyn ShardReader>);
            ClaimChange::Assigned(readers.collect())
        })
    }

    fn finish(&self, finished: Vec<Finished>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            if self.core.state().closed {
                return Err(LogError::Closed);
            }
            let (answer, answered) = oneshot::channel();
            self.core.pending_finishes.lock().expect("no holder of the waiting calls panics").push((finished, answer));
            let core = self.core.clone();
            // Whichever call comes first writes for all that wait.
            tokio::task::spawn_blocking(move || finishing::write_pending(&core));
            answered.await.unwrap_or(Err(LogError::Closed))
        })
    }

    fn lag(&self) -> Vec<Lag> {
        self.core.state().lag()
    }

    fn writable(&self) -> bool {
        !self.core.is_broken() && !self.core.is_full() && !self.core.queue.is_stopping()
    }

    fn disk(&self) -> (u64, u64) {
        (self.core.state().disk_bytes(), self.core.settings.max_bytes)
    }

    fn queue(&self) -> (usize, usize) {
        (self.core.queue.records(), QUEUE_RECORDS_MAX)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let core = self.core.clone();
        let threads = self.threads.clone();
        Box::pin(async move {
            core.queue.stop();
            // The threads' ends are waited for off the async workers. A second call waits for the first.
            let closing = tokio::task::spawn_blocking(move || close_down(&core, &threads));
            if closing.await.is_err() {
                tracing::error!("closing the log did not end well, the next opening recovers");
            }
        })
    }
}

fn close_down(core: &Core, threads: &Threads) {
    let mut threads = threads.lock().expect("no closer panics");
    if threads.is_empty() {
        return;
    }
    let mut ended_well = !core.is_broken();
    for (index, thread) in threads.drain(..).enumerate() {
        // The writer comes first: it may still need the next segment from upkeep.
        if index == 1 {
            core.stop_upkeep();
        }
        ended_well &= thread.join().is_ok();
    }
    finishing::write_pending(core);
    let known_end = core.known_end(core.state().end);
    if ended_well {
        finishing::write_last(core, known_end);
    }
    // Under the lock of the finished positions: a write of them that is under way ends first, a later one finds the log closed.
    let finished = core.finished.lock().expect("no holder of the finished positions panics");
    core.state().closed = true;
    drop(finished);
    for arrivals in &core.arrivals {
        arrivals.notify_one();
    }
    drop(core.folder_lock.lock().expect("no holder of the lock panics").take());
}
