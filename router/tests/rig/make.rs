//! Makes what the bench stands on: a store, a router, rows of the directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::{Clock, ManualClock, SystemClock, Timestamp};
use messaging::directory::*;
use messaging::event::EventFilter;
use messaging::ids::*;
use messaging::keeper::DirectoryKeeper;
use messaging::media::{DirectoryBlobs, Library, LibraryParts, LinkTerms, Vault, VaultSettings};
use messaging::outlook::Outlook;
use messaging::seal::{DataKey, Keyring, Secret};
use messaging::store::Store;
use router::egress::{AllowedNetwork, Door, Policy, Settings};
use router::faults::Faults;
use router::fleet::Fleet;

use super::log::MemLog;
use super::{ACCOUNT_ID, APP_SECRET, Rig, WEBHOOK_SECRET};

fn settings() -> BTreeMap<ChannelKind, ChannelSettings> {
    let hour = Duration::from_secs(3600);
    let of = |per_account, per_pair| ChannelSettings {
        api_base: "https://graph.example".into(),
        api_version: "v23.0".into(),
        timeout: Duration::from_secs(10),
        per_account,
        per_pair,
        window: hour * 24,
        window_warning: hour,
        ..ChannelSettings::default()
    };
    let email = ChannelSettings { timeout: Duration::from_secs(10), per_account: 100.0, ..ChannelSettings::default() };
    let mut settings =
        BTreeMap::from([(ChannelKind::Whatsapp, of(80.0, 1.0 / 6.0)), (ChannelKind::Telegram, of(30.0, 1.0)), (ChannelKind::Email, email)]);
    for kind in [ChannelKind::Messenger, ChannelKind::Instagram] {
        settings.insert(kind, ChannelSettings { per_page: 35.0, ..of(35.0, 1.0) });
    }
    settings
}

