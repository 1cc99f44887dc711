//! Opening: find the end of the log, cut a torn tail, refuse or pass over damage, and learn what is unfinished.
//!
//! The walk begins at the durable low place, before which everything is finished, so a caught-up log opens in no time and
//! one that lags reads its backlog once (a million records of 1 KiB in about a second), every checksum included.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::core::{Core, Next, Parts};
use super::disk::{self, Disk, Faults};
use super::finished::{Done, FinishedFile, FinishedState};
use super::format::{self, Found, HEADER_BYTES, PARTITIONS_MAX, frame_bytes};
use super::state::{Segment, State};
use super::upkeep;
use super::walk::{Damage, Extent, Step, Walk};
use super::writer::{Active, Writer};
use super::{RECORD_BYTES_MAX, SEGMENT_ALIGN, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::clock::{SharedClock, Timestamp};
use crate::log::{EmbeddedSettings, Fsync, LogError, Topic};

const LOCK: &str = "lock";
const META: &str = "log.json";
const FORMAT: u32 = 1;
/// The walk reads this much at once.
const WALK_BYTES: usize = 4 << 20;

/// What is fixed when the folder is made.
#[derive(Serialize, Deserialize)]
struct Meta {
    format: u32,
    partitions: u16,
    log_id: String,
    crc32: u32,
}

impl Meta {
    fn new(partitions: u16, log_id: u64) -> Self {
        let mut meta = Self { format: FORMAT, partitions, log_id: format!("{log_id:016x}"), crc32: 0 };
        meta.crc32 = meta.checksum();
        meta
    }

    fn checksum(&self) -> u32 {
        crc32fast::hash(format!("{}/{}/{}", self.format, self.partitions, self.log_id).as_bytes())
    }
}

/// What the walk found.
struct Walked {
    /// Where the last group ends.
    end: u64,
    /// A new segment begins here at the earliest; 0 when the log simply goes on at `end`.
    base_min: u64,
}

fn mismatch<T>(sentence: String) -> Result<T, LogError> {
    Err(LogError::Mismatch(sentence))
}

fn check(settings: &mut EmbeddedSettings) -> Result<(), LogError> {
    if settings.partitions == 0 || settings.partitions > PARTITIONS_MAX {
        return mismatch(format!("log.partitions is {}, set it between 1 and {PARTITIONS_MAX}", settings.partitions));
    }
    if settings.max_record > RECORD_BYTES_MAX {
        return mismatch(format!("log.max_record is {}, set it to at most 512 MiB", settings.max_record));
    }
    let needed = (HEADER_BYTES + frame_bytes(settings.max_record)) as u64;
    let segment = settings.segment_bytes;
    if segment < SEGMENT_BYTES_MIN || segment < needed || segment > SEGMENT_BYTES_MAX {
        let least = SEGMENT_BYTES_MIN.max(needed);
        return mismatch(format!("log.embedded.segment is {segment} bytes, set it between {least} (log.max_record must fit) and 2 GiB"));
    }
    settings.segment_bytes = segment.next_multiple_of(SEGMENT_ALIGN);
    if settings.max_bytes < 2 * settings.segment_bytes {
        let least = 2 * settings.segment_bytes;
        return mismatch(format!("log.embedded.max_bytes is {}, set it to at least two segments: {least}", settings.max_bytes));
    }
    Ok(())
}

fn lock_folder(dir: &Path) -> Result<File, LogError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LogError::Locked(dir.to_path_buf())),
        Err(fs::TryLockError::Error(error)) => Err(LogError::Io(error)),
    }
}

/// Reads what is fixed, or fixes it. Returns the log's random id.
fn read_meta(disk: &Disk, partitions: u16, has_segments: bool) -> Result<u64, LogError> {
    let path = disk.dir.join(META);
    let damaged = |what: &str| LogError::Damaged { file: path.clone(), offset: 0, what: what.to_owned(), intact_until: 0 };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !has_segments => {
            let mut random = [0; 8];
            SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("the system gives no random bytes"))?;
            let meta = Meta::new(partitions, u64::from_le_bytes(random));
            let text = serde_json::to_vec(&meta).map_err(io::Error::other)?;
            disk.replace(META, &text)?;
            return Ok(u64::from_le_bytes(random));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("the file is missing beside segments of a log")),
        Err(error) => return Err(LogError::Io(error)),
    };
    let meta: Meta = serde_json::from_slice(&text).map_err(|_| damaged("the file cannot be read"))?;
    let log_id = u64::from_str_radix(&meta.log_id, 16);
    let Some(log_id) = log_id.ok().filter(|_| meta.crc32 == meta.checksum()) else {
        return Err(damaged("the file has a wrong checksum"));
    };
    let dir = disk.dir.display();
    if meta.format != FORMAT {
        return mismatch(format!(
            "the log in {dir} has format {}, this version reads {FORMAT}: use the version that wrote it",
            meta.format
        ));
    }
    if meta.partitions != partitions {
        let was = meta.partitions;
        return mismatch(format!(
            "the log in {dir} was made with {was} partitions and the settings say {partitions}: set log.partitions = {was}, or let it drain and start with a new folder"
        ));
    }
    Ok(log_id)
}

