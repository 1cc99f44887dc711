//! WhatsApp Cloud API, simulated.
//!
//! Serves `POST /{version}/{phone_number_id}/messages`, the probe `GET /{version}/{phone_number_id}`, and media: `GET /{version}/{id}`
//! gives a link that is good for five minutes and wants the token as well; posts messages and statuses to the hook, signed with the app secret, redelivered on anything but 200. For people: `POST /sim/message` lets a
//! customer write, `GET /sim/ledger` shows what happened.

mod graph;
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
use super::media::{PersonsFile, Shelf};
use super::{Answer, Call, Offered, Posted, Sim, SimOptions, common_face};
use crate::http::{Reply, Request, Server, json_reply};
use crate::locked;

pub use webhook::{STATUS_NAMES, Status};

/// How long a window stays open after the customer's last word.
pub const WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// Customers whose window is remembered.
const CUSTOMERS_MAX: usize = 2_000_000;

/// A simulated WhatsApp number.
pub struct WhatsappSim {
    sim: Arc<Sim>,
    state: Arc<State>,
    server: Server,
}

/// What only WhatsApp has.
pub(crate) struct State {
    /// When each customer wrote last, by the platform's time.
    wrote: Mutex<HashMap<String, Timestamp>>,
    next_id: AtomicU64,
    /// What people sent.
    files: Shelf,
}

/// A message that a customer writes. Start from `CustomerMessage::text`.
#[derive(Debug, Clone)]
pub struct CustomerMessage {
    /// The customer's number; only its digits count.
    pub from: String,
    /// What they write.
    pub text: String,
    /// Their profile name.
    pub name: String,
    /// The message's time as the platform says it; none: now. It decides when the platform's window opens.
    pub at: Option<Timestamp>,
    /// The platform's id; none: a new one.
    pub id: Option<String>,
    /// The platform's id of the message that it answers.
    pub reply_to: Option<String>,
}

impl CustomerMessage {
    /// Plain text, now.
    pub fn text(from: &str, text: &str) -> Self {
        Self { from: from.to_owned(), text: text.to_owned(), name: "Test Customer".to_owned(), at: None, id: None, reply_to: None }
    }
}

common_face!(WhatsappSim);

impl WhatsappSim {
    /// Starts it. Errors: the address cannot be bound.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let hook = Hook::new(Proof::signature(&options.secret), options.redelivery);
        let listen = options.listen;
        let sim = Sim::new(options, hook);
        let state = Arc::new(State { wrote: Mutex::default(), next_id: AtomicU64::new(1), files: Shelf::default() });
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
    pub async fn customer_writes(&self, phone: &str, text: &str) -> Posted {
        self.customer_sends(CustomerMessage::text(phone, text)).await
    }

    /// A customer writes, with everything chosen; returns when the webhook was taken or given up.
    pub async fn customer_sends(&self, message: CustomerMessage) -> Posted {
        customer_sends(&self.sim, &self.state, message).await
    }

    /// A customer sends a file; gives the platform's id of it. Returns when the webhook was taken or given up.
    pub async fn customer_sends_file(&self, phone: &str, file: PersonsFile) -> (String, Posted) {
        let (person, at) = (digits(phone), self.sim.now());
        let (wamid, id) = (self.state.wamid(&self.sim, &person), self.state.files.put(file.clone()));
        self.state.opened(&person, at);
        let body = webhook::file(&self.sim.options.account, &wamid, &person, &id, &file, at);
        (id, self.sim.post(&wamid, "message", &person, None, body).await)
    }

    /// The platform forgets a file, as it does after seven days.
    pub fn forget_file(&self, id: &str) {
        self.state.files.remove(id);
    }

    /// How often bytes of files were given out.
    pub fn files_served(&self) -> u64 {
        self.state.files.served()
    }

    /// Posts any event, signed and redelivered as the platform does.
    pub async fn post_event(&self, event: &Value) -> Posted {
        self.sim.post("", "event", "", None, Bytes::from(event.to_string())).await
    }

