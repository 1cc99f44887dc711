use bytes::Bytes;
use messaging::channels::{Received, Refusal, Verifier};
use messaging::clock::Timestamp;
use messaging::directory::SecretPair;
use messaging::exchange::WebhookRequest;
use messaging::seal::Secret;

use crate::support::{account, vectors};
use crate::{KIND, SECRET, account_with, signature, tiktok};

/// The verdict on a body with these headers at this second.
fn judge(headers: &[(&str, &str)], body: &Bytes, now: u64, verifier: &Verifier) -> &'static str {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        map.append(name, value.parse().unwrap());
    }
    let request = WebhookRequest { is_post: true, query: "", headers: &map, body, now: Timestamp::from_secs(now), fetched: None };
    match tiktok().receive(&request, verifier) {
        Ok(Received::Pieces(_)) => "valid",
        Err(Refusal::Unauthentic) => "invalid",
        other => panic!("{other:?}"),
    }
}

#[test]
fn vectors_with_their_tolerance() {
    let vectors = vectors(KIND);
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        assert_eq!(vector["tolerance_s"], 300);
        let account = account(KIND, &[("client_secret", vector["secret"].as_str().unwrap()), ("signature_age", "5m")]);
        let body = Bytes::from(data_encoding::BASE64.decode(vector["body_b64"].as_str().unwrap().as_bytes()).unwrap());
        let headers: Vec<(&str, &str)> =
            vector["headers"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let verdict = judge(&headers, &body, vector["now"].as_u64().unwrap(), &account.verifier);
        assert_eq!(vector["expect"], verdict, "{}", vector["id"]);
    }
}

#[test]
fn what_is_brought_again_is_taken_for_three_days() {
    const T: u64 = 1_795_168_800;
    const HOUR: u64 = 3_600;
    let body = Bytes::from_static(br#"{"event":"im_receive_msg","content":"{}"}"#);
    let header = signature(SECRET, T, &body);
    let headers = [("TikTok-Signature", header.as_str())];
    type Members = &'static [(&'static str, &'static str)];
    let cases: [(Members, u64, &str); 9] = [
        (&[], T, "valid"),
        (&[], T + 301, "valid"),
        (&[], T + 72 * HOUR, "valid"),
        (&[], T + 72 * HOUR + 1, "invalid"),
        (&[], T - 300, "valid"),
        (&[], T - 301, "invalid"),
        (&[("signature_age", "72h")], T + 71 * HOUR, "valid"),
        (&[("signature_age", "5m")], T + 300, "valid"),
        (&[("signature_age", "5m")], T + 301, "invalid"),
    ];
    for (members, now, expected) in cases {
        assert_eq!(judge(&headers, &body, now, &account_with(members).verifier), expected, "{members:?} at {now}");
    }
}

#[test]
fn both_secrets_sign_while_both_live() {
    let body = Bytes::from_static(b"{}");
    let mut pair = SecretPair::new(Secret::new("old"), Timestamp::ZERO);
    pair.rotate(Secret::new("new"), Timestamp::ZERO);
    let verifier = tiktok().verifier(&Default::default(), &[("client_secret".to_owned(), pair)].into());
    for (secret, expected) in [("old", "valid"), ("new", "valid"), ("older", "invalid"), ("", "invalid")] {
        let header = signature(secret, 1_795_168_800, &body);
        assert_eq!(judge(&[("tiktok-signature", &header)], &body, 1_795_168_800, &verifier), expected, "{secret}");
    }
}

#[test]
fn forged_headers_are_refused() {
    const T: u64 = 1_795_168_800;
    let body = Bytes::from_static(b"{}");
    let good = signature(SECRET, T, &body);
    let tag = good.split_once("s=").unwrap().1;
    let verifier = account_with(&[]).verifier;
    let forged = [
        String::new(),
        "t=,s=".into(),
        format!("s={tag}"),
        format!("t={T}"),
        format!("t={T};s={tag}"),
        format!("t={T},s={}", tag.to_uppercase()),
        format!("t={T},s={}", &tag[..62]),
        format!("t={T},s={tag}00"),
        format!("t={T},s={tag},s={tag}"),
        format!("t={T},t={T},s={tag}"),
        format!("t=0{T},s={tag}"),
        format!("t=+{T},s={tag}"),
        format!("t={T}.0,s={tag}"),
        format!("t=99999999999999999999,s={tag}"),
        signature("wrong", T, &body),
        signature(SECRET, T, b"{ }"),
    ];
    for header in &forged {
        assert_eq!(judge(&[("TikTok-Signature", header)], &body, T, &verifier), "invalid", "{header}");
    }
    assert_eq!(judge(&[("TikTok-Signature", &good), ("TikTok-Signature", &good)], &body, T, &verifier), "invalid", "twice");
    assert_eq!(judge(&[], &body, T, &verifier), "invalid");
    let with_more = format!(" {good}, v=2");
    assert_eq!(judge(&[("TikTok-Signature", &with_more)], &body, T, &verifier), "valid", "room for what is to come");
}

#[test]
fn there_is_no_handshake() {
    let (headers, body) = (http::HeaderMap::new(), Bytes::new());
    let request = WebhookRequest { is_post: false, query: "a=b", headers: &headers, body: &body, now: Timestamp::ZERO, fetched: None };
    assert_eq!(tiktok().receive(&request, &account_with(&[]).verifier).unwrap_err(), Refusal::Method);
}
