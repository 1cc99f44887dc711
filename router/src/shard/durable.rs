//! What a step makes durable: records for other shards, rows, how far the shard is.

use super::*;

impl Shard<'_> {
    /// Appends records for other shards, however long the log is away. Not past the end of the lease, though, nor when the log is
    /// closed: then nothing of the step counts, and the next owner does it. What the log never takes is parked.
    pub(super) async fn tell(&mut self, records: Vec<Record>, writes: &mut Vec<Write>) -> Result<(), Lost> {
        let partitions = self.parts.log.partitions();
        let mut left: Vec<(Record, NewRecord)> = Vec::with_capacity(records.len());
        for record in records {
            let new = record.to_new(record.topic(), partitions, self.parts.keyring.log());
            left.push((record, new));
        }
        let mut wait = STORE_RETRY.0;
        while !left.is_empty() {
            let results = self.parts.log.append(left.iter().map(|(_, new)| new.clone()).collect()).await;
            let mut again = Vec::new();
            for (one, result) in left.into_iter().zip(results) {
                match result {
                    Ok(_) => {}
                    Err(AppendError::Full | AppendError::Away | AppendError::Partition) => again.push(one),
                    Err(error @ AppendError::TooLarge { .. }) => {
                        tracing::error!(shard = self.id, %error, "a record for another shard is parked: the log does not take it");
                        writes.push(quarantined(&one.0, Unfit::TooLarge, &self.parts.keyring));
                    }
                    Err(AppendError::Closed) => return Err(Lost),
                }
            }
            left = again;
            if !left.is_empty() {
                self.renew().await?;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(STORE_RETRY.1);
            }
        }
        Ok(())
    }

    /// Writes, however long the store is away: nothing is let go before. Not past the end of the lease, though: then it is asked for
    /// anew, and only the same lease goes on.
    pub(super) async fn apply(&mut self, writes: Vec<Write>, durability: Durability) -> Result<(), Lost> {
        if writes.is_empty() {
            return Ok(());
        }
        let conversation = |write: &Write| if let Key::Conversation(_, id) = write.key { Some(id) } else { None };
        self.parts.options.faults.at(FaultPoint::Apply, writes.iter().filter_map(conversation));
        let (lease_clock, clock) = (self.lease_clock.clone(), self.parts.clock.clone());
        let holds: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(move || lease_clock.holds(clock.monotonic()));
        let writes = Arc::new(writes);
        let mut wait = STORE_RETRY.0;
        loop {
            let held = Held { lease: self.lease, holds: holds.clone() };
            let Err(error) = self.parts.store.apply_step(&held, writes.clone(), durability).await else { return Ok(()) };
            let ran_out = match error {
                StoreError::Unheld => true,
                StoreError::Unavailable(_) | StoreError::Full | StoreError::Damaged(_) | StoreError::Conflict | StoreError::Closed => {
                    tracing::warn!(shard = self.id, %error, "store write failed, trying again");
                    false
                }
            };
            if ran_out {
                self.renew_at = Duration::ZERO;
            }
            self.renew().await?;
            // Only a lease that came back is reason to go on at once: a store that is away would keep a core busy being asked.
            if !(ran_out && self.lease_clock.holds(self.parts.clock.monotonic())) {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(STORE_RETRY.1);
            }
        }
    }

    pub(super) fn note_progress(&mut self) {
        let mut commit = Commit::default();
        for topic in Topic::ALL {
            commit.positions[topic.index()] = self.progress.take_finished(*topic);
        }
        commit.settled = self.feed_open.take_finished();
        if self.feed_open.is_empty() {
            commit.settled = Some(self.feed);
        }
        self.parts.commits.note(self.id, |kept| {
            for (kept, new) in kept.positions.iter_mut().zip(commit.positions) {
                *kept = new.or(*kept);
            }
            kept.settled = commit.settled.or(kept.settled);
        });
    }
}
