//! Harness of the system tests: the real binary on port zero, beside simulated platforms and a subscriber whose answers the test
//! chooses. The suite does not know which backends it runs on.
//!
//! What a test's world holds is a setting, [`world::World`]: the small one (one tenant, one endpoint) for what is asked of one call, the
//! crowded one for every load, fault and storm. Every process is audited when it ends: it fails the test that it panicked, lost a record
//! or logged an error which the test did not announce ([`Announced`]).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bench::http::{Client, Response};
use bench::inbox::{Inbox, InboxOptions, Received};
use bench::platform::telegram::TelegramSim;
use bench::platform::whatsapp::WhatsappSim;
use bench::platform::{SimOptions, StatusDelays};
use messaging::clock::{SharedClock, SystemClock};
use serde_json::{Value, json};

mod audit;
mod backend;
pub mod boards;
mod config;
mod forget;
pub mod load;
pub mod net;
mod process;
pub mod prometheus;
pub mod servers;
pub mod world;

pub use audit::Announced;
pub use backend::Backend;
pub use process::{Launch, Member, Process};

use config::{Common, write_config};
use net::Net;
use world::{HEALTHY, SECOND, Tenant, Trouble, World};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How long a change of the directory takes to reach every process.
pub const DIRECTORY_REACHES_ALL: Duration = Duration::from_secs(2);
/// Deliveries that the subscriber keeps: more than any test makes.
const KEPT_MAX: usize = 1_000_000;
/// Where everything listens that needs no network of its own.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The customer's number.
pub const PHONE: &str = "15550100";
/// The customer's chat.
pub const CHAT: i64 = 4711;
const BOT_TOKEN: &str = "7000000001:AAExampleTokenOfTheSystemTests";

/// The binary under test: `TRUNKLINE_BIN`, or the one that cargo built beside the tests.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TRUNKLINE_BIN") {
        return PathBuf::from(path);
    }
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.pop();
    path.push("trunkline");
    assert!(path.exists(), "{} is not built: run tests/run, or cargo build -p node and set TRUNKLINE_BIN", path.display());
    path
}

/// Whether the long rounds are left out.
pub fn quick() -> bool {
    std::env::var_os("TRUNKLINE_TEST_QUICK").is_some()
}

/// A running system: the process, its platforms, a subscriber, and one tenant who has accounts and an endpoint.
pub struct System {
    /// The process.
    pub process: Process,
    /// WhatsApp.
    pub whatsapp: WhatsappSim,
    /// Telegram.
    pub telegram: TelegramSim,
    /// The subscriber.
    pub inbox: Inbox,
    /// The admin key.
    pub key: String,
    /// The WhatsApp account.
    pub wa_account: String,
    /// The Telegram account.
    pub tg_account: String,
    /// The endpoint.
    pub endpoint: String,
    /// Its signing secret.
    pub secret: String,
    /// The clock of the simulators; `advance` moves it with the process's.
    pub clock: Arc<SystemClock>,
    /// What the world of this test holds.
    pub world: World,
    /// The tenants beside the system's own.
    pub crowd: Vec<Tenant>,
    /// The other processes of the installation.
    pub members: Vec<Member>,
    turn: AtomicUsize,
    dir: tempfile::TempDir,
    client: Client,
    backend: Backend,
    first: Launch,
    /// Ends after the processes in it.
    net: Option<Arc<Net>>,
}

impl Drop for System {
    fn drop(&mut self) {
        // An audit that fails must not leave the other processes and the space on the servers behind.
        let audited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for member in &mut self.members {
                member.process = None;
            }
            self.process.end();
        }));
        self.backend.forget();
        if let Err(failed) = audited
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(failed);
        }
    }
}

