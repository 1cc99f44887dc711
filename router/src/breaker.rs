//! A circuit breaker per destination: opens when half of at least twenty tries within a minute failed, lets one probe through every
//! ten seconds, closes after three good ones.

use std::collections::VecDeque;
use std::time::Duration;

use messaging::clock::Timestamp;

const WINDOW: Duration = Duration::from_secs(60);
const TRIES_MIN: usize = 20;
const PROBE_EVERY: Duration = Duration::from_secs(10);
const GOOD_TO_CLOSE: u32 = 3;
/// Tries that are remembered.
const TRIES_MAX: usize = 256;

/// What the breaker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Go.
    Open,
    /// Not before then.
    Shut(Timestamp),
}

/// A destination's breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    tries: VecDeque<(Timestamp, bool)>,
    /// While tripped: when the next probe may go.
    probe_at: Option<Timestamp>,
    good: u32,
}

impl Breaker {
    /// May a try be made? While tripped, a yes is the probe: the next one comes ten seconds later.
    pub fn gate(&mut self, now: Timestamp) -> Gate {
        match self.probe_at {
            None => Gate::Open,
            Some(at) if now >= at => {
                self.probe_at = Some(now.plus(PROBE_EVERY));
                Gate::Open
            }
            Some(at) => Gate::Shut(at),
        }
    }

    /// How a try ended. Says whether the breaker tripped (`Some(true)`) or closed (`Some(false)`) by it.
    pub fn record(&mut self, now: Timestamp, good: bool) -> Option<bool> {
        if self.probe_at.is_some() {
            self.good = if good { self.good + 1 } else { 0 };
            if good {
                self.probe_at = Some(now); // the next probe may follow a good one at once
            }
            if self.good < GOOD_TO_CLOSE {
                return None;
            }
            *self = Self::default();
            return Some(false);
        }
        while self.tries.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) || self.tries.len() >= TRIES_MAX {
            self.tries.pop_front();
        }
        self.tries.push_back((now, good));
        if good {
            return None;
        }
        let bad = self.tries.iter().filter(|(_, good)| !good).count();
        if self.tries.len() < TRIES_MIN || bad * 2 < self.tries.len() {
            return None;
        }
        self.tries.clear();
        self.good = 0;
        self.probe_at = Some(now.plus(PROBE_EVERY));
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_probes_and_closes() {
        let mut breaker = Breaker::default();
        let t = Timestamp::from_secs(1000);
        for n in 0..19 {
            assert_eq!(breaker.record(t, false), None, "try {n}");
            assert_eq!(breaker.gate(t), Gate::Open);
        }
        assert_eq!(breaker.record(t, false), Some(true));
        let probe = t.plus(PROBE_EVERY);
        assert_eq!(breaker.gate(t), Gate::Shut(probe));
        assert_eq!(breaker.gate(probe), Gate::Open, "one probe");
        assert_eq!(breaker.gate(probe), Gate::Shut(probe.plus(PROBE_EVERY)), "and only one");
        assert_eq!(breaker.record(probe, true), None);
        assert_eq!(breaker.gate(probe), Gate::Open);
        assert_eq!(breaker.record(probe, true), None);
        assert_eq!(breaker.record(probe, true), Some(false));
        assert_eq!(breaker.gate(probe), Gate::Open);
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut breaker = Breaker::default();
        for n in 0..40 {
            assert_eq!(breaker.record(Timestamp::from_secs(1000 + n * 10), false), None, "never twenty within a minute");
        }
    }
}
