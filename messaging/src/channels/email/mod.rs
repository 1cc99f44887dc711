//! E-mail: in by signed webhooks of providers and of our own bridge, out by SMTP submission.
//!
//! Every provider's request becomes pieces of one form (`piece`): a line of JSON with what the request itself knew (envelope,
//! verdicts), then the mail or the news. The conversation is the correspondent; an answer names the mail that it answers by
//! `In-Reply-To` or the newest of `References`. A mail of ours bears an id made of our message's id, so that answers, reports and
//! a second try are told together.

use std::time::Duration;

use data_encoding::BASE64;

use super::*;
use crate::clock::Timestamp;

mod address;
mod bounce;
mod certificate;
mod events;
mod fields;
mod form;
mod mail;
mod mime;
mod outcome;
mod piece;
mod receive;
mod send;
mod sns;

/// The channel.
pub struct Email;

/// The members of a `to` object, one of them.
const TO: &[&str] = &["email"];
/// What stands before the point of a P-256 public key in DER (`SubjectPublicKeyInfo`).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];
/// Bytes of an uncompressed point.
const P256_POINT_BYTES: usize = 65;
/// Longest name beside the address, in characters.
const NAME_CHARS_MAX: usize = 128;

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
            Some("sendgrid") => MailVerifier::Ecdsa(public.get("public_key").and_then(|key| p256_point(key)).into_iter().collect()),
            Some("ses") => MailVerifier::Sns { topics: public.get("topic").cloned().into_iter().collect() },
            Some(_) | None => MailVerifier::Nothing,
        };
        Verifier::Mail(mail)
    }

    fn needs(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Option<HttpRequest> {
        receive::needs(request, verifier)
    }

    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
        receive::receive(request, verifier)
    }

    /// Postmark never comes again after a 403, not even when only a rotation of its password went wrong.
    fn unauthentic_status(&self) -> u16 {
        401
    }

    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed> {
        piece::parse(piece)
    }

    fn media(&self, _found: &FoundMedia<'_>, _account: &Account, _settings: &ChannelSettings) -> Option<MediaSource> {
        Some(MediaSource::Piece)
    }

    fn media_parts(&self, piece: &[u8]) -> Vec<Bytes> {
        piece::files(piece)
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
        address::address(value).map(|address| address::handle(&address)).map_err(|what| Fault::new(format!("/{name}"), what))
    }

    fn short_recipient(&self, to: &str) -> Result<Handle, Fault> {
        address::address(to).map(|address| address::handle(&address)).map_err(|what| Fault::new("", what))
    }

    fn recipient_json(&self, handle: &Handle) -> Value {
        Value::Object(Map::from_iter([(TO[0].to_owned(), handle.value().into())]))
    }

    fn nobody(&self) -> Handle {
        Handle::new("mail", "nobody@example.com")
    }

    fn check(&self, content: &Content, to: &Handle) -> Vec<Fault> {
        send::check(content, to)
    }

    /// A mail is no request.
    fn request(&self, _send: &Outgoing<'_>, _account: &Account, _settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        Err(Unsendable("a mail leaves through a relay, not by a request".to_owned()))
    }

    fn transport(&self, send: &Outgoing<'_>, account: &Account, _settings: &ChannelSettings) -> Result<Outbound, Unsendable> {
        send::transport(send, account)
    }

    fn outcome(&self, _send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        Verdict::Unknown { reason: Reason::ServerError, detail: format!("http {}: mails are not sent by requests", response.status) }
    }

    fn mail_outcome(&self, send: &Outgoing<'_>, account: &Account, reply: &MailReply) -> Verdict {
        outcome::mail_outcome(send, account.public("address"), reply)
    }

    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest {
        let url = settings.base(account).to_owned();
        HttpRequest { method: http::Method::GET, url, headers: Vec::new(), body: bytes::Bytes::new() }
    }

    /// It asks the provider's site, not the relay.
    fn probes_credential(&self) -> bool {
        false
    }

    fn settlement(&self) -> Settlement {
        Settlement::ByRepeat
    }
}

