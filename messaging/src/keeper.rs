//! Keeps the directory's snapshot true: loads it from the store, looks for a new version once a second, and changes it by
//! compare-and-swap, so that two administrators never overwrite each other.

use std::sync::Arc;

use crate::directory::{Directory, DirectoryRow, SharedDirectory};
use crate::seal::Keyring;
use crate::store::{Store, StoreError};

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
}

impl DirectoryKeeper {
    /// Over a store. The snapshot is empty until the first `refresh`.
    pub fn new(store: Arc<dyn Store>, keyring: Keyring) -> Self {
        Self { store, keyring, shared: SharedDirectory::default() }
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
        let mut decoded = Vec::with_capacity(rows.len());
        for (id, bytes) in rows {
            match postcard::from_bytes::<DirectoryRow>(&bytes) {
                Ok(row) => decoded.push(row),
                Err(_) => tracing::error!(id, "directory row of another version or damaged, left out"),
            }
        }
        let (directory, broken) = Directory::build(version, decoded, &self.keyring);
        for id in broken {
            tracing::error!(id, "directory row does not open, left out");
        }
        self.shared.swap(directory);
        Ok(())
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
