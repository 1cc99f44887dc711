//! Sealed files: written and read in chunks, so that a medium is never whole in memory.
//!
//! ```text
//! "TLM1" | head, sealed, padded: HEAD_BYTES with the mark | chunk 0, sealed | chunk 1, sealed | …
//! ```
//! The head says size, kind, digest and time. Each chunk is `CHUNK_BYTES` of the medium, the last one fewer, sealed with the tenant's
//! key (`seal::DataKey`); its associated data is the tenant, a number drawn for this file, the chunk's place, and whether it is the last.
//! The number stands in the head, which opens under its own tenant and medium only. So a chunk opens at its own place of its own file
//! only, and a file that was cut does not pass for a shorter one.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::directory::{blocking, clear_spool};
use super::{BlobError, BlobName, Blobs, IsOver};
use crate::channels::MediaFault;
use crate::clock::{SharedClock, Timestamp};
use crate::ids::{IdHasher, MediaId, TenantId};
use crate::metrics;
use crate::seal::{DataKey, OVERHEAD_BYTES, fill_random};
use crate::tenant::Tenant;

/// What every file begins with.
const MARK: &[u8; 4] = b"TLM1";
/// Bytes before the first chunk.
const HEAD_BYTES: usize = 2048;
/// Bytes of a medium in one chunk.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that are read at once.
const WINDOW_CHUNKS: u64 = 8;
/// Longest file name that is kept, in characters.
const FILENAME_CHARS_MAX: usize = 200;
/// Files of the spool that nobody has written to for so long were left behind.
const SPOOL_AGE: Duration = Duration::from_secs(24 * 3600);

/// What a vault allows.
#[derive(Debug, Clone)]
pub struct VaultSettings {
    /// Most bytes of one medium.
    pub max_bytes: u64,
    /// Most bytes on disk or in the bucket; beyond, nothing new is taken.
    pub max_total: u64,
    /// How long a medium is kept, from the time of its message on.
    pub lifetime: Duration,
}

/// What is told of a medium when it is kept.
#[derive(Debug, Clone)]
pub struct About {
    /// Its media type, as its bytes say.
    pub kind: &'static str,
    /// Its file name, as a stranger chose it.
    pub filename: Option<String>,
    /// When its message came, or when it was brought: its lifetime counts from here.
    pub at: Timestamp,
}

/// A medium that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Its media type, as its bytes say.
    pub kind: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Its file name, as a stranger chose it.
    pub filename: Option<String>,
    /// When its lifetime began.
    pub at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Head {
    medium: Medium,
    /// Drawn for this file.
    file: [u8; 16],
}

/// A medium that was found, ready to be read.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it is.
    pub medium: Medium,
    name: BlobName,
    key: DataKey,
    seal: ChunkSeal,
}

/// What a file's chunks are bound to.
#[derive(Debug, Clone, Copy)]
struct ChunkSeal {
    tenant: TenantId,
    file: [u8; 16],
}

impl ChunkSeal {
    fn aad(&self, place: u64, is_last: bool) -> Vec<u8> {
        [b"media.chunk".as_slice(), &self.tenant.0, &self.file, &place.to_le_bytes(), &[u8::from(is_last)]].concat()
    }
}

fn head_aad(tenant: TenantId, id: MediaId) -> Vec<u8> {
    [b"media.head".as_slice(), &tenant.0, &id.0].concat()
}

/// Chunks of a medium of this size.
fn chunks_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(CHUNK_BYTES as u64).max(1)
}

/// A medium that is being written. Dropped before it is kept, it leaves nothing behind.
pub struct Incoming {
    file: tokio::fs::File,
    spooled: Spooled,
    key: DataKey,
    seal: ChunkSeal,
    waiting: BytesMut,
    next_chunk: u64,
    size_bytes: u64,
    max_bytes: u64,
    digest: Sha256,
}

/// A file of the spool, removed when it is not needed any more.
struct Spooled(PathBuf);

impl Drop for Spooled {
    fn drop(&mut self) {
        // It may have been moved away.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Incoming {
    /// Takes in more of it. Refused as too large as soon as it is.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), MediaFault> {
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > self.max_bytes {
            return Err(MediaFault::TooLarge);
        }
        self.digest.update(bytes);
        while !bytes.is_empty() {
            // A full chunk is sealed when more comes: only then it is known not to be the last.
            if self.waiting.len() == CHUNK_BYTES {
                self.seal_chunk(false).await?;
            }
            let fits = bytes.len().min(CHUNK_BYTES - self.waiting.len());
            self.waiting.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
        }
        Ok(())
    }

