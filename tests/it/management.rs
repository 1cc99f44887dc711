//! Tenants, accounts, endpoints and keys; isolation; secrets.

use serde_json::{Value, json};
use system_tests::{PHONE, System};

async fn as_key(system: &System, key: &str, method: &str, path: &str, body: &Value) -> bench::http::Response {
    let authorization = format!("Bearer {key}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    system.call(method, path, &[("authorization", &authorization)], &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_sees_nothing() {
    let system = System::start().await;
    system.whatsapp.customer_writes(PHONE, "canary of the first tenant").await;
    let received = system.event("message.received", |_| true).await;
    let event = system_tests::body(&received);
    let message = system.send(system.text(PHONE, "answer")).await;
    system.until_status(&message, "read").await;
    let other = system.ok("POST", "/v1/tenants", &json!({"name": "other"})).await;
    let key = other["key"].as_str().expect("a new tenant comes with its first key").to_owned();
    let inbound = event["data"]["message"]["id"].as_str().unwrap();
    let conversation = event["data"]["conversation"].as_str().unwrap();
    let paths = [
        format!("/v1/messages/{message}"),
        format!("/v1/messages/{inbound}"),
        format!("/v1/accounts/{}", system.wa_account),
        format!("/v1/endpoints/{}", system.endpoint),
        format!("/v1/conversations/{conversation}"),
        format!("/v1/events/{}", event["id"].as_str().unwrap()),
        format!("/v1/messages?conversation={conversation}"),
        "/v1/accounts".into(),
        "/v1/endpoints".into(),
        "/v1/events".into(),
    ];
    for path in &paths {
        let mine = system.call("GET", path, &[], "").await;
        assert_eq!(mine.status, 200, "{path}");
        let theirs = as_key(&system, &key, "GET", path, &Value::Null).await;
        let text = String::from_utf8_lossy(&theirs.body).into_owned();
        assert!(matches!(theirs.status, 200 | 404), "{path} answered {}", theirs.status);
        for canary in ["canary of the first", PHONE, &system.wa_account, &system.endpoint, &message] {
            let echoed = path.contains(canary);
            assert!(echoed || !text.contains(canary), "{path} shows {canary}: {text}");
        }
    }
    let send = json!({"account": system.wa_account, "to": {"phone": format!("+{PHONE}")}, "type": "text", "text": {"body": "x"}});
    assert_eq!(as_key(&system, &key, "POST", "/v1/messages", &send).await.status, 422);
    assert_eq!(as_key(&system, &key, "DELETE", &format!("/v1/endpoints/{}", system.endpoint), &Value::Null).await.status, 404);
    assert!(matches!(as_key(&system, &key, "GET", "/v1/tenants", &Value::Null).await.status, 403 | 404));
    assert_eq!(system.whatsapp.accepted().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_have_scopes_and_end() {
    let system = System::start().await;
    let made = system.ok("POST", "/v1/keys", &json!({"name": "reader", "scopes": ["messages:read"]})).await;
    let (id, key) = (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned());
    assert!(key.starts_with("tl_sk_"));
    assert!(matches!(
        as_key(&system, &key, "GET", &format!("/v1/windows?account={}&to=%2B{PHONE}", system.wa_account), &Value::Null).await.status,
        200
    ));
    assert_eq!(as_key(&system, &key, "POST", "/v1/messages", &system.text(PHONE, "x")).await.status, 403);
    assert_eq!(as_key(&system, &key, "POST", "/v1/accounts", &json!({})).await.status, 403);
    system.call("DELETE", &format!("/v1/keys/{id}"), &[], "").await;
    assert_eq!(as_key(&system, &key, "GET", "/v1/accounts", &Value::Null).await.status, 401);
    let shown = system.call("GET", "/v1/keys", &[], "").await;
    assert!(!String::from_utf8_lossy(&shown.body).contains(&key));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_write_only_rotate_and_are_sealed() {
    let mut system = System::start().await;
    let path = format!("/v1/accounts/{}", system.wa_account);
    let shown = system.get(&path).await.to_string();
    assert!(!shown.contains("sim-secret") && !shown.contains("sim-token") && !shown.contains("verify-me"), "{shown}");
    // The new secret signs, and so does the one before, until it is revoked.
    system.ok("PATCH", &path, &json!({"app_secret": "another-secret-0123456789"})).await;
    assert!(system.whatsapp.customer_writes(PHONE, "signed with the one before").await.accepted);
    system.ok("POST", &format!("{path}/revoke-previous"), &Value::Null).await;
    let client = bench::http::Client::new(std::time::Duration::from_secs(5));
    let body = system.whatsapp.message_body(&bench::platform::whatsapp::CustomerMessage::text(PHONE, "old"));
    let (name, signature) = system.whatsapp.signature(&body);
    let response = client.post(&system.hook("whatsapp", &system.wa_account), &[(name, &signature)], body).await.unwrap();
    assert_eq!(response.status, 403, "a revoked secret signs nothing");
    // Stopped, the disk holds neither secrets nor what was said.
    system.event("message.received", |_| true).await;
    assert_eq!(system.process.terminate().await, Some(0));
    let canaries: [&[u8]; 7] = [
        b"another-secret-0123456789",
        b"sim-secret",
        b"sim-token",
        b"signed with the one before",
        PHONE.as_bytes(),
        system.secret.as_bytes(),
        system.key.as_bytes(),
    ];
    let mut searched = 0;
    for file in files(&system.data_dir()) {
        let bytes = std::fs::read(&file).unwrap();
        searched += bytes.len();
        for canary in canaries {
            let found = bytes.windows(canary.len()).any(|window| window == canary);
            assert!(!found, "{} holds {}", file.display(), String::from_utf8_lossy(canary));
        }
    }
    assert!(searched > 1000, "there was something to search");
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_management_requests_are_named() {
    let system = System::start().await;
    // (method, path, body, status)
    let table = [
        ("POST", "/v1/accounts", json!({"channel": "pigeon"}), 422),
        ("POST", "/v1/accounts", json!({"channel": "whatsapp", "name": "x"}), 422),
        ("POST", "/v1/accounts", json!({"channel": "telegram", "name": "x", "bot_token": "x", "secret_token": "bad token!"}), 422),
        ("POST", "/v1/endpoints", json!({"url": "ftp://x", "events": ["*"]}), 422),
        ("POST", "/v1/endpoints", json!({"url": "https://10.0.0.1/", "events": ["*"]}), 422),
        ("POST", "/v1/endpoints", json!({"url": "https://crm.example/", "events": ["mesage.received"]}), 422),
        ("POST", "/v1/keys", json!({"name": "x", "scopes": ["everything"]}), 422),
        ("PATCH", "/v1/accounts/acc_aaaaaaaaaaaaaaaaaaaaaaaaaa", json!({"name": "x"}), 404),
    ];
    for (method, path, body, status) in table {
        let response = system.call(method, path, &[], &body.to_string()).await;
        assert_eq!(response.status, status, "{method} {path} {body}: {}", String::from_utf8_lossy(&response.body));
    }
    let path = format!("/v1/endpoints/{}", system.endpoint);
    let stale = system.call("PATCH", &path, &[("if-match", "\"999\"")], r#"{"name":"x"}"#).await;
    assert_eq!(stale.status, 412);
}

#[tokio::test(flavor = "multi_thread")]
async fn restriction_keeps_and_does_not_use() {
    let system = System::start().await;
    system.whatsapp.customer_writes(PHONE, "before").await;
    let event = system_tests::body(&system.event("message.received", |_| true).await);
    let conversation = event["data"]["conversation"].as_str().unwrap().to_owned();
    system.ok("PATCH", &format!("/v1/conversations/{conversation}/contact"), &json!({"restricted": true})).await;
    for _ in 0..100 {
        if system.get(&format!("/v1/conversations/{conversation}")).await["restricted"] == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    system.whatsapp.customer_writes(PHONE, "while restricted").await;
    let response = system.call("POST", "/v1/messages", &[], &system.text(PHONE, "x").to_string()).await;
    assert_eq!(response.status, 422);
    let list = format!("/v1/messages?conversation={conversation}");
    for _ in 0..100 {
        if system.get(&list).await.to_string().contains("while restricted") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(system.get(&list).await.to_string().contains("while restricted"), "it is kept");
    let told = system.inbox.received().iter().any(|received| String::from_utf8_lossy(&received.body).contains("while restricted"));
    assert!(!told, "and not told");
}
