//! A broker that stops answering, and queues that are full.
//!
//! The broker is stopped and continued by signals: it must run on this machine, as `tests/servers` starts it. Nobody else uses it meanwhile.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use messaging::clock::SystemClock;
use messaging::log::kafka::topics::{Admin, Overrides, parse, plan};
use messaging::log::kafka::{KafkaLog, Role, Standing};
use messaging::log::{AppendError, Finished, Log, LogError, Topic};

use crate::rig::{self, Member, append, record, texts, within};

/// A stopped broker. Continued when this is dropped.
struct Stopped(String);

impl Stopped {
    fn now() -> Self {
        let pid = listener();
        signal("-STOP", &pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(which: &str, pid: &str) {
    let status = Command::new("kill").args([which, pid]).status().expect("kill runs");
    assert!(status.success(), "kill {which} {pid}");
}

/// The process that listens on the broker's port.
fn listener() -> String {
    let brokers = rig::brokers();
    assert_eq!(brokers.len(), 1, "one broker is stopped, so one must be all: run `tests/servers up kafka --brokers 1`");
    let port: u16 = brokers[0].rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("TRUNKLINE_TEST_KAFKA is host:port");
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).expect("linux").lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == "0A" && fields[1].ends_with(&format!(":{port:04X}")) {
                sockets.push(format!("socket:[{}]", fields[9]));
            }
        }
    }
    for process in std::fs::read_dir("/proc").expect("linux").flatten() {
        let Ok(handles) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for handle in handles.flatten() {
            let target = std::fs::read_link(handle.path()).unwrap_or_default();
            if sockets.iter().any(|socket| target.as_os_str() == socket.as_str()) {
                return process.file_name().to_string_lossy().into_owned();
            }
        }
    }
    panic!("no process of ours listens on port {port}: run `tests/servers up kafka` as the same user");
}

/// Appends to a broker that does not answer fail as `Away`, the log says that it is not writable, and both end by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_broker_fails_appends_in_time_and_nothing_more() {
    let _alone = rig::alone().await;
    let mut settings = rig::settings(&rig::fresh("stopped"));
    // So that the shards stay while the broker is stopped.
    settings.session_timeout = Duration::from_secs(40);
    rig::make_topics(&settings, 2).await;
    let log = rig::open(settings).await;
    let mut member = Member::new(log.clone());
    member.until_has(2).await;
    append(&log, vec![record(Topic::Inbound, 0, "before")]).await;
    let before = member.take(0, Topic::Inbound, 1).await;
    let stopped = Stopped::now();
    for round in 0..2 {
        let batch = (0..3).map(|number| record(Topic::Inbound, 0, format!("during {round} {number}"))).collect();
        assert_eq!(within("an append", log.append(batch)).await, [Err(AppendError::Away); 3]);
        assert!(!log.writable());
    }
    let finishing = within("finish", log.finish(vec![Finished { topic: Topic::Inbound, shard: 0, position: before[0].position }])).await;
    assert!(matches!(finishing, Err(LogError::Io(_))), "{finishing:?}");
    drop(stopped);
    rig::until("it is writable again", || log.writable()).await;
    append(&log, (0..3).map(|number| record(Topic::Inbound, 0, format!("after {number}"))).collect()).await;

    // What failed may have arrived; in its place, and before what came later.
    let mut seen = texts(&before);
    while seen.last().is_none_or(|last| last != "after 2") {
        seen.extend(texts(&member.take(0, Topic::Inbound, 1).await));
    }
    let during: Vec<&String> = seen.iter().filter(|text| text.starts_with("during")).collect();
    assert!(during.is_sorted(), "{seen:?}");
    assert_eq!((seen.first().map(String::as_str), seen.len()), (Some("before"), 4 + during.len()), "{seen:?}");
    assert!(seen.ends_with(&["after 0".to_owned(), "after 1".into(), "after 2".into()]), "{seen:?}");
    log.close().await;
}

/// A member that does not hear from the group for a session loses its shards, and gets them again, from the finished positions on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_loses_its_shards_and_comes_back() {
    let _alone = rig::alone().await;
    let (_, log) = rig::fresh_log("cut", 2, Role::Consume).await;
    let mut member = Member::new(log.clone());
    member.until_has(2).await;
    append(&log, (0..5).map(|number| record(Topic::Inbound, 1, format!("{number}"))).collect()).await;
    let entries = member.take(1, Topic::Inbound, 5).await;
    within("finish", log.finish(vec![Finished { topic: Topic::Inbound, shard: 1, position: entries[1].position }]))
        .await
        .expect("finishing works");
    let stopped = Stopped::now();
    let gone = member.next().await;
    assert_eq!(member.changes, ["assigned 2", "lost 2"]);
    for mut reader in gone {
        assert!(reader.take(Topic::Inbound, 5).await.expect("taking works").is_empty());
    }
    let late = vec![Finished { topic: Topic::Inbound, shard: 1, position: entries[4].position }];
    assert!(within("finish", log.finish(late)).await.is_ok(), "what is not ours is left out");
    drop(stopped);
    member.until_has(2).await;
    assert_eq!(texts(&member.take(1, Topic::Inbound, 3).await), ["2", "3", "4"]);
    log.close().await;
}

