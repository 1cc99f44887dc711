//! The hot path: a platform's webhook. Bound, verify over raw bytes, split, append; 200 only after every piece is durable.
//!
//! From outside, an unknown account, an unknown or disabled channel and a bad signature look alike and cost alike: a stranger's
//! request for an account that does not exist is judged with secrets that nobody has.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts as Head;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use messaging::channels::{self, About, Answer, Channel, ChannelKind, HandshakeReply, Piece, PieceKind, Received, Refusal};
use messaging::clock::Timestamp;
use messaging::directory::{Account, Directory};
use messaging::exchange::{HttpRequest, WebhookRequest};
use messaging::ids::AccountId;
use messaging::log::{AppendError, NewRecord, Topic};
use messaging::metrics::{self, IngressOutcome, IngressRejection, ShedReason};
use messaging::record::Record;

use crate::body::{self, BodyError};
use crate::edge::{bare, is_encoded};
use crate::options::Parts;
use crate::overload::Sharer;
use crate::problem::{jittered_wait, whole_seconds};
use crate::reply::{self, Reply};
use crate::routes::PARAMS_MAX;
use crate::server::worker::Worker;
use crate::shared::Shared;

/// Most bytes of a handshake's answer.
const HANDSHAKE_BYTES_MAX: usize = 1024;
/// How long a call that the platform wants may take.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// Accounts beside the path's that one request may speak of.
const OTHERS_MAX: usize = 16;
/// Accounts of one identity that are tried.
const VERIFIED_MAX: usize = 4;
/// Webhooks of a platform that brings refused ones again for at least so long may be refused when the gateway is overrun.
const SHED_REDELIVERED_FOR: Duration = Duration::from_hours(1);

/// Answers a webhook request.
pub(crate) async fn handle(worker: &Rc<Worker>, head: &Head, params: [&str; PARAMS_MAX], incoming: Incoming, started: Instant) -> Reply {
    let kind = ChannelKind::from_name(params[0]);
    let limits = &worker.shared.options.http;
    if is_encoded(&head.headers) {
        return refuse(kind, IngressRejection::Malformed, bare(415));
    }
    let body = match body::collect(incoming, limits.max_hook_body, limits.body_timeout, &worker.shared.bounds).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => return refuse(kind, IngressRejection::TooLarge, closing(413)),
        Err(BodyError::Timeout) => {
            metrics::HTTP_SHED.at([worker.listener.index(), ShedReason::BodyTimeout.index()]).increment(1);
            return refuse(kind, IngressRejection::Timeout, closing(408));
        }
        Err(BodyError::Broken) => return refuse(kind, IngressRejection::Malformed, closing(400)),
        Err(BodyError::Busy) => {
            metrics::HTTP_SHED.at([worker.listener.index(), ShedReason::InFlight.index()]).increment(1);
            return refuse(kind, IngressRejection::Overloaded, later(closing(refusal_status(kind))));
        }
    };
    metrics::HTTP_REQUEST_SIZE_BYTES.at([worker.listener.index()]).record(body.len() as f64);
    // Of the path; the directory may change while the request waits, which changes nothing for it.
    let account = account_of_path(&worker.shared, kind, params[1]);
    let account = account.as_ref();
    // What a platform does not bring again for long is taken in all the same.
    let must = kind.is_some_and(|kind| channels::channel(kind).refusal_cost().redelivered_for < SHED_REDELIVERED_FOR);
    let Some(_taken) = worker.take_in(Sharer::of(account.map(|account| account.owner.tenant)), must) else {
        return refuse(kind, IngressRejection::Overloaded, later(bare(refusal_status(kind))));
    };
    let mut now = worker.shared.now();
    let needs = look(&request_of(head, &body, now, None), kind, account, &worker.shared);
    // What only some channels need is boxed: this future is moved with every request.
    let fetched = match needs.call {
        Some(call) => Box::pin(worker.shared.fetched.get(&worker.shared.parts, call)).await,
        None => None,
    };
    let beside = match kind {
        Some(kind) if needs.is_slow => Some(Box::pin(receive_beside(worker, head, kind, account, &body, fetched.as_ref())).await),
        Some(_) | None => None,
    };
    if fetched.is_some() || beside.is_some() {
        now = worker.shared.now();
    }
    let judged = judge(worker, &request_of(head, &body, now, fetched.as_ref()), kind, account, beside);
    // The body's bytes are sealed in the records by now.
    drop(body);
    match judged {
        Judged::Answer(reply) => reply,
        Judged::Append(batch) => append(worker, batch, started).await,
        Judged::Confirm(channel, call) => Box::pin(confirm(worker, channel, call)).await,
    }
}

