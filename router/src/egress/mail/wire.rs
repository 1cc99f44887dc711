//! The bytes below a submission: plain or TLS, and the few commands before TLS begins.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use lettre::transport::smtp::extension::ClientId;
use messaging::exchange::{MailReply, MailStep};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::TEXT_CHARS_MAX;
use crate::egress::{CallError, ErrorKind};

/// Longest answer before TLS begins, in bytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Most bytes that a relay may say between two things that we say: RFC 5321 allows 512 for a line, and extensions are a few lines. The
/// SMTP client takes lines of any length, so they are counted below it.
const SAID_BYTES_MAX: usize = 64 * 1024;
/// What a client that begins after STARTTLS reads in place of the greeting.
const GREETING: &[u8] = b"220 ready\r\n";

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to a relay.
pub(super) struct Wire {
    stream: Stream,
    /// Read before anything of the stream's.
    first: &'static [u8],
    /// Bytes read since the last write.
    said: usize,
}

impl Wire {
    pub fn plain(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), first: b"", said: 0 }
    }

    /// `greeted`: the relay gave its greeting before TLS began.
    pub fn tls(stream: TlsStream<TcpStream>, greeted: bool) -> Self {
        Self { stream: Stream::Tls(Box::new(stream)), first: if greeted { GREETING } else { b"" }, said: 0 }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.stream {
            Stream::Plain(stream) => stream.peer_addr(),
            Stream::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let (now, later) = self.first.split_at(self.first.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.first = later;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        self.said += buffer.filled().len() - before;
        if self.said > SAID_BYTES_MAX {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the relay's answer has no end")));
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.said = 0;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Brings a fresh connection to where TLS begins; `Some`: the relay's refusal. Bytes are read one by one here: what a third
/// party puts behind the last plain answer is left for the handshake, which it breaks, and is never taken for the relay's word.
pub(super) async fn start_tls(tcp: &mut TcpStream, own: &ClientId) -> Result<Option<MailReply>, CallError> {
    let greeting = answer(tcp).await?;
    if greeting.code != 220 {
        return Ok(Some(greeting));
    }
    let hello = command(tcp, &format!("EHLO {own}\r\n")).await?;
    if hello.code != 250 {
        return Ok(Some(hello));
    }
    if !hello.text.lines().any(|line| line.trim().eq_ignore_ascii_case("STARTTLS")) {
        return Err(CallError::before(ErrorKind::Tls, "the relay offers no STARTTLS, and nothing goes without"));
    }
    let start = command(tcp, "STARTTLS\r\n").await?;
    if start.code != 220 { Ok(Some(start)) } else { Ok(None) }
}

async fn command(tcp: &mut TcpStream, line: &str) -> Result<MailReply, CallError> {
    let broken = |error: io::Error| CallError::before(ErrorKind::Reset, error.kind());
    tcp.write_all(line.as_bytes()).await.map_err(broken)?;
    answer(tcp).await
}

/// One answer: lines of `250-…`, the last of `250 …`.
async fn answer(tcp: &mut TcpStream) -> Result<MailReply, CallError> {
    let unreadable = || CallError::before(ErrorKind::BadResponse, "the relay's answer cannot be read");
    let mut bytes = Vec::new();
    let mut begin = 0;
    loop {
        let byte = tcp.read_u8().await.map_err(|error| CallError::before(ErrorKind::Reset, error.kind()))?;
        bytes.push(byte);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(unreadable());
        }
        if byte != b'\n' {
            continue;
        }
        let line = &bytes[begin..];
        begin = bytes.len();
        if line.get(3) != Some(&b'-') {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let code = text.get(..3).and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code)).ok_or_else(unreadable)?;
    let lines: Vec<&str> = text.lines().map(|line| line.get(4..).unwrap_or("")).collect();
    let text = lines.join("\n").chars().take(TEXT_CHARS_MAX.max(ANSWER_BYTES_MAX)).collect();
    Ok(MailReply { code, step: MailStep::Greeting, text, after_data: false })
}
