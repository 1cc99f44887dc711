//! How an endpoint that fails is found well again, and how what waits for it goes out then. Pure: time comes in.
//!
//! Recovery belongs to the endpoint, not to the conversation: while it fails it is tried with one delivery at a time, every few
//! seconds; its first success lets everything go that waits for it, ramped. The schedule of a delivery only says when to give it up.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::clock::Timestamp;
use messaging::directory::Directory;
use messaging::ids::EndpointId;
use messaging::supervise::lock;

/// Failures in a row, without a success between, after which an endpoint counts as failing.
const IN_A_ROW: u32 = 3;
/// Failures without a success for so long make it failing too: a quiet endpoint has no three in a row.
const FAILING_AFTER: Duration = Duration::from_secs(4);
/// First and longest wait between two probes. Each is twice the one before.
const PROBE_EVERY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));
/// The longest that an endpoint's own `Retry-After` is heeded: it may shorten a wait and lengthen it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// A probe that was let go and of which nothing was heard for so long is forgotten.
const PROBE_LOST: Duration = Duration::from_secs(60);
/// Deliveries of the first second after a recovery. Each second has as many more: so none has more than twice the mean.
const RAMP_STEP: f64 = 20.0;
/// So long after a recovery nothing is held back any more.
const RAMP_TIME: Duration = Duration::from_secs(60);

/// What an endpoint's recovery says to a delivery that wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Go.
    Go,
    /// After so long: what waited goes out ramped.
    Wait(Duration),
    /// Not before then: the endpoint fails, and its next probe is due then.
    NotBefore(Timestamp),
}

/// One endpoint's.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Since when every attempt has failed.
    since: Option<Timestamp>,
    /// Failures since then.
    failures: u32,
    failing: Option<Failing>,
    ramp: Option<Ramp>,
    /// The endpoint's revision when it was looked at last: a change of it (also `POST …/retry`) probes at once.
    revision: u64,
}

#[derive(Debug)]
struct Failing {
    probes: u32,
    next: Timestamp,
    /// When the probe under way was let go.
    probing: Option<Timestamp>,
}

#[derive(Debug)]
struct Ramp {
    from: Timestamp,
    given: f64,
}

impl Ramp {
    /// How many may have gone so long after the recovery.
    fn allowed(&self, now: Timestamp) -> f64 {
        let seconds = now.since(self.from).as_secs_f64();
        RAMP_STEP * (seconds + seconds * seconds / 2.0) + 1.0
    }
}

impl Recovery {
    /// May a delivery go? Of a failing endpoint one at a time is let go as the probe.
    pub fn leave(&mut self, now: Timestamp, revision: u64) -> Leave {
        let changed = std::mem::replace(&mut self.revision, revision) != revision;
        if let Some(failing) = &mut self.failing {
            if changed {
                failing.next = now;
            }
            if failing.probing.is_some_and(|at| now.since(at) < PROBE_LOST) {
                return Leave::NotBefore(now.plus(PROBE_EVERY.0));
            }
            if now < failing.next {
                return Leave::NotBefore(failing.next);
            }
            failing.probing = Some(now);
            return Leave::Go;
        }
        let Some(ramp) = &mut self.ramp else { return Leave::Go };
        if now.since(ramp.from) >= RAMP_TIME {
            self.ramp = None;
            return Leave::Go;
        }
        if ramp.given < ramp.allowed(now) {
            ramp.given += 1.0;
            return Leave::Go;
        }
        // The rate of now says when there is one more.
        let rate = RAMP_STEP * (1.0 + now.since(ramp.from).as_secs_f64());
        Leave::Wait(Duration::from_secs_f64(1.0 / rate))
    }

    /// An attempt succeeded. Says since when the endpoint had failed, when it counted as failing.
    pub fn good(&mut self, now: Timestamp) -> Option<Timestamp> {
        let since = self.since.take();
        self.failures = 0;
        self.failing.take()?;
        self.ramp = Some(Ramp { from: now, given: 0.0 });
        since
    }

