//! `POST /v1/messages`: authenticate, validate, judge early, append, 202.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use messaging::channels::{self, Outbound, Outgoing, PieceKind};
use messaging::clock::Timestamp;
use messaging::content::{Content, Handle};
use messaging::directory::Account;
use messaging::ids::{ConversationId, MessageId, partition_of, random10};
use messaging::log::{NewRecord, Topic};
use messaging::metrics::{self, IdempotencyOutcome, IngressOutcome};
use messaging::quota::Quota;
use messaging::record::{Class, Command, Record, SendCommand};
use messaging::state::{Conversation, MessageRow, Pointer};
use messaging::store::Key;
use serde_json::{Map, Value, json};

use super::compose::{self, Draft, To};
use super::conversations::{self, States, StatesError};
use super::json;
use super::judge::{self, Way};
use super::query::Query;
use super::recent::{Accepted, Met, Running};
use super::{Call, not_appended};
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

/// Longest idempotency key.
const KEY_CHARS_MAX: usize = 255;
/// What a send takes when nothing is in its way.
const USUAL_WAIT: Duration = Duration::from_secs(1);

/// `POST /v1/messages`
pub(super) async fn send(call: &Call<'_>) -> Result<Reply, Problem> {
    let dry_run = Query::parse(call.query, &["dry_run"])?.flag("dry_run")?;
    let key = idempotency_key(call)?;
    let map = json::parse_object(&call.body)?;
    if dry_run {
        return rehearse(call, &map).await;
    }
    let fingerprint = call.shared().parts.keyring.ids().fingerprint(call.tenant().id(), &call.body);
    let (message, running) = match begin(call, key.as_deref(), fingerprint).await? {
        Begun::New(message, running) => (message, running),
        Begun::Replay(message, accepted) => return Ok(replayed(message, &accepted)),
    };
    let draft = compose::compose(call, &map).await?;
    let addressed = address(call, draft).await?;
    let (record, accepted) = ready(call, addressed, message, fingerprint, call.now);
    let handed_over = Instant::now();
    let appended = call.worker.appends.append([record]).await;
    count(call, &accepted, appended.is_ok());
    appended.map_err(not_appended)?;
    match running {
        Some(running) => running.done(accepted),
        None => call.shared().recent.note(message, accepted),
    }
    let mut reply = accepted_reply(message, &accepted);
    reply.headers_mut().insert("server-timing", call.timing(handed_over.elapsed()));
    Ok(reply)
}

