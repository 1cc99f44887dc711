//! What strangers and one large tenant hold open keeps nobody out, also where a process may have few files open.

use std::sync::Arc;
use std::time::Duration;

use bench::inbox::{Inbox, InboxOptions};
use bench::platform::SimOptions;
use bench::platform::whatsapp::WhatsappSim;
use serde_json::json;
use system_tests::load::{Load, Spread, judge, platforms};
use system_tests::world::World;
use system_tests::{Setup, System, quick};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// Connections of a stranger that say nothing.
const IDLE: usize = 1_100;
/// Requests of the same whose bodies do not come.
const UNFINISHED: usize = 450;
/// Files and connections that the process may have open.
const DESCRIPTORS: u32 = 1_024;

/// A connection from an address that nobody else here has.
async fn stranger(system: &System) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("all of 127/8 is loopback");
    tokio::time::timeout(Duration::from_secs(5), socket.connect(system.process.public)).await.ok()?.ok()
}

/// A customer of the large tenant.
const RICH_CUSTOMER: &str = "16505550199";

/// A tenant with many healthy endpoints.
struct Rich {
    platform: WhatsappSim,
    inbox: Inbox,
}

impl Rich {
    async fn start(system: &System, endpoints: usize) -> Self {
        let key = system.ok("POST", "/v1/tenants", &json!({"name": "rich"})).await["key"].as_str().expect("a key").to_owned();
        let options =
            SimOptions { credential: "token-of-rich".into(), secret: "secret-of-rich".into(), account: "777000777".into(), ..platforms() };
        let inbox = Inbox::start(InboxOptions::default()).await.expect("an inbox starts");
        let account = json!({"channel": "whatsapp", "name": "rich", "phone_number_id": options.account, "access_token": options.credential,
            "app_secret": options.secret, "verify_token": "verify-me"});
        let platform = WhatsappSim::start(options).await.expect("a simulator starts");
        let made = system.ok_as(&key, "POST", "/v1/accounts", &account).await;
        platform.set_hook(&system.hook("whatsapp", made["id"].as_str().expect("an id")));
        for number in 0..endpoints {
            let url = format!("{}/{number}", inbox.url());
            let endpoint = json!({"name": format!("e{number}"), "url": url, "events": ["message.received"]});
            system.ok_as(&key, "POST", "/v1/endpoints", &endpoint).await;
        }
        Self { platform, inbox }
    }
}

/// D7, D17, D57: with 1,024 descriptors, a stranger holds more connections open than there are, and begins requests of which next to nothing comes;
/// one tenant has more healthy endpoints than there is room for connections out (256). The others are served on, and everything after it
/// as before.
#[tokio::test(flavor = "multi_thread")]
async fn with_few_descriptors_strangers_and_many_endpoints_keep_nobody_out() {
    let config = "[channels.whatsapp]\nper_pair = \"1000/s\"\nper_number = \"1000/s\"\n".to_owned();
    let setup = Setup { platforms: platforms(), config, world: World::crowded(), descriptors: Some(DESCRIPTORS), ..Setup::default() };
    let system = System::with(setup).await;
    let endpoints = if quick() { 300 } else { 1_000 };
    let rich = Rich::start(&system, endpoints).await;
    let system = Arc::new(tokio::sync::RwLock::new(system));
    let load = Load::start(&system, 1, Spread::EachCall).await;
    let mut strangers = Vec::new();
    {
        let system = system.read().await;
        for number in 0..IDLE + UNFINISHED {
            let Some(mut stream) = stranger(&system).await else { continue };
            if number >= IDLE {
                let half = format!("POST /hooks/whatsapp/{} HTTP/1.1\r\nhost: x\r\ncontent-length: 3500000\r\n\r\nx", system.wa_account);
                let _ = stream.write_all(half.as_bytes()).await;
            }
            strangers.push(stream);
        }
    }
    for sequence in 1..=3 {
        rich.platform.customer_writes(RICH_CUSTOMER, &format!("to all, {sequence}")).await;
        assert!(rich.inbox.wait_count(sequence * endpoints as u64, Duration::from_secs(60)).await, "{} came", rich.inbox.count());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sends = load.finish().await;
    drop(strangers);
    let system = Arc::into_inner(system).expect("the load is over").into_inner();
    system.advance(Duration::from_secs(10)).await;
    judge(&system, sends).await;
}
