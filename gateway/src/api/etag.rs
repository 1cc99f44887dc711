//! Strong entity tags from a row's revision.

use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::Call;
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

fn text(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn names(value: &HeaderValue, revision: u64) -> bool {
    let wanted = text(revision);
    value.to_str().is_ok_and(|list| list.split(',').any(|tag| tag.trim() == "*" || tag.trim() == wanted))
}

/// A row with its tag; 304 when the caller has it already.
pub fn show(call: &Call<'_>, status: StatusCode, revision: u64, body: &Value) -> Reply {
    let has_it = call.headers.get(header::IF_NONE_MATCH).is_some_and(|value| names(value, revision));
    let mut reply = if has_it && status == StatusCode::OK { reply::empty(StatusCode::NOT_MODIFIED) } else { reply::json(status, body) };
    let tag = HeaderValue::try_from(text(revision)).expect("digits and quotes are visible ASCII");
    reply.headers_mut().insert(header::ETAG, tag);
    reply
}

/// Whether the caller's precondition holds for a row of this revision.
pub fn check(call: &Call<'_>, revision: u64) -> Result<(), Problem> {
    match call.headers.get(header::IF_MATCH) {
        Some(value) if !names(value, revision) => {
            Err(Problem::new(Code::PreconditionFailed, format!("the present version is {}", text(revision))))
        }
        Some(_) | None => Ok(()),
    }
}
