//! A shard's step as one, on a store that has no batches over many partitions.
//!
//! A step is first written whole as the shard's journal; then the lease is looked at once more; then its rows are written, side by
//! side. Whoever takes the shard over writes the rows of the last journal again, before it reads anything. So:
//! * A step whose journal stands is found whole, whenever its process died in the middle of the rows.
//! * A step whose journal does not stand counts for nothing: no row of it was written.
//! * A process that was paused writes at most rows whose journal stood before its lease ended, and so before the next owner read
//!   it; that one wrote the same rows with the same write times. Whatever was written since has later ones, and wins (`stamps`).
//!   A journal that arrives after its lease is over loses against the next owner's, or stands until the one after it, who finds
//!   records that are not finished and a step that decided them whole.
//!
//! There is one journal per shard, overwritten by the next step, which begins when the step before is acknowledged. It is cut into
//! parts of bounded size; it counts when all parts of one step are there.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use serde::{Deserialize, Serialize, Serializer};

use super::Inner;
use super::connect::Profiles;
use super::failure::Failure;
use crate::clock::Timestamp;
use crate::store::{Held, Key, LeaseOn, StoreError, Write};

/// Bytes of a part: well below the largest mutation of either server.
const PART_BYTES: usize = 512 << 10;
/// Seconds that a journal is kept: as long as the log may keep the records that it decided, at most.
const KEPT_SECS: i32 = 14 * 24 * 3600;

/// About how many bytes a journal takes per row beside its value.
const ROW_BYTES: usize = 96;

/// A write with its write time.
type Stamped<'a> = (Key, Option<Value<'a>>, i64);

