//! The write half: batches go to librdkafka in the caller, and a thread completes them as the acknowledgements come.
//!
//! One answer per `append` call, not per record: every record carries its place in the batch, and the last one that is settled wakes the
//! caller.
//!
//! Idempotence keeps the order within a partition and drops what librdkafka itself sends twice. A record that was not acknowledged in time
//! is an error, whatever becomes of it: it may still arrive, which is a repetition, never a loss.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tokio::sync::oneshot;

use super::health::Health;
use super::settings::KafkaSettings;
use super::{broker_error, forward_log};
use crate::clock::SharedClock;
use crate::log::{AppendError, LogError, NewRecord, Position, Topic};
use crate::metrics::SupervisedTask;
use crate::metrics::{self, LogErrorType, LogOperation, ProduceOutcome};
use crate::supervise::vital_here;

/// How long one round of the thread polls: how late it notices that it is to stop, or that librdkafka gave up. The part of a
/// millisecond is for rdkafka, which waits whole ones only and asks again and again for the rest: of a hundred it would spin for one.
const POLL: Duration = Duration::from_micros(100_050);
/// How long a producer that is given up is polled for what it still has to say.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Rounds of `POLL` in which the last users of a producer that was given up let go of it.
const LET_GO_ROUNDS: usize = 50;

/// What came of a batch.
pub(super) type Results = Vec<Result<Position, AppendError>>;

/// Stands in a result that is still open. A position is an offset and one, so no record has it.
const OPEN: Result<Position, AppendError> = Ok(Position(u64::MAX));

/// One `append` call under way.
struct Batch {
    /// Monotonic.
    began: Duration,
    /// Where each record goes.
    places: Vec<(Topic, u16)>,
    progress: Mutex<Progress>,
}

struct Progress {
    results: Results,
    /// Records that are not settled, and one for the caller while it hands records over.
    open: usize,
    tallies: [Tally; Topic::ALL.len()],
    done: Option<oneshot::Sender<Results>>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    acknowledged: u64,
    failed: u64,
    bytes: u64,
}

/// A batch that librdkafka has, and its answer.
pub(super) struct Queued {
    pub(super) answer: oneshot::Receiver<Results>,
    batch: Arc<Batch>,
}

#[cfg(test)]
impl Queued {
    /// Records that are not settled.
    pub(super) fn open(&self) -> usize {
        self.batch.progress.lock().expect("no holder of a batch panics").open
    }
}

/// What travels with a record through librdkafka.
pub(super) struct Slot {
    batch: Arc<Batch>,
    index: usize,
}

impl Batch {
    /// What came of a record. Nothing more for one that was given up.
    fn settle(&self, index: usize, result: Result<Position, AppendError>, clock: &SharedClock) {
        let mut progress = self.progress.lock().expect("no holder of a batch panics");
        if progress.results.get(index) != Some(&OPEN) {
            return;
        }
        let tally = &mut progress.tallies[self.places[index].0.index()];
        match result {
            Ok(_) => tally.acknowledged += 1,
            Err(_) => tally.failed += 1,
        }
        progress.results[index] = result;
        self.close_one(progress, clock);
    }

    /// One less is open; the last one answers.
    fn close_one(&self, mut progress: std::sync::MutexGuard<'_, Progress>, clock: &SharedClock) {
        progress.open -= 1;
        if progress.open > 0 {
            return;
        }
        let results = std::mem::take(&mut progress.results);
        let (tallies, done) = (progress.tallies, progress.done.take());
        drop(progress);
        count(&tallies, &results, clock.monotonic().saturating_sub(self.began));
        if let Some(done) = done {
            // A caller that went away needs no answer.
            let _ = done.send(results);
        }
    }
}

fn count(tallies: &[Tally; Topic::ALL.len()], results: &Results, took: Duration) {
    for &topic in Topic::ALL {
        let tally = tallies[topic.index()];
        if tally.acknowledged + tally.failed == 0 {
            continue;
        }
        let place = topic.index();
        metrics::LOG_PRODUCED_RECORDS.at([place, ProduceOutcome::Acknowledged.index()]).increment(tally.acknowledged);
        metrics::LOG_PRODUCED_RECORDS.at([place, ProduceOutcome::Failed.index()]).increment(tally.failed);
        metrics::LOG_PRODUCED_BYTES.at([place]).increment(tally.bytes);
        metrics::LOG_PRODUCE_DURATION_SECONDS.at([place]).record(took.as_secs_f64());
    }
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        metrics::LOG_ERRORS.at([LogOperation::Append.index(), LogErrorType::from(error).index()]).increment(1);
    }
}