/// What a test may choose before the start.
pub struct Setup {
    /// What the world of the test holds.
    pub world: World,
    /// How the platforms behave.
    pub platforms: SimOptions,
    /// Lines added to the configuration file.
    pub config: String,
    /// What is logged.
    pub log_filter: &'static str,
    /// Share of requests that get an access line.
    pub access_log_sample: f64,
    /// Certificate authorities to trust beside the public ones.
    pub tls_ca_file: Option<PathBuf>,
    /// Gateways and routers as processes of their own, on the real servers; none: one process, on what the run says.
    pub split: Option<(usize, usize)>,
    /// What it works on; none: on what the run says, or on the run's servers when there are several processes.
    pub backend: Option<Backend>,
    /// How many files and connections a process may have open; none: as many as we.
    pub descriptors: Option<u32>,
    /// A network whose ways can be cut, in which each process has a namespace; none: loopback.
    pub net: Option<Arc<Net>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            world: World::small(),
            platforms: SimOptions { statuses: fast(), ..SimOptions::default() },
            config: String::new(),
            log_filter: "info",
            access_log_sample: 0.0,
            tls_ca_file: None,
            split: None,
            backend: None,
            descriptors: None,
            net: None,
        }
    }
}

/// Statuses that come at once, one after another.
pub fn fast() -> StatusDelays {
    let ms = |ms| Some(Duration::from_millis(ms));
    StatusDelays { sent: ms(5), delivered: ms(15), read: ms(30) }
}

