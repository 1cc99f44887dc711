//! A gateway in a test: a log in memory, a real store in a temporary folder, a clock that stands still, connections without
//! a network.

mod apps;
mod config;
mod dead_letters;
mod fakes;
mod hooks;
mod keys;
mod matrix;
mod overload;
mod quotas;
mod reads;
mod refresh;
mod sends;
mod server;
mod states;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use messaging::BoxFuture;
use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::{ManualClock, SharedClock, Timestamp};
use messaging::exchange::HttpRequest;
use messaging::keeper::DirectoryKeeper;
use messaging::media::{DirectoryBlobs, Download, DownloadError, Library, LibraryParts, LinkTerms, Vault, VaultSettings};
use messaging::metrics::Listener;
use messaging::outlook::Outlook;
use messaging::record::{Command, Record, RecordKind};
use messaging::seal::Keyring;
use messaging::store::{self, Store};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{LocalSet, spawn_local};

pub(crate) use fakes::{FakeCaller, FakeLog, Faulty};

use crate::options::{AdminParts, Options, Parts};
use crate::server::worker::Worker;
use crate::shared::Shared;

pub(crate) const START: Timestamp = Timestamp::from_secs(1_795_168_800);
pub(crate) const APP_SECRET: &str = "sim-app-secret";
pub(crate) const SECRET_TOKEN: &str = "sim_secret_token";

/// An answer as a client sees it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The problem's code.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_else(|| panic!("no problem: {self:?}")).to_owned()
    }

    /// What the problem's errors point at.
    #[track_caller]
    pub fn pointers(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A gateway with one serving thread: this one.
pub(crate) struct World {
    pub worker: Rc<Worker>,
    pub admin: Rc<Worker>,
    pub log: Arc<FakeLog>,
    pub store: Arc<Faulty>,
    pub clock: Arc<ManualClock>,
    pub keeper: DirectoryKeeper,
    pub keyring: Keyring,
    pub caller: Arc<FakeCaller>,
    /// The first admin key.
    pub key: String,
    _dir: tempfile::TempDir,
}

pub(crate) fn channels() -> BTreeMap<ChannelKind, ChannelSettings> {
    let settings = |api_base: &str| ChannelSettings {
        api_base: api_base.into(),
        api_version: "v23.0".into(),
        timeout: Duration::from_secs(10),
        per_account: 80.0,
        per_pair: 1.0,
        window: Duration::from_secs(24 * 3600),
        window_warning: Duration::from_secs(3600),
        ..ChannelSettings::default()
    };
    let on = [
        (ChannelKind::Whatsapp, "https://graph.example"),
        (ChannelKind::Telegram, "https://telegram.example"),
        (ChannelKind::Messenger, "https://graph.example"),
        (ChannelKind::Instagram, "https://graph.example"),
        (ChannelKind::Discord, "https://discord.example"),
    ];
    on.map(|(kind, base)| (kind, settings(base))).into()
}

/// Parts with fakes.
pub(crate) struct Fakes {
    pub parts: Parts,
    pub log: Arc<FakeLog>,
    pub store: Arc<Faulty>,
    pub clock: Arc<ManualClock>,
    pub caller: Arc<FakeCaller>,
    pub dir: tempfile::TempDir,
}

pub(crate) fn fakes() -> Fakes {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(START);
    let shared: SharedClock = clock.clone();
    let settings = store::EmbeddedSettings {
        dir: dir.path().join("store"),
        max_bytes: 1 << 30,
        cache_bytes: 1 << 20,
        retention: store::Retention::default(),
    };
    let store = Faulty::over(store::open_embedded(settings, shared.clone()).unwrap());
    let keyring = Keyring::from_root(&[7; 32]);
    let (log, caller) = (FakeLog::new(4), Arc::new(FakeCaller::default()));
    let as_store: Arc<dyn Store> = store.clone();
    let keeper = DirectoryKeeper::new(store.clone(), keyring.clone());
    let media = library(&dir, &keeper, &keyring, &shared, log.clone());
    let parts = Parts {
        log: log.clone(),
        store: as_store,
        keeper,
        keyring,
        media,
        clock: shared.clone(),
        limit: messaging::limit::open_local(shared),
        channels: channels(),
        outlook: Arc::new(Outlook::new(START, true)),
        caller: caller.clone(),
        dial: None,
        is_allowed_url: Arc::new(|url| if url.starts_with("https://") { Ok(()) } else { Err("must be https".into()) }),
        admin: AdminParts { metrics: Some(Arc::new(|| "# metrics\n".into())), ..AdminParts::default() },
    };
    Fakes { parts, log, store, clock, caller, dir }
}

/// A library in the test's folder, whose platforms never answer.
fn library(dir: &tempfile::TempDir, keeper: &DirectoryKeeper, keyring: &Keyring, clock: &SharedClock, log: Arc<FakeLog>) -> Arc<Library> {
    struct Nowhere;
    impl Download for Nowhere {
        fn open(&self, _: HttpRequest, _: Duration) -> BoxFuture<'_, Result<messaging::media::Answer, DownloadError>> {
            Box::pin(std::future::ready(Err(DownloadError::Connect)))
        }
    }
    let blobs = Arc::new(DirectoryBlobs::open(&dir.path().join("media")).unwrap());
    let settings = VaultSettings { max_bytes: 1 << 20, max_total: 1 << 30, lifetime: Duration::from_secs(30 * 86_400) };
    Library::new(LibraryParts {
        vault: Arc::new(Vault::new(blobs, keyring.ids().clone(), clock.clone(), settings)),
        download: Arc::new(Nowhere),
        directory: keeper.shared().clone(),
        keyring: keyring.clone(),
        clock: clock.clone(),
        channels: channels(),
        log,
        links: LinkTerms { public_url: Some("https://gw.example".into()), ttl: Duration::from_secs(7 * 86_400) },
        timeout: Duration::from_secs(10),
    })
}

