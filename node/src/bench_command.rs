//! `trunkline bench`: starts a node of its own in a child process, loads it, checks the truth, and prints what a message costs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use bench::load::{self, CpuUse, Environment, Flow, IngressLoad, OpenPlan, Prepared, Report, SaturatePlan, SendLoad, Sink};
use bench::platform::whatsapp::WhatsappSim;
use bench::platform::{SimOptions, StatusDelays, WindowRule};
use serde_json::{Value, json};

use crate::args::{BenchArgs, Scenario};
use crate::dev::Api;

const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";
const PHONE_NUMBER_ID: &str = "106540352242922";
/// Bytes of a webhook's body.
const BODY_BYTES: usize = 1024;
/// Rounds of the comparison with a bare server.
const ROUNDS: usize = 5;
/// Requests of a saturated run, at most: what two cores answer in its time, and room.
const SATURATED_PER_S: f64 = 120_000.0;
/// How long the node may take to listen.
const START_MAX: Duration = Duration::from_secs(20);

/// When nothing was delivered for so long, nothing more comes.
const QUIET: Duration = Duration::from_secs(10);
/// Within this time a change of the directory has reached every process.
const DIRECTORY_REACHES_ALL: Duration = Duration::from_secs(2);

/// The node under test.
struct NodeUnderTest {
    child: Child,
    public: SocketAddr,
    api: Api,
    _dir: tempfile::TempDir,
}

impl Drop for NodeUnderTest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl NodeUnderTest {
    async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("bench.toml");
        let own = format!(
            r#"[node]
data_dir = "{0}/data"
[listen]
public = "127.0.0.1:0"
admin = "127.0.0.1:0"
[auth]
bootstrap_key_file = "{0}/key"
[telemetry]
log_format = "json"
[channels.whatsapp]
per_number = "100000/s"
per_pair = "100000/s"
[limits]
api_per_key = "1000000/s"
[quotas]
api_requests = 1_000_000
messages = 1_000_000
waiting_sends = 100_000_000
[webhooks]
allow_http = true
allow_private = ["127.0.0.0/8"]
"#,
            dir.path().display()
        );
        let mut config = match &args.config {
            Some(file) => read_table(file)?,
            None => toml::Table::new(),
        };
        lay_over(&mut config, own.parse().context("the bench's own configuration")?);
        std::fs::write(&path, config.to_string())?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--config"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let (found, address) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let value: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
                if value["msg"] == "listening"
                    && let Some(found) = found.take()
                {
                    let _ = found.send(value["public"].as_str().and_then(|text| text.parse().ok()));
                } else {
                    eprintln!("{line}");
                }
            }
        });
        let Ok(Ok(Some(public))) = tokio::time::timeout(START_MAX, address).await else {
            let _ = child.kill();
            bail!("the node under test never listened");
        };
        let Ok(key) = std::fs::read_to_string(dir.path().join("key")) else {
            let _ = child.kill();
            bail!("the store of --config has an admin key already, which is written only once: take a keyspace and topics of their own");
        };
        let api = Api::new(public, key.trim());
        Ok(Self { child, public, api, _dir: dir })
    }

    async fn account(&self, platform: &WhatsappSim) -> anyhow::Result<String> {
        let account = json!({"channel": "whatsapp", "name": "bench", "api_base": platform.url(), "phone_number_id": PHONE_NUMBER_ID,
            "access_token": "bench-token", "app_secret": APP_SECRET, "verify_token": "bench"});
        let made = self.api.post("/v1/accounts", &account).await?;
        Ok(made["id"].as_str().context("the account came without its id")?.to_owned())
    }

    async fn endpoint(&self, url: &str) -> anyhow::Result<()> {
        let endpoint = json!({"name": "sink", "url": url, "events": ["message.received"]});
        self.api.post("/v1/endpoints", &endpoint).await.map(|_| ())
    }
}

fn read_table(file: &Path) -> anyhow::Result<toml::Table> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    text.parse().with_context(|| format!("{} is no TOML", file.display()))
}

/// What stands above wins.
fn lay_over(beneath: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (beneath.get_mut(&key), value) {
            (Some(toml::Value::Table(lower)), toml::Value::Table(upper)) => lay_over(lower, upper),
            (_, value) => {
                beneath.insert(key, value);
            }
        }
    }
}

