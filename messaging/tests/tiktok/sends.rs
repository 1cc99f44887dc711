use std::time::Duration;

use messaging::channels::{Outgoing, Unsendable};
use messaging::content::{Content, Handle};
use messaging::exchange::HttpRequest;
use serde_json::{Map, Value, json};

use crate::support::{NOW, settings};
use crate::{BUSINESS, CONVERSATION, KIND, account, account_with, tiktok};

fn content(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}

fn conversation() -> Handle {
    Handle::new("conversation", CONVERSATION)
}

fn request(to: &Handle, content: &Content, reply_to: Option<&str>) -> Result<HttpRequest, Unsendable> {
    let send = Outgoing { message: "msg_1", to, content, reply_to, via: None, tag: None, now: NOW };
    tiktok().request(&send, &account(), &settings(KIND))
}

fn body(request: &HttpRequest) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

#[test]
fn every_content_that_the_platform_takes() {
    let card = |title: &str| json!({"interactive": {"body": "How can we help?", "buttons": [{"id": "a", "title": title}, {"id": "b", "title": "B"}]}});
    let buttons = |title: &str| json!([{"type": "REPLY", "title": title, "id": "a"}, {"type": "REPLY", "title": "B", "id": "b"}]);
    let long = "A label of more than twenty";
    let cases = [
        (json!({"text": {"body": "hi", "preview_url": true}}), json!({"message_type": "TEXT", "text": {"body": "hi"}})),
        (json!({"image": {"id": "v0d0"}}), json!({"message_type": "IMAGE", "image": {"media_id": "v0d0"}})),
        (json!({"video": {"id": "7400"}}), json!({"message_type": "SHARE_POST", "share_post": {"item_id": "7400"}})),
        (
            card("A"),
            json!({"message_type": "TEMPLATE", "template": {"type": "QA_BUTTON_CARD", "title": "How can we help?", "buttons": buttons("A")}}),
        ),
        (
            card(long),
            json!({"message_type": "TEMPLATE", "template": {"type": "QA_LINK_CARD", "title": "How can we help?", "buttons": buttons(long)}}),
        ),
        (json!({"read": {}}), json!({"message_type": "SENDER_ACTION", "sender_action": "MARK_READ"})),
        (json!({"typing": {}}), json!({"message_type": "SENDER_ACTION", "sender_action": "TYPING"})),
    ];
    for (sent, expected) in cases {
        let content = content(sent.clone());
        assert_eq!(tiktok().check(&content, &conversation()), [], "{sent}");
        let request = request(&conversation(), &content, None).unwrap();
        let mut whole: Map<String, Value> = expected.as_object().unwrap().clone();
        whole.extend([("business_id".to_owned(), json!(BUSINESS)), ("recipient_type".to_owned(), json!("CONVERSATION"))]);
        whole.insert("recipient".to_owned(), json!(CONVERSATION));
        assert_eq!(body(&request), Value::Object(whole), "{sent}");
        assert_eq!(request.url, "https://business-api.tiktok.com/open_api/v1.3/business/message/send/");
        let header = |name: &str| request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        assert_eq!(header("access-token").unwrap(), "act.token");
        assert!(header("access-token").unwrap().is_sensitive() && header("authorization").is_none());
    }
}

#[test]
fn a_quote_goes_with_text_only() {
    let quoted = body(&request(&conversation(), &content(json!({"text": {"body": "x"}})), Some("M1")).unwrap());
    assert_eq!(quoted["referenced_message_info"], json!({"referenced_message_id": "M1"}));
    let image = body(&request(&conversation(), &content(json!({"image": {"id": "1"}})), Some("M1")).unwrap());
    assert!(image.get("referenced_message_info").is_none());
}

#[test]
fn a_comment_is_answered_by_text_once() {
    let comment = Handle::new("comment", "7400000000000000123");
    let text = content(json!({"text": {"body": "x"}}));
    let sent = body(&request(&comment, &text, Some("M1")).unwrap());
    let expected = json!({"business_id": BUSINESS, "message_type": "TEXT", "text": {"body": "x"},
        "direct_reply": {"reply_type": "COMMENT_REPLY", "comment_reply": {"comment_id": "7400000000000000123"}}});
    assert_eq!(sent, expected);
    assert!(request(&comment, &content(json!({"typing": {}})), None).is_err());
    let faults = tiktok().check(&content(json!({"image": {"id": "1"}})), &comment);
    assert_eq!(faults.len(), 1);
    let rule = tiktok().window_for(&settings(KIND), &account(), &comment).unwrap();
    assert_eq!((rule.length, rule.cap), (Duration::from_secs(24 * 3_600), Some(1)));
    let usual = tiktok().window_for(&settings(KIND), &account_with(&[("window", "48h")]), &conversation()).unwrap();
    assert_eq!((usual.length, usual.cap), (Duration::from_secs(48 * 3_600), Some(10)));
}

