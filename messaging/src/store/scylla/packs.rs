//! Which rows go in one request. Pure.

use super::settings::BatchLimits;
use super::statements::Row;

/// What a server counts for a row beside its value: key, write time, expiry.
const ROW_OVERHEAD_BYTES: usize = 100;

/// Rows of a wave, by table and kind.
#[derive(Debug, Default)]
pub(super) struct Rows<'a>(Vec<Vec<Row<'a>>>);

impl<'a> Rows<'a> {
    pub(super) fn push(&mut self, row: Row<'a>) {
        let alike = self.0.iter_mut().find(|rows| rows[0].table == row.table && rows[0].is_put() == row.is_put());
        match alike {
            Some(rows) => rows.push(row),
            None => self.0.push(vec![row]),
        }
    }

    /// Adds the rows of another wave.
    pub(super) fn append(&mut self, other: Self) {
        for rows in other.0 {
            let alike = self.0.iter_mut().find(|mine| mine[0].table == rows[0].table && mine[0].is_put() == rows[0].is_put());
            match alike {
                Some(mine) => mine.extend(rows),
                None => self.0.push(rows),
            }
        }
    }

    /// Puts rows that can share a batch beside each other, and cuts them into batches: each of one table and one kind, of one
    /// partition or of a few whose replicas are the same.
    pub(super) fn pack(&mut self, limits: &BatchLimits) -> Vec<&[Row<'a>]> {
        let mut packs = Vec::new();
        for rows in &mut self.0 {
            arrange(rows);
            let mut rest = &rows[..];
            while !rest.is_empty() {
                let (pack, others) = rest.split_at(fitting(rest, limits));
                packs.push(pack);
                rest = others;
            }
        }
        packs
    }
}

/// Sorts as far as it helps: rows are long to move.
fn arrange(rows: &mut [Row<'_>]) {
    let shared = rows[0].table.shares_partitions();
    let alike = rows.iter().all(|row| row.replicas == rows[0].replicas);
    if shared {
        let order = |a: &Row<'_>, b: &Row<'_>| a.replicas.cmp(&b.replicas).then_with(|| a.partition().cmp(b.partition()));
        if !rows.is_sorted_by(|a, b| order(a, b).is_le()) {
            rows.sort_unstable_by(order);
        }
    } else if !alike {
        rows.sort_unstable_by_key(|row| row.replicas);
    }
}

fn bytes_of(row: &Row<'_>) -> usize {
    row.put.map_or(0, |put| put.value.len()) + ROW_OVERHEAD_BYTES
}

/// How many of the first rows go together; at least one. They are of one table and kind.
fn fitting(rows: &[Row<'_>], limits: &BatchLimits) -> usize {
    let first = &rows[0];
    let mut partitions = 1;
    let mut bytes = bytes_of(first);
    for (n, pair) in rows.windows(2).enumerate() {
        let [last, row] = pair else { break };
        bytes += bytes_of(row);
        if last.partition() != row.partition() {
            partitions += 1;
        }
        let bytes_max = if partitions == 1 { limits.bytes } else { limits.mixed_bytes };
        if row.replicas != first.replicas || n + 2 > limits.rows || partitions > limits.partitions || bytes > bytes_max {
            return n + 1;
        }
    }
    rows.len()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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

    fn sizes(rows: Vec<Row<'_>>) -> Vec<usize> {
        let count = rows.len();
        let mut sorted = Rows::default();
        rows.into_iter().for_each(|row| sorted.push(row));
        let packs = sorted.pack(&LIMITS);
        let mut seen = HashSet::new();
        for pack in &packs {
            let kind = |row: &Row<'_>| (row.table, row.is_put(), row.replicas);
            assert!(pack.iter().all(|row| kind(row) == kind(&pack[0])), "a batch is of one kind");
            seen.extend(pack.iter().map(|row| (row.table, row.cells.all().to_vec())));
        }
        assert_eq!(seen.len(), count, "every row is in one batch");
        packs.iter().map(|pack| pack.len()).collect()
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
            ((0..4).map(|n| row(&event(n), &small, n % 2)).collect(), vec![2, 2], "two sets of replicas"),
            (
                (0..128).map(|n| row(&event((n % 2) << 40 | n), &small, 0)).collect(),
                vec![64, 64],
                "partitions that come in turns are put apart",
            ),
        ] {
            assert_eq!(sizes(rows), expected, "{why}");
        }
    }

    #[test]
    fn tables_and_kinds_are_apart() {
        let mut rows = vec![row(&conversation(1), b"1", 0), row(&event(1), b"1", 0), row(&conversation(2), b"1", 0)];
        rows.push(Row { put: None, ..row(&conversation(3), b"", 0) });
        assert_eq!(sizes(rows), [2, 1, 1]);
    }
}
