//! Going through the groups on disk, in order, and telling an end from damage.
//!
//! Groups are written one after another, each after the one before it is durable. So what is not a group is the end when no
//! group comes after it (a torn tail), and damage when one does. The chain of `previous_end` finds groups and whole segments
//! that are missing or were overwritten with zeros.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, ALIGN, Found, Group, HEADER_BYTES};
use crate::log::LogError;

/// A search for groups reads pieces of this many bytes.
const SEARCH_BYTES: usize = 1 << 20;
const ZEROS: [u8; 4096] = [0; 4096];

/// Where a segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The place of its first byte.
    pub base: u64,
    /// Its length.
    pub length: u64,
}

impl Extent {
    /// The place after its last byte.
    pub(super) fn end(&self) -> u64 {
        self.base + self.length
    }

    /// Its file's name: the place of its first byte.
    pub(super) fn name(&self) -> String {
        format!("{:016x}.seg", self.base)
    }
}

/// What stands at a place.
pub(super) enum Step {
    /// An intact group; it may begin later, in the next segment.
    Group(Arc<Group>),
    /// Nothing more. What stands here, if anything, was never durable.
    End,
    /// Bytes that were durable are not what they were.
    Damage(Damage),
}

/// A damaged range.
#[derive(Debug)]
pub(super) struct Damage {
    /// The segment's file.
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Where the next group begins, if there is one.
    pub next: Option<u64>,
}

/// A walk through the segments of a folder.
pub(super) struct Walk {
    dir: PathBuf,
    log_id: u64,
    partitions: u16,
    segments: Vec<Extent>,
    /// Nothing is read from here on.
    limit: u64,
    /// How much is read at once.
    read_bytes: usize,
    chunk: Bytes,
    chunk_at: u64,
    file: Option<(u64, File)>,
}

impl Walk {
    /// A walk through `segments`, which stand in order, up to `limit`.
    pub(super) fn new(dir: &Path, log_id: u64, partitions: u16, segments: Vec<Extent>, limit: u64, read_bytes: usize) -> Self {
        let chunk = Bytes::new();
        Self { dir: dir.to_path_buf(), log_id, partitions, segments, limit, read_bytes, chunk, chunk_at: 0, file: None }
    }

    fn read_until(&self) -> u64 {
        self.chunk_at + self.chunk.len() as u64
    }

    /// Whether the whole group at `at` has been read already, so that the next step costs no reading.
    pub(super) fn has_read(&self, at: u64) -> bool {
        if at < self.chunk_at || at + HEADER_BYTES as u64 > self.read_until() {
            return false;
        }
        let head = &self.chunk[(at - self.chunk_at) as usize..][..HEADER_BYTES];
        match format::read_header(head, self.log_id, at) {
            Found::Header(header) => at + u64::from(header.bytes) <= self.read_until(),
            Found::Empty | Found::Bad(_) => false,
        }
    }

    /// What stands at `at`. `previous_end` is where the group before it ended, when that is known.
    pub(super) fn step(&mut self, at: u64, previous_end: Option<u64>) -> io::Result<Step> {
        let Some(segment) = self.segment_at(at) else {
            return self.step_over(at);
        };
        let head = self.window(segment, at, HEADER_BYTES)?;
        if head.len() < HEADER_BYTES {
            return self.step_over(at);
        }
        let header = match format::read_header(&head, self.log_id, at) {
            Found::Header(header) => header,
            Found::Empty => return self.step_over(at),
            Found::Bad(what) => return self.flaw(segment, at, what),
        };
        if previous_end.is_some_and(|end| end != header.previous_end) {
            return self.flaw(segment, at, "the group before this one is missing");
        }
        let bytes = self.window(segment, at, header.bytes as usize)?;
        if bytes.len() < header.bytes as usize {
            return self.flaw(segment, at, "the group reaches beyond its segment");
        }
        match Group::parse(&header, bytes, self.partitions) {
            Ok(group) => Ok(Step::Group(group)),
            Err(what) => self.flaw(segment, at, what),
        }
    }

    fn segment_at(&self, at: u64) -> Option<Extent> {
        let index = self.segments.partition_point(|segment| segment.end() <= at);
        self.segments.get(index).copied().filter(|segment| segment.base <= at)
    }

