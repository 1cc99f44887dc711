//! A store that is not there yet: a process may start while its store is away, and serves what needs none.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{DirectoryRows, Durability, Found, Held, Key, Lease, LeaseAnswer, LeaseOn, Scan, Store, StoreError, Write};
use crate::BoxFuture;
use crate::metrics::SupervisedTask;
use crate::supervise::spawn_again;

/// Between tries to reach the store.
const RETRY: Duration = Duration::from_secs(1);

/// Opens a store.
pub type Open = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> + Send + Sync>;

/// Unavailable until the store behind it can be opened.
pub struct LazyStore {
    store: Arc<OnceLock<Arc<dyn Store>>>,
    opening: JoinHandle<()>,
}

impl LazyStore {
    /// Begins to try.
    pub fn begin(open: Open) -> Arc<dyn Store> {
        let store: Arc<OnceLock<Arc<dyn Store>>> = Arc::default();
        let found = store.clone();
        let open = Arc::new(open);
        let opening = spawn_again(SupervisedTask::StoreOpen, move || {
            let (found, open) = (found.clone(), open.clone());
            async move {
                loop {
                    match open().await {
                        Ok(opened) => {
                            let _ = found.set(opened);
                            tracing::info!("the store is there");
                            return;
                        }
                        Err(error) => tracing::warn!(%error, "the store is not there yet"),
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        });
        Arc::new(Self { store, opening })
    }

    fn with<'a, T: Send + 'static>(
        &'a self,
        ask: impl FnOnce(&'a Arc<dyn Store>) -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        match self.store.get() {
            Some(store) => ask(store),
            None => Box::pin(std::future::ready(Err(StoreError::Unavailable("it was not reached since the start".to_owned())))),
        }
    }
}

impl Store for LazyStore {
    fn read(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        self.with(|store| store.read(keys))
    }
    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        self.with(|store| store.scan(scan, limit))
    }
    fn apply(&self, batch: Vec<Write>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|store| store.apply(batch, durability))
    }
    fn apply_step(&self, held: &Held, batch: Arc<Vec<Write>>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|store| store.apply_step(held, batch, durability))
    }
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|store| store.sync())
    }
    fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>> {
        self.with(|store| store.lease(on, owner, ttl))
    }
    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|store| store.release(lease))
    }
    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.with(|store| store.directory_version())
    }
    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>> {
        self.with(|store| store.directory())
    }
    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.with(|store| store.change_directory(expected, changes))
    }
    fn disk(&self) -> (u64, u64) {
        self.store.get().map_or((0, 0), |store| store.disk())
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.opening.abort();
            if let Some(store) = self.store.get() {
                store.close().await;
            }
        })
    }
}

impl Drop for LazyStore {
    fn drop(&mut self) {
        self.opening.abort();
    }
}
