use messaging::channels::{ChannelKind, ChannelSettings, InboundBody, Outgoing, Refresh, channel};
use messaging::content::{Content, Handle};
use messaging::directory::Account;
use messaging::outcome::{Reason, Throttled, Verdict};

use super::*;
use crate::http::Client;
use crate::platform::connected::{self, call, hook, wait_for};
use crate::platform::{Fate, Redelivery, StatusDelays};

const PERSON: &str = "u5Jh+/EXAMPLE==";
const KIND: ChannelKind = ChannelKind::Tiktok;

async fn start(statuses: StatusDelays) -> TiktokSim {
    TiktokSim::start(SimOptions { statuses, ..SimOptions::default() }).await.unwrap()
}

/// The account as the gateway holds it, with these tokens.
fn account(sim: &TiktokSim, access: &str, refresh: &str) -> Arc<Account> {
    let options = &sim.sim.options;
    let members = [
        ("business_id", options.account.as_str()),
        ("client_key", CLIENT_KEY),
        ("access_token", access),
        ("refresh_token", refresh),
        ("client_secret", &options.secret),
    ];
    connected::account(KIND, &sim.url(), &members)
}

/// Sends by the channel itself, and says what the channel makes of the answer.
async fn send_as(sim: &TiktokSim, account: &Account, content: Value) -> Verdict {
    let (to, content): (Handle, Content) = (Handle::new("conversation", PERSON), serde_json::from_value(content).unwrap());
    let send = Outgoing { message: "msg_1", to: &to, content: &content, reply_to: None, via: None, tag: None, now: sim.now() };
    assert_eq!(channel(KIND).check(&content, &to), [], "the gateway would not refuse it");
    let request = channel(KIND).request(&send, account, &ChannelSettings::default()).unwrap();
    channel(KIND).outcome(&send, &call(request).await)
}

async fn send(sim: &TiktokSim, content: Value) -> Verdict {
    send_as(sim, &account(sim, "sim-token", REFRESH_TOKEN), content).await
}

fn text(text: &str) -> Value {
    json!({"text": {"body": text}})
}

#[tokio::test]
async fn the_window_and_its_cap_are_kept() {
    let sim = start(StatusDelays::NONE).await;
    let closed = |verdict: Verdict| matches!(verdict, Verdict::Refused { reason: Reason::WindowClosed, .. });
    assert!(closed(send(&sim, text("never wrote")).await));
    sim.open_window(PERSON, sim.now());
    for number in 0..CAP {
        assert!(matches!(send(&sim, text("in time")).await, Verdict::Sent { .. }), "{number}");
    }
    assert!(closed(send(&sim, text("the eleventh")).await));
    sim.open_window(PERSON, sim.now());
    assert!(matches!(send(&sim, text("they wrote again")).await, Verdict::Sent { .. }));
    sim.set_clock_offset_ms(48 * 3_600_000 - 60_000);
    assert!(matches!(send(&sim, text("just in time")).await, Verdict::Sent { .. }));
    sim.set_clock_offset_ms(48 * 3_600_000 + 60_000);
    assert!(closed(send(&sim, text("too late")).await));
    assert_eq!(sim.accepted().len(), 12);
    sim.stop().await;
}

#[tokio::test]
async fn everything_that_the_channel_sends_is_taken() {
    let sim = start(StatusDelays::NONE).await;
    sim.open_window(PERSON, sim.now());
    let card = |label: &str| json!({"interactive": {"body": "How can we help?", "buttons": [{"id": "a", "title": label}]}});
    let contents =
        [text("x"), json!({"image": {"id": "v1"}}), json!({"video": {"id": "7"}}), card("Track"), card("A label of more than twenty")];
    for content in contents {
        assert!(matches!(send(&sim, content.clone()).await, Verdict::Sent { platform_id: Some(_), .. }), "{content}");
    }
    for action in [json!({"typing": {}}), json!({"read": {}})] {
        assert_eq!(send(&sim, action).await, Verdict::Sent { platform_id: None, handles: Vec::new() });
    }
    assert_eq!((sim.accepted().len(), sim.calls().len()), (5, 7));
    sim.stop().await;
}

