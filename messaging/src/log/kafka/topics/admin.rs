//! Looking at topics and changing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use super::{Change, CurrentTopic};
use crate::log::LogError;
use crate::log::kafka::settings::KafkaSettings;
use crate::log::kafka::{broker_error, forward_log};

/// Longest wait for the answer to one request.
const REQUEST_WAIT: Duration = Duration::from_secs(15);
/// Looks at a cluster until every broker knows what was changed, and the wait between them.
const SETTLE_LOOKS: usize = 50;
const SETTLE_EVERY: Duration = Duration::from_millis(200);
/// Tries of a step for which the cluster has too few brokers yet, and the wait between them: together longer than a broker that starts,
/// or that comes back, takes to be counted again.
const BROKER_TRIES: usize = 50;
const BROKER_EVERY: Duration = Duration::from_millis(200);

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka");
    }
}

/// A connection for the administration of topics.
pub struct Admin {
    client: Arc<AdminClient<Context>>,
}

impl Admin {
    /// Makes the client. Brokers and security as for the log; talks to nobody yet.
    ///
    /// # Errors
    /// `Mismatch` for settings that cannot work, `Io` when librdkafka refuses them.
    pub fn connect(settings: &KafkaSettings) -> Result<Self, LogError> {
        settings.check()?;
        let made: Result<AdminClient<Context>, KafkaError> = settings.client().create_with_context(Context);
        let client = made.map_err(|error| broker_error("the kafka client is not made", &error))?;
        Ok(Self { client: Arc::new(client) })
    }

    /// How the named topics are; those that are not there are left out.
    ///
    /// # Errors
    /// `Io` when the cluster does not answer or refuses.
    pub async fn current(&self, names: &[String]) -> Result<Vec<CurrentTopic>, LogError> {
        let mut found = self.look(names).await?;
        if found.is_empty() {
            return Ok(found);
        }
        let seen: Vec<String> = found.iter().map(|topic| topic.name.clone()).collect();
        let resources: Vec<ResourceSpecifier<'_>> = seen.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let described =
            self.client.describe_configs(&resources, &options()).await.map_err(|error| broker_error("describing topics", &error))?;
        for (topic, config) in found.iter_mut().zip(described) {
            let config: ConfigResource = config.map_err(|code| refused(&topic.name, code))?;
            for entry in config.entries {
                if entry.source == ConfigSource::DynamicTopic {
                    topic.own.push(entry.name.clone());
                }
                if let Some(value) = entry.value {
                    topic.config.insert(entry.name, value);
                }
            }
        }
        Ok(found)
    }

    async fn look(&self, names: &[String]) -> Result<Vec<CurrentTopic>, LogError> {
        let (client, names) = (self.client.clone(), names.to_vec());
        let looking = tokio::task::spawn_blocking(move || {
            // All topics: asking for one that is missing would make it where brokers create topics by themselves.
            let metadata = client.inner().fetch_metadata(None, REQUEST_WAIT).map_err(|error| broker_error("asking for topics", &error))?;
            let mut found = Vec::new();
            for topic in metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name())) {
                match topic.error() {
                    None => {}
                    Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => continue,
                    Some(error) => return Err(refused(topic.name(), error.into())),
                }
                let replicas = topic.partitions().first().map_or(0, |partition| partition.replicas().len());
                found.push(CurrentTopic {
                    name: topic.name().to_owned(),
                    partitions: u16::try_from(topic.partitions().len()).unwrap_or(u16::MAX),
                    replication_factor: u16::try_from(replicas).unwrap_or(u16::MAX),
                    config: BTreeMap::new(),
                    own: Vec::new(),
                });
            }
            Ok(found)
        });
        looking.await.unwrap_or(Err(LogError::Closed))
    }

    /// Carries a plan out, one step after another, and waits until the cluster shows what was made. Brokers that are about to be
    /// counted are waited for: a cluster that starts refuses three replicas until its third broker has reported.
    ///
    /// # Errors
    /// `Mismatch` when the plan has refusals: then nothing is changed. `Io` for the first step that the cluster refuses; steps before it
    /// are done, and planning again shows what is left.
    pub async fn apply(&self, changes: &[Change]) -> Result<(), LogError> {
        let refusals: Vec<String> = changes.iter().filter(|change| change.is_refusal()).map(Change::to_string).collect();
        if !refusals.is_empty() {
            return Err(LogError::Mismatch(format!("nothing was changed, because of:\n{}", refusals.join("\n"))));
        }
        let mut wanted: Vec<(String, u16)> = Vec::new();
        for change in changes {
            when_counted(async || self.carry_out(change).await).await?;
            match change {
                Change::Create(spec) => wanted.push((spec.name.clone(), spec.partitions)),
                Change::AddPartitions { topic, to, .. } => wanted.push((topic.clone(), *to)),
                Change::Alter { .. } | Change::Refused { .. } => {}
            }
        }
        self.settle(&wanted).await
    }

    async fn carry_out(&self, change: &Change) -> Result<(), Unchanged> {
        let (topic, results) = match change {
            Change::Create(spec) => {
                let mut new =
                    NewTopic::new(&spec.name, i32::from(spec.partitions), TopicReplication::Fixed(i32::from(spec.replication_factor)));
                for (name, value) in &spec.config {
                    new = new.set(name, value);
                }
                let made = self.client.create_topics(&[new], &options()).await;
                (
                    &spec.name,
                    made.map(|results| results.into_iter().map(|result| result.map(drop).map_err(|(_, code)| code)).collect::<Vec<_>>()),
                )
            }
            Change::AddPartitions { topic, to, .. } => {
                let more = NewPartitions::new(topic, usize::from(*to));
                let made = self.client.create_partitions(&[more], &options()).await;
                (topic, made.map(|results| results.into_iter().map(|result| result.map(drop).map_err(|(_, code)| code)).collect()))
            }
            Change::Alter { topic, settings, kept } => {
                // The request resets what it does not name, so it names everything.
                let mut alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
                for (name, value) in kept {
                    alter = alter.set(name, value);
                }
                for setting in settings {
                    alter = alter.set(&setting.name, &setting.to);
                }
                let altered = self.client.alter_configs(&[alter], &options()).await;
                (topic, altered.map(|results| results.into_iter().map(|result| result.map(drop).map_err(|(_, code)| code)).collect()))
            }
            Change::Refused { .. } => return Ok(()),
        };
        let results = results.map_err(|error| Unchanged::Other(broker_error(&format!("topic {topic}"), &error)))?;
        results.into_iter().try_for_each(|result| result.map_err(|code| Unchanged::new(topic, code)))
    }

    /// Waits until what was made is seen with its partitions.
    async fn settle(&self, wanted: &[(String, u16)]) -> Result<(), LogError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
        for _ in 0..SETTLE_LOOKS {
            let found = self.look(&names).await?;
            if wanted.iter().all(|(name, partitions)| found.iter().any(|topic| topic.name == *name && topic.partitions == *partitions)) {
                return Ok(());
            }
            tokio::time::sleep(SETTLE_EVERY).await;
        }
        Err(LogError::Io(std::io::Error::other(
            "the cluster took the changes and does not show them yet: look again with `trunkline topics plan`",
        )))
    }
}

