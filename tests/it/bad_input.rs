//! Every malformed, oversized, forged, replayed or out-of-order request gets its answer; the process serves on.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::{CHAT, PHONE, System};

fn problem(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| panic!("no problem document: {}", String::from_utf8_lossy(body)))
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_webhooks_look_like_unknown_accounts() {
    let system = System::start().await;
    let client = bench::http::Client::new(Duration::from_secs(5));
    let message = bench::platform::whatsapp::CustomerMessage::text(PHONE, "forged");
    let body = system.whatsapp.message_body(&message);
    let (name, good) = system.whatsapp.signature(&body);
    let hook = system.hook("whatsapp", &system.wa_account);
    let nobody = format!("http://{}/hooks/whatsapp/acc_{}", system.process.public, "a".repeat(26));
    let off = format!("http://{}/hooks/messenger/{}", system.process.public, system.wa_account);
    let other_channel = system.hook("telegram", &system.wa_account);
    let mut bent = good.clone().into_bytes();
    let last = bent.len() - 1;
    bent[last] = if bent[last] == b'0' { b'1' } else { b'0' };
    let bent = String::from_utf8(bent).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let long = format!("{good}00");
    let upper = good.to_uppercase();
    let table: [(&str, &str, Option<&str>); 8] = [
        ("no signature", &hook, None),
        ("a bit flipped", &hook, Some(&bent)),
        ("too long", &hook, Some(&long)),
        ("empty", &hook, Some("")),
        ("other case", &hook, Some(&upper)),
        ("unknown account", &nobody, Some(&good)),
        ("channel that is off", &off, Some(&good)),
        ("account of another channel", &other_channel, Some(&good)),
    ];
    for (what, url, signature) in table {
        let headers: Vec<(&str, &str)> = signature.iter().map(|value| (name, *value)).collect();
        let response = client.post(url, &headers, body.clone()).await.expect("an answer");
        assert!((400..500).contains(&response.status), "{what} answered {}", response.status);
        let mut shape: Vec<String> = response.headers.keys().map(ToString::to_string).collect();
        shape.sort();
        seen.insert((response.status, response.body.clone(), shape));
    }
    assert_eq!(seen.len(), 1, "from outside they look alike: {seen:?}");
    let telegram = client.post(&system.hook("telegram", &system.tg_account), &[], r#"{"update_id":1}"#).await.unwrap();
    assert!((400..500).contains(&telegram.status));
    assert!(system.whatsapp.customer_writes(PHONE, "genuine").await.accepted, "the process serves on");
    system.event("message.received", |e| e["data"]["message"]["text"]["body"] == "genuine").await;
    assert_eq!(system.kinds().iter().filter(|kind| *kind == "message.received").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes() {
    let system = System::start().await;
    let client = bench::http::Client::new(Duration::from_secs(5));
    let hook = system.hook("whatsapp", &system.wa_account);
    let good = format!("{hook}?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=verify-me");
    let response = client.get(&good).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"1158201444"[..]));
    assert!(response.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert_eq!(response.headers["x-content-type-options"], "nosniff");
    for (query, status) in [
        ("hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong", 403),
        ("hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=verify-me", 403),
        ("hub.mode=subscribe&hub.verify_token=verify-me", 400),
        ("", 403),
    ] {
        let response = client.get(&format!("{hook}?{query}")).await.unwrap();
        assert_eq!(response.status, status, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authentic_but_unparsable_is_kept() {
    let system = System::start().await;
    let client = bench::http::Client::new(Duration::from_secs(5));
    let hook = system.hook("whatsapp", &system.wa_account);
    for body in ["not json", r#"{"object":"something else"}"#, "[]", "\u{0}"] {
        let (name, signature) = system.whatsapp.signature(body.as_bytes());
        let response = client.post(&hook, &[(name, &signature)], body).await.unwrap();
        assert_eq!((response.status, response.body.len()), (200, 0), "{body:?}: taken, with an empty body");
    }
    for _ in 0..200 {
        let metrics = String::from_utf8(system.admin("/metrics").await.body.to_vec()).unwrap();
        let wanted = r#"trunkline_router_records_total{direction="inbound",channel="whatsapp",outcome="quarantined"} "#;
        let count = metrics.lines().find_map(|line| line.strip_prefix(wanted)).and_then(|n| n.parse::<f64>().ok());
        if count.is_some_and(|count| count >= 3.0) {
            return dead_letters_are_shown_and_dropped(&system).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never quarantined");
}

async fn dead_letters_are_shown_and_dropped(system: &System) {
    let json = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap();
    let listed = json(&system.call("GET", "/v1/dead-letters", &[], "").await.body);
    let rows = listed["data"].as_array().unwrap().clone();
    assert!(rows.len() >= 3, "{listed}");
    for row in rows {
        assert_eq!((row["kind"].as_str(), row["reason"].as_str()), (Some("unparsable"), Some("unparsable")), "{row}");
        let path = format!("/v1/dead-letters/{}/{}", row["tenant"].as_str().unwrap(), row["id"].as_str().unwrap());
        let shown = system.call("GET", &path, &[], "").await;
        assert_eq!(shown.status, 200);
        assert!(json(&shown.body)["body"].is_string(), "as it came");
        assert_eq!(system.call("POST", &format!("{path}/requeue"), &[], "").await.status, 422);
        assert_eq!(system.call("DELETE", &path, &[], "").await.status, 204);
        assert_eq!(system.call("GET", &path, &[], "").await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_requests() {
    let system = System::start().await;
    let client = bench::http::Client::new(Duration::from_secs(20));
    let hook = system.hook("whatsapp", &system.wa_account);
    // 3 MB is what WhatsApp sends at most; 4 MiB is the limit.
    let message = bench::platform::whatsapp::CustomerMessage::text(PHONE, &"x".repeat(3_000_000));
    let body = system.whatsapp.message_body(&message);
    let (name, signature) = system.whatsapp.signature(&body);
    let response = client.post(&hook, &[(name, &signature)], body).await.unwrap();
    assert_eq!(response.status, 200, "3 MB are taken");
    let big = vec![b'x'; (4 << 20) + 1];
    let (name, signature) = system.whatsapp.signature(&big);
    let response = client.post(&hook, &[(name, &signature)], big).await;
    assert!(response.is_err() || response.unwrap().status == 413, "more than 4 MiB is not taken");
    let (name, signature) = system.whatsapp.signature(b"{}");
    let response = client.post(&hook, &[(name, &signature), ("content-encoding", "gzip")], "{}").await.unwrap();
    assert_eq!(response.status, 415);
    let long = format!("{hook}?{}", "q".repeat(9000));
    let response = client.get(&long).await.unwrap();
    assert!(matches!(response.status, 414 | 431), "{}", response.status);
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    let response = system.call("POST", "/v1/messages", &[], &deep).await;
    assert!(matches!(response.status, 400 | 422), "{}", response.status);
    let large = json!({"account": system.wa_account, "x": "y".repeat(1 << 20)}).to_string();
    let response = system.try_call("POST", "/v1/messages", &[], &large).await;
    assert!(response.is_none_or(|response| response.status == 413));
    assert!(system.whatsapp.customer_writes("15550999", "still there").await.accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_sends_name_every_fault() {
    let system = System::start().await;
    let account = system.wa_account.clone();
    // (body, status, code, pointers that must be named)
    let table: Vec<(String, u16, &str, Vec<&str>)> = vec![
        ("".into(), 400, "malformed", vec![]),
        ("{".into(), 400, "malformed", vec![]),
        ("[]".into(), 422, "validation-failed", vec![]),
        (json!({}).to_string(), 422, "validation-failed", vec!["/account", "/to", "/type"]),
        (
            json!({"account": account, "to": {"phone": "abc"}, "type": "text", "text": {"body": ""}, "colour": 1}).to_string(),
            422,
            "validation-failed",
            vec!["/to/phone", "/text/body", "/colour"],
        ),
        (
            json!({"account": account, "to": {"phone": "+15550100"}, "type": "interactive",
                "interactive": {"body": "x".repeat(1025), "buttons": [
                    {"id": "a", "title": "t".repeat(21)}, {"id": "a", "title": "b"}, {"id": "c", "title": "c"}, {"id": "d", "title": "d"}]}})
            .to_string(),
            422,
            "validation-failed",
            vec!["/interactive/body"],
        ),
        (
            json!({"account": format!("acc_{}", "a".repeat(26)), "to": {"phone": "+15550100"}, "type": "text", "text": {"body": "x"}}).to_string(),
            422,
            "validation-failed",
            vec!["/account"],
        ),
        (
            json!({"account": account, "to": {"phone": "+15550100"}, "type": "text", "text": {"body": "x"}, "expires_in": "soon",
                "callback_data": "c".repeat(513)})
            .to_string(),
            422,
            "validation-failed",
            vec!["/expires_in", "/callback_data"],
        ),
    ];
    for (body, status, code, pointers) in table {
        let response = system.call("POST", "/v1/messages", &[], &body).await;
        let problem = problem(&response.body);
        assert_eq!((response.status, problem["code"].as_str()), (status, Some(code)), "{body}: {problem:#}");
        assert!(response.headers["content-type"].to_str().unwrap().starts_with("application/problem+json"));
        assert!(problem["request_id"].is_string() && problem["type"].is_string() && problem["retryable"].is_boolean());
        let named: Vec<&str> = problem["errors"].as_array().into_iter().flatten().filter_map(|error| error["pointer"].as_str()).collect();
        for pointer in pointers {
            assert!(named.iter().any(|name| name.starts_with(pointer)), "{pointer} is not named for {body}: {named:?}");
        }
    }
    assert!(system.whatsapp.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_methods() {
    let system = System::start().await;
    // (method, path, authorization, status)
    let table = [
        ("GET", "/v1/messages/msg_aaaaaaaaaaaaaaaaaaaaaaaaaa", None, 401),
        ("GET", "/v1/messages/msg_aaaaaaaaaaaaaaaaaaaaaaaaaa", Some("Bearer tl_sk_wrong"), 401),
        ("GET", "/v1/messages/msg_aaaaaaaaaaaaaaaaaaaaaaaaaa", Some("Basic abc"), 401),
        ("GET", "/v1/nothing", Some("good"), 404),
        ("GET", "/v1/messages/msg_aaaaaaaaaaaaaaaaaaaaaaaaaa", Some("good"), 404),
        ("GET", "/v1/messages/nonsense", Some("good"), 404),
        ("PUT", "/v1/messages", Some("good"), 405),
        ("GET", "/admin/clock", Some("good"), 404),
        ("GET", "/metrics", Some("good"), 404),
    ];
    for (method, path, authorization, status) in table {
        let good = format!("Bearer {}", system.key);
        let value = match authorization {
            Some("good") => good.as_str(),
            Some(other) => other,
            None => "",
        };
        let response = system.call(method, path, &[("authorization", value)], "").await;
        assert_eq!(response.status, status, "{method} {path} with {authorization:?}");
        if status == 401 {
            assert!(response.headers.contains_key("www-authenticate"));
        }
        if status == 405 {
            assert!(response.headers.contains_key("allow"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn telegram_answers_stay_empty() {
    let system = System::start().await;
    for n in 0..5 {
        let posted = system.telegram.customer_writes(CHAT + n, "hi").await;
        assert!(posted.accepted);
        assert_eq!(posted.dangerous_bodies, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_cut() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let setup = system_tests::Setup { config: "[http]\nheader_timeout = \"1s\"\nbody_timeout = \"1s\"\n".into(), ..Default::default() };
    let system = System::with(setup).await;
    for head in
        ["POST /hooks/whatsapp/x HTTP/1.1\r\nhost: x\r\n", "POST /hooks/whatsapp/x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"]
    {
        let mut stream = tokio::net::TcpStream::connect(system.process.public).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection was never cut: {head:?}");
    }
}
