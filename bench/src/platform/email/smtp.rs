//! The relay: one dialogue a connection, as strict as a relay is.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use mail_parser::MessageParser;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{Protection, State, report};
use crate::platform::ledger::{Call, Fate};
use crate::platform::{Answer, HANG_MAX, Sim};

/// What the relay says first.
const GREETING: &[u8] = b"220 relay.sim ESMTP\r\n";
/// Connections at once; further ones wait.
const CONNECTIONS_MAX: usize = 256;
/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 4096;
/// Largest mail, in bytes.
const MAIL_BYTES_MAX: usize = 16 << 20;
/// Recipients of one mail.
const RECIPIENTS_MAX: usize = 50;

/// Takes connections until the simulator stops.
pub(super) async fn serve(listener: TcpListener, sim: Arc<Sim>, state: Arc<State>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (sim_too, state) = (sim.clone(), state.clone());
        sim.spawn(async move {
            let _slot = slot;
            // A caller that hangs up is a caller's right.
            let _ = connection(stream, &sim_too, &state).await;
        });
    }
}

async fn connection(stream: TcpStream, sim: &Arc<Sim>, state: &Arc<State>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    match state.protection {
        Protection::Plain => {
            stream.write_all(GREETING).await?;
            return Dialogue::new(sim, state, true).run(&mut stream).await;
        }
        Protection::Tls => {
            let mut stream = BufReader::new(TlsAcceptor::from(state.tls.clone()).accept(stream.into_inner()).await?);
            stream.write_all(GREETING).await?;
            stream.flush().await?;
            return Dialogue::new(sim, state, true).run(&mut stream).await;
        }
        Protection::StartTls => stream.write_all(GREETING).await?,
    }
    let mut before = Dialogue::new(sim, state, false);
    before.run(&mut stream).await?;
    if !before.starts_tls {
        return Ok(());
    }
    if !stream.buffer().is_empty() {
        // What came before TLS is nobody's word.
        return Ok(());
    }
    let stream = TlsAcceptor::from(state.tls.clone()).accept(stream.into_inner()).await?;
    Dialogue::new(sim, state, true).run(&mut BufReader::new(stream)).await
}

/// Where a dialogue stands.
struct Dialogue<'s> {
    sim: &'s Arc<Sim>,
    state: &'s Arc<State>,
    secure: bool,
    starts_tls: bool,
    greeted: bool,
    authentic: bool,
    from: Option<String>,
    to: Vec<String>,
}

/// What follows an answer.
enum Next {
    Say(String),
    Content,
    End(Option<String>),
}

impl<'s> Dialogue<'s> {
    fn new(sim: &'s Arc<Sim>, state: &'s Arc<State>, secure: bool) -> Self {
        Self { sim, state, secure, starts_tls: false, greeted: false, authentic: false, from: None, to: Vec::new() }
    }

    async fn run(&mut self, stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>) -> io::Result<()> {
        loop {
            let mut line = String::new();
            if (&mut *stream).take(LINE_BYTES_MAX).read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let next = match line.strip_suffix("\r\n") {
                Some(line) => self.command(line),
                None => Next::End(Some("500 5.5.2 line too long, or not ended by CRLF".to_owned())),
            };
            match next {
                Next::Say(answer) => say(stream, &answer).await?,
                Next::End(answer) => {
                    if let Some(answer) = answer {
                        say(stream, &answer).await?;
                    }
                    return Ok(());
                }
                Next::Content => {
                    if self.sim.script.resets_before_body() {
                        return Ok(());
                    }
                    say(stream, "354 go ahead").await?;
                    let Some(mail) = content(stream).await? else {
                        say(stream, "552 5.3.4 message too big").await?;
                        return Ok(());
                    };
                    match self.judge(mail).await {
                        Some(answer) => say(stream, &answer).await?,
                        None => return Ok(()),
                    }
                    (self.from, self.to) = (None, Vec::new());
                }
            }
        }
    }

