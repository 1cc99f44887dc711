//! The router while its store is away.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use messaging::BoxFuture;
use messaging::channels::ChannelKind;
use messaging::store::{DirectoryRows, Durability, Found, Held, Key, Lease, LeaseAnswer, LeaseOn, Scan, Store, StoreError, Write};
use rig::Rig;

/// A store that can be taken away, and counts how often it was asked for a lease meanwhile.
struct Shaky {
    store: Arc<dyn Store>,
    away: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl Shaky {
    fn now<'a, T: Send + 'a>(&self, answer: BoxFuture<'a, Result<T, StoreError>>) -> BoxFuture<'a, Result<T, StoreError>> {
        if !self.away.load(Ordering::SeqCst) {
            return answer;
        }
        Box::pin(std::future::ready(Err(StoreError::Unavailable("taken away".into()))))
    }
}

impl Store for Shaky {
    fn read(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        self.now(self.store.read(keys))
    }
    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        self.now(self.store.scan(scan, limit))
    }
    fn apply(&self, batch: Vec<Write>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        self.now(self.store.apply(batch, durability))
    }
    // As the store over CQL does it: no write without a lease that holds.
    fn apply_step(&self, held: &Held, batch: Arc<Vec<Write>>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        if !(held.holds)() {
            return Box::pin(std::future::ready(Err(StoreError::Unheld)));
        }
        self.now(self.store.apply_step(held, batch, durability))
    }
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.now(self.store.sync())
    }
    fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>> {
        if self.away.load(Ordering::SeqCst) {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        self.now(self.store.lease(on, owner, ttl))
    }
    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>> {
        self.now(self.store.release(lease))
    }
    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.now(self.store.directory_version())
    }
    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>> {
        self.now(self.store.directory())
    }
    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.now(self.store.change_directory(expected, changes))
    }
    fn disk(&self) -> (u64, u64) {
        self.store.disk()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close()
    }
}

/// Past the end of its lease the router asks for it now and then, not in a loop; and when the store is back, nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_asked_with_pauses() {
    let (away, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let shaky = (away.clone(), asked.clone());
    let rig = Rig::start_over(ChannelKind::Whatsapp, |store| Arc::new(Shaky { store, away: shaky.0, asked: shaky.1 })).await;
    rig.customer_writes("16505551234", "before", 0).await;
    rig.inbox.wait_for(2).await;

    away.store(true, Ordering::SeqCst);
    rig.customer_writes("16505551234", "meanwhile", 1).await;
    // Past the lease's ten seconds.
    rig.clock.advance(Duration::from_secs(30));
    tokio::time::sleep(Duration::from_millis(800)).await;
    let count = asked.load(Ordering::SeqCst);
    assert!((1..100).contains(&count), "asked {count} times in less than a second");

    away.store(false, Ordering::SeqCst);
    rig.inbox.wait_for(3).await;
    rig.stop().await;
}
