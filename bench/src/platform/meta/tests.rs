use messaging::channels::{ChannelKind, InboundBody, channel};
use messaging::outcome::Status;

use super::*;
use crate::http::{Client, Response, reply};
use crate::platform::{Fate, StatusDelays};

const PERSON: &str = "5678901234567890";

/// A hook that keeps bodies with their signatures.
async fn hook() -> (Server, Arc<Mutex<Vec<(String, Bytes)>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let server = {
        let kept = kept.clone();
        Server::start("127.0.0.1:0".parse().unwrap(), move |mut request: Request| {
            let kept = kept.clone();
            async move {
                let body = request.body().await.unwrap();
                locked(&kept).push((request.header("x-hub-signature-256").unwrap_or_default().to_owned(), body));
                reply(200, "text/plain", "")
            }
        })
    };
    (server.await.unwrap(), kept)
}

async fn start(product: MetaProduct, statuses: StatusDelays) -> MetaSim {
    MetaSim::start(product, SimOptions { statuses, ..SimOptions::default() }).await.unwrap()
}

async fn send(sim: &MetaSim, body: Value) -> Response {
    let url = format!("{}/v26.0/106540352242922/messages", sim.url());
    Client::new(Duration::from_secs(5)).post(&url, &[("authorization", "Bearer sim-token")], body.to_string()).await.unwrap()
}

fn text(text: &str) -> Value {
    json!({"recipient": {"id": PERSON}, "messaging_type": "RESPONSE", "message": {"text": text, "metadata": "msg_1"}})
}

fn codes(response: &Response) -> (u64, u64) {
    let value: Value = serde_json::from_slice(&response.body).unwrap();
    (value["error"]["code"].as_u64().unwrap_or(0), value["error"]["error_subcode"].as_u64().unwrap_or(0))
}

#[tokio::test]
async fn the_window_and_its_tag_are_kept() {
    for (product, subcode) in [(MetaProduct::Messenger, 2_018_278), (MetaProduct::Instagram, 2_534_022)] {
        let sim = start(product, StatusDelays::NONE).await;
        assert_eq!(codes(&send(&sim, text("never wrote")).await), (10, subcode));
        sim.open_window(PERSON, sim.now().minus(WINDOW * 2));
        assert_eq!(codes(&send(&sim, text("too late")).await), (10, subcode));
        let mut tagged = text("by a person");
        tagged["messaging_type"] = json!("MESSAGE_TAG");
        tagged["tag"] = json!("HUMAN_AGENT");
        assert_eq!(send(&sim, tagged.clone()).await.status, 200);
        tagged["tag"] = json!("ACCOUNT_UPDATE");
        assert_eq!(codes(&send(&sim, tagged).await).0, 100, "removed in April 2026");
        sim.open_window(PERSON, sim.now());
        assert_eq!(send(&sim, text("in time")).await.status, 200);
        let fates: Vec<Fate> = sim.calls().iter().map(|call| call.fate).collect();
        assert_eq!(fates, [Fate::Refused(10), Fate::Refused(10), Fate::Accepted, Fate::Refused(100), Fate::Accepted]);
        sim.stop().await;
    }
}

#[tokio::test]
async fn it_is_strict_where_the_platform_is() {
    let sim = start(MetaProduct::Messenger, StatusDelays::NONE).await;
    sim.open_window(PERSON, sim.now());
    let mut without_type = text("x");
    without_type.as_object_mut().unwrap().remove("messaging_type");
    let both =
        json!({"recipient": {"id": PERSON}, "messaging_type": "RESPONSE", "message": {"text": "a", "attachment": {"type": "image"}}});
    let cases = [without_type, text(&"a".repeat(2_001)), text(""), both, json!({"message": {"text": "a"}})];
    for body in cases {
        assert_eq!(codes(&send(&sim, body.clone()).await).0, 100, "{body}");
    }
    let typing = json!({"recipient": {"id": PERSON}, "sender_action": "typing_on"});
    assert_eq!(send(&sim, typing).await.status, 200);
    sim.stop().await;
}

