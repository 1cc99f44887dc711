//! What becomes of mails of ours: reports in MIME form (RFC 3464, RFC 5965), and what SES says.

use mail_parser::{Message, MessageParser, MimeHeaders, PartType};
use serde_json::{Map, Value};

use super::address::{handle, lenient, mail_id, own};
use super::date;
use super::mail::NAMED_MAX;
use super::mime::{self, Parsed, raw_header};
use super::piece::{Head, Source};
use super::send::REFERENCE_HEADER;
use crate::channels::{ContactInfo, Inbound, InboundBody, StatusUpdate};
use crate::clock::Timestamp;
use crate::outcome::{Reason, Status};

/// Longest text of a relay that is kept, in characters.
const DETAIL_CHARS_MAX: usize = 300;

/// News of one mail to one recipient.
#[derive(Default, Clone)]
pub(super) struct News {
    /// To whom it went.
    pub recipient: String,
    /// The mail's id, as the provider or the report names it.
    pub mail: Option<String>,
    /// Our message's id, where it came back.
    pub callback: Option<String>,
    /// The provider's id of the news.
    pub id: String,
    /// The provider's word.
    pub word: String,
    /// Code and text.
    pub detail: Option<String>,
    /// When.
    pub at: Timestamp,
    /// What else it says.
    pub extra: Map<String, Value>,
}

impl News {
    fn inbound(&self, qualifier: &str, body: InboundBody) -> Option<Inbound> {
        let recipient = lenient(&self.recipient)?;
        Some(Inbound {
            platform_id: if self.id.is_empty() { self.mail.clone().unwrap_or_default() } else { self.id.clone() },
            qualifier: format!("{qualifier} {recipient}"),
            at: self.at,
            contact: ContactInfo { handles: vec![handle(&recipient)], ..ContactInfo::default() },
            opens_window: false,
            from_ad: false,
            body,
            context: Map::new(),
        })
    }

    /// A new state of the mail.
    pub fn status(&self, status: Status, reason: Option<Reason>) -> Option<Inbound> {
        let mail = self.mail.as_deref().and_then(mail_id);
        let callback = self.callback.clone().or_else(|| mail.as_deref().and_then(own).map(|id| id.to_string()));
        let update = StatusUpdate {
            message: mail.unwrap_or_default(),
            status,
            platform_status: self.word.clone(),
            reason,
            detail: self.detail.as_deref().map(short),
            callback,
            extra: self.extra.clone(),
        };
        self.inbound(&self.word, InboundBody::Status(update))
    }

    /// The address is dead: nothing more is sent there until its owner writes.
    pub fn gone(&self) -> Option<Inbound> {
        self.inbound(&format!("{} gone", self.word), InboundBody::Reachable(false))
    }

    /// The person wants (no) more.
    pub fn preference(&self, opted_out: bool) -> Option<Inbound> {
        let body = InboundBody::Preference { opted_out, category: self.word.clone() };
        self.inbound(&format!("{} preference", self.word), body)
    }

    /// Told, without an effect.
    pub fn told(&self, raw: Value) -> Option<Inbound> {
        self.inbound(&self.word, InboundBody::Platform { kind: self.word.clone(), raw })
    }

    /// A complaint: the mail arrived, and the person wants no more.
    pub fn complaint(&self) -> Vec<Inbound> {
        [self.status(Status::Delivered, None), self.preference(true)].into_iter().flatten().collect()
    }
}

/// The reason of a failure, by its enhanced status code (RFC 3463) or the reply code in its text.
pub(super) fn reason(code: &str) -> Reason {
    let mut parts = code.trim().split('.');
    match (parts.next(), parts.next(), parts.next()) {
        // Bad mailbox, system, syntax; moved; disabled.
        (Some("5"), Some("1"), _) | (Some("5"), Some("2"), Some("1")) => Reason::RecipientInvalid,
        (Some("4" | "5"), Some("2"), Some("2")) => Reason::QuotaExceeded,
        (Some("4"), _, _) => Reason::ServerError,
        (Some(_) | None, _, _) => Reason::Rejected,
    }
}

