//! The access log: one line for a share of the requests, and for every 5xx. It names the route's label, never a path: paths and queries
//! of strangers hold tokens.

use std::time::Duration;

use http::{Method, StatusCode};
use messaging::metrics::{Listener, Route};

/// What a line says.
pub(crate) struct Line<'a> {
    pub listener: Listener,
    pub method: &'static str,
    pub route: Route,
    pub status: StatusCode,
    pub took: Duration,
    pub request_id: &'a str,
}

/// The name of a method, without what strangers make up.
pub(crate) fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Whether a request gets a line. `share` is `telemetry.access_log_sample`, `unit` is drawn from 0 to 1.
fn is_chosen(share: f64, status: StatusCode, unit: f64) -> bool {
    share > 0.0 && (status.is_server_error() || unit < share)
}

/// Writes the line of a request, when it gets one.
pub(crate) fn log(share: f64, line: &Line<'_>) {
    if share <= 0.0 || !is_chosen(share, line.status, messaging::seal::random_unit()) {
        return;
    }
    tracing::info!(
        target: "access",
        listener = line.listener.name(),
        method = line.method,
        route = line.route.name(),
        code = line.status.as_u16(),
        duration_s = line.took.as_secs_f64(),
        request_id = line.request_id,
        "request"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_requests_and_every_failure_of_ours() {
        let table = [
            (0.0, 200, 0.0, false),
            (0.0, 503, 0.0, false),
            (0.01, 200, 0.005, true),
            (0.01, 200, 0.01, false),
            (0.01, 404, 0.5, false),
            (0.01, 503, 0.999, true),
            (1.0, 200, 0.999, true),
        ];
        for (share, status, unit, expected) in table {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_chosen(share, status, unit), expected, "{share} {status} {unit}");
        }
    }
}
