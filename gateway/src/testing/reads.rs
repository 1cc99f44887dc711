//! What the API shows: messages, conversations, windows, contacts, events.

use std::time::Duration;

use messaging::clock::Timestamp;
use messaging::event::{Event, EventType};
use messaging::ids::{EventId, MessageId};
use messaging::outcome::Status;
use messaging::record::Command;
use messaging::state::{Conversation, EventData, EventRow, FeedPosition, Pointer};
use messaging::store::Key;
use serde_json::{Value, json};

use super::sends::{PHONE, text};
use super::{START, World};

impl World {
    /// Writes an event into the feed, as a shard would.
    async fn tells(&self, state: &Conversation, shard: u16, order: u64, kind: EventType, note: &str) -> EventId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&shard.to_be_bytes());
        id[8..].copy_from_slice(&order.to_be_bytes());
        let id = EventId(id);
        let tenant = self.tenant();
        let event = Event { id, kind, tenant, account: state.account, conversation: Some(state.id), message: None, at: START };
        let data = EventData::seal(tenant, id, &json!({"note": note}).to_string(), &state.contact_key());
        let feed = FeedPosition { shard, order };
        self.put(Key::Event(tenant, feed), EventRow { event, data, sequences: Vec::new(), numbered_in: None }.encode()).await;
        self.put(Key::Pointer(tenant, id.0), Pointer { message: None, event: Some(feed) }.encode()).await;
        id
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, &Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }
}

fn notes(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|event| event["data"]["note"].as_str().unwrap_or("?")).collect()
}

#[tokio::test]
async fn a_message_shows_its_state_and_what_it_says() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, |_| {}).await;
        let id = MessageId([5; 16]);
        world.has_sent(&state, id, START, Status::Sent, [0; 16]).await;
        let message = world.get(&format!("/v1/messages/{id}")).await;
        for (member, value) in [
            ("id", json!(id)),
            ("status", json!("sent")),
            ("account", json!(account)),
            ("conversation", json!(state.id)),
            ("to", json!({"phone": PHONE})),
            ("type", json!("text")),
            ("text", json!({"body": "what was said"})),
            ("platform_id", json!("wamid.out")),
            ("possible_duplicate", json!(false)),
            ("reason", Value::Null),
            ("callback_data", json!("order-17")),
        ] {
            assert_eq!(message[member], value, "{member}");
        }
        assert_eq!(message["history"][0]["status"], "accepted");
        assert_eq!(world.call("GET", "/v1/messages/nonsense", &Value::Null).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn lists_are_whole_also_when_many_messages_have_one_time() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, |_| {}).await;
        let mut expected = std::collections::BTreeSet::new();
        for count in 0..11u8 {
            let id = MessageId([count + 1; 16]);
            // Three times, with several messages each.
            let at = START.plus(Duration::from_secs(u64::from(count / 5)));
            world.has_sent(&state, id, at, Status::Sent, [0; 16]).await;
            expected.insert(id.to_string());
        }
        let mut seen = Vec::new();
        let mut path = format!("/v1/messages?conversation={}&limit=2", state.id);
        let first = path.clone();
        for _ in 0..10 {
            let page = world.get(&path).await;
            seen.extend(page["data"].as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("{first}&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), expected.len(), "{seen:?}");
        assert_eq!(seen.into_iter().collect::<std::collections::BTreeSet<_>>(), expected);

        // A cursor is good for this list only, and not for ever.
        let cursor = world.get(&first).await["next_cursor"].as_str().unwrap().to_owned();
        let other = format!("/v1/messages?conversation=cnv_{}&limit=2&cursor={cursor}", "a".repeat(26));
        assert_eq!(world.call("GET", &other, &Value::Null).await.pointers(), ["?cursor"]);
        assert_eq!(world.call("GET", &format!("/v1/accounts?cursor={cursor}"), &Value::Null).await.pointers(), ["?cursor"]);
        world.clock.advance(Duration::from_secs(24 * 3600 + 1));
        assert_eq!(world.call("GET", &format!("{first}&cursor={cursor}"), &Value::Null).await.pointers(), ["?cursor"]);
    })
    .await;
}

