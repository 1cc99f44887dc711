//! What the threads and the readers of one open log share.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::disk::Disk;
use super::finished::FinishedFile;
use super::queue::Queue;
use super::state::{ReadBack, State};
use super::walk::{Extent, Step, Walk};
use super::writer::PendingFinish;
use crate::clock::SharedClock;
use crate::log::{EmbeddedSettings, Fsync, LogError};

/// The segment that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Upkeep makes it.
    Preparing,
    /// It is on disk, all zeros.
    Ready(Extent),
    /// There is no room for it now.
    NoRoom,
}

/// Shared by the writer, upkeep and the readers.
pub(super) struct Core {
    pub settings: EmbeddedSettings,
    pub clock: SharedClock,
    pub disk: Disk,
    pub log_id: u64,
    pub state: Mutex<State>,
    pub queue: Queue,
    /// Lock before `state`, never after.
    pub finished: Mutex<FinishedFile>,
    /// Set when the finished positions could not be written for another reason than room: they are not tried again.
    pub finished_broken: AtomicBool,
    pub pending_finishes: Mutex<Vec<PendingFinish>>,
    /// Segments begin here at the earliest, when they cannot simply follow the last.
    pub base_min: u64,
    next: Mutex<NextState>,
    next_changed: Condvar,
    /// A failed write or sync: nothing is taken any more, until the log is opened again.
    broken: AtomicBool,
    /// No room: appends are refused until upkeep finds some.
    full: AtomicBool,
    /// Held while a shard reads the file.
    pub reading: tokio::sync::Mutex<()>,
    /// One for each shard.
    pub arrivals: Vec<Notify>,
    pub folder_lock: Mutex<Option<File>>,
}

struct NextState {
    next: Next,
    look_again: bool,
    stopping: bool,
}

/// Why the writer has no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSegment {
    /// No room now.
    Full,
    /// Never again.
    Closed,
}

/// The parts that recovery found.
pub(super) struct Parts {
    pub settings: EmbeddedSettings,
    pub clock: SharedClock,
    pub disk: Disk,
    pub log_id: u64,
    pub state: State,
    pub finished: FinishedFile,
    pub next: Next,
    pub base_min: u64,
    pub folder_lock: File,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Self {
        let arrivals = (0..parts.settings.partitions).map(|_| Notify::new()).collect();
        Self {
            settings: parts.settings,
            clock: parts.clock,
            disk: parts.disk,
            log_id: parts.log_id,
            state: Mutex::new(parts.state),
            queue: Queue::default(),
            finished: Mutex::new(parts.finished),
            finished_broken: AtomicBool::new(false),
            pending_finishes: Mutex::new(Vec::new()),
            base_min: parts.base_min,
            next: Mutex::new(NextState { next: parts.next, look_again: false, stopping: false }),
            next_changed: Condvar::new(),
            broken: AtomicBool::new(false),
            full: AtomicBool::new(false),
            reading: tokio::sync::Mutex::new(()),
            arrivals,
            folder_lock: Mutex::new(Some(parts.folder_lock)),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the state panics")
    }

    fn next(&self) -> MutexGuard<'_, NextState> {
        self.next.lock().expect("no holder of the next segment panics")
    }

