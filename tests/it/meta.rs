//! Messenger and Instagram over the real binary, in both directions.

use bench::platform::{MetaProduct, MetaSim, SimOptions, StatusDelays};
use serde_json::{Value, json};
use system_tests::{System, body, fast};

const PERSON: &str = "5678901234567890";

/// A simulated page or professional account, connected.
async fn connect(system: &System, product: MetaProduct, statuses: StatusDelays) -> (MetaSim, String) {
    let clock: messaging::clock::SharedClock = system.clock.clone();
    let options = SimOptions { statuses, clock, ..SimOptions::default() };
    let (credential, secret, id) = (options.credential.clone(), options.secret.clone(), options.account.clone());
    let sim = MetaSim::start(product, options).await.expect("a simulator starts");
    let (channel, identity) = match product {
        MetaProduct::Messenger => ("messenger", "page_id"),
        MetaProduct::Instagram => ("instagram", "instagram_id"),
    };
    let mut account = json!({"channel": channel, "name": "page", "api_base": sim.url(), "access_token": credential, "app_secret": secret,
        "verify_token": "verify-me"});
    account[identity] = json!(id);
    let made = system.ok("POST", "/v1/accounts", &account).await;
    let account = made["id"].as_str().expect("an account has an id").to_owned();
    sim.set_hook(&system.hook(channel, &account));
    (sim, account)
}

fn to(product: MetaProduct) -> Value {
    match product {
        MetaProduct::Messenger => json!({ "psid": PERSON }),
        MetaProduct::Instagram => json!({ "igsid": PERSON }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_products_both_ways() {
    let system = System::start().await;
    for product in [MetaProduct::Messenger, MetaProduct::Instagram] {
        let (sim, account) = connect(&system, product, fast()).await;
        let send = |text: &str| json!({"account": account, "to": to(product), "type": "text", "text": {"body": text}});
        let early = system.call("POST", "/v1/messages", &[], &send("too early").to_string()).await;
        assert_eq!(early.status, 422, "nobody wrote yet: {early:?}");
        assert!(sim.customer_writes(PERSON, "hello shop").await.accepted);
        let received = system
            .event("message.received", |e| e["data"]["account"] == account.as_str() && e["data"]["message"]["text"]["body"] == "hello shop")
            .await;
        system.verify(&received);
        for (name, value) in to(product).as_object().unwrap() {
            assert_eq!(body(&received)["data"]["contact"][name], *value);
        }
        assert!(sim.customer_presses(PERSON, "Track", "TRACK_1").await.accepted);
        system.event("message.received", |e| e["data"]["message"]["interactive_reply"]["id"] == "TRACK_1").await;
        let id = system.send(send("hello customer")).await;
        let read = system.until_status(&id, "read").await;
        let steps: Vec<&str> = read["history"].as_array().unwrap().iter().map(|step| step["status"].as_str().unwrap()).collect();
        assert_eq!(steps.contains(&"delivered"), product == MetaProduct::Messenger, "Instagram tells of no deliveries: {steps:?}");
        assert_eq!(sim.accepted().len(), 1);
        assert!(sim.accepted().iter().all(|call| !call.out_of_window()));
        // The echo of our own send is no event of its own.
        assert!(!system.kinds().iter().any(|kind| kind == "message.echoed"), "{:?}", system.kinds());
        assert_eq!(sim.dropped(), 0);
        sim.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_whose_answer_was_lost_is_settled_by_its_echo() {
    let system = System::start().await;
    let (sim, account) = connect(&system, MetaProduct::Messenger, fast()).await;
    assert!(sim.customer_writes(PERSON, "hi").await.accepted);
    system.event("message.received", |e| e["data"]["account"] == account.as_str()).await;
    sim.script([bench::platform::Answer::ResetAfterBody]);
    let id = system.send(json!({"account": account, "to": to(MetaProduct::Messenger), "type": "text", "text": {"body": "lost?"}})).await;
    system.until_status(&id, "read").await;
    assert_eq!(sim.accepted().len(), 1, "never sent twice");
    sim.stop().await;
}