/// What librdkafka calls back.
pub(super) struct Deliveries {
    health: Arc<Health>,
    clock: SharedClock,
    max_record: usize,
    /// Records that wait for their acknowledgement. librdkafka's own count has its events in it too.
    open: Arc<AtomicUsize>,
    /// What was acknowledged last, by topic and partition.
    acknowledged: Mutex<[Vec<Acknowledged>; Topic::ALL.len()]>,
}

#[derive(Clone, Copy, Default)]
struct Acknowledged {
    /// The highest position: stands in for one that the broker did not tell.
    highest: u64,
    /// Monotonic.
    at: Duration,
}

impl Deliveries {
    fn position(&self, topic: Topic, partition: i32, offset: i64) -> Position {
        let place = usize::try_from(partition).unwrap_or_default();
        let mut acknowledged = self.acknowledged.lock().expect("no holder of the positions panics");
        let acknowledged = &mut acknowledged[topic.index()];
        if acknowledged.len() <= place {
            acknowledged.resize(place + 1, Acknowledged::default());
        }
        let last = &mut acknowledged[place];
        last.at = self.clock.monotonic();
        // A repeated try that had succeeded before is acknowledged without an offset.
        if let Ok(offset) = u64::try_from(offset) {
            last.highest = last.highest.max(offset + 1);
            return Position(offset + 1);
        }
        Position(last.highest)
    }

    fn append_error(&self, error: &KafkaError) -> AppendError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => AppendError::Full,
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                AppendError::TooLarge { max: self.max_record }
            }
            Some(RDKafkaErrorCode::UnknownPartition) => AppendError::Partition,
            // Everything else is the cluster's: it may pass, and the record may stand there all the same.
            _ => AppendError::Away,
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.health.suspected(),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => self.health.refused(reason),
            _ => {}
        }
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Slot>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, slot: Box<Slot>) {
        let result = match delivery {
            Ok(message) => {
                self.health.acknowledged();
                Ok(self.position(slot.batch.places[slot.index].0, message.partition(), message.offset()))
            }
            Err((error, _)) => {
                let error_for_caller = self.append_error(error);
                if error_for_caller == AppendError::Away {
                    self.health.failed(error);
                }
                Err(error_for_caller)
            }
        };
        self.open.fetch_sub(1, Ordering::Relaxed);
        slot.batch.settle(slot.index, result, &self.clock);
    }
}

type Client = BaseProducer<Deliveries>;

/// The write half.
pub(super) struct Writer {
    settings: Arc<KafkaSettings>,
    topics: [String; Topic::ALL.len()],
    clock: SharedClock,
    health: Arc<Health>,
    open: Arc<AtomicUsize>,
    client: ArcSwap<Client>,
}

impl Writer {
    /// Makes the producer. Talks to nobody yet.
    pub fn new(settings: Arc<KafkaSettings>, clock: SharedClock, health: Arc<Health>) -> Result<Self, LogError> {
        let open = Arc::new(AtomicUsize::new(0));
        let client = make_client(&settings, &clock, &health, &open)?;
        Ok(Self { topics: settings.topic_names(), settings, clock, health, open, client: ArcSwap::from_pointee(client) })
    }

    /// The client, for questions to the cluster.
    pub fn client(&self) -> Arc<Client> {
        self.client.load_full()
    }