    /// Bytes so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn seal_chunk(&mut self, is_last: bool) -> Result<(), MediaFault> {
        let sealed = self.key.seal(&self.seal.aad(self.next_chunk, is_last), &self.waiting);
        self.waiting.clear();
        self.next_chunk += 1;
        self.file.write_all(&sealed).await.map_err(|error| unwritten(&error))
    }

    /// Its SHA-256; nothing more may be written.
    pub fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }
}

fn unwritten(error: &std::io::Error) -> MediaFault {
    tracing::error!(%error, "a medium cannot be written");
    MediaFault::StoreUnavailable
}

/// Seals, keeps, finds and sweeps.
pub struct Vault {
    blobs: Arc<dyn Blobs>,
    ids: IdHasher,
    clock: SharedClock,
    settings: VaultSettings,
    /// Bytes that the last sweep left.
    kept: AtomicU64,
    /// Bytes that came since it began.
    added: AtomicU64,
}

impl Vault {
    /// A vault over a backend. What it holds is known after the first sweep.
    pub fn new(blobs: Arc<dyn Blobs>, ids: IdHasher, clock: SharedClock, settings: VaultSettings) -> Self {
        Self { blobs, ids, clock, settings, kept: AtomicU64::new(0), added: AtomicU64::new(0) }
    }

    /// What it allows.
    pub fn settings(&self) -> &VaultSettings {
        &self.settings
    }

    /// Bytes that it holds, sealed.
    pub fn used_bytes(&self) -> u64 {
        self.kept.load(Ordering::Relaxed).saturating_add(self.added.load(Ordering::Relaxed))
    }

    /// Whether a medium of this time is not kept any more.
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.clock.now() >= at.plus(self.settings.lifetime)
    }

    fn name(&self, tenant: TenantId, id: MediaId) -> BlobName {
        let (folder, name) = self.ids.blob(tenant, id);
        BlobName { folder, name }
    }

    /// Begins to write a medium of a tenant.
    ///
    /// # Errors
    /// `Full`, or `StoreUnavailable`.
    pub async fn begin(&self, tenant: Tenant, key: &DataKey) -> Result<Incoming, MediaFault> {
        if self.used_bytes() >= self.settings.max_total {
            return Err(MediaFault::Full);
        }
        let mut file = [0; 16];
        fill_random(&mut file);
        let path = self.blobs.spool().join(data_encoding::HEXLOWER.encode(&file));
        let spooled = Spooled(path.clone());
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut opened = options.open(&path).await.map_err(|error| unwritten(&error))?;
        // The head's place: what it says is known in the end.
        opened.write_all(&[0; HEAD_BYTES]).await.map_err(|error| unwritten(&error))?;
        Ok(Incoming {
            file: opened,
            spooled,
            key: key.clone(),
            seal: ChunkSeal { tenant: tenant.id(), file },
            waiting: BytesMut::with_capacity(CHUNK_BYTES),
            next_chunk: 0,
            size_bytes: 0,
            max_bytes: self.settings.max_bytes,
            digest: Sha256::new(),
        })
    }

    /// Keeps what was written, under an id. It is there, whole and durable, when this returns.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn keep(&self, mut incoming: Incoming, id: MediaId, about: About) -> Result<Medium, MediaFault> {
        incoming.seal_chunk(true).await?;
        let filename = about.filename.map(|name| name.chars().filter(|c| !c.is_control()).take(FILENAME_CHARS_MAX).collect());
        let medium =
            Medium { kind: about.kind.to_owned(), size_bytes: incoming.size_bytes, sha256: incoming.sha256(), filename, at: about.at };
        let ChunkSeal { tenant, file } = incoming.seal;
        let head = Head { medium: medium.clone(), file };
        let mut plain = postcard::to_stdvec(&head).expect("our own types serialise");
        assert!(plain.len() <= HEAD_BYTES - MARK.len() - OVERHEAD_BYTES, "a name is cut to what fits");
        plain.resize(HEAD_BYTES - MARK.len() - OVERHEAD_BYTES, 0);
        let sealed = [MARK.as_slice(), &incoming.key.seal(&head_aad(tenant, id), &plain)].concat();
        let write = async {
            incoming.file.rewind().await?;
            incoming.file.write_all(&sealed).await?;
            incoming.file.flush().await
        };
        write.await.map_err(|error| unwritten(&error))?;
        let bytes = HEAD_BYTES as u64 + medium.size_bytes + chunks_of(medium.size_bytes) * OVERHEAD_BYTES as u64;
        let put = self.blobs.put(self.name(tenant, id), &incoming.spooled.0, medium.at);
        put.await.map_err(|error| {
            tracing::error!(%error, "a medium is not kept");
            MediaFault::StoreUnavailable
        })?;
        self.added.fetch_add(bytes, Ordering::Relaxed);
        metrics::MEDIA_STORED_BYTES.at([]).set(self.used_bytes() as f64);
        Ok(medium)
    }

    /// Finds a medium; none when it is not here, or its lifetime is over.
    pub async fn find(&self, tenant: Tenant, id: MediaId, key: &DataKey) -> Result<Option<Found>, BlobError> {
        let name = self.name(tenant.id(), id);
        let Some(bytes) = self.blobs.read(name, 0, HEAD_BYTES).await? else { return Ok(None) };
        let sealed = bytes.strip_prefix(MARK).filter(|_| bytes.len() == HEAD_BYTES).ok_or(BlobError::Damaged("no head"))?;
        let head: Head = key.open_value(&head_aad(tenant.id(), id), sealed).map_err(|_| BlobError::Damaged("the head does not open"))?;
        if self.is_over(head.medium.at) {
            return Ok(None);
        }
        let seal = ChunkSeal { tenant: tenant.id(), file: head.file };
        Ok(Some(Found { medium: head.medium, name, key: key.clone(), seal }))
    }

    /// The bytes of a medium from `range.start` to before `range.end`, piece by piece.
    pub fn read(&self, found: Found, range: Range<u64>) -> impl Stream<Item = Result<Bytes, BlobError>> + Send + use<> {
        let blobs = self.blobs.clone();
        let range = range.start..range.end.min(found.medium.size_bytes);
        futures_util::stream::try_unfold((found, range), move |(found, range)| {
            let blobs = blobs.clone();
            async move {
                if range.start >= range.end {
                    return Ok(None);
                }
                let bytes = window(&*blobs, &found, &range).await?;
                let next = range.start + bytes.len() as u64..range.end;
                Ok(Some((bytes, (found, next))))
            }
        })
    }

    /// Deletes a medium, wherever its lifetime stands: its person is to be forgotten.
    pub async fn forget(&self, tenant: Tenant, id: MediaId) -> Result<(), BlobError> {
        self.blobs.delete(self.name(tenant.id(), id)).await
    }

    /// Deletes what is over, and counts what is there.
    pub async fn sweep(&self) -> Result<(), BlobError> {
        let (spool, abandoned) = (self.blobs.spool().to_owned(), self.clock.now().minus(SPOOL_AGE));
        blocking(move || clear_spool(&spool, abandoned)).await?;
        self.added.store(0, Ordering::Relaxed);
        let (now, lifetime) = (self.clock.now(), self.settings.lifetime);
        let is_over: IsOver = Arc::new(move |listed| now >= listed.at.plus(lifetime));
        let swept = self.blobs.sweep(is_over).await?;
        self.kept.store(swept.kept_bytes, Ordering::Relaxed);
        metrics::MEDIA_STORED_BYTES.at([]).set(self.used_bytes() as f64);
        if swept.deleted > 0 {
            tracing::info!(deleted = swept.deleted, "media whose time is over are deleted");
        }
        Ok(())
    }
}

