//! The only place that reads the time.
//!
//! Wall time is what people and platforms mean; monotonic time is for leases and time-outs. Everything that waits
//! does so through [`Clock::sleep_until`], so that tests move the clock instead of sleeping.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::Notify;

use crate::BoxFuture;

/// Wall time in microseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The epoch: "never" where a time is optional in a packed row.
    pub const ZERO: Self = Self(0);
    /// Later than any real time.
    pub const MAX: Self = Self(u64::MAX);

    /// From seconds since the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }
    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }
    /// Whole milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }
    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }
    /// This time and a duration more.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_micros().min(u128::from(u64::MAX)) as u64))
    }
    /// This time less a duration, not before the epoch.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by.as_micros().min(u128::from(u64::MAX)) as u64))
    }
    /// How long after `earlier`; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, microseconds, UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = i64::try_from(self.as_secs()).unwrap_or(i64::MAX);
        let date = time::OffsetDateTime::from_unix_timestamp(whole)
            .unwrap_or_else(|_| time::Date::MAX.with_hms(23, 59, 59).expect("a valid time of day").assume_utc());
        // In one piece and without the formatter's machinery: a time stands in every event.
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let parts = [
            (0..4, u64::from(date.year().unsigned_abs())),
            (5..7, u64::from(u8::from(date.month()))),
            (8..10, u64::from(date.day())),
            (11..13, u64::from(date.hour())),
            (14..16, u64::from(date.minute())),
            (17..19, u64::from(date.second())),
            (20..26, self.0 % 1_000_000),
        ];
        for (place, mut number) in parts {
            for digit in text[place].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not an RFC 3339 time after the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time, such as 2026-11-22T15:04:05Z")]
pub struct BadTimestamp;

impl FromStr for Timestamp {
    type Err = BadTimestamp;
    fn from_str(text: &str) -> Result<Self, BadTimestamp> {
        let format = &time::format_description::well_known::Rfc3339;
        let parsed = time::OffsetDateTime::parse(text, format).map_err(|_| BadTimestamp)?;
        let micros = parsed.unix_timestamp_nanos() / 1_000;
        u64::try_from(micros).map(Self).map_err(|_| BadTimestamp)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

/// Where time comes from. Cheap to share: `Arc<dyn Clock>`.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall time now.
    fn now(&self) -> Timestamp;
    /// Monotonic time since this clock was made. Moving a test clock moves it too.
    fn monotonic(&self) -> Duration;
    /// Returns when wall time has reached `deadline`; at once when it already has. Wakes early when the clock is moved past it.
    fn sleep_until(&self, deadline: Timestamp) -> BoxFuture<'_, ()>;
    /// Returns after `duration` of this clock's time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        self.sleep_until(self.now().plus(duration))
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The operating system's clock, with an offset that only the test control (`dev.clock_control`) ever sets.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    offset_us: AtomicI64,
    moved: Notify,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now(), offset_us: AtomicI64::new(0), moved: Notify::new() }
    }
}

impl SystemClock {
    /// Moves wall and monotonic time forward; every sleeper looks again.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.offset_us.fetch_add(by, Ordering::SeqCst);
        self.moved.notify_waiters();
    }

    fn offset(&self) -> i64 {
        self.offset_us.load(Ordering::Relaxed)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = since.as_micros() as u64;
        Timestamp(micros.saturating_add_signed(self.offset()))
    }

    fn monotonic(&self) -> Duration {
        let offset = Duration::from_micros(self.offset().max(0) as u64);
        self.started.elapsed() + offset
    }

    fn sleep_until(&self, deadline: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let moved = self.moved.notified();
                let now = self.now();
                if now >= deadline {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(deadline.since(now)) => {}
                    () = moved => {}
                }
            }
        })
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<Timestamp>,
    start: Timestamp,
    moved: Notify,
}

impl ManualClock {
    /// A clock that says `start`.
    pub fn at(start: Timestamp) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(start), start, moved: Notify::new() })
    }

    /// Moves the clock forward and wakes whoever sleeps past it.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().expect("no holder of the clock panics");
        *now = now.plus(by);
        drop(now);
        self.moved.notify_waiters();
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().expect("no holder of the clock panics")
    }

    fn monotonic(&self) -> Duration {
        self.now().since(self.start)
    }

    fn sleep_until(&self, deadline: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let moved = self.moved.notified();
                if self.now() >= deadline {
                    return;
                }
                moved.await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_and_parse() {
        let t = Timestamp(1_795_168_800_123_456);
        assert_eq!(t.to_string(), "2026-11-20T10:00:00.123456Z");
        assert_eq!("2026-11-20T10:00:00.123456Z".parse(), Ok(t));
        assert_eq!("2026-11-20T11:00:00.123456+01:00".parse(), Ok(t));
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert!(Timestamp::MAX.to_string().ends_with('Z'));
    }

    #[tokio::test]
    async fn a_moved_clock_wakes_its_sleepers() {
        let clock = ManualClock::at(Timestamp::from_secs(100));
        let sleeper = {
            let clock = clock.clone();
            tokio::spawn(async move { clock.sleep(Duration::from_secs(3600)).await })
        };
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(3600));
        sleeper.await.unwrap();
    }
}
