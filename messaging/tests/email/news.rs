//! Reports, bounces and complaints, of every provider.

use bytes::Bytes;
use data_encoding::BASE64;
use messaging::ids::MessageId;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::parse::{mail, ses};
use super::support::{NOW, account, summary};
use super::{SECRET, Wire, mac, parsed, pieces, sample, verifier};
use messaging::channels::{ChannelKind, Inbound};

fn ours() -> String {
    MessageId([7; 16]).to_string()
}

/// What an event says, in short: body and whom it concerns.
fn told(said: &[Inbound]) -> Vec<String> {
    said.iter().map(summary).map(|line| line.replace(&ours(), "OURS")).collect()
}

fn report(recipients: &str, original: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example.net\nTo: shop@example.net\nMessage-ID: <dsn1@mx.example.net>\nAuto-Submitted: auto-replied\n\
         Date: Fri, 20 Nov 2026 10:00:00 +0000\nSubject: Undelivered\nMIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"r\"\n\n\
         --r\nContent-Type: text/plain\n\nSorry.\n\
         --r\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\n{recipients}\n--r\n{original}\n--r--\n"
    )
}

const GONE: &str = "Final-Recipient: rfc822; Gone@example.com\nAction: failed\nStatus: 5.1.1\n\
                    Diagnostic-Code: smtp; 550 5.1.1 <gone@example.com>\n User unknown\n";

#[test]
fn delivery_reports() {
    let whole = format!("Content-Type: message/rfc822\n\nMessage-ID: <{}@example.net>\nTo: gone@example.com\nSubject: hi\n\nhello", ours());
    let head = format!("Content-Type: text/rfc822-headers\n\nMessage-ID: <else@ses>\nX-Trunkline-Message: {}\n", ours());
    let failed = |mail: &str, callback: &str| {
        let detail = r#"detail=Some("5.1.1 smtp; 550 5.1.1 (address) User unknown")"#;
        format!(
            "status {mail} failed failed reason=recipient_invalid {detail} callback={callback} {{}} | dsn1@mx.example.net failed gone@example.com | 1795168800000 | mail:gone@example.com"
        )
    };
    assert_eq!(told(&mail(&report(GONE, &whole), &[])), [failed("OURS@example.net", "Some(\"OURS\")")]);
    assert_eq!(told(&mail(&report(GONE, &head), &[])), [failed("else@ses", "Some(\"OURS\")")]);
    assert_eq!(told(&mail(&report(GONE, "Content-Type: text/plain\n\nnothing"), &[])), [failed("", "None")]);

    let several = "Final-Recipient: rfc822;a@example.com\nAction: delayed\nStatus: 4.4.1\n\n\
                   Final-Recipient: rfc822;b@example.com\nAction: delivered\nStatus: 2.0.0\n\n\
                   Original-Recipient: rfc822;c@example.com\nAction: relayed\nStatus: 2.0.0\n\n\
                   Final-Recipient: rfc822;d@example.com\nAction: failed\nStatus: 5.2.2\n\n\
                   Final-Recipient: rfc822;e@example.com\nAction: failed\nStatus: 5.7.1\n";
    let said = mail(&report(several, &whole), &[]);
    let short: Vec<String> =
        told(&said).iter().map(|line| line.split(" detail=").next().unwrap().split(" | dsn1").next().unwrap().to_owned()).collect();
    assert_eq!(
        short,
        [
            r#"platform delayed {"diagnostic":"","status":"4.4.1"}"#,
            "status OURS@example.net delivered delivered reason=none",
            "status OURS@example.net sent relayed reason=none",
            "status OURS@example.net failed failed reason=quota_exceeded",
            "status OURS@example.net failed failed reason=rejected",
        ]
    );
    let keyed: Vec<&str> = said.iter().map(|one| one.contact.handles[0].expose()).collect();
    assert_eq!(keyed, ["mail:a@example.com", "mail:b@example.com", "mail:c@example.com", "mail:d@example.com", "mail:e@example.com"]);
}

/// A report that says nothing of a delivery is a mail like any other, marked as a machine's.
#[test]
fn a_report_without_recipients_is_a_mail() {
    let said = mail(&report("X-Nothing: 1\n", "Content-Type: text/plain\n\nx"), &[]);
    assert!(told(&said)[0].starts_with("message "), "{said:?}");
    assert_eq!(said[0].context["automatic"], "auto_submitted");
}

