//! A shard's reader: takes from memory what is there, and has the rest read off the async workers.

use std::io;
use std::sync::Arc;

use super::core::Core;
use super::format;
use super::state::Taken;
use crate::BoxFuture;
use crate::log::{Entry, LogError, ShardReader, Topic};

/// The reader of one shard.
pub(super) struct Reader {
    pub core: Arc<Core>,
    pub shard: u16,
}

impl ShardReader for Reader {
    fn shard(&self) -> u16 {
        self.shard
    }

    fn ready(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let arrivals = &self.core.arrivals[self.shard as usize];
            // A notice that came while nobody waited is kept, so nothing is missed between the look and the wait.
            while !self.core.state().has_waiting(self.shard) {
                arrivals.notified().await;
            }
        })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), LogError>> {
        self.core.state().restart(self.shard);
        self.core.arrivals[self.shard as usize].notify_one();
        Box::pin(std::future::ready(Ok(())))
    }

    fn take(&mut self, topic: Topic, max: usize) -> BoxFuture<'_, Result<Vec<Entry>, LogError>> {
        Box::pin(self.take_records(topic, max))
    }
}

impl Reader {
    async fn take_records(&self, topic: Topic, max: usize) -> Result<Vec<Entry>, LogError> {
        let lane = format::lane_id(topic, self.shard, self.core.settings.partitions);
        let mut back = None;
        let mut turn = None;
        loop {
            let taken = {
                let mut state = self.core.state();
                if state.closed {
                    return Err(LogError::Closed);
                }
                if let Some(back) = back.take() {
                    state.take_back(back);
                }
                state.take(lane, max)
            };
            // Nothing is taken before it is handed out: dropping this future in the middle loses nothing.
            let (from, bytes) = match taken {
                Taken::Entries(entries) => return Ok(entries),
                Taken::Read { from, bytes } => (from, bytes),
            };
            // Shards read one after another: what one reads the next ones find in memory, and memory stays bounded.
            if turn.is_none() {
                turn = Some(self.core.reading.lock().await);
                continue;
            }
            let core = self.core.clone();
            match tokio::task::spawn_blocking(move || core.read_back(from, bytes)).await {
                Ok(Ok(groups)) => back = Some(groups),
                // The segment was finished and deleted while we were about to read it.
                Ok(Err(LogError::Io(error))) if error.kind() == io::ErrorKind::NotFound && self.core.state().low() > from => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(LogError::Closed),
            }
        }
    }
}
