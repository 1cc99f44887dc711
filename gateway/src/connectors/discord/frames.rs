//! The Gateway's frames: what is read of them, and what is said. JSON without compression.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use messaging::channels::discord::socket::Intents;
use messaging::seal::Secret;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Kinds of frames (`op`).
pub(super) mod ops {
    pub const DISPATCH: u8 = 0;
    pub const HEARTBEAT: u8 = 1;
    pub const IDENTIFY: u8 = 2;
    pub const RESUME: u8 = 6;
    pub const RECONNECT: u8 = 7;
    pub const INVALID_SESSION: u8 = 9;
    pub const HELLO: u8 = 10;
    pub const HEARTBEAT_ACK: u8 = 11;
}

/// A frame that came.
#[derive(Deserialize)]
pub(super) struct Frame<'a> {
    pub op: u8,
    #[serde(borrow, default)]
    pub d: Option<&'a RawValue>,
    #[serde(default)]
    pub s: Option<u64>,
    #[serde(borrow, default)]
    pub t: Option<Cow<'a, str>>,
}

impl<'a> Frame<'a> {
    /// Reads one; none: it is no frame.
    pub fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What it says, as a type; none: it says something else.
    pub fn said<T: Deserialize<'a>>(&self) -> Option<T> {
        serde_json::from_str(self.d?.get()).ok()
    }
}

/// What HELLO says.
#[derive(Deserialize)]
struct Hello {
    heartbeat_interval: u64,
}

/// How often the other side wants heartbeats, within reason.
pub(super) fn heartbeat_of(hello: &Frame<'_>) -> Option<Duration> {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(5 * 60);
    let said: Hello = hello.said()?;
    Some(Duration::from_millis(said.heartbeat_interval).clamp(SHORTEST, LONGEST))
}

/// What READY says.
#[derive(Deserialize)]
pub(super) struct Ready<'a> {
    #[serde(borrow)]
    pub session_id: Cow<'a, str>,
    #[serde(borrow)]
    pub resume_gateway_url: Cow<'a, str>,
    #[serde(borrow)]
    pub user: User<'a>,
}

#[derive(Deserialize)]
pub(super) struct User<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
}

/// A frame to be sent. It may hold the bot's token: it shows its kind only.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    op: u8,
    text: String,
}

impl Outgoing {
    fn new(op: u8, said: &Value) -> Self {
        Self { op, text: json!({ "op": op, "d": said }).to_string() }
    }

    /// Its bytes.
    pub fn expose(self) -> String {
        self.text
    }

    /// A heartbeat with the number of the last event that is safe with us.
    pub fn heartbeat(number: Option<u64>) -> Self {
        Self::new(ops::HEARTBEAT, &json!(number))
    }

    /// Begins a session. `shards`: of how many this is the first.
    pub fn identify(token: &Secret, intents: Intents, shards: u32) -> Self {
        let properties = json!({ "os": "linux", "browser": "trunkline", "device": "trunkline" });
        let said = json!({ "token": token.expose(), "intents": intents.bits(), "properties": properties, "shard": [0, shards] });
        Self::new(ops::IDENTIFY, &said)
    }

    /// Takes a session up again behind an event.
    pub fn resume(token: &Secret, session: &str, number: u64) -> Self {
        Self::new(ops::RESUME, &json!({ "token": token.expose(), "session_id": session, "seq": number }))
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing(op {})", self.op)
    }
}
