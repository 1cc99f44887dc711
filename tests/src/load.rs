//! The load of the fault tests: customers write, a careful merchant answers each, and the checker judges what came of it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::checker::{self, Answer, Canary, CanaryKind, End, History, Operation, Output};
use bench::inbox::Received;
use bench::mark::{Mark, Way};
use bench::platform::SimOptions;
use messaging::channels::ChannelKind;
use messaging::outcome::Status;
use serde_json::Value;

use crate::world::Place;
use crate::{System, fast};

/// Customers who write at the same time in the system's own tenant.
const CONVERSATIONS: u32 = 12;
/// The same for each account of the crowd.
const SPEAKERS_OF_CROWD: u32 = 1;
/// Between two sends of a conversation: so that the load stays below what a small installation carries, and a backlog can go.
const PAUSE: Duration = Duration::from_millis(40);
/// The same for several processes on real servers, which share the machine with them.
const PAUSE_ON_SERVERS: Duration = Duration::from_millis(100);
/// The same for an account of the crowd: the narrowest budget of any channel is one send a second.
const PAUSE_IN_CROWD: Duration = Duration::from_millis(1_200);
/// Tries of one send, and the pause between them.
const TRIES_MAX: usize = 400;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// The conversation of the probes.
const PROBED: u32 = 9_999;
/// The first conversation of a tenant's second account; the next follow in the same distance.
const OF_ACCOUNT: u32 = 100_000;
/// The first run of the second tenant; the next follow in the same distance.
const OF_TENANT: u32 = 1_000;
/// A backlog that has not gone by then never goes. Not a measure of speed: how long it took is printed.
const HANGS_AFTER: Duration = Duration::from_secs(300);
/// What still waits then waits for the schedule of retries: the clock is moved.
const SCHEDULED_AFTER: Duration = Duration::from_secs(60);
/// Between two words about a backlog that takes long.
const WORD_EVERY: Duration = Duration::from_secs(10);
/// Between looks whether it has gone.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after a change of members a pause is put down to it.
const AFTER_CHANGE_US: u64 = 15_000_000;
/// Complaints of the merchant that are kept.
const COMPLAINTS_MAX: usize = 20;

/// Which gateway takes a conversation's sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Another one with each call.
    EachCall,
    /// The same one always: two gateways that spool do not know of each other, so that order holds for each by itself.
    Pinned,
}

/// Loads a system in the background: customers write, the merchant answers each, with idempotency keys and retries until accepted.
pub struct Load {
    stop: Arc<AtomicBool>,
    complaints: Arc<Mutex<Vec<String>>>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Operation>>>,
}

/// The run that a tenant's marks name: what one tenant gets of another was never offered to it.
fn run_of(run: u32, place: Place) -> u32 {
    run + OF_TENANT * place.tenant as u32
}

impl Load {
    /// Begins, over the whole world of the system. The world's conversations are shared out among the accounts.
    pub async fn start(system: &Arc<tokio::sync::RwLock<System>>, run: u32, spread: Spread) -> Self {
        let (stop, complaints) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (places, all) = {
            let system = system.read().await;
            (system.places(), system.world.conversations)
        };
        let each = (all / places.len() as u32).max(1);
        let mut tasks = Vec::new();
        for place in places {
            let speakers = if place.tenant == 0 { CONVERSATIONS } else { SPEAKERS_OF_CROWD };
            for speaker in 0..speakers {
                let talk = Talk {
                    system: system.clone(),
                    stop: stop.clone(),
                    complaints: Arc::clone(&complaints),
                    run,
                    place,
                    speaker,
                    step: speakers,
                    conversations: each.max(speakers),
                    spread,
                };
                tasks.push(tokio::spawn(talk.hold()));
            }
        }
        Self { tasks, stop, complaints }
    }

    /// Calls of the merchant since the last look that were not answered by 202 at once, the first of them. A run without faults wants none.
    pub fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut *self.complaints.lock().expect("no conversation panics"))
    }

    /// Ends, and gives what the merchant sent.
    pub async fn finish(self) -> Vec<Operation> {
        self.stop.store(true, Ordering::SeqCst);
        let mut sends = Vec::new();
        for task in self.tasks {
            sends.extend(task.await.expect("no conversation panics"));
        }
        sends
    }
}

