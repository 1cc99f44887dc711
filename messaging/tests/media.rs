//! Where each channel's media are had, as the dossier says: the calls, the answers, the hosts.

mod support;

use bytes::Bytes;
use messaging::channels::{ChannelKind, FoundMedia, MediaFault, MediaSource, channel, may_fetch};
use messaging::content::{Content, Handle, Media};
use messaging::exchange::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use support::{account, settings};

/// The members that a channel's account needs for media.
fn members(kind: ChannelKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        ChannelKind::Whatsapp => &[("phone_number_id", "106540352242922"), ("access_token", "EAAtoken")],
        ChannelKind::Telegram => &[("bot_token", "70:AAtoken")],
        ChannelKind::Tiktok => &[("business_id", "biz"), ("access_token", "act.token")],
        ChannelKind::Messenger | ChannelKind::Instagram | ChannelKind::Discord | ChannelKind::Email | ChannelKind::Woocommerce => &[],
    }
}

fn media(value: Value) -> Media {
    serde_json::from_value(value).unwrap()
}

/// Method, address, headers and body in one line.
fn shown(request: &HttpRequest) -> String {
    let headers: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    format!("{} {} [{}] {}", request.method, request.url, headers.join(", "), String::from_utf8_lossy(&request.body))
}

fn source(kind: ChannelKind, of: &str, media: &Media) -> String {
    let from = Handle::new("conversation", "conv1");
    let found = FoundMedia { kind: of, media, message: "m1", from: &from };
    match channel(kind).media(&found, &account(kind, members(kind)), &settings(kind)) {
        None => "none".to_owned(),
        Some(MediaSource::Piece) => "piece".to_owned(),
        Some(MediaSource::Ask(request)) => format!("ask {}", shown(&request)),
        Some(MediaSource::Get(request)) => format!("get {}", shown(&request)),
    }
}

#[test]
fn the_first_call() {
    let table = [
        (
            ChannelKind::Whatsapp,
            "image",
            json!({"id": "1234567890", "link": "https://lookaside.fbsbx.com/old"}),
            "ask GET https://graph.facebook.com/v23.0/1234567890?phone_number_id=106540352242922 [authorization: Bearer EAAtoken] ",
        ),
        (ChannelKind::Whatsapp, "image", json!({"id": "../me"}), "none"),
        (ChannelKind::Whatsapp, "image", json!({"id": "1?x=2"}), "none"),
        (ChannelKind::Whatsapp, "image", json!({"link": "https://lookaside.fbsbx.com/x"}), "none"),
        (
            ChannelKind::Telegram,
            "audio",
            json!({"id": "AwACAgI"}),
            "ask POST https://api.telegram.org/bot70:AAtoken/getFile [content-type: application/json] {\"file_id\":\"AwACAgI\"}",
        ),
        (ChannelKind::Telegram, "audio", json!({}), "none"),
        (
            ChannelKind::Messenger,
            "image",
            json!({"link": "https://scontent.xx.fbcdn.net/v/x?oe=1"}),
            "get GET https://scontent.xx.fbcdn.net/v/x?oe=1 [] ",
        ),
        (ChannelKind::Messenger, "sticker", json!({"id": "like_heart"}), "none"),
        (
            ChannelKind::Instagram,
            "video",
            json!({"link": "https://lookaside.fbsbx.com/ig/x"}),
            "get GET https://lookaside.fbsbx.com/ig/x [] ",
        ),
        (
            ChannelKind::Discord,
            "document",
            json!({"id": "1", "link": "https://cdn.discordapp.com/a/b?ex=1"}),
            "get GET https://cdn.discordapp.com/a/b?ex=1 [] ",
        ),
        (ChannelKind::Discord, "sticker", json!({"id": "1"}), "none"),
        (
            ChannelKind::Tiktok,
            "image",
            json!({"id": "med1"}),
            "ask POST https://business-api.tiktok.com/open_api/v1.3/business/message/media/download/ \
             [content-type: application/json, access-token: act.token] \
             {\"business_id\":\"biz\",\"conversation_id\":\"conv1\",\"media_id\":\"med1\",\"media_type\":\"IMAGE\",\"message_id\":\"m1\"}",
        ),
        (ChannelKind::Tiktok, "sticker", json!({"link": "https://p16.tiktokcdn.com/s"}), "get GET https://p16.tiktokcdn.com/s [] "),
        (ChannelKind::Tiktok, "audio", json!({"id": "med1"}), "none"),
        (ChannelKind::Email, "document", json!({"filename": "a"}), "piece"),
        (ChannelKind::Woocommerce, "image", json!({"link": "https://shop.example/a.png"}), "none"),
    ];
    for (kind, of, said, expected) in table {
        assert_eq!(source(kind, of, &media(said.clone())), expected, "{} {said}", kind.name());
    }
}

