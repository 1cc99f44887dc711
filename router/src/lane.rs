//! Lanes: one per destination and process, with its budget, breaker, concurrency and connections. A lane is bounded: what
//! does not fit, or must wait longer than a second, goes back to its shard at once.
//!
//! A lane knows nothing of conversations: a shard offers one task of a conversation at a time.
//!
//! A lane is one task of the runtime, and its tries are polled by it: one for each would be woken beside it, on another core as a rule,
//! for every step of a call.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::stream::{FuturesUnordered, StreamExt};
use messaging::BoxFuture;
use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::{SharedClock, Timestamp};
use messaging::directory::{Endpoint, SharedDirectory};
use messaging::exchange::{HttpRequest, MailReply, MailSubmission};
use messaging::ids::IdHasher;
use messaging::limit::Limit;
use messaging::media::Library;
use messaging::metrics;
use messaging::record::Class;
use messaging::supervise::{self, lock};
use tokio::sync::{mpsc, oneshot};

use crate::breaker::{Breaker, Gate};
use crate::egress::mail;
use crate::egress::{CallError, Client, Door, ErrorKind, Sent, Stage};
use crate::lane::jobs::{Jobs, Senders};
use crate::plan::{Destination, Go, Tail, Task, TaskEnd};
use crate::recovery::{Leave, Recoveries, Recovery};
use crate::sign::{SignError, Signer};
use crate::{WebhookSettings, delivery, send};

mod jobs;

/// Tasks that wait in one lane, of each class: as many as 42 shards have in memory at once.
const QUEUE_MAX: usize = 16_384;
/// Longest wait for a budget inside a lane; longer ones go to `later`.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Platform calls under way for one account.
const SENDS_MAX: usize = 128;
/// How long the secret before the last rotation still signs beside the new one.
const SECRET_OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// How long a destination has no lane after one that panicked.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
/// So often a lane looks whether it had work since the last time; it ends when it had none.
const IDLE: Duration = Duration::from_secs(60);

/// What a shard hands to a lane.
pub struct Job {
    /// The task.
    pub task: Task,
    /// Tells the shard which task is meant.
    pub ticket: u64,
    /// Back to the shard.
    pub owner: mpsc::Sender<FromLane>,
    /// The shard's lease.
    pub lease: Arc<LeaseClock>,
    /// Brings it home if it is dropped on the way.
    pub home: Home,
}

/// A job's way home. One that is dropped without its end, because its lane panicked, tells its shard so: a lost task would hold its
/// conversation for ever.
pub struct Home {
    ticket: u64,
    owner: Option<mpsc::Sender<FromLane>>,
    tried: bool,
}

impl Home {
    /// Of a task that is handed to its lane now.
    pub fn new(ticket: u64, owner: mpsc::Sender<FromLane>) -> Self {
        Self { ticket, owner: Some(owner), tried: false }
    }

    /// From here on it may have been tried.
    fn try_begins(&mut self) {
        self.tried = true;
    }

    /// Its end was told, or it was never taken.
    pub fn reached(mut self) {
        self.owner = None;
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(owner) = self.owner.take().filter(|owner| !owner.is_closed()) else { return };
        let end = if self.tried { TaskEnd::Panicked } else { TaskEnd::Deferred { until: Timestamp::ZERO, whole: false } };
        let end = FromLane::End { ticket: self.ticket, end };
        if let Err(mpsc::error::TrySendError::Full(end)) = owner.try_send(end)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { owner.send(end).await });
        }
    }
}

/// What a lane says to a shard.
#[derive(Debug)]
pub enum FromLane {
    /// A slot is free: may it go? Answered once the intent is durable; dropped or none means no.
    Intent {
        /// Which task.
        ticket: u64,
        /// The answer.
        go: oneshot::Sender<Option<Go>>,
    },
    /// The task ended.
    End {
        /// Which task.
        ticket: u64,
        /// How.
        end: TaskEnd,
    },
}

/// Until when a shard's lease holds, on the monotonic clock.
#[derive(Debug, Default)]
pub struct LeaseClock(AtomicU64);

impl LeaseClock {
    /// Renewed until then.
    pub fn set(&self, until: Duration) {
        self.0.store(until.as_micros() as u64, Ordering::SeqCst);
    }
    /// Whether it holds now.
    pub fn holds(&self, now: Duration) -> bool {
        (now.as_micros() as u64) < self.0.load(Ordering::SeqCst)
    }
}

