//! Verify and split.

use bytes::Bytes;
use data_encoding::BASE64;
use messaging::channels::{PieceKind, Received, Refusal};
use messaging::clock::Timestamp;
use messaging::content::Handle;
use messaging::directory::SecretPair;
use messaging::exchange::WebhookRequest;
use messaging::seal::Secret;
use serde_json::Value;

use super::{TOKEN, fixture, piece, post, secrets, telegram, verifier_of};

#[test]
fn signature_vectors() {
    let path = super::fixtures().join("signatures-telegram.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 4);
    for vector in vectors {
        let body = Bytes::from(BASE64.decode(vector["body_b64"].as_str().unwrap().as_bytes()).unwrap());
        let presented = vector["headers"]["X-Telegram-Bot-Api-Secret-Token"].as_str().map(str::as_bytes);
        let result = post(&body, presented, &verifier_of(vector["secret"].as_str().unwrap()));
        match vector["expect"].as_str().unwrap() {
            "valid" => assert!(matches!(result, Ok(Received::Pieces(pieces)) if pieces.len() == 1), "{}", vector["id"]),
            "invalid" => assert_eq!(result.unwrap_err(), Refusal::Unauthentic, "{}", vector["id"]),
            other => panic!("unknown verdict {other}"),
        }
    }
}

#[test]
fn the_token_before_is_valid_until_it_is_revoked() {
    let mut pair = SecretPair::new(Secret::new("old-token"), Timestamp::ZERO);
    pair.rotate(Secret::new("new-token"), Timestamp::from_secs(1));
    let both = telegram().verifier(&std::collections::BTreeMap::new(), &secrets(pair.clone()));
    pair.previous = None;
    let one = telegram().verifier(&std::collections::BTreeMap::new(), &secrets(pair));
    let body = fixture("message-text.json");
    for (presented, with_both, with_one) in [("old-token", true, false), ("new-token", true, true), ("older-token", false, false)] {
        assert_eq!(post(&body, Some(presented.as_bytes()), &both).is_ok(), with_both, "{presented}");
        assert_eq!(post(&body, Some(presented.as_bytes()), &one).is_ok(), with_one, "{presented}");
    }
}

#[test]
fn without_a_live_token_nothing_passes() {
    let body = fixture("message-text.json");
    let none = telegram().verifier(&std::collections::BTreeMap::new(), &std::collections::BTreeMap::new());
    for verifier in [none, verifier_of("")] {
        for presented in [None, Some(b"".as_slice()), Some(TOKEN.as_bytes())] {
            assert_eq!(post(&body, presented, &verifier).unwrap_err(), Refusal::Unauthentic);
        }
    }
}

#[test]
fn there_is_no_handshake() {
    let mut headers = http::HeaderMap::new();
    headers.insert("x-telegram-bot-api-secret-token", http::HeaderValue::from_static(TOKEN));
    let request = WebhookRequest {
        is_post: false,
        query: "hub.challenge=1",
        headers: &headers,
        body: &Bytes::new(),
        now: Timestamp::ZERO,
        fetched: None,
    };
    assert_eq!(telegram().receive(&request, &verifier_of(TOKEN)).unwrap_err(), Refusal::Method);
}

#[test]
fn the_piece_is_the_request_without_a_copy() {
    let body = fixture("message-text.json");
    assert_eq!(piece(&body).body().as_ptr(), body.as_ptr());
}

#[test]
fn authentic_but_not_to_be_understood_is_kept() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "7",
        r#"{"message":{}}"#,
        r#"{"update_id":"7"}"#,
        r#"{"update_id":7,"message":{"chat":{"id":"x"}}}"#,
        r#"{"update_id":7,"message":{"chat":{"id":1}},"edited_message":{"chat":{"id":2}}}"#,
        r#"{"update_id":7,"message":{"chat":{"id":1},"chat":{"id":2}}}"#,
    ] {
        let bytes = Bytes::from(body);
        let piece = piece(&bytes);
        assert!(piece.is_unparsable(), "{body}");
        assert_eq!(piece.body(), &bytes);
        assert!(telegram().parse(&bytes).is_err(), "{body}");
    }
}

