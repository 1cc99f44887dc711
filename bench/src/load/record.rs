//! What a run brings: every operation with its times, and the histograms.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::prepared::Prepared;
use super::wire::Exchanged;
use crate::checker::{Answer, Operation, message_id};

/// Longest latency that a histogram holds, in microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Seconds of a run that are listed one by one.
const SECONDS_MAX: usize = 3_600;

/// An empty histogram: microseconds, three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are constants that fit")
}

/// Counters that may be watched while a run goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests written.
    pub sent: AtomicU64,
    /// Answers of 2xx.
    pub ok: AtomicU64,
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Requests answered 2xx.
    pub ok: u64,
    /// Requests answered otherwise or not at all.
    pub bad: u64,
    /// Longest latency, in microseconds.
    pub latency_us_max: u64,
}

/// What a run brought.
#[derive(Debug, Clone)]
pub struct LoadRun {
    /// Every request that was tried, in the order of its answer.
    pub operations: Vec<Operation>,
    /// Latency in microseconds: from the scheduled time (open loop) or the write (closed loop). Warm-up left out.
    pub latency: Histogram<u64>,
    /// Actual less scheduled time of writing, in microseconds. Open loop only.
    pub send_delay: Histogram<u64>,
    /// The part of the send delay that is the generator's own: without waiting for the connection's answer before.
    pub generator_delay: Histogram<u64>,
    /// From the write to an answer of 2xx, in microseconds.
    pub accepted: Histogram<u64>,
    /// From the write to any other answer, in microseconds.
    pub refused: Histogram<u64>,
    /// Second by second, from the start.
    pub seconds: Vec<Second>,
    /// When the schedule began and when its last request was due, in microseconds of `bench::monotonic_us`.
    pub schedule_us: (u64, u64),
    /// How long the run took, in seconds.
    pub duration_s: f64,
    /// CPU seconds of the generator's threads.
    pub generator_cpu_s: f64,
    /// Requests of the schedule that were never written.
    pub unsent: u64,
}

impl LoadRun {
    /// How many operations ended so.
    pub fn count(&self, answer: Answer) -> u64 {
        self.operations.iter().filter(|operation| operation.answer == answer).count() as u64
    }

    /// Puts runs of several threads together.
    pub(super) fn join(runs: Vec<Self>) -> Self {
        let mut all = Recorder::new(0, Arc::default()).finish(0.0, 0.0);
        for run in runs {
            all.operations.extend(run.operations);
            // The bounds are the same, so this cannot fail.
            let _ = all.latency.add(&run.latency);
            let _ = all.send_delay.add(&run.send_delay);
            let _ = all.generator_delay.add(&run.generator_delay);
            let _ = all.accepted.add(&run.accepted);
            let _ = all.refused.add(&run.refused);
            all.seconds.resize(all.seconds.len().max(run.seconds.len()), Second::default());
            for (sum, second) in all.seconds.iter_mut().zip(&run.seconds) {
                sum.ok += second.ok;
                sum.bad += second.bad;
                sum.latency_us_max = sum.latency_us_max.max(second.latency_us_max);
            }
            all.duration_s = all.duration_s.max(run.duration_s);
            all.generator_cpu_s += run.generator_cpu_s;
            all.unsent += run.unsent;
        }
        all
    }
}

/// Times of one request, in microseconds of `bench::monotonic_us`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// When it was due.
    pub scheduled: u64,
    /// When its connection was free.
    pub free: u64,
    /// When it was written.
    pub begun: u64,
    /// When the answer was there.
    pub answered: u64,
}

/// Writes down what happens in one generator thread.
pub(super) struct Recorder {
    run: LoadRun,
    start_us: u64,
    progress: Arc<Progress>,
}

impl Recorder {
    pub fn new(requests: usize, progress: Arc<Progress>) -> Self {
        let run = LoadRun {
            operations: Vec::with_capacity(requests),
            latency: histogram(),
            send_delay: histogram(),
            generator_delay: histogram(),
            accepted: histogram(),
            refused: histogram(),
            seconds: Vec::new(),
            schedule_us: (0, 0),
            duration_s: 0.0,
            generator_cpu_s: 0.0,
            unsent: 0,
        };
        Self { run, start_us: crate::monotonic_us(), progress }
    }

    pub fn start_at(&mut self, start_us: u64) {
        self.start_us = start_us;
    }

    /// Notes one exchange; `counts` is false during warm-up.
    pub fn note(&mut self, load: &Prepared, index: usize, times: Times, exchanged: Exchanged, body: &[u8], counts: bool) {
        let answer = match exchanged {
            Exchanged::Status(status) if (200..300).contains(&status) => Answer::Accepted,
            Exchanged::Status(_) | Exchanged::Unsent => Answer::Refused,
            Exchanged::Unanswered => Answer::Unknown,
        };
        let ok = answer == Answer::Accepted;
        self.progress.sent.fetch_add(1, Ordering::Relaxed);
        self.progress.ok.fetch_add(u64::from(ok), Ordering::Relaxed);
        let id = if ok { message_id(body).map(str::to_owned) } else { None };
        let mark = load.mark(index);
        self.run.operations.push(Operation { mark, begun_us: times.begun, answered_us: times.answered, answer, id });
        let latency = times.answered.saturating_sub(times.scheduled).max(1);
        let second = (times.answered.saturating_sub(self.start_us) / 1_000_000) as usize;
        if second < SECONDS_MAX {
            self.run.seconds.resize(self.run.seconds.len().max(second + 1), Second::default());
            let second = &mut self.run.seconds[second];
            second.ok += u64::from(ok);
            second.bad += u64::from(!ok);
            second.latency_us_max = second.latency_us_max.max(latency);
        }
        if !counts {
            return;
        }
        let served = times.answered.saturating_sub(times.begun).max(1);
        match answer {
            Answer::Accepted => self.run.accepted.saturating_record(served),
            Answer::Refused => self.run.refused.saturating_record(served),
            Answer::Unknown => {}
        }
        self.run.latency.saturating_record(latency);
        self.run.send_delay.saturating_record(times.begun.saturating_sub(times.scheduled).max(1));
        self.run.generator_delay.saturating_record(times.begun.saturating_sub(times.scheduled.max(times.free)).max(1));
    }

    pub fn finish(mut self, duration_s: f64, generator_cpu_s: f64) -> LoadRun {
        self.run.duration_s = duration_s;
        self.run.generator_cpu_s = generator_cpu_s;
        self.run
    }
}