    /// Nothing stands at `at`: the rest of its segment was too small for the next group, or the log ends here, or what was
    /// here is gone.
    fn step_over(&mut self, at: u64) -> io::Result<Step> {
        if let Some(next) = self.segments.get(self.segments.partition_point(|segment| segment.base <= at)).copied() {
            let head = self.window(next, next.base, HEADER_BYTES)?;
            if head.len() == HEADER_BYTES
                && let Found::Header(header) = format::read_header(&head, self.log_id, next.base)
                && header.previous_end == at
            {
                return self.step(next.base, Some(at));
            }
        }
        match self.search(at)? {
            None => Ok(Step::End),
            Some(found) => {
                let (file, offset) = self.locate(at);
                let what = "groups that were durable are missing".to_owned();
                Ok(Step::Damage(Damage { file, offset, what, next: Some(found) }))
            }
        }
    }

    /// Something that is not a group stands at `at`: damage when a group comes after it, otherwise a torn tail.
    fn flaw(&mut self, segment: Extent, at: u64, what: &str) -> io::Result<Step> {
        match self.search(at + ALIGN as u64)? {
            None => Ok(Step::End),
            Some(found) => Ok(Step::Damage(Damage {
                file: self.dir.join(segment.name()),
                offset: at - segment.base,
                what: what.to_owned(),
                next: Some(found),
            })),
        }
    }

    /// The file and the offset of a place, or of the first place after it that there is.
    pub(super) fn locate(&self, at: u64) -> (PathBuf, u64) {
        let segment = self.segments.iter().find(|segment| at < segment.end()).or(self.segments.last());
        match segment {
            Some(segment) => (self.dir.join(segment.name()), at.saturating_sub(segment.base)),
            None => (self.dir.clone(), at),
        }
    }

    /// The first place from `from` on where a group's intact header stands.
    fn search(&mut self, from: u64) -> io::Result<Option<u64>> {
        let magic = format::magic(self.log_id);
        for segment in self.segments.clone() {
            let end = segment.end().min(self.limit);
            let mut at = from.max(segment.base).next_multiple_of(ALIGN as u64);
            while at < end {
                let piece = self.read(segment, at, SEARCH_BYTES)?;
                if piece.is_empty() {
                    break;
                }
                for (index, block) in piece.chunks(ZEROS.len()).enumerate() {
                    if block == &ZEROS[..block.len()] {
                        continue;
                    }
                    for (word, bytes) in block.chunks_exact(ALIGN).enumerate() {
                        if format::u64_at(bytes, 0) != magic {
                            continue;
                        }
                        let place = at + (index * ZEROS.len() + word * ALIGN) as u64;
                        let head = self.read(segment, place, HEADER_BYTES)?;
                        if head.len() == HEADER_BYTES && matches!(format::read_header(&head, self.log_id, place), Found::Header(_)) {
                            return Ok(Some(place));
                        }
                    }
                }
                at += piece.len() as u64;
            }
        }
        Ok(None)
    }

    /// How far intact groups stand from a group on.
    fn intact_until(&mut self, from: u64) -> io::Result<u64> {
        let (mut at, mut previous_end) = (from, None);
        while let Step::Group(group) = self.step(at, previous_end)? {
            at = group.end;
            previous_end = Some(at);
        }
        Ok(at)
    }

    /// The error that says what is damaged.
    pub(super) fn refuse(&mut self, damage: Damage) -> LogError {
        let intact_until = match damage.next.map(|next| self.intact_until(next)) {
            Some(Ok(until)) => until,
            Some(Err(error)) => return LogError::Io(error),
            None => 0,
        };
        LogError::Damaged { file: damage.file, offset: damage.offset, what: damage.what, intact_until }
    }

    /// Bytes from `at` on: `want` of them, or fewer where the segment ends.
    fn window(&mut self, segment: Extent, at: u64, want: usize) -> io::Result<Bytes> {
        let missing = at < self.chunk_at || at + want as u64 > self.read_until();
        if missing && at + want as u64 <= segment.end().min(self.limit) {
            self.chunk = self.read(segment, at, want.max(self.read_bytes))?;
            self.chunk_at = at;
        } else if missing {
            return self.read(segment, at, want);
        }
        let from = (at - self.chunk_at) as usize;
        Ok(self.chunk.slice(from.min(self.chunk.len())..(from + want).min(self.chunk.len())))
    }

    fn read(&mut self, segment: Extent, at: u64, want: usize) -> io::Result<Bytes> {
        let want = (want as u64).min(segment.end().min(self.limit).saturating_sub(at));
        if self.file.as_ref().is_none_or(|(base, _)| *base != segment.base) {
            self.file = Some((segment.base, File::open(self.dir.join(segment.name()))?));
        }
        let (_, file) = self.file.as_mut().expect("opened above");
        file.seek(SeekFrom::Start(at - segment.base))?;
        let mut bytes = Vec::with_capacity(want as usize);
        file.take(want).read_to_end(&mut bytes)?;
        Ok(Bytes::from(bytes))
    }
}
