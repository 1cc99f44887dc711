//! The dashboards of `deploy/grafana`: their files are what the table says, they ask for metrics that exist, and every panel's query
//! gives data at a real Prometheus that scraped a loaded node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::http::Client;
use bench::platform::{Answer, PersonsFile, SimOptions, TiktokSim, tiktok};
use bytes::Bytes;
use messaging::metrics::{FAMILIES, RunMode, install};
use serde_json::{Value, json};
use system_tests::boards::{self, Board, EXPLORE_ONLY, Proof, ROLL_OUTS, expression, labels, metrics};
use system_tests::prometheus::Prometheus;
use system_tests::world::World;
use system_tests::{Backend, CHAT, PHONE, Setup, System, fast};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Writes the files instead of comparing them.
const BLESS: &str = "TRUNKLINE_BLESS";
/// How long the queries may take to give data. On a machine that does nothing else it takes a quarter of that.
const DATA_AFTER: Duration = Duration::from_secs(45);
/// How long an endpoint is paused: longer than the objective for first attempts.
const PAUSED_FOR: Duration = Duration::from_secs(6);
/// Customers' messages that wait for that endpoint.
const LATE: u32 = 100;
/// Sends to one person at once: more than WhatsApp's budget of a pair lets through.
const TOO_MANY: usize = 6;
/// Sends to a platform that is down: enough for its circuit.
const FAILING: i64 = 24;
/// Between two rounds of customers and sends, one at each account.
const ROUND: Duration = Duration::from_millis(500);
/// The head of a picture.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
/// Customers of each account, in turn.
const CUSTOMERS: u32 = 20;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = deploy().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of rules, as one text.
fn rules() -> String {
    let entries = std::fs::read_dir(deploy().join("prometheus")).expect("the folder is there");
    let files = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.to_string_lossy().ends_with(".rules.yaml"));
    files.map(read).collect()
}

/// The names that follow a key of the rules, such as `- record: `.
fn named(rules: &str, key: &str) -> BTreeSet<String> {
    rules.lines().filter_map(|line| line.trim().strip_prefix(key)).map(str::to_owned).collect()
}

/// The families that a process exports.
fn exported() -> BTreeSet<String> {
    let exporter = install();
    exporter.build_info("0", "unknown", RunMode::Serve);
    let text = exporter.render();
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

/// The family that a series belongs to.
fn family<'a>(name: &'a str, families: &BTreeSet<String>) -> &'a str {
    let cut = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
    cut.filter(|family| families.contains(*family)).unwrap_or(name)
}

/// (board, panel, what it must give, query)
fn queries(boards: &[Board]) -> Vec<(&str, &str, Proof, &str)> {
    let panels = boards.iter().flat_map(|board| board.panels.iter().map(move |panel| (board.name, panel)));
    panels.flat_map(|(board, panel)| panel.queries.iter().map(move |query| (board, panel.title, panel.proof, query.text))).collect()
}

#[test]
fn the_files_of_the_boards_are_what_the_table_says() {
    let folder = deploy().join("grafana/dashboards");
    let markdown = read("prometheus/runbooks.md");
    let alerts: Vec<&str> = markdown.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut wanted: Vec<(String, String)> =
        boards::boards().iter().map(|board| (format!("{}.json", board.name), boards::dashboard(board, &alerts))).collect();
    wanted.push(("runbooks.json".to_owned(), boards::runbooks(&markdown)));
    if std::env::var_os(BLESS).is_some() {
        std::fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in &wanted {
            std::fs::write(folder.join(name), text).expect("the folder takes a file");
        }
    }
    for (name, text) in &wanted {
        let is = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(is == *text, "{name} is not what the table says: {BLESS}=1 cargo test -p system-tests --test it -- boards writes it");
    }
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let files: BTreeSet<String> = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    assert_eq!(files, wanted.into_iter().map(|(name, _)| name).collect(), "each file is a board of the table");
}

#[test]
fn the_table_keeps_its_rules() {
    let mut names = BTreeSet::new();
    for board in boards::boards() {
        assert!(names.insert(board.name), "{} stands twice", board.name);
        let mut titles = BTreeSet::new();
        for panel in &board.panels {
            let at = format!("{}, {}", board.name, panel.title);
            assert!(titles.insert(panel.title), "{at} stands twice");
            assert!(!panel.queries.is_empty() && panel.note.ends_with('.'), "{at}: a panel has a query and a note");
            assert!(panel.steps.is_sorted_by(|one, next| one.0 < next.0), "{at}: steps rise");
            assert!((1..=24).contains(&panel.width), "{at}: Grafana has 24 columns");
        }
    }
}

