//! The real servers that `tests/servers` runs: where they are, and how a test takes one of them away.
//!
//! A test that breaks a server starts servers of its own ([`Servers::own`]); the others share those of the run
//! ([`Servers::of_run`]) and keep apart by a [`Space`].

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a panic says when there is no server.
const CURE: &str = "run tests/run, or `tests/servers up` and export what it prints";
/// Longest name of a test that goes into a space: Cassandra takes keyspaces of at most 48 letters.
const SPACE_LETTERS_MAX: usize = 16;

/// One server process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    /// The only broker, or the first of three.
    Kafka,
    /// The second broker of three.
    Kafka2,
    /// The third broker of three.
    Kafka3,
    /// The only Cassandra node, or the first of three (the seed).
    Cassandra,
    /// The second node of three.
    Cassandra2,
    /// The third node of three.
    Cassandra3,
    /// Redis.
    Redis,
}

impl Server {
    /// The name that the script knows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Kafka2 => "kafka-2",
            Self::Kafka3 => "kafka-3",
            Self::Cassandra => "cassandra",
            Self::Cassandra2 => "cassandra-2",
            Self::Cassandra3 => "cassandra-3",
            Self::Redis => "redis",
        }
    }
}

/// How a server is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// An orderly stop, as an operator does it.
    Stop,
    /// SIGKILL: what it had not written is lost.
    Kill,
    /// SIGSTOP: connections stay open, nothing answers.
    Pause,
}

/// Kafka's listener with TLS and passwords.
#[derive(Clone)]
pub struct SecureKafka {
    /// `host:port`, separated by commas.
    pub bootstrap: String,
    /// The authority's certificate, PEM.
    pub authority: PathBuf,
    /// The user, for SCRAM-SHA-512 and for PLAIN.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// A file with the password and nothing else.
    pub password_file: PathBuf,
}

impl fmt::Debug for SecureKafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureKafka").field("bootstrap", &self.bootstrap).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Servers that run.
#[derive(Debug)]
pub struct Servers {
    variables: HashMap<String, String>,
    dir: PathBuf,
    /// Present when they are ours alone: then they end with this value.
    owned: Option<tempfile::TempDir>,
}

impl Servers {
    /// Those of the run: named by the environment, or else by `target/servers/env`.
    ///
    /// # Panics
    /// When there are none; the message says what to do.
    pub fn of_run() -> Self {
        let mut variables: HashMap<String, String> = std::env::vars().filter(|(name, _)| name.starts_with("TRUNKLINE_TEST_")).collect();
        let named = ["KAFKA", "CASSANDRA", "REDIS"].iter().any(|name| variables.contains_key(&format!("TRUNKLINE_TEST_{name}")));
        if !named {
            let file = root().join("target/servers/env");
            let text = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("no servers are named in the environment: {CURE}"));
            variables = parse(&text);
        }
        let dir = variables.get("TRUNKLINE_TEST_SERVERS_DIR").map_or_else(|| root().join("target/servers"), PathBuf::from);
        Self { variables, dir, owned: None }
    }

    /// Starts servers for this test alone, which it may break; they end when the value is dropped.
    ///
    /// `words` are those of `tests/servers up`, such as `["kafka", "--brokers", "3"]`.
    ///
    /// # Panics
    /// When one does not come up; the script's message shows the end of its log.
    pub async fn own(words: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("trunkline-servers-").tempdir().expect("a temporary folder");
        let dir = folder.path().to_owned();
        // Before the start, so that a start that fails half-way leaves nothing running.
        let mut servers = Self { variables: HashMap::new(), dir, owned: Some(folder) };
        let mut command = vec!["up".to_owned()];
        command.extend(words.iter().map(|word| (*word).to_owned()));
        servers.variables = parse(&servers.script(command).await);
        servers
    }

    fn variable(&self, name: &str) -> &str {
        self.variables.get(name).unwrap_or_else(|| panic!("{name} is not set: {CURE}"))
    }

    /// Kafka's brokers, `host:port`, separated by commas.
    pub fn kafka(&self) -> &str {
        self.variable("TRUNKLINE_TEST_KAFKA")
    }

    /// Cassandra's nodes, `host:port`, separated by commas.
    pub fn cassandra(&self) -> &str {
        self.variable("TRUNKLINE_TEST_CASSANDRA")
    }

    /// Redis, `redis://host:port`.
    pub fn redis(&self) -> &str {
        self.variable("TRUNKLINE_TEST_REDIS")
    }

    /// Kafka's listener with TLS and passwords: there is one after `tests/servers up kafka --secure`.
    pub fn kafka_secure(&self) -> SecureKafka {
        SecureKafka {
            bootstrap: self.variable("TRUNKLINE_TEST_KAFKA_SECURE").to_owned(),
            authority: self.variable("TRUNKLINE_TEST_KAFKA_CA").into(),
            user: self.variable("TRUNKLINE_TEST_KAFKA_USER").to_owned(),
            password: self.variable("TRUNKLINE_TEST_KAFKA_PASSWORD").to_owned(),
            password_file: self.variable("TRUNKLINE_TEST_KAFKA_PASSWORD_FILE").into(),
        }
    }

    /// The folder with the servers' data and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes a server away, until the value that it gives is ended or dropped. Data and port stay.
    pub async fn take_away(&self, server: Server, how: Outage) -> Away<'_> {
        let word = match how {
            Outage::Stop => "stop",
            Outage::Kill => "kill",
            Outage::Pause => "pause",
        };
        // Before the call: one that fails may have done half of its work.
        let away = Away { servers: self, server, ended: false };
        self.script(vec![word.to_owned(), server.name().to_owned()]).await;
        away
    }

    /// Kills a server and starts it again; returns when it answers.
    pub async fn crash(&self, server: Server) {
        self.take_away(server, Outage::Kill).await.end().await;
    }

    /// Runs the script beside the runtime: simulators and clients of the same test go on meanwhile.
    async fn script(&self, words: Vec<String>) -> String {
        let dir = self.dir.clone();
        let done = tokio::task::spawn_blocking(move || script(&dir, &words)).await.expect("the script's task ends");
        done.unwrap_or_else(|why| panic!("{why}"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if self.owned.is_some()
            && let Err(why) = script(&self.dir, &["down".to_owned()])
        {
            eprintln!("{why}");
        }
    }
}

/// A server that is away. It comes back when this is ended, and also when the test fails, for the sake of the next one.
#[derive(Debug)]
#[must_use = "the server comes back when this is dropped"]
pub struct Away<'a> {
    servers: &'a Servers,
    server: Server,
    ended: bool,
}

