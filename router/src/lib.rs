//! Station two: from the log to decisions to effects.
//!
//! ```text
//! LOG -> shard: parse -> decide -> store -> lane of the endpoint -> sign -> egress -> subscriber
//!                                        -> lane of the account  -> budget -> intent -> lease -> egress -> platform -> verdict -> shard
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::SharedClock;
use messaging::keeper::DirectoryKeeper;
use messaging::limit::Limit;
use messaging::log::{ClaimChange, Log};
use messaging::metrics;
use messaging::seal::{Keyring, fill_random};
use messaging::store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub mod breaker;
pub mod decide;
pub mod delivery;
pub mod desk;
pub mod egress;
pub mod ends;
pub mod flows;
pub mod lane;
pub mod later;
pub mod plan;
pub mod progress;
pub mod send;
pub mod shard;
pub mod sign;

use lane::{LaneParts, Lanes};
use shard::{Commits, Shard, ShardParts};

/// How deliveries are made.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// How long an attempt may take.
    pub timeout: Duration,
    /// Waits before the tries, first to last.
    pub schedule: Vec<Duration>,
    /// Share of chance in a wait.
    pub jitter: f64,
    /// Attempts under way for one endpoint.
    pub concurrency_per_endpoint: usize,
    /// An endpoint that failed without pause for this long is disabled.
    pub disable_after: Duration,
    /// Most of an answer that is read, in bytes.
    pub max_response: usize,
    /// `User-Agent`.
    pub user_agent: http::HeaderValue,
}

/// Settings of the router.
#[derive(Debug, Clone)]
pub struct Options {
    /// Records of one shard in work at once.
    pub max_in_flight_per_shard: usize,
    /// How often finished prefixes are made durable.
    pub commit_interval: Duration,
    /// How long a lease holds without renewal.
    pub lease_ttl: Duration,
    /// How long effects under way may take at the end.
    pub drain: Duration,
    /// Deliveries.
    pub webhooks: Arc<WebhookSettings>,
}

/// What the router works with.
#[derive(Clone)]
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The directory; refreshed by the node.
    pub keeper: DirectoryKeeper,
    /// Keys.
    pub keyring: Keyring,
    /// Time.
    pub clock: SharedClock,
    /// Budgets.
    pub limit: Arc<dyn Limit>,
    /// Channel settings.
    pub channels: BTreeMap<ChannelKind, ChannelSettings>,
    /// The way out.
    pub door: Arc<egress::Door>,
    /// Lines for `trunkline tail`.
    pub tail: plan::Tail,
}

/// A running router.
pub struct Router {
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
    lag: tokio::task::JoinHandle<()>,
}

impl Router {
    /// Starts on the current runtime.
    pub fn start(parts: Parts, options: Options) -> Self {
        let (stop, stopped) = watch::channel(false);
        let lag = tokio::spawn(watch_lag(parts.log.clone(), parts.clock.clone()));
        let running = tokio::spawn(run(parts, options, stopped));
        Self { stop, running, lag }
    }

    /// Takes nothing new, lets what is under way end, finishes positions.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if self.running.await.is_err() {
            tracing::error!("the router ended in a panic");
        }
        self.lag.abort();
    }
}