/// A row's bytes, written as a whole: serde takes a slice byte by byte, which reads back the same and costs more.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
struct Value<'a>(#[serde(borrow)] &'a [u8]);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// With room for all of it from the start: a vector that grows would copy a step's rows again and again.
fn encode(entries: &[Stamped<'_>]) -> Vec<u8> {
    let values: usize = entries.iter().map(|(_, value, _)| value.map_or(0, |value| value.0.len())).sum();
    let room = Vec::with_capacity(values + entries.len() * ROW_BYTES);
    postcard::to_extend(entries, room).expect("our own types serialise")
}

/// The statements of the journal.
pub(super) struct JournalStatements {
    put: PreparedStatement,
    get: PreparedStatement,
}

impl JournalStatements {
    pub(super) async fn prepare(session: &Session, keyspace: &str, profiles: &Profiles) -> Result<Self, Failure> {
        let put = "INSERT INTO {}.steps (shard, part, step, parts, v) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
        let mut put = session.prepare(put.replace("{}", keyspace)).await?;
        put.set_is_idempotent(true);
        let get = "SELECT part, step, parts, v FROM {}.steps WHERE shard = ?";
        let mut get = session.prepare(get.replace("{}", keyspace)).await?;
        get.set_execution_profile_handle(Some(profiles.read.clone()));
        get.set_consistency(Consistency::LocalQuorum);
        get.set_is_idempotent(true);
        Ok(Self { put, get })
    }
}

impl Inner {
    /// Writes a step: its journal, then its rows.
    pub(super) async fn apply_step(&self, held: &Held, batch: &[Write]) -> Result<(), Failure> {
        if !(held.holds)() {
            return Err(StoreError::Unheld.into());
        }
        let LeaseOn::Shard(shard) = held.lease.on else { return self.apply(batch).await };
        let now = self.clock.now();
        let stamps = self.stamps.draw(now, batch.iter().map(|write| write.at));
        // One row is one as it is.
        if batch.len() > 1 {
            self.write_journal(shard, batch, &stamps).await?;
            if !(held.holds)() {
                return Err(StoreError::Unheld.into());
            }
        }
        self.write_at_once(batch, &stamps, now).await
    }

    async fn write_journal(&self, shard: u16, batch: &[Write], stamps: &[i64]) -> Result<(), Failure> {
        let entries: Vec<Stamped<'_>> =
            batch.iter().zip(stamps).map(|(write, stamp)| (write.key, write.value.as_deref().map(Value), *stamp)).collect();
        let bytes = encode(&entries);
        let step = stamps.last().copied().unwrap_or_default();
        let parts: Vec<&[u8]> = bytes.chunks(PART_BYTES).collect();
        let count = i32::try_from(parts.len()).map_err(|_| Failure::away("a step is larger than any journal"))?;
        let puts = parts.into_iter().zip(0_i32..).map(|(bytes, part)| async move {
            let _permit = self.requests.acquire().await.map_err(|_| Failure::from(StoreError::Closed))?;
            let values = (i32::from(shard), part, step, count, bytes, step, KEPT_SECS);
            self.session.execute_unpaged(&self.journal.put, values).await.map(drop).map_err(Failure::from)
        });
        try_join_all(puts).await?;
        Ok(())
    }

    /// Writes the rows of a shard's last step again, with the write times that they had. Before the new owner reads anything.
    pub(super) async fn replay_journal(&self, shard: u16) -> Result<(), Failure> {
        let result = self.session.execute_unpaged(&self.journal.get, (i32::from(shard),)).await?;
        let rows = result.into_rows_result().map_err(|_| unreadable())?;
        let mut steps: BTreeMap<i64, (i32, BTreeMap<i32, Vec<u8>>)> = BTreeMap::new();
        for row in rows.rows::<(i32, Option<i64>, Option<i32>, Option<&[u8]>)>().map_err(|_| unreadable())? {
            let (part, Some(step), Some(parts), Some(bytes)) = row.map_err(|_| unreadable())? else { continue };
            let entry = steps.entry(step).or_insert((parts, BTreeMap::new()));
            entry.1.insert(part, bytes.to_vec());
        }
        let whole = steps.into_values().rev().find(|(parts, found)| i32::try_from(found.len()) == Ok(*parts));
        let Some((_, parts)) = whole else { return Ok(()) };
        let bytes: Vec<u8> = parts.into_values().flatten().collect();
        let entries: Vec<Stamped<'_>> = postcard::from_bytes(&bytes).map_err(|_| unreadable())?;
        let stamps: Vec<i64> = entries.iter().map(|(_, _, stamp)| *stamp).collect();
        let at = Timestamp::ZERO;
        let batch: Vec<Write> =
            entries.into_iter().map(|(key, value, _)| Write { key, value: value.map(|value| value.0.to_vec()), at }).collect();
        tracing::debug!(shard, rows = batch.len(), "the former owner's last step is written again");
        self.write_at_once(&batch, &stamps, self.clock.now()).await
    }
}

fn unreadable() -> Failure {
    StoreError::Damaged("a shard's journal could not be read".to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TenantId;

    /// A journal that another version of this program left is read: values stand there as plain sequences of bytes.
    #[test]
    fn values_are_what_slices_are() {
        let key = |n: u8| Key::Pointer(TenantId([n; 16]), [n; 16]);
        let values: [Option<&[u8]>; 3] = [Some(&[7; 300]), None, Some(&[])];
        let plain: Vec<(Key, Option<&[u8]>, i64)> = (1..).zip(values).map(|(n, value)| (key(n), value, -i64::from(n))).collect();
        let ours: Vec<Stamped<'_>> = plain.iter().map(|(key, value, stamp)| (*key, value.map(Value), *stamp)).collect();
        let bytes = encode(&ours);
        assert_eq!(bytes, postcard::to_stdvec(&plain).unwrap());
        let read: Vec<Stamped<'_>> = postcard::from_bytes(&bytes).unwrap();
        let read: Vec<_> = read.into_iter().map(|(key, value, stamp)| (key, value.map(|value| value.0), stamp)).collect();
        assert_eq!(read, plain);
    }
}
