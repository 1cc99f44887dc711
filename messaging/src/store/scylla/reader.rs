//! `read` and `scan`.

use std::ops::ControlFlow;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use scylla::deserialize::row::ColumnIterator;
use scylla::response::PagingState;
use scylla::response::query_result::QueryResult;
use scylla::statement::prepared::PreparedStatement;

use super::Inner;
use super::failure::Failure;
use super::keys::{self, Cells, INTENT_SLOTS, QUARANTINE_SLOTS, Table};
use super::replicas::Replicas;
use super::statements::{Raw, list};
use crate::clock::Timestamp;
use crate::ids::{ConversationId, QuarantineId, TenantId};
use crate::state::FeedPosition;
use crate::store::{Found, Key, Queue, Scan, StoreError};

/// Keys of one request. Servers look each up on its own, and ScyllaDB takes at most a hundred.
const KEYS_PER_REQUEST: usize = 24;
/// Requests of one read that are under way at once.
const IN_FLIGHT_PER_READ: usize = 64;
/// Buckets of one scan that are read at once.
const BUCKETS_AT_ONCE: usize = 8;

/// What is done with the cells of each row.
type Each<'a, const N: usize> = dyn for<'r> FnMut([&'r [u8]; N]) -> Result<(), Failure> + Send + 'a;

/// A key that is asked for.
struct Asked {
    at: usize,
    table: Table,
    cells: Cells,
    /// Whose partition must be with the same nodes as its neighbours'.
    replicas: u64,
}

impl Asked {
    /// Keys that agree in this can share a request.
    fn group(&self) -> (Table, u64, &[u8]) {
        (self.table, self.replicas, self.cells.first(self.cells.count() - 1))
    }

    fn last(&self) -> &[u8] {
        self.cells.get(self.cells.count() - 1)
    }
}

impl Inner {
    pub(super) async fn read(&self, wanted: &[Key]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let replicas = Replicas::of(self.session.get_cluster_state(), &self.keyspace);
        let mut asked: Vec<Asked> = Vec::with_capacity(wanted.len());
        for (at, key) in wanted.iter().enumerate() {
            let (table, cells) = keys::row_of(key);
            asked.push(Asked { at, table, cells, replicas: replicas.of_row(table, &cells) });
        }
        asked.sort_unstable_by(|a, b| a.group().cmp(&b.group()).then_with(|| a.last().cmp(b.last())));
        let mut answers = vec![None; wanted.len()];
        let mut under_way = FuturesUnordered::new();
        let mut rest = &asked[..];
        while !rest.is_empty() {
            let (chunk, others) = rest.split_at(sharing(rest));
            rest = others;
            if under_way.len() >= IN_FLIGHT_PER_READ
                && let Some(done) = under_way.next().await
            {
                place(done?, &mut answers);
            }
            under_way.push(self.read_chunk(chunk));
        }
        while let Some(done) = under_way.next().await {
            place(done?, &mut answers);
        }
        Ok(answers)
    }

    async fn read_chunk(&self, chunk: &[Asked]) -> Result<Vec<(usize, Vec<u8>)>, Failure> {
        let mut found = Vec::with_capacity(chunk.len());
        let first = &chunk[0];
        let many = self.statements.get_many(first.table).filter(|_| first.last() != chunk[chunk.len() - 1].last());
        let Some(statement) = many else {
            let args: Vec<&[u8]> = first.cells.iter().collect();
            let result = self.ask(self.statements.get(first.table), &args).await?;
            each_row(result, &mut |[value]| {
                found.extend(chunk.iter().map(|asked| (asked.at, value.to_vec())));
                Ok(())
            })?;
            return Ok(found);
        };
        let mut lasts: Vec<&[u8]> = chunk.iter().map(Asked::last).collect();
        lasts.dedup();
        let lasts = list(lasts.into_iter());
        let mut args: Vec<&[u8]> = first.cells.iter().take(first.cells.count() - 1).collect();
        args.push(&lasts);
        let result = self.ask(statement, &args).await?;
        each_row(result, &mut |[last, value]| {
            let from = chunk.partition_point(|asked| asked.last() < last);
            for asked in chunk[from..].iter().take_while(|asked| asked.last() == last) {
                found.push((asked.at, value.to_vec()));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// One request whose answer is short.
    async fn ask(&self, statement: &PreparedStatement, args: &[&[u8]]) -> Result<QueryResult, Failure> {
        let _permit = self.requests.acquire().await.map_err(|_| StoreError::Closed)?;
        Ok(self.session.execute_unpaged(statement, Raw(args)).await?)
    }

    /// Reads a range page by page until `each` breaks or the range or limit ends. The limit is the statement's last value.
    pub(super) async fn pages<const N: usize>(
        &self,
        statement: &PreparedStatement,
        args: &[&[u8]],
        limit: usize,
        each: &mut Each<'_, N>,
    ) -> Result<(), Failure> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX).to_be_bytes();
        let args: Vec<&[u8]> = args.iter().copied().chain([&limit[..]]).collect();
        let mut paging = PagingState::start();
        loop {
            let permit = self.requests.acquire().await.map_err(|_| StoreError::Closed)?;
            let (result, next) = self.session.execute_single_page(statement, Raw(&args), paging).await?;
            drop(permit);
            each_row(result, each)?;
            match next.into_paging_control_flow() {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(next) => paging = next,
            }
        }
    }

    pub(super) async fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<Found>, Failure> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        match scan {
            Scan::Messages(tenant, conversation, before) => self.messages(tenant, conversation, before, limit).await,
            Scan::Events(tenant, after) => self.events(tenant, after, limit).await,
            Scan::Later(shard, queue, from) => self.later(shard, queue, from, limit).await,
            Scan::AllLater(shard) => self.all_later(shard, limit).await,
            Scan::Intents(shard) => self.intents(shard, limit).await,
            Scan::Quarantine(Some(tenant), after) => self.quarantine(tenant, after, limit).await,
            Scan::Quarantine(None, after) => self.quarantine_of_all(after, limit).await,
        }
    }

    /// Month after month, the newest first. Almost always one is enough.
    async fn messages(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Found>, Failure> {
        let mut months: Vec<[u8; 4]> = Vec::new();
        let args = [&tenant.0[..], &conversation.0, &keys::month(before)];
        self.pages(&self.statements.scans.months, &args, usize::MAX, &mut |[month]| {
            months.push(month.try_into().map_err(|_| keys::BadCell)?);
            Ok(())
        })
        .await?;
        let mut found = Vec::new();
        let before = before.0.to_be_bytes();
        for month in months {
            let args = [&tenant.0[..], &conversation.0, &month, &before];
            self.pages(&self.statements.scans.messages, &args, limit - found.len(), &mut |[at, id, value]| {
                found.push((keys::message_key(tenant, conversation, [at, id])?, value.to_vec()));
                Ok(())
            })
            .await?;
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// The bucket of the place first, and beside it the index of those that follow: a reader at the end of the feed, the usual
    /// one, waits for one round trip.
    async fn events(&self, tenant: TenantId, after: FeedPosition, limit: usize) -> Result<Vec<Found>, Failure> {
        let shard = keys::int(after.shard);
        let first = keys::event_bucket(after.order);
        let mut buckets: Vec<[u8; 8]> = Vec::new();
        let args = [&tenant.0[..], &shard, &first];
        let mut note = |[bucket]: [&[u8]; 1]| {
            buckets.push(bucket.try_into().map_err(|_| keys::BadCell)?);
            Ok(())
        };
        let index = self.pages(&self.statements.scans.event_buckets, &args, usize::MAX, &mut note);
        let (mut found, ()) = tokio::try_join!(self.events_of(tenant, after, first, limit), index)?;
        let left = limit - found.len();
        let reads = buckets.into_iter().map(|bucket| self.events_of(tenant, after, bucket, left));
        gather(reads, limit, &mut found).await?;
        Ok(found)
    }

    async fn events_of(&self, tenant: TenantId, after: FeedPosition, bucket: [u8; 8], limit: usize) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        let args = [&tenant.0[..], &keys::int(after.shard), &bucket, &after.order.to_be_bytes()];
        self.pages(&self.statements.scans.events, &args, limit, &mut |[pos, value]| {
            found.push((keys::event_key(tenant, after.shard, pos)?, value.to_vec()));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Buckets of a queue from an order on. The order bounds each read below, so the deletions of what was done before it are
    /// not walked through again.
    async fn later(&self, shard: u16, queue: Queue, from: u64, limit: usize) -> Result<Vec<Found>, Failure> {
        let mut buckets: Vec<[u8; 8]> = Vec::new();
        let cell = keys::queue_cell(&queue);
        let args = [&keys::int(shard)[..], &cell, &keys::later_bucket(queue, from)];
        self.pages(&self.statements.scans.queue_buckets, &args, usize::MAX, &mut |[bucket]| {
            buckets.push(bucket.try_into().map_err(|_| keys::BadCell)?);
            Ok(())
        })
        .await?;
        let mut found = Vec::new();
        let reads = buckets.into_iter().map(|bucket| self.later_of(shard, queue, bucket, from, limit));
        gather(reads, limit, &mut found).await?;
        Ok(found)
    }

    async fn all_later(&self, shard: u16, limit: usize) -> Result<Vec<Found>, Failure> {
        let buckets = self.later_buckets(shard).await?;
        let mut found = Vec::new();
        let reads = buckets.into_iter().map(|(queue, bucket)| self.later_of(shard, queue, bucket.to_be_bytes(), 0, limit));
        gather(reads, limit, &mut found).await?;
        Ok(found)
    }

    /// The buckets of a shard's `later`, queue by queue.
    pub(super) async fn later_buckets(&self, shard: u16) -> Result<Vec<(Queue, u64)>, Failure> {
        let mut buckets = Vec::new();
        self.pages(&self.statements.scans.later_buckets, &[&keys::int(shard)], usize::MAX, &mut |[queue, bucket]| {
            buckets.push((keys::queue_of(queue).ok_or(keys::BadCell)?, keys::number(bucket)?));
            Ok(())
        })
        .await?;
        Ok(buckets)
    }

    pub(super) async fn later_of(&self, shard: u16, queue: Queue, bucket: [u8; 8], from: u64, limit: usize) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        let cell = keys::queue_cell(&queue);
        let args = [&keys::int(shard)[..], &cell, &bucket, &from.to_be_bytes()];
        self.pages(&self.statements.scans.later, &args, limit, &mut |[pos, value]| {
            found.push((keys::later_key(shard, queue, pos)?, value.to_vec()));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// All slots, put in order.
    async fn intents(&self, shard: u16, limit: usize) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        let reads = (0..INTENT_SLOTS).map(|slot| self.intents_of(shard, slot, limit));
        gather(reads, usize::MAX, &mut found).await?;
        found.sort_unstable_by_key(|(key, _)| *key);
        found.truncate(limit);
        Ok(found)
    }

    async fn intents_of(&self, shard: u16, slot: u8, limit: usize) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        let args = [&keys::int(shard)[..], &keys::int(slot)];
        self.pages(&self.statements.scans.intents, &args, limit, &mut |[tenant, id, value]| {
            found.push((keys::intent_key(shard, [tenant, id])?, value.to_vec()));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn quarantine(&self, tenant: TenantId, after: Option<QuarantineId>, limit: usize) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        for slot in after.as_ref().map_or(0, keys::quarantine_slot)..QUARANTINE_SLOTS {
            let args = [&tenant.0[..], &keys::int(slot), after_id(&after)];
            self.pages(&self.statements.scans.quarantine, &args, limit - found.len(), &mut |[id, value]| {
                found.push((keys::quarantine_key(&tenant.0, id)?, value.to_vec()));
                Ok(())
            })
            .await?;
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// By the index of ids, a page of it at a time: some of its rows may be gone, so it goes on until the limit or the end.
    async fn quarantine_of_all(&self, after: Option<QuarantineId>, limit: usize) -> Result<Vec<Found>, Failure> {
        let mut found: Vec<Found> = Vec::new();
        let mut after = after;
        for slot in after.as_ref().map_or(0, keys::quarantine_slot)..QUARANTINE_SLOTS {
            loop {
                let mut page = Vec::new();
                let wanted = (limit - found.len()).min(KEYS_PER_REQUEST);
                let args = [&keys::int(slot)[..], after_id(&after)];
                self.pages(&self.statements.scans.quarantine_ids, &args, wanted, &mut |[id, tenant]| {
                    page.push(keys::quarantine_key(tenant, id)?);
                    Ok(())
                })
                .await?;
                let Some(Key::Quarantine(_, last)) = page.last() else { break };
                after = Some(*last);
                let rows = self.read(&page).await?;
                found.extend(page.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))));
                if found.len() >= limit {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }
}

/// The lower bound of a range of ids: every id is more than no bytes.
fn after_id(after: &Option<QuarantineId>) -> &[u8] {
    after.as_ref().map_or(&[], |id| &id.0)
}

/// How many of the first keys go into one request.
fn sharing(asked: &[Asked]) -> usize {
    let group = asked[0].group();
    let alike = asked.iter().take_while(|other| other.group() == group);
    if asked[0].cells.count() == 1 {
        // There is no reading several rows of a key of one column: only repetitions share.
        return alike.take_while(|other| other.last() == asked[0].last()).count();
    }
    alike.take(KEYS_PER_REQUEST).count()
}

fn place(found: Vec<(usize, Vec<u8>)>, answers: &mut [Option<Vec<u8>>]) {
    for (at, value) in found {
        answers[at] = Some(value);
    }
}

/// Runs reads of buckets, some at once, and takes their rows in order until there are enough.
async fn gather(
    reads: impl Iterator<Item = impl Future<Output = Result<Vec<Found>, Failure>>>,
    limit: usize,
    found: &mut Vec<Found>,
) -> Result<(), Failure> {
    if found.len() >= limit {
        return Ok(());
    }
    let mut reads = std::pin::pin!(stream::iter(reads).buffered(BUCKETS_AT_ONCE));
    while let Some(rows) = reads.next().await {
        found.extend(rows?);
        if found.len() >= limit {
            found.truncate(limit);
            break;
        }
    }
    Ok(())
}

/// The cells of each row, as bytes.
fn each_row<const N: usize>(result: QueryResult, each: &mut Each<'_, N>) -> Result<(), Failure> {
    let unreadable = || Failure::Other(StoreError::Damaged("an answer of the cluster could not be read".to_owned()));
    let rows = result.into_rows_result().map_err(|_| unreadable())?;
    for columns in rows.rows::<ColumnIterator<'_, '_>>().map_err(|_| unreadable())? {
        let mut cells: [&[u8]; N] = [&[]; N];
        for (cell, column) in cells.iter_mut().zip(columns.map_err(|_| unreadable())?) {
            let column = column.map_err(|_| unreadable())?;
            *cell = column.slice.map_or(&[], |slice| slice.as_slice());
        }
        each(cells)?;
    }
    Ok(())
}
