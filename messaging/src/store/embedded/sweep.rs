//! Takes rows off the disk whose time is over ([`super::expiry`]). Nobody is given them any more; here they go.
//!
//! * Whenever the engine merges, what is over is left out: a filter sees each row ([`Droppers`]). Draining does not write it either.
//!   This costs next to nothing, and in a busy store most rows go so.
//! * What is not merged by itself is looked for by a thread of its own ([`Sweeper`]), every day in a small table, every week in a
//!   large one. A table in which something is over is rewritten as a whole, through the same filter. The thread rests as long as it
//!   works. Meanwhile the engine does not merge, and the table stands on the disk twice; so one is left alone, with a warning, for which
//!   `store.embedded.max_bytes` has no room.
//! * The journal's files hold rows after they were drained, until the file is used again. So every day the rows in memory are drained,
//!   and the files that wait to be used again are deleted. A file is deleted at the third such time after a row was written to it, at
//!   the latest.
//!
//! So a row is gone from the disk at most [`EVERY_LARGE`] and a look after its time (a small table's, [`EVERY_SMALL`]), as far as the
//! store is open when a look is due; one that is kept for less than three days, three days after it was written.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as threads;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use fjall::LsmError;
use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};
use tokio::sync::mpsc;

use super::disk::Disk;
use super::expiry::{Expiry, Limits, WITH_AN_END};
use super::keys::Table;
use super::memory::Memory;
use super::tables::{Tables, meaning};
use super::writer::Command;
use crate::clock::{SharedClock, Timestamp};
use crate::metrics;
use crate::metrics::SupervisedTask;
use crate::store::StoreError;
use crate::supervise::again_here;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often the thread looks whether a table is due; the first time so long after opening.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How often a small table is looked through.
const EVERY_SMALL: Duration = DAY;
/// How often a large one is: it is much to rewrite.
const EVERY_LARGE: Duration = DAY.saturating_mul(7);
/// A table with more bytes is large.
const SMALL_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Rows after which the thread looks how long it has worked.
const ROWS_PER_LOOK: u32 = 256;
/// It works so long before it rests,
const WORK: Duration = Duration::from_millis(5);
/// and rests as long as it worked, but not longer than this.
const REST_MAX: Duration = Duration::from_millis(50);

/// What the thread is at, for those beside it.
pub(super) struct Progress {
    stopping: AtomicBool,
    /// Who rewrites a table.
    rewriting: Mutex<Option<ThreadId>>,
    /// Rows that were left out since the store was opened.
    dropped: AtomicU64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { stopping: AtomicBool::new(false), rewriting: Mutex::new(None), dropped: AtomicU64::new(0) }
    }

    /// Whether a table is being rewritten.
    pub(super) fn is_rewriting(&self) -> bool {
        self.who_rewrites().is_some()
    }

    fn who_rewrites(&self) -> Option<ThreadId> {
        *self.rewriting.lock().expect("nobody panics who holds it")
    }

    /// This thread begins to rewrite a table, or has ended.
    fn set_rewriting(&self, begins: bool) {
        let who = begins.then(|| std::thread::current().id());
        *self.rewriting.lock().expect("nobody panics who holds it") = who;
    }

    /// As if a table were being rewritten while the store closes.
    #[cfg(test)]
    pub(super) fn stop_in_this_thread(&self) {
        self.set_rewriting(true);
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Counts rows that were left out.
    pub(super) fn dropped(&self, rows: u64) {
        self.dropped.fetch_add(rows, Ordering::Relaxed);
        metrics::STORE_EXPIRED_ROWS.at([]).increment(rows);
    }
}

/// The store closes.
#[derive(Debug)]
pub(super) struct Stopped;

/// Makes long work on many rows rest as long as it works, and end when the store closes.
pub(super) struct Pace {
    clock: SharedClock,
    progress: Arc<Progress>,
    rows: u32,
    since: Duration,
}

impl Pace {
    fn new(clock: SharedClock, progress: Arc<Progress>) -> Self {
        Self { since: clock.monotonic(), clock, progress, rows: 0 }
    }

