//! `trunkline dev`: the whole system in one process, with simulated platforms, a customer of each who has written, and an inbox that
//! stands for a CRM. Everything here goes through the public API, as a user would do it.

mod api;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bench::inbox::{Inbox, InboxOptions};
use bench::platform::{SimOptions, Simulator, StatusDelays};
use messaging::channels::ChannelKind;
use messaging::config::{Config, DevConfig};
use messaging::seal::{Secret, fill_random};
use serde_json::{Value, json};

pub use api::Api;
use api::id;

use crate::commands::runtime::{RuntimeFile, runtime_file};

/// What the account of a simulated platform is called: a kept one is found by it.
const ACCOUNT_NAME: &str = "simulated";
/// What the inbox's endpoint is called.
const ENDPOINT_NAME: &str = "inbox";
/// Events that the inbox keeps.
const KEPT_MAX: usize = 1000;

/// The toys, alive as long as this lives.
pub struct Toys {
    platforms: Vec<(ChannelKind, Simulator)>,
    inbox: Option<Inbox>,
}

/// What the toys made in the directory.
struct Made {
    /// The accounts, in the platforms' order.
    accounts: Vec<String>,
    /// The inbox's signing secret.
    webhook_secret: Option<String>,
}

fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    fill_random(&mut buffer);
    data_encoding::HEXLOWER.encode(&buffer)
}

/// A seed: 0 draws one.
fn drawn(seed: u64) -> u64 {
    let mut buffer = [0; 8];
    fill_random(&mut buffer);
    if seed == 0 { u64::from_le_bytes(buffer) } else { seed }
}

impl Toys {
    /// Starts the simulators and the inbox that `dev` names, on free ports. A channel that is off is not simulated.
    pub async fn start(config: &Config, seed: Option<u64>) -> anyhow::Result<Self> {
        let DevConfig { simulate, chaos, seed: configured, inbox, clock_control: _ } = &config.dev;
        let ms = |ms| Some(Duration::from_millis(ms));
        let statuses = StatusDelays { sent: ms(30), delivered: ms(80), read: ms(1200) };
        let common = SimOptions {
            seed: drawn(seed.unwrap_or(*configured)),
            statuses,
            answer_delay: Duration::from_millis(30),
            ..SimOptions::default()
        };
        let mut platforms = Vec::new();
        for kind in simulate.iter().copied().filter(|kind| config.channels.contains_key(kind)) {
            let options = SimOptions { credential: random_hex(16), secret: random_hex(16), ..common.clone() };
            let platform = Simulator::start(kind, options).await.with_context(|| format!("{} cannot be simulated", kind.name()))?;
            platform.set_chaos(*chaos);
            platforms.push((kind, platform));
        }
        let inbox = match inbox {
            true => Some(Inbox::start(InboxOptions { keep_max: KEPT_MAX, ..InboxOptions::default() }).await?),
            false => None,
        };
        Ok(Self { platforms, inbox })
    }

    /// Makes the accounts and the endpoint, and lets each customer write first, so that the windows are open.
    async fn connect(&self, gateway: SocketAddr, key: &Secret) -> anyhow::Result<Made> {
        let api = Api::new(gateway, key.expose());
        let webhook_secret = self.connect_inbox(&api).await?;
        let existing = api.get("/v1/accounts").await?;
        let existing = existing["data"].as_array().cloned().unwrap_or_default();
        let mut accounts = Vec::new();
        for (kind, platform) in &self.platforms {
            let kept = existing.iter().find(|account| account["channel"] == kind.name() && account["name"] == ACCOUNT_NAME);
            let mut wanted = platform.account();
            (wanted["channel"], wanted["name"]) = (kind.name().into(), ACCOUNT_NAME.into());
            let account = id(&api.ensure("/v1/accounts", kept.cloned(), wanted).await?)?;
            platform.set_hook(&format!("http://{gateway}{}", hook(*kind, &account)));
            accounts.push(account);
        }
        let greetings = self.platforms.iter().map(|(_, platform)| platform.customer_says("Hi, is this the shop?"));
        futures_util::future::join_all(greetings).await;
        Ok(Made { accounts, webhook_secret })
    }

