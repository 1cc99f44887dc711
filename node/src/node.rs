//! Composition: from the configuration to backends to roles. The only file that names both stations.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use messaging::BoxFuture;
use messaging::channels::ChannelKind;
use messaging::clock::{SharedClock, SystemClock};
use messaging::config::{Config, Role, SecretSource, StoreBackend};
use messaging::exchange::{ByteStream, HttpRequest, HttpResponse};
use messaging::keeper::DirectoryKeeper;
use messaging::log::Log;
use messaging::media::Library;
use messaging::metrics::SupervisedTask;
use messaging::metrics::{self, Exporter};
use messaging::outlook::Outlook;
use messaging::seal::{KEY_BYTES, Keyring, Secret, fill_random};
use messaging::store::Store;
use messaging::supervise::spawn_again;
use router::egress::{AllowedNetwork, Door, Policy};
use router::fleet::Fleet;
use tokio::sync::{Notify, broadcast};

use crate::backends::{self, Backends};
use crate::descriptors::Room;
use crate::media;

/// Lines of the tail that a slow reader may lag behind.
const TAIL_LINES: usize = 1024;
/// How often a process looks whether the directory changed.
const DIRECTORY_POLL: Duration = Duration::from_secs(1);
/// Exit code of a process whose drain took longer than `drain.total`.
const DRAIN_TOTAL_OVER: i32 = 124;
/// How often histograms are drained and gauges set.
const UPKEEP: Duration = Duration::from_secs(5);

/// A node that was built and not yet started.
pub struct Node {
    config: Config,
    clock: Arc<SystemClock>,
    backends: Backends,
    pub keeper: DirectoryKeeper,
    pub keyring: Keyring,
    media: Arc<Library>,
    outlook: Arc<Outlook>,
    door: Arc<Door>,
    tail: router::plan::Tail,
    exporter: Arc<Exporter>,
    drain: Arc<Notify>,
    fleet: Arc<Fleet>,
    gateway: gateway::Gateway,
    listeners: gateway::Listeners,
}

/// The ways out for the gateway: through the one guarded door.
struct Caller(Arc<Door>);

impl gateway::OutboundCall for Caller {
    fn call_up_to(&self, request: HttpRequest, timeout: Duration, body_bytes_max: usize) -> BoxFuture<'_, Result<HttpResponse, String>> {
        Box::pin(async move {
            let client = self.0.client(&request.url).map_err(|error| error.to_string())?;
            let sent = client.send(request, timeout, body_bytes_max).await.map_err(|error| error.to_string())?;
            Ok(sent.response)
        })
    }
}

impl gateway::connectors::discord::Dial for Caller {
    fn dial<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Box<dyn ByteStream>, String>> {
        Box::pin(async move { self.0.dial(url).await.map_err(|error| error.to_string()) })
    }
}

