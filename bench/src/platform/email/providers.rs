//! How mails and reports come in: by our own bridge, or by a provider, each with its own form and its own proof. Amazon's is missing:
//! only its certificates prove a notice, and they stand at its own address.

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use messaging::clock::{SharedClock, Timestamp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::platform::hook::Proof;

/// The mailbox that mails go to.
pub const MAILBOX: &str = "support@example.net";
/// What stands before the point of a P-256 public key in DER.
const P256_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
/// What divides the parts of a form.
const BOUNDARY: &str = "sim-boundary";
/// Postmark's user, before the password.
const USER: &str = "hook";

/// Who brings mails in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Our bridge: the raw mail, signed over time and bytes.
    Bridge,
    /// Mailgun: a form whose signature covers time and token only.
    Mailgun,
    /// Postmark: JSON, with a password.
    Postmark,
    /// SendGrid: a form, signed over time and bytes with a key of its own.
    Sendgrid,
}

/// A request of the provider's, but for its proof.
pub(super) struct Post {
    pub content_type: String,
    pub body: Bytes,
}

/// A mail that a person writes.
pub(super) struct Written<'a> {
    pub id: &'a str,
    pub from: &'a str,
    pub subject: &'a str,
    pub text: &'a str,
    /// The id of the mail that it answers.
    pub answers: Option<&'a str>,
    pub at: Timestamp,
}

/// What became of a mail of ours.
pub(super) struct Report<'a> {
    pub id: &'a str,
    pub mail: &'a str,
    pub to: &'a str,
    /// `failed` or `delivered`.
    pub action: &'a str,
    /// Such as `5.1.1`.
    pub status: &'a str,
    pub at: Timestamp,
}

/// A provider and what it proves its requests with.
pub(super) struct Door {
    provider: Provider,
    secret: String,
    /// SendGrid's, made anew at each start.
    public_key: String,
}

impl Door {
    /// The door, and the proof of what comes by it.
    pub fn open(provider: Provider, secret: &str, clock: SharedClock) -> (Self, Proof) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("random bytes make a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("it was just made");
        let mut public = HEXLOWER.decode(P256_PREFIX.as_bytes()).expect("hex");
        public.extend(key.public_key().as_ref());
        let door = Self { provider, secret: secret.to_owned(), public_key: BASE64.encode(&public) };
        let secret = door.secret.clone();
        let proof = Proof::Headers(Box::new(move |body| {
            let time = clock.now().as_secs().to_string();
            match provider {
                Provider::Bridge => {
                    let tag = mac(&secret, &[time.as_bytes(), b".", body]);
                    vec![("x-gateway-signature", format!("t={time},v1={tag}"))]
                }
                // It stands in the form.
                Provider::Mailgun => Vec::new(),
                Provider::Postmark => vec![("authorization", format!("Basic {}", BASE64.encode(format!("{USER}:{secret}").as_bytes())))],
                Provider::Sendgrid => {
                    let signature = key.sign(&random, &[time.as_bytes(), body].concat()).expect("random bytes make a signature");
                    vec![
                        ("x-twilio-email-event-webhook-signature", BASE64.encode(signature.as_ref())),
                        ("x-twilio-email-event-webhook-timestamp", time),
                    ]
                }
            }
        }));
        (door, proof)
    }

    /// The members of an account that say who brings mail in.
    pub fn members(&self) -> Value {
        match self.provider {
            Provider::Bridge => json!({"provider": "bridge", "secret": self.secret}),
            Provider::Mailgun => json!({"provider": "mailgun", "secret": self.secret}),
            Provider::Postmark => json!({"provider": "postmark", "credentials": format!("{USER}:{}", self.secret)}),
            Provider::Sendgrid => json!({"provider": "sendgrid", "public_key": self.public_key}),
        }
    }