#[tokio::test]
async fn errors_have_http_200() {
    let sim = start(StatusDelays::NONE).await;
    sim.open_window(PERSON, sim.now());
    sim.script([Answer::RateLimited { after: Duration::from_secs(1) }, Answer::Error { code: 51_065, http: 500 }, Answer::Status(502)]);
    let limited = send(&sim, text("a")).await;
    assert!(matches!(limited, Verdict::RetryLater { reason: Reason::RateLimited, hold: Throttled::App, .. }), "{limited:?}");
    let system = send(&sim, text("b")).await;
    assert!(matches!(system, Verdict::RetryLater { reason: Reason::ServerError, .. }), "{system:?}");
    assert!(matches!(send(&sim, text("c")).await, Verdict::Unknown { .. }));
    let wrong = send_as(&sim, &account(&sim, "another", REFRESH_TOKEN), text("d")).await;
    assert!(matches!(wrong, Verdict::Refused { reason: Reason::Auth, .. }), "{wrong:?}");
    let url = format!("{}/open_api/v1.3/business/message/send", sim.url());
    let without_slash = Client::new(Duration::from_secs(5)).post(&url, &[("access-token", "sim-token")], "{}").await.unwrap();
    assert_eq!(without_slash.status, 404, "the slash is part of the address");
    sim.stop().await;
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let sim = start(StatusDelays::NONE).await;
    sim.open_window(PERSON, sim.now());
    let old = account(&sim, "sim-token", REFRESH_TOKEN);
    sim.expire_token();
    assert!(matches!(send_as(&sim, &old, text("a")).await, Verdict::Refused { reason: Reason::Auth, .. }));
    assert!(!channel(KIND).probed(&call(channel(KIND).probe(&old, &ChannelSettings::default())).await));
    let refresh = async |account: &Account| {
        let answer = call(channel(KIND).refresh_request(account, &ChannelSettings::default()).unwrap()).await;
        channel(KIND).refreshed(account, &answer, sim.now())
    };
    let Refresh::Done(tokens) = refresh(&old).await else { panic!() };
    let new = account(&sim, tokens.access.expose(), tokens.refresh.as_ref().unwrap().expose());
    assert!(matches!(send_as(&sim, &new, text("b")).await, Verdict::Sent { .. }));
    assert!(channel(KIND).probed(&call(channel(KIND).probe(&new, &ChannelSettings::default())).await));
    assert!(matches!(refresh(&old).await, Refresh::Broken { .. }), "the old one is used up");
    assert!(matches!(refresh(&new).await, Refresh::Done(_)));
    assert_eq!(sim.refreshes(), 2);
    sim.revoke();
    assert!(matches!(refresh(&new).await, Refresh::Broken { .. }));
    sim.give_tokens("sim-token", REFRESH_TOKEN);
    sim.tokens_end_after(WINDOW / 2);
    assert!(matches!(send_as(&sim, &old, text("c")).await, Verdict::Sent { .. }));
    sim.set_clock_offset_ms(24 * 3_600_000);
    assert!(matches!(send_as(&sim, &old, text("d")).await, Verdict::Refused { reason: Reason::Auth, .. }), "it ended");
    sim.stop().await;
}

/// What it posts is what the channel verifies and reads.
#[tokio::test]
async fn events_are_signed_and_understood() {
    let (server, kept) = hook(2).await;
    let redelivery = Redelivery { first: Duration::from_millis(1), max: Duration::from_millis(2), tries: 5 };
    let sim = TiktokSim::start(SimOptions { redelivery, ..SimOptions::default() }).await.unwrap();
    sim.set_hook(&server.url());
    let posted = sim.customer_writes(PERSON, "hi").await;
    assert_eq!((posted.accepted, posted.tries), (true, 3), "brought again until taken");
    assert!(sim.customer_presses(PERSON, "Track", "track").await.accepted);
    assert!(sim.customer_reacts(PERSON, "m1", "👍").await.accepted);
    assert!(sim.european_writes().await.accepted);
    assert!(matches!(send(&sim, text("hello")).await, Verdict::Sent { .. }));
    wait_for(&kept, 6).await;
    assert!(sim.remove_authorization().await.accepted);
    let account = account(&sim, "sim-token", REFRESH_TOKEN);
    let mut seen = Vec::new();
    for piece in connected::pieces(channel(KIND), &account, sim.now(), &kept) {
        assert_eq!(piece.account(), Some(sim.sim.options.account.as_str()));
        seen.push(match channel(KIND).parse(piece.body()).unwrap().body {
            InboundBody::Message { content, .. } => content.kind().to_owned(),
            InboundBody::Echo { .. } => "echo".to_owned(),
            InboundBody::Watermark { .. } => "read".to_owned(),
            InboundBody::Reaction { .. } => "reaction".to_owned(),
            InboundBody::Account { event, .. } => event.name().to_owned(),
            InboundBody::Platform { kind, .. } => kind,
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["text", "interactive_reply", "reaction", "im_receive_msg_eu", "echo", "read", "account.state_changed"]);
    assert_eq!(sim.dropped(), 0);
    sim.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn each_scripted_answer_leaves_its_truth_in_the_ledger() {
    let sim = start(StatusDelays::NONE).await;
    sim.open_window(PERSON, sim.now());
    let cases = [
        (Answer::Ok, Fate::Accepted),
        (Answer::ResetBeforeBody, Fate::Lost),
        (Answer::ResetAfterBody, Fate::AcceptedUnanswered),
        (Answer::LostAfterBody, Fate::Lost),
        (Answer::Garbage2xx, Fate::AcceptedUnanswered),
        (Answer::Error { code: 40_064, http: 400 }, Fate::Refused(40_064)),
    ];
    for (answer, fate) in cases {
        sim.script([answer.clone()]);
        let body = json!({"business_id": sim.sim.options.account, "recipient_type": "CONVERSATION", "recipient": PERSON, "message_type": "TEXT", "text": {"body": "x"}});
        let url = format!("{}/open_api/v1.3/business/message/send/", sim.url());
        let _ = Client::new(Duration::from_secs(2)).post(&url, &[("access-token", "sim-token")], body.to_string()).await;
        assert_eq!(sim.calls().pop().unwrap().fate, fate, "{answer:?}");
    }
    sim.stop().await;
}
