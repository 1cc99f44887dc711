//! How one stays connected, without doing anything: what happens goes in with its time, what to do comes out.
//!
//! ```text
//! Pausing -> Asking (where is the Gateway?) -> Connecting -> Greeting (HELLO) -> Starting (READY, RESUMED) -> Live
//!    ^          (left out while a session can be resumed)                                                      |
//!    +----------- any end of the connection: its code says whether the session lives, or nothing helps ---------+
//! ```
//!
//! A session's number only rises by [`Input::Durable`]: what was read and is not on the log comes again with the next RESUME.
//! All times are of the clock's monotonic time.

use std::time::Duration;

use messaging::channels::discord::socket::{Discovered, Intents, Undiscovered};
use messaging::seal::Secret;
use serde_json::value::RawValue;

use super::frames::{Frame, Outgoing, Ready, heartbeat_of, ops};
use super::{Ended, Session};

/// How long HELLO may take.
const GREETING: Duration = Duration::from_secs(15);
/// How long READY or RESUMED may take from the last sign of life on.
const STARTING: Duration = Duration::from_secs(60);
/// Waits between tries: doubled from the first to the longest, half of it by chance.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_LONGEST: Duration = Duration::from_secs(60);
/// How long to wait after "invalid session", by chance between the two.
const INVALID_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Sessions of one bot may begin so often.
const IDENTIFY_PAUSE: Duration = Duration::from_secs(5);
/// Shortest wait when no session may begin any more today.
const NO_SESSIONS_WAIT: Duration = Duration::from_secs(60);
/// After so many failures of the address to resume at, the usual one is asked for.
const RESUME_TRIES: u32 = 3;
/// Heartbeats that the other side asks for are sent this often at most.
const ASKED_PAUSE: Duration = Duration::from_secs(1);
/// The code that we close with: neither 1000 nor 1001, which end the session.
pub(super) const LEAVING: u16 = 4_900;
/// What stands in `Session::number` before READY's own number is durable.
const NOTHING: u64 = 0;

/// Something that happened.
pub(super) enum Input<'a> {
    /// The API's answer.
    Discovered(Result<Discovered, Undiscovered>),
    /// The connection stands.
    Opened,
    /// A frame.
    Frame(&'a str),
    /// The connection ended, with the other side's code if it gave one; or it did not come about.
    Closed(Option<u16>),
    /// All events of a session up to this number are on the log.
    Durable {
        /// Which session.
        session: &'a str,
        /// The number.
        number: u64,
    },
    /// Too much waits for the log: nothing more can be read.
    Full,
    /// Nothing waits for the log any more.
    Drained,
    /// The time of [`Machine::deadline`] has come.
    Tick,
}

/// Something to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Ask where the Gateway is.
    Discover,
    /// Connect to this address.
    Connect(String),
    /// Send a frame.
    Send(Outgoing),
    /// Keep an event: on the log, then say `Durable`.
    Deliver(Event),
    /// Close the connection, if there is one; nothing more of it comes in.
    Leave,
    /// It is over.
    End(Ended),
}

/// An event that was read.
#[derive(Debug)]
pub(super) struct Event {
    pub session: String,
    pub bot: String,
    pub number: u64,
    pub name: String,
    pub said: Box<RawValue>,
}

/// Heartbeats of a connection.
#[derive(Debug, Clone, Copy)]
struct Pulse {
    every: Duration,
    next: Duration,
    /// The last one was not answered yet.
    is_open: bool,
    /// When one was sent because the other side asked.
    asked: Option<Duration>,
}

#[derive(Debug)]
enum State {
    /// Waits until then, for a try.
    Pausing(Duration),
    Asking,
    Connecting,
    /// Until then HELLO must come.
    Greeting(Duration),
    /// Until then READY or RESUMED must come.
    Starting(Pulse, Duration),
    Live(Pulse),
    /// Until the log has taken what waits.
    Full,
    Over,
}

