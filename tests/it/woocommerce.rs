//! WooCommerce over the real binary: webhooks, and what a pull finds when they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bench::inbox::Received;
use bench::platform::SimOptions;
use bench::platform::woocommerce::{CONSUMER_SECRET, SOURCE, WoocommerceSim};
use serde_json::json;
use system_tests::{PATIENCE, System, body};

const MINUTE: Duration = Duration::from_secs(60);

/// A simulated shop, connected with keys.
async fn connect(system: &System) -> (WoocommerceSim, String) {
    let clock: messaging::clock::SharedClock = system.clock.clone();
    let options = SimOptions { clock, ..SimOptions::default() };
    let (key, secret) = (options.credential.clone(), options.secret.clone());
    let sim = WoocommerceSim::start(options).await.expect("a simulator starts");
    let account = json!({"channel": "woocommerce", "name": "shop", "api_base": sim.url(), "source": SOURCE, "webhook_secret": secret,
        "consumer_key": key, "consumer_secret": CONSUMER_SECRET});
    let made = system.ok("POST", "/v1/accounts", &account).await;
    let account = made["id"].as_str().expect("an account has an id").to_owned();
    sim.set_hook(&system.hook("woocommerce", &account));
    // The first pull: what it finds was not missed.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while sim.asked() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "the shop is not pulled");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (sim, account)
}

/// The numbers of the orders whose making was told, by the events' ids: a delivery may be made twice, an event not.
fn made(system: &System) -> BTreeMap<String, u64> {
    let all = system.inbox.received();
    let told = all.iter().map(body).filter(|event| event["type"] == "order.created");
    told.filter_map(|event| Some((event["id"].to_string(), event["data"]["order"]["id"].as_u64()?))).collect()
}

async fn until_made(system: &System, id: u64) {
    system.event("order.created", |event| event["data"]["order"]["id"] == id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disabled_webhook_does_not_tell_comes_by_pull_and_nothing_twice() {
    let mut system = System::start().await;
    let (shop, account) = connect(&system).await;
    let (first, posted) = shop.customer_orders("by webhook").await;
    assert!(posted.accepted, "{posted:?}");
    until_made(&system, first).await;
    // The hook's address is wrong for a while: five refusals, and the webhook is disabled.
    let hook = system.hook("woocommerce", &account);
    shop.set_hook(&format!("{hook}x"));
    let mut missed = Vec::new();
    while shop.is_enabled() {
        missed.push(shop.customer_orders("nobody hears").await.0);
    }
    shop.set_hook(&hook);
    missed.push(shop.customer_orders("nor this").await.0);
    assert_eq!(shop.untold(), 1);
    system.advance(16 * MINUTE).await;
    for id in &missed {
        until_made(&system, *id).await;
    }
    let told = system.event("platform.event", |event| event["data"]["kind"] == "orders_not_told").await;
    let told = body(&told);
    assert_eq!((&told["data"]["account"], &told["data"]["raw"]["orders"]), (&json!(account), &json!(missed.len())));
    // Pulls overlap, also those of the next process; the webhook that is enabled again tells some once more.
    shop.enable();
    let (last, posted) = shop.customer_orders("heard again").await;
    assert!(posted.accepted, "{posted:?}");
    until_made(&system, last).await;
    system.process.kill();
    system.restart().await;
    shop.set_hook(&system.hook("woocommerce", &account));
    let binned = missed[0];
    shop.bin_order(binned).await;
    // The clock of a new process begins at the machine's time.
    for _ in 0..3 {
        system.advance(16 * MINUTE).await;
        let (id, _) = shop.customer_orders("in between").await;
        until_made(&system, id).await;
    }
    system.event("order.deleted", |event| event["data"]["order"]["id"] == binned).await;
    let all = made(&system);
    let orders: BTreeSet<u64> = all.values().copied().collect();
    assert_eq!((all.len(), orders.len()), (1 + missed.len() + 1 + 3, all.len()), "each order was made once: {all:?}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_may_not_read_orders_are_told_once() {
    let system = System::start().await;
    let (shop, account) = connect(&system).await;
    let set = async |secret: &str| {
        system.ok("PATCH", &format!("/v1/accounts/{account}"), &json!({ "consumer_secret": secret })).await;
    };
    set("cs_another").await;
    shop.set_hook(&format!("{}x", system.hook("woocommerce", &account)));
    let (missed, _) = shop.customer_orders("nobody hears").await;
    let is_told = |received: &Received| body(received)["type"] == "account.state_changed";
    let mut told = None;
    for _ in 0..20 {
        // The pull that is due first may still have the old keys.
        system.advance(16 * MINUTE).await;
        told = system.inbox.wait_for(Duration::from_secs(2), is_told).await;
        if told.is_some() {
            break;
        }
    }
    let told = body(&told.expect("it is told"));
    let change = &told["data"]["change"];
    assert_eq!(
        (&told["data"]["account"], &change["state"], &change["reason"]),
        (&json!(account), &json!("not_pulled"), &json!("pull")),
        "{change}"
    );
    // The right key again: the shop is pulled at once.
    set(CONSUMER_SECRET).await;
    until_made(&system, missed).await;
    assert_eq!(system.kinds().iter().filter(|kind| *kind == "account.state_changed").count(), 1);
    shop.stop().await;
}
