//! Keeps the directory's snapshot true: loads it from the store, looks for a new version once a second, and changes it by
//! compare-and-swap, so that two administrators never overwrite each other.
//!
//! The snapshot goes forward only: what was read before a change and comes after it is thrown away. What changes is decoded and opened,
//! nothing else: a change of our own is known without reading, one of another process by comparing the rows' bytes.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::directory::{Directory, DirectoryRow, RowChange, Shards, SharedDirectory};
use crate::seal::Keyring;
use crate::store::{DirectoryRows, Store, StoreError};

/// How often a change is tried again when another came first.
const CHANGE_TRIES: usize = 8;
/// How long whoever changes the directory waits for those who do it at the same moment in this process.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// A change of one row.
#[derive(Debug, Clone)]
pub enum Change {
    /// Puts a row, new or in the place of the old.
    Put(Box<DirectoryRow>),
    /// Takes the row of this id away.
    Delete(String),
}

impl Change {
    /// Puts a row.
    pub fn put(row: DirectoryRow) -> Self {
        Self::Put(Box::new(row))
    }
}

/// A change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<E> {
    /// The caller's edit refused.
    #[error("refused")]
    Refused(E),
    /// The store did.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps one process's snapshot.
#[derive(Clone)]
pub struct DirectoryKeeper {
    store: Arc<dyn Store>,
    keyring: Keyring,
    shared: SharedDirectory,
    /// The rows that the snapshot was made of. Whoever moves the snapshot holds this.
    known: Arc<Mutex<Known>>,
    /// Changes of this process go one after the other, in the order in which they came.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Where the rows are kept for a start without the store; secrets in them are sealed.
    copy: Option<Arc<CopyFile>>,
}

/// The rows of a snapshot, by id, as they are stored.
#[derive(Default)]
struct Known {
    rows: Shards<Arc<str>, Arc<[u8]>>,
    /// Whether they come from the store. A copy's version binds nobody: the store may have been put back to an older state since.
    is_stored: bool,
}

struct CopyFile {
    path: PathBuf,
    /// Which version is on disk, when this process wrote it. Whoever writes holds this.
    written: tokio::sync::Mutex<Option<u64>>,
}

/// What the copy on disk holds.
type Copy = (u64, DirectoryRows);

/// Rows and what they are now; none: gone.
type Changed = Vec<(String, Option<Vec<u8>>)>;

impl DirectoryKeeper {
    /// Over a store. The snapshot is empty until the first `refresh`.
    pub fn new(store: Arc<dyn Store>, keyring: Keyring) -> Self {
        Self { store, keyring, shared: SharedDirectory::default(), known: Arc::default(), turn: Arc::default(), copy: None }
    }

    /// Keeps a copy of the snapshot in a file, for a start while the store is away.
    pub fn with_copy(self, file: PathBuf) -> Self {
        Self { copy: Some(Arc::new(CopyFile { path: file, written: tokio::sync::Mutex::new(None) })), ..self }
    }

