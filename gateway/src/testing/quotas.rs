//! Quotas of tenants: what each may have, ask for and let wait. Every test has several tenants: one is at its limit, others are not.

use std::time::Duration;

use messaging::ids::AccountId;
use messaging::quota::{Quota, Quotas};
use messaging::record::Class;
use messaging::store::Store;
use serde_json::{Value, json};

use super::sends::{opens, text};
use super::{Answer, World};
use crate::options::Options;

/// A tenant beside the first, with its first key.
struct Other {
    id: String,
    key: String,
}

impl World {
    async fn other(&self, quotas: Value) -> Other {
        let made = self.made("/v1/tenants", json!({"name": "other", "quotas": quotas})).await;
        Other { id: made["id"].as_str().unwrap().to_owned(), key: made["key"].as_str().unwrap().to_owned() }
    }

    async fn of(&self, tenant: &Other, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.keyed(&tenant.key, method, path, &[], body).await
    }

    async fn usage(&self, tenant: &Other, quota: &str) -> Value {
        self.call("GET", &format!("/v1/tenants/{}", tenant.id), &Value::Null).await.json()["usage"][quota].clone()
    }
}

#[track_caller]
fn is_refused(answer: &Answer, quota: &Value) {
    assert_eq!((answer.status, answer.code().as_str()), (429, "quota-exceeded"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["quota"], *quota);
    assert_eq!(problem["violated-policies"], json!([quota["name"]]));
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| wait >= 1));
}

/// What makes one more of a kind.
fn one(kind: &str) -> Value {
    match kind {
        "accounts" => json!({"channel": "telegram", "name": "bot", "bot_token": "123456:AAbbccddeeffgghhiijjkkllmmnnooppqqr",
            "secret_token": super::SECRET_TOKEN}),
        "endpoints" => json!({"url": "https://crm.example/x", "events": ["*"]}),
        _ => json!({"name": "another", "scopes": ["config:read"]}),
    }
}

#[tokio::test]
async fn what_a_tenant_may_have_is_bounded_for_each_alone() {
    // What a tenant has from the start: its first key.
    let cases = [("accounts", 0), ("endpoints", 0), ("keys", 1)];
    World::run(async |world| {
        for (kind, from_the_start) in cases {
            let path = format!("/v1/{kind}");
            let limit = from_the_start + 2;
            let (full, free) = (world.other(json!({kind: limit})).await, world.other(json!({})).await);
            let mut made = Vec::new();
            for _ in 0..2 {
                let answer = world.of(&full, "POST", &path, &one(kind)).await;
                assert_eq!(answer.status, 201, "{kind}: {answer:?}");
                made.push(answer.json()["id"].as_str().unwrap().to_owned());
            }
            assert_eq!(world.usage(&full, kind).await, json!({"limit": limit, "used": limit}), "{kind}");
            is_refused(&world.of(&full, "POST", &path, &one(kind)).await, &json!({"name": kind, "limit": limit, "used": limit}));
            // Nor does an administrator who acts for it, but by giving it more.
            let acting = world.keyed(&world.key, "POST", &path, &[("trunkline-tenant", &full.id)], one(kind).to_string()).await;
            is_refused(&acting, &json!({"name": kind, "limit": limit, "used": limit}));
            for _ in 0..4 {
                assert_eq!(world.of(&free, "POST", &path, &one(kind)).await.status, 201, "{kind}: another tenant's");
            }
            assert_eq!(world.of(&full, "DELETE", &format!("{path}/{}", made[0]), &Value::Null).await.status, 204);
            assert_eq!(world.of(&full, "POST", &path, &one(kind)).await.status, 201, "{kind}: what is removed makes room");
            // A lower limit takes nothing away.
            let tenant = format!("/v1/tenants/{}", full.id);
            assert_eq!(world.call("PATCH", &tenant, &json!({"quotas": {kind: from_the_start}})).await.status, 200);
            is_refused(&world.of(&full, "POST", &path, &one(kind)).await, &json!({"name": kind, "limit": from_the_start, "used": limit}));
            let back = world.call("PATCH", &tenant, &json!({"quotas": {kind: null}})).await.json();
            let configured = Quotas::default().limit(Quota::ALL.iter().copied().find(|quota| quota.name() == kind).unwrap());
            assert_eq!((&back["quotas"], &back["usage"][kind]), (&json!({}), &json!({"limit": configured, "used": limit})), "{kind}");
            assert_eq!(world.of(&full, "POST", &path, &one(kind)).await.status, 201, "{kind}: as configured again");
        }
    })
    .await;
}

