//! Every fault of a configuration: its message, and its cure.

use super::*;

/// One fault each: (what is set in the file, message, help).
const FAULTS: &[(&str, &str, &str)] = &[
    // Keys that do not exist.
    ("[log]\npartitons = 4", "there is no setting `log.partitons`", "did you mean `log.partitions`?"),
    ("[lgo]\npartitions = 4", "there is no setting `lgo`", "`trunkline config defaults` prints every key"),
    ("[webhook]\ntimeout = \"5s\"", "there is no setting `webhook`", "did you mean `webhooks`?"),
    ("data_dir = \"/x\"", "there is no setting `data_dir`", "did you mean `node.data_dir`?"),
    (
        "[limits]\nmessages_per_tenant = \"9/s\"",
        "`limits.messages_per_tenant` cannot be set",
        "it is quotas.messages now, a whole number: messages a second",
    ),
    ("[quotas]\napi_requests = 0", "`quotas.api_requests`: 0 is out of range", "write a whole number from 1 to 1000000000"),
    ("[router]\nsegment = 4", "there is no setting `router.segment`", "did you mean `log.embedded.segment`?"),
    ("[log]\nembedded = true", "`log.embedded` is a section, not a key", "write [log.embedded] and the keys under it"),
    ("log = \"embedded:\"", "`log` is a section, not a key", "write [log] and the keys under it"),
    // Values of the wrong kind.
    ("[http]\nbody_timeout = 15", "`http.body_timeout`: 15 is not a text", "write a duration in quotation marks, such as \"5s\""),
    (
        "[http]\nbody_timeout = \"15\"",
        "`http.body_timeout`: \"15\" has no unit",
        "write a number and a unit (us, ms, s, m, h, d), such as \"5s\" or \"1h30m\"",
    ),
    ("[http]\nbody_timeout = \"0s\"", "`http.body_timeout`: \"0s\" is too short", "write at least \"1ms\""),
    (
        "[http]\nmax_api_body = \"64MB\"",
        "`http.max_api_body`: \"64MB\" is no size",
        "write a whole number and a unit (B, KiB, MiB, GiB, TiB), such as \"64MiB\"",
    ),
    ("[http]\nmax_api_body = \"1B\"", "`http.max_api_body`: \"1B\" is out of range", "write a size from 1024 to 67108864 bytes"),
    ("[http]\nhttp2 = \"yes\"", "`http.http2`: \"yes\" is not true or false", "write true or false, without quotation marks"),
    ("[log]\npartitions = 64", "`log.partitions`: 64 is out of range", "write a whole number from 1 to 32"),
    ("[log]\npartitions = \"4\"", "`log.partitions`: \"4\" is not a whole number", "write a whole number from 1 to 32"),
    ("[log]\npartitions = -1", "`log.partitions`: -1 is out of range", "write a whole number from 1 to 32"),
    (
        "[telemetry]\nlog_filter = \"info,router\"",
        "`telemetry.log_filter`: \"info,router\" has no level",
        "write off, error, warn, info, debug or trace, such as \"info\" or \"info,router=debug\"",
    ),
    (
        "[telemetry]\nlog_filter = \"info, router=debug\"",
        "`telemetry.log_filter`: \"info, router=debug\" names no module",
        "write modules by their path and without spaces, such as \"info,router=debug\"",
    ),
    (
        "[telemetry]\nlog_filter = \"router[step]=debug\"",
        "`telemetry.log_filter`: \"router[step]=debug\" names no module",
        "write modules by their path and without spaces, such as \"info,router=debug\"",
    ),
    ("[webhooks]\njitter = 1.5", "`webhooks.jitter`: 1.5 is out of range", "write a number from 0 to 1"),
    ("[limits]\napi_per_key = \"80\"", "`limits.api_per_key`: \"80\" is no rate", "write a count and a time, such as \"80/s\" or \"1/6s\""),
    (
        "[listen]\npublic = \"localhost:80\"",
        "`listen.public`: \"localhost:80\" is no address",
        "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
    ),
    ("[log.embedded]\nfsync = \"interval\"", "`log.embedded.fsync`: \"interval\" is none of the choices", "write \"group\" or \"each\""),
    ("[telemetry]\nlog_format = \"xml\"", "`telemetry.log_format`: \"xml\" is none of the choices", "write \"auto\", \"text\" or \"json\""),
    (
        "[dev]\nsimulate = [\"fax\"]",
        "`dev.simulate`: \"fax\" is none of the choices",
        "write \"whatsapp\", \"telegram\", \"messenger\", \"instagram\", \"tiktok\", \"discord\", \"email\" or \"woocommerce\"",
    ),
    ("[dev]\nsimulate = [1]", "`dev.simulate`: [1] is not a list of texts", "write a list of texts, such as [\"…\", \"…\"]"),
    (
        "[webhooks]\nallow_private = [\"10.1.0.0/16\", \"10.1.2.3/16\"]",
        "`webhooks.allow_private`: \"10.1.2.3/16\" has bits beyond its prefix",
        "write 10.1.0.0/16, or 10.1.2.3/32 for the one address",
    ),
    (
        "[listen]\ntrusted_proxies = [\"10.0.0.0/8:80\"]",
        "`listen.trusted_proxies`: \"10.0.0.0/8:80\" has a port",
        "write the network only; proxies call from any port",
    ),
    (
        "[channels.whatsapp]\napi_version = \"23\"",
        "`channels.whatsapp.api_version`: \"23\" is no version",
        "write it as the platform does, such as \"v23.0\"",
    ),
    ("[webhooks]\nuser_agent = \"a\\nb\"", "`webhooks.user_agent`: \"\"\"\na\nb\"\"\" is no header value", "write visible ASCII letters"),
    // What this build has not.
    #[cfg(not(feature = "kafka"))]
    (
        "[log]\nurl = \"kafka://b:9092\"",
        "`log.url`: \"kafka://b:9092\" is not in this build",
        "this program was built for one process only; build it with `cargo build --release --features distributed`",
    ),
    ("[log]\nurl = \"/tmp/log\"", "`log.url`: \"/tmp/log\" is unknown", "write \"embedded:\" or \"kafka://host:9092,host:9092\""),
    #[cfg(not(feature = "scylla"))]
    (
        "[store]\nurl = \"scylla://h/k\"",
        "`store.url`: \"scylla://h/k\" is not in this build",
        "this program was built for one process only; build it with `cargo build --release --features distributed`",
    ),
    #[cfg(not(feature = "redis"))]
    (
        "[limits]\nurl = \"redis://h\"",
        "`limits.url`: \"redis://h\" is not in this build",
        "this program was built for one process only; build it with `cargo build --release --features distributed`",
    ),
    ("[log.kafka]\nacks = \"1\"", "`log.kafka.acks` cannot be set", "it is always \"all\": accepted means durable"),
    (
        "[tls]\ncert_file = \"x\"",
        "`tls` cannot be set",
        "this build does not speak TLS on its listeners; put a TLS proxy in front and name it in listen.trusted_proxies",
    ),
    (
        "[telemetry]\notlp_endpoint = \"x\"",
        "`telemetry.otlp_endpoint` cannot be set",
        "this build writes no traces; use /metrics, and GET /v1/messages/{id} for one message",
    ),
    ("[compat.meta]\nenabled = true", "`compat` cannot be set", "this build has no compatible APIs of platforms; use /v1"),
    // Combinations.
    (
        "[node]\nroles = [\"router\"]",
        "`node.roles` splits the roles, but the log is inside the process",
        "write roles = [\"gateway\", \"router\"], because only one process can hold the embedded log's files; or set log.url = \"kafka://…\"",
    ),
    (
        "[log]\nack = \"memory\"",
        "`log.ack` is \"memory\": accepted events would be lost with the machine, and serve promises that none is",
        "write ack = \"durable\"; many appends share one sync, so it costs little",
    ),
    (
        "[listen]\nadmin = \"0.0.0.0:9090\"",
        "`listen.admin` is 0.0.0.0:9090, which others can reach, and its health and metrics ask for no key",
        "use 127.0.0.1:9090; or guard the port otherwise and set listen.allow_public_admin = true",
    ),
    ("[listen]\nadmin = \"127.0.0.1:8080\"", "`listen.public` and `listen.admin` are both 127.0.0.1:8080", "give each its own port"),
    (
        "[drain]\ntotal = \"30s\"",
        "`drain.total` is 30s, but its parts (announce, requests, router) need 45s",
        "set drain.total to at least \"45s\", or shorten a part",
    ),
    (
        "[node]\npublic_url = \"https://gw.example\"\n[webhooks]\nallow_http = true",
        "`webhooks.allow_http` would send customers' messages over the internet in the clear, and `node.public_url` says that this node is public",
        "take allow_http out; for an endpoint inside your own network, give it a TLS certificate of your own authority",
    ),
    (
        "[dev]\nclock_control = true",
        "`dev.clock_control` would let a caller move the clock of a node that serves",
        "take it out; for a test of serve, put an empty file named `for-tests` into its data_dir first",
    ),
    (
        "[http]\nmax_hook_body = \"8MiB\"",
        "`http.max_hook_body` is larger than `log.max_record`: a body could be taken that the log refuses for ever",
        "raise log.max_record to the same size",
    ),
    (
        "[log.embedded]\nmax_bytes = \"200MiB\"",
        "`log.embedded.max_bytes` has no room for two segments",
        "retention drops whole segments: set log.embedded.segment to half of max_bytes or less",
    ),
    (
        "[log.embedded]\nsegment = \"4MiB\"",
        "`log.embedded.segment` has no room for a record of `log.max_record`",
        "make segments larger than the largest record",
    ),
    ("[webhooks]\nschedule = []", "`webhooks.schedule` has no entry: nothing would be delivered", "write at least [\"0s\"]"),
    (
        "[webhooks]\nschedule = [\"40d\"]",
        "`webhooks.schedule` takes longer than `retention.events`: the last tries would have nothing to deliver",
        "shorten the schedule, or keep events longer",
    ),
    (
        "[webhooks]\nconnect_timeout = \"20s\"",
        "`webhooks.connect_timeout` is longer than `webhooks.timeout`",
        "connecting is a part of the attempt: make it shorter",
    ),
    (
        "[channels.whatsapp]\nwindow_warning = \"24h\"",
        "`channels.whatsapp.window_warning` is not shorter than the window",
        "make it shorter than channels.whatsapp.window",
    ),
    (
        "[media]\nmax = \"2GiB\"\nmax_total = \"1GiB\"",
        "`media.max` is larger than `media.max_total`: a medium could be allowed that never has room",
        "raise media.max_total",
    ),
    (
        "[media]\ndir = \"s3://media/prod\"",
        "the login for the media store is not whole",
        "set endpoint, region, access_key and secret_key_file of [media.s3]",
    ),
    (
        "[media]\ndir = \"s3://x\"\n[media.s3]\nendpoint = \"https://s3.example\"\naccess_key = \"a\"\nsecret_key_file = \"/x\"",
        "`media.dir` is \"s3://x\", which names no bucket",
        "write \"s3://bucket\" or \"s3://bucket/prefix\"",
    ),
    (
        "[auth]\nkey_pepper_file = \"cred:pepper\"",
        "`auth.key_pepper_file`: \"cred:pepper\" needs a credentials folder",
        "start this as a systemd unit with LoadCredential=, or name a file",
    ),
];

#[test]
fn every_fault_has_its_message_and_its_cure() {
    for (file, message, help) in FAULTS {
        let text = refused(&Input { file, ..SERVE });
        assert!(text.starts_with(&format!("error: {message}\n  --> t.toml:")), "{file}\n{text}");
        assert!(text.contains(&format!("\n  = help: {help}\n")), "{file}\n{text}");
        assert!(text.ends_with("\n\nthe configuration is refused"), "exactly one fault: {file}\n{text}");
    }
}
