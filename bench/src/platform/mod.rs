//! The platforms as they look from outside: they take sends, keep the truth about them in a [`ledger`], post webhooks and
//! redeliver them as the real ones do. A test chooses their answers with a [`script`].

mod answer;
#[cfg(test)]
mod connected;
pub mod discord;
pub mod email;
pub mod hook;
pub mod ledger;
pub mod media;
pub mod meta;
pub mod script;
mod simulator;
pub mod telegram;
pub mod tiktok;
pub mod whatsapp;
pub mod woocommerce;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use messaging::clock::{SharedClock, SystemClock, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub use discord::DiscordSim;
pub use email::EmailSim;
pub use hook::{Posted, Redelivery};
pub use ledger::{Call, Fate, Offered};
pub use media::PersonsFile;
pub use meta::{MetaProduct, MetaSim};
pub use script::Answer;
pub use simulator::{Customer, Simulator};
pub use telegram::TelegramSim;
pub use tiktok::TiktokSim;
pub use whatsapp::WhatsappSim;
pub use woocommerce::WoocommerceSim;

use crate::chance::Chance;
use crate::http::{Reply, Request, json_reply};
use crate::locked;
use hook::Hook;
use ledger::Ledger;
use script::Script;

/// Background work (webhooks under way, waiting statuses) that one simulator holds at once; more are dropped and counted.
const TASKS_MAX: usize = 200_000;
/// Longest that an answer is held back.
pub(crate) const HANG_MAX: Duration = Duration::from_secs(600);
/// Entries that `GET /sim/ledger` shows of each kind.
const SHOWN_MAX: usize = 200;

/// How a simulator behaves.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Decides ids, orders and chaos.
    pub seed: u64,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where webhooks go; none: they wait until [`hook`](SimOptions::hook_url) is set later (see `set_hook`).
    pub hook_url: Option<String>,
    /// What callers must present: the access token (WhatsApp), the bot token (Telegram) or the relay's password (e-mail).
    pub credential: String,
    /// What webhooks are signed with: the app secret (WhatsApp), the secret token (Telegram) or the bridge's secret (e-mail).
    pub secret: String,
    /// The phone number id (WhatsApp) or who submits (e-mail); unused for Telegram, where the bot token says it.
    pub account: String,
    /// Whether and how the simulator enforces that the person wrote first (WhatsApp: the 24-hour window; Telegram: the chat exists).
    pub window: WindowRule,
    /// How long after acceptance the person's device is told of; none: never.
    pub statuses: StatusDelays,
    /// How long an answer takes, after the message is taken and its statuses are set going.
    pub answer_delay: Duration,
    /// How often each webhook is posted at the same time (1 is normal, 3 is a bad day).
    pub copies: u32,
    /// Whether the statuses of a message come in a random order.
    pub shuffle: bool,
    /// How refused webhooks are brought again.
    pub redelivery: Redelivery,
    /// Where the simulator's time comes from.
    pub clock: SharedClock,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            hook_url: None,
            credential: "sim-token".to_owned(),
            secret: "sim-secret".to_owned(),
            account: "106540352242922".to_owned(),
            window: WindowRule::RefuseAtOnce,
            statuses: StatusDelays::default(),
            answer_delay: Duration::ZERO,
            copies: 1,
            shuffle: false,
            redelivery: Redelivery::default(),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// What the platform does with free text outside the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowRule {
    /// Answers with the error.
    RefuseAtOnce,
    /// Takes it, and tells of the failure by a status (WhatsApp only; Telegram answers at once).
    FailLater,
    /// Takes everything.
    Ignore,
}

/// When the statuses of a message come, counted from its acceptance; none: not at all.
#[derive(Debug, Clone, Copy)]
pub struct StatusDelays {
    /// `sent`, also the delay of an asynchronous `failed`.
    pub sent: Option<Duration>,
    /// `delivered`.
    pub delivered: Option<Duration>,
    /// `read`.
    pub read: Option<Duration>,
}

impl Default for StatusDelays {
    fn default() -> Self {
        Self { sent: Some(Duration::from_millis(20)), delivered: Some(Duration::from_millis(40)), read: Some(Duration::from_millis(80)) }
    }
}

impl StatusDelays {
    /// No statuses.
    pub const NONE: Self = Self { sent: None, delivered: None, read: None };
}

/// What both platforms have in common.
pub(crate) struct Sim {
    pub options: SimOptions,
    pub script: Script,
    pub ledger: Ledger,
    pub hook: Hook,
    pub chance: Mutex<Chance>,
    offset_us: AtomicI64,
    tasks: Mutex<JoinSet<()>>,
}

impl Sim {
    fn new(options: SimOptions, hook: Hook) -> Arc<Self> {
        hook.set_url(options.hook_url.clone());
        let chance = Mutex::new(Chance::new(options.seed));
        Arc::new(Self {
            script: Script::new(options.seed),
            ledger: Ledger::default(),
            hook,
            chance,
            offset_us: AtomicI64::new(0),
            tasks: Mutex::new(JoinSet::new()),
            options,
        })
    }

