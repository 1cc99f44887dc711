//! How many sends stand before a new one, by account and class: on the log, deferred, and at the lanes. The process's gateway counts what
//! it accepts, its router what it takes and what leaves. That is all there is only where the process has every shard: what it accepts for
//! another's shard it never takes. Otherwise it knows the log only.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

use crate::clock::Timestamp;
use crate::ids::{AccountId, TenantId};
use crate::record::Class;

/// The sends of one account and class.
#[derive(Debug, Default)]
struct Line {
    /// Accepted by this process since it started.
    accepted: AtomicU64,
    /// Of these, taken off the log by this process's router.
    taken: AtomicU64,
    /// Taken, and not gone yet.
    waiting: AtomicU64,
}

impl Line {
    /// How many there are. What another process accepted and this one took makes the first part smaller, never negative.
    fn sends(&self) -> u64 {
        let on_the_log = self.accepted.load(Ordering::Relaxed).saturating_sub(self.taken.load(Ordering::Relaxed));
        on_the_log + self.waiting.load(Ordering::Relaxed)
    }
}

type Lines = [Line; Class::ALL.len()];

/// The shards that this process works on.
#[derive(Debug)]
struct Standing {
    held: usize,
    /// It has all of them.
    is_whole: bool,
    /// Since when. What was accepted before is not counted.
    since: Timestamp,
}

/// What stands before a send.
#[derive(Debug)]
pub struct Outlook {
    has_router: bool,
    standing: RwLock<Standing>,
    /// At most one entry for each account that sent since the start.
    accounts: RwLock<HashMap<AccountId, Arc<Lines>, RandomState>>,
    /// How many sends wait, by tenant: what was taken off the log and has not gone. At most one entry for each tenant that sent since the
    /// start.
    tenants: RwLock<HashMap<TenantId, Arc<AtomicU64>, RandomState>>,
}

impl Outlook {
    /// Nothing stands anywhere yet. `has_router`: this process takes sends off the log, of all shards until one begins.
    pub fn new(started_at: Timestamp, has_router: bool) -> Self {
        let standing = RwLock::new(Standing { held: 0, is_whole: true, since: started_at });
        Self { has_router, standing, accounts: RwLock::default(), tenants: RwLock::default() }
    }

    /// This process works on one more of so many shards.
    pub fn shard_begins(&self, of: u16, now: Timestamp) {
        let mut standing = self.standing.write().unwrap_or_else(PoisonError::into_inner);
        standing.held += 1;
        let is_whole = standing.held >= usize::from(of);
        if is_whole && !standing.is_whole {
            standing.since = now;
            let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
            for line in accounts.values().flat_map(|lines| lines.iter()) {
                line.accepted.store(0, Ordering::Relaxed);
                line.taken.store(0, Ordering::Relaxed);
            }
        }
        standing.is_whole = is_whole;
    }

    /// It works on one less: what it accepts for that one, another takes.
    pub fn shard_ends(&self) {
        let mut standing = self.standing.write().unwrap_or_else(PoisonError::into_inner);
        standing.held = standing.held.saturating_sub(1);
        standing.is_whole = false;
    }

    fn lines(&self, account: AccountId) -> Arc<Lines> {
        of(&self.accounts, account)
    }

    /// The log has a send.
    pub fn accepted(&self, account: AccountId, class: Class) {
        self.lines(account)[class.index()].accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// The router took a send off the log that was accepted then. One from before the count began was never counted.
    pub fn taken(&self, account: AccountId, class: Class, accepted_at: Timestamp) {
        if accepted_at >= self.standing.read().unwrap_or_else(PoisonError::into_inner).since {
            self.lines(account)[class.index()].taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many sends wait more.
    pub fn joined(&self, tenant: TenantId, account: AccountId, class: Class, sends: u64) {
        self.lines(account)[class.index()].waiting.fetch_add(sends, Ordering::Relaxed);
        of(&self.tenants, tenant).fetch_add(sends, Ordering::Relaxed);
    }

    /// So many sends that waited have gone, or wait for nobody any more.
    pub fn left(&self, tenant: TenantId, account: AccountId, class: Class, sends: u64) {
        let lines = self.lines(account);
        for waiting in [&lines[class.index()].waiting, &*of(&self.tenants, tenant)] {
            let _ = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| Some(waiting.saturating_sub(sends)));
        }
    }

    /// How many sends of a tenant wait at the shards of this process; none: it has no router.
    pub fn waiting_of(&self, tenant: TenantId) -> Option<u64> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        self.has_router.then(|| tenants.get(&tenant).map_or(0, |waiting| waiting.load(Ordering::Relaxed)))
    }

    /// How many sends of an account go before a new one of this class; none: this process does not know.
    pub fn ahead(&self, account: AccountId, class: Class) -> Option<u64> {
        if !self.has_router || !self.standing.read().unwrap_or_else(PoisonError::into_inner).is_whole {
            return None;
        }
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = accounts.get(&account) else { return Some(0) };
        let interactive = lines[Class::Interactive.index()].sends();
        Some(match class {
            Class::Interactive => interactive,
            Class::Bulk => interactive + lines[Class::Bulk.index()].sends(),
        })
    }
}

/// The entry of a key, made when it is not there.
fn of<K: Eq + Hash, V: Default>(map: &RwLock<HashMap<K, Arc<V>, RandomState>>, key: K) -> Arc<V> {
    if let Some(entry) = map.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return entry.clone();
    }
    map.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId([2; 16]);

