//! Tables and keys. Pure: a [`Key`] as the cells of a row and back, and how its partitions are cut.
//!
//! All cells go over the wire as the bytes made here. Ids, orders and times are blobs, because CQL compares blobs as unsigned
//! bytes: 64-bit orders keep their order up to the last value, and ids sort as the embedded store sorts them.
//!
//! What decides a partition:
//! * It must stay small (tens of MiB, and under some 100,000 rows or deletions, at which Cassandra gives up a read), however
//!   long the system runs. Everything that grows with time is therefore cut into buckets: messages by month, events by 2^17
//!   places of the shard's feed, `later` by 4.5 minutes of its order (timers, whose rows are sparse and far ahead: 36).
//! * A scan must find its buckets without walking through empty ones: orders jump with every epoch, a tenant may be silent for
//!   months. So each cut table has an index of its buckets, written with the first row that this process puts into a bucket
//!   (`marks`), before or beside it and never after.
//! * Rows that one shard writes together share a partition where a read allows it: a row in a batch of one partition costs a
//!   fifth of a row alone. A shard's events of one tenant do, and a queue's rows, and a conversation's messages of a month.
//!   Pointers and platform ids do not: they are random hashes without a time, so a shared partition would either grow without
//!   end or be shared by no two rows of a batch. They stand alone, and batches take ten of one replica set.
//! * Intents are deleted at the rate of sending and read only when a shard begins, all of them: 64 slots keep each slot's
//!   deletions below what a read bears.

use std::borrow::Cow;

use crate::clock::Timestamp;
use crate::ids::{ConversationId, ID_BYTES, MessageId, QuarantineId, TenantId};
use crate::state::FeedPosition;
use crate::store::{Key, Queue};

/// Bytes of the longest key: tenant, conversation, month, time, message.
const CELLS_BYTES_MAX: usize = 3 * ID_BYTES + 4 + 8;
/// Cells of the longest key.
const CELLS_MAX: usize = 5;
/// A month of messages, in microseconds: 30 days.
const MONTH_US: u64 = 30 * 24 * 3600 * 1_000_000;
/// Places of the feed in one bucket, as a power of two: 131,072, some 45 MiB when all are of one tenant.
const EVENT_BUCKET_BITS: u32 = 17;
/// Microseconds of a destination's queue in one bucket, as a power of two: 4.5 minutes.
const QUEUE_BUCKET_BITS: u32 = 28;
/// Places of the timers in one bucket, as a power of two: 44 minutes of their order, which is hundredths of a second above 26 bits.
const TIMER_BUCKET_BITS: u32 = 44;
/// Bits below the hundredths of a second in a timer's order.
const TIMER_SLOT_BITS: u32 = 26;
/// Partitions over which a shard's intents are spread.
pub(super) const INTENT_SLOTS: u8 = 64;
/// Partitions of a tenant's quarantine, by the first bits of the id, so that slot after slot is in the order of ids.
pub(super) const QUARANTINE_SLOTS: u8 = 16;
/// The timers' name in the column `queue`, where destinations have 16 bytes.
const TIMERS: &[u8] = b"t";
/// Stands behind the id of an account whose bulk sends they are.
const BULK: &[u8] = b"b";

/// The tables whose rows stand for keys, and the indexes of their buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Table {
    Conversations,
    Messages,
    Pointers,
    PlatformIds,
    Events,
    Later,
    Intents,
    Progress,
    Quarantine,
    MessageMonths,
    EventBuckets,
    LaterBuckets,
    QuarantineIds,
    Works,
}

