//! The journal: what was written and does not yet stand in the engine's tables. It is what survives `kill -9`, and power loss once
//! it is synced; the rows themselves stand in memory ([`super::memory`]) until they are drained into the tables.
//!
//! A file is `journal-<number>`, numbers rise. It is a run of frames, one per group that was written, each of:
//!
//! ```text
//!  0  u32  crc32 of all that follows, with the body
//!  4  u32  length of the body
//!  8  u64  the file's number
//! 16  u64  the frame's own place in the file
//! 24  u64  how far the file was durable when this frame was written
//! 32       the body, padded with zeros to a multiple of 8
//! ```
//!
//! Numbers are little-endian. The first frame's body says which file came before and where it ended; the others' are rows: table
//! (u8), length of the key (u16), length of the value (u32, all ones: deleted), key, value.
//!
//! Files are used again under a new number once their rows are drained: a sync of blocks that exist already costs a fiftieth of one
//! that makes the file longer. What is left of a former use has another number in its frames.
//!
//! The end of a file is the first place that holds no frame of it. A frame behind that place which says that the place was durable
//! means damage, which is told and not skipped; without one it is the torn end of what was never synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fjall::UserKey;

use super::keys::Table;

const HEADER_BYTES: usize = 32;
const ALIGN: usize = 8;
/// A file grows by zeros in steps of this, so that the syncs in between find its blocks there.
const GROW_BYTES: u64 = 1024 * 1024;
/// Files whose rows stand in the active memory: each process begins one, so those that write little must drain too.
const FILES_MAX: usize = 8;
/// Drained files that are kept to be used again.
const SPARES_MAX: usize = 2;
const DELETED: u32 = u32::MAX;
const NAME: &str = "journal-";
const SPARE: &str = "spare-";

/// A row as the journal and the memory have it: no value deletes.
pub(super) type Row = (Table, UserKey, Option<Vec<u8>>);

/// The journal of an open store.
pub(super) struct Journal {
    dir: PathBuf,
    file: File,
    number: u64,
    /// Where the next frame goes.
    end: u64,
    /// Until where the file has blocks.
    grown: u64,
    /// Until where it is durable.
    durable: u64,
    spares: Vec<PathBuf>,
    /// The files whose rows stand in the active memory, oldest first; the last is the one that is written.
    active: Vec<u64>,
    frame: Vec<u8>,
}

/// Why the journal cannot be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Io(io::Error),
    Damaged(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Journal {
    /// Reads what the process before left, oldest first, and begins a file of its own.
    pub(super) fn open(dir: &Path, mut row: impl FnMut(Row)) -> Result<Self, OpenError> {
        let (mut numbers, mut spares) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(number) = name.strip_prefix(NAME).and_then(|text| u64::from_str_radix(text, 16).ok()) {
                numbers.push(number);
            } else if name.starts_with(SPARE) {
                spares.push(entry.path());
            }
        }
        numbers.sort_unstable();
        let mut before: Option<(u64, u64)> = None;
        for number in &numbers {
            let path = path_of(dir, *number);
            let bytes = fs::read(&path)?;
            let read = read_file(&bytes, *number, &mut row).map_err(|text| OpenError::Damaged(format!("{}: {text}", path.display())))?;
            if let (Some((number, end)), Some(link)) = (before, read.link)
                && link.0 == number
                && link.1 > end
            {
                let text = format!("{} ends at {end}, and it was written up to {}", path_of(dir, number).display(), link.1);
                return Err(OpenError::Damaged(text));
            }
            before = Some((*number, read.end));
            // What the last process had not synced counts from now on as if it had.
            File::open(&path)?.sync_data()?;
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let (file, grown) = begin(dir, number, &mut spares)?;
        let mut journal = Self { dir: dir.to_owned(), file, number, end: 0, grown, durable: 0, spares, active: numbers, frame: Vec::new() };
        journal.active.push(number);
        journal.link(before.unwrap_or((0, 0)))?;
        Ok(journal)
    }

    /// Begins a frame; rows are added to it and then it is written.
    pub(super) fn begin_frame(&mut self) {
        self.frame.clear();
        self.frame.resize(HEADER_BYTES, 0);
    }

    /// Adds a row to the frame.
    pub(super) fn add(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        self.frame.push(table as u8);
        self.frame.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.frame.extend_from_slice(&value.map_or(DELETED, |value| value.len() as u32).to_le_bytes());
        self.frame.extend_from_slice(key);
        self.frame.extend_from_slice(value.unwrap_or_default());
    }

    /// Writes the frame: into the kernel's hands, not yet onto the disk.
    pub(super) fn write_frame(&mut self) -> io::Result<()> {
        let body = self.frame.len() - HEADER_BYTES;
        let Ok(length) = u32::try_from(body) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a group of rows of more than 4 GiB"));
        };
        self.frame.resize(HEADER_BYTES + body.next_multiple_of(ALIGN), 0);
        self.frame[4..8].copy_from_slice(&length.to_le_bytes());
        self.frame[8..16].copy_from_slice(&self.number.to_le_bytes());
        self.frame[16..24].copy_from_slice(&self.end.to_le_bytes());
        self.frame[24..32].copy_from_slice(&self.durable.to_le_bytes());
        let sum = crc32fast::hash(&self.frame[4..HEADER_BYTES + body]);
        self.frame[..4].copy_from_slice(&sum.to_le_bytes());
        let end = self.end + self.frame.len() as u64;
        if end > self.grown {
            let grown = end.next_multiple_of(GROW_BYTES);
            let zeros = vec![0; (grown - end) as usize];
            self.file.write_all_at(&zeros, end)?;
            self.grown = grown;
        }
        self.file.write_all_at(&self.frame, self.end)?;
        self.end = end;
        Ok(())
    }

    /// Makes everything that was written durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.durable < self.end {
            self.file.sync_data()?;
            self.durable = self.end;
        }
        Ok(())
    }

    /// Whether its files are many, however little stands in them.
    pub(super) fn has_many_files(&self) -> bool {
        self.active.len() > FILES_MAX
    }

    /// Begins another file. Gives the numbers of those whose rows stood in the active memory until now.
    pub(super) fn rotate(&mut self) -> io::Result<Vec<u64>> {
        self.sync()?;
        let before = (self.number, self.end);
        let (file, grown) = begin(&self.dir, self.number + 1, &mut self.spares)?;
        (self.file, self.grown, self.number, self.end, self.durable) = (file, grown, self.number + 1, 0, 0);
        self.link(before)?;
        Ok(std::mem::replace(&mut self.active, vec![self.number]))
    }

    /// The rows of these files stand in the tables: they are kept as spares, or deleted.
    pub(super) fn release(&mut self, numbers: &[u64]) -> io::Result<()> {
        for number in numbers {
            let path = path_of(&self.dir, *number);
            if self.spares.len() >= SPARES_MAX {
                fs::remove_file(&path)?;
                continue;
            }
            let spare = self.dir.join(format!("{SPARE}{number:016x}"));
            fs::rename(&path, &spare)?;
            self.spares.push(spare);
        }
        // Else they could come back after a power loss, when newer rows of theirs are in the tables already.
        sync_folder(&self.dir)
    }

    /// Deletes the files that wait to be used again: their rows of before stand in them still.
    pub(super) fn delete_spares(&mut self) -> io::Result<()> {
        for spare in self.spares.drain(..) {
            fs::remove_file(spare)?;
        }
        Ok(())
    }

    /// The first frame of a file names the one before.
    fn link(&mut self, (number, end): (u64, u64)) -> io::Result<()> {
        self.begin_frame();
        self.frame.extend_from_slice(&number.to_le_bytes());
        self.frame.extend_from_slice(&end.to_le_bytes());
        self.write_frame()
    }

    /// Where the next frame goes.
    #[cfg(test)]
    pub(super) fn end(&self) -> u64 {
        self.end
    }
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{NAME}{number:016x}"))
}

