//! How long rows are kept.

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long rows are kept, from when they were last written. Zero keeps them for ever. At most twenty years, which is CQL's limit.
/// Whole seconds; less than one counts as one.
///
/// Conversations have no such time: they hold what must not be forgotten, such as an opt-out. Nor have `later`, intents and
/// progress, which the router deletes itself, or the notes of accounts' work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Messages.
    pub messages: Duration,
    /// Events in the feed.
    pub events: Duration,
    /// Where ids lead, which is also the memory of what was seen: at least as long as messages, events and idempotency keys.
    pub pointers: Duration,
    /// Parked records.
    pub quarantine: Duration,
}

impl Retention {
    /// Nothing ends.
    pub const FOR_EVER: Self =
        Self { messages: Duration::ZERO, events: Duration::ZERO, pointers: Duration::ZERO, quarantine: Duration::ZERO };
}

impl Default for Retention {
    fn default() -> Self {
        Self { messages: 365 * DAY, events: 30 * DAY, pointers: 400 * DAY, quarantine: 90 * DAY }
    }
}