#[test]
fn pieces_are_keyed_by_the_chat() {
    use PieceKind::{Account, Message, Other, Reaction};
    let person = || Handle::chat("1234567890");
    for (name, handle, kind) in [
        ("message-text.json", person(), Message),
        ("edited-message.json", person(), Message),
        ("callback-query.json", person(), Message),
        ("callback-query-inaccessible-message.json", person(), Message),
        ("message-reaction.json", person(), Reaction),
        ("my-chat-member-blocked.json", person(), Other),
        ("business-message.json", person(), Message),
        ("business-message-outgoing.json", person(), Message),
        ("edited-business-message.json", person(), Message),
        ("deleted-business-messages.json", person(), Message),
        ("poll-answer.json", person(), Other),
        ("message-group-mention.json", Handle::group("-1001234567890"), Message),
        ("message-migrate-to-supergroup.json", Handle::group("-123456789"), Message),
        ("channel-post.json", Handle::group("-1009876543210"), Message),
        ("business-connection.json", Handle::account(), Account),
    ] {
        let piece = piece(&fixture(name));
        assert_eq!((piece.handle(), piece.kind(), piece.is_unparsable()), (&handle, kind, false), "{name}");
    }
}

#[test]
fn kinds_without_a_chat_are_keyed_by_the_person_or_the_account() {
    for (body, handle) in [
        (r#"{"update_id":1,"callback_query":{"id":"1","from":{"id":42},"inline_message_id":"a"}}"#, Handle::chat("42")),
        (r#"{"update_id":1,"inline_query":{"id":"1","from":{"id":42},"query":""}}"#, Handle::chat("42")),
        (r#"{"update_id":1,"chosen_inline_result":{"result_id":"1","from":{"id":42}}}"#, Handle::chat("42")),
        (r#"{"update_id":1,"shipping_query":{"id":"1","from":{"id":42}}}"#, Handle::chat("42")),
        (r#"{"update_id":1,"pre_checkout_query":{"id":"1","from":{"id":42}}}"#, Handle::chat("42")),
        (r#"{"update_id":1,"purchased_paid_media":{"from":{"id":42}}}"#, Handle::chat("42")),
        (r#"{"update_id":1,"guest_message":{"message_id":1,"from":{"id":42},"chat":{"id":-7}}}"#, Handle::chat("42")),
        (r#"{"update_id":1,"poll_answer":{"poll_id":"1","voter_chat":{"id":-42}}}"#, Handle::group("-42")),
        (r#"{"update_id":1,"chat_member":{"chat":{"id":-42},"from":{"id":1}}}"#, Handle::group("-42")),
        (r#"{"update_id":1,"chat_join_request":{"chat":{"id":-42},"from":{"id":1}}}"#, Handle::group("-42")),
        (r#"{"update_id":1,"chat_boost":{"chat":{"id":-42}}}"#, Handle::group("-42")),
        (r#"{"update_id":1,"removed_chat_boost":{"chat":{"id":-42}}}"#, Handle::group("-42")),
        (r#"{"update_id":1,"message_reaction_count":{"chat":{"id":-42}}}"#, Handle::group("-42")),
        (r#"{"update_id":1,"edited_channel_post":{"message_id":1,"chat":{"id":-42}}}"#, Handle::group("-42")),
        (r#"{"update_id":1,"poll":{"id":"1"}}"#, Handle::account()),
        (r#"{"update_id":1,"managed_bot":{"user":{"id":42}}}"#, Handle::account()),
        (r#"{"update_id":1,"kind_of_tomorrow":{"chat":{"id":42}}}"#, Handle::account()),
        (r#"{"update_id":1}"#, Handle::account()),
    ] {
        let piece = piece(&Bytes::from(body));
        assert_eq!((piece.handle(), piece.is_unparsable()), (&handle, false), "{body}");
        let parsed = telegram().parse(piece.body()).unwrap();
        assert_eq!(parsed.contact.handles, [handle], "{body}");
    }
}
