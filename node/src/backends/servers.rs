//! The backends that several processes share.

#[cfg(feature = "kafka")]
pub use with_kafka::{kafka, kafka_settings};
#[cfg(feature = "redis")]
pub use with_redis::redis;
#[cfg(feature = "scylla")]
pub use with_scylla::{scylla, scylla_replication, scylla_settings};

#[cfg(feature = "kafka")]
mod with_kafka {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::Context;
    use messaging::clock::SharedClock;
    use messaging::config::{Config, KafkaCompression, KafkaConfig, RECORD_OVERHEAD, Role};
    use messaging::log::kafka::{self, Compression, KafkaSettings, Sasl, SaslMechanism, Tls};
    use messaging::log::{Log, LogError, spool};
    use messaging::seal::Secret;

    /// Where a gateway keeps how many partitions the topics have, so that it can start while Kafka is away.
    const PARTITIONS_FILE: &str = "kafka-partitions";
    /// How long a start waits for Kafka before it goes on without.
    const FIRST_WAIT: Duration = Duration::from_secs(5);

    /// The log that the gateway appends to (with its spool), and the one that the router reads.
    pub async fn kafka(
        config: &Config,
        kafka: &KafkaConfig,
        data_dir: &Path,
        clock: &SharedClock,
    ) -> anyhow::Result<(Arc<dyn Log>, Arc<dyn Log>)> {
        let kept = data_dir.join(PARTITIONS_FILE);
        let mut settings = kafka_settings(config, kafka)?;
        settings.open_wait = FIRST_WAIT;
        let log = match kafka::open(settings.clone(), clock.clone()).await {
            Ok(log) => log,
            Err(LogError::Io(error)) => {
                settings.partitions = std::fs::read_to_string(&kept).ok().and_then(|text| text.trim().parse().ok());
                anyhow::ensure!(settings.partitions.is_some(), "log.url: {error}, and this process never saw its topics");
                tracing::warn!(%error, "kafka is away: starting with what is known of its topics");
                kafka::open(settings, clock.clone()).await.context("log.url")?
            }
            Err(error) => return Err(error).context("log.url"),
        };
        std::fs::write(&kept, log.partitions().to_string()).with_context(|| format!("{} cannot be written", kept.display()))?;
        if !config.has_role(Role::Gateway) {
            return Ok((log.clone(), log));
        }
        let settings = config.spool(kafka, data_dir, log.partitions());
        let ingress = spool::open(log.clone(), settings, clock.clone()).await.context("the spool cannot be opened")?;
        Ok((ingress, log))
    }

    /// What the configuration says of Kafka.
    pub fn kafka_settings(config: &Config, kafka: &KafkaConfig) -> anyhow::Result<KafkaSettings> {
        let tls = match (&kafka.tls_ca_file, kafka.tls) {
            (Some(file), _) => Tls::Authorities(file.clone()),
            (None, true) => Tls::System,
            (None, false) => Tls::Off,
        };
        let sasl = match &kafka.sasl {
            Some((mechanism, user, file)) => Some(sasl(mechanism, user, file)?),
            None => None,
        };
        Ok(KafkaSettings {
            topic_prefix: kafka.topic_prefix.clone(),
            group: kafka.group.clone(),
            instance_id: Some(kafka.instance_id.clone().unwrap_or_else(|| config.node.name.clone())),
            role: if config.has_role(Role::Router) { kafka::Role::Consume } else { kafka::Role::Produce },
            linger: kafka.linger,
            batch_bytes: kafka.batch_bytes,
            compression: match kafka.compression {
                KafkaCompression::None => Compression::None,
                KafkaCompression::Lz4 => Compression::Lz4,
                KafkaCompression::Snappy => Compression::Snappy,
                KafkaCompression::Gzip => Compression::Gzip,
            },
            queue_limit: kafka.queue_limit,
            delivery_timeout: kafka.delivery_timeout,
            session_timeout: kafka.session_timeout,
            fetch_min_bytes: kafka.fetch_min_bytes,
            fetch_max_wait: kafka.fetch_max_wait,
            tls,
            sasl,
            max_record: config.log.max_record + RECORD_OVERHEAD as usize,
            properties: kafka.properties.clone(),
            ..KafkaSettings::new(kafka.brokers.clone())
        })
    }

    fn sasl(mechanism: &str, user: &str, file: &Path) -> anyhow::Result<Sasl> {
        let text = std::fs::read_to_string(file).with_context(|| format!("log.kafka.sasl_password_file: {}", file.display()))?;
        let mechanism = SaslMechanism::ALL.iter().copied().find(|one| one.name() == mechanism).context("log.kafka.sasl_mechanism")?;
        Ok(Sasl { mechanism, user: user.to_owned(), password: Secret::new(text.trim()) })
    }
}

