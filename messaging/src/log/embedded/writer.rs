//! The writer: one thread that makes append calls durable, all that wait with one write.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::core::{Core, NoSegment};
use super::disk::{self, DurableFile, Site};
use super::format::{self, Group, GroupBuilder, HEADER_BYTES, frame_bytes};
use super::queue::{Call, PENDING};
use super::walk::Extent;
use crate::log::{AppendError, Finished, Fsync, LogError, Topic};
use crate::metrics::{self, LogErrorType, LogOperation, ProduceOutcome};

/// A group takes no further record beyond this many bytes. A larger record has a group of its own.
pub(super) const GROUP_BYTES_MAX: usize = 1 << 20;

/// A `finish` call that waits for its write.
pub(super) type PendingFinish = (Vec<Finished>, oneshot::Sender<Result<(), LogError>>);

/// The segment that is written.
pub(super) struct Active {
    pub extent: Extent,
    pub file: DurableFile,
}

/// The writer's own things.
pub(super) struct Writer {
    pub core: Arc<Core>,
    /// None when the next group has to begin a new segment.
    pub active: Option<Active>,
    /// A segment that could not be opened for want of a file descriptor: it is the next one to open.
    pub unopened: Option<Extent>,
    /// Where the next group goes.
    pub at: u64,
    /// Where the last group ended.
    pub previous_end: u64,
    /// Up to here, groups that found no room may have left bytes in the active segment.
    pub leftovers_until: u64,
    /// By lane, the number of the last record.
    pub sequences: Vec<u64>,
    pub work: VecDeque<Call>,
}

impl Call {
    /// The call with an error for every record that stands at `from` or after, or nowhere.
    pub(super) fn failed(mut self, from: u64, error: AppendError) -> Self {
        for result in &mut self.results {
            if let Ok(position) = *result
                && (position.0 >= from || *result == PENDING)
            {
                *result = Err(error);
            }
        }
        self
    }

    fn is_written(&self) -> bool {
        !self.results.contains(&PENDING)
    }
}

/// What became of one topic's records.
#[derive(Clone, Copy, Default)]
struct Tally {
    acknowledged: u64,
    failed: u64,
    bytes: u64,
}

/// How much of the work goes into the next group.
struct Plan {
    bytes: usize,
    records: usize,
}

/// Makes the end of the thread known, however it ends.
struct Ended(Arc<Core>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.writer_ended();
    }
}

impl Writer {
    /// Runs until the queue is stopped and empty.
    pub(super) fn run(mut self) {
        let ended = Ended(self.core.clone());
        while self.core.queue.fetch(&mut self.work) {
            if self.core.is_broken() {
                self.fail_all(u64::MAX, AppendError::Closed);
                continue;
            }
            self.write_next();
        }
        if self.core.settings.fsync == Fsync::Never
            && let Some(active) = &self.active
            && let Err(error) = active.file.sync()
        {
            tracing::error!(%error, "the last sync of the log failed");
        }
        drop(ended);
    }

    /// Writes one group, or finds the segment for it.
    fn write_next(&mut self) {
        let room = self.active.as_ref().map_or(0, |active| active.extent.end() - self.at);
        let plan = self.plan(room);
        if plan.records == 0 {
            return self.roll();
        }
        let group = self.build(&plan);
        let active = self.active.as_ref().expect("a plan with records has room in a segment");
        let offset = group.start - active.extent.base;
        let began = self.core.clock.monotonic();
        match self.core.disk.write_at(Site::GroupWrite, &active.file, group.bytes(), offset) {
            Ok(()) => {
                let took = self.core.clock.monotonic().saturating_sub(began);
                metrics::STORE_FSYNC_DURATION_SECONDS.at([]).record(took.as_secs_f64());
                self.publish(&group);
            }
            Err(error) if disk::is_full(&error) => {
                tracing::warn!(%error, "no room to write a group of the log, appends are refused until there is");
                // The next group overwrites what this one left, or `roll` clears it: it never stands before a later group.
                self.leftovers_until = self.leftovers_until.max(group.end);
                self.sequences = self.core.state().sequences();
                self.core.refuse_for_a_while();
                self.fail_all(group.start, AppendError::Full);
            }
            Err(error) => {
                self.core.break_off("writing to the log", &error);
                self.fail_all(group.start, AppendError::Closed);
            }
        }
    }

    /// The records, from the front of the work on, that fit into one group and into the room.
    fn plan(&self, room: u64) -> Plan {
        let mut plan = Plan { bytes: HEADER_BYTES, records: 0 };
        for call in &self.work {
            for (record, _) in call.batch.iter().zip(&call.results).filter(|(_, result)| **result == PENDING) {
                let bytes = plan.bytes + frame_bytes(record.payload.len());
                if bytes as u64 > room || (plan.records > 0 && bytes > GROUP_BYTES_MAX) {
                    return plan;
                }
                plan.bytes = bytes;
                plan.records += 1;
            }
            match self.core.settings.fsync {
                Fsync::Each => return plan,
                Fsync::Group | Fsync::Never => {}
            }
        }
        plan
    }

