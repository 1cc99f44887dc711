//! Discord's connector against its simulator, over the node's own door: what people write comes to the log, whatever happens to the
//! connection, to the log, or to the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::chance::Chance;
use bench::platform::discord::DiscordSim;
use bench::platform::{SimOptions, StatusDelays};
use gateway::connectors::discord::{Dial, Ended, Sink, Ways, run};
use messaging::BoxFuture;
use messaging::channels::{ChannelKind, ChannelSettings, InboundBody, Piece, channel};
use messaging::clock::{SystemClock, Timestamp};
use messaging::directory::{Account, AccountRow, AccountState, Directory, DirectoryRow, SecretPair, TenantRow, account_aad, tenant_aad};
use messaging::exchange::{ByteStream, HttpRequest, HttpResponse};
use messaging::ids::{AccountId, TenantId};
use messaging::log::AppendError;
use messaging::seal::{DataKey, Keyring, Sealed, Secret};
use router::egress::{AllowedNetwork, Door, Policy, Settings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const KIND: ChannelKind = ChannelKind::Discord;
const ADA: &str = "1200000000000000030";
const PATIENCE: Duration = Duration::from_secs(30);

/// The door, as the node gives it to its gateway.
struct Caller(Door);

impl gateway::OutboundCall for Caller {
    fn call_up_to(&self, request: HttpRequest, timeout: Duration, body_bytes_max: usize) -> BoxFuture<'_, Result<HttpResponse, String>> {
        Box::pin(async move {
            let client = self.0.client(&request.url).map_err(|error| error.to_string())?;
            client.send(request, timeout, body_bytes_max).await.map(|sent| sent.response).map_err(|error| error.to_string())
        })
    }
}

impl Dial for Caller {
    fn dial<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Box<dyn ByteStream>, String>> {
        Box::pin(async move { self.0.dial(url).await.map_err(|error| error.to_string()) })
    }
}

/// A log in memory that may be away.
#[derive(Default)]
struct Kept {
    pieces: Mutex<Vec<Piece>>,
    state: Mutex<Option<Vec<u8>>>,
    away: AtomicBool,
    closed: AtomicBool,
}

impl Sink for Kept {
    fn append<'a>(&'a self, pieces: &'a [Piece]) -> BoxFuture<'a, Result<(), AppendError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if self.closed.load(Ordering::SeqCst) {
                return Err(AppendError::Closed);
            }
            if self.away.load(Ordering::SeqCst) {
                return Err(AppendError::Away);
            }
            self.pieces.lock().unwrap().extend_from_slice(pieces);
            Ok(())
        })
    }
    fn keep(&self, state: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(async move { *self.state.lock().unwrap() = Some(state) })
    }
    fn recall(&self) -> BoxFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move { self.state.lock().unwrap().clone() })
    }
}

impl Kept {
    /// What came, in order, each once: kind and text.
    fn told(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut told = Vec::new();
        for piece in self.pieces.lock().unwrap().iter() {
            let inbound = channel(KIND).parse(piece.body()).unwrap();
            let id = if inbound.platform_id.is_empty() { format!("{:?}", piece.body()) } else { inbound.platform_id.clone() };
            let line = match &inbound.body {
                InboundBody::Message { content, .. } => text(&content.members()),
                InboundBody::Status(update) => format!("status {}", update.status.name()),
                InboundBody::Edit { content, .. } => format!("edit {}", text(&content.members())),
                InboundBody::Delete { .. } => "delete".to_owned(),
                InboundBody::Reaction { .. } => "reaction".to_owned(),
                other => format!("{other:?}"),
            };
            if seen.insert((id, inbound.qualifier.clone(), line.clone())) {
                told.push(line);
            }
        }
        told
    }
}

/// The body of a text.
fn text(members: &str) -> String {
    members.split("\"body\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or(members).to_owned()
}

struct Rig {
    sim: DiscordSim,
    kept: Arc<Kept>,
    clock: Arc<SystemClock>,
}

/// A connector that runs.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Ended>,
}

impl Running {
    async fn stop(self) -> Ended {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }

    /// As `kill -9` does.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Its own end.
    async fn ended(self) -> Ended {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        drop(self.stop);
        ended.expect("it ends by itself").unwrap()
    }
}

impl Rig {
    async fn new() -> Self {
        let clock = Arc::new(SystemClock::default());
        let options = SimOptions { statuses: StatusDelays::NONE, clock: clock.clone(), ..SimOptions::default() };
        let sim = DiscordSim::start(options).await.unwrap();
        Self { sim, kept: Arc::default(), clock }
    }

