//! Where the log, the store and the budgets are: inside this process, or on servers that several processes share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::values::{self, Wrong};
use super::{Config, Role, SecretSource};
use crate::outcome::named_enum;

const MILLISECOND: Duration = Duration::from_millis(1);
/// What to build when a server's driver is not in the program.
const WITH_SERVERS: &str = "this program was built for one process only; build it with `cargo build --release --features distributed`";

/// Where the log is.
#[derive(Debug, Clone)]
pub enum LogBackend {
    /// Files of this process.
    Embedded,
    /// Apache Kafka.
    Kafka(Box<KafkaConfig>),
}

/// `[log.kafka]`, and what `log.url` says of it.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port` of some brokers.
    pub brokers: Vec<String>,
    /// Before the topics' names.
    pub topic_prefix: String,
    /// The routers' consumer group.
    pub group: String,
    /// Static membership; none: the node's name.
    pub instance_id: Option<String>,
    /// How long a record waits for company.
    pub linger: Duration,
    /// Bytes of a batch.
    pub batch_bytes: usize,
    /// How batches are compressed.
    pub compression: KafkaCompression,
    /// Records that wait for their acknowledgement.
    pub queue_limit: usize,
    /// When an append has failed.
    pub delivery_timeout: Duration,
    /// When a silent router has lost its shards.
    pub session_timeout: Duration,
    /// Bytes of a fetch's answer, at least,
    pub fetch_min_bytes: usize,
    /// or after so long.
    pub fetch_max_wait: Duration,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// The brokers' authority; none: the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// Who logs in: mechanism, user, file with the password.
    pub sasl: Option<(String, String, PathBuf)>,
    /// Given to librdkafka.
    pub properties: BTreeMap<String, String>,
    /// Bytes of the gateway's spool.
    pub spool_bytes: u64,
    /// Bytes of a file of it.
    pub spool_segment_bytes: u64,
}

named_enum! {
/// How batches are compressed.
KafkaCompression {
    /// Not at all.
    None = "none",
    /// LZ4.
    Lz4 = "lz4",
    /// Snappy.
    Snappy = "snappy",
    /// Gzip.
    Gzip = "gzip",
}
}

/// Where the store is.
#[derive(Debug, Clone)]
pub enum StoreBackend {
    /// Files of this process.
    Embedded,
    /// ScyllaDB or Apache Cassandra.
    Scylla(Box<ScyllaConfig>),
}

/// `[store.scylla]`, and what `store.url` says of it.
#[derive(Debug, Clone)]
pub struct ScyllaConfig {
    /// `host` or `host:port` of some nodes.
    pub hosts: Vec<String>,
    /// The keyspace.
    pub keyspace: String,
    /// The data centre; none: any.
    pub datacenter: Option<String>,
    /// Who logs in: user and file with the password.
    pub login: Option<(String, PathBuf)>,
    /// The nodes' authority; none: no encryption.
    pub tls_ca_file: Option<PathBuf>,
    /// How many replicas answer.
    pub consistency: Consistency,
    /// Connections per node or shard.
    pub connections_per_shard: u32,
    /// How frames are compressed.
    pub compression: CqlCompression,
    /// When a read is asked of a second node too.
    pub speculative: Speculative,
    /// Copies of each row in a keyspace that `migrate apply` makes.
    pub replication_factor: u32,
    /// Whether to migrate at start.
    pub auto_migrate: bool,
}

named_enum! {
/// How many replicas must answer.
Consistency {
    /// A majority of the data centre's.
    LocalQuorum = "LOCAL_QUORUM",
    /// A majority of all.
    Quorum = "QUORUM",
    /// One of the data centre's.
    LocalOne = "LOCAL_ONE",
    /// One.
    One = "ONE",
}
}

named_enum! {
/// How CQL frames are compressed.
CqlCompression {
    /// Not at all.
    None = "none",
    /// LZ4.
    Lz4 = "lz4",
    /// Snappy.
    Snappy = "snappy",
}
}

