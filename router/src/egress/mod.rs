//! The one door to the network: endpoint deliveries and platform calls go through here and nowhere else.
//!
//! A [`Door`] is made once; a [`Client`] per destination holds its idle connections. Every address that a name resolves
//! to is checked against the [`Policy`] before it is dialled, and the checked address is the one that is dialled; there is
//! no second resolution. No redirects are followed, time and bytes are capped, and every failure says whether the other
//! side could have read the request ([`Stage`]).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::HeaderValue;
use messaging::clock::SharedClock;
use messaging::exchange::{ByteStream, HttpResponse};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Semaphore;

mod connect;
mod download;
pub mod guard;
pub mod mail;
mod pool;
mod retry_after;
pub mod url;

#[cfg(test)]
mod tests;

pub use connect::{Resolver, SystemResolver};
pub use guard::{AllowedNetwork, BadNetwork, Blocked, Policy};
pub use pool::{Client, Streamed};
pub use url::{BadUrl, Host, Target};

use connect::{Dialer, Wire};

/// Settings of the door.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What may be called.
    pub policy: Policy,
    /// How long each of resolving, connecting and the TLS handshake may take; the request's deadline holds as well.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Below the 60 s after which common load balancers drop theirs.
    pub idle_timeout: Duration,
    /// Most idle connections of one client.
    pub idle_per_client_max: usize,
    /// Most idle connections of all clients together.
    pub idle_total_max: usize,
    /// Most connections of all clients together, idle ones included. A request that finds no room waits for it, within its deadline.
    pub connections_max: usize,
    /// The `User-Agent` of requests that bring none.
    pub user_agent: HeaderValue,
    /// Certificate authorities to trust besides the public ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            connect_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(30),
            idle_per_client_max: 16,
            idle_total_max: 4096,
            connections_max: 65_536,
            user_agent: HeaderValue::from_static("trunkline/0.1"),
            extra_roots: Vec::new(),
        }
    }
}

/// An extra certificate authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("an extra certificate authority cannot be used: {0}")]
pub struct BadRoot(rustls::Error);

/// A file of certificate authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadAuthorities {
    /// It is no PEM, or a damaged one.
    #[error("it is not PEM: {0}")]
    Damaged(#[from] rustls::pki_types::pem::Error),
    /// No certificate stands in it.
    #[error("no certificate stands in it")]
    Empty,
}

/// The certificates of a PEM file, for [`Settings::extra_roots`].
///
/// # Errors
/// When there is none, or one cannot be read.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadAuthorities> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(BadAuthorities::Empty) } else { Ok(found) }
}

/// What all clients share. Cheap to clone.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

struct Shared {
    settings: Settings,
    dialer: Dialer,
    clock: SharedClock,
    /// Idle connections of all clients.
    idle: AtomicUsize,
    /// Room for connections of all clients.
    room: Arc<Semaphore>,
    /// Relays with their connections.
    relays: mail::Relays,
}

impl Door {
    /// A door that resolves names as the operating system does.
    ///
    /// # Errors
    /// When an extra root is not a usable certificate.
    pub fn new(settings: Settings, clock: SharedClock) -> Result<Self, BadRoot> {
        Self::with_resolver(settings, clock, Arc::new(SystemResolver::default()))
    }

    /// A door with a resolver of the caller's.
    ///
    /// # Errors
    /// When an extra root is not a usable certificate.
    pub fn with_resolver(settings: Settings, clock: SharedClock, resolver: Arc<dyn Resolver>) -> Result<Self, BadRoot> {
        let dialer = Dialer::new(&settings, resolver)?;
        let room = Arc::new(Semaphore::new(settings.connections_max));
        Ok(Self(Arc::new(Shared { settings, dialer, clock, idle: AtomicUsize::new(0), room, relays: mail::Relays::default() })))
    }

    /// What may be called.
    pub fn policy(&self) -> &Policy {
        &self.0.settings.policy
    }

    /// A client for the destination that the URL names; its path does not matter. Opens no connection yet.
    ///
    /// # Errors
    /// When the URL may not be called.
    pub fn client(&self, url: &str) -> Result<Client, BadUrl> {
        let target = self.policy().check_url(url)?;
        Ok(Client::new(self.0.clone(), target))
    }

    /// A connection of the caller's own to the host that the URL names, with TLS when it is `https://`; for what lasts longer than a
    /// request (a WebSocket). Every address is checked as for any call.
    ///
    /// # Errors
    /// When the URL may not be called, or no connection comes about.
    pub async fn dial(&self, url: &str) -> Result<Box<dyn ByteStream>, CallError> {
        let target = self.policy().check_url(url).map_err(|error| CallError::before(ErrorKind::BadRequest, error))?;
        match self.0.dialer.connect(&target).await? {
            Wire::Plain(tcp) => Ok(Box::new(tcp)),
            Wire::Tls(tls) => Ok(tls),
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// An answer, and how it was had.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The answer. Redirects are answers like any other.
    pub response: HttpResponse,
    /// Whether a connection was used that had served before.
    pub reused: bool,
    /// Whether the body went on beyond the caller's cap.
    pub truncated: bool,
}

/// Whether the other side could have read the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Certainly not: sending it again cannot do anything twice.
    BeforeWrite,
    /// Some of it may have been written: it may have been acted upon.
    AfterWrite,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself cannot be sent from this client: a URL of another destination, or no URL at all.
    BadRequest,
    /// The policy forbids every address of the destination.
    Blocked,
    /// The name has no address, or the resolver did not answer in time.
    Resolve,
    /// No connection came about.
    Connect,
    /// The TLS handshake failed: no common version, or a certificate that does not prove the name.
    Tls,
    /// The deadline passed.
    Timeout,
    /// The connection broke.
    Reset,
    /// What came is not an HTTP/1.1 response.
    BadResponse,
}

impl ErrorKind {
    /// The snake_case name, for rows and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Blocked => "blocked",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::BadResponse => "bad_response",
        }
    }
}

/// A request that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .kind.name())]
pub struct CallError {
    /// Whether the other side could have read the request.
    pub stage: Stage,
    /// What went wrong.
    pub kind: ErrorKind,
    /// The status, when the head of the answer had come and only its body broke.
    pub status: Option<u16>,
    /// What was seen, for the row. Holds no URL, no header and no address.
    pub detail: String,
}

impl CallError {
    fn before(kind: ErrorKind, detail: impl fmt::Display) -> Self {
        Self { stage: Stage::BeforeWrite, kind, status: None, detail: detail.to_string() }
    }

    fn after(kind: ErrorKind, detail: impl fmt::Display) -> Self {
        Self { stage: Stage::AfterWrite, kind, status: None, detail: detail.to_string() }
    }
}