/// A relay's text without addresses: rows hold no personal data.
fn short(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let kept: Vec<&str> = words.map(|word| if word.contains('@') { "(address)" } else { word }).collect();
    kept.join(" ").chars().take(DETAIL_CHARS_MAX).collect()
}

/// A report in MIME form, as news; none when the mail is none. A report is only a mail, so it tells and does not suppress
/// anybody: whose mail it was is decided where our messages are known.
pub(super) fn report(parsed: &Parsed<'_>) -> Option<Vec<Inbound>> {
    let message = parsed.message();
    let kind = message.content_type()?;
    if !kind.ctype().eq_ignore_ascii_case("multipart") || !kind.subtype()?.eq_ignore_ascii_case("report") {
        return None;
    }
    let at = message.date().map_or(Timestamp::ZERO, super::timestamp);
    let id = message.message_id().and_then(mail_id).unwrap_or_default();
    let original = original(message);
    let base = News { mail: original.0, callback: original.1, id, at, ..News::default() };
    let fields = message.parts.iter().find_map(|part| {
        let subtype = part.content_type()?.subtype()?.to_ascii_lowercase();
        matches!(subtype.as_str(), "delivery-status" | "global-delivery-status" | "feedback-report").then(|| (subtype, part.contents()))
    });
    let (subtype, bytes) = fields?;
    let text = String::from_utf8_lossy(bytes);
    let news = if subtype == "feedback-report" { feedback(&text, base, original.2) } else { deliveries(&text, &base) };
    (!news.is_empty()).then_some(news)
}

/// Id of the mail that a report returns, our message's id in it, and to whom it went.
fn original(message: &Message<'_>) -> (Option<String>, Option<String>, Option<String>) {
    for part in &message.parts {
        match &part.body {
            PartType::Message(inner) => return names(inner),
            PartType::Text(text) if part.is_content_type("text", "rfc822-headers") => {
                if let Some(inner) = MessageParser::default().parse_headers(text.as_bytes()) {
                    return names(&inner);
                }
            }
            PartType::Text(_) | PartType::Html(_) | PartType::Binary(_) | PartType::InlineBinary(_) | PartType::Multipart(_) => {}
        }
    }
    (None, None, None)
}

fn names(inner: &Message<'_>) -> (Option<String>, Option<String>, Option<String>) {
    let callback = raw_header(inner, REFERENCE_HEADER).map(str::to_owned);
    let to = inner.to().and_then(|to| to.first()).and_then(|one| one.address()).map(str::to_owned);
    (raw_header(inner, "Message-ID").map(str::to_owned), callback, to)
}

/// The groups of a `message/delivery-status`: the first is of the mail, each further one of a recipient.
fn deliveries(text: &str, base: &News) -> Vec<Inbound> {
    let text = text.replace("\r\n", "\n");
    let mut out = Vec::new();
    for group in text.split("\n\n").take(NAMED_MAX) {
        let field = |name: &str| unfolded(group, name);
        let Some(recipient) = field("Final-Recipient").or_else(|| field("Original-Recipient")) else { continue };
        let recipient = recipient.rsplit(';').next().unwrap_or_default().trim().to_owned();
        let (code, diagnostic) = (field("Status").unwrap_or_default(), field("Diagnostic-Code").unwrap_or_default());
        let action = field("Action").unwrap_or_default().to_ascii_lowercase();
        let detail = Some(format!("{code} {diagnostic}").trim().to_owned()).filter(|detail| !detail.is_empty());
        let news = News { recipient, word: action.clone(), detail, ..base.clone() };
        out.extend(match action.as_str() {
            "failed" => news.status(Status::Failed, Some(reason(&code))),
            "delivered" => news.status(Status::Delivered, None),
            // Further relays may not report: that it went on is all that is known.
            "relayed" | "expanded" => news.status(Status::Sent, None),
            _ => {
                news.told(Value::Object(Map::from_iter([("status".to_owned(), code.into()), ("diagnostic".to_owned(), diagnostic.into())])))
            }
        });
    }
    out
}

