//! What leaves: mails as they go to a relay, and what is refused beforehand.

use mail_parser::{HeaderValue, Message, MessageParser};
use messaging::channels::{ChannelKind, Outbound, Outgoing};
use messaging::content::{Content, Email, Handle, Location, Media, Receipt, Text};
use messaging::directory::Account;
use messaging::exchange::{MailSecurity, MailSubmission};
use serde_json::{Map, json};

use super::email;
use super::support::{NOW, account, settings};

const MESSAGE: &str = "msg_abc";

fn shop(more: &[(&str, &str)]) -> Account {
    let base = [("address", "Shop@Example.net"), ("provider", "bridge"), ("smtp_host", "relay.example"), ("smtp_password", "pass")];
    account(ChannelKind::Email, &[&base, more].concat())
}

fn sent_by(account: &Account, content: &Content, reply_to: Option<&str>) -> Result<MailSubmission, String> {
    let to = Handle::new("mail", "ada@example.com");
    let send = Outgoing { message: MESSAGE, to: &to, content, reply_to, via: None, tag: None, now: NOW };
    match email().transport(&send, account, &settings(ChannelKind::Email)) {
        Ok(Outbound::Mail(mail)) => Ok(*mail),
        Ok(Outbound::Http(_)) => panic!("mail is no request"),
        Err(error) => Err(error.0),
    }
}

fn sent(content: &Content) -> MailSubmission {
    sent_by(&shop(&[]), content, None).unwrap()
}

fn text(body: &str) -> Content {
    Content::Text(Text { body: body.into(), preview_url: None })
}

fn read(mail: &MailSubmission) -> Message<'_> {
    assert!(mail.message.is_ascii(), "any relay takes it");
    assert!(mail.message.split(|byte| *byte == b'\n').all(|line| line.len() <= 998), "no line is too long");
    MessageParser::default().parse(&mail.message[..]).unwrap()
}

fn body(message: &Message<'_>) -> String {
    message.body_text(0).unwrap().replace("\r\n", "\n").trim_end().to_owned()
}

fn header(mail: &MailSubmission, name: &str) -> String {
    let head = String::from_utf8(mail.message.to_vec()).unwrap();
    let head = head.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
    let found = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
    found.unwrap_or_else(|| "-".to_owned())
}

#[test]
fn a_text_is_a_mail() {
    let mail = sent(&text("Hëllo Ada\nyour order is on its way"));
    assert_eq!((mail.host.as_str(), mail.port, mail.security), ("relay.example", 587, MailSecurity::StartTls));
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice(), mail.user.as_deref()),
        ("shop@example.net", &["ada@example.com".to_owned()][..], None)
    );
    assert_eq!(mail.password.expose(), "pass");
    let message = read(&mail);
    assert_eq!(message.subject(), Some("Hëllo Ada"));
    assert_eq!(body(&message), "Hëllo Ada\nyour order is on its way");
    assert_eq!(message.message_id(), Some("msg_abc@example.net"));
    assert_eq!(message.date().unwrap().to_timestamp() as u64, NOW.as_secs());
    for (name, wanted) in [
        ("From", "shop@example.net"),
        ("To", "ada@example.com"),
        ("Message-ID", "<msg_abc@example.net>"),
        ("X-Trunkline-Message", "msg_abc"),
        ("In-Reply-To", "-"),
        ("List-Unsubscribe", "-"),
    ] {
        assert_eq!(header(&mail, name), wanted, "{name}");
    }
    assert_eq!(sent(&text("again")).message, sent(&text("again")).message, "every try is the same mail");
}