impl Node {
    /// Binds the ports, opens the backends, and makes the first key where there is none. Nothing is served yet.
    pub async fn build(config: Config, data_dir: &Path, exporter: Arc<Exporter>) -> anyhow::Result<Self> {
        let public = config.has_role(Role::Gateway).then_some(config.listen.public);
        let listeners = gateway::Listeners::bind(public, Some(config.listen.admin), cores(), config.listen.reuse_port)
            .context("a listener cannot be bound: is another process on the port? (listen.public, listen.admin)")?;
        std::fs::create_dir_all(data_dir).with_context(|| format!("the data folder {} cannot be made", data_dir.display()))?;
        let keyring = Keyring::from_root(&root_secret(&config.auth.key_pepper)?);
        let clock = Arc::new(SystemClock::default());
        let shared: SharedClock = clock.clone();
        let backends = backends::open(&config, data_dir, &shared).await?;
        let keeper = first_directory(&config, data_dir, &backends, &keyring).await?;
        let descriptors = crate::descriptors::raise();
        let room = Room::of(config.http.max_connections, config.http.max_connections_per_address, descriptors);
        room.tell(config.http.max_connections, descriptors);
        let door = Arc::new(door(&config, room, shared.clone())?);
        let tail = Arc::new(broadcast::channel(TAIL_LINES).0);
        let drain = Arc::new(Notify::new());
        let fleet = Arc::new(Fleet::default());
        let public_url = config
            .node
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{}", listeners.public_address().unwrap_or(config.listen.public)));
        let media = media::open(&config, data_dir, &backends, &keeper, &keyring, &shared, door.clone(), &public_url)?;
        let outlook = Arc::new(Outlook::new(shared.now(), config.has_role(Role::Router)));
        let parts = gateway::Parts {
            log: backends.ingress.clone(),
            store: backends.store.clone(),
            keeper: keeper.clone(),
            keyring: keyring.clone(),
            clock: shared,
            limit: backends.limit.clone(),
            channels: config.channels.clone(),
            media: media.clone(),
            outlook: outlook.clone(),
            caller: Arc::new(Caller(door.clone())),
            dial: config.has_role(Role::Gateway).then(|| Arc::new(Caller(door.clone())) as Arc<dyn gateway::connectors::discord::Dial>),
            is_allowed_url: {
                let door = door.clone();
                Arc::new(move |url| door.policy().check_url(url).map(|_| ()).map_err(|error| error.to_string()))
            },
            admin: admin_parts(&config, &clock, &exporter, &tail, &drain, &fleet),
        };
        let gateway = gateway::Gateway::new(parts, gateway_options(&config, room, public_url));
        Ok(Self { config, clock, backends, keeper, keyring, media, outlook, door, tail, exporter, drain, fleet, gateway, listeners })
    }

    /// Where the public listener is, if this node has a gateway.
    pub fn public(&self) -> Option<std::net::SocketAddr> {
        self.listeners.public_address()
    }

    /// Where the admin listener is.
    pub fn admin(&self) -> std::net::SocketAddr {
        self.listeners.admin_address().expect("the admin listener is always bound")
    }

    /// The first admin key, made where the directory holds no tenant yet; written to `file` for its owner only.
    pub async fn first_key(&self, file: Option<&PathBuf>) -> anyhow::Result<Option<Secret>> {
        if !self.config.has_role(Role::Gateway) || self.keeper.shared().load().version > 0 {
            return Ok(None);
        }
        let clock: SharedClock = self.clock.clone();
        let Some(key) = gateway::admin::first_key(&self.keeper, &self.keyring, &clock).await? else {
            return Ok(None);
        };
        if let Some(path) = file {
            write_private(path, key.expose()).with_context(|| format!("the first key cannot be written to {}", path.display()))?;
        }
        Ok(Some(key))
    }

    /// Serves until told to stop by a signal or the admin listener, then drains. `started` runs when both stations work.
    pub async fn run(self, started: Pin<Box<dyn Future<Output = ()> + Send>>) -> anyhow::Result<()> {
        let routes = self.config.has_role(Role::Router);
        let router = routes.then(|| router::Router::start(self.router_parts(), router_options(&self.config)));
        let (ingress, store) = (self.backends.ingress.clone(), self.backends.store.clone());
        let (keeper, exporter) = (self.keeper.clone(), self.exporter.clone());
        let poll = spawn_again(SupervisedTask::Directory, move || watch(keeper.clone(), exporter.clone(), ingress.clone(), store.clone()));
        let (library, clock) = (self.media.clone(), self.clock.clone());
        let sweeping = spawn_again(SupervisedTask::Sweep, move || media::sweep(library.clone(), clock.clone()));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (gateway, listeners) = (self.gateway, self.listeners);
        let mut serving = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            gateway.serve(listeners, stopped).await
        });
        let running = tokio::spawn(started);
        // A gateway that ended by itself takes the node with it: nobody would be served.
        let ended = tokio::select! {
            () = wait_for_stop(&self.drain) => None,
            ended = &mut serving => Some(ended),
        };
        tracing::info!("draining");
        metrics::DRAINING.at([]).set(1.0);
        // A second signal ends the process at once.
        let second = tokio::spawn(async {
            signals().await;
            std::process::exit(130);
        });
        end_after(self.config.drain.total);
        let _ = stop.send(());
        let by_itself = ended.is_some();
        let ended = match ended {
            Some(ended) => ended,
            None => serving.await,
        };
        let failed = match ended {
            Ok(Ok(())) if by_itself => Some(anyhow::anyhow!("the gateway ended by itself")),
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(anyhow::Error::new(error).context("the gateway ended with an error")),
            Err(error) => Some(anyhow::Error::new(error).context("the gateway ended in a panic")),
        };
        running.abort();
        if let Some(router) = router {
            router.stop().await;
        }
        poll.abort();
        sweeping.abort();
        self.backends.ingress.close().await;
        self.backends.log.close().await;
        self.backends.store.close().await;
        second.abort();
        tracing::info!("stopped");
        failed.map_or(Ok(()), Err)
    }

    fn router_parts(&self) -> router::Parts {
        router::Parts {
            log: self.backends.log.clone(),
            store: self.backends.store.clone(),
            keeper: self.keeper.clone(),
            keyring: self.keyring.clone(),
            clock: self.clock.clone(),
            limit: self.backends.limit.clone(),
            channels: self.config.channels.clone(),
            door: self.door.clone(),
            media: self.media.clone(),
            outlook: self.outlook.clone(),
            tail: self.tail.clone(),
            fleet: self.fleet.clone(),
        }
    }
}