/// What judging a request needs beside the request.
struct Needs {
    /// A call, for an account that exists; for most there is none.
    call: Option<HttpRequest>,
    /// Its signature is slow to judge. An unknown account takes the same way.
    is_slow: bool,
}

fn look(request: &WebhookRequest<'_>, kind: Option<ChannelKind>, account: Option<&Arc<Account>>, shared: &Shared) -> Needs {
    match (account, kind) {
        (Some(account), _) => {
            let call = channels::channel(account.channel).needs(request, &account.verifier);
            Needs { call, is_slow: account.verifier.is_slow() }
        }
        (None, Some(kind)) => Needs { call: None, is_slow: shared.nobody(kind).is_slow() },
        (None, None) => Needs { call: None, is_slow: false },
    }
}

/// The channel's judgement on another thread. Meanwhile this one serves others.
async fn receive_beside(
    worker: &Worker,
    head: &Head,
    kind: ChannelKind,
    account: Option<&Arc<Account>>,
    body: &Bytes,
    fetched: Option<&Bytes>,
) -> Result<Received, Refusal> {
    let (shared, account) = (&worker.shared, account.cloned());
    let _room = shared.beside.acquire().await.expect("it is never closed");
    let (shared, now, is_post) = (shared.clone(), shared.now(), head.method == Method::POST);
    let (query, headers) = (head.uri.query().unwrap_or("").to_owned(), head.headers.clone());
    let (body, fetched) = (body.clone(), fetched.cloned());
    let judging = tokio::task::spawn_blocking(move || {
        let verifier = account.as_ref().map_or_else(|| shared.nobody(kind), |account| &account.verifier);
        let request = WebhookRequest { is_post, query: &query, headers: &headers, body: &body, now, fetched: fetched.as_ref() };
        channels::channel(kind).receive(&request, verifier)
    });
    judging.await.expect("a judgement does not panic, and is not cancelled")
}

/// The platform wants to be called before it sends events.
async fn confirm(worker: &Worker, channel: &'static dyn Channel, call: HttpRequest) -> Reply {
    match worker.shared.parts.caller.call(call, CONFIRM_TIMEOUT).await {
        Ok(answer) if (200..300).contains(&answer.status) => reply::empty(StatusCode::OK),
        Ok(_) | Err(_) => bare(channel.refusal_cost().status),
    }
}

enum Judged {
    Answer(Reply),
    Append(Batch),
    Confirm(&'static dyn Channel, HttpRequest),
}

/// The pieces of an authentic request.
struct Batch {
    channel: &'static dyn Channel,
    /// The account of the path.
    account: AccountId,
    records: Vec<NewRecord>,
    kinds: Vec<PieceKind>,
    /// A piece was left out because the log never takes one of its size.
    too_large: bool,
    /// The answer once all is durable; none: 200 without a body.
    answer: Option<Answer>,
}

/// The account of a hook's path, when its channel is on.
fn account_of_path(shared: &Shared, kind: Option<ChannelKind>, account: &str) -> Option<Arc<Account>> {
    let enabled = kind.filter(|kind| shared.parts.channels.contains_key(kind));
    let directory = shared.parts.keeper.shared().load();
    let account = account.parse::<AccountId>().ok().and_then(|id| directory.account(id));
    account.filter(|account| enabled == Some(account.channel)).cloned()
}

fn request_of<'r>(head: &'r Head, body: &'r Bytes, now: Timestamp, fetched: Option<&'r Bytes>) -> WebhookRequest<'r> {
    WebhookRequest {
        is_post: head.method == Method::POST,
        query: head.uri.query().unwrap_or(""),
        headers: &head.headers,
        body,
        now,
        fetched,
    }
}

