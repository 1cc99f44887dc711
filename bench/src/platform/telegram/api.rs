//! The Bot API's methods as far as messages need them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{State, private_chat};
use crate::http::{Reply, Request, json_reply, loopback};
use crate::platform::answer::{Words, act};
use crate::platform::ledger::{Call, Fate};
use crate::platform::{Answer, Sim, WindowRule};

/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 4_096;
/// Longest caption, in characters.
const CAPTION_CHARS_MAX: usize = 1_024;

/// The member that a sending method needs beside `chat_id`.
const SENDS: [(&str, &str); 13] = [
    ("sendMessage", "text"),
    ("sendPhoto", "photo"),
    ("sendVideo", "video"),
    ("sendAudio", "audio"),
    ("sendVoice", "voice"),
    ("sendAnimation", "animation"),
    ("sendDocument", "document"),
    ("sendSticker", "sticker"),
    ("sendVideoNote", "video_note"),
    ("sendLocation", "latitude"),
    ("sendVenue", "latitude"),
    ("sendContact", "phone_number"),
    ("sendPoll", "question"),
];
/// Methods that succeed without leaving a message.
const RECEIPTS: [&str; 4] = ["sendChatAction", "setMessageReaction", "answerCallbackQuery", "readBusinessMessage"];

fn ok(result: Value) -> Reply {
    json_reply(200, &json!({ "ok": true, "result": result }))
}

fn error(code: u32, http: u16, description: &str) -> Reply {
    json_reply(http, &json!({ "ok": false, "error_code": code, "description": description }))
}

pub(super) fn not_found() -> Reply {
    error(404, 404, "Not Found")
}

/// What the platform says beside a code of a script.
fn description(code: u32) -> &'static str {
    match code {
        400 => "Bad Request: simulated",
        401 => "Unauthorized",
        403 => "Forbidden: bot was blocked by the user",
        409 => "Conflict: terminated by other getUpdates request",
        _ => "Internal Server Error",
    }
}

fn slow_down(after: Duration) -> (u32, Reply) {
    let seconds = after.as_secs().max(1);
    let body = json!({
        "ok": false, "error_code": 429, "description": format!("Too Many Requests: retry after {seconds}"),
        "parameters": { "retry_after": seconds },
    });
    (429, json_reply(429, &body).with_header(hyper::header::RETRY_AFTER, &seconds.to_string()))
}

/// The bot as a user object.
pub(super) fn bot(sim: &Sim) -> Value {
    let id = sim.options.credential.split(':').next().and_then(|id| id.parse::<i64>().ok()).unwrap_or(7_000_000_001);
    json!({ "id": id, "is_bot": true, "first_name": "Simulated Shop", "username": "simulated_shop_bot" })
}

/// One call.
pub(super) async fn call(sim: &Arc<Sim>, state: &Arc<State>, token: &str, method: &str, mut request: Request) -> Reply {
    let send = SENDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(method));
    if send.is_some() && sim.script.resets_before_body() {
        sim.ledger.call(note(sim, method, None, Fate::Lost, Bytes::new()));
        return Reply::Reset;
    }
    let Ok(body) = request.body().await else { return Reply::Close };
    if token != sim.options.credential {
        sim.ledger.call(note(sim, method, None, Fate::Refused(401), body));
        return error(401, 401, "Unauthorized");
    }
    let arguments: Value = match body.is_empty() {
        true => json!({}),
        false => match serde_json::from_slice(&body) {
            Ok(arguments) => arguments,
            Err(_) => return error(400, 400, "Bad Request: can't parse JSON object"),
        },
    };
    if let Some((name, needed)) = send {
        return take_send(sim, state, name, needed, &arguments, body).await;
    }
    match method {
        "getMe" => ok(bot(sim)),
        "getFile" => get_file(state, &arguments),
        "setWebhook" => set_webhook(sim, &arguments),
        "getWebhookInfo" => ok(json!({ "url": "", "has_custom_certificate": false, "pending_update_count": 0 })),
        _ if RECEIPTS.iter().any(|name| name.eq_ignore_ascii_case(method)) => {
            sim.ledger.call(note(sim, method, Some(&arguments), Fate::Receipt, body));
            ok(json!(true))
        }
        _ => not_found(),
    }
}

/// Bots are given files of at most 20 MB.
const FILE_BYTES_MAX: usize = 20 << 20;

