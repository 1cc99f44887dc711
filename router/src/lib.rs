//! Station two: from the log to decisions to effects.
//!
//! ```text
//! LOG -> shard: parse -> decide -> store -> lane of the endpoint -> sign -> egress -> subscriber
//!                                        -> lane of the account  -> budget -> intent -> lease -> egress -> platform -> verdict -> shard
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use messaging::accounts::Accounts;
use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::SharedClock;
use messaging::keeper::DirectoryKeeper;
use messaging::limit::Limit;
use messaging::log::{ClaimChange, Log};
use messaging::metrics::{self, ShardState, SupervisedTask};
use messaging::seal::Keyring;
use messaging::store::Store;
use messaging::supervise;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub mod breaker;
pub mod census;
pub mod crowd;
pub mod decide;
pub mod delivery;
pub mod desk;
pub mod egress;
pub mod ends;
mod fair;
pub mod faults;
pub mod fleet;
pub mod flows;
pub mod lane;
pub mod later;
pub mod media;
pub mod plan;
pub mod progress;
pub mod recovery;
pub mod send;
pub mod shard;
pub mod sign;
pub mod waits;

use lane::{LaneParts, Lanes};
use messaging::log::ShardReader;
use shard::{Commits, Ended, Item, Order, Shard, ShardParts, Suspects};

/// How long effects under way may take when the log gives a shard to another.
const REVOKED_DRAIN: Duration = Duration::from_secs(4);
/// Between tries to go back in the log.
const RESTART_WAIT: Duration = Duration::from_secs(1);

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
    /// What a test has planted.
    pub faults: faults::Faults,
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
    /// Media of messages.
    pub media: Arc<messaging::media::Library>,
    /// Where the sends that wait are counted.
    pub outlook: Arc<messaging::outlook::Outlook>,
    /// Where the shards tell what they do.
    pub fleet: Arc<fleet::Fleet>,
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
        let census = Arc::new(census::Census::default());
        let recoveries = Arc::default();
        let seen = Seen { log: parts.log.clone(), clock: parts.clock.clone(), keeper: parts.keeper.clone(), census, recoveries };
        let running = tokio::spawn(supervise::vital(SupervisedTask::Router, run(parts, options, seen.clone(), stopped)));
        let lag = supervise::spawn_again(SupervisedTask::Lag, move || watch(seen.clone()));
        Self { stop, running, lag }
    }

    /// Takes nothing new, lets what is under way end, finishes positions.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A panic there has ended the process.
        let _ = self.running.await;
        self.lag.abort();
    }
}

