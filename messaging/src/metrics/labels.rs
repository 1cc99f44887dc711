//! Label values that no other module of the spine has an enum for. Each is closed; `index()` is what `Family::at` takes.

use crate::log::{AppendError, LogError};
use crate::outcome::{Reason, Status, named_enum};
use crate::store::StoreError;

/// Most partitions and shards that have a label of their own: `log.partitions` may not be larger.
pub const MAX_PARTITIONS: usize = 32;

/// The values of `partition` and `shard`.
pub const PARTITION_NAMES: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20", "21", "22", "23",
    "24", "25", "26", "27", "28", "29", "30", "31",
];
const _: () = assert!(PARTITION_NAMES.len() == MAX_PARTITIONS);

named_enum! {
/// How this process was started.
RunMode {
    /// `trunkline dev`.
    Dev = "dev",
    /// `trunkline serve`.
    Serve = "serve",
}
}

named_enum! {
/// A part that readiness asks.
Component {
    /// The log takes appends.
    Log = "log",
    /// The store answers.
    Store = "store",
    /// A snapshot of the directory is loaded and fresh.
    Directory = "directory",
    /// The installation's keys are loaded.
    Keys = "keys",
    /// The public listener is bound.
    Gateway = "gateway",
    /// Shards are claimed and their leases held.
    Router = "router",
}
}

named_enum! {
/// A log line's level.
LogLevel {
    /// A person must act.
    Error = "error",
    /// Degraded, heals itself.
    Warn = "warn",
    /// Life cycle.
    Info = "info",
    /// Per message, sampled. Counts `trace` too.
    Debug = "debug",
}
}

named_enum! {
/// An async runtime of this process.
Runtime {
    /// The one that serves and routes.
    Main = "main",
}
}

named_enum! {
/// A listening address.
Listener {
    /// Platforms and merchants.
    Public = "public",
    /// Health, metrics, admin: loopback by default.
    Admin = "admin",
}
}

named_enum! {
/// A matched route template. Routes of one resource share a template, so that the set stays small.
Route {
    /// Webhooks of platforms.
    Hooks = "/hooks/{channel}/{account}",
    /// Sends and the message list.
    Messages = "/v1/messages",
    /// Batches of sends.
    MessagesBatch = "/v1/messages/batch",
    /// One message, its trace, its cancellation.
    Message = "/v1/messages/{id}",
    /// One conversation and its receipts.
    Conversation = "/v1/conversations/{id}",
    /// Whether free text is allowed.
    Windows = "/v1/windows",
    /// The event feed and event types.
    Events = "/v1/events",
    /// Deliveries, attempts, replays, jobs.
    Deliveries = "/v1/deliveries",
    /// Tenants, accounts, endpoints, keys, contacts and other configuration.
    Config = "/v1/{resource}",
    /// Descriptions and problem pages.
    Docs = "/docs",
    /// Liveness and readiness.
    Health = "/readyz",
    /// This exposition.
    Metrics = "/metrics",
    /// Admin calls.
    Admin = "/admin/{action}",
    /// No route matched.
    Unmatched = "unmatched",
}
}

named_enum! {
/// The class of a status code.
CodeClass {
    /// Success, and the few redirections and not-modifieds.
    Success = "2xx",
    /// The caller's fault.
    Client = "4xx",
    /// Ours.
    Server = "5xx",
}
}

impl CodeClass {
    /// The class of a status code.
    pub const fn of(status: u16) -> Self {
        match status {
            0..=399 => Self::Success,
            400..=499 => Self::Client,
            500.. => Self::Server,
        }
    }
}

named_enum! {
/// Why a request was refused to protect the process.
ShedReason {
    /// Too many connections.
    Connections = "connections",
    /// Too many requests in flight.
    InFlight = "in_flight",
    /// The log's queue or disk budget is full.
    LogFull = "log_full",
    /// The head did not come in time.
    HeaderTimeout = "header_timeout",
    /// The body did not come in time.
    BodyTimeout = "body_timeout",
    /// The process is draining.
    Draining = "draining",
}
}

named_enum! {
/// What became of an event that was offered.
IngressOutcome {
    /// Durable on the log.
    Accepted = "accepted",
    /// Known already.
    Duplicate = "duplicate",
    /// Not taken.
    Refused = "refused",
}
}

named_enum! {
/// Why an ingress request was refused.
IngressRejection {
    /// The platform's signature or token is wrong or missing.
    BadSignature = "bad_signature",
    /// Not what the channel or the API expects.
    Malformed = "malformed",
    /// No such account.
    UnknownAccount = "unknown_account",
    /// Over the body limit.
    TooLarge = "too_large",
    /// No valid API key.
    Unauthenticated = "unauthenticated",
    /// Over a budget.
    RateLimited = "rate_limited",
    /// The log does not take records.
    LogUnavailable = "log_unavailable",
    /// The process is draining.
    Draining = "draining",
    /// The request did not come in time.
    Timeout = "timeout",
}
}

