//! Requests over kept connections: one client per destination.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use messaging::exchange::{HttpRequest, HttpResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connect::Wire;
use super::retry_after::retry_after;
use super::url::split;
use super::{CallError, ErrorKind, Sent, Shared, Target};

/// Longest deadline; longer ones are cut.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a kept connection may take to become ready; it is, but for the moment after its last answer, at once.
const READY_WAIT: Duration = Duration::from_millis(20);
/// Most bytes buffered for one connection; also the longest head of a response.
const CONNECTION_BUFFER_BYTES_MAX: usize = 64 * 1024;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

type Message = Request<Full<Bytes>>;

/// Sends requests to one destination and keeps its connections. Cheap to clone. It opens as many connections as there
/// are requests at once: how many that are is the caller's to bound.
#[derive(Clone)]
pub struct Client(Arc<Pool>);

struct Pool {
    door: Arc<Shared>,
    target: Target,
    /// The `Host` header's value.
    authority: HeaderValue,
    idle: Mutex<Vec<Idle>>,
    next_id: AtomicU64,
}

struct Idle {
    live: Live,
    /// Not used any more from then on.
    until: Instant,
}

/// A connection. Dropping it ends its task and closes the socket, whatever state it is in.
struct Live {
    id: u64,
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
    reused: bool,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why an exchange over one connection gave no answer.
enum Failure {
    /// The connection closed before anything of the request was written; here it is again.
    Unwritten(Box<Message>, hyper::Error),
    /// For the caller.
    Final(CallError),
}

impl Client {
    pub(super) fn new(door: Arc<Shared>, target: Target) -> Self {
        let authority = HeaderValue::try_from(target.authority()).expect("hosts are checked to be printable ASCII");
        let idle = Mutex::new(Vec::new());
        Self(Arc::new(Pool { door, target, authority, idle, next_id: AtomicU64::new(0) }))
    }

    /// The destination.
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// How many connections are kept right now.
    pub fn idle_connections(&self) -> usize {
        self.0.idle().len()
    }

    /// Sends a request and reads its answer, all within `deadline`. At most `response_cap` bytes of the answer's body are
    /// read; when there is more, the connection is closed.
    ///
    /// `Host`, `Content-Length` and the headers of the connection itself are set here and not taken from the request.
    /// Safe to drop at any time: the connection that it used is then closed.
    ///
    /// # Errors
    /// Any answer of the other side is an answer. A [`CallError`] says what went wrong instead, and whether the other side
    /// could have read the request. A kept connection that turns out to be closed before the request was written is not an
    /// error: a new one is made, once.
    pub async fn send(&self, request: HttpRequest, deadline: Duration, response_cap: usize) -> Result<Sent, CallError> {
        let pool = &self.0;
        let start = Instant::now();
        let end = start + deadline.min(DEADLINE_MAX);
        let mut message = pool.message(request)?;
        if let Some(kept) = pool.take_idle(start, end).await {
            match pool.exchange(kept, message, end, response_cap).await {
                Ok(sent) => return Ok(sent),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Unwritten(returned, _)) => message = *returned,
            }
        }
        let opened = match timeout_at(end, pool.open()).await {
            Ok(opened) => opened?,
            Err(_) => return Err(CallError::before(ErrorKind::Timeout, "the deadline passed before a connection came about")),
        };
        pool.exchange(opened, message, end, response_cap).await.map_err(|failure| match failure {
            Failure::Final(error) => error,
            Failure::Unwritten(_, error) => CallError::before(ErrorKind::Reset, error),
        })
    }
}

impl Client {
    /// Sends a request over a connection of its own, and gives the answer before its body has come: for bodies that are not to be whole
    /// in memory. All of it is over when `deadline` passes.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn open(&self, request: HttpRequest, deadline: Duration) -> Result<Streamed, CallError> {
        let pool = &self.0;
        let end = Instant::now() + deadline.min(DEADLINE_MAX);
        let message = pool.message(request)?;
        let mut live = match timeout_at(end, pool.open()).await {
            Ok(opened) => opened?,
            Err(_) => return Err(CallError::before(ErrorKind::Timeout, "the deadline passed before a connection came about")),
        };
        let response = match timeout_at(end, live.sender.send_request(message)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(CallError::after(kind_of(&error), error)),
            Err(_) => return Err(CallError::after(ErrorKind::Timeout, "the deadline passed before an answer came")),
        };
        let (head, body) = response.into_parts();
        Ok(Streamed { status: head.status.as_u16(), headers: head.headers, body, end, _live: live })
    }
}

