//! E-mail through the whole router: a relay on loopback takes what a lane submits, and answers and reports come back by webhook.

mod rig;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use messaging::channels::ChannelKind;
use messaging::clock::Clock;
use messaging::content::{Content, Email, Handle};
use messaging::ids::{AccountId, MessageId};
use messaging::outcome::Status;
use rig::Rig;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const MAILBOX: AccountId = AccountId([8; 16]);
const SECRET: &str = "bridge-secret-0001";

/// What a relay does with one mail.
#[derive(Clone, Copy)]
enum Then {
    Say(&'static str),
    /// Takes it and closes without a word.
    TakeAndClose,
    /// Refuses the recipient.
    NoSuch,
    /// Refuses the password.
    Password,
}

struct Relay {
    port: u16,
    mails: Mutex<Vec<String>>,
    then: Mutex<VecDeque<Then>>,
}

impl Relay {
    async fn start(then: &[Then]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = Arc::new(Self { port, mails: Mutex::default(), then: Mutex::new(then.iter().copied().collect()) });
        let accepting = relay.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        relay
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 relay\r\n").await.ok()?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let next = self.then.lock().unwrap().front().copied();
            let answer = match (line.split([' ', ':', '\r']).next()?, next) {
                ("EHLO", _) => "250-relay\r\n250 AUTH PLAIN\r\n",
                ("AUTH", Some(Then::Password)) => self.done("535 5.7.8 wrong\r\n"),
                ("RCPT", Some(Then::NoSuch)) => self.done("550 5.1.1 unknown\r\n"),
                ("DATA", _) => {
                    stream.write_all(b"354 go\r\n").await.ok()?;
                    let mail = content(&mut stream).await?;
                    let then = self.then.lock().unwrap().pop_front();
                    match then {
                        Some(Then::Say(line)) => line,
                        Some(Then::TakeAndClose) => {
                            self.mails.lock().unwrap().push(mail);
                            return None;
                        }
                        Some(Then::NoSuch | Then::Password) | None => {
                            self.mails.lock().unwrap().push(mail);
                            "250 2.0.0 queued\r\n"
                        }
                    }
                }
                _ => "250 ok\r\n",
            };
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }

