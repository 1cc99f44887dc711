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
mod tests {
    use super::*;

    fn entry(position: u64) -> Entry {
        Entry { position: Position(position), appended_at: Timestamp::from_secs(position), payload: Bytes::from_static(b"12345678") }
    }

    fn filled(finished: u64, to: u64) -> Lane {
        let mut lane = Lane::new(finished, finished);
        for position in finished + 1..=to {
            lane.arrive(entry(position));
        }
        lane
    }

    fn seen(lane: &Lane) -> (u64, Option<u64>) {
        let lag = lane.lag(Topic::Inbound, 0);
        (lag.records, lag.oldest_at.map(Timestamp::as_secs))
    }

    #[test]
    fn repeated_and_missing_records_are_told() {
        let mut lane = Lane::new(10, 10);
        let cases = [
            (11, Arrival::Next { woken: true }),
            (12, Arrival::Next { woken: false }),
            (12, Arrival::Again),
            (5, Arrival::Again),
            (16, Arrival::Gap(3)),
            (17, Arrival::Next { woken: false }),
        ];
        for (position, wanted) in cases {
            assert_eq!(lane.arrive(entry(position)), wanted, "{position}");
        }
        assert_eq!(lane.take(10).iter().map(|entry| entry.position.0).collect::<Vec<_>>(), [11, 12, 16, 17]);
        assert_eq!((lane.taken, lane.bytes), (17, 0));
    }

    #[test]
    fn lag_is_from_the_finished_position_to_the_end() {
        let mut lane = filled(0, 10);
        assert_eq!(seen(&lane), (10, Some(1)));
        lane.take(10);
        assert_eq!(seen(&lane), (10, Some(1)), "taken is not finished");
        lane.finish(4);
        assert_eq!(seen(&lane), (6, Some(5)));
        lane.finish(2);
        assert_eq!(seen(&lane), (6, Some(5)), "never back");
        lane.looked(30, Timestamp::from_secs(100));
        assert_eq!(seen(&lane), (26, Some(5)), "what is not fetched counts");
        lane.finish(10);
        assert_eq!(seen(&lane), (0, None), "nothing of the rest was fetched yet");
        lane.looked(30, Timestamp::from_secs(101));
        lane.looked(30, Timestamp::from_secs(102));
        assert_eq!(seen(&lane), (20, Some(101)), "but it does not come: at least since the first look");
        lane.arrive(entry(11));
        lane.finish(11);
        assert_eq!(seen(&lane).1, None);
        for position in 12..=30 {
            lane.arrive(entry(position));
        }
        lane.finish(30);
        assert_eq!(seen(&lane), (0, None));
    }

    #[test]
    fn a_lane_stands_still_when_there_is_more_and_none_comes() {
        let at = Timestamp::from_secs;
        let mut lane = filled(0, 10);
        lane.looked(10, at(100));
        assert!(!lane.stands_still(at(200)), "there is no more");
        lane.looked(12, at(200));
        assert!(!lane.stands_still(at(204)));
        lane.arrive(entry(11));
        assert!(!lane.stands_still(at(300)), "something came");
        lane.looked(12, at(300));
        assert!(lane.stands_still(at(305)));
        assert!(!lane.stands_still(at(306)), "asked for anew just now");
        assert!(lane.stands_still(at(310)), "and again nothing");
        lane.restart();
        assert!(!lane.stands_still(at(400)));
    }

    #[test]
    fn a_long_unfinished_stretch_keeps_few_times_and_never_looks_younger() {
        let mut lane = filled(0, 100_000);
        assert!(lane.samples.len() <= SAMPLES);
        for finished in [0, 1, 77, 5_000, 50_000, 99_998, 99_999] {
            lane.finish(finished);
            let (records, oldest) = seen(&lane);
            assert_eq!(records, 100_000 - finished);
            assert!(oldest.is_some_and(|oldest| oldest <= finished + 1), "finished {finished}: {oldest:?}");
        }
        lane.finish(100_000);
        assert_eq!(seen(&lane), (0, None));
    }

    #[test]
    fn a_lane_is_full_by_records_or_bytes() {
        let mut lane = filled(0, LANE_RECORDS as u64 - 1);
        assert!(!lane.is_over());
        lane.arrive(entry(LANE_RECORDS as u64));
        assert!(lane.is_over() && !lane.has_room());
        lane.take(LANE_RECORDS / 2);
        assert!(!lane.is_over() && lane.has_room());
        let mut lane = Lane::new(0, 0);
        lane.arrive(Entry { payload: Bytes::from(vec![0; LANE_BYTES]), ..entry(1) });
        assert!(lane.is_over());
    }

    #[tokio::test]
    async fn after_a_revocation_nothing_is_taken_and_what_was_taken_may_be_finished() {
        let closed = Arc::new(AtomicBool::new(false));
        let shard = Shard::new(3, [Lane::new(0, 0), Lane::new(0, 0), Lane::new(0, 0)], closed.clone());
        let mut reader = shard.reader();
        for position in 1..=4 {
            shard.arrive(Topic::Outbound, position, Timestamp::ZERO, b"x");
        }
        reader.ready().await;
        assert_eq!(reader.take(Topic::Outbound, 2).await.unwrap().len(), 2);
        shard.revoke();
        assert!(reader.take(Topic::Outbound, 2).await.unwrap().is_empty());
        assert_eq!(shard.arrive(Topic::Outbound, 5, Timestamp::ZERO, b"x").0, Arrival::Again);
        assert!(shard.may_finish(Topic::Outbound, 2) && !shard.is_settled() && !shard.is_let_go());
        shard.finished(Topic::Outbound, 2);
        drop(reader);
        assert!(shard.is_settled() && shard.is_let_go());
        shard.release();
        assert!(!shard.may_finish(Topic::Outbound, 3));
        let mut reader = shard.reader();
        closed.store(true, Ordering::Release);
        assert!(matches!(reader.take(Topic::Inbound, 1).await, Err(LogError::Closed)));
    }
}