/// The directory as the store has it; or, while the store is away, as this process had it last.
async fn first_directory(config: &Config, data_dir: &Path, backends: &Backends, keyring: &Keyring) -> anyhow::Result<DirectoryKeeper> {
    let keeper = DirectoryKeeper::new(backends.store.clone(), keyring.clone());
    if matches!(config.store.backend, StoreBackend::Embedded) {
        keeper.refresh().await?;
        return Ok(keeper);
    }
    let keeper = keeper.with_copy(backends::directory_copy(data_dir));
    let Err(error) = keeper.refresh().await else { return Ok(keeper) };
    if !keeper.load_copy().context("the copy of the directory cannot be read")? {
        return Err(error).context("the store is away, and this process has no copy of the directory yet");
    }
    tracing::warn!(%error, version = keeper.shared().load().version, "the store is away: starting with the last copy of the directory");
    Ok(keeper)
}

/// The root secret: as configured, or made and written at the first start.
fn root_secret(source: &SecretSource) -> anyhow::Result<[u8; KEY_BYTES]> {
    if let Some(text) = source.read().context("auth.key_pepper_file cannot be read")? {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.expose().trim().as_bytes()).ok();
        let Some(bytes) = bytes.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok()) else {
            bail!("auth.key_pepper is not 32 bytes in hexadecimal; make one with `openssl rand -hex 32`");
        };
        return Ok(bytes);
    }
    let mut bytes = [0; KEY_BYTES];
    fill_random(&mut bytes);
    if let SecretSource::File { path, .. } = source {
        write_private(path, &data_encoding::HEXLOWER.encode(&bytes))
            .with_context(|| format!("the root secret cannot be written to {}", path.display()))?;
    }
    Ok(bytes)
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Most idle connections out.
const IDLE_OUT_MAX: usize = 4_096;

fn door(config: &Config, room: Room, clock: SharedClock) -> anyhow::Result<Door> {
    let webhooks = &config.webhooks;
    let allow = webhooks
        .allow_private
        .iter()
        .map(|network| AllowedNetwork { net: network.net, prefix: network.prefix, port: network.port })
        .collect();
    let extra_roots = match &webhooks.tls_ca_file {
        Some(file) => {
            let pem = std::fs::read(file).with_context(|| format!("webhooks.tls_ca_file: {} cannot be read", file.display()))?;
            router::egress::authorities(&pem).with_context(|| format!("webhooks.tls_ca_file: {} cannot be used", file.display()))?
        }
        None => Vec::new(),
    };
    let settings = router::egress::Settings {
        extra_roots,
        policy: Policy { allow, allow_http: webhooks.allow_http, ..Policy::default() },
        connect_timeout: webhooks.connect_timeout,
        idle_per_client_max: webhooks.concurrency_per_endpoint.max(16),
        // Half of the room for those that are idle: a request can always get in.
        idle_total_max: IDLE_OUT_MAX.min(room.out / 2),
        connections_max: room.out,
        user_agent: user_agent(config),
        ..router::egress::Settings::default()
    };
    Ok(Door::new(settings, clock)?)
}

