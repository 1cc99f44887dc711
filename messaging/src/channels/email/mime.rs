//! Mails in MIME form, parsed within bounds.

use bytes::Bytes;
use data_encoding::BASE64;
use mail_parser::{Address, Message, MessageParser, MessagePart, MimeHeaders, PartType};
use sha2::{Digest, Sha256};

use super::bounce;
use super::mail::{Mail, NAMED_MAX, automatic};
use super::piece::Head;
use super::timestamp;
use crate::channels::Inbound;
use crate::content::Media;

/// Largest mail that is looked into, in bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Lines that may begin a part: each costs memory.
const PARTS_MAX: usize = 20_000;
/// Mails within mails.
const NESTED_MAX: usize = 64;
/// Lines of the head.
const HEAD_LINES_MAX: usize = 5_000;

/// A parsed mail that is taken apart without recursion: a stranger decides how deep mails lie within mails.
pub(super) struct Parsed<'x> {
    message: Message<'x>,
    /// Only its head was read.
    pub head_only: bool,
}

impl<'x> Parsed<'x> {
    /// Parses a mail; of one that is beyond the bounds only the head.
    pub fn read(raw: &'x [u8]) -> Option<Self> {
        let head_only = raw.len() > BYTES_MAX || part_lines(raw) > PARTS_MAX || nested(raw) > NESTED_MAX;
        let raw = if head_only { head_of(raw) } else { raw };
        if head_of(raw).split(|byte| *byte == b'\n').count() > HEAD_LINES_MAX {
            return None;
        }
        let parser = MessageParser::default();
        let message = if head_only { parser.parse_headers(raw) } else { parser.parse(raw) }?;
        Some(Self { message, head_only })
    }

    /// The mail.
    pub fn message(&self) -> &Message<'x> {
        &self.message
    }
}

impl Drop for Parsed<'_> {
    fn drop(&mut self) {
        let mut waiting = vec![std::mem::take(&mut self.message)];
        while let Some(mut message) = waiting.pop() {
            for part in &mut message.parts {
                if let PartType::Message(inner) = &mut part.body {
                    waiting.push(std::mem::take(inner));
                }
            }
        }
    }
}

fn part_lines(raw: &[u8]) -> usize {
    raw.windows(3).filter(|three| *three == b"\n--").count()
}

/// How often the mail may hold another one.
fn nested(raw: &[u8]) -> usize {
    let marks: [&[u8]; 3] = [b"rfc822", b"global", b"digest"];
    let begins = |six: &&[u8]| matches!(six[0] | 0x20, b'r' | b'g' | b'd');
    raw.windows(6).filter(begins).filter(|six| marks.iter().any(|mark| six.eq_ignore_ascii_case(mark))).count()
}

fn head_of(raw: &[u8]) -> &[u8] {
    let end = raw.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
    let end = end.into_iter().chain(raw.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)).min();
    &raw[..end.unwrap_or(raw.len())]
}

/// What a mail says: news of one of ours, or a message.
pub(super) fn said(head: &Head, raw: &[u8]) -> Option<Vec<Inbound>> {
    let parsed = Parsed::read(raw)?;
    if let Some(news) = bounce::report(&parsed) {
        return Some(news);
    }
    mail(head, &parsed)?.said(head).map(|one| vec![one])
}

fn mail(head: &Head, parsed: &Parsed<'_>) -> Option<Mail> {
    let message = parsed.message();
    let sender = head.sender.as_deref().or_else(|| raw_header(message, "Return-Path"));
    let from = message.from()?.first()?;
    let mut mail = Mail {
        id: raw_header(message, "Message-ID").map(str::to_owned),
        in_reply_to: raw_header(message, "In-Reply-To").map(str::to_owned),
        references: raw_header(message, "References").map(str::to_owned),
        from: Some((from.address()?.to_owned(), from.name().map(str::to_owned))),
        to: listed(message.to()),
        cc: listed(message.cc()),
        reply_to: message.reply_to().and_then(Address::first).and_then(|one| one.address()).map(str::to_owned),
        subject: message.subject().map(str::to_owned),
        at: message.date().map_or(crate::clock::Timestamp::ZERO, timestamp),
        automatic: automatic(|name| raw_header(message, name), sender),
        truncated: parsed.head_only,
        ..Mail::default()
    };
    if parsed.head_only {
        return Some(mail);
    }
    mail.text = bodies(message.text_bodies(), |part| match &part.body {
        PartType::Text(text) => Some(text),
        PartType::Html(_) | PartType::Binary(_) | PartType::InlineBinary(_) | PartType::Message(_) | PartType::Multipart(_) => None,
    });
    mail.html = bodies(message.html_bodies(), |part| match &part.body {
        PartType::Html(text) => Some(text),
        PartType::Text(_) | PartType::Binary(_) | PartType::InlineBinary(_) | PartType::Message(_) | PartType::Multipart(_) => None,
    });
    mail.attachments = message.attachments().take(NAMED_MAX + 1).map(attachment).collect();
    Some(mail)
}

/// The bytes of what is attached, in the order of `Mail::attachments`.
pub(super) fn files(raw: &[u8]) -> Vec<Bytes> {
    let Some(parsed) = Parsed::read(raw).filter(|parsed| !parsed.head_only) else { return Vec::new() };
    parsed.message().attachments().take(NAMED_MAX).map(|part| Bytes::copy_from_slice(part.contents())).collect()
}

/// A header as it stands, trimmed.
pub(super) fn raw_header<'m>(message: &'m Message<'_>, name: &str) -> Option<&'m str> {
    // `header_raw` wants a name that lives as long as the mail.
    let found = message.headers().iter().rev().find(|header| header.name().eq_ignore_ascii_case(name))?;
    let bytes = message.raw_message.get(found.offset_start as usize..found.offset_end as usize)?;
    std::str::from_utf8(bytes).ok().map(str::trim)
}

fn listed(addresses: Option<&Address<'_>>) -> Vec<String> {
    let all = addresses.into_iter().flat_map(Address::iter);
    all.filter_map(|one| one.address()).map(str::to_owned).take(NAMED_MAX).collect()
}

fn bodies<'m>(
    parts: impl Iterator<Item = &'m MessagePart<'m>>,
    text: impl Fn(&'m MessagePart<'m>) -> Option<&'m std::borrow::Cow<'m, str>>,
) -> Option<String> {
    let mut out = String::new();
    for part in parts.take(NAMED_MAX) {
        let Some(text) = text(part) else { continue };
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(text);
    }
    (!out.is_empty()).then_some(out)
}

fn attachment(part: &MessagePart<'_>) -> Media {
    let kind = part.content_type().map(|kind| match kind.subtype() {
        Some(subtype) => format!("{}/{subtype}", kind.ctype()),
        None => kind.ctype().to_owned(),
    });
    file(part.attachment_name(), kind, part.contents())
}

/// What is told of a file that came with a mail. Its bytes stay where they are.
pub(super) fn file(name: Option<&str>, kind: Option<String>, bytes: &[u8]) -> Media {
    Media {
        mime_type: kind.map(|kind| kind.chars().filter(|c| !c.is_control()).take(128).collect()),
        sha256: Some(BASE64.encode(&Sha256::digest(bytes))),
        size_bytes: Some(bytes.len() as u64),
        filename: name.map(|name| name.chars().filter(|c| !c.is_control()).take(255).collect()),
        ..Media::default()
    }
}
