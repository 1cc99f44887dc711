//! Calls to the shop: notes to customers, which WooCommerce sends by e-mail.

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::json;

use super::ORDER;
use crate::channels::{Fault, Outgoing, Unsendable};
use crate::content::{Content, Handle};
use crate::directory::Account;
use crate::exchange::HttpRequest;

/// Longest note: what WordPress keeps of a comment, in bytes.
const NOTE_BYTES_MAX: usize = 65_525;

pub(super) fn check(content: &Content, to: &Handle) -> Vec<Fault> {
    let mut faults = Vec::new();
    if to.scheme() != ORDER {
        faults.push(Fault::new("/to", "must be an order_id: a shop writes to a customer about an order only"));
    }
    match content {
        Content::Text(text) if text.body.trim().is_empty() => faults.push(Fault::new("/text/body", "must not be empty")),
        Content::Text(text) if text.body.len() > NOTE_BYTES_MAX => {
            let bytes = text.body.len();
            faults.push(Fault::new("/text/body", format!("has {bytes} bytes, at most {NOTE_BYTES_MAX} are allowed")));
        }
        Content::Text(_) => {}
        Content::Image(_)
        | Content::Video(_)
        | Content::Audio(_)
        | Content::Document(_)
        | Content::Sticker(_)
        | Content::Location(_)
        | Content::Contacts(_)
        | Content::Interactive(_)
        | Content::InteractiveReply(_)
        | Content::Template(_)
        | Content::Reaction(_)
        | Content::Read(_)
        | Content::Typing(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => faults.push(Fault::new("/type", format!("{} cannot be sent on woocommerce", content.kind()))),
    }
    faults
}

pub(super) fn request(send: &Outgoing<'_>, account: &Account) -> Result<HttpRequest, Unsendable> {
    if send.to.scheme() != ORDER {
        return Err(Unsendable(format!("woocommerce cannot write to a {}", send.to.scheme())));
    }
    let Content::Text(text) = send.content else {
        return Err(Unsendable(format!("woocommerce cannot send {}", send.content.kind())));
    };
    let id = send.to.value();
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unsendable("an order's id is digits".into()));
    }
    let body = json!({"note": text.body, "customer_note": true});
    let mut request = get(account, &format!("orders/{id}/notes"))?;
    request.method = http::Method::POST;
    request.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    request.body = Bytes::from(body.to_string());
    Ok(request)
}

/// What reconciliation needs, and little of it.
pub(super) fn probe(account: &Account) -> HttpRequest {
    // Without keys the shop says what is missing.
    get(account, "orders?per_page=1&_fields=id").unwrap_or_else(|_| HttpRequest {
        method: http::Method::GET,
        url: format!("{}/wp-json/wc/v3/orders?per_page=1&_fields=id", base(account)),
        headers: Vec::new(),
        body: Bytes::new(),
    })
}

/// A call of the REST API with the account's keys.
pub(super) fn get(account: &Account, path: &str) -> Result<HttpRequest, Unsendable> {
    let base = base(account);
    // Another address is the operator's word (a simulator, a proxy); the shop's own must not show the keys to everybody.
    if account.row.api_base.is_none() && !base.starts_with("https://") {
        return Err(Unsendable("the shop's address must be https: its keys would be readable on the way".into()));
    }
    let authorization = basic(account).ok_or_else(|| Unsendable("the account needs consumer_key and consumer_secret".into()))?;
    let url = format!("{base}/wp-json/wc/v3/{path}");
    Ok(HttpRequest { method: http::Method::GET, url, headers: vec![authorization], body: Bytes::new() })
}

/// The shop is its own platform.
fn base(account: &Account) -> &str {
    account.row.api_base.as_deref().unwrap_or(account.public("source")).trim_end_matches('/')
}

fn basic(account: &Account) -> Option<(HeaderName, HeaderValue)> {
    let (key, secret) = (account.secret("consumer_key"), account.secret("consumer_secret"));
    if key.is_empty() || secret.is_empty() {
        return None;
    }
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64.encode(format!("{key}:{secret}").as_bytes()))).ok()?;
    value.set_sensitive(true);
    Some((AUTHORIZATION, value))
}
