//! The CQL store against a real server: `tests/servers up cassandra` sets what it reads from the environment.
#![cfg(feature = "scylla")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use messaging::clock::{Clock, ManualClock, Timestamp};
use messaging::ids::{ConversationId, MessageId, QuarantineId, TenantId};
use messaging::state::FeedPosition;
use messaging::store::conformance::{Subject, run};
use messaging::store::scylla::migrations::{self, MigrationError, Replication, State};
use messaging::store::scylla::{ScyllaSettings, open};
use messaging::store::{Durability, Key, LeaseAnswer, LeaseOn, Queue, Retention, Scan, Store, StoreError, Write};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::RwLock;

const CURE: &str = "run `tests/servers up cassandra` and set what it prints in the environment";
const TENANT: TenantId = TenantId([5; 16]);
const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// How long a test waits for what must come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// The test that stops the server waits for the others, and they for it.
static SERVER: RwLock<()> = RwLock::const_new(());

fn host() -> String {
    std::env::var("TRUNKLINE_TEST_CASSANDRA").unwrap_or_else(|_| panic!("TRUNKLINE_TEST_CASSANDRA is not set: {CURE}"))
}

fn hosts() -> Vec<String> {
    host().split(',').map(str::to_owned).collect()
}

/// A keyspace of a test, dropped at its end.
struct Keyspace {
    name: String,
    session: Session,
}

impl Keyspace {
    /// Not made yet.
    async fn named(name: &str) -> Self {
        let name = format!("trunkline_test_{name}_{}", std::process::id());
        let session = SessionBuilder::new().known_nodes(hosts()).build().await.unwrap_or_else(|error| panic!("{error}: {CURE}"));
        Self { name, session }
    }

    async fn made(name: &str) -> Self {
        let keyspace = Self::named(name).await;
        assert_eq!(migrations::apply(&keyspace.settings(), &Replication::Simple(1)).await.expect("is applied"), [1, 2]);
        keyspace
    }

    fn settings(&self) -> ScyllaSettings {
        // The server shares two cores with everything else: its first answers may be slow.
        ScyllaSettings { timeout: Duration::from_secs(10), ..ScyllaSettings::new(hosts(), &self.name) }
    }

    async fn store(&self, clock: &Arc<ManualClock>) -> Arc<dyn Store> {
        open(self.settings(), clock.clone()).await.expect("opens")
    }

    async fn cql(&self, text: &str) -> usize {
        let result = self.session.query_unpaged(text.replace("{}", &self.name), ()).await.expect("is answered");
        result.into_rows_result().map_or(0, |rows| rows.rows_num())
    }

    async fn dropped(self) {
        self.cql("DROP KEYSPACE IF EXISTS {}").await;
    }
}

fn pointer(n: u64) -> Key {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    Key::Pointer(TENANT, id)
}

fn put(key: Key, value: impl Into<Vec<u8>>) -> Write {
    Write::put(key, value.into(), START)
}

async fn apply(store: &dyn Store, batch: Vec<Write>) {
    store.apply(batch, Durability::Buffered).await.expect("is written");
}

async fn read(store: &dyn Store, key: Key) -> Option<Vec<u8>> {
    store.read(vec![key]).await.expect("is read").remove(0)
}

/// Asks until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    let _up = SERVER.read().await;
    let keyspace = Keyspace::made("conforms").await;
    let clock = ManualClock::at(START);
    let store = keyspace.store(&clock).await;
    run(async || Subject { store: store.clone(), clock: clock.clone() }).await;
    store.close().await;
    let after = store.read(vec![pointer(1)]).await;
    assert!(matches!(after, Err(StoreError::Closed)), "{after:?}");
    keyspace.dropped().await;
}

