use std::collections::BTreeMap;

use bytes::Bytes;
use messaging::channels::PieceKind;
use serde_json::{Value, json};

use crate::support::{fixture, fixture_names};
use crate::{CONVERSATION, KIND, event, pieces, told};

/// One line a sample, each read against its file: `name => event`.
const TABLE: &str = include_str!("events.txt");

fn short(line: &str) -> String {
    line.replace("_000EXAMPLEuserUniqueIdBBBBBBBBBBBB", "USER")
        .replace(crate::BUSINESS, "BUSINESS")
        .replace(CONVERSATION, "CONV")
        .replace("u5Buqc6lAghuOelnHUZV88DK", "m~")
        .replace("1795168800000", "T")
}

#[test]
fn every_sample_is_the_event_that_the_table_says() {
    let mut table: BTreeMap<&str, &str> = TABLE.lines().filter_map(|line| line.split_once(" => ")).collect();
    let mut wrong = String::new();
    for name in fixture_names(KIND) {
        let lines: Vec<String> = told(&fixture(KIND, &name)).iter().map(|line| short(line)).collect();
        let line = lines.join(" ;; ");
        if table.remove(name.as_str()) != Some(line.as_str()) {
            wrong += &format!("{name} => {line}\n");
        }
    }
    assert!(wrong.is_empty(), "other than the table says:\n{wrong}");
    assert!(table.is_empty(), "no such sample: {:?}", table.keys());
}

/// A person's message with these members more.
fn message(more: Value) -> Value {
    let mut content = json!({
        "from": "ada", "to": "shop", "unique_identifier": "U", "conversation_id": "C", "message_id": "M", "timestamp": 1_795_168_800_000u64,
    });
    content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    content
}

fn body_of(kind: &str, more: Value) -> String {
    let lines = told(&event(kind, &message(more)));
    let [line] = &lines[..] else { panic!("{lines:?}") };
    line.split(" | ").next().unwrap().to_owned()
}

