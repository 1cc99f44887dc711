//! The finished positions on disk: one small preallocated file with two slots.
//!
//! Each write goes to the slot that does not hold the newest intact state, so a crash at any byte leaves the other one whole;
//! the slot with the higher generation counts. A failed write is tried again in the same slot, for the same reason.
//!
//! ```text
//! slot   0  u64  magic, mixed with the log's random id
//!        8  u64  generation
//!       16  u64  known end: every group before it is durable, so a log that ends earlier is damaged and not torn
//!       24  u64  low: every record before it is finished; recovery begins here
//!       32  u32  number of lanes, then u32 zero
//!       40       for each lane: u64 finished position, u64 its number within the lane
//!        …  u32  crc32 of all before
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::disk::{Disk, DurableFile, Site};
use super::format::u64_at;
use crate::log::LogError;

/// The file's name.
pub(super) const NAME: &str = "finished";
const MAGIC: u64 = u64::from_le_bytes(*b"TRUNKFN1");
const HEAD_BYTES: usize = 40;
const LANE_BYTES: usize = 16;
/// Slots begin at multiples of this, so that writing one never touches a page of the other.
const SLOT_ALIGN: usize = 4096;

/// How far a lane is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Done {
    /// Up to and including this position; 0 when nothing is.
    pub position: u64,
    /// Its number within the lane, from 1.
    pub sequence: u64,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FinishedState {
    /// Every group before this place is durable.
    pub known_end: u64,
    /// Every record before this place is finished.
    pub low: u64,
    /// By lane.
    pub lanes: Vec<Done>,
}

/// The open file.
pub(super) struct FinishedFile {
    disk: Disk,
    file: DurableFile,
    log_id: u64,
    generation: u64,
    /// What is durable.
    pub state: FinishedState,
}

fn slot_bytes(lanes: usize) -> usize {
    (HEAD_BYTES + lanes * LANE_BYTES + 4).next_multiple_of(SLOT_ALIGN)
}

