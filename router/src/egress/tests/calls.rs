//! Every way in which a call can end, and on which side of the write.

use super::*;
use crate::egress::{BadUrl, Blocked, CallError, ErrorKind, Sent, Stage};

#[derive(Debug)]
enum End {
    /// Status, body, truncated, `Retry-After` in seconds.
    Answer(u16, &'static str, bool, Option<u64>),
    /// After the write, with the status when the head had come.
    After(ErrorKind, Option<u16>),
    /// The connection breaks before anything is read: both sides of the write are true.
    EitherSide(ErrorKind),
}

#[track_caller]
fn check(name: &str, outcome: Result<Sent, CallError>, expected: &End) {
    match (outcome, expected) {
        (Ok(sent), &End::Answer(status, body, truncated, retry_after)) => {
            let seen = (sent.response.status, &sent.response.body[..], sent.truncated, sent.response.retry_after.map(|d| d.as_secs()));
            assert_eq!(seen, (status, body.as_bytes(), truncated, retry_after), "{name}");
            assert!(!sent.reused, "{name}");
        }
        (Err(error), &End::After(kind, status)) => {
            assert_eq!((error.stage, error.kind, error.status), (Stage::AfterWrite, kind, status), "{name}: {error}");
        }
        (Err(error), &End::EitherSide(kind)) => assert_eq!((error.kind, error.status), (kind, None), "{name}: {error}"),
        (outcome, expected) => panic!("{name}: {outcome:?}, expected {expected:?}"),
    }
}

#[tokio::test]
async fn every_answer_and_every_fault_has_its_class() {
    use End::*;
    use ErrorKind::*;
    type Handle = fn(&mut Served);
    let cases: &[(&str, Duration, Handle, End)] = &[
        ("plain", AMPLE, |s| s.write(OK), Answer(200, "ok", false, None)),
        ("no content", AMPLE, |s| s.write("HTTP/1.1 204 No Content\r\n\r\n"), Answer(204, "", false, None)),
        ("gone", AMPLE, |s| s.write("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"), Answer(410, "", false, None)),
        (
            "throttled by seconds",
            AMPLE,
            |s| s.write("HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"),
            Answer(429, "", false, Some(7)),
        ),
        (
            "throttled by date",
            AMPLE,
            |s| s.write("HTTP/1.1 503 Busy\r\nretry-after: Sun, 22 Nov 2026 15:05:05 GMT\r\ncontent-length: 0\r\n\r\n"),
            Answer(503, "", false, Some(60)),
        ),
        (
            "redirect is not followed",
            AMPLE,
            |s| s.write("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
            Answer(302, "", false, None),
        ),
        (
            "chunked",
            AMPLE,
            |s| s.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
            Answer(200, "abcdefg", false, None),
        ),
        (
            "in pieces",
            AMPLE,
            |s| {
                for piece in ["HTTP/1.1 2", "00 OK\r\nconte", "nt-length: 6\r\n\r\na", "bc", "def"] {
                    s.write(piece);
                    std::thread::sleep(Duration::from_millis(5));
                }
            },
            Answer(200, "abcdef", false, None),
        ),
        ("until the end", AMPLE, |s| s.write("HTTP/1.0 200 OK\r\n\r\nold"), Answer(200, "old", false, None)),
        ("continue first", AMPLE, |s| s.write(format!("HTTP/1.1 100 Continue\r\n\r\n{OK}")), Answer(200, "ok", false, None)),
        (
            "as long as the cap",
            AMPLE,
            |s| s.write("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12345678"),
            Answer(200, "12345678", false, None),
        ),
        (
            "longer than the cap",
            AMPLE,
            |s| s.write("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789"),
            Answer(200, "12345678", true, None),
        ),
        (
            "endless",
            AMPLE,
            |s| {
                s.write("HTTP/1.1 200 OK\r\n\r\n");
                // Ends when the door hangs up.
                while s.stream.write_all(b"12345678").is_ok() {}
            },
            Answer(200, "12345678", true, None),
        ),
        ("closed unanswered", AMPLE, |_| {}, After(Reset, None)),
        ("half a head", AMPLE, |s| s.write("HTTP/1.1 200 OK\r\ncontent-le"), After(Reset, None)),
        ("half a body", AMPLE, |s| s.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc"), After(Reset, Some(200))),
        ("half a chunk", AMPLE, |s| s.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabc"), After(Reset, Some(200))),
        ("garbage", AMPLE, |s| s.write("SSH-2.0-OpenSSH_9.6\r\n\r\n"), After(BadResponse, None)),
        ("binary", AMPLE, |s| s.write([0x15, 3, 3, 0, 2, 2, 80, 13, 10, 13, 10]), After(BadResponse, None)),
        ("a bad header", AMPLE, |s| s.write("HTTP/1.1 200 OK\r\nbad header\r\n\r\n"), After(BadResponse, None)),
        (
            "two lengths",
            AMPLE,
            |s| s.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"),
            After(BadResponse, None),
        ),
        (
            "too long a head",
            AMPLE,
            |s| {
                s.write("HTTP/1.1 200 OK\r\n");
                while s.stream.write_all(b"x-filler: 0123456789012345678901234567890123456789\r\n").is_ok() {}
            },
            After(BadResponse, None),
        ),
        ("never answered", SHORT, Served::until_closed, After(Timeout, None)),
        (
            "stuck in the head",
            SHORT,
            |s| {
                s.write("HTTP/1.1 200 OK\r\n");
                s.until_closed();
            },
            After(Timeout, None),
        ),
        (
            "stuck in the body",
            SHORT,
            |s| {
                s.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc");
                s.until_closed();
            },
            After(Timeout, Some(200)),
        ),
        (
            "a byte at a time",
            SHORT,
            |s| {
                s.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                while s.stream.write_all(b"1\r\nx\r\n").is_ok() {
                    std::thread::sleep(SHORT / 3);
                }
            },
            After(Timeout, Some(200)),
        ),
    ];
    for (name, deadline, handle, expected) in cases {
        let handle = *handle;
        let peer = Peer::start(move |_, served| {
            if served.request() {
                handle(served);
            }
        });
        let client = client(&peer);
        let outcome = client.send(post(peer.url(), "{}"), *deadline, 8).await;
        check(name, outcome, expected);
        assert_eq!(peer.requests().len(), 1, "{name}: sent once, whatever happens");
        drop(client);
        peer.all_ended().await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_it_reads_is_a_reset() {
    for _ in 0..20 {
        let peer = Peer::start(|_, _| {});
        let outcome = client(&peer).send(post(peer.url(), vec![b'x'; 4096]), AMPLE, CAP).await;
        check("closed at once", outcome, &End::EitherSide(ErrorKind::Reset));
    }
}

/// An address that refuses connections for as long as the socket is held: bound, not listening.
fn refusing() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn nothing_is_written_where_no_connection_comes_about() {
    let (_held, refusing) = refusing();
    let elsewhere = Peer::start(serve_ok);
    let door = door();
    let outcome = door.client(&format!("http://{refusing}/")).unwrap().send(post(format!("http://{refusing}/"), ""), AMPLE, CAP).await;
    let error = outcome.unwrap_err();
    assert_eq!((error.stage, error.kind), (Stage::BeforeWrite, ErrorKind::Connect), "{error}");

    // A request for another destination, or one that is no request at all, does not leave.
    let client = door.client(&elsewhere.url()).unwrap();
    let port = elsewhere.address.port();
    let urls = [
        format!("http://127.0.0.2:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        "http://127.0.0.1:1/".to_owned(),
        format!("http://127.0.0.1:{port}@evil.example/"),
        format!("http://127.0.0.1:{port}/a b"),
        format!("http://127.0.0.1:{port}/\r\nx-injected: 1"),
        "/hook".to_owned(),
    ];
    for url in urls {
        let error = client.send(post(url.as_str(), ""), AMPLE, CAP).await.unwrap_err();
        assert_eq!((error.stage, error.kind), (Stage::BeforeWrite, ErrorKind::BadRequest), "{url:?}");
    }
    assert_eq!(elsewhere.connections(), 0);

    // What the policy forbids has no client.
    let strict = Door::new(Settings::default(), clock()).unwrap();
    assert_eq!(strict.client(&elsewhere.url()).err(), Some(BadUrl::Blocked(Blocked::Loopback)));
}

#[tokio::test]
async fn the_request_arrives_as_it_was_given() {
    let peer = Peer::start(serve_ok);
    let client = client(&peer);
    let authority = peer.address;
    let mut request = post(peer.url(), r#"{"a":1}"#);
    for (name, value) in
        [("host", "evil.example"), ("content-length", "99"), ("transfer-encoding", "chunked"), ("connection", "close"), ("te", "x")]
    {
        request.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
    }
    client.send(request, AMPLE, CAP).await.unwrap();
    let mut get = post(format!("http://{authority}?q=%20"), "");
    get.method = Method::GET;
    get.headers = vec![(http::header::USER_AGENT, HeaderValue::from_static("mine"))];
    client.send(get, AMPLE, CAP).await.unwrap();
    let expected = [
        format!(
            "POST /hook?x=1 HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\nx-custom: 1\r\n\
             user-agent: trunkline/0.1\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}"
        ),
        format!("GET /?q=%20 HTTP/1.1\r\nhost: {authority}\r\nuser-agent: mine\r\n\r\n"),
    ];
    assert_eq!(peer.requests(), expected);
}

#[tokio::test]
async fn an_answer_before_the_body_is_read_counts() {
    let peer = Peer::start(|number, served| {
        if number == 0 {
            // Answers when it has read the beginning, and keeps the connection: it never becomes free.
            served.stream.read_exact(&mut [0; 16]).unwrap();
            served.write("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n");
            std::thread::sleep(Duration::from_millis(300));
            served.until_closed();
        } else {
            serve_ok(number, served);
        }
    });
    let client = client(&peer);
    let large = vec![b'x'; 32 << 20];
    let sent = client.send(post(peer.url(), large), AMPLE, CAP).await.unwrap();
    assert_eq!(sent.response.status, 413);
    let sent = client.send(post(peer.url(), "{}"), AMPLE, CAP).await.unwrap();
    assert_eq!((sent.response.status, sent.reused, peer.connections()), (200, false, 2));
}

#[tokio::test]
async fn time_outs_leave_nothing_behind() {
    let peer = Peer::start(|_, served| {
        served.request();
        served.until_closed();
    });
    let client = client(&peer);
    let before = alive_tasks();
    for _ in 0..10 {
        let calls = (0..5).map(|_| client.send(post(peer.url(), "{}"), SHORT, CAP));
        for outcome in futures_util::future::join_all(calls).await {
            assert_eq!(outcome.unwrap_err().kind, ErrorKind::Timeout);
        }
    }
    // A caller who goes away has the same effect.
    tokio::time::timeout(SHORT, client.send(post(peer.url(), "{}"), AMPLE, CAP)).await.unwrap_err();
    assert_eq!(client.idle_connections(), 0);
    eventually("tasks are left", || alive_tasks() == before).await;
    peer.all_ended().await;
}

#[tokio::test]
async fn errors_name_no_url() {
    let (_held, refusing) = refusing();
    let url = format!("http://{refusing}/bot123:SECRET/sendMessage");
    let client = door().client(&url).unwrap();
    let wrong = client.send(post("http://127.0.0.1:1/bot123:SECRET/x", ""), AMPLE, CAP).await.unwrap_err();
    let refused = client.send(post(url, ""), AMPLE, CAP).await.unwrap_err();
    for error in [wrong, refused] {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("SECRET") && !text.contains("127.0.0.1"), "{text}");
    }
}
