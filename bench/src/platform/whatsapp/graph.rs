//! The Graph API as far as messages need it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::webhook::{self, Status};
use super::{State, digits};
use crate::http::{Reply, Request, json_reply};
use crate::platform::answer::{Words, act};
use crate::platform::ledger::{Call, Fate};
use crate::platform::{Answer, Sim, WindowRule};

/// Free text outside the window.
const RE_ENGAGEMENT: u32 = 131_047;
/// Too many messages.
const THROUGHPUT: u32 = 130_429;
/// A wrong parameter.
const PARAMETER: u32 = 100;
/// A wrong token.
const TOKEN: u32 = 190;
/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 4_096;
/// Longest `biz_opaque_callback_data`, in characters.
const CALLBACK_CHARS_MAX: usize = 512;
/// Longest typed address.
const TO_CHARS_MAX: usize = 160;

/// What Meta calls an error.
pub(super) fn title(code: u32) -> &'static str {
    match code {
        RE_ENGAGEMENT => "Re-engagement message",
        THROUGHPUT => "Rate limit hit",
        PARAMETER => "Invalid parameter",
        TOKEN => "Invalid OAuth access token",
        131_056 => "Business account to consumer account pair rate limit hit",
        131_026 => "Message undeliverable",
        131_000 => "Something went wrong",
        131_049 => "Message not delivered to maintain healthy ecosystem engagement",
        131_050 => "User has stopped marketing messages",
        131_031 | 368 => "Account has been locked",
        _ => "Simulated error",
    }
}

fn error(code: u32, http: u16) -> Reply {
    detailed(code, http, title(code))
}

fn detailed(code: u32, http: u16, details: &str) -> Reply {
    let body = json!({ "error": {
        "message": format!("(#{code}) {}", title(code)), "type": "OAuthException", "code": code,
        "error_data": { "messaging_product": "whatsapp", "details": details }, "fbtrace_id": "AsimSimSimSimSimSimSim",
    } });
    json_reply(http, &body)
}

pub(super) fn unknown_path() -> Reply {
    detailed(2_500, 400, "unknown path components")
}

fn authorised(sim: &Sim, request: &Request) -> bool {
    request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) == Some(sim.options.credential.as_str())
}

/// The cheap call that shows whether the credential works.
pub(super) fn probe(sim: &Sim, account: &str, request: &Request) -> Reply {
    if !authorised(sim, request) {
        return error(TOKEN, 401);
    }
    if account != sim.options.account {
        return detailed(PARAMETER, 400, "object does not exist or permissions are missing");
    }
    json_reply(
        200,
        &json!({ "id": account, "display_phone_number": "+1 555-078-3881", "verified_name": "Simulated Shop", "quality_rating": "GREEN" }),
    )
}

/// How long a link to a file is good.
const LINK_SECS: u64 = 300;

/// Where a file is.
pub(super) fn where_is(sim: &Sim, state: &State, id: &str, request: &Request) -> Reply {
    if !authorised(sim, request) {
        return error(TOKEN, 401);
    }
    let number = request.query.split('&').find_map(|pair| pair.strip_prefix("phone_number_id="));
    let (Some(file), true) = (state.files.get(id), number.is_none_or(|number| number == sim.options.account)) else {
        return detailed(PARAMETER, 400, "object does not exist or permissions are missing");
    };
    let until = sim.now().as_secs() + LINK_SECS;
    let url = format!("http://{}/media/{id}?ext={until}", request.header("host").unwrap_or_default());
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&file.bytes));
    let answer = json!({ "url": url, "mime_type": file.mime_type, "sha256": sha256, "file_size": file.bytes.len(), "id": id });
    json_reply(200, &answer)
}

/// A file, by its link and with the token.
pub(super) fn bytes_of(sim: &Sim, state: &State, id: &str, request: &Request) -> Reply {
    let until = request.query.strip_prefix("ext=").and_then(|until| until.parse::<u64>().ok());
    let is_good = until.is_some_and(|until| sim.now().as_secs() < until);
    match state.files.get(id) {
        Some(file) if is_good && authorised(sim, request) => state.files.give(file),
        Some(_) | None => error(PARAMETER, 404),
    }
}

/// A send as far as the platform's own rules look at it.
struct Send {
    to: String,
    kind: String,
    text: Option<String>,
    callback: Option<String>,
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
        detailed(code, http, details)
    };
    if !authorised(sim, &request) {
        return refuse(TOKEN, 401, "the access token is not this account's");
    }
    if account != sim.options.account {
        return refuse(PARAMETER, 400, "object does not exist or permissions are missing");
    }
    let Ok(value) = serde_json::from_slice::<Value>(&body) else { return refuse(PARAMETER, 400, "the body is not json") };
    if value["messaging_product"] != "whatsapp" {
        return refuse(PARAMETER, 400, "messaging_product must be whatsapp");
    }
    if value["status"] == "read" {
        return receipt(sim, &value, body);
    }
    match read_send(&value) {
        Ok(send) => take_send(sim, state, send, body).await,
        Err(details) => refuse(PARAMETER, 400, &details),
    }
}

