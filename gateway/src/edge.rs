//! From a request to its answer: bounds, route, access, body, handler, metrics. Nothing here knows what a route does.

use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use messaging::channels::meta::signed_request::Callback;
use messaging::metrics::{self, CodeClass, Listener, Route as Label, ShedReason};
use messaging::supervise::caught_in;

use crate::access;
use crate::admin;
use crate::api::{self, Call};
use crate::body::{self, BodyError};
use crate::callbacks;
use crate::hooks;
use crate::media;
use crate::options::{HEADER_BYTES_MAX, HEADERS_MAX, URI_BYTES_MAX};
use crate::overload::Sharer;
use crate::problem::{self, Code, Problem, jittered_wait};
use crate::reply::Reply;
use crate::routes::{self, Access, BodyLimit, Found, Handler, Route, Verb};
use crate::server::worker::Worker;

/// Answers a request, whatever happens in its handler.
pub(crate) async fn handle(worker: &Rc<Worker>, request: Request<Incoming>) -> Reply {
    let started = Instant::now();
    let method = access::method(request.method());
    let request_id = worker.request_id(request.headers());
    let in_flight = InFlight::new(worker);
    let mut label = Label::Unmatched;
    let answered = caught_in(pin!(answer(worker, request, &request_id, in_flight.count, started, &mut label))).await;
    let mut reply = answered.unwrap_or_else(|panicked| {
        tracing::error!(request_id, at = panicked.at, "a request's handler panicked");
        Problem::new(Code::Internal, "the request could not be served").reply(&worker.shared.options.public_url, &request_id)
    });
    let share = worker.shared.options.access_log_sample;
    if share > 0.0 {
        let (listener, route, status, took) = (worker.listener, label, reply.status(), started.elapsed());
        access::log(share, &access::Line { listener, method, route, status, took, request_id: &request_id });
    }
    if let Ok(value) = HeaderValue::try_from(request_id) {
        reply.headers_mut().insert("x-request-id", value);
    }
    let class = CodeClass::of(reply.status().as_u16());
    let listener = worker.listener.index();
    metrics::HTTP_REQUESTS.at([listener, label.index(), class.index()]).increment(1);
    metrics::HTTP_REQUEST_DURATION_SECONDS.at([listener, label.index()]).record(started.elapsed().as_secs_f64());
    reply
}

/// Counts a request while it is served, also when its client goes away.
struct InFlight<'w> {
    worker: &'w Worker,
    count: usize,
}

impl<'w> InFlight<'w> {
    fn new(worker: &'w Worker) -> Self {
        let count = worker.shared.bounds.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::HTTP_REQUESTS_IN_FLIGHT.at([worker.listener.index()]).increment(1.0);
        Self { worker, count }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.worker.shared.bounds.in_flight.fetch_sub(1, Ordering::Relaxed);
        metrics::HTTP_REQUESTS_IN_FLIGHT.at([self.worker.listener.index()]).decrement(1.0);
    }
}

fn shed(worker: &Worker, reason: ShedReason) {
    metrics::HTTP_SHED.at([worker.listener.index(), reason.index()]).increment(1);
}

async fn answer(
    worker: &Rc<Worker>,
    request: Request<Incoming>,
    request_id: &str,
    in_flight: usize,
    started: Instant,
    label: &mut Label,
) -> Reply {
    let shared = &worker.shared;
    let served = match worker.listener {
        Listener::Admin => Box::pin(admin::handle(worker, request, label)).await,
        Listener::Public if in_flight > shared.options.http.max_in_flight => {
            shed(worker, ShedReason::InFlight);
            Err(Problem::new(Code::Overloaded, "too many requests at once"))
        }
        Listener::Public if shared.closing.load(Ordering::Relaxed) => {
            shed(worker, ShedReason::Draining);
            Err(Problem::new(Code::Draining, "this process is stopping").header(header::CONNECTION, HeaderValue::from_static("close")))
        }
        Listener::Public => public(worker, request, request_id, started, label).await,
    };
    served.unwrap_or_else(|problem| problem.reply(&shared.options.public_url, request_id))
}

/// What is wrong with a request before anybody looks at its route.
pub(crate) fn check_head(request: &Request<Incoming>) -> Result<(), Problem> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > URI_BYTES_MAX {
        return Err(Problem::new(Code::UriTooLong, "the request target has more than 8 KiB"));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX || headers.len() > HEADERS_MAX {
        return Err(Problem::new(Code::HeadersTooLarge, "the header has more than 100 fields or 32 KiB"));
    }
    if request.version() <= Version::HTTP_11 && headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Problem::new(Code::Malformed, "there is more than one Host"));
    }
    if request.version() == Version::HTTP_11 && !headers.contains_key(header::HOST) {
        return Err(Problem::new(Code::Malformed, "there is no Host"));
    }
    Ok(())
}

