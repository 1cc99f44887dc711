//! A server whose answers the test chooses.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    Body(u16, String),
    CloseAfterRead,
    Hang,
}

#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: String,
    pub kind: String,
    pub sequence: u64,
    pub attempt: u32,
    pub conversation: String,
    pub headers: HashMap<String, String>,
    pub raw: String,
    pub body: serde_json::Value,
}

pub struct Server {
    pub url: String,
    requests: Mutex<Vec<(HashMap<String, String>, String)>>,
    answers: Mutex<VecDeque<Answer>>,
    usual: Box<dyn Fn(usize) -> String + Send + Sync>,
    news: Notify,
    /// What every request is refused with.
    refusal: Mutex<Option<u16>>,
    /// Which requests were answered 2xx, by their place.
    taken: Mutex<Vec<usize>>,
    /// Requests that may be answered, while not all may.
    gate: Mutex<Option<Arc<Semaphore>>>,
}

impl Server {
    pub async fn start(usual: impl Fn(usize) -> String + Send + Sync + 'static) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            requests: Mutex::default(),
            answers: Mutex::default(),
            usual: Box::new(usual),
            news: Notify::new(),
            refusal: Mutex::default(),
            taken: Mutex::default(),
            gate: Mutex::default(),
        });
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        server
    }

    async fn serve(self: Arc<Self>, mut stream: tokio::net::TcpStream) {
        let mut buffer = Vec::new();
        loop {
            let (headers, body, used) = loop {
                if let Some(request) = parse(&buffer) {
                    break request;
                }
                let mut chunk = [0; 16384];
                match stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => buffer.extend_from_slice(&chunk[..n]),
                }
            };
            buffer.drain(..used);
            let answer = self.answers.lock().unwrap().pop_front();
            let count = {
                let mut requests = self.requests.lock().unwrap();
                requests.push((headers, body));
                requests.len()
            };
            self.news.notify_waiters();
            let gate = self.gate.lock().unwrap().clone();
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            let refusal = *self.refusal.lock().unwrap();
            let (status, body) = match answer {
                None => refusal.map_or_else(|| (200, (self.usual)(count)), |status| (status, String::new())),
                Some(Answer::Status(status)) => (status, String::new()),
                Some(Answer::Body(status, body)) => (status, body),
                Some(Answer::CloseAfterRead) => return,
                Some(Answer::Hang) => {
                    std::future::pending::<()>().await;
                    return;
                }
            };
            if status < 300 {
                self.taken.lock().unwrap().push(count - 1);
            }
            let reply = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    pub fn answer_next(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }
    /// Refuses every request from now on.
    pub fn refuse_all(&self, status: u16) {
        *self.refusal.lock().unwrap() = Some(status);
    }
    /// Takes them again.
    pub fn refuse_none(&self) {
        *self.refusal.lock().unwrap() = None;
    }
    /// The deliveries that were answered 2xx, in order.
    pub fn accepted(&self) -> Vec<Delivery> {
        let all = self.all();
        self.taken.lock().unwrap().iter().map(|place| all[*place].clone()).collect()
    }
    /// How many of a kind were answered 2xx.
    pub fn accepted_of(&self, kind: &str) -> usize {
        let words = format!(r#""type":"{kind}""#);
        let (taken, requests) = (self.taken.lock().unwrap(), self.requests.lock().unwrap());
        taken.iter().filter(|place| requests[**place].1.contains(&words)).count()
    }
    /// How many requests were answered 2xx.
    pub fn accepted_calls(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
    /// Answers only so many requests from now on, until [`Server::open`].
    pub fn hold(&self, answers: usize) {
        *self.gate.lock().unwrap() = Some(Arc::new(Semaphore::new(answers)));
    }
    /// Answers whatever waits and comes.
    pub fn open(&self) {
        if let Some(gate) = self.gate.lock().unwrap().take() {
            gate.add_permits(Semaphore::MAX_PERMITS / 2);
        }
    }
    /// What was to be answered and was not asked for.
    pub fn forget_answers(&self) {
        self.answers.lock().unwrap().clear();
    }
    pub fn calls(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
    pub fn bodies(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
    pub fn all(&self) -> Vec<Delivery> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .map(|(headers, raw)| {
                let body: serde_json::Value = serde_json::from_str(raw).unwrap();
                Delivery {
                    id: headers["webhook-id"].clone(),
                    kind: body["type"].as_str().unwrap().to_owned(),
                    sequence: headers["trunkline-sequence"].parse().unwrap(),
                    attempt: headers["trunkline-attempt"].parse().unwrap(),
                    conversation: headers["trunkline-conversation"].clone(),
                    headers: headers.clone(),
                    raw: raw.clone(),
                    body,
                }
            })
            .collect()
    }
    pub fn of_kind(&self, kind: &str) -> Vec<Delivery> {
        self.all().into_iter().filter(|d| d.kind == kind).collect()
    }
    pub async fn wait_for(&self, count: usize) -> Vec<Delivery> {
        self.wait(|server| server.calls() >= count, || format!("{count} deliveries")).await;
        self.all()
    }
    pub async fn wait_for_kind(&self, kind: &str, count: usize) -> Vec<Delivery> {
        self.wait(|server| server.of_kind(kind).len() >= count, || format!("{count} of {kind}")).await;
        self.of_kind(kind)
    }
    /// Waits for the first request.
    pub async fn wait_for_call(&self) {
        self.wait(|server| server.calls() >= 1, || "a call".to_owned()).await;
    }
    /// All deliveries, once one of them holds these words.
    pub async fn wait_for_body(&self, words: &str) -> Vec<Delivery> {
        self.wait(|server| server.bodies().iter().any(|body| body.contains(words)), || words.to_owned()).await;
        self.all()
    }
    async fn wait(&self, done: impl Fn(&Self) -> bool, what: impl Fn() -> String) {
        let waiting = async {
            loop {
                let news = self.news.notified();
                if done(self) {
                    return;
                }
                news.await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), waiting).await.is_err() {
            let seen: Vec<_> = self.bodies().iter().map(|body| body.chars().take(300).collect::<String>()).collect();
            panic!("waited in vain for {}; seen: {seen:#?}", what());
        }
    }
}

fn parse(buffer: &[u8]) -> Option<(HashMap<String, String>, String, usize)> {
    let end = buffer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&buffer[..end]).unwrap();
    let headers: HashMap<String, String> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
    let used = end + 4 + length;
    (buffer.len() >= used).then(|| (headers, String::from_utf8(buffer[end + 4..used].to_vec()).unwrap(), used))
}
