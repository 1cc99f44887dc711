//! Messenger and Instagram, simulated.
//!
//! Serves `POST /{version}/{account}/messages`, the exchange of long-lived tokens, and the probe `GET /{version}/{account}`; posts messages, echoes, deliveries and
//! readings to the hook, signed with the app secret, redelivered on anything but 200. Strict where the platforms are: recipient,
//! `messaging_type`, lengths, the window and its tag. For people: `POST /sim/message` lets a customer write, `GET /sim/ledger`
//! shows what happened.

mod graph;
mod tokens;
mod webhook;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use messaging::clock::Timestamp;
use serde_json::{Value, json};

use super::hook::{Hook, Proof};
use super::{Answer, Call, Offered, Posted, Sim, SimOptions, common_face};
use crate::http::{Reply, Request, Server, json_reply};
use crate::locked;
use tokens::Tokens;
pub use tokens::{APP_ID, LIFE};

/// How long a window stays open after the customer's last word.
pub const WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// How long a person of the business may still answer.
pub const HUMAN_AGENT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Customers whose window is remembered.
const CUSTOMERS_MAX: usize = 2_000_000;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaProduct {
    /// Facebook Messenger: the account is a page.
    Messenger,
    /// Instagram Direct: the account is a professional account.
    Instagram,
}

/// A simulated page or professional account.
pub struct MetaSim {
    sim: Arc<Sim>,
    state: Arc<State>,
    server: Server,
}

/// What only these two have.
pub(crate) struct State {
    product: MetaProduct,
    /// When each customer wrote last, by the platform's time.
    wrote: Mutex<HashMap<String, Timestamp>>,
    tokens: Mutex<Tokens>,
    next_id: AtomicU64,
}

common_face!(MetaSim);

impl MetaSim {
    /// Starts it. Errors: the address cannot be bound.
    pub async fn start(product: MetaProduct, options: SimOptions) -> io::Result<Self> {
        let hook = Hook::new(Proof::signature(&options.secret), options.redelivery);
        let listen = options.listen;
        let sim = Sim::new(options, hook);
        let state = Arc::new(State { product, wrote: Mutex::default(), tokens: Mutex::default(), next_id: AtomicU64::new(1) });
        locked(&state.tokens).give(sim.options.credential.clone(), sim.now());
        let handler = {
            let (sim, state) = (sim.clone(), state.clone());
            move |request| {
                let (sim, state) = (sim.clone(), state.clone());
                async move { route(&sim, &state, request).await }
            }
        };
        let server = Server::start(listen, handler).await?;
        Ok(Self { sim, state, server })
    }

    /// A customer writes; returns when the webhook was taken or given up.
    pub async fn customer_writes(&self, person: &str, text: &str) -> Posted {
        customer_writes(&self.sim, &self.state, person, text, None).await
    }

    /// A customer presses a button.
    pub async fn customer_presses(&self, person: &str, title: &str, payload: &str) -> Posted {
        let at = self.sim.now();
        self.state.opened(person, at);
        let mid = self.state.mid(&self.sim);
        let body = json!({"postback": {"mid": mid, "title": title, "payload": payload}});
        self.post(person, at, "postback", &mid, body).await
    }

    /// A customer withdraws a message (Instagram).
    pub async fn customer_unsends(&self, person: &str, mid: &str) -> Posted {
        let body = json!({"message": {"mid": mid, "is_deleted": true}});
        self.post(person, self.sim.now(), "unsend", mid, body).await
    }

    /// A reading at once: Messenger by watermark, Instagram by the message.
    pub async fn customer_reads(&self, person: &str, mid: &str) -> Posted {
        let at = self.sim.now();
        let body = webhook::read(&self.sim, &self.state, person, mid, at, at);
        self.sim.post(mid, "read", person, None, body).await
    }

    /// Posts any event, signed and redelivered as the platform does.
    pub async fn post_event(&self, event: &Value) -> Posted {
        self.sim.post("", "event", "", None, Bytes::from(event.to_string())).await
    }

