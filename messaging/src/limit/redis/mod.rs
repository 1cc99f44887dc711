//! Budgets that several processes share. Each leases units in blocks from Redis and meters them itself, so that an admission never
//! waits for the network, and Redis sees one call per block.
//!
//! **What holds.** Over any span t, all processes together admit at most `burst + rate × t` per key. Redis keeps a bucket per key in
//! which a unit that was given to a process holds its place until the process reports it as used, gives it back, or its time is over
//! (`lease.lua` has the reasoning); and each process meters everything with the local limiter besides, so that no answer of Redis, and
//! no loss of its data, lets one process exceed the budget by itself.
//!
//! * **A cold key** goes at once where the budget is large enough to be parted (`burst >= 4 * nodes_hint`): a small part of the burst
//!   stands by in each process. Otherwise the first admission is told to wait up to 5 ms, while its block is fetched.
//! * **A busy key** leases ahead: a process holds up to 150 ms of the rate, each unit with the moment from which it may be used. What
//!   is not used within 0.9 s goes back. When processes compete, `Wait` tells when the next unit is free that nobody was promised.
//!   Budgets with a burst below four units are not leased ahead; there the unit that comes free goes to who waited longest, and an
//!   admission costs up to a round trip.
//! * **A hold** counts in this process at once. Another one learns of it with its next lease call for the key: when its block is used
//!   up, so after 150 ms of the rate at full use, and never later than 0.9 s. The standby units of a key that was idle may go first.
//! * **Redis away** (no connection, an error, read only, or three writes in a row unanswered): [`Degraded`] says what happens. Without
//!   any traffic a broken connection is noticed within half a second and a silent one within two; connecting is tried at least every two
//!   seconds. What was admitted meanwhile is reported when Redis is back, so that a Redis that forgot or slept through it does not grant
//!   the burst again to those who were there; whatever gets lost, it is one burst more and not two.
//! * **What only one process admits** need not be shared: see [`RedisSettings::own`].
//!
//! Keys in Redis are `<prefix>:<scope>:<hex of the owner>` and end by themselves once the bucket is full again. Redis 5 or later; one
//! server, sentinels or a cluster ([`place`]).

mod agent;
mod lease;
mod leases;
pub(crate) mod link;
pub mod place;
mod script;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::agent::{Agent, Job, QUEUE_MAX, Timers};
use self::lease::Unit;
use self::leases::{Leases, Taken};
use self::link::Opener;
pub use self::link::RedisTls;
use self::place::Place;
use self::script::Scripts;
use super::local::LocalLimit;
use super::*;
use crate::BoxFuture;
use crate::metrics::SupervisedTask;
use crate::metrics::{LimitDecision, RATELIMIT_DECISIONS};
use crate::supervise::vital;

/// What is told to wait when limits refuse because Redis is away.
const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// Longest timeout that makes sense on the path of a message.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Longest prefix.
const PREFIX_MAX: usize = 64;
/// Most processes that a budget is parted between.
const NODES_MAX: u32 = 10_000;

/// What limits do while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Degraded {
    /// Each process meters its share: the budget divided by `nodes_hint`, and at least one unit of burst.
    LocalShare,
    /// Nothing is admitted.
    Refuse,
    /// Everything is admitted, but for what a platform said to hold.
    Allow,
}

impl Degraded {
    fn means(self) -> &'static str {
        match self {
            Self::LocalShare => "each process keeps to its share of the limits",
            Self::Refuse => "limits refuse everything",
            Self::Allow => "limits are off",
        }
    }
}

/// Whose time budgets run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSource {
    /// The server's: processes need not agree on the time. For all but tests.
    Server,
    /// The clock of the limiter. Redis' time cannot be moved, and tests move it.
    Caller,
}

