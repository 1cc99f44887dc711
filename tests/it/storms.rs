//! Storms: any process dies, stops or stands still at any moment, in the crowded world, while sends are scheduled, cancelled and batched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::chance::Chance;
use bench::checker::{Answer, Operation};
use bench::mark::Mark;
use messaging::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use system_tests::load::{Load, Spread, judge, platforms, until_the_backlog_is_gone};
use system_tests::world::{Place, World};
use system_tests::{Setup, System};
use tokio::sync::RwLock;

/// How long a storm blows when nobody says so by `TRUNKLINE_STORM_SECONDS`.
const SECONDS: u64 = 30;
/// Decides the blows; `TRUNKLINE_STORM_SEED` gives another.
const SEED: u64 = 13;
/// Between two blows, milliseconds: from, and how much more at most.
const BETWEEN_MS: (u64, u64) = (3_000, 4_000);
/// How long a process that is stopped by SIGSTOP stands still, at most.
const STANDS_MS: u64 = 3_000;
/// The run of the storm's load.
const RUN: u32 = 41;
/// The first conversation of the sends that are scheduled, cancelled or batched: each has a conversation of its own.
const SUNDRY: u32 = 20_000;
/// How far ahead a send is scheduled.
const AHEAD: Duration = Duration::from_secs(2);
/// Sends of one batch.
const BATCH: u32 = 3;
const OWN: Place = Place { tenant: 0, account: 0 };

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_breaks_no_promise() {
    let (length, seed) = (Duration::from_secs(number("TRUNKLINE_STORM_SECONDS", SECONDS)), number("TRUNKLINE_STORM_SEED", SEED));
    println!("a storm of {length:?} with seed {seed}");
    let config = "[channels.whatsapp]\nper_pair = \"1000/s\"\nper_number = \"1000/s\"\n".to_owned();
    let system = System::with(Setup { platforms: platforms(), config, world: World::crowded(), ..Setup::default() }).await;
    let system = Arc::new(RwLock::new(system));
    let load = Load::start(&system, RUN, Spread::EachCall).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sundry = tokio::spawn(sundry(system.clone(), stop.clone()));
    let mut chance = Chance::new(seed);
    let ends = tokio::time::Instant::now() + length;
    while tokio::time::Instant::now() < ends {
        tokio::time::sleep(Duration::from_millis(BETWEEN_MS.0 + chance.below(BETWEEN_MS.1))).await;
        blow(&system, &mut chance).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut sends = load.finish().await;
    sends.extend(sundry.await.expect("the sundry sends do not panic"));
    let gone = until_the_backlog_is_gone(&system).await;
    println!("the backlog is gone after {gone:?}");
    let mut system = Arc::into_inner(system).expect("the load is over").into_inner();
    for _ in 0..3 {
        system.advance(Duration::from_secs(20)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    judge(&system, sends).await;
    assert_eq!(system.process.terminate().await, Some(0));
}

async fn blow(system: &RwLock<System>, chance: &mut Chance) {
    let mut system = system.write().await;
    match chance.below(3) {
        0 => {
            system.process.kill();
            system.restart().await;
        }
        1 => {
            assert_eq!(system.process.terminate().await, Some(0), "it stops well");
            system.restart().await;
        }
        _ => {
            system.process.signal("STOP");
            let stands = Duration::from_millis(chance.below(STANDS_MS));
            // Whoever calls meanwhile waits at the process, as they would.
            let system = system.downgrade();
            tokio::time::sleep(stands).await;
            system.process.signal("CONT");
        }
    }
}

/// Sends that are scheduled, cancelled or batched, each to a customer who has just written.
async fn sundry(system: Arc<RwLock<System>>, stop: Arc<AtomicBool>) -> Vec<Operation> {
    let mut sends = Vec::new();
    for customer in (SUNDRY..).step_by(BATCH as usize) {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        for one in customer..customer + BATCH {
            let system = system.read().await;
            let text = format!("{} {}", Mark::inbound(RUN, one, 1), system.canary_of(0));
            system.customer_says(OWN, one, &text).await;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        match (customer / BATCH) % 3 {
            0 => sends.extend(scheduled(&system, customer, false).await),
            1 => sends.extend(scheduled(&system, customer, true).await),
            _ => sends.extend(batched(&system, customer).await),
        }
    }
    sends
}

fn operation(mark: Mark, begun_us: u64, reply: &Value) -> Operation {
    let id = reply["id"].as_str().map(str::to_owned);
    let answer = if id.is_some() { Answer::Accepted } else { Answer::Refused };
    Operation { mark, begun_us, answered_us: bench::monotonic_us(), answer, id }
}

/// Sends until an answer says what became of it, under one idempotency key.
async fn posted(system: &RwLock<System>, path: &str, key: &str, body: &Value) -> Value {
    loop {
        let reply = {
            let system = system.read().await;
            system.try_call("POST", path, &[("idempotency-key", key)], &body.to_string()).await
        };
        if let Some(reply) = reply.filter(|reply| !matches!(reply.status, 409 | 503)) {
            return serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn scheduled(system: &RwLock<System>, customer: u32, and_cancelled: bool) -> Option<Operation> {
    let (mark, begun_us) = (Mark::outbound(RUN, customer, 1), bench::monotonic_us());
    let body = {
        let system = system.read().await;
        let mut body = system.send_to(OWN, customer, &mark.to_string());
        body["send_at"] = json!(Timestamp(system.clock.now().0 + AHEAD.as_micros() as u64));
        body
    };
    let made = operation(mark, begun_us, &posted(system, "/v1/messages", &mark.to_string(), &body).await);
    if let (true, Some(id)) = (and_cancelled, &made.id) {
        // Too late, or not heard: it is sent, which is as good. Its end says which.
        system.read().await.try_call("DELETE", &format!("/v1/messages/{id}"), &[], "").await;
    }
    Some(made)
}

async fn batched(system: &RwLock<System>, customer: u32) -> Vec<Operation> {
    let begun_us = bench::monotonic_us();
    let marks: Vec<Mark> = (customer..customer + BATCH).map(|one| Mark::outbound(RUN, one, 1)).collect();
    let items: Vec<Value> = {
        let system = system.read().await;
        marks.iter().map(|mark| system.send_to(OWN, mark.conversation, &mark.to_string())).collect()
    };
    let reply = posted(system, "/v1/messages/batch", &format!("batch-{customer}"), &json!(items)).await;
    marks.iter().enumerate().map(|(index, mark)| operation(*mark, begun_us, &reply["items"][index])).collect()
}
