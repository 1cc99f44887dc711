//! `apply`: a batch as waves of requests.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Inner;
use super::failure::Failure;
use super::keys::{self, Cells, Table};
use super::marks::{INDEX_MARGIN, Mark};
use super::packs::Rows;
use super::replicas::Replicas;
use super::statements::{Put, Row};
use super::waves::{Wave, deletes_index, wave};
use crate::clock::Timestamp;
use crate::store::{Key, Retention, Write};

/// Requests of one `apply` that are under way at once.
const IN_FLIGHT_PER_BATCH: usize = 128;

/// Seconds until the rows of each table expire; zero for never.
#[derive(Debug)]
pub(super) struct Expiry([i32; Table::ALL.len()]);

impl Expiry {
    pub(super) fn of(retention: &Retention) -> Self {
        Self(Table::ALL.map(|table| match table {
            Table::Conversations | Table::Later | Table::Intents | Table::Progress | Table::LaterBuckets | Table::Works => 0,
            Table::Messages => seconds(retention.messages, false),
            Table::MessageMonths => seconds(retention.messages, true),
            Table::Events => seconds(retention.events, false),
            Table::EventBuckets => seconds(retention.events, true),
            Table::Pointers | Table::PlatformIds => seconds(retention.pointers, false),
            Table::Quarantine | Table::QuarantineIds => seconds(retention.quarantine, false),
        }))
    }
}

/// The longest time that CQL takes: twenty years.
const EXPIRY_MAX_SECS: u64 = 20 * 365 * 24 * 3600;

fn seconds(kept: std::time::Duration, index: bool) -> i32 {
    if kept.is_zero() {
        return 0;
    }
    let margin = if index { INDEX_MARGIN.as_secs() } else { 0 };
    let secs = kept.as_secs().max(1).saturating_add(margin).min(EXPIRY_MAX_SECS);
    i32::try_from(secs).expect("twenty years are fewer than 2^31 seconds")
}

type Marked = HashSet<Mark, RandomState>;

