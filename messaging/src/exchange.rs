//! HTTP as data: what channels judge and build without touching a network.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// A webhook request as the gateway received it: not yet verified.
#[derive(Clone, Copy)]
pub struct WebhookRequest<'a> {
    /// GET for handshakes, POST for events.
    pub is_post: bool,
    /// The raw query string, without `?`.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a http::HeaderMap,
    /// The raw body.
    pub body: &'a Bytes,
}

/// A request to a platform or an endpoint.
#[derive(Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: http::Method,
    /// The absolute URL. May hold a secret (Telegram's token): never print it.
    pub url: String,
    /// Header names and values. May hold secrets.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpRequest({} redacted, {} bytes)", self.method, self.body.len())
    }
}

/// An answer.
#[derive(Clone)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, when it was there and readable (seconds or an HTTP date).
    pub retry_after: Option<Duration>,
    /// The body, cut at the caller's cap.
    pub body: Bytes,
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpResponse({}, {} bytes)", self.status, self.body.len())
    }
}
