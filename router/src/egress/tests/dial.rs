//! Connections of the caller's own go through the same door.

use messaging::exchange::ByteStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::tls::{Authority, BOTH, serve_tls, trusting};
use super::*;
use crate::egress::{CallError, ErrorKind, Stage};

/// Speaks over the connection: what comes back.
async fn spoken(mut stream: Box<dyn ByteStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; OK.len()];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn refusal(door: &Door, url: &str) -> CallError {
    door.dial(url).await.err().unwrap_or_else(|| panic!("{url} was connected to"))
}

#[tokio::test]
async fn a_connection_is_the_callers_until_it_is_dropped() {
    let peer = Peer::start(serve_ok);
    let stream = door().dial(&peer.url()).await.unwrap();
    assert_eq!(spoken(stream).await, OK);
    assert_eq!(peer.connections(), 1);
    peer.all_ended().await;
}

#[tokio::test]
async fn with_tls_the_other_side_proves_its_name() {
    let authority = Authority::new();
    let door = trusting(vec![authority.root()]);
    let peer = serve_tls(authority.server(&["gateway.example"], false, BOTH));
    let url = |host: &str| format!("https://{host}:{}/?v=10", peer.address.port());
    assert_eq!(spoken(door.dial(&url("gateway.example")).await.unwrap()).await, OK);
    let error = refusal(&door, &url("other.example")).await;
    assert_eq!((error.stage, error.kind), (Stage::BeforeWrite, ErrorKind::Tls), "{error}");
}

#[tokio::test]
async fn what_may_not_be_called_may_not_be_dialled() {
    let closed = Door::new(Settings { policy: Policy::default(), ..settings() }, clock()).unwrap();
    for url in [
        "http://127.0.0.1:80/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/",
        "https://example.com:22/",
        "wss://example.com/",
        "",
    ] {
        let error = refusal(&closed, url).await;
        assert_eq!((error.stage, error.kind), (Stage::BeforeWrite, ErrorKind::BadRequest), "{url}: {error}");
    }
    // A name that only turns out to be this machine.
    let resolving = Door::with_resolver(Settings { policy: Policy::default(), ..settings() }, clock(), Arc::new(tls::Here)).unwrap();
    assert_eq!(refusal(&resolving, "https://gateway.example/").await.kind, ErrorKind::Blocked);
}
