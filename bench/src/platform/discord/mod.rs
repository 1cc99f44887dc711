//! Discord, simulated: three doors in one.
//!
//! * The API by HTTP: messages with nonces, reactions, typing, direct conversations, answers through interaction tokens, with buckets
//!   and their headers.
//! * The address for interactions and webhook events, signed with the application's Ed25519 key. Interactions are posted once and want
//!   a JSON answer; events are brought again until 204.
//! * The Gateway (`socket`): what people write comes there, to the sessions that want it.
//!
//! Strict where the platform is: the caller's name, lengths, closed conversations, tokens of 15 minutes, sessions that may be resumed.
//! For people: `POST /sim/message` lets a customer write (by a command while no session hears them), `GET /sim/ledger` shows what
//! happened.

mod api;
mod people;
mod sessions;
mod socket;
mod told;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use messaging::clock::SharedClock;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::hook::{Hook, Proof};
use super::{Answer, Call, Offered, Posted, Sim, SimOptions, common_face};
use crate::http::{Reply, Request, Server, json_reply};
use crate::monotonic_us;
use people::People;
use sessions::Told;
pub use sessions::{SessionView, Sessions};
use socket::Socket;

/// How long an interaction's token can be used.
pub const TOKEN_FOR: Duration = Duration::from_secs(15 * 60);
/// Milliseconds from the Unix epoch to Discord's.
const EPOCH_MS: u64 = 1_420_070_400_000;
/// Bits of an id below its time.
const TIME_SHIFT: u32 = 22;

/// A simulated application with its bot.
pub struct DiscordSim {
    sim: Arc<Sim>,
    state: Arc<State>,
    server: Server,
    socket: Socket,
}

/// What only Discord has.
pub(crate) struct State {
    people: People,
    sessions: Sessions,
    public_key: String,
    gateway: String,
    next_id: AtomicU64,
}

common_face!(DiscordSim);

/// What became of an interaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Its id.
    pub interaction: String,
    /// Its token.
    pub token: String,
    /// Whether the post was taken.
    pub posted: Posted,
    /// The `type` of the answer; none: there was no such answer.
    pub kind: Option<u64>,
}

