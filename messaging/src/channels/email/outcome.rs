//! What a relay's answers mean, by where they came and their codes (RFC 5321, RFC 3463).

use std::time::Duration;

use super::address::{mail_id, own_mail_id};
use super::bounce::reason;
use crate::channels::Outgoing;
use crate::exchange::{MailReply, MailStep};
use crate::outcome::{Reason, Throttled, Verdict};

/// How long a relay is left alone that asked for it without saying how long.
const PAUSE: Duration = Duration::from_secs(30);
/// Bytes of an id of SES's: 16 of time, a UUID, 6 digits, with dashes between.
const SES_ID_BYTES: usize = 16 + 1 + 36 + 1 + 6;

pub(super) fn mail_outcome(send: &Outgoing<'_>, from: &str, reply: &MailReply) -> Verdict {
    let code = enhanced(&reply.text);
    // The text may name the recipient: only codes go on.
    let detail = format!("smtp {} {code}", reply.code).trim_end().to_owned();
    match reply.code {
        200..=299 if reply.after_data => {
            let id = ses_id(&reply.text).or_else(|| mail_id(&own_mail_id(send.message, from)));
            Verdict::Sent { platform_id: id, handles: Vec::new() }
        }
        400..=499 => later(reply, code, detail),
        500..=599 => refused(reply, code, detail),
        _ if reply.after_data => Verdict::Unknown { reason: Reason::ServerError, detail },
        _ => Verdict::RetryLater { reason: Reason::ServerError, hold: Throttled::Account, after: None, detail },
    }
}

fn later(reply: &MailReply, code: &str, detail: String) -> Verdict {
    let slow = |hold, after| Verdict::RetryLater { reason: Reason::RateLimited, hold, after, detail: detail.clone() };
    // Throttled: the service as a whole (421), or SES's rate (454 4.7.0 "Throttling failure" at any step).
    if reply.code == 421 || (reply.code == 454 && reply.step != MailStep::Auth) {
        return slow(Throttled::Account, Some(PAUSE));
    }
    match reply.step {
        // Greylisted, full, or busy: this mail only, and no fault of the relay.
        MailStep::Recipient | MailStep::Copy | MailStep::Content | MailStep::Data => slow(Throttled::Conversation, None),
        MailStep::Sender if code.starts_with("4.7") => slow(Throttled::Account, Some(PAUSE)),
        MailStep::Greeting | MailStep::Auth | MailStep::Sender => {
            Verdict::RetryLater { reason: Reason::ServerError, hold: Throttled::Account, after: None, detail }
        }
    }
}

fn refused(reply: &MailReply, code: &str, detail: String) -> Verdict {
    if matches!(reply.code, 530 | 534 | 535 | 538) || reply.step == MailStep::Auth {
        return Verdict::Refused { reason: Reason::Auth, detail };
    }
    match reply.step {
        // It takes nobody's mail now; that is no word about this one.
        MailStep::Greeting => Verdict::RetryLater { reason: Reason::ServerError, hold: Throttled::Account, after: None, detail },
        MailStep::Recipient if code.is_empty() && matches!(reply.code, 550 | 551 | 553) => {
            Verdict::Refused { reason: Reason::RecipientInvalid, detail }
        }
        MailStep::Recipient | MailStep::Content | MailStep::Data => Verdict::Refused { reason: permanent(code), detail },
        MailStep::Auth | MailStep::Sender => Verdict::Refused { reason: Reason::Rejected, detail },
        MailStep::Copy => Verdict::Refused { reason: Reason::Rejected, detail: format!("{detail}, for a recipient in cc or bcc") },
    }
}

fn permanent(code: &str) -> Reason {
    // 5.1.7 and 5.1.8 are about the sender's address.
    if matches!(code, "5.1.7" | "5.1.8") { Reason::Rejected } else { reason(code) }
}

/// The enhanced status code that a text begins with (`5.1.1 …`, on SES also `Ok 5.1.1`); empty: none.
fn enhanced(text: &str) -> &str {
    let first = text.split_whitespace().next().unwrap_or("");
    let mut parts = first.split('.');
    let class = matches!(parts.next(), Some("2" | "4" | "5"));
    let number =
        |part: Option<&str>| part.is_some_and(|part| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()));
    let whole = class && number(parts.next()) && number(parts.next()) && parts.next().is_none();
    if whole { first } else { "" }
}

/// SES writes its own `Message-ID` over ours and names it in its answer: replies and notices bear that one.
fn ses_id(text: &str) -> Option<String> {
    let fits = |word: &&str| {
        word.len() == SES_ID_BYTES
            && word.bytes().enumerate().all(|(at, byte)| match at {
                16 | 25 | 30 | 35 | 40 | 53 => byte == b'-',
                54.. => byte.is_ascii_digit(),
                _ => byte.is_ascii_hexdigit(),
            })
    };
    text.split_whitespace().find(fits).map(str::to_owned)
}
