//! Which backends the suite runs on: inside the process, or on the real servers. The tests do not know.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::binary;
use crate::forget;
use crate::servers::{Servers, Space};

/// Partitions of the log in the tests.
const PARTITIONS: u16 = 8;
/// The topics of an installation, without their prefix.
const TOPICS: [&str; 3] = ["inbound", "outbound", "bulk"];
/// The root secret of the tests' installations.
const PEPPER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Where a system's log, store and budgets are.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Inside the process.
    Embedded,
    /// On Kafka, Cassandra and Redis, in a space of this system's own.
    Servers {
        /// `host:port`, separated by commas.
        kafka: String,
        /// `host:port`, separated by commas.
        cassandra: String,
        /// `redis://…`.
        redis: String,
        /// Copies of each record and row.
        copies: u8,
        /// Names its topics, keyspace and keys.
        space: Space,
    },
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

    /// On the real servers of the run, in a new space.
    pub fn servers() -> Self {
        Self::on(&Servers::of_run(), 1)
    }

    /// On these servers, in a new space, with so many copies of each record and row.
    pub fn on(servers: &Servers, copies: u8) -> Self {
        Self::Servers {
            kafka: servers.kafka().to_owned(),
            cassandra: servers.cassandra().to_owned(),
            redis: servers.redis().to_owned(),
            copies,
            space: Space::new("system"),
        }
    }

    /// The lines of the configuration.
    pub fn config(&self) -> String {
        match self {
            Self::Embedded => format!(
                "[log]\npartitions = {PARTITIONS}\n[log.embedded]\nsegment = \"16MiB\"\n[store.embedded]\ncache = \"32MiB\"\n\
                 [limits]\napi_per_key = \"100000/s\"\n[quotas]\napi_requests = 100_000"
            ),
            Self::Servers { kafka, cassandra, redis, copies, space } => format!(
                "key_pepper = \"{PEPPER}\"\n[log]\nurl = \"kafka://{kafka}\"\ntopic_prefix = \"{prefix}\"\n\
                 [log.kafka]\ngroup = \"{space}\"\nsession_timeout = \"6s\"\nlinger = \"1ms\"\n[log.spool]\nsegment = \"8MiB\"\n\
                 [router]\nlease = \"3s\"\n\
                 [store]\nurl = \"cassandra://{cassandra}/{space}\"\n[store.scylla]\nreplication_factor = {copies}\n\
                 [limits]\nurl = \"{redis}\"\nnodes_hint = 2\nredis_timeout = \"200ms\"\napi_per_key = \"100000/s\"\n\
                 [quotas]\napi_requests = 100_000",
                space = space.keyspace(),
                prefix = space.topic_prefix(),
            ),
        }
    }

    /// Makes topics and schema, as an operator does.
    pub fn prepare(&self, config: &Path) {
        match self {
            Self::Embedded => {}
            Self::Servers { copies, .. } => {
                let (partitions, copies) = (PARTITIONS.to_string(), copies.to_string());
                run(config, &["topics", "apply", "--replication", &copies, "--partitions", &partitions]);
                run(config, &["migrate", "apply"]);
            }
        }
    }

    /// Takes what [`Self::prepare`] made away again.
    pub fn forget(&self) {
        let Self::Servers { kafka, cassandra, redis: _, copies: _, space } = self else { return };
        let topics = TOPICS.map(|topic| format!("{}{topic}", space.topic_prefix()));
        let done = forget::topics(kafka, &topics).and_then(|()| forget::keyspace(cassandra, space.keyspace()));
        if let Err(why) = done {
            eprintln!("{} stays behind on the servers: {why}", space.keyspace());
        }
    }
}

fn run(config: &Path, words: &[&str]) {
    let output = Command::new(binary()).args(words).arg("--config").arg(config).stdin(Stdio::null()).output().expect("the binary starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "trunkline {}: {text}", words.join(" "));
}