impl Away<'_> {
    /// Brings the server back; returns when all that run of its kind answer and see each other.
    pub async fn end(mut self) {
        self.ended = true;
        self.servers.script(self.words()).await;
    }

    /// `start` also wakes one that is paused.
    fn words(&self) -> Vec<String> {
        vec!["start".to_owned(), self.server.name().to_owned()]
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if !self.ended
            && let Err(why) = script(&self.servers.dir, &self.words())
        {
            eprintln!("{why}");
        }
    }
}

/// Names that no other test uses on the same servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space(String);

impl Space {
    /// A new one, whose name begins with the test's.
    pub fn new(test: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is past 1970").as_millis();
        let name: String = test.chars().filter(char::is_ascii_alphanumeric).take(SPACE_LETTERS_MAX).collect();
        Self(format!("t{}_{}_{}_{number}", name.to_ascii_lowercase(), now % 10_000_000_000, std::process::id()))
    }

    /// For Cassandra: letters, digits and underscores, at most 48.
    pub fn keyspace(&self) -> &str {
        &self.0
    }

    /// For Kafka: what the topics' names begin with.
    pub fn topic_prefix(&self) -> String {
        format!("{}.", self.0)
    }

    /// For Redis: what keys begin with.
    pub fn key_prefix(&self) -> String {
        format!("{}:", self.0)
    }
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the suite stands in the workspace").to_owned()
}

fn parse(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Runs `tests/servers`; gives what it printed, or what it complained of. It ends by itself: its waits are limited.
fn script(dir: &Path, words: &[String]) -> Result<String, String> {
    let output = Command::new(root().join("tests/servers"))
        .args(words)
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("tests/servers does not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("tests/servers {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answers(servers: &Servers) -> bool {
        let address = servers.redis().strip_prefix("redis://").expect("a URL of Redis").to_owned();
        tokio::net::TcpStream::connect(address).await.is_ok()
    }

    #[tokio::test]
    async fn a_server_that_was_taken_away_comes_back_at_its_port() {
        let servers = Servers::own(&["redis"]).await;
        for how in [Outage::Stop, Outage::Kill] {
            assert!(answers(&servers).await, "{how:?}");
            let away = servers.take_away(Server::Redis, how).await;
            assert!(!answers(&servers).await, "{how:?}");
            away.end().await;
        }
        let away = servers.take_away(Server::Redis, Outage::Pause).await;
        assert!(script(servers.dir(), &["status".to_owned()]).is_err(), "a paused server is not up");
        drop(away);
        assert!(script(servers.dir(), &["status".to_owned()]).is_ok(), "dropping the outage ends it");
        let dir = servers.dir().to_owned();
        drop(servers);
        assert!(!dir.exists(), "nothing is left behind");
    }

    #[test]
    fn spaces_differ_and_fit() {
        let name = "a test's name that is longer than anything Cassandra takes for a keyspace";
        let (one, other) = (Space::new(name), Space::new(name));
        assert_ne!(one, other);
        assert!(one.keyspace().len() <= 48 && one.keyspace().chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{one:?}");
    }
}
