//! `trunkline dlq`.

use serde_json::Value;

use super::{Context, Failure, resource};
use crate::args::{DeadLetterArgs, DlqCommand};
use crate::client::CallError;

const DEAD_LETTERS: &str = "/v1/dead-letters";

/// Runs it.
pub async fn run(command: DlqCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        DlqCommand::List(args) => resource::list(DEAD_LETTERS, &["tenant", "id", "channel", "kind", "reason", "at"], &args, context).await,
        DlqCommand::Show(DeadLetterArgs { tenant, id }) => resource::show(&of_tenant(&tenant), &id, context).await,
        DlqCommand::Requeue { tenant: Some(tenant), id: Some(id), .. } => {
            resource::act(&of_tenant(&tenant), &id, "requeue", None, context).await
        }
        DlqCommand::Requeue { reason, .. } => requeue_all(reason.as_deref(), context).await,
        DlqCommand::Drop(DeadLetterArgs { tenant, id }) => resource::delete(&of_tenant(&tenant), &id, context).await,
    }
}

fn of_tenant(tenant: &str) -> String {
    resource::path(DEAD_LETTERS, tenant)
}

/// Requeues what is listed now. One that is refused is named and does not keep the others.
async fn requeue_all(reason: Option<&str>, context: &mut Context) -> Result<(), Failure> {
    let client = context.client()?;
    let rows = resource::rows(&client, DEAD_LETTERS, None).await?;
    let wanted = |row: &&Value| reason.is_none_or(|reason| row["reason"] == reason);
    let (mut requeued, mut refused) = (0, 0);
    for row in rows.iter().filter(wanted) {
        let (tenant, id) = (row["tenant"].as_str().unwrap_or(""), row["id"].as_str().unwrap_or(""));
        match client.post(&format!("{}/requeue", resource::path(&of_tenant(tenant), id)), None).await {
            Ok(_) => requeued += 1,
            Err(CallError::Refused(problem)) => {
                refused += 1;
                context.screen.note(&format!("{id}: {}", problem.detail));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if context.screen.json {
        context.screen.pretty(&serde_json::json!({"requeued": requeued, "refused": refused}))?;
    } else {
        context.screen.line(&format!("requeued {requeued}, refused {refused}"))?;
    }
    if refused == 0 { Ok(()) } else { Err(Failure::Failed(format!("{refused} were refused"))) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::fake::{Fake, Reply, Seen};
    use super::*;
    use crate::args::{Cli, Command};

    const LISTED: &str = r#"{"data":[
        {"tenant":"ten_1","id":"qua_1","channel":"whatsapp","kind":"inbound","reason":"unknown_owner","at":"2026-11-22T15:04:05Z"},
        {"tenant":"ten_2","id":"qua_2","channel":"whatsapp","kind":"unparsable","reason":"unparsable","at":"2026-11-22T15:04:06Z"}],
        "next_cursor":null}"#;

    async fn dlq(line: &[&str]) -> (Result<(), Failure>, Seen, Vec<String>) {
        let fake = Fake::start(|asked| match asked.target.as_str() {
            "/v1/dead-letters/ten_2/qua_2/requeue" => {
                Reply::json(422, r#"{"code":"validation-failed","title":"t","detail":"there is nothing to work on"}"#)
            }
            target if target.ends_with("/requeue") => Reply::json(202, r#"{"status":"requeued"}"#),
            _ => Reply::json(200, LISTED),
        })
        .await;
        let cli = Cli::parse_from(["trunkline", "dlq"].iter().chain(line));
        let Some(Command::Dlq(command)) = cli.command else { panic!("{line:?}") };
        let seen = Seen::default();
        let done = run(command, &mut seen.context(&fake.url, false, cli.json)).await;
        let asked = fake.requests().iter().map(|asked| format!("{} {}", asked.method, asked.target)).collect();
        (done, seen, asked)
    }

    #[tokio::test]
    async fn one_or_all_or_those_of_a_reason_are_requeued() {
        let list = "GET /v1/dead-letters?limit=500";
        let (first, second) = ("POST /v1/dead-letters/ten_1/qua_1/requeue", "POST /v1/dead-letters/ten_2/qua_2/requeue");
        let cases: [(&[&str], &[&str], &str, u8); 3] = [
            (&["requeue", "ten_1", "qua_1"], &[first], "status  requeued\n", 0),
            (&["requeue", "--all", "--reason", "unknown_owner"], &[list, first], "requeued 1, refused 0\n", 0),
            (&["requeue", "--all"], &[list, first, second], "requeued 1, refused 1\n", 1),
        ];
        for (line, expected, out, code) in cases {
            let (done, seen, asked) = dlq(line).await;
            assert_eq!(asked, expected, "{line:?}");
            assert_eq!(seen.out(), out, "{line:?}");
            assert_eq!(done.as_ref().map_or_else(Failure::code, |()| 0), code, "{line:?}");
            assert_eq!(seen.err().contains("qua_2: there is nothing to work on"), code == 1, "{line:?}");
        }
        for wrong in [&["requeue"][..], &["requeue", "ten_1"], &["requeue", "--all", "ten_1", "qua_1"]] {
            assert!(Cli::try_parse_from(["trunkline", "dlq"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}
