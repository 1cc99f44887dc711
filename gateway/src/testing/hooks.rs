//! Webhooks from outside: what is taken, what is refused, and that refusals tell nothing.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use messaging::ids::AccountId;
use messaging::log::{AppendError, Topic};
use messaging::record::RecordKind;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::Sha256;

use super::{APP_SECRET, SECRET_TOKEN, START, World};
use crate::shared::JUDGED_BESIDE_MAX;

pub(super) fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", HEXLOWER.encode(&mac.finalize().into_bytes()))
}

pub(super) fn whatsapp_message(from: &str, text: &str) -> String {
    serde_json::json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp", "metadata": {"display_phone_number": "1", "phone_number_id": "106540352242922"},
        "contacts": [{"profile": {"name": "A"}, "wa_id": from}],
        "messages": [{"from": from, "id": format!("wamid.{text}"), "timestamp": "1795168800", "type": "text", "text": {"body": text}}]
    }}]}]})
    .to_string()
}

fn two_messages() -> String {
    let one: serde_json::Value = serde_json::from_str(&whatsapp_message("15550100", "a")).unwrap();
    let two: serde_json::Value = serde_json::from_str(&whatsapp_message("15550101", "b")).unwrap();
    let entries = [one["entry"][0].clone(), two["entry"][0].clone()];
    serde_json::json!({"object": "whatsapp_business_account", "entry": entries}).to_string()
}

#[tokio::test]
async fn verified_pieces_are_on_the_log_before_the_empty_answer() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let body = two_messages();
        let headers = [("x-hub-signature-256", signature(APP_SECRET, body.as_bytes()))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = world.open("POST", &format!("/hooks/whatsapp/{account}"), &headers, body).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]));
        let records = world.records();
        assert_eq!(records.len(), 2);
        let tenant = records[0].tenant.id();
        for (record, phone) in records.iter().zip(["phone:15550100", "phone:15550101"]) {
            let id: AccountId = account.parse().unwrap();
            assert_eq!((record.kind, record.account, record.accepted_at), (RecordKind::Inbound, id, START));
            assert_eq!(record.conversation, world.keyring.ids().conversation(tenant, id, phone));
        }
        assert!(world.log.records().iter().all(|record| record.topic == Topic::Inbound));
    })
    .await;
}

#[tokio::test]
async fn every_bad_webhook_has_its_answer() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let bot = world.telegram().await;
        let hook = format!("/hooks/whatsapp/{account}");
        let nobody = format!("/hooks/whatsapp/acc_{}", "a".repeat(26));
        let body = whatsapp_message("15550100", "x");
        let good = signature(APP_SECRET, body.as_bytes());
        let other = signature("another secret", body.as_bytes());
        let sig = |value: &str| vec![("x-hub-signature-256".to_owned(), value.to_owned())];
        let token = |value: &str| vec![("x-telegram-bot-api-secret-token".to_owned(), value.to_owned())];
        let coded = vec![("content-encoding".to_owned(), "gzip".to_owned()), ("x-hub-signature-256".to_owned(), good.clone())];
        let large = "x".repeat((4 << 20) + 1);
        let largest = "x".repeat(4 << 20);
        let garbage = signature(APP_SECRET, b"not json");
        // (what, method, path, headers, body, status)
        type Case<'a> = (&'a str, &'a str, String, Vec<(String, String)>, &'a str, u16);
        let table: Vec<Case<'_>> = vec![
            ("forged", "POST", hook.clone(), sig(&other), &body, 403),
            ("unsigned", "POST", hook.clone(), vec![], &body, 403),
            ("signed twice", "POST", hook.clone(), [sig(&good), sig(&good)].concat(), &body, 403),
            ("bent body", "POST", hook.clone(), sig(&good), &body[..body.len() - 1], 403),
            ("unknown account", "POST", nobody.clone(), sig(&good), &body, 403),
            ("no id at all", "POST", "/hooks/whatsapp/shop".into(), sig(&good), &body, 403),
            ("unknown channel", "POST", format!("/hooks/pigeon/{account}"), sig(&good), &body, 403),
            ("another channel's account", "POST", format!("/hooks/whatsapp/{bot}"), sig(&good), &body, 403),
            ("account under another channel", "POST", format!("/hooks/telegram/{account}"), sig(&good), &body, 403),
            ("wrong token", "POST", format!("/hooks/telegram/{bot}"), token("wrong"), "{}", 403),
            ("encoded", "POST", hook.clone(), coded, &body, 415),
            ("over the limit", "POST", hook.clone(), sig(&good), &large, 413),
            ("at the limit, unsigned", "POST", hook.clone(), sig(&good), &largest, 403),
            ("other method", "PUT", hook.clone(), vec![], "", 405),
            ("deeper path", "POST", format!("{hook}/x"), sig(&good), &body, 404),
            ("handshake without a token", "GET", hook.clone(), vec![], "", 403),
            (
                "handshake with a wrong token",
                "GET",
                format!("{hook}?hub.mode=subscribe&hub.challenge=1&hub.verify_token=no"),
                vec![],
                "",
                403,
            ),
            ("handshake without a challenge", "GET", format!("{hook}?hub.mode=subscribe&hub.verify_token=verify-me"), vec![], "", 400),
            (
                "handshake of nobody",
                "GET",
                format!("{nobody}?hub.mode=subscribe&hub.challenge=1&hub.verify_token=verify-me"),
                vec![],
                "",
                403,
            ),
            ("authentic and not to be parsed", "POST", hook.clone(), sig(&garbage), "not json", 200),
        ];
        for (what, method, path, headers, body, status) in table {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let answer = world.open(method, &path, &headers, body.to_owned()).await;
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            if status == 403 || status == 200 {
                assert!(answer.body.is_empty(), "{what}: {answer:?}");
                let mut names: Vec<&str> = answer.headers.keys().map(http::HeaderName::as_str).collect();
                names.sort_unstable();
                assert_eq!(names, ["content-length", "date", "x-request-id"], "{what}: all look alike");
            }
        }
        let records = world.records();
        assert_eq!(
            records.iter().map(|record| record.kind).collect::<Vec<_>>(),
            [RecordKind::Unparsable],
            "only what is authentic is kept"
        );
        assert_eq!(&records[0].body[..], b"not json");
    })
    .await;
}