impl DiscordSim {
    /// Starts it. The options' `account` is the id of the application and of its bot, `credential` the bot's token, and the
    /// application's key is made of `secret`. Errors: an address cannot be bound.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let key = key(&options.secret);
        let public_key = HEXLOWER.encode(key.public_key().as_ref());
        let hook = Hook::new(proof(key, options.clock.clone()), options.redelivery);
        let listen = options.listen;
        let listener = socket::bind(listen.ip()).await?;
        let gateway = format!("ws://{}", listener.local_addr()?);
        let sim = Sim::new(options, hook);
        let (people, sessions) = (People::default(), Sessions::default());
        let state = Arc::new(State { people, sessions, public_key, gateway, next_id: AtomicU64::new(1) });
        let socket = Socket::start(listener, sim.clone(), state.clone());
        let handler = {
            let (sim, state) = (sim.clone(), state.clone());
            move |request| {
                let (sim, state) = (sim.clone(), state.clone());
                async move { route(&sim, &state, request).await }
            }
        };
        let server = Server::start(listen, handler).await?;
        Ok(Self { sim, state, server, socket })
    }

    /// The application's public key, as an account holds it.
    pub fn public_key(&self) -> &str {
        &self.state.public_key
    }

    /// Where the Gateway listens.
    pub fn gateway_url(&self) -> &str {
        &self.state.gateway
    }

    /// The channel of a person's direct conversation; it is opened when it is not yet.
    pub fn direct_channel(&self, user: &str) -> String {
        self.state.direct_channel(&self.sim, user)
    }

    /// A person writes to the bot: told to the sessions that want it. Not accepted: there is none.
    pub async fn customer_writes(&self, user: &str, text: &str) -> Posted {
        customer_writes(&self.sim, &self.state, user, text, None)
    }

    /// A person speaks: by the Gateway where a session hears it, else by a command, which needs none.
    pub async fn customer_says(&self, user: &str, text: &str) -> Posted {
        customer_says(&self.sim, &self.state, user, text).await
    }

    /// A person writes in a channel of a guild.
    pub async fn member_writes(&self, guild: &str, channel: &str, user: &str, text: &str) -> Posted {
        let id = self.state.id(&self.sim);
        let mut message = told::message(&self.sim, &id, channel, user, text);
        message["guild_id"] = json!(guild);
        message["channel_type"] = json!(0);
        message["member"] = json!({ "roles": [] });
        tell(&self.sim, &self.state, &id, "message", user, Some(text), Told::in_guild("MESSAGE_CREATE", guild, message))
    }

    /// A person changes a message of theirs.
    pub async fn customer_edits(&self, user: &str, message: &str, text: &str) -> Posted {
        let channel = self.direct_channel(user);
        let mut changed = told::message(&self.sim, message, &channel, user, text);
        changed["edited_timestamp"] = json!(told::time(self.sim.now()));
        tell(&self.sim, &self.state, message, "edit", user, None, Told::direct("MESSAGE_UPDATE", changed))
    }

    /// A person withdraws a message.
    pub async fn customer_deletes(&self, user: &str, message: &str) -> Posted {
        let gone = json!({ "id": message, "channel_id": self.direct_channel(user) });
        tell(&self.sim, &self.state, message, "delete", user, None, Told::direct("MESSAGE_DELETE", gone))
    }

    /// A person reacts to a message.
    pub async fn customer_reacts(&self, user: &str, message: &str, emoji: &str) -> Posted {
        let reaction = told::reaction(user, &self.direct_channel(user), message, emoji);
        tell(&self.sim, &self.state, message, "reaction", user, None, Told::reaction(reaction))
    }

    /// A person uses a command in the direct conversation; posted once, as the platform does.
    pub async fn customer_commands(&self, user: &str, name: &str, options: Value) -> Answered {
        let data = json!({ "id": "1", "name": name, "type": 1, "options": options });
        self.interaction(user, 2, data, None).await
    }

    /// A person presses a button below a message.
    pub async fn customer_presses(&self, user: &str, message: &str, custom_id: &str, label: &str) -> Answered {
        let button = json!({ "type": 2, "style": 1, "label": label, "custom_id": custom_id });
        let below = json!({ "id": message, "components": [{ "type": 1, "components": [button] }] });
        self.interaction(user, 3, json!({ "component_type": 2, "custom_id": custom_id }), Some(below)).await
    }

    /// The same command while the application has no address for interactions: it comes by the Gateway.
    pub fn customer_commands_by_gateway(&self, user: &str, name: &str) -> Answered {
        let data = json!({ "id": "1", "name": name, "type": 1, "options": [] });
        let (interaction, token, body) = make_interaction(&self.sim, &self.state, user, 2, data, None);
        let about = Told::anyone("INTERACTION_CREATE", body);
        let posted = tell(&self.sim, &self.state, &interaction, "interaction", user, None, about);
        Answered { interaction, token, posted, kind: None }
    }

    /// A person takes the application away.
    pub async fn customer_deauthorizes(&self, user: &str) -> Posted {
        self.webhook_event("APPLICATION_DEAUTHORIZED", &json!({ "user": told::person(user) })).await
    }

    /// Posts a webhook event, signed and brought again.
    pub async fn webhook_event(&self, kind: &str, data: &Value) -> Posted {
        let event = json!({ "type": kind, "timestamp": told::time(self.sim.now()), "data": data });
        let body = json!({ "version": 1, "application_id": self.sim.options.account, "type": 1, "event": event });
        self.sim.post("", "event", "", None, Bytes::from(body.to_string())).await
    }

    /// What Discord does when an address is entered, and from time to time: pings it, and sends wrong signatures that must be refused.
    /// Says what was wrong; none: the address is kept.
    pub async fn check_address(&self) -> Option<String> {
        let ping = told::ping(&self.sim, &self.state.id(&self.sim));
        let (_, answer) = self.sim.hook.deliver_once(ping.clone(), true).await;
        match answer {
            Some(answer) if answer.status == 200 && kind_of(&answer.body) == Some(1) => {}
            answer => return Some(format!("a ping was answered {:?}", answer.map(|answer| answer.status))),
        }
        let (_, answer) = self.sim.hook.deliver_once(ping, false).await;
        let status = answer.map(|answer| answer.status);
        (status != Some(401)).then(|| format!("a wrong signature was answered {status:?}"))
    }

    /// The headers of a body, signed now.
    pub fn signature(&self, body: &[u8]) -> Vec<(&'static str, String)> {
        self.sim.hook.proof.headers(body)
    }

    /// Nobody may write to this person any more (they closed their direct messages, or left), or may again.
    pub fn set_closed(&self, user: &str, closed: bool) {
        self.state.people.set_closed(user, closed);
    }

    /// Calls to one channel within a span; more are answered 429. `u32::MAX`: any number.
    pub fn set_bucket(&self, calls: u32, within: Duration) {
        self.state.people.set_bucket(calls, within);
    }

    /// The Gateway's sessions: what it tells, resumes and does wrong.
    pub fn sessions(&self) -> &Sessions {
        &self.state.sessions
    }

    /// Whether the Gateway still takes connections.
    pub fn is_listening(&self) -> bool {
        self.socket.is_listening()
    }

    async fn interaction(&self, user: &str, kind: u64, data: Value, below: Option<Value>) -> Answered {
        interaction(&self.sim, &self.state, user, kind, data, below).await
    }
}

