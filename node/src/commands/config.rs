//! `trunkline check-config` and `trunkline config`: what a configuration file means, without starting anything.

use std::path::Path;

use messaging::config::{Config, DEFAULTS, Loaded, help};
use messaging::metrics::RunMode;
use serde_json::{Value, json};

use super::{Context, Failure};
use crate::args::ConfigCommand;

/// Checks a file as `serve` would take it, with the environment.
pub fn check(file: Option<&Path>, context: &mut Context) -> Result<(), Failure> {
    load(file)?;
    if context.screen.json {
        return Ok(context.screen.line(r#"{"ok":true}"#)?);
    }
    Ok(context.screen.line("the configuration is good")?)
}

/// Runs `trunkline config`.
pub fn run(command: ConfigCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        ConfigCommand::Defaults => Ok(context.screen.part(DEFAULTS)?),
        ConfigCommand::Explain { key } => {
            let text = help(&key).map_err(|fault| Failure::Usage(format!("{}\n  {}", fault.message, fault.help)))?;
            Ok(context.screen.line(&text)?)
        }
        ConfigCommand::Show { config } => show(config.as_deref(), context),
    }
}

fn show(file: Option<&Path>, context: &mut Context) -> Result<(), Failure> {
    let loaded = load(file)?;
    if !context.screen.json {
        return Ok(context.screen.part(&loaded.render())?);
    }
    let row = |setting: messaging::config::Effective| json!({"key": setting.key, "value": setting.value, "origin": setting.origin.to_string(), "live": setting.live});
    Ok(context.screen.pretty(&Value::Array(loaded.effective().into_iter().map(row).collect()))?)
}

/// The configuration that `serve` would have.
pub(super) fn load(file: Option<&Path>) -> Result<Loaded, Failure> {
    Config::load(RunMode::Serve, file, std::env::vars(), &[]).map_err(|errors| Failure::Config(errors.to_string()))
}