    /// The endpoint of this run's inbox, in the place of a kept one; gives its secret.
    async fn connect_inbox(&self, api: &Api) -> anyhow::Result<Option<String>> {
        let endpoints = api.get("/v1/endpoints").await?;
        let old: Vec<Value> = endpoints["data"].as_array().cloned().unwrap_or_default();
        for endpoint in old.iter().filter(|endpoint| endpoint["name"] == ENDPOINT_NAME) {
            api.delete(&format!("/v1/endpoints/{}", id(endpoint)?)).await?;
        }
        let Some(inbox) = &self.inbox else { return Ok(None) };
        let endpoint = json!({"name": ENDPOINT_NAME, "url": format!("{}/crm", inbox.url()), "events": ["*"]});
        let endpoint = api.post("/v1/endpoints", &endpoint).await?;
        let secret = endpoint["secret"].as_str().context("the endpoint came without its secret")?;
        Ok(Some(secret.to_owned()))
    }
}

fn hook(kind: ChannelKind, account: &str) -> String {
    format!("/hooks/{}/{account}", kind.name())
}

/// Connects the toys, leaves the runtime file for the other commands, and prints the banner.
pub async fn greet(toys: &Toys, public: SocketAddr, admin: SocketAddr, key: &Secret, where_kept: &str) -> anyhow::Result<()> {
    let made = toys.connect(public, key).await?;
    let accounts = toys.platforms.iter().zip(&made.accounts).map(|((kind, _), account)| (kind.name().to_owned(), account.clone()));
    let file = RuntimeFile {
        url: format!("http://{public}"),
        key: key.expose().to_owned(),
        admin: format!("http://{admin}"),
        pid: std::process::id(),
        accounts: accounts.collect(),
        inbox: toys.inbox.as_ref().map(Inbox::url),
    };
    file.write(&runtime_file())?;
    print!("{}", banner(toys, &made, public, admin, key, where_kept));
    Ok(())
}

/// How `trunkline send --to` names a customer: the short form where there is one.
fn short(platform: &Simulator) -> String {
    let customer = platform.customer();
    match customer.member {
        "phone" | "chat_id" | "email" => customer.to,
        member => format!("{member}:{}", customer.to),
    }
}

fn banner(toys: &Toys, made: &Made, public: SocketAddr, admin: SocketAddr, key: &Secret, where_kept: &str) -> String {
    let (version, key) = (env!("CARGO_PKG_VERSION"), key.expose());
    let mut text = format!(
        "trunkline {version} · development mode · {where_kept}
  API        http://{public}/v1         key     {key}
  Metrics    http://{admin}/metrics\n"
    );
    if let (Some(inbox), Some(secret)) = (&toys.inbox, &made.webhook_secret) {
        text += &format!("  Inbox      {}                    secret  {secret}\n", inbox.url());
    }
    if !toys.platforms.is_empty() {
        text += "  Platforms  simulated (no traffic leaves this machine): address, hook, and the customer for --to\n";
    }
    for ((kind, platform), account) in toys.platforms.iter().zip(&made.accounts) {
        text += &format!("    {:<11}  {}  {}  {}\n", kind.name(), platform.url(), hook(*kind, account), short(platform));
    }
    match toys.platforms.first() {
        Some((_, platform)) => {
            text += &format!(
                "Try:  trunkline send --to {to} --text hello --wait
      trunkline listen
      curl -d '{{\"from\":\"{from}\",\"text\":\"hi\"}}' {url}/sim/message     write as the customer\n",
                to = short(platform),
                from = platform.customer().from,
                url = platform.url(),
            );
        }
        None => text += "Try:  trunkline account create --help\n      trunkline endpoint create --help\n      trunkline listen\n",
    }
    text + "(from a checkout: `cargo run --release -- send …` in a second terminal)
Not for production: keys are printed and private addresses are allowed.\n"
}
