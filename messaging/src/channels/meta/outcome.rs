//! What answers mean. Code and subcode decide, never the HTTP status or the title.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::channels::{Hold, Outgoing};
use crate::exchange::HttpResponse;
use crate::limit::BudgetScope;
use crate::outcome::{Reason, Throttled, Verdict};

/// A call rate is used up and the headers do not say for how long.
const CALL_RATE_HOLD: Duration = Duration::from_secs(60);
/// From this share of a rate on, in percent, the account is held back before the platform does it.
const USAGE_HOLD_PERCENT: f64 = 95.0;
/// Longest hold that a header may ask for.
const HOLD_MAX: Duration = Duration::from_secs(3_600);
/// Longest detail, in characters.
const DETAIL_CHARS_MAX: usize = 200;

/// What an error code says about the send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Not taken; passes.
    Retry { reason: Reason, hold: Throttled },
    /// Not taken, for good.
    Refuse(Reason),
    /// It may have been taken all the same.
    Unknown,
}

/// None: a code that is not known.
fn meaning(code: i64, subcode: i64) -> Option<Meaning> {
    use Meaning::{Refuse, Retry, Unknown};
    let by_subcode = match subcode {
        // Outside the window.
        2018278 | 2018065 | 2534022 => Some(Refuse(Reason::WindowClosed)),
        // The person cannot receive, does not exist, blocked the account, or takes no messages.
        2018108 | 1545041 | 2018001 | 2534014 | 2534029 | 2534041 | 2534122 => Some(Refuse(Reason::RecipientInvalid)),
        // Too large; the private reply was used already.
        2018109 | 2534025 => Some(Refuse(Reason::Rejected)),
        // The page or account is restricted.
        1893063 => Some(Refuse(Reason::AccountDisabled)),
        2018022 | 2534040 => Some(Retry { reason: Reason::RateLimited, hold: Throttled::Account }),
        // "Please retry", although the message may have been sent.
        1357046 => Some(Unknown),
        _ => None,
    };
    if by_subcode.is_some() {
        return by_subcode;
    }
    Some(match code {
        3 | 10 | 102 | 190 | 200..=299 => Refuse(Reason::Auth),
        368 => Refuse(Reason::AccountDisabled),
        551 | 2534122 => Refuse(Reason::RecipientInvalid),
        4 | 17 | 32 | 613 => Retry { reason: Reason::RateLimited, hold: Throttled::Account },
        100 | 10900 | 10903 | 2534025 => Refuse(Reason::Rejected),
        1 | 2 | 1200 => Retry { reason: Reason::ServerError, hold: Throttled::Conversation },
        _ => return None,
    })
}

#[derive(Deserialize)]
struct ErrorBody {
    error: GraphError,
}

#[derive(Deserialize)]
struct GraphError {
    code: i64,
    #[serde(default)]
    error_subcode: i64,
}

#[derive(Deserialize)]
struct Accepted {
    message_id: Option<String>,
    recipient_id: Option<Value>,
}

pub(in crate::channels) fn outcome(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(&response.body) {
        return judge_error(&body.error, response);
    }
    let detail = || format!("http {} without a graph error", response.status);
    match response.status {
        200..=299 => accepted(send, response),
        401 => Verdict::Refused { reason: Reason::Auth, detail: detail() },
        408 => Verdict::RetryLater { reason: Reason::ServerError, hold: Throttled::Conversation, after: None, detail: detail() },
        429 => rate_limited(response, detail()),
        300..=499 => Verdict::Refused { reason: Reason::Rejected, detail: detail() },
        _ => Verdict::Unknown { reason: Reason::ServerError, detail: detail() },
    }
}

fn accepted(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    let unreadable = || Verdict::Unknown { reason: Reason::ServerError, detail: format!("http {} without a message id", response.status) };
    let Ok(answer) = serde_json::from_slice::<Accepted>(&response.body) else { return unreadable() };
    if !send.content.is_message() {
        let done = answer.recipient_id.is_some() || answer.message_id.is_some();
        return if done { Verdict::Sent { platform_id: None, handles: Vec::new() } } else { unreadable() };
    }
    // The recipient that is named stays unread: for a private reply it is a person's id, and that conversation is another one.
    match answer.message_id.filter(|id| !id.is_empty()) {
        Some(id) => Verdict::Sent { platform_id: Some(id), handles: Vec::new() },
        None => unreadable(),
    }
}

impl GraphError {
    /// Code and subcode. The platform's text may name people.
    fn detail(&self) -> String {
        match self.error_subcode {
            0 => self.code.to_string(),
            subcode => format!("{}/{subcode}", self.code),
        }
    }
}

/// The code of an answer that is an error, and the detail for rows.
pub(super) fn error_of(response: &HttpResponse) -> Option<(i64, String)> {
    let body = serde_json::from_slice::<ErrorBody>(&response.body).ok()?;
    Some((body.error.code, body.error.detail()))
}

fn judge_error(error: &GraphError, response: &HttpResponse) -> Verdict {
    let detail = error.detail();
    match meaning(error.code, error.error_subcode) {
        Some(Meaning::Refuse(reason)) => Verdict::Refused { reason, detail: cut(detail) },
        Some(Meaning::Retry { reason: Reason::RateLimited, .. }) => rate_limited(response, detail),
        Some(Meaning::Retry { reason, hold }) => Verdict::RetryLater { reason, hold, after: response.retry_after, detail },
        Some(Meaning::Unknown) => Verdict::Unknown { reason: Reason::ServerError, detail },
        None => match response.status {
            429 => rate_limited(response, detail),
            401 => Verdict::Refused { reason: Reason::Auth, detail },
            300..=499 => Verdict::Refused { reason: Reason::Rejected, detail },
            _ => Verdict::Unknown { reason: Reason::ServerError, detail },
        },
    }
}

fn cut(detail: String) -> String {
    detail.chars().take(DETAIL_CHARS_MAX).collect()
}

fn rate_limited(response: &HttpResponse, detail: String) -> Verdict {
    let after = response.retry_after.or_else(|| regain(response)).unwrap_or(CALL_RATE_HOLD);
    Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::Account, after: Some(after), detail }
}

fn header(response: &HttpResponse, name: &str) -> Option<Value> {
    serde_json::from_slice(response.headers.get(name)?.as_bytes()).ok()
}

/// How long until calls are taken again, as the business usage header says (minutes).
fn regain(response: &HttpResponse) -> Option<Duration> {
    let usage = header(response, "x-business-use-case-usage")?;
    let lists = usage.as_object()?.values().filter_map(Value::as_array).flatten();
    let minutes = lists.filter_map(|one| one.get("estimated_time_to_regain_access")?.as_u64()).max()?;
    Some(Duration::from_secs(minutes.saturating_mul(60)).min(HOLD_MAX)).filter(|wait| !wait.is_zero())
}

/// What the usage headers say, whatever the verdict.
pub(in crate::channels) fn holds(response: &HttpResponse) -> Vec<Hold> {
    let used = header(response, "x-app-usage").and_then(|usage| {
        let shares = usage.as_object()?.values().filter_map(Value::as_f64);
        shares.fold(None, |most: Option<f64>, share| Some(most.map_or(share, |most| most.max(share))))
    });
    let by_share = used.filter(|share| *share >= USAGE_HOLD_PERCENT).map(|_| CALL_RATE_HOLD);
    let wait = regain(response).max(by_share);
    wait.map(|wait| Hold { scope: BudgetScope::Account, wait }).into_iter().collect()
}