/// Keys are free to make: together they have their tenant's rate.
#[tokio::test]
async fn all_keys_of_a_tenant_share_its_rate() {
    let quotas = Quotas::default().with(&[(Quota::ApiRequests, 15)].into());
    let options = Options { api_per_key: 10.0, api_burst: 1.0, quotas, ..Options::default() };
    World::run_with(options, async |world| {
        let (loud, quiet) = (world.other(json!({})).await, world.other(json!({"api_requests": 4})).await);
        let mut keys = vec![loud.key.clone()];
        for _ in 0..3 {
            let body = json!({"name": "one more", "scopes": ["config:read"], "tenant": loud.id});
            keys.push(world.made("/v1/keys", body).await["key"].as_str().unwrap().to_owned());
        }
        world.clock.advance(Duration::from_secs(10));
        let asked = async |key: &str, times: usize| {
            let mut answers = Vec::new();
            for _ in 0..times {
                answers.push(world.keyed(key, "GET", "/v1/accounts", &[], "").await);
            }
            let served = answers.iter().filter(|answer| answer.status == 200).count();
            (served, answers.pop().unwrap())
        };
        let (served, last) = asked(&keys[0], 11).await;
        assert_eq!((served, &last.json()["violated-policies"]), (10, &json!(["key"])), "one key has its own rate");
        assert_eq!(asked(&keys[1], 10).await.0, 5, "what is left of the tenant's");
        let (served, last) = asked(&keys[2], 3).await;
        assert_eq!(served, 0, "a fresh key has nothing of its own");
        is_refused(&last, &json!({"name": "api_requests", "limit": 15}));
        assert_eq!(last.header("ratelimit-policy"), "\"api_requests\";q=15;w=1");
        assert_eq!((last.header("ratelimit"), last.header("retry-after")), ("\"api_requests\";r=0;t=1", "1"));
        let (served, last) = asked(&quiet.key, 5).await;
        assert_eq!(served, 4, "another tenant has its own rate");
        is_refused(&last, &json!({"name": "api_requests", "limit": 4}));
        // Who administers can still act for it: that is the administrator's request.
        let acting = world.keyed(&world.key, "GET", "/v1/accounts", &[("trunkline-tenant", &loud.id)], "").await;
        assert_eq!(acting.status, 200);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(asked(&keys[3], 11).await.0, 10, "a second later it has its rate again");
    })
    .await;
}