/// A field with its continuation lines.
fn unfolded(group: &str, name: &str) -> Option<String> {
    let mut lines = group.lines().skip_while(|line| !line.split_once(':').is_some_and(|(own, _)| own.trim().eq_ignore_ascii_case(name)));
    let mut value = lines.next()?.split_once(':')?.1.trim().to_owned();
    for more in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        value.push(' ');
        value.push_str(more.trim());
    }
    Some(value)
}

fn feedback(text: &str, base: News, to: Option<String>) -> Vec<Inbound> {
    let recipient = unfolded(text, "Original-Rcpt-To").or(to).unwrap_or_default();
    let word = unfolded(text, "Feedback-Type").unwrap_or_else(|| "complaint".to_owned());
    let news = News { recipient, word: short(&word), ..base };
    news.status(Status::Delivered, None).into_iter().collect()
}

/// What SES published: a mail that came in, or news of one that went out.
pub(super) fn ses(head: &Head, notice: &Value) -> Option<Vec<Inbound>> {
    let kind = notice["notificationType"].as_str().or_else(|| notice["eventType"].as_str());
    let mail = &notice["mail"];
    let mut news = News { id: head.id.clone().unwrap_or_default(), ..News::default() };
    news.mail = mail["messageId"].as_str().map(str::to_owned);
    news.callback = header(mail, REFERENCE_HEADER).map(str::to_owned);
    let out = match kind {
        Some("Received") => received(head, notice)?,
        Some("Bounce") => bounced(&news, &notice["bounce"]),
        Some("Complaint") => complained(&news, &notice["complaint"]),
        Some("Delivery") => delivered(&news, &notice["delivery"]),
        Some("Reject") => rejected(&news, notice),
        Some(_) | None => Vec::new(),
    };
    if out.is_empty() {
        return Some(vec![platform(head, kind.unwrap_or("sns"), notice)]);
    }
    Some(out)
}

fn rejected(news: &News, notice: &Value) -> Vec<Inbound> {
    let to = notice["mail"]["destination"].as_array().into_iter().flatten().filter_map(Value::as_str).take(NAMED_MAX);
    let detail = notice["reject"]["reason"].as_str().map(str::to_owned);
    let at = notice["mail"]["timestamp"].as_str().and_then(date).unwrap_or(Timestamp::ZERO);
    let each = to.map(|to| News { recipient: to.to_owned(), word: "reject".to_owned(), detail: detail.clone(), at, ..news.clone() });
    each.filter_map(|news| news.status(Status::Failed, Some(Reason::Rejected))).collect()
}

fn platform(head: &Head, kind: &str, raw: &Value) -> Inbound {
    Inbound {
        platform_id: head.id.clone().unwrap_or_default(),
        qualifier: String::new(),
        at: Timestamp::ZERO,
        contact: ContactInfo { handles: vec![crate::content::Handle::account()], ..ContactInfo::default() },
        opens_window: false,
        from_ad: false,
        body: InboundBody::Platform { kind: short(kind), raw: raw.clone() },
        context: Map::new(),
    }
}