    /// The platform's own time.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.options.clock.now().0.saturating_add_signed(self.offset_us.load(Ordering::Relaxed)))
    }

    fn set_clock_offset(&self, by_ms: i64) {
        self.offset_us.store(by_ms.saturating_mul(1_000), Ordering::Relaxed);
    }

    /// Runs something beside the requests; it ends with the simulator.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = locked(&self.tasks);
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= TASKS_MAX {
            self.ledger.count_dropped();
            return;
        }
        // One type of task for all: tokio's machinery is compiled once.
        let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
        tasks.spawn(work);
    }

    /// Posts an event as often as the options say and notes what became of it. `about` is the platform's id of the event.
    pub async fn post(&self, about: &str, kind: &'static str, from: &str, text: Option<String>, body: Bytes) -> Posted {
        self.post_with(about, kind, from, text, body, &[]).await
    }

    /// The same, with headers of this event (WooCommerce's topic).
    pub async fn post_with(
        &self,
        about: &str,
        kind: &'static str,
        from: &str,
        text: Option<String>,
        body: Bytes,
        headers: &[(&'static str, String)],
    ) -> Posted {
        let begun_us = crate::monotonic_us();
        let at = self.now();
        let copies = (0..self.options.copies.max(1)).map(|_| self.hook.deliver(body.clone(), headers));
        let all = futures_util::future::join_all(copies).await;
        let posted = hook::worst(all);
        let offered = Offered {
            platform_id: about.to_owned(),
            kind,
            from: from.to_owned(),
            text,
            at,
            begun_us,
            answered_us: crate::monotonic_us(),
            posted: posted.clone(),
        };
        self.ledger.offer(offered);
        posted
    }

    fn stop(&self) {
        locked(&self.tasks).abort_all();
    }
}

/// The fields of `POST /sim/message`.
pub(crate) struct Written {
    pub from: String,
    pub text: String,
    pub name: Option<String>,
}

/// Reads `{"from":"+1555…","text":"hi","name":"…"}`.
pub(crate) async fn read_written(request: &mut Request) -> Result<Written, Reply> {
    let wrong = |what: &str| json_reply(400, &json!({ "error": what, "example": { "from": "+15550100", "text": "hi", "name": "Ada" } }));
    let body = request.body().await.map_err(|_| wrong("the body did not come whole"))?;
    let value: Value = serde_json::from_slice(&body).map_err(|_| wrong("the body is not json"))?;
    let member = |name: &str| match value.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(_) | None => None,
    };
    let from =
        member("from").filter(|from| from.chars().any(|c| c.is_ascii_digit())).ok_or_else(|| wrong("from is missing or has no digit"))?;
    let text = member("text").filter(|text| !text.is_empty()).ok_or_else(|| wrong("text is missing"))?;
    Ok(Written { from, text, name: member("name") })
}

/// The answer of `GET /sim/ledger`: the newest entries last.
pub(crate) fn show_ledger(sim: &Sim) -> Reply {
    let calls: VecDeque<Value> = sim.ledger.calls_tail(SHOWN_MAX).iter().map(Call::show).collect();
    let offered: VecDeque<Value> = sim.ledger.offered_tail(SHOWN_MAX).iter().map(Offered::show).collect();
    json_reply(200, &json!({ "calls": calls, "offered": offered, "dropped": sim.ledger.dropped() }))
}

/// The public face that both simulators share, over their field `sim: Arc<Sim>` and `server: Server`.
macro_rules! common_face {
    ($name:ident) => {
        impl $name {
            /// Its address, to be used as the account's `api_base`.
            pub fn url(&self) -> String {
                self.server.url()
            }
            /// Where it listens.
            pub fn addr(&self) -> std::net::SocketAddr {
                self.server.addr()
            }
            /// Where webhooks go from now on; those that waited for an address are posted now.
            pub fn set_hook(&self, url: &str) {
                self.sim.hook.set_url(Some(url.to_owned()));
            }
            /// The platform's time now.
            pub fn now(&self) -> messaging::clock::Timestamp {
                self.sim.now()
            }
            /// Lets the platform's clock go wrong (or the day pass) by so many milliseconds against its source.
            pub fn set_clock_offset_ms(&self, by_ms: i64) {
                self.sim.set_clock_offset(by_ms);
            }
            /// The answers of the next sends, in order; after them the standing answer.
            pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
                self.sim.script.next(answers);
            }
            /// The answer when nothing else is asked for.
            pub fn standing_answer(&self, answer: Answer) {
                self.sim.script.stand(answer);
            }
            /// The next `times` sends whose text contains `part` get this answer, whatever comes between.
            pub fn answer_when(&self, part: &str, times: u32, answer: Answer) {
                self.sim.script.when(part, times, answer);
            }
            /// Each send meets a random fault with this probability (0 to 1).
            pub fn set_chaos(&self, probability: f64) {
                self.sim.script.set_chaos(probability);
            }
            /// Every call that came, in order.
            pub fn calls(&self) -> Vec<Call> {
                self.sim.ledger.calls()
            }
            /// The sends that the platform took, in order: the truth that the checker compares with.
            pub fn accepted(&self) -> Vec<Call> {
                self.sim.ledger.calls().into_iter().filter(|call| call.fate.is_accepted()).collect()
            }
            /// The events that it posted, in the order of their last answer.
            pub fn offered(&self) -> Vec<Offered> {
                self.sim.ledger.offered()
            }
            /// Background work and ledger entries that were dropped because a limit was reached; a test wants zero.
            pub fn dropped(&self) -> u64 {
                self.sim.ledger.dropped()
            }
            /// Returns true once the platform has taken `count` sends in all, false when `within` passes first.
            pub async fn wait_accepted(&self, count: usize, within: std::time::Duration) -> bool {
                self.sim.ledger.wait_accepted(count, within).await
            }
            /// Stops serving and posting.
            pub async fn stop(self) {
                self.sim.stop();
                self.server.stop().await;
            }
        }
    };
}
pub(crate) use common_face;
