//! Rows end with their retention: nobody is given them, and they leave the disk. The clock is moved; nothing sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{MIB, TENANT, settings};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::ids::{AccountId, ConversationId, MessageId, PlatformRef, QuarantineId};
use crate::state::FeedPosition;
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::journal::Journal;
use crate::store::embedded::keys::{self, Table};
use crate::store::embedded::tables::Tables;
use crate::store::embedded::writer::Command;
use crate::store::{Durability, EmbeddedSettings, Found, Key, Queue, Retention, Scan, Store, Work, Write};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Stands before a row's number in its value, and is looked for on the disk.
const MARKER: &str = "marker:";
const DIGITS: usize = 6;
/// All different, so that one setting cannot stand for another.
const KEPT: Retention = Retention {
    messages: DAY.saturating_mul(40),
    events: DAY.saturating_mul(10),
    pointers: DAY.saturating_mul(50),
    quarantine: DAY.saturating_mul(20),
};

/// One key of each kind, and how long it is kept; none for ever.
fn kinds(n: u64) -> [(Key, Option<Duration>); 9] {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    [
        // Its own time is far from when it is written.
        (Key::Message(TENANT, ConversationId([1; 16]), Timestamp(1), MessageId(id)), Some(KEPT.messages)),
        (Key::Event(TENANT, FeedPosition { shard: 1, order: n + 1 }), Some(KEPT.events)),
        (Key::Pointer(TENANT, id), Some(KEPT.pointers)),
        (Key::PlatformId(TENANT, AccountId([1; 16]), PlatformRef(id)), Some(KEPT.pointers)),
        (Key::Quarantine(TENANT, QuarantineId(id)), Some(KEPT.quarantine)),
        (Key::Conversation(TENANT, ConversationId(id)), None),
        (Key::Later(1, Queue::Timers, n), None),
        (Key::Intent(1, TENANT, MessageId(id)), None),
        (Key::Work(TENANT, AccountId(id), Work::Refresh), None),
    ]
}

fn value(n: usize) -> Vec<u8> {
    format!("{MARKER}{n:0DIGITS$}{}", "x".repeat(300)).into_bytes()
}

/// A folder, its clock, and the store in it.
struct Rig {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: EmbeddedStore,
}

impl Rig {
    fn new(retention: Retention) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let clock = ManualClock::at(START);
        let store = open(dir.path(), retention, &clock);
        Self { dir, clock, store }
    }

    async fn reopened(self, retention: Retention) -> Self {
        self.store.close().await;
        let store = open(self.dir.path(), retention, &self.clock);
        Self { store, ..self }
    }

    fn until(&self, time: Timestamp) {
        self.clock.advance(time.since(self.clock.now()));
    }

    async fn put(&self, key: Key, value: Vec<u8>) {
        let write = Write::put(key, value, self.clock.now());
        self.store.apply(vec![write], Durability::Buffered).await.expect("is taken");
    }

    async fn read(&self, key: Key) -> Option<Vec<u8>> {
        self.store.read(vec![key]).await.expect("is read").remove(0)
    }

    /// The rows in memory go to tables.
    async fn drain(&self) {
        // The second waits for the first.
        for _ in 0..2 {
            assert!(self.store.commands.send(Command::Drain).await.is_ok(), "the writer lives");
            self.store.sync().await.expect("is synced");
        }
    }

    /// Has it swept, and everything that it has begun ended.
    async fn swept(&self) {
        self.store.waker.look();
        self.drain().await;
    }

    /// The numbers whose values stand in a file of the folder. The store is closed for it, and reopened.
    async fn on_disk(self, retention: Retention) -> (BTreeSet<usize>, Self) {
        self.store.close().await;
        let mut found = BTreeSet::new();
        search(self.dir.path(), &mut found);
        let store = open(self.dir.path(), retention, &self.clock);
        (found, Self { store, ..self })
    }
}