/// How budgets are shared.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where Redis is.
    pub place: Place,
    /// Certificates for `rediss`.
    pub tls: RedisTls,
    /// For an answer. Not zero, up to 5 s.
    pub timeout: Duration,
    /// What happens while Redis is away.
    pub degraded: Degraded,
    /// How many processes share the budgets, at least. Not zero. Too few: restarts and outages admit more than the budget; too many:
    /// the standby units and the shares are smaller than they could be.
    pub nodes_hint: u32,
    /// What every key begins with: letters, digits, `-`, `_`, `:`, `{` and `}`. Installations that share a Redis have different ones.
    pub prefix: String,
    /// Scopes that are metered in this process only. `Global` is this process by meaning. `Pair` belongs to a conversation, which one
    /// shard owns at a time: leasing it would cost a call per message and park each in `later`, and what sharing adds is the moment of a
    /// hand-over, when the next owner may be up to one burst early.
    pub own: Vec<BudgetScope>,
    /// Whose time.
    pub time: TimeSource,
}

impl RedisSettings {
    /// The defaults for an address.
    pub fn at(place: Place) -> Self {
        Self {
            place,
            tls: RedisTls::default(),
            timeout: Duration::from_millis(20),
            degraded: Degraded::LocalShare,
            nodes_hint: 1,
            prefix: "trunkline".to_owned(),
            own: vec![BudgetScope::Pair, BudgetScope::Global],
            time: TimeSource::Server,
        }
    }
}

/// Settings that cannot work. That Redis is away is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The address.
    #[error(transparent)]
    Place(#[from] place::BadPlace),
    /// The timeout.
    #[error("the timeout of redis is not between 1 ms and 5 s")]
    Timeout,
    /// The number of processes.
    #[error("the number of processes that share limits is not between 1 and {NODES_MAX}")]
    Nodes,
    /// The prefix.
    #[error("the prefix of keys in redis is empty, longer than {PREFIX_MAX}, or has characters other than letters, digits and -_:{{}}")]
    Prefix,
    /// The certificates.
    #[error("the certificates for redis cannot be read")]
    Certificates,
}

/// What the limiter and its agent share.
pub(crate) struct Shared {
    clock: SharedClock,
    /// Meters everything that this process admits: exact waits, holds, and the shares while Redis is away.
    local: LocalLimit,
    leases: Leases,
    degraded: Degraded,
    /// Of the connection; zero while Redis is away.
    epoch: AtomicU32,
    /// Jobs that were begun and not ended, and those that were ended.
    open: AtomicUsize,
    ended: AtomicU64,
    /// When the agent's next timer rings.
    next_ring: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_nanos()).unwrap_or(u64::MAX / 4)
    }

    fn jobs_begun(&self, count: usize) {
        self.open.fetch_add(count, Ordering::AcqRel);
    }

    fn job_done(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The limiter over Redis.
pub struct RedisLimit {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    nodes: u32,
    own: [bool; BudgetScope::ALL.len()],
}

/// What the background work of a limiter has come to; for tests, which wait for it instead of for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Whether something was begun and is not answered.
    pub is_open: bool,
    /// How much was ended.
    pub ended: u64,
}

/// Opens the limiter. Succeeds while Redis is away: limits are degraded until it is there. Wants a tokio runtime, in which its agent
/// runs until the limiter is dropped. Boxed here: an `async fn` is compiled where it is awaited, with all that it uses of the driver.
pub fn open(settings: RedisSettings, clock: SharedClock) -> BoxFuture<'static, Result<Arc<dyn Limit>, LimitError>> {
    Box::pin(async move { Ok(RedisLimit::open(settings, clock).await? as Arc<dyn Limit>) })
}

