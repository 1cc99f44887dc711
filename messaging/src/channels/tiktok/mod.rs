//! TikTok Business Messaging.
//!
//! In the order of a message's path: `wire` names the shape of a webhook and says whom it concerns, `receive` verifies and splits,
//! `parse` (with `content`) says what happened, `check` knows the limits, `send` builds the calls, `outcome` judges the answers.
//! `oauth` keeps the tokens alive: they last a day, and the refresh token changes when it is used.
//!
//! The platform documents little, and in beta: where its rules are unsure the stricter one holds (24 h, 10 messages, nothing after).

use std::time::Duration;

use super::*;

mod check;
mod content;
mod oauth;
mod outcome;
mod parse;
mod receive;
mod send;
mod wire;

/// The channel.
pub struct Tiktok;

/// The members of a `to` object, one of them.
const TO: &[&str] = &["conversation_id", "comment_id"];
/// Whose links the platform gives out for media. Not published: those that its networks are known by.
const MEDIA_HOSTS: &[&str] = &[
    "tiktok.com",
    "tiktokcdn.com",
    "tiktokcdn-us.com",
    "tiktokcdn-eu.com",
    "tiktokv.com",
    "ibyteimg.com",
    "byteoversea.com",
    "muscdn.com",
];
/// The scheme of a conversation's handle.
const CONVERSATION: &str = "conversation";
/// The scheme of a comment's handle: a reply by message goes to a comment, not to a conversation.
const COMMENT: &str = "comment";
/// All that the platform allows after the person's word.
const LONGEST_WINDOW: Duration = secs(48 * 3_600);
/// How long the platform brings a refused event again. What it brings again keeps its signature, time and all.
const REDELIVERED_FOR: Duration = secs(72 * 3_600);
/// How old a signature may be where the account asks for it.
const SHORT_AGE: Duration = secs(5 * 60);
/// Longest conversation or comment id, in bytes.
const TO_BYTES_MAX: usize = 512;

impl Channel for Tiktok {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Tiktok
    }

    fn fields(&self) -> &'static [AccountField] {
        FIELDS
    }

    fn identity(&self) -> Option<&'static str> {
        Some("business_id")
    }

    fn app_secret(&self) -> Option<&'static str> {
        Some("client_secret")
    }

    fn verifier(&self, public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        let is_short = public.get("signature_age").is_some_and(|age| age == "5m");
        let max_age = if is_short { SHORT_AGE } else { REDELIVERED_FOR };
        Verifier::TimedMac { states: mac_states(secrets.get("client_secret")), max_age }
    }

    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
        receive::receive(request, verifier)
    }

    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed> {
        parse::parse(piece)
    }

    fn media(&self, found: &FoundMedia<'_>, account: &Account, settings: &ChannelSettings) -> Option<MediaSource> {
        // Stickers and emoji come with a link that wants no token.
        media::linked(found).or_else(|| send::where_is(found, account, settings).map(MediaSource::Ask))
    }

    fn media_at(
        &self,
        _found: &FoundMedia<'_>,
        answer: &HttpResponse,
        account: &Account,
        _settings: &ChannelSettings,
    ) -> Result<HttpRequest, MediaFault> {
        send::media_at(answer, account)
    }

    fn media_hosts(&self) -> &'static [&'static str] {
        MEDIA_HOSTS
    }

    fn window(&self, settings: &ChannelSettings, account: &Account) -> Option<WindowRule> {
        // The stricter of what the platform is said to allow, unless the tenant asks for all of it.
        let length = if account.public("window") == "48h" { LONGEST_WINDOW } else { settings.window };
        let cap = Some(settings.window_cap).filter(|cap| *cap > 0);
        Some(WindowRule { length, after_ad: length, cap, tags: &[], otherwise: None })
    }

    /// A comment may be answered once by a message, as long as a conversation's window lasts.
    fn window_for(&self, settings: &ChannelSettings, account: &Account, to: &Handle) -> Option<WindowRule> {
        let rule = self.window(settings, account)?;
        if to.scheme() == COMMENT { Some(WindowRule { cap: Some(1), ..rule }) } else { Some(rule) }
    }

    fn has_watermarks(&self) -> bool {
        true
    }

    fn budgets(&self, settings: &ChannelSettings, _to: &Handle, _content: &Content) -> Vec<Budget> {
        vec![
            by_second(BudgetScope::Pair, settings.per_pair),
            by_second(BudgetScope::Account, settings.per_account),
            by_second(BudgetScope::App, settings.per_app),
        ]
    }

    fn owner(&self, scope: BudgetScope, account: &Account, _to: &Handle) -> Owner {
        match scope {
            BudgetScope::Pair => Owner::Pair,
            BudgetScope::App => Owner::Platform(account.public("client_key").to_owned()),
            _ => Owner::Account,
        }
    }

    fn refusal_cost(&self) -> RefusalCost {
        RefusalCost {
            status: 503,
            deadline: secs(5),
            redelivered_for: REDELIVERED_FOR,
            punished_after: None,
            punished_at: None,
            punishment: "",
        }
    }

    fn recipient(&self, to: &Map<String, Value>) -> Result<Handle, Fault> {
        let (name, value) = only_member(to, TO)?;
        handle_of(name, value).map_err(|rule| Fault::new(format!("/{name}"), rule))
    }

    fn short_recipient(&self, to: &str) -> Result<Handle, Fault> {
        handle_of(TO[0], to).map_err(|rule| Fault::new("", rule))
    }

    fn recipient_json(&self, handle: &Handle) -> Value {
        let name = TO.iter().find(|name| scheme(name) == handle.scheme());
        Value::Object(name.map(|name| ((*name).to_owned(), handle.value().into())).into_iter().collect())
    }

    fn nobody(&self) -> Handle {
        Handle::new(CONVERSATION, "0")
    }

    fn check(&self, content: &Content, to: &Handle) -> Vec<Fault> {
        check::check(content, to)
    }

    fn request(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        send::request(send, account, settings)
    }

    fn outcome(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        outcome::outcome(send, response)
    }

    fn holds(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Vec<Hold> {
        outcome::holds(send, response)
    }

    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest {
        send::probe(account, settings)
    }

    fn probed(&self, response: &HttpResponse) -> bool {
        outcome::is_ok(response)
    }

    fn refuses_credential(&self, response: &HttpResponse) -> bool {
        outcome::refuses(response)
    }

    fn life(&self, account: &Account) -> Life {
        oauth::life(account)
    }

    fn refresh_request(&self, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        oauth::request(account, settings)
    }

    fn refreshed(&self, account: &Account, response: &HttpResponse, now: Timestamp) -> Refresh {
        oauth::read(account, response, now)
    }

    fn settlement(&self) -> Settlement {
        Settlement::ByEcho
    }
}

