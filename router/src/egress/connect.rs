//! From a destination to a connection: resolve, check every address, dial the checked ones, TLS.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use messaging::BoxFuture;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::guard::{Blocked, Policy, canonical};
use super::{BadRoot, CallError, ErrorKind, Host, Settings, Target};

/// Most look-ups at once: each holds a thread of the blocking pool for as long as the system's resolver takes.
const LOOKUPS_MAX: usize = 64;
/// Most addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 32;
/// Most addresses that are dialled for one connection.
const DIALS_MAX: usize = 4;
/// How long a dial has a head start before the next address is tried beside it.
const DIAL_STAGGER: Duration = Duration::from_millis(300);

/// Turns names into addresses.
pub trait Resolver: Send + Sync {
    /// All addresses of a name, in the order in which they should be tried.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The operating system's resolver.
#[derive(Debug)]
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let permit = self.lookups.clone().acquire_owned().await.map_err(io::Error::other)?;
            let name = name.to_owned();
            let lookup = tokio::task::spawn_blocking(move || {
                // The permit goes with the thread: a caller who gives up does not free the thread.
                let _permit = permit;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.take(ADDRESSES_MAX).map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    }
}

/// A connection that is ready for HTTP.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Makes connections.
pub(super) struct Dialer {
    policy: Policy,
    resolver: Arc<dyn Resolver>,
    tls: TlsConnector,
    /// The same without the protocol's name: mail has none.
    mail_tls: TlsConnector,
    timeout: Duration,
}

impl Dialer {
    pub(super) fn new(settings: &Settings, resolver: Arc<dyn Resolver>) -> Result<Self, BadRoot> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for root in &settings.extra_roots {
            roots.add(root.clone()).map_err(BadRoot)?;
        }
        // The provider is named, so that another crate's choice of a process-wide one changes nothing here.
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(BadRoot)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mail_tls = TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { policy: settings.policy.clone(), resolver, tls, mail_tls, timeout: settings.connect_timeout })
    }

    /// A new connection to the destination. Every failure is before the write: nothing of a request has left.
    pub(super) async fn connect(&self, target: &Target) -> Result<Wire, CallError> {
        let tcp = self.tcp(target, |ip| self.policy.check_call(target.tls, ip, target.port)).await?;
        if !target.tls {
            return Ok(Wire::Plain(tcp));
        }
        let name = server_name(&target.host)?;
        let handshake = within(self.timeout, self.tls.connect(name, tcp)).await;
        handshake.map(|tls| Wire::Tls(Box::new(tls))).map_err(|error| CallError::before(ErrorKind::Tls, describe(&error)))
    }

    /// A new connection to a relay, not yet protected; `target.tls`: whether it will be.
    pub(super) async fn mail_tcp(&self, target: &Target) -> Result<TcpStream, CallError> {
        self.tcp(target, |ip| self.policy.check_mail(target.tls, ip, target.port)).await
    }

    /// Protects a connection to a relay.
    pub(super) async fn mail_tls(&self, host: &Host, tcp: TcpStream) -> Result<TlsStream<TcpStream>, CallError> {
        let handshake = within(self.timeout, self.mail_tls.connect(server_name(host)?, tcp)).await;
        handshake.map_err(|error| CallError::before(ErrorKind::Tls, describe(&error)))
    }

    async fn tcp(&self, target: &Target, check: impl Fn(IpAddr) -> Result<(), Blocked>) -> Result<TcpStream, CallError> {
        let addresses = self.addresses(target, check).await?;
        let dialling = within(self.timeout, dial(addresses));
        let tcp = dialling.await.map_err(|error| CallError::before(ErrorKind::Connect, describe(&error)))?;
        // Requests go out in one write; waiting for more only adds latency. A socket that refuses still works.
        let _ = tcp.set_nodelay(true);
        Ok(tcp)
    }

    /// The addresses to dial, in order: only those that passed the check, exactly as they were judged.
    async fn addresses(&self, target: &Target, check: impl Fn(IpAddr) -> Result<(), Blocked>) -> Result<VecDeque<SocketAddr>, CallError> {
        let found = match &target.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => {
                let resolving = within(self.timeout, self.resolver.resolve(name));
                resolving.await.map_err(|error| CallError::before(ErrorKind::Resolve, describe(&error)))?
            }
        };
        let mut checked = VecDeque::new();
        let mut refusal = None;
        for ip in found.into_iter().take(ADDRESSES_MAX) {
            let ip = canonical(ip);
            match check(ip) {
                Ok(()) => checked.push_back(SocketAddr::new(ip, target.port)),
                Err(blocked) => refusal = Some(blocked),
            }
        }
        match refusal {
            Some(blocked) if checked.is_empty() => Err(CallError::before(ErrorKind::Blocked, blocked)),
            None if checked.is_empty() => Err(CallError::before(ErrorKind::Resolve, "the name has no address")),
            Some(_) | None => Ok(families_in_turn(checked)),
        }
    }
}

/// Lets the address families take turns, beginning with the resolver's first choice: a family without a route then
/// costs one head start and not one for each of its addresses.
fn families_in_turn(mut addresses: VecDeque<SocketAddr>) -> VecDeque<SocketAddr> {
    let mut ordered = VecDeque::new();
    while let Some(first) = addresses.pop_front() {
        ordered.push_back(first);
        if let Some(at) = addresses.iter().position(|address| address.is_ipv4() != first.is_ipv4()) {
            ordered.extend(addresses.remove(at));
        }
    }
    ordered.truncate(DIALS_MAX);
    ordered
}

/// Dials the addresses, each with a head start on the next; the first connection wins and the others are dropped.
async fn dial(mut waiting: VecDeque<SocketAddr>) -> io::Result<TcpStream> {
    let mut dials = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match waiting.pop_front() {
            Some(address) => dials.push(TcpStream::connect(address)),
            None if dials.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            Some(outcome) = dials.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = sleep(DIAL_STAGGER), if !waiting.is_empty() => {}
        }
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, CallError> {
    match host {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| CallError::before(ErrorKind::Tls, error)),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// An error's words without what some resolvers and systems put in: long texts are cut.
fn describe(error: &io::Error) -> String {
    const DETAIL_CHARS_MAX: usize = 200;
    match error.get_ref() {
        Some(inner) => inner.to_string().chars().take(DETAIL_CHARS_MAX).collect(),
        None => error.kind().to_string(),
    }
}
