//! HTTP as data: what channels judge and build without touching a network.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock::Timestamp;
use crate::seal::Secret;

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
    /// When it came, for signatures that hold for a while.
    pub now: Timestamp,
    /// What `Channel::needs` asked for.
    pub fetched: Option<&'a Bytes>,
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
#[derive(Clone, Default)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, when it was there and readable (seconds or an HTTP date).
    pub retry_after: Option<Duration>,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body, cut at the caller's cap.
    pub body: Bytes,
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpResponse({}, {} bytes)", self.status, self.body.len())
    }
}

/// A connection to be spoken over for as long as both sides like: TCP, with TLS where the address wants it.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// How a connection to a mail relay is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailSecurity {
    /// TLS from the first byte (port 465).
    Tls,
    /// `STARTTLS`, which must succeed (port 587).
    StartTls,
    /// None: for a relay on this machine.
    Plain,
}

/// A mail for a relay.
#[derive(Clone)]
pub struct MailSubmission {
    /// The relay's name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: MailSecurity,
    /// Who submits; none: without authentication.
    pub user: Option<String>,
    /// The password.
    pub password: Secret,
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// The mail with its headers.
    pub message: Bytes,
}

impl fmt::Debug for MailSubmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailSubmission({} bytes, redacted)", self.message.len())
    }
}

/// Where a submission stood when the relay gave its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailStep {
    /// The greeting, `EHLO` or `STARTTLS`.
    Greeting,
    /// `AUTH`.
    Auth,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO` of the message's own recipient.
    Recipient,
    /// `RCPT TO` of another one. Nothing was sent to anybody.
    Copy,
    /// `DATA`.
    Data,
    /// The mail itself.
    Content,
}

/// A relay's last answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailReply {
    /// The code: 250, 451, 550 …
    pub code: u16,
    /// To what it answered.
    pub step: MailStep,
    /// Its text, shortened. May name the recipient: not for logs.
    pub text: String,
    /// Whether the mail's last byte had been written before this answer: a broken connection after it is of unknown fate.
    pub after_data: bool,
}
