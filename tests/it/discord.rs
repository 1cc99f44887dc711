//! Discord over the real binary: interactions and webhook events in, messages and answers through tokens out.

use std::time::Duration;

use bench::platform::discord::DiscordSim;
use bench::platform::{Answer, SimOptions};
use serde_json::{Value, json};
use system_tests::{PATIENCE, System, body, fast};

const ADA: &str = "1200000000000000030";
const BOB: &str = "1200000000000000031";

/// A simulated application, connected; by its addresses only.
async fn connect(system: &System) -> (DiscordSim, String) {
    connect_as(system, "sim-token", "0").await
}

async fn connect_as(system: &System, token: &str, intents: &str) -> (DiscordSim, String) {
    let clock: messaging::clock::SharedClock = system.clock.clone();
    let options = SimOptions { statuses: fast(), clock, ..SimOptions::default() };
    let application = options.account.clone();
    let sim = DiscordSim::start(options).await.expect("a simulator starts");
    let account = json!({"channel": "discord", "name": "bot", "api_base": sim.url(), "application_id": application,
        "public_key": sim.public_key(), "bot_token": token, "intents": intents});
    let made = system.ok("POST", "/v1/accounts", &account).await;
    let account = made["id"].as_str().expect("an account has an id").to_owned();
    sim.set_hook(&system.hook("discord", &account));
    // Wrong signatures are refused as Discord wants it once the account is known.
    for _ in 0..100 {
        if sim.check_address().await.is_none() {
            return (sim, account);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", sim.check_address().await);
}

fn text(account: &str, to: &Value, text: &str) -> Value {
    json!({"account": account, "to": to, "type": "text", "text": {"body": text}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_answered_through_its_token_and_later_by_the_bot() {
    let system = System::start().await;
    let (sim, account) = connect(&system).await;
    let room = json!({ "channel_id": sim.direct_channel(ADA) });
    let command = sim.customer_commands(ADA, "order", json!([{"type": 3, "name": "number", "value": "1001"}])).await;
    assert_eq!((command.kind, command.posted.tries), (Some(5), 1), "thinking, at once");
    let received = system.event("message.received", |e| e["data"]["message"]["text"]["body"] == "/order number: 1001").await;
    system.verify(&received);
    let contact = &body(&received)["data"]["contact"];
    assert_eq!((&contact["channel_id"], contact["name"].as_str()), (&room["channel_id"], Some("User 1200000000000000030")));
    assert!(!body(&received).to_string().contains(&command.token), "whoever has the token speaks for the bot");
    let id = system.send(text(&account, &room, "on its way")).await;
    system.until_status(&id, "sent").await;
    assert_eq!(sim.accepted()[0].kind, "follow_up");
    let pressed = sim.customer_presses(ADA, "5", "thanks", "Thanks!").await;
    assert_eq!(pressed.kind, Some(6));
    system.event("message.received", |e| e["data"]["message"]["interactive_reply"]["title"] == "Thanks!").await;
    // A quarter of an hour later no token is good any more.
    system.advance(Duration::from_secs(16 * 60)).await;
    let id = system.send(text(&account, &room, "still there?")).await;
    system.until_status(&id, "sent").await;
    let kinds: Vec<String> = sim.accepted().iter().map(|call| call.kind.clone()).collect();
    assert_eq!(kinds, ["follow_up", "message"]);
    assert_eq!(sim.accepted()[1].callback.as_deref(), Some(id.as_str()), "the nonce leads back");
    assert_eq!(sim.dropped(), 0);
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_written_to_by_opening_the_conversation() {
    let system = System::start().await;
    let (sim, account) = connect(&system).await;
    let room = sim.direct_channel(BOB);
    let id = system.send(text(&account, &json!({ "user_id": BOB }), "hello")).await;
    system.until_status(&id, "sent").await;
    let mut calls: Vec<(String, String)> = sim.calls().iter().map(|call| (call.kind.clone(), call.to.clone())).collect();
    // Opening is asked again where its answer was late: it gives the same conversation.
    calls.dedup_by(|next, before| next == before && next.0 == "open");
    assert_eq!(calls, [("open".to_owned(), BOB.to_owned()), ("message".to_owned(), room)]);
    sim.set_closed(BOB, true);
    let id = system.send(text(&account, &json!({ "channel_id": sim.direct_channel(BOB) }), "still there?")).await;
    let failed = system.until_status(&id, "failed").await;
    assert!(failed.to_string().contains("recipient_invalid"), "{failed}");
    let long = text(&account, &json!({ "user_id": BOB }), &"x".repeat(2_001));
    let refused = system.call("POST", "/v1/messages", &[], &long.to_string()).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_the_platform_tells_are_waited_for() {
    let system = System::start().await;
    let (sim, account) = connect(&system).await;
    sim.set_bucket(2, Duration::from_secs(1));
    let room = json!({ "channel_id": sim.direct_channel(ADA) });
    sim.script([Answer::RateLimited { after: Duration::from_millis(300) }]);
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(system.send(text(&account, &room, &format!("m{number}"))).await);
    }
    for id in &ids {
        system.until_status(id, "sent").await;
    }
    let texts: Vec<String> = sim.accepted().iter().filter_map(|call| call.text.clone()).collect();
    assert_eq!(texts, ["m0", "m1", "m2", "m3"], "in order, each once");
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_events_are_told_and_a_withdrawal_is_an_opt_out() {
    let system = System::start().await;
    let (sim, account) = connect(&system).await;
    assert!(sim.webhook_event("APPLICATION_AUTHORIZED", &json!({"user": {"id": ADA, "username": "ada"}})).await.accepted);
    assert!(sim.customer_deauthorizes(ADA).await.accepted);
    system.event("platform.event", |e| e["data"]["account"] == account.as_str() && e.to_string().contains("APPLICATION_AUTHORIZED")).await;
    system.event("contact.opted_out", |e| e.to_string().contains("APPLICATION_DEAUTHORIZED")).await;
    sim.stop().await;
}

async fn until_connected(sim: &DiscordSim) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !sim.sessions().now().iter().any(|session| session.is_connected) {
        assert!(tokio::time::Instant::now() < deadline, "no connection: {:?}", sim.sessions().now());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The texts of what people wrote, by the events' ids: a delivery may be made twice, an event not.
fn written(system: &System) -> Vec<String> {
    let mut seen = std::collections::BTreeMap::new();
    for event in system.inbox.received().iter().map(body).filter(|event| event["type"] == "message.received") {
        let text = event["data"]["message"]["text"]["body"].as_str().unwrap_or("?").to_owned();
        seen.insert(event["id"].to_string(), text);
    }
    let mut texts: Vec<String> = seen.into_values().collect();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_write_comes_by_the_gateway_whatever_happens_to_the_process() {
    let mut system = System::start().await;
    let (sim, _) = connect_as(&system, "sim-token", "12288").await;
    until_connected(&sim).await;
    let says = |text: &'static str| move |event: &Value| event["data"]["message"]["text"]["body"] == text;
    let mut lines = Vec::new();
    for (before, during, kill) in [("1 before", "1 during", true), ("2 before", "2 during", false), ("3 before", "3 during", true)] {
        assert!(sim.customer_writes(ADA, before).await.accepted);
        let received = system.event("message.received", says(before)).await;
        system.verify(&received);
        if kill {
            system.process.kill();
        } else {
            assert_eq!(system.process.terminate().await, Some(0));
        }
        assert!(sim.customer_writes(ADA, during).await.accepted, "the session is kept");
        system.restart().await;
        system.event("message.received", says(during)).await;
        lines.extend([before, during]);
    }
    assert_eq!(written(&system), lines, "each once");
    let (identified, resumed, _) = sim.sessions().counts();
    assert_eq!((identified, resumed), (1, 3), "one session all along");
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_person_can_mend_is_told() {
    let system = System::start().await;
    let (sim, account) = connect_as(&system, "another-token", "12288").await;
    let path = format!("/v1/accounts/{account}");
    let changed = async |state: &str| {
        let wanted = |event: &Value| event["data"]["account"] == account.as_str() && event["data"]["change"]["state"] == state;
        body(&system.event("account.state_changed", wanted).await)["data"]["change"].clone()
    };
    assert_eq!(changed("broken").await["reason"], "auth");
    for _ in 0..100 {
        if system.get(&path).await["state"] == "broken" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(system.get(&path).await["state"], "broken");
    // An intent that the application may not have.
    sim.sessions().refuse_intents(1 << 15);
    system.ok("PATCH", &path, &json!({"bot_token": "sim-token", "intents": "46592"})).await;
    system.ok("POST", &format!("{path}/resume"), &Value::Null).await;
    let detail = changed("disconnected").await["detail"].to_string();
    assert!(detail.contains("4014") && detail.contains("developer portal"), "{detail}");
    assert_eq!(system.get(&path).await["state"], "active", "it sends all the same");
    system.ok("PATCH", &path, &json!({"intents": "12288"})).await;
    until_connected(&sim).await;
    assert!(sim.customer_writes(ADA, "at last").await.accepted);
    system.event("message.received", |event| event["data"]["message"]["text"]["body"] == "at last").await;
    sim.stop().await;
}
