//! A server that answers as a test says, and a screen that remembers.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::Context;
use super::output::Screen;

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What a test lets the server answer.
pub enum Reply {
    Now(u16, &'static str, String),
    Never,
}

impl Reply {
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self::Now(status, "application/json", body.into())
    }
}

/// A local server; it ends with the test's runtime.
pub struct Fake {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// `answer` gets the request; the earlier ones are in `requests`.
    pub async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), asked.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, log) = (answer.clone(), log.clone());
                let service = service_fn(move |request| reply(request, answer.clone(), log.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, asked }
    }

    pub fn requests(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn reply(
    request: Request<Incoming>,
    answer: Arc<impl Fn(&Asked) -> Reply>,
    log: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let asked = Asked { method: head.method, target: head.uri.to_string(), headers: head.headers, body };
    let reply = answer(&asked);
    log.lock().unwrap().push(asked);
    match reply {
        Reply::Now(status, kind, body) => {
            Ok(Response::builder().status(status).header("content-type", kind).body(Full::new(body.into())).unwrap())
        }
        Reply::Never => std::future::pending().await,
    }
}

#[derive(Clone, Default)]
struct Pen(Arc<Mutex<Vec<u8>>>);

impl Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What a command has printed.
#[derive(Clone, Default)]
pub struct Seen {
    out: Pen,
    err: Pen,
}

impl Seen {
    pub fn screen(&self, is_terminal: bool, json: bool) -> Screen {
        Screen::to(Box::new(self.out.clone()), Box::new(self.err.clone()), is_terminal, json)
    }

    pub fn context(&self, url: &str, is_terminal: bool, json: bool) -> Context {
        let runtime_path = PathBuf::from("/nonexistent/trunkline.json");
        Context { screen: self.screen(is_terminal, json), url: Some(url.to_owned()), key: Some("key".to_owned()), runtime_path }
    }

    pub fn out(&self) -> String {
        self.out.text()
    }

    pub fn err(&self) -> String {
        self.err.text()
    }
}
