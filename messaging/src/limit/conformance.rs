//! What every [`Limit`] must do, whatever is behind it. `run` takes a function that opens a fresh one over a clock that the
//! suite moves.
//!
//! A limiter that asks a backend in the background answers at first from what it knows. So the suite waits for the backend after
//! every call and every step of the clock, and asks again for as long as that brought something new: what the limiter says when the
//! backend has nothing to add is judged as exactly as ever.

use super::*;
use crate::clock::{Clock, ManualClock, Timestamp};

/// How a backend is opened for one check.
pub type Open<'a> = &'a dyn Fn(SharedClock) -> Arc<dyn Limit>;

/// Waits until the background work of a limiter is done; whether any was done since the last time.
pub type Settle = Box<dyn Fn() -> bool + Sync>;
/// How a backend is opened for one check that works in the background.
pub type OpenSettled<'a> = &'a dyn Fn(SharedClock) -> (Arc<dyn Limit>, Settle);

/// Rounding that is forgiven in a wait: the clock counts microseconds.
const EXACT_TO: Duration = Duration::from_micros(2);
/// Rounding that is forgiven in a count: one part in a million of a unit.
const UNIT_SLACK: f64 = 1e-6;

/// Runs the whole suite; panics with what was broken.
pub fn run(open: Open<'_>) {
    run_settled(&|clock| (open(clock), Box::new(|| false)));
}

/// Runs the whole suite over a limiter that works in the background.
pub fn run_settled(open: OpenSettled<'_>) {
    bursts_then_waits_exactly(open);
    never_exceeds_any_span(open);
    greedy_use_reaches_the_rate(open);
    keys_and_scopes_are_independent(open);
    layers_all_hold(open);
    holds_are_kept(open);
    sweeping_changes_nothing(open);
    threads_share_one_budget(open);
    an_empty_list_goes(open);
}

/// A fresh limiter and its clock.
struct Bench {
    clock: Arc<ManualClock>,
    limit: Arc<dyn Limit>,
    settle: Settle,
}

impl Bench {
    fn new(open: OpenSettled<'_>) -> Self {
        let clock = ManualClock::at(Timestamp::from_secs(1_795_168_800));
        let (limit, settle) = open(clock.clone());
        Self { clock, limit, settle }
    }

    /// What the limiter says when its backend has nothing to add.
    fn admit(&self, budgets: &[(BudgetKey, Budget)]) -> Admission {
        loop {
            let admission = self.limit.admit(budgets);
            let is_news = (self.settle)();
            if admission == Admission::Go || !is_news {
                return admission;
            }
        }
    }

    fn hold(&self, key: BudgetKey, wait: Duration) {
        self.limit.hold(key, wait);
        (self.settle)();
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        (self.settle)();
    }

    fn sweep(&self) {
        self.limit.sweep();
        (self.settle)();
    }

    /// Advances by what the limiter says, until it admits; gives the total. The wait may be told in parts, but not for ever.
    fn wait_until_admitted(&self, budgets: &[(BudgetKey, Budget)]) -> Duration {
        const MOST_PARTS: usize = 10;
        let mut waited = Duration::ZERO;
        for _ in 0..MOST_PARTS {
            match self.admit(budgets) {
                Admission::Go => return waited,
                Admission::Wait { wait, .. } => {
                    assert!(wait > Duration::ZERO, "a wait of nothing is a busy loop");
                    self.advance(wait);
                    waited += wait;
                }
            }
        }
        panic!("still not admitted after {waited:?}");
    }
}

fn layer(scope: BudgetScope, owner: u8, rate_per_second: f64, burst: u32) -> (BudgetKey, Budget) {
    (BudgetKey { scope, owner: [owner; 16] }, Budget { scope, rate_per_second, burst })
}

/// Rates and bursts as platforms have them.
const BUDGETS: &[(f64, u32)] =
    &[(80.0, 80), (80.0, 1), (1.0 / 6.0, 1), (1.0 / 6.0, 3), (1.0, 1), (30.0, 60), (1000.0, 2000), (0.3, 2), (7.0, 5)];

