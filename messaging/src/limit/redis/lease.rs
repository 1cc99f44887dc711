//! What a process holds of one budget: units leased from Redis, a few that stand by, and what it has to report. Pure: time comes in.
//!
//! * **Leased units** are used up or gone within [`LEASE_LIFE`]. Those that come free later within [`HORIZON`] are leased ahead, each
//!   with the moment from which it may be used, so that a busy key never waits for the network.
//! * **Standby units** are a small part of the burst that each of `nodes_hint` processes keeps for itself, so that a key that was not
//!   used for a while goes at once. Used ones are paid for with the next lease call. Budgets too small to be parted have none.

use std::time::Duration;

use super::super::Budget;
use super::script::{Answer, Report};

/// How long leased units may be used. Redis keeps their place [`PLACE_LIFE`]: longer, by what a call may take.
pub const LEASE_LIFE: Duration = Duration::from_millis(900);
/// How long Redis holds units for a process that does not report.
pub const PLACE_LIFE: Duration = Duration::from_secs(1);
/// How far ahead units are leased.
pub const HORIZON: Duration = Duration::from_millis(200);
/// Time whose units make a full block.
const BLOCK_SECONDS: f64 = 0.15;
/// Most units of a block.
const BLOCK_MAX: f64 = 4096.0;
/// A block is at least this part of the burst, so that a burst does not take hundreds of calls.
const BLOCKS_PER_BURST: u32 = 16;
/// Calls closer than this make blocks grow, others make them shrink.
const BUSY_WITHIN: u64 = Duration::from_millis(250).as_nanos() as u64;
/// Time whose units stand by, at most.
const STANDBY_SECONDS: f64 = 0.02;
/// The slowest rate that is told apart from none: one in 30 days. As in the local limiter.
const PERIOD_NS_MAX: f64 = 30.0 * 24.0 * 3600.0 * 1e9;
/// What a caller is told to wait while Redis is asked, unless a unit takes less.
const COLD_WAIT: u64 = Duration::from_millis(5).as_nanos() as u64;
/// After a call that failed, before the next.
const FAILED_PAUSE: u64 = Duration::from_millis(10).as_nanos() as u64;
/// Who was refused is expected back this long after the wait that was told.
const PATIENCE: u64 = Duration::from_millis(500).as_nanos() as u64;
/// No wait is shorter: the clock counts microseconds.
const WAIT_MIN: u64 = 1_000;
/// Rounding in the moment from which a unit may be used: half of what the clock counts.
const READY_NEAR: u64 = 500;
/// A key that has been idle for this long, and whose bucket is full again, is forgotten.
const IDLE: u64 = Duration::from_secs(10).as_nanos() as u64;

/// A budget in the terms of leases.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    budget: (f64, u32),
    nodes: u32,
    /// Nanoseconds per unit.
    pub period: f64,
    /// Units of the burst that go through Redis.
    pub capacity: u32,
    /// Units that each process keeps for itself.
    pub standby: u32,
    /// Most units of a block.
    pub block: u32,
    /// Most units that may be out, when some of them are ahead of their time.
    pub ahead_all: u32,
    /// The same for one process.
    pub ahead_one: u32,
}

impl Terms {
    /// The terms of a budget that `nodes` processes share.
    pub fn of(budget: &Budget, nodes: u32) -> Self {
        let rate = budget.rate_per_second;
        let period = 1e9 / rate;
        let period = if period > 0.0 && period <= PERIOD_NS_MAX { period.max(1.0) } else { PERIOD_NS_MAX };
        // Faster than the clock counts, `period` came out as zero; a rate that is no positive number is the slowest.
        let period = if rate > 1e9 { 1.0 } else { period };
        let (rate, burst, nodes) = (1e9 / period, budget.burst.max(1), nodes.max(1));
        let standby = (burst / nodes / 4).min((rate * STANDBY_SECONDS).min(BLOCK_MAX) as u32 + 1);
        let capacity = burst - standby * nodes;
        let block = (rate * BLOCK_SECONDS).ceil().clamp(1.0, BLOCK_MAX) as u32;
        let block = block.max((burst / BLOCKS_PER_BURST).min(BLOCK_MAX as u32)).min((capacity / 2).max(1));
        let ahead_all = capacity / 2;
        Self {
            budget: (budget.rate_per_second, budget.burst),
            nodes,
            period,
            capacity,
            standby,
            block,
            ahead_all,
            ahead_one: ahead_all / nodes.max(2),
        }
    }

