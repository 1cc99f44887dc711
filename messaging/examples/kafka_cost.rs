//! What the log over Kafka costs this process, in CPU microseconds per record: appends in batches over partitions, then reading.
//!
//! `TRUNKLINE_TEST_KAFKA=host:port cargo run --release -p messaging --features kafka --example kafka_cost -- [partitions] [batch] [tasks]`
#[cfg(not(feature = "kafka"))]
fn main() {
    eprintln!("build with --features kafka");
}

#[cfg(feature = "kafka")]
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    measure::run().await;
}

#[cfg(feature = "kafka")]
mod measure {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use messaging::clock::SystemClock;
    use messaging::log::kafka::topics::{Admin, Overrides, parse, plan};
    use messaging::log::kafka::{KafkaLog, KafkaSettings};
    use messaging::log::{ClaimChange, Finished, Log, NewRecord, Topic};

    const RECORDS: usize = 300_000;
    const RECORD_BYTES: usize = 1_024;
    const TAKE: usize = 256;
    const FINISH_EVERY: Duration = Duration::from_millis(200);
    /// Of `/proc/self/stat`, as Linux has it on every machine that we build for.
    const TICKS_PER_SECOND: f64 = 100.0;

    /// CPU seconds of this process by the names of its threads.
    fn cpu() -> BTreeMap<String, f64> {
        let mut used: BTreeMap<String, f64> = BTreeMap::new();
        for task in std::fs::read_dir("/proc/self/task").expect("linux").flatten() {
            let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
            let (name, rest) = stat.rsplit_once(')').expect("a name");
            let name = name.split_once('(').expect("a name").1;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let ticks = fields[11].parse::<f64>().expect("a number") + fields[12].parse::<f64>().expect("a number");
            *used.entry(name.to_owned()).or_default() += ticks / TICKS_PER_SECOND;
        }
        used
    }

    struct Lap(&'static str, Instant, BTreeMap<String, f64>);

    impl Lap {
        fn begin(what: &'static str) -> Self {
            Self(what, Instant::now(), cpu())
        }

        fn end(self, records: usize) {
            let wall = self.1.elapsed().as_secs_f64();
            let micros = |seconds: f64| seconds * 1e6 / records as f64;
            let mut sum = 0.0;
            let mut threads = String::new();
            for (name, seconds) in cpu() {
                let used = seconds - self.2.get(&name).copied().unwrap_or_default();
                sum += used;
                if micros(used) >= 0.05 {
                    threads.push_str(&format!(" {name} {:.2}", micros(used)));
                }
            }
            println!("{:7} {:8.0} records/s, {:5.2} us CPU a record:{threads}", self.0, records as f64 / wall, micros(sum));
        }
    }

    pub async fn run() {
        let numbers: Vec<usize> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
        let at = |place: usize, other: usize| numbers.get(place).copied().unwrap_or(other);
        let (partitions, batch, tasks) = (at(0, 12) as u16, at(1, 64), at(2, 16));
        let brokers = std::env::var("TRUNKLINE_TEST_KAFKA").expect("TRUNKLINE_TEST_KAFKA names a broker");
        let mut settings = KafkaSettings::new(vec![brokers]);
        settings.topic_prefix = format!("cost-{}.", uuid::Uuid::now_v7().simple());
        settings.group = settings.topic_prefix.clone();
        let overrides = Overrides { partitions: Some(partitions), replication_factor: Some(1) };
        let file = include_str!("../../deploy/kafka/topics.toml");
        let wanted = parse(file, &settings.topic_prefix, overrides, settings.max_record).expect("the file is right");
        Admin::connect(&settings).expect("a client").apply(&plan(&[], &wanted, false)).await.expect("topics are made");
        let log = KafkaLog::open(settings, Arc::new(SystemClock::default())).await.expect("the log opens");
        println!("{partitions} partitions, {batch} records a batch, {tasks} tasks, {RECORD_BYTES} bytes, linger 2 ms, lz4");
        let records = append(&log, partitions, batch, tasks).await;
        take(&log, records).await;
        log.close().await;
    }

    async fn append(log: &Arc<KafkaLog>, partitions: u16, batch: usize, tasks: usize) -> usize {
        // Half of it compresses, half does not, as messages do.
        let mut payload = vec![b'a'; RECORD_BYTES];
        let mut state = 1_u64;
        for byte in &mut payload[..RECORD_BYTES / 2] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        let payload = Bytes::from(payload);
        let lap = Lap::begin("append");
        let mut running = Vec::new();
        for task in 0..tasks {
            let (log, payload) = (log.clone(), payload.clone());
            running.push(tokio::spawn(async move {
                for round in 0..RECORDS / tasks / batch {
                    let record = |number: usize| NewRecord {
                        topic: Topic::Inbound,
                        partition: ((task + round + number) % usize::from(partitions)) as u16,
                        payload: payload.clone(),
                    };
                    let results = log.append((0..batch).map(record).collect()).await;
                    assert!(results.iter().all(Result::is_ok));
                }
            }));
        }
        for task in running {
            task.await.expect("appending works");
        }
        let records = RECORDS / tasks / batch * tasks * batch;
        lap.end(records);
        records
    }

    async fn take(log: &Arc<KafkaLog>, records: usize) {
        let ClaimChange::Assigned(readers) = log.claims().await else { panic!("nothing is assigned") };
        let lap = Lap::begin("take");
        let mut reading = Vec::new();
        let (tell, mut told) = tokio::sync::mpsc::channel(1_024);
        for mut reader in readers {
            let tell = tell.clone();
            reading.push(tokio::spawn(async move {
                loop {
                    reader.ready().await;
                    let entries = reader.take(Topic::Inbound, TAKE).await.expect("taking works");
                    let Some(last) = entries.last() else { continue };
                    let finished = Finished { topic: Topic::Inbound, shard: reader.shard(), position: last.position };
                    if tell.send((finished, entries.len())).await.is_err() {
                        return;
                    }
                }
            }));
        }
        let mut seen = 0;
        let mut finished = BTreeMap::new();
        let mut finish_at = tokio::time::interval(FINISH_EVERY);
        while seen < records {
            tokio::select! {
                Some((last, count)) = told.recv() => {
                    finished.insert(last.shard, last);
                    seen += count;
                }
                _ = finish_at.tick() => {
                    let finished = std::mem::take(&mut finished).into_values().collect();
                    log.finish(finished).await.expect("finishing works");
                }
            }
        }
        lap.end(seen);
        for task in reading {
            task.abort();
        }
    }
}
