use std::sync::atomic::{AtomicUsize, Ordering};

use standardwebhooks::Webhook;

use super::super::fake::{Fake, Reply, Seen};
use super::*;

/// Spaces and order as no serialiser would write them: the forward must be the same bytes.
const EVENT: &str = r#"{"specversion":"1.0", "id":"evt_1","type":"message.received","time":"2026-11-22T15:04:05.123456Z","subject":"cnv_1","data":{"z":1,"a":2}}"#;
const OLD: &str = r#"{"id":"evt_0","type":"message.read","time":"2020-01-01T00:00:00Z","data":{}}"#;

fn args(events: &[&str]) -> ListenArgs {
    ListenArgs { forward_to: None, events: events.iter().map(|event| (*event).to_owned()).collect(), since: None, print_secret: false }
}

fn latest() -> Place {
    Place { after: None, not_before: Timestamp::ZERO, is_latest: true }
}

/// Listens until the output has `until`.
async fn listen(args: &ListenArgs, forward: Option<&Forward>, place: Place, fake: &Fake, seen: &Seen, until: &str) {
    let mut context = seen.context(&fake.url, false, false);
    let shown = async {
        while !seen.out().contains(until) && !seen.err().contains(until) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = follow(args, forward, place, &mut context) => panic!("{result:?}"),
        () = shown => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("{} {}", seen.out(), seen.err()),
    }
}

#[tokio::test]
async fn events_are_printed_and_forwarded_with_a_signature_that_the_real_library_accepts() {
    let feed = Fake::start(|asked| match asked.target.as_str() {
        "/v1/events?after=latest&types=message.%2A%2Ctrunkline.test" => Reply::json(200, r#"{"data":[],"next_cursor":"a=1"}"#),
        "/v1/events?after=a%3D1&wait=30&types=message.%2A%2Ctrunkline.test" => {
            Reply::json(200, format!(r#"{{"data":[{EVENT}],"next_cursor":"b"}}"#))
        }
        "/v1/events?after=b&wait=30&types=message.%2A%2Ctrunkline.test" => Reply::Never,
        other => panic!("{other}"),
    })
    .await;
    let handler = Fake::start(|_| Reply::json(202, "")).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("listen.secret");
    let forward = Forward::new(&format!("{}/hook?x=1", handler.url), &path).unwrap();
    let seen = Seen::default();
    listen(&args(&["message.*", "trunkline.test"]), Some(&forward), latest(), &feed, &seen, "\n").await;

    let line = seen.out();
    assert!(line.starts_with("15:04:05.123  message.received          evt_1  cnv_1  -> 202 in "), "{line}");
    let request = handler.requests().pop().unwrap();
    assert_eq!((request.method.as_str(), request.target.as_str(), &request.body[..]), ("POST", "/hook?x=1", EVENT.as_bytes()));
    assert_eq!(request.headers["webhook-id"], "evt_1");
    let secret = local_secret(&path).unwrap();
    Webhook::new(secret.expose()).unwrap().verify(&request.body, &request.headers).unwrap();
    let mut changed = request.body.to_vec();
    changed[0] ^= 1;
    assert!(Webhook::new(secret.expose()).unwrap().verify(&changed, &request.headers).is_err());
}

#[tokio::test]
async fn a_forward_that_nobody_takes_is_told_and_the_rest_goes_on() {
    let feed = Fake::start(|asked| match asked.target.contains("after=b") {
        false => Reply::json(200, format!(r#"{{"data":[{EVENT}],"next_cursor":"b"}}"#)),
        true => Reply::Never,
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let forward = Forward::new("http://127.0.0.1:1/", &folder.path().join("s")).unwrap();
    let seen = Seen::default();
    listen(&args(&[]), Some(&forward), latest(), &feed, &seen, "\n").await;
    assert!(seen.out().contains("evt_1  cnv_1  -> no connection to 127.0.0.1:1"), "{}", seen.out());
}

#[tokio::test]
async fn a_server_that_restarts_without_memory_is_read_again_from_the_last_answer() {
    let calls = AtomicUsize::new(0);
    let new = format!(r#"{{"id":"evt_2","type":"message.sent","time":"{}","data":{{}}}}"#, SystemClock::default().now());
    let feed = Fake::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::json(200, r#"{"data":[],"next_cursor":"a"}"#),
        1 => Reply::json(503, r#"{"title":"Draining","code":"draining"}"#),
        2 => Reply::json(422, r#"{"title":"The request breaks rules","code":"validation-failed"}"#),
        3 => Reply::json(200, format!(r#"{{"data":[{OLD},{new}],"next_cursor":"b"}}"#)),
        _ => Reply::Never,
    })
    .await;
    let seen = Seen::default();
    listen(&args(&[]), None, latest(), &feed, &seen, "evt_2").await;
    assert!(!seen.out().contains("evt_0"), "an event from before: {}", seen.out());
    for told in ["Draining; trying again", "does not know our place", "connected again"] {
        assert!(seen.err().contains(told), "{told}: {}", seen.err());
    }
    let targets: Vec<String> = feed.requests().into_iter().map(|asked| asked.target).take(4).collect();
    assert_eq!(targets, ["/v1/events?after=latest", "/v1/events?after=a&wait=30", "/v1/events?after=a&wait=30", "/v1/events?wait=0"]);
}

#[test]
fn the_secret_is_stable_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let first = local_secret(&path).unwrap();
    assert!(first.expose().starts_with("whsec_"));
    assert_eq!(first.expose(), local_secret(&path).unwrap().expose());
}
