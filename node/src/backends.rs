//! From the configuration to the log, the store and the budgets: inside this process, or on servers.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use messaging::clock::SharedClock;
use messaging::config::{Ack, Config, LimitsBackend, LogBackend, StoreBackend};
use messaging::limit::Limit;
use messaging::log::{Fsync, Log};
use messaging::store::Store;

#[cfg(any(feature = "kafka", feature = "scylla", feature = "redis"))]
pub mod servers;

/// What a node works on.
pub struct Backends {
    /// What the gateway appends to: the log, with a spool before it where it is not on this machine.
    pub ingress: Arc<dyn Log>,
    /// What the router reads and appends to.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Budgets.
    pub limit: Arc<dyn Limit>,
}

/// Opens them all.
pub async fn open(config: &Config, data_dir: &Path, clock: &SharedClock) -> anyhow::Result<Backends> {
    let (ingress, log) = match &config.log.backend {
        LogBackend::Embedded => {
            let log = embedded_log(config, data_dir, clock).await?;
            (log.clone(), log)
        }
        #[cfg(feature = "kafka")]
        LogBackend::Kafka(kafka) => servers::kafka(config, kafka, data_dir, clock).await?,
        #[cfg(not(feature = "kafka"))]
        LogBackend::Kafka(_) => return Err(not_built()),
    };
    let store = match &config.store.backend {
        StoreBackend::Embedded => embedded_store(config, data_dir, clock).await?,
        #[cfg(feature = "scylla")]
        StoreBackend::Scylla(scylla) => servers::scylla(config, scylla, data_dir, clock).await?,
        #[cfg(not(feature = "scylla"))]
        StoreBackend::Scylla(_) => return Err(not_built()),
    };
    let limit = match &config.limits.backend {
        LimitsBackend::Local => messaging::limit::open_local(clock.clone()),
        #[cfg(feature = "redis")]
        LimitsBackend::Redis(redis) => {
            // Installations that share a Redis have topics, or keyspaces, of different names.
            let space = match (&config.log.backend, &config.store.backend) {
                (LogBackend::Kafka(kafka), _) => kafka.topic_prefix.trim_end_matches('.').replace('.', "-"),
                (LogBackend::Embedded, StoreBackend::Scylla(scylla)) => scylla.keyspace.clone(),
                (LogBackend::Embedded, StoreBackend::Embedded) => "trunkline".to_owned(),
            };
            servers::redis(redis, &space, config.dev.clock_control, clock).await?
        }
        #[cfg(not(feature = "redis"))]
        LimitsBackend::Redis(_) => return Err(not_built()),
    };
    Ok(Backends { ingress, log, store, limit })
}

/// Where the directory's copy stands: for a start while the store is away.
pub fn directory_copy(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("directory")
}

#[cfg(not(all(feature = "kafka", feature = "scylla", feature = "redis")))]
fn not_built() -> anyhow::Error {
    anyhow::anyhow!("this program was built for one process only; build it with `cargo build --release --features distributed`")
}

async fn embedded_log(config: &Config, data_dir: &Path, clock: &SharedClock) -> anyhow::Result<Arc<dyn Log>> {
    let mut settings = config.embedded_log(data_dir);
    if config.log.ack == Ack::Memory {
        settings.fsync = Fsync::Never;
    }
    let clock = clock.clone();
    let opened = tokio::task::spawn_blocking(move || messaging::log::open_embedded(settings, clock));
    opened.await?.context("the embedded log cannot be opened")
}

async fn embedded_store(config: &Config, data_dir: &Path, clock: &SharedClock) -> anyhow::Result<Arc<dyn Store>> {
    let settings = config.embedded_store(data_dir);
    let clock = clock.clone();
    let opened = tokio::task::spawn_blocking(move || messaging::store::open_embedded(settings, clock));
    opened.await?.context("the embedded store cannot be opened")
}
