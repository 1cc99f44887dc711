//! Three brokers and three nodes: one may go at any time, and nobody outside notices.

use std::time::Duration;

use system_tests::load::{Load, Spread};
use system_tests::servers::{Outage, Server, Servers};
use system_tests::{Backend, Setup, quick};

/// A broker, then a node, is killed and brought back under load: nothing is lost, and no call of a user fails.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_goes_unnoticed() {
    let _turn = super::TURN.lock().await;
    let (pause, victims) = if quick() {
        (8, &[Server::Kafka2, Server::Cassandra2][..])
    } else {
        const ALL: [Server; 6] = [Server::Kafka2, Server::Cassandra2, Server::Kafka, Server::Cassandra, Server::Kafka3, Server::Cassandra3];
        (20, &ALL[..])
    };
    let servers = Servers::own(&["kafka", "cassandra", "redis", "--brokers", "3", "--nodes", "3"]).await;
    let setup = Setup { backend: Some(Backend::on(&servers, 3)), ..Setup::default() };
    let system = super::start_with(2, 2, setup).await;
    let load = Load::start(&system, 21, Spread::Pinned).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The first sends come before the routers have seen the customers who open their windows, and are refused for it.
    drop(load.take_complaints());
    for victim in victims {
        let away = servers.take_away(*victim, Outage::Kill).await;
        tokio::time::sleep(Duration::from_secs(pause)).await;
        away.end().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let complaints = load.take_complaints();
    let refused: Vec<_> = system.read().await.whatsapp.offered().into_iter().filter(|offered| offered.posted.tries > 1).collect();
    super::finish(system, load).await;
    assert_eq!(complaints, Vec::<String>::new(), "no call of the merchant failed");
    assert!(refused.is_empty(), "no webhook was refused: {refused:?}");
}
