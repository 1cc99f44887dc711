//! Shards that lag, shards that idle, and memory.

use futures_util::FutureExt;

use super::support::*;
use crate::log::embedded::format::lane_id;
use crate::log::embedded::state::Taken;
use crate::log::{Log, LogError, Topic};

/// Small limits, so that a few records stand beyond the memory and beyond the marks.
fn squeeze(opened: &Opened, ring_bytes: u64, marks: usize) {
    let mut state = opened.log.core.state();
    state.cache.ring_bytes_max = ring_bytes;
    state.lane_marks_max = marks;
}

async fn append_everywhere(opened: &Opened, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let batch = (0..PARTITIONS * 3).map(|lane| record(Topic::ALL[lane as usize % 3], lane / 3, payload(number, 900)));
        opened.append(batch.collect()).await;
    }
}

#[tokio::test]
async fn shards_beyond_the_memory_and_the_marks_read_the_file() {
    let limits = [(u64::MAX, 1000), (0, 1000), (0, 8), (40_000, 8), (u64::MAX, 8), (0, 1), (20_000, 1)];
    for (ring_bytes, marks) in limits {
        let place = Place::new();
        let mut opened = place.open().await;
        squeeze(&opened, ring_bytes, marks);
        append_everywhere(&opened, 0..50).await;
        // Each shard at another pace, and new records in between.
        for shard in 0..PARTITIONS {
            for &topic in Topic::ALL {
                let some = opened.readers[shard as usize].take(topic, 1 + shard as usize * 5).await.unwrap();
                assert_eq!(some.iter().map(number).collect::<Vec<_>>(), (0..some.len()).collect::<Vec<_>>());
                assert!(!some.is_empty());
                append_everywhere(&opened, 50..51).await;
                let mut numbers: Vec<_> = some.iter().map(number).collect();
                numbers.extend(opened.drain_numbers(topic, shard).await);
                let lanes_before = usize::from(shard) * 3 + topic.index() + 1;
                let mut wanted: Vec<_> = (0..50).collect();
                wanted.extend(std::iter::repeat_n(50, lanes_before));
                assert_eq!(numbers, wanted, "{topic:?} of {shard} with {ring_bytes} bytes and {marks} marks");
            }
        }
        opened.log.close().await;
    }
}

#[tokio::test]
async fn after_an_opening_everything_is_read_from_the_file() {
    for marks in [1000, 4] {
        let place = Place::new();
        let opened = place.open().await;
        append_everywhere(&opened, 0..60).await;
        opened.log.close().await;
        let mut opened = place.open().await;
        squeeze(&opened, u64::MAX, marks);
        for shard in 0..PARTITIONS {
            for &topic in Topic::ALL {
                assert_eq!(opened.drain_numbers(topic, shard).await, (0..60).collect::<Vec<_>>());
            }
        }
        opened.log.close().await;
    }
}

/// A shard with one record, behind megabytes of others', goes straight to it.
#[tokio::test]
async fn an_idle_shard_reads_only_its_own_record() {
    let place = Place::with(|settings| settings.segment_bytes = 1 << 20);
    let mut opened = place.open().await;
    squeeze(&opened, 0, 1000);
    opened.append_numbers(Topic::Inbound, 0, 0..1, 100).await;
    for number in 0..100 {
        opened.append_numbers(Topic::Inbound, 1, number..number + 1, 30_000).await;
    }
    opened.append_numbers(Topic::Inbound, 0, 1..2, 100).await;
    opened.append_numbers(Topic::Inbound, 1, 100..101, 30_000).await;
    let lane = lane_id(Topic::Inbound, 0, PARTITIONS);
    for wanted in 0..2 {
        let Taken::Read { bytes, .. } = opened.log.core.state().take(lane, 10) else { panic!("it stands on disk only") };
        assert!(bytes < 64 << 10, "{bytes} bytes for a record of 100");
        let entries = opened.readers[0].take(Topic::Inbound, 1).await.unwrap();
        assert_eq!(entries.iter().map(number).collect::<Vec<_>>(), [wanted]);
    }
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, [] as [usize; 0]);
    opened.log.close().await;
}

