//! What every [`Log`] has to do, as tests that every backend runs.
//!
//! A backend's test calls [`run`] with a way to open a log by the name of a space. The same name opens the same data again
//! (after `close`); different names share nothing. Spaces are new at the start of a run and have at least two partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{AppendError, ClaimChange, Entry, Finished, Lag, Log, NewRecord, Position, ShardReader, Topic};

/// A backend that does not come up with what it owes in this time hangs. Not a measure of speed.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// Between looks at something that a backend may tell a little later.
const LOOK_EVERY: Duration = Duration::from_millis(5);

type Readers = BTreeMap<u16, Box<dyn ShardReader>>;

/// Runs the whole suite. Panics where the backend breaks the contract.
pub async fn run<F, Fut>(open: F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Arc<dyn Log>>,
{
    what_is_acknowledged_can_be_taken(open("what_is_acknowledged_can_be_taken").await).await;
    a_partition_keeps_the_order(open("a_partition_keeps_the_order").await).await;
    every_record_has_its_result(open("every_record_has_its_result").await).await;
    the_largest_record_fits_and_a_larger_never(open("the_largest_record_fits_and_a_larger_never").await).await;
    partitions_are_apart(open("partitions_are_apart").await).await;
    topics_are_apart(open("topics_are_apart").await).await;
    take_does_not_wait_and_keeps_to_its_limit(open("take_does_not_wait_and_keeps_to_its_limit").await).await;
    ready_wakes_and_may_be_dropped(open("ready_wakes_and_may_be_dropped").await).await;
    appenders_side_by_side_lose_nothing(open("appenders_side_by_side_lose_nothing").await).await;
    lag_counts_what_is_not_finished(open("lag_counts_what_is_not_finished").await).await;
    a_closed_log_refuses(open("a_closed_log_refuses").await).await;
    finished_records_do_not_come_again(&open).await;
    taken_records_come_again_when_they_were_not_finished(&open).await;
    a_restarted_reader_goes_back_to_what_is_finished(open("a_restarted_reader_goes_back_to_what_is_finished").await).await;
    finishing_less_than_before_changes_nothing(&open).await;
    topics_are_finished_apart(&open).await;
    positions_rise_over_an_opening(&open).await;
}

fn record(topic: Topic, partition: u16, text: impl Into<String>) -> NewRecord {
    NewRecord { topic, partition, payload: Bytes::from(text.into()) }
}

fn numbered(topic: Topic, partition: u16, numbers: std::ops::Range<usize>) -> Vec<NewRecord> {
    numbers.map(|number| record(topic, partition, format!("{number}"))).collect()
}

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.payload).into_owned()).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

async fn append(log: &Arc<dyn Log>, batch: Vec<NewRecord>) -> Vec<Position> {
    let results = timeout(HANGS_AFTER, log.append(batch)).await.expect("append hangs");
    results.into_iter().map(|result| result.expect("the record is appended")).collect()
}

/// All readers of a log that nobody else reads.
async fn readers(log: &Arc<dyn Log>) -> Readers {
    let mut readers = Readers::new();
    while readers.len() < usize::from(log.partitions()) {
        match timeout(HANGS_AFTER, log.claims()).await.expect("the shards are never assigned") {
            ClaimChange::Assigned(assigned) => readers.extend(assigned.into_iter().map(|reader| (reader.shard(), reader))),
            ClaimChange::Revoked(shards) | ClaimChange::Lost(shards) => {
                readers.retain(|shard, _| !shards.contains(shard));
            }
        }
    }
    readers
}

fn reader(readers: &mut Readers, shard: u16) -> &mut dyn ShardReader {
    readers.get_mut(&shard).expect("all shards are assigned").as_mut()
}

/// Takes exactly so many records.
async fn take(reader: &mut dyn ShardReader, topic: Topic, count: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let taking = async {
        while entries.len() < count {
            let more = reader.take(topic, count - entries.len()).await.expect("taking works");
            if more.is_empty() {
                reader.ready().await;
                tokio::task::yield_now().await;
            }
            entries.extend(more);
        }
    };
    timeout(HANGS_AFTER, taking).await.expect("records that were appended do not come");
    entries
}

async fn assert_nothing(reader: &mut dyn ShardReader, topic: Topic) {
    let entries = timeout(HANGS_AFTER, reader.take(topic, 100)).await.expect("take waits").expect("taking works");
    assert_eq!(texts(&entries), Vec::<String>::new(), "nothing is left in {}", topic.name());
}

