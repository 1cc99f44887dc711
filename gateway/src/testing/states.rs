//! Accounts whose credential breaks: what a check, a new secret and webhooks that fail the signature make of them, and what is told.

use std::time::Duration;

use messaging::directory::{AccountChange, AccountState};
use messaging::record::Command;
use serde_json::{Value, json};

use super::hooks::{signature, whatsapp_message};
use super::{APP_SECRET, World};
use crate::upkeep;

/// The states that were told, with their reasons, in order.
fn told(world: &World) -> Vec<String> {
    let news = world.commands().into_iter().filter_map(|command| match command {
        Command::Account { news } => Some(news),
        _ => None,
    });
    news.map(|news| match news.change {
        AccountChange::State { state, reason, .. } => format!("{} by {}", json!(state).as_str().unwrap(), reason.name()),
        AccountChange::Expiring { ends_at } => format!("expiring at {ends_at}"),
    })
    .collect()
}

async fn state(world: &World, account: &str) -> Value {
    world.call("GET", &format!("/v1/accounts/{account}"), &Value::Null).await.json()["state"].clone()
}

/// What the background task does after a while.
async fn later(world: &World) {
    world.clock.advance(Duration::from_secs(5));
    upkeep::look(&world.worker.shared).await;
    upkeep::tell(&world.worker.shared).await;
}

#[tokio::test]
async fn a_check_breaks_and_mends_an_account() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let path = format!("/v1/accounts/{account}/check");
        let refused = r#"{"error":{"message":"x","code":190}}"#;
        // (the platform's answer to the check, the state after it)
        let cases = [
            (Ok((500, "{}")), "active"),
            (Ok((401, refused)), "broken"),
            (Ok((400, refused)), "broken"),
            (Err("no way"), "broken"),
            (Ok((200, "{}")), "active"),
            (Ok((200, "{}")), "active"),
        ];
        for (answer, expected) in cases {
            *world.caller.answer.lock().unwrap() = Some(answer);
            world.call("POST", &path, &Value::Null).await;
            assert_eq!(state(&world, &account).await, expected, "{answer:?}");
        }
        assert_eq!(told(&world), ["broken by auth", "active by checked"], "each change once");
        later(&world).await;
        assert_eq!(told(&world).len(), 2, "nothing waits to be told again");
    })
    .await;
}

#[tokio::test]
async fn a_new_secret_mends_a_broken_account() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let path = format!("/v1/accounts/{account}");
        *world.caller.answer.lock().unwrap() = Some(Ok((401, "{}")));
        world.call("POST", &format!("{path}/check"), &Value::Null).await;
        let send =
            json!({"account": account, "to": {"phone": "+15550100"}, "type": "template", "template": {"name": "a", "language": "en"}});
        let answer = world.call("POST", "/v1/messages", &send).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "account-disabled"));
        assert_eq!(world.call("PATCH", &path, &json!({"name": "other"})).await.json()["state"], "broken", "a name is no credential");
        let reply = world.call("PATCH", &path, &json!({"access_token": "EAAtoken"})).await.json();
        assert_eq!(reply["state"], "broken", "the same value again is none either");
        let reply = world.call("PATCH", &path, &json!({"access_token": "EAAother"})).await.json();
        assert_eq!((reply["state"].as_str(), &reply["state_reason"]), (Some("active"), &Value::Null));
        later(&world).await;
        assert_eq!(told(&world), ["broken by auth", "active by new_credential"]);
        assert_eq!(world.call("POST", "/v1/messages", &send).await.status, 202);
        // The tenant's own pause is no news; that a stopped account goes on is.
        for act in ["pause", "resume"] {
            world.call("POST", &format!("{path}/{act}"), &Value::Null).await;
        }
        world.call("POST", &format!("{path}/check"), &Value::Null).await;
        world.call("POST", &format!("{path}/resume"), &Value::Null).await;
        later(&world).await;
        assert_eq!(told(&world)[2..], ["broken by auth", "active by resumed"]);
    })
    .await;
}

