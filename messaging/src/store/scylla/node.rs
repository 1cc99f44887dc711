//! Leases and the directory: what changes by lightweight transaction.
//!
//! A transaction that is not answered in time may have been done, and may still be done a moment later. A read at
//! `LOCAL_SERIAL` ends whatever is under way, so after it the row says which of the two came about; answers are given from that
//! read, never from the time-out. Both kinds of rows say who wrote them (a lease by owner and epoch, the directory by a random
//! mark), so that our own change is known again.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::deserialize::row::ColumnIterator;
use scylla::response::query_result::QueryResult;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};

use super::Inner;
use super::connect::Profiles;
use super::failure::Failure;
use super::keys::{Cells, int};
use super::statements::Raw;
use crate::clock::Timestamp;
use crate::ids::ID_BYTES;
use crate::store::{DirectoryRows, Lease, LeaseAnswer, LeaseOn, StoreError};

/// How often a transaction is begun again when others were in the way.
const TRIES: usize = 4;
/// How often the directory is read again when it changed in the middle.
const READS: usize = 8;
/// Part of a lease's time that its transaction may take. What takes longer is done again: callers count the lease's time from
/// the answer.
const LATE_PART: u32 = 10;
/// Rows of a page of the directory.
const PAGE: i32 = 500;
/// The directory's only partition.
const PART: i32 = 0;

/// The statements of this module.
pub(super) struct NodeStatements {
    shard_leases: LeaseStatements,
    work_leases: LeaseStatements,
    version: PreparedStatement,
    settled_version: PreparedStatement,
    rows: PreparedStatement,
    first_version: PreparedStatement,
    next_version: PreparedStatement,
    put_row: PreparedStatement,
    delete_row: PreparedStatement,
}

/// Of one table of leases. The markers of the key come last where there are others.
struct LeaseStatements {
    get: PreparedStatement,
    first: PreparedStatement,
    next: PreparedStatement,
    release: PreparedStatement,
}

impl NodeStatements {
    fn leases(&self, on: LeaseOn) -> &LeaseStatements {
        match on {
            LeaseOn::Shard(_) => &self.shard_leases,
            LeaseOn::Account(..) => &self.work_leases,
        }
    }

    pub(super) async fn prepare(session: &Session, keyspace: &str, profiles: &Profiles) -> Result<Self, Failure> {
        let swap = async |text: &str| {
            let mut statement = session.prepare(text.replace("{}", keyspace)).await?;
            statement.set_execution_profile_handle(Some(profiles.swap.clone()));
            statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
            Ok::<_, Failure>(statement)
        };
        // Reads that end what is under way.
        let settled = async |text: &str| {
            let mut statement = swap(text).await?;
            statement.set_consistency(Consistency::LocalSerial);
            Ok::<_, Failure>(statement)
        };
        let read = async |text: &str| {
            let mut statement = session.prepare(Statement::new(text.replace("{}", keyspace)).with_page_size(PAGE)).await?;
            statement.set_execution_profile_handle(Some(profiles.read.clone()));
            statement.set_consistency(Consistency::LocalQuorum);
            statement.set_is_idempotent(true);
            Ok::<_, Failure>(statement)
        };
        let leases = async |table: &str, key: &[&str]| {
            let (columns, marks) = (key.join(", "), vec!["?"; key.len()].join(", "));
            let is = key.iter().map(|column| format!("{column} = ?")).collect::<Vec<_>>().join(" AND ");
            let first = format!("INSERT INTO {{}}.{table} (owner, epoch, until, {columns}) VALUES (?, ?, ?, {marks}) IF NOT EXISTS");
            let next = "SET owner = ?, epoch = ?, until = ?";
            let next = format!("UPDATE {{}}.{table} {next} WHERE {is} IF owner = ? AND epoch = ? AND until = ?");
            let release = format!("UPDATE {{}}.{table} SET until = ?, owner = ? WHERE {is} IF owner = ? AND epoch = ?");
            Ok::<_, Failure>(LeaseStatements {
                get: settled(&format!("SELECT owner, epoch, until FROM {{}}.{table} WHERE {is}")).await?,
                first: swap(&first).await?,
                next: swap(&next).await?,
                release: swap(&release).await?,
            })
        };
        Ok(Self {
            shard_leases: leases("leases", &["shard"]).await?,
            work_leases: leases("work_leases", &["account", "work"]).await?,
            version: read("SELECT DISTINCT version FROM {}.directory WHERE part = ?").await?,
            settled_version: settled("SELECT DISTINCT version, changed_by FROM {}.directory WHERE part = ?").await?,
            rows: read("SELECT version, id, v FROM {}.directory WHERE part = ?").await?,
            first_version: swap("UPDATE {}.directory SET version = ?, changed_by = ? WHERE part = ? IF version = NULL").await?,
            next_version: swap("UPDATE {}.directory SET version = ?, changed_by = ? WHERE part = ? IF version = ?").await?,
            put_row: swap("INSERT INTO {}.directory (part, id, v) VALUES (?, ?, ?)").await?,
            delete_row: swap("DELETE FROM {}.directory WHERE part = ? AND id = ?").await?,
        })
    }
}

