//! One hook for all accounts of an app: a piece reaches the account that it names, and only when that account's own secrets
//! verify the request.

use messaging::channels::{ChannelKind, channel};
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

/// What one hook of a platform brings for several accounts.
struct App {
    channel: &'static str,
    /// The members of an account besides its name, with its identity and the app's secret.
    account: fn(identity: &str, secret: &str) -> Value,
    /// A body with an event of one person for each of these accounts.
    body: fn(identities: &[&str]) -> Value,
    handle: &'static str,
}

/// Every channel whose body says which account it is about.
const APPS: &[App] = &[
    App {
        channel: "messenger",
        account: |page, secret| json!({"page_id": page, "access_token": "EAAtoken", "app_secret": secret, "verify_token": "verify-me"}),
        body: |pages| json!({"object": "page", "entry": pages.iter().map(|page| entry(page, "42")).collect::<Vec<_>>()}),
        handle: "psid:42",
    },
    App {
        channel: "instagram",
        account: |id, secret| json!({"instagram_id": id, "access_token": "IGtoken", "app_secret": secret, "verify_token": "verify-me"}),
        body: |ids| json!({"object": "instagram", "entry": ids.iter().map(|id| entry(id, "42")).collect::<Vec<_>>()}),
        handle: "igsid:42",
    },
    App {
        channel: "whatsapp",
        account: number,
        body: |ids| whatsapp(&ids.iter().map(|id| ("100", text(id))).collect::<Vec<_>>()),
        handle: "phone:42",
    },
];

/// Those whose signature is made otherwise than Meta's: their own tests cover them.
const ELSEWHERE: &[(&str, &str)] = &[("tiktok", "messaging/tests/tiktok: the body names the account, and the same `Others` judges")];

fn number(id: &str, secret: &str) -> Value {
    json!({"phone_number_id": id, "business_account_id": "100", "access_token": "EAAtoken", "app_secret": secret, "verify_token": "verify-me"})
}

/// A change with a text to a number.
fn text(number: &str) -> Value {
    let message = json!({"from": "42", "id": format!("wamid.{number}"), "timestamp": "1795168800", "type": "text", "text": {"body": "hi"}});
    json!({"field": "messages", "value": {"messaging_product": "whatsapp", "messages": [message],
        "metadata": {"display_phone_number": "1", "phone_number_id": number}, "contacts": [{"wa_id": "42", "profile": {"name": "Ana"}}]}})
}

fn whatsapp(changes: &[(&str, Value)]) -> Value {
    let entries: Vec<Value> =
        changes.iter().map(|(business, change)| json!({"id": business, "time": 1_795_168_800, "changes": [change]})).collect();
    json!({"object": "whatsapp_business_account", "entry": entries})
}