    /// Takes the snapshot from the copy on disk. Says whether there was one.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn load_copy(&self) -> std::io::Result<bool> {
        let Some(file) = self.copy.as_ref().map(|copy| &copy.path) else { return Ok(false) };
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok((version, rows)) = postcard::from_bytes::<Copy>(&bytes) else {
            tracing::error!(file = %file.display(), "the copy of the directory is damaged or of another version, left out");
            return Ok(false);
        };
        let mut known = self.known();
        if !known.is_stored {
            self.take_all(&mut known, version, rows);
        }
        Ok(true)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the copy, whole or not at all, when the snapshot is newer than it. Of a look only, not of a change: it is as long as the
    /// directory.
    async fn write_copy(&self) {
        let Some(copy) = &self.copy else { return };
        // Somebody is at it already.
        let Ok(mut written) = copy.written.try_lock() else { return };
        let (version, rows, is_stored) = {
            let known = self.known();
            (self.shared.load().version, known.rows.clone(), known.is_stored)
        };
        if !is_stored || *written == Some(version) {
            return;
        }
        let file = copy.path.clone();
        let done = tokio::task::spawn_blocking(move || {
            let rows: DirectoryRows = rows.iter().map(|(id, bytes)| (id.to_string(), bytes.to_vec())).collect();
            let bytes = postcard::to_stdvec::<Copy>(&(version, rows)).expect("our own types serialise");
            let fresh = file.with_extension("new");
            std::fs::write(&fresh, bytes)?;
            std::fs::File::open(&fresh)?.sync_all()?;
            std::fs::rename(&fresh, &file)
        });
        match done.await {
            Ok(Ok(())) => *written = Some(version),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the copy of the directory is not written: a start without the store shows an older one")
            }
            Err(_) => tracing::error!("writing the copy of the directory panicked"),
        }
    }

    /// The snapshot that this keeper keeps.
    pub fn shared(&self) -> &SharedDirectory {
        &self.shared
    }

    /// Loads the directory when its version moved. Says whether it did.
    pub async fn refresh(&self) -> Result<bool, StoreError> {
        let moved = self.look().await?;
        self.write_copy().await;
        Ok(moved)
    }

    async fn look(&self) -> Result<bool, StoreError> {
        let version = self.store.directory_version().await?;
        if version == self.shared.load().version && self.known().is_stored {
            return Ok(false);
        }
        let (version, rows) = self.store.directory().await?;
        // Comparing all rows takes a while where there are many.
        let keeper = self.clone();
        Ok(beside(move || keeper.take(version, rows)).await)
    }

    /// Takes the whole directory as it was read, unless something newer is known. Says whether the snapshot moved.
    fn take(&self, version: u64, rows: DirectoryRows) -> bool {
        let mut known = self.known();
        let seen = self.shared.load().version;
        if known.is_stored && version <= seen {
            if version < seen {
                tracing::debug!(version, seen, "an older directory came after a newer one, left out");
            }
            return false;
        }
        self.take_all(&mut known, version, rows);
        known.is_stored = true;
        true
    }

    fn take_all(&self, known: &mut Known, version: u64, rows: DirectoryRows) {
        let here: HashSet<&str> = rows.iter().map(|(id, _)| id.as_str()).collect();
        let gone = known.rows.iter().filter(|(id, _)| !here.contains(&***id)).map(|(id, _)| (id.to_string(), None));
        let mut changed: Changed = gone.collect();
        drop(here);
        let is_new = |(id, bytes): &(String, Vec<u8>)| known.rows.get(id.as_str()).is_none_or(|old| **old != **bytes);
        changed.extend(rows.into_iter().filter(is_new).map(|(id, bytes)| (id, Some(bytes))));
        self.apply(known, version, changed);
    }

    /// Takes a change that this process made of the snapshot `seen`, and gives a snapshot that shows it.
    fn take_own(&self, seen: u64, version: u64, changed: Changed) -> Arc<Directory> {
        let mut known = self.known();
        if known.is_stored && self.shared.load().version == seen {
            self.apply(&mut known, version, changed);
        }
        // Else what is here was read after the change.
        self.shared.load_full()
    }

    /// Moves the snapshot: the only place that does.
    fn apply(&self, known: &mut Known, version: u64, changed: Changed) {
        let mut changes = Vec::with_capacity(changed.len());
        for (id, bytes) in changed {
            let before = match &bytes {
                Some(bytes) => known.rows.insert(id.as_str().into(), bytes.as_slice().into()),
                None => known.rows.remove(id.as_str()),
            };
            let new = bytes.and_then(|bytes| decode(&id, &bytes));
            // What did not decode was told when it came.
            changes.push(RowChange { old: before.and_then(|before| postcard::from_bytes(&before).ok()), new });
        }
        let seen = self.shared.load_full();
        let (next, broken) = if seen.needs_building(&changes) {
            let rows = known.rows.iter().filter_map(|(id, bytes)| decode(id, bytes)).collect();
            Directory::build(version, rows, &self.keyring)
        } else {
            seen.changed(version, changes, &self.keyring)
        };
        for id in broken {
            tracing::error!(id, "directory row does not open, left out");
        }
        self.shared.swap(Arc::new(next));
    }

    /// Makes a change: `edit` sees the newest snapshot and says which rows change; it is asked again when another process's change came
    /// first. The snapshot that is given shows it, and so does this process's.
    pub async fn change<E>(&self, mut edit: impl FnMut(&Directory) -> Result<Vec<Change>, E>) -> Result<Arc<Directory>, ChangeError<E>> {
        let turn = tokio::time::timeout(TURN_WAIT, self.turn.lock()).await;
        let _turn = turn.map_err(|_| StoreError::Unavailable("many change the directory at the same time".to_owned()))?;
        for _ in 0..CHANGE_TRIES {
            self.look().await?;
            let seen = self.shared.load_full();
            let changes = edit(&seen).map_err(ChangeError::Refused)?;
            let rows: Changed = changes.into_iter().map(encode).collect();
            match self.store.change_directory(seen.version, rows.clone()).await {
                Ok(version) => {
                    let (keeper, before) = (self.clone(), seen.version);
                    return Ok(beside(move || keeper.take_own(before, version, rows)).await);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

/// Works on a thread that serves nobody.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn decode(id: &str, bytes: &[u8]) -> Option<DirectoryRow> {
    let row = postcard::from_bytes::<DirectoryRow>(bytes);
    if row.is_err() {
        tracing::error!(id, "directory row of another version or damaged, left out");
    }
    row.ok()
}

fn encode(change: Change) -> (String, Option<Vec<u8>>) {
    match change {
        Change::Put(row) => (row.id(), Some(postcard::to_stdvec(&*row).expect("our own types serialise"))),
        Change::Delete(id) => (id, None),
    }
}

#[cfg(test)]
mod tests;