fn open(dir: &Path, retention: Retention, clock: &Arc<ManualClock>) -> EmbeddedStore {
    // With small memory, so that it drains often.
    let settings = EmbeddedSettings { retention, ..settings(dir) };
    EmbeddedStore::open_with(settings, clock.clone(), Journal::sync, MIB as usize).expect("opens")
}

fn search(dir: &Path, found: &mut BTreeSet<usize>) {
    for entry in std::fs::read_dir(dir).expect("is listed").flatten() {
        if entry.path().is_dir() {
            search(&entry.path(), found);
            continue;
        }
        let bytes = std::fs::read(entry.path()).expect("is read");
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == MARKER.as_bytes()[0]) {
            let Some(digits) = bytes[at..].strip_prefix(MARKER.as_bytes()).and_then(|rest| rest.get(..DIGITS)) else { continue };
            found.insert(std::str::from_utf8(digits).expect("digits").parse().expect("a number"));
        }
    }
}

/// All rows that scans find.
async fn scanned(store: &EmbeddedStore) -> BTreeSet<Key> {
    let scans = [
        Scan::Messages(TENANT, ConversationId([1; 16]), Timestamp::MAX),
        Scan::Events(TENANT, FeedPosition { shard: 1, order: 0 }),
        Scan::Quarantine(Some(TENANT), None),
        Scan::Quarantine(None, None),
        Scan::AllLater(1),
        Scan::Intents(1),
    ];
    let mut keys = BTreeSet::new();
    for scan in scans {
        let found: Vec<Found> = store.scan(scan, usize::MAX).await.expect("is read");
        keys.extend(found.into_iter().map(|(key, _)| key));
    }
    keys
}

fn is_scanned(key: &Key) -> bool {
    match key {
        Key::Message(..) | Key::Event(..) | Key::Later(..) | Key::Intent(..) | Key::Quarantine(..) => true,
        Key::Conversation(..) | Key::Pointer(..) | Key::PlatformId(..) | Key::Progress(_) | Key::Work(..) => false,
    }
}

/// Checks which of the rows of [`kinds`] are there at an age.
async fn check_at(rig: &Rig, age: Duration) {
    rig.until(START.plus(age));
    let seen = scanned(&rig.store).await;
    for (n, (key, kept)) in kinds(0).into_iter().enumerate() {
        let is_there = kept.is_none_or(|kept| age < kept);
        assert_eq!(rig.read(key).await, is_there.then(|| value(n)), "{key:?} at an age of {age:?}");
        assert_eq!(seen.contains(&key), is_there && is_scanned(&key), "{key:?} scanned at an age of {age:?}");
    }
}

/// Where rows stand when their time is over.
#[derive(Debug, Clone, Copy)]
enum Place {
    Memory,
    Journal,
    Tables,
}

#[tokio::test]
async fn rows_are_given_until_their_time_and_not_after() {
    for place in [Place::Memory, Place::Journal, Place::Tables] {
        let mut rig = Rig::new(KEPT);
        for (n, (key, _)) in kinds(0).into_iter().enumerate() {
            rig.put(key, value(n)).await;
        }
        match place {
            Place::Memory => {}
            Place::Journal => rig = rig.reopened(KEPT).await,
            Place::Tables => rig.drain().await,
        }
        println!("{place:?}");
        check_at(&rig, Duration::ZERO).await;
        for kept in [KEPT.events, KEPT.quarantine, KEPT.messages, KEPT.pointers] {
            check_at(&rig, kept - HOUR).await;
            check_at(&rig, kept - Duration::from_secs(1)).await;
            check_at(&rig, kept).await;
            check_at(&rig, kept + HOUR).await;
        }
        check_at(&rig, DAY * 20_000).await;
        rig.store.close().await;
    }
}

