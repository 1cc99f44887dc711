//! A server on hyper's HTTP/1: keep-alive, bounded bodies and connections; a handler may also cut or reset the connection.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Connections that one server keeps open at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// Longest body that a handler can read.
const BODY_BYTES_MAX: usize = 16 << 20;
/// How long a client may take to send its headers, and how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept, so that a shortage of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A request whose body is not read yet.
pub struct Request {
    /// The method.
    pub method: hyper::Method,
    /// The path, without the query.
    pub path: String,
    /// The query, without `?`; empty when there is none.
    pub query: String,
    /// The headers.
    pub headers: hyper::HeaderMap,
    body: Incoming,
}

/// The body did not come whole.
#[derive(Debug)]
pub struct BodyError;

impl Request {
    /// Reads the body, at most 16 MiB.
    pub async fn body(&mut self) -> Result<Bytes, BodyError> {
        let whole = Limited::new(&mut self.body, BODY_BYTES_MAX).collect().await.map_err(|_| BodyError)?;
        Ok(whole.to_bytes())
    }

    /// A header as text; none when it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What a handler does with a request.
#[derive(Debug)]
pub enum Reply {
    /// Answers.
    Answer(hyper::Response<Bytes>),
    /// Closes the connection without an answer.
    Close,
    /// Resets the connection (RST) without an answer.
    Reset,
}

impl Reply {
    /// Adds a header to an answer. A value that is no header value is left out.
    pub fn with_header(mut self, name: hyper::header::HeaderName, value: &str) -> Self {
        if let (Self::Answer(response), Ok(value)) = (&mut self, hyper::header::HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
        self
    }
}

/// An answer with a status, a content type and a body.
pub fn reply(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut response = hyper::Response::new(body.into());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    Reply::Answer(response)
}

/// An answer in JSON.
pub fn json_reply(status: u16, value: &serde_json::Value) -> Reply {
    reply(status, "application/json; charset=UTF-8", value.to_string())
}

/// A running server. It stops, and its connections break, when this is dropped.
pub struct Server {
    addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.addr)
    }
}

impl Server {
    /// Binds (port 0: any free one) and serves on the current runtime. Errors: the address is taken, or not loopback.
    pub async fn start<H, F>(addr: SocketAddr, handler: H) -> io::Result<Self>
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        if !addr.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{addr} is not a loopback address: simulators serve this machine only"),
            ));
        }
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Self { addr, accepting: accepting(listener, Arc::new(move |request| Box::pin(handler(request)))) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address as `http://…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops; when this returns the port is free again and open connections break.
    pub async fn stop(mut self) {
        self.accepting.abort();
        // The only result of an aborted task is that it was aborted.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A handler of whatever type: hyper's server is compiled once, and not for every simulator.
type Handler = Arc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

fn accepting(listener: TcpListener, handler: Handler) -> JoinHandle<()> {
    tokio::spawn(accept(listener, handler))
}

async fn accept(listener: TcpListener, handler: Handler) {
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
        let handler = handler.clone();
        connections.spawn(async move {
            // A connection that breaks is what these simulators are for; there is nobody to tell.
            let _ = serve_connection(stream, handler).await;
        });
    }
}

/// Makes hyper drop the connection without an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection cut on purpose")
    }
}

impl std::error::Error for Cut {}

async fn serve_connection(stream: TcpStream, handler: Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    // A second descriptor of the same socket: a reset sets its linger to zero, and the last close then sends RST.
    let socket = Arc::new(socket2::Socket::from(stream.try_clone()?));
    let stream = TcpStream::from_std(stream)?;
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (handler, socket) = (handler.clone(), socket.clone());
        async move {
            let (parts, body) = request.into_parts();
            let request = Request {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body,
            };
            match handler(request).await {
                Reply::Answer(response) => Ok(response.map(Full::<Bytes>::from)),
                Reply::Close => Err(Cut),
                Reply::Reset => {
                    let _ = socket.set_linger(Some(Duration::ZERO));
                    Err(Cut)
                }
            }
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_close_ends_the_stream_and_a_reset_breaks_it() {
        let handler = |mut request: Request| async move {
            let _ = request.body().await;
            if request.path == "/close" { Reply::Close } else { Reply::Reset }
        };
        let server = Server::start("127.0.0.1:0".parse().unwrap(), handler).await.unwrap();
        for (path, expected) in [("/close", Ok(0)), ("/reset", Err(io::ErrorKind::ConnectionReset))] {
            let mut stream = TcpStream::connect(server.addr()).await.unwrap();
            stream.write_all(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi").as_bytes()).await.unwrap();
            assert_eq!(stream.read(&mut [0; 64]).await.map_err(|error| error.kind()), expected, "{path}");
        }
        assert!(Server::start("0.0.0.0:0".parse().unwrap(), handler).await.is_err(), "this machine only");
    }
}
