//! The Gateway's door: hello, identify or resume, heartbeats, close codes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use super::sessions::{Identity, Push, WAITING_MAX, frame};
use super::{State, told};
use crate::locked;
use crate::platform::Sim;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Longest frame of a client, in bytes.
const FRAME_BYTES_MAX: usize = 4_096;
/// What is read at all: so a frame that is too long is answered with a code.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Frames of a client within a minute.
const FRAMES_PER_MINUTE: usize = 120;
/// How many heartbeats may be missed.
const BEATS_MISSED: u32 = 2;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A running Gateway; it ends when this is dropped.
pub(super) struct Socket(JoinHandle<()>);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A free port of this machine.
pub(super) async fn bind(ip: IpAddr) -> io::Result<TcpListener> {
    if !ip.is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "simulators serve this machine only"));
    }
    TcpListener::bind(SocketAddr::new(ip, 0)).await
}

impl Socket {
    pub fn start(listener: TcpListener, sim: Arc<Sim>, state: Arc<State>) -> Self {
        Self(tokio::spawn(accept(listener, sim, state)))
    }

    pub fn is_listening(&self) -> bool {
        !self.0.is_finished()
    }
}

async fn accept(listener: TcpListener, sim: Arc<Sim>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (sim, state) = (sim.clone(), state.clone());
        connections.spawn(async move { serve(stream, &sim, &state).await });
    }
}

type Wire = WebSocketStream<TcpStream>;

/// How a connection ends.
enum End {
    /// With a code of ours.
    Close(u16),
    /// Without a word.
    Cut,
    /// The client closed, with this code.
    Closed(Option<u16>),
}

async fn serve(stream: TcpStream, sim: &Sim, state: &State) {
    let query = Mutex::new(String::new());
    #[allow(clippy::result_large_err, reason = "the type is the library's")]
    let keep = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        *locked(&query) = request.uri().query().unwrap_or_default().to_owned();
        Ok(response)
    };
    let config = WebSocketConfig::default().max_message_size(Some(READ_BYTES_MAX)).max_frame_size(Some(READ_BYTES_MAX));
    let Ok(mut wire) = tokio_tungstenite::accept_hdr_async_with_config(stream, keep, Some(config)).await else { return };
    let is_known = locked(&query).split('&').any(|part| part == "v=10");
    let mut session = None;
    let end = if is_known { talk(&mut wire, sim, state, &mut session).await } else { End::Close(4012) };
    if let Some(session) = &session {
        let for_good = matches!(end, End::Closed(Some(1000 | 1001)));
        state.sessions.left(session, for_good);
    }
    if let End::Close(code) = end {
        // Whoever does not listen any more need not hear it.
        let _ = wire.close(Some(CloseFrame { code: code.into(), reason: "simulated".into() })).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), async { while wire.next().await.is_some_and(|read| read.is_ok()) {} }).await;
    }
}

async fn talk(wire: &mut Wire, sim: &Sim, state: &State, session: &mut Option<String>) -> End {
    let every = state.sessions.connected();
    let (out, mut to_send) = mpsc::channel(WAITING_MAX);
    let hello = frame(10, &json!({ "heartbeat_interval": every.as_millis() as u64, "_trace": [] }), None, None);
    if wire.send(Message::text(hello)).await.is_err() {
        return End::Cut;
    }
    let mut frames = Vec::new();
    let patience = tokio::time::sleep(every * BEATS_MISSED);
    tokio::pin!(patience);
    loop {
        let read = tokio::select! {
            () = &mut patience => return End::Close(4009),
            push = to_send.recv() => match push {
                Some(Push::Frame(text)) => match wire.send(Message::text(text)).await {
                    Ok(()) => continue,
                    Err(_) => return End::Cut,
                },
                Some(Push::Close(code)) => return End::Close(code),
                Some(Push::Cut) | None => return End::Cut,
            },
            read = wire.next() => read,
        };
        let text = match read {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(close))) => return End::Closed(close.map(|close| close.code.into())),
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => return End::Cut,
        };
        let now = tokio::time::Instant::now();
        frames.retain(|at| now.duration_since(*at) < Duration::from_secs(60));
        frames.push(now);
        if frames.len() > FRAMES_PER_MINUTE {
            return End::Close(4008);
        }
        if text.len() > FRAME_BYTES_MAX {
            return End::Close(4002);
        }
        let Ok(said) = serde_json::from_str::<Value>(&text) else { return End::Close(4002) };
        if said["op"] == 1 {
            patience.as_mut().reset(now + every * BEATS_MISSED);
        }
        match answer(&said, sim, state, session, &out) {
            Ok(Some(text)) => {
                if wire.send(Message::text(text)).await.is_err() {
                    return End::Cut;
                }
            }
            Ok(None) => {}
            Err(code) => return End::Close(code),
        }
    }
}

/// The answer to a frame, or the code to close with.
fn answer(said: &Value, sim: &Sim, state: &State, session: &mut Option<String>, out: &mpsc::Sender<Push>) -> Result<Option<String>, u16> {
    let about = &said["d"];
    match said["op"].as_u64() {
        Some(1) => Ok(state.sessions.beat(session.as_deref(), about.as_u64()).then(|| frame(11, &Value::Null, None, None))),
        Some(2 | 6) if session.is_some() => Err(4005),
        Some(2 | 6) if about["token"] != sim.options.credential.as_str() => Err(4004),
        Some(2) => {
            let id = state.sessions.identify(identity(about)?, out.clone())?;
            *session = Some(id.clone());
            let ready = json!({
                "v": 10, "user": told::bot(sim), "guilds": [], "session_id": id, "resume_gateway_url": state.gateway,
                "shard": about.get("shard").cloned().unwrap_or_else(|| json!([0, 1])), "application": { "id": sim.options.account },
            });
            state.sessions.dispatch(&id, "READY", &ready);
            Ok(None)
        }
        Some(6) => {
            let (Some(id), Some(number)) = (about["session_id"].as_str(), about["seq"].as_u64()) else { return Err(4002) };
            if !state.sessions.resume(id, number, out.clone())? {
                return Ok(Some(frame(9, &json!(false), None, None)));
            }
            *session = Some(id.to_owned());
            Ok(None)
        }
        Some(3 | 4 | 8) if session.is_some() => Ok(None),
        Some(3 | 4 | 8) => Err(4003),
        Some(_) => Err(4001),
        None => Err(4002),
    }
}

fn identity(about: &Value) -> Result<Identity, u16> {
    let intents = about["intents"].as_u64().ok_or(4013u16)?;
    if !about["properties"].is_object() {
        return Err(4002);
    }
    let shard = match about.get("shard") {
        None => (0, 1),
        Some(shard) => shard[0].as_u64().zip(shard[1].as_u64()).ok_or(4010u16)?,
    };
    Ok(Identity { intents, shard })
}