/// Only shards with new records are woken.
#[tokio::test]
async fn a_shard_sleeps_while_others_get_records() {
    let place = Place::new();
    let mut opened = place.open().await;
    let mut idle = opened.readers.remove(2);
    let mut waiting = Box::pin(idle.ready());
    assert!(waiting.as_mut().now_or_never().is_none());
    opened.append_numbers(Topic::Inbound, 0, 0..10, 100).await;
    assert!(waiting.as_mut().now_or_never().is_none());
    opened.append_numbers(Topic::Bulk, 2, 0..1, 100).await;
    waiting.await;
    opened.log.close().await;
}

/// Memory of groups goes when all their records were taken, whatever they came from.
#[tokio::test]
async fn taken_groups_leave_the_memory() {
    let place = Place::new();
    let mut opened = place.open().await;
    append_everywhere(&opened, 0..20).await;
    assert!(opened.log.core.state().cache.bytes().0 > 20 * 12 * 900);
    squeeze(&opened, 100_000, 1000);
    append_everywhere(&opened, 20..60).await;
    assert!(opened.log.core.state().cache.bytes().0 <= 100_000);
    for shard in 0..PARTITIONS {
        for &topic in Topic::ALL {
            assert_eq!(opened.drain_numbers(topic, shard).await.len(), 60);
        }
    }
    opened.drain_numbers(Topic::Inbound, 0).await;
    assert_eq!(opened.log.core.state().cache.bytes(), (0, 0));
    opened.log.close().await;
}

/// A take that was dropped while it read loses nothing.
#[tokio::test]
async fn a_take_may_be_dropped() {
    let place = Place::new();
    let mut opened = place.open().await;
    squeeze(&opened, 0, 8);
    opened.append_numbers(Topic::Inbound, 0, 0..1, 100).await;
    let mut numbers = Vec::new();
    for _ in 0..10 {
        // The reading may be done by the time of the first look, and then it counts.
        if let Some(entries) = opened.readers[0].take(Topic::Inbound, 1).now_or_never() {
            numbers.extend(entries.unwrap().iter().map(number));
        }
        tokio::task::yield_now().await;
    }
    numbers.extend(opened.drain_numbers(Topic::Inbound, 0).await);
    assert_eq!(numbers, [0]);
    opened.log.close().await;
}

/// Records that were finished before they were taken do not come, and a position that is no record's is refused.
#[tokio::test]
async fn finishing_ahead_of_the_reader_passes_records_over() {
    let place = Place::new();
    let mut opened = place.open().await;
    let mut positions = Vec::new();
    for number in 0..30 {
        positions.extend(opened.append_numbers(Topic::Inbound, 0, number * 3..number * 3 + 3, 900).await);
    }
    assert_eq!(opened.readers[0].take(Topic::Inbound, 2).await.unwrap().len(), 2);
    opened.finish(Topic::Inbound, 0, positions[49]).await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, (50..90).collect::<Vec<_>>());
    for (shard, position) in [(1, positions[60].0), (0, positions[60].0 + 8), (0, u64::MAX), (PARTITIONS, positions[60].0)] {
        let finished = vec![crate::log::Finished { topic: Topic::Inbound, shard, position: crate::log::Position(position) }];
        assert!(matches!(opened.log.finish(finished).await, Err(LogError::Mismatch(_))), "{shard} at {position}");
    }
    opened.log.close().await;
    let mut opened = place.open().await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, (50..90).collect::<Vec<_>>());
    opened.log.close().await;
}

/// After `close`, readers are told and do not hang; the second claim never comes.
#[tokio::test]
async fn a_closed_log_tells_its_readers() {
    let place = Place::new();
    let mut opened = place.open().await;
    assert!(opened.log.claims().now_or_never().is_none());
    let mut reader = opened.readers.remove(0);
    let waiting = tokio::spawn(async move {
        reader.ready().await;
        reader.take(Topic::Inbound, 1).await
    });
    tokio::task::yield_now().await;
    opened.log.close().await;
    assert!(matches!(waiting.await.unwrap(), Err(LogError::Closed)));
    assert!(matches!(opened.log.finish(Vec::new()).await, Err(LogError::Closed)));
}
