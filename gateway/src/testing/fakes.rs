//! A log in memory, a store that can be away, and a door that leads nowhere.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use messaging::BoxFuture;
use messaging::exchange::{HttpRequest, HttpResponse};
use messaging::log::{AppendError, ClaimChange, Finished, Lag, Log, LogError, NewRecord, Position};
use messaging::store::{DirectoryRows, Durability, Found, Key, Lease, LeaseAnswer, LeaseOn, Scan, Store, StoreError, Write};

use crate::options::OutboundCall;

type Judge = Box<dyn Fn(&[u8]) -> Option<AppendError> + Send>;

/// Keeps records in memory.
pub(crate) struct FakeLog {
    partitions: u16,
    records: Mutex<Vec<NewRecord>>,
    calls: AtomicUsize,
    fail: Mutex<Option<Judge>>,
    pub max_record: AtomicUsize,
    pub lag: Mutex<Vec<Lag>>,
    /// While set, appends wait.
    pub stuck: Arc<AtomicBool>,
}

impl FakeLog {
    pub fn new(partitions: u16) -> Arc<Self> {
        Arc::new(Self {
            partitions,
            records: Mutex::default(),
            calls: AtomicUsize::new(0),
            fail: Mutex::default(),
            max_record: AtomicUsize::new(1 << 20),
            lag: Mutex::default(),
            stuck: Arc::default(),
        })
    }

    pub fn fail_when(&self, judge: impl Fn(&[u8]) -> Option<AppendError> + Send + 'static) {
        *self.fail.lock().unwrap() = Some(Box::new(judge));
    }

    pub fn heal(&self) {
        *self.fail.lock().unwrap() = None;
    }

    pub fn records(&self) -> Vec<NewRecord> {
        self.records.lock().unwrap().clone()
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Log for FakeLog {
    fn partitions(&self) -> u16 {
        self.partitions
    }
    fn max_record(&self) -> usize {
        self.max_record.load(Ordering::SeqCst)
    }
    fn append(&self, batch: Vec<NewRecord>) -> BoxFuture<'static, Vec<Result<Position, AppendError>>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fail = self.fail.lock().unwrap();
        let mut records = self.records.lock().unwrap();
        let mut results = Vec::new();
        for record in batch {
            match fail.as_ref().and_then(|judge| judge(&record.payload)) {
                Some(error) => results.push(Err(error)),
                None => {
                    records.push(record);
                    results.push(Ok(Position(records.len() as u64)));
                }
            }
        }
        let stuck = self.stuck.clone();
        Box::pin(async move {
            while stuck.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            results
        })
    }
    fn claims(&self) -> BoxFuture<'_, ClaimChange> {
        Box::pin(std::future::pending())
    }
    fn finish(&self, _: Vec<Finished>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async { Ok(()) })
    }
    fn lag(&self) -> Vec<Lag> {
        self.lag.lock().unwrap().clone()
    }
    fn writable(&self) -> bool {
        self.fail.lock().unwrap().is_none()
    }
    fn disk(&self) -> (u64, u64) {
        (0, 0)
    }
    fn queue(&self) -> (usize, usize) {
        (0, 0)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A store that can be away.
pub(crate) struct Faulty {
    store: Arc<dyn Store>,
    pub away: AtomicBool,
    /// Calls that are not answered yet.
    in_flight: AtomicUsize,
    /// Calls so far.
    pub calls: AtomicUsize,
}

/// A call while it lives.
struct Call<'a>(&'a Faulty);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Faulty {
    pub fn over(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, away: AtomicBool::new(false), in_flight: AtomicUsize::new(0), calls: AtomicUsize::new(0) })
    }

    /// Whether every call is answered.
    pub fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    fn guarded<'a, T: 'a>(&'a self, work: BoxFuture<'a, Result<T, StoreError>>) -> BoxFuture<'a, Result<T, StoreError>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Unavailable("cut off for the test".into())) });
        }
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let call = Call(self);
        Box::pin(async move {
            let done = work.await;
            drop(call);
            done
        })
    }
}

impl Store for Faulty {
    fn read(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        self.guarded(self.store.read(keys))
    }
    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        self.guarded(self.store.scan(scan, limit))
    }
    fn apply(&self, batch: Vec<Write>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        self.guarded(self.store.apply(batch, durability))
    }
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.guarded(self.store.sync())
    }
    fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>> {
        self.guarded(self.store.lease(on, owner, ttl))
    }
    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>> {
        self.guarded(self.store.release(lease))
    }
    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.guarded(self.store.directory_version())
    }
    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>> {
        self.guarded(self.store.directory())
    }
    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.guarded(self.store.change_directory(expected, changes))
    }
    fn disk(&self) -> (u64, u64) {
        self.store.disk()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close()
    }
}

/// Answers calls with what the test says, and keeps them.
#[derive(Default)]
pub(crate) struct FakeCaller {
    pub requests: Mutex<Vec<HttpRequest>>,
    pub answer: Mutex<Option<Result<(u16, &'static str), &'static str>>>,
}

impl OutboundCall for FakeCaller {
    fn call_up_to(&self, request: HttpRequest, _: Duration, _: usize) -> BoxFuture<'_, Result<HttpResponse, String>> {
        self.requests.lock().unwrap().push(request);
        let answer = *self.answer.lock().unwrap();
        Box::pin(async move {
            match answer.expect("a call that no test asked for: the handler panics") {
                Ok((status, body)) => Ok(HttpResponse { status, body: Bytes::from_static(body.as_bytes()), ..HttpResponse::default() }),
                Err(why) => Err(why.to_owned()),
            }
        })
    }
}