async fn finish(log: &Arc<dyn Log>, topic: Topic, shard: u16, position: Position) {
    let finished = vec![Finished { topic, shard, position }];
    timeout(HANGS_AFTER, log.finish(finished)).await.expect("finish hangs").expect("finishing works");
}

/// Who lost its lease begins anew: nothing that was taken and not finished is left out, nothing finished comes again.
async fn a_restarted_reader_goes_back_to_what_is_finished(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    let positions = append(&log, numbered(Topic::Inbound, 1, 0..300)).await;
    append(&log, numbered(Topic::Bulk, 1, 0..5)).await;
    take(reader(&mut readers, 1), Topic::Inbound, 200).await;
    take(reader(&mut readers, 1), Topic::Bulk, 5).await;
    finish(&log, Topic::Inbound, 1, positions[49]).await;
    let restarted = timeout(HANGS_AFTER, reader(&mut readers, 1).restart()).await.expect("restart hangs");
    restarted.expect("a reader goes back");
    append(&log, numbered(Topic::Inbound, 1, 300..310)).await;
    let again = take(reader(&mut readers, 1), Topic::Inbound, 260).await;
    assert_eq!(texts(&again), numbers(50..310));
    assert_eq!(texts(&take(reader(&mut readers, 1), Topic::Bulk, 5).await), numbers(0..5));
    assert_nothing(reader(&mut readers, 1), Topic::Inbound).await;
}

/// What was acknowledged can be taken at once, as it was given, at the position that was told.
async fn what_is_acknowledged_can_be_taken(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    for round in 0..20 {
        let payload = Bytes::from(vec![round as u8; round * 37]);
        let given = NewRecord { topic: Topic::Inbound, partition: 1, payload: payload.clone() };
        let position = append(&log, vec![given]).await[0];
        let entries = take(reader(&mut readers, 1), Topic::Inbound, 1).await;
        assert_eq!((entries[0].position, &entries[0].payload), (position, &payload));
    }
    assert_nothing(reader(&mut readers, 1), Topic::Inbound).await;
    log.close().await;
}

/// Within a topic and partition, records come in the order of their appending and positions rise, within batches and between.
async fn a_partition_keeps_the_order(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    let mut told = Vec::new();
    for batch in 0..10 {
        told.extend(append(&log, numbered(Topic::Outbound, 0, batch * 10..batch * 10 + 10)).await);
    }
    assert!(told.is_sorted_by(|a, b| a < b), "positions rise: {told:?}");
    let entries = take(reader(&mut readers, 0), Topic::Outbound, 100).await;
    assert_eq!(texts(&entries), numbers(0..100));
    assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), told);
    log.close().await;
}

/// A batch gets one result per record, by place: the bad ones are refused for their own reason and the good ones are kept.
async fn every_record_has_its_result(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    assert_eq!(log.append(Vec::new()).await, []);
    let too_large = NewRecord { topic: Topic::Bulk, partition: 0, payload: Bytes::from(vec![1; log.max_record() + 1]) };
    let batch = vec![
        record(Topic::Inbound, 0, "first"),
        record(Topic::Inbound, log.partitions(), "nowhere"),
        record(Topic::Inbound, 1, "second"),
        too_large.clone(),
        record(Topic::Inbound, 0, "third"),
    ];
    let results = timeout(HANGS_AFTER, log.append(batch)).await.expect("append hangs");
    assert_eq!(results.len(), 5);
    assert!(results[0].is_ok() && results[2].is_ok() && results[4].is_ok(), "{results:?}");
    assert_eq!(results[1], Err(AppendError::Partition));
    assert_eq!(results[3], Err(AppendError::TooLarge { max: log.max_record() }));
    assert!(results[0].expect("checked above") < results[4].expect("checked above"));
    let none_good = vec![record(Topic::Bulk, u16::MAX, ""), too_large];
    let results = timeout(HANGS_AFTER, log.append(none_good)).await.expect("append hangs");
    assert_eq!(results, [Err(AppendError::Partition), Err(AppendError::TooLarge { max: log.max_record() })]);
    assert_eq!(texts(&take(reader(&mut readers, 0), Topic::Inbound, 2).await), ["first", "third"]);
    assert_eq!(texts(&take(reader(&mut readers, 1), Topic::Inbound, 1).await), ["second"]);
    assert_nothing(reader(&mut readers, 0), Topic::Bulk).await;
    log.close().await;
}