fn assert_close(actual: Duration, expected: Duration, what: &str) {
    assert!(actual.abs_diff(expected) <= EXACT_TO, "{what}: {actual:?}, expected {expected:?}");
}

fn bursts_then_waits_exactly(open: OpenSettled<'_>) {
    for (rate, burst) in BUDGETS.iter().copied() {
        let bench = Bench::new(open);
        let budget = [layer(BudgetScope::Account, 1, rate, burst)];
        for nth in 0..burst {
            assert_eq!(bench.admit(&budget), Admission::Go, "{rate}/s burst {burst}: unit {nth} of the burst");
        }
        let one = Duration::from_secs_f64(1.0 / rate);
        match bench.admit(&budget) {
            Admission::Go => panic!("{rate}/s burst {burst}: admitted beyond the burst"),
            Admission::Wait { wait, scope } => {
                assert_eq!(scope, BudgetScope::Account);
                assert_close(wait, one, "the wait after a burst");
            }
        }
        let half = one / 2;
        bench.advance(half);
        assert_close(bench.wait_until_admitted(&budget), one - half, "the rest of the wait");
        for _ in 0..5 {
            assert_close(bench.wait_until_admitted(&budget), one, "the steady wait");
        }
    }
}

/// A small generator, so that the histories are the same every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

fn never_exceeds_any_span(open: OpenSettled<'_>) {
    const TRIES: usize = 600;
    for (seed, (rate, burst)) in BUDGETS.iter().copied().enumerate() {
        let bench = Bench::new(open);
        let mut draw = Draw(seed as u64 + 1);
        let budget = [layer(BudgetScope::Pair, 1, rate, burst)];
        let mut admitted = Vec::new();
        let gap_us = (1e6 / rate) as u64;
        for _ in 0..TRIES {
            // Mostly too fast, now and then a pause that fills the bucket again.
            let pause = if draw.below(40) == 0 { gap_us * u64::from(burst) * 2 } else { draw.below(gap_us + 1) };
            bench.advance(Duration::from_micros(pause));
            if bench.admit(&budget) == Admission::Go {
                admitted.push(bench.clock.monotonic());
            }
        }
        assert!(admitted.len() > 50, "{rate}/s burst {burst}: the history says something");
        for (i, from) in admitted.iter().enumerate() {
            for (j, to) in admitted.iter().enumerate().skip(i) {
                let count = (j - i + 1) as f64;
                let most = f64::from(burst) + rate * (*to - *from).as_secs_f64() + UNIT_SLACK * rate.max(1.0);
                assert!(count <= most, "{rate}/s burst {burst}: {count} admissions in {:?}", *to - *from);
            }
        }
    }
}

fn greedy_use_reaches_the_rate(open: OpenSettled<'_>) {
    const UNITS: u32 = 500;
    for (rate, burst) in BUDGETS.iter().copied() {
        let bench = Bench::new(open);
        let budget = [layer(BudgetScope::Endpoint, 1, rate, burst)];
        let mut waited = Duration::ZERO;
        for _ in 0..UNITS + burst {
            waited += bench.wait_until_admitted(&budget);
        }
        let least = Duration::from_secs_f64(f64::from(UNITS) / rate);
        assert!(waited + EXACT_TO >= least, "{rate}/s burst {burst}: {waited:?} is too fast for {UNITS}");
        let most = least + EXACT_TO * UNITS;
        assert!(waited <= most, "{rate}/s burst {burst}: {waited:?} is too slow for {UNITS}");
    }
}

fn keys_and_scopes_are_independent(open: OpenSettled<'_>) {
    let bench = Bench::new(open);
    for scope in BudgetScope::ALL.iter().copied() {
        for owner in 0..50 {
            assert_eq!(bench.admit(&[layer(scope, owner, 1.0, 1)]), Admission::Go, "{scope:?} {owner}");
        }
    }
    for scope in BudgetScope::ALL.iter().copied() {
        for owner in 0..50 {
            assert_ne!(bench.admit(&[layer(scope, owner, 1.0, 1)]), Admission::Go, "{scope:?} {owner}");
        }
    }
}

