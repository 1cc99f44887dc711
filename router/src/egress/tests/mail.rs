//! Submission against relays that answer as a table says: plain, STARTTLS and TLS.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};

use messaging::exchange::{MailReply, MailSecurity, MailStep, MailSubmission};
use messaging::seal::Secret;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::tls::{Authority, BOTH, Here};
use super::*;
use crate::egress::mail::submit;
use crate::egress::{CallError, ErrorKind, Stage};

/// What a relay does at a command in place of its usual answer.
#[derive(Clone, Copy)]
enum Odd {
    Say(&'static str),
    Hang,
    Close,
    /// The same piece, without end.
    Flood(&'static str),
}

/// What a flood sends at most; a reader without a bound takes all of it.
const FLOOD_BYTES: usize = 64 << 20;
/// What a flood may get rid of: the reader's bound and what the kernel holds between the two.
const FLOOD_TAKEN_BYTES_MAX: usize = 16 << 20;

/// Sends a piece until nobody takes it.
fn flood(stream: &mut dyn Line, piece: &str, seen: &Seen) {
    let block = piece.repeat(64 * 1024 / piece.len());
    let mut sent = 0;
    while sent < FLOOD_BYTES && stream.write_all(block.as_bytes()).and_then(|()| stream.flush()).is_ok() {
        sent += block.len();
    }
    seen.requests.lock().unwrap().push(format!("FLOODED {sent}"));
}

type Oddities = Vec<(&'static str, Odd)>;

/// One connection's dialogue. Each oddity is used once, in order of the commands that begin with its word.
struct Relay {
    oddities: Mutex<VecDeque<(&'static str, Odd)>>,
    tls: Option<Arc<ServerConfig>>,
    /// TLS begins with the connection.
    implicit: bool,
    /// Written right behind the answer to STARTTLS, before TLS.
    injected: &'static str,
}

trait Line: BufRead + Write {}
impl<T: Read + Write> Line for BufReaderWriter<T> {}

/// Reads lines and writes to the same stream.
struct BufReaderWriter<T: Read + Write>(BufReader<T>);

impl<T: Read + Write> Read for BufReaderWriter<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<T: Read + Write> BufRead for BufReaderWriter<T> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.0.fill_buf()
    }
    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

impl<T: Read + Write> Write for BufReaderWriter<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.get_mut().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.get_mut().flush()
    }
}

fn relay(tls: Option<Arc<ServerConfig>>, implicit: bool, oddities: Oddities) -> Peer {
    with(Relay { oddities: Mutex::new(oddities.into()), tls, implicit, injected: "" })
}

fn with(relay: Relay) -> Peer {
    let relay = Arc::new(relay);
    Peer::start(move |_, served| {
        let tcp = served.stream.try_clone().unwrap();
        if relay.implicit {
            let stream = StreamOwned::new(ServerConnection::new(relay.tls.clone().unwrap()).unwrap(), tcp);
            relay.talk(&mut BufReaderWriter(BufReader::new(stream)), &served.seen, true);
            return;
        }
        let plain = BufReaderWriter(BufReader::new(tcp.try_clone().unwrap()));
        let mut plain = plain;
        if relay.talk(&mut plain, &served.seen, relay.tls.is_none()) {
            let stream = StreamOwned::new(ServerConnection::new(relay.tls.clone().unwrap()).unwrap(), tcp);
            relay.talk_on(&mut BufReaderWriter(BufReader::new(stream)), &served.seen, true);
        }
    })
}

impl Relay {
    fn talk(&self, stream: &mut dyn Line, seen: &Seen, secure: bool) -> bool {
        match self.oddity("GREET") {
            Some(Odd::Say(line)) => drop(stream.write_all(line.as_bytes())),
            Some(Odd::Hang) => std::thread::sleep(AMPLE),
            Some(Odd::Close) => return false,
            Some(Odd::Flood(piece)) => {
                flood(stream, piece, seen);
                return false;
            }
            None => drop(stream.write_all(b"220 relay.example ESMTP\r\n")),
        }
        let _ = stream.flush();
        self.talk_on(stream, seen, secure)
    }

