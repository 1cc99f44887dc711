//! The contract, in one process and between several.

use std::time::{Duration, Instant};

use messaging::clock::{Clock, SystemClock};
use messaging::limit::conformance;
use messaging::limit::redis::{RedisSettings, TimeSource};
use messaging::limit::{Admission, BudgetScope, Limit};

use super::support::*;

#[test]
fn keeps_the_contract() {
    let runtime = runtime();
    let address = shared_redis();
    conformance::run_settled(&|clock| {
        let limit = runtime.block_on(open(settings(&address), clock));
        (limit.clone(), settle(limit))
    });
}

/// Rates and bursts as platforms have them.
const BUDGETS: &[(f64, u32)] =
    &[(80.0, 80), (80.0, 1), (80.0, 2), (80.0, 6), (1.0 / 6.0, 1), (1.0 / 6.0, 3), (1.0, 1), (30.0, 60), (500.0, 1000), (7.0, 5)];

/// A small generator, so that the histories are the same every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }
}

/// Panics when some span holds more than `burst + rate * span`. Times are seconds, in order.
fn assert_no_span_exceeds(admitted: &[f64], rate: f64, burst: u32, slack: f64, what: &str) {
    // The most beyond the rate that was begun with at any moment so far: `i - rate * t_i` at its least.
    let mut least = f64::INFINITY;
    for (i, at) in admitted.iter().enumerate() {
        least = least.min(i as f64 - rate * at);
        let excess = (i + 1) as f64 - rate * at - least;
        assert!(excess <= f64::from(burst) + slack, "{what}: {rate}/s burst {burst}: {excess} at once, at the {i}th");
    }
}

#[test]
fn the_span_rule_sees_what_it_looks_for() {
    assert_no_span_exceeds(&[0.0, 0.0, 1.0, 2.0], 1.0, 2, 1e-6, "exact");
    let too_much = std::panic::catch_unwind(|| assert_no_span_exceeds(&[0.0, 0.0, 1.0, 1.9], 1.0, 2, 1e-6, "early"));
    assert!(too_much.is_err());
}

/// Two processes that both want all they can get: together they get the whole budget and not more, and each gets a good part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_one_budget() {
    let address = shared_redis();
    for (rate, burst) in BUDGETS.iter().copied() {
        let clock = clock();
        let settings = RedisSettings { nodes_hint: 2, ..settings(&address) };
        let processes = [Process::open(settings.clone(), clock.clone()).await, Process::open(settings, clock.clone()).await];
        let budget = account(1, rate, burst);
        // Finer than what is left of a unit's place when a process tells that it used it.
        let step = Duration::from_secs_f64((0.1 / rate).clamp(0.0005, 0.1));
        let (mut admitted, mut of) = (Vec::new(), [0_u32; 2]);
        let start = clock.monotonic();
        let mut draw = Draw(burst.into());
        // Long against what one process may hold.
        let units = ((rate * 2.0) as u32).max(150);
        let length = Duration::from_secs_f64(f64::from(units) / rate);
        while clock.monotonic() - start < length {
            let first = draw.below(2) as usize;
            for which in [first, 1 - first] {
                while processes[which].goes(budget) {
                    admitted.push(clock.monotonic().as_secs_f64());
                    // The first burst goes to who comes first.
                    of[which] += u32::from(admitted.len() > burst as usize);
                }
            }
            clock.advance(step);
            processes[0].settle();
            processes[1].settle();
        }
        assert_no_span_exceeds(&admitted, rate, burst, 1e-4, "two processes");
        let all = of[0] + of[1];
        println!("{rate:.3}/s burst {burst}: {of:?} of {units} after the burst");
        // What a step is late is lost where nothing may be saved up.
        assert!(f64::from(all) >= f64::from(units) * 0.8, "{rate}/s burst {burst}: {of:?} of {units}");
        assert!(of.iter().all(|of| f64::from(*of) >= f64::from(all) * 0.25), "{rate}/s burst {burst}: {of:?} is not fair");
    }
}

/// Calls take a unit of one budget, are refused by another and give it back, while the first is reported: none is lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_back_is_not_lost() {
    const BURST: u32 = 2_000;
    let process = Process::open(settings(&shared_redis()), clock()).await;
    let (free, used_up) = (account(1, 1.0, BURST), account(2, 1.0, 1));
    assert!(process.goes(used_up));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let gone = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_ne!(process.limit.admit(&[free, used_up]), Admission::Go);
                }
            });
        }
        let gone = (0..BURST).filter(|_| process.limit.admit(&[free]) == Admission::Go || process.goes(free)).count();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        gone
    });
    let left = (0..BURST).take_while(|_| process.goes(free)).count();
    assert_eq!(gone + left, BURST as usize, "{gone} while others gave back, {left} after");
}

