//! Messages as they stand: one, and a conversation's list.

use http::StatusCode;
use messaging::channels;
use messaging::clock::Timestamp;
use messaging::ids::{ConversationId, MessageId};
use messaging::record::SendCommand;
use messaging::state::{Conversation, Direction, MessageMeta, MessageRow, Pointer};
use messaging::store::{Key, Scan};
use serde_json::{Map, Value, json};
use std::time::Duration;

use super::conversations;
use super::cursor;
use super::query::Query;
use super::recent::Accepted;
use super::{Call, away, damaged};
use crate::problem::Problem;
use crate::reply::{self, Reply};

/// Messages of one time whose ids a cursor remembers: more than a batch can make.
const SAME_TIME_MAX: usize = 64;

/// A message that was found.
pub(super) enum Located {
    /// Its row.
    Row { conversation: ConversationId, row: MessageRow, meta: Box<MessageMeta> },
    /// Accepted by this process a moment ago; its shard has not taken it up yet.
    Accepted(Accepted),
}

/// Finds a message of the caller's tenant.
pub(super) async fn locate(call: &Call<'_>, id: MessageId) -> Result<Located, Problem> {
    let tenant = call.tenant().id();
    let store = &call.shared().parts.store;
    let recent = call.shared().recent.find(tenant, id);
    let rows = match store.read(vec![Key::Pointer(tenant, id.0)]).await {
        Ok(rows) => rows,
        Err(error) => return recent.map(Located::Accepted).ok_or_else(|| away(&error)),
    };
    let Some(row) = rows.into_iter().next().flatten() else {
        return recent.map(Located::Accepted).ok_or_else(Problem::not_found);
    };
    let pointer = Pointer::decode(&row).map_err(|_| damaged("pointer"))?;
    let Some((conversation, at, message)) = pointer.message.filter(|(_, _, message)| *message == id) else {
        return Err(Problem::not_found());
    };
    let rows = store.read(vec![Key::Message(tenant, conversation, at, message)]).await.map_err(|error| away(&error))?;
    let Some(row) = rows.into_iter().next().flatten() else { return Err(Problem::not_found()) };
    let row = MessageRow::decode(&row).map_err(|_| damaged("message"))?;
    let meta = row.open_meta(tenant, id, &call.tenant_key()?).map_err(|_| damaged("message"))?;
    Ok(Located::Row { conversation, row, meta: Box::new(meta) })
}

/// `GET /v1/messages/{id}`
pub(super) async fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: MessageId = call.id()?;
    let body = match locate(call, id).await? {
        Located::Accepted(accepted) => json!({
            "id": id,
            "direction": "out",
            "status": "accepted",
            "account": accepted.account,
            "conversation": accepted.conversation,
            "accepted_at": accepted.accepted_at,
            "possible_duplicate": false,
            "reason": null,
            "history": [{"at": accepted.accepted_at, "status": "accepted", "reason": null, "attempt": 0}],
        }),
        Located::Row { conversation, row, meta } => {
            let states = conversations::states(call, [conversation]).await?;
            show(call, id, conversation, &row, &meta, states.get(&conversation))?
        }
    };
    Ok(reply::json(StatusCode::OK, &body))
}

