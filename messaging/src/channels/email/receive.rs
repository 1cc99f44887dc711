//! Verify and split, by the account's provider.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, Mac};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::Value;
use sha2::Sha256;

use super::address::lenient;
use super::fields;
use super::form::Form;
use super::piece::{EVENTS_MAX, Head, Source, pieces};
use super::sns::{self, Notice};
use crate::channels::{MailVerifier, Piece, Received, Refusal, Verifier, any_mac_matches};
use crate::clock::Timestamp;
use crate::exchange::{HttpRequest, WebhookRequest};

/// How far the bridge's clock may be off.
const BRIDGE_TOLERANCE: Duration = Duration::from_secs(300);
/// How old Mailgun's signature may be: it comes again for 8 hours, perhaps with the first values.
const MAILGUN_AGE_MAX: Duration = Duration::from_secs(9 * 3600);
/// How old SendGrid's may be: it comes again for 3 days.
const SENDGRID_AGE_MAX: Duration = Duration::from_secs(3 * 24 * 3600 + 3600);
/// How far a provider's clock may be ahead.
const AHEAD_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest token of Mailgun's.
const TOKEN_BYTES_MAX: usize = 128;

/// Our bridge's signature: `t=<unix>,v1=<hex>`.
const BRIDGE_SIGNATURE: &str = "x-gateway-signature";
const BRIDGE_SENDER: &str = "x-gateway-envelope-from";
const BRIDGE_RECIPIENT: &str = "x-gateway-envelope-to";
const SENDGRID_SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const SENDGRID_TIMESTAMP: &str = "x-twilio-email-event-webhook-timestamp";

pub(super) fn needs(request: &WebhookRequest<'_>, verifier: &Verifier) -> Option<HttpRequest> {
    match verifier {
        Verifier::Mail(MailVerifier::Sns { topics }) if request.is_post => sns::needs(request, topics),
        _ => None,
    }
}

pub(super) fn receive(request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
    if !request.is_post {
        return Err(Refusal::Method);
    }
    let Verifier::Mail(verifier) = verifier else { return Err(Refusal::Unauthentic) };
    match verifier {
        MailVerifier::Bridge(states) => bridge(request, states),
        MailVerifier::Mailgun(states) => mailgun(request, states),
        MailVerifier::Basic(secrets) => {
            let presented = basic(request).unwrap_or_default();
            // Every live one is compared, so that the time does not tell which one fits.
            let mut found = false;
            for secret in secrets {
                found |= secret.matches(&presented);
            }
            if found { Ok(postmark(request.body)) } else { Err(Refusal::Unauthentic) }
        }
        MailVerifier::Sns { topics } => amazon(request, topics),
        MailVerifier::Ecdsa(keys) => sendgrid(request, keys),
        MailVerifier::Nothing => Err(Refusal::Unauthentic),
    }
}

fn header<'r>(request: &WebhookRequest<'r>, name: &str) -> Option<&'r str> {
    request.headers.get(name).and_then(|value| value.to_str().ok())
}

fn seconds(text: &str) -> Option<Timestamp> {
    let digits = !text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().map(Timestamp::from_secs).ok()).flatten()
}

fn is_fresh(at: Timestamp, now: Timestamp, age_max: Duration, ahead_max: Duration) -> bool {
    now.since(at) <= age_max && at.since(now) <= ahead_max
}

fn of_pieces(head: Head, rest: &[u8]) -> Received {
    let mut out = Vec::new();
    pieces(head, rest, &mut out);
    Received::Pieces(out)
}

fn unparsable(body: &Bytes) -> Received {
    Received::Pieces(vec![Piece::unparsable(body.clone())])
}

// ---- our bridge ---------------------------------------------------------------------------------------------------

