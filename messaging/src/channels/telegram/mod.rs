//! Telegram Bot API: one update per request, a shared secret in a header, the credential in the address of every call.
//!
//! A message is (chat, message id): everywhere in this channel the platform's id of a message is `{chat_id}:{message_id}`,
//! so that edits, replies and reactions find it. Messages of a business account are counted apart from those that the same
//! person exchanges with the bot itself, so their id ends in `:{business_connection_id}`. Chats below zero are groups and channels.

mod check;
mod content;
mod context;
mod file;
mod outcome;
mod parse;
mod receive;
mod send;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    AccountField, Channel, ChannelKind, ChannelSettings, Fault, FoundMedia, Inbound, Malformed, MediaFault, MediaSource, Outgoing,
    Received, Refusal, RefusalCost, Settlement, Unsendable, Verifier, WindowRule, live_secrets,
};
use crate::content::{Content, Handle};
use crate::directory::{Account, SecretPair};
use crate::exchange::{HttpRequest, HttpResponse, WebhookRequest};
use crate::limit::{Budget, BudgetScope};
use crate::outcome::Verdict;

/// Messages at once to one person: "short bursts" are tolerated by the Bot FAQ.
const PAIR_BURST: u32 = 3;
/// What a group takes of the rate of one person: 20 a minute against 1 a second.
const GROUP_SHARE: f64 = 20.0 / 60.0;
/// Messages at once to one group.
const GROUP_BURST: u32 = 20;
/// What an account may send at once, as a part of its rate: Telegram counts over about a second, so little more than the rate gets in.
const ACCOUNT_BURST_SHARE: f64 = 1.0 / 3.0;
/// How long Telegram brings an update again after we refused it.
const REDELIVERED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Telegram publishes none; slow answers hold up the chat.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longest `secret_token`.
const SECRET_TOKEN_MAX: usize = 256;

/// Telegram Bot API.
#[derive(Debug)]
pub struct Telegram;

impl Channel for Telegram {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Telegram
    }

    fn fields(&self) -> &'static [AccountField] {
        FIELDS
    }

    fn verifier(&self, _public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        Verifier::Tokens(live_secrets(secrets.get("secret_token")))
    }

    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
        receive::receive(request, verifier)
    }

    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed> {
        parse::parse(piece)
    }

    fn media(&self, found: &FoundMedia<'_>, account: &Account, settings: &ChannelSettings) -> Option<MediaSource> {
        file::where_is(found, account, settings).map(MediaSource::Ask)
    }

    fn media_at(
        &self,
        _found: &FoundMedia<'_>,
        answer: &HttpResponse,
        account: &Account,
        settings: &ChannelSettings,
    ) -> Result<HttpRequest, MediaFault> {
        file::media_at(answer, account, settings)
    }

    /// None: once a person started the bot it may write until it is blocked. Sends on behalf of a business account end 24 h after
    /// the person's last word; Telegram says so in its answer (see `outcome`).
    fn window(&self, _settings: &ChannelSettings, _account: &Account) -> Option<WindowRule> {
        None
    }

    fn budgets(&self, settings: &ChannelSettings, to: &Handle, _content: &Content) -> Vec<Budget> {
        let (rate, burst) =
            if to.scheme() == "group" { (settings.per_pair * GROUP_SHARE, GROUP_BURST) } else { (settings.per_pair, PAIR_BURST) };
        let account_burst = (settings.per_account * ACCOUNT_BURST_SHARE).ceil().max(1.0) as u32;
        vec![
            Budget { scope: BudgetScope::Pair, rate_per_second: rate, burst },
            Budget { scope: BudgetScope::Account, rate_per_second: settings.per_account, burst: account_burst },
        ]
    }

    fn refusal_cost(&self) -> RefusalCost {
        RefusalCost {
            status: 503,
            deadline: DEADLINE,
            redelivered_for: REDELIVERED_FOR,
            punished_after: None,
            punished_at: None,
            punishment: "",
        }
    }

    fn recipient(&self, to: &Map<String, Value>) -> Result<Handle, Fault> {
        if let Some(other) = to.keys().find(|key| *key != "chat_id") {
            return Err(Fault::new(format!("/{}", escape_pointer(other)), "is not a member of a telegram recipient, which is chat_id"));
        }
        let chat = match to.get("chat_id") {
            Some(Value::String(text)) => chat_id(text),
            Some(Value::Number(number)) => number.as_i64().filter(|id| *id != 0),
            Some(_) => None,
            None => return Err(Fault::new("/chat_id", "is missing")),
        };
        chat.map(chat_handle).ok_or_else(|| Fault::new("/chat_id", CHAT_RULE))
    }

    fn short_recipient(&self, to: &str) -> Result<Handle, Fault> {
        chat_id(to).map(chat_handle).ok_or_else(|| Fault::new("", CHAT_RULE))
    }

    fn recipient_json(&self, handle: &Handle) -> Value {
        json!({ "chat_id": handle.value() })
    }

    fn nobody(&self) -> Handle {
        Handle::chat("0")
    }

    fn check(&self, content: &Content, _to: &Handle) -> Vec<Fault> {
        check::check(content)
    }

    fn request(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        let call = send::call(send)?;
        let url = method_url(account, settings, call.method);
        let body = Bytes::from(Value::Object(call.body).to_string());
        let headers = vec![(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"))];
        Ok(HttpRequest { method: http::Method::POST, url, headers, body })
    }

    fn outcome(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        outcome::outcome(send, response)
    }

    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest {
        let url = method_url(account, settings, "getMe");
        HttpRequest { method: http::Method::GET, url, headers: Vec::new(), body: Bytes::new() }
    }

    /// A token that is none is a path that does not exist.
    fn refuses_credential(&self, response: &HttpResponse) -> bool {
        matches!(response.status, 401 | 404)
    }

    /// Bots get no receipts and their sends carry no id of ours.
    fn settlement(&self) -> Settlement {
        Settlement::Never
    }
}

const FIELDS: &[AccountField] = &[
    AccountField {
        name: "bot_token",
        secret: true,
        required: true,
        help: "the bot's token from @BotFather, such as 110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
        check: check_bot_token,
    },
    AccountField {
        name: "secret_token",
        secret: true,
        required: true,
        help: "the secret_token given to setWebhook; one random text for each bot",
        check: check_secret_token,
    },
    AccountField { name: "username", secret: false, required: false, help: "the bot's user name, without @", check: check_username },
];

/// Letters, digits, `_` and `-`: also what makes the token safe in a URL.
fn is_token_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == '-'
}