    /// An attempt failed, of a delivery that failed first at `first`. `after` is the endpoint's `Retry-After`, `busy` its 429: that holds
    /// all of it at once.
    pub fn bad(&mut self, first: Timestamp, now: Timestamp, after: Option<Duration>, busy: bool) {
        let since = *self.since.get_or_insert(first);
        self.failures = self.failures.saturating_add(1);
        let fails = self.failing.is_some() || busy || self.failures >= IN_A_ROW || now.since(since) >= FAILING_AFTER;
        if !fails {
            return;
        }
        let failing = self.failing.get_or_insert(Failing { probes: 0, next: now, probing: None });
        // What was under way when it began to fail is no probe of its own.
        if failing.probing.is_some() || failing.probes == 0 {
            let wait = PROBE_EVERY.0.saturating_mul(1 << failing.probes.min(8)).min(PROBE_EVERY.1);
            failing.next = now.plus(after.map_or(wait, |after| after.min(RETRY_AFTER_MAX)));
            failing.probes = failing.probes.saturating_add(1);
        } else if let Some(after) = after {
            failing.next = now.plus(after.min(RETRY_AFTER_MAX));
        }
        failing.probing = None;
    }

    /// A probe was let go and then not made.
    pub fn not_made(&mut self) {
        if let Some(failing) = &mut self.failing {
            failing.probing = None;
        }
    }

    /// Since when every attempt has failed.
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.since
    }

    /// When a failing endpoint is tried next; none: it does not count as failing.
    pub fn next_probe(&self) -> Option<Timestamp> {
        self.failing.as_ref().map(|failing| failing.next)
    }
}

/// How the endpoints do, for all of the process: its shards let go what waits in their `later` for one that was found well again, and
/// its gauges count those that fail.
#[derive(Debug, Default)]
pub struct Recoveries {
    /// Counts them, so that a shard need not look when there was none.
    count: AtomicU64,
    /// The number of each endpoint's last one. At most as many as there are endpoints.
    last: Mutex<HashMap<EndpointId, u64, RandomState>>,
    /// The revision at which each endpoint was disabled last. At most as many as there are endpoints.
    disabled: Mutex<HashMap<EndpointId, u64, RandomState>>,
    /// Endpoints whose last attempt from this process failed. At most as many as there are endpoints.
    failing: Mutex<HashSet<EndpointId, RandomState>>,
}

impl Recoveries {
    /// An endpoint is well again.
    pub fn note(&self, endpoint: EndpointId) {
        let mut last = lock(&self.last);
        let number = self.count.load(Ordering::Relaxed) + 1;
        last.insert(endpoint, number);
        self.count.store(number, Ordering::Release);
    }

    /// An endpoint of this revision is to be disabled. Says whether nobody in this process found that before: several shards may, in the
    /// moment before the directory says so, and it is told once.
    pub fn is_first_to_disable(&self, endpoint: EndpointId, revision: u64) -> bool {
        lock(&self.disabled).insert(endpoint, revision) != Some(revision)
    }

    /// An attempt at an endpoint ended.
    pub fn note_attempt(&self, endpoint: EndpointId, failed: bool) {
        let mut failing = lock(&self.failing);
        if failed {
            failing.insert(endpoint);
        } else {
            failing.remove(&endpoint);
        }
    }

    /// Endpoints whose last attempt failed, of which those that the directory no longer has are forgotten.
    pub fn failing(&self, directory: &Directory) -> HashSet<EndpointId, RandomState> {
        let mut failing = lock(&self.failing);
        failing.retain(|endpoint| directory.endpoint(*endpoint).is_some());
        failing.clone()
    }