    fn are_of(&self, budget: &Budget) -> bool {
        self.budget.0.to_bits() == budget.rate_per_second.to_bits() && self.budget.1 == budget.burst
    }

    fn period_ns(&self) -> u64 {
        self.period as u64
    }
}

/// A block of units, as granted.
#[derive(Clone, Copy, Default, Debug)]
struct Grant {
    left: u32,
    /// When the next of them may be used.
    ready: f64,
    until: u64,
}

/// Where a unit came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// From a block.
    Leased,
    /// From those that stand by.
    Standby,
}

/// One key. Times are nanoseconds of the clock's monotonic time.
#[derive(Debug)]
pub struct Lease {
    terms: Terms,
    /// Used in this order.
    grants: [Grant; 2],
    standby: u32,
    /// Not reported yet: used, given back unused, admitted while Redis was away.
    spent: u32,
    back: u32,
    /// Told or paid for as used, and given back after that.
    unspent: u32,
    debt: f64,
    debt_at: u64,
    last_used: u64,
    /// Units of the next block.
    size: u32,
    asked_at: Option<u64>,
    /// The epoch of the connection that is asked; zero: nothing is asked.
    asking: u32,
    /// Somebody was refused, and is thought to come again until then.
    demand_until: u64,
    /// Asking makes no sense before.
    ask_from: u64,
    /// When Redis said that the next unit comes free.
    next_free: u64,
    /// What Redis said of the bucket, and when.
    level: Option<(f64, u64)>,
    seen: u64,
}

impl Lease {
    /// A key that was not used before.
    pub fn new(terms: Terms, now: u64) -> Self {
        Self {
            terms,
            grants: [Grant::default(); 2],
            standby: terms.standby,
            spent: 0,
            back: 0,
            unspent: 0,
            debt: 0.0,
            debt_at: now,
            last_used: now,
            size: 0,
            asked_at: None,
            asking: 0,
            demand_until: 0,
            ask_from: 0,
            next_free: 0,
            level: None,
            seen: now,
        }
    }

    /// Takes on a changed budget. Units in hand stay, those that stand by within the new share.
    pub fn meet(&mut self, budget: &Budget) {
        if !self.terms.are_of(budget) {
            self.terms = Terms::of(budget, self.terms.nodes);
            self.standby = self.standby.min(self.terms.standby);
            self.ask_from = 0;
        }
    }

    /// The terms now.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Takes a unit, or says how long to wait.
    pub fn take(&mut self, now: u64) -> Result<Unit, u64> {
        self.expire(now);
        self.seen = now;
        let period = self.terms.period;
        let grant = &mut self.grants[0];
        if grant.left > 0 && grant.ready <= (now + READY_NEAR) as f64 {
            grant.left -= 1;
            grant.ready += period;
            self.spent += 1;
            self.last_used = now;
            self.demand_until = 0;
            return Ok(Unit::Leased);
        }
        if self.standby > 0 {
            self.standby -= 1;
            self.demand_until = 0;
            return Ok(Unit::Standby);
        }
        let wait = self.wait(now);
        self.demand_until = now.saturating_add(wait).saturating_add(PATIENCE);
        Err(wait)
    }

    fn wait(&self, now: u64) -> u64 {
        let grant = self.grants[0];
        let wait = if grant.left > 0 {
            (grant.ready.ceil() as u64).saturating_sub(now)
        } else if self.next_free > now {
            self.next_free - now
        } else {
            COLD_WAIT.min(self.terms.period_ns().max(COLD_WAIT / 5))
        };
        wait.max(WAIT_MIN)
    }

    /// Gives back what was just taken: another budget of the same call refused. An ask that came of taking it is not needed.
    pub fn give_back(&mut self, unit: Unit, asks: bool) {
        if asks {
            self.asking = 0;
        }
        match unit {
            // Reported as used in the meantime.
            Unit::Leased if self.spent == 0 => self.unspent += 1,
            Unit::Leased => {
                self.spent -= 1;
                self.grants[0].left += 1;
                self.grants[0].ready -= self.terms.period;
            }
            // Paid for in the meantime.
            Unit::Standby if self.standby >= self.terms.standby => self.unspent += 1,
            Unit::Standby => self.standby += 1,
        }
    }

    /// Counts what was admitted on the local share while Redis was away: Redis is told when it is back.
    pub fn owe(&mut self, now: u64) {
        self.seen = now;
        let share = f64::from(self.terms.nodes) * self.terms.period;
        let paid = now.saturating_sub(self.debt_at) as f64 / share;
        self.debt = (self.debt - paid).max(0.0) + 1.0;
        self.debt_at = now;
    }

