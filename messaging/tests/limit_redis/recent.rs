//! Recent answers between processes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use messaging::recent::{Recent, RecentSettings, VALUE_MAX, open_redis};

use super::support::*;

const TTL: Duration = Duration::from_secs(60);

fn recent_settings(address: &str) -> RecentSettings {
    let common = settings(address);
    RecentSettings { place: common.place, tls: common.tls, timeout: common.timeout, prefix: common.prefix }
}

async fn get(recent: &Arc<dyn Recent>, key: u8) -> Option<Bytes> {
    recent.get([key; 16]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_puts_another_gets() {
    let address = shared_redis();
    let settings = recent_settings(&address);
    let (one, other) = (open_redis(settings.clone()).await.unwrap(), open_redis(settings.clone()).await.unwrap());
    assert_eq!(get(&one, 1).await, None);
    let value = Bytes::from((0..=255).collect::<Vec<u8>>());
    one.put([1; 16], value.clone(), TTL).await;
    assert_eq!(get(&other, 1).await, Some(value.clone()), "bytes as they were");
    other.put([1; 16], Bytes::from_static(b"second"), TTL).await;
    assert_eq!(get(&one, 1).await, Some(value), "the first stays");
    one.put([2; 16], Bytes::from(vec![1; VALUE_MAX + 1]), TTL).await;
    one.put([3; 16], Bytes::from_static(b"x"), Duration::ZERO).await;
    assert_eq!((get(&other, 2).await, get(&other, 3).await), (None, None));
    let redis::Value::Int(left) = call(&address, &["PTTL", &format!("{}:recent:{}", settings.prefix, "01".repeat(16))]) else {
        panic!("no time to live")
    };
    assert!(left > 0 && left <= TTL.as_millis() as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_is_nothing_and_it_comes_back() {
    let mut server = Server::start(&[]);
    let recent = open_redis(recent_settings(&server.address())).await.unwrap();
    recent.put([1; 16], Bytes::from_static(b"x"), TTL).await;
    assert!(get(&recent, 1).await.is_some());
    server.kill();
    assert_eq!(get(&recent, 1).await, None);
    recent.put([1; 16], Bytes::from_static(b"x"), TTL).await;
    server.again();
    for _ in 0..2_000 {
        recent.put([2; 16], Bytes::from_static(b"y"), TTL).await;
        if get(&recent, 2).await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_at_first() {
    let mut server = Server::start(&[]);
    server.kill();
    let recent = open_redis(recent_settings(&server.address())).await.unwrap();
    assert_eq!(get(&recent, 1).await, None);
    server.again();
    for _ in 0..2_000 {
        recent.put([2; 16], Bytes::from_static(b"y"), TTL).await;
        if get(&recent, 2).await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come");
}
