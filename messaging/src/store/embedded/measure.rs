//! What the store costs. Run with
//! `cargo test -p messaging --release store::embedded::measure -- --ignored --nocapture --test-threads 1`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::EmbeddedStore;
use crate::clock::{Clock, ManualClock, SystemClock, Timestamp};
use crate::ids::{ConversationId, MessageId, TenantId};
use crate::state::FeedPosition;
use crate::store::{Durability, EmbeddedSettings, Key, Retention, Store, Write};

const EVENTS_PER_BATCH: u64 = 64;
const CALLERS: u64 = 4;
const CONVERSATIONS: u64 = 10_000;
const KEYS_PER_READ: u64 = 64;
const READS: u64 = 4_000;
const MIB: u64 = 1024 * 1024;
/// The kernel counts a process's time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// Numbers without order (splitmix64).
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn id(kind: u64, n: u64) -> [u8; 16] {
    let (high, low) = (scatter(kind ^ (n << 8)), scatter(!n ^ kind));
    let mut id = [0; 16];
    id[..8].copy_from_slice(&high.to_be_bytes());
    id[8..].copy_from_slice(&low.to_be_bytes());
    id
}

/// Bytes that do not compress, as sealed ones do not.
struct Noise(Vec<u8>);

impl Noise {
    fn new() -> Self {
        Self((0..MIB / 8).flat_map(|n| scatter(n).to_le_bytes()).collect())
    }
    fn take(&self, n: u64, len: usize) -> Vec<u8> {
        let from = scatter(n) as usize % (self.0.len() - len);
        self.0[from..from + len].to_vec()
    }
}

fn process_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("linux");
    let after_name = stat.rsplit(") ").next().expect("a process has a name");
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("a number") + fields[12].parse::<f64>().expect("a number");
    ticks / TICKS_PER_SECOND
}

/// What each group of threads has used so far, in seconds.
fn thread_seconds() -> BTreeMap<String, f64> {
    let mut used = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").expect("linux").flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let nanos: f64 = read("schedstat").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        *used.entry(read("comm").trim().to_owned()).or_insert(0.0) += nanos / 1e9;
    }
    used
}

fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("linux");
    let pages: u64 = statm.split(' ').nth(1).expect("a second field").parse().expect("a number");
    pages * 4096 / MIB
}

/// Waits until the engine's threads have nothing more to merge.
fn settle() {
    let mut before = process_seconds();
    loop {
        std::thread::sleep(Duration::from_millis(700));
        let now = process_seconds();
        if now - before < 0.02 {
            return;
        }
        before = now;
    }
}

const TENANT: TenantId = TenantId([7; 16]);

fn event_rows(noise: &Noise, shard: u16, n: u64) -> [Write; 4] {
    let at = Timestamp::from_millis(1_800_000_000_000 + n);
    let conversation = ConversationId(id(1, scatter(n) % CONVERSATIONS));
    let message = MessageId(id(2, n));
    [
        Write::put(Key::Message(TENANT, conversation, at, message), noise.take(n, 1200), at),
        Write::put(Key::Pointer(TENANT, message.0), noise.take(n + 1, 120), at),
        Write::put(Key::Event(TENANT, FeedPosition { shard, order: n }), noise.take(n + 2, 200), at),
        Write::put(Key::Conversation(TENANT, conversation), noise.take(n + 3, 400), at),
    ]
}

fn batch(noise: &Noise, shard: u16, first: u64) -> Vec<Write> {
    (first..first + EVENTS_PER_BATCH).flat_map(|n| event_rows(noise, shard, n)).collect()
}

