//! Plans, as tables.

use super::*;

const FILE: &str = include_str!("../../../../../deploy/kafka/topics.toml");
const MAX_RECORD: usize = 1 << 20;

fn wanted() -> Vec<TopicSpec> {
    parse(FILE, "t.", Overrides::default(), MAX_RECORD).expect("the file that we ship is right")
}

/// The cluster as the file wants it.
fn standing() -> Vec<CurrentTopic> {
    let topics = wanted().into_iter().map(|spec| CurrentTopic {
        name: spec.name,
        partitions: spec.partitions,
        replication_factor: spec.replication_factor,
        own: vec!["retention.ms".into(), "flush.ms".into()],
        config: spec.config.into_iter().chain([("flush.ms".to_owned(), "1000".to_owned())]).collect(),
    });
    topics.collect()
}

fn said(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::to_string).collect()
}

#[test]
fn the_shipped_file_keeps_the_promises() {
    let specs = wanted();
    assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["t.inbound", "t.outbound", "t.bulk"]);
    for spec in &specs {
        assert_eq!((spec.replication_factor, spec.config["min.insync.replicas"].as_str(), spec.keyed), (3, "2", true));
        assert_eq!(spec.config["retention.ms"], Duration::from_hours(7 * 24).as_millis().to_string());
        assert_eq!(spec.config["message.timestamp.type"], "LogAppendTime");
    }
    let one = parse(FILE, "", Overrides { partitions: Some(3), replication_factor: Some(1) }, MAX_RECORD).unwrap();
    assert!(one.iter().all(|spec| (spec.partitions, spec.replication_factor, spec.config["min.insync.replicas"].as_str()) == (3, 1, "1")));
}

#[test]
fn a_file_that_breaks_a_promise_is_refused() {
    let cases = [
        ("604_800_000", "2_000_000_000", "14 days"),
        ("604_800_000", "-1", "14 days"),
        ("604_800_000", "\"a week\"", "whole number"),
        ("\"min.insync.replicas\" = 2", "\"min.insync.replicas\" = 3", "below the replication factor"),
        ("\"min.insync.replicas\" = 2", "", "min.insync.replicas is missing"),
        ("enable\" = false", "enable\" = true", "acknowledged records would be lost"),
        ("\"delete\"", "\"compact\"", "cleanup.policy"),
        ("4_325_376", "1_048_576", "max.message.bytes must be at least 1114112"),
        ("[topics.bulk]", "", "topic bulk is missing"),
        ("[topics.bulk]", "[topics.bulky]", "there is no topic bulky"),
        ("partitions = 12", "partitions = 0", "partitions must be"),
        ("keyed = true", "keyed = true\nkeyd = true", "keyd"),
    ];
    for (from, to, wanted) in cases {
        assert!(FILE.contains(from), "{from}");
        let error = parse(&FILE.replacen(from, to, 1), "t.", Overrides::default(), MAX_RECORD).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn plans_create_alter_and_refuse() {
    type Change = fn(&mut Vec<CurrentTopic>);
    let cases: &[(&str, Change, bool, &[&str])] = &[
        ("nothing to do", |_| {}, false, &[]),
        ("a missing topic", |topics| drop(topics.remove(1)), false, &["+ t.outbound: 12 partitions, 3 replicas, cleanup.policy=delete"]),
        (
            "a safe setting",
            |topics| drop(topics[0].config.insert("retention.ms".into(), "1".into())),
            false,
            &["~ t.inbound: retention.ms 1 -> 604800000"],
        ),
        (
            "a setting that is not there",
            |topics| drop(topics[2].config.remove("segment.ms")),
            false,
            &["~ t.bulk: segment.ms (unset) -> 86400000"],
        ),
        (
            "a setting for a person",
            |topics| drop(topics[0].config.insert("cleanup.policy".into(), "compact".into())),
            false,
            &["! t.inbound: cleanup.policy is compact and delete is wanted"],
        ),
        (
            "smaller records",
            |topics| drop(topics[0].config.insert("max.message.bytes".into(), "9000000".into())),
            false,
            &["! t.inbound: max.message.bytes is 9000000"],
        ),
        (
            "more partitions",
            |topics| topics[0].partitions = 6,
            false,
            &["! t.inbound: has 6 partitions and 12 are wanted: conversations would move"],
        ),
        ("more partitions, meant", |topics| topics[0].partitions = 6, true, &["~ t.inbound: 6 -> 12 partitions (new generation"]),
        (
            "fewer partitions",
            |topics| topics[0].partitions = 24,
            false,
            &["! t.inbound: has 24 partitions and 12 are wanted: kafka cannot"],
        ),
        (
            "fewer partitions, meant",
            |topics| topics[0].partitions = 24,
            true,
            &["! t.inbound: has 24 partitions and 12 are wanted: kafka cannot"],
        ),
        ("replicas", |topics| topics[1].replication_factor = 1, false, &["! t.outbound: has 1 replicas and 3 are wanted"]),
        ("topics of others", |topics| topics.push(CurrentTopic { name: "other".into(), ..topics[0].clone() }), false, &[]),
    ];
    for (name, change, new_generation, expected) in cases {
        let mut current = standing();
        change(&mut current);
        let said = said(&plan(&current, &wanted(), *new_generation));
        assert_eq!(said.len(), expected.len(), "{name}: {said:?}");
        for (line, start) in said.iter().zip(*expected) {
            assert!(line.starts_with(start), "{name}: {line}");
        }
    }
}

#[test]
fn a_topic_without_keys_may_grow() {
    let mut current = standing();
    current[0].partitions = 6;
    let specs: Vec<TopicSpec> = wanted().into_iter().map(|spec| TopicSpec { keyed: false, ..spec }).collect();
    assert_eq!(said(&plan(&current, &specs, false)), ["~ t.inbound: 6 -> 12 partitions"]);
}

#[test]
fn an_alteration_repeats_what_stays() {
    let mut current = standing();
    current[0].config.insert("retention.ms".into(), "1".into());
    let changes = plan(&current, &wanted(), false);
    let [Change::Alter { kept, .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(kept, &[("flush.ms".to_owned(), "1000".to_owned())], "and what is altered is not repeated");
}
