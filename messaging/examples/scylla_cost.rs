//! What the CQL store costs its client: CPU per event of `apply` and `read`, in the shape of inbound events.
//!
//! `TRUNKLINE_TEST_CASSANDRA=host:port cargo run --release -p messaging --features scylla --example scylla_cost [seconds [part of a name]]`

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use messaging::clock::{Clock, SystemClock, Timestamp};
use messaging::ids::{ConversationId, MessageId, TenantId};
use messaging::state::FeedPosition;
use messaging::store::scylla::migrations::{self, Replication};
use messaging::store::scylla::{BatchLimits, Compression, ScyllaSettings, open};
use messaging::store::{Durability, Key, Store, Write};

/// As in the program: a quarter of the cost is memory that comes and goes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: u64 = 256;
const CONVERSATIONS: u64 = 200;
const TENANT: TenantId = TenantId([1; 16]);

/// CPU nanoseconds of all threads of this process that live.
fn cpu_ns() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("Linux shows threads").flatten() {
        let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
        sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    sum
}

fn id(n: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// Incompressible, as sealed values are.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..1 << 16).map(next).collect()
}

fn value(n: u64, len: usize) -> Vec<u8> {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(noise);
    let start = n as usize % ((1 << 16) - len);
    NOISE[start..start + len].to_vec()
}

fn batch(shard: u16, round: u64, now: Timestamp) -> Vec<Write> {
    let mut writes = Vec::new();
    let base = (u64::from(shard) << 40) + round * EVENTS;
    for n in base..base + EVENTS {
        let conversation = ConversationId(id((u64::from(shard) << 32) + n % CONVERSATIONS));
        let at = now.plus(Duration::from_micros(n - base));
        writes.push(Write::put(Key::Message(TENANT, conversation, at, MessageId(id(n))), value(n, 600), now));
        writes.push(Write::put(Key::Event(TENANT, FeedPosition { shard, order: n }), value(n, 300), now));
        writes.push(Write::put(Key::Pointer(TENANT, id(n)), value(n, 60), now));
        writes.push(Write::put(Key::Pointer(TENANT, id(n ^ (1 << 60))), value(n, 60), now));
    }
    for n in 0..CONVERSATIONS {
        let conversation = ConversationId(id((u64::from(shard) << 32) + n));
        writes.push(Write::put(Key::Conversation(TENANT, conversation), value(n, 400), now));
    }
    writes
}

/// CPU nanoseconds that making a batch takes: not the store's.
fn cost_of_making() -> u64 {
    const BATCHES: u64 = 200;
    let before = cpu_ns();
    for round in 0..BATCHES {
        std::hint::black_box(batch(0, round, Timestamp(1)));
    }
    (cpu_ns() - before) / BATCHES
}

/// Prints CPU and rate of `work`, which does so many events at once, over some seconds.
async fn measure(name: &str, seconds: u64, shards: u16, store: &Arc<dyn Store>, kind: Kind, making: u64) {
    let clock = SystemClock::default();
    let mut tasks = Vec::new();
    let (began, cpu) = (Instant::now(), cpu_ns());
    for shard in 0..shards {
        let store = store.clone();
        let until = began + Duration::from_secs(seconds);
        let now = clock.now();
        tasks.push(tokio::spawn(async move {
            let mut rounds = 0;
            while Instant::now() < until {
                match kind {
                    Kind::Apply => {
                        store.apply(batch(shard, rounds, now), Durability::Buffered).await.expect("is written");
                    }
                    Kind::Read => {
                        let base = (u64::from(shard) << 40) + (rounds + 1_000_000) * EVENTS;
                        let mut keys: Vec<Key> = (base..base + EVENTS).map(|n| Key::Pointer(TENANT, id(n))).collect();
                        keys.extend(
                            (0..CONVERSATIONS).map(|n| Key::Conversation(TENANT, ConversationId(id((u64::from(shard) << 32) + n)))),
                        );
                        store.read(keys).await.expect("is read");
                    }
                }
                rounds += 1;
            }
            rounds
        }));
    }
    let mut rounds = 0;
    for task in tasks {
        rounds += task.await.expect("ends");
    }
    let made = if matches!(kind, Kind::Apply) { making } else { 0 };
    let used = (cpu_ns() - cpu).saturating_sub(rounds * made);
    let events = rounds * EVENTS;
    let rate = events as f64 / began.elapsed().as_secs_f64();
    println!("{name:48} {:6.2} us/event  {rate:8.0} events/s  {rounds} batches", used as f64 / events as f64 / 1000.0);
}

#[derive(Clone, Copy)]
enum Kind {
    Apply,
    Read,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let seconds = std::env::args().nth(1).map_or(8, |text| text.parse().expect("seconds"));
    let only = std::env::args().nth(2).unwrap_or_default();
    let host = std::env::var("TRUNKLINE_TEST_CASSANDRA").expect("run `tests/servers up cassandra` and set what it prints");
    let base = ScyllaSettings::new(host.split(',').map(str::to_owned).collect(), format!("trunkline_cost_{}", std::process::id()));
    let base = ScyllaSettings { timeout: Duration::from_secs(20), ..base };
    migrations::apply(&base, &Replication::Simple(1)).await.expect("is applied");
    let making = cost_of_making();
    println!("making a batch takes {} us of CPU, which is taken off", making / 1000);
    let limits = BatchLimits::default();
    let none = Compression::None;
    let with = |mixed_bytes, rows, partitions| BatchLimits { mixed_bytes, rows, partitions, ..limits };
    for (name, batches, compression, shards) in [
        ("warm-up", limits, none, 2),
        ("as shipped, 1 shard", limits, none, 1),
        ("as shipped, 4 shards", limits, none, 4),
        ("as shipped, 16 shards", limits, none, 16),
        ("lz4, 4 shards", limits, Compression::Lz4, 4),
        ("20 KiB over several partitions, 4 shards", with(20 * 1024, 64, 10), none, 4),
        ("40 KiB, 30 partitions, 4 shards", with(40 * 1024, 64, 30), none, 4),
        ("one row per statement, 4 shards", with(0, 1, 1), none, 4),
    ] {
        if !name.contains(&only) {
            continue;
        }
        let settings = ScyllaSettings { batches, compression, ..base.clone() };
        let store = open(settings, Arc::new(SystemClock::default())).await.expect("opens");
        measure(&format!("apply, {name}"), seconds, shards, &store, Kind::Apply, making).await;
        if shards == 4 && batches == limits {
            measure(&format!("read 256 new ids and 200 states, {name}"), seconds, shards, &store, Kind::Read, making).await;
        }
        store.close().await;
    }
    let session = scylla::client::session_builder::SessionBuilder::new().known_node(host.split(',').next().expect("one")).build().await;
    let _ = session.expect("connects").query_unpaged(format!("DROP KEYSPACE {}", base.keyspace), ()).await;
}
