use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::BoxFuture;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::directory::{EndpointRow, EndpointState, KeyRow, QuotaRow, SecretPair, TenantRow, endpoint_aad, tenant_aad};
use crate::ids::{EndpointId, KeyId, TenantId};
use crate::quota::{OwnQuotas, Quota};
use crate::seal::{DataKey, Secret};
use crate::store::{self, Durability, Found, Key, Lease, LeaseAnswer, LeaseOn, Scan, Write};

const TENANT: TenantId = TenantId([1; 16]);

/// A store whose answer to "the whole directory" can be held back after it was read.
struct Gated {
    store: Arc<dyn Store>,
    is_shut: AtomicBool,
    opened: Notify,
    held: Notify,
    /// Readings of the whole directory.
    readings: AtomicUsize,
}

impl Store for Gated {
    fn read(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        self.store.read(keys)
    }
    fn scan(&self, scan: Scan, limit: usize) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        self.store.scan(scan, limit)
    }
    fn apply(&self, batch: Vec<Write>, durability: Durability) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.apply(batch, durability)
    }
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.sync()
    }
    fn lease(&self, on: LeaseOn, owner: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<LeaseAnswer, StoreError>> {
        self.store.lease(on, owner, ttl)
    }
    fn release(&self, lease: Lease) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.release(lease)
    }
    fn directory_version(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.store.directory_version()
    }
    fn directory(&self) -> BoxFuture<'_, Result<(u64, DirectoryRows), StoreError>> {
        Box::pin(async {
            self.readings.fetch_add(1, Ordering::SeqCst);
            let read = self.store.directory().await;
            if self.is_shut.swap(false, Ordering::SeqCst) {
                self.held.notify_one();
                self.opened.notified().await;
            }
            read
        })
    }
    fn change_directory(&self, expected: u64, changes: Vec<(String, Option<Vec<u8>>)>) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.store.change_directory(expected, changes)
    }
    fn disk(&self) -> (u64, u64) {
        self.store.disk()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close()
    }
}

struct World {
    store: Arc<Gated>,
    keyring: Keyring,
    tenant_key: DataKey,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = store::EmbeddedSettings {
            dir: folder.path().join("store"),
            max_bytes: 1 << 30,
            cache_bytes: 1 << 20,
            retention: store::Retention::default(),
        };
        let store = store::open_embedded(settings, ManualClock::at(Timestamp::from_secs(1_800_000_000))).unwrap();
        let store = Arc::new(Gated {
            store,
            is_shut: AtomicBool::new(false),
            opened: Notify::new(),
            held: Notify::new(),
            readings: AtomicUsize::new(0),
        });
        Self { store, keyring: Keyring::from_root(&[7; 32]), tenant_key: DataKey::generate(), folder }
    }

    /// A process of its own.
    fn keeper(&self) -> DirectoryKeeper {
        DirectoryKeeper::new(self.store.clone(), self.keyring.clone())
    }

    fn tenant(&self) -> DirectoryRow {
        let key = self.keyring.kek().seal_value(&tenant_aad(TENANT), self.tenant_key.expose());
        DirectoryRow::Tenant(TenantRow { id: TENANT, name: "t".into(), key, created_at: Timestamp::ZERO })
    }

    fn endpoint(&self, number: u32, revision: u64) -> DirectoryRow {
        let id = endpoint_id(number);
        let pair = SecretPair::new(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Timestamp::ZERO);
        let headers = std::collections::BTreeMap::<String, Secret>::new();
        DirectoryRow::Endpoint(EndpointRow {
            id,
            tenant: TENANT,
            name: String::new(),
            url: "https://crm.example/hook".into(),
            events: crate::event::EventFilter::default(),
            accounts: Vec::new(),
            headers: self.tenant_key.seal_value(&endpoint_aad(TENANT, id, "headers"), &headers),
            secret: self.tenant_key.seal_value(&endpoint_aad(TENANT, id, "secret"), &pair),
            rate_per_second: 0,
            timeout_ms: 0,
            state: EndpointState::Active,
            state_reason: None,
            created_at: Timestamp::ZERO,
            revision,
        })
    }

    fn key(&self, secret: &str) -> KeyRow {
        KeyRow {
            id: KeyId([9; 16]),
            tenant: TENANT,
            name: "k".into(),
            hash: self.keyring.ids().api_key(secret),
            scopes: vec!["admin".into()],
            expires_at: None,
            created_at: Timestamp::ZERO,
        }
    }
}

