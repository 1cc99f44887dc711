//! The API as far as messages need it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderName, RETRY_AFTER, USER_AGENT};
use messaging::ids::MessageId;
use serde_json::{Value, json};

use super::people::Bucket;
use super::sessions::Told;
use super::{State, told};
use crate::http::{Reply, Request, json_reply, reply};
use crate::platform::answer::{Words, act};
use crate::platform::ledger::{Call, Fate};
use crate::platform::{Answer, Sim, WindowRule};

/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 2_000;
/// Longest nonce, in characters.
const NONCE_CHARS_MAX: usize = 25;
/// Most embeds of a message.
const EMBEDS_MAX: usize = 10;

fn error(code: u32, http: u16, message: &str) -> Reply {
    json_reply(http, &json!({ "code": code, "message": message }))
}

/// What the platform says beside a code.
fn words_of(code: u32) -> &'static str {
    match code {
        10_003 => "Unknown Channel",
        10_015 => "Unknown Webhook",
        40_003 => "You are opening direct messages too fast",
        50_007 => "Cannot send messages to this user",
        50_013 => "Missing Permissions",
        50_027 => "Invalid Webhook Token",
        50_035 => "Invalid Form Body",
        50_278 => "Cannot send messages to this user due to having no mutual guilds",
        130_000 => "API resource is currently overloaded. Try again a little later",
        _ => "simulated",
    }
}

fn limited(after: Duration) -> Reply {
    let body = json!({ "message": "You are being rate limited.", "retry_after": after.as_secs_f64(), "global": false });
    let scope = HeaderName::from_static("x-ratelimit-scope");
    json_reply(429, &body).with_header(RETRY_AFTER, &after.as_secs_f64().ceil().to_string()).with_header(scope, "user")
}

/// The headers that tell what is left.
fn with_bucket(answer: Reply, bucket: Bucket, sim: &Sim) -> Reply {
    let reset = sim.now().plus(bucket.reset_after).as_millis() as f64 / 1_000.0;
    let header = |reply: Reply, name: &'static str, value: String| reply.with_header(HeaderName::from_static(name), &value);
    let answer = header(answer, "x-ratelimit-limit", bucket.limit.to_string());
    let answer = header(answer, "x-ratelimit-remaining", bucket.remaining.to_string());
    let answer = header(answer, "x-ratelimit-reset-after", format!("{:.3}", bucket.reset_after.as_secs_f64()));
    let answer = header(answer, "x-ratelimit-reset", format!("{reset:.3}"));
    header(answer, "x-ratelimit-bucket", "simulated".to_owned())
}

/// By which way a message goes.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Channel,
    Token,
}

/// One call.
pub(super) async fn call(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    let path = request.path.clone();
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.first().is_some_and(|part| part.starts_with('v') && part[1..].bytes().all(|byte| byte.is_ascii_digit())) {
        parts.remove(0);
    }
    let is_send = matches!(parts.as_slice(), ["channels", _, "messages"] | ["webhooks", _, _]);
    if is_send && sim.script.resets_before_body() {
        sim.ledger.call(note(sim, parts[0], "", None, Fate::Lost, Bytes::new()));
        return Reply::Reset;
    }
    let Ok(body) = request.body().await else { return Reply::Close };
    if !request.header(USER_AGENT.as_str()).is_some_and(|caller| caller.starts_with("DiscordBot (")) {
        // The network in front of the platform.
        return reply(403, "text/html", "<html>error code: 1010</html>");
    }
    let needs_bot = !matches!(parts.first(), Some(&("webhooks" | "interactions")));
    if needs_bot && request.header(AUTHORIZATION.as_str()) != Some(format!("Bot {}", sim.options.credential).as_str()) {
        sim.ledger.call(note(sim, "unread", "", None, Fate::Refused(401), body));
        return error(0, 401, "401: Unauthorized");
    }
    let value: Value = if body.is_empty() { json!({}) } else { serde_json::from_slice(&body).unwrap_or(Value::Null) };
    if !value.is_object() {
        return error(50_109, 400, "The request body contains invalid JSON.");
    }
    match (request.method.clone(), parts.as_slice()) {
        (Method::GET, ["users", "@me"]) => json_reply(200, &told::bot(sim)),
        (Method::GET, ["gateway", "bot"]) => gateway(state),
        (Method::POST, ["users", "@me", "channels"]) => open(sim, state, &value, body),
        (Method::POST, ["channels", channel, "messages"]) => {
            let bucket = state.people.count(&format!("channel {channel}"), sim.now());
            let answer = take(sim, state, Way::Channel, channel, &value, body, bucket).await;
            with_bucket(answer, bucket, sim)
        }
        (Method::POST, ["channels", channel, "typing"]) => receipt(sim, state, "typing", channel, body),
        (Method::PUT, ["channels", channel, "messages", _, "reactions", _, "@me"]) => receipt(sim, state, "reaction", channel, body),
        (Method::POST, ["webhooks", application, token]) => follow_up(sim, state, application, token, &value, body).await,
        (Method::POST, ["interactions", _, token, "callback"]) => match state.people.token(token, sim.now()) {
            Some((channel, true)) => receipt(sim, state, "callback", &channel, body),
            Some((_, false)) | None => error(10_062, 404, "Unknown interaction"),
        },
        _ => error(0, 404, "404: Not Found"),
    }
}

