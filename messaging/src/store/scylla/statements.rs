//! The statements, prepared once per process.

use std::sync::OnceLock;

use futures_util::future::try_join_all;
use scylla::client::session::Session;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;

use super::connect::Profiles;
use super::failure::Failure;
use super::keys::{Cells, Table};

/// Rows of a page of small rows.
const PAGE: i32 = 500;
/// Rows of a page where each may be a megabyte.
const PAGE_OF_LARGE: i32 = 16;

/// A row to write or delete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) table: Table,
    pub(super) cells: Cells,
    /// None for a deletion.
    pub(super) put: Option<Put<'a>>,
    /// Write time.
    pub(super) stamp: i64,
    /// Its partition's replicas: equal for equal sets.
    pub(super) replicas: u64,
}

/// What a put writes beside the key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Put<'a> {
    /// Empty in an index.
    pub(super) value: &'a [u8],
    /// Seconds until it expires; zero for never.
    pub(super) ttl: i32,
}

impl Row<'_> {
    pub(super) fn is_put(&self) -> bool {
        self.put.is_some()
    }

    /// The bytes that tell its partition from others of its table.
    pub(super) fn partition(&self) -> &[u8] {
        self.cells.first(self.table.partition_columns())
    }
}

/// The values of [`Statements::put`] and [`Statements::delete`], in the order of their markers.
impl SerializeRow for Row<'_> {
    fn serialize(&self, _: &RowSerializationContext<'_>, writer: &mut RowWriter) -> Result<(), SerializationError> {
        let Some(put) = self.put else {
            set(writer, &self.stamp.to_be_bytes())?;
            return self.cells.iter().try_for_each(|cell| set(writer, cell));
        };
        self.cells.iter().try_for_each(|cell| set(writer, cell))?;
        if self.table.has_value() {
            set(writer, put.value)?;
        }
        set(writer, &self.stamp.to_be_bytes())?;
        set(writer, &put.ttl.to_be_bytes())
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Values as the bytes that go over the wire.
pub(super) struct Raw<'a>(pub(super) &'a [&'a [u8]]);

impl SerializeRow for Raw<'_> {
    fn serialize(&self, _: &RowSerializationContext<'_>, writer: &mut RowWriter) -> Result<(), SerializationError> {
        self.0.iter().try_for_each(|value| set(writer, value))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn set(writer: &mut RowWriter, value: &[u8]) -> Result<(), SerializationError> {
    writer.make_cell_writer().set_value(value).map(drop).map_err(SerializationError::new)
}

/// A CQL list, as bytes.
pub(super) fn list<'a>(items: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let length = |n: usize| i32::try_from(n).expect("lists of keys are short").to_be_bytes();
    let mut bytes = length(items.len()).to_vec();
    for item in items {
        bytes.extend_from_slice(&length(item.len()));
        bytes.extend_from_slice(item);
    }
    bytes
}

/// All statements.
pub(super) struct Statements {
    put: Vec<PreparedStatement>,
    delete: Vec<PreparedStatement>,
    get: Vec<Option<PreparedStatement>>,
    get_many: Vec<Option<PreparedStatement>>,
    /// Of n times the same statement, by table, kind and n: made at first use.
    batches: Vec<OnceLock<Batch>>,
    batch_rows: usize,
    pub(super) scans: Scans,
}

/// Statements that read ranges. The last marker is the limit.
pub(super) struct Scans {
    pub(super) months: PreparedStatement,
    pub(super) messages: PreparedStatement,
    pub(super) event_buckets: PreparedStatement,
    pub(super) events: PreparedStatement,
    pub(super) queue_buckets: PreparedStatement,
    pub(super) later_buckets: PreparedStatement,
    pub(super) later: PreparedStatement,
    pub(super) intents: PreparedStatement,
    pub(super) quarantine: PreparedStatement,
    pub(super) quarantine_ids: PreparedStatement,
}

struct Preparer<'a> {
    session: &'a Session,
    keyspace: &'a str,
    profiles: &'a Profiles,
}

impl Preparer<'_> {
    async fn write(&self, text: String) -> Result<PreparedStatement, Failure> {
        let mut statement = self.session.prepare(text).await?;
        statement.set_is_idempotent(true);
        statement.set_execution_profile_handle(Some(self.profiles.write.clone()));
        Ok(statement)
    }

    async fn read(&self, text: String, page: i32) -> Result<PreparedStatement, Failure> {
        let mut statement = self.session.prepare(Statement::new(text).with_page_size(page)).await?;
        statement.set_is_idempotent(true);
        // Columns are named in every statement, so what was told when it was prepared stays true.
        statement.set_use_cached_result_metadata(true);
        statement.set_execution_profile_handle(Some(self.profiles.read.clone()));
        Ok(statement)
    }

    async fn put(&self, table: Table) -> Result<PreparedStatement, Failure> {
        let mut columns = table.columns().to_vec();
        columns.extend(table.has_value().then_some("v"));
        let marks = vec!["?"; columns.len()].join(", ");
        let text = "USING TIMESTAMP ? AND TTL ?";
        self.write(format!("INSERT INTO {}.{} ({}) VALUES ({marks}) {text}", self.keyspace, table.name(), columns.join(", "))).await
    }

    async fn delete(&self, table: Table) -> Result<PreparedStatement, Failure> {
        let key: Vec<String> = table.columns().iter().map(|column| format!("{column} = ?")).collect();
        self.write(format!("DELETE FROM {}.{} USING TIMESTAMP ? WHERE {}", self.keyspace, table.name(), key.join(" AND "))).await
    }

    async fn get(&self, table: Table) -> Result<Option<PreparedStatement>, Failure> {
        if !table.has_value() {
            return Ok(None);
        }
        let key: Vec<String> = table.columns().iter().map(|column| format!("{column} = ?")).collect();
        let text = format!("SELECT v FROM {}.{} WHERE {}", self.keyspace, table.name(), key.join(" AND "));
        Ok(Some(self.read(text, PAGE).await?))
    }

    /// Reads by several values of the last column. The rows' last columns come back with their values.
    async fn get_many(&self, table: Table) -> Result<Option<PreparedStatement>, Failure> {
        let [first @ .., last] = table.columns() else { return Ok(None) };
        if !table.has_value() || first.is_empty() {
            return Ok(None);
        }
        let key: Vec<String> = first.iter().map(|column| format!("{column} = ?")).collect();
        let text = format!("SELECT {last}, v FROM {}.{} WHERE {} AND {last} IN ?", self.keyspace, table.name(), key.join(" AND "));
        Ok(Some(self.read(text, PAGE).await?))
    }

    async fn scan(&self, columns: &str, table: Table, range: &str, page: i32) -> Result<PreparedStatement, Failure> {
        self.read(format!("SELECT {columns} FROM {}.{} WHERE {range} LIMIT ?", self.keyspace, table.name()), page).await
    }

    async fn scans(&self) -> Result<Scans, Failure> {
        let events = "tenant = ? AND shard = ? AND bucket = ? AND pos > ?";
        let messages = "tenant = ? AND conversation = ? AND month = ? AND at < ?";
        let (months, messages, event_buckets, events, queue_buckets, later_buckets, later, intents, quarantine, quarantine_ids) = tokio::try_join!(
            self.scan("month", Table::MessageMonths, "tenant = ? AND conversation = ? AND month <= ?", PAGE),
            self.scan("at, id, v", Table::Messages, messages, PAGE),
            self.scan("bucket", Table::EventBuckets, "tenant = ? AND shard = ? AND bucket > ?", PAGE),
            self.scan("pos, v", Table::Events, events, PAGE),
            self.scan("bucket", Table::LaterBuckets, "shard = ? AND queue = ? AND bucket >= ?", PAGE),
            self.scan("queue, bucket", Table::LaterBuckets, "shard = ?", PAGE),
            self.scan("pos, v", Table::Later, "shard = ? AND queue = ? AND bucket = ? AND pos >= ?", PAGE),
            self.scan("tenant, id, v", Table::Intents, "shard = ? AND slot = ?", PAGE),
            self.scan("id, v", Table::Quarantine, "tenant = ? AND slot = ? AND id > ?", PAGE_OF_LARGE),
            self.scan("id, tenant", Table::QuarantineIds, "slot = ? AND id > ?", PAGE),
        )?;
        Ok(Scans { months, messages, event_buckets, events, queue_buckets, later_buckets, later, intents, quarantine, quarantine_ids })
    }
}