/// `Idempotency-Key`: a structured-field string or a bare text.
pub(super) fn idempotency_key(call: &Call<'_>) -> Result<Option<String>, Problem> {
    let mut values = call.headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = || Problem::new(Code::Malformed, format!("Idempotency-Key is to be one text of 1 to {KEY_CHARS_MAX} visible characters"));
    let text = value.to_str().map_err(|_| bad())?.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_sound = (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if values.next().is_some() || !is_sound {
        return Err(bad());
    }
    Ok(Some(text.to_owned()))
}

/// How a send begins.
pub(super) enum Begun<'c> {
    /// It is new.
    New(MessageId, Option<Running<'c>>),
    /// It was accepted before.
    Replay(MessageId, Accepted),
}

/// Looks whether the key was seen: in this process's memory, then in the store.
pub(super) async fn begin<'c>(call: &'c Call<'_>, key: Option<&str>, fingerprint: [u8; 16]) -> Result<Begun<'c>, Problem> {
    let Some(key) = key else { return Ok(Begun::New(MessageId::draw(call.now, random10()), None)) };
    let message = call.shared().parts.keyring.ids().keyed_message(call.tenant().id(), key);
    let running = match call.shared().recent.begin(message, fingerprint, call.now) {
        Met::New(running) => running,
        Met::InProgress => {
            met(IdempotencyOutcome::InProgress);
            return Err(Problem::new(Code::IdempotencyInProgress, "the first request with this key is still running")
                .retry_after(Duration::from_secs(1)));
        }
        Met::Accepted(accepted) => {
            met(IdempotencyOutcome::Replayed);
            return Ok(Begun::Replay(message, accepted));
        }
        Met::Mismatch => return Err(mismatch()),
    };
    // With the store away the shard tells a repeated message by its id, so accepting is safe.
    match stored(call, message).await {
        Some(accepted) if accepted.fingerprint == fingerprint => {
            met(IdempotencyOutcome::Replayed);
            running.done(accepted);
            Ok(Begun::Replay(message, accepted))
        }
        Some(_) => Err(mismatch()),
        None => {
            met(IdempotencyOutcome::New);
            Ok(Begun::New(message, Some(running)))
        }
    }
}

fn met(outcome: IdempotencyOutcome) {
    metrics::IDEMPOTENCY_REQUESTS.at([outcome.index()]).increment(1);
}

fn mismatch() -> Problem {
    met(IdempotencyOutcome::Mismatch);
    Problem::new(Code::IdempotencyMismatch, "this key was used with another body")
}

async fn stored(call: &Call<'_>, message: MessageId) -> Option<Accepted> {
    let tenant = call.tenant().id();
    let store = &call.shared().parts.store;
    let row = store.read(vec![Key::Pointer(tenant, message.0)]).await.ok()?.into_iter().next()??;
    let (conversation, at, id) = Pointer::decode(&row).ok()?.message?;
    let row = store.read(vec![Key::Message(tenant, conversation, at, id)]).await.ok()?.into_iter().next()??;
    let meta = MessageRow::decode(&row).ok()?.open_meta(tenant, id, &call.tenant_key().ok()?).ok()?;
    Some(Accepted {
        tenant,
        account: meta.account,
        conversation,
        class: Class::Interactive,
        fingerprint: meta.fingerprint,
        accepted_at: meta.accepted_at,
        expected_by: meta.not_before.unwrap_or(meta.accepted_at).max(meta.accepted_at).plus(USUAL_WAIT),
    })
}

/// A draft whose recipient is known, judged as far as the store can be asked.
pub(super) struct Addressed {
    draft: Draft,
    account: Arc<Account>,
    to: Handle,
    conversation: ConversationId,
    /// What stands before it takes so long.
    wait: Duration,
    way: Way,
}

async fn address(call: &Call<'_>, draft: Draft) -> Result<Addressed, Problem> {
    let wanted = wanted(call, &draft).await?;
    let states = conversations::states(call, wanted).await;
    settle(call, draft, wanted, states.as_ref())
}

/// The conversation that a draft names; none when it names nobody that is known.
pub(super) async fn wanted(call: &Call<'_>, draft: &Draft) -> Result<Option<ConversationId>, Problem> {
    match (&draft.to, &draft.account) {
        (To::Conversation(id), _) => Ok(Some(*id)),
        (To::Contact(id), _) => conversations::of_contact(call, *id).await,
        (To::Handle(handle), Some(account)) => Ok(Some(conversation_of(call, account, handle))),
        (To::Handle(_), None) => Ok(None),
    }
}

fn conversation_of(call: &Call<'_>, account: &Account, handle: &Handle) -> ConversationId {
    call.shared().parts.keyring.ids().conversation(call.tenant().id(), account.owner.account, handle.expose())
}

/// Puts a draft and what the store says of its conversation together.
pub(super) fn settle(
    call: &Call<'_>,
    draft: Draft,
    wanted: Option<ConversationId>,
    states: Result<&States, &StatesError>,
) -> Result<Addressed, Problem> {
    let state = match (&states, wanted) {
        (Ok(states), Some(id)) => states.get(&id),
        _ => None,
    };
    let (account, to, conversation) = match &draft.to {
        To::Handle(handle) => {
            let account = draft.account.clone().ok_or_else(|| Problem::fault("/account", "is missing"))?;
            let conversation = state.map_or_else(|| conversation_of(call, &account, handle), |state| state.id);
            (account, handle.clone(), conversation)
        }
        To::Conversation(_) | To::Contact(_) => {
            let state = known(&draft.to, state, states)?;
            let account = owner(call, &draft, state)?;
            let to = state.handles.first().cloned().ok_or_else(|| Problem::fault("/to", "this conversation is with nobody"))?;
            let faults = draft.faults_for(&account, &to);
            if !faults.is_empty() {
                return Err(Problem::invalid(faults));
            }
            (account, to, state.id)
        }
    };
    judge::account_works(call, &account)?;
    let is_later = draft.not_before.is_some_and(|at| at > call.now);
    let wait = forecast(call, &account, draft.class, conversation);
    if draft.class == Class::Interactive && !is_later && wait > call.shared().options.max_wait {
        let detail =
            format!("{} s of sends stand before it, and limits.max_wait is {} s", wait.as_secs(), call.shared().options.max_wait.as_secs());
        return Err(Problem::new(Code::QuotaExceeded, detail).retry_after(wait - call.shared().options.max_wait));
    }
    call.one_more(&call.directory(), call.tenant().id(), Quota::WaitingSends)?;
    let way = match states {
        Ok(_) => judge::judge(call, &draft, &account, state)?,
        // The store is away: the shard decides.
        Err(_) => Way::AsIs,
    };
    Ok(Addressed { draft, account, to, conversation, wait, way })
}

fn known<'s>(to: &To, state: Option<&'s Conversation>, states: Result<&States, &StatesError>) -> Result<&'s Conversation, Problem> {
    if let Some(state) = state {
        return Ok(state);
    }
    match states {
        Err(StatesError::Away(error)) => Err(super::away(error)),
        Err(StatesError::Damaged) => Err(super::damaged("conversation")),
        Ok(_) => Err(match to {
            To::Contact(_) => Problem::fault("/to/contact", "there is no contact with this id"),
            To::Conversation(_) | To::Handle(_) => Problem::fault("/to/conversation", "there is no conversation with this id"),
        }),
    }
}