#[test]
fn feedback_reports() {
    let raw = format!(
        "From: fbl@isp.example\nMessage-ID: <f1@isp.example>\nMIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=r\n\n--r\nContent-Type: text/plain\n\nSpam!\n\
         --r\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nOriginal-Rcpt-To: angry@example.com\n\n\
         --r\nContent-Type: message/rfc822\n\nMessage-ID: <{}@example.net>\nTo: angry@example.com\n\nhi\n--r--\n",
        ours()
    );
    assert_eq!(
        told(&mail(&raw, &[])),
        [
            "status OURS@example.net delivered abuse reason=none detail=None callback=Some(\"OURS\") {} | f1@isp.example abuse angry@example.com | 0 | mail:angry@example.com"
        ]
    );
}

#[test]
fn ses_tells() {
    let mail = json!({ "messageId": "0102-1", "destination": ["a@example.com"], "timestamp": "2026-11-20T10:00:00.000Z",
                       "headers": [{ "name": "X-Trunkline-Message", "value": ours() }] });
    let at = "2026-11-20T10:00:00.000Z";
    for (notice, wanted) in [
        (
            json!({ "notificationType": "Delivery", "mail": mail, "delivery": { "timestamp": at, "recipients": ["a@example.com"], "smtpResponse": "250 ok a@example.com" } }),
            vec![
                r#"status 0102-1 delivered delivery reason=none detail=Some("250 ok (address)") callback=Some("OURS") {} | n1 delivery a@example.com | 1795168800000 | mail:a@example.com"#,
            ],
        ),
        (
            json!({ "eventType": "Bounce", "mail": mail, "bounce": { "bounceType": "Transient", "bounceSubType": "MailboxFull", "timestamp": at, "bouncedRecipients": [{ "emailAddress": "a@example.com", "status": "4.2.2" }] } }),
            vec![
                r#"status 0102-1 failed bounce reason=quota_exceeded detail=Some("4.2.2") callback=Some("OURS") {"bounceSubType":"MailboxFull","bounceType":"Transient"} | n1 bounce a@example.com | 1795168800000 | mail:a@example.com"#,
            ],
        ),
        (
            json!({ "eventType": "Reject", "mail": mail, "reject": { "reason": "Bad content" } }),
            vec![
                r#"status 0102-1 failed reject reason=rejected detail=Some("Bad content") callback=Some("OURS") {} | n1 reject a@example.com | 1795168800000 | mail:a@example.com"#,
            ],
        ),
        (json!({ "eventType": "Open", "x": 1 }), vec![r#"platform Open {"eventType":"Open","x":1} | n1  | 0 | account:"#]),
        (
            json!({ "notificationType": "Received", "mail": { "messageId": "m1" } }),
            vec![r#"platform Received {"mail":{"messageId":"m1"},"notificationType":"Received"} | n1  | 0 | account:"#],
        ),
        (json!({ "text": "hello" }), vec![r#"platform sns {"text":"hello"} | n1  | 0 | account:"#]),
    ] {
        assert_eq!(told(&ses(&notice.to_string())), wanted, "{notice}");
    }
}

fn mailgun(data: &Value) -> Vec<Inbound> {
    let (time, token) = (NOW.as_secs().to_string(), "t".repeat(50));
    let signature = mac(SECRET, &[time.as_bytes(), token.as_bytes()]);
    let body = json!({ "signature": { "timestamp": time, "token": token, "signature": signature }, "event-data": data });
    parsed(&pieces(Wire::new(&[("content-type", "application/json")], body.to_string()).judged(&verifier("mailgun"), None, NOW)))
}

#[test]
fn mailgun_tells() {
    for (event, more, wanted) in [
        ("delivered", json!({}), &["status delivered none"][..]),
        ("failed", json!({ "severity": "permanent", "reason": "bounce" }), &["status failed recipient_invalid", "reachable false"]),
        (
            "failed",
            json!({ "severity": "permanent", "reason": "suppress-bounce" }),
            &["status failed recipient_invalid", "reachable false"],
        ),
        ("failed", json!({ "severity": "permanent", "reason": "suppress-complaint" }), &["status failed opted_out"]),
        ("failed", json!({ "severity": "permanent", "reason": "generic" }), &["status failed rejected"]),
        ("failed", json!({ "severity": "temporary", "reason": "generic" }), &["platform failed"]),
        ("rejected", json!({}), &["status failed rejected"]),
        ("complained", json!({}), &["status delivered none", "preference opted_out=true"]),
        ("unsubscribed", json!({}), &["preference opted_out=true"]),
        ("opened", json!({}), &["platform opened"]),
        ("of-tomorrow", json!({}), &["platform of-tomorrow"]),
    ] {
        let mut data = json!({ "event": event, "id": "e1", "timestamp": 1_795_168_800.25, "recipient": "Ada@example.com",
            "message": { "headers": { "message-id": format!("{}@example.net", ours()) } },
            "delivery-status": { "code": 550, "message": "5.1.1 no <ada@example.com>" } });
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        check_short(&mailgun(&data), wanted, event);
    }
}

/// Compares kind and reason of each event; all are keyed by the person.
fn check_short(said: &[Inbound], wanted: &[&str], what: &str) {
    assert_eq!(said.len(), wanted.len(), "{what}: {said:?}");
    for (one, wanted) in said.iter().zip(wanted) {
        let line = told(std::slice::from_ref(one)).remove(0);
        assert_eq!(one.contact.handles[0].expose(), "mail:ada@example.com", "{what}");
        match wanted.split(' ').collect::<Vec<_>>()[..] {
            ["status", status, reason] => {
                assert!(line.starts_with(&format!("status OURS@example.net {status} ")), "{what}: {line}");
                assert!(line.contains(&format!("reason={reason} ")) && line.contains("callback=Some(\"OURS\")"), "{what}: {line}");
                assert!(!line.split(" | ").next().unwrap().contains("ada@"), "{what}: {line}");
            }
            _ => assert!(line.starts_with(wanted), "{what}: {line}"),
        }
    }
}

#[test]
fn postmark_tells() {
    let basic = sample("postmark-inbound.json").0.headers;
    for (record, wanted) in [
        (json!({ "RecordType": "Delivery", "Recipient": "ada@example.com" }), &["status delivered none"][..]),
        (
            json!({ "RecordType": "Bounce", "Type": "HardBounce", "Email": "ada@example.com", "ID": 42 }),
            &["status failed recipient_invalid", "reachable false"],
        ),
        (json!({ "RecordType": "Bounce", "Type": "SoftBounce", "Email": "ada@example.com" }), &["status failed rejected"]),
        (json!({ "RecordType": "Bounce", "Type": "Transient", "Email": "ada@example.com" }), &["platform Transient"]),
        (json!({ "RecordType": "Bounce", "Type": "AutoResponder", "Email": "ada@example.com" }), &["platform AutoResponder"]),
        (
            json!({ "RecordType": "SpamComplaint", "Type": "SpamComplaint", "Email": "ada@example.com" }),
            &["status delivered none", "preference opted_out=true"],
        ),
        (
            json!({ "RecordType": "SubscriptionChange", "Recipient": "ada@example.com", "SuppressSending": true }),
            &["preference opted_out=true"],
        ),
        (
            json!({ "RecordType": "SubscriptionChange", "Recipient": "ada@example.com", "SuppressSending": false }),
            &["preference opted_out=false"],
        ),
        (json!({ "RecordType": "Open", "Recipient": "ada@example.com" }), &["platform Open"]),
    ] {
        let mut record = record;
        record["Metadata"] = json!({ "trunkline": ours() });
        record["MessageID"] = json!(format!("{}@example.net", ours()));
        let wire = Wire { headers: basic.clone(), body: Bytes::from(record.to_string()) };
        check_short(&parsed(&pieces(wire.judged(&verifier("postmark"), None, NOW))), wanted, &record.to_string());
    }
}

#[test]
fn postmark_with_the_whole_mail_goes_the_one_way() {
    let (mut wire, _) = sample("postmark-inbound.json");
    let raw = "From: Ada <ada@example.com>\r\nMessage-ID: <1@example.com>\r\nSubject: raw\r\n\r\nhi\r\n";
    let mut body: Value = serde_json::from_slice(&wire.body).unwrap();
    body["RawEmail"] = json!(raw);
    wire.body = Bytes::from(body.to_string());
    let said = parsed(&pieces(wire.judged(&verifier("postmark"), None, NOW)));
    assert_eq!((said[0].platform_id.as_str(), said[0].contact.handles[0].expose()), ("1@example.com", "mail:ada@example.com"));
}

/// A key of our own, since SendGrid's signs nothing for us.
struct Signer(EcdsaKeyPair, SystemRandom);

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).unwrap(), random)
    }

    fn verifier(&self) -> messaging::channels::Verifier {
        let prefix = data_encoding::HEXLOWER.decode(b"3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        let key = BASE64.encode(&[&prefix, self.0.public_key().as_ref()].concat());
        account(ChannelKind::Email, &[("provider", "sendgrid"), ("public_key", &key)]).verifier
    }

    fn signed(&self, content_type: &str, body: Bytes) -> Wire {
        let time = NOW.as_secs().to_string();
        let signature = BASE64.encode(self.0.sign(&self.1, &[time.as_bytes(), &body].concat()).unwrap().as_ref());
        let (sign, stamp) = ("x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp");
        Wire::new(&[("content-type", content_type), (sign, &signature), (stamp, &time)], body)
    }
}

#[test]
fn sendgrid_tells() {
    let signer = Signer::new();
    let event = |word: &str, more: Value| {
        let mut event = json!({ "event": word, "email": "ada@example.com", "timestamp": 1_795_168_800, "sg_event_id": word,
                                "smtp-id": format!("<{}@example.net>", ours()) });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let cases = [
        (event("delivered", json!({})), &["status delivered none"][..]),
        (event("bounce", json!({ "type": "bounce", "status": "5.1.1" })), &["status failed recipient_invalid", "reachable false"]),
        (event("bounce", json!({ "type": "blocked", "status": "5.7.1" })), &["status failed rejected"]),
        (event("dropped", json!({ "reason": "Bounced Address" })), &["status failed recipient_invalid", "reachable false"]),
        (event("dropped", json!({ "reason": "Unsubscribed Address" })), &["status failed opted_out"]),
        (event("dropped", json!({ "reason": "Invalid SMTPAPI header" })), &["status failed rejected"]),
        (event("spamreport", json!({})), &["status delivered none", "preference opted_out=true"]),
        (event("unsubscribe", json!({})), &["preference opted_out=true"]),
        (event("group_resubscribe", json!({})), &["preference opted_out=false"]),
        (event("deferred", json!({})), &["platform deferred"]),
    ];
    let body = Bytes::from(Value::from(cases.iter().map(|(event, _)| event.clone()).collect::<Vec<_>>()).to_string());
    let said = parsed(&pieces(signer.signed("application/json", body).judged(&signer.verifier(), None, NOW)));
    let mut at = 0;
    for (event, wanted) in &cases {
        check_short(&said[at..at + wanted.len()], wanted, &event.to_string());
        at += wanted.len();
    }
    assert_eq!(at, said.len());
}

#[test]
fn sendgrids_form_goes_through_the_signature() {
    let signer = Signer::new();
    let sample = super::support::fixture(ChannelKind::Email, "sendgrid-inbound.json");
    let content_type = sample["headers"]["content-type"].as_str().unwrap();
    let wire = signer.signed(content_type, super::form(&sample, content_type));
    let said = parsed(&pieces(wire.judged(&signer.verifier(), None, NOW)));
    assert_eq!(said, super::parse::events("sendgrid-inbound.json"));
    let mut forged = wire.clone();
    forged.body = Bytes::from([&wire.body[..], b" "].concat());
    assert!(forged.judged(&signer.verifier(), None, NOW).is_err());
    assert!(wire.judged(&Signer::new().verifier(), None, NOW).is_err());
    let raw = format!(
        "--xYzZY\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\n{}\r\n--xYzZY--\r\n",
        "From: a@example.com\r\nSubject: =?x\r\n\r\nhi"
    );
    let said = parsed(&pieces(signer.signed(content_type, Bytes::from(raw)).judged(&signer.verifier(), None, NOW)));
    assert_eq!(said[0].contact.handles[0].expose(), "mail:a@example.com");
    let latin = [b"--xYzZY\r\nContent-Disposition: form-data; name=\"from\"\r\n\r\na@example.com\r\n--xYzZY\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\ngr\xfc\xdfe\r\n--xYzZY\r\nContent-Disposition: form-data; name=\"charsets\"\r\n\r\n{\"text\":\"iso-8859-1\"}\r\n--xYzZY--\r\n".as_slice()].concat();
    let said = parsed(&pieces(signer.signed(content_type, Bytes::from(latin)).judged(&signer.verifier(), None, NOW)));
    assert!(summary(&said[0]).contains("grüße"), "{said:?}");
}
