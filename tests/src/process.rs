//! One process of an installation: how it starts, what it says, and how it ends.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::http::Client;
use serde_json::Value;

use crate::audit::{self, Announced};
use crate::{PATIENCE, binary, net};

/// Lines of a process's log that a failed test shows.
const LAST_LINES: usize = 16;
/// Of its metrics: what stands in the way of a message.
const TELLING: [&str; 8] = [
    "trunkline_log_consumer_lag_",
    "trunkline_log_assigned_partitions",
    "trunkline_log_consumed_records_total",
    "trunkline_log_errors_total",
    "trunkline_log_spool_records",
    "trunkline_router_conversations_blocked",
    "trunkline_webhook_pending_deliveries",
    "trunkline_webhook_attempts_total",
];

/// How a process is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Its configuration.
    pub config: PathBuf,
    /// The network namespace that it lives in; none: ours.
    pub namespace: Option<String>,
    /// How many files and connections it may have open; none: as many as we.
    pub descriptors: Option<u32>,
    /// The errors that the test announced.
    pub announced: Announced,
}

impl Launch {
    /// In our own network, with nothing announced.
    pub fn here(config: &Path) -> Self {
        Self { config: config.to_owned(), namespace: None, descriptors: None, announced: Announced::default() }
    }

    fn command(&self) -> Command {
        let mut command = match &self.namespace {
            None => match self.descriptors {
                None => Command::new(binary()),
                Some(most) => {
                    let mut command = Command::new("sh");
                    command.args(["-c", &format!(r#"ulimit -n {most} && exec "$0" "$@""#)]).arg(binary());
                    command
                }
            },
            // It becomes the program, so that the child's pid is the program's.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(binary());
                command
            }
        };
        command.args(["serve", "--config"]).arg(&self.config).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// A running `trunkline serve`.
pub struct Process {
    child: Child,
    /// The public listener; port 0 for a process without a gateway.
    pub public: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
    announced: Announced,
    /// Ends with its standard error: then everything that it said has been read.
    reader: Option<std::thread::JoinHandle<()>>,
    ended: bool,
}

impl Process {
    /// Starts it and waits until it is ready.
    pub async fn start(launch: &Launch) -> Self {
        let mut child = launch.command().spawn().expect("the binary starts");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (found, address) = tokio::sync::oneshot::channel();
        let stderr = child.stderr.take().expect("stderr is piped");
        let kept = lines.clone();
        let reader = std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str::<Value>(&line)
                    && value["msg"] == "listening"
                    && let Some(found) = found.take()
                {
                    let at = |name: &str| value[name].as_str().and_then(|text| text.parse().ok());
                    if let Some(admin) = at("admin") {
                        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
                        let _ = found.send((at("public").unwrap_or(nowhere), admin));
                    }
                }
                kept.lock().unwrap().push(line);
            }
        });
        let Ok(Ok((public, admin))) = tokio::time::timeout(PATIENCE, address).await else {
            panic!("the process never listened:\n{}", lines.lock().unwrap().join("\n"));
        };
        let announced = launch.announced.clone();
        let mut process = Self { child, public, admin, lines, announced, reader: Some(reader), ended: false };
        if launch.namespace.is_some() {
            let listening = [&mut process.public, &mut process.admin].into_iter().filter(|address| address.port() != 0);
            for address in listening {
                *address = net::relay((Ipv4Addr::LOCALHOST, 0).into(), *address).await.expect("loopback has a free port");
            }
        }
        process.until_ready().await;
        process
    }

    async fn until_ready(&self) {
        let client = Client::new(Duration::from_secs(2));
        for _ in 0..500 {
            if let Ok(response) = client.get(&format!("http://{}/readyz", self.admin)).await
                && response.status == 200
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never ready:\n{}", self.log());
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The end of its log, without what repeats with every try to connect.
    pub fn last_lines(&self) -> String {
        let lines = self.lines.lock().unwrap();
        let telling: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.contains("Connection refused")).collect();
        telling[telling.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// What its metrics say of messages that wait.
    pub async fn standing(&self) -> String {
        let client = Client::new(Duration::from_secs(2));
        let Ok(response) = client.get(&format!("http://{}/metrics", self.admin)).await else {
            return "its metrics do not come".to_owned();
        };
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let telling = text.lines().filter(|line| TELLING.iter().any(|family| line.starts_with(family)) && !line.ends_with(" 0"));
        telling.collect::<Vec<_>>().join("\n")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A signal, such as `STOP` and `CONT`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().expect("kill runs");
        assert!(done.success());
    }

    /// kill -9. What can be known then is its log: it is audited.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
        self.audit(None);
    }

    /// kill -9, also when it has ended already. One that still ran is asked for its metrics first.
    pub(crate) fn end(&mut self) {
        if self.ended {
            return;
        }
        let metrics = if std::thread::panicking() { None } else { audit::metrics(self.admin) };
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.audit(metrics.as_deref());
    }

    /// Fails the test for what the process did and the test did not announce (D51).
    fn audit(&mut self, metrics: Option<&str>) {
        self.ended = true;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            return;
        }
        let faults = self.announced.faults(&self.lines.lock().unwrap(), metrics);
        assert!(faults.is_empty(), "{}", audit::show(&format!("process {}", self.pid()), &faults));
    }

    /// Waits until no record waits in a queue of its own. What waits for a broken endpoint is in none of them.
    pub async fn until_at_rest(&self) {
        let mut queued = Vec::new();
        for _ in 0..200 {
            let admin = self.admin;
            let metrics = tokio::task::spawn_blocking(move || audit::metrics(admin)).await.expect("reading does not panic");
            queued = metrics.as_deref().map_or_else(|| vec!["its metrics do not come".to_owned()], audit::still_queued);
            if queued.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never at rest:\n{}", queued.join("\n"));
    }

    /// SIGTERM; gives the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let admin = self.admin;
        let metrics = tokio::task::spawn_blocking(move || audit::metrics(admin)).await.expect("reading does not panic");
        let done = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().expect("kill runs");
        assert!(done.success());
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                self.audit(metrics.as_deref());
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never ended after SIGTERM:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- the last lines of the process:\n{}", self.last_lines());
        }
    }
}

/// A process of an installation of several.
pub struct Member {
    /// `gateway-2`, `router-1` …
    pub name: String,
    /// While it runs.
    pub process: Option<Process>,
    launch: Launch,
}

impl Member {
    /// One that does not run yet.
    pub(crate) fn new(name: &str, launch: Launch) -> Self {
        Self { name: name.to_owned(), process: None, launch }
    }

    /// How it starts: for a start that holds nobody else up.
    pub fn launch(&self) -> Launch {
        self.launch.clone()
    }

    /// Starts it, if it does not run.
    pub async fn start(&mut self) {
        if self.process.is_none() {
            self.process = Some(Process::start(&self.launch).await);
        }
    }

    /// kill -9, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// The running process.
    pub fn running(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }
}
