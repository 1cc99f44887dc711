//! A mail relay with the bridge before it, simulated.
//!
//! Takes submissions by SMTP, plain or with STARTTLS by a certificate of its own authority; is strict about the order of commands,
//! passwords and TLS. Mails of people come in by the raw-MIME bridge, signed; so do its reports. For people: `POST /sim/message`,
//! `GET /sim/ledger`.

mod smtp;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use messaging::clock::SharedClock;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use sha2::Sha256;
use tokio::net::TcpListener;

use super::hook::{Hook, Proof};
use super::{Answer, Call, Offered, Posted, Sim, SimOptions, common_face};
use crate::http::{Reply, Request, Server, json_reply};
use crate::locked;

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
    tls: Option<Arc<ServerConfig>>,
}

common_face!(EmailSim);

impl EmailSim {
    /// Starts it. The account is who submits, the credential the password, the secret the bridge's. Errors: an address cannot be
    /// bound.
    pub async fn start(options: SimOptions, protection: Protection) -> io::Result<Self> {
        let proof = bridge(&options.secret, options.clock.clone());
        let hook = Hook::new(proof, options.redelivery);
        let listen = options.listen;
        let (authority, tls) = certificate().map_err(io::Error::other)?;
        let state = Arc::new(State {
            refused: Mutex::default(),
            next_mail: AtomicU64::new(options.seed % 1_000 * 1_000_000 + 1),
            tls: (protection == Protection::StartTls).then(|| Arc::new(tls)),
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

    /// A person writes a new mail; returns when the bridge's request was taken or given up.
    pub async fn customer_writes(&self, from: &str, subject: &str, text: &str) -> Posted {
        customer_writes(&self.sim, &self.state, from, subject, text, None).await
    }

    /// A person answers a mail by its id, without brackets.
    pub async fn customer_answers(&self, from: &str, text: &str, mail: &str) -> Posted {
        customer_writes(&self.sim, &self.state, from, "Re: your mail", text, Some(mail)).await
    }

    /// Brings any mail by the bridge. `about` is its id.
    pub async fn post_mail(&self, about: &str, from: &str, raw: impl Into<Bytes>) -> Posted {
        self.sim.post(about, "mail", from, None, raw.into()).await
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

/// The bridge's proof: HMAC-SHA256 over time and body.
fn bridge(secret: &str, clock: SharedClock) -> Proof {
    let state = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    Proof::Headers(Box::new(move |body| {
        let time = clock.now().as_secs().to_string();
        let mut mac = state.clone();
        mac.update(format!("{time}.").as_bytes());
        mac.update(body);
        let signature = format!("t={time},v1={}", HEXLOWER.encode(&mac.finalize().into_bytes()));
        vec![("x-gateway-signature", signature), ("content-type", "message/rfc822".to_owned())]
    }))
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
    let answers = answers.map_or_else(String::new, |mail| format!("In-Reply-To: <{mail}>\r\nReferences: <{mail}>\r\n"));
    let raw = format!(
        "From: {from}\r\nTo: support@example.net\r\nMessage-ID: <{id}>\r\n{answers}Date: {}\r\nSubject: {subject}\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n",
        date(sim)
    );
    sim.post(&id, "message", from, Some(text.to_owned()), Bytes::from(raw)).await
}

fn date(sim: &Sim) -> String {
    mail_parser::DateTime::from_timestamp(sim.now().as_secs() as i64).to_rfc822()
}

pub(crate) async fn report(sim: &Sim, state: &State, mail: &str, to: &str, action: &str, status: &str) -> Posted {
    let id = state.mail_id();
    let raw = format!(
        "From: MAILER-DAEMON@mail.example.com\r\nTo: support@example.net\r\nMessage-ID: <{id}>\r\nAuto-Submitted: auto-replied\r\n\
         Date: {}\r\nSubject: Delivery report\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"r\"\r\n\r\n\
         --r\r\nContent-Type: text/plain\r\n\r\nA report.\r\n\
         --r\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mail.example.com\r\n\r\n\
         Final-Recipient: rfc822; {to}\r\nAction: {action}\r\nStatus: {status}\r\n\r\n\
         --r\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <{mail}>\r\nTo: {to}\r\n\r\n--r--\r\n",
        date(sim)
    );
    sim.post(&id, "report", to, None, Bytes::from(raw)).await
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
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(&body) else { return wrong() };
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