/// The segments in the folder, in order. What was not finished being made is deleted.
fn list_segments(dir: &Path) -> io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        let name = file.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(disk::UNFINISHED) {
            fs::remove_file(file.path())?;
        } else if let Some(base) = name.strip_suffix(".seg").and_then(|base| u64::from_str_radix(base, 16).ok()) {
            let extent = Extent { base, length: file.metadata()?.len() };
            if extent.name() == name {
                extents.push(extent);
            }
        }
    }
    extents.sort_unstable_by_key(|extent| extent.base);
    for index in 1..extents.len() {
        let room = extents[index].base - extents[index - 1].base;
        let extent = &mut extents[index - 1];
        extent.length = extent.length.min(room);
    }
    Ok(extents)
}

fn open_finished(disk: &Disk, log_id: u64, lanes: usize, extents: &[Extent], skip_damage: bool) -> Result<FinishedFile, LogError> {
    if let Some(file) = FinishedFile::open(disk, log_id, lanes)? {
        return Ok(file);
    }
    let Some(first) = extents.first() else {
        return FinishedFile::create(disk, log_id, lanes);
    };
    let (file, what) = (FinishedFile::path(disk), "no slot of the finished positions is intact".to_owned());
    if !skip_damage {
        return Err(LogError::Damaged { file, offset: 0, what, intact_until: 0 });
    }
    tracing::error!(file = %file.display(), what, "the finished positions are lost, every record on disk comes again");
    let state = FinishedState { known_end: 0, low: first.base, lanes: vec![Done::default(); lanes] };
    FinishedFile::create_with(disk, log_id, state)
}

/// Goes through all groups from the low place on.
fn walk_all(settings: &EmbeddedSettings, log_id: u64, finished: &FinishedState, state: &mut State) -> Result<Walked, LogError> {
    let mut walk = Walk::new(&settings.dir, log_id, settings.partitions, state.extents(), u64::MAX, WALK_BYTES);
    let (mut at, mut previous_end) = (finished.low, None);
    loop {
        let damage = match walk.step(at, previous_end)? {
            Step::Group(group) => {
                at = group.end;
                previous_end = Some(at);
                state.note(&group);
                if let Some(segment) = state.segment_mut(group.start) {
                    segment.newest = segment.newest.max(group.at);
                }
                continue;
            }
            Step::End if at >= finished.known_end => break,
            Step::End => {
                let (file, offset) = walk.locate(at);
                let what = format!("groups that were durable, up to {}, are missing or damaged", finished.known_end);
                Damage { file, offset, what, next: None }
            }
            Step::Damage(damage) => damage,
        };
        if !settings.skip_damage {
            return Err(walk.refuse(damage));
        }
        let file = damage.file.display();
        tracing::error!(%file, offset = damage.offset, what = damage.what, from = at, to = damage.next, "skipped a damaged range of the log");
        match damage.next {
            Some(next) => (at, previous_end) = (next, None),
            None => break,
        }
    }
    // Places that were used must not be used again: a new record there would count as finished.
    let used = finished.lanes.iter().map(|lane| lane.position + 1).max().unwrap_or(0).max(finished.known_end);
    let base_min = if used > at && used > 1 { used } else { 0 };
    state.end = at;
    Ok(Walked { end: at, base_min })
}

