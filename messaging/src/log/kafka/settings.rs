//! Settings of the log over Kafka, and what librdkafka is told.
//!
//! What the contract rests on is fixed here and cannot be set otherwise: acknowledgement by all in-sync replicas, idempotence, no commits
//! of librdkafka's own, the assignor.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::log::{LogError, Topic};
use crate::outcome::named_enum;
use crate::seal::Secret;

/// Room that a record's frame and its batch take beside the payload, in bytes. `max.message.bytes` of a topic must be at least
/// `max_record` and this.
pub const RECORD_OVERHEAD: usize = 64 << 10;
/// Longest wait for one answer of a broker. Longer than `fetch_max_wait` can be.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a connection with its handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait before a broker that went away is tried again.
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How often topics are looked up again though nothing seems wrong. librdkafka's own 300 s is how long a partition would stand still
/// whose new leader it missed.
const METADATA_REFRESH: Duration = Duration::from_secs(10);
/// The longest time between two heartbeats: how late a member hears that the group is rebalanced, which all others wait for.
const HEARTBEAT_MAX: Duration = Duration::from_millis(500);
/// The longest `fetch_max_wait`.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(5);
/// The least and the longest `delivery_timeout`: below, a healthy cluster's election fails appends; above, platforms give up before us.
const DELIVERY_TIMEOUT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Records of one partition that librdkafka fetches ahead of our queues. A pause throws them away, so they are fewer than a lane holds.
const PREFETCH_RECORDS: usize = 1_000;
/// Bytes of one partition that one fetch brings, unless its first record is larger.
const FETCH_BYTES: usize = 512 << 10;
/// KiB that librdkafka fetches ahead of our queues, all partitions together.
const PREFETCH_KIB: usize = 32 << 10;
/// Wait before the next fetch when the prefetch is full; librdkafka's own second would be a hole in every catch-up.
const PREFETCH_BACKOFF: Duration = Duration::from_millis(10);

/// Names that `properties` may not set, because the contract rests on their values or a setting of ours exists.
const FIXED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "bootstrap.servers",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "transactional.id",
];

named_enum! {
/// How batches are compressed.
Compression {
    /// Not at all.
    None = "none",
    /// Small and slow.
    Gzip = "gzip",
    /// Fast.
    Snappy = "snappy",
    /// Fast: the default.
    Lz4 = "lz4",
}
}

named_enum! {
/// How we say who we are.
SaslMechanism {
    /// The password itself: over TLS only.
    Plain = "PLAIN",
    /// Challenge and response.
    ScramSha256 = "SCRAM-SHA-256",
    /// Challenge and response.
    ScramSha512 = "SCRAM-SHA-512",
}
}

/// Whether connections are encrypted, and whom we trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// In the clear.
    Off,
    /// Encrypted; the authorities of the system.
    System,
    /// Encrypted; the authorities in this PEM file.
    Authorities(PathBuf),
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// How we say it.
    pub mechanism: SaslMechanism,
    /// Name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// What a process does with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It appends only (a gateway): `claims` never brings anything.
    Produce,
    /// It also takes part in the group (a router), from the first call of `claims` on.
    Consume,
}

