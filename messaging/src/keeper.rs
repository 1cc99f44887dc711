//! Keeps the directory's snapshot true: loads it from the store, looks for a new version once a second, and changes it by
//! compare-and-swap, so that two administrators never overwrite each other.

use std::path::PathBuf;
use std::sync::Arc;

use crate::directory::{Directory, DirectoryRow, SharedDirectory};
use crate::seal::Keyring;
use crate::store::{DirectoryRows, Store, StoreError};

/// How often a change is tried again when another came first.
const CHANGE_TRIES: usize = 8;

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
    /// Where the rows are kept for a start without the store; secrets in them are sealed.
    copy: Option<Arc<PathBuf>>,
}

/// What the copy on disk holds.
type Copy = (u64, DirectoryRows);

impl DirectoryKeeper {
    /// Over a store. The snapshot is empty until the first `refresh`.
    pub fn new(store: Arc<dyn Store>, keyring: Keyring) -> Self {
        Self { store, keyring, shared: SharedDirectory::default(), copy: None }
    }

    /// Keeps a copy of every snapshot in a file, for a start while the store is away.
    pub fn with_copy(self, file: PathBuf) -> Self {
        Self { copy: Some(Arc::new(file)), ..self }
    }

    /// Takes the snapshot from the copy on disk. Says whether there was one.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn load_copy(&self) -> std::io::Result<bool> {
        let Some(file) = &self.copy else { return Ok(false) };
        let bytes = match std::fs::read(&**file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok((version, rows)) = postcard::from_bytes::<Copy>(&bytes) else {
            tracing::error!(file = %file.display(), "the copy of the directory is damaged or of another version, left out");
            return Ok(false);
        };
        self.take(version, &rows);
        Ok(true)
    }

    /// Writes the copy, whole or not at all.
    async fn write_copy(&self, version: u64, rows: DirectoryRows) {
        let Some(file) = self.copy.clone() else { return };
        let written = tokio::task::spawn_blocking(move || {
            let bytes = postcard::to_stdvec::<Copy>(&(version, rows)).expect("our own types serialise");
            let fresh = file.with_extension("new");
            std::fs::write(&fresh, bytes)?;
            std::fs::File::open(&fresh)?.sync_all()?;
            std::fs::rename(&fresh, &**file)
        });
        match written.await {
            Ok(Ok(())) => {}
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
        let version = self.store.directory_version().await?;
        if version == self.shared.load().version {
            return Ok(false);
        }
        self.reload().await?;
        Ok(true)
    }

    async fn reload(&self) -> Result<(), StoreError> {
        let (version, rows) = self.store.directory().await?;
        self.take(version, &rows);
        self.write_copy(version, rows).await;
        Ok(())
    }

    fn take(&self, version: u64, rows: &DirectoryRows) {
        let mut decoded = Vec::with_capacity(rows.len());
        for (id, bytes) in rows {
            match postcard::from_bytes::<DirectoryRow>(bytes) {
                Ok(row) => decoded.push(row),
                Err(_) => tracing::error!(id, "directory row of another version or damaged, left out"),
            }
        }
        let (directory, broken) = Directory::build(version, decoded, &self.keyring);
        for id in broken {
            tracing::error!(id, "directory row does not open, left out");
        }
        self.shared.swap(directory);
    }

    /// Makes a change: `edit` sees the newest snapshot and says which rows change; it is asked again when another change came
    /// first. Afterwards this process's snapshot shows it.
    pub async fn change<E>(&self, mut edit: impl FnMut(&Directory) -> Result<Vec<Change>, E>) -> Result<Arc<Directory>, ChangeError<E>> {
        for _ in 0..CHANGE_TRIES {
            self.refresh().await?;
            let seen = self.shared.load_full();
            let changes = edit(&seen).map_err(ChangeError::Refused)?;
            let rows = changes.into_iter().map(encode).collect();
            match self.store.change_directory(seen.version, rows).await {
                Ok(_) => {
                    self.reload().await?;
                    return Ok(self.shared.load_full());
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

fn encode(change: Change) -> (String, Option<Vec<u8>>) {
    match change {
        Change::Put(row) => (row.id(), Some(postcard::to_stdvec(&*row).expect("our own types serialise"))),
        Change::Delete(id) => (id, None),
    }
}
