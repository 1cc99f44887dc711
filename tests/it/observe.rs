//! What an SRE sees: health, metrics, logs, dev mode and the command line.

use std::process::{Command, Stdio};
use std::time::Duration;

use bench::http::Client;
use messaging::clock::Clock;
use system_tests::{PHONE, Setup, System, binary};

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics() {
    let system = System::start().await;
    system.whatsapp.customer_writes(PHONE, "hi").await;
    system.event("message.received", |_| true).await;
    let id = system.send(system.text(PHONE, "x")).await;
    system.until_status(&id, "read").await;
    assert_eq!(system.admin("/livez").await.status, 200);
    assert_eq!(system.admin("/readyz?verbose").await.status, 200);
    let text = String::from_utf8(system.admin("/metrics").await.body.to_vec()).unwrap();
    for family in [
        r#"trunkline_ingress_events_total{channel="whatsapp",kind="message",outcome="accepted"} 1"#,
        r#"trunkline_webhook_attempts_total{outcome="success"}"#,
        r#"trunkline_platform_requests_total{channel="whatsapp",operation="send",outcome="ok"} 1"#,
        "trunkline_lost_records_total 0",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(family), "{family} is missing");
    }
    for secret in [PHONE, &system.wa_account, &system.endpoint, "ten_"] {
        assert!(!text.contains(secret), "{secret} is in the metrics");
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there: tests/run fetches it");
    std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "promtool says: {said}");
}

/// At the default level, and at the one that shows the most: whoever looks for a fault must not find people.
#[tokio::test(flavor = "multi_thread")]
async fn logs_hold_no_personal_data() {
    for log_filter in ["info", "trace"] {
        let mut system = System::with(Setup { log_filter, ..Setup::default() }).await;
        system.whatsapp.customer_writes(PHONE, "a very private text").await;
        system.event("message.received", |_| true).await;
        system.inbox.down().await;
        let id = system.send(system.text(PHONE, "another private text")).await;
        system.until_status(&id, "read").await;
        system.call("POST", "/v1/messages", &[], "{bad").await;
        assert_eq!(system.process.terminate().await, Some(0));
        let log = system.process.log();
        assert_eq!(log.contains("\"level\":\"debug\""), log_filter == "trace", "the filter is heard");
        for canary in [PHONE, "private text", "sim-secret", "sim-token", &system.key, &system.secret] {
            let found = log.lines().find(|line| line.contains(canary));
            assert_eq!(found, None, "{log_filter}: the log holds {canary}");
        }
    }
}

/// Families that move only where something breaks, or where another backend works: the test that moves each, or why none can.
const MOVED_ELSEWHERE: &[(&str, &str)] = &[
    ("trunkline_lost_records_total", "must stay 0: the end of every test asks for it"),
    ("trunkline_panics_total", "router/tests: planted panics"),
    ("trunkline_task_restarts_total", "router/tests/supervision.rs, and whatever else panics"),
    ("trunkline_http_shed_total", "gateway/src/testing/server.rs: the slow are cut off"),
    ("trunkline_draining", "the process ends right after"),
    ("trunkline_log_spool_records", "tests/cluster: kafka_away"),
    ("trunkline_log_producer_queue_records", "a queue that is empty whenever it is looked at: bench"),
    ("trunkline_log_rebalances_total", "tests/cluster: routers come and go"),
    ("trunkline_log_errors_total", "messaging: the embedded log's and Kafka's tests of faults"),
    ("trunkline_router_holds_total", "router/src/crowd.rs: a crowded endpoint"),
    ("trunkline_platform_circuit_transitions_total", "router/src/breaker.rs, and whichever platform is down for long"),
    ("trunkline_platform_credential_expiry_timestamp_seconds", "tests/it/tiktok.rs: tokens that end"),
    ("trunkline_account_works", "tests/it/discord.rs: a connection"),
    ("trunkline_account_work_ends_total", "tests/it/discord.rs: a connection that ends"),
    ("trunkline_media_bytes_total", "tests/it/media.rs"),
    ("trunkline_media_failures_total", "tests/it/media/hostile.rs"),
    ("trunkline_media_stored_bytes", "tests/it/media.rs"),
    ("trunkline_dead_letters_total", "tests/it/bad_input.rs"),
    ("trunkline_quota_refusals_total", "gateway/src/testing/quotas.rs"),
    ("trunkline_ratelimit_degraded", "messaging/tests/limit_redis: outages"),
    ("trunkline_store_retries_total", "messaging/tests/store_scylla: a node that is away"),
    ("trunkline_store_expired_rows_total", "messaging/src/store/embedded/tests/retention.rs"),
    ("trunkline_store_requests_in_flight", "requests end faster than they are looked at"),
    ("trunkline_store_fsync_duration_seconds", "the embedded log's only"),
    ("trunkline_log_consumer_lag_records", "records are read faster than they are looked at: bench"),
    ("trunkline_log_consumer_lag_seconds", "records are read faster than they are looked at: bench"),
    ("trunkline_runtime_queue_tasks", "tasks run faster than they are looked at: bench"),
];

