//! What every [`Store`] must do, as tests that see it from outside.
//!
//! A backend's test calls [`run`] with a way to a store and the clock that the store was given. The checks can share one store
//! that is not empty: each has tenants and shards of its own ([`Place`]). They ask for nothing that only some backends can do:
//! write times rise from write to write, and no two writes of a batch are of one row.

mod node;

use std::sync::Arc;

use super::{Durability, Found, Key, Queue, Scan, Store, Work, Write};
use crate::BoxFuture;
use crate::clock::{ManualClock, Timestamp};
use crate::ids::{AccountId, ConversationId, MessageId, PlatformRef, QuarantineId, TenantId};
use crate::state::FeedPosition;

/// A store to check, and its clock.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The clock that it was opened with; the checks move it.
    pub clock: Arc<ManualClock>,
}

type Check = fn(Subject, Place) -> BoxFuture<'static, ()>;

macro_rules! checks {
    ($($name:path),* $(,)?) => {
        [$((stringify!($name), (|subject, place| Box::pin($name(subject, place))) as Check)),*]
    };
}

/// Runs all checks, each with a subject from `open`, and closes none.
pub async fn run(mut open: impl AsyncFnMut() -> Subject) {
    let checks = checks![
        reads_answer_by_position,
        every_key_has_its_own_row,
        overwrites_and_deletes,
        writes_are_read_at_once,
        replays_change_nothing,
        large_and_empty_values,
        messages_come_newest_first,
        events_come_after_a_place,
        later_comes_in_order,
        intents_of_one_shard,
        quarantine_of_one_and_all,
        node::a_step_needs_its_lease,
        node::a_lease_has_one_holder,
        node::a_lease_ends_with_its_time,
        node::a_lease_is_given_back_by_its_holder_only,
        node::leases_are_apart,
        node::a_work_is_noted_under_its_lease,
        node::the_directory_changes_by_version,
        node::one_of_many_changers_wins,
        sync_is_answered,
    ];
    for (n, (name, check)) in checks.into_iter().enumerate() {
        // The name stands in the output of a failed test.
        println!("store conformance: {name}");
        let number = u16::try_from(n).expect("there are few checks");
        check(open().await, Place { check: number }).await;
    }
}

/// The tenants, shards and times of one check.
#[derive(Clone, Copy)]
pub struct Place {
    check: u16,
}

impl Place {
    /// Neighbouring numbers are neighbouring ids.
    fn tenant(self, n: u8) -> TenantId {
        let [high, low] = self.check.to_be_bytes();
        TenantId([0x70, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, n])
    }

    /// Neighbouring numbers are neighbouring shards. Checks have 16 of them.
    fn shard(self, n: u16) -> u16 {
        assert!(n < 16, "a check has 16 shards");
        self.check * 16 + n
    }
}

fn bytes(n: u8) -> [u8; 16] {
    [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, n]
}

/// Write times that rise.
struct Times(u64);

impl Times {
    fn new() -> Self {
        Self(1_800_000_000_000_000)
    }
    fn next(&mut self) -> Timestamp {
        self.0 += 1;
        Timestamp(self.0)
    }
    fn put(&mut self, key: Key, value: impl Into<Vec<u8>>) -> Write {
        Write::put(key, value.into(), self.next())
    }
    fn delete(&mut self, key: Key) -> Write {
        Write::delete(key, self.next())
    }
}

async fn put_all(store: &dyn Store, times: &mut Times, keys: &[Key]) {
    let writes = keys.iter().map(|key| times.put(*key, format!("{key:?}"))).collect();
    store.apply(writes, Durability::Buffered).await.expect("rows are taken");
}

async fn read_one(store: &dyn Store, key: Key) -> Option<Vec<u8>> {
    let mut found = store.read(vec![key]).await.expect("a row is read");
    assert_eq!(found.len(), 1, "one answer per key");
    found.remove(0)
}

/// Checks a scan's rows: these keys in this order, each with its own value.
async fn expect_scan(store: &dyn Store, scan: Scan, limit: usize, expected: &[Key]) {
    let found = store.scan(scan, limit).await.expect("a range is read");
    let keys: Vec<Key> = found.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, expected, "{scan:?}, limit {limit}");
    for (key, value) in &found {
        assert_eq!(value, format!("{key:?}").as_bytes(), "the row of {key:?}");
    }
}

