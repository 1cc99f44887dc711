//! What leaves: checked beforehand, built by `lettre`, handed to the account's relay.

use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};

use super::address::{address, bracketed, mail_id, own_mail_id};
use crate::channels::{Fault, Outbound, Outgoing, Unsendable, check_chars};
use crate::content::{Content, Email, Handle, Location, Media, Text};
use crate::directory::Account;
use crate::exchange::{MailSecurity, MailSubmission};
use crate::seal::Secret;

/// The header that carries our message's id: relays that write their own `Message-ID` leave it, and reports return it.
pub(super) const REFERENCE_HEADER: &str = "X-Trunkline-Message";
/// The same in the providers' own metadata.
pub(super) const REFERENCE_NAME: &str = "trunkline";
/// The port when the account says none: submission with STARTTLS.
const PORT: u16 = 587;
/// The port of TLS from the first byte.
const TLS_PORT: u16 = 465;

/// Longest subject, in characters.
const SUBJECT_CHARS_MAX: usize = 255;
/// Longest text or HTML, in characters.
const BODY_CHARS_MAX: usize = 512 * 1024;
/// Longest caption, in characters.
const CAPTION_CHARS_MAX: usize = 16 * 1024;
/// Recipients beside the main one: SES takes 50 in all.
const OTHERS_MAX: usize = 49;
/// Things attached by link.
const ATTACHMENTS_MAX: usize = 20;
/// Longest link, in bytes.
const LINK_BYTES_MAX: usize = 2048;
/// Longest subject made of a text's first line, in characters.
const DERIVED_SUBJECT_CHARS: usize = 78;
/// What a mail is called that says nothing in its first line.
const NO_SUBJECT: &str = "Message";

// ---- checks -------------------------------------------------------------------------------------------------------

pub(super) fn check(content: &Content, to: &Handle) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Err(what) = address(to.value()) {
        faults.push(Fault::new("/to/email", what));
    }
    match content {
        Content::Text(text) => check_chars(&mut faults, "/text/body", &text.body, BODY_CHARS_MAX),
        Content::Email(email) => check_email(&mut faults, email),
        Content::Image(media) => check_media(&mut faults, "/image", media),
        Content::Video(media) => check_media(&mut faults, "/video", media),
        Content::Audio(media) => check_media(&mut faults, "/audio", media),
        Content::Document(media) => check_media(&mut faults, "/document", media),
        Content::Location(location) => {
            let fits = location.latitude.abs() <= 90.0 && location.longitude.abs() <= 180.0;
            if !fits {
                faults.push(Fault::new("/location", "is not on earth: latitude -90 to 90, longitude -180 to 180"));
            }
            line(&mut faults, "/location/name", location.name.as_deref());
        }
        Content::Sticker(_)
        | Content::Contacts(_)
        | Content::Interactive(_)
        | Content::InteractiveReply(_)
        | Content::Template(_)
        | Content::Reaction(_)
        | Content::Read(_)
        | Content::Typing(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => {
            faults.push(Fault::new("/type", "cannot be mailed: text, email, image, video, audio, document and location can"));
        }
    }
    faults
}

