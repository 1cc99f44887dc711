//! A delivery: the signed request to an endpoint, and what its answer means.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use messaging::clock::Timestamp;
use messaging::directory::{Endpoint, EndpointState};
use messaging::exchange::HttpRequest;
use messaging::ids::EndpointId;
use messaging::limit::{Admission, Budget, BudgetKey, BudgetScope};
use messaging::metrics;

use crate::breaker::Breaker;
use crate::egress::{CallError, ErrorKind, Sent};
use crate::lane::{Lane, LeaseClock};
use crate::plan::{Delivery, Destination, TailLine, Task, TaskEnd, Work};

/// How long a paused endpoint's deliveries wait before it is looked at again.
const PAUSED_LOOK: Duration = Duration::from_secs(5);

/// The endpoint's budget; `Some`: wait, and the whole lane waits.
pub fn admit(lane: &Lane, id: EndpointId) -> Option<(Duration, bool)> {
    let directory = lane.parts.directory.load();
    let endpoint = directory.endpoint(id)?;
    match endpoint.row.state {
        EndpointState::Active | EndpointState::Disabled => {}
        EndpointState::Paused => return Some((PAUSED_LOOK, true)),
    }
    let rate = endpoint.row.rate_per_second;
    if rate == 0 {
        return None;
    }
    let budget = Budget { scope: BudgetScope::Endpoint, rate_per_second: f64::from(rate), burst: rate };
    match lane.parts.limit.admit(&[(BudgetKey { scope: BudgetScope::Endpoint, owner: id.0 }, budget)]) {
        Admission::Go => None,
        Admission::Wait { wait, .. } => Some((wait, true)),
    }
}

/// One try.
pub async fn attempt(lane: &Lane, task: &Task, lease: &LeaseClock) -> TaskEnd {
    let Work::Deliver(delivery) = &task.work else { return TaskEnd::Withdrawn };
    let settings = &lane.parts.webhooks;
    let started = lane.parts.clock.now();
    let (request, timeout) = {
        let directory = lane.parts.directory.load();
        let gone = directory.endpoint(delivery.endpoint).filter(|endpoint| endpoint.row.state != EndpointState::Disabled);
        let Some(endpoint) = gone else { return note(lane, task, TaskEnd::EndpointGone, false, started) };
        let timeout = if endpoint.row.timeout_ms == 0 { settings.timeout } else { Duration::from_millis(endpoint.row.timeout_ms) };
        (request(lane, endpoint, delivery, task, started), timeout)
    };
    // The last look before the socket: what a router that was paused past its lease still had in hand, its successor has delivered.
    if !lease.holds(lane.parts.clock.monotonic()) {
        let end = TaskEnd::Deferred { until: lane.parts.clock.now(), whole: false };
        return note(lane, task, end, false, started);
    }
    if task.attempts == 0 {
        metrics::WEBHOOK_FIRST_ATTEMPT_DELAY_SECONDS.at([]).record(started.since(task.accepted_at).as_secs_f64());
    }
    let answer = lane.call(request, timeout, settings.max_response).await;
    if let Ok(sent) = &answer {
        metrics::WEBHOOK_CONNECTIONS.at([usize::from(sent.reused)]).increment(1);
        metrics::WEBHOOK_RESPONSE_SIZE_BYTES.at([]).record(sent.response.body.len() as f64);
    }
    let now = lane.parts.clock.now();
    let took = now.since(started);
    let (outcome, end) = judge(answer);
    let busy = outcome == metrics::AttemptOutcome::RateLimited.index();
    metrics::WEBHOOK_ATTEMPTS.at([outcome]).increment(1);
    metrics::WEBHOOK_ATTEMPT_DURATION_SECONDS.at([outcome]).record(took.as_secs_f64());
    let end = note(lane, task, end, busy, now);
    if matches!(end, TaskEnd::Delivered { .. }) {
        let age = now.since(task.accepted_at);
        metrics::WEBHOOK_DELIVERY_AGE_SECONDS.at([]).record(age.as_secs_f64());
    }
    tail(lane, delivery, task, outcome, took);
    end
}

fn tail(lane: &Lane, delivery: &Delivery, task: &Task, outcome: usize, took: Duration) {
    if lane.parts.tail.receiver_count() == 0 {
        return;
    }
    let _ = lane.parts.tail.send(TailLine {
        at: lane.parts.clock.now(),
        what: "delivery",
        target: delivery.endpoint.to_string(),
        subject: delivery.event.id.to_string(),
        outcome: metrics::AttemptOutcome::ALL[outcome].name(),
        attempt: task.attempts + task.repeats + 1,
        millis: took.as_millis() as u64,
    });
}