named_enum! {
/// What an idempotency key met.
IdempotencyOutcome {
    /// First seen.
    New = "new",
    /// The stored answer was given again.
    Replayed = "replayed",
    /// The first request still runs.
    InProgress = "in_progress",
    /// Same key, other body.
    Mismatch = "mismatch",
    /// Seen so long ago that it counts as new.
    Expired = "expired",
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
/// Where a heartbeat was seen.
HeartbeatStage {
    /// Durable on the log.
    Appended = "appended",
    /// Read by its shard.
    Consumed = "consumed",
    /// Decided.
    Routed = "routed",
    /// Its effect was carried out.
    Delivered = "delivered",
    /// In the store.
    Stored = "stored",
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

named_enum! {
/// What a platform was called for.
PlatformOperation {
    /// A message.
    Send = "send",
    /// A receipt or a typing indicator.
    Receipt = "receipt",
    /// A look whether the credential works.
    Probe = "probe",
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
}
}

impl From<crate::directory::AccountState> for AccountLabel {
    fn from(state: crate::directory::AccountState) -> Self {
        use crate::directory::AccountState;
        match state {
            AccountState::Active => Self::Active,
            AccountState::Paused => Self::Paused,
            AccountState::Broken => Self::Broken,
            AccountState::Blocked => Self::Blocked,
        }
    }
}

named_enum! {
/// State of a circuit breaker.
CircuitState {
    /// Calls go through.
    Closed = "closed",
    /// No calls are made.
    Open = "open",
    /// One call tries.
    HalfOpen = "half_open",
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

named_enum! {
/// Who asked for a replay.
ReplayOrigin {
    /// A call of the API.
    Api = "api",
    /// The command line.
    Cli = "cli",
    /// The console.
    Console = "console",
}
}

named_enum! {
/// What a budget said.
LimitDecision {
    /// Go.
    Allowed = "allowed",
    /// Wait.
    Delayed = "delayed",
    /// No: the wait would be too long.
    Refused = "refused",
}
}

named_enum! {
/// An operation of the store's trait.
StoreOperation {
    /// Point reads.
    Read = "read",
    /// Range reads.
    Scan = "scan",
    /// Batched writes.
    Apply = "apply",
    /// Making writes survive power loss.
    Sync = "sync",
    /// Taking or renewing a lease.
    Lease = "lease",
    /// Giving a lease back.
    Release = "release",
    /// Looking at the directory's version.
    DirectoryVersion = "directory_version",
    /// Reading the directory.
    Directory = "directory",
    /// Changing the directory.
    ChangeDirectory = "change_directory",
}
}

named_enum! {
/// How a store request ended.
StoreOutcome {
    /// Answered; a lost race is an answer.
    Ok = "ok",
    /// No answer in time.
    Timeout = "timeout",
    /// Away or overloaded.
    Unavailable = "unavailable",
    /// Full, damaged or closed.
    Error = "error",
}
}

impl StoreOutcome {
    /// The outcome of a result.
    pub fn of<T>(result: &Result<T, StoreError>) -> Self {
        match result {
            Ok(_) | Err(StoreError::Conflict) => Self::Ok,
            Err(StoreError::Unavailable(_)) => Self::Unavailable,
            Err(StoreError::Full | StoreError::Damaged(_) | StoreError::Closed) => Self::Error,
        }
    }
}

named_enum! {
/// Why a store request was tried again.
StoreRetryReason {
    /// No answer in time.
    Timeout = "timeout",
    /// Away or overloaded.
    Unavailable = "unavailable",
    /// Another change came first.
    Conflict = "conflict",
    /// The disk budget was used up.
    Full = "full",
}
}

named_enum! {
/// What uses the node's disk.
DiskComponent {
    /// The embedded log.
    Log = "log",
    /// The embedded store.
    Store = "store",
}
}

named_enum! {
/// A cache.
CacheName {
    /// Conversation states of the shards.
    Conversations = "conversations",
    /// Recent ids of the shards.
    Recent = "recent",
    /// Idempotency keys of the gateway.
    Idempotency = "idempotency",
    /// Resolved addresses of destinations.
    Dns = "dns",
    /// Kept connections of destinations.
    Connections = "connections",
}
}

named_enum! {
/// What a cache look-up gave.
CacheResult {
    /// Found.
    Hit = "hit",
    /// Not found.
    Miss = "miss",
}
}
