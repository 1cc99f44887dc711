//! `trunkline key`.

use serde_json::{Map, Value, json};

use super::{Context, Failure, resource};
use crate::args::KeyCommand;

const KEYS: &str = "/v1/keys";

/// Runs it.
pub async fn run(command: KeyCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        KeyCommand::List(args) => resource::list(KEYS, &["id", "name", "scopes", "created_at", "expires_at"], &args, context).await,
        KeyCommand::Create { name, scopes, tenant, expires_at } => {
            let mut body = Map::from_iter([("name".to_owned(), json!(name)), ("scopes".to_owned(), json!(scopes))]);
            for (member, value) in [("tenant", tenant), ("expires_at", expires_at)] {
                if let Some(value) = value {
                    body.insert(member.to_owned(), Value::String(value));
                }
            }
            resource::create(KEYS, body, Some("key"), context).await
        }
        KeyCommand::Delete(args) => resource::delete(KEYS, &args.id, context).await,
        KeyCommand::Rotate(args) => resource::act(KEYS, &args.id, "rotate", Some("key"), context).await,
    }
}
