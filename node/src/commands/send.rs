//! `trunkline send`.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use http::header::{HeaderName, HeaderValue};
use messaging::channels::{ChannelKind, channel};
use messaging::clock::Timestamp;
use serde_json::{Map, Value, json};

use super::account::ACCOUNTS;
use super::output::{Screen, plain, span};
use super::{Context, Failure, resource};
use crate::args::{SendArgs, TemplateArg};
use crate::client::{ANSWER_TIMEOUT, CallError, Client};

const MESSAGES: &str = "/v1/messages";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The first polls, for a person who watches.
const POLL_FIRST: Duration = Duration::from_millis(50);
/// Polls of a message that takes its time.
const POLL_LATER: Duration = Duration::from_secs(1);
/// How long the first polls go on.
const POLL_FIRST_FOR: Duration = Duration::from_secs(3);
/// After `delivered`: how long a receipt that it was read is waited for.
const QUIET: Duration = Duration::from_secs(3);

/// Runs it.
pub async fn run(args: SendArgs, context: &mut Context) -> Result<(), Failure> {
    let mut body = match &args.file {
        Some(path) => from_file(path)?,
        None => Map::new(),
    };
    let to = args.to.as_deref().map(recipient).transpose()?;
    put_content(&args, &mut body)?;
    let client = context.client()?;
    let channel = to.as_ref().and_then(|to| to.channel);
    if let Some(to) = to {
        body.insert("to".to_owned(), to.json);
    }
    if let Some(account) = args.account.clone() {
        body.insert("account".to_owned(), Value::String(account));
    } else if !body.contains_key("account") {
        body.insert("account".to_owned(), Value::String(account_for(channel, &client, context).await?));
    }

    let headers = match &args.idempotency_key {
        Some(key) => {
            vec![(IDEMPOTENCY_KEY, HeaderValue::try_from(key).map_err(|_| Failure::Usage("the idempotency key must be printable".into()))?)]
        }
        None => Vec::new(),
    };
    let path = if args.dry_run { "/v1/messages?dry_run=true" } else { MESSAGES };
    let account = body.get("account").and_then(Value::as_str).unwrap_or_default().to_owned();
    let asked = Instant::now();
    let answer = client.call(Method::POST, path, &headers, Some(&Value::Object(body)), ANSWER_TIMEOUT).await?;
    let took = asked.elapsed();
    let reply: Value = answer.json()?;
    if args.dry_run {
        return Ok(context.screen.pretty(&reply)?);
    }
    if answer.headers.contains_key("idempotent-replayed") {
        context.screen.note("note: this key was used before; this is the earlier message, nothing new is sent");
    }
    let id = reply.get("id").and_then(Value::as_str).ok_or_else(|| Failure::Failed("the answer has no id".to_owned()))?;
    if !args.wait {
        return if context.screen.json { Ok(context.screen.pretty(&reply)?) } else { Ok(context.screen.line(id)?) };
    }
    let accepted_at = reply.get("accepted_at").and_then(Value::as_str).and_then(|at| at.parse().ok());
    let channel = match channel {
        Some(channel) => Some(channel.to_owned()),
        None => channel_of(&account, &client, context).await,
    };
    let wait = Wait {
        client: &client,
        id,
        accepted: asked + took,
        accepted_at,
        ends_with_sent: channel.as_deref().and_then(ChannelKind::from_name).is_some_and(ends_with_sent),
        timeout: args.timeout,
        quiet: QUIET,
    };
    wait.follow(took, &mut context.screen).await
}

fn from_file(path: &Path) -> Result<Map<String, Value>, Failure> {
    let unreadable = |error: std::io::Error| Failure::Usage(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
    } else {
        text = std::fs::read_to_string(path).map_err(unreadable)?;
    }
    serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("{} is no JSON object: {error}", path.display())))
}

struct Recipient {
    json: Value,
    /// By the shape of the address.
    channel: Option<&'static str>,
}

fn recipient(to: &str) -> Result<Recipient, Failure> {
    let digits = to.strip_prefix('-').unwrap_or(to);
    let is_phone = to.strip_prefix('+').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let found = match to {
        _ if is_phone => (json!({"phone": to}), Some("whatsapp")),
        _ if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => (json!({"chat_id": to}), Some("telegram")),
        _ if to.starts_with("cnv_") => (json!({"conversation": to}), None),
        _ if to.starts_with("con_") => (json!({"contact": to}), None),
        _ if to.contains('@') && !to.contains(':') => (json!({"email": to}), Some("email")),
        _ => named(to).ok_or_else(|| {
            Failure::Usage(format!(
                "`{to}` is no recipient; write +15550100 (phone), 4711 (Telegram chat), ada@example.com, cnv_… or con_…, or a channel's \
                 own, such as psid:1234, igsid:…, conversation_id:…, channel_id:…, user_id:… or order_id:…"
            ))
        })?,
    };
    Ok(Recipient { json: found.0, channel: found.1 })
}