/// The clock moves and holds fall while calls are under way, processes come and go: the rule holds all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_span_exceeds_whatever_is_under_way() {
    let address = shared_redis();
    for (rate, burst) in BUDGETS.iter().copied() {
        let clock = clock();
        let settings = RedisSettings { nodes_hint: 4, ..settings(&address) };
        let mut processes = Vec::new();
        for _ in 0..3 {
            processes.push(open(settings.clone(), clock.clone()).await);
        }
        let budget = account(1, rate, burst);
        let mut draw = Draw(u64::from(burst) + 7);
        let mut admitted = Vec::new();
        let gap_us = (1e6 / rate) as u64;
        for round in 0..1_500 {
            let which = draw.below(3) as usize;
            if processes[which].admit(&[budget]) == Admission::Go {
                admitted.push(clock.monotonic().as_secs_f64());
            }
            match draw.below(8) {
                0 => clock.advance(Duration::from_micros(draw.below(gap_us * 2))),
                1 => clock.advance(Duration::from_micros(draw.below(gap_us / 4 + 1))),
                2 => tokio::time::sleep(Duration::from_micros(200)).await,
                3 if round % 50 == 0 => processes[which].sweep(),
                _ => tokio::task::yield_now().await,
            }
        }
        assert!(admitted.len() >= 20.min(burst as usize), "{rate}/s burst {burst}: the history says something: {}", admitted.len());
        assert_no_span_exceeds(&admitted, rate, burst, 1e-4, "under way");
    }
}

/// On the server's time, as in production.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_time_keeps_the_rule_too() {
    let address = shared_redis();
    let (rate, burst) = (300.0, 60);
    let settings = RedisSettings { time: TimeSource::Server, nodes_hint: 2, timeout: Duration::from_secs(2), ..settings(&address) };
    let mut tasks = tokio::task::JoinSet::new();
    let start = Instant::now();
    for _ in 0..2 {
        let settings = settings.clone();
        tasks.spawn(async move {
            let limit = open(settings, std::sync::Arc::new(SystemClock::default())).await;
            let mut admitted = Vec::new();
            while start.elapsed() < Duration::from_millis(1_500) {
                // After, not before: what counts is what had gone out by then.
                match limit.admit(&[account(1, rate, burst)]) {
                    Admission::Go => admitted.push(start.elapsed().as_secs_f64()),
                    Admission::Wait { wait, .. } => tokio::time::sleep(wait.min(Duration::from_millis(20))).await,
                }
            }
            admitted
        });
    }
    let both = tasks.join_all().await;
    assert!(both.iter().all(|admitted| admitted.len() > 30), "{:?}", both.iter().map(Vec::len).collect::<Vec<_>>());
    let mut admitted: Vec<f64> = both.into_iter().flatten().collect();
    admitted.sort_by(f64::total_cmp);
    // A thread may be stopped between the admission and the note of it: the first of a span looks later than it was.
    assert_no_span_exceeds(&admitted, rate, burst, rate * 0.05, "the server's time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_reaches_the_others() {
    let clock = clock();
    let settings = settings(&shared_redis());
    let one = Process::open(settings.clone(), clock.clone()).await;
    let other = Process::open(settings.clone(), clock.clone()).await;
    let budget = account(1, 1_000.0, 2_000);
    assert!(other.goes(budget), "it has units in hand");
    one.limit.hold(budget.0, Duration::from_secs(30));
    one.settle();
    clock.advance(Duration::from_millis(900));
    // What it has in hand is a small part; its next call tells it.
    let gone = other.count(budget, 2_000);
    assert!(gone <= 150, "{gone} went after the hold");
    let told = other.admit(&[budget]);
    let expected = Duration::from_millis(29_100);
    let Admission::Wait { wait, scope: BudgetScope::Account } = told else { panic!("the hold did not arrive: {told:?}") };
    assert!(wait.abs_diff(expected) <= Duration::from_micros(5), "{wait:?}");
    // One that comes later is told with its first call.
    let third = Process::open(settings, clock.clone()).await;
    let gone = third.count(budget, 2_000);
    assert!(gone <= 25, "{gone} of those that stand by");
    clock.advance(expected);
    assert!(other.goes(budget) && third.goes(budget), "the hold ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_scopes_are_not_asked_about() {
    let clock = clock();
    let settings = RedisSettings { own: vec![BudgetScope::Account], ..settings(&shared_redis()) };
    let (one, other) = (open(settings.clone(), clock.clone()).await, open(settings, clock).await);
    let budget = account(1, 1.0, 1);
    for limit in [one, other] {
        assert_eq!(limit.admit(&[budget]), Admission::Go);
        assert_ne!(limit.admit(&[budget]), Admission::Go);
        assert!(!limit.activity().is_open);
    }
}

/// What is in Redis names nobody, and goes by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_name_nobody_and_end() {
    let address = shared_redis();
    let settings = RedisSettings { time: TimeSource::Server, ..settings(&address) };
    let prefix = settings.prefix.clone();
    let process = Process::open(settings, std::sync::Arc::new(SystemClock::default())).await;
    process.admit(&[account(0xab, 1.0 / 6.0, 1)]);
    process.limit.hold(account(0xcd, 1.0, 1).0, Duration::from_secs(60));
    process.settle();
    let keys = call(&address, &["KEYS", &format!("{prefix}*")]);
    let redis::Value::Array(keys) = keys else { panic!("{keys:?}") };
    let mut names: Vec<String> = keys.into_iter().map(|key| redis::from_redis_value(key).unwrap()).collect();
    names.sort();
    let expected =
        [format!("{prefix}:account:{}", "ab".repeat(16)), format!("{prefix}:account:{}", "cd".repeat(16)), format!("{prefix}:look")];
    assert_eq!(names, expected);
    for (name, most) in names.iter().zip([8_500, 62_000, 3_000]) {
        let redis::Value::Int(left) = call(&address, &["PTTL", name]) else { panic!("no time to live") };
        assert!(left > 0 && left <= most, "{name} lives {left} ms");
    }
}
