//! Verify and split.

use bytes::Bytes;
use data_encoding::BASE64;
use messaging::channels::{ChannelKind, MailVerifier, PieceKind, Received, Refusal, Verifier};
use messaging::clock::Timestamp;
use messaging::content::Handle;
use messaging::directory::SecretPair;
use messaging::exchange::WebhookRequest;
use messaging::seal::Secret;
use serde_json::{Value, json};

use super::support::{NOW, account, fixture, vectors};
use super::{SECRET, TOPIC, Wire, bridged, email, mac, pieces, sample, verifier};

fn of_vector(vector: &Value) -> (Wire, Verifier, Option<Bytes>) {
    let text = |name: &str| vector[name].as_str().unwrap_or("").to_owned();
    let body = Bytes::from(BASE64.decode(text("body_b64").as_bytes()).unwrap());
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in vector["headers"].as_object().into_iter().flatten() {
        headers.push((name.clone(), value.as_str().unwrap().to_owned()));
    }
    let of = |members: &[(&str, &str)]| account(ChannelKind::Email, members).verifier;
    match vector["scheme"].as_str().unwrap() {
        "mailgun-hmac" => {
            headers.push(("content-type".into(), "application/x-www-form-urlencoded".into()));
            let form = vector["form"].as_object().unwrap().iter();
            let pairs: Vec<String> = form.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
            let wire = Wire { headers, body: Bytes::from(pairs.join("&")) };
            (wire, of(&[("provider", "mailgun"), ("secret", &text("secret"))]), None)
        }
        "http-basic" => {
            (Wire { headers, body: Bytes::from("{}") }, of(&[("provider", "postmark"), ("credentials", &text("credentials"))]), None)
        }
        "aws-sns" => {
            let topic = vector["expected_topic_arns"][0].as_str().unwrap();
            (Wire { headers, body }, of(&[("provider", "ses"), ("topic", topic)]), Some(Bytes::from(text("certificate_pem"))))
        }
        "sendgrid-ecdsa" => {
            headers.push(("content-type".into(), "multipart/form-data; boundary=xYzZY".into()));
            (Wire { headers, body }, of(&[("provider", "sendgrid"), ("public_key", &text("public_key_b64_spki"))]), None)
        }
        "gateway-mail-bridge" => (Wire { headers, body }, of(&[("provider", "bridge"), ("secret", &text("secret"))]), None),
        other => panic!("unknown scheme {other}"),
    }
}

#[test]
fn signature_vectors() {
    let vectors = vectors(ChannelKind::Email);
    assert_eq!(vectors.len(), 18);
    for vector in &vectors {
        let id = vector["id"].as_str().unwrap();
        let (wire, verifier, certificate) = of_vector(vector);
        let now = vector["now"].as_u64().map_or(NOW, Timestamp::from_secs);
        let taken = wire.judged(&verifier, certificate.as_ref(), now);
        // A token that comes again is told apart by the ids of what it brings, where those are known: at the router.
        let wanted = vector["expect"] == "valid" || id == "mailgun-invalid-replayed-token";
        assert_eq!(taken.is_ok(), wanted, "{id}: {taken:?}");
        if let Err(refusal) = taken {
            assert_eq!(refusal, Refusal::Unauthentic, "{id}");
        }
    }
}

fn needs(body: &Bytes, verifier: &Verifier) -> Option<String> {
    let headers = http::HeaderMap::new();
    let request = WebhookRequest { is_post: true, query: "", headers: &headers, body, now: NOW, fetched: None };
    email().needs(&request, verifier).map(|call| format!("{} {}", call.method, call.url))
}

