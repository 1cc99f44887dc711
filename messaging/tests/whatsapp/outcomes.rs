//! What the platform's answers mean.

use std::time::Duration;

use bytes::Bytes;
use messaging::channels::Outgoing;
use messaging::content::{Content, Handle, Receipt, Text};
use messaging::exchange::HttpResponse;
use messaging::outcome::{Reason, Throttled, Verdict};
use serde_json::json;

use crate::whatsapp;

fn judge_for(to: &Handle, content: &Content, status: u16, retry_after: Option<u64>, body: &str) -> Verdict {
    let send = Outgoing { message: "msg_1", to, content, reply_to: None, via: None, tag: None, now: messaging::clock::Timestamp::ZERO };
    let retry_after = retry_after.map(Duration::from_secs);
    whatsapp()
        .outcome(&send, &HttpResponse { status, retry_after, body: Bytes::copy_from_slice(body.as_bytes()), ..HttpResponse::default() })
}

fn text() -> Content {
    Content::Text(Text { body: "hi".into(), preview_url: None })
}

fn judge(status: u16, body: &str) -> Verdict {
    judge_for(&Handle::phone("16505551234"), &text(), status, None, body)
}

fn error(code: i64, message: &str) -> String {
    json!({"error": {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "x"}}).to_string()
}

#[test]
fn every_code_is_judged_whatever_the_http_status() {
    use Reason::*;
    let refused: &[(Reason, &[i64])] = &[
        (Auth, &[0, 3, 10, 190, 200, 250, 299]),
        (AccountDisabled, &[368, 130497, 131031, 131037, 131042, 131045, 133010]),
        (WindowClosed, &[131047]),
        (RecipientInvalid, &[131026, 131021, 131030, 130472]),
        (OptedOut, &[131050]),
        (TemplateInvalid, &[132000, 132001, 132005, 132007, 132008, 132012, 132015, 132016, 132068, 132069]),
        (QuotaExceeded, &[131048, 131049, 131064]),
        (Rejected, &[100, 131008, 131009, 131051, 131052, 131062, 131063, 137000]),
    ];
    let later: &[(Reason, Throttled, Option<u64>, &[i64])] = &[
        (RateLimited, Throttled::Account, Some(60), &[4, 80007, 80008]),
        (RateLimited, Throttled::Account, None, &[130429]),
        (RateLimited, Throttled::Conversation, Some(4), &[131056]),
        (ServerError, Throttled::Conversation, None, &[1, 2, 131000, 131016, 131053, 133004, 135000]),
        (ServerError, Throttled::Account, None, &[131057]),
    ];
    for status in [200, 400, 401, 403, 404, 429, 500, 503] {
        for (reason, codes) in refused {
            for code in *codes {
                let expected = Verdict::Refused { reason: *reason, detail: format!("{code}: Title") };
                assert_eq!(judge(status, &error(*code, &format!("(#{code}) Title"))), expected, "{status}");
            }
        }
        for (reason, hold, after, codes) in later {
            for code in *codes {
                let after = after.map(Duration::from_secs);
                let expected = Verdict::RetryLater { reason: *reason, hold: *hold, after, detail: format!("{code}: Title") };
                assert_eq!(judge(status, &error(*code, &format!("(#{code}) Title"))), expected, "{status}");
            }
        }
    }
}