/// Takes the try into the destination's health; a delivery failure learns whether it was one too many.
fn note(lane: &Lane, task: &Task, end: TaskEnd, busy: bool, now: Timestamp) -> TaskEnd {
    let mut health = messaging::supervise::lock(&lane.health);
    match end {
        TaskEnd::Delivered { .. } => {
            if health.recovery.failing_since().is_some() {
                note_failing(lane, false);
            }
            let recovered = health.recovery.good(now);
            match recovered {
                // What the breaker counted was of the time before.
                Some(_) => {
                    health.breaker = Breaker::default();
                    note_recovered(lane);
                }
                None => drop(health.breaker.record(now, true)),
            }
            TaskEnd::Delivered { recovered }
        }
        TaskEnd::DeliveryFailed { after, .. } => {
            health.breaker.record(now, false);
            if health.recovery.failing_since().is_none() {
                note_failing(lane, true);
            }
            let first = if task.parked_at == Timestamp::ZERO { now } else { task.parked_at };
            health.recovery.bad(first, now, after, busy);
            let since = health.recovery.failing_since().unwrap_or(now);
            let disable = now.since(since) >= lane.parts.webhooks.disable_after;
            TaskEnd::DeliveryFailed { after, probe: health.recovery.next_probe(), disable }
        }
        TaskEnd::EndpointGone | TaskEnd::Judged { .. } | TaskEnd::Deferred { .. } | TaskEnd::Withdrawn | TaskEnd::Panicked => {
            health.recovery.not_made();
            end
        }
    }
}

fn note_recovered(lane: &Lane) {
    match lane.destination {
        Destination::Endpoint(endpoint) => lane.parts.recoveries.note(endpoint),
        Destination::Account(..) => {}
    }
}

fn note_failing(lane: &Lane, failed: bool) {
    match lane.destination {
        Destination::Endpoint(endpoint) => lane.parts.recoveries.note_attempt(endpoint, failed),
        Destination::Account(..) => {}
    }
}

fn request(lane: &Lane, endpoint: &Endpoint, delivery: &Delivery, task: &Task, now: Timestamp) -> HttpRequest {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(12);
    for (name, value) in &endpoint.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.expose())) {
            headers.push((name, value));
        }
    }
    headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    headers.push((USER_AGENT, lane.parts.webhooks.user_agent.clone()));
    let id = delivery.event.id.to_string();
    match lane.signer(endpoint, now).and_then(|signer| signer.headers(&id, now.as_secs(), &delivery.body)) {
        Ok(signature) => headers.extend(signature),
        Err(error) => tracing::error!(endpoint = %endpoint.row.id, %error, "delivery not signed"),
    }
    headers.push((HeaderName::from_static("trunkline-attempt"), HeaderValue::from(task.attempts + task.repeats + 1)));
    headers.push((HeaderName::from_static("trunkline-sequence"), HeaderValue::from(delivery.sequence)));
    let conversation = HeaderValue::try_from(task.conversation.to_string()).expect("ids are ASCII");
    headers.push((HeaderName::from_static("trunkline-conversation"), conversation));
    if delivery.gap > 0 {
        headers.push((HeaderName::from_static("trunkline-gap"), HeaderValue::from(delivery.gap)));
    }
    HttpRequest { method: http::Method::POST, url: endpoint.row.url.clone(), headers, body: delivery.body.clone() }
}

fn judge(answer: Result<Sent, CallError>) -> (usize, TaskEnd) {
    use metrics::AttemptOutcome as O;
    let failed = |after| TaskEnd::DeliveryFailed { after, probe: None, disable: false };
    let (outcome, end) = match answer {
        Ok(Sent { response, .. }) => match response.status {
            200..=299 => (O::Success, TaskEnd::Delivered { recovered: None }),
            410 => (O::Gone, TaskEnd::EndpointGone),
            429 => (O::RateLimited, failed(response.retry_after)),
            500..=599 => (O::ServerError, failed(response.retry_after)),
            _ => (O::ClientError, failed(response.retry_after)),
        },
        Err(error) => {
            let outcome = match error.kind {
                ErrorKind::Blocked | ErrorKind::BadRequest => O::AddressBlocked,
                ErrorKind::Resolve | ErrorKind::Connect => O::Connect,
                ErrorKind::Tls => O::Tls,
                ErrorKind::Timeout => O::Timeout,
                ErrorKind::Reset | ErrorKind::BadResponse => O::Connect,
            };
            (outcome, failed(None))
        }
    };
    (outcome.index(), end)
}
