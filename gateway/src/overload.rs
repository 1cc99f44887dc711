//! Shedding by delay: when requests wait too long for their turn on a serving thread, some are refused at once, so that those
//! which are accepted are still answered soon.
//!
//! The measure is how late a timer's task runs: a request that becomes ready waits as long for each of its turns. A delay that stays above
//! [`DELAY_MAX`] for a whole interval means that more is offered than is served. Then the thread takes in less than it served, so much less
//! that what waits is worked off soon, and more again step by step once the delay is gone.
//!
//! What is taken in is shared by tenants: each may have as much as every other, and what one does not use goes to the others. So whoever
//! offers little is never refused because another offers much.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::ids::TenantId;
use messaging::metrics::{self, Listener};
use messaging::tenant::Tenant;
use tokio::time::{Instant, sleep_until};

/// Longest delay of a turn that is no overload. A webhook has about four turns, so it is answered in four times as long.
const DELAY_MAX: Duration = Duration::from_millis(40);
/// Between looks at the delay.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Looks in an interval. The least delay among them counts: a burst that is worked off within the interval is no overload.
const LOOKS: u32 = 4;
/// In what time a delay above [`DELAY_MAX`] is to be worked off.
const WORKED_OFF_IN: Duration = Duration::from_millis(500);
/// What is taken in of what was served, at least, while that lasts.
const LESS_MIN: f64 = 0.3;
/// How much more is taken in after an interval without overload.
const MORE: f64 = 1.05;
/// At least so much is taken in, a second, however long the delay.
const RATE_MIN: f64 = 50.0;
/// Nothing is refused any more once this much more could be taken in than is offered.
const ROOM: f64 = 2.0;
/// Tenants that are told apart in an interval. Those beyond share one share.
const SHARERS_MAX: usize = 4_096;

/// Who has a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sharer {
    Tenant(TenantId),
    /// Operators, and requests that name no account of ours.
    Nobody,
    /// Those beyond [`SHARERS_MAX`].
    Rest,
}

impl Sharer {
    pub(crate) fn of(tenant: Option<Tenant>) -> Self {
        tenant.map_or(Self::Nobody, |tenant| Self::Tenant(tenant.id()))
    }
}

/// One serving thread's intake.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Requests a second that are taken in; none: all.
    rate: Option<f64>,
    /// Requests a second that each sharer may have.
    share: f64,
    since: Instant,
    offered: HashMap<Sharer, u32, RandomState>,
    /// Requests that were taken in and answered.
    served: u32,
    least: Duration,
    looks: u32,
}

impl Intake {
    pub(crate) fn new(now: Instant) -> Self {
        Self { rate: None, share: f64::INFINITY, since: now, offered: HashMap::default(), served: 0, least: Duration::MAX, looks: 0 }
    }

    /// Whether a request is taken in. One that `must` be is counted as the others are.
    pub(crate) fn takes(&mut self, sharer: Sharer, must: bool, now: Instant) -> bool {
        let is_known = self.offered.len() < SHARERS_MAX || self.offered.contains_key(&sharer);
        let offered = self.offered.entry(if is_known { sharer } else { Sharer::Rest }).or_default();
        *offered += 1;
        let offered = f64::from(*offered);
        must || offered <= (self.share * self.elapsed(now)).max(1.0)
    }

    /// Seconds of the interval. One that lasts longer than it should has as much more room.
    fn elapsed(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.since).max(LOOK_EVERY * LOOKS).as_secs_f64()
    }

    /// A whole interval with the same delay.
    #[cfg(test)]
    pub(crate) fn interval(&mut self, delay: Duration, now: Instant) {
        for _ in 0..LOOKS {
            self.look(delay, now);
        }
    }

    /// Notes how late a task ran.
    pub(crate) fn look(&mut self, delay: Duration, now: Instant) {
        self.least = self.least.min(delay);
        self.looks += 1;
        if self.looks < LOOKS {
            return;
        }
        let seconds = self.elapsed(now);
        let offered = self.offered.values().map(|count| f64::from(*count)).sum::<f64>() / seconds;
        let served = f64::from(self.served) / seconds;
        let too_long = self.least.saturating_sub(DELAY_MAX).as_secs_f64();
        self.rate = match self.rate {
            _ if too_long > 0.0 => Some((served * (1.0 - too_long / WORKED_OFF_IN.as_secs_f64()).max(LESS_MIN)).max(RATE_MIN)),
            Some(rate) => Some(rate.max(served) * MORE).filter(|more| *more < offered * ROOM),
            None => None,
        };
        self.share = self.rate.map_or(f64::INFINITY, |rate| share(rate, self.offered.values().map(|count| f64::from(*count) / seconds)));
        self.offered.clear();
        (self.since, self.served, self.least, self.looks) = (now, 0, Duration::MAX, 0);
    }
}

/// A request that was taken in, until it is answered.
#[derive(Debug)]
pub(crate) struct Taken(Rc<RefCell<Intake>>);

impl Taken {
    pub(crate) fn in_by(intake: &Rc<RefCell<Intake>>) -> Self {
        Self(intake.clone())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.borrow_mut().served += 1;
    }
}

