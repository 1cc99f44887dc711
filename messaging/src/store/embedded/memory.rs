//! The rows that were written last: in memory, sorted, until they are drained into the engine's tables.
//!
//! Three layers, newest first: the *active* rows, which the writer adds to; the *frozen* ones, which are being drained and do not
//! change; and the tables below, as a snapshot. A row is what the first layer that knows its key says, also that it is deleted.
//!
//! One lock keeps them one view: the writer adds a whole batch under it, so no half of a batch is ever seen. It is held for
//! microseconds and never while the disk is touched.

use std::collections::{BTreeMap, btree_map};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fjall::{Snapshot, UserKey};

use super::expiry::Limits;
use super::journal::Row;
use super::keys::{KeyBytes, ScanRange, Table};

/// What the map and the allocator add to a row, about.
const ROW_OVERHEAD_BYTES: usize = 96;

/// A value, or that the row is deleted.
pub(super) type Value = Option<Vec<u8>>;

/// Rows by table, sorted.
#[derive(Default)]
pub(super) struct Rows {
    tables: [BTreeMap<UserKey, Value>; Table::ALL.len()],
    bytes: usize,
}

impl Rows {
    pub(super) fn put(&mut self, (table, key, value): Row) {
        self.bytes += ROW_OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Vec::len);
        let key_bytes = key.len();
        if let Some(old) = self.tables[table as usize].insert(key, value) {
            self.bytes -= ROW_OVERHEAD_BYTES + key_bytes + old.map_or(0, |old| old.len());
        }
    }

    pub(super) fn table(&self, table: Table) -> &BTreeMap<UserKey, Value> {
        &self.tables[table as usize]
    }

    /// About how much memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<&Value> {
        self.tables[table as usize].get(key)
    }
}

/// The three layers.
struct Layers {
    active: Rows,
    frozen: Option<Arc<Rows>>,
    below: Arc<Snapshot>,
}

/// The layers, shared.
pub(super) struct Memory(RwLock<Layers>);

impl Memory {
    pub(super) fn new(active: Rows, below: Snapshot) -> Self {
        Self(RwLock::new(Layers { active, frozen: None, below: Arc::new(below) }))
    }

    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.0.read().expect("nobody panics while they hold the rows")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.0.write().expect("nobody panics while they hold the rows")
    }

    /// Adds a batch, as one. Gives the bytes of the active rows. By the writer.
    pub(super) fn add(&self, rows: Vec<Row>) -> usize {
        let mut layers = self.write();
        for row in rows {
            layers.active.put(row);
        }
        layers.active.bytes()
    }

    /// Freezes the active rows, to be drained. None: those before are not drained yet.
    pub(super) fn freeze(&self) -> Option<Arc<Rows>> {
        let mut layers = self.write();
        if layers.frozen.is_some() {
            return None;
        }
        let rows = Arc::new(std::mem::take(&mut layers.active));
        layers.frozen = Some(rows.clone());
        Some(rows)
    }

    /// The frozen rows stand in the tables, which this snapshot shows.
    pub(super) fn drained(&self, below: Snapshot) {
        let (frozen, below) = {
            let mut layers = self.write();
            (layers.frozen.take(), std::mem::replace(&mut layers.below, Arc::new(below)))
        };
        // Freed outside of the lock: it is much.
        drop((frozen, below));
    }

    /// Lets go of the tables as they were, so that the engine may delete what it has merged since.
    pub(super) fn refresh(&self, below: Snapshot) {
        let before = std::mem::replace(&mut self.write().below, Arc::new(below));
        drop(before);
    }

    /// Looks keys up. One answer per key, none where the tables must be asked; and the tables, of the same view.
    pub(super) fn look(&self, keys: &[(Table, KeyBytes)]) -> (Vec<Option<Value>>, Arc<Snapshot>) {
        let layers = self.read();
        let mut answers = Vec::with_capacity(keys.len());
        for (table, key) in keys {
            let key = key.as_ref();
            let found = layers.active.get(*table, key).or_else(|| layers.frozen.as_ref().and_then(|rows| rows.get(*table, key)));
            answers.push(found.cloned());
        }
        (answers, layers.below.clone())
    }

    /// The rows of a range, in its order, deleted ones and those that are over too, until `limit` that are there; and the tables
    /// below, of the same view. What is merged from both needs no more of these.
    pub(super) fn range(&self, range: &ScanRange, limits: &Limits, limit: usize) -> (Vec<(UserKey, Value)>, Arc<Snapshot>) {
        let layers = self.read();
        let mut upper = Walk::new(&layers.active, range);
        let mut lower = layers.frozen.as_ref().map(|rows| Walk::new(rows, range));
        let (mut found, mut there) = (Vec::new(), 0);
        while there < limit {
            let below = lower.as_mut().and_then(|walk| walk.next);
            let row = match (upper.next, below) {
                (None, None) => break,
                (Some(row), None) => upper.step(row),
                (None, Some(row)) => lower.as_mut().map_or(row, |walk| walk.step(row)),
                (Some(up), Some(low)) => {
                    let order = if range.newest_first { low.0.cmp(up.0) } else { up.0.cmp(low.0) };
                    if let (true, Some(walk)) = (order.is_ge(), &mut lower) {
                        walk.step(low);
                    }
                    if order.is_gt() { low } else { upper.step(up) }
                }
            };
            there += usize::from(row.1.as_ref().is_some_and(|value| !limits.is_over(range.table, row.0, value)));
            found.push((row.0.clone(), row.1.clone()));
        }
        (found, layers.below.clone())
    }
}

type Seen<'a> = (&'a UserKey, &'a Value);

/// A walk through one layer's rows of a range.
struct Walk<'a> {
    rows: btree_map::Range<'a, UserKey, Value>,
    newest_first: bool,
    next: Option<Seen<'a>>,
}

impl<'a> Walk<'a> {
    fn new(rows: &'a Rows, range: &ScanRange) -> Self {
        let bounds = (range.from.as_ref().map(AsRef::as_ref), range.to.as_ref().map(AsRef::as_ref));
        let rows = rows.table(range.table).range::<[u8], _>(bounds);
        let mut walk = Self { rows, newest_first: range.newest_first, next: None };
        walk.next = walk.take();
        walk
    }

    fn take(&mut self) -> Option<Seen<'a>> {
        if self.newest_first { self.rows.next_back() } else { self.rows.next() }
    }

    /// Goes on behind this row, and gives it.
    fn step(&mut self, row: Seen<'a>) -> Seen<'a> {
        self.next = self.take();
        row
    }
}
