//! Everything that a hostile platform may answer when it is asked for a medium.

use super::*;

/// A platform that answers what a case wants. It speaks WhatsApp (`GET /v23.0/{id}` says where a medium is) and gives out bytes.
struct Hostile {
    addr: SocketAddr,
    /// What `/bytes` answers, byte for byte, and how long it then holds the connection.
    answer: Arc<Mutex<(Vec<u8>, Duration)>>,
    /// The address that it names; none: its own `/bytes`.
    link: Arc<Mutex<Option<String>>>,
    /// Whether anybody came where nobody may be sent.
    lured: Arc<AtomicBool>,
}

impl Hostile {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hostile = Self { addr: listener.local_addr().unwrap(), answer: Arc::default(), link: Arc::default(), lured: Arc::default() };
        let (addr, answer, link, lured) = (hostile.addr, hostile.answer.clone(), hostile.link.clone(), hostile.lured.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, link, lured) = (answer.clone(), link.clone(), lured.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, addr, &answer, &link, &lured).await;
                });
            }
        });
        hostile
    }
}

async fn serve(
    mut stream: TcpStream,
    addr: SocketAddr,
    answer: &Mutex<(Vec<u8>, Duration)>,
    link: &Mutex<Option<String>>,
    lured: &AtomicBool,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    if path == "/bytes" {
        let (bytes, hold) = answer.lock().unwrap().clone();
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        tokio::time::sleep(hold).await;
    } else if path.starts_with("/v23.0/") {
        let url = link.lock().unwrap().clone().unwrap_or_else(|| format!("http://{addr}/bytes"));
        let body = json!({"url": url}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await?;
    } else {
        lured.store(true, Ordering::SeqCst);
    }
    Ok(())
}

fn ok_with(length: usize, bytes: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), bytes].concat()
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    [head.as_bytes(), format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat()
}

