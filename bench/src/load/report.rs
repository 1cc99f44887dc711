//! What a run says: to people and as JSON. A run that broke a promise has no performance figure; one whose generator could
//! not keep its schedule says so.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::environment::Environment;
use super::flow::Flow;
use super::record::{LoadRun, Second};
use crate::checker::{Answer, Verdict};

/// Send delay above which a run is not valid, in microseconds (p99).
const SEND_DELAY_US_MAX: u64 = 1_000;
/// Share of its core above which the generator is not trusted.
const GENERATOR_SHARE_MAX: f64 = 0.8;
/// Points of the percentile curve: this many to each halving of the distance to 100 %.
const CURVE_TICKS: u32 = 5;

/// A histogram in figures: microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Values.
    pub count: u64,
    /// Half are below.
    pub p50: u64,
    /// Nine in ten are below.
    pub p90: u64,
    /// 99 % are below.
    pub p99: u64,
    /// 99.9 % are below.
    pub p999: u64,
    /// 99.99 % are below.
    pub p9999: u64,
    /// The longest.
    pub max: u64,
    /// The whole curve: share and value.
    pub curve: Vec<(f64, u64)>,
}

impl Summary {
    /// Of a histogram in microseconds.
    pub fn of(times: &Histogram<u64>) -> Self {
        let at = |share: f64| times.value_at_quantile(share);
        Self {
            count: times.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: times.max(),
            curve: times.iter_quantiles(CURVE_TICKS).map(|step| (step.quantile_iterated_to(), step.value_iterated_to())).collect(),
        }
    }

    fn line(&self) -> String {
        let ms = |us: u64| us as f64 / 1e3;
        format!(
            "p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  p99.99 {:.2}  max {:.2} ms",
            ms(self.p50),
            ms(self.p90),
            ms(self.p99),
            ms(self.p999),
            ms(self.p9999),
            ms(self.max)
        )
    }
}

/// The result of an open-loop run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub scenario: String,
    /// Where.
    pub environment: Environment,
    /// Requests a second that were scheduled.
    pub rate: f64,
    /// How long it took, in seconds.
    pub duration_s: f64,
    /// Answered 2xx.
    pub accepted: u64,
    /// Answered otherwise.
    pub refused: u64,
    /// Not answered.
    pub unknown: u64,
    /// Scheduled and never written.
    pub unsent: u64,
    /// From the scheduled time to the answer. None: a promise was broken.
    pub latency: Option<Summary>,
    /// From acceptance to the subscriber or platform, when that was measured. None as above.
    pub onward: Option<Summary>,
    /// From the write to the answer of what was accepted.
    pub accepted_answer: Summary,
    /// From the write to the answer of what was refused.
    pub refused_answer: Summary,
    /// How deliveries kept up, when there was a subscriber.
    pub flow: Option<Flow>,
    /// Actual less scheduled time of writing.
    pub send_delay: Summary,
    /// The generator's own part of it.
    pub generator_delay: Summary,
    /// Share of one core that the generator used.
    pub generator_share: f64,
    /// Second by second. Empty when a promise was broken.
    pub seconds: Vec<Second>,
    /// Why the figures may not be used; empty: they may.
    pub invalid: Vec<String>,
    /// The truth check; none: not made, and the report says so.
    pub truth: Option<Verdict>,
}

impl Report {
    /// Puts a run together with its truth check and the times of the way onward.
    pub fn new(
        scenario: &str,
        rate: f64,
        run: &LoadRun,
        truth: Option<Verdict>,
        onward: Option<&Histogram<u64>>,
        environment: Environment,
    ) -> Self {
        let broken = truth.as_ref().is_some_and(|truth| !truth.is_clean());
        let mut report = Self {
            scenario: scenario.to_owned(),
            environment,
            rate,
            duration_s: run.duration_s,
            accepted: run.count(Answer::Accepted),
            refused: run.count(Answer::Refused),
            unknown: run.count(Answer::Unknown),
            unsent: run.unsent,
            latency: (!broken).then(|| Summary::of(&run.latency)),
            onward: onward.filter(|_| !broken).map(Summary::of),
            accepted_answer: Summary::of(&run.accepted),
            refused_answer: Summary::of(&run.refused),
            flow: None,
            send_delay: Summary::of(&run.send_delay),
            generator_delay: Summary::of(&run.generator_delay),
            generator_share: run.generator_cpu_s / run.duration_s.max(1e-9),
            seconds: if broken { Vec::new() } else { run.seconds.clone() },
            invalid: Vec::new(),
            truth,
        };
        report.invalid = report.faults();
        report
    }

