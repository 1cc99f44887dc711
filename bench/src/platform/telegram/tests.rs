use std::time::Duration;

use super::*;
use crate::http::{Client, Response, reply};
use crate::platform::{Fate, Redelivery, WindowRule};

const CHAT: i64 = 4_711;
const TOKEN: &str = "7000000009:AAsim";

async fn start(options: SimOptions) -> TelegramSim {
    TelegramSim::start(SimOptions { credential: TOKEN.to_owned(), secret: "aB3_-x9".to_owned(), ..options }).await.unwrap()
}

async fn call(sim: &TelegramSim, token: &str, method: &str, body: Value) -> Option<(Response, Value)> {
    let url = format!("{}/bot{token}/{method}", sim.url());
    let response = Client::new(Duration::from_millis(300)).post(&url, &[], body.to_string()).await.ok()?;
    let value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    Some((response, value))
}

fn text(chat: i64, text: &str) -> Value {
    json!({ "chat_id": chat, "text": text })
}

#[tokio::test]
async fn calls_answer_as_the_platform_does() {
    let sim = start(SimOptions::default()).await;
    sim.open_chat(CHAT);
    let long = "x".repeat(4_097);
    let cases = [
        ("wrong", "getMe", json!({}), 401),
        (TOKEN, "getMe", json!({}), 200),
        (TOKEN, "sendMessage", text(CHAT, "hello"), 200),
        (TOKEN, "sendmessage", json!({ "chat_id": "4711", "text": "as text" }), 200),
        (TOKEN, "sendMessage", text(CHAT, ""), 400),
        (TOKEN, "sendMessage", text(CHAT, &long), 400),
        (TOKEN, "sendMessage", text(1, "never started"), 400),
        (TOKEN, "sendPhoto", json!({ "chat_id": CHAT }), 400),
        (TOKEN, "sendPhoto", json!({ "chat_id": CHAT, "photo": "https://x/y.jpg", "caption": "look" }), 200),
        (TOKEN, "sendChatAction", json!({ "chat_id": CHAT, "action": "typing" }), 200),
        (TOKEN, "noSuchMethod", json!({}), 404),
    ];
    for (token, method, body, expected) in cases {
        let (response, value) = call(&sim, token, method, body.clone()).await.unwrap();
        assert_eq!(response.status, expected, "{method} {body}");
        assert_eq!(value["ok"], json!(expected == 200), "{method} {body}");
    }
    let texts: Vec<Option<String>> = sim.accepted().into_iter().map(|call| call.text).collect();
    assert_eq!(texts, [Some("hello".to_owned()), Some("as text".to_owned()), Some("look".to_owned())]);
    let (_, me) = call(&sim, TOKEN, "getMe", json!({})).await.unwrap();
    assert_eq!(me["result"]["id"], 7_000_000_009_i64);
}

#[tokio::test]
async fn scripted_answers_and_the_ledger() {
    let sim = start(SimOptions { window: WindowRule::Ignore, ..SimOptions::default() }).await;
    let cases = [
        (Answer::RateLimited { after: Duration::from_secs(7) }, Some(429), Fate::Refused(429)),
        (Answer::Error { code: 403, http: 403 }, Some(403), Fate::Refused(403)),
        (Answer::Error { code: 131_000, http: 500 }, Some(500), Fate::Refused(500)),
        (Answer::ResetAfterBody, None, Fate::AcceptedUnanswered),
        (Answer::ResetBeforeBody, None, Fate::Lost),
        (Answer::AcceptThenFail { code: 1 }, Some(200), Fate::Accepted),
    ];
    for (answer, status, fate) in cases {
        sim.script([answer.clone()]);
        let got = call(&sim, TOKEN, "sendMessage", text(CHAT, "x")).await;
        assert_eq!(got.as_ref().map(|(response, _)| response.status), status, "{answer:?}");
        assert_eq!(sim.calls().pop().unwrap().fate, fate, "{answer:?}");
        if status == Some(429) {
            let (response, value) = got.unwrap();
            assert_eq!(value["parameters"]["retry_after"], 7);
            assert_eq!(response.retry_after(), Some(Duration::from_secs(7)));
        }
    }
}