#[test]
fn boards_ask_for_what_exists_and_nothing_is_forgotten() {
    let (families, rules, boards) = (exported(), rules(), boards::boards());
    let records = named(&rules, "- record: ");
    let mut used = BTreeSet::new();
    for (board, panel, _, text) in queries(&boards).into_iter().chain([("all", "New versions", Proof::Moves, ROLL_OUTS)]) {
        for name in metrics(text) {
            let is_known = families.contains(family(name, &families)) || records.contains(name) || name == "ALERTS";
            assert!(is_known, "{board}, {panel}: {name} is neither a metric nor a recording rule");
            used.insert(family(name, &families).to_owned());
        }
    }
    let words = rules.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let on_rules: BTreeSet<&str> = words.map(|word| family(word, &families)).collect();
    let shown = |name: &str| used.contains(name) || on_rules.contains(name);
    for name in &families {
        let is_listed = EXPLORE_ONLY.iter().any(|(known, _)| known == name);
        assert!(shown(name) || is_listed, "{name} is on no board, in no rule, and not in EXPLORE_ONLY");
    }
    for (name, _) in EXPLORE_ONLY {
        assert!(families.contains(*name) && !shown(name), "{name} has no place in EXPLORE_ONLY");
    }
}

/// Labels that Prometheus, the rules and the facts of the build give.
const LABELS: [&str; 7] = ["instance", "job", "le", "slo", "alertstate", "version", "revision"];

/// A sum by a label that does not exist is one line without a name.
#[test]
fn labels_exist_and_legends_show_them() {
    let all = exported();
    for board in boards::boards() {
        for (panel, query) in board.panels.iter().flat_map(|panel| panel.queries.iter().map(move |query| (panel, query))) {
            let at = format!("{}, {}", board.name, panel.title);
            let families: Vec<&str> = metrics(query.text).into_iter().map(|name| family(name, &all)).collect();
            let of_families = FAMILIES.iter().filter(|one| families.contains(&one.name())).flat_map(|one| one.labels());
            let known: Vec<&str> = of_families.map(|label| label.name).chain(LABELS).collect();
            let named = labels(query.text);
            for label in &named {
                assert!(known.contains(label), "{at}: {label} is no label of {families:?}");
            }
            let sums = query.text.contains(" by (");
            for label in query.legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
                let is_there = if sums { named.contains(&label) } else { known.contains(&label) };
                assert!(is_there, "{at}: the legend says {label}, which the query does not give");
            }
        }
    }
}

/// What Prometheus gives for a query of the table: none when it is as it should be.
async fn fault(prometheus: &Prometheus, proof: Proof, text: &str) -> Option<String> {
    // As Grafana fills them in: all jobs, and the interval of a scrape every 15 s.
    let text = expression(text).replace("$job", "trunkline").replace("$__rate_interval", "1m");
    match prometheus.query(&text).await {
        Err(error) => Some(error),
        Ok(values) if values.iter().any(|value| proof.accepts(*value)) => None,
        Ok(values) => Some(format!("{} samples, none of them good for {proof:?}: {values:?}", values.len())),
    }
}

/// The numbers that a panel shows are there, and those of a loaded node are not 0.
#[tokio::test(flavor = "multi_thread")]
async fn every_panel_gives_data_of_a_loaded_node() {
    let config = "[http]\nheader_timeout = \"1s\"\n".to_owned();
    let setup = Setup { world: World::crowded(), backend: Some(Backend::Embedded), config, ..Setup::default() };
    let system = System::with(setup).await;
    let prometheus = Prometheus::start(system.process.admin, &deploy().join("prometheus")).await;
    let begun = Instant::now();
    let _held = trouble(&system).await;
    let troubled = Instant::now();
    let boards = boards::boards();
    let mut waiting = queries(&boards);
    waiting.push(("all", "New versions", Proof::Moves, ROLL_OUTS));
    let mut faults = Vec::new();
    let mut is_paused = true;
    for round in 0.. {
        everybody_speaks(&system, round).await;
        if is_paused && troubled.elapsed() > PAUSED_FOR {
            system.ok("POST", &format!("/v1/endpoints/{}/resume", system.endpoint), &Value::Null).await;
            is_paused = false;
        }
        let asked = std::mem::take(&mut waiting);
        faults.clear();
        for (board, panel, proof, text) in asked {
            if let Some(fault) = fault(&prometheus, proof, text).await {
                faults.push(format!("{board}, {panel}: {text}\n    {fault}"));
                waiting.push((board, panel, proof, text));
            }
        }
        if waiting.is_empty() || begun.elapsed() > DATA_AFTER {
            break;
        }
        sleep(ROUND).await;
    }
    assert!(faults.is_empty(), "no data after {:?}:\n{}", begun.elapsed(), faults.join("\n"));
    println!("every panel has data after {:?}", begun.elapsed());
}

