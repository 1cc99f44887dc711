//! Changes of ownership on their way to the router.
//!
//! Bounded: a shard whose assignment was not looked at yet is taken back without a word, so that no more than one change of each kind
//! waits for a shard.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::log::{ClaimChange, ShardReader};

/// The changes that nobody took yet.
#[derive(Default)]
pub(super) struct Claims {
    waiting: Mutex<VecDeque<ClaimChange>>,
    arrived: Notify,
}

impl Claims {
    /// The next change; waits for it. Cancel-safe: a change is taken when it is returned.
    pub async fn next(&self) -> ClaimChange {
        loop {
            if let Some(change) = self.lock().pop_front() {
                return change;
            }
            // A notice that came while nobody waited is kept.
            self.arrived.notified().await;
        }
    }

    /// These are ours.
    pub fn assigned(&self, readers: Vec<Box<dyn ShardReader>>) {
        if readers.is_empty() {
            return;
        }
        self.lock().push_back(ClaimChange::Assigned(readers));
        self.arrived.notify_one();
    }

    /// These are to be given back.
    pub fn revoked(&self, shards: Vec<u16>) {
        self.gone(shards, ClaimChange::Revoked);
    }

    /// These are gone.
    pub fn lost(&self, shards: Vec<u16>) {
        self.gone(shards, ClaimChange::Lost);
    }

    fn gone(&self, mut shards: Vec<u16>, change: fn(Vec<u16>) -> ClaimChange) {
        let mut waiting = self.lock();
        let mut unseen: Vec<Box<dyn ShardReader>> = Vec::new();
        for assigned in waiting.iter_mut() {
            if let ClaimChange::Assigned(readers) = assigned {
                unseen.extend(readers.extract_if(.., |reader| shards.contains(&reader.shard())));
            }
        }
        waiting.retain(|change| !matches!(change, ClaimChange::Assigned(readers) if readers.is_empty()));
        shards.retain(|shard| !unseen.iter().any(|reader| reader.shard() == *shard));
        if !shards.is_empty() {
            waiting.push_back(change(shards));
            self.arrived.notify_one();
        }
        drop(waiting);
        // Outside of the lock: dropping a reader has work to do.
        drop(unseen);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<ClaimChange>> {
        self.waiting.lock().expect("no holder of the changes panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BoxFuture;
    use crate::log::{Entry, LogError, Topic};

    struct Reader(u16);

    impl ShardReader for Reader {
        fn shard(&self) -> u16 {
            self.0
        }
        fn ready(&mut self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::pending())
        }
        fn restart(&mut self) -> BoxFuture<'_, Result<(), LogError>> {
            Box::pin(async { Ok(()) })
        }
        fn take(&mut self, _: Topic, _: usize) -> BoxFuture<'_, Result<Vec<Entry>, LogError>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    fn readers(shards: &[u16]) -> Vec<Box<dyn ShardReader>> {
        shards.iter().map(|shard| Box::new(Reader(*shard)) as Box<dyn ShardReader>).collect()
    }

    async fn all(claims: &Claims) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(change) = futures_util::FutureExt::now_or_never(claims.next()) {
            seen.push(match change {
                ClaimChange::Assigned(readers) => format!("assigned {:?}", readers.iter().map(|reader| reader.shard()).collect::<Vec<_>>()),
                ClaimChange::Revoked(shards) => format!("revoked {shards:?}"),
                ClaimChange::Lost(shards) => format!("lost {shards:?}"),
            });
        }
        seen
    }

    #[tokio::test]
    async fn what_nobody_saw_is_taken_back_without_a_word() {
        let claims = Claims::default();
        claims.assigned(readers(&[0, 1, 2]));
        claims.revoked(vec![0, 1, 2]);
        assert_eq!(all(&claims).await, Vec::<String>::new());

        claims.assigned(readers(&[0, 1]));
        assert_eq!(all(&claims).await, ["assigned [0, 1]"]);
        claims.revoked(vec![0, 1]);
        claims.assigned(readers(&[1, 2]));
        claims.lost(vec![1, 2]);
        claims.assigned(readers(&[0]));
        assert_eq!(all(&claims).await, ["revoked [0, 1]", "assigned [0]"]);
        claims.lost(vec![0]);
        assert_eq!(all(&claims).await, ["lost [0]"]);
    }
}
