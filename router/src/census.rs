//! What the shards hold, for the gauges. Each shard says it about once a second; one task adds it up and sets them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::channels::ChannelKind;
use messaging::clock::Timestamp;
use messaging::directory::{Directory, EndpointState};
use messaging::ids::{AccountId, EndpointId};
use messaging::metrics::{self, CacheName, DeliveryState, EndpointHealth, PARTITION_NAMES, PendingState};
use messaging::store::Queue;

/// How often a shard says what it holds.
pub const EVERY: Duration = Duration::from_secs(1);

/// What one shard holds. Of a long deferred queue only the part in memory is counted.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    deliveries: [u64; DeliveryState::ALL.len()],
    oldest_delivery: Option<Timestamp>,
    sends: [[u64; PendingState::ALL.len()]; ChannelKind::ALL.len()],
    oldest_send: [Option<Timestamp>; ChannelKind::ALL.len()],
    /// Conversations with deferred work.
    pub conversations_blocked: usize,
    /// Conversations in memory.
    pub conversations_cached: usize,
    /// Share of the time since the last report that went into steps.
    pub busy: f64,
}

impl Holdings {
    /// Counts deliveries in a state, with the acceptance of their oldest.
    pub fn deliveries(&mut self, state: DeliveryState, count: usize, oldest: Option<Timestamp>) {
        self.deliveries[state.index()] += count as u64;
        self.oldest_delivery = older(self.oldest_delivery, oldest);
    }

    /// Counts sends in a state, with the acceptance of their oldest. Scheduled ones are not late, so they have none.
    pub fn sends(&mut self, channel: ChannelKind, state: PendingState, count: usize, oldest: Option<Timestamp>) {
        self.sends[channel.index()][state.index()] += count as u64;
        let kept = &mut self.oldest_send[channel.index()];
        *kept = older(*kept, oldest);
    }

    /// Counts what is deferred for a destination: an endpoint's deliveries, or an account's sends. What belongs to neither any more
    /// is found and ended by its shard.
    pub fn deferred(&mut self, directory: &Directory, queue: Queue, count: usize, oldest: Option<Timestamp>) {
        let (Queue::Destination(destination) | Queue::Bulk(destination)) = queue else { return };
        if let Some(endpoint) = directory.endpoint(EndpointId(destination)) {
            let state = match endpoint.row.state {
                EndpointState::Paused => DeliveryState::Paused,
                EndpointState::Active | EndpointState::Disabled => DeliveryState::Retrying,
            };
            self.deliveries(state, count, oldest);
        } else if let Some(account) = directory.account(AccountId(destination)) {
            self.sends(account.channel, PendingState::Queued, count, oldest);
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in self.deliveries.iter_mut().zip(other.deliveries) {
            *sum += count;
        }
        self.oldest_delivery = older(self.oldest_delivery, other.oldest_delivery);
        for (sums, counts) in self.sends.iter_mut().zip(&other.sends) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        for (kept, oldest) in self.oldest_send.iter_mut().zip(other.oldest_send) {
            *kept = older(*kept, oldest);
        }
        self.conversations_blocked += other.conversations_blocked;
        self.conversations_cached += other.conversations_cached;
    }
}

fn older(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What all shards of the process hold.
#[derive(Debug, Default)]
pub struct Census {
    shards: Mutex<BTreeMap<u16, Holdings>>,
}

impl Census {
    /// A shard says what it holds.
    pub fn report(&self, shard: u16, holdings: Holdings) {
        self.lock().insert(shard, holdings);
    }

    /// A shard ended: it holds nothing any more.
    pub fn forget(&self, shard: u16) {
        self.lock().remove(&shard);
        if let Some(shard) = shown(shard) {
            metrics::ROUTER_SHARD_BUSY_RATIO.at([shard]).set(0.0);
        }
    }

    /// Sets the gauges to what the shards said last.
    pub fn show(&self) {
        let mut all = Holdings::default();
        for (shard, holdings) in self.lock().iter() {
            all.add(holdings);
            if let Some(shard) = shown(*shard) {
                metrics::ROUTER_SHARD_BUSY_RATIO.at([shard]).set(holdings.busy);
            }
        }
        for (state, count) in all.deliveries.iter().enumerate() {
            metrics::WEBHOOK_PENDING_DELIVERIES.at([state]).set(*count as f64);
        }
        metrics::WEBHOOK_OLDEST_PENDING_TIMESTAMP_SECONDS.at([]).set(seconds(all.oldest_delivery));
        for (channel, states) in all.sends.iter().enumerate() {
            for (state, count) in states.iter().enumerate() {
                metrics::PLATFORM_PENDING_MESSAGES.at([channel, state]).set(*count as f64);
            }
            metrics::PLATFORM_OLDEST_PENDING_TIMESTAMP_SECONDS.at([channel]).set(seconds(all.oldest_send[channel]));
        }
        metrics::ROUTER_CONVERSATIONS_BLOCKED.at([]).set(all.conversations_blocked as f64);
        metrics::CACHE_ENTRIES.at([CacheName::Conversations.index()]).set(all.conversations_cached as f64);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Holdings>> {
        self.shards.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The label of a shard; none beyond those that metrics show.
fn shown(shard: u16) -> Option<usize> {
    Some(usize::from(shard)).filter(|shard| *shard < PARTITION_NAMES.len())
}

/// 0 stands for none.
fn seconds(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| at.as_micros() as f64 / 1_000_000.0)
}

/// How each endpoint was when it was looked at last. At most as many as the directory has.
#[derive(Debug, Default)]
pub struct Endpoints(HashMap<EndpointId, EndpointHealth, RandomState>);

impl Endpoints {
    /// Sets how many endpoints are in which state, and counts the changes since the last look.
    pub fn show(&mut self, directory: &Directory, failing: &HashSet<EndpointId, RandomState>) {
        let mut counts = [0_u32; EndpointHealth::ALL.len()];
        let mut now = HashMap::default();
        for endpoint in directory.endpoints() {
            let id = endpoint.row.id;
            let health = match endpoint.row.state {
                EndpointState::Paused => EndpointHealth::Paused,
                EndpointState::Disabled => EndpointHealth::Disabled,
                EndpointState::Active if failing.contains(&id) => EndpointHealth::Failing,
                EndpointState::Active => EndpointHealth::Healthy,
            };
            counts[health.index()] += 1;
            let unknown = match health {
                EndpointHealth::Failing => EndpointHealth::Healthy,
                EndpointHealth::Healthy | EndpointHealth::Paused | EndpointHealth::Disabled => health,
            };
            if *self.0.get(&id).unwrap_or(&unknown) != health {
                metrics::WEBHOOK_ENDPOINT_TRANSITIONS.at([health.index()]).increment(1);
            }
            now.insert(id, health);
        }
        self.0 = now;
        for (health, count) in counts.iter().enumerate() {
            metrics::WEBHOOK_ENDPOINTS.at([health]).set(f64::from(*count));
        }
    }
}