#[test]
fn what_the_platform_answers() {
    use MediaFault::*;
    let ok = |value: Value| (200, value.to_string());
    let telegram = |path: &str| ok(json!({"ok": true, "result": {"file_id": "F", "file_path": path}}));
    let refused = |status: u16, text: &str| (status, json!({"ok": false, "error_code": status, "description": text}).to_string());
    let table = [
        (
            ChannelKind::Whatsapp,
            ok(json!({"url": "https://lookaside.fbsbx.com/x", "id": "1"})),
            Ok("GET https://lookaside.fbsbx.com/x [authorization: Bearer EAAtoken] "),
        ),
        (ChannelKind::Whatsapp, ok(json!({"id": "1"})), Err(BadAnswer)),
        (ChannelKind::Whatsapp, (200, "<html>".into()), Err(BadAnswer)),
        (ChannelKind::Whatsapp, (400, "{}".into()), Err(Gone)),
        (ChannelKind::Whatsapp, (404, "{}".into()), Err(Gone)),
        (ChannelKind::Whatsapp, (401, "{}".into()), Err(CredentialRefused)),
        (ChannelKind::Whatsapp, (429, "{}".into()), Err(Unavailable)),
        (ChannelKind::Whatsapp, (500, "{}".into()), Err(Unavailable)),
        (ChannelKind::Whatsapp, (302, String::new()), Err(Redirected)),
        (ChannelKind::Telegram, telegram("photos/file_1.jpg"), Ok("GET https://api.telegram.org/file/bot70:AAtoken/photos/file_1.jpg [] ")),
        (ChannelKind::Telegram, telegram("../secret"), Err(BadAnswer)),
        (ChannelKind::Telegram, telegram("/var/lib/telegram-bot-api/x"), Err(BadAnswer)),
        (ChannelKind::Telegram, telegram("a/./b"), Err(BadAnswer)),
        (ChannelKind::Telegram, telegram("a?b=c"), Err(BadAnswer)),
        (ChannelKind::Telegram, telegram("a%2f..%2fb"), Err(BadAnswer)),
        (ChannelKind::Telegram, telegram(""), Err(BadAnswer)),
        (ChannelKind::Telegram, refused(400, "Bad Request: file is too big"), Err(TooLarge)),
        (ChannelKind::Telegram, refused(400, "Bad Request: wrong file_id or the file is temporarily unavailable"), Err(Gone)),
        (ChannelKind::Telegram, refused(401, "Unauthorized"), Err(CredentialRefused)),
        (ChannelKind::Telegram, refused(429, "Too Many Requests: retry after 3"), Err(Unavailable)),
        (
            ChannelKind::Tiktok,
            ok(json!({"code": 0, "data": {"download_url": "https://v16.tiktokcdn.com/x"}})),
            Ok("GET https://v16.tiktokcdn.com/x [x-user: act.token] "),
        ),
        (ChannelKind::Tiktok, ok(json!({"code": 0, "data": {}})), Err(BadAnswer)),
        (ChannelKind::Tiktok, ok(json!({"code": 40105, "message": "x"})), Err(CredentialRefused)),
        (ChannelKind::Tiktok, ok(json!({"code": 40100, "message": "x"})), Err(Unavailable)),
        (ChannelKind::Tiktok, ok(json!({"code": 40002, "message": "x"})), Err(Gone)),
        (ChannelKind::Messenger, ok(json!({})), Err(Unsupported)),
    ];
    let (said, from) = (media(json!({"id": "F"})), Handle::chat("1"));
    for (kind, (status, body), expected) in table {
        let found = FoundMedia { kind: "image", media: &said, message: "m1", from: &from };
        let answer = HttpResponse { status, body: Bytes::from(body.clone()), ..HttpResponse::default() };
        let next = channel(kind).media_at(&found, &answer, &account(kind, members(kind)), &settings(kind));
        assert_eq!(next.as_ref().map(shown).map_err(|fault| *fault), expected.map(str::to_owned), "{} {status} {body}", kind.name());
    }
}

