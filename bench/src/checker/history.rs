//! What the witnesses saw.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use messaging::outcome::Status;

use crate::find;
use crate::inbox::Received;
use crate::mark::Mark;
use crate::platform::{self, Call, Fate};

/// How an operation ended for whoever asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Answered 2xx.
    Accepted,
    /// Answered otherwise.
    Refused,
    /// Not answered: it may have happened.
    Unknown,
}

/// Something that was asked of the gateway: a customer's message at its door, or a merchant's send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Which.
    pub mark: Mark,
    /// When it was first tried, see `bench::monotonic_us`.
    pub begun_us: u64,
    /// When its last answer came.
    pub answered_us: u64,
    /// How it ended.
    pub answer: Answer,
    /// The gateway's id of it (`msg_…`), where its answer says one.
    pub id: Option<String>,
}

impl Operation {
    /// When it was acknowledged; `u64::MAX` when it was not.
    pub(super) fn acknowledged_us(&self) -> u64 {
        match self.answer {
            Answer::Accepted => self.answered_us,
            Answer::Refused | Answer::Unknown => u64::MAX,
        }
    }

    /// A customer's message as a platform's simulator offered it; none for events without a mark.
    pub fn from_offered(offered: &platform::Offered) -> Option<Self> {
        let mark = Mark::find(offered.text.as_deref()?.as_bytes())?;
        let answer = match (offered.posted.accepted, offered.posted.ambiguous) {
            (true, _) => Answer::Accepted,
            (false, true) => Answer::Unknown,
            (false, false) => Answer::Refused,
        };
        Some(Self { mark, begun_us: offered.begun_us, answered_us: offered.answered_us, answer, id: None })
    }
}

/// A message that a platform took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its mark, when its text has one.
    pub mark: Option<Mark>,
    /// The gateway's id that it carries.
    pub callback: Option<String>,
    /// When, see `bench::monotonic_us`.
    pub at_us: u64,
    /// Whether free text came outside the window.
    pub out_of_window: bool,
    /// Whether the platform itself said later that it failed.
    pub failed_later: bool,
}

impl Taken {
    /// From a simulator's ledger; none for calls that were not taken.
    pub fn from_call(call: &Call) -> Option<Self> {
        let failed_later = match call.fate {
            Fate::Accepted | Fate::AcceptedUnanswered => false,
            Fate::AcceptedThenFailed(_) => true,
            Fate::Refused(_) | Fate::Lost | Fate::Receipt => return None,
        };
        Some(Self {
            mark: call.text.as_deref().and_then(|text| Mark::find(text.as_bytes())),
            callback: call.callback.clone(),
            at_us: call.at_us,
            out_of_window: call.out_of_window(),
            failed_later,
        })
    }
}

/// One request that an endpoint received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The endpoint, as the test names it.
    pub endpoint: Arc<str>,
    /// `webhook-id`.
    pub event: Option<Box<str>>,
    /// The event's `type`.
    pub kind: Box<str>,
    /// `trunkline-attempt`.
    pub attempt: Option<u32>,
    /// `trunkline-conversation`.
    pub conversation: Option<Box<str>>,
    /// `trunkline-sequence`.
    pub sequence: Option<u64>,
    /// `trunkline-gap`: how many before it were given up.
    pub gap: u64,
    /// `trunkline-replay`.
    pub replay: bool,
    /// The mark in its body.
    pub mark: Option<Mark>,
    /// The first `msg_…` in its body.
    pub message: Option<Box<str>>,
    /// Whether the endpoint answered 2xx.
    pub acknowledged: bool,
    /// When, see `bench::monotonic_us`.
    pub at_us: u64,
}

impl Delivery {
    /// Reads a request that an inbox received.
    pub fn from_received(endpoint: &Arc<str>, received: &Received) -> Self {
        let number = |name: &str| received.header(name).and_then(|value| value.parse::<u64>().ok());
        Self {
            endpoint: endpoint.clone(),
            event: received.header("webhook-id").map(Box::from),
            kind: Box::from(member(&received.body, b"\"type\":\"")),
            attempt: number("trunkline-attempt").and_then(|attempt| u32::try_from(attempt).ok()),
            conversation: received.header("trunkline-conversation").map(Box::from),
            sequence: number("trunkline-sequence"),
            gap: number("trunkline-gap").unwrap_or(0),
            replay: received.header("trunkline-replay") == Some("true"),
            mark: Mark::find(&received.body),
            message: message_id(&received.body).map(Box::from),
            acknowledged: received.is_acknowledged(),
            at_us: received.at_us,
        }
    }
}

