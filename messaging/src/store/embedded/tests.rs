//! What only the embedded store promises: files, locks, atomic batches, limits.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::journal::Journal;
use super::tables::Tables;
use super::{EmbeddedStore, writer};
use crate::clock::{ManualClock, SharedClock, Timestamp};
use crate::ids::{AccountId, ConversationId, MessageId, TenantId};
use crate::state::FeedPosition;
use crate::store::conformance::{Subject, run};
use crate::store::{
    Durability, EmbeddedSettings, Key, Lease, LeaseAnswer, LeaseOn, Queue, Retention, Scan, Store, StoreError, Work, Write,
};

mod layers;
mod retention;

const MIB: u64 = 1024 * 1024;
const TENANT: TenantId = TenantId([5; 16]);
const AT: Timestamp = Timestamp(1);

fn settings(dir: &Path) -> EmbeddedSettings {
    EmbeddedSettings { dir: dir.to_owned(), max_bytes: 1024 * MIB, cache_bytes: 8 * MIB, retention: Retention::FOR_EVER }
}

fn clock() -> Arc<ManualClock> {
    ManualClock::at(Timestamp::from_secs(1_800_000_000))
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(settings(dir), clock()).expect("opens")
}

fn refusal(dir: &Path) -> StoreError {
    EmbeddedStore::open(settings(dir), clock()).err().expect("does not open")
}

fn pointer(n: u64) -> Key {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    Key::Pointer(TENANT, id)
}

fn event(order: u64) -> Key {
    Key::Event(TENANT, FeedPosition { shard: 3, order })
}

fn put(key: Key, value: impl Into<Vec<u8>>) -> Write {
    Write::put(key, value.into(), AT)
}

async fn read(store: &EmbeddedStore, key: Key) -> Option<Vec<u8>> {
    store.read(vec![key]).await.expect("is read").remove(0)
}

#[tokio::test]
async fn it_conforms() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut n = 0;
    run(async || {
        n += 1;
        let clock = clock();
        let store = EmbeddedStore::open(settings(&dir.path().join(n.to_string())), clock.clone()).expect("opens");
        Subject { store: Arc::new(store), clock }
    })
    .await;
}

#[tokio::test]
async fn it_conforms_with_one_store_for_all_checks() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = clock();
    let store = Arc::new(EmbeddedStore::open(settings(dir.path()), clock.clone()).expect("opens"));
    run(async || Subject { store: store.clone(), clock: clock.clone() }).await;
    store.close().await;
}

#[tokio::test]
async fn everything_survives_a_reopening() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    store.apply(vec![put(pointer(1), "one"), put(event(1), "e")], Durability::Buffered).await.expect("is taken");
    store.apply(vec![put(pointer(2), "two")], Durability::Synced).await.expect("is taken");
    store.apply(vec![Write::delete(pointer(1), AT)], Durability::Buffered).await.expect("is taken");
    let version = store.change_directory(0, vec![("acc_1".to_owned(), Some(b"a".to_vec()))]).await.expect("is changed");
    let owner = [1; 16];
    let subjects = [LeaseOn::Shard(7), LeaseOn::Account(AccountId([7; 16]), Work::Refresh)];
    let mut leases = Vec::new();
    for on in subjects {
        leases.push(held(&store, on, owner).await);
    }
    store.close().await;

    let store = open(dir.path());
    assert_eq!(read(&store, pointer(1)).await, None);
    assert_eq!(read(&store, pointer(2)).await.as_deref(), Some(&b"two"[..]));
    assert_eq!(read(&store, event(1)).await.as_deref(), Some(&b"e"[..]));
    assert_eq!(store.directory_version().await.expect("is read"), version);
    assert_eq!(store.directory().await.expect("is read"), (version, vec![("acc_1".to_owned(), b"a".to_vec())]));
    for lease in &leases {
        // A lease ended with the lock of the process that held it.
        let next = held(&store, lease.on, [2; 16]).await;
        assert_eq!(next.epoch, lease.epoch + 1, "its epoch counts on");
        store.release(next).await.expect("is given back");
    }
    store.close().await;

    let store = open(dir.path());
    for lease in leases {
        assert!(held(&store, lease.on, owner).await.epoch > lease.epoch, "epochs rise across a release and a reopening");
    }
    store.close().await;
}

