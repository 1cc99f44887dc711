//! Discord: interactions and webhook events by HTTP, signed with the application's Ed25519 key; ordinary messages by the Gateway
//! WebSocket (see [`socket`]), which only a connector can read.
//!
//! The conversation is the channel. A direct message names the person too, so that `user_id` finds the conversation; in a guild's
//! channel many people write, and who did stands in the context. Messages have the platform's own ids (snowflakes), which are
//! unique over all channels; interactions are no messages and are named `interaction:{id}`.
//!
//! A send of ours carries its id as `nonce` with `enforce_nonce`: Discord gives the first message back in place of a second, and
//! the Gateway's echo of it carries the nonce again, so that a send of unknown fate is settled by the echo. Follow-ups through an
//! interaction's token have no nonce.

mod check;
mod content;
mod interaction;
mod message;
mod news;
mod nonce;
mod outcome;
mod parse;
mod receive;
mod send;
pub mod socket;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{HeaderValue, Method};
use serde_json::{Map, Value};

use super::{
    AccountField, Channel, ChannelKind, ChannelSettings, ED25519_KEY_BYTES, Fault, FoundMedia, Hold, Inbound, Malformed, MediaSource,
    Outgoing, Owner, Received, Refusal, RefusalCost, Settlement, Unsendable, Verifier, WindowRule, by_second, check_digits, check_secret,
    media, only_member,
};
use crate::content::{Content, Handle};
use crate::directory::{Account, SecretPair};
use crate::exchange::{HttpRequest, HttpResponse, WebhookRequest};
use crate::limit::{Budget, BudgetScope};
use crate::outcome::Verdict;

/// Discord.
#[derive(Debug)]
pub struct Discord;

/// The members of a `to` object, one of them.
const TO: &[&str] = &["channel_id", "user_id"];
/// The scheme of a channel's handle: of a guild's or of a direct conversation.
const CHANNEL: &str = "channel";
/// The scheme of a person's handle.
const USER: &str = "user";
/// Who calls: Discord wants this form and refuses calls without it.
const CALLER: &str = concat!("DiscordBot (https://trunkline.example, ", env!("CARGO_PKG_VERSION"), ")");
/// Where attachments are. Their links are signed and good for about a day.
const MEDIA_HOSTS: &[&str] = &["cdn.discordapp.com", "media.discordapp.net"];
/// Often seen for a channel: 5 messages in 5 seconds. The headers say what holds.
const ROUTE_BURST: u32 = 5;
/// The route that opens direct conversations: one for all people, and Discord takes offence at haste (40003).
const OPENING: &str = "opens direct conversations";
/// How soon Discord wants the answer to an interaction.
const DEADLINE: Duration = Duration::from_secs(3);

