//! TikTok Business Messaging, simulated.
//!
//! Serves `POST /open_api/v1.3/business/message/send/` and the token methods; posts messages, echoes and readings to the hook,
//! signed with the client secret over a time and the body, redelivered on anything but 2xx with the signature of the first try.
//! Strict where the platform is: the slash at the end, the `Access-Token` header, lengths, the window of 48 h and the ten messages
//! until the person writes again; and HTTP 200 for every answer. The refresh token changes when it is used.
//! For people: `POST /sim/message` lets a customer write, `GET /sim/ledger` shows what happened.

mod api;
mod webhook;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use messaging::clock::{SharedClock, Timestamp};
use serde_json::{Value, json};
use sha2::Sha256;

use super::hook::{Hook, Proof};
use super::{Answer, Call, Offered, Posted, Sim, SimOptions, common_face};
use crate::http::{Reply, Request, Server, json_reply};
use crate::locked;

/// How long a window stays open after the customer's last word.
pub const WINDOW: Duration = Duration::from_secs(48 * 3_600);
/// Messages of the business until the customer writes again.
pub const CAP: u32 = 10;
/// The app's key: whose rate and whose webhooks they are.
pub const CLIENT_KEY: &str = "7000000000000000001";
/// The first refresh token.
pub const REFRESH_TOKEN: &str = "rft.sim.0";
/// Customers whose window is remembered.
const CUSTOMERS_MAX: usize = 2_000_000;

/// A simulated business account.
pub struct TiktokSim {
    sim: Arc<Sim>,
    state: Arc<State>,
    server: Server,
}

/// What only TikTok has.
pub(crate) struct State {
    /// By conversation: when the customer wrote last by the platform's time, and messages of the business since.
    wrote: Mutex<HashMap<String, (Timestamp, u32)>>,
    tokens: Mutex<Tokens>,
    next_id: AtomicU64,
}

/// What is good now.
struct Tokens {
    access: String,
    refresh: String,
    refreshed: u32,
    /// When the access token ends, when a test wants that.
    access_until: Option<Timestamp>,
    /// How long one lasts, when a test wants them to end.
    life: Option<Duration>,
    /// Answers to refreshes that are lost on their way.
    lose: u32,
}

impl Tokens {
    fn is_good(&self, access: &str, now: Timestamp) -> bool {
        !self.access.is_empty() && self.access == access && self.access_until.is_none_or(|until| now < until)
    }
}

common_face!(TiktokSim);

impl TiktokSim {
    /// Starts it. The options' `account` is the business id, `credential` the first access token, `secret` the client secret.
    /// Errors: the address cannot be bound.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let hook = Hook::new(proof(&options.secret, options.clock.clone()), options.redelivery);
        let listen = options.listen;
        let tokens = Tokens {
            access: options.credential.clone(),
            refresh: REFRESH_TOKEN.to_owned(),
            refreshed: 0,
            access_until: None,
            life: None,
            lose: 0,
        };
        let sim = Sim::new(options, hook);
        let state = Arc::new(State { wrote: Mutex::default(), tokens: Mutex::new(tokens), next_id: AtomicU64::new(1) });
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
    pub async fn customer_writes(&self, conversation: &str, text: &str) -> Posted {
        customer_writes(&self.sim, &self.state, conversation, text, None).await
    }

    /// A customer presses a button of a card: the platform writes its label as their text.
    pub async fn customer_presses(&self, conversation: &str, label: &str, id: &str) -> Posted {
        let at = self.sim.now();
        self.state.opened(conversation, at);
        let message = self.state.message_id(&self.sim);
        let said = json!({"type": "text", "text": {"body": label}, "reply_source_payload": {"reply_source_unique_id": id}});
        let body = webhook::from_person(&self.sim, "im_receive_msg", conversation, at, Some(&message), said);
        self.sim.post(&message, "press", conversation, None, body).await
    }

    /// A customer reacts to a message; nothing opens by it.
    pub async fn customer_reacts(&self, conversation: &str, target: &str, emoji: &str) -> Posted {
        let at = self.sim.now();
        let message = self.state.message_id(&self.sim);
        let one = json!({"operation": "ADD", "type": "EMOJI", "emoji": emoji, "timestamp": at.as_millis(), "original_msg_id": target});
        let said = json!({"type": "reaction", "reaction": [one]});
        let body = webhook::from_person(&self.sim, "im_receive_msg", conversation, at, Some(&message), said);
        self.sim.post(&message, "reaction", conversation, None, body).await
    }

    /// A customer has read everything until now.
    pub async fn customer_reads(&self, conversation: &str) -> Posted {
        let at = self.sim.now();
        self.sim.post("", "read", conversation, None, webhook::read(&self.sim, conversation, at)).await
    }

    /// Somebody in Europe writes: the platform tells that, and nothing else.
    pub async fn european_writes(&self) -> Posted {
        self.sim.post("", "event", "", None, webhook::european(&self.sim)).await
    }

    /// The merchant takes the app's authorization away: calls are refused from now on.
    pub async fn remove_authorization(&self) -> Posted {
        locked(&self.state.tokens).access.clear();
        locked(&self.state.tokens).refresh.clear();
        let body = webhook::envelope(&self.sim, "authorization.removed", &json!({"reason": 1}));
        self.sim.post("", "event", "", None, body).await
    }

    /// Posts any event, signed and redelivered as the platform does.
    pub async fn post_event(&self, event: &Value) -> Posted {
        self.sim.post("", "event", "", None, Bytes::from(event.to_string())).await
    }

