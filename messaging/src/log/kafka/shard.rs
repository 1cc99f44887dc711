//! One owned shard: its three lanes between the poll thread and the router.
//!
//! A lane knows three places, as positions: up to where it is finished, up to where it was taken, up to where it was fetched. An object
//! lives for one assignment: when the shard comes again it is a new one, and what still holds the old one gets nothing and finishes nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::BoxFuture;
use crate::clock::Timestamp;
use crate::log::{Entry, Lag, LogError, Position, ShardReader, Topic};

/// Records of one lane that wait to be taken; beyond, its partition is paused.
pub(super) const LANE_RECORDS: usize = 4_096;
/// Bytes of one lane that wait to be taken; beyond, its partition is paused.
pub(super) const LANE_BYTES: usize = 4 << 20;
/// Places of one lane whose time is remembered. Beyond, every second one is forgotten.
const SAMPLES: usize = 1_024;

/// A partition of which nothing comes for so long though there is more is asked for anew.
const STILL: std::time::Duration = std::time::Duration::from_secs(5);

/// How often a reader that waits for a seek looks whether the shard is still ours.
const RESTART_LOOK: std::time::Duration = std::time::Duration::from_millis(200);

/// A record's place in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    position: u64,
    at: Timestamp,
}

/// One topic of a shard.
#[derive(Debug)]
pub(super) struct Lane {
    queue: VecDeque<Entry>,
    bytes: usize,
    /// The last position that is finished, durably.
    finished: u64,
    /// The last position that the router took.
    taken: u64,
    /// The last position that was fetched.
    fetched: u64,
    /// The end of the partition, as last seen.
    end: u64,
    /// When a look found records behind the last fetched one and nothing was fetched. The next look believes it.
    unfetched_since: Option<Timestamp>,
    /// Since when looks find records behind the last fetched one and none comes.
    still_since: Option<Timestamp>,
    /// Times of unfinished records, rising; the first stands at or before the oldest of them.
    samples: VecDeque<Sample>,
}

/// What a record that came turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one. Whether it was the first in an empty queue.
    Next { woken: bool },
    /// It came before.
    Again,
    /// The next one, and so many before it are gone.
    Gap(u64),
}

impl Lane {
    /// A lane whose records up to and including `finished` are finished, in a partition that ends at `end`.
    pub fn new(finished: u64, end: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            finished,
            taken: finished,
            fetched: finished,
            end: end.max(finished),
            unfetched_since: None,
            still_since: None,
            samples: VecDeque::new(),
        }
    }

    fn arrive(&mut self, entry: Entry) -> Arrival {
        let position = entry.position.0;
        if position <= self.fetched {
            return Arrival::Again;
        }
        let missing = position - self.fetched - 1;
        let woken = self.queue.is_empty();
        self.fetched = position;
        self.end = self.end.max(position);
        self.unfetched_since = None;
        self.still_since = None;
        self.remember(Sample { position, at: entry.appended_at });
        self.bytes += entry.payload.len();
        self.queue.push_back(entry);
        if missing > 0 { Arrival::Gap(missing) } else { Arrival::Next { woken } }
    }

    /// What was taken or fetched and is not finished comes again.
    fn restart(&mut self) {
        *self = Self::new(self.finished, self.end);
    }

    fn remember(&mut self, sample: Sample) {
        if self.samples.len() >= SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.samples.push_back(sample);
    }

    fn take(&mut self, max: usize) -> Vec<Entry> {
        let count = max.min(self.queue.len());
        let entries: Vec<Entry> = self.queue.drain(..count).collect();
        self.bytes -= entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        if let Some(last) = entries.last() {
            self.taken = last.position.0;
        }
        entries
    }

    fn finish(&mut self, position: u64) {
        self.finished = self.finished.max(position);
        // The last sample at or before the oldest unfinished record stays: it says "at least as old".
        while self.samples.get(1).is_some_and(|next| next.position <= self.finished + 1) {
            self.samples.pop_front();
        }
        if self.finished >= self.fetched {
            self.samples.clear();
        }
    }

    /// A look at the cluster found the partition to end here.
    fn looked(&mut self, end: u64, now: Timestamp) {
        self.end = self.end.max(end);
        if self.end > self.fetched {
            self.still_since.get_or_insert(now);
        }
        if self.end > self.fetched && self.fetched == self.finished && self.unfetched_since.is_none() {
            self.unfetched_since = Some(now);
        } else if self.unfetched_since.is_some() {
            // Seen twice: it counts from now on, with the time of the first look.
            self.samples.push_front(Sample { position: self.finished + 1, at: self.unfetched_since.unwrap_or(now) });
            self.samples.truncate(1);
        }
    }

    /// Whether records have stood behind the last fetched one for [`STILL`] and none came. Asked again, it says so after the same time again.
    fn stands_still(&mut self, now: Timestamp) -> bool {
        let still = self.still_since.is_some_and(|since| now.since(since) >= STILL);
        if still {
            self.still_since = Some(now);
        }
        still
    }

    fn lag(&self, topic: Topic, partition: u16) -> Lag {
        let oldest_at = self.samples.front().map(|sample| sample.at);
        // Without a time nothing of it was fetched, and it may just be on its way: a later look will tell.
        let records = oldest_at.map_or(0, |_| self.end - self.finished);
        Lag { topic, partition, records, oldest_at }
    }

    fn is_over(&self) -> bool {
        self.queue.len() >= LANE_RECORDS || self.bytes >= LANE_BYTES
    }

    fn has_room(&self) -> bool {
        self.queue.len() <= LANE_RECORDS / 2 && self.bytes <= LANE_BYTES / 2
    }
}

