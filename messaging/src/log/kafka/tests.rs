//! What only the inside can do.

use std::sync::Arc;

use bytes::Bytes;

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
    assert_eq!(waiting.await.expect("it is answered"), [Err(AppendError::Away); 2]);
    assert_ne!(Arc::as_ptr(&writer.client()) as usize, before);
    drop(writer.append(vec![record()], 1).expect("it is queued"));
    assert_eq!(writer.queued(), 1);
}
