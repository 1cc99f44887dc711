//! A WooCommerce shop, simulated.
//!
//! Tells of its orders by webhooks: signed over the body only, with the topic in a header, each **once**; after five refusals in a
//! row the webhook is disabled, and what happens then is told to nobody. Serves the orders of `GET /wp-json/wc/v3/orders` and takes
//! notes to customers. Strict where the platform is: the keys, UTC only where it is asked for, the ping that wants exactly 200.
//! For people: `POST /sim/message` lets a customer order, `GET /sim/ledger` shows what happened.

mod rest;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use messaging::clock::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use super::hook::{Hook, Proof};
use super::{Answer, Call, Offered, Posted, Redelivery, Sim, SimOptions, common_face};
use crate::http::{Client, Reply, Request, Server, json_reply};
use crate::locked;

/// The shop's address, as it stands in headers.
pub const SOURCE: &str = "https://shop.example.com/";
/// The secret beside the consumer key, which is the options' credential.
pub const CONSUMER_SECRET: &str = "cs_sim";
/// Refusals in a row that disable the webhook: five, as the documentation says; the source is more patient by two.
pub const DISABLED_AFTER: u32 = 5;
/// The webhook's number.
const WEBHOOK: u64 = 142;
/// The first order's number.
const FIRST_ORDER: u64 = 727;
/// Orders that are remembered.
const ORDERS_MAX: usize = 1_000_000;
/// How long the shop waits for an answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// A simulated shop.
pub struct WoocommerceSim {
    sim: Arc<Sim>,
    state: Arc<State>,
    server: Server,
}

/// What only a shop has.
pub(crate) struct State {
    orders: Mutex<BTreeMap<u64, Value>>,
    next_order: AtomicU64,
    next_note: AtomicU64,
    /// Answers with orders.
    asked: AtomicU64,
    webhook: Mutex<Webhook>,
}

/// The webhook's standing.
struct Webhook {
    active: bool,
    /// Refusals in a row.
    failures: u32,
    /// Events that nobody was told of while it was disabled.
    untold: u64,
    /// The webhook's owner may not see orders any more: an error is told in their place.
    rights_lost: bool,
}

common_face!(WoocommerceSim);

impl WoocommerceSim {
    /// Starts it, with an active webhook. The options' `secret` is the webhook's, `credential` the consumer key; whatever they say,
    /// nothing is brought again. Errors: the address cannot be bound.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let hook = Hook::new(proof(&options.secret), Redelivery::NONE);
        let listen = options.listen;
        let sim = Sim::new(options, hook);
        let state = Arc::new(State {
            orders: Mutex::default(),
            next_order: AtomicU64::new(FIRST_ORDER),
            next_note: AtomicU64::new(281),
            asked: AtomicU64::new(0),
            webhook: Mutex::new(Webhook { active: true, failures: 0, untold: 0, rights_lost: false }),
        });
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

    /// A customer orders, with a note that they write beside; gives the order's number and what became of the webhook.
    pub async fn customer_orders(&self, customer_note: &str) -> (u64, Posted) {
        let id = self.state.make_order(&self.sim, customer_note);
        (id, self.tell_order(id, "order.created").await)
    }

    /// The shop changes an order's status.
    pub async fn change_order(&self, id: u64, status: &str) -> Posted {
        self.state.change_order(&self.sim, id, status);
        self.tell_order(id, "order.updated").await
    }

    /// The shop puts an order into the bin: only its number is told.
    pub async fn bin_order(&self, id: u64) -> Posted {
        self.state.change_order(&self.sim, id, "trash");
        tell(&self.sim, &self.state, "order.deleted", id, None, json!({ "id": id })).await
    }

    /// The shop takes an order out of the bin.
    pub async fn restore_order(&self, id: u64) -> Posted {
        self.state.change_order(&self.sim, id, "processing");
        self.tell_order(id, "order.restored").await
    }

    /// Tells of any topic, as the shop does: once, and not while the webhook is disabled.
    pub async fn post_topic(&self, topic: &'static str, body: &Value) -> Posted {
        tell(&self.sim, &self.state, topic, 0, None, body.clone()).await
    }

    /// The ping of a webhook that is being activated: a form that nobody signed. Gives the status; none: no answer.
    pub async fn ping(&self, url: &str) -> Option<u16> {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = Client::new(PING_TIMEOUT).post(url, &headers, format!("webhook_id={WEBHOOK}")).await;
        answer.ok().map(|answer| answer.status)
    }

    /// Somebody enables the webhook again. Nothing of what was missed is told.
    pub fn enable(&self) {
        let mut webhook = locked(&self.state.webhook);
        (webhook.active, webhook.failures) = (true, 0);
    }

    /// Whether the webhook is enabled: refusals disable it.
    pub fn is_enabled(&self) -> bool {
        locked(&self.state.webhook).active
    }