    fn has_demand(&self, now: u64) -> bool {
        self.demand_until > now
    }

    /// Nothing can be had yet: a call only tells what was used. What Redis does not know yet to be unused can be had.
    fn only_tells(&self, now: u64) -> bool {
        now < self.ask_from && self.unspent + self.back == 0
    }

    fn has_room(&self) -> bool {
        self.grants.iter().any(|grant| grant.left == 0)
    }

    fn left(&self) -> u32 {
        self.grants[0].left + self.grants[1].left
    }

    fn expire(&mut self, now: u64) {
        for place in 0..self.grants.len() {
            if self.grants[place].left > 0 && self.grants[place].until <= now {
                self.back += self.grants[place].left;
                self.grants[place].left = 0;
            }
        }
        self.line_up();
    }

    fn line_up(&mut self) {
        if self.grants[0].left == 0 {
            self.grants.swap(0, 1);
        }
    }

    /// Whether Redis is to be asked now; then it counts as asked.
    pub fn begin_ask(&mut self, now: u64, epoch: u32) -> bool {
        let is_low = self.has_room() && self.left() * 2 <= self.size || self.left() == 0 && self.has_demand(now);
        // Standby units are paid for with what is free, and never ahead.
        let owes = self.standby < self.terms.standby && now >= self.next_free;
        if self.asking == epoch || self.only_tells(now) || !(is_low || owes) {
            return false;
        }
        self.asking = epoch;
        true
    }

    /// A timer of this key has rung: asks when somebody waits, when units are left that nobody will use, or when used ones would lose
    /// their place before anything can be asked for: Redis would count them as used at the end of it, and a bucket of one unit would
    /// fill up to a second late each time.
    pub fn begin_ask_late(&mut self, now: u64, epoch: u32) -> bool {
        self.expire(now);
        let is_left = self.back > 0 && !self.has_demand(now);
        let is_untold = self.spent > 0 && self.only_tells(now);
        if self.asking != epoch && (is_left || is_untold) {
            self.asking = epoch;
            return true;
        }
        self.has_demand(now) && self.begin_ask(now, epoch)
    }

    /// What to tell Redis. `None`: it was asked on a connection that is gone.
    pub fn report(&mut self, now: u64, epoch: u32) -> Option<Report> {
        if self.asking != epoch {
            return None;
        }
        self.expire(now);
        let has_demand = self.has_demand(now);
        let is_busy = self.asked_at.is_some_and(|at| now.saturating_sub(at) <= BUSY_WITHIN);
        let only_tells = self.only_tells(now) || self.back > 0 && !has_demand && self.asked_at.is_some() && !is_busy;
        if !only_tells {
            self.size = if is_busy { (self.size * 2).max(1) } else { self.size / 2 };
            if has_demand {
                self.size = self.size.max(1);
            }
            self.size = self.size.min(self.terms.block);
            self.asked_at = Some(now);
        }
        let level = self.level.map(|(level, at)| level + now.saturating_sub(at) as f64 / self.terms.period);
        let share = f64::from(self.terms.nodes) * self.terms.period;
        let paid = now.saturating_sub(self.debt_at) as f64 / share;
        Some(Report {
            want: if only_tells || !self.has_room() || self.left() * 2 > self.size { 0 } else { self.size },
            spent: std::mem::take(&mut self.spent),
            age_ns: now.saturating_sub(self.last_used),
            back: std::mem::take(&mut self.back),
            unspent: std::mem::take(&mut self.unspent),
            refill: self.terms.standby.saturating_sub(self.standby),
            debt: std::mem::take(&mut self.debt) - paid,
            level,
        })
    }

    /// Takes the answer in. `sent` is when the question was built, `from` the moment that its times count from.
    pub fn learn(&mut self, answer: &Answer, sent: u64, from: u64) {
        self.asking = 0;
        // What was given back meanwhile need not be paid for.
        let standby = self.standby + answer.refilled;
        self.standby = standby.min(self.terms.standby);
        self.unspent += standby - self.standby;
        self.ask_from = from.saturating_add(answer.ask_ns);
        self.next_free = from.saturating_add(answer.wait_ns);
        self.level = Some((answer.level, from));
        if answer.granted == 0 {
            return;
        }
        let grant = Grant {
            left: answer.granted,
            ready: from as f64 + answer.ready_ns as f64,
            until: sent.saturating_add(LEASE_LIFE.as_nanos() as u64),
        };
        self.line_up();
        let place = usize::from(self.grants[0].left > 0);
        self.back += self.grants[place].left;
        self.grants[place] = grant;
    }