impl Table {
    pub(super) const ALL: [Self; 14] = [
        Self::Conversations,
        Self::Messages,
        Self::Pointers,
        Self::PlatformIds,
        Self::Events,
        Self::Later,
        Self::Intents,
        Self::Progress,
        Self::Quarantine,
        Self::MessageMonths,
        Self::EventBuckets,
        Self::LaterBuckets,
        Self::QuarantineIds,
        Self::Works,
    ];

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// Its name in the keyspace.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::Pointers => "pointers",
            Self::PlatformIds => "platform_ids",
            Self::Events => "events",
            Self::Later => "later",
            Self::Intents => "intents",
            Self::Progress => "progress",
            Self::Quarantine => "quarantine",
            Self::MessageMonths => "message_months",
            Self::EventBuckets => "event_buckets",
            Self::LaterBuckets => "later_buckets",
            Self::QuarantineIds => "quarantine_ids",
            Self::Works => "works",
        }
    }

    /// The columns of its key, in the order of the cells.
    pub(super) const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Conversations | Self::Pointers => &["tenant", "id"],
            Self::Messages => &["tenant", "conversation", "month", "at", "id"],
            Self::PlatformIds => &["tenant", "account", "id"],
            Self::Events => &["tenant", "shard", "bucket", "pos"],
            Self::Later => &["shard", "queue", "bucket", "pos"],
            Self::Intents => &["shard", "slot", "tenant", "id"],
            Self::Progress => &["shard"],
            Self::Quarantine => &["tenant", "slot", "id"],
            Self::MessageMonths => &["tenant", "conversation", "month"],
            Self::EventBuckets => &["tenant", "shard", "bucket"],
            Self::LaterBuckets => &["shard", "queue", "bucket"],
            Self::QuarantineIds => &["slot", "id", "tenant"],
            Self::Works => &["tenant", "account", "work"],
        }
    }

    /// How many of them are the partition's.
    pub(super) const fn partition_columns(self) -> usize {
        match self {
            Self::Progress | Self::LaterBuckets | Self::QuarantineIds => 1,
            Self::Conversations
            | Self::Pointers
            | Self::Intents
            | Self::Quarantine
            | Self::MessageMonths
            | Self::EventBuckets
            | Self::Works => 2,
            Self::Messages | Self::PlatformIds | Self::Events | Self::Later => 3,
        }
    }

    /// Whether rows that are written together may share a partition.
    pub(super) const fn shares_partitions(self) -> bool {
        self.columns().len() > self.partition_columns()
    }

    /// Whether its rows have a value, beside the key.
    pub(super) const fn has_value(self) -> bool {
        match self {
            Self::Conversations
            | Self::Messages
            | Self::Pointers
            | Self::PlatformIds
            | Self::Events
            | Self::Later
            | Self::Intents
            | Self::Progress
            | Self::Quarantine
            | Self::Works => true,
            Self::MessageMonths | Self::EventBuckets | Self::LaterBuckets | Self::QuarantineIds => false,
        }
    }
}

/// A row's key as cells, on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cells {
    bytes: [u8; CELLS_BYTES_MAX],
    ends: [u8; CELLS_MAX],
    count: u8,
}

impl Cells {
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut cells = Self { bytes: [0; CELLS_BYTES_MAX], ends: [0; CELLS_MAX], count: 0 };
        let mut end = 0;
        for part in parts {
            cells.bytes[end..end + part.len()].copy_from_slice(part);
            end += part.len();
            cells.ends[usize::from(cells.count)] = end as u8;
            cells.count += 1;
        }
        cells
    }

    /// How many cells there are.
    pub(super) fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// One of them.
    pub(super) fn get(&self, n: usize) -> &[u8] {
        let start = if n == 0 { 0 } else { usize::from(self.ends[n - 1]) };
        &self.bytes[start..usize::from(self.ends[n])]
    }

    /// The bytes of the first cells: equal for two keys of one table if and only if these cells are.
    pub(super) fn first(&self, cells: usize) -> &[u8] {
        if cells == 0 { &[] } else { &self.bytes[..usize::from(self.ends[cells - 1])] }
    }

    /// All bytes.
    pub(super) fn all(&self) -> &[u8] {
        self.first(self.count())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count()).map(|n| self.get(n))
    }
}

