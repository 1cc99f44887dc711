//! Settings of the CQL store.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::store::Retention;

/// Settings of the CQL store.
#[derive(Clone)]
pub struct ScyllaSettings {
    /// Contact points, `host` or `host:port` (9042 when none is given). The others are learned from them.
    pub hosts: Vec<String>,
    /// The keyspace: a lower-case letter, then lower-case letters, digits and underscores, at most 48.
    pub keyspace: String,
    /// The datacenter whose nodes are asked, and whose quorum decides. Empty: all nodes are near.
    pub datacenter: String,
    /// The user; empty when the cluster asks for none.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// Connections are over TLS, and servers' certificates are checked against this PEM file. They must name the address that
    /// is connected to.
    pub tls_ca_file: Option<PathBuf>,
    /// How many replicas must answer.
    pub consistency: Consistency,
    /// How long one request may take, its retries included. An `apply` is up to four requests, one after the other.
    pub timeout: Duration,
    /// How many more times a request is tried, on the same or the next node.
    pub retries: usize,
    /// A read that has not been answered after this time is sent to another node too.
    pub speculative_after: Option<Duration>,
    /// Compression of what goes over the wire. Values are sealed and do not shrink, so it mostly costs.
    pub compression: Compression,
    /// Connections per shard of a ScyllaDB node, or per node of Cassandra. At least one.
    pub connections_per_shard: usize,
    /// How long rows are kept.
    pub retention: Retention,
    /// How writes are put together.
    pub batches: BatchLimits,
}

impl ScyllaSettings {
    /// Settings for a cluster, with the defaults of the reference page.
    pub fn new(hosts: Vec<String>, keyspace: impl Into<String>) -> Self {
        Self {
            hosts,
            keyspace: keyspace.into(),
            datacenter: String::new(),
            user: String::new(),
            password: String::new(),
            tls_ca_file: None,
            consistency: Consistency::LocalQuorum,
            timeout: Duration::from_secs(2),
            retries: 2,
            speculative_after: None,
            compression: Compression::None,
            connections_per_shard: 1,
            retention: Retention::default(),
            batches: BatchLimits::default(),
        }
    }
}

impl std::fmt::Debug for ScyllaSettings {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("ScyllaSettings");
        text.field("hosts", &self.hosts).field("keyspace", &self.keyspace).field("datacenter", &self.datacenter);
        text.finish_non_exhaustive()
    }
}

/// How many replicas must answer a read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Most of the replicas in the datacenter.
    LocalQuorum,
    /// Most of all replicas.
    Quorum,
    /// Any one: what was written may be missed by the next read, and lost with one disk. For one-node clusters.
    One,
}

/// Text that is not the name of a setting's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("one of {0} is wanted")]
pub struct BadName(&'static str);

impl FromStr for Consistency {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        match text {
            "LOCAL_QUORUM" => Ok(Self::LocalQuorum),
            "QUORUM" => Ok(Self::Quorum),
            "ONE" => Ok(Self::One),
            _ => Err(BadName("LOCAL_QUORUM, QUORUM, ONE")),
        }
    }
}

/// Compression of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// LZ4.
    Lz4,
    /// Snappy.
    Snappy,
}

impl FromStr for Compression {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "snappy" => Ok(Self::Snappy),
            _ => Err(BadName("none, lz4, snappy")),
        }
    }
}

/// How writes are put together into batches.
///
/// Servers warn at 5 KiB of a batch over several partitions and refuse 50 KiB (ScyllaDB: 128 and 1024), and warn above ten
/// partitions. They count some 100 bytes per row beside the value. A batch of one partition has no limit there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most partitions of one batch.
    pub partitions: usize,
    /// Most bytes of a batch over several partitions.
    pub mixed_bytes: usize,
    /// Most rows of a batch of one partition.
    pub rows: usize,
    /// Most bytes of a batch of one partition. A row that is larger goes alone.
    pub bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { partitions: 10, mixed_bytes: 5 * 1024, rows: 64, bytes: 48 * 1024 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!("LOCAL_QUORUM".parse(), Ok(Consistency::LocalQuorum));
        assert_eq!("lz4".parse(), Ok(Compression::Lz4));
        assert_eq!("local_quorum".parse::<Consistency>().unwrap_err().to_string(), "one of LOCAL_QUORUM, QUORUM, ONE is wanted");
        assert!("zstd".parse::<Compression>().is_err());
    }

    #[test]
    fn the_password_is_not_printed() {
        let mut settings = ScyllaSettings::new(vec!["127.0.0.1".to_owned()], "trunkline");
        settings.password = "hunter2".to_owned();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
