use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use messaging::channels::woocommerce::pull::{Failure, Pull, Pulled, read, request};
use messaging::channels::{InboundBody, Piece};
use messaging::clock::Timestamp;
use messaging::exchange::HttpResponse;
use serde_json::{Value, json};

use crate::{KIND, account, inbound, support, told};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn answer(status: u16, body: &str) -> HttpResponse {
    HttpResponse { status, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() }
}

/// An order that was made and changed at these seconds after ten o'clock.
fn order(id: u64, created: u64, modified: u64) -> Value {
    let gmt = |second: u64| at("2026-11-20T10:00:00Z").plus(std::time::Duration::from_secs(second)).to_string()[..19].to_owned();
    json!({"id": id, "status": "processing", "date_created_gmt": gmt(created), "date_modified_gmt": gmt(modified), "billing": {"first_name": "Ada"}})
}

fn kinds(pieces: &[Piece]) -> Vec<String> {
    let line = |piece: &Piece| {
        let told = inbound(piece);
        let InboundBody::Resource { event, .. } = told.body else { panic!("{told:?}") };
        assert_eq!(told.context["pulled"], true);
        format!("{} {}", event.name(), piece.handle().expose())
    };
    pieces.iter().map(line).collect()
}

fn pulled(pull: &Pull, orders: &[Value]) -> Pulled {
    read(&account(), pull, &answer(200, &Value::from(orders.to_vec()).to_string())).unwrap()
}