#[tokio::test]
async fn what_is_over_leaves_the_disk_and_nothing_else_does() {
    const MANY: u64 = 3_000;
    let mut rig = Rig::new(KEPT);
    let mut markers = Vec::new();
    // In half of it all is old, so that tables of several levels hold both.
    for n in 0..MANY {
        if n == MANY / 2 {
            rig.clock.advance(DAY * 30);
        }
        for (key, kept) in kinds(n) {
            rig.put(key, value(markers.len())).await;
            markers.push((key, kept, rig.clock.now()));
        }
    }
    let all = (0..markers.len()).collect::<BTreeSet<_>>();
    rig.drain().await;
    let (found, next) = rig.on_disk(KEPT).await;
    rig = next;
    assert!(found.len() > all.len() / 2, "they are found where they are");
    // Which of the two halves' rows are over then.
    for (day, said) in [(31, "of the old ones some"), (45, "the old messages"), (52, "all old ones"), (90, "all")] {
        rig.until(START.plus(DAY * day));
        rig.swept().await;
        // What stood in the journal's files when it was swept goes the next time.
        rig.clock.advance(DAY);
        rig.swept().await;
        let now = rig.clock.now();
        let left: BTreeSet<usize> = all
            .iter()
            .copied()
            .filter(|n| {
                let (_, kept, at) = markers[*n];
                kept.is_none_or(|kept| at.plus(kept) > now)
            })
            .collect();
        let (found, next) = rig.on_disk(KEPT).await;
        rig = next;
        let over: Vec<_> = found.difference(&left).map(|n| markers[*n]).collect();
        assert!(over.is_empty(), "{said}: {} rows stay on the disk, such as {:?}", over.len(), over[0]);
        let lost: Vec<_> = left.difference(&found).map(|n| markers[*n]).collect();
        assert!(lost.is_empty(), "{said}: {} rows are lost, such as {:?}", lost.len(), lost[0]);
        for n in left.iter().step_by(37) {
            assert_eq!(rig.read(markers[*n].0).await, Some(value(*n)), "{said}");
        }
    }
    rig.store.close().await;
}

#[tokio::test]
async fn a_row_lives_from_when_it_was_last_written() {
    let rig = Rig::new(KEPT);
    let key = kinds(0)[0].0;
    rig.put(key, value(1)).await;
    rig.drain().await;
    rig.clock.advance(KEPT.messages - HOUR);
    rig.put(key, value(2)).await;
    rig.drain().await;
    rig.clock.advance(HOUR * 2);
    rig.swept().await;
    assert_eq!(rig.read(key).await, Some(value(2)), "the value of before is over, this one is not");
    rig.clock.advance(KEPT.messages);
    rig.swept().await;
    assert_eq!(rig.read(key).await, None);
    let (found, rig) = rig.on_disk(Retention::FOR_EVER).await;
    assert_eq!(found, BTreeSet::new());
    assert_eq!(rig.read(key).await, None, "nor does a value of before come back");
    rig.store.close().await;
}

#[tokio::test]
async fn a_shorter_setting_counts_for_old_rows_and_a_longer_one_gives_none_back() {
    let rig = Rig::new(Retention::FOR_EVER);
    for (n, (key, _)) in kinds(0).into_iter().enumerate() {
        rig.put(key, value(n)).await;
    }
    rig.drain().await;
    rig.clock.advance(DAY * 1000);
    rig.swept().await;
    for (n, (key, _)) in kinds(0).into_iter().enumerate() {
        assert_eq!(rig.read(key).await, Some(value(n)), "for ever");
    }
    let rig = rig.reopened(KEPT).await;
    for (n, (key, kept)) in kinds(0).into_iter().enumerate() {
        assert_eq!(rig.read(key).await, kept.is_none().then(|| value(n)), "from the restart on");
    }
    rig.swept().await;
    let (found, rig) = rig.on_disk(Retention::FOR_EVER).await;
    let stay: Vec<_> = kinds(0).into_iter().enumerate().filter(|(_, (_, kept))| kept.is_none()).collect();
    assert_eq!(found, stay.iter().map(|(n, _)| *n).collect());
    for (n, (key, kept)) in kinds(0).into_iter().enumerate() {
        assert_eq!(rig.read(key).await, kept.is_none().then(|| value(n)), "what is deleted does not come back");
    }
    rig.store.close().await;
}

