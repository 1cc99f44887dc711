//! Files in a directory, readable by their owner only: written in `spool`, synced, then renamed.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::{BlobError, BlobName, Blobs, IsOver, Listed, Swept};
use crate::BoxFuture;
use crate::clock::Timestamp;

/// The folder of files that are being written.
const SPOOL: &str = "spool";

/// A media directory.
#[derive(Debug)]
pub struct DirectoryBlobs {
    root: PathBuf,
    spool: PathBuf,
}

impl DirectoryBlobs {
    /// Opens a directory, made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        let spool = root.join(SPOOL);
        make_folder(&spool)?;
        Ok(Self { root: root.to_owned(), spool })
    }

    fn path(&self, name: BlobName) -> PathBuf {
        self.root.join(name.path())
    }
}

impl Blobs for DirectoryBlobs {
    fn spool(&self) -> &Path {
        &self.spool
    }

    fn put<'a>(&'a self, name: BlobName, file: &'a Path, at: Timestamp) -> BoxFuture<'a, Result<(), BlobError>> {
        let (root, to, file) = (self.root.clone(), self.path(name), file.to_owned());
        Box::pin(blocking(move || {
            let from = File::options().write(true).open(&file)?;
            from.set_modified(UNIX_EPOCH + Duration::from_micros(at.as_micros()))?;
            from.sync_all()?;
            let folder = to.parent().expect("a blob stands in a folder");
            make_folder(folder)?;
            fs::rename(&file, &to)?;
            // The folders' entries as well, each in the one above it.
            for folder in folder.ancestors().take_while(|above| above.starts_with(&root)) {
                File::open(folder)?.sync_all()?;
            }
            Ok(())
        }))
    }

    fn read(&self, name: BlobName, from: u64, len: usize) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>> {
        let path = self.path(name);
        Box::pin(blocking(move || {
            let mut file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::with_capacity(len);
            file.take(len as u64).read_to_end(&mut bytes)?;
            Ok(Some(Bytes::from(bytes)))
        }))
    }

    fn delete(&self, name: BlobName) -> BoxFuture<'_, Result<(), BlobError>> {
        let path = self.path(name);
        Box::pin(blocking(move || gone(fs::remove_file(path))))
    }

    fn sweep(&self, is_over: IsOver) -> BoxFuture<'_, Result<Swept, BlobError>> {
        let root = self.root.clone();
        Box::pin(blocking(move || {
            let mut swept = Swept::default();
            for tenant in folders(&root)? {
                for shard in folders(&tenant)? {
                    sweep_folder(&root, &shard, &is_over, &mut swept)?;
                }
            }
            Ok(swept)
        }))
    }
}

fn sweep_folder(root: &Path, folder: &Path, is_over: &IsOver, swept: &mut Swept) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let relative = path.strip_prefix(root).ok().and_then(Path::to_str);
        let Some(name) = relative.and_then(BlobName::from_path) else { continue };
        // Another process may have deleted it meanwhile.
        let Ok(meta) = entry.metadata() else { continue };
        let at = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let listed = Listed { name, bytes: meta.len(), at: Timestamp(u64::try_from(at.as_micros()).unwrap_or(u64::MAX)) };
        if is_over(&listed) {
            gone(fs::remove_file(&path))?;
            swept.deleted += 1;
        } else {
            swept.kept_bytes += listed.bytes;
        }
    }
    Ok(())
}

fn folders(of: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(of)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != SPOOL {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Deletes what was left in a spool by a process that died: whatever nobody has written to since then.
pub(super) fn clear_spool(spool: &Path, since: Timestamp) -> io::Result<()> {
    let since = UNIX_EPOCH + Duration::from_micros(since.as_micros());
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() && meta.modified()? < since {
            gone(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// Runs file work where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| BlobError::Unavailable(error.to_string())),
        Err(_) => Err(BlobError::Unavailable("the file work panicked".to_owned())),
    }
}
