//! `trunkline tenant`.

use serde_json::{Map, Value};

use super::{Context, Failure, resource};
use crate::args::TenantCommand;

const TENANTS: &str = "/v1/tenants";

/// Runs it.
pub async fn run(command: TenantCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        TenantCommand::List(args) => resource::list(TENANTS, &["id", "name", "created_at"], &args, context).await,
        TenantCommand::Create { name } => {
            resource::create(TENANTS, Map::from_iter([("name".to_owned(), Value::String(name))]), Some("key"), context).await
        }
        TenantCommand::Show(args) => resource::show(TENANTS, &args.id, context).await,
        TenantCommand::Delete(args) => resource::delete(TENANTS, &args.id, context).await,
    }
}
