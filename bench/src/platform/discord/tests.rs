use futures_util::{SinkExt, StreamExt};
use messaging::channels::discord::socket::{self, Event};
use messaging::channels::{ChannelKind, ChannelSettings, Outgoing, channel};
use messaging::content::{Content, Handle};
use messaging::directory::Account;
use messaging::ids::MessageId;
use messaging::outcome::{Reason, Throttled, Verdict};
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::http::Client;
use crate::locked;
use crate::platform::connected::{self, call, hook, wait_for};
use crate::platform::{Fate, StatusDelays};

const KIND: ChannelKind = ChannelKind::Discord;
const ADA: &str = "1200000000000000030";

async fn start(statuses: StatusDelays) -> DiscordSim {
    let sim = DiscordSim::start(SimOptions { statuses, ..SimOptions::default() }).await.unwrap();
    sim.set_bucket(u32::MAX, Duration::from_secs(1));
    sim
}

/// The account as the gateway holds it.
fn account(sim: &DiscordSim, token: &str) -> Arc<Account> {
    let application = sim.sim.options.account.as_str();
    connected::account(KIND, &sim.url(), &[("application_id", application), ("public_key", sim.public_key()), ("bot_token", token)])
}

fn settings() -> ChannelSettings {
    ChannelSettings { api_version: "v10".to_owned(), ..ChannelSettings::default() }
}

/// One send.
struct Send<'a> {
    number: u8,
    to: Handle,
    content: Value,
    via: Option<&'a str>,
}

/// Sends by the channel itself, and says what the channel makes of the answer.
async fn send(sim: &DiscordSim, send: Send<'_>) -> Verdict {
    let content: Content = serde_json::from_value(send.content).unwrap();
    let message = MessageId([send.number; 16]).to_string();
    let outgoing =
        Outgoing { message: &message, to: &send.to, content: &content, reply_to: None, via: send.via, tag: None, now: sim.now() };
    assert_eq!(channel(KIND).check(&content, &send.to), [], "the gateway would not refuse it");
    let request = channel(KIND).request(&outgoing, &account(sim, "sim-token"), &settings()).unwrap();
    channel(KIND).outcome(&outgoing, &call(request).await)
}

fn text(text: &str) -> Value {
    json!({"text": {"body": text}})
}

fn room(sim: &DiscordSim) -> Handle {
    Handle::new("channel", &sim.direct_channel(ADA))
}

async fn write(sim: &DiscordSim, number: u8, content: Value) -> Verdict {
    send(sim, Send { number, to: room(sim), content, via: None }).await
}

#[tokio::test]
async fn everything_that_the_channel_sends_is_taken() {
    let sim = start(StatusDelays::NONE).await;
    let buttons = json!({"interactive": {"body": "Pick", "buttons": [{"id": "a", "title": "A"}]}});
    let contents = [text("x"), json!({"image": {"link": "https://a.example/1.jpg"}}), json!({"sticker": {"id": "7"}}), buttons];
    for (number, content) in contents.into_iter().enumerate() {
        assert!(matches!(write(&sim, number as u8, content.clone()).await, Verdict::Sent { platform_id: Some(_), .. }), "{content}");
    }
    for action in [json!({"typing": {}}), json!({"reaction": {"platform_id": "5", "emoji": "🔥"}})] {
        assert_eq!(write(&sim, 9, action).await, Verdict::Sent { platform_id: None, handles: Vec::new() });
    }
    let accepted = sim.accepted();
    assert_eq!((accepted.len(), sim.calls().len()), (4, 6));
    assert_eq!(accepted[0].callback, Some(MessageId([0; 16]).to_string()), "the nonce leads back");
    assert!(channel(KIND).probed(&call(channel(KIND).probe(&account(&sim, "sim-token"), &settings())).await));
    assert!(!channel(KIND).probed(&call(channel(KIND).probe(&account(&sim, "another"), &settings())).await));
    sim.stop().await;
}