/// A record of exactly the limit comes back whole; one byte more is refused however often it is tried; an empty one is a record.
async fn the_largest_record_fits_and_a_larger_never(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    let largest: Bytes = (0..log.max_record()).map(|byte| (byte % 251) as u8).collect::<Vec<_>>().into();
    let larger = Bytes::from(vec![0; log.max_record() + 1]);
    for _ in 0..3 {
        let give = |payload: &Bytes| vec![NewRecord { topic: Topic::Bulk, partition: 0, payload: payload.clone() }];
        append(&log, give(&largest)).await;
        append(&log, give(&Bytes::new())).await;
        let refused = timeout(HANGS_AFTER, log.append(give(&larger))).await.expect("append hangs");
        assert_eq!(refused, [Err(AppendError::TooLarge { max: log.max_record() })]);
    }
    let entries = take(reader(&mut readers, 0), Topic::Bulk, 6).await;
    assert!(entries.iter().step_by(2).all(|entry| entry.payload == largest));
    assert!(entries.iter().skip(1).step_by(2).all(|entry| entry.payload.is_empty()));
    log.close().await;
}

/// A shard gets the records of its partition and no others.
async fn partitions_are_apart(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    assert_eq!(readers.keys().copied().collect::<Vec<_>>(), (0..log.partitions()).collect::<Vec<_>>());
    let batch = (0..200).map(|number| record(Topic::Inbound, number % log.partitions(), format!("{}", number % log.partitions())));
    append(&log, batch.collect()).await;
    let mut seen = 0;
    for shard in 0..log.partitions() {
        let count = (0..200).filter(|number| number % log.partitions() == shard).count();
        let entries = take(reader(&mut readers, shard), Topic::Inbound, count).await;
        assert!(texts(&entries).iter().all(|text| *text == shard.to_string()));
        assert_nothing(reader(&mut readers, shard), Topic::Inbound).await;
        seen += entries.len();
    }
    assert_eq!(seen, 200);
    log.close().await;
}

/// A shard reads each topic at its own pace: what waits in one holds nothing up in another.
async fn topics_are_apart(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    let mut batch = Vec::new();
    for number in 0..30 {
        for &topic in Topic::ALL {
            batch.push(record(topic, 0, format!("{} {number}", topic.name())));
        }
    }
    append(&log, batch).await;
    for &topic in Topic::ALL.iter().rev() {
        let wanted: Vec<_> = (0..30).map(|number| format!("{} {number}", topic.name())).collect();
        assert_eq!(texts(&take(reader(&mut readers, 0), topic, 30).await), wanted);
        assert_nothing(reader(&mut readers, 0), topic).await;
    }
    log.close().await;
}

/// Taking from an empty topic comes back empty, and never brings more than was asked for.
async fn take_does_not_wait_and_keeps_to_its_limit(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    assert_nothing(reader(&mut readers, 1), Topic::Inbound).await;
    append(&log, numbered(Topic::Inbound, 1, 0..50)).await;
    let reader = reader(&mut readers, 1);
    let mut seen = Vec::new();
    while seen.len() < 50 {
        timeout(HANGS_AFTER, reader.ready()).await.expect("records wait, so the shard is ready");
        let entries = timeout(HANGS_AFTER, reader.take(Topic::Inbound, 7)).await.expect("take waits").expect("taking works");
        assert!(entries.len() <= 7);
        seen.extend(texts(&entries));
    }
    assert_eq!(seen, numbers(0..50));
    assert_eq!(timeout(HANGS_AFTER, reader.take(Topic::Inbound, 0)).await.expect("take waits").expect("taking works").len(), 0);
    log.close().await;
}

/// A shard that waits is woken by its record; a wait that was dropped loses nothing.
async fn ready_wakes_and_may_be_dropped(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    let mut shard = readers.remove(&0).expect("all shards are assigned");
    for round in 0..20 {
        // Polled once, so that it has begun to wait, and dropped.
        let _ = futures_util::FutureExt::now_or_never(shard.ready());
        let waiting = tokio::spawn(async move {
            let entries = take(shard.as_mut(), Topic::Outbound, 1).await;
            (shard, entries)
        });
        tokio::task::yield_now().await;
        append(&log, vec![record(Topic::Outbound, 0, format!("{round}"))]).await;
        let (back, entries) = waiting.await.expect("the shard is woken");
        assert_eq!(texts(&entries), [round.to_string()]);
        shard = back;
    }
    log.close().await;
}

