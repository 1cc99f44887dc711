//! Moving finished positions: all calls that wait share one write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::core::{Core, Next};
use super::disk;
use super::finished::{Done, FinishedFile, FinishedState};
use super::format::{self, FRAME_BYTES, LaneId};
use crate::log::{Finished, LogError};

/// Writes what waits and answers it. Blocks.
pub(super) fn write_pending(core: &Core) {
    let mut file = core.finished.lock().expect("no holder of the finished positions panics");
    let pending = std::mem::take(&mut *core.pending_finishes.lock().expect("no holder of the waiting calls panics"));
    if core.state().closed {
        // Another process may have the folder by now. Dropping the answers says `Closed`.
        return;
    }
    let mut lanes = file.state.lanes.clone();
    let mut waiting = Vec::new();
    for (items, answer) in pending {
        match find(core, &items, &file.state.lanes) {
            Ok(found) => {
                for (lane, done) in found {
                    let lane = &mut lanes[lane as usize];
                    if done.position > lane.position {
                        *lane = done;
                    }
                }
                waiting.push(answer);
            }
            Err(error) => {
                // The caller may have gone.
                let _ = answer.send(Err(error));
            }
        }
    }
    let written = write(core, &mut file, lanes);
    drop(file);
    for answer in waiting {
        let answered = match &written {
            Ok(()) => Ok(()),
            Err(error) => Err(LogError::Io(io::Error::new(error.kind(), error.to_string()))),
        };
        let _ = answer.send(answered);
    }
    if written.is_ok() && may_free_room(core) {
        core.look_again();
    }
}

fn write(core: &Core, file: &mut FinishedFile, lanes: Vec<Done>) -> io::Result<()> {
    if lanes == file.state.lanes {
        return Ok(());
    }
    if core.finished_broken.load(Ordering::Acquire) {
        return Err(io::Error::other("an earlier write of the finished positions failed"));
    }
    let before = file.state.lanes.clone();
    let (low, end) = {
        let state = core.state();
        (state.low(), state.end)
    };
    let written = file.write(FinishedState { known_end: core.known_end(end), low, lanes });
    if let Err(error) = written {
        if !disk::is_full(&error) {
            core.finished_broken.store(true, Ordering::Release);
            core.break_off("writing the finished positions", &error);
        }
        return Err(error);
    }
    let mut state = core.state();
    for (lane, (now, before)) in file.state.lanes.iter().zip(&before).enumerate() {
        if now != before {
            state.finish(lane as LaneId, *now);
        }
    }
    Ok(())
}

/// Writes the state of now, with nothing newly finished: at a clean end.
pub(super) fn write_last(core: &Core, known_end: u64) {
    let mut file = core.finished.lock().expect("no holder of the finished positions panics");
    if core.finished_broken.load(Ordering::Acquire) {
        return;
    }
    let low = core.state().low();
    let state = FinishedState { known_end, low, lanes: file.state.lanes.clone() };
    if let Err(error) = file.write(state) {
        tracing::warn!(%error, "the end of the log could not be noted, the next opening looks for it");
    }
}

/// Looks up the records that are to be finished; those that are finished already are left out.
fn find(core: &Core, items: &[Finished], finished: &[Done]) -> Result<Vec<(LaneId, Done)>, LogError> {
    let mut found = Vec::with_capacity(items.len());
    let mut open: Option<(u64, File)> = None;
    for item in items {
        if item.shard >= core.settings.partitions {
            return Err(no_record(item));
        }
        let lane = format::lane_id(item.topic, item.shard, core.settings.partitions);
        let before = finished[lane as usize];
        let position = item.position.0;
        if position <= before.position {
            continue;
        }
        let (extent, appended) = {
            let mut state = core.state();
            let extent = state.segment_mut(position).map(|segment| segment.extent).filter(|_| position < state.end);
            (extent.ok_or_else(|| no_record(item))?, state.appended(lane))
        };
        if open.as_ref().is_none_or(|(base, _)| *base != extent.base) {
            open = Some((extent.base, File::open(core.disk.dir.join(extent.name()))?));
        }
        let (_, file) = open.as_ref().expect("opened above");
        let mut head = [0; FRAME_BYTES];
        file.read_exact_at(&mut head, position - extent.base).map_err(|_| no_record(item))?;
        let frame = format::read_frame_header(&head);
        let same = usize::from(frame.topic) == item.topic.index() && frame.partition == item.shard;
        if !same || frame.sequence <= before.sequence || frame.sequence > appended {
            return Err(no_record(item));
        }
        found.push((lane, Done { position, sequence: frame.sequence }));
    }
    Ok(found)
}

fn no_record(item: &Finished) -> LogError {
    let (topic, shard, position) = (item.topic.name(), item.shard, item.position.0);
    LogError::Mismatch(format!("cannot finish {topic} of shard {shard} at {position}: no record stands there"))
}

/// Whether upkeep has something to do now.
fn may_free_room(core: &Core) -> bool {
    if core.is_full() || core.next_segment() == Next::NoRoom {
        return true;
    }
    let now = core.clock.now();
    let state = core.state();
    let low = state.low();
    let oldest = state.segments.front();
    oldest.is_some_and(|oldest| oldest.extent.end() <= low && oldest.newest.plus(core.settings.retention) <= now)
}
