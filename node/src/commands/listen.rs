//! `trunkline listen`: the event feed by long poll, printed and forwarded.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::BASE64;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use messaging::clock::{Clock, SystemClock, Timestamp};
use messaging::directory::SecretPair;
use messaging::seal::{Secret, fill_random};
use router::sign::Signer;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::output::span;
use super::resource::escaped;
use super::tail::clock_time;
use super::{Context, Failure, runtime};
use crate::args::ListenArgs;
use crate::client::{Address, CallError, post_to};

/// How long the server may hold a poll.
const WAIT: Duration = Duration::from_secs(30);
/// Beyond that, for the way.
const WAIT_GRACE: Duration = Duration::from_secs(10);
/// Between attempts to reach the server.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long the forward's answer may take.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(15);
/// A server that forgot our place (a `dev` in memory, started again) is read from this long before the last answer.
const OVERLAP: Duration = Duration::from_secs(5);
/// Bytes of the local signing secret.
const SECRET_BYTES: usize = 32;

#[derive(Deserialize)]
struct Page {
    data: Vec<Box<RawValue>>,
    #[serde(default)]
    next_cursor: Option<String>,
}

/// What is printed of an event.
#[derive(Deserialize)]
struct Head {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    subject: Option<String>,
}

/// Runs it until it is interrupted.
pub async fn run(args: ListenArgs, context: &mut Context) -> Result<(), Failure> {
    let secret_path = runtime::place("trunkline-listen-", ".secret");
    if args.print_secret {
        return Ok(context.screen.line(local_secret(&secret_path)?.expose())?);
    }
    let forward = match &args.forward_to {
        Some(url) => Some(Forward::new(url, &secret_path)?),
        None => None,
    };
    // Said before the first event, on the error stream: the output is events only.
    match &args.forward_to {
        Some(url) => context.screen.note(&format!("forwarding to {url}, signed; the secret: trunkline listen --print-secret")),
        None => context.screen.note("listening; Ctrl-C ends"),
    }
    let now = SystemClock::default().now();
    let place = match args.since {
        Some(since) => Place { after: None, not_before: now.minus(since), is_latest: false },
        None => Place { after: None, not_before: Timestamp::ZERO, is_latest: true },
    };
    follow(&args, forward.as_ref(), place, context).await
}

/// Where in the feed we are.
struct Place {
    after: Option<String>,
    /// Earlier events are not ours.
    not_before: Timestamp,
    /// Begin at the end of the feed.
    is_latest: bool,
}

impl Place {
    fn path(&self, types: &[String]) -> String {
        let mut path = "/v1/events?".to_owned();
        match &self.after {
            Some(cursor) => path.push_str(&format!("after={}&wait={}", escaped(cursor), WAIT.as_secs())),
            // Without a wait: what happens from here on must have a cursor to come after.
            None if self.is_latest => path.push_str("after=latest"),
            None => path.push_str("wait=0"),
        }
        if !types.is_empty() {
            path.push_str(&format!("&types={}", escaped(&types.join(","))));
        }
        path
    }
}