pub fn try_open(dir: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Result<Arc<dyn Store>, messaging::store::StoreError> {
    let settings = messaging::store::EmbeddedSettings {
        dir: dir.path().join("store"),
        max_bytes: 1 << 30,
        cache_bytes: 8 << 20,
        retention: messaging::store::Retention::default(),
    };
    messaging::store::open_embedded(settings, clock.clone())
}

pub fn open(dir: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Arc<dyn Store> {
    try_open(dir, clock).unwrap()
}

#[allow(clippy::too_many_arguments, reason = "what a router stands on")]
pub fn run(
    log: &Arc<MemLog>,
    store: &Arc<dyn Store>,
    keeper: &DirectoryKeeper,
    keyring: &Keyring,
    clock: &Arc<ManualClock>,
    media: &Path,
    faults: &Faults,
    fleet: &Arc<Fleet>,
    schedule: &[Duration],
) -> (router::Router, tokio::runtime::Runtime, Arc<Outlook>) {
    let allow = vec!["127.0.0.0/8".parse::<AllowedNetwork>().unwrap()];
    let policy = Policy { allow, allow_http: true, ..Policy::default() };
    let door = Door::new(Settings { policy, ..Settings::default() }, Arc::new(SystemClock::default())).unwrap();
    let outlook = Arc::new(Outlook::new(clock.now(), true));
    let parts = router::Parts {
        log: log.clone(),
        store: store.clone(),
        keeper: keeper.clone(),
        keyring: keyring.clone(),
        clock: clock.clone(),
        limit: messaging::limit::open_local(clock.clone()),
        channels: settings(),
        media: library(media, keeper, keyring, clock, log.clone(), Arc::new(door.clone())),
        door: Arc::new(door),
        outlook: outlook.clone(),
        tail: Arc::new(tokio::sync::broadcast::channel(16).0),
        fleet: fleet.clone(),
    };
    let seconds = Duration::from_secs;
    let options = router::Options {
        max_in_flight_per_shard: 1024,
        commit_interval: Duration::from_millis(50),
        lease_ttl: seconds(10),
        drain: seconds(2),
        webhooks: Arc::new(router::WebhookSettings {
            timeout: seconds(15),
            schedule: schedule.to_vec(),
            jitter: 0.2,
            concurrency_per_endpoint: 16,
            disable_after: seconds(5 * 86_400),
            max_response: 65_536,
            user_agent: http::HeaderValue::from_static("trunkline/test"),
        }),
        faults: faults.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let guard = runtime.enter();
    let router = router::Router::start(parts, options);
    drop(guard);
    (router, runtime, outlook)
}

pub fn rows(
    kind: ChannelKind,
    keyring: &Keyring,
    (tenant, account, endpoint): (TenantId, AccountId, EndpointId),
    platform: &str,
    inbox: &str,
    now: Timestamp,
) -> Vec<DirectoryRow> {
    let key = DataKey::generate();
    let secret = |value: &str| SecretPair::new(Secret::new(value), now);
    let secrets = BTreeMap::from([
        ("access_token".to_owned(), secret("token")),
        ("app_secret".to_owned(), secret(APP_SECRET)),
        ("verify_token".to_owned(), secret("verify")),
    ]);
    vec![
        DirectoryRow::Tenant(TenantRow {
            id: tenant,
            name: "test".into(),
            key: keyring.kek().seal_value(&tenant_aad(tenant), key.expose()),
            created_at: now,
        }),
        DirectoryRow::Account(AccountRow {
            id: account,
            tenant,
            channel: kind,
            name: "number".into(),
            api_base: Some(platform.to_owned()),
            public: ["phone_number_id", "page_id", "instagram_id"].map(|name| (name.to_owned(), ACCOUNT_ID.to_owned())).into(),
            secrets: messaging::seal::Sealed::from_stored(key.seal_value(&account_aad(tenant, account), &secrets).into_bytes()),
            state: AccountState::Active,
            state_reason: None,
            created_at: now,
            revision: 1,
        }),
        DirectoryRow::Endpoint(self::endpoint(&key, (tenant, endpoint), format!("{inbox}/hook"), EndpointState::Active, now)),
    ]
}

/// An endpoint that takes everything.
pub fn endpoint(key: &DataKey, (tenant, id): (TenantId, EndpointId), url: String, state: EndpointState, now: Timestamp) -> EndpointRow {
    let (secret, headers) = (SecretPair::new(Secret::new(WEBHOOK_SECRET), now), BTreeMap::<String, Secret>::new());
    EndpointRow {
        id,
        tenant,
        name: "crm".into(),
        url,
        events: EventFilter::parse(vec!["*".into()]).unwrap(),
        accounts: vec![],
        headers: key.seal_value(&endpoint_aad(tenant, id, "headers"), &headers),
        secret: key.seal_value(&endpoint_aad(tenant, id, "secret"), &secret),
        rate_per_second: 0,
        timeout_ms: 0,
        state,
        state_reason: None,
        created_at: now,
        revision: 1,
    }
}

/// Media in a folder, without links.
fn library(
    folder: &Path,
    keeper: &DirectoryKeeper,
    keyring: &Keyring,
    clock: &Arc<ManualClock>,
    log: Arc<MemLog>,
    door: Arc<Door>,
) -> Arc<Library> {
    let blobs = Arc::new(DirectoryBlobs::open(folder).unwrap());
    let vault = VaultSettings { max_bytes: 1 << 20, max_total: 1 << 30, lifetime: Duration::from_secs(30 * 86_400) };
    Library::new(LibraryParts {
        vault: Arc::new(Vault::new(blobs, keyring.ids().clone(), clock.clone(), vault)),
        download: door,
        directory: keeper.shared().clone(),
        keyring: keyring.clone(),
        clock: clock.clone(),
        channels: settings(),
        log,
        links: LinkTerms { public_url: None, ttl: Duration::from_secs(7 * 86_400) },
        timeout: Duration::from_secs(5),
    })
}

impl Rig {
    /// Every task of the router ends where it stands; the files stay.
    pub async fn die_and_restart(self) -> Self {
        self.restart(false).await
    }

    /// The router is told to stop, as by SIGTERM, and is started again.
    pub async fn stop_and_restart(self) -> Self {
        self.restart(true).await
    }

    async fn restart(mut self, in_order: bool) -> Self {
        if in_order {
            self.router.stop().await;
        }
        self.runtime.take().unwrap().shutdown_background();
        drop(self.keeper);
        self.store.close().await;
        drop(self.store);
        let store = loop {
            match try_open(&self.dir, &self.clock) {
                Ok(store) => break store,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let keeper = DirectoryKeeper::new(store.clone(), self.keyring.clone());
        keeper.refresh().await.unwrap();
        let log = self.log.reopened();
        let media = self.dir.path().join("media");
        let (router, runtime, outlook) =
            run(&log, &store, &keeper, &self.keyring, &self.clock, &media, &self.faults, &self.fleet, &self.schedule);
        Self { keeper, store, log, outlook, router, runtime: Some(runtime), ..self }
    }
}
