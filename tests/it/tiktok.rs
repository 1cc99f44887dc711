//! TikTok over the real binary, in both directions, within the window and the count that the platform allows.

use std::time::Duration;

use bench::platform::{Answer, SimOptions, TiktokSim};
use serde_json::{Value, json};
use system_tests::{Setup, System, body, fast};

const CONVERSATION: &str = "a1/B+c==";
const HOUR: u64 = 3_600;
/// Windows and counts are what is tested, not the pace.
const RATES: &str = "[channels.tiktok]\nper_pair = \"100/s\"\nper_account = \"100/s\"\nper_app = \"100/s\"\n";

async fn start() -> System {
    System::with(Setup { config: RATES.to_owned(), ..Setup::default() }).await
}

/// A simulated business account, connected; `beside` are further members of the account.
async fn connect(system: &System, copies: u32, beside: Value) -> (TiktokSim, String) {
    let clock: messaging::clock::SharedClock = system.clock.clone();
    let options = SimOptions { statuses: fast(), clock, copies, ..SimOptions::default() };
    let SimOptions { credential, secret, account: business, .. } = options.clone();
    let sim = TiktokSim::start(options).await.expect("a simulator starts");
    let mut account = json!({"channel": "tiktok", "name": "shop", "api_base": sim.url(), "business_id": business,
        "client_key": bench::platform::tiktok::CLIENT_KEY, "client_secret": secret, "access_token": credential,
        "refresh_token": bench::platform::tiktok::REFRESH_TOKEN});
    account.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
    let made = system.ok("POST", "/v1/accounts", &account).await;
    let account = made["id"].as_str().expect("an account has an id").to_owned();
    sim.set_hook(&system.hook("tiktok", &account));
    (sim, account)
}

fn text(account: &str, text: &str) -> Value {
    json!({"account": account, "to": {"conversation_id": CONVERSATION}, "type": "text", "text": {"body": text}})
}

/// The customer writes, and the window is seen to be open.
async fn opened(system: &System, sim: &TiktokSim, account: &str, said: &str) {
    assert!(sim.customer_writes(CONVERSATION, said).await.accepted);
    let about = |e: &Value| e["data"]["account"] == account && e["data"]["message"]["text"]["body"] == said;
    system.verify(&system.event("message.received", about).await);
}

/// A send that is refused at once, with this code.
async fn refused(system: &System, send: &Value, code: &str) {
    let response = system.call("POST", "/v1/messages", &[], &send.to_string()).await;
    let problem: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    assert_eq!((response.status, problem["code"].as_str()), (422, Some(code)), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways() {
    let system = start().await;
    let (sim, account) = connect(&system, 3, json!({})).await;
    refused(&system, &text(&account, "too early"), "window-closed").await;
    opened(&system, &sim, &account, "hello shop").await;
    let received = system.event("message.received", |e| e["data"]["account"] == account.as_str()).await;
    assert_eq!(body(&received)["data"]["contact"]["conversation_id"], CONVERSATION);
    assert!(sim.customer_presses(CONVERSATION, "Track", "TRACK_1").await.accepted);
    system.event("message.received", |e| e.to_string().contains("TRACK_1")).await;
    let id = system.send(text(&account, "hello customer")).await;
    let read = system.until_status(&id, "read").await;
    let steps: Vec<&str> = read["history"].as_array().unwrap().iter().map(|step| step["status"].as_str().unwrap()).collect();
    assert!(steps.contains(&"sent") && !steps.contains(&"delivered"), "the platform tells of no deliveries: {steps:?}");
    sim.script([Answer::ResetAfterBody]);
    let lost = system.send(text(&account, "lost?")).await;
    system.until_status(&lost, "unknown").await;
    // The platform's echo bears no id of ours: it is told, and the tenant decides.
    system.event("message.echoed", |e| e.to_string().contains("lost?")).await;
    let texts: Vec<String> = sim.accepted().iter().filter_map(|call| call.text.clone()).collect();
    assert_eq!(texts, ["hello customer", "lost?"], "each once");
    let count = |kind: &str| system.kinds().iter().filter(|one| *one == kind).count();
    assert_eq!((count("message.received"), count("message.echoed")), (2, 1), "every webhook came three times: {:?}", system.kinds());
    assert_eq!(sim.dropped(), 0);
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_are_refused() {
    let system = start().await;
    let (sim, account) = connect(&system, 1, json!({})).await;
    let client = bench::http::Client::new(Duration::from_secs(5));
    let event = json!({"client_key": bench::platform::tiktok::CLIENT_KEY, "event": "im_receive_msg", "user_openid": "x", "content": "{}"})
        .to_string();
    let (name, good) = sim.signature(event.as_bytes());
    let stale = good.replacen("t=1", "t=0", 1);
    let cut = good[..good.len() - 1].to_owned();
    let other = event.replace("{}", "{ }");
    for (what, signature, body) in [
        ("no signature", None, &event),
        ("another time", Some(&stale), &event),
        ("cut", Some(&cut), &event),
        ("another body", Some(&good), &other),
    ] {
        let headers: Vec<(&str, &str)> = signature.iter().map(|value| (name, value.as_str())).collect();
        let answer = client.post(&system.hook("tiktok", &account), &headers, body.clone()).await.expect("an answer");
        assert_eq!(answer.status, 403, "{what}");
    }
    opened(&system, &sim, &account, "genuine").await;
    assert_eq!(system.kinds().iter().filter(|kind| kind.starts_with("message.")).count(), 1, "{:?}", system.kinds());
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_messages_until_the_person_writes_again() {
    let system = start().await;
    let (sim, account) = connect(&system, 1, json!({})).await;
    for round in 0..2 {
        opened(&system, &sim, &account, &format!("round {round}")).await;
        for number in 0..10 {
            let id = system.send(text(&account, &format!("{round}.{number}"))).await;
            system.until_status(&id, "read").await;
        }
        refused(&system, &text(&account, "one more"), "window-closed").await;
    }
    assert_eq!(sim.accepted().len(), 20);
    assert_eq!(sim.calls().len(), 20, "the platform was not asked in vain");
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_unless_the_account_asks_for_two() {
    let system = start().await;
    let (sim, account) = connect(&system, 1, json!({})).await;
    let (wide_sim, wide) = connect(&system, 1, json!({"window": "48h"})).await;
    opened(&system, &sim, &account, "hi").await;
    opened(&system, &wide_sim, &wide, "hi").await;
    system.advance(Duration::from_secs(24 * HOUR - 120)).await;
    let id = system.send(text(&account, "two minutes before its end")).await;
    system.until_status(&id, "read").await;
    system.advance(Duration::from_secs(70)).await;
    refused(&system, &text(&account, "inside the margin"), "window-closed").await;
    system.advance(Duration::from_secs(20 * HOUR)).await;
    let id = system.send(text(&wide, "on the second day")).await;
    system.until_status(&id, "read").await;
    system.advance(Duration::from_secs(4 * HOUR)).await;
    refused(&system, &text(&wide, "too late"), "window-closed").await;
    for sim in [sim, wide_sim] {
        assert!(sim.calls().iter().all(|call| !call.out_of_window()));
        sim.stop().await;
    }
}
