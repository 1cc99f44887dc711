//! What is no message: statuses, calls, preferences, and notices about the account and its templates.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::content::part;
use super::outcome;
use super::parse::Telling;
use super::wire::{self, Call, Handover, Preference, StatusNews, Str};
use crate::channels::{Inbound, InboundBody, StatusUpdate};
use crate::event::EventType;
use crate::outcome::{Reason, Status};

#[derive(Deserialize)]
struct ErrorPart {
    code: i64,
    title: Option<String>,
    message: Option<String>,
}

impl ErrorPart {
    fn detail(&self) -> String {
        outcome::detail(self.code, self.title.as_deref().or(self.message.as_deref()).unwrap_or_default())
    }
}

pub(super) fn status(telling: &Telling<'_>, news: &StatusNews<'_>) -> Inbound {
    let word = news.status.as_deref().unwrap_or("unknown");
    // Several people of a group may each read one message.
    let participant = news.recipient_participant_id.as_ref().or(news.recipient_participant_user_id.as_ref());
    let qualifier = participant.map_or_else(|| word.to_owned(), |participant| format!("{word}/{}", &**participant));
    let of_call = &*telling.single.field == "calls";
    let subject = news.kind.as_deref().unwrap_or(if of_call { "call" } else { "message" });
    let known = if subject == "message" { status_of(word) } else { None };
    let body = match (known, &news.id) {
        (Some(status), Some(id)) => InboundBody::Status(update(news, id, status, word)),
        (None, _) | (_, None) => {
            let subject = if subject == "message" { "status" } else { subject };
            InboundBody::Platform { kind: format!("{subject}.{}", word.to_lowercase()), raw: telling.element() }
        }
    };
    telling.tell(news.id.as_ref(), qualifier, news.timestamp, body)
}

fn status_of(word: &str) -> Option<Status> {
    match word {
        "sent" => Some(Status::Sent),
        "delivered" => Some(Status::Delivered),
        "read" | "played" => Some(Status::Read),
        "failed" => Some(Status::Failed),
        _ => None,
    }
}

fn update(news: &StatusNews<'_>, id: &Str<'_>, status: Status, word: &str) -> StatusUpdate {
    let errors: Vec<ErrorPart> = part(news.errors).unwrap_or_default();
    let error = errors.first();
    let mut extra = Map::new();
    for (name, raw) in [("pricing", news.pricing), ("conversation", news.conversation)] {
        if let Some(value) = part::<Value>(raw) {
            extra.insert(name.into(), value);
        }
    }
    let unexplained = (status == Status::Failed).then_some(Reason::Rejected);
    StatusUpdate {
        message: id.to_string(),
        status,
        platform_status: word.to_owned(),
        reason: error.map(|error| outcome::reason(error.code)).or(unexplained),
        detail: error.map(ErrorPart::detail),
        callback: news.biz_opaque_callback_data.as_ref().map(|data| data.to_string()),
        extra,
    }
}

pub(super) fn call(telling: &Telling<'_>, call: &Call<'_>) -> Inbound {
    let event = call.event.as_deref().unwrap_or("unknown");
    let body = InboundBody::Platform { kind: format!("call.{event}"), raw: telling.element() };
    let mut inbound = telling.tell(call.id.as_ref(), event.to_owned(), call.timestamp, body);
    inbound.opens_window = event == "connect" && call.direction.as_deref() == Some("USER_INITIATED");
    inbound
}

pub(super) fn preference(telling: &Telling<'_>, wish: &Preference<'_>) -> Inbound {
    let opted_out = match wish.value.as_deref() {
        Some("stop") => Some(true),
        Some("resume") => Some(false),
        // A word that is not known must not opt anybody in again.
        _ => None,
    };
    let body = match opted_out {
        Some(opted_out) => {
            let category = wish.category.as_deref().unwrap_or_default().to_owned();
            InboundBody::Preference { opted_out, category }
        }
        None => InboundBody::Platform { kind: "user_preferences".into(), raw: telling.element() },
    };
    telling.tell(None, String::new(), wish.timestamp, body)
}

/// An error that belongs to no message: news of the account.
pub(super) fn stray_error(telling: &Telling<'_>, error: &RawValue) -> Inbound {
    let mut data = Map::new();
    data.insert("field".into(), "errors".into());
    if let Some(error) = part::<ErrorPart>(Some(error)) {
        data.insert("reason".into(), outcome::reason(error.code).name().into());
        data.insert("detail".into(), error.detail().into());
    }
    data.insert("value".into(), part(Some(error)).unwrap_or_default());
    telling.tell(None, String::new(), None, InboundBody::Account { event: EventType::AccountStateChanged, data })
}

pub(super) fn handover(telling: &Telling<'_>, handover: &Handover<'_>) -> Inbound {
    let body = InboundBody::Platform { kind: telling.single.field.to_string(), raw: telling.value() };
    telling.tell(None, String::new(), handover.timestamp, body)
}

/// A change that is one event as a whole.
pub(super) fn whole(telling: &Telling<'_>) -> Inbound {
    let field = &*telling.single.field;
    let raw = telling.value();
    let event = if wire::is_template_field(field) {
        Some(EventType::TemplateChanged)
    } else if wire::is_account_field(field) {
        Some(EventType::AccountStateChanged)
    } else {
        None
    };
    let body = match event {
        Some(event) => {
            let data = Map::from_iter([("field".to_owned(), Value::from(field)), ("value".to_owned(), raw)]);
            InboundBody::Account { event, data }
        }
        None => InboundBody::Platform { kind: field.to_owned(), raw },
    };
    telling.tell(None, String::new(), None, body)
}
