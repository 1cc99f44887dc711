//! The log: what joins the stations. Accepted means: durable here.
//!
//! The contract of [`Log`]:
//! * `append` returns one result per record, by position in the batch; `Ok` means durable (it survives `kill -9` and, with
//!   `fsync = "group"`, power loss). A failed sync is never retried into success: the records get an error, and the log closes.
//! * Within one topic and partition, records have rising positions in the order in which they were appended; records of one
//!   batch keep their order: when one is not taken, those behind it in the batch, of its topic and partition, are not either.
//!   The partition is chosen by the caller (`ids::partition_of`), never by the backend.
//! * Readers see only durable records. Each shard reads its partition of the three topics from its finished position on, so
//!   every record comes at least once.
//! * `finish` moves the finished position: everything up to and including it will not come again. Callers finish a prefix only
//!   when every effect is done or stands in `later`, and after the store is durable.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::clock::{SharedClock, Timestamp};
use crate::outcome::named_enum;

pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod spool;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

named_enum! {
/// What a record is about. The three are co-partitioned: the shard that knows the window also decides the send.
Topic {
    /// Platform events.
    Inbound = "inbound",
    /// Sends of people and programs.
    Outbound = "outbound",
    /// Campaigns.
    Bulk = "bulk",
}
}

/// A place in a topic's partition. Rises; not dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position(pub u64);

/// A record to be appended.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Which topic.
    pub topic: Topic,
    /// Which partition (0-based, below `Log::partitions`).
    pub partition: u16,
    /// The bytes.
    pub payload: Bytes,
}

/// A record read back.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// When it was appended.
    pub appended_at: Timestamp,
    /// The bytes.
    pub payload: Bytes,
}

/// A record was not appended. The caller chooses what to do by the variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue or the disk budget is full: try again later.
    #[error("the log is full, try again later")]
    Full,
    /// The log did not confirm the record in time, or cannot be reached: try again later. The record may stand on it all the same.
    #[error("the log does not confirm records now, try again later")]
    Away,
    /// The log is closing or broken: this process takes nothing more.
    #[error("the log is closed")]
    Closed,
    /// Never, however often it is tried.
    #[error("the record is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// A partition that does not exist.
    #[error("no such partition")]
    Partition,
}

/// Reading or finishing failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk or the broker.
    #[error("log i/o: {0}")]
    Io(#[from] std::io::Error),
    /// Bytes that were durable are damaged: nothing is skipped in silence.
    #[error(
        "log damaged in {file} at byte {offset}: {what}; the records after it are intact up to {intact_until}. Restore the file, or set log.embedded.on_damage = \"skip\" to go on without this range"
    )]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What was wrong.
        what: String,
        /// How far intact groups were found after it.
        intact_until: u64,
    },
    /// Another process uses the data.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The files were made with another setting.
    #[error("{0}")]
    Mismatch(String),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

/// How far behind a shard is in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Which topic.
    pub topic: Topic,
    /// Which partition.
    pub partition: u16,
    /// Records not yet finished.
    pub records: u64,
    /// When the oldest of them was appended; none when caught up.
    pub oldest_at: Option<Timestamp>,
}

/// Shards come and go.
pub enum ClaimChange {
    /// These shards are ours from now on.
    Assigned(Vec<Box<dyn ShardReader>>),
    /// Give these back: stop taking, drain, finish, then drop their readers.
    Revoked(Vec<u16>),
    /// These are lost already: drop them, finish nothing.
    Lost(Vec<u16>),
}

/// One shard's reader.
pub trait ShardReader: Send + Sync {
    /// The partition that it reads.
    fn shard(&self) -> u16;
    /// Returns when there may be a record to take; cancel-safe.
    fn ready(&mut self) -> BoxFuture<'_, ()>;
    /// Goes back to the finished positions: what was taken and not finished comes again.
    fn restart(&mut self) -> BoxFuture<'_, Result<(), LogError>>;
    /// Takes up to `max` records of a topic; empty when there are none now. Does not wait for new ones.
    fn take(&mut self, topic: Topic, max: usize) -> BoxFuture<'_, Result<Vec<Entry>, LogError>>;
}

/// A finished prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Which topic.
    pub topic: Topic,
    /// Which shard.
    pub shard: u16,
    /// Up to and including this position.
    pub position: Position,
}

/// A log. The contract stands at the top of this file.
pub trait Log: Send + Sync {
    /// How many partitions each topic has.
    fn partitions(&self) -> u16;
    /// The largest payload that is taken.
    fn max_record(&self) -> usize;
    /// Appends a batch; one result per record, by position.
    fn append(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>>;
    /// Appends a batch, for a caller that has another place for what is not taken soon: a record whose partition does not get on is
    /// `Away` before long, though it may come to stand in the log all the same.
    fn append_soon(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        self.append(batch)
    }
    /// Waits for the next change of ownership. The embedded log assigns all shards at the first call and then waits for ever.
    fn claims(&self) -> BoxFuture<'_, ClaimChange>;
    /// Moves finished positions, durably.
    fn finish(&self, finished: Vec<Finished>) -> BoxFuture<'_, Result<(), LogError>>;
    /// How far behind each owned shard is.
    fn lag(&self) -> Vec<Lag>;
    /// Whether appends are taken now: readiness and refusals ask this.
    fn writable(&self) -> bool;
    /// Bytes on this node's disk, and the limit; zeros when they are elsewhere.
    fn disk(&self) -> (u64, u64);
    /// Records waiting in the local queue of the writer, and its limit.
    fn queue(&self) -> (usize, usize);
    /// Stops taking, syncs what was taken, releases files. Later appends get `Closed`.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Settings of the embedded log.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// Its folder.
    pub dir: PathBuf,
    /// Partitions of each topic. Fixed when the folder is made.
    pub partitions: u16,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// How the writer syncs.
    pub fsync: Fsync,
    /// Segments older than this, and finished, are dropped.
    pub retention: Duration,
    /// Most bytes on disk; beyond, appends get `Full`.
    pub max_bytes: u64,
    /// The largest payload.
    pub max_record: usize,
    /// Whether a damaged range in the middle is skipped (an operator's explicit step) or refuses to open.
    pub skip_damage: bool,
}

/// When the embedded log syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Once per group of appends: many requests share one sync.
    Group,
    /// Once per append call.
    Each,
    /// Never: survives a crash of the process, not of the machine. `dev` only.
    Never,
}

/// Opens the embedded log: recovers, cuts a torn tail, refuses damage in the middle.
pub fn open_embedded(settings: EmbeddedSettings, clock: SharedClock) -> Result<Arc<dyn Log>, LogError> {
    Ok(Arc::new(embedded::EmbeddedLog::open(settings, clock)?))
}
