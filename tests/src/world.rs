//! What the world of a test holds. The small one is one tenant with two accounts and one endpoint. The crowded one is where our users
//! live: many tenants over all channels, whose customers have the same platform ids, and whose oldest endpoint is in trouble.
//!
//! | in the crowded world | |
//! |---|---|
//! | tenants | eight: the system's own, and seven beside it |
//! | accounts | WhatsApp at each, and one more channel by turns: all eight over the world |
//! | endpoints | three at each tenant: the oldest in trouble, each of [`Trouble::ALL`] by turns, and two healthy ones |
//! | conversations | 1,000, a setting |
//! | platform ids | equal across tenants: phone number ids, bots, apps, customers; secrets are each tenant's own |
//! | canaries | one text per tenant in each of its messages, which no other tenant's output may hold |

use std::time::Duration;

use bench::inbox::{Inbox, InboxAnswer, InboxOptions};
use bench::platform::{Call, Offered, Posted, SimOptions, Simulator};
use messaging::channels::ChannelKind;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::{KEPT_MAX, System};

/// The healthy endpoint that every tenant has.
pub const HEALTHY: &str = "/crm";
/// The second healthy one of the crowd.
pub const SECOND: &str = "/erp";
/// The oldest endpoint of the crowd, as far as it is one that answers.
const TROUBLED: &str = "/troubled";
/// Longer than `webhooks.timeout`.
const HANGS: Duration = Duration::from_secs(30);
/// Between two bytes of an endpoint that answers one byte a second.
const DRIP: Duration = Duration::from_secs(1);

/// How large the world of a test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    /// Tenants, with the system's own.
    pub tenants: usize,
    /// Conversations over all tenants and accounts of a load.
    pub conversations: u32,
    /// Whether each tenant's oldest endpoint is in trouble, and a second healthy one stands behind.
    pub in_trouble: bool,
}

impl World {
    /// One tenant, one healthy endpoint, twelve conversations.
    pub const fn small() -> Self {
        Self { tenants: 1, conversations: 12, in_trouble: false }
    }

    /// Where our users live.
    pub const fn crowded() -> Self {
        Self { tenants: 8, conversations: 1_000, in_trouble: true }
    }

    /// Healthy endpoints of each tenant.
    pub fn healthy(self) -> &'static [&'static str] {
        if self.in_trouble { &[HEALTHY, SECOND] } else { &[HEALTHY] }
    }
}

/// What is wrong with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens.
    ClosedPort,
    /// 503.
    Unavailable,
    /// 503 with `Retry-After`.
    RetryAfter,
    /// 410: it is disabled by its first delivery.
    Gone,
    /// Answers after 30 s.
    Hangs,
    /// Answers one byte a second.
    Drips,
    /// Paused by its tenant.
    Paused,
    /// Disabled: it has said 410 before the test begins.
    Disabled,
}

impl Trouble {
    /// Each of them.
    pub const ALL: [Self; 8] =
        [Self::ClosedPort, Self::Unavailable, Self::RetryAfter, Self::Gone, Self::Hangs, Self::Drips, Self::Paused, Self::Disabled];

    /// What an inbox answers at the path of the endpoint; none where it is not asked.
    fn answer(self) -> Option<InboxAnswer> {
        match self {
            Self::Unavailable => Some(InboxAnswer::Status(503)),
            Self::RetryAfter => Some(InboxAnswer::RetryAfter(503, 20)),
            Self::Gone | Self::Disabled => Some(InboxAnswer::Status(410)),
            Self::Hangs => Some(InboxAnswer::Delay(HANGS, 200)),
            Self::ClosedPort | Self::Drips | Self::Paused => None,
        }
    }
}

/// An account of the crowd, before its simulated platform.
pub struct Account {
    /// Its channel.
    pub kind: ChannelKind,
    /// Its id.
    pub id: String,
    /// Its platform.
    pub platform: Simulator,
}

