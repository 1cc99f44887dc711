use std::sync::atomic::AtomicU32;

use super::*;
use crate::http::{Client, ClientError, Response, reply};
use crate::platform::{Answer, Fate, Redelivery, StatusDelays, WindowRule};

const PHONE: &str = "+1 555 0100";

/// A hook that keeps bodies with their signatures, and refuses the first `refusals` of them.
async fn hook(refusals: u32) -> (Server, Arc<Mutex<Vec<(String, Bytes)>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let left = Arc::new(AtomicU32::new(refusals));
    let server = {
        let kept = kept.clone();
        Server::start("127.0.0.1:0".parse().unwrap(), move |mut request: Request| {
            let (kept, left) = (kept.clone(), left.clone());
            async move {
                let body = request.body().await.unwrap();
                if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                    return reply(503, "text/plain", "");
                }
                locked(&kept).push((request.header("x-hub-signature-256").unwrap_or_default().to_owned(), body));
                reply(200, "text/plain", "")
            }
        })
    };
    (server.await.unwrap(), kept)
}

async fn start(options: SimOptions) -> WhatsappSim {
    WhatsappSim::start(options).await.unwrap()
}

fn quiet() -> SimOptions {
    SimOptions { statuses: StatusDelays::NONE, ..SimOptions::default() }
}

async fn send(sim: &WhatsappSim, text: &str) -> Result<Response, ClientError> {
    let body = json!({ "messaging_product": "whatsapp", "recipient_type": "individual", "to": PHONE, "type": "text",
        "text": { "body": text }, "biz_opaque_callback_data": format!("msg_{text}") });
    send_raw(sim, "sim-token", &body.to_string()).await
}

async fn send_raw(sim: &WhatsappSim, token: &str, body: &str) -> Result<Response, ClientError> {
    let url = format!("{}/v23.0/106540352242922/messages", sim.url());
    Client::new(Duration::from_millis(300)).post(&url, &[("authorization", &format!("Bearer {token}"))], body.to_owned()).await
}

fn code(response: &Response) -> u64 {
    let value: Value = serde_json::from_slice(&response.body).unwrap();
    value["error"]["code"].as_u64().unwrap()
}

#[tokio::test]
async fn each_scripted_answer_leaves_its_truth_in_the_ledger() {
    let sim = start(quiet()).await;
    sim.open_window(PHONE, sim.now());
    let cases = [
        (Answer::Ok, Some(200), Fate::Accepted),
        (Answer::Error { code: 131_000, http: 500 }, Some(500), Fate::Refused(131_000)),
        (Answer::Status(502), Some(502), Fate::Lost),
        (Answer::ResetBeforeBody, None, Fate::Lost),
        (Answer::ResetAfterBody, None, Fate::AcceptedUnanswered),
        (Answer::LostAfterBody, None, Fate::Lost),
        (Answer::Hang(Duration::from_millis(50)), Some(200), Fate::Accepted),
        (Answer::AcceptThenHang, None, Fate::AcceptedUnanswered),
        (Answer::Garbage2xx, Some(200), Fate::AcceptedUnanswered),
        (Answer::RateLimited { after: Duration::from_secs(1) }, Some(429), Fate::Refused(130_429)),
        (Answer::AcceptThenFail { code: 131_026 }, Some(200), Fate::AcceptedThenFailed(131_026)),
    ];
    for (answer, status, fate) in cases {
        sim.script([answer.clone()]);
        let response = send(&sim, "hello").await;
        assert_eq!(response.ok().map(|response| response.status), status, "{answer:?}");
        let last = sim.calls().pop().unwrap();
        assert_eq!(last.fate, fate, "{answer:?}");
        assert_eq!(last.platform_id.is_some(), fate.is_accepted(), "{answer:?}");
    }
    assert_eq!(sim.accepted().len(), 6);
    assert!(sim.accepted().iter().all(|call| call.text.as_deref() == Some("hello") && call.callback.as_deref() == Some("msg_hello")));
}

