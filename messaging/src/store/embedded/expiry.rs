//! Which rows have an end, the time that they carry, and which are over.
//!
//! A row with an end carries the time of its writing behind its value:
//!
//! ```text
//! the caller's value, then
//!  0  u32    seconds since the epoch, rounded up, big-endian
//!  4  [u8]   MARK
//! ```
//!
//! So the time takes every way that the row takes, journal, memory, tables, merging, and none of them has to know of it: it is put
//! on where a write comes in and taken off where a row goes out. The keys' own times would not do: a message has the platform's
//! there, which may be years before it came; the others have none.
//!
//! Rows of the forms before have no mark (one in 2^48 ends like it by chance). They count from when the folder was taken over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::keys::{self, Table};
use crate::clock::{SharedClock, Timestamp};
use crate::store::Retention;

/// Tells a value with a time behind it from one of the forms before.
const MARK: [u8; 6] = [0xe7, 0x1d, 0x9b, 0x5c, 0x83, 0xf1];
const SECONDS_BYTES: usize = size_of::<u32>();
const STAMP_BYTES: usize = SECONDS_BYTES + MARK.len();
/// More seconds than any row is old.
const FOR_EVER: u64 = u64::MAX;
const MICROS_PER_SECOND: u64 = 1_000_000;

/// The settings that say how long a row is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Messages,
    Events,
    Pointers,
    Quarantine,
}

impl Kept {
    const COUNT: usize = 4;

    /// What says how long a row is kept; none for rows without an end.
    fn of(table: Table, key: &[u8]) -> Option<Self> {
        match table {
            Table::Messages => Some(Self::Messages),
            Table::Events => Some(Self::Events),
            Table::Pointers if keys::is_work(key) => None,
            Table::Pointers => Some(Self::Pointers),
            Table::Quarantine => Some(Self::Quarantine),
            Table::Conversations | Table::Shards | Table::Node => None,
        }
    }
}

/// The tables that have rows with an end.
pub(super) const WITH_AN_END: [Table; 4] = [Table::Messages, Table::Pointers, Table::Events, Table::Quarantine];

/// A value as it is kept: with the time of its writing, if the row has an end.
pub(super) fn stamped(table: Table, key: &[u8], value: &[u8], at: Timestamp) -> Vec<u8> {
    if Kept::of(table, key).is_none() {
        return value.to_vec();
    }
    let seconds = u32::try_from(at.as_micros().div_ceil(MICROS_PER_SECOND)).unwrap_or(u32::MAX);
    let mut stamped = Vec::with_capacity(value.len() + STAMP_BYTES);
    stamped.extend_from_slice(value);
    stamped.extend_from_slice(&seconds.to_be_bytes());
    stamped.extend_from_slice(&MARK);
    stamped
}

/// A kept value's own bytes, and the seconds that it carries.
fn apart(value: &[u8]) -> (&[u8], Option<u64>) {
    let Some((own, seconds)) = value.strip_suffix(&MARK).and_then(|value| value.split_last_chunk::<SECONDS_BYTES>()) else {
        return (value, None);
    };
    (own, Some(u64::from(u32::from_be_bytes(*seconds))))
}

/// How long rows are kept, and the clock that it is judged by.
pub(super) struct Expiry {
    clock: SharedClock,
    kept: [u64; Kept::COUNT],
    /// When the folder was made or taken over, in seconds: rows without a time count from then. Until it is known none is over.
    since: AtomicU64,
}

impl Expiry {
    pub(super) fn new(retention: &Retention, clock: SharedClock) -> Self {
        let mut kept = [FOR_EVER; Kept::COUNT];
        kept[Kept::Messages as usize] = seconds(retention.messages);
        kept[Kept::Events as usize] = seconds(retention.events);
        kept[Kept::Pointers as usize] = seconds(retention.pointers);
        kept[Kept::Quarantine as usize] = seconds(retention.quarantine);
        Self { clock, kept, since: AtomicU64::new(FOR_EVER) }
    }

    pub(super) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Says when the folder was made or taken over.
    pub(super) fn begin_at(&self, since: Timestamp) {
        self.since.store(since.as_secs(), Ordering::Relaxed);
    }

    /// What is over at this moment.
    pub(super) fn now(&self) -> Limits {
        Limits { now: self.clock.now().as_secs(), since: self.since.load(Ordering::Relaxed), kept: self.kept }
    }
}

fn seconds(kept: Duration) -> u64 {
    if kept.is_zero() { FOR_EVER } else { kept.as_secs().max(1) }
}

/// What is over at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    now: u64,
    since: u64,
    kept: [u64; Kept::COUNT],
}

impl Limits {
    /// Whether the row's time is over.
    pub(super) fn is_over(&self, table: Table, key: &[u8], value: &[u8]) -> bool {
        self.open(table, key, value).is_none()
    }

    /// A kept value as its caller wrote it. None: its time is over.
    pub(super) fn open<'a>(&self, table: Table, key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
        let Some(kept) = Kept::of(table, key) else { return Some(value) };
        let (own, written) = apart(value);
        let end = written.unwrap_or(self.since).saturating_add(self.kept[kept as usize]);
        (end > self.now).then_some(own)
    }

    /// As [`Self::open`], of a value that is the caller's.
    pub(super) fn take(&self, table: Table, key: &[u8], mut value: Vec<u8>) -> Option<Vec<u8>> {
        let own = self.open(table, key, &value)?.len();
        value.truncate(own);
        Some(value)
    }

    /// Whether the table can hold a row that is over: not for ever, nor before the folder is as old as its rows may get. (What was on
    /// the log before the folder was there is a little older, by what the log keeps; that much later it is looked for.)
    pub(super) fn may_be_over(&self, table: Table) -> bool {
        // A key that is no work's: all others of a table are kept equally long.
        let kept = Kept::of(table, &[]).map_or(FOR_EVER, |kept| self.kept[kept as usize]);
        self.since.saturating_add(kept) <= self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_value_comes_back_with_its_time() {
        for value in [&b""[..], b"x", &MARK, &[0; 300]] {
            for (micros, seconds) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (u64::MAX, u64::from(u32::MAX))] {
                let kept = stamped(Table::Messages, b"key", value, Timestamp(micros));
                assert_eq!(apart(&kept), (value, Some(seconds)));
            }
            assert_eq!(stamped(Table::Conversations, b"key", value, Timestamp(1)), value, "a row without an end has no time");
        }
    }

    #[test]
    fn what_has_no_time_counts_from_when_the_folder_was_taken_over() {
        let clock = ManualClock::at(Timestamp::from_secs(1_000));
        let expiry = Expiry::new(&Retention { events: Duration::from_secs(10), ..Retention::FOR_EVER }, clock.clone());
        let is_over = || expiry.now().is_over(Table::Events, b"key", b"value");
        assert!(!is_over(), "not before it is known");
        expiry.begin_at(Timestamp::from_secs(990));
        assert!(is_over());
        expiry.begin_at(Timestamp::from_secs(991));
        assert!(!is_over());
        clock.advance(Duration::from_secs(1));
        assert!(is_over());
        assert!(!expiry.now().is_over(Table::Messages, b"key", b"value"), "kept for ever");
    }
}