/// A tenant beside the system's own.
pub struct Tenant {
    /// Its admin key.
    pub key: String,
    /// What each of its messages holds.
    pub canary: String,
    /// What is wrong with its oldest endpoint.
    pub trouble: Option<Trouble>,
    /// The id of that endpoint.
    pub troubled: Option<String>,
    /// Its accounts, WhatsApp first.
    pub accounts: Vec<Account>,
    /// Its endpoints.
    pub inbox: Inbox,
}

/// The second channel of the tenant of a number.
fn second_channel(number: usize) -> ChannelKind {
    let others: Vec<ChannelKind> = ChannelKind::ALL.iter().copied().filter(|kind| *kind != ChannelKind::Whatsapp).collect();
    others[number % others.len()]
}

/// A send to whoever writes to an account, as JSON.
fn send_of(kind: ChannelKind, account: &str, member: &str, to: &str, text: &str) -> Value {
    let mut send = json!({"account": account, "to": {}, "type": "text", "text": {"body": text}});
    send["to"][member] = to.into();
    if kind == ChannelKind::Email {
        send["type"] = "email".into();
        send["email"] = json!({"subject": "Your question", "text": text});
        send.as_object_mut().expect("an object").remove("text");
    }
    send
}

/// One account of the world: that of the system's own tenant, or one of the crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// 0: the system's own tenant.
    pub tenant: usize,
    /// 0: WhatsApp.
    pub account: usize,
}

impl System {
    /// Every account of the world that a load writes to.
    pub fn places(&self) -> Vec<Place> {
        let own = std::iter::once(Place { tenant: 0, account: 0 });
        let crowd = self.crowd.iter().enumerate();
        own.chain(crowd.flat_map(|(at, tenant)| (0..tenant.accounts.len()).map(move |account| Place { tenant: at + 1, account }))).collect()
    }

    /// How many tenants the world has.
    pub fn tenants(&self) -> usize {
        1 + self.crowd.len()
    }

    fn account(&self, place: Place) -> Option<&Account> {
        Some(&self.crowd[place.tenant.checked_sub(1)?].accounts[place.account])
    }

    /// The channel of an account.
    pub fn channel(&self, place: Place) -> ChannelKind {
        self.account(place).map_or(ChannelKind::Whatsapp, |account| account.kind)
    }

    /// A tenant's key.
    pub fn key_of(&self, tenant: usize) -> &str {
        tenant.checked_sub(1).map_or(&self.key, |at| &self.crowd[at].key)
    }

    /// A tenant's subscriber.
    pub fn inbox_of(&self, tenant: usize) -> &Inbox {
        tenant.checked_sub(1).map_or(&self.inbox, |at| &self.crowd[at].inbox)
    }

    /// What a tenant's messages hold and nobody else's output may.
    pub fn canary_of(&self, tenant: usize) -> String {
        canary(tenant)
    }

    /// A customer of an account speaks, by number.
    pub async fn customer_says(&self, place: Place, customer: u32, text: &str) -> Posted {
        match self.account(place) {
            None => self.whatsapp.customer_writes(&own_phone(customer), text).await,
            Some(account) => account.platform.says(&account.platform.customer_at(customer), text).await,
        }
    }

    /// A text to a customer of an account.
    pub fn send_to(&self, place: Place, customer: u32, text: &str) -> Value {
        let Some(account) = self.account(place) else { return self.text(&own_phone(customer), text) };
        let to = account.platform.customer_at(customer);
        send_of(account.kind, &account.id, to.member, &to.to, text)
    }

    /// What an account's platform posted.
    pub fn offered_by(&self, place: Place) -> Vec<Offered> {
        self.account(place).map_or_else(|| self.whatsapp.offered(), |account| account.platform.offered())
    }

    /// What an account's platform was asked.
    pub fn calls_of(&self, place: Place) -> Vec<Call> {
        self.account(place).map_or_else(|| self.whatsapp.calls(), |account| account.platform.calls())
    }

