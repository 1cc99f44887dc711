//! Finishing: positions become committed offsets.
//!
//! One commit is under way at a time; calls that come meanwhile share the next one. The commit waits on a thread of its own for the
//! group's coordinator and needs nothing of the poll thread, so positions are finished while a revocation waits for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::broker_error;
use super::group::Group;
use crate::log::{Finished, LogError, Topic};
use crate::metrics::{self, LogErrorType, LogOperation};

/// The longest wait of a call. The commit itself goes on, and the next call has what it did.
const FINISH_WAIT: Duration = Duration::from_secs(5);
/// Calls that may wait at once. The router has one under way.
const WAITERS_MAX: usize = 1_024;

/// What waits to be committed.
#[derive(Default)]
pub(super) struct Commits {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By topic and shard, so bounded by the partitions.
    positions: BTreeMap<(Topic, u16), u64>,
    answers: Vec<oneshot::Sender<Result<(), String>>>,
    running: bool,
}

impl Commits {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder of the waiting positions panics")
    }
}

/// Moves finished positions. What is not ours, or does not go forward, is left out.
pub(super) async fn finish(group: &Arc<Group>, finished: Vec<Finished>) -> Result<(), LogError> {
    if group.is_closed() {
        return Err(LogError::Closed);
    }
    let wanted: Vec<Finished> = finished.into_iter().filter(|one| group.may_finish(one)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (answer, answered) = oneshot::channel();
    {
        let mut waiting = group.commits.lock();
        waiting.answers.retain(|answer| !answer.is_closed());
        if waiting.answers.len() >= WAITERS_MAX {
            return Err(failed("too many calls wait for a commit".into()));
        }
        for one in wanted {
            let position = waiting.positions.entry((one.topic, one.shard)).or_default();
            *position = (*position).max(one.position.0);
        }
        waiting.answers.push(answer);
        if !waiting.running {
            waiting.running = true;
            let group = group.clone();
            tokio::task::spawn_blocking(move || commit_waiting(&group));
        }
    }
    match tokio::time::timeout(FINISH_WAIT, answered).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(what))) => Err(failed(what)),
        Ok(Err(_)) => Err(LogError::Closed),
        Err(_) => Err(failed(format!("no answer to a commit in {} s", FINISH_WAIT.as_secs()))),
    }
}

fn failed(what: String) -> LogError {
    metrics::LOG_ERRORS.at([LogOperation::Finish.index(), LogErrorType::Io.index()]).increment(1);
    LogError::Io(std::io::Error::other(what))
}

/// Commits until nothing waits.
fn commit_waiting(group: &Group) {
    loop {
        let (positions, answers) = {
            let mut waiting = group.commits.lock();
            if waiting.answers.is_empty() {
                waiting.running = false;
                return;
            }
            (std::mem::take(&mut waiting.positions), std::mem::take(&mut waiting.answers))
        };
        let result = commit(group, positions);
        for answer in answers {
            // A call that gave up waiting needs no answer.
            let _ = answer.send(result.clone());
        }
    }
}

fn commit(group: &Group, positions: BTreeMap<(Topic, u16), u64>) -> Result<(), String> {
    let Some(consumer) = group.consumer() else { return Err("the group was left".into()) };
    let mut offsets = TopicPartitionList::with_capacity(positions.len());
    let mut committed = Vec::with_capacity(positions.len());
    for ((topic, id), position) in positions {
        // Looked up again: meanwhile the shard may have gone, and committing then would move the next owner's position.
        let Some(shard) = group.owned(id) else { continue };
        if !shard.may_finish(topic, position) {
            continue;
        }
        let offset = Offset::Offset(i64::try_from(position).unwrap_or(i64::MAX));
        let added = offsets.add_partition_offset(group.topic_name(topic), i32::from(id), offset);
        added.map_err(|error| broker_error("an offset cannot be named", &error).to_string())?;
        committed.push((shard, topic, position));
    }
    if committed.is_empty() {
        return Ok(());
    }
    // The broker refuses the commit of a member that is not in the group any more, so a shard that goes at this moment stays as it is.
    // It tells refusals of single topics apart, which only a broken authorisation gives; these the client keeps to itself.
    consumer.commit(&offsets, CommitMode::Sync).map_err(|error| error.to_string())?;
    for (shard, topic, position) in committed {
        shard.finished(topic, position);
    }
    Ok(())
}
