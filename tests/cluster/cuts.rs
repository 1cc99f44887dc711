//! Ways between processes and servers that are cut, without anybody being told.

use std::sync::Arc;
use std::time::Duration;

use system_tests::load::{Load, Spread, until_the_backlog_is_gone};
use system_tests::net::Net;
use system_tests::servers::Servers;
use system_tests::{Backend, Setup, quick};

/// A router is cut off the store, a router off the broker, a gateway off the broker: each for a while under load, then healed.
#[tokio::test(flavor = "multi_thread")]
async fn ways_are_cut_and_heal() {
    if Net::is_left_out() {
        return;
    }
    let _turn = super::TURN.lock().await;
    // Longer than a lease, and than a session of the group.
    let pause = Duration::from_secs(if quick() { 12 } else { 25 });
    let net = Arc::new(Net::make(&["gateway-1", "gateway-2", "router-1", "router-2"]));
    let servers = Servers::own(&["kafka", "cassandra", "redis", "--host", &net.hub().to_string()]).await;
    let setup = Setup { backend: Some(Backend::on(&servers, 1)), net: Some(net.clone()), ..Setup::default() };
    let system = super::start_with(2, 2, setup).await;
    let load = Load::start(&system, 31, Spread::Pinned).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (member, server) in [("router-1", servers.cassandra()), ("router-2", servers.kafka()), ("gateway-1", servers.kafka())] {
        let cut = net.cut(member, server);
        tokio::time::sleep(pause).await;
        drop(cut);
        let gone = until_the_backlog_is_gone(&system).await;
        println!("{member} cut off {server} for {pause:?}: the backlog is gone after {gone:?}");
    }
    super::finish(system, load).await;
}