/// What all lanes share.
#[derive(Clone)]
pub struct LaneParts {
    /// The way out.
    pub door: Arc<Door>,
    /// Accounts and endpoints.
    pub directory: SharedDirectory,
    /// Budgets.
    pub limit: Arc<dyn Limit>,
    /// Time.
    pub clock: SharedClock,
    /// Computes budget keys.
    pub ids: IdHasher,
    /// Channel settings.
    pub channels: Arc<std::collections::BTreeMap<ChannelKind, ChannelSettings>>,
    /// Delivery settings.
    pub webhooks: Arc<WebhookSettings>,
    /// Links to media that are sent.
    pub media: Arc<Library>,
    /// Lines for `trunkline tail`.
    pub tail: Tail,
    /// How the endpoints do, for all of the process.
    pub recoveries: Arc<Recoveries>,
}

/// The process's lanes.
#[derive(Clone)]
pub struct Lanes {
    parts: LaneParts,
    lanes: Known,
}

/// The lanes that are there, by destination without its class.
type Known = Arc<Mutex<HashMap<Destination, Senders, RandomState>>>;

impl Lanes {
    /// No lanes yet: they begin with their first task.
    pub fn new(parts: LaneParts) -> Self {
        Self { parts, lanes: Arc::default() }
    }

    /// Endpoints that were found well again.
    pub fn recoveries(&self) -> &Recoveries {
        &self.parts.recoveries
    }

    /// Hands a task to its lane, or gives it back when the lane is full.
    pub fn offer(&self, job: Job) -> Result<(), Box<Job>> {
        let destination = job.task.destination().lane();
        let mut lanes = lock(&self.lanes);
        // One that panicked has closed, and stands here until its pause is over.
        if let Some(lane) = lanes.get(&destination) {
            return lane.offer(job);
        }
        let (senders, jobs) = jobs::queues(QUEUE_MAX);
        let lane = Lane::new(destination, self.parts.clone());
        tokio::spawn(live(lane, jobs, self.lanes.clone()));
        let offered = senders.offer(job);
        lanes.insert(destination, senders);
        offered
    }
}

/// How a lane's destination does.
#[derive(Debug, Default)]
pub struct Health {
    /// The breaker.
    pub breaker: Breaker,
    /// Of an endpoint: whether it fails, and how it is found well again.
    pub recovery: Recovery,
}

/// What a signer was made for: the endpoint's revision, and whether its previous secret still signs.
type SignerKey = (u64, bool);

/// One lane, as its tries see it.
pub struct Lane {
    /// Where it leads.
    pub destination: Destination,
    /// What all lanes share.
    pub parts: LaneParts,
    /// The destination's connections, made anew when its address changes.
    client: Mutex<Option<(String, Client)>>,
    signer: Mutex<Option<(SignerKey, Arc<Signer>)>>,
    /// How the destination does.
    pub health: Mutex<Health>,
    /// Tries under way at once.
    slots: usize,
}

impl Lane {
    fn new(destination: Destination, parts: LaneParts) -> Arc<Self> {
        let slots = match destination {
            Destination::Endpoint(_) => parts.webhooks.concurrency_per_endpoint,
            Destination::Account(..) => SENDS_MAX,
        };
        Arc::new(Self {
            destination,
            parts,
            client: Mutex::new(None),
            signer: Mutex::new(None),
            health: Mutex::new(Health::default()),
            slots,
        })
    }

    /// One call over the destination's connections.
    pub async fn call(&self, request: HttpRequest, timeout: Duration, answer_max: usize) -> Result<Sent, CallError> {
        let client = self.client(&request.url)?;
        client.send(request, timeout, answer_max).await
    }

    /// Submits a mail to its relay.
    pub async fn submit(&self, mail: MailSubmission, timeout: Duration) -> Result<MailReply, CallError> {
        mail::submit(&self.parts.door, mail, timeout).await
    }

    /// The connections to an address (`scheme://host:port/…`).
    fn client(&self, url: &str) -> Result<Client, CallError> {
        let origin = origin(url);
        let mut kept = self.client.lock().expect("no holder of the client panics");
        if let Some((of, client)) = &*kept
            && of == origin
        {
            return Ok(client.clone());
        }
        let client = self.parts.door.client(url).map_err(|error| CallError {
            stage: Stage::BeforeWrite,
            kind: ErrorKind::Blocked,
            status: None,
            detail: error.to_string(),
        })?;
        *kept = Some((origin.to_owned(), client.clone()));
        Ok(client)
    }