fn receipt(sim: &Sim, value: &Value, body: Bytes) -> Reply {
    let Some(message) = value["message_id"].as_str().filter(|id| id.starts_with("wamid.")) else {
        sim.ledger.call(note(sim, None, Fate::Refused(PARAMETER), body));
        return detailed(PARAMETER, 400, "message_id is missing or not a message id");
    };
    let kind = if value.get("typing_indicator").is_some() { "typing" } else { "read" };
    let send = Send { to: String::new(), kind: kind.to_owned(), text: Some(message.to_owned()), callback: None };
    sim.ledger.call(note(sim, Some(send), Fate::Receipt, body));
    json_reply(200, &json!({ "success": true }))
}

fn read_send(value: &Value) -> Result<Send, String> {
    let to = match (value["to"].as_str(), value["recipient"].as_str()) {
        (Some(to), _) => digits(to),
        (None, Some(recipient)) => recipient.to_owned(),
        (None, None) => return Err("to is missing".to_owned()),
    };
    if to.is_empty() || to.len() > TO_CHARS_MAX {
        return Err("to is not a number".to_owned());
    }
    let kind = value["type"].as_str().unwrap_or("text").to_owned();
    let Some(part) = value.get(&kind).filter(|part| part.is_object() || part.is_array()) else {
        return Err(format!("the member {kind} is missing"));
    };
    let text = match kind.as_str() {
        "text" => part["body"].as_str(),
        "template" => part["name"].as_str(),
        "interactive" => part["body"]["text"].as_str(),
        "reaction" => part["emoji"].as_str(),
        "image" | "video" | "document" => part["caption"].as_str(),
        "audio" | "sticker" | "location" | "contacts" => None,
        other => return Err(format!("type {other} is not known")),
    };
    let chars = text.map_or(0, |text| text.chars().count());
    if kind == "text" && (chars == 0 || chars > TEXT_CHARS_MAX) {
        return Err(format!("text.body must have 1 to {TEXT_CHARS_MAX} characters"));
    }
    let callback = value["biz_opaque_callback_data"].as_str();
    if callback.is_some_and(|callback| callback.chars().count() > CALLBACK_CHARS_MAX) {
        return Err(format!("biz_opaque_callback_data must have at most {CALLBACK_CHARS_MAX} characters"));
    }
    Ok(Send { to, kind, text: text.map(str::to_owned), callback: callback.map(str::to_owned) })
}

/// The ledger's entry of a call; the fate may still change.
fn note(sim: &Sim, send: Option<Send>, fate: Fate, body: Bytes) -> Call {
    let send = send.unwrap_or(Send { to: String::new(), kind: "unread".to_owned(), text: None, callback: None });
    Call {
        at: sim.now(),
        at_us: crate::monotonic_us(),
        fate,
        platform_id: None,
        to: send.to,
        kind: send.kind,
        text: send.text,
        callback: send.callback,
        window_ends: None,
        free_form: false,
        body,
    }
}

async fn take_send(sim: &Arc<Sim>, state: &Arc<State>, send: Send, body: Bytes) -> Reply {
    let (to, callback) = (send.to.clone(), send.callback.clone());
    let free_form = send.kind != "template";
    let mut call = note(sim, Some(send), Fate::Lost, body);
    call.window_ends = state.window_ends(&to);
    call.free_form = free_form;
    let closed = call.out_of_window();
    let answer = match sim.options.window {
        WindowRule::RefuseAtOnce if closed => Answer::Error { code: RE_ENGAGEMENT, http: 400 },
        WindowRule::FailLater if closed => Answer::AcceptThenFail { code: RE_ENGAGEMENT },
        WindowRule::RefuseAtOnce | WindowRule::FailLater | WindowRule::Ignore => sim.script.take(call.text.as_deref().unwrap_or_default()),
    };
    let wamid = state.wamid(sim, &to);
    call.platform_id = Some(wamid.clone());
    let taken = json_reply(
        200,
        &json!({
            "messaging_product": "whatsapp", "contacts": [{ "input": to, "wa_id": to }],
            "messages": [{ "id": wamid, "message_status": "accepted" }],
        }),
    );
    let words = Words { taken, error: &error, slow_down: &|_| (THROUGHPUT, error(THROUGHPUT, 429)) };
    let sim_too = sim.clone();
    act(sim, answer, call, words, move |failure| tell_statuses(&sim_too, &wamid, &to, callback.as_deref(), failure)).await
}

/// Lets the statuses of a message come, each at its time.
fn tell_statuses(sim: &Arc<Sim>, wamid: &str, to: &str, callback: Option<&str>, failure: Option<u32>) {
    let delays = sim.options.statuses;
    let wanted = match failure {
        Some(code) => vec![(delays.sent, Status::Failed(code))],
        None => vec![(delays.sent, Status::Sent), (delays.delivered, Status::Delivered), (delays.read, Status::Read)],
    };
    let (mut times, statuses): (Vec<_>, Vec<_>) =
        wanted.into_iter().filter_map(|(delay, status)| delay.map(|delay| (delay, status))).unzip();
    if sim.options.shuffle {
        crate::locked(&sim.chance).shuffle(&mut times);
    }
    for (delay, status) in times.into_iter().zip(statuses) {
        let (sim_too, wamid, to, callback) = (sim.clone(), wamid.to_owned(), to.to_owned(), callback.map(str::to_owned));
        sim.spawn(async move {
            tokio::time::sleep(delay).await;
            let body = webhook::status(&sim_too.options.account, &wamid, &to, status, sim_too.now(), callback.as_deref());
            sim_too.post(&wamid, status.name(), &to, None, body).await;
        });
    }
}