#[tokio::test]
async fn messages_of_batches_have_their_tenants_rate() {
    let options = Options { api_burst: 1.0, ..Options::default() };
    World::run_with(options, async |world| {
        let cases = [(world.other(json!({"messages": 5})).await, 5), (world.other(json!({"messages": 7})).await, 7)];
        for (tenant, rate) in &cases {
            let batch = Value::Array((0..10).map(|_| json!({})).collect());
            let answer = world.of(tenant, "POST", "/v1/messages/batch", &batch).await.json();
            let limited: Vec<&Value> =
                answer["items"].as_array().unwrap().iter().filter(|item| item["problem"]["code"] == "quota-exceeded").collect();
            assert_eq!(limited.len(), 10 - rate);
            assert!(limited.iter().all(|item| item["problem"]["quota"] == json!({"name": "messages", "limit": rate})), "{limited:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn sends_that_wait_are_bounded_for_each_tenant() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        world.knows(&account, opens).await;
        let full = world.other(json!({"waiting_sends": 100})).await;
        let bot = world.of(&full, "POST", "/v1/accounts", &one("accounts")).await.json()["id"].as_str().unwrap().to_owned();
        let to_bot = json!({"account": bot, "to": {"chat_id": "4711"}, "type": "text", "text": {"body": "x"}});
        let (tenant, of) = (full.id.parse().unwrap(), bot.parse::<AccountId>().unwrap());
        let outlook = world.worker.shared.parts.outlook.clone();
        let fits = async || {
            let answer = world.of(&full, "POST", "/v1/messages", &to_bot).await;
            (answer.status == 202, answer)
        };
        // A campaign waits; what is waiting stands nobody else's sends in the way.
        outlook.joined(tenant, of, Class::Bulk, 99);
        assert!(fits().await.0);
        outlook.joined(tenant, of, Class::Bulk, 1);
        let (fitted, answer) = fits().await;
        assert!(!fitted);
        is_refused(&answer, &json!({"name": "waiting_sends", "limit": 100, "used": 100}));
        assert_eq!(world.usage(&full, "waiting_sends").await, json!({"limit": 100, "used": 100}));
        let batch = world.of(&full, "POST", "/v1/messages/batch", &json!([to_bot])).await.json();
        assert_eq!(batch["items"][0]["problem"]["quota"]["name"], "waiting_sends", "{batch}");
        assert_eq!(world.call("POST", "/v1/messages", &text(&account, "another tenant's")).await.status, 202);
        outlook.left(tenant, of, Class::Bulk, 1);
        assert!(fits().await.0, "what has gone makes room");
    })
    .await;
}

#[tokio::test]
async fn quotas_are_read_strictly_and_go_with_their_tenant() {
    World::run(async |world| {
        let (tenant, other) = (world.other(json!({"keys": 9})).await, world.other(json!({"keys": 7, "messages": 3})).await);
        let path = format!("/v1/tenants/{}", tenant.id);
        let wrong: [(Value, &str); 8] = [
            (json!({"endpoint": 1}), "/quotas/endpoint"),
            (json!({"endpoints": -1}), "/quotas/endpoints"),
            (json!({"endpoints": 1.5}), "/quotas/endpoints"),
            (json!({"endpoints": "many"}), "/quotas/endpoints"),
            (json!({"endpoints": 1_000_000_001}), "/quotas/endpoints"),
            // Nobody could undo it.
            (json!({"api_requests": 0}), "/quotas/api_requests"),
            (json!([]), "/quotas"),
            (json!(null), "/quotas"),
        ];
        for (quotas, pointer) in wrong {
            let answer = world.call("PATCH", &path, &json!({"quotas": quotas})).await;
            assert_eq!((answer.status, answer.pointers()), (422, vec![pointer.to_owned()]), "{quotas}");
        }
        assert_eq!(world.of(&tenant, "PATCH", &path, &json!({"quotas": {"keys": 900}})).await.status, 403, "nobody helps himself");
        let changed = world.call("PATCH", &path, &json!({"quotas": {"endpoints": 0}})).await.json();
        assert_eq!((&changed["quotas"], &changed["name"]), (&json!({"keys": 9, "endpoints": 0}), &json!("other")), "the rest stays");
        let sent_back = world.call("PATCH", &path, &json!({"name": "renamed", "quotas": changed["quotas"]})).await.json();
        assert_eq!((&sent_back["quotas"], &sent_back["name"]), (&changed["quotas"], &json!("renamed")));
        assert_eq!(world.call("DELETE", &path, &Value::Null).await.status, 204);
        let rows: Vec<String> = world.store.directory().await.unwrap().1.into_iter().map(|(id, _)| id).collect();
        assert!(!rows.iter().any(|id| id.contains(&tenant.id)), "{rows:?}");
        assert_eq!(world.usage(&other, "messages").await, json!({"limit": 3}), "another's stay");
    })
    .await;
}
