//! What mails say: every sample, and the corners that the samples leave out.

use data_encoding::BASE64;
use messaging::channels::{ChannelKind, Inbound, InboundBody};
use messaging::content::Content;
use messaging::ids::MessageId;

use sha2::{Digest, Sha256};

use super::support::{NOW, fixture, fixture_names, summary};
use super::{bridged, email, parsed, pieces, sample, verifier};

/// A sample's events. Those of SNS are read as the channel reads them once Amazon's signature is judged.
pub fn events(name: &str) -> Vec<Inbound> {
    if let Some(rest) = name.strip_prefix("sns-") {
        if rest == "subscription-confirmation.json" {
            return Vec::new();
        }
        return ses(fixture(ChannelKind::Email, name)["body"]["Message"].as_str().unwrap());
    }
    if name.starts_with("sendgrid") {
        let form = &fixture(ChannelKind::Email, name)["form"];
        let envelope = r#""sender":"customer@example.com","recipients":["support@example.net"],"verdicts":{"dkim":"pass","spf":"pass"}"#;
        return vec![email().parse(format!("{{\"source\":\"sendgrid\",{envelope}}}\n{form}").as_bytes()).unwrap()];
    }
    let (wire, provider) = sample(name);
    parsed(&pieces(wire.judged(&verifier(provider), None, NOW)))
}

/// What SES published under the samples' id.
pub fn ses(message: &str) -> Vec<Inbound> {
    let piece = |index: usize| format!("{{\"source\":\"ses\",\"id\":\"n1\",\"index\":{index}}}\n{message}");
    (0..).map_while(|index| email().parse(piece(index).as_bytes()).ok()).collect()
}

/// A mail through the bridge.
pub fn mail(raw: &str, envelope: &[(&str, &str)]) -> Vec<Inbound> {
    parsed(&pieces(bridged(raw.replace('\n', "\r\n").as_bytes(), envelope).judged(&verifier("bridge"), None, NOW)))
}

#[test]
fn every_sample() {
    assert_eq!(SAMPLES.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>(), fixture_names(ChannelKind::Email));
    for (name, wanted) in SAMPLES {
        let said: Vec<String> = events(name).iter().map(summary).collect();
        assert_eq!(said, *wanted, "{name}");
    }
}

