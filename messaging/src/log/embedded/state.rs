//! What is known of each lane (a topic's partition): what waits, what was taken, what is finished.
//!
//! For each lane the places of the groups that have records for it are kept, so a shard goes straight to its next record,
//! however much of others stands between. Their number is limited; a lane that has more (a dense one, therefore) finds the
//! rest by going through the groups from `scan_from` on. One scan serves every lane that stands in its range.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cache::GroupCache;
use super::finished::Done;
use super::format::{Group, LaneId};
use super::walk::Extent;
use crate::clock::Timestamp;
use crate::log::{Entry, Lag, Topic};

/// Most places of groups that are kept for all lanes together (24 bytes each), and the least for one lane.
const MARKS_MAX: usize = 1 << 20;
const LANE_MARKS_MIN: usize = 64;
/// Room for this many is kept when none is left.
const LANE_MARKS_IDLE: usize = 1024;
/// Most groups that one look into the ring goes through.
const FEED_GROUPS_MAX: usize = 1024;
/// What a lagging shard reads at once, at most and at least.
pub(super) const READ_BYTES_MAX: u64 = 256 << 10;
const READ_BYTES_MIN: u64 = 16 << 10;

/// A group that has unfinished records of a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// The group's place.
    pub start: u64,
    /// The lane's last record in it.
    pub last: u64,
    /// When the group was written.
    pub at: Timestamp,
}

/// A topic's partition.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Groups with records to be taken, in order. With `scan_from`, the first of them.
    waiting: VecDeque<Mark>,
    /// Groups from here on were not looked at yet for this lane; none when `waiting` has all.
    scan_from: Option<u64>,
    /// A time that is not after that of the first record that stands behind `scan_from`.
    scan_at: Timestamp,
    /// Groups whose records were taken and are not finished.
    taken: VecDeque<Mark>,
    /// The last position that was taken or passed over.
    cursor: u64,
    /// The number of the last record.
    appended: u64,
    /// How far it is finished, durably.
    finished: Done,
}

/// A segment on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// Where it stands.
    pub extent: Extent,
    /// Not before the time of its newest record.
    pub newest: Timestamp,
}

/// What a take came to.
pub(super) enum Taken {
    /// These records; none when there are none now.
    Entries(Vec<Entry>),
    /// The next record is on disk only: read about `bytes` from the group at `from` on, and come back.
    Read {
        /// A group's place, or where a group ended.
        from: u64,
        /// How much is worth reading.
        bytes: u64,
    },
}

/// Groups that were read back, with no gap between them but damage.
pub(super) struct ReadBack {
    /// Where the reading began.
    pub from: u64,
    /// Where it stopped.
    pub next: u64,
    /// The groups.
    pub groups: Vec<Arc<Group>>,
    /// Whether a damaged range was passed over.
    pub skipped: bool,
}

/// All that the threads share about records, under one lock that is held for microseconds.
pub(super) struct State {
    partitions: u16,
    lanes: Vec<Lane>,
    /// Most marks of a lane, of each kind.
    pub lane_marks_max: usize,
    pub cache: GroupCache,
    /// Where the last durable group ends.
    pub end: u64,
    /// On disk, in order: old ones, the one being written, the one prepared.
    pub segments: VecDeque<Segment>,
    /// The place of the segment being written.
    pub active: u64,
    /// Whether the log was closed.
    pub closed: bool,
}

impl Lane {
    fn first_unfinished(&self) -> Option<u64> {
        self.taken.front().or(self.waiting.front()).map(|mark| mark.start).or(self.scan_from)
    }

    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.scan_from.is_some()
    }

    fn note_taken(&mut self, mark: Mark, max: usize) {
        let no_room = self.taken.len() >= max;
        match self.taken.back_mut() {
            // A part of the group was taken before; or no room is left, and two become one.
            Some(newest) if newest.start == mark.start || no_room => newest.last = mark.last,
            Some(_) | None => self.taken.push_back(mark),
        }
    }
}

impl State {
    /// A state with nothing in it.
    pub(super) fn new(partitions: u16, finished: &[Done], end: u64) -> Self {
        let lanes =
            finished.iter().map(|&finished| Lane { cursor: finished.position, appended: finished.sequence, finished, ..Lane::default() });
        let lanes: Vec<Lane> = lanes.collect();
        let lane_marks_max = (MARKS_MAX / lanes.len().max(1)).max(LANE_MARKS_MIN);
        Self { partitions, lanes, lane_marks_max, cache: GroupCache::default(), end, segments: VecDeque::new(), active: 0, closed: false }
    }