#[test]
fn contents_without_a_sample() {
    let template = json!({"type": "template", "template": {"type": "qa_button_card", "elements": [{"title": "How?", "buttons": [
        {"text": "Track", "type": "REPLY", "id": "track"}, {"text": "Talk", "type": "REPLY"},
    ]}]}});
    let cases = [
        (
            "im_send_msg",
            template,
            r#"echo "type":"interactive","interactive":{"body":"How?","buttons":[{"id":"track","title":"Track"},{"id":"","title":"Talk"}]}"#,
        ),
        (
            "im_receive_msg",
            json!({"type": "game", "game": {"a": 1}}),
            r#"message "type":"unsupported","unsupported":{"kind":"game","raw":{"a":1}}"#,
        ),
        (
            "im_receive_msg",
            json!({"type": "image", "image": {"url": "x"}}),
            r#"message "type":"unsupported","unsupported":{"kind":"image","raw":{"url":"x"}}"#,
        ),
        ("im_receive_msg", json!({"type": "image", "image": 7}), r#"message "type":"unsupported","unsupported":{"kind":"image","raw":7}"#),
        (
            "im_send_msg",
            json!({"type": "template", "template": {"elements": []}}),
            r#"echo "type":"unsupported","unsupported":{"kind":"template","raw":{"elements":[]}}"#,
        ),
        ("im_receive_msg", json!({"type": "text", "text": {"body": ""}}), r#"message "type":"text","text":{"body":""}"#),
    ];
    for (kind, more, expected) in cases {
        assert_eq!(body_of(kind, more.clone()), expected, "{more}");
    }
    let whole = body_of("im_receive_msg", json!({}));
    assert!(whole.starts_with(r#"message "type":"unsupported","unsupported":{"kind":"unknown","raw":{"conversation_id":"C","#), "{whole}");
}

#[test]
fn a_list_of_reactions_is_as_many_events() {
    let one = |operation: &str, emoji: &str| json!({"operation": operation, "type": "EMOJI", "emoji": emoji, "timestamp": 1_795_168_801_000u64, "original_msg_id": "M0"});
    let ai =
        json!({"operation": "ADD", "type": "AI_EMOJI", "ai_emoji_url": "https://a.example/e", "timestamp": 5, "original_msg_id": "M0"});
    let said = event("im_receive_msg", &message(json!({"type": "reaction", "reaction": [one("ADD", "👍"), one("REMOVE", "🔥"), ai]})));
    let lines = told(&said);
    let bodies: Vec<&str> = lines.iter().map(|line| line.split(" | ").next().unwrap()).collect();
    assert_eq!(bodies, ["reaction 👍 on M0", "reaction none on M0", "reaction https://a.example/e on M0"]);
    let ids: std::collections::BTreeSet<&str> = lines.iter().map(|line| line.split(" | ").nth(1).unwrap()).collect();
    assert_eq!(ids.len(), 3, "told apart: {lines:?}");
    assert!(!lines.iter().any(|line| line.contains("opens")));
    let pieces = pieces(&Bytes::from(said.to_string()));
    assert!(pieces.iter().all(|piece| piece.kind() == PieceKind::Reaction));
    let too_many: Vec<Value> = vec![one("ADD", "👍"); 65];
    let whole = event("im_receive_msg", &message(json!({"type": "reaction", "reaction": too_many})));
    assert!(matches!(&crate::pieces(&Bytes::from(whole.to_string()))[..], [piece] if piece.is_unparsable()));
}

#[test]
fn what_opens_a_window_and_what_does_not() {
    let conversation = json!({"conversation_id": "C", "timestamp": 1_795_168_800_000u64});
    let text = json!({"type": "text", "text": {"body": "x"}});
    let comment = |action: &str| json!({"comment_id": 7_400_000_000_000_000_123u64, "comment_action": action, "timestamp": 1_795_168_800});
    let cases = [
        ("im_receive_msg", message(text.clone()), true),
        ("im_send_msg", message(text.clone()), false),
        ("im_referral_msg", message(json!({"referral": {"source": "ad"}})), false),
        ("im_mark_read_msg", message(json!({"read": {"last_read_timestamp": 1_795_168_800_000u64}})), false),
        ("im_receive_msg_eu", json!({"timestamp": 1_795_168_800_000u64}), false),
        ("im_receive_msg", json!({"message_id": "M", "type": "text", "text": {"body": "x"}}), false),
        ("im_auto_message_config_update", conversation, false),
        ("comment.update", comment("insert"), true),
        ("comment.update", comment("delete"), false),
        ("comment.update", json!({"comment_action": "insert"}), false),
        ("im_receive_high_intent_comment", comment(""), true),
    ];
    for (kind, content, opens) in cases {
        let lines = told(&event(kind, &content));
        assert_eq!(lines[0].contains(" | opens"), opens, "{kind} {content}: {lines:?}");
    }
}

#[test]
fn ids_of_comments_keep_all_their_digits() {
    for comment in [json!(7_400_000_000_000_000_123u64), json!("7400000000000000123")] {
        let lines = told(&event("comment.update", &json!({"comment_id": comment, "comment_action": "insert", "timestamp": 1_795_168_800})));
        assert!(lines[0].contains(" | comment:7400000000000000123"), "{lines:?}");
        assert!(lines[0].contains("7400000000000000123:1795168800000:insert  | 1795168800000"), "seconds are read: {lines:?}");
    }
}

#[test]
fn other_forms() {
    let as_object = json!({"event": "im_receive_msg", "create_time": 1_795_168_800, "user_openid": crate::BUSINESS, "content": message(json!({"type": "text", "text": {"body": "x"}}))});
    assert!(told(&as_object)[0].starts_with("message "), "content as an object");
    let no_time = json!({"event": "im_receive_msg", "user_openid": crate::BUSINESS, "content": "{\"conversation_id\":\"C\"}"});
    assert!(told(&no_time)[0].contains(" | 0 | conversation:C"), "{:?}", told(&no_time));
    let unknown = event("im_of_tomorrow", &json!({"conversation_id": "C", "timestamp": 1_795_168_800_000u64, "new": [1]}));
    assert!(told(&unknown)[0].starts_with(r#"platform im_of_tomorrow {"conversation_id":"C","new":[1],"#), "{:?}", told(&unknown));
    let bare = json!({"event": "im_auto_message_audit_update", "user_openid": crate::BUSINESS, "content": ""});
    assert_eq!(told(&bare), ["platform im_auto_message_audit_update {} |  im_auto_message_audit_update | 0 | account:"]);
    for odd in [
        json!([]),
        json!(7),
        json!({}),
        json!({"event": 7}),
        event("im_receive_msg", &json!([])),
        json!({"event": "x", "content": "no json"}),
    ] {
        assert!(matches!(&pieces(&Bytes::from(odd.to_string()))[..], [piece] if piece.is_unparsable()), "{odd}");
    }
}

#[test]
fn a_reading_of_the_business_is_no_watermark() {
    let read = |role: &str| message(json!({"from_user": {"id": "1", "role": role}, "read": {"last_read_timestamp": 1_795_168_804_000u64}}));
    assert!(told(&event("im_mark_read_msg", &read("personal_account")))[0].starts_with("watermark read 1795168804000"));
    assert!(told(&event("im_mark_read_msg", &read("business_account")))[0].starts_with("platform im_mark_read_msg "));
    assert!(told(&event("im_mark_read_msg", &message(json!({"read": {}}))))[0].starts_with("platform im_mark_read_msg "));
}
