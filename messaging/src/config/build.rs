//! From settings to a `Config`: every key is read here, once, and combinations that cannot work are refused with the cure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::Reader;
use super::values::{self, Wrong};
use super::*;
use crate::metrics::MAX_PARTITIONS;
use crate::quota::LIMIT_MAX;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Most attempts of a delivery.
const MAX_ATTEMPTS: usize = 64;
/// Bytes of the root secret, in hexadecimal.
const PEPPER_HEX_DIGITS: usize = 64;

pub(super) fn config(mode: RunMode, from: &mut Reader<'_>) -> Config {
    let node = node(mode, from);
    let data_dir = node.data_dir.clone();
    let config = Config {
        mode,
        listen: listen(from),
        http: http(from),
        auth: auth(from, data_dir.as_deref()),
        log: log(mode, from),
        router: router(from),
        store: store(from),
        limits: limits(from),
        quotas: quotas(from),
        channels: super::channels::channels(from),
        webhooks: webhooks(from),
        media: media(from),
        retention: retention(from),
        telemetry: telemetry(from),
        drain: drain(from),
        dev: dev(mode, from, data_dir.as_deref()),
        node,
    };
    refuse_combinations(&config, from);
    config
}

fn node(mode: RunMode, from: &mut Reader<'_>) -> NodeConfig {
    let name = from.text("node.name");
    let roles = from.choices("node.roles", &Role::ALL.iter().map(|role| (role.name(), *role)).collect::<Vec<_>>());
    let data_dir = from.path("node.data_dir");
    if mode == RunMode::Serve && data_dir.is_none() {
        let help =
            "set node.data_dir (or TRUNKLINE__NODE__DATA_DIR) to a folder on a disk that survives restarts; `trunkline dev` needs none";
        from.refuse(&["node.data_dir"], "`node.data_dir` is empty: serve would keep nothing", help);
    }
    let public_url = from.checked("node.public_url", |text| if text.is_empty() { Ok(String::new()) } else { values::base_url(text) });
    let name = if name.is_empty() { host_name() } else { name };
    NodeConfig { name, roles, data_dir, public_url: Some(public_url).filter(|url| !url.is_empty()) }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "trunkline".to_owned() } else { name.to_owned() }
}

fn listen(from: &mut Reader<'_>) -> ListenConfig {
    let listen = ListenConfig {
        public: from.address("listen.public"),
        admin: from.address("listen.admin"),
        reuse_port: from.flag("listen.reuse_port"),
        trusted_proxies: from.list("listen.trusted_proxies", |text| {
            let network = values::network(text)?;
            if network.port.is_some() {
                Err(Wrong::new("has a port", "write the network only; proxies call from any port"))
            } else {
                Ok(network)
            }
        }),
    };
    let allowed = from.flag("listen.allow_public_admin");
    if !listen.admin.ip().is_loopback() && !allowed {
        let message = format!("`listen.admin` is {}, which others can reach, and its health and metrics ask for no key", listen.admin);
        let help = "use 127.0.0.1:9090; or guard the port otherwise and set listen.allow_public_admin = true";
        from.refuse(&["listen.admin"], message, help);
    }
    if listen.public == listen.admin && listen.public.port() != 0 {
        let message = format!("`listen.public` and `listen.admin` are both {}", listen.public);
        from.refuse(&["listen.public", "listen.admin"], message, "give each its own port");
    }
    listen
}

fn http(from: &mut Reader<'_>) -> HttpConfig {
    HttpConfig {
        max_connections: from.count("http.max_connections", 1..=1_000_000) as usize,
        max_connections_per_address: from.count("http.max_connections_per_address", 1..=1_000_000) as usize,
        max_in_flight: from.count("http.max_in_flight", 1..=1_000_000) as usize,
        header_timeout: from.duration("http.header_timeout", MILLISECOND),
        body_timeout: from.duration("http.body_timeout", MILLISECOND),
        idle_timeout: from.duration("http.idle_timeout", SECOND),
        max_hook_body: from.size("http.max_hook_body", KIB..=64 * MIB) as usize,
        max_api_body: from.size("http.max_api_body", KIB..=64 * MIB) as usize,
        max_batch_body: from.size("http.max_batch_body", KIB..=GIB) as usize,
        http2: from.flag("http.http2"),
        max_streams: from.count("http.max_streams", 1..=10_000),
    }
}