#[tokio::test]
async fn the_schema_is_asked_for() {
    let _up = SERVER.read().await;
    let keyspace = Keyspace::named("schema").await;
    let settings = keyspace.settings();
    let refusal = async || match open(settings.clone(), ManualClock::at(START)).await {
        Ok(_) => panic!("the schema is not there"),
        Err(error) => error.to_string(),
    };
    let states = async || {
        let all = migrations::status(&settings).await.expect("is answered");
        all.into_iter().map(|status| (status.number, status.state)).collect::<Vec<_>>()
    };
    assert!(refusal().await.contains("run `trunkline migrate apply`"));
    assert_eq!(states().await, [(1, State::Pending), (2, State::Pending)]);

    // Several at once: one works, the others find nothing left.
    let appliers: Vec<_> = (0..3)
        .map(|_| {
            let settings = settings.clone();
            tokio::spawn(async move { migrations::apply(&settings, &Replication::Simple(1)).await })
        })
        .collect();
    let mut applied = Vec::new();
    for applier in appliers {
        applied.extend(applier.await.expect("ends").expect("is applied"));
    }
    assert_eq!(applied, [1, 2], "applied once");
    assert_eq!(states().await, [(1, State::Applied), (2, State::Applied)]);
    assert_eq!(migrations::apply(&settings, &Replication::Simple(1)).await.expect("nothing to do"), [0_u32; 0]);
    open(settings.clone(), ManualClock::at(START)).await.expect("opens").close().await;

    // A program that died in the middle of a file: the next goes on behind the last statement that was noted.
    keyspace.cql("UPDATE {}.schema_migrations SET done = 3, finished = false WHERE part = 0 AND number = 1").await;
    assert!(refusal().await.contains("0001_init"));
    assert_eq!(states().await, [(1, State::Begun(3)), (2, State::Applied)]);
    assert_eq!(migrations::apply(&settings, &Replication::Simple(1)).await.expect("goes on"), [1]);

    // A newer program was here.
    let newer = "(part, number, name, checksum, done, finished) VALUES (0, 3, 'newer', 'x', 1, true)";
    keyspace.cql(&format!("INSERT INTO {{}}.schema_migrations {newer}")).await;
    assert_eq!(states().await, [(1, State::Applied), (2, State::Applied), (3, State::Newer)]);
    open(settings.clone(), ManualClock::at(START)).await.expect("a newer schema serves").close().await;

    // A file was changed after it was applied.
    keyspace.cql("UPDATE {}.schema_migrations SET checksum = 'another' WHERE part = 0 AND number = 1").await;
    assert_eq!(states().await[0], (1, State::Changed));
    let answer = migrations::apply(&settings, &Replication::Simple(1)).await;
    assert!(matches!(answer, Err(MigrationError::Changed { number: 1, .. })), "{answer:?}");
    keyspace.dropped().await;
}

#[tokio::test]
async fn a_new_owner_writes_over_the_former() {
    let _up = SERVER.read().await;
    let keyspace = Keyspace::made("owners").await;
    let ttl = Duration::from_secs(10);
    let (clock_a, clock_b) = (ManualClock::at(START), ManualClock::at(START));
    let (a, b) = (keyspace.store(&clock_a).await, keyspace.store(&clock_b).await);
    assert!(matches!(a.lease(LeaseOn::Shard(1), [1; 16], ttl).await, Ok(LeaseAnswer::Held(lease)) if lease.epoch == 1));
    clock_a.advance(Duration::from_secs(9));
    let keys = [pointer(1), Key::Conversation(TENANT, ConversationId([1; 16])), Key::Later(1, Queue::Timers, 7)];
    for key in keys {
        apply(&*a, vec![Write::put(key, b"former".to_vec(), clock_a.now())]).await;
    }
    // A is paused here. B takes over and works through a backlog: its records are older than what A wrote.
    clock_b.advance(ttl);
    assert!(matches!(b.lease(LeaseOn::Shard(1), [2; 16], ttl).await, Ok(LeaseAnswer::Held(lease)) if lease.epoch == 2));
    for key in keys {
        apply(&*b, vec![Write::put(key, b"new".to_vec(), START.minus(Duration::from_secs(3600)))]).await;
        assert_eq!(read(&*b, key).await.as_deref(), Some(&b"new"[..]), "{key:?}");
    }
    apply(&*b, vec![Write::delete(keys[2], START)]).await;
    // What A had under way arrives late.
    for key in keys {
        apply(&*a, vec![Write::put(key, b"late".to_vec(), clock_a.now())]).await;
    }
    assert_eq!(read(&*b, keys[0]).await.as_deref(), Some(&b"new"[..]), "a late write loses");
    assert_eq!(read(&*b, keys[1]).await.as_deref(), Some(&b"new"[..]), "a late write loses");
    assert_eq!(read(&*b, keys[2]).await, None, "a late write does not bring back what was deleted");
    keyspace.dropped().await;
}

