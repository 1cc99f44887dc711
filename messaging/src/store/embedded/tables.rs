//! The engine's files: opening them, their settings, and what its errors mean. Rows come in sorted, by whole tables
//! (`drain.rs`): the engine's own journal and rows in memory are not used.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::keys::Table;
use crate::store::{EmbeddedSettings, StoreError};

/// The version of the rows', keys' and journal's form. Another one is refused, not guessed at.
const FORMAT: u32 = 2;
/// The form before: the same rows, all of them in the engine. It is taken over by the mark alone.
const FORMAT_BEFORE: u32 = 1;
/// Holds [`FORMAT`]: the first row that is ever written.
pub(super) const FORMAT_KEY: &[u8] = b"format";

const MIB: u64 = 1024 * 1024;
/// Threads of the engine that merge. With two, the first spins while the other merges, which doubled the CPU per event.
const ENGINE_THREADS: usize = 1;
/// Drained files of a table that wait until they are merged together. The engine's own 4 cost twice as much merging per event; a
/// lookup asks each file's filter, which is cheap.
const UNMERGED: u8 = 12;
/// One lookup in about 120 looks into a table in vain.
const FILTER_BITS_PER_KEY: f32 = 10.0;
/// Most table files held open.
const OPEN_FILES_MAX: usize = 256;

/// The open engine. Clones share it; the files are let go of with the last.
#[derive(Clone)]
pub(super) struct Tables {
    db: Database,
    conversations: Keyspace,
    messages: Keyspace,
    pointers: Keyspace,
    events: Keyspace,
    shards: Keyspace,
    quarantine: Keyspace,
    node: Keyspace,
}

impl Tables {
    /// Opens the folder, or makes it.
    pub(super) fn open(settings: &EmbeddedSettings) -> Result<Self, StoreError> {
        let tables = Self::open_engine(settings).map_err(|error| opening(&settings.dir, &error))?;
        tables.check_format(&settings.dir)?;
        Ok(tables)
    }

    fn open_engine(settings: &EmbeddedSettings) -> fjall::Result<Self> {
        clear_unfinished_creation(&settings.dir)?;
        let db = Database::builder(&settings.dir)
            .cache_size(settings.cache_bytes)
            .max_cached_files(Some(OPEN_FILES_MAX))
            // Values are sealed: they do not compress.
            .journal_compression(CompressionType::None)
            .worker_threads(ENGINE_THREADS)
            .open()?;
        Self::with_keyspaces(db)
    }

    fn with_keyspaces(db: Database) -> fjall::Result<Self> {
        let open = |name, table| db.keyspace(name, || options(table));
        Ok(Self {
            conversations: open("c", Table::Conversations)?,
            messages: open("m", Table::Messages)?,
            pointers: open("p", Table::Pointers)?,
            events: open("e", Table::Events)?,
            shards: open("s", Table::Shards)?,
            quarantine: open("q", Table::Quarantine)?,
            node: open("n", Table::Node)?,
            db,
        })
    }

    pub(super) fn get(&self, table: Table) -> &Keyspace {
        match table {
            Table::Conversations => &self.conversations,
            Table::Messages => &self.messages,
            Table::Pointers => &self.pointers,
            Table::Events => &self.events,
            Table::Shards => &self.shards,
            Table::Quarantine => &self.quarantine,
            Table::Node => &self.node,
        }
    }

    /// The tables as they are now.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }

    /// Files of a table that overlap and wait to be merged.
    pub(super) fn unmerged(&self, table: Table) -> usize {
        self.get(table).tree.l0_run_count()
    }

