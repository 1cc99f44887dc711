//! The threads that read. Each question is answered from one view ([`Tables::view`]): no half of a batch is ever seen.

use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use fjall::{Readable, Snapshot};
use tokio::sync::{mpsc, oneshot};

use super::keys::{self, KeyBytes, Span, Table};
use super::node::{self, DirectoryAnswer};
use super::tables::{Tables, meaning};
use crate::ids::QuarantineId;
use crate::store::{Found, Key, Scan, StoreError};

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
    Read {
        keys: Vec<Key>,
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

/// Threads with one queue.
pub(super) struct Pool {
    queue: mpsc::Sender<Query>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the threads; the sender asks them.
    pub(super) fn start(tables: &Tables, name: &str, threads: usize) -> std::io::Result<(Self, mpsc::Sender<Query>)> {
        let (queue, questions) = mpsc::channel(QUEUE_MAX);
        let questions = Arc::new(Mutex::new(questions));
        let mut pool = Self { queue: queue.clone(), threads: Vec::with_capacity(threads) };
        for _ in 0..threads {
            let (tables, questions) = (tables.clone(), questions.clone());
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || answer_all(&tables, &questions));
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

fn answer_all(tables: &Tables, questions: &Mutex<mpsc::Receiver<Query>>) {
    loop {
        let question = questions.lock().expect("no thread panics while it holds the queue").blocking_recv();
        match question {
            // Who no longer waits is not answered.
            Some(Query::Read { keys, answer }) if !answer.is_closed() => {
                let _ = answer.send(read(tables, &keys));
            }
            Some(Query::Scan { scan, limit, answer }) if !answer.is_closed() => {
                let _ = answer.send(scan_range(tables, &scan, limit));
            }
            Some(Query::Directory { answer }) if !answer.is_closed() => {
                let _ = answer.send(node::read_directory(tables));
            }
            Some(Query::Read { .. } | Query::Scan { .. } | Query::Directory { .. }) => {}
            Some(Query::Stop) | None => return,
        }
    }
}

fn read(tables: &Tables, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let snapshot = tables.view();
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        let found = snapshot.get(tables.get(keys::table_of(key)), keys::encode(key)).map_err(|error| meaning(&error))?;
        values.push(found.map(|value| value.to_vec()));
    }
    Ok(values)
}

fn scan_range(tables: &Tables, scan: &Scan, limit: usize) -> Result<Vec<Found>, StoreError> {
    let snapshot = tables.view();
    let range = match keys::span_of(scan) {
        Span::Range(range) => range,
        Span::AllQuarantine(after) => return scan_whole_quarantine(tables, &snapshot, after, limit),
    };
    let mut rows = snapshot.range::<KeyBytes, _>(tables.get(range.table), (range.from, range.to));
    let mut found = Vec::with_capacity(limit.min(ROWS_AHEAD_MAX));
    while found.len() < limit {
        let row = if range.newest_first { rows.next_back() } else { rows.next() };
        let Some(row) = row else { break };
        let (key, value) = row.into_inner().map_err(|error| meaning(&error))?;
        found.push((decode(range.table, &key)?, value.to_vec()));
    }
    Ok(found)
}

/// All tenants' quarantine, by id: the order in which "after an id" means something across tenants.
///
/// It looks at every key, which is well for what is rare and looked at by people.
fn scan_whole_quarantine(
    tables: &Tables,
    snapshot: &Snapshot,
    after: Option<QuarantineId>,
    limit: usize,
) -> Result<Vec<Found>, StoreError> {
    let rows = tables.get(Table::Quarantine);
    let mut lowest = BinaryHeap::new();
    for row in snapshot.iter(rows) {
        let key = decode(Table::Quarantine, &row.key().map_err(|error| meaning(&error))?)?;
        let Key::Quarantine(tenant, id) = key else { continue };
        if after.is_some_and(|after| id <= after) {
            continue;
        }
        lowest.push((id, tenant));
        if lowest.len() > limit {
            lowest.pop();
        }
    }
    let mut found = Vec::with_capacity(lowest.len());
    for (id, tenant) in lowest.into_sorted_vec() {
        let key = Key::Quarantine(tenant, id);
        let value = snapshot.get(rows, keys::encode(&key)).map_err(|error| meaning(&error))?;
        if let Some(value) = value {
            found.push((key, value.to_vec()));
        }
    }
    Ok(found)
}

fn decode(table: Table, bytes: &[u8]) -> Result<Key, StoreError> {
    keys::decode(table, bytes).map_err(|_| StoreError::Damaged(format!("a key of {table:?} does not read")))
}