#[test]
fn only_the_channel_s_own_hosts() {
    use MediaFault::{BadAddress, HostNotAllowed};
    let long = format!("https://lookaside.fbsbx.com/{}", "a".repeat(5000));
    let table = [
        (ChannelKind::Whatsapp, "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1&ext=2&hash=x", Ok(())),
        (ChannelKind::Whatsapp, "https://LOOKASIDE.fbsbx.com/x", Ok(())),
        (ChannelKind::Whatsapp, "https://lookaside.fbsbx.com:443/x", Ok(())),
        (ChannelKind::Whatsapp, "https://graph.facebook.com/x", Ok(())),
        (ChannelKind::Whatsapp, "https://lookaside.fbsbx.com:8443/x", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://lookaside.fbsbx.com./x", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://evilfbsbx.com/x", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://fbsbx.com.evil.example/x", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://evil.example/?lookaside.fbsbx.com", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://evil.example#.fbsbx.com", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://evil.example?.fbsbx.com/", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://169.254.169.254/latest/meta-data", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://[::1]/x", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "https://127.0.0.1/x", Err(HostNotAllowed)),
        (ChannelKind::Whatsapp, "http://lookaside.fbsbx.com/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "http://graph.facebook.com/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "ftp://lookaside.fbsbx.com/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "file:///etc/passwd", Err(BadAddress)),
        (ChannelKind::Whatsapp, "//lookaside.fbsbx.com/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "https://lookaside.fbsbx.com@evil.example/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "https://evil.example\\.fbsbx.com/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "https://evil.example\\@lookaside.fbsbx.com/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "https://evil.example%2f.fbsbx.com/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "https://lookaside.fbsbx.com/a b", Err(BadAddress)),
        (ChannelKind::Whatsapp, "https://lookaside.fbsbx.com/\r\nhost: evil", Err(BadAddress)),
        (ChannelKind::Whatsapp, "https://l\u{f6}okaside.fbsbx.com/x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "https:///x", Err(BadAddress)),
        (ChannelKind::Whatsapp, "", Err(BadAddress)),
        (ChannelKind::Whatsapp, &long, Err(BadAddress)),
        (ChannelKind::Telegram, "https://api.telegram.org/file/bot1/x", Ok(())),
        (ChannelKind::Telegram, "https://t.me/x", Err(HostNotAllowed)),
        (ChannelKind::Messenger, "https://scontent.xx.fbcdn.net/v/x", Ok(())),
        (ChannelKind::Messenger, "https://cdn.fbsbx.com/v/x", Ok(())),
        (ChannelKind::Messenger, "https://www.facebook.com/x", Err(HostNotAllowed)),
        (ChannelKind::Instagram, "https://scontent.cdninstagram.com/v/x", Ok(())),
        (ChannelKind::Discord, "https://cdn.discordapp.com/attachments/1/2/a.png?ex=1&is=2&hm=3", Ok(())),
        (ChannelKind::Discord, "https://media.discordapp.net/x", Ok(())),
        (ChannelKind::Discord, "https://discordapp.com/x", Err(HostNotAllowed)),
        (ChannelKind::Tiktok, "https://p16-sign.tiktokcdn-us.com/x", Ok(())),
        (ChannelKind::Tiktok, "https://nottiktok.com/x", Err(HostNotAllowed)),
        (ChannelKind::Woocommerce, "https://shop.example/x", Err(HostNotAllowed)),
    ];
    for (kind, url, expected) in table {
        let base = settings(kind).api_base;
        assert_eq!(may_fetch(url, channel(kind).media_hosts(), &base), expected, "{} {url}", kind.name());
    }
    // A simulator's own origin, to the port.
    let base = "http://127.0.0.1:4000/sub";
    assert_eq!(may_fetch("http://127.0.0.1:4000/media/1", &[], base), Ok(()));
    assert_eq!(may_fetch("http://127.0.0.1:4001/media/1", &[], base), Err(BadAddress));
    assert_eq!(may_fetch("https://127.0.0.1:4000/media/1", &[], base), Err(HostNotAllowed));
}

#[test]
fn a_mail_brings_its_files_along() {
    let raw = "From: ada@example.com\r\nTo: shop@example.com\r\nMessage-ID: <1@example.com>\r\nSubject: x\r\nMIME-Version: 1.0\r\n\
               Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n\
               --b\r\nContent-Type: image/png; name=a.png\r\nContent-Disposition: attachment; filename=a.png\r\n\
               Content-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--b\r\nContent-Type: text/csv; name=b.csv\r\n\
               Content-Disposition: attachment; filename=b.csv\r\n\r\n1,2\r\n--b--\r\n";
    let piece = Bytes::from(format!("{}\n{raw}", json!({"source": "mime"})));
    let inbound = channel(ChannelKind::Email).parse(&piece).unwrap();
    let messaging::channels::InboundBody::Message { content: Content::Email(mail), .. } = &inbound.body else { panic!("{inbound:?}") };
    let parts = channel(ChannelKind::Email).media_parts(&piece);
    assert_eq!(parts.len(), mail.attachments.len());
    assert_eq!((&parts[0][..], &parts[1][..]), (b"\x89PNG\r\n\x1a\n".as_slice(), b"1,2".as_slice()));
    for (part, told) in parts.iter().zip(&mail.attachments) {
        assert_eq!(told.size_bytes, Some(part.len() as u64), "in the same order");
    }
    let told_only = Bytes::from(format!("{}\n{}", json!({"source": "postmark"}), json!({})));
    assert!(channel(ChannelKind::Email).media_parts(&told_only).is_empty());
    assert!(channel(ChannelKind::Email).media_parts(b"nonsense").is_empty());
}
