//! A broker, topics of one's own, and members of a group.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use messaging::clock::SystemClock;
use messaging::log::kafka::topics::{Admin, Overrides, parse, plan};
use messaging::log::kafka::{KafkaLog, KafkaSettings, Role};
use messaging::log::{ClaimChange, Entry, Log, NewRecord, Position, ShardReader, Topic};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What does not come in this time hangs. Not a measure of speed.
pub const HANGS_AFTER: Duration = Duration::from_secs(60);
/// Between looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The shipped topics.
pub const TOPICS: &str = include_str!("../../../deploy/kafka/topics.toml");

/// Where the broker is.
pub fn brokers() -> Vec<String> {
    let brokers = std::env::var("TRUNKLINE_TEST_KAFKA")
        .expect("TRUNKLINE_TEST_KAFKA must name a broker (host:port): run `tests/servers up kafka` and export what it prints");
    brokers.split(',').map(str::to_owned).collect()
}

static BROKER: RwLock<()> = RwLock::const_new(());

/// The broker, together with other tests.
pub async fn shared() -> RwLockReadGuard<'static, ()> {
    BROKER.read().await
}

/// The broker, with nobody else: it may be stopped.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    BROKER.write().await
}

/// A prefix that no run had before.
pub fn fresh(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = uuid::Uuid::now_v7().simple().to_string();
    format!("test-{name}-{id}-{}.", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Settings whose topics and group have this prefix.
pub fn settings(prefix: &str) -> KafkaSettings {
    settings_at(brokers(), prefix)
}

/// The same, at a broker of one's own.
pub fn settings_at(brokers: Vec<String>, prefix: &str) -> KafkaSettings {
    let mut settings = KafkaSettings::new(brokers);
    settings.topic_prefix = prefix.to_owned();
    settings.group = format!("{prefix}group");
    settings.session_timeout = Duration::from_secs(6);
    settings.max_record = 256 << 10;
    settings
}

/// Makes the three topics, with one replica.
pub async fn make_topics(settings: &KafkaSettings, partitions: u16) {
    let overrides = Overrides { partitions: Some(partitions), replication_factor: Some(1) };
    let wanted = parse(TOPICS, &settings.topic_prefix, overrides, settings.max_record).expect("the shipped file is right");
    let admin = Admin::connect(settings).expect("a client is made");
    admin.apply(&plan(&[], &wanted, false)).await.expect("the topics are made");
}

/// Opens.
pub async fn open(settings: KafkaSettings) -> Arc<KafkaLog> {
    KafkaLog::open(settings, Arc::new(SystemClock::default())).await.expect("the log opens")
}

/// Topics of one's own, and a log over them.
pub async fn fresh_log(name: &str, partitions: u16, role: Role) -> (KafkaSettings, Arc<KafkaLog>) {
    let mut settings = settings(&fresh(name));
    settings.role = role;
    make_topics(&settings, partitions).await;
    let log = open(settings.clone()).await;
    (settings, log)
}

pub fn record(topic: Topic, partition: u16, text: impl Into<String>) -> NewRecord {
    NewRecord { topic, partition, payload: Bytes::from(text.into()) }
}

/// Appends what must be taken.
pub async fn append(log: &Arc<KafkaLog>, batch: Vec<NewRecord>) -> Vec<Position> {
    let results = within("an append", log.append(batch)).await;
    results.into_iter().map(|result| result.expect("the record is appended")).collect()
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS_AFTER, future).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

/// Looks until it is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    within(what, async {
        while !is_so() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

/// A member of the group as the router is one: it takes shards and gives them back.
pub struct Member {
    pub log: Arc<KafkaLog>,
    pub readers: BTreeMap<u16, Box<dyn ShardReader>>,
    pub changes: Vec<String>,
}

impl Member {
    pub fn new(log: Arc<KafkaLog>) -> Self {
        Self { log, readers: BTreeMap::new(), changes: Vec::new() }
    }

    /// The next change. What is to be given back is handed to the caller.
    pub async fn next(&mut self) -> Vec<Box<dyn ShardReader>> {
        let change = within("a change of ownership", self.log.claims()).await;
        match change {
            ClaimChange::Assigned(readers) => {
                self.changes.push(format!("assigned {}", readers.len()));
                self.readers.extend(readers.into_iter().map(|reader| (reader.shard(), reader)));
                Vec::new()
            }
            ClaimChange::Revoked(shards) => {
                self.changes.push(format!("revoked {}", shards.len()));
                shards.iter().filter_map(|shard| self.readers.remove(shard)).collect()
            }
            ClaimChange::Lost(shards) => {
                self.changes.push(format!("lost {}", shards.len()));
                shards.iter().filter_map(|shard| self.readers.remove(shard)).collect()
            }
        }
    }

    /// Goes on until it has so many shards.
    pub async fn until_has(&mut self, shards: usize) {
        self.until_has_about(shards..=shards).await;
    }

    /// Goes on until it has a number of shards in the range.
    pub async fn until_has_about(&mut self, shards: RangeInclusive<usize>) {
        while !shards.contains(&self.readers.len()) {
            drop(self.next().await);
        }
    }

    /// Takes exactly so many records.
    pub async fn take(&mut self, shard: u16, topic: Topic, count: usize) -> Vec<Entry> {
        let reader = self.readers.get_mut(&shard).expect("the shard is here");
        let mut entries = Vec::new();
        within("a record", async {
            while entries.len() < count {
                let more = reader.take(topic, count - entries.len()).await.expect("taking works");
                if more.is_empty() {
                    reader.ready().await;
                    tokio::task::yield_now().await;
                }
                entries.extend(more);
            }
        })
        .await;
        entries
    }
}

pub fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.payload).into_owned()).collect()
}
