//! The gateway's spool: a log that is not on this machine, with a local one before it for the time when it is away.
//!
//! Appends go to the log. What it does not take goes to the spool, which is durable too, so the caller is answered as before. A topic's
//! partition that has records in the spool sends new ones through it until it is empty: so order holds. The spool drains in order
//! as soon as the log takes records again. A record may come to stand in the log twice (an append that was given up may have
//! arrived); ids are computed, so its second copy is a duplicate and has no effect.
//!
//! Webhooks go to the spool soon, for the platform waits for the answer and not for what is done with it. A merchant's next call may go
//! to another gateway, which knows nothing of this one's spool, as soon as this one has answered: so calls wait for the log as
//! long as it may yet take them.
//!
//! When the spool is full too, appends fail as the log's do, and each channel's own rule says how to refuse.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{OptionFuture, join};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{AppendError, ClaimChange, EmbeddedSettings, Entry, Finished, Lag, Log, LogError, NewRecord, Position, ShardReader, Topic};
use crate::BoxFuture;
use crate::clock::SharedClock;
use crate::metrics;
use crate::metrics::SupervisedTask;
use crate::supervise::vital;

/// Records of one partition and topic drained at once.
const DRAIN_BATCH_MAX: usize = 256;
/// First and longest wait before the log is tried again.
const DRAIN_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Records in the spool, by partition and topic.
type Counts = Vec<[u64; Topic::ALL.len()]>;

/// Which partitions have records in the spool, and how many.
struct Waiting {
    partitions: Mutex<Counts>,
    news: Notify,
}

fn sum(counts: &Counts) -> u64 {
    counts.iter().flatten().sum()
}

impl Waiting {
    fn has(&self, partition: u16, topic: Topic) -> bool {
        self.counts().get(usize::from(partition)).is_some_and(|counts| counts[topic.index()] > 0)
    }

    fn add(&self, places: impl Iterator<Item = (u16, Topic)>) {
        let mut counts = self.counts();
        for (partition, topic) in places {
            if let Some(counts) = counts.get_mut(usize::from(partition)) {
                counts[topic.index()] += 1;
            }
        }
        metrics::LOG_SPOOL_RECORDS.at([]).set(sum(&counts) as f64);
    }

    fn take_one(&self, (partition, topic): (u16, Topic)) {
        let mut counts = self.counts();
        let count = &mut counts[usize::from(partition)][topic.index()];
        *count = count.checked_sub(1).expect("what leaves the spool was counted in");
        metrics::LOG_SPOOL_RECORDS.at([]).set(sum(&counts) as f64);
    }

    fn total(&self) -> u64 {
        sum(&self.counts())
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.partitions.lock().expect("no holder of the counts panics")
    }
}

/// A log with a spool before it.
pub struct SpooledLog {
    log: Arc<dyn Log>,
    spool: Arc<dyn Log>,
    waiting: Arc<Waiting>,
    drain: JoinHandle<()>,
}

/// Puts a spool before a log. Takes up what a former process left in it. The spool's partitions must be the log's.
///
/// # Errors
/// The spool cannot be opened; or it holds records of another number of partitions.
pub async fn open(log: Arc<dyn Log>, settings: EmbeddedSettings, clock: SharedClock) -> Result<Arc<dyn Log>, LogError> {
    let spool = tokio::task::spawn_blocking(move || super::open_embedded(settings, clock)).await.map_err(|_| LogError::Closed)??;
    let mut readers = Vec::new();
    if let ClaimChange::Assigned(assigned) = spool.claims().await {
        readers = assigned;
    }
    let mut counts: Counts = vec![Default::default(); usize::from(log.partitions())];
    for lag in spool.lag() {
        counts[usize::from(lag.partition)][lag.topic.index()] += lag.records;
    }
    let left = sum(&counts);
    if left > 0 {
        tracing::info!(records = left, "the spool holds records of a former process");
    }
    metrics::LOG_SPOOL_RECORDS.at([]).set(left as f64);
    let waiting = Arc::new(Waiting { partitions: Mutex::new(counts), news: Notify::new() });
    let drain = Drain { log: log.clone(), spool: spool.clone(), waiting: waiting.clone(), readers };
    let drain = tokio::spawn(vital(SupervisedTask::Spool, drain.run()));
    Ok(Arc::new(SpooledLog { log, spool, waiting, drain }))
}

