use std::collections::BTreeSet;

use messaging::channels::woocommerce::pull::{Pull, read, request};
use messaging::channels::{ChannelKind, ChannelSettings, Inbound, InboundBody, Outgoing, Piece, channel};
use messaging::content::{Content, Handle, Text};
use messaging::directory::Account;
use messaging::outcome::{Reason, Verdict};

use super::*;
use crate::platform::Fate;
use crate::platform::connected::{self, call, hook, pieces};

const KIND: ChannelKind = ChannelKind::Woocommerce;

async fn start() -> WoocommerceSim {
    WoocommerceSim::start(SimOptions::default()).await.unwrap()
}

fn account(sim: &WoocommerceSim, key: &str) -> Arc<Account> {
    let options = &sim.sim.options;
    let members = [("source", SOURCE), ("webhook_secret", &options.secret), ("consumer_key", key), ("consumer_secret", CONSUMER_SECRET)];
    connected::account(KIND, &sim.url(), &members)
}

fn inbound(piece: &Piece) -> Inbound {
    channel(KIND).parse(piece.body()).unwrap()
}

/// What pieces say, with what tells repeats apart.
fn events(pieces: &[Piece]) -> Vec<String> {
    let line = |piece: &Piece| match inbound(piece).body {
        InboundBody::Resource { event, data, .. } => format!("{} {}", event.name(), data["id"]),
        InboundBody::Account { event, .. } => event.name().to_owned(),
        other => format!("{other:?}"),
    };
    pieces.iter().map(line).collect()
}

fn keys(pieces: &[Piece]) -> BTreeSet<(String, String)> {
    pieces.iter().map(inbound).map(|inbound| (inbound.platform_id, inbound.qualifier)).collect()
}

/// Asks until there is no more, as a worker does.
async fn pull(sim: &WoocommerceSim, since: Timestamp) -> Vec<Piece> {
    let account = account(sim, "sim-token");
    let (mut found, mut next) = (Vec::new(), Some(Pull::since(since)));
    while let Some(pull) = next {
        let answer = call(request(&account, &pull).unwrap()).await;
        let mut pulled = read(&account, &pull, &answer).unwrap();
        found.append(&mut pulled.pieces);
        next = pulled.next;
    }
    found
}

async fn send(sim: &WoocommerceSim, key: &str, order: u64, text: &str) -> Verdict {
    let (to, content) = (Handle::new("order", &order.to_string()), Content::Text(Text { body: text.into(), preview_url: None }));
    let send = Outgoing { message: "msg_1", to: &to, content: &content, reply_to: None, via: None, tag: None, now: sim.now() };
    let request = channel(KIND).request(&send, &account(sim, key), &ChannelSettings::default()).unwrap();
    channel(KIND).outcome(&send, &call(request).await)
}

