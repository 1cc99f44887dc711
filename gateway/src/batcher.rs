//! Appends of one thread, in batches: what arrives in one turn of the event loop goes to the log in one call, so that many
//! requests share one hand-over to the writer and one wake-up back. Everything here stays on its thread.
//!
//! Webhooks and calls gather apart: a call of the API may have to wait for the log where a webhook goes to the spool, and the last
//! record of a batch answers for all.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream::FuturesUnordered;
use messaging::log::{AppendError, Log, NewRecord, Topic};

/// Appends of a kind under way at once: while the writer syncs one batch, the next gathers.
const APPENDS_IN_FLIGHT_MAX: usize = 2;
/// Records in one call.
const BATCH_RECORDS_MAX: usize = 1024;
/// Records of a kind that wait on this thread.
const QUEUED_RECORDS_MAX: usize = 16 * 1024;
/// Bytes of them.
const QUEUED_BYTES_MAX: usize = 32 << 20;

/// Hands records to the log. Cheap to clone; not to be sent.
#[derive(Clone)]
pub struct Batcher {
    webhooks: Rc<Gathering>,
    calls: Rc<Gathering>,
}

/// What gathers for the next batch.
struct Gathering {
    log: Arc<dyn Log>,
    queue: RefCell<VecDeque<(NewRecord, Rc<Ticket>)>>,
    queued_bytes: Cell<usize>,
    in_flight: Cell<usize>,
    task: RefCell<Option<Waker>>,
}

/// The records of one request: answered when the last of them is.
struct Ticket {
    left: Cell<usize>,
    worst: Cell<Option<AppendError>>,
    waker: RefCell<Option<Waker>>,
}

