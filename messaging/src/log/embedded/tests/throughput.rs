//! How fast: prints figures, asserts only that nothing was lost.
//! `cargo test -p messaging --release log_throughput -- --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::support::*;
use crate::clock::SystemClock;
use crate::log::embedded::EmbeddedLog;
use crate::log::{ClaimChange, Finished, Log, Topic};

const RECORD: usize = 1024;
const SHARDS: u16 = 16;

/// CPU time of all threads of this process, dead ones not.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn place(dir: &std::path::Path) -> crate::log::EmbeddedSettings {
    let mut settings = settings(dir);
    settings.partitions = SHARDS;
    settings.segment_bytes = 128 << 20;
    settings.max_bytes = 20 << 30;
    settings
}

/// Takes everything of a shard as it comes and finishes now and then.
async fn consume(log: Arc<EmbeddedLog>, mut reader: Box<dyn crate::log::ShardReader>, count: usize) {
    let shard = reader.shard();
    let (mut seen, mut finished) = (0, 0);
    while seen < count {
        reader.ready().await;
        let entries = reader.take(Topic::Inbound, 256).await.unwrap();
        seen += entries.len();
        if let Some(last) = entries.last().filter(|_| seen - finished >= 2048 || seen == count) {
            finished = seen;
            log.finish(vec![Finished { topic: Topic::Inbound, shard, position: last.position }]).await.unwrap();
        }
    }
    assert_eq!(seen, count);
}

/// Appends `records` in batches from several tasks; prints what it cost.
async fn measure(name: &str, records: usize, tasks: usize, batch: usize, consumed: bool) {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(EmbeddedLog::open(place(dir.path()), Arc::new(SystemClock::default())).unwrap());
    let each = records / tasks / batch * batch;
    let mut consumers = Vec::new();
    if consumed {
        let ClaimChange::Assigned(readers) = log.claims().await else { panic!("the first claim assigns") };
        for reader in readers {
            let shard = usize::from(reader.shard());
            let count = tasks * (0..each).filter(|number| number % usize::from(SHARDS) == shard).count();
            consumers.push(tokio::spawn(consume(log.clone(), reader, count)));
        }
    }
    let body = bytes::Bytes::from(vec![7; RECORD]);
    let (start, before) = (Instant::now(), cpu());
    let appenders: Vec<_> = (0..tasks)
        .map(|_| {
            let (log, body) = (log.clone(), body.clone());
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for first in (0..each).step_by(batch) {
                    let records = (first..first + batch).map(|number| record(Topic::Inbound, number as u16 % SHARDS, body.clone()));
                    let asked = Instant::now();
                    let results = log.append(records.collect()).await;
                    waits.push(asked.elapsed());
                    assert!(results.iter().all(Result::is_ok));
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for appender in appenders {
        waits.extend(appender.await.unwrap());
    }
    let (appended, spent) = (start.elapsed(), cpu().saturating_sub(before));
    for consumer in consumers {
        consumer.await.unwrap();
    }
    let (all, spent_all) = (start.elapsed(), cpu().saturating_sub(before));
    waits.sort_unstable();
    let count = (each * tasks) as f64;
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!(
        "{name}: {count} records, appended at {:.0}/s, {:.2} us cpu a record; ack p50 {:?} p99 {:?} max {:?}; with what reads: {:.0}/s, {:.2} us",
        count / appended.as_secs_f64(),
        spent.as_secs_f64() * 1e6 / count,
        at(0.5),
        at(0.99),
        at(1.0),
        count / all.as_secs_f64(),
        spent_all.as_secs_f64() * 1e6 / count,
    );
    log.close().await;
}

/// How long `dev` waits for its log: a new folder and an idle one, with its small segments.
#[test]
fn log_throughput_of_opening() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = place(dir.path());
    settings.segment_bytes = 16 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for what in ["new", "again"] {
        let start = Instant::now();
        let log = EmbeddedLog::open(settings.clone(), Arc::new(SystemClock::default())).unwrap();
        println!("opened with 16 MiB segments, {what}: {:?}", start.elapsed());
        runtime.block_on(log.close());
    }
}

#[test]
fn log_throughput() {
    let scale = if cfg!(debug_assertions) { 100 } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        measure("8 tasks, batches of 64", 1_000_000 / scale, 8, 64, false).await;
        measure("32 tasks, batches of 64", 1_000_000 / scale, 32, 64, false).await;
        measure("16 tasks, batches of 64, consumed", 1_000_000 / scale, 16, 64, true).await;
        measure("256 tasks, one record each, consumed", 200_000 / scale, 256, 1, true).await;
    });
}

/// A backlog of a million records opens in seconds and can be taken from the file by all shards.
#[test]
fn log_throughput_of_recovery() {
    let records = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock::default());
        let log = Arc::new(EmbeddedLog::open(place(dir.path()), clock.clone()).unwrap());
        let body = bytes::Bytes::from(vec![7; RECORD]);
        for first in (0..records).step_by(500) {
            let batch = (first..first + 500).map(|number| record(Topic::Inbound, number as u16 % SHARDS, body.clone()));
            assert!(log.append(batch.collect()).await.iter().all(Result::is_ok));
        }
        log.close().await;
        drop(log);
        let (start, before) = (Instant::now(), cpu());
        let log = Arc::new(EmbeddedLog::open(place(dir.path()), clock).unwrap());
        println!("opened with {records} unfinished records in {:?}, {:?} cpu", start.elapsed(), cpu().saturating_sub(before));
        let (start, before) = (Instant::now(), cpu());
        let ClaimChange::Assigned(readers) = log.claims().await else { panic!("the first claim assigns") };
        let each = records / usize::from(SHARDS);
        let consumers: Vec<_> = readers.into_iter().map(|reader| tokio::spawn(consume(log.clone(), reader, each))).collect();
        for consumer in consumers {
            consumer.await.unwrap();
        }
        let spent = cpu().saturating_sub(before);
        println!("took them in {:?}, {:.2} us cpu a record", start.elapsed(), spent.as_secs_f64() * 1e6 / records as f64);
        log.close().await;
    });
}