async fn run(parts: Parts, options: Options, mut stopped: watch::Receiver<bool>) {
    let mut owner = [0; 16];
    fill_random(&mut owner);
    let channels = Arc::new(parts.channels);
    let lanes = Lanes::new(LaneParts {
        door: parts.door,
        directory: parts.keeper.shared().clone(),
        limit: parts.limit.clone(),
        clock: parts.clock.clone(),
        ids: parts.keyring.ids().clone(),
        channels: channels.clone(),
        webhooks: options.webhooks.clone(),
        tail: parts.tail,
    });
    let commits = Arc::new(Commits::default());
    let shard_parts = ShardParts {
        log: parts.log.clone(),
        store: parts.store.clone(),
        keeper: parts.keeper,
        keyring: parts.keyring,
        clock: parts.clock.clone(),
        channels,
        lanes,
        options: Arc::new(options.clone()),
        commits: commits.clone(),
        owner,
    };
    let mut shards: JoinSet<u16> = JoinSet::new();
    let mut stops: BTreeMap<u16, watch::Sender<bool>> = BTreeMap::new();
    let mut commit_at = tokio::time::interval(options.commit_interval);
    let mut sweep_at = tokio::time::interval(Duration::from_secs(60));
    commit_at.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        tokio::select! {
            _ = stopped.changed() => {}
            _ = commit_at.tick() => commit(&parts.store, &parts.log, &commits, &parts.clock).await,
            _ = sweep_at.tick() => parts.limit.sweep(),
            change = parts.log.claims() => match change {
                ClaimChange::Assigned(readers) => {
                    metrics::LOG_ASSIGNED_PARTITIONS.at([0]).increment(readers.len() as f64);
                    for reader in readers {
                        let (stop, stopped) = watch::channel(false);
                        stops.insert(reader.shard(), stop);
                        shards.spawn(work(shard_parts.clone(), reader, stopped));
                    }
                }
                ClaimChange::Revoked(list) | ClaimChange::Lost(list) => {
                    metrics::LOG_ASSIGNED_PARTITIONS.at([0]).decrement(list.len() as f64);
                    for shard in list {
                        if let Some(stop) = stops.remove(&shard) {
                            stop.send_replace(true);
                        }
                    }
                }
            },
            Some(ended) = shards.join_next(), if !shards.is_empty() => report(ended),
        }
    }
    for stop in stops.values() {
        stop.send_replace(true);
    }
    while let Some(ended) = shards.join_next().await {
        report(ended);
    }
    commit(&parts.store, &parts.log, &commits, &parts.clock).await;
}

fn report(ended: Result<u16, tokio::task::JoinError>) {
    match ended {
        Ok(shard) => tracing::debug!(shard, "shard ended"),
        Err(error) => {
            metrics::PANICS.at([]).increment(1);
            tracing::error!(%error, "a shard ended in a panic; its records come again when the process starts anew");
        }
    }
}

async fn work(parts: ShardParts, reader: Box<dyn messaging::log::ShardReader>, mut stopped: watch::Receiver<bool>) -> u16 {
    let id = reader.shard();
    if let Some(shard) = Shard::begin(parts, reader, &mut stopped).await {
        shard.run(stopped).await;
    }
    id
}

/// Makes finished prefixes durable: first the store, then the positions that rely on it.
async fn commit(store: &Arc<dyn Store>, log: &Arc<dyn Log>, commits: &Commits, clock: &SharedClock) {
    let (rows, finished) = commits.take(clock.now());
    if rows.is_empty() && finished.is_empty() {
        return;
    }
    let started = std::time::Instant::now();
    if let Err(error) = store.apply(rows, messaging::store::Durability::Buffered).await {
        tracing::warn!(%error, "feed progress not written; positions are finished later");
        return;
    }
    if let Err(error) = store.sync().await {
        tracing::error!(%error, "store not synced; positions are not finished");
        return;
    }
    if let Err(error) = log.finish(finished).await {
        tracing::error!(%error, "positions not finished");
    }
    metrics::LOG_COMMIT_DURATION_SECONDS.at([0]).record(started.elapsed().as_secs_f64());
}

/// Partitions that the lag gauges show.
const PARTITIONS_SHOWN: usize = 32;

/// Shows how far behind the shards are.
async fn watch_lag(log: Arc<dyn Log>, clock: SharedClock) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = clock.now();
        for lag in log.lag() {
            let topic = lag.topic.index();
            let partition = usize::from(lag.partition);
            if partition >= PARTITIONS_SHOWN {
                continue;
            }
            let age = lag.oldest_at.map_or(0.0, |at| now.since(at).as_secs_f64());
            metrics::LOG_CONSUMER_LAG_RECORDS.at([topic, 0, partition]).set(lag.records as f64);
            metrics::LOG_CONSUMER_LAG_SECONDS.at([topic, 0, partition]).set(age);
        }
    }
}