#[test]
fn a_whole_mail() {
    let content = Content::Email(Email {
        subject: Some("Rechnung für Ada".into()),
        text: Some("Anbei".into()),
        html: Some("<html><body><p>Anbei</p></body></html>".into()),
        cc: vec!["c@example.com".into()],
        bcc: vec!["B@example.com".into(), "ada@example.com".into()],
        reply_to: Some("help@example.net".into()),
        unsubscribe: Some("https://example.net/u?a=1&b=2".into()),
        attachments: vec![
            Media { link: Some("https://example.net/i.pdf?a=1&b=2".into()), filename: Some("<i>.pdf".into()), ..Media::default() },
            Media { link: Some("https://example.net/j".into()), ..Media::default() },
        ],
        ..Email::default()
    });
    let mail = sent_by(
        &shop(&[("display_name", "Jörgs, \"Shop\""), ("smtp_from", "bounce@example.net")]),
        &content,
        Some("CAF1@mail.example.com"),
    )
    .unwrap();
    assert_eq!(mail.from, "bounce@example.net");
    assert_eq!(mail.to, ["ada@example.com", "c@example.com", "b@example.com"], "each once");
    let message = read(&mail);
    assert_eq!(message.from().unwrap().first().unwrap().name(), Some("Jörgs, \"Shop\""));
    assert_eq!(body(&message), "Anbei\n\n<i>.pdf: https://example.net/i.pdf?a=1&b=2\n\nhttps://example.net/j");
    let html = message.body_html(0).unwrap().replace("\r\n", "\n");
    let links = concat!(
        "<p><a href=\"https://example.net/i.pdf?a=1&amp;b=2\">&lt;i&gt;.pdf</a></p>\n",
        "<p><a href=\"https://example.net/j\">https://example.net/j</a></p>\n</body></html>"
    );
    assert!(html.ends_with(links), "{html}");
    for (name, wanted) in [
        ("In-Reply-To", "<CAF1@mail.example.com>"),
        ("References", "<CAF1@mail.example.com>"),
        ("Reply-To", "help@example.net"),
        ("Cc", "c@example.com"),
        ("Bcc", "-"),
        ("List-Unsubscribe", "<https://example.net/u?a=1&b=2>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ] {
        assert_eq!(header(&mail, name), wanted, "{name}");
    }
    assert!(!String::from_utf8_lossy(&mail.message).contains("B@example.com"), "hidden recipients stay hidden");
}

#[test]
fn contents_that_become_mails() {
    let media = || Media { link: Some("https://example.net/a".into()), caption: Some("Look\nhere".into()), ..Media::default() };
    for (content, subject, body) in [
        (Content::Image(media()), "Look", "Look\nhere\n\nhttps://example.net/a"),
        (Content::Video(media()), "Look", "Look\nhere\n\nhttps://example.net/a"),
        (Content::Audio(Media { caption: None, ..media() }), "Message", "https://example.net/a"),
        (Content::Document(Media { filename: Some("a.pdf".into()), ..media() }), "Look", "Look\nhere\n\na.pdf: https://example.net/a"),
        (
            Content::Location(Location {
                latitude: 1.5,
                longitude: -2.25,
                name: Some("Shop".into()),
                address: Some("1 Road".into()),
                url: None,
                live_period_s: None,
            }),
            "Shop",
            "Shop\n1 Road\n1.5, -2.25",
        ),
        (text(&"x".repeat(100)), &format!("{}…", "x".repeat(77))[..], &"x".repeat(100)[..]),
        (text("\u{7}"), "Message", "\u{7}"),
    ] {
        assert_eq!(email().check(&content, &email().nobody()), []);
        let mail = sent(&content);
        let message = read(&mail);
        assert_eq!((message.subject(), super::request::body(&message).as_str()), (Some(subject), body));
    }
}

#[test]
fn ports_and_protection() {
    for (members, port, security) in [
        (&[][..], 587, MailSecurity::StartTls),
        (&[("smtp_port", "465")], 465, MailSecurity::Tls),
        (&[("smtp_port", "2525")], 2525, MailSecurity::StartTls),
        (&[("smtp_port", "2465"), ("smtp_security", "tls")], 2465, MailSecurity::Tls),
        (&[("smtp_port", "25"), ("smtp_security", "plain")], 25, MailSecurity::Plain),
    ] {
        let mail = sent_by(&shop(members), &text("hi"), None).unwrap();
        assert_eq!((mail.port, mail.security), (port, security), "{members:?}");
    }
    let without = account(ChannelKind::Email, &[("address", "shop@example.net")]);
    assert!(sent_by(&without, &text("hi"), None).unwrap_err().contains("smtp_host"));
}

/// Providers that write their own id over ours get our id in their own metadata.
#[test]
fn providers_are_told_our_id() {
    for (host, name, value) in [
        ("smtp.postmarkapp.com", "X-PM-Metadata-trunkline", "msg_abc"),
        ("smtp.eu.mailgun.org", "X-Mailgun-Variables", r#"{"trunkline":"msg_abc"}"#),
        ("smtp.sendgrid.net", "X-SMTPAPI", r#"{"unique_args":{"trunkline":"msg_abc"}}"#),
        ("notpostmarkapp.com", "X-PM-Metadata-trunkline", "-"),
    ] {
        let shop = account(ChannelKind::Email, &[("address", "shop@example.net"), ("smtp_host", host)]);
        assert_eq!(header(&sent_by(&shop, &text("hi"), None).unwrap(), name), value, "{host}");
    }
}

/// Nothing of a content, an answered id or a handle can begin a header of its own.
#[test]
fn header_injection_is_refused() {
    let evil = "x\r\nBcc: victim@example.com";
    let mail = |edit: &dyn Fn(&mut Email)| {
        let mut email = Email { subject: Some("s".into()), text: Some("t".into()), ..Email::default() };
        edit(&mut email);
        Content::Email(email)
    };
    let link = || Media { link: Some("https://example.net/a".into()), ..Media::default() };
    for (content, pointer) in [
        (mail(&|email| email.subject = Some(evil.into())), "/email/subject"),
        (mail(&|email| email.reply_to = Some(format!("a@example.com{evil}"))), "/email/reply_to"),
        (mail(&|email| email.cc = vec![format!("a@example.com\r\n{evil}")]), "/email/cc/0"),
        (mail(&|email| email.bcc = vec!["a@example.com>\r\nDATA".into()]), "/email/bcc/0"),
        (mail(&|email| email.unsubscribe = Some(format!("https://example.net/{evil}"))), "/email/unsubscribe"),
        (mail(&|email| email.unsubscribe = Some("https://example.net/>,<mailto:x".into())), "/email/unsubscribe"),
        (mail(&|email| email.attachments = vec![Media { filename: Some(evil.into()), ..link() }]), "/email/attachments/0/filename"),
        (
            mail(&|email| email.attachments = vec![Media { link: Some("javascript:alert(1)".into()), ..link() }]),
            "/email/attachments/0/link",
        ),
    ] {
        let faults = email().check(&content, &email().nobody());
        assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), [pointer]);
        assert!(sent_by(&shop(&[]), &content, None).is_err(), "what is stored is judged again: {pointer}");
    }
    for answered in ["a@b>\r\nBcc: victim@example.com", "a b@c", "", "no-domain"] {
        let mail = sent_by(&shop(&[]), &text("hi"), Some(answered)).unwrap();
        assert_eq!((header(&mail, "In-Reply-To").as_str(), header(&mail, "Bcc").as_str()), ("-", "-"), "{answered:?}");
    }
    for to in ["a@example.com\r\nRCPT TO:<b@example.com>", "a@example.com> SIZE=1", "", "x"] {
        let to = Handle::new("mail", to);
        let content = text("hi");
        let send = Outgoing { message: MESSAGE, to: &to, content: &content, reply_to: None, via: None, tag: None, now: NOW };
        assert!(email().transport(&send, &shop(&[]), &settings(ChannelKind::Email)).is_err());
    }
    let derived = sent(&text("Subject line\r\n\r\nBcc: victim@example.com"));
    assert_eq!((read(&derived).subject(), header(&derived, "Bcc").as_str()), (Some("Subject line"), "-"));
    assert!(matches!(read(&derived).header("Bcc"), None | Some(HeaderValue::Empty)));
}

#[test]
fn limits_are_named() {
    let mail = |edit: &dyn Fn(&mut Email)| {
        let mut email = Email { subject: Some("s".into()), text: Some("t".into()), ..Email::default() };
        edit(&mut email);
        Content::Email(email)
    };
    let link = || Media { link: Some("https://example.net/a".into()), ..Media::default() };
    let many = |count: usize| (0..count).map(|n| format!("a{n}@example.com")).collect::<Vec<_>>();
    for (content, pointers) in [
        (text(""), &["/text/body"][..]),
        (text(&"x".repeat(512 * 1024 + 1)), &["/text/body"]),
        (Content::Email(Email::default()), &["/email/subject", "/email"]),
        (mail(&|email| email.subject = Some("x".repeat(256))), &["/email/subject"]),
        (mail(&|email| email.subject = Some("é".repeat(255))), &[]),
        (mail(&|email| email.to = vec!["b@example.com".into()]), &["/email/to"]),
        (mail(&|email| email.cc = many(49)), &[]),
        (mail(&|email| (email.cc, email.bcc) = (many(49), many(1))), &["/email/cc"]),
        (mail(&|email| email.attachments = vec![link(); 20]), &[]),
        (mail(&|email| email.attachments = vec![link(); 21]), &["/email/attachments"]),
        (Content::Image(Media { id: Some("1".into()), ..Media::default() }), &["/image/id", "/image/link"]),
        (Content::Document(Media { link: Some("http://example.net/a".into()), ..Media::default() }), &["/document/link"]),
        (Content::Read(Receipt { message: None, platform_id: None }), &["/type"]),
        (Content::Contacts(vec![json!({})]), &["/type"]),
        (
            Content::Location(Location { latitude: 91.0, longitude: 0.0, name: None, address: None, url: None, live_period_s: None }),
            &["/location"],
        ),
        (
            Content::Location(Location { latitude: f64::NAN, longitude: 0.0, name: None, address: None, url: None, live_period_s: None }),
            &["/location"],
        ),
    ] {
        let faults = email().check(&content, &email().nobody());
        assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), pointers);
    }
}