/// Only a notice of a topic of ours makes us call, and only SNS itself.
#[test]
fn the_certificate_is_fetched_from_amazon_only() {
    let body = |change: &dyn Fn(&mut Value)| {
        let mut body = fixture(ChannelKind::Email, "sns-ses-bounce.json")["body"].clone();
        change(&mut body);
        Bytes::from(body.to_string())
    };
    let good = "GET https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-EXAMPLE.pem";
    assert_eq!(needs(&body(&|_| {}), &verifier("ses")).as_deref(), Some(good));
    assert_eq!(needs(&body(&|_| {}), &verifier("mailgun")), None, "another provider's account");
    assert_eq!(needs(&Bytes::from("{}"), &verifier("ses")), None);
    for url in [
        "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem",
        "http://sns.eu-west-1.amazonaws.com/a.pem",
        "https://169.254.169.254/a.pem",
        "https://sns.eu-west-1.amazonaws.com/a.pem?x=https://evil.example",
        "https://sns.eu-west-1.amazonaws.com@evil.example/a.pem",
        "https://sns.eu-west-1.amazonaws.com:1/a.pem",
    ] {
        assert_eq!(needs(&body(&|body| body["SigningCertURL"] = json!(url)), &verifier("ses")), None, "{url}");
    }
    for topic in [json!("arn:aws:sns:eu-west-1:999999999999:ses-inbound"), json!(""), json!(null)] {
        assert_eq!(needs(&body(&|body| body["TopicArn"] = topic.clone()), &verifier("ses")), None, "{topic}");
    }
}

/// The vectors' own confirmation leads to the topic's own region and nowhere else.
#[test]
fn a_subscription_is_confirmed_at_amazon_only() {
    let all = vectors(ChannelKind::Email);
    let vector = all.iter().find(|vector| vector["id"] == "sns-valid-subscription-confirmation-v2").unwrap();
    let (wire, verifier, certificate) = of_vector(vector);
    match wire.judged(&verifier, certificate.as_ref(), NOW) {
        Ok(Received::Confirm(call)) => {
            assert_eq!(call.method, http::Method::GET);
            assert!(call.url.starts_with("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&"), "{}", call.url);
        }
        other => panic!("{other:?}"),
    }
    for (now, certificate) in [
        (NOW, None),
        (NOW, Some(Bytes::from("no certificate"))),
        (Timestamp::from_secs(NOW.as_secs() + 3 * 3600), certificate.clone()),
        (Timestamp::from_secs(NOW.as_secs() - 3600), certificate),
    ] {
        assert_eq!(wire.judged(&verifier, certificate.as_ref(), now).unwrap_err(), Refusal::Unauthentic);
    }
}

#[test]
fn both_secrets_sign_until_the_old_one_is_revoked() {
    let mut pair = SecretPair::new(Secret::new("old-secret"), Timestamp::ZERO);
    pair.rotate(Secret::new(SECRET), Timestamp::from_secs(1));
    let public = std::collections::BTreeMap::from([("provider".to_owned(), "bridge".to_owned())]);
    let of = |pair: &SecretPair| email().verifier(&public, &std::collections::BTreeMap::from([("secret".to_owned(), pair.clone())]));
    let both = of(&pair);
    pair.previous = None;
    let one = of(&pair);
    let raw = b"From: a@example.com\r\nMessage-ID: <1@example.com>\r\n\r\nhi\r\n";
    let time = NOW.as_secs().to_string();
    for (secret, with_both, with_one) in [(SECRET, true, true), ("old-secret", true, false), ("older", false, false)] {
        let signature = format!("t={time},v1={}", mac(secret, &[time.as_bytes(), b".", raw]));
        let wire = Wire::new(&[("x-gateway-signature", &signature)], raw.to_vec());
        assert_eq!(wire.judged(&both, None, NOW).is_ok(), with_both, "{secret}");
        assert_eq!(wire.judged(&one, None, NOW).is_ok(), with_one, "{secret}");
    }
}

#[test]
fn the_bridges_clock_may_be_off_by_five_minutes() {
    let wire = bridged(b"From: a@example.com\r\n\r\nhi", &[]);
    for (off, passes) in [(-301, false), (-300, true), (0, true), (300, true), (301, false)] {
        let now = Timestamp::from_secs(NOW.as_secs().saturating_add_signed(off));
        assert_eq!(wire.judged(&verifier("bridge"), None, now).is_ok(), passes, "{off}");
    }
}

