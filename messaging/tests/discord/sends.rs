use messaging::channels::{Outgoing, Owner, Unsendable};
use messaging::content::{Content, Handle};
use messaging::exchange::HttpRequest;
use messaging::ids::MessageId;
use messaging::limit::BudgetScope;
use serde_json::{Value, json};

use crate::support::{NOW, settings};
use crate::{BOT, KIND, account, account_with, discord};

pub fn content(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}

pub fn text() -> Content {
    content(json!({"text": {"body": "hi"}}))
}

fn room() -> Handle {
    Handle::new("channel", "10")
}

/// The request for a content to a channel.
pub fn request(content: &Content, message: &str, via: Option<&str>) -> Result<HttpRequest, Unsendable> {
    request_to(&room(), content, message, None, via)
}

fn request_to(to: &Handle, content: &Content, message: &str, reply_to: Option<&str>, via: Option<&str>) -> Result<HttpRequest, Unsendable> {
    let send = Outgoing { message, to, content, reply_to, via, tag: None, now: NOW };
    discord().request(&send, &account(), &settings(KIND))
}

fn body(request: &HttpRequest) -> Value {
    if request.body.is_empty() { Value::Null } else { serde_json::from_slice(&request.body).unwrap() }
}

fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r http::HeaderValue> {
    request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

const MESSAGES: &str = "POST https://discord.com/api/v10/channels/10/messages";

#[test]
fn every_content_that_the_platform_takes() {
    let buttons: Vec<Value> = (0..6).map(|i| json!({"id": format!("b{i}"), "title": "B"})).collect();
    let shown = |i: usize| json!({"type": 2, "style": 1, "label": "B", "custom_id": format!("b{i}")});
    let row = |shown: Vec<Value>| json!({"type": 1, "components": shown});
    let two_rows = json!([row((0..5).map(shown).collect()), row(vec![shown(5)])]);
    let link_button = json!({"type": 2, "style": 5, "label": "Shop", "url": "https://a.example"});
    let list = json!({"button": "Choose", "sections": [{"title": "Big", "rows": [{"id": "1", "title": "One", "description": "first"}]}, {"rows": [{"id": "2", "title": "Two"}]}]});
    let choices = |place: usize, shown: &str, options: Value| json!({"type": 3, "custom_id": format!("list:{place}"), "placeholder": shown, "options": options});
    let lists = json!([
        row(vec![choices(0, "Big", json!([{"label": "One", "value": "1", "description": "first"}]))]),
        row(vec![choices(1, "Choose", json!([{"label": "Two", "value": "2"}]))]),
    ]);
    let react = |emoji: &str| format!("PUT https://discord.com/api/v10/channels/10/messages/5/reactions/{emoji}/@me");
    let cases = [
        (json!({"text": {"body": "hi"}}), MESSAGES.to_owned(), json!({"content": "hi"})),
        (json!({"text": {"body": "hi", "preview_url": false}}), MESSAGES.into(), json!({"content": "hi", "flags": 4})),
        (
            json!({"image": {"link": "https://a.example/1.jpg", "caption": "c"}}),
            MESSAGES.into(),
            json!({"content": "c", "embeds": [{"image": {"url": "https://a.example/1.jpg"}}]}),
        ),
        (
            json!({"video": {"link": "https://a.example/1.mp4", "caption": "c"}}),
            MESSAGES.into(),
            json!({"content": "c\nhttps://a.example/1.mp4"}),
        ),
        (json!({"audio": {"link": "https://a.example/1.mp3"}}), MESSAGES.into(), json!({"content": "https://a.example/1.mp3"})),
        (json!({"document": {"link": "https://a.example/1.pdf"}}), MESSAGES.into(), json!({"content": "https://a.example/1.pdf"})),
        (json!({"sticker": {"id": "77"}}), MESSAGES.into(), json!({"sticker_ids": ["77"]})),
        (
            json!({"sticker": {"link": "https://a.example/s.webp"}}),
            MESSAGES.into(),
            json!({"embeds": [{"image": {"url": "https://a.example/s.webp"}}]}),
        ),
        (
            json!({"mixed": [{"text": {"body": "t"}}, {"image": {"link": "https://a.example/1.jpg"}}, {"image": {"link": "https://a.example/2.jpg"}}]}),
            MESSAGES.into(),
            json!({"content": "t", "embeds": [{"image": {"url": "https://a.example/1.jpg"}}, {"image": {"url": "https://a.example/2.jpg"}}]}),
        ),
        (
            json!({"interactive": {"header": "h", "body": "b", "footer": "f", "buttons": buttons}}),
            MESSAGES.into(),
            json!({"content": "h\n\nb\n\nf", "components": two_rows}),
        ),
        (
            json!({"interactive": {"body": "b", "buttons": [{"id": "x", "title": "Shop", "url": "https://a.example"}]}}),
            MESSAGES.into(),
            json!({"content": "b", "components": [row(vec![link_button])]}),
        ),
        (json!({"interactive": {"body": "b", "list": list}}), MESSAGES.into(), json!({"content": "b", "components": lists})),
        (json!({"reaction": {"platform_id": "5", "emoji": "🔥"}}), react("%F0%9F%94%A5"), Value::Null),
        (json!({"reaction": {"platform_id": "5", "emoji": "shop:77"}}), react("shop%3A77"), Value::Null),
        (json!({"typing": {}}), "POST https://discord.com/api/v10/channels/10/typing".into(), json!({})),
    ];
    let id = MessageId([9; 16]).to_string();
    for (sent, target, expected) in cases {
        let content = content(sent.clone());
        assert_eq!(discord().check(&content, &room()), [], "{sent}");
        let request = request(&content, &id, None).unwrap();
        assert_eq!(format!("{} {}", request.method, request.url), target, "{sent}");
        let mut said = body(&request);
        if target == MESSAGES {
            let said = said.as_object_mut().unwrap();
            assert_eq!(said.remove("allowed_mentions"), Some(json!({"parse": []})), "{sent}");
            assert_eq!(said.remove("enforce_nonce"), Some(json!(true)), "{sent}");
            assert!(said.remove("nonce").is_some_and(|nonce| nonce.as_str().is_some_and(|nonce| nonce.len() <= 25)), "{sent}");
        }
        assert_eq!(said, expected, "{sent}");
        let authorization = header(&request, "authorization").unwrap();
        assert!(authorization == "Bot bot.token" && authorization.is_sensitive(), "{sent}");
        assert!(header(&request, "user-agent").unwrap().to_str().unwrap().starts_with("DiscordBot ("), "{sent}");
    }
}

#[test]
fn an_answer_points_at_its_message_and_the_nonce_is_the_same_for_the_same_send() {
    let id = MessageId([9; 16]).to_string();
    let answer = |reply_to| body(&request_to(&room(), &text(), &id, reply_to, None).unwrap());
    assert_eq!(answer(Some("5"))["message_reference"], json!({"message_id": "5", "fail_if_not_exists": false}));
    for none in [None, Some("interaction:5"), Some("")] {
        assert!(answer(none).get("message_reference").is_none(), "{none:?}");
    }
    assert_eq!(answer(None)["nonce"], answer(Some("5"))["nonce"]);
    let other = body(&request(&text(), &MessageId([8; 16]).to_string(), None).unwrap());
    assert_ne!(answer(None)["nonce"], other["nonce"]);
}

#[test]
fn while_an_interaction_can_be_answered_its_token_is_the_way() {
    let id = MessageId([9; 16]).to_string();
    let follow_up = request(&text(), &id, Some("to/ken")).unwrap();
    assert_eq!(follow_up.url, format!("https://discord.com/api/v10/webhooks/{BOT}/to%2Fken"));
    assert!(header(&follow_up, "authorization").is_none(), "the token is the credential");
    assert_eq!(body(&follow_up), json!({"content": "hi", "allowed_mentions": {"parse": []}}));
    for by_bot in [json!({"typing": {}}), json!({"reaction": {"platform_id": "5", "emoji": "x"}}), json!({"sticker": {"id": "77"}})] {
        let request = request(&content(by_bot.clone()), &id, Some("token")).unwrap();
        assert!(request.url.contains("/channels/10/") && header(&request, "authorization").is_some(), "{by_bot}");
    }
}

#[test]
fn a_person_gets_a_conversation_opened_first() {
    let person = Handle::new("user", "30");
    for via in [None, Some("token")] {
        let request = request_to(&person, &text(), &MessageId([9; 16]).to_string(), None, via).unwrap();
        assert_eq!(request.url, "https://discord.com/api/v10/users/@me/channels");
        assert_eq!(body(&request), json!({"recipient_id": "30"}));
    }
}

#[test]
fn limits_are_refused_beforehand_all_at_once() {
    let rows = |count: usize| (0..count).map(|i| json!({"id": i.to_string(), "title": "t"})).collect::<Vec<Value>>();
    let list = |sections: Value| json!({"interactive": {"body": "b", "list": {"button": "c", "sections": sections}}});
    let pictures = |count: usize| vec![json!({"image": {"link": "https://a.example/1.jpg"}}); count];
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({"text": {"body": "😀".repeat(2_000)}}), &[]),
        (json!({"text": {"body": "a".repeat(2_001)}}), &["/text/body has 2001 characters, at most 2000 are allowed"]),
        (json!({"text": {"body": " "}}), &["/text/body must not be empty"]),
        (
            json!({"image": {"id": "1", "caption": "a".repeat(2_001)}}),
            &[
                "/image/id discord takes media by link only",
                "/image/link is needed",
                "/image/caption has 2001 characters, at most 2000 are allowed",
            ],
        ),
        (json!({"image": {"link": "http://a.example/1.jpg"}}), &["/image/link must be an https link"]),
        (
            json!({"video": {"link": "https://a.example/1", "caption": "a".repeat(1_990)}}),
            &["/video/caption has 2010 characters, at most 2000 are allowed"],
        ),
        (
            json!({"sticker": {"id": "x", "caption": "c"}}),
            &["/sticker/caption stickers have no caption", "/sticker/id must be the digits of a sticker's id"],
        ),
        (json!({"sticker": {}}), &["/sticker id (a sticker of the guild) or link is needed"]),
        (json!({"mixed": pictures(11)}), &["/mixed has 11 pictures, 1 to 10 are allowed"]),
        (json!({"mixed": pictures(10)}), &[]),
        (
            json!({"mixed": [{"text": {"body": "a"}}, {"text": {"body": "b"}}, {"video": {"link": "https://a.example/1"}}]}),
            &[
                "/mixed/2 one message of discord holds one text and pictures",
                "/mixed has 2 texts, at most 1 is allowed",
                "/mixed has 0 pictures, 1 to 10 are allowed",
            ],
        ),
        (json!({"interactive": {"body": "b", "buttons": rows(25)}}), &[]),
        (json!({"interactive": {"body": "b", "buttons": rows(26)}}), &["/interactive/buttons has 26 buttons, at most 25 are allowed"]),
        (json!({"interactive": {"body": "b"}}), &["/interactive buttons or a list is needed"]),
        (
            json!({"interactive": {"body": "b", "buttons": [{"id": "i".repeat(101), "title": "t".repeat(81)}, {"id": "a", "title": "t"}, {"id": "a", "title": "t"}]}}),
            &[
                "/interactive/buttons/0/title has 81 characters, at most 80 are allowed",
                "/interactive/buttons/0/id has 101 characters, at most 100 are allowed",
                "/interactive/buttons/2/id stands there twice",
            ],
        ),
        (
            json!({"interactive": {"body": "b", "buttons": [{"id": "a", "title": "t", "url": "javascript:x"}]}}),
            &["/interactive/buttons/0/url must be an https link"],
        ),
        (list(json!([{"rows": rows(25)}])), &[]),
        (list(json!([{"rows": rows(26)}])), &["/interactive/list/sections/0/rows has 26 rows, 1 to 25 are allowed"]),
        (list(json!([])), &["/interactive/list/sections has 0 sections, 1 to 5 are allowed"]),
        (list(json!(vec![json!({"rows": rows(1)}); 6])), &["/interactive/list/sections has 6 sections, 1 to 5 are allowed"]),
        (
            json!({"reaction": {"platform_id": "5"}}),
            &["/reaction/emoji discord takes a reaction away only by its emoji, which is not known: give one"],
        ),
        (json!({"reaction": {"platform_id": "5", "emoji": "a b"}}), &["/reaction/emoji must be one emoji, or name:id of a guild's own"]),
        (json!({"template": {"name": "n", "language": "en"}}), &["/template discord has no templates: send the text itself"]),
        (json!({"read": {}}), &["/read bots have no read receipts with discord"]),
        (json!({"location": {"latitude": 1.0, "longitude": 2.0}}), &["/location discord has no places: send a link to a map"]),
        (json!({"email": {"subject": "s", "text": "t"}}), &["/email cannot be sent with discord"]),
    ];
    for (sent, expected) in cases {
        let content = content(sent.clone());
        let faults = discord().check(&content, &room());
        let said: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
        assert_eq!(said, expected, "{sent}");
    }
}

