//! Does what the machine says: calls, connects, reads, writes, appends.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use messaging::BoxFuture;
use messaging::channels::discord::socket::{self, Discovered, Intents, Undiscovered};
use messaging::clock::SharedClock;
use messaging::directory::Account;
use messaging::exchange::{ByteStream, HttpRequest};
use messaging::seal::{Secret, fill_random};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use super::machine::{Action, Event, Input, LEAVING, Machine, Options};
use super::outbox::{Flushed, Item, Outbox, Settled};
use super::{Ended, Session, Sink, Ways};

/// Longest frame that is read, in bytes. READY with thousands of guilds has some hundred kilobytes.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// How long a connection with its handshakes may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a frame of ours may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a farewell may take.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest answer of the API that is waited for.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// An interaction that is not answered by then is dead.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(3);
/// Answers to interactions under way at once; further ones are left out, and their interactions die.
const CALLBACKS_MAX: usize = 64;
/// How often the session is kept while its number rises.
const KEEP_PAUSE: Duration = Duration::from_secs(5);
/// How long what was read may take to the log when the end has come.
const DRAIN: Duration = Duration::from_secs(5);

type Wire = Box<WebSocketStream<Box<dyn ByteStream>>>;

/// Everything of one run.
struct Edge<'w> {
    ways: &'w Ways,
    account: Arc<Account>,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    machine: Machine,
    outbox: Outbox,
    wire: Option<Wire>,
    asking: Option<BoxFuture<'w, Result<Discovered, Undiscovered>>>,
    connecting: Option<BoxFuture<'w, Option<Wire>>>,
    flushing: Option<BoxFuture<'static, Flushed>>,
    keeping: Option<BoxFuture<'static, ()>>,
    callbacks: FuturesUnordered<BoxFuture<'w, bool>>,
    /// What was kept last, and when.
    kept: (Option<Session>, Duration),
    was_live: bool,
}

/// What happened, as far as the loop tells it apart.
enum Happened {
    Discovered(Result<Discovered, Undiscovered>),
    Connected(Option<Wire>),
    Read(Option<Message>),
    Flushed(Flushed),
    Kept,
    CalledBack(bool),
    Time,
    Stop,
}

/// Waits for work that may not be there, and takes it away when it is done.
async fn finished<T>(work: &mut Option<BoxFuture<'_, T>>) -> T {
    match work {
        Some(running) => {
            let done = running.await;
            *work = None;
            done
        }
        None => pending().await,
    }
}

async fn read(wire: &mut Option<Wire>) -> Option<Message> {
    match wire {
        Some(wire) => wire.next().await?.ok(),
        None => pending().await,
    }
}

fn chance() -> f64 {
    let mut bits = [0; 4];
    fill_random(&mut bits);
    f64::from(u32::from_le_bytes(bits)) / f64::from(u32::MAX)
}

pub(super) async fn run(
    ways: &Ways,
    account: Arc<Account>,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    stop: impl Future<Output = ()> + Send,
) -> Ended {
    let Some(intents) = Intents::of(&account) else { return Ended::NotWanted };
    let session = sink.recall().await.and_then(|kept| serde_json::from_slice::<Session>(&kept).ok());
    let options = Options {
        token: Secret::new(account.secret("bot_token")),
        intents,
        version: ways.settings.api_version.chars().filter(char::is_ascii_digit).collect(),
        plain: ways.settings.base(&account).starts_with("http://"),
    };
    let now = clock.monotonic();
    let edge = Edge {
        ways,
        account,
        outbox: Outbox::new(sink.clone()),
        sink,
        clock,
        kept: (session.clone(), now),
        machine: Machine::new(options, session, now, chance),
        wire: None,
        asking: None,
        connecting: None,
        flushing: None,
        keeping: None,
        callbacks: FuturesUnordered::new(),
        was_live: false,
    };
    edge.serve(stop).await
}

