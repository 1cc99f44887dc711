//! The node's own rows: the directory and the leases.
//!
//! Both change by compare-and-set. The writer alone changes them, so it compares with its own copy in memory ([`Node`]) and
//! writes the outcome with the group at hand. When such a group fails, the copy is ahead of the disk; that is never seen,
//! for after a failed write or sync the writer takes nothing more.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use fjall::UserKey;

use super::journal::Row;
use super::keys::{KeyBytes, ScanRange, Table};
use super::memory::Memory;
use super::reader::{self, Stored};
use super::tables::{FORMAT_KEY, Tables};
use crate::clock::Timestamp;
use crate::ids::{AccountId, ID_BYTES};
use crate::store::{DirectoryRows, Lease, LeaseAnswer, LeaseOn, StoreError, Work};

// The first byte of a key of the node's table; the format's mark begins with another.
const VERSION_KEY: &[u8] = b"V";
const ROW: u8 = b'D';
/// Leases on shards.
const LEASE: u8 = b'L';
/// Leases on accounts' work.
const WORK_LEASE: u8 = b'W';

/// The longest name of a directory row; ids' texts are far shorter.
const NAME_MAX_BYTES: usize = 1024;
const OWNER_BYTES: usize = 16;

/// The directory and its version.
pub(super) type DirectoryAnswer = Result<(u64, DirectoryRows), StoreError>;

/// The writer's copy of what changes by compare-and-set.
pub(super) struct Node {
    version: u64,
    /// One per shard and per account's work that was ever held: epochs count from them.
    leases: BTreeMap<LeaseOn, Lease>,
}

