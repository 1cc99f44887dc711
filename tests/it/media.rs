//! Media over the real binary: fetched, told, sealed, served, over.

mod hostile;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::http::{Client, Response};
use bench::platform::email::{EmailSim, Protection};
use bench::platform::{PersonsFile, SimOptions};
use bench::s3::{S3Options, S3Sim};
use bytes::Bytes;
use serde_json::{Value, json};
use system_tests::{CHAT, PATIENCE, PHONE, Setup, System, body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Stands in every file that a person sends here: to be found nowhere on the disk.
const CANARY: &str = "canary-of-a-persons-picture";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

fn picture(more: usize) -> Bytes {
    [PNG, CANARY.as_bytes(), &vec![7; more], CANARY.as_bytes()].concat().into()
}

fn image(bytes: Bytes) -> PersonsFile {
    PersonsFile { kind: "image", mime_type: "image/png", filename: None, bytes }
}

async fn get(url: &str, headers: &[(&str, &str)]) -> Response {
    let client = Client::new(Duration::from_secs(30));
    client.send(http::Method::GET, url, headers, Bytes::new()).await.expect("the gateway answers")
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
}

/// Files below a folder whose bytes hold a text.
fn files_with(folder: &Path, text: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the test").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            files_with(&path, text, found);
        } else if std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
}

/// Files of media below the media folder.
fn kept(system: &System) -> usize {
    fn count(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).map(|entries| entries.filter_map(Result::ok).collect::<Vec<_>>()).unwrap_or_default();
        entries.iter().map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
    }
    count(&system.data_dir().join("media"))
}

/// The picture of a message that came in.
async fn received(system: &System, kind: &str) -> Value {
    let received = system.event("message.received", |event| event["data"]["message"]["type"] == kind).await;
    body(&received)["data"]["message"][kind].clone()
}