#[tokio::test]
async fn the_last_write_of_a_row_counts() {
    let _up = SERVER.read().await;
    let keyspace = Keyspace::made("order").await;
    let store = keyspace.store(&ManualClock::at(START)).await;
    let event = |order| Key::Event(TENANT, FeedPosition { shard: 1, order });
    // All of one time, and older and older.
    for (n, (writes, expected)) in [
        (vec![Some("a"), Some("b")], Some("b")),
        (vec![Some("a"), None], None),
        (vec![None, Some("a")], Some("a")),
        (vec![Some("a"), None, Some("b"), Some("c")], Some("c")),
        (vec![Some("longer"), Some("a")], Some("a")),
    ]
    .into_iter()
    .enumerate()
    {
        for key in [event(n as u64), pointer(n as u64)] {
            let expected = expected.map(|value: &str| value.as_bytes().to_vec());
            let at = START.minus(Duration::from_secs(n as u64));
            let write = |value: &Option<&str>| Write { key, value: value.map(|value| value.as_bytes().to_vec()), at };
            apply(&*store, writes.iter().map(write).collect()).await;
            assert_eq!(read(&*store, key).await, expected, "{writes:?} at once");
            for value in &writes {
                apply(&*store, vec![write(value)]).await;
            }
            assert_eq!(read(&*store, key).await, expected, "{writes:?} one by one");
        }
    }
    keyspace.dropped().await;
}

#[tokio::test]
async fn batches_of_every_size_are_taken() {
    let _up = SERVER.read().await;
    let keyspace = Keyspace::made("sizes").await;
    let store = keyspace.store(&ManualClock::at(START)).await;
    for (rows, bytes) in [(1000, 20), (200, 2_000), (30, 60_000), (3, 1_000_000)] {
        let keys: Vec<Key> = (0..rows)
            .flat_map(|n| {
                let mut id = [7; 16];
                id[..8].copy_from_slice(&(bytes as u64 * 10_000 + n).to_be_bytes());
                [
                    Key::Message(TENANT, ConversationId(id), Timestamp(n), MessageId(id)),
                    Key::Event(TENANT, FeedPosition { shard: 1, order: bytes as u64 * 10_000 + n }),
                    Key::Pointer(TENANT, id),
                ]
            })
            .collect();
        apply(&*store, keys.iter().map(|key| put(*key, vec![9; bytes])).collect()).await;
        let found = store.read(keys.clone()).await.expect("are read");
        assert!(found.iter().all(|value| value.as_ref().is_some_and(|value| value.len() == bytes)), "{rows} rows of {bytes}");
    }
    // Larger than this server's commit log takes.
    let answer = store.apply(vec![put(pointer(1), vec![0; 12 << 20])], Durability::Synced).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(read(&*store, pointer(1)).await, None);
    keyspace.dropped().await;
}

#[tokio::test]
async fn scans_cross_buckets() {
    let _up = SERVER.read().await;
    let keyspace = Keyspace::made("buckets").await;
    let store = keyspace.store(&ManualClock::at(START)).await;
    let conversation = ConversationId([1; 16]);
    let day = Duration::from_secs(24 * 3600);
    let messages: Vec<Key> =
        (0..40_u32).map(|n| Key::Message(TENANT, conversation, START.minus(day * 10 * n), MessageId([n as u8; 16]))).collect();
    let events: Vec<Key> = (0..40).map(|n| Key::Event(TENANT, FeedPosition { shard: 3, order: (n / 20) << 44 | (n << 15) })).collect();
    let queue = Queue::Destination([4; 16]);
    let later: Vec<Key> = (0..40_u32).map(|n| Key::Later(3, queue, START.plus(day / 1000 * n).as_micros())).collect();
    let all = [&messages[..], &events, &later].concat();
    apply(&*store, all.into_iter().map(|key| put(key, "x")).collect()).await;
    // Another process, which has not put anything into an index.
    let other = keyspace.store(&ManualClock::at(START)).await;
    for (scan, keys) in [
        (Scan::Messages(TENANT, conversation, Timestamp::MAX), &messages),
        (Scan::Events(TENANT, FeedPosition { shard: 3, order: 0 }), &events[1..].to_vec()),
        (Scan::Later(3, queue, 0), &later),
        (Scan::AllLater(3), &later),
    ] {
        for limit in [1, 7, 39, 40, 1000] {
            let found = other.scan(scan, limit).await.expect("is read");
            let found: Vec<Key> = found.into_iter().map(|(key, _)| key).collect();
            assert_eq!(found, keys[..limit.min(keys.len())], "{scan:?}, limit {limit}");
        }
    }
    keyspace.dropped().await;
}

