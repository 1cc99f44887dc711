//! Upkeep: one thread that makes the next segment before it is needed and deletes those that nobody needs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::{Core, Next};
use super::disk;
use super::finished::FinishedState;
use super::state::{Segment, State};
use super::walk::Extent;
use crate::clock::Timestamp;

/// How often segments are looked at when nothing else happens. The only times that are not the clock's: they decide when we
/// look, never what we find.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often room is looked for when there is none.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(1);

/// Makes a panic of the thread known: the writer must not wait for it for ever.
struct Ended<'a>(&'a Core);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.break_off("upkeep", &io::Error::other("it panicked"));
        }
    }
}

/// Runs until it is stopped.
pub(super) fn run(core: &Arc<Core>) {
    let _ended = Ended(core);
    loop {
        match core.next_segment() {
            Next::Preparing | Next::NoRoom => prepare(core),
            Next::Ready(_) => {}
        }
        drop_old(core);
        let refused = core.is_full();
        let at_most = if refused || core.next_segment() == Next::NoRoom { LOOK_FOR_ROOM_EVERY } else { LOOK_EVERY };
        if !core.await_work(at_most) {
            return;
        }
        if refused {
            core.lift_refusal();
        }
    }
}

/// Makes the next segment, when there is room.
fn prepare(core: &Core) {
    if core.is_broken() {
        return;
    }
    let length = core.settings.segment_bytes;
    if !make_room(core, length) {
        return core.set_next(Next::NoRoom);
    }
    let extent = next_extent(&core.state(), core.base_min, length);
    match core.disk.make_zeros(&extent.name(), length, &|| core.upkeep_stops()) {
        Ok(()) => {
            core.state().segments.push_back(Segment { extent, newest: Timestamp::ZERO });
            core.set_next(Next::Ready(extent));
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) if disk::is_full(&error) => {
            tracing::warn!(%error, "no room on the disk for the next segment of the log");
            core.set_next(Next::NoRoom);
        }
        Err(error) => {
            core.break_off("making the next segment", &error);
            core.set_next(Next::NoRoom);
        }
    }
}

/// Where the next segment stands: after the last, and not before `base_min`.
pub(super) fn next_extent(state: &State, base_min: u64, length: u64) -> Extent {
    let after = state.segments.back().map_or(0, |segment| segment.extent.end());
    Extent { base: after.max(base_min).next_multiple_of(super::SEGMENT_ALIGN), length }
}

/// Whether another segment fits below the limit; finished ones go, old or not, to make it fit: taking what comes is worth
/// more than keeping what is done.
fn make_room(core: &Core, length: u64) -> bool {
    let used = core.state().disk_bytes();
    let excess = (used + length).saturating_sub(core.settings.max_bytes);
    if excess == 0 {
        return true;
    }
    drop_segments(core, |_, dropped| dropped < excess);
    core.state().disk_bytes() + length <= core.settings.max_bytes
}

/// Deletes finished segments that are older than the retention.
fn drop_old(core: &Core) {
    let now = core.clock.now();
    let retention = core.settings.retention;
    drop_segments(core, |segment, _| segment.newest.plus(retention) <= now);
}

/// Deletes finished segments, oldest first, while `wanted` says so of a segment and the bytes dropped before it.
fn drop_segments(core: &Core, wanted: impl Fn(&Segment, u64) -> bool) {
    let mut dropped = 0;
    loop {
        let candidate = {
            let state = core.state();
            let low = state.low();
            let first = state.segments.front().copied();
            first.filter(|segment| segment.extent.end() <= low && segment.extent.base < state.active && wanted(segment, dropped))
        };
        let Some(segment) = candidate else { return };
        // Recovery begins at the durable low place: it must stand behind this segment before the segment goes.
        if let Err(error) = raise_low(core, segment.extent.end()) {
            tracing::warn!(%error, "a finished segment of the log stays because the finished positions could not be written");
            return;
        }
        let path = core.disk.dir.join(segment.extent.name());
        if let Err(error) = core.disk.remove(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %path.display(), "a finished segment of the log could not be deleted");
            return;
        }
        core.state().segments.pop_front();
        dropped += segment.extent.length;
        if let Err(error) = core.disk.sync_folder() {
            // A deleted file that comes back after a power loss is finished, and deleted again.
            tracing::warn!(%error, "the deletion of a finished segment of the log could not be synced");
        }
    }
}

/// Makes it durable that every record before `place` is finished.
fn raise_low(core: &Core, place: u64) -> io::Result<()> {
    let mut file = core.finished.lock().expect("no holder of the finished positions panics");
    if file.state.low >= place {
        return Ok(());
    }
    if core.finished_broken.load(Ordering::Acquire) {
        return Err(io::Error::other("the finished positions could not be written before"));
    }
    let (low, end) = {
        let state = core.state();
        (state.low(), state.end)
    };
    let state = FinishedState { known_end: core.known_end(end), low, lanes: file.state.lanes.clone() };
    let written = file.write(state);
    if let Err(error) = &written
        && !disk::is_full(error)
    {
        core.finished_broken.store(true, Ordering::Release);
        core.break_off("writing the finished positions", error);
    }
    written
}