    fn account(&self, token: &str, intents: &str) -> Arc<Account> {
        let public = [("application_id", "106540352242922"), ("public_key", self.sim.public_key()), ("intents", intents)];
        let public: BTreeMap<String, String> = public.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let secrets: BTreeMap<String, SecretPair> = [("bot_token".to_owned(), SecretPair::new(Secret::new(token), Timestamp::ZERO))].into();
        let (tenant, id) = (TenantId([1; 16]), AccountId([2; 16]));
        let (keyring, key) = (Keyring::from_root(&[7; 32]), DataKey::generate());
        let own_key = keyring.kek().seal_value(&tenant_aad(tenant), key.expose());
        let rows = vec![
            DirectoryRow::Tenant(TenantRow { id: tenant, name: "test".into(), key: own_key, created_at: Timestamp::ZERO }),
            DirectoryRow::Account(AccountRow {
                id,
                tenant,
                channel: KIND,
                name: "test".into(),
                api_base: Some(self.sim.url()),
                public,
                secrets: Sealed::from_stored(key.seal_value(&account_aad(tenant, id), &secrets).into_bytes()),
                state: AccountState::Active,
                state_reason: None,
                created_at: Timestamp::ZERO,
                revision: 1,
            }),
        ];
        Directory::build(1, rows, &keyring).0.account(id).unwrap().clone()
    }