impl World {
    /// Runs a test on one thread.
    pub async fn run(test: impl AsyncFnOnce(World)) {
        Self::run_with(Options::default(), test).await;
    }

    pub async fn run_with(options: Options, test: impl AsyncFnOnce(World)) {
        let options = Options { public_url: "https://gw.example".into(), ..options };
        LocalSet::new()
            .run_until(async move {
                let world = World::start(options).await;
                test(world).await;
            })
            .await;
    }

    async fn start(options: Options) -> Self {
        let Fakes { parts, log, store, clock, caller, dir } = fakes();
        let (keeper, keyring) = (parts.keeper.clone(), parts.keyring.clone());
        let key = crate::admin::first_key(&keeper, &keyring, &parts.clock).await.unwrap().unwrap().expose().to_owned();
        assert!(crate::admin::first_key(&keeper, &keyring, &parts.clock).await.unwrap().is_none(), "only once");
        let shared = Shared::new(parts, options);
        let worker = Worker::new(shared.clone(), Listener::Public);
        let admin = Worker::new(shared, Listener::Admin);
        spawn_local(worker.appends.clone().run());
        spawn_local(worker.clone().sweep());
        Self { worker, admin, log, store, clock, keeper, keyring, caller, key, _dir: dir }
    }

    /// A connection to the public listener.
    pub fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        self.worker.spawn(theirs, None);
        ours
    }

    /// Sends bytes and reads until the gateway closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The gateway may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn request(&self, worker: &Rc<Worker>, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        worker.spawn(theirs, None);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        spawn_local(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "gw.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    /// A request to the public listener without a key.
    pub async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.request(&self.worker, method, path, headers, body).await
    }

    /// A request with a key.
    pub async fn keyed(&self, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let authorization = format!("Bearer {key}");
        let headers = [&[("authorization", authorization.as_str())], headers].concat();
        self.open(method, path, &headers, body).await
    }

    /// A request with the first key.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.keyed(&self.key, method, path, &[], body).await
    }

    /// As `call`, and what it makes.
    #[track_caller]
    pub fn made<'w>(&'w self, path: &'w str, body: Value) -> impl Future<Output = Value> + 'w {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.call("POST", path, &body).await;
            assert_eq!(answer.status, 201, "{caller}: {answer:?}");
            answer.json()
        }
    }

    /// A WhatsApp account; gives its id.
    pub async fn whatsapp(&self) -> String {
        let body = serde_json::json!({"channel": "whatsapp", "name": "shop", "phone_number_id": "106540352242922",
            "access_token": "EAAtoken", "app_secret": APP_SECRET, "verify_token": "verify-me"});
        self.made("/v1/accounts", body).await["id"].as_str().unwrap().to_owned()
    }

    /// A Telegram account; gives its id.
    pub async fn telegram(&self) -> String {
        let body = serde_json::json!({"channel": "telegram", "name": "bot",
            "bot_token": "123456:AAbbccddeeffgghhiijjkkllmmnnooppqqr", "secret_token": SECRET_TOKEN});
        self.made("/v1/accounts", body).await["id"].as_str().unwrap().to_owned()
    }

    /// The records on the log, opened.
    pub fn records(&self) -> Vec<Record> {
        self.log.records().iter().map(|record| Record::decode(&record.payload, self.keyring.log()).unwrap()).collect()
    }

    /// The commands on the log.
    pub fn commands(&self) -> Vec<Command> {
        let records = self.records();
        let commands = records.iter().filter(|record| record.kind == RecordKind::Command);
        commands.map(|record| serde_json::from_slice(&record.body).unwrap()).collect()
    }
}
