//! One piece per inner event: nothing lost, nothing mixed up, one shape for `parse`.

use std::collections::BTreeMap;

use messaging::channels::{Inbound, PieceKind};
use serde_json::{Value, json};

use crate::{fixture, fixture_names, parse, pieces, summary, whatsapp};

/// A fixture about a person of its own, so that mixing people up would show.
fn personal(name: &str, number: usize) -> Value {
    let text = fixture(name).to_string();
    let phone = format!("1650555{number:04}");
    let user = format!("US.13{number:018}");
    serde_json::from_str(&text.replace("16505551234", &phone).replace("US.13491208655302741918", &user)).unwrap()
}

fn singles() -> Vec<(String, Value, Inbound)> {
    let names = fixture_names().into_iter().enumerate();
    let single = |(number, name): (usize, String)| {
        let body = personal(&name, number);
        let inbound = parse(&pieces(body.to_string())[0]);
        (name, body, inbound)
    };
    names.map(single).collect()
}

fn sorted(inbounds: impl IntoIterator<Item = Inbound>) -> Vec<String> {
    let mut lines: Vec<String> = inbounds.into_iter().map(|inbound| summary(&inbound)).collect();
    lines.sort();
    lines
}

fn parsed(body: &Value) -> Vec<Inbound> {
    let pieces = pieces(body.to_string());
    let parsed = |piece| {
        let inbound = parse(piece);
        assert_eq!(inbound.contact.handles[0], *piece.handle());
        inbound
    };
    pieces.iter().map(parsed).collect()
}

fn envelope(entries: Vec<Value>) -> Value {
    json!({"object": "whatsapp_business_account", "entry": entries})
}

#[test]
fn many_entries_say_what_each_says_alone() {
    let singles = singles();
    let entries = singles.iter().map(|(_, body, _)| body["entry"][0].clone()).collect();
    let together = parsed(&envelope(entries));
    let alone: Vec<Inbound> = singles.into_iter().map(|(_, _, inbound)| inbound).collect();
    assert_eq!(together, alone, "in order, too");
}

#[test]
fn many_changes_say_what_each_says_alone() {
    let singles: Vec<_> = singles().into_iter().filter(|(_, body, _)| body["entry"][0].get("time").is_none()).collect();
    let changes: Vec<Value> = singles.iter().map(|(_, body, _)| body["entry"][0]["changes"][0].clone()).collect();
    let together = parsed(&envelope(vec![json!({"id": "102290129340398", "changes": changes})]));
    assert_eq!(together, singles.into_iter().map(|(_, _, inbound)| inbound).collect::<Vec<_>>());
}

#[test]
fn many_events_of_one_change_say_what_each_says_alone() {
    let mut merged: BTreeMap<String, Value> = BTreeMap::new();
    let mut alone = Vec::new();
    for (_, body, inbound) in singles() {
        let change = &body["entry"][0]["changes"][0];
        let field = change["field"].as_str().unwrap().to_owned();
        if !matches!(field.as_str(), "messages" | "calls" | "smb_message_echoes" | "standby" | "user_preferences") {
            continue;
        }
        alone.push(inbound);
        let into = merged.entry(field).or_insert_with(|| json!({}));
        for (name, value) in change["value"].as_object().unwrap() {
            match value {
                Value::Array(elements) => {
                    let list = into.as_object_mut().unwrap().entry(name).or_insert_with(|| json!([])).as_array_mut().unwrap();
                    // People first to last, events last to first: matching by place would fail.
                    for element in elements {
                        let place = if name == "contacts" { 0 } else { list.len() };
                        list.insert(place, element.clone());
                    }
                }
                other => into[name] = other.clone(),
            }
        }
    }
    let changes: Vec<Value> = merged.into_iter().map(|(field, value)| json!({"field": field, "value": value})).collect();
    let together = parsed(&envelope(vec![json!({"id": "102290129340398", "changes": changes})]));
    assert_eq!(sorted(together), sorted(alone));
}