/// Many tasks append at once: every acknowledged record comes once in this opening, each task's own in order.
async fn appenders_side_by_side_lose_nothing(log: Arc<dyn Log>) {
    const TASKS: usize = 16;
    const BATCHES: usize = 20;
    const BATCH: usize = 5;
    let mut readers = readers(&log).await;
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            for batch in 0..BATCHES {
                let records =
                    (0..BATCH).map(|number| record(Topic::Inbound, (task % 2) as u16, format!("{task} {}", batch * BATCH + number)));
                append(&log, records.collect()).await;
            }
        }));
    }
    let mut seen: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for shard in 0..2 {
        for text in texts(&take(reader(&mut readers, shard), Topic::Inbound, TASKS / 2 * BATCHES * BATCH).await) {
            let (task, number) = text.split_once(' ').expect("as it was written");
            seen.entry(task.parse().expect("a number")).or_default().push(number.parse().expect("a number"));
        }
        assert_nothing(reader(&mut readers, shard), Topic::Inbound).await;
    }
    for task in tasks {
        task.await.expect("appending works");
    }
    assert_eq!(seen.len(), TASKS);
    for (task, numbers) in seen {
        assert_eq!(numbers, (0..BATCHES * BATCH).collect::<Vec<_>>(), "task {task}");
    }
    log.close().await;
}

fn lag_of(log: &Arc<dyn Log>, topic: Topic, partition: u16) -> Lag {
    let lags = log.lag();
    *lags.iter().find(|lag| (lag.topic, lag.partition) == (topic, partition)).expect("every shard of every topic has a lag")
}