impl Node {
    pub(super) fn load(tables: &Tables, memory: &Memory) -> Result<Self, StoreError> {
        let mut leases = BTreeMap::new();
        let (version, rows) = read(tables, memory)?;
        for (key, value) in rows {
            if !matches!(key.first(), Some(&(LEASE | WORK_LEASE))) {
                continue;
            }
            let lease = decode_lease(&key, &value).ok_or_else(|| StoreError::Damaged("a lease does not read".to_owned()))?;
            // The folder's lock says that nobody else lives: leases of the process before have ended with it, their epochs count on.
            leases.insert(lease.on, Lease { until: Timestamp::ZERO, owner: [0; OWNER_BYTES], ..lease });
        }
        Ok(Self { version, leases })
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Takes or renews a lease. `false` beside the answer: nothing was written.
    pub(super) fn take_lease(
        &mut self,
        rows: &mut Vec<Row>,
        (on, owner, ttl): (LeaseOn, [u8; OWNER_BYTES], Duration),
        now: Timestamp,
    ) -> (LeaseAnswer, bool) {
        let epoch = match self.leases.get(&on) {
            None => 1,
            // Also after its end: the row says that nobody had it in between.
            Some(held) if held.owner == owner => held.epoch,
            Some(held) if held.until <= now => held.epoch + 1,
            Some(held) => return (LeaseAnswer::HeldByOther(*held), false),
        };
        let lease = Lease { on, epoch, owner, until: now.plus(ttl) };
        self.put_lease(rows, lease);
        (LeaseAnswer::Held(lease), true)
    }

    /// Frees a lease, if it is still this one. The row stays: the next owner's epoch counts from it. Whether it was freed.
    pub(super) fn release_lease(&mut self, rows: &mut Vec<Row>, lease: &Lease) -> bool {
        let Some(held) = self.leases.get(&lease.on) else { return false };
        if held.owner != lease.owner || held.epoch != lease.epoch {
            return false;
        }
        let free = Lease { until: Timestamp::ZERO, owner: [0; OWNER_BYTES], ..*held };
        self.put_lease(rows, free);
        true
    }

    fn put_lease(&mut self, rows: &mut Vec<Row>, lease: Lease) {
        let (key, value) = encode_lease(&lease);
        rows.push((Table::Node, UserKey::from(key), Some(value.to_vec())));
        self.leases.insert(lease.on, lease);
    }

    /// Changes directory rows if the version is `expected`; gives the new version.
    pub(super) fn change_directory(
        &mut self,
        rows: &mut Vec<Row>,
        expected: u64,
        changes: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<u64, StoreError> {
        if self.version != expected {
            return Err(StoreError::Conflict);
        }
        if changes.iter().any(|(name, _)| name.len() > NAME_MAX_BYTES) {
            return Err(StoreError::Damaged(format!("a directory row's name has more than {NAME_MAX_BYTES} bytes")));
        }
        self.version += 1;
        rows.push((Table::Node, UserKey::from(VERSION_KEY), Some(self.version.to_be_bytes().to_vec())));
        for (name, value) in changes {
            rows.push((Table::Node, UserKey::from([&[ROW], name.as_bytes()].concat()), value));
        }
        Ok(self.version)
    }
}

/// All rows of the node's table but the format's mark, and the directory's version: of one moment.
fn read(tables: &Tables, memory: &Memory) -> Result<(u64, Vec<Stored>), StoreError> {
    let (from, to) = (Bound::Included(KeyBytes::of(&[&[ROW]])), Bound::Excluded(KeyBytes::of(&[FORMAT_KEY])));
    let range = ScanRange { table: Table::Node, from, to, newest_first: false };
    let rows = reader::range(tables, memory, &range, usize::MAX)?;
    let version = match rows.iter().find(|(key, _)| **key == *VERSION_KEY) {
        Some((_, bytes)) => u64::from_be_bytes(
            bytes.as_slice().try_into().map_err(|_| StoreError::Damaged("the directory's version does not read".to_owned()))?,
        ),
        None => 0,
    };
    Ok((version, rows))
}

/// The whole directory: version and rows of the same moment.
pub(super) fn read_directory(tables: &Tables, memory: &Memory) -> DirectoryAnswer {
    let (version, rows) = read(tables, memory)?;
    let mut found = Vec::new();
    for (key, value) in rows {
        let Some(name) = key.strip_prefix(&[ROW]) else { continue };
        let name = String::from_utf8(name.to_vec()).map_err(|_| StoreError::Damaged("a directory row's name is not text".to_owned()))?;
        found.push((name, value));
    }
    Ok((version, found))
}

fn encode_lease(lease: &Lease) -> (Vec<u8>, [u8; OWNER_BYTES + 16]) {
    let key = match lease.on {
        LeaseOn::Shard(shard) => [&[LEASE], &shard.to_be_bytes()[..]].concat(),
        LeaseOn::Account(account, work) => [&[WORK_LEASE], &account.0[..], &[work.code()]].concat(),
    };
    let mut value = [0; OWNER_BYTES + 16];
    value[..OWNER_BYTES].copy_from_slice(&lease.owner);
    value[OWNER_BYTES..OWNER_BYTES + 8].copy_from_slice(&lease.epoch.to_be_bytes());
    value[OWNER_BYTES + 8..].copy_from_slice(&lease.until.0.to_be_bytes());
    (key, value)
}

fn decode_lease(key: &[u8], value: &[u8]) -> Option<Lease> {
    let on = match key {
        [LEASE, shard @ ..] => LeaseOn::Shard(u16::from_be_bytes(shard.try_into().ok()?)),
        [WORK_LEASE, rest @ ..] => {
            let (account, work) = rest.split_first_chunk::<ID_BYTES>()?;
            let &[work] = work else { return None };
            LeaseOn::Account(AccountId(*account), Work::of_code(work)?)
        }
        _ => return None,
    };
    let (owner, rest) = value.split_first_chunk::<OWNER_BYTES>()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let until = rest.try_into().ok()?;
    Some(Lease { on, epoch: u64::from_be_bytes(*epoch), owner: *owner, until: Timestamp(u64::from_be_bytes(until)) })
}
