//! The API as far as messages need it. Every answer has HTTP 200; the code says what it thinks.

use std::sync::Arc;

use bytes::Bytes;
use messaging::clock::Timestamp;
use serde_json::{Value, json};

use super::{CAP, CLIENT_KEY, State, WINDOW, webhook};
use crate::http::{Reply, Request, json_reply};
use crate::locked;
use crate::platform::answer::{Words, act};
use crate::platform::ledger::{Call, Fate};
use crate::platform::{Answer, Sim, WindowRule};

/// Blocked by the rules of direct messages: the window, the cap, the person's settings.
const BLOCKED: u32 = 40_064;
/// Too frequent.
const FREQUENT: u32 = 40_100;
/// A wrong parameter.
const PARAMETER: u32 = 40_002;
/// A wrong token.
const TOKEN: u32 = 40_105;
/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 6_000;
/// Longest title of a card, in characters.
const TITLE_CHARS_MAX: usize = 40;

fn error(code: u32, message: &str) -> Reply {
    json_reply(200, &json!({ "code": code, "message": message, "request_id": "20261123SIM", "data": {} }))
}

fn ok(data: &Value) -> Reply {
    json_reply(200, &json!({ "code": 0, "message": "OK", "request_id": "20261123SIM", "data": data }))
}

/// A path without its slash, too: the one answer that is no 200.
pub(super) fn unknown_path() -> Reply {
    crate::http::reply(404, "text/html", "<html>404 page not found")
}

/// A send as far as the platform's own rules look at it.
struct Send {
    to: String,
    kind: String,
    text: Option<String>,
    /// The content as the echo tells it.
    said: Value,
    is_action: bool,
    is_comment: bool,
}

/// `POST …/business/message/send/`.
pub(super) async fn send(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    if sim.script.resets_before_body() {
        sim.ledger.call(note(sim, None, Fate::Lost, Bytes::new()));
        return Reply::Reset;
    }
    let Ok(body) = request.body().await else { return Reply::Close };
    let refuse = |code: u32, message: &str| {
        sim.ledger.call(note(sim, None, Fate::Refused(code), body.clone()));
        error(code, message)
    };
    if !request.header("access-token").is_some_and(|access| locked(&state.tokens).is_good(access, sim.now())) {
        return refuse(TOKEN, "Access token is incorrect or has been revoked.");
    }
    let Ok(value) = serde_json::from_slice::<Value>(&body) else { return refuse(PARAMETER, "the body is not json") };
    if value["business_id"] != sim.options.account.as_str() {
        return refuse(40_001, "No permission to operate this business account.");
    }
    match read_send(&value) {
        Ok(send) if send.is_action => {
            sim.ledger.call(note(sim, Some(&send), Fate::Receipt, body));
            ok(&json!({ "message": { "message_id": "" } }))
        }
        Ok(send) => take_send(sim, state, send, body).await,
        Err(details) => refuse(PARAMETER, details),
    }
}

fn read_send(value: &Value) -> Result<Send, &'static str> {
    let comment = value.pointer("/direct_reply/comment_reply/comment_id").and_then(Value::as_str);
    let to = match (comment, value["recipient_type"].as_str(), value["recipient"].as_str()) {
        (Some(comment), None, None) => comment,
        (Some(_), _, _) => return Err("recipient is not supported when direct_reply is specified"),
        (None, Some("CONVERSATION"), Some(to)) if !to.is_empty() => to,
        (None, _, _) => return Err("recipient_type or recipient is missing"),
    };
    let kind = value["message_type"].as_str().unwrap_or_default();
    let (text, said) = match kind {
        "TEXT" => {
            let text = value.pointer("/text/body").and_then(Value::as_str).unwrap_or_default();
            if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX {
                return Err("text.body is empty or too long");
            }
            (Some(text), json!({"type": "text", "text": {"body": text}}))
        }
        "IMAGE" => (None, json!({"type": "image", "image": {"media_id": member(value, "/image/media_id")?}})),
        "SHARE_POST" => (None, json!({"type": "share_post", "share_post": {"video_id": member(value, "/share_post/item_id")?}})),
        "TEMPLATE" => (Some(member(value, "/template/title")?), read_card(&value["template"])?),
        "SENDER_ACTION" if matches!(value["sender_action"].as_str(), Some("TYPING" | "MARK_READ")) => {
            (value["sender_action"].as_str(), Value::Null)
        }
        _ => return Err("message_type is not known"),
    };
    if comment.is_some() && kind != "TEXT" {
        return Err("a direct reply is a text");
    }
    Ok(Send {
        to: to.to_owned(),
        kind: kind.to_lowercase(),
        text: text.map(str::to_owned),
        said,
        is_action: kind == "SENDER_ACTION",
        is_comment: comment.is_some(),
    })
}

fn member<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, &'static str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or("a required member is missing")
}

