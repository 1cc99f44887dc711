//! The store: what is kept. Point reads, short scans and batched writes over typed keys; values are sealed bytes.
//!
//! The contract of [`Store`]:
//! * `apply` takes a batch. `Durability::Buffered`: visible to reads at once, survives `kill -9` of the process, but not
//!   power loss until the next `sync`. `Durability::Synced`: survives power loss when it returns. On the embedded side a batch
//!   is atomic; elsewhere it is applied in order, so callers put the row that others depend on last.
//! * Writes are idempotent upserts; `at` is the log's append time and is the write time, so that a replay neither doubles nor
//!   undoes what came later (the embedded store has one writer per key, the shard that owns it).
//! * Tenant is the first part of every key of a tenant's data; a scan never leaves the tenant (or shard) it was given.
//! * A row is not given any more once its [`Retention`] has passed since its write time, and it is gone from the disk in bounded
//!   time afterwards. A row that leads to another may outlive it.
//! * Reads and writes never block an async worker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::clock::{SharedClock, Timestamp};
use crate::ids::{AccountId, ConversationId, MessageId, PlatformRef, QuarantineId, TenantId};
use crate::state::FeedPosition;

pub mod embedded;
mod in_flight;
pub mod lazy;
mod retention;
#[cfg(feature = "scylla")]
pub mod scylla;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use retention::Retention;

/// The queue in `later` that a row stands in: a destination's, or the shard's timers. They are in the order of their rows on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Queue {
    /// Of an account or endpoint (its 16 bytes).
    Destination([u8; 16]),
    /// Windows, scheduled sends, unknown sends awaiting settlement: ordered by due time.
    Timers,
    /// Of an account's bulk sends: they never stand before the others.
    Bulk([u8; 16]),
}

/// A row's key. The variant is the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// `state::Conversation`, sealed.
    Conversation(TenantId, ConversationId),
    /// `state::MessageRow`, by conversation and time.
    Message(TenantId, ConversationId, Timestamp, MessageId),
    /// `state::Pointer`: where an id (message or event) leads. The 16 bytes are the id's.
    Pointer(TenantId, [u8; 16]),
    /// `state::Pointer` of the message that has this platform id.
    PlatformId(TenantId, AccountId, PlatformRef),
    /// `state::EventRow`, the feed.
    Event(TenantId, FeedPosition),
    /// The shard's `later` queue: (shard, queue, order).
    Later(u16, Queue, u64),
    /// An intent to send, while the platform may have it: (shard, tenant, message).
    Intent(u16, TenantId, MessageId),
    /// `state::FeedProgress` of a shard.
    Progress(u16),
    /// `state::Quarantined`.
    Quarantine(TenantId, QuarantineId),
    /// `state::WorkNote`, sealed: what one kind of work of an account has to remember.
    Work(TenantId, AccountId, Work),
}

/// A kind of work that goes on for an account without anybody asking. One process at a time does it, under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Work {
    /// A connection that stays open: Discord's Gateway.
    Connection,
    /// Asking the platform for what it told nobody: WooCommerce's orders.
    Pull,
    /// Renewing a credential before it ends.
    Refresh,
}

impl Work {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Connection, Self::Pull, Self::Refresh];

    /// Its number in stored keys. Never changes.
    pub const fn code(self) -> u8 {
        match self {
            Self::Connection => 1,
            Self::Pull => 2,
            Self::Refresh => 3,
        }
    }

    /// The kind of a number; none for one that we never write.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|work| work.code() == code)
    }
}

/// What a lease is on. Leases on different things know nothing of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseOn {
    /// A shard.
    Shard(u16),
    /// One kind of work of an account.
    Account(AccountId, Work),
}

/// A change of one row: a value, or none to delete it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The row.
    pub key: Key,
    /// Its new value; none deletes it.
    pub value: Option<Vec<u8>>,
    /// Write time: the log's append time of what caused it.
    pub at: Timestamp,
}

impl Write {
    /// Puts a value.
    pub fn put(key: Key, value: Vec<u8>, at: Timestamp) -> Self {
        Self { key, value: Some(value), at }
    }
    /// Deletes a row.
    pub fn delete(key: Key, at: Timestamp) -> Self {
        Self { key, value: None, at }
    }
}

