//! The requests, byte for byte.

use http::Method;
use messaging::channels::Outgoing;
use messaging::content::{Content, Handle};
use serde_json::{Value, json};

use super::{BOT_TOKEN, account, settings, telegram};

/// Chat, answered message, business connection.
type Around<'a> = (&'a Handle, Option<&'a str>, Option<&'a str>);

/// Method and body of the call, or why there is none.
fn call(kind: &str, body: Value, (to, reply_to, via): Around<'_>) -> Result<(String, Value), String> {
    let object = json!({ "type": kind, kind: body });
    let content = Content::from_members(object.as_object().unwrap()).unwrap();
    let send = Outgoing { message: "msg_x", to, content: &content, reply_to, via, tag: None, now: messaging::clock::Timestamp::ZERO };
    let request = telegram().request(&send, &account(None), &settings()).map_err(|error| error.to_string())?;
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.headers, [(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"))]);
    assert!(!format!("{request:?}").contains("AAEXAMPLE"), "the token is not printed");
    let method = request.url.strip_prefix(&format!("https://api.telegram.org/bot{BOT_TOKEN}/")).expect("the bot's address");
    Ok((method.to_owned(), serde_json::from_slice(&request.body).unwrap()))
}

#[test]
fn every_content() {
    let to = Handle::chat("4711");
    let inline = |keyboard: Value| json!({ "inline_keyboard": keyboard });
    let button = |i: usize| json!({ "id": format!("b{i}"), "title": format!("B{i}") });
    let key = |i: usize| json!({ "text": format!("B{i}"), "callback_data": format!("b{i}") });
    let table = [
        ("text", json!({ "body": "Hi" }), "sendMessage", json!({ "text": "Hi" })),
        ("text", json!({ "body": "Hi", "preview_url": true }), "sendMessage", json!({ "text": "Hi" })),
        (
            "text",
            json!({ "body": "Hi", "preview_url": false }),
            "sendMessage",
            json!({ "text": "Hi", "link_preview_options": { "is_disabled": true } }),
        ),
        ("image", json!({ "id": "F", "caption": "c" }), "sendPhoto", json!({ "photo": "F", "caption": "c" })),
        ("image", json!({ "link": "https://x.example/a", "caption": "" }), "sendPhoto", json!({ "photo": "https://x.example/a" })),
        ("video", json!({ "id": "F", "duration_s": 3 }), "sendVideo", json!({ "video": "F", "duration": 3 })),
        ("video", json!({ "id": "F", "animated": true }), "sendAnimation", json!({ "animation": "F" })),
        ("audio", json!({ "id": "F" }), "sendAudio", json!({ "audio": "F" })),
        ("audio", json!({ "id": "F", "voice": true, "caption": "c" }), "sendVoice", json!({ "voice": "F", "caption": "c" })),
        ("document", json!({ "id": "F", "filename": "a.pdf" }), "sendDocument", json!({ "document": "F" })),
        ("sticker", json!({ "id": "F" }), "sendSticker", json!({ "sticker": "F" })),
        ("location", json!({ "latitude": 1.5, "longitude": -2.5 }), "sendLocation", json!({ "latitude": 1.5, "longitude": -2.5 })),
        (
            "location",
            json!({ "latitude": 1.5, "longitude": -2.5, "live_period_s": 60 }),
            "sendLocation",
            json!({ "latitude": 1.5, "longitude": -2.5, "live_period": 60 }),
        ),
        (
            "location",
            json!({ "latitude": 1.5, "longitude": -2.5, "name": "Cafe", "address": "1 St" }),
            "sendVenue",
            json!({ "latitude": 1.5, "longitude": -2.5, "title": "Cafe", "address": "1 St" }),
        ),
        (
            "contacts",
            json!([{ "phone_number": "+1", "first_name": "Ada", "last_name": "L", "vcard": "V", "user_id": 7 }]),
            "sendContact",
            json!({ "phone_number": "+1", "first_name": "Ada", "last_name": "L", "vcard": "V" }),
        ),
        (
            "contacts",
            json!([{ "name": { "formatted_name": "Ada L", "first_name": "Ada", "last_name": "L" }, "phones": [{ "phone": "+1" }, { "phone": "+2" }] }]),
            "sendContact",
            json!({ "phone_number": "+1", "first_name": "Ada", "last_name": "L" }),
        ),
        (
            "contacts",
            json!([{ "name": { "formatted_name": "Ada L", "last_name": "L" }, "phones": [{ "phone": "+1" }] }]),
            "sendContact",
            json!({ "phone_number": "+1", "first_name": "Ada L" }),
        ),
        (
            "interactive",
            json!({ "header": "H", "body": "B", "footer": "F", "buttons": [button(1), button(2), button(3), button(4)] }),
            "sendMessage",
            json!({ "text": "H\n\nB\n\nF", "reply_markup": inline(json!([[key(1), key(2), key(3)], [key(4)]])) }),
        ),
        (
            "interactive",
            json!({ "body": "B", "buttons": [{ "id": "x", "title": "Open", "url": "https://x.example" }] }),
            "sendMessage",
            json!({ "text": "B", "reply_markup": inline(json!([[{ "text": "Open", "url": "https://x.example" }]])) }),
        ),
        (
            "interactive",
            json!({ "body": "B", "list": { "button": "Choose", "sections": [
                { "title": "S", "rows": [{ "id": "r1", "title": "R1", "description": "D1" }] }, { "rows": [{ "id": "r2", "title": "R2" }] },
            ] } }),
            "sendMessage",
            json!({ "text": "B", "reply_markup": inline(json!([
                [{ "text": "R1 – D1", "callback_data": "r1" }], [{ "text": "R2", "callback_data": "r2" }],
            ])) }),
        ),
        (
            "reaction",
            json!({ "platform_id": "4711:9", "emoji": "👍" }),
            "setMessageReaction",
            json!({ "message_id": 9, "reaction": [{ "type": "emoji", "emoji": "👍" }] }),
        ),
        (
            "reaction",
            json!({ "platform_id": "4711:9", "emoji": "5368324170671202286" }),
            "setMessageReaction",
            json!({ "message_id": 9, "reaction": [{ "type": "custom_emoji", "custom_emoji_id": "5368324170671202286" }] }),
        ),
        ("reaction", json!({ "platform_id": "4711:9" }), "setMessageReaction", json!({ "message_id": 9, "reaction": [] })),
        ("typing", json!({ "platform_id": "4711:9" }), "sendChatAction", json!({ "action": "typing" })),
    ];
    for (kind, content, method, mut body) in table {
        body["chat_id"] = json!(4711);
        assert_eq!(call(kind, content, (&to, None, None)), Ok((method.to_owned(), body)));
    }
}

#[test]
fn replies_groups_and_business_connections() {
    let (person, group) = (Handle::chat("4711"), Handle::group("-1001234567890"));
    let text = || json!({ "body": "Hi" });
    let reply = |message: i64| json!({ "message_id": message, "allow_sending_without_reply": true });
    let table: [(Around<'_>, Value); 7] = [
        ((&group, None, None), json!({ "chat_id": -1_001_234_567_890_i64, "text": "Hi" })),
        ((&person, Some("4711:9"), None), json!({ "chat_id": 4711, "text": "Hi", "reply_parameters": reply(9) })),
        ((&person, None, Some("bc")), json!({ "chat_id": 4711, "text": "Hi", "business_connection_id": "bc" })),
        (
            (&person, Some("4711:9:bc"), Some("bc")),
            json!({ "chat_id": 4711, "text": "Hi", "business_connection_id": "bc", "reply_parameters": reply(9) }),
        ),
        // A pressed button is no message.
        ((&person, Some("update:7"), None), json!({ "chat_id": 4711, "text": "Hi" })),
        // The numbers of another chat or connection mean other messages here.
        ((&group, Some("-123:9"), None), json!({ "chat_id": -1_001_234_567_890_i64, "text": "Hi" })),
        ((&person, Some("4711:9:bc"), None), json!({ "chat_id": 4711, "text": "Hi" })),
    ];
    for (around, body) in table {
        assert_eq!(call("text", text(), around), Ok(("sendMessage".to_owned(), body)), "{around:?}");
    }
    let read = json!({ "chat_id": 4711, "message_id": 9, "business_connection_id": "bc" });
    let receipt = json!({ "platform_id": "4711:9:bc" });
    assert_eq!(call("read", receipt.clone(), (&person, None, Some("bc"))), Ok(("readBusinessMessage".to_owned(), read)));
    let typing = json!({ "chat_id": 4711, "action": "typing", "business_connection_id": "bc" });
    assert_eq!(call("typing", json!({}), (&person, Some("4711:9:bc"), Some("bc"))), Ok(("sendChatAction".to_owned(), typing)));
}

#[test]
fn what_cannot_be_sent_says_why() {
    let to = Handle::chat("4711");
    let phone = Handle::phone("16505551234");
    let plain: Around<'_> = (&to, None, None);
    let business: Around<'_> = (&to, None, Some("bc"));
    let text = || json!({ "body": "Hi" });
    for (kind, content, around, expected) in [
        ("text", text(), (&phone, None, None), "the recipient is not a telegram chat"),
        ("template", json!({ "name": "t", "language": "en" }), plain, "telegram has no templates: send the text itself"),
        ("order", json!({}), plain, "order only arrives, and cannot be sent with telegram"),
        ("image", json!({}), plain, "photo needs exactly one of id and link"),
        ("contacts", json!([]), plain, "telegram sends exactly one contact card"),
        ("reaction", json!({ "emoji": "👍" }), plain, "the message has no id with telegram"),
        ("reaction", json!({ "platform_id": "4712:9" }), plain, "the message is of another chat or business connection"),
        ("reaction", json!({ "platform_id": "4711:9:bc" }), business, "telegram has no reactions on behalf of a business account"),
        (
            "read",
            json!({ "platform_id": "4711:9" }),
            plain,
            "bots have no read receipts: only a business connection can mark messages as read",
        ),
        ("read", json!({ "platform_id": "4711:9" }), business, "the message is of another chat or business connection"),
        ("read", json!({ "platform_id": "update:7" }), business, "the event is not a message of telegram"),
    ] {
        assert_eq!(call(kind, content, around).unwrap_err(), expected);
    }
}

#[test]
fn an_account_may_have_another_address() {
    let content = Content::from_members(json!({ "type": "text", "text": { "body": "Hi" } }).as_object().unwrap()).unwrap();
    let to = Handle::chat("4711");
    let send = Outgoing {
        message: "msg_x",
        to: &to,
        content: &content,
        reply_to: None,
        via: None,
        tag: None,
        now: messaging::clock::Timestamp::ZERO,
    };
    let account = account(Some("http://127.0.0.1:8081/"));
    let request = telegram().request(&send, &account, &settings()).unwrap();
    assert_eq!(request.url, format!("http://127.0.0.1:8081/bot{BOT_TOKEN}/sendMessage"));
    let probe = telegram().probe(&account, &settings());
    assert_eq!((probe.method, probe.url), (Method::GET, format!("http://127.0.0.1:8081/bot{BOT_TOKEN}/getMe")));
}
