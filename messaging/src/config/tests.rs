use super::*;

mod faults;

/// A root secret that may be searched for in what is printed.
const PEPPER: &str = "5ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3";

struct Input<'a> {
    mode: RunMode,
    file: &'a str,
    env: &'a [(&'a str, &'a str)],
    flags: &'a [(&'a str, &'a str)],
}

const SERVE: Input<'_> = Input { mode: RunMode::Serve, file: "", env: &[], flags: &[("node.data_dir", "/var/lib/trunkline")] };
const DEV: Input<'_> = Input { mode: RunMode::Dev, file: "", env: &[], flags: &[] };

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads; the file is called `t.toml` in what is printed.
fn load(input: &Input<'_>) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    fs::write(&path, input.file).unwrap();
    let loaded = Config::load(input.mode, Some(&path), owned(input.env).into_iter(), &owned(input.flags));
    loaded.map_err(|errors| errors.to_string().replace(path.to_str().unwrap(), "t.toml"))
}

fn refused(input: &Input<'_>) -> String {
    load(input).map(|_| "not refused".to_owned()).unwrap_or_else(|errors| errors)
}

#[test]
fn the_defaults_serve() {
    let config = load(&SERVE).unwrap().config;
    assert_eq!(config.node.roles, [Role::Gateway, Role::Router]);
    assert!(!config.node.name.is_empty());
    assert_eq!(config.listen.public, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.http.max_hook_body, 4 << 20);
    assert_eq!((config.log.partitions, config.log.max_record, config.log.fsync), (16, 4 << 20, Fsync::Group));
    assert_eq!(config.limits.api_per_key, 1000.0);
    assert_eq!(config.quotas.limits(), crate::quota::Quotas::default());
    assert_eq!(config.webhooks.schedule.len(), 10);
    assert!(!config.webhooks.allow_http && config.webhooks.allow_private.is_empty() && config.webhooks.tls_ca_file.is_none());
    assert!(!config.dev.clock_control && !config.log.skip_damage);
    let whatsapp = &config.channels[&ChannelKind::Whatsapp];
    assert_eq!((whatsapp.per_account, whatsapp.per_pair, whatsapp.api_version.as_str()), (80.0, 1.0 / 6.0, "v23.0"));
    assert_eq!((whatsapp.window, whatsapp.window_warning), (Duration::from_secs(86_400), Duration::from_secs(3_600)));
    let telegram = &config.channels[&ChannelKind::Telegram];
    assert_eq!((telegram.per_account, telegram.per_pair, telegram.api_base.as_str()), (30.0, 1.0, "https://api.telegram.org"));
    let data = Path::new("/var/lib/trunkline");
    assert!(matches!(&config.auth.key_pepper, SecretSource::File { path, create: true } if *path == data.join("keys/pepper")));
    assert_eq!(config.auth.bootstrap_key_file, Some(data.join("keys/bootstrap")));
    let log = config.embedded_log(data);
    assert_eq!((log.dir, log.max_record), (data.join("log"), (4 << 20) + RECORD_OVERHEAD as usize));
    assert_eq!(config.embedded_store(data).cache_bytes, 64 << 20);
}

#[test]
fn dev_needs_nothing_and_calls_this_machine() {
    let config = load(&DEV).unwrap().config;
    assert_eq!(config.node.data_dir, None);
    assert!(matches!(config.auth.key_pepper, SecretSource::Generated) && config.auth.bootstrap_key_file.is_none());
    assert!(config.webhooks.allow_http);
    assert!(config.webhooks.allow_private.iter().any(|network| network.contains("127.0.0.1".parse().unwrap(), 9000)));
    assert!(!config.webhooks.allow_private.iter().any(|network| network.contains("10.0.0.1".parse().unwrap(), 9000)));
    let memory = load(&Input { flags: &[("log.ack", "memory"), ("dev.clock_control", "true")], ..DEV }).unwrap().config;
    assert_eq!(memory.log.fsync, Fsync::Never);
    assert!(memory.dev.clock_control);
    assert_eq!(config.dev.simulate, ChannelKind::ALL, "every platform is simulated");
}

