//! Placeholder.
use super::*;
/// Placeholder.
pub struct EmbeddedLog;
#[allow(unused_variables, clippy::unimplemented)]
impl EmbeddedLog {
    pub(super) fn open(settings: EmbeddedSettings, clock: SharedClock) -> Result<Self, LogError> {
        unimplemented!()
    }
}
#[allow(unused_variables, clippy::unimplemented)]
impl Log for EmbeddedLog {
    fn partitions(&self) -> u16 {
        unimplemented!()
    }
    fn max_record(&self) -> usize {
        unimplemented!()
    }
    fn append(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        unimplemented!()
    }
    fn claims(&self) -> BoxFuture<'_, ClaimChange> {
        unimplemented!()
    }
    fn finish(&self, finished: Vec<Finished>) -> BoxFuture<'_, Result<(), LogError>> {
        unimplemented!()
    }
    fn lag(&self) -> Vec<Lag> {
        unimplemented!()
    }
    fn writable(&self) -> bool {
        unimplemented!()
    }
    fn disk(&self) -> (u64, u64) {
        unimplemented!()
    }
    fn queue(&self) -> (usize, usize) {
        unimplemented!()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        unimplemented!()
    }
}
