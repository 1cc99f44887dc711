//! What may be sent, and the calls that it becomes.

use std::collections::BTreeMap;
use std::time::Duration;

use messaging::channels::{ChannelKind, ChannelSettings, Fault, Outgoing, Settlement, WindowRule};
use messaging::clock::Timestamp;
use messaging::content::{Content, Handle};
use messaging::directory::{Account, AccountRow, AccountState, SecretPair};
use messaging::ids::{AccountId, TenantId};
use messaging::limit::BudgetScope;
use messaging::seal::{Sealed, Secret};
use messaging::tenant::{Owned, Tenant};
use serde_json::{Value, json};

use crate::{verifier, whatsapp};

fn settings() -> ChannelSettings {
    ChannelSettings {
        api_base: "https://graph.example.com".into(),
        api_version: "v23.0".into(),
        timeout: Duration::from_secs(10),
        per_account: 80.0,
        per_pair: 1.0 / 6.0,
        window: Duration::from_secs(24 * 3600),
        window_warning: Duration::from_secs(3600),
        ..ChannelSettings::default()
    }
}

fn account(number: &str, token: &str, api_base: Option<&str>) -> Account {
    let (tenant, id) = (TenantId([1; 16]), AccountId([2; 16]));
    Account {
        owner: Owned { tenant: Tenant::for_tests(tenant), account: id },
        channel: ChannelKind::Whatsapp,
        row: AccountRow {
            id,
            tenant,
            channel: ChannelKind::Whatsapp,
            name: "test".into(),
            api_base: api_base.map(str::to_owned),
            public: BTreeMap::from([("phone_number_id".to_owned(), number.to_owned())]),
            secrets: Sealed::from_stored(Vec::new()),
            state: AccountState::Active,
            state_reason: None,
            created_at: Timestamp::ZERO,
            revision: 1,
        },
        secrets: BTreeMap::from([("access_token".to_owned(), SecretPair::new(Secret::new(token), Timestamp::ZERO))]),
        verifier: verifier(),
        credential: None,
    }
}

/// From `{"text": …}`: the content's kind and member.
fn content(tagged: Value) -> Content {
    serde_json::from_value(tagged).unwrap_or_else(|error| panic!("{error}"))
}

fn phone() -> Handle {
    Handle::phone("16505551234")
}

