//! The bytes of the log: groups and the records in them.
//!
//! All numbers are little-endian. A segment is a run of groups from its first byte on, then zeros. A group is what one
//! positioned write made durable:
//!
//! ```text
//! group   0  u64  magic, mixed with the log's random id: bytes of a payload cannot pass for a group
//!         8  u64  its own place in the log: bytes of another place cannot pass for this one
//!        16  u64  where the group before it ended: a lost group, or a lost segment, breaks the chain
//!        24  u64  when it was written (microseconds since the epoch): `appended_at` of its records
//!        32  u32  its length, with this header and the padding
//!        36  u32  how many records it has
//!        40  u32  zero
//!        44  u32  crc32 of bytes 0..44
//!        48       the records
//! record  0  u32  crc32 of what follows with the payload, seeded with the record's place
//!         4  u32  length of the payload
//!         8  u64  number of this record within its topic and partition, from 1
//!        16  u8   topic, then a zero byte, then u16 partition, then u32 zero
//!        24       the payload, padded with zeros to a multiple of 8
//! ```
//!
//! A [`Position`] is the place of a record's first byte, counted through all segments. Every byte of a group is either under
//! a checksum or must be zero, so every flipped bit is found.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;

use super::super::{Entry, Position, Topic};
use crate::clock::Timestamp;

/// Bytes of a group's header.
pub(super) const HEADER_BYTES: usize = 48;
/// Bytes of a record's header.
pub(super) const FRAME_BYTES: usize = 24;
/// Groups and records begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Most partitions of a topic.
pub(super) const PARTITIONS_MAX: u16 = 1024;

const MAGIC: u64 = u64::from_le_bytes(*b"TRUNKLG1");

/// A topic's partition as an index: topic-major.
pub(super) type LaneId = u16;

/// The lane of a topic's partition.
pub(super) fn lane_id(topic: Topic, partition: u16, partitions: u16) -> LaneId {
    topic.index() as u16 * partitions + partition
}

/// How many bytes a record takes.
pub(super) const fn frame_bytes(payload: usize) -> usize {
    FRAME_BYTES + payload.next_multiple_of(ALIGN)
}

/// A group's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Its place.
    pub start: u64,
    /// Where the group before it ended.
    pub previous_end: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Its whole length.
    pub bytes: u32,
    /// Its records.
    pub records: u32,
}

/// What stands where a group's header could be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An intact header.
    Header(Header),
    /// Zeros: nothing was written here.
    Empty,
    /// Neither.
    Bad(&'static str),
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The first eight bytes of every group of this log.
pub(super) fn magic(log_id: u64) -> u64 {
    MAGIC ^ log_id
}

/// Looks at the bytes where a header could be; `bytes` has at least [`HEADER_BYTES`].
pub(super) fn read_header(bytes: &[u8], log_id: u64, start: u64) -> Found {
    let bytes = &bytes[..HEADER_BYTES];
    if bytes.iter().all(|&byte| byte == 0) {
        return Found::Empty;
    }
    if u64_at(bytes, 0) != magic(log_id) {
        return Found::Bad("no group begins here");
    }
    if u32_at(bytes, 44) != crc32fast::hash(&bytes[..44]) {
        return Found::Bad("the group's header has a wrong checksum");
    }
    if u64_at(bytes, 8) != start {
        return Found::Bad("the group belongs to another place");
    }
    let header = Header {
        start,
        previous_end: u64_at(bytes, 16),
        at: Timestamp(u64_at(bytes, 24)),
        bytes: u32_at(bytes, 32),
        records: u32_at(bytes, 36),
    };
    if (header.bytes as usize) < HEADER_BYTES || !(header.bytes as usize).is_multiple_of(ALIGN) || header.records == 0 {
        return Found::Bad("the group's header makes no sense");
    }
    Found::Header(header)
}

fn frame_crc(position: u64, frame: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial((position ^ (position >> 32)) as u32);
    hasher.update(&frame[4..]);
    hasher.finalize()
}

/// What a record's header says, before its checksum was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Length of the payload.
    pub payload: usize,
    /// Number within its topic and partition.
    pub sequence: u64,
    /// Index of its topic.
    pub topic: u8,
    /// Its partition.
    pub partition: u16,
}