#[tokio::test]
async fn windows_and_conversations() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let bot = world.telegram().await;
        let path = format!("/v1/windows?account={account}&to=%2B15550100");
        assert_eq!(world.get(&path).await["open"], false);
        let until = START.plus(Duration::from_secs(3600));
        let state = world.knows(&account, |state| state.window_until = until).await;
        let window = world.get(&path).await;
        assert_eq!(window["open"], true);
        assert_eq!((&window["expires_at"], &window["otherwise"]), (&json!(until), &json!("template")));
        assert_eq!(world.get(&format!("/v1/windows?conversation={}", state.id)).await, window);
        world.clock.advance(Duration::from_secs(3541));
        assert_eq!(world.get(&path).await["open"], false, "inside the margin");
        assert_eq!(world.get(&format!("/v1/windows?account={bot}&to=4711")).await["open"], true, "no window there");
        let shown = world.get(&format!("/v1/conversations/{}", state.id)).await;
        assert_eq!((&shown["channel"], &shown["contact"]["addresses"]), (&json!("whatsapp"), &json!({"phone": PHONE})));
        for bad in ["/v1/windows", "/v1/windows?account=x&to=1", &format!("/v1/windows?account={account}"), &format!("{path}&x=1")] {
            assert_eq!(world.call("GET", bad, &Value::Null).await.status, 422, "{bad}");
        }
        // One that goes by another id is shown as that one.
        let alias = world.keyring.ids().conversation(world.tenant(), state.account, "bsuid:US.1");
        let mut other = state.clone();
        (other.id, other.alias_of) = (alias, Some(state.id));
        let directory = world.keeper.shared().load_full();
        let key = directory.tenant_key(directory.tenant_of_row(world.tenant()).unwrap()).unwrap().clone();
        world.put(Key::Conversation(world.tenant(), alias), other.seal(world.tenant(), &key)).await;
        assert_eq!(world.get(&format!("/v1/conversations/{alias}")).await["id"], json!(state.id));
    })
    .await;
}

#[tokio::test]
async fn contacts_are_found_and_changed() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let find = format!("/v1/contacts?account={account}&to=%2B15550100");
        assert_eq!(world.get(&find).await["data"], json!([]));
        let state = world.knows(&account, |_| {}).await;
        assert_eq!(world.get(&find).await["data"][0]["id"], json!(state.contact));
        let change = json!({"name": "Ada", "restricted": true});
        let ways = [
            format!("/v1/conversations/{}/contact", state.id),
            format!("/v1/contacts/{}?conversation={}", state.contact, state.id),
            format!("/v1/contacts/{}?account={account}&to=%2B15550100", state.contact),
        ];
        for path in &ways {
            let answer = world.call("PATCH", path, &change).await;
            assert_eq!((answer.status, answer.json()["restricted"].clone()), (202, json!(true)), "{path}: {answer:?}");
        }
        for command in world.commands() {
            let Command::Contact { name, restricted, opted_out, .. } = command else { panic!("{command:?}") };
            assert_eq!((name.as_deref(), restricted, opted_out), (Some("Ada"), Some(true), None));
        }
        let other = format!("/v1/contacts/con_{}?conversation={}", "a".repeat(26), state.id);
        assert_eq!(world.call("PATCH", &other, &change).await.status, 404, "another contact's conversation");
        assert_eq!(world.call("PATCH", &ways[0], &json!({"attributes": {}})).await.pointers(), ["/attributes"]);
    })
    .await;
}