    /// How often orders were asked for, with the right keys. A pull asks twice at least.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::Relaxed)
    }

    /// Events that nobody was told of, because the webhook was disabled.
    pub fn untold(&self) -> u64 {
        locked(&self.state.webhook).untold
    }

    /// The webhook's owner loses, or gets back, the right to see orders.
    pub fn set_rights_lost(&self, lost: bool) {
        locked(&self.state.webhook).rights_lost = lost;
    }

    /// The signature header of a body.
    pub fn signature(&self, body: &[u8]) -> (&'static str, String) {
        self.sim.hook.proof.header(body)
    }

    async fn tell_order(&self, id: u64, topic: &'static str) -> Posted {
        let order = self.state.order(id).unwrap_or_default();
        let text = order["customer_note"].as_str().map(str::to_owned);
        tell(&self.sim, &self.state, topic, id, text, order).await
    }
}

impl State {
    fn make_order(&self, sim: &Sim, customer_note: &str) -> u64 {
        let id = self.next_order.fetch_add(1, Ordering::Relaxed);
        let now = gmt(sim.now());
        let order = json!({
            "id": id, "number": id.to_string(), "status": "processing", "currency": "USD", "total": "29.35", "customer_id": 0,
            "date_created_gmt": now, "date_modified_gmt": now, "customer_note": customer_note,
            "billing": { "first_name": "Test", "last_name": "Customer", "email": "test@example.com", "phone": "(555) 555-0143" },
            "line_items": [{ "id": 315, "name": "Example mug", "quantity": 2, "price": 3 }], "refunds": [], "meta_data": [],
            "_links": { "self": [{ "href": format!("{SOURCE}wp-json/wc/v3/orders/{id}") }] },
        });
        let mut orders = locked(&self.orders);
        if orders.len() < ORDERS_MAX {
            orders.insert(id, order);
        }
        id
    }

    fn change_order(&self, sim: &Sim, id: u64, status: &str) {
        if let Some(order) = locked(&self.orders).get_mut(&id) {
            order["status"] = json!(status);
            order["date_modified_gmt"] = json!(gmt(sim.now()));
        }
    }

    fn order(&self, id: u64) -> Option<Value> {
        locked(&self.orders).get(&id).cloned()
    }

    /// Whether an event is told now; counts it when it is not.
    fn may_tell(&self) -> bool {
        let mut webhook = locked(&self.webhook);
        webhook.untold += u64::from(!webhook.active);
        webhook.active
    }

    fn told(&self, posted: &Posted) {
        let mut webhook = locked(&self.webhook);
        webhook.failures = if posted.accepted { 0 } else { webhook.failures + 1 };
        webhook.active &= webhook.failures < DISABLED_AFTER;
    }
}

/// A time as the shop writes it: whole seconds, UTC, no zone.
fn gmt(at: Timestamp) -> String {
    let text = at.to_string();
    text.split('.').next().unwrap_or_default().to_owned()
}

fn proof(secret: &str) -> Proof {
    let state: Hmac<Sha256> = Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    Proof::Headers(Box::new(move |body| {
        let mut mac = state.clone();
        mac.update(body);
        vec![("x-wc-webhook-signature", BASE64.encode(&mac.finalize().into_bytes()))]
    }))
}

async fn tell(sim: &Sim, state: &State, topic: &'static str, id: u64, text: Option<String>, body: Value) -> Posted {
    if !state.may_tell() {
        return Posted { accepted: false, tries: 0, last_status: None, ambiguous: false, dangerous_bodies: 0 };
    }
    let body = if locked(&state.webhook).rights_lost { rest::rights_lost() } else { body };
    let (resource, event) = topic.split_once('.').unwrap_or((topic, ""));
    // Like the platform's, it is a hash of the second: two events within one share it.
    let delivery = format!("{:032x}", sim.now().as_secs() ^ (WEBHOOK << 40));
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-wc-webhook-source", SOURCE.to_owned()),
        ("x-wc-webhook-topic", topic.to_owned()),
        ("x-wc-webhook-resource", resource.to_owned()),
        ("x-wc-webhook-event", event.to_owned()),
        ("x-wc-webhook-id", WEBHOOK.to_string()),
        ("x-wc-webhook-delivery-id", delivery),
    ];
    let about = if id == 0 { String::new() } else { id.to_string() };
    let posted = sim.post_with(&about, topic, &about, text, Bytes::from(body.to_string()), &headers).await;
    state.told(&posted);
    posted
}

async fn route(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    let path = request.path.clone();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let is_post = request.method == hyper::Method::POST;
    match parts.as_slice() {
        ["sim", "message"] if is_post => order_as_customer(sim, state, &mut request).await,
        ["sim", "ledger"] => super::show_ledger(sim),
        ["wp-json", "wc", "v3", "orders"] if !is_post => rest::orders(sim, state, &request),
        ["wp-json", "wc", "v3", "orders", id, "notes"] if is_post => rest::note(sim, state, id, request).await,
        _ => rest::unknown_path(),
    }
}

async fn order_as_customer(sim: &Arc<Sim>, state: &Arc<State>, request: &mut Request) -> Reply {
    let written = match super::read_written(request).await {
        Ok(written) => written,
        Err(reply) => return reply,
    };
    let id = state.make_order(sim, &written.text);
    let (sim_too, state) = (sim.clone(), state.clone());
    sim.spawn(async move {
        let order = state.order(id).unwrap_or_default();
        tell(&sim_too, &state, "order.created", id, Some(written.text), order).await;
    });
    json_reply(202, &json!({ "order_id": id }))
}

#[cfg(test)]
mod tests;