impl State {
    /// A new id: a snowflake of this time.
    fn id(&self, sim: &Sim) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed) & ((1 << TIME_SHIFT) - 1);
        ((sim.now().as_millis().saturating_sub(EPOCH_MS) << TIME_SHIFT) | number).to_string()
    }

    fn direct_channel(&self, sim: &Sim, user: &str) -> String {
        self.people.direct_channel(user, || self.id(sim))
    }
}

/// The application's key pair.
fn key(secret: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&Sha256::digest(secret.as_bytes())).expect("a hash has the length of a seed")
}

fn proof(key: Ed25519KeyPair, clock: SharedClock) -> Proof {
    Proof::Headers(Box::new(move |body| {
        let time = clock.now().as_secs().to_string();
        let signature = key.sign(&[time.as_bytes(), body].concat());
        vec![("x-signature-ed25519", HEXLOWER.encode(signature.as_ref())), ("x-signature-timestamp", time)]
    }))
}

/// The `type` of an answer.
fn kind_of(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(body).ok()?.get("type")?.as_u64()
}

/// Tells the sessions, and notes it.
fn tell(sim: &Sim, state: &State, id: &str, kind: &'static str, from: &str, text: Option<&str>, about: Told) -> Posted {
    let (at, begun_us) = (sim.now(), monotonic_us());
    let taken = state.sessions.tell(&about);
    let posted = Posted { accepted: taken, tries: 1, last_status: None, ambiguous: false, dangerous_bodies: 0 };
    let (platform_id, from, text) = (id.to_owned(), from.to_owned(), text.map(str::to_owned));
    sim.ledger.offer(Offered { platform_id, kind, from, text, at, begun_us, answered_us: monotonic_us(), posted: posted.clone() });
    posted
}

fn customer_writes(sim: &Sim, state: &State, user: &str, text: &str, id: Option<String>) -> Posted {
    let (id, channel) = (id.unwrap_or_else(|| state.id(sim)), state.direct_channel(sim, user));
    let message = told::message(sim, &id, &channel, user, text);
    tell(sim, state, &id, "message", user, Some(text), Told::direct("MESSAGE_CREATE", message))
}

/// Posts an interaction, once.
async fn interaction(sim: &Sim, state: &State, user: &str, kind: u64, data: Value, below: Option<Value>) -> Answered {
    let (interaction, token, body) = make_interaction(sim, state, user, kind, data, below);
    let (at, begun_us) = (sim.now(), monotonic_us());
    let (posted, answer) = sim.hook.deliver_once(Bytes::from(body.to_string()), true).await;
    let offered = Offered {
        platform_id: interaction.clone(),
        kind: "interaction",
        from: user.to_owned(),
        text: None,
        at,
        begun_us,
        answered_us: monotonic_us(),
        posted: posted.clone(),
    };
    sim.ledger.offer(offered);
    let kind = answer.filter(|answer| answer.status == 200).and_then(|answer| kind_of(&answer.body));
    if kind.is_none() {
        // Nobody answered in time: the token dies.
        state.people.forget_token(&token);
    }
    Answered { interaction, token, posted, kind }
}

fn make_interaction(sim: &Sim, state: &State, user: &str, kind: u64, data: Value, below: Option<Value>) -> (String, String, Value) {
    let (id, channel) = (state.id(sim), state.direct_channel(sim, user));
    let token = format!("sim.{id}.{}", sim.options.seed);
    state.people.add_token(&token, &channel, sim.now());
    let mut body = told::interaction(sim, &id, &token, kind, &channel, user);
    body["data"] = data;
    if let Some(below) = below {
        body["message"] = below;
    }
    (id, token, body)
}

/// A person speaks: by the Gateway where a session hears it, else by the command `/say`, which is all that reaches an application
/// without a session.
async fn customer_says(sim: &Sim, state: &State, user: &str, text: &str) -> Posted {
    let heard = customer_writes(sim, state, user, text, None);
    if heard.accepted {
        return heard;
    }
    let option = json!({ "type": 3, "name": "text", "value": text });
    let data = json!({ "id": "1", "name": "say", "type": 1, "options": [option] });
    interaction(sim, state, user, 2, data, None).await.posted
}

async fn route(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    let is_post = request.method == hyper::Method::POST;
    match request.path.as_str() {
        "/sim/message" if is_post => write_as_customer(sim, state, &mut request).await,
        "/sim/ledger" => super::show_ledger(sim),
        _ => api::call(sim, state, request).await,
    }
}

async fn write_as_customer(sim: &Arc<Sim>, state: &Arc<State>, request: &mut Request) -> Reply {
    let written = match super::read_written(request).await {
        Ok(written) => written,
        Err(reply) => return reply,
    };
    let user: String = written.from.chars().filter(char::is_ascii_digit).collect();
    let channel = state.direct_channel(sim, &user);
    let (sim_too, state) = (sim.clone(), state.clone());
    sim.spawn(async move {
        customer_says(&sim_too, &state, &user, &written.text).await;
    });
    json_reply(202, &json!({ "channel_id": channel }))
}

#[cfg(test)]
mod tests;