fn check_bot_token(value: &str) -> Result<(), &'static str> {
    let rule = "must be the bot's number, a colon and letters, digits, _ or -";
    let (id, key) = value.split_once(':').ok_or(rule)?;
    let fits = !id.is_empty() && id.chars().all(|char| char.is_ascii_digit()) && !key.is_empty() && key.chars().all(is_token_char);
    if fits { Ok(()) } else { Err(rule) }
}

fn check_secret_token(value: &str) -> Result<(), &'static str> {
    let fits = !value.is_empty() && value.len() <= SECRET_TOKEN_MAX && value.chars().all(is_token_char);
    if fits { Ok(()) } else { Err("must be 1 to 256 letters, digits, _ or -") }
}

fn check_username(value: &str) -> Result<(), &'static str> {
    let fits = (5..=32).contains(&value.len()) && value.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
    if fits { Ok(()) } else { Err("must be 5 to 32 letters, digits or _, without @") }
}

const CHAT_RULE: &str = "must be a chat's number, such as \"4711\" (below zero for groups); a bot cannot write to a user name";

/// A chat's number as people write it: digits, with a minus for groups.
fn chat_id(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != 0)
}

/// The handle of a chat. By sign and not by the chat's type, so that an inbound update and the API's `to` name the same conversation.
fn chat_handle(id: i64) -> Handle {
    let text = id.to_string();
    if id < 0 { Handle::group(&text) } else { Handle::chat(&text) }
}

/// A message's place: its chat, its number there, and the business connection when it is in a chat of a business account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MessageKey<'a> {
    chat: i64,
    message: i64,
    via: Option<&'a str>,
}

impl<'a> MessageKey<'a> {
    /// None when the platform id names something else, such as an update.
    fn from_platform_id(id: &'a str) -> Option<Self> {
        let mut parts = id.splitn(3, ':');
        let chat = chat_id(parts.next()?)?;
        let message = parts.next()?.parse().ok()?;
        Some(Self { chat, message, via: parts.next() })
    }

    fn platform_id(self) -> String {
        match self.via {
            Some(via) => format!("{}:{}:{via}", self.chat, self.message),
            None => format!("{}:{}", self.chat, self.message),
        }
    }
}

fn method_url(account: &Account, settings: &ChannelSettings, method: &str) -> String {
    format!("{}/bot{}/{method}", settings.base(account), account.secret("bot_token"))
}

/// A member's name inside a JSON pointer.
fn escape_pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