/// One account's connection.
pub(super) struct Machine {
    token: Secret,
    intents: Intents,
    /// Version of the Gateway, as a number.
    version: String,
    /// Whether an address without TLS may be used: the API's own is one, on a developer's machine.
    plain: bool,
    chance: Box<dyn FnMut() -> f64 + Send>,
    state: State,
    session: Option<Session>,
    /// The highest number that was read in this connection.
    read: u64,
    failures: u32,
    /// When a session was asked for last.
    identified: Option<Duration>,
    /// What the API said.
    discovered: Option<Discovered>,
    /// Whether this connection takes a session up.
    resuming: bool,
}

impl Machine {
    /// A machine that begins at its first tick. `session` is one of before; `chance` gives numbers from 0 to 1.
    pub fn new(options: Options, session: Option<Session>, now: Duration, chance: impl FnMut() -> f64 + Send + 'static) -> Self {
        let session = session.filter(|session| session.intents == options.intents.bits() && is_allowed(&session.address, options.plain));
        Self {
            token: options.token,
            intents: options.intents,
            version: options.version,
            plain: options.plain,
            chance: Box::new(chance),
            state: State::Pausing(now),
            session,
            read: NOTHING,
            failures: 0,
            identified: None,
            discovered: None,
            resuming: false,
        }
    }