/// `member:value`, as the channels take it in their `to` objects. A member that several have leaves the channel open.
fn named(to: &str) -> Option<(Value, Option<&'static str>)> {
    let (member, value) = to.split_once(':')?;
    let json = Map::from_iter([(member.to_owned(), json!(value))]);
    let mut takers = ChannelKind::ALL.iter().filter(|kind| channel(**kind).recipient(&json).is_ok());
    let (first, second) = (takers.next()?, takers.next());
    Some((Value::Object(json), second.is_none().then(|| first.name())))
}

/// Whether nothing good is told after `sent`: `--wait` ends there.
fn ends_with_sent(channel: ChannelKind) -> bool {
    match channel {
        ChannelKind::Telegram | ChannelKind::Discord | ChannelKind::Email | ChannelKind::Woocommerce => true,
        ChannelKind::Whatsapp | ChannelKind::Messenger | ChannelKind::Instagram | ChannelKind::Tiktok => false,
    }
}

fn put_content(args: &SendArgs, body: &mut Map<String, Value>) -> Result<(), Failure> {
    let mut put = |kind: &str, value: Value| {
        body.insert("type".to_owned(), Value::String(kind.to_owned()));
        body.insert(kind.to_owned(), value);
    };
    let media = |link: &str| {
        let mut media = Map::from_iter([("link".to_owned(), json!(link))]);
        if let Some(caption) = &args.caption {
            media.insert("caption".to_owned(), json!(caption));
        }
        Value::Object(media)
    };
    if args.caption.is_some() && args.image.is_none() && args.document.is_none() {
        return Err(Failure::Usage("--caption stands under --image or --document".to_owned()));
    }
    match (&args.text, &args.image, &args.document, &args.template) {
        (Some(text), _, _, _) => put("text", json!({"body": text})),
        (None, Some(link), _, _) => put("image", media(link)),
        (None, None, Some(link), _) => put("document", media(link)),
        (None, None, None, Some(template)) => put("template", template_json(template)),
        (None, None, None, None) if args.file.is_some() => {}
        (None, None, None, None) => {
            return Err(Failure::Usage("what to send? --text, --template, --image, --document or --file".to_owned()));
        }
    }
    if let (Some(_), Some(template)) = (&args.text, &args.template) {
        body.insert("fallback".to_owned(), json!({"template": template_json(template)}));
    }
    if let Some(reply_to) = &args.reply_to {
        body.insert("reply_to".to_owned(), json!(reply_to));
    }
    Ok(())
}

fn template_json(template: &TemplateArg) -> Value {
    let mut json = json!({"name": template.name, "language": template.language});
    if !template.params.is_empty() {
        json["params"] = json!(template.params);
    }
    json
}

/// The account that fits: the one of the running `dev` for the channel, else the tenant's only one (of the channel).
async fn account_for(channel: Option<&str>, client: &Client, context: &Context) -> Result<String, Failure> {
    let local = context.local_runtime();
    if let Some(account) = channel.and_then(|channel| local.as_ref()?.accounts.get(channel)) {
        return Ok(account.clone());
    }
    let text = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut rows = resource::rows(client, ACCOUNTS, None).await?;
    if let Some(channel) = channel {
        rows.retain(|row| text(row, "channel") == channel);
    }
    let kind = channel.unwrap_or("channel");
    match rows.as_slice() {
        [one] => Ok(text(one, "id")),
        [] => Err(Failure::Usage(format!("there is no {kind} account yet; make one with `trunkline account create --help`"))),
        many => {
            let list = many.iter().map(|row| format!("\n  {}  {}  {}", text(row, "id"), text(row, "channel"), text(row, "name")));
            Err(Failure::Usage(format!("which account? name one with --account:{}", list.collect::<String>())))
        }
    }
}

/// Only decides when `--wait` ends: when it cannot be learnt, the wait is longer.
async fn channel_of(account: &str, client: &Client, context: &Context) -> Option<String> {
    let local = context.local_runtime();
    if let Some((channel, _)) = local.as_ref().and_then(|file| file.accounts.iter().find(|(_, id)| *id == account)) {
        return Some(channel.clone());
    }
    let row: Value = client.get(&resource::path(ACCOUNTS, account)).await.ok()?.json().ok()?;
    Some(row.get("channel")?.as_str()?.to_owned())
}

struct Wait<'a> {
    client: &'a Client,
    id: &'a str,
    accepted: Instant,
    accepted_at: Option<Timestamp>,
    ends_with_sent: bool,
    timeout: Duration,
    quiet: Duration,
}

/// The steps as they are printed.
struct Steps {
    /// Entries of the history that have been printed.
    told: usize,
    last: Duration,
}

