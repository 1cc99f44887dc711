//! What the platform's answers and error codes mean. The code decides, never the HTTP status or the title (Meta's advice).

use std::time::Duration;

use serde::Deserialize;

use super::people::{handle_of, is_phone};
use crate::channels::Outgoing;
use crate::content::{Content, Handle};
use crate::exchange::HttpResponse;
use crate::outcome::{Reason, Throttled, Verdict};

/// A call rate of the app or business account is used up: its window is an hour, so looking again sooner is of no use.
const CALL_RATE_HOLD: Duration = Duration::from_secs(60);
/// First step of the 4^x seconds that Meta asks for between messages to one person.
const PAIR_HOLD: Duration = Duration::from_secs(4);
/// Longest detail, in characters.
const DETAIL_CHARS_MAX: usize = 200;
/// As many digits in a row may be a phone number.
const TELLING_DIGITS: usize = 7;

/// What an error code says about the send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Not taken; passes.
    Retry { reason: Reason, hold: Throttled, after: Option<Duration> },
    /// Not taken, for good.
    Refuse(Reason),
}

/// Every code here says that the message was not taken. None: a code that is not known.
fn meaning(code: i64) -> Option<Meaning> {
    use Meaning::{Refuse, Retry};
    Some(match code {
        0 | 3 | 10 | 190 | 200..=299 => Refuse(Reason::Auth),
        368 | 130497 | 131031 | 131037 | 131042 | 131045 | 133010 => Refuse(Reason::AccountDisabled),
        4 | 80007 | 80008 => Retry { reason: Reason::RateLimited, hold: Throttled::Account, after: Some(CALL_RATE_HOLD) },
        130429 => Retry { reason: Reason::RateLimited, hold: Throttled::Account, after: None },
        131056 => Retry { reason: Reason::RateLimited, hold: Throttled::Conversation, after: Some(PAIR_HOLD) },
        131048 | 131049 | 131064 => Refuse(Reason::QuotaExceeded),
        131050 => Refuse(Reason::OptedOut),
        131047 => Refuse(Reason::WindowClosed),
        130472 | 131021 | 131026 | 131030 => Refuse(Reason::RecipientInvalid),
        // The whole family speaks of templates and flows.
        132000..=132099 => Refuse(Reason::TemplateInvalid),
        100 | 131008 | 131009 | 131051 | 131052 | 131062 | 131063 | 137000 => Refuse(Reason::Rejected),
        1 | 2 | 131000 | 131016 | 131053 | 133004 | 135000 => {
            Retry { reason: Reason::ServerError, hold: Throttled::Conversation, after: None }
        }
        // Maintenance of the number, or its throughput is being raised.
        131057 => Retry { reason: Reason::ServerError, hold: Throttled::Account, after: None },
        _ => return None,
    })
}

/// The reason of a failure that a status or notice tells.
pub(super) fn reason(code: i64) -> Reason {
    match meaning(code) {
        Some(Meaning::Retry { reason, .. } | Meaning::Refuse(reason)) => reason,
        None => Reason::Rejected,
    }
}

/// `code: title`, without what may be personal data.
pub(super) fn detail(code: i64, title: &str) -> String {
    let prefix = format!("(#{code})");
    let title = scrub(title.strip_prefix(&prefix).unwrap_or(title).trim());
    if title.is_empty() { code.to_string() } else { format!("{code}: {title}") }
}

/// Takes out runs of digits that are long enough for a phone number, however they are grouped.
fn scrub(text: &str) -> String {
    let cut = text.char_indices().nth(DETAIL_CHARS_MAX).map_or(text.len(), |(place, _)| place);
    let mut rest = &text[..cut];
    let mut out = String::with_capacity(rest.len());
    while !rest.is_empty() {
        let plain = rest.find(is_of_number).unwrap_or(rest.len());
        out.push_str(&rest[..plain]);
        rest = &rest[plain..];
        let (run, after) = rest.split_at(rest.find(|letter| !is_of_number(letter)).unwrap_or(rest.len()));
        let digits = run.chars().filter(|letter| letter.is_numeric()).count();
        if digits < TELLING_DIGITS {
            out.push_str(run);
        } else {
            // The separators at its ends belong to the words around it.
            let number = run.trim_matches(|letter: char| !letter.is_numeric());
            out.push_str(&run.replace(number, "…"));
        }
        rest = after;
    }
    out
}

