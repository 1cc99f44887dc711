use std::collections::BTreeMap;

use bytes::Bytes;
use messaging::channels::PieceKind;
use serde_json::{Value, json};

use crate::support::{fixture, fixture_names};
use crate::{KIND, received, told};

/// One line a sample, each read against its file: `name => event`.
const TABLE: &str = include_str!("events.txt");

fn short(line: &str) -> String {
    line.replace("1200000000000000010", "CHAN")
        .replace("1200000000000000020", "GUILD")
        .replace("1200000000000000030", "USER")
        .replace(crate::BOT, "BOT")
        .replace("1440000000000000", "m~")
}

#[test]
fn every_sample_is_the_event_that_the_table_says() {
    let mut table: BTreeMap<&str, &str> = TABLE.lines().filter_map(|line| line.split_once(" => ")).collect();
    let mut wrong = String::new();
    for name in fixture_names(KIND) {
        let lines: Vec<String> = told(&fixture(KIND, &name)).iter().map(|line| short(line)).collect();
        let line = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" ;; ") };
        if table.remove(name.as_str()) != Some(line.as_str()) {
            wrong += &format!("{name} => {line}\n");
        }
    }
    assert!(wrong.is_empty(), "other than the table says:\n{wrong}");
    assert!(table.is_empty(), "no such sample: {:?}", table.keys());
}

/// Status, media type, body of the answer.
fn answered(body: &Value) -> (u16, Option<&'static str>, String) {
    let (_, answer) = received(&Bytes::from(body.to_string()));
    let answer = answer.unwrap_or_else(|| panic!("no answer to {body}"));
    (answer.status, answer.content_type, String::from_utf8(answer.body.to_vec()).unwrap())
}

