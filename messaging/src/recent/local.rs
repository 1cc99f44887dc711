//! Recent answers inside one process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use super::*;

/// Independent maps, so that threads seldom wait for each other.
const PARTS: usize = 16;
/// Values of one map; beyond, the oldest goes.
const PART_ENTRIES_MAX: usize = 8 * 1024;
/// Bytes of one map's values: 32 MiB for all.
const PART_BYTES_MAX: usize = 2 << 20;

/// The memory.
pub(super) struct LocalRecent {
    clock: SharedClock,
    parts: Vec<Mutex<Part>>,
}

#[derive(Default)]
struct Part {
    entries: HashMap<[u8; 16], Entry, RandomState>,
    /// As they came, with the end that the entry had then: one that was replaced since has another.
    order: VecDeque<([u8; 16], Duration)>,
    bytes: usize,
}

struct Entry {
    value: Bytes,
    until: Duration,
}

impl LocalRecent {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, parts: (0..PARTS).map(|_| Mutex::default()).collect() }
    }

    fn part(&self, key: [u8; 16]) -> MutexGuard<'_, Part> {
        // A part that a panic left behind has at worst a wrong sum of bytes.
        self.parts[usize::from(key[15]) % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: [u8; 16]) -> Option<Bytes> {
        let now = self.clock.monotonic();
        self.part(key).entries.get(&key).filter(|entry| entry.until > now).map(|entry| entry.value.clone())
    }
}

impl Part {
    fn keep(&mut self, key: [u8; 16], value: Bytes, until: Duration, now: Duration) {
        if self.entries.get(&key).is_some_and(|entry| entry.until > now) {
            return;
        }
        self.bytes += value.len();
        if let Some(old) = self.entries.insert(key, Entry { value, until }) {
            self.bytes -= old.value.len();
        }
        self.order.push_back((key, until));
        while self.order.len() > PART_ENTRIES_MAX || self.bytes > PART_BYTES_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((key, until)) = self.order.pop_front() else { return };
        if self.entries.get(&key).is_some_and(|entry| entry.until == until)
            && let Some(entry) = self.entries.remove(&key)
        {
            self.bytes -= entry.value.len();
        }
    }

    fn sweep(&mut self, now: Duration) {
        let Self { entries, order, bytes } = self;
        entries.retain(|_, entry| {
            let is_young = entry.until > now;
            if !is_young {
                *bytes -= entry.value.len();
            }
            is_young
        });
        order.retain(|(key, until)| entries.get(key).is_some_and(|entry| entry.until == *until));
    }
}

impl Recent for LocalRecent {
    fn get(&self, key: [u8; 16]) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(std::future::ready(self.find(key)))
    }

    fn put(&self, key: [u8; 16], value: Bytes, ttl: Duration) -> BoxFuture<'_, ()> {
        if value.len() <= VALUE_MAX && !ttl.is_zero() {
            let now = self.clock.monotonic();
            self.part(key).keep(key, value, now.saturating_add(ttl), now);
        }
        Box::pin(std::future::ready(()))
    }

    fn sweep(&self) {
        let now = self.clock.monotonic();
        for part in &self.parts {
            part.lock().unwrap_or_else(PoisonError::into_inner).sweep(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    const TTL: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn values_live_for_their_time_and_the_first_stays() {
        let clock = ManualClock::at(Timestamp::from_secs(1_795_168_800));
        let recent = open_local(clock.clone());
        let key = [7; 16];
        assert_eq!(recent.get(key).await, None);
        recent.put(key, Bytes::from_static(b"one"), TTL).await;
        recent.put(key, Bytes::from_static(b"two"), TTL).await;
        assert_eq!(recent.get(key).await.as_deref(), Some(&b"one"[..]));
        assert_eq!(recent.get([8; 16]).await, None);
        clock.advance(TTL);
        assert_eq!(recent.get(key).await, None, "its time is over");
        recent.put(key, Bytes::from_static(b"two"), TTL).await;
        recent.sweep();
        assert_eq!(recent.get(key).await.as_deref(), Some(&b"two"[..]));
        recent.put([9; 16], Bytes::from(vec![0; VALUE_MAX + 1]), TTL).await;
        assert_eq!(recent.get([9; 16]).await, None, "too large to keep");
        recent.put([9; 16], Bytes::new(), Duration::ZERO).await;
        assert_eq!(recent.get([9; 16]).await, None, "for no time");
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let clock = ManualClock::at(Timestamp::from_secs(1_795_168_800));
        let recent = LocalRecent::new(clock.clone());
        for count in 0..(PARTS * PART_ENTRIES_MAX * 2) as u128 {
            recent.put(count.to_be_bytes(), Bytes::from_static(b"x"), TTL).await;
        }
        let sizes = |recent: &LocalRecent| -> Vec<(usize, usize, usize)> {
            let parts = recent.parts.iter().map(|part| part.lock().unwrap());
            parts.map(|part| (part.entries.len(), part.order.len(), part.bytes)).collect()
        };
        assert!(sizes(&recent).iter().all(|size| *size == (PART_ENTRIES_MAX, PART_ENTRIES_MAX, PART_ENTRIES_MAX)));
        for count in 0..(PARTS * PART_BYTES_MAX / VALUE_MAX * 2) as u128 {
            recent.put((count << 64 | count).to_be_bytes(), Bytes::from(vec![0; VALUE_MAX]), TTL).await;
        }
        assert!(sizes(&recent).iter().all(|(.., bytes)| *bytes <= PART_BYTES_MAX));
        clock.advance(TTL);
        recent.sweep();
        assert!(sizes(&recent).iter().all(|size| *size == (0, 0, 0)));
    }
}