/// What it posts is what the channel reads.
#[tokio::test]
async fn events_are_signed_and_understood() {
    let (server, kept) = hook().await;
    let sim = start(MetaProduct::Messenger, StatusDelays::default()).await;
    sim.set_hook(&server.url());
    assert!(sim.customer_writes(PERSON, "hi").await.accepted);
    assert!(sim.customer_presses(PERSON, "Track", "TRACK_1").await.accepted);
    assert_eq!(send(&sim, text("hello")).await.status, 200);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while locked(&kept).len() < 5 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut seen = Vec::new();
    for (signature, body) in locked(&kept).iter() {
        assert_eq!(*signature, sim.signature(body).1);
        let inbound = channel(ChannelKind::Messenger).parse(body).unwrap();
        seen.push(match inbound.body {
            InboundBody::Message { content, .. } => content.kind().to_owned(),
            InboundBody::Echo { .. } => "echo".to_owned(),
            InboundBody::Watermark { status: Status::Delivered, .. } => "delivered".to_owned(),
            InboundBody::Watermark { status: Status::Read, .. } => "read".to_owned(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["text", "interactive_reply", "echo", "delivered", "read"]);
    sim.stop().await;
    server.stop().await;
}

/// The account as the gateway holds it, with this token.
fn account(sim: &MetaSim, kind: ChannelKind, token: &str) -> Arc<messaging::directory::Account> {
    let identity = if kind == ChannelKind::Messenger { "page_id" } else { "instagram_id" };
    let mut members = vec![(identity, sim.sim.options.account.as_str()), ("access_token", token), ("app_secret", &sim.sim.options.secret)];
    if kind == ChannelKind::Messenger {
        members.push(("app_id", APP_ID));
    }
    crate::platform::connected::account(kind, &sim.url(), &members)
}

#[tokio::test]
async fn a_token_is_exchanged_while_it_is_good() {
    use messaging::channels::{ChannelSettings, Refresh};
    for (product, kind) in [(MetaProduct::Messenger, ChannelKind::Messenger), (MetaProduct::Instagram, ChannelKind::Instagram)] {
        let sim = start(product, StatusDelays::NONE).await;
        let settings = ChannelSettings { api_version: "v26.0".into(), ..ChannelSettings::default() };
        let refresh = async |token: &str| {
            let account = account(&sim, kind, token);
            let answer = crate::platform::connected::call(channel(kind).refresh_request(&account, &settings).unwrap()).await;
            channel(kind).refreshed(&account, &answer, sim.now())
        };
        let probed = async |token: &str| {
            let account = account(&sim, kind, token);
            let answer = crate::platform::connected::call(channel(kind).probe(&account, &settings)).await;
            (channel(kind).probed(&answer), channel(kind).refuses_credential(&answer))
        };
        if product == MetaProduct::Instagram {
            assert!(matches!(refresh("sim-token").await, Refresh::Unable { .. }), "younger than a day");
            sim.set_clock_offset_ms(25 * 3_600_000);
        }
        let Refresh::Done(tokens) = refresh("sim-token").await else { panic!("{product:?}") };
        assert_eq!((tokens.refresh, tokens.access_until.map(|end| end.since(sim.now()) > LIFE / 2)), (None, Some(true)));
        let new = tokens.access.expose().to_owned();
        assert_eq!((probed(&new).await, probed("sim-token").await), ((true, false), (true, false)), "the old one stays good");
        assert!(matches!(refresh("never given").await, Refresh::Broken { .. }));
        sim.set_clock_offset_ms(86 * 24 * 3_600_000);
        assert_eq!(probed(&new).await, (false, true), "sixty days are over");
        assert!(matches!(refresh(&new).await, Refresh::Broken { .. }));
        sim.give_token("another");
        assert_eq!(probed("another").await, (true, false));
        sim.revoke_tokens();
        assert_eq!(probed("another").await, (false, true));
        assert_eq!(sim.exchanges(), 1);
        sim.stop().await;
    }
}