fn user_agent(config: &Config) -> http::HeaderValue {
    http::HeaderValue::try_from(config.webhooks.user_agent.as_str()).unwrap_or(http::HeaderValue::from_static("trunkline"))
}

fn gateway_options(config: &Config, room: Room, public_url: String) -> gateway::Options {
    let http = &config.http;
    gateway::Options {
        public_url,
        http: gateway::HttpLimits {
            max_connections: room.public,
            max_connections_per_address: room.address,
            max_in_flight: http.max_in_flight,
            header_timeout: http.header_timeout,
            body_timeout: http.body_timeout,
            idle_timeout: http.idle_timeout,
            max_hook_body: http.max_hook_body,
            max_api_body: http.max_api_body,
            max_batch_body: http.max_batch_body,
            http2: http.http2,
            max_streams: http.max_streams,
        },
        trusted_proxies: config.listen.proxies(),
        drain: gateway::Drain { announce: config.drain.announce, requests: config.drain.requests },
        threads: 0,
        api_per_key: config.limits.api_per_key,
        api_burst: config.limits.burst,
        quotas: config.quotas.limits(),
        max_wait: config.limits.max_wait,
        idempotency_ttl: config.retention.idempotency,
        access_log_sample: config.telemetry.access_log_sample,
    }
}

fn router_options(config: &Config) -> router::Options {
    let webhooks = &config.webhooks;
    router::Options {
        max_in_flight_per_shard: config.router.max_in_flight_per_shard,
        commit_interval: config.router.commit_interval,
        lease_ttl: config.router.lease,
        drain: config.drain.router,
        webhooks: Arc::new(router::WebhookSettings {
            timeout: webhooks.timeout,
            schedule: webhooks.schedule.clone(),
            jitter: webhooks.jitter,
            concurrency_per_endpoint: webhooks.concurrency_per_endpoint,
            disable_after: webhooks.disable_after,
            max_response: webhooks.max_response,
            user_agent: user_agent(config),
        }),
        faults: router::faults::Faults::default(),
    }
}

fn admin_parts(
    config: &Config,
    clock: &Arc<SystemClock>,
    exporter: &Arc<Exporter>,
    tail: &router::plan::Tail,
    drain: &Arc<Notify>,
    fleet: &Arc<Fleet>,
) -> gateway::AdminParts {
    let (exporter, tail, drain) = (exporter.clone(), tail.clone(), drain.clone());
    gateway::AdminParts {
        metrics: Some(Arc::new(move || exporter.render())),
        advance_clock: config.dev.clock_control.then(|| {
            let clock = clock.clone();
            Arc::new(move |by| clock.advance(by)) as Arc<dyn Fn(Duration) + Send + Sync>
        }),
        tail: Some(Arc::new(move || Box::pin(lines(tail.subscribe())) as gateway::TailLines)),
        drain: Some(Arc::new(move || drain.notify_one())),
        log_filter: crate::logging::filter().map(|filter| filter as Arc<dyn gateway::LogFilter>),
        ready: if config.has_role(Role::Router) { vec![("router", shards_work(fleet.clone()))] } else { Vec::new() },
    }
}

/// Readiness of the router: every shard that this process holds works.
fn shards_work(fleet: Arc<Fleet>) -> gateway::IsReady {
    Arc::new(move || {
        let stopped: Vec<String> = fleet.stopped().iter().map(u16::to_string).collect();
        if stopped.is_empty() { Ok(()) } else { Err(format!("shards that do not work: {}", stopped.join(", "))) }
    })
}