fn endpoint_id(number: u32) -> EndpointId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    EndpointId(id)
}

async fn put(keeper: &DirectoryKeeper, rows: Vec<DirectoryRow>) -> Arc<Directory> {
    let changes: Vec<Change> = rows.into_iter().map(Change::put).collect();
    keeper.change(|_| Ok::<_, ()>(changes.clone())).await.unwrap()
}

async fn delete(keeper: &DirectoryKeeper, ids: &[String]) -> Arc<Directory> {
    let changes: Vec<Change> = ids.iter().cloned().map(Change::Delete).collect();
    keeper.change(|_| Ok::<_, ()>(changes.clone())).await.unwrap()
}

fn quotas(endpoints: u32) -> DirectoryRow {
    DirectoryRow::Quotas(QuotaRow { tenant: TENANT, own: [(Quota::Endpoints, endpoints)].into() })
}

/// What a snapshot shows of the test's rows.
fn shown(directory: &Directory) -> Shown {
    let mut endpoints: Vec<_> = directory.endpoints().map(|endpoint| (endpoint.row.id, endpoint.row.revision)).collect();
    endpoints.sort();
    let of_tenant = directory.tenant_of_row(TENANT).map_or(&[][..], |tenant| directory.endpoints_of(tenant));
    assert_eq!(endpoints, of_tenant.iter().map(|endpoint| (endpoint.row.id, endpoint.row.revision)).collect::<Vec<_>>());
    assert_eq!(directory.keys().count(), directory.keys_of(TENANT).len());
    let counts = directory.counts_of(TENANT);
    assert_eq!((counts.accounts, counts.endpoints, counts.keys), (0, endpoints.len(), directory.keys().count()));
    (directory.version, endpoints, directory.keys().count(), directory.quotas_of(TENANT).cloned())
}

/// The version, endpoints with their revisions, how many keys, and the tenant's own limits.
type Shown = (u64, Vec<(EndpointId, u64)>, usize, Option<OwnQuotas>);

/// One reading of the whole directory begins, a change comes, and the reading ends after it.
async fn overtaken(make: impl AsyncFnOnce(&DirectoryKeeper, &World)) -> (World, DirectoryKeeper, u64) {
    let world = World::new();
    let (ours, other) = (world.keeper(), world.keeper());
    put(&ours, vec![world.tenant(), world.endpoint(1, 1), DirectoryRow::Key(world.key("good"))]).await;
    put(&other, vec![world.endpoint(2, 1)]).await;
    world.store.is_shut.store(true, Ordering::SeqCst);
    let late = tokio::spawn({
        let ours = ours.clone();
        async move { ours.refresh().await }
    });
    world.store.held.notified().await;
    make(&ours, &world).await;
    let newest = ours.shared().load().version;
    world.store.opened.notify_one();
    late.await.unwrap().unwrap();
    (world, ours, newest)
}

#[tokio::test]
async fn what_was_read_before_a_change_does_not_undo_it() {
    let (_, keeper, version) = overtaken(async |keeper, world| {
        let made = put(keeper, vec![world.endpoint(3, 1)]).await;
        assert!(made.endpoint(endpoint_id(3)).is_some());
    })
    .await;
    let seen = keeper.shared().load_full();
    assert_eq!(shown(&seen), (version, vec![(endpoint_id(1), 1), (endpoint_id(2), 1), (endpoint_id(3), 1)], 1, None));

    let (world, keeper, version) = overtaken(async |keeper, world| {
        delete(keeper, &[world.key("good").id.to_string()]).await;
    })
    .await;
    let seen = keeper.shared().load_full();
    assert_eq!(seen.version, version);
    assert!(seen.authenticate("good", world.keyring.ids(), Timestamp::ZERO).is_none(), "a key that was revoked is good again");
}