fn bridge(request: &WebhookRequest<'_>, states: &[Hmac<Sha256>]) -> Result<Received, Refusal> {
    let signature = header(request, BRIDGE_SIGNATURE).ok_or(Refusal::Unauthentic)?;
    let (mut time, mut macs) = (None, Vec::new());
    for pair in signature.split(',').take(8) {
        match pair.trim().split_once('=') {
            Some(("t", value)) if time.is_none() => time = Some(value),
            Some(("v1", value)) => macs.push(value),
            Some(_) | None => {}
        }
    }
    let time = time.ok_or(Refusal::Unauthentic)?;
    let at = seconds(time).ok_or(Refusal::Unauthentic)?;
    let mut prefixed = Vec::with_capacity(states.len());
    for state in states {
        let mut state = state.clone();
        state.update(time.as_bytes());
        state.update(b".");
        prefixed.push(state);
    }
    let mut found = false;
    for mac in macs {
        let tag = HEXLOWER_PERMISSIVE.decode(mac.as_bytes()).unwrap_or_default();
        found |= any_mac_matches(&prefixed, request.body, &tag);
    }
    if !found || !is_fresh(at, request.now, BRIDGE_TOLERANCE, BRIDGE_TOLERANCE) {
        return Err(Refusal::Unauthentic);
    }
    let mut head = Head::new(Source::Mime);
    head.sender = header(request, BRIDGE_SENDER).map(sender);
    head.recipients = header(request, BRIDGE_RECIPIENT).into_iter().flat_map(|to| to.split(',')).filter_map(lenient).take(100).collect();
    Ok(of_pieces(head, request.body))
}

/// The envelope's sender; `<>` is the null sender.
fn sender(text: &str) -> String {
    lenient(text).unwrap_or_default()
}

// ---- Mailgun ------------------------------------------------------------------------------------------------------

fn mailgun(request: &WebhookRequest<'_>, states: &[Hmac<Sha256>]) -> Result<Received, Refusal> {
    let content_type = header(request, "content-type").unwrap_or("");
    if let Some(form) = Form::read(content_type, request.body) {
        let text = |name| form.text(name).unwrap_or_default();
        mailgun_proof(states, &text("timestamp"), &text("token"), &text("signature"), request.now)?;
        return Ok(mailgun_mail(&form));
    }
    let value: Value = serde_json::from_slice(request.body).map_err(|_| Refusal::Unauthentic)?;
    let text = |name: &str| value["signature"][name].as_str().unwrap_or("");
    mailgun_proof(states, text("timestamp"), text("token"), text("signature"), request.now)?;
    match value.get("event-data") {
        Some(data) => Ok(of_pieces(Head::new(Source::MailgunEvent), data.to_string().as_bytes())),
        None => Ok(unparsable(request.body)),
    }
}

/// Covers time and token only: what the mail says is proved by nothing but the connection.
fn mailgun_proof(states: &[Hmac<Sha256>], time: &str, token: &str, signature: &str, now: Timestamp) -> Result<(), Refusal> {
    let tag = HEXLOWER_PERMISSIVE.decode(signature.as_bytes()).unwrap_or_default();
    let message = [time.as_bytes(), token.as_bytes()].concat();
    let matches = any_mac_matches(states, &message, &tag);
    let shaped = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
    match seconds(time) {
        Some(at) if matches && shaped && is_fresh(at, now, MAILGUN_AGE_MAX, AHEAD_MAX) => Ok(()),
        Some(_) | None => Err(Refusal::Unauthentic),
    }
}

fn mailgun_mail(form: &Form) -> Received {
    let mut head = Head::new(Source::Mailgun);
    head.recipients = form.text("recipient").iter().flat_map(|to| to.split(',')).filter_map(lenient).take(100).collect();
    if let Some(raw) = form.bytes("body-mime") {
        head.source = Source::Mime;
        head.sender = form.text("sender").as_deref().map(sender);
        return of_pieces(head, raw);
    }
    of_pieces(head, fields::of_mailgun_form(form).to_string().as_bytes())
}

// ---- Postmark -----------------------------------------------------------------------------------------------------

