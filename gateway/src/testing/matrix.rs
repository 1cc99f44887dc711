//! Generated from the route table: every route with every scope, and every route with another tenant's ids.

use std::collections::BTreeMap;

use messaging::event::{Event, EventType};
use messaging::ids::{EventId, MessageId};
use messaging::outcome::Status;
use messaging::state::{EventData, EventRow, FeedPosition, Pointer};
use messaging::store::Key;
use messaging::tenant::Scope;
use serde_json::{Value, json};

use super::{START, World};
use crate::routes::{Access, ROUTES, Route, Verb};

/// The resource of a route: what stands behind `/v1/`.
fn resource(route: &Route) -> &'static str {
    route.template.split('/').nth(2).unwrap_or("")
}

/// A path of the route with this id.
fn path(route: &Route, id: &str) -> String {
    route.template.replace("{id}", id).replace("{name}", "message.read")
}

/// A body that the route takes, as far as it takes one.
fn body(route: &Route) -> String {
    match (route.verb, resource(route), route.template) {
        (Verb::Patch, "tenants", _) => json!({"name": "renamed"}).to_string(),
        (Verb::Patch, _, _) => json!({"name": "renamed"}).to_string(),
        (Verb::Get | Verb::Post | Verb::Delete, _, _) => String::new(),
    }
}

