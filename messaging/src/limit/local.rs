//! Budgets inside one process. The arithmetic is `governor`'s GCRA; what is kept of a key is its theoretical arrival time.
//!
//! Beyond the contract, a refusal gives back what the other budgets of the same call had granted: otherwise a message that waits for
//! its account would use up its recipient's budget with every try and never go.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard};

use foldhash::fast::RandomState;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::direct::NotKeyed;
use governor::state::{RateLimiter, StateStore};
use governor::{Quota, clock::Clock as GovernorClock};

use super::*;
use crate::metrics::{LimitDecision, RATELIMIT_DECISIONS};

/// Most keys of one scope that are remembered at once. At 48 bytes each this is about 50 MiB for a scope that is full.
pub const MAX_KEYS_PER_SCOPE: usize = 1 << 20;
/// Locks per scope.
const SHARDS: usize = 16;
/// How long a key that finds no room waits: it may not be admitted unmetered, and the keys before it become idle soon.
const NO_ROOM_WAIT: Duration = Duration::from_millis(100);
/// A full map is looked through for idle keys at most this often.
const FULL_SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The slowest rate that is told apart from none: one in 30 days.
const MAX_PERIOD_NS: u64 = 30 * 24 * 3600 * 1_000_000_000;

/// The local limiter.
pub struct LocalLimit {
    clock: SharedClock,
    hasher: RandomState,
    keys_per_shard: usize,
    scopes: Vec<[Mutex<Keys>; SHARDS]>,
}

/// The keys of one scope and shard. Times are nanoseconds of the clock's monotonic time.
#[derive(Default)]
struct Keys {
    entries: HashMap<[u8; 16], Entry, RandomState>,
    /// Holds for keys that found no room: until then, keys without an entry wait.
    hold_rest_until: u64,
    full_swept_at: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    rate: Rate,
    /// When the bucket will be full again. Past: the key is idle, and as good as unknown.
    arrival: u64,
    hold_until: u64,
}

/// A budget in the terms of GCRA.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rate {
    period: u64,
    burst: NonZeroU32,
}

impl Rate {
    fn of(budget: &Budget) -> Self {
        // Rounded up, so that the long run never exceeds the rate. A rate that is no positive number is the slowest.
        let period = (1e9 / budget.rate_per_second).ceil();
        let period = if period >= 1.0 && period <= MAX_PERIOD_NS as f64 { period as u64 } else { MAX_PERIOD_NS };
        let period = if budget.rate_per_second > 1e9 { 1 } else { period };
        // No product of the two comes near the end of the clock.
        let most = u32::try_from(u64::MAX / 4 / period).unwrap_or(u32::MAX);
        Self { period, burst: NonZeroU32::new(budget.burst.min(most)).unwrap_or(NonZeroU32::MIN) }
    }

    /// The new arrival time, or how long to wait, in nanoseconds.
    fn admit(self, arrival: u64, now: u64) -> Result<u64, u64> {
        let quota = Quota::with_period(Duration::from_nanos(self.period)).expect("a period is not zero").allow_burst(self.burst);
        // A limiter counts from its start, so it starts at the clock's zero.
        let limiter = RateLimiter::<_, _, _, NoOpMiddleware<Nanos>>::new(quota, Arrival(Cell::new(arrival)), Moment(Cell::new(0)));
        limiter.clock().0.set(now);
        match limiter.check() {
            Ok(()) => Ok(limiter.into_state_store().0.get()),
            Err(refusal) => Err(refusal.wait_time_from(Nanos::from(now)).as_nanos() as u64),
        }
    }
}

/// One key's state, lent to `governor` for one decision under the shard's lock.
struct Arrival(Cell<u64>);

impl StateStore for Arrival {
    type Key = NotKeyed;
    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (answer, arrival) = decide(Some(Nanos::from(self.0.get())))?;
        self.0.set(arrival.into());
        Ok(answer)
    }
}

/// The time of one decision: all budgets of a call are judged at the same moment.
#[derive(Clone)]
struct Moment(Cell<u64>);

impl GovernorClock for Moment {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        Nanos::from(self.0.get())
    }
}

impl Entry {
    fn new(rate: Rate, now: u64) -> Self {
        Self { rate, arrival: now, hold_until: 0 }
    }

    fn is_idle(&self, now: u64) -> bool {
        self.arrival <= now && self.hold_until <= now
    }