/// When a read is asked of a second node too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculative {
    /// Never.
    Off,
    /// When it takes longer than 99 of 100 do.
    P99,
    /// After so long.
    After(Duration),
}

/// Where budgets are shared.
#[derive(Debug, Clone)]
pub enum LimitsBackend {
    /// Inside this process.
    Local,
    /// In Redis.
    Redis(RedisConfig),
}

/// What `[limits]` says of Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Its address.
    pub url: String,
    /// What happens while it is away.
    pub degraded: Degraded,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How many processes share the budgets.
    pub nodes_hint: u32,
}

named_enum! {
/// What happens to budgets while Redis is away.
Degraded {
    /// Each process meters its share.
    LocalShare = "local-share",
    /// Nothing is sent.
    Refuse = "refuse",
    /// Everything is sent.
    Allow = "allow",
}
}

/// What an address begins with, and whether this program has it.
pub(super) struct Scheme<'a> {
    pub names: &'a [&'a str],
    pub built: bool,
    pub example: &'a str,
}

/// Reads an address: none means inside this process, else what stands behind the scheme.
pub(super) fn address(from: &mut Reader<'_>, key: &str, inside: &str, scheme: &Scheme<'_>) -> Option<(String, String)> {
    let text = from.checked(key, |text| {
        let known = text == inside || scheme.names.iter().any(|name| text.starts_with(name));
        if !known {
            return Err(Wrong::new("is unknown", format!("write \"{inside}\" or \"{}\"", scheme.example)));
        }
        if text != inside && !scheme.built {
            return Err(Wrong::new("is not in this build", WITH_SERVERS));
        }
        Ok(text.to_owned())
    });
    let name = scheme.names.iter().find(|name| text.starts_with(*name))?;
    Some(((*name).to_owned(), text[name.len()..].to_owned()))
}

fn hosts(from: &mut Reader<'_>, key: &str, text: &str, example: &str) -> Vec<String> {
    let hosts: Vec<String> = text.split(',').map(|host| host.trim().to_owned()).collect();
    let is_host = |host: &String| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
    };
    if !hosts.iter().all(is_host) {
        from.refuse(&[key], format!("`{key}` names a server that is no host"), format!("write \"{example}\""));
    }
    hosts
}