impl Statements {
    pub(super) async fn prepare(session: &Session, keyspace: &str, profiles: &Profiles, batch_rows: usize) -> Result<Self, Failure> {
        let preparer = Preparer { session, keyspace, profiles };
        let put = try_join_all(Table::ALL.map(|table| preparer.put(table))).await?;
        let delete = try_join_all(Table::ALL.map(|table| preparer.delete(table))).await?;
        let get = try_join_all(Table::ALL.map(|table| preparer.get(table))).await?;
        let get_many = try_join_all(Table::ALL.map(|table| preparer.get_many(table))).await?;
        let scans = preparer.scans().await?;
        let mut batches = Vec::new();
        batches.resize_with(Table::ALL.len() * 2 * batch_rows, OnceLock::new);
        Ok(Self { put, delete, get, get_many, batches, batch_rows, scans })
    }

    /// A batch of so many puts or deletions in a table; at least one, at most `batch_rows`.
    pub(super) fn batch(&self, table: Table, puts: bool, rows: usize) -> &Batch {
        let at = (table.index() * 2 + usize::from(puts)) * self.batch_rows + rows - 1;
        self.batches[at].get_or_init(|| {
            let statement = if puts { &self.put[table.index()] } else { &self.delete[table.index()] };
            let mut batch = Batch::new(BatchType::Unlogged);
            for _ in 0..rows {
                batch.append_statement(statement.clone());
            }
            batch.set_is_idempotent(true);
            batch
        })
    }

    /// Reads the value of one row. Of tables with values.
    pub(super) fn get(&self, table: Table) -> &PreparedStatement {
        self.get[table.index()].as_ref().expect("rows of keys have values")
    }

    /// Reads last column and value of several rows; none where keys have one column.
    pub(super) fn get_many(&self, table: Table) -> Option<&PreparedStatement> {
        self.get_many[table.index()].as_ref()
    }
}
