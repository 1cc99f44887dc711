//! What waits for the writer: append calls, limited in records and bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::log::{AppendError, NewRecord, Position};

/// Most records that wait for the writer. A call that finds no room gets `Full`; one larger than this is taken when nothing waits.
pub(super) const QUEUE_RECORDS_MAX: usize = 65_536;
/// Most bytes of payloads that wait for the writer.
pub(super) const QUEUE_BYTES_MAX: usize = 64 << 20;

/// One result for each record of a batch, by place.
pub(super) type Results = Vec<Result<Position, AppendError>>;

/// One append call.
pub(super) struct Call {
    /// Its records.
    pub batch: Vec<NewRecord>,
    /// By place in the batch; `Ok(Position(0))` where the record is still to be written.
    pub results: Results,
    /// When it came, on the monotonic clock.
    pub since: Duration,
    /// Payload bytes of the records that are to be written.
    pub bytes: usize,
    /// Where the results go.
    pub done: oneshot::Sender<Results>,
}

/// The position of a record that is not written yet. No record stands at 0, where the first group's header is.
pub(super) const PENDING: Result<Position, AppendError> = Ok(Position(0));

#[derive(Default)]
struct Waiting {
    calls: VecDeque<Call>,
    /// Records and bytes of calls that have no answer yet, whether here or in the writer's hands.
    records: usize,
    bytes: usize,
    stopping: bool,
    writer_sleeps: bool,
}

/// The queue between callers and the writer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder of the queue panics")
    }

    /// Takes a call, or gives it back with the reason.
    pub(super) fn push(&self, call: Call) -> Result<(), (Call, AppendError)> {
        let mut waiting = self.lock();
        if waiting.stopping {
            return Err((call, AppendError::Closed));
        }
        let records = waiting.records + call.batch.len();
        let bytes = waiting.bytes + call.bytes;
        if waiting.records > 0 && (records > QUEUE_RECORDS_MAX || bytes > QUEUE_BYTES_MAX) {
            return Err((call, AppendError::Full));
        }
        waiting.records = records;
        waiting.bytes = bytes;
        waiting.calls.push_back(call);
        let wake = std::mem::take(&mut waiting.writer_sleeps);
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Moves all calls to the end of `work`; waits while both are empty. False when there is nothing left and never will be.
    pub(super) fn fetch(&self, work: &mut VecDeque<Call>) -> bool {
        let mut waiting = self.lock();
        loop {
            work.append(&mut waiting.calls);
            if !work.is_empty() {
                return true;
            }
            if waiting.stopping {
                return false;
            }
            waiting.writer_sleeps = true;
            waiting = self.arrived.wait(waiting).expect("no holder of the queue panics");
        }
    }

    /// Answers calls; their room is free again.
    pub(super) fn answer(&self, calls: impl IntoIterator<Item = Call>) {
        let mut ready = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        for call in calls {
            records += call.batch.len();
            bytes += call.bytes;
            ready.push((call.done, call.results));
        }
        let mut waiting = self.lock();
        waiting.records -= records;
        waiting.bytes -= bytes;
        drop(waiting);
        for (done, results) in ready {
            // The caller may have gone; its records are durable all the same.
            let _ = done.send(results);
        }
    }

    /// Takes no more calls; the writer ends when it has answered those that wait.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.arrived.notify_one();
    }

    /// Whether it takes no more calls.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Records that wait.
    pub(super) fn records(&self) -> usize {
        self.lock().records
    }
}
