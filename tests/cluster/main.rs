//! Faults of an installation of several processes on the real servers. One test at a time: they stop servers that all share.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use system_tests::load::{Load, Spread, judge, pauses_ms, platforms, quantile, until_it_flows, until_the_backlog_is_gone};
use system_tests::servers::{Outage, Server, Servers};
use system_tests::world::World;
use system_tests::{Process, Setup, System, quick};
use tokio::sync::RwLock;

mod cuts;
mod three;

type Shared = Arc<RwLock<System>>;

/// One at a time, whatever `--test-threads` says.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn start(gateways: usize, routers: usize) -> Shared {
    start_with(gateways, routers, Setup::default()).await
}

/// The same on other servers, or in a network of its own.
async fn start_with(gateways: usize, routers: usize, setup: Setup) -> Shared {
    let config = "[channels.whatsapp]\nper_pair = \"1000/s\"\nper_number = \"1000/s\"\n".to_owned();
    let setup = Setup { world: World::crowded(), platforms: platforms(), config, split: Some((gateways, routers)), ..setup };
    let system = System::with(setup).await;
    Arc::new(RwLock::new(system))
}

/// Ends a member by SIGTERM, while the load goes on.
async fn stop(system: &Shared, name: &str) {
    let running = system.write().await.member(name).process.take();
    assert_eq!(running.expect("it runs").terminate().await, Some(0), "{name} stops well");
}

/// Starts a member again, while the load goes on.
async fn start_again(system: &Shared, name: &str) {
    let launch = system.write().await.member(name).launch();
    let process = Process::start(&launch).await;
    system.write().await.member(name).process = Some(process);
}

/// Ends the load, waits until the backlog is gone, and judges.
async fn finish(system: Shared, load: Load) {
    finish_after(system, load, &[]).await;
}

/// The same; says how long deliveries paused around these changes of members.
async fn finish_after(system: Shared, load: Load, changes_us: &[u64]) {
    let sends = load.finish().await;
    let system = Arc::into_inner(system).expect("the load is over").into_inner();
    // What waits for its schedule goes out now.
    for _ in 0..3 {
        system.advance(Duration::from_secs(20)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    judge(&system, sends).await;
    if !changes_us.is_empty() {
        let pauses = pauses_ms(&system, changes_us);
        let of = |share| quantile(&pauses, share);
        println!(
            "pauses of {} conversations around changes of members: p50 {} ms, p99 {} ms, longest {} ms",
            pauses.len(),
            of(0.5),
            of(0.99),
            of(1.0)
        );
    }
}

/// kill -9 of gateways and routers in turn, under load.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_turn() {
    let _turn = TURN.lock().await;
    let rounds = if quick() { 4 } else { 30 };
    let system = start(2, 2).await;
    let load = Load::start(&system, 11, Spread::EachCall).await;
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(700 + 211 * (round % 5))).await;
        let member = match round % 4 {
            0 => "router-1",
            1 => {
                let mut system = system.write().await;
                system.process.kill();
                system.restart().await;
                continue;
            }
            2 => "router-2",
            _ => "gateway-2",
        };
        system.write().await.member(member).kill();
        start_again(&system, member).await;
    }
    finish(system, load).await;
}

/// Routers come and go: 3, 1, 3, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn routers_come_and_go() {
    let _turn = TURN.lock().await;
    let (rounds, pause) = if quick() { (1, 5) } else { (3, 15) };
    let system = start(1, 3).await;
    let load = Load::start(&system, 12, Spread::EachCall).await;
    let mut changes_us = Vec::new();
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..rounds {
        for name in ["router-2", "router-3"] {
            changes_us.push(bench::monotonic_us());
            stop(&system, name).await;
        }
        tokio::time::sleep(Duration::from_secs(pause)).await;
        for name in ["router-2", "router-3"] {
            changes_us.push(bench::monotonic_us());
            start_again(&system, name).await;
        }
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
    finish_after(system, load, &changes_us).await;
}

