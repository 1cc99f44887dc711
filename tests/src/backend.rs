//! Which backends the suite runs on: inside the process, or on the real servers. The tests do not know.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::binary;

/// Partitions of the log in the tests.
const PARTITIONS: u16 = 8;
/// The root secret of the tests' installations.
const PEPPER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Where a system's log, store and budgets are.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Inside the process.
    Embedded,
    /// On Kafka, Cassandra and Redis, in a space of this system's own.
    Servers {
        /// `host:port`.
        kafka: String,
        /// `host:port`.
        cassandra: String,
        /// `redis://…`.
        redis: String,
        /// Names its topics, keyspace and keys.
        space: String,
    },
}

/// A variable that `tests/servers up` prints.
fn server(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run, or `tests/servers up` and export what it prints"))
}

impl Backend {
    /// As `TRUNKLINE_TEST_BACKEND` says: `embedded` (also when it is not set) or `servers`.
    pub fn of_run() -> Self {
        match std::env::var("TRUNKLINE_TEST_BACKEND").as_deref() {
            Err(_) | Ok("embedded" | "") => Self::Embedded,
            Ok("servers") => Self::servers(),
            Ok(other) => panic!("TRUNKLINE_TEST_BACKEND is {other}; it may be embedded or servers"),
        }
    }

    /// On the real servers, in a new space.
    pub fn servers() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is past 1970").as_millis();
        Self::Servers {
            kafka: server("TRUNKLINE_TEST_KAFKA"),
            cassandra: server("TRUNKLINE_TEST_CASSANDRA"),
            redis: server("TRUNKLINE_TEST_REDIS"),
            space: format!("t{}_{}_{number}", started % 100_000_000, std::process::id()),
        }
    }

    /// The lines of the configuration.
    pub fn config(&self) -> String {
        match self {
            Self::Embedded => format!(
                "[log]\npartitions = {PARTITIONS}\n[log.embedded]\nsegment = \"16MiB\"\n[store.embedded]\ncache = \"32MiB\"\n\
                 [limits]\napi_per_key = \"100000/s\""
            ),
            Self::Servers { kafka, cassandra, redis, space } => format!(
                "key_pepper = \"{PEPPER}\"\n[log]\nurl = \"kafka://{kafka}\"\ntopic_prefix = \"{space}.\"\n\
                 [log.kafka]\ngroup = \"{space}\"\nsession_timeout = \"6s\"\nlinger = \"1ms\"\n[log.spool]\nsegment = \"8MiB\"\n\
                 [router]\nlease = \"3s\"\n\
                 [store]\nurl = \"cassandra://{cassandra}/{space}\"\n[store.scylla]\nreplication_factor = 1\n\
                 [limits]\nurl = \"{redis}\"\nnodes_hint = 2\nredis_timeout = \"200ms\"\napi_per_key = \"100000/s\""
            ),
        }
    }

    /// Makes topics and schema, as an operator does.
    pub fn prepare(&self, config: &Path) {
        match self {
            Self::Embedded => {}
            Self::Servers { .. } => {
                let partitions = PARTITIONS.to_string();
                run(config, &["topics", "apply", "--replication", "1", "--partitions", &partitions]);
                run(config, &["migrate", "apply"]);
            }
        }
    }
}

fn run(config: &Path, words: &[&str]) {
    let output = Command::new(binary()).args(words).arg("--config").arg(config).stdin(Stdio::null()).output().expect("the binary starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "trunkline {}: {text}", words.join(" "));
}

/// Stops, starts, kills, pauses or resumes one of the servers.
pub async fn control(what: &str, server_name: &str) {
    let dir = server("TRUNKLINE_TEST_SERVERS_DIR");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers");
    let output = tokio::process::Command::new(script).args([what, server_name, "--dir", &dir]).stdin(Stdio::null()).output().await;
    let output = output.expect("tests/servers runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "tests/servers {what} {server_name}: {text}");
}
