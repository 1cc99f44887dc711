//! The happy paths, and what platforms do on ordinary days: duplicates, statuses in any order, windows, endpoints down and back.

use std::time::Duration;

use bench::inbox::InboxAnswer;
use bench::platform::{Answer, SimOptions};
use serde_json::json;
use system_tests::{CHAT, PHONE, Setup, System, body, fast};

#[tokio::test(flavor = "multi_thread")]
async fn whatsapp_both_ways() {
    let system = System::start().await;
    assert!(system.whatsapp.customer_writes(PHONE, "hello shop").await.accepted);
    let received = system.event("message.received", |e| e["data"]["message"]["text"]["body"] == "hello shop").await;
    system.verify(&received);
    let event = body(&received);
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["data"]["contact"]["phone"], format!("+{PHONE}"));
    let mut message = system.text(PHONE, "hello customer");
    message["callback_data"] = "order-17".into();
    message["metadata"] = json!({"campaign": "c9"});
    let id = system.send(message).await;
    let read = system.until_status(&id, "read").await;
    let steps: Vec<_> = read["history"].as_array().unwrap().iter().map(|step| step["status"].as_str().unwrap()).collect();
    for step in ["accepted", "queued", "sending", "sent", "delivered", "read"] {
        assert!(steps.contains(&step), "{step} is missing in {steps:?}");
    }
    for kind in ["message.sent", "message.delivered", "message.read"] {
        let event = body(&system.event(kind, |e| e["data"]["message"]["id"] == id.as_str()).await);
        assert_eq!(event["data"]["message"]["callback_data"], "order-17");
        assert_eq!(event["data"]["message"]["metadata"]["campaign"], "c9");
    }
    let accepted = system.whatsapp.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].text.as_deref(), Some("hello customer"));
    for received in system.inbox.received() {
        system.verify(&received);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn telegram_both_ways() {
    let system = System::start().await;
    let posted = system.telegram.customer_writes(CHAT, "/start").await;
    assert!(posted.accepted);
    assert_eq!(posted.dangerous_bodies, 0, "a 2xx with a body would be executed");
    let received = system.event("message.received", |e| e["data"]["channel"] == "telegram").await;
    system.verify(&received);
    let message = json!({"account": system.tg_account, "to": {"chat_id": CHAT.to_string()}, "type": "interactive",
        "interactive": {"body": "Which one?", "buttons": [{"id": "red", "title": "Red"}, {"id": "blue", "title": "Blue"}]}});
    let id = system.send(message).await;
    system.until_status(&id, "sent").await;
    assert_eq!(system.telegram.accepted().len(), 1);
    system.event("message.sent", |e| e["data"]["message"]["id"] == id.as_str()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_webhook_three_times_has_one_effect() {
    let platforms = SimOptions { copies: 3, shuffle: true, statuses: fast(), ..SimOptions::default() };
    let system = System::with(Setup { platforms, ..Setup::default() }).await;
    for n in 0..20 {
        assert!(system.whatsapp.customer_writes(&format!("1555020{n:02}"), &format!("text {n}")).await.accepted);
    }
    // Sends are judged by the windows that are open: that takes the way through the log.
    for n in 0..20 {
        system.event("message.received", |e| e.to_string().contains(&format!("\"text {n}\""))).await;
    }
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(system.send(system.text(&format!("1555020{n:02}"), &format!("answer {n}"))).await);
    }
    for id in &ids {
        system.until_status(id, "read").await;
        system.event("message.read", |e| e["data"]["message"]["id"] == id.as_str()).await;
    }
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for received in system.inbox.received() {
        *seen.entry(received.header("webhook-id").unwrap().to_owned()).or_default() += 1;
    }
    assert!(seen.values().all(|count| *count == 1), "an event was delivered more than once: {seen:?}");
    let of = |kind: &str| system.kinds().iter().filter(|seen| *seen == kind).count();
    assert_eq!(of("message.received"), 20);
    assert_eq!(of("conversation.window.opened"), 20);
    assert_eq!(of("message.read"), 20, "read once each, whatever order the statuses came in");
    assert_eq!(system.whatsapp.accepted().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_has_edges() {
    let system = System::start().await;
    let path = format!("/v1/windows?account={}&to=%2B{PHONE}", system.wa_account);
    assert_eq!(system.get(&path).await["open"], false);
    let response = system.call("POST", "/v1/messages", &[], &system.text(PHONE, "too early").to_string()).await;
    assert_eq!(response.status, 422);
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(problem["code"], "window-closed");

    system.whatsapp.customer_writes(PHONE, "hi").await;
    system.event("conversation.window.opened", |_| true).await;
    assert_eq!(system.get(&path).await["open"], true);
    system.advance(Duration::from_secs(24 * 3600 - 120)).await;
    system.event("conversation.window.closing", |_| true).await;
    let id = system.send(system.text(PHONE, "two minutes before its end")).await;
    system.until_status(&id, "read").await;
    system.advance(Duration::from_secs(70)).await;
    let response = system.call("POST", "/v1/messages", &[], &system.text(PHONE, "inside the margin").to_string()).await;
    assert_eq!(response.status, 422, "{}", String::from_utf8_lossy(&response.body));
    let mut fallback = system.text(PHONE, "free");
    fallback["fallback"] = json!({"template": {"name": "order_update", "language": "en", "params": ["A-17"]}});
    let id = system.send(fallback).await;
    system.until_status(&id, "read").await;
    system.advance(Duration::from_secs(60)).await;
    system.event("conversation.window.closed", |_| true).await;
    assert!(system.whatsapp.calls().iter().all(|call| !call.out_of_window()), "the platform met free text outside the window");
    let kinds: Vec<_> = system.whatsapp.accepted().iter().map(|call| call.kind.clone()).collect();
    assert_eq!(kinds, ["text", "template"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_down_and_back_gets_everything_in_order() {
    let system = System::start().await;
    system.inbox.down().await;
    for n in 0..30 {
        system.whatsapp.customer_writes(&format!("1555030{:02}", n % 3), &format!("text {n}")).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    system.inbox.up().await.unwrap();
    for _ in 0..40 {
        system.advance(Duration::from_secs(60)).await;
        if system.kinds().iter().filter(|kind| *kind == "message.received").count() == 30 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut last = std::collections::BTreeMap::<String, u64>::new();
    let mut count = 0;
    for received in system.inbox.received() {
        let conversation = received.header("trunkline-conversation").unwrap().to_owned();
        let sequence: u64 = received.header("trunkline-sequence").unwrap().parse().unwrap();
        let before = last.insert(conversation, sequence).unwrap_or(0);
        assert_eq!(sequence, before + 1, "no gap and no inversion");
        count += usize::from(body(&received)["type"] == "message.received");
    }
    assert_eq!(count, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failing_conversation_holds_only_itself() {
    let system = System::start().await;
    system.inbox.script([InboxAnswer::Status(500)]);
    system.whatsapp.customer_writes("15550400", "fails first").await;
    system.whatsapp.customer_writes("15550401", "goes on").await;
    system.event("message.received", |e| e["data"]["message"]["text"]["body"] == "goes on").await;
    system.advance(Duration::from_secs(10)).await;
    system.event("message.received", |e| e["data"]["message"]["text"]["body"] == "fails first").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_disables_an_endpoint() {
    let system = System::start().await;
    system.inbox.script([InboxAnswer::Status(410)]);
    system.whatsapp.customer_writes(PHONE, "x").await;
    let path = format!("/v1/endpoints/{}", system.endpoint);
    for _ in 0..200 {
        if system.get(&path).await["state"] == "disabled" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never disabled: {:#}", system.get(&path).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn platform_answers_decide_a_send() {
    let system = System::start().await;
    system.whatsapp.customer_writes(PHONE, "hi").await;
    system.event("message.received", |_| true).await;
    // (the platform's answer, the status that the message ends in without another call)
    let table = [
        (Answer::Error { code: 131_026, http: 400 }, "failed"),
        (Answer::Error { code: 100, http: 400 }, "failed"),
        (Answer::Error { code: 131_050, http: 400 }, "failed"),
        (Answer::LostAfterBody, "unknown"),
        (Answer::Garbage2xx, "read"),
        (Answer::ResetAfterBody, "read"),
        (Answer::Status(502), "unknown"),
    ];
    for (answer, status) in table {
        let before = system.whatsapp.calls().len();
        system.whatsapp.script([answer.clone()]);
        let id = system.send(system.text(PHONE, &format!("{answer:?}"))).await;
        system.until_status(&id, status).await;
        assert_eq!(system.whatsapp.calls().len(), before + 1, "{answer:?}: exactly one call");
    }
    system.whatsapp.script([Answer::Error { code: 131_047, http: 400 }]);
    let id = system.send(system.text(PHONE, "the platform says closed")).await;
    system.until_status(&id, "failed").await;
    system.event("conversation.window.closed", |_| true).await;
    let response = system.call("POST", "/v1/messages", &[], &system.text(PHONE, "again").to_string()).await;
    assert_eq!(response.status, 422, "the platform's verdict closed the window early");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_provably_not_taken_goes_out_once_later() {
    let system = System::start().await;
    system.whatsapp.customer_writes(PHONE, "hi").await;
    system.event("message.received", |_| true).await;
    system.whatsapp.script([Answer::RateLimited { after: Duration::from_secs(1) }, Answer::Error { code: 131_016, http: 503 }]);
    let id = system.send(system.text(PHONE, "patience")).await;
    for _ in 0..20 {
        system.advance(Duration::from_secs(30)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if system.whatsapp.accepted().len() == 1 {
            break;
        }
    }
    let message = system.until_status(&id, "read").await;
    assert_eq!(message["possible_duplicate"], false);
    assert_eq!(system.whatsapp.accepted().len(), 1);
    assert_eq!(system.whatsapp.calls().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_one_message() {
    let system = System::start().await;
    system.whatsapp.customer_writes(PHONE, "hi").await;
    system.event("message.received", |_| true).await;
    let body = system.text(PHONE, "once").to_string();
    let headers = [("idempotency-key", "\"order-17\"")];
    let calls = (0..20).map(|_| system.call("POST", "/v1/messages", &headers, &body));
    let replies = futures_join(calls).await;
    let mut ids = std::collections::BTreeSet::new();
    for reply in replies {
        match reply.status {
            202 => {
                let value: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
                ids.insert(value["id"].as_str().unwrap().to_owned());
            }
            409 => {}
            other => panic!("{other}: {}", String::from_utf8_lossy(&reply.body)),
        }
    }
    assert_eq!(ids.len(), 1);
    let id = ids.pop_first().unwrap();
    system.until_status(&id, "read").await;
    let again = system.call("POST", "/v1/messages", &headers, &body).await;
    assert_eq!(again.status, 202);
    assert_eq!(again.headers.get("idempotent-replayed").unwrap(), "true");
    let other = system.call("POST", "/v1/messages", &headers, &system.text(PHONE, "another").to_string()).await;
    assert_eq!(other.status, 422, "another body under the key");
    assert_eq!(system.whatsapp.accepted().len(), 1);
}

async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut left = false;
        for (future, done) in pending.iter_mut().zip(&mut done) {
            if done.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(output) => *done = Some(output),
                    std::task::Poll::Pending => left = true,
                }
            }
        }
        if left { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
}
