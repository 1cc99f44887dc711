use super::*;

fn entry(position: u64) -> Entry {
    Entry { position: Position(position), appended_at: Timestamp::from_secs(position), payload: Bytes::from_static(b"12345678") }
}

fn filled(finished: u64, to: u64) -> Lane {
    let mut lane = Lane::new(finished, finished);
    for position in finished + 1..=to {
        lane.arrive(entry(position));
    }
    lane
}

fn seen(lane: &Lane) -> (u64, Option<u64>) {
    let lag = lane.lag(Topic::Inbound, 0);
    (lag.records, lag.oldest_at.map(Timestamp::as_secs))
}

#[test]
fn repeated_and_missing_records_are_told() {
    let mut lane = Lane::new(10, 10);
    let cases = [
        (11, Arrival::Next { woken: true }),
        (12, Arrival::Next { woken: false }),
        (12, Arrival::Again),
        (5, Arrival::Again),
        (16, Arrival::Gap(3)),
        (17, Arrival::Next { woken: false }),
    ];
    for (position, wanted) in cases {
        assert_eq!(lane.arrive(entry(position)), wanted, "{position}");
    }
    assert_eq!(lane.take(10).iter().map(|entry| entry.position.0).collect::<Vec<_>>(), [11, 12, 16, 17]);
    assert_eq!((lane.taken, lane.bytes), (17, 0));
}

#[test]
fn lag_is_from_the_finished_position_to_the_end() {
    let mut lane = filled(0, 10);
    assert_eq!(seen(&lane), (10, Some(1)));
    lane.take(10);
    assert_eq!(seen(&lane), (10, Some(1)), "taken is not finished");
    lane.finish(4);
    assert_eq!(seen(&lane), (6, Some(5)));
    lane.finish(2);
    assert_eq!(seen(&lane), (6, Some(5)), "never back");
    lane.looked(30, Timestamp::from_secs(100));
    assert_eq!(seen(&lane), (26, Some(5)), "what is not fetched counts");
    lane.finish(10);
    assert_eq!(seen(&lane), (0, None), "nothing of the rest was fetched yet");
    lane.looked(30, Timestamp::from_secs(101));
    lane.looked(30, Timestamp::from_secs(102));
    assert_eq!(seen(&lane), (20, Some(101)), "but it does not come: at least since the first look");
    lane.arrive(entry(11));
    lane.finish(11);
    assert_eq!(seen(&lane).1, None);
    for position in 12..=30 {
        lane.arrive(entry(position));
    }
    lane.finish(30);
    assert_eq!(seen(&lane), (0, None));
}

#[test]
fn a_lane_stands_still_when_there_is_more_and_none_comes() {
    let at = Timestamp::from_secs;
    let mut lane = filled(0, 10);
    lane.looked(10, at(100));
    assert!(!lane.stands_still(at(200)), "there is no more");
    lane.looked(12, at(200));
    assert!(!lane.stands_still(at(204)));
    lane.arrive(entry(11));
    assert!(!lane.stands_still(at(300)), "something came");
    lane.looked(12, at(300));
    assert!(lane.stands_still(at(305)));
    assert!(!lane.stands_still(at(306)), "asked for anew just now");
    assert!(lane.stands_still(at(310)), "and again nothing");
    lane.restart();
    assert!(!lane.stands_still(at(400)));
}

#[test]
fn a_long_unfinished_stretch_keeps_few_times_and_never_looks_younger() {
    let mut lane = filled(0, 100_000);
    assert!(lane.samples.len() <= SAMPLES);
    for finished in [0, 1, 77, 5_000, 50_000, 99_998, 99_999] {
        lane.finish(finished);
        let (records, oldest) = seen(&lane);
        assert_eq!(records, 100_000 - finished);
        assert!(oldest.is_some_and(|oldest| oldest <= finished + 1), "finished {finished}: {oldest:?}");
    }
    lane.finish(100_000);
    assert_eq!(seen(&lane), (0, None));
}

#[test]
fn a_lane_is_full_by_records_or_bytes() {
    let mut lane = filled(0, LANE_RECORDS as u64 - 1);
    assert!(!lane.is_over());
    lane.arrive(entry(LANE_RECORDS as u64));
    assert!(lane.is_over() && !lane.has_room());
    lane.take(LANE_RECORDS / 2);
    assert!(!lane.is_over() && lane.has_room());
    let mut lane = Lane::new(0, 0);
    lane.arrive(Entry { payload: Bytes::from(vec![0; LANE_BYTES]), ..entry(1) });
    assert!(lane.is_over());
}

#[tokio::test]
async fn after_a_revocation_nothing_is_taken_and_what_was_taken_may_be_finished() {
    let closed = Arc::new(AtomicBool::new(false));
    let shard = Shard::new(3, [Lane::new(0, 0), Lane::new(0, 0), Lane::new(0, 0)], closed.clone());
    let mut reader = shard.reader();
    for position in 1..=4 {
        shard.arrive(Topic::Outbound, position, Timestamp::ZERO, b"x");
    }
    reader.ready().await;
    assert_eq!(reader.take(Topic::Outbound, 2).await.unwrap().len(), 2);
    shard.revoke();
    assert!(reader.take(Topic::Outbound, 2).await.unwrap().is_empty());
    assert_eq!(shard.arrive(Topic::Outbound, 5, Timestamp::ZERO, b"x").0, Arrival::Again);
    assert!(shard.may_finish(Topic::Outbound, 2) && !shard.is_settled() && !shard.is_let_go());
    shard.finished(Topic::Outbound, 2);
    drop(reader);
    assert!(shard.is_settled() && shard.is_let_go());
    shard.release();
    assert!(!shard.may_finish(Topic::Outbound, 3));
    let mut reader = shard.reader();
    closed.store(true, Ordering::Release);
    assert!(matches!(reader.take(Topic::Inbound, 1).await, Err(LogError::Closed)));
}