    /// Before each row.
    pub(super) fn row(&mut self) -> Result<(), Stopped> {
        self.rows += 1;
        if self.rows < ROWS_PER_LOOK {
            return Ok(());
        }
        self.rows = 0;
        if self.progress.is_stopping() {
            return Err(Stopped);
        }
        let worked = self.clock.monotonic().saturating_sub(self.since);
        if worked >= WORK {
            std::thread::sleep(worked.min(REST_MAX));
            self.since = self.clock.monotonic();
        }
        Ok(())
    }
}

/// What a filter knows.
struct Known {
    table: Table,
    expiry: Arc<Expiry>,
    progress: Arc<Progress>,
}

/// Makes the filter of each merge of a table.
pub(super) struct Droppers(AssertUnwindSafe<Known>);

impl Droppers {
    /// Of a table; none where no row has an end.
    pub(super) fn of(table: Table, expiry: &Arc<Expiry>, progress: &Arc<Progress>) -> Option<Arc<dyn Factory>> {
        let known = Known { table, expiry: expiry.clone(), progress: progress.clone() };
        WITH_AN_END.contains(&table).then(|| Arc::new(Self(AssertUnwindSafe(known))) as Arc<dyn Factory>)
    }
}

impl Factory for Droppers {
    fn name(&self) -> &str {
        "retention"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let Known { table, expiry, progress } = &*self.0;
        // The engine's own merges, on its thread, are not held up, and an error would end that thread.
        let is_ours = progress.who_rewrites() == Some(std::thread::current().id());
        let pace = is_ours.then(|| Pace::new(expiry.clock().clone(), progress.clone()));
        Box::new(Dropper { table: *table, limits: expiry.now(), progress: progress.clone(), dropped: 0, pace })
    }
}

/// Leaves out what is over, in one merge.
struct Dropper {
    table: Table,
    limits: Limits,
    progress: Arc<Progress>,
    dropped: u64,
    pace: Option<Pace>,
}

impl CompactionFilter for Dropper {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        if let Some(pace) = &mut self.pace
            && pace.row().is_err()
        {
            // The merge is undone; the table stays as it was.
            return Err(LsmError::Io(io::Error::other("the store closes")));
        }
        if !self.limits.is_over(self.table, item.key(), &item.value()?) {
            return Ok(Verdict::Keep);
        }
        self.dropped += 1;
        // As if it had been deleted: an older value of the key, further below, does not come back.
        Ok(Verdict::Remove)
    }

    fn finish(self: Box<Self>) {
        self.progress.dropped(self.dropped);
    }
}

/// What the thread is told.
enum Wake {
    /// Look at once, and say when it is done.
    #[cfg(test)]
    Look(threads::SyncSender<()>),
    /// The store closes.
    Stop,
}

/// The thread, as the writer sees it.
pub(super) struct Sweeper {
    wakes: threads::SyncSender<Wake>,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

/// Wakes the thread.
#[cfg(test)]
pub(super) struct Waker(threads::SyncSender<Wake>);

#[cfg(test)]
impl Waker {
    /// Has it look, and waits until it has. Blocks.
    pub(super) fn look(&self) {
        let (done, looked) = threads::sync_channel(1);
        self.0.send(Wake::Look(done)).expect("the thread lives");
        looked.recv().expect("the thread looks");
    }
}

impl Sweeper {
    pub(super) fn start(sweep: Sweep) -> io::Result<Self> {
        let (wakes, woken) = threads::sync_channel(1);
        let progress = sweep.tables.progress().clone();
        let thread = std::thread::Builder::new().name("store-sweep".to_owned()).spawn(move || {
            again_here(SupervisedTask::Sweep, || {
                while !sweep.tables.progress().is_stopping() {
                    match woken.recv_timeout(LOOK_EVERY) {
                        Err(threads::RecvTimeoutError::Timeout) => sweep.look(),
                        #[cfg(test)]
                        Ok(Wake::Look(done)) => {
                            sweep.look();
                            let _ = done.send(());
                        }
                        Ok(Wake::Stop) | Err(threads::RecvTimeoutError::Disconnected) => return,
                    }
                }
            });
        })?;
        Ok(Self { wakes, progress, thread })
    }

