//! What an answer means. Discord's own code decides; the status alone where there is no such body.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::send::{opens, token};
use super::{CHANNEL, check};
use crate::channels::{Hold, Outgoing};
use crate::content::Handle;
use crate::exchange::HttpResponse;
use crate::limit::BudgetScope;
use crate::outcome::{Reason, Throttled, Verdict};

/// Longest wait that is believed; after it the next try tells again.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);
/// How long to leave off when conversations were opened too fast and no wait is told.
const OPENING_WAIT: Duration = Duration::from_secs(60);
/// How long to leave off when the network in front of Discord shut us out: it counts refusals over ten minutes.
const SHUT_OUT_WAIT: Duration = Duration::from_secs(10 * 60);
/// Longest text of Discord's that is kept, characters.
const DETAIL_CHARS_MAX: usize = 160;
/// Digits in a row that make a word look like the id of a person.
const PERSONAL_DIGITS: usize = 6;

/// Discord's codes.
mod codes {
    pub const UNKNOWN_CHANNEL: u64 = 10_003;
    pub const UNKNOWN_USER: u64 = 10_013;
    pub const SLOW_MODE: u64 = 20_016;
    pub const CHANNEL_WRITES: u64 = 20_028;
    pub const OPENING_TOO_FAST: u64 = 40_003;
    pub const ACKNOWLEDGED: u64 = 40_060;
    pub const FOLLOW_UPS_USED: u64 = 40_094;
    pub const NO_ACCESS: u64 = 50_001;
    pub const CANNOT_WRITE: u64 = 50_007;
    pub const NO_PERMISSION: u64 = 50_013;
    pub const NO_COMMON_GUILD: u64 = 50_278;
    pub const OVERLOADED: u64 = 130_000;
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: Option<u64>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    retry_after: Option<f64>,
    #[serde(default)]
    global: Option<bool>,
}

pub(super) fn outcome(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    match response.status {
        204 => Verdict::Sent { platform_id: None, handles: Vec::new() },
        200..=299 => taken(send, response),
        _ => refused(send, response),
    }
}

fn taken(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    let body = serde_json::from_slice::<Value>(&response.body).ok();
    let id = body.as_ref().and_then(|body| body.get("id")).and_then(Value::as_str).filter(|id| check::is_id(id));
    match id {
        // The direct conversation stands open: what is to be said goes there.
        Some(id) if opens(send) => Verdict::Moved { to: Handle::new(CHANNEL, id) },
        Some(id) => Verdict::Sent { platform_id: Some(id.to_owned()), handles: Vec::new() },
        // Opening a conversation says nothing to anybody: it can be done again.
        None if opens(send) => again(Reason::ServerError, Throttled::Conversation, None, "2xx without a channel".to_owned()),
        None => Verdict::Unknown { reason: Reason::ServerError, detail: format!("http {} without a message", response.status) },
    }
}

fn again(reason: Reason, hold: Throttled, after: Option<Duration>, detail: String) -> Verdict {
    Verdict::RetryLater { reason, hold, after, detail }
}

fn refused(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    let Ok(refusal) = serde_json::from_slice::<Refusal>(&response.body) else { return without_body(send, response) };
    let code = refusal.code.unwrap_or(0);
    let detail = detail(response.status, code, refusal.message.as_deref().unwrap_or_default());
    let after = wait(response, Some(&refusal));
    let refuse = |reason| Verdict::Refused { reason, detail: detail.clone() };
    match code {
        codes::ACKNOWLEDGED => return Verdict::Sent { platform_id: None, handles: Vec::new() },
        codes::UNKNOWN_CHANNEL | codes::UNKNOWN_USER | codes::CANNOT_WRITE | codes::NO_COMMON_GUILD => {
            return refuse(Reason::RecipientInvalid);
        }
        // An application that only persons have installed: five answers to one interaction.
        codes::FOLLOW_UPS_USED => return refuse(Reason::QuotaExceeded),
        // Neither will the next message to this channel be taken.
        codes::NO_ACCESS | codes::NO_PERMISSION => return refuse(Reason::RecipientInvalid),
        codes::SLOW_MODE | codes::CHANNEL_WRITES => return again(Reason::RateLimited, Throttled::Conversation, after, detail),
        codes::OPENING_TOO_FAST => {
            return again(Reason::RateLimited, Throttled::Conversation, after.or(Some(OPENING_WAIT)), detail);
        }
        codes::OVERLOADED => return again(Reason::ServerError, Throttled::Conversation, after, detail),
        _ => {}
    }
    match response.status {
        429 => {
            let hold = if is_global(response, Some(&refusal)) { Throttled::App } else { Throttled::Conversation };
            again(Reason::RateLimited, hold, after, detail)
        }
        // The token of an interaction is not the bot's.
        401 if token(send).is_some() => refuse(Reason::Rejected),
        401 => refuse(Reason::Auth),
        300..=499 => refuse(Reason::Rejected),
        _ if opens(send) => again(Reason::ServerError, Throttled::Conversation, after, detail),
        _ => Verdict::Unknown { reason: Reason::ServerError, detail },
    }
}