/// Whether another try, or the spool, may take what failed so.
fn may_be_spooled(error: AppendError) -> bool {
    match error {
        AppendError::Full | AppendError::Away | AppendError::Closed => true,
        AppendError::TooLarge { .. } | AppendError::Partition => false,
    }
}

type Results = Vec<Result<Position, AppendError>>;

/// Hands records to the log, each as long as it may wait; one result per place.
async fn append_direct(log: &Arc<dyn Log>, batch: &[NewRecord], places: &[usize]) -> Vec<(usize, Result<Position, AppendError>)> {
    let (webhooks, calls): (Vec<usize>, Vec<usize>) = places.iter().copied().partition(|at| match batch[*at].topic {
        Topic::Inbound => true,
        Topic::Outbound | Topic::Bulk => false,
    });
    let records = |places: &[usize]| -> Vec<NewRecord> { places.iter().map(|at| batch[*at].clone()).collect() };
    let soon = OptionFuture::from((!webhooks.is_empty()).then(|| log.append_soon(records(&webhooks))));
    let in_time = OptionFuture::from((!calls.is_empty()).then(|| log.append(records(&calls))));
    let (soon, in_time) = join(soon, in_time).await;
    let results = |places: Vec<usize>, results: Option<Results>| places.into_iter().zip(results.unwrap_or_default());
    results(webhooks, soon).chain(results(calls, in_time)).collect()
}

/// Appends to the log, and what it does not take to the spool.
async fn append(log: Arc<dyn Log>, spool: Arc<dyn Log>, waiting: Arc<Waiting>, batch: Vec<NewRecord>) -> Results {
    let mut results: Results = vec![Err(AppendError::Closed); batch.len()];
    let (mut direct, mut spooled) = (Vec::new(), Vec::new());
    {
        let away = !log.writable();
        let mut counts = waiting.counts();
        for (at, record) in batch.iter().enumerate() {
            match counts.get_mut(usize::from(record.partition)).map(|counts| &mut counts[record.topic.index()]) {
                // Counted in before it is appended, so that the drain does not call the partition empty meanwhile.
                Some(count) if away || *count > 0 => {
                    *count += 1;
                    spooled.push(at);
                }
                Some(_) => direct.push(at),
                None => results[at] = Err(AppendError::Partition),
            }
        }
    }
    if !direct.is_empty() {
        let mut failed = Vec::new();
        for (at, answer) in append_direct(&log, &batch, &direct).await {
            match answer {
                Err(error) if may_be_spooled(error) => failed.push(at),
                Ok(_) | Err(_) => results[at] = answer,
            }
        }
        waiting.add(failed.iter().map(|at| (batch[*at].partition, batch[*at].topic)));
        spooled.extend(failed);
        spooled.sort_unstable();
    }
    if spooled.is_empty() {
        return results;
    }
    let answers = spool.append(spooled.iter().map(|at| batch[*at].clone()).collect()).await;
    for (at, answer) in spooled.into_iter().zip(answers) {
        if answer.is_err() {
            waiting.take_one((batch[at].partition, batch[at].topic));
        }
        results[at] = answer;
    }
    waiting.news.notify_one();
    results
}