    #[test]
    fn what_stands_before_a_send_is_counted_from_its_acceptance_to_its_end() {
        let start = Timestamp::from_secs(1000);
        let outlook = Outlook::new(start, true);
        let account = AccountId([1; 16]);
        let ahead = || (outlook.ahead(account, Class::Interactive).unwrap(), outlook.ahead(account, Class::Bulk).unwrap());
        assert_eq!(ahead(), (0, 0));
        for _ in 0..100 {
            outlook.accepted(account, Class::Bulk);
        }
        outlook.accepted(account, Class::Interactive);
        assert_eq!(ahead(), (1, 101), "bulk does not stand before interactive");
        outlook.taken(account, Class::Bulk, start);
        outlook.joined(TENANT, account, Class::Bulk, 1);
        assert_eq!(ahead(), (1, 101), "taken off the log, it waits elsewhere");
        outlook.left(TENANT, account, Class::Bulk, 1);
        assert_eq!(ahead(), (1, 100));
        outlook.joined(TENANT, account, Class::Interactive, 7);
        outlook.taken(account, Class::Interactive, Timestamp::from_secs(999));
        assert_eq!(ahead(), (8, 107), "what was accepted before the start was not counted then");
        outlook.left(TENANT, account, Class::Interactive, 9);
        assert_eq!(ahead().0, 1, "never below nothing");
        assert_eq!(Outlook::new(start, false).ahead(account, Class::Bulk), None);
    }

    /// Two processes with gateway and router share the shards: what one accepts the other takes, and it must not seem to wait for ever.
    #[test]
    fn a_process_that_has_not_all_shards_does_not_know() {
        let account = AccountId([1; 16]);
        let outlook = Outlook::new(Timestamp::from_secs(1), true);
        let accepts = |sends: u64| (0..sends).for_each(|_| outlook.accepted(account, Class::Interactive));
        let ahead = || outlook.ahead(account, Class::Interactive);
        for shard in 0..4 {
            outlook.shard_begins(4, Timestamp::from_secs(2));
            assert_eq!(ahead(), (shard == 3).then_some(0), "with {} of 4 shards", shard + 1);
        }
        accepts(3);
        outlook.taken(account, Class::Interactive, Timestamp::from_secs(2));
        assert_eq!(ahead(), Some(2));
        outlook.shard_ends();
        assert_eq!(ahead(), None);
        accepts(5_000);
        outlook.shard_begins(4, Timestamp::from_secs(3));
        assert_eq!(ahead(), Some(0), "what others took is not counted");
        outlook.taken(account, Class::Interactive, Timestamp::from_secs(2));
        accepts(1);
        assert_eq!(ahead(), Some(1), "nor is what was accepted before");
    }

    #[test]
    fn what_waits_is_counted_by_tenant_too() {
        let outlook = Outlook::new(Timestamp::ZERO, true);
        let (loud, quiet) = (TenantId([1; 16]), TenantId([2; 16]));
        let waiting = || (outlook.waiting_of(loud), outlook.waiting_of(quiet));
        assert_eq!(waiting(), (Some(0), Some(0)));
        for (account, class) in [(1, Class::Bulk), (1, Class::Interactive), (2, Class::Bulk)] {
            outlook.joined(loud, AccountId([account; 16]), class, 100);
        }
        outlook.joined(quiet, AccountId([3; 16]), Class::Bulk, 1);
        assert_eq!(waiting(), (Some(300), Some(1)), "over all its accounts and classes");
        outlook.left(loud, AccountId([2; 16]), Class::Bulk, 99);
        outlook.left(quiet, AccountId([3; 16]), Class::Bulk, 1);
        assert_eq!(waiting(), (Some(201), Some(0)));
        assert_eq!(Outlook::new(Timestamp::ZERO, false).waiting_of(loud), None, "a process without a router does not know");
    }
}
