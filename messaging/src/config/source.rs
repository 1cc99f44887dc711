//! The layers and how they are laid over each other: defaults < run mode < file < environment < flags. The result is one flat
//! map of full keys to values with their origins. The defaults file says which keys exist and of what type they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::fault::{ConfigFault, Origin, Place};
use crate::metrics::RunMode;

/// The documented defaults, as `trunkline config defaults` prints them.
pub const DEFAULTS: &str = include_str!("defaults.toml");
/// Environment variables that begin so are settings.
pub const ENVIRONMENT_PREFIX: &str = "TRUNKLINE__";
/// Largest configuration file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Name under which the defaults' own lines are known.
const DEFAULTS_NAME: &str = "defaults.toml";

/// The one table whose members are not ours.
const FREE_TABLE: &str = "log.kafka.properties";

/// What `dev` sets otherwise: it calls an inbox on this machine, without TLS.
const DEV_DEFAULTS: &[(&str, &str)] = &[("webhooks.allow_http", "true"), ("webhooks.allow_private", "127.0.0.0/8, ::1/128")];

/// Keys of the full product that this build has not, and why. A key is matched whole or by its table.
const NOT_BUILT: &[(&str, &str)] = &[
    ("compat", "this build has no compatible APIs of platforms; use /v1"),
    ("console", "this build has no console; use the API and the command line"),
    ("listen.console", "this build has no console; use the API and the command line"),
    (
        "listen.proxy_protocol",
        "this build does not read the PROXY protocol; have the proxy set X-Forwarded-For, and name it in listen.trusted_proxies",
    ),
    ("log.kafka.acks", "it is always \"all\": accepted means durable"),
    ("log.kafka.idempotence", "it is always on: order per partition rests on it"),
    ("log.embedded.fsync_interval", "the embedded log needs none: appends that come while a sync runs share the next one"),
    ("auth.clock_skew", "it had no effect: how old a signature may be is each channel's own rule"),
    ("limits.messages_per_tenant", "it is quotas.messages now, a whole number: messages a second"),
    ("node.region", "name regions where the metrics are scraped"),
    ("retention.attempts", "it had no effect: attempts are counted, not stored one by one"),
    ("retention.audit", "it had no effect: this build has no audit log"),
    ("router.dedup_window", "it had no effect: the store's primary key decides; see retention.idempotency"),
    ("router.ordering", "order per conversation is always kept"),
    ("router.shard_queue", "it had no effect: what waits stays on the log; see router.max_in_flight_per_shard"),
    ("router.shards", "every partition has its own shard; see log.partitions"),
    ("telemetry.keep_slower_than", "this build writes no traces; use /metrics, and GET /v1/messages/{id} for one message"),
    ("telemetry.metrics_labels", "add constant labels where the metrics are scraped"),
    ("telemetry.native_histograms", "this build has histograms with fixed buckets only"),
    ("telemetry.otlp_endpoint", "this build writes no traces; use /metrics, and GET /v1/messages/{id} for one message"),
    ("telemetry.service_name", "this build writes no traces; use /metrics, and GET /v1/messages/{id} for one message"),
    ("telemetry.tenant_top_k", "this build has no metrics by tenant"),
    ("telemetry.trace_sample", "this build writes no traces; use /metrics, and GET /v1/messages/{id} for one message"),
    ("tls", "this build does not speak TLS on its listeners; put a TLS proxy in front and name it in listen.trusted_proxies"),
    (
        "webhooks.max_pending_per_endpoint",
        "it had no effect: what waits for an endpoint is given up by webhooks.schedule and disable_after",
    ),
    ("webhooks.proxy", "this build calls endpoints directly; allow it to in the firewall"),
    ("webhooks.sign", "this build signs deliveries with \"v1\" (HMAC-SHA256), which every endpoint has its own secret for"),
    ("webhooks.signing_key_file", "this build signs deliveries with \"v1\" (HMAC-SHA256), which every endpoint has its own secret for"),
    ("channels.whatsapp.verify_token_file", "the verify token belongs to the account: give it to POST /v1/accounts as `verify_token`"),
    ("channels.whatsapp.verify_token", "the verify token belongs to the account: give it to POST /v1/accounts as `verify_token`"),
];

