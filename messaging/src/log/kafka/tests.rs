//! What only the inside can do.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::mocking::MockCluster;

use super::*;
use crate::clock::SystemClock;
use crate::log::Topic;

/// Stands for librdkafka giving a producer up for good: what was open fails, and the next append goes through a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_was_given_up_is_replaced() {
    let clock: SharedClock = Arc::new(SystemClock::default());
    // Nobody listens there: what is appended waits until the producer is given up.
    let mut settings = KafkaSettings::new(vec!["127.0.0.1:1".into()]);
    settings.delivery_timeout = Duration::from_secs(60);
    let health = Arc::new(Health::new(clock.clone()));
    let writer = Arc::new(Writer::new(Arc::new(settings), clock, health).expect("it is made"));
    let record = || NewRecord { topic: Topic::Inbound, partition: 0, payload: Bytes::from_static(b"x") };
    let before = Arc::as_ptr(&writer.client()) as usize;
    let waiting = writer.append(vec![record(), record()], 1).expect("it is queued");
    assert_eq!(writer.queued(), 2);
    let replaced = writer.clone();
    tokio::task::spawn_blocking(move || replaced.give_up_client()).await.expect("it is replaced");
    assert_eq!(waiting.answer.await.expect("it is answered"), [Err(AppendError::Away); 2]);
    assert_ne!(Arc::as_ptr(&writer.client()) as usize, before);
    drop(writer.append(vec![record()], 1).expect("it is queued"));
    assert_eq!(writer.queued(), 1);
}

/// Longer than anything takes.
const AMPLE: Duration = Duration::from_secs(60);

async fn eventually(holds: impl Fn() -> bool) {
    let looks = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(AMPLE, looks).await.expect("it comes about");
}

/// One leader of two stops answering: whoever waits for records of both is told before long what its own took, and that the other is
/// away. That what was given up arrives later disturbs nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_does_not_get_on_is_given_up_alone() {
    let cluster = MockCluster::new(2).expect("librdkafka's own cluster starts");
    let mut settings = KafkaSettings::new(vec![cluster.bootstrap_servers()]);
    settings.delivery_timeout = AMPLE;
    let topic = settings.topic_names()[Topic::Inbound.index()].clone();
    cluster.create_topic(&topic, 2, 2).expect("the topic is made");
    for (partition, leader) in [(0, 1), (1, 2)] {
        cluster.partition_leader(&topic, partition, Some(leader)).expect("it leads");
    }
    let clock: SharedClock = Arc::new(SystemClock::default());
    let health = Arc::new(Health::new(clock.clone()));
    let writer = Arc::new(Writer::new(Arc::new(settings), clock, health).expect("it is made"));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = produce::start(writer.clone(), move || stopped.load(Ordering::SeqCst)).expect("a thread starts");
    let record = |partition| NewRecord { topic: Topic::Inbound, partition, payload: Bytes::from_static(b"x") };
    let both = || writer.append(vec![record(0), record(1)], 2).expect("it is queued");
    assert!(both().answer.await.expect("it is answered").iter().all(Result::is_ok));

    cluster.broker_round_trip_time(2, AMPLE).expect("it is slow");
    let waiting = both();
    writer.give_up(&waiting, AMPLE);
    // Nothing has waited for so long: what was given up would not be acknowledged any more. Now the fast one is.
    eventually(|| waiting.open() == 1).await;
    writer.give_up(&waiting, Duration::ZERO);
    let answer = waiting.answer.await.expect("it is answered");
    assert!(matches!(answer[..], [Ok(_), Err(AppendError::Away)]), "{answer:?}");
    assert_eq!(writer.queued(), 1, "librdkafka still has the slow one");
    cluster.broker_down(2).expect("it hangs up");
    cluster.broker_round_trip_time(2, Duration::ZERO).expect("it is as fast as before");
    cluster.broker_up(2).expect("it is back");
    eventually(|| writer.queued() == 0).await;
    stop.store(true, Ordering::SeqCst);
    thread.join().expect("it ends");
}
