//! Addresses and ids of mails, in the one form that they are kept and compared in.

use crate::content::Handle;
use crate::ids::MessageId;

/// Longest address, in bytes (RFC 5321, 4.5.3.1.3).
const ADDRESS_BYTES_MAX: usize = 254;
/// Longest part before the `@` (RFC 5321, 4.5.3.1.1).
const LOCAL_BYTES_MAX: usize = 64;
/// Longest id of a mail that is kept, in bytes.
const ID_BYTES_MAX: usize = 512;

/// An address in lower case, or what is wrong with it. Only what every relay takes: visible ASCII, a dot-atom or what is usual
/// in its place, one `@`, a domain of labels.
pub(super) fn address(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.len() > ADDRESS_BYTES_MAX {
        return Err("has more than 254 bytes");
    }
    if !text.is_ascii() {
        return Err("must be ASCII: write the domain in its xn-- form");
    }
    let Some((local, domain)) = text.rsplit_once('@') else { return Err("is no mail address") };
    if local.is_empty() || local.len() > LOCAL_BYTES_MAX {
        return Err("needs 1 to 64 bytes before the @");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~.-".contains(&byte);
    if !local.bytes().all(plain) || local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Err("has something before the @ that is not usual in a mail address");
    }
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if !domain.contains('.') || !domain.split('.').all(label) {
        return Err("has no domain after the @");
    }
    Ok(text.to_ascii_lowercase())
}

/// The handle of a correspondent.
pub(super) fn handle(address: &str) -> Handle {
    Handle::new("mail", address)
}

/// What comes from outside as an address: lenient, but never with a control character and never endless.
pub(super) fn lenient(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>').trim();
    let fits = text.contains('@') && text.len() <= ADDRESS_BYTES_MAX && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    fits.then(|| text.to_lowercase())
}

/// A mail's id without its angle brackets. SES writes its own over ours and names it in notices without a domain, so that
/// form is the one that is kept.
pub(super) fn mail_id(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix('<').unwrap_or(text);
    let text = text.strip_suffix('>').unwrap_or(text).trim();
    if text.is_empty() || text.len() > ID_BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    match text.split_once('@') {
        Some((local, domain)) if domain.ends_with(".amazonses.com") && !local.is_empty() => Some(local.to_owned()),
        Some(_) | None => Some(text.to_owned()),
    }
}

/// The ids of a header such as `References`: what stands in angle brackets, or the words when nothing does.
pub(super) fn mail_ids(text: &str) -> Vec<String> {
    if !text.contains('<') {
        return text.split(|c: char| c.is_whitespace() || c == ',').filter_map(mail_id).collect();
    }
    let bracketed = text.split('<').skip(1).filter_map(|part| part.split_once('>'));
    bracketed.filter_map(|(id, _)| mail_id(id)).collect()
}

/// Our message's id in a mail's id that we made (`msg_…@domain`).
pub(super) fn own(mail_id: &str) -> Option<MessageId> {
    mail_id.split_once('@').map_or(mail_id, |(local, _)| local).parse().ok()
}

/// The id that our mail of this message bears, without brackets: computed, so that every try of a message bears the same.
pub(super) fn own_mail_id(message: &str, from: &str) -> String {
    let domain = from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    format!("{message}@{domain}")
}

/// The id in the form of a header.
pub(super) fn bracketed(mail_id: &str) -> String {
    format!("<{mail_id}>")
}