impl Inner {
    /// Writes a batch, wave by wave (see `waves`). Of several writes of one row the last counts.
    pub(super) async fn apply(&self, batch: &[Write]) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let stamps = self.stamps.draw(now, batch.iter().map(|write| write.at));
        let mut waves = self.rows(batch, &stamps, now);
        for rows in &mut waves.rows {
            self.send(rows).await?;
        }
        self.marks.note(waves.lasting);
        Ok(())
    }

    /// Writes a batch with the write times given, all of it side by side: for what a journal makes one.
    pub(super) async fn write_at_once(&self, batch: &[Write], stamps: &[i64], now: Timestamp) -> Result<(), Failure> {
        let waves = self.rows(batch, stamps, now);
        let mut rows = Rows::default();
        waves.rows.into_iter().for_each(|wave| rows.append(wave));
        self.send(&mut rows).await?;
        self.marks.note(waves.lasting);
        Ok(())
    }

    /// The rows of a batch, wave by wave, and the index rows that will not be written again.
    fn rows<'a>(&self, batch: &'a [Write], stamps: &[i64], now: Timestamp) -> Waves<'a> {
        let replicas = Replicas::of(self.session.get_cluster_state(), &self.keyspace);
        let mut buckets = self.new_buckets(batch, now);
        let mut waves: [Rows<'_>; Wave::COUNT] = Default::default();
        // From the end, so that the last write of a row is met first.
        let mut seen = HashSet::<&Key, RandomState>::with_capacity_and_hasher(batch.len(), RandomState::default());
        for (write, stamp) in batch.iter().zip(stamps.iter().copied()).rev() {
            if !seen.insert(&write.key) {
                continue;
            }
            let rows = &mut waves[wave(write) as usize];
            let put = |table: Table, value| Put { value, ttl: self.expiry.0[table.index()] };
            let (table, cells) = keys::row_of(&write.key);
            let value = write.value.as_deref().map(|value| put(table, value));
            rows.push(Row { table, cells, put: value, stamp, replicas: replicas.of_row(table, &cells) });
            let Some((index, cells)) = buckets.needed(write) else { continue };
            let value = write.value.is_some().then(|| put(index, &[]));
            rows.push(Row { table: index, cells, put: value, stamp, replicas: replicas.of_row(index, &cells) });
        }
        Waves { rows: waves, lasting: buckets.lasting }
    }

    /// The index rows that this batch must write.
    fn new_buckets(&self, batch: &[Write], now: Timestamp) -> Buckets {
        let mut buckets = Buckets::default();
        for write in batch.iter().filter(|write| write.value.is_some()) {
            let Some((table, cells)) = keys::index_of(&write.key) else { continue };
            let mark = Mark::of(table, &cells);
            // The sweep takes passed buckets out of the index, so what is put there is indexed every time.
            let lasts = match write.key {
                Key::Later(_, queue, order) => {
                    let bucket = keys::number(&keys::later_bucket(queue, order)).expect("a bucket has eight bytes");
                    keys::later_bucket_end(queue, bucket) > now
                }
                Key::Quarantine(..) => false,
                Key::Message(..) | Key::Event(..) => true,
                Key::Conversation(..) | Key::Pointer(..) | Key::PlatformId(..) | Key::Intent(..) | Key::Progress(_) | Key::Work(..) => {
                    continue;
                }
            };
            if lasts {
                buckets.lasting.insert(mark)
            } else {
                buckets.fresh.insert(mark)
            };
        }
        if !buckets.lasting.is_empty() {
            self.marks.unknown(&mut buckets.lasting, self.clock.monotonic());
            buckets.fresh.extend(&buckets.lasting);
        }
        buckets
    }

    /// Sends the rows of a wave, many requests at once, and waits for all acknowledgements.
    pub(super) async fn send(&self, rows: &mut Rows<'_>) -> Result<(), Failure> {
        let packs = rows.pack(&self.limits);
        let mut under_way = FuturesUnordered::new();
        for pack in packs {
            if under_way.len() >= IN_FLIGHT_PER_BATCH
                && let Some(done) = under_way.next().await
            {
                let _: () = done?;
            }
            under_way.push(self.send_pack(pack));
        }
        while let Some(done) = under_way.next().await {
            done?;
        }
        Ok(())
    }

    async fn send_pack(&self, rows: &[Row<'_>]) -> Result<(), Failure> {
        let _permit = self.requests.acquire().await.map_err(|_| crate::store::StoreError::Closed)?;
        let batch = self.statements.batch(rows[0].table, rows[0].is_put(), rows.len());
        self.session.batch(batch, rows).await?;
        Ok(())
    }
}

/// A batch as rows.
struct Waves<'a> {
    rows: [Rows<'a>; Wave::COUNT],
    /// Index rows that need not be written again once these are.
    lasting: Marked,
}

/// Index rows of a batch.
#[derive(Debug, Default)]
struct Buckets {
    /// To be written with this batch.
    fresh: Marked,
    /// Of these, those that need not be written again.
    lasting: Marked,
}

impl Buckets {
    /// The index row that goes with a write; each once.
    fn needed(&mut self, write: &Write) -> Option<(Table, Cells)> {
        if write.value.is_some() && self.fresh.is_empty() {
            return None;
        }
        let (index, cells) = keys::index_of(&write.key)?;
        let needed = match write.value {
            Some(_) => self.fresh.remove(&Mark::of(index, &cells)),
            None => deletes_index(index),
        };
        needed.then_some((index, cells))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn indexes_outlive_their_rows() {
        let retention = Retention { messages: Duration::from_secs(100), ..Retention::default() };
        let expiry = Expiry::of(&retention);
        let of = |table: Table| expiry.0[table.index()];
        assert_eq!(of(Table::Messages), 100);
        assert!(of(Table::MessageMonths) > of(Table::Messages) && of(Table::EventBuckets) > of(Table::Events));
        assert_eq!((of(Table::Conversations), of(Table::Later), of(Table::LaterBuckets)), (0, 0, 0));
        for (kept, expected) in [(Duration::ZERO, 0), (Duration::from_millis(1), 1), (Duration::MAX, EXPIRY_MAX_SECS as i32)] {
            assert_eq!(seconds(kept, false), expected);
        }
        assert_eq!(seconds(Duration::ZERO, true), 0, "for ever is for ever");
    }
}
