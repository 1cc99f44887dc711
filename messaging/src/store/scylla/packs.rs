//! Which rows go in one request. Pure.

use std::ops::Range;

use super::settings::BatchLimits;
use super::statements::Row;

/// What a server counts for a row beside its value: key, write time, expiry.
const ROW_OVERHEAD_BYTES: usize = 100;

/// Sorts rows so that those that can share a batch stand together, and cuts them into batches: each of one table and one kind,
/// of one partition or of a few whose replicas are the same.
pub(super) fn pack(rows: &mut [Row<'_>], limits: &BatchLimits) -> Vec<Range<usize>> {
    rows.sort_unstable_by(|a, b| {
        let kind = |row: &Row<'_>| (row.table, row.is_put(), row.replicas);
        kind(a).cmp(&kind(b)).then_with(|| a.partition().cmp(b.partition()))
    });
    let mut packs = Vec::new();
    let mut start = 0;
    while start < rows.len() {
        let end = start + fitting(&rows[start..], limits);
        packs.push(start..end);
        start = end;
    }
    packs
}

fn bytes_of(row: &Row<'_>) -> usize {
    row.put.map_or(0, |put| put.value.len()) + ROW_OVERHEAD_BYTES
}

/// How many of the first rows go together; at least one.
fn fitting(rows: &[Row<'_>], limits: &BatchLimits) -> usize {
    let first = &rows[0];
    let mut partitions = 1;
    let mut bytes = bytes_of(first);
    for (n, pair) in rows.windows(2).enumerate() {
        let [last, row] = pair else { break };
        let fits = (row.table, row.is_put(), row.replicas) == (first.table, first.is_put(), first.replicas);
        bytes += bytes_of(row);
        if last.partition() != row.partition() {
            partitions += 1;
        }
        let bytes_max = if partitions == 1 { limits.bytes } else { limits.mixed_bytes };
        if !fits || n + 2 > limits.rows || partitions > limits.partitions || bytes > bytes_max {
            return n + 1;
        }
    }
    rows.len()
}

#[cfg(test)]
mod tests {
    use super::super::keys::row_of;
    use super::super::statements::Put;
    use super::*;
    use crate::ids::{ConversationId, TenantId};
    use crate::state::FeedPosition;
    use crate::store::Key;

    const LIMITS: BatchLimits = BatchLimits { partitions: 10, mixed_bytes: 5000, rows: 64, bytes: 40_000 };

    fn row<'a>(key: &Key, value: &'a [u8], replicas: u64) -> Row<'a> {
        let (table, cells) = row_of(key);
        Row { table, cells, put: Some(Put { value, ttl: 0 }), stamp: 1, replicas }
    }

    fn conversation(n: u8) -> Key {
        Key::Conversation(TenantId([1; 16]), ConversationId([n; 16]))
    }

    fn event(n: u64) -> Key {
        Key::Event(TenantId([1; 16]), FeedPosition { shard: 1, order: n })
    }

    fn sizes(mut rows: Vec<Row<'_>>) -> Vec<usize> {
        let count = rows.len();
        let packs = pack(&mut rows, &LIMITS);
        let mut next = 0;
        for pack in &packs {
            assert_eq!(pack.start, next, "every row is in one batch");
            next = pack.end;
        }
        assert_eq!(next, count);
        packs.iter().map(ExactSizeIterator::len).collect()
    }

    #[test]
    fn batches_keep_their_limits() {
        let value = |len: usize| vec![7; len];
        let (small, middle, large) = (value(100), value(900), value(100_000));
        for (rows, expected, why) in [
            (vec![], vec![], "nothing"),
            ((0..25).map(|n| row(&conversation(n), &small, 0)).collect(), vec![10, 10, 5], "ten partitions"),
            ((0..9).map(|n| row(&conversation(n), &middle, 0)).collect(), vec![5, 4], "bytes of several partitions"),
            ((0..100).map(|n| row(&event(n), &small, 0)).collect(), vec![64, 36], "rows of one partition"),
            ((0..50).map(|n| row(&event(n), &middle, 0)).collect(), vec![40, 10], "bytes of one partition"),
            ((0..3).map(|n| row(&event(n), &large, 0)).collect(), vec![1, 1, 1], "large rows go alone"),
            ((0..4).map(|n| row(&conversation(n), &small, u64::from(n % 2))).collect(), vec![2, 2], "two sets of replicas"),
        ] {
            assert_eq!(sizes(rows), expected, "{why}");
        }
    }

    #[test]
    fn tables_and_kinds_are_apart() {
        let mut rows = vec![row(&conversation(1), b"1", 0), row(&event(1), b"1", 0), row(&conversation(2), b"1", 0)];
        rows.push(Row { put: None, ..row(&conversation(3), b"", 0) });
        assert_eq!(sizes(rows), [1, 2, 1]);
    }
}