fn judge(
    worker: &Worker,
    request: &WebhookRequest<'_>,
    kind: Option<ChannelKind>,
    account: Option<&Arc<Account>>,
    beside: Option<Result<Received, Refusal>>,
) -> Judged {
    let shared = &worker.shared;
    // A channel that does not exist costs what one that does costs.
    let channel = channels::channel(kind.unwrap_or(ChannelKind::ALL[0]));
    let received = beside.unwrap_or_else(|| {
        let verifier = account.map_or_else(|| shared.nobody(channel.kind()), |account| &account.verifier);
        channel.receive(request, verifier)
    });
    let unauthentic = || bare(channel.unauthentic_status());
    if let Some(account) = account.filter(|_| request.is_post) {
        match &received {
            Ok(_) => shared.signatures.good(account, request.now),
            Err(Refusal::Unauthentic) => shared.signatures.bad(account, request.now),
            Err(Refusal::Malformed | Refusal::Method) => {}
        }
    }
    let (account, received) = match (account, received) {
        (Some(account), Ok(received)) => (account, received),
        (Some(_), Err(Refusal::Malformed)) => return Judged::Answer(refuse(kind, IngressRejection::Malformed, bare(400))),
        (_, Err(Refusal::Method)) => return Judged::Answer(refuse(kind, IngressRejection::Malformed, other_method(request))),
        (Some(_), Err(Refusal::Unauthentic)) => return Judged::Answer(refuse(kind, IngressRejection::BadSignature, unauthentic())),
        (None, _) => return Judged::Answer(refuse(kind, IngressRejection::UnknownAccount, unauthentic())),
    };
    let (pieces, answer) = match received {
        Received::Handshake(answer) => return Judged::Answer(handshake(answer)),
        Received::Confirm(call) => return Judged::Confirm(channel, call),
        Received::Answered { pieces, answer } if pieces.is_empty() => return Judged::Answer(with_body(answer)),
        Received::Answered { pieces, answer } => (pieces, Some(answer)),
        Received::Pieces(pieces) => (pieces, None),
    };
    let largest = shared.parts.log.max_record();
    let (records, kinds) = (Vec::with_capacity(pieces.len()), Vec::with_capacity(pieces.len()));
    let mut batch = Batch { channel, account: account.owner.account, records, kinds, too_large: false, answer };
    let directory = shared.parts.keeper.shared().load();
    let mut others = Others { directory: &directory, channel, request, found: Vec::new() };
    for piece in &pieces {
        let Some(account) = others.owner_of(piece, account) else {
            metrics::INGRESS_REJECTIONS.at([channel.kind().index(), IngressRejection::UnknownAccount.index()]).increment(1);
            continue;
        };
        let record = record_of(&shared.parts, account, piece, request.now);
        if record.payload.len() > largest {
            batch.too_large = true;
            continue;
        }
        batch.records.push(record);
        batch.kinds.push(piece.kind());
    }
    Judged::Append(batch)
}

/// A verified piece as a record for the log.
pub(crate) fn record_of(parts: &Parts, account: &Account, piece: &Piece, now: Timestamp) -> NewRecord {
    let owner = account.owner;
    let conversation = parts.keyring.ids().conversation(owner.tenant.id(), owner.account, piece.handle().expose());
    let record = Record::inbound(owner, account.channel, conversation, piece, now);
    record.to_new(Topic::Inbound, parts.log.partitions(), parts.keyring.log())
}

/// The accounts that an app's request speaks of beside the path's: one hook serves all accounts of a Meta or TikTok app.
struct Others<'r> {
    directory: &'r Directory,
    channel: &'static dyn Channel,
    request: &'r WebhookRequest<'r>,
    /// Looked up so far; none: nobody here, or not theirs by their own secrets.
    found: Vec<(About, Option<&'r Arc<Account>>)>,
}

