//! WooCommerce: orders, customers, products and coupons of a shop; notes to customers.
//!
//! NOT FILLED YET: `receive`, `parse`, `check`, `request` and `outcome` refuse everything. What stands here as data (members of
//! accounts, recipients, window, budgets, cost of refusals) is the platform's.

use std::time::Duration;

use super::*;

/// The channel.
pub struct Woocommerce;

/// What is not there yet.
const NOT_FILLED: &str = "woocommerce is not filled yet";
/// The members of a `to` object, one of them.
const TO: &[&str] = &["order_id", "customer_id"];

impl Channel for Woocommerce {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Woocommerce
    }

    fn fields(&self) -> &'static [AccountField] {
        FIELDS
    }

    fn verifier(&self, _public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        Verifier::Mac(mac_states(secrets.get("webhook_secret")))
    }

    fn receive(&self, _request: &WebhookRequest<'_>, _verifier: &Verifier) -> Result<Received, Refusal> {
        Err(Refusal::Unauthentic)
    }

    fn parse(&self, _piece: &[u8]) -> Result<Inbound, Malformed> {
        Err(Malformed(NOT_FILLED.to_owned()))
    }

    fn window(&self, _settings: &ChannelSettings, _account: &Account) -> Option<WindowRule> {
        None
    }

    fn budgets(&self, settings: &ChannelSettings, _to: &Handle, _content: &Content) -> Vec<Budget> {
        vec![by_second(BudgetScope::Account, settings.per_account)]
    }

    fn refusal_cost(&self) -> RefusalCost {
        RefusalCost {
            status: 503,
            deadline: secs(60),
            redelivered_for: Duration::ZERO,
            punished_after: None,
            punished_at: Some(5),
            punishment: "the webhook is disabled until someone enables it",
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
        Handle::new("order", "0")
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

    fn probe(&self, account: &Account, _settings: &ChannelSettings) -> HttpRequest {
        let url = format!("{}/wp-json/wc/v3/system_status?_fields=environment.version", account.public("source").trim_end_matches('/'));
        HttpRequest { method: http::Method::GET, url, headers: Vec::new(), body: bytes::Bytes::new() }
    }

    fn settlement(&self) -> Settlement {
        Settlement::Never
    }
}

/// The scheme of a member of `to`.
fn scheme(name: &str) -> &'static str {
    match name {
        "customer_id" => "customer",
        _ => "order",
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const FIELDS: &[AccountField] = &[
    AccountField {
        name: "source",
        secret: false,
        required: true,
        help: "the shop's address, such as https://shop.example/",
        check: check_secret,
    },
    AccountField {
        name: "webhook_secret",
        secret: true,
        required: true,
        help: "the webhook's secret; avoid & < > and quotes, which WooCommerce rewrites",
        check: check_secret,
    },
    AccountField {
        name: "consumer_key",
        secret: true,
        required: false,
        help: "the REST API's consumer key, for notes and reconciliation",
        check: check_secret,
    },
    AccountField { name: "consumer_secret", secret: true, required: false, help: "the REST API's consumer secret", check: check_secret },
];