#[test]
fn a_piece_holds_the_exact_bytes_of_its_event_and_its_own_contact_only() {
    let body = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"value":{"metadata":{"phone_number_id":"9"},
        "new_member":{"a" : 1},"contacts":[{"wa_id":"15550000002","profile":{"name":"Bea"}},{"wa_id":"15550000001","profile":{"name":"A\u00e4"}}],
        "messages":[ {"from":"15550000001" ,"id":"m1","type":"text","text":{"body":"\u00e4\/1.0"}},{"from":"15550000002","id":"m2","type":"text","text":{"body":"b"}}]},
        "field":"messages"}]}]}"#;
    let pieces = pieces(body);
    let expected = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"value":{"metadata":{"phone_number_id":"9"},"new_member":{"a" : 1},"contacts":[{"wa_id":"15550000001","profile":{"name":"A\u00e4"}}],"messages":[{"from":"15550000001" ,"id":"m1","type":"text","text":{"body":"\u00e4\/1.0"}}]},"field":"messages"}]}]}"#;
    assert_eq!(pieces.len(), 2);
    assert_eq!(std::str::from_utf8(pieces[0].body()).unwrap(), expected);
    assert_eq!(parse(&pieces[0]).contact.name.as_deref(), Some("Aä"));
    assert_eq!(parse(&pieces[1]).contact.name.as_deref(), Some("Bea"));
}