fn events() -> u64 {
    std::env::var("EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(500_000)
}

#[test]
#[ignore = "a measurement, for a quiet machine and a release build"]
fn cost_of_a_routers_work() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a folder");
    let settings = EmbeddedSettings {
        dir: dir.path().join("store"),
        max_bytes: 64 * 1024 * MIB,
        cache_bytes: 32 * MIB,
        retention: Retention::default(),
    };
    let noise = Arc::new(Noise::new());
    println!("rss before open {} MiB", resident_mib());
    let open = || Arc::new(EmbeddedStore::open(settings.clone(), Arc::new(SystemClock::default())).expect("opens"));
    let store = open();
    println!("rss idle after open {} MiB", resident_mib());

    let per_caller = events() / CALLERS / EVENTS_PER_BATCH * EVENTS_PER_BATCH;
    let total = (per_caller * CALLERS) as f64;
    let before = process_seconds();
    for caller in 0..CALLERS {
        for first in (0..per_caller).step_by(EVENTS_PER_BATCH as usize) {
            std::hint::black_box(batch(&noise, caller as u16, caller * per_caller + first));
        }
    }
    let making = (process_seconds() - before) * 1e6 / total;

    let (before, started) = (process_seconds(), Instant::now());
    let slowest = runtime.block_on(write_all(&store, &noise, per_caller));
    let (written, wall) = (process_seconds() - before, started.elapsed());
    settle();
    let settled = process_seconds() - before;
    let per_event = settled * 1e6 / total - making;
    println!(
        "write: {per_event:.2} us/event ({:.2} us/row, {:.0} us/batch of 64; making the rows, {making:.2}, taken off; {:.2} before merging settled), {:.0} events/s, slowest apply {slowest:?}, rss {} MiB, disk {} MiB",
        per_event / 4.0,
        per_event * EVENTS_PER_BATCH as f64,
        written * 1e6 / total - making,
        total / wall.as_secs_f64(),
        resident_mib(),
        store.disk().0 / MIB,
    );

    let threads: Vec<String> = thread_seconds().iter().map(|(name, used)| format!("{name} {:.2}", used * 1e6 / total)).collect();
    println!("us/event by thread: {}", threads.join(", "));

    for (name, kind, seed) in [("missing", 9, 0), ("present", 2, 0), ("present, again", 2, 0)] {
        let (before, started) = (process_seconds(), Instant::now());
        runtime.block_on(read_all(&store, kind, seed, per_caller * CALLERS));
        let keys = (READS * KEYS_PER_READ) as f64;
        println!(
            "read {name}: {:.2} us/key, {:.0} keys/s, rss {} MiB",
            (process_seconds() - before) * 1e6 / keys,
            keys / started.elapsed().as_secs_f64(),
            resident_mib()
        );
    }
    runtime.block_on(store.close());
    drop(store);
    println!("rss closed {} MiB", resident_mib());
    let started = Instant::now();
    let store = open();
    println!("reopened in {:?}", started.elapsed());
    settle();
    println!("rss reopened {} MiB", resident_mib());
    runtime.block_on(store.close());
}

/// What it costs to take half of the rows off the disk. Without the rests that the thread takes: the clock stands still.
#[test]
#[ignore = "a measurement, for a quiet machine and a release build"]
fn cost_of_sweeping() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a folder");
    let kept = Duration::from_secs(10 * 24 * 3600);
    let retention = Retention { messages: kept, events: kept, pointers: kept, quarantine: kept };
    let settings = EmbeddedSettings { dir: dir.path().join("store"), max_bytes: 64 * 1024 * MIB, cache_bytes: 32 * MIB, retention };
    let clock = ManualClock::at(Timestamp::from_millis(1_800_000_000_000));
    let store = Arc::new(EmbeddedStore::open(settings, clock.clone()).expect("opens"));
    let noise = Arc::new(Noise::new());
    let half = events() / 2 / EVENTS_PER_BATCH * EVENTS_PER_BATCH;
    for first in (0..2 * half).step_by(EVENTS_PER_BATCH as usize) {
        if first == half {
            clock.advance(kept);
        }
        let mut rows = batch(&noise, 0, first);
        rows.iter_mut().for_each(|row| row.at = clock.now());
        runtime.block_on(store.apply(rows, Durability::Buffered)).expect("is written");
    }
    settle();
    for said in ["half of it is over", "nothing is"] {
        runtime.block_on(store.sync()).expect("is synced");
        clock.advance(Duration::from_secs(24 * 3600));
        let (before, started) = (process_seconds(), Instant::now());
        store.waker.look();
        let (used, wall) = (process_seconds() - before, started.elapsed());
        std::thread::sleep(Duration::from_secs(2));
        store.disk();
        runtime.block_on(store.sync()).expect("is synced");
        println!("sweep, {said}: {used:.2} s of cpu, {wall:?}, disk {} MiB", store.disk().0 / MIB);
    }
    runtime.block_on(store.close());
}

async fn write_all(store: &Arc<EmbeddedStore>, noise: &Arc<Noise>, per_caller: u64) -> Duration {
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let (store, noise) = (store.clone(), noise.clone());
        callers.push(tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            for first in (0..per_caller).step_by(EVENTS_PER_BATCH as usize) {
                let rows = batch(&noise, caller as u16, caller * per_caller + first);
                let started = Instant::now();
                store.apply(rows, Durability::Buffered).await.expect("is written");
                slowest = slowest.max(started.elapsed());
            }
            slowest
        }));
    }
    let mut slowest = Duration::ZERO;
    for caller in callers {
        slowest = slowest.max(caller.await.expect("a caller ends"));
    }
    slowest
}

async fn read_all(store: &Arc<EmbeddedStore>, kind: u64, seed: u64, known: u64) {
    for n in 0..READS {
        let keys = (0..KEYS_PER_READ).map(|k| Key::Pointer(TENANT, id(kind, scatter(seed + n * KEYS_PER_READ + k) % known))).collect();
        let found = store.read(keys).await.expect("is read");
        assert!(found.iter().all(|value| value.is_some() == (kind == 2)));
    }
}
