//! One serving thread: its own runtime, its own socket, its own queue to the log.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use http::HeaderMap;
use messaging::metrics::SupervisedTask;
use messaging::metrics::{self, Listener, ShedReason};
use messaging::supervise::vital;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::addresses::Counted;
use super::connection::{self, Conn, Protocol};
use crate::batcher::Batcher;
use crate::overload::{self, Intake, Sharer, Taken};
use crate::problem::jittered_wait;
use crate::shared::Shared;

/// How often connections are looked at, at most; a time-out is met within this.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Wait after a failed accept (too many open files): the next one would fail at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the end of the last connection is looked for.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long requests of the admin listener may take once the public one is empty.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);
/// Shortest and longest request id that is taken from outside.
const REQUEST_ID_CHARS: std::ops::RangeInclusive<usize> = 8..=64;

/// Length of a request id of our own, at most.
const REQUEST_ID_OURS: usize = 32;

/// How much lower the priority of serving threads is: with 5 the router has three quarters of the CPU when both want all of it.
const BEHIND_THE_ROUTER: i32 = 5;

/// How far the gateway is with its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Serves.
    Serving,
    /// Takes no connections, finishes requests.
    Closing,
}

/// What the tasks of one thread share.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listener: Listener,
    pub(crate) appends: Batcher,
    pub(crate) protocol: Protocol,
    intake: Rc<RefCell<Intake>>,
    connections: RefCell<HashMap<u64, Rc<Conn>, RandomState>>,
    next_connection: Cell<u64>,
    /// Random, so that two threads' ids differ.
    request_prefix: String,
    next_request: Cell<u64>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, listener: Listener) -> Rc<Self> {
        let mut prefix = [0; 8];
        messaging::seal::fill_random(&mut prefix);
        Rc::new(Self {
            appends: Batcher::new(shared.parts.log.clone()),
            protocol: Protocol::new(&shared.options.http),
            intake: Rc::new(RefCell::new(Intake::new(Instant::now()))),
            shared,
            listener,
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            request_prefix: data_encoding::HEXLOWER.encode(&prefix),
            next_request: Cell::new(0),
        })
    }

    /// The id of a request: the caller's, when it is a sound one, or a new one.
    pub(crate) fn request_id(&self, headers: &HeaderMap) -> String {
        let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
        if let Some(given) = given
            && REQUEST_ID_CHARS.contains(&given.len())
            && given.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        {
            return given.to_owned();
        }
        let count = self.next_request.get();
        self.next_request.set(count.wrapping_add(1));
        let mut id = String::with_capacity(REQUEST_ID_OURS);
        id.push_str(&self.request_prefix);
        let _ = write!(id, "{count:x}");
        id
    }

    /// Takes a request in, until what comes back is dropped. None: this thread is overrun. One that `must` be taken in is counted as the
    /// others are.
    pub(crate) fn take_in(&self, sharer: Sharer, must: bool) -> Option<Taken> {
        if self.intake.borrow_mut().takes(sharer, must, Instant::now()) {
            return Some(Taken::in_by(&self.intake));
        }
        metrics::HTTP_SHED.at([self.listener.index(), ShedReason::Delay.index()]).increment(1);
        None
    }

    /// As if work had waited so long for its turn during an interval.
    #[cfg(test)]
    pub(crate) fn seems_late(&self, delay: Duration) {
        self.intake.borrow_mut().interval(delay, Instant::now());
    }

    /// Serves a stream in a task of its own.
    pub(crate) fn spawn<S>(self: &Rc<Self>, stream: S, counted: Option<Counted>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    {
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        let conn = Conn::new();
        self.connections.borrow_mut().insert(id, conn.clone());
        let open = Open::new(self.clone(), id, counted);
        let worker = self.clone();
        spawn_local(async move {
            connection::serve(worker, stream, conn).await;
            drop(open);
        });
    }

    /// Closes slow and idle connections, again and again.
    pub(crate) async fn sweep(self: Rc<Self>) {
        let limits = &self.shared.options.http;
        let every = SWEEP_EVERY.min(limits.header_timeout / 4).min(limits.idle_timeout / 4).max(Duration::from_millis(1));
        loop {
            sleep(every).await;
            let now = Instant::now();
            for conn in self.connections.borrow().values() {
                conn.sweep(limits, now);
            }
        }
    }

    async fn accept(self: &Rc<Self>, listener: tokio::net::TcpListener, mut stage: watch::Receiver<Stage>) {
        let mut closing = std::pin::pin!(async move {
            // A sender that is gone ends the serving too.
            let _ = stage.wait_for(|stage| *stage >= Stage::Closing).await;
        });
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut closing => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn take(self: &Rc<Self>, stream: TcpStream, peer: IpAddr) {
        // Without it a small answer may wait for the peer's delayed acknowledgement; a failure costs only time.
        let _ = stream.set_nodelay(true);
        let is_public = self.listener == Listener::Public;
        if is_public && self.shared.connections.load(Ordering::Relaxed) >= self.shared.options.http.max_connections {
            metrics::HTTP_SHED.at([self.listener.index(), ShedReason::Connections.index()]).increment(1);
            spawn_local(turn_away(stream));
            return;
        }
        if !is_public {
            return self.spawn(stream, None);
        }
        let Some(counted) = self.shared.addresses.count(peer) else {
            metrics::HTTP_SHED.at([self.listener.index(), ShedReason::Connections.index()]).increment(1);
            spawn_local(turn_away(stream));
            return;
        };
        self.spawn(stream, Some(counted));
    }

    async fn finish(self: &Rc<Self>, within: Duration) {
        for conn in self.connections.borrow().values() {
            conn.finish();
        }
        let ended = async {
            while !self.connections.borrow().is_empty() || !self.appends.is_idle() {
                sleep(DRAIN_LOOK_EVERY).await;
            }
        };
        if timeout(within, ended).await.is_err() {
            let left = self.connections.borrow().len();
            tracing::warn!(left, "connections cut at the end of the drain");
        }
    }
}

/// Answers 503 without reading a request.
async fn turn_away(mut stream: TcpStream) {
    let wait = jittered_wait().as_secs();
    let answer = format!("HTTP/1.1 503 Service Unavailable\r\nretry-after: {wait}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // A peer that does not take a hundred bytes at once gets none.
    if stream.try_write(answer.as_bytes()).is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// Counts a connection for as long as it is open.
struct Open {
    worker: Rc<Worker>,
    id: u64,
    /// Its peer's count; the admin listener has none.
    _counted: Option<Counted>,
}

impl Open {
    fn new(worker: Rc<Worker>, id: u64, counted: Option<Counted>) -> Self {
        worker.count().fetch_add(1, Ordering::Relaxed);
        metrics::HTTP_CONNECTIONS.at([worker.listener.index()]).increment(1.0);
        Self { worker, id, _counted: counted }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.count().fetch_sub(1, Ordering::Relaxed);
        metrics::HTTP_CONNECTIONS.at([self.worker.listener.index()]).decrement(1.0);
        self.worker.connections.borrow_mut().remove(&self.id);
    }
}

impl Worker {
    fn count(&self) -> &AtomicUsize {
        match self.listener {
            Listener::Public => &self.shared.connections,
            Listener::Admin => &self.shared.admin_connections,
        }
    }
}

/// Lets the router's threads go first when there is not enough CPU for both: what is accepted is delivered before more is accepted. Without it
/// a gateway that is overrun takes the time that deliveries need.
fn yield_to_the_router() {
    // On Linux this is the thread's own. Where it is not allowed, everything works as before.
    if let Err(error) = rustix::process::nice(BEHIND_THE_ROUTER) {
        tracing::debug!(%error, "a serving thread's priority was not lowered");
    }
}

/// The life of one serving thread.
pub(crate) fn run(shared: Arc<Shared>, listener: Listener, socket: TcpListener, stage: watch::Receiver<Stage>) -> std::io::Result<()> {
    if listener == Listener::Public {
        yield_to_the_router();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let within = match listener {
            Listener::Public => shared.options.drain.requests,
            Listener::Admin => ADMIN_DRAIN,
        };
        let worker = Worker::new(shared, listener);
        spawn_local(vital(SupervisedTask::Serving, worker.appends.clone().run()));
        spawn_local(vital(SupervisedTask::Serving, overload::watch(worker.intake.clone(), listener)));
        if listener == Listener::Public {
            // An operator's `tail` is a request without an end.
            spawn_local(vital(SupervisedTask::Serving, worker.clone().sweep()));
        }
        // `accept` takes the socket, so that it is closed while requests finish.
        worker.accept(socket, stage).await;
        worker.finish(within).await;
        Ok(())
    })
}
