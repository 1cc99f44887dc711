//! Segments: rolling, retention, the limit; and what opening refuses.

use std::time::Duration;

use super::support::*;
use crate::log::{AppendError, EmbeddedSettings, Fsync, Log, LogError, Topic};

const SEGMENT: u64 = 64 << 10;
/// Two of these fill a segment.
const HALF: usize = 30 << 10;

/// Appends one record a group and returns the positions.
async fn append_halves(opened: &Opened, partition: u16, numbers: std::ops::Range<usize>) -> Vec<crate::log::Position> {
    let mut positions = Vec::new();
    for number in numbers {
        positions.extend(opened.append_numbers(Topic::Inbound, partition, number..number + 1, HALF).await);
    }
    positions
}

#[tokio::test]
async fn the_log_rolls_and_no_group_straddles_segments() {
    let place = Place::new();
    let mut opened = place.open().await;
    let positions = append_halves(&opened, 0, 0..20).await;
    for (index, position) in positions.iter().enumerate() {
        assert_eq!(position.0 / SEGMENT, index as u64 / 2, "two of these fit into a segment");
    }
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, (0..20).collect::<Vec<_>>());
    // One batch larger than a segment goes over several groups, and comes whole and in order.
    let positions = opened.append_numbers(Topic::Inbound, 0, 20..40, HALF).await;
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, (20..40).collect::<Vec<_>>());
    opened.log.close().await;
    let mut opened = place.open().await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, (0..40).collect::<Vec<_>>());
    opened.log.close().await;
}

#[tokio::test]
async fn finished_segments_go_when_they_are_old_and_unfinished_ones_stay() {
    let place = Place::new();
    let mut opened = place.open().await;
    append_halves(&opened, 0, 0..10).await;
    let blocker = append_halves(&opened, 1, 10..11).await[0];
    append_halves(&opened, 0, 11..20).await;
    let before = opened.log.disk().0;
    assert_eq!(opened.log.disk().1, place.settings.max_bytes);
    let last = opened.drain(Topic::Inbound, 0).await.pop().unwrap().position;
    opened.finish(Topic::Inbound, 0, last).await;
    // Finished, but young: appending makes upkeep look, and it drops nothing.
    append_halves(&opened, 0, 20..24).await;
    opened.until("the next segment", |log| log.disk().0 >= before + 2 * SEGMENT).await;

    place.clock.advance(Duration::from_secs(7200));
    let last = opened.drain(Topic::Inbound, 0).await.pop().unwrap().position;
    opened.finish(Topic::Inbound, 0, last).await;
    let oldest = |place: &Place| place.segments()[0].file_name().unwrap().to_str().unwrap().to_owned();
    let blocked = format!("{:016x}.seg", blocker.0 / SEGMENT * SEGMENT);
    opened.until("old segments go up to the unfinished record", |_| oldest(&place) == blocked).await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 1).await, [10]);

    opened.finish(Topic::Inbound, 1, blocker).await;
    // The segment that is written and the one prepared stay.
    opened.until("all old segments go", |_| place.segments().len() <= 2).await;
    opened.log.close().await;
    let mut opened = place.open().await;
    for shard in 0..PARTITIONS {
        assert_eq!(opened.drain_numbers(Topic::Inbound, shard).await, [] as [usize; 0]);
    }
    opened.log.close().await;
}

#[tokio::test]
async fn retention_goes_by_the_records_time_over_an_opening() {
    let place = Place::new();
    let mut opened = place.open().await;
    append_halves(&opened, 0, 0..10).await;
    let last = opened.drain(Topic::Inbound, 0).await.pop().unwrap().position;
    opened.finish(Topic::Inbound, 0, last).await;
    opened.log.close().await;
    place.clock.advance(Duration::from_secs(1800));
    let opened = place.open().await;
    append_halves(&opened, 0, 10..11).await;
    opened.log.close().await;
    assert!(place.segments()[0].ends_with("0000000000000000.seg"), "half an hour is not an hour");
    place.clock.advance(Duration::from_secs(2700));
    // Older than an hour now, though the log was opened less than an hour ago.
    let opened = place.open().await;
    opened.until("old segments go", |_| place.segments().len() <= 3).await;
    opened.log.close().await;
}