    /// Takes on a changed budget. What was used stays used, so that a change is no way to a fresh burst.
    fn change(&mut self, rate: Rate, now: u64) {
        let used = u128::from(self.arrival.saturating_sub(now));
        let converted = (used * u128::from(rate.period)).div_ceil(u128::from(self.rate.period));
        let most = u128::from(rate.period) * u128::from(rate.burst.get());
        self.arrival = now.saturating_add(converted.min(most) as u64);
        self.rate = rate;
    }

    /// Takes one, or says how long to wait.
    fn take(&mut self, now: u64) -> Result<(), u64> {
        self.arrival = self.would_admit(now)?;
        Ok(())
    }

    fn would_admit(&self, now: u64) -> Result<u64, u64> {
        let held = self.hold_until.saturating_sub(now);
        match self.rate.admit(self.arrival, now) {
            Ok(arrival) if held == 0 => Ok(arrival),
            Ok(_) => Err(held),
            Err(wait) => Err(wait.max(held)),
        }
    }

    fn give_back(&mut self) {
        self.arrival = self.arrival.saturating_sub(self.rate.period);
    }
}

impl Keys {
    fn sweep(&mut self, now: u64) {
        self.entries.retain(|_, entry| !entry.is_idle(now));
        // Give memory back after a campaign, but not in every quiet minute.
        if self.entries.capacity() > 8 * (self.entries.len() + 64) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// Whether one more key fits, after dropping idle ones if need be.
    fn has_room(&mut self, most: usize, now: u64) -> bool {
        if self.entries.len() < most {
            return true;
        }
        let every = FULL_SWEEP_EVERY.as_nanos() as u64;
        if self.full_swept_at == 0 || now.saturating_sub(self.full_swept_at) >= every {
            self.full_swept_at = now.max(1);
            self.sweep(now);
        }
        self.entries.len() < most
    }

    /// The entry of a key under this budget; or how long to wait when there is no room for it.
    fn entry(&mut self, owner: [u8; 16], rate: Rate, most: usize, now: u64) -> Result<&mut Entry, u64> {
        if !self.entries.contains_key(&owner) {
            if self.hold_rest_until > now {
                return Err(self.hold_rest_until - now);
            }
            if !self.has_room(most, now) {
                return Err(NO_ROOM_WAIT.as_nanos() as u64);
            }
        }
        let entry = self.entries.entry(owner).or_insert_with(|| Entry::new(rate, now));
        if entry.rate != rate {
            entry.change(rate, now);
        }
        Ok(entry)
    }
}

impl LocalLimit {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self::with_room(clock, MAX_KEYS_PER_SCOPE)
    }

    fn with_room(clock: SharedClock, keys_per_scope: usize) -> Self {
        let scopes = BudgetScope::ALL.iter().map(|_| Default::default()).collect();
        Self { clock, hasher: RandomState::default(), keys_per_shard: keys_per_scope.div_ceil(SHARDS), scopes }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_nanos()).unwrap_or(u64::MAX / 4)
    }

    fn keys(&self, key: BudgetKey) -> MutexGuard<'_, Keys> {
        let shard = self.hasher.hash_one(key.owner) as usize % SHARDS;
        self.scopes[key.scope.index()][shard].lock().expect("no holder of the lock panics")
    }

    /// Takes one from a budget, or only looks when another has refused already.
    fn ask(&self, (key, budget): &(BudgetKey, Budget), take: bool, now: u64) -> Result<(), u64> {
        let mut keys = self.keys(*key);
        let entry = keys.entry(key.owner, Rate::of(budget), self.keys_per_shard, now)?;
        if take { entry.take(now) } else { entry.would_admit(now).map(|_| ()) }
    }

    fn give_back(&self, key: BudgetKey) {
        if let Slot::Occupied(mut entry) = self.keys(key).entries.entry(key.owner) {
            entry.get_mut().give_back();
        }
    }
}

impl Limit for LocalLimit {
    fn admit(&self, budgets: &[(BudgetKey, Budget)]) -> Admission {
        let now = self.now();
        let mut longest: Option<(u64, BudgetScope)> = None;
        let mut taken = 0;
        for (place, budget) in budgets.iter().enumerate() {
            match self.ask(budget, longest.is_none(), now) {
                Ok(()) if longest.is_none() => taken = place + 1,
                Ok(()) => {}
                Err(wait) => {
                    if longest.is_none_or(|(longest, _)| wait > longest) {
                        longest = Some((wait, budget.0.scope));
                    }
                }
            }
        }
        let Some((wait, scope)) = longest else {
            for (key, _) in budgets {
                RATELIMIT_DECISIONS.at([key.scope.index(), LimitDecision::Allowed.index()]).increment(1);
            }
            return Admission::Go;
        };
        for (key, _) in &budgets[..taken] {
            self.give_back(*key);
        }
        RATELIMIT_DECISIONS.at([scope.index(), LimitDecision::Delayed.index()]).increment(1);
        // The clock counts microseconds: a sleep of a part of one would end too early.
        Admission::Wait { wait: Duration::from_micros(wait.div_ceil(1_000)), scope }
    }

