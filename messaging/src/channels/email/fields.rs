//! Mails that a provider has taken apart: Mailgun's and SendGrid's fields, Postmark's JSON.

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::{Message, MessageParser};
use serde_json::{Map, Value, json};

use super::address::lenient;
use super::form::Form;
use super::mail::{Mail, NAMED_MAX, automatic};
use super::piece::Head;
use super::{date, events, mime};
use crate::channels::Inbound;
use crate::clock::Timestamp;
use crate::content::Media;

/// Headers that are looked at of those that a provider gives.
const HEADERS_MAX: usize = 500;

/// Headers as names and values.
type Headers = Vec<(String, String)>;

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or("")
}

fn owned(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.to_owned())
}

fn header<'h>(headers: &'h Headers, name: &str) -> Option<&'h str> {
    headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// What of Mailgun's form goes on: its texts, and what is told of its files.
pub(super) fn of_mailgun_form(form: &Form) -> Value {
    const TEXTS: &[&str] = &[
        "sender",
        "from",
        "subject",
        "body-plain",
        "body-html",
        "stripped-text",
        "Message-Id",
        "In-Reply-To",
        "References",
        "message-headers",
    ];
    let mut out = Map::new();
    for name in TEXTS {
        if let Some(text) = form.text(name) {
            out.insert((*name).to_owned(), text.into());
        }
    }
    out.insert("files".to_owned(), files(form));
    Value::Object(out)
}

fn files(form: &Form) -> Value {
    let told = form.files().take(NAMED_MAX).map(|file| mime::file(file.filename.as_deref(), file.content_type.clone(), &file.bytes));
    json!(told.collect::<Vec<_>>())
}

fn attachments(value: &Value) -> Vec<Media> {
    value.as_array().into_iter().flatten().take(NAMED_MAX).filter_map(|one| serde_json::from_value(one.clone()).ok()).collect()
}

/// A mail as Mailgun tells it.
pub(super) fn mailgun(head: &Head, said: &Value) -> Option<Vec<Inbound>> {
    let headers = pairs(text(said, "message-headers"));
    let of = |name: &str| owned(text(said, name)).or_else(|| header(&headers, name).map(str::to_owned));
    let mail = Mail {
        id: of("Message-Id"),
        in_reply_to: of("In-Reply-To"),
        references: of("References"),
        from: of("from").and_then(|from| mailbox(&from)).or_else(|| Some((lenient(text(said, "sender"))?, None))),
        to: header(&headers, "To").map(mailboxes).unwrap_or_default(),
        cc: header(&headers, "Cc").map(mailboxes).unwrap_or_default(),
        reply_to: header(&headers, "Reply-To").and_then(|to| mailboxes(to).into_iter().next()),
        subject: owned(text(said, "subject")),
        text: owned(text(said, "body-plain")),
        stripped: owned(text(said, "stripped-text")),
        html: owned(text(said, "body-html")),
        attachments: attachments(&said["files"]),
        at: header(&headers, "Date").and_then(date).unwrap_or(Timestamp::ZERO),
        automatic: automatic(|name| header(&headers, name), said.get("sender").and_then(Value::as_str)),
        truncated: false,
    };
    mail.said(head).map(|one| vec![one])
}

/// `[["Name","value"],…]` in a string.
fn pairs(json: &str) -> Headers {
    let pairs: Vec<(String, String)> = serde_json::from_str(json).unwrap_or_default();
    pairs.into_iter().take(HEADERS_MAX).collect()
}

/// What of SendGrid's form goes on.
pub(super) fn of_sendgrid_form(form: &Form) -> Value {
    let charsets: Value = form.bytes("charsets").and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(Value::Null);
    let mut out = Map::new();
    for name in ["headers", "text", "html", "from", "to", "cc", "subject"] {
        let Some(bytes) = form.bytes(name) else { continue };
        let decoder = charsets.get(name).and_then(Value::as_str).and_then(|charset| charset_decoder(charset.as_bytes()));
        let text = decoder.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), |decode| decode(bytes));
        out.insert(name.to_owned(), text.into());
    }
    out.insert("files".to_owned(), files(form));
    Value::Object(out)
}

/// A mail as SendGrid tells it.
pub(super) fn sendgrid(head: &Head, said: &Value) -> Option<Vec<Inbound>> {
    let raw = text(said, "headers");
    let headers: Headers = unfolded(raw);
    let of = |name: &str| header(&headers, name).map(str::to_owned);
    let mail = Mail {
        id: of("Message-ID"),
        in_reply_to: of("In-Reply-To"),
        references: of("References"),
        from: owned(text(said, "from")).and_then(|from| mailbox(&from)).or_else(|| mailbox(header(&headers, "From")?)),
        to: mailboxes(text(said, "to")),
        cc: mailboxes(text(said, "cc")),
        reply_to: header(&headers, "Reply-To").and_then(|to| mailboxes(to).into_iter().next()),
        subject: owned(text(said, "subject")),
        text: owned(text(said, "text")),
        stripped: None,
        html: owned(text(said, "html")),
        attachments: attachments(&said["files"]),
        at: header(&headers, "Date").and_then(date).unwrap_or(Timestamp::ZERO),
        automatic: automatic(|name| header(&headers, name), head.sender.as_deref()),
        truncated: false,
    };
    mail.said(head).map(|one| vec![one])
}