fn get_file(state: &State, arguments: &Value) -> Reply {
    let id = arguments["file_id"].as_str().unwrap_or_default();
    match state.files.get(id) {
        Some(file) if file.bytes.len() > FILE_BYTES_MAX => error(400, 400, "Bad Request: file is too big"),
        Some(file) => ok(json!({
            "file_id": id, "file_unique_id": format!("u{id}"), "file_size": file.bytes.len(), "file_path": format!("files/{id}"),
        })),
        None => error(400, 400, "Bad Request: wrong file_id or the file is temporarily unavailable"),
    }
}

fn set_webhook(sim: &Sim, arguments: &Value) -> Reply {
    let url = arguments["url"].as_str().unwrap_or_default();
    if let Err(refusal) = loopback(url) {
        return error(400, 400, &format!("Bad Request: bad webhook: {refusal}"));
    }
    sim.hook.set_url(Some(url.to_owned()));
    ok(json!(true))
}

fn chat_of(arguments: &Value) -> Option<i64> {
    let chat = &arguments["chat_id"];
    chat.as_i64().or_else(|| chat.as_str()?.parse().ok())
}

/// The ledger's entry of a call; the fate may still change. Telegram carries no id of the caller's.
fn note(sim: &Sim, method: &str, arguments: Option<&Value>, fate: Fate, body: Bytes) -> Call {
    let text = arguments.and_then(|arguments| arguments["text"].as_str().or(arguments["caption"].as_str()));
    Call {
        at: sim.now(),
        at_us: crate::monotonic_us(),
        fate,
        platform_id: None,
        to: arguments.and_then(chat_of).map(|chat| chat.to_string()).unwrap_or_default(),
        kind: method.to_owned(),
        text: text.map(str::to_owned),
        callback: None,
        window_ends: None,
        free_form: false,
        body,
    }
}

/// The platform's own rules: what it answers to a send that it would never take.
fn refusal(sim: &Sim, state: &State, needed: &str, arguments: &Value) -> Option<(u32, &'static str)> {
    let Some(chat) = chat_of(arguments) else { return Some((400, "Bad Request: chat_id is empty")) };
    if arguments.get(needed).is_none_or(Value::is_null) {
        return Some((400, "Bad Request: message content is missing"));
    }
    let chars = |name: &str| arguments[name].as_str().map_or(0, |text| text.chars().count());
    if needed == "text" && chars("text") == 0 {
        return Some((400, "Bad Request: message text is empty"));
    }
    if chars("text") > TEXT_CHARS_MAX {
        return Some((400, "Bad Request: message is too long"));
    }
    if chars("caption") > CAPTION_CHARS_MAX {
        return Some((400, "Bad Request: message caption is too long"));
    }
    if state.is_blocked(chat) {
        return Some((403, "Forbidden: bot was blocked by the user"));
    }
    match sim.options.window {
        WindowRule::Ignore => None,
        WindowRule::RefuseAtOnce | WindowRule::FailLater if state.knows(chat) => None,
        WindowRule::RefuseAtOnce | WindowRule::FailLater => Some((400, "Bad Request: chat not found")),
    }
}

async fn take_send(sim: &Arc<Sim>, state: &Arc<State>, method: &str, needed: &str, arguments: &Value, body: Bytes) -> Reply {
    let mut call = note(sim, method, Some(arguments), Fate::Lost, body);
    if let Some((code, why)) = refusal(sim, state, needed, arguments) {
        call.fate = Fate::Refused(code);
        sim.ledger.call(call);
        return error(code, code as u16, why);
    }
    let chat = chat_of(arguments).unwrap_or_default();
    let message = state.message_id();
    call.platform_id = Some(message.to_string());
    let taken = json!({
        "message_id": message, "from": bot(sim), "chat": private_chat(chat, "Test"), "date": sim.now().as_secs(), "text": call.text,
    });
    let answer = match sim.script.take(call.text.as_deref().unwrap_or_default()) {
        // Bots get no statuses: there is no later failure.
        Answer::AcceptThenFail { .. } => Answer::Ok,
        // Chaos speaks WhatsApp's codes; here a code is an HTTP status.
        Answer::Error { code, http } if code > 599 => Answer::Error { code: u32::from(http), http },
        answer => answer,
    };
    let words = Words { taken: ok(taken), error: &|code, http| error(code, http, description(code)), slow_down: &slow_down };
    act(sim, answer, call, words, |_| ()).await
}