fn auth(from: &mut Reader<'_>, data_dir: Option<&Path>) -> AuthConfig {
    let inline = from.checked("auth.key_pepper", |text| {
        let is_hex = text.len() == PEPPER_HEX_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.is_empty() || is_hex {
            return Ok(text.to_owned());
        }
        Err(Wrong::new("is not 32 bytes in hexadecimal", "make one with `openssl rand -hex 32`, and keep a copy"))
    });
    let file = from.path("auth.key_pepper_file");
    if !inline.is_empty() && file.is_some() {
        let message = "`auth.key_pepper` and `auth.key_pepper_file` are both set";
        from.refuse(&["auth.key_pepper", "auth.key_pepper_file"], message, "keep the file, and take the other out");
    }
    let keys = data_dir.map(|folder| folder.join("keys"));
    let key_pepper = match (inline.is_empty(), file, &keys) {
        (false, _, _) => SecretSource::Inline(Secret::new(inline)),
        (true, Some(path), _) => SecretSource::File { path, create: false },
        (true, None, Some(keys)) => SecretSource::File { path: keys.join("pepper"), create: true },
        (true, None, None) => SecretSource::Generated,
    };
    let bootstrap: Option<PathBuf> = from.path("auth.bootstrap_key_file");
    AuthConfig { key_pepper, bootstrap_key_file: bootstrap.or_else(|| keys.map(|keys| keys.join("bootstrap"))) }
}

fn log(mode: RunMode, from: &mut Reader<'_>) -> LogConfig {
    let ack = from.choice("log.ack", &Ack::ALL.iter().map(|ack| (ack.name(), *ack)).collect::<Vec<_>>());
    if ack == Ack::Memory && mode == RunMode::Serve {
        let help = "write ack = \"durable\"; many appends share one sync, so it costs little";
        from.refuse(
            &["log.ack"],
            "`log.ack` is \"memory\": accepted events would be lost with the machine, and serve promises that none is",
            help,
        );
    }
    let fsync = from.choice("log.embedded.fsync", &[("group", Fsync::Group), ("each", Fsync::Each)]);
    LogConfig {
        backend: backends::log(from),
        partitions: from.count("log.partitions", 1..=MAX_PARTITIONS as u32) as u16,
        ack,
        max_record: from.size("log.max_record", 64 * KIB..=64 * MIB) as usize,
        fsync: if ack == Ack::Memory { Fsync::Never } else { fsync },
        segment_bytes: from.size("log.embedded.segment", MIB..=4 * GIB),
        retention: from.duration("log.embedded.retention", SECOND),
        max_bytes: from.size("log.embedded.max_bytes", MIB..=TIB * 1024),
        skip_damage: from.choice("log.embedded.on_damage", &[("refuse", false), ("skip", true)]),
    }
}

fn router(from: &mut Reader<'_>) -> RouterConfig {
    RouterConfig {
        max_in_flight_per_shard: from.count("router.max_in_flight_per_shard", 1..=100_000) as usize,
        lease: from.duration("router.lease", SECOND),
        commit_interval: from.duration("router.commit_interval", MILLISECOND),
    }
}

fn store(from: &mut Reader<'_>) -> StoreConfig {
    StoreConfig {
        backend: backends::store(from),
        timeout: from.duration("store.timeout", MILLISECOND),
        retries: from.count("store.retries", 0..=100),
        max_bytes: from.size("store.embedded.max_bytes", MIB..=TIB * 1024),
        cache_bytes: from.size("store.embedded.cache", MIB..=TIB),
    }
}

fn limits(from: &mut Reader<'_>) -> LimitsConfig {
    LimitsConfig {
        backend: backends::limits(from),
        api_per_key: from.rate("limits.api_per_key"),
        burst: from.number("limits.burst", 0.0..=3600.0),
        max_wait: from.duration("limits.max_wait", Duration::ZERO),
    }
}

fn quotas(from: &mut Reader<'_>) -> QuotasConfig {
    let mut limit = |key, quota: Quota| from.count(key, quota.least()..=LIMIT_MAX);
    QuotasConfig {
        accounts: limit("quotas.accounts", Quota::Accounts),
        endpoints: limit("quotas.endpoints", Quota::Endpoints),
        keys: limit("quotas.keys", Quota::Keys),
        waiting_sends: limit("quotas.waiting_sends", Quota::WaitingSends),
        api_requests: limit("quotas.api_requests", Quota::ApiRequests),
        messages: limit("quotas.messages", Quota::Messages),
    }
}

