//! What the cluster says about our topics.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr;

use crate::log::Topic;

/// Longest wait for one answer about the topics.
pub(super) const LOOK_WAIT: Duration = Duration::from_secs(2);
/// The most partitions that a topic may have: beyond, a shard's number does not fit.
const PARTITIONS_MAX: usize = u16::MAX as usize;

/// A topic, as the cluster tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub name: String,
    pub partitions: usize,
    /// Partitions without a leader: nothing can be written to them now.
    pub leaderless: usize,
}

/// What a look found.
#[derive(Debug)]
pub(super) enum Look {
    /// The topics stand as they should.
    Well {
        /// Of each topic.
        partitions: u16,
        /// Whether every partition has a leader.
        led: bool,
    },
    /// They do not. Said to people, with the cure.
    Unfit(String),
    /// No answer.
    Away(String),
}

/// Asks the cluster. Blocks up to [`LOOK_WAIT`].
///
/// It asks for all topics: a question about a topic that is missing would make it, with whatever partition count, on a broker that creates
/// topics by itself.
pub(super) fn look<C: ClientContext>(client: &Client<C>, names: &[String; Topic::ALL.len()]) -> Look {
    let metadata = match client.fetch_metadata(None, LOOK_WAIT) {
        Ok(metadata) => metadata,
        Err(error) => return Look::Away(error.to_string()),
    };
    let mut seen = Vec::with_capacity(names.len());
    for topic in metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name())) {
        match topic.error() {
            None => {}
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => continue,
            Some(error) => return Look::Away(format!("topic {}: {}", topic.name(), rdkafka::types::RDKafkaErrorCode::from(error))),
        }
        let leaderless = topic.partitions().iter().filter(|partition| partition.leader() < 0).count();
        seen.push(Seen { name: topic.name().to_owned(), partitions: topic.partitions().len(), leaderless });
    }
    judge(names, &seen)
}

fn judge(names: &[String; Topic::ALL.len()], seen: &[Seen]) -> Look {
    let missing: Vec<&str> = names.iter().filter(|name| !seen.iter().any(|topic| &topic.name == *name)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Look::Unfit(format!("kafka has no topic {}: run `trunkline topics apply`", missing.join(", ")));
    }
    let first = seen[0].partitions;
    if seen.iter().any(|topic| topic.partitions != first) {
        let counts: Vec<String> = seen.iter().map(|topic| format!("{} has {}", topic.name, topic.partitions)).collect();
        return Look::Unfit(format!(
            "the topics must have equal partition counts, but {}: make new ones under another log.topic_prefix with `trunkline topics apply`",
            counts.join(", ")
        ));
    }
    if first == 0 || first > PARTITIONS_MAX {
        return Look::Unfit(format!("the topics have {first} partitions, and 1 to {PARTITIONS_MAX} can be used"));
    }
    let led = seen.iter().all(|topic| topic.leaderless == 0);
    Look::Well { partitions: u16::try_from(first).expect("checked above"), led }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_judged() {
        let names = ["t.inbound", "t.outbound", "t.bulk"].map(String::from);
        type Topics = &'static [(&'static str, usize, usize)];
        let cases: &[(Topics, &str)] = &[
            (&[("t.inbound", 12, 0), ("t.outbound", 12, 0), ("t.bulk", 12, 0)], "12 led"),
            (&[("t.inbound", 12, 0), ("t.outbound", 12, 1), ("t.bulk", 12, 0)], "12 not led"),
            (&[("t.inbound", 12, 0), ("t.bulk", 12, 0)], "kafka has no topic t.outbound: run `trunkline topics apply`"),
            (&[], "kafka has no topic t.inbound, t.outbound, t.bulk: run `trunkline topics apply`"),
            (&[("t.inbound", 12, 0), ("t.outbound", 12, 0), ("t.bulk", 6, 0)], "t.bulk has 6"),
            (&[("t.inbound", 70_000, 0), ("t.outbound", 70_000, 0), ("t.bulk", 70_000, 0)], "70000 partitions"),
        ];
        for (seen, wanted) in cases {
            let seen: Vec<Seen> = seen
                .iter()
                .map(|(name, partitions, leaderless)| Seen { name: (*name).into(), partitions: *partitions, leaderless: *leaderless })
                .collect();
            let said = match judge(&names, &seen) {
                Look::Well { partitions, led } => format!("{partitions} {}", if led { "led" } else { "not led" }),
                Look::Unfit(what) => what,
                Look::Away(what) => panic!("{what}"),
            };
            assert!(said.contains(wanted), "{said}");
        }
    }
}
