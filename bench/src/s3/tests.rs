//! The S3 backend against the strict store.

use messaging::BoxFuture;
use messaging::clock::SystemClock;
use messaging::exchange::HttpRequest;
use messaging::media::{Answer, BlobError, BlobName, Blobs, Download, DownloadError, S3Blobs, S3Settings, conformance};
use messaging::seal::Secret;

use super::*;
use crate::http::Client;

/// A way out that stays on this machine.
struct Loopback(Client);

impl Download for Loopback {
    fn open(&self, request: HttpRequest, _deadline: Duration) -> BoxFuture<'_, Result<Answer, DownloadError>> {
        Box::pin(async move {
            let headers: Vec<(String, String)> =
                request.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let answer = self.0.send(request.method, &request.url, &headers, request.body).await.map_err(|_| DownloadError::Broken)?;
            let body = futures_util::stream::once(std::future::ready(Ok(answer.body)));
            Ok(Answer { status: answer.status, headers: answer.headers, body: Box::pin(body) })
        })
    }
}

async fn store() -> (S3Sim, S3Settings, SharedClock) {
    let clock: SharedClock = Arc::new(SystemClock::default());
    let options = S3Options {
        bucket: "media".into(),
        region: "eu-central-1".into(),
        access_key: "AKIDEXAMPLE".into(),
        secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        clock: clock.clone(),
    };
    let sim = S3Sim::start(options.clone()).await.unwrap();
    let settings = S3Settings {
        endpoint: sim.url(),
        region: options.region,
        bucket: options.bucket,
        prefix: "tl/prod".into(),
        access_key: options.access_key,
        secret_key: Secret::new(options.secret_key),
    };
    (sim, settings, clock)
}

fn open(settings: &S3Settings, spool: &std::path::Path, clock: &SharedClock) -> Arc<dyn Blobs> {
    let way = Arc::new(Loopback(Client::new(Duration::from_secs(20))));
    Arc::new(S3Blobs::open(settings.clone(), spool, way, clock.clone()).unwrap())
}

#[tokio::test]
async fn the_bucket_conforms() {
    let (sim, settings, clock) = store().await;
    let dir = tempfile::tempdir().unwrap();
    for prefix in ["tl/prod", ""] {
        let settings = S3Settings { prefix: prefix.into(), ..settings.clone() };
        conformance::suite(&|| open(&settings, dir.path(), &clock), clock.now()).await;
    }
    assert_eq!((sim.objects().len(), sim.open_uploads()), (0, 0), "everything was deleted, and nothing is left of uploads");
    assert!(sim.requests().iter().any(|request| request.contains("continuation-token=t%3D")), "lists came in pages");
}

#[tokio::test]
async fn what_is_refused_is_unavailable_and_named() {
    let (sim, settings, clock) = store().await;
    let dir = tempfile::tempdir().unwrap();
    let name = BlobName { folder: [1; 16], name: [2; 16] };
    let table = [
        (S3Settings { secret_key: Secret::new("wrong"), ..settings.clone() }, "SignatureDoesNotMatch"),
        (S3Settings { access_key: "other".into(), ..settings.clone() }, "InvalidAccessKeyId"),
        (S3Settings { region: "us-east-1".into(), ..settings.clone() }, "InvalidAccessKeyId"),
    ];
    for (settings, code) in table {
        let error = open(&settings, dir.path(), &clock).read(name, 0, 10).await.unwrap_err();
        assert_eq!(error, BlobError::Unavailable(format!("status 403 {code}")));
        assert!(!error.to_string().contains("wrong"));
    }
    sim.set_down(true);
    let blobs = open(&settings, dir.path(), &clock);
    let file = dir.path().join("file");
    std::fs::write(&file, vec![1; 9 << 20]).unwrap();
    assert!(matches!(blobs.put(name, &file, clock.now()).await, Err(BlobError::Unavailable(_))));
    sim.set_down(false);
    blobs.put(name, &file, clock.now()).await.unwrap();
    assert!(blobs.read(name, (9 << 20) - 1, 10).await.unwrap().is_some_and(|end| end.len() == 1));
}
