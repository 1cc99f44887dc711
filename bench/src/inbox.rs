//! A subscriber, simulated: takes any POST and keeps it as it came, verifying nothing (that is the test's task, with the
//! `standardwebhooks` library). A test chooses what it answers, and can take it down and up again on the same port.
//!
//! `GET /` shows the newest events to people, `GET /events` as JSON.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use messaging::clock::{Clock, SystemClock, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::http::{Reply, Request, Server, json_reply, reply};
use crate::locked;

/// Longest that an answer is held back.
const DELAY_MAX: Duration = Duration::from_secs(600);
/// Events that `GET /` shows.
const SHOWN_MAX: usize = 50;
/// Answers that a script holds at most.
const SCRIPT_MAX: usize = 1_000_000;
/// Tries to take the old port again, and the pause between them.
const REOPEN_TRIES: u32 = 100;
const REOPEN_PAUSE: Duration = Duration::from_millis(20);

/// How an inbox is set up.
#[derive(Debug, Clone)]
pub struct InboxOptions {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Requests kept; the oldest go first.
    pub keep_max: usize,
}

impl Default for InboxOptions {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), keep_max: 200_000 }
    }
}

/// What the inbox does with a request. Each request is kept before it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxAnswer {
    /// Answers with this status.
    Status(u16),
    /// Answers with this status and `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Answers with this status after a while.
    Delay(Duration, u16),
    /// Answers with this status and a body of so many bytes.
    Body(u16, usize),
    /// Answers with a redirection to this address.
    Redirect(String),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its number, from 0, also when older ones are no longer kept.
    pub number: u64,
    /// When, by the wall clock.
    pub at: Timestamp,
    /// When, by this process's monotonic clock, see `bench::monotonic_us`.
    pub at_us: u64,
    /// The path.
    pub path: String,
    /// The headers.
    pub headers: hyper::HeaderMap,
    /// The raw body.
    pub body: Bytes,
    /// The status that it was answered with; none: the connection was cut.
    pub status: Option<u16>,
}

impl Received {
    /// A header as text; none when it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the sender was told that it was taken.
    pub fn is_acknowledged(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    fn show(&self) -> Value {
        let body = serde_json::from_slice(&self.body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&self.body)));
        json!({
            "number": self.number, "at": self.at, "path": self.path, "status": self.status,
            "webhook-id": self.header("webhook-id"), "attempt": self.header("trunkline-attempt"), "body": body,
        })
    }

    fn line(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        let kind = body["type"].as_str().unwrap_or("?");
        let text = body["data"].to_string();
        let short: String = text.chars().take(160).collect();
        let status = self.status.map_or("cut".to_owned(), |status| status.to_string());
        format!("{} {status} attempt {} {kind} {short}\n", self.at, self.header("trunkline-attempt").unwrap_or("-"))
    }
}

/// Looks at each request as it comes, before it is answered. Must not block.
pub type Observer = Arc<dyn Fn(&Received) + Send + Sync>;

struct Answers {
    next: VecDeque<InboxAnswer>,
    by_path: HashMap<String, InboxAnswer>,
    standing: InboxAnswer,
}

struct State {
    kept: Mutex<VecDeque<Received>>,
    keep_max: usize,
    count: watch::Sender<u64>,
    answers: Mutex<Answers>,
    observer: Option<Observer>,
    clock: SystemClock,
}

/// A running subscriber.
pub struct Inbox {
    state: Arc<State>,
    addr: SocketAddr,
    server: tokio::sync::Mutex<Option<Server>>,
}

impl Inbox {
    /// Starts it. Errors: the address cannot be bound.
    pub async fn start(options: InboxOptions) -> io::Result<Self> {
        Self::observed(options, None).await
    }

    /// Starts it with an observer.
    pub async fn observed(options: InboxOptions, observer: Option<Observer>) -> io::Result<Self> {
        let answers = Answers { next: VecDeque::new(), by_path: HashMap::new(), standing: InboxAnswer::Status(200) };
        let state = Arc::new(State {
            kept: Mutex::default(),
            keep_max: options.keep_max,
            count: watch::Sender::new(0),
            answers: Mutex::new(answers),
            observer,
            clock: SystemClock::default(),
        });
        let server = open(&state, options.listen).await?;
        Ok(Self { addr: server.addr(), server: tokio::sync::Mutex::new(Some(server)), state })
    }

    /// Its address as `http://…`, also while it is down.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The answers of the next requests, in order; after them the standing answer.
    pub fn script(&self, answers: impl IntoIterator<Item = InboxAnswer>) {
        let mut state = locked(&self.state.answers);
        state.next.extend(answers);
        assert!(state.next.len() <= SCRIPT_MAX, "a script holds at most {SCRIPT_MAX} answers");
    }

