//! The threads that read. Each question is answered from one view of memory and tables: no half of a batch is ever seen.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use fjall::{Readable, Snapshot, UserKey};
use tokio::sync::{mpsc, oneshot};

use super::expiry::Limits;
use super::keys::{self, KeyBytes, ScanRange, Span, Table};
use super::memory::{Memory, Value};
use super::node::{self, DirectoryAnswer};
use super::tables::{Tables, meaning};
use crate::ids::QuarantineId;
use crate::metrics::{self, SupervisedTask};
use crate::store::{Found, Key, Scan, StoreError};
use crate::supervise::caught_here;

/// Threads that answer point reads.
pub(super) const POINT_READERS: usize = 2;
/// Threads that scan; apart, so that a long scan never stands before a point read.
pub(super) const SCANNERS: usize = 1;
/// Questions waiting for a thread; beyond, callers wait.
pub(super) const QUEUE_MAX: usize = 256;
/// A scan's answer is not sized for more rows than this in advance.
const ROWS_AHEAD_MAX: usize = 1024;

/// A question.
pub(super) enum Query {
    /// What memory did not know of a read.
    Read {
        read: Partly,
        answer: oneshot::Sender<Result<Vec<Option<Vec<u8>>>, StoreError>>,
    },
    Scan {
        scan: Scan,
        limit: usize,
        answer: oneshot::Sender<Result<Vec<Found>, StoreError>>,
    },
    Directory {
        answer: oneshot::Sender<DirectoryAnswer>,
    },
    /// One thread ends.
    Stop,
}

/// A row as it is kept.
pub(super) type Stored = (UserKey, Vec<u8>);

/// A read that memory has answered as far as it can.
pub(super) struct Partly {
    pub(super) keys: Vec<(Table, KeyBytes)>,
    pub(super) answers: Vec<Option<Value>>,
    /// The tables, of the same view.
    pub(super) below: Arc<Snapshot>,
}

impl Partly {
    /// Asks memory. The tables are not touched, so this may be called on an async worker.
    pub(super) fn look(memory: &Memory, keys: &[Key]) -> Self {
        let keys: Vec<_> = keys.iter().map(|key| (keys::table_of(key), keys::encode(key))).collect();
        let (answers, below) = memory.look(&keys);
        Self { keys, answers, below }
    }

    /// Whether the tables need not be asked.
    pub(super) fn is_whole(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }

    /// The values, once nothing is missing, without those that are over.
    pub(super) fn values(self, limits: &Limits) -> Vec<Value> {
        let mut values = Vec::with_capacity(self.answers.len());
        for ((table, key), answer) in self.keys.iter().zip(self.answers) {
            values.push(answer.flatten().and_then(|value| limits.take(*table, key.as_ref(), value)));
        }
        values
    }
}

