use bytes::Bytes;
use messaging::channels::{Answer, Received, Refusal, Verifier};
use messaging::clock::Timestamp;
use messaging::directory::SecretPair;
use messaging::exchange::WebhookRequest;
use messaging::seal::Secret;

use crate::support::{account, fixture, post, vectors};
use crate::{KIND, SECRET, shop, signature};

fn judge(headers: &[(&str, &str)], body: &Bytes, verifier: &Verifier) -> &'static str {
    match post(KIND, headers, body, verifier) {
        Ok(Received::Pieces(_)) => "valid",
        Ok(Received::Answered { pieces, answer }) if pieces.is_empty() && answer == Answer::empty(200, None) => "accept-without-effect",
        Err(Refusal::Unauthentic) => "invalid",
        other => panic!("{other:?}"),
    }
}

#[test]
fn vectors_of_the_dossier() {
    let vectors = vectors(KIND);
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let account = account(KIND, &[("webhook_secret", vector["secret"].as_str().unwrap())]);
        let body = Bytes::from(data_encoding::BASE64.decode(vector["body_b64"].as_str().unwrap().as_bytes()).unwrap());
        let headers: Vec<(&str, &str)> =
            vector["headers"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        assert_eq!(vector["expect"], judge(&headers, &body, &account.verifier), "{}", vector["id"]);
    }
}

#[test]
fn forgeries() {
    let body = Bytes::from_static(br#"{"id":727}"#);
    let good = signature(&body);
    let verifier = account(KIND, &[("webhook_secret", SECRET)]).verifier;
    assert_eq!(judge(&[("x-wc-webhook-signature", &good)], &body, &verifier), "valid");
    let urlsafe = good.replace('+', "-").replace('/', "_");
    let forged = [
        String::new(),
        good.trim_end_matches('=').to_owned(),
        format!("{good}="),
        format!("sha256={good}"),
        good.to_lowercase(),
        urlsafe,
        signature(b"{\"id\":728}"),
        data_encoding::BASE64.encode(&[0; 32]),
        data_encoding::BASE64.encode(&[0; 33]),
    ];
    for header in forged.iter().filter(|header| **header != good) {
        assert_eq!(judge(&[("x-wc-webhook-signature", header)], &body, &verifier), "invalid", "{header}");
    }
    assert_eq!(judge(&[("x-wc-webhook-signature", &good), ("x-wc-webhook-signature", &good)], &body, &verifier), "invalid", "twice");
}

#[test]
fn both_secrets_sign_while_both_live() {
    let body = Bytes::from_static(br#"{"id":1}"#);
    let mut pair = SecretPair::new(Secret::new(SECRET), Timestamp::ZERO);
    pair.rotate(Secret::new("next"), Timestamp::ZERO);
    let verifier = shop().verifier(&Default::default(), &[("webhook_secret".to_owned(), pair)].into());
    assert_eq!(judge(&[("x-wc-webhook-signature", &signature(&body))], &body, &verifier), "valid");
    let nobodys = shop().verifier(&Default::default(), &Default::default());
    assert_eq!(judge(&[("x-wc-webhook-signature", &signature(&body))], &body, &nobodys), "invalid");
}

#[test]
fn only_a_ping_may_be_unsigned() {
    let verifier = account(KIND, &[("webhook_secret", SECRET)]).verifier;
    let ping = fixture(KIND, "ping.json");
    let body = Bytes::from(ping["body_text"].as_str().unwrap().to_owned());
    assert_eq!(judge(&[("content-type", "application/x-www-form-urlencoded")], &body, &verifier), "accept-without-effect");
    let others = ["webhook_id=", "webhook_id=1x", "webhook_id=142&a=b", "webhook_id=999999999999999999999", "webhook_ids=1", "", "{}"];
    for other in others {
        assert_eq!(judge(&[], &Bytes::from_static(other.as_bytes()), &verifier), "invalid", "{other}");
    }
    assert_eq!(judge(&[("x-wc-webhook-topic", "order.created")], &body, &verifier), "invalid", "a ping has no topic");
    assert_eq!(judge(&[("x-wc-webhook-signature", "x")], &body, &verifier), "invalid", "nor a signature");
    let headers = http::HeaderMap::new();
    let request = WebhookRequest { is_post: false, query: "", headers: &headers, body: &body, now: Timestamp::ZERO, fetched: None };
    assert_eq!(shop().receive(&request, &verifier).unwrap_err(), Refusal::Method);
}

#[test]
fn members_that_would_not_work_are_refused() {
    let check = |name: &str, value: &str| {
        let field = shop().fields().iter().find(|field| field.name == name).unwrap();
        (field.check)(value).is_ok()
    };
    for (name, value, fits) in [
        ("source", "https://shop.example/", true),
        ("source", "https://shop.example/de/shop", true),
        ("source", "http://shop.example", true),
        ("source", "shop.example", false),
        ("source", "ftp://shop.example/", false),
        ("source", "https://user@shop.example/", false),
        ("source", "https://shop.example/?a=b", false),
        ("source", "https://shop.example/#a", false),
        ("webhook_secret", "plain-secret_1", true),
        ("webhook_secret", "a&b", false),
        ("webhook_secret", "a'b", false),
        ("webhook_secret", "a<b", false),
    ] {
        assert_eq!(check(name, value), fits, "{name} {value}");
    }
}