    /// The answer when nothing else is asked for.
    pub fn standing_answer(&self, answer: InboxAnswer) {
        locked(&self.state.answers).standing = answer;
    }

    /// The answer for one path, before any script: one inbox can play many endpoints. `None` takes the rule away.
    pub fn answer_path(&self, path: &str, answer: Option<InboxAnswer>) {
        let rules = &mut locked(&self.state.answers).by_path;
        match answer {
            Some(answer) => rules.insert(path.to_owned(), answer),
            None => rules.remove(path),
        };
    }

    /// Closes the listener and breaks the connections: from now on nobody answers.
    pub async fn down(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
    }

    /// Listens again on the same port. Errors: somebody else took it meanwhile.
    pub async fn up(&self) -> io::Result<()> {
        let mut server = self.server.lock().await;
        let mut tries = 0;
        while server.is_none() {
            match open(&self.state, self.addr).await {
                Ok(opened) => *server = Some(opened),
                Err(error) if tries >= REOPEN_TRIES => return Err(error),
                Err(_) => tokio::time::sleep(REOPEN_PAUSE).await,
            }
            tries += 1;
        }
        Ok(())
    }

    /// What is kept, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        locked(&self.state.kept).iter().cloned().collect()
    }

    /// What is kept from a number on, in order of arrival: for looking again and again.
    pub fn received_from(&self, number: u64) -> Vec<Received> {
        let kept = locked(&self.state.kept);
        let gone = kept.front().map_or(0, |first| first.number);
        let skipped = usize::try_from(number.saturating_sub(gone)).unwrap_or(usize::MAX);
        kept.iter().skip(skipped).cloned().collect()
    }

    /// How many requests came in all.
    pub fn count(&self) -> u64 {
        *self.state.count.borrow()
    }

    /// Forgets what is kept; numbers go on.
    pub fn clear(&self) {
        locked(&self.state.kept).clear();
    }

    /// Returns true once `count` requests have come in all, false when `within` passes first.
    pub async fn wait_count(&self, count: u64, within: Duration) -> bool {
        let mut seen = self.state.count.subscribe();
        tokio::time::timeout(within, seen.wait_for(|came| *came >= count)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// Returns the first kept request that `wanted` accepts, once it has come; none when `within` passes first.
    pub async fn wait_for(&self, within: Duration, wanted: impl Fn(&Received) -> bool) -> Option<Received> {
        let mut seen = self.state.count.subscribe();
        let search = async {
            loop {
                seen.borrow_and_update();
                if let Some(found) = locked(&self.state.kept).iter().find(|received| wanted(received)).cloned() {
                    return Some(found);
                }
                seen.changed().await.ok()?;
            }
        };
        tokio::time::timeout(within, search).await.unwrap_or(None)
    }
}

async fn open(state: &Arc<State>, addr: SocketAddr) -> io::Result<Server> {
    let state = state.clone();
    Server::start(addr, move |request| {
        let state = state.clone();
        async move { answer(&state, request).await }
    })
    .await
}

impl State {
    fn choose(&self, path: &str) -> InboxAnswer {
        let mut answers = locked(&self.answers);
        if let Some(answer) = answers.by_path.get(path) {
            return answer.clone();
        }
        answers.next.pop_front().unwrap_or_else(|| answers.standing.clone())
    }

    fn keep(&self, mut received: Received) {
        let mut kept = locked(&self.kept);
        received.number = *self.count.borrow();
        if let Some(observer) = &self.observer {
            observer(&received);
        }
        if self.keep_max > 0 {
            if kept.len() >= self.keep_max {
                kept.pop_front();
            }
            kept.push_back(received);
        }
        // Told while the lock is held, so that whoever waits for a number finds its request.
        self.count.send_modify(|count| *count += 1);
    }
}

async fn answer(state: &State, mut request: Request) -> Reply {
    if request.method == hyper::Method::GET {
        return show(state, &request);
    }
    let Ok(body) = request.body().await else { return Reply::Close };
    let chosen = state.choose(&request.path);
    let status = match &chosen {
        InboxAnswer::Status(status) | InboxAnswer::RetryAfter(status, _) | InboxAnswer::Delay(_, status) | InboxAnswer::Body(status, _) => {
            Some(*status)
        }
        InboxAnswer::Redirect(_) => Some(302),
        InboxAnswer::Close | InboxAnswer::Reset => None,
    };
    let (at, at_us) = (state.clock.now(), crate::monotonic_us());
    state.keep(Received { number: 0, at, at_us, path: request.path, headers: request.headers, body, status });
    match chosen {
        InboxAnswer::Status(status) => reply(status, "text/plain", ""),
        InboxAnswer::RetryAfter(status, seconds) => {
            reply(status, "text/plain", "").with_header(hyper::header::RETRY_AFTER, &seconds.to_string())
        }
        InboxAnswer::Delay(delay, status) => {
            tokio::time::sleep(delay.min(DELAY_MAX)).await;
            reply(status, "text/plain", "")
        }
        InboxAnswer::Body(status, bytes) => reply(status, "text/plain", vec![b'x'; bytes]),
        InboxAnswer::Redirect(to) => reply(302, "text/plain", "").with_header(hyper::header::LOCATION, &to),
        InboxAnswer::Close => Reply::Close,
        InboxAnswer::Reset => Reply::Reset,
    }
}

fn show(state: &State, request: &Request) -> Reply {
    let kept = locked(&state.kept);
    let newest: Vec<&Received> = kept.iter().skip(kept.len().saturating_sub(SHOWN_MAX)).collect();
    if request.path == "/events" {
        return json_reply(200, &json!(newest.iter().map(|received| received.show()).collect::<Vec<_>>()));
    }
    let mut page = format!("{} events came, the newest last (JSON: /events)\n\n", *state.count.borrow());
    for received in newest {
        page.push_str(&received.line());
    }
    reply(200, "text/plain; charset=utf-8", page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Client;

    async fn post(inbox: &Inbox, path: &str, body: &str) -> Result<crate::http::Response, crate::http::ClientError> {
        let url = format!("{}{path}", inbox.url());
        Client::new(Duration::from_secs(5)).post(&url, &[("webhook-id", "evt_1"), ("trunkline-attempt", "1")], body.to_owned()).await
    }

    #[tokio::test]
    async fn answers_are_chosen_by_path_then_script_then_the_standing_one() {
        let inbox = Inbox::start(InboxOptions::default()).await.unwrap();
        inbox.answer_path("/dead", Some(InboxAnswer::Status(410)));
        inbox.script([
            InboxAnswer::RetryAfter(503, 9),
            InboxAnswer::Close,
            InboxAnswer::Reset,
            InboxAnswer::Delay(Duration::from_millis(1), 201),
        ]);
        assert_eq!(post(&inbox, "/dead", "0").await.unwrap().status, 410);
        let busy = post(&inbox, "/a", "1").await.unwrap();
        assert_eq!((busy.status, busy.retry_after()), (503, Some(Duration::from_secs(9))));
        assert!(post(&inbox, "/a", "2").await.is_err());
        assert!(post(&inbox, "/a", "3").await.is_err());
        assert_eq!(post(&inbox, "/a", "4").await.unwrap().status, 201);
        assert_eq!(post(&inbox, "/a", "5").await.unwrap().status, 200);
        let received = inbox.received();
        let statuses: Vec<Option<u16>> = received.iter().map(|received| received.status).collect();
        assert_eq!(statuses, [Some(410), Some(503), None, None, Some(201), Some(200)]);
        assert_eq!(received.iter().map(|received| received.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!((received[5].header("webhook-id"), &received[5].body[..]), (Some("evt_1"), &b"5"[..]));
    }

    #[tokio::test]
    async fn it_goes_down_and_comes_back_on_the_same_port() {
        let inbox = Inbox::start(InboxOptions::default()).await.unwrap();
        post(&inbox, "/", "before").await.unwrap();
        for _ in 0..3 {
            inbox.down().await;
            assert!(post(&inbox, "/", "lost").await.unwrap_err().is_unsent());
            inbox.up().await.unwrap();
            post(&inbox, "/", "after").await.unwrap();
        }
        assert_eq!(inbox.count(), 4);
    }

    #[tokio::test]
    async fn only_so_many_are_kept_and_people_can_look() {
        let seen = Arc::new(Mutex::new(0));
        let counted = seen.clone();
        let observer: Observer = Arc::new(move |_| *locked(&counted) += 1);
        let inbox = Inbox::observed(InboxOptions { keep_max: 2, ..InboxOptions::default() }, Some(observer)).await.unwrap();
        for number in 0..4 {
            post(&inbox, "/", &format!(r#"{{"type":"message.received","data":{{"n":{number}}}}}"#)).await.unwrap();
        }
        assert!(inbox.wait_count(4, Duration::from_secs(5)).await);
        assert_eq!(inbox.received().iter().map(|received| received.number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(*locked(&seen), 4);
        let third = inbox.wait_for(Duration::from_secs(5), |received| received.number == 3).await;
        assert!(third.is_some());
        let client = Client::new(Duration::from_secs(5));
        let page = client.get(&inbox.url()).await.unwrap();
        assert!(String::from_utf8_lossy(&page.body).contains("message.received"));
        let events: Value = serde_json::from_slice(&client.get(&format!("{}/events", inbox.url())).await.unwrap().body).unwrap();
        assert_eq!(events[1]["body"]["data"]["n"], 3);
    }
}
