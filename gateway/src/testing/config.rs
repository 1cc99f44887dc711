//! Tenants, accounts, endpoints, keys; and the admin listener.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::hooks::{signature, whatsapp_message};
use super::{APP_SECRET, START, World};

#[tokio::test]
async fn an_account_keeps_its_secrets_to_itself_and_rotates_them() {
    World::run(async |world| {
        let id = world.whatsapp().await;
        let path = format!("/v1/accounts/{id}");
        let shown = world.call("GET", &path, &Value::Null).await;
        let account = shown.json();
        assert_eq!(account["access_token"], json!({"set_at": START}));
        assert_eq!(account["phone_number_id"], "106540352242922");
        assert_eq!(account["hook_url"], format!("https://gw.example/hooks/whatsapp/{id}"));
        assert_eq!(shown.header("etag"), "\"1\"");
        let text = String::from_utf8_lossy(&shown.body).into_owned();
        assert!(!text.contains(APP_SECRET) && !text.contains("EAAtoken"), "{text}");
        let cached = world.keyed(&world.key, "GET", &path, &[("if-none-match", "\"1\"")], "").await;
        assert_eq!((cached.status, cached.body.len()), (304, 0));

        let takes = async |secret: &str| {
            let body = whatsapp_message("15550100", secret);
            let signed = signature(secret, body.as_bytes());
            world.open("POST", &format!("/hooks/whatsapp/{id}"), &[("x-hub-signature-256", &signed)], body).await.status == 200
        };
        let patch = async |secret: &str| world.call("PATCH", &path, &json!({"app_secret": secret})).await.status;
        assert_eq!(patch("second-secret").await, 200);
        assert_eq!(patch("second-secret").await, 200, "the same again is no rotation");
        assert_eq!((takes(APP_SECRET).await, takes("second-secret").await), (true, true));
        assert_eq!(patch("third-secret").await, 200);
        assert_eq!((takes(APP_SECRET).await, takes("second-secret").await, takes("third-secret").await), (false, true, true));
        assert_eq!(world.call("POST", &format!("{path}/revoke-previous"), &Value::Null).await.status, 200);
        assert_eq!((takes("second-secret").await, takes("third-secret").await), (false, true));
    })
    .await;
}

#[tokio::test]
async fn changes_of_accounts_and_their_refusals() {
    World::run(async |world| {
        let id = world.whatsapp().await;
        let path = format!("/v1/accounts/{id}");
        let patched = world.call("PATCH", &path, &json!({"name": "renamed", "business_account_id": "77"})).await;
        assert_eq!((patched.json()["name"].clone(), patched.header("etag")), (json!("renamed"), "\"2\""));
        let without = world.call("PATCH", &path, &json!({"business_account_id": null})).await.json();
        assert_eq!(without["business_account_id"], Value::Null);
        for (tag, status) in [("\"1\"", 412), ("\"3\"", 200), ("*", 200)] {
            let answer = world.keyed(&world.key, "PATCH", &path, &[("if-match", tag)], json!({"name": "x"}).to_string()).await;
            assert_eq!(answer.status, status, "{tag}: {answer:?}");
        }
        let base = json!({"channel": "whatsapp", "name": "n", "phone_number_id": "1", "access_token": "t", "app_secret": "s", "verify_token": "v"});
        let with = |name: &str, value: Value| {
            let mut body = base.clone();
            body[name] = value;
            body
        };
        let table: [(Value, &[&str]); 8] = [
            (json!({"channel": "pigeon", "name": "x"}), &["/channel"]),
            (json!({}), &["/channel"]),
            (json!({"channel": "whatsapp"}), &["/name", "/phone_number_id", "/access_token", "/app_secret", "/verify_token"]),
            (with("phone_number_id", json!("+1555")), &["/phone_number_id"]),
            (with("app_secret", json!("")), &["/app_secret"]),
            (with("app_secret", Value::Null), &["/app_secret"]),
            (with("api_base", json!("http://169.254.169.254/")), &["/api_base"]),
            (with("bot_token", json!("x")), &["/bot_token"]),
        ];
        for (body, pointers) in table {
            let answer = world.call("POST", "/v1/accounts", &body).await;
            assert_eq!(answer.status, 422, "{body}: {answer:?}");
            assert_eq!(answer.pointers().iter().filter(|one| pointers.contains(&one.as_str())).count(), pointers.len(), "{body}: {answer:?}");
        }
        assert_eq!(world.call("PATCH", &path, &json!({"channel": "telegram"})).await.pointers(), ["/channel"]);
        let resumed = world.call("POST", &format!("{path}/pause"), &Value::Null).await.json();
        assert_eq!(resumed["state"], "paused");
        assert_eq!(world.call("POST", &format!("{path}/resume"), &Value::Null).await.json()["state"], "active");
        assert_eq!(world.call("DELETE", &path, &Value::Null).await.status, 204);
        assert_eq!(world.call("GET", &path, &Value::Null).await.status, 404);
        world.store.away.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(world.call("POST", "/v1/accounts", &base).await.code(), "store-unavailable");
    })
    .await;
}