    fn build(&mut self, plan: &Plan) -> Arc<Group> {
        let partitions = self.core.settings.partitions;
        let mut builder = GroupBuilder::new(self.at, plan.bytes, plan.records);
        let mut left = plan.records;
        for call in &mut self.work {
            for (record, result) in call.batch.iter().zip(&mut call.results).filter(|(_, result)| **result == PENDING) {
                if left == 0 {
                    break;
                }
                left -= 1;
                let lane = format::lane_id(record.topic, record.partition, partitions);
                let sequence = &mut self.sequences[lane as usize];
                *sequence += 1;
                *result = Ok(builder.push(record.topic, record.partition, lane, *sequence, &record.payload));
            }
            if left == 0 {
                break;
            }
        }
        builder.finish(self.core.log_id, self.previous_end, self.core.clock.now())
    }

    /// The group is durable: readers may have it, and its calls get their answers.
    fn publish(&mut self, group: &Arc<Group>) {
        self.at = group.end;
        self.previous_end = group.end;
        self.core.state().publish(group);
        for (lane, _) in group.lanes() {
            let shard = lane % self.core.settings.partitions;
            self.core.arrivals[shard as usize].notify_one();
        }
        let written = self.work.iter().take_while(|call| call.is_written()).count();
        self.count(self.work.iter().take(written));
        self.core.queue.answer(self.work.drain(..written));
    }

    /// Counts calls that are about to be answered.
    fn count<'c>(&self, calls: impl Iterator<Item = &'c Call>) {
        let now = self.core.clock.monotonic();
        let mut tallies = [Tally::default(); Topic::ALL.len()];
        for call in calls {
            let mut has = [false; Topic::ALL.len()];
            for (record, result) in call.batch.iter().zip(&call.results) {
                let (topic, tally) = (record.topic.index(), &mut tallies[record.topic.index()]);
                match result {
                    Ok(_) => {
                        tally.acknowledged += 1;
                        tally.bytes += record.payload.len() as u64;
                    }
                    Err(_) => tally.failed += 1,
                }
                has[topic] = true;
            }
            let waited = now.saturating_sub(call.since).as_secs_f64();
            for topic in Topic::ALL.iter().filter(|topic| has[topic.index()]) {
                metrics::LOG_PRODUCE_DURATION_SECONDS.at([topic.index()]).record(waited);
            }
        }
        for (topic, tally) in tallies.iter().enumerate() {
            if tally.acknowledged + tally.failed > 0 {
                metrics::LOG_PRODUCED_RECORDS.at([topic, ProduceOutcome::Acknowledged.index()]).increment(tally.acknowledged);
                metrics::LOG_PRODUCED_RECORDS.at([topic, ProduceOutcome::Failed.index()]).increment(tally.failed);
                metrics::LOG_PRODUCED_BYTES.at([topic]).increment(tally.bytes);
            }
        }
    }

    fn roll(&mut self) {
        if let Err(error) = self.clear_leftovers() {
            if disk::is_full(&error) {
                self.core.refuse_for_a_while();
                return self.fail_all(u64::MAX, AppendError::Full);
            }
            self.core.break_off("clearing the end of a segment", &error);
            return self.fail_all(u64::MAX, AppendError::Closed);
        }
        let next = self.unopened.take().map_or_else(|| self.core.take_next(), Ok);
        let opened = match next {
            Ok(extent) => extent,
            Err(NoSegment::Full) => {
                tracing::warn!("the log has no room for another segment, appends are refused until there is");
                return self.fail_all(u64::MAX, AppendError::Full);
            }
            Err(NoSegment::Closed) => return self.fail_all(u64::MAX, AppendError::Closed),
        };
        match self.core.disk.open_segment(&self.core.disk.dir.join(opened.name())) {
            Ok(file) => {
                self.at = opened.base;
                self.active = Some(Active { extent: opened, file });
                self.core.state().active = opened.base;
                self.core.look_again();
            }
            Err(error) if disk::is_full(&error) => {
                tracing::warn!(%error, "the next segment of the log cannot be opened now, appends are refused until it can");
                self.unopened = Some(opened);
                self.core.refuse_for_a_while();
                self.fail_all(u64::MAX, AppendError::Full);
            }
            Err(error) => {
                self.core.break_off("opening the next segment", &error);
                self.fail_all(u64::MAX, AppendError::Closed);
            }
        }
    }

    /// Behind the last group of a segment stand zeros when the next segment begins: anything else would look like damage.
    fn clear_leftovers(&mut self) -> std::io::Result<()> {
        let Some(active) = self.active.as_ref().filter(|_| self.leftovers_until > self.at) else { return Ok(()) };
        let zeros = vec![0; (self.leftovers_until - self.at) as usize];
        self.core.disk.write_at(Site::GroupWrite, &active.file, &zeros, self.at - active.extent.base)?;
        self.leftovers_until = self.at;
        Ok(())
    }

    /// Everything in hand gets an error, but for records that are durable already.
    fn fail_all(&mut self, from: u64, error: AppendError) {
        let failed: Vec<Call> = self.work.drain(..).map(|call| call.failed(from, error)).collect();
        self.count(failed.iter());
        metrics::LOG_ERRORS.at([LogOperation::Append.index(), LogErrorType::from(&error).index()]).increment(failed.len() as u64);
        self.core.queue.answer(failed);
    }
}