#[test]
fn every_request_has_the_answer_that_discord_wants() {
    const JSON: Option<&str> = Some("application/json");
    let sample = |name: &str| fixture(KIND, &format!("{name}.json"));
    let mut form_below_a_message = sample("interaction-modal-submit");
    form_below_a_message["message"] = json!({"id": "1"});
    let cases = [
        (sample("interaction-ping"), 200, JSON, r#"{"type":1}"#),
        (sample("interaction-slash-command-dm"), 200, JSON, r#"{"type":5}"#),
        (sample("interaction-slash-command-guild"), 200, JSON, r#"{"type":5}"#),
        (sample("interaction-button"), 200, JSON, r#"{"type":6}"#),
        (sample("interaction-string-select"), 200, JSON, r#"{"type":6}"#),
        (sample("interaction-modal-submit"), 200, JSON, r#"{"type":5}"#),
        (form_below_a_message, 200, JSON, r#"{"type":6}"#),
        (sample("interaction-autocomplete"), 200, JSON, r#"{"data":{"choices":[]},"type":8}"#),
        (json!({"type": 77, "id": "1", "token": "t"}), 202, None, ""),
        (sample("webhook-event-ping"), 204, JSON, ""),
        (sample("webhook-event-application-authorized"), 204, JSON, ""),
        (sample("webhook-event-application-deauthorized"), 204, JSON, ""),
    ];
    for (body, status, media_type, text) in cases {
        assert_eq!(answered(&body), (status, media_type, text.to_owned()), "{body}");
    }
}

#[test]
fn pings_make_no_records() {
    for name in ["interaction-ping.json", "webhook-event-ping.json"] {
        assert!(received(&Bytes::from(fixture(KIND, name).to_string())).0.is_empty(), "{name}");
    }
}

#[test]
fn the_token_is_the_way_back_for_a_quarter_of_an_hour_and_stands_nowhere_else() {
    let token = "aW50ZXJhY3Rpb246EXAMPLE";
    let cases = [
        ("interaction-slash-command-dm.json", true),
        ("interaction-slash-command-guild.json", true),
        ("interaction-button.json", true),
        ("interaction-string-select.json", true),
        ("interaction-modal-submit.json", true),
        ("interaction-autocomplete.json", false),
    ];
    for (name, is_way) in cases {
        let (pieces, _) = received(&Bytes::from(fixture(KIND, name).to_string()));
        let inbound = crate::discord().parse(pieces[0].body()).unwrap();
        let way = is_way.then(|| (token.to_owned(), Some(900)));
        let said = inbound.contact.via.clone().map(|via| (via, inbound.contact.via_for.map(|length| length.as_secs())));
        assert_eq!(said, way, "{name}");
        assert_eq!(pieces[0].kind(), if is_way { PieceKind::Message } else { PieceKind::Other }, "{name}");
        let without_way = messaging::channels::ContactInfo { via: None, ..inbound.contact.clone() };
        let rest = messaging::channels::Inbound { contact: without_way, ..inbound };
        assert!(!format!("{rest:?}").contains(token), "{name} shows the token");
    }
}

/// What an interaction of this type and data says, without ids and times.
fn interaction(kind: u64, more: Value) -> String {
    let mut whole = json!({"version": 1, "type": kind, "id": "1440000000000000900", "token": "t", "channel_id": "10", "context": 1});
    whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    told(&whole)[0].split(" | ").next().unwrap().to_owned()
}

#[test]
fn contents_of_interactions_without_a_sample() {
    let options = json!([{"type": 2, "name": "list", "options": [{"type": 1, "name": "open", "options": [
        {"type": 4, "name": "count", "value": 3}, {"type": 5, "name": "all", "value": true}, {"type": 3, "name": "q", "value": "a b"}]}]}]);
    let list = json!([{"type": 1, "components": [{"type": 3, "custom_id": "list:0", "options": [
        {"label": "One", "value": "1"}, {"label": "Two", "value": "2", "description": "the second"}]}]}]);
    let old_form = json!({"custom_id": "f", "components": [{"type": 1, "components": [{"type": 4, "custom_id": "a", "value": "x"}]},
        {"type": 18, "component": {"type": 3, "custom_id": "b", "values": ["1", "2"]}}]});
    let cases = [
        (
            2,
            json!({"data": {"name": "order", "options": options}}),
            r#"message "type":"text","text":{"body":"/order list open count: 3 all: true q: a b"}"#,
        ),
        (2, json!({}), r#"message "type":"text","text":{"body":"/?"}"#),
        (
            3,
            json!({"data": {"component_type": 3, "custom_id": "list:0", "values": ["2", "1"]}, "message": {"id": "5", "components": list}}),
            r#"message "type":"interactive_reply","interactive_reply":{"kind":"list","id":"2","title":"Two","description":"the second","data":{"custom_id":"list:0","values":["2","1"]}} to 5"#,
        ),
        (
            3,
            json!({"data": {"component_type": 2, "custom_id": "x"}}),
            r#"message "type":"interactive_reply","interactive_reply":{"kind":"button","id":"x"}"#,
        ),
        (
            5,
            json!({"data": old_form}),
            r#"message "type":"interactive_reply","interactive_reply":{"kind":"form","id":"f","data":{"a":"x","b":["1","2"]}}"#,
        ),
        (
            9,
            json!({"new": 1}),
            r#"platform interaction 9 {"channel_id":"10","context":1,"id":"1440000000000000900","new":1,"type":9,"version":1}"#,
        ),
    ];
    for (kind, more, expected) in cases {
        assert_eq!(interaction(kind, more.clone()), expected, "{more}");
    }
    let deep = (0..60).fold(json!([]), |inner, _| json!([{"name": "x", "options": inner}]));
    assert!(interaction(2, json!({"data": {"name": "n", "options": deep}})).len() < 100, "levels are limited");
    let long = json!([{"name": "x", "value": "é".repeat(20_000)}]);
    assert!(interaction(2, json!({"data": {"name": "n", "options": long}})).chars().count() < 8_100, "the text is limited");
}

#[test]
fn where_an_interaction_was() {
    let user = json!({"id": "30", "username": "ada", "global_name": "Ada"});
    let cases = [
        (json!({"channel_id": "10", "context": 1, "user": user}), "channel:10 user:30 | Ada | ada"),
        (json!({"channel_id": "10", "channel": {"type": 1}, "user": user}), "channel:10 user:30 | Ada | ada"),
        // Another private channel: the bot itself cannot write there, so the person is not known by it.
        (json!({"channel_id": "10", "context": 2, "user": user}), "channel:10 | t"),
        (json!({"channel_id": "10", "context": 0, "member": {"user": user}}), "channel:10 | t"),
        (json!({"context": 1, "user": user}), "user:30 | Ada | ada"),
        (json!({}), "account: | t"),
    ];
    for (members, expected) in cases {
        let mut whole = json!({"type": 2, "id": "1440000000000000900", "token": "t", "data": {"name": "n"}});
        whole.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let line = told(&whole).remove(0);
        assert!(line.contains(&format!(" | {expected}")), "{members}: {line}");
    }
}

#[test]
fn webhook_events_of_every_kind_pass() {
    let event = |kind: &str, data: Value| {
        let event = json!({"type": kind, "timestamp": "2026-11-20T10:00:00.064834", "data": data});
        told(&json!({"version": 1, "application_id": "1", "type": 1, "event": event})).remove(0)
    };
    let user = json!({"user": {"id": "30", "username": "ada"}});
    assert!(
        event("APPLICATION_DEAUTHORIZED", user.clone())
            .starts_with("preference opted_out=true APPLICATION_DEAUTHORIZED | 1795168800064 | user:30")
    );
    assert!(event("APPLICATION_DEAUTHORIZED", json!({})).starts_with("platform APPLICATION_DEAUTHORIZED "), "nobody is named");
    assert!(event("ENTITLEMENT_CREATE", json!({"id": "1"})).starts_with(r#"platform ENTITLEMENT_CREATE {"data":{"id":"1"}"#));
    assert!(event("OF_TOMORROW", user).starts_with("platform OF_TOMORROW "));
    let bare = told(&json!({"type": 1, "event": {"data": null}})).remove(0);
    assert!(bare.starts_with(r#"platform unknown {"data":null} | 0 | account:"#), "{bare}");
}

#[test]
fn what_is_nothing_of_discords_is_kept_aside() {
    for odd in [json!([]), json!(7), json!({}), json!({"type": "x"}), json!({"type": -1}), json!({"type": 2, "channel_id": 7})] {
        let (pieces, answer) = received(&Bytes::from(odd.to_string()));
        assert!(pieces.len() == 1 && pieces[0].is_unparsable() && answer.is_none(), "{odd}");
    }
}
