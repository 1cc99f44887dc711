//! Accounts whose tokens end, are refreshed, are revoked and given anew.

use std::time::Duration;

use bench::platform::{MetaProduct, MetaSim, SimOptions, TiktokSim};
use serde_json::{Value, json};
use system_tests::{PATIENCE, System, body, fast};

const CONVERSATION: &str = "u5JhpselBAhoPOlnH0tZ9y07kg+/EXAMPLE==";
const HOUR: Duration = Duration::from_secs(3_600);

fn options(system: &System) -> SimOptions {
    let clock: messaging::clock::SharedClock = system.clock.clone();
    SimOptions { statuses: fast(), clock, ..SimOptions::default() }
}

/// A simulated TikTok account whose tokens last a day, connected.
async fn tiktok(system: &System) -> (TiktokSim, String) {
    let options = options(system);
    let (credential, secret, id) = (options.credential.clone(), options.secret.clone(), options.account.clone());
    let sim = TiktokSim::start(options).await.expect("a simulator starts");
    sim.tokens_end_after(24 * HOUR);
    let account = json!({"channel": "tiktok", "name": "shop", "api_base": sim.url(), "business_id": id, "window": "48h",
        "client_key": bench::platform::tiktok::CLIENT_KEY, "access_token": credential,
        "refresh_token": bench::platform::tiktok::REFRESH_TOKEN, "client_secret": secret});
    let made = system.ok("POST", "/v1/accounts", &account).await;
    let account = made["id"].as_str().expect("an account has an id").to_owned();
    sim.set_hook(&system.hook("tiktok", &account));
    (sim, account)
}

/// The customer writes, which opens the window on both sides.
async fn write(system: &System, sim: &TiktokSim, text: &str) {
    assert!(sim.customer_writes(CONVERSATION, text).await.accepted);
    system.event("message.received", |e| e["data"]["message"]["text"]["body"] == text).await;
}

fn text(account: &str, text: &str) -> Value {
    json!({"account": account, "to": {"conversation_id": CONVERSATION}, "type": "text", "text": {"body": text}})
}