    fn hold(&self, key: BudgetKey, wait: Duration) {
        let now = self.now();
        let until = now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        let mut keys = self.keys(key);
        let has_room = keys.entries.contains_key(&key.owner) || keys.has_room(self.keys_per_shard, now);
        if !has_room {
            keys.hold_rest_until = keys.hold_rest_until.max(until);
            return;
        }
        // The budget is not known here; the next admission brings it, and nothing has been used of it yet.
        let unknown = Rate { period: 1, burst: NonZeroU32::MIN };
        let entry = keys.entries.entry(key.owner).or_insert_with(|| Entry::new(unknown, now));
        entry.hold_until = entry.hold_until.max(until);
    }

    fn degraded(&self) -> bool {
        false
    }

    fn sweep(&self) {
        let now = self.now();
        for keys in self.scopes.iter().flatten() {
            keys.lock().expect("no holder of the lock panics").sweep(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    const START: Timestamp = Timestamp::from_secs(1_795_168_800);

    fn key(scope: BudgetScope, owner: u32) -> BudgetKey {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&owner.to_le_bytes());
        BudgetKey { scope, owner: bytes }
    }

    #[test]
    fn keeps_the_contract() {
        conformance::run(&|clock| open_local(clock));
    }

    #[test]
    fn a_refusal_gives_back_what_other_budgets_granted() {
        let clock = ManualClock::at(START);
        let limit = LocalLimit::new(clock.clone());
        let pair = (key(BudgetScope::Pair, 1), Budget { scope: BudgetScope::Pair, rate_per_second: 1.0 / 6.0, burst: 1 });
        let account = (key(BudgetScope::Account, 1), Budget { scope: BudgetScope::Account, rate_per_second: 1.0, burst: 1 });
        assert_eq!(limit.admit(&[account]), Admission::Go);
        let wait = Admission::Wait { wait: Duration::from_secs(1), scope: BudgetScope::Account };
        assert_eq!(limit.admit(&[pair, account]), wait);
        clock.advance(Duration::from_secs(1));
        assert_eq!(limit.admit(&[pair, account]), Admission::Go, "the pair's unit was not lost to the account's refusal");
        let wait = Admission::Wait { wait: Duration::from_secs(6), scope: BudgetScope::Pair };
        assert_eq!(limit.admit(&[pair, account]), wait, "the longest wait is told");
    }

    #[test]
    fn a_changed_budget_keeps_what_was_used() {
        let clock = ManualClock::at(START);
        let limit = LocalLimit::new(clock.clone());
        let budget =
            |rate_per_second, burst| [(key(BudgetScope::Account, 1), Budget { scope: BudgetScope::Account, rate_per_second, burst })];
        for _ in 0..10 {
            assert_eq!(limit.admit(&budget(1.0, 10)), Admission::Go);
        }
        for (rate, burst) in [(2.0, 10), (1.0, 10), (0.5, 10)] {
            let wait = Duration::from_secs_f64(1.0 / rate);
            assert_eq!(limit.admit(&budget(rate, burst)), Admission::Wait { wait, scope: BudgetScope::Account }, "{rate}");
        }
        assert_eq!(limit.admit(&budget(1.0, 12)), Admission::Go, "a larger burst leaves room");
        assert_eq!(limit.admit(&budget(1.0, 12)), Admission::Go);
        assert_ne!(limit.admit(&budget(1.0, 12)), Admission::Go);
        let wait = Admission::Wait { wait: Duration::from_secs(1), scope: BudgetScope::Account };
        assert_eq!(limit.admit(&budget(1.0, 1)), wait, "a smaller burst is not in debt beyond itself");
    }

    #[test]
    fn a_full_map_admits_nothing_unmetered_and_recovers() {
        const ROOM: usize = SHARDS;
        const OFFERED: u32 = 1_000;
        let clock = ManualClock::at(START);
        let limit = LocalLimit::with_room(clock.clone(), ROOM);
        let budget = |owner| [(key(BudgetScope::Pair, owner), Budget { scope: BudgetScope::Pair, rate_per_second: 1.0, burst: 1 })];
        let admitted = |limit: &LocalLimit| (0..OFFERED).filter(|owner| limit.admit(&budget(*owner)) == Admission::Go).count();
        assert_eq!(admitted(&limit), ROOM);
        let full = Admission::Wait { wait: NO_ROOM_WAIT, scope: BudgetScope::Pair };
        let refused = (0..OFFERED).find(|owner| limit.admit(&budget(*owner)) == full).expect("most found no room");
        limit.hold(key(BudgetScope::Pair, refused), Duration::from_secs(60));
        clock.advance(Duration::from_secs(2));
        assert_ne!(limit.admit(&budget(refused)), Admission::Go, "a hold is kept though there was no room to remember whose");
        clock.advance(Duration::from_secs(60));
        assert_eq!(admitted(&limit), ROOM, "idle keys made room, without waiting for the sweep");
    }

    #[test]
    fn the_sweep_forgets_idle_keys_only() {
        let clock = ManualClock::at(START);
        let limit = LocalLimit::new(clock.clone());
        let count = || limit.scopes.iter().flatten().map(|keys| keys.lock().unwrap().entries.len()).sum::<usize>();
        for owner in 0..5_000 {
            limit.admit(&[(key(BudgetScope::Pair, owner), Budget { scope: BudgetScope::Pair, rate_per_second: 1.0, burst: 1 })]);
        }
        limit.hold(key(BudgetScope::Account, 1), Duration::from_secs(90));
        clock.advance(Duration::from_millis(999));
        limit.sweep();
        assert_eq!(count(), 5_001);
        clock.advance(Duration::from_millis(1));
        limit.sweep();
        assert_eq!(count(), 1, "the held key stays");
        let capacity = limit.scopes.iter().flatten().map(|keys| keys.lock().unwrap().entries.capacity()).max();
        assert!(capacity.is_some_and(|capacity| capacity < 1_000), "memory is given back: {capacity:?}");
    }

    #[test]
    fn senseless_budgets_neither_panic_nor_open_the_gate() {
        let limit = LocalLimit::new(ManualClock::at(START));
        for (owner, rate_per_second) in [0.0, -1.0, f64::NAN, 1e-30, f64::NEG_INFINITY].into_iter().enumerate() {
            for burst in [0, 1] {
                let owner = owner as u32 * 2 + burst;
                let budget = [(key(BudgetScope::Global, owner), Budget { scope: BudgetScope::Global, rate_per_second, burst })];
                assert_eq!(limit.admit(&budget), Admission::Go, "{rate_per_second} {burst}");
                assert_ne!(limit.admit(&budget), Admission::Go, "{rate_per_second} {burst}");
            }
        }
        for rate_per_second in [f64::INFINITY, f64::MAX, 1e-6] {
            let budget = [(key(BudgetScope::Tenant, 1), Budget { scope: BudgetScope::Tenant, rate_per_second, burst: u32::MAX })];
            assert_eq!(limit.admit(&budget), Admission::Go);
        }
    }

    proptest! {
        /// A token bucket in floating point says the same, apart from moments within a rounding of the edge.
        #[test]
        fn agrees_with_a_token_bucket(
            rate in prop_oneof![0.05_f64..2.0, 2.0_f64..2_000.0],
            burst in 1_u32..20,
            steps in proptest::collection::vec((0_u64..2_000_000, 1_u32..8), 1..200),
        ) {
            let clock = ManualClock::at(START);
            let limit = LocalLimit::new(clock.clone());
            let budget = [(key(BudgetScope::Account, 7), Budget { scope: BudgetScope::Account, rate_per_second: rate, burst })];
            let mut tokens = f64::from(burst);
            for (gap_us, tries) in steps {
                clock.advance(Duration::from_micros(gap_us));
                tokens = (tokens + rate * gap_us as f64 / 1e6).min(f64::from(burst));
                for _ in 0..tries {
                    let on_the_edge = (tokens - 1.0).abs() < 1e-4;
                    match limit.admit(&budget) {
                        Admission::Go => {
                            prop_assert!(on_the_edge || tokens > 1.0, "admitted with {tokens} tokens");
                            tokens -= 1.0;
                        }
                        Admission::Wait { wait, .. } => {
                            prop_assert!(on_the_edge || tokens < 1.0, "refused with {tokens} tokens");
                            let exact = (1.0 - tokens) / rate;
                            prop_assert!((wait.as_secs_f64() - exact).abs() < 1e-4 / rate + 2e-6, "waits {wait:?}, not {exact} s");
                        }
                    }
                }
            }
        }
    }
}