async fn key_with(world: &World, scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
    let made = world.made("/v1/keys", json!({"name": "matrix", "scopes": names})).await;
    made["key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_route_wants_its_scope_and_no_other_opens_it() {
    World::run(async |world| {
        let mut keys = Vec::new();
        for scope in Scope::ALL {
            keys.push((scope, key_with(&world, &[scope]).await));
        }
        let mut checked = 0;
        for route in ROUTES {
            let Access::Key(wanted) = route.access else { continue };
            let nothing = "x";
            let path = path(route, nothing);
            let unkeyed = world.open(route.verb.name(), &path, &[], body(route)).await;
            assert_eq!(unkeyed.status, 401, "{} {path} without a key", route.verb.name());
            for (scope, key) in &keys {
                let answer = world.keyed(key, route.verb.name(), &path, &[], body(route)).await;
                let opens = *scope == wanted || *scope == Scope::Admin;
                let what = format!("{} {path} with {}: {answer:?}", route.verb.name(), scope.name());
                assert_eq!(answer.status == 403, !opens, "{what}");
                assert!(answer.status != 401 && answer.status < 500, "{what}");
                if !opens {
                    assert!(answer.json()["detail"].as_str().unwrap().contains(wanted.name()), "the scope is named");
                }
                checked += 1;
            }
        }
        assert!(checked > 200, "{checked}");
    })
    .await;
}

/// One thing of each kind, all of the first tenant.
async fn things(world: &World) -> BTreeMap<&'static str, (String, &'static str)> {
    let account = world.whatsapp().await;
    let state = world.knows(&account, |_| {}).await;
    let message = MessageId([4; 16]);
    world.has_sent(&state, message, START, Status::Queued, [0; 16]).await;
    let tenant = world.tenant();
    let pointer = Pointer { message: Some((state.id, START, message)), event: None };
    world.put(Key::Pointer(tenant, state.contact.0), pointer.encode()).await;
    let event = EventId([6; 16]);
    let head =
        Event { id: event, kind: EventType::TemplateChanged, tenant, account: state.account, conversation: None, message: None, at: START };
    let feed = FeedPosition { shard: 0, order: 1 };
    let row = EventRow { event: head, data: EventData::Plain("{\"note\":\"canary\"}".into()), sequences: Vec::new(), numbered_in: None };
    world.put(Key::Event(tenant, feed), row.encode()).await;
    world.put(Key::Pointer(tenant, event.0), Pointer { message: None, event: Some(feed) }.encode()).await;
    let endpoint = world.made("/v1/endpoints", json!({"url": "https://crm.example/canary", "events": ["*"]})).await;
    let key = world.made("/v1/keys", json!({"name": "canary", "scopes": ["events:read"]})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let medium = world.keyed(&world.key, "POST", "/v1/media", &[("content-type", "text/plain")], "canary").await.json();
    BTreeMap::from([
        ("messages", (message.to_string(), "msg_")),
        ("conversations", (state.id.to_string(), "cnv_")),
        ("contacts", (state.contact.to_string(), "con_")),
        ("events", (event.to_string(), "evt_")),
        ("accounts", (account, "acc_")),
        ("endpoints", (text(&endpoint["id"]), "ep_")),
        ("keys", (text(&key["id"]), "key_")),
        ("tenants", (tenant.to_string(), "ten_")),
        ("media", (text(&medium["id"]), "med_")),
    ])
}

#[tokio::test]
async fn another_tenant_s_ids_are_nobody_s() {
    World::run(async |world| {
        let things = things(&world).await;
        *world.caller.answer.lock().unwrap() = Some(Ok((200, "{}")));
        let other = world.made("/v1/tenants", json!({"name": "other"})).await;
        let stranger = other["key"].as_str().unwrap();
        let without_id = |answer: &super::Answer| {
            let mut body = answer.json();
            body["request_id"] = Value::Null;
            body
        };
        let mut checked = 0;
        for route in ROUTES.iter().filter(|route| route.template.contains("{id}")) {
            let Access::Key(scope) = route.access else { continue };
            if scope == Scope::Admin {
                continue;
            }
            let (id, prefix) = &things[resource(route)];
            let unknown = format!("{prefix}{}", "b".repeat(26));
            let verb = route.verb.name();
            let foreign = world.keyed(stranger, verb, &path(route, id), &[], body(route)).await;
            let nobodys = world.keyed(stranger, verb, &path(route, &unknown), &[], body(route)).await;
            let nonsense = world.keyed(stranger, verb, &path(route, "nonsense"), &[], body(route)).await;
            for answer in [&foreign, &nobodys, &nonsense] {
                assert_eq!(answer.status, 404, "{verb} {}: {answer:?}", route.template);
                assert_eq!(without_id(answer), without_id(&foreign), "{verb} {}", route.template);
                assert_eq!(answer.headers.keys().collect::<Vec<_>>(), foreign.headers.keys().collect::<Vec<_>>());
            }
            checked += 1;
        }
        assert!(checked >= 20, "{checked}");

        // Named in bodies and queries they are unknown too, and lists do not show them.
        let (account, conversation) = (&things["accounts"].0, &things["conversations"].0);
        let send = json!({"account": account, "to": {"phone": "+15550100"}, "type": "text", "text": {"body": "x"}}).to_string();
        let to = json!({"to": {"conversation": conversation}, "type": "text", "text": {"body": "x"}}).to_string();
        let contact =
            json!({"to": {"contact": things["contacts"].0}, "account": account, "type": "text", "text": {"body": "x"}}).to_string();
        let endpoint = json!({"url": "https://x.example", "events": ["*"], "accounts": [account]}).to_string();
        let cases = [
            ("POST", "/v1/messages".to_owned(), send, 422),
            ("POST", "/v1/messages".to_owned(), to, 422),
            ("POST", "/v1/messages".to_owned(), contact, 422),
            ("POST", "/v1/endpoints".to_owned(), endpoint, 422),
            ("GET", format!("/v1/messages?conversation={conversation}"), String::new(), 404),
            ("GET", format!("/v1/windows?conversation={conversation}"), String::new(), 404),
            ("GET", format!("/v1/windows?account={account}&to=1555"), String::new(), 404),
            ("GET", format!("/v1/contacts?account={account}&to=1555"), String::new(), 404),
        ];
        for (verb, path, body, status) in cases {
            let answer = world.keyed(stranger, verb, &path, &[], body).await;
            assert_eq!(answer.status, status, "{verb} {path}: {answer:?}");
        }
        for path in ["/v1/accounts", "/v1/endpoints", "/v1/keys", "/v1/events"] {
            let answer = world.keyed(stranger, "GET", path, &[], "").await;
            assert_eq!(answer.status, 200, "{path}");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            for (id, _) in things.values() {
                assert!(!text.contains(id), "{path} shows {id}");
            }
            assert!(!text.contains("canary"), "{path}: {text}");
        }
        assert!(world.log.records().is_empty() && world.caller.requests.lock().unwrap().is_empty(), "nothing was done");
        // A page's cursor of one tenant is nothing to another.
        let mine = world.call("GET", "/v1/events", &Value::Null).await.json()["next_cursor"].as_str().unwrap().to_owned();
        assert_eq!(world.keyed(stranger, "GET", &format!("/v1/events?after={mine}"), &[], "").await.status, 422);
        // Only an administrator acts for another.
        let tenant = other["id"].as_str().unwrap();
        let as_other = [("trunkline-tenant", tenant)];
        let acted = world.keyed(&world.key, "GET", "/v1/accounts", &as_other, "").await;
        assert_eq!((acted.status, acted.json()["data"].clone()), (200, json!([])));
        let owner = things["tenants"].0.clone();
        assert_eq!(world.keyed(stranger, "GET", "/v1/accounts", &[("trunkline-tenant", &owner)], "").await.status, 403);
        // With its own key everything is there still.
        for (resource, (id, _)) in things.iter().filter(|(resource, _)| !matches!(**resource, "contacts" | "keys")) {
            assert_eq!(world.call("GET", &format!("/v1/{resource}/{id}"), &Value::Null).await.status, 200, "{resource}");
        }
    })
    .await;
}