    /// Notes the records of a group that is durable. Says in how many lanes the group waits.
    pub(super) fn note(&mut self, group: &Group) -> usize {
        let mut waiting = 0;
        for (id, range) in group.lanes() {
            let lane = &mut self.lanes[id as usize];
            let last = range.end - 1;
            if lane.appended == 0 {
                // Also where the finished positions were lost and everything comes again.
                lane.finished.sequence = group.sequence(range.start).saturating_sub(1);
            }
            lane.appended = lane.appended.max(group.sequence(last));
            let mark = Mark { start: group.start, last: group.position(last), at: group.at };
            if mark.last <= lane.cursor || lane.scan_from.is_some() {
                continue;
            }
            if lane.waiting.len() >= self.lane_marks_max {
                lane.scan_from = Some(group.start);
                lane.scan_at = group.at;
                continue;
            }
            lane.waiting.push_back(mark);
            waiting += 1;
        }
        self.end = group.end;
        waiting
    }

    /// Publishes a group: its records can be taken from now on.
    pub(super) fn publish(&mut self, group: &Arc<Group>) {
        let waiting = self.note(group);
        self.cache.publish(group.clone(), waiting);
        if let Some(segment) = self.segment_mut(group.start) {
            segment.newest = segment.newest.max(group.at);
        }
    }

    /// The segment that has a place.
    pub(super) fn segment_mut(&mut self, place: u64) -> Option<&mut Segment> {
        let index = self.segments.partition_point(|segment| segment.extent.end() <= place);
        self.segments.get_mut(index).filter(|segment| segment.extent.base <= place)
    }

    /// The segments' extents.
    pub(super) fn extents(&self) -> Vec<Extent> {
        self.segments.iter().map(|segment| segment.extent).collect()
    }

