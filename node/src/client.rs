//! A small HTTP/1.1 client of the API: one connection per call, every call with a time limit, problems as errors for people.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take, from the connection to its last byte.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_MAX: usize = 64 << 20;
/// Longest line of a stream.
const LINE_MAX: usize = 1 << 20;
/// How much of an answer that is no problem document is shown.
const FOREIGN_SHOWN: usize = 200;

/// Why a call brought nothing.
#[derive(Debug)]
pub enum CallError {
    /// The address cannot be used: wrong usage.
    Address(String),
    /// No connection, or it broke, or no answer in time.
    Unreachable(String),
    /// The server refused.
    Refused(Box<Problem>),
    /// The answer is not what this program understands.
    Odd(String),
}

/// A refusal: the members of a problem document (RFC 9457) that people need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Its short name, such as `window-closed`; empty when the answer was no problem document.
    pub code: String,
    /// One short line, the same for every occurrence.
    pub title: String,
    /// What happened this time.
    pub detail: String,
    /// Each fault: JSON pointer and what is wrong there.
    pub errors: Vec<(String, String)>,
    /// Seconds until it may succeed.
    pub retry_after_s: Option<u64>,
    /// For the server's operator.
    pub request_id: String,
    /// The document as it came, for `--json`.
    pub document: Option<Value>,
}

impl Problem {
    fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        let Ok(document @ Value::Object(_)) = serde_json::from_slice::<Value>(body) else { return Self::foreign(status, body) };
        let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fault = |fault: &Value| {
            let part = |name: &str| fault.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            (part("pointer"), part("detail"))
        };
        let errors = document.get("errors").and_then(Value::as_array).map(|errors| errors.iter().map(fault).collect()).unwrap_or_default();
        let mut title = text("title");
        if title.is_empty() {
            title = format!("the server answered {status}");
        }
        Self {
            status: status.as_u16(),
            code: text("code"),
            title,
            detail: text("detail"),
            errors,
            retry_after_s: document.get("retry_after_s").and_then(Value::as_u64),
            request_id: text("request_id"),
            document: Some(document),
        }
    }

    /// Something else than Trunkline answered, such as a proxy.
    fn foreign(status: StatusCode, body: &[u8]) -> Self {
        let shown: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(FOREIGN_SHOWN).collect();
        let title = format!("the server answered {status} without a problem document; is this the address of a trunkline?");
        Self { status: status.as_u16(), title, detail: shown, ..Self::default() }
    }

    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self.code.as_str() {
            "window-closed" => {
                "free text is allowed only after the person has written. In `trunkline dev` write as the customer first; \
                 elsewhere send --template NAME:LANG (beside --text it is used only where text is not allowed)"
            }
            "template-required" => "send --template NAME:LANG[:P1,P2]",
            "unauthenticated" => "check --key or TRUNKLINE_KEY; a restarted `trunkline dev` without --data has a new key",
            "forbidden" => "use a key with that scope; make one with `trunkline key create --scope …`",
            "idempotency-mismatch" => "use a new --idempotency-key for a new message",
            "account-disabled" => "see `trunkline account show` and `trunkline account resume`",
            _ => {
                let seconds = self.retry_after_s?;
                return Some(format!("the same request may succeed in {seconds} s"));
            }
        };
        Some(hint.to_owned())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        if !self.code.is_empty() {
            write!(f, " ({} {})", self.status, self.code)?;
        }
        // With one fault the detail repeats it.
        if !self.detail.is_empty() && self.errors.len() != 1 {
            write!(f, "\n  {}", self.detail)?;
        }
        for (pointer, detail) in &self.errors {
            write!(f, "\n  {pointer}: {detail}")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, "\n  hint: {hint}")?;
        }
        if !self.request_id.is_empty() {
            write!(f, "\n  request {}", self.request_id)?;
        }
        Ok(())
    }
}

/// A successful answer.
#[derive(Debug)]
pub struct Answer {
    /// Status, 2xx.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; nothing is `null`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        let body: &[u8] = if self.body.is_empty() { b"null" } else { &self.body };
        serde_json::from_slice(body).map_err(|error| CallError::Odd(format!("the answer is not the JSON that was expected: {error}")))
    }
}