/// An answer whose body is still to come. Dropping it closes the connection.
pub struct Streamed {
    /// The status. Redirects are answers like any other.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    end: Instant,
    _live: Live,
}

impl Streamed {
    /// The next piece of the body; none at its end.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            let broken =
                |kind, detail: &dyn std::fmt::Display| Some(Err(CallError { status: Some(self.status), ..CallError::after(kind, detail) }));
            return match timeout_at(self.end, self.body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers say nothing that is wanted.
                    Err(_) => continue,
                },
                Ok(Some(Err(error))) => broken(kind_of(&error), &error),
                Ok(None) => None,
                Err(_) => broken(ErrorKind::Timeout, &"the deadline passed before the answer was complete"),
            };
        }
    }
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().expect("no holder of the list panics")
    }

    /// The request as it goes over the connection.
    fn message(&self, request: HttpRequest) -> Result<Message, CallError> {
        let bad = |detail: &dyn std::fmt::Display| CallError::before(ErrorKind::BadRequest, detail);
        let uri = self.request_uri(&request.url)?;
        let mut message = Request::new(Full::new(request.body));
        *message.method_mut() = request.method;
        *message.uri_mut() = uri;
        let headers = message.headers_mut();
        headers.try_reserve(request.headers.len() + 2).map_err(|error| bad(&error))?;
        headers.insert(header::HOST, self.authority.clone());
        for (name, value) in request.headers {
            if !is_the_connections(&name) {
                headers.try_append(name, value).map_err(|error| bad(&error))?;
            }
        }
        if !headers.contains_key(header::USER_AGENT) {
            headers.insert(header::USER_AGENT, self.door.settings.user_agent.clone());
        }
        Ok(message)
    }

    /// Path and query of a URL of this destination.
    fn request_uri(&self, url: &str) -> Result<Uri, CallError> {
        let (target, rest) = split(url).map_err(|error| CallError::before(ErrorKind::BadRequest, error))?;
        if target != self.target {
            return Err(CallError::before(ErrorKind::BadRequest, "the request is for another destination than this client's"));
        }
        let path = match rest.as_bytes().first() {
            Some(b'/') => PathAndQuery::try_from(rest),
            Some(_) | None => PathAndQuery::try_from(format!("/{rest}")),
        };
        path.map(Uri::from).map_err(|error| CallError::before(ErrorKind::BadRequest, error))
    }

    /// A kept connection that is ready, the last used first: it is the least likely to have been closed meanwhile.
    async fn take_idle(&self, now: Instant, end: Instant) -> Option<Live> {
        loop {
            let Idle { mut live, until } = self.pop()?;
            if live.sender.is_closed() || now >= until {
                continue;
            }
            if live.sender.is_ready() {
                return Some(live);
            }
            // Right after its answer the connection may still have to notice that it is free; one whose peer answered
            // before it read the whole request never becomes free and is given up.
            if let Ok(Ok(())) = timeout_at(end.min(Instant::now() + READY_WAIT), live.sender.ready()).await {
                return Some(live);
            }
        }
    }

    fn pop(&self) -> Option<Idle> {
        let popped = self.idle().pop()?;
        self.door.idle.fetch_sub(1, Ordering::Relaxed);
        Some(popped)
    }

    /// Keeps a connection for the next request, when there is room.
    fn keep(&self, mut live: Live, idle_time: Duration) {
        live.reused = true;
        let mut idle = self.idle();
        // Closed is looked at under the lock: a connection's task closes first and then takes its entry out, so that
        // no entry of a dead connection can stay behind.
        if live.sender.is_closed() || idle.len() >= self.door.settings.idle_per_client_max {
            return;
        }
        if self.door.idle.fetch_add(1, Ordering::Relaxed) >= self.door.settings.idle_total_max {
            self.door.idle.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        idle.push(Idle { live, until: Instant::now() + idle_time });
    }

    /// A new connection and the task that drives it.
    async fn open(self: &Arc<Self>) -> Result<Live, CallError> {
        match self.door.dialer.connect(&self.target).await? {
            Wire::Plain(tcp) => self.start(tcp).await,
            Wire::Tls(tls) => self.start(tls).await,
        }
    }

    async fn start<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: &Arc<Self>, io: T) -> Result<Live, CallError> {
        let handshake = Builder::new().max_buf_size(CONNECTION_BUFFER_BYTES_MAX).handshake(TokioIo::new(io));
        let (sender, connection) = handshake.await.map_err(|error| CallError::before(ErrorKind::Connect, error))?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let task = tokio::spawn(drive(connection, Arc::downgrade(self), id, self.door.settings.idle_timeout));
        Ok(Live { id, sender, task: task.abort_handle(), reused: false })
    }

    /// One request and its answer over one connection, which is kept when it can serve again.
    async fn exchange(&self, mut live: Live, message: Message, end: Instant, cap: usize) -> Result<Sent, Failure> {
        let reused = live.reused;
        let response = match timeout_at(end, live.sender.try_send_request(message)).await {
            Ok(Ok(response)) => response,
            Ok(Err(mut refused)) => {
                let returned = refused.take_message();
                let error = refused.into_error();
                return Err(match returned {
                    Some(message) => Failure::Unwritten(Box::new(message), error),
                    None => Failure::Final(CallError::after(kind_of(&error), error)),
                });
            }
            Err(_) => return Err(Failure::Final(CallError::after(ErrorKind::Timeout, "the deadline passed before an answer came"))),
        };
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        let broken =
            |kind, detail: &dyn std::fmt::Display| Failure::Final(CallError { status: Some(status), ..CallError::after(kind, detail) });
        let (body, truncated) = match timeout_at(end, read_body(body, cap)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return Err(broken(kind_of(&error), &error)),
            Err(_) => return Err(broken(ErrorKind::Timeout, &"the deadline passed before the answer was complete")),
        };
        let idle_time = self.door.settings.idle_timeout.min(announced_idle_time(&head.headers).unwrap_or(Duration::MAX));
        if !truncated && !idle_time.is_zero() {
            self.keep(live, idle_time);
        }
        let retry_after = retry_after(&head.headers, || self.door.clock.now());
        Ok(Sent { response: HttpResponse { status, retry_after, headers: head.headers, body }, reused, truncated })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let kept = self.idle.get_mut().map_or(0, |idle| idle.len());
        self.door.idle.fetch_sub(kept, Ordering::Relaxed);
    }
}