fn webhooks(from: &mut Reader<'_>) -> WebhooksConfig {
    let webhooks = WebhooksConfig {
        timeout: from.duration("webhooks.timeout", MILLISECOND),
        connect_timeout: from.duration("webhooks.connect_timeout", MILLISECOND),
        schedule: from.durations("webhooks.schedule", MAX_ATTEMPTS),
        jitter: from.number("webhooks.jitter", 0.0..=1.0),
        concurrency_per_endpoint: from.count("webhooks.concurrency_per_endpoint", 1..=10_000) as usize,
        disable_after: from.duration("webhooks.disable_after", SECOND),
        max_response: from.size("webhooks.max_response", 0..=16 * MIB) as usize,
        allow_http: from.flag("webhooks.allow_http"),
        allow_private: from.list("webhooks.allow_private", values::network),
        tls_ca_file: from.path("webhooks.tls_ca_file"),
        user_agent: from.checked("webhooks.user_agent", |text| {
            let is_header = !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            if is_header { Ok(text.to_owned()) } else { Err(Wrong::new("is no header value", "write visible ASCII letters")) }
        }),
    };
    if webhooks.schedule.is_empty() {
        from.refuse(&["webhooks.schedule"], "`webhooks.schedule` has no entry: nothing would be delivered", "write at least [\"0s\"]");
    }
    if webhooks.connect_timeout > webhooks.timeout {
        let keys = ["webhooks.timeout", "webhooks.connect_timeout"];
        from.refuse(
            &keys,
            "`webhooks.connect_timeout` is longer than `webhooks.timeout`",
            "connecting is a part of the attempt: make it shorter",
        );
    }
    webhooks
}

fn media(from: &mut Reader<'_>) -> MediaConfig {
    MediaConfig {
        place: media_place(from),
        max_bytes: from.size("media.max", KIB..=4 * GIB),
        max_total: from.size("media.max_total", MIB..=TIB * 1024),
        ttl: from.duration("media.ttl", SECOND),
        link_ttl: from.duration("media.link_ttl", SECOND),
        timeout: from.duration("media.timeout", MILLISECOND),
    }
}

fn media_place(from: &mut Reader<'_>) -> MediaPlace {
    let dir = from.text("media.dir");
    let endpoint = from.checked("media.s3.endpoint", |text| if text.is_empty() { Ok(String::new()) } else { values::base_url(text) });
    let (region, access_key) = (from.text("media.s3.region"), from.text("media.s3.access_key"));
    let secret_key_file = from.path("media.s3.secret_key_file");
    let Some(place) = dir.strip_prefix("s3://") else {
        return MediaPlace::Folder(from.path("media.dir"));
    };
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_end_matches('/');
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/'));
    if bucket.len() < 3 || !is_plain(place) || bucket.contains('_') || prefix.split('/').any(|part| matches!(part, "." | "..")) {
        from.refuse(
            &["media.dir"],
            format!("`media.dir` is \"{dir}\", which names no bucket"),
            "write \"s3://bucket\" or \"s3://bucket/prefix\"",
        );
    }
    if endpoint.is_empty() || region.is_empty() || access_key.is_empty() || secret_key_file.is_none() {
        let keys = ["media.dir", "media.s3.endpoint", "media.s3.region", "media.s3.access_key", "media.s3.secret_key_file"];
        from.refuse(
            &keys,
            "the login for the media store is not whole",
            "set endpoint, region, access_key and secret_key_file of [media.s3]",
        );
    }
    MediaPlace::S3(MediaBucket {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint,
        region,
        access_key,
        secret_key_file: secret_key_file.unwrap_or_default(),
    })
}

fn retention(from: &mut Reader<'_>) -> RetentionConfig {
    RetentionConfig {
        messages: from.duration("retention.messages", SECOND),
        events: from.duration("retention.events", SECOND),
        dead_letters: from.duration("retention.dead_letters", SECOND),
        idempotency: from.duration("retention.idempotency", SECOND),
    }
}

fn telemetry(from: &mut Reader<'_>) -> TelemetryConfig {
    TelemetryConfig {
        log_format: from.choice("telemetry.log_format", &LogFormat::ALL.iter().map(|format| (format.name(), *format)).collect::<Vec<_>>()),
        log_filter: from.checked("telemetry.log_filter", values::log_filter),
        access_log_sample: from.number("telemetry.access_log_sample", 0.0..=1.0),
    }
}