    /// Records that wait for their acknowledgement.
    pub fn queued(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Hands a batch to librdkafka; or what came of it at once. Never waits.
    pub fn append(&self, batch: Vec<NewRecord>, partitions: u16) -> Result<Queued, Results> {
        let results = self.judge(&batch, partitions);
        let open = results.iter().filter(|result| **result == OPEN).count();
        if open == 0 {
            return Err(results);
        }
        let (done, answer) = oneshot::channel();
        let mut tallies = [Tally::default(); Topic::ALL.len()];
        for (record, _) in batch.iter().zip(&results).filter(|(_, result)| **result == OPEN) {
            tallies[record.topic.index()].bytes += record.payload.len() as u64;
        }
        let progress = Progress { results: results.clone(), open: open + 1, tallies, done: Some(done) };
        let places = batch.iter().map(|record| (record.topic, record.partition)).collect();
        let under_way = Arc::new(Batch { began: self.clock.monotonic(), places, progress: Mutex::new(progress) });
        let timestamp = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX);
        let client = self.client.load();
        // Once the queue is full, nothing behind it in this batch goes in: what did is a prefix.
        let mut refused = None;
        for (index, record) in batch.iter().enumerate() {
            if results[index] != OPEN {
                continue;
            }
            let slot = Box::new(Slot { batch: under_way.clone(), index });
            let error = match refused {
                Some(error) => error,
                None => match self.send(&client, record, timestamp, slot) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            if error == AppendError::Full {
                refused = Some(error);
            }
            under_way.settle(index, Err(error), &self.clock);
        }
        let progress = under_way.progress.lock().expect("no holder of a batch panics");
        under_way.close_one(progress, &self.clock);
        Ok(Queued { answer, batch: under_way })
    }

    /// Answers `Away` for what is open of a batch in partitions that have acknowledged nothing for `patience`. It may arrive all the same.
    pub fn give_up(&self, queued: &Queued, patience: Duration) {
        let now = self.clock.monotonic();
        let client = self.client.load();
        let stalled: Vec<usize> = {
            let acknowledged = client.context().acknowledged.lock().expect("no holder of the positions panics");
            let places = queued.batch.places.iter().enumerate();
            let waits = |(topic, partition): &(Topic, u16)| {
                let last = acknowledged[topic.index()].get(usize::from(*partition)).map_or(Duration::ZERO, |last| last.at);
                now.saturating_sub(last.max(queued.batch.began))
            };
            places.filter(|(_, place)| waits(place) >= patience).map(|(index, _)| index).collect()
        };
        for index in stalled {
            queued.batch.settle(index, Err(AppendError::Away), &self.clock);
        }
    }

    fn judge(&self, batch: &[NewRecord], partitions: u16) -> Results {
        let judged = batch.iter().map(|record| {
            if record.payload.len() > self.settings.max_record {
                return Err(AppendError::TooLarge { max: self.settings.max_record });
            }
            if record.partition >= partitions {
                return Err(AppendError::Partition);
            }
            OPEN
        });
        judged.collect()
    }

    fn send(&self, client: &Client, record: &NewRecord, timestamp: i64, slot: Box<Slot>) -> Result<(), AppendError> {
        let sent = BaseRecord::<(), [u8], Box<Slot>>::with_opaque_to(&self.topics[record.topic.index()], slot)
            .partition(i32::from(record.partition))
            .timestamp(timestamp)
            .payload(&record.payload);
        // Before it is sent: its acknowledgement may be faster than we are.
        self.open.fetch_add(1, Ordering::Relaxed);
        client.send(sent).map_err(|(error, _)| {
            self.open.fetch_sub(1, Ordering::Relaxed);
            let error_for_caller = client.context().append_error(&error);
            if error_for_caller == AppendError::Away {
                self.health.failed(&error);
            }
            error_for_caller
        })
    }

    /// Waits until everything is settled, at most as long as a record may take. Blocks.
    pub fn flush(&self) {
        let client = self.client();
        if client.flush(self.settings.delivery_timeout + Duration::from_secs(1)).is_err() {
            tracing::warn!("kafka did not acknowledge everything before the log was closed; what is open has failed");
        }
    }

    /// One round of the thread.
    fn round(&self) {
        let client = self.client();
        client.poll(POLL);
        if let Some((code, reason)) = client.client().fatal_error() {
            self.health.failed(&code);
            tracing::error!(%code, reason, "the kafka producer gave up; it is made anew");
            self.replace(client);
        }
    }

    /// Puts a new producer in the place of one that will never deliver again. What was open with it has failed.
    fn replace(&self, broken: Arc<Client>) {
        match make_client(&self.settings, &self.clock, &self.health, &self.open) {
            Ok(client) => self.client.store(Arc::new(client)),
            Err(error) => {
                tracing::error!(%error, "no new kafka producer; tried again");
                return;
            }
        }
        for _ in 0..LET_GO_ROUNDS {
            broken.purge(PurgeConfig::default().queue().inflight());
            broken.poll(POLL);
            // Callers hold it for as long as they hand a batch over. The last one would have to wait for its end.
            if Arc::strong_count(&broken) == 1 {
                break;
            }
        }
        broken.poll(LAST_WORDS);
    }

    #[cfg(test)]
    pub fn give_up_client(&self) {
        self.replace(self.client());
    }
}

fn make_client(settings: &KafkaSettings, clock: &SharedClock, health: &Arc<Health>, open: &Arc<AtomicUsize>) -> Result<Client, LogError> {
    let context = Deliveries {
        health: health.clone(),
        clock: clock.clone(),
        max_record: settings.max_record,
        open: open.clone(),
        acknowledged: Mutex::new(Default::default()),
    };
    settings.producer().create_with_context(context).map_err(|error| broker_error("the kafka producer is not made", &error))
}

/// Polls until told to stop.
pub(super) fn start(writer: Arc<Writer>, stopped: impl Fn() -> bool + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let produce = move || {
        while !stopped() {
            writer.round();
        }
    };
    std::thread::Builder::new().name("kafka-produce".into()).spawn(move || vital_here(SupervisedTask::Kafka, produce))
}
