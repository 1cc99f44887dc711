//! Any order of appending, taking, finishing, closing and crashing does what a list would do.

use proptest::prelude::*;

use super::support::*;
use crate::log::{Fsync, Log, Position, Topic};

#[derive(Debug, Clone)]
enum Step {
    /// Lanes and lengths of a batch.
    Append(Vec<(u8, u16)>),
    Take(u8, usize),
    /// Finishes a share of what was taken.
    Finish(u8, u8),
    Reopen,
    Crash,
    Squeeze(u16, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lane = 0..PARTITIONS as u8 * 3;
    let length = prop_oneof![8 => 0u16..300, 1 => 20_000u16..32_000];
    let step = prop_oneof![
        6 => prop::collection::vec((lane.clone(), length), 1..20).prop_map(Step::Append),
        6 => (lane.clone(), 1usize..40).prop_map(|(lane, max)| Step::Take(lane, max)),
        4 => (lane, any::<u8>()).prop_map(|(lane, share)| Step::Finish(lane, share)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => (any::<u16>(), 1u8..20).prop_map(|(ring, marks)| Step::Squeeze(ring, marks)),
    ];
    prop::collection::vec(step, 1..60)
}

/// What a lane should have: all records, how many were taken in this opening, how many are finished.
#[derive(Default, Clone)]
struct Lane {
    records: Vec<(Position, usize)>,
    taken: usize,
    finished: usize,
}

async fn run(steps: Vec<Step>) {
    let mut place = Place::with(|settings| settings.fsync = Fsync::Never);
    let mut opened = place.open().await;
    let mut lanes = vec![Lane::default(); PARTITIONS as usize * 3];
    let mut next = 0;
    let of = |lane: u8| (Topic::ALL[lane as usize % 3], u16::from(lane) / 3);
    for step in steps {
        match step {
            Step::Append(batch) => {
                let first = next;
                next += batch.len();
                let records = batch.iter().enumerate().map(|(index, &(lane, length))| {
                    let (topic, partition) = of(lane);
                    record(topic, partition, payload(first + index, usize::from(length)))
                });
                let positions = opened.append(records.collect()).await;
                for (index, (&(lane, _), position)) in batch.iter().zip(positions).enumerate() {
                    lanes[lane as usize].records.push((position, first + index));
                }
            }
            Step::Take(lane, max) => {
                let (topic, shard) = of(lane);
                let model = &mut lanes[lane as usize];
                let entries = opened.readers[shard as usize].take(topic, max).await.unwrap();
                let came: Vec<_> = entries.iter().map(|entry| (entry.position, number(entry))).collect();
                assert_eq!(came, model.records[model.taken..model.taken + came.len()]);
                assert_eq!(came.is_empty(), model.taken == model.records.len(), "empty when there is nothing, and only then");
                model.taken += came.len();
            }
            Step::Finish(lane, share) => {
                let (topic, shard) = of(lane);
                let model = &mut lanes[lane as usize];
                let count = (model.taken - model.finished) * usize::from(share) / 255;
                if count > 0 {
                    model.finished += count;
                    opened.finish(topic, shard, model.records[model.finished - 1].0).await;
                }
            }
            Step::Reopen | Step::Crash => {
                let left = match step {
                    Step::Crash => Some(place.crashed()),
                    _ => None,
                };
                opened.log.close().await;
                place = left.unwrap_or(place);
                opened = place.open().await;
                for lane in &mut lanes {
                    lane.taken = lane.finished;
                }
            }
            Step::Squeeze(ring, marks) => {
                let mut state = opened.log.core.state();
                state.cache.ring_bytes_max = u64::from(ring);
                state.lane_marks_max = usize::from(marks);
            }
        }
        for lag in opened.log.lag() {
            let model = &lanes[usize::from(lag.partition) * 3 + lag.topic.index()];
            assert_eq!(lag.records, (model.records.len() - model.finished) as u64);
            assert_eq!(lag.oldest_at.is_some(), lag.records > 0);
        }
    }
    for (lane, model) in lanes.iter().enumerate() {
        let (topic, shard) = of(lane as u8);
        let wanted: Vec<_> = model.records[model.taken..].iter().map(|(_, number)| *number).collect();
        assert_eq!(opened.drain_numbers(topic, shard).await, wanted);
    }
    opened.log.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_log_does_what_a_list_would_do(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
