//! The edge itself: slow and ambiguous requests, limits, panics, overload, and how it all stops.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::{World, fakes};
use crate::{Drain, Gateway, HttpLimits, Listeners, Options};

#[tokio::test(start_paused = true)]
async fn the_slow_are_cut_off() {
    World::run(async |world| {
        let limits = HttpLimits::default();
        let (head, idle) = (limits.header_timeout, limits.idle_timeout);
        // (what is sent, how long the connection lives at least and at most, what is answered)
        let table: [(&str, Duration, Duration, &str); 4] = [
            ("", idle, idle * 2, ""),
            ("POST /hooks/whatsapp/x HTTP/1.1\r\nhost: x\r\n", head, head * 2, ""),
            (
                "POST /hooks/whatsapp/x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc",
                limits.body_timeout,
                limits.body_timeout * 2,
                "HTTP/1.1 408",
            ),
            ("GET /problems/gone HTTP/1.1\r\nhost: x\r\n\r\n", idle, idle * 2, "HTTP/1.1 200"),
        ];
        for (bytes, least, most, expected) in table {
            let started = Instant::now();
            let mut stream = world.connect();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let lived = started.elapsed();
            assert!(least <= lived && lived <= most, "{bytes:?} lived {lived:?}");
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with(expected) && answer.is_empty() == expected.is_empty(), "{bytes:?}: {answer}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drip_of_header_bytes_buys_no_time() {
    World::run(async |world| {
        let mut stream = world.connect();
        let started = Instant::now();
        for byte in b"GET / HTTP/1.1\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy".iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(started.elapsed() < Duration::from_secs(21), "never cut off");
        }
    })
    .await;
}

#[tokio::test]
async fn requests_have_one_reading_or_none() {
    World::run(async |world| {
        let many_headers: String = (0..101).map(|count| format!("x-{count}: y\r\n")).collect();
        let hundred: String = (0..98).map(|count| format!("x-{count}: y\r\n")).collect();
        let wide = format!("x: {}\r\n", "y".repeat(33 * 1024));
        let long = format!("GET /problems/gone?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "q".repeat(8 * 1024));
        let fits = format!("GET /problems/gone?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "q".repeat(8 * 1024 - 15));
        let get = |rest: &str| format!("GET /problems/gone HTTP/1.1\r\n{rest}connection: close\r\n\r\n");
        let table: Vec<(&str, String, &str)> = vec![
            ("good", get("host: x\r\n"), "200"),
            ("a hundred headers", get(&format!("host: x\r\n{hundred}")), "200"),
            ("more than a hundred", get(&format!("host: x\r\n{many_headers}")), "431"),
            ("more than 32 KiB", get(&format!("host: x\r\n{wide}")), "431"),
            ("a target at the limit", fits, "200"),
            ("a target over it", long, "414"),
            ("no host", get(""), "400"),
            ("two hosts", get("host: x\r\nhost: y\r\n"), "400"),
            ("two lengths", get("host: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n"), "400"),
            ("a length that is none", get("host: x\r\ncontent-length: +1\r\n"), "400"),
            ("an unknown transfer encoding", get("host: x\r\ntransfer-encoding: gzip\r\n"), "400"),
            ("a folded header", get("host: x\r\nx: a\r\n b\r\n"), "400"),
            ("a space before the colon", get("host : x\r\n"), "400"),
            ("a bare name", get("host: x\r\nnonsense\r\n"), "400"),
            ("no HTTP", "\u{16}\u{3}\u{1}nonsense\r\n\r\n".into(), "400"),
            ("an encoded path", "GET /%70roblems/gone HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), "404"),
            ("dots in the path", "GET /v1/../problems/gone HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), "404"),
            ("connect", "CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), "404"),
        ];
        for (what, request, status) in table {
            let answer = world.raw(request.as_bytes()).await;
            let found = answer.strip_prefix("HTTP/1.1 ").or(answer.strip_prefix("HTTP/1.0 ")).and_then(|rest| rest.get(..3));
            assert_eq!(found, Some(status), "{what}: {answer}");
        }
        // A length beside chunks: one reading, and nothing after it is read as a request.
        let both = "POST /hooks/whatsapp/x HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /problems/gone HTTP/1.1\r\nhost: x\r\n\r\n";
        let answer = world.raw(both.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    })
    .await;
}

#[tokio::test]
async fn request_ids_are_given_back_or_made() {
    World::run(async |world| {
        for (given, is_kept) in [("order-17.retry_2", true), ("short", false), ("has space!", false), (&"x".repeat(65), false)] {
            let answer = world.open("GET", "/nothing", &[("x-request-id", given)], "").await;
            assert_eq!(answer.header("x-request-id") == given, is_kept, "{given}");
            assert_eq!(answer.json()["request_id"], answer.header("x-request-id"));
        }
        let other = world.open("PUT", "/v1/messages", &[], "").await;
        assert_eq!((other.status, other.header("allow"), other.code().as_str()), (405, "POST, GET", "method-not-allowed"));
    })
    .await;
}

#[tokio::test]
async fn a_panic_is_one_request_s_failure() {
    World::run(async |world| {
        let account = world.whatsapp().await;
        for _ in 0..50 {
            // The fake door panics when no answer was set.
            let answer = world.call("POST", &format!("/v1/accounts/{account}/check"), &Value::Null).await;
            assert_eq!((answer.status, answer.code().as_str()), (500, "internal"));
            assert!(!String::from_utf8_lossy(&answer.body).contains("panic"));
        }
        assert_eq!(world.call("GET", "/v1/accounts", &Value::Null).await.status, 200);
        let in_flight = world.worker.shared.bounds.in_flight.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(in_flight, 0);
    })
    .await;
}

#[tokio::test]
async fn beyond_the_limit_of_requests_the_answer_is_503() {
    let http = HttpLimits { max_in_flight: 1, ..HttpLimits::default() };
    World::run_with(Options { http, ..Options::default() }, async |world| {
        world.log.stuck.store(true, std::sync::atomic::Ordering::SeqCst);
        let bot = {
            // Making an account needs no log.
            world.telegram().await
        };
        let hook = format!("/hooks/telegram/{bot}");
        let headers = [("x-telegram-bot-api-secret-token", super::SECRET_TOKEN)];
        let body = r#"{"update_id":1,"message":{"message_id":1,"date":1795168800,"chat":{"id":4711,"type":"private"},"text":"x"}}"#;
        let (first, second) = tokio::join!(world.open("POST", &hook, &headers, body), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let second = world.open("GET", "/problems/gone", &[], "").await;
            world.log.stuck.store(false, std::sync::atomic::Ordering::SeqCst);
            second
        });
        assert_eq!((first.status, second.status, second.code().as_str()), (200, 503, "overloaded"));
        assert!(second.headers.contains_key("retry-after"));
    })
    .await;
}

/// An answer names some faults and says how many there are beside; a batch names some over all its messages.
#[tokio::test]
async fn answers_name_so_many_faults_and_no_more() {
    World::run(async |world| {
        let wrong = |members: usize| Value::Object((0..members).map(|n| (format!("x{n}"), Value::Null)).collect());
        let one = world.call("POST", "/v1/messages", &wrong(1_600)).await;
        assert_eq!(one.status, 422);
        let (named, more) = (one.json()["errors"].as_array().unwrap().len(), one.json()["more_errors"].as_u64().unwrap());
        assert!(named == 20 && named as u64 + more >= 1_600, "{named} and {more}");
        let batch: Vec<Value> = (0..200).map(|_| wrong(100)).collect();
        let answer = world.call("POST", "/v1/messages/batch", &Value::Array(batch)).await;
        assert_eq!(answer.json()["refused"], 200);
        let items = answer.json()["items"].as_array().unwrap().clone();
        let named: usize = items.iter().map(|item| item["problem"]["errors"].as_array().map_or(0, Vec::len)).sum();
        assert_eq!(named, 100, "over all messages of the batch");
        assert!(answer.body.len() < 200_000, "{} bytes", answer.body.len());
    })
    .await;
}

/// A batch is one call of its key, however many messages it has.
#[tokio::test]
async fn a_batch_counts_as_one_call() {
    let options = Options { api_per_key: 1.0, api_burst: 4.0, ..Options::default() };
    World::run_with(options, async |world| {
        let batch = Value::Array((0..1_000).map(|_| Value::Object(serde_json::Map::new())).collect());
        let answer = world.call("POST", "/v1/messages/batch", &batch).await;
        let items = answer.json()["items"].as_array().unwrap().clone();
        let limited = items.iter().filter(|item| item["problem"]["code"] == "quota-exceeded").count();
        assert_eq!((items.len(), limited), (1_000, 0));
    })
    .await;
}

/// Requests whose bodies do not come are not under way: they shut the door for nobody.
#[tokio::test]
async fn half_sent_requests_keep_nobody_out() {
    let http = HttpLimits { max_in_flight: 4, ..HttpLimits::default() };
    World::run_with(Options { http, ..Options::default() }, async |world| {
        let bot = world.telegram().await;
        let hook = format!("/hooks/telegram/{bot}");
        let mut strangers = Vec::new();
        for _ in 0..50 {
            let mut stream = world.connect();
            let half = format!("POST {hook} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nx");
            stream.write_all(half.as_bytes()).await.unwrap();
            strangers.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let headers = [("x-telegram-bot-api-secret-token", super::SECRET_TOKEN)];
        let body = r#"{"update_id":1,"message":{"message_id":1,"date":1795168800,"chat":{"id":4711,"type":"private"},"text":"x"}}"#;
        assert_eq!(world.open("POST", &hook, &headers, body).await.status, 200);
        drop(strangers);
    })
    .await;
}

#[tokio::test]
async fn http2_is_spoken_too() {
    World::run(async |world| {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(world.connect())).await.unwrap();
        spawn_local(connection);
        for _ in 0..3 {
            let request = http::Request::get("http://gw.example/problems/gone").body(Empty::<Bytes>::new()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.into_body().collect().await.unwrap().to_bytes().starts_with(b"<!doctype"));
        }
    })
    .await;
}

/// A request over real TCP; the status, and whether the gateway will close.
async fn ask(stream: &mut tokio::net::TcpStream, path: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}

#[tokio::test]
async fn a_drain_announces_finishes_and_closes() {
    let fakes = fakes();
    fakes.parts.keeper.refresh().await.unwrap();
    crate::admin::first_key(&fakes.parts.keeper, &fakes.parts.keyring, &fakes.parts.clock).await.unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listeners = Listeners::bind(Some(any), Some(any), 2, false).unwrap();
    let (public, admin) = (listeners.public_address().unwrap(), listeners.admin_address().unwrap());
    let drain = Drain { announce: Duration::from_millis(300), requests: Duration::from_secs(5) };
    let gateway = Gateway::new(fakes.parts, Options { drain, ..Options::default() });
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        gateway
            .serve(listeners, async {
                let _ = stopped.await;
            })
            .await
    });
    let connect = async |address| tokio::net::TcpStream::connect(address).await;
    let mut idle = connect(public).await.unwrap();
    assert!(ask(&mut idle, "/problems/gone").await.unwrap().starts_with("HTTP/1.1 200"));
    let mut watcher = connect(admin).await.unwrap();
    assert!(ask(&mut watcher, "/readyz").await.unwrap().starts_with("HTTP/1.1 200"));
    stop.send(()).unwrap();
    // While it is announced everything is served, and readiness says no.
    let mut during = connect(public).await.unwrap();
    let mut ready = ask(&mut watcher, "/readyz").await.unwrap();
    while ready.starts_with("HTTP/1.1 200") {
        ready = ask(&mut watcher, "/readyz").await.unwrap();
    }
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ask(&mut during, "/problems/gone").await.unwrap().starts_with("HTTP/1.1 200"));
    // Then idle connections close, and nobody gets in.
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    serving.await.unwrap().unwrap();
    assert!(connect(public).await.is_err());
}

#[tokio::test]
async fn too_many_connections_are_turned_away() {
    let by_all = HttpLimits { max_connections: 2, ..HttpLimits::default() };
    let by_address = HttpLimits { max_connections_per_address: 2, ..HttpLimits::default() };
    for http in [by_all, by_address] {
        the_third_is_turned_away(http).await;
    }
}

async fn the_third_is_turned_away(http: HttpLimits) {
    let fakes = fakes();
    let any = "127.0.0.1:0".parse().unwrap();
    let listeners = Listeners::bind(Some(any), None, 1, false).unwrap();
    let public = listeners.public_address().unwrap();
    let options = Options { http, drain: Drain { announce: Duration::ZERO, requests: Duration::from_secs(5) }, ..Options::default() };
    let gateway = Gateway::new(fakes.parts, options);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        gateway
            .serve(listeners, async {
                let _ = stopped.await;
            })
            .await
    });
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(public).await.unwrap();
        assert!(ask(&mut stream, "/problems/gone").await.unwrap().starts_with("HTTP/1.1 200"));
        open.push(stream);
    }
    let mut third = tokio::net::TcpStream::connect(public).await.unwrap();
    let mut answer = String::new();
    third.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
