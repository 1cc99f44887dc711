//! Contacts: a person as one account sees them.

use http::StatusCode;
use messaging::content::Handle;
use messaging::ids::{ContactId, ConversationId};
use messaging::log::Topic;
use messaging::record::Command;
use serde_json::json;

use super::Call;
use super::commands::{account, append};
use super::conversations::{self, addressed, contact_json};
use super::json::{Reader, parse_object};
use super::query::Query;
use crate::problem::Problem;
use crate::reply::{self, Reply};

/// Longest name of a contact, in characters.
const NAME_CHARS_MAX: usize = 256;

/// `GET /v1/contacts?account=&to=`: the contact behind an address; an empty list when the account never met it.
pub(super) async fn find(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["account", "to"])?;
    let (_, conversation, _) = addressed(call, &query)?;
    let found = conversations::states(call, [conversation]).await?;
    let data: Vec<_> = found.values().map(contact_json).collect();
    Ok(reply::json(StatusCode::OK, &json!({"data": data, "next_cursor": null})))
}

/// `PATCH /v1/conversations/{id}/contact`
pub(super) async fn change_of_conversation(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    apply(call, call.id()?).await
}

/// `PATCH /v1/contacts/{id}`. An id does not lead back to its address: the shard's pointer does, or `?account=&to=`, or
/// `?conversation=`, which are held against the id.
pub(super) async fn change(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["account", "to", "conversation"])?;
    let id: ContactId = call.id()?;
    let conversation = match query.id::<ConversationId>("conversation", ConversationId::PREFIX)? {
        Some(conversation) => conversation,
        None if query.get("to").is_some() => addressed(call, &query)?.1,
        None => conversations::of_contact(call, id).await?.ok_or_else(Problem::not_found)?,
    };
    let state = conversations::state(call, conversation).await?;
    if state.contact != id {
        return Err(Problem::not_found());
    }
    apply(call, conversation).await
}

async fn apply(call: &Call<'_>, conversation: ConversationId) -> Result<Reply, Problem> {
    let map = parse_object(&call.body)?;
    let mut reader = Reader::new(&map, "");
    let name = reader.text("name", NAME_CHARS_MAX).map(str::to_owned);
    let restricted = reader.flag("restricted");
    let opted_out = reader.flag("opted_out");
    reader.finish()?;
    let state = conversations::state(call, conversation).await?;
    let account = account(call, state.account)?;
    let to = state.handles.first().cloned().unwrap_or_else(Handle::account);
    let command = Command::Contact { to, name: name.clone(), restricted, opted_out };
    append(call, &account, state.id, &command, Topic::Outbound).await?;
    let mut changed = state;
    changed.name = name.or(changed.name);
    changed.restricted = restricted.unwrap_or(changed.restricted);
    changed.opted_out = opted_out.unwrap_or(changed.opted_out);
    Ok(reply::json(StatusCode::ACCEPTED, &contact_json(&changed)))
}