/// `GET /v1/messages?conversation=`: newest first.
pub(super) async fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["conversation", "limit", "cursor"])?;
    query.require("conversation")?;
    let limit = query.limit()?;
    let Some(asked) = query.id::<ConversationId>("conversation", ConversationId::PREFIX)? else { return Err(Problem::not_found()) };
    let about = asked.to_string();
    // Several messages may have one time, and a scan starts strictly before a time: the cursor names those that were shown.
    let (before, shown): (Timestamp, Vec<MessageId>) = match query.get("cursor") {
        Some(text) => cursor::open(call, &about, "cursor", text, Some(cursor::VALID_FOR))?,
        None => (Timestamp::MAX, Vec::new()),
    };
    let state = conversations::state(call, asked).await?;
    let tenant = call.tenant().id();
    let scan = Scan::Messages(tenant, state.id, before.plus(Duration::from_micros(1)));
    let found = call.shared().parts.store.scan(scan, limit + 1 + shown.len()).await.map_err(|error| away(&error))?;
    let key = call.tenant_key()?;
    let mut data = Vec::new();
    let mut places: Vec<(Timestamp, MessageId)> = Vec::new();
    let mut has_more = false;
    for (row_key, bytes) in found {
        let Key::Message(_, _, at, id) = row_key else { continue };
        if at == before && shown.contains(&id) {
            continue;
        }
        if data.len() == limit {
            has_more = true;
            break;
        }
        let row = MessageRow::decode(&bytes).map_err(|_| damaged("message"))?;
        let meta = row.open_meta(tenant, id, &key).map_err(|_| damaged("message"))?;
        data.push(show(call, id, state.id, &row, &meta, Some(&state))?);
        places.push((at, id));
    }
    let next = places.last().filter(|_| has_more).map(|(last, _)| {
        let carried = shown.iter().filter(|_| *last == before).copied();
        let same: Vec<MessageId> =
            places.iter().filter(|(at, _)| at == last).map(|(_, id)| *id).chain(carried).take(SAME_TIME_MAX).collect();
        cursor::seal(call, &about, &(*last, same))
    });
    Ok(cursor::page(call, data, next))
}

/// A message in the public shape. Without the conversation's state its content cannot be opened, and is left out.
fn show(
    call: &Call<'_>,
    id: MessageId,
    conversation: ConversationId,
    row: &MessageRow,
    meta: &MessageMeta,
    state: Option<&Conversation>,
) -> Result<Value, Problem> {
    let history: Vec<Value> = meta
        .history
        .iter()
        .map(|step| json!({"at": step.at, "status": step.status, "reason": step.reason, "detail": step.detail, "attempt": step.attempt}))
        .collect();
    let direction = match meta.direction {
        Direction::In => "in",
        Direction::Out => "out",
        Direction::Echo => "echo",
    };
    let mut body = json!({
        "id": id,
        "direction": direction,
        "status": meta.status,
        "account": meta.account,
        "conversation": conversation,
        "type": meta.kind,
        "platform_id": meta.platform_id,
        "possible_duplicate": meta.possible_duplicate,
        "reason": meta.reason,
        "accepted_at": meta.accepted_at,
        "history": history,
    });
    let Some(state) = state else { return Ok(body) };
    if let Some(to) = &meta.to {
        body["to"] = channels::channel(state.channel).recipient_json(to);
    }
    let content = row.open_content(call.tenant().id(), id, &state.contact_key()).map_err(|_| damaged("message content"))?;
    match (content, meta.direction) {
        (None, _) => body["withdrawn"] = true.into(),
        (Some(content), Direction::Out) => merge(&mut body, sent(&content)?),
        (Some(content), Direction::In | Direction::Echo) => merge(&mut body, received(&content)?),
    }
    Ok(body)
}

/// Adds members that are not there yet.
fn merge(body: &mut Value, members: Map<String, Value>) {
    if let Value::Object(map) = body {
        for (name, value) in members {
            map.entry(name).or_insert(value);
        }
    }
}

/// What a merchant asked for, from the stored command.
fn sent(content: &str) -> Result<Map<String, Value>, Problem> {
    let command: SendCommand = serde_json::from_str(content).map_err(|_| damaged("send command"))?;
    let members = format!("{{{}}}", command.content.members());
    let mut map: Map<String, Value> = serde_json::from_str(&members).map_err(|_| damaged("send command"))?;
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(name.to_owned(), value);
        }
    };
    put("reply_to", command.reply_to.map(|id| json!(id)));
    put("fallback", command.fallback.map(|template| json!({"template": template})));
    put("expires_at", command.expires_at.map(|at| json!(at)));
    put("send_at", command.not_before.map(|at| json!(at)));
    put("callback_data", command.callback_data.map(Value::String));
    put("metadata", command.metadata);
    Ok(map)
}

/// What a person wrote, from the event's data.
fn received(content: &str) -> Result<Map<String, Value>, Problem> {
    let Ok(Value::Object(mut data)) = serde_json::from_str::<Value>(content) else { return Err(damaged("message content")) };
    let mut map = match data.remove("message") {
        Some(Value::Object(message)) => message,
        Some(_) | None => Map::new(),
    };
    if let Some(contact) = data.remove("contact") {
        map.insert("from".to_owned(), contact);
    }
    Ok(map)
}
