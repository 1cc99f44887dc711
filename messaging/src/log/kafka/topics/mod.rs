//! The topics as a file says they should be, and what has to change for that.
//!
//! [`parse`] reads `deploy/kafka/topics.toml`, [`plan`] compares it with the cluster and is pure, [`Admin`] looks and applies. Nothing is ever deleted, and
//! what would break the order of conversations is refused: the partition of a conversation follows from its key and the partition count.

mod admin;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

pub use self::admin::Admin;
use super::settings::RECORD_OVERHEAD;
use crate::log::{LogError, Topic};

/// The longest retention: the log forgets personal data by itself.
pub const RETENTION_MAX: Duration = Duration::from_hours(14 * 24);
/// The most partitions of a topic.
const PARTITIONS_MAX: u16 = 10_000;
/// Settings that are altered in place. Anything else that differs is for a person.
const SAFE: &[&str] = &[
    "compression.type",
    "max.message.bytes",
    "message.timestamp.type",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.ms",
    "unclean.leader.election.enable",
];
/// What a record needs to survive: a file that says otherwise is refused.
const REQUIRED: &[(&str, &str, &str)] = &[
    ("cleanup.policy", "delete", "records have no keys to compact by"),
    ("unclean.leader.election.enable", "false", "acknowledged records would be lost"),
];

/// How a topic should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Full name, with the prefix.
    pub name: String,
    /// Partitions.
    pub partitions: u16,
    /// Replicas of each partition.
    pub replication_factor: u16,
    /// Whether records are placed by a key: then the partition count stays.
    pub keyed: bool,
    /// Settings of the topic, as the broker names them.
    pub config: BTreeMap<String, String>,
}

/// How a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentTopic {
    /// Full name.
    pub name: String,
    /// Partitions.
    pub partitions: u16,
    /// Replicas of its first partition.
    pub replication_factor: u16,
    /// All settings in force, wherever they come from.
    pub config: BTreeMap<String, String>,
    /// Names of those that are set on the topic itself; an alteration has to repeat them.
    pub own: Vec<String>,
}

/// What stands in the place of the file's numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// Partitions of every topic.
    pub partitions: Option<u16>,
    /// Replicas. Where it is smaller than `min.insync.replicas`, that is lowered to it, so that a single broker can be tried.
    pub replication_factor: Option<u16>,
}

/// A setting that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value now, if it has one.
    pub from: Option<String>,
    /// Its value then.
    pub to: String,
}

/// A step from how topics are to how they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The topic is not there.
    Create(TopicSpec),
    /// Settings differ that may be altered in place.
    Alter {
        /// The topic.
        topic: String,
        /// What changes.
        settings: Vec<Setting>,
        /// What else is set on the topic, and stays.
        kept: Vec<(String, String)>,
    },
    /// It has too few partitions.
    AddPartitions {
        /// The topic.
        topic: String,
        /// Now.
        from: u16,
        /// Then.
        to: u16,
        /// Whether conversations move to other partitions by it: only with a new generation.
        keyed: bool,
    },
    /// It differs in a way that is not changed here.
    Refused {
        /// The topic.
        topic: String,
        /// What differs, why it stays, and the cure.
        why: String,
    },
}

impl Change {
    /// Whether it stops the others from being applied.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(spec) => {
                write!(f, "+ {}: {} partitions, {} replicas", spec.name, spec.partitions, spec.replication_factor)?;
                spec.config.iter().try_for_each(|(name, value)| write!(f, ", {name}={value}"))
            }
            Self::Alter { topic, settings, .. } => {
                write!(f, "~ {topic}:")?;
                let mut between = " ";
                for setting in settings {
                    let from = setting.from.as_deref().unwrap_or("(unset)");
                    write!(f, "{between}{} {from} -> {}", setting.name, setting.to)?;
                    between = ", ";
                }
                Ok(())
            }
            Self::AddPartitions { topic, from, to, keyed } => {
                write!(f, "~ {topic}: {from} -> {to} partitions")?;
                if *keyed { f.write_str(" (new generation: conversations move, finish what is open first)") } else { Ok(()) }
            }
            Self::Refused { topic, why } => write!(f, "! {topic}: {why}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    partitions: u16,
    replication_factor: u16,
    keyed: bool,
    config: BTreeMap<String, toml::Value>,
    topics: BTreeMap<String, Own>,
}

/// What a topic has of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    #[serde(default)]
    config: BTreeMap<String, toml::Value>,
}