impl Inner {
    pub(super) async fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> Result<LeaseAnswer, Failure> {
        for _ in 0..TRIES {
            let began = self.clock.monotonic();
            let seen = self.read_lease(on).await?;
            let now = self.clock.now();
            let until = now.plus(ttl);
            let wanted = match seen {
                None => Lease { on, epoch: 1, owner, until },
                // Also after its end: the row says that nobody had it in between.
                Some(seen) if seen.owner == owner => Lease { until, ..seen },
                Some(seen) if seen.until <= now => Lease { on, epoch: seen.epoch + 1, owner, until },
                Some(other) => return Ok(LeaseAnswer::HeldByOther(other)),
            };
            if !self.write_lease(seen, wanted).await? {
                continue;
            }
            if seen.is_none_or(|seen| seen.epoch != wanted.epoch) {
                // See `stamps`: the former owner's writes are earlier than ours from here on.
                self.stamps.lift(seen.map_or(now, |seen| now.max(seen.until)));
                if let LeaseOn::Shard(shard) = on {
                    self.replay_journal(shard).await?;
                }
            }
            if let LeaseOn::Shard(shard) = on {
                self.held.note(shard, wanted.until);
            }
            if self.clock.monotonic().saturating_sub(began) <= ttl / LATE_PART {
                return Ok(LeaseAnswer::Held(wanted));
            }
        }
        Err(Failure::away("the lease could not be taken in time"))
    }

    async fn read_lease(&self, on: LeaseOn) -> Result<Option<Lease>, Failure> {
        let key = key_of(on);
        let values: Vec<&[u8]> = key.iter().collect();
        let result = self.session.execute_unpaged(&self.node.leases(on).get, Raw(&values)).await?;
        let row = result
            .into_rows_result()
            .map_err(|_| unreadable())?
            .maybe_first_row::<(&[u8], i64, i64)>()
            .map_err(|_| unreadable())?
            .map(|(owner, epoch, until)| (owner.to_vec(), epoch, until));
        let Some((owner, epoch, until)) = row else { return Ok(None) };
        let owner: [u8; ID_BYTES] = owner.try_into().map_err(|_| unreadable())?;
        let (epoch, until) = (u64::try_from(epoch).map_err(|_| unreadable())?, u64::try_from(until).map_err(|_| unreadable())?);
        Ok(Some(Lease { on, epoch, owner, until: Timestamp(until) }))
    }

