use messaging::channels::{ChannelKind, Fault, Outgoing, WindowRule, channel};
use messaging::content::{Content, Handle};
use serde_json::{Value, json};

use crate::account;
use crate::support::{NOW, settings};

const MESSENGER: ChannelKind = ChannelKind::Messenger;
const INSTAGRAM: ChannelKind = ChannelKind::Instagram;

fn content(tagged: Value) -> Content {
    serde_json::from_value(tagged).unwrap_or_else(|error| panic!("{error}"))
}

fn person(kind: ChannelKind) -> Handle {
    Handle::new(if kind == MESSENGER { "psid" } else { "igsid" }, "42")
}

/// The body of a send.
fn body(kind: ChannelKind, tagged: Value, reply_to: Option<&str>, tag: Option<&str>) -> Value {
    body_to(kind, &person(kind), tagged, reply_to, tag)
}

fn body_to(kind: ChannelKind, to: &Handle, tagged: Value, reply_to: Option<&str>, tag: Option<&str>) -> Value {
    let content = content(tagged);
    assert_eq!(channel(kind).check(&content, to), [], "{content:?}");
    let send = Outgoing { message: "msg_1", to, content: &content, reply_to, via: None, tag, now: NOW };
    let request = channel(kind).request(&send, &account(kind), &settings(kind)).unwrap();
    assert_eq!(request.headers[0].1, "Bearer EAAG");
    let url = match kind {
        MESSENGER => "https://graph.facebook.com/v26.0/1234567890/messages",
        _ => "https://graph.instagram.com/v26.0/17841400000000001/messages",
    };
    assert_eq!((request.method, request.url.as_str()), (http::Method::POST, url));
    serde_json::from_slice(&request.body).unwrap()
}

#[test]
fn each_content_is_its_request() {
    let to = json!({"id": "42"});
    let link = "https://shop.example/a.jpg";
    let cases = [
        (json!({"text": {"body": "hi"}}), json!({"text": "hi"})),
        (json!({"image": {"link": link}}), json!({"attachment": {"type": "image", "payload": {"url": link}}})),
        (json!({"document": {"id": "77"}}), json!({"attachment": {"type": "file", "payload": {"attachment_id": "77"}}})),
        (json!({"audio": {"link": link}}), json!({"attachment": {"type": "audio", "payload": {"url": link}}})),
        (json!({"video": {"link": link}}), json!({"attachment": {"type": "video", "payload": {"url": link}}})),
        (
            json!({"interactive": {"body": "Pick", "buttons": [{"id": "a", "title": "A"}, {"id": "", "title": "Shop", "url": "https://shop.example"}]}}),
            json!({"attachment": {"type": "template", "payload": {"template_type": "button", "text": "Pick", "buttons": [
                {"type": "postback", "title": "A", "payload": "a"}, {"type": "web_url", "url": "https://shop.example", "title": "Shop"}]}}}),
        ),
        (
            json!({"interactive": {"body": "Pick", "buttons": [{"id": "a", "title": "A"}, {"id": "b", "title": "B"}, {"id": "c", "title": "C"}, {"id": "d", "title": "D"}]}}),
            json!({"text": "Pick", "quick_replies": [
                {"content_type": "text", "title": "A", "payload": "a"}, {"content_type": "text", "title": "B", "payload": "b"},
                {"content_type": "text", "title": "C", "payload": "c"}, {"content_type": "text", "title": "D", "payload": "d"}]}),
        ),
    ];
    for (given, message) in cases {
        let mut with_id = message.clone();
        with_id["metadata"] = json!("msg_1");
        let messenger = json!({"recipient": to, "messaging_type": "RESPONSE", "message": with_id});
        assert_eq!(body(MESSENGER, given.clone(), None, None), messenger);
        assert_eq!(body(INSTAGRAM, given, None, None), json!({"recipient": to, "message": message}));
    }
}

#[test]
fn what_only_one_of_them_takes() {
    let template = json!({"template": {"name": "order_update", "language": "en_US", "params": ["A-17"]}});
    let wanted = json!({"recipient": {"id": "42"}, "messaging_type": "UTILITY", "message": {"metadata": "msg_1", "template": {
        "name": "order_update", "language": {"code": "en_US"}, "components": [{"type": "BODY", "parameters": [{"type": "text", "text": "A-17"}]}]}}});
    assert_eq!(body(MESSENGER, template, None, None), wanted);
    let heart = json!({"sticker": {"id": "like_heart"}});
    assert_eq!(body(INSTAGRAM, heart, None, None), json!({"recipient": {"id": "42"}, "message": {"attachment": {"type": "like_heart"}}}));
    let pictures = json!({"mixed": [{"image": {"link": "https://a.example/1"}}, {"image": {"link": "https://a.example/2"}}]});
    let two =
        json!([{"type": "image", "payload": {"url": "https://a.example/1"}}, {"type": "image", "payload": {"url": "https://a.example/2"}}]);
    assert_eq!(body(INSTAGRAM, pictures, None, None), json!({"recipient": {"id": "42"}, "message": {"attachments": two}}));
}

#[test]
fn replies_tags_and_private_replies() {
    let text = || json!({"text": {"body": "hi"}});
    assert_eq!(body(MESSENGER, text(), Some("m_9"), None)["reply_to"], json!({"mid": "m_9"}));
    for kind in [MESSENGER, INSTAGRAM] {
        let tagged = body(kind, text(), None, Some("human_agent"));
        assert_eq!((&tagged["messaging_type"], &tagged["tag"]), (&json!("MESSAGE_TAG"), &json!("HUMAN_AGENT")), "{}", kind.name());
        let comment = Handle::new("comment", "1_2");
        assert_eq!(body_to(kind, &comment, text(), None, None)["recipient"], json!({"comment_id": "1_2"}));
        let rule = channel(kind).window_for(&settings(kind), &account(kind), &comment);
        assert!(matches!(rule, Some(WindowRule { cap: Some(1), .. })), "one private reply a comment");
    }
}