async fn held(store: &EmbeddedStore, on: LeaseOn, owner: [u8; 16]) -> Lease {
    match store.lease(on, owner, Duration::from_secs(9)).await.expect("is answered") {
        LeaseAnswer::Held(lease) => lease,
        LeaseAnswer::HeldByOther(other) => panic!("{other:?} is in the way"),
    }
}

const CHILD_DIR: &str = "TRUNKLINE_TEST_STORE_CHILD";
const ROWS_BEFORE_KILL: u64 = 20_000;

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let store = open(Path::new(&dir));
    let mut n = 0;
    // It goes on writing until it is killed, so that a batch is likely under way.
    loop {
        let batch = (n..n + 100).flat_map(|n| [put(pointer(n), n.to_be_bytes()), put(event(n), vec![7; 300])]).collect();
        store.apply(batch, Durability::Buffered).await.expect("is taken");
        n += 100;
        println!("acknowledged {n}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut child = Process::new(std::env::current_exe().expect("a test binary"))
        .args(["--exact", "store::embedded::tests::child_that_is_killed", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child starts");
    let mut acknowledged = 0;
    for line in BufReader::new(child.stdout.take().expect("is piped")).lines() {
        let line = line.expect("the child's output reads");
        let Some(n) = line.strip_prefix("acknowledged ") else { continue };
        acknowledged = n.parse().expect("a number");
        if acknowledged >= ROWS_BEFORE_KILL {
            child.kill().expect("the child is killed");
        }
    }
    child.wait().expect("the child ends");
    assert!(acknowledged >= ROWS_BEFORE_KILL, "the child wrote");

    let store = open(dir.path());
    let keys = (0..acknowledged).map(pointer).collect();
    for (n, value) in (0_u64..).zip(store.read(keys).await.expect("is read")) {
        assert_eq!(value.as_deref(), Some(&n.to_be_bytes()[..]), "row {n}");
    }
    // Of the batch under way all or nothing: pointers and events are equally many.
    let events = store.scan(Scan::Events(TENANT, FeedPosition { shard: 3, order: 0 }), usize::MAX).await.expect("is read").len() as u64 + 1;
    assert_eq!(events % 100, 0, "no half batch");
    assert!(read(&store, pointer(events - 1)).await.is_some() && read(&store, pointer(events)).await.is_none(), "batches are atomic");
    store.close().await;
}

#[tokio::test]
async fn a_store_that_is_dropped_closes_on_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    store.apply(vec![put(pointer(1), "one")], Durability::Buffered).await.expect("is taken");
    let mut ended = store.ended.clone();
    drop(store);
    while ended.changed().await.is_ok() {}
    let store = open(dir.path());
    assert!(read(&store, pointer(1)).await.is_some());
    store.close().await;
}

#[tokio::test]
async fn many_short_lives_leave_few_files() {
    let dir = tempfile::tempdir().expect("a folder");
    for life in 0..30 {
        let store = open(dir.path());
        store.apply(vec![put(pointer(life), life.to_be_bytes())], Durability::Buffered).await.expect("is taken");
        store.close().await;
    }
    let journals = std::fs::read_dir(dir.path()).expect("is listed").flatten();
    let journals = journals.filter(|entry| entry.file_name().to_str().is_some_and(super::journal::is_journal)).count();
    assert!(journals <= 12, "{journals} files");
    let store = open(dir.path());
    let found = store.read((0..30).map(pointer).collect()).await.expect("is read");
    assert!((0_u64..30).zip(found).all(|(life, value)| value.as_deref() == Some(&life.to_be_bytes()[..])));
    store.close().await;
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let error = refusal(dir.path());
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("in use by another process")), "{error}");
    store.close().await;
    open(dir.path()).close().await;
}

