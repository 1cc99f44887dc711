//! Requests that are not being worked on: their body is still arriving, or they wait for an event. They have bounds of their own and do not
//! count among the requests under way, so that nobody can shut the door for the others by waiting.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use messaging::ids::TenantId;
use messaging::supervise::lock;

/// Requests whose body has begun and is not whole, at most: beyond, those that would have to be waited for are refused.
const ARRIVING_MAX: usize = 20_000;
/// Bytes of such bodies in memory, at most.
const ARRIVING_BYTES_MAX: usize = 256 << 20;
/// Waiting polls of the feed, over all tenants.
const POLLS_MAX: usize = 10_000;
/// Waiting polls of one tenant.
const POLLS_PER_TENANT_MAX: usize = 256;

/// The gateway's counts.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    /// Requests being worked on.
    pub(crate) in_flight: AtomicUsize,
    arriving: AtomicUsize,
    arriving_bytes: AtomicUsize,
    polls: AtomicUsize,
    /// At most one entry for each tenant with a waiting poll.
    polls_by_tenant: Mutex<HashMap<TenantId, usize, RandomState>>,
}

/// Takes one more of a count, unless that is too many.
fn enter(count: &AtomicUsize, more: usize, max: usize) -> bool {
    let enters = |now: usize| now.checked_add(more).filter(|sum| *sum <= max);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enters).is_ok()
}

impl Bounds {
    /// A request's body has to be waited for. None: too many are.
    pub(crate) fn arrive(&self) -> Option<Arriving<'_>> {
        if !enter(&self.arriving, 1, ARRIVING_MAX) {
            return None;
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        Some(Arriving { bounds: self, bytes: 0 })
    }

    /// A poll waits for an event. None: too many of its tenant do, or too many at all.
    pub(crate) fn poll(&self, tenant: TenantId) -> Option<Poll<'_>> {
        if !enter(&self.polls, 1, POLLS_MAX) {
            return None;
        }
        let mut by_tenant = lock(&self.polls_by_tenant);
        let polls = by_tenant.entry(tenant).or_default();
        if *polls >= POLLS_PER_TENANT_MAX {
            drop(by_tenant);
            self.polls.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        *polls += 1;
        drop(by_tenant);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        Some(Poll { bounds: self, tenant })
    }
}

/// A request whose body is arriving, until it is dropped.
pub(crate) struct Arriving<'b> {
    bounds: &'b Bounds,
    bytes: usize,
}

impl Arriving<'_> {
    /// More of the body is in memory. False: there is no room for it.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let fits = enter(&self.bounds.arriving_bytes, bytes, ARRIVING_BYTES_MAX);
        self.bytes += if fits { bytes } else { 0 };
        fits
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.bounds.arriving.fetch_sub(1, Ordering::Relaxed);
        self.bounds.arriving_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bounds.in_flight.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waiting poll, until it is dropped.
pub(crate) struct Poll<'b> {
    bounds: &'b Bounds,
    tenant: TenantId,
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.bounds.polls.fetch_sub(1, Ordering::Relaxed);
        let mut by_tenant = lock(&self.bounds.polls_by_tenant);
        if let Some(polls) = by_tenant.get_mut(&self.tenant) {
            *polls -= 1;
            if *polls == 0 {
                by_tenant.remove(&self.tenant);
            }
        }
        drop(by_tenant);
        self.bounds.in_flight.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_polls_leave_room_for_the_others() {
        let bounds = Bounds::default();
        bounds.in_flight.store(1_000, Ordering::Relaxed);
        let (loud, quiet) = (TenantId([1; 16]), TenantId([2; 16]));
        let mut waiting: Vec<Poll<'_>> = (0..POLLS_PER_TENANT_MAX).map(|_| bounds.poll(loud).expect("up to its own bound")).collect();
        assert!(bounds.poll(loud).is_none());
        waiting.push(bounds.poll(quiet).expect("another tenant's"));
        assert_eq!(bounds.in_flight.load(Ordering::Relaxed), 1_000 - POLLS_PER_TENANT_MAX - 1, "they are not under way");
        drop(waiting);
        assert_eq!((bounds.in_flight.load(Ordering::Relaxed), bounds.polls.load(Ordering::Relaxed)), (1_000, 0));
        assert!(lock(&bounds.polls_by_tenant).is_empty());
    }

    #[test]
    fn bodies_that_arrive_have_a_budget_of_bytes() {
        let bounds = Bounds::default();
        bounds.in_flight.store(10, Ordering::Relaxed);
        let (mut large, mut small) = (bounds.arrive().unwrap(), bounds.arrive().unwrap());
        assert!(large.grow(ARRIVING_BYTES_MAX - 1));
        assert!(small.grow(1) && !small.grow(1));
        assert_eq!(bounds.in_flight.load(Ordering::Relaxed), 8);
        drop(large);
        assert!(small.grow(ARRIVING_BYTES_MAX - 1), "what is whole or gone makes room");
        drop(small);
        assert_eq!((bounds.in_flight.load(Ordering::Relaxed), bounds.arriving_bytes.load(Ordering::Relaxed)), (10, 0));
    }
}