/// The CQL `int` of a shard or slot.
pub(super) fn int(n: impl Into<i32>) -> [u8; 4] {
    n.into().to_be_bytes()
}

/// The month of a message, as CQL `int`: the last is the 7,117,055th.
pub(super) fn month(at: Timestamp) -> [u8; 4] {
    let month = i32::try_from(at.as_micros() / MONTH_US).expect("2^64 microseconds are seven million months");
    month.to_be_bytes()
}

/// The bucket of an event, as CQL `bigint`.
pub(super) fn event_bucket(order: u64) -> [u8; 8] {
    (order >> EVENT_BUCKET_BITS).to_be_bytes()
}

fn later_bits(queue: Queue) -> u32 {
    match queue {
        Queue::Destination(_) | Queue::Bulk(_) => QUEUE_BUCKET_BITS,
        Queue::Timers => TIMER_BUCKET_BITS,
    }
}

/// The bucket of a row of `later`, as CQL `bigint`.
pub(super) fn later_bucket(queue: Queue, order: u64) -> [u8; 8] {
    (order >> later_bits(queue)).to_be_bytes()
}

/// When a bucket of `later` has passed: the time that the first order behind it stands for.
pub(super) fn later_bucket_end(queue: Queue, bucket: u64) -> Timestamp {
    let order = bucket.saturating_add(1).saturating_mul(1 << later_bits(queue));
    match queue {
        Queue::Destination(_) | Queue::Bulk(_) => Timestamp(order),
        Queue::Timers => Timestamp((order >> TIMER_SLOT_BITS).saturating_mul(10_000)),
    }
}

/// A queue's name in its column.
pub(super) fn queue_cell(queue: &Queue) -> Cow<'_, [u8]> {
    match queue {
        Queue::Destination(id) => Cow::Borrowed(id),
        Queue::Bulk(id) => Cow::Owned([id.as_slice(), BULK].concat()),
        Queue::Timers => Cow::Borrowed(TIMERS),
    }
}

/// The queue of a name; none for one that we never write.
pub(super) fn queue_of(cell: &[u8]) -> Option<Queue> {
    if cell == TIMERS {
        return Some(Queue::Timers);
    }
    if let Some(id) = cell.strip_suffix(BULK)
        && let Ok(id) = id.try_into()
    {
        return Some(Queue::Bulk(id));
    }
    Some(Queue::Destination(cell.try_into().ok()?))
}

/// The slot of an intent, by the end of the id: the beginnings of drawn ids are times.
fn intent_slot(message: &MessageId) -> u8 {
    message.0[ID_BYTES - 1] % INTENT_SLOTS
}

/// The slot of a quarantined record.
pub(super) fn quarantine_slot(id: &QuarantineId) -> u8 {
    id.0[0] / (u8::MAX / QUARANTINE_SLOTS + 1)
}

/// The row of a key.
pub(super) fn row_of(key: &Key) -> (Table, Cells) {
    match key {
        Key::Conversation(tenant, id) => (Table::Conversations, Cells::of(&[&tenant.0, &id.0])),
        Key::Message(tenant, conversation, at, id) => {
            (Table::Messages, Cells::of(&[&tenant.0, &conversation.0, &month(*at), &at.0.to_be_bytes(), &id.0]))
        }
        Key::Pointer(tenant, id) => (Table::Pointers, Cells::of(&[&tenant.0, id])),
        Key::PlatformId(tenant, account, id) => (Table::PlatformIds, Cells::of(&[&tenant.0, &account.0, &id.0])),
        Key::Event(tenant, place) => {
            let cells = Cells::of(&[&tenant.0, &int(place.shard), &event_bucket(place.order), &place.order.to_be_bytes()]);
            (Table::Events, cells)
        }
        Key::Later(shard, queue, order) => {
            let cells = Cells::of(&[&int(*shard), &queue_cell(queue), &later_bucket(*queue, *order), &order.to_be_bytes()]);
            (Table::Later, cells)
        }
        Key::Intent(shard, tenant, id) => (Table::Intents, Cells::of(&[&int(*shard), &int(intent_slot(id)), &tenant.0, &id.0])),
        Key::Progress(shard) => (Table::Progress, Cells::of(&[&int(*shard)])),
        Key::Quarantine(tenant, id) => (Table::Quarantine, Cells::of(&[&tenant.0, &int(quarantine_slot(id)), &id.0])),
        Key::Work(tenant, account, work) => (Table::Works, Cells::of(&[&tenant.0, &account.0, &int(work.code())])),
    }
}