    /// Puts a lease in the place of the one that was seen. `false` when another came first.
    async fn write_lease(&self, seen: Option<Lease>, wanted: Lease) -> Result<bool, Failure> {
        let (statements, key) = (self.node.leases(wanted.on), key_of(wanted.on));
        let new = [big(wanted.epoch).to_be_bytes(), big(wanted.until.0).to_be_bytes()];
        let mut values: Vec<&[u8]> = vec![&wanted.owner, &new[0], &new[1]];
        values.extend(key.iter());
        let done = match &seen {
            None => self.session.execute_unpaged(&statements.first, Raw(&values)).await,
            Some(old) => {
                let seen = [big(old.epoch).to_be_bytes(), big(old.until.0).to_be_bytes()];
                values.extend([&old.owner[..], &seen[0], &seen[1]]);
                self.session.execute_unpaged(&statements.next, Raw(&values)).await
            }
        };
        let failure = match done {
            Ok(result) => return was_applied(result),
            Err(error) => Failure::from(error),
        };
        // Whether it came about is for the row to say.
        match self.read_lease(wanted.on).await {
            Ok(found) => Ok(found == Some(wanted)),
            Err(_) => Err(failure),
        }
    }

    /// Ends a lease now. The row stays, and with it the epoch, which must rise with the next owner.
    pub(super) async fn release(&self, lease: Lease) -> Result<(), Failure> {
        let now = self.clock.now();
        // Nobody's, so that the next to take it is a new owner whoever it is.
        let nobody = [0_u8; ID_BYTES];
        let (until, epoch, key) = (big(now.0).to_be_bytes(), big(lease.epoch).to_be_bytes(), key_of(lease.on));
        let mut values: Vec<&[u8]> = vec![&until, &nobody];
        values.extend(key.iter());
        values.extend([&lease.owner[..], &epoch]);
        let result = self.session.execute_unpaged(&self.node.leases(lease.on).release, Raw(&values)).await?;
        if was_applied(result)?
            && let LeaseOn::Shard(shard) = lease.on
        {
            self.held.forget(shard);
        }
        Ok(())
    }

    pub(super) async fn directory_version(&self) -> Result<u64, Failure> {
        let result = self.session.execute_unpaged(&self.node.version, (PART,)).await?;
        let rows = result.into_rows_result().map_err(|_| unreadable())?;
        let row = rows.maybe_first_row::<(Option<i64>,)>().map_err(|_| unreadable())?;
        version_of(row.and_then(|(version,)| version))
    }

    /// Version and mark of the last change, after whatever is under way.
    async fn settled_version(&self) -> Result<(u64, Option<Vec<u8>>), Failure> {
        let result = self.session.execute_unpaged(&self.node.settled_version, (PART,)).await?;
        let rows = result.into_rows_result().map_err(|_| unreadable())?;
        let row = rows.maybe_first_row::<(Option<i64>, Option<Vec<u8>>)>().map_err(|_| unreadable())?;
        let (version, mark) = row.unwrap_or_default();
        Ok((version_of(version)?, mark))
    }

    /// Every row carries the version, so that pages of two versions are told apart.
    pub(super) async fn directory(&self) -> Result<(u64, DirectoryRows), Failure> {
        for _ in 0..READS {
            if let Some(whole) = self.directory_once().await? {
                return Ok(whole);
            }
        }
        Err(Failure::away("the directory changed with every reading"))
    }