/// Whether a file of the store's folder belongs to the journal.
pub(super) fn is_journal(name: &str) -> bool {
    name.starts_with(NAME) || name.starts_with(SPARE)
}

/// A file to write, under its name durably; and how long it is.
fn begin(dir: &Path, number: u64, spares: &mut Vec<PathBuf>) -> io::Result<(File, u64)> {
    let path = path_of(dir, number);
    if let Some(spare) = spares.pop() {
        fs::rename(spare, &path)?;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
    let grown = file.metadata()?.len();
    sync_folder(dir)?;
    Ok((file, grown))
}

fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What a file has.
struct Read {
    end: u64,
    /// The file before it, and where that one ended. None: it has not even its first frame.
    link: Option<(u64, u64)>,
}

/// A frame that verifies.
struct Frame<'a> {
    body: &'a [u8],
    durable: u64,
    bytes: usize,
}

fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn frame_at(bytes: &[u8], at: usize, number: u64) -> Option<Frame<'_>> {
    if number_at(bytes, at + 8)? != number || number_at(bytes, at + 16)? != at as u64 {
        return None;
    }
    let sum = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    let length = u32::from_le_bytes(*bytes.get(at + 4..)?.first_chunk()?) as usize;
    let summed = bytes.get(at + 4..at + HEADER_BYTES + length)?;
    if crc32fast::hash(summed) != sum {
        return None;
    }
    let body = &summed[HEADER_BYTES - 4..];
    Some(Frame { body, durable: number_at(bytes, at + 24)?, bytes: HEADER_BYTES + length.next_multiple_of(ALIGN) })
}

fn read_file(bytes: &[u8], number: u64, row: &mut impl FnMut(Row)) -> Result<Read, String> {
    let (mut at, mut link) = (0, None);
    while let Some(frame) = frame_at(bytes, at, number) {
        if at == 0 {
            link = number_at(frame.body, 0).zip(number_at(frame.body, 8));
        } else {
            read_rows(frame.body, row).ok_or_else(|| format!("the rows at {at} do not read"))?;
        }
        at += frame.bytes;
    }
    let mut behind = at + ALIGN;
    while behind + HEADER_BYTES <= bytes.len() {
        if let Some(frame) = frame_at(bytes, behind, number)
            && frame.durable > at as u64
        {
            return Err(format!("what stands at {at} is damaged: it was durable, and more follows at {behind}"));
        }
        behind += ALIGN;
    }
    Ok(Read { end: at as u64, link })
}

fn read_rows(mut body: &[u8], row: &mut impl FnMut(Row)) -> Option<()> {
    while !body.is_empty() {
        let (&[table], rest) = body.split_first_chunk()?;
        let (key_bytes, rest) = rest.split_first_chunk()?;
        let (value_bytes, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_bytes)))?;
        let table = Table::from_tag(table)?;
        let value_bytes = u32::from_le_bytes(*value_bytes);
        if value_bytes == DELETED {
            row((table, UserKey::from(key), None));
            body = rest;
            continue;
        }
        let (value, rest) = rest.split_at_checked(value_bytes as usize)?;
        row((table, UserKey::from(key), Some(value.to_vec())));
        body = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests;
