//! Several endpoints of one tenant, of which some are in trouble: the others feel nothing of it.

mod rig;

use messaging::directory::EndpointState;
use messaging::ids::EndpointId;
use rig::{Rig, Server};

/// D1: what one endpoint has waiting is let go of at once, while the next endpoint's task of the same event has no place yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_in_trouble_stop_nobody() {
    let hangs = Server::start(|_| String::new()).await;
    hangs.hold(0);
    let troubles = [
        ("closed port", "http://127.0.0.1:9/hook".to_owned(), EndpointState::Active),
        ("paused", "http://127.0.0.1:9/hook".to_owned(), EndpointState::Paused),
        ("disabled", "http://127.0.0.1:9/hook".to_owned(), EndpointState::Disabled),
        ("hangs", format!("{}/hook", hangs.url), EndpointState::Active),
    ];
    for (trouble, url, state) in troubles {
        let rig = Rig::start().await;
        // One before the healthy endpoint, one behind it.
        for id in [1, 9] {
            rig.add_endpoint(EndpointId([id; 16]), url.clone(), state).await;
        }
        for n in 0..6 {
            rig.customer_writes("16505551234", "to all", n).await;
            rig.inbox.wait_for_kind("message.received", n as usize + 1).await;
        }
        let rig = rig.die_and_restart().await;
        rig.customer_writes("16505551234", "after a restart", 6).await;
        let sequences: std::collections::BTreeSet<_> =
            rig.inbox.wait_for_body("after a restart").await.into_iter().map(|delivery| delivery.sequence).collect();
        assert_eq!(sequences, (1..=8).collect(), "{trouble}: all of the healthy endpoint's, without a gap");
        rig.stop().await;
    }
}