/// Cuts what stands behind the end, and keeps a prepared segment. Returns the segment that is written next, if any has room.
fn cut(disk: &Disk, state: &mut State, walked: &Walked) -> Result<(Option<Extent>, Next), LogError> {
    let mut active = None;
    let mut next = Next::Preparing;
    let mut kept = std::collections::VecDeque::new();
    for segment in std::mem::take(&mut state.segments) {
        let extent = segment.extent;
        let path = disk.dir.join(extent.name());
        if extent.end() <= walked.end {
            kept.push_back(segment);
            continue;
        }
        if extent.base <= walked.end {
            if disk.clear(&path, walked.end - extent.base, extent.length)? {
                tracing::warn!(file = %path.display(), offset = walked.end - extent.base, "cut a torn tail of the log");
            }
            kept.push_back(segment);
            active = Some(extent);
            continue;
        }
        let usable = walked.base_min == 0 && next == Next::Preparing;
        if usable && disk.is_zeros(&path)? {
            kept.push_back(segment);
            next = Next::Ready(extent);
            continue;
        }
        fs::remove_file(&path)?;
    }
    state.segments = kept;
    state.active = active.map_or(walked.end, |extent| extent.base);
    if walked.base_min > 0 {
        active = None;
    }
    Ok((active, next))
}

/// Segments that were not walked through get the time of the first group after them.
fn date_old_segments(disk: &Disk, log_id: u64, state: &mut State, now: Timestamp) -> io::Result<()> {
    let mut after = now;
    for index in (0..state.segments.len()).rev() {
        let extent = state.segments[index].extent;
        if state.segments[index].newest == Timestamp::ZERO {
            state.segments[index].newest = after;
        }
        let mut head = [0; HEADER_BYTES];
        if extent.length >= HEADER_BYTES as u64 {
            File::open(disk.dir.join(extent.name()))?.read_exact(&mut head)?;
        }
        match format::read_header(&head, log_id, extent.base) {
            Found::Header(header) => after = header.at,
            Found::Empty | Found::Bad(_) => {}
        }
    }
    Ok(())
}

/// Opens the log: the shared part, and the writer that is ready to run.
pub(super) fn open(mut settings: EmbeddedSettings, clock: SharedClock, faults: Option<Faults>) -> Result<(Arc<Core>, Writer), LogError> {
    check(&mut settings)?;
    fs::create_dir_all(&settings.dir)?;
    let folder_lock = lock_folder(&settings.dir)?;
    let durable = match settings.fsync {
        Fsync::Group | Fsync::Each => true,
        Fsync::Never => false,
    };
    let disk = Disk { dir: settings.dir.clone(), durable, faults };
    let lanes = usize::from(settings.partitions) * Topic::ALL.len();
    let extents = list_segments(&settings.dir)?;
    let log_id = read_meta(&disk, settings.partitions, !extents.is_empty())?;
    let mut finished = open_finished(&disk, log_id, lanes, &extents, settings.skip_damage)?;

    let mut state = State::new(settings.partitions, &finished.state.lanes, finished.state.low);
    state.segments = extents.iter().map(|&extent| Segment { extent, newest: Timestamp::ZERO }).collect();
    let walked = walk_all(&settings, log_id, &finished.state, &mut state)?;
    let (active, mut next) = cut(&disk, &mut state, &walked)?;
    date_old_segments(&disk, log_id, &mut state, clock.now())?;
    if walked.base_min > 0 {
        let lanes = finished.state.lanes.clone();
        finished.write(FinishedState { known_end: 0, low: state.low(), lanes })?;
    }
    if active.is_none() && next == Next::Preparing {
        next = make_first(&disk, &settings, &mut state, walked.base_min)?;
    }
    let active = match active {
        Some(extent) => Some(Active { extent, file: disk.open_durable(&disk.dir.join(extent.name()))? }),
        None => None,
    };
    let sequences = state.sequences();
    let parts = Parts { settings, clock, disk, log_id, state, finished, next, base_min: walked.base_min, folder_lock };
    let core = Arc::new(Core::new(parts));
    let work = std::collections::VecDeque::new();
    let writer = Writer {
        core: core.clone(),
        active,
        unopened: None,
        at: walked.end,
        previous_end: walked.end,
        leftovers_until: 0,
        sequences,
        work,
    };
    Ok((core, writer))
}

/// The segment for the first group, so that a folder that cannot be written to is told at once.
fn make_first(disk: &Disk, settings: &EmbeddedSettings, state: &mut State, base_min: u64) -> Result<Next, LogError> {
    let extent = upkeep::next_extent(state, base_min, settings.segment_bytes);
    if state.disk_bytes() + extent.length > settings.max_bytes {
        return Ok(Next::Preparing);
    }
    match disk.make_zeros(&extent.name(), extent.length, &|| false) {
        Ok(()) => {
            state.segments.push_back(Segment { extent, newest: Timestamp::ZERO });
            Ok(Next::Ready(extent))
        }
        Err(error) if disk::is_full(&error) => Ok(Next::Preparing),
        Err(error) => Err(LogError::Io(error)),
    }
}