#[tokio::test]
async fn the_feed_gives_everything_once_and_in_the_order_of_each_shard() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, |_| {}).await;
        for order in 1..=7 {
            world.tells(&state, 0, order * 3, EventType::MessageSent, &format!("0-{order}")).await;
        }
        for order in 1..=3 {
            world.tells(&state, 2, order, EventType::MessageRead, &format!("2-{order}")).await;
        }
        let mut seen: Vec<String> = Vec::new();
        let mut after = String::new();
        loop {
            let page = world.get(&format!("/v1/events?limit=2{after}")).await;
            if notes(&page).is_empty() {
                break;
            }
            seen.extend(notes(&page).into_iter().map(str::to_owned));
            after = format!("&after={}", page["next_cursor"].as_str().unwrap());
        }
        let of = |shard: &str| seen.iter().filter(|note| note.starts_with(shard)).cloned().collect::<Vec<_>>();
        assert_eq!(seen.len(), 10);
        assert_eq!(of("0-"), (1..=7).map(|order| format!("0-{order}")).collect::<Vec<_>>());
        assert_eq!(of("2-"), (1..=3).map(|order| format!("2-{order}")).collect::<Vec<_>>());
        assert_eq!(seen[1], "2-1", "a busy shard does not keep the others waiting: {seen:?}");

        let only = world.get("/v1/events?types=message.read,message.failed").await;
        assert_eq!(notes(&only), ["2-1", "2-2", "2-3"]);
        assert_eq!(world.call("GET", "/v1/events?types=mesage.read", &Value::Null).await.pointers(), ["?types"]);
        assert_eq!(world.call("GET", "/v1/events?after=xyz", &Value::Null).await.pointers(), ["?after"]);
        assert_eq!(world.call("GET", "/v1/events?wait=31", &Value::Null).await.pointers(), ["?wait"]);

        // From the latest place on: nothing old, everything new.
        let latest = world.get("/v1/events?after=latest").await;
        assert_eq!(notes(&latest), [""; 0]);
        let cursor = latest["next_cursor"].as_str().unwrap().to_owned();
        let next = world.tells(&state, 0, 22, EventType::MessageSent, "new").await;
        world.tells(&state, 1, 1, EventType::MessageSent, "new too").await;
        assert_eq!(notes(&world.get(&format!("/v1/events?after={cursor}")).await), ["new", "new too"]);
        let one = world.get(&format!("/v1/events/{next}")).await;
        assert_eq!((&one["type"], &one["data"]["note"]), (&json!("message.sent"), &json!("new")));
        assert_eq!(one["subject"], json!(state.id));
        // Events end with their retention, and what leads to them then leads nowhere. Feed cursors do not age.
        world.clock.advance(Duration::from_secs(90 * 24 * 3600));
        assert_eq!(notes(&world.get(&format!("/v1/events?after={cursor}")).await), [""; 0]);
        assert_eq!(world.call("GET", &format!("/v1/events/{next}"), &Value::Null).await.status, 404);
        world.tells(&state, 0, 23, EventType::MessageSent, "much later").await;
        assert_eq!(notes(&world.get(&format!("/v1/events?after={cursor}")).await), ["much later"]);
        assert!(world.get("/v1/event-types").await["data"].as_array().unwrap().len() > 10);
        assert_eq!(world.get("/v1/event-types/message.read/schema").await["properties"]["type"]["const"], "message.read");
    })
    .await;
}

#[tokio::test]
async fn a_waiting_reader_gets_the_next_event() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, |_| {}).await;
        let (page, _) = tokio::join!(world.get("/v1/events?wait=30"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.tells(&state, 3, 1, EventType::MessageSent, "at last").await;
        });
        assert_eq!(notes(&page), ["at last"]);
        let after = page["next_cursor"].as_str().unwrap();
        assert_eq!(notes(&world.get(&format!("/v1/events?after={after}&wait=1")).await), [""; 0], "an empty page after the wait");
    })
    .await;
}

#[tokio::test]
async fn what_was_erased_opens_no_more() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, |_| {}).await;
        let event = world.tells(&state, 0, 1, EventType::MessageSent, "personal").await;
        world.knows(&account, |state| state.key = [1; 32]).await;
        assert_eq!(world.get(&format!("/v1/events/{event}")).await["data"], json!({"forgotten": true}));
    })
    .await;
}

#[tokio::test]
async fn without_the_store_reads_say_so() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, |state| state.window_until = Timestamp::MAX.minus(Duration::from_secs(1))).await;
        let sent = world.call("POST", "/v1/messages", &text(&account, "x")).await.json();
        world.store.away.store(true, std::sync::atomic::Ordering::SeqCst);
        for path in ["/v1/events".into(), format!("/v1/conversations/{}", state.id), format!("/v1/messages/{}", MessageId([1; 16]))] {
            let answer = world.call("GET", &path, &Value::Null).await;
            assert_eq!((answer.status, answer.code().as_str()), (503, "store-unavailable"), "{path}");
            assert!(answer.headers.contains_key("retry-after"));
        }
        let known = world.get(&format!("/v1/messages/{}", sent["id"].as_str().unwrap())).await;
        assert_eq!(known["status"], "accepted", "from this process's own memory");
    })
    .await;
}