    /// The oldest endpoint of a tenant, in trouble. Made before every other one.
    pub(crate) async fn make_troubled(&self, key: &str, inbox: &Inbox, trouble: Trouble) -> String {
        let at = match trouble {
            Trouble::ClosedPort => "http://127.0.0.1:1".to_owned(),
            Trouble::Drips => self.reached(dripping().await).await,
            Trouble::Unavailable | Trouble::RetryAfter | Trouble::Gone | Trouble::Hangs | Trouble::Paused | Trouble::Disabled => {
                self.reached(inbox.url()).await
            }
        };
        inbox.answer_path(TROUBLED, trouble.answer());
        let made = self.make_endpoint(key, "troubled", &format!("{at}{TROUBLED}")).await;
        let id = made["id"].as_str().expect("an endpoint has an id").to_owned();
        match trouble {
            Trouble::Paused => {
                self.ok_as(key, "POST", &format!("/v1/endpoints/{id}/pause"), &Value::Null).await;
            }
            Trouble::Disabled => {
                self.ok_as(key, "POST", &format!("/v1/endpoints/{id}/test"), &Value::Null).await;
            }
            Trouble::ClosedPort | Trouble::Unavailable | Trouble::RetryAfter | Trouble::Gone | Trouble::Hangs | Trouble::Drips => {}
        }
        id
    }

    async fn make_endpoint(&self, key: &str, name: &str, url: &str) -> Value {
        self.ok_as(key, "POST", "/v1/endpoints", &json!({"name": name, "url": url, "events": ["*"]})).await
    }

    /// The tenants beside the system's own. The first one's trouble is the next after that of the system's own tenant.
    pub(crate) async fn make_crowd(&mut self, world: World, options: &SimOptions) {
        for number in 1..world.tenants {
            let made = self.ok("POST", "/v1/tenants", &json!({"name": format!("tenant {number}")})).await;
            let key = made["key"].as_str().expect("a new tenant comes with its first key").to_owned();
            let inbox = Inbox::start(InboxOptions { keep_max: KEPT_MAX, ..InboxOptions::default() }).await.expect("an inbox starts");
            let trouble = world.in_trouble.then(|| Trouble::ALL[number % Trouble::ALL.len()]);
            let mut troubled = None;
            if let Some(trouble) = trouble {
                troubled = Some(self.make_troubled(&key, &inbox, trouble).await);
            }
            let at = self.reached(inbox.url()).await;
            for path in world.healthy() {
                self.make_endpoint(&key, path.trim_start_matches('/'), &format!("{at}{path}")).await;
            }
            let mut accounts = Vec::new();
            for kind in [ChannelKind::Whatsapp, second_channel(number - 1)] {
                accounts.push(self.make_account(&key, kind, number, options).await);
            }
            self.crowd.push(Tenant { key, canary: canary(number), trouble, troubled, accounts, inbox });
        }
    }

    async fn make_account(&self, key: &str, kind: ChannelKind, number: usize, options: &SimOptions) -> Account {
        let secrets = SimOptions {
            credential: format!("token-of-tenant-{number}"),
            secret: format!("secret-of-tenant-{number}"),
            seed: options.seed + number as u64,
            ..options.clone()
        };
        let platform = Simulator::start(kind, secrets).await.expect("a simulator starts");
        let mut wanted = platform.account();
        (wanted["channel"], wanted["name"]) = (kind.name().into(), "account".into());
        if wanted["api_base"].is_string() {
            wanted["api_base"] = self.reached(platform.url()).await.into();
        }
        let made = self.ok_as(key, "POST", "/v1/accounts", &wanted).await;
        Account { kind, id: made["id"].as_str().expect("an account has an id").to_owned(), platform }
    }

    pub(crate) fn point_hooks_of_crowd(&self) {
        for account in self.crowd.iter().flat_map(|tenant| &tenant.accounts) {
            account.platform.set_hook(&self.hook(account.kind.name(), &account.id));
        }
    }
}

fn own_phone(customer: u32) -> String {
    (15_550_100 + customer).to_string()
}

fn canary(tenant: usize) -> String {
    format!("canary-{tenant}-of-its-tenant")
}

/// An endpoint that takes every request and answers one byte a second. It ends with the test's runtime. Gives its URL.
async fn dripping() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
    let at = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n".iter().chain(&[b'x'; 600]) {
                    if connection.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(DRIP).await;
                }
            });
        }
    });
    format!("http://{at}")
}
