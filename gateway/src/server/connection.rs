//! One connection: what it is doing since when, so that a sweep once in a while finds the slow and the idle. A timer per
//! request would cost more than the whole of our own work on it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use messaging::metrics::{self, ShedReason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::worker::Worker;
use crate::edge;
use crate::options::HttpLimits;

/// Most bytes that hyper keeps of a connection's input. hyper's own default is 400 KiB.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// How an HTTP/2 connection begins.
const HTTP2_PREFACE: &[u8] = b"PRI";

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing, since the last answer was made.
    Idle,
    /// A request's head has begun to come in.
    Head,
}

/// What a connection is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    None,
    /// Finish what is under way, then close.
    Finish,
    /// Close now.
    Close,
}

/// What the sweep knows of a connection.
pub(crate) struct Conn {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    requests: Cell<usize>,
    is_http2: Cell<bool>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
}

impl Conn {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Idle),
            since: Cell::new(Instant::now()),
            requests: Cell::new(0),
            is_http2: Cell::new(false),
            order: Cell::new(Order::None),
            waker: RefCell::new(None),
        })
    }

    /// Bytes came in.
    fn received(&self, bytes: &[u8]) {
        if self.requests.get() > 0 || self.phase.get() == Phase::Head || self.is_http2.get() {
            return;
        }
        if bytes.starts_with(HTTP2_PREFACE) {
            self.is_http2.set(true);
        }
        self.phase.set(Phase::Head);
        self.since.set(Instant::now());
    }

    fn request_begins(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    fn request_ends(&self) {
        self.requests.set(self.requests.get() - 1);
        self.phase.set(Phase::Idle);
        self.since.set(Instant::now());
    }

    /// Closes it if it is slow or idle. A request under way has time-outs of its own.
    pub(crate) fn sweep(&self, limits: &HttpLimits, now: Instant) {
        if self.requests.get() > 0 {
            return;
        }
        let age = now.saturating_duration_since(self.since.get());
        match self.phase.get() {
            // An HTTP/2 connection reads what is no head too (settings, pings): it is bounded as an idle one.
            Phase::Head if !self.is_http2.get() && age >= limits.header_timeout => {
                metrics::HTTP_SHED.at([metrics::Listener::Public.index(), ShedReason::HeaderTimeout.index()]).increment(1);
                self.tell(Order::Close);
            }
            // A peer that does not read its answer keeps a connection from finishing.
            Phase::Head | Phase::Idle if age >= limits.idle_timeout * 2 => self.tell(Order::Close),
            Phase::Head | Phase::Idle if age >= limits.idle_timeout => self.finish(),
            Phase::Head | Phase::Idle => {}
        }
    }

    /// Lets it finish what is under way and then close.
    pub(crate) fn finish(&self) {
        if self.order.get() == Order::None {
            self.tell(Order::Finish);
        }
    }

    fn tell(&self, order: Order) {
        self.order.set(order);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }
}

/// Ends a request when its handler does, in whatever way.
pub(crate) struct Busy(Rc<Conn>);

impl Busy {
    fn of(conn: &Rc<Conn>) -> Self {
        conn.request_begins();
        Self(conn.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

/// A stream that tells its connection when bytes come in.
struct Watched<S> {
    stream: S,
    conn: Rc<Conn>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let came = &buf.filled()[before..];
        if !came.is_empty() {
            self.conn.received(came);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Runs HTTP/2's own tasks on this thread.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, task: F) {
        // What the task gives is nothing: hyper's streams answer by themselves.
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// The protocol of this thread's connections.
#[derive(Clone)]
pub(crate) struct Protocol(Builder<Here>);

impl Protocol {
    pub(crate) fn new(limits: &HttpLimits) -> Self {
        let mut builder = Builder::new(Here);
        // The time of a request's head is bounded by `Conn::sweep`.
        builder.http1().header_read_timeout(None::<Duration>).max_buf_size(READ_BUFFER_BYTES).timer(TokioTimer::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_streams)
            .max_header_list_size(crate::options::HEADER_BYTES_MAX as u32)
            .keep_alive_interval(limits.idle_timeout)
            .keep_alive_timeout(limits.header_timeout);
        let builder = if limits.http2 { builder } else { builder.http1_only() };
        Self(builder)
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(worker: Rc<Worker>, stream: S, conn: Rc<Conn>) {
    let io = TokioIo::new(Watched { stream, conn: conn.clone() });
    let service = {
        let (worker, conn) = (worker.clone(), conn.clone());
        service_fn(move |request| {
            let busy = Busy::of(&conn);
            let worker = worker.clone();
            async move {
                let reply = edge::handle(&worker, request).await;
                drop(busy);
                Ok::<_, std::convert::Infallible>(reply)
            }
        })
    };
    let mut serving = pin!(worker.protocol.0.serve_connection(io, service));
    let served = poll_fn(|cx| {
        conn.listen(cx);
        match conn.order.get() {
            Order::Close => return Poll::Ready(Ok(())),
            Order::Finish => {
                conn.order.set(Order::None);
                serving.as_mut().graceful_shutdown();
            }
            Order::None => {}
        }
        serving.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = served {
        // The peer's faults (a reset, bytes that are no HTTP) are its own: no line per connection.
        tracing::debug!(%error, "connection ended");
    }
}
