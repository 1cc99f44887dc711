//! The background task that talks with Redis: asks for blocks, many keys in one write, tells holds, notices when Redis is away and
//! when it is back. One task, one connection.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::lease::Terms;
use super::link::{Link, Opener, Trouble};
use super::script::{Answer, Report, Scripts};
use super::{Shared, TimeSource};
use crate::limit::{Budget, BudgetKey, BudgetScope, Limit as _};
use crate::metrics::RATELIMIT_DEGRADED;

/// Readings of a clock that moves meanwhile.
const READINGS_MAX: usize = 3;
/// Jobs that wait for the agent. What finds no place is asked for by a later admission.
pub const QUEUE_MAX: usize = 1 << 16;
/// Calls in one write.
const BATCH_MAX: usize = 256;
/// Writes whose answers are outstanding.
const FLIGHTS_MAX: usize = 4;
/// Keys that wait for a moment.
const TIMERS_MAX: usize = 1 << 16;
/// Holds that could not be told yet.
const HOLDS_MAX: usize = 1024;
/// Writes in a row without an answer in time, until Redis counts as away.
const TIMEOUTS_MAX: u32 = 3;
/// How often a silent Redis is asked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between tries to connect: doubled from the first to the second.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A connection that held so long makes pauses short again.
const STEADY: Duration = Duration::from_secs(10);

/// What the limiter asks of the agent.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// A block for this key.
    Ask(BudgetKey),
    /// The key is held until then, in nanoseconds of the clock's monotonic time.
    Hold(BudgetKey, u64),
}

/// A key and when it rings.
#[derive(PartialEq, Eq)]
struct Ring {
    due: u64,
    key: BudgetKey,
}

impl Ord for Ring {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let place = |ring: &Self| (ring.due, ring.key.scope.index(), ring.key.owner);
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Ring {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What one command is for.
#[derive(Clone, Copy)]
enum Call {
    /// A report of that moment.
    Lease(BudgetKey, u64),
    Hold(BudgetKey, u64),
    Look,
}

/// A write and what came back.
struct Flight {
    calls: Vec<Call>,
    answers: Result<Vec<Result<Value, Trouble>>, Trouble>,
}

/// The task.
pub struct Agent {
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) opener: Opener,
    pub(super) scripts: Arc<Scripts>,
    pub(super) prefix: String,
    pub(super) time: TimeSource,
    pub(super) timers: Timers,
    /// Holds that could not be told yet, and until when they hold.
    pub(super) holds: HashMap<BudgetKey, u64>,
    /// Connections so far.
    pub(super) epochs: u32,
    /// What the log says.
    pub(super) told: Option<State>,
}

/// Whether Redis is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    There,
    /// It is not.
    Away,
}

/// Keys by the moment when they ring.
#[derive(Default)]
pub struct Timers(BinaryHeap<Reverse<Ring>>);

impl Timers {
    fn add(&mut self, due: u64, key: BudgetKey) {
        // Without a timer units are not given back early, and a waiting caller asks by itself.
        if self.0.len() < TIMERS_MAX {
            self.0.push(Reverse(Ring { due, key }));
        }
    }

    fn next(&self) -> u64 {
        self.0.peek().map_or(u64::MAX, |ring| ring.0.due)
    }

    fn pop_due(&mut self, now: u64) -> Option<BudgetKey> {
        if self.next() > now {
            return None;
        }
        self.0.pop().map(|ring| ring.0.key)
    }
}

