//! A client connection that costs next to nothing: prepared bytes out, the status read back. One exchange at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::find;

/// Longest answer, head and body.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Space for an answer to begin with.
const ANSWER_BYTES: usize = 4 << 10;
/// How long one exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What an exchange brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchanged {
    /// A status.
    Status(u16),
    /// No connection: nothing was sent.
    Unsent,
    /// The connection broke or the time was over: it may have been read.
    Unanswered,
}

/// A connection that is opened when it is needed.
pub(super) struct Wire {
    addr: SocketAddr,
    stream: Option<TcpStream>,
    answer: Vec<u8>,
    body: std::ops::Range<usize>,
}

impl Wire {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None, answer: Vec::with_capacity(ANSWER_BYTES), body: 0..0 }
    }

    /// Opens the connection if it is not open.
    pub async fn open(&mut self) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.addr).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// The body of the last answer.
    pub fn body(&self) -> &[u8] {
        &self.answer[self.body.clone()]
    }

    /// Sends a whole request and reads the whole answer.
    pub async fn exchange(&mut self, request: &[u8]) -> Exchanged {
        if self.open().await.is_err() {
            return Exchanged::Unsent;
        }
        match tokio::time::timeout(EXCHANGE_TIMEOUT, self.talk(request)).await {
            Ok(Ok(head)) => {
                if head.close {
                    self.stream = None;
                }
                Exchanged::Status(head.status)
            }
            Ok(Err(_)) | Err(_) => {
                self.stream = None;
                Exchanged::Unanswered
            }
        }
    }

    async fn talk(&mut self, request: &[u8]) -> io::Result<Head> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(request).await?;
        self.answer.clear();
        let head = loop {
            read_more(stream, &mut self.answer).await?;
            if let Some(head) = Head::parse(&self.answer)? {
                break head;
            }
        };
        loop {
            if let Some(body) = head.body(&self.answer)? {
                self.body = body;
                return Ok(head);
            }
            read_more(stream, &mut self.answer).await?;
        }
    }
}

async fn read_more(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    if answer.len() >= ANSWER_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    answer.reserve(ANSWER_BYTES);
    match stream.read_buf(answer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    bytes: usize,
    length: Option<usize>,
    chunked: bool,
    close: bool,
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

impl Head {
    /// None: not all of it has come.
    fn parse(answer: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = find(answer, b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&answer[..end]).map_err(|_| malformed())?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.get(9..12).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
        let mut head = Self { status, bytes: end + 4, length: None, chunked: false, close: false };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.parse().map_err(|_| malformed())?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                head.close = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(Some(head))
    }

    /// Where the body stands; none: not all of it has come. A chunked body is given with its chunk lines.
    fn body(&self, answer: &[u8]) -> io::Result<Option<std::ops::Range<usize>>> {
        if self.chunked {
            return Ok(chunks_end(&answer[self.bytes..])?.map(|end| self.bytes..self.bytes + end));
        }
        let length = match (self.status, self.length) {
            (204 | 304, _) => 0,
            (_, Some(length)) => length,
            (_, None) => return Err(malformed()),
        };
        Ok((answer.len() >= self.bytes + length).then(|| self.bytes..self.bytes + length))
    }
}

/// Where the last chunk ends.
fn chunks_end(body: &[u8]) -> io::Result<Option<usize>> {
    let mut at = 0;
    loop {
        let Some(line) = find(&body[at..], b"\r\n") else { return Ok(None) };
        let digits = std::str::from_utf8(&body[at..at + line]).map_err(|_| malformed())?;
        let size = usize::from_str_radix(digits.split(';').next().unwrap_or_default().trim(), 16).map_err(|_| malformed())?;
        if size > ANSWER_BYTES_MAX {
            return Err(malformed());
        }
        at += line + 2 + size + 2;
        if at > body.len() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Reply, Request, Server, reply};

    #[test]
    fn answers_are_read_piece_by_piece() {
        let cases: &[(&str, Option<u16>, &str)] = &[
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Some(200), "hello"),
            ("HTTP/1.1 202 Accepted\r\nContent-Length:  2\r\nConnection: close\r\n\r\n{}", Some(202), "{}"),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some(204), ""),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Some(200), "2\r\nab\r\n0\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\n\r\n", None, ""),
            ("nonsense\r\n\r\n", None, ""),
        ];
        for (answer, status, body) in cases {
            let whole = Head::parse(answer.as_bytes()).ok().flatten().and_then(|head| {
                let range = head.body(answer.as_bytes()).ok()??;
                Some((head.status, answer[range].to_owned()))
            });
            assert_eq!(whole, status.map(|status| (status, (*body).to_owned())), "{answer}");
            for cut in 0..answer.len() {
                let part = &answer.as_bytes()[..cut];
                let done = Head::parse(part).ok().flatten().is_some_and(|head| matches!(head.body(part), Ok(Some(_))));
                assert!(!done, "{answer} cut at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn a_cut_is_unanswered_and_a_closed_port_unsent() {
        let handler = |mut request: Request| async move {
            let body = request.body().await.unwrap();
            if body.is_empty() { Reply::Close } else { reply(201, "text/plain", body) }
        };
        let server = Server::start("127.0.0.1:0".parse().unwrap(), handler).await.unwrap();
        let mut wire = Wire::new(server.addr());
        for _ in 0..2 {
            assert_eq!(wire.exchange(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi").await, Exchanged::Status(201));
            assert_eq!(wire.body(), b"hi");
        }
        assert_eq!(wire.exchange(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await, Exchanged::Unanswered);
        server.stop().await;
        assert_eq!(wire.exchange(b"").await, Exchanged::Unsent);
    }
}
