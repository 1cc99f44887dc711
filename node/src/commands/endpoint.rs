//! `trunkline endpoint`.

use serde_json::{Map, Value, json};

use super::{Context, Failure, resource};
use crate::args::{EndpointCommand, EndpointMembers};

const ENDPOINTS: &str = "/v1/endpoints";

/// Runs it.
pub async fn run(command: EndpointCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        EndpointCommand::List(args) => resource::list(ENDPOINTS, &["id", "url", "state", "events"], &args, context).await,
        EndpointCommand::Create { target, mut members } => {
            if members.events.is_empty() {
                members.events.push("*".to_owned());
            }
            resource::create(ENDPOINTS, body(Some(target), members), Some("secret"), context).await
        }
        EndpointCommand::Show(args) => resource::show(ENDPOINTS, &args.id, context).await,
        EndpointCommand::Set { id, target, members } => resource::change(ENDPOINTS, &id, body(target, members), context).await,
        EndpointCommand::Delete(args) => resource::delete(ENDPOINTS, &args.id, context).await,
        EndpointCommand::Test(args) => resource::act(ENDPOINTS, &args.id, "test", None, context).await,
        EndpointCommand::Pause(args) => resource::act(ENDPOINTS, &args.id, "pause", None, context).await,
        EndpointCommand::Retry(args) => resource::act(ENDPOINTS, &args.id, "retry", None, context).await,
        EndpointCommand::Resume(args) => resource::act(ENDPOINTS, &args.id, "resume", None, context).await,
        EndpointCommand::RotateSecret(args) => resource::act(ENDPOINTS, &args.id, "rotate-secret", Some("secret"), context).await,
    }
}

fn body(target: Option<String>, members: EndpointMembers) -> Map<String, Value> {
    let mut body = Map::new();
    for (name, value) in members.fields {
        // Numbers, booleans and objects as JSON; all else is text.
        let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
        body.insert(name, value);
    }
    if let Some(target) = target {
        body.insert("url".to_owned(), Value::String(target));
    }
    if !members.events.is_empty() {
        body.insert("events".to_owned(), json!(members.events));
    }
    if !members.accounts.is_empty() {
        body.insert("accounts".to_owned(), json!(members.accounts));
    }
    if !members.headers.is_empty() {
        let headers = members.headers.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        body.insert("headers".to_owned(), Value::Object(headers));
    }
    body
}
