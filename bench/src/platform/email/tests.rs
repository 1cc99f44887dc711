use std::time::Duration;

use data_encoding::BASE64;
use messaging::clock::{Clock, SystemClock, Timestamp};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::http::reply;
use crate::platform::{Fate, Redelivery};

const USER: &str = "shop";

async fn start(protection: Protection) -> EmailSim {
    let options =
        SimOptions { account: USER.to_owned(), credential: "pass".to_owned(), redelivery: Redelivery::NONE, ..SimOptions::default() };
    EmailSim::start(options, protection).await.unwrap()
}

/// Says a line, returns the answer's last line; none when the connection ended.
async fn ask(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>, line: &str) -> Option<String> {
    if !line.is_empty() {
        stream.write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
    loop {
        let mut answer = String::new();
        if stream.read_line(&mut answer).await.ok()? == 0 {
            return None;
        }
        if answer.as_bytes().get(3) != Some(&b'-') {
            return Some(answer.trim_end().to_owned());
        }
    }
}

async fn dial(sim: &EmailSim) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(TcpStream::connect(sim.relay()).await.unwrap());
    assert_eq!(ask(&mut stream, "").await.unwrap(), "220 relay.sim ESMTP");
    stream
}

fn mail(text: &str) -> String {
    format!("Message-ID: <m@example.net>\r\nX-Trunkline-Message: msg_1\r\nSubject: s\r\n\r\n{text}\r\n..dot\r\n.")
}

/// A whole submission; the answer to its content.
async fn submit(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>, to: &str, text: &str) -> Option<String> {
    let password = BASE64.encode(format!("\0{USER}\0pass").as_bytes());
    ask(stream, "EHLO me").await?;
    assert!(ask(stream, &format!("AUTH PLAIN {password}")).await?.starts_with("235"));
    assert!(ask(stream, "MAIL FROM:<shop@example.net>").await?.starts_with("250"));
    let taken = ask(stream, &format!("RCPT TO:<{to}>")).await?;
    if !taken.starts_with("250") {
        return Some(taken);
    }
    assert!(ask(stream, "DATA").await?.starts_with("354"));
    ask(stream, &mail(text)).await
}

#[tokio::test]
async fn commands_out_of_order_are_refused() {
    let sim = start(Protection::Plain).await;
    let mut stream = dial(&sim).await;
    for (line, code) in [
        ("MAIL FROM:<a@example.net>", "503"),
        ("EHLO me", "250"),
        ("MAIL FROM:<a@example.net>", "530"),
        ("AUTH PLAIN AAAA", "535"),
        ("AUTH LOGIN", "535"),
        ("STARTTLS", "530"),
        ("NOSUCH", "530"),
        ("AUTH PLAIN AHNob3AAcGFzcw==", "235"),
        ("RCPT TO:<a@example.com>", "503"),
        ("MAIL FROM:a@example.net", "501"),
        ("MAIL FROM:<a@example.net>", "250"),
        ("MAIL FROM:<a@example.net>", "503"),
        ("RCPT TO:<nobody>", "501"),
        ("DATA", "554"),
        ("RSET", "250"),
        ("NOSUCH", "500"),
        ("QUIT", "221"),
    ] {
        let answer = ask(&mut stream, line).await.unwrap();
        assert!(answer.starts_with(code), "{line}: {answer}");
    }
    assert!(sim.calls().is_empty());
}

#[tokio::test]
async fn mails_are_taken_as_the_script_says() {
    let sim = start(Protection::Plain).await;
    let cases = [
        (Answer::Ok, Some("250"), Fate::Accepted),
        (Answer::Error { code: 554, http: 0 }, Some("554"), Fate::Refused(554)),
        (Answer::RateLimited { after: Duration::ZERO }, Some("451"), Fate::Refused(451)),
        (Answer::Status(502), Some("451"), Fate::Lost),
        (Answer::ResetAfterBody, None, Fate::AcceptedUnanswered),
        (Answer::LostAfterBody, None, Fate::Lost),
        (Answer::Garbage2xx, Some("what?"), Fate::AcceptedUnanswered),
    ];
    sim.script(cases.iter().map(|(answer, ..)| answer.clone()));
    for (answer, code, _) in &cases {
        let said = submit(&mut dial(&sim).await, "ada@example.com", "hello").await;
        assert_eq!(said.as_deref().map(|said| said.split(' ').next().unwrap()), *code, "{answer:?}");
    }
    let calls = sim.calls();
    assert_eq!(calls.iter().map(|call| call.fate).collect::<Vec<_>>(), cases.map(|(.., fate)| fate));
    let first = &calls[0];
    assert_eq!(
        (first.platform_id.as_deref(), first.callback.as_deref(), first.to.as_str(), first.text.as_deref()),
        (Some("m@example.net"), Some("msg_1"), "ada@example.com", Some("hello\n.dot"))
    );
}