    /// Bytes of all segments.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.extent.length).sum()
    }

    /// Whether a shard may have a record to take.
    pub(super) fn has_waiting(&self, shard: u16) -> bool {
        let lanes = self.lanes.iter().skip(shard as usize).step_by(self.partitions as usize);
        self.closed || lanes.into_iter().any(Lane::has_waiting)
    }

    /// The numbers of the last records, by lane.
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.lanes.iter().map(|lane| lane.appended).collect()
    }

    /// The number of a lane's last record.
    pub(super) fn appended(&self, lane: LaneId) -> u64 {
        self.lanes[lane as usize].appended
    }

    /// Every record before this place is finished.
    pub(super) fn low(&self) -> u64 {
        self.lanes.iter().filter_map(Lane::first_unfinished).min().unwrap_or(self.end).min(self.end)
    }

    /// Goes back to a shard's finished positions: what was taken since comes again.
    pub(super) fn restart(&mut self, shard: u16) {
        for lane in self.lanes.iter_mut().skip(shard as usize).step_by(self.partitions as usize) {
            let first = lane.taken.front().or(lane.waiting.front());
            if let Some(mark) = first {
                (lane.scan_from, lane.scan_at) = (Some(mark.start), mark.at);
            }
            lane.taken.clear();
            lane.waiting.clear();
            lane.cursor = lane.finished.position;
        }
    }

    /// Takes up to `max` records of a lane from memory, or says what to read.
    pub(super) fn take(&mut self, id: LaneId, max: usize) -> Taken {
        let mut entries = Vec::new();
        while entries.len() < max {
            self.look_into_ring(id);
            let lane = &mut self.lanes[id as usize];
            let Some(&mark) = lane.waiting.front() else {
                match lane.scan_from {
                    Some(from) if entries.is_empty() => return Taken::Read { from, bytes: READ_BYTES_MAX },
                    Some(_) | None => break,
                }
            };
            let Some(group) = self.cache.get(mark.start) else {
                if entries.is_empty() {
                    return Taken::Read { from: mark.start, bytes: lane.worth_reading() };
                }
                break;
            };
            let places = group.after(id, lane.cursor);
            let chosen = places.start..places.end.min(places.start + (max - entries.len()));
            for place in chosen.clone() {
                entries.push(group.entry(place));
            }
            if let Some(last) = chosen.clone().last() {
                lane.cursor = group.position(last);
                lane.note_taken(Mark { last: lane.cursor, ..mark }, self.lane_marks_max);
            }
            if chosen.end == places.end {
                lane.waiting.pop_front();
                self.cache.release(mark.start);
            }
        }
        if entries.is_empty() {
            self.rest();
        }
        Taken::Entries(entries)
    }

    /// Lets memory go when nobody waits for it.
    fn rest(&mut self) {
        if self.cache.has_read_back() && !self.lanes.iter().any(Lane::has_waiting) {
            self.cache.forget_read_back();
        }
    }

    /// A lane that has to look for its groups finds the newest in memory.
    fn look_into_ring(&mut self, id: LaneId) {
        let lane = &self.lanes[id as usize];
        let (true, Some(from)) = (lane.waiting.is_empty(), lane.scan_from) else { return };
        let groups = self.cache.newest_from(from, FEED_GROUPS_MAX);
        if let Some(last) = groups.last() {
            let next = last.end;
            self.feed(from, next, &groups);
        }
    }

    /// Takes groups that were read back: lanes that look for theirs in this range find them.
    pub(super) fn take_back(&mut self, back: ReadBack) {
        if back.skipped {
            self.forget_damaged(&back);
        }
        self.feed(back.from, back.next, &back.groups);
        for group in back.groups {
            self.cache.keep(group);
        }
    }

    fn feed(&mut self, from: u64, next: u64, groups: &[Arc<Group>]) {
        let mut full = Vec::new();
        for group in groups {
            for (id, range) in group.lanes() {
                let lane = &mut self.lanes[id as usize];
                let looks = lane.scan_from.is_some_and(|scan| from <= scan && scan <= group.start);
                let last = group.position(range.end - 1);
                if !looks || last <= lane.cursor || full.contains(&id) {
                    continue;
                }
                if lane.waiting.len() >= self.lane_marks_max {
                    lane.scan_from = Some(group.start);
                    lane.scan_at = group.at;
                    full.push(id);
                    continue;
                }
                lane.waiting.push_back(Mark { start: group.start, last, at: group.at });
            }
        }
        let end = self.end;
        for (id, lane) in self.lanes.iter_mut().enumerate() {
            let passed = lane.scan_from.is_some_and(|scan| from <= scan && scan < next);
            if passed && !full.contains(&(id as LaneId)) {
                lane.scan_from = Some(next).filter(|&next| next < end);
            }
        }
    }

    /// Groups that could not be read any more are waited for no longer.
    fn forget_damaged(&mut self, back: &ReadBack) {
        for lane in &mut self.lanes {
            lane.waiting.retain(|mark| {
                let gone = back.from <= mark.start && mark.start < back.next;
                !gone || back.groups.iter().any(|group| group.start == mark.start)
            });
        }
    }

    /// A lane is finished up to a position, durably.
    pub(super) fn finish(&mut self, id: LaneId, done: Done) {
        let lane = &mut self.lanes[id as usize];
        if done.position <= lane.finished.position {
            return;
        }
        lane.finished = done;
        lane.cursor = lane.cursor.max(done.position);
        while lane.taken.front().is_some_and(|mark| mark.last <= done.position) {
            lane.taken.pop_front();
        }
        while let Some(mark) = lane.waiting.front().copied().filter(|mark| mark.last <= done.position) {
            lane.waiting.pop_front();
            self.cache.release(mark.start);
        }
        for marks in [&mut lane.waiting, &mut lane.taken] {
            if marks.is_empty() && marks.capacity() > LANE_MARKS_IDLE {
                *marks = VecDeque::new();
            }
        }
    }

    /// How far behind each lane is.
    pub(super) fn lag(&self) -> Vec<Lag> {
        let lags = self.lanes.iter().enumerate().map(|(id, lane)| {
            let topic = Topic::ALL[id / self.partitions as usize];
            let partition = (id % self.partitions as usize) as u16;
            let busy = lane.first_unfinished().is_some() && lane.appended > lane.finished.sequence;
            let records = if busy { lane.appended - lane.finished.sequence } else { 0 };
            let oldest_at = busy.then(|| lane.taken.front().or(lane.waiting.front()).map_or(lane.scan_at, |mark| mark.at));
            Lag { topic, partition, records, oldest_at }
        });
        lags.collect()
    }
}

impl Lane {
    /// How much to read so that the next groups that are known, and near, come with the first.
    fn worth_reading(&self) -> u64 {
        let Some(first) = self.waiting.front() else { return READ_BYTES_MIN };
        let known = self.waiting.partition_point(|mark| mark.last < first.start + READ_BYTES_MAX);
        let until = known.checked_sub(1).map_or(first.start, |index| self.waiting[index].last);
        (until - first.start + READ_BYTES_MIN).min(READ_BYTES_MAX)
    }
}
