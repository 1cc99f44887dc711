//! A log in a temporary folder, and the few things that tests do with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{ManualClock, Timestamp};
use crate::log::embedded::EmbeddedLog;
use crate::log::embedded::disk::Faults;
use crate::log::{
    AppendError, ClaimChange, EmbeddedSettings, Entry, Finished, Fsync, Log, LogError, NewRecord, Position, ShardReader, Topic,
};

pub(super) const PARTITIONS: u16 = 4;

/// A folder, a clock, and settings to open logs with.
pub(super) struct Place {
    _dir: Option<tempfile::TempDir>,
    pub clock: Arc<ManualClock>,
    pub settings: EmbeddedSettings,
    pub faults: Option<Faults>,
    /// One more than the newest number whose finish was asked for and not confirmed.
    pub asked: std::cell::Cell<usize>,
}

/// An open log with all its readers.
pub(super) struct Opened {
    pub log: EmbeddedLog,
    pub readers: Vec<Box<dyn ShardReader>>,
}

pub(super) fn settings(dir: &Path) -> EmbeddedSettings {
    EmbeddedSettings {
        dir: dir.to_path_buf(),
        partitions: PARTITIONS,
        segment_bytes: 64 << 10,
        fsync: Fsync::Group,
        retention: Duration::from_secs(3600),
        max_bytes: 1 << 30,
        max_record: 32 << 10,
        skip_damage: false,
    }
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        Self {
            _dir: Some(dir),
            clock: ManualClock::at(Timestamp::from_secs(1_000_000)),
            settings,
            faults: None,
            asked: std::cell::Cell::default(),
        }
    }

    pub(super) fn with(change: impl FnOnce(&mut EmbeddedSettings)) -> Self {
        let mut place = Self::new();
        change(&mut place.settings);
        place
    }

    pub(super) fn dir(&self) -> &Path {
        &self.settings.dir
    }

    /// Another's folder, on a disk that is well.
    pub(super) fn of(other: &Self) -> Self {
        Self { _dir: None, clock: other.clock.clone(), settings: other.settings.clone(), faults: None, asked: std::cell::Cell::default() }
    }

    pub(super) fn try_open(&self) -> Result<EmbeddedLog, LogError> {
        EmbeddedLog::open_with(self.settings.clone(), self.clock.clone(), self.faults.clone())
    }

    pub(super) async fn open(&self) -> Opened {
        let log = self.try_open().unwrap();
        let ClaimChange::Assigned(readers) = log.claims().await else { panic!("the first claim assigns") };
        Opened { log, readers }
    }

    /// The folder as a crash of this instant would leave it, opened as another place.
    pub(super) fn crashed(&self) -> Self {
        // Upkeep may be at work: only a copy between two looks that are the same is of one instant.
        let copy = loop {
            let before = self.look();
            let copy = tempfile::tempdir().unwrap();
            let copied = before.0.iter().all(|name| std::fs::copy(self.dir().join(name), copy.path().join(name)).is_ok());
            if copied && self.look() == before {
                break copy;
            }
        };
        let settings = EmbeddedSettings { dir: copy.path().to_path_buf(), ..self.settings.clone() };
        Self { _dir: Some(copy), clock: self.clock.clone(), settings, faults: None, asked: std::cell::Cell::default() }
    }

    fn look(&self) -> (Vec<std::ffi::OsString>, Vec<u8>) {
        let mut names: Vec<_> = std::fs::read_dir(self.dir()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        (names, std::fs::read(self.dir().join("finished")).unwrap())
    }

    /// The segments' files, in order.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.dir()).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "seg"));
        files.sort();
        files
    }
}

pub(super) fn record(topic: Topic, partition: u16, payload: impl Into<Bytes>) -> NewRecord {
    NewRecord { topic, partition, payload: payload.into() }
}

/// A payload that tells which one it is, of a length.
pub(super) fn payload(number: usize, length: usize) -> Bytes {
    let mut bytes = format!("{number}:").into_bytes();
    bytes.resize(length.max(bytes.len()), (number % 251) as u8);
    Bytes::from(bytes)
}

pub(super) fn number(entry: &Entry) -> usize {
    let text = entry.payload.split(|&byte| byte == b':').next().unwrap();
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

impl Opened {
    pub(super) async fn try_append(&self, batch: Vec<NewRecord>) -> Vec<Result<Position, AppendError>> {
        tokio::time::timeout(Duration::from_secs(60), self.log.append(batch)).await.expect("append hangs")
    }

    pub(super) async fn append(&self, batch: Vec<NewRecord>) -> Vec<Position> {
        self.try_append(batch).await.into_iter().map(|result| result.unwrap()).collect()
    }

    /// Appends numbered records, one batch.
    pub(super) async fn append_numbers(
        &self,
        topic: Topic,
        partition: u16,
        numbers: std::ops::Range<usize>,
        length: usize,
    ) -> Vec<Position> {
        self.append(numbers.map(|number| record(topic, partition, payload(number, length))).collect()).await
    }

    /// Takes everything that a topic of a shard has now.
    pub(super) async fn drain(&mut self, topic: Topic, shard: u16) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            let more = self.readers[shard as usize].take(topic, 64).await.unwrap();
            if more.is_empty() {
                return entries;
            }
            entries.extend(more);
        }
    }

    pub(super) async fn drain_numbers(&mut self, topic: Topic, shard: u16) -> Vec<usize> {
        self.drain(topic, shard).await.iter().map(number).collect()
    }

    pub(super) async fn finish(&self, topic: Topic, shard: u16, position: Position) {
        self.log.finish(vec![Finished { topic, shard, position }]).await.unwrap();
    }

    /// Looks until something is so that another thread brings about.
    pub(super) async fn until(&self, what: &str, so: impl Fn(&EmbeddedLog) -> bool) {
        let looking = async {
            while !so(&self.log) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap_or_else(|_| panic!("never came: {what}"));
    }
}