#[tokio::test]
async fn changes_and_looks_in_any_order_only_go_forward() {
    let world = World::new();
    let (ours, other) = (world.keeper(), world.keeper());
    put(&ours, vec![world.tenant()]).await;
    let watch = tokio::spawn({
        let ours = ours.clone();
        async move {
            let mut last = 0;
            for _ in 0..400 {
                let version = ours.shared().load().version;
                assert!(version >= last, "{version} after {last}");
                last = version;
                ours.refresh().await.unwrap();
            }
        }
    });
    let changes = |keeper: DirectoryKeeper, from: u32| {
        let rows: Vec<_> = (from..from + 30).map(|number| world.endpoint(number, 1)).collect();
        async move {
            for row in rows {
                let id = row.id();
                let made = loop {
                    // Another process may come first more often than one change is tried.
                    match keeper.change(|_| Ok::<_, ()>(vec![Change::put(row.clone())])).await {
                        Ok(made) => break made,
                        Err(ChangeError::Store(StoreError::Conflict)) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                };
                assert!(made.endpoints().any(|endpoint| endpoint.row.id.to_string() == id), "what was made is not shown");
                assert!(keeper.shared().load().version >= made.version);
            }
        }
    };
    tokio::join!(changes(ours.clone(), 0), changes(ours.clone(), 100), changes(other.clone(), 200));
    watch.await.unwrap();
    ours.refresh().await.unwrap();
    let fresh = world.keeper();
    fresh.refresh().await.unwrap();
    assert_eq!(shown(&ours.shared().load()), shown(&fresh.shared().load()));
    assert_eq!(shown(&fresh.shared().load()).1.len(), 90);
}

#[tokio::test]
async fn a_change_by_steps_shows_what_a_build_from_all_rows_shows() {
    let world = World::new();
    let keeper = world.keeper();
    put(&keeper, vec![world.tenant(), DirectoryRow::Key(world.key("a")), world.endpoint(2, 1), world.endpoint(1, 1)]).await;
    let readings = world.store.readings.load(Ordering::SeqCst);
    let renamed = match world.tenant() {
        DirectoryRow::Tenant(row) => TenantRow { name: "other".into(), ..row },
        _ => unreachable!("it is a tenant"),
    };
    let steps: Vec<Vec<Change>> = vec![
        vec![Change::put(world.endpoint(2, 2))],
        vec![Change::put(world.endpoint(3, 1)), Change::Delete(endpoint_id(1).to_string())],
        vec![Change::put(DirectoryRow::Key(world.key("b")))],
        vec![Change::Delete(world.key("b").id.to_string())],
        vec![Change::put(quotas(7))],
        vec![Change::put(quotas(8)), Change::put(world.endpoint(4, 1))],
        vec![Change::Delete(QuotaRow::id_of(TENANT))],
        vec![Change::put(quotas(9))],
        // Sealed anew under another nonce: everything of the tenant is opened again.
        vec![Change::put(DirectoryRow::Tenant(renamed))],
        vec![Change::Delete(endpoint_id(77).to_string())],
        vec![Change::Delete(TENANT.to_string())],
        vec![Change::put(world.tenant())],
    ];
    for (number, changes) in steps.into_iter().enumerate() {
        let seen = keeper.change(|_| Ok::<_, ()>(changes.clone())).await.unwrap();
        let fresh = world.keeper();
        fresh.refresh().await.unwrap();
        assert_eq!(shown(&seen), shown(&fresh.shared().load()), "step {number}");
        world.store.readings.fetch_sub(1, Ordering::SeqCst);
    }
    assert_eq!(world.store.readings.load(Ordering::SeqCst), readings, "a change of our own is known without reading all rows");
}

#[tokio::test]
async fn a_copy_serves_a_start_and_binds_nobody() {
    let world = World::new();
    let file = world.folder.path().join("copy");
    let keeper = world.keeper().with_copy(file.clone());
    put(&keeper, vec![world.tenant(), world.endpoint(1, 1)]).await;
    keeper.refresh().await.unwrap();
    let later = World::new();
    // The store was put back to an older state: its version is lower than the copy's.
    put(
        &later.keeper(),
        vec![DirectoryRow::Tenant(TenantRow {
            id: TenantId([2; 16]),
            name: "restored".into(),
            key: later.keyring.kek().seal_value(&tenant_aad(TenantId([2; 16])), later.tenant_key.expose()),
            created_at: Timestamp::ZERO,
        })],
    )
    .await;
    put(&keeper, vec![world.endpoint(2, 1)]).await;
    let started = later.keeper().with_copy(file);
    assert!(started.load_copy().unwrap());
    assert_eq!(shown(&started.shared().load()).1, [(endpoint_id(1), 1)]);
    assert!(started.refresh().await.unwrap());
    assert_eq!(started.shared().load().tenants().map(|row| row.name.clone()).collect::<Vec<_>>(), ["restored"]);
    assert_eq!(started.shared().load().endpoints().count(), 0);
}

/// How many entries of a list are another object than before.
fn made_anew<T>(before: &[Arc<T>], after: &[Arc<T>]) -> usize {
    after.iter().filter(|entry| !before.iter().any(|old| Arc::ptr_eq(old, entry))).count()
}

/// Work, not time: what a snapshot shares with the one before was neither read, nor decoded, nor opened.
#[tokio::test]
async fn a_change_opens_what_it_changes_however_much_the_tenant_has() {
    const MANY: u32 = 3450;
    let world = World::new();
    let (ours, other) = (world.keeper(), world.keeper());
    put(&ours, vec![world.tenant(), DirectoryRow::Key(world.key("good"))]).await;
    put(&ours, (0..MANY).map(|number| world.endpoint(number, 1)).collect()).await;
    other.refresh().await.unwrap();
    let readings = world.store.readings.load(Ordering::SeqCst);
    let steps: [(&str, Vec<Change>, usize, usize); 4] = [
        ("one is changed", vec![Change::put(world.endpoint(5, 2))], 1, 3450),
        ("one is made", vec![Change::put(world.endpoint(MANY, 1))], 1, 3451),
        ("one is taken away", vec![Change::Delete(endpoint_id(7).to_string())], 0, 3450),
        ("a key is made", vec![Change::put(DirectoryRow::Key(KeyRow { id: KeyId([8; 16]), ..world.key("other") }))], 0, 3450),
    ];
    for (what, changes, anew, count) in steps {
        let (before, before_there) = (ours.shared().load_full(), other.shared().load_full());
        let after = ours.change(|_| Ok::<_, ()>(changes.clone())).await.unwrap();
        assert_eq!(world.store.readings.load(Ordering::SeqCst), readings, "{what}: a change of our own is known without reading");
        other.look().await.unwrap();
        world.store.readings.fetch_sub(1, Ordering::SeqCst);
        for (before, after) in [(before, after), (before_there, other.shared().load_full())] {
            let tenant = after.tenant_of_row(TENANT).unwrap();
            let (old, new) = (before.endpoints_of(tenant), after.endpoints_of(tenant));
            assert_eq!((made_anew(old, new), new.len()), (anew, count), "{what}");
            // By id they are the same objects as in the tenant's list.
            assert!(new.iter().all(|endpoint| Arc::ptr_eq(endpoint, after.endpoint(endpoint.row.id).unwrap())), "{what}");
        }
    }
}

/// `cargo test --release -p messaging --lib keeper -- --ignored --nocapture`
#[tokio::test]
#[ignore = "measures"]
async fn what_a_change_costs() {
    for count in [10, 3450] {
        let world = World::new();
        let keeper = world.keeper();
        put(&keeper, vec![world.tenant()]).await;
        let rows: Vec<_> = (0..count).map(|number| world.endpoint(number, 1)).collect();
        put(&keeper, rows).await;
        let clock = crate::clock::SystemClock::default();
        let begun = clock.monotonic();
        const TIMES: u32 = 200;
        for revision in 0..TIMES {
            put(&keeper, vec![world.endpoint(5, u64::from(revision))]).await;
        }
        let whole = (clock.monotonic() - begun) / TIMES;
        let begun = clock.monotonic();
        for revision in 0..TIMES {
            let row = postcard::to_stdvec(&world.endpoint(5, u64::from(revision))).unwrap();
            let seen = keeper.shared().load().version;
            keeper.take_own(seen, seen + 1, vec![(endpoint_id(5).to_string(), Some(row))]);
        }
        let snapshot = (clock.monotonic() - begun) / TIMES;
        let begun = clock.monotonic();
        for _ in 0..10 {
            world.keeper().refresh().await.unwrap();
        }
        let built = (clock.monotonic() - begun) / 10;
        println!("{count} endpoints: a change {whole:?}, of which the snapshot {snapshot:?}; read and built from all rows {built:?}");
    }
}