const SAMPLES: &[(&str, &[&str])] = &[
    (
        "mailgun-inbound-attachments.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001","text":"Yes, please send it.\n\n> Do you want it?","html":"<p>Yes, please send it.</p>","to":["support@example.net"],"attachments":[{"mime_type":"image/png","sha256":"TEtqO+ExSrhhOL70MU3eAi5gCWDYaJosj4YxgC0g2rY=","size_bytes":8,"filename":"part.png"}]} to gw-1001@example.net | CAF0000000000000001@mail.example.com  | 0 | mail:customer@example.com | Test Customer | opens | {"recipients":["support@example.net"],"reply_text":"Yes, please send it."}"#,
        ],
    ),
    (
        "mailgun-inbound-mime.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001 ✓","text":"Yes, please send it. ✓\n\nOn Thu, 19 Nov 2026, support wrote:\n> Do you want it?","html":"<p>Yes, please send it. &#10003;</p>","to":["support@example.net"]} to gw-1001@example.net | CAF0000000000000001@mail.example.com  | 1795168798000 | mail:customer@example.com | Test Customer | opens | {"recipients":["support@example.net"],"references":["gw-1000@example.net","gw-1001@example.net"]}"#,
        ],
    ),
    (
        "mailgun-inbound.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001","text":"Yes, please send it.\n\n> Do you want it?","html":"<p>Yes, please send it.</p>","to":["support@example.net"]} to gw-1001@example.net | CAF0000000000000001@mail.example.com  | 0 | mail:customer@example.com | Test Customer | opens | {"recipients":["support@example.net"],"reply_text":"Yes, please send it."}"#,
        ],
    ),
    (
        "postmark-inbound-attachment.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001","text":"Yes, please send it.\n\n> Do you want it?","html":"<p>Yes, please send it.</p>","to":["abc123+conv1001@inbound.example.net"],"attachments":[{"mime_type":"image/png","sha256":"TEtqO+ExSrhhOL70MU3eAi5gCWDYaJosj4YxgC0g2rY=","size_bytes":8,"filename":"part.png"}]} to gw-1001@example.net | CAF0000000000000001@mail.example.com  | 1795168798000 | mail:customer@example.com | Test Customer | opens | {"mailbox_hash":"conv1001","recipients":["abc123+conv1001@inbound.example.net"],"reply_text":"Yes, please send it.","spf":"pass"}"#,
        ],
    ),
    (
        "postmark-inbound.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001","text":"Yes, please send it.\n\n> Do you want it?","html":"<p>Yes, please send it.</p>","to":["abc123+conv1001@inbound.example.net"]} to gw-1001@example.net | CAF0000000000000001@mail.example.com  | 1795168798000 | mail:customer@example.com | Test Customer | opens | {"mailbox_hash":"conv1001","recipients":["abc123+conv1001@inbound.example.net"],"reply_text":"Yes, please send it.","spf":"pass"}"#,
        ],
    ),
    (
        "raw-mime-bridge.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001 ✓","text":"Yes, please send it. ✓\n\nOn Thu, 19 Nov 2026, support wrote:\n> Do you want it?","html":"<p>Yes, please send it. &#10003;</p>","to":["support@example.net"]} to gw-1001@example.net | CAF0000000000000001@mail.example.com  | 1795168798000 | mail:customer@example.com | Test Customer | opens | {"recipients":["support@example.net"],"references":["gw-1000@example.net","gw-1001@example.net"]}"#,
        ],
    ),
    (
        "sendgrid-inbound.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001","text":"Yes, please send it.","html":"<p>Yes, please send it.</p>","to":["support@example.net"]} | CAF0000000000000001@mail.example.com  | 0 | mail:customer@example.com | Test Customer | opens | {"dkim":"pass","recipients":["support@example.net"],"spf":"pass"}"#,
        ],
    ),
    (
        "sns-ses-bounce.json",
        &[
            r#"status 0102018EXAMPLE-000000 failed bounce reason=recipient_invalid detail=Some("5.1.1 smtp; 550 5.1.1 user unknown") callback=None {"bounceSubType":"General","bounceType":"Permanent"} | n1 bounce gone@example.com | 1795168800000 | mail:gone@example.com"#,
            r#"reachable false | n1 bounce gone gone@example.com | 1795168800000 | mail:gone@example.com"#,
        ],
    ),
    (
        "sns-ses-complaint.json",
        &[
            r#"status 0102018EXAMPLE-000001 delivered complaint reason=none detail=Some("abuse") callback=None {} | n1 complaint angry@example.com | 1795168800000 | mail:angry@example.com"#,
            r#"preference opted_out=true complaint | n1 complaint preference angry@example.com | 1795168800000 | mail:angry@example.com"#,
        ],
    ),
    (
        "sns-ses-received-s3.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001","to":["support@example.net"]} | CAF0000000000000001@mail.example.com  | 1795168798000 | mail:customer@example.com | Test Customer | opens | {"dkim":"pass","dmarc":"pass","recipients":["support@example.net"],"spam":"pass","spf":"pass","stored":{"bucket":"inbound-mail-example","key":"o3vrnil0e2ic28tr0000000000000000000001"},"virus":"pass"}"#,
        ],
    ),
    (
        "sns-ses-received-with-content.json",
        &[
            r#"message "type":"email","email":{"subject":"Re: Order 1001 ✓","text":"Yes, please send it. ✓\n\nOn Thu, 19 Nov 2026, support wrote:\n> Do you want it?","html":"<p>Yes, please send it. &#10003;</p>","to":["support@example.net"]} to gw-1001@example.net | CAF0000000000000001@mail.example.com  | 1795168798000 | mail:customer@example.com | Test Customer | opens | {"dkim":"pass","dmarc":"pass","recipients":["support@example.net"],"references":["gw-1000@example.net","gw-1001@example.net"],"spam":"pass","spf":"pass","virus":"pass"}"#,
        ],
    ),
    ("sns-subscription-confirmation.json", &[]),
];

