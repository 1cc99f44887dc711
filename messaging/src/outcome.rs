//! Every possible fate: of a record, of a send, of a delivery attempt; and the reasons, one vocabulary for rows,
//! events, metric labels and problem documents.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All values, in order: the metric's label values.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// All names, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];
            /// The snake_case name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
            /// Place in `ALL`.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
/// Why a message was refused, failed or waits.
Reason {
    /// Free text is not allowed now.
    WindowClosed = "window_closed",
    /// The platform wants a template here.
    TemplateRequired = "template_required",
    /// The template does not exist, is paused, or its parameters do not fit.
    TemplateInvalid = "template_invalid",
    /// The person opted out.
    OptedOut = "opted_out",
    /// The tenant wants a recorded opt-in and there is none.
    NoConsent = "no_consent",
    /// The person's data is restricted: stored, not otherwise used.
    Restricted = "restricted",
    /// The account is paused, blocked or its credential is broken.
    AccountDisabled = "account_disabled",
    /// The address does not exist, or cannot be written to.
    RecipientInvalid = "recipient_invalid",
    /// A budget of the tenant or platform is used up.
    QuotaExceeded = "quota_exceeded",
    /// The message's own deadline passed.
    Expired = "expired",
    /// The merchant took it back.
    Cancelled = "cancelled",
    /// The platform asked to slow down.
    RateLimited = "rate_limited",
    /// The platform refused the credential.
    Auth = "auth",
    /// The platform refused this message for good.
    Rejected = "rejected",
    /// The platform failed before it took the message.
    ServerError = "server_error",
    /// No connection came about.
    Connect = "connect",
    /// No answer came after the request may have been read.
    Timeout = "timeout",
    /// The connection broke after the request may have been read.
    Reset = "reset",
    /// The process died after the intent was durable.
    Interrupted = "interrupted",
    /// The channel cannot carry this.
    Unsendable = "unsendable",
    /// All tries were used.
    Exhausted = "exhausted",
}
}

named_enum! {
/// A message's state. A lattice: it only moves up; `failed` stands beside the rest.
Status {
    /// On the log.
    Accepted = "accepted",
    /// Waits for its turn, its budget or its time.
    Queued = "queued",
    /// The intent is durable; the platform may have it.
    Sending = "sending",
    /// Whether the platform took it cannot be told (yet).
    Unknown = "unknown",
    /// The platform took it.
    Sent = "sent",
    /// It reached the device.
    Delivered = "delivered",
    /// It was read or played.
    Read = "read",
    /// It will not arrive.
    Failed = "failed",
    /// Taken back before it was sent.
    Cancelled = "cancelled",
    /// Its deadline passed before it was sent.
    Expired = "expired",
}
}

impl Status {
    /// Whether a message in this state may move to `next`. Never down; final states stay, but a late platform verdict
    /// of `failed` beats `sent` and `unknown` (an asynchronous refusal), and a platform's proof beats `unknown`.
    pub fn may_become(self, next: Self) -> bool {
        let rank = |status: Self| match status {
            Self::Accepted => 0,
            Self::Queued => 1,
            Self::Sending => 2,
            Self::Unknown => 3,
            Self::Sent => 4,
            Self::Delivered => 5,
            Self::Read => 6,
            Self::Failed | Self::Cancelled | Self::Expired => 7,
        };
        match (self, next) {
            (Self::Failed | Self::Cancelled | Self::Expired, _) => false,
            // A message that provably was not taken goes back to wait; an owner that settles may try again only on the tenant's word.
            (Self::Sending, Self::Queued) => true,
            (Self::Delivered | Self::Read, Self::Failed | Self::Cancelled | Self::Expired) => false,
            (Self::Sent | Self::Unknown | Self::Sending, Self::Cancelled | Self::Expired) => false,
            _ => rank(next) > rank(self),
        }
    }

    /// Whether nothing more is expected of us (statuses of the platform may still come).
    pub fn is_settled(self) -> bool {
        match self {
            Self::Accepted | Self::Queued | Self::Sending | Self::Unknown => false,
            Self::Sent | Self::Delivered | Self::Read | Self::Failed | Self::Cancelled | Self::Expired => true,
        }
    }
}

