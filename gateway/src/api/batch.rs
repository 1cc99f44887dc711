//! `POST /v1/messages/batch`: up to a thousand messages, each with its own answer. One read of the store and one hand-over
//! to the log serve them all.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{StatusCode, header};
use messaging::ids::MessageId;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::compose::{self, Draft};
use super::recent::{Accepted, Running};
use super::send::{self, Begun};
use super::{Call, conversations, json, not_appended};
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

/// Messages of one batch.
pub const ITEMS_MAX: usize = 1000;
/// Faults that the answer to one batch names.
const FAULTS_MAX: usize = 100;

/// An item on its way.
enum Item<'c> {
    /// Answered already: refused, or accepted by an earlier request.
    Answered(Result<(MessageId, Accepted), Problem>),
    /// To be addressed.
    Drafted { message: MessageId, running: Option<Running<'c>>, fingerprint: [u8; 16], draft: Box<Draft> },
}

/// `POST /v1/messages/batch`
pub(super) async fn send(call: &Call<'_>) -> Result<Reply, Problem> {
    super::query::Query::parse(call.query, &[])?;
    let key = send::idempotency_key(call)?;
    let texts = split(call)?;
    let mut items = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let key = key.as_ref().map(|key| format!("{key}#{index}"));
        items.push(draft(call, key.as_deref(), text).await);
        // A batch is much work: between its messages others are served.
        tokio::task::yield_now().await;
    }
    let mut answers = finish(call, items).await;
    let mut named = 0;
    for problem in answers.iter_mut().filter_map(|answer| answer.as_mut().err()) {
        named += problem.name_at_most(FAULTS_MAX.saturating_sub(named));
    }
    let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
    let shown: Vec<Value> = answers.iter().enumerate().map(|(index, answer)| show(call, index, answer)).collect();
    let body = json!({"accepted": accepted, "refused": shown.len() - accepted, "items": shown});
    Ok(reply::json(StatusCode::ACCEPTED, &body))
}

fn show(call: &Call<'_>, index: usize, answer: &Result<(MessageId, Accepted), Problem>) -> Value {
    match answer {
        Ok((message, accepted)) => {
            let mut item = send::accepted_json(*message, accepted);
            item["index"] = index.into();
            item
        }
        Err(problem) => json!({"index": index, "problem": problem.body(&call.shared().options.public_url, call.request_id)}),
    }
}

/// The items' own bytes.
fn split<'c>(call: &'c Call<'_>) -> Result<Vec<&'c str>, Problem> {
    let malformed = |detail: String| Problem::new(Code::Malformed, detail);
    let body: &Bytes = &call.body;
    let text = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8".into()))?;
    let is_lines = call.headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().windows(6).any(|part| part == b"ndjson"));
    let items: Vec<&str> = if is_lines {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).take(ITEMS_MAX + 1).collect()
    } else {
        if !json::is_shallow(text) {
            return Err(malformed("the body is nested too deeply".into()));
        }
        let list: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|error| malformed(format!("the body is not a JSON list: {error}")))?;
        list.into_iter().map(RawValue::get).collect()
    };
    match items.len() {
        0 => Err(Problem::fault("", "there is no message in the batch")),
        1..=ITEMS_MAX => Ok(items),
        _ => Err(Problem::new(Code::PayloadTooLarge, format!("a batch has at most {ITEMS_MAX} messages"))),
    }
}

async fn draft<'c>(call: &'c Call<'_>, key: Option<&str>, text: &str) -> Item<'c> {
    let drafted = async {
        // The batch is one call of its key; its messages have the tenant's rate.
        call.admit_message()?;
        let map = json::parse_object(text.as_bytes())?;
        let fingerprint = call.shared().parts.keyring.ids().fingerprint(call.tenant().id(), text.as_bytes());
        match send::begin(call, key, fingerprint).await? {
            Begun::Replay(message, accepted) => Ok(Item::Answered(Ok((message, accepted)))),
            Begun::New(message, running) => {
                let draft = Box::new(compose::compose(call, &map).await?);
                Ok(Item::Drafted { message, running, fingerprint, draft })
            }
        }
    };
    drafted.await.unwrap_or_else(|problem| Item::Answered(Err(problem)))
}

async fn finish(call: &Call<'_>, items: Vec<Item<'_>>) -> Vec<Result<(MessageId, Accepted), Problem>> {
    let mut wanted = Vec::with_capacity(items.len());
    for item in &items {
        wanted.push(match item {
            Item::Drafted { draft, .. } => send::wanted(call, draft).await,
            Item::Answered(_) => Ok(None),
        });
    }
    let asked = wanted.iter().filter_map(|found| found.as_ref().ok().copied().flatten());
    let states = conversations::states(call, asked).await;
    let mut waiting = Vec::with_capacity(items.len());
    for (index, (item, wanted)) in items.into_iter().zip(wanted).enumerate() {
        waiting.push(match item {
            Item::Answered(answer) => Err(answer),
            Item::Drafted { message, running, fingerprint, draft } => {
                // A time of its own for each, so that lists keep their order.
                let at = call.now.plus(Duration::from_micros(index as u64));
                let settled = wanted.and_then(|wanted| send::settle(call, *draft, wanted, states.as_ref()));
                match settled {
                    Err(problem) => Err(Err(problem)),
                    Ok(addressed) => {
                        let (record, accepted) = send::ready(call, addressed, message, fingerprint, at);
                        Ok((call.worker.appends.append([record]), message, running, accepted))
                    }
                }
            }
        });
    }
    join_all(waiting.into_iter().map(|one| settle(call, one))).await
}

type Waiting<'c> = (crate::batcher::Appended, MessageId, Option<Running<'c>>, Accepted);

async fn settle(
    call: &Call<'_>,
    one: Result<Waiting<'_>, Result<(MessageId, Accepted), Problem>>,
) -> Result<(MessageId, Accepted), Problem> {
    let (appended, message, running, accepted) = match one {
        Ok(waiting) => waiting,
        Err(answered) => return answered,
    };
    let result = appended.await;
    send::count(call, &accepted, result.is_ok());
    result.map_err(not_appended)?;
    match running {
        Some(running) => running.done(accepted),
        None => call.shared().recent.note(message, accepted),
    }
    Ok((message, accepted))
}