/// Waits until a message that is written now arrives at the subscriber. Gives how long that took.
pub async fn until_it_flows(system: &tokio::sync::RwLock<System>, run: u32) -> Duration {
    let begun = Instant::now();
    let mut next = system.read().await.inbox.count();
    for sequence in 1.. {
        let mark = Mark::inbound(run, PROBED, sequence).to_string();
        system.read().await.customer_says(Place { tenant: 0, account: 0 }, PROBED, &mark).await;
        for _ in 0..8 {
            tokio::time::sleep(LOOK_EVERY).await;
            let arrived = system.read().await.inbox.received_from(next);
            next += arrived.len() as u64;
            if arrived.iter().any(|received| String::from_utf8_lossy(&received.body).contains(&mark)) {
                return begun.elapsed();
            }
        }
        if begun.elapsed() > HANGS_AFTER {
            panic!("nothing flows after {:?}\n{}", begun.elapsed(), system.read().await.explain().await);
        }
    }
    unreachable!("the backlog's limit ends the loop")
}

/// One voice of the load: it goes round its share of an account's conversations.
struct Talk {
    system: Arc<tokio::sync::RwLock<System>>,
    stop: Arc<AtomicBool>,
    complaints: Arc<Mutex<Vec<String>>>,
    run: u32,
    place: Place,
    /// Its first conversation, and from one to the next, below how many.
    speaker: u32,
    step: u32,
    conversations: u32,
    spread: Spread,
}

impl Talk {
    async fn hold(self) -> Vec<Operation> {
        let mut sends = Vec::new();
        let (pause, kind, canary) = {
            let system = self.system.read().await;
            let pause = match (self.place.tenant, system.members.is_empty()) {
                (0, true) => PAUSE,
                (0, false) => PAUSE_ON_SERVERS,
                _ => PAUSE_IN_CROWD,
            };
            (pause, system.channel(self.place), system.canary_of(self.place.tenant))
        };
        let mut customer = self.speaker;
        for sequence in 1.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let conversation = OF_ACCOUNT * self.place.account as u32 + customer;
            let run = run_of(self.run, self.place);
            let text = format!("{} {canary}", Mark::inbound(run, conversation, sequence));
            self.system.read().await.customer_says(self.place, customer, &text).await;
            sends.extend(self.answer(Mark::outbound(run, conversation, sequence), customer, &canary).await);
            tokio::time::sleep(pause).await;
            customer += self.step;
            // Each order of a shop is a conversation of its own.
            if customer >= self.conversations && kind != ChannelKind::Woocommerce {
                customer = self.speaker;
            }
        }
        sends
    }

    /// Sends, and tries again under the same key until answered, as a careful merchant does.
    async fn answer(&self, mark: Mark, customer: u32, canary: &str) -> Option<Operation> {
        let key = mark.to_string();
        let begun_us = bench::monotonic_us();
        for _ in 0..TRIES_MAX {
            let reply = {
                let system = self.system.read().await;
                let body = system.send_to(self.place, customer, &format!("{mark} {canary}")).to_string();
                let authorization = format!("Bearer {}", system.key_of(self.place.tenant));
                let headers = [("idempotency-key", key.as_str()), ("authorization", authorization.as_str())];
                match self.spread {
                    Spread::EachCall => system.try_call("POST", "/v1/messages", &headers, &body).await,
                    Spread::Pinned => system.try_call_at(customer as usize, "POST", "/v1/messages", &headers, &body).await,
                }
            };
            let status = reply.as_ref().map(|reply| reply.status);
            if status != Some(202) {
                self.complain(mark, status);
            }
            let Some(reply) = reply.filter(|reply| !matches!(reply.status, 409 | 503)) else {
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
                continue;
            };
            let value: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
            let answer = if reply.status == 202 { Answer::Accepted } else { Answer::Refused };
            let id = value["id"].as_str().map(str::to_owned);
            return Some(Operation { mark, begun_us, answered_us: bench::monotonic_us(), answer, id });
        }
        None
    }

    fn complain(&self, mark: Mark, status: Option<u16>) {
        let mut complaints = self.complaints.lock().expect("no conversation panics");
        if complaints.len() < COMPLAINTS_MAX {
            complaints.push(format!("{mark} was answered {status:?} at {} us", bench::monotonic_us()));
        }
    }
}