fn layers_all_hold(open: OpenSettled<'_>) {
    let bench = Bench::new(open);
    let account = layer(BudgetScope::Account, 1, 10.0, 2);
    let pair = |owner| layer(BudgetScope::Pair, owner, 0.5, 1);
    assert_eq!(bench.admit(&[pair(1), account]), Admission::Go);
    match bench.admit(&[pair(1), account]) {
        Admission::Wait { wait, scope: BudgetScope::Pair } => assert_close(wait, Duration::from_secs(2), "the pair's wait"),
        other => panic!("the narrow budget does not hold: {other:?}"),
    }
    assert_eq!(bench.admit(&[pair(2), account]), Admission::Go, "the refusal used nothing of the wide budget");
    match bench.admit(&[pair(3), account]) {
        Admission::Wait { wait, scope: BudgetScope::Account } => assert_close(wait, Duration::from_millis(100), "the account's wait"),
        other => panic!("the wide budget does not hold: {other:?}"),
    }
}

fn holds_are_kept(open: OpenSettled<'_>) {
    let bench = Bench::new(open);
    let budget = [layer(BudgetScope::Account, 1, 100.0, 10)];
    let hold = Duration::from_secs(30);
    bench.hold(budget[0].0, hold);
    match bench.admit(&budget) {
        Admission::Wait { wait, scope } => {
            assert_eq!(scope, BudgetScope::Account);
            assert_close(wait, hold, "the hold of a key that was not used before");
        }
        Admission::Go => panic!("admitted while held"),
    }
    assert_eq!(bench.admit(&[layer(BudgetScope::Account, 2, 100.0, 10)]), Admission::Go, "another key is not held");

    bench.hold(budget[0].0, Duration::from_secs(5));
    bench.advance(Duration::from_secs(10));
    bench.sweep();
    assert_ne!(bench.admit(&budget), Admission::Go, "neither a shorter hold nor a sweep ends a longer one");
    bench.advance(Duration::from_secs(20) - Duration::from_micros(10));
    assert_ne!(bench.admit(&budget), Admission::Go, "held to the end");
    bench.advance(Duration::from_micros(10));
    for _ in 0..10 {
        assert_eq!(bench.admit(&budget), Admission::Go, "the burst is there after the hold");
    }
    assert_ne!(bench.admit(&budget), Admission::Go, "and the budget too");
    bench.hold(budget[0].0, Duration::ZERO);
    bench.advance(Duration::from_millis(10));
    assert_eq!(bench.admit(&budget), Admission::Go, "a hold of nothing holds nothing");
}

fn sweeping_changes_nothing(open: OpenSettled<'_>) {
    for (rate, burst) in BUDGETS.iter().copied() {
        let (swept, kept) = (Bench::new(open), Bench::new(open));
        let budget = [layer(BudgetScope::Pair, 1, rate, burst)];
        let mut draw = Draw(burst.into());
        let most_us = (2e6 / rate) as u64;
        for _ in 0..300 {
            let pause = Duration::from_micros(draw.below(most_us));
            for bench in [&swept, &kept] {
                bench.advance(pause);
            }
            swept.sweep();
            assert_eq!(swept.admit(&budget), kept.admit(&budget), "{rate}/s burst {burst}");
        }
    }
}

fn threads_share_one_budget(open: OpenSettled<'_>) {
    const THREADS: usize = 4;
    const BURST: u32 = 1_000;
    let bench = Bench::new(open);
    let budgets = [layer(BudgetScope::Pair, 1, 1.0, BURST), layer(BudgetScope::Account, 1, 1.0, BURST)];
    let together: usize = std::thread::scope(|scope| {
        let work = || (0..BURST).filter(|_| bench.admit(&budgets) == Admission::Go).count();
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread of the check")).sum()
    });
    // A thread may have been refused while another one's unit was on its way; now nothing is.
    let admitted = together + (0..BURST).filter(|_| bench.admit(&budgets) == Admission::Go).count();
    assert_eq!(admitted, BURST as usize, "the clock stands still, so the burst is all there is");
}

fn an_empty_list_goes(open: OpenSettled<'_>) {
    let bench = Bench::new(open);
    assert_eq!(bench.admit(&[]), Admission::Go);
    assert!(!bench.limit.degraded());
}