async fn follow(args: &ListenArgs, forward: Option<&Forward>, mut place: Place, context: &mut Context) -> Result<(), Failure> {
    let clock = SystemClock::default();
    let mut last_answer = None;
    let mut is_lost = false;
    loop {
        // Anew each time: a restarted `dev` has other addresses and another key.
        let path = place.path(&args.events);
        let answer = match context.client() {
            Ok(client) => client.call(Method::GET, &path, &[], None, WAIT + WAIT_GRACE).await,
            Err(Failure::Usage(_)) if last_answer.is_some() => Err(CallError::Unreachable("no server is known any more".to_owned())),
            Err(failure) => return Err(failure),
        };
        let page: Page = match answer {
            Ok(answer) => answer.json()?,
            Err(CallError::Unreachable(why)) => {
                tell_once(&mut is_lost, &format!("{why}; trying again"), context);
                tokio::time::sleep(RETRY_EVERY).await;
                continue;
            }
            Err(CallError::Refused(problem)) if problem.status >= 500 || problem.status == 429 => {
                tell_once(&mut is_lost, &format!("{}; trying again", problem.title), context);
                tokio::time::sleep(problem.retry_after_s.map_or(RETRY_EVERY, Duration::from_secs)).await;
                continue;
            }
            Err(CallError::Refused(problem)) if place.after.is_some() && matches!(problem.status, 400 | 410 | 422) => {
                context.screen.note("the server does not know our place in the feed any more; going on from the time of its last answer");
                let since = last_answer.unwrap_or_else(|| clock.now()).minus(OVERLAP);
                place = Place { after: None, not_before: since, is_latest: false };
                continue;
            }
            // Another `dev` may be writing its file just now.
            Err(CallError::Refused(problem)) if problem.status == 401 && is_lost => {
                tokio::time::sleep(RETRY_EVERY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if is_lost {
            context.screen.note("connected again");
            is_lost = false;
        }
        last_answer = Some(clock.now());
        let has_place = page.next_cursor.is_some();
        for event in page.data {
            show(&event, &place, forward, context).await?;
        }
        if has_place {
            place.after = page.next_cursor;
        } else {
            // A server without a cursor to give has an empty feed: do not ask it in a tight loop.
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }
}

fn tell_once(is_lost: &mut bool, text: &str, context: &mut Context) {
    if !*is_lost {
        context.screen.note(text);
        *is_lost = true;
    }
}

async fn show(event: &RawValue, place: &Place, forward: Option<&Forward>, context: &mut Context) -> Result<(), Failure> {
    let head: Head = match serde_json::from_str(event.get()) {
        Ok(head) => head,
        Err(error) => {
            context.screen.note(&format!("an event is not of the expected shape and is left out: {error}"));
            return Ok(());
        }
    };
    let time: Timestamp = head.time.parse().unwrap_or(Timestamp::MAX);
    if time < place.not_before {
        return Ok(());
    }
    let reply = match forward {
        Some(forward) => format!("  {}", forward.send(&head.id, event.get(), context).await?),
        None => String::new(),
    };
    if context.screen.json {
        context.screen.line(event.get())?;
        if !reply.is_empty() {
            context.screen.note(&format!("{}{reply}", head.id));
        }
        return Ok(());
    }
    let subject = head.subject.unwrap_or_default();
    let line = format!("{}  {:<24}  {}  {subject}", clock_time(&head.time), head.kind, head.id);
    let line: String = line.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    Ok(context.screen.line(&format!("{line}{reply}"))?)
}

struct Forward {
    address: Address,
    signer: Signer,
}

impl Forward {
    fn new(url: &str, secret_path: &Path) -> Result<Self, Failure> {
        let pair = SecretPair { current: local_secret(secret_path)?, previous: None, set_at: Timestamp::ZERO };
        let damaged = |error| Failure::Failed(format!("{}: {error}; delete the file to have a new secret", secret_path.display()));
        Ok(Self { address: Address::parse(url)?, signer: Signer::new(&pair, false).map_err(damaged)? })
    }

    /// One attempt; what came of it, in words.
    async fn send(&self, id: &str, body: &str, context: &Context) -> Result<String, Failure> {
        let signed = self.signer.headers(id, SystemClock::default().now().as_secs(), body.as_bytes());
        let signed = match signed {
            Ok(signed) => signed,
            Err(error) => return Ok(format!("-> not forwarded: {error}")),
        };
        let mut headers: Vec<(HeaderName, HeaderValue)> = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (USER_AGENT, HeaderValue::from_static(concat!("trunkline-listen/", env!("CARGO_PKG_VERSION")))),
        ];
        headers.extend(signed);
        let begun = Instant::now();
        let answer = post_to(&self.address, &headers, Bytes::copy_from_slice(body.as_bytes()), FORWARD_TIMEOUT).await;
        let text = match &answer {
            Ok(status) => format!("-> {} in {}", status.as_u16(), span(begun.elapsed())),
            Err(CallError::Unreachable(why) | CallError::Odd(why) | CallError::Address(why)) => format!("-> {why}"),
            Err(CallError::Refused(problem)) => format!("-> {}", problem.status),
        };
        Ok(context.screen.coloured(&text, answer.is_ok_and(|status| status.is_success())))
    }
}

/// The secret of this user's `listen`, made at its first use: the same every time, so that a handler's settings need no change.
fn local_secret(path: &Path) -> Result<Secret, Failure> {
    if let Some(text) = runtime::read_private(path)? {
        let text = String::from_utf8(text).map_err(|_| Failure::Failed(format!("{} is damaged; delete it", path.display())))?;
        return Ok(Secret::new(text.trim_end()));
    }
    let mut random = [0; SECRET_BYTES];
    fill_random(&mut random);
    let secret = Secret::new(format!("whsec_{}", BASE64.encode(&random)));
    runtime::write_private(path, secret.expose().as_bytes())?;
    Ok(secret)
}

#[cfg(test)]
mod tests;