#[tokio::test]
async fn at_the_limit_appends_get_full_until_something_is_finished() {
    let place = Place::with(|settings| settings.max_bytes = 4 * SEGMENT);
    let mut opened = place.open().await;
    let mut number = 0;
    let refused = loop {
        let result = opened.try_append(vec![record(Topic::Inbound, 0, payload(number, HALF))]).await.remove(0);
        match result {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((refused, number), (AppendError::Full, 8), "four segments of two");
    assert!(!opened.log.writable());
    assert!(opened.log.disk().0 <= 4 * SEGMENT);
    assert_eq!(opened.try_append(vec![record(Topic::Bulk, 1, "small")]).await, [Err(AppendError::Full)]);

    // Taking frees nothing; finishing frees whole segments, however young.
    let entries = opened.drain(Topic::Inbound, 0).await;
    assert_eq!(opened.try_append(vec![record(Topic::Bulk, 1, "small")]).await, [Err(AppendError::Full)]);
    opened.finish(Topic::Inbound, 0, entries[3].position).await;
    opened.until("there is room again", |log| log.writable()).await;
    assert!(opened.log.disk().0 <= 4 * SEGMENT);
    append_halves(&opened, 0, 8..10).await;
    opened.log.close().await;
    let mut opened = place.open().await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, (4..10).collect::<Vec<_>>());
    opened.log.close().await;
}

#[tokio::test]
async fn a_full_log_opens_and_drains() {
    let place = Place::with(|settings| settings.max_bytes = 2 * SEGMENT);
    let opened = place.open().await;
    append_halves(&opened, 0, 0..4).await;
    opened.log.close().await;
    let mut opened = place.open().await;
    assert_eq!(opened.try_append(vec![record(Topic::Inbound, 0, payload(4, HALF))]).await, [Err(AppendError::Full)]);
    let entries = opened.drain(Topic::Inbound, 0).await;
    assert_eq!(entries.len(), 4);
    opened.finish(Topic::Inbound, 0, entries[3].position).await;
    opened.until("there is room again", |log| log.writable()).await;
    append_halves(&opened, 0, 4..5).await;
    opened.log.close().await;
}

/// The queue is bounded: with the disk held up, appends beyond the limit get `Full` at once, and those within it are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once() {
    let held = std::sync::Arc::new(std::sync::Mutex::new(()));
    let mut place = Place::with(|settings| {
        settings.segment_bytes = 16 << 20;
        settings.fsync = Fsync::Never;
    });
    let gate = held.clone();
    place.faults = Some(std::sync::Arc::new(move |site| {
        if site == crate::log::embedded::disk::Site::GroupWrite {
            drop(gate.lock().unwrap());
        }
        None
    }));
    let mut opened = place.open().await;
    let (limit, batch) = (opened.log.queue().1, 1024);
    let guard = held.lock().unwrap();
    let mut answers = Vec::new();
    for first in (0..limit).step_by(batch) {
        answers.push(opened.log.append((first..first + batch).map(|number| record(Topic::Inbound, 0, payload(number, 8))).collect()));
    }
    assert_eq!(opened.log.queue(), (limit, limit));
    let refused = futures_util::FutureExt::now_or_never(opened.log.append(vec![record(Topic::Inbound, 0, "one more")]));
    assert_eq!(refused.expect("answered at once"), [Err(AppendError::Full)]);
    drop(guard);
    for answer in answers {
        assert!(answer.await.iter().all(Result::is_ok));
    }
    assert_eq!(opened.log.queue(), (0, limit));
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, (0..limit).collect::<Vec<_>>());
    opened.log.close().await;
}

#[tokio::test]
async fn a_folder_is_open_once() {
    let place = Place::new();
    let opened = place.open().await;
    assert!(matches!(place.try_open(), Err(LogError::Locked(dir)) if dir == place.dir()));
    opened.log.close().await;
    // Readers that are still held keep nothing locked.
    let again = place.open().await;
    again.log.close().await;
    drop(opened);
}

#[tokio::test]
async fn opening_refuses_settings_that_do_not_fit_with_a_sentence() {
    let place = Place::new();
    place.open().await.log.close().await;
    type Change = fn(&mut EmbeddedSettings);
    let cases: [(&str, Change, &str); 7] = [
        ("other partitions", |settings| settings.partitions = 8, "set log.partitions = 4"),
        ("no partitions", |settings| settings.partitions = 0, "between 1 and 1024"),
        ("too many partitions", |settings| settings.partitions = 1025, "between 1 and 1024"),
        ("a small segment", |settings| settings.segment_bytes = 100, "log.embedded.segment"),
        ("a record larger than a segment", |settings| settings.max_record = 1 << 20, "log.max_record must fit"),
        ("an endless record", |settings| settings.max_record = usize::MAX, "at most 512 MiB"),
        ("a limit below two segments", |settings| settings.max_bytes = SEGMENT, "at least two segments"),
    ];
    for (what, change, sentence) in cases {
        let mut settings = place.settings.clone();
        change(&mut settings);
        let opened = crate::log::embedded::EmbeddedLog::open(settings, place.clock.clone());
        match opened {
            Err(LogError::Mismatch(text)) => assert!(text.contains(sentence), "{what}: {text}"),
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what}: opened"),
        }
    }
    // The segments' length may change: only new ones get it.
    let mut changed = Place::of(&place);
    changed.settings.segment_bytes = 128 << 10;
    let mut opened = changed.open().await;
    append_halves(&opened, 0, 0..12).await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await.len(), 12);
    opened.log.close().await;
    let mut opened = place.open().await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await.len(), 12);
    opened.log.close().await;
}
