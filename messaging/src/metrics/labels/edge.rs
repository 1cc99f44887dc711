//! The process and its HTTP edge.

use crate::outcome::named_enum;

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
    /// The public listener is bound.
    Gateway = "gateway",
    /// Shards are claimed and their leases held.
    Router = "router",
}
}

named_enum! {
/// What must live: it is begun again when it panics, or the process ends.
SupervisedTask {
    /// A shard of the router.
    Shard = "shard",
    /// What gives the router its shards.
    Router = "router",
    /// A lane of an endpoint or an account.
    Lane = "lane",
    /// What makes finished positions durable.
    Committer = "committer",
    /// The lag gauges.
    Lag = "lag",
    /// A fetcher of media.
    MediaFetch = "media_fetch",
    /// The poll of the directory, and gauges.
    Directory = "directory",
    /// What deletes what is over.
    Sweep = "sweep",
    /// A serving thread of a listener.
    Serving = "serving",
    /// What a gateway looks after in its accounts.
    Upkeep = "upkeep",
    /// The keeper of accounts' works.
    Connectors = "connectors",
    /// A work of an account.
    Work = "work",
    /// A thread of the embedded log.
    LogWriter = "log_writer",
    /// What keeps the embedded log's files.
    LogUpkeep = "log_upkeep",
    /// The spool's way to the log.
    Spool = "spool",
    /// The Kafka client's threads.
    Kafka = "kafka",
    /// A thread of the embedded store that writes.
    StoreWriter = "store_writer",
    /// A thread of the embedded store that reads.
    StoreReader = "store_reader",
    /// The tries to reach a store that was away at the start.
    StoreOpen = "store_open",
    /// What closes connections that nobody needs any more.
    Connections = "connections",
    /// The agent of the shared budgets.
    Limits = "limits",
    /// The keeper of a connection to Redis.
    Recent = "recent",
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
    /// Media, with a key or by a link.
    Media = "/v1/media/{id}",
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
    /// Requests wait too long for their turn.
    Delay = "delay",
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
    /// Requests wait too long for their turn.
    Overloaded = "overloaded",
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
