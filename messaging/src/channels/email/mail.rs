//! A mail, whoever brought it, and the event that it becomes.

use serde_json::{Map, Value, json};

use super::address::{handle, lenient, mail_id, mail_ids, own};
use super::piece::Head;
use crate::channels::{ContactInfo, Inbound, InboundBody};
use crate::clock::Timestamp;
use crate::content::{Content, Email, Media};

/// Longest text that goes on, in bytes. What is longer is cut and marked.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Longest HTML that goes on, in bytes.
const HTML_BYTES_MAX: usize = 512 * 1024;
/// Longest subject or name, in characters.
const LINE_CHARS_MAX: usize = 998;
/// Recipients, references and attachments that are named.
pub(super) const NAMED_MAX: usize = 100;

/// A mail.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Its id, as its header says it.
    pub id: Option<String>,
    /// `In-Reply-To`.
    pub in_reply_to: Option<String>,
    /// `References`.
    pub references: Option<String>,
    /// Who wrote: address and name.
    pub from: Option<(String, Option<String>)>,
    /// To whom.
    pub to: Vec<String>,
    /// To whom else.
    pub cc: Vec<String>,
    /// Where answers are wanted.
    pub reply_to: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The text.
    pub text: Option<String>,
    /// The text without what it quotes, where the provider finds it.
    pub stripped: Option<String>,
    /// The HTML.
    pub html: Option<String>,
    /// What is attached.
    pub attachments: Vec<Media>,
    /// When it was written, by its own word; `ZERO`: it says none.
    pub at: Timestamp,
    /// Why it is no person's word.
    pub automatic: Option<&'static str>,
    /// It could not be read whole.
    pub truncated: bool,
}

impl Mail {
    /// The event; none when nobody wrote it.
    pub fn said(mut self, head: &Head) -> Option<Inbound> {
        let (address, name) = self.from.take()?;
        let address = lenient(&address)?;
        let mut context = head.verdicts.clone();
        let id = self.id.as_deref().and_then(mail_id);
        // A mail of ours that comes back (a forwarding rule, a copy to the mailbox itself). It must not take our id's place.
        let is_ours = id.as_deref().is_some_and(|id| own(id).is_some());
        let automatic = if is_ours { Some("loop") } else { self.automatic };
        if let Some(why) = automatic {
            context.insert("automatic".to_owned(), why.into());
        }
        let references = self.references.as_deref().map(mail_ids).unwrap_or_default();
        let answered = self.in_reply_to.as_deref().and_then(|ids| mail_ids(ids).into_iter().next()).or_else(|| references.last().cloned());
        self.cut();
        self.put_context(head, &references, &mut context);
        let content = Content::Email(Email {
            subject: self.subject.map(|subject| cut_line(&subject)),
            text: self.text,
            html: self.html,
            to: addresses(self.to),
            cc: addresses(self.cc),
            bcc: Vec::new(),
            reply_to: self.reply_to.and_then(|address| lenient(&address)),
            attachments: self.attachments,
            unsubscribe: None,
        });
        let name = name.map(|name| cut_line(name.trim())).filter(|name| !name.is_empty());
        Some(Inbound {
            platform_id: if is_ours { String::new() } else { id.or_else(|| head.id.clone()).unwrap_or_default() },
            qualifier: String::new(),
            at: self.at,
            contact: ContactInfo { handles: vec![handle(&address)], name, ..ContactInfo::default() },
            opens_window: automatic.is_none(),
            from_ad: false,
            body: InboundBody::Message { content, reply_to: answered },
            context,
        })
    }

    fn cut(&mut self) {
        for text in [&mut self.text, &mut self.html, &mut self.stripped].into_iter().flatten() {
            // Lines end in mails with two characters, everywhere else with one.
            if text.contains('\r') {
                *text = text.replace("\r\n", "\n");
            }
        }
        self.truncated |= cut_text(&mut self.text, TEXT_BYTES_MAX);
        self.truncated |= cut_text(&mut self.html, HTML_BYTES_MAX);
        self.truncated |= cut_text(&mut self.stripped, TEXT_BYTES_MAX);
        if self.attachments.len() > NAMED_MAX {
            self.attachments.truncate(NAMED_MAX);
            self.truncated = true;
        }
    }

    fn put_context(&mut self, head: &Head, references: &[String], context: &mut Map<String, Value>) {
        if !references.is_empty() {
            // The newest count.
            let newest = &references[references.len().saturating_sub(NAMED_MAX)..];
            context.insert("references".to_owned(), json!(newest));
        }
        let stripped = self.stripped.take().filter(|stripped| !stripped.is_empty() && Some(stripped) != self.text.as_ref());
        if let Some(stripped) = stripped {
            context.insert("reply_text".to_owned(), stripped.into());
        }
        if !head.recipients.is_empty() {
            context.insert("recipients".to_owned(), json!(head.recipients));
        }
        if self.truncated {
            context.insert("truncated".to_owned(), true.into());
        }
    }
}

fn addresses(texts: Vec<String>) -> Vec<String> {
    texts.iter().filter_map(|text| lenient(text)).take(NAMED_MAX).collect()
}

fn cut_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LINE_CHARS_MAX).collect()
}

/// Cuts at a character; says whether something was lost. Empty texts are none.
fn cut_text(text: &mut Option<String>, max: usize) -> bool {
    if text.as_ref().is_some_and(String::is_empty) {
        *text = None;
    }
    let Some(text) = text.as_mut().filter(|text| text.len() > max) else { return false };
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    true
}

/// Why a mail with these headers is no person's word: then nobody may answer it by itself (RFC 3834).
pub(super) fn automatic<'h>(header: impl Fn(&str) -> Option<&'h str>, sender: Option<&str>) -> Option<&'static str> {
    if sender.is_some_and(|sender| sender.trim().trim_matches(['<', '>']).is_empty()) {
        return Some("null_sender");
    }
    if header("Auto-Submitted").is_some_and(|value| !value.trim().to_ascii_lowercase().starts_with("no")) {
        return Some("auto_submitted");
    }
    let precedence = header("Precedence").map(|value| value.trim().to_ascii_lowercase());
    match precedence.as_deref() {
        Some("bulk" | "junk") => return Some("bulk"),
        Some("list") => return Some("list"),
        Some("auto_reply") => return Some("auto_submitted"),
        Some(_) | None => {}
    }
    if header("List-Id").is_some() || header("List-Unsubscribe").is_some() {
        return Some("list");
    }
    let answers = ["X-Auto-Response-Suppress", "X-Autoreply", "X-Autorespond", "X-Auto-Reply"];
    answers.iter().any(|name| header(name).is_some()).then_some("auto_submitted")
}
