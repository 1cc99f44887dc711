//! Servers of our own, limiters over them, and ways to wait for both.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use messaging::clock::{ManualClock, SharedClock, Timestamp};
use messaging::limit::conformance::Settle;
use messaging::limit::redis::{RedisLimit, RedisSettings, TimeSource};
use messaging::limit::{Admission, Budget, BudgetKey, BudgetScope, Limit};
use tempfile::TempDir;

/// How long a server may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server that `tests/servers` started.
pub fn shared_redis() -> String {
    std::env::var("TRUNKLINE_TEST_REDIS").expect("TRUNKLINE_TEST_REDIS is not set: run `tests/servers up redis` and set what it prints")
}

/// A prefix that no other test has.
pub fn fresh_prefix() -> String {
    format!("t{}", uuid::Uuid::now_v7().simple())
}

/// Settings whose time is the test's.
pub fn settings(address: &str) -> RedisSettings {
    RedisSettings {
        prefix: fresh_prefix(),
        own: Vec::new(),
        time: TimeSource::Caller,
        // Machines that build and test at once are slow; nothing here waits for it in vain.
        timeout: Duration::from_secs(2),
        ..RedisSettings::at(address.parse().expect("a good address"))
    }
}

pub fn clock() -> Arc<ManualClock> {
    ManualClock::at(Timestamp::from_secs(1_795_168_800))
}

/// A runtime for the agents of a test that is not async.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub async fn open(settings: RedisSettings, clock: SharedClock) -> Arc<RedisLimit> {
    RedisLimit::open(settings, clock).await.expect("settings that work")
}

/// Waits until a limiter has nothing under way; whether something was done.
pub fn settle(limit: Arc<RedisLimit>) -> Settle {
    let last = AtomicU64::new(limit.activity().ended);
    Box::new(move || {
        until("the limiter is at rest", || !limit.activity().is_open);
        let ended = limit.activity().ended;
        last.swap(ended, Ordering::AcqRel) != ended
    })
}

/// Polls; for threads that block.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Polls; for tasks.
#[track_caller]
pub fn eventually(what: &'static str, is_so: impl Fn() -> bool) -> impl Future<Output = ()> {
    let end = Instant::now() + PATIENCE;
    async move {
        while !is_so() {
            assert!(Instant::now() < end, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A limiter that is waited for after each call.
pub struct Process {
    pub limit: Arc<RedisLimit>,
    settle: Settle,
}

impl Process {
    pub async fn open(settings: RedisSettings, clock: SharedClock) -> Self {
        let limit = open(settings, clock).await;
        Self { settle: settle(limit.clone()), limit }
    }

    /// Waits for what is under way.
    pub fn settle(&self) -> bool {
        tokio::task::block_in_place(|| (self.settle)())
    }

    /// The answer once Redis has nothing to add.
    pub fn admit(&self, budgets: &[(BudgetKey, Budget)]) -> Admission {
        loop {
            let admission = self.limit.admit(budgets);
            let is_news = self.settle();
            if admission == Admission::Go || !is_news {
                return admission;
            }
        }
    }

    pub fn goes(&self, budget: (BudgetKey, Budget)) -> bool {
        self.admit(&[budget]) == Admission::Go
    }

    /// How many go of so many tries.
    pub fn count(&self, budget: (BudgetKey, Budget), tries: usize) -> usize {
        (0..tries).filter(|_| self.goes(budget)).count()
    }
}

pub fn account(owner: u8, rate_per_second: f64, burst: u32) -> (BudgetKey, Budget) {
    let scope = BudgetScope::Account;
    (BudgetKey { scope, owner: [owner; 16] }, Budget { scope, rate_per_second, burst })
}

/// A server of a test's own. Ends with it.
pub struct Server {
    child: Option<Child>,
    pub port: u16,
    folder: TempDir,
    options: Vec<String>,
}

impl Server {
    /// Starts one with these options, one line of its configuration each.
    pub fn start(options: &[&str]) -> Self {
        Self::start_at(free_port(), options)
    }

    pub fn start_at(port: u16, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { child: None, port, folder, options };
        server.again();
        server
    }

    /// A sentinel that watches a master by the name `main`.
    pub fn sentinel(master: u16) -> Self {
        Self::start(&["sentinel", &format!("sentinel monitor main 127.0.0.1 {master} 1")])
    }

    /// Starts it on the same port, empty.
    pub fn again(&mut self) {
        let program = std::env::var("TRUNKLINE_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let is_sentinel = self.options.first().is_some_and(|option| option == "sentinel");
        let mut lines = format!("port {}\nbind 127.0.0.1\ndir {}\n", self.port, self.folder.path().display());
        if !is_sentinel {
            lines.push_str("save \"\"\nappendonly no\n");
        }
        for option in self.options.iter().skip(usize::from(is_sentinel)) {
            lines.push_str(option);
            lines.push('\n');
        }
        let file = self.folder.path().join("redis.conf");
        std::fs::write(&file, lines).expect("the folder is ours");
        let mut command = Command::new(&program);
        command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        if is_sentinel {
            command.arg("--sentinel");
        }
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("{program} does not start ({error}): install redis-server, or name it in TRUNKLINE_TEST_REDIS_SERVER")
        }));
        until("the server answers", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(status.success());
    }

    /// A command, past the limiter.
    pub fn call(&self, words: &[&str]) -> redis::Value {
        call(&self.address(), words)
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// A command to a server.
pub fn call(address: &str, words: &[&str]) -> redis::Value {
    let mut connection = redis::Client::open(address).and_then(|client| client.get_connection()).expect("the server answers");
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    cmd.query(&mut connection).expect("the command is good")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
