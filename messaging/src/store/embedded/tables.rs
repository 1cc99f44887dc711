//! The engine's files: opening them, their settings, and what its errors mean. Rows come in sorted, by whole tables
//! (`drain.rs`): the engine's own journal and rows in memory are not used.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::expiry::Expiry;
use super::keys::Table;
use super::sweep::{Droppers, Progress, Stopped};
use crate::clock::{SharedClock, Timestamp};
use crate::store::{EmbeddedSettings, StoreError};

/// The version of the rows', keys' and journal's form. Another one is refused, not guessed at.
const FORMAT: u32 = 3;
/// The forms before: the same rows without their times (2), and all of them in the engine (1). They are taken over by the mark and
/// the time of it: what has no time of its own counts from then.
const FORMATS_BEFORE: [u32; 2] = [1, 2];
/// Holds [`FORMAT`]: the first row that is ever written, together with the next.
pub(super) const FORMAT_KEY: &[u8] = b"format";
/// When the folder was made or taken over.
const SINCE_KEY: &[u8] = b"since";
/// Before the number of a table: when it was last looked through for rows that are over.
const SWEPT_KEY: &[u8] = b"swept";

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
    expiry: Arc<Expiry>,
    progress: Arc<Progress>,
}

impl Tables {
    /// Opens the folder, or makes it.
    pub(super) fn open(settings: &EmbeddedSettings, clock: SharedClock) -> Result<Self, StoreError> {
        let now = clock.now();
        let expiry = Arc::new(Expiry::new(&settings.retention, clock));
        let tables = Self::open_engine(settings, expiry).map_err(|error| opening(&settings.dir, &error))?;
        tables.check_format(&settings.dir, now)?;
        let since = tables.time_at(SINCE_KEY).map_err(|error| opening(&settings.dir, &error))?;
        let Some(since) = since else {
            return Err(StoreError::Damaged(format!("{} does not say when it was made; restore it from a backup", settings.dir.display())));
        };
        tables.expiry.begin_at(since);
        Ok(tables)
    }

    fn open_engine(settings: &EmbeddedSettings, expiry: Arc<Expiry>) -> fjall::Result<Self> {
        clear_unfinished_creation(&settings.dir)?;
        let progress = Arc::new(Progress::new());
        let filters = {
            let (expiry, progress) = (expiry.clone(), progress.clone());
            Arc::new(move |name: &str| {
                let table = Table::ALL.into_iter().find(|table| name_of(*table) == name)?;
                Droppers::of(table, &expiry, &progress)
            })
        };
        let db = Database::builder(&settings.dir)
            .cache_size(settings.cache_bytes)
            .max_cached_files(Some(OPEN_FILES_MAX))
            // Values are sealed: they do not compress.
            .journal_compression(CompressionType::None)
            .worker_threads(ENGINE_THREADS)
            .with_compaction_filter_factories(filters)
            .open()?;
        let open = |table| db.keyspace(name_of(table), || options(table));
        Ok(Self {
            conversations: open(Table::Conversations)?,
            messages: open(Table::Messages)?,
            pointers: open(Table::Pointers)?,
            events: open(Table::Events)?,
            shards: open(Table::Shards)?,
            quarantine: open(Table::Quarantine)?,
            node: open(Table::Node)?,
            db,
            expiry,
            progress,
        })
    }

    /// Which rows are over.
    pub(super) fn expiry(&self) -> &Arc<Expiry> {
        &self.expiry
    }

    /// What the sweeping thread is at.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
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

    /// A table's bytes on the disk.
    pub(super) fn bytes(&self, table: Table) -> u64 {
        self.get(table).disk_space()
    }