fn body(content: &Content, to: &Handle, reply_to: Option<&str>) -> Result<Value, String> {
    let send = Outgoing { message: "msg_1", to, content, reply_to, via: None, tag: None, now: Timestamp::ZERO };
    let request = whatsapp().request(&send, &account("106540352242922", "secret", None), &settings());
    request.map(|request| serde_json::from_slice(&request.body).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn every_content_has_its_request() {
    let media = json!({"link": "https://example.com/a", "caption": "c"});
    let components = json!([{"type": "button", "sub_type": "quick_reply", "index": "0", "parameters": []}]);
    let cases = [
        (json!({"text": {"body": "hi"}}), "text", json!({"body": "hi"})),
        (json!({"text": {"body": "hi", "preview_url": true}}), "text", json!({"body": "hi", "preview_url": true})),
        (json!({"image": {"id": "7"}}), "image", json!({"id": "7"})),
        (json!({"image": {"id": "7", "caption": "", "mime_type": "image/png", "sha256": "x"}}), "image", json!({"id": "7"})),
        (json!({"image": media}), "image", media.clone()),
        (json!({"video": media}), "video", media.clone()),
        (json!({"audio": {"id": "7", "voice": true}}), "audio", json!({"id": "7", "voice": true})),
        (json!({"document": {"id": "7", "filename": "a.pdf"}}), "document", json!({"id": "7", "filename": "a.pdf"})),
        (json!({"sticker": {"id": "7", "animated": true}}), "sticker", json!({"id": "7"})),
        (
            json!({"location": {"latitude": 1.5, "longitude": -2.25, "name": "n", "address": "a"}}),
            "location",
            json!({"latitude": 1.5, "longitude": -2.25, "name": "n", "address": "a"}),
        ),
        (json!({"contacts": [{"name": {"formatted_name": "A"}}]}), "contacts", json!([{"name": {"formatted_name": "A"}}])),
        (
            json!({"interactive": {"body": "b", "header": "h", "footer": "f", "buttons": [{"id": "1", "title": "One"}, {"id": "2", "title": "Two"}]}}),
            "interactive",
            json!({"type": "button", "header": {"type": "text", "text": "h"}, "body": {"text": "b"}, "footer": {"text": "f"}, "action": {"buttons": [
                {"type": "reply", "reply": {"id": "1", "title": "One"}}, {"type": "reply", "reply": {"id": "2", "title": "Two"}}]}}),
        ),
        (
            json!({"interactive": {"body": "b", "buttons": [{"id": "", "title": "Shop", "url": "https://example.com"}]}}),
            "interactive",
            json!({"type": "cta_url", "body": {"text": "b"},
                "action": {"name": "cta_url", "parameters": {"display_text": "Shop", "url": "https://example.com"}}}),
        ),
        (
            json!({"interactive": {"body": "b", "list": {"button": "Open", "sections": [{"title": "S", "rows": [{"id": "1", "title": "One", "description": "d"}, {"id": "2", "title": "Two"}]}]}}}),
            "interactive",
            json!({"type": "list", "body": {"text": "b"}, "action": {"button": "Open", "sections": [
                {"title": "S", "rows": [{"id": "1", "title": "One", "description": "d"}, {"id": "2", "title": "Two"}]}]}}),
        ),
        (json!({"template": {"name": "t", "language": "en_US"}}), "template", json!({"name": "t", "language": {"code": "en_US"}})),
        (
            json!({"template": {"name": "t", "language": "en", "params": ["a", "b"]}}),
            "template",
            json!({"name": "t", "language": {"code": "en"}, "components": [
                {"type": "body", "parameters": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}),
        ),
        (
            json!({"template": {"name": "t", "language": "en", "components": components}}),
            "template",
            json!({"name": "t", "language": {"code": "en"}, "components": components}),
        ),
    ];
    for (tagged, kind, part) in cases {
        let content = content(tagged);
        let mut expected = json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "+16505551234",
            "type": kind, "biz_opaque_callback_data": "msg_1"});
        expected[kind] = part;
        assert_eq!(body(&content, &phone(), None).unwrap(), expected, "{content:?}");
        expected["context"] = json!({"message_id": "wamid.9"});
        assert_eq!(body(&content, &phone(), Some("wamid.9")).unwrap(), expected, "{content:?} as a reply");
        assert_eq!(whatsapp().check(&content, &phone()), [], "{content:?}");
    }
}

#[test]
fn receipts_and_reactions() {
    let head = json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "+16505551234",
        "type": "reaction", "biz_opaque_callback_data": "msg_1"});
    let reaction = |emoji: &str| {
        let mut body = head.clone();
        body["reaction"] = json!({"message_id": "wamid.9", "emoji": emoji});
        Ok(body)
    };
    let cases = [
        (json!({"reaction": {"platform_id": "wamid.9", "emoji": "👍"}}), reaction("👍")),
        (json!({"reaction": {"platform_id": "wamid.9"}}), reaction("")),
        (json!({"reaction": {"message": "msg_2"}}), Err("the message to react to has no platform id".to_owned())),
        (
            json!({"read": {"platform_id": "wamid.9"}}),
            Ok(json!({"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.9"})),
        ),
        (
            json!({"typing": {"platform_id": "wamid.9"}}),
            Ok(json!({"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.9", "typing_indicator": {"type": "text"}})),
        ),
        (json!({"read": {}}), Err("there is no message to mark as read".to_owned())),
        (json!({"typing": {}}), Err("there is no message to mark as read".to_owned())),
        (json!({"order": {}}), Err("whatsapp cannot send order".to_owned())),
        (json!({"payment": {}}), Err("whatsapp cannot send payment".to_owned())),
        (json!({"interactive_reply": {"kind": "button"}}), Err("whatsapp cannot send interactive_reply".to_owned())),
        (json!({"unsupported": {"kind": "poll", "raw": 1}}), Err("whatsapp cannot send unsupported".to_owned())),
    ];
    for (tagged, expected) in cases {
        let content = content(tagged);
        assert_eq!(body(&content, &phone(), Some("wamid.8")), expected, "{content:?}: a reply's context is for messages");
    }
}