#[test]
fn every_key_stands_in_the_defaults_file_and_is_read() {
    let settings = source::defaults().clone();
    let mut faults = Vec::new();
    let mut reader = reader::Reader::new(&settings, &mut faults, None);
    build::config(RunMode::Dev, &mut reader);
    let asked: Vec<&str> = reader.asked().iter().map(String::as_str).collect();
    let known: Vec<&str> = settings.keys().map(String::as_str).collect();
    assert_eq!(asked, known);
    for key in known {
        let help = help(key).unwrap();
        let text = help.lines().nth(1).unwrap();
        assert!(text.ends_with(['.', ')']) && text.len() > 10, "{key} has no help: {help}");
    }
}

/// In every build: the rows of `FAULTS` that say the same are there only where a driver is not.
#[test]
fn what_is_not_built_is_refused_with_the_cure() {
    let mut settings = source::defaults().clone();
    settings.get_mut("log.url").unwrap().value = "kafka://b:9092".into();
    let mut faults = Vec::new();
    let scheme = backends::Scheme { names: &["kafka://"], built: false, example: "kafka://host:9092" };
    backends::address(&mut reader::Reader::new(&settings, &mut faults, None), "log.url", "embedded:", &scheme);
    let [fault] = faults.as_slice() else { panic!("one fault: {faults:?}") };
    assert_eq!(fault.message, "`log.url`: \"kafka://b:9092\" is not in this build");
    assert!(fault.help.ends_with("build it with `cargo build --release --features distributed`"), "{}", fault.help);
}

#[test]
fn the_defaults_file_is_a_file_that_loads_as_itself() {
    let loaded = load(&Input { file: DEFAULTS, ..SERVE }).unwrap();
    let plain = load(&SERVE).unwrap();
    assert_eq!(loaded.changes(&plain), []);
    let again = load(&Input { file: &plain.render(), ..SERVE }).unwrap();
    assert_eq!(again.changes(&plain), []);
}

