//! `trunkline account`. Secrets come from files and variables rather than from arguments.

use serde_json::{Map, Value};

use super::{Context, Failure, resource};
use crate::args::{AccountCommand, AccountMembers};

/// Where accounts are.
pub const ACCOUNTS: &str = "/v1/accounts";

/// Runs it.
pub async fn run(command: AccountCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        AccountCommand::List(args) => resource::list(ACCOUNTS, &["id", "channel", "name", "state"], &args, context).await,
        AccountCommand::Create { channel, name, members } => {
            let mut body = body(members, context)?;
            body.insert("channel".to_owned(), Value::String(channel));
            body.insert("name".to_owned(), Value::String(name));
            resource::create(ACCOUNTS, body, None, context).await
        }
        AccountCommand::Show(args) => resource::show(ACCOUNTS, &args.id, context).await,
        AccountCommand::Set { id, name, members } => {
            let mut body = body(members, context)?;
            if let Some(name) = name {
                body.insert("name".to_owned(), Value::String(name));
            }
            resource::change(ACCOUNTS, &id, body, context).await
        }
        AccountCommand::Delete(args) => resource::delete(ACCOUNTS, &args.id, context).await,
        AccountCommand::Check(args) => resource::act(ACCOUNTS, &args.id, "check", None, context).await,
        AccountCommand::Pause(args) => resource::act(ACCOUNTS, &args.id, "pause", None, context).await,
        AccountCommand::Resume(args) => resource::act(ACCOUNTS, &args.id, "resume", None, context).await,
        AccountCommand::RevokePrevious(args) => resource::act(ACCOUNTS, &args.id, "revoke-previous", None, context).await,
    }
}

fn body(members: AccountMembers, context: &mut Context) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    // Ids of platforms look like numbers and are texts.
    let mut put = |name: String, value: String| match body.insert(name.clone(), Value::String(value)) {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(format!("`{name}` is given twice"))),
    };
    if let Some(api_base) = members.api_base {
        put("api_base".to_owned(), api_base)?;
    }
    for (name, value) in members.fields {
        put(name, value)?;
    }
    for (name, path) in members.secret_file {
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::Usage(format!("cannot read {path} for {name}: {error}")))?;
        put(name, text.trim_end_matches(['\r', '\n']).to_owned())?;
    }
    for (name, variable) in members.secret_env {
        let value = std::env::var(&variable).map_err(|_| Failure::Usage(format!("{variable} for {name} is not set in the environment")))?;
        put(name, value)?;
    }
    if !members.secret.is_empty() {
        context.screen.note("note: other users of this machine can see secrets in arguments; --secret-file and --secret-env hide them");
    }
    for (name, value) in members.secret {
        put(name, value)?;
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::super::fake::{Fake, Reply, Seen};
    use super::*;
    use crate::args::{Cli, Command};

    async fn run_line(line: &str, fake: &Fake, seen: &Seen) -> Result<(), u8> {
        let cli = Cli::parse_from(std::iter::once("trunkline").chain(line.split_whitespace()));
        let Some(Command::Account(command)) = cli.command else { panic!("{line}") };
        run(command, &mut seen.context(&fake.url, false, cli.json)).await.map_err(|failure| failure.code())
    }

    #[tokio::test]
    async fn secrets_come_from_files_and_arguments_warn() {
        let fake = Fake::start(|_| Reply::json(201, r#"{"id":"acc_1","hook_url":"http://h"}"#)).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let create =
            format!("account create --channel whatsapp --name n --field phone_number_id=1 --secret-file access_token={}", file.display());
        let body = json!({"channel": "whatsapp", "name": "n", "phone_number_id": "1", "access_token": "s3cret"});

        let seen = Seen::default();
        run_line(&create, &fake, &seen).await.unwrap();
        assert_eq!(fake.requests().pop().unwrap().json(), body);
        assert!(seen.out().contains("hook_url  http://h\n") && seen.out().contains("id        acc_1\n"), "{}", seen.out());
        assert_eq!(seen.err(), "");

        let seen = Seen::default();
        run_line("account set acc_1 --secret app_secret=x", &fake, &seen).await.unwrap();
        let request = fake.requests().pop().unwrap();
        assert_eq!(
            (request.method.as_str(), request.target.as_str(), request.json()),
            ("PATCH", "/v1/accounts/acc_1", json!({"app_secret": "x"}))
        );
        assert!(seen.err().contains("--secret-file"));

        let before = fake.requests().len();
        for wrong in
            ["account set acc_1", "account set a --field x=1 --field x=2", "account set a --secret-env x=TRUNKLINE_NOT_SET_ANYWHERE"]
        {
            assert_eq!(run_line(wrong, &fake, &Seen::default()).await, Err(2), "{wrong}");
        }
        assert_eq!(fake.requests().len(), before, "wrong usage asks nothing");
    }

    #[tokio::test]
    async fn lists_go_through_all_pages() {
        let fake = Fake::start(|asked| match asked.target.contains("cursor=a%2F1") {
            false => Reply::json(200, r#"{"data":[{"id":"acc_1","channel":"whatsapp"}],"next_cursor":"a/1"}"#),
            true => Reply::json(200, r#"{"data":[{"id":"acc_2","channel":"telegram"}],"next_cursor":null}"#),
        })
        .await;
        let cases = [("account list", "acc_2  telegram"), ("account list --json", r#""id": "acc_2""#), ("account list --limit 1", "acc_1")];
        for (line, expected) in cases {
            let seen = Seen::default();
            run_line(line, &fake, &seen).await.unwrap();
            assert!(seen.out().contains(expected), "{line}: {}", seen.out());
            assert_eq!(seen.out().contains("acc_2"), !line.contains("limit"));
        }
    }
}