/// Checks a scan, and every limit of it.
async fn expect_range(store: &dyn Store, scan: Scan, expected: &[Key]) {
    expect_scan(store, scan, usize::MAX, expected).await;
    for limit in 0..=expected.len() + 1 {
        expect_scan(store, scan, limit, &expected[..limit.min(expected.len())]).await;
    }
}

/// One key of every kind, with this tenant, shard and last byte.
fn one_of_each(tenant: TenantId, shard: u16, n: u8) -> Vec<Key> {
    vec![
        Key::Conversation(tenant, ConversationId(bytes(n))),
        Key::Message(tenant, ConversationId(bytes(n)), Timestamp(7), MessageId(bytes(n))),
        Key::Pointer(tenant, bytes(n)),
        Key::PlatformId(tenant, AccountId(bytes(n)), PlatformRef(bytes(n))),
        Key::Event(tenant, FeedPosition { shard, order: u64::from(n) }),
        Key::Later(shard, Queue::Destination(bytes(n)), 7),
        Key::Later(shard, Queue::Timers, u64::from(n)),
        Key::Intent(shard, tenant, MessageId(bytes(n))),
        Key::Quarantine(tenant, QuarantineId(bytes(n))),
        Key::Work(tenant, AccountId(bytes(n)), Work::Connection),
    ]
}

async fn reads_answer_by_position(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    let key = |n| Key::Pointer(place.tenant(1), bytes(n));
    put_all(&*store, &mut times, &[key(1), key(3)]).await;
    let found = store.read(vec![key(2), key(3), key(4), key(1), key(3)]).await.expect("rows are read");
    let value = |n| Some(format!("{:?}", key(n)).into_bytes());
    assert_eq!(found, [None, value(3), None, value(1), value(3)]);
    assert_eq!(store.read(vec![]).await.expect("nothing is read"), Vec::<Option<Vec<u8>>>::new());
    store.apply(vec![], Durability::Synced).await.expect("nothing is written");
}

async fn every_key_has_its_own_row(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    // Each differs from the first in one part only.
    let mut keys = Vec::new();
    for (tenant, shard, n) in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)] {
        keys.extend(one_of_each(place.tenant(tenant), place.shard(shard), n));
    }
    keys.push(Key::Message(place.tenant(1), ConversationId(bytes(1)), Timestamp(8), MessageId(bytes(1))));
    keys.push(Key::Message(place.tenant(1), ConversationId(bytes(1)), Timestamp(7), MessageId(bytes(2))));
    keys.push(Key::PlatformId(place.tenant(1), AccountId(bytes(1)), PlatformRef(bytes(2))));
    keys.push(Key::Later(place.shard(1), Queue::Destination(bytes(1)), 8));
    keys.push(Key::Work(place.tenant(1), AccountId(bytes(1)), Work::Refresh));
    keys.sort();
    keys.dedup();
    for key in &keys {
        assert_eq!(read_one(&*store, *key).await, None, "nothing is at {key:?} yet");
    }
    put_all(&*store, &mut times, &keys).await;
    for key in &keys {
        assert_eq!(read_one(&*store, *key).await, Some(format!("{key:?}").into_bytes()));
    }
    for (n, key) in keys.iter().enumerate() {
        store.apply(vec![times.delete(*key)], Durability::Buffered).await.expect("a row is deleted");
        let left = store.read(keys.clone()).await.expect("rows are read");
        assert!(left[..=n].iter().all(Option::is_none), "{key:?} is deleted");
        assert!(left[n + 1..].iter().all(Option::is_some), "nothing but {key:?} is deleted");
    }
}

async fn overwrites_and_deletes(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    for key in one_of_each(place.tenant(1), place.shard(1), 1) {
        for (write, expected) in [
            (times.delete(key), None),
            (times.put(key, "first"), Some("first")),
            (times.put(key, "second, longer"), Some("second, longer")),
            (times.put(key, "3"), Some("3")),
            (times.delete(key), None),
            (times.delete(key), None),
            (times.put(key, "again"), Some("again")),
        ] {
            store.apply(vec![write], Durability::Buffered).await.expect("a row is written");
            assert_eq!(read_one(&*store, key).await.as_deref(), expected.map(str::as_bytes), "{key:?}");
        }
    }
}

