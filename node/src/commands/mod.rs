//! The commands that talk to a running trunkline: thin clients of `/v1` and of the admin listener.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::args::{Cli, Command, SHORT_HELP};
use crate::client::{CallError, Client, Problem};

pub mod account;
pub mod config;
pub mod dlq;
pub mod endpoint;
pub mod health;
pub mod key;
pub mod listen;
pub mod output;
mod resource;
pub mod runtime;
pub mod send;
pub mod servers;
pub mod tail;
pub mod tenant;

#[cfg(test)]
mod fake;

use output::Screen;
use runtime::RuntimeFile;

/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;
/// The admin listener's address by default.
const ADMIN_DEFAULT: &str = "http://127.0.0.1:9090";
/// What to do when nothing says where the server is.
const NO_TARGET: &str = "no server and key are known. Three ways to name them:
  1. --url http://127.0.0.1:8080 --key tl_sk_…
  2. TRUNKLINE_URL and TRUNKLINE_KEY in the environment
  3. start `trunkline dev` as the same user; it is found by itself";

/// Why a command ends without success.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 2.
    Usage(String),
    /// Exit code 1.
    Failed(String),
    /// The server refused. Exit code 1.
    Refused(Box<Problem>),
    /// Exit code 3.
    Config(String),
    /// Exit code 4.
    Unreachable(String),
    /// Whoever read the output has gone, as `head` does: no fault.
    Closed,
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) | Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Config(_) => 3,
            Self::Unreachable(_) => 4,
        }
    }

    fn tell(&self, screen: &mut Screen) {
        match self {
            Self::Usage(text) | Self::Failed(text) => screen.note(&format!("error: {text}")),
            // Already in the style of a compiler.
            Self::Config(text) => screen.note(text),
            Self::Unreachable(text) => screen.note(&format!("error: {text}\n  hint: is it running? `trunkline dev` starts one here")),
            Self::Refused(problem) => match &problem.document {
                Some(document) if screen.json => screen.note(&document.to_string()),
                Some(_) | None => screen.note(&format!("error: {problem}")),
            },
            Self::Closed => {}
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Address(text) => Self::Usage(text),
            CallError::Unreachable(text) => Self::Unreachable(text),
            CallError::Refused(problem) => Self::Refused(problem),
            CallError::Odd(text) => Self::Failed(text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error.to_string()) }
    }
}

/// What a command works with.
pub struct Context {
    /// Where it writes.
    pub screen: Screen,
    /// From the flags, else from the environment.
    url: Option<String>,
    /// From the flags, else from the environment.
    key: Option<String>,
    runtime_path: PathBuf,
}

impl Context {
    fn of_process(cli: &Cli) -> Self {
        let environment = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            screen: Screen::of_process(cli.json),
            url: cli.url.clone().or_else(|| environment("TRUNKLINE_URL")),
            key: cli.key.clone().or_else(|| environment("TRUNKLINE_KEY")),
            runtime_path: runtime::runtime_file(),
        }
    }

    /// What the running `trunkline dev` left, read anew: it may have been restarted.
    pub fn runtime(&self) -> Option<RuntimeFile> {
        RuntimeFile::read(&self.runtime_path).ok().flatten()
    }

    /// The same, when it is the server that we talk to.
    pub fn local_runtime(&self) -> Option<RuntimeFile> {
        self.runtime().filter(|file| self.url.as_ref().is_none_or(|url| url.trim_end_matches('/') == file.url.trim_end_matches('/')))
    }

    /// A client of the API.
    ///
    /// # Errors
    /// Nothing says where it is or what its key is.
    pub fn client(&self) -> Result<Client, Failure> {
        let runtime = self.runtime();
        let url = self.url.clone().or_else(|| runtime.as_ref().map(|file| file.url.clone()));
        let url = url.ok_or_else(|| Failure::Usage(NO_TARGET.to_owned()))?;
        let key = self.key_for(&url, runtime.as_ref());
        let key = key.ok_or_else(|| Failure::Usage(format!("no key for {url} is known.\n{NO_TARGET}")))?;
        Ok(Client::new(&url, Some(&key))?)
    }

    /// The key of the local `dev` goes to the local `dev` only, never to another server.
    fn key_for(&self, url: &str, runtime: Option<&RuntimeFile>) -> Option<String> {
        let local = runtime.filter(|file| file.url.trim_end_matches('/') == url.trim_end_matches('/'));
        self.key.clone().or_else(|| local.map(|file| file.key.clone()))
    }

    /// A client of the admin listener; with the key where there is one.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn admin(&self, flag: Option<&str>) -> Result<Client, Failure> {
        let runtime = self.runtime();
        let local = runtime.as_ref().filter(|file| !file.admin.is_empty() && self.url.as_ref().is_none_or(|url| *url == file.url));
        let url = flag.or(local.map(|file| file.admin.as_str())).unwrap_or(ADMIN_DEFAULT);
        let local_key = local.filter(|file| file.admin == url).map(|file| file.key.as_str());
        Ok(Client::new(url, self.key.as_deref().or(local_key))?)
    }
}