#[test]
fn recipients() {
    for (given, kept) in [
        ("Ada@Example.COM", Some("ada@example.com")),
        (" ada+tag@example.co.uk ", Some("ada+tag@example.co.uk")),
        ("o'neill@xn--bcher-kva.example", Some("o'neill@xn--bcher-kva.example")),
        ("ada", None),
        ("ada@localhost", None),
        ("@example.com", None),
        ("a b@example.com", None),
        ("a@b@example.com", None),
        ("\"a b\"@example.com", None),
        ("a@[192.0.2.1]", None),
        (".a@example.com", None),
        ("a..b@example.com", None),
        ("a@-example.com", None),
        ("a@example..com", None),
        ("ada@bücher.example", None),
        ("Ada <ada@example.com>", None),
        ("a@example.com\r\nb", None),
    ] {
        let handle = kept.map(|kept| Handle::new("mail", kept));
        assert_eq!(email().short_recipient(given).ok(), handle, "{given:?}");
        assert_eq!(email().recipient(&Map::from_iter([("email".to_owned(), given.into())])).ok(), handle, "{given:?}");
    }
    let long = format!("{}@example.com", "a".repeat(65));
    assert!(email().short_recipient(&long).is_err());
}

#[test]
fn members_of_accounts() {
    let check = |name: &str, value: &str| {
        let field = email().fields().iter().find(|field| field.name == name).unwrap();
        (field.check)(value).is_ok()
    };
    for (name, value, fits) in [
        ("address", "shop@example.net", true),
        ("address", "shop", false),
        ("provider", "ses", true),
        ("provider", "pigeon", false),
        ("topic", "arn:aws:sns:eu-west-1:123456789012:mail", true),
        ("topic", "arn:aws:s3:::mail", false),
        (
            "public_key",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAhfmF/C2RDkoJ4+WmZ5pojpPLBUr321s32bluAKC1O0ZSn3ry5dxLS3aPKhaqHZaVvRfx1hZllLyiXxlMG5XlA==",
            true,
        ),
        ("public_key", "AAAA", false),
        ("smtp_host", "relay.example", true),
        ("smtp_host", "relay.example/x", false),
        ("smtp_host", "user@relay", false),
        ("smtp_port", "587", true),
        ("smtp_port", "0", false),
        ("smtp_port", "65536", false),
        ("smtp_security", "starttls", true),
        ("smtp_security", "none", false),
        ("display_name", "Jörgs Shop", true),
        ("display_name", "a\r\nb", false),
        ("smtp_from", "bounce@example.net", true),
        ("smtp_from", "<>", false),
    ] {
        assert_eq!(check(name, value), fits, "{name} {value:?}");
    }
}