fn encode(state: &FinishedState, log_id: u64, generation: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(slot_bytes(state.lanes.len()));
    for number in [MAGIC ^ log_id, generation, state.known_end, state.low, state.lanes.len() as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for lane in &state.lanes {
        bytes.extend_from_slice(&lane.position.to_le_bytes());
        bytes.extend_from_slice(&lane.sequence.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], log_id: u64, lanes: usize) -> Option<(u64, FinishedState)> {
    let end = HEAD_BYTES + lanes * LANE_BYTES;
    let crc = u32::from_le_bytes(bytes.get(end..end + 4)?.try_into().ok()?);
    let intact = crc == crc32fast::hash(&bytes[..end]) && u64_at(bytes, 0) == MAGIC ^ log_id && u64_at(bytes, 32) == lanes as u64;
    if !intact {
        return None;
    }
    let lanes = bytes[HEAD_BYTES..end].chunks_exact(LANE_BYTES);
    let lanes = lanes.map(|lane| Done { position: u64_at(lane, 0), sequence: u64_at(lane, 8) }).collect();
    Some((u64_at(bytes, 8), FinishedState { known_end: u64_at(bytes, 16), low: u64_at(bytes, 24), lanes }))
}

impl FinishedFile {
    /// Makes the file, with nothing finished.
    pub(super) fn create(disk: &Disk, log_id: u64, lanes: usize) -> Result<Self, LogError> {
        let state = FinishedState { known_end: 0, low: 0, lanes: vec![Done::default(); lanes] };
        Self::create_with(disk, log_id, state)
    }

    /// Makes the file anew with a given state.
    pub(super) fn create_with(disk: &Disk, log_id: u64, state: FinishedState) -> Result<Self, LogError> {
        let slot = slot_bytes(state.lanes.len());
        let mut content = encode(&state, log_id, 0);
        content.resize(2 * slot, 0);
        disk.replace(NAME, &content)?;
        let file = disk.open_durable(&disk.dir.join(NAME))?;
        Ok(Self { disk: disk.clone(), file, log_id, generation: 0, state })
    }

    /// Opens the file. `Ok(None)` when it is not there or neither slot is intact.
    pub(super) fn open(disk: &Disk, log_id: u64, lanes: usize) -> Result<Option<Self>, LogError> {
        let path = disk.dir.join(NAME);
        let mut content = Vec::new();
        match File::open(&path) {
            Ok(mut file) => file.read_to_end(&mut content)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::Io(error)),
        };
        let slot = slot_bytes(lanes);
        let slots = [content.get(..slot), content.get(slot..2 * slot)];
        let intact = slots.map(|bytes| bytes.and_then(|bytes| decode(bytes, log_id, lanes)));
        for (bytes, state) in slots.iter().zip(&intact) {
            if state.is_none() && bytes.is_none_or(|bytes| bytes.iter().any(|&byte| byte != 0)) {
                // A crash in the middle of a write looks the same; the other slot then has all that was promised.
                tracing::warn!(file = %path.display(), "one slot of the finished positions is not intact, using the other");
            }
        }
        let Some((generation, state)) = intact.into_iter().flatten().max_by_key(|(generation, _)| *generation) else {
            return Ok(None);
        };
        let file = disk.open_durable(&path)?;
        // A file that was cut short gets its second slot back at the first write.
        Ok(Some(Self { disk: disk.clone(), file, log_id, generation, state }))
    }

    /// Where the file is.
    pub(super) fn path(disk: &Disk) -> PathBuf {
        disk.dir.join(NAME)
    }

    /// Writes a state; durable on return. On an error the state of before still counts.
    pub(super) fn write(&mut self, state: FinishedState) -> io::Result<()> {
        let generation = self.generation + 1;
        let slot = slot_bytes(state.lanes.len()) as u64 * (generation % 2);
        self.disk.write_at(Site::FinishedWrite, &self.file, &encode(&state, self.log_id, generation), slot)?;
        self.generation = generation;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn state(low: u64) -> FinishedState {
        let lanes = vec![Done::default(), Done { position: low, sequence: low / 10 }];
        FinishedState { known_end: low + 1, low, lanes }
    }

    #[test]
    fn a_write_torn_at_any_byte_or_a_flipped_bit_leaves_the_state_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk { dir: dir.path().to_path_buf(), durable: true, faults: None };
        let mut file = FinishedFile::create(&disk, 7, 2).unwrap();
        for low in 1..=5 {
            file.write(state(low)).unwrap();
        }
        assert_eq!(FinishedFile::open(&disk, 7, 2).unwrap().unwrap().state, state(5));
        let newest = encode(&state(6), 7, 6);
        let path = dir.path().join(NAME);
        let before = std::fs::read(&path).unwrap();
        for torn in 0..newest.len() {
            std::fs::write(&path, &before).unwrap();
            let raw = File::options().write(true).open(&path).unwrap();
            raw.write_all_at(&newest[..torn], 0).unwrap();
            assert_eq!(FinishedFile::open(&disk, 7, 2).unwrap().unwrap().state, state(5), "torn at {torn}");
        }
        for bit in 0..newest.len() * 8 {
            let mut flipped = newest.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let raw = File::options().write(true).open(&path).unwrap();
            raw.write_all_at(&flipped, 0).unwrap();
            assert_eq!(FinishedFile::open(&disk, 7, 2).unwrap().unwrap().state, state(5), "bit {bit}");
        }
        std::fs::write(&path, b"neither").unwrap();
        assert!(FinishedFile::open(&disk, 7, 2).unwrap().is_none());
    }

    #[test]
    fn a_failed_write_is_tried_again_in_the_same_slot() {
        let dir = tempfile::tempdir().unwrap();
        let whole = Disk { dir: dir.path().to_path_buf(), durable: true, faults: None };
        let mut file = FinishedFile::create(&whole, 7, 2).unwrap();
        file.write(state(1)).unwrap();
        for written in [0, 20, 60] {
            file.disk.faults = Some(std::sync::Arc::new(move |_| Some(super::super::disk::Fault { written, errno: 28 })));
            assert!(file.write(state(2)).is_err());
            assert_eq!(FinishedFile::open(&whole, 7, 2).unwrap().unwrap().state, state(1));
        }
        file.disk.faults = None;
        file.write(state(3)).unwrap();
        assert_eq!(FinishedFile::open(&whole, 7, 2).unwrap().unwrap().state, state(3));
    }
}