#[test]
fn later_layers_win_and_are_named() {
    let file = "[log]\npartitions = 4\n[webhooks]\ntimeout = \"7s\"\nallow_private = [\"10.1.0.0/16:8443\"]\n[http]\nmax_streams = 9\n";
    let env = [
        ("TRUNKLINE__WEBHOOKS__TIMEOUT", "8s"),
        ("TRUNKLINE__LOG__EMBEDDED__MAX_BYTES", "1GiB"),
        ("TRUNKLINE__LISTEN__TRUSTED_PROXIES", "10.0.0.0/8, 192.168.0.0/16"),
        ("TRUNKLINE__WEBHOOKS__SCHEDULE", r#"["1s", "2s"]"#),
        ("TRUNKLINE_SERVICE_HOST", "not ours"),
        ("PATH", "/bin"),
    ];
    let flags = [("node.data_dir", "/data"), ("http.max_streams", "11"), ("http.http2", "false")];
    let loaded = load(&Input { mode: RunMode::Serve, file, env: &env, flags: &flags }).unwrap();
    let config = &loaded.config;
    assert_eq!(config.log.partitions, 4);
    assert_eq!(config.webhooks.timeout, Duration::from_secs(8));
    assert_eq!(config.webhooks.allow_private, [AllowedNetwork { net: "10.1.0.0".parse().unwrap(), prefix: 16, port: Some(8443) }]);
    assert_eq!(config.log.max_bytes, 1 << 30);
    assert_eq!(config.listen.trusted_proxies.len(), 2);
    assert_eq!(config.webhooks.schedule, [Duration::from_secs(1), Duration::from_secs(2)]);
    assert_eq!((config.http.max_streams, config.http.http2), (11, false));

    let origin = |key: &str| {
        let effective = loaded.effective();
        let origin = &effective.iter().find(|setting| setting.key == key).unwrap().origin;
        origin.to_string().rsplit('/').next().unwrap().to_owned()
    };
    assert_eq!(origin("log.partitions"), "t.toml:2:1");
    assert_eq!(origin("webhooks.timeout"), "environment TRUNKLINE__WEBHOOKS__TIMEOUT");
    assert_eq!(origin("http.max_streams"), "command line");
    assert_eq!(origin("http.header_timeout"), "default");
    let dev = load(&DEV).unwrap();
    assert!(dev.render().contains("allow_http = true  # default of dev\n"));
}

#[test]
fn faults_are_shown_like_a_compiler_does_all_at_once() {
    let file = "[log]\n  partitons = 4\n\n[webhooks]\ntimeout = \"soon\"\n";
    let env = [("TRUNKLINE__HTTP__MAX_STREAMS", "many"), ("TRUNKLINE__HTTP__MAX_STEAMS", "1")];
    let text = refused(&Input { mode: RunMode::Serve, file, env: &env, flags: &[("store.retries", "-1")] });
    let expected = r#"error: there is no setting `log.partitons`
  --> t.toml:2:3
   |
 2 |   partitons = 4
   |   ^^^^^^^^^
  = help: did you mean `log.partitions`?

error: there is no setting `http.max_steams`
  --> environment TRUNKLINE__HTTP__MAX_STEAMS
  = help: did you mean `http.max_streams`?

error: `node.data_dir` is empty: serve would keep nothing
  --> default
  = help: set node.data_dir (or TRUNKLINE__NODE__DATA_DIR) to a folder on a disk that survives restarts; `trunkline dev` needs none

error: `http.max_streams`: "many" is not a whole number
  --> environment TRUNKLINE__HTTP__MAX_STREAMS
  = help: write a whole number from 1 to 10000

error: `store.retries`: -1 is out of range
  --> command line
  = help: write a whole number from 0 to 100

error: `webhooks.timeout`: "soon" is no duration
  --> t.toml:5:1
   |
 5 | timeout = "soon"
   | ^^^^^^^
  = help: write a number and a unit (us, ms, s, m, h, d), such as "5s" or "1h30m"

the configuration is refused: 6 errors"#;
    assert_eq!(text, expected);
}

#[test]
fn text_that_is_no_toml_is_shown_where_it_stops_making_sense() {
    for (file, place) in [("[log\npartitions = 4", "t.toml:1:5"), ("[log]\nack = durable", "t.toml:2:7"), ("a = 1\na = 2", "t.toml:2:1")] {
        let text = refused(&Input { file, ..SERVE });
        assert!(text.starts_with("error: not valid TOML: ") && text.contains(&format!("--> {place}")), "{file}\n{text}");
    }
    let missing = Config::load(RunMode::Dev, Some(Path::new("/nowhere/t.toml")), std::iter::empty(), &[]).unwrap_err().to_string();
    assert!(missing.starts_with("error: cannot read /nowhere/t.toml: No such file or directory"), "{missing}");
}

#[test]
fn secrets_are_never_shown() {
    let long = format!("{PEPPER}00");
    for bad in [
        format!("[auth]\nkey_pepper = \"{long}\""),
        format!("[auth]\nkey_pepper = \"{PEPPER}"),
        format!("[auth]\nkey_pepper = [\"{PEPPER}\"]"),
    ] {
        let text = refused(&Input { file: &bad, ..SERVE });
        assert!(!text.contains(&PEPPER[..12]) && text.starts_with("error"), "{text}");
    }
    let file = format!("[auth]\nkey_pepper = \"{PEPPER}\"");
    let loaded = load(&Input { file: &file, ..SERVE }).unwrap();
    let SecretSource::Inline(secret) = &loaded.config.auth.key_pepper else { panic!("the pepper stands in the file") };
    assert_eq!(secret.expose(), PEPPER);
    for text in [loaded.render(), format!("{loaded:?}"), format!("{:?}", loaded.effective()), loaded.explain("auth.key_pepper").unwrap()] {
        assert!(!text.contains(&PEPPER[..12]), "{text}");
    }
    assert!(loaded.render().contains("key_pepper = \"(secret)\""));
    let both = format!("{file}\nkey_pepper_file = \"/x\"");
    assert!(refused(&Input { file: &both, ..SERVE }).contains("are both set"));
}

#[test]
fn secrets_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pepper"), format!("{PEPPER}\n")).unwrap();
    let env = [("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap()), ("TRUNKLINE__AUTH__KEY_PEPPER_FILE", "cred:pepper")];
    let config = load(&Input { env: &env, ..SERVE }).unwrap().config;
    assert_eq!(config.auth.key_pepper.read().unwrap().unwrap().expose(), PEPPER);

    let missing = SecretSource::File { path: folder.path().join("none"), create: false };
    assert!(missing.read().is_err(), "a file that was named must be there");
    let own = SecretSource::File { path: folder.path().join("none"), create: true };
    assert!(own.read().unwrap().is_none(), "one that was not is made");
    for name in ["cred:", "cred:../x", "cred:.."] {
        let env = [("CREDENTIALS_DIRECTORY", "/run"), ("TRUNKLINE__AUTH__KEY_PEPPER_FILE", name)];
        assert!(refused(&Input { env: &env, ..SERVE }).contains("is no credential's name"), "{name}");
    }
}

#[test]
fn what_is_refused_has_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FOR_TESTS_FILE), "").unwrap();
    let allowed = [
        ("listen.admin", "0.0.0.0:9090", "listen.allow_public_admin", "true"),
        ("listen.admin", "[::1]:9090", "http.http2", "true"),
        ("webhooks.allow_http", "true", "node.public_url", "http://gw.example"),
        ("webhooks.allow_http", "true", "node.public_url", "https://localhost:8443"),
        ("webhooks.allow_http", "true", "node.public_url", "https://10.0.0.7"),
        ("drain.total", "30s", "drain.router", "5s"),
        ("http.max_hook_body", "8MiB", "log.max_record", "8MiB"),
        ("log.embedded.max_bytes", "200MiB", "log.embedded.segment", "64MiB"),
        ("dev.clock_control", "true", "node.data_dir", folder.path().to_str().unwrap()),
        ("channels.telegram.enabled", "false", "channels.whatsapp.enabled", "true"),
        ("log.embedded.on_damage", "skip", "log.url", "embedded:"),
    ];
    for (key, value, other, other_value) in allowed {
        let flags = [("node.data_dir", "/var/lib/trunkline"), (key, value), (other, other_value)];
        let loaded = load(&Input { flags: &flags, ..SERVE });
        assert!(loaded.is_ok(), "{key} {other}: {loaded:?}");
    }
    let off = load(&Input { flags: &[("channels.telegram.enabled", "false")], ..DEV }).unwrap();
    let on: Vec<_> = ChannelKind::ALL.iter().filter(|kind| **kind != ChannelKind::Telegram).collect();
    assert_eq!(off.config.channels.keys().collect::<Vec<_>>(), on);
}

