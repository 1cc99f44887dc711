//! What a merchant may ask of a message or conversation beside a send. Everything goes over the log to the shard that owns
//! the conversation.

use std::sync::Arc;

use http::StatusCode;
use messaging::content::{Content, Receipt};
use messaging::directory::Account;
use messaging::ids::{AccountId, ConversationId, MessageId, random10};
use messaging::log::Topic;
use messaging::outcome::Status;
use messaging::record::{Command, SendCommand};
use serde_json::json;

use super::json::{Reader, parse_optional_object};
use super::messages::{Located, locate};
use super::query::Query;
use super::{Call, conversations, judge, not_appended, send};
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

/// Appends a command and waits until it is durable.
pub(super) async fn append(
    call: &Call<'_>,
    account: &Account,
    conversation: ConversationId,
    command: &Command,
    topic: Topic,
) -> Result<(), Problem> {
    let record = send::record(call, account, conversation, command, topic, call.now);
    call.worker.appends.append([record]).await.map_err(not_appended)
}

/// An account of the caller's, by id from a row.
pub(super) fn account(call: &Call<'_>, id: AccountId) -> Result<Arc<Account>, Problem> {
    call.directory().account_of(call.tenant(), id).cloned().ok_or_else(Problem::not_found)
}

/// `DELETE /v1/messages/{id}`: takes it back while it waits.
pub(super) async fn cancel(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: MessageId = call.id()?;
    let (owner, conversation, status, topic) = match locate(call, id).await? {
        // On the same topic, so that it comes behind the message.
        Located::Accepted(accepted) => (accepted.account, accepted.conversation, Status::Accepted, accepted.class.topic()),
        Located::Row { conversation, meta, .. } => (meta.account, conversation, meta.status, Topic::Outbound),
    };
    match status {
        Status::Accepted | Status::Queued => {}
        Status::Cancelled => return Ok(reply::json(StatusCode::OK, &json!({"id": id, "status": status}))),
        Status::Sending | Status::Unknown | Status::Sent | Status::Delivered | Status::Read | Status::Failed | Status::Expired => {
            return Err(Problem::new(Code::AlreadySent, format!("the message is {}", status.name())).with("message_status", status.name()));
        }
    }
    let account = account(call, owner)?;
    append(call, &account, conversation, &Command::Cancel { message: id }, topic).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &json!({"id": id, "status": status, "requested": "cancel"})))
}

/// `POST /v1/messages/{id}/resend`: the tenant's word for a message of unknown fate.
pub(super) async fn resend(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    Reader::new(&parse_optional_object(&call.body)?, "").finish()?;
    let id: MessageId = call.id()?;
    let (owner, conversation, status) = match locate(call, id).await? {
        Located::Accepted(accepted) => (accepted.account, accepted.conversation, Status::Accepted),
        Located::Row { conversation, meta, .. } => (meta.account, conversation, meta.status),
    };
    if status != Status::Unknown {
        let detail = format!("the message is {}; only one of unknown fate can be sent again", status.name());
        return Err(Problem::new(Code::AlreadySent, detail).with("message_status", status.name()));
    }
    let account = account(call, owner)?;
    append(call, &account, conversation, &Command::Resend { message: id }, Topic::Outbound).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &json!({"id": id, "status": status, "requested": "resend"})))
}

/// Which receipt.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReceiptKind {
    Read,
    Typing,
}

/// `POST /v1/conversations/{id}/read` and `/typing`
pub(super) async fn receipt(call: &Call<'_>, kind: ReceiptKind) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let map = parse_optional_object(&call.body)?;
    let mut reader = Reader::new(&map, "");
    let about: Option<MessageId> = reader.id("message", MessageId::PREFIX);
    reader.finish()?;
    let state = conversations::state(call, call.id()?).await?;
    let account = account(call, state.account)?;
    judge::account_works(call, &account)?;
    let to = state.handles.first().cloned().ok_or_else(|| Problem::new(Code::RecipientInvalid, "this conversation is with nobody"))?;
    let receipt = Receipt { message: about.map(|id| id.to_string()), platform_id: None };
    let content = match kind {
        ReceiptKind::Read => Content::Read(receipt),
        ReceiptKind::Typing => Content::Typing(receipt),
    };
    let faults = messaging::channels::channel(account.channel).check(&content, &to);
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let message = MessageId::draw(call.now, random10());
    let command = SendCommand::plain(message, to, content);
    append(call, &account, state.id, &Command::Send(Box::new(command)), Topic::Outbound).await?;
    let body = json!({"id": message, "status": "accepted", "conversation": state.id, "accepted_at": call.now});
    Ok(reply::json(StatusCode::ACCEPTED, &body))
}
