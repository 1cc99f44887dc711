//! How a node runs. Raw settings (texts with their origins, layer over layer) become a [`Config`] of validated types, or a list of
//! everything that is wrong with the place and the cure of each.
//!
//! The documented defaults stand in `defaults.toml`; a key exists if it stands there. What the outside world is like (tenants,
//! accounts, endpoints) is no configuration but data: see `directory`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::channels::{ChannelKind, ChannelSettings};
use crate::log::{self, Fsync};
use crate::metrics::RunMode;
use crate::outcome::named_enum;
use crate::quota::{Quota, Quotas};
use crate::seal::Secret;
use crate::store;

mod backends;
mod build;
mod channels;
mod fault;
mod loaded;
mod reader;
mod source;
mod values;

#[cfg(test)]
mod tests;

pub use backends::{
    Consistency, CqlCompression, Degraded, KafkaCompression, KafkaConfig, LimitsBackend, LogBackend, RedisConfig, ScyllaConfig,
    Speculative, StoreBackend,
};
pub use fault::{ConfigErrors, ConfigFault, Origin, Place};
pub use loaded::{Change, Effective, Loaded, help};
pub use source::{DEFAULTS, ENVIRONMENT_PREFIX};
pub use values::AllowedNetwork;

/// Name of the file in a data directory that says: this data is for tests.
pub const FOR_TESTS_FILE: &str = "for-tests";
/// Bytes of a record's head and seal, on top of the body that `log.max_record` is about.
pub const RECORD_OVERHEAD: u64 = 4 << 10;

named_enum! {
/// What a process does.
Role {
    /// Takes webhooks and API calls.
    Gateway = "gateway",
    /// Decides and carries out.
    Router = "router",
}
}

named_enum! {
/// How log lines look.
LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto = "auto",
    /// For people.
    Text = "text",
    /// For machines.
    Json = "json",
}
}

named_enum! {
/// What an acknowledged append survives.
Ack {
    /// Loss of power.
    Durable = "durable",
    /// The process's death. `dev` only.
    Memory = "memory",
}
}