    /// Marks a new folder, and refuses one whose mark is another.
    fn check_format(&self, dir: &Path) -> Result<(), StoreError> {
        let unreadable = |error: fjall::Error| opening(dir, &error);
        let Some(mark) = self.node.get(FORMAT_KEY).map_err(unreadable)? else {
            // The mark is the first row of all: a folder with rows but no mark is not one of ours, or has lost some.
            if !self.is_empty().map_err(unreadable)? {
                let text = format!("{} holds rows but no format version; restore it from a backup", dir.display());
                return Err(StoreError::Damaged(text));
            }
            return self.mark_format().map_err(unreadable);
        };
        if *mark == FORMAT.to_be_bytes() {
            return Ok(());
        }
        if *mark == FORMAT_BEFORE.to_be_bytes() {
            return self.mark_format().map_err(unreadable);
        }
        let found = <[u8; 4]>::try_from(&*mark).map_or_else(|_| "unreadable".to_owned(), |bytes| u32::from_be_bytes(bytes).to_string());
        Err(StoreError::Damaged(format!(
            "{} has format version {found} and this program reads version {FORMAT}; run the program that wrote it, or restore a backup",
            dir.display()
        )))
    }

    fn mark_format(&self) -> fjall::Result<()> {
        self.node.insert(FORMAT_KEY, FORMAT.to_be_bytes())?;
        self.db.persist(PersistMode::SyncAll)
    }

    fn is_empty(&self) -> fjall::Result<bool> {
        let snapshot = self.db.snapshot();
        for table in Table::ALL {
            if !snapshot.is_empty(self.get(table))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts another mark into a folder that nobody has open.
    #[cfg(test)]
    pub(super) fn overwrite_format(settings: &EmbeddedSettings, mark: &[u8]) {
        let tables = Self::open_engine(settings).expect("opens");
        tables.node.insert(FORMAT_KEY, mark).expect("is written");
    }
}

/// Removes what the engine left when the process died while it made the folder: it refuses to go on from there.
///
/// Its version mark comes before the first table's folder, so without both there was never a row.
fn clear_unfinished_creation(dir: &Path) -> std::io::Result<()> {
    let journal = dir.join("0.jnl");
    if !journal.try_exists()? {
        return Ok(());
    }
    // Another process may be making it right now; then opening says so.
    let lock = std::fs::File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
    if lock.try_lock().is_err() || dir.join("version").try_exists()? {
        return Ok(());
    }
    let tables = dir.join("keyspaces");
    if tables.try_exists()? && std::fs::read_dir(tables)?.next().is_some() {
        return Ok(());
    }
    std::fs::remove_file(journal)
}

/// The settings of a table, by measurement (`measure.rs`). They are fixed when the folder is made.
fn options(table: Table) -> KeyspaceCreateOptions {
    let merging = Leveled::default().with_table_target_size(table_file_bytes(table)).with_l0_threshold(UNMERGED);
    KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::disabled())
        .compaction_strategy(Arc::new(merging))
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS_PER_KEY))))
}

/// Bytes of a table's file; the first sorted level has [`UNMERGED`] such: about as much as is merged into it at once, so that a merge
/// rewrites about what it adds. Messages are two thirds of all bytes.
fn table_file_bytes(table: Table) -> u64 {
    match table {
        Table::Messages => 16 * MIB,
        Table::Conversations | Table::Pointers | Table::Events | Table::Shards | Table::Quarantine | Table::Node => 4 * MIB,
    }
}

/// What an engine's error means to the callers of the store.
pub(super) fn meaning(error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) => StoreError::Unavailable(format!("disk i/o: {error}")),
        fjall::Error::Storage(fjall::LsmError::Io(error)) => StoreError::Unavailable(format!("disk i/o: {error}")),
        fjall::Error::Poisoned => poisoned(),
        fjall::Error::Locked => StoreError::Unavailable("the folder is in use by another process".to_owned()),
        other => StoreError::Damaged(other.to_string()),
    }
}

/// An earlier write failed: what the kernel could not write it may have dropped.
pub(super) fn poisoned() -> StoreError {
    StoreError::Unavailable("an earlier write failed, nothing more is written: check the disk and restart".to_owned())
}

/// What the store could not do with its folder when it opened.
pub(super) fn opening(dir: &Path, error: &fjall::Error) -> StoreError {
    let dir = dir.display();
    match meaning(error) {
        StoreError::Unavailable(text) => StoreError::Unavailable(format!("{dir}: {text}")),
        StoreError::Damaged(text) => StoreError::Damaged(format!("{dir}: {text}")),
        other @ (StoreError::Full | StoreError::Conflict | StoreError::Unheld | StoreError::Closed) => other,
    }
}