#[tokio::test]
async fn a_journal_is_read_back_without_what_is_over() {
    let rig = Rig::new(KEPT);
    for (n, (key, _)) in kinds(0).into_iter().enumerate() {
        rig.put(key, value(n)).await;
    }
    rig.store.close().await;
    rig.clock.advance(DAY * 100);
    let store = open(rig.dir.path(), KEPT, &rig.clock);
    let rig = Rig { store, ..rig };
    for (n, (key, kept)) in kinds(0).into_iter().enumerate() {
        assert_eq!(rig.read(key).await, kept.is_none().then(|| value(n)));
    }
    for _ in 0..2 {
        rig.swept().await;
        rig.clock.advance(DAY);
    }
    let (found, rig) = rig.on_disk(KEPT).await;
    assert_eq!(found.len(), 4, "only what has no end: {found:?}");
    rig.store.close().await;
}

/// Rows as the form before had them, in a table and in the journal.
#[tokio::test]
async fn rows_of_the_form_before_count_from_when_they_are_taken_over() {
    let rig = Rig::new(KEPT);
    rig.store.close().await;
    let rows = |at: usize| kinds(at as u64).into_iter().enumerate().map(move |(n, (key, kept))| (at * 100 + n, key, kept));
    let bytes = |key: &Key| (keys::table_of(key), keys::encode(key));
    let settings = EmbeddedSettings { retention: KEPT, ..settings(rig.dir.path()) };
    for (n, key, _) in rows(0) {
        let (table, key) = bytes(&key);
        Tables::overwrite(&settings, table, key.as_ref(), &value(n));
    }
    let mut journal = Journal::open(rig.dir.path(), |_| {}).expect("opens");
    journal.begin_frame();
    for (n, key, _) in rows(1) {
        let (table, key) = bytes(&key);
        journal.add(table, key.as_ref(), Some(&value(n)));
    }
    journal.write_frame().expect("is written");
    drop(journal);
    Tables::overwrite_format(&settings, &[0, 0, 0, 2]);

    rig.until(START.plus(DAY * 1000));
    let store = open(rig.dir.path(), KEPT, &rig.clock);
    let mut rig = Rig { store, ..rig };
    let taken_over = rig.clock.now();
    for kept in [Duration::ZERO, KEPT.events, KEPT.quarantine, KEPT.messages, KEPT.pointers] {
        for age in [kept.saturating_sub(HOUR), kept + HOUR] {
            // The time is that of the first opening, also after others, and in rows that are merged in between.
            rig.until(taken_over.plus(age));
            rig.swept().await;
            rig = rig.reopened(KEPT).await;
            for (n, key, kept) in rows(0).chain(rows(1)) {
                let is_there = kept.is_none_or(|kept| age < kept);
                assert_eq!(rig.read(key).await, is_there.then(|| value(n)), "{key:?} at {age:?}");
            }
        }
    }
    rig.clock.advance(DAY * 2);
    rig.swept().await;
    let (found, rig) = rig.on_disk(KEPT).await;
    assert_eq!(found.len(), 8, "only what has no end: {found:?}");
    rig.store.close().await;
}

#[tokio::test]
async fn a_table_is_not_rewritten_beyond_the_limit_of_the_disk() {
    let mut rig = Rig::new(KEPT);
    let key = |n: u64| kinds(n)[1].0;
    for n in 0..60 {
        rig.put(key(n), [value(n as usize), vec![0; 64 * 1024]].concat()).await;
    }
    rig.drain().await;
    rig.store.close().await;
    let full = EmbeddedSettings { max_bytes: 5 * MIB, retention: KEPT, ..settings(rig.dir.path()) };
    rig.store = EmbeddedStore::open_with(full, rig.clock.clone(), Journal::sync, MIB as usize).expect("opens");
    rig.clock.advance(KEPT.events);
    rig.swept().await;
    assert_eq!(rig.read(key(1)).await, None, "nobody is given it");
    let (found, rig) = rig.on_disk(KEPT).await;
    assert_eq!(found.len(), 60, "it waits for room");
    // It is looked at again the next day.
    rig.swept().await;
    rig.clock.advance(DAY);
    rig.swept().await;
    let (found, rig) = rig.on_disk(KEPT).await;
    assert_eq!(found, BTreeSet::new());
    rig.store.close().await;
}

