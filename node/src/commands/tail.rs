//! `trunkline tail`: what happens at the edges, as it happens.

use std::time::Duration;

use serde_json::{Map, Value};

use super::output::plain;
use super::{Context, Failure};
use crate::args::TailArgs;
use crate::client::CallError;

/// Between attempts to connect again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Members that stand first in a line, without their names.
const FIRST: [&str; 4] = ["kind", "channel", "outcome", "status"];

/// Runs it until it is interrupted.
pub async fn run(args: TailArgs, context: &mut Context) -> Result<(), Failure> {
    let mut was_connected = false;
    let mut is_told = false;
    loop {
        // Anew each time: a restarted `dev` has other addresses and another key.
        let client = context.admin(args.admin.as_deref())?;
        let broken = match client.lines("/admin/tail").await {
            Ok(mut lines) => {
                was_connected = true;
                is_told = false;
                loop {
                    match lines.next().await {
                        Ok(Some(line)) => show(&line, &args, context)?,
                        Ok(None) => break "the server ended the stream".to_owned(),
                        Err(CallError::Unreachable(why) | CallError::Odd(why)) => break why,
                        Err(error @ (CallError::Address(_) | CallError::Refused(_))) => return Err(error.into()),
                    }
                }
            }
            Err(CallError::Unreachable(why)) if was_connected => why,
            Err(error) => return Err(error.into()),
        };
        if !is_told {
            context.screen.note(&format!("{broken}; trying again"));
            is_told = true;
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

fn show(line: &[u8], args: &TailArgs, context: &mut Context) -> Result<(), Failure> {
    // Empty lines keep the connection alive.
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    let Ok(Value::Object(members)) = serde_json::from_slice(line) else {
        context.screen.note("a line of the stream is no JSON object; left out");
        return Ok(());
    };
    let channel = members.get("channel").and_then(Value::as_str);
    if args.errors && !is_error(&members) || args.channel.is_some() && args.channel.as_deref() != channel {
        return Ok(());
    }
    if context.screen.json {
        return Ok(context.screen.line(&Value::Object(members).to_string())?);
    }
    let is_good = !is_error(&members);
    let text = context.screen.coloured(&readable(&members), is_good);
    Ok(context.screen.line(&text)?)
}

/// What went wrong says so: an error or reason, `ok: false`, or an HTTP status from 400.
fn is_error(members: &Map<String, Value>) -> bool {
    let is_set = |name: &str| members.get(name).is_some_and(|value| !value.is_null() && value.as_str() != Some(""));
    let is_bad_status = |name: &str| members.get(name).and_then(Value::as_u64).is_some_and(|status| status >= 400);
    is_set("error") || is_set("reason") || members.get("ok") == Some(&Value::Bool(false)) || is_bad_status("status")
}

fn readable(members: &Map<String, Value>) -> String {
    let time = members.get("time").or_else(|| members.get("at"));
    let mut words: Vec<String> = time.map(|time| clock_time(&plain(time))).into_iter().collect();
    words.extend(FIRST.iter().filter_map(|name| members.get(*name)).map(plain));
    for (name, value) in members {
        if !FIRST.contains(&name.as_str()) && !matches!(name.as_str(), "time" | "at") && !value.is_null() {
            words.push(format!("{name}={}", plain(value)));
        }
    }
    words.join("  ")
}

/// `15:04:05.123` of an RFC 3339 time; other texts as they are.
pub fn clock_time(text: &str) -> String {
    let Some((_, time)) = text.split_once('T') else { return text.to_owned() };
    time.trim_end_matches('Z').chars().take("15:04:05.123".len()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Reply, Seen};
    use super::*;

    const STREAM: &str = "\
{\"time\":\"2026-11-22T15:04:05.123456Z\",\"kind\":\"platform_call\",\"channel\":\"whatsapp\",\"status\":200,\"ms\":12}

{\"time\":\"2026-11-22T15:04:06Z\",\"kind\":\"webhook_attempt\",\"endpoint\":\"ep_1\",\"status\":503}
{\"kind\":\"refusal\",\"channel\":\"telegram\",\"reason\":\"signature\"}";

    #[tokio::test]
    async fn lines_are_filtered_and_readable() {
        let call = "15:04:05.123  platform_call  whatsapp  200  ms=12\n";
        let attempt = "15:04:06  webhook_attempt  503  endpoint=ep_1\n";
        let refusal = "refusal  telegram  reason=signature\n";
        let cases = [
            (false, None, format!("{call}{attempt}{refusal}")),
            (true, None, format!("{attempt}{refusal}")),
            (false, Some("whatsapp"), call.to_owned()),
            (true, Some("telegram"), refusal.to_owned()),
        ];
        let fake = Fake::start(|asked| {
            assert_eq!((asked.target.as_str(), asked.headers["authorization"].to_str().unwrap()), ("/admin/tail", "Bearer key"));
            Reply::Now(200, "application/x-ndjson", STREAM.to_owned())
        })
        .await;
        for (errors, channel, expected) in cases {
            let seen = Seen::default();
            let mut context = seen.context("http://unused", false, false);
            let args = TailArgs { errors, channel: channel.map(str::to_owned), admin: Some(fake.url.clone()) };
            let ended = async {
                while !seen.err().contains("ended the stream") {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                result = run(args, &mut context) => panic!("{result:?}"),
                () = ended => {}
            }
            assert_eq!(seen.out(), expected);
        }
    }
}
