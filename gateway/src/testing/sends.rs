//! `POST /v1/messages` and what belongs to it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use messaging::channels::ChannelKind;
use messaging::clock::{Clock, Timestamp};
use messaging::content::Handle;
use messaging::ids::{AccountId, ConversationId, MessageId, TenantId};
use messaging::log::{AppendError, Topic};
use messaging::outcome::{Status, Step};
use messaging::record::{Class, Command, SendCommand};
use messaging::state::{Conversation, Direction, MessageMeta, MessageRow, Pointer};
use messaging::store::{Durability, Key, Store, Write};
use serde_json::{Value, json};

use super::{START, World};

pub(super) const PHONE: &str = "+15550100";

pub(super) fn text(account: &str, body: &str) -> Value {
    json!({"account": account, "to": {"phone": PHONE}, "type": "text", "text": {"body": body}})
}

impl World {
    pub(super) fn tenant(&self) -> TenantId {
        self.keeper.shared().load().tenants().map(|row| row.id).min().unwrap()
    }

    /// Writes what a shard would know of the person behind `PHONE`; gives the conversation.
    pub(super) async fn knows(&self, account: &str, change: impl FnOnce(&mut Conversation)) -> Conversation {
        let account: AccountId = account.parse().unwrap();
        let handle = Handle::phone(PHONE);
        let tenant = self.tenant();
        let ids = self.keyring.ids();
        let id = ids.conversation(tenant, account, handle.expose());
        let mut state = Conversation::new(id, account, ChannelKind::Whatsapp, ids.contact(id), handle, [9; 32]);
        change(&mut state);
        let directory = self.keeper.shared().load_full();
        let key = directory.tenant_key(directory.tenant_of_row(tenant).unwrap()).unwrap().clone();
        self.put(Key::Conversation(tenant, id), state.seal(tenant, &key)).await;
        state
    }

    pub(super) async fn put(&self, key: Key, value: Vec<u8>) {
        self.store.apply(vec![Write::put(key, value, self.clock.now())], Durability::Buffered).await.unwrap();
    }

    /// Writes the row of a sent message, as a shard would.
    pub(super) async fn has_sent(&self, state: &Conversation, id: MessageId, at: Timestamp, status: Status, fingerprint: [u8; 16]) {
        let tenant = self.tenant();
        let directory = self.keeper.shared().load_full();
        let key = directory.tenant_key(directory.tenant_of_row(tenant).unwrap()).unwrap().clone();
        let step = Step { at, status: Status::Accepted, reason: None, detail: None, attempt: 0 };
        let meta = MessageMeta {
            direction: Direction::Out,
            kind: "text".into(),
            status,
            account: state.account,
            to: Some(Handle::phone(PHONE)),
            platform_id: Some("wamid.out".into()),
            history: vec![step],
            reason: None,
            accepted_at: at,
            expires_at: None,
            not_before: None,
            attempt: 1,
            epoch: 1,
            possible_duplicate: false,
            parked: false,
            fingerprint,
        };
        let command = SendCommand {
            message: id,
            to: Handle::phone(PHONE),
            content: serde_json::from_value(json!({"text": {"body": "what was said"}})).unwrap(),
            reply_to: None,
            fallback: None,
            tag: None,
            expires_at: None,
            not_before: None,
            callback_data: Some("order-17".into()),
            metadata: None,
            fingerprint,
            possible_duplicate: false,
            class: Class::Interactive,
        };
        let content = serde_json::to_string(&command).unwrap();
        let row = MessageRow::seal(tenant, id, &meta, &key, Some(&content), &state.contact_key());
        self.put(Key::Message(tenant, state.id, at, id), row.encode()).await;
        let pointer = Pointer { message: Some((state.id, at, id)), event: None };
        self.put(Key::Pointer(tenant, id.0), pointer.encode()).await;
    }
}

pub(super) fn opens(state: &mut Conversation) {
    state.window_until = START.plus(Duration::from_secs(3600));
}