    /// True when STARTTLS was agreed on.
    fn talk_on(&self, stream: &mut dyn Line, seen: &Seen, secure: bool) -> bool {
        let (mut line, mut in_data, mut mail) = (String::new(), false, String::new());
        loop {
            line.clear();
            if !matches!(stream.read_line(&mut line), Ok(1..)) {
                return false;
            }
            if in_data {
                if line != ".\r\n" {
                    mail.push_str(&line);
                    continue;
                }
                seen.requests.lock().unwrap().push(format!("CONTENT {mail}"));
                line = "CONTENT\r\n".to_owned();
            } else {
                seen.requests.lock().unwrap().push(format!("{}{}", if secure { "" } else { "plain " }, line.trim_end()));
            }
            let verb = line.split([' ', ':']).next().unwrap().trim().to_ascii_uppercase();
            let usual = match verb.as_str() {
                "EHLO" if secure => "250-relay.example\r\n250 AUTH PLAIN LOGIN\r\n",
                "EHLO" if self.tls.is_some() => "250-relay.example\r\n250 STARTTLS\r\n",
                "EHLO" => "250 relay.example\r\n",
                "STARTTLS" => "220 go\r\n",
                "AUTH" => "235 2.7.0 ok\r\n",
                "DATA" => "354 go\r\n",
                "CONTENT" => "250 2.0.0 Ok: queued as 4711\r\n",
                "QUIT" => "221 bye\r\n",
                _ => "250 2.1.0 ok\r\n",
            };
            let answer = match self.oddity(&verb) {
                Some(Odd::Say(line)) => line,
                Some(Odd::Hang) => {
                    std::thread::sleep(AMPLE);
                    return false;
                }
                Some(Odd::Close) => return false,
                Some(Odd::Flood(piece)) => {
                    flood(stream, piece, seen);
                    return false;
                }
                None => usual,
            };
            in_data = verb == "DATA" && answer.starts_with('3');
            let start = verb == "STARTTLS" && answer.starts_with('2');
            let answer = if start { format!("{answer}{}", self.injected) } else { answer.to_owned() };
            if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() || start {
                return start;
            }
        }
    }

