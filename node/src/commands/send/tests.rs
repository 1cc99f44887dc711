use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;

use super::super::fake::{Fake, Reply, Seen};
use super::*;
use crate::args::{Cli, Command};

async fn send(line: &[&str], fake: &Fake, seen: &Seen, is_terminal: bool) -> Result<(), Failure> {
    let cli = Cli::parse_from(["trunkline", "send"].iter().chain(line));
    let Some(Command::Send(args)) = cli.command else { panic!("{line:?}") };
    run(args, &mut seen.context(&fake.url, is_terminal, cli.json)).await
}

/// Answers a send, and each look at the message with one more entry of `history` than the last.
async fn growing(history: &'static [&'static str]) -> Fake {
    let looks = AtomicUsize::new(0);
    Fake::start(move |asked| match asked.method.as_str() {
        "POST" => Reply::json(202, r#"{"id":"msg_1","status":"accepted","accepted_at":"2026-11-22T15:04:05.100000Z"}"#),
        _ => {
            let known = looks.fetch_add(1, Ordering::Relaxed).min(history.len());
            if known == 0 {
                return Reply::json(404, r#"{"title":"There is no such thing","code":"not-found"}"#);
            }
            let entries: Vec<Value> = history[..known].iter().map(|entry| serde_json::from_str(entry).unwrap()).collect();
            let last = &entries[known - 1];
            let message = json!({"id": "msg_1", "status": last["status"], "reason": last.get("reason"), "history": entries});
            Reply::json(200, message.to_string())
        }
    })
    .await
}

const ACCEPTED: &str = r#"{"at":"2026-11-22T15:04:05.100000Z","status":"accepted"}"#;
const SENT: &str = r#"{"at":"2026-11-22T15:04:05.154000Z","status":"sent","attempt":1}"#;
const DELIVERED: &str = r#"{"at":"2026-11-22T15:04:05.161000Z","status":"delivered"}"#;
const READ: &str = r#"{"at":"2026-11-22T15:04:06.390000Z","status":"read"}"#;
const AGAIN: &str = r#"{"at":"2026-11-22T15:04:05.900000Z","status":"sending","attempt":2}"#;
const FAILED: &str = r#"{"at":"2026-11-22T15:04:06.100010Z","status":"failed","reason":"recipient_invalid"}"#;

#[tokio::test]
async fn waiting_prints_each_step_once() {
    let cases: [(&'static [&'static str], &str, bool, &str, u8); 4] = [
        (&[ACCEPTED, SENT, DELIVERED, READ], "+15550100", true, " · sent 54 ms · delivered 61 ms · read 1.2 s\n", 0),
        (&[ACCEPTED, SENT, DELIVERED, READ], "+15550100", false, "\nsent 54 ms\ndelivered 61 ms\nread 1.2 s\n", 0),
        (&[ACCEPTED, SENT], "4711", true, " · sent 54 ms\n", 0),
        (&[ACCEPTED, AGAIN, FAILED], "+15550100", false, "\nsending 800 ms (attempt 2)\nfailed 1.0 s (recipient_invalid)\n", 1),
    ];
    for (history, to, is_terminal, expected, code) in cases {
        let fake = growing(history).await;
        let seen = Seen::default();
        let result = send(&["--to", to, "--text", "hello", "--account", "acc_1", "--wait"], &fake, &seen, is_terminal).await;
        let out = seen.out();
        let (first, rest) = out.split_at(out.find(" ms").unwrap() + 3);
        assert!(first.starts_with("accepted "), "{out}");
        assert_eq!(rest, expected);
        assert_eq!(result.as_ref().map_or_else(Failure::code, |()| 0), code);
        if let Err(failure) = result {
            assert!(
                matches!(&failure, Failure::Failed(text) if text.contains("recipient_invalid") && text.contains("next: check the number"))
            );
        }
    }
}

#[tokio::test]
async fn the_wait_ends_quietly_after_delivered_and_badly_at_its_time_limit() {
    for (history, quiet, timeout, code) in
        [(&[ACCEPTED, SENT, DELIVERED][..], 0, 60_000, 0), (&[ACCEPTED, SENT][..], 0, 300, 1), (&[ACCEPTED, DELIVERED][..], 60_000, 300, 1)]
    {
        let history: &'static [&'static str] = Vec::leak(history.to_vec());
        let fake = growing(history).await;
        let seen = Seen::default();
        let client = Client::new(&fake.url, Some("k")).unwrap();
        let (quiet, timeout) = (Duration::from_millis(quiet), Duration::from_millis(timeout));
        let wait =
            Wait { client: &client, id: "msg_1", accepted: Instant::now(), accepted_at: None, ends_with_sent: false, timeout, quiet };
        let result = wait.follow(Duration::ZERO, &mut seen.screen(false, false)).await;
        assert_eq!(result.as_ref().map_or_else(Failure::code, |()| 0), code, "{result:?}");
    }
}