/// The row of an index that must stand when the key's row does, in the tables that have one.
pub(super) fn index_of(key: &Key) -> Option<(Table, Cells)> {
    match key {
        Key::Message(tenant, conversation, at, _) => Some((Table::MessageMonths, Cells::of(&[&tenant.0, &conversation.0, &month(*at)]))),
        Key::Event(tenant, place) => Some((Table::EventBuckets, Cells::of(&[&tenant.0, &int(place.shard), &event_bucket(place.order)]))),
        Key::Later(shard, queue, order) => {
            Some((Table::LaterBuckets, Cells::of(&[&int(*shard), &queue_cell(queue), &later_bucket(*queue, *order)])))
        }
        Key::Quarantine(tenant, id) => Some((Table::QuarantineIds, Cells::of(&[&int(quarantine_slot(id)), &id.0, &tenant.0]))),
        Key::Conversation(..) | Key::Pointer(..) | Key::PlatformId(..) | Key::Intent(..) | Key::Progress(_) | Key::Work(..) => None,
    }
}

/// A cell that is not of the width that we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadCell;

fn id(cell: &[u8]) -> Result<[u8; ID_BYTES], BadCell> {
    cell.try_into().map_err(|_| BadCell)
}

/// A 64-bit number from its cell.
pub(super) fn number(cell: &[u8]) -> Result<u64, BadCell> {
    cell.try_into().map(u64::from_be_bytes).map_err(|_| BadCell)
}

/// A message found in a conversation.
pub(super) fn message_key(tenant: TenantId, conversation: ConversationId, cells: [&[u8]; 2]) -> Result<Key, BadCell> {
    Ok(Key::Message(tenant, conversation, Timestamp(number(cells[0])?), MessageId(id(cells[1])?)))
}

/// An event found in a shard's part of a feed.
pub(super) fn event_key(tenant: TenantId, shard: u16, pos: &[u8]) -> Result<Key, BadCell> {
    Ok(Key::Event(tenant, FeedPosition { shard, order: number(pos)? }))
}

/// A row found in a queue.
pub(super) fn later_key(shard: u16, queue: Queue, pos: &[u8]) -> Result<Key, BadCell> {
    Ok(Key::Later(shard, queue, number(pos)?))
}

/// An intent found in a shard.
pub(super) fn intent_key(shard: u16, cells: [&[u8]; 2]) -> Result<Key, BadCell> {
    Ok(Key::Intent(shard, TenantId(id(cells[0])?), MessageId(id(cells[1])?)))
}

