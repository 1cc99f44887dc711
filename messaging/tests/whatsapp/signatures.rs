//! Who is let in.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use messaging::channels::{HandshakeReply, Received, Refusal, Verifier};
use messaging::exchange::WebhookRequest;
use serde_json::Value;

use crate::{APP_SECRET, fixture, post, sign, verifier, verifier_of, whatsapp};

const HEADER: &str = "x-hub-signature-256";

fn vectors(scheme: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../fixtures/signatures-whatsapp.json")).unwrap();
    let all = file["vectors"].as_array().unwrap().iter();
    all.filter(|vector| vector["scheme"] == scheme).cloned().collect()
}

fn receive(is_post: bool, query: &str, headers: &HeaderMap, body: &Bytes, verifier: &Verifier) -> Result<Received, Refusal> {
    whatsapp().receive(&WebhookRequest { is_post, query, headers, body, now: messaging::clock::Timestamp::ZERO, fetched: None }, verifier)
}

fn get(query: &str, token: &str) -> Result<HandshakeReply, Refusal> {
    match receive(false, query, &HeaderMap::new(), &Bytes::new(), &verifier_of(&[APP_SECRET], token))? {
        Received::Handshake(reply) => Ok(reply),
        other => panic!("a handshake holds no events: {other:?}"),
    }
}

#[test]
fn post_vectors() {
    let vectors = vectors("meta-x-hub-signature-256");
    assert!(vectors.len() >= 12);
    for vector in vectors {
        let id = vector["id"].as_str().unwrap();
        let mut secrets: Vec<&str> = vector["secrets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        secrets.extend(vector["secret"].as_str());
        let body = data_encoding::BASE64.decode(vector["body_b64"].as_str().unwrap().as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in vector["headers"].as_object().unwrap() {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, value.as_str().unwrap().parse().unwrap());
        }
        match receive(true, "", &headers, &Bytes::from(body), &verifier_of(&secrets, "token")) {
            Ok(Received::Answered { .. } | Received::Confirm(_)) => panic!("meta wants no such answer"),
            Ok(Received::Pieces(pieces)) => {
                assert_eq!(vector["expect"], "valid", "{id}");
                // Authentic bodies of Meta's other products are kept, as what cannot be understood.
                assert_eq!(pieces.len(), 1, "{id}");
                assert_eq!(pieces[0].is_unparsable(), vector["channel"] != "whatsapp", "{id}");
            }
            Err(Refusal::Unauthentic) => assert_eq!(vector["expect"], "invalid", "{id}"),
            other => panic!("{id}: {other:?}"),
        }
    }
}

#[test]
fn handshake_vectors() {
    let vectors = vectors("meta-get-handshake");
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let members = vector["query"].as_object().unwrap();
        let encoded = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let query: Vec<String> = members.iter().map(|(key, value)| format!("{key}={}", encoded(value.as_str().unwrap()))).collect();
        let expected = match vector["expected"]["status"].as_u64() {
            Some(200) => Ok(HandshakeReply { status: 200, body: vector["expected"]["body"].as_str().unwrap().to_owned() }),
            Some(403) => Err(Refusal::Unauthentic),
            Some(400) => Err(Refusal::Malformed),
            other => panic!("{other:?}"),
        };
        assert_eq!(get(&query.join("&"), vector["verify_token"].as_str().unwrap()), expected, "{}", vector["id"]);
    }
}

#[test]
fn handshakes() {
    let long = "1".repeat(1024);
    let right = "hub.mode=subscribe&hub.verify_token=my%20token&hub.challenge=";
    let ok = |body: &str| Ok(HandshakeReply { status: 200, body: body.to_owned() });
    let cases = [
        (format!("{right}42"), ok("42")),
        ("hub.verify_token=my+token&x&hub.challenge=4%2B2&hub.mode=subscribe".to_owned(), ok("4+2")),
        ("hub%2Emode=subscribe&hub%2Everify_token=my%20token&hub%2Echallenge=1".to_owned(), ok("1")),
        (format!("{right}{long}"), ok(&long)),
        (format!("{right}{long}1"), Err(Refusal::Malformed)),
        (right.to_owned(), Err(Refusal::Malformed)),
        (format!("{right}%ff"), Err(Refusal::Malformed)),
        ("hub.mode=subscribe&hub.verify_token=my%20toke&hub.challenge=1".to_owned(), Err(Refusal::Unauthentic)),
        ("hub.mode=subscribe&hub.verify_token=my%20token2&hub.challenge=1".to_owned(), Err(Refusal::Unauthentic)),
        ("hub.mode=subscribe&hub.verify_token=&hub.challenge=1".to_owned(), Err(Refusal::Unauthentic)),
        ("hub.mode=subscribe&hub.challenge=1".to_owned(), Err(Refusal::Unauthentic)),
        ("hub.verify_token=my%20token&hub.challenge=1".to_owned(), Err(Refusal::Unauthentic)),
        (String::new(), Err(Refusal::Unauthentic)),
    ];
    for (query, expected) in cases {
        assert_eq!(get(&query, "my token"), expected, "{query}");
    }
    assert_eq!(get("hub.mode=subscribe&hub.verify_token=&hub.challenge=1", ""), Err(Refusal::Unauthentic), "no token is no token");
}

#[test]
fn only_the_exact_header_passes() {
    let body = Bytes::from(fixture("text").to_string());
    let good = sign(&body);
    let passes = |headers: &[(&'static str, &str)]| post(headers, &body, &verifier()).is_ok();
    assert!(passes(&[(HEADER, &good)]));
    assert!(!passes(&[(HEADER, &good.to_uppercase())]));
    assert!(!passes(&[(HEADER, &good.replace("sha256=", ""))]));
    assert!(!passes(&[(HEADER, &format!("sha256={}", good[7..].to_uppercase()))]));
    assert!(!passes(&[(HEADER, &format!("{good} "))]) || format!("{good} ").parse::<HeaderValue>().unwrap() == good);
    assert!(!passes(&[(HEADER, &good), (HEADER, &good)]), "two headers are one too many");
    assert!(!passes(&[]));
    assert!(post(&[(HEADER, &good)], &body, &verifier_of(&["fedcba", APP_SECRET], "t")).is_ok(), "after a rotation the one before lives");
    assert!(post(&[(HEADER, &good)], &body, &verifier_of(&[APP_SECRET, "fedcba"], "t")).is_ok());
    assert!(post(&[(HEADER, &good)], &body, &verifier_of(&[], "t")).is_err(), "no secret, no entry");
    assert!(post(&[(HEADER, &good)], &body, &Verifier::Tokens(Vec::new())).is_err());
}

#[test]
fn no_bit_of_signature_or_body_may_change() {
    let body = fixture("text").to_string().into_bytes();
    let good = sign(&body).into_bytes();
    let verifier = verifier();
    let passes = |signature: &[u8], body: Vec<u8>| {
        // What cannot stand in a header never arrives.
        let Ok(value) = HeaderValue::from_bytes(signature) else { return false };
        let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), value)]);
        receive(true, "", &headers, &Bytes::from(body), &verifier).is_ok()
    };
    assert!(passes(&good, body.clone()));
    for bit in 0..good.len() * 8 {
        let mut forged = good.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(!passes(&forged, body.clone()), "bit {bit} of the signature");
    }
    for bit in 0..body.len() * 8 {
        let mut forged = body.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(!passes(&good, forged), "bit {bit} of the body");
    }
}