    fn done(&self, answer: &'static str) -> &'static str {
        self.then.lock().unwrap().pop_front();
        answer
    }

    fn taken(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }
}

async fn content(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut mail = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line == ".\r\n" {
            return Some(mail);
        }
        mail.push_str(&line);
    }
}

async fn start(then: &[Then]) -> (Rig, Arc<Relay>) {
    let rig = Rig::start().await;
    let relay = Relay::start(then).await;
    let port = relay.port.to_string();
    let public = [
        ("address", "shop@example.net"),
        ("provider", "bridge"),
        ("smtp_host", "127.0.0.1"),
        ("smtp_port", port.as_str()),
        ("smtp_security", "plain"),
        ("smtp_user", "shop"),
    ];
    rig.add_account(MAILBOX, ChannelKind::Email, &public, &[("secret", SECRET), ("smtp_password", "pass")]).await;
    (rig, relay)
}

fn ada() -> Handle {
    Handle::new("mail", "ada@example.com")
}

fn mail(text: &str) -> Content {
    Content::Email(Email { subject: Some("Order".into()), text: Some(text.into()), ..Email::default() })
}

async fn send(rig: &Rig, text: &str, reply_to: Option<MessageId>) -> MessageId {
    rig.send_from(MAILBOX, ChannelKind::Email, &ada(), mail(text), reply_to).await
}

/// A mail comes in by the bridge.
async fn arrives(rig: &Rig, raw: &str) {
    let raw = raw.replace('\n', "\r\n");
    let time = rig.clock.now().as_secs().to_string();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.{raw}").as_bytes());
    let signature = format!("t={time},v1={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()));
    rig.hook(MAILBOX, &[("x-gateway-signature", &signature)], raw).await;
}

/// Ada writes, the shop answers in her thread, she answers that: each end names what it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_of_mails() {
    let (rig, relay) = start(&[]).await;
    arrives(&rig, "From: Ada <ada@example.com>\nMessage-ID: <1@example.com>\nSubject: hi\n\nhello\n").await;
    let received = rig.inbox.wait_for_kind("message.received", 1).await;
    let first: MessageId = received[0].body["data"]["message"]["id"].as_str().unwrap().parse().unwrap();
    let answer = send(&rig, "hello Ada", Some(first)).await;
    let sent = rig.inbox.wait_for_kind("message.sent", 1).await;
    assert_eq!(sent[0].body["data"]["message"]["platform_id"], format!("{answer}@example.net"));
    let taken = relay.taken();
    for line in ["In-Reply-To: <1@example.com>", "References: <1@example.com>", &format!("Message-ID: <{answer}@example.net>")] {
        assert!(taken[0].contains(&format!("{line}\r\n")), "{line}: {}", taken[0]);
    }
    arrives(&rig, &format!("From: ada@example.com\nMessage-ID: <2@example.com>\nIn-Reply-To: <{answer}@example.net>\n\nthanks\n")).await;
    let received = rig.inbox.wait_for_kind("message.received", 2).await;
    assert_eq!(received[1].body["data"]["message"]["reply_to"]["id"], answer.to_string());
    assert_eq!(received[0].conversation, received[1].conversation, "the conversation is the correspondent");
    rig.stop().await;
}

/// Taken without an answer: unknown, not sent again; a report about the mail settles it by our id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_mail_is_settled_by_a_report() {
    let (rig, relay) = start(&[Then::TakeAndClose]).await;
    let message = send(&rig, "once", None).await;
    rig.inbox.wait_for_kind("message.unknown", 1).await;
    assert_eq!(rig.status_of(message).await, Status::Unknown);
    rig.quiet().await;
    assert_eq!(relay.taken().len(), 1, "never twice by itself");
    let report = format!(
        "From: MAILER-DAEMON@example.com\nMessage-ID: <d@example.com>\nMIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=r\n\n--r\nContent-Type: message/delivery-status\n\n\
         Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; ada@example.com\nAction: delivered\nStatus: 2.0.0\n\n\
         --r\nContent-Type: text/rfc822-headers\n\nMessage-ID: <{message}@example.net>\n\n--r--\n"
    );
    arrives(&rig, &report).await;
    rig.inbox.wait_for_kind("message.delivered", 1).await;
    assert_eq!(rig.status_of(message).await, Status::Delivered);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_that_does_not_exist() {
    let (rig, relay) = start(&[Then::NoSuch]).await;
    let message = send(&rig, "hello?", None).await;
    let failed = rig.inbox.wait_for_kind("message.failed", 1).await;
    assert_eq!(failed[0].body["data"]["message"]["reason"], "recipient_invalid");
    assert!(!failed[0].raw.contains("5.1.1 unknown"), "the relay's words stay here");
    assert_eq!(rig.status_of(message).await, Status::Failed);
    assert!(relay.taken().is_empty());
    rig.stop().await;
}

/// A relay that is busy gets the same mail again, later: same id, same bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_relay_gets_it_later() {
    let (rig, relay) = start(&[Then::Say("451 4.7.1 greylisted\r\n")]).await;
    let message = send(&rig, "patience", None).await;
    rig.until(|_| relay.then.lock().unwrap().is_empty()).await;
    for _ in 0..100 {
        rig.clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !relay.taken().is_empty() {
            break;
        }
    }
    rig.inbox.wait_for_kind("message.sent", 1).await;
    assert_eq!(rig.status_of(message).await, Status::Sent);
    assert!(relay.taken()[0].contains(&format!("Message-ID: <{message}@example.net>")));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_stops_the_account() {
    let (rig, relay) = start(&[Then::Password]).await;
    let message = send(&rig, "hello", None).await;
    let told = rig.inbox.wait_for_kind("account.state_changed", 1).await;
    assert_eq!(told[0].body["data"]["change"]["reason"], "auth");
    assert_eq!(rig.status_of(message).await, Status::Queued, "it waits for the new password");
    assert!(relay.taken().is_empty());
    rig.stop().await;
}