impl Ticket {
    fn settle(&self, result: Result<(), AppendError>) {
        if let Err(error) = result {
            self.worst.set(Some(worse(self.worst.get(), error)));
        }
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// Of two errors the one to answer with: a request that may succeed later is to come again.
pub(crate) fn worse(one: Option<AppendError>, other: AppendError) -> AppendError {
    let rank = |error: &AppendError| match error {
        AppendError::Closed => 4,
        AppendError::Away => 3,
        AppendError::Full => 2,
        AppendError::Partition => 1,
        AppendError::TooLarge { .. } => 0,
    };
    one.filter(|one| rank(one) >= rank(&other)).unwrap_or(other)
}

/// Resolves when all records of one `append` are durable, or says why not. The records go to the log even if this is dropped.
pub struct Appended(Rc<Ticket>);

impl Future for Appended {
    type Output = Result<(), AppendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.0.left.get() == 0 {
            return Poll::Ready(self.0.worst.get().map_or(Ok(()), Err));
        }
        let mut waker = self.0.waker.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Batcher {
    /// For this thread. `run` must be polled on it.
    pub fn new(log: Arc<dyn Log>) -> Self {
        Self { webhooks: Rc::new(Gathering::new(log.clone())), calls: Rc::new(Gathering::new(log)) }
    }

    fn gathering(&self, topic: Topic) -> &Gathering {
        match topic {
            Topic::Inbound => &self.webhooks,
            Topic::Outbound | Topic::Bulk => &self.calls,
        }
    }

    /// Appends the records of one request, in order. Beyond the thread's bounds they are refused as `Full`.
    pub fn append(&self, records: impl IntoIterator<Item = NewRecord>) -> Appended {
        let ticket = Rc::new(Ticket { left: Cell::new(1), worst: Cell::new(None), waker: RefCell::new(None) });
        for record in records {
            if self.gathering(record.topic).add(record, &ticket) {
                ticket.left.set(ticket.left.get() + 1);
            } else {
                ticket.worst.set(Some(worse(ticket.worst.get(), AppendError::Full)));
            }
        }
        // One was counted for this call itself, so that an empty request is settled too.
        ticket.left.set(ticket.left.get() - 1);
        Appended(ticket)
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.webhooks.is_idle() && self.calls.is_idle()
    }

    /// The task behind `append`. Never returns.
    pub async fn run(self) {
        join(self.webhooks.run(), self.calls.run()).await;
    }
}

impl Gathering {
    fn new(log: Arc<dyn Log>) -> Self {
        Self { log, queue: RefCell::default(), queued_bytes: Cell::new(0), in_flight: Cell::new(0), task: RefCell::default() }
    }

    /// Takes a record in, if there is room.
    fn add(&self, record: NewRecord, ticket: &Rc<Ticket>) -> bool {
        let mut queue = self.queue.borrow_mut();
        let bytes = self.queued_bytes.get() + record.payload.len();
        if queue.len() >= QUEUED_RECORDS_MAX || bytes > QUEUED_BYTES_MAX {
            return false;
        }
        self.queued_bytes.set(bytes);
        queue.push_back((record, ticket.clone()));
        // Whoever has found something waiting knows already.
        if queue.len() == 1
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
        true
    }

    fn is_idle(&self) -> bool {
        self.in_flight.get() == 0 && self.queue.borrow().is_empty()
    }

    async fn run(&self) {
        let mut under_way = FuturesUnordered::new();
        let mut gathered = false;
        poll_fn(|cx| {
            loop {
                while let Poll::Ready(Some((tickets, results))) = under_way.poll_next_unpin(cx) {
                    settle(tickets, results);
                    self.in_flight.set(under_way.len());
                }
                if self.queue.borrow().is_empty() || under_way.len() >= APPENDS_IN_FLIGHT_MAX {
                    gathered = false;
                    break;
                }
                if !gathered {
                    // Whoever is ready in this turn of the loop runs first and joins the batch.
                    gathered = true;
                    cx.waker().wake_by_ref();
                    break;
                }
                gathered = false;
                let (records, tickets) = self.take();
                let appending = self.log.append(records);
                under_way.push(async move { (tickets, appending.await) });
                self.in_flight.set(under_way.len());
            }
            let mut task = self.task.borrow_mut();
            match &mut *task {
                Some(known) => known.clone_from(cx.waker()),
                None => *task = Some(cx.waker().clone()),
            }
            Poll::<()>::Pending
        })
        .await;
    }

    fn take(&self) -> (Vec<NewRecord>, Vec<Rc<Ticket>>) {
        let mut queue = self.queue.borrow_mut();
        let count = queue.len().min(BATCH_RECORDS_MAX);
        let mut records = Vec::with_capacity(count);
        let mut tickets = Vec::with_capacity(count);
        for (record, ticket) in queue.drain(..count) {
            self.queued_bytes.set(self.queued_bytes.get() - record.payload.len());
            records.push(record);
            tickets.push(ticket);
        }
        (records, tickets)
    }
}

fn settle<T>(tickets: Vec<Rc<Ticket>>, results: Vec<Result<T, AppendError>>) {
    let mut results = results.into_iter();
    for ticket in tickets {
        // The contract says one result per record; a missing one must not leave a request waiting for ever.
        ticket.settle(results.next().unwrap_or(Err(AppendError::Closed)).map(drop));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeLog;
    use bytes::Bytes;
    use tokio::task::{LocalSet, spawn_local};

    fn record(text: &'static str) -> NewRecord {
        NewRecord { topic: Topic::Inbound, partition: 0, payload: Bytes::from_static(text.as_bytes()) }
    }

    async fn local<T>(work: impl Future<Output = T>) -> T {
        LocalSet::new().run_until(work).await
    }

    #[tokio::test]
    async fn requests_of_one_turn_share_one_call() {
        let log = FakeLog::new(4);
        let batcher = Batcher::new(log.clone());
        local(async {
            spawn_local(batcher.clone().run());
            let waiting: Vec<_> = (0..100)
                .map(|_| {
                    let batcher = batcher.clone();
                    spawn_local(async move { batcher.append([record("a"), record("b")]).await })
                })
                .collect();
            for one in waiting {
                assert_eq!(one.await.unwrap(), Ok(()));
            }
        })
        .await;
        assert_eq!(log.records().len(), 200);
        assert!(log.calls() <= 3, "{} calls for one turn", log.calls());
        assert!(batcher.is_idle());
    }

    /// As many calls are under way as may be, and the log does not answer them: a webhook is handed over all the same.
    #[tokio::test]
    async fn webhooks_do_not_wait_for_calls() {
        let log = FakeLog::new(4);
        log.stuck.store(true, std::sync::atomic::Ordering::SeqCst);
        let batcher = Batcher::new(log.clone());
        local(async {
            spawn_local(batcher.clone().run());
            let mut waiting = Vec::new();
            for topic in [Topic::Outbound, Topic::Bulk, Topic::Outbound, Topic::Inbound] {
                waiting.push(batcher.append([NewRecord { topic, ..record("x") }]));
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            let topics: Vec<Topic> = log.records().into_iter().map(|record| record.topic).collect();
            assert_eq!(topics, [Topic::Outbound, Topic::Bulk, Topic::Inbound], "the third call waits for the first");
            log.stuck.store(false, std::sync::atomic::Ordering::SeqCst);
            for one in waiting {
                assert_eq!(one.await, Ok(()));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn one_failed_record_fails_its_request_and_no_other() {
        let log = FakeLog::new(4);
        log.fail_when(|payload| (payload == b"bad").then_some(AppendError::Full));
        let batcher = Batcher::new(log.clone());
        local(async {
            spawn_local(batcher.clone().run());
            let good = batcher.append([record("a")]);
            let bad = batcher.append([record("a"), record("bad"), record("c")]);
            let after = batcher.append([record("d")]);
            assert_eq!(good.await, Ok(()));
            assert_eq!(bad.await, Err(AppendError::Full));
            assert_eq!(after.await, Ok(()));
        })
        .await;
        assert_eq!(log.records().len(), 4);
    }

    #[tokio::test]
    async fn a_request_of_several_batches_waits_for_the_last() {
        let log = FakeLog::new(4);
        log.fail_when(|payload| (payload == b"bad").then_some(AppendError::Full));
        let batcher = Batcher::new(log.clone());
        local(async {
            spawn_local(batcher.clone().run());
            let records = (0..BATCH_RECORDS_MAX).map(|_| record("a")).chain([record("bad")]);
            // A task of its own, so that it looks as soon as it is woken.
            assert_eq!(spawn_local(batcher.append(records)).await.unwrap(), Err(AppendError::Full));
        })
        .await;
        assert_eq!(log.calls(), 2);
    }

    #[tokio::test]
    async fn a_dropped_request_still_reaches_the_log_and_nothing_waits_without_bound() {
        let log = FakeLog::new(4);
        let batcher = Batcher::new(log.clone());
        local(async {
            drop(batcher.append([record("kept")]));
            let refused = batcher.append((0..QUEUED_RECORDS_MAX).map(|_| record("x")));
            assert_eq!(batcher.append([]).await, Ok(()), "nothing to do is done");
            spawn_local(batcher.clone().run());
            assert_eq!(refused.await, Err(AppendError::Full), "one more than fits");
        })
        .await;
        assert_eq!(log.records().len(), QUEUED_RECORDS_MAX);
    }
}