/// How far the end of an assignment is.
const OWNED: u8 = 0;
/// The router drains.
const REVOKED: u8 = 1;
/// Nothing is taken or finished any more.
const GONE: u8 = 2;

/// A shard that is, or was, ours.
pub(super) struct Shard {
    pub id: u16,
    lanes: Mutex<[Lane; Topic::ALL.len()]>,
    arrivals: Notify,
    state: std::sync::atomic::AtomicU8,
    /// Whether the router still holds the reader.
    held: AtomicBool,
    /// The router wants to go back to what is finished; the poll thread seeks.
    restarting: AtomicBool,
    restarted: Notify,
    /// Told when the log closes.
    closed: Arc<AtomicBool>,
}

impl Shard {
    pub fn new(id: u16, lanes: [Lane; Topic::ALL.len()], closed: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self {
            id,
            lanes: Mutex::new(lanes),
            arrivals: Notify::new(),
            state: std::sync::atomic::AtomicU8::new(OWNED),
            held: AtomicBool::new(true),
            restarting: AtomicBool::new(false),
            restarted: Notify::new(),
            closed,
        })
    }

    /// The router's end of it. Once.
    pub fn reader(self: &Arc<Self>) -> Box<dyn ShardReader> {
        Box::new(Reader { shard: self.clone() })
    }

    /// A record came. Says too whether the lane is full now.
    pub fn arrive(&self, topic: Topic, position: u64, at: Timestamp, payload: &[u8]) -> (Arrival, bool) {
        if self.state.load(Ordering::Acquire) != OWNED || self.is_restarting() {
            return (Arrival::Again, false);
        }
        let entry = Entry { position: Position(position), appended_at: at, payload: Bytes::copy_from_slice(payload) };
        let mut lanes = self.lanes();
        let lane = &mut lanes[topic.index()];
        let arrival = lane.arrive(entry);
        let over = lane.is_over();
        drop(lanes);
        match arrival {
            Arrival::Next { woken: true } | Arrival::Gap(_) => self.arrivals.notify_one(),
            Arrival::Next { woken: false } | Arrival::Again => {}
        }
        (arrival, over)
    }

    /// Whether the router waits for a seek to what is finished. Until then nothing that comes counts.
    pub fn is_restarting(&self) -> bool {
        self.restarting.load(Ordering::Acquire)
    }

    /// Where to seek to: the first unfinished offset of each topic.
    pub fn unfinished(&self) -> [u64; Topic::ALL.len()] {
        self.lanes().each_ref().map(|lane| lane.finished)
    }

    /// The consumer stands at what is finished again.
    pub fn restarted(&self) {
        for lane in self.lanes().iter_mut() {
            lane.restart();
        }
        self.restarting.store(false, Ordering::Release);
        self.restarted.notify_one();
    }

    /// Whether a full lane has been emptied enough to go on.
    pub fn has_room(&self, topic: Topic) -> bool {
        self.lanes()[topic.index()].has_room()
    }

    /// The router gives it back: nothing more is taken, and what was taken may still be finished.
    pub fn revoke(&self) {
        self.state.fetch_max(REVOKED, Ordering::AcqRel);
        self.empty();
    }

    /// It is somebody else's: nothing is taken or finished.
    pub fn release(&self) {
        self.state.store(GONE, Ordering::Release);
        self.empty();
    }

    fn empty(&self) {
        self.restarted.notify_one();
        for lane in self.lanes().iter_mut() {
            lane.queue = VecDeque::new();
            lane.bytes = 0;
        }
    }

    /// Whether the router let go of the reader.
    pub fn is_let_go(&self) -> bool {
        !self.held.load(Ordering::Acquire)
    }

    /// Whether everything that was taken is finished.
    pub fn is_settled(&self) -> bool {
        self.lanes().iter().all(|lane| lane.finished >= lane.taken)
    }

    /// Whether finishing up to a position moves anything: only ours, only forward, only what was fetched.
    pub fn may_finish(&self, topic: Topic, position: u64) -> bool {
        let lanes = self.lanes();
        let lane = &lanes[topic.index()];
        self.state.load(Ordering::Acquire) != GONE && position > lane.finished && position <= lane.fetched
    }

    /// Positions were committed.
    pub fn finished(&self, topic: Topic, position: u64) {
        self.lanes()[topic.index()].finish(position);
    }

    /// A look at the cluster.
    pub fn looked(&self, topic: Topic, end: u64, now: Timestamp) {
        self.lanes()[topic.index()].looked(end, now);
    }

    /// Nothing of a topic is asked for now: that nothing comes says nothing.
    pub fn is_not_asked(&self, topic: Topic) {
        self.lanes()[topic.index()].still_since = None;
    }

    /// Where to ask anew for a topic of which nothing comes though there is more: behind the last fetched record.
    pub fn stands_still(&self, topic: Topic, now: Timestamp) -> Option<u64> {
        let mut lanes = self.lanes();
        let lane = &mut lanes[topic.index()];
        lane.stands_still(now).then_some(lane.fetched)
    }

    /// How far behind its lanes are.
    pub fn lag(&self) -> [Lag; Topic::ALL.len()] {
        let lanes = self.lanes();
        [Topic::Inbound, Topic::Outbound, Topic::Bulk].map(|topic| lanes[topic.index()].lag(topic, self.id))
    }

    fn has_waiting(&self) -> bool {
        self.lanes().iter().any(|lane| !lane.queue.is_empty())
    }

    fn lanes(&self) -> MutexGuard<'_, [Lane; Topic::ALL.len()]> {
        self.lanes.lock().expect("no holder of the lanes panics")
    }
}

