use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::clock::SystemClock;
use crate::log::{Fsync, conformance};

const PARTITIONS: u16 = 4;

fn settings(dir: &std::path::Path, max_bytes: u64) -> EmbeddedSettings {
    EmbeddedSettings {
        dir: dir.to_owned(),
        partitions: PARTITIONS,
        segment_bytes: 64 << 10,
        fsync: Fsync::Group,
        retention: Duration::ZERO,
        max_bytes,
        max_record: 16 << 10,
        skip_damage: false,
    }
}

/// A log that can be taken away.
#[derive(Default)]
struct Remote {
    away: AtomicBool,
    /// Says that it takes records while it does not.
    lies: AtomicBool,
    /// Takes records, but not soon.
    slow: tokio::sync::watch::Sender<bool>,
    /// Fails every so many records; 0: none.
    fails_every: AtomicUsize,
    count: AtomicUsize,
    records: Mutex<BTreeMap<u16, Vec<String>>>,
}

impl Remote {
    fn texts(&self, partition: u16) -> Vec<String> {
        self.records.lock().unwrap().get(&partition).cloned().unwrap_or_default()
    }
}

impl Log for Remote {
    fn partitions(&self) -> u16 {
        PARTITIONS
    }
    fn max_record(&self) -> usize {
        16 << 10
    }
    fn append(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        let mut records = self.records.lock().unwrap();
        let mut results = Vec::new();
        let mut stopped = HashSet::new();
        for record in batch {
            let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
            let every = self.fails_every.load(Ordering::SeqCst);
            if self.away.load(Ordering::SeqCst) || (every > 0 && count.is_multiple_of(every)) || stopped.contains(&record.partition) {
                stopped.insert(record.partition);
                results.push(Err(AppendError::Closed));
                continue;
            }
            let partition = records.entry(record.partition).or_default();
            partition.push(String::from_utf8(record.payload.to_vec()).unwrap());
            results.push(Ok(Position(partition.len() as u64)));
        }
        let mut slow = self.slow.subscribe();
        Box::pin(async move {
            let _ = slow.wait_for(|slow| !slow).await;
            results
        })
    }
    fn append_soon(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        let records = batch.len();
        let taken = self.append(batch);
        if *self.slow.borrow() {
            return Box::pin(std::future::ready(vec![Err(AppendError::Away); records]));
        }
        taken
    }
    fn claims(&self) -> BoxFuture<'_, ClaimChange> {
        Box::pin(std::future::pending())
    }
    fn finish(&self, _: Vec<Finished>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn lag(&self) -> Vec<Lag> {
        Vec::new()
    }
    fn writable(&self) -> bool {
        self.lies.load(Ordering::SeqCst) || !self.away.load(Ordering::SeqCst)
    }
    fn disk(&self) -> (u64, u64) {
        (0, 0)
    }
    fn queue(&self) -> (usize, usize) {
        (0, 1)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct Bench {
    remote: Arc<Remote>,
    dir: tempfile::TempDir,
    log: Arc<dyn Log>,
}

impl Bench {
    async fn new(max_bytes: u64) -> Self {
        let (remote, dir) = (Arc::new(Remote::default()), tempfile::tempdir().unwrap());
        let log = open(remote.clone(), settings(dir.path(), max_bytes), Arc::new(SystemClock::default())).await.unwrap();
        Self { remote, dir, log }
    }

    async fn append(&self, numbers: std::ops::Range<usize>) -> Results {
        let record = |number: usize| NewRecord {
            topic: Topic::Inbound,
            partition: (number % usize::from(PARTITIONS)) as u16,
            payload: Bytes::from(number.to_string()),
        };
        self.log.append(numbers.map(record).collect()).await
    }

    /// All numbers below `end` stand in the remote log, each partition in order. Doubles are allowed where appends were given up.
    async fn expect_in_order(&self, end: usize) {
        let whole = |partition: u16| {
            let mut texts = self.remote.texts(partition);
            let mut seen = HashSet::new();
            texts.retain(|text| seen.insert(text.clone()));
            let expected = (usize::from(partition)..end).step_by(usize::from(PARTITIONS)).map(|number| number.to_string());
            texts == expected.collect::<Vec<_>>()
        };
        for _ in 0..2_000 {
            if (0..PARTITIONS).all(whole) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not drained in order: {:?}", (0..PARTITIONS).map(|partition| self.remote.texts(partition)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn it_is_a_log_like_any_other() {
    let dirs: BTreeMap<String, tempfile::TempDir> = BTreeMap::new();
    let dirs = Arc::new(Mutex::new(dirs));
    conformance::run(move |space| {
        let dirs = dirs.clone();
        async move {
            let root = {
                let mut dirs = dirs.lock().unwrap();
                dirs.entry(space.to_owned()).or_insert_with(|| tempfile::tempdir().unwrap()).path().to_owned()
            };
            let clock: SharedClock = Arc::new(SystemClock::default());
            let mut log_settings = settings(&root.join("log"), 1 << 30);
            (log_settings.segment_bytes, log_settings.max_record, log_settings.retention) = (1 << 20, 64 << 10, Duration::from_secs(3600));
            let mut spool_settings = settings(&root.join("spool"), 1 << 30);
            (spool_settings.segment_bytes, spool_settings.max_record) = (1 << 20, 64 << 10);
            let log = crate::log::open_embedded(log_settings, clock.clone()).unwrap();
            open(log, spool_settings, clock).await.unwrap()
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_log_does_not_take_is_taken_and_drains_in_order() {
    for lies in [false, true] {
        let bench = Bench::new(1 << 20).await;
        bench.remote.lies.store(lies, Ordering::SeqCst);
        assert!(bench.append(0..40).await.iter().all(Result::is_ok));
        bench.remote.away.store(true, Ordering::SeqCst);
        for start in (40..400).step_by(40) {
            assert!(bench.append(start..start + 40).await.iter().all(Result::is_ok), "answers as before");
        }
        assert!(bench.log.writable());
        assert_eq!(bench.remote.texts(0).len(), 10, "nothing came through");
        bench.remote.away.store(false, Ordering::SeqCst);
        for start in (400..800).step_by(8) {
            assert!(bench.append(start..start + 8).await.iter().all(Result::is_ok));
            tokio::task::yield_now().await;
        }
        bench.expect_in_order(800).await;
        assert!(bench.append(800..840).await.iter().all(Result::is_ok), "and straight again");
        bench.expect_in_order(840).await;
    }
}

/// Nobody waits for a log that takes its time: the spool has the record, and drains it with all the patience that the log needs. The
/// first copy came through as well, in its place.
#[tokio::test]
async fn what_the_log_does_not_take_soon_is_taken() {
    let bench = Bench::new(1 << 20).await;
    bench.remote.slow.send_replace(true);
    for start in (0..400).step_by(8) {
        let answers = tokio::time::timeout(Duration::from_secs(30), bench.append(start..start + 8)).await.expect("answers as before");
        assert!(answers.iter().all(Result::is_ok));
    }
    bench.remote.slow.send_replace(false);
    bench.expect_in_order(400).await;
    assert!(bench.append(400..440).await.iter().all(Result::is_ok));
    bench.expect_in_order(440).await;
}

/// A call's answer lets the next call go to another gateway, so it stands in the log before. That webhooks of its partition are in the
/// spool already does not matter to it.
#[tokio::test]
async fn a_call_waits_where_a_webhook_does_not() {
    let bench = Bench::new(1 << 20).await;
    let record = |topic, text| NewRecord { topic, partition: 0, payload: Bytes::from_static(text) };
    bench.remote.slow.send_replace(true);
    assert!(bench.log.append(vec![record(Topic::Inbound, b"webhook")]).await[0].is_ok());
    for topic in [Topic::Outbound, Topic::Bulk] {
        bench.remote.slow.send_replace(true);
        let mut waiting = bench.log.append(vec![record(topic, b"call")]);
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "{topic:?} waits");
        bench.remote.slow.send_replace(false);
        let answer = tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it is answered");
        assert!(answer[0].is_ok(), "{answer:?}");
    }
    assert_eq!(bench.remote.texts(0).iter().filter(|text| *text == "call").count(), 2, "straight, each once");
}

#[tokio::test]
async fn a_log_that_fails_now_and_then_keeps_the_order() {
    let bench = Bench::new(1 << 20).await;
    bench.remote.fails_every.store(7, Ordering::SeqCst);
    for start in (0..600).step_by(12) {
        assert!(bench.append(start..start + 12).await.iter().all(Result::is_ok));
    }
    bench.remote.fails_every.store(0, Ordering::SeqCst);
    bench.expect_in_order(600).await;
}

#[tokio::test]
async fn a_former_process_leaves_its_spool() {
    let mut bench = Bench::new(1 << 20).await;
    bench.remote.away.store(true, Ordering::SeqCst);
    assert!(bench.append(0..200).await.iter().all(Result::is_ok));
    bench.log.close().await;
    bench.log = open(bench.remote.clone(), settings(bench.dir.path(), 1 << 20), Arc::new(SystemClock::default())).await.unwrap();
    assert!(bench.append(200..240).await.iter().all(Result::is_ok));
    bench.remote.away.store(false, Ordering::SeqCst);
    bench.expect_in_order(240).await;
}

#[tokio::test]
async fn a_full_spool_says_so_and_loses_nothing() {
    let bench = Bench::new(192 << 10).await;
    bench.remote.away.store(true, Ordering::SeqCst);
    let large =
        |number: usize| NewRecord { topic: Topic::Inbound, partition: 0, payload: Bytes::from(format!("{number}{}", " ".repeat(8 << 10))) };
    let mut accepted = Vec::new();
    for number in 0..200 {
        match bench.log.append(vec![large(number)]).await[0] {
            Ok(_) => accepted.push(number.to_string()),
            Err(error) => assert_eq!(error, AppendError::Full),
        }
    }
    assert!(accepted.len() > 4 && accepted.len() < 100, "its budget is kept: {}", accepted.len());
    bench.remote.away.store(false, Ordering::SeqCst);
    let mut is_drained = false;
    for _ in 0..2_000 {
        if is_drained && bench.log.append(vec![large(200)]).await[0].is_ok() {
            return;
        }
        let texts = bench.remote.texts(0);
        if !is_drained && texts.len() == accepted.len() {
            assert_eq!(texts.iter().map(|text| text.trim_end().to_owned()).collect::<Vec<_>>(), accepted);
            // There is room again a moment later: once the spool has finished what the log has.
            is_drained = true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no room again, {} of {} drained", bench.remote.texts(0).len(), accepted.len());
}
