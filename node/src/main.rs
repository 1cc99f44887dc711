//! `trunkline`: the command line, and the composition of roles.

mod args;
mod backends;
mod bench_command;
mod client;
mod commands;
mod descriptors;
mod dev;
mod logging;
mod media;
mod node;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use args::{Cli, Command, DevArgs, ServeArgs};
use clap::Parser;
use messaging::clock::{Clock, SystemClock};
use messaging::config::Config;
use messaging::metrics::{self, RunMode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes, see `trunkline --help`.
const FAILED: u8 = 1;
const CONFIGURATION_REFUSED: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::Dev(args)) => run_dev(&args),
        Some(Command::Bench(args)) => bench_command(&args, cli.json),
        Some(Command::BenchBare(args)) => match bench::load::bare_main(args.addr) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.into()),
        },
        _ => match runtime(2) {
            Ok(runtime) => runtime.block_on(commands::run(cli)),
            Err(error) => fail(&error),
        },
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("trunkline: {error:#}");
    ExitCode::from(FAILED)
}

fn runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name("router").enable_all().build()?)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn load(mode: RunMode, file: Option<&Path>, overrides: &[(String, String)]) -> Result<Config, ExitCode> {
    match Config::load(mode, file, std::env::vars(), overrides) {
        Ok(loaded) => {
            metrics::CONFIG_LAST_RELOAD_SUCCESSFUL.at([]).set(1.0);
            let now = SystemClock::default().now().as_micros() as f64 / 1_000_000.0;
            metrics::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS.at([]).set(now);
            Ok(loaded.config)
        }
        Err(errors) => {
            eprintln!("{errors}");
            Err(ExitCode::from(CONFIGURATION_REFUSED))
        }
    }
}

fn exporter(mode: RunMode) -> Arc<metrics::Exporter> {
    let exporter = metrics::install();
    exporter.build_info(env!("CARGO_PKG_VERSION"), option_env!("TRUNKLINE_REVISION").unwrap_or("unknown"), mode);
    Arc::new(exporter)
}

fn serve(args: &ServeArgs) -> ExitCode {
    let mut overrides = args.set.clone();
    if !args.roles.is_empty() {
        let roles: Vec<&str> = args.roles.iter().map(|role| role.name()).collect();
        overrides.push(("node.roles".into(), roles.join(",")));
    }
    let config = match load(RunMode::Serve, args.config.as_deref(), &overrides) {
        Ok(config) => config,
        Err(code) => return code,
    };
    logging::start(config.telemetry.log_format, &config.telemetry.log_filter);
    let result = runtime(cores()).and_then(|runtime| runtime.block_on(serve_node(config)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn serve_node(config: Config) -> anyhow::Result<()> {
    let Some(data_dir) = config.node.data_dir.clone() else {
        anyhow::bail!("node.data_dir is empty: say where the log, the store and the keys are to be kept");
    };
    let key_file = config.auth.bootstrap_key_file.clone();
    let node = node::Node::build(config, &data_dir, exporter(RunMode::Serve)).await?;
    if node.first_key(key_file.as_ref()).await?.is_some()
        && let Some(file) = &key_file
    {
        tracing::info!(file = %file.display(), "first admin key written");
    }
    match node.public() {
        Some(public) => tracing::info!(%public, admin = %node.admin(), "listening"),
        None => tracing::info!(admin = %node.admin(), "listening"),
    }
    node.run(Box::pin(async {})).await
}

fn run_dev(args: &DevArgs) -> ExitCode {
    let mut overrides = vec![
        ("listen.public".to_owned(), format!("127.0.0.1:{}", args.port)),
        ("telemetry.log_filter".to_owned(), "warn".to_owned()),
        ("log.embedded.segment".to_owned(), "16MiB".to_owned()),
        ("drain.announce".to_owned(), "0s".to_owned()),
    ];
    if let Some(data) = &args.data {
        // What is kept is sealed, so its root secret is kept beside it.
        overrides.push(("node.data_dir".to_owned(), data.display().to_string()));
    }
    overrides.extend(args.set.iter().cloned());
    let config = match load(RunMode::Dev, None, &overrides) {
        Ok(config) => config,
        Err(code) => return code,
    };
    logging::start(config.telemetry.log_format, &config.telemetry.log_filter);
    let result = runtime(cores()).and_then(|runtime| runtime.block_on(dev_node(config, args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn dev_node(config: Config, args: &DevArgs) -> anyhow::Result<()> {
    // Removed when the process ends; with --data nothing is.
    let temporary = tempfile::Builder::new().prefix("trunkline-dev-").tempdir()?;
    let data_dir = args.data.clone().unwrap_or_else(|| temporary.path().to_owned());
    let kept = data_dir.join("keys").join("dev-key");
    let toys = dev::Toys::start(&config, args.seed).await?;
    let node = node::Node::build(config, &data_dir, exporter(RunMode::Dev)).await?;
    let key = match node.first_key(Some(&kept)).await? {
        Some(key) => key,
        None => messaging::seal::Secret::new(std::fs::read_to_string(&kept)?.trim()),
    };
    let Some(public) = node.public() else { anyhow::bail!("dev needs the gateway: take node.roles out") };
    let admin = node.admin();
    let where_kept = args
        .data
        .as_ref()
        .map_or_else(|| "data in a temporary folder (use --data DIR to keep it)".to_owned(), |dir| format!("data in {}", dir.display()));
    let started = async move {
        if let Err(error) = dev::greet(&toys, public, admin, &key, &where_kept).await {
            eprintln!("trunkline: {error:#}");
        }
        // The toys live as long as the node runs.
        std::future::pending::<()>().await;
    };
    let result = node.run(Box::pin(started)).await;
    let _ = commands::runtime::RuntimeFile::remove(&commands::runtime::runtime_file(), std::process::id());
    result
}

fn bench_command(args: &args::BenchArgs, json: bool) -> ExitCode {
    match runtime(2).and_then(|runtime| runtime.block_on(bench_command::run(args, json))) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}