/// Reads a record's header; `bytes` has at least [`FRAME_BYTES`].
pub(super) fn read_frame_header(bytes: &[u8]) -> FrameHeader {
    FrameHeader {
        payload: u32_at(bytes, 4) as usize,
        sequence: u64_at(bytes, 8),
        topic: bytes[16],
        partition: u16::from_le_bytes([bytes[18], bytes[19]]),
    }
}

/// Records of a group in memory.
#[derive(Debug)]
pub(super) struct Group {
    /// Its place.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The whole of it.
    bytes: Bytes,
    /// Lane in the upper half, offset in the lower: sorted, so that a lane's records stand together in order.
    directory: Box<[u64]>,
}

impl Group {
    /// Checks the records of a whole group and lists them. `bytes` is the group, no more and no less.
    pub(super) fn parse(header: &Header, bytes: Bytes, partitions: u16) -> Result<Arc<Self>, &'static str> {
        let mut directory = Vec::with_capacity(header.records as usize);
        let mut at = HEADER_BYTES;
        for _ in 0..header.records {
            if bytes.len() - at < FRAME_BYTES {
                return Err("a record's header reaches beyond its group");
            }
            let frame = read_frame_header(&bytes[at..]);
            let length = frame_bytes(frame.payload);
            if bytes.len() - at < length {
                return Err("a record reaches beyond its group");
            }
            let end = at + FRAME_BYTES + frame.payload;
            if u32_at(&bytes, at) != frame_crc(header.start + at as u64, &bytes[at..end]) {
                return Err("a record has a wrong checksum");
            }
            if bytes[end..at + length].iter().any(|&byte| byte != 0) {
                return Err("the padding of a record is not empty");
            }
            let Some(&topic) = Topic::ALL.get(frame.topic as usize) else {
                return Err("a record has no known topic");
            };
            if frame.partition >= partitions {
                return Err("a record has no known partition");
            }
            directory.push(u64::from(lane_id(topic, frame.partition, partitions)) << 32 | at as u64);
            at += length;
        }
        if at != bytes.len() {
            return Err("the group has bytes after its last record");
        }
        directory.sort_unstable();
        Ok(Arc::new(Self {
            start: header.start,
            end: header.start + u64::from(header.bytes),
            at: header.at,
            bytes,
            directory: directory.into_boxed_slice(),
        }))
    }

    /// The whole group as it stands on disk.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The lanes that have records here, with their places in the directory.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (LaneId, Range<usize>)> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let lane = self.directory.get(from)? >> 32;
            let length = self.directory[from..].iter().take_while(|&&item| item >> 32 == lane).count();
            let range = from..from + length;
            from += length;
            Some((lane as LaneId, range))
        })
    }

    /// Places in the directory of a lane's records after a position.
    pub(super) fn after(&self, lane: LaneId, cursor: u64) -> Range<usize> {
        let key = u64::from(lane) << 32;
        // No record begins at offset 0, where the group's header stands.
        let offset = cursor.saturating_sub(self.start).min(u64::from(u32::MAX));
        let from = self.directory.partition_point(|&item| item <= key | offset);
        let to = self.directory.partition_point(|&item| item >> 32 <= u64::from(lane));
        from..to.max(from)
    }

    /// The position of a place in the directory.
    pub(super) fn position(&self, index: usize) -> u64 {
        self.start + (self.directory[index] & u64::from(u32::MAX))
    }

    /// The number, within its lane, of the record at a place in the directory.
    pub(super) fn sequence(&self, index: usize) -> u64 {
        let at = (self.directory[index] & u64::from(u32::MAX)) as usize;
        read_frame_header(&self.bytes[at..]).sequence
    }

    /// The record at a place in the directory; its payload shares this group's bytes.
    pub(super) fn entry(&self, index: usize) -> Entry {
        let at = (self.directory[index] & u64::from(u32::MAX)) as usize;
        let payload = read_frame_header(&self.bytes[at..]).payload;
        Entry {
            position: Position(self.start + at as u64),
            appended_at: self.at,
            payload: self.bytes.slice(at + FRAME_BYTES..at + FRAME_BYTES + payload),
        }
    }
}

/// Builds a group's bytes.
pub(super) struct GroupBuilder {
    start: u64,
    bytes: Vec<u8>,
    directory: Vec<u64>,
}

