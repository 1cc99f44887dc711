//! Connections are kept, bounded, given up in time, and replaced unnoticed when the peer closes them.

use std::sync::mpsc;

use super::*;

async fn ok(client: &Client, peer: &Peer) -> bool {
    let sent = client.send(post(peer.url(), "{}"), AMPLE, CAP).await.unwrap();
    assert_eq!(sent.response.status, 200);
    sent.reused
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let peer = Peer::start(serve_ok);
    let client = client(&peer);
    for round in 0..100 {
        assert_eq!(ok(&client, &peer).await, round > 0);
    }
    assert_eq!((peer.connections(), peer.requests().len(), client.idle_connections()), (1, 100, 1));
}

#[tokio::test]
async fn connections_are_not_kept_when_the_peer_says_so() {
    let cases: &[(&str, &str, usize)] = &[
        ("close", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", 3),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 3),
        ("a second at most", "HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok", 3),
        ("long enough", "HTTP/1.1 200 OK\r\nkeep-alive: max=9, timeout=60\r\ncontent-length: 2\r\n\r\nok", 1),
        ("unreadable", "HTTP/1.1 200 OK\r\nkeep-alive: timeout=soon\r\ncontent-length: 2\r\n\r\nok", 1),
    ];
    for &(name, answer, connections) in cases {
        let peer = Peer::start(move |_, served| {
            while served.request() {
                served.write(answer);
            }
        });
        let client = client(&peer);
        for _ in 0..3 {
            ok(&client, &peer).await;
        }
        assert_eq!(peer.connections(), connections, "{name}");
    }
}

#[tokio::test]
async fn a_connection_with_more_body_than_the_cap_is_closed() {
    let peer = Peer::start(serve_ok);
    let client = client(&peer);
    let sent = client.send(post(peer.url(), "{}"), AMPLE, 1).await.unwrap();
    assert_eq!((&sent.response.body[..], sent.truncated), (&b"o"[..], true));
    assert_eq!(client.idle_connections(), 0);
    peer.all_ended().await;
}

#[tokio::test]
async fn idle_connections_are_bounded() {
    let peer = Peer::start(serve_ok);
    let limits = Settings { idle_per_client_max: 3, idle_total_max: 4, ..settings() };
    let door = Door::new(limits, clock()).unwrap();
    let (first, second) = (door.client(&peer.url()).unwrap(), door.client(&peer.url()).unwrap());
    for (client, kept) in [(&first, 3), (&second, 1)] {
        futures_util::future::join_all((0..8).map(|_| ok(client, &peer))).await;
        assert_eq!(client.idle_connections(), kept);
    }
    let in_total = || door.0.idle.load(Ordering::SeqCst);
    assert_eq!(in_total(), 4);
    drop(first);
    assert_eq!(in_total(), 1);
    futures_util::future::join_all((0..8).map(|_| ok(&second, &peer))).await;
    assert_eq!((second.idle_connections(), in_total()), (3, 3));
    drop(second);
    assert_eq!(in_total(), 0);
    peer.all_ended().await;
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let peer = Peer::start(serve_ok);
    let door = door();
    let client = door.client(&peer.url()).unwrap();
    ok(&client, &peer).await;
    ok(&client, &peer).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(29)).await;
    eventually("", || true).await;
    assert_eq!(client.idle_connections(), 1);
    tokio::time::advance(Duration::from_secs(31)).await;
    eventually("the idle connection is kept", || client.idle_connections() == 0).await;
    assert_eq!(door.0.idle.load(Ordering::SeqCst), 0);
    eventually("its task is left", || alive_tasks() == 0).await;
    peer.all_ended().await;
}

/// So much later that idle connections are looked at again.
async fn a_look_later() {
    tokio::time::pause();
    tokio::time::advance(crate::egress::pool::IDLE_LOOK).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_outdated_connection_is_not_used() {
    let peer = Peer::start(serve_ok);
    let client = client(&peer);
    ok(&client, &peer).await;
    // Past its time, but before its task had a chance to look.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();
    assert!(!ok(&client, &peer).await);
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    // Answers one request on each connection, then closes without having said so.
    let peer = Peer::start(|_, served| {
        served.request();
        served.write(OK);
    });
    let client = client(&peer);
    for round in 1..=20 {
        assert!(!ok(&client, &peer).await);
        eventually("", || peer.seen.ended.load(Ordering::SeqCst) == round).await;
        a_look_later().await;
        eventually("the closed connection is kept", || client.idle_connections() == 0).await;
        assert_eq!((peer.connections(), peer.requests().len()), (round, round));
    }
}

/// The close and the wish to send meet: the client still believes in its connection and hands the request over, the
/// connection's task sees the end first and gives it back unwritten.
#[tokio::test]
async fn a_request_that_meets_the_close_goes_out_on_a_new_connection() {
    let (go, wait_for_go) = mpsc::channel::<()>();
    let (closed, wait_for_closed) = mpsc::channel::<()>();
    let wait_for_go = Mutex::new(wait_for_go);
    let signal = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut woken = tokio::net::TcpStream::connect(signal.local_addr().unwrap()).await.unwrap();
    let (waker, _) = signal.accept().unwrap();
    let waker = Mutex::new((waker, closed));
    let peer = Peer::start(move |number, served| {
        served.request();
        served.write(OK);
        if number > 0 {
            return served.until_closed();
        }
        wait_for_go.lock().unwrap().recv().unwrap();
        served.stream.shutdown(std::net::Shutdown::Both).unwrap();
        let mut waker = waker.lock().unwrap();
        waker.0.write_all(b"!").unwrap();
        waker.1.send(()).unwrap();
    });
    let client = client(&peer);
    ok(&client, &peer).await;
    // Until the connection's task has come to rest.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // Holds the runtime's only thread until the close and the signal lie in one batch of events.
    tokio::spawn(async move {
        go.send(()).unwrap();
        wait_for_closed.recv().unwrap();
    });
    tokio::io::AsyncReadExt::read_u8(&mut woken).await.unwrap();
    assert_eq!(client.idle_connections(), 1, "the client does not know yet");
    assert!(!ok(&client, &peer).await);
    assert_eq!((peer.connections(), peer.requests().len()), (2, 2), "and the request was sent once");
}
