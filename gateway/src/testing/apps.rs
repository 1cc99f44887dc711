//! One hook for all accounts of an app: a piece reaches the account that it names, and only when that account's own secrets
//! verify the request.

use messaging::ids::AccountId;
use serde_json::{Value, json};

use super::hooks::signature;
use super::{APP_SECRET, World};

async fn page(world: &World, key: &str, page: &str, secret: &str) -> AccountId {
    let body = json!({"channel": "messenger", "name": page, "page_id": page, "access_token": "EAAtoken", "app_secret": secret,
        "verify_token": "verify-me"});
    let made = world.keyed(key, "POST", "/v1/accounts", &[], body.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["id"].as_str().unwrap().parse().unwrap()
}

async fn tenant(world: &World, name: &str) -> String {
    world.made("/v1/tenants", json!({ "name": name })).await["key"].as_str().unwrap().to_owned()
}

fn entry(page: &str, person: &str) -> Value {
    let event = json!({"sender": {"id": person}, "recipient": {"id": page}, "timestamp": 1_795_168_800_000u64,
        "message": {"mid": format!("m_{page}"), "text": "hi"}});
    json!({"id": page, "time": 1_795_168_800_180u64, "messaging": [event]})
}

#[tokio::test]
async fn pieces_reach_the_account_that_they_name() {
    World::run(async |world| {
        let (key, other, stranger) = (world.key.clone(), tenant(&world, "other").await, tenant(&world, "stranger").await);
        let first = page(&world, &key, "1", APP_SECRET).await;
        let second = page(&world, &key, "2", APP_SECRET).await;
        // Another tenant that has connected its page through the same app.
        let third = page(&world, &other, "3", APP_SECRET).await;
        // A tenant that says a page is its own, without the app's secret.
        page(&world, &stranger, "4", "another-secret").await;
        page(&world, &stranger, "2", "another-secret").await;
        let entries: Vec<Value> = ["1", "2", "3", "4", "5"].iter().map(|page| entry(page, "42")).collect();
        let body = json!({"object": "page", "entry": entries}).to_string();
        let signed = signature(APP_SECRET, body.as_bytes());
        let headers = [("x-hub-signature-256", signed.as_str())];
        let answer = world.open("POST", &format!("/hooks/messenger/{first}"), &headers, body).await;
        assert_eq!((answer.status, answer.body.is_empty()), (200, true));
        let records = world.records();
        let accounts: Vec<AccountId> = records.iter().map(|record| record.account).collect();
        assert_eq!(accounts, [first, second, third]);
        for record in &records {
            let conversation = world.keyring.ids().conversation(record.tenant.id(), record.account, "psid:42");
            assert_eq!(record.conversation, conversation, "each in its own account's conversation");
        }
        assert_ne!(records[0].tenant.id(), records[2].tenant.id());
    })
    .await;
}

#[tokio::test]
async fn a_piece_without_an_account_belongs_to_the_path() {
    World::run(async |world| {
        let first = page(&world, &world.key, "1", APP_SECRET).await;
        let mut entry = entry("1", "42");
        entry.as_object_mut().unwrap().remove("id");
        let body = json!({"object": "page", "entry": [entry]}).to_string();
        let signed = signature(APP_SECRET, body.as_bytes());
        let answer = world.open("POST", &format!("/hooks/messenger/{first}"), &[("x-hub-signature-256", &signed)], body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(world.records().iter().map(|record| record.account).collect::<Vec<_>>(), [first]);
    })
    .await;
}

#[tokio::test]
async fn a_tag_that_the_channel_has_not_is_refused() {
    World::run(async |world| {
        let first = page(&world, &world.key, "1", APP_SECRET).await;
        let whatsapp = world.whatsapp().await;
        let message =
            |account: &str, to: Value, tag: &str| json!({"account": account, "to": to, "type": "text", "text": {"body": "hi"}, "tag": tag});
        let refused = [
            message(&first.to_string(), json!({"psid": "42"}), "account_update"),
            message(&whatsapp, json!({"phone": "+15550100"}), "human_agent"),
        ];
        for body in refused {
            let answer = world.call("POST", "/v1/messages", &body).await;
            assert_eq!((answer.status, answer.pointers()), (422, vec!["/tag".to_owned()]), "{answer:?}");
        }
        // Known, and nobody wrote: the window says so, with the way out.
        let answer = world.call("POST", "/v1/messages", &message(&first.to_string(), json!({"psid": "42"}), "human_agent")).await;
        assert_eq!(answer.code(), "window-closed", "{answer:?}");
        assert!(answer.json()["fallback"]["hint"].as_str().unwrap().contains("human_agent"));
    })
    .await;
}

/// A `signed_request` of the app.
fn signed_request(secret: &str, payload: &Value) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let encoding = data_encoding::BASE64URL_NOPAD;
    let payload = encoding.encode(payload.to_string().as_bytes());
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(payload.as_bytes());
    format!("signed_request={}.{payload}", encoding.encode(&mac.finalize().into_bytes()))
}

#[tokio::test]
async fn data_deletion_and_deauthorisation_are_verified_and_recorded() {
    World::run(async |world| {
        let account = page(&world, &world.key, "1", APP_SECRET).await;
        let bot = world.telegram().await;
        let payload = json!({"algorithm": "HMAC-SHA256", "issued_at": 1_795_168_800, "user_id": "218471"});
        let path = format!("/hooks/meta/{account}/data-deletion");
        let form = signed_request(APP_SECRET, &payload);
        let first = world.open("POST", &path, &[], form.clone()).await;
        assert_eq!((first.status, first.header("content-type")), (200, "application/json"));
        let code = first.json()["confirmation_code"].as_str().unwrap().to_owned();
        assert_eq!(first.json()["url"], format!("https://gw.example/deletion/{code}"));
        assert!(code.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !code.contains("218471"));
        // The same again is the same code: never an error.
        assert_eq!(world.open("POST", &path, &[], form.clone()).await.json()["confirmation_code"], code);
        let shown = world.open("GET", &format!("/deletion/{code}"), &[], "").await;
        assert_eq!((shown.status, shown.header("content-type")), (200, "text/plain; charset=utf-8"));
        assert_eq!(world.open("GET", "/deletion/%3Cscript%3E", &[], "").await.status, 404);
        let deauthorised = world.open("POST", &format!("/hooks/meta/{account}/deauthorize"), &[], form.clone()).await;
        assert_eq!((deauthorised.status, deauthorised.body.is_empty()), (200, true));
        let records = world.records();
        assert_eq!(records.len(), 3);
        let kinds: Vec<String> = records
            .iter()
            .map(|record| match messaging::channels::channel(record.channel).parse(&record.body).unwrap().body {
                messaging::channels::InboundBody::Platform { kind, raw } => format!("{kind} {}", raw["user_id"]),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, [r#"data_deletion "218471""#, r#"data_deletion "218471""#, r#"deauthorize "218471""#]);
        let nobody = format!("/hooks/meta/acc_{}/data-deletion", "a".repeat(26));
        let refused = [
            (path.clone(), signed_request("another-secret", &payload), 403),
            (path.clone(), "nothing=1".to_owned(), 400),
            (path.clone(), "x".repeat(20_000), 413),
            (nobody, form.clone(), 403),
            (format!("/hooks/meta/{bot}/data-deletion"), form, 403),
        ];
        for (path, form, status) in refused {
            assert_eq!(world.open("POST", &path, &[], form).await.status, status, "{path}");
        }
        assert_eq!(world.records().len(), 3);
    })
    .await;
}
