//! Messenger and Instagram through the router: watermarks, tags, unsends before their message, private replies.

mod rig;

use std::time::Duration;

use messaging::channels::ChannelKind;
use messaging::clock::Clock;
use messaging::content::{Content, Handle, Text};
use messaging::ids::MessageId;
use messaging::outcome::Status;
use rig::{ACCOUNT_ID, Rig};
use serde_json::{Value, json};

const PERSON: &str = "42";
const HOUR: Duration = Duration::from_secs(3600);

fn text(body: &str) -> Content {
    Content::Text(Text { body: body.into(), preview_url: None })
}

/// An event of the person, now.
async fn tell(rig: &Rig, event: Value) {
    let mut event = event;
    let now = rig.clock.now().as_micros() / 1_000;
    event["sender"] = json!({"id": PERSON});
    event["recipient"] = json!({"id": ACCOUNT_ID});
    event["timestamp"] = json!(now);
    let object = if rig.kind == ChannelKind::Messenger { "page" } else { "instagram" };
    rig.webhook(json!({"object": object, "entry": [{"id": ACCOUNT_ID, "time": now, "messaging": [event]}]}).to_string()).await;
}

async fn writes(rig: &Rig, mid: &str) {
    tell(rig, json!({"message": {"mid": mid, "text": mid}})).await;
}

async fn sent(rig: &Rig, count: usize, body: &str) -> MessageId {
    let message = rig.send(PERSON, text(body)).await;
    rig.inbox.wait_for_kind("message.sent", count).await;
    rig.clock.advance(Duration::from_secs(2));
    message
}

/// A watermark moves what was sent before it, and nothing that was sent after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_moves_everything_before_it() {
    let rig = Rig::start_on(ChannelKind::Messenger).await;
    writes(&rig, "m_in").await;
    rig.inbox.wait_for(2).await;
    let (first, second) = (sent(&rig, 1, "one").await, sent(&rig, 2, "two").await);
    let mark = rig.clock.now().as_micros() / 1_000;
    rig.clock.advance(Duration::from_secs(2));
    let third = sent(&rig, 3, "three").await;
    tell(&rig, json!({"delivery": {"watermark": mark}})).await;
    rig.inbox.wait_for_kind("message.delivered", 2).await;
    tell(&rig, json!({"read": {"watermark": mark}})).await;
    rig.inbox.wait_for_kind("message.read", 2).await;
    // Once more, and once lower: no news.
    tell(&rig, json!({"read": {"watermark": mark - 1}})).await;
    tell(&rig, json!({"delivery": {"watermark": mark}})).await;
    rig.quiet().await;
    let counts = ["message.delivered", "message.read"].map(|kind| rig.inbox.of_kind(kind).len());
    assert_eq!(counts, [2, 2]);
    let statuses = [rig.status_of(first).await, rig.status_of(second).await, rig.status_of(third).await];
    assert_eq!(statuses, [Status::Read, Status::Read, Status::Sent]);
    rig.stop().await;
}

/// Instagram names the message that was seen: it and what was sent before it are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seen_message_is_a_watermark_too() {
    let rig = Rig::start_on(ChannelKind::Instagram).await;
    writes(&rig, "m_in").await;
    rig.inbox.wait_for(2).await;
    let (first, second, third) = (sent(&rig, 1, "one").await, sent(&rig, 2, "two").await, sent(&rig, 3, "three").await);
    let told = rig.inbox.of_kind("message.sent");
    let of_second = told.iter().find(|event| event.body["data"]["message"]["id"] == second.to_string()).unwrap();
    let platform_id = of_second.body["data"]["message"]["platform_id"].clone();
    tell(&rig, json!({"read": {"mid": platform_id}})).await;
    rig.inbox.wait_for_kind("message.read", 2).await;
    rig.quiet().await;
    let statuses = [rig.status_of(first).await, rig.status_of(second).await, rig.status_of(third).await];
    assert_eq!(statuses, [Status::Read, Status::Read, Status::Sent]);
    rig.stop().await;
}

