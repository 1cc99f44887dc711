//! `trunkline dev`: the whole system in one process, with simulated platforms, a customer who has written, and an inbox that
//! stands for a CRM. Everything here goes through the public API, as a user would do it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bench::inbox::{Inbox, InboxOptions};
use bench::platform::telegram::TelegramSim;
use bench::platform::whatsapp::WhatsappSim;
use bench::platform::{SimOptions, StatusDelays};
use messaging::seal::{Secret, fill_random};
use serde_json::{Value, json};

use crate::commands::runtime::{RuntimeFile, runtime_file};

/// The simulated customer's phone number.
pub const PHONE: &str = "+15550100";
/// The simulated customer's Telegram chat.
pub const CHAT: i64 = 4711;

/// The toys, alive as long as this lives.
pub struct Toys {
    whatsapp: WhatsappSim,
    telegram: TelegramSim,
    inbox: Inbox,
    app_secret: String,
    verify_token: String,
    secret_token: String,
    bot_token: String,
}

/// What the toys made in the directory.
pub struct Made {
    /// The WhatsApp account.
    pub whatsapp: String,
    /// The Telegram account.
    pub telegram: String,
    /// The inbox's signing secret.
    pub webhook_secret: String,
}

fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    fill_random(&mut buffer);
    data_encoding::HEXLOWER.encode(&buffer)
}

impl Toys {
    /// Starts the simulators and the inbox on free ports.
    pub async fn start(seed: u64, chaos: f64) -> anyhow::Result<Self> {
        let (app_secret, verify_token) = (random_hex(16), random_hex(8));
        let (secret_token, bot_token) = (random_hex(16), format!("7000000001:{}", random_hex(16)));
        let delays = StatusDelays {
            sent: Some(Duration::from_millis(30)),
            delivered: Some(Duration::from_millis(80)),
            read: Some(Duration::from_millis(1200)),
        };
        let common = SimOptions { seed, statuses: delays, answer_delay: Duration::from_millis(30), ..SimOptions::default() };
        let whatsapp =
            WhatsappSim::start(SimOptions { credential: "dev-access-token".into(), secret: app_secret.clone(), ..common.clone() }).await?;
        let telegram = TelegramSim::start(SimOptions { credential: bot_token.clone(), secret: secret_token.clone(), ..common }).await?;
        whatsapp.set_chaos(chaos);
        telegram.set_chaos(chaos);
        let inbox = Inbox::start(InboxOptions { keep_max: 1000, ..InboxOptions::default() }).await?;
        Ok(Self { whatsapp, telegram, inbox, app_secret, verify_token, secret_token, bot_token })
    }

    /// Where the inbox shows its last events.
    pub fn inbox_url(&self) -> String {
        self.inbox.url()
    }

    /// Where the customer's phone is.
    pub fn whatsapp_url(&self) -> String {
        self.whatsapp.url()
    }

    /// Where the customer's chat is.
    pub fn telegram_url(&self) -> String {
        self.telegram.url()
    }

    /// Makes the accounts and the endpoint, and lets the customer write first, so that the window is open.
    pub async fn connect(&self, gateway: SocketAddr, key: &Secret) -> anyhow::Result<Made> {
        let api = Api::new(gateway, key.expose());
        let existing = api.get("/v1/accounts").await?;
        let find = |channel: &str| {
            let accounts = existing["data"].as_array().cloned().unwrap_or_default();
            accounts.into_iter().find(|account| account["channel"] == channel && account["name"].as_str() == Some("simulated"))
        };
        let whatsapp = json!({"channel": "whatsapp", "name": "simulated", "api_base": self.whatsapp.url(),
            "phone_number_id": "106540352242922", "access_token": "dev-access-token",
            "app_secret": self.app_secret, "verify_token": self.verify_token});
        let telegram = json!({"channel": "telegram", "name": "simulated", "api_base": self.telegram.url(),
            "bot_token": self.bot_token, "secret_token": self.secret_token});
        let whatsapp = api.ensure("/v1/accounts", find("whatsapp"), whatsapp).await?;
        let telegram = api.ensure("/v1/accounts", find("telegram"), telegram).await?;
        self.whatsapp.set_hook(&format!("http://{gateway}/hooks/whatsapp/{}", id(&whatsapp)?));
        self.telegram.set_hook(&format!("http://{gateway}/hooks/telegram/{}", id(&telegram)?));

        let endpoints = api.get("/v1/endpoints").await?;
        let old = endpoints["data"].as_array().cloned().unwrap_or_default();
        for endpoint in old.iter().filter(|endpoint| endpoint["name"] == "inbox") {
            api.delete(&format!("/v1/endpoints/{}", id(endpoint)?)).await?;
        }
        let endpoint = json!({"name": "inbox", "url": format!("{}/crm", self.inbox.url()), "events": ["*"]});
        let endpoint = api.post("/v1/endpoints", &endpoint).await?;
        let webhook_secret = endpoint["secret"].as_str().context("the endpoint came without its secret")?.to_owned();
        self.whatsapp.customer_writes(PHONE.trim_start_matches('+'), "Hi, is this the shop?").await;
        self.telegram.customer_writes(CHAT, "/start").await;
        Ok(Made { whatsapp: id(&whatsapp)?, telegram: id(&telegram)?, webhook_secret })
    }
}

