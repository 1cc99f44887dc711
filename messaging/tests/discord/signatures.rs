use bytes::Bytes;
use messaging::channels::{Received, Refusal, Verifier};
use messaging::clock::Timestamp;
use messaging::exchange::WebhookRequest;

use crate::support::{account, vectors};
use crate::{KIND, SEED, account_with, discord, signed};

const T: u64 = 1_795_168_800;

/// The verdict on a body with these headers at this second.
fn judge<N: AsRef<str>, V: AsRef<str>>(headers: &[(N, V)], body: &Bytes, now: u64, verifier: &Verifier) -> Result<Received, Refusal> {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.as_ref().parse().unwrap();
        map.append(name, value.as_ref().parse().unwrap());
    }
    let request = WebhookRequest { is_post: true, query: "", headers: &map, body, now: Timestamp::from_secs(now), fetched: None };
    discord().receive(&request, verifier)
}

fn is_valid<N: AsRef<str>, V: AsRef<str>>(headers: &[(N, V)], body: &Bytes, now: u64, verifier: &Verifier) -> bool {
    match judge(headers, body, now, verifier) {
        Ok(_) => true,
        Err(Refusal::Unauthentic) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn vectors_with_their_answers() {
    let vectors = vectors(KIND);
    assert_eq!(vectors.len(), 8);
    assert_eq!(discord().unauthentic_status(), 401);
    for vector in vectors {
        let account = account(KIND, &[("public_key", vector["public_key_hex"].as_str().unwrap())]);
        let body = Bytes::from(data_encoding::BASE64.decode(vector["body_b64"].as_str().unwrap().as_bytes()).unwrap());
        let headers: Vec<(&str, &str)> =
            vector["headers"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let verdict = judge(&headers, &body, T, &account.verifier);
        let expected = &vector["expected_response"];
        match verdict {
            Ok(Received::Answered { pieces, answer }) => {
                assert!(vector["expect"] == "valid" && pieces.is_empty(), "{}", vector["id"]);
                assert_eq!(expected["status"], answer.status, "{}", vector["id"]);
                if let Some(json) = expected.get("json") {
                    assert_eq!(&serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap(), json);
                }
            }
            Err(Refusal::Unauthentic) => assert!(vector["expect"] == "invalid" && expected["status"] == 401, "{}", vector["id"]),
            other => panic!("{}: {other:?}", vector["id"]),
        }
    }
}

#[test]
fn a_signature_ends() {
    let body = Bytes::from_static(br#"{"type":1}"#);
    let headers = signed(&SEED, &T.to_string(), &body);
    let verifier = account_with(&[]).verifier;
    for (now, expected) in [(T, true), (T + 900, true), (T + 901, false), (T - 300, true), (T - 301, false)] {
        assert_eq!(is_valid(&headers, &body, now, &verifier), expected, "{now}");
    }
}

#[test]
fn every_changed_bit_is_seen() {
    let body = Bytes::from_static(br#"{"type":2,"id":"1","token":"t"}"#);
    let headers = signed(&SEED, &T.to_string(), &body);
    let verifier = account_with(&[]).verifier;
    assert!(is_valid(&headers, &body, T, &verifier));
    for place in 0..body.len() * 8 {
        let mut changed = body.to_vec();
        changed[place / 8] ^= 1 << (place % 8);
        assert!(!is_valid(&headers, &Bytes::from(changed), T, &verifier), "bit {place} of the body");
    }
    let signature = data_encoding::HEXLOWER.decode(headers[0].1.as_bytes()).unwrap();
    for place in 0..signature.len() * 8 {
        let mut changed = signature.clone();
        changed[place / 8] ^= 1 << (place % 8);
        let forged = [(headers[0].0, data_encoding::HEXLOWER.encode(&changed)), headers[1].clone()];
        assert!(!is_valid(&forged, &body, T, &verifier), "bit {place} of the signature");
    }
}

#[test]
fn forged_headers_are_refused() {
    let body = Bytes::from_static(br#"{"type":1}"#);
    let time = T.to_string();
    let [(name, good), (time_name, _)] = signed(&SEED, &time, &body);
    let verifier = account_with(&[]).verifier;
    let by_another = signed(&[8; 32], &time, &body);
    assert!(!is_valid(&by_another, &body, T, &verifier), "another key");
    for (signature, time) in [
        (good.as_str(), ""),
        ("", time.as_str()),
        (&good[..126], &time),
        (&format!("{good}00"), &time),
        (&"zz".repeat(64), &time),
        (&good, "1795168801"),
        (&good, &format!("0{time}")),
        (&good, &format!("{time}.0")),
    ] {
        assert!(!is_valid(&[(name, signature), (time_name, time)], &body, T, &verifier), "{signature} at {time}");
    }
    // Time and body have no sign between them: what is signed as one may not be read as another.
    let longer = signed(&SEED, &format!("{time}1"), b"{}");
    assert!(!is_valid(
        &[(name, longer[0].1.as_str()), (time_name, &time)],
        &Bytes::from_static(b"1{}"),
        T + 1,
        &Verifier::Ed25519(Vec::new())
    ));
    for odd in [format!("+{time}"), format!(" {time}"), format!("-{time}"), "9".repeat(13), "x".to_owned()] {
        let headers = signed(&SEED, &odd, &body);
        assert!(!is_valid(&headers, &body, T, &verifier), "{odd}: signed, and no time");
    }
    let upper = [(name, good.to_uppercase()), (time_name, time.clone())];
    assert!(is_valid(&upper, &body, T, &verifier), "hexadecimal digits are digits");
}

#[test]
fn without_a_key_nothing_passes() {
    let body = Bytes::from_static(br#"{"type":1}"#);
    let headers = signed(&SEED, &T.to_string(), &body);
    for verifier in [Verifier::Ed25519(Vec::new()), Verifier::Tokens(Vec::new()), account(KIND, &[]).verifier] {
        assert!(!is_valid(&headers, &body, T, &verifier));
    }
}

#[test]
fn there_is_no_handshake() {
    let (headers, body) = (http::HeaderMap::new(), Bytes::new());
    let request = WebhookRequest { is_post: false, query: "a=b", headers: &headers, body: &body, now: Timestamp::ZERO, fetched: None };
    assert_eq!(discord().receive(&request, &account_with(&[]).verifier).unwrap_err(), Refusal::Method);
}