    /// The signature header of a body, signed now.
    pub fn signature(&self, body: &[u8]) -> (&'static str, String) {
        self.sim.hook.proof.header(body)
    }

    /// Opens the window as if the customer had written then, without a webhook.
    pub fn open_window(&self, conversation: &str, at: Timestamp) {
        self.state.opened(conversation, at);
    }

    /// Until when a customer may be written to; none: they never wrote.
    pub fn window_ends(&self, conversation: &str) -> Option<Timestamp> {
        self.state.wrote(conversation).map(|(at, _)| at.plus(WINDOW))
    }

    /// The access token ends now, as it does every day: calls are refused until it is refreshed.
    pub fn expire_token(&self) {
        locked(&self.state.tokens).access.clear();
    }

    /// Access tokens end so long after they were given, the present one counted from now on.
    pub fn tokens_end_after(&self, life: Duration) {
        let mut tokens = locked(&self.state.tokens);
        (tokens.life, tokens.access_until) = (Some(life), Some(self.sim.now().plus(life)));
    }

    /// The answers to the next so many refreshes are lost on their way, although the tokens have changed.
    pub fn lose_refreshes(&self, count: u32) {
        locked(&self.state.tokens).lose = count;
    }

    /// Both tokens are refused from now on, without a word.
    pub fn revoke(&self) {
        let mut tokens = locked(&self.state.tokens);
        tokens.access.clear();
        tokens.refresh.clear();
    }

    /// The merchant connects the account again: these tokens are good from now on.
    pub fn give_tokens(&self, access: &str, refresh: &str) {
        let mut tokens = locked(&self.state.tokens);
        access.clone_into(&mut tokens.access);
        refresh.clone_into(&mut tokens.refresh);
        tokens.access_until = tokens.life.map(|life| self.sim.now().plus(life));
    }

    /// How often the tokens were refreshed.
    pub fn refreshes(&self) -> u32 {
        locked(&self.state.tokens).refreshed
    }
}

impl State {
    /// A new message id: the same for the same seed and number of calls before.
    fn message_id(&self, sim: &Sim) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        data_encoding::BASE64.encode(format!("tt.{:x}.{number:08x}", sim.options.seed).as_bytes())
    }

    fn opened(&self, conversation: &str, at: Timestamp) {
        let mut wrote = locked(&self.wrote);
        if wrote.len() >= CUSTOMERS_MAX && !wrote.contains_key(conversation) {
            return;
        }
        let last = wrote.entry(conversation.to_owned()).or_insert((at, 0));
        *last = (last.0.max(at), 0);
    }

    fn wrote(&self, conversation: &str) -> Option<(Timestamp, u32)> {
        locked(&self.wrote).get(conversation).copied()
    }

    /// One of the messages until the customer writes again was used.
    fn used(&self, conversation: &str) {
        if let Some((_, sent)) = locked(&self.wrote).get_mut(conversation) {
            *sent += 1;
        }
    }
}

/// The header over a time and the body. Computed once an event: what is brought again is as old as it is.
fn proof(secret: &str, clock: SharedClock) -> Proof {
    let state: Hmac<Sha256> = Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    Proof::Headers(Box::new(move |body| {
        let at = clock.now().as_secs();
        let mut mac = state.clone();
        mac.update(format!("{at}.").as_bytes());
        mac.update(body);
        vec![("tiktok-signature", format!("t={at},s={}", HEXLOWER.encode(&mac.finalize().into_bytes())))]
    }))
}

async fn customer_writes(sim: &Arc<Sim>, state: &State, conversation: &str, text: &str, id: Option<String>) -> Posted {
    let at = sim.now();
    state.opened(conversation, at);
    let id = id.unwrap_or_else(|| state.message_id(sim));
    let said = json!({"type": "text", "text": {"body": text}});
    let body = webhook::from_person(sim, "im_receive_msg", conversation, at, Some(&id), said);
    sim.post(&id, "message", conversation, Some(text.to_owned()), body).await
}

async fn route(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    let path = request.path.clone();
    let is_post = request.method == hyper::Method::POST;
    match path.as_str() {
        "/sim/message" if is_post => write_as_customer(sim, state, &mut request).await,
        "/sim/ledger" => super::show_ledger(sim),
        "/open_api/v1.3/business/message/send/" if is_post => api::send(sim, state, request).await,
        "/open_api/v1.3/tt_user/token_info/get/" if is_post => api::token_info(sim, state, request).await,
        "/open_api/v1.3/tt_user/oauth2/refresh_token/" if is_post => api::refresh(sim, state, request).await,
        _ => api::unknown_path(),
    }
}

async fn write_as_customer(sim: &Arc<Sim>, state: &Arc<State>, request: &mut Request) -> Reply {
    let written = match super::read_written(request).await {
        Ok(written) => written,
        Err(reply) => return reply,
    };
    let digits: String = written.from.chars().filter(char::is_ascii_digit).collect();
    let conversation = data_encoding::BASE64.encode(digits.as_bytes());
    let id = state.message_id(sim);
    let answer = json!({ "id": id, "conversation_id": conversation });
    let (sim_too, state) = (sim.clone(), state.clone());
    sim.spawn(async move {
        customer_writes(&sim_too, &state, &conversation, &written.text, Some(id)).await;
    });
    json_reply(202, &answer)
}

#[cfg(test)]
mod tests;