/// The scheme of a member of `to`.
fn scheme(name: &str) -> &'static str {
    match name {
        "comment_id" => COMMENT,
        _ => CONVERSATION,
    }
}

/// The handle of a member of `to`, or the rule that its value breaks.
fn handle_of(name: &str, value: &str) -> Result<Handle, &'static str> {
    if value.is_empty() {
        return Err("must not be empty");
    }
    if value.len() > TO_BYTES_MAX || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be at most 512 visible ASCII characters");
    }
    if name == "comment_id" && !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("must be digits");
    }
    Ok(Handle::new(scheme(name), value))
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn check_window(value: &str) -> Result<(), &'static str> {
    if matches!(value, "24h" | "48h") { Ok(()) } else { Err("must be 24h or 48h") }
}

fn check_age(value: &str) -> Result<(), &'static str> {
    if matches!(value, "5m" | "72h") { Ok(()) } else { Err("must be 5m or 72h") }
}

const FIELDS: &[AccountField] = &[
    AccountField {
        name: "business_id",
        secret: false,
        required: true,
        help: "the id of the business account (its open id in webhooks)",
        check: check_secret,
    },
    AccountField {
        name: "client_key",
        secret: false,
        required: true,
        help: "the app's client key (also called app id)",
        check: check_secret,
    },
    AccountField {
        name: "window",
        secret: false,
        required: false,
        help: "how long free text is allowed after the person's word: 24h (the default) or 48h (all that the platform allows)",
        check: check_window,
    },
    AccountField {
        name: "signature_age",
        secret: false,
        required: false,
        help: "how old a webhook's signature may be: 72h (the default: as long as TikTok brings an event again) or 5m",
        check: check_age,
    },
    AccountField { name: "access_token", secret: true, required: true, help: "the access token (24 h)", check: check_secret },
    AccountField { name: "refresh_token", secret: true, required: true, help: "the refresh token; it rotates on use", check: check_secret },
    AccountField {
        name: "client_secret",
        secret: true,
        required: true,
        help: "the app's client secret, which signs webhooks",
        check: check_secret,
    },
];