/// Where a server is: `http://host:port/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// It is not a plain `http` URL.
    pub fn parse(url: &str) -> Result<Self, CallError> {
        let uri: Uri = url.parse().map_err(|_| CallError::Address(format!("`{url}` is not a URL; write http://host:port")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(CallError::Address(format!(
                    "`{url}`: https is not built into this command line. Use http on the machine itself, or a tunnel such as \
                     `ssh -L 8080:127.0.0.1:8080 host` with --url http://127.0.0.1:8080"
                )));
            }
            Some(_) | None => return Err(CallError::Address(format!("`{url}` is not a URL; write http://host:port"))),
        }
        let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
            return Err(CallError::Address(format!("`{url}` names no host")));
        };
        if authority.as_str().contains('@') {
            return Err(CallError::Address("a user and password in a URL are not supported".to_owned()));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), authority: authority.as_str().to_owned(), path })
    }
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    address: Address,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the server at `url`, with a key or without.
    ///
    /// # Errors
    /// The address or the key cannot be used.
    pub fn new(url: &str, key: Option<&str>) -> Result<Self, CallError> {
        let mut address = Address::parse(url)?;
        address.path.truncate(address.path.trim_end_matches('/').len());
        // People copy the base from the banner, with the version.
        if let Some(base) = address.path.strip_suffix("/v1") {
            address.path.truncate(base.len());
        }
        let bearer = |key: &str| {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                .map_err(|_| CallError::Address("the key has characters that no key has".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let authorization = key.map(bearer).transpose()?;
        Ok(Self { address, authorization })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer, CallError> {
        self.call(Method::GET, path, &[], None, ANSWER_TIMEOUT).await
    }

    /// `POST` with a JSON body or none.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer, CallError> {
        self.call(Method::POST, path, &[], body, ANSWER_TIMEOUT).await
    }

    /// Any call. A status that is not 2xx is [`CallError::Refused`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Option<&Value>,
        within: Duration,
    ) -> Result<Answer, CallError> {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let mut request = self.request(method, path);
        request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let bytes = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, content_type);
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes)).map_err(|error| CallError::Address(format!("no valid request: {error}")))?;
        let answer = exchange(&self.address, request, within).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(CallError::Refused(Box::new(Problem::from_answer(answer.status, &answer.body))))
    }

    /// A stream of lines that goes on until the server ends it.
    pub async fn lines(&self, path: &str) -> Result<Lines, CallError> {
        let request = self.request(Method::GET, path).header(header::ACCEPT, "application/x-ndjson").body(Full::new(Bytes::new()));
        let request = request.map_err(|error| CallError::Address(format!("no valid request: {error}")))?;
        let head = async { connect(&self.address).await?.send_request(request).await.map_err(broken) };
        let response = timeout(ANSWER_TIMEOUT, head).await.map_err(|_| silent(&self.address))??;
        let status = response.status();
        let body = response.into_body();
        if status.is_success() {
            return Ok(Lines { body, pending: BytesMut::new() });
        }
        let body = timeout(ANSWER_TIMEOUT, read(body)).await.map_err(|_| silent(&self.address))??;
        Err(CallError::Refused(Box::new(Problem::from_answer(status, &body))))
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address.path))
            .header(header::HOST, &self.address.authority)
            .header(header::USER_AGENT, concat!("trunkline/", env!("CARGO_PKG_VERSION")));
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        }
    }
}

/// Posts a body to any URL and gives the status of the answer, whatever it is.
pub async fn post_to(
    address: &Address,
    headers: &[(HeaderName, HeaderValue)],
    body: Bytes,
    within: Duration,
) -> Result<StatusCode, CallError> {
    let mut request = Request::post(address.path.as_str()).header(header::HOST, &address.authority);
    request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let request = request.body(Full::new(body)).map_err(|error| CallError::Address(format!("no valid request: {error}")))?;
    Ok(exchange(address, request, within).await?.status)
}

/// Lines of a streamed body.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    pending: BytesMut,
}