/// What a load alone does not move: late deliveries, waiting sends, refusals, media, dead letters, a repeat, a forgery, a platform that is
/// down, a request whose head never ends, a refreshed token. What it gives is held while the queries are asked.
async fn trouble(system: &System) -> (TcpStream, TiktokSim) {
    system.ok("POST", &format!("/v1/endpoints/{}/pause", system.endpoint), &Value::Null).await;
    for chat in CHAT..CHAT + FAILING {
        system.telegram.customer_writes(chat, "hello").await;
    }
    for customer in 0..LATE {
        system.whatsapp.customer_writes(&(15_550_200 + customer).to_string(), "the endpoint is paused").await;
    }
    for bytes in [PNG, b"<html>"] {
        let file = PersonsFile { kind: "image", mime_type: "image/png", filename: None, bytes: Bytes::from_static(bytes) };
        system.whatsapp.customer_sends_file(PHONE, file).await;
    }
    let hook = system.hook("whatsapp", &system.wa_account);
    let client = Client::new(Duration::from_secs(10));
    let (name, signature) = system.whatsapp.signature(b"not json");
    client.post(&hook, &[(name, &signature)], "not json").await.expect("an answer");
    client.post(&hook, &[("x-hub-signature-256", "sha256=00")], "{}").await.expect("an answer");
    system.call("POST", "/v1/messages", &[], &system.text("15559999", "never wrote").to_string()).await;
    let body = system.text(PHONE, "once").to_string();
    for _ in 0..2 {
        system.call("POST", "/v1/messages", &[("idempotency-key", "k-1")], &body).await;
    }
    for _ in 0..TOO_MANY {
        system.call("POST", "/v1/messages", &[], &system.text(PHONE, "too many").to_string()).await;
    }
    system.telegram.standing_answer(Answer::Status(503));
    for chat in CHAT..CHAT + FAILING {
        system.call("POST", "/v1/messages", &[], &to_chat(system, chat).to_string()).await;
    }
    let mut slow = TcpStream::connect(system.process.public).await.expect("the node listens");
    slow.write_all(b"GET / HTTP/1.1\r\n").await.expect("the node reads");
    (slow, refreshed_token(system).await)
}

fn to_chat(system: &System, chat: i64) -> Value {
    json!({"account": system.tg_account, "to": {"chat_id": chat.to_string()}, "type": "text", "text": {"body": "hello"}})
}

/// An account whose token the platform refuses once: it is refreshed, and from then on its end is known.
async fn refreshed_token(system: &System) -> TiktokSim {
    const CONVERSATION: &str = "a1/B+c==";
    let options = SimOptions { statuses: fast(), clock: system.clock.clone(), ..SimOptions::default() };
    let mut account = json!({"channel": "tiktok", "name": "shop", "business_id": options.account, "access_token": options.credential,
        "client_secret": options.secret, "client_key": tiktok::CLIENT_KEY, "refresh_token": tiktok::REFRESH_TOKEN});
    let sim = TiktokSim::start(options).await.expect("a simulator starts");
    account["api_base"] = sim.url().into();
    let made = system.ok("POST", "/v1/accounts", &account).await;
    let account = made["id"].as_str().expect("an account has an id");
    sim.set_hook(&system.hook("tiktok", account));
    sim.customer_writes(CONVERSATION, "hello").await;
    sim.expire_token();
    let send = json!({"account": account, "to": {"conversation_id": CONVERSATION}, "type": "text", "text": {"body": "hello"}});
    let deadline = Instant::now() + DATA_AFTER;
    // Refused while the router does not know of the open window yet.
    while system.call("POST", "/v1/messages", &[], &send.to_string()).await.status != 202 {
        assert!(Instant::now() < deadline, "the window of the conversation never opens");
        sleep(ROUND).await;
    }
    sim
}

/// A customer of every account speaks, and is answered.
async fn everybody_speaks(system: &System, round: u32) {
    let customer = round % CUSTOMERS;
    let chat = CHAT + i64::from(round) % FAILING;
    system.call("POST", "/v1/messages", &[], &to_chat(system, chat).to_string()).await;
    for place in system.places() {
        system.customer_says(place, customer, "hello").await;
        let authorization = format!("Bearer {}", system.key_of(place.tenant));
        let send = system.send_to(place, customer, "hello to you").to_string();
        system.call("POST", "/v1/messages", &[("authorization", &authorization)], &send).await;
    }
}
