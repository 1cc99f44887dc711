//! Discord.
//!
//! NOT FILLED YET: `receive`, `parse`, `check`, `request` and `outcome` refuse everything. What stands here as data (members of
//! accounts, recipients, window, budgets, cost of refusals) is the platform's.

use std::time::Duration;

use super::*;

/// The channel.
pub struct Discord;

/// What is not there yet.
const NOT_FILLED: &str = "discord is not filled yet";
/// The members of a `to` object, one of them.
const TO: &[&str] = &["channel_id", "user_id"];

impl Channel for Discord {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Discord
    }

    fn fields(&self) -> &'static [AccountField] {
        FIELDS
    }

    fn verifier(&self, public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        let key = public.get("public_key").and_then(|hex| data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
        let _ = secrets;
        Verifier::Ed25519(key.and_then(|key| key.try_into().ok()).into_iter().collect())
    }

    fn receive(&self, _request: &WebhookRequest<'_>, _verifier: &Verifier) -> Result<Received, Refusal> {
        Err(Refusal::Unauthentic)
    }

    /// Discord sends wrong signatures on purpose and wants this very status.
    fn unauthentic_status(&self) -> u16 {
        401
    }

    fn parse(&self, _piece: &[u8]) -> Result<Inbound, Malformed> {
        Err(Malformed(NOT_FILLED.to_owned()))
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
            BudgetScope::Route => Owner::Within(format!("{}:{}", to.scheme(), to.value())),
            BudgetScope::App => Owner::Platform(account.public("application_id").to_owned()),
            _ => Owner::Account,
        }
    }

    fn refusal_cost(&self) -> RefusalCost {
        RefusalCost {
            status: 503,
            deadline: secs(3),
            redelivered_for: Duration::ZERO,
            punished_after: None,
            punished_at: None,
            punishment: "the interaction's token dies",
        }
    }

    fn recipient(&self, to: &Map<String, Value>) -> Result<Handle, Fault> {
        let (name, value) = only_member(to, TO)?;
        Ok(Handle::new(scheme(name), value))
    }

    fn short_recipient(&self, to: &str) -> Result<Handle, Fault> {
        if to.is_empty() {
            return Err(Fault::new("", "must not be empty"));
        }
        Ok(Handle::new(scheme(TO[0]), to))
    }

    fn recipient_json(&self, handle: &Handle) -> Value {
        let name = TO.iter().find(|name| scheme(name) == handle.scheme()).unwrap_or(&TO[0]);
        Value::Object(Map::from_iter([((*name).to_owned(), handle.value().into())]))
    }

    fn nobody(&self) -> Handle {
        Handle::new("channel", "0")
    }

    fn check(&self, _content: &Content, _to: &Handle) -> Vec<Fault> {
        vec![Fault::new("/type", NOT_FILLED)]
    }

    fn request(&self, _send: &Outgoing<'_>, _account: &Account, _settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        Err(Unsendable(NOT_FILLED.to_owned()))
    }

    fn outcome(&self, _send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        Verdict::Unknown { reason: Reason::ServerError, detail: format!("http {}: {NOT_FILLED}", response.status) }
    }

    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest {
        let url = format!("{}/{}/users/@me", settings.base(account), settings.api_version);
        HttpRequest { method: http::Method::GET, url, headers: Vec::new(), body: bytes::Bytes::new() }
    }

    fn settlement(&self) -> Settlement {
        Settlement::ByRepeat
    }
}

/// The scheme of a member of `to`.
fn scheme(name: &str) -> &'static str {
    match name {
        "user_id" => "user",
        _ => "channel",
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Often seen for a channel: 5 messages in 5 seconds. The headers say what holds.
const ROUTE_BURST: u32 = 5;

fn check_public_key(value: &str) -> Result<(), &'static str> {
    let is_key = value.len() == 2 * ED25519_KEY_BYTES && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_key { Ok(()) } else { Err("must be 64 hexadecimal digits") }
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
];
