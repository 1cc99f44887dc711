//! Dead letters: listed over all tenants, shown, let in again, dropped.

use messaging::ids::QuarantineId;
use messaging::record::{Record, RecordKind};
use messaging::state::Quarantined;
use messaging::store::Key;
use serde_json::{Value, json};

use super::sends::{opens, text};
use super::{START, World};

impl World {
    /// Parks a record, as a shard would. Gives its path.
    async fn parked(&self, record: &Record, n: u8) -> String {
        let (tenant, id) = (self.tenant(), QuarantineId([n; 16]));
        let row = Quarantined {
            account: record.account,
            channel: record.channel,
            reason: "unknown_owner".into(),
            at: START,
            record: record.encode(self.keyring.log()).to_vec(),
        };
        self.put(Key::Quarantine(tenant, id), postcard::to_stdvec(&row).unwrap()).await;
        format!("/v1/dead-letters/{tenant}/{id}")
    }

    /// A send's record.
    async fn send_record(&self) -> Record {
        let account = self.whatsapp().await;
        self.knows(&account, opens).await;
        assert_eq!(self.call("POST", "/v1/messages", &text(&account, "hello")).await.status, 202);
        self.records().pop().unwrap()
    }
}

#[tokio::test]
async fn a_dead_letter_is_listed_shown_let_in_again_and_dropped() {
    World::run(async |world| {
        let record = world.send_record().await;
        let path = world.parked(&record, 1).await;
        let listed = world.call("GET", "/v1/dead-letters", &Value::Null).await.json();
        let row = &listed["data"][0];
        for (member, value) in [
            ("tenant", json!(world.tenant())),
            ("account", json!(record.account)),
            ("channel", json!("whatsapp")),
            ("kind", json!("command")),
            ("reason", json!("unknown_owner")),
            ("at", json!(START)),
        ] {
            assert_eq!(row[member], value, "{member}: {row}");
        }
        assert!(row.get("body").is_none(), "what it says is shown one by one only");
        let shown = world.call("GET", &path, &Value::Null).await.json();
        assert!(shown["body"].as_str().unwrap().contains("hello"), "{shown}");

        let answer = world.call("POST", &format!("{path}/requeue"), &Value::Null).await;
        assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("requeued")));
        let again = world.records().pop().unwrap();
        assert!(again.requeued);
        assert_eq!((again.kind, &again.body, again.conversation), (record.kind, &record.body, record.conversation));
        // The shard that works it takes it out.
        assert_eq!(world.call("GET", &path, &Value::Null).await.status, 200);

        assert_eq!(world.call("DELETE", &path, &Value::Null).await.status, 204);
        for method in ["GET", "DELETE"] {
            assert_eq!(world.call(method, &path, &Value::Null).await.status, 404, "{method}");
        }
        assert_eq!(world.call("POST", &format!("{path}/requeue"), &Value::Null).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn dead_letters_come_page_by_page_and_what_was_never_understood_is_not_let_in() {
    World::run(async |world| {
        let record = world.send_record().await;
        for n in 1..=5 {
            world.parked(&record, n).await;
        }
        let unparsable = Record { kind: RecordKind::Unparsable, ..record };
        let path = world.parked(&unparsable, 6).await;
        // One that does not open any more is listed and dropped like the others.
        let damaged = Key::Quarantine(world.tenant(), QuarantineId([7; 16]));
        let row = Quarantined {
            account: unparsable.account,
            channel: unparsable.channel,
            reason: "damaged_row".into(),
            at: START,
            record: b"no record".to_vec(),
        };
        world.put(damaged, postcard::to_stdvec(&row).unwrap()).await;
        let broken = format!("/v1/dead-letters/{}/{}", world.tenant(), QuarantineId([7; 16]));
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = world.call("GET", &format!("/v1/dead-letters?limit=4{cursor}"), &Value::Null).await.json();
            seen.extend(page["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let mut each = seen.clone();
        each.dedup();
        assert_eq!((seen.len(), each.len()), (7, 7), "{seen:?}");
        for path in [&path, &broken] {
            let answer = world.call("POST", &format!("{path}/requeue"), &Value::Null).await;
            assert_eq!((answer.status, answer.code()), (422, "validation-failed".to_owned()), "{path}");
            assert_eq!(world.call("DELETE", path, &Value::Null).await.status, 204, "{path}");
        }
        for path in ["/v1/dead-letters/x/y", "/v1/dead-letters?cursor=x"] {
            assert!(matches!(world.call("GET", path, &Value::Null).await.status, 404 | 422), "{path}");
        }
    })
    .await;
}
