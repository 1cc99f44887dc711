//! TikTok Business Messaging.
//!
//! NOT FILLED YET: `receive`, `parse`, `check`, `request` and `outcome` refuse everything. What stands here as data (members of
//! accounts, recipients, window, budgets, cost of refusals) is the platform's.

use std::time::Duration;

use super::*;

/// The channel.
pub struct Tiktok;

/// What is not there yet.
const NOT_FILLED: &str = "tiktok is not filled yet";
/// The members of a `to` object, one of them.
const TO: &[&str] = &["conversation_id", "comment_id"];

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

    fn verifier(&self, _public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        Verifier::Mac(mac_states(secrets.get("client_secret")))
    }

    fn receive(&self, _request: &WebhookRequest<'_>, _verifier: &Verifier) -> Result<Received, Refusal> {
        Err(Refusal::Unauthentic)
    }

    fn parse(&self, _piece: &[u8]) -> Result<Inbound, Malformed> {
        Err(Malformed(NOT_FILLED.to_owned()))
    }

    fn window(&self, settings: &ChannelSettings, account: &Account) -> Option<WindowRule> {
        // The stricter of what the platform is said to allow, unless the tenant asks for all of it.
        let length = if account.public("window") == "48h" { LONGEST_WINDOW } else { settings.window };
        let cap = Some(settings.window_cap).filter(|cap| *cap > 0);
        Some(WindowRule { length, after_ad: length, cap, tags: &[], otherwise: None })
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
            redelivered_for: secs(72 * 3_600),
            punished_after: None,
            punished_at: None,
            punishment: "",
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
        Handle::new("conversation", "0")
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
        let url = format!("{}/open_api/v1.3/tt_user/token_info/get/", settings.base(account));
        HttpRequest { method: http::Method::GET, url, headers: Vec::new(), body: bytes::Bytes::new() }
    }

    fn settlement(&self) -> Settlement {
        Settlement::ByEcho
    }
}

/// The scheme of a member of `to`.
fn scheme(name: &str) -> &'static str {
    match name {
        "comment_id" => "comment",
        _ => "conversation",
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// All that the platform allows after the person's word.
const LONGEST_WINDOW: Duration = Duration::from_secs(48 * 3_600);

fn check_window(value: &str) -> Result<(), &'static str> {
    if matches!(value, "24h" | "48h") { Ok(()) } else { Err("must be 24h or 48h") }
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
