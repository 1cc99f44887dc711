//! The log over Apache Kafka: three topics, one producer, one member of one consumer group.
//!
//! # Positions
//!
//! A position is a record's offset and one: what a commit of a prefix that ends with it says. They rise by one in each partition, because
//! nothing else writes to the topics; a hole is a record that retention deleted, and is counted as lost. A record whose repeated try was
//! acknowledged without an offset gets the highest position known in its partition.
//!
//! # Time
//!
//! `appended_at` is the broker's time: `deploy/kafka/topics.toml` sets `message.timestamp.type = LogAppendTime`. The time of the append is the
//! time of the store's writes, so it has to be given by one clock per partition, in the order of the positions; clocks of several gateways
//! would let an older record win. Records carry our own time too, for topics that keep `CreateTime`.
//!
//! # Accepted means durable
//!
//! `acks = all` with idempotence, and the topics' `min.insync.replicas`. A record that is not acknowledged within `delivery_timeout` (noticed at
//! most a second later) gets [`AppendError::Away`]: it may stand on the log all the same, and then comes besides its repetition. A full queue answers
//! [`AppendError::Full`] at once, to the whole rest of the batch.
//!
//! # `writable`
//!
//! False until the cluster was seen to have the topics; false from a failed delivery on, or when all brokers are gone and do not answer; true
//! again when a record was acknowledged (so an append is a probe), or when a look at the metadata, once a second, finds a leader for every
//! partition. Looks that turned out wrong are believed later (`health`). A producer that librdkafka gave up is made anew. Never
//! true again after `close`, or when the topics turned out unfit ([`KafkaLog::standing`]).
//!
//! # Shards
//!
//! See `group`. The group is joined at the first call of `claims`.

mod claims;
mod cluster;
mod commit;
mod group;
mod health;
mod poll;
mod produce;
mod settings;
mod shard;
pub mod topics;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;

use self::cluster::Look;
use self::group::Group;
pub use self::group::{LAST_FINISH, REVOKE_WAIT};
use self::health::Health;
use self::produce::Writer;
pub use self::settings::{Compression, KafkaSettings, RECORD_OVERHEAD, Role, Sasl, SaslMechanism, Tls};
use super::{AppendError, ClaimChange, Finished, Lag, Log, LogError, NewRecord, Position};
use crate::BoxFuture;
use crate::clock::SharedClock;
use crate::metrics::SupervisedTask;
use crate::metrics::{self, LogErrorType, LogOperation};
use crate::supervise::again_here;

/// Between looks at the cluster: its health, and the ends of partitions for the lag.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks at a cluster that misses a topic, before opening gives up: a topic that was just made is not known to every broker.
const UNFIT_LOOKS: usize = 3;
/// Who has a spool is told so soon that a partition has acknowledged nothing for so long and `linger`: its leader is gone, or another is
/// chosen. A partition that gets on is waited for, however slow it is: a second copy of each record would make it slower.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between looks at what is open after that.
const PATIENCE_LOOK: Duration = Duration::from_millis(50);
/// An append is answered after `delivery_timeout` and a second. When librdkafka owes an answer for so much longer, it is not waited for.
const APPEND_GRACE: Duration = Duration::from_secs(10);

/// Whether the topics are known to be as they should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The cluster has not answered yet: appends get `Away`, nothing is read.
    Unconfirmed,
    /// They have this many partitions: worth keeping, for `KafkaSettings::partitions` at the next start.
    Confirmed(u16),
    /// They cannot be used. What is wrong, and the cure. Nothing is appended or read any more.
    Unfit(String),
}

/// What the threads share.
struct Core {
    settings: Arc<KafkaSettings>,
    health: Arc<Health>,
    writer: Arc<Writer>,
    group: Option<Arc<Group>>,
    partitions: u16,
    standing: Mutex<Standing>,
    /// The same as a confirmed standing, for every append.
    confirmed: AtomicBool,
    /// Nothing is taken any more.
    closing: AtomicBool,
    /// The threads end.
    stopping: AtomicBool,
    bell: (Mutex<()>, Condvar),
}

/// An open log over Kafka.
pub struct KafkaLog {
    core: Arc<Core>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Opens the log; see [`KafkaLog::open`].
pub async fn open(settings: KafkaSettings, clock: SharedClock) -> Result<Arc<dyn Log>, LogError> {
    Ok(KafkaLog::open(settings, clock).await?)
}

impl KafkaLog {
    /// Opens the log.
    ///
    /// Without `settings.partitions` the cluster is asked, for `open_wait` at most. With it, opening waits for nobody: the cluster is asked in
    /// the background until it answers, and until then appends get `Away`.
    ///
    /// # Errors
    /// `Mismatch` with the cure when settings cannot work, a topic is missing or the topics' partition counts differ; `Io` when the cluster
    /// does not answer in time.
    pub async fn open(settings: KafkaSettings, clock: SharedClock) -> Result<Arc<Self>, LogError> {
        // Clients read files, start threads and wait for answers.
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(settings, clock));
        let opened = opening.await.unwrap_or(Err(LogError::Closed));
        if let Err(error) = &opened {
            metrics::LOG_ERRORS.at([LogOperation::Open.index(), LogErrorType::from(error).index()]).increment(1);
        }
        opened.map(Arc::new)
    }