async fn platform() -> anyhow::Result<WhatsappSim> {
    let options = SimOptions {
        credential: "bench-token".into(),
        secret: APP_SECRET.into(),
        account: PHONE_NUMBER_ID.into(),
        window: WindowRule::Ignore,
        statuses: StatusDelays::NONE,
        ..SimOptions::default()
    };
    Ok(WhatsappSim::start(options).await?)
}

/// Runs a scenario.
pub async fn run(args: &BenchArgs, json: bool) -> anyhow::Result<ExitCode> {
    match args.scenario {
        Scenario::Ratio => ratio(args, json).await,
        Scenario::Ingress => ingress(args, json).await,
        Scenario::Send => send(args, json).await,
    }
}

fn ingress_load(args: &BenchArgs, url: String, requests: usize) -> anyhow::Result<Prepared> {
    eprintln!("signing {requests} webhooks …");
    let load = IngressLoad {
        url,
        app_secret: APP_SECRET.into(),
        phone_number_id: PHONE_NUMBER_ID.into(),
        run: std::process::id(),
        requests,
        conversations: args.conversations,
        body_bytes: BODY_BYTES,
    };
    Ok(Prepared::ingress(&load)?)
}

/// As fast as the connections allow, against a bare hyper server in turns.
async fn ratio(args: &BenchArgs, json: bool) -> anyhow::Result<ExitCode> {
    let platform = platform().await?;
    let node = NodeUnderTest::start(args).await?;
    let account = node.account(&platform).await?;
    let seconds = args.duration.as_secs_f64().max(1.0);
    let requests = args.rate.map_or(SATURATED_PER_S, f64::from) * seconds;
    let load = ingress_load(args, format!("http://{}/hooks/whatsapp/{account}", node.public), requests as usize)?;
    let mut bare = Command::new(std::env::current_exe()?);
    bare.args(["bench-bare", "--addr", "127.0.0.1:0"]);
    let plan = SaturatePlan {
        load,
        gateway_pid: node.child.id(),
        connections: args.connections,
        threads: 2,
        rounds: ROUNDS,
        round_max: Duration::from_secs_f64(seconds / (ROUNDS + 1) as f64),
        bare,
    };
    let report = load::saturate(plan).await?;
    println!("{}", if json { serde_json::to_string_pretty(&report)? } else { report.to_text() });
    Ok(if report.is_valid() { ExitCode::SUCCESS } else { ExitCode::from(5) })
}

/// A fixed schedule of webhooks, delivered to one subscriber.
async fn ingress(args: &BenchArgs, json: bool) -> anyhow::Result<ExitCode> {
    let platform = platform().await?;
    let node = NodeUnderTest::start(args).await?;
    let account = node.account(&platform).await?;
    let sink = if args.subscribers > 0 { Some(Sink::start("sink").await?) } else { None };
    if let Some(sink) = &sink {
        node.endpoint(&sink.url()).await?;
    }
    if args.config.is_some() {
        // The routers may be other processes, which know the endpoint only then.
        tokio::time::sleep(DIRECTORY_REACHES_ALL).await;
    }
    let rate = f64::from(args.rate.unwrap_or(2000));
    let requests = (rate * args.duration.as_secs_f64()) as usize;
    let load = ingress_load(args, format!("http://{}/hooks/whatsapp/{account}", node.public), requests)?;
    let before = CpuUse::of(node.child.id())?;
    let run = load::open_loop(&load, OpenPlan { connections: args.connections, ..OpenPlan::at(rate) }).await?;
    let mut truth = None;
    let mut onward = None;
    let mut flow = None;
    if let Some(sink) = &sink {
        wait_delivered(sink, run.count(bench::checker::Answer::Accepted)).await;
        let deliveries = sink.deliveries();
        flow = Some(Flow::of(&run, &deliveries));
        truth = Some(load::check(&run.operations, &deliveries));
        onward = Some(load::accept_to_subscriber(&run.operations, &deliveries));
    } else {
        settle(&node).await;
    }
    let cpu = CpuUse::of(node.child.id())?.since(&before);
    let report = Report::new("ingress", rate, &run, truth, onward.as_ref(), Environment::look(None)).with_flow(flow);
    finish(&report, &cpu, json)
}