#[tokio::test]
async fn requests_say_what_the_flags_say() {
    let fake = Fake::start(|asked| match asked.target.as_str() {
        "/v1/messages" => Reply::json(202, r#"{"id":"msg_1"}"#),
        "/v1/messages?dry_run=true" => Reply::json(200, r#"{"decision":"send"}"#),
        _ => Reply::json(
            200,
            r#"{"data":[{"id":"acc_w","channel":"whatsapp"},{"id":"acc_t","channel":"telegram"},{"id":"acc_u","channel":"telegram"}]}"#,
        ),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.json");
    std::fs::write(&file, r#"{"account":"acc_f","to":{"email":"x"},"type":"text","text":{"body":"f"}}"#).unwrap();
    let file = file.to_str().unwrap();
    let cases: [(&[&str], Value, &str); 8] = [
        (
            &["--to", "+15550100", "--text", "hello"],
            json!({"account": "acc_w", "to": {"phone": "+15550100"}, "type": "text", "text": {"body": "hello"}}),
            "msg_1\n",
        ),
        (
            &[
                "--to",
                "-4711",
                "--account",
                "acc_t",
                "--image",
                "http://i",
                "--caption",
                "c",
                "--reply-to",
                "msg_0",
                "--idempotency-key",
                "k",
            ],
            json!({"account": "acc_t", "to": {"chat_id": "-4711"}, "type": "image", "image": {"link": "http://i", "caption": "c"}, "reply_to": "msg_0"}),
            "msg_1\n",
        ),
        (
            &["--to", "+1555", "--template", "order:en:A,B"],
            json!({"account": "acc_w", "to": {"phone": "+1555"}, "type": "template", "template": {"name": "order", "language": "en", "params": ["A", "B"]}}),
            "msg_1\n",
        ),
        (
            &["--to", "+1555", "--text", "t", "--template", "order:en"],
            json!({"account": "acc_w", "to": {"phone": "+1555"}, "type": "text", "text": {"body": "t"}, "fallback": {"template": {"name": "order", "language": "en"}}}),
            "msg_1\n",
        ),
        (
            &["--file", file, "--to", "con_1"],
            json!({"account": "acc_f", "to": {"contact": "con_1"}, "type": "text", "text": {"body": "f"}}),
            "msg_1\n",
        ),
        (
            &["--to", "ada@example.com", "--account", "acc_e", "--text", "t"],
            json!({"account": "acc_e", "to": {"email": "ada@example.com"}, "type": "text", "text": {"body": "t"}}),
            "msg_1\n",
        ),
        (
            &["--to", "conversation_id:a+/=", "--account", "acc_k", "--text", "t"],
            json!({"account": "acc_k", "to": {"conversation_id": "a+/="}, "type": "text", "text": {"body": "t"}}),
            "msg_1\n",
        ),
        (
            &["--file", file, "--dry-run"],
            json!({"account": "acc_f", "to": {"email": "x"}, "type": "text", "text": {"body": "f"}}),
            "{\n  \"decision\": \"send\"\n}\n",
        ),
    ];
    for (line, body, printed) in cases {
        let seen = Seen::default();
        send(line, &fake, &seen, false).await.unwrap();
        let request = fake.requests().pop().unwrap();
        assert_eq!((request.json(), seen.out().as_str()), (body, printed), "{line:?}");
        assert_eq!(request.headers.contains_key("idempotency-key"), line.contains(&"--idempotency-key"));
    }
    for (line, why) in [
        (&["--to", "4711", "--text", "a"][..], "acc_u"),
        (&["--to", "cnv_1", "--text", "a"], "which account?"),
        (&["--to", "bob", "--text", "a"], "no recipient"),
        (&["--to", "nobody:1", "--text", "a"], "no recipient"),
        (&["--to", "psid:1", "--text", "a"], "no messenger account"),
        (&["--to", "comment_id:1", "--text", "a"], "which account?"),
        (&["--to", "+1"], "what to send?"),
        (&["--to", "+1", "--text", "a", "--caption", "c"], "--caption"),
        (&["--file", "/nonexistent/m.json"], "cannot read"),
    ] {
        let result = send(line, &fake, &Seen::default(), false).await;
        assert!(matches!(&result, Err(Failure::Usage(text)) if text.contains(why)), "{line:?}: {result:?}");
    }
}

#[tokio::test]
async fn a_closed_window_says_how_to_go_on() {
    let problem = r#"{"title":"Free text is not allowed now","code":"window-closed","status":422,"detail":"closed"}"#;
    let fake = Fake::start(move |_| Reply::Now(422, "application/problem+json", problem.to_owned())).await;
    for (json, expected) in [(false, "write as the customer first"), (true, r#""code":"window-closed""#)] {
        let failure = send(&["--to", "+1", "--text", "a", "--account", "acc_1"], &fake, &Seen::default(), false).await.unwrap_err();
        let seen = Seen::default();
        failure.tell(&mut seen.screen(false, json));
        assert_eq!(failure.code(), 1);
        assert!(seen.err().contains(expected), "{}", seen.err());
    }
}