/// The rule, the address that the platform names, what stands there, how long the connection is then held, and what the message said.
type Case = (&'static str, Option<String>, Vec<u8>, Duration, Said);

/// What the message says of its picture.
struct Said {
    mime_type: &'static str,
    sha256: Option<&'static str>,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_platform_answers_is_a_named_rule_and_nothing_is_kept() {
    let config = "[media]\nmax = \"256KiB\"\ntimeout = \"1500ms\"\n".to_owned();
    let mut system = System::with(Setup { config, ..Setup::default() }).await;
    let hostile = Hostile::start().await;
    let elsewhere = Hostile::start().await;
    let account = json!({"channel": "whatsapp", "name": "hostile", "api_base": format!("http://{}", hostile.addr),
        "phone_number_id": "106540352242923", "access_token": "t", "app_secret": "sim-secret", "verify_token": "verify-me"});
    let account = system.ok("POST", "/v1/accounts", &account).await["id"].as_str().unwrap().to_owned();
    let lure = format!("http://{}/lure", elsewhere.addr);
    let zip_end = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".as_slice();
    let picture = picture(100);
    let big = [PNG, &vec![7; 300_000]].concat();
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {lure}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes();
    let (now, long) = (Duration::ZERO, Duration::from_secs(5));
    let png = || Said { mime_type: "image/png", sha256: None };
    let good = ok_with(picture.len(), &picture);
    let table: Vec<Case> = vec![
        ("host_not_allowed", Some("https://evil.example/a.png".into()), Vec::new(), now, png()),
        ("host_not_allowed", Some("https://fbsbx.com.evil.example/a".into()), Vec::new(), now, png()),
        ("host_not_allowed", Some("https://evilfbsbx.com/a".into()), Vec::new(), now, png()),
        ("host_not_allowed", Some("https://169.254.169.254/latest".into()), Vec::new(), now, png()),
        ("host_not_allowed", Some("https://lookaside.fbsbx.com:8443/a".into()), Vec::new(), now, png()),
        ("bad_address", Some(lure.clone()), Vec::new(), now, png()),
        ("bad_address", Some("http://lookaside.fbsbx.com/a".into()), Vec::new(), now, png()),
        ("bad_address", Some("https://lookaside.fbsbx.com@evil.example/a".into()), Vec::new(), now, png()),
        ("bad_address", Some("file:///etc/passwd".into()), Vec::new(), now, png()),
        ("redirected", None, redirect, now, png()),
        ("too_large", None, ok_with(big.len(), &big), now, png()),
        ("too_large", None, chunked(&big), now, png()),
        ("cut_short", None, ok_with(picture.len() + 50, &picture), now, png()),
        ("digest_mismatch", None, good.clone(), now, Said { sha256: Some("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), ..png() }),
        ("empty", None, ok_with(0, b""), now, png()),
        ("type_mismatch", None, ok_with(13, b"<html></html>"), now, png()),
        ("type_mismatch", None, ok_with(14, b"<svg/onload=x>"), now, png()),
        ("polyglot", None, chunked(&[PNG, b"<script>alert(1)</script>"].concat()), now, png()),
        ("polyglot", None, chunked(&[PNG, zip_end].concat()), now, png()),
        ("polyglot", None, chunked(&[b"GIF89a".as_slice(), b"<?php system('x');"].concat()), now, png()),
        ("timeout", None, good[..good.len() - 20].to_vec(), long, png()),
        ("gone", None, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(), now, png()),
        ("credential_refused", None, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(), now, png()),
        ("bad_answer", None, b"HTTP/1.1 206 Partial\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(), now, png()),
        ("cut_short", None, b"not http at all\r\n\r\n".to_vec(), now, png()),
    ];
    for (case, (reason, link, answer, hold, said)) in table.into_iter().enumerate() {
        *hostile.link.lock().unwrap() = link;
        *hostile.answer.lock().unwrap() = (answer, hold);
        let wamid = format!("wamid.case{case}");
        post_picture(&system, &account, &wamid, case, &said).await;
        let message = system.event("message.received", |event| event["data"]["message"]["platform_id"] == wamid.as_str()).await;
        let medium = body(&message)["data"]["message"]["image"].clone();
        // What may pass is tried again first.
        let mut failed = Value::Null;
        for _ in 0..40 {
            let wait = Duration::from_millis(500);
            let found = system.inbox.wait_for(wait, |received| {
                let event = body(received);
                event["type"] == "media.failed" && event["data"]["media"]["id"] == medium["media"]
            });
            if let Some(found) = found.await {
                failed = body(&found)["data"]["media"].clone();
                break;
            }
            system.advance(Duration::from_secs(6)).await;
        }
        assert_eq!(failed["reason"], reason, "case {case}: {failed}");
        let passing = ["timeout", "cut_short", "credential_refused"].contains(&reason);
        assert_eq!(failed["may_pass"], passing, "case {case}");
        assert_eq!(kept(&system), 0, "case {case}: {reason}");
    }
    assert!(!hostile.lured.load(Ordering::SeqCst) && !elsewhere.lured.load(Ordering::SeqCst), "nobody was led away");
    assert_eq!(system.admin("/livez").await.status, 200, "the process lives");

    // What was not had may be had later, by whoever asks.
    *hostile.link.lock().unwrap() = None;
    *hostile.answer.lock().unwrap() = (b"HTTP/1.1 503 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(), now);
    post_picture(&system, &account, "wamid.later", 99, &png()).await;
    let message = system.event("message.received", |event| event["data"]["message"]["platform_id"] == "wamid.later").await;
    let medium = body(&message)["data"]["message"]["image"].clone();
    let url = medium["url"].as_str().unwrap();
    let refused = get(url, &[]).await;
    let problem: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, &problem["reason"]), (503, &json!("unavailable")));
    *hostile.answer.lock().unwrap() = (good, now);
    let served = get(url, &[]).await;
    assert_eq!((served.status, &served.body), (200, &picture));
    told(&system, "media.ready", &medium["media"]).await;
    assert_eq!(system.process.terminate().await, Some(0));
}

/// A picture comes in on the hostile account.
async fn post_picture(system: &System, account: &str, wamid: &str, case: usize, said: &Said) {
    let mut part = json!({"id": format!("{}", 5_000_000 + case), "mime_type": said.mime_type});
    if let Some(sha256) = said.sha256 {
        part["sha256"] = json!(sha256);
    }
    let event = json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp", "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242923"},
        "contacts": [{"profile": {"name": "Ada"}, "wa_id": PHONE}],
        "messages": [{"from": PHONE, "id": wamid, "timestamp": system.whatsapp.now().as_secs().to_string(), "type": "image", "image": part}],
    }}]}]});
    let bytes = event.to_string();
    let (name, signature) = system.whatsapp.signature(bytes.as_bytes());
    let client = Client::new(PATIENCE);
    let headers = [(name, signature.as_str()), ("content-type", "application/json")];
    let answer = client.post(&system.hook("whatsapp", account), &headers, bytes).await.expect("the gateway answers");
    assert_eq!(answer.status, 200);
}
