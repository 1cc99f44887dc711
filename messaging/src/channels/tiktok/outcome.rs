//! What an answer means. The platform answers with HTTP 200 whatever it thinks: the code in the body decides.

use std::time::Duration;

use serde_json::{Map, Value};

use super::wire::text;
use crate::channels::{Hold, Outgoing};
use crate::clock::Timestamp;
use crate::content::Content;
use crate::exchange::HttpResponse;
use crate::limit::BudgetScope;
use crate::outcome::{Reason, Throttled, Verdict};

/// What exceeds a minute's share comes free after this long.
const MINUTE_HOLD: Duration = Duration::from_secs(5 * 60);
/// What exceeds a second's share.
const SECOND_HOLD: Duration = Duration::from_secs(1);
const DAY_SECS: u64 = 24 * 3_600;
/// Longest id of a request that is kept, in characters.
const REQUEST_CHARS_MAX: usize = 64;

/// What the body of an answer says.
pub(super) struct Answer {
    /// 0 is good.
    pub code: i64,
    /// In the platform's words; may name people: not for logs.
    pub message: String,
    /// The rest.
    pub data: Map<String, Value>,
    request: String,
}

impl Answer {
    /// None: not the platform's own answer.
    pub fn read(response: &HttpResponse) -> Option<Self> {
        let mut whole: Map<String, Value> = serde_json::from_slice(&response.body).ok()?;
        let code = match whole.get("code")? {
            Value::Number(number) => number.as_i64()?,
            Value::String(digits) => digits.parse().ok()?,
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        let message = text(&whole, "message").unwrap_or_default().to_lowercase();
        let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '-';
        let request = text(&whole, "request_id").unwrap_or_default().chars().filter(is_plain).take(REQUEST_CHARS_MAX).collect();
        let data = match whole.remove("data") {
            Some(Value::Object(data)) => data,
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => Map::new(),
        };
        Some(Self { code, message, data, request })
    }

    /// The code, and the request's id for the platform's support.
    pub fn detail(&self) -> String {
        if self.request.is_empty() { self.code.to_string() } else { format!("{} (request {})", self.code, self.request) }
    }

    /// How long nothing goes, when the code says "too frequent": which share was exceeded stands in the message, if anywhere.
    pub fn hold(&self, now: Timestamp) -> Option<Duration> {
        if !matches!(self.code, 40_016 | 40_100 | 40_133) {
            return None;
        }
        let says = |words: &[&str]| words.iter().any(|word| self.message.contains(word));
        Some(if says(&["qpd", "per day", "daily"]) {
            // Days end at midnight UTC.
            Duration::from_secs(DAY_SECS - now.as_secs() % DAY_SECS)
        } else if says(&["qpm", "per minute"]) {
            MINUTE_HOLD
        } else {
            SECOND_HOLD
        })
    }
}

/// Whether the answer is the platform's own and good.
pub(super) fn is_ok(response: &HttpResponse) -> bool {
    (200..300).contains(&response.status) && Answer::read(response).is_some_and(|answer| answer.code == 0)
}

/// Whether the answer says that the access token is refused.
pub(super) fn refuses(response: &HttpResponse) -> bool {
    Answer::read(response).map_or(response.status == 401, |answer| is_about_token(answer.code))
}

fn is_about_token(code: i64) -> bool {
    matches!(code, 40_102 | 40_104 | 40_105)
}

pub(super) fn holds(send: &Outgoing<'_>, response: &HttpResponse) -> Vec<Hold> {
    let wait = Answer::read(response).and_then(|answer| answer.hold(send.now));
    // All accounts of an app share its rate, in whatever tenant.
    wait.map(|wait| Hold { scope: BudgetScope::App, wait }).into_iter().collect()
}

pub(super) fn outcome(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    let Some(answer) = Answer::read(response) else { return by_status(response) };
    let detail = answer.detail();
    let refused = |reason| Verdict::Refused { reason, detail: detail.clone() };
    match answer.code {
        0 => accepted(send, response, &answer),
        40_016 | 40_100 | 40_133 => {
            // A second's share: the next tries come at growing distances of their own.
            let after = answer.hold(send.now).filter(|wait| *wait > SECOND_HOLD).or(response.retry_after);
            Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::App, after, detail }
        }
        code if is_about_token(code) => refused(Reason::Auth),
        // Some accounts may talk to so many people a day, and it is said with the same code.
        40_064 if answer.message.contains("too fast") => refused(Reason::QuotaExceeded),
        40_064 => refused(Reason::WindowClosed),
        // A picture or post may be what does not exist.
        40_007 if matches!(send.content, Content::Image(_) | Content::Video(_)) => refused(Reason::Rejected),
        40_007 => refused(Reason::RecipientInvalid),
        40_000..=49_999 => refused(Reason::Rejected),
        50_000..=59_999 => {
            Verdict::RetryLater { reason: Reason::ServerError, hold: Throttled::Conversation, after: response.retry_after, detail }
        }
        // Only codes that are known to mean "not taken" are tried again.
        _ => Verdict::Unknown { reason: Reason::ServerError, detail },
    }
}

fn accepted(send: &Outgoing<'_>, response: &HttpResponse, answer: &Answer) -> Verdict {
    if !(200..300).contains(&response.status) {
        return Verdict::Unknown { reason: Reason::ServerError, detail: format!("http {} that says ok", response.status) };
    }
    let message = answer.data.get("message").and_then(Value::as_object);
    let id = message.and_then(|message| text(message, "message_id")).filter(|_| send.content.is_message());
    Verdict::Sent { platform_id: id.map(str::to_owned), handles: Vec::new() }
}

/// An answer of whoever stands in front of the platform.
fn by_status(response: &HttpResponse) -> Verdict {
    let detail = format!("http {} without a code", response.status);
    let refused = |reason, detail| Verdict::Refused { reason, detail };
    match response.status {
        401 => refused(Reason::Auth, detail),
        // Said before the request was taken.
        408 => Verdict::RetryLater { reason: Reason::ServerError, hold: Throttled::Conversation, after: response.retry_after, detail },
        429 => Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::App, after: response.retry_after, detail },
        300..=499 => refused(Reason::Rejected, detail),
        _ => Verdict::Unknown { reason: Reason::ServerError, detail },
    }
}