fn gateway(state: &State) -> Reply {
    let limit = json!({ "total": 1_000, "remaining": state.sessions.sessions_left(), "reset_after": 14_400_000, "max_concurrency": 1 });
    json_reply(200, &json!({ "url": state.gateway, "shards": 1, "session_start_limit": limit }))
}

/// `POST /users/@me/channels`: the same for the same person, as often as it is asked.
fn open(sim: &Sim, state: &State, value: &Value, body: Bytes) -> Reply {
    let Some(user) = value["recipient_id"].as_str().filter(|id| id.bytes().all(|byte| byte.is_ascii_digit())) else {
        return error(50_035, 400, words_of(50_035));
    };
    let refuses = match sim.options.window {
        WindowRule::Ignore => false,
        WindowRule::RefuseAtOnce | WindowRule::FailLater => !state.people.knows(user),
    };
    if refuses {
        sim.ledger.call(note(sim, "open", user, None, Fate::Refused(50_278), body));
        return error(50_278, 403, words_of(50_278));
    }
    sim.ledger.call(note(sim, "open", user, None, Fate::Receipt, body));
    let recipient = told::person(user);
    json_reply(200, &json!({ "id": state.direct_channel(sim, user), "type": 1, "recipients": [recipient] }))
}

fn receipt(sim: &Sim, state: &State, kind: &str, channel: &str, body: Bytes) -> Reply {
    let closed = state.people.owner(channel).is_some_and(|user| state.people.is_closed(&user));
    if closed {
        sim.ledger.call(note(sim, kind, channel, None, Fate::Refused(50_007), body));
        return error(50_007, 403, words_of(50_007));
    }
    sim.ledger.call(note(sim, kind, channel, None, Fate::Receipt, body));
    reply(204, "application/json", "")
}

/// The ledger's entry of a call; the fate may still change.
fn note(sim: &Sim, kind: &str, to: &str, value: Option<&Value>, fate: Fate, body: Bytes) -> Call {
    let member = |name: &str| value.and_then(|value| value[name].as_str());
    Call {
        at: sim.now(),
        at_us: crate::monotonic_us(),
        fate,
        platform_id: None,
        to: to.to_owned(),
        kind: kind.to_owned(),
        text: member("content").map(str::to_owned),
        callback: member("nonce").map(|nonce| ours(nonce).unwrap_or_else(|| nonce.to_owned())),
        window_ends: None,
        free_form: false,
        body,
    }
}

/// The gateway's own id in a nonce of its making.
fn ours(nonce: &str) -> Option<String> {
    let bits = BASE64URL_NOPAD.decode(nonce.get(2..)?.as_bytes()).ok()?;
    bits.try_into().ok().map(|bits| MessageId(bits).to_string())
}

