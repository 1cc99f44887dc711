//! What an admission costs, metered here and leased. Figures, no assertions of them: `--ignored --nocapture`, optimised.

use std::sync::Arc;
use std::time::{Duration, Instant};

use messaging::clock::SystemClock;
use messaging::limit::redis::{RedisSettings, TimeSource};
use messaging::limit::{Admission, Budget, BudgetKey, BudgetScope, Limit, open_local};

use super::support::*;

const CALLS: u32 = 2_000_000;

fn measure(what: &str, limit: &dyn Limit, keys: u32, rate: f64) {
    let budget = Budget { scope: BudgetScope::Account, rate_per_second: rate, burst: rate.min(4e9) as u32 };
    let key = |owner: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&owner.to_le_bytes());
        BudgetKey { scope: BudgetScope::Account, owner: bytes }
    };
    let run = |calls: u32| {
        let start = Instant::now();
        let gone = (0..calls).filter(|call| limit.admit(&[(key(call % keys), budget)]) == Admission::Go).count();
        (start.elapsed().as_nanos() as f64 / f64::from(calls), gone as f64 / f64::from(calls))
    };
    run(CALLS / 10);
    std::thread::sleep(Duration::from_millis(200));
    let (nanos, gone) = run(CALLS);
    println!("{what:24} {keys:6} keys: {nanos:6.0} ns an admission, {:.1} % went", gone * 100.0);
}

#[test]
#[ignore = "measures"]
fn what_an_admission_costs() {
    let runtime = runtime();
    let clock = || Arc::new(SystemClock::default());
    let settings = RedisSettings { time: TimeSource::Server, ..settings(&shared_redis()) };
    let own = RedisSettings { own: vec![BudgetScope::Account], ..settings.clone() };
    for (keys, rate) in [(100, 1e5), (10_000, 2e3), (100_000, 2e3)] {
        measure("local", &*open_local(clock()), keys, rate);
        measure("redis, own scope", &*runtime.block_on(open(own.clone(), clock())), keys, rate);
        measure("redis, leased", &*runtime.block_on(open(settings.clone(), clock())), keys, rate);
    }
}
