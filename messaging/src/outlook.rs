//! How many sends stand before a new one, by account and class: on the log, deferred, and at the lanes. The process's gateway counts what
//! it accepts, its router what it takes and what leaves. A gateway without a router in its process knows the log only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

use crate::clock::Timestamp;
use crate::ids::AccountId;
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

/// What stands before a send.
#[derive(Debug)]
pub struct Outlook {
    started_at: Timestamp,
    has_router: bool,
    /// At most one entry for each account that sent since the start.
    accounts: RwLock<HashMap<AccountId, Arc<Lines>, RandomState>>,
}

impl Outlook {
    /// Nothing stands anywhere yet. `has_router`: this process takes sends off the log.
    pub fn new(started_at: Timestamp, has_router: bool) -> Self {
        Self { started_at, has_router, accounts: RwLock::default() }
    }

    fn lines(&self, account: AccountId) -> Arc<Lines> {
        if let Some(lines) = self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(&account) {
            return lines.clone();
        }
        self.accounts.write().unwrap_or_else(PoisonError::into_inner).entry(account).or_default().clone()
    }

    /// The log has a send.
    pub fn accepted(&self, account: AccountId, class: Class) {
        self.lines(account)[class.index()].accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// The router took a send off the log that was accepted then. One from before the start was never counted.
    pub fn taken(&self, account: AccountId, class: Class, accepted_at: Timestamp) {
        if accepted_at >= self.started_at {
            self.lines(account)[class.index()].taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many sends wait more.
    pub fn joined(&self, account: AccountId, class: Class, sends: u64) {
        self.lines(account)[class.index()].waiting.fetch_add(sends, Ordering::Relaxed);
    }

    /// So many sends that waited have gone, or wait for nobody any more.
    pub fn left(&self, account: AccountId, class: Class, sends: u64) {
        let lines = self.lines(account);
        let waiting = &lines[class.index()].waiting;
        let _ = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| Some(waiting.saturating_sub(sends)));
    }

    /// How many sends of an account go before a new one of this class; none: this process does not know.
    pub fn ahead(&self, account: AccountId, class: Class) -> Option<u64> {
        if !self.has_router {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        outlook.joined(account, Class::Bulk, 1);
        assert_eq!(ahead(), (1, 101), "taken off the log, it waits elsewhere");
        outlook.left(account, Class::Bulk, 1);
        assert_eq!(ahead(), (1, 100));
        outlook.joined(account, Class::Interactive, 7);
        outlook.taken(account, Class::Interactive, Timestamp::from_secs(999));
        assert_eq!(ahead(), (8, 107), "what was accepted before the start was not counted then");
        outlook.left(account, Class::Interactive, 9);
        assert_eq!(ahead().0, 1, "never below nothing");
        assert_eq!(Outlook::new(start, false).ahead(account, Class::Bulk), None);
    }
}