/// Validated settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// How the process was started.
    pub mode: RunMode,
    /// `[node]`.
    pub node: NodeConfig,
    /// `[listen]`.
    pub listen: ListenConfig,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[auth]`.
    pub auth: AuthConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[router]`.
    pub router: RouterConfig,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[quotas]`.
    pub quotas: QuotasConfig,
    /// `[channels.*]`: those that are on.
    pub channels: BTreeMap<ChannelKind, ChannelSettings>,
    /// `[webhooks]`.
    pub webhooks: WebhooksConfig,
    /// `[media]`.
    pub media: MediaConfig,
    /// `[retention]`.
    pub retention: RetentionConfig,
    /// `[telemetry]`.
    pub telemetry: TelemetryConfig,
    /// `[drain]`.
    pub drain: DrainConfig,
    /// `[dev]`.
    pub dev: DevConfig,
}

/// `[node]`.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its name; the host's when none was given.
    pub name: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// Where its data is; none: a temporary folder (never with serve).
    pub data_dir: Option<PathBuf>,
    /// How the outside reaches the public listener, without a slash at the end.
    pub public_url: Option<String>,
}

/// `[listen]`.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// Platforms and merchants.
    pub public: SocketAddr,
    /// Health, metrics, admin.
    pub admin: SocketAddr,
    /// Whether two processes may share the ports.
    pub reuse_port: bool,
    /// Proxies, which may open any number of connections. Their `port` is none.
    pub trusted_proxies: Vec<AllowedNetwork>,
}

impl ListenConfig {
    /// The trusted proxies, and this machine: what calls from here is a proxy or the operator.
    pub fn proxies(&self) -> Vec<AllowedNetwork> {
        let here = [(IpAddr::from([127, 0, 0, 0]), 8), (IpAddr::from(Ipv6Addr::LOCALHOST), 128)];
        let here = here.map(|(net, prefix)| AllowedNetwork { net, prefix, port: None });
        self.trusted_proxies.iter().copied().chain(here).collect()
    }
}

/// `[http]`.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Connections to the public listener.
    pub max_connections: usize,
    /// Of these from one address.
    pub max_connections_per_address: usize,
    /// Requests at once.
    pub max_in_flight: usize,
    /// For a request's head.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// For an idle connection.
    pub idle_timeout: Duration,
    /// Bytes of a webhook body.
    pub max_hook_body: usize,
    /// Bytes of a call's body.
    pub max_api_body: usize,
    /// Bytes of a batch's body.
    pub max_batch_body: usize,
    /// HTTP/2 by prior knowledge.
    pub http2: bool,
    /// HTTP/2 streams of a connection.
    pub max_streams: u32,
}

/// Where a secret is.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// In the settings.
    Inline(Secret),
    /// In a file. `create`: nobody named it, so it is made at the first start.
    File {
        /// Which.
        path: PathBuf,
        /// Whether to make it when it is missing.
        create: bool,
    },
    /// Made anew for this run: the data does not outlive it.
    Generated,
}

impl SecretSource {
    /// The secret, without white space around it. None when it is to be made: the source is `Generated`, or a file that is missing and
    /// may be created.
    pub fn read(&self) -> io::Result<Option<Secret>> {
        match self {
            Self::Inline(secret) => Ok(Some(secret.clone())),
            Self::Generated => Ok(None),
            Self::File { path, create } => match fs::read_to_string(path) {
                Ok(text) => Ok(Some(Secret::new(text.trim()))),
                Err(error) if *create && error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

/// `[auth]`.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The root secret.
    pub key_pepper: SecretSource,
    /// Where the first admin key is written; none: nowhere, it is printed (dev in memory).
    pub bootstrap_key_file: Option<PathBuf>,
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Where it is.
    pub backend: LogBackend,
    /// Partitions of each topic.
    pub partitions: u16,
    /// When an append is acknowledged.
    pub ack: Ack,
    /// Bytes of a record's body.
    pub max_record: usize,
    /// How files are synced, `ack` considered.
    pub fsync: Fsync,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// How long finished segments are kept.
    pub retention: Duration,
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// Whether a damaged range in the middle is skipped.
    pub skip_damage: bool,
}

/// `[router]`.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Records of a shard in work.
    pub max_in_flight_per_shard: usize,
    /// How long a shard's lease holds without renewal.
    pub lease: Duration,
    /// How often positions are written.
    pub commit_interval: Duration,
}

/// `[store]`.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is.
    pub backend: StoreBackend,
    /// For a request.
    pub timeout: Duration,
    /// Tries beyond the first.
    pub retries: u32,
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// Bytes of block cache.
    pub cache_bytes: u64,
}

/// `[limits]`.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Where they are shared.
    pub backend: LimitsBackend,
    /// Calls a second of one API key.
    pub api_per_key: f64,
    /// Burst of a budget, in seconds of its rate.
    pub burst: f64,
    /// Longest wait for a budget.
    pub max_wait: Duration,
}

/// `[quotas]`: what each tenant may have, unless it was given a limit of its own.
#[derive(Debug, Clone)]
pub struct QuotasConfig {
    /// Channel accounts.
    pub accounts: u32,
    /// Endpoints.
    pub endpoints: u32,
    /// API keys.
    pub keys: u32,
    /// Sends that wait.
    pub waiting_sends: u32,
    /// API requests a second, with all keys together.
    pub api_requests: u32,
    /// Messages a second in batches.
    pub messages: u32,
}

impl QuotasConfig {
    /// The limits.
    pub fn limits(&self) -> Quotas {
        Quotas::new(|quota| match quota {
            Quota::Accounts => self.accounts,
            Quota::Endpoints => self.endpoints,
            Quota::Keys => self.keys,
            Quota::WaitingSends => self.waiting_sends,
            Quota::ApiRequests => self.api_requests,
            Quota::Messages => self.messages,
        })
    }
}

/// `[webhooks]`.
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// For an attempt.
    pub timeout: Duration,
    /// For connecting.
    pub connect_timeout: Duration,
    /// Waits before the attempts; as many attempts as entries.
    pub schedule: Vec<Duration>,
    /// Variation of a wait, as a share of it.
    pub jitter: f64,
    /// Attempts at once to an endpoint.
    pub concurrency_per_endpoint: usize,
    /// Failing for so long disables an endpoint.
    pub disable_after: Duration,
    /// Bytes of an answer that are read.
    pub max_response: usize,
    /// Endpoints without TLS.
    pub allow_http: bool,
    /// Private networks that may be called.
    pub allow_private: Vec<AllowedNetwork>,
    /// Certificate authorities to trust beside the public ones, PEM.
    pub tls_ca_file: Option<PathBuf>,
    /// The `User-Agent`.
    pub user_agent: String,
}

/// `[media]`.
#[derive(Debug, Clone)]
pub struct MediaConfig {
    /// Where bytes are kept.
    pub place: MediaPlace,
    /// Bytes of one medium.
    pub max_bytes: u64,
    /// Bytes of all.
    pub max_total: u64,
    /// How long one is kept.
    pub ttl: Duration,
    /// How long a link is good.
    pub link_ttl: Duration,
    /// For fetching one.
    pub timeout: Duration,
}

/// Where the bytes of media are kept.
#[derive(Debug, Clone)]
pub enum MediaPlace {
    /// In a folder; none: `media` in the data directory.
    Folder(Option<PathBuf>),
    /// In a bucket.
    S3(MediaBucket),
}

/// `[media.s3]`.
#[derive(Debug, Clone)]
pub struct MediaBucket {
    /// The bucket's name.
    pub bucket: String,
    /// What the names of its objects begin with; empty, or without a slash at either end.
    pub prefix: String,
    /// The store's address, without a slash at the end.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// The access key's id.
    pub access_key: String,
    /// The file that holds the secret key.
    pub secret_key_file: PathBuf,
}

/// `[retention]`.
#[derive(Debug, Clone)]
pub struct RetentionConfig {
    /// Messages.
    pub messages: Duration,
    /// Events in the feed.
    pub events: Duration,
    /// Parked items.
    pub dead_letters: Duration,
    /// Idempotency keys.
    pub idempotency: Duration,
}

impl RetentionConfig {
    /// What of it the store keeps to.
    pub fn of_store(&self) -> store::Retention {
        store::Retention {
            messages: self.messages,
            events: self.events,
            // They are also the memory of what was seen.
            pointers: self.messages.max(self.events).max(self.idempotency),
            quarantine: self.dead_letters,
        }
    }
}

/// `[telemetry]`.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which are written.
    pub log_filter: String,
    /// Share of requests with an access line.
    pub access_log_sample: f64,
}

/// `[drain]`.
#[derive(Debug, Clone)]
pub struct DrainConfig {
    /// Serving on, with readiness saying no.
    pub announce: Duration,
    /// For running requests.
    pub requests: Duration,
    /// For the shards.
    pub router: Duration,
    /// For all of it.
    pub total: Duration,
}

/// `[dev]`.
#[derive(Debug, Clone)]
pub struct DevConfig {
    /// Simulated platforms.
    pub simulate: Vec<ChannelKind>,
    /// Share of their answers that go wrong.
    pub chaos: f64,
    /// Seed; 0 draws one.
    pub seed: u64,
    /// Whether there is a catch-all endpoint.
    pub inbox: bool,
    /// Whether an admin call may move the clock.
    pub clock_control: bool,
}

/// What is wrong with a log filter that is given at run time, and how it is written; nothing when it can be used.
pub fn log_filter_fault(text: &str) -> Option<String> {
    values::log_filter(text).err().map(|wrong| format!("{text:?} {}; {}", wrong.what, wrong.help))
}

impl Config {
    /// Lays the layers over each other (defaults < mode < file < environment < overrides) and validates. `env` may hold other
    /// variables too; `overrides` are full keys and values as texts, from flags.
    ///
    /// # Errors
    /// Everything that is wrong, not just the first.
    pub fn load(
        mode: RunMode,
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Loaded, ConfigErrors> {
        let env: Vec<(String, String)> = env.collect();
        let mut faults = Vec::new();
        let settings = source::gather(mode, file, &env, overrides, &mut faults);
        let credentials = env.iter().find(|(name, _)| name == "CREDENTIALS_DIRECTORY").map(|(_, folder)| PathBuf::from(folder));
        let mut reader = reader::Reader::new(&settings, &mut faults, credentials);
        let config = build::config(mode, &mut reader);
        if faults.is_empty() { Ok(Loaded::new(config, settings)) } else { Err(ConfigErrors(faults)) }
    }

    /// Whether this process has a role.
    pub fn has_role(&self, role: Role) -> bool {
        self.node.roles.contains(&role)
    }

    /// Settings of the embedded log in a data directory.
    pub fn embedded_log(&self, data_dir: &Path) -> log::EmbeddedSettings {
        log::EmbeddedSettings {
            dir: data_dir.join("log"),
            partitions: self.log.partitions,
            segment_bytes: self.log.segment_bytes,
            fsync: self.log.fsync,
            retention: self.log.retention,
            max_bytes: self.log.max_bytes,
            max_record: self.log.max_record + RECORD_OVERHEAD as usize,
            skip_damage: self.log.skip_damage,
        }
    }

    /// Settings of the gateway's spool in a data directory, before a log of so many partitions.
    pub fn spool(&self, kafka: &KafkaConfig, data_dir: &Path, partitions: u16) -> log::EmbeddedSettings {
        log::EmbeddedSettings {
            dir: data_dir.join("spool"),
            partitions,
            segment_bytes: kafka.spool_segment_bytes,
            fsync: Fsync::Group,
            // What has drained is in the log: nothing is kept twice.
            retention: Duration::ZERO,
            max_bytes: kafka.spool_bytes,
            max_record: self.log.max_record + RECORD_OVERHEAD as usize,
            skip_damage: self.log.skip_damage,
        }
    }

    /// Settings of the embedded store in a data directory.
    pub fn embedded_store(&self, data_dir: &Path) -> store::EmbeddedSettings {
        store::EmbeddedSettings {
            dir: data_dir.join("store"),
            max_bytes: self.store.max_bytes,
            cache_bytes: self.store.cache_bytes,
            retention: self.retention.of_store(),
        }
    }
}
