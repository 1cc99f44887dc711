//! The Gateway's sessions: numbered events, kept for those who resume; and what a test lets go wrong.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::locked;

/// Events that a session keeps for a resume.
const KEPT_MAX: usize = 100_000;
/// Sessions at once.
const SESSIONS_MAX: usize = 1_000;
/// Frames that wait for one connection; it is dropped when there are more.
pub(super) const WAITING_MAX: usize = 8_192;
/// Intents.
const GUILD_MESSAGES: u64 = 1 << 9;
const DIRECT_MESSAGES: u64 = 1 << 12;
const DIRECT_REACTIONS: u64 = 1 << 13;
const MESSAGE_CONTENT: u64 = 1 << 15;
/// What the platform asks at every heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(41_250);

/// Something that happened.
pub(crate) struct Told {
    name: &'static str,
    said: Value,
    /// Bits of which a session needs one; zero: everybody gets it.
    intents: u64,
    guild: Option<u64>,
}

impl Told {
    pub fn direct(name: &'static str, said: Value) -> Self {
        Self { name, said, intents: DIRECT_MESSAGES, guild: None }
    }
    pub fn reaction(said: Value) -> Self {
        Self { name: "MESSAGE_REACTION_ADD", said, intents: DIRECT_REACTIONS, guild: None }
    }
    pub fn in_guild(name: &'static str, guild: &str, said: Value) -> Self {
        Self { name, said, intents: GUILD_MESSAGES, guild: guild.parse().ok() }
    }
    pub fn anyone(name: &'static str, said: Value) -> Self {
        Self { name, said, intents: 0, guild: None }
    }
}

/// What a connection is to do.
#[derive(Debug, Clone)]
pub(super) enum Push {
    /// Send this frame.
    Frame(String),
    /// Close with this code.
    Close(u16),
    /// Vanish without a word.
    Cut,
}

/// Who identifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub intents: u64,
    pub shard: (u64, u64),
}

struct Session {
    id: String,
    identity: Identity,
    last: u64,
    kept: VecDeque<(u64, String)>,
    out: Option<mpsc::Sender<Push>>,
    /// Highest number that a heartbeat or resume has told.
    seen: u64,
}

struct Inner {
    sessions: Vec<Session>,
    number: u64,
    identifies: u32,
    resumes: u32,
    connections: u64,
    heartbeats: u64,
    heartbeat: Duration,
    refused_intents: u64,
    sessions_left: u32,
    /// Whether heartbeats are left unanswered.
    mute: bool,
}

/// A session as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// What it wants.
    pub intents: u64,
    /// Its shard and how many there are.
    pub shard: (u64, u64),
    /// Number of its last event.
    pub last: u64,
    /// The highest number that the client said it has, by heartbeat or resume.
    pub seen: u64,
    /// Whether there is a connection now.
    pub is_connected: bool,
}

/// All sessions.
pub struct Sessions {
    inner: Mutex<Inner>,
}

impl Default for Sessions {
    fn default() -> Self {
        let inner = Inner {
            sessions: Vec::new(),
            number: 0,
            identifies: 0,
            resumes: 0,
            connections: 0,
            heartbeats: 0,
            heartbeat: HEARTBEAT,
            refused_intents: 0,
            sessions_left: 1_000,
            mute: false,
        };
        Self { inner: Mutex::new(inner) }
    }
}

/// A frame of the Gateway.
pub(super) fn frame(op: u64, said: &Value, number: Option<u64>, name: Option<&str>) -> String {
    json!({ "op": op, "d": said, "s": number, "t": name }).to_string()
}

impl Sessions {
    /// The sessions now.
    pub fn now(&self) -> Vec<SessionView> {
        let view = |session: &Session| SessionView {
            id: session.id.clone(),
            intents: session.identity.intents,
            shard: session.identity.shard,
            last: session.last,
            seen: session.seen,
            is_connected: session.out.as_ref().is_some_and(|out| !out.is_closed()),
        };
        locked(&self.inner).sessions.iter().map(view).collect()
    }

    /// How often somebody identified, resumed, and connected at all.
    pub fn counts(&self) -> (u32, u32, u64) {
        let inner = locked(&self.inner);
        (inner.identifies, inner.resumes, inner.connections)
    }

    /// Heartbeats that came.
    pub fn heartbeats(&self) -> u64 {
        locked(&self.inner).heartbeats
    }

    /// How often clients are to send heartbeats, for connections from now on.
    pub fn set_heartbeat(&self, every: Duration) {
        locked(&self.inner).heartbeat = every;
    }

    /// Leaves heartbeats unanswered, as a dead connection does.
    pub fn set_mute(&self, mute: bool) {
        locked(&self.inner).mute = mute;
    }

    /// Bits that the application has no permission for: whoever wants one is closed with 4014.
    pub fn refuse_intents(&self, bits: u64) {
        locked(&self.inner).refused_intents = bits;
    }

    /// How many sessions may still begin today, as `/gateway/bot` says.
    pub fn set_sessions_left(&self, left: u32) {
        locked(&self.inner).sessions_left = left;
    }

    /// Asks every connection to reconnect (op 7).
    pub fn ask_to_reconnect(&self) {
        self.push(&Push::Frame(frame(7, &Value::Null, None, None)));
    }

    /// Asks every connection for a heartbeat at once (op 1).
    pub fn ask_for_heartbeat(&self) {
        self.push(&Push::Frame(frame(1, &Value::Null, None, None)));
    }