#[cfg(feature = "scylla")]
mod with_scylla {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::Context;
    use messaging::clock::SharedClock;
    use messaging::config::{self, Config, CqlCompression, ScyllaConfig, Speculative};
    use messaging::store::scylla::migrations::{self, Replication};
    use messaging::store::scylla::{self, Compression, Consistency, ScyllaSettings};
    use messaging::store::{Store, StoreError, lazy};

    /// The driver has no percentile of its own to go by before it has measured: what a read should not take in one data centre.
    const SLOW_READ: Duration = Duration::from_millis(100);

    /// The store; where it is away and this process has a copy of the directory, one that is unavailable until it is there.
    pub async fn scylla(config: &Config, scylla: &ScyllaConfig, data_dir: &Path, clock: &SharedClock) -> anyhow::Result<Arc<dyn Store>> {
        let settings = scylla_settings(config, scylla)?;
        if scylla.auto_migrate {
            migrations::apply(&settings, &scylla_replication(scylla)).await.context("store.scylla.auto_migrate")?;
        }
        match scylla::open(settings.clone(), clock.clone()).await {
            Ok(store) => Ok(store),
            Err(StoreError::Unavailable(why)) if crate::backends::directory_copy(data_dir).exists() => {
                tracing::warn!(why, "the store is away: starting without it");
                let clock = clock.clone();
                Ok(lazy::LazyStore::begin(Box::new(move || scylla::open(settings.clone(), clock.clone()))))
            }
            Err(error) => Err(error).context("store.url"),
        }
    }

    /// What the configuration says of the store.
    pub fn scylla_settings(config: &Config, scylla: &ScyllaConfig) -> anyhow::Result<ScyllaSettings> {
        let (user, password) = match &scylla.login {
            Some((user, file)) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("store.scylla.password_file: {}", file.display()))?;
                (user.clone(), text.trim().to_owned())
            }
            None => (String::new(), String::new()),
        };
        Ok(ScyllaSettings {
            datacenter: scylla.datacenter.clone().unwrap_or_default(),
            user,
            password,
            tls_ca_file: scylla.tls_ca_file.clone(),
            consistency: match scylla.consistency {
                config::Consistency::LocalQuorum => Consistency::LocalQuorum,
                config::Consistency::Quorum => Consistency::Quorum,
                config::Consistency::LocalOne | config::Consistency::One => Consistency::One,
            },
            timeout: config.store.timeout,
            retries: config.store.retries as usize,
            speculative_after: match scylla.speculative {
                Speculative::Off => None,
                Speculative::P99 => Some(SLOW_READ),
                Speculative::After(wait) => Some(wait),
            },
            compression: match scylla.compression {
                CqlCompression::None => Compression::None,
                CqlCompression::Lz4 => Compression::Lz4,
                CqlCompression::Snappy => Compression::Snappy,
            },
            connections_per_shard: scylla.connections_per_shard as usize,
            retention: config.retention.of_store(),
            ..ScyllaSettings::new(scylla.hosts.clone(), scylla.keyspace.clone())
        })
    }

    /// How many copies a keyspace that we make has.
    pub fn scylla_replication(scylla: &ScyllaConfig) -> Replication {
        let copies = u8::try_from(scylla.replication_factor).unwrap_or(u8::MAX);
        match &scylla.datacenter {
            Some(name) => Replication::PerDatacenter([(name.clone(), copies)].into()),
            None => Replication::Simple(copies),
        }
    }
}

#[cfg(feature = "redis")]
mod with_redis {
    use std::sync::Arc;

    use anyhow::Context;
    use messaging::clock::SharedClock;
    use messaging::config::{self, RedisConfig};
    use messaging::limit::Limit;
    use messaging::limit::redis::{self, Degraded, RedisSettings, TimeSource};

    /// Budgets shared in Redis; also while it is away. `moved_clock`: tests move time, and Redis' own cannot be.
    pub async fn redis(redis: &RedisConfig, prefix: &str, moved_clock: bool, clock: &SharedClock) -> anyhow::Result<Arc<dyn Limit>> {
        let settings = RedisSettings {
            timeout: redis.timeout,
            degraded: match redis.degraded {
                config::Degraded::LocalShare => Degraded::LocalShare,
                config::Degraded::Refuse => Degraded::Refuse,
                config::Degraded::Allow => Degraded::Allow,
            },
            nodes_hint: redis.nodes_hint,
            prefix: prefix.to_owned(),
            time: if moved_clock { TimeSource::Caller } else { TimeSource::Server },
            ..RedisSettings::at(redis.url.parse().context("limits.url")?)
        };
        redis::open(settings, clock.clone()).await.context("limits.url")
    }
}