/// After a day free text is refused; a person of the business may answer for seven, with the tag, and the tag is on no send
/// that does not need it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_human_agent_tag_lasts_seven_days() {
    let rig = Rig::start_on(ChannelKind::Messenger).await;
    writes(&rig, "m_in").await;
    rig.inbox.wait_for(2).await;
    let tagged = |send: &mut messaging::record::SendCommand| send.tag = Some("human_agent".into());
    rig.send_with(PERSON, text("inside"), tagged).await;
    rig.inbox.wait_for_kind("message.sent", 1).await;
    rig.clock.advance(HOUR * 25);
    let untagged = rig.send(PERSON, text("too late")).await;
    rig.inbox.wait_for_kind("message.failed", 1).await;
    assert_eq!(rig.status_of(untagged).await, Status::Failed);
    rig.send_with(PERSON, text("by a person"), tagged).await;
    rig.inbox.wait_for_kind("message.sent", 2).await;
    rig.clock.advance(HOUR * 24 * 6);
    let week = rig.send_with(PERSON, text("a week later"), tagged).await;
    rig.inbox.wait_for_kind("message.failed", 2).await;
    assert_eq!(rig.status_of(week).await, Status::Failed);
    let bodies: Vec<Value> = rig.platform.bodies().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    let tags: Vec<(&str, Option<&str>)> =
        bodies.iter().map(|body| (body["messaging_type"].as_str().unwrap(), body["tag"].as_str())).collect();
    assert_eq!(tags, [("RESPONSE", None), ("MESSAGE_TAG", Some("HUMAN_AGENT"))]);
    rig.stop().await;
}

/// A message that was withdrawn before it came is forgotten when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsend_may_come_before_its_message() {
    let rig = Rig::start_on(ChannelKind::Instagram).await;
    let now = rig.clock.now().as_micros() / 1_000;
    let event = |message: Value| {
        let event = json!({"sender": {"id": PERSON}, "recipient": {"id": ACCOUNT_ID}, "timestamp": now, "message": message});
        json!({"object": "instagram", "entry": [{"id": ACCOUNT_ID, "time": now, "messaging": [event]}]}).to_string()
    };
    rig.webhook(event(json!({"mid": "m_gone", "is_deleted": true}))).await;
    rig.inbox.wait_for_kind("message.deleted", 1).await;
    rig.webhook(event(json!({"mid": "m_gone", "text": "what I should not have said"}))).await;
    writes(&rig, "m_next").await;
    rig.inbox.wait_for_kind("message.received", 1).await;
    rig.quiet().await;
    let all = rig.inbox.all();
    assert!(all.iter().all(|delivery| !delivery.raw.contains("should not have said")), "it was told all the same");
    assert_eq!(rig.inbox.of_kind("message.received").len(), 1);
    rig.stop().await;
}

/// A comment may be answered once in private, and the answer is no leave to write to the person.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_private_reply_a_comment() {
    let rig = Rig::start_on(ChannelKind::Messenger).await;
    let value = json!({"item": "comment", "verb": "add", "comment_id": "1_2", "from": {"id": "7", "name": "Ada"}, "message": "How much?"});
    let now = rig.clock.now().as_secs();
    rig.webhook(
        json!({"object": "page", "entry": [{"id": ACCOUNT_ID, "time": now, "changes": [{"field": "feed", "value": value}]}]}).to_string(),
    )
    .await;
    let told = rig.inbox.wait_for_kind("platform.event", 1).await;
    assert_eq!(told[0].body["data"]["kind"], "feed.comment");
    let to_comment = |send: &mut messaging::record::SendCommand| send.to = Handle::new("comment", "1_2");
    rig.send_with("0", text("20 euros"), to_comment).await;
    rig.inbox.wait_for_kind("message.sent", 1).await;
    rig.send_with("0", text("and shipping"), to_comment).await;
    let failed = rig.inbox.wait_for_kind("message.failed", 1).await;
    assert_eq!(failed[0].body["data"]["message"]["reason"], "quota_exceeded");
    rig.send("7", text("a word to you")).await;
    let failed = rig.inbox.wait_for_kind("message.failed", 2).await;
    assert_eq!(failed[1].body["data"]["message"]["reason"], "window_closed");
    assert_eq!(rig.platform.calls(), 1);
    rig.stop().await;
}