impl GroupBuilder {
    /// A group at a place, of a length and a number of records that are known beforehand.
    pub(super) fn new(start: u64, bytes: usize, records: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes);
        buffer.resize(HEADER_BYTES, 0);
        Self { start, bytes: buffer, directory: Vec::with_capacity(records) }
    }

    /// Adds a record and says where it stands.
    pub(super) fn push(&mut self, topic: Topic, partition: u16, lane: LaneId, sequence: u64, payload: &[u8]) -> Position {
        let at = self.bytes.len();
        let mut head = [0; FRAME_BYTES];
        head[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&sequence.to_le_bytes());
        head[16] = topic.index() as u8;
        head[18..20].copy_from_slice(&partition.to_le_bytes());
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(payload);
        let position = self.start + at as u64;
        let crc = frame_crc(position, &self.bytes[at..]);
        self.bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        self.bytes.resize(at + frame_bytes(payload.len()), 0);
        self.directory.push(u64::from(lane) << 32 | at as u64);
        Position(position)
    }

    /// Seals the group.
    pub(super) fn finish(self, log_id: u64, previous_end: u64, at: Timestamp) -> Arc<Group> {
        let Self { start, mut bytes, mut directory } = self;
        let length = bytes.len() as u32;
        bytes[0..8].copy_from_slice(&magic(log_id).to_le_bytes());
        bytes[8..16].copy_from_slice(&start.to_le_bytes());
        bytes[16..24].copy_from_slice(&previous_end.to_le_bytes());
        bytes[24..32].copy_from_slice(&at.as_micros().to_le_bytes());
        bytes[32..36].copy_from_slice(&length.to_le_bytes());
        bytes[36..40].copy_from_slice(&(directory.len() as u32).to_le_bytes());
        let crc = crc32fast::hash(&bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        directory.sort_unstable();
        let end = start + u64::from(length);
        Arc::new(Group { start, end, at, bytes: Bytes::from(bytes), directory: directory.into_boxed_slice() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_ID: u64 = 0x1234_5678_9abc_def0;

    fn group() -> Arc<Group> {
        let mut builder = GroupBuilder::new(4096, 0, 3);
        builder.push(Topic::Inbound, 1, lane_id(Topic::Inbound, 1, 4), 1, b"one");
        builder.push(Topic::Bulk, 3, lane_id(Topic::Bulk, 3, 4), 7, b"");
        builder.push(Topic::Inbound, 1, lane_id(Topic::Inbound, 1, 4), 2, &[9; 40]);
        builder.finish(LOG_ID, 4000, Timestamp(77))
    }

    fn parse(bytes: &[u8]) -> Result<Arc<Group>, &'static str> {
        match read_header(bytes, LOG_ID, 4096) {
            Found::Header(header) if header.bytes as usize == bytes.len() => Group::parse(&header, Bytes::copy_from_slice(bytes), 4),
            Found::Header(_) => Err("another length"),
            Found::Empty => Err("empty"),
            Found::Bad(what) => Err(what),
        }
    }

    #[test]
    fn a_group_reads_back_as_it_was_built() {
        let built = group();
        let read = parse(built.bytes()).unwrap();
        let lane = lane_id(Topic::Inbound, 1, 4);
        let lanes: Vec<_> = read.lanes().map(|(lane, range)| (lane, range.len())).collect();
        assert_eq!(lanes, [(lane, 2), (lane_id(Topic::Bulk, 3, 4), 1)]);
        let payloads: Vec<_> = read.after(lane, 0).map(|index| read.entry(index).payload).collect();
        assert_eq!(payloads, [Bytes::from_static(b"one"), Bytes::from(vec![9; 40])]);
        let first = read.entry(read.after(lane, 0).start);
        assert_eq!(read.after(lane, first.position.0).len(), 1);
        assert_eq!(read.after(lane, read.end).len(), 0);
        assert_eq!((read.end, first.appended_at), (built.end, Timestamp(77)));
        assert_eq!(read.after(lane, 0).map(|index| read.sequence(index)).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let built = group();
        for bit in 0..built.bytes().len() * 8 {
            let mut bytes = built.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bytes).is_err(), "bit {bit}");
        }
        for cut in HEADER_BYTES..built.bytes().len() {
            assert!(parse(&built.bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }
}