    fn oddity(&self, verb: &str) -> Option<Odd> {
        let mut oddities = self.oddities.lock().unwrap();
        oddities.front().is_some_and(|(word, _)| *word == verb).then(|| oddities.pop_front().unwrap().1)
    }
}

fn mail(peer: &Peer, security: MailSecurity) -> MailSubmission {
    MailSubmission {
        host: "relay.example".into(),
        port: peer.address.port(),
        security,
        user: Some("me".into()),
        password: Secret::new("pass"),
        from: "shop@example.net".into(),
        to: vec!["ada@example.com".into(), "copy@example.com".into()],
        message: Bytes::from_static(b"Subject: hi\r\n\r\n.dot\r\nlast"),
    }
}

/// A door to which every name is this machine.
fn home(authority: &Authority) -> Door {
    Door::with_resolver(Settings { extra_roots: vec![authority.root()], ..settings() }, clock(), Arc::new(Here)).unwrap()
}

fn reply(outcome: Result<MailReply, CallError>) -> (u16, MailStep, bool) {
    let reply = outcome.unwrap();
    (reply.code, reply.step, reply.after_data)
}

fn error(outcome: Result<MailReply, CallError>) -> (Stage, ErrorKind) {
    let error = outcome.unwrap_err();
    (error.stage, error.kind)
}

const TAKEN: (u16, MailStep, bool) = (250, MailStep::Content, true);

#[tokio::test]
async fn a_mail_goes_out_over_every_kind_of_connection() {
    let authority = Authority::new();
    let config = authority.server(&["relay.example"], false, BOTH);
    for (security, tls, implicit) in [
        (MailSecurity::Plain, None, false),
        (MailSecurity::StartTls, Some(config.clone()), false),
        (MailSecurity::Tls, Some(config.clone()), true),
    ] {
        let peer = relay(tls, implicit, Vec::new());
        let outcome = submit(&home(&authority), mail(&peer, security), AMPLE).await;
        assert!(outcome.as_ref().unwrap().text.contains("queued as 4711"), "{security:?}");
        assert_eq!(reply(outcome), TAKEN, "{security:?}");
        let seen = peer.requests();
        let began = if security == MailSecurity::StartTls { &["plain EHLO [127.0.0.1]", "plain STARTTLS"][..] } else { &[] };
        let rest = [
            "EHLO [127.0.0.1]",
            "AUTH PLAIN AG1lAHBhc3M=",
            "MAIL FROM:<shop@example.net>",
            "RCPT TO:<ada@example.com>",
            "RCPT TO:<copy@example.com>",
            "DATA",
            "CONTENT Subject: hi\r\n\r\n..dot\r\nlast\r\n",
        ];
        assert_eq!(seen, [began, &rest[..]].concat(), "{security:?}");
    }
}

#[tokio::test]
async fn a_connection_serves_several_mails_and_is_made_anew_when_it_died() {
    let authority = Authority::new();
    let peer = relay(None, false, Vec::new());
    let door = home(&authority);
    for _ in 0..3 {
        assert_eq!(reply(submit(&door, mail(&peer, MailSecurity::Plain), AMPLE).await), TAKEN);
    }
    assert_eq!(peer.connections(), 1);
    let mut other = mail(&peer, MailSecurity::Plain);
    other.password = Secret::new("another");
    assert_eq!(reply(submit(&door, other, AMPLE).await), TAKEN);
    assert_eq!(peer.connections(), 2, "another credential never rides on a connection that was authenticated before");

    for odd in [Odd::Close, Odd::Say("421 4.4.2 idle for too long\r\n")] {
        let peer = relay(None, false, vec![("CONTENT", Odd::Say("250 ok\r\n")), ("MAIL", odd)]);
        for _ in 0..2 {
            assert_eq!(reply(submit(&door, mail(&peer, MailSecurity::Plain), AMPLE).await), TAKEN);
        }
        assert_eq!(peer.connections(), 2);
        assert_eq!(peer.requests().iter().filter(|line| line.starts_with("CONTENT")).count(), 2, "each mail once");
    }
}

#[tokio::test]
async fn every_refusal_says_where_it_came() {
    let authority = Authority::new();
    for (verb, said, wanted) in [
        ("GREET", "554 5.7.1 no service here\r\n", (554, MailStep::Greeting, false)),
        ("GREET", "421 4.3.2 busy\r\n", (421, MailStep::Greeting, false)),
        ("AUTH", "535 5.7.8 wrong\r\n", (535, MailStep::Auth, false)),
        ("AUTH", "454 4.7.0 later\r\n", (454, MailStep::Auth, false)),
        ("MAIL", "530 5.7.0 authenticate\r\n", (530, MailStep::Sender, false)),
        ("RCPT", "550 5.1.1 unknown\r\n", (550, MailStep::Recipient, false)),
        ("RCPT", "451 4.7.1 greylisted\r\n", (451, MailStep::Recipient, false)),
        ("DATA", "452 4.3.1 full\r\n", (452, MailStep::Data, false)),
        ("CONTENT", "554 5.7.1 spam\r\n", (554, MailStep::Content, true)),
        ("CONTENT", "451 4.3.0 try later\r\n", (451, MailStep::Content, true)),
    ] {
        let peer = relay(None, false, vec![(verb, Odd::Say(said))]);
        let door = home(&authority);
        let outcome = submit(&door, mail(&peer, MailSecurity::Plain), AMPLE).await;
        assert_eq!(outcome.as_ref().unwrap().text, said[4..].trim_end(), "{said}");
        assert_eq!(reply(outcome), wanted, "{said}");
        assert_eq!(reply(submit(&door, mail(&peer, MailSecurity::Plain), AMPLE).await), TAKEN, "the next one goes: {said}");
    }
    let second = vec![("RCPT", Odd::Say("250 ok\r\n")), ("RCPT", Odd::Say("550 5.1.1 unknown\r\n"))];
    let peer = relay(None, false, second);
    assert_eq!(reply(submit(&home(&authority), mail(&peer, MailSecurity::Plain), AMPLE).await), (550, MailStep::Copy, false));
    assert!(!peer.requests().iter().any(|line| line == "DATA"), "nobody got it");
}

/// Only once the mail's end may have left is its fate unknown.
#[tokio::test]
async fn broken_and_silent_relays() {
    let authority = Authority::new();
    let before = |kind| (Stage::BeforeWrite, kind);
    let after = |kind| (Stage::AfterWrite, kind);
    for (verb, odd, wanted) in [
        ("GREET", Odd::Close, before(ErrorKind::BadResponse)),
        ("GREET", Odd::Hang, before(ErrorKind::Timeout)),
        ("GREET", Odd::Say("HTTP/1.1 400 Bad Request\r\n"), before(ErrorKind::BadResponse)),
        ("EHLO", Odd::Close, before(ErrorKind::BadResponse)),
        ("AUTH", Odd::Hang, before(ErrorKind::Timeout)),
        ("MAIL", Odd::Close, before(ErrorKind::BadResponse)),
        ("RCPT", Odd::Hang, before(ErrorKind::Timeout)),
        ("DATA", Odd::Close, before(ErrorKind::BadResponse)),
        ("DATA", Odd::Hang, before(ErrorKind::Timeout)),
        ("CONTENT", Odd::Close, after(ErrorKind::BadResponse)),
        ("CONTENT", Odd::Hang, after(ErrorKind::Timeout)),
        ("CONTENT", Odd::Say("nonsense\r\n"), after(ErrorKind::BadResponse)),
    ] {
        let peer = relay(None, false, vec![(verb, odd)]);
        let limit = if matches!(odd, Odd::Hang) { SHORT } else { AMPLE };
        assert_eq!(error(submit(&home(&authority), mail(&peer, MailSecurity::Plain), limit).await), wanted, "{verb}");
    }
}

/// A relay's word has a bound, in one line or in many, wherever it comes: memory is not the relay's to take.
#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let authority = Authority::new();
    for (verb, piece, stage) in [
        ("GREET", "2", Stage::BeforeWrite),
        ("GREET", "220-x\r\n", Stage::BeforeWrite),
        ("EHLO", "250-x\r\n", Stage::BeforeWrite),
        ("RCPT", "2", Stage::BeforeWrite),
        ("CONTENT", "2", Stage::AfterWrite),
        ("CONTENT", "250-x\r\n", Stage::AfterWrite),
    ] {
        let peer = relay(None, false, vec![(verb, Odd::Flood(piece))]);
        let failed = submit(&home(&authority), mail(&peer, MailSecurity::Plain), AMPLE).await.unwrap_err();
        assert_eq!(failed.stage, stage, "{verb} {piece:?}");
        assert_ne!(failed.kind, ErrorKind::Timeout, "{verb} {piece:?}");
        let taken = || peer.requests().iter().find_map(|line| line.strip_prefix("FLOODED ")?.parse::<usize>().ok());
        let mut looks = 0;
        while taken().is_none() && looks < 500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            looks += 1;
        }
        let taken = taken().expect("the flood ended");
        assert!(taken < FLOOD_TAKEN_BYTES_MAX, "{verb} {piece:?}: {taken} bytes were taken");
    }
}