fn check_email(faults: &mut Vec<Fault>, email: &Email) {
    match email.subject.as_deref() {
        Some(subject) => {
            check_chars(faults, "/email/subject", subject, SUBJECT_CHARS_MAX);
            line(faults, "/email/subject", Some(subject));
        }
        None => faults.push(Fault::new("/email/subject", "is needed")),
    }
    if email.text.is_none() && email.html.is_none() {
        faults.push(Fault::new("/email", "needs text, html or both"));
    }
    for (pointer, body) in [("/email/text", &email.text), ("/email/html", &email.html)] {
        if let Some(body) = body {
            check_chars(faults, pointer, body, BODY_CHARS_MAX);
        }
    }
    if !email.to.is_empty() {
        faults.push(Fault::new("/email/to", "stands in the message's own to; others go into cc or bcc"));
    }
    if email.cc.len() + email.bcc.len() > OTHERS_MAX {
        faults.push(Fault::new(
            "/email/cc",
            format!("has {} recipients with bcc, at most {OTHERS_MAX} are allowed", email.cc.len() + email.bcc.len()),
        ));
    }
    for (name, list) in [("cc", &email.cc), ("bcc", &email.bcc)] {
        for (at, one) in list.iter().enumerate().take(OTHERS_MAX) {
            if let Err(what) = address(one) {
                faults.push(Fault::new(format!("/email/{name}/{at}"), what));
            }
        }
    }
    if let Some(Err(what)) = email.reply_to.as_deref().map(address) {
        faults.push(Fault::new("/email/reply_to", what));
    }
    if let Some(link) = &email.unsubscribe {
        check_link(faults, "/email/unsubscribe", link);
    }
    if email.attachments.len() > ATTACHMENTS_MAX {
        let detail = format!("has {} members, at most {ATTACHMENTS_MAX} are allowed", email.attachments.len());
        faults.push(Fault::new("/email/attachments", detail));
    }
    for (at, media) in email.attachments.iter().enumerate().take(ATTACHMENTS_MAX) {
        check_media(faults, &format!("/email/attachments/{at}"), media);
    }
}

fn check_media(faults: &mut Vec<Fault>, pointer: &str, media: &Media) {
    if media.id.is_some() {
        faults.push(Fault::new(format!("{pointer}/id"), "means nothing here: files are mailed as links"));
    }
    match &media.link {
        Some(link) => check_link(faults, &format!("{pointer}/link"), link),
        None => faults.push(Fault::new(format!("{pointer}/link"), "is needed: files are mailed as links")),
    }
    if let Some(caption) = &media.caption {
        check_chars(faults, &format!("{pointer}/caption"), caption, CAPTION_CHARS_MAX);
    }
    line(faults, &format!("{pointer}/filename"), media.filename.as_deref());
}

fn check_link(faults: &mut Vec<Fault>, pointer: &str, link: &str) {
    let plain = link.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte));
    if !link.starts_with("https://") || !plain || link.len() > LINK_BYTES_MAX {
        faults.push(Fault::new(pointer, "must be an https link of at most 2048 bytes"));
    }
}

/// What stands in a header is one line, whatever its encoder would make of more.
fn line(faults: &mut Vec<Fault>, pointer: &str, text: Option<&str>) {
    if text.is_some_and(|text| text.chars().any(char::is_control)) {
        faults.push(Fault::new(pointer, "must be one line without control characters"));
    }
}

// ---- the mail -----------------------------------------------------------------------------------------------------

/// What a content says, as a mail has it.
struct Parts<'a> {
    subject: String,
    text: Option<String>,
    html: Option<String>,
    email: Option<&'a Email>,
}