/// What the platform never takes.
fn refusal(state: &State, way: Way, channel: &str, value: &Value) -> Option<(u32, u16)> {
    let text = value["content"].as_str().unwrap_or_default();
    let count = |name: &str| value[name].as_array().map_or(0, Vec::len);
    let is_empty = text.is_empty() && count("embeds") == 0 && count("sticker_ids") == 0 && count("components") == 0;
    let nonce = value["nonce"].as_str().unwrap_or_default();
    if is_empty || text.chars().count() > TEXT_CHARS_MAX || count("embeds") > EMBEDS_MAX || nonce.chars().count() > NONCE_CHARS_MAX {
        return Some((50_035, 400));
    }
    if way == Way::Token {
        return None;
    }
    match state.people.owner(channel) {
        Some(user) if state.people.is_closed(&user) => Some((50_007, 403)),
        // Other channels are a guild's.
        Some(_) | None => None,
    }
}

async fn follow_up(sim: &Arc<Sim>, state: &Arc<State>, application: &str, token: &str, value: &Value, body: Bytes) -> Reply {
    let refuse = |code: u32, http: u16| {
        sim.ledger.call(note(sim, "follow_up", "", Some(value), Fate::Refused(code), body.clone()));
        error(code, http, words_of(code))
    };
    let token = percent_encoding::percent_decode_str(token).decode_utf8_lossy();
    match state.people.token(&token, sim.now()) {
        Some(_) if application != sim.options.account => refuse(10_015, 404),
        Some((channel, true)) => {
            let bucket = state.people.count(&format!("token {token}"), sim.now());
            let answer = take(sim, state, Way::Token, &channel, value, body, bucket).await;
            with_bucket(answer, bucket, sim)
        }
        Some((_, false)) => refuse(50_027, 401),
        None => refuse(10_015, 404),
    }
}

async fn take(sim: &Arc<Sim>, state: &Arc<State>, way: Way, channel: &str, value: &Value, body: Bytes, bucket: Bucket) -> Reply {
    let kind = if way == Way::Token { "follow_up" } else { "message" };
    let mut call = note(sim, kind, channel, Some(value), Fate::Lost, body);
    if bucket.is_over {
        call.fate = Fate::Refused(429);
        sim.ledger.call(call);
        return limited(bucket.reset_after);
    }
    if let Some((code, http)) = refusal(state, way, channel, value) {
        call.fate = Fate::Refused(code);
        sim.ledger.call(call);
        return error(code, http, words_of(code));
    }
    let nonce = value["nonce"].as_str().filter(|_| value["enforce_nonce"] == true);
    if let Some(first) = nonce.and_then(|nonce| state.people.sent_with(channel, nonce, sim.now())) {
        // No second message: the person sees one.
        call.fate = Fate::Receipt;
        call.platform_id = first["id"].as_str().map(str::to_owned);
        sim.ledger.call(call);
        return json_reply(200, &first);
    }
    let id = state.id(sim);
    call.platform_id = Some(id.clone());
    let mut message = told::own(sim, &id, channel, value);
    if way == Way::Token {
        message["webhook_id"] = json!(sim.options.account);
        message["type"] = json!(20);
    }
    let answer = match sim.script.take(call.text.as_deref().unwrap_or_default()) {
        // Nothing is told of a failure later.
        Answer::AcceptThenFail { .. } => Answer::Ok,
        answer => answer,
    };
    let words = Words {
        taken: json_reply(200, &message),
        error: &|code, http| error(code, http, words_of(code)),
        slow_down: &|after| (429, limited(after)),
    };
    let (sim_too, state_too, nonce, channel) = (sim.clone(), state.clone(), nonce.map(str::to_owned), channel.to_owned());
    act(sim, answer, call, words, move |_| {
        if let Some(nonce) = nonce {
            state_too.people.remember(&channel, &nonce, &message, sim_too.now());
        }
        let Some(delay) = sim_too.options.statuses.sent else { return };
        let sim_again = sim_too.clone();
        // Our own message comes back like everybody's.
        sim_again.spawn(async move {
            tokio::time::sleep(delay).await;
            super::tell(&sim_too, &state_too, &id, "echo", "", None, Told::direct("MESSAGE_CREATE", message));
        });
    })
    .await
}
