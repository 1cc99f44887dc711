//! A WooCommerce shop over the real binary: orders in, notes to customers out.

use std::time::Duration;

use bench::platform::woocommerce::{CONSUMER_SECRET, SOURCE, WoocommerceSim};
use bench::platform::{Answer, SimOptions};
use serde_json::{Value, json};
use system_tests::{System, body};

/// A simulated shop, connected.
async fn connect(system: &System, copies: u32) -> (WoocommerceSim, String) {
    let clock: messaging::clock::SharedClock = system.clock.clone();
    let options = SimOptions { clock, copies, ..SimOptions::default() };
    let SimOptions { credential, secret, .. } = options.clone();
    let sim = WoocommerceSim::start(options).await.expect("a simulator starts");
    let account = json!({"channel": "woocommerce", "name": "shop", "api_base": sim.url(), "source": SOURCE, "webhook_secret": secret,
        "consumer_key": credential, "consumer_secret": CONSUMER_SECRET});
    let made = system.ok("POST", "/v1/accounts", &account).await;
    let account = made["id"].as_str().expect("an account has an id").to_owned();
    let hook = system.hook("woocommerce", &account);
    sim.set_hook(&hook);
    assert_eq!(sim.ping(&hook).await, Some(200), "else the webhook cannot be switched on");
    (sim, account)
}

fn note(account: &str, order: u64, text: &str) -> Value {
    json!({"account": account, "to": {"order_id": order.to_string()}, "type": "text", "text": {"body": text}})
}

fn count(system: &System, kind: &str) -> usize {
    system.kinds().iter().filter(|one| *one == kind).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_come_in_each_change_once() {
    let system = System::start().await;
    let (sim, account) = connect(&system, 3).await;
    let (order, posted) = sim.customer_orders("Please ring twice").await;
    assert!(posted.accepted);
    let created = system.event("order.created", |e| e["data"]["account"] == account.as_str()).await;
    system.verify(&created);
    let told = body(&created);
    assert_eq!(told["data"]["contact"]["order_id"], order.to_string());
    assert_eq!(told["data"]["contact"]["name"], "Test Customer");
    assert!(told["data"].to_string().contains("Please ring twice"), "{told}");
    // The shop's times have whole seconds: a change within the same one is told apart by what it says.
    assert!(sim.change_order(order, "completed").await.accepted);
    let updated = system.event("order.updated", |e| e["data"].to_string().contains("completed")).await;
    system.verify(&updated);
    assert!(sim.bin_order(order).await.accepted);
    system.event("order.deleted", |_| true).await;
    assert!(sim.restore_order(order).await.accepted);
    system.event("order.restored", |_| true).await;
    let kinds = ["order.created", "order.updated", "order.deleted", "order.restored"];
    assert_eq!(kinds.map(|kind| count(&system, kind)), [1; 4], "every webhook came three times: {:?}", system.kinds());
    assert!(sim.is_enabled() && sim.untold() == 0);
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_are_refused() {
    let system = System::start().await;
    let (sim, account) = connect(&system, 1).await;
    let client = bench::http::Client::new(Duration::from_secs(5));
    let hook = system.hook("woocommerce", &account);
    let order = json!({"id": 9, "status": "processing"}).to_string();
    let (name, good) = sim.signature(order.as_bytes());
    let bent = if good.starts_with('A') { good.replacen('A', "B", 1) } else { format!("A{}", &good[1..]) };
    for (what, signature, body) in [
        ("no signature", None, order.clone()),
        ("another signature", Some(&bent), order.clone()),
        ("another order", Some(&good), order.replace('9', "8")),
    ] {
        let headers = [("x-wc-webhook-topic", "order.created"), (name, signature.map_or("", String::as_str))];
        let headers = if signature.is_some() { &headers[..] } else { &headers[..1] };
        let answer = client.post(&hook, headers, body).await.expect("an answer");
        assert_eq!(answer.status, 403, "{what}");
    }
    // A form that nobody signed switches a webhook on, and does nothing more.
    let posed = client.post(&hook, &[("x-wc-webhook-topic", "order.created")], "webhook_id=142").await.expect("an answer");
    assert_eq!(posed.status, 403);
    assert!(sim.customer_orders("genuine").await.1.accepted);
    system.event("order.created", |e| e["data"].to_string().contains("genuine")).await;
    assert_eq!(system.kinds(), ["order.created"]);
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_go_out_and_nothing_is_written_twice() {
    let system = System::start().await;
    let (sim, account) = connect(&system, 1).await;
    let (order, _) = sim.customer_orders("hi").await;
    system.event("order.created", |_| true).await;
    let id = system.send(note(&account, order, "on its way")).await;
    system.until_status(&id, "sent").await;
    system.event("message.sent", |e| e["data"]["message"]["id"] == id.as_str()).await;
    // Hosting that is busy says so before anything is written: it is tried again.
    sim.script([Answer::RateLimited { after: Duration::from_secs(1) }]);
    let id = system.send(note(&account, order, "after a while")).await;
    system.until_status(&id, "sent").await;
    // Whether this one was written, only the tenant can find out.
    sim.script([Answer::ResetAfterBody]);
    let id = system.send(note(&account, order, "perhaps")).await;
    system.until_status(&id, "unknown").await;
    let id = system.send(note(&account, 99_999, "to nobody")).await;
    let failed = system.until_status(&id, "failed").await;
    assert_eq!(failed["reason"], "recipient_invalid", "{failed}");
    let notes: Vec<(String, Option<String>)> = sim.accepted().iter().map(|call| (call.kind.clone(), call.text.clone())).collect();
    let wanted = ["on its way", "after a while", "perhaps"].map(|text| ("customer_note".to_owned(), Some(text.to_owned())));
    assert_eq!(notes, wanted, "in order, each once, and for the customer to see");
    let response = system
        .call(
            "POST",
            "/v1/messages",
            &[],
            &json!({"account": account, "to": {"order_id": "1"}, "type": "image",
        "image": {"link": "https://a.example/1.jpg"}})
            .to_string(),
        )
        .await;
    assert_eq!(response.status, 422, "a note is text");
    assert_eq!(sim.dropped(), 0);
    sim.stop().await;
}