#[tokio::test]
async fn webhooks_are_signed_and_understood() {
    let (server, kept) = hook(0).await;
    let sim = start().await;
    sim.set_hook(&server.url());
    assert_eq!(sim.ping(&server.url()).await, Some(200));
    locked(&kept).clear();
    let (id, posted) = sim.customer_orders("ring twice").await;
    assert!(posted.accepted);
    sim.set_clock_offset_ms(60_000);
    sim.change_order(id, "completed").await;
    sim.bin_order(id).await;
    sim.restore_order(id).await;
    sim.post_topic("action.woocommerce_low_stock", &json!({"action": "woocommerce_low_stock", "arg": 93})).await;
    sim.set_rights_lost(true);
    sim.change_order(id, "refunded").await;
    let told = pieces(channel(KIND), &account(&sim, "sim-token"), sim.now(), &kept);
    let seen = events(&told);
    assert_eq!(seen[..4], ["order.created 727", "order.updated 727", "order.deleted 727", "order.restored 727"]);
    assert!(seen[4].contains("action.woocommerce_low_stock") && seen[5] == "account.state_changed", "{seen:?}");
    sim.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn refusals_disable_the_webhook_and_a_pull_finds_what_was_missed() {
    let (server, kept) = hook(DISABLED_AFTER as usize).await;
    let sim = start().await;
    sim.set_hook(&server.url());
    let since = sim.now().minus(Duration::from_secs(3_600));
    let mut made = Vec::new();
    for number in 0..DISABLED_AFTER {
        assert!(sim.is_enabled(), "{number}");
        let (id, posted) = sim.customer_orders("x").await;
        assert_eq!((posted.accepted, posted.tries), (false, 1), "nothing is brought again");
        made.push(id);
    }
    assert!(!sim.is_enabled());
    let (untold, posted) = sim.customer_orders("nobody hears").await;
    assert_eq!((posted.tries, sim.untold()), (0, 1));
    made.push(untold);
    sim.enable();
    sim.set_clock_offset_ms(60_000);
    assert!(sim.customer_orders("heard again").await.1.accepted);
    assert!(sim.change_order(made[0], "completed").await.accepted);
    assert!(sim.bin_order(made[1]).await.accepted);
    let told = pieces(channel(KIND), &account(&sim, "sim-token"), sim.now(), &kept);
    let found = pull(&sim, since).await;
    let mut lines: Vec<String> = events(&found);
    lines.sort();
    let expected = [
        "order.created 727",
        "order.created 729",
        "order.created 730",
        "order.created 731",
        "order.created 732",
        "order.created 733",
        "order.deleted 728",
        "order.updated 727",
    ];
    assert_eq!(lines, expected);
    // What webhooks told is known; a deletion says too little for that.
    let known: Vec<_> = keys(&told).intersection(&keys(&found)).cloned().collect();
    assert_eq!(known.len(), 2, "{known:?}");
    assert_eq!(keys(&found), keys(&pull(&sim, since).await), "pulls may overlap");
    sim.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_pull_reads_every_page() {
    let sim = start().await;
    let since = sim.now().minus(Duration::from_secs(1));
    sim.state.webhook_off();
    for number in 0..230 {
        sim.set_clock_offset_ms(number / 40 * 1_000);
        sim.customer_orders("x").await;
    }
    assert_eq!(keys(&pull(&sim, since).await).len(), 230);
    sim.stop().await;
}

impl State {
    fn webhook_off(&self) {
        locked(&self.webhook).active = false;
    }
}

#[tokio::test]
async fn notes_reach_the_customer() {
    let sim = start().await;
    sim.state.webhook_off();
    let (id, _) = sim.customer_orders("x").await;
    assert_eq!(send(&sim, "sim-token", id, "on its way").await, Verdict::Sent { platform_id: Some("281".into()), handles: Vec::new() });
    assert!(matches!(send(&sim, "sim-token", 1, "whose?").await, Verdict::Refused { reason: Reason::RecipientInvalid, .. }));
    assert!(matches!(send(&sim, "wrong", id, "x").await, Verdict::Refused { reason: Reason::Auth, .. }));
    sim.script([Answer::RateLimited { after: Duration::from_secs(1) }, Answer::Status(502), Answer::Error { code: 1, http: 400 }]);
    assert!(matches!(send(&sim, "sim-token", id, "a").await, Verdict::RetryLater { reason: Reason::RateLimited, .. }));
    assert!(matches!(send(&sim, "sim-token", id, "b").await, Verdict::Unknown { .. }));
    assert!(matches!(send(&sim, "sim-token", id, "c").await, Verdict::Refused { reason: Reason::Rejected, .. }));
    let fates: Vec<Fate> = sim.calls().iter().map(|call| call.fate).collect();
    let expected = [Fate::Accepted, Fate::Refused(404), Fate::Refused(401), Fate::Refused(429), Fate::Lost, Fate::Refused(1)];
    assert_eq!(fates, expected);
    assert_eq!((sim.accepted()[0].kind.as_str(), sim.accepted()[0].text.as_deref()), ("customer_note", Some("on its way")));
    let settings = ChannelSettings::default();
    for (key, works) in [("sim-token", true), ("wrong", false)] {
        let probe = channel(KIND).probe(&account(&sim, key), &settings);
        assert_eq!(channel(KIND).probed(&call(probe).await), works, "{key}");
    }
    sim.stop().await;
}
