//! What relays' answers mean.

use std::time::Duration;

use messaging::channels::{ChannelKind, Outgoing};
use messaging::content::{Content, Handle, Text};
use messaging::exchange::{MailReply, MailStep};
use messaging::outcome::{Throttled, Verdict};

use super::email;
use super::support::{NOW, account};

fn judged(code: u16, step: MailStep, text: &str) -> String {
    let account = account(ChannelKind::Email, &[("address", "shop@example.net")]);
    let to = Handle::new("mail", "ada@example.com");
    let content = Content::Text(Text { body: "hi".into(), preview_url: None });
    let send = Outgoing { message: "msg_x", to: &to, content: &content, reply_to: None, via: None, tag: None, now: NOW };
    let reply = MailReply { code, step, text: text.to_owned(), after_data: step == MailStep::Content };
    match email().mail_outcome(&send, &account, &reply) {
        Verdict::Sent { platform_id, .. } => format!("sent {}", platform_id.unwrap()),
        Verdict::RetryLater { reason, hold, after, detail } => {
            let hold = match hold {
                Throttled::Conversation => "pair",
                Throttled::Account => "account",
                Throttled::App => "app",
            };
            format!("later {} {hold} {} | {detail}", reason.name(), after.unwrap_or(Duration::ZERO).as_secs())
        }
        Verdict::Refused { reason, detail } => format!("refused {} | {detail}", reason.name()),
        Verdict::Unknown { reason, detail } => format!("unknown {} | {detail}", reason.name()),
        Verdict::Moved { .. } => panic!("mail does not move"),
    }
}

#[test]
fn every_answer() {
    use MailStep::{Auth, Content, Copy, Data, Greeting, Recipient, Sender};
    let ses = "0102018f8e5c8a3d-5b2c9e6a-1234-4abc-9def-0123456789ab-000000";
    for (code, step, text, wanted) in [
        (250, Content, "2.0.0 Ok: queued as 4711", "sent msg_x@example.net"),
        (250, Content, &format!("Ok {ses}")[..], &format!("sent {ses}")[..]),
        (250, Content, "Ok 0102018f8e5c8a3d-no-id", "sent msg_x@example.net"),
        (421, Greeting, "4.3.2 busy", "later rate_limited account 30 | smtp 421 4.3.2"),
        (421, Content, "4.7.0 too many", "later rate_limited account 30 | smtp 421 4.7.0"),
        (454, Content, "Throttling failure: Maximum sending rate exceeded.", "later rate_limited account 30 | smtp 454"),
        (454, Auth, "4.7.0 Temporary authentication failure", "later server_error account 0 | smtp 454 4.7.0"),
        (450, Sender, "4.7.1 slow down", "later rate_limited account 30 | smtp 450 4.7.1"),
        (451, Sender, "local error", "later server_error account 0 | smtp 451"),
        (450, Recipient, "4.2.0 greylisted <ada@example.com>", "later rate_limited pair 0 | smtp 450 4.2.0"),
        (452, Recipient, "4.2.2 full", "later rate_limited pair 0 | smtp 452 4.2.2"),
        (451, Copy, "4.7.1 greylisted", "later rate_limited pair 0 | smtp 451 4.7.1"),
        (452, Content, "4.3.1 system storage", "later rate_limited pair 0 | smtp 452 4.3.1"),
        (535, Auth, "5.7.8 credentials invalid", "refused auth | smtp 535 5.7.8"),
        (534, Auth, "5.7.9 mechanism too weak", "refused auth | smtp 534 5.7.9"),
        (504, Auth, "unrecognized", "refused auth | smtp 504"),
        (530, Sender, "5.7.0 Authentication required", "refused auth | smtp 530 5.7.0"),
        (550, Sender, "5.7.1 not your address", "refused rejected | smtp 550 5.7.1"),
        (554, Greeting, "5.7.1 no service", "later server_error account 0 | smtp 554 5.7.1"),
        (550, Recipient, "5.1.1 <ada@example.com> unknown user", "refused recipient_invalid | smtp 550 5.1.1"),
        (550, Recipient, "no such user", "refused recipient_invalid | smtp 550"),
        (551, Recipient, "user not local", "refused recipient_invalid | smtp 551"),
        (550, Recipient, "5.1.10 null MX", "refused recipient_invalid | smtp 550 5.1.10"),
        (550, Recipient, "5.2.1 disabled", "refused recipient_invalid | smtp 550 5.2.1"),
        (550, Recipient, "5.1.8 bad sender", "refused rejected | smtp 550 5.1.8"),
        (552, Recipient, "5.2.2 full", "refused quota_exceeded | smtp 552 5.2.2"),
        (550, Recipient, "5.7.1 relaying denied", "refused rejected | smtp 550 5.7.1"),
        (550, Copy, "5.1.1 unknown", "refused rejected | smtp 550 5.1.1, for a recipient in cc or bcc"),
        (554, Data, "5.5.1 no valid recipients", "refused rejected | smtp 554 5.5.1"),
        (552, Content, "5.3.4 message too big", "refused rejected | smtp 552 5.3.4"),
        (554, Content, "Message rejected: Email address is not verified.", "refused rejected | smtp 554"),
        (550, Content, "5.7.1 spam", "refused rejected | smtp 550 5.7.1"),
        (354, Content, "what?", "unknown server_error | smtp 354"),
        (250, Data, "what?", "later server_error account 0 | smtp 250"),
    ] {
        assert_eq!(judged(code, step, text), wanted, "{code} {step:?} {text}");
    }
}

/// Rows hold no personal data: whatever the relay says, only codes go on.
#[test]
fn no_address_goes_on() {
    for code in (200..600).step_by(7) {
        for step in [MailStep::Greeting, MailStep::Auth, MailStep::Sender, MailStep::Recipient, MailStep::Copy, MailStep::Content] {
            let said = judged(code, step, "5.1.1 <ada@example.com> Ada Lovelace");
            assert!(!said.contains("ada@") && !said.contains("Ada"), "{said}");
        }
    }
}