pub(super) fn transport(send: &Outgoing<'_>, account: &Account) -> Result<Outbound, Unsendable> {
    let host = account.public("smtp_host");
    if host.is_empty() {
        return Err(unsendable("the account names no relay: smtp_host"));
    }
    let port = match account.public("smtp_port") {
        "" => PORT,
        digits => digits.parse().map_err(|_| unsendable("the account's smtp_port is no port"))?,
    };
    let security = match account.public("smtp_security") {
        "tls" => MailSecurity::Tls,
        "starttls" => MailSecurity::StartTls,
        "plain" => MailSecurity::Plain,
        _ if port == TLS_PORT => MailSecurity::Tls,
        _ => MailSecurity::StartTls,
    };
    // The content was checked when it came; what is stored is checked again, for a mail's headers are at stake.
    if let Some(fault) = check(send.content, send.to).into_iter().next() {
        return Err(Unsendable(format!("{} {}", fault.pointer, fault.detail)));
    }
    let own = address(account.public("address")).map_err(|what| Unsendable(format!("the account's address {what}")))?;
    let from = match account.public("smtp_from") {
        "" => own.clone(),
        other => address(other).map_err(|what| Unsendable(format!("the account's smtp_from {what}")))?,
    };
    let parts = parts(send.content)?;
    let to = address(send.to.value()).map_err(unsendable)?;
    let mut recipients = vec![to.clone()];
    for other in parts.email.into_iter().flat_map(|email| email.cc.iter().chain(&email.bcc)) {
        let other = address(other).map_err(unsendable)?;
        if !recipients.contains(&other) {
            recipients.push(other);
        }
    }
    let message = build(send, account, &own, &to, host, parts)?;
    Ok(Outbound::Mail(Box::new(MailSubmission {
        host: host.to_owned(),
        port,
        security,
        user: Some(account.public("smtp_user").to_owned()).filter(|user| !user.is_empty()),
        password: account.secrets.get("smtp_password").map_or_else(|| Secret::new(""), |pair| pair.current.clone()),
        from,
        to: recipients,
        message: message.into(),
    })))
}

fn unsendable(what: &str) -> Unsendable {
    Unsendable(what.to_owned())
}

fn build(send: &Outgoing<'_>, account: &Account, own: &str, to: &str, host: &str, parts: Parts<'_>) -> Result<Vec<u8>, Unsendable> {
    let wrong = |_| unsendable("the mail cannot be built");
    let name = Some(account.public("display_name").to_owned()).filter(|name| !name.is_empty());
    let mut builder = Message::builder()
        .from(Mailbox::new(name, parse(own)?))
        .to(Mailbox::new(None, parse(to)?))
        .subject(parts.subject)
        .date(SystemTime::UNIX_EPOCH + Duration::from_secs(send.now.as_secs()))
        .message_id(Some(bracketed(&own_mail_id(send.message, own))));
    // An id without a domain is one that a relay made up; what its mail bears is not known.
    if let Some(answered) = send.reply_to.and_then(mail_id).filter(|id| id.contains('@')) {
        builder = builder.in_reply_to(bracketed(&answered)).references(bracketed(&answered));
    }
    builder = raw(builder, REFERENCE_HEADER, send.message)?;
    if let Some((name, value)) = metadata(host, send.message) {
        builder = raw(builder, name, &value)?;
    }
    if let Some(email) = parts.email {
        for one in &email.cc {
            builder = builder.cc(Mailbox::new(None, parse(one)?));
        }
        if let Some(reply_to) = &email.reply_to {
            builder = builder.reply_to(Mailbox::new(None, parse(reply_to)?));
        }
        if let Some(link) = &email.unsubscribe {
            builder = raw(builder, "List-Unsubscribe", &format!("<{link}>"))?;
            builder = raw(builder, "List-Unsubscribe-Post", "List-Unsubscribe=One-Click")?;
        }
    }
    let built = match (parts.text, parts.html) {
        (Some(text), Some(html)) => {
            // Every try of a message makes the same bytes.
            let both = MultiPart::alternative().boundary(format!("=_{}", send.message));
            builder.multipart(both.singlepart(SinglePart::plain(text)).singlepart(SinglePart::html(html)))
        }
        (None, Some(html)) => builder.singlepart(SinglePart::html(html)),
        (text, None) => builder.header(ContentType::TEXT_PLAIN).body(text.unwrap_or_default()),
    };
    Ok(built.map_err(wrong)?.formatted())
}

fn parse(text: &str) -> Result<Address, Unsendable> {
    address(text).map_err(unsendable)?.parse().map_err(|_| unsendable("an address cannot be used"))
}

fn raw(builder: lettre::message::MessageBuilder, name: &str, value: &str) -> Result<lettre::message::MessageBuilder, Unsendable> {
    let name = HeaderName::new_from_ascii(name.to_owned()).map_err(|_| unsendable("a header's name cannot be used"))?;
    Ok(builder.raw_header(HeaderValue::new(name, value.to_owned())))
}

