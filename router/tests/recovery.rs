//! An endpoint that was away gets everything that waited for it, in order, soon after it is back, and nobody has to do anything.

mod rig;

use std::collections::HashMap;
use std::time::Duration;

use messaging::content::{Content, Text};
use messaging::directory::EndpointState;
use messaging::ids::EndpointId;
use rig::{Answer, Rig, Server};

/// Conversations that wait.
const CONVERSATIONS: u64 = 500;

/// Lets time pass in steps, as long as there is something to wait for.
async fn pass(rig: &Rig, most: Duration, done: impl Fn(&Rig) -> bool) -> Duration {
    let step = Duration::from_millis(250);
    let mut passed = Duration::ZERO;
    while passed < most && !done(rig) {
        rig.clock.advance(step);
        passed += step;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    passed
}

async fn after_an_outage_of(outage: Duration) {
    // As by default: deliveries are given up after days.
    let schedule = [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400].map(Duration::from_secs);
    let rig = Rig::start_scheduled(&schedule).await;
    // The younger ones feel nothing of it, one of them is in trouble too.
    let well = Server::start(|_| String::new()).await;
    rig.add_endpoint(EndpointId([8; 16]), format!("{}/hook", well.url), EndpointState::Active).await;
    rig.add_endpoint(EndpointId([9; 16]), "http://127.0.0.1:9/hook".to_owned(), EndpointState::Paused).await;
    rig.inbox.refuse_all(503);
    for person in 0..CONVERSATIONS {
        rig.customer_writes(&format!("1650{person:07}"), "first", person).await;
        rig.customer_writes(&format!("1650{person:07}"), "second", CONVERSATIONS + person).await;
    }
    rig.until(|rig| rig.log.finished(messaging::log::Topic::Inbound) as u64 == 2 * CONVERSATIONS).await;
    let all = 2 * CONVERSATIONS as usize;
    well.wait_for_kind("message.received", all).await;
    assert_eq!(rig.inbox.accepted_of("message.received"), 0, "the oldest is away all this time");
    // A long outage is passed in longer steps: what matters is how it ends.
    let fine = Duration::from_secs(60);
    if outage > fine {
        let mut left = outage - fine;
        while left > Duration::ZERO {
            let step = left.min(Duration::from_secs(60));
            rig.clock.advance(step);
            left -= step;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    pass(&rig, outage.min(fine), |_| false).await;
    rig.inbox.refuse_none();
    let before = rig.inbox.calls();
    let took = pass(&rig, Duration::from_secs(120), |rig| rig.inbox.accepted_of("message.received") >= all).await;
    let came = rig.inbox.accepted_of("message.received");
    assert_eq!(came, all, "all come, {took:?} after the endpoint was well");
    assert!(took <= Duration::from_secs(45), "the last came {took:?} after the endpoint was well");
    // In order of each conversation, each once.
    let mut texts: HashMap<String, Vec<String>> = HashMap::new();
    for delivery in rig.inbox.accepted().into_iter().filter(|delivery| delivery.kind == "message.received") {
        let text = delivery.body["data"]["message"]["text"]["body"].as_str().unwrap().to_owned();
        texts.entry(delivery.conversation).or_default().push(text);
    }
    assert!(texts.values().all(|texts| texts == &["first", "second"]), "in order, each once");
    assert!(before < 4000, "{before} calls to an endpoint that refused");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_seconds() {
    after_an_outage_of(Duration::from_secs(7)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes() {
    after_an_outage_of(Duration::from_secs(600)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hours() {
    after_an_outage_of(Duration::from_secs(3 * 3600)).await;
}

/// Deliveries that failed before the endpoint counted as failing stand in their own schedule, here for an hour. They go with the others
/// when it is well.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_schedule_when_the_endpoint_is_well() {
    let rig = Rig::start_scheduled(&[0, 3_600, 7_200].map(Duration::from_secs)).await;
    rig.add_endpoint(EndpointId([9; 16]), "http://127.0.0.1:9/hook".to_owned(), EndpointState::Paused).await;
    rig.inbox.refuse_all(503);
    for person in 0..3 {
        rig.customer_writes(&format!("1650{person:07}"), "hello", person).await;
    }
    rig.until(|rig| rig.inbox.calls() >= 3).await;
    rig.inbox.refuse_none();
    let took = pass(&rig, Duration::from_secs(120), |rig| rig.inbox.accepted_of("message.received") >= 3).await;
    assert_eq!(rig.inbox.accepted_of("message.received"), 3, "all come, {took:?} after the endpoint was well");
    assert!(took <= Duration::from_secs(45), "the last came {took:?} after the endpoint was well");
    rig.stop().await;
}

/// What an endpoint was to get and did not costs its number, and the next delivery says so: the event that was answered 410, what came
/// while the endpoint was disabled, what a restriction held.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_delivered_is_a_gap() {
    let rig = Rig::start().await;
    let phone = "16505551234";
    rig.customer_writes(phone, "one", 0).await;
    let first = rig.inbox.wait_for_kind("message.received", 1).await.pop().unwrap();
    rig.inbox.answer_next(Answer::Status(410));
    rig.customer_writes(phone, "gone", 1).await;
    rig.until(Rig::endpoint_disabled).await;
    rig.customer_writes(phone, "while it is disabled", 2).await;
    rig.until(|rig| rig.log.finished(messaging::log::Topic::Inbound) == 3).await;
    rig.resume_endpoint().await;
    rig.customer_writes(phone, "back", 3).await;
    let back = rig.inbox.wait_for_body("back").await.into_iter().find(|delivery| delivery.raw.contains("back")).unwrap();
    assert_eq!(back.headers.get("trunkline-gap").map(String::as_str), Some("2"), "two are missing");
    assert_eq!(back.sequence, first.sequence + 3, "and cost their numbers");
    rig.stop().await;
}

/// D67: after a pause that the platform called for, one send is tried; when it is taken the others follow, ramped.
#[tokio::test(flavor = "multi_thread")]
async fn an_accounts_pause_ends_with_one_probe_and_a_ramp() {
    const PEOPLE: u64 = 200;
    let rig = Rig::start().await;
    for person in 0..PEOPLE {
        rig.customer_writes(&format!("1650{person:07}"), "hello", person).await;
    }
    rig.inbox.wait_for_kind("message.received", PEOPLE as usize).await;
    rig.platform.refuse_all(429);
    for person in 0..PEOPLE {
        rig.send(&format!("1650{person:07}"), Content::Text(Text { body: "an answer".into(), preview_url: None })).await;
    }
    rig.until(|rig| rig.platform.calls() > 0).await;
    rig.quiet().await;
    let at_once = rig.platform.calls();
    pass(&rig, Duration::from_secs(60), |_| false).await;
    let probes = rig.platform.calls() - at_once;
    assert!((2..=20).contains(&probes), "{probes} calls in a minute of refusals, {at_once} before the first was answered");
    rig.platform.refuse_none();
    let (mut before, mut most) = (rig.platform.calls(), 0);
    for _ in 0..60 {
        pass(&rig, Duration::from_secs(1), |_| false).await;
        let now = rig.platform.calls();
        most = most.max(now - before);
        before = now;
    }
    assert_eq!(rig.platform.accepted_calls(), PEOPLE as usize, "all are taken");
    assert!(most < PEOPLE as usize / 2, "{most} within a second");
    rig.stop().await;
}