/// While a broker stands still, who has a spool is told before long; who has none, or must keep its place, is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still_is_waited_for_or_not() {
    let _alone = rig::alone().await;
    let (_, log) = rig::fresh_log("slow", 2, Role::Produce).await;
    append(&log, vec![record(Topic::Inbound, 0, "before"), record(Topic::Outbound, 0, "before")]).await;
    let stopped = Stopped::now();
    let mut waiting = log.append(vec![record(Topic::Outbound, 0, "x")]);
    assert_eq!(within("an append", log.append_soon(vec![record(Topic::Inbound, 0, "x")])).await, [Err(AppendError::Away)]);
    assert!((&mut waiting).now_or_never().is_none(), "it waits");
    drop(stopped);
    let results = within("an append", waiting).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    log.close().await;
}

/// A record that waits for company does not stand still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_linger_is_no_broker_that_stands_still() {
    let _shared = rig::shared().await;
    let mut settings = rig::settings(&rig::fresh("linger"));
    settings.role = Role::Produce;
    settings.linger = Duration::from_millis(600);
    rig::make_topics(&settings, 2).await;
    let log = rig::open(settings).await;
    let results = within("an append", log.append_soon(vec![record(Topic::Inbound, 0, "x")])).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    log.close().await;
}

/// More replicas than there are brokers are refused, and the error says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_replicas_than_brokers_are_refused() {
    let _shared = rig::shared().await;
    let settings = rig::settings(&rig::fresh("replicas"));
    let overrides = Overrides { partitions: Some(1), replication_factor: Some(3) };
    let wanted = parse(rig::TOPICS, &settings.topic_prefix, overrides, settings.max_record).expect("the file is right");
    let refused = Admin::connect(&settings).expect("a client is made").apply(&plan(&[], &wanted, false)).await;
    let error = refused.expect_err("one broker holds no three replicas").to_string();
    assert!(error.contains(&settings.topic_names()[0]) && error.contains("fewer brokers"), "{error}");
}

/// A gateway starts while the broker is away, when it knows the partition count from before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_opens_while_the_broker_is_away() {
    let _alone = rig::alone().await;
    let mut settings = rig::settings(&rig::fresh("later"));
    settings.role = Role::Produce;
    rig::make_topics(&settings, 2).await;
    let stopped = Stopped::now();
    settings.open_wait = Duration::from_secs(1);
    let refused = KafkaLog::open(settings.clone(), Arc::new(SystemClock::default())).await;
    assert!(matches!(refused.err(), Some(LogError::Io(_))), "without the count it cannot");
    settings.partitions = Some(2);
    let log = rig::open(settings).await;
    let results = log.append(vec![record(Topic::Inbound, 0, "x")]).now_or_never();
    assert_eq!(results, Some(vec![Err(AppendError::Away)]), "at once");
    assert_eq!((log.standing(), log.writable()), (Standing::Unconfirmed, false));
    drop(stopped);
    rig::until("it is writable", || log.writable()).await;
    assert_eq!(log.standing(), Standing::Confirmed(2));
    append(&log, vec![record(Topic::Inbound, 0, "x")]).await;
    log.close().await;
}

/// Closing comes to an end while the broker is away, and what was not acknowledged has failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_closes_while_the_broker_is_away() {
    let _alone = rig::alone().await;
    let (_, log) = rig::fresh_log("closes", 2, Role::Consume).await;
    let mut member = Member::new(log.clone());
    member.until_has(2).await;
    let stopped = Stopped::now();
    let waiting = log.append(vec![record(Topic::Inbound, 0, "x")]);
    within("closing", log.close()).await;
    assert_eq!(within("an append", waiting).await, [Err(AppendError::Away)]);
    drop(stopped);
}

/// A full queue answers at once, and what is in it is a prefix of the batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_answers_at_once() {
    let _shared = rig::shared().await;
    let mut settings = rig::settings(&rig::fresh("queue"));
    settings.role = Role::Produce;
    settings.queue_limit = 10;
    settings.linger = Duration::from_secs(1);
    rig::make_topics(&settings, 2).await;
    let log = rig::open(settings).await;
    let waiting = log.append((0..25).map(|number| record(Topic::Bulk, number % 2, format!("{number}"))).collect());
    assert_eq!(log.queue(), (10, 10));
    let more = log.append(vec![record(Topic::Bulk, 0, "more"); 3]).now_or_never();
    assert_eq!(more, Some(vec![Err(AppendError::Full); 3]), "at once");
    assert!(log.writable(), "full is not away");
    let results = within("the first batch", waiting).await;
    assert!(results[..10].iter().all(Result::is_ok) && results[10..].iter().all(|result| *result == Err(AppendError::Full)), "{results:?}");
    append(&log, vec![record(Topic::Bulk, 0, "later")]).await;
    assert_eq!(log.queue(), (0, 10));
    log.close().await;
}