/// The largest share with which all together take no more than `rate`: those who offer less have what they offer.
fn share(rate: f64, offered: impl Iterator<Item = f64>) -> f64 {
    let mut offered: Vec<f64> = offered.collect();
    offered.sort_by(f64::total_cmp);
    let mut left = rate;
    for (done, one) in offered.iter().enumerate() {
        let even = left / (offered.len() - done) as f64;
        if *one > even {
            return even;
        }
        left -= one;
    }
    f64::INFINITY
}

/// Watches the delay of this thread. Never returns.
pub(crate) async fn watch(intake: Rc<RefCell<Intake>>, listener: Listener) {
    let mut due = Instant::now();
    loop {
        due = due.max(Instant::now()) + LOOK_EVERY;
        sleep_until(due).await;
        let now = Instant::now();
        let delay = now.saturating_duration_since(due);
        metrics::HTTP_TURN_DELAY_SECONDS.at([listener.index()]).record(delay.as_secs_f64());
        intake.borrow_mut().look(delay, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    /// A thread that serves so many requests a second: what it takes in beyond waits.
    struct Thread {
        intake: Intake,
        now: Instant,
        serves: f64,
        waiting: f64,
    }

    impl Thread {
        fn new(serves: f64) -> Self {
            let now = Instant::now();
            Self { intake: Intake::new(now), now, serves, waiting: 0.0 }
        }

        /// One interval in which tenants offer so many requests each, in turns. What was taken of each.
        fn interval(&mut self, offers: &[u32]) -> Vec<u32> {
            let mut taken = vec![0; offers.len()];
            for turn in 0..offers.iter().copied().max().unwrap_or_default() {
                for (tenant, offer) in offers.iter().enumerate() {
                    if turn < *offer {
                        let sharer = Sharer::Tenant(TenantId((tenant as u128 + 1).to_be_bytes()));
                        taken[tenant] += u32::from(self.intake.takes(sharer, false, self.now));
                    }
                }
            }
            let waiting = self.waiting + f64::from(taken.iter().sum::<u32>());
            let served = waiting.min(self.serves * INTERVAL.as_secs_f64());
            self.waiting = waiting - served;
            self.intake.served = served as u32;
            self.now += INTERVAL;
            let delay = Duration::from_secs_f64(self.waiting / self.serves);
            self.intake.interval(delay, self.now);
            taken
        }
    }

    #[test]
    fn what_is_taken_in_stays_near_what_is_served_whatever_is_offered() {
        for (times, least) in [(0.5, 1.0), (0.95, 1.0), (2.0, 0.8), (3.0, 0.8), (10.0, 0.8)] {
            let mut thread = Thread::new(5_000.0);
            let offer = (500.0 * times) as u32;
            let (mut taken, mut longest) = (0, 0.0_f64);
            for interval in 0..600 {
                let now = thread.interval(&[offer])[0];
                if interval >= 20 {
                    taken += now;
                    longest = longest.max(thread.waiting / thread.serves);
                }
            }
            let share = f64::from(taken) / 580.0 / 500.0_f64.min(f64::from(offer));
            assert!(share >= least && share <= 1.001, "{times} times what is served: {share} of it is taken in");
            assert!(longest <= 0.15, "{times} times: what is taken in waits {longest} s");
        }
    }

    #[test]
    fn who_offers_little_is_not_refused_because_another_offers_much() {
        let mut thread = Thread::new(5_000.0);
        let mut refused = [0; 4];
        for _ in 0..100 {
            let offers = [5_000, 20, 1, 20];
            for (tenant, taken) in thread.interval(&offers).into_iter().enumerate() {
                refused[tenant] += offers[tenant] - taken;
            }
        }
        assert!(refused[0] > 300_000, "{refused:?}");
        assert_eq!(refused[1..], [0, 0, 0]);
    }

    #[test]
    fn a_burst_is_no_overload_and_the_end_of_one_ends_the_refusals() {
        let mut thread = Thread::new(5_000.0);
        let offers: Vec<u32> = [vec![400; 10], vec![900], vec![100; 10]].concat();
        assert!(offers.iter().all(|offer| thread.interval(&[*offer])[0] == *offer), "one burst");
        for _ in 0..50 {
            thread.interval(&[2_000]);
        }
        assert!(thread.intake.rate.is_some());
        let after: Vec<u32> = (0..20).map(|_| thread.interval(&[300])[0]).collect();
        assert!(after[5..].iter().all(|taken| *taken == 300), "{after:?}");
        assert!(thread.intake.rate.is_none(), "nothing is watched any more");
    }

    #[test]
    fn what_must_be_taken_is_and_tenants_without_number_are_bounded() {
        let mut thread = Thread::new(500.0);
        for _ in 0..20 {
            thread.interval(&[5_000]);
        }
        let of = |number: u128| Sharer::Tenant(TenantId(number.to_be_bytes()));
        for number in 0..100_000 {
            thread.intake.takes(of(number), false, thread.now);
        }
        assert!(thread.intake.offered.len() <= SHARERS_MAX + 1);
        assert!(!thread.intake.takes(of(1 << 40), false, thread.now));
        assert!(thread.intake.takes(of(1 << 40), true, thread.now));
    }
}