    /// The endpoint's signer, made anew when its secret changes or the old one runs out.
    pub fn signer(&self, endpoint: &Endpoint, now: Timestamp) -> Result<Arc<Signer>, SignError> {
        let previous_valid = now.since(endpoint.secret.set_at) < SECRET_OVERLAP;
        let key = (endpoint.row.revision, previous_valid);
        let mut kept = self.signer.lock().expect("no holder of the signer panics");
        if let Some((of, signer)) = &*kept
            && *of == key
        {
            return Ok(signer.clone());
        }
        let signer = Arc::new(Signer::new(&endpoint.secret, previous_valid)?);
        *kept = Some((key, signer.clone()));
        Ok(signer)
    }

    async fn run(self: Arc<Self>, jobs: Jobs, lanes: Known) {
        let mut under_way = FuturesUnordered::new();
        let mut next = pin!(self.next(jobs));
        let mut idle_look = tokio::time::interval(IDLE);
        let (mut worked, mut more) = (true, true);
        while more || !under_way.is_empty() {
            tokio::select! {
                biased;
                Some(()) = under_way.next() => {}
                (jobs, job) = &mut next, if more && under_way.len() < self.slots => match job {
                    Some(job) => {
                        worked = true;
                        under_way.push(self.work(job));
                        next.set(self.next(jobs));
                    }
                    None => more = false,
                },
                // What still comes until its sender is gone is worked off; then there is no more.
                _ = idle_look.tick() => {
                    if !std::mem::take(&mut worked) && under_way.is_empty() {
                        lock(&lanes).remove(&self.destination);
                    }
                }
            }
        }
    }

    /// The next job that may go now; what may not is told to its shard. None: no more will come.
    ///
    /// While a bulk job waits for its unit an interactive one may come, and takes it.
    async fn next(&self, mut jobs: Jobs) -> (Jobs, Option<Job>) {
        // Since when the first of each class has waited for its budget.
        let mut since = [None; Class::ALL.len()];
        while let Some(class) = jobs.wait().await {
            let Some(first) = jobs.first(class) else { continue };
            let now = self.parts.clock.now();
            let waits = since[class.index()].get_or_insert(now);
            let most = WAIT_MAX.saturating_sub(now.since(*waits));
            let admitted = caught(async { self.admit(&first.task, most) }).await.unwrap_or(Admitted::Not(TaskEnd::Panicked));
            match admitted {
                Admitted::Go => {
                    let job = jobs.take(class, true);
                    return (jobs, job);
                }
                Admitted::Wait(wait) => {
                    tokio::select! {
                        () = self.parts.clock.sleep(wait) => {}
                        () = jobs.overtaken(class) => {}
                    }
                }
                Admitted::Not(end) => {
                    since[class.index()] = None;
                    if let Some(job) = jobs.take(class, false) {
                        let _ = job.owner.send(FromLane::End { ticket: job.ticket, end }).await;
                        job.home.reached();
                    }
                }
            }
        }
        (jobs, None)
    }

