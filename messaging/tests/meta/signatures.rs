use bytes::Bytes;
use messaging::channels::meta::signed_request;
use messaging::channels::{ChannelKind, HandshakeReply, Received, Refusal, Verifier, channel};
use messaging::exchange::WebhookRequest;
use serde_json::Value;

use crate::support::{NOW, account, post, vectors};

const KINDS: [ChannelKind; 2] = [ChannelKind::Messenger, ChannelKind::Instagram];

fn of_scheme(kind: ChannelKind, scheme: &str) -> Vec<Value> {
    vectors(kind).into_iter().filter(|vector| vector["scheme"] == scheme).collect()
}

/// An account with the vector's secrets: both can sign with Instagram.
fn verifier(kind: ChannelKind, vector: &Value) -> Verifier {
    let mut secrets: Vec<&str> = vector["secrets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    secrets.extend(vector["secret"].as_str());
    let names = ["app_secret", "instagram_app_secret"];
    let mut members: Vec<(&str, &str)> = names.into_iter().zip(secrets).collect();
    members.push(("verify_token", vector["verify_token"].as_str().unwrap_or("meatyhamhock")));
    account(kind, &members).verifier
}

#[test]
fn signature_vectors() {
    for kind in KINDS {
        let vectors = of_scheme(kind, "meta-x-hub-signature-256");
        assert!(vectors.len() >= 11);
        for vector in vectors {
            if vector["secrets"].is_array() && kind == ChannelKind::Messenger {
                continue;
            }
            let body = Bytes::from(data_encoding::BASE64.decode(vector["body_b64"].as_str().unwrap().as_bytes()).unwrap());
            let headers: Vec<(&str, &str)> =
                vector["headers"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
            let verdict = match post(kind, &headers, &body, &verifier(kind, &vector)) {
                Ok(Received::Pieces(_)) => "valid",
                Err(Refusal::Unauthentic) => "invalid",
                other => panic!("{}: {other:?}", vector["id"]),
            };
            assert_eq!(vector["expect"], verdict, "{} {}", kind.name(), vector["id"]);
        }
    }
}

#[test]
fn the_second_secret_is_needed_where_it_signs() {
    let vectors = of_scheme(ChannelKind::Instagram, "meta-x-hub-signature-256");
    let vector = vectors.iter().find(|vector| vector["id"] == "instagram-valid-second-secret").unwrap();
    let body = Bytes::from(data_encoding::BASE64.decode(vector["body_b64"].as_str().unwrap().as_bytes()).unwrap());
    let signature = vector["headers"]["X-Hub-Signature-256"].as_str().unwrap();
    let first = account(ChannelKind::Instagram, &[("app_secret", vector["secrets"][0].as_str().unwrap())]);
    let refused = post(ChannelKind::Instagram, &[("X-Hub-Signature-256", signature)], &body, &first.verifier);
    assert_eq!(refused.unwrap_err(), Refusal::Unauthentic);
}

#[test]
fn handshake_vectors() {
    for kind in KINDS {
        for vector in of_scheme(kind, "meta-get-handshake") {
            let query: Vec<String> = vector["query"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| {
                    format!("{name}={}", percent_encoding::utf8_percent_encode(value.as_str().unwrap(), percent_encoding::NON_ALPHANUMERIC))
                })
                .collect();
            let (query, headers, body) = (query.join("&"), http::HeaderMap::new(), Bytes::new());
            let request = WebhookRequest { is_post: false, query: &query, headers: &headers, body: &body, now: NOW, fetched: None };
            let answer = channel(kind).receive(&request, &verifier(kind, &vector));
            let expected = &vector["expected"];
            match expected["status"].as_u64() {
                Some(200) => {
                    let Ok(Received::Handshake(HandshakeReply { status: 200, body })) = answer else {
                        panic!("{}: {answer:?}", vector["id"])
                    };
                    assert_eq!(expected["body"], body.as_str(), "{}", vector["id"]);
                }
                Some(400) => assert_eq!(answer.unwrap_err(), Refusal::Malformed, "{}", vector["id"]),
                _ => assert_eq!(answer.unwrap_err(), Refusal::Unauthentic, "{}", vector["id"]),
            }
        }
    }
}

#[test]
fn signed_request_vectors() {
    let kind = ChannelKind::Messenger;
    let vectors = of_scheme(kind, "meta-signed-request");
    assert_eq!(vectors.len(), 7);
    for vector in vectors {
        let form = format!("signed_request={}", vector["form"]["signed_request"].as_str().unwrap());
        let read = signed_request::verify(form.as_bytes(), &verifier(kind, &vector));
        match vector["expect"].as_str().unwrap() {
            "valid" => {
                let read = read.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", vector["id"]));
                assert_eq!(vector["payload"]["user_id"], read.user.as_str(), "{}", vector["id"]);
                assert_eq!(vector["payload"]["issued_at"], read.issued_at.as_secs(), "{}", vector["id"]);
            }
            _ => assert!(read.is_err(), "{}", vector["id"]),
        }
    }
}

#[test]
fn a_deletion_is_answered_in_form() {
    let answer = signed_request::deletion_answer("https://gw.example/deletion/abc123", "abc123");
    assert_eq!((answer.status, answer.content_type), (200, Some("application/json")));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body, serde_json::json!({"url": "https://gw.example/deletion/abc123", "confirmation_code": "abc123"}));
}

#[test]
fn nothing_of_it_is_printed() {
    let kind = ChannelKind::Messenger;
    let vectors = of_scheme(kind, "meta-signed-request");
    let form = format!("signed_request={}", vectors[0]["form"]["signed_request"].as_str().unwrap());
    let read = signed_request::verify(form.as_bytes(), &verifier(kind, &vectors[0])).unwrap();
    assert!(!format!("{read:?}").contains("218471"));
}
