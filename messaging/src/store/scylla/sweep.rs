//! Takes passed buckets of `later` out of their index, so that a shard that begins reads only those that hold something.
//!
//! A row in the index must stand as long as its bucket has a row, so a bucket goes in two looks:
//! 1. It has passed (its orders are times) since a while. A stamp is drawn and kept.
//! 2. A sweep later the bucket is read. If it is empty, its index row is deleted with the stamp of the first look.
//!
//! What is put into a passed bucket always writes its index row along (`writer`). If it drew its stamp after the first look, its
//! index row wins over the deletion. If before, it ended before the second look, which sees it; or it failed, and is written
//! anew with later stamps.

use std::collections::HashMap;
use std::sync::{Mutex, Weak};
use std::time::Duration;

use super::Inner;
use super::failure::Failure;
use super::keys::{self, Cells, Table};
use super::packs::Rows;
use super::statements::Row;
use crate::clock::{SharedClock, Timestamp};
use crate::store::Queue;

/// Time from sweep to sweep: longer than any request and its retries.
const EVERY: Duration = Duration::from_secs(300);
/// How long a bucket must have passed: what was under way when it did has ended.
const SETTLED: Duration = Duration::from_secs(600);
/// Buckets under watch. Others wait until these are done.
const WATCHED_MAX: usize = 4096;
/// A bucket that holds something is looked at again after this many times its age.
const PATIENCE: u32 = 2;

/// The shards that this process holds.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<u16, Timestamp>>);

impl Held {
    pub(super) fn note(&self, shard: u16, until: Timestamp) {
        self.0.lock().expect("no holder of the leases panics").insert(shard, until);
    }

    pub(super) fn forget(&self, shard: u16) {
        self.0.lock().expect("no holder of the leases panics").remove(&shard);
    }

    fn at(&self, now: Timestamp) -> Vec<u16> {
        let mut held = self.0.lock().expect("no holder of the leases panics");
        held.retain(|_, until| *until > now);
        held.keys().copied().collect()
    }
}

type Bucket = (u16, Queue, u64);

/// A bucket that was looked at.
#[derive(Debug, Clone, Copy)]
struct Watch {
    /// Drawn at the first look.
    stamp: i64,
    /// When it is read.
    next: Timestamp,
}

/// Sweeps until the store is gone.
pub(super) async fn run(store: Weak<Inner>, clock: SharedClock) {
    let mut watched = HashMap::new();
    loop {
        clock.sleep(EVERY).await;
        let Some(store) = store.upgrade() else { return };
        for shard in store.held.at(clock.now()) {
            if let Err(failure) = store.sweep(shard, &mut watched).await {
                tracing::debug!(shard, error = %crate::store::StoreError::from(failure), "later was not swept");
            }
        }
    }
}

impl Inner {
    async fn sweep(&self, shard: u16, watched: &mut HashMap<Bucket, Watch>) -> Result<(), Failure> {
        let now = self.clock.now();
        watched.retain(|(of, ..), watch| *of != shard || watch.next.plus(SETTLED * PATIENCE) > now);
        let mut empty = Rows::default();
        for (queue, bucket) in self.later_buckets(shard).await? {
            let end = keys::later_bucket_end(queue, bucket);
            if end.plus(SETTLED) > now {
                continue;
            }
            let key = (shard, queue, bucket);
            let Some(watch) = watched.get(&key).copied() else {
                if watched.len() < WATCHED_MAX {
                    let stamp = self.stamps.draw(now, std::iter::once(now))[0];
                    watched.insert(key, Watch { stamp, next: now.plus(EVERY / 2) });
                }
                continue;
            };
            if watch.next > now {
                continue;
            }
            if self.later_of(shard, queue, bucket.to_be_bytes(), 0, 1).await?.is_empty() {
                watched.remove(&key);
                let cells = Cells::of(&[&keys::int(shard), &keys::queue_cell(&queue), &bucket.to_be_bytes()]);
                empty.push(Row { table: Table::LaterBuckets, cells, put: None, stamp: watch.stamp, replicas: 0 });
            } else {
                watched.insert(key, Watch { next: now.plus(now.since(end) * PATIENCE), ..watch });
            }
        }
        self.send(&mut empty).await
    }
}