impl RedisLimit {
    /// As [`open`].
    pub async fn open(settings: RedisSettings, clock: SharedClock) -> Result<Arc<Self>, LimitError> {
        check(&settings)?;
        let RedisSettings { place, tls, timeout, degraded, nodes_hint, prefix, own: own_scopes, time } = settings;
        let opener = Opener::new(place, tls, timeout);
        opener.check().map_err(|_| LimitError::Certificates)?;
        let shared = Arc::new(Shared {
            local: LocalLimit::new(clock.clone()),
            clock,
            leases: Leases::new(nodes_hint),
            degraded,
            epoch: AtomicU32::new(0),
            open: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            next_ring: AtomicU64::new(u64::MAX),
        });
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let holder = data_encoding::HEXLOWER.encode(&uuid::Uuid::now_v7().as_bytes()[4..]);
        let agent = Agent {
            shared: shared.clone(),
            jobs: queue,
            opener,
            scripts: Arc::new(Scripts::new(holder)),
            prefix,
            time,
            timers: Timers::default(),
            holds: HashMap::new(),
            epochs: 0,
            told: None,
        };
        let (first, is_known) = oneshot::channel();
        tokio::spawn(vital(SupervisedTask::Limits, agent.run(first)));
        // An agent that ended has nothing more to say.
        let _ = is_known.await;
        let mut own = [false; BudgetScope::ALL.len()];
        for scope in own_scopes {
            own[scope.index()] = true;
        }
        Ok(Arc::new(Self { shared, jobs, nodes: nodes_hint, own }))
    }

    /// What the background work has come to.
    pub fn activity(&self) -> Activity {
        let shared = &self.shared;
        let ended = shared.ended.load(Ordering::Acquire);
        let rings = shared.next_ring.load(Ordering::Acquire) <= shared.now() && shared.epoch.load(Ordering::Acquire) != 0;
        Activity { is_open: rings || shared.open.load(Ordering::Acquire) > 0, ended }
    }

    fn ask(&self, job: Job) -> bool {
        self.shared.jobs_begun(1);
        let is_taken = self.jobs.try_send(job).is_ok();
        if !is_taken {
            self.shared.job_done();
        }
        is_taken
    }

    fn is_own(&self, key: BudgetKey) -> bool {
        self.own[key.scope.index()]
    }

    /// Takes a unit of each budget, or gives back what it took and says which of them makes it wait.
    fn lease(&self, budgets: &[(BudgetKey, Budget)], units: &mut Units, epoch: u32) -> Option<(u64, BudgetScope)> {
        let now = self.shared.now();
        for (place, (key, budget)) in budgets.iter().enumerate() {
            if self.is_own(*key) {
                continue;
            }
            let taken = self.shared.leases.take(*key, budget, now, epoch);
            units.note(place, &taken);
            if let Err(wait) = taken.unit {
                self.give_back(&budgets[..place], units);
                return Some((wait, key.scope));
            }
        }
        None
    }

    /// Sends the asks that a call gave rise to: after it is known which of its units were used, for an ask reports them.
    fn send_asks(&self, budgets: &[(BudgetKey, Budget)], units: &Units) {
        if units.asks == 0 {
            return;
        }
        for (place, (key, _)) in budgets.iter().enumerate() {
            if units.asks_at(place) && !self.ask(Job::Ask(*key)) {
                self.shared.leases.known(*key, |lease| lease.failed(self.shared.now()));
            }
        }
    }

    fn give_back(&self, budgets: &[(BudgetKey, Budget)], units: &mut Units) {
        for (place, (key, _)) in budgets.iter().enumerate() {
            if !self.is_own(*key) {
                self.shared.leases.give_back(*key, units.of(place), units.asks_at(place));
                units.asks &= !(1 << place);
            }
        }
    }

    fn admit_alone(&self, budgets: &[(BudgetKey, Budget)]) -> Admission {
        let nodes = match self.shared.degraded {
            Degraded::LocalShare => self.nodes,
            Degraded::Refuse => {
                let shared = budgets.iter().find(|(key, _)| !self.is_own(*key));
                let Some((key, _)) = shared else { return self.shared.local.admit(budgets) };
                RATELIMIT_DECISIONS.at([key.scope.index(), LimitDecision::Refused.index()]).increment(1);
                return Admission::Wait { wait: REFUSED_WAIT, scope: key.scope };
            }
            Degraded::Allow => 0,
        };
        let budgets: Vec<_> = budgets.iter().map(|(key, budget)| (*key, self.share(*key, budget, nodes))).collect();
        self.shared.local.admit(&budgets)
    }

