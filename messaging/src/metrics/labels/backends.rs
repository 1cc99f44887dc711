//! Limits, store and caches.

use crate::outcome::named_enum;
use crate::store::StoreError;

named_enum! {
/// What a budget said.
LimitDecision {
    /// Go.
    Allowed = "allowed",
    /// Wait.
    Delayed = "delayed",
    /// No: the wait would be too long.
    Refused = "refused",
}
}

named_enum! {
/// An operation of the store's trait.
StoreOperation {
    /// Point reads.
    Read = "read",
    /// Range reads.
    Scan = "scan",
    /// Batched writes.
    Apply = "apply",
    /// Making writes survive power loss.
    Sync = "sync",
    /// Taking or renewing a lease.
    Lease = "lease",
    /// Giving a lease back.
    Release = "release",
    /// Looking at the directory's version.
    DirectoryVersion = "directory_version",
    /// Reading the directory.
    Directory = "directory",
    /// Changing the directory.
    ChangeDirectory = "change_directory",
}
}

named_enum! {
/// How a store request ended.
StoreOutcome {
    /// Answered; a lost race is an answer.
    Ok = "ok",
    /// No answer in time.
    Timeout = "timeout",
    /// Away or overloaded.
    Unavailable = "unavailable",
    /// Full, damaged or closed.
    Error = "error",
}
}

impl StoreOutcome {
    /// The outcome of a result.
    pub fn of<T>(result: &Result<T, StoreError>) -> Self {
        match result {
            Ok(_) | Err(StoreError::Conflict) => Self::Ok,
            Err(StoreError::Unavailable(_)) => Self::Unavailable,
            Err(StoreError::Full | StoreError::Damaged(_) | StoreError::Unheld | StoreError::Closed) => Self::Error,
        }
    }
}

named_enum! {
/// Why a store request was tried again.
StoreRetryReason {
    /// No answer in time.
    Timeout = "timeout",
    /// Away or overloaded.
    Unavailable = "unavailable",
    /// Another change came first.
    Conflict = "conflict",
    /// The disk budget was used up.
    Full = "full",
}
}

named_enum! {
/// What uses the node's disk.
DiskComponent {
    /// The embedded log.
    Log = "log",
    /// The embedded store.
    Store = "store",
}
}

named_enum! {
/// A cache.
CacheName {
    /// Conversation states of the shards.
    Conversations = "conversations",
}
}

named_enum! {
/// What a cache look-up gave.
CacheResult {
    /// Found.
    Hit = "hit",
    /// Not found.
    Miss = "miss",
}
}
