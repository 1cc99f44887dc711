//! What updates say: every fixture, and the corners that the fixtures leave out.

use bytes::Bytes;
use messaging::channels::{Inbound, InboundBody};
use messaging::content::Content;
use serde_json::{Value, json};

use super::{fixture, fixture_names, telegram};

/// One line that says everything: id, body, `opens` when the window opens, contact, context.
fn summary(inbound: &Inbound) -> String {
    let optional = |text: &Option<String>| text.as_ref().map_or_else(|| "-".to_owned(), String::clone);
    let body = match &inbound.body {
        InboundBody::Message { content, reply_to } => format!("message {} re {}", content_line(content), optional(reply_to)),
        InboundBody::Echo { content, reply_to } => format!("echo {} re {}", content_line(content), optional(reply_to)),
        InboundBody::Reaction { target, emoji } => format!("reaction {} on {target}", optional(emoji)),
        InboundBody::Edit { target, content } => format!("edit of {target}: {}", content_line(content)),
        InboundBody::Delete { targets } => format!("delete {}", targets.join(" ")),
        InboundBody::Rekeyed { handles } => {
            format!("rekeyed {}", handles.iter().map(|handle| handle.expose()).collect::<Vec<_>>().join(" "))
        }
        InboundBody::Reachable(reachable) => format!("reachable {reachable}"),
        InboundBody::Platform { kind, raw } => format!("platform {kind} {}", keys(raw)),
        InboundBody::Status(_)
        | InboundBody::Watermark { .. }
        | InboundBody::Preference { .. }
        | InboundBody::Account { .. }
        | InboundBody::Resource { .. } => "telegram has none".to_owned(),
    };
    let handles: Vec<&str> = inbound.contact.handles.iter().map(|handle| handle.expose()).collect();
    let contact = &inbound.contact;
    let who = format!("{} {} @{} via {}", handles.join(" "), optional(&contact.name), optional(&contact.username), optional(&contact.via));
    let opens = if inbound.opens_window { " opens" } else { "" };
    let context = Value::Object(inbound.context.clone());
    format!("{} [{}] {}{opens} | {body} | {who} | {context}", inbound.platform_id, inbound.qualifier, inbound.at.as_secs())
}

fn content_line(content: &Content) -> String {
    format!("{{{}}}", content.members())
}

fn keys(raw: &Value) -> String {
    raw.as_object().map_or_else(|| raw.to_string(), |object| object.keys().cloned().collect::<Vec<_>>().join(","))
}

