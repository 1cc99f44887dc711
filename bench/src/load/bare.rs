//! The floor that the gateway is measured against: hyper with nothing behind it, in a process of its own.
//!
//! One current-thread runtime a core, each with its own listener on the same port (SO_REUSEPORT); the body is read whole and
//! answered with an empty 200.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};

use super::cpu::CpuUse;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// What the child says first, before its address.
const HELLO: &str = "bare server listening on ";
/// Lines that the child may say before its address (a test harness does).
const LINES_MAX: usize = 100;
/// How long the child may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the bare server until standard input ends, so that it never outlives the process that started it. Prints where it
/// listens. Errors: not loopback, or the port is taken.
pub fn bare_main(addr: SocketAddr) -> io::Result<()> {
    if !addr.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the bare server listens on loopback only"));
    }
    let first = listen(addr)?;
    let addr = first.local_addr()?;
    let cores = std::thread::available_parallelism()?.get();
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(listen(addr)?);
    }
    for listener in listeners {
        std::thread::Builder::new().name("bare".to_owned()).spawn(move || serve(listener))?;
    }
    println!("{HELLO}{addr}");
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn serve(listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
                // A client that goes away is no news.
                let _ = serving.await;
            });
        }
    })
}

async fn answer(request: hyper::Request<Incoming>) -> Result<hyper::Response<Empty<Bytes>>, Infallible> {
    let mut response = hyper::Response::new(Empty::new());
    if request.into_body().collect().await.is_err() {
        *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

/// The bare server in a child process. It ends when this is dropped.
#[derive(Debug)]
pub struct BareChild {
    child: Child,
    addr: SocketAddr,
}

impl BareChild {
    /// Starts it with a command that calls `bare_main`. Errors: it does not start, or does not say where it listens in time.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        match child.stdout.take().ok_or_else(|| io::Error::other("no standard output")).and_then(read_address) {
            Ok(addr) => Ok(Self { child, addr }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Its address as `http://…`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has used until now.
    pub fn cpu(&self) -> io::Result<CpuUse> {
        CpuUse::of(self.pid())
    }
}

impl Drop for BareChild {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines until the address comes. The reader has a thread of its own because a pipe has no time limit.
fn read_address(output: std::process::ChildStdout) -> io::Result<SocketAddr> {
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().take(LINES_MAX) {
            let Ok(line) = line else { return };
            let Some((_, text)) = line.split_once(HELLO) else { continue };
            let _ = found.send(text.trim().parse::<SocketAddr>());
            return;
        }
    });
    let parsed = address.recv_timeout(START_TIMEOUT).map_err(|_| io::Error::other("the bare server did not start"))?;
    parsed.map_err(|_| io::Error::other("the bare server gave no address"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::Client;

    /// Makes a run of the test binary the child.
    const CHILD: &str = "TRUNKLINE_BENCH_BARE_CHILD";

    /// Not a test by itself: the child process of the tests that need one.
    #[test]
    fn bare_child() {
        if std::env::var_os(CHILD).is_some() {
            bare_main("127.0.0.1:0".parse().unwrap()).unwrap();
        }
    }

    pub fn command() -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "load::bare::tests::bare_child", "--nocapture"]).env(CHILD, "1");
        command
    }

    #[tokio::test]
    async fn the_child_serves_and_ends_with_its_handle() {
        let child = BareChild::spawn(command()).unwrap();
        let client = Client::new(Duration::from_secs(5));
        let url = child.url();
        let response = client.post(&url, &[], "hello").await.unwrap();
        assert_eq!((response.status, response.body.len()), (200, 0));
        assert!(child.cpu().unwrap().threads.contains_key("bare"));
        drop(child);
        assert!(client.post(&url, &[], "hello").await.is_err());
        assert!(BareChild::spawn(Command::new("/bin/true")).is_err());
        assert!(bare_main("0.0.0.0:0".parse().unwrap()).is_err());
    }
}