/// Why a step was not carried out.
enum Unchanged {
    /// Fewer brokers are counted than a topic has replicas: there are no more, or they are only about to be.
    TooFewBrokers(LogError),
    Other(LogError),
}

impl Unchanged {
    fn new(topic: &str, code: RDKafkaErrorCode) -> Self {
        if code != RDKafkaErrorCode::InvalidReplicationFactor {
            return Self::Other(refused(topic, code));
        }
        Self::TooFewBrokers(LogError::Io(std::io::Error::other(format!(
            "kafka refused topic {topic}: {code}; fewer brokers are up than it is to have replicas"
        ))))
    }
}

/// Does a step; where too few brokers are counted, again until there are enough or it has waited long enough.
async fn when_counted(step: impl AsyncFn() -> Result<(), Unchanged>) -> Result<(), LogError> {
    for _ in 1..BROKER_TRIES {
        match step().await {
            Ok(()) => return Ok(()),
            Err(Unchanged::TooFewBrokers(_)) => tokio::time::sleep(BROKER_EVERY).await,
            Err(Unchanged::Other(error)) => return Err(error),
        }
    }
    step().await.map_err(|unchanged| match unchanged {
        Unchanged::TooFewBrokers(error) | Unchanged::Other(error) => error,
    })
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_WAIT)).operation_timeout(Some(REQUEST_WAIT))
}

fn refused(topic: &str, code: RDKafkaErrorCode) -> LogError {
    LogError::Io(std::io::Error::other(format!("kafka refused topic {topic}: {code}")))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A cluster that starts counts its brokers one after another: steps wait for that, not for anything else, and not for ever.
    #[tokio::test(start_paused = true)]
    async fn a_step_waits_for_brokers_that_are_not_counted_yet() {
        let too_few = RDKafkaErrorCode::InvalidReplicationFactor;
        let cases: [(&str, &[RDKafkaErrorCode], bool, usize); 4] = [
            ("made at once", &[], true, 1),
            ("counted on the third look", &[too_few, too_few], true, 3),
            ("never counted", &[too_few; BROKER_TRIES + 1], false, BROKER_TRIES),
            ("refused for good", &[RDKafkaErrorCode::TopicAuthorizationFailed], false, 1),
        ];
        for (what, answers, is_made, tries) in cases {
            let tried = Cell::new(0);
            let made = when_counted(async || {
                let answer = answers.get(tried.replace(tried.get() + 1));
                answer.map_or(Ok(()), |code| Err(Unchanged::new("inbound", *code)))
            });
            assert_eq!((made.await.is_ok(), tried.get()), (is_made, tries), "{what}");
        }
    }
}
