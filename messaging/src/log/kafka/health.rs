//! Whether the cluster takes records, as far as this process knows.
//!
//! A delivery that fails says so at once. That the cluster is back is said by a delivery that succeeds, or by a look at its metadata that
//! finds a leader for every partition; when such a look was wrong (records failed soon after), the next ones are believed later, so that a
//! cluster that answers but takes nothing does not flap.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::SharedClock;

/// How long after a failure a look is believed, at first.
const BELIEVE_AFTER: Duration = Duration::from_secs(1);
/// The longest.
const BELIEVE_AFTER_MAX: Duration = Duration::from_secs(32);
/// A failure so soon after a believed look says that the look was wrong.
const SOON: Duration = Duration::from_secs(10);

/// What is known.
pub(super) struct Health {
    clock: SharedClock,
    down: AtomicBool,
    /// Asked to look now: librdkafka lost all brokers.
    suspect: AtomicBool,
    /// Why connections were refused last, in librdkafka's words: a metadata request only says that it failed.
    refusal: Mutex<Option<String>>,
    trust: Mutex<Trust>,
}

/// How looks are believed, all on the monotonic clock.
struct Trust {
    wait: Duration,
    down_since: Duration,
    believed_at: Option<Duration>,
}

impl Health {
    /// Down until told otherwise.
    pub fn new(clock: SharedClock) -> Self {
        let trust = Trust { wait: Duration::ZERO, down_since: Duration::ZERO, believed_at: None };
        Self { clock, down: AtomicBool::new(true), suspect: AtomicBool::new(false), refusal: Mutex::new(None), trust: Mutex::new(trust) }
    }

    /// Whether the cluster does not take records.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// A record was acknowledged.
    pub fn acknowledged(&self) {
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::AcqRel) {
            *self.trust() = Trust { wait: Duration::ZERO, down_since: Duration::ZERO, believed_at: None };
            tracing::info!("kafka takes records again");
        }
    }

    /// A record was not acknowledged in time, or refused.
    pub fn failed(&self, reason: &dyn std::fmt::Display) {
        if self.down.swap(true, Ordering::AcqRel) {
            return;
        }
        let now = self.clock.monotonic();
        let mut trust = self.trust();
        let wrong = trust.believed_at.take().is_some_and(|at| now.saturating_sub(at) < SOON);
        trust.wait = if wrong { (trust.wait * 2).min(BELIEVE_AFTER_MAX) } else { BELIEVE_AFTER };
        trust.down_since = now;
        drop(trust);
        tracing::warn!(%reason, "kafka does not take records");
    }

    /// All brokers are gone, says librdkafka: worth a look.
    pub fn suspected(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// A broker did not let us in, or we did not trust it. Names the broker and the mechanism, no password.
    pub fn refused(&self, reason: &str) {
        let mut refusal = self.refusal.lock().expect("no holder of the refusal panics");
        if refusal.is_none() {
            tracing::warn!(reason, "kafka connection refused");
        }
        *refusal = Some(reason.to_owned());
    }

    /// Why connections were refused last.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.lock().expect("no holder of the refusal panics").clone()
    }

    /// Whether the cluster should be looked at now.
    pub fn wants_look(&self) -> bool {
        self.suspect.swap(false, Ordering::AcqRel) || self.is_down()
    }

    /// A look found a leader for every partition.
    pub fn looked_well(&self) {
        let now = self.clock.monotonic();
        let mut trust = self.trust();
        if !self.is_down() || now.saturating_sub(trust.down_since) < trust.wait {
            return;
        }
        trust.believed_at = Some(now);
        trust.wait = trust.wait.max(BELIEVE_AFTER);
        drop(trust);
        self.down.store(false, Ordering::Release);
        tracing::info!("kafka answers");
    }

    fn trust(&self) -> std::sync::MutexGuard<'_, Trust> {
        self.trust.lock().expect("no holder of the trust panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    /// What happens, and whether the cluster is down then.
    enum Step {
        Fail(bool),
        Acknowledge(bool),
        Look(bool),
        Wait(u64),
    }

    #[test]
    fn looks_that_were_wrong_are_believed_later() {
        use Step::{Acknowledge, Fail, Look, Wait};
        let cases: &[&[Step]] = &[
            // A first look is enough to begin with.
            &[Look(false)],
            // A failure needs a second's distance; an acknowledgement none.
            &[Look(false), Wait(60), Fail(true), Look(true), Wait(1), Look(false)],
            &[Look(false), Wait(60), Fail(true), Acknowledge(false), Fail(true), Wait(1), Look(false)],
            // Each wrong look doubles the distance.
            &[
                Look(false),
                Wait(60),
                Fail(true),
                Wait(1),
                Look(false),
                Fail(true),
                Wait(1),
                Look(true),
                Wait(1),
                Look(false),
                Fail(true),
                Wait(3),
                Look(true),
                Wait(1),
                Look(false),
            ],
            // A look that was right for long enough counts as right.
            &[Look(false), Wait(60), Fail(true), Wait(1), Look(false), Wait(11), Fail(true), Wait(1), Look(false)],
        ];
        for (number, case) in cases.iter().enumerate() {
            let clock = ManualClock::at(Timestamp::from_secs(1_000));
            let health = Health::new(clock.clone());
            for (at, step) in case.iter().enumerate() {
                let down = match *step {
                    Fail(down) => {
                        health.failed(&"away");
                        down
                    }
                    Acknowledge(down) => {
                        health.acknowledged();
                        down
                    }
                    Look(down) => {
                        health.looked_well();
                        down
                    }
                    Wait(secs) => {
                        clock.advance(Duration::from_secs(secs));
                        continue;
                    }
                };
                assert_eq!(health.is_down(), down, "case {number}, step {at}");
            }
        }
    }
}
