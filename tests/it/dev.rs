//! `trunkline dev`, by what it prints: every platform is simulated, its customer can write and be written to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bench::http::Client;
use messaging::channels::ChannelKind;
use serde_json::{Value, json};
use system_tests::{PATIENCE, binary};

/// The last line of what `dev` prints begins so.
const LAST_LINE: &str = "Not for production";

/// A running `trunkline dev`, and what it printed.
struct Dev {
    child: Child,
    /// Where its runtime file stands: a user of its own.
    user: tempfile::TempDir,
    printed: Vec<String>,
    client: Client,
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A platform as the print-out names it.
struct Platform {
    url: String,
    account: String,
    to: String,
}

impl Dev {
    fn start(flags: &[&str]) -> Self {
        let user = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(binary())
            .args(["dev", "--port", "0", "--set", "listen.admin=127.0.0.1:0", "--seed", "7"])
            .args(flags)
            .env("XDG_RUNTIME_DIR", user.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let (told, lines) = std::sync::mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        let mut dev = Self { child, user, printed: Vec::new(), client: Client::new(PATIENCE) };
        while !dev.printed.last().is_some_and(|line| line.starts_with(LAST_LINE)) {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => dev.printed.push(line),
                Err(error) => panic!("{error}; it printed {:#?}", dev.printed),
            }
        }
        dev
    }

    fn platforms(&self) -> BTreeMap<String, Platform> {
        let mut found = BTreeMap::new();
        for line in self.printed.iter().filter(|line| line.starts_with("    ")) {
            if let [name, url, hook, to] = line.split_whitespace().collect::<Vec<_>>()[..]
                && let Some(account) = hook.strip_prefix(&format!("/hooks/{name}/"))
            {
                found.insert(name.to_owned(), Platform { url: url.into(), account: account.into(), to: to.into() });
            }
        }
        found
    }

    /// What follows a word of the print-out.
    fn after(&self, word: &str) -> Option<&str> {
        let mut words = self.printed.iter().flat_map(|line| line.split_whitespace());
        words.find(|one| *one == word)?;
        words.next()
    }

    /// A command of the same user, who has set nothing.
    async fn trunkline(&self, line: &[&str]) -> (Option<i32>, String) {
        let mut command = tokio::process::Command::new(binary());
        command.args(line).env("XDG_RUNTIME_DIR", self.user.path()).env_remove("TRUNKLINE_URL").env_remove("TRUNKLINE_KEY");
        let output = command.output().await.expect("the command runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Waits until the inbox shows an event.
    async fn event(&self, wanted: impl Fn(&Value) -> bool) {
        let inbox = self.after("Inbox").expect("there is an inbox");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while tokio::time::Instant::now() < deadline {
            let shown = self.client.get(&format!("{inbox}/events")).await.expect("the inbox answers");
            let shown: Vec<Value> = serde_json::from_slice(&shown.body).expect("JSON");
            if shown.iter().any(|one| wanted(&one["body"])) {
                return;
            }
            seen = shown.iter().map(|one| one["body"]["type"].to_string()).collect();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never came; seen: {seen:?}");
    }

    async fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        for _ in 0..1_000 {
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert_eq!(status.code(), Some(0));
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_platform_is_simulated_both_ways() {
    let dev = Dev::start(&[]);
    let platforms = dev.platforms();
    let names: Vec<&str> = platforms.keys().map(String::as_str).collect();
    let mut all: Vec<&str> = ChannelKind::ALL.iter().map(|kind| kind.name()).collect();
    all.sort_unstable();
    assert_eq!(names, all, "{:#?}", dev.printed);
    assert!(dev.printed.len() < 22, "the first thing that a user sees stays short");
    for (name, platform) in &platforms {
        let said = format!("written to {name}");
        let from = if name == "email" { "grace@example.com" } else { "+15550142" };
        let written = json!({ "from": from, "text": said }).to_string();
        let answer = dev.client.post(&format!("{}/sim/message", platform.url), &[], written).await.expect("the simulator answers");
        assert_eq!(answer.status, 202, "{name}: {}", String::from_utf8_lossy(&answer.body));
        let about = |event: &Value| event["data"]["account"] == platform.account.as_str();
        dev.event(|event| about(event) && event["data"].to_string().contains(&said)).await;
        let (code, told) = dev.trunkline(&["send", "--to", &platform.to, "--text", "hello", "--wait"]).await;
        assert_eq!(code, Some(0), "{name}: {told}");
        dev.event(|event| about(event) && event["type"] == "message.sent").await;
    }
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_is_simulated_and_kept_accounts_go_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = Path::new(folder.path()).to_str().expect("a plain path");
    let dev = Dev::start(&["--data", data, "--set", "dev.simulate=telegram,tiktok", "--set", "dev.inbox=false"]);
    let first = dev.platforms();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["telegram", "tiktok"]);
    assert_eq!(dev.after("Inbox"), None, "{:#?}", dev.printed);
    assert!(dev.printed.iter().any(|line| line.contains("trunkline send --to 4711 ")), "what to try can be tried: {:#?}", dev.printed);
    let (code, told) = dev.trunkline(&["endpoint", "list", "--json"]).await;
    assert!(code == Some(0) && !told.contains("inbox"), "{told}");
    dev.stop().await;

    let dev = Dev::start(&["--data", data, "--set", "channels.discord.enabled=false"]);
    let again = dev.platforms();
    assert_eq!(again.len(), ChannelKind::ALL.len() - 1, "a channel that is off is not simulated");
    for (name, platform) in &first {
        assert_eq!(again[name].account, platform.account, "{name}");
        let (code, told) = dev.trunkline(&["send", "--to", &platform.to, "--text", "again", "--wait"]).await;
        assert_eq!(code, Some(0), "{name}: {told}");
    }
    dev.stop().await;
}
