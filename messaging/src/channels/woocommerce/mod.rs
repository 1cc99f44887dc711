//! WooCommerce: orders, customers, products and coupons of a shop; notes to customers.
//!
//! In the order of an event's path: `topic` names what a webhook may be about, `wire` the shape of a piece, `receive` verifies,
//! `parse` says what happened, `send` builds the calls, `outcome` judges the answers. `pull` is the pure part of reconciliation:
//! a shop never brings an event again and disables its webhook after a few refusals, so what was missed has to be asked for.
//!
//! Two things the platform does not do: it signs the body and **not the headers**, though the topic stands in a header only; and
//! it says no time, so that repeats are known by what they say (see `parse`).

use std::time::Duration;

use super::*;

mod outcome;
mod parse;
pub mod pull;
mod receive;
mod send;
mod topic;
mod wire;

/// The channel.
pub struct Woocommerce;

/// The members of a `to` object, one of them.
const TO: &[&str] = &["order_id", "customer_id"];
/// The scheme of an order's handle: one that can be written to.
const ORDER: &str = "order";
/// The scheme of a customer's handle.
const CUSTOMER: &str = "customer";

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

    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
        receive::receive(request, verifier)
    }

    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed> {
        parse::parse(piece)
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
            // Its documentation says five in a row, its source disables at the seventh.
            punished_at: Some(5),
            punishment: "the webhook is disabled until someone enables it",
        }
    }

    fn recipient(&self, to: &Map<String, Value>) -> Result<Handle, Fault> {
        let (name, value) = only_member(to, TO)?;
        check_digits(value).map_err(|rule| Fault::new(format!("/{name}"), rule))?;
        Ok(Handle::new(scheme(name), value))
    }

    fn short_recipient(&self, to: &str) -> Result<Handle, Fault> {
        check_digits(to).map_err(|rule| Fault::new("", rule))?;
        Ok(Handle::new(ORDER, to))
    }

    fn recipient_json(&self, handle: &Handle) -> Value {
        let name = TO.iter().find(|name| scheme(name) == handle.scheme());
        Value::Object(name.map(|name| ((*name).to_owned(), handle.value().into())).into_iter().collect())
    }

    fn nobody(&self) -> Handle {
        Handle::new(ORDER, "0")
    }

    fn check(&self, content: &Content, to: &Handle) -> Vec<Fault> {
        send::check(content, to)
    }

    fn request(&self, send: &Outgoing<'_>, account: &Account, _settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        send::request(send, account)
    }

    fn outcome(&self, _send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        outcome::outcome(response)
    }

    fn probe(&self, account: &Account, _settings: &ChannelSettings) -> HttpRequest {
        send::probe(account)
    }

    fn refuses_credential(&self, response: &HttpResponse) -> bool {
        outcome::is_about_keys(response.status, outcome::code(response).as_deref())
    }

    /// A note that may or may not have been written cannot be told from another with the same text.
    fn settlement(&self) -> Settlement {
        Settlement::Never
    }
}

/// The scheme of a member of `to`.
fn scheme(name: &str) -> &'static str {
    match name {
        "customer_id" => CUSTOMER,
        _ => ORDER,
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn check_source(value: &str) -> Result<(), &'static str> {
    check_secret(value)?;
    let rule = "must be the shop's address, such as https://shop.example/, without a query";
    let uri: http::Uri = value.parse().map_err(|_| rule)?;
    let is_web = matches!(uri.scheme_str(), Some("https" | "http"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let is_plain = uri.query().is_none() && !value.contains(['@', '#']);
    if is_web && has_host && is_plain { Ok(()) } else { Err(rule) }
}

fn check_webhook_secret(value: &str) -> Result<(), &'static str> {
    check_secret(value)?;
    if value.contains(['&', '<', '>', '"', '\'']) {
        return Err("must not contain & < > or quotes: WooCommerce rewrites them before it signs");
    }
    Ok(())
}

const FIELDS: &[AccountField] = &[
    AccountField {
        name: "source",
        secret: false,
        required: true,
        help: "the shop's address, such as https://shop.example/",
        check: check_source,
    },
    AccountField {
        name: "webhook_secret",
        secret: true,
        required: true,
        help: "the webhook's secret; without & < > and quotes, which WooCommerce rewrites",
        check: check_webhook_secret,
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
