//! Requests over kept connections: one client per destination.
//!
//! A connection has no task of its own. Who waits for something of it drives it meanwhile, so that a request is written, and its answer
//! read, by the task that wants it: waking another for it cost more than the request. While it is idle nobody drives it; a watch looks
//! at a client's idle connections once a second for those that the peer has closed, or that are too old.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use messaging::BoxFuture;
use messaging::exchange::{HttpRequest, HttpResponse};
use messaging::metrics::SupervisedTask;
use messaging::supervise::spawn_again;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::connect::Wire;
use super::retry_after::retry_after;
use super::url::split;
use super::{CallError, ErrorKind, Sent, Shared, Target};

/// Longest deadline; longer ones are cut.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a kept connection may take to become ready; it is, but for the moment after its last answer, at once.
const READY_WAIT: Duration = Duration::from_millis(20);
/// How often idle connections are looked at.
pub(super) const IDLE_LOOK: Duration = Duration::from_secs(1);
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
    idle: Mutex<IdleList>,
}

#[derive(Default)]
struct IdleList {
    /// The last used is the last.
    entries: Vec<Idle>,
    /// Whether a task looks at them now and then: it ends when there is nothing to look at.
    watched: bool,
}

struct Idle {
    live: Live,
    /// Not used any more from then on.
    until: Instant,
}

/// A connection. Dropping it closes the socket, whatever state it is in.
struct Live {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    reused: bool,
    /// Its place among the connections of all clients.
    _room: OwnedSemaphorePermit,
}

/// What reads and writes a connection; none once it has ended. Its error has gone to the request, when there was one.
struct Driver(Option<BoxFuture<'static, Result<(), hyper::Error>>>);

impl Driver {
    /// Reads and writes what can be now. Says whether the connection goes on.
    fn turn(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(connection) = &mut self.0
            && connection.as_mut().poll(context).is_ready()
        {
            self.0 = None;
        }
        self.0.is_some()
    }

    /// Waits for something of the connection, and drives it meanwhile.
    async fn with<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            self.turn(context);
            work.as_mut().poll(context)
        })
        .await
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
        Self(Arc::new(Pool { door, target, authority, idle: Mutex::default() }))
    }

    /// The destination.
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// How many connections are kept right now.
    pub fn idle_connections(&self) -> usize {
        self.0.idle().entries.len()
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
        let Live { sender, driver, .. } = &mut live;
        let response = match timeout_at(end, driver.with(sender.send_request(message))).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(CallError::after(kind_of(&error), error)),
            Err(_) => return Err(CallError::after(ErrorKind::Timeout, "the deadline passed before an answer came")),
        };
        let (head, body) = response.into_parts();
        Ok(Streamed { status: head.status.as_u16(), headers: head.headers, body, end, live })
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
    live: Live,
}