async fn writes_are_read_at_once(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    let conversation = ConversationId(bytes(1));
    for n in 0..50_u64 {
        let durability = if n % 10 == 0 { Durability::Synced } else { Durability::Buffered };
        let key = Key::Message(place.tenant(1), conversation, Timestamp(n), MessageId(bytes(1)));
        let writes = vec![times.put(key, format!("{key:?}"))];
        store.apply(writes, durability).await.expect("a row is written");
        assert!(read_one(&*store, key).await.is_some(), "read after {durability:?}");
        expect_scan(&*store, Scan::Messages(place.tenant(1), conversation, Timestamp::MAX), 1, &[key]).await;
    }
}

async fn replays_change_nothing(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    let key = |n| Key::Event(place.tenant(1), FeedPosition { shard: place.shard(1), order: n });
    let batches = [
        vec![times.put(key(1), format!("{:?}", key(1))), times.put(key(2), "to be deleted")],
        vec![times.put(key(3), "to be overwritten"), times.delete(key(2))],
        vec![times.put(key(3), format!("{:?}", key(3)))],
    ];
    for _ in 0..3 {
        for batch in &batches {
            store.apply(batch.clone(), Durability::Buffered).await.expect("a batch is taken");
        }
        expect_range(&*store, Scan::Events(place.tenant(1), FeedPosition { shard: place.shard(1), order: 0 }), &[key(1), key(3)]).await;
    }
}