#[tokio::test]
async fn an_accepted_send_is_a_command_on_the_log() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, opens).await;
        let mut body = text(&account, "on its way");
        body["callback_data"] = "order-17".into();
        body["metadata"] = json!({"campaign": "c9"});
        body["expires_in"] = "2h".into();
        let answer = world.call("POST", "/v1/messages", &body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let reply = answer.json();
        let id = reply["id"].as_str().unwrap();
        assert_eq!(answer.header("location"), format!("/v1/messages/{id}"));
        assert!(answer.header("server-timing").contains("durable;dur="));
        assert_eq!(reply["status"], "accepted");
        assert_eq!(reply["conversation"], state.id.to_string());
        assert_eq!(reply["accepted_at"], START.to_string());
        assert_eq!(reply["expected_by"], START.plus(Duration::from_secs(1)).to_string());
        let [Command::Send(send)] = &world.commands()[..] else { panic!("one send") };
        assert_eq!(send.message.to_string(), id);
        assert_eq!(send.to, Handle::phone(PHONE));
        assert_eq!(send.expires_at, Some(START.plus(Duration::from_secs(7200))));
        assert_eq!((send.callback_data.as_deref(), &send.metadata), (Some("order-17"), &Some(json!({"campaign": "c9"}))));
        let record = &world.records()[0];
        assert_eq!((record.tenant.id(), record.conversation), (world.tenant(), state.id));
        assert_eq!(world.log.records()[0].topic, Topic::Outbound);
        // Before the shard has taken it up it is there already.
        let read = world.call("GET", &format!("/v1/messages/{id}"), &Value::Null).await;
        assert_eq!((read.status, read.json()["status"].clone()), (200, json!("accepted")));

        let mut bulk = text(&account, "campaign");
        bulk["bulk"] = true.into();
        assert_eq!(world.call("POST", "/v1/messages", &bulk).await.status, 202);
        assert_eq!(world.log.records()[1].topic, Topic::Bulk);
    })
    .await;
}

#[tokio::test]
async fn every_fault_of_a_send_is_named() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let bot = world.telegram().await;
        let good = text(&account, "x");
        let with = |changes: Value| {
            let mut body = good.clone();
            for (name, value) in changes.as_object().unwrap() {
                body[name] = value.clone();
            }
            body
        };
        let nobody = format!("acc_{}", "a".repeat(26));
        let hour_ago = START.minus(Duration::from_secs(3600)).to_string();
        let table: Vec<(Value, &[&str])> = vec![
            (json!({}), &["/account", "/to", "/type"]),
            (json!([]), &[""]),
            (json!("text"), &[""]),
            (with(json!({"colour": 1, "a/b": 2})), &["/a~1b", "/colour"]),
            (with(json!({"account": nobody})), &["/account"]),
            (with(json!({"account": 7})), &["/account"]),
            (with(json!({"account": bot})), &["/to"]),
            (with(json!({"to": "x"})), &["/to"]),
            (with(json!({"to": {}})), &["/to"]),
            (with(json!({"to": {"phone": "abc"}, "text": {"body": ""}})), &["/to/phone", "/text/body"]),
            (with(json!({"to": {"contact": "con_1"}})), &["/to/contact"]),
            (with(json!({"to": {"conversation": "cnv_1", "more": 1}})), &["/to/conversation", "/to/more"]),
            (with(json!({"to": {"conversation": format!("cnv_{}", "a".repeat(26))}})), &["/to/conversation"]),
            (with(json!({"to": {"contact": format!("con_{}", "a".repeat(26))}})), &["/to/contact"]),
            (with(json!({"type": "carrier_pigeon"})), &["/type", "/text"]),
            (with(json!({"type": "order", "order": {}})), &["/type"]),
            (with(json!({"type": "image"})), &["/image", "/text"]),
            (with(json!({"text": {"body": "x", "colour": 1}})), &["/text"]),
            (with(json!({"text": {"body": "x".repeat(5000)}})), &["/text/body"]),
            (with(json!({"reply_to": "wamid.1"})), &["/reply_to"]),
            (with(json!({"fallback": {}})), &["/fallback/template"]),
            (with(json!({"fallback": {"template": {"name": "x"}, "y": 1}})), &["/fallback/template", "/fallback/y"]),
            (with(json!({"expires_in": "soon"})), &["/expires_in"]),
            (with(json!({"expires_in": "0s"})), &["/expires_in"]),
            (with(json!({"expires_in": "2h", "expires_at": "2027-01-01T00:00:00Z"})), &["/expires_in"]),
            (with(json!({"expires_at": hour_ago})), &["/expires_at"]),
            (with(json!({"send_at": "2099-01-01T00:00:00Z"})), &["/send_at"]),
            (with(json!({"send_at": "tomorrow"})), &["/send_at"]),
            (with(json!({"callback_data": "x".repeat(513)})), &["/callback_data"]),
            (with(json!({"metadata": {"x": "y".repeat(4096)}})), &["/metadata"]),
            (with(json!({"metadata": "x"})), &["/metadata"]),
            (with(json!({"bulk": "yes"})), &["/bulk"]),
        ];
        for (body, pointers) in table {
            let answer = world.call("POST", "/v1/messages", &body).await;
            assert_eq!((answer.status, answer.code().as_str()), (422, "validation-failed"), "{body}: {answer:?}");
            let found = answer.pointers();
            for pointer in pointers {
                assert!(found.iter().any(|one| one.starts_with(pointer)), "{body}: {pointer} is not in {found:?}");
            }
        }
        assert!(world.log.records().is_empty());
    })
    .await;
}

