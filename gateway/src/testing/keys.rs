//! API keys: what they may, until when, and that secrets are kept sealed.

use std::time::Duration;

use messaging::clock::Clock;
use messaging::directory::DirectoryRow;
use messaging::store::Store;
use serde_json::{Value, json};

use super::World;

#[tokio::test]
async fn a_key_has_a_budget() {
    let options = crate::Options { api_per_key: 1.0, api_burst: 3.0, ..crate::Options::default() };
    World::run_with(options, async |world| {
        for _ in 0..3 {
            assert_eq!(world.call("GET", "/v1/accounts", &Value::Null).await.status, 200);
        }
        let answer = world.call("GET", "/v1/accounts", &Value::Null).await;
        assert_eq!((answer.status, answer.code().as_str()), (429, "quota-exceeded"));
        assert_eq!(answer.header("retry-after"), "1");
        assert!(answer.header("ratelimit-policy").starts_with("\"key\";q=3"));
        assert_eq!(answer.json()["retryable"], true);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.call("GET", "/v1/accounts", &Value::Null).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn an_expired_key_is_no_key() {
    World::run(async |world| {
        let until = world.clock.now().plus(Duration::from_secs(60)).to_string();
        let made = world.made("/v1/keys", json!({"name": "short", "scopes": ["config:read"], "expires_at": until})).await;
        let key = made["key"].as_str().unwrap();
        assert_eq!(world.keyed(key, "GET", "/v1/accounts", &[], "").await.status, 200);
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(world.keyed(key, "GET", "/v1/accounts", &[], "").await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn no_row_of_the_directory_holds_a_secret_in_the_open() {
    World::run(async |world| {
        world.whatsapp().await;
        let made = world
            .made("/v1/endpoints", json!({"url": "https://crm.example/x", "events": ["*"], "headers": {"x-api-key": "canary-header"}}))
            .await;
        let secret = made["secret"].as_str().unwrap();
        let (_, rows) = world.store.directory().await.unwrap();
        for canary in [secret, &secret[6..], "canary-header", "EAAtoken", super::APP_SECRET, "verify-me", &world.key] {
            for (id, bytes) in &rows {
                let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
                assert!(!found, "{id} holds {canary}");
                assert!(postcard::from_bytes::<DirectoryRow>(bytes).is_ok());
            }
        }
    })
    .await;
}
