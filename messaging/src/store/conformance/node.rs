//! Leases and the directory: what changes by compare-and-set.

use std::sync::Arc;
use std::time::Duration;

use super::{Place, Subject, bytes};
use crate::clock::{Clock, Timestamp};
use crate::ids::AccountId;
use crate::store::{Durability, Held, Key, Lease, LeaseAnswer, LeaseOn, Store, StoreError, Work, Write};

const TTL: Duration = Duration::from_secs(10);

async fn held(store: &dyn Store, on: LeaseOn, owner: u8) -> Lease {
    match store.lease(on, bytes(owner), TTL).await.expect("a lease is answered") {
        LeaseAnswer::Held(lease) => lease,
        LeaseAnswer::HeldByOther(lease) => panic!("{lease:?} is in the way"),
    }
}

async fn refused(store: &dyn Store, on: LeaseOn, owner: u8) -> Lease {
    match store.lease(on, bytes(owner), TTL).await.expect("a lease is answered") {
        LeaseAnswer::Held(lease) => panic!("{lease:?} was given twice"),
        LeaseAnswer::HeldByOther(lease) => lease,
    }
}

/// What leases may be on, so many apart in a check: of each kind, and neighbours in one part of the key.
fn subjects(place: Place) -> [LeaseOn; 5] {
    let account = |n| AccountId(place.tenant(n).0);
    [
        LeaseOn::Shard(place.shard(1)),
        LeaseOn::Shard(place.shard(2)),
        LeaseOn::Account(account(1), Work::Connection),
        LeaseOn::Account(account(1), Work::Pull),
        LeaseOn::Account(account(2), Work::Connection),
    ]
}

/// A step is written while its lease holds, and not at all afterwards.
pub(super) async fn a_step_needs_its_lease(Subject { store, clock }: Subject, place: Place) {
    let lease = held(&*store, LeaseOn::Shard(place.shard(1)), 1).await;
    let (tenant, at) = (place.tenant(1), clock.now());
    let keys: Vec<Key> = (0..40_u8).map(|n| Key::Conversation(tenant, crate::ids::ConversationId([n; 16]))).collect();
    let batch = |text: &str| Arc::new(keys.iter().map(|key| Write::put(*key, text.as_bytes().to_vec(), at)).collect::<Vec<Write>>());
    let holds = |answer: bool| Held { lease, holds: Arc::new(move || answer) };
    store.apply_step(&holds(true), batch("first"), Durability::Buffered).await.expect("the lease holds");
    let refused = store.apply_step(&holds(false), batch("second"), Durability::Buffered).await;
    assert!(matches!(refused, Err(StoreError::Unheld)), "{refused:?}");
    let found = store.read(keys.clone()).await.expect("rows are read");
    assert!(found.iter().all(|value| value.as_deref() == Some(b"first")), "nothing of the second counts");

    // Nor does it after another took over.
    clock.advance(TTL);
    held(&*store, LeaseOn::Shard(place.shard(1)), 2).await;
    let found = store.read(keys).await.expect("rows are read");
    assert!(found.iter().all(|value| value.as_deref() == Some(b"first")));
}

/// A work's row is written while the lease on the work holds, and not afterwards.
pub(super) async fn a_work_is_noted_under_its_lease(Subject { store, clock }: Subject, place: Place) {
    let account = AccountId(place.tenant(9).0);
    let lease = held(&*store, LeaseOn::Account(account, Work::Pull), 1).await;
    let key = Key::Work(place.tenant(1), account, Work::Pull);
    let holds = |answer: bool| Held { lease, holds: Arc::new(move || answer) };
    let note = |text: &str| Arc::new(vec![Write::put(key, text.as_bytes().to_vec(), clock.now())]);
    store.apply_step(&holds(true), note("first"), Durability::Synced).await.expect("the lease holds");
    let refused = store.apply_step(&holds(false), note("second"), Durability::Synced).await;
    assert!(matches!(refused, Err(StoreError::Unheld)), "{refused:?}");
    assert_eq!(store.read(vec![key]).await.expect("is read"), [Some(b"first".to_vec())]);
    // The next owner's is later than whatever the former wrote, though its clock is behind.
    clock.advance(TTL);
    held(&*store, lease.on, 2).await;
    store.apply(vec![Write::put(key, b"third".to_vec(), Timestamp(1))], Durability::Synced).await.expect("is written");
    assert_eq!(store.read(vec![key]).await.expect("is read"), [Some(b"third".to_vec())]);
}

pub(super) async fn a_lease_has_one_holder(Subject { store, clock }: Subject, place: Place) {
    for on in subjects(place) {
        let first = held(&*store, on, 1).await;
        assert_eq!((first.on, first.owner, first.until), (on, bytes(1), clock.now().plus(TTL)));
        assert_eq!(refused(&*store, on, 2).await, first, "the other learns who holds it");

        clock.advance(Duration::from_secs(4));
        let renewed = held(&*store, on, 1).await;
        assert_eq!(renewed, Lease { until: clock.now().plus(TTL), ..first }, "renewed: the same epoch, a later end");
        clock.advance(Duration::from_secs(7));
        assert_eq!(refused(&*store, on, 2).await, renewed, "the renewal counts");
    }
}

