//! Submission of mail to a relay, by the door's own rules: the relay's name is resolved here, every address judged, the judged
//! address dialled, TLS required (but on this machine), time capped, and every failure says whether the mail may have been taken.
//!
//! Connections are kept for a while, by relay and credential, and bounded.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use messaging::exchange::{MailReply, MailSecurity, MailStep, MailSubmission};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{CallError, Door, ErrorKind, Stage, Target, url};

mod dialogue;
mod wire;

use dialogue::{Broken, Progress};
use wire::Wire;

/// Connections to one relay with one credential, under way at once.
const CONNECTIONS_MAX: usize = 8;
/// Connections to it that wait for further mails.
const IDLE_PER_RELAY_MAX: usize = 4;
/// How long a connection waits. Relays close theirs after 10 s (SES) to 5 minutes.
const IDLE_MAX: Duration = Duration::from_secs(8);
/// Mails over one connection: relays want a new one now and then.
const MAILS_PER_CONNECTION_MAX: u32 = 100;
/// Relays that are remembered. Beyond it those without work are forgotten.
const RELAYS_MAX: usize = 1024;
/// Longest text of an answer that goes on, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// What must be the same for two mails to share a connection.
#[derive(PartialEq, Eq, Hash, Clone)]
struct RelayKey {
    target: Target,
    security: u8,
    user: Option<String>,
    password: [u8; 32],
}

struct Idle {
    connection: AsyncSmtpConnection,
    mails: u32,
    since: Instant,
}

struct Relay {
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

/// The relays that mail went to lately.
#[derive(Default)]
pub(super) struct Relays(Mutex<HashMap<RelayKey, Arc<Relay>, RandomState>>);

impl Relays {
    fn of(&self, key: RelayKey) -> Arc<Relay> {
        let mut relays = self.0.lock().expect("no holder of the relays panics");
        if relays.len() >= RELAYS_MAX && !relays.contains_key(&key) {
            // Those under way are kept; a swept one only loses connections that wait.
            relays.retain(|_, relay| Arc::strong_count(relay) > 1);
        }
        let new = || Arc::new(Relay { slots: Semaphore::new(CONNECTIONS_MAX), idle: Mutex::default() });
        relays.entry(key).or_insert_with(new).clone()
    }
}

impl Relay {
    /// A connection that waits and is not too old.
    fn take(&self) -> Option<Idle> {
        let mut idle = self.idle.lock().expect("no holder of the connections panics");
        idle.retain(|one| one.since.elapsed() < IDLE_MAX);
        idle.pop()
    }

