//! The ratio: how many requests a core of the gateway takes, as a share of what a bare hyper server takes in the same run.
//!
//! The same client sends the same bytes over the same number of connections to both, in turns; CPU is read per process, so
//! the generator's own share does not count. Rates wander on shared machines; the ratio of CPU per request does not.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::bare::BareChild;
use super::closed::{ClosedPlan, closed_loop};
use super::cpu::CpuUse;
use super::prepared::Prepared;
use super::record::{LoadRun, Progress};
use crate::checker::{Answer, Operation};

/// Rounds at most.
const ROUNDS_MAX: usize = 50;

/// How often it is looked whether a process rests, how often at most (one that never does is read as it is), and what one that rests
/// uses between two looks: a tenth of a core.
const SETTLE_LOOK: Duration = Duration::from_millis(300);
const SETTLE_LOOKS_MAX: usize = 100;
const RESTING_S: f64 = 0.03;

/// A saturated comparison.
#[derive(Debug)]
pub struct SaturatePlan {
    /// The requests: the first `1 / (rounds + 1)` of them warms up, the rest is shared by the rounds.
    pub load: Prepared,
    /// The gateway's process.
    pub gateway_pid: u32,
    /// Connections over all threads; the same for both sides.
    pub connections: usize,
    /// Generator threads.
    pub threads: usize,
    /// Rounds; the medians count.
    pub rounds: usize,
    /// Longest time of one round on one side.
    pub round_max: Duration,
    /// Starts a process that calls `bare_main`.
    pub bare: Command,
}

/// What one side did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Side {
    /// Requests answered 2xx.
    pub ok: u64,
    /// Requests answered otherwise or not at all: the figures of a side with any are worth nothing.
    pub bad: u64,
    /// Requests a second: lowest, median and highest round.
    pub requests_per_s: [f64; 3],
    /// CPU microseconds of the server's process per request: lowest, median and highest round.
    pub cpu_us_per_request: [f64; 3],
    /// CPU microseconds per request by thread name, over all rounds.
    pub threads_us_per_request: Vec<(String, f64)>,
    /// CPU seconds of the generator.
    pub generator_cpu_s: f64,
}

/// The comparison.
#[derive(Debug, Clone, Serialize)]
pub struct SaturateReport {
    /// The gateway.
    pub gateway: Side,
    /// Bare hyper.
    pub bare: Side,
    /// The gateway's requests per core as a share of bare hyper's: lowest, median and highest of the rounds.
    pub ratio: [f64; 3],
    /// Connections.
    pub connections: usize,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// What the gateway was offered, for the truth check.
    #[serde(skip)]
    pub operations: Vec<Operation>,
}

struct Round {
    ok: u64,
    bad: u64,
    per_s: f64,
    cpu: CpuUse,
    generator_cpu_s: f64,
}

impl Round {
    fn us_per_request(&self) -> f64 {
        self.cpu.seconds * 1e6 / self.ok.max(1) as f64
    }
}