/// A quarantined record, by the cells of its tenant and id.
pub(super) fn quarantine_key(tenant: &[u8], record: &[u8]) -> Result<Key, BadCell> {
    Ok(Key::Quarantine(TenantId(id(tenant)?), QuarantineId(id(record)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AccountId, PlatformRef};
    use crate::store::Work;

    const TENANT: TenantId = TenantId([1; 16]);

    fn one_of_each() -> Vec<Key> {
        vec![
            Key::Conversation(TENANT, ConversationId([2; 16])),
            Key::Message(TENANT, ConversationId([2; 16]), Timestamp(u64::MAX), MessageId([3; 16])),
            Key::Pointer(TENANT, [4; 16]),
            Key::PlatformId(TENANT, AccountId([5; 16]), PlatformRef([6; 16])),
            Key::Event(TENANT, FeedPosition { shard: u16::MAX, order: u64::MAX }),
            Key::Later(7, Queue::Destination([8; 16]), 9),
            Key::Later(7, Queue::Timers, u64::MAX),
            Key::Intent(7, TENANT, MessageId([3; 16])),
            Key::Progress(7),
            Key::Quarantine(TENANT, QuarantineId([10; 16])),
            Key::Work(TENANT, AccountId([5; 16]), Work::Refresh),
        ]
    }

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        for key in one_of_each() {
            for (table, cells) in [Some(row_of(&key)), index_of(&key)].into_iter().flatten() {
                assert_eq!(cells.count(), table.columns().len(), "{table:?}");
                assert!(table.partition_columns() <= table.columns().len(), "{table:?}");
                let joined: Vec<u8> = cells.iter().flatten().copied().collect();
                assert_eq!(joined, cells.all(), "{table:?}");
            }
        }
    }

    #[test]
    fn tenants_data_begins_with_the_tenant() {
        for key in one_of_each() {
            let (table, cells) = row_of(&key);
            let first = match table {
                Table::Conversations
                | Table::Messages
                | Table::Pointers
                | Table::PlatformIds
                | Table::Events
                | Table::Quarantine
                | Table::Works => "tenant",
                Table::Later | Table::Intents | Table::Progress => "shard",
                Table::MessageMonths | Table::EventBuckets | Table::LaterBuckets | Table::QuarantineIds => unreachable!("an index"),
            };
            assert_eq!(table.columns()[0], first);
            assert_eq!(cells.get(0).len(), if first == "tenant" { 16 } else { 4 });
        }
    }

    #[test]
    fn buckets_hold_what_stands_together() {
        let second = 1_000_000;
        let queue = Queue::Destination([1; 16]);
        let place = |queue: Queue, at: u64| match queue {
            Queue::Destination(_) | Queue::Bulk(_) => at,
            Queue::Timers => (at / 10_000) << TIMER_SLOT_BITS,
        };
        for (queue, width) in [(queue, 268 * second), (Queue::Timers, 2622 * second)] {
            let bucket = number(&later_bucket(queue, place(queue, 10_000_000 * second))).unwrap();
            let end = later_bucket_end(queue, bucket);
            assert!(end.as_micros() > 10_000_000 * second && end.as_micros() <= 10_000_000 * second + width + second);
            assert_eq!(number(&later_bucket(queue, place(queue, end.as_micros()))).unwrap(), bucket + 1);
        }
        assert_eq!(later_bucket_end(queue, u64::MAX), Timestamp::MAX);
        assert_ne!(event_bucket(0), event_bucket(1 << 17));
        assert_eq!(event_bucket(0), event_bucket((1 << 17) - 1));
        assert_ne!(month(Timestamp::ZERO), month(Timestamp(MONTH_US)));
        assert!(i32::from_be_bytes(month(Timestamp::MAX)) > 0);
    }

    #[test]
    fn slots_of_the_quarantine_follow_the_ids() {
        let mut last = 0;
        for first in 0..=u8::MAX {
            let slot = quarantine_slot(&QuarantineId([first; 16]));
            assert!(slot < QUARANTINE_SLOTS && slot >= last);
            last = slot;
        }
        assert_eq!(last, QUARANTINE_SLOTS - 1);
    }

    #[test]
    fn queues_read_back() {
        for queue in [Queue::Timers, Queue::Destination([0; 16]), Queue::Destination([b't'; 16]), Queue::Bulk([b'b'; 16])] {
            assert_eq!(queue_of(&queue_cell(&queue)), Some(queue));
        }
        assert_eq!(queue_of(b""), None);
    }
}
