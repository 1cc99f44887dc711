//! Names that resolve to something else every time: what is dialled is what was checked.

use std::io;

use messaging::BoxFuture;

use super::*;
use crate::egress::{ErrorKind, Resolver, Stage};

const ALLOWED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const FORBIDDEN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Gives its answers in turn.
struct InTurn {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Resolver for InTurn {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(self.answers[turn % self.answers.len()].clone()) })
    }
}

fn in_turn(answers: &[&[IpAddr]]) -> Arc<InTurn> {
    Arc::new(InTurn { answers: answers.iter().map(|answer| answer.to_vec()).collect(), asked: AtomicUsize::new(0) })
}

/// Only 127.0.0.1 is allowed; 127.0.0.2 stands for the inside.
fn guarded(resolver: Arc<dyn Resolver>) -> Door {
    let policy = Policy { allow: vec!["127.0.0.1".parse().unwrap()], ..Policy::default() };
    Door::with_resolver(Settings { policy, ..settings() }, clock(), resolver).unwrap()
}

/// Answers once per connection, so that each call resolves anew.
fn serve_once(_: usize, served: &mut Served) {
    served.request();
    served.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
}

#[tokio::test]
async fn a_rebinding_name_never_reaches_the_inside() {
    const ROUNDS: usize = 1000;
    let allowed = Peer::start_at(ALLOWED, 0, serve_once);
    let port = allowed.address.port();
    let canary = Peer::start_at(FORBIDDEN, port, serve_once);
    let mapped = IpAddr::V6(Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped());
    let metadata = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
    let resolver = in_turn(&[&[ALLOWED], &[FORBIDDEN], &[FORBIDDEN, ALLOWED], &[mapped, metadata]]);
    let url = format!("http://rebind.example:{port}/hook");
    let client = guarded(resolver.clone()).client(&url).unwrap();
    for round in 0..ROUNDS {
        let outcome = client.send(post(url.as_str(), "{}"), AMPLE, CAP).await;
        if round % 2 == 0 {
            assert_eq!(outcome.unwrap().response.status, 200, "round {round}");
        } else {
            let error = outcome.unwrap_err();
            assert_eq!((error.stage, error.kind), (Stage::BeforeWrite, ErrorKind::Blocked), "round {round}");
        }
    }
    assert_eq!((canary.connections(), allowed.connections()), (0, ROUNDS / 2));
    assert_eq!(resolver.asked.load(Ordering::SeqCst), ROUNDS, "one resolution per connection");
}

#[tokio::test]
async fn what_a_name_resolves_to_decides() {
    let peer = Peer::start(serve_once);
    let port = peer.address.port();
    let url = format!("http://name.example:{port}/");
    let answers: &[(&[IpAddr], Result<u16, ErrorKind>)] = &[
        (&[ALLOWED], Ok(200)),
        // Nothing listens on the first: the second is tried.
        (&[IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), ALLOWED], Ok(200)),
        (&[], Err(ErrorKind::Resolve)),
        (&[FORBIDDEN], Err(ErrorKind::Blocked)),
    ];
    for (answer, expected) in answers {
        let policy = Policy { allow: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()], ..Policy::default() };
        let door = Door::with_resolver(Settings { policy, ..settings() }, clock(), in_turn(&[answer])).unwrap();
        let outcome = door.client(&url).unwrap().send(post(url.as_str(), ""), AMPLE, CAP).await;
        let outcome = outcome.map(|sent| sent.response.status).map_err(|error| error.kind);
        assert_eq!(outcome, *expected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_resolver_that_fails_or_hangs_is_before_the_write() {
    struct Failing;
    impl Resolver for Failing {
        fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            Box::pin(async move {
                match name {
                    "hangs.example" => std::future::pending().await,
                    _ => Err(io::Error::other("no such name")),
                }
            })
        }
    }
    let long = Duration::from_secs(20);
    let cases = [
        ("fails.example", long, AMPLE, ErrorKind::Resolve),
        ("hangs.example", SHORT, AMPLE, ErrorKind::Resolve),
        ("hangs.example", long, SHORT, ErrorKind::Timeout),
    ];
    for (name, connect_timeout, deadline, kind) in cases {
        let door = Door::with_resolver(Settings { connect_timeout, ..settings() }, clock(), Arc::new(Failing)).unwrap();
        let url = format!("https://{name}/");
        let error = door.client(&url).unwrap().send(post(url, ""), deadline, CAP).await.unwrap_err();
        assert_eq!((error.stage, error.kind), (Stage::BeforeWrite, kind), "{name}: {error}");
    }
}

#[tokio::test]
async fn the_systems_resolver_knows_this_machine() {
    let peer = Peer::start(serve_ok);
    let url = format!("http://localhost:{}/", peer.address.port());
    let sent = door().client(&url).unwrap().send(post(url, ""), AMPLE, CAP).await.unwrap();
    assert_eq!(sent.response.status, 200);
}