#[test]
fn without_a_live_secret_nothing_passes() {
    for provider in ["bridge", "mailgun", "postmark", "ses", "sendgrid", "unheard-of"] {
        let none = account(ChannelKind::Email, &[("provider", provider)]).verifier;
        for name in ["raw-mime-bridge.json", "mailgun-inbound.json", "mailgun-inbound-attachments.json", "postmark-inbound.json"] {
            assert_eq!(sample(name).0.judged(&none, None, NOW).unwrap_err(), Refusal::Unauthentic, "{provider} {name}");
        }
    }
    let sns = Verifier::Mail(MailVerifier::Sns { topics: vec![String::new()] });
    assert_eq!(Wire::new(&[], "{}").judged(&sns, None, NOW).unwrap_err(), Refusal::Unauthentic);
}

#[test]
fn forged_requests_do_not_pass() {
    for name in ["raw-mime-bridge.json", "mailgun-inbound.json", "mailgun-inbound-attachments.json", "mailgun-inbound-mime.json"] {
        let (wire, provider) = sample(name);
        let stranger = account(ChannelKind::Email, &[("provider", provider), ("secret", "another")]).verifier;
        assert_eq!(wire.judged(&stranger, None, NOW).unwrap_err(), Refusal::Unauthentic, "{name}");
        assert!(wire.judged(&verifier(provider), None, NOW).is_ok(), "{name}");
    }
    let (mut wire, _) = sample("postmark-inbound.json");
    for bad in ["", "Basic", "Basic !!", "Bearer cG06czNjcmV0", "Basic cG06czNjcmV0cG06"] {
        wire.headers[1].1 = bad.to_owned();
        assert_eq!(wire.judged(&verifier("postmark"), None, NOW).unwrap_err(), Refusal::Unauthentic, "{bad}");
    }
}

#[test]
fn there_is_no_handshake() {
    let (headers, body) = (http::HeaderMap::new(), Bytes::new());
    let request = WebhookRequest { is_post: false, query: "", headers: &headers, body: &body, now: NOW, fetched: None };
    for provider in ["bridge", "mailgun", "postmark", "ses"] {
        assert_eq!(email().receive(&request, &verifier(provider)).unwrap_err(), Refusal::Method);
    }
}

/// A refusal must not be the one status after which Postmark never comes again.
#[test]
fn a_refusal_can_be_tried_again() {
    assert_eq!(email().unauthentic_status(), 401);
}

#[test]
fn pieces_are_keyed_by_the_correspondent() {
    for name in ["raw-mime-bridge.json", "mailgun-inbound.json", "mailgun-inbound-mime.json", "postmark-inbound.json"] {
        let (wire, provider) = sample(name);
        let pieces = pieces(wire.judged(&verifier(provider), None, NOW));
        assert_eq!(pieces.len(), 1, "{name}");
        assert_eq!((pieces[0].handle(), pieces[0].kind()), (&Handle::new("mail", "customer@example.com"), PieceKind::Message), "{name}");
    }
}

#[test]
fn authentic_but_not_to_be_understood_is_kept() {
    let postmark = |body: &str| {
        let (mut wire, _) = sample("postmark-inbound.json");
        wire.body = Bytes::from(body.to_owned());
        (wire, "postmark")
    };
    for (wire, provider) in [
        (bridged(b"", &[]), "bridge"),
        (bridged(b"no mail at all", &[]), "bridge"),
        (bridged(b"Subject: from nobody\r\n\r\nhi", &[]), "bridge"),
        postmark("{"),
        postmark("[]"),
        postmark("{}"),
        postmark("null"),
    ] {
        let pieces = pieces(wire.judged(&verifier(provider), None, NOW));
        assert!(pieces.len() == 1 && pieces[0].is_unparsable(), "{provider} {:?}", wire.body);
        assert!(email().parse(pieces[0].body()).is_err());
    }
}

#[test]
fn the_topic_of_the_samples_is_the_tests_own() {
    assert_eq!(fixture(ChannelKind::Email, "sns-ses-bounce.json")["body"]["TopicArn"], TOPIC);
}