pub(super) fn log(from: &mut Reader<'_>) -> LogBackend {
    let scheme = Scheme { names: &["kafka://"], built: cfg!(feature = "kafka"), example: "kafka://host:9092,host:9092" };
    let place = address(from, "log.url", "embedded:", &scheme);
    let brokers = place.map(|(_, rest)| hosts(from, "log.url", &rest, scheme.example));
    let instance_id = from.text("log.kafka.instance_id");
    let mechanism = from.checked("log.kafka.sasl_mechanism", |text| match text {
        "" | "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => Ok(text.to_owned()),
        _ => Err(Wrong::new("is none of the choices", "write \"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\"")),
    });
    let (user, password) = (from.text("log.kafka.sasl_user"), from.path("log.kafka.sasl_password_file"));
    let sasl = match (mechanism.is_empty(), user.is_empty(), password) {
        (true, true, None) => None,
        (false, false, Some(file)) => Some((mechanism, user, file)),
        _ => {
            let keys = ["log.kafka.sasl_mechanism", "log.kafka.sasl_user", "log.kafka.sasl_password_file"];
            from.refuse(&keys, "the login for Kafka is not whole", "set all of sasl_mechanism, sasl_user and sasl_password_file, or none");
            None
        }
    };
    let tls = from.flag("log.kafka.tls");
    let tls_ca_file = from.path("log.kafka.tls_ca_file");
    let config = KafkaConfig {
        brokers: brokers.clone().unwrap_or_default(),
        topic_prefix: from.checked("log.topic_prefix", |text| {
            let is_name = text.len() <= 200 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
            if is_name {
                Ok(text.to_owned())
            } else {
                Err(Wrong::new("is no part of a topic's name", "write letters, digits, \".\", \"_\" and \"-\""))
            }
        }),
        group: from.text("log.kafka.group"),
        instance_id: Some(instance_id).filter(|id| !id.is_empty()),
        linger: from.duration("log.kafka.linger", Duration::ZERO),
        batch_bytes: from.size("log.kafka.batch", 1 << 10..=16 << 20) as usize,
        compression: from.choice("log.kafka.compression", &KafkaCompression::ALL.iter().map(|one| (one.name(), *one)).collect::<Vec<_>>()),
        queue_limit: from.count("log.kafka.queue_limit", 1..=10_000_000) as usize,
        delivery_timeout: from.duration("log.kafka.delivery_timeout", 100 * MILLISECOND),
        session_timeout: from.duration("log.kafka.session_timeout", 6_000 * MILLISECOND),
        fetch_min_bytes: from.size("log.kafka.fetch_min", 1..=64 << 20) as usize,
        fetch_max_wait: from.duration("log.kafka.fetch_max_wait", MILLISECOND),
        tls: tls || tls_ca_file.is_some(),
        tls_ca_file,
        sasl,
        properties: from.table("log.kafka.properties"),
        spool_bytes: from.size("log.spool.max_bytes", 1 << 20..=1 << 50),
        spool_segment_bytes: from.size("log.spool.segment", 1 << 20..=1 << 30),
    };
    if config.spool_segment_bytes.saturating_mul(2) > config.spool_bytes {
        let keys = ["log.spool.max_bytes", "log.spool.segment"];
        from.refuse(&keys, "`log.spool.max_bytes` has no room for two segments", "set log.spool.segment to half of max_bytes or less");
    }
    if brokers.is_some() { LogBackend::Kafka(Box::new(config)) } else { LogBackend::Embedded }
}

pub(super) fn store(from: &mut Reader<'_>) -> StoreBackend {
    const EXAMPLE: &str = "scylla://host1,host2/keyspace";
    let scheme = Scheme { names: &["scylla://", "cassandra://"], built: cfg!(feature = "scylla"), example: EXAMPLE };
    let place = address(from, "store.url", "embedded:", &scheme).map(|(_, rest)| {
        let (nodes, keyspace) = rest.split_once('/').unwrap_or((&rest, ""));
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts_well = keyspace.starts_with(|letter: char| letter.is_ascii_lowercase());
        if !starts_well || keyspace.len() > 48 || !keyspace.bytes().all(is_name) {
            let help = format!("write \"{EXAMPLE}\"; a keyspace has lower-case letters, digits and \"_\", at most 48");
            from.refuse(&["store.url"], "`store.url` names no keyspace", help);
        }
        (hosts(from, "store.url", nodes, EXAMPLE), keyspace.to_owned())
    });
    let (user, password) = (from.text("store.scylla.user"), from.path("store.scylla.password_file"));
    let login = match (user.is_empty(), password) {
        (true, None) => None,
        (false, Some(file)) => Some((user, file)),
        _ => {
            let keys = ["store.scylla.user", "store.scylla.password_file"];
            from.refuse(&keys, "the login for the store is not whole", "set both store.scylla.user and password_file, or none");
            None
        }
    };
    let datacenter = from.text("store.scylla.datacenter");
    let (hosts, keyspace) = place.clone().unwrap_or_default();
    let config = ScyllaConfig {
        hosts,
        keyspace,
        datacenter: Some(datacenter).filter(|name| !name.is_empty()),
        login,
        tls_ca_file: from.path("store.scylla.tls_ca_file"),
        consistency: from.choice("store.scylla.consistency", &Consistency::ALL.iter().map(|one| (one.name(), *one)).collect::<Vec<_>>()),
        connections_per_shard: from.count("store.scylla.connections_per_shard", 1..=64),
        compression: from.choice("store.scylla.compression", &CqlCompression::ALL.iter().map(|one| (one.name(), *one)).collect::<Vec<_>>()),
        speculative: from.parsed("store.speculative_after", Speculative::Off, "write \"off\", \"p99\" or a duration", |text| match text {
            "off" => Ok(Speculative::Off),
            "p99" => Ok(Speculative::P99),
            text => values::duration(text).map(Speculative::After),
        }),
        replication_factor: from.count("store.scylla.replication_factor", 1..=16),
        auto_migrate: from.flag("store.scylla.auto_migrate"),
    };
    if place.is_some() { StoreBackend::Scylla(Box::new(config)) } else { StoreBackend::Embedded }
}