#[test]
fn a_key_is_explained() {
    let file = "[limits]\nmax_wait = \"9s\"";
    let loaded = load(&Input { file, ..SERVE }).unwrap();
    let text = loaded.explain("limits.max_wait").unwrap();
    let expected = "limits.max_wait
An interactive send that would wait longer for its account's rate is refused with 429. Bulk and scheduled ones wait.

default  \"30s\"
sets     TRUNKLINE__LIMITS__MAX_WAIT
change   changes on reload
value    \"9s\"
from     ";
    assert!(text.starts_with(expected) && text.ends_with("t.toml:2:1"), "{text}");
    assert_eq!(help("limits.max_wiat").unwrap_err().help, "did you mean `limits.max_wait`?");
    assert_eq!(help("tls.cert_file").unwrap_err().message, "`tls.cert_file` cannot be set");
}

#[test]
fn a_reload_tells_what_changed_and_whether_it_is_live() {
    let before = load(&SERVE).unwrap();
    let flags = [("node.data_dir", "/var/lib/trunkline"), ("limits.max_wait", "5s"), ("log.partitions", "4")];
    let after = load(&Input { flags: &flags, ..SERVE }).unwrap();
    let change = |key: &str, live| Change { key: key.to_owned(), live };
    assert_eq!(before.changes(&after), [change("limits.max_wait", true), change("log.partitions", false)]);
}