#[tokio::test]
async fn a_closed_store_answers_closed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    tokio::join!(store.close(), store.close());
    let closed = |answer: Option<StoreError>| assert!(matches!(answer, Some(StoreError::Closed)), "{answer:?}");
    closed(store.read(vec![pointer(1)]).await.err());
    closed(store.scan(Scan::Intents(1), 1).await.err());
    closed(store.apply(vec![put(pointer(1), "")], Durability::Buffered).await.err());
    closed(store.sync().await.err());
    closed(store.lease(LeaseOn::Shard(1), [1; 16], Duration::ZERO).await.err());
    closed(store.directory().await.err());
    closed(store.directory_version().await.err());
    closed(store.change_directory(0, vec![]).await.err());
    store.close().await;
}

#[tokio::test]
async fn close_finishes_what_was_asked_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let writes = (0..100).map(|n| store.apply(vec![put(pointer(n), "v")], Durability::Buffered));
    let (written, ()) = tokio::join!(futures_util::future::join_all(writes), store.close());
    let store = open(dir.path());
    for (n, answer) in (0..).zip(written) {
        assert_eq!(read(&store, pointer(n)).await.is_some(), answer.is_ok(), "row {n}: {answer:?}");
    }
    store.close().await;
}

#[tokio::test]
async fn rows_of_another_form_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    open(dir.path()).close().await;
    for (mark, said) in [(&[0, 0, 0, 9][..], "format version 9"), (b"?", "format version unreadable")] {
        Tables::overwrite_format(&settings(dir.path()), mark);
        let error = refusal(dir.path());
        assert!(matches!(&error, StoreError::Damaged(text) if text.contains(said) && text.contains("reads version 3")), "{error}");
    }
    // The forms before have the same rows.
    for before in [1, 2] {
        Tables::overwrite_format(&settings(dir.path()), &[0, 0, 0, before]);
        open(dir.path()).close().await;
        open(dir.path()).close().await;
    }
}

#[tokio::test]
async fn a_death_while_the_folder_is_made_is_no_harm() {
    let dir = tempfile::tempdir().expect("a folder");
    // What the engine leaves when it dies before its version mark.
    std::fs::write(dir.path().join("lock"), "").expect("is written");
    std::fs::create_dir(dir.path().join("keyspaces")).expect("is made");
    std::fs::write(dir.path().join("0.jnl"), [0; 4096]).expect("is written");
    open(dir.path()).close().await;
    // But a folder with tables and no mark has lost it.
    std::fs::remove_file(dir.path().join("version")).expect("is removed");
    assert!(!matches!(refusal(dir.path()), StoreError::Full | StoreError::Closed | StoreError::Conflict));
    assert!(dir.path().join("keyspaces").join("0").exists(), "nothing was removed");
}

#[tokio::test]
async fn a_full_store_takes_deletes_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = EmbeddedSettings { max_bytes: 4 * MIB, ..settings(dir.path()) };
    let store = EmbeddedStore::open(small, clock()).expect("opens");
    let mut written = 0;
    let full = loop {
        let n = written;
        match store.apply(vec![put(pointer(n), vec![1; 64 * 1024])], Durability::Buffered).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "it never gets full");
    };
    assert!(matches!(full, StoreError::Full), "{full}");
    assert!(written > 30, "it got full at {written} of about 60 rows");
    let (used, limit) = store.disk();
    assert!(limit == 4 * MIB && used > 3 * MIB, "{used} of {limit}");

    assert_eq!(read(&store, pointer(written)).await, None, "what was refused is not there");
    let mixed = vec![Write::delete(pointer(0), AT), put(pointer(500), vec![1; 64 * 1024])];
    assert!(matches!(store.apply(mixed, Durability::Synced).await, Err(StoreError::Full)));
    assert!(read(&store, pointer(0)).await.is_some(), "of a refused batch nothing is done");
    store.apply(vec![Write::delete(pointer(0), AT)], Durability::Synced).await.expect("a delete is taken");
    assert_eq!(read(&store, pointer(0)).await, None);
    store.lease(LeaseOn::Shard(1), [1; 16], Duration::from_secs(1)).await.expect("a lease is taken still");
    store.close().await;
}