fn query(pull: &Pull) -> BTreeMap<String, String> {
    let request = request(&account(), pull).unwrap();
    assert_eq!(request.method, http::Method::GET);
    let (path, query) = request.url.split_once('?').unwrap();
    assert_eq!(path, "https://shop.example.com/wp-json/wc/v3/orders");
    assert_eq!(request.headers[0].1, "Basic Y2tfMTpjc18x", "its own authenticated question");
    query.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn what_is_asked_for() {
    let first = query(&Pull::since(at("2026-11-20T09:00:00.75Z")));
    let expected = [
        ("modified_after", "2026-11-20T09:00:00"),
        ("dates_are_gmt", "true"),
        ("orderby", "modified"),
        ("order", "asc"),
        ("status", "any"),
        ("per_page", "100"),
        ("page", "1"),
    ];
    assert_eq!(first, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let keyless = support::account(KIND, &[("source", "https://shop.example.com/"), ("webhook_secret", "s")]);
    assert!(request(&keyless, &Pull::since(Timestamp::ZERO)).is_err());
}

#[test]
fn what_became_of_orders() {
    let pull = Pull::since(at("2026-11-20T10:00:00Z"));
    let mut draft = order(5, 60, 60);
    draft["status"] = json!("checkout-draft");
    let orders = [order(1, 5, 11), order(2, 5, 60), draft, json!({"no": "id"}), json!(7)];
    let found = pulled(&pull, &orders);
    let (understood, odd): (Vec<Piece>, Vec<Piece>) = found.pieces.into_iter().partition(|piece| !piece.is_unparsable());
    assert_eq!(kinds(&understood), ["order.created order:1", "order.created order:2", "order.updated order:2"]);
    assert_eq!(odd.len(), 2, "what is odd goes to quarantine");
    let older = pulled(&Pull::since(at("2026-11-20T11:00:00Z")), &[order(3, 0, 4_000)]);
    assert_eq!(kinds(&older.pieces), ["order.updated order:3"], "made before, so told before");
    let binned = pulled(&found.next.unwrap(), &[order(4, 0, 90)]);
    assert_eq!(kinds(&binned.pieces), ["order.deleted order:4"]);
    let InboundBody::Resource { data, .. } = inbound(&binned.pieces[0]).body else { panic!() };
    assert_eq!(data, json!({"id": 4}), "as the shop tells it");
    assert_eq!(binned.next, None);
}

/// What a webhook told makes no second event when it is pulled as well.
#[test]
fn what_was_told_is_known() {
    let key = |inbound: messaging::channels::Inbound| (inbound.contact.handles[0].clone(), inbound.platform_id, inbound.qualifier);
    let changed = order(2, 5, 60);
    let pull = Pull::since(at("2026-11-20T10:00:00Z"));
    let found: BTreeSet<_> = pulled(&pull, std::slice::from_ref(&changed)).pieces.iter().map(|piece| key(inbound(piece))).collect();
    // The shop told of its making when it looked otherwise.
    let by_webhook = [key(told("order.created", &order(2, 5, 6))), key(told("order.updated", &changed))];
    assert_eq!(found, BTreeSet::from(by_webhook));
    let again: BTreeSet<_> = pulled(&pull, &[changed]).pieces.iter().map(|piece| key(inbound(piece))).collect();
    assert_eq!(found, again, "pulls may overlap");
}

/// A shop with these orders, asked as a worker asks: every order is seen, whatever changes between two pages.
fn drain(mut shop: Vec<(u64, u64)>, pull: Pull, mut meanwhile: impl FnMut(&mut Vec<(u64, u64)>)) -> (BTreeSet<String>, usize) {
    let (mut seen, mut calls, mut next) = (BTreeSet::new(), 0, Some(pull));
    while let Some(pull) = next {
        calls += 1;
        assert!(calls < 100, "it ends");
        let asked = query(&pull);
        let number = |name: &str| asked[name].parse::<usize>().unwrap();
        let after = at(&format!("{}Z", asked["modified_after"]));
        let mut all: Vec<Value> = shop.iter().map(|(id, modified)| order(*id, 0, *modified)).collect();
        all.retain(|order| asked["status"] == "any" && at(&format!("{}Z", order["date_modified_gmt"].as_str().unwrap())) > after);
        all.sort_by_key(|order| (order["date_modified_gmt"].as_str().unwrap().to_owned(), order["id"].as_u64()));
        let page: Vec<Value> = all.into_iter().skip((number("page") - 1) * number("per_page")).take(number("per_page")).collect();
        let found = pulled(&pull, &page);
        seen.extend(found.pieces.iter().map(|piece| piece.handle().value().to_owned()));
        next = found.next;
        meanwhile(&mut shop);
    }
    (seen, calls)
}

#[test]
fn no_order_is_passed_over() {
    let since = Pull::since(at("2026-11-20T10:00:00Z"));
    let spread: Vec<(u64, u64)> = (1..=250).map(|id| (id, 20 + id)).collect();
    let (seen, calls) = drain(spread.clone(), since, |_| {});
    assert_eq!((seen.len(), calls), (250, 4), "three pages and the bin");
    // A page's first order changes while the next is asked for: by page numbers another one would slip through.
    let mut moves = 0;
    let (seen, _) = drain(spread, since, |shop| {
        moves += 1;
        if moves <= 2 {
            shop[moves * 3].1 = 1_000 + moves as u64;
        }
    });
    assert_eq!(seen.len(), 250);
    // A bulk action: more orders in one second than one page holds.
    let at_once: Vec<(u64, u64)> = (1..=350).map(|id| (id, if id <= 330 { 60 } else { 61 })).collect();
    assert_eq!(drain(at_once, since, |_| {}).0.len(), 350);
    assert_eq!(drain(Vec::new(), since, |_| {}), (BTreeSet::new(), 2));
}

#[test]
fn a_shop_that_does_not_sort_is_read_by_page() {
    let mut pull = Pull::since(at("2026-11-20T10:00:00Z"));
    let newest_first: Vec<Value> = (0..100).map(|n| order(n + 1, 0, 500 - n)).collect();
    for page in 1..=3 {
        assert_eq!(query(&pull)["page"], page.to_string());
        pull = pulled(&pull, &newest_first).next.unwrap();
        assert_eq!(query(&pull)["modified_after"], "2026-11-20T10:00:00");
    }
}

#[test]
fn answers_that_hold_nothing() {
    let pull = Pull::since(Timestamp::ZERO);
    let error = |code: &str| json!({"code": code, "message": "x"}).to_string();
    let cases = [
        (401, error("woocommerce_rest_cannot_view"), "keys"),
        (403, error("woocommerce_rest_cannot_view"), "keys"),
        (403, "<html>".to_owned(), "unreadable"),
        (404, error("rest_no_route"), "unreadable"),
        (200, "<html>".to_owned(), "unreadable"),
        (200, r#"[{"id":1},{"id"#.to_owned(), "unreadable"),
        (200, error("x"), "unreadable"),
        (429, String::new(), "later"),
        (500, error("internal_server_error"), "later"),
        (503, String::new(), "later"),
    ];
    for (status, body, expected) in cases {
        let failure = read(&account(), &pull, &answer(status, &body)).unwrap_err();
        let kind = match failure {
            Failure::Keys { .. } => "keys",
            Failure::Unreadable { .. } => "unreadable",
            Failure::Later { .. } => "later",
        };
        assert_eq!(kind, expected, "{status} {body}");
    }
    let mut sizes = vec![query(&pull)["per_page"].clone()];
    let mut smaller = pull;
    while let Some(next) = smaller.smaller() {
        sizes.push(query(&next)["per_page"].clone());
        smaller = next;
    }
    assert_eq!(sizes, ["100", "50", "25", "12", "6", "3", "1"]);
}