fn id(object: &Value) -> anyhow::Result<String> {
    Ok(object["id"].as_str().context("an object came without its id")?.to_owned())
}

/// A small client of our own API.
pub struct Api {
    base: String,
    key: Secret,
    client: bench::http::Client,
}

impl Api {
    /// With a key, to a node on this machine.
    pub fn new(gateway: SocketAddr, key: &str) -> Self {
        let client = bench::http::Client::new(Duration::from_secs(10));
        Self { base: format!("http://{gateway}"), key: Secret::new(key), client }
    }

    /// The key.
    pub fn key(&self) -> &str {
        self.key.expose()
    }

    async fn call(&self, method: http::Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let authorization = format!("Bearer {}", self.key.expose());
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = body.map(Value::to_string).unwrap_or_default();
        let url = format!("{}{path}", self.base);
        let response = self.client.send(method.clone(), &url, &headers, body.into()).await?;
        if !(200..300).contains(&response.status) {
            bail!("{method} {path} answered {}: {}", response.status, String::from_utf8_lossy(&response.body));
        }
        if response.body.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&response.body)?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(http::Method::GET, path, None).await
    }
    /// POST.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(http::Method::POST, path, Some(body)).await
    }
    async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call(http::Method::DELETE, path, None).await
    }

    /// Makes an object, or gives the one that was kept from before this run's addresses and secrets.
    async fn ensure(&self, path: &str, kept: Option<Value>, mut wanted: Value) -> anyhow::Result<Value> {
        let Some(kept) = kept else { return self.post(path, &wanted).await };
        if let Some(members) = wanted.as_object_mut() {
            members.remove("channel");
        }
        self.call(http::Method::PATCH, &format!("{path}/{}", id(&kept)?), Some(&wanted)).await
    }
}

/// Connects the toys, leaves the runtime file for the other commands, and prints the banner.
pub async fn greet(toys: &Toys, public: SocketAddr, admin: SocketAddr, key: &Secret, where_kept: &str) -> anyhow::Result<()> {
    let made = toys.connect(public, key).await?;
    let file = RuntimeFile {
        url: format!("http://{public}"),
        key: key.expose().to_owned(),
        admin: format!("http://{admin}"),
        pid: std::process::id(),
        accounts: [("whatsapp".to_owned(), made.whatsapp.clone()), ("telegram".to_owned(), made.telegram.clone())].into(),
        inbox: Some(toys.inbox_url()),
    };
    file.write(&runtime_file())?;
    println!(
        "trunkline {version} · development mode · {where_kept}
  API        http://{public}/v1         key     {key}
  Hooks      http://{public}/hooks/whatsapp/{whatsapp}
             http://{public}/hooks/telegram/{telegram}
  Metrics    http://{admin}/metrics
  Inbox      {inbox}                    secret  {secret}
  Platforms  simulated WhatsApp and Telegram (no traffic leaves this machine)
Try:  trunkline send --to {PHONE} --text hello --wait
      trunkline listen
      curl -d '{{\"from\":\"{PHONE}\",\"text\":\"hi\"}}' {sim}/sim/message     write as the customer
(from a checkout: `cargo run --release -- send …` in a second terminal)
Not for production: keys are printed and private addresses are allowed.",
        version = env!("CARGO_PKG_VERSION"),
        key = key.expose(),
        whatsapp = made.whatsapp,
        telegram = made.telegram,
        inbox = toys.inbox_url(),
        secret = made.webhook_secret,
        sim = toys.whatsapp_url(),
    );
    Ok(())
}