#[test]
fn limits_are_refused_beforehand_all_at_once() {
    let button = |id: &str, title: &str| json!({"id": id, "title": title});
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({"text": {"body": ""}}), &["/text/body must not be empty"]),
        (json!({"text": {"body": "é".repeat(6_000)}}), &[]),
        (json!({"text": {"body": "a".repeat(6_001)}}), &["/text/body has 6001 characters, at most 6000 are allowed"]),
        (
            json!({"image": {"link": "https://a.example/1.jpg", "caption": "c"}}),
            &[
                "/image/id is needed: the media_id of an uploaded picture",
                "/image/link cannot be sent on tiktok",
                "/image/caption cannot be sent on tiktok",
            ],
        ),
        (json!({"video": {}}), &["/video/id is needed: the item_id of a post of this account"]),
        (
            json!({"interactive": {"body": "a".repeat(41), "header": "h", "buttons": [button("a", &"x".repeat(41)), button("a", ""), button(&"i".repeat(41), "t"), button("d", "t")]}}),
            &[
                "/interactive/body has 41 characters, at most 40 are allowed",
                "/interactive/header cannot be sent on tiktok",
                "/interactive/buttons has 4 buttons, 1 to 3 are allowed",
                "/interactive/buttons/0/title has 41 characters, at most 40 are allowed",
                "/interactive/buttons/1/title must not be empty",
                "/interactive/buttons/1/id is not unique",
                "/interactive/buttons/2/id has 41 characters, at most 40 are allowed",
            ],
        ),
        (
            json!({"interactive": {"body": "b", "list": {"button": "b", "sections": []}}}),
            &["/interactive/list cannot be sent on tiktok", "/interactive/buttons has 0 buttons, 1 to 3 are allowed"],
        ),
        (
            json!({"interactive": {"body": "b", "buttons": [{"id": "a", "title": "t", "url": "https://a.example"}]}}),
            &["/interactive/buttons/0/url cannot be sent on tiktok"],
        ),
        (json!({"template": {"name": "n", "language": "en"}}), &["/type template cannot be sent on tiktok"]),
        (json!({"audio": {"id": "1"}}), &["/type audio cannot be sent on tiktok"]),
        (json!({"reaction": {"platform_id": "1", "emoji": "x"}}), &["/type reaction cannot be sent on tiktok"]),
    ];
    for (sent, expected) in cases {
        let faults = tiktok().check(&content(sent.clone()), &conversation());
        let said: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
        assert_eq!(said, expected, "{sent}");
    }
    assert!(!tiktok().check(&content(json!({"text": {"body": "x"}})), &Handle::phone("1")).is_empty());
}

#[test]
fn recipients() {
    let to = |text: &str| tiktok().recipient(&serde_json::from_str(text).unwrap());
    assert_eq!(to(r#"{"comment_id":"7400000000000000123"}"#).unwrap(), Handle::new("comment", "7400000000000000123"));
    for bad in [
        r#"{"comment_id":"x"}"#,
        r#"{"conversation_id":"a b"}"#,
        r#"{"conversation_id":""}"#,
        r#"{"conversation_id":"1","comment_id":"1"}"#,
    ] {
        assert!(to(bad).is_err(), "{bad}");
    }
    assert!(to(&format!(r#"{{"conversation_id":"{}"}}"#, "a".repeat(513))).is_err());
    assert_eq!(tiktok().recipient_json(&Handle::account()), json!({}), "nobody in particular");
}

#[test]
fn the_probe_asks_what_the_platform_knows_of_the_token() {
    let probe = tiktok().probe(&account(), &settings(KIND));
    assert_eq!(
        (probe.method.as_str(), probe.url.as_str()),
        ("POST", "https://business-api.tiktok.com/open_api/v1.3/tt_user/token_info/get/")
    );
    assert_eq!(body(&probe), json!({"app_id": "7000000000000000001", "access_token": "act.token"}));
    let answer = |status, body: &str| {
        tiktok().probed(&messaging::exchange::HttpResponse { status, body: body.to_owned().into(), ..Default::default() })
    };
    assert!(answer(200, r#"{"code":0,"data":{"scope":"x"}}"#));
    for (status, bad) in [(200, r#"{"code":40105,"message":"no"}"#), (200, "<html>"), (500, r#"{"code":0}"#)] {
        assert!(!answer(status, bad), "{bad}");
    }
}
