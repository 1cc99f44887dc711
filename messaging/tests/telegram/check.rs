//! Limits: one below, at, and one above.

use messaging::content::{Content, Handle};
use serde_json::{Value, json};

use super::telegram;

/// The faults of a content, as `pointer: detail`.
fn faults(kind: &str, body: Value) -> Vec<String> {
    let object = json!({ "type": kind, kind: body });
    let content = Content::from_members(object.as_object().unwrap()).unwrap();
    let faults = telegram().check(&content, &Handle::chat("4711"));
    faults.into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect()
}

#[track_caller]
fn fits(kind: &str, body: Value) {
    assert_eq!(faults(kind, body), Vec::<String>::new());
}

#[track_caller]
fn fails(kind: &str, body: Value, expected: &[&str]) {
    assert_eq!(faults(kind, body), expected);
}

#[test]
fn text() {
    for length in [1, 4095, 4096] {
        fits("text", json!({ "body": "x".repeat(length) }));
    }
    fails("text", json!({ "body": "x".repeat(4097) }), &["/text/body: has 4097 characters (UTF-16 units), at most 4096 are allowed"]);
    // An emoji beyond the first plane is two units.
    fits("text", json!({ "body": "👍".repeat(2048) }));
    fails("text", json!({ "body": "👍".repeat(2049) }), &["/text/body: has 4098 characters (UTF-16 units), at most 4096 are allowed"]);
    fails("text", json!({ "body": "" }), &["/text/body: must not be empty"]);
    fails("text", json!({ "body": " \n" }), &["/text/body: must not be empty"]);
}

#[test]
fn media() {
    for kind in ["image", "video", "audio", "document", "sticker"] {
        fits(kind, json!({ "id": "F" }));
        fits(kind, json!({ "link": "https://example.com/a" }));
        fits(kind, json!({ "link": "http://example.com/a" }));
        fails(kind, json!({}), &[&format!("/{kind}: id (a file_id of this bot) or link is needed")]);
        fails(kind, json!({ "id": "F", "link": "https://example.com" }), &[&format!("/{kind}: id and link exclude each other")]);
        fails(kind, json!({ "id": "" }), &[&format!("/{kind}/id: must not be empty")]);
        for link in ["", "example.com/a", "ftp://example.com/a", "https://", "https:///a", "https://example.com/a b", "attach://a"] {
            fails(kind, json!({ "link": link }), &[&format!("/{kind}/link: must be an https or http link")]);
        }
    }
    for length in [0, 1, 1023, 1024] {
        fits("image", json!({ "id": "F", "caption": "x".repeat(length) }));
    }
    let too_long = ["/image/caption: has 1025 characters (UTF-16 units), at most 1024 are allowed"];
    fails("image", json!({ "id": "F", "caption": "x".repeat(1025) }), &too_long);
    fails("sticker", json!({ "id": "F", "caption": "x" }), &["/sticker/caption: stickers have no caption"]);
    let both = [
        "/video: id (a file_id of this bot) or link is needed",
        "/video/caption: has 1025 characters (UTF-16 units), at most 1024 are allowed",
    ];
    fails("video", json!({ "caption": "x".repeat(1025) }), &both);
}

#[test]
fn location() {
    for (latitude, longitude) in [(90.0, 180.0), (-90.0, -180.0), (0.0, 0.0)] {
        fits("location", json!({ "latitude": latitude, "longitude": longitude }));
    }
    let place = |more: Value| {
        let mut place = json!({ "latitude": 1.0, "longitude": 2.0 });
        place.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        place
    };
    let both = ["/location/latitude: must be from -90 to 90", "/location/longitude: must be from -180 to 180"];
    fails("location", json!({ "latitude": 90.1, "longitude": -180.1 }), &both);
    fits("location", place(json!({ "name": "Cafe", "address": "1 St" })));
    fails("location", place(json!({ "name": "Cafe" })), &["/location/address: a named place needs name and address"]);
    fails("location", place(json!({ "address": "1 St" })), &["/location/name: a named place needs name and address"]);
    fails("location", place(json!({ "url": "https://example.com" })), &["/location/url: telegram's places carry no link"]);
    for period in [60, 61, 86_399, 86_400, 0x7FFF_FFFF_u64] {
        fits("location", place(json!({ "live_period_s": period })));
    }
    for period in [0, 59, 86_401] {
        let fault = ["/location/live_period_s: must be from 60 to 86400, or 2147483647 for no end"];
        fails("location", place(json!({ "live_period_s": period })), &fault);
    }
    let live_venue = place(json!({ "name": "Cafe", "address": "1 St", "live_period_s": 60 }));
    fails("location", live_venue, &["/location/live_period_s: a named place cannot be live"]);
}

#[test]
fn contacts() {
    fits("contacts", json!([{ "phone_number": "+1", "first_name": "Ada" }]));
    fits("contacts", json!([{ "name": { "formatted_name": "Ada L" }, "phones": [{ "phone": "+1" }] }]));
    fails("contacts", json!([]), &["/contacts: has 0 cards, telegram sends exactly one"]);
    let card = json!({ "phone_number": "+1", "first_name": "Ada" });
    fails("contacts", json!([card, card]), &["/contacts: has 2 cards, telegram sends exactly one"]);
    fails("contacts", json!([{ "first_name": "Ada" }]), &["/contacts/0: needs phone_number, or phones with a phone"]);
    let unnamed = ["/contacts/0: needs first_name, or name with first_name or formatted_name"];
    fails("contacts", json!([{ "phone_number": "+1" }]), &unnamed);
    fails("contacts", json!([7]), &["/contacts/0: needs phone_number, or phones with a phone"]);
}