fn owner(call: &Call<'_>, draft: &Draft, state: &Conversation) -> Result<Arc<Account>, Problem> {
    if draft.account.as_ref().is_some_and(|account| account.owner.account != state.account) {
        return Err(Problem::fault("/account", "the conversation is one of another account"));
    }
    let directory = call.directory();
    directory
        .account_of(call.tenant(), state.account)
        .cloned()
        .ok_or_else(|| Problem::fault("/to", "the account of this conversation was deleted"))
}

/// The record of a message, and what is answered when it is durable.
pub(super) fn ready(
    call: &Call<'_>,
    addressed: Addressed,
    message: MessageId,
    fingerprint: [u8; 16],
    accepted_at: Timestamp,
) -> (NewRecord, Accepted) {
    let Addressed { draft, account, to, conversation, wait, .. } = addressed;
    let class = draft.class;
    let not_before = draft.not_before.unwrap_or(accepted_at).max(accepted_at);
    let command = draft.command(message, to, fingerprint);
    let record = record(call, &account, conversation, &Command::Send(Box::new(command)), class.topic(), accepted_at);
    let accepted = Accepted {
        tenant: call.tenant().id(),
        account: account.owner.account,
        conversation,
        class,
        fingerprint,
        accepted_at,
        expected_by: not_before.plus(USUAL_WAIT + wait),
    };
    (record, accepted)
}

/// A command's record.
pub(super) fn record(
    call: &Call<'_>,
    account: &Account,
    conversation: ConversationId,
    command: &Command,
    topic: Topic,
    accepted_at: Timestamp,
) -> NewRecord {
    let parts = &call.shared().parts;
    let record = Record::command(account.owner, account.channel, conversation, command, accepted_at);
    record.to_new(topic, parts.log.partitions(), parts.keyring.log())
}

/// How long what stands before a message of this class will take at its account's rate. A process without a router knows the log only:
/// there it is what stands on the message's partition.
fn forecast(call: &Call<'_>, account: &Account, class: Class, conversation: ConversationId) -> Duration {
    let parts = &call.shared().parts;
    let rate = parts.channels.get(&account.channel).map_or(0.0, |settings| settings.per_account);
    let ahead = parts.outlook.ahead(account.owner.account, class).unwrap_or_else(|| {
        let partition = partition_of(conversation, parts.log.partitions());
        call.shared().backlog.waiting(call, class.topic(), partition)
    });
    Duration::try_from_secs_f64(ahead as f64 / rate.max(0.01)).unwrap_or_default()
}

/// What waits on the log, looked at once a second at most.
#[derive(Default)]
pub(crate) struct Backlog {
    looked_at: AtomicU64,
    waiting: std::sync::RwLock<Vec<(Topic, u16, u64)>>,
}