    fn start_as(&self, token: &str, intents: &str) -> Running {
        let policy = Policy { allow: AllowedNetwork::LOOPBACK.to_vec(), ..Policy::default() };
        let door = Door::new(Settings { policy, ..Settings::default() }, self.clock.clone()).unwrap();
        let caller = Arc::new(Caller(door));
        let settings = ChannelSettings { api_version: "v10".to_owned(), ..ChannelSettings::default() };
        let ways = Ways { caller: caller.clone(), dial: caller, settings };
        let (account, sink, clock) = (self.account(token, intents), self.kept.clone(), self.clock.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            run(&ways, account, sink, clock, stopped).await
        });
        Running { stop, task }
    }

    fn start(&self) -> Running {
        self.start_as("sim-token", "12288")
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let ends = tokio::time::Instant::now() + PATIENCE;
        while !is_so(self) {
            let told = self.kept.told();
            let last = &told[told.len().saturating_sub(30)..];
            assert!(tokio::time::Instant::now() < ends, "{what}: {} {last:?} {:?}", told.len(), self.sim.sessions().now());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn is_connected(&self) -> bool {
        self.sim.sessions().now().iter().any(|session| session.is_connected)
    }

    async fn until_connected(&self) {
        self.until("connected", Self::is_connected).await;
    }

    async fn until_told(&self, lines: &[&str]) {
        self.until(&format!("{lines:?}"), |rig| rig.kept.told() == lines).await;
    }

    async fn write(&self, text: &str) {
        assert!(self.sim.customer_writes(ADA, text).await.accepted, "{text}");
    }
}

#[tokio::test]
async fn what_people_do_comes_to_the_log() {
    let rig = Rig::new().await;
    let connector = rig.start();
    rig.until_connected().await;
    rig.write("hello").await;
    rig.sim.customer_reacts(ADA, "5", "🔥").await;
    rig.sim.customer_edits(ADA, "6", "hello!").await;
    rig.sim.customer_deletes(ADA, "6").await;
    rig.until_told(&["hello", "reaction", "edit hello!", "delete"]).await;
    let session = rig.sim.sessions().now().remove(0);
    assert_eq!((session.intents, session.shard), (12_288, (0, 1)));
    assert_eq!(connector.stop().await, Ended::Stopped);
    rig.sim.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_by_what_the_gateway_does() {
    let rig = Rig::new().await;
    rig.sim.sessions().set_heartbeat(Duration::from_millis(200));
    let connector = rig.start();
    rig.until_connected().await;
    type Mishap = fn(&DiscordSim);
    let mishaps: [(&str, Mishap); 8] = [
        ("cut", |sim| sim.sessions().cut()),
        ("reconnect", |sim| sim.sessions().ask_to_reconnect()),
        ("invalid, to be resumed", |sim| sim.sessions().invalidate(true)),
        ("closed", |sim| sim.sessions().close(4000)),
        ("rate", |sim| sim.sessions().close(4008)),
        ("restarted", |sim| sim.sessions().close(1012)),
        ("garbage", |sim| sim.sessions().send_garbage()),
        ("a heartbeat, please", |sim| sim.sessions().ask_for_heartbeat()),
    ];
    let mut lines: Vec<String> = Vec::new();
    for (name, mishap) in mishaps {
        rig.until_connected().await;
        for place in ["before", "during", "after"] {
            let line = format!("{name} {place}");
            rig.write(&line).await;
            lines.push(line);
            if place == "before" {
                mishap(&rig.sim);
            }
        }
        let wanted: Vec<&str> = lines.iter().map(String::as_str).collect();
        rig.until(name, |rig| {
            // Waits between tries may pass faster.
            rig.clock.advance(Duration::from_millis(50));
            rig.kept.told() == wanted
        })
        .await;
    }
    let (identified, resumed, _) = rig.sim.sessions().counts();
    assert!(identified == 1 && resumed >= 7, "{identified} {resumed}");
    connector.stop().await;
    rig.sim.stop().await;
}

#[tokio::test]
async fn a_connection_without_answers_is_left_for_another() {
    let rig = Rig::new().await;
    rig.sim.sessions().set_heartbeat(Duration::from_millis(100));
    let connector = rig.start();
    rig.until_connected().await;
    rig.sim.sessions().set_mute(true);
    rig.until("resumed", |rig| rig.sim.sessions().counts().1 >= 1).await;
    rig.sim.sessions().set_mute(false);
    rig.write("still here").await;
    rig.until_told(&["still here"]).await;
    connector.stop().await;
    rig.sim.stop().await;
}

#[tokio::test]
async fn a_session_that_is_over_is_begun_anew() {
    let rig = Rig::new().await;
    let connector = rig.start();
    rig.until_connected().await;
    rig.write("one").await;
    rig.until_told(&["one"]).await;
    rig.sim.sessions().invalidate(false);
    rig.until("identified", |rig| {
        rig.clock.advance(Duration::from_millis(100));
        rig.sim.sessions().counts().0 == 2
    })
    .await;
    rig.until_connected().await;
    rig.write("two").await;
    rig.until_told(&["one", "two"]).await;
    connector.stop().await;
    rig.sim.stop().await;
}

#[tokio::test]
async fn while_the_log_is_away_everything_waits_and_then_comes_in_order() {
    let rig = Rig::new().await;
    let connector = rig.start();
    rig.until_connected().await;
    rig.write("safe").await;
    rig.until_told(&["safe"]).await;
    rig.kept.away.store(true, Ordering::SeqCst);
    for number in 0..20 {
        rig.write(&format!("m{number}")).await;
    }
    rig.sim.sessions().cut();
    rig.until("resumed", |rig| rig.sim.sessions().counts().1 == 1).await;
    assert_eq!(rig.sim.sessions().now()[0].seen, 2, "only READY and the first message are on the log");
    rig.kept.away.store(false, Ordering::SeqCst);
    let lines: Vec<String> = std::iter::once("safe".to_owned()).chain((0..20).map(|number| format!("m{number}"))).collect();
    rig.until_told(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    connector.stop().await;
    rig.sim.stop().await;
}

#[tokio::test]
async fn more_than_can_wait_is_left_with_discord_and_comes_later() {
    const MESSAGES: usize = 6_000;
    let rig = Rig::new().await;
    let connector = rig.start();
    rig.until_connected().await;
    rig.kept.away.store(true, Ordering::SeqCst);
    for number in 0..MESSAGES {
        rig.write(&format!("m{number}")).await;
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    rig.until("left", |rig| !rig.is_connected()).await;
    rig.kept.away.store(false, Ordering::SeqCst);
    rig.until("all", |rig| rig.kept.told().len() == MESSAGES).await;
    let lines: Vec<String> = (0..MESSAGES).map(|number| format!("m{number}")).collect();
    assert_eq!(rig.kept.told(), lines);
    connector.stop().await;
    rig.sim.stop().await;
}

#[tokio::test]
async fn another_process_goes_on_where_the_first_ended() {
    let rig = Rig::new().await;
    let first = rig.start();
    rig.until_connected().await;
    rig.write("to the first").await;
    rig.until_told(&["to the first"]).await;
    assert_eq!(first.stop().await, Ended::Stopped);
    rig.write("to nobody").await;
    let second = rig.start();
    rig.until_told(&["to the first", "to nobody"]).await;
    assert_eq!(rig.sim.sessions().counts(), (1, 1, 2), "the session was resumed");
    second.kill().await;
    rig.write("to nobody again").await;
    let third = rig.start();
    rig.until_told(&["to the first", "to nobody", "to nobody again"]).await;
    assert_eq!(rig.sim.sessions().counts().0, 1, "still the same session");
    third.stop().await;
    rig.sim.stop().await;
}

#[tokio::test]
async fn what_nobody_but_a_person_can_mend() {
    let rig = Rig::new().await;
    assert_eq!(rig.start_as("another", "12288").ended().await, Ended::Credential, "by the API");
    assert_eq!(rig.start_as("sim-token", "0").ended().await, Ended::NotWanted);
    rig.sim.sessions().refuse_intents(1 << 15);
    assert_eq!(rig.start_as("sim-token", "46592").ended().await, Ended::Forbidden(4014));
    let connector = rig.start();
    rig.until_connected().await;
    rig.sim.sessions().close(4004);
    assert_eq!(connector.ended().await, Ended::Credential, "by the gateway");
    rig.sim.sessions().forget();
    let connector = rig.start();
    rig.until_connected().await;
    rig.kept.closed.store(true, Ordering::SeqCst);
    rig.write("too late").await;
    assert_eq!(connector.ended().await, Ended::LogClosed);
    rig.sim.stop().await;
}

#[tokio::test]
async fn an_interaction_by_the_gateway_is_answered_when_it_is_safe() {
    let rig = Rig::new().await;
    let connector = rig.start();
    rig.until_connected().await;
    rig.kept.away.store(true, Ordering::SeqCst);
    let command = rig.sim.customer_commands_by_gateway(ADA, "order");
    assert!(command.posted.accepted);
    rig.write("behind it").await;
    let session = |rig: &Rig| rig.sim.sessions().now()[0].last;
    rig.until("sent", |rig| session(rig) == 3).await;
    rig.sim.sessions().ask_for_heartbeat();
    rig.until("a heartbeat behind both", |rig| rig.sim.sessions().heartbeats() >= 1).await;
    let callbacks = |rig: &Rig| rig.sim.calls().iter().filter(|call| call.kind == "callback").count();
    assert_eq!(callbacks(&rig), 0, "not before it is on the log");
    rig.kept.away.store(false, Ordering::SeqCst);
    rig.until("called back", |rig| callbacks(rig) == 1).await;
    rig.until_told(&["/order", "behind it"]).await;
    let call = rig.sim.calls().into_iter().find(|call| call.kind == "callback").unwrap();
    assert_eq!(call.body, r#"{"type":5}"#);
    connector.stop().await;
    rig.sim.stop().await;
}

#[tokio::test]
async fn whatever_happens_everything_comes_once_and_in_order() {
    const MESSAGES: usize = 1_500;
    let rig = Rig::new().await;
    rig.sim.sessions().set_heartbeat(Duration::from_millis(500));
    let mut connector = rig.start();
    rig.until_connected().await;
    let mut chance = Chance::new(11);
    for number in 0..MESSAGES {
        rig.write(&format!("m{number}")).await;
        match chance.below(60) {
            0 => rig.sim.sessions().cut(),
            1 => rig.sim.sessions().ask_to_reconnect(),
            2 => rig.sim.sessions().close(4000),
            3 => rig.sim.sessions().send_garbage(),
            4 => rig.sim.sessions().invalidate(true),
            5 | 6 => rig.kept.away.store(true, Ordering::SeqCst),
            7..=12 => rig.kept.away.store(false, Ordering::SeqCst),
            13 => {
                connector.kill().await;
                connector = rig.start();
            }
            14..=30 => tokio::time::sleep(Duration::from_millis(2)).await,
            31..=34 => rig.clock.advance(Duration::from_millis(50)),
            _ => {}
        }
    }
    rig.kept.away.store(false, Ordering::SeqCst);
    rig.until("all", |rig| {
        rig.clock.advance(Duration::from_millis(50));
        rig.kept.told().len() >= MESSAGES
    })
    .await;
    let lines: Vec<String> = (0..MESSAGES).map(|number| format!("m{number}")).collect();
    assert_eq!(rig.kept.told(), lines);
    assert_eq!(rig.sim.sessions().counts().0, 1, "one session all along");
    connector.stop().await;
    rig.sim.stop().await;
}