/// An answer that is not Discord's: of the network in front of it, or damaged.
fn without_body(send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
    let detail = format!("http {}, no JSON", response.status);
    match response.status {
        // Too many refusals of one address of ours: everything from there is shut out for a while.
        403 | 429 => again(Reason::RateLimited, Throttled::App, wait(response, None).or(Some(SHUT_OUT_WAIT)), detail),
        401 if token(send).is_none() => Verdict::Refused { reason: Reason::Auth, detail },
        300..=499 => Verdict::Refused { reason: Reason::Rejected, detail },
        _ if opens(send) => again(Reason::ServerError, Throttled::Conversation, None, detail),
        _ => Verdict::Unknown { reason: Reason::ServerError, detail },
    }
}

fn header<'r>(response: &'r HttpResponse, name: &str) -> Option<&'r str> {
    response.headers.get(name)?.to_str().ok()
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok().map(|wait| wait.min(WAIT_MAX))
}

/// The wait that an answer asks for: the body's is exact, the header's in whole seconds.
fn wait(response: &HttpResponse, refusal: Option<&Refusal>) -> Option<Duration> {
    let told = refusal.and_then(|refusal| refusal.retry_after).and_then(seconds);
    told.or_else(|| response.retry_after.map(|wait| wait.min(WAIT_MAX)))
}

fn is_global(response: &HttpResponse, refusal: Option<&Refusal>) -> bool {
    header(response, "x-ratelimit-scope") == Some("global")
        || header(response, "x-ratelimit-global").is_some()
        || refusal.and_then(|refusal| refusal.global) == Some(true)
}

/// The bucket that an answer says is empty, and until when. Buckets are learnt from answers only.
pub(super) fn holds(response: &HttpResponse) -> Vec<Hold> {
    if response.status == 429 {
        let refusal = serde_json::from_slice::<Refusal>(&response.body).ok();
        let scope = match refusal {
            Some(ref refusal) if !is_global(response, Some(refusal)) => BudgetScope::Route,
            Some(_) | None => BudgetScope::App,
        };
        return wait(response, refusal.as_ref()).map(|wait| Hold { scope, wait }).into_iter().collect();
    }
    let refusal = serde_json::from_slice::<Refusal>(&response.body).ok();
    if response.status >= 400 && refusal.as_ref().and_then(|refusal| refusal.code) == Some(codes::OPENING_TOO_FAST) {
        let wait = wait(response, refusal.as_ref()).unwrap_or(OPENING_WAIT);
        return vec![Hold { scope: BudgetScope::Route, wait }];
    }
    if header(response, "x-ratelimit-remaining") != Some("0") {
        return Vec::new();
    }
    let reset = header(response, "x-ratelimit-reset-after").and_then(|text| text.parse().ok()).and_then(seconds);
    reset.filter(|wait| !wait.is_zero()).map(|wait| Hold { scope: BudgetScope::Route, wait }).into_iter().collect()
}

/// Code and words without what may be personal: long numbers, links.
fn detail(status: u16, code: u64, message: &str) -> String {
    let mut kept = format!("{status} {code}");
    for word in message.split_whitespace() {
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let hidden = digits >= PERSONAL_DIGITS || word.contains("://") || word.contains('@');
        kept.push(' ');
        kept.push_str(if hidden { "…" } else { word });
    }
    kept.chars().take(DETAIL_CHARS_MAX).collect()
}