    /// One try. The shard is told even when it panics: a lost task would hold its conversation for ever.
    async fn work(&self, job: Job) {
        let Job { task, ticket, owner, lease, mut home } = job;
        home.try_begins();
        let attempt: BoxFuture<'_, TaskEnd> = match self.destination {
            Destination::Endpoint(_) => Box::pin(delivery::attempt(self, &task, &lease)),
            Destination::Account(..) => Box::pin(send::attempt(self, &task, ticket, &owner, &lease)),
        };
        let end = caught(attempt).await.unwrap_or(TaskEnd::Panicked);
        // A probe that was made has told how it ended.
        lock(&self.health).recovery.not_made();
        let _ = owner.send(FromLane::End { ticket, end }).await;
        home.reached();
    }

    /// Breaker and budgets. A wait of up to `most` is waited here, a longer one by the shard.
    fn admit(&self, task: &Task, most: Duration) -> Admitted {
        let now = self.parts.clock.now();
        if send::is_overdue(task, now) {
            return Admitted::Go;
        }
        let budget = match self.destination {
            Destination::Endpoint(id) => delivery::admit(self, id),
            Destination::Account(..) => send::admit(self, task),
        };
        let verdict = match budget {
            None => Admitted::Go,
            Some((wait, true)) if wait <= most => Admitted::Wait(wait),
            Some((wait, whole)) => Admitted::Not(TaskEnd::Deferred { until: now.plus(wait), whole }),
        };
        if let Admitted::Go = verdict { self.gate(now, most) } else { verdict }
    }

    /// What the destination's health says.
    fn gate(&self, now: Timestamp, most: Duration) -> Admitted {
        let directory = self.parts.directory.load();
        let revision = match self.destination {
            Destination::Endpoint(id) => directory.endpoint(id).map_or(0, |endpoint| endpoint.row.revision),
            Destination::Account(id, _) => directory.account(id).map_or(0, |account| account.row.revision),
        };
        let mut health = lock(&self.health);
        match health.recovery.leave(now, revision) {
            // A failing one has its own probes.
            Leave::Go if health.recovery.next_probe().is_some() => return Admitted::Go,
            Leave::Go => {}
            Leave::Wait(wait) if wait <= most => return Admitted::Wait(wait),
            Leave::Wait(wait) => return Admitted::Not(TaskEnd::Deferred { until: now.plus(wait), whole: true }),
            Leave::NotBefore(until) => return Admitted::Not(TaskEnd::Deferred { until, whole: true }),
        }
        match health.breaker.gate(now) {
            Gate::Open => Admitted::Go,
            Gate::Shut(until) => Admitted::Not(TaskEnd::Deferred { until, whole: true }),
        }
    }
}

/// Whether the first job of a lane may go.
enum Admitted {
    /// It has its unit of every budget.
    Go,
    /// After so long it may.
    Wait(Duration),
    /// Not here: its shard is told.
    Not(TaskEnd),
}

/// A lane's life. When it panics its jobs go home, and another may begin after a pause.
async fn live(lane: Arc<Lane>, jobs: Jobs, lanes: Known) {
    let destination = lane.destination;
    let Err(panicked) = supervise::caught(lane.run(jobs, lanes.clone())).await else { return };
    metrics::TASK_RESTARTS.at([metrics::SupervisedTask::Lane.index()]).increment(1);
    tracing::error!(?destination, at = panicked.at, "a lane panicked, its tasks go back to their shards");
    tokio::time::sleep(PANIC_PAUSE).await;
    let mut lanes = lock(&lanes);
    if lanes.get(&destination).is_some_and(Senders::is_closed) {
        lanes.remove(&destination);
    }
}

/// None: it panicked.
async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    let done = supervise::caught(work).await;
    done.inspect_err(|panicked| tracing::error!(place = "lane", at = panicked.at, "a try panicked")).ok()
}

fn origin(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let end = url[after..].find(['/', '?', '#']).map_or(url.len(), |at| after + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a job left its lane, and what its shard hears of it.
    #[tokio::test]
    async fn a_job_that_is_dropped_goes_home() {
        type Leave = fn(Home);
        let cases: [(&str, Leave, Option<&str>); 3] = [
            ("waited", drop, Some("Deferred")),
            (
                "tried",
                |mut home| {
                    home.try_begins();
                    drop(home);
                },
                Some("Panicked"),
            ),
            ("ended", Home::reached, None),
        ];
        for (name, leave, expected) in cases {
            let (owner, mut shard) = mpsc::channel(1);
            leave(Home::new(7, owner));
            let heard = shard.recv().await.map(|message| format!("{message:?}"));
            let is_right = match (&heard, expected) {
                (Some(heard), Some(expected)) => heard.contains("ticket: 7") && heard.contains(expected),
                (heard, expected) => heard.is_none() && expected.is_none(),
            };
            assert!(is_right, "{name}: {heard:?}");
        }
    }

    /// A full shard hears of it as soon as it listens.
    #[tokio::test]
    async fn a_full_shard_hears_of_it_too() {
        let (owner, mut shard) = mpsc::channel(1);
        for ticket in [1, 2] {
            drop(Home::new(ticket, owner.clone()));
        }
        for expected in [1, 2] {
            let Some(FromLane::End { ticket, .. }) = shard.recv().await else { panic!("no end") };
            assert_eq!(ticket, expected);
        }
    }
}
