//! Which nodes hold a partition, so that a batch goes to nodes that hold all of it.

use std::sync::Arc;

use scylla::cluster::ClusterState;
use scylla::cluster::metadata::Strategy;
use scylla::frame::response::result::TableSpec;
use scylla::routing::Token;
use scylla::routing::partitioner::{Murmur3Partitioner, Partitioner, PartitionerHasher};

use super::keys::{Cells, Table};

/// The cluster at one moment.
pub(super) struct Replicas<'a> {
    cluster: Arc<ClusterState>,
    keyspace: &'a str,
    /// Every node holds everything, or nothing is known: all partitions have the same replicas.
    alike: bool,
}

impl<'a> Replicas<'a> {
    pub(super) fn of(cluster: Arc<ClusterState>, keyspace: &'a str) -> Self {
        let alike = match cluster.get_keyspace(keyspace).map(|known| &known.strategy) {
            Some(Strategy::SimpleStrategy { replication_factor }) => *replication_factor >= cluster.get_nodes_info().len(),
            Some(Strategy::NetworkTopologyStrategy { datacenter_repfactors }) => datacenter_repfactors.iter().all(|(name, factor)| {
                let nodes = cluster.get_nodes_info().iter().filter(|node| node.datacenter.as_deref() == Some(name.as_str()));
                *factor >= nodes.count()
            }),
            _ => true,
        };
        Self { cluster, keyspace, alike }
    }

    /// A number for the set of nodes that hold a row: equal for equal sets.
    pub(super) fn of_row(&self, table: Table, cells: &Cells) -> u64 {
        if self.alike {
            return 0;
        }
        let Some(keyspace) = self.cluster.get_keyspace(self.keyspace) else { return 0 };
        let spec = TableSpec::borrowed(self.keyspace, table.name());
        let replicas = self.cluster.replica_locator().replicas_for_token(token(table, cells), &keyspace.strategy, None, &spec);
        // The sum does not depend on the order. Host ids are random, so two sets do not meet by chance.
        let mut sum = 0_u64;
        for (node, _) in replicas {
            let (high, low) = node.host_id.as_u64_pair();
            sum = sum.wrapping_add(high ^ low);
        }
        sum
    }
}

/// The place of a partition on the ring, as both servers compute it: a key of several columns is hashed with each column's
/// length before and a zero behind it.
fn token(table: Table, cells: &Cells) -> Token {
    let mut hasher = Murmur3Partitioner.build_hasher();
    let columns = table.partition_columns();
    if columns == 1 {
        hasher.write(cells.get(0));
        return hasher.finish();
    }
    for n in 0..columns {
        let cell = cells.get(n);
        hasher.write(&(cell.len() as u16).to_be_bytes());
        hasher.write(cell);
        hasher.write(&[0]);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::keys::row_of;
    use super::*;
    use crate::ids::{ConversationId, TenantId};
    use crate::state::FeedPosition;
    use crate::store::{Key, Queue};

    #[test]
    fn tokens_are_those_of_the_servers() {
        let tenant = TenantId([5; 16]);
        // As Cassandra 5.0.5 answers `SELECT token(...)`.
        for (key, expected) in [
            (Key::Conversation(tenant, ConversationId([1; 16])), 9_163_048_022_412_152_601),
            (Key::Event(tenant, FeedPosition { shard: 3, order: 2 << 17 }), 1_434_295_070_464_901_675),
            (Key::Progress(7), 1_634_052_884_888_577_606),
            (Key::Later(1, Queue::Timers, 7), 1_105_272_041_802_067_491),
        ] {
            let (table, cells) = row_of(&key);
            assert_eq!(token(table, &cells).value(), expected, "{key:?}");
        }
    }
}
