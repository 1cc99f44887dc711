//! The open loop: requests leave on a schedule that is fixed in advance, whatever the server does. Latency counts from the
//! scheduled time, so a stall is charged to every request that it delays.
//!
//! A conversation always uses the same connection, so that its messages are acknowledged in order. One generator thread
//! holds all connections; a second thread with a precise sleep tells it what is due.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use super::cpu::this_thread_seconds;
use super::prepared::Prepared;
use super::record::{LoadRun, Progress, Recorder, Times};
use super::wire::{Exchanged, Wire};
use crate::monotonic_us;

/// How often due requests are looked for: the finest step of the schedule that is paid for with a wake-up.
const TICK: Duration = Duration::from_micros(200);
/// Time for the connections to come about before the schedule begins.
const LEAD: Duration = Duration::from_millis(50);
/// How long answers are waited for after the last request was due.
const DRAIN: Duration = Duration::from_secs(35);
/// Connections at most.
pub(super) const CONNECTIONS_MAX: usize = 4_096;
/// Requests a second at most.
const RATE_MAX: f64 = 1_000_000.0;

/// An open-loop run.
#[derive(Debug, Clone)]
pub struct OpenPlan {
    /// Requests a second.
    pub rate: f64,
    /// Connections; a request waits when the one of its conversation is still busy, and that counts as latency.
    pub connections: usize,
    /// Beginning of the schedule that is left out of the histograms.
    pub warmup: Duration,
    /// Counters to watch meanwhile.
    pub progress: Arc<Progress>,
}

impl OpenPlan {
    /// With 256 connections and one second of warm-up.
    pub fn at(rate: f64) -> Self {
        Self { rate, connections: 256, warmup: Duration::from_secs(1), progress: Arc::default() }
    }
}

/// Runs the whole load once. Errors: numbers out of bounds, no connection, no thread.
pub async fn open_loop(load: &Prepared, plan: OpenPlan) -> io::Result<LoadRun> {
    if !(plan.rate > 0.0 && plan.rate <= RATE_MAX) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a rate is above 0 and at most {RATE_MAX} a second")));
    }
    check_connections(plan.connections)?;
    let load = load.clone();
    on_own_thread("bench-load", move || generate(&load, &plan)).await
}

pub(super) fn check_connections(connections: usize) -> io::Result<()> {
    if connections == 0 || connections > CONNECTIONS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a run has 1 to {CONNECTIONS_MAX} connections")));
    }
    Ok(())
}

/// Runs blocking work on a named thread, so that its CPU can be told apart.
pub(super) async fn on_own_thread(name: &str, work: impl FnOnce() -> io::Result<LoadRun> + Send + 'static) -> io::Result<LoadRun> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody listens any more when the run was given up.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| io::Error::other("the generator's thread ended early"))?
}

/// What the connections of the generator's thread share.
struct Shared {
    load: Prepared,
    plan: OpenPlan,
    start_us: u64,
    due: Cell<usize>,
    recorder: RefCell<Recorder>,
    /// What each connection has written and not seen answered: the request and when it was written.
    open: RefCell<Vec<Option<(usize, u64)>>>,
}

impl Shared {
    fn scheduled_us(&self, index: usize) -> u64 {
        self.start_us + (index as f64 * 1e6 / self.plan.rate) as u64
    }
}

fn generate(load: &Prepared, plan: &OpenPlan) -> io::Result<LoadRun> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cpu_before = this_thread_seconds()?;
    let start = Instant::now() + LEAD;
    let start_us = monotonic_us() + LEAD.as_micros() as u64;
    let mut recorder = Recorder::new(load.requests(), plan.progress.clone());
    recorder.start_at(start_us);
    let (load, plan) = (load.clone(), plan.clone());
    let shared = Rc::new(Shared { load, plan, start_us, due: Cell::new(0), recorder: RefCell::new(recorder), open: RefCell::default() });
    LocalSet::new().block_on(&runtime, drive(&shared, start))?;
    drop(runtime);
    let duration_s = monotonic_us().saturating_sub(start_us) as f64 / 1e6;
    let cpu = this_thread_seconds()? - cpu_before;
    let requests = shared.load.requests();
    note_unanswered(&shared);
    let recorder = shared.recorder.replace(Recorder::new(0, Arc::default()));
    let mut run = recorder.finish(duration_s, cpu);
    run.unsent = (requests - run.operations.len()) as u64;
    run.schedule_us = (start_us, shared.scheduled_us(requests));
    Ok(run)
}

/// What was written and not answered when waiting ended may have been taken all the same.
fn note_unanswered(shared: &Shared) {
    let now = monotonic_us();
    for (index, begun) in shared.open.take().into_iter().flatten() {
        let scheduled = shared.scheduled_us(index);
        let times = Times { scheduled, free: scheduled, begun, answered: now };
        shared.recorder.borrow_mut().note(&shared.load, index, times, Exchanged::Unanswered, &[], false);
    }
}

