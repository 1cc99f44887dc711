//! What an SRE sees: health, metrics, logs, dev mode and the command line.

use std::process::{Command, Stdio};
use std::time::Duration;

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