#[tokio::test]
async fn a_send_that_is_made_again_is_one_message() {
    let sim = start(StatusDelays::NONE).await;
    sim.script([Answer::ResetAfterBody]);
    let body = json!({"content": "x", "nonce": "n", "enforce_nonce": true}).to_string();
    let url = format!("{}/v10/channels/{}/messages", sim.url(), sim.direct_channel(ADA));
    let headers = [("authorization", "Bot sim-token"), ("user-agent", "DiscordBot (x, 1)")];
    assert!(Client::new(Duration::from_secs(2)).post(&url, &headers, body.clone()).await.is_err());
    let again = Client::new(Duration::from_secs(2)).post(&url, &headers, body).await.unwrap();
    let first = sim.accepted()[0].platform_id.clone().unwrap();
    assert_eq!((again.status, serde_json::from_slice::<Value>(&again.body).unwrap()["id"].as_str()), (200, Some(first.as_str())));
    assert_eq!(sim.accepted().len(), 1);
    sim.stop().await;
}

#[tokio::test]
async fn refusals_are_the_platforms() {
    let sim = start(StatusDelays::NONE).await;
    let refused = |verdict: &Verdict, wanted: Reason| matches!(verdict, Verdict::Refused { reason, .. } if *reason == wanted);
    let stranger = send(&sim, Send { number: 1, to: Handle::new("user", "77"), content: text("x"), via: None }).await;
    assert!(refused(&stranger, Reason::RecipientInvalid), "no guild in common: {stranger:?}");
    let (known, channel_id) = (Handle::new("user", ADA), sim.direct_channel(ADA));
    let opened = send(&sim, Send { number: 1, to: known, content: text("x"), via: None }).await;
    assert_eq!(opened, Verdict::Moved { to: Handle::new("channel", &channel_id) });
    sim.set_closed(ADA, true);
    assert!(refused(&write(&sim, 2, text("x")).await, Reason::RecipientInvalid));
    sim.set_closed(ADA, false);
    sim.script([
        Answer::RateLimited { after: Duration::from_millis(1_500) },
        Answer::Error { code: 130_000, http: 503 },
        Answer::Status(502),
    ]);
    let limited = write(&sim, 3, text("a")).await;
    let Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::Conversation, after, .. } = limited else {
        panic!("{limited:?}")
    };
    assert_eq!(after, Some(Duration::from_millis(1_500)));
    assert!(matches!(write(&sim, 4, text("b")).await, Verdict::RetryLater { reason: Reason::ServerError, .. }));
    assert!(matches!(write(&sim, 5, text("c")).await, Verdict::Unknown { .. }));
    sim.stop().await;
}

#[tokio::test]
async fn buckets_tell_what_is_left() {
    let sim = start(StatusDelays::NONE).await;
    sim.set_bucket(2, Duration::from_secs(5));
    let to = room(&sim);
    let content: Content = serde_json::from_value(text("x")).unwrap();
    let mut held = Vec::new();
    for number in 0..3u8 {
        let message = MessageId([number; 16]).to_string();
        let outgoing = Outgoing { message: &message, to: &to, content: &content, reply_to: None, via: None, tag: None, now: sim.now() };
        let answer = call(channel(KIND).request(&outgoing, &account(&sim, "sim-token"), &settings()).unwrap()).await;
        let wait = channel(KIND).holds(&outgoing, &answer).first().map(|hold| hold.wait);
        held.push((answer.status, wait.is_some_and(|wait| wait > Duration::from_secs(3) && wait <= Duration::from_secs(5))));
    }
    assert_eq!(held, [(200, false), (200, true), (429, true)]);
    sim.stop().await;
}