#[tokio::test]
async fn a_check_asks_the_platform_and_shows_no_token() {
    World::run(async |world| {
        let id = world.telegram().await;
        let path = format!("/v1/accounts/{id}/check");
        type Case = (Result<(u16, &'static str), &'static str>, bool);
        let cases: [Case; 3] = [
            (Ok((200, r#"{"ok":true,"result":{"username":"shop_bot"}}"#)), true),
            (Ok((401, r#"{"ok":false}"#)), false),
            (Err("cannot connect to bot123456:AAbbccddeeffgghhiijjkkllmmnnooppqqr"), false),
        ];
        for (answer, is_ok) in cases {
            *world.caller.answer.lock().unwrap() = Some(answer);
            let checked = world.call("POST", &path, &Value::Null).await;
            assert_eq!((checked.status, checked.json()["ok"].clone()), (200, json!(is_ok)), "{checked:?}");
            assert!(!String::from_utf8_lossy(&checked.body).contains("AAbbcc"), "{checked:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn endpoints_live_and_sign_their_test() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let body = json!({"name": "crm", "url": "https://crm.example/hook", "events": ["message.*", "trunkline.test"], "accounts": [account],
            "headers": {"X-Api-Key": "k1"}, "rate": 50, "timeout": "5s"});
        let made = world.made("/v1/endpoints", body).await;
        let (id, secret) = (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned());
        assert_eq!(BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap().len(), 32);
        let path = format!("/v1/endpoints/{id}");
        let shown = world.call("GET", &path, &Value::Null).await.json();
        assert_eq!(shown.get("secret"), None, "shown once");
        assert_eq!((&shown["timeout"], &shown["rate"], &shown["headers"]), (&json!("5s"), &json!(50), &json!({"x-api-key": {"set": true}})));

        *world.caller.answer.lock().unwrap() = Some(Ok((204, "")));
        let rotated = world.call("POST", &format!("{path}/rotate-secret"), &Value::Null).await.json()["secret"].as_str().unwrap().to_owned();
        let tested = world.call("POST", &format!("{path}/test"), &Value::Null).await.json();
        assert_eq!((&tested["delivered"], &tested["status"]), (&json!(true), &json!(204)));
        let request = world.caller.requests.lock().unwrap().pop().unwrap();
        let header = |name: &str| request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_str().unwrap().to_owned()).unwrap();
        assert_eq!(header("x-api-key"), "k1");
        assert_eq!(header("webhook-id"), tested["event"].as_str().unwrap());
        let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), String::from_utf8_lossy(&request.body));
        let signatures: Vec<String> = [&rotated, &secret]
            .into_iter()
            .map(|secret| {
                let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
                let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
                mac.update(signed.as_bytes());
                format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
            })
            .collect();
        assert_eq!(header("webhook-signature"), signatures.join(" "), "both during the overlap, the new one first");
        let event: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(event["type"], "trunkline.test");
        world.clock.advance(std::time::Duration::from_secs(24 * 3600));
        world.call("POST", &format!("{path}/test"), &Value::Null).await;
        let later = world.caller.requests.lock().unwrap().pop().unwrap();
        let count = later.headers.iter().find(|(name, _)| name == "webhook-signature").unwrap().1.to_str().unwrap().split(' ').count();
        assert_eq!(count, 1, "the old secret signs no more");

        *world.caller.answer.lock().unwrap() = Some(Err("no connection"));
        assert_eq!(world.call("POST", &format!("{path}/test"), &Value::Null).await.json()["delivered"], false);
        for (verb, state) in [("pause", "paused"), ("resume", "active")] {
            assert_eq!(world.call("POST", &format!("{path}/{verb}"), &Value::Null).await.json()["state"], state);
        }
        let good = json!({"url": "https://x.example", "events": ["*"]});
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            body[name] = value;
            body
        };
        let table = [
            (json!({}), "/url"),
            (with("url", json!("ftp://x")), "/url"),
            (with("url", json!("http://127.0.0.1/")), "/url"),
            (with("events", json!([])), "/events"),
            (with("events", json!(["mesage.received"])), "/events"),
            (with("accounts", json!([format!("acc_{}", "a".repeat(26))])), "/accounts"),
            (with("headers", json!({"webhook-id": "x"})), "/headers/webhook-id"),
            (with("headers", json!({"Host": "x"})), "/headers/Host"),
            (with("headers", json!({"a b": "x"})), "/headers/a b"),
            (with("headers", json!({"x": "a\nb"})), "/headers/x"),
            (with("timeout", json!("5m")), "/timeout"),
            (with("rate", json!(-1)), "/rate"),
            (with("format", json!("raw")), "/format"),
            (with("secret", json!("whsec_mine")), "/secret"),
        ];
        for (body, pointer) in table {
            let answer = world.call("POST", "/v1/endpoints", &body).await;
            assert!(answer.status == 422 && answer.pointers().contains(&pointer.to_owned()), "{body}: {answer:?}");
        }
        assert_eq!(world.call("DELETE", &path, &Value::Null).await.status, 204);
    })
    .await;
}

#[tokio::test]
async fn keys_and_tenants() {
    World::run(async |world| {
        let made = world.made("/v1/keys", json!({"name": "ops", "scopes": ["config:read", "config:write"]})).await;
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        assert!(crate::token::is_sound(key));
        let listed = world.call("GET", "/v1/keys", &Value::Null).await;
        assert!(!String::from_utf8_lossy(&listed.body).contains(key));
        // No key makes one that may do more than itself.
        for scope in ["admin", "messages:send"] {
            let body = json!({"name": "x", "scopes": [scope]}).to_string();
            assert_eq!(world.keyed(key, "POST", "/v1/keys", &[], body).await.status, 403, "{scope}");
        }
        let tenant = world.made("/v1/tenants", json!({"name": "other"})).await;
        let for_other = json!({"name": "x", "scopes": ["config:read"], "tenant": tenant["id"]});
        assert_eq!(world.keyed(key, "POST", "/v1/keys", &[], for_other.to_string()).await.status, 403);
        let theirs = world.made("/v1/keys", for_other).await;
        assert_eq!(theirs["tenant"], tenant["id"]);
        for (body, pointer) in [
            (json!({"scopes": ["admin"]}), "/name"),
            (json!({"name": "x", "scopes": []}), "/scopes"),
            (json!({"name": "x", "scopes": ["everything"]}), "/scopes"),
            (json!({"name": "x", "scopes": ["admin"], "expires_at": "2001-01-01T00:00:00Z"}), "/expires_at"),
            (json!({"name": "x", "scopes": ["admin"], "tenant": format!("ten_{}", "a".repeat(26))}), "/tenant"),
        ] {
            assert_eq!(world.call("POST", "/v1/keys", &body).await.pointers(), [pointer], "{body}");
        }
        assert_eq!(world.call("DELETE", &format!("/v1/keys/{id}"), &Value::Null).await.status, 204);
        assert_eq!(world.keyed(key, "GET", "/v1/accounts", &[], "").await.status, 401);

        let path = format!("/v1/tenants/{}", tenant["id"].as_str().unwrap());
        assert_eq!(world.call("PATCH", &path, &json!({"name": "renamed"})).await.json()["name"], "renamed");
        let first = tenant["key"].as_str().unwrap();
        assert_eq!(world.keyed(first, "GET", "/v1/tenants", &[], "").await.status, 403, "a tenant's first key administers nothing");
        assert_eq!(world.call("DELETE", &path, &Value::Null).await.status, 204);
        assert_eq!(world.keyed(first, "GET", "/v1/accounts", &[], "").await.status, 401);
        let own = format!("/v1/tenants/{}", world.tenant());
        assert_eq!(world.call("DELETE", &own, &Value::Null).await.status, 422, "nobody locks itself out");
        let mut path = "/v1/tenants?limit=1".to_owned();
        for _ in 0..3 {
            world.made("/v1/tenants", json!({"name": "more"})).await;
        }
        let mut count = 0;
        loop {
            let page = world.call("GET", &path, &Value::Null).await;
            count += page.json()["data"].as_array().unwrap().len();
            let Some(cursor) = page.json()["next_cursor"].as_str().map(str::to_owned) else { break };
            assert!(page.header("link").contains("rel=\"next\""));
            path = format!("/v1/tenants?limit=1&cursor={cursor}");
        }
        assert_eq!(count, 4);
    })
    .await;
}

#[tokio::test]
async fn the_admin_listener() {
    World::run(async |world| {
        let bearer = format!("Bearer {}", world.key);
        let plain = world.made("/v1/keys", json!({"name": "x", "scopes": ["config:read"]})).await;
        let plain = format!("Bearer {}", plain["key"].as_str().unwrap());
        let admin = async |method: &str, path: &str, authorization: &str| {
            let headers = [("authorization", authorization)];
            world.request(&world.admin, method, path, &headers, "").await
        };
        for (method, path, authorization, status) in [
            ("GET", "/livez", "", 200),
            ("GET", "/readyz", "", 200),
            ("GET", "/metrics", "", 200),
            ("POST", "/metrics", "", 405),
            ("GET", "/admin/drain", "", 405),
            ("POST", "/admin/drain", "", 401),
            ("POST", "/admin/drain", plain.as_str(), 403),
            ("POST", "/admin/clock", bearer.as_str(), 404),
            ("GET", "/admin/tail", bearer.as_str(), 404),
            ("GET", "/v1/accounts", bearer.as_str(), 404),
            ("POST", "/admin/drain", bearer.as_str(), 202),
        ] {
            let answer = admin(method, path, authorization).await;
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        }
        for path in ["/metrics", "/livez", "/readyz", "/admin/drain"] {
            assert_eq!(world.open("GET", path, &[], "").await.status, 404, "{path} is not public");
        }
        let ready = async || {
            let answer = admin("GET", "/readyz?verbose", "").await;
            (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
        };
        world.store.away.store(true, std::sync::atomic::Ordering::SeqCst);
        let (status, text) = ready().await;
        assert!(status == 200 && text.contains("store: away"), "ingress goes on without the store: {text}");
        world.log.fail_when(|_| None);
        let (status, text) = ready().await;
        assert!(status == 503 && text.contains("log: not ready"), "{text}");
        let page = world.open("GET", "/problems/window-closed", &[], "").await;
        assert!(page.status == 200 && page.header("content-type").starts_with("text/html"));
        assert_eq!(world.open("GET", "/problems/nothing", &[], "").await.status, 404);
    })
    .await;
}