impl Wait<'_> {
    async fn follow(&self, took: Duration, screen: &mut Screen) -> Result<(), Failure> {
        let mut steps = Steps { told: 0, last: Duration::ZERO };
        if !screen.json {
            print_step(screen, true, &format!("accepted {}", span(took)))?;
        }
        let result = self.poll(&mut steps, screen).await;
        if !screen.json && screen.is_terminal {
            screen.line("")?;
        }
        let message = result?;
        if screen.json {
            screen.pretty(&message)?;
        }
        self.verdict(&message)
    }

    /// Until the message is at its end, as far as it can be told.
    async fn poll(&self, steps: &mut Steps, screen: &mut Screen) -> Result<Value, Failure> {
        let mut status = "accepted".to_owned();
        let mut changed = Instant::now();
        loop {
            let waited = self.accepted.elapsed();
            if waited >= self.timeout {
                return Err(Failure::Failed(format!(
                    "still {status} after {}; it goes on without us. Look again: GET /v1/messages/{}",
                    span(self.timeout),
                    self.id
                )));
            }
            let pause = if waited < POLL_FIRST_FOR { POLL_FIRST } else { POLL_LATER };
            tokio::time::sleep(pause.min(self.timeout - waited)).await;
            let message: Value = match self.client.get(&resource::path(MESSAGES, self.id)).await {
                Ok(answer) => answer.json()?,
                // It is in the log, and on its way into the store.
                Err(CallError::Refused(problem)) if problem.status == 404 || problem.status >= 500 => continue,
                // A restart loses nothing.
                Err(CallError::Unreachable(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            if !screen.json {
                self.tell(&message, steps, screen)?;
            }
            let now = message.get("status").and_then(Value::as_str).unwrap_or_default();
            if now != status {
                status = now.to_owned();
                changed = Instant::now();
            }
            match now {
                "read" | "failed" | "cancelled" | "expired" => return Ok(message),
                "sent" if self.ends_with_sent => return Ok(message),
                "delivered" if changed.elapsed() >= self.quiet => return Ok(message),
                _ => {}
            }
        }
    }

    /// Prints what is new in the history.
    fn tell(&self, message: &Value, steps: &mut Steps, screen: &mut Screen) -> Result<(), Failure> {
        let Some(history) = message.get("history").and_then(Value::as_array) else { return Ok(()) };
        for entry in history.iter().skip(steps.told) {
            steps.told += 1;
            let status = entry.get("status").map(plain).unwrap_or_default();
            if status == "accepted" {
                continue;
            }
            let at = self.since_acceptance(entry, steps.last);
            steps.last = at;
            let attempt = entry.get("attempt").and_then(Value::as_u64).filter(|attempt| *attempt > 1).map(|n| format!("attempt {n}"));
            let reason = entry.get("reason").map(plain).filter(|reason| !reason.is_empty());
            let remarks: Vec<String> = attempt.into_iter().chain(reason).collect();
            let remarks = if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join(", ")) };
            let is_bad = matches!(status.as_str(), "failed" | "unknown" | "cancelled" | "expired");
            let status = if is_bad || matches!(status.as_str(), "delivered" | "read") { screen.coloured(&status, !is_bad) } else { status };
            print_step(screen, false, &format!("{status} {}{remarks}", span(at)))?;
        }
        Ok(())
    }

    /// By the server's times where they make sense. Platforms tell whole seconds, which would lie before the acceptance; then it is
    /// the time at which we saw it.
    fn since_acceptance(&self, entry: &Value, last: Duration) -> Duration {
        let at: Option<Timestamp> = entry.get("at").and_then(Value::as_str).and_then(|at| at.parse().ok());
        let told = at.zip(self.accepted_at).filter(|(at, _)| at.as_micros() % 1_000_000 != 0).map(|(at, from)| at.since(from));
        told.filter(|told| *told >= last && !told.is_zero()).unwrap_or_else(|| self.accepted.elapsed()).max(last)
    }

    fn verdict(&self, message: &Value) -> Result<(), Failure> {
        let status = message.get("status").and_then(Value::as_str).unwrap_or_default();
        if !matches!(status, "failed" | "cancelled" | "expired") {
            return Ok(());
        }
        let reason = message.get("reason").map(plain).unwrap_or_default();
        let told = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        Err(Failure::Failed(format!("the message {status}{told}\n  next: {}", next_step(status, &reason))))
    }
}

/// What a person can do about a message that did not arrive.
fn next_step(status: &str, reason: &str) -> &'static str {
    match (status, reason) {
        (_, "window_closed" | "template_required") => "write as the customer first (in dev), or send --template NAME:LANG",
        (_, "opted_out" | "no_consent" | "restricted") => "this person may not be written to; nothing to do before they write or consent",
        (_, "recipient_invalid") => "check the number or chat",
        (_, "account_disabled" | "unauthorized" | "credential_invalid") => {
            "trunkline account check ACC tells what is wrong with the account"
        }
        ("expired", _) => "it waited longer than it may; send it again, or with a longer expires_in",
        ("cancelled", _) => "somebody cancelled it",
        _ => "trunkline tail --errors shows the platform's answer when you send it again",
    }
}

/// One line that grows on a terminal; a line per step otherwise.
fn print_step(screen: &mut Screen, is_first: bool, text: &str) -> Result<(), Failure> {
    if !screen.is_terminal {
        return Ok(screen.line(text)?);
    }
    let gap = if is_first { "" } else { " · " };
    Ok(screen.part(&format!("{gap}{text}"))?)
}

#[cfg(test)]
mod tests;