#[tokio::test]
async fn of_one_row_in_one_batch_the_last_write_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let batch = vec![
        put(pointer(1), "first"),
        put(pointer(1), "last"),
        put(pointer(2), "first"),
        Write::delete(pointer(2), AT),
        Write::delete(pointer(3), AT),
        put(pointer(3), "last"),
        put(pointer(4), "first"),
        Write::delete(pointer(4), AT),
        put(pointer(4), "last"),
    ];
    store.apply(batch, Durability::Buffered).await.expect("is taken");
    let expected = [Some(b"last".to_vec()), None, Some(b"last".to_vec()), Some(b"last".to_vec())];
    let keys: Vec<Key> = (1..5).map(pointer).collect();
    assert_eq!(store.read(keys.clone()).await.expect("is read"), expected);
    store.close().await;
    let store = open(dir.path());
    assert_eq!(store.read(keys).await.expect("is read"), expected, "also when the journal is read back");
    store.close().await;
}

/// Batches that arrive together form one group; within it their order still counts.
#[tokio::test]
async fn batches_apply_in_the_order_of_arrival() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    // Few enough that `join_all` asks them in order.
    const AT_ONCE: u64 = 30;
    for round in 0..100_u64 {
        let durability = |n: u64| if n.is_multiple_of(7) { Durability::Synced } else { Durability::Buffered };
        let writes = (0..AT_ONCE).map(|n| store.apply(vec![put(pointer(n % 2), (round * 1000 + n).to_be_bytes())], durability(n)));
        for answer in futures_util::future::join_all(writes).await {
            answer.expect("is taken");
        }
        for n in 0..2 {
            assert_eq!(read(&store, pointer(n)).await, Some((round * 1000 + AT_ONCE - 2 + n).to_be_bytes().to_vec()));
        }
    }
    store.close().await;
}

/// Readers beside writers never see half a batch, by reads or by scans.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_batch_is_never_seen() {
    const ROUNDS: u64 = 1000;
    const ROWS: u64 = 300;
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(open(dir.path()));
    let done = Arc::new(AtomicBool::new(false));
    let timer = |n| Key::Later(1, Queue::Timers, n);
    let reader = {
        let (store, done) = (store.clone(), done.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let found = store.read((0..ROWS).map(timer).collect()).await.expect("is read");
                assert!(found.iter().all(|value| *value == found[0]), "a read saw half a batch");
                let found = store.scan(Scan::AllLater(1), usize::MAX).await.expect("is read");
                assert!(found.is_empty() || found.len() as u64 == ROWS, "a scan saw half a batch");
                assert!(found.iter().all(|(_, value)| *value == found[0].1), "a scan saw half a batch");
            }
        })
    };
    for round in 0..ROUNDS {
        let batch =
            (0..ROWS).map(|n| if round % 5 == 4 { Write::delete(timer(n), AT) } else { put(timer(n), round.to_be_bytes()) }).collect();
        store.apply(batch, Durability::Buffered).await.expect("is taken");
    }
    done.store(true, Ordering::Relaxed);
    reader.await.expect("the reader saw whole batches only");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_lose_nothing() {
    const CALLERS: u64 = 40;
    const BATCHES: u64 = 25;
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(open(dir.path()));
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let store = store.clone();
        callers.push(tokio::spawn(async move {
            for batch in 0..BATCHES {
                let first = (caller * BATCHES + batch) * 10;
                let durability = if batch % 10 == 0 { Durability::Synced } else { Durability::Buffered };
                let rows = (first..first + 10).map(|n| put(pointer(n), n.to_be_bytes())).collect();
                store.apply(rows, durability).await.expect("is taken");
                let keys = (first..first + 10).map(pointer).collect();
                assert!(store.read(keys).await.expect("is read").iter().all(Option::is_some), "own writes are read");
            }
        }));
    }
    for caller in callers {
        caller.await.expect("a caller ends");
    }
    let total = CALLERS * BATCHES * 10;
    let found = store.read((0..total).map(pointer).collect()).await.expect("is read");
    for (n, value) in (0_u64..).zip(found) {
        assert_eq!(value.as_deref(), Some(&n.to_be_bytes()[..]));
    }
    store.close().await;
}