    /// Adds how deliveries kept up.
    #[must_use]
    pub fn with_flow(mut self, flow: Option<Flow>) -> Self {
        self.flow = flow;
        self
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(truth) = self.truth.as_ref().filter(|truth| !truth.is_clean()) {
            faults.push(format!("{} promises were broken", truth.violation_count));
        }
        if self.generator_delay.p99 > SEND_DELAY_US_MAX {
            faults.push(format!("the generator was late: its own delay p99 is {} us", self.generator_delay.p99));
        } else if self.send_delay.p99 > SEND_DELAY_US_MAX {
            faults.push(format!("send delay p99 is {} us: connections were busy, use more of them or a lower rate", self.send_delay.p99));
        }
        if self.generator_share > GENERATOR_SHARE_MAX {
            faults.push(format!("the generator used {:.0} % of its core", self.generator_share * 100.0));
        }
        if self.unsent > 0 {
            faults.push(format!("{} requests were never written", self.unsent));
        }
        if self.environment.debug_build {
            faults.push("built without optimisation".to_owned());
        }
        faults
    }

    /// Whether the figures may be used.
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report serialises")
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let environment = &self.environment;
        let mut out = format!(
            "{}: {:.0}/s for {:.1} s   ok {}  refused {}  unknown {}  unsent {}\n",
            self.scenario, self.rate, self.duration_s, self.accepted, self.refused, self.unknown, self.unsent
        );
        match &self.latency {
            Some(latency) => out.push_str(&format!("  ack         {}\n", latency.line())),
            None => out.push_str("  ack         no figure: a promise was broken\n"),
        }
        if let Some(onward) = &self.onward {
            out.push_str(&format!("  onward      {}\n", onward.line()));
        }
        if let Some(flow) = &self.flow {
            out.push_str(&format!(
                "  delivered   {:.0}/s meanwhile, {:.0}/s in the worst 5 s; {} late, the last after {:.1} s; {} not at all\n",
                flow.per_second, flow.lowest_per_second, flow.late, flow.late_for_s, flow.lost
            ));
        }
        out.push_str(&format!("  accepted    {}\n", self.accepted_answer.line()));
        if self.refused > 0 {
            out.push_str(&format!("  refused     {}\n", self.refused_answer.line()));
        }
        out.push_str(&format!("  send delay  {}\n", self.send_delay.line()));
        out.push_str(&format!("  generator   {:.0} % of a core\n", self.generator_share * 100.0));
        match &self.truth {
            Some(truth) => out.push_str(&format!("  truth       {truth}")),
            None => out.push_str("  truth       not checked\n"),
        }
        out.push_str(&format!(
            "  machine     {} x {} · {} MiB · linux {} · load {:.2}{}\n",
            environment.cores,
            environment.cpu,
            environment.memory_mib,
            environment.kernel,
            environment.load_average,
            environment.fsync_us.map_or(String::new(), |us| format!(" · fsync {us} us"))
        ));
        for fault in &self.invalid {
            out.push_str(&format!("  NOT VALID   {fault}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{Kind, Violation};
    use crate::load::record::Recorder;

    fn run(send_delay_us: u64, generator_delay_us: u64, cpu_s: f64) -> LoadRun {
        let mut run = Recorder::new(0, std::sync::Arc::default()).finish(10.0, cpu_s);
        for time in 1..=1_000 {
            run.latency.saturating_record(time * 10);
        }
        run.send_delay.saturating_record(send_delay_us);
        run.generator_delay.saturating_record(generator_delay_us);
        run
    }

    fn verdict(violations: u64) -> Verdict {
        let violation = Violation { kind: Kind::Lost, detail: "one".to_owned() };
        Verdict { violations: vec![violation; violations as usize], violation_count: violations, ..Verdict::default() }
    }

    #[test]
    fn a_report_says_when_its_figures_may_not_be_used() {
        let environment = Environment { debug_build: false, ..Environment::look(Some(&std::env::temp_dir())) };
        assert!(environment.fsync_us.is_some() && environment.cores > 0 && environment.memory_mib > 0);
        let cases = [
            (run(500, 500, 1.0), verdict(0), ""),
            (run(500, 500, 1.0), verdict(2), "2 promises were broken"),
            (run(5_000, 5_000, 1.0), verdict(0), "the generator was late"),
            (run(5_000, 500, 1.0), verdict(0), "connections were busy"),
            (run(500, 500, 9.0), verdict(0), "of its core"),
        ];
        for (run, truth, expected) in cases {
            let clean = truth.is_clean();
            let report = Report::new("ingress", 100.0, &run, Some(truth), None, environment.clone());
            assert_eq!(report.is_valid(), expected.is_empty(), "{:?}", report.invalid);
            assert!(report.to_text().contains(expected), "{}", report.to_text());
            assert_eq!(report.latency.is_some(), clean, "a broken promise has no figure");
            let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
            assert_eq!(json["latency"]["count"], if clean { serde_json::json!(1_000) } else { serde_json::Value::Null });
        }
        let report = Report::new("ingress", 100.0, &run(1, 1, 0.0), None, None, environment);
        let latency = report.latency.unwrap();
        assert!((4_990..5_020).contains(&latency.p50) && latency.max >= 10_000, "{latency:?}");
    }
}