/// Settings of the log over Kafka.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port` of some brokers.
    pub brokers: Vec<String>,
    /// What stands before `inbound`, `outbound` and `bulk` in the topics' names.
    pub topic_prefix: String,
    /// The routers' group.
    pub group: String,
    /// Static membership: unique in the group, the same after a restart. A start within `session_timeout` after a crash then moves no shard;
    /// a process that stops in order gives its shards away at once.
    pub instance_id: Option<String>,
    /// What this process does.
    pub role: Role,
    /// How long a record waits for company.
    pub linger: Duration,
    /// Largest batch, in bytes.
    pub batch_bytes: usize,
    /// How batches are compressed.
    pub compression: Compression,
    /// Records that may wait for their acknowledgement; one more is `Full` at once.
    pub queue_limit: usize,
    /// Bytes that may wait for their acknowledgement.
    pub queue_bytes: usize,
    /// An append has failed when it was not acknowledged after this, and at most a second more.
    pub delivery_timeout: Duration,
    /// A member that was silent for this long loses its shards.
    pub session_timeout: Duration,
    /// A fetch is answered when so many bytes are there ...
    pub fetch_min_bytes: usize,
    /// ... or after this.
    pub fetch_max_wait: Duration,
    /// Encryption.
    pub tls: Tls,
    /// Who we are.
    pub sasl: Option<Sasl>,
    /// The largest payload, in bytes.
    pub max_record: usize,
    /// The partition count as it was known before. With it, opening does not wait for the cluster: see [`super::KafkaLog::standing`].
    pub partitions: Option<u16>,
    /// How long opening waits for the cluster when the partition count is not known.
    pub open_wait: Duration,
    /// Given to librdkafka as they are.
    pub properties: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// The defaults, for a router.
    pub fn new(brokers: Vec<String>) -> Self {
        Self {
            brokers,
            topic_prefix: "trunkline.".into(),
            group: "trunkline-router".into(),
            instance_id: None,
            role: Role::Consume,
            linger: Duration::from_millis(2),
            batch_bytes: 256 << 10,
            compression: Compression::None,
            queue_limit: 100_000,
            queue_bytes: 256 << 20,
            delivery_timeout: Duration::from_millis(2_500),
            session_timeout: Duration::from_secs(15),
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(50),
            tls: Tls::Off,
            sasl: None,
            max_record: 1 << 20,
            partitions: None,
            open_wait: Duration::from_secs(30),
            properties: BTreeMap::new(),
        }
    }

    /// The names of the three topics, by `Topic::index`.
    pub fn topic_names(&self) -> [String; 3] {
        [Topic::Inbound, Topic::Outbound, Topic::Bulk].map(|topic| format!("{}{}", self.topic_prefix, topic.name()))
    }

    /// Refuses what cannot work, with the cure.
    pub(super) fn check(&self) -> Result<(), LogError> {
        let refuse = |what: String| Err(LogError::Mismatch(what));
        if self.brokers.is_empty() || self.brokers.iter().any(|broker| broker.trim().is_empty()) {
            return refuse("no kafka broker is named: set log.url to kafka://host:port,host:port".into());
        }
        if let Some(name) = self.properties.keys().find(|name| FIXED.contains(&name.as_str())) {
            return refuse(format!("log.kafka.properties may not set {name}: trunkline sets it; remove the line"));
        }
        if self.group.is_empty() {
            return refuse("log.kafka.group is empty: name the routers' group".into());
        }
        if self.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain) && self.tls == Tls::Off {
            return refuse(
                "log.kafka.sasl_mechanism = \"PLAIN\" would send the password in the clear: turn tls on, or use SCRAM-SHA-512".into(),
            );
        }
        if !(DELIVERY_TIMEOUT.0..=DELIVERY_TIMEOUT.1).contains(&self.delivery_timeout) || self.linger >= self.delivery_timeout {
            return refuse("log.kafka.delivery_timeout must be 500 ms to 60 s and longer than linger".into());
        }
        if self.fetch_max_wait > FETCH_WAIT_MAX {
            return refuse("log.kafka.fetch_max_wait may be 5 s at most".into());
        }
        if self.queue_limit == 0 || self.max_record == 0 || self.max_record > self.queue_bytes {
            return refuse(
                "log.kafka.queue_limit and log.max_record must be at least 1, and the queue must hold the largest record".into(),
            );
        }
        Ok(())
    }

    /// What every client is told.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers.join(","));
        config.set("client.id", "trunkline");
        config.set("socket.timeout.ms", millis(SOCKET_TIMEOUT));
        config.set("socket.connection.setup.timeout.ms", millis(CONNECT_TIMEOUT));
        config.set("socket.keepalive.enable", "true");
        config.set("socket.nagle.disable", "true");
        config.set("reconnect.backoff.max.ms", millis(RECONNECT_MAX));
        config.set("topic.metadata.refresh.interval.ms", millis(METADATA_REFRESH));
        config.set("log.connection.close", "false");
        config.set("message.max.bytes", (self.max_record + RECORD_OVERHEAD).to_string());
        config.set("security.protocol", self.protocol());
        match &self.tls {
            Tls::Off | Tls::System => {}
            Tls::Authorities(path) => {
                config.set("ssl.ca.location", path.to_string_lossy());
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanisms", sasl.mechanism.name());
            config.set("sasl.username", &sasl.user);
            config.set("sasl.password", sasl.password.expose());
        }
        config.set_log_level(RDKafkaLogLevel::Info);
        self.add_properties(config)
    }

    /// Last, so that they stand over what is set here; what may not be set so, `check` refused.
    fn add_properties(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (Tls::Off, None) => "plaintext",
            (Tls::Off, Some(_)) => "sasl_plaintext",
            (Tls::System | Tls::Authorities(_), None) => "ssl",
            (Tls::System | Tls::Authorities(_), Some(_)) => "sasl_ssl",
        }
    }

    /// What the producer is told.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("acks", "all");
        config.set("enable.idempotence", "true");
        config.set("delivery.timeout.ms", millis(self.delivery_timeout));
        config.set("linger.ms", millis(self.linger));
        config.set("batch.size", self.batch_bytes.to_string());
        config.set("compression.type", self.compression.name());
        config.set("queue.buffering.max.messages", self.queue_limit.to_string());
        config.set("queue.buffering.max.kbytes", self.queue_bytes.div_ceil(1 << 10).to_string());
        self.add_properties(config)
    }

    /// What the consumer is told.
    pub(super) fn consumer(&self, with_instance: bool) -> ClientConfig {
        let mut config = self.client();
        config.set("group.id", &self.group);
        if let Some(instance) = self.instance_id.as_ref().filter(|_| with_instance) {
            config.set("group.instance.id", instance);
        }
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "earliest");
        config.set("allow.auto.create.topics", "false");
        // Of the assignors, only this one gives the same partitions of equal topics to the same member.
        config.set("partition.assignment.strategy", "range");
        config.set("session.timeout.ms", millis(self.session_timeout));
        config.set("heartbeat.interval.ms", millis((self.session_timeout / 5).min(HEARTBEAT_MAX)));
        config.set("fetch.min.bytes", self.fetch_min_bytes.to_string());
        config.set("fetch.wait.max.ms", millis(self.fetch_max_wait));
        config.set("check.crcs", "true");
        config.set("queued.min.messages", PREFETCH_RECORDS.to_string());
        config.set("queued.max.messages.kbytes", PREFETCH_KIB.to_string());
        config.set("max.partition.fetch.bytes", FETCH_BYTES.to_string());
        config.set("fetch.queue.backoff.ms", millis(PREFETCH_BACKOFF));
        self.add_properties(config)
    }
}