async fn account(world: &World, key: &str, app: &App, identity: &str, secret: &str) -> AccountId {
    let mut body = (app.account)(identity, secret);
    (body["channel"], body["name"]) = (app.channel.into(), identity.into());
    let made = world.keyed(key, "POST", "/v1/accounts", &[], body.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["id"].as_str().unwrap().parse().unwrap()
}

/// Posts a body to an account's hook, signed by the app; gives the accounts of the records that it made.
async fn arrive(world: &World, channel: &str, hook: AccountId, body: &Value) -> Vec<AccountId> {
    let (before, body) = (world.records().len(), body.to_string());
    let signed = signature(APP_SECRET, body.as_bytes());
    let headers = [("x-hub-signature-256", signed.as_str())];
    let answer = world.open("POST", &format!("/hooks/{channel}/{hook}"), &headers, body).await;
    assert_eq!((answer.status, answer.body.is_empty()), (200, true), "{channel}");
    world.records()[before..].iter().map(|record| record.account).collect()
}

#[test]
fn every_channel_whose_body_names_its_account_is_covered() {
    for kind in ChannelKind::ALL {
        let covered = APPS.iter().any(|app| app.channel == kind.name()) || ELSEWHERE.iter().any(|(name, _)| *name == kind.name());
        assert_eq!(covered, channel(*kind).identity().is_some(), "{}: add its row to APPS", kind.name());
    }
}

#[tokio::test]
async fn pieces_reach_the_account_that_they_name() {
    for app in APPS {
        World::run(async |world| {
            let (key, other, stranger) = (world.key.clone(), tenant(&world, "other").await, tenant(&world, "stranger").await);
            let first = account(&world, &key, app, "1", APP_SECRET).await;
            let second = account(&world, &key, app, "2", APP_SECRET).await;
            // Strangers claim it before its owner comes.
            for _ in 0..6 {
                account(&world, &stranger, app, "3", "another-secret").await;
            }
            // Another tenant that has connected its account through the same app.
            let third = account(&world, &other, app, "3", APP_SECRET).await;
            // A tenant that says that an account is its own, without the app's secret.
            account(&world, &stranger, app, "4", "another-secret").await;
            // However often.
            for _ in 0..6 {
                account(&world, &stranger, app, "2", "another-secret").await;
                account(&world, &stranger, app, "3", "another-secret").await;
            }
            // All at once, and each by itself, at any hook of the app.
            let all = (app.body)(&["1", "2", "3", "4", "5"]);
            assert_eq!(arrive(&world, app.channel, first, &all).await, [first, second, third], "{}", app.channel);
            for hook in [first, second, third] {
                for (identity, to) in [("1", Some(first)), ("2", Some(second)), ("3", Some(third)), ("4", None), ("5", None)] {
                    let records = arrive(&world, app.channel, hook, &(app.body)(&[identity])).await;
                    assert_eq!(records, to.into_iter().collect::<Vec<_>>(), "{} {identity} at {hook}", app.channel);
                }
            }
            let records = world.records();
            for record in &records {
                let conversation = world.keyring.ids().conversation(record.tenant.id(), record.account, app.handle);
                assert_eq!(record.conversation, conversation, "each in its own account's conversation");
            }
            assert_ne!(records[0].tenant.id(), records[2].tenant.id());
        })
        .await;
    }
}

/// News of a WhatsApp Business Account name no number: an account of that business account takes them.
#[tokio::test]
async fn news_without_a_number_reach_their_business_account() {
    World::run(async |world| {
        let app = APPS.iter().find(|app| app.channel == "whatsapp").unwrap();
        let other = tenant(&world, "other").await;
        let with = async |key: &str, id: &str, business: Option<&str>| {
            let mut body = number(id, APP_SECRET);
            (body["channel"], body["name"]) = ("whatsapp".into(), id.into());
            match business {
                Some(business) => body["business_account_id"] = business.into(),
                None => drop(body.as_object_mut().unwrap().remove("business_account_id")),
            }
            let made = world.keyed(key, "POST", "/v1/accounts", &[], body.to_string()).await;
            made.json()["id"].as_str().unwrap().parse::<AccountId>().unwrap()
        };
        let first = account(&world, &world.key, app, "1", APP_SECRET).await;
        let second = with(&other, "2", Some("200")).await;
        let silent = with(&world.key, "3", None).await;
        let template = json!({"field": "message_template_status_update", "value": {"event": "APPROVED", "message_template_name": "hi"}});
        let numbered = json!({"field": "history", "value": {"metadata": {"phone_number_id": "2"}, "history": []}});
        let table = [
            ("its own", first, "100", &template, Some(first)),
            ("another's, of the same app", first, "200", &template, Some(second)),
            ("back", second, "100", &template, Some(first)),
            ("nobody's", first, "300", &template, None),
            ("an account that does not say what it belongs to takes it", silent, "300", &template, Some(silent)),
            ("but not what another account is known to own", silent, "200", &template, Some(second)),
            ("a number decides before the business account", first, "100", &numbered, Some(second)),
        ];
        for (name, hook, business, change, to) in table {
            let body = whatsapp(&[(business, change.clone())]);
            assert_eq!(arrive(&world, "whatsapp", hook, &body).await, to.into_iter().collect::<Vec<_>>(), "{name}");
        }
        // Several events in one change, of which each is about the change's number.
        let mut two = text("2");
        let message = two["value"]["messages"][0].clone();
        two["value"]["messages"].as_array_mut().unwrap().push(message);
        assert_eq!(arrive(&world, "whatsapp", first, &whatsapp(&[("100", two)])).await, [second, second]);
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
