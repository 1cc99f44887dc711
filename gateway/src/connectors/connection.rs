//! The connection of a Discord bot, as an account's work.

use std::sync::Arc;

use messaging::BoxFuture;
use messaging::channels::discord::socket::Intents;
use messaging::channels::{ChannelKind, ChannelSettings, Piece};
use messaging::directory::{Account, AccountState};
use messaging::log::AppendError;
use messaging::store::Work;

use super::discord::{self, Dial, Ended, Sink, Ways};
use super::inlet::Inlet;
use super::job::{Job, Note, Over, Worker};
use crate::options::Parts;

/// What findings of a connection are called.
const SUBJECT: &str = "connection";

/// Connects Discord's bots.
pub(super) struct Connection {
    parts: Parts,
    ways: Ways,
}

impl Connection {
    pub(super) fn new(parts: &Parts, dial: &Arc<dyn Dial>) -> Self {
        let settings = parts.channels.get(&ChannelKind::Discord).cloned().unwrap_or_else(ChannelSettings::default);
        let ways = Ways { caller: parts.caller.clone(), dial: dial.clone(), settings };
        Self { parts: parts.clone(), ways }
    }
}

impl Worker for Connection {
    fn work(&self) -> Work {
        Work::Connection
    }

    fn wants(&self, account: &Account) -> bool {
        match account.row.state {
            // Paused and blocked accounts send nothing; what people write comes all the same.
            AccountState::Active | AccountState::Paused | AccountState::Blocked | AccountState::Unverified => {
                account.channel == ChannelKind::Discord && Intents::of(account).is_some()
            }
            AccountState::Broken => false,
        }
    }

    fn run(&self, job: Job) -> BoxFuture<'_, Over> {
        Box::pin(async move {
            let inlet = Inlet { parts: self.parts.clone(), account: job.account.clone() };
            let sink = Arc::new(Keeping { inlet: inlet.clone(), note: job.note });
            let mut stop = job.stop;
            let ended = discord::run(&self.ways, job.account, sink, self.parts.clock.clone(), async move { stop.told().await }).await;
            match ended {
                Ended::Stopped | Ended::LogClosed => Over::Again,
                Ended::NotWanted => Over::Stuck,
                Ended::Credential => {
                    inlet.mark_broken("discord refuses the bot's token").await;
                    Over::Stuck
                }
                Ended::Forbidden(code) => {
                    let detail = format!("discord closes the connection with {code}: {}", meaning(code));
                    inlet.tell_stuck(SUBJECT, "disconnected", &detail).await;
                    Over::Stuck
                }
            }
        })
    }
}

/// What a person has to do about a close code.
fn meaning(code: u16) -> &'static str {
    match code {
        4_011 => "the bot is in too many guilds for one connection",
        4_013 => "the account's intents are none of discord's",
        4_014 => "the account's intents are not enabled for the application in discord's developer portal",
        _ => "the connection is not allowed",
    }
}

/// Appends to the log, keeps the session in the work's row.
struct Keeping {
    inlet: Inlet,
    note: Arc<Note>,
}

impl Sink for Keeping {
    fn append<'a>(&'a self, pieces: &'a [Piece]) -> BoxFuture<'a, Result<(), AppendError>> {
        Box::pin(self.inlet.append(pieces))
    }

    fn keep(&self, state: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.note.keep(state).await {
                // The one before leads to the same events, and to some twice.
                tracing::debug!(account = %self.inlet.account.owner.account, %error, "the session is not kept");
            }
        })
    }

    fn recall(&self) -> BoxFuture<'_, Option<Vec<u8>>> {
        Box::pin(std::future::ready(Some(self.note.last().to_vec()).filter(|kept| !kept.is_empty())))
    }
}
