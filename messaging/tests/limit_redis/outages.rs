//! Redis killed, wiped, frozen, read only, absent: what limits do, and how they come back.

use std::time::Duration;

use messaging::limit::redis::{Degraded, RedisSettings};
use messaging::limit::{Admission, Limit};

use super::support::*;

const BURST: u32 = 40;

/// The clock stands still, so the burst is all there is.
fn budget() -> (messaging::limit::BudgetKey, messaging::limit::Budget) {
    account(1, 1.0, BURST)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_back_and_empty() {
    let mut server = Server::start(&[]);
    let clock = clock();
    let settings = RedisSettings { nodes_hint: 4, ..settings(&server.address()) };
    let process = Process::open(settings, clock.clone()).await;
    assert!(!process.limit.degraded());
    assert_eq!(process.count(budget(), 5), 5);

    server.kill();
    eventually("it is noticed without traffic", || process.limit.degraded()).await;
    let share = BURST as usize / 4;
    let fresh = account(2, 1.0, BURST);
    assert_eq!(process.count(fresh, 200), share, "the share of one of four");
    let Admission::Wait { wait, .. } = process.admit(&[fresh]) else { panic!("beyond the share") };
    assert!(wait.abs_diff(Duration::from_secs(4)) <= Duration::from_micros(5), "a quarter of the rate: {wait:?}");
    let rest = process.count(budget(), 200);
    assert!(rest <= share, "{rest}: what was used before stays used");

    server.again();
    eventually("it is back", || !process.limit.degraded()).await;
    let more = process.count(budget(), 200);
    // What stands by in the three others is theirs.
    assert_eq!(5 + rest + more, BURST as usize - 3, "an empty Redis grants no second burst to who was there");
    assert_eq!(share + process.count(fresh, 200), BURST as usize - 3, "nor what was admitted on the share");
    clock.advance(Duration::from_secs(2));
    assert_eq!(process.count(budget(), 200), 2, "leased as ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_at_first() {
    let mut server = Server::start(&[]);
    server.kill();
    let process = Process::open(RedisSettings { nodes_hint: 2, ..settings(&server.address()) }, clock()).await;
    assert!(process.limit.degraded());
    assert_eq!(process.count(budget(), 200), BURST as usize / 2);
    server.again();
    eventually("it is there", || !process.limit.degraded()).await;
    let rest = process.count(budget(), 200);
    assert_eq!(rest, BURST as usize / 2 - 1, "what was admitted before counts, and one unit stands by in the other process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuse_and_allow() {
    let mut server = Server::start(&[]);
    let settings = settings(&server.address());
    let clock = clock();
    let refuse = Process::open(RedisSettings { degraded: Degraded::Refuse, ..settings.clone() }, clock.clone()).await;
    let allow = Process::open(RedisSettings { degraded: Degraded::Allow, ..settings }, clock).await;
    allow.limit.hold(account(9, 1.0, 1).0, Duration::from_secs(60));
    server.kill();
    eventually("both notice", || refuse.limit.degraded() && allow.limit.degraded()).await;
    assert_eq!(refuse.count(budget(), 50), 0);
    assert_eq!(refuse.admit(&[]), Admission::Go, "no budget, nothing to refuse");
    assert_eq!(allow.count(account(1, 1.0, 1), 5_000), 5_000);
    assert_eq!(allow.count(account(9, 1.0, 1), 5), 0, "a hold is the platform's word and not a limit of ours");
    server.again();
    eventually("both are back", || !refuse.limit.degraded() && !allow.limit.degraded()).await;
    assert!(refuse.count(budget(), 200) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_told_again() {
    let server = Server::start(&[]);
    let process = Process::open(settings(&server.address()), clock()).await;
    assert_eq!(process.count(budget(), 5), 5);
    server.call(&["SCRIPT", "FLUSH"]);
    assert_eq!(process.count(budget(), 200), BURST as usize - 5);
    process.limit.hold(account(3, 1.0, 1).0, Duration::from_secs(5));
    server.call(&["SCRIPT", "FLUSH"]);
    process.limit.hold(account(3, 1.0, 1).0, Duration::from_secs(50));
    process.settle();
    assert!(!process.limit.degraded());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_in_the_middle() {
    let server = Server::start(&[]);
    let process = Process::open(settings(&server.address()), clock()).await;
    assert_eq!(process.count(budget(), 30), 30);
    server.call(&["FLUSHALL"]);
    assert_eq!(process.count(budget(), 200), BURST as usize - 30, "who was there remembers the bucket");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_and_thawed() {
    let server = Server::start(&[]);
    let settings = RedisSettings { timeout: Duration::from_millis(100), nodes_hint: 2, ..settings(&server.address()) };
    let process = Process::open(settings, clock()).await;
    eventually("it is there", || !process.limit.degraded()).await;
    server.signal("STOP");
    eventually("silence is noticed", || process.limit.degraded()).await;
    assert_eq!(process.count(budget(), 200), BURST as usize / 2);
    server.signal("CONT");
    eventually("it is back", || !process.limit.degraded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_is_away() {
    let server = Server::start(&[]);
    let process = Process::open(settings(&server.address()), clock()).await;
    assert!(!process.limit.degraded());
    // A replica of nobody: it answers, and takes no writes.
    server.call(&["REPLICAOF", "127.0.0.1", "1"]);
    eventually("it is noticed", || process.limit.degraded()).await;
    server.call(&["REPLICAOF", "NO", "ONE"]);
    eventually("it is back", || !process.limit.degraded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_outlives_an_outage() {
    let mut server = Server::start(&[]);
    let settings = settings(&server.address());
    let clock = clock();
    let one = Process::open(settings.clone(), clock.clone()).await;
    let other = Process::open(settings, clock).await;
    server.kill();
    eventually("both notice", || one.limit.degraded() && other.limit.degraded()).await;
    let budget = account(1, 1.0, 2);
    one.limit.hold(budget.0, Duration::from_secs(60));
    assert!(!one.goes(budget), "held here though Redis is away");
    server.again();
    eventually("both are back", || !one.limit.degraded() && !other.limit.degraded()).await;
    one.settle();
    assert!(!other.goes(budget), "told when Redis was back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_work_are_refused() {
    use messaging::limit::redis::{LimitError, RedisTls};
    let good = settings("redis://127.0.0.1:1");
    let tls = RedisTls { root: Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()), client: None };
    let rows = [
        (RedisSettings { timeout: Duration::ZERO, ..good.clone() }, LimitError::Timeout),
        (RedisSettings { timeout: Duration::from_secs(60), ..good.clone() }, LimitError::Timeout),
        (RedisSettings { nodes_hint: 0, ..good.clone() }, LimitError::Nodes),
        (RedisSettings { prefix: String::new(), ..good.clone() }, LimitError::Prefix),
        (RedisSettings { prefix: "a b".to_owned(), ..good.clone() }, LimitError::Prefix),
        (RedisSettings { tls, ..good }, LimitError::Certificates),
    ];
    for (settings, expected) in rows {
        let error = messaging::limit::redis::open(settings, clock()).await.err();
        assert_eq!(error, Some(expected));
    }
}
