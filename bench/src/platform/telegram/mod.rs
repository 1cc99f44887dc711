//! Telegram Bot API, simulated.
//!
//! Serves `/bot{token}/{method}`, and files at the path that `getFile` names; posts updates with the secret token's header, in order per chat (the next update of a chat
//! waits for the one that is refused), redelivered on anything but 2xx. For people: `POST /sim/message`, `GET /sim/ledger`.

mod api;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};

use super::hook::{Hook, Proof};
use super::media::{PersonsFile, Shelf};
use super::{Answer, Call, Offered, Posted, Sim, SimOptions, common_face};
use crate::http::{Reply, Request, Server, json_reply};
use crate::locked;

/// Chats that are known at once.
const CHATS_MAX: usize = 1_000_000;

/// A simulated bot.
pub struct TelegramSim {
    sim: Arc<Sim>,
    state: Arc<State>,
    server: Server,
}

/// What only Telegram has.
pub(crate) struct State {
    chats: Mutex<HashMap<i64, Arc<tokio::sync::Mutex<()>>>>,
    blocked: Mutex<HashSet<i64>>,
    next_update: AtomicI64,
    next_message: AtomicI64,
    /// What people sent.
    files: Shelf,
}

common_face!(TelegramSim);

impl TelegramSim {
    /// Starts it. The bot's id is what stands before the colon of the credential. Errors: the address cannot be bound.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let hook = Hook::new(Proof::Token(options.secret.clone()), options.redelivery);
        let listen = options.listen;
        let first_update = 880_000_000 + (options.seed % 1_000) as i64 * 1_000_000;
        let sim = Sim::new(options, hook);
        let state = Arc::new(State {
            chats: Mutex::default(),
            blocked: Mutex::default(),
            next_update: AtomicI64::new(first_update),
            next_message: AtomicI64::new(101),
            files: Shelf::default(),
        });
        let handler = {
            let (sim, state) = (sim.clone(), state.clone());
            move |request| {
                let (sim, state) = (sim.clone(), state.clone());
                async move { route(&sim, &state, request).await }
            }
        };
        let server = Server::start(listen, handler).await?;
        Ok(Self { sim, state, server })
    }

    /// A person writes in their private chat; returns when the update was taken or given up.
    pub async fn customer_writes(&self, chat: i64, text: &str) -> Posted {
        customer_writes(&self.sim, &self.state, chat, "Test", text).await
    }

    /// A person sends a file in their private chat; gives the platform's id of it. Returns when the update was taken or given up.
    pub async fn customer_sends_file(&self, chat: i64, file: PersonsFile) -> (String, Posted) {
        let id = self.state.files.put(file.clone());
        let mut part =
            json!({ "file_id": id, "file_unique_id": format!("u{id}"), "file_size": file.bytes.len(), "mime_type": file.mime_type });
        if let Some(name) = &file.filename {
            part["file_name"] = json!(name);
        }
        let mut message = json!({
            "message_id": self.state.message_id(), "from": person(chat, "Test"), "chat": private_chat(chat, "Test"),
            "date": self.sim.now().as_secs(),
        });
        match file.kind {
            "image" => {
                message["photo"] =
                    json!([{ "file_id": id, "file_unique_id": "u", "width": 90, "height": 90, "file_size": file.bytes.len() }])
            }
            kind => message[kind] = part,
        }
        (id, self.post_event(chat, &json!({ "message": message })).await)
    }

    /// How often bytes of files were given out.
    pub fn files_served(&self) -> u64 {
        self.state.files.served()
    }

    /// The platform loses all files.
    pub fn forget_files(&self) {
        self.state.files.clear();
    }

    /// Posts any update of a chat in its turn. `update_id` is added when it is missing.
    pub async fn post_event(&self, chat: i64, update: &Value) -> Posted {
        let mut update = update.clone();
        if update.get("update_id").is_none() {
            update["update_id"] = json!(self.state.update_id());
        }
        post_update(&self.sim, &self.state, chat, "event", None, &update).await
    }

    /// The person blocks the bot or lets it in again; sends are refused (403) meanwhile. Returns when the update was taken.
    pub async fn set_blocked(&self, chat: i64, blocked: bool) -> Posted {
        let (old, new) = if blocked { ("member", "kicked") } else { ("kicked", "member") };
        if blocked {
            locked(&self.state.blocked).insert(chat);
        } else {
            locked(&self.state.blocked).remove(&chat);
        }
        let bot = api::bot(&self.sim);
        let update = json!({ "my_chat_member": {
            "chat": private_chat(chat, "Test"), "from": person(chat, "Test"), "date": self.sim.now().as_secs(),
            "old_chat_member": { "user": bot, "status": old }, "new_chat_member": { "user": bot, "status": new, "until_date": 0 },
        } });
        self.post_event(chat, &update).await
    }

    /// Makes a chat known as if the person had started the bot, without an update.
    pub fn open_chat(&self, chat: i64) {
        self.state.turn(chat);
    }
}

