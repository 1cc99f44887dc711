//! The Gateway, Discord's WebSocket: what a connector asks before it connects, and what becomes of the events that it reads. How one
//! stays connected is the connector's own business.
//!
//! Events are authentic because the connection is our own: made to the address that Discord's API named, over TLS, with the bot's
//! token. So only [`piece`] makes records of them, as `receive` does of what is signed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::receive::{Said, deferral, kind_of, locate};
use super::wire::{Object, text};
use super::{CALLER, api, check, get, message, send};
use crate::channels::{ChannelSettings, Piece};
use crate::directory::Account;
use crate::exchange::{HttpRequest, HttpResponse};

/// An interaction: comes so while the application has no address for them.
const INTERACTION: &str = "INTERACTION_CREATE";
/// Longest address of a Gateway that is believed, in bytes.
const ADDRESS_BYTES_MAX: usize = 512;
/// Longest wait for a new budget of sessions: Discord counts them by the day.
const RESET_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the Gateway shall tell, as Discord's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intents(u64);

impl Intents {
    /// Direct messages and reactions to them.
    pub const DIRECT: Self = Self((1 << 12) | (1 << 13));
    /// Bits that Discord may have: what is above is surely a mistake.
    const BITS: u32 = 53;

    /// Reads a number.
    ///
    /// # Errors
    ///
    /// It is none, or too large.
    pub fn parse(number: &str) -> Result<Self, &'static str> {
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("must be a number");
        }
        match number.parse::<u64>() {
            Ok(bits) if bits >> Self::BITS == 0 => Ok(Self(bits)),
            Ok(_) | Err(_) => Err("must be below 2^53"),
        }
    }

    /// Those of an account; none: it wants interactions only, and no connection.
    pub fn of(account: &Account) -> Option<Self> {
        let said = account.row.public.get("intents").and_then(|said| Self::parse(said).ok());
        Some(said.unwrap_or(Self::DIRECT)).filter(|intents| intents.0 != 0)
    }

    /// Whether nothing of guilds is asked for.
    pub fn is_direct_only(self) -> bool {
        /// Direct messages, reactions to them, who types there, the content of messages, and votes.
        const OF_DIRECT: u64 = (0b1111 << 12) | (1 << 25);
        self.0 & !OF_DIRECT == 0
    }

    /// The number.
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// Asks where the Gateway is and how many sessions may begin.
pub fn discovery(account: &Account, settings: &ChannelSettings) -> HttpRequest {
    get(account, settings, "/gateway/bot")
}

/// Where the Gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// Its address, without a query.
    pub address: String,
    /// How many connections Discord advises. Direct messages come to the first.
    pub shards: u32,
    /// How many sessions may begin until the reset.
    pub sessions_left: u32,
    /// When there are new ones.
    pub reset_after: Duration,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undiscovered {
    /// The bot's token is not taken: no use to ask again before it is changed.
    #[error("the bot's token is refused")]
    Token,
    /// Something else; ask later.
    #[error("http {status}")]
    Later {
        /// The status.
        status: u16,
        /// How long Discord wants to be left alone.
        after: Option<Duration>,
    },
}

#[derive(Deserialize)]
struct GatewayBot {
    url: String,
    #[serde(default)]
    shards: Option<u32>,
    #[serde(default)]
    session_start_limit: Option<SessionStartLimit>,
}

#[derive(Deserialize)]
struct SessionStartLimit {
    #[serde(default)]
    remaining: Option<u32>,
    #[serde(default)]
    reset_after: Option<u64>,
}

/// Reads the answer to [`discovery`].
///
/// # Errors
///
/// The token is refused, or there is no address now.
pub fn discovered(response: &HttpResponse) -> Result<Discovered, Undiscovered> {
    let later = Undiscovered::Later { status: response.status, after: response.retry_after };
    match response.status {
        200 => {}
        401 => return Err(Undiscovered::Token),
        _ => return Err(later),
    }
    let Ok(told) = serde_json::from_slice::<GatewayBot>(&response.body) else { return Err(later) };
    if !is_address(&told.url) {
        return Err(later);
    }
    let limit = told.session_start_limit;
    let reset = limit.as_ref().and_then(|limit| limit.reset_after).map_or(Duration::ZERO, Duration::from_millis);
    Ok(Discovered {
        address: told.url.trim_end_matches('/').to_owned(),
        shards: told.shards.unwrap_or(1),
        sessions_left: limit.and_then(|limit| limit.remaining).unwrap_or(1),
        reset_after: reset.min(RESET_MAX),
    })
}

/// Whether a text is the address of a WebSocket, without user, query and fragment. Whether it must be `wss` is for who connects.
pub fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("wss://").or_else(|| text.strip_prefix("ws://"));
    let Some(rest) = rest.filter(|_| text.len() <= ADDRESS_BYTES_MAX) else { return false };
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#' | b'\\');
    !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain)
}

/// An event of the Gateway.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its name (`t`).
    pub name: &'a str,
    /// Its number (`s`), which is the same when it comes again by RESUME.
    pub number: u64,
    /// The session that the number belongs to.
    pub session: &'a str,
    /// The bot's own user id, as READY says it: our own messages are known by it.
    pub bot: &'a str,
    /// What it says (`d`).
    pub said: &'a RawValue,
}

/// The record of an event; none: it says nothing that anybody waits for.
///
/// The same event read again from the same session makes the same record.
pub fn piece(event: &Event<'_>) -> Option<Piece> {
    let whole = Bytes::copy_from_slice(event.said.get().as_bytes());
    if event.name == INTERACTION {
        let Some(located) = locate(&whole) else { return Some(Piece::unparsable(whole)) };
        return match located.said {
            Said::Interaction(kind) => Some(Piece::new(located.handle, kind_of(kind), whole)),
            Said::Ping => None,
            Said::EventPing | Said::Event => Some(Piece::unparsable(whole)),
        };
    }
    let Ok(said) = serde_json::from_str::<Object>(event.said.get()) else { return Some(Piece::unparsable(whole)) };
    if !message::is_told(event.name, &said, event.bot) {
        return None;
    }
    let handle = message::place(&said);
    // A number is one only within its session: where an event has no id, its record's bytes are its id.
    let frame = json!({ "t": event.name, "s": event.number, "session": event.session, "bot": event.bot, "d": said });
    Some(Piece::new(handle, message::kind_of(event.name), Bytes::from(frame.to_string())))
}

/// The call with which an interaction that came by the Gateway is answered at once, as one by HTTP is in the reply; none: the event is
/// none, or wants no answer. Discord wants it within three seconds, so it is made when the record is durable, and made once.
pub fn callback(event: &Event<'_>, account: &Account, settings: &ChannelSettings) -> Option<HttpRequest> {
    if event.name != INTERACTION {
        return None;
    }
    let said: Object = serde_json::from_str(event.said.get()).ok()?;
    let kind = said.get("type").and_then(Value::as_u64)?;
    let answer = deferral(kind, said.get("message").is_some_and(|message| !message.is_null()))?;
    let id = text(&said, "id").filter(|id| check::is_id(id))?;
    let url = format!("{}/interactions/{id}/{}/callback", api(account, settings), send::encoded(text(&said, "token")?));
    let headers = vec![(USER_AGENT, HeaderValue::from_static(CALLER)), (CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Some(HttpRequest { method: Method::POST, url, headers, body: Bytes::from(answer.to_string()) })
}