/// The text behind the first occurrence of a member's beginning. Not a parser: load runs read a million bodies, and the
/// gateway writes `type` before the data.
fn member<'a>(body: &'a [u8], start: &[u8]) -> &'a str {
    let Some(at) = find(body, start) else { return "" };
    let rest = &body[at + start.len()..];
    let end = rest.iter().position(|&byte| byte == b'"').unwrap_or(0);
    std::str::from_utf8(&rest[..end]).unwrap_or_default()
}

/// The first `msg_…` that stands as a whole text in some JSON.
pub(crate) fn message_id(body: &[u8]) -> Option<&str> {
    let at = find(body, b"\"msg_")? + 1;
    let end = body[at..].iter().position(|&byte| byte == b'"')?;
    std::str::from_utf8(&body[at..at + end]).ok()
}

/// How a send ended, as read from the API or the store afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The gateway's id.
    pub message: String,
    /// Its states in order; the last is the end.
    pub steps: Vec<Status>,
    /// `possible_duplicate`.
    pub possible_duplicate: bool,
    /// Whether it waits for a known time (a scheduled send, a retry).
    pub has_due_time: bool,
}

/// A text that may only be in some places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// What it stands for.
    pub kind: CanaryKind,
    /// The text itself.
    pub text: String,
}

/// What a canary stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryKind {
    /// The data of this tenant: nobody else may see it.
    Tenant(String),
    /// A secret or personal datum: no output that is searched may have it.
    Secret,
    /// Something that was erased: nowhere any more.
    Erased,
}

/// Bytes that came out somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Whose; none when it belongs to no tenant (a log, the metrics).
    pub tenant: Option<String>,
    /// Where, for the report.
    pub place: String,
    /// What.
    pub bytes: Bytes,
}

/// The counters of P14.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Book {
    /// Records accepted.
    pub accepted: u64,
    /// Stored anew.
    pub stored: u64,
    /// Seen before.
    pub repeated: u64,
    /// Parked.
    pub quarantined: u64,
    /// Erased.
    pub erased: u64,
}

/// Everything that the witnesses saw. What is empty is not judged.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Customers' messages at the gateway's door.
    pub offered: Vec<Operation>,
    /// Merchants' sends at the API.
    pub sends: Vec<Operation>,
    /// What the platform took, in its order.
    pub taken: Vec<Taken>,
    /// What the endpoints received, each endpoint's in order of arrival.
    pub deliveries: Vec<Delivery>,
    /// The endpoints that are to get every accepted customer's message.
    pub endpoints: Vec<Arc<str>>,
    /// The ends of sends. Empty: ends are not judged, and a send counts as lost only when the platform never took it.
    pub ends: Vec<End>,
    /// Marks of messages that were quarantined, erased or exhausted with an event: they are not missed.
    pub excused: HashSet<Mark>,
    /// Whether `deliveries` is complete, so that a gap in `trunkline-sequence` is a loss.
    pub complete: bool,
    /// Canaries.
    pub canaries: Vec<Canary>,
    /// Outputs that are searched for canaries.
    pub outputs: Vec<Output>,
    /// The counters, when they were read.
    pub book: Option<Book>,
}

impl History {
    /// Adds what a simulator offered and took.
    pub fn add_platform(&mut self, offered: &[platform::Offered], calls: &[Call]) {
        self.offered.extend(offered.iter().filter_map(Operation::from_offered));
        self.taken.extend(calls.iter().filter_map(Taken::from_call));
    }

    /// Adds what an endpoint received, and expects every message there.
    pub fn add_endpoint(&mut self, name: &str, received: &[Received]) {
        let name: Arc<str> = Arc::from(name);
        self.deliveries.extend(received.iter().map(|received| Delivery::from_received(&name, received)));
        self.endpoints.push(name);
    }
}