#[tokio::test]
async fn bad_requests_are_refused_before_they_are_read() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let good = text(&account, "x").to_string();
        let large = format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20));
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(64), "]".repeat(64));
        let key = &world.key;
        let bearer = format!("Bearer {key}");
        let auth = |value: &str| vec![("authorization", value.to_owned())];
        let plus = |name: &'static str, value: &str| vec![("authorization", bearer.clone()), (name, value.to_owned())];
        let long_key = "k".repeat(256);
        let bent = format!("{}x", &bearer[..bearer.len() - 1]);
        let stranger = format!("Bearer {}", crate::token::new_key().expose());
        type Case<'a> = (&'a str, Vec<(&'static str, String)>, &'a str, u16, &'a str);
        let table: Vec<Case<'_>> = vec![
            ("no key", vec![], &good, 401, "unauthenticated"),
            ("not a key", auth("Bearer x"), &good, 401, "unauthenticated"),
            ("another scheme", auth("Basic eDp5"), &good, 401, "unauthenticated"),
            ("a bent key", auth(&bent), &good, 401, "unauthenticated"),
            ("a key of nobody's", auth(&stranger), &good, 401, "unauthenticated"),
            ("two keys", [auth(&bearer), auth(&bearer)].concat(), &good, 401, "unauthenticated"),
            ("no JSON", auth(&bearer), "{", 400, "malformed"),
            ("nothing", auth(&bearer), "", 400, "malformed"),
            ("a member twice", auth(&bearer), r#"{"type":"text","type":"image"}"#, 400, "malformed"),
            ("deeper than 64", auth(&bearer), &deep, 400, "malformed"),
            ("larger than 1 MiB", auth(&bearer), &large, 413, "payload-too-large"),
            ("not JSON by type", plus("content-type", "text/xml"), &good, 415, "unsupported-media-type"),
            ("encoded", plus("content-encoding", "gzip"), &good, 415, "unsupported-media-type"),
            ("an empty idempotency key", plus("idempotency-key", "\"\""), &good, 400, "malformed"),
            ("a long idempotency key", plus("idempotency-key", &long_key), &good, 400, "malformed"),
            ("another's tenant", plus("trunkline-tenant", "ten_1"), &good, 404, "not-found"),
        ];
        for (what, headers, body, status, code) in table {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = world.open("POST", "/v1/messages", &headers, body.to_owned()).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {answer:?}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.json()["request_id"], answer.header("x-request-id"), "{what}");
            assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "{what}");
            assert!(!String::from_utf8_lossy(&answer.body).contains(key.as_str()), "{what}");
        }
        let answer = world.keyed(key, "POST", "/v1/messages?dry_run=perhaps", &[], good.clone()).await;
        assert_eq!(answer.pointers(), ["?dry_run"]);
        let answer = world.keyed(key, "POST", "/v1/messages?dryrun=true", &[], good).await;
        assert_eq!(answer.pointers(), ["?dryrun"]);
        assert!(world.log.records().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_the_shard_would_refuse_is_refused_at_once() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let path = "/v1/messages";
        let template = json!({"name": "order_update", "language": "en"});
        let body = text(&account, "x");
        let answer = world.call("POST", path, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "window-closed"), "never wrote");
        assert_eq!(answer.json()["expires_at"], Value::Null);
        type Change = fn(&mut Conversation);
        // What the conversation is like, and what is said of free text, of one with a fallback, and of a template.
        let table: [(Change, &str, &str, &str); 6] = [
            (opens, "", "", ""),
            (|state| state.window_until = START.plus(Duration::from_secs(60)), "", "", ""),
            (|state| state.window_until = START.plus(Duration::from_secs(59)), "window-closed", "", ""),
            (|state| (opens(state), state.restricted = true).1, "restricted", "restricted", "restricted"),
            (|state| (opens(state), state.unreachable = true).1, "recipient-invalid", "recipient-invalid", "recipient-invalid"),
            (|state| (opens(state), state.opted_out = true).1, "", "", ""),
        ];
        for (index, (change, free, fallback, as_template)) in table.into_iter().enumerate() {
            world.knows(&account, change).await;
            let mut with_fallback = body.clone();
            with_fallback["fallback"] = json!({"template": template});
            let by_template = json!({"account": account, "to": {"phone": PHONE}, "type": "template", "template": template});
            for (body, expected) in [(&body, free), (&with_fallback, fallback), (&by_template, as_template)] {
                let answer = world.call("POST", path, body).await;
                let code = if answer.status == 202 { String::new() } else { answer.code() };
                assert_eq!(code, expected, "case {index}: {body}");
            }
        }
        // With the store away the shard decides, except where the conversation must be known.
        world.knows(&account, |state| state.restricted = true).await;
        world.store.away.store(true, Ordering::SeqCst);
        assert_eq!(world.call("POST", path, &body).await.status, 202);
        let by_conversation = json!({"to": {"conversation": format!("cnv_{}", "a".repeat(26))}, "type": "text", "text": {"body": "x"}});
        assert_eq!(world.call("POST", path, &by_conversation).await.code(), "store-unavailable");
        world.store.away.store(false, Ordering::SeqCst);
        world.call("POST", &format!("/v1/accounts/{account}/pause"), &Value::Null).await;
        assert_eq!(world.call("POST", path, &body).await.code(), "account-disabled");
    })
    .await;
}

