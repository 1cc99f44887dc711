//! The thread that drains: takes frozen rows, which are sorted, and writes them into the engine as whole files, past the engine's
//! own journal and memory. What stood in the journal only stands in a table then, durably, and the journal's files are free.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::keys::Table;
use super::memory::{Memory, Rows};
use super::tables::{Tables, meaning};
use crate::metrics::SupervisedTask;
use crate::store::StoreError;
use crate::supervise::vital_here;

/// With more files of a table waiting to be merged, draining waits for the engine, and writing waits for draining.
const UNMERGED_MAX: usize = 24;
/// How often it looks whether they are merged.
const MERGE_LOOK: Duration = Duration::from_millis(10);
/// After so many looks it goes on all the same: reads get slower, nothing else.
const MERGE_LOOKS_MAX: usize = 2000;

/// Rows to drain, and the journal's files that have them.
pub(super) struct Job {
    pub(super) rows: Arc<Rows>,
    pub(super) journals: Vec<u64>,
}

/// What became of a job: the journal's files that are free.
pub(super) type Drained = Result<Vec<u64>, StoreError>;

/// The thread, as the writer sees it. At most one job is under way.
pub(super) struct Drain {
    jobs: Option<mpsc::SyncSender<Job>>,
    drained: mpsc::Receiver<Drained>,
    thread: Option<JoinHandle<()>>,
    /// Whether a job is under way.
    busy: bool,
}

impl Drain {
    pub(super) fn start(tables: Tables, memory: Arc<Memory>) -> std::io::Result<Self> {
        let (jobs, todo) = mpsc::sync_channel::<Job>(1);
        let (done, drained) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("store-drain".to_owned()).spawn(move || {
            for job in todo {
                let result = vital_here(SupervisedTask::StoreWriter, || {
                    let result = drain(&tables, &job.rows).map(|()| job.journals);
                    if result.is_ok() {
                        memory.drained(tables.snapshot());
                    }
                    result
                });
                if done.send(result).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), drained, thread: Some(thread), busy: false })
    }

    /// Begins a job. Only when none is under way.
    pub(super) fn begin(&mut self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A thread that is gone does not take it; then `ended` says so.
            let _ = jobs.send(job);
            self.busy = true;
        }
    }

    /// What became of the job under way: waits for it, or looks whether it is over. A thread that is gone drains nothing more, and says
    /// so: else rows would gather in memory without end.
    pub(super) fn ended(&mut self, wait: bool) -> Option<Drained> {
        if !self.busy {
            return None;
        }
        let ended = if wait { self.drained.recv().map_err(|_| mpsc::TryRecvError::Disconnected) } else { self.drained.try_recv() };
        match ended {
            Ok(drained) => {
                self.busy = false;
                Some(drained)
            }
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Err(StoreError::Unavailable("the thread that drains rows has ended".to_owned()))),
        }
    }

    /// Waits for the job under way and ends the thread.
    pub(super) fn stop(mut self) -> Option<Drained> {
        let last = self.ended(true);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
        last
    }
}

fn drain(tables: &Tables, rows: &Rows) -> Result<(), StoreError> {
    for table in Table::ALL {
        if rows.table(table).is_empty() {
            continue;
        }
        wait_for_merging(tables, table);
        fill(tables, table, rows).map_err(|error| meaning(&error))?;
    }
    Ok(())
}

fn fill(tables: &Tables, table: Table, rows: &Rows) -> fjall::Result<()> {
    let limits = tables.expiry().now();
    let mut filling = tables.get(table).start_ingestion()?;
    for (key, value) in rows.table(table) {
        match value {
            // What is over is not written any more; what it replaced goes too.
            Some(value) if !limits.is_over(table, key, value) => filling.write(key.clone(), value.as_slice())?,
            Some(_) | None => filling.write_tombstone(key.clone())?,
        }
    }
    filling.finish()
}

fn wait_for_merging(tables: &Tables, table: Table) {
    for _ in 0..MERGE_LOOKS_MAX {
        // While a table is rewritten the engine merges nothing: it would be waited for in vain.
        if tables.unmerged(table) <= UNMERGED_MAX || tables.progress().is_rewriting() {
            return;
        }
        std::thread::sleep(MERGE_LOOK);
    }
}