async fn large_and_empty_values(Subject { store, .. }: Subject, place: Place) {
    const LARGE: usize = 1024 * 1024;
    let mut times = Times::new();
    let noise: Vec<u8> = (0..LARGE as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let key = |n| Key::Quarantine(place.tenant(1), QuarantineId(bytes(n)));
    let values: [Vec<u8>; 4] = [vec![], noise, vec![0; LARGE], vec![0]];
    let mut writes = Vec::new();
    for (n, value) in (0..).zip(&values) {
        writes.push(times.put(key(n), value.clone()));
    }
    store.apply(writes, Durability::Synced).await.expect("values are taken");
    for (n, value) in (0..).zip(&values) {
        assert!(read_one(&*store, key(n)).await.as_ref() == Some(value), "value {n} comes back");
    }
    let found = store.scan(Scan::Quarantine(Some(place.tenant(1)), None), 10).await.expect("a range is read");
    assert!(found.iter().map(|(_, value)| value).eq(&values), "values come back from a scan");
}

async fn messages_come_newest_first(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    let message = |tenant, conversation, time, n| {
        Key::Message(place.tenant(tenant), ConversationId(bytes(conversation)), Timestamp(time), MessageId(bytes(n)))
    };
    // The newest first; two of one time stand in the order of their ids.
    let mut rows = vec![message(2, 2, u64::MAX, 1), message(2, 2, 300, 1), message(2, 2, 256, 2), message(2, 2, 256, 1)];
    rows.extend([message(2, 2, 255, 9), message(2, 2, 0, 1)]);
    let mut all = rows.clone();
    for (tenant, conversation) in [(1, 2), (3, 2), (2, 1), (2, 3)] {
        all.extend([
            message(tenant, conversation, 0, 1),
            message(tenant, conversation, 256, 1),
            message(tenant, conversation, u64::MAX, 1),
        ]);
    }
    // Neighbours by the other end of their ids: which end a backend sorts by is its own affair.
    for first in [8, 10] {
        let [mut tenant, mut conversation] = [place.tenant(2).0, bytes(2)];
        (tenant[0], conversation[0]) = (first, first);
        for time in [0, 256, u64::MAX] {
            all.push(Key::Message(TenantId(tenant), ConversationId(bytes(2)), Timestamp(time), MessageId(bytes(1))));
            all.push(Key::Message(place.tenant(2), ConversationId(conversation), Timestamp(time), MessageId(bytes(1))));
        }
    }
    put_all(&*store, &mut times, &all).await;
    for (before, expected) in [
        (u64::MAX, &rows[1..]),
        (301, &rows[1..]),
        (300, &rows[2..]),
        (257, &rows[2..]),
        (256, &rows[4..]),
        (255, &rows[5..]),
        (1, &rows[5..]),
        (0, &[]),
    ] {
        expect_range(&*store, Scan::Messages(place.tenant(2), ConversationId(bytes(2)), Timestamp(before)), expected).await;
    }
    expect_range(&*store, Scan::Messages(place.tenant(2), ConversationId(bytes(4)), Timestamp::MAX), &[]).await;
    store.apply(vec![times.delete(rows[2])], Durability::Buffered).await.expect("a row is deleted");
    expect_scan(&*store, Scan::Messages(place.tenant(2), ConversationId(bytes(2)), Timestamp(300)), 1, &rows[3..4]).await;
}

async fn events_come_after_a_place(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    let at = |shard, order| FeedPosition { shard: place.shard(shard), order };
    let event = |tenant, shard, order| Key::Event(place.tenant(tenant), at(shard, order));
    let rows = [event(2, 2, 0), event(2, 2, 1), event(2, 2, 255), event(2, 2, 256), event(2, 2, u64::MAX)];
    let mut all = rows.to_vec();
    for (tenant, shard) in [(1, 2), (3, 2), (2, 1), (2, 3)] {
        all.extend([event(tenant, shard, 0), event(tenant, shard, 256), event(tenant, shard, u64::MAX)]);
    }
    for first in [8, 200] {
        let mut tenant = place.tenant(2).0;
        tenant[0] = first;
        all.extend([0, 256, u64::MAX].map(|order| Key::Event(TenantId(tenant), at(2, order))));
    }
    put_all(&*store, &mut times, &all).await;
    for (after, expected) in [(0, &rows[1..]), (1, &rows[2..]), (254, &rows[2..]), (255, &rows[3..]), (256, &rows[4..]), (u64::MAX, &[])] {
        expect_range(&*store, Scan::Events(place.tenant(2), at(2, after)), expected).await;
    }
    expect_range(&*store, Scan::Events(place.tenant(2), at(4, 0)), &[]).await;
}

async fn later_comes_in_order(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    let destination = |n| Queue::Destination(bytes(n));
    let row = |shard, queue, order| Key::Later(place.shard(shard), queue, order);
    let queues = [destination(1), destination(2), Queue::Timers];
    let mut all = Vec::new();
    for shard in [1, 2, 3] {
        for queue in queues {
            all.extend([row(shard, queue, 0), row(shard, queue, 255), row(shard, queue, 256), row(shard, queue, u64::MAX)]);
        }
        // Neighbours of another kind.
        all.push(Key::Intent(place.shard(shard), place.tenant(1), MessageId(bytes(1))));
    }
    put_all(&*store, &mut times, &all).await;
    for queue in queues {
        let rows = [row(2, queue, 0), row(2, queue, 255), row(2, queue, 256), row(2, queue, u64::MAX)];
        for (from, expected) in
            [(0, &rows[..]), (1, &rows[1..]), (255, &rows[1..]), (256, &rows[2..]), (257, &rows[3..]), (u64::MAX, &rows[3..])]
        {
            expect_range(&*store, Scan::Later(place.shard(2), queue, from), expected).await;
        }
    }
    expect_range(&*store, Scan::Later(place.shard(2), destination(3), 0), &[]).await;

    // All: queue by queue, in order within each; which queue comes first is the backend's.
    let found = store.scan(Scan::AllLater(place.shard(2)), usize::MAX).await.expect("a range is read");
    assert_eq!(found.len(), 12, "everything in the shard's later, and nothing else");
    for queue in queues {
        let orders = orders_of(&found, place.shard(2), queue);
        assert_eq!(orders, [0, 255, 256, u64::MAX], "{queue:?}");
        let first = found.iter().position(|(key, _)| matches!(key, Key::Later(_, q, _) if *q == queue)).expect("it is there");
        assert_eq!(orders_of(&found[first..first + 4], place.shard(2), queue).len(), 4, "{queue:?} stands together");
    }
    expect_range(&*store, Scan::AllLater(place.shard(4)), &[]).await;

    // What is done is deleted, and the queue goes on behind it.
    store.apply(vec![times.delete(row(2, Queue::Timers, 0))], Durability::Buffered).await.expect("a row is deleted");
    expect_scan(&*store, Scan::Later(place.shard(2), Queue::Timers, 0), 1, &[row(2, Queue::Timers, 255)]).await;
}

fn orders_of(found: &[Found], of_shard: u16, of_queue: Queue) -> Vec<u64> {
    let mut orders = Vec::new();
    for (key, _) in found {
        let Key::Later(shard, queue, order) = key else { panic!("{key:?} is not of later") };
        assert_eq!(*shard, of_shard, "a row of another shard");
        if *queue == of_queue {
            orders.push(*order);
        }
    }
    orders
}

async fn intents_of_one_shard(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    let intent = |shard, tenant, n| Key::Intent(place.shard(shard), place.tenant(tenant), MessageId(bytes(n)));
    let rows = [intent(2, 1, 1), intent(2, 1, 2), intent(2, 2, 1)];
    let mut all = rows.to_vec();
    all.extend([intent(1, 1, 1), intent(1, 255, 255), intent(3, 0, 0), Key::Later(place.shard(2), Queue::Timers, u64::MAX)]);
    all.push(Key::Later(place.shard(2), Queue::Destination([u8::MAX; 16]), u64::MAX));
    put_all(&*store, &mut times, &all).await;
    expect_range(&*store, Scan::Intents(place.shard(2)), &rows).await;
    store.apply(vec![times.delete(rows[1])], Durability::Synced).await.expect("an intent is settled");
    expect_range(&*store, Scan::Intents(place.shard(2)), &[rows[0], rows[2]]).await;
    expect_range(&*store, Scan::Intents(place.shard(4)), &[]).await;
}

async fn quarantine_of_one_and_all(Subject { store, .. }: Subject, place: Place) {
    let mut times = Times::new();
    // Ids are unique across tenants.
    let id = |n| QuarantineId(place.tenant(n).0);
    let row = |tenant, n| Key::Quarantine(place.tenant(tenant), id(n));
    // Ids of tenants stand between each other's: pages over all tenants must lose none.
    let (first, second, third) = ([row(1, 3), row(1, 6)], [row(2, 1), row(2, 5), row(2, 9)], [row(3, 2), row(3, 7)]);
    let all = [&first[..], &second[..], &third[..]].concat();
    put_all(&*store, &mut times, &all).await;
    let after = |n| Some(id(n));
    for (from, expected) in
        [(None, &second[..]), (after(0), &second[..]), (after(1), &second[1..]), (after(5), &second[2..]), (after(9), &[])]
    {
        expect_range(&*store, Scan::Quarantine(Some(place.tenant(2)), from), expected).await;
    }
    expect_range(&*store, Scan::Quarantine(Some(place.tenant(4)), None), &[]).await;

    // All tenants, a page of two at a time, after the last id of the page before.
    let mut seen = Vec::new();
    let mut last = None;
    loop {
        let page = store.scan(Scan::Quarantine(None, last), 2).await.expect("a page is read");
        let Some((Key::Quarantine(_, id), _)) = page.last() else { break };
        assert!(last.is_none_or(|last| *id > last), "pages go on");
        last = Some(*id);
        let ours = page.iter().map(|(key, _)| *key).filter(|key| all.contains(key));
        seen.extend(ours);
    }
    seen.sort();
    assert_eq!(seen, all, "each row comes once");
}

async fn sync_is_answered(Subject { store, .. }: Subject, place: Place) {
    let key = Key::Conversation(place.tenant(1), ConversationId(bytes(1)));
    store.sync().await.expect("nothing is synced");
    put_all(&*store, &mut Times::new(), &[key]).await;
    store.sync().await.expect("a row is synced");
    assert!(read_one(&*store, key).await.is_some());
    let (used, limit) = store.disk();
    assert!(used <= limit, "{used} of {limit} bytes");
}