fn unfolded(raw: &str) -> Headers {
    let mut out: Headers = Vec::new();
    for line in raw.lines().take(HEADERS_MAX * 8) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = out.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':').filter(|_| out.len() < HEADERS_MAX) {
            out.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    out
}

/// What of Postmark's JSON goes on: everything but the files' bytes.
pub(super) fn of_postmark(mut said: Value) -> Value {
    if let Some(attachments) = said.get_mut("Attachments").and_then(Value::as_array_mut) {
        attachments.truncate(NAMED_MAX);
        for one in attachments {
            let bytes = data_encoding::BASE64.decode(text(one, "Content").as_bytes()).unwrap_or_default();
            *one = json!(mime::file(one["Name"].as_str(), one["ContentType"].as_str().map(str::to_owned), &bytes));
        }
    }
    said
}

/// A mail or news as Postmark tells it.
pub(super) fn postmark(head: &Head, said: &Value) -> Option<Vec<Inbound>> {
    if said.get("RecordType").is_some() {
        return events::postmark(said);
    }
    let listed = said["Headers"].as_array().into_iter().flatten().take(HEADERS_MAX);
    let headers: Headers = listed.map(|one| (text(one, "Name").to_owned(), text(one, "Value").to_owned())).collect();
    let of = |name: &str| header(&headers, name).map(str::to_owned);
    let full = |name: &str| {
        let all = said[name].as_array().into_iter().flatten().take(NAMED_MAX);
        all.filter_map(|one| owned(text(one, "Email"))).collect::<Vec<_>>()
    };
    let from = owned(text(&said["FromFull"], "Email")).or_else(|| owned(text(said, "From")))?;
    let name = owned(text(&said["FromFull"], "Name")).or_else(|| owned(text(said, "FromName")));
    let mut head = head.clone();
    head.recipients.extend(lenient(text(said, "OriginalRecipient")));
    let spf = header(&headers, "Received-SPF").and_then(|verdict| verdict.split_whitespace().next());
    if let Some(spf) = spf {
        head.verdicts.insert("spf".to_owned(), spf.to_ascii_lowercase().into());
    }
    if header(&headers, "X-Spam-Status").is_some_and(|spam| spam.trim_start().to_ascii_lowercase().starts_with("yes")) {
        head.verdicts.insert("spam".to_owned(), "fail".into());
    }
    if let Some(hash) = owned(text(said, "MailboxHash")) {
        head.verdicts.insert("mailbox_hash".to_owned(), hash.into());
    }
    let mail = Mail {
        id: of("Message-ID").or_else(|| owned(text(said, "MessageID"))),
        in_reply_to: of("In-Reply-To"),
        references: of("References"),
        from: Some((from, name)),
        to: full("ToFull"),
        cc: full("CcFull"),
        reply_to: mailboxes(text(said, "ReplyTo")).into_iter().next(),
        subject: owned(text(said, "Subject")),
        text: owned(text(said, "TextBody")),
        stripped: owned(text(said, "StrippedTextReply")),
        html: owned(text(said, "HtmlBody")),
        attachments: attachments(&said["Attachments"]),
        at: date(text(said, "Date")).unwrap_or(Timestamp::ZERO),
        automatic: automatic(|name| header(&headers, name), header(&headers, "Return-Path")),
        truncated: false,
    };
    mail.said(&head).map(|one| vec![one])
}

/// Address and name of the first mailbox in a header's value.
fn mailbox(value: &str) -> Option<(String, Option<String>)> {
    with_addresses(value, |message| {
        let one = message.from()?.first()?;
        Some((one.address()?.to_owned(), one.name().map(str::to_owned)))
    })
}

fn mailboxes(value: &str) -> Vec<String> {
    let all = with_addresses(value, |message| {
        let all = message.from()?.iter().filter_map(|one| one.address()).take(NAMED_MAX);
        Some(all.map(str::to_owned).collect())
    });
    all.unwrap_or_default()
}

/// Reads a header's value as a list of addresses, by the one parser that knows all their forms.
fn with_addresses<T>(value: &str, take: impl FnOnce(&Message<'_>) -> Option<T>) -> Option<T> {
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let raw = format!("From: {value}\r\n\r\n");
    take(&MessageParser::default().parse_headers(raw.as_bytes())?)
}