fn drain(from: &mut Reader<'_>) -> DrainConfig {
    let drain = DrainConfig {
        announce: from.duration("drain.announce", Duration::ZERO),
        requests: from.duration("drain.requests", Duration::ZERO),
        router: from.duration("drain.router", Duration::ZERO),
        total: from.duration("drain.total", Duration::ZERO),
    };
    let parts = drain.announce.saturating_add(drain.requests).saturating_add(drain.router);
    if drain.total < parts {
        let message = format!(
            "`drain.total` is {}, but its parts (announce, requests, router) need {}",
            values::show(drain.total),
            values::show(parts)
        );
        let help = format!("set drain.total to at least \"{}\", or shorten a part", values::show(parts));
        from.refuse(&["drain.total", "drain.announce", "drain.requests", "drain.router"], message, help);
    }
    drain
}

fn dev(mode: RunMode, from: &mut Reader<'_>, data_dir: Option<&Path>) -> DevConfig {
    let kinds: Vec<_> = ChannelKind::ALL.iter().map(|kind| (kind.name(), *kind)).collect();
    let dev = DevConfig {
        simulate: from.choices("dev.simulate", &kinds),
        chaos: from.number("dev.chaos", 0.0..=1.0),
        seed: from.seed("dev.seed"),
        inbox: from.flag("dev.inbox"),
        clock_control: from.flag("dev.clock_control"),
    };
    let for_tests = data_dir.is_some_and(|folder| folder.join(FOR_TESTS_FILE).exists());
    if dev.clock_control && mode == RunMode::Serve && !for_tests {
        let help = format!("take it out; for a test of serve, put an empty file named `{FOR_TESTS_FILE}` into its data_dir first");
        from.refuse(&["dev.clock_control"], "`dev.clock_control` would let a caller move the clock of a node that serves", help);
    }
    dev
}

/// Settings that are good alone and bad together.
fn refuse_combinations(config: &Config, from: &mut Reader<'_>) {
    backends::refuse_pairs(config, from);
    if config.webhooks.allow_http && config.node.public_url.as_deref().is_some_and(is_public_https) {
        let message = "`webhooks.allow_http` would send customers' messages over the internet in the clear, and `node.public_url` says that this node is public";
        let help = "take allow_http out; for an endpoint inside your own network, give it a TLS certificate of your own authority";
        from.refuse(&["webhooks.allow_http", "node.public_url"], message, help);
    }
    if config.media.max_bytes > config.media.max_total {
        let message = "`media.max` is larger than `media.max_total`: a medium could be allowed that never has room";
        from.refuse(&["media.max", "media.max_total"], message, "raise media.max_total");
    }
    for (key, bytes) in [("http.max_hook_body", config.http.max_hook_body), ("http.max_api_body", config.http.max_api_body)] {
        if bytes > config.log.max_record {
            let message = format!("`{key}` is larger than `log.max_record`: a body could be taken that the log refuses for ever");
            from.refuse(&[key, "log.max_record"], message, "raise log.max_record to the same size");
        }
    }
    if config.log.segment_bytes.saturating_mul(2) > config.log.max_bytes {
        let message = "`log.embedded.max_bytes` has no room for two segments";
        let help = "retention drops whole segments: set log.embedded.segment to half of max_bytes or less";
        from.refuse(&["log.embedded.max_bytes", "log.embedded.segment"], message, help);
    }
    if config.log.max_record as u64 + RECORD_OVERHEAD > config.log.segment_bytes {
        let message = "`log.embedded.segment` has no room for a record of `log.max_record`";
        from.refuse(&["log.embedded.segment", "log.max_record"], message, "make segments larger than the largest record");
    }
    if let LogBackend::Kafka(kafka) = &config.log.backend
        && config.log.max_record as u64 + 2 * RECORD_OVERHEAD > kafka.spool_segment_bytes
    {
        let message = "`log.spool.segment` has no room for a record of `log.max_record`";
        from.refuse(&["log.spool.segment", "log.max_record"], message, "make segments larger than the largest record");
    }
    let longest = config.webhooks.schedule.iter().fold(Duration::ZERO, |sum, wait| sum.saturating_add(*wait));
    if longest > config.retention.events {
        let message = "`webhooks.schedule` takes longer than `retention.events`: the last tries would have nothing to deliver";
        from.refuse(&["webhooks.schedule", "retention.events"], message, "shorten the schedule, or keep events longer");
    }
}

fn is_public_https(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    };
    uri.scheme_str() == Some("https") && !is_local
}