#[tokio::test]
async fn news_wait_for_the_log() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        world.log.fail_when(|_| Some(messaging::log::AppendError::Away));
        *world.caller.answer.lock().unwrap() = Some(Ok((401, "{}")));
        world.call("POST", &format!("/v1/accounts/{account}/check"), &Value::Null).await;
        later(&world).await;
        assert!(told(&world).is_empty());
        world.log.heal();
        later(&world).await;
        later(&world).await;
        assert_eq!(told(&world), ["broken by auth"]);
    })
    .await;
}

#[tokio::test]
async fn failing_signatures_are_told_and_stop_no_sends() {
    World::run(async |world| {
        let (account, other) = (world.whatsapp().await, world.whatsapp().await);
        let hook = async |account: &str, secret: &str, number: usize| {
            let body = whatsapp_message("15550100", &number.to_string());
            let proof = signature(secret, body.as_bytes());
            world.open("POST", &format!("/hooks/whatsapp/{account}"), &[("x-hub-signature-256", &proof)], body).await.status
        };
        // Never authentic: perhaps not connected yet, perhaps a stranger.
        for number in 0..10 {
            assert_eq!(hook(&other, "wrong", number).await, 403);
        }
        assert_eq!(hook(&account, APP_SECRET, 0).await, 200);
        for number in 1..=2 {
            assert_eq!(hook(&account, "wrong", number).await, 403);
        }
        later(&world).await;
        assert_eq!(state(&world, &account).await, "active", "two say nothing");
        assert_eq!(hook(&account, "wrong", 3).await, 403);
        later(&world).await;
        later(&world).await;
        assert_eq!((state(&world, &account).await, state(&world, &other).await), (json!("unverified"), json!("active")));
        assert_eq!(told(&world), ["unverified by bad_signature"]);
        let send =
            json!({"account": account, "to": {"phone": "+15550100"}, "type": "template", "template": {"name": "a", "language": "en"}});
        assert_eq!(world.call("POST", "/v1/messages", &send).await.status, 202, "whoever knows the address must not stop sends");
        // More than are remembered, before anybody looks.
        for number in 4..=24 {
            assert_eq!(hook(&account, APP_SECRET, number).await, 200);
        }
        later(&world).await;
        later(&world).await;
        assert_eq!(state(&world, &account).await, "active");
        assert_eq!(told(&world), ["unverified by bad_signature", "active by signatures_good"]);
    })
    .await;
}

#[tokio::test]
async fn an_end_is_told_a_week_before_and_broken_after() {
    World::run(async |world| {
        let made = world
            .made(
                "/v1/accounts",
                json!({"channel": "messenger", "name": "page", "page_id": "1", "app_id": "2", "access_token": "EAA",
            "app_secret": APP_SECRET, "verify_token": "v"}),
            )
            .await;
        let account = world.keeper.shared().load().account(made["id"].as_str().unwrap().parse().unwrap()).unwrap().clone();
        let day = Duration::from_secs(24 * 3_600);
        let ends_at = super::START.plus(60 * day);
        let tokens = messaging::channels::Tokens {
            access: messaging::seal::Secret::new("EAAnew"),
            access_until: Some(ends_at),
            refresh: None,
            refresh_until: None,
        };
        assert!(world.worker.shared.accounts.renew(&account, &tokens).await.unwrap());
        let id = made["id"].as_str().unwrap();
        let shown = world.call("GET", &format!("/v1/accounts/{id}"), &Value::Null).await.json();
        assert_eq!(shown["credential"]["expires_at"], ends_at.to_string());
        for _ in 0..2 {
            world.clock.advance(26 * day);
            later(&world).await;
        }
        assert!(told(&world).is_empty(), "eight days before");
        world.clock.advance(2 * day);
        later(&world).await;
        later(&world).await;
        let expiring = format!("expiring at {ends_at}");
        assert_eq!(told(&world), [expiring.as_str()]);
        world.clock.advance(6 * day + Duration::from_secs(60));
        later(&world).await;
        later(&world).await;
        assert_eq!(told(&world)[1..], ["broken by refresh_refused"]);
        let now = world.keeper.shared().load().account(account.row.id).unwrap().row.state;
        assert_eq!(now, AccountState::Broken);
    })
    .await;
}
