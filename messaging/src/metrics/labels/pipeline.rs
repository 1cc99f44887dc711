//! The log, the shards and their decisions.

use crate::log::{AppendError, LogError};
use crate::outcome::{Reason, named_enum};

named_enum! {
/// What a shard does.
ShardState {
    /// It takes the lease and takes up what the former owner left.
    Starting = "starting",
    /// It works.
    Working = "working",
    /// It panicked, and begins again after a pause.
    Restarting = "restarting",
    /// It leaves.
    Draining = "draining",
}
}

named_enum! {
/// Whether the log acknowledged a record.
ProduceOutcome {
    /// Durable.
    Acknowledged = "acknowledged",
    /// Not appended.
    Failed = "failed",
}
}

named_enum! {
/// Who reads the log together.
ConsumerGroup {
    /// The shards.
    Router = "router",
}
}

named_enum! {
/// How ownership of partitions changed.
RebalanceKind {
    /// Given.
    Assigned = "assigned",
    /// Taken back in order.
    Revoked = "revoked",
    /// Gone already.
    Lost = "lost",
}
}

named_enum! {
/// An operation on the log.
LogOperation {
    /// Opening and recovering.
    Open = "open",
    /// Appending.
    Append = "append",
    /// Reading.
    Read = "read",
    /// Moving finished positions.
    Finish = "finish",
}
}

named_enum! {
/// How a log operation failed.
LogErrorType {
    /// Queue or disk budget full.
    Full = "full",
    /// The log is closed.
    Closed = "closed",
    /// The record is over the limit.
    TooLarge = "too_large",
    /// No such partition.
    Partition = "partition",
    /// Disk or broker.
    Io = "io",
    /// Durable bytes are damaged.
    Damaged = "damaged",
    /// Another process holds the data.
    Locked = "locked",
    /// Made with other settings.
    Mismatch = "mismatch",
}
}

impl From<&AppendError> for LogErrorType {
    fn from(error: &AppendError) -> Self {
        match error {
            AppendError::Full => Self::Full,
            AppendError::Away => Self::Io,
            AppendError::Closed => Self::Closed,
            AppendError::TooLarge { .. } => Self::TooLarge,
            AppendError::Partition => Self::Partition,
        }
    }
}

impl From<&LogError> for LogErrorType {
    fn from(error: &LogError) -> Self {
        match error {
            LogError::Io(_) => Self::Io,
            LogError::Damaged { .. } => Self::Damaged,
            LogError::Locked(_) => Self::Locked,
            LogError::Mismatch(_) => Self::Mismatch,
            LogError::Closed => Self::Closed,
        }
    }
}

named_enum! {
/// Which way a message goes.
Direction {
    /// From a person.
    Inbound = "inbound",
    /// To a person.
    Outbound = "outbound",
}
}

named_enum! {
/// What knew that a record had been seen before.
DuplicateScope {
    /// The shard's memory of recent ids.
    Recent = "recent",
    /// The store's primary key.
    Store = "store",
    /// The same platform id came twice in one batch.
    Batch = "batch",
}
}

named_enum! {
/// What happened to a reply window.
WindowTransition {
    /// It opened.
    Opened = "opened",
    /// It was open and lasts longer now.
    Renewed = "renewed",
    /// Its time was over.
    Expired = "expired",
    /// The platform said that it is closed.
    Closed = "closed",
}
}

named_enum! {
/// Why an outbound message was refused before any platform call.
SendRefusal {
    /// Free text is not allowed now.
    WindowClosed = "window_closed",
    /// The platform wants a template here.
    TemplateRequired = "template_required",
    /// The template does not exist, is paused, or its parameters do not fit.
    TemplateInvalid = "template_invalid",
    /// The person opted out.
    OptedOut = "opted_out",
    /// There is no recorded opt-in.
    NoConsent = "no_consent",
    /// The person's data is restricted.
    Restricted = "restricted",
    /// The account is paused, blocked or broken.
    AccountDisabled = "account_disabled",
    /// The address cannot be written to.
    RecipientInvalid = "recipient_invalid",
    /// A budget is used up.
    QuotaExceeded = "quota_exceeded",
    /// The channel cannot carry it.
    Unsendable = "unsendable",
}
}

impl SendRefusal {
    /// The refusal of a reason; none when the reason is no refusal before a platform call.
    pub const fn of(reason: Reason) -> Option<Self> {
        match reason {
            Reason::WindowClosed => Some(Self::WindowClosed),
            Reason::TemplateRequired => Some(Self::TemplateRequired),
            Reason::TemplateInvalid => Some(Self::TemplateInvalid),
            Reason::OptedOut => Some(Self::OptedOut),
            Reason::NoConsent => Some(Self::NoConsent),
            Reason::Restricted => Some(Self::Restricted),
            Reason::AccountDisabled => Some(Self::AccountDisabled),
            Reason::RecipientInvalid => Some(Self::RecipientInvalid),
            Reason::QuotaExceeded => Some(Self::QuotaExceeded),
            Reason::Unsendable => Some(Self::Unsendable),
            Reason::Expired
            | Reason::Cancelled
            | Reason::RateLimited
            | Reason::Auth
            | Reason::Rejected
            | Reason::ServerError
            | Reason::Connect
            | Reason::Timeout
            | Reason::Reset
            | Reason::Interrupted
            | Reason::Exhausted => None,
        }
    }
}
