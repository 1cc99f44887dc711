//! WhatsApp Cloud API.
//!
//! In the order of a message's path: `receive` verifies and splits, `envelope` and `wire` name the shapes of the webhook,
//! `people` says whom an event concerns, `parse` (with `content` and `news`) says what happened, `check` knows the limits,
//! `request` builds the calls, `outcome` judges the answers.
//!
//! One shape goes through: a piece is always an envelope with one entry, one change and one inner event, either the
//! platform's own bytes or rebuilt around the exact bytes of the inner event.

use std::time::Duration;

use super::*;
use crate::limit::BudgetScope;

mod check;
mod content;
mod envelope;
mod news;
mod outcome;
mod parse;
mod people;
mod receive;
mod request;
mod wire;

/// The platform lets a pair borrow this many messages from the future.
const PAIR_BURST: u32 = 45;
/// How long Meta brings a refused event again.
const REDELIVERED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Meta's guideline: under one in a hundred answers may take longer.
const DEADLINE: Duration = Duration::from_secs(1);

/// Whose links the platform gives out for media.
const MEDIA_HOSTS: &[&str] = &["fbsbx.com", "fbcdn.net", "whatsapp.net"];

/// The channel.
pub struct Whatsapp;

impl Channel for Whatsapp {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Whatsapp
    }

    fn fields(&self) -> &'static [AccountField] {
        FIELDS
    }

    /// One callback of an app serves all its numbers.
    fn identity(&self) -> Option<&'static str> {
        Some("phone_number_id")
    }

    fn app_secret(&self) -> Option<&'static str> {
        Some("app_secret")
    }

    fn group(&self) -> Option<&'static str> {
        Some("business_account_id")
    }

    fn verifier(&self, _public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        Verifier::Meta { app_secrets: mac_states(secrets.get("app_secret")), verify_tokens: live_secrets(secrets.get("verify_token")) }
    }

    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
        receive::receive(request, verifier)
    }

    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed> {
        parse::parse(piece)
    }

    fn media(&self, found: &FoundMedia<'_>, account: &Account, settings: &ChannelSettings) -> Option<MediaSource> {
        request::where_is(found, account, settings).map(MediaSource::Ask)
    }

    fn media_at(
        &self,
        _found: &FoundMedia<'_>,
        answer: &HttpResponse,
        account: &Account,
        _settings: &ChannelSettings,
    ) -> Result<HttpRequest, MediaFault> {
        request::media_at(answer, account)
    }

    fn media_hosts(&self) -> &'static [&'static str] {
        MEDIA_HOSTS
    }

    fn window(&self, settings: &ChannelSettings, _account: &Account) -> Option<WindowRule> {
        Some(WindowRule::templates(settings.window))
    }

    fn budgets(&self, settings: &ChannelSettings, _to: &Handle, _content: &Content) -> Vec<Budget> {
        vec![
            Budget { scope: BudgetScope::Pair, rate_per_second: settings.per_pair, burst: PAIR_BURST },
            by_second(BudgetScope::Account, settings.per_account),
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
        people::recipient(to)
    }

    fn short_recipient(&self, to: &str) -> Result<Handle, Fault> {
        people::short_recipient(to)
    }

    fn recipient_json(&self, handle: &Handle) -> Value {
        people::recipient_json(handle)
    }

    fn nobody(&self) -> Handle {
        Handle::phone("0")
    }

    fn check(&self, content: &Content, to: &Handle) -> Vec<Fault> {
        check::check(content, to)
    }

    fn request(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        request::request(send, account, settings)
    }

    fn outcome(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        outcome::outcome(send, response)
    }

    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest {
        request::probe(account, settings)
    }

    fn refuses_credential(&self, response: &HttpResponse) -> bool {
        meta::refuses(response)
    }

    fn settlement(&self) -> Settlement {
        Settlement::ByStatus
    }
}

const FIELDS: &[AccountField] = &[
    AccountField {
        name: "phone_number_id",
        secret: false,
        required: true,
        help: "the id of the business phone number (digits; not the number itself)",
        check: check_digits,
    },
    AccountField {
        name: "business_account_id",
        secret: false,
        required: false,
        help: "the id of the WhatsApp business account (digits)",
        check: check_digits,
    },
    AccountField {
        name: "access_token",
        secret: true,
        required: true,
        help: "the system user's access token, with whatsapp_business_messaging",
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