impl<'r> Others<'r> {
    /// Whose a piece is: the path's account, or one whose own secrets verify the request as well.
    fn owner_of(&mut self, piece: &Piece, of_path: &'r Arc<Account>) -> Option<&'r Arc<Account>> {
        let Some(subject) = piece.subject() else { return Some(of_path) };
        // An account that does not say what it belongs to takes what nobody else here is known to own.
        let otherwise = match is_about(of_path, subject) {
            Some(true) => return Some(of_path),
            Some(false) => None,
            None => Some(of_path),
        };
        if let Some((_, known)) = self.found.iter().find(|(of, _)| of == subject) {
            return *known;
        }
        if self.found.len() >= OTHERS_MAX {
            return otherwise;
        }
        let found = match subject {
            About::Account(identity) => self.verified(of_path, self.directory.accounts_by_identity(self.channel.kind(), identity).iter()),
            // Rare: a template's or a business account's own news on the hook of an account that does not belong to it.
            About::Group(group) => {
                let kind = self.channel.kind();
                let named = self.directory.accounts().filter(|account| account.channel == kind && account.group() == Some(group));
                self.verified(of_path, named)
            }
        };
        let found = found.or(otherwise);
        self.found.push((subject.clone(), found));
        found
    }

    /// The first of those named whose own secrets verify the request. Those that have the secret of the path's app come first: whoever only
    /// claims an account stands behind them, however many claim it. Then the path's tenant: it knows best what
    /// it has connected.
    fn verified(&self, of_path: &Account, named: impl Iterator<Item = &'r Arc<Account>>) -> Option<&'r Arc<Account>> {
        let mut named: Vec<_> = named.collect();
        named.sort_by_key(|account| (!shares_its_app(account, of_path), account.owner.tenant != of_path.owner.tenant));
        let mut tried = named.into_iter().take(VERIFIED_MAX);
        tried.find(|account| self.channel.receive(self.request, &account.verifier).is_ok())
    }
}

/// Whether two accounts have the same app's secret, now or before its rotation.
fn shares_its_app(account: &Account, other: &Account) -> bool {
    let Some(name) = channels::channel(account.channel).app_secret() else { return false };
    let (Some(one), Some(two)) = (account.secrets.get(name), other.secrets.get(name)) else { return false };
    one.both().any(|one| two.both().any(|two| !one.is_empty() && one.expose() == two.expose()))
}

/// Whether a piece's subject is an account, or what the account belongs to; none: the account does not say.
fn is_about(account: &Account, subject: &About) -> Option<bool> {
    match subject {
        About::Account(identity) => account.identity().map(|own| own == &**identity),
        About::Group(group) => account.group().map(|own| own == &**group),
    }
}

async fn append(worker: &Worker, batch: Batch, started: Instant) -> Reply {
    let kind = batch.channel.kind();
    let result = worker.appends.append(batch.records).await;
    let outcome = if result.is_ok() { IngressOutcome::Accepted } else { IngressOutcome::Refused };
    for piece in &batch.kinds {
        metrics::INGRESS_EVENTS.at([kind.index(), piece.index(), outcome.index()]).increment(1);
    }
    match result {
        Ok(()) if batch.too_large => {
            // Authentic, and never to be stored whole: a 200 would lose it in silence.
            tracing::error!(channel = kind.name(), "an authentic webhook event is larger than log.max_record, refused with 413");
            refuse(Some(kind), IngressRejection::TooLarge, closing(413))
        }
        Ok(()) => {
            metrics::INGRESS_EVENTS_PER_REQUEST.at([kind.index()]).record(batch.kinds.len() as f64);
            metrics::INGRESS_ACK_DURATION_SECONDS.at([kind.index()]).record(started.elapsed().as_secs_f64());
            batch.answer.map_or_else(|| reply::empty(StatusCode::OK), with_body)
        }
        Err(AppendError::TooLarge { .. }) => refuse(Some(kind), IngressRejection::TooLarge, closing(413)),
        Err(error @ (AppendError::Full | AppendError::Away | AppendError::Closed | AppendError::Partition)) => {
            tracing::debug!(%error, channel = kind.name(), "a webhook was refused because the log does not take records");
            metrics::HTTP_SHED.at([worker.listener.index(), ShedReason::LogFull.index()]).increment(1);
            let cost = batch.channel.refusal_cost();
            if cost.punished_at.is_some() && cost.redelivered_for.is_zero() {
                worker.shared.refused.note(batch.account);
            }
            refuse(Some(kind), IngressRejection::LogUnavailable, later(bare(cost.status)))
        }
    }
}

fn refuse(kind: Option<ChannelKind>, reason: IngressRejection, reply: Reply) -> Reply {
    if let Some(kind) = kind {
        metrics::INGRESS_REJECTIONS.at([kind.index(), reason.index()]).increment(1);
    }
    reply
}

/// What a platform understands as "later"; 503 where the channel is none of ours.
fn refusal_status(kind: Option<ChannelKind>) -> u16 {
    kind.map_or(503, |kind| channels::channel(kind).refusal_cost().status)
}

/// With a wait by chance, so that those who were refused together do not come back together.
fn later(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(jittered_wait())));
    reply
}

/// A status after which the connection ends: part of the body was not read.
fn closing(status: u16) -> Reply {
    let mut reply = bare(status);
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn other_method(request: &WebhookRequest<'_>) -> Reply {
    let mut reply = bare(405);
    let other = if request.is_post { "GET" } else { "POST" };
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(other));
    reply
}

/// An answer that the channel made.
fn with_body(answer: Answer) -> Reply {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    match answer.content_type {
        Some(kind) => reply::typed(status, kind, answer.body),
        None => reply::empty(status),
    }
}

/// The answer to a handshake: plain text that no browser takes for anything else.
fn handshake(answer: HandshakeReply) -> Reply {
    if answer.body.len() > HANDSHAKE_BYTES_MAX {
        return bare(400);
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    reply::typed(status, "text/plain; charset=utf-8", answer.body.into())
}
