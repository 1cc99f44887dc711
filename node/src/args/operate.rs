//! The words for who runs it: configuration, topics, schema, measuring, health.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::duration;

/// `trunkline check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `trunkline topics`.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Show what has to change; changes nothing
    Plan(TopicsArgs),
    /// Make the topics as the file says
    Apply(TopicsArgs),
}

/// How topics are to be.
#[derive(Debug, Args)]
pub struct TopicsArgs {
    /// Configuration file (for log.url, log.topic_prefix and log.kafka)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How topics are to be (default: as deploy/kafka/topics.toml)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Partitions, instead of the file's
    #[arg(long, value_name = "COUNT")]
    pub partitions: Option<u16>,
    /// Copies of each record, instead of the file's
    #[arg(long, value_name = "COUNT")]
    pub replication: Option<u16>,
    /// Raise the partitions of keyed topics: conversations move
    #[arg(long)]
    pub new_generation: bool,
}

/// `trunkline migrate`.
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Show which migrations stand and which are to come
    Status(MigrateArgs),
    /// Apply what is to come
    Apply(MigrateArgs),
}

/// Whose schema.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Configuration file (for store.url and store.scylla)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `trunkline config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with its default and what it means
    Defaults,
    /// Explain one key
    Explain {
        /// Its full name, such as log.partitions
        key: String,
    },
    /// Print the effective values and where each came from
    Show {
        /// Configuration file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// `trunkline bench`. `--json` is the global flag.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Requests per second (default: as many as go)
    #[arg(long)]
    pub rate: Option<u32>,
    /// Connections
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// How long
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Over how many conversations the load is spread
    #[arg(long, default_value_t = 1000)]
    pub conversations: usize,
    /// Endpoints that each webhook is delivered to (`ingress`): 0 or 1
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub subscribers: u8,
    /// What the node under test works on, and its roles: a configuration file beneath what the bench itself sets (default: everything in
    /// one process). Topics and schema are there already, by `trunkline topics apply` and `trunkline migrate apply`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Webhooks in.
    Ingress,
    /// Messages out.
    Send,
    /// Webhooks in, against a bare HTTP server on the same machine.
    Ratio,
}

/// `trunkline bench-bare`.
#[derive(Debug, Args)]
pub struct BenchBareArgs {
    /// Where to listen
    #[arg(long)]
    pub addr: SocketAddr,
}

/// `trunkline healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Base address of the admin listener (default: of the running `trunkline dev`, else http://127.0.0.1:9090)
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
}