/// Reads and opens the chunks from the range's start on, as many as are read at once.
async fn window(blobs: &dyn Blobs, found: &Found, range: &Range<u64>) -> Result<Bytes, BlobError> {
    const CHUNK: u64 = CHUNK_BYTES as u64;
    const SEALED: u64 = CHUNK + OVERHEAD_BYTES as u64;
    let chunks = chunks_of(found.medium.size_bytes);
    let first = range.start / CHUNK;
    let end = (range.end.div_ceil(CHUNK)).min(first + WINDOW_CHUNKS).min(chunks);
    let from = HEAD_BYTES as u64 + first * SEALED;
    let sealed = blobs.read(found.name, from, ((end - first) * SEALED) as usize).await?;
    let sealed = sealed.ok_or_else(|| BlobError::Unavailable("it was deleted while it was read".to_owned()))?;
    let mut out = BytesMut::with_capacity(((end - first) * CHUNK) as usize);
    let mut rest = &sealed[..];
    for place in first..end {
        let (chunk, after) = rest.split_at(rest.len().min(SEALED as usize));
        let plain = found.key.open(&found.seal.aad(place, place + 1 == chunks), chunk);
        out.extend_from_slice(&plain.map_err(|_| BlobError::Damaged("a chunk does not open"))?);
        rest = after;
    }
    let (skip, wanted) = ((range.start - first * CHUNK) as usize, (range.end - first * CHUNK) as usize);
    if out.len() <= skip {
        return Err(BlobError::Damaged("a file is shorter than its head says"));
    }
    let whole = out.freeze();
    Ok(whole.slice(skip..whole.len().min(wanted)))
}