/// How a provider is told our id so that its news bear it, where it does not keep our `Message-ID`.
fn metadata(host: &str, message: &str) -> Option<(&'static str, String)> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let of = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
    if of("postmarkapp.com") {
        return Some(("X-PM-Metadata-trunkline", message.to_owned()));
    }
    if of("mailgun.org") {
        return Some(("X-Mailgun-Variables", format!(r#"{{"{REFERENCE_NAME}":"{message}"}}"#)));
    }
    if of("sendgrid.net") {
        return Some(("X-SMTPAPI", format!(r#"{{"unique_args":{{"{REFERENCE_NAME}":"{message}"}}}}"#)));
    }
    None
}

fn parts(content: &Content) -> Result<Parts<'_>, Unsendable> {
    let plain = |subject: String, text: String| Parts { subject, text: Some(text), html: None, email: None };
    Ok(match content {
        Content::Text(Text { body, .. }) => plain(derived(body), body.clone()),
        Content::Image(media) | Content::Video(media) | Content::Audio(media) | Content::Document(media) => {
            let mut text = media.caption.clone().unwrap_or_default();
            let title = media.caption.as_deref().or(media.filename.as_deref()).unwrap_or(NO_SUBJECT);
            let subject = derived(title);
            append_text(&mut text, std::slice::from_ref(media));
            plain(subject, text)
        }
        Content::Location(location) => plain(derived(location.name.as_deref().unwrap_or("Location")), place(location)),
        Content::Email(email) => {
            let (mut text, mut html) = (email.text.clone(), email.html.clone());
            if let Some(text) = &mut text {
                append_text(text, &email.attachments);
            }
            if let Some(html) = &mut html {
                append_html(html, &email.attachments);
            }
            Parts { subject: email.subject.clone().unwrap_or_default(), text, html, email: Some(email) }
        }
        Content::Sticker(_)
        | Content::Contacts(_)
        | Content::Interactive(_)
        | Content::InteractiveReply(_)
        | Content::Template(_)
        | Content::Reaction(_)
        | Content::Read(_)
        | Content::Typing(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => return Err(Unsendable(format!("{} cannot be mailed", content.kind()))),
    })
}

/// A subject made of the first line that says something.
fn derived(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or(NO_SUBJECT);
    let clean: String = line.chars().filter(|c| !c.is_control()).collect();
    if clean.is_empty() {
        return NO_SUBJECT.to_owned();
    }
    if clean.chars().count() <= DERIVED_SUBJECT_CHARS {
        return clean;
    }
    let mut short: String = clean.chars().take(DERIVED_SUBJECT_CHARS - 1).collect();
    short.push('…');
    short
}

fn append_text(text: &mut String, attachments: &[Media]) {
    for media in attachments {
        let Some(link) = &media.link else { continue };
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        if let Some(name) = &media.filename {
            text.push_str(name);
            text.push_str(": ");
        }
        text.push_str(link);
    }
}

fn append_html(html: &mut String, attachments: &[Media]) {
    let mut links = String::new();
    for media in attachments {
        let Some(link) = &media.link else { continue };
        let shown = media.filename.as_deref().unwrap_or(link);
        links.push_str(&format!("<p><a href=\"{}\">{}</a></p>\n", escaped(link), escaped(shown)));
    }
    // Inside the body, where there is one: some readers show nothing after it.
    let at = html.to_ascii_lowercase().rfind("</body>").unwrap_or(html.len());
    html.insert_str(at, &links);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn place(location: &Location) -> String {
    let mut text = String::new();
    for line in [&location.name, &location.address].into_iter().flatten() {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!("{}, {}", location.latitude, location.longitude));
    if let Some(url) = &location.url {
        text.push('\n');
        text.push_str(url);
    }
    text
}