    fn open_blocking(settings: KafkaSettings, clock: SharedClock) -> Result<Self, LogError> {
        settings.check()?;
        let settings = Arc::new(settings);
        let health = Arc::new(Health::new(clock.clone()));
        let writer = Arc::new(Writer::new(settings.clone(), clock.clone(), health.clone())?);
        let (partitions, standing) = match settings.partitions {
            Some(partitions) => (partitions, Standing::Unconfirmed),
            None => {
                let partitions = await_cluster(&writer, &settings, &clock, &health)?;
                health.looked_well();
                (partitions, Standing::Confirmed(partitions))
            }
        };
        let group = match settings.role {
            Role::Produce => None,
            Role::Consume => Some(Arc::new(Group::new(settings.clone(), clock.clone()))),
        };
        let consumer = group.as_ref().map(|group| group.make_consumer(true)).transpose()?;
        let core = Arc::new(Core {
            settings,
            health,
            writer,
            group: group.clone(),
            partitions,
            confirmed: AtomicBool::new(standing != Standing::Unconfirmed),
            standing: Mutex::new(standing),
            closing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            bell: (Mutex::new(()), Condvar::new()),
        });
        // Made first, so that the threads that did start are stopped when one does not.
        let log = Self { core: core.clone(), threads: Arc::default() };
        let mut threads = vec![produce::start(core.writer.clone(), stopped(&core))?];
        if let (Some(group), Some(consumer)) = (group, consumer) {
            let fit = core.clone();
            threads.push(poll::start(group, consumer, stopped(&core), move || fit.confirmed.load(Ordering::Acquire))?);
        }
        let watched = core.clone();
        threads.push(
            std::thread::Builder::new().name("kafka-watch".into()).spawn(move || again_here(SupervisedTask::Kafka, || watched.watch()))?,
        );
        *log.threads.lock().expect("no holder of the threads panics") = threads;
        Ok(log)
    }

    /// Whether the topics are known to be as they should.
    pub fn standing(&self) -> Standing {
        self.core.standing.lock().expect("no holder of the standing panics").clone()
    }
}

fn stopped(core: &Arc<Core>) -> impl Fn() -> bool + Send + 'static {
    let core = core.clone();
    move || core.stopping.load(Ordering::Acquire)
}

/// Asks until the cluster answers, or time is over.
fn await_cluster(writer: &Writer, settings: &KafkaSettings, clock: &SharedClock, health: &Health) -> Result<u16, LogError> {
    let names = settings.topic_names();
    let deadline = clock.monotonic() + settings.open_wait;
    let mut unfit = 0;
    loop {
        let client = writer.client();
        let what = match cluster::look(client.client(), &names) {
            Look::Well { partitions, .. } => return Ok(partitions),
            Look::Unfit(what) => {
                unfit += 1;
                if unfit == UNFIT_LOOKS {
                    return Err(LogError::Mismatch(what));
                }
                what
            }
            Look::Away(what) => what,
        };
        // Also where librdkafka says what it ran into.
        client.poll(LOOK_EVERY);
        // Names of hosts are no secrets; the operator needs them.
        if clock.monotonic() >= deadline {
            let brokers = settings.brokers.join(", ");
            let what = health.refusal().unwrap_or(what);
            return Err(LogError::Io(std::io::Error::other(format!(
                "kafka at {brokers} does not answer ({what}): start it, or correct log.url"
            ))));
        }
        tracing::info!(what, "waiting for kafka");
    }
}

impl Core {
    fn is_open(&self) -> bool {
        !self.closing.load(Ordering::Acquire)
    }

