//! What a gateway works with, and how it behaves.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use messaging::BoxFuture;
use messaging::accounts::Accounts;
use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::SharedClock;
use messaging::config::AllowedNetwork;
use messaging::exchange::{HttpRequest, HttpResponse};
use messaging::keeper::DirectoryKeeper;
use messaging::limit::Limit;
use messaging::log::Log;
use messaging::media::Library;
use messaging::outlook::Outlook;
use messaging::quota::Quotas;
use messaging::seal::Keyring;
use messaging::store::Store;

use crate::connectors::discord::Dial;

/// Most header fields of a request. hyper's own default, which costs no allocation; a larger request is answered 431.
pub const HEADERS_MAX: usize = 100;
/// Most bytes of a request's header names and values together.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of a request's target.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// Deepest nesting of a JSON body.
pub const JSON_DEPTH_MAX: usize = 64;

/// Bytes of a usual answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A call to the outside world, through the one guarded door of the process.
pub trait OutboundCall: Send + Sync {
    /// Makes the call and reads at most so many bytes of the answer's body: a longer one is cut there. The error says in plain words
    /// why there is no answer, without secrets.
    fn call_up_to(&self, request: HttpRequest, timeout: Duration, body_bytes_max: usize) -> BoxFuture<'_, Result<HttpResponse, String>>;

    /// The same for answers of a usual size.
    fn call(&self, request: HttpRequest, timeout: Duration) -> BoxFuture<'_, Result<HttpResponse, String>> {
        self.call_up_to(request, timeout, ANSWER_BYTES_MAX)
    }
}

/// Whether a URL that a tenant gives may be called at all (scheme, host, port, address). The door checks the address again
/// at every call; this is for an early and clear answer.
pub type UrlCheck = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Whether a part of the node works.
pub type IsReady = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Lines for `GET /admin/tail`, each one JSON object without a line end.
pub type TailLines = Pin<Box<dyn Stream<Item = String> + Send>>;

/// What a gateway works with.
#[derive(Clone)]
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store: API reads only. Ingress goes on without it.
    pub store: Arc<dyn Store>,
    /// The directory; refreshed by the node.
    pub keeper: DirectoryKeeper,
    /// Keys.
    pub keyring: Keyring,
    /// Time.
    pub clock: SharedClock,
    /// Budgets of API keys.
    pub limit: Arc<dyn Limit>,
    /// The channels that are on. The others do not exist for strangers.
    pub channels: BTreeMap<ChannelKind, ChannelSettings>,
    /// Media of messages, and what is brought to be sent.
    pub media: Arc<Library>,
    /// What stands before a send.
    pub outlook: Arc<Outlook>,
    /// The way out, for account checks and endpoint tests.
    pub caller: Arc<dyn OutboundCall>,
    /// Which URLs tenants may name.
    pub is_allowed_url: UrlCheck,
    /// The way out for connections that last. Where it is given, this process does the accounts' work (see `connectors`).
    pub dial: Option<Arc<dyn Dial>>,
    /// What the admin listener needs beside.
    pub admin: AdminParts,
}

impl Parts {
    /// Changes accounts by what was seen of them.
    pub(crate) fn accounts(&self) -> Accounts {
        Accounts::new(self.keeper.clone(), self.log.clone(), self.keyring.clone(), self.clock.clone())
    }
}

/// Which log lines are written, as an operator sees and changes it.
pub trait LogFilter: Send + Sync {
    /// The filter that holds now, and how long it still does; none: until it is changed.
    fn now(&self) -> (String, Option<Duration>);
    /// Sets another filter for some time; then the configured one holds again.
    ///
    /// # Errors
    /// A filter that cannot be read: what is wrong with it.
    fn set(&self, filter: &str, time: Duration) -> Result<(), String>;
    /// The configured filter holds again.
    fn reset(&self);
}

/// What only the admin listener needs. Everything may be left out.
#[derive(Clone, Default)]
pub struct AdminParts {
    /// The metrics' exposition text.
    pub metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Moves the clock (`dev.clock_control`); without it there is no `/admin/clock`.
    pub advance_clock: Option<Arc<dyn Fn(Duration) + Send + Sync>>,
    /// Begins to listen to the tail.
    pub tail: Option<Arc<dyn Fn() -> TailLines + Send + Sync>>,
    /// Starts the whole node's drain; without it `/admin/drain` drains the gateway alone.
    pub drain: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Shows and changes which log lines are written; without it there is no `/admin/log-filter`.
    pub log_filter: Option<Arc<dyn LogFilter>>,
    /// Other parts of the node that readiness asks, by name.
    pub ready: Vec<(&'static str, IsReady)>,
}

/// Bounds of the HTTP edge.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Open connections of the public listener; further ones are answered 503.
    pub max_connections: usize,
    /// Of these from one address (IPv6: one /64); proxies that are trusted may have any number.
    pub max_connections_per_address: usize,
    /// Requests being served; further ones are answered 503.
    pub max_in_flight: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// From the end of a request's head to the end of its body.
    pub body_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// Largest body of a webhook, in bytes.
    pub max_hook_body: usize,
    /// Largest body of an API request, in bytes.
    pub max_api_body: usize,
    /// Largest body of a batch, in bytes.
    pub max_batch_body: usize,
    /// Whether HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
    /// Streams of an HTTP/2 connection.
    pub max_streams: u32,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_address: 2_000,
            max_in_flight: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            max_hook_body: 4 << 20,
            max_api_body: 1 << 20,
            max_batch_body: 16 << 20,
            http2: true,
            max_streams: 250,
        }
    }
}

/// How a gateway stops.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Readiness already says no, but everything is still served.
    pub announce: Duration,
    /// How long requests under way may take after that.
    pub requests: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { announce: Duration::from_secs(5), requests: Duration::from_secs(20) }
    }
}

/// How a gateway behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the world finds this gateway, without a slash at the end: in problem types and hook URLs.
    pub public_url: String,
    /// Bounds of the HTTP edge.
    pub http: HttpLimits,
    /// Networks of proxies, behind whose addresses many stand.
    pub trusted_proxies: Vec<AllowedNetwork>,
    /// How it stops.
    pub drain: Drain,
    /// Threads that serve the public listener; 0 means one per core.
    pub threads: usize,
    /// Requests a second that one API key may make.
    pub api_per_key: f64,
    /// How many seconds' worth of requests an API key may make at once.
    pub api_burst: f64,
    /// What each tenant may have and do, unless it was given a limit of its own.
    pub quotas: Quotas,
    /// An interactive send that would wait longer for its account's rate is refused.
    pub max_wait: Duration,
    /// How long an idempotency key is remembered in the process; beyond, the store's row decides.
    pub idempotency_ttl: Duration,
    /// Share of requests that get an access line, from 0 (none) to 1.
    pub access_log_sample: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            public_url: "http://127.0.0.1:8080".to_owned(),
            http: HttpLimits::default(),
            trusted_proxies: Vec::new(),
            drain: Drain::default(),
            threads: 0,
            api_per_key: 1000.0,
            api_burst: 2.0,
            quotas: Quotas::default(),
            max_wait: Duration::from_secs(30),
            idempotency_ttl: Duration::from_secs(24 * 3600),
            access_log_sample: 0.0,
        }
    }
}

impl Options {
    /// How many threads serve.
    pub fn thread_count(&self) -> usize {
        if self.threads > 0 { self.threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }
}