/// A value and where it came from.
#[derive(Clone, PartialEq)]
pub(super) struct Setting {
    pub value: Value,
    pub origin: Origin,
}

impl fmt::Debug for Setting {
    /// Without the value: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({})", self.origin)
    }
}

/// All settings by full key.
pub(super) type Settings = BTreeMap<String, Setting>;

static DEFAULT_SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let mut faults = Vec::new();
    let leaves =
        leaves(Path::new(DEFAULTS_NAME), DEFAULTS, &mut faults, |key| if key == FREE_TABLE { Known::Leaf } else { Known::Section });
    assert!(faults.is_empty(), "defaults.toml is a part of the program and parses");
    leaves.into_iter().map(|(key, value, _)| (key, Setting { value, origin: Origin::Default })).collect()
});

/// The built-in settings: every key that there is.
pub(super) fn defaults() -> &'static Settings {
    &DEFAULT_SETTINGS
}

/// What a dotted path is.
enum Known {
    /// A section: its members are keys.
    Section,
    /// A key with a value.
    Leaf,
}

/// Lays the layers over each other. Faults are added; what is faulty is left out.
pub(super) fn gather(
    mode: RunMode,
    file: Option<&Path>,
    env: &[(String, String)],
    overrides: &[(String, String)],
    faults: &mut Vec<ConfigFault>,
) -> Settings {
    let mut settings = defaults().clone();
    if mode == RunMode::Dev {
        for (key, text) in DEV_DEFAULTS {
            put_text(&mut settings, key, text, Origin::Mode(mode), faults);
        }
    }
    if let Some(file) = file {
        put_file(&mut settings, file, faults);
    }
    for (name, text) in env {
        if let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            let key = path.to_ascii_lowercase().replace("__", ".");
            put_text(&mut settings, &key, text, Origin::Environment(name.clone()), faults);
        }
    }
    for (key, text) in overrides {
        put_text(&mut settings, key, text, Origin::Flag, faults);
    }
    settings
}

fn put_file(settings: &mut Settings, file: &Path, faults: &mut Vec<ConfigFault>) {
    let source = match read(file) {
        Ok(source) => source,
        Err(what) => {
            let message = format!("cannot read {}: {what}", file.display());
            let help = "name a file that exists and that this user may read".to_owned();
            faults.push(ConfigFault { message, help, origin: Origin::Flag });
            return;
        }
    };
    let known = |path: &str| {
        let section = format!("{path}.");
        if defaults().keys().any(|key| key.starts_with(&section)) { Known::Section } else { Known::Leaf }
    };
    for (key, value, place) in leaves(file, &source, faults, known) {
        put(settings, &key, value, Origin::File(Arc::new(place)), faults);
    }
}