/// Waits until all customers' messages that were accepted up to now have arrived at the subscriber. Gives how long that took.
///
/// # Panics
/// When they never arrive.
pub async fn until_the_backlog_is_gone(system: &tokio::sync::RwLock<System>) -> Duration {
    let begun = Instant::now();
    let (mut word, mut explained) = (begun + WORD_EVERY, false);
    let mut missing = awaited(&*system.read().await);
    let mut next: Vec<u64> = vec![0; system.read().await.tenants()];
    loop {
        for (tenant, next) in next.iter_mut().enumerate() {
            let arrived = system.read().await.inbox_of(tenant).received_from(*next);
            *next += arrived.len() as u64;
            for received in arrived {
                if let Some(mark) = Mark::find(&received.body) {
                    missing.remove(&(tenant, received.path, mark));
                }
            }
        }
        if missing.is_empty() {
            return begun.elapsed();
        }
        let waited = begun.elapsed();
        if Instant::now() >= word {
            println!("{} messages wait after {waited:?}", missing.len());
            if waited > SCHEDULED_AFTER {
                // What failed in the middle of the fault may stand in `later` for minutes.
                system.read().await.advance(WORD_EVERY).await;
            }
            if word >= begun + 3 * WORD_EVERY && !explained {
                println!("{}", system.read().await.explain().await);
                explained = true;
            }
            word += WORD_EVERY;
        }
        if waited > HANGS_AFTER {
            panic!("{} messages wait after {waited:?}\n{}", missing.len(), system.read().await.explain().await);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What each healthy endpoint is to get: (tenant, path, mark).
fn awaited(system: &System) -> HashSet<(usize, String, Mark)> {
    let mut all = HashSet::new();
    for place in system.places() {
        for offered in system.offered_by(place).iter().filter(|offered| offered.posted.accepted) {
            let Some(mark) = offered.text.as_deref().and_then(|text| Mark::find(text.as_bytes())) else { continue };
            all.extend(system.world.healthy().iter().map(|path| (place.tenant, (*path).to_owned(), mark)));
        }
    }
    all
}

/// How long the deliveries of each voice of the system's own tenant paused around each change, in milliseconds, sorted: the longest time between two first
/// arrivals of customers' messages of which the second came within 15 s after the change.
pub fn pauses_ms(system: &System, changes_us: &[u64]) -> Vec<u64> {
    let mut arrivals: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut seen = HashSet::new();
    for received in system.inbox.received() {
        let of_load = |mark: &Mark| mark.way == Way::In && mark.conversation != PROBED;
        let Some(mark) = Mark::find(&received.body).filter(of_load) else { continue };
        if seen.insert(mark) {
            // One voice goes round its conversations.
            arrivals.entry(mark.conversation % CONVERSATIONS).or_default().push(received.at_us);
        }
    }
    let mut pauses = Vec::new();
    for change in changes_us {
        for times in arrivals.values() {
            let around = times.windows(2).filter(|pair| pair[1] >= *change && pair[0] <= change + AFTER_CHANGE_US);
            pauses.extend(around.map(|pair| (pair[1] - pair[0]) / 1_000).max());
        }
    }
    pauses.sort_unstable();
    pauses
}

/// The value that a share of sorted values does not exceed; 0 when there are none.
pub fn quantile(sorted: &[u64], share: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((last as f64) * share).ceil() as usize).copied().unwrap_or(0)
}

fn print_acks(what: &str, times_us: impl Iterator<Item = u64>) {
    let mut ms: Vec<u64> = times_us.map(|us| us / 1_000).collect();
    ms.sort_unstable();
    let of = |share| quantile(&ms, share);
    println!("{} {what} accepted: p50 {} ms, p99 {} ms, longest {} ms", ms.len(), of(0.5), of(0.99), of(1.0));
}

/// Waits until every accepted send of a tenant has an end that will not change by itself, and reads the ends.
async fn ends_of(system: &System, tenant: usize, sends: &[Operation]) -> Vec<End> {
    let mut ends = Vec::new();
    let authorization = format!("Bearer {}", system.key_of(tenant));
    for send in sends.iter().filter(|send| send.answer == Answer::Accepted) {
        let id = send.id.clone().expect("an accepted send has an id");
        // The simulated platforms beside WhatsApp do not tell of each step.
        let account = (send.mark.conversation / OF_ACCOUNT) as usize;
        let last_step = if account == 0 { "read" } else { "sent" };
        let mut last = Value::Null;
        for _ in 0..600 {
            // A store that has just come back may refuse for a moment.
            let headers = [("authorization", authorization.as_str())];
            let reply = system.try_call("GET", &format!("/v1/messages/{id}"), &headers, "").await;
            if let Some(reply) = reply.filter(|reply| reply.status == 200) {
                last = serde_json::from_slice(&reply.body).expect("JSON");
            }
            let status = last["status"].as_str();
            if status == Some(last_step)
                || matches!(status, Some("read" | "failed" | "unknown" | "cancelled"))
                || (account > 0 && status == Some("delivered"))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let steps = last["history"].as_array().into_iter().flatten().filter_map(|step| status_of(step["status"].as_str()?)).collect();
        ends.push(End { message: id, steps, possible_duplicate: last["possible_duplicate"] == true, has_due_time: false });
    }
    ends
}

fn status_of(name: &str) -> Option<Status> {
    Status::ALL.iter().copied().find(|status| status.name() == name)
}

/// Waits until everything has come to rest, and has the checker judge the whole history: each tenant's by itself, and that no
/// tenant's canary stands in another's output.
pub async fn judge(system: &System, sends: Vec<Operation>) {
    let mut histories = Vec::new();
    for tenant in 0..system.tenants() {
        let of_tenant: Vec<Operation> = sends.iter().filter(|send| (send.mark.run / OF_TENANT) as usize == tenant).cloned().collect();
        let ends = ends_of(system, tenant, &of_tenant).await;
        histories.push(History { sends: of_tenant, ends, complete: true, ..History::default() });
    }
    // Deliveries of the last statuses arrive.
    let count_all = || (0..system.tenants()).map(|tenant| system.inbox_of(tenant).count()).sum::<u64>();
    let mut count = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = count_all();
        if now == count {
            break;
        }
        count = now;
    }
    system.until_at_rest().await;
    let took = |begun_us: u64, answered_us: u64| answered_us.saturating_sub(begun_us);
    let offered: Vec<_> = system.places().into_iter().flat_map(|place| system.offered_by(place)).collect();
    print_acks("webhooks", offered.iter().filter(|offered| offered.posted.accepted).map(|one| took(one.begun_us, one.answered_us)));
    print_acks("sends", sends.iter().map(|send| took(send.begun_us, send.answered_us)));
    let canaries: Vec<Canary> = (0..system.tenants())
        .map(|tenant| Canary { kind: CanaryKind::Tenant(tenant.to_string()), text: system.canary_of(tenant) })
        .collect();
    for (tenant, mut history) in histories.into_iter().enumerate() {
        let inbox = system.inbox_of(tenant);
        let came = inbox.count();
        let received = inbox.received();
        assert!(received.len() as u64 >= came, "the subscriber kept everything");
        for place in system.places().into_iter().filter(|place| place.tenant == tenant) {
            history.add_platform(&system.offered_by(place), &system.calls_of(place));
        }
        for path in system.world.healthy() {
            let of_endpoint: Vec<_> = received.iter().filter(|received| received.path == *path).cloned().collect();
            history.add_endpoint(path, &of_endpoint);
        }
        let output = |received: &Received| Output {
            tenant: Some(tenant.to_string()),
            place: format!("tenant {tenant}'s {}", received.path),
            bytes: received.body.clone(),
        };
        history.canaries = canaries.clone();
        history.outputs = received.iter().map(output).collect();
        history.outputs.push(feed_of(system, tenant).await);
        let verdict = checker::check(&history);
        println!("tenant {tenant}: {verdict}");
        assert!(verdict.accepted > 0, "something was accepted");
        assert!(verdict.is_clean(), "tenant {tenant}: {verdict}\n{}", system.explain().await);
    }
}

/// The newest page of a tenant's feed.
async fn feed_of(system: &System, tenant: usize) -> Output {
    let feed = system.ok_as(system.key_of(tenant), "GET", "/v1/events", &Value::Null).await;
    Output { tenant: Some(tenant.to_string()), place: format!("tenant {tenant}'s feed"), bytes: feed.to_string().into() }
}

/// Platforms that answer fast.
pub fn platforms() -> SimOptions {
    SimOptions { statuses: fast(), answer_delay: Duration::from_millis(3), ..SimOptions::default() }
}