#[test]
fn recipients_are_addressed_by_their_kind() {
    let text = content(json!({"text": {"body": "hi"}}));
    let head = |to: &Handle| {
        let body = body(&text, to, None)?;
        Ok((body["recipient_type"].clone(), body["to"].clone(), body["recipient"].clone()))
    };
    assert_eq!(head(&phone()), Ok((json!("individual"), json!("+16505551234"), Value::Null)));
    assert_eq!(head(&Handle::bsuid("US.134")), Ok((json!("individual"), Value::Null, json!("US.134"))));
    assert_eq!(head(&Handle::group("Y2Fw")), Ok((json!("group"), json!("Y2Fw"), Value::Null)));
    assert_eq!(head(&Handle::account()), Err("whatsapp cannot write to a account".to_owned()));
    assert_eq!(whatsapp().check(&text, &Handle::account())[0].pointer, "/to");
}

#[test]
fn calls_go_to_the_account_with_its_token() {
    let text = content(json!({"text": {"body": "hi"}}));
    let send = Outgoing { message: "msg_1", to: &phone(), content: &text, reply_to: None, via: None, tag: None, now: Timestamp::ZERO };
    let request = whatsapp().request(&send, &account("106", "EAAG", None), &settings()).unwrap();
    assert_eq!((request.method, &*request.url), (http::Method::POST, "https://graph.example.com/v23.0/106/messages"));
    let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("authorization", "Bearer EAAG"), ("content-type", "application/json")]);
    assert!(request.headers[0].1.is_sensitive());

    let elsewhere = account("106", "EAAG", Some("http://127.0.0.1:9/wa/"));
    assert_eq!(whatsapp().request(&send, &elsewhere, &settings()).unwrap().url, "http://127.0.0.1:9/wa/v23.0/106/messages");
    assert!(whatsapp().request(&send, &account("106", "a\nb", None), &settings()).is_err());
    assert!(whatsapp().request(&send, &account("", "EAAG", None), &settings()).is_err());

    let probe = whatsapp().probe(&account("106", "EAAG", None), &settings());
    assert_eq!(probe.method, http::Method::GET);
    assert!(probe.url.starts_with("https://graph.example.com/v23.0/106?fields=verified_name,quality_rating"), "{}", probe.url);
    assert_eq!(probe.headers[0].1, "Bearer EAAG");
    assert!(probe.body.is_empty());
}

#[test]
fn rules_of_the_platform() {
    let channel = whatsapp();
    let text = content(json!({"text": {"body": "hi"}}));
    assert_eq!(channel.window(&settings(), &account("1", "t", None)), Some(WindowRule::templates(Duration::from_secs(86_400))));
    let budgets: Vec<_> =
        channel.budgets(&settings(), &phone(), &text).iter().map(|budget| (budget.scope, budget.rate_per_second, budget.burst)).collect();
    assert_eq!(budgets, [(BudgetScope::Pair, 1.0 / 6.0, 45), (BudgetScope::Account, 80.0, 80)]);
    let slow = ChannelSettings { per_account: 0.5, ..settings() };
    assert_eq!(channel.budgets(&slow, &phone(), &text)[1].burst, 1);
    let cost = channel.refusal_cost();
    assert_eq!((cost.status, cost.redelivered_for, cost.punished_after), (503, Duration::from_secs(7 * 86_400), None));
    assert_eq!(channel.settlement(), Settlement::ByStatus);

    let fields: Vec<_> = channel.fields().iter().map(|field| (field.name, field.secret, field.required)).collect();
    assert_eq!(
        fields,
        [
            ("phone_number_id", false, true),
            ("business_account_id", false, false),
            ("access_token", true, true),
            ("app_secret", true, true),
            ("verify_token", true, true),
        ]
    );
    let check = |name: &str, value: &str| (channel.fields().iter().find(|field| field.name == name).unwrap().check)(value).is_ok();
    for (name, value, expected) in [
        ("phone_number_id", "106540352242922", true),
        ("phone_number_id", "+1065", false),
        ("phone_number_id", "../1", false),
        ("phone_number_id", "", false),
        ("business_account_id", "12a", false),
        ("access_token", "EAAG", true),
        ("access_token", "EA AG", false),
        ("access_token", "EAAG\n", false),
        ("app_secret", "", false),
        ("verify_token", &"a".repeat(2049), false),
    ] {
        assert_eq!(check(name, value), expected, "{name} {value}");
    }
}