fn read(file: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if meta.len() > MAX_FILE_BYTES {
        return Err(format!("it has {} bytes, at most {MAX_FILE_BYTES} are taken", meta.len()));
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

/// Every key of a TOML text with its value and place. Errors of the syntax become faults, all of them.
fn leaves(file: &Path, source: &str, faults: &mut Vec<ConfigFault>, known: impl Fn(&str) -> Known) -> Vec<(String, Value, Place)> {
    let (tree, errors) = DeTable::parse_recoverable(source);
    let parsed = source.parse::<Table>();
    let (Ok(values), true) = (&parsed, errors.is_empty()) else {
        let all = if errors.is_empty() { parsed.err().into_iter().collect() } else { errors };
        for error in all {
            let place = Place::new(file, source, error.span().unwrap_or(0..0));
            let message = format!("not valid TOML: {}", error.message());
            let help = "a line is `key = value`, texts stand in quotation marks, sections in brackets".to_owned();
            faults.push(ConfigFault { message, help, origin: Origin::File(Arc::new(place)) });
        }
        return Vec::new();
    };
    let mut found = Vec::new();
    walk(file, source, tree.get_ref(), values, "", &known, &mut found);
    found
}

fn walk(
    file: &Path,
    source: &str,
    tree: &DeTable<'_>,
    values: &Table,
    prefix: &str,
    known: &impl Fn(&str) -> Known,
    found: &mut Vec<(String, Value, Place)>,
) {
    for (name, item) in tree {
        let Some(value) = values.get(name.get_ref().as_ref()) else { continue };
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        match (item.get_ref(), value) {
            (DeValue::Table(inner), Value::Table(inner_values)) if matches!(known(&key), Known::Section) => {
                walk(file, source, inner, inner_values, &key, known, found);
            }
            (_, value) => found.push((key, value.clone(), Place::new(file, source, name.span()))),
        }
    }
}

/// Sets a key from text, in the type that the key's default has.
fn put_text(settings: &mut Settings, key: &str, text: &str, origin: Origin, faults: &mut Vec<ConfigFault>) {
    let value = match defaults().get(key).map(|default| &default.value) {
        Some(Value::Boolean(_)) => text.parse().map(Value::Boolean).ok(),
        Some(Value::Integer(_)) => text.parse().map(Value::Integer).ok(),
        Some(Value::Float(_)) => text.parse().map(Value::Float).ok(),
        Some(Value::Array(_)) => list(text),
        Some(Value::Table(_)) => format!("table = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("table")),
        Some(Value::String(_) | Value::Datetime(_)) | None => None,
    };
    // What does not parse stays a text: whoever reads the key says what is expected.
    put(settings, key, value.unwrap_or_else(|| Value::String(text.to_owned())), origin, faults);
}

/// A list: in TOML's form, or separated by commas.
fn list(text: &str) -> Option<Value> {
    if text.trim_start().starts_with('[') {
        return format!("list = {text}").parse::<Table>().ok()?.remove("list");
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
}

fn put(settings: &mut Settings, key: &str, value: Value, origin: Origin, faults: &mut Vec<ConfigFault>) {
    if let Some(setting) = settings.get_mut(key) {
        *setting = Setting { value, origin };
        return;
    }
    faults.push(unknown(key, origin));
}

/// Why a key is not taken.
pub(super) fn unknown(key: &str, origin: Origin) -> ConfigFault {
    let not_built =
        NOT_BUILT.iter().find(|(missing, _)| key == *missing || key.strip_prefix(missing).is_some_and(|rest| rest.starts_with('.')));
    if let Some((_, why)) = not_built {
        return ConfigFault { message: format!("`{key}` cannot be set"), help: (*why).to_owned(), origin };
    }
    let section = format!("{key}.");
    if defaults().keys().any(|known| known.starts_with(&section)) {
        let help = format!("write [{key}] and the keys under it");
        return ConfigFault { message: format!("`{key}` is a section, not a key"), help, origin };
    }
    let help = match suggestion(key) {
        Some(known) => format!("did you mean `{known}`?"),
        None => "`trunkline config defaults` prints every key".to_owned(),
    };
    ConfigFault { message: format!("there is no setting `{key}`"), help, origin }
}

/// The key, or section, that was probably meant: the nearest by spelling, or the same name in another section.
fn suggestion(key: &str) -> Option<String> {
    const MOST_EDITS: usize = 4;
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for known in defaults().keys() {
        names.insert(known);
        names.extend(known.match_indices('.').map(|(at, _)| &known[..at]));
    }
    let nearest = names.iter().map(|name| (distance(key, name), *name)).min()?;
    if nearest.0 <= MOST_EDITS.min(key.len() / 3) {
        return Some(nearest.1.to_owned());
    }
    let last = key.rsplit('.').next()?;
    names.into_iter().find(|name| name.rsplit('.').next() == Some(last)).map(str::to_owned)
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
