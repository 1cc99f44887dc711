//! What a platform knows: every call that came, what it did with it, and every event that it posted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use messaging::clock::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Posted;
use crate::locked;

/// Calls and offers kept at most; further ones are served, dropped from the ledger and counted.
const ENTRIES_MAX: usize = 2_000_000;

/// What the platform did with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Taken and answered.
    Accepted,
    /// Taken; no (understandable) answer was given.
    AcceptedUnanswered,
    /// Taken and answered; a status tells of the failure.
    AcceptedThenFailed(u32),
    /// Refused with the platform's code.
    Refused(u32),
    /// Not taken, and no (understandable) answer was given.
    Lost,
    /// A receipt, typing notice or reading call: nothing that a person sees as a message.
    Receipt,
}

impl Fate {
    /// Whether the person may see a message because of this call.
    pub fn is_accepted(self) -> bool {
        match self {
            Self::Accepted | Self::AcceptedUnanswered | Self::AcceptedThenFailed(_) => true,
            Self::Refused(_) | Self::Lost | Self::Receipt => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::AcceptedUnanswered => "accepted, not answered",
            Self::AcceptedThenFailed(_) => "accepted, then failed",
            Self::Refused(_) => "refused",
            Self::Lost => "lost",
            Self::Receipt => "receipt",
        }
    }
}

/// One call of the gateway.
#[derive(Debug, Clone)]
pub struct Call {
    /// The platform's time.
    pub at: Timestamp,
    /// This process's monotonic time, see `bench::monotonic_us`.
    pub at_us: u64,
    /// What the platform did.
    pub fate: Fate,
    /// The platform's id, when the call was taken.
    pub platform_id: Option<String>,
    /// The recipient as the platform keys it: digits of a number, a BSUID, or a chat id.
    pub to: String,
    /// The kind (`text`, `template`, `read` …) or the method.
    pub kind: String,
    /// The text or caption.
    pub text: Option<String>,
    /// The caller's id for the message, where the platform carries one.
    pub callback: Option<String>,
    /// Until when free text to this recipient is allowed; none: the person never wrote.
    pub window_ends: Option<Timestamp>,
    /// Whether a window is needed for this call.
    pub free_form: bool,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// Whether it came when free text was not allowed.
    pub fn out_of_window(&self) -> bool {
        self.free_form && self.window_ends.is_none_or(|ends| self.at >= ends)
    }

    pub(crate) fn show(&self) -> Value {
        let code = match self.fate {
            Fate::Refused(code) | Fate::AcceptedThenFailed(code) => Some(code),
            Fate::Accepted | Fate::AcceptedUnanswered | Fate::Lost | Fate::Receipt => None,
        };
        json!({
            "at": self.at, "fate": self.fate.name(), "code": code, "platform_id": self.platform_id, "to": self.to, "kind": self.kind,
            "text": self.text, "callback": self.callback, "window_ends": self.window_ends,
        })
    }
}

/// One event that the platform posted.
#[derive(Debug, Clone)]
pub struct Offered {
    /// The platform's id of the event.
    pub platform_id: String,
    /// `message`, or the name of a status or of another event.
    pub kind: &'static str,
    /// Whom it concerns.
    pub from: String,
    /// The text of a message.
    pub text: Option<String>,
    /// The platform's time.
    pub at: Timestamp,
    /// When the first try began, see `bench::monotonic_us`.
    pub begun_us: u64,
    /// When the last answer came.
    pub answered_us: u64,
    /// What became of it.
    pub posted: Posted,
}

impl Offered {
    pub(crate) fn show(&self) -> Value {
        json!({
            "at": self.at, "platform_id": self.platform_id, "kind": self.kind, "from": self.from, "text": self.text,
            "accepted": self.posted.accepted, "tries": self.posted.tries, "last_status": self.posted.last_status,
        })
    }
}

/// The records.
pub(crate) struct Ledger {
    calls: Mutex<Vec<Call>>,
    offered: Mutex<Vec<Offered>>,
    dropped: AtomicU64,
    accepted: watch::Sender<usize>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { calls: Mutex::default(), offered: Mutex::default(), dropped: AtomicU64::new(0), accepted: watch::Sender::new(0) }
    }
}

impl Ledger {
    pub fn call(&self, call: Call) {
        let accepted = call.fate.is_accepted();
        let kept = push_bounded(&mut locked(&self.calls), call);
        if !kept {
            self.count_dropped();
        }
        if accepted {
            self.accepted.send_modify(|count| *count += 1);
        }
    }

    pub fn offer(&self, offered: Offered) {
        if !push_bounded(&mut locked(&self.offered), offered) {
            self.count_dropped();
        }
    }

    pub fn calls(&self) -> Vec<Call> {
        locked(&self.calls).clone()
    }

    pub fn offered(&self) -> Vec<Offered> {
        locked(&self.offered).clone()
    }

    pub fn calls_tail(&self, max: usize) -> Vec<Call> {
        tail(&locked(&self.calls), max)
    }

    pub fn offered_tail(&self, max: usize) -> Vec<Offered> {
        tail(&locked(&self.offered), max)
    }

    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub async fn wait_accepted(&self, count: usize, within: Duration) -> bool {
        let mut seen = self.accepted.subscribe();
        let reached = tokio::time::timeout(within, seen.wait_for(|accepted| *accepted >= count)).await;
        reached.is_ok_and(|seen| seen.is_ok())
    }
}

fn push_bounded<T>(entries: &mut Vec<T>, entry: T) -> bool {
    if entries.len() >= ENTRIES_MAX {
        return false;
    }
    entries.push(entry);
    true
}

fn tail<T: Clone>(entries: &[T], max: usize) -> Vec<T> {
    entries[entries.len().saturating_sub(max)..].to_vec()
}
