//! A mail relay with the bridge or a provider before it, simulated.
//!
//! Takes submissions by SMTP, plain, with STARTTLS or with TLS from the first byte, by a certificate of its own authority; is strict
//! about the order of commands, passwords and TLS. Mails of people come in by the raw-MIME bridge, or as a provider posts them; so do
//! reports. For people: `POST /sim/message`, `GET /sim/ledger`.

mod providers;
mod smtp;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::hook::Hook;
use super::{Answer, Call, Offered, Posted, Sim, SimOptions, common_face};
use crate::http::{Reply, Request, Server, json_reply};
use crate::locked;
use providers::{Door, Post, Report, Written, raw};
pub use providers::{MAILBOX, Provider};

/// Addresses that are refused at once.
const REFUSED_MAX: usize = 100_000;
/// Names that the relay's certificate proves.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// How the relay wants its connections protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    Plain,
    /// Nothing but `STARTTLS` before TLS.
    StartTls,
    /// TLS from the first byte.
    Tls,
}

/// A simulated relay and bridge.
pub struct EmailSim {
    sim: Arc<Sim>,
    state: Arc<State>,
    server: Server,
    relay: SocketAddr,
    authority: CertificateDer<'static>,
}

/// What only mail has.
pub(crate) struct State {
    /// Addresses that do not exist, with the answer to `RCPT TO`.
    refused: Mutex<HashMap<String, String>>,
    next_mail: AtomicU64,
    protection: Protection,
    tls: Arc<ServerConfig>,
    door: Door,
}

common_face!(EmailSim);

impl EmailSim {
    /// Starts it, with our bridge before it. The account is who submits, the credential the password, the secret the bridge's. Errors:
    /// an address cannot be bound.
    pub async fn start(options: SimOptions, protection: Protection) -> io::Result<Self> {
        Self::start_with(options, protection, Provider::Bridge).await
    }

    /// Starts it with a provider before it, whose secret or password the options' secret is.
    pub async fn start_with(options: SimOptions, protection: Protection, provider: Provider) -> io::Result<Self> {
        let (door, proof) = Door::open(provider, &options.secret, options.clock.clone());
        let hook = Hook::new(proof, options.redelivery);
        let listen = options.listen;
        let (authority, tls) = certificate().map_err(io::Error::other)?;
        let state = Arc::new(State {
            refused: Mutex::default(),
            next_mail: AtomicU64::new(options.seed % 1_000 * 1_000_000 + 1),
            protection,
            tls: Arc::new(tls),
            door,
        });
        let sim = Sim::new(options, hook);
        let handler = {
            let (sim, state) = (sim.clone(), state.clone());
            move |request| {
                let (sim, state) = (sim.clone(), state.clone());
                async move { route(&sim, &state, request).await }
            }
        };
        let server = Server::start(listen, handler).await?;
        let listener = TcpListener::bind((listen.ip(), 0)).await?;
        let relay = listener.local_addr()?;
        sim.spawn(smtp::serve(listener, sim.clone(), state.clone()));
        Ok(Self { sim, state, server, relay, authority })
    }

