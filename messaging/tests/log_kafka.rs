//!
//! Needs a broker: `tests/servers up kafka` prints how to name it in `TRUNKLINE_TEST_KAFKA` (`host:port`). Without one, the tests fail.
#![cfg(feature = "kafka")]

#[path = "log_kafka/away.rs"]
mod away;
#[path = "log_kafka/group.rs"]
mod group;
#[path = "log_kafka/rig.rs"]
mod rig;
#[path = "log_kafka/secure.rs"]
mod secure;
#[path = "log_kafka/topics.rs"]
mod topics;

use std::sync::Arc;

use messaging::log::{Log, conformance};

/// Every check of the contract, each over topics of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract() {
    let _shared = rig::shared().await;
    let run = rig::fresh("c");
    let spaces = tokio::sync::Mutex::new(std::collections::BTreeSet::new());
    conformance::run(|space| {
        let (run, spaces) = (&run, &spaces);
        async move {
            let settings = rig::settings(&format!("{run}{space}."));
            if spaces.lock().await.insert(space) {
                rig::make_topics(&settings, 2).await;
            }
            rig::open(settings).await as Arc<dyn Log>
        }
    })
    .await;
}
