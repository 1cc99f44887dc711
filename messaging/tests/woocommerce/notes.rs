use std::time::Duration;

use bytes::Bytes;
use messaging::channels::{Outgoing, Unsendable};
use messaging::content::{Content, Handle};
use messaging::exchange::{HttpRequest, HttpResponse};
use messaging::outcome::{Reason, Throttled, Verdict};
use serde_json::{Value, json};

use crate::support::{self, NOW, settings};
use crate::{KIND, account, shop};

fn content(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}

fn order() -> Handle {
    Handle::new("order", "727")
}

fn note() -> Content {
    content(json!({"text": {"body": "On its way"}}))
}

fn request_to(account: &messaging::directory::Account, to: &Handle, content: &Content) -> Result<HttpRequest, Unsendable> {
    let send = Outgoing { message: "msg_1", to, content, reply_to: None, via: None, tag: None, now: NOW };
    shop().request(&send, account, &settings(KIND))
}

#[test]
fn a_note_to_the_customer() {
    let request = request_to(&account(), &order(), &note()).unwrap();
    assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", "https://shop.example.com/wp-json/wc/v3/orders/727/notes"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, json!({"note": "On its way", "customer_note": true}));
    let (_, keys) = request.headers.iter().find(|(name, _)| name == "authorization").unwrap();
    assert_eq!(keys, "Basic Y2tfMTpjc18x");
    assert!(keys.is_sensitive());
    let probe = shop().probe(&account(), &settings(KIND));
    assert_eq!(probe.url, "https://shop.example.com/wp-json/wc/v3/orders?per_page=1&_fields=id");
    assert_eq!(probe.headers.len(), 1);
}

#[test]
fn keys_are_never_shown_to_everybody() {
    let with = |members: &[(&str, &str)]| support::account(KIND, members);
    let plain = with(&[("source", "http://shop.example.com/"), ("consumer_key", "ck"), ("consumer_secret", "cs")]);
    assert!(request_to(&plain, &order(), &note()).unwrap_err().0.contains("https"));
    assert!(shop().probe(&plain, &settings(KIND)).headers.is_empty());
    let keyless = with(&[("source", "https://shop.example.com/"), ("webhook_secret", "s")]);
    assert!(request_to(&keyless, &order(), &note()).unwrap_err().0.contains("consumer_key"));
    let mut simulated = plain;
    simulated.row.api_base = Some("http://127.0.0.1:8080/".into());
    assert_eq!(request_to(&simulated, &order(), &note()).unwrap().url, "http://127.0.0.1:8080/wp-json/wc/v3/orders/727/notes");
}

#[test]
fn what_cannot_be_sent() {
    let said = |value: Value, to: &Handle| {
        let content = content(value);
        let faults = shop().check(&content, to);
        assert!(!faults.is_empty() || request_to(&account(), to, &content).is_ok(), "what passes can be sent");
        faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect::<Vec<_>>()
    };
    assert!(said(json!({"text": {"body": "x"}}), &order()).is_empty());
    assert_eq!(said(json!({"text": {"body": " "}}), &order()), ["/text/body must not be empty"]);
    assert_eq!(said(json!({"text": {"body": "é".repeat(32_763)}}), &order()), ["/text/body has 65526 bytes, at most 65525 are allowed"]);
    assert_eq!(said(json!({"image": {"link": "https://a.example/1.jpg"}}), &order()), ["/type image cannot be sent on woocommerce"]);
    let customer = Handle::new("customer", "25");
    assert_eq!(
        said(json!({"typing": {}}), &customer),
        ["/to must be an order_id: a shop writes to a customer about an order only", "/type typing cannot be sent on woocommerce"]
    );
    assert!(request_to(&account(), &customer, &note()).is_err());
    assert!(request_to(&account(), &Handle::new("order", "7/../8"), &note()).is_err(), "an id is no path");
    for bad in [r#"{"order_id":"x"}"#, r#"{"order_id":""}"#, r#"{"order_id":"1","customer_id":"1"}"#] {
        assert!(shop().recipient(&serde_json::from_str(bad).unwrap()).is_err(), "{bad}");
    }
    assert_eq!(shop().recipient_json(&Handle::new("coupon", "1")), json!({}));
}

fn judge(status: u16, retry_after: Option<u64>, body: &str) -> Verdict {
    let (to, content) = (order(), note());
    let send = Outgoing { message: "msg_1", to: &to, content: &content, reply_to: None, via: None, tag: None, now: NOW };
    let retry_after = retry_after.map(Duration::from_secs);
    shop().outcome(&send, &HttpResponse { status, retry_after, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() })
}

#[test]
fn answers() {
    let error = |code: &str| json!({"code": code, "message": "for ada@example.com", "data": {"status": 400}}).to_string();
    let refused = |reason, detail: &str| Verdict::Refused { reason, detail: detail.to_owned() };
    let later = |reason, after: Option<u64>, detail: &str| Verdict::RetryLater {
        reason,
        hold: Throttled::Account,
        after: after.map(Duration::from_secs),
        detail: detail.to_owned(),
    };
    let unknown = |detail: &str| Verdict::Unknown { reason: Reason::ServerError, detail: detail.to_owned() };
    let cases = [
        (
            201,
            None,
            r#"{"id":281,"note":"x","customer_note":true}"#.to_owned(),
            Verdict::Sent { platform_id: Some("281".into()), handles: Vec::new() },
        ),
        (201, None, "{}".to_owned(), unknown("http 201 without a note")),
        (200, None, "<html>".to_owned(), unknown("http 200 without a note")),
        (400, None, error("rest_missing_callback_param"), refused(Reason::Rejected, "http 400: rest_missing_callback_param")),
        (401, None, error("woocommerce_rest_cannot_create"), refused(Reason::Auth, "http 401: woocommerce_rest_cannot_create")),
        (401, None, String::new(), refused(Reason::Auth, "http 401")),
        (403, None, error("rest_forbidden"), refused(Reason::Auth, "http 403: rest_forbidden")),
        (403, None, "<html>firewall".to_owned(), refused(Reason::Rejected, "http 403")),
        (
            404,
            None,
            error("woocommerce_rest_order_invalid_id"),
            refused(Reason::RecipientInvalid, "http 404: woocommerce_rest_order_invalid_id"),
        ),
        (404, None, error("rest_no_route"), refused(Reason::AccountDisabled, "http 404: rest_no_route")),
        (404, None, "<html>".to_owned(), refused(Reason::Rejected, "http 404")),
        (301, None, String::new(), refused(Reason::Rejected, "http 301")),
        (408, None, String::new(), later(Reason::ServerError, None, "http 408")),
        (429, Some(7), String::new(), later(Reason::RateLimited, Some(7), "http 429")),
        (503, Some(600), String::new(), later(Reason::ServerError, Some(600), "http 503")),
        (503, None, String::new(), unknown("http 503")),
        (500, None, error("internal_server_error"), unknown("http 500: internal_server_error")),
        (502, None, String::new(), unknown("http 502")),
        (504, None, String::new(), unknown("http 504")),
    ];
    for (status, retry_after, body, expected) in cases {
        assert_eq!(judge(status, retry_after, &body), expected, "{status} {body}");
    }
}