/// A fixed schedule of sends.
async fn send(args: &BenchArgs, json: bool) -> anyhow::Result<ExitCode> {
    let platform = platform().await?;
    let node = NodeUnderTest::start(args).await?;
    let account = node.account(&platform).await?;
    platform.set_hook(&format!("http://{}/hooks/whatsapp/{account}", node.public));
    eprintln!("opening {} windows …", args.conversations);
    let open = IngressLoad {
        url: format!("http://{}/hooks/whatsapp/{account}", node.public),
        app_secret: APP_SECRET.into(),
        phone_number_id: PHONE_NUMBER_ID.into(),
        run: std::process::id() + 1,
        requests: args.conversations,
        conversations: args.conversations,
        body_bytes: BODY_BYTES,
    };
    load::open_loop(&Prepared::ingress(&open)?, OpenPlan { warmup: Duration::ZERO, ..OpenPlan::at(2000.0) }).await?;
    for conversation in 0..args.conversations {
        platform.open_window(&load::phone(conversation as u32), platform.now());
    }
    settle(&node).await;
    let rate = f64::from(args.rate.unwrap_or(500));
    let requests = (rate * args.duration.as_secs_f64()) as usize;
    let load = SendLoad {
        url: format!("http://{}/v1/messages", node.public),
        key: node.api.key().to_owned(),
        account,
        run: std::process::id(),
        requests,
        conversations: args.conversations,
    };
    let before = CpuUse::of(node.child.id())?;
    let run = load::open_loop(&Prepared::sends(&load)?, OpenPlan { connections: args.connections, ..OpenPlan::at(rate) }).await?;
    platform.wait_accepted(requests, Duration::from_secs(60)).await;
    let cpu = CpuUse::of(node.child.id())?.since(&before);
    let calls = platform.calls();
    let truth = load::check_sends(&run.operations, &calls);
    let onward = load::accept_to_platform(&run.operations, &calls);
    let report = Report::new("send", rate, &run, Some(truth), Some(&onward), Environment::look(None));
    finish(&report, &cpu, json)
}

/// Until the node has been idle for a moment.
async fn settle(node: &NodeUnderTest) {
    let mut last = f64::MAX;
    for _ in 0..120 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let Ok(now) = load::cpu_seconds(node.child.id()) else { return };
        if now - last < 0.02 {
            return;
        }
        last = now;
    }
}

/// Until as much was delivered as was accepted, or nothing more comes.
async fn wait_delivered(sink: &Sink, accepted: u64) {
    let mut before = 0;
    while !sink.wait_count(accepted, QUIET).await {
        let now = sink.inbox().count();
        if now == before {
            return;
        }
        before = now;
    }
}

fn finish(report: &Report, cpu: &CpuUse, json: bool) -> anyhow::Result<ExitCode> {
    let messages = report.accepted.max(1) as f64;
    if json {
        println!("{}", report.to_json());
    } else {
        println!("{}", report.to_text());
        println!("cpu of the node: {:.1} us a message", cpu.seconds * 1e6 / messages);
        let mut threads: Vec<_> = cpu.threads.iter().collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        for (name, seconds) in threads.iter().take(8) {
            println!("  {name:16} {:.1} us", **seconds * 1e6 / messages);
        }
    }
    Ok(if report.is_valid() { ExitCode::SUCCESS } else { ExitCode::from(5) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bench_lies_over_the_file() {
        let mut config: toml::Table =
            "[node]\nroles = [\"gateway\"]\ndata_dir = \"theirs\"\n[log]\nurl = \"kafka://b:9092\"".parse().unwrap();
        lay_over(&mut config, "[node]\ndata_dir = \"ours\"\n[auth]\nbootstrap_key_file = \"key\"".parse().unwrap());
        let wanted: toml::Table = "[auth]\nbootstrap_key_file = \"key\"\n[log]\nurl = \"kafka://b:9092\"\n\
            [node]\ndata_dir = \"ours\"\nroles = [\"gateway\"]"
            .parse()
            .unwrap();
        assert_eq!(config, wanted);
    }
}