    fn command(&mut self, line: &str) -> Next {
        let say = |text: &str| Next::Say(text.to_owned());
        let verb = line.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "HELO" => {
                self.greeted = true;
                let offered = if self.secure { "AUTH PLAIN LOGIN" } else { "STARTTLS" };
                Next::Say(format!("250-relay.sim\r\n250-SIZE {MAIL_BYTES_MAX}\r\n250 {offered}"))
            }
            "NOOP" => say("250 2.0.0 ok"),
            "QUIT" => Next::End(Some("221 2.0.0 bye".to_owned())),
            _ if !self.greeted => say("503 5.5.1 EHLO first"),
            "STARTTLS" if !self.secure => {
                self.starts_tls = true;
                Next::End(Some("220 2.0.0 ready to start TLS".to_owned()))
            }
            _ if !self.secure => say("530 5.7.0 must issue a STARTTLS command first"),
            "AUTH" => self.auth(line),
            _ if !self.authentic => say("530 5.7.0 authentication required"),
            "RSET" => {
                (self.from, self.to) = (None, Vec::new());
                say("250 2.0.0 ok")
            }
            "MAIL" => match path(line, "MAIL FROM:") {
                Some(from) if self.from.is_none() => {
                    self.from = Some(from);
                    say("250 2.1.0 ok")
                }
                Some(_) => say("503 5.5.1 nested MAIL command"),
                None => say("501 5.1.7 bad sender address syntax"),
            },
            "RCPT" => self.recipient(line),
            "DATA" if self.to.is_empty() => say("554 5.5.1 no valid recipients"),
            "DATA" => Next::Content,
            _ => say("500 5.5.2 command unrecognized"),
        }
    }

    fn auth(&mut self, line: &str) -> Next {
        let wanted = format!("\0{}\0{}", self.sim.options.account, self.sim.options.credential);
        let given = line.strip_prefix("AUTH PLAIN ").and_then(|text| BASE64.decode(text.trim().as_bytes()).ok());
        self.authentic = given.as_deref() == Some(wanted.as_bytes());
        Next::Say(if self.authentic { "235 2.7.0 authentication successful" } else { "535 5.7.8 authentication failed" }.to_owned())
    }

    fn recipient(&mut self, line: &str) -> Next {
        let answer = match path(line, "RCPT TO:") {
            _ if self.from.is_none() => "503 5.5.1 need MAIL command".to_owned(),
            Some(_) if self.to.len() >= RECIPIENTS_MAX => "452 4.5.3 too many recipients".to_owned(),
            Some(to) if !to.is_empty() => match self.state.refusal(&to) {
                Some(refusal) => refusal,
                None => {
                    self.to.push(to);
                    "250 2.1.5 ok".to_owned()
                }
            },
            Some(_) | None => "501 5.1.3 bad recipient address syntax".to_owned(),
        };
        Next::Say(answer)
    }

    /// What becomes of a mail that came whole; none: the connection ends without a word.
    async fn judge(&self, mail: Vec<u8>) -> Option<String> {
        let mut call = self.call(mail);
        let answer = self.sim.script.take(call.text.as_deref().unwrap_or(""));
        call.fate = match &answer {
            Answer::Ok | Answer::Hang(_) => Fate::Accepted,
            Answer::ResetAfterBody | Answer::AcceptThenHang | Answer::Garbage2xx => Fate::AcceptedUnanswered,
            Answer::AcceptThenFail { code } => Fate::AcceptedThenFailed(*code),
            Answer::Error { code, .. } => Fate::Refused(*code),
            Answer::RateLimited { .. } => Fate::Refused(451),
            Answer::Status(_) | Answer::ResetBeforeBody | Answer::LostAfterBody => Fate::Lost,
        };
        let (id, to) = (call.platform_id.clone().unwrap_or_default(), call.to.clone());
        if !call.fate.is_accepted() {
            call.platform_id = None;
        }
        let accepted = format!("250 2.0.0 Ok: queued as {:X}", self.sim.now().as_micros());
        self.sim.ledger.call(call);
        tokio::time::sleep(self.sim.options.answer_delay.min(HANG_MAX)).await;
        match answer {
            Answer::Ok => Some(accepted),
            Answer::AcceptThenFail { .. } => {
                let (sim, state) = (self.sim.clone(), self.state.clone());
                let delay = self.sim.options.statuses.sent.unwrap_or_default();
                self.sim.spawn(async move {
                    tokio::time::sleep(delay).await;
                    report(&sim, &state, &id, &to, "failed", "5.1.1").await;
                });
                Some(accepted)
            }
            Answer::Hang(time) => {
                tokio::time::sleep(time.min(HANG_MAX)).await;
                Some(accepted)
            }
            Answer::Error { code, .. } if (400..600).contains(&code) => Some(format!("{code} {}.0.0 refused", code / 100)),
            Answer::Error { .. } | Answer::Status(_) => Some("451 4.3.0 trouble".to_owned()),
            Answer::RateLimited { .. } => Some("451 4.7.1 slow down".to_owned()),
            Answer::Garbage2xx => Some("what?".to_owned()),
            Answer::ResetBeforeBody | Answer::ResetAfterBody | Answer::LostAfterBody => None,
            Answer::AcceptThenHang => {
                tokio::time::sleep(HANG_MAX).await;
                None
            }
        }
    }

    fn call(&self, mail: Vec<u8>) -> Call {
        let parsed = MessageParser::default().parse(&mail);
        let text = parsed.as_ref().and_then(|mail| mail.body_text(0)).map(|text| text.trim_end().replace("\r\n", "\n"));
        let platform_id = parsed.as_ref().and_then(|mail| mail.message_id()).map(str::to_owned);
        let callback = parsed.as_ref().and_then(|mail| mail.header_raw("X-Trunkline-Message")).map(|text| text.trim().to_owned());
        Call {
            at: self.sim.now(),
            at_us: crate::monotonic_us(),
            fate: Fate::Lost,
            platform_id,
            to: self.to.first().cloned().unwrap_or_default(),
            kind: "email".to_owned(),
            text,
            callback,
            window_ends: None,
            free_form: false,
            body: Bytes::from(mail),
        }
    }
}

/// The address between angle brackets; empty: the null sender.
fn path(line: &str, command: &str) -> Option<String> {
    let head = line.get(..command.len()).filter(|head| head.eq_ignore_ascii_case(command))?;
    let rest = line[head.len()..].trim_start().strip_prefix('<')?;
    let (address, _) = rest.split_once('>')?;
    (address.is_empty() || address.contains('@')).then(|| address.to_owned())
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), answer: &str) -> io::Result<()> {
    stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    stream.flush().await
}

/// The mail up to its final dot; none when it is too large.
async fn content(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>) -> io::Result<Option<Vec<u8>>> {
    let mut mail = Vec::new();
    loop {
        let mut line = Vec::new();
        if (&mut *stream).take(MAIL_BYTES_MAX as u64).read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(Some(mail));
        }
        mail.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        if mail.len() > MAIL_BYTES_MAX {
            return Ok(None);
        }
    }
}
