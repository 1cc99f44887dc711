//! Answers of a short while ago, under 16-byte keys: what several gateways know of keyed sends, so that a replay that another one meets
//! is answered alike.
//!
//! Best effort: an answer may be missing at any time, and nothing may rely on one being there. The store's row decides; this spares
//! asking it, and bridges the moment until the row is written. Values are opaque: who puts them seals them.

mod local;
#[cfg(feature = "redis")]
mod redis;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::BoxFuture;
use crate::clock::SharedClock;

#[cfg(feature = "redis")]
pub use self::redis::{RecentSettings, open_redis};

/// Longest value that is kept, in bytes.
pub const VALUE_MAX: usize = 4096;

/// The memory. The contract: `get` gives what was put under that key not longer than its time ago, or nothing; the first value of a key
/// stays until its time is over; neither waits longer than the backend's timeout, and neither fails.
pub trait Recent: Send + Sync {
    /// What was put under this key. `None`: nothing, or it is not known.
    fn get(&self, key: [u8; 16]) -> BoxFuture<'_, Option<Bytes>>;
    /// Keeps a value for so long, where there is none under this key. One of more than [`VALUE_MAX`] bytes is not kept.
    fn put(&self, key: [u8; 16], value: Bytes, ttl: Duration) -> BoxFuture<'_, ()>;
    /// Forgets what is old; called once a minute.
    fn sweep(&self);
}

/// A memory of this process only.
pub fn open_local(clock: SharedClock) -> Arc<dyn Recent> {
    Arc::new(local::LocalRecent::new(clock))
}