    fn keep(&self, connection: AsyncSmtpConnection, mails: u32) {
        let mut idle = self.idle.lock().expect("no holder of the connections panics");
        idle.retain(|one| one.since.elapsed() < IDLE_MAX);
        if mails < MAILS_PER_CONNECTION_MAX && idle.len() < IDLE_PER_RELAY_MAX {
            idle.push(Idle { connection, mails, since: Instant::now() });
        }
    }
}

/// Hands a mail to its relay; `timeout` bounds all of it, from the wait for a connection to the last answer.
///
/// # Errors
/// When there is no answer; the stage decides whether the mail may have been taken: only once its last byte may have left.
pub async fn submit(door: &Door, mail: MailSubmission, timeout: Duration) -> Result<MailReply, CallError> {
    let progress = Progress::default();
    let submitted = tokio::time::timeout(timeout, submit_with(door, &mail, &progress)).await;
    submitted.unwrap_or_else(|_| Err(progress.error(ErrorKind::Timeout, "the relay did not answer in time")))
}

async fn submit_with(door: &Door, mail: &MailSubmission, progress: &Progress) -> Result<MailReply, CallError> {
    let target = target(mail)?;
    let password = Sha256::digest(mail.password.expose().as_bytes()).into();
    let key = RelayKey { target: target.clone(), security: mail.security as u8, user: mail.user.clone(), password };
    let relay = door.0.relays.of(key);
    let closed = |_| CallError::before(ErrorKind::Connect, "no connection can be had");
    let _slot = relay.slots.acquire().await.map_err(closed)?;
    if let Some(mut idle) = relay.take() {
        match dialogue::mail(&mut idle.connection, mail, progress).await {
            // The relay closed it meanwhile: nothing of this mail was read, so a new connection may begin.
            Ok(reply) if reply.code == 421 && reply.step == MailStep::Sender => {}
            Err(_) if !progress.is_past_content() && progress.step() == MailStep::Sender => {}
            outcome => return finish(&relay, idle.connection, idle.mails + 1, progress, outcome).await,
        }
    }
    match connect(door, mail, &target, progress).await? {
        Ok(mut connection) => {
            let outcome = dialogue::mail(&mut connection, mail, progress).await;
            finish(&relay, connection, 1, progress, outcome).await
        }
        Err(reply) => Ok(reply),
    }
}

/// Keeps the connection where it can be used again.
async fn finish(
    relay: &Relay,
    mut connection: AsyncSmtpConnection,
    mails: u32,
    progress: &Progress,
    outcome: Result<MailReply, Broken>,
) -> Result<MailReply, CallError> {
    let reply = outcome.map_err(|broken| progress.error(broken.kind, broken.detail))?;
    let again = reply.code != 421 && (reply.code < 400 || dialogue::reset(&mut connection).await);
    if again {
        relay.keep(connection, mails);
    }
    Ok(reply)
}

/// The relay as a destination; its name goes through the one parser that hostile names are tried on.
fn target(mail: &MailSubmission) -> Result<Target, CallError> {
    let host = if mail.host.contains(':') && !mail.host.starts_with('[') { format!("[{}]", mail.host) } else { mail.host.clone() };
    let wrong = |error| CallError::before(ErrorKind::BadRequest, error);
    let url = format!("https://{host}:{}/", mail.port);
    let (mut target, rest) = url::split(&url).map_err(wrong)?;
    if rest != "/" || target.port != mail.port {
        return Err(CallError::before(ErrorKind::BadRequest, "the relay's name is no host"));
    }
    target.tls = match mail.security {
        MailSecurity::Tls | MailSecurity::StartTls => true,
        MailSecurity::Plain => false,
    };
    Ok(target)
}

/// A protected and authenticated connection, or the relay's refusal.
async fn connect(
    door: &Door,
    mail: &MailSubmission,
    target: &Target,
    progress: &Progress,
) -> Result<Result<AsyncSmtpConnection, MailReply>, CallError> {
    progress.reach(MailStep::Greeting);
    let dialer = &door.0.dialer;
    let mut tcp = dialer.mail_tcp(target).await?;
    let ip = tcp.local_addr().map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip());
    let own = match ip {
        std::net::IpAddr::V4(ip) => ClientId::Ipv4(ip),
        std::net::IpAddr::V6(ip) => ClientId::Ipv6(ip),
    };
    let wire = match mail.security {
        MailSecurity::Plain => Wire::plain(tcp),
        MailSecurity::Tls => Wire::tls(dialer.mail_tls(&target.host, tcp).await?, false),
        MailSecurity::StartTls => {
            if let Some(reply) = wire::start_tls(&mut tcp, &own).await? {
                return Ok(Err(reply));
            }
            // The greeting was read before; the client beyond wants one.
            Wire::tls(dialer.mail_tls(&target.host, tcp).await?, true)
        }
    };
    let stream: Box<dyn AsyncTokioStream> = Box::new(wire);
    let mut connection = match AsyncSmtpConnection::connect_with_transport(stream, &own).await {
        Ok(connection) => connection,
        Err(error) => return dialogue::answered(error, MailStep::Greeting, false).map(Err).map_err(before),
    };
    if let Some(user) = &mail.user {
        progress.reach(MailStep::Auth);
        if let Err(error) = dialogue::authenticate(&mut connection, user, &mail.password).await {
            return dialogue::answered(error, MailStep::Auth, false).map(Err).map_err(before);
        }
    }
    Ok(Ok(connection))
}

fn before(broken: Broken) -> CallError {
    CallError::before(broken.kind, broken.detail)
}

impl Progress {
    /// The failure, with what the relay may have read of the mail.
    fn error(&self, kind: ErrorKind, detail: &str) -> CallError {
        let stage = if self.is_past_content() { Stage::AfterWrite } else { Stage::BeforeWrite };
        CallError { stage, kind, status: None, detail: detail.to_owned() }
    }
}
