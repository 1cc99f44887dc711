//! Which buckets this process has put into the indexes, so that it need not again with every row.
//!
//! What is marked is forgotten after one to two periods, and sooner when there are many: then the index row is written once
//! more. Index rows of expiring tables live two periods longer than the rows that they lead to, so a mark never outlives its row.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::keys::{Cells, Table};

/// Marks of one period; there are two periods.
const MARKS_MAX: usize = 131_072;
/// How long marks of one period are kept beside those of the next.
const PERIOD: Duration = Duration::from_secs(15 * 24 * 3600);
/// How much longer than the rows that it leads to an index row must live.
pub(super) const INDEX_MARGIN: Duration = Duration::from_secs(32 * 24 * 3600);
/// The longest cells of an index row: tenant, conversation, month.
const MARK_BYTES: usize = 36;

/// A row of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    table: Table,
    len: u8,
    bytes: [u8; MARK_BYTES],
}

impl Mark {
    pub(super) fn of(table: Table, cells: &Cells) -> Self {
        let all = cells.all();
        let mut bytes = [0; MARK_BYTES];
        bytes[..all.len()].copy_from_slice(all);
        Self { table, len: all.len() as u8, bytes }
    }
}

type Set = HashSet<Mark, RandomState>;

#[derive(Debug, Default)]
struct Periods {
    young: Set,
    old: Set,
    began: Duration,
}

/// The marks of a process.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<Periods>);

impl Marks {
    /// Which of these are not marked. `now` is monotonic.
    pub(super) fn unknown(&self, marks: &mut Set, now: Duration) {
        let mut periods = self.0.lock().expect("no holder of the marks panics");
        if now >= periods.began + PERIOD {
            // Both are too old when nobody asked for more than a period.
            let stale = now >= periods.began + 2 * PERIOD;
            periods.old = std::mem::take(&mut periods.young);
            if stale {
                periods.old.clear();
            }
            periods.began = now;
        }
        marks.retain(|mark| !periods.young.contains(mark) && !periods.old.contains(mark));
    }

    /// Marks rows that are written.
    pub(super) fn note(&self, marks: Set) {
        let mut periods = self.0.lock().expect("no holder of the marks panics");
        if periods.young.len() + marks.len() > MARKS_MAX {
            periods.old = std::mem::take(&mut periods.young);
        }
        periods.young.extend(marks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(n: u32) -> Mark {
        Mark::of(Table::EventBuckets, &Cells::of(&[&n.to_be_bytes()]))
    }

    fn is_unknown(marks: &Marks, n: u32, now: Duration) -> bool {
        let mut asked: Set = [mark(n)].into_iter().collect();
        marks.unknown(&mut asked, now);
        !asked.is_empty()
    }

    #[test]
    fn marks_are_forgotten_before_their_rows_end() {
        let marks = Marks::default();
        assert!(is_unknown(&marks, 1, Duration::ZERO));
        marks.note([mark(1)].into_iter().collect());
        assert!(!is_unknown(&marks, 1, PERIOD - Duration::from_secs(1)));
        assert!(!is_unknown(&marks, 1, PERIOD), "kept beside the next period's");
        assert!(is_unknown(&marks, 1, 2 * PERIOD));
        marks.note([mark(2)].into_iter().collect());
        assert!(is_unknown(&marks, 2, 5 * PERIOD), "nobody asked for long");
        assert!(INDEX_MARGIN > 2 * PERIOD);
    }

    #[test]
    fn marks_are_bounded() {
        let marks = Marks::default();
        for n in 0..3 * MARKS_MAX as u32 {
            marks.note([mark(n)].into_iter().collect());
        }
        let periods = marks.0.lock().unwrap();
        assert!(periods.young.len() <= MARKS_MAX && periods.old.len() <= MARKS_MAX);
        drop(periods);
        assert!(!is_unknown(&marks, 3 * MARKS_MAX as u32 - 1, Duration::ZERO));
        assert!(is_unknown(&marks, 0, Duration::ZERO));
    }
}
