//! `trunkline healthcheck`.

use super::{Context, Failure};
use crate::args::HealthcheckArgs;

/// Asks the admin listener whether the node is ready.
pub async fn run(args: HealthcheckArgs, context: &mut Context) -> Result<(), Failure> {
    let answer = context.admin(args.admin.as_deref())?.get("/readyz?verbose").await?;
    let text = String::from_utf8_lossy(&answer.body);
    Ok(context.screen.line(if text.trim().is_empty() { "ready" } else { text.trim_end() })?)
}
