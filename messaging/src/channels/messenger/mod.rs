//! Facebook Messenger.
//!
//! NOT FILLED YET: `receive`, `parse`, `check`, `request` and `outcome` refuse everything. What stands here as data (members of
//! accounts, recipients, window, budgets, cost of refusals) is the platform's.

use std::time::Duration;

use super::*;

/// The channel.
pub struct Messenger;

/// What is not there yet.
const NOT_FILLED: &str = "messenger is not filled yet";
/// The members of a `to` object, one of them.
const TO: &[&str] = &["psid", "comment_id"];

/// What a person of the business may still write after the window.
const TAGS: &[TagRule] = &[TagRule { name: "human_agent", length: Duration::from_secs(7 * 24 * 3_600) }];

impl Channel for Messenger {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Messenger
    }

    fn fields(&self) -> &'static [AccountField] {
        FIELDS
    }

    fn identity(&self) -> Option<&'static str> {
        Some("page_id")
    }

    fn verifier(&self, _public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        Verifier::Meta { app_secrets: mac_states(secrets.get("app_secret")), verify_tokens: live_secrets(secrets.get("verify_token")) }
    }

    fn receive(&self, _request: &WebhookRequest<'_>, _verifier: &Verifier) -> Result<Received, Refusal> {
        Err(Refusal::Unauthentic)
    }

    fn parse(&self, _piece: &[u8]) -> Result<Inbound, Malformed> {
        Err(Malformed(NOT_FILLED.to_owned()))
    }

    fn window(&self, settings: &ChannelSettings, _account: &Account) -> Option<WindowRule> {
        Some(WindowRule {
            length: settings.window,
            after_ad: settings.ad_window.max(settings.window),
            cap: None,
            tags: TAGS,
            otherwise: Some("human_agent"),
        })
    }

    fn tags(&self) -> &'static [TagRule] {
        TAGS
    }

    fn has_watermarks(&self) -> bool {
        true
    }

    fn budgets(&self, settings: &ChannelSettings, _to: &Handle, content: &Content) -> Vec<Budget> {
        let mut budgets = Vec::with_capacity(3);
        if matches!(content, Content::Audio(_) | Content::Video(_)) {
            budgets.push(by_second(BudgetScope::Kind, settings.per_media));
        }
        budgets.push(by_second(BudgetScope::Account, settings.per_account));
        budgets.push(by_second(BudgetScope::Page, settings.per_page));
        budgets
    }

    fn owner(&self, scope: BudgetScope, account: &Account, _to: &Handle) -> Owner {
        match scope {
            BudgetScope::Kind => Owner::Within("media".to_owned()),
            BudgetScope::Page => Owner::Platform(account.public("page_id").to_owned()),
            _ => Owner::Account,
        }
    }

    fn refusal_cost(&self) -> RefusalCost {
        RefusalCost {
            status: 503,
            deadline: secs(5),
            redelivered_for: secs(3_600),
            punished_after: Some(secs(3_600)),
            punished_at: None,
            punishment: "the app is unsubscribed from the page",
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
        Handle::new("psid", "0")
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
        let url = format!("{}/{}/{}?fields=name", settings.base(account), settings.api_version, account.public("page_id"));
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
        _ => "psid",
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const FIELDS: &[AccountField] = &[
    AccountField { name: "page_id", secret: false, required: true, help: "the page's id (digits)", check: check_digits },
    AccountField { name: "app_id", secret: false, required: false, help: "the app's id (digits)", check: check_digits },
    AccountField {
        name: "access_token",
        secret: true,
        required: true,
        help: "the page's access token, with pages_messaging",
        check: check_secret,
    },
    AccountField { name: "app_secret", secret: true, required: true, help: "the app secret, which signs webhooks", check: check_secret },
    AccountField {
        name: "verify_token",
        secret: true,
        required: true,
        help: "the token that you chose for the webhook's handshake",
        check: check_secret,
    },
];
