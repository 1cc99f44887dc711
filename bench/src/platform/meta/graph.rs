//! The Graph API as far as messages need it.

use std::sync::Arc;

use bytes::Bytes;
use messaging::clock::Timestamp;
use serde_json::{Value, json};

use super::{HUMAN_AGENT, MetaProduct, State, WINDOW, webhook};
use crate::http::{Reply, Request, json_reply};
use crate::platform::answer::{Words, act};
use crate::platform::ledger::{Call, Fate};
use crate::platform::{Answer, Sim, WindowRule};

/// Permission, and with a subcode: outside the window.
const PERMISSION: u32 = 10;
/// Too many calls.
const THROUGHPUT: u32 = 613;
/// A wrong parameter.
pub(super) const PARAMETER: u32 = 100;
/// A wrong token.
pub(super) const TOKEN: u32 = 190;
/// Longest text of Messenger, in characters.
const TEXT_CHARS_MAX: usize = 2_000;
/// Longest text of Instagram, in bytes.
const TEXT_BYTES_MAX: usize = 1_000;
/// Longest `metadata`, in characters.
const METADATA_CHARS_MAX: usize = 1_000;

impl State {
    /// The subcode that says "outside the window".
    fn closed(&self) -> u32 {
        match self.product {
            MetaProduct::Messenger => 2_018_278,
            MetaProduct::Instagram => 2_534_022,
        }
    }
}

fn error(state: &State, code: u32, http: u16) -> Reply {
    let subcode = if code == PERMISSION { state.closed() } else { 0 };
    detailed(code, subcode, http, "Simulated error")
}

pub(super) fn detailed(code: u32, subcode: u32, http: u16, details: &str) -> Reply {
    let mut body =
        json!({"error": {"message": format!("(#{code}) {details}"), "type": "OAuthException", "code": code, "fbtrace_id": "AsimSimSim"}});
    if subcode != 0 {
        body["error"]["error_subcode"] = json!(subcode);
    }
    json_reply(http, &body)
}

pub(super) fn unknown_path() -> Reply {
    detailed(2_500, 0, 400, "unknown path components")
}

fn authorised(sim: &Sim, state: &State, request: &Request) -> bool {
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    token.is_some_and(|token| crate::locked(&state.tokens).is_good(token, sim.now()))
}

/// The cheap call that shows whether the credential works.
pub(super) fn probe(sim: &Sim, state: &State, account: &str, request: &Request) -> Reply {
    if !authorised(sim, state, request) {
        return error(state, TOKEN, 401);
    }
    if account != sim.options.account {
        return detailed(PARAMETER, 0, 400, "object does not exist or permissions are missing");
    }
    json_reply(200, &json!({"id": account, "name": "Simulated Shop", "username": "simulated.shop"}))
}

/// A send as far as the platform's own rules look at it.
struct Send {
    to: String,
    kind: String,
    text: Option<String>,
    callback: Option<String>,
    message: Value,
    /// Not bound by the window: templates, and private replies, which have a rule of their own.
    is_free_of_window: bool,
    tagged: bool,
    is_action: bool,
}

/// `POST …/messages`.
pub(super) async fn messages(sim: &Arc<Sim>, state: &Arc<State>, account: &str, mut request: Request) -> Reply {
    if sim.script.resets_before_body() {
        sim.ledger.call(note(sim, None, Fate::Lost, Bytes::new()));
        return Reply::Reset;
    }
    let Ok(body) = request.body().await else { return Reply::Close };
    let refuse = |code: u32, http: u16, details: &str| {
        sim.ledger.call(note(sim, None, Fate::Refused(code), body.clone()));
        detailed(code, 0, http, details)
    };
    if !authorised(sim, state, &request) {
        return refuse(TOKEN, 401, "the access token is not this account's");
    }
    if account != sim.options.account {
        return refuse(PARAMETER, 400, "object does not exist or permissions are missing");
    }
    let Ok(value) = serde_json::from_slice::<Value>(&body) else { return refuse(PARAMETER, 400, "the body is not json") };
    match read_send(state.product, &value) {
        Ok(send) if send.is_action => {
            let answer = json!({"recipient_id": send.to});
            sim.ledger.call(note(sim, Some(&send), Fate::Receipt, body));
            json_reply(200, &answer)
        }
        Ok(send) => take_send(sim, state, send, body).await,
        Err(details) => refuse(PARAMETER, 400, &details),
    }
}

fn read_send(product: MetaProduct, value: &Value) -> Result<Send, String> {
    let recipient = value["recipient"].as_object().ok_or("recipient is missing")?;
    let comment = recipient.get("comment_id").and_then(Value::as_str);
    let to = recipient.get("id").and_then(Value::as_str).or(comment).filter(|to| !to.is_empty()).ok_or("recipient has no id")?;
    let mut send = Send {
        to: to.to_owned(),
        kind: "text".to_owned(),
        text: None,
        callback: None,
        message: value["message"].clone(),
        is_free_of_window: comment.is_some(),
        tagged: false,
        is_action: false,
    };
    if let Some(action) = value["sender_action"].as_str() {
        if !value["message"].is_null() {
            return Err("sender_action and message must not be sent together".to_owned());
        }
        send.kind = action.to_lowercase();
        send.is_action = true;
        return match send.kind.as_str() {
            "typing_on" | "typing_off" | "mark_seen" | "react" | "unreact" => Ok(send),
            other => Err(format!("sender_action {other} is not known")),
        };
    }
    match (value["messaging_type"].as_str(), product) {
        (Some("RESPONSE" | "UPDATE"), _) | (None, MetaProduct::Instagram) => {}
        (Some("UTILITY"), MetaProduct::Messenger) if value["message"]["template"].is_object() => send.is_free_of_window = true,
        (Some("MESSAGE_TAG"), _) => match value["tag"].as_str() {
            Some("HUMAN_AGENT") => send.tagged = true,
            _ => return Err("this message tag was removed".to_owned()),
        },
        (Some(_), _) => return Err("messaging_type is not known".to_owned()),
        (None, MetaProduct::Messenger) => return Err("messaging_type is missing".to_owned()),
    }
    read_message(product, &mut send)?;
    Ok(send)
}

