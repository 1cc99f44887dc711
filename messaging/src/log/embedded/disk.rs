//! The few things that the log does to files, each at a named site where a test can plant a fault.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `O_DSYNC` of Linux on the processors that we build for: a write returns when its bytes are durable. On a preallocated
/// file this costs 83 us where `fdatasync` costs 4 ms (dependencies-and-limits.md).
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
const O_DSYNC: Option<i32> = Some(0o10000);
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
const O_DSYNC: Option<i32> = None;

/// Zeros are written in pieces of this many bytes.
const PIECE_BYTES: usize = 1 << 20;
/// A new segment is flushed each time this many bytes were written, so that its zeros never pile up before a group's write.
const FLUSH_BYTES: u64 = 8 << 20;
/// The ending of files that are not finished yet; deleted when the log opens.
pub(super) const UNFINISHED: &str = "tmp";

/// Where the log touches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Site {
    /// Writing a group.
    GroupWrite,
    /// Making a segment's file.
    SegmentCreate,
    /// Filling it with zeros.
    SegmentWrite,
    /// Flushing it.
    SegmentSync,
    /// Giving it its name.
    SegmentRename,
    /// Opening it to write groups.
    SegmentOpen,
    /// Deleting it.
    SegmentRemove,
    /// Flushing the folder.
    FolderSync,
    /// Writing the finished positions.
    FinishedWrite,
}

impl Site {
    /// All sites.
    pub const ALL: [Site; 9] = [
        Site::GroupWrite,
        Site::SegmentCreate,
        Site::SegmentWrite,
        Site::SegmentSync,
        Site::SegmentRename,
        Site::SegmentOpen,
        Site::SegmentRemove,
        Site::FolderSync,
        Site::FinishedWrite,
    ];
}

/// A planted fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// How many bytes of a write still reach the file.
    pub written: usize,
    /// What the operating system says: an error number.
    pub errno: i32,
}

/// Decides whether an operation fails. Asked before every operation.
pub type Faults = Arc<dyn Fn(Site) -> Option<Fault> + Send + Sync>;

/// A folder on a disk.
#[derive(Clone)]
pub(super) struct Disk {
    pub dir: PathBuf,
    /// Whether writes are durable when they return.
    pub durable: bool,
    pub faults: Option<Faults>,
}

/// A file whose writes are durable when they return.
pub(super) struct DurableFile {
    file: File,
    sync_after: bool,
}

/// `EMFILE` and `ENFILE`: the process, or the machine, has no file descriptor left.
const NO_DESCRIPTOR: [i32; 2] = [24, 23];

/// Whether an error means that there is no room now, on the disk or for one more open file, which heals, and not that the disk is broken,
/// which does not.
pub(super) fn is_full(error: &io::Error) -> bool {
    let no_room = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    no_room || error.raw_os_error().is_some_and(|errno| NO_DESCRIPTOR.contains(&errno))
}

impl Disk {
    fn fault(&self, site: Site) -> Option<Fault> {
        self.faults.as_ref().and_then(|faults| faults(site))
    }

    fn check(&self, site: Site) -> io::Result<()> {
        match self.fault(site) {
            Some(fault) => Err(io::Error::from_raw_os_error(fault.errno)),
            None => Ok(()),
        }
    }