/// A time in either of the forms that mails and providers write.
fn date(text: &str) -> Option<Timestamp> {
    let found = mail_parser::DateTime::parse_rfc3339(text).or_else(|| mail_parser::DateTime::parse_rfc822(text))?;
    Some(timestamp(&found)).filter(|at| *at > Timestamp::ZERO)
}

/// `ZERO` for what is no date or before 1970.
fn timestamp(date: &mail_parser::DateTime) -> Timestamp {
    if !date.is_valid() {
        return Timestamp::ZERO;
    }
    Timestamp::from_secs(u64::try_from(date.to_timestamp()).unwrap_or(0))
}

/// The point of a P-256 key as SendGrid shows it: base64 of the DER, with or without PEM's lines.
fn p256_point(text: &str) -> Option<Vec<u8>> {
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    let der = BASE64.decode(body.as_bytes()).ok()?;
    let point = der.strip_prefix(P256_PREFIX.as_slice())?;
    (point.len() == P256_POINT_BYTES && point[0] == 4).then(|| point.to_vec())
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn check_provider(value: &str) -> Result<(), &'static str> {
    let known = matches!(value, "bridge" | "mailgun" | "postmark" | "ses" | "sendgrid");
    if known { Ok(()) } else { Err("must be bridge, mailgun, postmark, ses or sendgrid") }
}

fn check_address(value: &str) -> Result<(), &'static str> {
    address::address(value).map(drop)
}

fn check_key(value: &str) -> Result<(), &'static str> {
    if p256_point(value).is_some() { Ok(()) } else { Err("must be the base64 of a P-256 public key, as SendGrid shows it") }
}

fn check_topic(value: &str) -> Result<(), &'static str> {
    let parts: Vec<&str> = value.split(':').collect();
    let fits = parts.len() == 6 && parts[0] == "arn" && parts[2] == "sns" && parts[3..].iter().all(|part| !part.is_empty());
    if fits { check_secret(value) } else { Err("must be a topic's ARN, such as arn:aws:sns:eu-west-1:123456789012:mail") }
}

fn check_host(value: &str) -> Result<(), &'static str> {
    let fits =
        !value.is_empty() && value.len() <= 253 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    if fits { Ok(()) } else { Err("must be a host's name or address, without a port") }
}

fn check_port(value: &str) -> Result<(), &'static str> {
    check_digits(value)?;
    if value.parse::<u16>().is_ok_and(|port| port > 0) { Ok(()) } else { Err("must be a port, 1 to 65535") }
}

fn check_security(value: &str) -> Result<(), &'static str> {
    let known = matches!(value, "tls" | "starttls" | "plain");
    if known { Ok(()) } else { Err("must be tls, starttls or plain (which only loopback takes)") }
}

fn check_name(value: &str) -> Result<(), &'static str> {
    if value.trim().is_empty() {
        return Err("must not be empty");
    }
    let fits = value.chars().count() <= NAME_CHARS_MAX && !value.chars().any(char::is_control);
    if fits { Ok(()) } else { Err("must be one line of at most 128 characters") }
}

const FIELDS: &[AccountField] = &[
    AccountField { name: "address", secret: false, required: true, help: "the mailbox's address", check: check_address },
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
    AccountField { name: "public_key", secret: false, required: false, help: "the provider's public key: sendgrid", check: check_key },
    AccountField { name: "topic", secret: false, required: false, help: "the ARN of the SNS topic: ses", check: check_topic },
    AccountField { name: "display_name", secret: false, required: false, help: "the name beside the address", check: check_name },
    AccountField { name: "smtp_host", secret: false, required: false, help: "the relay's name", check: check_host },
    AccountField {
        name: "smtp_port",
        secret: false,
        required: false,
        help: "the relay's port: 587 (STARTTLS) or 465 (TLS)",
        check: check_port,
    },
    AccountField {
        name: "smtp_security",
        secret: false,
        required: false,
        help: "tls, starttls, or plain for a relay on loopback; default: by the port",
        check: check_security,
    },
    AccountField { name: "smtp_user", secret: false, required: false, help: "who submits", check: check_secret },
    AccountField { name: "smtp_password", secret: true, required: false, help: "the relay's password", check: check_secret },
    AccountField {
        name: "smtp_from",
        secret: false,
        required: false,
        help: "the envelope's sender, when not the address",
        check: check_address,
    },
];