impl State {
    fn update_id(&self) -> i64 {
        self.next_update.fetch_add(1, Ordering::Relaxed)
    }

    fn message_id(&self) -> i64 {
        self.next_message.fetch_add(1, Ordering::Relaxed)
    }

    fn knows(&self, chat: i64) -> bool {
        locked(&self.chats).contains_key(&chat)
    }

    fn is_blocked(&self, chat: i64) -> bool {
        locked(&self.blocked).contains(&chat)
    }

    /// The chat's turn: whoever holds it posts. Makes the chat known.
    fn turn(&self, chat: i64) -> Arc<tokio::sync::Mutex<()>> {
        let mut chats = locked(&self.chats);
        if chats.len() >= CHATS_MAX && !chats.contains_key(&chat) {
            return Arc::default();
        }
        chats.entry(chat).or_default().clone()
    }
}

fn person(chat: i64, name: &str) -> Value {
    json!({ "id": chat, "is_bot": false, "first_name": name, "language_code": "en" })
}

fn private_chat(chat: i64, name: &str) -> Value {
    json!({ "id": chat, "first_name": name, "type": "private" })
}

async fn customer_writes(sim: &Arc<Sim>, state: &State, chat: i64, name: &str, text: &str) -> Posted {
    let update = json!({ "update_id": state.update_id(), "message": {
        "message_id": state.message_id(), "from": person(chat, name), "chat": private_chat(chat, name),
        "date": sim.now().as_secs(), "text": text,
    } });
    post_update(sim, state, chat, "message", Some(text.to_owned()), &update).await
}

async fn post_update(sim: &Sim, state: &State, chat: i64, kind: &'static str, text: Option<String>, update: &Value) -> Posted {
    let turn = state.turn(chat);
    let _turn = turn.lock().await;
    let id = update["update_id"].to_string();
    sim.post(&id, kind, &chat.to_string(), text, Bytes::from(update.to_string())).await
}

async fn route(sim: &Arc<Sim>, state: &Arc<State>, mut request: Request) -> Reply {
    let path = request.path.clone();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["sim", "message"] if request.method == hyper::Method::POST => write_as_customer(sim, state, &mut request).await,
        ["sim", "ledger"] => super::show_ledger(sim),
        ["file", bot, "files", id] if bot.strip_prefix("bot") == Some(&sim.options.credential) => match state.files.get(id) {
            Some(file) => state.files.give(file),
            None => api::not_found(),
        },
        [bot, method] if bot.starts_with("bot") => api::call(sim, state, &bot["bot".len()..], method, request).await,
        _ => api::not_found(),
    }
}

async fn write_as_customer(sim: &Arc<Sim>, state: &Arc<State>, request: &mut Request) -> Reply {
    let written = match super::read_written(request).await {
        Ok(written) => written,
        Err(reply) => return reply,
    };
    let digits: String = written.from.chars().filter(char::is_ascii_digit).collect();
    let Ok(chat) = digits.parse::<i64>() else {
        return json_reply(400, &json!({ "error": "from is not a chat id" }));
    };
    let name = written.name.unwrap_or_else(|| "Test".to_owned());
    let (sim_too, state) = (sim.clone(), state.clone());
    sim.spawn(async move {
        customer_writes(&sim_too, &state, chat, &name, &written.text).await;
    });
    json_reply(202, &json!({ "chat_id": chat }))
}

#[cfg(test)]
mod tests;