    /// When `Tick` is due; none: something else must happen first.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Pausing(until) | State::Greeting(until) => Some(*until),
            State::Starting(pulse, until) => Some((*until).min(pulse.next)),
            State::Live(pulse) => Some(pulse.next),
            State::Asking | State::Connecting | State::Full | State::Over => None,
        }
    }

    /// The session, to be resumed by whoever comes next.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Whether events come.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// What to do now that this has happened.
    pub fn on(&mut self, input: Input<'_>, now: Duration) -> Vec<Action> {
        match input {
            Input::Durable { session, number } => {
                self.durable(session, number);
                Vec::new()
            }
            Input::Tick => self.tick(now),
            Input::Discovered(answer) if matches!(self.state, State::Asking) => self.discovered(answer, now),
            Input::Opened if matches!(self.state, State::Connecting) => {
                self.read = NOTHING;
                self.state = State::Greeting(now + GREETING);
                Vec::new()
            }
            Input::Frame(text) if self.is_connected() => self.frame(text, now),
            Input::Closed(code) if self.is_connected() || matches!(self.state, State::Connecting) => self.closed(code, now),
            Input::Full if self.is_connected() => {
                self.state = State::Full;
                vec![Action::Leave]
            }
            Input::Drained if matches!(self.state, State::Full) => {
                self.pause(Duration::ZERO, now);
                Vec::new()
            }
            // Of a connection or a call that is not ours any more.
            Input::Discovered(_) | Input::Opened | Input::Frame(_) | Input::Closed(_) | Input::Full | Input::Drained => Vec::new(),
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.state, State::Greeting(_) | State::Starting(..) | State::Live(_))
    }

    fn durable(&mut self, session: &str, number: u64) {
        if let Some(own) = self.session.as_mut().filter(|own| own.id == session) {
            own.number = own.number.max(number);
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match &mut self.state {
            State::Pausing(_) => self.begin(now),
            State::Greeting(_) => self.lost(now),
            State::Starting(_, until) if now >= *until => self.lost(now),
            State::Starting(pulse, _) | State::Live(pulse) => {
                if pulse.is_open {
                    // Nobody answers: the connection only looks alive.
                    return self.lost(now);
                }
                pulse.is_open = true;
                pulse.next = now + pulse.every;
                vec![Action::Send(self.heartbeat())]
            }
            State::Asking | State::Connecting | State::Full | State::Over => Vec::new(),
        }
    }

    fn heartbeat(&self) -> Outgoing {
        Outgoing::heartbeat(self.session.as_ref().map(|session| session.number).filter(|number| *number > NOTHING))
    }

    /// The next try.
    fn begin(&mut self, now: Duration) -> Vec<Action> {
        if let Some(session) = &self.session
            && self.failures <= RESUME_TRIES
        {
            return self.connect(&session.address.clone());
        }
        if self.session.is_none()
            && let Some(before) = self.identified
            && now < before + IDENTIFY_PAUSE
        {
            self.state = State::Pausing(before + IDENTIFY_PAUSE);
            return Vec::new();
        }
        self.state = State::Asking;
        vec![Action::Discover]
    }

    fn connect(&mut self, address: &str) -> Vec<Action> {
        self.state = State::Connecting;
        vec![Action::Connect(format!("{}/?v={}&encoding=json", address.trim_end_matches('/'), self.version))]
    }

    fn discovered(&mut self, answer: Result<Discovered, Undiscovered>, now: Duration) -> Vec<Action> {
        match answer {
            Ok(found) if !is_allowed(&found.address, self.plain) => self.lost(now),
            Ok(found) if self.session.is_none() && found.sessions_left == 0 => {
                self.state = State::Pausing(now + found.reset_after.max(NO_SESSIONS_WAIT));
                Vec::new()
            }
            Ok(found) => {
                let address = found.address.clone();
                self.discovered = Some(found);
                self.connect(&address)
            }
            Err(Undiscovered::Token) => self.end(Ended::Credential),
            Err(Undiscovered::Later { after, .. }) => {
                let actions = self.lost(now);
                if let (State::Pausing(until), Some(after)) = (&mut self.state, after) {
                    *until = (*until).max(now + after);
                }
                actions
            }
        }
    }

    fn frame(&mut self, text: &str, now: Duration) -> Vec<Action> {
        let Some(frame) = Frame::read(text) else { return self.lost(now) };
        match frame.op {
            ops::DISPATCH => self.dispatched(&frame, now),
            ops::HEARTBEAT => self.asked(now),
            ops::RECONNECT => self.lost(now),
            ops::INVALID_SESSION => self.invalid(frame.said::<bool>() == Some(true), now),
            ops::HELLO => self.greeted(&frame, now),
            ops::HEARTBEAT_ACK => {
                if let State::Starting(pulse, _) | State::Live(pulse) = &mut self.state {
                    pulse.is_open = false;
                }
                if self.is_live() {
                    self.failures = 0;
                }
                Vec::new()
            }
            // Kinds of tomorrow.
            _ => Vec::new(),
        }
    }

    fn greeted(&mut self, hello: &Frame<'_>, now: Duration) -> Vec<Action> {
        if !matches!(self.state, State::Greeting(_)) {
            return Vec::new();
        }
        let Some(every) = heartbeat_of(hello) else { return self.lost(now) };
        // The first beat comes by chance, so that not all clients beat together after an outage.
        let pulse = Pulse { every, next: now + every.mul_f64((self.chance)().clamp(0.0, 1.0)), is_open: false, asked: None };
        self.state = State::Starting(pulse, now + STARTING);
        let first = match &self.session {
            Some(session) => {
                self.resuming = true;
                Outgoing::resume(&self.token, &session.id, session.number)
            }
            None => {
                self.resuming = false;
                self.identified = Some(now);
                Outgoing::identify(&self.token, self.intents, self.shards())
            }
        };
        vec![Action::Send(first)]
    }

    /// Direct messages come to the first shard of however many. Whoever wants guilds as well wants all of them.
    fn shards(&self) -> u32 {
        let advised = self.discovered.as_ref().map_or(1, |found| found.shards.max(1));
        if self.intents.is_direct_only() { advised } else { 1 }
    }

    fn dispatched(&mut self, frame: &Frame<'_>, now: Duration) -> Vec<Action> {
        let (Some(number), Some(name), Some(said)) = (frame.s, frame.t.as_deref(), frame.d) else { return self.lost(now) };
        let State::Starting(pulse, _) = self.state else {
            return if self.is_live() { self.delivered(name, number, said) } else { self.lost(now) };
        };
        // A long replay is a sign of life.
        self.state = State::Starting(pulse, now + STARTING);
        match name {
            "READY" => {
                let Some(ready) = frame.said::<Ready<'_>>().filter(|ready| is_allowed(&ready.resume_gateway_url, self.plain)) else {
                    return self.lost(now);
                };
                self.session = Some(Session {
                    id: ready.session_id.into_owned(),
                    address: ready.resume_gateway_url.into_owned(),
                    bot: ready.user.id.into_owned(),
                    number: NOTHING,
                    intents: self.intents.bits(),
                });
                self.state = State::Live(pulse);
            }
            "RESUMED" if self.resuming => self.state = State::Live(pulse),
            _ => {}
        }
        self.delivered(name, number, said)
    }

    fn delivered(&mut self, name: &str, number: u64, said: &RawValue) -> Vec<Action> {
        let Some(session) = &self.session else { return Vec::new() };
        // What came already in this connection does not come again.
        if number <= self.read {
            return Vec::new();
        }
        self.read = number;
        let (session, bot) = (session.id.clone(), session.bot.clone());
        vec![Action::Deliver(Event { session, bot, number, name: name.to_owned(), said: said.to_owned() })]
    }

    /// The other side wants a heartbeat now.
    fn asked(&mut self, now: Duration) -> Vec<Action> {
        let beat = self.heartbeat();
        let (State::Starting(pulse, _) | State::Live(pulse)) = &mut self.state else { return Vec::new() };
        if pulse.asked.is_some_and(|before| now < before + ASKED_PAUSE) {
            return Vec::new();
        }
        pulse.asked = Some(now);
        pulse.is_open = true;
        pulse.next = now + pulse.every;
        vec![Action::Send(beat)]
    }

    fn invalid(&mut self, resumable: bool, now: Duration) -> Vec<Action> {
        if !resumable {
            self.session = None;
        }
        self.failures = self.failures.saturating_add(1);
        let (least, most) = INVALID_WAIT;
        let wait = least + (most - least).mul_f64((self.chance)().clamp(0.0, 1.0));
        self.pause(wait, now);
        vec![Action::Leave]
    }

    fn closed(&mut self, code: Option<u16>, now: Duration) -> Vec<Action> {
        match code {
            Some(4004) => return self.end(Ended::Credential),
            // Sharding, version, intents: the same again brings the same again.
            Some(code @ 4010..=4014) => return self.end(Ended::Forbidden(code)),
            // A number that is none, or a session that is over.
            Some(4003 | 4007) => self.session = None,
            // Timed out: by the book a new one is begun. Whoever asks may still get what it missed, and is told if not; asked once.
            Some(4009) if self.is_resuming() => self.session = None,
            Some(_) | None => {}
        }
        self.lost(now)
    }

    /// A session is to go on, and does not yet.
    fn is_resuming(&self) -> bool {
        self.resuming && matches!(self.state, State::Starting(..))
    }

    /// The connection is of no use any more: another try, soon at first.
    fn lost(&mut self, now: Duration) -> Vec<Action> {
        let wait = self.wait();
        self.failures = self.failures.saturating_add(1);
        self.pause(wait, now);
        vec![Action::Leave]
    }

    fn wait(&mut self) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let doubled = WAIT_FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(WAIT_LONGEST);
        doubled.mul_f64(0.5 + 0.5 * (self.chance)().clamp(0.0, 1.0))
    }

    fn pause(&mut self, wait: Duration, now: Duration) {
        self.state = State::Pausing(now + wait);
    }

    fn end(&mut self, why: Ended) -> Vec<Action> {
        self.state = State::Over;
        self.session = None;
        vec![Action::Leave, Action::End(why)]
    }
}

/// What a machine needs to know.
pub(super) struct Options {
    pub token: Secret,
    pub intents: Intents,
    pub version: String,
    pub plain: bool,
}

/// Whether an address may be connected to: with TLS, unless the API itself has none.
fn is_allowed(address: &str, plain: bool) -> bool {
    messaging::channels::discord::socket::is_address(address) && (plain || address.starts_with("wss://"))
}

#[cfg(test)]
mod tests;