    /// Whether a failed write ended this log's taking.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Whether there was no room at the last try.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Takes nothing more: what a failed sync left on disk is not known, and asking again would not tell.
    pub(super) fn break_off(&self, what: &str, error: &std::io::Error) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "{what} failed, the log takes nothing more until it is opened again");
        }
        self.queue.stop();
        // Held for a moment, so that who looked before the flag stood waits by now. A poisoned lock does as well.
        let held = self.next.lock();
        self.next_changed.notify_all();
        drop(held);
    }

    /// The writer panicked or ended: whoever waits for it must not wait for ever.
    pub(super) fn writer_ended(&self) {
        if std::thread::panicking() {
            self.break_off("the writer", &std::io::Error::other("it panicked"));
        }
        self.queue.stop();
        let mut left = std::collections::VecDeque::new();
        while self.queue.fetch(&mut left) {
            self.queue.answer(left.drain(..).map(|call| call.failed(u64::MAX, crate::log::AppendError::Closed)));
        }
    }

    /// Waits while the next segment is being made, and takes it.
    pub(super) fn take_next(&self) -> Result<Extent, NoSegment> {
        let mut state = self.next();
        loop {
            if self.is_broken() {
                return Err(NoSegment::Closed);
            }
            match state.next {
                Next::Ready(extent) => {
                    state.next = Next::Preparing;
                    state.look_again = true;
                    self.next_changed.notify_all();
                    return Ok(extent);
                }
                Next::NoRoom => {
                    // Under the lock, so that upkeep cannot have found room in between.
                    self.full.store(true, Ordering::Release);
                    return Err(NoSegment::Full);
                }
                Next::Preparing if state.stopping => return Err(NoSegment::Closed),
                Next::Preparing => state = self.next_changed.wait(state).expect("no holder of the next segment panics"),
            }
        }
    }

    /// A group found no room; upkeep lifts the refusal after a while.
    pub(super) fn refuse_for_a_while(&self) {
        let mut state = self.next();
        self.full.store(true, Ordering::Release);
        state.look_again = true;
        self.next_changed.notify_all();
    }

    /// Lets groups try again, if there is a segment for them.
    pub(super) fn lift_refusal(&self) {
        let state = self.next();
        match state.next {
            Next::Ready(_) => self.full.store(false, Ordering::Release),
            Next::NoRoom | Next::Preparing => {}
        }
    }

    /// Upkeep says what became of the next segment.
    pub(super) fn set_next(&self, next: Next) {
        let mut state = self.next();
        state.next = next;
        match next {
            Next::Ready(_) => self.full.store(false, Ordering::Release),
            Next::NoRoom | Next::Preparing => {}
        }
        self.next_changed.notify_all();
    }

    /// What is with the next segment.
    pub(super) fn next_segment(&self) -> Next {
        self.next().next
    }

    /// Asks upkeep to look again: something became finished.
    pub(super) fn look_again(&self) {
        self.next().look_again = true;
        self.next_changed.notify_all();
    }

    /// Waits until upkeep is asked to look, or for `at_most`. False when it shall end.
    pub(super) fn await_work(&self, at_most: std::time::Duration) -> bool {
        let state = self.next();
        let idle = |state: &mut NextState| !state.look_again && !state.stopping;
        let (mut state, _) = self.next_changed.wait_timeout_while(state, at_most, idle).expect("no holder of the next segment panics");
        state.look_again = false;
        !state.stopping
    }

    /// Ends upkeep, and a writer that waits for it.
    pub(super) fn stop_upkeep(&self) {
        self.next().stopping = true;
        self.next_changed.notify_all();
    }

    /// Whether upkeep shall end.
    pub(super) fn upkeep_stops(&self) -> bool {
        self.next().stopping
    }

    /// What counts as durable when finished positions are written. With `fsync = "never"` nothing does.
    pub(super) fn known_end(&self, end: u64) -> u64 {
        match self.settings.fsync {
            Fsync::Group | Fsync::Each => end,
            Fsync::Never => 0,
        }
    }

    /// Reads groups from disk, from a group's place or its end on. Blocks.
    pub(super) fn read_back(&self, from: u64, bytes: u64) -> Result<ReadBack, LogError> {
        let (extents, end) = {
            let state = self.state();
            (state.extents(), state.end)
        };
        let mut back = ReadBack { from, next: from, groups: Vec::new(), skipped: false };
        let mut walk = Walk::new(&self.disk.dir, self.log_id, self.settings.partitions, extents, end, bytes as usize);
        let mut previous_end = None;
        while back.next < end {
            // A read of its own is only for the first group.
            if !back.groups.is_empty() && !walk.has_read(back.next) {
                break;
            }
            match walk.step(back.next, previous_end)? {
                Step::Group(group) => {
                    back.next = group.end;
                    previous_end = Some(group.end);
                    back.groups.push(group);
                }
                Step::End | Step::Damage(_) if !back.groups.is_empty() => break,
                Step::End => {
                    let (file, offset) = walk.locate(back.next);
                    let what = "groups that were durable are missing".to_owned();
                    let damage = super::walk::Damage { file, offset, what, next: None };
                    self.pass_over(&mut walk, damage, &mut back, end)?;
                }
                Step::Damage(damage) => {
                    previous_end = None;
                    self.pass_over(&mut walk, damage, &mut back, end)?;
                }
            }
        }
        Ok(back)
    }

    fn pass_over(&self, walk: &mut Walk, damage: super::walk::Damage, back: &mut ReadBack, end: u64) -> Result<(), LogError> {
        let next = damage.next.unwrap_or(end);
        if !self.settings.skip_damage {
            return Err(walk.refuse(damage));
        }
        let file = damage.file.display();
        tracing::error!(%file, offset = damage.offset, what = damage.what, from = back.next, to = next, "skipped a damaged range of the log");
        back.next = next;
        back.skipped = true;
        Ok(())
    }
}

/// Ends the threads when the log is dropped without `close`; what was acknowledged is durable anyway.
pub(super) struct StopOnDrop(pub Arc<Core>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.queue.stop();
        self.0.stop_upkeep();
    }
}