#[test]
fn recipients() {
    let long_group = "g".repeat(257);
    let cases = [
        (json!({"phone": "+1 (650) 555-1234"}), Ok("phone:16505551234")),
        (json!({"phone": "16505551234"}), Ok("phone:16505551234")),
        (json!({"phone": "1234567"}), Ok("phone:1234567")),
        (json!({"phone": "123456789012345"}), Ok("phone:123456789012345")),
        (json!({"phone": "123456"}), Err("/phone")),
        (json!({"phone": "1234567890123456"}), Err("/phone")),
        (json!({"phone": "0049301234567"}), Err("/phone")),
        (json!({"phone": "+0301234567"}), Err("/phone")),
        (json!({"phone": "1+6505551234"}), Err("/phone")),
        (json!({"phone": "call me"}), Err("/phone")),
        (json!({"phone": ""}), Err("/phone")),
        (json!({"phone": 16505551234u64}), Err("/phone")),
        (json!({"bsuid": "US.13491208655302741918"}), Ok("bsuid:US.13491208655302741918")),
        (json!({"bsuid": "us.134"}), Err("/bsuid")),
        (json!({"bsuid": "US."}), Err("/bsuid")),
        (json!({"bsuid": "US.ENT.118"}), Err("/bsuid")),
        (
            json!({"bsuid": format!("US.{}", "1".repeat(128))}),
            Ok(
                "bsuid:US.11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
            ),
        ),
        (json!({"bsuid": format!("US.{}", "1".repeat(129))}), Err("/bsuid")),
        (json!({"group": "Y2FwaV9ncm91cDoxMjM0NQ"}), Ok("group:Y2FwaV9ncm91cDoxMjM0NQ")),
        (json!({"group": ""}), Err("/group")),
        (json!({"group": long_group}), Err("/group")),
        (json!({"chat_id": "1"}), Err("/chat_id")),
        (json!({"a/b": "1"}), Err("/a~1b")),
        (json!({}), Err("")),
        (json!({"phone": "+16505551234", "bsuid": "US.1"}), Err("")),
    ];
    for (to, expected) in cases {
        let handle = whatsapp().recipient(to.as_object().unwrap());
        match (&handle, expected) {
            (Ok(handle), Ok(expected)) => {
                assert_eq!(handle.expose(), expected);
                let back = whatsapp().recipient_json(handle);
                assert_eq!(whatsapp().recipient(back.as_object().unwrap()).as_ref(), Ok(handle), "there and back");
            }
            (Err(fault), Err(pointer)) => assert_eq!(fault.pointer, pointer, "{to}"),
            _ => panic!("{to}: {handle:?}"),
        }
    }
    assert_eq!(whatsapp().recipient_json(&phone()), json!({"phone": "+16505551234"}));
    let short = |to: &str| whatsapp().short_recipient(to).map(|handle| handle.expose().to_owned()).ok();
    assert_eq!(short("+16505551234").as_deref(), Some("phone:16505551234"));
    assert_eq!(short(" 16505551234").as_deref(), Some("phone:16505551234"), "a plus sign that was read as a space");
    assert_eq!(short("US.134").as_deref(), Some("bsuid:US.134"));
    assert_eq!(short("US.134x y"), None);
    assert_eq!(short(""), None);
    assert_eq!(short("12"), None);
}

/// The pointers of what is wrong.
fn faults(tagged: Value) -> Vec<String> {
    let faults: Vec<Fault> = whatsapp().check(&content(tagged), &phone());
    faults.into_iter().map(|fault| fault.pointer).collect()
}

