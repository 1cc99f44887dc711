//! The closed loop: every connection sends its next request as soon as the last is answered. Shows the saturated maximum and
//! nothing about latency.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use super::cpu::this_thread_seconds;
use super::open::{check_connections, on_own_thread};
use super::prepared::Prepared;
use super::record::{LoadRun, Progress, Recorder, Times};
use super::wire::Wire;
use crate::monotonic_us;

/// Generator threads at most.
const THREADS_MAX: usize = 16;

/// A closed-loop run.
#[derive(Debug, Clone)]
pub struct ClosedPlan {
    /// The requests of the load to send.
    pub range: Range<usize>,
    /// Connections over all threads.
    pub connections: usize,
    /// Generator threads.
    pub threads: usize,
    /// After this long no further request is begun.
    pub time_max: Duration,
    /// Counters to watch meanwhile.
    pub progress: Arc<Progress>,
}

/// Sends a part of a load as fast as the connections allow. Errors: numbers out of bounds, no connection, no thread.
pub async fn closed_loop(load: &Prepared, plan: &ClosedPlan) -> io::Result<LoadRun> {
    check_connections(plan.connections)?;
    if plan.threads == 0 || plan.threads > THREADS_MAX || plan.range.end > load.requests() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a run has 1 to {THREADS_MAX} threads, and a range inside its load"),
        ));
    }
    let threads = plan.threads.min(plan.connections);
    let runs = (0..threads).map(|thread| {
        let (load, plan) = (load.clone(), plan.clone());
        on_own_thread("bench-load", move || generate(load, plan, thread, threads))
    });
    Ok(LoadRun::join(futures_util::future::try_join_all(runs).await?))
}

fn generate(load: Prepared, plan: ClosedPlan, thread: usize, threads: usize) -> io::Result<LoadRun> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cpu_before = this_thread_seconds()?;
    let recorder = RefCell::new(Recorder::new(plan.range.len() / threads, plan.progress.clone()));
    let shared = Rc::new((load, plan, recorder));
    let start_us = LocalSet::new().block_on(&runtime, drive(&shared, thread, threads))?;
    drop(runtime);
    let duration_s = (monotonic_us() - start_us) as f64 / 1e6;
    Ok(shared.2.replace(Recorder::new(0, Arc::default())).finish(duration_s, this_thread_seconds()? - cpu_before))
}

type Shared = Rc<(Prepared, ClosedPlan, RefCell<Recorder>)>;

async fn drive(shared: &Shared, thread: usize, threads: usize) -> io::Result<u64> {
    let (load, plan, recorder) = &**shared;
    let connections = plan.connections.min(load.conversations());
    let mut wires = Vec::new();
    for number in (thread..connections).step_by(threads) {
        let mut wire = Wire::new(load.addr());
        wire.open().await?;
        wires.push((number, wire));
    }
    let start_us = monotonic_us();
    recorder.borrow_mut().start_at(start_us);
    let mut tasks = JoinSet::new();
    for (number, wire) in wires {
        tasks.spawn_local(connection(shared.clone(), wire, number, connections, start_us));
    }
    while tasks.join_next().await.is_some() {}
    Ok(start_us)
}

async fn connection(shared: Shared, mut wire: Wire, number: usize, connections: usize, start_us: u64) {
    let (load, plan, recorder) = &*shared;
    let end_us = start_us + plan.time_max.as_micros() as u64;
    let mut buffer = load.buffer();
    for index in load.indices(plan.range.clone(), number, connections) {
        load.fill(index, &mut buffer);
        let begun = monotonic_us();
        if begun >= end_us {
            return;
        }
        let exchanged = wire.exchange(&buffer).await;
        let times = Times { scheduled: begun, free: begun, begun, answered: monotonic_us() };
        recorder.borrow_mut().note(load, index, times, exchanged, wire.body(), true);
    }
}