#[tokio::test]
async fn bad_requests_are_refused_with_metas_codes() {
    let sim = start(SimOptions { window: WindowRule::Ignore, ..quiet() }).await;
    let cases = [
        ("wrong", r#"{"messaging_product":"whatsapp","to":"1","text":{"body":"x"}}"#, 401, 190),
        ("sim-token", "not json", 400, 100),
        ("sim-token", r#"{"to":"1","text":{"body":"x"}}"#, 400, 100),
        ("sim-token", r#"{"messaging_product":"whatsapp","text":{"body":"x"}}"#, 400, 100),
        ("sim-token", r#"{"messaging_product":"whatsapp","to":"1","text":{"body":""}}"#, 400, 100),
        ("sim-token", r#"{"messaging_product":"whatsapp","to":"1","type":"poll","poll":{}}"#, 400, 100),
        ("sim-token", r#"{"messaging_product":"whatsapp","status":"read","message_id":"x"}"#, 400, 100),
    ];
    for (token, body, status, expected) in cases {
        let response = send_raw(&sim, token, body).await.unwrap();
        assert_eq!((response.status, code(&response)), (status, expected), "{body}");
    }
    assert!(sim.accepted().is_empty());
    let read = r#"{"messaging_product":"whatsapp","status":"read","message_id":"wamid.x","typing_indicator":{"type":"text"}}"#;
    let response = send_raw(&sim, "sim-token", read).await.unwrap();
    assert_eq!((response.status, response.body), (200, Bytes::from(r#"{"success":true}"#)));
    assert_eq!(sim.calls().pop().unwrap().fate, Fate::Receipt);
    let url = format!("{}/v23.0/106540352242922", sim.url());
    let client = Client::new(Duration::from_secs(5));
    assert_eq!(client.get(&url).await.unwrap().status, 401);
    let good = client.send(hyper::Method::GET, &url, &[("authorization", "Bearer sim-token")], Bytes::new()).await.unwrap();
    assert_eq!(good.status, 200);
}

#[tokio::test]
async fn the_window_is_kept_by_the_platforms_own_clock() {
    let sim = start(quiet()).await;
    let refused = send(&sim, "never wrote").await.unwrap();
    assert_eq!((refused.status, code(&refused)), (400, 131_047));
    sim.open_window(PHONE, sim.now());
    sim.set_clock_offset_ms(86_399_000);
    assert_eq!(send(&sim, "just in time").await.unwrap().status, 200);
    sim.set_clock_offset_ms(86_401_000);
    assert_eq!(code(&send(&sim, "too late").await.unwrap()), 131_047);
    let template = r#"{"messaging_product":"whatsapp","to":"15550100","type":"template","template":{"name":"t","language":{"code":"en"}}}"#;
    assert_eq!(send_raw(&sim, "sim-token", template).await.unwrap().status, 200);
    assert_eq!(sim.calls().iter().filter(|call| call.out_of_window()).count(), 2);
}

#[tokio::test]
async fn a_closed_window_may_be_told_later() {
    let (server, kept) = hook(0).await;
    let options = SimOptions { window: WindowRule::FailLater, hook_url: Some(server.url()), ..SimOptions::default() };
    let sim = start(options).await;
    assert_eq!(send(&sim, "x").await.unwrap().status, 200);
    wait_for(&kept, 1).await;
    let body: Value = serde_json::from_slice(&locked(&kept)[0].1).unwrap();
    let status = &body["entry"][0]["changes"][0]["value"]["statuses"][0];
    assert_eq!((&status["status"], &status["errors"][0]["code"]), (&json!("failed"), &json!(131_047)));
}

async fn wait_for(kept: &Mutex<Vec<(String, Bytes)>>, count: usize) {
    for _ in 0..500 {
        if locked(kept).len() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} of {count} webhooks came", locked(kept).len());
}

#[tokio::test]
async fn a_customers_message_is_signed_and_redelivered_until_taken() {
    let (server, kept) = hook(2).await;
    let redelivery = Redelivery { first: Duration::from_millis(1), max: Duration::from_millis(2), tries: 5 };
    let sim = start(SimOptions { hook_url: Some(server.url()), redelivery, copies: 3, ..quiet() }).await;
    let posted = sim.customer_writes(PHONE, "hello").await;
    assert_eq!((posted.accepted, posted.tries, posted.last_status), (true, 5, Some(200)), "three copies and two refusals");
    let kept = locked(&kept).clone();
    assert_eq!(kept.len(), 3);
    for (signature, body) in &kept {
        assert_eq!(signature, &sim.signature(body).1);
        assert_eq!(body, &kept[0].1);
    }
    assert_eq!(send(&sim, "the window is open now").await.unwrap().status, 200);
    assert_eq!(sim.offered()[0].text.as_deref(), Some("hello"));
}

#[tokio::test]
async fn what_nobody_takes_is_given_up() {
    let redelivery = Redelivery { first: Duration::from_millis(1), max: Duration::from_millis(1), tries: 3 };
    let (server, _) = hook(100).await;
    let sim = start(SimOptions { hook_url: Some(server.url()), redelivery, ..quiet() }).await;
    let posted = sim.customer_writes(PHONE, "hello").await;
    assert_eq!((posted.accepted, posted.tries, posted.last_status), (false, 3, Some(503)));
}

#[tokio::test]
async fn statuses_echo_the_callback_and_a_late_hook_still_gets_them() {
    let (server, kept) = hook(0).await;
    let sim = start(SimOptions { shuffle: true, ..SimOptions::default() }).await;
    sim.open_window(PHONE, sim.now());
    sim.script([Answer::ResetAfterBody]);
    assert!(send(&sim, "x").await.is_err());
    sim.set_hook(&server.url());
    wait_for(&kept, 3).await;
    let mut names: Vec<String> = Vec::new();
    for (_, body) in locked(&kept).iter() {
        let body: Value = serde_json::from_slice(body).unwrap();
        let status = &body["entry"][0]["changes"][0]["value"]["statuses"][0];
        assert_eq!(status["biz_opaque_callback_data"], "msg_x");
        assert_eq!(status["id"].as_str(), sim.accepted()[0].platform_id.as_deref());
        names.push(status["status"].as_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["delivered", "read", "sent"]);
}

#[tokio::test]
async fn people_can_write_and_look() {
    let (server, kept) = hook(0).await;
    let sim = start(SimOptions { hook_url: Some(server.url()), ..quiet() }).await;
    let client = Client::new(Duration::from_secs(5));
    let message = format!("{}/sim/message", sim.url());
    assert_eq!(client.post(&message, &[], r#"{"text":"hi"}"#).await.unwrap().status, 400);
    assert_eq!(client.post(&message, &[], r#"{"from":"+15550100","text":"hi","name":"Ada"}"#).await.unwrap().status, 202);
    wait_for(&kept, 1).await;
    assert!(String::from_utf8_lossy(&locked(&kept)[0].1).contains("Ada"));
    send(&sim, "hello back").await.unwrap();
    let ledger = client.get(&format!("{}/sim/ledger", sim.url())).await.unwrap();
    let ledger: Value = serde_json::from_slice(&ledger.body).unwrap();
    assert_eq!(ledger["calls"][0]["text"], "hello back");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_ids() {
    let mut runs = Vec::new();
    for seed in [5, 5, 6] {
        let sim = start(SimOptions { seed, window: WindowRule::Ignore, ..quiet() }).await;
        send(&sim, "a").await.unwrap();
        send(&sim, "b").await.unwrap();
        runs.push(sim.accepted().into_iter().map(|call| call.platform_id).collect::<Vec<_>>());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}
