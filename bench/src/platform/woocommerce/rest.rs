//! The shop's REST API as far as notes and reconciliation need it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{CONSUMER_SECRET, State};
use crate::http::{Reply, Request, json_reply};
use crate::locked;
use crate::platform::Sim;
use crate::platform::answer::{Words, act};
use crate::platform::ledger::{Call, Fate};

/// The code of a script for hosting that is busy.
const BUSY: u32 = 429;
/// Orders of a page when none says how many, and at most.
const PAGE: usize = 10;
const PAGE_MAX: usize = 100;

fn error(code: &str, http: u16) -> Reply {
    json_reply(http, &json!({ "code": code, "message": "Simulated.", "data": { "status": http } }))
}

/// What is told in the place of everything when the webhook's owner may not see it.
pub(super) fn rights_lost() -> Value {
    json!({ "code": "woocommerce_rest_cannot_view", "message": "Sorry, you cannot view this resource.", "data": { "status": 401 } })
}

pub(super) fn unknown_path() -> Reply {
    error("rest_no_route", 404)
}

fn authorised(sim: &Sim, request: &Request) -> bool {
    let keys = BASE64.encode(format!("{}:{CONSUMER_SECRET}", sim.options.credential).as_bytes());
    request.header("authorization").and_then(|value| value.strip_prefix("Basic ")) == Some(keys.as_str())
}

/// `GET …/orders`.
pub(super) fn orders(sim: &Sim, state: &State, request: &Request) -> Reply {
    if !authorised(sim, request) {
        return error("woocommerce_rest_cannot_view", 401);
    }
    state.asked.fetch_add(1, Ordering::Relaxed);
    let query: HashMap<&str, &str> = request.query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let said = |name: &str| query.get(name).copied().unwrap_or_default();
    let number = |name: &str, default: usize| said(name).parse().ok().filter(|number| *number > 0).unwrap_or(default);
    let (page, per_page) = (number("page", 1), number("per_page", PAGE));
    // Without it the shop would compare with its own zone, and lose or repeat hours.
    let is_utc = said("dates_are_gmt") == "true" || said("modified_after").is_empty();
    if per_page > PAGE_MAX || !is_utc {
        return error("rest_invalid_param", 400);
    }
    let is_binned = said("status") == "trash";
    let modified = |order: &Value| order["date_modified_gmt"].as_str().unwrap_or_default().to_owned();
    let all = locked(&state.orders);
    let fits = |order: &&Value| (order["status"] == "trash") == is_binned && modified(order).as_str() > said("modified_after");
    let mut found: Vec<&Value> = all.values().filter(fits).collect();
    match (said("orderby"), said("order")) {
        ("modified", "asc") => found.sort_by_key(|order| modified(order)),
        // The newest first, unless somebody asks.
        _ => found.reverse(),
    }
    let total = found.len();
    let orders: Vec<&Value> = found.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
    let total_header = hyper::header::HeaderName::from_static("x-wp-total");
    json_reply(200, &json!(orders)).with_header(total_header, &total.to_string())
}

/// `POST …/orders/{id}/notes`.
pub(super) async fn note(sim: &Arc<Sim>, state: &Arc<State>, order: &str, mut request: Request) -> Reply {
    if sim.script.resets_before_body() {
        sim.ledger.call(entry(sim, order, None, Fate::Lost, Bytes::new()));
        return Reply::Reset;
    }
    let Ok(body) = request.body().await else { return Reply::Close };
    let refuse = |code: &str, http: u16| {
        sim.ledger.call(entry(sim, order, None, Fate::Refused(u32::from(http)), body.clone()));
        error(code, http)
    };
    if !authorised(sim, &request) {
        return refuse("woocommerce_rest_cannot_create", 401);
    }
    if order.parse().ok().and_then(|id| state.order(id)).is_none() {
        return refuse("woocommerce_rest_order_invalid_id", 404);
    }
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(text) = value["note"].as_str().filter(|text| !text.is_empty()) else { return refuse("rest_missing_callback_param", 400) };
    let kind = if value["customer_note"] == true { "customer_note" } else { "private_note" };
    let id = state.next_note.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut call = entry(sim, order, Some((kind, text)), Fate::Lost, body.clone());
    call.platform_id = Some(id.to_string());
    let answer = sim.script.take(text);
    let taken = json_reply(201, &json!({ "id": id, "note": text, "customer_note": value["customer_note"] }));
    let busy = || json_reply(429, &json!("busy")).with_header(hyper::header::RETRY_AFTER, "1");
    let words = Words { taken, error: &|code, http| error(&format!("simulated_{code}"), http), slow_down: &|_| (BUSY, busy()) };
    act(sim, answer, call, words, |_| {}).await
}

/// The ledger's entry of a call; the fate may still change.
fn entry(sim: &Sim, order: &str, note: Option<(&str, &str)>, fate: Fate, body: Bytes) -> Call {
    Call {
        at: sim.now(),
        at_us: crate::monotonic_us(),
        fate,
        platform_id: None,
        to: order.to_owned(),
        kind: note.map_or("unread", |(kind, _)| kind).to_owned(),
        text: note.map(|(_, text)| text.to_owned()),
        callback: None,
        window_ends: None,
        free_form: false,
        body,
    }
}
