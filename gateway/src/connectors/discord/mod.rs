//! Discord's Gateway: one WebSocket for a bot, over which ordinary messages come.
//!
//! [`run`] stays connected until it is told to stop, or until nothing but a person can help. The state machine (`machine`) decides
//! and does nothing; `edge` does and decides nothing; `outbox` holds what was read until the log has it.
//!
//! Nothing that was read is lost while Discord keeps the session (minutes): its number rises only when the log has the event, and
//! RESUME asks for everything behind it. What comes twice by that is the same record, and known by its id. The session is kept by the
//! sink ([`Sink::keep`]), so that another process goes on where this one ended, whether it ended well or not.
//!
//! All direct messages come to the first shard; there is only that one. Two connections for one bot would get everything twice: who
//! starts this holds the account's lease.

mod edge;
mod frames;
mod machine;
mod outbox;

use std::future::Future;
use std::sync::Arc;

use messaging::BoxFuture;
use messaging::channels::{ChannelSettings, Piece};
use messaging::clock::SharedClock;
use messaging::directory::Account;
use messaging::exchange::ByteStream;
use messaging::log::AppendError;
use serde::{Deserialize, Serialize};

use crate::options::OutboundCall;

/// The way out for connections that last, through the one guarded door of the process.
pub trait Dial: Send + Sync {
    /// Connects to the host of an `http://` or `https://` URL; with TLS for the latter. The error says in plain words why not,
    /// without secrets.
    fn dial<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Box<dyn ByteStream>, String>>;
}

/// Where events go, for one account.
pub trait Sink: Send + Sync {
    /// Appends verified pieces to the log as ingress does, in order; `Ok` when all are durable. A piece that the log never takes
    /// because of its size is left out and told by the sink.
    fn append<'a>(&'a self, pieces: &'a [Piece]) -> BoxFuture<'a, Result<(), AppendError>>;

    /// Keeps a few hundred bytes for whoever connects this account next. May fail in silence: then that one begins anew.
    fn keep(&self, state: Vec<u8>) -> BoxFuture<'_, ()>;

    /// What was kept last.
    fn recall(&self) -> BoxFuture<'_, Option<Vec<u8>>>;
}

/// What a connection needs beside its account.
#[derive(Clone)]
pub struct Ways {
    /// Calls of the API.
    pub caller: Arc<dyn OutboundCall>,
    /// Connections.
    pub dial: Arc<dyn Dial>,
    /// The channel's settings.
    pub settings: ChannelSettings,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The account wants no connection (`intents` is 0).
    NotWanted,
    /// The bot's token is not taken: broken until it is changed.
    Credential,
    /// Discord will not have it so, with this close code: too many guilds for one connection (4011), intents that are none (4013) or
    /// not allowed to this application (4014). Nothing changes until a person changes it.
    Forbidden(u16),
    /// The log is closed: this process takes nothing more.
    LogClosed,
}

/// A session that may be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    id: String,
    /// Where to resume.
    address: String,
    /// The bot's own user id.
    bot: String,
    /// The last event that is on the log.
    number: u64,
    /// What it was begun with.
    intents: u64,
}

/// Stays connected for this account, as it is now: when its token or intents change, stop this and start another. Returns when `stop`
/// resolves, or says why no connection is possible. Nothing is left running.
pub async fn run(
    ways: &Ways,
    account: Arc<Account>,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    stop: impl Future<Output = ()> + Send,
) -> Ended {
    edge::run(ways, account, sink, clock, stop).await
}