/// Body, and per piece: kind and handle, or `quarantine`; and what it says.
#[test]
fn odd_envelopes_lose_nothing() {
    let of = |field: &str, value: &str| {
        format!(r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"value":{value},"field":"{field}"}}]}}]}}"#)
    };
    let cases: Vec<(String, Vec<&str>)> = vec![
        ("not json".into(), vec!["quarantine"]),
        ("{}".into(), vec!["quarantine"]),
        ("[]".into(), vec!["quarantine"]),
        (String::new(), vec!["quarantine"]),
        (r#"{"object":"page","entry":[{"changes":[{"field":"feed","value":{}}]}]}"#.into(), vec!["quarantine"]),
        (r#"{"object":"whatsapp_business_account","entry":[]}"#.into(), vec!["quarantine"]),
        (r#"{"object":"whatsapp_business_account","entry":[{"changes":[]}]}"#.into(), vec!["quarantine"]),
        (of("messages", "5"), vec!["quarantine"]),
        (of("messages", r#"{"messages":{}}"#), vec!["quarantine"]),
        (of("messages", r#"{"messages":[5]}"#), vec!["quarantine"]),
        (
            of("messages", r#"{"messages":[{"from":"15550000001","type":"text","text":{"body":"a"}},5]}"#),
            vec![r#"message phone:15550000001: message "type":"text","text":{"body":"a"} | 0 | phone:15550000001 | opens"#, "quarantine"],
        ),
        (of("messages", "{}"), vec!["other account:: platform messages {} | 0 | account:"]),
        (
            of("messages", r#"{"messages":[],"statuses":null,"surprise":[1]}"#),
            vec![r#"other account:: platform messages {"messages":[],"statuses":null,"surprise":[1]} | 0 | account:"#],
        ),
        (
            of("history", r#"{"history":[{"threads":[1,2]}],"errors":{}}"#),
            vec![r#"other account:: platform history {"errors":{},"history":[{"threads":[1,2]}]} | 0 | account:"#],
        ),
        (
            of("group_lifecycle_update", r#"{"groups":[1]}"#),
            vec![r#"other account:: platform group_lifecycle_update {"groups":[1]} | 0 | account:"#],
        ),
        (of("messaging_handovers", "[]"), vec!["other account:: platform messaging_handovers [] | 0 | account:"]),
        (
            of("template_category_update", "1"),
            vec![r#"account account:: template.changed {"field":"template_category_update","value":1} | 0 | account:"#],
        ),
        (of("security", "{}"), vec![r#"account account:: account.state_changed {"field":"security","value":{}} | 0 | account:"#]),
        // A broken interactive message comes with an error beside it.
        (
            of(
                "messages",
                r#"{"messages":[{"from":"15550000001","id":"m","timestamp":"7","type":"interactive"}],"errors":[{"code":131000,"title":"Something went wrong"}]}"#,
            ),
            vec![
                r#"message phone:15550000001: message "type":"unsupported","unsupported":{"kind":"interactive","raw":{"from":"15550000001","id":"m","timestamp":"7","type":"interactive"}} | m  | 7 | phone:15550000001 | opens"#,
                r#"account account:: account.state_changed {"detail":"131000: Something went wrong","field":"errors","reason":"server_error","value":{"code":131000,"title":"Something went wrong"}} | 0 | account:"#,
            ],
        ),
    ];
    for (body, expected) in cases {
        let told: Vec<String> = pieces(body.clone())
            .iter()
            .map(|piece| {
                if piece.is_unparsable() {
                    return "quarantine".to_owned();
                }
                let kind: PieceKind = piece.kind();
                format!("{} {}: {}", kind.name(), piece.handle().expose(), summary(&parse(piece)))
            })
            .collect();
        assert_eq!(told, expected, "{body}");
    }
}

/// Event as an element of `messages` (or another list), and what it says.
#[test]
fn rarer_events() {
    let cases = [
        (
            "messages",
            "messages",
            r#"{"from":"US.13aB","id":"m","type":"text","text":{"body":"a"}}"#,
            r#"message "type":"text","text":{"body":"a"} | m  | 0 | bsuid:US.13aB | opens"#,
        ),
        (
            "messages",
            "messages",
            r#"{"from":"US.13aB","id":"m","type":"poll","poll":{"a":1}}"#,
            r#"message "type":"unsupported","unsupported":{"kind":"poll","raw":{"from":"US.13aB","id":"m","poll":{"a":1},"type":"poll"}} | m  | 0 | bsuid:US.13aB | opens"#,
        ),
        (
            "messages",
            "messages",
            r#"{"from":"+1 555-000 0001","from_user_id":"US.13aB","id":"m","timestamp":8,"type":"reaction","reaction":{"message_id":"x","emoji":""}}"#,
            "reaction None on x | m  | 8 | phone:15550000001 bsuid:US.13aB",
        ),
        (
            "messages",
            "messages",
            r#"{"from":"15550000001","id":"m","type":"reaction","reaction":{}}"#,
            r#"platform reaction {"from":"15550000001","id":"m","reaction":{},"type":"reaction"} | m  | 0 | phone:15550000001"#,
        ),
        (
            "messages",
            "messages",
            r#"{"from":"15550000001","id":"m","type":"interactive","interactive":{"type":"nfm_reply","nfm_reply":{"response_json":"{broken"}}}"#,
            r#"message "type":"interactive_reply","interactive_reply":{"kind":"form","data":"{broken"} | m  | 0 | phone:15550000001 | opens"#,
        ),
        (
            "messages",
            "messages",
            r#"{"from":"15550000001","id":"m","type":"edit","edit":{"original_message_id":"o","message":{"type":"poll"}}}"#,
            r#"edit o "type":"unsupported","unsupported":{"kind":"poll","raw":{"type":"poll"}} | m  | 0 | phone:15550000001"#,
        ),
        (
            "messages",
            "messages",
            r#"{"from":"15550000001","from_user_id":"US.new","id":"m","type":"system","system":{"type":"user_changed_number","wa_id":"15550000002","user_id":"US.new"}}"#,
            "rekeyed phone:15550000002 bsuid:US.new | m  | 0 | phone:15550000001",
        ),
        (
            "messages",
            "messages",
            r#"{"id":"m","type":"text","text":{"body":"a"}}"#,
            r#"message "type":"text","text":{"body":"a"} | m  | 0 | account: | opens"#,
        ),
        (
            "messages",
            "statuses",
            r#"{"id":"m","status":"deleted","timestamp":"9","recipient_user_id":"US.13aB"}"#,
            r#"platform status.deleted {"id":"m","recipient_user_id":"US.13aB","status":"deleted","timestamp":"9"} | m deleted | 9 | bsuid:US.13aB"#,
        ),
        (
            "messages",
            "statuses",
            r#"{"id":"m","status":"failed","recipient_id":"US.13aB","errors":[{"code":1,"title":"no +1 (555) 000-0001 here"}]}"#,
            r#"status m failed failed reason=server_error detail=Some("1: no +… here") callback=None {} | m failed | 0 | bsuid:US.13aB"#,
        ),
        (
            "messages",
            "statuses",
            r#"{"id":"m","status":"failed","recipient_id":"15550000001","errors":"?"}"#,
            "status m failed failed reason=rejected detail=None callback=None {} | m failed | 0 | phone:15550000001",
        ),
        (
            "messages",
            "statuses",
            r#"{"id":"p","type":"payment","status":"captured","recipient_id":"15550000001"}"#,
            r#"platform payment.captured {"id":"p","recipient_id":"15550000001","status":"captured","type":"payment"} | p captured | 0 | phone:15550000001"#,
        ),
        (
            "calls",
            "statuses",
            r#"{"id":"c","status":"RINGING","recipient_id":"15550000001"}"#,
            r#"platform call.ringing {"id":"c","recipient_id":"15550000001","status":"RINGING"} | c RINGING | 0 | phone:15550000001"#,
        ),
        (
            "calls",
            "calls",
            r#"{"id":"c","event":"connect","direction":"BUSINESS_INITIATED","from":"15559999999","to":"15550000001"}"#,
            r#"platform call.connect {"direction":"BUSINESS_INITIATED","event":"connect","from":"15559999999","id":"c","to":"15550000001"} | c connect | 0 | phone:15550000001"#,
        ),
        (
            "smb_message_echoes",
            "message_echoes",
            r#"{"from":"15559999999","to":"15550000001","id":"m","type":"revoke","revoke":{"original_message_id":"o"}}"#,
            r#"delete ["o"] | m  | 0 | phone:15550000001"#,
        ),
        (
            "standby",
            "message_echoes",
            r#"{"from":"15559999999","to":"15550000001","id":"m","type":"reaction","reaction":{"message_id":"o"}}"#,
            r#"platform message_echoes.reaction {"from":"15559999999","id":"m","reaction":{"message_id":"o"},"to":"15550000001","type":"reaction"} | m  | 0 | phone:15550000001 | {"standby":true}"#,
        ),
        (
            "user_preferences",
            "user_preferences",
            r#"{"wa_id":"15550000001","category":"marketing_messages","value":"resume"}"#,
            "preference opted_out=false marketing_messages | 0 | phone:15550000001",
        ),
        (
            "user_preferences",
            "user_preferences",
            r#"{"wa_id":"15550000001","value":"pause"}"#,
            r#"platform user_preferences {"value":"pause","wa_id":"15550000001"} | 0 | phone:15550000001"#,
        ),
    ];
    for (field, list, element, expected) in cases {
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"changes":[{{"value":{{"{list}":[{element}]}},"field":"{field}"}}]}}]}}"#
        );
        let pieces = pieces(body.clone());
        assert_eq!(pieces[0].body(), body.as_bytes());
        let inbound = parse(&pieces[0]);
        assert_eq!(summary(&inbound), expected, "{element}");
        assert_eq!(inbound.contact.handles[0], *pieces[0].handle(), "{element}");
    }
}

#[test]
fn the_phone_of_the_contacts_keys_a_message_that_names_only_the_user_id() {
    let value = r#"{"contacts":[{"wa_id":"15550000009","user_id":"US.9"},{"wa_id":"15550000001","user_id":"US.1"}],"messages":[{"from_user_id":"US.1","type":"text","text":{"body":"a"}}]}"#;
    let body = format!(r#"{{"object":"whatsapp_business_account","entry":[{{"changes":[{{"value":{value},"field":"messages"}}]}}]}}"#);
    let pieces = pieces(body);
    assert_eq!(pieces[0].handle().expose(), "phone:15550000001");
    let handles: Vec<String> = parse(&pieces[0]).contact.handles.iter().map(|handle| handle.expose().to_owned()).collect();
    assert_eq!(handles, ["phone:15550000001", "bsuid:US.1"]);
}

#[test]
fn a_body_made_to_explode_is_kept_whole() {
    let metadata = "x".repeat(200_000);
    let elements = vec!["{}"; 50_000].join(",");
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"changes":[{{"value":{{"metadata":"{metadata}","messages":[{elements}]}},"field":"messages"}}]}}]}}"#
    );
    let pieces = pieces(body.clone());
    assert!(pieces.len() == 1 && pieces[0].is_unparsable());
    assert_eq!(pieces[0].body().len(), body.len());
}

#[test]
fn a_full_batch_is_split() {
    let message = r#"{"from":"15550000001","id":"wamid.1","timestamp":"1795168800","type":"text","text":{"body":"hello"}}"#;
    let elements = vec![message; 1000].join(",");
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"102290129340398","changes":[{{"value":{{"metadata":{{"display_phone_number":"15550783881","phone_number_id":"106540352242922"}},"messages":[{elements}]}},"field":"messages"}}]}}]}}"#
    );
    assert_eq!(pieces(body).len(), 1000);
}

#[test]
fn bytes_that_are_no_piece_are_malformed() {
    for bytes in [&b"\xff\xfe"[..], b"", b"null", b"{}", br#"{"object":"whatsapp_business_account","entry":[{},{}]}"#] {
        let error = whatsapp().parse(bytes).unwrap_err().to_string();
        assert!(error.starts_with("is not"), "{error}");
    }
}