/// A router that was paused past its lease and woken again does nothing that its successor may do.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_router_comes_too_late() {
    let _turn = TURN.lock().await;
    let rounds = if quick() { 1 } else { 3 };
    let system = start(1, 2).await;
    let load = Load::start(&system, 13, Spread::EachCall).await;
    for round in 0..rounds {
        let name = if round % 2 == 0 { "router-1" } else { "router-2" };
        tokio::time::sleep(Duration::from_secs(2)).await;
        system.write().await.member(name).running().signal("STOP");
        // Its session and its leases end; the other takes its shards over.
        tokio::time::sleep(Duration::from_secs(14)).await;
        system.write().await.member(name).running().signal("CONT");
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    finish(system, load).await;
}

/// A server goes away for a while under load, comes back, and the backlog goes.
async fn away(server: Server, run: u32, how: Outage) {
    let _turn = TURN.lock().await;
    let pause = if quick() { 12 } else { 60 };
    let system = start(2, 2).await;
    if server == Server::Cassandra {
        // What its driver says while no node answers.
        system.read().await.announced().errors(&["Error when fetching topology", "Could not establish control connection"]);
    }
    let load = Load::start(&system, run, if server == Server::Kafka { Spread::Pinned } else { Spread::EachCall }).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let servers = Servers::of_run();
    let away = servers.take_away(server, how).await;
    tokio::time::sleep(Duration::from_secs(pause)).await;
    away.end().await;
    let took = until_it_flows(&system, run).await;
    let gone = took + until_the_backlog_is_gone(&system).await;
    println!("{server:?} away for {pause} s: it flows again after {took:?}, the backlog is gone after {gone:?}");
    finish(system, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_away() {
    away(Server::Kafka, 14, Outage::Stop).await;
}

/// Kafka stands still for a moment, again and again: no send overtakes another, whichever gateway takes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_kafka_keeps_the_order() {
    let _turn = TURN.lock().await;
    let rounds = if quick() { 8 } else { 40 };
    let system = start(2, 1).await;
    let load = Load::start(&system, 18, Spread::EachCall).await;
    let servers = Servers::of_run();
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let away = servers.take_away(Server::Kafka, Outage::Pause).await;
        tokio::time::sleep(Duration::from_millis(400 + 100 * (round % 4))).await;
        away.end().await;
    }
    finish(system, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_killed() {
    away(Server::Kafka, 15, Outage::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cassandra_away() {
    away(Server::Cassandra, 16, Outage::Stop).await;
}

/// Redis is killed, and comes back with nothing in it.
#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_and_wiped() {
    away(Server::Redis, 17, Outage::Kill).await;
}

/// Changes of the directory reach every process within two seconds, and a gateway starts while the store is away.
#[tokio::test(flavor = "multi_thread")]
async fn the_directory_reaches_everyone() {
    let _turn = TURN.lock().await;
    let system = start(2, 1).await;
    // A gateway starts while the store is away: what its driver says then.
    system.read().await.announced().errors(&["Error when fetching topology", "Could not establish control connection"]);
    let mut system = Arc::into_inner(system).expect("nobody else has it").into_inner();
    let url = format!("{}/second", system.inbox.url());
    let made = system.ok("POST", "/v1/endpoints", &json!({"name": "second", "url": url, "events": ["*"]})).await;
    let path = format!("/v1/endpoints/{}", made["id"].as_str().expect("an id"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Calls go to the gateways in turn.
    for _ in 0..4 {
        assert_eq!(system.get(&path).await["name"], "second");
    }
    system.whatsapp.customer_writes("15550123", "for both").await;
    let found = system.inbox.wait_for(system_tests::PATIENCE, |received| received.path.ends_with("/second")).await;
    assert!(found.is_some(), "the router knows the new endpoint");

    let servers = Servers::of_run();
    let away = servers.take_away(Server::Cassandra, Outage::Stop).await;
    system.member("gateway-2").kill();
    system.member("gateway-2").start().await;
    let public = system.member("gateway-2").running().public;
    system.whatsapp.set_hook(&format!("http://{public}/hooks/whatsapp/{}", system.wa_account));
    system.whatsapp.customer_writes("15550123", "while the store is away").await;
    away.end().await;
    system.event("message.received", |event| event.to_string().contains("while the store is away")).await;
}
