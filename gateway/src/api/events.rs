//! Events: what one says, and what kinds there are.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use http::StatusCode;
use messaging::event::EventType;
use messaging::ids::EventId;
use messaging::state::{EventData, EventRow, MessageRow, Pointer};
use messaging::store::Key;
use serde_json::json;

use super::conversations;
use super::query::Query;
use super::{Call, away, damaged};
use crate::problem::Problem;
use crate::reply::{self, Reply};

/// In the place of data that was withdrawn or erased.
const FORGOTTEN: &str = r#"{"forgotten":true}"#;

/// The texts of events, as subscribers get them. A few reads serve them all.
pub(super) async fn render(call: &Call<'_>, rows: &[EventRow]) -> Result<Vec<String>, Problem> {
    let tenant = call.tenant().id();
    let store = &call.shared().parts.store;
    // Where the content of messages is.
    let messages: Vec<_> = rows.iter().filter(|row| row.data == EventData::Message).filter_map(|row| row.event.message).collect();
    let pointers = store.read(messages.iter().map(|id| Key::Pointer(tenant, id.0)).collect()).await.map_err(|error| away(&error))?;
    let mut places = HashMap::<_, _, RandomState>::default();
    for (id, row) in messages.into_iter().zip(pointers) {
        let Some(row) = row else { continue };
        if let Some(place) = Pointer::decode(&row).map_err(|_| damaged("pointer"))?.message {
            places.insert(id, place);
        }
    }
    let keys: Vec<Key> = places.values().map(|(conversation, at, id)| Key::Message(tenant, *conversation, *at, *id)).collect();
    let contents = store.read(keys).await.map_err(|error| away(&error))?;
    let mut stored = HashMap::<_, _, RandomState>::default();
    for ((_, _, id), row) in places.values().zip(contents) {
        if let Some(row) = row {
            stored.insert(*id, MessageRow::decode(&row).map_err(|_| damaged("message"))?);
        }
    }
    let asked = rows.iter().filter_map(|row| row.event.conversation).chain(places.values().map(|(conversation, _, _)| *conversation));
    let states = conversations::states(call, asked).await?;

    let mut texts = Vec::with_capacity(rows.len());
    for row in rows {
        let key_of = |id| states.get(&id).map(|state| state.contact_key());
        let data = match &row.data {
            EventData::Plain(data) => Some(data.clone()),
            EventData::Sealed(sealed) => {
                row.event.conversation.and_then(key_of).and_then(|key| EventData::open(sealed, tenant, row.event.id, &key).ok())
            }
            EventData::Message => row.event.message.and_then(|id| {
                let (conversation, _, _) = places.get(&id)?;
                stored.get(&id)?.open_content(tenant, id, &key_of(*conversation)?).ok()?
            }),
        };
        // What does not open was erased with its key.
        let body = row.event.render(data.as_deref().unwrap_or(FORGOTTEN));
        texts.push(String::from_utf8(body.to_vec()).map_err(|_| damaged("event"))?);
    }
    Ok(texts)
}

/// `GET /v1/events/{id}`
pub(super) async fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: EventId = call.id()?;
    let tenant = call.tenant().id();
    let store = &call.shared().parts.store;
    let first = |rows: Vec<Option<Vec<u8>>>| rows.into_iter().next().flatten().ok_or_else(Problem::not_found);
    let pointer = first(store.read(vec![Key::Pointer(tenant, id.0)]).await.map_err(|error| away(&error))?)?;
    let place = Pointer::decode(&pointer).map_err(|_| damaged("pointer"))?.event.ok_or_else(Problem::not_found)?;
    let row = first(store.read(vec![Key::Event(tenant, place)]).await.map_err(|error| away(&error))?)?;
    let row = EventRow::decode(&row).map_err(|_| damaged("event"))?;
    let mut texts = render(call, std::slice::from_ref(&row)).await?;
    let text = texts.pop().ok_or_else(Problem::not_found)?;
    Ok(reply::json_text(StatusCode::OK, text))
}

/// `GET /v1/event-types`
pub(super) fn types() -> Result<Reply, Problem> {
    let entry = |kind: &EventType| json!({"type": kind.name(), "schema": format!("/v1/event-types/{}/schema", kind.name())});
    let data: Vec<_> = EventType::ALL.iter().map(entry).collect();
    Ok(reply::json(StatusCode::OK, &json!({"data": data, "next_cursor": null})))
}

/// `GET /v1/event-types/{name}/schema`
pub(super) fn schema(call: &Call<'_>) -> Result<Reply, Problem> {
    let kind = EventType::from_name(call.params[0]).ok_or_else(Problem::not_found)?;
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let body = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("/v1/event-types/{}/schema", kind.name()),
        "title": kind.name(),
        "type": "object",
        "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "tenant", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text("^evt_[a-z2-7]{26}$"),
            "source": text("^/accounts/acc_[a-z2-7]{26}$"),
            "type": {"const": kind.name()},
            "time": {"type": "string", "format": "date-time"},
            "subject": text("^cnv_[a-z2-7]{26}$"),
            "datacontenttype": {"const": "application/json"},
            "dataschema": {"type": "string"},
            "tenant": text("^ten_[a-z2-7]{26}$"),
            "data": {"type": "object"},
        },
    });
    Ok(reply::json(StatusCode::OK, &body))
}
