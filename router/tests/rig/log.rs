//! A log in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use messaging::BoxFuture;
use messaging::clock::{Clock, ManualClock};
use messaging::log::*;
use messaging::record::RecordKind;
use tokio::sync::Notify;

#[derive(Default)]
struct Partitions {
    records: HashMap<(usize, u16), Vec<Entry>>,
    next: u64,
    finished: HashMap<(usize, u16), u64>,
    assigned: bool,
}

pub struct MemLog {
    inner: Arc<Mutex<Partitions>>,
    news: Arc<Notify>,
    clock: Arc<ManualClock>,
    /// What the next commands get instead of a place.
    refusals: Mutex<VecDeque<AppendError>>,
}

impl MemLog {
    pub fn new(clock: Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self { inner: Arc::default(), news: Arc::default(), clock, refusals: Mutex::default() })
    }

    pub fn reopened(&self) -> Arc<Self> {
        self.inner.lock().unwrap().assigned = false;
        Arc::new(Self { inner: self.inner.clone(), news: Arc::default(), clock: self.clock.clone(), refusals: Mutex::default() })
    }

    /// How many records of a topic are finished, over all shards.
    pub fn finished(&self, topic: Topic) -> usize {
        let inner = self.inner.lock().unwrap();
        let of_topic = inner.records.iter().filter(|((of, _), _)| *of == topic.index());
        let finished = |lane: &(usize, u16)| inner.finished.get(lane).copied().unwrap_or_default();
        of_topic.map(|(lane, records)| records.iter().filter(|entry| entry.position.0 <= finished(lane)).count()).sum()
    }

    /// Refuses the next commands, each with one of these.
    pub fn refuse_commands(&self, errors: impl IntoIterator<Item = AppendError>) {
        self.refusals.lock().unwrap().extend(errors);
    }

    /// How many refusals are left.
    pub fn refusals_left(&self) -> usize {
        self.refusals.lock().unwrap().len()
    }

    /// Gives all shards once more, without having taken them back.
    pub fn assign_again(&self) {
        self.inner.lock().unwrap().assigned = false;
        self.news.notify_waiters();
    }
}

pub const PARTITIONS: u16 = 4;

impl Log for MemLog {
    fn partitions(&self) -> u16 {
        PARTITIONS
    }
    fn max_record(&self) -> usize {
        1 << 20
    }
    fn append(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        let mut inner = self.inner.lock().unwrap();
        let mut results = Vec::new();
        for record in batch {
            // The kind stands in the head in the clear.
            let is_command = record.payload[1] == RecordKind::Command as u8;
            if let Some(error) = is_command.then(|| self.refusals.lock().unwrap().pop_front()).flatten() {
                results.push(Err(error));
                continue;
            }
            inner.next += 1;
            let position = Position(inner.next);
            let entry = Entry { position, appended_at: self.clock.now(), payload: record.payload };
            inner.records.entry((record.topic.index(), record.partition)).or_default().push(entry);
            results.push(Ok(position));
        }
        self.news.notify_waiters();
        Box::pin(async move { results })
    }
    fn claims(&self) -> BoxFuture<'_, ClaimChange> {
        Box::pin(async move {
            loop {
                let news = self.news.notified();
                if !std::mem::replace(&mut self.inner.lock().unwrap().assigned, true) {
                    break;
                }
                news.await;
            }
            let readers = (0..PARTITIONS).map(|shard| {
                let inner = self.inner.lock().unwrap();
                let next = Topic::ALL.iter().map(|t| inner.finished.get(&(t.index(), shard)).copied().unwrap_or(0)).collect();
                Box::new(MemReader { shard, inner: self.inner.clone(), news: self.news.clone(), next }) as Box<dyn ShardReader>
            });
            ClaimChange::Assigned(readers.collect())
        })
    }
    fn finish(&self, finished: Vec<Finished>) -> BoxFuture<'_, Result<(), LogError>> {
        let mut inner = self.inner.lock().unwrap();
        for one in finished {
            inner.finished.insert((one.topic.index(), one.shard), one.position.0);
        }
        Box::pin(async { Ok(()) })
    }
    fn lag(&self) -> Vec<Lag> {
        Vec::new()
    }
    fn writable(&self) -> bool {
        true
    }
    fn disk(&self) -> (u64, u64) {
        (0, 0)
    }
    fn queue(&self) -> (usize, usize) {
        (0, 1)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

struct MemReader {
    shard: u16,
    inner: Arc<Mutex<Partitions>>,
    news: Arc<Notify>,
    next: Vec<u64>,
}

impl MemReader {
    fn waiting(&self, topic: Topic, max: usize) -> Vec<Entry> {
        let inner = self.inner.lock().unwrap();
        let after = self.next[topic.index()];
        let all = inner.records.get(&(topic.index(), self.shard)).map_or(&[][..], Vec::as_slice);
        all.iter().filter(|entry| entry.position.0 > after).take(max).cloned().collect()
    }
}

impl ShardReader for MemReader {
    fn shard(&self) -> u16 {
        self.shard
    }
    fn ready(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let news = self.news.notified();
                if Topic::ALL.iter().any(|topic| !self.waiting(*topic, 1).is_empty()) {
                    return;
                }
                news.await;
            }
        })
    }
    fn restart(&mut self) -> BoxFuture<'_, Result<(), LogError>> {
        let inner = self.inner.lock().unwrap();
        for topic in Topic::ALL {
            self.next[topic.index()] = inner.finished.get(&(topic.index(), self.shard)).copied().unwrap_or_default();
        }
        Box::pin(async { Ok(()) })
    }
    fn take(&mut self, topic: Topic, max: usize) -> BoxFuture<'_, Result<Vec<Entry>, LogError>> {
        let entries = self.waiting(topic, max);
        if let Some(last) = entries.last() {
            self.next[topic.index()] = last.position.0;
        }
        Box::pin(async move { Ok(entries) })
    }
}
