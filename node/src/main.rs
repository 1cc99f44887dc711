//! The `trunkline` binary.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod client;
mod commands;

#[tokio::main]
async fn main() -> ExitCode {
    commands::run(args::Cli::parse()).await
}