    #[cfg(test)]
    pub(super) fn waker(&self) -> Waker {
        Waker(self.wakes.clone())
    }

    /// Ends the thread, also in the middle of its work.
    pub(super) fn stop(self) {
        self.progress.stopping.store(true, Ordering::Relaxed);
        // When the queue is full it looks for this after what it is at.
        let _ = self.wakes.try_send(Wake::Stop);
        // A panic was reported when it happened.
        let _ = self.thread.join();
    }
}

/// What the thread works with.
pub(super) struct Sweep {
    pub(super) tables: Tables,
    pub(super) memory: Arc<Memory>,
    pub(super) disk: Arc<Disk>,
    pub(super) clock: SharedClock,
    /// The writer's. Weak: the thread is no reason for the writer to go on.
    pub(super) commands: mpsc::WeakSender<Command>,
}

impl Sweep {
    /// Looks through the tables that are due.
    fn look(&self) {
        let now = self.clock.now();
        let due: Vec<Table> = WITH_AN_END.into_iter().filter(|table| self.is_due(*table, now)).collect();
        if due.is_empty() {
            return;
        }
        self.tell(Command::Drain);
        for table in due {
            match self.sweep(table).and_then(|()| self.tables.note_swept(table, now).map_err(|error| meaning(&error))) {
                Ok(()) => {}
                Err(_) if self.tables.progress().is_stopping() => return,
                Err(error) => tracing::warn!(?table, %error, "rows past their retention could not be looked for"),
            }
        }
        // The engine deletes the files of before once nobody sees them any more.
        self.memory.refresh(self.tables.snapshot());
        if let Err(error) = self.tables.let_go() {
            tracing::warn!(%error, "files of before could not be let go of");
        }
        self.tell(Command::Measure);
    }

    /// The writer does it in its turn; when its queue is full, after the next look.
    fn tell(&self, command: Command) {
        if let Some(commands) = self.commands.upgrade() {
            let _ = commands.try_send(command);
        }
    }

    fn is_due(&self, table: Table, now: Timestamp) -> bool {
        if !self.tables.expiry().now().may_be_over(table) {
            return false;
        }
        let every = if self.tables.bytes(table) > SMALL_BYTES_MAX { EVERY_LARGE } else { EVERY_SMALL };
        // A time that is still to come was noted by a clock that went wrong.
        self.tables.swept_at(table).is_none_or(|last| last > now || last.plus(every) <= now)
    }

    /// Looks whether anything in a table is over, and rewrites it if so.
    fn sweep(&self, table: Table) -> Result<(), StoreError> {
        let limits = self.tables.expiry().now();
        let mut pace = Pace::new(self.clock.clone(), self.tables.progress().clone());
        if !self.tables.holds_any(table, |key, value| pace.row().map(|()| limits.is_over(table, key, value)))? {
            return Ok(());
        }
        let (bytes, used, limit) = (self.tables.bytes(table), self.disk.used(), self.disk.limit());
        if used.saturating_add(bytes) > limit {
            let cure = "raise store.embedded.max_bytes, or keep rows for less long";
            tracing::warn!(?table, bytes, used, limit, cure, "no room to rewrite a table: rows past their retention stay on the disk");
            return Ok(());
        }
        let progress = self.tables.progress();
        let before = progress.dropped.load(Ordering::Relaxed);
        progress.set_rewriting(true);
        let rewritten = self.tables.rewrite(table);
        progress.set_rewriting(false);
        rewritten.map_err(|error| meaning(&error))?;
        let rows = progress.dropped.load(Ordering::Relaxed) - before;
        let after = self.tables.bytes(table);
        tracing::info!(?table, rows, before = bytes, after, "rows past their retention were taken off the disk");
        Ok(())
    }
}