#[test]
fn lengths_are_checked_at_their_limit() {
    let media = |kind: &str, caption: &str| json!({kind: {"id": "1", "caption": caption}});
    let things = |member: &str, text: &str| {
        let mut things = json!({"body": "b", "header": "h", "footer": "f", "buttons": [{"id": "1", "title": "t"}]});
        *things.pointer_mut(member).unwrap() = text.into();
        json!({ "interactive": things })
    };
    let list = |member: &str, text: &str| {
        let mut list = json!({"button": "b", "sections": [{"title": "s", "rows": [{"id": "1", "title": "t", "description": "d"}]}]});
        *list.pointer_mut(member).unwrap() = text.into();
        json!({"interactive": {"body": "b", "list": list}})
    };
    type Make<'a> = Box<dyn Fn(&str) -> Value + 'a>;
    let cases: Vec<(&str, usize, Make)> = vec![
        ("/text/body", 4096, Box::new(|text| json!({"text": {"body": text}}))),
        ("/image/caption", 1024, Box::new(|text| media("image", text))),
        ("/video/caption", 1024, Box::new(|text| media("video", text))),
        ("/document/caption", 1024, Box::new(|text| media("document", text))),
        ("/interactive/body", 1024, Box::new(|text| things("/body", text))),
        ("/interactive/header", 60, Box::new(|text| things("/header", text))),
        ("/interactive/footer", 60, Box::new(|text| things("/footer", text))),
        ("/interactive/buttons/0/id", 256, Box::new(|text| things("/buttons/0/id", text))),
        ("/interactive/buttons/0/title", 20, Box::new(|text| things("/buttons/0/title", text))),
        ("/interactive/list/button", 20, Box::new(|text| list("/button", text))),
        ("/interactive/list/sections/0/title", 24, Box::new(|text| list("/sections/0/title", text))),
        ("/interactive/list/sections/0/rows/0/id", 200, Box::new(|text| list("/sections/0/rows/0/id", text))),
        ("/interactive/list/sections/0/rows/0/title", 24, Box::new(|text| list("/sections/0/rows/0/title", text))),
        ("/interactive/list/sections/0/rows/0/description", 72, Box::new(|text| list("/sections/0/rows/0/description", text))),
    ];
    for (pointer, max, make) in cases {
        // Characters, not bytes.
        for letter in ["a", "ä", "👍"] {
            let of = |chars: usize| faults(make(&letter.repeat(chars)));
            assert_eq!(of(1), [""; 0], "{pointer}");
            assert_eq!(of(max - 1), [""; 0], "{pointer}");
            assert_eq!(of(max), [""; 0], "{pointer}");
            assert_eq!(of(max + 1), [pointer], "{pointer}");
        }
        let empty_is_no_caption = pointer.ends_with("/caption");
        assert_eq!(faults(make("")).is_empty(), empty_is_no_caption, "{pointer}");
    }
}