impl Streamed {
    /// The next piece of the body; none at its end.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            let status = Some(self.status);
            let broken = |kind, detail: &dyn std::fmt::Display| Some(Err(CallError { status, ..CallError::after(kind, detail) }));
            return match timeout_at(self.end, self.live.driver.with(self.body.frame())).await {
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
    fn idle(&self) -> MutexGuard<'_, IdleList> {
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
            if now >= until {
                continue;
            }
            // Right after its answer the connection still has to notice that it is free; one whose peer answered before it
            // read the whole request never becomes free and is given up. The same turn notices what the peer has closed.
            let Live { sender, driver, .. } = &mut live;
            let ready = driver.with(std::future::poll_fn(|context| sender.poll_ready(context)));
            if let Ok(Ok(())) = timeout_at(end.min(Instant::now() + READY_WAIT), ready).await
                && driver.turn(&mut Context::from_waker(Waker::noop()))
            {
                return Some(live);
            }
        }
    }

    fn pop(&self) -> Option<Idle> {
        let popped = self.idle().entries.pop()?;
        self.door.idle.fetch_sub(1, Ordering::Relaxed);
        Some(popped)
    }

    /// Keeps a connection for the next request, when there is room.
    fn keep(self: &Arc<Self>, mut live: Live, idle_time: Duration) {
        live.reused = true;
        if !live.driver.turn(&mut Context::from_waker(Waker::noop())) {
            return;
        }
        let mut idle = self.idle();
        if idle.entries.len() >= self.door.settings.idle_per_client_max {
            return;
        }
        if self.door.idle.fetch_add(1, Ordering::Relaxed) >= self.door.settings.idle_total_max {
            self.door.idle.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        idle.entries.push(Idle { live, until: Instant::now() + idle_time });
        if !idle.watched {
            idle.watched = true;
            let watched = Arc::downgrade(self);
            spawn_again(SupervisedTask::Connections, move || watch(watched.clone()));
        }
    }

    /// Closes what the peer has closed, and what was idle for too long. Says whether any is left.
    fn look(&self) -> bool {
        let now = Instant::now();
        let mut idle = self.idle();
        let before = idle.entries.len();
        idle.entries.retain_mut(|entry| now < entry.until && entry.live.driver.turn(&mut Context::from_waker(Waker::noop())));
        self.door.idle.fetch_sub(before - idle.entries.len(), Ordering::Relaxed);
        idle.watched = !idle.entries.is_empty();
        idle.watched
    }

    /// A new connection.
    async fn open(&self) -> Result<Live, CallError> {
        let room = self.door.room.clone().acquire_owned().await.expect("it is never closed");
        match self.door.dialer.connect(&self.target).await? {
            Wire::Plain(tcp) => start(tcp, room).await,
            Wire::Tls(tls) => start(tls, room).await,
        }
    }

    /// One request and its answer over one connection, which is kept when it can serve again.
    async fn exchange(self: &Arc<Self>, mut live: Live, message: Message, end: Instant, cap: usize) -> Result<Sent, Failure> {
        let reused = live.reused;
        // Known once the head of the answer has come.
        let mut status = None;
        let Live { sender, driver, .. } = &mut live;
        let answered = match timeout_at(end, driver.with(converse(sender, message, cap, &mut status))).await {
            Ok(answered) => answered?,
            Err(_) => {
                let detail = match status {
                    Some(_) => "the deadline passed before the answer was complete",
                    None => "the deadline passed before an answer came",
                };
                return Err(Failure::Final(CallError { status, ..CallError::after(ErrorKind::Timeout, detail) }));
            }
        };
        let Answered { head, body, truncated } = answered;
        let idle_time = self.door.settings.idle_timeout.min(announced_idle_time(&head.headers).unwrap_or(Duration::MAX));
        if !truncated && !idle_time.is_zero() {
            self.keep(live, idle_time);
        }
        let retry_after = retry_after(&head.headers, || self.door.clock.now());
        let response = HttpResponse { status: head.status.as_u16(), retry_after, headers: head.headers, body };
        Ok(Sent { response, reused, truncated })
    }
}

/// An answer that was read.
struct Answered {
    head: http::response::Parts,
    body: Bytes,
    truncated: bool,
}

/// Writes the request and reads its answer, while somebody drives the connection.
async fn converse(
    sender: &mut SendRequest<Full<Bytes>>,
    message: Message,
    cap: usize,
    status: &mut Option<u16>,
) -> Result<Answered, Failure> {
    let response = match sender.try_send_request(message).await {
        Ok(response) => response,
        Err(mut refused) => {
            let returned = refused.take_message();
            let error = refused.into_error();
            return Err(match returned {
                Some(message) => Failure::Unwritten(Box::new(message), error),
                None => Failure::Final(CallError::after(kind_of(&error), error)),
            });
        }
    };
    let (head, body) = response.into_parts();
    *status = Some(head.status.as_u16());
    match read_body(body, cap).await {
        Ok((body, truncated)) => Ok(Answered { head, body, truncated }),
        Err(error) => Err(Failure::Final(CallError { status: *status, ..CallError::after(kind_of(&error), error) })),
    }
}

/// Looks at a client's idle connections until there are none.
async fn watch(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE_LOOK).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.look() {
            return;
        }
    }
}

async fn start<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: T, room: OwnedSemaphorePermit) -> Result<Live, CallError> {
    let handshake = Builder::new().max_buf_size(CONNECTION_BUFFER_BYTES_MAX).handshake(TokioIo::new(io));
    let (sender, connection) = handshake.await.map_err(|error| CallError::before(ErrorKind::Connect, error))?;
    Ok(Live { sender, driver: Driver(Some(Box::pin(connection))), reused: false, _room: room })
}

impl Drop for Pool {
    fn drop(&mut self) {
        let kept = self.idle.get_mut().map_or(0, |idle| idle.entries.len());
        self.door.idle.fetch_sub(kept, Ordering::Relaxed);
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