/// Runs every command but those that run a node (`dev`, `serve`, `bench` and `bench-bare`), which are refused here.
pub async fn run(cli: Cli) -> ExitCode {
    let mut context = Context::of_process(&cli);
    let result = tokio::select! {
        result = dispatch(cli.command, &mut context) => result,
        _ = tokio::signal::ctrl_c() => return ExitCode::from(INTERRUPTED),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(&mut context.screen);
            ExitCode::from(failure.code())
        }
    }
}

async fn dispatch(command: Option<Command>, context: &mut Context) -> Result<(), Failure> {
    let Some(command) = command else { return Ok(context.screen.part(SHORT_HELP)?) };
    match command {
        Command::Send(args) => send::run(args, context).await,
        Command::Listen(args) => listen::run(args, context).await,
        Command::Tail(args) => tail::run(args, context).await,
        Command::Tenant(command) => tenant::run(command, context).await,
        Command::Account(command) => account::run(command, context).await,
        Command::Endpoint(command) => endpoint::run(command, context).await,
        Command::Key(command) => key::run(command, context).await,
        Command::Dlq(command) => dlq::run(command, context).await,
        Command::CheckConfig(args) => config::check(args.config.as_deref(), context),
        Command::Config(command) => config::run(command, context),
        Command::Topics(command) => servers::topics(command, context).await,
        Command::Migrate(command) => servers::migrate(command, context).await,
        Command::Healthcheck(args) => health::run(args, context).await,
        Command::Version => version(context),
        Command::Dev(_) | Command::Serve(_) | Command::Bench(_) | Command::BenchBare(_) => {
            Err(Failure::Usage("this command runs a node of its own and is not a client".to_owned()))
        }
    }
}

fn version(context: &mut Context) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if context.screen.json {
        return Ok(context.screen.line(&serde_json::json!({ "version": version }).to_string())?);
    }
    Ok(context.screen.line(&format!("trunkline {version}"))?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::fake::{Fake, Reply, Seen};
    use super::*;

    fn dev_file(url: &str) -> RuntimeFile {
        RuntimeFile { url: url.into(), key: "dev-key".into(), admin: String::new(), pid: 1, accounts: BTreeMap::new(), inbox: None }
    }

    #[tokio::test]
    async fn the_key_of_dev_goes_to_dev_only() {
        let fake = Fake::start(|_| Reply::json(200, r#"{"data":[]}"#)).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.json");
        let cases = [
            (Some(fake.url.as_str()), Some("mine"), None, Ok("Bearer mine")),
            (None, None, Some(fake.url.as_str()), Ok("Bearer dev-key")),
            (Some(fake.url.as_str()), None, Some(fake.url.as_str()), Ok("Bearer dev-key")),
            (None, Some("mine"), Some(fake.url.as_str()), Ok("Bearer mine")),
            (Some(fake.url.as_str()), None, Some("http://other:1"), Err(2)),
            (None, None, None, Err(2)),
            (Some("https://a"), Some("k"), None, Err(2)),
            (Some("http://127.0.0.1:1"), Some("k"), None, Err(4)),
        ];
        for (url, key, runtime, expected) in cases {
            let _ = std::fs::remove_file(&path);
            if let Some(url) = runtime {
                dev_file(url).write(&path).unwrap();
            }
            let seen = Seen::default();
            let (url, key) = (url.map(str::to_owned), key.map(str::to_owned));
            let mut context = Context { screen: seen.screen(false, false), url, key, runtime_path: path.clone() };
            let cli = Cli::parse_from(["trunkline", "account", "list"]);
            let found = match dispatch(cli.command, &mut context).await {
                Ok(()) => Ok(fake.requests().pop().unwrap().headers["authorization"].to_str().unwrap().to_owned()),
                Err(failure) => Err(failure.code()),
            };
            assert_eq!(found, expected.map(str::to_owned), "{:?} {:?} {runtime:?}", context.url, context.key);
        }
    }

    #[tokio::test]
    async fn nothing_to_do_prints_the_three_commands() {
        let seen = Seen::default();
        let mut context = seen.context("http://127.0.0.1:1", false, false);
        dispatch(None, &mut context).await.unwrap();
        let out = seen.out();
        assert!(["trunkline dev", "trunkline send", "trunkline listen"].iter().all(|command| out.contains(command)), "{out}");
    }
}
