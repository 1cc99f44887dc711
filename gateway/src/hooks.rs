//! The hot path: a platform's webhook. Bound, verify over raw bytes, split, append; 200 only after every piece is durable.
//!
//! From outside, an unknown account, an unknown or disabled channel and a bad signature look alike and cost alike: a stranger's
//! request for an account that does not exist is judged with secrets that nobody has.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts as Head;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use messaging::channels::{self, Channel, ChannelKind, HandshakeReply, PieceKind, Received, Refusal};
use messaging::exchange::WebhookRequest;
use messaging::ids::AccountId;
use messaging::log::{AppendError, NewRecord, Topic};
use messaging::metrics::{self, IngressOutcome, IngressRejection, ShedReason};
use messaging::record::Record;

use crate::body::{self, BodyError};
use crate::edge::{bare, is_encoded};
use crate::problem::{jittered_wait, whole_seconds};
use crate::reply::{self, Reply};
use crate::routes::PARAMS_MAX;
use crate::server::worker::Worker;

/// Most bytes of a handshake's answer.
const HANDSHAKE_BYTES_MAX: usize = 1024;

/// Answers a webhook request.
pub(crate) async fn handle(worker: &Rc<Worker>, head: &Head, params: [&str; PARAMS_MAX], incoming: Incoming, started: Instant) -> Reply {
    let kind = ChannelKind::from_name(params[0]);
    let limits = &worker.shared.options.http;
    if is_encoded(&head.headers) {
        return refuse(kind, IngressRejection::Malformed, bare(415));
    }
    let body = match body::collect(incoming, limits.max_hook_body, limits.body_timeout).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => return refuse(kind, IngressRejection::TooLarge, closing(413)),
        Err(BodyError::Timeout) => {
            metrics::HTTP_SHED.at([worker.listener.index(), ShedReason::BodyTimeout.index()]).increment(1);
            return refuse(kind, IngressRejection::Timeout, closing(408));
        }
        Err(BodyError::Broken) => return refuse(kind, IngressRejection::Malformed, closing(400)),
    };
    metrics::HTTP_REQUEST_SIZE_BYTES.at([worker.listener.index()]).record(body.len() as f64);
    let judged = judge(worker, head, kind, params[1], &body);
    // The body's bytes are sealed in the records by now.
    drop(body);
    match judged {
        Judged::Answer(reply) => reply,
        Judged::Append(batch) => append(worker, batch, started).await,
    }
}

enum Judged {
    Answer(Reply),
    Append(Batch),
}

/// The pieces of an authentic request.
struct Batch {
    channel: &'static dyn Channel,
    records: Vec<NewRecord>,
    kinds: Vec<PieceKind>,
    /// A piece was left out because the log never takes one of its size.
    too_large: bool,
}

fn judge(worker: &Worker, head: &Head, kind: Option<ChannelKind>, account: &str, body: &Bytes) -> Judged {
    let shared = &worker.shared;
    let directory = shared.parts.keeper.shared().load();
    let enabled = kind.filter(|kind| shared.parts.channels.contains_key(kind));
    let account = account.parse::<AccountId>().ok().and_then(|id| directory.account(id)).filter(|account| enabled == Some(account.channel));
    // A channel that does not exist costs what one that does costs.
    let channel = channels::channel(kind.unwrap_or(ChannelKind::ALL[0]));
    let request =
        WebhookRequest { is_post: head.method == Method::POST, query: head.uri.query().unwrap_or(""), headers: &head.headers, body };
    let verifier = account.map_or_else(|| shared.nobody(channel.kind()), |account| &account.verifier);
    let received = channel.receive(&request, verifier);
    let (account, received) = match (account, received) {
        (Some(account), Ok(received)) => (account, received),
        (Some(_), Err(Refusal::Malformed)) => return Judged::Answer(refuse(kind, IngressRejection::Malformed, bare(400))),
        (_, Err(Refusal::Method)) => return Judged::Answer(refuse(kind, IngressRejection::Malformed, other_method(&request))),
        (Some(_), Err(Refusal::Unauthentic)) => return Judged::Answer(refuse(kind, IngressRejection::BadSignature, bare(403))),
        (None, _) => return Judged::Answer(refuse(kind, IngressRejection::UnknownAccount, bare(403))),
    };
    let pieces = match received {
        Received::Handshake(answer) => return Judged::Answer(handshake(answer)),
        Received::Pieces(pieces) => pieces,
    };
    let now = shared.now();
    let log = &shared.parts.log;
    let (partitions, largest) = (log.partitions(), log.max_record());
    let ids = shared.parts.keyring.ids();
    let mut batch = Batch { channel, records: Vec::with_capacity(pieces.len()), kinds: Vec::with_capacity(pieces.len()), too_large: false };
    for piece in &pieces {
        let conversation = ids.conversation(account.owner.tenant.id(), account.owner.account, piece.handle().expose());
        let record = Record::inbound(account.owner, account.channel, conversation, piece, now);
        let record = record.to_new(Topic::Inbound, partitions, shared.parts.keyring.log());
        if record.payload.len() > largest {
            batch.too_large = true;
            continue;
        }
        batch.records.push(record);
        batch.kinds.push(piece.kind());
    }
    Judged::Append(batch)
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
            reply::empty(StatusCode::OK)
        }
        Err(AppendError::TooLarge { .. }) => refuse(Some(kind), IngressRejection::TooLarge, closing(413)),
        Err(error @ (AppendError::Full | AppendError::Away | AppendError::Closed | AppendError::Partition)) => {
            tracing::debug!(%error, channel = kind.name(), "a webhook was refused because the log does not take records");
            metrics::HTTP_SHED.at([worker.listener.index(), ShedReason::LogFull.index()]).increment(1);
            let mut reply = bare(batch.channel.refusal_cost().status);
            reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(jittered_wait())));
            refuse(Some(kind), IngressRejection::LogUnavailable, reply)
        }
    }
}

fn refuse(kind: Option<ChannelKind>, reason: IngressRejection, reply: Reply) -> Reply {
    if let Some(kind) = kind {
        metrics::INGRESS_REJECTIONS.at([kind.index(), reason.index()]).increment(1);
    }
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

/// The answer to a handshake: plain text that no browser takes for anything else.
fn handshake(answer: HandshakeReply) -> Reply {
    if answer.body.len() > HANDSHAKE_BYTES_MAX {
        return bare(400);
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    reply::typed(status, "text/plain; charset=utf-8", answer.body.into())
}