named_enum! {
/// How a record of the log ended, as counted in `trunkline_router_records_total`.
Outcome {
    /// Its rows are stored and its effects are done or stand in `later`.
    Done = "done",
    /// It had been seen before.
    Duplicate = "duplicate",
    /// Handed on to the shard that owns the conversation.
    Moved = "moved",
    /// Refused by a rule; the refusal is stored and told.
    Refused = "refused",
    /// Parked with its raw bytes and a reason.
    Quarantined = "quarantined",
}
}

/// A value that must be given an outcome; dropping it without one is counted as lost and fails any test.
#[must_use = "every record must be given an outcome"]
#[derive(Debug)]
pub struct Tracked<T> {
    value: Option<T>,
}

impl<T> Tracked<T> {
    /// Begins to track.
    pub fn new(value: T) -> Self {
        Self { value: Some(value) }
    }
    /// A look at the value.
    pub fn get(&self) -> &T {
        self.value.as_ref().expect("taken only by finish")
    }
    /// Ends it. The caller counts the outcome.
    pub fn finish(mut self, outcome: Outcome) -> (T, Outcome) {
        (self.value.take().expect("taken once, here"), outcome)
    }
    /// Lets go without an outcome, because the process stops and the log will bring it again.
    pub fn abandon(mut self) {
        self.value = None;
    }
}

impl<T> Drop for Tracked<T> {
    fn drop(&mut self) {
        if self.value.is_some() && !std::thread::panicking() {
            crate::metrics::LOST_RECORDS.at([]).increment(1);
            debug_assert!(false, "a record was dropped without an outcome");
        }
    }
}

/// How wide a platform's call to slow down reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttled {
    /// This recipient only.
    Conversation,
    /// The whole account.
    Account,
    /// The whole app, with all its accounts.
    App,
}

/// What an answer of a platform means for the send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The platform took it.
    Sent {
        /// The platform's id, when the call has one (receipts have none).
        platform_id: Option<String>,
        /// Other handles of the recipient that the answer names.
        handles: Vec<crate::content::Handle>,
    },
    /// Not taken; try again after a while.
    RetryLater {
        /// Rate-limited or a passing fault.
        reason: Reason,
        /// How wide to hold.
        hold: Throttled,
        /// How long, when the platform says so.
        after: Option<std::time::Duration>,
        /// The platform's code and text, for the row.
        detail: String,
    },
    /// Not taken, for good.
    Refused {
        /// Why, in our words: `WindowClosed` closes the window, `OptedOut` marks the contact, `RecipientInvalid` marks it
        /// unreachable, `Auth` and `AccountDisabled` stop the account.
        reason: Reason,
        /// The platform's code and text, for the row.
        detail: String,
    },
    /// The chat has another address now: send it there.
    Moved {
        /// The new handle.
        to: crate::content::Handle,
    },
    /// The platform failed after it may have taken it.
    Unknown {
        /// Why.
        reason: Reason,
        /// What was seen.
        detail: String,
    },
}

/// One step of a message's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// The state it took.
    pub status: Status,
    /// Why, when there is a reason.
    pub reason: Option<Reason>,
    /// Platform code and text, or a rule's inputs. Never personal data.
    pub detail: Option<String>,
    /// Which try.
    pub attempt: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_lattice_only_moves_up() {
        use Status::*;
        let order = [Accepted, Queued, Sending, Unknown, Sent, Delivered, Read];
        for (i, from) in order.into_iter().enumerate() {
            for (j, to) in order.into_iter().enumerate() {
                let back_to_wait = (from, to) == (Sending, Queued);
                assert_eq!(from.may_become(to), j > i || back_to_wait, "{from:?} -> {to:?}");
            }
        }
        assert!(Sent.may_become(Failed) && Unknown.may_become(Failed));
        assert!(!Delivered.may_become(Failed) && !Read.may_become(Failed) && !Failed.may_become(Read));
        assert!(!Sent.may_become(Expired) && Queued.may_become(Expired) && Queued.may_become(Cancelled));
    }
}
