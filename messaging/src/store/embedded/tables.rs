//! The engine's files: opening them, their settings, and what its errors mean.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::keys::Table;
use crate::store::{EmbeddedSettings, StoreError};

/// The version of the rows' and keys' form. Another one is refused, not guessed at.
const FORMAT: u32 = 1;
/// Holds [`FORMAT`]: the first row that is ever written.
const FORMAT_KEY: &[u8] = b"format";

const MIB: u64 = 1024 * 1024;
/// Threads of the engine that write tables and merge them. With two, the first spins while the other merges, which doubled the
/// CPU per event.
const ENGINE_THREADS: usize = 1;
/// Once the engine's journals are this long, tables that write little are written out so that old journals can go.
const JOURNALS_MAX_BYTES: u64 = 128 * MIB;
/// As for `memtable_bytes`, of the node's own table.
const NODE_MEMTABLE_BYTES: u64 = MIB;
/// Bytes of a table's file; the first sorted level has four. Matches the memtables: a merge should not rewrite ten times what
/// it adds.
const TABLE_FILE_BYTES: u64 = 16 * MIB;
/// One lookup in about 120 looks into a table in vain.
const FILTER_BITS_PER_KEY: f32 = 10.0;
/// Most table files held open.
const OPEN_FILES_MAX: usize = 256;

/// The open engine. Clones share it; the files are let go of with the last.
#[derive(Clone)]
pub(super) struct Tables {
    pub(super) db: Database,
    conversations: Keyspace,
    messages: Keyspace,
    pointers: Keyspace,
    events: Keyspace,
    shards: Keyspace,
    quarantine: Keyspace,
    /// Of the node, not of tenants: format, directory, leases.
    pub(super) node: Keyspace,
    /// What readers see: the rows as they were between two batches.
    view: Arc<ArcSwap<Snapshot>>,
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
            .max_journaling_size(JOURNALS_MAX_BYTES)
            // Values are sealed: they do not compress.
            .journal_compression(CompressionType::None)
            .worker_threads(ENGINE_THREADS)
            .open()?;
        Self::with_keyspaces(db)
    }

    fn with_keyspaces(db: Database) -> fjall::Result<Self> {
        // The names are short because the engine hashes them with every row.
        Ok(Self {
            conversations: db.keyspace("c", || options(Table::Conversations))?,
            messages: db.keyspace("m", || options(Table::Messages))?,
            pointers: db.keyspace("p", || options(Table::Pointers))?,
            events: db.keyspace("e", || options(Table::Events))?,
            shards: db.keyspace("s", || options(Table::Shards))?,
            quarantine: db.keyspace("q", || options(Table::Quarantine))?,
            node: db.keyspace("n", plain_options)?,
            view: Arc::new(ArcSwap::from_pointee(db.snapshot())),
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
        }
    }

    /// The rows as they were when the last batch was in. Never half a batch.
    pub(super) fn view(&self) -> Arc<Snapshot> {
        self.view.load_full()
    }

    /// Shows readers what was written. By the writer, between batches.
    ///
    /// Readers do not take snapshots themselves: when the engine finishes writing or merging a table while a batch is under
    /// way, it moves its mark of what is visible past that batch, and a snapshot taken then sees the half that is in
    /// (`upgrade_version_with_seqno` of lsm-tree 3.1.10).
    pub(super) fn show(&self) {
        self.view.store(Arc::new(self.db.snapshot()));
    }

    /// Has every table that has grown enough in memory written to disk, soon, by the engine's thread.
    ///
    /// The engine can ask for that itself, but it asks again with every commit until it is done, through a queue that its
    /// thread also sends to: when a long merge lets the queue fill up, that thread waits for itself for ever, and memory and
    /// journals grow without end (seen with fjall 3.1.13 after some 500,000 events).
    pub(super) fn rotate_grown(&self) -> fjall::Result<()> {
        for table in Table::ALL {
            let keyspace = self.get(table);
            if keyspace.tree.active_memtable().size() >= memtable_bytes(table) {
                keyspace.rotate_memtable()?;
            }
        }
        if self.node.tree.active_memtable().size() >= NODE_MEMTABLE_BYTES {
            self.node.rotate_memtable()?;
        }
        Ok(())
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
        snapshot.is_empty(&self.node)
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

/// Bytes of a table in memory at which it is written to disk; up to four such wait there when the disk is slow.
///
/// Larger ones are merged less often but searched more slowly; between 4 and 32 MiB the CPU per event was the same within
/// the measurement's noise, so memory decides.
fn memtable_bytes(table: Table) -> u64 {
    match table {
        Table::Messages => 8 * MIB,
        Table::Conversations | Table::Pointers | Table::Events | Table::Shards => 4 * MIB,
        Table::Quarantine => MIB,
    }
}

fn plain_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        // Never by the engine: see `Tables::rotate_grown`.
        .max_memtable_size(u64::MAX)
        .data_block_compression_policy(CompressionPolicy::disabled())
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE_FILE_BYTES)))
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS_PER_KEY))))
}

/// The settings of a table, by measurement (`measure.rs`). They are fixed when the folder is made.
fn options(table: Table) -> KeyspaceCreateOptions {
    match table {
        // Nearly always there when looked up: the last level needs no filters.
        Table::Messages | Table::Events | Table::Shards => plain_options().expect_point_read_hits(true),
        Table::Conversations | Table::Pointers | Table::Quarantine => plain_options(),
    }
}

/// What an engine's error means to the callers of the store.
pub(super) fn meaning(error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) => StoreError::Unavailable(format!("disk i/o: {error}")),
        fjall::Error::Storage(fjall::LsmError::Io(error)) => StoreError::Unavailable(format!("disk i/o: {error}")),
        fjall::Error::Poisoned => {
            StoreError::Unavailable("an earlier write failed, nothing more is written: check the disk and restart".to_owned())
        }
        fjall::Error::Locked => StoreError::Unavailable("the folder is in use by another process".to_owned()),
        other => StoreError::Damaged(other.to_string()),
    }
}

fn opening(dir: &Path, error: &fjall::Error) -> StoreError {
    let dir = dir.display();
    match meaning(error) {
        StoreError::Unavailable(text) => StoreError::Unavailable(format!("{dir}: {text}")),
        StoreError::Damaged(text) => StoreError::Damaged(format!("{dir}: {text}")),
        other @ (StoreError::Full | StoreError::Conflict | StoreError::Unheld | StoreError::Closed) => other,
    }
}