    /// A status of any message, at once.
    pub async fn post_status(&self, wamid: &str, to: &str, status: Status, callback: Option<&str>) -> Posted {
        let body = webhook::status(&self.sim.options.account, wamid, to, status, self.sim.now(), callback);
        self.sim.post(wamid, status.name(), to, None, body).await
    }

    /// The webhook of a customer's message as it would be posted now, without posting it: for forgeries and load.
    pub fn message_body(&self, message: &CustomerMessage) -> Bytes {
        let id = message.id.clone().unwrap_or_else(|| self.state.wamid(&self.sim, &digits(&message.from)));
        webhook::message(&self.sim.options.account, &id, message, message.at.unwrap_or(self.sim.now()))
    }

    /// The signature header of a body.
    pub fn signature(&self, body: &[u8]) -> (&'static str, String) {
        self.sim.hook.proof.header(body)
    }

    /// Opens the window as if the customer had written then, without a webhook.
    pub fn open_window(&self, phone: &str, at: Timestamp) {
        self.state.opened(&digits(phone), at);
    }

    /// Until when free text to a customer is allowed by the platform; none: they never wrote.
    pub fn window_ends(&self, phone: &str) -> Option<Timestamp> {
        self.state.window_ends(&digits(phone))
    }
}

impl State {
    /// A new message id: the same for the same seed and number of calls before.
    fn wamid(&self, sim: &Sim, person: &str) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let inner = format!("{person}.{:x}.{number:08x}", sim.options.seed);
        format!("wamid.{}", data_encoding::BASE64.encode(inner.as_bytes()))
    }

    fn opened(&self, person: &str, at: Timestamp) {
        let mut wrote = locked(&self.wrote);
        if wrote.len() >= CUSTOMERS_MAX && !wrote.contains_key(person) {
            return;
        }
        let last = wrote.entry(person.to_owned()).or_insert(at);
        *last = (*last).max(at);
    }

    fn window_ends(&self, person: &str) -> Option<Timestamp> {
        locked(&self.wrote).get(person).map(|at| at.plus(WINDOW))
    }
}

/// A number's digits: how the platform keys people.
fn digits(phone: &str) -> String {
    phone.chars().filter(char::is_ascii_digit).collect()
}

async fn customer_sends(sim: &Arc<Sim>, state: &State, message: CustomerMessage) -> Posted {
    let person = digits(&message.from);
    let id = message.id.clone().unwrap_or_else(|| state.wamid(sim, &person));
    let at = message.at.unwrap_or(sim.now());
    state.opened(&person, at.min(sim.now()));
    let body = webhook::message(&sim.options.account, &id, &message, at);
    sim.post(&id, "message", &person, Some(message.text), body).await
}

async fn route(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    let path = request.path.clone();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let is_post = request.method == hyper::Method::POST;
    match parts.as_slice() {
        ["sim", "message"] if is_post => write_as_customer(sim, state, &mut request).await,
        ["sim", "ledger"] => super::show_ledger(sim),
        [_version, account, "messages"] if is_post => graph::messages(sim, state, account, request).await,
        ["media", id] if !is_post => graph::bytes_of(sim, state, id, &request),
        [_version, id] if !is_post && state.files.get(id).is_some() => graph::where_is(sim, state, id, &request),
        [_version, account] if !is_post => graph::probe(sim, account, &request),
        _ => graph::unknown_path(),
    }
}

async fn write_as_customer(sim: &Arc<Sim>, state: &Arc<State>, request: &mut Request) -> Reply {
    let written = match super::read_written(request).await {
        Ok(written) => written,
        Err(reply) => return reply,
    };
    let mut message = CustomerMessage::text(&written.from, &written.text);
    message.name = written.name.unwrap_or(message.name);
    let id = state.wamid(sim, &digits(&message.from));
    message.id = Some(id.clone());
    let (sim_too, state) = (sim.clone(), state.clone());
    sim.spawn(async move {
        customer_sends(&sim_too, &state, message).await;
    });
    json_reply(202, &json!({ "id": id }))
}

#[cfg(test)]
mod tests;