async fn await_lag(log: &Arc<dyn Log>, topic: Topic, partition: u16, records: u64) -> Lag {
    let looking = async {
        while lag_of(log, topic, partition).records != records {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        lag_of(log, topic, partition)
    };
    let found = timeout(HANGS_AFTER, looking).await;
    found.unwrap_or_else(|_| panic!("lag is {:?} and should become {records}", lag_of(log, topic, partition)))
}

/// Lag counts what is not finished, taken or not, and says since when the oldest waits; caught up is none.
async fn lag_counts_what_is_not_finished(log: Arc<dyn Log>) {
    let mut readers = readers(&log).await;
    assert_eq!(await_lag(&log, Topic::Inbound, 1, 0).await.oldest_at, None);
    append(&log, numbered(Topic::Inbound, 1, 0..10)).await;
    append(&log, numbered(Topic::Inbound, 0, 0..3)).await;
    let before = await_lag(&log, Topic::Inbound, 1, 10).await;
    let entries = take(reader(&mut readers, 1), Topic::Inbound, 10).await;
    assert_eq!(before.oldest_at, Some(entries[0].appended_at));
    assert_eq!(await_lag(&log, Topic::Inbound, 1, 10).await.oldest_at, before.oldest_at);
    finish(&log, Topic::Inbound, 1, entries[3].position).await;
    assert_eq!(await_lag(&log, Topic::Inbound, 1, 6).await.oldest_at, Some(entries[4].appended_at));
    finish(&log, Topic::Inbound, 1, entries[9].position).await;
    assert_eq!(await_lag(&log, Topic::Inbound, 1, 0).await.oldest_at, None);
    assert_eq!(await_lag(&log, Topic::Inbound, 0, 3).await.records, 3);
    log.close().await;
}

/// After `close`, nothing is taken and the log says so; closing again is harmless.
async fn a_closed_log_refuses(log: Arc<dyn Log>) {
    assert!(log.writable());
    append(&log, numbered(Topic::Inbound, 0, 0..3)).await;
    log.close().await;
    assert!(!log.writable());
    let results = timeout(HANGS_AFTER, log.append(numbered(Topic::Inbound, 0, 3..5))).await.expect("append hangs");
    assert_eq!(results, [Err(AppendError::Closed), Err(AppendError::Closed)]);
    timeout(HANGS_AFTER, log.close()).await.expect("closing again hangs");
}

/// A finished prefix stays finished over an opening, and what follows it comes again.
async fn finished_records_do_not_come_again<F, Fut>(open: &F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Arc<dyn Log>>,
{
    const SPACE: &str = "finished_records_do_not_come_again";
    let log = open(SPACE).await;
    let mut shards = readers(&log).await;
    append(&log, numbered(Topic::Inbound, 0, 0..20)).await;
    append(&log, numbered(Topic::Inbound, 1, 0..20)).await;
    let zero = take(reader(&mut shards, 0), Topic::Inbound, 20).await;
    let one = take(reader(&mut shards, 1), Topic::Inbound, 20).await;
    let both = vec![
        Finished { topic: Topic::Inbound, shard: 0, position: zero[7].position },
        Finished { topic: Topic::Inbound, shard: 1, position: one[19].position },
    ];
    log.finish(both).await.expect("finishing works");
    drop(shards);
    log.close().await;

    let log = open(SPACE).await;
    let mut shards = readers(&log).await;
    append(&log, numbered(Topic::Inbound, 1, 20..22)).await;
    assert_eq!(texts(&take(reader(&mut shards, 0), Topic::Inbound, 12).await), numbers(8..20));
    assert_eq!(texts(&take(reader(&mut shards, 1), Topic::Inbound, 2).await), numbers(20..22));
    assert_nothing(reader(&mut shards, 0), Topic::Inbound).await;
    assert_nothing(reader(&mut shards, 1), Topic::Inbound).await;
    log.close().await;
}

/// Taking alone moves nothing: an unfinished record comes again at the next opening, at the same position.
async fn taken_records_come_again_when_they_were_not_finished<F, Fut>(open: &F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Arc<dyn Log>>,
{
    const SPACE: &str = "taken_records_come_again_when_they_were_not_finished";
    let mut first: Option<Vec<(Position, Bytes)>> = None;
    for opening in 0..3 {
        let log = open(SPACE).await;
        let mut shards = readers(&log).await;
        if opening == 0 {
            append(&log, numbered(Topic::Bulk, 1, 0..25)).await;
        }
        let entries = take(reader(&mut shards, 1), Topic::Bulk, 25).await;
        let came: Vec<_> = entries.into_iter().map(|entry| (entry.position, entry.payload)).collect();
        assert_eq!(*first.get_or_insert_with(|| came.clone()), came, "opening {opening}");
        drop(shards);
        log.close().await;
    }
}

/// A finished position never goes back, whether it is told again, or a lower one, in this opening or the next.
async fn finishing_less_than_before_changes_nothing<F, Fut>(open: &F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Arc<dyn Log>>,
{
    const SPACE: &str = "finishing_less_than_before_changes_nothing";
    let log = open(SPACE).await;
    let mut shards = readers(&log).await;
    append(&log, numbered(Topic::Outbound, 0, 0..10)).await;
    let entries = take(reader(&mut shards, 0), Topic::Outbound, 10).await;
    for index in [5, 5, 2, 0] {
        finish(&log, Topic::Outbound, 0, entries[index].position).await;
    }
    log.finish(Vec::new()).await.expect("finishing nothing works");
    drop(shards);
    log.close().await;

    let log = open(SPACE).await;
    let mut shards = readers(&log).await;
    assert_eq!(texts(&take(reader(&mut shards, 0), Topic::Outbound, 4).await), numbers(6..10));
    log.close().await;
}

/// Finishing in one topic finishes nothing in another.
async fn topics_are_finished_apart<F, Fut>(open: &F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Arc<dyn Log>>,
{
    const SPACE: &str = "topics_are_finished_apart";
    let log = open(SPACE).await;
    let mut shards = readers(&log).await;
    append(&log, numbered(Topic::Inbound, 0, 0..5)).await;
    append(&log, numbered(Topic::Outbound, 0, 0..5)).await;
    let outbound = take(reader(&mut shards, 0), Topic::Outbound, 5).await;
    finish(&log, Topic::Outbound, 0, outbound[4].position).await;
    drop(shards);
    log.close().await;

    let log = open(SPACE).await;
    let mut shards = readers(&log).await;
    assert_eq!(texts(&take(reader(&mut shards, 0), Topic::Inbound, 5).await), numbers(0..5));
    assert_nothing(reader(&mut shards, 0), Topic::Outbound).await;
    log.close().await;
}

/// Positions go on rising after an opening, also when everything was finished.
async fn positions_rise_over_an_opening<F, Fut>(open: &F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Arc<dyn Log>>,
{
    const SPACE: &str = "positions_rise_over_an_opening";
    let mut highest = None;
    for opening in 0..4 {
        let log = open(SPACE).await;
        let mut shards = readers(&log).await;
        let positions = append(&log, numbered(Topic::Inbound, 0, 0..3)).await;
        assert!(highest < Some(positions[0]), "opening {opening}");
        highest = positions.last().copied();
        let entries = take(reader(&mut shards, 0), Topic::Inbound, 3).await;
        assert_eq!(entries[2].position, positions[2]);
        finish(&log, Topic::Inbound, 0, positions[2]).await;
        drop(shards);
        log.close().await;
    }
}
