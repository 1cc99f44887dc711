//! The admin listener: health, metrics, drain. Loopback by default, and never on the public address.

mod first_key;
mod log_filter;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use messaging::metrics::{self, Component, Route as Label};
use messaging::tenant::Scope;
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;

pub use first_key::first_key;

use crate::api::{bearer, json as strict, span};
use crate::body;
use crate::edge::check_head;
use crate::options::TailLines;
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply, ReplyBody};
use crate::server::worker::Worker;
use crate::shared::Shared;

/// Largest body of an admin request.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long readiness waits for the store's answer.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

/// A tail over a broadcast: each value is one line of JSON. Lines are lost when the reader is slow.
pub fn tail_of<T: Serialize + Clone + Send + 'static>(sender: Arc<broadcast::Sender<T>>) -> Arc<dyn Fn() -> TailLines + Send + Sync> {
    Arc::new(move || {
        let lines = stream::unfold(sender.subscribe(), |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(value) => return serde_json::to_string(&value).ok().map(|line| (line, receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Box::pin(lines)
    })
}

/// Answers a request of the admin listener.
pub(crate) async fn handle(worker: &Rc<Worker>, request: Request<Incoming>, label: &mut Label) -> Result<Reply, Problem> {
    check_head(&request)?;
    let shared = &worker.shared;
    let (head, incoming) = request.into_parts();
    let (wanted, route) = match head.uri.path() {
        "/livez" | "/readyz" => (Method::GET, Label::Health),
        "/metrics" => (Method::GET, Label::Metrics),
        "/admin/tail" => (Method::GET, Label::Admin),
        "/admin/clock" | "/admin/drain" => (Method::POST, Label::Admin),
        log_filter::PATH => (log_filter::verb(&head.method), Label::Admin),
        _ => return Err(Problem::not_found()),
    };
    *label = route;
    if head.method != wanted {
        let allow = HeaderValue::from_str(wanted.as_str()).expect("method names are visible ASCII");
        return Err(Problem::new(Code::MethodNotAllowed, format!("this path takes {wanted}")).header(header::ALLOW, allow));
    }
    if route == Label::Admin {
        authenticate(shared, &head.headers)?;
    }
    match head.uri.path() {
        "/livez" => Ok(reply::typed(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".into())),
        "/readyz" => {
            Ok(readiness(shared, head.uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("verbose")))).await)
        }
        "/metrics" => exposition(shared),
        "/admin/tail" => tail(shared),
        "/admin/clock" => {
            let body = body::collect(incoming, BODY_BYTES_MAX, shared.options.http.body_timeout, &shared.bounds)
                .await
                .map_err(|_| Problem::new(Code::Malformed, "the body is too large, too slow or broken off"))?;
            advance_clock(shared, &body)
        }
        "/admin/drain" => Ok(drain(shared)),
        log_filter::PATH => {
            let body = body::collect(incoming, BODY_BYTES_MAX, shared.options.http.body_timeout, &shared.bounds)
                .await
                .map_err(|_| Problem::new(Code::Malformed, "the body is too large, too slow or broken off"))?;
            log_filter::handle(shared, &head.method, &body)
        }
        _ => Err(Problem::not_found()),
    }
}

fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<(), Problem> {
    let directory = shared.parts.keeper.shared().load();
    let caller = bearer(headers)
        .and_then(|key| directory.authenticate(key, shared.parts.keyring.ids(), shared.now()))
        .ok_or_else(|| Problem::new(Code::Unauthenticated, "send Authorization: Bearer with an admin key"))?;
    if caller.scopes.contains(Scope::Admin) { Ok(()) } else { Err(Problem::new(Code::Forbidden, "this needs the scope admin")) }
}

/// Ready means: new requests can be taken. The store is asked and shown, but ingress goes on without it.
async fn readiness(shared: &Shared, verbose: bool) -> Reply {
    let is_draining = shared.draining.load(Ordering::SeqCst);
    let log = shared.parts.log.writable();
    let directory = shared.parts.keeper.shared().load().version > 0;
    let asked = tokio::time::timeout(STORE_PATIENCE, shared.parts.store.directory_version()).await;
    let store = matches!(asked, Ok(Ok(_)));
    let mut components: Vec<(&str, bool, bool)> =
        vec![("draining", !is_draining, true), ("log", log, true), ("directory", directory, true), ("store", store, false)];
    let mut reasons = Vec::new();
    for (name, is_ready) in &shared.parts.admin.ready {
        let answer = is_ready();
        components.push((name, answer.is_ok(), true));
        reasons.extend(answer.err().map(|reason| format!("{name}: {reason}\n")));
    }
    for (component, is_ready) in
        [(Component::Log, log), (Component::Directory, directory), (Component::Store, store), (Component::Gateway, !is_draining)]
    {
        metrics::COMPONENT_READY.at([component.index()]).set(f64::from(u8::from(is_ready)));
    }
    let is_ready = components.iter().all(|(_, is_ready, is_needed)| *is_ready || !is_needed);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = String::new();
    if verbose || !is_ready {
        for (name, is_ready, is_needed) in components {
            let state = match (is_ready, is_needed) {
                (true, _) => "ok",
                (false, true) => "not ready",
                (false, false) => "away, served without",
            };
            text.push_str(&format!("{name}: {state}\n"));
        }
        text.extend(reasons);
    }
    text.push_str(if is_ready { "ready\n" } else { "not ready\n" });
    reply::typed(status, "text/plain; charset=utf-8", text.into())
}

fn exposition(shared: &Shared) -> Result<Reply, Problem> {
    let render = shared.parts.admin.metrics.as_ref().ok_or_else(Problem::not_found)?;
    Ok(reply::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", render().into()))
}

fn tail(shared: &Shared) -> Result<Reply, Problem> {
    let begin = shared.parts.admin.tail.as_ref().ok_or_else(Problem::not_found)?;
    let lines = begin().map(|line| Bytes::from(line + "\n"));
    let mut reply = Reply::new(ReplyBody::Stream(Box::pin(lines)));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(reply)
}

fn advance_clock(shared: &Shared, body: &[u8]) -> Result<Reply, Problem> {
    let advance = shared.parts.admin.advance_clock.as_ref().ok_or_else(Problem::not_found)?;
    let map = strict::parse_object(body)?;
    let mut reader = strict::Reader::new(&map, "");
    reader.require("advance");
    let by = reader.text("advance", 64).and_then(span::parse);
    if by.is_none() && reader.has("advance") {
        reader.fault("advance", "must be a length of time such as 90s or 25h");
    }
    reader.finish()?;
    advance(by.unwrap_or_default());
    Ok(reply::json(StatusCode::OK, &json!({"now": shared.now()})))
}

fn drain(shared: &Shared) -> Reply {
    match &shared.parts.admin.drain {
        Some(drain) => drain(),
        None => shared.drain_asked.notify_one(),
    }
    reply::json(StatusCode::ACCEPTED, &json!({"draining": true}))
}
