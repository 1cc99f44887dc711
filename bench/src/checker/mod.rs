//! Decides from outside histories alone whether the promises were kept (promises.md, section 6).
//!
//! Four witnesses write the history: the platform's simulator, the subscribers, the client of the API, and whoever reads the
//! store afterwards. Nothing here looks into the gateway. An operation without an answer may have happened: it counts for
//! neither side. Pure functions: the same history gives the same verdict.

mod deliveries;
mod history;
mod sends;

use std::fmt;

use serde::Serialize;

use crate::find;

pub(crate) use history::message_id;
pub use history::{Answer, Book, Canary, CanaryKind, Delivery, End, History, Operation, Output, Taken};

/// Violations that are listed; the rest is only counted.
pub const VIOLATIONS_LISTED_MAX: usize = 1_000;

/// The ways in which a promise can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Accepted, and never delivered, sent, quarantined or erased.
    Lost,
    /// Delivered or sent, and never offered.
    Invented,
    /// Two events, conversations or sends of one thing, not marked as repeats.
    Duplicated,
    /// An inversion inside a conversation.
    Reordered,
    /// A status moved back.
    Downgraded,
    /// Free text that the platform met outside the window.
    OutOfWindow,
    /// A tenant's canary, or another conversation's message, in the wrong place.
    Crossed,
    /// A secret or personal canary where it may not be.
    Leaked,
    /// An erased canary.
    Resurrected,
    /// The books do not balance.
    Unbalanced,
    /// Accepted, without an end state.
    Stuck,
    /// The end state contradicts what the platform knows.
    Misreported,
    /// A delivery without the headers that it must have.
    Malformed,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub kind: Kind,
    /// Where.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.detail)
    }
}

/// What the checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The violations, at most `VIOLATIONS_LISTED_MAX` of them.
    pub violations: Vec<Violation>,
    /// All violations, also those that are not listed.
    pub violation_count: u64,
    /// Repeated deliveries that were marked as they must be. A run without faults wants zero.
    pub marked_duplicates: u64,
    /// Second sends that were marked as possible duplicates.
    pub marked_resends: u64,
    /// Operations that were accepted.
    pub accepted: u64,
    /// Events that reached an endpoint, without repeats.
    pub delivered: u64,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.violation_count == 0
    }

    /// The kinds that were found, each once.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.violations.iter().map(|violation| violation.kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    fn add(&mut self, kind: Kind, detail: impl FnOnce() -> String) {
        self.violation_count += 1;
        if self.violations.len() < VIOLATIONS_LISTED_MAX {
            self.violations.push(Violation { kind, detail: detail() });
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} violations; {} accepted, {} delivered, {} marked repeats, {} marked resends",
            self.violation_count, self.accepted, self.delivered, self.marked_duplicates, self.marked_resends
        )?;
        for violation in self.violations.iter().take(20) {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}

/// Judges a history.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let operations = history.offered.iter().chain(&history.sends);
    verdict.accepted = operations.filter(|operation| operation.answer == Answer::Accepted).count() as u64;
    deliveries::check(history, &mut verdict);
    sends::check(history, &mut verdict);
    check_canaries(history, &mut verdict);
    if let Some(book) = &history.book {
        check_book(book, &mut verdict);
    }
    verdict
}

fn check_canaries(history: &History, verdict: &mut Verdict) {
    for output in &history.outputs {
        for canary in &history.canaries {
            if find(&output.bytes, canary.text.as_bytes()).is_none() {
                continue;
            }
            let kind = match &canary.kind {
                CanaryKind::Tenant(tenant) if output.tenant.as_ref() == Some(tenant) => continue,
                CanaryKind::Tenant(_) => Kind::Crossed,
                CanaryKind::Secret => Kind::Leaked,
                CanaryKind::Erased => Kind::Resurrected,
            };
            verdict.add(kind, || format!("{} holds the canary {}", output.place, canary.text));
        }
    }
}

fn check_book(book: &Book, verdict: &mut Verdict) {
    let ends = book.stored + book.repeated + book.quarantined + book.erased;
    if ends != book.accepted {
        verdict.add(Kind::Unbalanced, || format!("{} accepted, {ends} accounted for: {book:?}", book.accepted));
    }
}

/// Finds inversions in the observed order of one conversation. An operation that was acknowledged before another began must
/// not stand behind it; what overlapped has no order. Returns those that stand before an earlier one.
fn inversions<'a>(arrivals: &[&'a Operation]) -> Vec<&'a Operation> {
    let mut found = Vec::new();
    let mut earliest_ack_behind = u64::MAX;
    for operation in arrivals.iter().rev() {
        if earliest_ack_behind <= operation.begun_us {
            found.push(*operation);
        }
        earliest_ack_behind = earliest_ack_behind.min(operation.acknowledged_us());
    }
    found
}

#[cfg(test)]
mod tests;
