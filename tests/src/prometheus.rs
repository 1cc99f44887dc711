//! A real Prometheus beside the system: it scrapes a node every second, works on rules as often, and answers queries.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::http::Client;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::PATIENCE;

/// What the server says once it listens, before the address.
const LISTENS: &str = "msg=\"Listening on\" address=";
/// Lines of its log that a failed test shows.
const LAST_LINES: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A running server. It ends when it is dropped.
pub struct Prometheus {
    child: Child,
    at: SocketAddr,
    client: Client,
    lines: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    /// The time, and the value as text.
    value: (f64, String),
}

impl Prometheus {
    /// Starts the server of the Debian package, of which `tests/run` fetches the program alone. It scrapes an admin listener as job
    /// `trunkline`, with the rules of a folder.
    ///
    /// # Panics
    /// When it is not there, never listens, or its first scrape fails.
    pub async fn start(target: SocketAddr, rules: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules.join("*.rules.yaml")],
            "scrape_configs": [{"job_name": "trunkline", "static_configs": [{"targets": [target.to_string()]}]}],
        });
        // What is JSON is YAML.
        let file = dir.path().join("prometheus.yaml");
        std::fs::write(&file, config.to_string()).expect("the folder takes a file");
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus is there: tests/run fetches it with promtool");
        let stderr = child.stderr.take().expect("stderr is piped");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (found, address) = tokio::sync::oneshot::channel();
        let kept = lines.clone();
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let address = line.split_once(LISTENS).and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
                if let Some(address) = address
                    && let Some(found) = found.take()
                {
                    let _ = found.send(address);
                }
                kept.lock().expect("nobody panics with it").push(line);
            }
        });
        let at = tokio::time::timeout(PATIENCE, address).await;
        let at: Option<SocketAddr> = at.ok().and_then(Result::ok);
        let mut prometheus = Self { child, at: at.unwrap_or(target), client: Client::new(Duration::from_secs(10)), lines, _dir: dir };
        if at.is_none() {
            let _ = prometheus.child.kill();
            panic!("prometheus never listened:\n{}", prometheus.last_lines());
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while prometheus.query("up == 1").await.unwrap_or_default().is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "prometheus never scraped the node:\n{}", prometheus.last_lines());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        prometheus
    }

    /// The values of a query as of now, one for each series.
    ///
    /// # Errors
    /// What the server says against the query, or that it does not answer.
    pub async fn query(&self, text: &str) -> Result<Vec<f64>, String> {
        let url = format!("http://{}/api/v1/query", self.at);
        let body = format!("query={}", utf8_percent_encode(text, NON_ALPHANUMERIC));
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let reply = self.client.post(&url, &form, body).await.map_err(|error| error.to_string())?;
        let answer: Answer = serde_json::from_slice(&reply.body).map_err(|error| format!("{error}, with status {}", reply.status))?;
        let data = answer.data.ok_or_else(|| answer.error.unwrap_or_default())?;
        Ok(data.result.iter().filter_map(|series| series.value.1.parse().ok()).collect())
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        let lines = self.lines.lock().expect("nobody panics with it");
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the last lines of prometheus:\n{}", self.last_lines());
        }
    }
}