    /// Tells every connection that its session is invalid (op 9), and whether it may be resumed.
    pub fn invalidate(&self, resumable: bool) {
        self.push(&Push::Frame(frame(9, &json!(resumable), None, None)));
        if !resumable {
            self.forget();
        }
    }

    /// Closes every connection with a code.
    pub fn close(&self, code: u16) {
        self.push(&Push::Close(code));
    }

    /// Cuts every connection without a word.
    pub fn cut(&self) {
        self.push(&Push::Cut);
    }

    /// Sends every connection a frame that is not to be understood.
    pub fn send_garbage(&self) {
        self.push(&Push::Frame("{\"op\":".to_owned()));
    }

    /// Forgets all sessions: nothing can be resumed.
    pub fn forget(&self) {
        locked(&self.inner).sessions.clear();
    }

    fn push(&self, what: &Push) {
        for session in &mut locked(&self.inner).sessions {
            // Who does not listen is gone already.
            let _ = session.out.as_ref().map(|out| out.try_send(what.clone()));
        }
    }

    /// Tells every session that wants it; false: nobody.
    pub(super) fn tell(&self, about: &Told) -> bool {
        let mut taken = false;
        for session in &mut locked(&self.inner).sessions {
            if session.wants(about) {
                session.dispatch(about.name, &about.said);
                taken = true;
            }
        }
        taken
    }

    pub(super) fn connected(&self) -> Duration {
        let mut inner = locked(&self.inner);
        inner.connections += 1;
        inner.heartbeat
    }

    pub(super) fn sessions_left(&self) -> u32 {
        locked(&self.inner).sessions_left
    }

    /// A heartbeat with the last number that the client has; whether it is answered.
    pub(super) fn beat(&self, session: Option<&str>, number: Option<u64>) -> bool {
        let mut inner = locked(&self.inner);
        inner.heartbeats += 1;
        if let Some(session) = inner.sessions.iter_mut().find(|one| Some(one.id.as_str()) == session) {
            session.seen = session.seen.max(number.unwrap_or(0));
        }
        !inner.mute
    }

    /// A new session, or the code to close with. Its id and nothing else is known yet: READY is dispatched next.
    pub(super) fn identify(&self, identity: Identity, out: mpsc::Sender<Push>) -> Result<String, u16> {
        let mut inner = locked(&self.inner);
        if identity.intents & inner.refused_intents != 0 {
            return Err(4014);
        }
        let (shard, of) = identity.shard;
        if of == 0 || shard >= of {
            return Err(4010);
        }
        inner.number += 1;
        inner.identifies += 1;
        inner.sessions_left = inner.sessions_left.saturating_sub(1);
        let id = format!("session{:04}", inner.number);
        if inner.sessions.len() >= SESSIONS_MAX {
            inner.sessions.remove(0);
        }
        inner.sessions.push(Session { id: id.clone(), identity, last: 0, kept: VecDeque::new(), out: Some(out), seen: 0 });
        Ok(id)
    }

    /// Dispatches to one session.
    pub(super) fn dispatch(&self, session: &str, name: &str, said: &Value) {
        if let Some(session) = locked(&self.inner).sessions.iter_mut().find(|one| one.id == session) {
            session.dispatch(name, said);
        }
    }

    /// Takes a session up again: everything behind the number comes again. False: it is not known any more.
    pub(super) fn resume(&self, id: &str, number: u64, out: mpsc::Sender<Push>) -> Result<bool, u16> {
        let mut inner = locked(&self.inner);
        let Some(session) = inner.sessions.iter_mut().find(|one| one.id == id) else { return Ok(false) };
        if number > session.last {
            return Err(4007);
        }
        let oldest = session.kept.front().map_or(session.last + 1, |(number, _)| *number);
        if number + 1 < oldest {
            return Ok(false);
        }
        session.seen = session.seen.max(number);
        for (_, frame) in session.kept.iter().filter(|(one, _)| *one > number) {
            let _ = out.try_send(Push::Frame(frame.clone()));
        }
        session.out = Some(out);
        session.dispatch("RESUMED", &json!({}));
        inner.resumes += 1;
        Ok(true)
    }

    /// A connection ended; a session that the client itself closed is over.
    pub(super) fn left(&self, id: &str, for_good: bool) {
        let mut inner = locked(&self.inner);
        if for_good {
            inner.sessions.retain(|one| one.id != id);
        } else if let Some(session) = inner.sessions.iter_mut().find(|one| one.id == id)
            && session.out.as_ref().is_some_and(mpsc::Sender::is_closed)
        {
            session.out = None;
        }
    }
}

impl Session {
    fn wants(&self, about: &Told) -> bool {
        let (shard, of) = self.identity.shard;
        let place = about.guild.map_or(0, |guild| (guild >> super::TIME_SHIFT) % of);
        place == shard && (about.intents == 0 || self.identity.intents & about.intents != 0)
    }

    fn dispatch(&mut self, name: &str, said: &Value) {
        self.last += 1;
        let mut said = said.clone();
        if said.get("guild_id").is_some() && self.identity.intents & MESSAGE_CONTENT == 0 && said.get("content").is_some() {
            said["content"] = json!("");
        }
        let frame = frame(0, &said, Some(self.last), Some(name));
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((self.last, frame.clone()));
        if self.out.as_ref().is_some_and(|out| out.try_send(Push::Frame(frame)).is_err()) {
            // Too slow, or gone: it may resume.
            self.out = None;
        }
    }
}