#[tokio::test]
async fn a_conversation_or_contact_is_an_address() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, opens).await;
        let pointer = Pointer { message: Some((state.id, Timestamp::ZERO, MessageId([0; 16]))), event: None };
        world.put(Key::Pointer(world.tenant(), state.contact.0), pointer.encode()).await;
        for to in [json!({"conversation": state.id}), json!({"contact": state.contact})] {
            let body = json!({"account": account, "to": to, "type": "text", "text": {"body": "x"}});
            let answer = world.call("POST", "/v1/messages", &body).await;
            assert_eq!((answer.status, answer.json()["conversation"].clone()), (202, json!(state.id)), "{to}");
        }
        let commands = world.commands();
        assert_eq!(commands.len(), 2);
        for command in commands {
            let Command::Send(send) = command else { panic!("a send") };
            assert_eq!(send.to, Handle::phone(PHONE));
        }
        let empty = json!({"to": {"conversation": state.id}, "type": "text", "text": {"body": ""}});
        assert_eq!(world.call("POST", "/v1/messages", &empty).await.pointers(), ["/text/body"]);
    })
    .await;
}

#[tokio::test]
async fn one_key_is_one_message() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, opens).await;
        let body = text(&account, "once").to_string();
        let other = text(&account, "twice").to_string();
        let post = async |key: &str, body: &str| {
            world.keyed(&world.key, "POST", "/v1/messages", &[("idempotency-key", key)], body.to_owned()).await
        };
        let first = post("\"order 17\"", &body).await;
        let again = post("order 17", &body).await;
        assert_eq!((first.status, again.status), (202, 202));
        assert_eq!(first.body, again.body);
        assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), ("", "true"));
        assert_eq!(post("order 17", &other).await.code(), "idempotency-mismatch");
        assert_eq!(world.log.records().len(), 1);

        // A refused or failed first gives the key free.
        world.log.fail_when(|_| Some(AppendError::Full));
        let failed = post("order 18", &body).await;
        assert_eq!((failed.code().as_str(), failed.headers.contains_key("retry-after")), ("log-unavailable", true));
        world.log.heal();
        assert_eq!(post("order 18", &body).await.status, 202);

        // While the first waits for the log, the second is told so.
        world.log.stuck.store(true, Ordering::SeqCst);
        let (running, meanwhile) = tokio::join!(post("order 19", &body), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let meanwhile = post("order 19", &body).await;
            world.log.stuck.store(false, Ordering::SeqCst);
            meanwhile
        });
        assert_eq!((running.status, meanwhile.code().as_str()), (202, "idempotency-in-progress"));

        // After a restart the store knows.
        let ids = world.keyring.ids();
        let (message, fingerprint) = (ids.keyed_message(world.tenant(), "order 20"), ids.fingerprint(world.tenant(), body.as_bytes()));
        world.has_sent(&state, message, START, Status::Sent, fingerprint).await;
        let count = world.log.records().len();
        let replayed = post("order 20", &body).await;
        assert_eq!((replayed.status, replayed.header("idempotent-replayed")), (202, "true"));
        assert_eq!(replayed.json()["id"], message.to_string());
        let message = ids.keyed_message(world.tenant(), "order 21");
        world.has_sent(&state, message, START, Status::Sent, fingerprint).await;
        assert_eq!(post("order 21", &other).await.code(), "idempotency-mismatch", "by the store alone");
        assert_eq!(post("order 20", &other).await.code(), "idempotency-mismatch");
        assert_eq!(world.log.records().len(), count);

        // Another tenant's key of the same text is another key.
        let tenant = world.made("/v1/tenants", json!({"name": "other"})).await;
        let answer = world.keyed(tenant["key"].as_str().unwrap(), "POST", "/v1/messages", &[("idempotency-key", "order 17")], other).await;
        assert_eq!(answer.code(), "validation-failed");
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_shows_the_request_and_stores_nothing() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let bot = world.telegram().await;
        let mut body = text(&account, "x");
        assert_eq!(world.call("POST", "/v1/messages?dry_run=true", &body).await.code(), "window-closed");
        body["fallback"] = json!({"template": {"name": "order_update", "language": "en"}});
        let answer = world.call("POST", "/v1/messages?dry_run=true", &body).await;
        let plan = answer.json();
        assert_eq!((answer.status, plan["decision"].clone()), (200, json!("fallback")));
        assert_eq!(plan["request"]["body"]["type"], "template");
        let body = json!({"account": bot, "to": {"chat_id": "4711"}, "type": "text", "text": {"body": "x"}});
        let answer = world.call("POST", "/v1/messages?dry_run=true", &body).await;
        assert_eq!((answer.status, answer.json()["decision"].clone()), (200, json!("send")));
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(shown.contains("/bot***/sendMessage") && !shown.contains("AAbbcc"), "{shown}");
        assert!(world.log.records().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_batch_answers_for_each() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        world.knows(&account, opens).await;
        let items = [text(&account, "a"), json!({"account": account}), text(&account, "c")];
        let lines = items.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        for (kind, body) in [("application/json", json!(items).to_string()), ("application/x-ndjson", lines)] {
            let answer = world.keyed(&world.key, "POST", "/v1/messages/batch", &[("content-type", kind)], body).await;
            let reply = answer.json();
            assert_eq!((answer.status, reply["accepted"].clone(), reply["refused"].clone()), (202, json!(2), json!(1)), "{answer:?}");
            assert_eq!(reply["items"][1]["problem"]["code"], "validation-failed");
            assert!(reply["items"][0]["id"].is_string() && reply["items"][2]["index"] == 2);
        }
        let times: Vec<Timestamp> = world.records().iter().map(|record| record.accepted_at).collect();
        assert!(times[0] < times[1], "a time of its own for each");
        let repeated = json!([text(&account, "k"), text(&account, "k")]).to_string();
        let keyed =
            async || world.keyed(&world.key, "POST", "/v1/messages/batch", &[("idempotency-key", "b1")], repeated.clone()).await.json();
        assert_eq!(keyed().await["items"], keyed().await["items"]);
        assert_eq!(world.log.records().len(), 6);
        let many: Vec<Value> = (0..1001).map(|_| json!({})).collect();
        for (body, code) in
            [("[]".to_owned(), "validation-failed"), ("{}".into(), "malformed"), (json!(many).to_string(), "payload-too-large")]
        {
            assert_eq!(world.keyed(&world.key, "POST", "/v1/messages/batch", &[], body).await.code(), code);
        }
    })
    .await;
}