/// Without the password, and without the values of `properties`, which may hold secrets too.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topic_prefix", &self.topic_prefix)
            .field("group", &self.group)
            .field("instance_id", &self.instance_id)
            .field("role", &self.role)
            .field("tls", &self.tls)
            .field("partitions", &self.partitions)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KafkaSettings {
        KafkaSettings::new(vec!["127.0.0.1:9092".into()])
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_name() {
        type Change = fn(&mut KafkaSettings);
        let cases: &[(Change, &str)] = &[
            (|s| s.brokers.clear(), "log.url"),
            (|s| s.brokers.push(" ".into()), "log.url"),
            (|s| drop(s.properties.insert("enable.auto.commit".into(), "true".into())), "enable.auto.commit"),
            (|s| drop(s.properties.insert("partition.assignment.strategy".into(), "roundrobin".into())), "partition.assignment.strategy"),
            (|s| s.group.clear(), "log.kafka.group"),
            (
                |s| s.sasl = Some(Sasl { mechanism: SaslMechanism::Plain, user: "u".into(), password: Secret::new("p") }),
                "log.kafka.sasl_mechanism",
            ),
            (|s| s.delivery_timeout = Duration::from_millis(1), "delivery_timeout"),
            (|s| s.linger = Duration::from_secs(10), "linger"),
            (|s| s.fetch_max_wait = Duration::from_secs(10), "fetch_max_wait"),
            (|s| s.queue_limit = 0, "queue_limit"),
            (|s| s.queue_bytes = 100, "largest record"),
        ];
        assert!(settings().check().is_ok());
        for (change, named) in cases {
            let mut settings = settings();
            change(&mut settings);
            let error = settings.check().expect_err(named).to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn security_follows_from_tls_and_sasl() {
        let sasl = Sasl { mechanism: SaslMechanism::ScramSha512, user: "u".into(), password: Secret::new("hush") };
        let authorities = Tls::Authorities("ca.pem".into());
        let cases = [
            (Tls::Off, None, "plaintext"),
            (Tls::System, None, "ssl"),
            (authorities.clone(), None, "ssl"),
            (Tls::Off, Some(sasl.clone()), "sasl_plaintext"),
            (authorities, Some(sasl), "sasl_ssl"),
        ];
        for (tls, sasl, wanted) in cases {
            let settings = KafkaSettings { tls, sasl, ..settings() };
            assert_eq!(settings.client().get("security.protocol"), Some(wanted));
            assert!(!format!("{settings:?}").contains("hush"));
        }
    }

    #[test]
    fn properties_reach_librdkafka_as_they_are() {
        let mut settings = settings();
        settings.properties.insert("queued.min.messages".into(), "7".into());
        settings.properties.insert("client.rack".into(), "a".into());
        let config = settings.consumer(true);
        assert_eq!((config.get("queued.min.messages"), config.get("client.rack")), (Some("7"), Some("a")));
    }
}
