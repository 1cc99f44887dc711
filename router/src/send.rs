//! A send: budgets, intent, lease, the platform's call, and the verdict.

use std::time::Duration;

use messaging::channels::{Outbound, Owner, channel};
use messaging::clock::Timestamp;
use messaging::directory::Account;
use messaging::limit::{Admission, Budget, BudgetKey, BudgetScope};
use messaging::metrics;
use messaging::outcome::{Reason, Throttled, Verdict};
use tokio::sync::{mpsc, oneshot};

use crate::decide::outbound::outgoing;
use crate::egress::{CallError, ErrorKind, Stage};
use crate::lane::{FromLane, Lane, LeaseClock};
use crate::plan::{Sending, TailLine, Task, TaskEnd, Work};
use crate::recovery::Recovery;

/// Most of a platform's answer that is read.
const ANSWER_MAX: usize = 256 * 1024;
/// How long a paused or broken account's sends wait before it is looked at again.
const STOPPED_LOOK: Duration = Duration::from_secs(2);

/// The send's budgets; `Some`: wait, and whether the whole lane does.
pub fn admit(lane: &Lane, task: &Task) -> Option<(Duration, bool)> {
    let Work::Send(sending) = &task.work else { return None };
    let directory = lane.parts.directory.load();
    let account = directory.account_of(task.tenant, sending.account)?;
    if !account.row.state.sends() {
        return Some((STOPPED_LOOK, true));
    }
    let settings = lane.parts.channels.get(&account.channel)?;
    let budgets: Vec<(BudgetKey, Budget)> = channel(account.channel)
        .budgets(settings, &sending.to, &sending.command.content)
        .into_iter()
        .map(|budget| (budget_key(lane, task, sending, account, budget.scope), budget))
        .collect();
    match lane.parts.limit.admit(&budgets) {
        Admission::Go => None,
        Admission::Wait { wait, scope } => Some((wait, !scope.is_narrow())),
    }
}

/// Whose a budget of this send is.
fn budget_key(lane: &Lane, task: &Task, sending: &Sending, account: &Account, scope: BudgetScope) -> BudgetKey {
    let (ids, tenant) = (&lane.parts.ids, task.tenant.id());
    let owner = match channel(account.channel).owner(scope, account, &sending.to) {
        Owner::Pair => ids.conversation(tenant, sending.account, sending.to.expose()).0,
        Owner::Account => sending.account.0,
        Owner::Within(part) => ids.budget_within(tenant, sending.account, &part),
        Owner::Platform(name) => ids.budget_of_platform(account.channel.name(), &name),
    };
    BudgetKey { scope, owner }
}

/// Whether a send's own deadline has passed: then nothing is waited for any more, its shard ends it.
pub fn is_overdue(task: &Task, now: Timestamp) -> bool {
    match &task.work {
        Work::Send(sending) => sending.command.expires_at.is_some_and(|until| now >= until),
        Work::Deliver(_) => false,
    }
}

/// One try.
pub async fn attempt(lane: &Lane, task: &Task, ticket: u64, owner: &mpsc::Sender<FromLane>, lease: &LeaseClock) -> TaskEnd {
    let Work::Send(sending) = &task.work else { return TaskEnd::Withdrawn };
    let account = lane.parts.directory.load().account_of(task.tenant, sending.account).cloned();
    let Some(account) = account else {
        return refused(Reason::AccountDisabled, "the account was removed");
    };
    let Some(settings) = lane.parts.channels.get(&account.channel) else {
        return refused(Reason::AccountDisabled, "the channel is switched off on this node");
    };
    let (go, answer) = oneshot::channel();
    if owner.send(FromLane::Intent { ticket, go }).await.is_err() {
        return TaskEnd::Withdrawn;
    }
    let Ok(Some(mut go)) = answer.await else { return TaskEnd::Withdrawn };
    // The link of when it was accepted may be over: the platform fetches it now.
    for media in go.content.media_mut() {
        if let Some(id) = media.media {
            media.link = lane.parts.media.link(task.tenant, id).or(media.link.take());
        }
    }
    let message = sending.command.message.to_string();
    let outgoing = outgoing(sending, &message, &go, lane.parts.clock.now());
    let outbound = match channel(account.channel).transport(&outgoing, &account, settings) {
        Ok(outbound) => outbound,
        Err(error) => return refused(Reason::Unsendable, &error.0),
    };
    // The last look before the socket: a router that was paused past its lease sends nothing that its successor may send.
    if !lease.holds(lane.parts.clock.monotonic()) {
        return TaskEnd::Withdrawn;
    }
    let started = lane.parts.clock.now();
    if task.attempts == 0 && sending.command.not_before.is_none() {
        let waited = started.since(task.accepted_at).as_secs_f64();
        metrics::PLATFORM_THROTTLE_WAIT_SECONDS.at([account.channel.index()]).record(waited);
    }
    let mut holds = Vec::new();
    let verdict = match outbound {
        Outbound::Http(request) => match lane.call(request, settings.timeout, ANSWER_MAX).await {
            Ok(sent) => {
                holds = channel(account.channel).holds(&outgoing, &sent.response);
                channel(account.channel).outcome(&outgoing, &sent.response)
            }
            Err(error) => verdict_of(error),
        },
        Outbound::Mail(mail) => match lane.submit(*mail, settings.timeout).await {
            Ok(reply) => channel(account.channel).mail_outcome(&outgoing, &account, &reply),
            Err(error) => verdict_of(error),
        },
    };
    let took = lane.parts.clock.now().since(started);
    for hold in holds {
        lane.parts.limit.hold(budget_key(lane, task, sending, &account, hold.scope), hold.wait);
    }
    let outcome = outcome_index(&verdict);
    let operation = operation_index(&go.content);
    metrics::PLATFORM_REQUESTS.at([account.channel.index(), operation, outcome]).increment(1);
    metrics::PLATFORM_REQUEST_DURATION_SECONDS.at([account.channel.index(), operation]).record(took.as_secs_f64());
    feed_back(lane, task, sending, &account, &verdict);
    if lane.parts.tail.receiver_count() > 0 {
        let _ = lane.parts.tail.send(TailLine {
            at: lane.parts.clock.now(),
            what: "send",
            target: account.channel.name().to_owned(),
            subject: message,
            outcome: metrics::PlatformOutcome::ALL[outcome].name(),
            attempt: task.attempts + 1,
            millis: took.as_millis() as u64,
        });
    }
    TaskEnd::Judged { verdict, credential: Some(account.secrets_set_at()) }
}