fn header<'v>(mail: &'v Value, wanted: &str) -> Option<&'v str> {
    let all = mail["headers"].as_array()?;
    let found = all.iter().find(|one| one["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(wanted)))?;
    found["value"].as_str()
}

fn bounced(base: &News, bounce: &Value) -> Vec<Inbound> {
    let permanent = bounce["bounceType"].as_str() == Some("Permanent");
    let at = bounce["timestamp"].as_str().and_then(date).unwrap_or(Timestamp::ZERO);
    let mut extra = Map::new();
    for name in ["bounceType", "bounceSubType"] {
        if let Some(value) = bounce.get(name) {
            extra.insert(name.to_owned(), value.clone());
        }
    }
    let mut out = Vec::new();
    for recipient in bounce["bouncedRecipients"].as_array().into_iter().flatten().take(NAMED_MAX) {
        let Some(address) = recipient["emailAddress"].as_str() else { continue };
        let text = |name: &str| recipient[name].as_str().unwrap_or_default();
        let detail = Some(format!("{} {}", text("status"), text("diagnosticCode")).trim().to_owned()).filter(|text| !text.is_empty());
        let news = News { recipient: address.to_owned(), word: "bounce".to_owned(), detail, at, extra: extra.clone(), ..base.clone() };
        let reason = if permanent { Reason::RecipientInvalid } else { reason(text("status")) };
        out.extend(news.status(Status::Failed, Some(reason)));
        if permanent {
            out.extend(news.gone());
        }
    }
    out
}

fn complained(base: &News, complaint: &Value) -> Vec<Inbound> {
    let at = complaint["timestamp"].as_str().and_then(date).unwrap_or(Timestamp::ZERO);
    let detail = complaint["complaintFeedbackType"].as_str().map(str::to_owned);
    let all = complaint["complainedRecipients"].as_array().into_iter().flatten().take(NAMED_MAX);
    all.filter_map(|one| one["emailAddress"].as_str())
        .flat_map(|address| {
            let (recipient, word) = (address.to_owned(), "complaint".to_owned());
            News { recipient, word, detail: detail.clone(), at, ..base.clone() }.complaint()
        })
        .collect()
}

fn delivered(base: &News, delivery: &Value) -> Vec<Inbound> {
    let at = delivery["timestamp"].as_str().and_then(date).unwrap_or(Timestamp::ZERO);
    let detail = delivery["smtpResponse"].as_str().map(str::to_owned);
    let all = delivery["recipients"].as_array().into_iter().flatten().take(NAMED_MAX).filter_map(Value::as_str);
    let each = all.map(|to| News { recipient: to.to_owned(), word: "delivery".to_owned(), detail: detail.clone(), at, ..base.clone() });
    each.filter_map(|news| news.status(Status::Delivered, None)).collect()
}

fn received(head: &Head, notice: &Value) -> Option<Vec<Inbound>> {
    let (mail, receipt) = (&notice["mail"], &notice["receipt"]);
    let mut head = Head { source: Source::Mime, ..head.clone() };
    head.sender = mail["source"].as_str().map(str::to_owned);
    let to = receipt["recipients"].as_array().or_else(|| mail["destination"].as_array());
    head.recipients = to.into_iter().flatten().filter_map(Value::as_str).filter_map(lenient).take(NAMED_MAX).collect();
    for (name, verdict) in
        [("spf", "spfVerdict"), ("dkim", "dkimVerdict"), ("dmarc", "dmarcVerdict"), ("spam", "spamVerdict"), ("virus", "virusVerdict")]
    {
        if let Some(status) = receipt[verdict]["status"].as_str() {
            head.verdicts.insert(name.to_owned(), status.to_ascii_lowercase().into());
        }
    }
    if let Some(content) = notice["content"].as_str() {
        let raw = match receipt["action"]["encoding"].as_str() {
            Some("BASE64") => data_encoding::BASE64.decode(content.as_bytes()).ok()?,
            Some(_) | None => content.as_bytes().to_vec(),
        };
        return mime::said(&head, &raw);
    }
    // Stored elsewhere: its head is all that came, and where the rest is.
    let mut raw = String::new();
    for one in mail["headers"].as_array().into_iter().flatten() {
        let (Some(name), Some(value)) = (one["name"].as_str(), one["value"].as_str()) else { continue };
        let token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if token && !name.to_ascii_lowercase().starts_with("content-") {
            let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            raw.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let common = &mail["commonHeaders"];
    for (name, value) in [("To", &common["to"]), ("Cc", &common["cc"]), ("Reply-To", &common["replyTo"]), ("Date", &common["date"])] {
        if header(mail, name).is_some() {
            continue;
        }
        let listed: Vec<&str> =
            value.as_array().into_iter().flatten().chain(Some(value)).filter_map(Value::as_str).take(NAMED_MAX).collect();
        if !listed.is_empty() {
            raw.push_str(&format!("{name}: {}\r\n", listed.join(", ").replace(char::is_control, " ")));
        }
    }
    raw.push_str("\r\n");
    if receipt["action"]["type"].as_str() == Some("S3") {
        let action = &receipt["action"];
        let stored = serde_json::json!({ "bucket": action["bucketName"], "key": action["objectKey"] });
        head.verdicts.insert("stored".to_owned(), stored);
    }
    match mime::said(&head, raw.as_bytes()) {
        Some(said) => Some(said),
        None => Some(Vec::new()),
    }
}