#[test]
fn all_faults_are_told() {
    let buttons = |count: usize| (0..count).map(|n| json!({"id": n.to_string(), "title": "t"})).collect::<Vec<_>>();
    let rows = |from: usize, count: usize| (from..from + count).map(|n| json!({"id": n.to_string(), "title": "t"})).collect::<Vec<_>>();
    let of_buttons = |buttons: Vec<Value>| json!({"interactive": {"body": "b", "buttons": buttons}});
    let of_sections = |sections: Vec<Value>| json!({"interactive": {"body": "b", "list": {"button": "b", "sections": sections}}});
    let sections = |count: usize| (0..count).map(|n| json!({"title": "s", "rows": rows(n, 1)})).collect::<Vec<_>>();
    let link = |link: &str| json!({"image": {"link": link}});
    let row = |latitude: f64, longitude: f64| json!({"location": {"latitude": latitude, "longitude": longitude}});
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (json!({"image": {}}), vec!["/image"]),
        (json!({"image": {"id": "1", "link": "https://e.com/a"}}), vec!["/image"]),
        (json!({"image": {"id": ""}}), vec!["/image/id"]),
        (link("HTTPS://e.com/a"), vec![]),
        (link("http://e.com/a"), vec!["/image/link"]),
        (link("https://"), vec!["/image/link"]),
        (link("https:///a"), vec!["/image/link"]),
        (link("https://e.com/a b"), vec!["/image/link"]),
        (link("ftp://e.com"), vec!["/image/link"]),
        (link("ä"), vec!["/image/link"]),
        (
            json!({"image": {"caption": "c".repeat(1025), "filename": "f", "voice": true}}),
            vec!["/image", "/image/caption", "/image/filename", "/image/voice"],
        ),
        (json!({"video": {"id": "1", "filename": "f"}}), vec!["/video/filename"]),
        (json!({"document": {"id": "1", "filename": ""}}), vec!["/document/filename"]),
        (json!({"audio": {"id": "1", "caption": "c"}}), vec!["/audio/caption"]),
        (json!({"sticker": {"id": "1", "caption": "c", "voice": true}}), vec!["/sticker/caption", "/sticker/voice"]),
        (of_buttons(buttons(1)), vec![]),
        (of_buttons(buttons(3)), vec![]),
        (of_buttons(buttons(4)), vec!["/interactive/buttons"]),
        (of_buttons(vec![]), vec!["/interactive"]),
        (of_buttons(vec![json!({"id": "1", "title": "a"}), json!({"id": "1", "title": "b"})]), vec!["/interactive/buttons/1/id"]),
        (
            of_buttons(vec![json!({"id": "1", "title": "a"}), json!({"id": "2", "title": "b", "url": "https://e.com"})]),
            vec!["/interactive/buttons/1/url"],
        ),
        (of_buttons(vec![json!({"id": "1", "title": "a", "url": "javascript:1"})]), vec!["/interactive/buttons/0/url"]),
        (
            json!({"interactive": {"body": "", "buttons": buttons(1), "list": {"button": "", "sections": []}}}),
            vec!["/interactive/body", "/interactive"],
        ),
        (of_sections(vec![]), vec!["/interactive/list/sections"]),
        (of_sections(sections(10)), vec![]),
        (of_sections(sections(11)), vec!["/interactive/list/sections", "/interactive/list/sections"]),
        (of_sections(vec![json!({"rows": rows(0, 10)})]), vec![]),
        (of_sections(vec![json!({"rows": rows(0, 11)})]), vec!["/interactive/list/sections"]),
        (of_sections(vec![json!({"rows": []})]), vec!["/interactive/list/sections/0/rows"]),
        (
            of_sections(vec![json!({"title": "s", "rows": rows(0, 1)}), json!({"rows": rows(0, 1)})]),
            vec!["/interactive/list/sections/1/title", "/interactive/list/sections/1/rows/0/id"],
        ),
        (
            json!({"template": {"name": "", "language": "", "params": [""], "components": {}}}),
            vec!["/template/name", "/template/language", "/template/params/0", "/template", "/template/components"],
        ),
        (json!({"template": {"name": "n", "language": "en", "components": []}}), vec![]),
        (json!({"reaction": {"emoji": "👍"}}), vec!["/reaction"]),
        (json!({"reaction": {"message": "msg_1"}}), vec![]),
        (json!({"reaction": {"platform_id": "wamid"}}), vec![]),
        (row(90.0, 180.0), vec![]),
        (row(-90.0, -180.0), vec![]),
        (row(90.1, -180.1), vec!["/location/latitude", "/location/longitude"]),
        (
            json!({"location": {"latitude": 0.0, "longitude": 0.0, "url": "https://e.com", "live_period_s": 60}}),
            vec!["/location/url", "/location/live_period_s"],
        ),
        (json!({"contacts": []}), vec!["/contacts"]),
        (json!({"contacts": [1, {}, {"name": {"formatted_name": "A"}}]}), vec!["/contacts/0", "/contacts/1/name/formatted_name"]),
        (json!({"read": {}}), vec![]),
        (json!({"typing": {}}), vec![]),
        (json!({"order": 1}), vec!["/type"]),
        (json!({"payment": 1}), vec!["/type"]),
        (json!({"interactive_reply": {"kind": "button"}}), vec!["/type"]),
        (json!({"unsupported": {"kind": "k", "raw": 1}}), vec!["/type"]),
    ];
    for (tagged, expected) in cases {
        assert_eq!(faults(tagged.clone()), expected, "{tagged}");
    }
}