#[tokio::test]
async fn addresses_can_be_refused() {
    let sim = start(Protection::Plain).await;
    sim.refuse_recipient("Gone@example.com", Some("550 5.1.1 unknown"));
    assert_eq!(submit(&mut dial(&sim).await, "gone@example.com", "x").await.as_deref(), Some("550 5.1.1 unknown"));
    sim.refuse_recipient("gone@example.com", None);
    assert!(submit(&mut dial(&sim).await, "gone@example.com", "x").await.unwrap().starts_with("250"));
}

#[tokio::test]
async fn nothing_before_tls_and_everything_after() {
    let sim = start(Protection::StartTls).await;
    let mut stream = dial(&sim).await;
    for (line, answer) in
        [("EHLO me", "250 STARTTLS"), ("AUTH PLAIN AHNob3AAcGFzcw==", "530"), ("MAIL FROM:<a@b.c>", "530"), ("STARTTLS", "220")]
    {
        let said = ask(&mut stream, line).await.unwrap();
        assert!(said.starts_with(answer), "{line}: {said}");
    }
    let mut roots = RootCertStore::empty();
    roots.add(sim.authority()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream.into_inner()).await.unwrap();
    assert!(submit(&mut BufReader::new(tls), "ada@example.com", "hello").await.unwrap().starts_with("250"));
    assert_eq!(sim.accepted().len(), 1);
}

/// What the bridge posts is what the channel takes.
#[tokio::test]
async fn people_and_reports_come_by_the_signed_bridge() {
    use messaging::channels::PieceKind::{Message, Status};
    use messaging::channels::{ChannelKind, Received, channel};
    use messaging::directory::SecretPair;
    use messaging::exchange::WebhookRequest;
    use messaging::seal::Secret;
    let got: Arc<Mutex<Vec<(hyper::HeaderMap, Bytes)>>> = Arc::default();
    let keep = got.clone();
    let gateway = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), move |mut request: Request| {
        let keep = keep.clone();
        async move {
            let body = request.body().await.unwrap();
            locked(&keep).push((request.headers.clone(), body));
            reply(200, "text/plain", "")
        }
    })
    .await
    .unwrap();
    let sim = start(Protection::Plain).await;
    sim.set_hook(&gateway.url());
    assert!(sim.customer_writes("Ada <ada@example.com>", "hi", "hello").await.accepted);
    assert!(sim.customer_answers("ada@example.com", "thanks", "msg_x@example.net").await.accepted);
    assert!(sim.report("msg_x@example.net", "ada@example.com", "failed", "5.1.1").await.accepted);
    let public = std::collections::BTreeMap::from([("provider".to_owned(), "bridge".to_owned())]);
    let secrets = std::collections::BTreeMap::from([("secret".to_owned(), SecretPair::new(Secret::new("sim-secret"), Timestamp::ZERO))]);
    let email = channel(ChannelKind::Email);
    let verifier = email.verifier(&public, &secrets);
    let mut kinds = Vec::new();
    for (headers, body) in locked(&got).iter() {
        let now = SystemClock::default().now();
        let request = WebhookRequest { is_post: true, query: "", headers, body, now, fetched: None };
        let Ok(Received::Pieces(pieces)) = email.receive(&request, &verifier) else { panic!("the channel refuses the simulator") };
        assert!(pieces.iter().all(|piece| piece.handle().expose() == "mail:ada@example.com"));
        kinds.extend(pieces.iter().map(messaging::channels::Piece::kind));
    }
    assert_eq!(kinds, [Message, Message, Status]);
    assert_eq!(sim.dropped(), 0);
    sim.stop().await;
    gateway.stop().await;
}