    /// The signature header of a body.
    pub fn signature(&self, body: &[u8]) -> (&'static str, String) {
        self.sim.hook.proof.header(body)
    }

    /// Opens the window as if the customer had written then, without a webhook.
    pub fn open_window(&self, person: &str, at: Timestamp) {
        self.state.opened(person, at);
    }

    /// Until when free text to a customer is allowed by the platform; none: they never wrote.
    pub fn window_ends(&self, person: &str) -> Option<Timestamp> {
        self.state.wrote_at(person).map(|at| at.plus(WINDOW))
    }

    /// The merchant takes the app's authorization away: every token is refused from now on.
    pub fn revoke_tokens(&self) {
        locked(&self.state.tokens).revoke();
    }

    /// The merchant connects the account again: this token is good from now on.
    pub fn give_token(&self, token: &str) {
        locked(&self.state.tokens).give(token.to_owned(), self.sim.now());
    }

    /// How often a token was exchanged.
    pub fn exchanges(&self) -> u32 {
        locked(&self.state.tokens).exchanged()
    }

    async fn post(&self, person: &str, at: Timestamp, kind: &'static str, about: &str, event: Value) -> Posted {
        let body = webhook::from_person(&self.sim, &self.state, person, at, event);
        self.sim.post(about, kind, person, None, body).await
    }
}

impl State {
    /// A new message id: the same for the same seed and number of calls before.
    fn mid(&self, sim: &Sim) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let inner = format!("{:x}.{number:08x}", sim.options.seed);
        match self.product {
            MetaProduct::Messenger => format!("m_{}", data_encoding::BASE64URL_NOPAD.encode(inner.as_bytes())),
            MetaProduct::Instagram => format!("aWdf{}", data_encoding::BASE64URL_NOPAD.encode(inner.as_bytes())),
        }
    }

    fn opened(&self, person: &str, at: Timestamp) {
        let mut wrote = locked(&self.wrote);
        if wrote.len() >= CUSTOMERS_MAX && !wrote.contains_key(person) {
            return;
        }
        let last = wrote.entry(person.to_owned()).or_insert(at);
        *last = (*last).max(at);
    }

    fn wrote_at(&self, person: &str) -> Option<Timestamp> {
        locked(&self.wrote).get(person).copied()
    }
}

async fn customer_writes(sim: &Arc<Sim>, state: &State, person: &str, text: &str, mid: Option<String>) -> Posted {
    let at = sim.now();
    state.opened(person, at);
    let mid = mid.unwrap_or_else(|| state.mid(sim));
    let body = webhook::from_person(sim, state, person, at, json!({"message": {"mid": mid, "text": text}}));
    sim.post(&mid, "message", person, Some(text.to_owned()), body).await
}

async fn route(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    let path = request.path.clone();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let is_post = request.method == hyper::Method::POST;
    match parts.as_slice() {
        ["sim", "message"] if is_post => write_as_customer(sim, state, &mut request).await,
        ["sim", "ledger"] => super::show_ledger(sim),
        ["refresh_access_token"] if !is_post => tokens::refresh(sim, state, &request),
        [_version, "oauth", "access_token"] if !is_post => tokens::exchange_by_app(sim, state, &request),
        [_version, account, "messages"] if is_post => graph::messages(sim, state, account, request).await,
        [_version, account] if !is_post => graph::probe(sim, state, account, &request),
        _ => graph::unknown_path(),
    }
}

async fn write_as_customer(sim: &Arc<Sim>, state: &Arc<State>, request: &mut Request) -> Reply {
    let written = match super::read_written(request).await {
        Ok(written) => written,
        Err(reply) => return reply,
    };
    let person: String = written.from.chars().filter(char::is_ascii_digit).collect();
    let id = state.mid(sim);
    let (sim_too, state, mid) = (sim.clone(), state.clone(), id.clone());
    sim.spawn(async move {
        customer_writes(&sim_too, &state, &person, &written.text, Some(mid)).await;
    });
    json_reply(202, &json!({ "id": id }))
}

#[cfg(test)]
mod tests;