impl Backlog {
    fn waiting(&self, call: &Call<'_>, topic: Topic, partition: u16) -> u64 {
        let now = call.now.as_millis();
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        let is_ours = now.abs_diff(looked_at) >= 1000
            && self.looked_at.compare_exchange(looked_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_ours {
            let lag = call.shared().parts.log.lag();
            let fresh = lag.into_iter().map(|lag| (lag.topic, lag.partition, lag.records)).collect();
            *self.waiting.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        }
        let waiting = self.waiting.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        waiting.iter().find(|(of, at, _)| (*of, *at) == (topic, partition)).map_or(0, |(_, _, records)| *records)
    }
}

/// Counts an offered send.
pub(super) fn count(call: &Call<'_>, accepted: &Accepted, is_durable: bool) {
    let directory = call.directory();
    let Some(account) = directory.account_of(call.tenant(), accepted.account) else { return };
    if is_durable {
        call.shared().parts.outlook.accepted(accepted.account, accepted.class);
    }
    let outcome = if is_durable { IngressOutcome::Accepted } else { IngressOutcome::Refused };
    metrics::INGRESS_EVENTS.at([account.channel.index(), PieceKind::Send.index(), outcome.index()]).increment(1);
}

/// What an accepted send is answered with.
pub(super) fn accepted_json(message: MessageId, accepted: &Accepted) -> Value {
    json!({
        "id": message,
        "status": "accepted",
        "conversation": accepted.conversation,
        "accepted_at": accepted.accepted_at,
        "expected_by": accepted.expected_by,
    })
}

fn accepted_reply(message: MessageId, accepted: &Accepted) -> Reply {
    let mut reply = reply::json(StatusCode::ACCEPTED, &accepted_json(message, accepted));
    let location = HeaderValue::try_from(format!("/v1/messages/{message}")).expect("ids are visible ASCII");
    reply.headers_mut().insert(header::LOCATION, location);
    reply
}

fn replayed(message: MessageId, accepted: &Accepted) -> Reply {
    let mut reply = accepted_reply(message, accepted);
    reply.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    reply
}

/// All checks, nothing stored: the decision, and the request that would go out.
async fn rehearse(call: &Call<'_>, map: &Map<String, Value>) -> Result<Reply, Problem> {
    let draft = compose::compose(call, map).await?;
    let Addressed { draft, account, to, conversation, way, .. } = address(call, draft).await?;
    let message = MessageId::draw(call.now, random10());
    let decision = match way {
        Way::AsIs => "send",
        Way::Fallback => "fallback",
    };
    let command = draft.command(message, to, [0; 16]);
    let request = planned(call, &account, message, &command, way)?;
    Ok(reply::json(StatusCode::OK, &json!({"dry_run": true, "decision": decision, "conversation": conversation, "request": request})))
}

fn planned(call: &Call<'_>, account: &Account, message: MessageId, command: &SendCommand, way: Way) -> Result<Value, Problem> {
    let parts = &call.shared().parts;
    let settings =
        parts.channels.get(&account.channel).ok_or_else(|| Problem::new(Code::AccountDisabled, "the channel is off on this node"))?;
    let content = match (way, &command.fallback) {
        (Way::Fallback, Some(template)) => Content::Template(template.clone()),
        (Way::Fallback | Way::AsIs, _) => command.content.clone(),
    };
    let text = message.to_string();
    let outgoing = Outgoing {
        message: &text,
        to: &command.to,
        content: &content,
        reply_to: None,
        via: None,
        tag: command.tag.as_deref(),
        now: call.now,
    };
    let outbound = channels::channel(account.channel)
        .transport(&outgoing, account, settings)
        .map_err(|error| Problem::fault(format!("/{}", content.kind()), error.to_string()))?;
    Ok(match outbound {
        Outbound::Http(request) => {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
            json!({"method": request.method.as_str(), "url": without_secrets(account, &request.url), "body": body})
        }
        Outbound::Mail(mail) => {
            let body = without_secrets(account, &String::from_utf8_lossy(&mail.message));
            json!({"method": "SMTP", "url": format!("smtp://{}:{}", mail.host, mail.port), "body": body})
        }
    })
}

/// A text without the account's secrets.
pub(super) fn without_secrets(account: &Account, text: &str) -> String {
    let mut text = text.to_owned();
    for secret in account.secrets.values().flat_map(|pair| pair.both()).filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.expose(), "***");
    }
    text
}