impl Log for SpooledLog {
    fn partitions(&self) -> u16 {
        self.log.partitions()
    }
    fn max_record(&self) -> usize {
        self.log.max_record().min(self.spool.max_record())
    }
    fn append(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        Box::pin(append(self.log.clone(), self.spool.clone(), self.waiting.clone(), batch))
    }
    fn claims(&self) -> BoxFuture<'_, ClaimChange> {
        self.log.claims()
    }
    fn finish(&self, finished: Vec<Finished>) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.finish(finished)
    }
    fn lag(&self) -> Vec<Lag> {
        self.log.lag()
    }
    fn writable(&self) -> bool {
        self.log.writable() || self.spool.writable()
    }
    fn disk(&self) -> (u64, u64) {
        self.spool.disk()
    }
    fn queue(&self) -> (usize, usize) {
        self.log.queue()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.drain.abort();
            self.log.close().await;
            self.spool.close().await;
        })
    }
}

impl Drop for SpooledLog {
    fn drop(&mut self) {
        self.drain.abort();
    }
}

/// What empties the spool into the log.
struct Drain {
    log: Arc<dyn Log>,
    spool: Arc<dyn Log>,
    waiting: Arc<Waiting>,
    readers: Vec<Box<dyn ShardReader>>,
}

impl Drain {
    async fn run(mut self) {
        let mut was_away = false;
        let mut wait = DRAIN_RETRY.0;
        loop {
            if self.waiting.total() == 0 {
                if was_away {
                    tracing::info!("the spool is empty, records go straight to the log again");
                }
                (was_away, wait) = (false, DRAIN_RETRY.0);
                self.waiting.news.notified().await;
                continue;
            }
            if !was_away {
                was_away = true;
                tracing::warn!("the log does not take records, they go through the spool");
            }
            if self.log.writable() && self.round().await {
                wait = DRAIN_RETRY.0;
                continue;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(DRAIN_RETRY.1);
        }
    }

    /// Hands some records of every waiting partition over. Whether anything got on.
    async fn round(&mut self) -> bool {
        let mut batch: Vec<(u16, Topic, Entry)> = Vec::new();
        for reader in &mut self.readers {
            let shard = reader.shard();
            for topic in Topic::ALL.iter().filter(|topic| self.waiting.has(shard, **topic)) {
                match reader.take(*topic, DRAIN_BATCH_MAX).await {
                    Ok(entries) => batch.extend(entries.into_iter().map(|entry| (shard, *topic, entry))),
                    Err(error) => tracing::error!(%error, "the spool cannot be read"),
                }
            }
        }
        if batch.is_empty() {
            return false;
        }
        let records = batch.iter().map(|(partition, topic, entry)| NewRecord {
            topic: *topic,
            partition: *partition,
            payload: entry.payload.clone(),
        });
        let results = self.log.append(records.collect()).await;
        // Of each partition and topic the part before the first failure counts; the rest comes again, in order.
        let mut stopped: HashSet<(u16, Topic)> = HashSet::new();
        let mut finished: Vec<Finished> = Vec::new();
        let mut moved: Vec<(u16, Topic)> = Vec::new();
        for ((shard, topic, entry), result) in batch.into_iter().zip(results) {
            if stopped.contains(&(shard, topic)) {
                continue;
            }
            if let Err(error) = result {
                if !may_be_spooled(error) {
                    tracing::error!(shard, topic = topic.name(), %error, "the log refuses a spooled record; it stays in the spool");
                }
                stopped.insert((shard, topic));
                continue;
            }
            moved.push((shard, topic));
            match finished.last_mut() {
                Some(last) if (last.shard, last.topic) == (shard, topic) => last.position = entry.position,
                Some(_) | None => finished.push(Finished { topic, shard, position: entry.position }),
            }
        }
        let got_on = !finished.is_empty();
        if let Err(error) = self.spool.finish(finished).await {
            tracing::error!(%error, "the spool does not keep what was drained; it is drained again after a restart");
        }
        // What failed is read again, before anything new of its partition may pass it.
        let again: HashSet<u16> = stopped.iter().map(|(shard, _)| *shard).collect();
        for reader in self.readers.iter_mut().filter(|reader| again.contains(&reader.shard())) {
            if let Err(error) = reader.restart().await {
                tracing::error!(%error, "the spool does not go back");
            }
        }
        for place in moved {
            self.waiting.take_one(place);
        }
        got_on
    }
}

#[cfg(test)]
mod tests;