/// A family that never moves is a zero that lies. A busy system moves all but a few, and each of those has its reason.
#[tokio::test(flavor = "multi_thread")]
async fn every_family_moves() {
    let system = System::start().await;
    system.whatsapp.customer_writes(PHONE, "hi").await;
    system.event("message.received", |_| true).await;
    let id = system.send(system.text(PHONE, "x")).await;
    system.until_status(&id, "read").await;
    // Twice the same, a refusal, a wrong signature, a request without a key, a batch, an endpoint that fails, a scheduled send.
    let body = system.text(PHONE, "once").to_string();
    for _ in 0..2 {
        system.call("POST", "/v1/messages", &[("idempotency-key", "k-1")], &body).await;
    }
    system.call("POST", "/v1/messages", &[], &system.text("15559999", "never wrote").to_string()).await;
    let client = Client::new(Duration::from_secs(10));
    let hook = system.hook("whatsapp", &system.wa_account);
    let forged = client.post(&hook, &[("x-hub-signature-256", "sha256=00")], "{}").await.expect("an answer");
    assert_eq!(forged.status, 403);
    system.inbox.down().await;
    system.whatsapp.customer_writes(PHONE, "the endpoint is down").await;
    let later = system.clock.now().plus(Duration::from_secs(3600)).to_string();
    let mut scheduled = system.text(PHONE, "later");
    scheduled["send_at"] = later.into();
    system.call("POST", "/v1/messages", &[], &scheduled.to_string()).await;
    // One person may get so many at once, and then one every six seconds: the others wait.
    for _ in 0..60 {
        system.send(system.text(PHONE, "too many")).await;
    }
    let mut missing = Vec::new();
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        system.whatsapp.customer_writes(PHONE, "again").await;
        let text = String::from_utf8(system.admin("/metrics").await.body.to_vec()).unwrap();
        missing = unmoved(&text);
        if missing.is_empty() {
            break;
        }
    }
    assert!(missing.is_empty(), "these never moved: {missing:#?}");
}