fn read_message(product: MetaProduct, send: &mut Send) -> Result<(), String> {
    let message = send.message.as_object().ok_or("message is missing")?;
    send.callback = message.get("metadata").and_then(Value::as_str).map(str::to_owned);
    if send.callback.as_ref().is_some_and(|metadata| metadata.chars().count() > METADATA_CHARS_MAX) {
        return Err(format!("metadata must have at most {METADATA_CHARS_MAX} characters"));
    }
    let text = message.get("text").and_then(Value::as_str);
    let attachment = message.get("attachment").and_then(|attachment| attachment["type"].as_str());
    match (text, attachment) {
        (Some(_), Some(_)) => return Err("a message has a text or an attachment".to_owned()),
        (None, Some(kind)) => {
            send.kind = kind.to_owned();
            send.text = message["attachment"].pointer("/payload/text").and_then(Value::as_str).map(str::to_owned);
        }
        (Some(text), None) => {
            let fits = match product {
                MetaProduct::Messenger => text.chars().count() <= TEXT_CHARS_MAX,
                MetaProduct::Instagram => text.len() <= TEXT_BYTES_MAX,
            };
            if text.is_empty() || !fits {
                return Err("the text is empty or too long".to_owned());
            }
            send.text = Some(text.to_owned());
        }
        (None, None) if message.contains_key("template") => send.kind = "template".to_owned(),
        (None, None) if message.contains_key("attachments") && product == MetaProduct::Instagram => send.kind = "image".to_owned(),
        (None, None) => return Err("the message is empty".to_owned()),
    }
    Ok(())
}

/// The ledger's entry of a call; the fate may still change.
fn note(sim: &Sim, send: Option<&Send>, fate: Fate, body: Bytes) -> Call {
    Call {
        at: sim.now(),
        at_us: crate::monotonic_us(),
        fate,
        platform_id: None,
        to: send.map_or_else(String::new, |send| send.to.clone()),
        kind: send.map_or_else(|| "unread".to_owned(), |send| send.kind.clone()),
        text: send.and_then(|send| send.text.clone()),
        callback: send.and_then(|send| send.callback.clone()),
        window_ends: None,
        free_form: false,
        body,
    }
}

async fn take_send(sim: &Arc<Sim>, state: &Arc<State>, send: Send, body: Bytes) -> Reply {
    let mut call = note(sim, Some(&send), Fate::Lost, body);
    let length = if send.tagged { HUMAN_AGENT } else { WINDOW };
    call.window_ends = state.wrote_at(&send.to).map(|at| at.plus(length));
    call.free_form = !send.is_free_of_window;
    let closed = call.out_of_window();
    let answer = match sim.options.window {
        // The answer comes at once on both; there is no status that tells of it later.
        WindowRule::RefuseAtOnce | WindowRule::FailLater if closed => Answer::Error { code: PERMISSION, http: 400 },
        WindowRule::RefuseAtOnce | WindowRule::FailLater | WindowRule::Ignore => sim.script.take(call.text.as_deref().unwrap_or_default()),
    };
    let mid = state.mid(sim);
    call.platform_id = Some(mid.clone());
    let taken = json_reply(200, &json!({"recipient_id": send.to, "message_id": mid}));
    let words = Words { taken, error: &|code, http| error(state, code, http), slow_down: &|_| (THROUGHPUT, error(state, THROUGHPUT, 400)) };
    let (sim_too, state_too, at) = (sim.clone(), state.clone(), sim.now());
    act(sim, answer, call, words, move |_| tell_statuses(&sim_too, &state_too, &send, &mid, at)).await
}

/// Lets the echo, the delivery and the reading come, each at its time.
fn tell_statuses(sim: &Arc<Sim>, state: &Arc<State>, send: &Send, mid: &str, at: Timestamp) {
    let delays = sim.options.statuses;
    let delivered = delays.delivered.filter(|_| state.product == MetaProduct::Messenger);
    let wanted = [(delays.sent, "echo"), (delivered, "delivered"), (delays.read, "read")];
    let (mut times, kinds): (Vec<_>, Vec<_>) = wanted.into_iter().filter_map(|(delay, kind)| delay.map(|delay| (delay, kind))).unzip();
    if sim.options.shuffle {
        crate::locked(&sim.chance).shuffle(&mut times);
    }
    for (delay, kind) in times.into_iter().zip(kinds) {
        let (sim_too, state, mid, to, message) = (sim.clone(), state.clone(), mid.to_owned(), send.to.clone(), send.message.clone());
        sim.spawn(async move {
            tokio::time::sleep(delay).await;
            // The mark is the platform's time now: all that the gateway wrote before is told of.
            let mark = sim_too.now();
            let body = match kind {
                "echo" => webhook::echo(&sim_too, &state, &to, message, &mid, at),
                "delivered" => webhook::delivery(&sim_too, &state, &to, &mid, mark),
                _ => webhook::read(&sim_too, &state, &to, &mid, mark, mark),
            };
            sim_too.post(&mid, kind, &to, None, body).await;
        });
    }
}