async fn drive(shared: &Rc<Shared>, start: Instant) -> io::Result<()> {
    let connections = shared.plan.connections.min(shared.load.conversations());
    shared.open.borrow_mut().resize(connections, None);
    let mut wakers = Vec::with_capacity(connections);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..connections {
        let mut wire = Wire::new(shared.load.addr());
        wire.open().await?;
        let waker = Rc::new(Notify::new());
        wakers.push(waker.clone());
        tasks.spawn_local(connection(shared.clone(), wire, number, connections, waker));
    }
    let mut due = start_ticker(shared.load.requests(), shared.plan.rate, start)?;
    let mut told = 0;
    while told < shared.load.requests() && due.changed().await.is_ok() {
        let now_due = *due.borrow_and_update();
        shared.due.set(now_due);
        for index in told..now_due {
            wakers[shared.load.connection_of(index, connections)].notify_one();
        }
        told = now_due;
    }
    let all_answered = async { while tasks.join_next().await.is_some() {} };
    // What is not written by then is counted as unsent, what is not answered as unknown.
    let _ = tokio::time::timeout(DRAIN, all_answered).await;
    Ok(())
}

/// Tells how many requests are due, on time.
fn start_ticker(requests: usize, rate: f64, start: Instant) -> io::Result<watch::Receiver<usize>> {
    let (teller, due) = watch::channel(0);
    std::thread::Builder::new().name("bench-tick".to_owned()).spawn(move || {
        let mut told = 0;
        while told < requests {
            let next = start + Duration::from_secs_f64(told as f64 / rate);
            let at_least = if told == 0 { Duration::ZERO } else { TICK };
            std::thread::sleep(next.saturating_duration_since(Instant::now()).max(at_least));
            let passed = Instant::now().saturating_duration_since(start).as_secs_f64();
            let now_due = ((passed * rate) as usize + 1).min(requests);
            if now_due > told {
                told = now_due;
                if teller.send(told).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(due)
}

async fn connection(shared: Rc<Shared>, mut wire: Wire, number: usize, connections: usize, waker: Rc<Notify>) {
    let load = &shared.load;
    let warm_us = shared.start_us + shared.plan.warmup.as_micros() as u64;
    let mut buffer = load.buffer();
    let mut free = shared.start_us;
    for index in load.indices(0..load.requests(), number, connections) {
        while index >= shared.due.get() {
            waker.notified().await;
        }
        let scheduled = shared.scheduled_us(index);
        load.fill(index, &mut buffer);
        let begun = monotonic_us();
        shared.open.borrow_mut()[number] = Some((index, begun));
        let exchanged = wire.exchange(&buffer).await;
        shared.open.borrow_mut()[number] = None;
        let times = Times { scheduled, free, begun, answered: monotonic_us() };
        free = times.answered;
        shared.recorder.borrow_mut().note(load, index, times, exchanged, wire.body(), scheduled >= warm_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Answer;
    use crate::http::{Request, Server, reply};
    use crate::load::prepared::IngressLoad;

    fn load(url: String, requests: usize, conversations: usize) -> Prepared {
        let (app_secret, phone_number_id) = ("s".to_owned(), "42".to_owned());
        Prepared::ingress(&IngressLoad { url, app_secret, phone_number_id, run: 1, requests, conversations, body_bytes: 1_024 }).unwrap()
    }

    #[tokio::test]
    async fn every_request_of_the_schedule_is_sent_once() {
        let handler = |mut request: Request| async move {
            let body = request.body().await.unwrap();
            let refused = crate::mark::Mark::find(&body).is_some_and(|mark| mark.sequence == 2);
            reply(if refused { 503 } else { 200 }, "text/plain", "")
        };
        let server = Server::start("127.0.0.1:0".parse().unwrap(), handler).await.unwrap();
        let load = load(server.url(), 300, 30);
        let plan = OpenPlan { connections: 7, warmup: Duration::ZERO, ..OpenPlan::at(2_000.0) };
        let run = open_loop(&load, plan.clone()).await.unwrap();
        assert_eq!((run.count(Answer::Accepted), run.count(Answer::Refused), run.unsent), (270, 30, 0));
        let mut marks: Vec<_> = run.operations.iter().map(|operation| operation.mark).collect();
        marks.sort();
        marks.dedup();
        assert_eq!(marks.len(), 300);
        assert_eq!((run.latency.len(), run.send_delay.len()), (300, 300));
        assert_eq!(run.seconds.iter().map(|second| second.ok + second.bad).sum::<u64>(), 300);
        assert_eq!(plan.progress.ok.load(std::sync::atomic::Ordering::Relaxed), 270);
    }

    #[tokio::test]
    async fn a_stall_is_charged_to_everything_that_it_delays() {
        let handler = |mut request: Request| async move {
            let body = request.body().await.unwrap();
            if crate::mark::Mark::find(&body).is_some_and(|mark| mark.sequence == 1) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            reply(200, "text/plain", "")
        };
        let server = Server::start("127.0.0.1:0".parse().unwrap(), handler).await.unwrap();
        let load = load(server.url(), 20, 1);
        let run = open_loop(&load, OpenPlan { connections: 1, warmup: Duration::ZERO, ..OpenPlan::at(200.0) }).await.unwrap();
        assert!(run.latency.value_at_quantile(0.5) > 50_000, "the requests behind the stall waited too");
        assert!(run.send_delay.value_at_quantile(0.5) > 50_000);
    }

    #[tokio::test]
    async fn bounds_are_kept_and_a_closed_port_is_an_error() {
        let load = load("http://127.0.0.1:1/".to_owned(), 1, 1);
        for rate in [0.0, -1.0, f64::NAN, 2e6] {
            assert!(open_loop(&load, OpenPlan::at(rate)).await.is_err());
        }
        assert!(open_loop(&load, OpenPlan { connections: 0, ..OpenPlan::at(1.0) }).await.is_err());
        assert!(open_loop(&load, OpenPlan::at(1.0)).await.is_err());
    }
}