#[test]
fn interactive() {
    let buttons = |count: usize| (0..count).map(|i| json!({ "id": format!("b{i}"), "title": "B" })).collect::<Vec<_>>();
    let rows = |count: usize| (0..count).map(|i| json!({ "id": format!("r{i}"), "title": "R" })).collect::<Vec<_>>();
    for count in [1, 99, 100] {
        fits("interactive", json!({ "body": "x", "buttons": buttons(count) }));
        fits("interactive", json!({ "body": "x", "list": { "button": "L", "sections": [{ "rows": rows(count) }] } }));
    }
    let too_many = ["/interactive/buttons: has 101 buttons, at most 100 are allowed"];
    fails("interactive", json!({ "body": "x", "buttons": buttons(101) }), &too_many);
    let sections = json!([{ "rows": rows(100) }, { "rows": rows(1) }]);
    let too_many = ["/interactive/list/sections: has 101 buttons, at most 100 are allowed"];
    fails("interactive", json!({ "body": "x", "list": { "button": "L", "sections": sections } }), &too_many);
    let no_rows = ["/interactive/list/sections: needs at least one button"];
    fails("interactive", json!({ "body": "x", "list": { "button": "L", "sections": [] } }), &no_rows);
    fails("interactive", json!({ "body": "x" }), &["/interactive: buttons or a list is needed"]);
    let both = json!({ "body": "x", "buttons": buttons(1), "list": { "button": "L", "sections": [{ "rows": rows(1) }] } });
    fails("interactive", both, &["/interactive: buttons and list exclude each other"]);

    // Header, body and footer are one text, with an empty line between.
    let whole = |length: usize| json!({ "header": "h", "body": "x".repeat(length - 6), "footer": "f", "buttons": buttons(1) });
    fits("interactive", whole(4095));
    fits("interactive", whole(4096));
    fails("interactive", whole(4097), &["/interactive/body: has 4097 characters (UTF-16 units), at most 4096 are allowed"]);
    fails("interactive", json!({ "header": "h", "body": "", "buttons": buttons(1) }), &["/interactive/body: must not be empty"]);

    let button = |id: &str| json!({ "body": "x", "buttons": [{ "id": id, "title": "B" }] });
    fits("interactive", button(&"x".repeat(63)));
    fits("interactive", button(&"x".repeat(64)));
    fits("interactive", button(&"é".repeat(32)));
    fails("interactive", button(&"x".repeat(65)), &["/interactive/buttons/0/id: has 65 bytes, 1 to 64 are allowed"]);
    fails("interactive", button(&"é".repeat(33)), &["/interactive/buttons/0/id: has 66 bytes, 1 to 64 are allowed"]);
    let row = json!({ "body": "x", "list": { "button": "L", "sections": [{ "rows": [{ "id": "", "title": " " }] }] } });
    let faults = [
        "/interactive/list/sections/0/rows/0/title: must not be empty",
        "/interactive/list/sections/0/rows/0/id: has 0 bytes, 1 to 64 are allowed",
    ];
    fails("interactive", row, &faults);

    let link = |url: &str| json!({ "body": "x", "buttons": [{ "id": "", "title": "B", "url": url }] });
    fits("interactive", link("https://example.com"));
    fits("interactive", link("tg://resolve?domain=x"));
    fails("interactive", link("javascript:1"), &["/interactive/buttons/0/url: must be an https, http or tg link"]);
}

#[test]
fn reactions() {
    let about = |emoji: &str| json!({ "platform_id": "4711:1", "emoji": emoji });
    for emoji in ["", "👍", "❤", "❤️", "👍🏽", "👨‍💻", "❤️‍🔥", "🤷‍♀️", "🇳🇴", "7️⃣", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "⚡", "✍️", "☃", "🕊", "🆒", "5368324170671202286"]
    {
        fits("reaction", about(emoji));
    }
    for emoji in ["x", "👍👍", "👍 ", "+1", "12345", ":)", "ok👍", "👍x", "\u{200D}", "️", "🇳"] {
        fails("reaction", about(emoji), &["/reaction/emoji: must be one emoji, or the number of a custom one"]);
    }
    fits("reaction", json!({ "message": "msg_x" }));
    fails("reaction", json!({ "emoji": "👍" }), &["/reaction: message or platform_id is needed"]);
}

#[test]
fn receipts_always_and_inbound_kinds_never() {
    fits("typing", json!({}));
    fits("read", json!({}));
    let template = json!({ "name": "t", "language": "en" });
    fails("template", template, &["/template: telegram has no templates: send the text itself"]);
    for (kind, body) in [
        ("interactive_reply", json!({ "kind": "callback" })),
        ("order", json!({})),
        ("payment", json!({})),
        ("unsupported", json!({ "kind": "poll", "raw": {} })),
    ] {
        fails(kind, body, &[&format!("/{kind}: only arrives, and cannot be sent with telegram")]);
    }
}
