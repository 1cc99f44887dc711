//! E-mail: in by signed webhooks of providers and of our own bridge, out by SMTP submission.
//!
//! NOT FILLED YET: `receive`, `parse`, `check`, `request` and `outcome` refuse everything. What stands here as data (members of
//! accounts, recipients, window, budgets, cost of refusals) is the platform's.

use std::time::Duration;

use super::*;

/// The channel.
pub struct Email;

/// What is not there yet.
const NOT_FILLED: &str = "email is not filled yet";
/// The members of a `to` object, one of them.
const TO: &[&str] = &["email"];

impl Channel for Email {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Email
    }

    fn fields(&self) -> &'static [AccountField] {
        FIELDS
    }

    fn verifier(&self, public: &BTreeMap<String, String>, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        let mail = match public.get("provider").map(String::as_str) {
            Some("bridge") => MailVerifier::Bridge(mac_states(secrets.get("secret"))),
            Some("mailgun") => MailVerifier::Mailgun(mac_states(secrets.get("secret"))),
            Some("postmark") => MailVerifier::Basic(live_secrets(secrets.get("credentials"))),
            Some("ses") => MailVerifier::Sns { topics: public.get("topic").cloned().into_iter().collect() },
            _ => MailVerifier::Nothing,
        };
        Verifier::Mail(mail)
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
            deadline: secs(15),
            redelivered_for: secs(60),
            punished_after: None,
            punished_at: None,
            punishment: "SNS drops what it could not deliver for a minute",
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
        Handle::new("mail", "nobody@example.com")
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
        let url = settings.base(account).to_owned();
        HttpRequest { method: http::Method::GET, url, headers: Vec::new(), body: bytes::Bytes::new() }
    }

    fn settlement(&self) -> Settlement {
        Settlement::ByRepeat
    }
}

/// The scheme of a member of `to`.
fn scheme(_name: &str) -> &'static str {
    "mail"
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn check_provider(value: &str) -> Result<(), &'static str> {
    let known = matches!(value, "bridge" | "mailgun" | "postmark" | "ses" | "sendgrid");
    if known { Ok(()) } else { Err("must be bridge, mailgun, postmark, ses or sendgrid") }
}

const FIELDS: &[AccountField] = &[
    AccountField { name: "address", secret: false, required: true, help: "the mailbox's address", check: check_secret },
    AccountField {
        name: "provider",
        secret: false,
        required: true,
        help: "who brings mail in: bridge, mailgun, postmark, ses or sendgrid",
        check: check_provider,
    },
    AccountField {
        name: "secret",
        secret: true,
        required: false,
        help: "what the provider signs with: bridge, mailgun",
        check: check_secret,
    },
    AccountField {
        name: "credentials",
        secret: true,
        required: false,
        help: "user:password of the hook's address: postmark",
        check: check_secret,
    },
    AccountField { name: "public_key", secret: false, required: false, help: "the provider's public key: sendgrid", check: check_secret },
    AccountField { name: "topic", secret: false, required: false, help: "the ARN of the SNS topic: ses", check: check_secret },
    AccountField { name: "smtp_host", secret: false, required: false, help: "the relay's name", check: check_secret },
    AccountField {
        name: "smtp_port",
        secret: false,
        required: false,
        help: "the relay's port: 587 (STARTTLS) or 465 (TLS)",
        check: check_digits,
    },
    AccountField { name: "smtp_user", secret: false, required: false, help: "who submits", check: check_secret },
    AccountField { name: "smtp_password", secret: true, required: false, help: "the relay's password", check: check_secret },
    AccountField {
        name: "smtp_from",
        secret: false,
        required: false,
        help: "the envelope's sender, when not the address",
        check: check_secret,
    },
];