impl Lines {
    /// The next line without its end; none when the server has ended the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end + 1).freeze();
                return Ok(Some(line.slice(..end)));
            }
            if self.pending.len() > LINE_MAX {
                return Err(CallError::Odd(format!("the stream has a line of more than {LINE_MAX} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(broken(error)),
                None if self.pending.is_empty() => return Ok(None),
                None => return Ok(Some(self.pending.split().freeze())),
            }
        }
    }
}

async fn exchange(address: &Address, request: Request<Full<Bytes>>, within: Duration) -> Result<Answer, CallError> {
    let mut sender = connect(address).await?;
    let call = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: read(body).await? })
    };
    timeout(within, call).await.map_err(|_| silent(address))?
}

async fn read(body: Incoming) -> Result<Bytes, CallError> {
    match Limited::new(body, ANSWER_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(CallError::Odd(format!("the answer is larger than {ANSWER_MAX} bytes")))
        }
        Err(error) => Err(CallError::Unreachable(format!("the answer broke off: {error}"))),
    }
}

async fn connect(address: &Address) -> Result<http1::SendRequest<Full<Bytes>>, CallError> {
    let target = (address.host.as_str(), address.port);
    let failed = |why: String| CallError::Unreachable(format!("no connection to {}: {why}", address.authority));
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("nothing answered within {} s", CONNECT_TIMEOUT.as_secs()))),
    };
    // Only costs time when it fails.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    // Ends with its one exchange; its errors come out of the exchange too.
    tokio::spawn(connection);
    Ok(sender)
}

fn broken(error: hyper::Error) -> CallError {
    CallError::Unreachable(format!("the connection broke: {error}"))
}

fn silent(address: &Address) -> CallError {
    CallError::Unreachable(format!("{} did not answer in time", address.authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let wrong = |url: &str| match Address::parse(url) {
            Ok(_) => String::new(),
            Err(CallError::Address(why) | CallError::Unreachable(why) | CallError::Odd(why)) => why,
            Err(CallError::Refused(problem)) => problem.to_string(),
        };
        assert!(wrong("https://a").contains("https is not built into this command line"));
        assert!(wrong("a:80").contains("is not a URL"));
        assert!(wrong("http://u:p@a/").contains("password"));
        let address = Address::parse("http://[::1]:81/x?y=1").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.path.as_str()), ("::1", 81, "/x?y=1"));
        for base in ["http://a:1", "http://a:1/", "http://a:1/v1", "http://a:1/v1/"] {
            assert_eq!(Client::new(base, None).unwrap().address.path, "", "{base}");
        }
        assert!(Client::new("http://a", Some("line\nend")).is_err());
    }

    #[test]
    fn problems_read_like_sentences() {
        let cases = [
            (
                422,
                r#"{"type":"x","title":"Free text is not allowed now","code":"window-closed","status":422,"detail":"closed","request_id":"req-1"}"#,
                "Free text is not allowed now (422 window-closed)\n  closed\n  hint: free text is allowed only after the person has written. \
                 In `trunkline dev` write as the customer first; elsewhere send --template NAME:LANG (beside --text it is used only where \
                 text is not allowed)\n  request req-1",
            ),
            (
                422,
                r#"{"title":"The request breaks rules","code":"validation-failed","detail":"2 faults","errors":[{"pointer":"/to","detail":"a"},{"pointer":"/x","detail":"b"}]}"#,
                "The request breaks rules (422 validation-failed)\n  2 faults\n  /to: a\n  /x: b",
            ),
            (
                422,
                r#"{"title":"T","code":"validation-failed","detail":"/to: a","errors":[{"pointer":"/to","detail":"a"}]}"#,
                "T (422 validation-failed)\n  /to: a",
            ),
            (
                503,
                r#"{"title":"Busy","code":"overloaded","retry_after_s":3}"#,
                "Busy (503 overloaded)\n  hint: the same request may succeed in 3 s",
            ),
            (
                502,
                "<h1>\u{1b}Bad</h1>",
                "the server answered 502 Bad Gateway without a problem document; is this the address of a trunkline?\n  <h1>Bad</h1>",
            ),
        ];
        for (status, body, expected) in cases {
            let problem = Problem::from_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(problem.to_string(), expected);
        }
    }
}