    /// Whether a row in a table's files is one that is looked for, also one that newer files have another value of. It reads past
    /// the cache.
    pub(super) fn holds_any(&self, table: Table, mut is_it: impl FnMut(&[u8], &[u8]) -> Result<bool, Stopped>) -> Result<bool, StoreError> {
        let unreadable = |error: fjall::LsmError| meaning(&error.into());
        let version = self.get(table).tree.current_version();
        for file in version.iter_tables() {
            for row in file.scan().map_err(unreadable)? {
                let row = row.map_err(unreadable)?;
                if !row.is_tombstone() && is_it(&row.key.user_key, &row.value).map_err(|Stopped| StoreError::Closed)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Merges all files of a table into new ones. The engine's other merges wait meanwhile.
    pub(super) fn rewrite(&self, table: Table) -> fjall::Result<()> {
        let seen_by_nobody = self.db.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
        Ok(self.get(table).tree.major_compact(table_file_bytes(table), seen_by_nobody)?)
    }

    /// When a table was last looked through for rows that are over. What does not read is as good as never.
    pub(super) fn swept_at(&self, table: Table) -> Option<Timestamp> {
        self.time_at(&swept_key(table)).ok().flatten()
    }

    /// Notes that a table was looked through.
    pub(super) fn note_swept(&self, table: Table, now: Timestamp) -> fjall::Result<()> {
        self.node.insert(swept_key(table), now.as_micros().to_be_bytes())
    }

    /// Has the engine delete the files that nobody sees any more. It does so when rows of its own go to a table: of the node's there
    /// are some when [`Self::note_swept`] was called.
    pub(super) fn let_go(&self) -> fjall::Result<()> {
        self.node.rotate_memtable().map(drop)
    }

    fn time_at(&self, key: &[u8]) -> fjall::Result<Option<Timestamp>> {
        let found = self.node.get(key)?;
        Ok(found.and_then(|bytes| <[u8; 8]>::try_from(&*bytes).ok()).map(|bytes| Timestamp(u64::from_be_bytes(bytes))))
    }

    /// Marks a new folder, and refuses one whose mark is another.
    fn check_format(&self, dir: &Path, now: Timestamp) -> Result<(), StoreError> {
        let unreadable = |error: fjall::Error| opening(dir, &error);
        let Some(mark) = self.node.get(FORMAT_KEY).map_err(unreadable)? else {
            // The mark is the first row of all: a folder with rows but no mark is not one of ours, or has lost some.
            if !self.is_empty().map_err(unreadable)? {
                let text = format!("{} holds rows but no format version; restore it from a backup", dir.display());
                return Err(StoreError::Damaged(text));
            }
            return self.mark_format(now).map_err(unreadable);
        };
        if *mark == FORMAT.to_be_bytes() {
            return Ok(());
        }
        if FORMATS_BEFORE.iter().any(|before| *mark == before.to_be_bytes()) {
            return self.mark_format(now).map_err(unreadable);
        }
        let found = <[u8; 4]>::try_from(&*mark).map_or_else(|_| "unreadable".to_owned(), |bytes| u32::from_be_bytes(bytes).to_string());
        Err(StoreError::Damaged(format!(
            "{} has format version {found} and this program reads version {FORMAT}; run the program that wrote it, or restore a backup",
            dir.display()
        )))
    }

    fn mark_format(&self, now: Timestamp) -> fjall::Result<()> {
        let mut batch = self.db.batch();
        batch.insert(&self.node, SINCE_KEY, now.as_micros().to_be_bytes());
        batch.insert(&self.node, FORMAT_KEY, FORMAT.to_be_bytes());
        batch.commit()?;
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
        Self::overwrite(settings, Table::Node, FORMAT_KEY, mark);
    }

    /// Puts a row into a folder that nobody has open, in the way of draining.
    #[cfg(test)]
    pub(super) fn overwrite(settings: &EmbeddedSettings, table: Table, key: &[u8], value: &[u8]) {
        let clock = crate::clock::ManualClock::at(Timestamp::ZERO);
        let tables = Self::open_engine(settings, Arc::new(Expiry::new(&settings.retention, clock))).expect("opens");
        let mut filling = tables.get(table).start_ingestion().expect("begins");
        filling.write(key, value).expect("is written");
        filling.finish().expect("is written");
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

/// The engine's name of a table. Never changes.
fn name_of(table: Table) -> &'static str {
    match table {
        Table::Conversations => "c",
        Table::Messages => "m",
        Table::Pointers => "p",
        Table::Events => "e",
        Table::Shards => "s",
        Table::Quarantine => "q",
        Table::Node => "n",
    }
}

fn swept_key(table: Table) -> Vec<u8> {
    [SWEPT_KEY, &[table as u8]].concat()
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
