//! The platforms. A channel is a pure thing: it judges bytes and builds bytes, does no I/O, and says everything
//! particular to its platform in one place: verify and split, parse, window rule, budgets, request, outcome.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::content::{Content, Handle};
use crate::directory::{Account, SecretPair};
use crate::exchange::{HttpRequest, HttpResponse, MailReply, WebhookRequest};
use crate::limit::{Budget, BudgetScope};
use crate::outcome::{Reason, Verdict, named_enum};

mod credential;
pub mod discord;
pub mod email;
mod inbound;
pub mod instagram;
mod media;
pub mod messenger;
pub mod meta;
mod outbound;
mod rules;
pub mod telegram;
pub mod tiktok;
mod webhook;
pub mod whatsapp;
pub mod woocommerce;

pub(crate) use credential::end_of;
pub use credential::{ACCESS_TOKEN, Life, REFRESH_TOKEN, Refresh, Tokens};
pub use inbound::{ContactInfo, Inbound, InboundBody, StatusUpdate};
pub use media::{FoundMedia, MediaFault, MediaSource, may_fetch};
pub(crate) use outbound::check_chars;
pub use outbound::{Fault, Outbound, Outgoing, Unsendable};
pub use rules::{AccountField, ChannelSettings, Hold, Owner, RefusalCost, Settlement, TagRule, WindowRule};
pub use webhook::{
    About, Answer, ED25519_KEY_BYTES, HandshakeReply, MailVerifier, Malformed, Piece, PieceKind, Received, Refusal, Verifier,
};
pub(crate) use webhook::{any_mac_matches, live_secrets, mac_states};

named_enum! {
/// The platforms that are built in. Their order stands in records: new ones come last.
ChannelKind {
    /// WhatsApp Cloud API.
    Whatsapp = "whatsapp",
    /// Telegram Bot API.
    Telegram = "telegram",
    /// Facebook Messenger.
    Messenger = "messenger",
    /// Instagram Direct.
    Instagram = "instagram",
    /// TikTok Business Messaging.
    Tiktok = "tiktok",
    /// Discord.
    Discord = "discord",
    /// E-mail.
    Email = "email",
    /// WooCommerce shops.
    Woocommerce = "woocommerce",
}
}

impl ChannelKind {
    /// The channel of that name, as it stands in paths.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// The one match: everything else asks the trait.
pub fn channel(kind: ChannelKind) -> &'static dyn Channel {
    match kind {
        ChannelKind::Whatsapp => &whatsapp::Whatsapp,
        ChannelKind::Telegram => &telegram::Telegram,
        ChannelKind::Messenger => &messenger::Messenger,
        ChannelKind::Instagram => &instagram::Instagram,
        ChannelKind::Tiktok => &tiktok::Tiktok,
        ChannelKind::Discord => &discord::Discord,
        ChannelKind::Email => &email::Email,
        ChannelKind::Woocommerce => &woocommerce::Woocommerce,
    }
}

/// A platform.
pub trait Channel: Send + Sync {
    /// Which.
    fn kind(&self) -> ChannelKind;

    /// The members of an account of this channel.
    fn fields(&self) -> &'static [AccountField];