impl Agent {
    /// Runs until the limiter is dropped. `first` hears when it is known whether Redis is there.
    pub async fn run(mut self, first: oneshot::Sender<()>) {
        let mut first = Some(first);
        let mut pause = PAUSE_MIN;
        while !self.jobs.is_closed() {
            let connected = self.connect().await;
            let trouble = match connected {
                Ok(link) => {
                    self.is_back();
                    first.take().map(|first| first.send(()));
                    let since = self.shared.clock.monotonic();
                    let Some(trouble) = self.serve(link).await else { return };
                    if self.shared.clock.monotonic().saturating_sub(since) >= STEADY {
                        pause = PAUSE_MIN;
                    }
                    trouble
                }
                Err(trouble) => trouble,
            };
            self.is_away(trouble);
            first.take().map(|first| first.send(()));
            self.rest(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Connects, makes the scripts known, and tries one: a server that does not take writes is away.
    async fn connect(&self) -> Result<Link, Trouble> {
        let mut link = self.opener.open().await?;
        for cmd in self.scripts.load() {
            link.call(&cmd).await?;
        }
        let answer = link.call(&self.look()).await?;
        if Answer::read(&answer).is_none() {
            return Err(Trouble::Answer("not understood"));
        }
        Ok(link)
    }

    /// A lease call that asks for nothing.
    fn look(&self) -> Cmd {
        let budget = Budget { scope: BudgetScope::Global, rate_per_second: 1.0, burst: 1 };
        self.scripts.lease(&format!("{}:look", self.prefix), &Terms::of(&budget, 1), &Report::default(), self.now_us())
    }

    /// This moment on our clock, and as Redis is told it. A clock that tests move may move between the two readings.
    fn instant(&self) -> (u64, Option<u64>) {
        let mut instant = (self.shared.now(), self.now_us());
        for _ in 0..READINGS_MAX {
            let again = self.shared.now();
            if instant.1.is_none() || again == instant.0 {
                break;
            }
            instant = (again, self.now_us());
        }
        instant
    }

    fn now_us(&self) -> Option<u64> {
        match self.time {
            TimeSource::Server => None,
            TimeSource::Caller => Some(self.shared.clock.now().as_micros()),
        }
    }

    fn is_back(&mut self) {
        if self.told == Some(State::Away) {
            tracing::info!("redis is back: limits are leased again");
        }
        self.told = Some(State::There);
        // Answers of an earlier connection are none of this one.
        self.epochs = self.epochs.wrapping_add(1).max(1);
        self.shared.epoch.store(self.epochs, Ordering::Release);
        RATELIMIT_DEGRADED.at([]).set(0.0);
    }

    fn is_away(&mut self, trouble: Trouble) {
        self.shared.epoch.store(0, Ordering::Release);
        if self.told != Some(State::Away) {
            tracing::warn!(reason = %trouble, "redis is away: {}", self.shared.degraded.means());
        }
        self.told = Some(State::Away);
        RATELIMIT_DEGRADED.at([]).set(1.0);
    }

    /// Waits without Redis: blocks are not asked for, holds are kept for later.
    async fn rest(&mut self, pause: Duration) {
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            let job = tokio::select! {
                () = &mut end => return,
                job = self.jobs.recv() => job,
            };
            match job {
                Some(Job::Ask(_)) => {}
                Some(Job::Hold(key, until)) => self.keep_hold(key, until),
                None => return,
            }
            self.shared.job_done();
        }
    }

    fn keep_hold(&mut self, key: BudgetKey, until: u64) {
        if self.holds.len() >= HOLDS_MAX {
            let now = self.shared.now();
            self.holds.retain(|_, until| *until > now);
        }
        if self.holds.len() < HOLDS_MAX || self.holds.contains_key(&key) {
            let kept = self.holds.entry(key).or_default();
            *kept = until.max(*kept);
        }
    }

    /// Serves until trouble; `None`: the limiter was dropped.
    async fn serve(&mut self, link: Link) -> Option<Trouble> {
        let epoch = self.epochs;
        let clock = self.shared.clock.clone();
        let mut flights: JoinSet<Flight> = JoinSet::new();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        let mut timeouts = 0;
        let mut jobs: Vec<Job> = self.holds.drain().map(|(key, until)| Job::Hold(key, until)).collect();
        self.shared.jobs_begun(jobs.len());
        loop {
            while !jobs.is_empty() && flights.len() < FLIGHTS_MAX {
                let rest = jobs.split_off(jobs.len().min(BATCH_MAX));
                self.launch(&mut flights, &link, std::mem::replace(&mut jobs, rest), epoch);
            }
            let next = self.timers.next();
            self.shared.next_ring.store(next, Ordering::Release);
            let is_free = flights.len() < FLIGHTS_MAX && jobs.is_empty();
            let wait = Duration::from_nanos(next.saturating_sub(self.shared.now()));
            tokio::select! {
                biased;
                Some(flight) = flights.join_next(), if !flights.is_empty() => {
                    let flight = flight.unwrap_or_else(|_| Flight { calls: Vec::new(), answers: Err(Trouble::Connection) });
                    match self.land(flight) {
                        Ok(true) => timeouts = 0,
                        Ok(false) => {}
                        Err(Trouble::Timeout) if timeouts + 1 < TIMEOUTS_MAX => timeouts += 1,
                        Err(trouble) => {
                            self.end(flights, jobs).await;
                            return Some(trouble);
                        }
                    }
                }
                count = self.jobs.recv_many(&mut jobs, BATCH_MAX), if is_free => {
                    if count == 0 {
                        return None;
                    }
                }
                () = clock.sleep(wait), if is_free && next != u64::MAX => {
                    self.ring(&mut jobs, epoch);
                }
                _ = look.tick() => {
                    if flights.is_empty() {
                        self.shared.jobs_begun(1);
                        self.fly(&mut flights, &link, vec![Call::Look], vec![self.look()]);
                    }
                }
            }
        }
    }

    fn ring(&mut self, jobs: &mut Vec<Job>, epoch: u32) {
        let now = self.shared.now();
        while jobs.len() < BATCH_MAX
            && let Some(key) = self.timers.pop_due(now)
        {
            if self.shared.leases.known(key, |lease| lease.begin_ask_late(now, epoch)) == Some(true) {
                self.shared.jobs_begun(1);
                jobs.push(Job::Ask(key));
            }
        }
    }

    fn launch(&mut self, flights: &mut JoinSet<Flight>, link: &Link, jobs: Vec<Job>, epoch: u32) {
        let (mut calls, mut cmds) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for job in jobs {
            match job {
                Job::Ask(key) => {
                    let asked = self.shared.leases.known(key, |lease| {
                        // While the lease is locked: no use is later than this, so that none is reported as of before it came about.
                        let (now, now_us) = self.instant();
                        lease.report(now, epoch).map(|report| (report, *lease.terms(), now, now_us))
                    });
                    let Some(Some((report, terms, now, now_us))) = asked else {
                        self.shared.job_done();
                        continue;
                    };
                    cmds.push(self.scripts.lease(&self.name(key), &terms, &report, now_us));
                    calls.push(Call::Lease(key, now));
                }
                Job::Hold(key, until) => {
                    let (now, now_us) = self.instant();
                    if until <= now {
                        self.shared.job_done();
                        continue;
                    }
                    cmds.push(self.scripts.hold(&self.name(key), Duration::from_nanos(until - now), now_us));
                    calls.push(Call::Hold(key, until));
                }
            }
        }
        if !cmds.is_empty() {
            self.fly(flights, link, calls, cmds);
        }
    }

    fn fly(&self, flights: &mut JoinSet<Flight>, link: &Link, calls: Vec<Call>, cmds: Vec<Cmd>) {
        let (mut link, scripts) = (link.clone(), self.scripts.clone());
        // The driver keeps the time of each answer; this is for what it may do besides.
        let longest = self.opener.timeout() * 4;
        flights.spawn(async move {
            let answers = tokio::time::timeout(longest, exchange(&mut link, &scripts, &cmds)).await;
            Flight { calls, answers: answers.unwrap_or(Err(Trouble::Timeout)) }
        });
    }

    /// Takes the answers in. Whether Redis answered; an error: it is to be left.
    fn land(&mut self, flight: Flight) -> Result<bool, Trouble> {
        let now = self.shared.now();
        let (answers, mut trouble) = match flight.answers {
            Ok(answers) => (answers, None),
            Err(trouble) => (vec![Err(trouble); flight.calls.len()], Some(trouble)),
        };
        let mut has_answered = false;
        for (call, answer) in flight.calls.into_iter().zip(answers) {
            let answer = answer.and_then(|value| match call {
                Call::Lease(..) | Call::Look => Answer::read(&value).map(Some).ok_or(Trouble::Answer("not understood")),
                Call::Hold(..) => Ok(None),
            });
            match answer {
                Ok(answer) => {
                    has_answered = true;
                    self.take_in(call, answer, now);
                }
                Err(why) => {
                    trouble = trouble.filter(|trouble| *trouble != Trouble::Timeout).or(Some(why));
                    self.give_up(call, now);
                }
            }
        }
        self.shared.next_ring.store(self.timers.next(), Ordering::Release);
        match trouble {
            None => Ok(has_answered),
            Some(trouble) => Err(trouble),
        }
    }

    fn take_in(&mut self, call: Call, answer: Option<Answer>, now: u64) {
        if let (Call::Lease(key, sent), Some(answer)) = (call, answer) {
            // The server's times count from when it spoke: not before the answer came, so that none is early.
            let from = match self.time {
                TimeSource::Server => now,
                TimeSource::Caller => sent,
            };
            if !answer.hold.is_zero() {
                self.shared.local.hold(key, answer.hold);
            }
            let ring = self.shared.leases.known(key, |lease| {
                lease.learn(&answer, sent, from);
                lease.ring_at(now)
            });
            if let Some(Some(due)) = ring {
                self.timers.add(due, key);
                self.shared.next_ring.store(self.timers.next(), Ordering::Release);
            }
        }
        self.shared.job_done();
    }

    fn give_up(&mut self, call: Call, now: u64) {
        match call {
            Call::Lease(key, _) => {
                self.shared.leases.known(key, |lease| lease.failed(now));
            }
            Call::Hold(key, until) => self.keep_hold(key, until),
            Call::Look => {}
        }
        self.shared.job_done();
    }

    /// Lets go of what is under way: from now on admissions do without Redis.
    async fn end(&mut self, mut flights: JoinSet<Flight>, jobs: Vec<Job>) {
        self.shared.epoch.store(0, Ordering::Release);
        for job in jobs {
            match job {
                Job::Ask(_) => {}
                Job::Hold(key, until) => self.keep_hold(key, until),
            }
            self.shared.job_done();
        }
        while let Some(flight) = flights.join_next().await {
            if let Ok(flight) = flight {
                let _ = self.land(flight);
            }
        }
    }

    fn name(&self, key: BudgetKey) -> String {
        format!("{}:{}:{}", self.prefix, key.scope.name(), data_encoding::HEXLOWER.encode(&key.owner))
    }
}

/// Sends, and once more what failed for want of the scripts: a server that was restarted or flushed has forgotten them.
async fn exchange(link: &mut Link, scripts: &Scripts, cmds: &[Cmd]) -> Result<Vec<Result<Value, Trouble>>, Trouble> {
    let mut answers = link.send(cmds).await?;
    let forgotten = |answer: &Result<Value, Trouble>| matches!(answer, Err(Trouble::NoScript));
    if !answers.iter().any(forgotten) {
        return Ok(answers);
    }
    for cmd in scripts.load() {
        link.call(&cmd).await?;
    }
    let again: Vec<usize> = (0..answers.len()).filter(|place| forgotten(&answers[*place])).collect();
    let cmds: Vec<Cmd> = again.iter().map(|place| cmds[*place].clone()).collect();
    for (place, answer) in again.into_iter().zip(link.send(&cmds).await?) {
        answers[place] = answer;
    }
    Ok(answers)
}