    async fn directory_once(&self) -> Result<Option<(u64, DirectoryRows)>, Failure> {
        let mut rows = DirectoryRows::new();
        let mut seen: Option<u64> = None;
        let mut paging = scylla::response::PagingState::start();
        loop {
            let (result, next) = self.session.execute_single_page(&self.node.rows, (PART,), paging).await?;
            let page = result.into_rows_result().map_err(|_| unreadable())?;
            for row in page.rows::<(Option<i64>, Option<&str>, Option<&[u8]>)>().map_err(|_| unreadable())? {
                let (version, id, value) = row.map_err(|_| unreadable())?;
                let version = version_of(version)?;
                if seen.is_some_and(|seen| seen != version) {
                    return Ok(None);
                }
                seen = Some(version);
                // A partition without rows still shows its version, in a row without a name.
                if let Some(id) = id {
                    rows.push((id.to_owned(), value.unwrap_or_default().to_vec()));
                }
            }
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => return Ok(Some((seen.unwrap_or(0), rows))),
                std::ops::ControlFlow::Continue(next) => paging = next,
            }
        }
    }

    /// One conditional batch of one partition: all of it or nothing.
    pub(super) async fn change_directory(&self, expected: u64, changes: &[(String, Option<Vec<u8>>)]) -> Result<u64, Failure> {
        let mut mark = [0; ID_BYTES];
        crate::seal::fill_random(&mut mark);
        for _ in 0..TRIES {
            let failure = match self.swap_directory(expected, &mark, changes).await {
                Ok(true) => return Ok(expected + 1),
                Ok(false) => return Err(StoreError::Conflict.into()),
                Err(failure) => failure,
            };
            // It was not answered, which also happens when several are at it at once: see what came of it.
            let Ok((version, last)) = self.settled_version().await else { return Err(failure) };
            if version == expected + 1 && last.as_deref() == Some(&mark[..]) {
                return Ok(version);
            }
            if version != expected {
                // Ours may have come about and another after it. Callers look at the newest rows and decide again.
                return Err(StoreError::Conflict.into());
            }
        }
        Err(Failure::away("the directory could not be changed in time"))
    }

    async fn swap_directory(&self, expected: u64, mark: &[u8], changes: &[(String, Option<Vec<u8>>)]) -> Result<bool, Failure> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_execution_profile_handle(Some(self.profiles.swap.clone()));
        batch.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        let numbers = [big(expected + 1).to_be_bytes(), big(expected).to_be_bytes()];
        let part = PART.to_be_bytes();
        let mut values: Vec<Vec<&[u8]>> = Vec::with_capacity(changes.len() + 1);
        if expected == 0 {
            batch.append_statement(self.node.first_version.clone());
            values.push(vec![&numbers[0], mark, &part]);
        } else {
            batch.append_statement(self.node.next_version.clone());
            values.push(vec![&numbers[0], mark, &part, &numbers[1]]);
        }
        for (id, value) in changes {
            match value {
                Some(value) => {
                    batch.append_statement(self.node.put_row.clone());
                    values.push(vec![&part, id.as_bytes(), value]);
                }
                None => {
                    batch.append_statement(self.node.delete_row.clone());
                    values.push(vec![&part, id.as_bytes()]);
                }
            }
        }
        let values: Vec<_> = values.iter().map(|row| Raw(row)).collect();
        was_applied(self.session.batch(&batch, values).await?)
    }
}

/// The cells of a lease's key.
fn key_of(on: LeaseOn) -> Cells {
    match on {
        LeaseOn::Shard(shard) => Cells::of(&[&int(shard)]),
        LeaseOn::Account(account, work) => Cells::of(&[&account.0, &int(work.code())]),
    }
}

fn unreadable() -> Failure {
    Failure::Other(StoreError::Damaged("a row of the leases or the directory could not be read".to_owned()))
}

/// CQL numbers are signed. Times and counts do not come near the end.
fn big(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn version_of(version: Option<i64>) -> Result<u64, Failure> {
    u64::try_from(version.unwrap_or(0)).map_err(|_| unreadable())
}

/// Whether a transaction was done: the first column of its answer. What follows differs between the servers.
pub(super) fn was_applied(result: QueryResult) -> Result<bool, Failure> {
    let rows = result.into_rows_result().map_err(|_| unreadable())?;
    let mut row = rows.maybe_first_row::<ColumnIterator<'_, '_>>().map_err(|_| unreadable())?.ok_or_else(unreadable)?;
    let applied = row.next().ok_or_else(unreadable)?.map_err(|_| unreadable())?;
    Ok(applied.slice.is_some_and(|slice| slice.as_slice() == [1]))
}