#[test]
fn what_is_done_in_the_thread() {
    let cases = [
        (json!({"read": {}}), json!({"recipient": {"id": "42"}, "sender_action": "mark_seen"})),
        (json!({"typing": {}}), json!({"recipient": {"id": "42"}, "sender_action": "typing_on"})),
        (
            json!({"reaction": {"platform_id": "m_1", "emoji": "❤️"}}),
            json!({"recipient": {"id": "42"}, "sender_action": "react", "payload": {"message_id": "m_1", "reaction": "❤️"}}),
        ),
        (
            json!({"reaction": {"platform_id": "m_1"}}),
            json!({"recipient": {"id": "42"}, "sender_action": "unreact", "payload": {"message_id": "m_1"}}),
        ),
    ];
    for (given, wanted) in cases {
        assert_eq!(body(MESSENGER, given, None, None), wanted);
    }
    let love = body(INSTAGRAM, json!({"reaction": {"platform_id": "m_1", "emoji": "❤️"}}), None, None);
    assert_eq!(love["payload"]["reaction"], "love");
}

fn faults(kind: ChannelKind, tagged: Value) -> Vec<String> {
    let faults: Vec<Fault> = channel(kind).check(&content(tagged), &person(kind));
    faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect()
}

#[test]
fn limits_are_checked_beforehand_and_named() {
    let ten = |count: usize| -> Vec<Value> { (0..count).map(|n| json!({"id": format!("{n}"), "title": "t"})).collect() };
    let both = [MESSENGER, INSTAGRAM];
    let cases: Vec<(&[ChannelKind], Value, &str)> = vec![
        (&[MESSENGER], json!({"text": {"body": "ä".repeat(2001)}}), "/text/body has 2001 characters, at most 2000 are allowed"),
        (&[INSTAGRAM], json!({"text": {"body": "ä".repeat(501)}}), "/text/body has 1002 bytes of UTF-8, at most 1000 are allowed"),
        (&both, json!({"text": {"body": ""}}), "/text/body must not be empty"),
        (&both, json!({"image": {"link": "http://a.example"}}), "/image/link must be an https link"),
        (&both, json!({"image": {}}), "/image needs exactly one of id and link"),
        (
            &both,
            json!({"image": {"id": "1", "caption": "x"}}),
            "/image/caption the platform has no captions: send the text as a message of its own",
        ),
        (&both, json!({"video": {"id": "1", "size_bytes": 26214401}}), "/video/size_bytes is 26214401, at most 26214400 bytes are allowed"),
        (&both, json!({"image": {"id": "1", "size_bytes": 8388609}}), "/image/size_bytes is 8388609, at most 8388608 bytes are allowed"),
        (&both, json!({"interactive": {"body": "b", "buttons": ten(14)}}), "/interactive/buttons has 14 buttons, 1 to 13 are allowed"),
        (
            &both,
            json!({"interactive": {"body": "b".repeat(641), "buttons": ten(1)}}),
            "/interactive/body has 641 characters, at most 640 are allowed",
        ),
        (
            &both,
            json!({"interactive": {"body": "b", "buttons": [{"id": "x", "title": "t".repeat(21)}]}}),
            "/interactive/buttons/0/title has 21 characters, at most 20 are allowed",
        ),
        (
            &both,
            json!({"interactive": {"body": "b", "buttons": [{"id": "x".repeat(1001), "title": "t"}]}}),
            "/interactive/buttons/0/id has 1001 characters, at most 1000 are allowed",
        ),
        (&[MESSENGER], json!({"mixed": [{"image": {"id": "1"}}, {"image": {"id": "2"}}]}), "/mixed messenger takes one part a message"),
        (&[MESSENGER], json!({"sticker": {"id": "1"}}), "/type sticker cannot be sent on messenger"),
        (&[INSTAGRAM], json!({"sticker": {"id": "1"}}), "/sticker/id must be like_heart, the one sticker that can be sent"),
        (&[INSTAGRAM], json!({"template": {"name": "n", "language": "en"}}), "/type template cannot be sent on instagram"),
        (&[INSTAGRAM], json!({"reaction": {"platform_id": "m", "emoji": "😂"}}), "/reaction/emoji instagram takes ❤️ only"),
        (&both, json!({"reaction": {}}), "/reaction needs message or platform_id"),
    ];
    for (kinds, given, wanted) in cases {
        for kind in kinds {
            assert_eq!(faults(*kind, given.clone()), [wanted], "{}", kind.name());
        }
    }
    let both_at_once = faults(MESSENGER, json!({"interactive": {"body": "", "header": "h", "buttons": []}}));
    assert_eq!(both_at_once.len(), 3, "{both_at_once:?}");
    let to_phone = channel(MESSENGER).check(&content(json!({"text": {"body": "x"}})), &Handle::phone("1"));
    assert_eq!(to_phone.len(), 1);
    let typing_to_comment = channel(MESSENGER).check(&content(json!({"typing": {}})), &Handle::new("comment", "1"));
    assert_eq!(typing_to_comment.len(), 1);
}

#[test]
fn a_probe_asks_for_the_account_itself() {
    let probe = channel(INSTAGRAM).probe(&account(INSTAGRAM), &settings(INSTAGRAM));
    assert_eq!(probe.url, "https://graph.instagram.com/v26.0/17841400000000001?fields=username");
    assert_eq!(probe.headers[0].1, "Bearer EAAG");
}
