//! Write times. Pure.
//!
//! CQL keeps, of two writes of one cell, the one with the later write time, whatever order they arrive in (and of a tie the
//! larger value, or the deletion). `Write::at` alone is not enough for that: all writes of one log record share it, and a shard
//! with a backlog writes rows whose `at` lies before what was written to the same row hours ago. So the store draws a stamp for
//! each write:
//!
//! > stamp = max(min(at, now), last + 1), in microseconds, where `last` is the last stamp that this process drew.
//!
//! * Within a process stamps rise from write to write, so that the last write of a row wins and a put after a delete stands.
//! * Across owners of a shard: when this process becomes a shard's new owner (a lease with a new epoch), `last` is lifted to the
//!   later of now and the end of the former lease. What the former owner wrote under its lease has earlier stamps: each was at
//!   most its clock's now, and its clock was before the end of its lease, or it would have renewed. So the new owner's writes
//!   win over all of them, also over those that arrive late: a process that was paused in the middle of an `apply`, a
//!   coordinator that hands hints on. A former owner that comes back has the end of its lease behind it and asks for the lease
//!   before it decides anything new.
//! * `at` in the future (a clock that is ahead wrote the log) is cut to now: one such stamp would lift all that follow.
//!
//! A replay of a record after a crash decides anew and writes later stamps, with the same or newer content. That a replay does
//! not undo what came later is the router's order of work (one owner per row, records in order); the stamps make the store
//! agree with it.

use std::sync::Mutex;

use crate::clock::Timestamp;

/// Draws stamps, for the whole process.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    last: Mutex<u64>,
}

impl Stamps {
    /// One stamp per time, rising, in the order given.
    pub(super) fn draw(&self, now: Timestamp, ats: impl Iterator<Item = Timestamp>) -> Vec<i64> {
        let mut last = self.last.lock().expect("no holder of the stamps panics");
        let mut stamps = Vec::with_capacity(ats.size_hint().0);
        for at in ats {
            let floor = at.min(now).as_micros();
            *last = floor.max(last.saturating_add(1));
            stamps.push(i64::try_from(*last).unwrap_or(i64::MAX));
        }
        stamps
    }

    /// All further stamps are later than this.
    pub(super) fn lift(&self, to: Timestamp) {
        let mut last = self.last.lock().expect("no holder of the stamps panics");
        *last = (*last).max(to.as_micros());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(stamps: &Stamps, now: u64, ats: &[u64]) -> Vec<i64> {
        stamps.draw(Timestamp(now), ats.iter().map(|at| Timestamp(*at)))
    }

    #[test]
    fn stamps_rise_whatever_the_times() {
        let stamps = Stamps::default();
        for (now, ats, expected) in [
            (1000, &[100, 100, 100][..], &[100, 101, 102][..]),
            // A backlog: older than what was written before.
            (1000, &[50, 60], &[103, 104]),
            (1000, &[500, 400], &[500, 501]),
            // The log's clock is ahead of ours.
            (1000, &[9000, 9000], &[1000, 1001]),
            (2000, &[2000], &[2000]),
            // Our clock went back.
            (10, &[9], &[2001]),
            (2000, &[], &[]),
        ] {
            assert_eq!(draw(&stamps, now, ats), expected, "{ats:?} at {now}");
        }
    }

    #[test]
    fn a_new_owner_writes_later_than_the_former() {
        let (former, next) = (Stamps::default(), Stamps::default());
        // The former owner writes under a lease that ends at 5000; it is paused with a drawn stamp.
        let late = draw(&former, 4999, &[4990])[0];
        // The next owner's clock says 5000, and it works through a backlog of old records.
        next.lift(Timestamp(5000));
        let first = draw(&next, 5000, &[100])[0];
        assert!(first > 5000 && first > late);
        // Former owner with a clock ahead of ours: its lease's end is the floor, not our now.
        next.lift(Timestamp(7000));
        assert!(draw(&next, 5001, &[100])[0] > 7000);
        next.lift(Timestamp(10));
        assert!(draw(&next, 5001, &[100])[0] > 7000, "a lift never lowers");
    }
}