/// A range of rows, in key order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// A conversation's messages, newest first, strictly before a time.
    Messages(TenantId, ConversationId, Timestamp),
    /// A shard's part of a tenant's feed, oldest first, strictly after a place.
    Events(TenantId, FeedPosition),
    /// A `later` queue, from an order on (inclusive).
    Later(u16, Queue, u64),
    /// Everything in a shard's `later`, queue by queue.
    AllLater(u16),
    /// A shard's open intents.
    Intents(u16),
    /// A tenant's quarantine, after an id; all tenants when none is given.
    Quarantine(Option<TenantId>, Option<QuarantineId>),
}

/// A row found by a scan.
pub type Found = (Key, Vec<u8>);

/// How much a write must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The process's death.
    Buffered,
    /// Power loss.
    Synced,
}

/// The store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It is away or overloaded: try again.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The disk budget is used up.
    #[error("store is full")]
    Full,
    /// Damage, or rows of another version.
    #[error("store damaged: {0}")]
    Damaged(String),
    /// Another change came first (directory, lease).
    #[error("changed by another in between")]
    Conflict,
    /// The lease that this was to be written under has run out.
    #[error("the lease has run out")]
    Unheld,
    /// Closed.
    #[error("store closed")]
    Closed,
}

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What it is on.
    pub on: LeaseOn,
    /// Rises with every new owner. An intent of an older epoch is unknown, never unsent.
    pub epoch: u64,
    /// Who holds it (a random id).
    pub owner: [u8; 16],
    /// Until when, by the store's clock.
    pub until: Timestamp,
}

/// The answer to a request for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// It is the caller's.
    Held(Lease),
    /// Another holds it.
    HeldByOther(Lease),
}

/// Rows of the directory, by the text form of their ids.
pub type DirectoryRows = Vec<(String, Vec<u8>)>;

/// A lease that is worked under, and whether it still holds.
#[derive(Clone)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// Whether it holds at this moment, on the monotonic clock, with a margin.
    pub holds: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// A store. The contract stands at the top of this file.
pub trait Store: Send + Sync {
    /// Reads rows; one answer per key, by position.
    fn read(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StoreError>>;
    /// Reads a range, at most `limit` rows.
    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>>;
    /// Writes a batch.
    fn apply(&self, batch: Vec<Write>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Writes the batch of a shard's step as one, under the shard's lease: whoever takes the lease next finds all of it or nothing.
    /// Under a lease on an account's work only a single row is that. [`StoreError::Unheld`] when the lease does not hold any more; then
    /// nothing of it counts. The batch is shared: a caller that must try again has it still. Only a store whose `apply` is atomic may
    /// leave this as it is.
    fn apply_step(&self, held: &Held, batch: Arc<Vec<Write>>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        if !(held.holds)() {
            return Box::pin(std::future::ready(Err(StoreError::Unheld)));
        }
        self.apply(Arc::unwrap_or_clone(batch), durability)
    }
    /// Makes everything that was applied survive power loss.
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Takes or renews a lease: free, expired or the caller's own. A new owner gets a higher epoch; the caller's own
    /// keeps its epoch even after its end, when nobody had it in between.
    fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>>;
    /// Gives a lease back, if it is still the caller's.
    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The directory's version: rises with every change.
    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// The whole directory and its version.
    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>>;
    /// Changes rows (none deletes) if the version is still `expected`; gives the new version. Synced.
    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Bytes on this node's disk, and the limit; zeros when they are elsewhere.
    fn disk(&self) -> (u64, u64);
    /// Syncs and lets go of the files.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Settings of the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// Its folder.
    pub dir: PathBuf,
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// Bytes of block cache.
    pub cache_bytes: u64,
    /// How long rows are kept.
    pub retention: Retention,
}

/// Opens the embedded store.
pub fn open_embedded(settings: EmbeddedSettings, clock: SharedClock) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(embedded::EmbeddedStore::open(settings, clock)?))
}