/// A hook that refuses chat 1's first update three times, and keeps what it takes.
async fn hook() -> (Server, Arc<Mutex<Vec<Value>>>) {
    let kept: Arc<Mutex<Vec<Value>>> = Arc::default();
    let refusals = Arc::new(Mutex::new(3));
    let server = {
        let kept = kept.clone();
        Server::start("127.0.0.1:0".parse().unwrap(), move |mut request: Request| {
            let (kept, refusals) = (kept.clone(), refusals.clone());
            async move {
                let token = request.header("x-telegram-bot-api-secret-token").unwrap_or_default().to_owned();
                let body: Value = serde_json::from_slice(&request.body().await.unwrap()).unwrap();
                let mut left = locked(&refusals);
                if token != "aB3_-x9" || (body["message"]["text"] == "1.1" && *left > 0) {
                    *left -= 1;
                    return reply(500, "text/plain", "");
                }
                locked(&kept).push(body);
                reply(200, "application/json", r#"{"method":"sendMessage"}"#)
            }
        })
    };
    (server.await.unwrap(), kept)
}

#[tokio::test]
async fn a_chat_waits_for_its_refused_update_and_others_do_not() {
    let (server, kept) = hook().await;
    let redelivery = Redelivery { first: Duration::from_millis(20), max: Duration::from_millis(20), tries: 10 };
    let sim = start(SimOptions { hook_url: Some(server.url()), redelivery, ..SimOptions::default() }).await;
    let (first, second, other) = tokio::join!(sim.customer_writes(1, "1.1"), sim.customer_writes(1, "1.2"), sim.customer_writes(2, "2.1"));
    assert_eq!((first.tries, second.tries, other.tries), (4, 1, 1));
    assert_eq!(other.dangerous_bodies, 1, "a 2xx body with a method would be executed");
    let order: Vec<String> = locked(&kept).iter().map(|update| update["message"]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(order, ["2.1", "1.1", "1.2"]);
    let ids: Vec<i64> = locked(&kept).iter().map(|update| update["update_id"].as_i64().unwrap()).collect();
    assert!(ids[1] < ids[2]);
}

#[tokio::test]
async fn a_person_can_block_the_bot() {
    let (server, kept) = hook().await;
    let sim = start(SimOptions { hook_url: Some(server.url()), ..SimOptions::default() }).await;
    sim.customer_writes(CHAT, "/start").await;
    assert!(sim.set_blocked(CHAT, true).await.accepted);
    assert_eq!(call(&sim, TOKEN, "sendMessage", text(CHAT, "x")).await.unwrap().0.status, 403);
    sim.set_blocked(CHAT, false).await;
    assert_eq!(call(&sim, TOKEN, "sendMessage", text(CHAT, "x")).await.unwrap().0.status, 200);
    assert_eq!(locked(&kept)[1]["my_chat_member"]["new_chat_member"]["status"], "kicked");
}

#[tokio::test]
async fn people_can_write() {
    let (server, kept) = hook().await;
    let sim = start(SimOptions::default()).await;
    let url = format!("{}/hooks", server.url());
    assert_eq!(call(&sim, TOKEN, "setWebhook", json!({ "url": "https://example.org/" })).await.unwrap().0.status, 400);
    assert_eq!(call(&sim, TOKEN, "setWebhook", json!({ "url": url })).await.unwrap().0.status, 200);
    let client = Client::new(Duration::from_secs(5));
    let response = client.post(&format!("{}/sim/message", sim.url()), &[], r#"{"from":4711,"text":"hi"}"#).await.unwrap();
    assert_eq!(response.status, 202);
    for _ in 0..500 {
        if !locked(&kept).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(locked(&kept)[0]["message"]["chat"]["id"], CHAT);
}