#[tokio::test]
async fn closing_ends_a_rewriting_and_loses_nothing() {
    let rig = Rig::new(KEPT);
    let key = |n: u64| kinds(n)[1].0;
    for n in 0..2_000 {
        if n == 1_000 {
            rig.clock.advance(KEPT.events);
        }
        rig.put(key(n), value(n as usize)).await;
    }
    rig.drain().await;
    rig.store.close().await;
    let tables = Tables::open(&EmbeddedSettings { retention: KEPT, ..settings(rig.dir.path()) }, rig.clock.clone()).expect("opens");
    tables.progress().stop_in_this_thread();
    assert!(tables.rewrite(Table::Events).is_err(), "it is not rewritten to its end");
    drop(tables);
    let rig = Rig { store: open(rig.dir.path(), KEPT, &rig.clock), ..rig };
    for n in (0..2_000).step_by(7) {
        assert_eq!(rig.read(key(n)).await, (n >= 1_000).then(|| value(n as usize)));
    }
    rig.store.close().await;
}

/// Rows are written, deleted and renewed while time goes by, merged, swept and read back. Reads and scans see what a map has.
#[tokio::test]
async fn time_goes_by_and_what_is_seen_is_what_a_map_has() {
    const ROUNDS: u64 = 300;
    const ROWS: u64 = 400;
    let message = |n: u64| Key::Message(TENANT, ConversationId([9; 16]), Timestamp(n), MessageId([3; 16]));
    let mut rig = Rig::new(KEPT);
    let mut expected: BTreeMap<u64, (Timestamp, Vec<u8>)> = BTreeMap::new();
    let mut seed = 1_u64;
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for round in 0..ROUNDS {
        rig.clock.advance(HOUR * draw(48) as u32);
        let now = rig.clock.now();
        let mut batch = Vec::new();
        for _ in 0..draw(20) {
            let n = 1 + draw(ROWS);
            if draw(5) == 0 {
                expected.remove(&n);
                batch.push(Write::delete(message(n), now));
            } else {
                let value = vec![round as u8; 200 + draw(8000) as usize];
                expected.insert(n, (now, value.clone()));
                batch.push(Write::put(message(n), value, now));
            }
        }
        rig.store.apply(batch, Durability::Buffered).await.expect("is taken");
        if round % 31 == 30 {
            rig.swept().await;
        }
        if round % 67 == 66 {
            rig = rig.reopened(KEPT).await;
        }
        expected.retain(|_, (at, _)| at.plus(KEPT.messages) > now);
        let keys = (1..=ROWS).map(message).collect();
        for (n, value) in (1..).zip(rig.store.read(keys).await.expect("is read")) {
            assert!(value.as_ref() == expected.get(&n).map(|(_, value)| value), "row {n} in round {round}");
        }
        let (before, limit) = (1 + draw(ROWS + 50), 1 + draw(50) as usize);
        let scan = Scan::Messages(TENANT, ConversationId([9; 16]), Timestamp(before));
        let found = rig.store.scan(scan, limit).await.expect("is read");
        let wanted: Vec<_> = expected.range(..before).rev().take(limit).map(|(n, (_, value))| (message(*n), value.clone())).collect();
        assert!(found == wanted, "a scan in round {round}");
    }
    assert!(expected.len() > 20, "some of it is there");
    rig.store.close().await;
}
