//! `/admin/log-filter`: which log lines are written, changed at run time and for a time only, so that a debug session ends by itself.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Serialize;

use crate::api::{json as strict, span};
use crate::problem::Problem;
use crate::reply::{self, Reply};
use crate::shared::Shared;

/// The path on the admin listener.
pub(super) const PATH: &str = "/admin/log-filter";
/// How long a filter holds when the call does not say.
const TIME: Duration = Duration::from_secs(10 * 60);
/// The longest that a filter may hold.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest filter, in bytes.
const FILTER_BYTES_MAX: usize = 1024;

/// The filter that holds.
#[derive(Serialize)]
struct Shown {
    filter: String,
    /// Seconds until the configured filter holds again; null: this is the configured one.
    #[serde(rename = "for_s")]
    seconds: Option<u64>,
}

/// The verb that a request has, when the path takes it, or the one to name.
pub(super) fn verb(method: &Method) -> Method {
    match *method {
        Method::PUT | Method::DELETE => method.clone(),
        _ => Method::GET,
    }
}

/// `GET` shows it, `PUT {"filter", "for"}` changes it for a time, `DELETE` goes back to the configured one.
pub(super) fn handle(shared: &Shared, method: &Method, body: &[u8]) -> Result<Reply, Problem> {
    let control = shared.parts.admin.log_filter.as_ref().ok_or_else(Problem::not_found)?;
    if *method == Method::PUT {
        let map = strict::parse_object(body)?;
        let mut reader = strict::Reader::new(&map, "");
        reader.require("filter");
        let filter = reader.text("filter", FILTER_BYTES_MAX);
        let time = reader.text("for", 64).map(|text| span::parse(text).filter(|time| *time <= TIME_MAX));
        if time == Some(None) {
            reader.fault("for", "must be a length of time of at most 24h, such as 10m");
        }
        let filter = filter.map(ToOwned::to_owned);
        reader.finish()?;
        let filter = filter.unwrap_or_default();
        control.set(&filter, time.flatten().unwrap_or(TIME)).map_err(|fault| Problem::fault("/filter", fault))?;
        tracing::info!(filter, "log filter changed");
    } else if *method == Method::DELETE {
        control.reset();
        tracing::info!("log filter reset");
    }
    let (filter, rest) = control.now();
    let shown = Shown { filter, seconds: rest.map(|rest| rest.as_secs()) };
    Ok(reply::json_text(StatusCode::OK, serde_json::to_string(&shown).expect("a text and a number serialise")))
}