    /// The call brought no answer: whether the report arrived is not known, and Redis forgets by itself what is out.
    pub fn failed(&mut self, now: u64) {
        self.asking = 0;
        self.ask_from = now.saturating_add(FAILED_PAUSE);
        self.next_free = 0;
    }

    /// When to ring: somebody waits for the next call to make sense, or units run out of time.
    pub fn ring_at(&self, now: u64) -> Option<u64> {
        let ends = self.grants.iter().filter(|grant| grant.left > 0).map(|grant| grant.until).min();
        let asks = (self.has_demand(now) && self.ask_from > now && self.left() == 0).then_some(self.ask_from);
        ends.into_iter().chain(asks).min()
    }

    /// Whether forgetting it changes nothing: units that were used have come free again, and none is in hand.
    pub fn is_idle(&self, now: u64) -> bool {
        let fill = self.terms.period * f64::from(self.terms.budget.1.max(1)) * f64::from(self.terms.nodes);
        now.saturating_sub(self.seen) > IDLE.max(fill as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::BudgetScope;

    const NOW: u64 = 1_000_000_000;

    fn lease(rate_per_second: f64, burst: u32, nodes: u32) -> Lease {
        let budget = Budget { scope: BudgetScope::Account, rate_per_second, burst };
        Lease::new(Terms::of(&budget, nodes), NOW)
    }

    fn answer(granted: u32, refilled: u32, ask_ns: u64) -> Answer {
        Answer { refilled, granted, ready_ns: 0, wait_ns: ask_ns, ask_ns, hold: Duration::ZERO, level: 0.0 }
    }

    /// Asks, and takes the answer in.
    fn ask(lease: &mut Lease, answer: &Answer) -> Report {
        assert!(lease.begin_ask(NOW, 1));
        let report = lease.report(NOW, 1).expect("it was asked for");
        lease.learn(answer, NOW, NOW);
        report
    }

    /// Another budget of the same call refused, after the unit of this one was reported: it is told as not used after all.
    #[test]
    fn what_was_reported_and_given_back_is_told() {
        let mut leased = lease(1.0, 2, 1);
        assert!(leased.take(NOW).is_err(), "nothing is leased yet");
        ask(&mut leased, &answer(1, 0, 0));
        assert_eq!(leased.take(NOW), Ok(Unit::Leased));
        let report = ask(&mut leased, &answer(0, 0, 0));
        leased.give_back(Unit::Leased, false);
        assert_eq!((report.spent, report.unspent, leased.unspent), (1, 0, 1));

        let mut standing_by = lease(100.0, 100, 1);
        assert_eq!(standing_by.take(NOW), Ok(Unit::Standby));
        let report = ask(&mut standing_by, &answer(0, 1, 0));
        standing_by.give_back(Unit::Standby, false);
        assert_eq!((report.refill, report.unspent, standing_by.unspent), (1, 0, 1));
        assert!(standing_by.take(NOW).is_ok() && standing_by.begin_ask(NOW, 1));
        assert_eq!(standing_by.report(NOW, 1).map(|report| report.unspent), Some(1));
        assert_eq!(standing_by.unspent, 0, "told once");

        // Given back while it was being paid for.
        let mut paying = lease(100.0, 100, 1);
        assert!(paying.take(NOW).is_ok() && paying.begin_ask(NOW, 1));
        assert_eq!(paying.report(NOW, 1).map(|report| report.refill), Some(1));
        paying.give_back(Unit::Standby, false);
        paying.learn(&answer(0, 1, 0), NOW, NOW);
        assert_eq!(paying.unspent, 1);
    }

    /// Nothing can be had before a second is over, and then the place of the used unit is over too: it is told before, and nothing is
    /// asked for with it.
    #[test]
    fn a_used_unit_is_told_before_its_place_ends() {
        let mut lease = lease(1.0, 1, 2);
        assert!(lease.take(NOW).is_err());
        ask(&mut lease, &answer(1, 0, 1_000_000_000));
        let rings = lease.ring_at(NOW).expect("it rings when the unit's life is over");
        assert!(rings < NOW + PLACE_LIFE.as_nanos() as u64);
        assert_eq!(lease.take(NOW), Ok(Unit::Leased));
        assert!(!lease.begin_ask(rings, 1), "nothing can be had");
        assert!(lease.begin_ask_late(rings, 1));
        let report = lease.report(rings, 1).expect("it is told");
        assert_eq!((report.spent, report.want, report.age_ns), (1, 0, rings - NOW));
        assert!(!lease.begin_ask_late(rings, 2), "told once");
    }
}