    /// Endpoints that were found well since a number, and the number to ask with next.
    pub fn since(&self, number: u64) -> (u64, Vec<EndpointId>) {
        let now = self.count.load(Ordering::Acquire);
        if now == number {
            return (now, Vec::new());
        }
        let last = lock(&self.last);
        (now, last.iter().filter(|(_, at)| **at > number).map(|(endpoint, _)| *endpoint).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_000_000);

    fn at(millis: u64) -> Timestamp {
        START.plus(Duration::from_millis(millis))
    }

    /// What happens to an endpoint, and what is expected.
    enum Step {
        Bad(u64, Option<u64>, bool),
        Good(u64, bool),
        Goes(u64),
        Waits(u64, u64),
        Changed,
    }

    #[test]
    fn a_failing_endpoint_is_probed_and_found_well() {
        use Step::*;
        let stories: &[(&str, &[Step])] = &[
            ("one failure is the conversation's own affair", &[Bad(0, None, false), Goes(1), Good(2, false), Goes(3)]),
            ("two with a success between too", &[Bad(0, None, false), Good(1, false), Bad(2, None, false), Goes(3)]),
            ("three in a row hold it", &[Bad(0, None, false), Bad(1, None, false), Bad(2, None, false), Waits(3, 2_002), Goes(2_002)]),
            ("a quiet one fails by time", &[Bad(0, None, false), Bad(5_000, None, false), Waits(5_001, 7_000), Goes(7_000)]),
            (
                "one probe at a time, each after twice the wait",
                &[
                    Bad(0, None, true),
                    Goes(2_000),
                    Waits(2_001, 4_001),
                    Bad(2_100, None, false),
                    Waits(2_101, 6_100),
                    Goes(6_100),
                    Bad(6_200, None, false),
                    Waits(6_201, 14_200),
                ],
            ),
            ("Retry-After lengthens", &[Bad(0, Some(30_000), true), Waits(1, 30_000), Goes(30_000)]),
            ("and shortens", &[Bad(0, None, true), Goes(2_000), Bad(2_100, Some(500), false), Waits(2_101, 2_600), Goes(2_600)]),
            ("a change of the endpoint probes at once", &[Bad(0, Some(30_000), true), Waits(1, 30_000), Changed, Goes(2)]),
            ("a success ends it", &[Bad(0, None, true), Goes(2_000), Good(2_050, true), Goes(2_051)]),
        ];
        for (name, story) in stories {
            let (mut recovery, mut revision) = (Recovery::default(), 1);
            recovery.leave(START, revision);
            for (number, step) in story.iter().enumerate() {
                match *step {
                    Bad(now, after, busy) => recovery.bad(at(now), at(now), after.map(Duration::from_millis), busy),
                    Good(now, ended) => assert_eq!(recovery.good(at(now)).is_some(), ended, "{name}, step {number}"),
                    Goes(now) => assert_eq!(recovery.leave(at(now), revision), Leave::Go, "{name}, step {number}"),
                    Waits(now, until) => {
                        assert_eq!(recovery.leave(at(now), revision), Leave::NotBefore(at(until)), "{name}, step {number}");
                    }
                    Changed => revision += 1,
                }
            }
        }
    }

    /// What waited goes out ramped: in no second more than twice the mean, and soon.
    #[test]
    fn what_waited_goes_out_ramped() {
        for waiting in [10_u32, 500, 5_000, 20_000] {
            let mut recovery = Recovery::default();
            recovery.bad(START, START, None, true);
            recovery.good(START);
            let (mut left, mut now, mut by_second) = (waiting, START, vec![0_u32]);
            while left > 0 {
                let second = now.since(START).as_secs() as usize;
                by_second.resize(by_second.len().max(second + 1), 0);
                match recovery.leave(now, 0) {
                    Leave::Go => {
                        left -= 1;
                        by_second[second] += 1;
                    }
                    Leave::Wait(wait) => now = now.plus(wait.max(Duration::from_micros(100))),
                    Leave::NotBefore(_) => panic!("it is well"),
                }
            }
            let took = now.since(START).as_secs_f64();
            assert!(took <= 50.0, "{waiting} took {took} s");
            let mean = f64::from(waiting) / took.max(1.0);
            let most = f64::from(*by_second.iter().max().unwrap());
            assert!(most <= (2.0 * mean).max(RAMP_STEP * 1.6), "{waiting}: {most} in one second, {mean} in the mean");
        }
    }
}
