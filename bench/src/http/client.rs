//! A keep-alive client for loopback.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Method, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::locked;

/// Connections kept for reuse per address.
const IDLE_MAX: usize = 256;
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

type Connection = SendRequest<Full<Bytes>>;

/// A client with kept connections and one time limit for a whole exchange.
pub struct Client {
    idle: Mutex<HashMap<SocketAddr, Vec<Connection>>>,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(timeout {:?})", self.timeout)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// `Retry-After` in seconds, when it is there.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(hyper::header::RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }
}

/// An exchange that brought no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The URL is not `http://` with a loopback address.
    Url(String),
    /// The request cannot be built (a header's name or value).
    Request(String),
    /// No connection: nothing was sent.
    Connect(String),
    /// The connection broke: the request may have been read.
    Broken(String),
    /// The time was over: the request may have been read.
    Timeout,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(why) | Self::Request(why) => f.write_str(why),
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "connection broke: {why}"),
            Self::Timeout => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// Whether the other side provably never read the request.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Url(_) | Self::Request(_) | Self::Connect(_) => true,
            Self::Broken(_) | Self::Timeout => false,
        }
    }
}

/// The address of an `http://` URL on loopback; anything else is refused, with the reason.
pub fn loopback(url: &str) -> Result<(SocketAddr, Uri), ClientError> {
    let uri: Uri = url.parse().map_err(|_| ClientError::Url("the url cannot be read".to_owned()))?;
    if uri.scheme_str() != Some("http") {
        return Err(ClientError::Url("the url must begin with http://, simulators and load stay on this machine".to_owned()));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let ip = if host == "localhost" { Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { host.parse().ok() };
    match ip {
        Some(ip) if ip.is_loopback() => Ok((SocketAddr::new(ip, uri.port_u16().unwrap_or(80)), uri)),
        Some(_) | None => Err(ClientError::Url(format!("{host} is not a loopback address, simulators and load stay on this machine"))),
    }
}

impl Client {
    /// With a time limit for a whole exchange.
    pub fn new(timeout: Duration) -> Self {
        Self { idle: Mutex::default(), timeout }
    }

    /// GET.
    pub async fn get(&self, url: &str) -> Result<Response, ClientError> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// POST with headers beside `content-type: application/json`.
    pub async fn post(&self, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Response, ClientError> {
        self.send(Method::POST, url, headers, body.into()).await
    }

    /// Any request. `content-type` is JSON for requests with a body unless the headers name another.
    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Response, ClientError> {
        let (addr, uri) = loopback(url)?;
        let mut request = hyper::Request::builder().method(method).uri(uri.path_and_query().map_or("/", |path| path.as_str()));
        request = request.header(hyper::header::HOST, addr.to_string());
        let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !body.is_empty() && !has_type {
            request = request.header(hyper::header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| ClientError::Request(error.to_string()))?;
        tokio::time::timeout(self.timeout, self.exchange(addr, request)).await.unwrap_or(Err(ClientError::Timeout))
    }

    async fn exchange(&self, addr: SocketAddr, request: hyper::Request<Full<Bytes>>) -> Result<Response, ClientError> {
        let response = match self.kept(addr) {
            None => self.over_new(addr, request).await?,
            Some(mut connection) => match connection.try_send_request(request).await {
                Ok(response) => (connection, response),
                Err(mut failed) => match failed.take_message() {
                    // A kept connection had been closed meanwhile: nothing was written, so a new one may carry it.
                    Some(request) => self.over_new(addr, request).await?,
                    None => return Err(ClientError::Broken(failed.into_error().to_string())),
                },
            },
        };
        let (connection, response) = response;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| ClientError::Broken(error.to_string()))?.to_bytes();
        self.keep(addr, connection);
        Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    async fn over_new(
        &self,
        addr: SocketAddr,
        request: hyper::Request<Full<Bytes>>,
    ) -> Result<(Connection, hyper::Response<hyper::body::Incoming>), ClientError> {
        let stream = TcpStream::connect(addr).await.map_err(|error| ClientError::Connect(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| ClientError::Connect(error.to_string()))?;
        let (mut connection, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| ClientError::Connect(error.to_string()))?;
        // Ends by itself when the connection handle is dropped or the other side closes.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        let response = connection.send_request(request).await.map_err(|error| ClientError::Broken(error.to_string()))?;
        Ok((connection, response))
    }

    fn kept(&self, addr: SocketAddr) -> Option<Connection> {
        let mut idle = locked(&self.idle);
        let kept = idle.get_mut(&addr)?;
        while let Some(connection) = kept.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, addr: SocketAddr, connection: Connection) {
        if connection.is_closed() {
            return;
        }
        let mut idle = locked(&self.idle);
        let kept = idle.entry(addr).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reply, Request, Server, reply};
    use super::*;

    async fn answer(mut request: Request) -> Reply {
        let path = request.path.clone();
        match path.as_str() {
            "/close" => Reply::Close,
            "/reset" => Reply::Reset,
            _ => match request.body().await {
                Ok(body) => reply(200, "text/plain", body),
                Err(_) => reply(400, "text/plain", "no body"),
            },
        }
    }

    #[tokio::test]
    async fn connections_are_reused_and_cuts_are_seen() {
        let server = Server::start("127.0.0.1:0".parse().unwrap(), answer).await.unwrap();
        let client = Client::new(Duration::from_secs(5));
        for round in 0..3 {
            let response = client.post(&format!("{}/echo", server.url()), &[], format!("hello {round}")).await.unwrap();
            assert_eq!((response.status, response.body), (200, Bytes::from(format!("hello {round}"))));
        }
        assert_eq!(locked(&client.idle).values().map(Vec::len).sum::<usize>(), 1, "one connection serves calls in a row");
        for cut in ["close", "reset"] {
            let error = client.post(&format!("{}/{cut}", server.url()), &[], "x").await.unwrap_err();
            assert!(matches!(error, ClientError::Broken(_)) && !error.is_unsent(), "{cut}: {error}");
        }
        let addr = server.addr();
        server.stop().await;
        let error = client.get(&format!("http://{addr}/")).await.unwrap_err();
        assert!(error.is_unsent(), "{error}");
        Server::start(addr, answer).await.expect("the port is free again");
    }

    #[test]
    fn only_loopback_is_reached() {
        for good in ["http://127.0.0.1:80/x", "http://localhost/x", "http://[::1]:9/", "http://127.9.9.9/"] {
            assert!(loopback(good).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1/", "https://127.0.0.1/", "http://example.org/", "127.0.0.1:80", "", "http://0.0.0.0/"] {
            assert!(loopback(bad).is_err(), "{bad}");
        }
    }
}