/// Families all of whose samples are 0, without those that have a reason.
fn unmoved(exposition: &str) -> Vec<&'static str> {
    let moved = |name: &str| {
        exposition.lines().filter(|line| !line.starts_with('#')).any(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            let rest = rest.strip_prefix("_count").unwrap_or(rest);
            let is_sample = rest.starts_with('{') || rest.starts_with(' ');
            is_sample && line.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok_and(|value| value != 0.0))
        })
    };
    let names = messaging::metrics::FAMILIES.iter().map(|family| family.name());
    names.filter(|name| !MOVED_ELSEWHERE.iter().any(|(known, _)| known == name) && !moved(name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_the_log_filter_for_a_while() {
    let system = System::with(Setup { access_log_sample: 1.0, ..Setup::default() }).await;
    let client = Client::new(Duration::from_secs(10));
    let filter = async |method: &str, body: &str| {
        let url = format!("http://{}/admin/log-filter", system.process.admin);
        let authorization = format!("Bearer {}", system.key);
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let method = method.parse().expect("a method");
        let answer = client.send(method, &url, &headers, body.to_owned().into()).await.expect("an answer");
        (answer.status, serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default())
    };
    let table = [
        ("GET", "", 200, "info"),
        ("PUT", r#"{"filter": "info,router=trace", "for": "10m"}"#, 200, "info,router=trace"),
        ("PUT", r#"{"filter": "info,router"}"#, 422, "info,router=trace"),
        ("PUT", r#"{"filter": "debug", "for": "25h"}"#, 422, "info,router=trace"),
        ("DELETE", "", 200, "info"),
        ("PUT", r#"{"filter": "debug", "for": "1s"}"#, 200, "debug"),
    ];
    for (method, body, status, holds) in table {
        assert_eq!(filter(method, body).await.0, status, "{method} {body}");
        assert_eq!(filter("GET", "").await.1["filter"], holds, "{method} {body}");
    }
    let mut ended = false;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ended = filter("GET", "").await.1 == serde_json::json!({"filter": "info", "for_s": null});
        if ended {
            break;
        }
    }
    assert!(ended, "the configured filter holds again by itself");
    let log = system.process.log();
    let line = log.lines().find(|line| line.contains("\"target\":\"access\"")).expect("an access line");
    for member in ["\"route\":", "\"code\":", "\"duration_s\":", "\"request_id\":"] {
        assert!(line.contains(member), "{member} is missing: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_an_idle_process() {
    let system = System::start().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", system.process.pid())).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = rss.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(kib < 60 * 1024, "an idle process takes {} MiB", kib / 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_and_the_command_line() {
    let runtime = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.args(args).env("XDG_RUNTIME_DIR", runtime.path()).env_remove("TRUNKLINE_URL").env_remove("TRUNKLINE_KEY");
        command
    };
    let mut dev = run(&["dev", "--set", "listen.public=127.0.0.1:0", "--set", "listen.admin=127.0.0.1:0", "--set", "drain.announce=100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = dev.stdout.take().unwrap();
    let (found, banner) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)).map_while(Result::ok) {
            text.push_str(&line);
            text.push('\n');
            if line.contains("Not for production") {
                break;
            }
        }
        let _ = found.send(text);
    });
    let banner = tokio::time::timeout(Duration::from_secs(20), banner).await.expect("a banner").unwrap();
    for part in ["tl_sk_", "whsec_", "/metrics", "trunkline send", "trunkline listen", "curl"] {
        assert!(banner.contains(part), "{part} is missing in the banner:\n{banner}");
    }
    let output = run(&["send", "--to", "+15550100", "--text", "hello", "--wait"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for step in ["accepted", "sent", "delivered", "read"] {
        assert!(said.contains(step), "{step} is missing: {said}");
    }
    let output = run(&["account", "list", "--json"]).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("whatsapp"));
    let output = run(&["send", "--to", "+15559999", "--text", "never wrote"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "outside the window: {}", String::from_utf8_lossy(&output.stderr));
    Command::new("kill").args(["-INT", &dev.id().to_string()]).status().unwrap();
    let ended = tokio::task::spawn_blocking(move || dev.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0), "Ctrl-C drains");
}

#[test]
fn usage_and_configuration_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "[listne]\npublic = 1\n").unwrap();
    let bad = bad.to_str().unwrap();
    let table: [(&[&str], i32, &str); 7] = [
        (&["version"], 0, ""),
        (&[], 0, ""),
        (&["config", "defaults"], 0, ""),
        (&["nonsense"], 2, "nonsense"),
        (&["serve", "--config", bad], 3, "listne"),
        (&["check-config", "--config", bad], 3, "listne"),
        (&["serve", "--config", "/nonexistent.toml"], 3, "nonexistent"),
    ];
    for (args, code, said) in table {
        let output = Command::new(binary()).args(args).env("XDG_RUNTIME_DIR", dir.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
}
