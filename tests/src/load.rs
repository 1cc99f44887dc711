//! The load of the fault tests: customers write, a careful merchant answers each, and the checker judges what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bench::checker::{self, Answer, End, History, Operation};
use bench::mark::Mark;
use bench::platform::SimOptions;
use messaging::outcome::Status;
use serde_json::Value;

use crate::{System, fast};

/// Customers who write.
const CONVERSATIONS: u32 = 12;
/// Between two sends of a conversation: so that the load stays below what a small installation carries, and a backlog can go.
const PAUSE: Duration = Duration::from_millis(40);
/// The conversation of the probes.
const PROBED: u32 = CONVERSATIONS;
/// Longest wait for a backlog to go.
const BACKLOG: Duration = Duration::from_secs(60);

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
    tasks: Vec<tokio::task::JoinHandle<Vec<Operation>>>,
}

fn phone(conversation: u32) -> String {
    format!("1555{:07}", 7000 + conversation)
}

impl Load {
    /// Begins.
    pub fn start(system: &Arc<tokio::sync::RwLock<System>>, run: u32, spread: Spread) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..CONVERSATIONS).map(|conversation| {
            let (system, stop) = (system.clone(), stop.clone());
            tokio::spawn(converse(system, stop, run, conversation, spread))
        });
        Self { tasks: tasks.collect(), stop }
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
    for sequence in 1.. {
        let mark = Mark::inbound(run, PROBED, sequence).to_string();
        system.read().await.whatsapp.customer_writes(&phone(PROBED), &mark).await;
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let arrived = system.read().await.inbox.received();
            if arrived.iter().any(|received| String::from_utf8_lossy(&received.body).contains(&mark)) {
                return begun.elapsed();
            }
        }
        assert!(begun.elapsed() < BACKLOG, "nothing flows after {:?}\n{}", begun.elapsed(), system.read().await.last_lines());
    }
    unreachable!("the backlog's limit ends the loop")
}

async fn converse(
    system: Arc<tokio::sync::RwLock<System>>,
    stop: Arc<AtomicBool>,
    run: u32,
    conversation: u32,
    spread: Spread,
) -> Vec<Operation> {
    let mut sends = Vec::new();
    let mut sequence = 0;
    while !stop.load(Ordering::SeqCst) {
        sequence += 1;
        let text = Mark::inbound(run, conversation, sequence).to_string();
        system.read().await.whatsapp.customer_writes(&phone(conversation), &text).await;
        let mark = Mark::outbound(run, conversation, sequence);
        let key = format!("{mark}");
        let begun_us = bench::monotonic_us();
        // Retried under the same key until answered, as a careful merchant does.
        for _ in 0..400 {
            let reply = {
                let system = system.read().await;
                let body = system.text(&phone(conversation), &mark.to_string()).to_string();
                let headers = [("idempotency-key", key.as_str())];
                match spread {
                    Spread::EachCall => system.try_call("POST", "/v1/messages", &headers, &body).await,
                    Spread::Pinned => system.try_call_at(conversation as usize, "POST", "/v1/messages", &headers, &body).await,
                }
            };
            let Some(reply) = reply else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            if matches!(reply.status, 409 | 503) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let value: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
            let answer = if reply.status == 202 { Answer::Accepted } else { Answer::Refused };
            let id = value["id"].as_str().map(str::to_owned);
            sends.push(Operation { mark, begun_us, answered_us: bench::monotonic_us(), answer, id });
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    sends
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
    let mut history = History { sends, ends, complete: true, ..History::default() };
    history.add_platform(&system.whatsapp.offered(), &system.whatsapp.calls());
    history.add_endpoint("crm", &system.inbox.received());
    let verdict = checker::check(&history);
    println!("{verdict}");
    assert!(verdict.accepted > 0, "something was accepted");
    assert!(verdict.is_clean(), "{verdict}");
}

/// Platforms that answer fast.
pub fn platforms() -> SimOptions {
    SimOptions { statuses: fast(), answer_delay: Duration::from_millis(3), ..SimOptions::default() }
}