#[tokio::test]
async fn cancel_and_resend_go_by_the_message_s_state() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, opens).await;
        // (state, answer to a cancel, answer to a resend)
        let table = [
            (Status::Accepted, 202, 409),
            (Status::Queued, 202, 409),
            (Status::Sending, 409, 409),
            (Status::Unknown, 409, 202),
            (Status::Sent, 409, 409),
            (Status::Read, 409, 409),
            (Status::Failed, 409, 409),
            (Status::Cancelled, 200, 409),
        ];
        for (index, (status, cancelled, resent)) in table.into_iter().enumerate() {
            let id = MessageId([index as u8 + 1; 16]);
            world.has_sent(&state, id, START, status, [0; 16]).await;
            let before = world.log.records().len();
            let answer = world.call("DELETE", &format!("/v1/messages/{id}"), &Value::Null).await;
            assert_eq!(answer.status, cancelled, "cancel of {status:?}: {answer:?}");
            let again = world.call("POST", &format!("/v1/messages/{id}/resend"), &Value::Null).await;
            assert_eq!(again.status, resent, "resend of {status:?}: {again:?}");
            let appended = usize::from(cancelled == 202) + usize::from(resent == 202);
            assert_eq!(world.log.records().len(), before + appended, "{status:?}");
        }
        let mut bulk = text(&account, "campaign");
        bulk["bulk"] = true.into();
        let id = world.call("POST", "/v1/messages", &bulk).await.json()["id"].clone();
        let answer = world.call("DELETE", &format!("/v1/messages/{}", id.as_str().unwrap()), &Value::Null).await;
        assert_eq!(answer.status, 202);
        assert_eq!(world.log.records().last().unwrap().topic, Topic::Bulk, "behind the message, not before it");
    })
    .await;
}

#[tokio::test]
async fn receipts_are_sends_to_the_conversation() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        let state = world.knows(&account, opens).await;
        let message = MessageId([3; 16]);
        for (path, body) in [("read", json!({"message": message})), ("typing", Value::Null)] {
            let answer = world.call("POST", &format!("/v1/conversations/{}/{path}", state.id), &body).await;
            assert_eq!(answer.status, 202, "{path}: {answer:?}");
        }
        let kinds: Vec<&str> = world
            .commands()
            .iter()
            .map(|command| match command {
                Command::Send(send) => send.content.kind(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, ["read", "typing"]);
        let bad = world.call("POST", &format!("/v1/conversations/{}/read", state.id), &json!({"massage": 1})).await;
        assert_eq!(bad.pointers(), ["/massage"]);
        let none = format!("/v1/conversations/{}/read", ConversationId([1; 16]));
        assert_eq!(world.call("POST", &none, &Value::Null).await.status, 404);
    })
    .await;
}