/// Threads with one queue.
pub(super) struct Pool {
    queue: mpsc::Sender<Query>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the threads; the sender asks them.
    pub(super) fn start(tables: &Tables, memory: &Arc<Memory>, name: &str, threads: usize) -> std::io::Result<(Self, mpsc::Sender<Query>)> {
        let (queue, questions) = mpsc::channel(QUEUE_MAX);
        let questions = Arc::new(Mutex::new(questions));
        let mut pool = Self { queue: queue.clone(), threads: Vec::with_capacity(threads) };
        for _ in 0..threads {
            let (tables, memory, questions) = (tables.clone(), memory.clone(), questions.clone());
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || answer_all(&tables, &memory, &questions));
            match thread {
                Ok(thread) => pool.threads.push(thread),
                // Those that run end when the last sender is gone.
                Err(error) => return Err(error),
            }
        }
        Ok((pool, queue))
    }

    /// Lets the threads answer what was asked before, and ends them. Not from an async worker.
    pub(super) fn stop(self) {
        for _ in &self.threads {
            // It fails only when all threads are gone already.
            let _ = self.queue.blocking_send(Query::Stop);
        }
        for thread in self.threads {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn answer_all(tables: &Tables, memory: &Memory, questions: &Mutex<mpsc::Receiver<Query>>) {
    loop {
        let question = questions.lock().expect("no thread panics while it holds the queue").blocking_recv();
        match question {
            // Who no longer waits is not answered.
            Some(Query::Read { read, answer }) if !answer.is_closed() => {
                let _ = answer.send(answered(|| complete(tables, read)));
            }
            Some(Query::Scan { scan, limit, answer }) if !answer.is_closed() => {
                let _ = answer.send(answered(|| scan_rows(tables, memory, &scan, limit)));
            }
            Some(Query::Directory { answer }) if !answer.is_closed() => {
                let _ = answer.send(answered(|| node::read_directory(tables, memory)));
            }
            Some(Query::Read { .. } | Query::Scan { .. } | Query::Directory { .. }) => {}
            Some(Query::Stop) | None => return,
        }
    }
}

/// A question that panics has its answer: the thread goes on with the next one.
fn answered<T>(answer: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    caught_here(answer).unwrap_or_else(|panicked| {
        metrics::TASK_RESTARTS.at([SupervisedTask::StoreReader.index()]).increment(1);
        tracing::error!(at = panicked.at, "a read of the store panicked");
        Err(StoreError::Damaged(format!("a read {panicked}")))
    })
}

/// Asks the tables for what is missing.
fn complete(tables: &Tables, mut read: Partly) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    for ((table, key), answer) in read.keys.iter().zip(&mut read.answers) {
        if answer.is_none() {
            let found = read.below.get(tables.get(*table), key).map_err(|error| meaning(&error))?;
            *answer = Some(found.map(|value| value.to_vec()));
        }
    }
    Ok(read.values(&tables.expiry().now()))
}

fn scan_rows(tables: &Tables, memory: &Memory, scan: &Scan, limit: usize) -> Result<Vec<Found>, StoreError> {
    let found = match keys::span_of(scan) {
        Span::Range(scanned) => {
            let rows = range(tables, memory, &scanned, limit)?;
            rows.into_iter().map(|(key, value)| Ok((decode(scanned.table, &key)?, value))).collect::<Result<_, StoreError>>()?
        }
        Span::AllQuarantine(after) => whole_quarantine(tables, memory, after, limit)?,
    };
    Ok(found)
}

/// The rows of a range in its order, of one view of memory and tables.
pub(super) fn range(tables: &Tables, memory: &Memory, range: &ScanRange, limit: usize) -> Result<Vec<Stored>, StoreError> {
    let limits = tables.expiry().now();
    let (upper, below) = memory.range(range, &limits, limit);
    let mut lower = below.range::<KeyBytes, _>(tables.get(range.table), (range.from, range.to));
    let mut step = || {
        let row = if range.newest_first { lower.next_back() } else { lower.next() };
        row.map(|row| row.into_inner().map_err(|error| meaning(&error))).transpose()
    };
    let mut found = Vec::with_capacity(limit.min(ROWS_AHEAD_MAX));
    let (mut upper, mut next) = (upper.into_iter().peekable(), step()?);
    while found.len() < limit {
        let order = match (upper.peek(), &next) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((up, _)), Some((low, _))) if range.newest_first => (**low).cmp(&**up),
            (Some((up, _)), Some((low, _))) => (**up).cmp(&**low),
        };
        let row = if order.is_ge() { std::mem::replace(&mut next, step()?) } else { None };
        if order.is_gt() {
            if let Some((key, value)) = row
                && let Some(own) = limits.open(range.table, &key, &value)
            {
                found.push((key, own.to_vec()));
            }
        } else if let Some((key, Some(value))) = upper.next()
            && let Some(own) = limits.take(range.table, &key, value)
        {
            found.push((key, own));
        }
    }
    Ok(found)
}

/// All tenants' quarantine, by id: the order in which "after an id" means something across tenants.
///
/// It looks at every row, which is well for what is rare and looked at by people.
fn whole_quarantine(tables: &Tables, memory: &Memory, after: Option<QuarantineId>, limit: usize) -> Result<Vec<Found>, StoreError> {
    let everything = ScanRange { table: Table::Quarantine, from: Bound::Unbounded, to: Bound::Unbounded, newest_first: false };
    let mut found = BTreeMap::new();
    for (key, value) in range(tables, memory, &everything, usize::MAX)? {
        let key = decode(Table::Quarantine, &key)?;
        let Key::Quarantine(tenant, id) = key else { continue };
        if after.is_some_and(|after| id <= after) {
            continue;
        }
        found.insert((id, tenant), (key, value));
        if found.len() > limit {
            found.pop_last();
        }
    }
    Ok(found.into_values().collect())
}

fn decode(table: Table, bytes: &[u8]) -> Result<Key, StoreError> {
    keys::decode(table, bytes).map_err(|_| StoreError::Damaged(format!("a key of {table:?} does not read")))
}
