//! `trunkline topics` and `trunkline migrate`: what the servers need before processes start.

use super::{Context, Failure};
use crate::args::{MigrateCommand, TopicsCommand};

#[cfg(not(all(feature = "kafka", feature = "scylla")))]
const NOT_BUILT: &str = "this program was built for one process only; build it with `cargo build --release --features distributed`";

#[cfg(not(feature = "kafka"))]
pub async fn topics(_: TopicsCommand, _: &mut Context) -> Result<(), Failure> {
    Err(Failure::Config(NOT_BUILT.to_owned()))
}

/// Runs `trunkline topics`.
#[cfg(feature = "kafka")]
pub async fn topics(command: TopicsCommand, context: &mut Context) -> Result<(), Failure> {
    use messaging::config::{LogBackend, RECORD_OVERHEAD};
    use messaging::log::LogError;
    use messaging::log::kafka::topics::{self, Admin, Overrides};

    /// How topics are to be where no file is named.
    const TOPICS: &str = include_str!("../../../deploy/kafka/topics.toml");

    let (args, applies) = match command {
        TopicsCommand::Plan(args) => (args, false),
        TopicsCommand::Apply(args) => (args, true),
    };
    let config = super::config::load(args.config.as_deref())?.config;
    let LogBackend::Kafka(kafka) = &config.log.backend else {
        return Err(Failure::Config("log.url is not kafka://…: there are no topics to look after".to_owned()));
    };
    let text = match &args.file {
        Some(file) => std::fs::read_to_string(file).map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?,
        None => TOPICS.to_owned(),
    };
    let explain = |error: LogError| match error {
        LogError::Io(error) => Failure::Unreachable(format!("kafka: {error}")),
        error @ (LogError::Mismatch(_) | LogError::Damaged { .. } | LogError::Locked(_) | LogError::Closed) => {
            Failure::Failed(error.to_string())
        }
    };
    let overrides = Overrides { partitions: args.partitions, replication_factor: args.replication };
    let max_record = config.log.max_record + RECORD_OVERHEAD as usize;
    let wanted = topics::parse(&text, &kafka.topic_prefix, overrides, max_record).map_err(explain)?;
    let settings = crate::backends::servers::kafka_settings(&config, kafka).map_err(|error| Failure::Config(format!("{error:#}")))?;
    let admin = Admin::connect(&settings).map_err(explain)?;
    let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let changes = topics::plan(&admin.current(&names).await.map_err(explain)?, &wanted, args.new_generation);
    if context.screen.json {
        let list = changes.iter().map(|change| serde_json::json!({"change": change.to_string(), "refused": change.is_refusal()}));
        context.screen.pretty(&serde_json::Value::Array(list.collect()))?;
    } else if changes.is_empty() {
        context.screen.line("the topics are as they should be")?;
    } else {
        for change in &changes {
            context.screen.line(&change.to_string())?;
        }
    }
    if applies && !changes.is_empty() {
        admin.apply(&changes).await.map_err(explain)?;
        context.screen.note("applied");
    }
    Ok(())
}

#[cfg(not(feature = "scylla"))]
pub async fn migrate(_: MigrateCommand, _: &mut Context) -> Result<(), Failure> {
    Err(Failure::Config(NOT_BUILT.to_owned()))
}

/// Runs `trunkline migrate`.
#[cfg(feature = "scylla")]
pub async fn migrate(command: MigrateCommand, context: &mut Context) -> Result<(), Failure> {
    use messaging::config::StoreBackend;
    use messaging::store::scylla::migrations::{self, MigrationError, State};

    use crate::backends::servers::{scylla_replication, scylla_settings};

    let (args, applies) = match command {
        MigrateCommand::Status(args) => (args, false),
        MigrateCommand::Apply(args) => (args, true),
    };
    let config = super::config::load(args.config.as_deref())?.config;
    let StoreBackend::Scylla(scylla) = &config.store.backend else {
        return Err(Failure::Config("store.url is not scylla://…: the embedded store needs no migrations".to_owned()));
    };
    let settings = scylla_settings(&config, scylla).map_err(|error| Failure::Config(format!("{error:#}")))?;
    let explain = |error: MigrationError| Failure::Failed(error.to_string());
    if applies {
        let applied = migrations::apply(&settings, &scylla_replication(scylla)).await.map_err(explain)?;
        let text = if applied.is_empty() { "the schema is up to date".to_owned() } else { format!("applied {applied:?}") };
        context.screen.note(&text);
        return Ok(());
    }
    let status = migrations::status(&settings).await.map_err(explain)?;
    for migration in &status {
        let state = match migration.state {
            State::Pending => "pending".to_owned(),
            State::Begun(statements) => format!("begun ({statements} statements)"),
            State::Applied => "applied".to_owned(),
            State::Changed => "CHANGED after it was applied".to_owned(),
            State::Newer => "applied by a newer version".to_owned(),
        };
        let line = match context.screen.json {
            true => serde_json::json!({"number": migration.number, "name": migration.name, "state": state}).to_string(),
            false => format!("{:04}  {:<20}  {state}", migration.number, migration.name),
        };
        context.screen.line(&line)?;
    }
    Ok(())
}