    /// Opens a file for durable positioned writes.
    pub(super) fn open_durable(&self, path: &Path) -> io::Result<DurableFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if let (true, Some(flag)) = (self.durable, O_DSYNC) {
            options.custom_flags(flag);
        }
        Ok(DurableFile { file: options.open(path)?, sync_after: self.durable && O_DSYNC.is_none() })
    }

    /// Opens a segment that was made before, for the next groups.
    pub(super) fn open_segment(&self, path: &Path) -> io::Result<DurableFile> {
        self.check(Site::SegmentOpen)?;
        self.open_durable(path)
    }

    /// Writes all bytes at an offset; durable on return.
    pub(super) fn write_at(&self, site: Site, file: &DurableFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(fault) = self.fault(site) {
            file.file.write_all_at(&bytes[..fault.written.min(bytes.len())], offset)?;
            return Err(io::Error::from_raw_os_error(fault.errno));
        }
        file.file.write_all_at(bytes, offset)?;
        if file.sync_after {
            file.file.sync_data()?;
        }
        Ok(())
    }

    /// Makes names in the folder durable.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        self.check(Site::FolderSync)?;
        if self.durable {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Makes a file of zeros under its final name, whole and durable, or not at all. Gives up when `stop` says so.
    pub(super) fn make_zeros(&self, name: &str, length: u64, stop: &dyn Fn() -> bool) -> io::Result<()> {
        let unfinished = self.dir.join(format!("{name}.{UNFINISHED}"));
        let made = self.fill_zeros(&unfinished, length, stop).and_then(|()| {
            self.check(Site::SegmentRename)?;
            fs::rename(&unfinished, self.dir.join(name))
        });
        if made.is_err() {
            // The room is what another attempt needs; a file that stays is deleted at the next opening.
            let _ = fs::remove_file(&unfinished);
            return made;
        }
        self.sync_folder()
    }

    fn fill_zeros(&self, path: &Path, length: u64, stop: &dyn Fn() -> bool) -> io::Result<()> {
        self.check(Site::SegmentCreate)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; PIECE_BYTES.min(length as usize)];
        let mut at = 0;
        while at < length {
            if stop() {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            self.check(Site::SegmentWrite)?;
            let piece = (length - at).min(zeros.len() as u64);
            file.write_all_at(&zeros[..piece as usize], at)?;
            at += piece;
            if self.durable && at % FLUSH_BYTES == 0 {
                file.sync_data()?;
            }
        }
        self.check(Site::SegmentSync)?;
        if self.durable {
            file.sync_all()?;
        }
        Ok(())
    }

    /// Writes a small file whole: the old content or the new, never a part.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let unfinished = self.dir.join(format!("{name}.{UNFINISHED}"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished)?;
        file.write_all_at(content, 0)?;
        file.sync_all()?;
        fs::rename(&unfinished, self.dir.join(name))?;
        self.sync_folder()
    }

    /// Deletes a file.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Site::SegmentRemove)?;
        fs::remove_file(path)
    }

    /// Overwrites a range of a file with zeros, where it is not zeros already; durable on return.
    pub(super) fn clear(&self, path: &Path, from: u64, to: u64) -> io::Result<bool> {
        const BLOCK: usize = 4096;
        let zeros = [0; BLOCK];
        let file = self.open_durable(path)?;
        let mut buffer = vec![0; PIECE_BYTES];
        let mut at = from;
        let mut cleared = false;
        while at < to {
            let piece = (to - at).min(PIECE_BYTES as u64) as usize;
            file.file.read_exact_at(&mut buffer[..piece], at)?;
            for (index, block) in buffer[..piece].chunks(BLOCK).enumerate() {
                if block != &zeros[..block.len()] {
                    file.file.write_all_at(&zeros[..block.len()], at + (index * BLOCK) as u64)?;
                    cleared = true;
                }
            }
            at += piece as u64;
        }
        if cleared && self.durable {
            file.file.sync_all()?;
        }
        Ok(cleared)
    }

    /// Whether a file has nothing but zeros.
    pub(super) fn is_zeros(&self, path: &Path) -> io::Result<bool> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut buffer = vec![0; PIECE_BYTES];
        let zeros = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < length {
            let piece = (length - at).min(PIECE_BYTES as u64) as usize;
            file.read_exact_at(&mut buffer[..piece], at)?;
            if buffer[..piece] != zeros[..piece] {
                return Ok(false);
            }
            at += piece as u64;
        }
        Ok(true)
    }
}

impl DurableFile {
    /// Flushes what plain writes left in the page cache.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
