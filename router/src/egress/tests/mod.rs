//! The door against real sockets on loopback. Peers are plain threads, so that every task of the runtime is the door's.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use messaging::clock::{ManualClock, Timestamp};
use messaging::exchange::HttpRequest;

use super::{AllowedNetwork, Client, Door, Policy, Settings};

mod calls;
mod cost;
mod dial;
mod keep_alive;
mod mail;
mod rebinding;
mod tls;

/// Long enough never to pass in a test that works.
const AMPLE: Duration = Duration::from_secs(30);
/// For peers that never answer.
const SHORT: Duration = Duration::from_millis(150);
const CAP: usize = 1024;

/// A peer, and what it saw.
#[derive(Clone)]
struct Peer {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    ended: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl Peer {
    /// Serves each connection on a thread of its own; the handler also gets the connection's number, from 0.
    fn start(handle: impl Fn(usize, &mut Served) + Send + Sync + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), 0, handle)
    }

    fn start_at(ip: IpAddr, port: u16, handle: impl Fn(usize, &mut Served) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, port)).expect("loopback takes listeners");
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::new(Seen::default());
        let peer = Self { address, seen: seen.clone() };
        let handle = Arc::new(handle);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let number = seen.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, handle) = (seen.clone(), handle.clone());
                std::thread::spawn(move || {
                    handle(number, &mut Served { stream, seen: seen.clone() });
                    seen.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        peer
    }

    fn url(&self) -> String {
        format!("http://{}/hook?x=1", self.address)
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Returns once every connection has ended: panics when one is held open.
    async fn all_ended(&self) {
        eventually("a connection is still open", || self.seen.ended.load(Ordering::SeqCst) == self.connections()).await;
    }
}

/// One connection of a peer.
struct Served {
    stream: TcpStream,
    seen: Arc<Seen>,
}

impl Served {
    /// Reads one request with its body; false at the end of the connection.
    fn request(&mut self) -> bool {
        let Some(text) = read_request(&mut self.stream) else { return false };
        self.seen.requests.lock().unwrap().push(text);
        true
    }

    fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The door may have hung up: that is for the test to judge.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Waits until the door hangs up.
    fn until_closed(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.stream.read(&mut buffer), Ok(1..)) {}
    }
}

fn read_request(stream: &mut impl Read) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers every request of a connection with 200.
fn serve_ok(_: usize, served: &mut Served) {
    while served.request() {
        served.write(OK);
    }
}

fn settings() -> Settings {
    let policy = Policy { allow: AllowedNetwork::LOOPBACK.to_vec(), ..Policy::default() };
    Settings { policy, connect_timeout: Duration::from_secs(5), ..Settings::default() }
}

fn clock() -> Arc<ManualClock> {
    ManualClock::at("2026-11-22T15:04:05Z".parse::<Timestamp>().expect("a time"))
}

fn door() -> Door {
    Door::new(settings(), clock()).expect("there are no extra roots")
}

fn client(peer: &Peer) -> Client {
    door().client(&peer.url()).expect("loopback is allowed")
}

fn post(url: impl Into<String>, body: impl Into<Bytes>) -> HttpRequest {
    let content_type = (http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let custom = (HeaderName::from_static("x-custom"), HeaderValue::from_static("1"));
    HttpRequest { method: Method::POST, url: url.into(), headers: vec![content_type, custom], body: body.into() }
}

/// Waits for something that other threads or tasks bring about.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    panic!("{what}");
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
