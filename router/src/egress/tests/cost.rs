//! What a delivery costs. Not a test of behaviour: run by hand, in release.
//!
//! `cargo test --release -p router egress::tests::cost -- --ignored --nocapture`

use std::convert::Infallible;
use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use super::*;

const LANES: usize = 64;
const ROUNDS: usize = 3;
const REQUESTS_PER_LANE: usize = 4000;

/// A hyper server on a thread of its own.
fn hyper_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
                    request.into_body().collect().await.unwrap();
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"ok"))))
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    address
}

/// CPU time of this thread in nanoseconds, by the kernel's books.
fn thread_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "a measurement, for release builds"]
fn cpu_per_post_of_1_kib() {
    let url = format!("http://{}/hook", hyper_server());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let door = Door::new(Settings { idle_per_client_max: LANES, ..settings() }, clock()).unwrap();
        let client = door.client(&url).unwrap();
        let body = Bytes::from(vec![b'x'; 1024]);
        for round in 0..=ROUNDS {
            let (cpu, wall) = (thread_cpu_ns(), Instant::now());
            let lanes = (0..LANES).map(|_| {
                let (client, url, body) = (client.clone(), url.clone(), body.clone());
                tokio::spawn(async move {
                    for _ in 0..REQUESTS_PER_LANE {
                        let sent = client.send(post(url.as_str(), body.clone()), AMPLE, CAP).await.unwrap();
                        assert_eq!(sent.response.status, 200);
                    }
                })
            });
            for lane in lanes.collect::<Vec<_>>() {
                lane.await.unwrap();
            }
            let requests = (LANES * REQUESTS_PER_LANE) as f64;
            let cpu_us = (thread_cpu_ns() - cpu) as f64 / 1000.0 / requests;
            println!("round {round}: {cpu_us:.2} us of CPU per POST, {:.0} POST/s", requests / wall.elapsed().as_secs_f64());
        }
    });
}