/// Digits, and what groups them.
fn is_of_number(letter: char) -> bool {
    letter.is_numeric() || matches!(letter, ' ' | '-' | '.' | '(' | ')' | '+')
}

#[derive(Deserialize)]
struct ErrorBody {
    error: GraphError,
}

#[derive(Deserialize)]
struct GraphError {
    code: i64,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Accepted {
    #[serde(default)]
    contacts: Vec<AcceptedContact>,
    #[serde(default)]
    messages: Vec<AcceptedMessage>,
    success: Option<bool>,
}

#[derive(Deserialize)]
struct AcceptedContact {
    wa_id: Option<String>,
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct AcceptedMessage {
    id: String,
}

pub(super) fn outcome(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(&response.body) {
        return judge_error(&body.error, response);
    }
    match response.status {
        200..=299 => accepted(send, response),
        401 => refused(Reason::Auth, response.status),
        // Said before the request was taken, by whoever stands in front.
        408 => RetryLater { reason: Reason::ServerError, hold: Throttled::Conversation }.verdict(response),
        429 => RetryLater { reason: Reason::RateLimited, hold: Throttled::Account }.verdict(response),
        300..=499 => refused(Reason::Rejected, response.status),
        status => Verdict::Unknown { reason: Reason::ServerError, detail: format!("http {status} without a graph error") },
    }
}

fn judge_error(error: &GraphError, response: &HttpResponse) -> Verdict {
    let detail = detail(error.code, error.message.as_deref().unwrap_or_default());
    match meaning(error.code) {
        Some(Meaning::Refuse(reason)) => Verdict::Refused { reason, detail },
        Some(Meaning::Retry { reason, hold, after }) => Verdict::RetryLater { reason, hold, after: response.retry_after.or(after), detail },
        None => match response.status {
            429 => Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::Account, after: response.retry_after, detail },
            401 => Verdict::Refused { reason: Reason::Auth, detail },
            300..=499 => Verdict::Refused { reason: Reason::Rejected, detail },
            // Only codes that are known to mean "not taken" are tried again.
            _ => Verdict::Unknown { reason: Reason::ServerError, detail },
        },
    }
}

/// A passing refusal that only the HTTP status tells.
struct RetryLater {
    reason: Reason,
    hold: Throttled,
}

impl RetryLater {
    fn verdict(self, response: &HttpResponse) -> Verdict {
        let detail = format!("http {}", response.status);
        Verdict::RetryLater { reason: self.reason, hold: self.hold, after: response.retry_after, detail }
    }
}

fn refused(reason: Reason, status: u16) -> Verdict {
    Verdict::Refused { reason, detail: format!("http {status} without a graph error") }
}

fn accepted(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    let unreadable = || Verdict::Unknown { reason: Reason::ServerError, detail: format!("http {} without a message id", response.status) };
    let Ok(answer) = serde_json::from_slice::<Accepted>(&response.body) else { return unreadable() };
    if matches!(send.content, Content::Read(_) | Content::Typing(_)) {
        return if answer.success == Some(true) { Verdict::Sent { platform_id: None, handles: Vec::new() } } else { unreadable() };
    }
    let Some(message) = answer.messages.into_iter().next().filter(|message| !message.id.is_empty()) else { return unreadable() };
    Verdict::Sent { platform_id: Some(message.id), handles: named_handles(send.to, &answer.contacts) }
}

/// The handles that the answer names; none for a group, whose participants are other conversations.
fn named_handles(to: &Handle, contacts: &[AcceptedContact]) -> Vec<Handle> {
    let mut handles = Vec::new();
    if to.scheme() == "group" {
        return handles;
    }
    for contact in contacts.iter().take(1) {
        let phone = contact.wa_id.as_deref().filter(|id| is_phone(id));
        let user = contact.user_id.as_deref().filter(|id| !id.is_empty());
        handles.extend(phone.into_iter().chain(user).map(handle_of));
    }
    handles
}