#[tokio::test]
async fn handshakes_are_plain_text() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let query = "hub.mode=subscribe&hub.challenge=%3Cb%3E1&hub.verify_token=verify-me";
        let answer = world.open("GET", &format!("/hooks/whatsapp/{account}?{query}"), &[], "").await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"<b>1"[..]));
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    })
    .await;
}

#[tokio::test]
async fn a_log_that_takes_nothing_is_answered_as_the_channel_wants() {
    World::run(async |world| {
        let bot = world.telegram().await;
        let path = format!("/hooks/telegram/{bot}");
        let headers = [("x-telegram-bot-api-secret-token", SECRET_TOKEN)];
        let body = r#"{"update_id":1,"message":{"message_id":1,"date":1795168800,"chat":{"id":4711,"type":"private"},"text":"x"}}"#;
        let cases = [(AppendError::Full, 503, true), (AppendError::Closed, 503, true), (AppendError::TooLarge { max: 1 }, 413, false)];
        for (error, status, waits) in cases {
            world.log.fail_when(move |_| Some(error));
            let answer = world.open("POST", &path, &headers, body).await;
            assert_eq!(answer.status, status, "{error}");
            assert_eq!(answer.headers.contains_key("retry-after"), waits, "{error}");
        }
        world.log.heal();
        assert!(world.records().is_empty());
        world.log.max_record.store(10, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(world.open("POST", &path, &headers, body).await.status, 413, "authentic and too large is not lost in silence");
        world.log.max_record.store(1 << 20, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(world.open("POST", &path, &headers, body).await.status, 200);
        assert_eq!(world.records().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_pieces_are_not_all_durable_is_not_acknowledged() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let body = two_messages();
        let signed = signature(APP_SECRET, body.as_bytes());
        let headers = [("x-hub-signature-256", signed.as_str())];
        let count = std::sync::atomic::AtomicUsize::new(0);
        world.log.fail_when(move |_| (count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1).then_some(AppendError::Full));
        let answer = world.open("POST", &format!("/hooks/whatsapp/{account}"), &headers, body).await;
        assert_eq!(answer.status, 503);
    })
    .await;
}

#[tokio::test]
async fn ingress_goes_on_without_the_store() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        world.store.away.store(true, std::sync::atomic::Ordering::SeqCst);
        let body = whatsapp_message("15550100", "x");
        let signed = signature(APP_SECRET, body.as_bytes());
        let answer = world.open("POST", &format!("/hooks/whatsapp/{account}"), &[("x-hub-signature-256", &signed)], body).await;
        assert_eq!(answer.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_slow_signature_holds_nobody_else() {
    World::run(async |world| {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let bot = serde_json::json!({"channel": "discord", "name": "bot", "application_id": "1200000000000000001",
            "public_key": HEXLOWER.encode(key.public_key().as_ref()), "bot_token": "a-token"});
        let bot = world.made("/v1/accounts", bot).await["id"].as_str().unwrap().to_owned();
        let (ping, time) = (r#"{"type":1,"id":"1","application_id":"1200000000000000001"}"#, START.as_secs().to_string());
        let sign = |body: &str| HEXLOWER.encode(key.sign(&[time.as_bytes(), body.as_bytes()].concat()).as_ref());
        let (good, bad) = (sign(ping), sign("another body"));
        let post = async |account: &str, signature: &str| {
            let headers = [("x-signature-ed25519", signature), ("x-signature-timestamp", time.as_str())];
            world.open("POST", &format!("/hooks/discord/{account}"), &headers, ping).await
        };
        let nobody = format!("acc_{}", "a".repeat(26));
        for (account, signature, status) in [(&bot, &good, 200), (&bot, &bad, 401), (&nobody, &good, 401)] {
            assert_eq!(post(account, signature).await.status, status);
        }

        // As if as many as may were being judged: the next one waits, and this thread serves on.
        let shop = world.whatsapp().await;
        let all = world.worker.shared.beside.acquire_many(JUDGED_BESIDE_MAX as u32).await.unwrap();
        let body = whatsapp_message("15550100", "x");
        let (hook, proof) = (format!("/hooks/whatsapp/{shop}"), signature(APP_SECRET, body.as_bytes()));
        let proven = [("x-hub-signature-256", proof.as_str())];
        let mut waiting = std::pin::pin!(post(&bot, &good));
        let served = tokio::select! {
            biased;
            early = &mut waiting => panic!("judged on the serving thread: {early:?}"),
            served = world.open("POST", &hook, &proven, body) => served,
        };
        assert_eq!(served.status, 200);
        drop(all);
        assert_eq!(waiting.await.json()["type"], 1);
    })
    .await;
}