impl<'w> Edge<'w> {
    async fn serve(mut self, stop: impl Future<Output = ()> + Send) -> Ended {
        let mut stop = std::pin::pin!(stop);
        loop {
            let now = self.now();
            if self.flushing.is_none() {
                self.flushing = self.outbox.flush(now);
            }
            self.keep_when_due(now);
            let due = self.deadline();
            let clock = self.clock.clone();
            let happened = tokio::select! {
                biased;
                () = &mut stop => Happened::Stop,
                flushed = finished(&mut self.flushing) => Happened::Flushed(flushed),
                () = finished(&mut self.keeping) => Happened::Kept,
                answer = finished(&mut self.asking) => Happened::Discovered(answer),
                wire = finished(&mut self.connecting) => Happened::Connected(wire),
                Some(done) = self.callbacks.next() => Happened::CalledBack(done),
                () = wait(&clock, due) => Happened::Time,
                read = read(&mut self.wire) => Happened::Read(read),
            };
            if let Some(ended) = self.handle(happened).await {
                self.finish(ended).await;
                return ended;
            }
            self.tell_changes();
        }
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// When the loop must wake by itself.
    fn deadline(&self) -> Option<Duration> {
        let (kept, at) = &self.kept;
        let keep = (self.keeping.is_none() && self.machine.session() != kept.as_ref()).then_some(*at + KEEP_PAUSE);
        [self.machine.deadline(), self.outbox.deadline(), keep].into_iter().flatten().min()
    }

    async fn handle(&mut self, happened: Happened) -> Option<Ended> {
        match happened {
            Happened::Stop => Some(Ended::Stopped),
            Happened::Time => self.input(Input::Tick).await,
            Happened::Discovered(answer) => self.input(Input::Discovered(answer)).await,
            Happened::Connected(Some(wire)) => {
                self.wire = Some(wire);
                self.input(Input::Opened).await
            }
            Happened::Connected(None) | Happened::Read(None) => self.input(Input::Closed(None)).await,
            Happened::Read(Some(message)) => match message {
                Message::Text(text) => self.input(Input::Frame(&text)).await,
                Message::Close(close) => self.input(Input::Closed(close.map(|close| close.code.into()))).await,
                // Pings are answered by the library; anything else is none of the Gateway's.
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
            },
            Happened::Flushed(flushed) => self.flushed(flushed).await,
            Happened::Kept => None,
            Happened::CalledBack(true) => None,
            Happened::CalledBack(false) => {
                tracing::warn!(account = %self.account.owner.account, "an interaction could not be answered in time");
                None
            }
        }
    }

    /// Asks the machine, and does what it says.
    async fn input(&mut self, input: Input<'_>) -> Option<Ended> {
        let mut todo = self.machine.on(input, self.now());
        loop {
            let mut next = Vec::new();
            for action in todo {
                match action {
                    Action::Discover => self.asking = Some(ask(self.ways, &self.account)),
                    Action::Connect(address) => self.connecting = Some(Box::pin(connect(self.ways, address))),
                    Action::Send(frame) => {
                        if !self.send(Message::text(frame.expose())).await {
                            next.extend(self.machine.on(Input::Closed(None), self.now()));
                        }
                    }
                    Action::Deliver(event) => {
                        self.deliver(&event);
                        if self.outbox.is_full() {
                            next.extend(self.machine.on(Input::Full, self.now()));
                        }
                    }
                    Action::Leave => self.leave().await,
                    Action::End(ended) => return Some(ended),
                }
            }
            if next.is_empty() {
                return None;
            }
            todo = next;
        }
    }

    async fn send(&mut self, message: Message) -> bool {
        match &mut self.wire {
            Some(wire) => timeout(SEND_TIMEOUT, wire.send(message)).await.is_ok_and(|sent| sent.is_ok()),
            None => false,
        }
    }

    /// Closes the connection so that the session lives on.
    async fn leave(&mut self) {
        self.asking = None;
        self.connecting = None;
        if let Some(mut wire) = self.wire.take() {
            let farewell = CloseFrame { code: LEAVING.into(), reason: "".into() };
            // Whoever does not listen any more need not hear it.
            let _ = timeout(LEAVE_TIMEOUT, wire.send(Message::Close(Some(farewell)))).await;
        }
    }

    fn deliver(&mut self, event: &Event) {
        let told = socket::Event { name: &event.name, number: event.number, session: &event.session, bot: &event.bot, said: &event.said };
        let piece = socket::piece(&told);
        let callback = socket::callback(&told, &self.account, &self.ways.settings);
        self.outbox.push(Item { session: event.session.as_str().into(), number: event.number, piece, callback });
    }

    async fn flushed(&mut self, flushed: Flushed) -> Option<Ended> {
        match self.outbox.settle(flushed, self.now()) {
            Settled::Later => return None,
            Settled::Closed => return Some(Ended::LogClosed),
            Settled::Kept(items) => {
                for item in items {
                    self.machine.on(Input::Durable { session: &item.session, number: item.number }, self.now());
                    if let Some(call) = item.callback {
                        self.call_back(call);
                    }
                }
            }
        }
        if self.outbox.is_empty() { self.input(Input::Drained).await } else { None }
    }

    fn call_back(&mut self, call: HttpRequest) {
        if self.callbacks.len() >= CALLBACKS_MAX {
            tracing::warn!(account = %self.account.owner.account, "too many interactions at once, one is not answered");
            return;
        }
        let ways = self.ways;
        self.callbacks.push(Box::pin(async move {
            let answer = ways.caller.call(call, CALLBACK_TIMEOUT).await;
            answer.is_ok_and(|answer| (200..300).contains(&answer.status))
        }));
    }

    /// Lets the sink keep the session now and then.
    fn keep_when_due(&mut self, now: Duration) {
        let (kept, at) = &self.kept;
        let session = self.machine.session();
        if self.keeping.is_some() || session == kept.as_ref() {
            return;
        }
        let is_new = session.map(|session| &session.id) != kept.as_ref().map(|kept| &kept.id);
        if is_new || now >= *at + KEEP_PAUSE {
            self.keeping = Some(self.keep(now));
        }
    }

    fn keep(&mut self, now: Duration) -> BoxFuture<'static, ()> {
        self.kept = (self.machine.session().cloned(), now);
        let state = self.kept.0.as_ref().and_then(|session| serde_json::to_vec(session).ok()).unwrap_or_default();
        let sink = self.sink.clone();
        Box::pin(async move { sink.keep(state).await })
    }

