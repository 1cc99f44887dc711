//! The scripts' arguments and answers.

use std::time::Duration;

use redis::{Cmd, Value};

use super::lease::{HORIZON, PLACE_LIFE, Terms};

/// Grants blocks.
const LEASE: &str = include_str!("lease.lua");
/// Keeps what a platform said.
const HOLD: &str = include_str!("hold.lua");
/// Keys of tests that bring their own time live longer: the server's time passes while theirs stands still.
const CALLER_TTL: Duration = Duration::from_secs(3600);

/// What a process tells Redis of one budget.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Units wanted.
    pub want: u32,
    /// Leased units used since the last report.
    pub spent: u32,
    /// How long ago the last of them was used.
    pub age_ns: u64,
    /// Leased units that will not be used.
    pub back: u32,
    /// Units told or paid for as used that were not.
    pub unspent: u32,
    /// Standby units used.
    pub refill: u32,
    /// Units admitted while Redis was away, that have not come free again.
    pub debt: f64,
    /// What the bucket should hold, for a Redis that has forgotten.
    pub level: Option<f64>,
}

/// What Redis says of one budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Standby units paid for.
    pub refilled: u32,
    /// Units of the block.
    pub granted: u32,
    /// From when the first of them may be used. Below zero: since then.
    pub ready_ns: i64,
    /// Until the next unit is free.
    pub wait_ns: u64,
    /// Until asking again makes sense.
    pub ask_ns: u64,
    /// How long the key is held.
    pub hold: Duration,
    /// What the bucket holds.
    pub level: f64,
}

/// Both scripts, and by what names Redis knows them.
pub struct Scripts {
    lease: redis::Script,
    hold: redis::Script,
    holder: String,
}

impl Scripts {
    /// The scripts as called by one process.
    pub fn new(holder: String) -> Self {
        Self { lease: redis::Script::new(LEASE), hold: redis::Script::new(HOLD), holder }
    }

    /// The calls that make them known.
    pub fn load(&self) -> [Cmd; 2] {
        [LEASE, HOLD].map(|text| {
            let mut cmd = redis::cmd("SCRIPT");
            cmd.arg("LOAD").arg(text);
            cmd
        })
    }

    /// A lease call. `now_us`: the caller's time, or the server's.
    pub fn lease(&self, key: &str, terms: &Terms, report: &Report, now_us: Option<u64>) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(self.lease.get_hash()).arg(1).arg(key);
        match now_us {
            Some(now) => cmd.arg(now),
            None => cmd.arg(""),
        };
        cmd.arg(terms.period / 1e3).arg(terms.capacity).arg(report.want).arg(HORIZON.as_micros() as u64);
        cmd.arg(terms.ahead_all).arg(terms.ahead_one).arg(PLACE_LIFE.as_micros() as u64).arg(&self.holder);
        cmd.arg(report.spent).arg(report.age_ns as f64 / 1e3).arg(report.back).arg(report.refill);
        cmd.arg(if report.debt > 0.0 { report.debt } else { 0.0 });
        match report.level {
            Some(level) => cmd.arg(level),
            None => cmd.arg(""),
        };
        cmd.arg(more_ttl_us(now_us)).arg(report.unspent);
        cmd
    }

    /// Tells of a hold.
    pub fn hold(&self, key: &str, hold: Duration, now_us: Option<u64>) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(self.hold.get_hash()).arg(1).arg(key);
        match now_us {
            Some(now) => cmd.arg(now),
            None => cmd.arg(""),
        };
        cmd.arg(hold.as_micros().min(u128::from(u32::MAX) * 1_000_000) as u64).arg(more_ttl_us(now_us));
        cmd
    }
}

fn more_ttl_us(now_us: Option<u64>) -> u64 {
    if now_us.is_some() { CALLER_TTL.as_micros() as u64 } else { 0 }
}

impl Answer {
    /// Reads an answer; `None` when it is not one.
    pub fn read(value: &Value) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        let [refilled, granted, ready, wait, ask, hold, level] = parts.as_slice() else { return None };
        let whole = |value: &Value| match value {
            Value::Int(whole) => Some(*whole),
            _ => None,
        };
        let count = |value| whole(value).and_then(|whole| u32::try_from(whole).ok());
        let micros = |value| whole(value).and_then(|whole| u64::try_from(whole).ok());
        let Value::BulkString(level) = level else { return None };
        Some(Self {
            refilled: count(refilled)?,
            granted: count(granted)?,
            ready_ns: whole(ready)?,
            wait_ns: micros(wait)?.saturating_mul(1_000),
            ask_ns: micros(ask)?.saturating_mul(1_000),
            hold: Duration::from_micros(micros(hold)?),
            level: std::str::from_utf8(level).ok()?.parse().ok().filter(|level: &f64| level.is_finite())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_none_are_refused() {
        let whole = |parts: [i64; 6], level: &str| {
            let level = Value::BulkString(level.as_bytes().to_vec());
            Value::Array(parts.into_iter().map(Value::Int).chain([level]).collect())
        };
        let good =
            Answer { refilled: 1, granted: 2, ready_ns: -3, wait_ns: 4_000, ask_ns: 5_000, hold: Duration::from_micros(6), level: 7.5 };
        assert_eq!(Answer::read(&whole([1, 2, -3, 4, 5, 6], "7.5")), Some(good));
        let bad = [
            Value::Nil,
            Value::Array(vec![]),
            whole([-1, 2, 3, 4, 5, 6], "7"),
            whole([1, i64::MAX, 3, 4, 5, 6], "7"),
            whole([1, 2, 3, -4, 5, 6], "7"),
            whole([1, 2, 3, 4, 5, 6], "nan"),
            whole([1, 2, 3, 4, 5, 6], ""),
        ];
        for value in bad {
            assert_eq!(Answer::read(&value), None, "{value:?}");
        }
    }
}