/// Files of sorted rows in all of the engine's tables but its own.
fn table_files(dir: &Path) -> usize {
    let mut files = 0;
    for table in std::fs::read_dir(dir.join("keyspaces")).expect("is listed").flatten().filter(|entry| entry.file_name() != "0") {
        files += std::fs::read_dir(table.path().join("tables")).map_or(0, Iterator::count);
    }
    files
}

#[tokio::test]
async fn a_hundred_thousand_rows_are_scanned() {
    const ROWS: u64 = 100_000;
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let conversation = ConversationId([1; 16]);
    let message = |n: u64| Key::Message(TENANT, conversation, Timestamp(n), MessageId([2; 16]));
    for first in (0..ROWS).step_by(1000) {
        let rows = (first..first + 1000).map(|n| put(message(n), vec![n as u8; 400])).collect();
        store.apply(rows, Durability::Buffered).await.expect("is taken");
    }
    let found = store.scan(Scan::Messages(TENANT, conversation, Timestamp::MAX), usize::MAX).await.expect("is read");
    assert_eq!(found.len() as u64, ROWS);
    for (n, (key, value)) in (0..ROWS).rev().zip(found) {
        assert_eq!(key, message(n));
        assert!(value.len() == 400 && value[0] == n as u8);
    }
    assert!(table_files(dir.path()) > 0, "what has grown in memory is written to tables");
    let page = store.scan(Scan::Messages(TENANT, conversation, Timestamp(50_000)), 3).await.expect("is read");
    assert_eq!(page.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [message(49_999), message(49_998), message(49_997)]);
    store.close().await;
}

#[tokio::test]
async fn a_failed_sync_is_never_retried_into_success() {
    fn failing(_: &mut Journal) -> std::io::Result<()> {
        Err(std::io::Error::other("the disk is gone"))
    }
    let dir = tempfile::tempdir().expect("a folder");
    open(dir.path()).close().await;
    let clock: SharedClock = clock();
    let store = EmbeddedStore::open_with(settings(dir.path()), clock.clone(), failing, MIB as usize).expect("opens");
    store.apply(vec![put(pointer(1), "one")], Durability::Buffered).await.expect("a buffered write needs no sync");
    let first = store.apply(vec![put(pointer(2), "two")], Durability::Synced).await.expect_err("its sync fails");
    assert!(matches!(&first, StoreError::Unavailable(text) if text.contains("the disk is gone")), "{first}");
    for answer in [
        store.sync().await.err(),
        store.apply(vec![put(pointer(3), "three")], Durability::Synced).await.err(),
        store.lease(LeaseOn::Shard(1), [1; 16], Duration::from_secs(1)).await.err(),
        store.change_directory(0, vec![]).await.err(),
    ] {
        assert!(matches!(&answer, Some(StoreError::Unavailable(text)) if text.contains("earlier write failed")), "{answer:?}");
    }
    assert_eq!(store.directory_version().await.expect("is read"), 0, "what was not durable is not told");
    assert!(read(&store, pointer(1)).await.is_some(), "reads go on");
    store.close().await;
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let callers = writer::QUEUE_MAX as u64 * 4;
    let writes = (0..callers).map(|n| store.apply(vec![put(pointer(n), "v")], Durability::Buffered));
    let reads = (0..callers).map(|n| store.read(vec![pointer(n)]));
    let (written, found) = tokio::join!(futures_util::future::join_all(writes), futures_util::future::join_all(reads));
    assert!(written.iter().all(Result::is_ok) && found.iter().all(Result::is_ok));
    store.close().await;
}