/// Reads the file. Names get the prefix.
///
/// # Errors
/// `Mismatch` with the fault: not TOML, a topic too many or too few, numbers or settings that lose records or keep them too long.
pub fn parse(text: &str, prefix: &str, overrides: Overrides, max_record: usize) -> Result<Vec<TopicSpec>, LogError> {
    let refuse = |what: String| LogError::Mismatch(format!("topics.toml: {what}"));
    let file: File = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
    let names: Vec<&str> = file.topics.keys().map(String::as_str).collect();
    if let Some(unknown) = names.iter().find(|name| !Topic::NAMES.contains(name)) {
        return Err(refuse(format!("there is no topic {unknown}: the topics are {}", Topic::NAMES.join(", "))));
    }
    let partitions = overrides.partitions.unwrap_or(file.partitions);
    let replication_factor = overrides.replication_factor.unwrap_or(file.replication_factor);
    if partitions == 0 || partitions > PARTITIONS_MAX || replication_factor == 0 {
        return Err(refuse(format!("partitions must be 1 to {PARTITIONS_MAX}, and replication_factor at least 1")));
    }
    let mut specs = Vec::new();
    for &topic in Topic::ALL {
        let Some(own) = file.topics.get(topic.name()) else { return Err(refuse(format!("topic {} is missing", topic.name()))) };
        let mut config = BTreeMap::new();
        for (name, value) in file.config.iter().chain(&own.config) {
            config.insert(name.clone(), text_of(value).ok_or_else(|| refuse(format!("{name} must be a text, a number or true or false")))?);
        }
        if let Some(in_sync) = config.get_mut("min.insync.replicas")
            && overrides.replication_factor.is_some()
            && number(in_sync).is_some_and(|in_sync| in_sync > i64::from(replication_factor))
        {
            *in_sync = replication_factor.to_string();
        }
        check(&config, replication_factor, max_record).map_err(|what| refuse(format!("{}: {what}", topic.name())))?;
        specs.push(TopicSpec { name: format!("{prefix}{}", topic.name()), partitions, replication_factor, keyed: file.keyed, config });
    }
    Ok(specs)
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(whether) => Some(whether.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn check(config: &BTreeMap<String, String>, replication_factor: u16, max_record: usize) -> Result<(), String> {
    for (name, wanted, why) in REQUIRED {
        if config.get(*name).is_some_and(|value| value != wanted) {
            return Err(format!("{name} must be {wanted}: {why}"));
        }
    }
    let whole = |name: &str| match config.get(name) {
        Some(text) => number(text).map(Some).ok_or_else(|| format!("{name} must be a whole number")),
        None => Ok(None),
    };
    let retention_max = i64::try_from(RETENTION_MAX.as_millis()).unwrap_or(i64::MAX);
    let retention = whole("retention.ms")?.ok_or("retention.ms is missing: the log must forget by itself")?;
    if !(1..=retention_max).contains(&retention) {
        return Err(format!("retention.ms must be 1 to {retention_max} (14 days): the log forgets personal data by itself"));
    }
    let in_sync = whole("min.insync.replicas")?.ok_or("min.insync.replicas is missing: it says what acknowledged means")?;
    if in_sync < 1 || in_sync > i64::from(replication_factor) || replication_factor > 1 && in_sync == i64::from(replication_factor) {
        return Err(format!(
            "min.insync.replicas must be below the replication factor {replication_factor}: 2 of 3; else one broker stops all"
        ));
    }
    let needed = i64::try_from(max_record + RECORD_OVERHEAD).unwrap_or(i64::MAX);
    if whole("max.message.bytes")?.is_none_or(|bytes| bytes < needed) {
        return Err(format!("max.message.bytes must be at least {needed}: log.max_record and the frame"));
    }
    Ok(())
}

/// What has to change. In the order of `wanted`; refusals stand among the rest.
pub fn plan(current: &[CurrentTopic], wanted: &[TopicSpec], new_generation: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for spec in wanted {
        match current.iter().find(|topic| topic.name == spec.name) {
            None => changes.push(Change::Create(spec.clone())),
            Some(topic) => plan_topic(topic, spec, new_generation, &mut changes),
        }
    }
    changes
}

fn plan_topic(topic: &CurrentTopic, spec: &TopicSpec, new_generation: bool, changes: &mut Vec<Change>) {
    let (from, to) = (topic.partitions, spec.partitions);
    let refused = |why: String| Change::Refused { topic: spec.name.clone(), why };
    if to < from {
        changes.push(refused(format!(
            "has {from} partitions and {to} are wanted: kafka cannot take partitions away; write {from} into the file"
        )));
    } else if to > from && spec.keyed && !new_generation {
        changes.push(refused(format!(
            "has {from} partitions and {to} are wanted: conversations would move and lose their order; give --new-generation when nothing is open"
        )));
    } else if to > from {
        changes.push(Change::AddPartitions { topic: spec.name.clone(), from, to, keyed: spec.keyed });
    }
    if topic.replication_factor != spec.replication_factor {
        let (has, wants) = (topic.replication_factor, spec.replication_factor);
        changes.push(refused(format!("has {has} replicas and {wants} are wanted: move replicas with kafka-reassign-partitions")));
    }
    let mut settings = Vec::new();
    for (name, to) in &spec.config {
        let from = topic.config.get(name);
        if from == Some(to) {
            continue;
        }
        let now = from.map_or("(unset)", String::as_str);
        if !SAFE.contains(&name.as_str()) {
            changes.push(refused(format!("{name} is {now} and {to} is wanted: not altered here; do it by hand if it is meant")));
            continue;
        }
        let shrinks = name == "max.message.bytes" && from.and_then(|from| number(from)) > number(to);
        if shrinks {
            changes.push(refused(format!(
                "{name} is {now} and {to} is wanted: records on their way might not fit; do it by hand if it is meant"
            )));
            continue;
        }
        settings.push(Setting { name: name.clone(), from: from.cloned(), to: to.clone() });
    }
    if settings.is_empty() {
        return;
    }
    let stays = |name: &&String| !settings.iter().any(|setting| setting.name == **name);
    let kept = topic.own.iter().filter(stays).filter_map(|name| Some((name.clone(), topic.config.get(name)?.clone())));
    changes.push(Change::Alter { topic: spec.name.clone(), kept: kept.collect(), settings });
}
