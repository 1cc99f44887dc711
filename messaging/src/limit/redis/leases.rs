//! The leases of all keys, capped and swept.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::super::local::MAX_KEYS_PER_SCOPE;
use super::super::{Budget, BudgetKey, BudgetScope};
use super::lease::{Lease, Terms, Unit};

/// Locks per scope.
const SHARDS: usize = 16;
/// How long a key that finds no room waits.
const NO_ROOM_WAIT: u64 = Duration::from_millis(100).as_nanos() as u64;
/// A full map is looked through for idle keys at most this often.
const FULL_SWEEP_EVERY: u64 = Duration::from_secs(1).as_nanos() as u64;

/// Leases by key.
pub struct Leases {
    hasher: RandomState,
    nodes: u32,
    keys_per_shard: usize,
    scopes: Vec<[Mutex<Shard>; SHARDS]>,
}

#[derive(Default)]
struct Shard {
    leases: HashMap<[u8; 16], Lease, RandomState>,
    full_swept_at: u64,
}

/// What a key gave.
pub struct Taken {
    /// A unit, or how long to wait in nanoseconds.
    pub unit: Result<Unit, u64>,
    /// Whether Redis is to be asked; it counts as asked.
    pub asks: bool,
}

impl Shard {
    fn sweep(&mut self, now: u64) {
        self.leases.retain(|_, lease| !lease.is_idle(now));
        if self.leases.capacity() > 8 * (self.leases.len() + 64) {
            self.leases.shrink_to(2 * self.leases.len());
        }
    }

    fn has_room(&mut self, most: usize, now: u64) -> bool {
        if self.leases.len() < most {
            return true;
        }
        if self.full_swept_at == 0 || now.saturating_sub(self.full_swept_at) >= FULL_SWEEP_EVERY {
            self.full_swept_at = now.max(1);
            self.sweep(now);
        }
        self.leases.len() < most
    }
}

impl Leases {
    /// For budgets that so many processes share.
    pub fn new(nodes: u32) -> Self {
        Self::with_room(nodes, MAX_KEYS_PER_SCOPE)
    }

    fn with_room(nodes: u32, keys_per_scope: usize) -> Self {
        let scopes = BudgetScope::ALL.iter().map(|_| Default::default()).collect();
        Self { hasher: RandomState::default(), nodes, keys_per_shard: keys_per_scope.div_ceil(SHARDS), scopes }
    }

    fn shard(&self, key: BudgetKey) -> MutexGuard<'_, Shard> {
        let shard = self.hasher.hash_one(key.owner) as usize % SHARDS;
        self.scopes[key.scope.index()][shard].lock().expect("no holder of the lock panics")
    }

    /// Takes a unit of a key.
    pub fn take(&self, key: BudgetKey, budget: &Budget, now: u64, epoch: u32) -> Taken {
        let mut shard = self.shard(key);
        if !shard.leases.contains_key(&key.owner) && !shard.has_room(self.keys_per_shard, now) {
            return Taken { unit: Err(NO_ROOM_WAIT), asks: false };
        }
        let lease = shard.leases.entry(key.owner).or_insert_with(|| Lease::new(Terms::of(budget, self.nodes), now));
        lease.meet(budget);
        let unit = lease.take(now);
        Taken { unit, asks: lease.begin_ask(now, epoch) }
    }

    /// Gives a unit back that was just taken, and whose ask was not sent.
    pub fn give_back(&self, key: BudgetKey, unit: Unit, asks: bool) {
        self.known(key, |lease| lease.give_back(unit, asks));
    }

    /// Counts a unit that was admitted on the local share. A key that finds no room is not counted: accuracy only.
    pub fn owe(&self, key: BudgetKey, budget: &Budget, now: u64) {
        let mut shard = self.shard(key);
        if shard.leases.contains_key(&key.owner) || shard.has_room(self.keys_per_shard, now) {
            shard.leases.entry(key.owner).or_insert_with(|| Lease::new(Terms::of(budget, self.nodes), now)).owe(now);
        }
    }

    /// Does something with the lease of a key, if there is one.
    pub fn known<R>(&self, key: BudgetKey, act: impl FnOnce(&mut Lease) -> R) -> Option<R> {
        self.shard(key).leases.get_mut(&key.owner).map(act)
    }

    /// Forgets idle keys.
    pub fn sweep(&self, now: u64) {
        for shard in self.scopes.iter().flatten() {
            shard.lock().expect("no holder of the lock panics").sweep(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(owner: u32) -> BudgetKey {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&owner.to_le_bytes());
        BudgetKey { scope: BudgetScope::Account, owner: bytes }
    }

    #[test]
    fn a_key_is_small() {
        assert!(size_of::<Lease>() <= 256, "{} bytes a key", size_of::<Lease>());
        println!("{} bytes a key", size_of::<Lease>());
    }

    fn count(leases: &Leases) -> usize {
        leases.scopes.iter().flatten().map(|shard| shard.lock().unwrap().leases.len()).sum()
    }

    #[test]
    fn a_full_map_admits_nothing_unmetered_and_recovers() {
        let leases = Leases::with_room(1, SHARDS);
        let budget = Budget { scope: BudgetScope::Account, rate_per_second: 10.0, burst: 10 };
        let admitted =
            |now, owners: std::ops::Range<u32>| owners.filter(|owner| leases.take(key(*owner), &budget, now, 1).unit.is_ok()).count();
        assert_eq!(admitted(1, 0..1_000), SHARDS, "one unit stands by for each key that found room");
        assert_eq!(count(&leases), SHARDS);
        let later = Duration::from_secs(60).as_nanos() as u64;
        assert_eq!(admitted(later, 1_000..2_000), SHARDS, "idle keys made room");
        leases.sweep(2 * later);
        assert_eq!(count(&leases), 0);
    }
}
