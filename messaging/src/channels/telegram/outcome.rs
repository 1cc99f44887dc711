//! What an answer means. `ok` and the description decide; the status code alone where there is no such body.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{MessageKey, chat_handle};
use crate::channels::Outgoing;
use crate::exchange::HttpResponse;
use crate::outcome::{Reason, Throttled, Verdict};

/// Longest wait that is believed; after it the next try tells again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest description that is kept, characters.
const DETAIL_CHARS_MAX: usize = 160;
/// Digits in a row that make a word look like the id or number of a person.
const PERSONAL_DIGITS: usize = 6;

/// Descriptions of a chat that does not exist or cannot be written to.
const UNREACHABLE: [&str; 14] = [
    "chat not found",
    "user not found",
    "peer_id_invalid",
    "input_user_deactivated",
    "user is deactivated",
    "user_is_blocked",
    "blocked by the user",
    "can't initiate conversation",
    "can't send messages to bots",
    "can't send messages to the user",
    "was kicked from",
    "is not a member of",
    "group chat was deleted",
    "group chat was deactivated",
];

/// Descriptions of a business chat whose person has been silent for 24 h. Telegram says it with 400 as well as with 403.
const OUTSIDE_24_H: [&str; 4] = ["business_peer_usage_missing", "24 hours", "24h", "peer outside"];

/// Descriptions of a server that stopped in the middle of its work: it may have sent already.
const CUT_OFF: [&str; 3] = ["restart", "aborted", "timed out"];

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error_code: Option<u16>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(default)]
    retry_after: Option<u64>,
    #[serde(default)]
    migrate_to_chat_id: Option<i64>,
}

pub(super) fn outcome(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    match serde_json::from_slice::<Answer>(&response.body) {
        Ok(answer) if answer.ok && is_success(response.status) => sent(send, answer.result.as_ref()),
        Ok(answer) if !answer.ok => refused(response, &answer),
        Ok(_) | Err(_) => without_answer(response),
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Calls that make no message answer with `true` in place of one.
fn sent(send: &Outgoing<'_>, result: Option<&Value>) -> Verdict {
    let id = |pointer: &str| result.and_then(|result| result.pointer(pointer)).and_then(Value::as_i64);
    let chat = id("/chat/id").or_else(|| send.to.value().parse().ok());
    let key = chat.zip(id("/message_id")).map(|(chat, message)| MessageKey { chat, message, via: send.via });
    let platform_id = key.map(MessageKey::platform_id);
    Verdict::Sent { platform_id, handles: Vec::new() }
}

/// Telegram itself said no.
fn refused(response: &HttpResponse, answer: &Answer) -> Verdict {
    let description = answer.description.as_deref().unwrap_or_default();
    let Some(code) = answer.error_code.or(Some(response.status)).filter(|code| !is_success(*code)) else {
        return Verdict::Unknown { reason: Reason::ServerError, detail: "ok is false, without an error code".to_owned() };
    };
    let detail = detail(code, description);
    let parameters = answer.parameters.as_ref();
    if let Some(new) = parameters.and_then(|parameters| parameters.migrate_to_chat_id).filter(|id| *id != 0) {
        return Verdict::Moved { to: chat_handle(new) };
    }
    match code {
        429 => {
            let told = parameters.and_then(|parameters| parameters.retry_after).or_else(|| told_in_words(description));
            rate_limited(told.map(Duration::from_secs).or(response.retry_after), detail)
        }
        400 | 403 => Verdict::Refused { reason: reason_of(&description.to_lowercase()), detail },
        // A malformed or unknown token is answered with 404, a revoked one with 401.
        401 | 404 => Verdict::Refused { reason: Reason::Auth, detail },
        409 => Verdict::Refused { reason: Reason::AccountDisabled, detail },
        500.. => server_error(response, code, description, detail),
        _ => Verdict::Refused { reason: Reason::Rejected, detail },
    }
}

fn reason_of(description: &str) -> Reason {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| description.contains(phrase));
    if says(&OUTSIDE_24_H) {
        Reason::WindowClosed
    } else if says(&UNREACHABLE) {
        Reason::RecipientInvalid
    } else {
        Reason::Rejected
    }
}

/// A server error that says `ok: false` was not taken, with two exceptions: one in front of Telegram's server (502, 504) does not
/// know what became of the request, and a server that was stopped does not know how far it had come.
fn server_error(response: &HttpResponse, code: u16, description: &str, detail: String) -> Verdict {
    let words = description.to_lowercase();
    if matches!(code, 502 | 504) || CUT_OFF.iter().any(|phrase| words.contains(phrase)) {
        return Verdict::Unknown { reason: Reason::ServerError, detail };
    }
    Verdict::RetryLater { reason: Reason::ServerError, hold: Throttled::Conversation, after: response.retry_after, detail }
}

/// Whether one chat or the whole bot is meant cannot be told from the answer.
fn rate_limited(after: Option<Duration>, detail: String) -> Verdict {
    let after = after.map(|after| after.min(RETRY_AFTER_MAX));
    Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::Conversation, after, detail }
}

/// `Too Many Requests: retry after 35`.
fn told_in_words(description: &str) -> Option<u64> {
    description.rsplit_once("retry after ")?.1.trim().parse().ok()
}

/// An answer that is not Telegram's: of a proxy, or damaged.
fn without_answer(response: &HttpResponse) -> Verdict {
    let what = if serde_json::from_slice::<IgnoredAny>(&response.body).is_ok() { "other JSON" } else { "no JSON" };
    let detail = format!("http {}, {what}", response.status);
    match response.status {
        429 => rate_limited(response.retry_after, detail),
        401 | 404 => Verdict::Refused { reason: Reason::Auth, detail },
        409 => Verdict::Refused { reason: Reason::AccountDisabled, detail },
        300..=499 => Verdict::Refused { reason: Reason::Rejected, detail },
        _ => Verdict::Unknown { reason: Reason::ServerError, detail },
    }
}

/// Code and description without what may be personal or secret: quoted parts, links, user names, long numbers.
fn detail(code: u16, description: &str) -> String {
    let mut kept = format!("{code}");
    let mut quoted = false;
    for word in description.split_whitespace() {
        let quotes = word.matches('"').count();
        let hidden = quoted || quotes > 0 || is_personal(word);
        quoted ^= quotes % 2 == 1;
        kept.push(' ');
        kept.push_str(if hidden { "…" } else { word });
    }
    kept.chars().take(DETAIL_CHARS_MAX).collect()
}

fn is_personal(word: &str) -> bool {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    word.contains("://") || word.contains('@') || digits >= PERSONAL_DIGITS || (word.starts_with('\'') && word.len() > 1)
}