/// Everything but a webhook is boxed: a future is as large as the largest that it may hold, and is moved several times per request.
/// (`a_webhooks_future_is_small`)
async fn public(
    worker: &Rc<Worker>,
    request: Request<Incoming>,
    request_id: &str,
    started: Instant,
    label: &mut Label,
) -> Result<Reply, Problem> {
    check_head(&request)?;
    let (head, incoming) = request.into_parts();
    let path = head.uri.path();
    let (route, params) = match routes::find(&head.method, path) {
        Found::Route(route, params) => (route, params),
        Found::OtherMethod(verbs) => return Err(other_method(&verbs)),
        Found::Nothing => return Err(Problem::not_found()),
    };
    *label = route.label;
    match (route.handler, route.access) {
        (Handler::Hook, _) => Ok(hooks::handle(worker, &head, params, incoming, started).await),
        (Handler::DataDeletion, _) => Ok(Box::pin(callbacks::handle(worker, Callback::DataDeletion, params[0], incoming)).await),
        (Handler::Deauthorize, _) => Ok(Box::pin(callbacks::handle(worker, Callback::Deauthorize, params[0], incoming)).await),
        (Handler::DeletionPage, _) => callbacks::page(params[0]).ok_or_else(Problem::not_found),
        (Handler::ProblemPage, _) => Code::from_name(params[0]).map(problem::page).ok_or_else(Problem::not_found),
        (Handler::LinkedMedia, _) => Box::pin(media::linked(&worker.shared, &head.headers, params[0])).await,
        (handler, Access::Key(scope)) => {
            let mut call = Call::authenticate(worker, &head.headers, request_id, started, scope)?;
            call.route = route.template;
            call.params = params;
            call.query = head.uri.query().unwrap_or("");
            let Some(_taken) = worker.take_in(Sharer::of(Some(call.tenant())), false) else {
                return Err(Problem::new(Code::Overloaded, "requests wait too long for their turn").retry_after(jittered_wait()));
            };
            if handler == Handler::UploadMedia {
                return Box::pin(media::upload(&call, incoming)).await;
            }
            call.body = Box::pin(api_body(worker, route, &head.headers, incoming)).await?;
            Box::pin(api::serve(route.handler, &call)).await
        }
        (_, Access::Open) => Err(Problem::not_found()),
    }
}

fn other_method(verbs: &[Verb]) -> Problem {
    let allow = verbs.iter().map(|verb| verb.name()).collect::<Vec<_>>().join(", ");
    let value = HeaderValue::try_from(&allow).expect("method names are visible ASCII");
    Problem::new(Code::MethodNotAllowed, format!("this path takes {allow}")).header(header::ALLOW, value)
}

async fn api_body(worker: &Worker, route: &Route, headers: &HeaderMap, incoming: Incoming) -> Result<Bytes, Problem> {
    let limits = &worker.shared.options.http;
    let max = match route.body {
        BodyLimit::Hook => limits.max_hook_body,
        BodyLimit::Api => limits.max_api_body,
        BodyLimit::Batch => limits.max_batch_body,
        BodyLimit::Media => return Err(Problem::not_found()),
    };
    if is_encoded(headers) {
        return Err(Problem::new(Code::UnsupportedMediaType, "content encodings are not taken"));
    }
    let body = body::collect(incoming, max, limits.body_timeout, &worker.shared.bounds).await.map_err(|error| match error {
        BodyError::TooLarge => Problem::new(Code::PayloadTooLarge, format!("the body has more than {max} bytes"))
            .header(header::CONNECTION, HeaderValue::from_static("close")),
        BodyError::Timeout => {
            shed(worker, ShedReason::BodyTimeout);
            Problem::new(Code::Timeout, "the body did not come in time").header(header::CONNECTION, HeaderValue::from_static("close"))
        }
        BodyError::Broken => Problem::new(Code::Malformed, "the body is broken off or framed wrongly"),
        BodyError::Busy => {
            shed(worker, ShedReason::InFlight);
            Problem::new(Code::Overloaded, "too many bodies are arriving").header(header::CONNECTION, HeaderValue::from_static("close"))
        }
    })?;
    metrics::HTTP_REQUEST_SIZE_BYTES.at([worker.listener.index()]).record(body.len() as f64);
    if !body.is_empty() && !is_json(headers) {
        return Err(Problem::new(Code::UnsupportedMediaType, "the body is to be application/json"));
    }
    Ok(body)
}

/// Whether the body is encoded in a way that would have to be undone.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let text = value.to_str().unwrap_or("");
    let essence = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "application/merge-patch+json" | "application/x-ndjson" | "application/ndjson")
}

/// A status that says nothing more, for strangers.
pub(crate) fn bare(status: u16) -> Reply {
    crate::reply::empty(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_webhooks_future_is_small() {
        let bytes = future_bytes(|worker: &'static Rc<Worker>, request: Request<Incoming>| handle(worker, request));
        assert!(bytes <= 3072, "{bytes} bytes are moved with every request");
    }
}