/// What the router holds.
struct Reader {
    shard: Arc<Shard>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shard.held.store(false, Ordering::Release);
    }
}

impl ShardReader for Reader {
    fn shard(&self) -> u16 {
        self.shard.id
    }

    fn ready(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // A notice that came while nobody waited is kept, so nothing is missed between the look and the wait.
            while !self.shard.has_waiting() {
                self.shard.arrivals.notified().await;
            }
        })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            self.shard.restarting.store(true, Ordering::Release);
            while self.shard.is_restarting() {
                if self.shard.state.load(Ordering::Acquire) != OWNED || self.shard.closed.load(Ordering::Acquire) {
                    return Err(LogError::Closed);
                }
                let _ = tokio::time::timeout(RESTART_LOOK, self.shard.restarted.notified()).await;
            }
            Ok(())
        })
    }

    fn take(&mut self, topic: Topic, max: usize) -> BoxFuture<'_, Result<Vec<Entry>, LogError>> {
        let taken = if self.shard.closed.load(Ordering::Acquire) {
            Err(LogError::Closed)
        } else {
            // After a revocation the queues are empty and stay so.
            Ok(self.shard.lanes()[topic.index()].take(max))
        };
        Box::pin(std::future::ready(taken))
    }
}

#[cfg(test)]
mod tests;
