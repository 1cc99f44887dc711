//! What is known of a conversation: its state from the store, its window, its contact.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use http::StatusCode;
use messaging::channels;
use messaging::clock::Timestamp;
use messaging::content::Handle;
use messaging::directory::Account;
use messaging::ids::{AccountId, ContactId, ConversationId};
use messaging::state::{Conversation, Pointer};
use messaging::store::{Key, StoreError};
use serde_json::{Map, Value, json};

use super::query::Query;
use super::{Call, away, damaged};
use crate::problem::Problem;
use crate::reply::{self, Reply};

/// Free text is refused this long before the window's end, as the router does at the socket.
pub(super) const WINDOW_MARGIN: Duration = Duration::from_secs(60);
/// Longest chain of other names that is followed.
const ALIASES_MAX: usize = 4;

/// States by the ids that were asked for. One that goes by another id now is given as that other one.
pub(super) type States = HashMap<ConversationId, Conversation, RandomState>;

/// Why states are not there.
#[derive(Debug)]
pub(super) enum StatesError {
    /// The store does not answer.
    Away(StoreError),
    /// A row or key that does not open.
    Damaged,
}

impl From<StatesError> for Problem {
    fn from(error: StatesError) -> Self {
        match error {
            StatesError::Away(error) => away(&error),
            StatesError::Damaged => damaged("conversation"),
        }
    }
}

/// Reads the states of conversations, in one read and one more per chain of aliases.
pub(super) async fn states(call: &Call<'_>, wanted: impl IntoIterator<Item = ConversationId>) -> Result<States, StatesError> {
    let tenant = call.tenant().id();
    let key = call.tenant_key().map_err(|_| StatesError::Damaged)?;
    let mut found = States::default();
    // Each: what was asked for, and where to look now.
    let mut looking: Vec<(ConversationId, ConversationId)> = wanted.into_iter().map(|id| (id, id)).collect();
    looking.sort_unstable();
    looking.dedup();
    for _ in 0..ALIASES_MAX {
        if looking.is_empty() {
            break;
        }
        let keys = looking.iter().map(|(_, id)| Key::Conversation(tenant, *id)).collect();
        let rows = call.shared().parts.store.read(keys).await.map_err(StatesError::Away)?;
        let mut next = Vec::new();
        for ((asked, id), row) in looking.into_iter().zip(rows) {
            let Some(row) = row else { continue };
            let state = Conversation::open(tenant, id, &key, &row).map_err(|_| StatesError::Damaged)?;
            match state.alias_of {
                Some(other) => next.push((asked, other)),
                None => drop(found.insert(asked, state)),
            }
        }
        looking = next;
    }
    Ok(found)
}

/// The state of one conversation; 404 when there is none.
pub(super) async fn state(call: &Call<'_>, id: ConversationId) -> Result<Conversation, Problem> {
    states(call, [id]).await?.remove(&id).ok_or_else(Problem::not_found)
}

/// The conversation of a contact, by the pointer that its shard keeps.
pub(super) async fn of_contact(call: &Call<'_>, contact: ContactId) -> Result<Option<ConversationId>, Problem> {
    let key = Key::Pointer(call.tenant().id(), contact.0);
    let rows = call.shared().parts.store.read(vec![key]).await.map_err(|error| away(&error))?;
    let Some(row) = rows.into_iter().next().flatten() else { return Ok(None) };
    let pointer = Pointer::decode(&row).map_err(|_| damaged("pointer"))?;
    Ok(pointer.message.map(|(conversation, _, _)| conversation))
}

/// The account and address of `?account=&to=`.
pub(super) fn addressed(call: &Call<'_>, query: &Query) -> Result<(Arc<Account>, ConversationId, messaging::content::Handle), Problem> {
    let id: AccountId = query.id("account", AccountId::PREFIX)?.ok_or_else(|| Problem::fault("?account", "is missing"))?;
    let directory = call.directory();
    let account = directory.account_of(call.tenant(), id).ok_or_else(Problem::not_found)?.clone();
    let to = query.require("to")?;
    let handle = channels::channel(account.channel).short_recipient(to).map_err(|fault| Problem::fault("?to", fault.detail))?;
    let conversation = call.shared().parts.keyring.ids().conversation(call.tenant().id(), id, handle.expose());
    Ok((account, conversation, handle))
}

/// Whether a window is open, as the router will judge it.
pub(super) fn is_open(now: Timestamp, until: Timestamp) -> bool {
    now.plus(WINDOW_MARGIN) <= until
}

/// A time in an answer; null for "never".
pub(super) fn time_or_null(at: Timestamp) -> Value {
    if at == Timestamp::ZERO { Value::Null } else { json!(at) }
}

/// The window of a conversation; `until` is `ZERO` when the person never wrote.
pub(super) fn window_json(call: &Call<'_>, account: AccountId, to: Option<&Handle>, until: Timestamp) -> Value {
    let directory = call.directory();
    let account = directory.account_of(call.tenant(), account);
    let rule = account.and_then(|account| {
        let settings = call.shared().parts.channels.get(&account.channel)?;
        let channel = channels::channel(account.channel);
        channel.window_for(settings, account, to.unwrap_or(&channel.nobody()))
    });
    let Some(rule) = rule else {
        return json!({"open": true, "expires_at": null, "otherwise": null});
    };
    json!({"open": is_open(call.now, until), "expires_at": time_or_null(until), "otherwise": rule.otherwise})
}

/// The contact of a conversation.
pub(super) fn contact_json(state: &Conversation) -> Value {
    let mut addresses = Map::new();
    for handle in state.handles.iter().filter(|handle| handle.scheme() != "account") {
        if let Value::Object(members) = channels::channel(state.channel).recipient_json(handle) {
            addresses.extend(members);
        }
    }
    json!({
        "id": state.contact,
        "account": state.account,
        "conversation": state.id,
        "name": state.name,
        "username": state.username,
        "addresses": addresses,
        "restricted": state.restricted,
        "opted_out": state.opted_out,
        "reachable": !state.unreachable,
    })
}

/// `GET /v1/conversations/{id}`
pub(super) async fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let state = state(call, call.id()?).await?;
    let body = json!({
        "id": state.id,
        "account": state.account,
        "channel": state.channel.name(),
        "contact": contact_json(&state),
        "window": window_json(call, state.account, state.handles.first(), state.window_until),
        "last_activity_at": time_or_null(state.active_at),
        "restricted": state.restricted,
        "opted_out": state.opted_out,
        "reachable": !state.unreachable,
    });
    Ok(reply::json(StatusCode::OK, &body))
}

/// `GET /v1/windows?account=&to=` or `?conversation=`
pub(super) async fn window(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["account", "to", "conversation"])?;
    let (account, conversation, to, until) = match query.id::<ConversationId>("conversation", ConversationId::PREFIX)? {
        Some(id) => {
            let state = state(call, id).await?;
            (state.account, state.id, state.handles.first().cloned(), state.window_until)
        }
        None => {
            let (account, id, to) = addressed(call, &query)?;
            let found = states(call, [id]).await?.remove(&id);
            let known = found.map_or((id, Timestamp::ZERO), |state| (state.id, state.window_until));
            (account.row.id, known.0, Some(to), known.1)
        }
    };
    let mut body = window_json(call, account, to.as_ref(), until);
    body["conversation"] = json!(conversation);
    Ok(reply::json(StatusCode::OK, &body))
}
