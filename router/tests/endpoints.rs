//! Several endpoints of one tenant, of which some are in trouble: the others feel nothing of it.

mod rig;

use std::collections::BTreeSet;
use std::time::Duration;

use messaging::directory::EndpointState;
use messaging::ids::EndpointId;
use rig::{Answer, Rig, Server};

/// D1: what one endpoint has waiting is let go of at once, while the next endpoint's task of the same event has no place yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_in_trouble_stop_nobody() {
    let hangs = Server::start(|_| String::new()).await;
    hangs.hold(0);
    let troubles = [
        ("closed port", "http://127.0.0.1:9/hook".to_owned(), EndpointState::Active),
        ("paused", "http://127.0.0.1:9/hook".to_owned(), EndpointState::Paused),
        ("disabled", "http://127.0.0.1:9/hook".to_owned(), EndpointState::Disabled),
        ("hangs", format!("{}/hook", hangs.url), EndpointState::Active),
    ];
    for (trouble, url, state) in troubles {
        let rig = Rig::start().await;
        // One before the healthy endpoint, one behind it.
        for id in [1, 9] {
            rig.add_endpoint(EndpointId([id; 16]), url.clone(), state).await;
        }
        for n in 0..6 {
            rig.customer_writes("16505551234", "to all", n).await;
            rig.inbox.wait_for_kind("message.received", n as usize + 1).await;
        }
        let rig = rig.die_and_restart().await;
        rig.customer_writes("16505551234", "after a restart", 6).await;
        let sequences: BTreeSet<_> =
            rig.inbox.wait_for_body("after a restart").await.into_iter().map(|delivery| delivery.sequence).collect();
        assert_eq!(sequences, (1..=8).collect(), "{trouble}: all of the healthy endpoint's, without a gap");
        rig.stop().await;
    }
}

/// D64: what a healthy endpoint got is not repeated because another is slow: not when the router is told to stop, and not after a crash, for what
/// was under way for long by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_endpoint_makes_nothing_repeat_at_a_healthy_one() {
    const EVENTS: usize = 600;
    for crashes in [false, true] {
        let hangs = Server::start(|_| String::new()).await;
        hangs.hold(0);
        let rig = Rig::start().await;
        rig.add_endpoint(EndpointId([1; 16]), format!("{}/hook", hangs.url), EndpointState::Active).await;
        for n in 0..EVENTS {
            rig.customer_writes(&format!("1650555{:04}", n % 20), "to both", n as u64).await;
        }
        rig.inbox.wait_for_kind("message.received", EVENTS).await;
        if crashes {
            rig.clock.advance(Duration::from_secs(6));
            rig.customer_writes("16505550000", "the shard looks", EVENTS as u64).await;
            rig.inbox.wait_for_body("the shard looks").await;
            rig.quiet().await;
        }
        let rig = if crashes { rig.die_and_restart().await } else { rig.stop_and_restart().await };
        rig.customer_writes("16505550000", "after it", EVENTS as u64 + 1).await;
        let all = rig.inbox.wait_for_body("after it").await;
        let repeated = all.iter().filter(|delivery| delivery.attempt > 1).count();
        assert_eq!(repeated, 0, "crashes: {crashes}, of {}", all.len());
        // Nothing of the slow one's is lost.
        hangs.open();
        let wanted = EVENTS + 1 + usize::from(crashes);
        rig.until(|_| hangs.of_kind("message.received").into_iter().map(|delivery| delivery.id).collect::<BTreeSet<_>>().len() == wanted)
            .await;
        rig.stop().await;
    }
}

/// An event about an endpoint has its number in the conversation that found it out. Whoever takes the shard over delivers it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoints_event_keeps_its_place_after_a_crash() {
    let well = Server::start(|_| String::new()).await;
    let rig = Rig::start().await;
    rig.add_endpoint(EndpointId([9; 16]), format!("{}/hook", well.url), EndpointState::Active).await;
    rig.customer_writes("16505551234", "one", 0).await;
    rig.inbox.wait_for_kind("message.received", 1).await;
    well.wait_for_kind("message.received", 1).await;
    well.hold(0);
    rig.inbox.answer_next(Answer::Status(410));
    rig.customer_writes("16505551234", "two", 1).await;
    rig.until(|rig| rig.endpoint_disabled()).await;
    rig.quiet().await;
    let rig = rig.die_and_restart().await;
    well.open();
    well.wait_for_kind("endpoint.disabled", 1).await;
    rig.customer_writes("16505551234", "three", 2).await;
    well.wait_for_body("three").await;
    let all = well.all();
    let conversations: BTreeSet<&String> = all.iter().map(|delivery| &delivery.conversation).collect();
    let numbers: BTreeSet<u64> = all.iter().map(|delivery| delivery.sequence).collect();
    assert_eq!(
        (conversations.len(), numbers),
        (1, (1..=5).collect()),
        "{:?}",
        all.iter().map(|delivery| &delivery.kind).collect::<Vec<_>>()
    );
    rig.stop().await;
}
