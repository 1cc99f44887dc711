use std::sync::Arc;

use super::support::*;
use crate::clock::SystemClock;
use crate::log::{EmbeddedSettings, Fsync, Log, conformance, open_embedded};

async fn conforms(change: impl Fn(&mut EmbeddedSettings)) {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(|space| {
        let mut settings = settings(&dir.path().join(space));
        change(&mut settings);
        async move { open_embedded(settings, Arc::new(SystemClock::default())).unwrap() as Arc<dyn Log> }
    })
    .await;
}

#[tokio::test]
async fn with_one_sync_per_group() {
    conforms(|_| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_sync_per_call_and_many_partitions() {
    conforms(|settings| {
        settings.fsync = Fsync::Each;
        settings.partitions = 64;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sync_and_with_two_partitions() {
    conforms(|settings| {
        settings.fsync = Fsync::Never;
        settings.partitions = 2;
    })
    .await;
}