fn refused(reason: Reason, detail: &str) -> TaskEnd {
    TaskEnd::Judged { verdict: Verdict::Refused { reason, detail: detail.to_owned() }, credential: None }
}

/// A call that brought no answer: provably unsent, or unknown.
fn verdict_of(error: CallError) -> Verdict {
    let detail = error.to_string();
    match error.stage {
        Stage::BeforeWrite => Verdict::RetryLater { reason: Reason::Connect, hold: Throttled::Account, after: None, detail },
        Stage::AfterWrite => {
            let reason = match error.kind {
                ErrorKind::Timeout => Reason::Timeout,
                ErrorKind::Blocked
                | ErrorKind::Resolve
                | ErrorKind::Connect
                | ErrorKind::Tls
                | ErrorKind::Reset
                | ErrorKind::BadRequest
                | ErrorKind::BadResponse => Reason::Reset,
            };
            Verdict::Unknown { reason, detail }
        }
    }
}

/// Where the platform called for a pause, one send is tried first when it is over, and what waits follows ramped: all of it at once
/// would call for the next pause.
fn note_pause(recovery: &mut Recovery, verdict: &Verdict, now: Timestamp) {
    match verdict {
        Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::Account | Throttled::App, after, .. } => {
            recovery.bad(now, now, *after, true);
        }
        Verdict::RetryLater { .. } | Verdict::Unknown { .. } => {}
        Verdict::Sent { .. } | Verdict::Moved { .. } | Verdict::Refused { .. } => {
            recovery.good(now);
        }
    }
}

/// The platform's word about rates goes into the budgets, and its failures into the breaker.
fn feed_back(lane: &Lane, task: &Task, sending: &Sending, account: &Account, verdict: &Verdict) {
    let now = lane.parts.clock.now();
    note_pause(&mut messaging::supervise::lock(&lane.health).recovery, verdict, now);
    let good = match verdict {
        Verdict::Sent { .. } | Verdict::Moved { .. } | Verdict::Refused { .. } => Some(true),
        Verdict::Unknown { .. } => Some(false),
        Verdict::RetryLater { reason: Reason::RateLimited, hold, after, .. } => {
            if let Some(after) = after {
                let key = match hold {
                    Throttled::Account => BudgetKey { scope: BudgetScope::Account, owner: sending.account.0 },
                    Throttled::App => budget_key(lane, task, sending, account, BudgetScope::App),
                    Throttled::Conversation => {
                        let pair = lane.parts.ids.conversation(task.tenant.id(), sending.account, sending.to.expose());
                        BudgetKey { scope: BudgetScope::Pair, owner: pair.0 }
                    }
                };
                lane.parts.limit.hold(key, *after);
            }
            None
        }
        Verdict::RetryLater { .. } => Some(false),
    };
    if let Some(good) = good {
        let moved = lane.health.lock().expect("no holder of the health panics").breaker.record(now, good);
        if let Some(opened) = moved {
            let to = if opened { metrics::CircuitState::Open } else { metrics::CircuitState::Closed };
            metrics::PLATFORM_CIRCUIT_TRANSITIONS.at([account.channel.index(), to.index()]).increment(1);
        }
    }
}

fn outcome_index(verdict: &Verdict) -> usize {
    use metrics::PlatformOutcome as O;
    let of = |reason: Reason| match reason {
        Reason::RateLimited | Reason::QuotaExceeded => O::RateLimited,
        Reason::Auth | Reason::AccountDisabled => O::Auth,
        Reason::ServerError | Reason::Reset => O::ServerError,
        Reason::Timeout => O::Timeout,
        Reason::Connect => O::Connect,
        Reason::WindowClosed
        | Reason::TemplateRequired
        | Reason::TemplateInvalid
        | Reason::OptedOut
        | Reason::NoConsent
        | Reason::Restricted
        | Reason::RecipientInvalid
        | Reason::Unsendable
        | Reason::Expired
        | Reason::Cancelled
        | Reason::Rejected
        | Reason::Interrupted
        | Reason::Exhausted => O::Permanent,
    };
    let outcome = match verdict {
        Verdict::Sent { .. } => O::Ok,
        Verdict::Moved { .. } => O::Permanent,
        Verdict::RetryLater { reason, .. } | Verdict::Refused { reason, .. } | Verdict::Unknown { reason, .. } => of(*reason),
    };
    outcome.index()
}

fn operation_index(content: &messaging::content::Content) -> usize {
    use messaging::content::Content;
    use metrics::PlatformOperation as O;
    let operation = match content {
        Content::Read(_) | Content::Typing(_) => O::Receipt,
        _ => O::Send,
    };
    operation.index()
}
