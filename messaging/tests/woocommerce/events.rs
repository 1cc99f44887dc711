use std::collections::BTreeMap;

use bytes::Bytes;
use messaging::channels::{InboundBody, PieceKind};
use serde_json::{Value, json};

use crate::support::{fixture, fixture_names, summary};
use crate::{DELIVERY, KIND, account, inbound, piece, shop, told, told_by};

/// One line a sample, each read against its file: `name => event`.
const TABLE: &str = include_str!("events.txt");

fn headers_of(sample: &Value) -> Vec<(&str, &str)> {
    let named = |name: &str| name.starts_with("x-wc-") && name != "x-wc-webhook-signature";
    let headers = sample["headers"].as_object().unwrap().iter();
    headers.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).filter(|(name, _)| named(name)).collect()
}

#[test]
fn every_sample_is_the_event_that_the_table_says() {
    let mut table: BTreeMap<&str, &str> = TABLE.lines().filter_map(|line| line.split_once(" => ")).collect();
    let mut wrong = String::new();
    for name in fixture_names(KIND).iter().filter(|name| *name != "ping.json") {
        let sample = fixture(KIND, name);
        let mut told = inbound(&piece(&headers_of(&sample), &Bytes::from(sample["body"].to_string())));
        if let InboundBody::Resource { data, .. } = &mut told.body {
            assert!(*data == sample["body"], "{name}: told as it came");
            *data = "…".into();
        }
        let line = summary(&told);
        if table.remove(name.as_str()) != Some(line.as_str()) {
            wrong += &format!("{name} => {line}\n");
        }
    }
    assert!(wrong.is_empty(), "other than the table says:\n{wrong}");
    assert!(table.is_empty(), "no such sample: {:?}", table.keys());
}

fn key(inbound: &messaging::channels::Inbound) -> (String, String) {
    (inbound.platform_id.clone(), inbound.qualifier.clone())
}

fn order(status: &str, modified: &str) -> Value {
    json!({"id": 727, "status": status, "date_created_gmt": "2026-11-20T10:00:02", "date_modified_gmt": modified, "total": "29.35"})
}

#[test]
fn repeats_are_known_by_what_they_say() {
    let first = order("processing", "2026-11-20T10:00:08");
    let later = order("completed", "2026-11-20T11:00:00");
    let with_links = |mut order: Value| {
        order["_links"] = json!({"self": [{"href": "https://elsewhere.example"}]});
        order
    };
    let refunded = |mut order: Value| {
        order["refunds"] = json!([{"id": 730}]);
        order
    };
    let gone = json!({"id": 727});
    // Topic, delivery and body of two events; whether they are one.
    let cases = [
        ("an order is made once", ("order.created", "a", first.clone()), ("order.created", "b", later.clone()), true),
        ("made and changed", ("order.created", "a", first.clone()), ("order.updated", "a", first.clone()), false),
        ("changed again", ("order.updated", "a", first.clone()), ("order.updated", "b", later.clone()), false),
        ("the same change", ("order.updated", "a", later.clone()), ("order.updated", "b", later.clone()), true),
        ("links are about the shop", ("order.updated", "a", later.clone()), ("order.updated", "b", with_links(later.clone())), true),
        (
            "a partial refund within the second",
            ("order.updated", "a", later.clone()),
            ("order.updated", "a", refunded(later.clone())),
            false,
        ),
        ("a deletion brought twice", ("order.deleted", "a", gone.clone()), ("order.deleted", "a", gone.clone()), true),
        ("deleted again after a restoration", ("order.deleted", "a", gone.clone()), ("order.deleted", "b", gone.clone()), false),
        ("another order, within the second", ("order.deleted", "a", gone.clone()), ("order.deleted", "a", json!({"id": 728})), false),
        ("a customer of that number", ("order.deleted", "a", gone.clone()), ("customer.deleted", "a", gone.clone()), false),
        (
            "stock is low again",
            ("action.woocommerce_low_stock", "a", json!({"arg": 93})),
            ("action.woocommerce_low_stock", "b", json!({"arg": 93})),
            false,
        ),
    ];
    for (what, (topic, delivery, body), (other_topic, other_delivery, other), same) in cases {
        let (one, two) = (told_by(topic, delivery, &body), told_by(other_topic, other_delivery, &other));
        assert_eq!(key(&one) == key(&two), same, "{what}: {:?} {:?}", key(&one), key(&two));
    }
    assert_eq!(told_by("order.deleted", "", &gone).platform_id, "", "without a delivery the bytes tell it apart");
}

