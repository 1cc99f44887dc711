//! The load of the fault tests: customers write, a careful merchant answers each, and the checker judges what came of it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::checker::{self, Answer, End, History, Operation};
use bench::mark::{Mark, Way};
use bench::platform::SimOptions;
use messaging::outcome::Status;
use serde_json::Value;

use crate::{System, fast};

/// Customers who write.
const CONVERSATIONS: u32 = 12;
/// Between two sends of a conversation: so that the load stays below what a small installation carries, and a backlog can go.
const PAUSE: Duration = Duration::from_millis(40);
/// The same for several processes on real servers, which share the machine with them.
const PAUSE_ON_SERVERS: Duration = Duration::from_millis(100);
/// Tries of one send, and the pause between them.
const TRIES_MAX: usize = 400;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// The conversation of the probes.
const PROBED: u32 = CONVERSATIONS;
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

fn phone(conversation: u32) -> String {
    format!("1555{:07}", 7000 + conversation)
}

impl Load {
    /// Begins.
    pub fn start(system: &Arc<tokio::sync::RwLock<System>>, run: u32, spread: Spread) -> Self {
        let (stop, complaints) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let tasks = (0..CONVERSATIONS).map(|conversation| {
            let talk = Talk { system: system.clone(), stop: stop.clone(), complaints: Arc::clone(&complaints), run, conversation, spread };
            tokio::spawn(talk.hold())
        });
        Self { tasks: tasks.collect(), stop, complaints }
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
        system.read().await.whatsapp.customer_writes(&phone(PROBED), &mark).await;
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

/// One conversation of the load.
struct Talk {
    system: Arc<tokio::sync::RwLock<System>>,
    stop: Arc<AtomicBool>,
    complaints: Arc<Mutex<Vec<String>>>,
    run: u32,
    conversation: u32,
    spread: Spread,
}

impl Talk {
    async fn hold(self) -> Vec<Operation> {
        let mut sends = Vec::new();
        let mut sequence = 0;
        let pause = if self.system.read().await.members.is_empty() { PAUSE } else { PAUSE_ON_SERVERS };
        while !self.stop.load(Ordering::SeqCst) {
            sequence += 1;
            let text = Mark::inbound(self.run, self.conversation, sequence).to_string();
            self.system.read().await.whatsapp.customer_writes(&phone(self.conversation), &text).await;
            sends.extend(self.answer(Mark::outbound(self.run, self.conversation, sequence)).await);
            tokio::time::sleep(pause).await;
        }
        sends
    }

    /// Sends, and tries again under the same key until answered, as a careful merchant does.
    async fn answer(&self, mark: Mark) -> Option<Operation> {
        let key = mark.to_string();
        let begun_us = bench::monotonic_us();
        for _ in 0..TRIES_MAX {
            let reply = {
                let system = self.system.read().await;
                let body = system.text(&phone(self.conversation), &mark.to_string()).to_string();
                let headers = [("idempotency-key", key.as_str())];
                match self.spread {
                    Spread::EachCall => system.try_call("POST", "/v1/messages", &headers, &body).await,
                    Spread::Pinned => system.try_call_at(self.conversation as usize, "POST", "/v1/messages", &headers, &body).await,
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
    let mut missing: HashSet<Mark> = {
        let offered = system.read().await.whatsapp.offered();
        let accepted = offered.iter().filter(|offered| offered.posted.accepted);
        accepted.filter_map(|offered| Mark::find(offered.text.as_deref()?.as_bytes())).collect()
    };
    let mut next = 0;
    loop {
        let arrived = system.read().await.inbox.received_from(next);
        next += arrived.len() as u64;
        for received in arrived {
            if let Some(mark) = Mark::find(&received.body) {
                missing.remove(&mark);
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

/// How long each conversation's deliveries paused around each change, in milliseconds, sorted: the longest time between two first
/// arrivals of customers' messages of which the second came within 15 s after the change.
pub fn pauses_ms(system: &System, changes_us: &[u64]) -> Vec<u64> {
    let mut arrivals: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut seen = HashSet::new();
    for received in system.inbox.received() {
        let Some(mark) = Mark::find(&received.body).filter(|mark| mark.way == Way::In && mark.conversation < CONVERSATIONS) else {
            continue;
        };
        if seen.insert(mark) {
            arrivals.entry(mark.conversation).or_default().push(received.at_us);
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

/// Waits until every accepted send has an end that will not change by itself, and reads the ends.
async fn ends_of(system: &System, sends: &[Operation]) -> Vec<End> {
    let mut ends = Vec::new();
    for send in sends.iter().filter(|send| send.answer == Answer::Accepted) {
        let id = send.id.clone().expect("an accepted send has an id");
        let mut last = Value::Null;
        for _ in 0..600 {
            // A store that has just come back may refuse for a moment.
            let reply = system.try_call("GET", &format!("/v1/messages/{id}"), &[], "").await;
            if let Some(reply) = reply.filter(|reply| reply.status == 200) {
                last = serde_json::from_slice(&reply.body).expect("JSON");
            }
            if matches!(last["status"].as_str(), Some("read" | "failed" | "unknown")) {
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

/// Waits until everything has come to rest, and has the checker judge the whole history.
pub async fn judge(system: &System, sends: Vec<Operation>) {
    let ends = ends_of(system, &sends).await;
    // Deliveries of the last statuses arrive.
    let mut count = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = system.inbox.count();
        if now == count {
            break;
        }
        count = now;
    }
    let came = system.inbox.count();
    let received = system.inbox.received();
    assert!(received.len() as u64 >= came, "the subscriber kept everything");
    let offered = system.whatsapp.offered();
    let took = |begun_us: u64, answered_us: u64| answered_us.saturating_sub(begun_us);
    print_acks("webhooks", offered.iter().filter(|offered| offered.posted.accepted).map(|one| took(one.begun_us, one.answered_us)));
    print_acks("sends", sends.iter().map(|send| took(send.begun_us, send.answered_us)));
    let mut history = History { sends, ends, complete: true, ..History::default() };
    history.add_platform(&offered, &system.whatsapp.calls());
    history.add_endpoint("crm", &received);
    let verdict = checker::check(&history);
    println!("{verdict}");
    assert!(verdict.accepted > 0, "something was accepted");
    assert!(verdict.is_clean(), "{verdict}");
}

/// Platforms that answer fast.
pub fn platforms() -> SimOptions {
    SimOptions { statuses: fast(), answer_delay: Duration::from_millis(3), ..SimOptions::default() }
}