pub(super) async fn a_lease_ends_with_its_time(Subject { store, clock }: Subject, place: Place) {
    for on in subjects(place) {
        let first = held(&*store, on, 1).await;
        clock.advance(TTL - Duration::from_micros(1));
        assert_eq!(refused(&*store, on, 2).await, first);
        clock.advance(Duration::from_micros(1));
        let second = held(&*store, on, 2).await;
        assert!(second.epoch > first.epoch, "a new owner has a higher epoch");
        assert_eq!(refused(&*store, on, 1).await, second, "who let it end has lost it");

        clock.advance(TTL);
        let third = held(&*store, on, 2).await;
        assert_eq!((third.epoch, third.until), (second.epoch, clock.now().plus(TTL)), "nobody had it in between: it goes on");

        clock.advance(TTL);
        let fourth = held(&*store, on, 1).await;
        assert!(fourth.epoch > third.epoch, "a new owner has a higher epoch");
        clock.advance(TTL);
        assert!(held(&*store, on, 2).await.epoch > fourth.epoch, "who had it before another is a new owner");
    }
}

pub(super) async fn a_lease_is_given_back_by_its_holder_only(Subject { store, .. }: Subject, place: Place) {
    for (n, on) in subjects(place).into_iter().enumerate() {
        let first = held(&*store, on, 1).await;
        let elsewhere = subjects(place)[(n + 1) % subjects(place).len()];
        for wrong in [Lease { owner: bytes(2), ..first }, Lease { epoch: first.epoch + 1, ..first }, Lease { on: elsewhere, ..first }] {
            store.release(wrong).await.expect("is answered");
            assert_eq!(refused(&*store, on, 2).await, first, "{wrong:?} frees nothing");
        }
        store.release(first).await.expect("is given back");
        let second = held(&*store, on, 2).await;
        assert!(second.epoch > first.epoch);
        store.release(first).await.expect("is answered");
        assert_eq!(refused(&*store, on, 1).await, second, "it is given back once");
        store.release(second).await.expect("is given back");
        let third = held(&*store, on, 2).await;
        assert!(third.epoch > second.epoch, "epochs rise across a release by the same owner");
    }
}

pub(super) async fn leases_are_apart(Subject { store, .. }: Subject, place: Place) {
    let mut all = Vec::new();
    for (owner, on) in (1..).zip(subjects(place)) {
        all.push(held(&*store, on, owner).await);
    }
    for lease in all {
        assert_eq!(refused(&*store, lease.on, 99).await, lease);
    }
}

pub(super) async fn the_directory_changes_by_version(Subject { store, .. }: Subject, place: Place) {
    // Others' rows may be there: look at names of our own only.
    let name = |n: u8| format!("conformance_{}_{n}", place.check);
    let ours = async || {
        let (version, rows) = store.directory().await.expect("the directory is read");
        assert_eq!(store.directory_version().await.expect("its version is read"), version);
        let mut rows: Vec<_> = rows.into_iter().filter(|(row, _)| row.starts_with(&name(0)[..name(0).len() - 1])).collect();
        rows.sort();
        (version, rows)
    };
    let (start, _) = ours().await;
    let one = store.change_directory(start, vec![(name(1), Some(b"a".to_vec())), (name(2), Some(vec![]))]).await.expect("is changed");
    assert!(one > start);
    let rows = vec![(name(1), b"a".to_vec()), (name(2), vec![])];
    assert_eq!(ours().await, (one, rows.clone()));

    for wrong in [start, one + 1] {
        let answer = store.change_directory(wrong, vec![(name(1), None)]).await;
        assert!(matches!(answer, Err(StoreError::Conflict)), "{answer:?}");
        assert_eq!(ours().await, (one, rows.clone()), "a conflict changes nothing");
    }
    let changes = vec![(name(1), None), (name(2), Some(b"b".to_vec())), (name(3), Some(b"c".to_vec())), (name(4), None)];
    let two = store.change_directory(one, changes).await.expect("is changed");
    assert!(two > one);
    assert_eq!(ours().await, (two, vec![(name(2), b"b".to_vec()), (name(3), b"c".to_vec())]));
}

pub(super) async fn one_of_many_changers_wins(Subject { store, .. }: Subject, place: Place) {
    const CHANGERS: u8 = 8;
    let version = store.directory_version().await.expect("the version is read");
    let mut changers = Vec::new();
    for n in 0..CHANGERS {
        let store = store.clone();
        let name = format!("conformance_{}", place.check);
        changers.push(tokio::spawn(async move { store.change_directory(version, vec![(name, Some(vec![n]))]).await }));
    }
    let mut winner = None;
    for (n, changer) in (0..).zip(changers) {
        match changer.await.expect("a changer ends") {
            Ok(new) => {
                assert_eq!(winner.replace((new, n)), None, "two changed one version");
            }
            Err(StoreError::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let (new, n) = winner.expect("one wins");
    let (version, rows) = store.directory().await.expect("the directory is read");
    assert_eq!(version, new);
    assert!(rows.contains(&(format!("conformance_{}", place.check), vec![n])), "the winner's row is there");
}