    /// How a person's mail comes in.
    pub fn mail(&self, mail: &Written<'_>) -> Post {
        let Written { id, from, subject, text, answers, at } = mail;
        let mut headers = vec![("Message-ID", format!("<{id}>")), ("From", (*from).to_owned()), ("To", MAILBOX.to_owned())];
        headers.extend([("Subject", (*subject).to_owned()), ("Date", date(*at))]);
        if let Some(mail) = answers {
            headers.extend([("In-Reply-To", format!("<{mail}>")), ("References", format!("<{mail}>"))]);
        }
        let lines = || headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
        match self.provider {
            Provider::Bridge => raw(format!("{}MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n", lines())),
            Provider::Mailgun => {
                let (time, token) = (at.as_secs().to_string(), format!("token-{id}"));
                let signature = mac(&self.secret, &[time.as_bytes(), token.as_bytes()]);
                let listed = json!(headers).to_string();
                let mut fields = vec![("recipient", MAILBOX), ("sender", from), ("from", from), ("subject", subject), ("body-plain", text)];
                fields.extend([("message-headers", listed.as_str()), ("timestamp", &time), ("token", &token), ("signature", &signature)]);
                let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
                Post { content_type: "application/x-www-form-urlencoded".to_owned(), body: pairs.join("&").into() }
            }
            Provider::Postmark => {
                let listed: Vec<Value> = headers.iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect();
                posted(&json!({"From": from, "FromFull": {"Email": from, "Name": "", "MailboxHash": ""}, "To": MAILBOX,
                    "ToFull": [{"Email": MAILBOX, "Name": "", "MailboxHash": ""}], "OriginalRecipient": MAILBOX, "Subject": subject,
                    "MessageID": format!("postmark-{id}"), "Date": date(*at), "TextBody": text, "Headers": listed, "Attachments": []}))
            }
            Provider::Sendgrid => {
                let envelope = json!({"to": [MAILBOX], "from": from}).to_string();
                let lines = lines();
                let fields = [("headers", lines.as_str()), ("from", from), ("to", MAILBOX), ("subject", subject), ("text", text)];
                let mut body = String::new();
                for (name, value) in fields.into_iter().chain([("envelope", envelope.as_str()), ("SPF", "pass")]) {
                    body += &format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
                }
                body += &format!("--{BOUNDARY}--\r\n");
                Post { content_type: format!("multipart/form-data; boundary={BOUNDARY}"), body: body.into() }
            }
        }
    }

    /// How a report comes in.
    pub fn report(&self, report: &Report<'_>) -> Post {
        let Report { id, mail, to, action, status, at } = report;
        let (is_gone, seconds) = (*action == "failed", at.as_secs());
        match self.provider {
            Provider::Bridge => raw(format!(
                "From: MAILER-DAEMON@mail.example.com\r\nTo: {MAILBOX}\r\nMessage-ID: <{id}>\r\nAuto-Submitted: auto-replied\r\n\
                 Date: {}\r\nSubject: Delivery report\r\nMIME-Version: 1.0\r\n\
                 Content-Type: multipart/report; report-type=delivery-status; boundary=\"r\"\r\n\r\n\
                 --r\r\nContent-Type: text/plain\r\n\r\nA report.\r\n\
                 --r\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mail.example.com\r\n\r\n\
                 Final-Recipient: rfc822; {to}\r\nAction: {action}\r\nStatus: {status}\r\n\r\n\
                 --r\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <{mail}>\r\nTo: {to}\r\n\r\n--r--\r\n",
                date(*at)
            )),
            Provider::Mailgun => {
                let (time, token) = (seconds.to_string(), format!("token-{id}"));
                let signature = mac(&self.secret, &[time.as_bytes(), token.as_bytes()]);
                let mut event = json!({"id": id, "event": action, "timestamp": seconds, "recipient": to,
                    "message": {"headers": {"message-id": mail}}, "delivery-status": {"code": if is_gone { 550 } else { 250 }, "message": status}});
                if is_gone {
                    (event["severity"], event["reason"]) = ("permanent".into(), "bounce".into());
                }
                posted(&json!({"signature": {"timestamp": time, "token": token, "signature": signature}, "event-data": event}))
            }
            Provider::Postmark if is_gone => posted(&json!({"RecordType": "Bounce", "Type": "HardBounce", "TypeCode": 1, "ID": seconds,
                "MessageID": mail, "Email": to, "BouncedAt": at, "Description": status})),
            Provider::Postmark => posted(&json!({"RecordType": "Delivery", "MessageID": mail, "Recipient": to, "DeliveredAt": at})),
            Provider::Sendgrid => {
                let event = if is_gone { "bounce" } else { "delivered" };
                posted(&json!([{"email": to, "timestamp": seconds, "event": event, "type": "bounce", "sg_event_id": id,
                    "smtp-id": format!("<{mail}>"), "status": status, "reason": status}]))
            }
        }
    }
}

/// A raw mail.
pub(super) fn raw(mail: impl Into<Bytes>) -> Post {
    Post { content_type: "message/rfc822".to_owned(), body: mail.into() }
}

fn posted(body: &Value) -> Post {
    Post { content_type: "application/json".to_owned(), body: body.to_string().into() }
}

fn mac(secret: &str, parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn date(at: Timestamp) -> String {
    mail_parser::DateTime::from_timestamp(at.as_secs() as i64).to_rfc822()
}
