//! How much disk the store uses, and its limit.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::journal::is_journal;
use super::keys::Table;
use super::tables::Tables;

/// The writer measures again after it has written this much.
const MEASURE_EVERY_BYTES: u64 = 8 * 1024 * 1024;
/// Who asks has it measured again at most this often: merging frees space while nothing is written.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The last measurement and what was written since.
pub(super) struct Disk {
    dir: PathBuf,
    limit: u64,
    measured: AtomicU64,
    written_since: AtomicU64,
    /// Microseconds of monotonic time, of the last time that someone who asked had it measured.
    asked_at_us: AtomicU64,
}

impl Disk {
    pub(super) fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit, measured: AtomicU64::new(0), written_since: AtomicU64::new(0), asked_at_us: AtomicU64::new(0) }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes used: measured, and written since.
    pub(super) fn used(&self) -> u64 {
        self.measured.load(Ordering::Relaxed).saturating_add(self.written_since.load(Ordering::Relaxed))
    }

    /// Whether who asks now should have it measured again; says so once per period.
    pub(super) fn is_stale(&self, now: Duration) -> bool {
        let now = now.as_micros() as u64;
        let before = self.asked_at_us.load(Ordering::Relaxed);
        let due = now.saturating_sub(before) >= MEASURE_EVERY.as_micros() as u64;
        due && self.asked_at_us.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether so many bytes more are too many. Measures before it says so. Writer only.
    pub(super) fn is_full(&self, tables: &Tables, more: u64) -> bool {
        if self.used().saturating_add(more) <= self.limit {
            return false;
        }
        self.measure(tables);
        self.used().saturating_add(more) > self.limit
    }

    /// Counts what was written, and says whether it is time to measure. Writer only.
    pub(super) fn wrote(&self, bytes: u64) -> bool {
        self.written_since.fetch_add(bytes, Ordering::Relaxed) + bytes >= MEASURE_EVERY_BYTES
    }

    /// Measures: the tables by the engine's books, the journals (few) by what the disk holds of them.
    pub(super) fn measure(&self, tables: &Tables) {
        let tables_bytes: u64 = Table::ALL.iter().map(|table| tables.get(*table).disk_space()).sum();
        // A folder that cannot be listed will not be written to either; that error tells.
        let journal_bytes = journal_bytes(&self.dir).unwrap_or(0);
        self.measured.store(tables_bytes + journal_bytes, Ordering::Relaxed);
        self.written_since.store(0, Ordering::Relaxed);
    }
}

fn journal_bytes(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_engines = Path::new(&name).extension().is_some_and(|extension| extension == "jnl");
        if is_engines || name.to_str().is_some_and(is_journal) {
            // One that was removed in between uses nothing.
            bytes += entry.metadata().map_or(0, |metadata| on_disk(&metadata));
        }
    }
    Ok(bytes)
}

#[cfg(unix)]
fn on_disk(metadata: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    const BLOCK_BYTES: u64 = 512;
    metadata.blocks() * BLOCK_BYTES
}

#[cfg(not(unix))]
fn on_disk(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}