fn basic(request: &WebhookRequest<'_>) -> Option<Vec<u8>> {
    let (scheme, value) = header(request, "authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    BASE64.decode(value.trim().as_bytes()).ok()
}

fn postmark(body: &Bytes) -> Received {
    let Ok(mut said) = serde_json::from_slice::<Value>(body) else { return unparsable(body) };
    let mut head = Head::new(Source::Postmark);
    head.id = said["MessageID"].as_str().map(str::to_owned);
    // One parser for all, where the whole mail came.
    if let Some(raw) = said.get_mut("RawEmail").map(Value::take).as_ref().and_then(Value::as_str).filter(|raw| !raw.is_empty()) {
        head.source = Source::Mime;
        head.recipients = said["OriginalRecipient"].as_str().and_then(lenient).into_iter().collect();
        return of_pieces(head, raw.as_bytes());
    }
    of_pieces(head, fields::of_postmark(said).to_string().as_bytes())
}

// ---- Amazon SNS ---------------------------------------------------------------------------------------------------

fn amazon(request: &WebhookRequest<'_>, topics: &[String]) -> Result<Received, Refusal> {
    let notice = Notice::read(request.body, topics).ok_or(Refusal::Unauthentic)?;
    // The certificate's address is judged again: what was fetched must be what this notice asks for.
    notice.certificate_request().ok_or(Refusal::Unauthentic)?;
    let certificate = request.fetched.ok_or(Refusal::Unauthentic)?;
    if !notice.is_authentic(certificate, request.now) {
        return Err(Refusal::Unauthentic);
    }
    let mut head = Head::new(Source::Ses);
    head.id = Some(notice.id().to_owned());
    match notice.kind() {
        Some(sns::Kind::Confirm) => notice.confirm_request().map(Received::Confirm).ok_or(Refusal::Unauthentic),
        Some(sns::Kind::Notification) => Ok(of_pieces(head, json_or_text(notice.message()).as_bytes())),
        // No token goes on: it could subscribe again.
        Some(sns::Kind::Unsubscribed) => Ok(of_pieces(head, br#"{"notificationType":"sns_unsubscribed"}"#)),
        None => Err(Refusal::Unauthentic),
    }
}

/// What was published, as JSON whatever it was.
fn json_or_text(message: &str) -> String {
    match serde_json::from_str::<Value>(message) {
        Ok(Value::Object(_)) => message.to_owned(),
        Ok(_) | Err(_) => serde_json::json!({ "text": message }).to_string(),
    }
}

// ---- SendGrid -----------------------------------------------------------------------------------------------------

fn sendgrid(request: &WebhookRequest<'_>, keys: &[Vec<u8>]) -> Result<Received, Refusal> {
    let time = header(request, SENDGRID_TIMESTAMP).ok_or(Refusal::Unauthentic)?;
    let signature = header(request, SENDGRID_SIGNATURE).ok_or(Refusal::Unauthentic)?;
    let signature = BASE64.decode(signature.as_bytes()).map_err(|_| Refusal::Unauthentic)?;
    let at = seconds(time).ok_or(Refusal::Unauthentic)?;
    let message = [time.as_bytes(), request.body].concat();
    let signed = keys.iter().any(|key| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&message, &signature).is_ok());
    if !signed || !is_fresh(at, request.now, SENDGRID_AGE_MAX, AHEAD_MAX) {
        return Err(Refusal::Unauthentic);
    }
    let content_type = header(request, "content-type").unwrap_or("");
    match Form::read(content_type, request.body) {
        Some(form) => Ok(sendgrid_mail(&form)),
        None => Ok(sendgrid_events(request.body)),
    }
}

fn sendgrid_mail(form: &Form) -> Received {
    let mut head = Head::new(Source::Sendgrid);
    let envelope: Value = form.bytes("envelope").and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(Value::Null);
    head.sender = envelope["from"].as_str().map(sender);
    head.recipients = envelope["to"].as_array().into_iter().flatten().filter_map(Value::as_str).filter_map(lenient).take(100).collect();
    if let Some(spf) = form.text("SPF").filter(|spf| !spf.is_empty() && spf.len() <= 32) {
        head.verdicts.insert("spf".to_owned(), spf.to_ascii_lowercase().into());
    }
    let dkim = form.text("dkim").unwrap_or_default();
    if !dkim.is_empty() {
        // `{@domain : pass}`, one for each signature.
        head.verdicts.insert("dkim".to_owned(), if dkim.contains(": pass") { "pass" } else { "fail" }.into());
    }
    if let Some(raw) = form.bytes("email") {
        head.source = Source::Mime;
        return of_pieces(head, raw);
    }
    of_pieces(head, fields::of_sendgrid_form(form).to_string().as_bytes())
}

fn sendgrid_events(body: &Bytes) -> Received {
    let Ok(events) = serde_json::from_slice::<Vec<Value>>(body) else { return unparsable(body) };
    let mut out = Vec::new();
    for event in events.iter().take(EVENTS_MAX) {
        pieces(Head::new(Source::SendgridEvent), event.to_string().as_bytes(), &mut out);
    }
    if events.len() > EVENTS_MAX {
        out.push(Piece::unparsable(Bytes::from(Value::from(&events[EVENTS_MAX..]).to_string())));
    }
    if out.is_empty() { unparsable(body) } else { Received::Pieces(out) }
}