async fn told(system: &System, kind: &str, id: &Value) -> Value {
    let told = system.event(kind, |event| event["data"]["media"]["id"] == *id).await;
    system.verify(&told);
    body(&told)["data"]["media"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_fetched_told_served_and_gone_when_its_time_is_over() {
    let system = System::start().await;
    let bytes = picture(200_000);
    let (platform_id, posted) = system.whatsapp.customer_sends_file(PHONE, image(bytes.clone())).await;
    assert!(posted.accepted);
    let said = received(&system, "image").await;
    assert_eq!(said["id"], platform_id.as_str(), "the platform's id stays where it was");
    let (id, url) = (said["media"].clone(), said["url"].as_str().expect("a link").to_owned());
    assert!(id.as_str().is_some_and(|id| id.starts_with("med_")), "{said}");
    let ready = told(&system, "media.ready", &id).await;
    let sha256 = data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(&bytes));
    assert_eq!((&ready["mime_type"], &ready["size_bytes"], &ready["sha256"]), (&json!("image/png"), &json!(bytes.len()), &json!(sha256)));

    // The link, and the key.
    let by_link = get(&url, &[]).await;
    assert_eq!((by_link.status, &by_link.body), (200, &bytes));
    for (name, value) in [
        ("content-type", "image/png"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("cache-control", "private, no-store"),
        ("accept-ranges", "bytes"),
        ("content-length", &bytes.len().to_string()),
    ] {
        assert_eq!(header(&by_link, name), value, "{name}");
    }
    assert!(header(&by_link, "content-disposition").starts_with("attachment; "));
    assert_eq!(get(ready["url"].as_str().expect("a link"), &[]).await.body, bytes);
    let path = format!("/v1/media/{}", id.as_str().unwrap());
    let by_key = system.call("GET", &path, &[], "").await;
    assert_eq!((by_key.status, &by_key.body), (200, &bytes));
    assert_eq!(system.whatsapp.files_served(), 1, "fetched once");

    // Parts.
    for (range, from, to) in [("bytes=0-3", 0, 4), ("bytes=65530-65545", 65_530, 65_546), ("bytes=-5", bytes.len() - 5, bytes.len())] {
        let part = get(&url, &[("range", range)]).await;
        assert_eq!((part.status, &part.body[..]), (206, &bytes[from..to]), "{range}");
        assert_eq!(header(&part, "content-range"), format!("bytes {from}-{}/{}", to - 1, bytes.len()));
    }
    assert_eq!(get(&url, &[("range", "bytes=999999-")]).await.status, 416);

    // Links that are forged, cut or another tenant's look alike; another tenant's key finds nothing.
    let (front, token) = url.rsplit_once('/').expect("a path");
    let flipped = if token.starts_with('A') { "B" } else { "A" };
    let forged = [format!("{front}/{flipped}{}", &token[1..]), format!("{front}/{}", &token[1..]), format!("{front}/x")];
    for url in &forged {
        let answer = get(url, &[]).await;
        let text = String::from_utf8_lossy(&answer.body);
        assert!(answer.status == 404 && text.contains("nothing here has this path or id"), "{url}: {text}");
    }
    let other = system.ok("POST", "/v1/tenants", &json!({"name": "other"})).await;
    let theirs = format!("Bearer {}", other["key"].as_str().unwrap());
    assert_eq!(system.call("GET", &path, &[("authorization", &theirs)], "").await.status, 404);

    // Sealed on the disk, wherever it went.
    let mut found = Vec::new();
    files_with(&system.data_dir(), CANARY, &mut found);
    assert!(found.is_empty(), "in the clear: {found:?}");
    assert_eq!(kept(&system), 1);
    assert!(!system.process.log().contains(token), "links are not logged");

    // A week later the link is over, a month later the picture.
    system.advance(Duration::from_secs(8 * 86_400)).await;
    assert_eq!(get(&url, &[]).await.status, 404);
    assert_eq!(system.call("GET", &path, &[], "").await.status, 200, "with a key it is there");
    system.advance(Duration::from_secs(23 * 86_400)).await;
    assert_eq!(system.call("GET", &path, &[], "").await.status, 410);
    // A sweep that was under way when the time was moved looks again in ten minutes.
    for _ in 0..500 {
        if kept(&system) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        system.advance(Duration::from_secs(11 * 60)).await;
    }
    assert_eq!(kept(&system), 0, "swept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing_and_a_withdrawn_picture_is_deleted() {
    let mut system = System::start().await;
    let file = PersonsFile {
        kind: "document",
        mime_type: "application/pdf",
        filename: Some("a b.pdf".into()),
        bytes: b"%PDF-1.7 x".as_slice().into(),
    };
    system.telegram.customer_sends_file(CHAT, file.clone()).await;
    let said = received(&system, "document").await;
    told(&system, "media.ready", &said["media"]).await;
    let path = format!("/v1/media/{}", said["media"].as_str().unwrap());
    system.process.kill();
    system.restart().await;
    system.telegram.forget_files();
    let answer = system.call("GET", &path, &[], "").await;
    assert_eq!((answer.status, &answer.body), (200, &file.bytes));
    assert_eq!(header(&answer, "content-disposition"), "attachment; filename=\"a b.pdf\"; filename*=UTF-8''a%20b.pdf");
    // WhatsApp tells of withdrawn messages.
    system.whatsapp.customer_sends_file(PHONE, image(picture(10))).await;
    let received = system.event("message.received", |event| event["data"]["message"]["type"] == "image").await;
    let message = body(&received)["data"]["message"].clone();
    told(&system, "media.ready", &message["image"]["media"]).await;
    assert_eq!(kept(&system), 2);
    let at = system.whatsapp.now().as_secs().to_string();
    let revoke = json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp", "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"},
        "contacts": [{"profile": {"name": "Test Customer"}, "wa_id": PHONE}],
        "messages": [{"from": PHONE, "id": "wamid.revoke", "timestamp": at, "type": "revoke",
            "revoke": {"original_message_id": message["platform_id"]}}],
    }}]}]});
    assert!(system.whatsapp.post_event(&revoke).await.accepted);
    system.event("message.deleted", |_| true).await;
    for _ in 0..500 {
        if kept(&system) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kept(&system), 1, "deleted with its message");
    assert_eq!(get(message["image"]["url"].as_str().unwrap(), &[]).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_brought_is_sent_by_a_link_of_ours() {
    let system = System::start().await;
    system.telegram.customer_writes(CHAT, "hello").await;
    system.event("message.received", |_| true).await;
    let bytes = picture(100);
    let png = [("content-type", "image/png")];
    let url = format!("http://{}/v1/media?filename=cat.png", system.process.public);
    let client = Client::new(Duration::from_secs(30));
    let key = format!("Bearer {}", system.key);
    let bring = async |kind: &str, bytes: Bytes| {
        let headers = [("authorization", key.as_str()), ("content-type", kind)];
        client.send(http::Method::POST, &url, &headers, bytes).await.expect("the gateway answers")
    };
    let made = bring(png[0].1, bytes.clone()).await;
    let made_json: Value = serde_json::from_slice(&made.body).unwrap();
    assert_eq!(made.status, 201, "{made_json}");
    let id = made_json["id"].as_str().unwrap();
    let again: Value = serde_json::from_slice(&bring(png[0].1, bytes.clone()).await.body).unwrap();
    assert_eq!(again["id"], id, "the same bytes are the same medium");
    assert_eq!(bring("image/png", b"<html>".as_slice().into()).await.status, 415);
    assert_eq!(bring("image/png", Bytes::new()).await.status, 415);
    assert_eq!(bring("text/plain", Bytes::new()).await.status, 400);
    assert_eq!(get(made_json["url"].as_str().unwrap(), &[]).await.body, bytes);

    let send = |media: Value| json!({"account": system.tg_account, "to": {"chat_id": CHAT}, "type": "image", "image": media});
    let message = system.send(send(json!({"media": id, "caption": "c"}))).await;
    system.until_status(&message, "sent").await;
    let call: Value = serde_json::from_slice(&system.telegram.accepted().last().unwrap().body).unwrap();
    let answer = get(call["photo"].as_str().expect("a link"), &[]).await;
    assert_eq!((answer.status, answer.body), (200, bytes), "the platform can fetch it");
    for (media, why) in [
        (json!({"media": messaging::ids::MediaId([9; 16])}), "there is no medium"),
        (json!({"media": id, "link": "https://x.example/a.png"}), "give one of the three"),
        (json!({"media": "nonsense"}), "med_"),
        (json!({"link": "https://x.example/a.png", "url": "https://x.example"}), "url"),
    ] {
        let answer = system.call("POST", "/v1/messages", &[], &send(media.clone()).to_string()).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 422 && text.contains(why), "{media}: {text}");
    }
    let other = system.ok("POST", "/v1/tenants", &json!({"name": "other"})).await;
    let theirs = format!("Bearer {}", other["key"].as_str().unwrap());
    assert_eq!(system.call("GET", &format!("/v1/media/{id}"), &[("authorization", &theirs)], "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_s_files_are_kept_although_they_are_nowhere_else() {
    let mut system = System::start().await;
    let options = SimOptions { clock: system.clock.clone(), ..SimOptions::default() };
    let secret = options.secret.clone();
    let sim = EmailSim::start(options, Protection::Plain).await.expect("a simulator starts");
    let relay = sim.relay();
    let account = json!({"channel": "email", "name": "mailbox", "address": "shop@example.net", "provider": "bridge", "secret": secret,
        "smtp_host": relay.ip().to_string(), "smtp_port": relay.port().to_string(), "smtp_security": "plain", "smtp_user": "shop",
        "smtp_password": "pass"});
    let account = system.ok("POST", "/v1/accounts", &account).await["id"].as_str().unwrap().to_owned();
    sim.set_hook(&system.hook("email", &account));
    let raw = format!(
        "From: Ada <ada@example.com>\r\nTo: shop@example.net\r\nMessage-ID: <1@example.com>\r\nSubject: x\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n\
         --b\r\nContent-Type: text/html; name=page.html\r\nContent-Disposition: attachment; filename=page.html\r\n\r\n\
         <script>{CANARY}</script>\r\n--b\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename=b.csv\r\n\r\n\
         {CANARY},2\r\n--b--\r\n"
    );
    assert!(sim.post_mail("1@example.com", "ada@example.com", raw).await.accepted);
    let said = received(&system, "email").await["attachments"].clone();
    for _ in 0..2 {
        for (place, bytes) in [(0, format!("<script>{CANARY}</script>")), (1, format!("{CANARY},2"))] {
            let medium = &said[place];
            told(&system, "media.ready", &medium["media"]).await;
            let path = format!("/v1/media/{}", medium["media"].as_str().unwrap());
            let answer = system.call("GET", &path, &[], "").await;
            assert_eq!((answer.status, String::from_utf8_lossy(&answer.body).into_owned()), (200, bytes));
            assert_eq!(header(&answer, "content-type"), "application/octet-stream", "a page is never served as one");
        }
        system.process.kill();
        system.restart().await;
    }
    let mut found = Vec::new();
    files_with(&system.data_dir(), CANARY, &mut found);
    assert!(found.is_empty(), "in the clear: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_bucket_as_in_a_folder() {
    let clock: messaging::clock::SharedClock = Arc::new(messaging::clock::SystemClock::default());
    let secrets = tempfile::tempdir().unwrap();
    let options = S3Options {
        bucket: "media".into(),
        region: "eu-central-1".into(),
        access_key: "AKIDEXAMPLE".into(),
        secret_key: "the-secret-key".into(),
        clock,
    };
    let bucket = S3Sim::start(options).await.unwrap();
    let file = secrets.path().join("secret");
    std::fs::write(&file, "the-secret-key\n").unwrap();
    let config = format!(
        "[media]\ndir = \"s3://media/prod\"\n[media.s3]\nendpoint = \"{}\"\nregion = \"eu-central-1\"\naccess_key = \"AKIDEXAMPLE\"\n\
         secret_key_file = \"{}\"\n",
        bucket.url(),
        file.display()
    );
    let system = System::with(Setup { config, ..Setup::default() }).await;
    // The bucket is made to fail below.
    system.announced().errors(&["a medium cannot be read"]);
    // Larger than a part, so that it goes up in two.
    let bytes = picture(9 << 20);
    system.whatsapp.customer_sends_file(PHONE, image(bytes.clone())).await;
    let said = received(&system, "image").await;
    told(&system, "media.ready", &said["media"]).await;
    let answer = get(said["url"].as_str().unwrap(), &[]).await;
    assert!(answer.status == 200 && answer.body == bytes);
    let part = get(said["url"].as_str().unwrap(), &[("range", "bytes=9000000-9000009")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &bytes[9_000_000..9_000_010]));
    let objects = bucket.objects();
    assert_eq!((objects.len(), bucket.open_uploads(), kept(&system)), (1, 0, 0));
    let (name, sealed) = &objects[0];
    assert!(name.starts_with("prod/") && !sealed.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{name}");
    // While it is away the answer says so, and nothing else is lost.
    bucket.set_down(true);
    let path = format!("/v1/media/{}", said["media"].as_str().unwrap());
    let away = system.call("GET", &path, &[], "").await;
    let problem: Value = serde_json::from_slice(&away.body).unwrap();
    assert_eq!((away.status, &problem["reason"]), (503, &json!("store_unavailable")));
    bucket.set_down(false);
    assert_eq!(system.call("GET", &path, &[], "").await.status, 200);
    assert!(!system.process.log().contains("the-secret-key"));
}