async fn run(parts: Parts, options: Options, seen: Seen, mut stopped: watch::Receiver<bool>) {
    let channels = Arc::new(parts.channels);
    let lanes = Lanes::new(LaneParts {
        door: parts.door,
        directory: parts.keeper.shared().clone(),
        limit: parts.limit.clone(),
        clock: parts.clock.clone(),
        ids: parts.keyring.ids().clone(),
        channels: channels.clone(),
        webhooks: options.webhooks.clone(),
        media: parts.media.clone(),
        tail: parts.tail,
        recoveries: seen.recoveries,
    });
    let commits = Arc::new(Commits::default());
    // Dropped at the end, which ends its tasks.
    let mut fetching = JoinSet::new();
    let media = media::Media::start(parts.media.clone(), parts.clock.clone(), &mut fetching);
    let shard_parts = ShardParts {
        log: parts.log.clone(),
        store: parts.store.clone(),
        accounts: Accounts::new(parts.keeper.clone(), parts.log.clone(), parts.keyring.clone(), parts.clock.clone()),
        keeper: parts.keeper,
        keyring: parts.keyring,
        clock: parts.clock.clone(),
        channels,
        lanes,
        media,
        options: Arc::new(options.clone()),
        commits: commits.clone(),
        census: seen.census,
        outlook: parts.outlook,
        fleet: parts.fleet,
    };
    let committer = {
        let (store, log, commits, clock) = (parts.store.clone(), parts.log.clone(), commits.clone(), parts.clock.clone());
        supervise::spawn_again(SupervisedTask::Committer, move || {
            commit_now_and_then(store.clone(), log.clone(), commits.clone(), clock.clone(), options.commit_interval)
        })
    };
    let mut shards: JoinSet<u16> = JoinSet::new();
    // What each shard is told, and what says that it has ended. A shard that comes back waits for its own end.
    let mut known: BTreeMap<u16, (watch::Sender<Order>, watch::Receiver<bool>)> = BTreeMap::new();
    let mut sweep_at = tokio::time::interval(Duration::from_secs(60));
    let tell = |known: &BTreeMap<u16, (watch::Sender<Order>, watch::Receiver<bool>)>, list: &[u16], order: Order| {
        metrics::LOG_ASSIGNED_PARTITIONS.at([0]).decrement(list.len() as f64);
        for (orders, _) in list.iter().filter_map(|shard| known.get(shard)) {
            orders.send_replace(order);
        }
    };
    while !*stopped.borrow() {
        tokio::select! {
            _ = stopped.changed() => {}
            _ = sweep_at.tick() => parts.limit.sweep(),
            change = parts.log.claims() => match change {
                ClaimChange::Assigned(readers) => {
                    metrics::LOG_ASSIGNED_PARTITIONS.at([0]).increment(readers.len() as f64);
                    for reader in readers {
                        let (orders, told) = watch::channel(Order::Work);
                        let (ended, has_ended) = watch::channel(false);
                        let former = known.insert(reader.shard(), (orders, has_ended)).map(|(orders, ended)| {
                            // Told before, as a rule. One that was not would be waited for for ever.
                            if *orders.borrow() == Order::Work {
                                orders.send_replace(Order::Leave);
                            }
                            ended
                        });
                        let work = work(shard_parts.clone(), reader, told, former, ended);
                        shards.spawn(supervise::vital(SupervisedTask::Shard, work));
                    }
                }
                ClaimChange::Revoked(list) => tell(&known, &list, Order::Drain(options.drain.min(REVOKED_DRAIN))),
                ClaimChange::Lost(list) => tell(&known, &list, Order::Leave),
            },
            Some(ended) = shards.join_next(), if !shards.is_empty() => report(ended),
        }
    }
    for (orders, _) in known.values() {
        orders.send_if_modified(|order| {
            let works = *order == Order::Work;
            if works {
                *order = Order::Drain(options.drain);
            }
            works
        });
    }
    while let Some(ended) = shards.join_next().await {
        report(ended);
    }
    committer.abort();
    commit(&parts.store, &parts.log, &commits, &parts.clock).await;
}

fn report(ended: Result<u16, tokio::task::JoinError>) {
    if let Ok(shard) = ended {
        tracing::debug!(shard, "shard ended");
    }
}

/// Owns a shard until told to leave it. A lost lease without word from the log is waited out, a panic has its pause; then the shard
/// begins anew, under another epoch.
async fn work(
    parts: ShardParts,
    mut reader: Box<dyn ShardReader>,
    mut orders: watch::Receiver<Order>,
    former: Option<watch::Receiver<bool>>,
    ended: watch::Sender<bool>,
) -> u16 {
    let id = reader.shard();
    if let Some(mut former) = former {
        let _ = former.wait_for(|ended| *ended).await;
    }
    parts.outlook.shard_begins(parts.log.partitions(), parts.clock.now());
    let (mut suspects, mut pause) = (Suspects::default(), supervise::Pause::default());
    loop {
        let begun = tokio::time::Instant::now();
        let life = async {
            match Shard::begin(parts.clone(), reader.as_mut(), &mut suspects, &mut orders).await {
                Ok(shard) => shard.run(&mut orders).await,
                Err(ended) => ended,
            }
        };
        let wait = match supervise::caught(life).await.unwrap_or_else(Ended::Panicked) {
            Ended::Told => break,
            // The log most likely gives the shard to another in a moment.
            Ended::Unleased => parts.options.lease_ttl,
            Ended::Panicked(panicked) => {
                parts.fleet.note(id, Some(ShardState::Restarting));
                metrics::TASK_RESTARTS.at([SupervisedTask::Shard.index()]).increment(1);
                if suspects.take_cured() {
                    pause.cured();
                }
                let wait = pause.after(begun.elapsed());
                tell_panic(id, &panicked, &mut suspects, wait);
                wait
            }
        };
        if tokio::time::timeout(wait, orders.wait_for(|order| *order != Order::Work)).await.is_ok() {
            break;
        }
        while let Err(error) = reader.restart().await {
            tracing::warn!(shard = id, %error, "the log does not go back yet");
            tokio::time::sleep(RESTART_WAIT).await;
            if *orders.borrow() != Order::Work {
                break;
            }
        }
    }
    drop(reader);
    parts.outlook.shard_ends();
    parts.fleet.note(id, None);
    ended.send_replace(true);
    id
}