fn parse(body: &Value) -> Inbound {
    telegram().parse(body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn every_fixture() {
    let table = FIXTURES;
    assert_eq!(table.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>(), fixture_names(), "every fixture has its line");
    for (name, expected) in table {
        let parsed = telegram().parse(&fixture(name)).unwrap();
        assert_eq!(summary(&parsed), *expected, "{name}");
        let original = std::fs::read(super::fixtures().join("telegram").join(name)).unwrap();
        assert_eq!(telegram().parse(&original).unwrap(), parsed, "{name}: spaces mean nothing");
    }
}

/// A message of a person with these members more.
fn message(more: Value) -> Value {
    let mut message = json!({
        "message_id": 5, "date": 1_795_168_800, "from": { "id": 42, "first_name": "Ada" },
        "chat": { "id": 42, "type": "private", "first_name": "Ada" },
    });
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    message
}

#[test]
fn contents_without_a_fixture() {
    let file = |more: Value| {
        let mut file = json!({ "file_id": "F", "file_unique_id": "U" });
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        file
    };
    let cases = [
        (
            json!({ "audio": file(json!({ "duration": 3, "file_name": "a.mp3" })), "caption": "c" }),
            r#"{"type":"audio","audio":{"id":"F","caption":"c","filename":"a.mp3","duration_s":3}}"#,
        ),
        (json!({ "video_note": file(json!({ "duration": 3 })) }), r#"{"type":"video","video":{"id":"F","duration_s":3}}"#),
        (json!({ "animation": file(json!({})), "document": file(json!({})) }), r#"{"type":"video","video":{"id":"F","animated":true}}"#),
        (
            json!({ "photo": [file(json!({ "file_id": "big", "width": 9, "height": 9 })), file(json!({ "width": 1, "height": 1 }))] }),
            r#"{"type":"image","image":{"id":"big"}}"#,
        ),
        (json!({ "sticker": file(json!({})) }), r#"{"type":"sticker","sticker":{"id":"F","animated":false}}"#),
        (json!({ "poll": { "id": "1" }, "effect_id": "e" }), r#"{"type":"unsupported","unsupported":{"kind":"poll","raw":{"id":"1"}}}"#),
        (json!({ "dice": { "value": 6 } }), r#"{"type":"unsupported","unsupported":{"kind":"dice","raw":{"value":6}}}"#),
        (json!({ "story": { "id": 1 } }), r#"{"type":"unsupported","unsupported":{"kind":"story","raw":{"id":1}}}"#),
        (json!({ "group_chat_created": true }), r#"{"type":"unsupported","unsupported":{"kind":"group_chat_created","raw":true}}"#),
        (
            json!({ "a_flag_of_tomorrow": true, "thing_of_tomorrow": { "a": 1 } }),
            r#"{"type":"unsupported","unsupported":{"kind":"thing_of_tomorrow","raw":{"a":1}}}"#,
        ),
        // A known kind in a shape that is not known: kept as it came.
        (json!({ "photo": [] }), r#"{"type":"unsupported","unsupported":{"kind":"photo","raw":[]}}"#),
        (json!({ "voice": { "duration": 1 } }), r#"{"type":"unsupported","unsupported":{"kind":"voice","raw":{"duration":1}}}"#),
        (json!({ "location": { "latitude": 1 } }), r#"{"type":"unsupported","unsupported":{"kind":"location","raw":{"latitude":1}}}"#),
    ];
    for (more, expected) in cases {
        let parsed = parse(&json!({ "update_id": 1, "message": message(more) }));
        let InboundBody::Message { content, .. } = parsed.body else { panic!("no message") };
        assert_eq!(content_line(&content), expected);
        assert_eq!(parsed.platform_id, "42:5");
    }
}

#[test]
fn context_without_a_fixture() {
    let cases = [
        (json!({ "text": "/start@shop_bot  a-b_c " }), json!({ "start_payload": "a-b_c" })),
        (json!({ "text": "/start" }), json!({})),
        (json!({ "text": "/started x" }), json!({})),
        (
            json!({ "photo": [{ "file_id": "F" }], "caption": "#a", "caption_entities": [{ "type": "hashtag" }] }),
            json!({ "entities": [{ "type": "hashtag" }] }),
        ),
        (json!({ "paid_media": { "star_count": 1 }, "caption": "look" }), json!({ "caption": "look" })),
        (json!({ "contact": { "phone_number": "+1", "user_id": 7 } }), json!({ "contact_is_sender": false })),
        (json!({ "contact": { "phone_number": "+1" } }), json!({ "contact_is_sender": false })),
        (
            json!({ "text": "x", "chat": { "id": -9, "type": "group" }, "sender_chat": { "id": -9 } }),
            json!({
                "from": { "id": "42", "name": "Ada", "username": null }, "group": { "id": "-9", "title": null, "type": "group" },
                "sender_chat": { "id": -9 },
            }),
        ),
    ];
    for (more, expected) in cases {
        let parsed = parse(&json!({ "update_id": 1, "message": message(more.clone()) }));
        assert_eq!(Value::Object(parsed.context), expected, "{more}");
    }
}

#[test]
fn who_wrote_in_a_business_chat() {
    let cases = [
        (json!({ "text": "x" }), true),
        (json!({ "text": "x", "from": { "id": 7, "first_name": "Owner" } }), false),
        (json!({ "text": "x", "sender_business_bot": { "id": 8 } }), false),
    ];
    for (more, by_the_person) in cases {
        let mut body = message(more.clone());
        body["business_connection_id"] = json!("bc");
        let parsed = parse(&json!({ "update_id": 1, "business_message": body }));
        assert_eq!(matches!(parsed.body, InboundBody::Message { .. }), by_the_person, "{more}");
        assert_eq!(matches!(parsed.body, InboundBody::Echo { .. }), !by_the_person, "{more}");
        assert_eq!(parsed.opens_window, by_the_person, "{more}");
        assert_eq!((parsed.contact.name.as_deref(), parsed.contact.via.as_deref()), (Some("Ada"), Some("bc")));
    }
}

#[test]
fn a_business_message_is_not_the_bots_message_of_the_same_number() {
    let own = parse(&json!({ "update_id": 1, "message": message(json!({ "text": "x" })) }));
    let business = message(json!({ "text": "x", "business_connection_id": "bc", "reply_to_message": { "message_id": 4 } }));
    let business = parse(&json!({ "update_id": 2, "business_message": business }));
    assert_eq!((own.platform_id.as_str(), business.platform_id.as_str()), ("42:5", "42:5:bc"));
    assert!(matches!(business.body, InboundBody::Message { reply_to: Some(id), .. } if id == "42:4:bc"));
}

#[test]
fn reactions() {
    let cases = [
        (json!([{ "type": "custom_emoji", "custom_emoji_id": "5368324170671202286" }]), Some("5368324170671202286"), json!({})),
        (json!([{ "type": "paid" }]), Some("paid"), json!({})),
        (
            json!([{ "type": "emoji", "emoji": "👍" }, { "type": "emoji", "emoji": "🔥" }]),
            Some("👍"),
            json!({ "reactions": [{ "type": "emoji", "emoji": "👍" }, { "type": "emoji", "emoji": "🔥" }] }),
        ),
        (json!([]), None, json!({})),
    ];
    for (new, expected, context) in cases {
        let update = json!({ "update_id": 1, "message_reaction": { "chat": { "id": 42 }, "message_id": 5, "user": { "id": 42 }, "new_reaction": new } });
        let parsed = parse(&update);
        let emoji = expected.map(str::to_owned);
        assert_eq!(parsed.body, InboundBody::Reaction { target: "42:5".to_owned(), emoji });
        assert_eq!((parsed.platform_id.as_str(), Value::Object(parsed.context)), ("update:1", context));
    }
}

#[test]
fn reachability_is_of_persons() {
    use InboundBody::Reachable;
    let cases = [
        (42, "kicked", Some(false)),
        (42, "left", Some(false)),
        (42, "member", Some(true)),
        (42, "status_of_tomorrow", None),
        (-42, "kicked", None),
        (-42, "member", None),
    ];
    for (chat, status, expected) in cases {
        let parsed =
            parse(&json!({ "update_id": 1, "my_chat_member": { "chat": { "id": chat }, "new_chat_member": { "status": status } } }));
        match expected {
            Some(reachable) => assert_eq!(parsed.body, Reachable(reachable), "{chat} {status}"),
            None => assert!(matches!(parsed.body, InboundBody::Platform { ref kind, .. } if kind == "my_chat_member"), "{chat} {status}"),
        }
    }
}

#[test]
fn kinds_without_a_type_of_their_own_keep_their_raw_part() {
    let cases = [
        (json!({ "update_id": 1, "kind_of_tomorrow": { "a": 1 } }), "kind_of_tomorrow", json!({ "a": 1 })),
        (json!({ "update_id": 1, "x": 1, "y": 2 }), "unknown", json!({ "x": 1, "y": 2 })),
        (json!({ "update_id": 1 }), "unknown", json!({})),
        (json!({ "update_id": 1, "poll": { "id": "p" } }), "poll", json!({ "id": "p" })),
        (json!({ "update_id": 1, "inline_query": { "from": { "id": 1 } } }), "inline_query", json!({ "from": { "id": 1 } })),
        (json!({ "update_id": 1, "edited_channel_post": { "text": "x" } }), "edited_channel_post", json!({ "text": "x" })),
    ];
    for (update, kind, raw) in cases {
        let parsed = parse(&update);
        assert_eq!(parsed.body, InboundBody::Platform { kind: kind.to_owned(), raw });
        assert_eq!((parsed.platform_id.as_str(), parsed.opens_window), ("update:1", false));
    }
}

#[test]
fn what_lacks_its_core_is_malformed_and_told_without_the_text() {
    for body in [
        r#"{"update_id":1,"message":null}"#,
        r#"{"update_id":1,"message":{"text":"my secret"}}"#,
        r#"{"update_id":1,"message":{"chat":{"id":42},"text":"my secret"}}"#,
        r#"{"update_id":1,"message":{"chat":{"id":0},"message_id":1,"text":"my secret"}}"#,
        r#"{"update_id":1,"message_reaction":{"chat":{"id":42},"message_id":1}}"#,
        r#"{"update_id":1,"deleted_business_messages":{"chat":{"id":42},"message_ids":["my secret"]}}"#,
        r#"{"update_id":1,"callback_query":"my secret"}"#,
    ] {
        let error = telegram().parse(&Bytes::from(body)).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

const FIXTURES: &[(&str, &str)] = &[
    (
        "business-connection.json",
        r#"update:880000126 [] 1795168800 | platform business_connection date,id,is_enabled,rights,user,user_chat_id | account: - @- via - | {}"#,
    ),
    (
        "business-message-outgoing.json",
        r#"1234567890:502:bc_0000000000000001 [] 1795168805 | echo {"type":"text","text":{"body":"Hello! How can we help?"}} re - | chat:1234567890 Test Customer @test_customer via bc_0000000000000001 | {"business_connection_id":"bc_0000000000000001","from":{"id":"5550000001","name":"Shop Owner","username":"shop_owner"}}"#,
    ),
    (
        "business-message.json",
        r#"1234567890:501:bc_0000000000000001 [] 1795168800 opens | message {"type":"text","text":{"body":"Hi, is the owner there?"}} re - | chat:1234567890 Test Customer @test_customer via bc_0000000000000001 | {"business_connection_id":"bc_0000000000000001"}"#,
    ),
    (
        "callback-query-inaccessible-message.json",
        r#"update:880000121 [] 0 opens | message {"type":"interactive_reply","interactive_reply":{"kind":"callback","id":"confirm:900"}} re 1234567890:12 | chat:1234567890 Test Customer @test_customer via - | {"callback_query_id":"4382bfdwdsb323b2da","target":"1234567890:12"}"#,
    ),
    (
        "callback-query.json",
        r#"update:880000120 [] 0 opens | message {"type":"interactive_reply","interactive_reply":{"kind":"callback","id":"confirm:1001","title":"Yes"}} re 1234567890:90 | chat:1234567890 Test Customer @test_customer via - | {"callback_query_id":"4382bfdwdsb323b2d9","target":"1234567890:90"}"#,
    ),
    (
        "channel-post.json",
        r#"update:880000131 [] 1795168800 | platform channel_post chat,date,message_id,sender_chat,text | group:-1009876543210 Example channel @example_channel via - | {}"#,
    ),
    (
        "deleted-business-messages.json",
        r#"update:880000130 [] 0 | delete 1234567890:501:bc_0000000000000001 1234567890:502:bc_0000000000000001 | chat:1234567890 Test Customer @test_customer via bc_0000000000000001 | {"business_connection_id":"bc_0000000000000001"}"#,
    ),
    (
        "edited-business-message.json",
        r#"1234567890:501:bc_0000000000000001 [edit:880000129] 1795168820 | edit of 1234567890:501:bc_0000000000000001: {"type":"text","text":{"body":"Hi, is anyone there?"}} | chat:1234567890 Test Customer @test_customer via bc_0000000000000001 | {"business_connection_id":"bc_0000000000000001"}"#,
    ),
    (
        "edited-message.json",
        r#"1234567890:101 [edit:880000119] 1795168830 | edit of 1234567890:101: {"type":"text","text":{"body":"Hello, where is my order #1002?"}} | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-album-part.json",
        r#"1234567890:104 [] 1795168800 opens | message {"type":"image","image":{"id":"AgACAgIAAxkBAAIBOGcEXAMPLEfileidx2AAIB","size_bytes":87412}} re - | chat:1234567890 Test Customer @test_customer via - | {"media_group_id":"13888888888888888"}"#,
    ),
    (
        "message-command-start-deeplink.json",
        r#"1234567890:102 [] 1795168800 opens | message {"type":"text","text":{"body":"/start campaign_summer"}} re - | chat:1234567890 Test Customer @test_customer via - | {"entities":[{"length":6,"offset":0,"type":"bot_command"}],"start_payload":"campaign_summer"}"#,
    ),
    (
        "message-contact.json",
        r#"1234567890:112 [] 1795168800 opens | message {"type":"contacts","contacts":[{"first_name":"Test","last_name":"Customer","phone_number":"+12025550143","user_id":1234567890,"vcard":"BEGIN:VCARD\nVERSION:3.0\nFN:Test Customer\nEND:VCARD"}]} re - | chat:1234567890 Test Customer @test_customer via - | {"contact_is_sender":true}"#,
    ),
    (
        "message-document.json",
        r#"1234567890:107 [] 1795168800 opens | message {"type":"document","document":{"id":"AgACAgIAAxkBAAIBOGcEXAMPLEfileiddAAIB","mime_type":"application/pdf","size_bytes":48213,"caption":"Invoice","filename":"invoice-1001.pdf"}} re - | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-forward.json",
        r#"1234567890:114 [] 1795168800 opens | message {"type":"text","text":{"body":"FYI"}} re - | chat:1234567890 Test Customer @test_customer via - | {"forward_origin":{"date":1795165200,"sender_user_name":"Someone","type":"hidden_user"}}"#,
    ),
    (
        "message-group-mention.json",
        r#"-1001234567890:115 [] 1795168800 opens | message {"type":"text","text":{"body":"@example_shop_bot hi"}} re - | group:-1001234567890 Example group @- via - | {"entities":[{"length":17,"offset":0,"type":"mention"}],"from":{"id":"1234567890","name":"Test Customer","username":"test_customer"},"group":{"id":"-1001234567890","title":"Example group","type":"supergroup"}}"#,
    ),
    (
        "message-live-location.json",
        r#"1234567890:110 [] 1795168800 opens | message {"type":"location","location":{"latitude":59.911491,"longitude":10.757933,"live_period_s":900}} re - | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-location.json",
        r#"1234567890:109 [] 1795168800 opens | message {"type":"location","location":{"latitude":59.911491,"longitude":10.757933}} re - | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-migrate-to-supergroup.json",
        r#"-123456789:116 [] 1795168800 | rekeyed group:-1001234567890 | group:-123456789 Example group @- via - | {}"#,
    ),
    (
        "message-photo.json",
        r#"1234567890:103 [] 1795168800 opens | message {"type":"image","image":{"id":"AgACAgIAAxkBAAIBOGcEXAMPLEfileidx1AAIB","size_bytes":87412,"caption":"The broken part"}} re - | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-reaction-removed.json",
        r#"update:880000123 [] 1795168805 | reaction - on 1234567890:90 | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-reaction.json",
        r#"update:880000122 [] 1795168800 | reaction 👍 on 1234567890:90 | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-reply-quote.json",
        r#"1234567890:113 [] 1795168800 opens | message {"type":"text","text":{"body":"Exactly this"}} re 1234567890:90 | chat:1234567890 Test Customer @test_customer via - | {"quote":{"position":12,"text":"the red"}}"#,
    ),
    (
        "message-sticker.json",
        r#"1234567890:108 [] 1795168800 opens | message {"type":"sticker","sticker":{"id":"AgACAgIAAxkBAAIBOGcEXAMPLEfileidkAAIB","size_bytes":40213,"animated":true}} re - | chat:1234567890 Test Customer @test_customer via - | {"sticker_emoji":"👍"}"#,
    ),
    (
        "message-successful-payment.json",
        r#"1234567890:118 [] 1795168800 opens | message {"type":"payment","payment":{"currency":"XTR","invoice_payload":"order-1001","provider_payment_charge_id":"1234567890_1","telegram_payment_charge_id":"stxEXAMPLE","total_amount":50}} re - | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-text.json",
        r#"1234567890:101 [] 1795168800 opens | message {"type":"text","text":{"body":"Hello, where is my order #1001?"}} re - | chat:1234567890 Test Customer @test_customer via - | {"entities":[{"length":5,"offset":25,"type":"hashtag"}]}"#,
    ),
    (
        "message-venue.json",
        r#"1234567890:111 [] 1795168800 opens | message {"type":"location","location":{"latitude":59.911491,"longitude":10.757933,"name":"Example Cafe","address":"1 Example St"}} re - | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-video.json",
        r#"1234567890:106 [] 1795168800 opens | message {"type":"video","video":{"id":"AgACAgIAAxkBAAIBOGcEXAMPLEfileidmAAIB","mime_type":"video/mp4","size_bytes":2501123,"filename":"clip.mp4","duration_s":12}} re - | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-voice.json",
        r#"1234567890:105 [] 1795168800 opens | message {"type":"audio","audio":{"id":"AgACAgIAAxkBAAIBOGcEXAMPLEfileidvAAIB","mime_type":"audio/ogg","size_bytes":27410,"voice":true,"duration_s":7}} re - | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "message-web-app-data.json",
        r#"1234567890:117 [] 1795168800 opens | message {"type":"interactive_reply","interactive_reply":{"kind":"form","title":"Book","data":"{\"slot\":\"2026-11-21T09:00\"}"}} re - | chat:1234567890 Test Customer @test_customer via - | {"button_text":"Book"}"#,
    ),
    (
        "my-chat-member-blocked.json",
        r#"update:880000124 [] 1795168800 | reachable false | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "my-chat-member-unblocked.json",
        r#"update:880000125 [] 1795168860 | reachable true | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
    (
        "poll-answer.json",
        r#"update:880000132 [] 0 | platform poll_answer option_ids,option_persistent_ids,poll_id,user | chat:1234567890 Test Customer @test_customer via - | {}"#,
    ),
];