#[test]
fn what_is_not_known_is_never_tried_again_blindly() {
    use Reason::*;
    let refused = |reason, detail: &str| Verdict::Refused { reason, detail: detail.into() };
    let unknown = |detail: &str| Verdict::Unknown { reason: ServerError, detail: detail.into() };
    let later = |reason, hold, detail: &str| Verdict::RetryLater { reason, hold, after: None, detail: detail.into() };
    let strange = error(999_999, "Novel");
    let cases = [
        (400, &*strange, refused(Rejected, "999999: Novel")),
        (404, &strange, refused(Rejected, "999999: Novel")),
        (401, &strange, refused(Auth, "999999: Novel")),
        (429, &strange, later(RateLimited, Throttled::Account, "999999: Novel")),
        (500, &strange, unknown("999999: Novel")),
        (200, &strange, unknown("999999: Novel")),
        (500, "", unknown("http 500 without a graph error")),
        (502, "<html>bad gateway</html>", unknown("http 502 without a graph error")),
        (503, r#"{"error":"overloaded"}"#, unknown("http 503 without a graph error")),
        (599, "{}", unknown("http 599 without a graph error")),
        (429, "slow down", later(RateLimited, Throttled::Account, "http 429")),
        (408, "", later(ServerError, Throttled::Conversation, "http 408")),
        (401, "", refused(Auth, "http 401 without a graph error")),
        (403, "<html>", refused(Rejected, "http 403 without a graph error")),
        (302, "", refused(Rejected, "http 302 without a graph error")),
        (200, "", unknown("http 200 without a message id")),
        (200, "{}", unknown("http 200 without a message id")),
        (200, "null", unknown("http 200 without a message id")),
        (200, r#"{"messages":[]}"#, unknown("http 200 without a message id")),
        (200, r#"{"messages":[{"id":""}]}"#, unknown("http 200 without a message id")),
        (200, r#"{"messages":[{"id":"wamid.1""#, unknown("http 200 without a message id")),
        (200, r#"{"success":true}"#, unknown("http 200 without a message id")),
    ];
    for (status, body, expected) in cases {
        assert_eq!(judge(status, body), expected, "{status} {body}");
    }
}

#[test]
fn what_was_taken() {
    let phone = Handle::phone("16505551234");
    let sent = |id: Option<&str>, handles: Vec<Handle>| Verdict::Sent { platform_id: id.map(str::to_owned), handles };
    let answer = |contact: &str| {
        format!(r#"{{"messaging_product":"whatsapp","contacts":[{contact}],"messages":[{{"id":"wamid.1","message_status":"accepted"}}]}}"#)
    };
    let whole = answer(r#"{"input":"+16505551234","wa_id":"16505551234","user_id":"US.134"}"#);
    assert_eq!(judge(200, &whole), sent(Some("wamid.1"), vec![phone.clone(), Handle::bsuid("US.134")]));
    assert_eq!(judge(200, &answer(r#"{"input":"US.134","user_id":"US.134"}"#)), sent(Some("wamid.1"), vec![Handle::bsuid("US.134")]));
    assert_eq!(judge(201, r#"{"messages":[{"id":"wamid.1"}]}"#), sent(Some("wamid.1"), vec![]));
    let to_group = judge_for(&Handle::group("Y2Fw"), &text(), 200, None, &answer(r#"{"input":"Y2Fw","wa_id":"Y2Fw"}"#));
    assert_eq!(to_group, sent(Some("wamid.1"), vec![]), "a group has no other names");
    for receipt in
        [Content::Read(Receipt { message: None, platform_id: None }), Content::Typing(Receipt { message: None, platform_id: None })]
    {
        assert_eq!(judge_for(&phone, &receipt, 200, None, r#"{"success":true}"#), sent(None, vec![]));
        assert!(matches!(judge_for(&phone, &receipt, 200, None, r#"{"success":false}"#), Verdict::Unknown { .. }));
        assert!(matches!(judge_for(&phone, &receipt, 200, None, ""), Verdict::Unknown { .. }));
    }
}

#[test]
fn a_hint_of_the_platform_wins() {
    let phone = Handle::phone("16505551234");
    for (status, body) in [(429, String::new()), (400, error(131_056, "")), (400, error(4, "")), (500, error(2, ""))] {
        let verdict = judge_for(&phone, &text(), status, Some(17), &body);
        assert!(matches!(verdict, Verdict::RetryLater { after: Some(after), .. } if after == Duration::from_secs(17)), "{verdict:?}");
    }
}

#[test]
fn details_hold_no_phone_numbers() {
    let cases = [
        ("(#131026) Message undeliverable", "131026: Message undeliverable"),
        ("Recipient 16505551234 is away", "131026: Recipient … is away"),
        ("to +1 (650) 555-1234.", "131026: to +…."),
        ("to +1 (650) 555-1234, again 16505551234", "131026: to +…, again …"),
        ("user US.13491208655302741918 gone", "131026: user US.… gone"),
        ("٤٩٣٠١٢٣٤٥٦٧ is away", "131026: … is away"),
        ("limit is 4096 of 123456", "131026: limit is 4096 of 123456"),
        ("", "131026"),
        ("(#131026)", "131026"),
    ];
    for (message, expected) in cases {
        assert_eq!(judge(400, &error(131_026, message)), Verdict::Refused { reason: Reason::RecipientInvalid, detail: expected.into() });
    }
    let Verdict::Refused { detail, .. } = judge(400, &error(100, &"ä".repeat(5000))) else { panic!() };
    assert_eq!(detail.chars().count(), 200 + "100: ".len());
}
