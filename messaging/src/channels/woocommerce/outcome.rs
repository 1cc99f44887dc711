//! What a shop's answer means. Errors of the REST API have a code of text; anything else is of the hosting in front of it.

use serde_json::Value;

use crate::exchange::HttpResponse;
use crate::outcome::{Reason, Throttled, Verdict};

/// Longest code that is kept, in characters.
const CODE_CHARS_MAX: usize = 80;

/// The REST API's own code of an error.
pub(super) fn code(response: &HttpResponse) -> Option<String> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let code: String = body.get("code")?.as_str()?.chars().filter(is_plain).take(CODE_CHARS_MAX).collect();
    Some(code).filter(|code| !code.is_empty())
}

/// The status and the code: the message may name people.
pub(super) fn detail(response: &HttpResponse, code: Option<&str>) -> String {
    code.map_or_else(|| format!("http {}", response.status), |code| format!("http {}: {code}", response.status))
}

/// Whether the keys are wrong or may not do it. A firewall in front says 403 as well, without a code.
pub(super) fn is_about_keys(status: u16, code: Option<&str>) -> bool {
    status == 401 || (status == 403 && code.is_some_and(|code| code.starts_with("woocommerce_rest_") || code.starts_with("rest_")))
}

pub(super) fn outcome(response: &HttpResponse) -> Verdict {
    let code = code(response);
    let detail = detail(response, code.as_deref());
    let refused = |reason| Verdict::Refused { reason, detail: detail.clone() };
    match (response.status, code.as_deref()) {
        (200..=299, _) => accepted(response),
        (status, code) if is_about_keys(status, code) => refused(Reason::Auth),
        (404, Some(code)) if code.ends_with("_invalid_id") => refused(Reason::RecipientInvalid),
        // No shop at this address: nothing of this account can go.
        (404, Some("rest_no_route")) => refused(Reason::AccountDisabled),
        (429, _) => later(response, Reason::RateLimited, detail),
        // Said before the request was taken: by the server, or by WordPress while it is updated.
        (408, _) => later(response, Reason::ServerError, detail),
        (503, _) if response.retry_after.is_some() => later(response, Reason::ServerError, detail),
        (300..=499, _) => refused(Reason::Rejected),
        _ => Verdict::Unknown { reason: Reason::ServerError, detail },
    }
}

fn later(response: &HttpResponse, reason: Reason, detail: String) -> Verdict {
    Verdict::RetryLater { reason, hold: Throttled::Account, after: response.retry_after, detail }
}

fn accepted(response: &HttpResponse) -> Verdict {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    match body.get("id").and_then(Value::as_u64) {
        Some(note) => Verdict::Sent { platform_id: Some(note.to_string()), handles: Vec::new() },
        None => Verdict::Unknown { reason: Reason::ServerError, detail: format!("http {} without a note", response.status) },
    }
}
