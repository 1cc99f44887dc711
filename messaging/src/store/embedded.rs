//! Placeholder.
use super::*;
/// Placeholder.
pub struct EmbeddedStore;
#[allow(unused_variables, clippy::unimplemented)]
impl EmbeddedStore {
    pub(super) fn open(settings: EmbeddedSettings, clock: SharedClock) -> Result<Self, StoreError> {
        unimplemented!()
    }
}
#[allow(unused_variables, clippy::unimplemented)]
impl Store for EmbeddedStore {
    fn read(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        unimplemented!()
    }
    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        unimplemented!()
    }
    fn apply(&self, batch: Vec<Write>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!()
    }
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!()
    }
    fn lease(&self, shard: u16, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>> {
        unimplemented!()
    }
    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!()
    }
    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        unimplemented!()
    }
    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>> {
        unimplemented!()
    }
    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>> {
        unimplemented!()
    }
    fn disk(&self) -> (u64, u64) {
        unimplemented!()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        unimplemented!()
    }
}
