//! What all threads of a gateway share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use messaging::accounts::Accounts;
use messaging::channels::{ChannelKind, Verifier, channel};
use messaging::clock::Timestamp;
use messaging::directory::SecretPair;
use messaging::seal::Secret;
use tokio::sync::{Notify, Semaphore};

use crate::api::Backlog;
use crate::api::recent::Recent;
use crate::api::token;
use crate::bounds::Bounds;
use crate::connectors::refused::Refused;
use crate::fetched::Fetched;
use crate::options::{Options, Parts};
use crate::server::addresses::Addresses;
use crate::signatures::Signatures;

/// Slow signatures that are judged at once, over all threads; further requests wait, as many as `http.max_in_flight` allows.
pub(crate) const JUDGED_BESIDE_MAX: usize = 8;

/// What all threads share.
pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) options: Options,
    /// Sends that were accepted a short while ago.
    pub(crate) recent: Recent,
    /// What waits on the log, for forecasts.
    pub(crate) backlog: Backlog,
    /// Verifiers of accounts that do not exist.
    nobody: Vec<Verifier>,
    /// What channels need to judge a request: certificates.
    pub(crate) fetched: Fetched,
    /// Room to judge slow signatures beside the serving threads.
    pub(crate) beside: Semaphore,
    /// Changes accounts by what was seen of them.
    pub(crate) accounts: Accounts,
    /// Which accounts' webhooks fail the signature.
    pub(crate) signatures: Signatures,
    /// Accounts to be pulled soon.
    pub(crate) refused: Arc<Refused>,
    pub(crate) connections: AtomicUsize,
    /// Of the public listener, by address.
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) admin_connections: AtomicUsize,
    /// Requests under way, and those that are not.
    pub(crate) bounds: Bounds,
    /// Readiness says no.
    pub(crate) draining: AtomicBool,
    /// New requests are refused.
    pub(crate) closing: AtomicBool,
    /// An administrator asked to drain.
    pub(crate) drain_asked: Notify,
}

impl Shared {
    pub(crate) fn new(parts: Parts, options: Options) -> Arc<Self> {
        let recent = Recent::new(options.idempotency_ttl);
        let addresses = Addresses::new(options.http.max_connections_per_address, options.trusted_proxies.clone());
        let nobody = ChannelKind::ALL.iter().map(|kind| nobody(*kind)).collect();
        let accounts = parts.accounts();
        Arc::new(Self {
            parts,
            accounts,
            signatures: Signatures::default(),
            options,
            recent,
            backlog: Backlog::default(),
            nobody,
            fetched: Fetched::default(),
            beside: Semaphore::new(JUDGED_BESIDE_MAX),
            refused: Arc::default(),
            connections: AtomicUsize::new(0),
            addresses,
            admin_connections: AtomicUsize::new(0),
            bounds: Bounds::default(),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            drain_asked: Notify::new(),
        })
    }

    /// A verifier that costs what a real one costs and lets nothing pass.
    pub(crate) fn nobody(&self, kind: ChannelKind) -> &Verifier {
        &self.nobody[kind.index()]
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

/// Secrets by chance, which nobody has.
fn nobody(kind: ChannelKind) -> Verifier {
    let secrets = channel(kind).fields().iter().filter(|field| field.secret);
    let drawn: BTreeMap<String, SecretPair> =
        secrets.map(|field| (field.name.to_owned(), SecretPair::new(Secret::new(token::random_text(32)), Timestamp::ZERO))).collect();
    channel(kind).verifier(&BTreeMap::new(), &drawn)
}