#[test]
fn whom_things_belong_to() {
    let cases = [
        ("order.updated", order("processing", "2026-11-20T10:00:08"), "order:727"),
        ("customer.deleted", json!({"id": 25}), "customer:25"),
        ("coupon.updated", json!({"id": 719, "used_by": ["ada@example.com"]}), "coupon:719"),
        ("product.updated", json!({"id": 93}), "account:"),
        ("subscription.created", json!({"id": 12, "billing": {}}), "subscription:12"),
        ("subscription.created", json!({"billing": {}}), "notice:shop"),
        ("account.created", json!({"id": 12}), "notice:shop"),
        ("action.woocommerce_low_stock", json!({"action": "woocommerce_low_stock", "arg": 93}), "notice:shop"),
        ("", json!({"id": 12}), "notice:shop"),
    ];
    for (topic, body, handle) in cases {
        let told = told(topic, &body);
        assert_eq!(told.contact.handles[0].expose(), handle, "{topic}");
        assert!(!told.opens_window);
    }
}

#[test]
fn what_is_not_known_passes_through() {
    let plugin = told("subscription.switched", &json!({"id": 12, "a": 1}));
    assert_eq!(plugin.body, InboundBody::Platform { kind: "subscription.switched".into(), raw: json!({"id": 12, "a": 1}) });
    let no_topic = told("", &json!([1]));
    assert_eq!(no_topic.body, InboundBody::Platform { kind: "unknown".into(), raw: json!([1]) });
    let headers = [("X-WC-Webhook-Resource", "order"), ("X-WC-Webhook-Event", "deleted")];
    let by_parts = inbound(&piece(&headers, &Bytes::from_static(br#"{"id":727}"#)));
    assert!(matches!(by_parts.body, InboundBody::Resource { name: "order", .. }), "{by_parts:?}");
    for (topic, odd) in [
        ("order.created", "{}"),
        ("order.created", r#"{"id":null}"#),
        ("order.created", r#"{"id":1.5}"#),
        ("order.created", "7"),
        ("order.created", "{"),
    ] {
        let piece = piece(&[("X-WC-Webhook-Topic", topic)], &Bytes::from_static(odd.as_bytes()));
        assert!(piece.is_unparsable(), "{odd}");
        assert!(shop().parse(piece.body()).is_err(), "{odd}");
    }
}

#[test]
fn lost_rights_are_news_of_the_account() {
    let body = json!({"code": "woocommerce_rest_cannot_view", "message": "Sorry, you cannot view this resource.", "data": {"status": 401}});
    for topic in ["order.created", "customer.updated", "product.updated"] {
        let piece = piece(&[("X-WC-Webhook-Topic", topic), ("X-WC-Webhook-Delivery-ID", DELIVERY)], &Bytes::from(body.to_string()));
        assert_eq!((piece.kind(), piece.handle().expose()), (PieceKind::Account, "account:"));
        let line = summary(&inbound(&piece));
        let expected = format!(
            r#"account.state_changed {{"webhook_error":{{"code":"woocommerce_rest_cannot_view","message":"Sorry, you cannot view this resource.","status":401,"topic":"{topic}"}}}} | error:{topic} {DELIVERY} | 0 | account:"#
        );
        assert_eq!(line, expected);
    }
    let coupon = told("coupon.created", &json!({"id": 1, "code": "10off", "message": "x", "data": {}}));
    assert!(matches!(coupon.body, InboundBody::Resource { .. }), "a thing with an id is a thing");
}

#[test]
fn names_of_people() {
    let name = |body: Value| told("order.updated", &body).contact.name;
    assert_eq!(name(json!({"id": 1, "billing": {"first_name": "Zo\u{eb}", "last_name": " "}})).as_deref(), Some("Zo\u{eb}"));
    assert_eq!(name(json!({"id": 1, "billing": []})), None);
    assert_eq!(name(json!({"id": 1})), None);
    let customer = told("customer.created", &json!({"id": 1, "first_name": "", "last_name": "Doe", "username": "jd"}));
    assert_eq!((customer.contact.name.as_deref(), customer.contact.username.as_deref()), (Some("Doe"), Some("jd")));
}

#[test]
fn headers_that_are_odd_are_left_out() {
    let long = "x".repeat(257);
    let headers = [("X-WC-Webhook-Topic", "order.deleted"), ("X-WC-Webhook-Source", long.as_str()), ("X-WC-Webhook-Delivery-ID", "d")];
    let told = inbound(&piece(&headers, &Bytes::from_static(br#"{"id":727}"#)));
    assert!(told.context.is_empty());
    assert!(account().row.api_base.is_none());
}
