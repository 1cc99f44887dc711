//! Facebook Messenger.
//!
//! Events, sends and answers are Meta's, see `channels::meta`; what stands here is what is particular to this product.

use std::time::Duration;

use super::*;

/// The channel.
pub struct Messenger;

/// What is Messenger's own.
pub(super) const PRODUCT: meta::Product = meta::Product {
    name: "messenger",
    object: "page",
    scheme: "psid",
    identity: "page_id",
    probe_fields: "name",
    text: meta::TextLimit::Characters(2000),
    referral_opens: true,
    says_type: true,
    has_metadata: true,
    has_templates: true,
    pictures_max: 1,
    only_reaction: None,
    has_heart: false,
};
/// The members of a `to` object, one of them.
const TO: &[&str] = &["psid", "comment_id"];

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

    fn app_secret(&self) -> Option<&'static str> {
        Some("app_secret")
    }

    fn verifier(&self, _public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        Verifier::Meta { app_secrets: mac_states(secrets.get("app_secret")), verify_tokens: live_secrets(secrets.get("verify_token")) }
    }

    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
        if let Some(reply) = meta::authentic(request, verifier)? {
            return Ok(Received::Handshake(reply));
        }
        Ok(Received::Pieces(meta::pieces(&PRODUCT, request.body)))
    }

    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed> {
        meta::parse(&PRODUCT, piece)
    }

    fn media(&self, found: &FoundMedia<'_>, _account: &Account, _settings: &ChannelSettings) -> Option<MediaSource> {
        media::linked(found)
    }

    fn media_hosts(&self) -> &'static [&'static str] {
        meta::MEDIA_HOSTS
    }

    fn window(&self, settings: &ChannelSettings, _account: &Account) -> Option<WindowRule> {
        Some(WindowRule {
            length: settings.window,
            after_ad: settings.ad_window.max(settings.window),
            cap: None,
            tags: meta::TAGS,
            otherwise: Some("human_agent"),
        })
    }

    fn window_for(&self, settings: &ChannelSettings, account: &Account, to: &Handle) -> Option<WindowRule> {
        if to.scheme() == meta::COMMENT { Some(meta::PRIVATE_REPLY) } else { self.window(settings, account) }
    }

    fn tags(&self) -> &'static [TagRule] {
        meta::TAGS
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
        let name = TO.iter().find(|name| scheme(name) == handle.scheme());
        Value::Object(name.map(|name| ((*name).to_owned(), handle.value().into())).into_iter().collect())
    }

    fn nobody(&self) -> Handle {
        Handle::new("psid", "0")
    }

    fn check(&self, content: &Content, to: &Handle) -> Vec<Fault> {
        meta::check(&PRODUCT, content, to)
    }

    fn request(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        meta::request(&PRODUCT, send, account, settings)
    }

    fn outcome(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        meta::outcome(send, response)
    }

    fn holds(&self, _send: &Outgoing<'_>, response: &HttpResponse) -> Vec<Hold> {
        meta::holds(response)
    }

    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest {
        meta::probe(&PRODUCT, account, settings)
    }

    fn refuses_credential(&self, response: &HttpResponse) -> bool {
        meta::refuses(response)
    }

    fn life(&self, account: &Account) -> Life {
        meta::page_life(account)
    }

    fn refresh_request(&self, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        meta::page_request(account, settings)
    }

    fn refreshed(&self, _account: &Account, response: &HttpResponse, now: Timestamp) -> Refresh {
        meta::refreshed(response, now)
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
    AccountField {
        name: "app_id",
        secret: false,
        required: false,
        help: "the app's id (digits): with it the access token is exchanged before it ends",
        check: check_digits,
    },
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