impl System {
    /// The usual one.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// With choices.
    pub async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ca = setup.tls_ca_file.as_deref().unwrap_or(std::path::Path::new("")).display().to_string();
        let backend = match setup.backend {
            Some(backend) => backend,
            None if setup.split.is_some() => Backend::servers(),
            None => Backend::of_run(),
        };
        let net = setup.net.as_deref();
        let announced = Announced::default();
        let launch = |name: &str, roles: &str| {
            let host = net.map_or(LOOPBACK, |net| net.address(name).into());
            let common = Common {
                backend: &backend,
                log_filter: setup.log_filter,
                access_log_sample: setup.access_log_sample,
                tls_ca_file: &ca,
                more: &setup.config,
            };
            let config = write_config(dir.path(), name, roles, host, &common);
            Launch { config, namespace: net.map(|net| net.namespace(name)), descriptors: setup.descriptors, announced: announced.clone() }
        };
        let mut members = Vec::new();
        let first = match setup.split {
            None => launch("trunkline", "\"gateway\", \"router\""),
            Some((gateways, routers)) => {
                for number in 2..=gateways {
                    let name = format!("gateway-{number}");
                    members.push(Member::new(&name, launch(&name, "\"gateway\"")));
                }
                for number in 1..=routers {
                    let name = format!("router-{number}");
                    members.push(Member::new(&name, launch(&name, "\"router\"")));
                }
                launch("gateway-1", "\"gateway\"")
            }
        };
        backend.prepare(&first.config);
        let clock = Arc::new(SystemClock::default());
        let shared: SharedClock = clock.clone();
        let options = SimOptions { clock: shared, ..setup.platforms };
        let whatsapp = WhatsappSim::start(options.clone()).await.expect("a simulator starts");
        let telegram =
            TelegramSim::start(SimOptions { credential: BOT_TOKEN.into(), ..options.clone() }).await.expect("a simulator starts");
        let inbox = Inbox::start(InboxOptions { keep_max: KEPT_MAX, ..InboxOptions::default() }).await.expect("an inbox starts");
        let process = Process::start(&first).await;
        for member in &mut members {
            member.start().await;
        }
        let key = std::fs::read_to_string(dir.path().join("first-key")).expect("the first key was written").trim().to_owned();
        let client = Client::new(Duration::from_secs(40));
        let mut system = Self {
            process,
            whatsapp,
            telegram,
            inbox,
            key,
            wa_account: String::new(),
            tg_account: String::new(),
            endpoint: String::new(),
            secret: String::new(),
            clock,
            world: setup.world,
            crowd: Vec::new(),
            members,
            turn: AtomicUsize::new(0),
            first,
            dir,
            client,
            backend,
            net: setup.net,
        };
        system.connect(&options).await;
        if !system.members.is_empty() {
            // The other processes look for changes once a second: what came before they knew the endpoint would pass it by.
            tokio::time::sleep(DIRECTORY_REACHES_ALL).await;
        }
        system
    }

    async fn connect(&mut self, options: &SimOptions) {
        let whatsapp = self.reached(self.whatsapp.url()).await;
        let telegram = self.reached(self.telegram.url()).await;
        let inbox = self.reached(self.inbox.url()).await;
        let whatsapp = json!({"channel": "whatsapp", "name": "number", "api_base": whatsapp, "phone_number_id": options.account,
            "access_token": options.credential, "app_secret": options.secret, "verify_token": "verify-me"});
        let telegram = json!({"channel": "telegram", "name": "bot", "api_base": telegram, "bot_token": BOT_TOKEN,
            "secret_token": options.secret});
        let made = self.ok("POST", "/v1/accounts", &whatsapp).await;
        self.wa_account = made["id"].as_str().expect("an account has an id").to_owned();
        let made = self.ok("POST", "/v1/accounts", &telegram).await;
        self.tg_account = made["id"].as_str().expect("an account has an id").to_owned();
        if self.world.in_trouble {
            self.make_troubled(&self.key, &self.inbox, Trouble::ALL[0]).await;
        }
        let endpoint = json!({"name": "crm", "url": format!("{inbox}{HEALTHY}"), "events": ["*"]});
        let made = self.ok("POST", "/v1/endpoints", &endpoint).await;
        self.endpoint = made["id"].as_str().expect("an endpoint has an id").to_owned();
        self.secret = made["secret"].as_str().expect("the secret is shown once").to_owned();
        if self.world.in_trouble {
            self.ok("POST", "/v1/endpoints", &json!({"name": "erp", "url": format!("{inbox}{SECOND}"), "events": ["*"]})).await;
        }
        self.make_crowd(self.world, options).await;
        self.point_hooks();
    }

    /// Where the processes reach something that listens on loopback.
    async fn reached(&self, url: String) -> String {
        let Some(net) = &self.net else { return url };
        let to: SocketAddr = url.trim_start_matches("http://").parse().expect("a simulator's URL is an address");
        let at = net::relay((net.hub(), to.port()).into(), to).await.expect("the hub has the port free");
        format!("http://{at}")
    }

    fn point_hooks(&self) {
        self.whatsapp.set_hook(&self.hook("whatsapp", &self.wa_account));
        self.telegram.set_hook(&self.hook("telegram", &self.tg_account));
        self.point_hooks_of_crowd();
    }

    /// Waits until no running process has a record in a queue of its own; what waits for a broken endpoint may wait on.
    pub async fn until_at_rest(&self) {
        for process in std::iter::once(&self.process).chain(self.members.iter().filter_map(|member| member.process.as_ref())) {
            process.until_at_rest().await;
        }
    }

    /// What the test expects the processes to say in error, and panics that it plants.
    pub fn announced(&self) -> &Announced {
        &self.first.announced
    }

    /// The hook URL of an account.
    pub fn hook(&self, channel: &str, account: &str) -> String {
        format!("http://{}/hooks/{channel}/{account}", self.process.public)
    }

    /// The folder with the data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the process again over the same data.
    pub async fn restart(&mut self) {
        self.process = Process::start(&self.first).await;
        self.point_hooks();
    }

    /// A process beside the first gateway, by name.
    pub fn member(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|member| member.name == name).expect("a member of that name")
    }

    /// Why a message may still wait: the end of every process's log, and what its metrics say. Routers first: output may be cut.
    pub async fn explain(&self) -> String {
        let members = self.members.iter().filter_map(|member| Some((member.name.as_str(), member.process.as_ref()?)));
        let mut all: Vec<(&str, &Process)> = std::iter::once(("the first", &self.process)).chain(members).collect();
        all.sort_by_key(|(name, _)| !name.starts_with("router"));
        let mut told = String::new();
        for (name, process) in all {
            let _ = write!(told, "--- {name}\n{}\n{}\n", process.standing().await, process.last_lines());
        }
        told
    }

    /// Where the gateways that run are.
    pub fn gateways(&self) -> Vec<SocketAddr> {
        let others = self.members.iter().filter_map(|member| member.process.as_ref()).map(|process| process.public);
        std::iter::once(self.process.public).chain(others).filter(|address| address.port() != 0).collect()
    }

    /// A call with the admin key.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        self.try_call(method, path, headers, body).await.expect("the API answers")
    }

    /// The same, where the process may be gone. Every gateway serves every call: they are asked in turn.
    pub async fn try_call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Response> {
        self.try_call_at(self.turn.fetch_add(1, Ordering::Relaxed), method, path, headers, body).await
    }

    /// The same, at the gateway of a number, modulo how many run.
    pub async fn try_call_at(&self, number: usize, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Response> {
        let authorization = format!("Bearer {}", self.key);
        let mut all = vec![("authorization", authorization.as_str()), ("content-type", "application/json")];
        all.retain(|(name, _)| !headers.iter().any(|(given, _)| given == name));
        all.extend(headers.iter().copied());
        let gateways = self.gateways();
        let url = format!("http://{}{path}", gateways[number % gateways.len()]);
        let method = method.parse().expect("a method");
        self.client.send(method, &url, &all, body.to_owned().into()).await.ok()
    }

    /// A call that must succeed, as JSON.
    pub async fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ok_as(&self.key, method, path, body).await
    }

    /// The same with another tenant's key.
    pub async fn ok_as(&self, key: &str, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let authorization = format!("Bearer {key}");
        // Always at the first gateway: another one knows of a change within a second only.
        let response = self.try_call_at(0, method, path, &[("authorization", &authorization)], &body).await.expect("the API answers");
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert!((200..300).contains(&response.status), "{method} {path} answered {}: {text}", response.status);
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// GET as JSON.
    pub async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, &Value::Null).await
    }

    /// Sends a text; gives the id.
    pub async fn send(&self, body: Value) -> String {
        let reply = self.ok("POST", "/v1/messages", &body).await;
        reply["id"].as_str().expect("a message has an id").to_owned()
    }

    /// A text to the customer's number.
    pub fn text(&self, to: &str, text: &str) -> Value {
        json!({"account": self.wa_account, "to": {"phone": format!("+{to}")}, "type": "text", "text": {"body": text}})
    }

    /// Waits until a message has a status.
    pub async fn until_status(&self, id: &str, status: &str) -> Value {
        let mut last = Value::Null;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if let Some(response) = self.try_call("GET", &format!("/v1/messages/{id}"), &[], "").await
                && response.status == 200
            {
                last = serde_json::from_slice(&response.body).expect("JSON");
                if last["status"] == status {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{id} never became {status}: {last:#}");
    }

    /// Waits for a delivery of an event of a type.
    pub async fn event(&self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Received {
        let found = self.inbox.wait_for(PATIENCE, |received| matches(received, kind, &wanted)).await;
        found.unwrap_or_else(|| panic!("no {kind}; seen: {:#?}", self.kinds()))
    }

    /// The types of everything delivered so far.
    pub fn kinds(&self) -> Vec<String> {
        self.inbox.received().iter().map(|received| body(received)["type"].as_str().unwrap_or("?").to_owned()).collect()
    }

    /// Moves the clocks of the process and of the platforms.
    pub async fn advance(&self, by: Duration) {
        let body = json!({"advance": format!("{}s", by.as_secs())}).to_string();
        let authorization = format!("Bearer {}", self.key);
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let others = self.members.iter().filter_map(|member| member.process.as_ref()).map(|process| process.admin);
        for admin in std::iter::once(self.process.admin).chain(others) {
            let url = format!("http://{admin}/admin/clock");
            let response = self.client.post(&url, &headers, body.clone()).await.expect("the admin listener answers");
            assert!((200..300).contains(&response.status), "{}: {}", response.status, String::from_utf8_lossy(&response.body));
        }
        self.clock.advance(by);
    }

    /// The admin listener's answer to a GET.
    pub async fn admin(&self, path: &str) -> Response {
        self.client.get(&format!("http://{}{path}", self.process.admin)).await.expect("the admin listener answers")
    }

    /// Checks a delivery's signature with the public library, not with our own code.
    pub fn verify(&self, received: &Received) {
        let hook = standardwebhooks::Webhook::new(&self.secret).expect("the secret is one of standard webhooks");
        let mut headers = http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, received.header(name).expect("a signed delivery has it").parse().expect("a header value"));
        }
        hook.verify(&received.body, &headers).expect("the public library takes the signature");
    }
}

/// A delivery's body as JSON.
pub fn body(received: &Received) -> Value {
    serde_json::from_slice(&received.body).expect("a delivery is JSON")
}

fn matches(received: &Received, kind: &str, wanted: &impl Fn(&Value) -> bool) -> bool {
    let body = body(received);
    body["type"] == kind && wanted(&body)
}