/// A card: flat in the request, nested and with other names in the echo.
fn read_card(card: &Value) -> Result<Value, &'static str> {
    let longest = match card["type"].as_str() {
        Some("QA_BUTTON_CARD") => 20,
        Some("QA_LINK_CARD") => 40,
        _ => return Err("template.type is not known"),
    };
    let title = member(card, "/title")?;
    let buttons = card["buttons"].as_array().map(Vec::as_slice).unwrap_or_default();
    if title.chars().count() > TITLE_CHARS_MAX || buttons.is_empty() || buttons.len() > 3 {
        return Err("template.title is too long, or there are no 1 to 3 buttons");
    }
    let mut told = Vec::new();
    for button in buttons {
        let (label, id) = (member(button, "/title")?, member(button, "/id")?);
        if label.chars().count() > longest || id.chars().count() > 40 || button["type"] != "REPLY" {
            return Err("a button is too long, or of another type");
        }
        told.push(json!({"text": label, "type": "REPLY", "id": id}));
    }
    Ok(json!({"type": "template", "template": {"type": card["type"], "elements": [{"title": title, "buttons": told}]}}))
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
        callback: None,
        window_ends: None,
        free_form: false,
        body,
    }
}

async fn take_send(sim: &Arc<Sim>, state: &Arc<State>, send: Send, body: Bytes) -> Reply {
    let mut call = note(sim, Some(&send), Fate::Lost, body);
    let wrote = state.wrote(&send.to);
    call.window_ends = wrote.map(|(at, _)| at.plus(WINDOW));
    call.free_form = !send.is_comment;
    let is_used_up = !send.is_comment && wrote.is_some_and(|(_, sent)| sent >= CAP);
    let answer = match sim.options.window {
        // Nothing is told later: the answer comes at once.
        WindowRule::RefuseAtOnce | WindowRule::FailLater if call.out_of_window() || is_used_up => {
            Answer::Error { code: BLOCKED, http: 200 }
        }
        WindowRule::RefuseAtOnce | WindowRule::FailLater | WindowRule::Ignore => sim.script.take(call.text.as_deref().unwrap_or_default()),
    };
    let message = state.message_id(sim);
    call.platform_id = Some(message.clone());
    let taken = ok(&json!({ "message": { "message_id": message } }));
    let words = Words {
        taken,
        error: &|code, _| error(code, "simulated"),
        slow_down: &|_| (FREQUENT, error(FREQUENT, "Requests are too frequent")),
    };
    let (sim_too, state_too, at) = (sim.clone(), state.clone(), sim.now());
    act(sim, answer, call, words, move |_| {
        state_too.used(&send.to);
        tell(&sim_too, &send, &message, at);
    })
    .await
}

/// Lets the echo and the reading come, each at its time. There are no deliveries.
fn tell(sim: &Arc<Sim>, send: &Send, message: &str, at: Timestamp) {
    let delays = sim.options.statuses;
    let wanted = [(delays.sent, "echo"), (delays.read, "read")];
    let (mut times, kinds): (Vec<_>, Vec<_>) = wanted.into_iter().filter_map(|(delay, kind)| delay.map(|delay| (delay, kind))).unzip();
    if sim.options.shuffle {
        locked(&sim.chance).shuffle(&mut times);
    }
    for (delay, kind) in times.into_iter().zip(kinds) {
        let (sim_too, message, to, said) = (sim.clone(), message.to_owned(), send.to.clone(), send.said.clone());
        sim.spawn(async move {
            tokio::time::sleep(delay).await;
            let body = match kind {
                "echo" => webhook::echo(&sim_too, &to, &message, at, said),
                _ => webhook::read(&sim_too, &to, sim_too.now()),
            };
            sim_too.post(&message, kind, &to, None, body).await;
        });
    }
}

/// `POST …/tt_user/token_info/get/`: takes the token in the body.
pub(super) async fn token_info(sim: &Sim, state: &State, mut request: Request) -> Reply {
    let Ok(body) = request.body().await else { return Reply::Close };
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !value["access_token"].as_str().is_some_and(|access| locked(&state.tokens).is_good(access, sim.now())) {
        return error(TOKEN, "Access token is incorrect or has been revoked.");
    }
    ok(&json!({ "app_id": CLIENT_KEY, "creator_id": sim.options.account, "scope": "message.list.send" }))
}

/// `POST …/tt_user/oauth2/refresh_token/`: the refresh token is good once.
pub(super) async fn refresh(sim: &Sim, state: &State, mut request: Request) -> Reply {
    let Ok(body) = request.body().await else { return Reply::Close };
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if value["client_id"] != CLIENT_KEY || value["client_secret"] != sim.options.secret.as_str() || value["grant_type"] != "refresh_token" {
        return error(PARAMETER, "client_id, client_secret or grant_type is wrong");
    }
    let mut tokens = locked(&state.tokens);
    if tokens.refresh.is_empty() || value["refresh_token"] != tokens.refresh.as_str() {
        return error(TOKEN, "The refresh token is used up or was never given.");
    }
    tokens.refreshed += 1;
    tokens.access = format!("{}.{}", sim.options.credential, tokens.refreshed);
    tokens.refresh = format!("rft.sim.{}", tokens.refreshed);
    tokens.access_until = tokens.life.map(|life| sim.now().plus(life));
    if tokens.lose > 0 {
        tokens.lose -= 1;
        return Reply::Close;
    }
    ok(&json!({
        "access_token": tokens.access, "expires_in": 86_400, "refresh_token": tokens.refresh, "refresh_token_expires_in": 31_536_000,
        "open_id": sim.options.account, "scope": "message.list.send", "token_type": "Bearer",
    }))
}
