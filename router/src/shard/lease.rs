//! A shard's lease: taken at the beginning, renewed while it works.

use super::*;

impl<'a> Shard<'a> {
    /// Takes the lease and takes up what the former owner left.
    ///
    /// # Errors
    /// It was told to stop meanwhile, the lease was lost before all was taken up, or taking it up panicked.
    pub async fn begin(
        parts: ShardParts,
        reader: &'a mut dyn ShardReader,
        suspects: &'a mut Suspects,
        orders: &mut watch::Receiver<Order>,
    ) -> Result<Self, Ended> {
        parts.fleet.note(reader.shard(), Some(metrics::ShardState::Starting));
        let id = reader.shard();
        let mut owner = [0; 16];
        fill_random(&mut owner);
        let (waits_since, mut told) = (parts.clock.monotonic(), false);
        let (lease, asked_at) = loop {
            if *orders.borrow() != Order::Work {
                return Err(Ended::Told);
            }
            let asked_at = parts.clock.monotonic();
            match parts.store.lease(LeaseOn::Shard(id), owner, parts.options.lease_ttl).await {
                Ok(LeaseAnswer::Held(lease)) => break (lease, asked_at),
                Ok(LeaseAnswer::HeldByOther(other)) => {
                    tracing::debug!(shard = id, until = %other.until, "another process holds the shard, waiting");
                    // One that died lets go within this time: whoever renews it still believes that the shard is his.
                    if !told && asked_at.saturating_sub(waits_since) > parts.options.lease_ttl * 3 {
                        told = true;
                        tracing::warn!(shard = id, until = %other.until, "another process has not let go of a shard that the log gave to us");
                    }
                }
                Err(error) => tracing::warn!(shard = id, %error, "no lease yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                _ = orders.changed() => {}
            }
        };
        let (to_me, from_lanes) = mpsc::channel(FROM_LANES_MAX);
        let lease_clock = Arc::new(LeaseClock::default());
        let mut shard = Self {
            id,
            reader,
            suspects,
            owner,
            lease,
            lease_clock,
            renew_at: Duration::ZERO,
            states: States::default(),
            progress: Progress::default(),
            feed: lease.epoch << EPOCH_SHIFT,
            feed_open: Prefix::default(),
            later: Later::new(id, lease.epoch),
            flows: Flows::default(),
            waits: Waits::new(parts.outlook.clone()),
            turns: Turns::default(),
            to_me,
            from_lanes,
            newest_log_time: Timestamp::ZERO,
            inbound_at: Timestamp::ZERO,
            recoveries_seen: parts.lanes.recoveries().since(0).0,
            directory_seen: 0,
            busy: Duration::ZERO,
            slow_look_at: parts.clock.monotonic(),
            reported_at: parts.clock.monotonic(),
            parts,
        };
        shard.note_lease(lease, asked_at);
        match caught(shard.recover()).await {
            Ok(Ok(())) => {
                shard.parts.fleet.note(id, Some(metrics::ShardState::Working));
                Ok(shard)
            }
            Ok(Err(Lost)) => Err(shard.close(Ended::Unleased).await),
            Err(panicked) => Err(shard.close(Ended::Panicked(panicked)).await),
        }
    }

    /// The store counts from some instant after it was asked: counted from before, our end is never later than the row's.
    fn note_lease(&mut self, lease: Lease, asked_at: Duration) {
        let ttl = self.parts.options.lease_ttl;
        self.lease = lease;
        self.lease_clock.set(asked_at + ttl - ttl / 5);
        self.renew_at = asked_at + ttl / 3;
    }

    /// Renews the lease when it is time to.
    pub(super) async fn renew(&mut self) -> Result<(), Lost> {
        if self.parts.clock.monotonic() < self.renew_at {
            return Ok(());
        }
        let asked_at = self.parts.clock.monotonic();
        match self.parts.store.lease(LeaseOn::Shard(self.id), self.owner, self.parts.options.lease_ttl).await {
            // It ran out, another had it meanwhile, and that one's ran out too: what it did is not in our memory.
            Ok(LeaseAnswer::Held(lease)) if lease.epoch != self.lease.epoch => Err(Lost),
            Ok(LeaseAnswer::Held(lease)) => {
                self.note_lease(lease, asked_at);
                Ok(())
            }
            Ok(LeaseAnswer::HeldByOther(_)) => Err(Lost),
            Err(error) => {
                tracing::warn!(shard = self.id, %error, "lease not renewed");
                self.renew_at = self.parts.clock.monotonic() + STORE_RETRY.1;
                Ok(())
            }
        }
    }
}