pub(super) fn limits(from: &mut Reader<'_>) -> LimitsBackend {
    let names = ["redis://", "rediss://", "redis+cluster://", "rediss+cluster://", "redis+sentinel://", "rediss+sentinel://"];
    let scheme = Scheme { names: &names, built: cfg!(feature = "redis"), example: "redis://host:6379" };
    let place = address(from, "limits.url", "local:", &scheme);
    let config = RedisConfig {
        url: place.as_ref().map(|(name, rest)| format!("{name}{rest}")).unwrap_or_default(),
        degraded: from.choice("limits.degraded", &Degraded::ALL.iter().map(|one| (one.name(), *one)).collect::<Vec<_>>()),
        timeout: from.duration("limits.redis_timeout", MILLISECOND),
        nodes_hint: from.count("limits.nodes_hint", 1..=10_000),
    };
    if place.is_some() { LimitsBackend::Redis(config) } else { LimitsBackend::Local }
}

/// Pairs of backends and roles that would lose data, or break a promise without a word.
pub(super) fn refuse_pairs(config: &Config, from: &mut Reader<'_>) {
    let is_split = !Role::ALL.iter().all(|role| config.node.roles.contains(role));
    let shared_log = matches!(config.log.backend, LogBackend::Kafka(_));
    let shared_store = matches!(config.store.backend, StoreBackend::Scylla(_));
    if config.node.roles.is_empty() {
        from.refuse(
            &["node.roles"],
            "`node.roles` is empty: this process would do nothing",
            "write [\"gateway\", \"router\"], or one of them",
        );
        return;
    }
    if is_split && !shared_log {
        let help = "write roles = [\"gateway\", \"router\"], because only one process can hold the embedded log's files; or set log.url = \"kafka://…\"";
        from.refuse(&["node.roles", "log.url"], "`node.roles` splits the roles, but the log is inside the process", help);
    }
    if is_split && shared_log && !shared_store {
        let help = "set store.url = \"scylla://…\"; or give this process both roles, and log.url = \"embedded:\"";
        from.refuse(&["node.roles", "store.url"], "`node.roles` splits the roles, but the store is inside the process", help);
    }
    if !is_split && shared_log && !shared_store {
        let message = "`log.url` is Kafka and `store.url` is inside the process: a router that takes over a shard would not find its rows";
        from.refuse(&["log.url", "store.url"], message, "set store.url = \"scylla://…\" too, or log.url = \"embedded:\"");
    }
    if is_split && shared_log && config.node.roles.contains(&Role::Router) && matches!(config.limits.backend, LimitsBackend::Local) {
        let message = "`limits.url` is inside the process: several routers would send several times what a platform allows";
        from.refuse(&["limits.url", "node.roles"], message, "set limits.url = \"redis://…\"; or give the one process both roles");
    }
    let own_secret = match &config.auth.key_pepper {
        SecretSource::Generated | SecretSource::File { create: true, .. } => true,
        SecretSource::Inline(_) | SecretSource::File { create: false, .. } => false,
    };
    if shared_store && own_secret {
        let message = "`auth.key_pepper_file` is not set: each process would make a root secret of its own, and read nothing of the others";
        let help = "make one with `openssl rand -hex 32`, and give the same file to every process";
        from.refuse(&["auth.key_pepper_file", "store.url"], message, help);
    }
}