#[tokio::test]
async fn nothing_goes_without_tls_that_proves_the_name() {
    let authority = Authority::new();
    let good = authority.server(&["relay.example"], false, BOTH);
    let refused = |kind| (Stage::BeforeWrite, kind);
    for (what, tls, implicit, security, wanted) in [
        ("no STARTTLS offered", None, false, MailSecurity::StartTls, refused(ErrorKind::Tls)),
        ("another name", Some(authority.server(&["other.example"], false, BOTH)), false, MailSecurity::StartTls, refused(ErrorKind::Tls)),
        ("expired", Some(authority.server(&["relay.example"], true, BOTH)), true, MailSecurity::Tls, refused(ErrorKind::Tls)),
        ("a stranger's", Some(Authority::new().server(&["relay.example"], false, BOTH)), true, MailSecurity::Tls, refused(ErrorKind::Tls)),
    ] {
        let peer = relay(tls, implicit, Vec::new());
        assert_eq!(error(submit(&home(&authority), mail(&peer, security), AMPLE).await), wanted, "{what}");
        let told = peer.requests().iter().any(|line| line.contains("AUTH") || line.contains("MAIL") || line.contains("CONTENT"));
        assert!(!told, "{what}: {:?}", peer.requests());
    }
    // What somebody on the way puts behind the plain answer is never taken for the relay's word.
    let injected = "250-evil\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n";
    let peer = with(Relay { oddities: Mutex::default(), tls: Some(good), implicit: false, injected });
    assert_eq!(error(submit(&home(&authority), mail(&peer, MailSecurity::StartTls), AMPLE).await), refused(ErrorKind::Tls));
}

