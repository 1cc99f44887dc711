//! Platform calls and webhook deliveries.

use crate::directory::AccountState;
use crate::outcome::{Status, named_enum};
use crate::store::Work;

named_enum! {
/// What a platform was called for.
PlatformOperation {
    /// A message.
    Send = "send",
    /// A receipt or a typing indicator.
    Receipt = "receipt",
    /// A look whether the credential works.
    Probe = "probe",
    /// New tokens in the place of those that end.
    Refresh = "refresh",
}
}

named_enum! {
/// How a platform call ended.
PlatformOutcome {
    /// Taken.
    Ok = "ok",
    /// Told to slow down.
    RateLimited = "rate_limited",
    /// The credential was refused.
    Auth = "auth",
    /// Refused for good.
    Permanent = "permanent",
    /// The platform failed.
    ServerError = "server_error",
    /// No answer in time.
    Timeout = "timeout",
    /// No connection, or it broke.
    Connect = "connect",
}
}

named_enum! {
/// Where an outbound message waits.
PendingState {
    /// For its turn or its budget.
    Queued = "queued",
    /// For its time.
    Scheduled = "scheduled",
    /// For the platform's answer.
    Sending = "sending",
}
}

named_enum! {
/// State of a channel account.
AccountLabel {
    /// In use.
    Active = "active",
    /// Paused by the tenant.
    Paused = "paused",
    /// Its credential was refused.
    Broken = "broken",
    /// Limited or blocked by the platform.
    Blocked = "blocked",
    /// Most of its webhooks fail the signature.
    Unverified = "unverified",
}
}

impl From<AccountState> for AccountLabel {
    fn from(state: AccountState) -> Self {
        match state {
            AccountState::Active => Self::Active,
            AccountState::Paused => Self::Paused,
            AccountState::Broken => Self::Broken,
            AccountState::Blocked => Self::Blocked,
            AccountState::Unverified => Self::Unverified,
        }
    }
}

named_enum! {
/// A kind of work of an account.
AccountWork {
    /// A connection that stays open.
    Connection = "connection",
    /// Asking for what was missed.
    Pull = "pull",
    /// Renewing a credential.
    Refresh = "refresh",
}
}

impl From<Work> for AccountWork {
    fn from(work: Work) -> Self {
        match work {
            Work::Connection => Self::Connection,
            Work::Pull => Self::Pull,
            Work::Refresh => Self::Refresh,
        }
    }
}

named_enum! {
/// Why a work of an account ended.
WorkEnd {
    /// The account changed, or the process drains.
    Told = "told",
    /// The lease could not be kept.
    Unleased = "unleased",
    /// It could not go on, and is begun again.
    Again = "again",
    /// It cannot go on before somebody changes the account.
    Stuck = "stuck",
}
}

named_enum! {
/// State of a circuit breaker.
CircuitState {
    /// Calls go through.
    Closed = "closed",
    /// No calls are made.
    Open = "open",
}
}

named_enum! {
/// A delivery status that a platform reported.
ReportedStatus {
    /// Taken.
    Sent = "sent",
    /// On the device.
    Delivered = "delivered",
    /// Read or played.
    Read = "read",
    /// Will not arrive.
    Failed = "failed",
}
}

impl ReportedStatus {
    /// The label of a status; none when platforms do not report it.
    pub const fn of(status: Status) -> Option<Self> {
        match status {
            Status::Sent => Some(Self::Sent),
            Status::Delivered => Some(Self::Delivered),
            Status::Read => Some(Self::Read),
            Status::Failed => Some(Self::Failed),
            Status::Accepted | Status::Queued | Status::Sending | Status::Unknown | Status::Cancelled | Status::Expired => None,
        }
    }
}

named_enum! {
/// How a webhook attempt ended.
AttemptOutcome {
    /// 2xx.
    Success = "success",
    /// 4xx and other codes that are no success.
    ClientError = "client_error",
    /// 5xx.
    ServerError = "server_error",
    /// 429.
    RateLimited = "rate_limited",
    /// 410.
    Gone = "gone",
    /// No answer in time.
    Timeout = "timeout",
    /// No connection; failures of name resolution count here.
    Connect = "connect",
    /// The TLS handshake failed.
    Tls = "tls",
    /// The address may not be called.
    AddressBlocked = "address_blocked",
}
}

named_enum! {
/// A delivery's final state.
DeliveryOutcome {
    /// The endpoint took it.
    Delivered = "delivered",
    /// Given up after the last try.
    Exhausted = "exhausted",
    /// The endpoint is disabled or was deleted.
    Dropped = "dropped",
    /// Withheld: the person was erased or is restricted.
    Withheld = "withheld",
}
}

named_enum! {
/// Where a delivery stands that is not final.
DeliveryState {
    /// Waits for its turn.
    Queued = "queued",
    /// Is on its way.
    InFlight = "in_flight",
    /// Waits for its next try.
    Retrying = "retrying",
    /// Waits because its endpoint is paused.
    Paused = "paused",
}
}

named_enum! {
/// An endpoint's health.
EndpointHealth {
    /// It answers.
    Healthy = "healthy",
    /// Its last attempts failed.
    Failing = "failing",
    /// Paused by the tenant.
    Paused = "paused",
    /// Takes no more deliveries.
    Disabled = "disabled",
}
}

named_enum! {
/// Whether a connection was used before.
Reused {
    /// Newly opened.
    No = "false",
    /// Kept from an earlier attempt.
    Yes = "true",
}
}

named_enum! {
/// Where something is parked for a person to look at.
DeadLetterQueue {
    /// Inbound records that do not parse.
    Inbound = "inbound",
    /// Sends that were given up.
    Outbound = "outbound",
    /// Webhook deliveries that were given up.
    Webhook = "webhook",
}
}

named_enum! {
/// Why it is parked.
DeadLetterReason {
    /// Authentic, but not to be understood.
    Unparsable = "unparsable",
    /// Written by another version, or damaged.
    Unreadable = "unreadable",
    /// All tries were used.
    Exhausted = "exhausted",
    /// The endpoint answered 410 or is disabled.
    Disabled = "disabled",
    /// Working on it panicked.
    Panicked = "panicked",
}
}