#[test]
fn what_cannot_be_sent_makes_no_request() {
    let id = MessageId([9; 16]).to_string();
    for sent in [
        json!({"template": {"name": "n", "language": "en"}}),
        json!({"read": {}}),
        json!({"image": {"id": "1"}}),
        json!({"reaction": {"platform_id": "interaction:5", "emoji": "x"}}),
        json!({"reaction": {"platform_id": "5"}}),
        json!({"reaction": {"message": "x", "emoji": "x"}}),
    ] {
        assert!(request(&content(sent.clone()), &id, None).is_err(), "{sent}");
    }
    for to in [Handle::account(), Handle::phone("1"), Handle::new("channel", "1/../2"), Handle::new("channel", "")] {
        assert!(request_to(&to, &text(), &id, None, None).is_err(), "{}", to.expose());
    }
}

#[test]
fn recipients() {
    let to = |text: &str| discord().recipient(&serde_json::from_str(text).unwrap());
    assert_eq!(to(r#"{"user_id":"30"}"#).unwrap(), Handle::new("user", "30"));
    assert_eq!(discord().recipient_json(&Handle::new("user", "30")), json!({"user_id": "30"}));
    for bad in [r#"{"channel_id":"x"}"#, r#"{"channel_id":""}"#, r#"{"channel_id":"1","user_id":"1"}"#, r#"{"channel_id":1}"#] {
        assert!(to(bad).is_err(), "{bad}");
    }
}

#[test]
fn members_of_accounts_are_checked() {
    let check = |name: &str, value: &str| {
        let field = discord().fields().iter().find(|field| field.name == name).unwrap();
        (field.check)(value).is_ok()
    };
    for (name, good, bad) in [
        ("application_id", "1200000000000000001", "x"),
        ("public_key", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "d75a"),
        ("bot_token", "MTIw.abc-_", "two words"),
        ("intents", "46592", "all"),
    ] {
        assert!(check(name, good) && !check(name, bad), "{name}");
    }
}

#[test]
fn budgets_belong_to_routes_and_to_the_application_whoever_uses_it() {
    let owner = |scope, to: &Handle| discord().owner(scope, &account(), to);
    assert_eq!(owner(BudgetScope::App, &room()), Owner::Platform(BOT.to_owned()));
    assert_ne!(owner(BudgetScope::Route, &room()), owner(BudgetScope::Route, &Handle::new("channel", "11")));
    let people = [Handle::new("user", "30"), Handle::new("user", "31")];
    assert_eq!(owner(BudgetScope::Route, &people[0]), owner(BudgetScope::Route, &people[1]), "all conversations are opened by one route");
}

#[test]
fn the_probe_asks_who_the_bot_is() {
    let probe = discord().probe(&account_with(&[]), &settings(KIND));
    assert_eq!((probe.method.as_str(), probe.url.as_str()), ("GET", "https://discord.com/api/v10/users/@me"));
    assert_eq!(header(&probe, "authorization").unwrap(), "Bot bot.token");
}