proptest::proptest! {
    /// Whatever stands in the file or the environment, loading answers and never panics.
    #[test]
    fn no_text_panics(file in "\\PC{0,60}|\\[(log|auth|webhooks)\\]\n[a-z_]{1,12} = \\PC{0,20}", value in "\\PC{0,20}") {
        let keys: Vec<String> = source::defaults().keys().map(|key| format!("TRUNKLINE__{}", key.to_uppercase().replace('.', "__"))).collect();
        let env: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), value.as_str())).collect();
        let _ = load(&Input { file: &file, env: &env, ..SERVE });
    }
}

/// A process of several: what every one of them is told.
#[cfg(all(feature = "kafka", feature = "scylla", feature = "redis"))]
const SHARED: &str = "[log]\nurl = \"kafka://a:9092,b\"\n[store]\nurl = \"scylla://n1,n2:9043/trunkline\"\n[limits]\nurl = \"redis://r\"\n[auth]\nkey_pepper_file = \"/p\"\n";

#[cfg(all(feature = "kafka", feature = "scylla", feature = "redis"))]
#[test]
fn servers_and_roles_go_together_or_are_refused() {
    let config = load(&Input { file: &format!("{SHARED}[node]\nroles = [\"router\"]"), ..SERVE }).unwrap().config;
    let (LogBackend::Kafka(kafka), StoreBackend::Scylla(scylla)) = (&config.log.backend, &config.store.backend) else {
        panic!("both are servers")
    };
    assert_eq!((kafka.brokers.as_slice(), kafka.topic_prefix.as_str()), (&["a:9092".to_owned(), "b".to_owned()][..], "trunkline."));
    assert_eq!((scylla.hosts.as_slice(), scylla.keyspace.as_str()), (&["n1".to_owned(), "n2:9043".to_owned()][..], "trunkline"));
    let properties = format!("{SHARED}[log.kafka.properties]\n\"security.protocol\" = \"ssl\"\nsocket.keepalive.enable = true");
    let config = load(&Input { file: &properties, ..SERVE }).unwrap().config;
    let LogBackend::Kafka(kafka) = &config.log.backend else { panic!("Kafka") };
    let given: Vec<_> = kafka.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(given, [("security.protocol", "ssl"), ("socket.keepalive.enable", "true")]);
    let cases = [
        (SHARED.replace("scylla://n1,n2:9043/trunkline", "embedded:"), "a router that takes over a shard would not find its rows"),
        (SHARED.replace("key_pepper_file = \"/p\"", ""), "each process would make a root secret of its own"),
        (SHARED.replace("redis://r", "local:") + "[node]\nroles = [\"router\"]", "several routers would send several times"),
        (SHARED.replace("kafka://a:9092,b", "embedded:") + "[node]\nroles = [\"gateway\"]", "the log is inside the process"),
        (SHARED.replace("/trunkline", ""), "`store.url` names no keyspace"),
        (SHARED.replace("/trunkline", "/Trunk-line"), "`store.url` names no keyspace"),
        (SHARED.replace("a:9092,b", "a:9092,,b"), "`log.url` names a server that is no host"),
        (format!("{SHARED}[node]\nroles = []"), "this process would do nothing"),
        (format!("{SHARED}[log.kafka]\nsasl_user = \"u\""), "the login for Kafka is not whole"),
    ];
    for (file, expected) in cases {
        let text = refused(&Input { file: &file, ..SERVE });
        assert!(text.contains(expected), "{file}\n{text}");
    }
}