    /// A process' share of a budget; of no process' at all: no limit.
    fn share(&self, key: BudgetKey, budget: &Budget, nodes: u32) -> Budget {
        match nodes {
            _ if self.is_own(key) => *budget,
            0 => Budget { rate_per_second: f64::INFINITY, burst: u32::MAX, ..*budget },
            _ => Budget { rate_per_second: budget.rate_per_second / f64::from(nodes), burst: (budget.burst / nodes).max(1), ..*budget },
        }
    }
}

fn check(settings: &RedisSettings) -> Result<(), LimitError> {
    check_common(settings.timeout, &settings.prefix)?;
    if settings.nodes_hint == 0 || settings.nodes_hint > NODES_MAX {
        return Err(LimitError::Nodes);
    }
    Ok(())
}

/// What whoever talks with Redis must keep.
pub(crate) fn check_common(timeout: Duration, prefix: &str) -> Result<(), LimitError> {
    if timeout < Duration::from_millis(1) || timeout > TIMEOUT_MAX {
        return Err(LimitError::Timeout);
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'{' | b'}');
    if prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.bytes().all(is_plain) {
        return Err(LimitError::Prefix);
    }
    Ok(())
}

/// Most budgets of one call. Channels have up to three.
const BUDGETS_MAX: usize = 64;

/// Where the units of a call came from, and which of its keys ask, by place in its list.
#[derive(Default)]
struct Units {
    standby: u64,
    asks: u64,
}

impl Units {
    fn note(&mut self, place: usize, taken: &Taken) {
        self.standby |= u64::from(taken.unit == Ok(Unit::Standby)) << place;
        self.asks |= u64::from(taken.asks) << place;
    }

    fn of(&self, place: usize) -> Unit {
        if self.standby >> place & 1 == 1 { Unit::Standby } else { Unit::Leased }
    }

    fn asks_at(&self, place: usize) -> bool {
        self.asks >> place & 1 == 1
    }
}

impl Limit for RedisLimit {
    fn admit(&self, budgets: &[(BudgetKey, Budget)]) -> Admission {
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        if epoch == 0 {
            let admission = self.admit_alone(budgets);
            if admission == Admission::Go && self.shared.degraded == Degraded::LocalShare {
                let now = self.shared.now();
                for (key, budget) in budgets.iter().filter(|(key, _)| !self.is_own(*key)) {
                    self.shared.leases.owe(*key, budget, now);
                }
            }
            return admission;
        }
        assert!(budgets.len() <= BUDGETS_MAX, "a call has at most {BUDGETS_MAX} budgets");
        let mut units = Units::default();
        let short = self.lease(budgets, &mut units, epoch);
        if let Some((wait, scope)) = short {
            self.send_asks(budgets, &units);
            RATELIMIT_DECISIONS.at([scope.index(), LimitDecision::Delayed.index()]).increment(1);
            return Admission::Wait { wait: Duration::from_micros(wait.div_ceil(1_000)), scope };
        }
        let admission = self.shared.local.admit(budgets);
        if admission != Admission::Go {
            self.give_back(budgets, &mut units);
        }
        self.send_asks(budgets, &units);
        admission
    }

    fn hold(&self, key: BudgetKey, wait: Duration) {
        self.shared.local.hold(key, wait);
        if wait.is_zero() || self.is_own(key) {
            return;
        }
        let until = self.shared.now().saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        self.ask(Job::Hold(key, until));
    }

    fn degraded(&self) -> bool {
        self.shared.epoch.load(Ordering::Acquire) == 0
    }

    fn sweep(&self) {
        self.shared.local.sweep();
        self.shared.leases.sweep(self.shared.now());
    }
}