    /// The end: what was read goes to the log, the session is kept.
    async fn finish(&mut self, why: Ended) {
        self.leave().await;
        let (clock, end) = (self.clock.clone(), self.now() + DRAIN);
        while why != Ended::LogClosed && !self.outbox.is_empty() && self.now() < end {
            if self.flushing.is_none() {
                self.flushing = self.outbox.flush(self.now());
            }
            let due = self.outbox.deadline().map_or(end, |due| due.min(end));
            tokio::select! {
                flushed = finished(&mut self.flushing) => {
                    if self.flushed(flushed).await.is_some() {
                        break;
                    }
                }
                () = wait(&clock, Some(due)) => {}
            }
        }
        let last = finished_or(&mut self.keeping);
        let _ = timeout(LEAVE_TIMEOUT, last).await;
        if self.machine.session() != self.kept.0.as_ref() {
            let keep = self.keep(self.now());
            let _ = timeout(DRAIN, keep).await;
        }
        while let Ok(Some(_)) = timeout(CALLBACK_TIMEOUT, self.callbacks.next()).await {}
        tracing::info!(account = %self.account.owner.account, ended = ?why, "the connection to discord has ended");
    }

    fn tell_changes(&mut self) {
        let is_live = self.machine.is_live();
        if is_live != self.was_live {
            self.was_live = is_live;
            tracing::info!(account = %self.account.owner.account, is_live, "the connection to discord has changed");
        }
    }
}

/// Waits for work when there is some.
async fn finished_or(work: &mut Option<BoxFuture<'_, ()>>) {
    if let Some(running) = work {
        running.await;
    }
    *work = None;
}

async fn wait(clock: &SharedClock, due: Option<Duration>) {
    match due {
        Some(due) => clock.sleep(due.saturating_sub(clock.monotonic())).await,
        None => pending().await,
    }
}

fn ask<'w>(ways: &'w Ways, account: &Account) -> BoxFuture<'w, Result<Discovered, Undiscovered>> {
    let request = socket::discovery(account, &ways.settings);
    Box::pin(async move {
        match ways.caller.call(request, CALL_TIMEOUT).await {
            Ok(answer) => socket::discovered(&answer),
            Err(why) => {
                tracing::debug!(why, "the API of discord does not answer");
                Err(Undiscovered::Later { status: 0, after: None })
            }
        }
    })
}

/// Connects and shakes hands; none: not now.
async fn connect(ways: &Ways, address: String) -> Option<Wire> {
    // The door knows web addresses.
    let url = address.replacen("ws", "http", 1);
    let config = WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
    let connecting = async {
        let stream = ways.dial.dial(&url).await?;
        let shaken = tokio_tungstenite::client_async_with_config(address, stream, Some(config)).await;
        shaken.map(|(wire, _)| Box::new(wire)).map_err(|error| error.to_string())
    };
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(wire)) => Some(wire),
        Ok(Err(why)) => {
            tracing::debug!(why, "no connection to the gateway of discord");
            None
        }
        Err(_) => None,
    }
}