#[tokio::test]
async fn the_guard_judges_addresses_of_relays() {
    let authority = Authority::new();
    let peer = relay(None, false, Vec::new());
    let closed = Settings { policy: Policy::default(), extra_roots: vec![authority.root()], ..settings() };
    let closed = Door::with_resolver(closed, clock(), Arc::new(Here)).unwrap();
    for (door, host, port, security, wanted) in [
        (&closed, "relay.example", peer.address.port(), MailSecurity::StartTls, ErrorKind::Blocked),
        (&closed, "127.0.0.1", peer.address.port(), MailSecurity::Plain, ErrorKind::Blocked),
        (&closed, "169.254.169.254", 587, MailSecurity::StartTls, ErrorKind::Blocked),
        (&closed, "10.0.0.1", 587, MailSecurity::Tls, ErrorKind::Blocked),
        (&closed, "192.0.2.1", 587, MailSecurity::StartTls, ErrorKind::Blocked),
        (&closed, "8.8.8.8", 25, MailSecurity::StartTls, ErrorKind::Blocked),
        (&closed, "8.8.8.8", 443, MailSecurity::Tls, ErrorKind::Blocked),
        (&closed, "8.8.8.8", 587, MailSecurity::Plain, ErrorKind::Blocked),
        (&home(&authority), "8.8.8.8", 2525, MailSecurity::Plain, ErrorKind::Blocked),
        (&closed, "::1", 587, MailSecurity::StartTls, ErrorKind::Blocked),
        (&closed, "a@b", 587, MailSecurity::StartTls, ErrorKind::BadRequest),
        (&closed, "a/b", 587, MailSecurity::StartTls, ErrorKind::BadRequest),
        (&closed, "", 587, MailSecurity::StartTls, ErrorKind::BadRequest),
        (&closed, "2130706433", 587, MailSecurity::StartTls, ErrorKind::BadRequest),
    ] {
        let mut one = mail(&peer, security);
        (one.host, one.port) = (host.to_owned(), port);
        assert_eq!(error(submit(door, one, AMPLE).await), (Stage::BeforeWrite, wanted), "{host}:{port} {security:?}");
    }
    assert_eq!(peer.connections(), 0);
}

/// A relay is met with a few connections at once, however many mails wait.
#[tokio::test]
async fn connections_to_one_relay_are_bounded() {
    let authority = Authority::new();
    let peer = relay(None, false, Vec::new());
    let door = home(&authority);
    let all = (0..64).map(|_| submit(&door, mail(&peer, MailSecurity::Plain), AMPLE));
    for outcome in futures_util::future::join_all(all).await {
        assert_eq!(reply(outcome), TAKEN);
    }
    assert_eq!(peer.requests().iter().filter(|line| line.starts_with("CONTENT")).count(), 64);
    assert!(peer.connections() <= 64 / 2, "{} connections", peer.connections());
}