#[tokio::test]
async fn interactions_are_posted_once_and_answered_through_their_token() {
    let sim = start(StatusDelays::NONE).await;
    let (server, kept) = hook(1).await;
    sim.set_hook(&server.url());
    let refused = sim.customer_commands(ADA, "order", json!([])).await;
    assert!(!refused.posted.accepted && refused.posted.tries == 1 && refused.kind.is_none());
    let dead = send(&sim, Send { number: 1, to: room(&sim), content: text("x"), via: Some(&refused.token) }).await;
    assert!(matches!(dead, Verdict::Refused { reason: Reason::Rejected, .. }), "the token died: {dead:?}");
    sim.customer_presses(ADA, "5", "confirm", "Confirm").await;
    assert!(sim.webhook_event("APPLICATION_AUTHORIZED", &json!({})).await.accepted);
    assert!(sim.customer_deauthorizes(ADA).await.accepted);
    wait_for(&kept, 3).await;
    let account = account(&sim, "sim-token");
    let mut kinds = Vec::new();
    for (headers, body) in locked(&kept).iter() {
        let request = messaging::exchange::WebhookRequest { is_post: true, query: "", headers, body, now: sim.now(), fetched: None };
        let Ok(messaging::channels::Received::Answered { pieces, answer }) = channel(KIND).receive(&request, &account.verifier) else {
            panic!()
        };
        kinds.push((answer.status, channel(KIND).parse(pieces[0].body()).is_ok()));
    }
    assert_eq!(kinds, [(200, true), (204, true), (204, true)]);
    sim.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_token_ends_after_a_quarter_of_an_hour() {
    let sim = start(StatusDelays::NONE).await;
    let by_gateway = sim.customer_commands_by_gateway(ADA, "order");
    let answer = |number| send(&sim, Send { number, to: room(&sim), content: text("x"), via: Some(&by_gateway.token) });
    sim.set_clock_offset_ms(14 * 60_000);
    assert!(matches!(answer(1).await, Verdict::Sent { platform_id: Some(_), .. }));
    sim.set_clock_offset_ms(15 * 60_000 + 1_000);
    assert!(matches!(answer(2).await, Verdict::Refused { reason: Reason::Rejected, .. }));
    sim.stop().await;
}

#[tokio::test]
async fn each_scripted_answer_leaves_its_truth_in_the_ledger() {
    let sim = start(StatusDelays::NONE).await;
    let cases = [
        (Answer::Ok, Fate::Accepted),
        (Answer::ResetBeforeBody, Fate::Lost),
        (Answer::ResetAfterBody, Fate::AcceptedUnanswered),
        (Answer::LostAfterBody, Fate::Lost),
        (Answer::Garbage2xx, Fate::AcceptedUnanswered),
        (Answer::Error { code: 50_007, http: 403 }, Fate::Refused(50_007)),
    ];
    let url = format!("{}/v10/channels/{}/messages", sim.url(), sim.direct_channel(ADA));
    for (answer, fate) in cases {
        sim.script([answer.clone()]);
        let headers = [("authorization", "Bot sim-token"), ("user-agent", "DiscordBot (x, 1)")];
        let _ = Client::new(Duration::from_secs(2)).post(&url, &headers, r#"{"content":"x"}"#).await;
        assert_eq!(sim.calls().pop().unwrap().fate, fate, "{answer:?}");
    }
    let nameless = Client::new(Duration::from_secs(2)).post(&url, &[("authorization", "Bot sim-token")], "{}").await.unwrap();
    assert_eq!(nameless.status, 403, "without its name a caller is shut out");
    sim.stop().await;
}

/// A client of the Gateway that does what the test says.
struct Listener(WebSocketStream<TcpStream>);

impl Listener {
    async fn connect(sim: &DiscordSim) -> (Self, Value) {
        let addr = sim.gateway_url().trim_start_matches("ws://").to_owned();
        let stream = TcpStream::connect(&addr).await.unwrap();
        let (wire, _) = tokio_tungstenite::client_async(format!("ws://{addr}/?v=10&encoding=json"), stream).await.unwrap();
        let mut client = Self(wire);
        let hello = client.read().await.unwrap();
        assert_eq!(hello["op"], 10);
        (client, hello)
    }

    async fn say(&mut self, op: u64, about: Value) {
        self.0.send(Message::text(json!({"op": op, "d": about}).to_string())).await.unwrap();
    }

    /// The next frame, or the code that the connection was closed with; 0: cut.
    async fn read(&mut self) -> Result<Value, u16> {
        loop {
            match tokio::time::timeout(Duration::from_secs(5), self.0.next()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => return Err(close.map_or(0, |close| close.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(0),
            }
        }
    }

    async fn identify(&mut self, intents: u64) -> Result<Value, u16> {
        self.say(2, json!({"token": "sim-token", "intents": intents, "properties": {"os": "linux"}})).await;
        self.read().await
    }
}

const DIRECT: u64 = 12_288;

#[tokio::test]
async fn a_session_is_told_what_it_wants_and_resumes_where_it_was() {
    let sim = start(StatusDelays::NONE).await;
    assert!(!sim.customer_writes(ADA, "nobody listens").await.accepted);
    let (mut client, hello) = Listener::connect(&sim).await;
    assert_eq!(hello["d"]["heartbeat_interval"], 41_250);
    let ready = client.identify(DIRECT).await.unwrap();
    assert_eq!(
        (ready["t"].as_str(), ready["s"].as_u64(), &ready["d"]["user"]["id"]),
        (Some("READY"), Some(1), &json!(sim.sim.options.account))
    );
    assert!(sim.customer_writes(ADA, "one").await.accepted);
    assert!(!sim.member_writes("1", "2", ADA, "in a guild").await.accepted, "not asked for");
    let one = client.read().await.unwrap();
    assert_eq!((one["s"].as_u64(), one["d"]["content"].as_str()), (Some(2), Some("one")));
    client.say(1, json!(2)).await;
    assert_eq!(client.read().await.unwrap()["op"], 11);
    sim.sessions().cut();
    assert_eq!(client.read().await, Err(0));
    assert!(sim.customer_writes(ADA, "two").await.accepted, "kept for whoever resumes");
    let (mut client, _) = Listener::connect(&sim).await;
    client.say(6, json!({"token": "sim-token", "session_id": ready["d"]["session_id"], "seq": 1})).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let frame = client.read().await.unwrap();
        told.push((frame["t"].as_str().unwrap().to_owned(), frame["s"].as_u64().unwrap()));
    }
    let wanted = [("MESSAGE_CREATE", 2), ("MESSAGE_CREATE", 3), ("RESUMED", 4)].map(|(name, number)| (name.to_owned(), number));
    assert_eq!(told, wanted);
    assert_eq!(sim.sessions().counts(), (1, 1, 2));
    sim.stop().await;
}

#[tokio::test]
async fn what_the_gateway_does_not_bear() {
    let sim = start(StatusDelays::NONE).await;
    sim.sessions().refuse_intents(1 << 15);
    let cases: Vec<(Value, u16)> = vec![
        (json!({"op": 2, "d": {"token": "another", "intents": 1, "properties": {}}}), 4004),
        (json!({"op": 2, "d": {"token": "sim-token", "intents": 1 << 15, "properties": {}}}), 4014),
        (json!({"op": 2, "d": {"token": "sim-token", "intents": "x", "properties": {}}}), 4013),
        (json!({"op": 2, "d": {"token": "sim-token", "intents": 1, "properties": {}, "shard": [1, 1]}}), 4010),
        (json!({"op": 2, "d": {"token": "sim-token", "intents": 1, "properties": {}, "x": "y".repeat(5_000)}}), 4002),
        (json!({"op": 3, "d": {}}), 4003),
        (json!({"op": 77}), 4001),
        (json!("text"), 4002),
    ];
    for (frame, code) in cases {
        let (mut client, _) = Listener::connect(&sim).await;
        client.0.send(Message::text(frame.to_string())).await.unwrap();
        assert_eq!(client.read().await, Err(code), "{frame}");
    }
    let (mut client, _) = Listener::connect(&sim).await;
    client.say(6, json!({"token": "sim-token", "session_id": "unknown", "seq": 1})).await;
    assert_eq!(client.read().await.unwrap(), json!({"op": 9, "d": false, "s": null, "t": null}));
    client.identify(DIRECT).await.unwrap();
    client.say(2, json!({"token": "sim-token", "intents": 1, "properties": {}})).await;
    assert_eq!(client.read().await, Err(4005));
    sim.sessions().set_heartbeat(Duration::from_millis(30));
    let (mut silent, _) = Listener::connect(&sim).await;
    assert_eq!(silent.read().await, Err(4009), "no heartbeat");
    sim.stop().await;
}

#[tokio::test]
async fn our_messages_come_back_and_the_channel_knows_them() {
    let sim = start(StatusDelays { sent: Some(Duration::ZERO), ..StatusDelays::NONE }).await;
    let (mut client, _) = Listener::connect(&sim).await;
    let ready = client.identify(DIRECT).await.unwrap();
    assert!(matches!(write(&sim, 4, text("hello")).await, Verdict::Sent { .. }));
    sim.customer_writes(ADA, "hi").await;
    sim.customer_reacts(ADA, "5", "🔥").await;
    sim.customer_edits(ADA, "6", "hi!").await;
    sim.customer_deletes(ADA, "6").await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let frame = client.read().await.unwrap();
        let said = RawValue::from_string(frame["d"].to_string()).unwrap();
        let (session, bot) = (ready["d"]["session_id"].as_str().unwrap(), ready["d"]["user"]["id"].as_str().unwrap());
        let event = Event { name: frame["t"].as_str().unwrap(), number: frame["s"].as_u64().unwrap(), session, bot, said: &said };
        let piece = socket::piece(&event).unwrap();
        assert_eq!(piece.handle(), &room(&sim));
        let parsed = format!("{:?}", channel(KIND).parse(piece.body()).unwrap().body);
        seen.push(parsed.split(['(', ' ']).next().unwrap().to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["Delete", "Edit", "Message", "Reaction", "Status"]);
    assert_eq!(sim.dropped(), 0);
    sim.stop().await;
}

#[tokio::test]
async fn an_address_is_checked_as_the_platform_checks_it() {
    let sim = start(StatusDelays::NONE).await;
    let account = account(&sim, "sim-token");
    let server = Server::start("127.0.0.1:0".parse().unwrap(), move |mut request: Request| {
        let account = account.clone();
        async move {
            let body = request.body().await.unwrap();
            let now = messaging::clock::Clock::now(&messaging::clock::SystemClock::default());
            let webhook = messaging::exchange::WebhookRequest {
                is_post: true,
                query: "",
                headers: &request.headers,
                body: &body,
                now,
                fetched: None,
            };
            match channel(KIND).receive(&webhook, &account.verifier) {
                Ok(messaging::channels::Received::Answered { answer, .. }) => {
                    crate::http::reply(answer.status, "application/json", answer.body)
                }
                _ => crate::http::reply(channel(KIND).unauthentic_status(), "text/plain", ""),
            }
        }
    });
    let server = server.await.unwrap();
    sim.set_hook(&server.url());
    assert_eq!(sim.check_address().await, None);
    let command = sim.customer_commands(ADA, "order", json!([{"type": 3, "name": "number", "value": "1001"}])).await;
    assert_eq!((command.kind, command.posted.accepted), (Some(5), true));
    let button = sim.customer_presses(ADA, "5", "confirm", "Confirm").await;
    assert_eq!(button.kind, Some(6));
    let answer = send(&sim, Send { number: 1, to: room(&sim), content: text("here it is"), via: Some(&command.token) }).await;
    assert!(matches!(answer, Verdict::Sent { platform_id: Some(_), .. }));
    sim.stop().await;
    server.stop().await;
}