/// Runs the comparison. Errors: numbers out of bounds, a server that is not there, a process that cannot be read.
pub async fn saturate(plan: SaturatePlan) -> io::Result<SaturateReport> {
    if plan.rounds == 0 || plan.rounds > ROUNDS_MAX || plan.load.requests() < (plan.rounds + 1) * plan.connections {
        let what = format!("a comparison has 1 to {ROUNDS_MAX} rounds, and requests for every connection in each");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let child = BareChild::spawn(plan.bare)?;
    let to_bare = plan.load.aimed_at(&child.url())?;
    let share = plan.load.requests() / (plan.rounds + 1);
    let mut operations = Vec::new();
    let (mut gateway, mut bare) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds {
        let range = round * share..(round + 1) * share;
        let progress = Arc::new(Progress::default());
        let closed = ClosedPlan { range, connections: plan.connections, threads: plan.threads, time_max: plan.round_max, progress };
        // Turns about, so that a drift of the machine meets both.
        let (own, other) = if round % 2 == 0 {
            let own = one_round(&plan.load, &closed, plan.gateway_pid).await?;
            (own, one_round(&to_bare, &closed, child.pid()).await?)
        } else {
            let other = one_round(&to_bare, &closed, child.pid()).await?;
            (one_round(&plan.load, &closed, plan.gateway_pid).await?, other)
        };
        operations.extend(own.1.operations);
        if round > 0 {
            gateway.push(own.0);
            bare.push(other.0);
        }
    }
    let ratios = gateway.iter().zip(&bare).map(|(own, other)| other.us_per_request() / own.us_per_request().max(f64::MIN_POSITIVE));
    Ok(SaturateReport {
        ratio: spread(ratios.collect()),
        gateway: side(&gateway),
        bare: side(&bare),
        connections: plan.connections,
        body_bytes: plan.load.body_bytes(),
        operations,
    })
}

async fn one_round(load: &Prepared, plan: &ClosedPlan, pid: u32) -> io::Result<(Round, LoadRun)> {
    let before = CpuUse::of(pid)?;
    let run = closed_loop(load, plan).await?;
    let cpu = settled(pid).await?.since(&before);
    let ok = run.count(Answer::Accepted);
    let bad = run.operations.len() as u64 - ok;
    let per_s = ok as f64 / run.duration_s.max(1e-9);
    Ok((Round { ok, bad, per_s, cpu, generator_cpu_s: run.generator_cpu_s }, run))
}

/// What a process has used once it rests: what it accepted it works on after its answers too, and that belongs to the same requests.
async fn settled(pid: u32) -> io::Result<CpuUse> {
    let mut before = CpuUse::of(pid)?;
    for _ in 0..SETTLE_LOOKS_MAX {
        tokio::time::sleep(SETTLE_LOOK).await;
        let now = CpuUse::of(pid)?;
        if now.seconds - before.seconds < RESTING_S {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn side(rounds: &[Round]) -> Side {
    let ok: u64 = rounds.iter().map(|round| round.ok).sum();
    let mut cpu = CpuUse::default();
    for round in rounds {
        cpu.add(&round.cpu);
    }
    let mut threads: Vec<(String, f64)> = cpu.threads.into_iter().map(|(name, seconds)| (name, seconds * 1e6 / ok.max(1) as f64)).collect();
    threads.sort_by(|a, b| b.1.total_cmp(&a.1));
    Side {
        ok,
        bad: rounds.iter().map(|round| round.bad).sum(),
        requests_per_s: spread(rounds.iter().map(|round| round.per_s).collect()),
        cpu_us_per_request: spread(rounds.iter().map(Round::us_per_request).collect()),
        threads_us_per_request: threads,
        generator_cpu_s: rounds.iter().map(|round| round.generator_cpu_s).sum(),
    }
}

/// Lowest, median and highest; zeros of nothing.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => [0.0; 3],
        [lowest, ..] => [*lowest, values[values.len() / 2], values[values.len() - 1]],
    }
}

impl SaturateReport {
    /// Whether both sides answered everything, so that the figures mean something.
    pub fn is_valid(&self) -> bool {
        self.gateway.bad + self.bare.bad == 0 && self.gateway.ok > 0 && self.bare.ok > 0
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = format!(
            "saturated (closed loop, says nothing about latency): {} connections, bodies of {} bytes\n",
            self.connections, self.body_bytes
        );
        for (name, side) in [("gateway", &self.gateway), ("bare hyper", &self.bare)] {
            let [low, median, high] = side.requests_per_s;
            let [us_low, us, us_high] = side.cpu_us_per_request;
            out.push_str(&format!(
                "  {name:<11} {median:>8.0} req/s ({low:.0}..{high:.0})   server {us:.2} us/req ({us_low:.2}..{us_high:.2}) = {:.0} req/core   bad {}\n",
                1e6 / us.max(f64::MIN_POSITIVE),
                side.bad
            ));
            for (thread, us) in side.threads_us_per_request.iter().filter(|(_, us)| *us >= 0.01) {
                out.push_str(&format!("      {thread:<16} {us:.2} us/req\n"));
            }
        }
        let [low, median, high] = self.ratio;
        match self.is_valid() {
            true => out.push_str(&format!("  ratio       {median:.3} of bare hyper's requests per core ({low:.3}..{high:.3})\n")),
            false => out.push_str("  ratio       none: not every request was answered 2xx\n"),
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::bare::tests::command;
    use crate::load::prepared::IngressLoad;

    fn plan(gateway: &BareChild, requests: usize) -> SaturatePlan {
        let load = IngressLoad {
            url: gateway.url(),
            app_secret: "s".to_owned(),
            phone_number_id: "42".to_owned(),
            run: 1,
            requests,
            conversations: 64,
            body_bytes: 1_024,
        };
        SaturatePlan {
            load: Prepared::ingress(&load).unwrap(),
            gateway_pid: gateway.pid(),
            connections: 16,
            threads: 2,
            rounds: 3,
            round_max: Duration::from_secs(20),
            bare: command(),
        }
    }

    #[tokio::test]
    async fn a_bare_server_compared_with_itself() {
        let gateway = BareChild::spawn(command()).unwrap();
        let report = saturate(plan(&gateway, 8_000)).await.unwrap();
        assert!(report.is_valid());
        assert_eq!((report.gateway.ok, report.bare.ok), (6_000, 6_000));
        assert_eq!(report.operations.len(), 8_000);
        assert!(report.to_text().contains("of bare hyper's requests per core"), "{}", report.to_text());
        assert!(saturate(plan(&gateway, 10)).await.is_err());
    }

    #[test]
    fn spreads() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(vec![]), [0.0; 3]);
    }
}
