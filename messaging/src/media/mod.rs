//! The media room: the bytes of what came with messages, and of what was brought to be sent.
//!
//! ```text
//! message -> decide: id and link of each medium -> rows stored -> [`Library::fetch`] -> platform
//!                                                                 sniff, cap, seal -> [`Vault`] -> [`Blobs`] -> media.ready | media.failed
//! GET of the link -> gateway -> Library: stored, or fetched now while the platform has it -> a stream of opened chunks
//! ```
//! * [`Blobs`] keeps files under names that say nothing; two backends, one conformance suite.
//! * [`Vault`] seals: each file in chunks with its tenant's key, bound to tenant, medium, place and end, so that no chunk opens
//!   elsewhere and a cut file is noticed. A name is a keyed hash of tenant and medium; one person's medium is one file, so that
//!   erasing it takes nobody else's.
//! * [`Library`] fetches: one function for the router's eager round and for whoever asks later, one flight per medium and process.

use std::path::Path;
use std::sync::Arc;

use crate::BoxFuture;
use crate::clock::Timestamp;
use bytes::Bytes;

mod directory;
mod download;
mod library;
mod link;
mod s3;
mod sniff;
mod vault;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(test)]
mod tests;

pub use directory::DirectoryBlobs;
pub use download::{Answer, BodyStream, Download, DownloadError};
pub use library::{Library, LibraryParts, Upload, Wanted, media_of, record};
pub use link::{LinkTerms, read_link};
pub use s3::{S3Blobs, S3Settings};
pub use sniff::{OCTETS, Sniffer};
pub use vault::{About, Found, Incoming, Medium, Vault, VaultSettings};

/// A file's name: a folder of one tenant and a name in it, both keyed hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobName {
    /// The tenant's folder.
    pub folder: [u8; 16],
    /// The file.
    pub name: [u8; 16],
}

impl BlobName {
    /// `folder/ab/abcd…`, in hexadecimal: below the first two digits, so that no folder grows without end.
    pub fn path(&self) -> String {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        format!("{}/{}/{}", hex(&self.folder), hex(&self.name[..1]), hex(&self.name))
    }

    /// From its path; none when it is none of ours.
    pub fn from_path(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let bytes = |text: &str| <[u8; 16]>::try_from(data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?).ok();
        let (folder, _, name) = (parts.next()?, parts.next()?, parts.next()?);
        let found = Self { folder: bytes(folder)?, name: bytes(name)? };
        (found.path() == path).then_some(found)
    }
}

/// A file that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: BlobName,
    /// Its size, sealed, in bytes.
    pub bytes: u64,
    /// The time that it was put with, where the backend keeps it; else when it was put.
    pub at: Timestamp,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Bytes of what is still there.
    pub kept_bytes: u64,
    /// Files deleted.
    pub deleted: u64,
}

/// The backend did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// It is away: try again.
    #[error("media store unavailable: {0}")]
    Unavailable(String),
    /// It holds something that is not what was put.
    #[error("media store damaged: {0}")]
    Damaged(&'static str),
}

/// Which files a sweep deletes.
pub type IsOver = Arc<dyn Fn(&Listed) -> bool + Send + Sync>;

/// Keeps sealed files. Knows nothing of tenants, media or keys.
pub trait Blobs: Send + Sync {
    /// The folder on this machine where files are written before they are put.
    fn spool(&self) -> &Path;
    /// Puts a finished file of the spool under a name: whole or not at all, in the place of what had the name, and surviving power
    /// loss when it returns. The file may be moved away.
    fn put<'a>(&'a self, name: BlobName, file: &'a Path, at: Timestamp) -> BoxFuture<'a, Result<(), BlobError>>;
    /// Reads `len` bytes from a place on, fewer at the file's end. None: there is no such file.
    fn read(&self, name: BlobName, from: u64, len: usize) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>>;
    /// Deletes a file; one that is not there is as good as deleted.
    fn delete(&self, name: BlobName) -> BoxFuture<'_, Result<(), BlobError>>;
    /// Looks at every file, and deletes those that are over.
    fn sweep(&self, is_over: IsOver) -> BoxFuture<'_, Result<Swept, BlobError>>;
}