#[tokio::test]
async fn passed_buckets_of_later_leave_the_index_when_they_are_empty() {
    let _up = SERVER.read().await;
    let keyspace = Keyspace::made("sweep").await;
    let clock = ManualClock::at(START);
    let store = keyspace.store(&clock).await;
    let hour = Duration::from_secs(3600);
    let queue = Queue::Destination([4; 16]);
    let row = |at: Timestamp| Key::Later(1, queue, at.as_micros());
    let (done, kept, ahead) = (row(START), row(START.plus(hour)), row(START.plus(hour * 20)));
    let keys = [done, kept, ahead];
    apply(&*store, keys.iter().map(|key| put(*key, "x")).collect()).await;
    apply(&*store, vec![Write::delete(done, START)]).await;
    assert_eq!(keyspace.cql("SELECT * FROM {}.later_buckets").await, 3);
    assert!(matches!(store.lease(LeaseOn::Shard(1), [1; 16], hour * 24).await, Ok(LeaseAnswer::Held(_))));
    clock.advance(hour * 4);
    until("the empty bucket leaves the index", async || {
        clock.advance(Duration::from_secs(300));
        keyspace.cql("SELECT * FROM {}.later_buckets").await == 2
    })
    .await;
    let found = async || store.scan(Scan::AllLater(1), 10).await.expect("is read").into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(found().await, [kept, ahead]);
    // It comes back with its next row, however late.
    apply(&*store, vec![put(done, "x")]).await;
    assert_eq!(found().await, [done, kept, ahead]);
    keyspace.dropped().await;
}

#[tokio::test]
async fn rows_end_with_their_retention() {
    let _up = SERVER.read().await;
    let keyspace = Keyspace::made("retention").await;
    let retention = Retention { messages: Duration::from_secs(1), quarantine: Duration::from_secs(1), ..Retention::default() };
    let settings = ScyllaSettings { retention, ..keyspace.settings() };
    let store = open(settings, ManualClock::at(START)).await.expect("opens");
    let ends = [Key::Message(TENANT, ConversationId([1; 16]), START, MessageId([1; 16])), Key::Quarantine(TENANT, QuarantineId([1; 16]))];
    let stays = [Key::Conversation(TENANT, ConversationId([1; 16])), pointer(1), Key::Progress(1)];
    apply(&*store, [ends.as_slice(), stays.as_slice()].concat().into_iter().map(|key| put(key, "x")).collect()).await;
    until("rows expire", async || store.read(ends.to_vec()).await.expect("are read") == [None, None]).await;
    assert!(store.read(stays.to_vec()).await.expect("are read").iter().all(Option::is_some));
    assert_eq!(store.scan(Scan::Quarantine(None, None), 10).await.expect("is read"), []);
    keyspace.dropped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_unavailable_and_comes_back() {
    let _alone = SERVER.write().await;
    let keyspace = Keyspace::made("silent").await;
    let clock = ManualClock::at(START);
    let settings = ScyllaSettings { timeout: Duration::from_secs(1), ..keyspace.settings() };
    let store = open(settings, clock.clone()).await.expect("opens");
    apply(&*store, vec![put(pointer(1), "before")]).await;
    let server = Paused::now();
    let limit = Duration::from_secs(20);
    let during = tokio::time::timeout(limit, async {
        [
            store.read(vec![pointer(1)]).await.map(drop),
            store.scan(Scan::Intents(1), 10).await.map(drop),
            store.apply(vec![put(pointer(1), "during")], Durability::Synced).await,
            store.lease(LeaseOn::Shard(1), [1; 16], Duration::from_secs(10)).await.map(drop),
            store.directory_version().await.map(drop),
            store.change_directory(0, vec![]).await.map(drop),
        ]
    })
    .await
    .expect("every answer comes in time");
    drop(server);
    for (n, answer) in during.iter().enumerate() {
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{n}: {answer:?}");
    }
    until("the server answers again", async || store.read(vec![pointer(1)]).await.is_ok()).await;
    apply(&*store, vec![put(pointer(1), "after")]).await;
    assert_eq!(read(&*store, pointer(1)).await.as_deref(), Some(&b"after"[..]));
    until("a lease is given", async || {
        matches!(store.lease(LeaseOn::Shard(1), [1; 16], Duration::from_secs(10)).await, Ok(LeaseAnswer::Held(_)))
    })
    .await;
    keyspace.dropped().await;
}

/// The server, stopped in the middle of what it does. It goes on when this is dropped.
struct Paused(String);

impl Paused {
    fn now() -> Self {
        let dir = std::env::var("TRUNKLINE_TEST_SERVERS_DIR").unwrap_or_else(|_| panic!("TRUNKLINE_TEST_SERVERS_DIR is not set: {CURE}"));
        let text = std::fs::read_to_string(format!("{dir}/cassandra/pid")).expect("the server's pid is known");
        let paused = Self(text.split_whitespace().next().expect("it begins with the pid").to_owned());
        paused.signal("-STOP");
        paused
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0]).status().expect("kill runs").success());
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}
