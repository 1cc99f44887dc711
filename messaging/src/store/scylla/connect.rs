//! The session: contact points, TLS, and how requests are tried.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::{OpenSsl010Config, Session};
use scylla::client::session_builder::SessionBuilder;
use scylla::client::{Compression as Wire, PoolSize};
use scylla::errors::{DbError, RequestAttemptError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{FallthroughRetryPolicy, RequestInfo, RetryDecision, RetryPolicy, RetrySession};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::{Consistency as Level, SerialConsistency};

use super::settings::{Compression, Consistency, ScyllaSettings};
use crate::metrics;
use crate::metrics::StoreRetryReason;
use crate::store::StoreError;

/// Longest name of a keyspace.
const KEYSPACE_MAX: usize = 48;
/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a silent connection is asked for a sign of life, and how long it may take to give one.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// How requests of each kind are tried.
#[derive(Clone)]
pub(super) struct Profiles {
    /// Idempotent writes: tried again on the same or another node.
    pub(super) write: ExecutionProfileHandle,
    /// Reads: the same, and sent to a second node when the first is slow.
    pub(super) read: ExecutionProfileHandle,
    /// Lightweight transactions: tried once, the caller reads back what came of it.
    pub(super) swap: ExecutionProfileHandle,
}

impl Profiles {
    pub(super) fn new(settings: &ScyllaSettings) -> Self {
        let mut balance = DefaultPolicy::builder().token_aware(true);
        if !settings.datacenter.is_empty() {
            balance = balance.prefer_datacenter(settings.datacenter.clone()).permit_dc_failover(false);
        }
        let level = match settings.consistency {
            Consistency::LocalQuorum => Level::LocalQuorum,
            Consistency::Quorum => Level::Quorum,
            Consistency::One => Level::One,
        };
        let base = ExecutionProfile::builder()
            .consistency(level)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .request_timeout(Some(settings.timeout))
            .load_balancing_policy(balance.build());
        let write = base.clone().retry_policy(Arc::new(Tries { retries: settings.retries })).speculative_execution_policy(None);
        let speculative = settings.speculative_after.map(|after| {
            let policy = SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: after };
            Arc::new(policy) as Arc<dyn scylla::policies::speculative_execution::SpeculativeExecutionPolicy>
        });
        let read = write.clone().speculative_execution_policy(speculative);
        // What was agreed on must be read wherever a quorum is, whatever the level of the other tables.
        let swap = base.consistency(Level::LocalQuorum).retry_policy(Arc::new(FallthroughRetryPolicy::new()));
        Self { write: write.build().into_handle(), read: read.build().into_handle(), swap: swap.build().into_handle() }
    }
}

/// Connects to a cluster.
pub(super) async fn connect(settings: &ScyllaSettings, profiles: &Profiles) -> Result<Session, StoreError> {
    check_keyspace(&settings.keyspace)?;
    let mut builder = SessionBuilder::new()
        .known_nodes(&settings.hosts)
        .default_execution_profile_handle(profiles.write.clone())
        .compression(match settings.compression {
            Compression::None => None,
            Compression::Lz4 => Some(Wire::Lz4),
            Compression::Snappy => Some(Wire::Snappy),
        })
        .pool_size(PoolSize::PerShard(NonZeroUsize::new(settings.connections_per_shard).unwrap_or(NonZeroUsize::MIN)))
        .keyspaces_to_fetch([&settings.keyspace])
        // Replication and tables are known, columns are not needed.
        .fetch_full_schema_metadata(false)
        .connection_timeout(CONNECT_TIMEOUT)
        .keepalive_interval(KEEPALIVE.0)
        .keepalive_timeout(KEEPALIVE.1);
    if !settings.user.is_empty() {
        builder = builder.user(&settings.user, &settings.password);
    }
    if let Some(file) = &settings.tls_ca_file {
        builder = builder.tls_context(Some(tls(file)?));
    }
    builder.build().await.map_err(|error| StoreError::Unavailable(format!("cannot connect to the cluster: {error}")))
}

/// Keyspaces stand in statements without quotes.
fn check_keyspace(name: &str) -> Result<(), StoreError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= KEYSPACE_MAX && name.chars().all(good) {
        return Ok(());
    }
    let rule = "begins with a lower-case letter and has at most 48 lower-case letters, digits and underscores";
    Err(StoreError::Damaged(format!("a keyspace's name {rule}")))
}

/// Only nodes with a certificate of this authority are talked to; it must name the node's address, which the driver sees to.
fn tls(file: &std::path::Path) -> Result<OpenSsl010Config, StoreError> {
    let unusable = |error: &dyn std::fmt::Display| StoreError::Unavailable(format!("{}: {error}", file.display()));
    let text = std::fs::read(file).map_err(|error| unusable(&error))?;
    let authorities = X509::stack_from_pem(&text).map_err(|error| unusable(&error))?;
    if authorities.is_empty() {
        return Err(unusable(&"no certificate in it"));
    }
    let built = || {
        let mut roots = X509StoreBuilder::new()?;
        for authority in authorities {
            roots.add_cert(authority)?;
        }
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        connector.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        // In place of the system's authorities.
        connector.set_cert_store(roots.build());
        Ok::<_, openssl::error::ErrorStack>(OpenSsl010Config::new(connector))
    };
    built().map_err(|error| unusable(&error))
}

/// Tries idempotent requests again. All our writes are: each carries its write time.
///
/// What may pass by itself on the same node (a slow replica) is tried there, everything else on the next. The time limit of the
/// request holds for all tries together.
#[derive(Debug)]
struct Tries {
    retries: usize,
}

impl RetryPolicy for Tries {
    fn new_session(&self) -> Box<dyn RetrySession> {
        Box::new(TriesLeft { retries: self.retries, left: self.retries })
    }
}

struct TriesLeft {
    retries: usize,
    left: usize,
}

impl RetrySession for TriesLeft {
    fn decide_should_retry(&mut self, request: RequestInfo) -> RetryDecision {
        if !request.is_idempotent || self.left == 0 {
            return RetryDecision::DontRetry;
        }
        let (reason, decision) = match request.error {
            RequestAttemptError::DbError(DbError::ReadTimeout { .. } | DbError::WriteTimeout { .. }, _) => {
                (StoreRetryReason::Timeout, RetryDecision::RetrySameTarget(None))
            }
            RequestAttemptError::DbError(
                DbError::Unavailable { .. }
                | DbError::Overloaded
                | DbError::IsBootstrapping
                | DbError::ServerError
                | DbError::TruncateError,
                _,
            )
            | RequestAttemptError::BrokenConnectionError(_)
            | RequestAttemptError::UnableToAllocStreamId => (StoreRetryReason::Unavailable, RetryDecision::RetryNextTarget(None)),
            _ => return RetryDecision::DontRetry,
        };
        self.left -= 1;
        metrics::STORE_RETRIES.at([reason.index()]).increment(1);
        decision
    }

    fn reset(&mut self) {
        self.left = self.retries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keyspaces_need_no_quotes() {
        for good in ["trunkline", "t", "trunkline_2"] {
            assert!(check_keyspace(good).is_ok(), "{good}");
        }
        for bad in ["", "2t", "_t", "Trunkline", "a-b", "a;drop", "a\"b", &"a".repeat(49)] {
            assert!(check_keyspace(bad).is_err(), "{bad}");
        }
    }
}