    /// Where it takes submissions: host and port of the account's `smtp_host` and `smtp_port`.
    pub fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// The authority of its certificate, DER: to be trusted by whoever submits with TLS.
    pub fn authority(&self) -> CertificateDer<'static> {
        self.authority.clone()
    }

    /// The members of an account that mails come in to and leave from, as `POST /v1/accounts` takes them.
    pub fn account(&self) -> Value {
        let security = match self.state.protection {
            Protection::Plain => "plain",
            Protection::StartTls => "starttls",
            Protection::Tls => "tls",
        };
        let mut members = self.state.door.members();
        let relay = json!({"address": MAILBOX, "smtp_host": self.relay.ip().to_string(), "smtp_port": self.relay.port().to_string(),
            "smtp_security": security, "smtp_user": self.sim.options.account, "smtp_password": self.sim.options.credential});
        for (name, value) in relay.as_object().into_iter().flatten() {
            members[name] = value.clone();
        }
        members
    }

    /// A person writes a new mail; returns when the bridge's request was taken or given up.
    pub async fn customer_writes(&self, from: &str, subject: &str, text: &str) -> Posted {
        customer_writes(&self.sim, &self.state, from, subject, text, None).await
    }

    /// A person answers a mail by its id, without brackets.
    pub async fn customer_answers(&self, from: &str, text: &str, mail: &str) -> Posted {
        customer_writes(&self.sim, &self.state, from, "Re: your mail", text, Some(mail)).await
    }

    /// Brings any mail by the bridge. `about` is its id.
    pub async fn post_mail(&self, about: &str, from: &str, mail: impl Into<Bytes>) -> Posted {
        bring(&self.sim, about, "mail", from, None, raw(mail)).await
    }

    /// A person's mail as it would come in now, without its proof: content type and body. For forgeries.
    pub fn mail_body(&self, from: &str, text: &str) -> (String, Bytes) {
        let id = self.state.mail_id();
        let post = self.state.door.mail(&Written { id: &id, from, subject: "Hello", text, answers: None, at: self.sim.now() });
        (post.content_type, post.body)
    }

    /// The headers that prove a body, made now.
    pub fn proof(&self, body: &[u8]) -> Vec<(&'static str, String)> {
        self.sim.hook.proof.headers(body)
    }

    /// A report of what became of a mail, such as `failed` with `5.1.1`.
    pub async fn report(&self, mail: &str, to: &str, action: &str, status: &str) -> Posted {
        report(&self.sim, &self.state, mail, to, action, status).await
    }

    /// From now on an address is refused at `RCPT TO` with this line (without its end), or taken again.
    pub fn refuse_recipient(&self, address: &str, line: Option<&str>) {
        let mut refused = locked(&self.state.refused);
        match line {
            Some(line) if refused.len() < REFUSED_MAX => drop(refused.insert(address.to_ascii_lowercase(), line.to_owned())),
            Some(_) | None => drop(refused.remove(&address.to_ascii_lowercase())),
        }
    }
}

impl State {
    fn mail_id(&self) -> String {
        format!("sim{}@mail.example.com", self.next_mail.fetch_add(1, Ordering::Relaxed))
    }

    /// The answer to `RCPT TO` of an address that is refused.
    fn refusal(&self, address: &str) -> Option<String> {
        locked(&self.refused).get(&address.to_ascii_lowercase()).cloned()
    }
}

/// An authority of our own and a server's certificate by it.
fn certificate() -> Result<(CertificateDer<'static>, ServerConfig), Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let params = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((authority.der().clone(), config))
}

async fn customer_writes(sim: &Sim, state: &State, from: &str, subject: &str, text: &str, answers: Option<&str>) -> Posted {
    let id = state.mail_id();
    let post = state.door.mail(&Written { id: &id, from, subject, text, answers, at: sim.now() });
    bring(sim, &id, "message", from, Some(text), post).await
}

pub(crate) async fn report(sim: &Sim, state: &State, mail: &str, to: &str, action: &str, status: &str) -> Posted {
    let id = state.mail_id();
    let post = state.door.report(&Report { id: &id, mail, to, action, status, at: sim.now() });
    bring(sim, &id, "report", to, None, post).await
}

async fn bring(sim: &Sim, id: &str, kind: &'static str, from: &str, text: Option<&str>, post: Post) -> Posted {
    let headers = [("content-type", post.content_type)];
    sim.post_with(id, kind, from, text.map(str::to_owned), post.body, &headers).await
}

async fn route(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    let path = request.path.clone();
    match path.as_str() {
        "/sim/message" if request.method == hyper::Method::POST => write_as_customer(sim, state, &mut request).await,
        "/sim/ledger" => super::show_ledger(sim),
        _ => json_reply(404, &json!({ "error": "there is only /sim/message and /sim/ledger" })),
    }
}

async fn write_as_customer(sim: &Arc<Sim>, state: &Arc<State>, request: &mut Request) -> Reply {
    let wrong =
        || json_reply(400, &json!({ "error": "not a mail", "example": { "from": "ada@example.com", "text": "hi", "subject": "hello" } }));
    let Ok(body) = request.body().await else { return wrong() };
    let Ok(value) = serde_json::from_slice::<Value>(&body) else { return wrong() };
    let text = |name: &str| value[name].as_str().filter(|text| !text.contains(['\r', '\n'])).map(str::to_owned);
    let (Some(from), Some(text)) = (text("from").filter(|from| from.contains('@')), value["text"].as_str().map(str::to_owned)) else {
        return wrong();
    };
    let subject = value["subject"].as_str().filter(|text| !text.contains(['\r', '\n'])).unwrap_or("hello").to_owned();
    let (sim_too, state) = (sim.clone(), state.clone());
    let shown = from.clone();
    sim.spawn(async move {
        customer_writes(&sim_too, &state, &from, &subject, &text, None).await;
    });
    json_reply(202, &json!({ "from": shown }))
}

#[cfg(test)]
mod tests;