fn context(inbound: &Inbound, name: &str) -> String {
    inbound.context.get(name).map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// What machines write is marked, so that nobody answers it by itself; it opens nothing.
#[test]
fn automatic_mails_are_marked() {
    let own = format!("Message-ID: <{}@example.net>", MessageId([7; 16]));
    for (header, envelope, mark) in [
        ("X-Nothing: 1", "a@example.com", None),
        ("Auto-Submitted: no", "a@example.com", None),
        ("Auto-Submitted: auto-replied", "a@example.com", Some("auto_submitted")),
        ("auto-submitted: Auto-Generated; owner=x", "a@example.com", Some("auto_submitted")),
        ("Precedence: bulk", "a@example.com", Some("bulk")),
        ("Precedence: junk", "a@example.com", Some("bulk")),
        ("Precedence: list", "a@example.com", Some("list")),
        ("Precedence: auto_reply", "a@example.com", Some("auto_submitted")),
        ("List-Id: <news.example.com>", "a@example.com", Some("list")),
        ("List-Unsubscribe: <https://example.com/u>", "a@example.com", Some("list")),
        ("X-Auto-Response-Suppress: All", "a@example.com", Some("auto_submitted")),
        ("X-Nothing: 1", "<>", Some("null_sender")),
        ("X-Nothing: 1", "", Some("null_sender")),
        (own.as_str(), "a@example.com", Some("loop")),
    ] {
        let raw = format!("From: Ada <Ada@Example.com>\n{header}\nSubject: hi\n\nhello\n");
        let said = mail(&raw, &[("x-gateway-envelope-from", envelope)]).remove(0);
        let wanted = mark.map_or_else(|| "-".to_owned(), |mark| format!("\"{mark}\""));
        assert_eq!(context(&said, "automatic"), wanted, "{header} {envelope}");
        assert_eq!(said.opens_window, mark.is_none(), "{header}");
        assert_eq!(said.contact.handles[0].expose(), "mail:ada@example.com");
    }
}

/// A stranger's mail that bears one of our ids is told, and does not take that id's place.
#[test]
fn our_own_id_is_never_a_strangers() {
    let said = mail(&format!("From: a@example.com\nMessage-ID: <{}@example.net>\n\nhi\n", MessageId([7; 16])), &[]).remove(0);
    assert_eq!(said.platform_id, "");
    assert!(matches!(said.body, InboundBody::Message { .. }));
}

#[test]
fn answers_name_what_they_answer() {
    for (headers, answered, references) in [
        ("X-None: 1", None, "-"),
        ("In-Reply-To: <1@example.net>", Some("1@example.net"), "-"),
        ("In-Reply-To: your mail <1@example.net> of today", Some("1@example.net"), "-"),
        ("References: <0@example.net> <1@example.net>", Some("1@example.net"), r#"["0@example.net","1@example.net"]"#),
        (
            "References: <0@example.net>\n <1@example.net>\nIn-Reply-To: <2@example.net>",
            Some("2@example.net"),
            r#"["0@example.net","1@example.net"]"#,
        ),
        (
            "In-Reply-To: <0102018f8e5c8a3d-5b2c9e6a-1234-4abc-9def-0123456789ab-000000@eu-west-1.amazonses.com>",
            Some("0102018f8e5c8a3d-5b2c9e6a-1234-4abc-9def-0123456789ab-000000"),
            "-",
        ),
        ("In-Reply-To: <>", None, "-"),
    ] {
        let said = mail(&format!("From: a@example.com\n{headers}\n\nhi\n"), &[]).remove(0);
        let InboundBody::Message { reply_to, .. } = &said.body else { panic!("{:?}", said.body) };
        assert_eq!((reply_to.as_deref(), context(&said, "references").as_str()), (answered, references), "{headers}");
    }
}

fn content(said: &Inbound) -> messaging::content::Email {
    match &said.body {
        InboundBody::Message { content: Content::Email(email), .. } => email.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn charsets_encodings_and_files() {
    let raw = concat!(
        "From: =?iso-8859-1?Q?J=F6rg?= <j@example.com>\nTo: support@example.net, \"B, C\" <b@example.net>\nCc: c@example.net\n",
        "Reply-To: Other <other@example.com>\nSubject: =?utf-8?B?4pyTIG9r?=\nDate: Fri, 20 Nov 2026 10:59:58 +0100\n",
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n",
        "--m\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\ngr=FC=DFe=\n dich\n",
        "--m\nContent-Type: image/png; name=\"a.png\"\nContent-Disposition: attachment; filename=\"a.png\"\n",
        "Content-Transfer-Encoding: base64\n\niVBORw0KGgo=\n--m--\n",
    );
    let said = mail(raw, &[]).remove(0);
    assert_eq!(said.contact.name.as_deref(), Some("Jörg"));
    assert_eq!(said.at.as_secs(), NOW.as_secs() - 2);
    let email = content(&said);
    assert_eq!(email.subject.as_deref(), Some("✓ ok"));
    assert_eq!(email.text.as_deref().map(str::trim_end), Some("grüße dich"));
    assert_eq!(
        (email.to, email.cc),
        (vec!["support@example.net".to_owned(), "b@example.net".to_owned()], vec!["c@example.net".to_owned()])
    );
    assert_eq!(email.reply_to.as_deref(), Some("other@example.com"));
    let file = &email.attachments[0];
    assert_eq!((file.filename.as_deref(), file.mime_type.as_deref(), file.size_bytes), (Some("a.png"), Some("image/png"), Some(8)));
    let digest = BASE64.encode(&Sha256::digest(BASE64.decode(b"iVBORw0KGgo=").unwrap()));
    assert_eq!(file.sha256, Some(digest));
    assert!(file.link.is_none() && file.id.is_none());
}

/// Mails within mails within mails, and parts without end, are bounded: the head is told, marked as cut.
#[test]
fn bounds_of_mime() {
    let deep = format!("From: a@example.com\nSubject: deep\n{}hi\n", "Content-Type: message/rfc822\n\n".repeat(50_000));
    let many = format!("From: a@example.com\nSubject: many\nContent-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(60_000));
    for raw in [deep, many] {
        let said = mail(&raw, &[]).remove(0);
        assert_eq!(context(&said, "truncated"), "true");
        assert!(content(&said).subject.is_some() && content(&said).text.is_none());
    }
    let heads = format!("From: a@example.com\n{}\nhi\n", "X-A: b\n".repeat(20_000));
    let pieces = pieces(bridged(heads.as_bytes(), &[]).judged(&verifier("bridge"), None, NOW));
    assert!(pieces[0].is_unparsable());
    let long = format!("From: a@example.com\n\n{}", "é".repeat(200_000));
    let said = mail(&long, &[]).remove(0);
    assert_eq!((context(&said, "truncated").as_str(), content(&said).text.unwrap().len()), ("true", 256 * 1024));
}

/// Deep but within the bounds: taken apart without recursion, on a thread with little stack.
#[test]
fn nested_mails_need_no_stack() {
    let deep = format!("From: a@example.com\nSubject: deep\n{}hi\n", "Content-Type: message/rfc822\n\n".repeat(60));
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || mail(&deep, &[]).len()).unwrap();
    assert_eq!(thread.join().unwrap(), 1);
}