/// Tail lines as JSON; a reader that lags loses the oldest.
fn lines(receiver: broadcast::Receiver<router::plan::TailLine>) -> impl futures_util::Stream<Item = String> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        loop {
            match receiver.recv().await {
                Ok(line) => return Some((serde_json::to_string(&line).unwrap_or_default(), receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
}

/// Keeps the directory's snapshot and the gauges true.
async fn watch(keeper: DirectoryKeeper, exporter: Arc<Exporter>, log: Arc<dyn Log>, store: Arc<dyn Store>) {
    let mut poll = tokio::time::interval(DIRECTORY_POLL);
    let mut upkeep = tokio::time::interval(UPKEEP);
    let mut busy = Busy::default();
    loop {
        tokio::select! {
            _ = poll.tick() => {
                if let Err(error) = keeper.refresh().await {
                    tracing::warn!(%error, "directory not refreshed, the last snapshot stays");
                }
            }
            now = upkeep.tick() => {
                exporter.upkeep();
                let (waiting, limit) = log.queue();
                metrics::LOG_PRODUCER_QUEUE_RECORDS.at([]).set(waiting as f64);
                metrics::LOG_PRODUCER_QUEUE_LIMIT_RECORDS.at([]).set(limit as f64);
                let ((log_used, log_limit), (store_used, store_limit)) = (log.disk(), store.disk());
                metrics::STORE_DISK_USAGE_BYTES.at([metrics::DiskComponent::Log.index()]).set(log_used as f64);
                metrics::STORE_DISK_USAGE_BYTES.at([metrics::DiskComponent::Store.index()]).set(store_used as f64);
                metrics::STORE_DISK_LIMIT_BYTES.at([]).set((log_limit + store_limit) as f64);
                count_accounts(&keeper);
                busy = count_runtime(busy, now);
            }
        }
    }
}

/// What the runtime's workers had worked at the last look.
#[derive(Default)]
struct Busy {
    total: Duration,
    at: Option<tokio::time::Instant>,
}

/// Sets the runtime's gauges.
fn count_runtime(last: Busy, now: tokio::time::Instant) -> Busy {
    let runtime = tokio::runtime::Handle::current().metrics();
    let main = metrics::Runtime::Main.index();
    let workers = runtime.num_workers();
    let total = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker)).sum::<Duration>();
    if let Some(at) = last.at {
        let passed = (now - at).as_secs_f64() * workers as f64;
        let ratio = total.saturating_sub(last.total).as_secs_f64() / passed.max(f64::MIN_POSITIVE);
        metrics::RUNTIME_BUSY_RATIO.at([main]).set(ratio.min(1.0));
    }
    metrics::RUNTIME_TASKS_ALIVE.at([main]).set(runtime.num_alive_tasks() as f64);
    metrics::RUNTIME_QUEUE_TASKS.at([main]).set(runtime.global_queue_depth() as f64);
    Busy { total, at: Some(now) }
}

/// Sets the accounts' gauges.
fn count_accounts(keeper: &DirectoryKeeper) {
    let mut counts = [[0_u32; metrics::AccountLabel::ALL.len()]; ChannelKind::ALL.len()];
    for account in keeper.shared().load().accounts() {
        counts[account.channel.index()][metrics::AccountLabel::from(account.row.state).index()] += 1;
    }
    for (channel, states) in counts.iter().enumerate() {
        for (state, count) in states.iter().enumerate() {
            metrics::PLATFORM_ACCOUNTS.at([channel, state]).set(f64::from(*count));
        }
    }
}

/// Ends the process after `drain.total`, whatever still runs: what was accepted is on the log, and comes again at the next start. A thread
/// of its own, because a runtime that stands still would not get to it.
fn end_after(total: Duration) {
    let watch = std::thread::Builder::new().name("drain-total".to_owned()).spawn(move || {
        std::thread::sleep(total);
        tracing::error!(total_s = total.as_secs_f64(), "drain.total is over, the process ends although something still runs");
        std::process::exit(DRAIN_TOTAL_OVER);
    });
    if let Err(error) = watch {
        tracing::warn!(%error, "drain.total is not watched");
    }
}

async fn wait_for_stop(drain: &Notify) {
    tokio::select! {
        () = signals() => {}
        () = drain.notified() => {}
    }
}

async fn signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        tracing::error!("no signal handler, the process ends only by kill -9 or /admin/drain");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
