//! A serving thread that is overrun: who is refused, and how.

use std::time::Duration;

use serde_json::json;

use super::{Answer, SECRET_TOKEN, World};

const UPDATE: &str = r#"{"update_id":1,"message":{"message_id":1,"date":1795168800,"chat":{"id":4711,"type":"private"},"text":"x"}}"#;

async fn bot(world: &World, key: &str) -> String {
    let body = json!({"channel": "telegram", "name": "bot", "bot_token": "123456:AAbbccddeeffgghhiijjkkllmmnnooppqqr",
        "secret_token": SECRET_TOKEN});
    let made = world.keyed(key, "POST", "/v1/accounts", &[], body.to_string()).await;
    format!("/hooks/telegram/{}", made.json()["id"].as_str().unwrap())
}

async fn update(world: &World, hook: &str) -> Answer {
    world.open("POST", hook, &[("x-telegram-bot-api-secret-token", SECRET_TOKEN)], UPDATE).await
}

fn is_told_to_come_back(answer: &Answer) -> bool {
    (1..=30).contains(&answer.header("retry-after").parse().unwrap_or(0))
}

/// One tenant offers far more than is served: it is refused the rest, with a wait by chance. Another is not, nor is a platform that
/// would not come back.
#[tokio::test(start_paused = true)]
async fn whoever_offers_most_is_refused_first_and_by_its_channels_rule() {
    World::run(async |world| {
        let quiet_key = world.made("/v1/tenants", json!({"name": "quiet"})).await["key"].as_str().unwrap().to_owned();
        let (loud, quiet) = (bot(&world, &world.key).await, bot(&world, &quiet_key).await);
        world.worker.seems_late(Duration::ZERO);
        for _ in 0..100 {
            assert_eq!(update(&world, &loud).await.status, 200, "without delay nobody is refused");
        }
        world.worker.seems_late(Duration::from_secs(1));
        let mut refused = 0;
        for _ in 0..60 {
            let answer = update(&world, &loud).await;
            if answer.status != 200 {
                assert!(answer.status == 503 && is_told_to_come_back(&answer), "{answer:?}");
                refused += 1;
            }
            assert_eq!(world.open("POST", "/hooks/discord/acc_0", &[], "{}").await.status, 401, "it does not bring events again");
        }
        assert!((10..60).contains(&refused), "{refused} of 60");
        for _ in 0..3 {
            assert_eq!(update(&world, &quiet).await.status, 200, "the quiet tenant's events are taken");
        }
        let call = world.call("GET", "/v1/accounts", &serde_json::Value::Null).await;
        assert_eq!((call.status, call.code().as_str()), (503, "overloaded"), "calls of the loud tenant count as well");
        assert!(is_told_to_come_back(&call), "{call:?}");
        assert_eq!(world.keyed(&quiet_key, "GET", "/v1/accounts", &[], "").await.status, 200);
        for _ in 0..200 {
            world.worker.seems_late(Duration::ZERO);
        }
        for _ in 0..100 {
            assert_eq!(update(&world, &loud).await.status, 200, "once the delay is gone, nobody is refused");
        }
    })
    .await;
}
