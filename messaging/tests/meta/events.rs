use std::collections::BTreeMap;

use bytes::Bytes;
use messaging::channels::{ChannelKind, InboundBody, Piece, PieceKind, channel};
use messaging::outcome::Status;
use serde_json::{Value, json};

use crate::support::{fixture, fixture_names};
use crate::{pieces, told};

/// One line a sample, each read against its file: `channel/name => event`.
const TABLE: &str = include_str!("events.txt");

fn short(line: &str) -> String {
    line.replace("m_AG5Hz2Uq7tuwNEhXfYYKj8mJEM_QPpz5jdCK48PnKAjSdjfipqxqMvK8ma6AC8fplwlqLP_5cgXIbu7I3rBN0P", "m~")
        .replace("aWdfZAG1faXRlbToxOklHTWVzc2FnZAUlEOjE3ODQxNDAwMDAwMDAwMDAxOjM0MDI4MjM2Njg0MTcxMDMwMTI", "ig~")
        .replace("https://scontent.xx.fbcdn.net/v/t1.15752-9/example.jpg?_nc_cat=1&oh=00_EXAMPLE&oe=6920A000", "https://cdn~")
        .replace("https://lookaside.fbsbx.com/ig_messaging_cdn/?asset_id=17900000000000001&signature=EXAMPLE", "https://look~")
        .replace("1795168800000", "T")
        .replace("5678901234567890", "P")
        .replace("1254459154682919", "I")
}

#[test]
fn every_sample_is_the_event_that_the_table_says() {
    let mut table: BTreeMap<&str, &str> = TABLE.lines().filter_map(|line| line.split_once(" => ")).collect();
    let mut wrong = String::new();
    for kind in [ChannelKind::Messenger, ChannelKind::Instagram] {
        for name in fixture_names(kind) {
            let lines: Vec<String> = told(kind, &fixture(kind, &name)).iter().map(|line| short(line)).collect();
            let (key, line) = (format!("{}/{name}", kind.name()), lines.join(" ;; "));
            if table.remove(key.as_str()) != Some(line.as_str()) {
                wrong += &format!("{key} => {line}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "other than the table says:\n{wrong}");
    assert!(table.is_empty(), "no such sample: {:?}", table.keys());
}

fn page(entry: Value) -> Value {
    json!({"object": "page", "entry": entry})
}

fn text_event(sender: &str, mid: &str) -> Value {
    json!({"sender": {"id": sender}, "recipient": {"id": "1234567890"}, "timestamp": 1795168800000u64, "message": {"mid": mid, "text": mid}})
}

#[test]
fn a_request_is_split_by_entry_and_event() {
    let body = page(json!([
        {"id": "1234567890", "time": 1, "messaging": [text_event("1", "m_1"), text_event("2", "m_2")], "standby": [text_event("3", "m_3")]},
        {"id": "99", "time": 2, "messaging": [text_event("4", "m_4")]},
        {"id": "98", "time": 3},
        {"id": "97", "messaging": []},
    ]));
    let pieces = pieces(ChannelKind::Messenger, &Bytes::from(body.to_string()));
    let seen: Vec<(&str, Option<&str>)> = pieces.iter().map(|piece| (piece.handle().expose(), piece.account())).collect();
    let of_first = ["psid:1", "psid:2", "psid:3"].map(|person| (person, Some("1234567890")));
    assert_eq!(seen[..3], of_first);
    assert_eq!(seen[3..], [("psid:4", Some("99")), ("account:", Some("98")), ("account:", Some("97"))]);
    assert!(pieces[..4].iter().all(|piece| piece.kind() == PieceKind::Message));
    assert!(pieces[4..].iter().all(Piece::is_unparsable), "an entry without an event that is known is kept as it came");
}

#[test]
fn other_forms_of_the_envelope() {
    let kind = ChannelKind::Instagram;
    let value = json!({"id": "1786", "from": {"id": "6", "username": "ada"}, "text": "Price?"});
    let in_list = json!([{"object": "instagram", "entry": [{"id": "17841400000000001", "time": 1795168800, "changes": [{"field": "comments", "value": value}]}]}]);
    let on_entry =
        json!({"object": "instagram", "entry": [{"id": "17841400000000001", "time": 1795168800, "field": "comments", "value": value}]});
    assert_eq!(told(kind, &in_list), told(kind, &on_entry));
    assert_eq!(told(kind, &json!({"object": "page", "entry": []})), ["unparsable"], "another product's body");
    assert_eq!(told(ChannelKind::Messenger, &json!({"object": "page"})), ["unparsable"], "nothing vanishes");
}

#[test]
fn what_is_odd_is_kept_beside_what_is_not() {
    let body = page(json!([{"id": "1", "time": 1, "messaging": [text_event("5", "m_5"), 7, null], "standby": "odd"}, 3]));
    let seen: Vec<String> = told(ChannelKind::Messenger, &body);
    assert_eq!(seen.iter().filter(|line| *line == "unparsable").count(), 4, "{seen:?}");
    assert!(seen[0].starts_with("message "), "{seen:?}");
}

#[test]
fn the_echo_of_our_own_send_settles_it() {
    let mut body = fixture(ChannelKind::Messenger, "echo-own-app.json");
    let id = messaging::ids::MessageId([7; 16]).to_string();
    body["entry"][0]["messaging"][0]["message"]["metadata"] = json!(id);
    let pieces = pieces(ChannelKind::Messenger, &Bytes::from(body.to_string()));
    let inbound = channel(ChannelKind::Messenger).parse(pieces[0].body()).unwrap();
    let InboundBody::Status(update) = &inbound.body else { panic!("{inbound:?}") };
    assert_eq!((update.status, update.callback.as_deref()), (Status::Sent, Some(id.as_str())));
    assert!(!inbound.opens_window);
}

#[test]
fn times_in_seconds_are_understood() {
    let mut body = fixture(ChannelKind::Messenger, "referral-m-me.json");
    body["entry"][0]["messaging"][0]["timestamp"] = json!(1_795_168_800);
    let in_seconds = told(ChannelKind::Messenger, &body);
    assert_eq!(in_seconds, told(ChannelKind::Messenger, &fixture(ChannelKind::Messenger, "referral-m-me.json")));
}

#[test]
fn what_is_not_known_passes_through() {
    for event in [json!({"new_thing": {"a": 1}}), json!({"message": {"mid": "m_9", "new_member": true}})] {
        let mut whole = event.clone();
        whole["sender"] = json!({"id": "5"});
        whole["recipient"] = json!({"id": "1234567890"});
        let lines = told(ChannelKind::Messenger, &page(json!([{"id": "1234567890", "time": 1, "messaging": [whole]}])));
        let known = event.get("message").is_some();
        assert!(lines[0].starts_with(if known { "message \"type\":\"unsupported\"" } else { "platform new_thing {\"a\":1}" }), "{lines:?}");
    }
}

#[test]
fn stopping_marketing_messages_is_an_opt_out() {
    let mut body = fixture(ChannelKind::Messenger, "optin-marketing-messages.json");
    body["entry"][0]["messaging"][0]["optin"]["notification_messages_status"] = json!("STOP_NOTIFICATIONS");
    assert!(told(ChannelKind::Messenger, &body)[0].starts_with("preference opted_out=true notification_messages"));
}
