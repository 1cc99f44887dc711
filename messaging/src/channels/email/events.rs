//! News of mails of ours from Mailgun and SendGrid: their event webhooks.

use serde_json::Value;

use super::bounce::{News, reason};
use super::send::REFERENCE_NAME;
use crate::channels::Inbound;
use crate::clock::Timestamp;
use crate::outcome::{Reason, Status};

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or("")
}

fn owned(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Seconds, whole or with a fraction.
fn seconds(value: &Value) -> Timestamp {
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds > 0.0).unwrap_or(0.0);
    // A float's cast saturates.
    Timestamp::from_millis((seconds * 1000.0).min(1e15) as u64)
}

/// Mailgun's `event-data`.
pub(super) fn mailgun(data: &Value) -> Option<Vec<Inbound>> {
    let word = text(data, "event");
    let delivery = &data["delivery-status"];
    let message = Some(text(delivery, "message")).filter(|text| !text.is_empty()).unwrap_or_else(|| text(delivery, "description"));
    let code = delivery["code"].as_u64().unwrap_or(0);
    let news = News {
        recipient: text(data, "recipient").to_owned(),
        mail: owned(text(&data["message"]["headers"], "message-id")),
        callback: owned(text(&data["user-variables"], REFERENCE_NAME)),
        id: text(data, "id").to_owned(),
        word: word.to_owned(),
        detail: owned(format!("{code} {message}").trim_start_matches("0 ").trim()),
        at: seconds(&data["timestamp"]),
        ..News::default()
    };
    let said = match word {
        "delivered" => news.status(Status::Delivered, None).into_iter().collect(),
        "failed" if text(data, "severity") == "temporary" => told(&news, data),
        "failed" => match text(data, "reason") {
            "bounce" | "suppress-bounce" => gone(&news),
            "suppress-complaint" | "suppress-unsubscribe" => news.status(Status::Failed, Some(Reason::OptedOut)).into_iter().collect(),
            _ => news.status(Status::Failed, Some(Reason::Rejected)).into_iter().collect(),
        },
        "rejected" => news.status(Status::Failed, Some(Reason::Rejected)).into_iter().collect(),
        "complained" => news.complaint(),
        "unsubscribed" => news.preference(true).into_iter().collect(),
        _ => told(&news, data),
    };
    Some(said)
}

/// One of SendGrid's events.
pub(super) fn sendgrid(event: &Value) -> Option<Vec<Inbound>> {
    let word = text(event, "event");
    let why = text(event, "reason");
    let news = News {
        recipient: text(event, "email").to_owned(),
        mail: owned(text(event, "smtp-id")),
        callback: owned(text(event, REFERENCE_NAME)),
        id: text(event, "sg_event_id").to_owned(),
        word: word.to_owned(),
        detail: owned(format!("{} {why}", text(event, "status")).trim()),
        at: seconds(&event["timestamp"]),
        ..News::default()
    };
    let said = match word {
        "delivered" => news.status(Status::Delivered, None).into_iter().collect(),
        // Blocked: the relay or its content was refused, not the address.
        "bounce" if text(event, "type") == "blocked" => {
            news.status(Status::Failed, Some(reason(text(event, "status")))).into_iter().collect()
        }
        "bounce" => gone(&news),
        "dropped" => match why {
            "Bounced Address" | "Invalid" => gone(&news),
            "Spam Reporting Address" | "Unsubscribed Address" => news.status(Status::Failed, Some(Reason::OptedOut)).into_iter().collect(),
            _ => news.status(Status::Failed, Some(Reason::Rejected)).into_iter().collect(),
        },
        "spamreport" => news.complaint(),
        "unsubscribe" | "group_unsubscribe" => news.preference(true).into_iter().collect(),
        "group_resubscribe" => news.preference(false).into_iter().collect(),
        _ => told(&news, event),
    };
    Some(said)
}

/// Postmark's news; none when the JSON is none.
pub(super) fn postmark(record: &Value) -> Option<Vec<Inbound>> {
    let kind = text(record, "RecordType");
    let recipient = owned(text(record, "Email")).unwrap_or_else(|| text(record, "Recipient").to_owned());
    let at = ["BouncedAt", "DeliveredAt", "ChangedAt", "ReceivedAt"].into_iter().find_map(|name| super::date(text(record, name)));
    let bounce = text(record, "Type");
    let news = News {
        recipient,
        mail: owned(text(record, "MessageID")),
        callback: owned(text(&record["Metadata"], REFERENCE_NAME)),
        id: format!("{}{}", text(record, "MessageID"), record["ID"].as_i64().map(|id| format!(" {id}")).unwrap_or_default()),
        word: if bounce.is_empty() { kind.to_owned() } else { bounce.to_owned() },
        detail: owned(text(record, "Details")).or_else(|| owned(text(record, "Description"))),
        at: at.unwrap_or(Timestamp::ZERO),
        ..News::default()
    };
    let said = match kind {
        "Delivery" => news.status(Status::Delivered, None).into_iter().collect(),
        "SpamComplaint" => news.complaint(),
        "Bounce" => match bounce {
            "SpamComplaint" | "SpamNotification" => news.complaint(),
            "HardBounce" | "BadEmailAddress" => gone(&news),
            "ManuallyDeactivated" | "Unsubscribe" => news.preference(true).into_iter().collect(),
            // Told by the receiver's machine; the mail may have arrived.
            "AutoResponder" | "AddressChange" | "Transient" | "Subscribe" | "OpenRelayTest" | "ChallengeVerification" => {
                told(&news, record)
            }
            _ => news.status(Status::Failed, Some(Reason::Rejected)).into_iter().collect(),
        },
        "SubscriptionChange" => news.preference(record["SuppressSending"].as_bool().unwrap_or(true)).into_iter().collect(),
        _ => told(&news, record),
    };
    Some(said)
}

fn gone(news: &News) -> Vec<Inbound> {
    [news.status(Status::Failed, Some(Reason::RecipientInvalid)), news.gone()].into_iter().flatten().collect()
}

fn told(news: &News, raw: &Value) -> Vec<Inbound> {
    news.told(raw.clone()).into_iter().collect()
}