    /// The thread that looks at the cluster.
    fn watch(&self) {
        let names = self.settings.topic_names();
        loop {
            let (lock, bell) = &self.bell;
            let guard = lock.lock().expect("no holder of the bell panics");
            if !self.stopping.load(Ordering::Acquire) {
                drop(bell.wait_timeout(guard, LOOK_EVERY).expect("no holder of the bell panics"));
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if self.health.wants_look() {
                self.look(&names);
            }
            if let Some(group) = &self.group {
                group.look_at_ends();
            }
        }
    }

    fn look(&self, names: &[String; 3]) {
        let client = self.writer.client();
        match cluster::look(client.client(), names) {
            Look::Well { partitions, led } if partitions >= self.partitions => {
                if !self.confirmed.load(Ordering::Acquire) && partitions != self.partitions {
                    self.unfit(format!(
                        "the topics have {partitions} partitions and {} were expected from the last run: start again",
                        self.partitions
                    ));
                    return;
                }
                self.confirm();
                if led {
                    self.health.looked_well();
                } else {
                    self.health.failed(&"a partition has no leader");
                }
            }
            Look::Well { partitions, .. } => {
                self.unfit(format!("the topics have {partitions} partitions and {} were expected: start again", self.partitions));
            }
            Look::Unfit(what) if self.confirmed.load(Ordering::Acquire) => self.health.failed(&what),
            Look::Unfit(what) => {
                // Not for good: the cure makes the topics while we wait.
                tracing::error!(what, "kafka's topics cannot be used yet");
            }
            Look::Away(what) => self.health.failed(&what),
        }
    }

    fn confirm(&self) {
        if self.confirmed.load(Ordering::Acquire) {
            return;
        }
        *self.standing.lock().expect("no holder of the standing panics") = Standing::Confirmed(self.partitions);
        self.confirmed.store(true, Ordering::Release);
    }

    fn unfit(&self, what: String) {
        tracing::error!(what, "kafka's topics cannot be used");
        *self.standing.lock().expect("no holder of the standing panics") = Standing::Unfit(what);
        self.closing.store(true, Ordering::Release);
    }

    fn stop(&self) {
        self.closing.store(true, Ordering::Release);
        self.stopping.store(true, Ordering::Release);
        drop(self.bell.0.lock().expect("no holder of the bell panics"));
        self.bell.1.notify_all();
        if let Some(group) = &self.group {
            group.close();
        }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.core.stop();
    }
}

impl KafkaLog {
    fn append_within(&self, batch: Vec<NewRecord>, patience: Option<Duration>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        let records = batch.len();
        let refused = if !self.core.is_open() {
            Some(AppendError::Closed)
        } else if !self.core.confirmed.load(Ordering::Acquire) {
            Some(AppendError::Away)
        } else {
            None
        };
        if let Some(error) = refused {
            return Box::pin(std::future::ready(vec![Err(error); records]));
        }
        let queued = self.core.writer.append(batch, self.core.partitions);
        let limit = self.core.settings.delivery_timeout + APPEND_GRACE;
        let core = self.core.clone();
        Box::pin(async move {
            let mut queued = match queued {
                Ok(queued) => queued,
                Err(results) => return results,
            };
            let (mut wait, mut waited) = (patience.unwrap_or(limit), Duration::ZERO);
            while waited < limit {
                match tokio::time::timeout(wait, &mut queued.answer).await {
                    Ok(Ok(results)) => return results,
                    Ok(Err(_)) => return vec![Err(AppendError::Away); records],
                    Err(_) => waited += wait,
                }
                if let Some(patience) = patience {
                    core.writer.give_up(&queued, patience);
                }
                wait = PATIENCE_LOOK;
            }
            vec![Err(AppendError::Away); records]
        })
    }
}

impl Log for KafkaLog {
    fn partitions(&self) -> u16 {
        self.core.partitions
    }

    fn max_record(&self) -> usize {
        self.core.settings.max_record
    }

    /// The batch is queued when this is called, so calls that are made one after another are appended in that order. Dropping the future
    /// does not take the batch back.
    fn append(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        self.append_within(batch, None)
    }

    fn append_soon(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        self.append_within(batch, Some(self.core.settings.linger + PATIENCE))
    }

    fn claims(&self) -> BoxFuture<'_, ClaimChange> {
        Box::pin(async move {
            let Some(group) = &self.core.group else { return std::future::pending().await };
            group.wanted.store(true, Ordering::Release);
            group.claims.next().await
        })
    }

    fn finish(&self, finished: Vec<Finished>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            match &self.core.group {
                Some(group) => commit::finish(group, finished).await,
                None => Ok(()),
            }
        })
    }

    fn lag(&self) -> Vec<Lag> {
        self.core.group.as_ref().map(|group| group.lag()).unwrap_or_default()
    }

    fn writable(&self) -> bool {
        self.core.is_open() && self.core.confirmed.load(Ordering::Acquire) && !self.core.health.is_down()
    }

    fn disk(&self) -> (u64, u64) {
        (0, 0)
    }

    fn queue(&self) -> (usize, usize) {
        (self.core.writer.queued(), self.core.settings.queue_limit)
    }

    /// Waits for what was appended, as long as a record may take, and leaves the group, so that others have its shards at once. A member with
    /// an instance id that is dropped without this stays a member until its session ends, so that a restart finds its shards.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.core.closing.store(true, Ordering::Release);
            let (core, threads) = (self.core.clone(), self.threads.clone());
            let closing = tokio::task::spawn_blocking(move || {
                core.writer.flush();
                if let Some(group) = &core.group {
                    group.leaving.store(true, Ordering::Release);
                }
                core.stop();
                let threads = std::mem::take(&mut *threads.lock().expect("no holder of the threads panics"));
                for thread in threads {
                    if thread.join().is_err() {
                        tracing::error!("a thread of the kafka log ended in a panic");
                    }
                }
            });
            if closing.await.is_err() {
                tracing::error!("closing the kafka log ended in a panic");
            }
        })
    }
}

/// An error of librdkafka, as ours.
fn broker_error(what: &str, error: &KafkaError) -> LogError {
    LogError::Io(std::io::Error::other(format!("{what}: {error}")))
}

/// What librdkafka says, to our own log. Its lines name brokers and topics, never payloads or passwords.
fn forward_log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(facility, message, "librdkafka");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "librdkafka"),
    }
}