/// Takes a connection's entry out when its task ends.
struct Leave {
    pool: Weak<Pool>,
    id: u64,
}

impl Leave {
    /// Takes the entry out when it is there; with a time, only when it may not be used any more at that time.
    fn take_out(&self, outdated_at: Option<Instant>) -> Option<Idle> {
        let pool = self.pool.upgrade()?;
        let mut idle = pool.idle();
        let at = idle.iter().position(|entry| entry.live.id == self.id)?;
        if outdated_at.is_some_and(|now| now < idle[at].until) {
            return None;
        }
        let entry = idle.remove(at);
        pool.door.idle.fetch_sub(1, Ordering::Relaxed);
        drop(idle);
        Some(entry)
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        drop(self.take_out(None));
    }
}

/// Drives a connection until it ends, or has been idle for too long.
async fn drive<T>(connection: Connection<TokioIo<T>, Full<Bytes>>, pool: Weak<Pool>, id: u64, idle_timeout: Duration)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Before the connection, so that it is dropped after it: see `Pool::keep`.
    let leave = Leave { pool, id };
    let mut connection = pin!(connection);
    let mut look = pin!(sleep_until(Instant::now() + idle_timeout));
    loop {
        tokio::select! {
            biased;
            // Its error has gone to the request, when there was one; an idle connection may end as it likes.
            _ = &mut connection => return,
            () = &mut look => {
                let now = Instant::now();
                if leave.take_out(Some(now)).is_some() {
                    return;
                }
                // In use, or not idle for long enough: looking once per period closes it within two.
                look.as_mut().reset(now + idle_timeout);
            }
        }
    }
}

/// Reads at most `cap` bytes; whether there was more.
async fn read_body(mut body: Incoming, cap: usize) -> Result<(Bytes, bool), hyper::Error> {
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = cap - first.len() - more.len();
        let truncated = data.len() > room;
        let data = data.slice(..data.len().min(room));
        // Nearly every answer is one piece, and then it is not copied.
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&data);
        }
        if truncated {
            return Ok((if more.is_empty() { first } else { more.freeze() }, true));
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok((if more.is_empty() { first } else { more.freeze() }, false))
}

/// How long the peer says (`Keep-Alive: timeout=5`) that it keeps the connection, less a second: a request that meets the
/// peer's own closing on the wire is lost in a way that cannot be told from one that was read.
fn announced_idle_time(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let seconds = text.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}

/// What broke, from hyper's words.
fn kind_of(error: &hyper::Error) -> ErrorKind {
    if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
        return ErrorKind::BadResponse;
    }
    ErrorKind::Reset
}

/// Headers that speak about the connection or the framing: ours to set.
fn is_the_connections(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::CONNECTION
            | header::TE
            | header::TRAILER
            | header::UPGRADE
            | header::EXPECT
            | header::PROXY_AUTHORIZATION
    ) || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}
