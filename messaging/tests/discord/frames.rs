//! The Gateway: what becomes of its events, and what is asked before one connects.

use std::time::Duration;

use bytes::Bytes;
use messaging::channels::PieceKind;
use messaging::channels::discord::socket::{self, Discovered, Event, Intents, Undiscovered};
use messaging::exchange::HttpResponse;
use messaging::ids::MessageId;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::{fixture, settings};
use crate::{BOT, KIND, account, account_with, discord, line, read};

fn frame(name: &str, said: Value) -> Value {
    json!({"op": 0, "s": 7, "t": name, "d": said})
}

/// A message of somebody in a direct conversation, with these members more.
fn message(more: Value) -> Value {
    let mut message = json!({
        "id": "1440000000000000002", "channel_id": "10", "channel_type": 1, "type": 0, "timestamp": "2026-11-20T10:00:00.123000+00:00",
        "author": {"id": "30", "username": "ada", "global_name": "Ada"}, "content": "hi",
    });
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    message
}

fn said(frame: &Value) -> String {
    line(&read(frame).unwrap_or_else(|| panic!("nothing of {frame}")))
}

fn body_of(frame: &Value) -> String {
    said(frame).split(" | ").next().unwrap().to_owned()
}

#[test]
fn contents_without_a_sample() {
    let file = |kind: &str| json!({"id": "1", "filename": "f", "url": "https://c.example/f", "content_type": kind, "size": 3});
    let cases = [
        (
            json!({"attachments": [file("video/mp4")]}),
            r#"message "type":"video","video":{"id":"1","link":"https://c.example/f","mime_type":"video/mp4","size_bytes":3,"caption":"hi","filename":"f"}"#,
        ),
        (
            json!({"content": "", "flags": 8192, "attachments": [{"id": "1", "content_type": "audio/ogg", "duration_secs": 2.6}]}),
            r#"message "type":"audio","audio":{"id":"1","mime_type":"audio/ogg","voice":true,"duration_s":3}"#,
        ),
        (
            json!({"content": "", "attachments": [{"id": "1"}, {"id": "2", "content_type": "image/png"}]}),
            r#"message "type":"mixed","mixed":[{"document":{"id":"1"}},{"image":{"id":"2","mime_type":"image/png"}}]"#,
        ),
        (
            json!({"sticker_items": [{"id": "9", "name": "wave", "format_type": 1}]}),
            r#"message "type":"mixed","mixed":[{"text":{"body":"hi"}},{"sticker":{"id":"9","filename":"wave","animated":false}}]"#,
        ),
        (
            json!({"content": "", "poll": {"question": {"text": "?"}}}),
            r#"message "type":"unsupported","unsupported":{"kind":"poll","raw":{"question":{"text":"?"}}}"#,
        ),
        (
            json!({"content": "", "message_reference": {"type": 1, "message_id": "5"}, "message_snapshots": [{"message": {"content": "then"}}]}),
            r#"message "type":"text","text":{"body":"then"}"#,
        ),
        (json!({"message_reference": {"message_id": "5"}}), r#"message "type":"text","text":{"body":"hi"} to 5"#),
    ];
    for (more, expected) in cases {
        assert_eq!(body_of(&frame("MESSAGE_CREATE", message(more.clone()))), expected, "{more}");
    }
    let unreadable = body_of(&frame("MESSAGE_CREATE", message(json!({"content": ""}))));
    assert!(unreadable.starts_with(r#"message "type":"unsupported","unsupported":{"kind":"unreadable""#), "{unreadable}");
    let notice = said(&frame("MESSAGE_CREATE", message(json!({"type": 7}))));
    assert!(notice.starts_with("platform MESSAGE_CREATE 7 {") && !notice.contains("opens"), "{notice}");
}

#[test]
fn who_wrote_and_where() {
    let cases = [
        (message(json!({})), "channel:10 user:30 | Ada | ada | opens"),
        (message(json!({"channel_type": null, "guild_id": null})), "channel:10 user:30 | Ada | ada | opens"),
        (
            message(json!({"channel_type": 0, "guild_id": "20"})),
            r#"channel:10 | opens | {"from":{"id":"30","name":"Ada","username":"ada"},"guild_id":"20"}"#,
        ),
        (
            message(json!({"channel_type": 0, "guild_id": "20", "author": {"id": "31", "username": "b", "bot": true}})),
            r#"channel:10 | opens | {"from":{"bot":true,"id":"31","name":"b","username":"b"},"guild_id":"20"}"#,
        ),
        (message(json!({"author": {"id": BOT, "username": "shop", "bot": true}})), "channel:10"),
    ];
    for (message, expected) in cases {
        let line = said(&frame("MESSAGE_CREATE", message.clone()));
        assert!(line.ends_with(&format!(" | {expected}")), "{message}: {line}");
    }
}

#[test]
fn our_own_message_comes_back_and_settles_its_send() {
    let id = MessageId([3; 16]);
    let send = crate::sends::request(&crate::sends::text(), &id.to_string(), None).unwrap();
    let sent: Value = serde_json::from_slice(&send.body).unwrap();
    let own = |more: Value| {
        let mut whole = message(json!({"author": {"id": BOT}, "content": sent["content"], "nonce": sent["nonce"]}));
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        frame("MESSAGE_CREATE", whole)
    };
    let expected = format!("status 1440000000000000002 sent MESSAGE_CREATE reason=none detail=None callback=Some(\"{id}\") {{}}");
    assert_eq!(body_of(&own(json!({}))), expected);
    assert!(body_of(&own(json!({"nonce": "another program's"}))).starts_with("echo "));
    // Somebody else cannot settle our sends by copying a nonce.
    assert!(body_of(&own(json!({"author": {"id": "30"}}))).starts_with("message "));
    for quiet in [json!({"webhook_id": BOT}), json!({"interaction_metadata": {"id": "1"}})] {
        assert!(read(&own(quiet.clone())).is_none(), "an answer through a token is known already: {quiet}");
    }
    assert!(read(&frame("MESSAGE_CREATE", message(json!({"webhook_id": "9"})))).is_some(), "another's webhook is told");
}

#[test]
fn changes_ends_and_reactions() {
    let reaction = |more: Value| {
        let mut reaction = json!({"user_id": "30", "channel_id": "10", "message_id": "5", "emoji": {"id": null, "name": "🔥"}});
        reaction.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        reaction
    };
    let cases = [
        (
            "MESSAGE_DELETE_BULK",
            json!({"ids": ["1", "2"], "channel_id": "10", "guild_id": "20"}),
            r#"delete 1 2 | 1  | 0 | channel:10 | {"guild_id":"20"}"#,
        ),
        ("MESSAGE_REACTION_ADD", reaction(json!({})), "reaction 🔥 on 5 | 0 | channel:10 user:30"),
        (
            "MESSAGE_REACTION_ADD",
            reaction(json!({"emoji": {"id": "77", "name": "shop"}})),
            "reaction shop:77 on 5 | 0 | channel:10 user:30",
        ),
        ("MESSAGE_REACTION_REMOVE", reaction(json!({})), r#"reaction none on 5 | 0 | channel:10 user:30 | {"removed":"🔥"}"#),
        (
            "MESSAGE_REACTION_ADD",
            reaction(json!({"guild_id": "20", "member": {"user": {"id": "30", "username": "ada"}}})),
            r#"reaction 🔥 on 5 | 0 | channel:10 | {"from":{"id":"30","name":"ada","username":"ada"},"guild_id":"20"}"#,
        ),
        ("CHANNEL_PINS_UPDATE", json!({"channel_id": "10"}), r#"platform CHANNEL_PINS_UPDATE {"channel_id":"10"} | 0 | channel:10"#),
        ("GUILD_DELETE", json!({"id": "20"}), r#"platform GUILD_DELETE {"id":"20"} | 0 | account:"#),
        (
            "MESSAGE_REACTION_REMOVE_ALL",
            json!({"channel_id": "10", "message_id": "5"}),
            r#"platform MESSAGE_REACTION_REMOVE_ALL {"channel_id":"10","message_id":"5"} | 0 | channel:10"#,
        ),
    ];
    for (name, event, expected) in cases {
        assert_eq!(said(&frame(name, event.clone())), expected, "{event}");
    }
    let preview = frame("MESSAGE_UPDATE", message(json!({"edited_timestamp": null, "embeds": [{}]})));
    assert!(said(&preview).starts_with("platform MESSAGE_UPDATE "), "a preview is no change of the author's");
    for quiet in ["TYPING_START", "PRESENCE_UPDATE", "READY", "RESUMED", "GUILD_CREATE"] {
        assert!(read(&frame(quiet, json!({"channel_id": "10"}))).is_none(), "{quiet}");
    }
    assert!(read(&frame("MESSAGE_REACTION_ADD", reaction(json!({"user_id": BOT})))).is_none(), "our own reaction");
}

#[test]
fn kinds_of_pieces() {
    let cases = [
        ("MESSAGE_CREATE", PieceKind::Message),
        ("MESSAGE_UPDATE", PieceKind::Message),
        ("MESSAGE_DELETE", PieceKind::Message),
        ("MESSAGE_REACTION_ADD", PieceKind::Reaction),
        ("GUILD_DELETE", PieceKind::Other),
    ];
    for (name, kind) in cases {
        assert_eq!(read(&frame(name, message(json!({})))).unwrap().kind(), kind, "{name}");
    }
}

#[test]
fn what_cannot_be_read_is_kept_aside() {
    for odd in [json!([]), json!(null), json!("x")] {
        assert!(read(&frame("MESSAGE_CREATE", odd.clone())).unwrap().is_unparsable(), "{odd}");
    }
    assert!(read(&frame("INTERACTION_CREATE", json!({"id": "1"}))).unwrap().is_unparsable());
    let malformed = read(&frame("MESSAGE_CREATE", json!({"channel_id": "10"}))).unwrap();
    assert!(discord().parse(malformed.body()).is_err(), "no id");
}

#[test]
fn an_event_that_comes_again_is_the_same_record_and_another_is_not() {
    let reaction = json!({"user_id": "30", "channel_id": "10", "message_id": "5", "emoji": {"name": "x"}});
    let said = RawValue::from_string(reaction.to_string()).unwrap();
    let record = |number, session| {
        let event = Event { name: "MESSAGE_REACTION_ADD", number, session, bot: BOT, said: &said };
        socket::piece(&event).unwrap().body().clone()
    };
    assert_eq!(record(7, "a"), record(7, "a"));
    assert_ne!(record(7, "a"), record(8, "a"));
    assert_ne!(record(7, "a"), record(7, "b"), "numbers begin anew with each session");
}

#[test]
fn interactions_that_come_by_the_gateway_are_the_same_and_answered_by_a_call() {
    let cases = [
        ("interaction-slash-command-dm.json", Some(r#"{"type":5}"#)),
        ("interaction-button.json", Some(r#"{"type":6}"#)),
        ("interaction-modal-submit.json", Some(r#"{"type":5}"#)),
        ("interaction-autocomplete.json", Some(r#"{"data":{"choices":[]},"type":8}"#)),
    ];
    for (name, answer) in cases {
        let sample = fixture(KIND, name);
        let piece = read(&frame("INTERACTION_CREATE", sample.clone())).unwrap();
        assert_eq!(vec![line(&piece)], crate::told(&sample), "{name}");
        let said = RawValue::from_string(sample.to_string()).unwrap();
        let event = Event { name: "INTERACTION_CREATE", number: 1, session: "s", bot: BOT, said: &said };
        let call = socket::callback(&event, &account(), &settings(KIND));
        assert_eq!(call.as_ref().map(|call| call.body.clone()), answer.map(Bytes::from), "{name}");
        let call = call.unwrap();
        let expected = "https://discord.com/api/v10/interactions/1440000000000000900/aW50ZXJhY3Rpb246EXAMPLE/callback";
        assert_eq!((call.method.as_str(), call.url.as_str()), ("POST", expected));
        assert!(!call.headers.iter().any(|(name, _)| name == "authorization"), "the token in the path is the credential");
    }
    let said = RawValue::from_string(json!({"id": "1/../2", "type": 2, "token": "t"}).to_string()).unwrap();
    let event = Event { name: "INTERACTION_CREATE", number: 1, session: "s", bot: BOT, said: &said };
    assert!(socket::callback(&event, &account(), &settings(KIND)).is_none(), "an id that is none");
    let other = Event { name: "MESSAGE_CREATE", ..event };
    assert!(socket::callback(&other, &account(), &settings(KIND)).is_none());
}

#[test]
fn intents_of_accounts() {
    assert_eq!(Intents::of(&account()).map(Intents::bits), Some(12_288));
    assert_eq!(Intents::of(&account_with(&[("intents", "46592")])).map(Intents::bits), Some(46_592));
    assert_eq!(Intents::of(&account_with(&[("intents", "0")])), None);
    for bad in ["", "-1", "x", "1.5", "9007199254740992", "99999999999999999999"] {
        assert!(Intents::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn where_the_gateway_is() {
    let request = socket::discovery(&account(), &settings(KIND));
    assert_eq!((request.method.as_str(), request.url.as_str()), ("GET", "https://discord.com/api/v10/gateway/bot"));
    let read = |status: u16, body: &str| {
        let response = HttpResponse { status, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() };
        socket::discovered(&response)
    };
    let whole = r#"{"url":"wss://gateway.discord.gg/","shards":9,"session_start_limit":{"total":1000,"remaining":999,"reset_after":14400000,"max_concurrency":1}}"#;
    let discovered = |shards, sessions_left, reset_after| Discovered {
        address: "wss://gateway.discord.gg".to_owned(),
        shards,
        sessions_left,
        reset_after: Duration::from_secs(reset_after),
    };
    assert_eq!(read(200, whole), Ok(discovered(9, 999, 14_400)));
    assert_eq!(read(200, r#"{"url":"wss://gateway.discord.gg"}"#), Ok(discovered(1, 1, 0)));
    assert_eq!(read(401, r#"{"message":"401: Unauthorized","code":0}"#), Err(Undiscovered::Token));
    for (status, body) in [
        (200, "<html>"),
        (200, "{}"),
        (200, r#"{"url":"https://a.example"}"#),
        (200, r#"{"url":"wss://a@b.example"}"#),
        (200, r#"{"url":"wss://"}"#),
        (200, r#"{"url":"wss:///x"}"#),
        (200, r#"{"url":"wss://a.example/?v=9"}"#),
        (429, r#"{"retry_after":1}"#),
        (500, ""),
    ] {
        assert_eq!(read(status, body), Err(Undiscovered::Later { status, after: None }), "{body}");
    }
}