impl Channel for Discord {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Discord
    }

    fn fields(&self) -> &'static [AccountField] {
        FIELDS
    }

    fn verifier(&self, public: &BTreeMap<String, String>, _secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        let key = public.get("public_key").and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
        Verifier::Ed25519(key.and_then(|key| key.try_into().ok()).into_iter().collect())
    }

    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
        receive::receive(request, verifier)
    }

    /// Discord sends wrong signatures on purpose and wants this very status.
    fn unauthentic_status(&self) -> u16 {
        401
    }

    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed> {
        parse::parse(piece)
    }

    fn media(&self, found: &FoundMedia<'_>, _account: &Account, _settings: &ChannelSettings) -> Option<MediaSource> {
        media::linked(found)
    }

    fn media_hosts(&self) -> &'static [&'static str] {
        MEDIA_HOSTS
    }

    fn window(&self, _settings: &ChannelSettings, _account: &Account) -> Option<WindowRule> {
        // No time window: a token that can no longer be used is dropped by `ContactInfo::via_for`.
        None
    }

    fn budgets(&self, settings: &ChannelSettings, _to: &Handle, _content: &Content) -> Vec<Budget> {
        vec![
            Budget { scope: BudgetScope::Route, rate_per_second: settings.per_route, burst: ROUTE_BURST },
            by_second(BudgetScope::App, settings.per_app),
        ]
    }

    fn owner(&self, scope: BudgetScope, account: &Account, to: &Handle) -> Owner {
        match scope {
            BudgetScope::Route if to.scheme() == USER => Owner::Within(OPENING.to_owned()),
            BudgetScope::Route => Owner::Within(to.expose().to_owned()),
            BudgetScope::App => Owner::Platform(account.public("application_id").to_owned()),
            BudgetScope::ApiKey
            | BudgetScope::Tenant
            | BudgetScope::TenantMessages
            | BudgetScope::Account
            | BudgetScope::Pair
            | BudgetScope::Kind
            | BudgetScope::Page
            | BudgetScope::Chat
            | BudgetScope::Endpoint
            | BudgetScope::Global => Owner::Account,
        }
    }

    /// Interactions do not come again; webhook events do for 10 minutes. The dearer of both counts.
    fn refusal_cost(&self) -> RefusalCost {
        RefusalCost {
            status: 503,
            deadline: DEADLINE,
            redelivered_for: Duration::ZERO,
            punished_after: None,
            punished_at: None,
            punishment: "the interaction's token dies",
        }
    }

    fn recipient(&self, to: &Map<String, Value>) -> Result<Handle, Fault> {
        let (name, value) = only_member(to, TO)?;
        check_digits(value).map_err(|rule| Fault::new(format!("/{name}"), rule))?;
        Ok(Handle::new(scheme(name), value))
    }

    fn short_recipient(&self, to: &str) -> Result<Handle, Fault> {
        check_digits(to).map_err(|rule| Fault::new("", rule))?;
        Ok(Handle::new(CHANNEL, to))
    }

    fn recipient_json(&self, handle: &Handle) -> Value {
        let name = TO.iter().find(|name| scheme(name) == handle.scheme()).unwrap_or(&TO[0]);
        Value::Object(Map::from_iter([((*name).to_owned(), handle.value().into())]))
    }

    fn nobody(&self) -> Handle {
        Handle::new(CHANNEL, "0")
    }

    fn check(&self, content: &Content, _to: &Handle) -> Vec<Fault> {
        check::check(content)
    }

    fn request(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        let call = send::call(send, account)?;
        let url = format!("{}{}", api(account, settings), call.path);
        let mut headers = vec![(USER_AGENT, HeaderValue::from_static(CALLER))];
        if call.by_bot {
            headers.push(authorization(account));
        }
        let mut body = Bytes::new();
        if let Some(json) = call.body {
            headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
            body = Bytes::from(json.to_string());
        }
        Ok(HttpRequest { method: call.method, url, headers, body })
    }

    fn outcome(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        outcome::outcome(send, response)
    }

    fn holds(&self, _send: &Outgoing<'_>, response: &HttpResponse) -> Vec<Hold> {
        outcome::holds(response)
    }

    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest {
        get(account, settings, "/users/@me")
    }

    /// The nonce: Discord gives the first message back in place of a second.
    fn settlement(&self) -> Settlement {
        Settlement::ByRepeat
    }
}

/// The address of the API with its version.
fn api(account: &Account, settings: &ChannelSettings) -> String {
    format!("{}/{}", settings.base(account), settings.api_version)
}

fn authorization(account: &Account) -> (HeaderName, HeaderValue) {
    // What `check_secret` takes is a header value.
    let mut value = HeaderValue::try_from(format!("Bot {}", account.secret("bot_token"))).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    (AUTHORIZATION, value)
}

/// A reading call of the bot.
fn get(account: &Account, settings: &ChannelSettings, path: &str) -> HttpRequest {
    let headers = vec![(USER_AGENT, HeaderValue::from_static(CALLER)), authorization(account)];
    HttpRequest { method: Method::GET, url: format!("{}{path}", api(account, settings)), headers, body: Bytes::new() }
}

/// The scheme of a member of `to`.
fn scheme(name: &str) -> &'static str {
    match name {
        "user_id" => USER,
        _ => CHANNEL,
    }
}

fn check_public_key(value: &str) -> Result<(), &'static str> {
    let is_key = value.len() == 2 * ED25519_KEY_BYTES && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_key { Ok(()) } else { Err("must be 64 hexadecimal digits") }
}

fn check_intents(value: &str) -> Result<(), &'static str> {
    socket::Intents::parse(value).map(|_| ())
}

const FIELDS: &[AccountField] = &[
    AccountField { name: "application_id", secret: false, required: true, help: "the application's id (digits)", check: check_digits },
    AccountField {
        name: "public_key",
        secret: false,
        required: true,
        help: "the application's public key (64 hexadecimal digits), which proves webhooks",
        check: check_public_key,
    },
    AccountField { name: "bot_token", secret: true, required: true, help: "the bot's token", check: check_secret },
    AccountField {
        name: "intents",
        secret: false,
        required: false,
        help: "what the Gateway tells, as Discord's number: 12288 (direct messages and their reactions) without it, 46592 for the messages of \
               guilds too (their content is a privileged intent); 0: interactions only",
        check: check_intents,
    },
];