/// What a shard had in hand at its panic is under suspicion from now on. One line says where it was and with what.
fn tell_panic(shard: u16, panicked: &supervise::Panicked, suspects: &mut Suspects, wait: Duration) {
    let place = suspects.place();
    let hand = suspects.strike();
    let record =
        hand.iter().find_map(|item| if let Item::Record(topic, position) = item { Some((topic.name(), position.0)) } else { None });
    let (topic, position) = record.unzip();
    tracing::error!(
        shard,
        place,
        topic,
        position,
        in_hand = hand.len(),
        at = panicked.at,
        again_in_s = wait.as_secs_f64(),
        "a shard panicked and begins again: what it had in hand is tried one by one"
    );
}

/// Commits until aborted.
async fn commit_now_and_then(store: Arc<dyn Store>, log: Arc<dyn Log>, commits: Arc<Commits>, clock: SharedClock, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        commit(&store, &log, &commits, &clock).await;
    }
}

/// Makes finished prefixes durable: first the store, then the positions that rely on it.
async fn commit(store: &Arc<dyn Store>, log: &Arc<dyn Log>, commits: &Commits, clock: &SharedClock) {
    // One at a time: an older prefix must not be written over a newer one.
    let _turn = commits.turn().await;
    let (rows, finished) = commits.take(clock.now());
    if rows.is_empty() && finished.is_empty() {
        return;
    }
    let started = std::time::Instant::now();
    if let Err(error) = store.apply(rows.clone(), messaging::store::Durability::Buffered).await {
        tracing::warn!(%error, "feed progress not written; positions are finished later");
        commits.put_back(&rows, &finished);
        return;
    }
    if let Err(error) = store.sync().await {
        tracing::error!(%error, "store not synced; positions are finished later");
        commits.put_back(&rows, &finished);
        return;
    }
    if let Err(error) = log.finish(finished.clone()).await {
        tracing::warn!(%error, "positions not finished; they are later");
        commits.put_back(&[], &finished);
    }
    metrics::LOG_COMMIT_DURATION_SECONDS.at([0]).record(started.elapsed().as_secs_f64());
}

/// Partitions that the lag gauges show.
const PARTITIONS_SHOWN: usize = 32;

/// What the gauges are made of.
#[derive(Clone)]
struct Seen {
    log: Arc<dyn Log>,
    clock: SharedClock,
    keeper: DirectoryKeeper,
    census: Arc<census::Census>,
    recoveries: Arc<recovery::Recoveries>,
}

/// Shows how far behind the shards are, what they hold, and how the endpoints do.
async fn watch(seen: Seen) {
    let Seen { log, clock, keeper, census, recoveries } = seen;
    let mut endpoints = census::Endpoints::default();
    let mut shown = std::collections::BTreeSet::new();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        census.show();
        let directory = keeper.shared().load_full();
        endpoints.show(&directory, &recoveries.failing(&directory));
        let now = clock.now();
        let mut owned = std::collections::BTreeSet::new();
        for lag in log.lag() {
            let topic = lag.topic.index();
            let partition = usize::from(lag.partition);
            if partition >= PARTITIONS_SHOWN {
                continue;
            }
            owned.insert((topic, partition));
            let age = lag.oldest_at.map_or(0.0, |at| now.since(at).as_secs_f64());
            metrics::LOG_CONSUMER_LAG_RECORDS.at([topic, 0, partition]).set(lag.records as f64);
            metrics::LOG_CONSUMER_LAG_SECONDS.at([topic, 0, partition]).set(age);
        }
        // Another process shows those that went to it: what was seen last here would stand for ever.
        for (topic, partition) in shown.difference(&owned) {
            metrics::LOG_CONSUMER_LAG_RECORDS.at([*topic, 0, *partition]).set(0.0);
            metrics::LOG_CONSUMER_LAG_SECONDS.at([*topic, 0, *partition]).set(0.0);
        }
        shown = owned;
    }
}