/// Waits until an account's state is this.
async fn until_state(system: &System, account: &str, state: &str) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let shown = system.get(&format!("/v1/accounts/{account}")).await;
        if shown["state"] == state {
            return shown;
        }
        assert!(tokio::time::Instant::now() < deadline, "never {state}: {shown:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a simulator has seen what it should.
async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The states of an account that the subscriber was told, with their reasons.
fn told(system: &System, account: &str) -> Vec<(String, String)> {
    let all = system.inbox.received().iter().map(body).collect::<Vec<_>>();
    let ours = all.iter().filter(|event| event["type"] == "account.state_changed" && event["data"]["account"] == account);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ours.map(|event| (text(&event["data"]["change"]["state"]), text(&event["data"]["change"]["reason"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_before_it_ends_and_sends_go_on() {
    let system = System::start().await;
    let (sim, account) = tiktok(&system).await;
    for day in 1..=3 {
        // Each refresh token is good once: a lost or doubled one ends here.
        system.advance(19 * HOUR).await;
        until("a refresh", || sim.refreshes() == day).await;
        write(&system, &sim, &format!("question {day}")).await;
        let at_once = system.send(text(&account, &format!("day {day}"))).await;
        system.until_status(&at_once, "read").await;
    }
    let shown = system.get(&format!("/v1/accounts/{account}")).await;
    assert!(shown["credential"]["reconnect_by"].is_string(), "{shown:#}");
    assert!(!shown.to_string().contains("rft."), "{shown:#}");
    assert!(told(&system, &account).is_empty(), "what goes well is no news: {:?}", told(&system, &account));
    assert_eq!(sim.refreshes(), 3);
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_refreshed_at_once_and_its_send_goes_out() {
    let system = System::start().await;
    let (sim, account) = tiktok(&system).await;
    write(&system, &sim, "question").await;
    sim.expire_token();
    let id = system.send(text(&account, "with the old token")).await;
    system.until_status(&id, "read").await;
    until_state(&system, &account, "active").await;
    let (broken, active) = (("broken".to_owned(), "auth".to_owned()), ("active".to_owned(), "refreshed".to_owned()));
    system.event("account.state_changed", |e| e["data"]["change"]["state"] == "active").await;
    assert_eq!(told(&system, &account), [broken, active]);
    assert_eq!((sim.refreshes(), sim.accepted().len()), (1, 1));
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_refresh_breaks_the_account_and_new_tokens_mend_it() {
    let mut system = System::start().await;
    let (sim, account) = tiktok(&system).await;
    sim.lose_refreshes(1);
    system.advance(19 * HOUR).await;
    until("the lost refresh", || sim.refreshes() == 1).await;
    // The process dies with the answer on its way: the next one asks with the same token, and is told that it is used up.
    system.process.kill();
    system.restart().await;
    // The process's clock is the machine's again, the platform's is not.
    let (client, authorization) = (bench::http::Client::new(PATIENCE), format!("Bearer {}", system.key));
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let moved = client.post(&format!("http://{}/admin/clock", system.process.admin), &headers, r#"{"advance": "19h"}"#).await;
    assert!(moved.is_ok_and(|answer| answer.status < 300));
    sim.set_hook(&system.hook("tiktok", &account));
    let shown = until_state(&system, &account, "broken").await;
    assert!(shown["state_reason"].as_str().is_some_and(|reason| reason.starts_with("refresh_refused")), "{shown:#}");
    system.event("account.state_changed", |e| e["data"]["change"]["reason"] == "refresh_refused").await;
    sim.give_tokens("act.new", "rft.new");
    write(&system, &sim, "question").await;
    let patch = json!({"access_token": "act.new", "refresh_token": "rft.new"});
    assert_eq!(system.ok("PATCH", &format!("/v1/accounts/{account}"), &patch).await["state"], "active");
    system.event("account.state_changed", |e| e["data"]["change"]["reason"] == "new_credential").await;
    let id = system.send(text(&account, "again")).await;
    system.until_status(&id, "read").await;
    assert_eq!(told(&system, &account).len(), 2);
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_told_and_its_sends_wait_for_a_new_one() {
    let system = System::start().await;
    let options = options(&system);
    let (credential, secret, id) = (options.credential.clone(), options.secret.clone(), options.account.clone());
    let sim = MetaSim::start(MetaProduct::Instagram, options).await.expect("a simulator starts");
    let made = json!({"channel": "instagram", "name": "shop", "api_base": sim.url(), "instagram_id": id, "access_token": credential,
        "app_secret": secret, "verify_token": "verify-me"});
    let made = system.ok("POST", "/v1/accounts", &made).await;
    let account = made["id"].as_str().expect("an account has an id").to_owned();
    sim.set_hook(&system.hook("instagram", &account));
    system.advance(26 * HOUR).await;
    until("the exchange", || sim.exchanges() == 1).await;
    assert!(sim.customer_writes("5678901234567890", "hi").await.accepted);
    system.event("message.received", |e| e["data"]["account"] == account.as_str()).await;
    sim.revoke_tokens();
    let began = tokio::time::Instant::now();
    let text = |text: &str| json!({"account": account, "to": {"igsid": "5678901234567890"}, "type": "text", "text": {"body": text}});
    let waiting = system.send(text("waits")).await;
    let event = system.event("account.state_changed", |e| e["data"]["account"] == account.as_str()).await;
    assert!(began.elapsed() < Duration::from_secs(120));
    let change = &body(&event)["data"]["change"];
    assert_eq!(
        (change["state"].as_str(), change["reason"].as_str(), change["detail"].as_str()),
        (Some("broken"), Some("auth"), Some("190"))
    );
    assert_eq!(until_state(&system, &account, "broken").await["state_reason"], "auth: 190");
    let refused = system.call("POST", "/v1/messages", &[], &text("not now").to_string()).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert_eq!(system.get(&format!("/v1/messages/{waiting}")).await["status"], "queued");
    let metrics = String::from_utf8(system.admin("/metrics").await.body.to_vec()).expect("text");
    let calls = sim.calls().len();
    sim.give_token("IGnew");
    system.ok("PATCH", &format!("/v1/accounts/{account}"), &json!({"access_token": "IGnew"})).await;
    system.until_status(&waiting, "read").await;
    system.event("account.state_changed", |e| e["data"]["change"]["state"] == "active").await;
    assert_eq!((sim.calls().len(), told(&system, &account).len()), (calls + 1, 2));
    assert!(metrics.contains("trunkline_platform_accounts"), "the gauge is there");
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_changed_at_the_platform_is_told() {
    let system = System::start().await;
    let account = system.wa_account.clone();
    assert!(system.whatsapp.customer_writes("15550100", "hi").await.accepted);
    system.event("message.received", |_| true).await;
    let (hook, client) = (system.hook("whatsapp", &account), bench::http::Client::new(Duration::from_secs(5)));
    let forged = async || {
        let proof = format!("sha256={}", "0".repeat(64));
        client.post(&hook, &[("x-hub-signature-256", proof.as_str())], "{}").await.expect("the gateway answers").status
    };
    let began = tokio::time::Instant::now();
    // Until the first authentic one is noted, refusals may be of an account that was never right.
    while told(&system, &account).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(120), "within two minutes");
        assert_eq!(forged().await, 403);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(told(&system, &account), [("unverified".to_owned(), "bad_signature".to_owned())]);
    assert_eq!(until_state(&system, &account, "unverified").await["state"], "unverified");
    while told(&system, &account).len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(120), "within two minutes");
        assert!(system.whatsapp.customer_writes("15550100", "still there").await.accepted);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(told(&system, &account)[1], ("active".to_owned(), "signatures_good".to_owned()));
}