    /// The public member that is the platform's own id of an account, where one hook of the platform serves several accounts
    /// (a Meta or TikTok app). Pieces then say which (`Piece::account`).
    fn identity(&self) -> Option<&'static str> {
        None
    }

    /// The secret of the app that requests are signed with, where `identity` says something: accounts of one app have the same.
    fn app_secret(&self) -> Option<&'static str> {
        None
    }

    /// The public member that is the platform's id of what several accounts belong to (a WhatsApp Business Account), where events name
    /// it and no account.
    fn group(&self) -> Option<&'static str> {
        None
    }

    /// Prepares what an account proves requests with: done once per directory snapshot, not per request.
    fn verifier(&self, public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier;

    /// What `receive` needs beside the request and cannot know: a certificate's address, whose host the channel has checked.
    /// The gateway fetches it (kept, capped) and gives it as `WebhookRequest::fetched`. Asked only for accounts that exist.
    fn needs(&self, _request: &WebhookRequest<'_>, _verifier: &Verifier) -> Option<HttpRequest> {
        None
    }

    /// Judges a webhook request over its raw bytes, in constant time, before any parsing; then splits it into one piece
    /// per inner event.
    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal>;

    /// The status for a request without a right signature; that of an unknown account is the same.
    fn unauthentic_status(&self) -> u16 {
        403
    }

    /// What one piece says. Accepts unknown keys, unknown kinds (as `Unsupported` or `Platform`, with the raw part) and
    /// missing optional keys.
    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed>;

    /// Where the bytes of a medium are that came with a message; none: the platform gives none out.
    fn media(&self, _found: &FoundMedia<'_>, _account: &Account, _settings: &ChannelSettings) -> Option<MediaSource> {
        None
    }

    /// Where the bytes are, from the answer to `MediaSource::Ask`.
    fn media_at(
        &self,
        _found: &FoundMedia<'_>,
        _answer: &HttpResponse,
        _account: &Account,
        _settings: &ChannelSettings,
    ) -> Result<HttpRequest, MediaFault> {
        Err(MediaFault::Unsupported)
    }

    /// The hosts that bytes may come from, beside the account's own `api_base`: names, and what ends with a dot and one of them.
    fn media_hosts(&self) -> &'static [&'static str] {
        &[]
    }

    /// The bytes that stand in a piece itself, in the order of its content's media; empty when it brings none.
    fn media_parts(&self, _piece: &[u8]) -> Vec<Bytes> {
        Vec::new()
    }

    /// How free text is bounded; none: not at all.
    fn window(&self, settings: &ChannelSettings, account: &Account) -> Option<WindowRule>;

    /// The same for one recipient, where it depends on whom: a private reply to a comment has a rule of its own.
    fn window_for(&self, settings: &ChannelSettings, account: &Account, _to: &Handle) -> Option<WindowRule> {
        self.window(settings, account)
    }

    /// The tags that a send may carry, by name.
    fn tags(&self) -> &'static [TagRule] {
        &[]
    }

    /// Whether the platform tells deliveries and readings by watermark: then a conversation remembers its newest sends.
    fn has_watermarks(&self) -> bool {
        false
    }

    /// The budgets of the outside world that a send uses, narrowest first, each scope once at most.
    fn budgets(&self, settings: &ChannelSettings, to: &Handle, content: &Content) -> Vec<Budget>;

    /// Whose one of those budgets is.
    fn owner(&self, scope: BudgetScope, _account: &Account, _to: &Handle) -> Owner {
        if scope == BudgetScope::Pair { Owner::Pair } else { Owner::Account }
    }

    /// What a refusal of a webhook costs with this platform.
    fn refusal_cost(&self) -> RefusalCost;

    /// The handle of the API's `to` object, or what is wrong with it (pointer relative to `to`).
    fn recipient(&self, to: &Map<String, Value>) -> Result<Handle, Fault>;

    /// The handle of the short form, as in `?to=`.
    fn short_recipient(&self, to: &str) -> Result<Handle, Fault>;

    /// The API's `to` object of a handle.
    fn recipient_json(&self, handle: &Handle) -> Value;

    /// A handle of the channel's usual form that is nobody's, to judge a content by.
    fn nobody(&self) -> Handle;

    /// Everything that is wrong with a content for this recipient, with the platform's limits, not just the first fault.
    /// Pointers are relative to the message, such as `/text/body`.
    fn check(&self, content: &Content, to: &Handle) -> Vec<Fault>;

    /// The platform's request.
    fn request(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable>;

    /// How a send leaves: the platform's request, unless the channel has another way.
    fn transport(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<Outbound, Unsendable> {
        self.request(send, account, settings).map(Outbound::Http)
    }

    /// What the platform's answer means for this send.
    fn outcome(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Verdict;

    /// What a relay's answer means for this send.
    fn mail_outcome(&self, _send: &Outgoing<'_>, _account: &Account, reply: &MailReply) -> Verdict {
        Verdict::Unknown { reason: Reason::ServerError, detail: format!("smtp {}", reply.code) }
    }

    /// What an answer says about rates, whatever its verdict: usage headers, a bucket that is empty.
    fn holds(&self, _send: &Outgoing<'_>, _response: &HttpResponse) -> Vec<Hold> {
        Vec::new()
    }

    /// A cheap call that shows whether the account's credential works, for `POST /v1/accounts/{id}/check`.
    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest;

    /// Whether the answer to the probe says that it works.
    fn probed(&self, response: &HttpResponse) -> bool {
        (200..300).contains(&response.status)
    }

    /// Whether an answer, to whatever call, says that the account's credential is refused.
    fn refuses_credential(&self, response: &HttpResponse) -> bool {
        response.status == 401
    }

    /// Whether the probe shows that the credential which sends use works.
    fn probes_credential(&self) -> bool {
        true
    }

    /// Whether and when the account's credential ends, and when it is refreshed.
    fn life(&self, _account: &Account) -> Life {
        Life::ENDLESS
    }

    /// The request that refreshes the account's credential.
    ///
    /// # Errors
    /// It cannot be refreshed, or the account lacks what that needs.
    fn refresh_request(&self, _account: &Account, _settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        Err(Unsendable(format!("a credential of {} is not refreshed", self.kind().name())))
    }

    /// What the answer to `refresh_request` says.
    fn refreshed(&self, _account: &Account, response: &HttpResponse, _now: Timestamp) -> Refresh {
        Refresh::Unable { detail: format!("http {}", response.status) }
    }

    /// How an unknown send can be settled.
    fn settlement(&self) -> Settlement;
}

/// The one member of a `to` object that names a single text, or what is wrong with it.
pub(crate) fn only_member<'a>(to: &'a Map<String, Value>, names: &[&'static str]) -> Result<(&'static str, &'a str), Fault> {
    let list = || names.join(" or ");
    if let Some(other) = to.keys().find(|key| !names.contains(&key.as_str())) {
        let pointer = other.replace('~', "~0").replace('/', "~1");
        return Err(Fault::new(format!("/{pointer}"), format!("is not a member of this recipient, which is {}", list())));
    }
    let mut given = names.iter().filter(|name| to.contains_key(**name));
    let (Some(name), None) = (given.next(), given.next()) else {
        return Err(Fault::new("", format!("needs exactly one of {}", list())));
    };
    match &to[*name] {
        Value::String(text) if !text.is_empty() => Ok((name, text)),
        _ => Err(Fault::new(format!("/{name}"), "must be text and not empty")),
    }
}

/// A float's cast saturates, so an absurd setting cannot wrap round to a small burst.
pub(crate) fn second_of(rate: f64) -> u32 {
    rate.ceil().max(1.0) as u32
}

/// A rate with a burst of one second of it.
pub(crate) fn by_second(scope: BudgetScope, rate: f64) -> Budget {
    Budget { scope, rate_per_second: rate, burst: second_of(rate) }
}

/// A secret that stands in a header or is a key.
pub(crate) fn check_secret(value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        return Err("must not be empty");
    }
    if value.len() > SECRET_BYTES_MAX {
        return Err("must have at most 2048 bytes");
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be visible ASCII without spaces");
    }
    Ok(())
}

/// An id of a platform that is a number.
pub(crate) fn check_digits(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("must be digits");
    }
    if value.len() > ID_DIGITS_MAX {
        return Err("must have at most 32 digits");
    }
    Ok(())
}

/// Longest token or secret of an account, in bytes.
const SECRET_BYTES_MAX: usize = 2048;
/// Longest id of digits.
const ID_DIGITS_MAX: usize = 32;
