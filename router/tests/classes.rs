//! Two classes of sends: an answer does not wait for a campaign, and what waits holds nothing up.

mod rig;

use std::time::Duration;

use messaging::content::{Content, Template, Text};
use messaging::outcome::Status;
use messaging::record::Class;
use rig::Rig;

/// What the account may send a second.
const RATE: usize = 80;
/// What may go at once.
const BURST: usize = RATE;

async fn campaign(rig: &Rig, people: usize) {
    for person in 0..people {
        let template = Template { name: "offer".into(), language: "en".into(), params: Vec::new(), components: None };
        rig.send_with(&format!("1555{person:07}"), Content::Template(template), |send| send.class = Class::Bulk).await;
    }
    // All of it was taken off the log, although next to nothing of it may go.
    rig.until(|rig| rig.platform.calls() + rig.outlook.ahead(rig.account, Class::Bulk).unwrap_or_default() as usize >= people).await;
}

fn answers(rig: &Rig) -> impl Iterator<Item = usize> {
    rig.platform.bodies().into_iter().enumerate().filter(|(_, body)| body.contains("an answer")).map(|(at, _)| at)
}

/// At 80 a second an account's burst is used up by a campaign, and the clock stands still, so that nothing more is let through. An answer
/// that comes then takes the next free unit, before the campaign's hundreds; and each unit is used.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_takes_the_next_free_unit() {
    let rig = Rig::start().await;
    rig.customer_writes("15550100", "hi", 1).await;
    rig.inbox.wait_for_kind("message.received", 1).await;
    campaign(&rig, 1_000).await;
    rig.until(|rig| rig.platform.calls() >= BURST).await;
    let answer = rig.send("15550100", Content::Text(Text { body: "an answer".into(), preview_url: None })).await;
    rig.until(|rig| rig.outlook.ahead(rig.account, Class::Interactive) == Some(1)).await;
    let before = rig.platform.calls();
    let steps = 100;
    for _ in 0..steps {
        rig.clock.advance(Duration::from_millis(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.until(|rig| answers(rig).next().is_some()).await;
    let place = answers(&rig).next().unwrap() - before;
    assert!(place < 8, "{place} of the campaign went before the answer");
    assert_eq!(rig.status_of(answer).await, Status::Sent);
    // Two seconds have passed.
    let most = before + 2 * RATE;
    rig.until(|rig| rig.platform.calls() * 100 >= most * 98).await;
    assert!(rig.platform.calls() <= most + 2, "{} calls where the rate allows {most}", rig.platform.calls());
    rig.stop().await;
}

/// A campaign that waits for its budget holds up neither what people write nor the log; and it is known how much of it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_holds_nothing_up() {
    let rig = Rig::start().await;
    campaign(&rig, 3_000).await;
    for person in 0..50 {
        rig.customer_writes(&format!("1666{person:07}"), "hello", person).await;
    }
    assert_eq!(rig.inbox.wait_for_kind("message.received", 50).await.len(), 50);
    let waits = |rig: &Rig| rig.outlook.ahead(rig.account, Class::Bulk).unwrap_or_default() as usize;
    rig.until(|rig| (3_000 - rig.platform.calls()).abs_diff(waits(rig)) < 20).await;
    let before = waits(&rig);
    assert_eq!(rig.outlook.ahead(rig.account, Class::Interactive), Some(0), "a campaign stands before no answer");
    let of_tenant = |rig: &Rig| rig.outlook.waiting_of(rig.tenant.id()).unwrap() as usize;
    assert!(of_tenant(&rig).abs_diff(before) < 20, "{} of the tenant wait", of_tenant(&rig));
    assert_eq!(rig.outlook.waiting_of(messaging::ids::TenantId([9; 16])), Some(0), "none of another's");
    // The next owner knows as well.
    let rig = rig.die_and_restart().await;
    rig.until(|rig| waits(rig).abs_diff(before) < 40 && of_tenant(rig).abs_diff(before) < 40).await;
    rig.stop().await;
}
