//! The router over a real store, a log in memory, and servers on loopback that play platform and subscriber.

mod rig;

use std::collections::HashMap;
use std::time::Duration;

use messaging::channels::ChannelKind;
use messaging::clock::Clock as _;
use messaging::content::{Content, Handle, Template, Text};
use messaging::directory::{AccountChange, AccountState, StateReason};
use messaging::ids::AccountId;
use messaging::log::AppendError;
use messaging::outcome::Status;
use rig::{Answer, Delivery, Rig};

fn text(body: &str) -> Content {
    Content::Text(Text { body: body.into(), preview_url: None })
}

/// A message comes in, is stored, and reaches the subscriber signed and in order; the window opens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_delivered() {
    let rig = Rig::start().await;
    for n in 0..5 {
        rig.customer_writes("16505551234", &format!("hello {n}"), n).await;
    }
    let deliveries = rig.inbox.wait_for(6).await;
    let kinds: Vec<_> = deliveries.iter().map(|d| d.kind.as_str()).collect();
    assert_eq!(kinds[0], "conversation.window.opened");
    assert!(kinds[1..].iter().all(|kind| *kind == "message.received"), "{kinds:?}");
    let sequences: Vec<_> = deliveries.iter().map(|d| d.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6], "numbered without a gap and in order");
    for delivery in &deliveries {
        rig.verify(delivery);
        assert_eq!(delivery.attempt, 1);
    }
    rig.stop().await;
}

/// The router looks at the directory every two seconds; what comes for an account that was made since is not parked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_made_elsewhere_is_known_with_its_first_record() {
    let mut rig = Rig::start().await;
    rig.change_elsewhere().await;
    rig.account = AccountId([9; 16]);
    let secrets = [("app_secret", rig::APP_SECRET), ("access_token", "token"), ("verify_token", "verify")];
    rig.add_account(rig.account, ChannelKind::Whatsapp, &[("phone_number_id", "106540352242923")], &secrets).await;
    rig.customer_writes("16505551234", "first", 1).await;
    rig.inbox.wait_for_kind("message.received", 1).await;
    assert_eq!(rig.parked().await, 0);
    rig.stop().await;
}

/// The same webhook three times is one row, one event, one delivery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_have_one_effect() {
    let rig = Rig::start().await;
    for _ in 0..3 {
        rig.customer_writes("16505551234", "once", 7).await;
    }
    rig.customer_writes("16505551234", "after", 8).await;
    let deliveries = rig.inbox.wait_for(3).await;
    rig.quiet().await;
    assert_eq!(rig.inbox.all().len(), 3, "opened, once, after: {:?}", deliveries.iter().map(|d| &d.kind).collect::<Vec<_>>());
    rig.stop().await;
}

/// A send inside the window reaches the platform once; its statuses come back and are joined; read does not fall back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_goes_out_and_its_statuses_come_back() {
    let rig = Rig::start().await;
    rig.customer_writes("16505551234", "hi", 1).await;
    rig.inbox.wait_for(2).await;
    let message = rig.send("16505551234", text("hello back")).await;
    let sent = rig.inbox.wait_for_kind("message.sent", 1).await;
    assert_eq!(sent[0].body["data"]["message"]["id"], message.to_string());
    let platform_id = sent[0].body["data"]["message"]["platform_id"].as_str().unwrap().to_owned();
    for status in ["read", "delivered", "sent"] {
        rig.status(&platform_id, "16505551234", status, None).await;
    }
    rig.inbox.wait_for_kind("message.read", 1).await;
    rig.quiet().await;
    assert_eq!(rig.inbox.of_kind("message.delivered").len(), 0, "a status below the one reached is no news");
    assert_eq!(rig.status_of(message).await, Status::Read);
    assert_eq!(rig.platform.calls(), 1);
    rig.stop().await;
}

/// Outside the window free text is refused before any call; a template, or a fallback, goes out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_is_kept() {
    let rig = Rig::start().await;
    let refused = rig.send("16505550000", text("too late")).await;
    rig.inbox.wait_for_kind("message.failed", 1).await;
    assert_eq!(rig.status_of(refused).await, Status::Failed);
    assert_eq!(rig.platform.calls(), 0);
    let template = Template { name: "hi".into(), language: "en".into(), params: vec![], components: None };
    let sent = rig.send("16505550000", Content::Template(template.clone())).await;
    let fallen_back = rig.send_with("16505550001", text("free"), |send| send.fallback = Some(template.clone())).await;
    rig.inbox.wait_for_kind("message.sent", 2).await;
    assert_eq!(rig.status_of(sent).await, Status::Sent);
    assert_eq!(rig.status_of(fallen_back).await, Status::Sent);
    let bodies = rig.platform.bodies();
    assert!(bodies.iter().all(|body| body.contains("\"template\"")), "{bodies:?}");
    rig.stop().await;
}

/// A time-out after the request may have been read is `unknown`, is not sent again, and the platform's status settles it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_send_is_settled_by_its_status() {
    let rig = Rig::start().await;
    rig.customer_writes("16505551234", "hi", 1).await;
    rig.inbox.wait_for(2).await;
    rig.platform.answer_next(Answer::CloseAfterRead);
    let message = rig.send("16505551234", text("did it arrive?")).await;
    rig.inbox.wait_for_kind("message.unknown", 1).await;
    assert_eq!(rig.status_of(message).await, Status::Unknown);
    rig.status("wamid.late", "16505551234", "delivered", Some(message)).await;
    rig.inbox.wait_for_kind("message.delivered", 1).await;
    assert_eq!(rig.status_of(message).await, Status::Delivered);
    assert_eq!(rig.platform.calls(), 1, "never sent twice");
    rig.stop().await;
}

/// More comes in than an endpoint takes: it waits in the log, in memory and in `later`, and comes out in order, each once. What merchants
/// send is not kept waiting by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowded_endpoint_gets_everything_and_sends_do_not_wait() {
    const PEOPLE: u64 = 40;
    const MESSAGES: u64 = 40;
    let rig = Rig::start().await;
    rig.inbox.hold(100);
    for n in 0..PEOPLE * MESSAGES {
        rig.customer_writes(&format!("1650555{:04}", n % PEOPLE), &format!("{}", n / PEOPLE), n).await;
    }
    rig.until(|rig| rig.inbox.calls() >= 100).await;
    let message = rig.send("16505550000", text("here we are")).await;
    rig.until(|rig| rig.platform.calls() == 1).await;
    assert!(rig.inbox.calls() < 500, "the endpoint has taken no more than was answered and is under way");
    rig.inbox.open();
    // A window each, and the send's own news.
    rig.until(|rig| rig.inbox.calls() as u64 > PEOPLE * (MESSAGES + 1)).await;
    rig.quiet().await;
    assert_eq!(rig.status_of(message).await, Status::Sent);
    let mut told: HashMap<String, Vec<Delivery>> = HashMap::new();
    for delivery in rig.inbox.all() {
        told.entry(delivery.conversation.clone()).or_default().push(delivery);
    }
    assert_eq!(told.len() as u64, PEOPLE);
    for deliveries in told.values() {
        let sequences: Vec<u64> = deliveries.iter().map(|delivery| delivery.sequence).collect();
        assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "numbered without a gap, in order, each once");
        let texts: Vec<&str> = deliveries.iter().filter_map(|delivery| delivery.body["data"]["message"]["text"]["body"].as_str()).collect();
        assert_eq!(texts.len() as u64, MESSAGES);
    }
    rig.stop().await;
}

/// An endpoint that fails gets its deliveries later, in order, marked with rising attempts; others are not held up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_endpoint_is_retried_in_order() {
    let rig = Rig::start().await;
    rig.inbox.answer_next(Answer::Status(500));
    for n in 0..4 {
        rig.customer_writes("16505551234", &format!("m{n}"), n).await;
    }
    rig.inbox.wait_for(1).await;
    rig.quiet().await;
    assert_eq!(rig.inbox.all().len(), 1, "everything of the conversation waits behind the failure");
    rig.clock.advance(Duration::from_secs(10));
    let deliveries = rig.inbox.wait_for(6).await;
    let order: Vec<_> = deliveries.iter().map(|d| (d.sequence, d.attempt)).collect();
    assert_eq!(order, [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1), (5, 1)]);
    assert_eq!(deliveries[0].id, deliveries[1].id, "the same webhook-id");
    rig.stop().await;
}

/// 410 disables the endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gone_disables() {
    let rig = Rig::start().await;
    rig.inbox.answer_next(Answer::Status(410));
    rig.customer_writes("16505551234", "m", 1).await;
    rig.inbox.wait_for(1).await;
    rig.until(|rig| rig.endpoint_disabled()).await;
    rig.stop().await;
}

/// What was under way when the process died is taken up by the next owner: nothing lost, numbers kept, attempts risen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_owner_takes_up() {
    let rig = Rig::start().await;
    rig.inbox.answer_next(Answer::Hang);
    rig.customer_writes("16505551234", "m1", 1).await;
    rig.customer_writes("16505551234", "m2", 2).await;
    rig.inbox.wait_for(1).await;
    let rig = rig.die_and_restart().await;
    let deliveries = rig.inbox.wait_for(4).await;
    let taken_up: Vec<_> = deliveries[1..].iter().map(|d| (d.sequence, d.attempt)).collect();
    assert_eq!(taken_up, [(1, 2), (2, 2), (3, 2)]);
    assert_eq!(deliveries[0].id, deliveries[1].id);
    rig.stop().await;
}

/// The process dies while the platform may have the message: unknown, told, not sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_send_is_unknown() {
    let rig = Rig::start().await;
    rig.customer_writes("16505551234", "hi", 1).await;
    rig.inbox.wait_for(2).await;
    rig.platform.answer_next(Answer::Hang);
    let message = rig.send("16505551234", text("x")).await;
    rig.until(|rig| rig.platform.calls() == 1).await;
    let rig = rig.die_and_restart().await;
    rig.inbox.wait_for_kind("message.unknown", 1).await;
    assert_eq!(rig.status_of(message).await, Status::Unknown);
    rig.quiet().await;
    assert_eq!(rig.platform.calls(), 1);
    rig.stop().await;
}

/// A person first seen by phone and BSUID, later by BSUID alone, stays one conversation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aliases_lead_to_one_conversation() {
    let rig = Rig::start().await;
    rig.customer_writes_as(Some("16505551234"), Some("US.13491208655302741918"), "one", 1).await;
    rig.inbox.wait_for(2).await;
    rig.until_linked(Handle::bsuid("US.13491208655302741918")).await;
    rig.customer_writes_as(None, Some("US.13491208655302741918"), "two", 2).await;
    let deliveries = rig.inbox.wait_for(3).await;
    let conversations: std::collections::BTreeSet<_> = deliveries.iter().map(|d| d.conversation.clone()).collect();
    assert_eq!(conversations.len(), 1);
    assert_eq!(deliveries[2].sequence, 3);
    rig.stop().await;
}

/// What a shard has to tell another is told again while the log is full or away; what the log never takes is parked, and holds up
/// nothing. A log that is closed ends the shard: the next owner tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_shard_is_to_know_is_not_lost() {
    let cases: [(&[AppendError], bool); 3] = [
        (&[AppendError::Full, AppendError::Away], true),
        (&[AppendError::Full, AppendError::TooLarge { max: 1 }], false),
        (&[AppendError::Closed], true),
    ];
    for (refusals, is_told) in cases {
        let mut rig = Rig::start().await;
        rig.log.refuse_commands(refusals.iter().copied());
        rig.customer_writes_as(Some("16505551234"), Some("US.13491208655302741918"), "one", 1).await;
        rig.until(|rig| rig.log.refusals_left() == 0).await;
        if refusals.contains(&AppendError::Closed) {
            rig = rig.die_and_restart().await;
        }
        rig.customer_writes("16505551234", "two", 2).await;
        rig.inbox.wait_for_kind("message.received", 2).await;
        if is_told {
            rig.until_linked(Handle::bsuid("US.13491208655302741918")).await;
        }
        assert_eq!(rig.parked().await, usize::from(!is_told), "{refusals:?}");
        assert_eq!(rig.inbox.all().len(), 3, "{refusals:?}: opened and both messages, once each");
        rig.stop().await;
    }
}

/// What was parked is worked when it is let in again, once, and leaves the quarantine; what fails again stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_parked_can_be_let_in_again() {
    let mut rig = Rig::start().await;
    rig.account_goes = true;
    rig.customer_writes("16505551234", "parked", 1).await;
    rig.account_goes = false;
    assert_eq!(rig.inbox.all().len(), 0);
    rig.requeue_all().await;
    rig.requeue_all().await;
    rig.inbox.wait_for_kind("message.received", 1).await;
    rig.until_parked(0).await;
    rig.customer_writes("16505551234", "after", 2).await;
    rig.inbox.wait_for_kind("message.received", 2).await;
    assert_eq!(rig.inbox.all().len(), 3, "opened, parked, after");

    rig.webhook("no json".into()).await;
    rig.until_parked(1).await;
    rig.requeue_all().await;
    rig.quiet().await;
    assert_eq!(rig.parked().await, 1);
    rig.stop().await;
}

/// Window events: closing an hour before, closed at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_timers_fire() {
    let rig = Rig::start().await;
    rig.customer_writes("16505551234", "hi", 1).await;
    rig.inbox.wait_for(2).await;
    rig.clock.advance(Duration::from_secs(23 * 3600 + 60));
    rig.inbox.wait_for_kind("conversation.window.closing", 1).await;
    rig.clock.advance(Duration::from_secs(3600));
    rig.inbox.wait_for_kind("conversation.window.closed", 1).await;
    rig.stop().await;
}

/// A pointer ends by its retention, a conversation does not: the contact's id leads to it as long as somebody writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contact_leads_to_a_conversation_in_use() {
    const MONTHS: Duration = Duration::from_secs(300 * 24 * 3600);
    let rig = Rig::start().await;
    let (in_use, idle) = ("16505551234", "16505551235");
    rig.customer_writes(idle, "hi", 1).await;
    rig.customer_writes(in_use, "hi", 2).await;
    rig.inbox.wait_for_kind("message.received", 2).await;
    rig.clock.advance(MONTHS);
    rig.customer_writes(in_use, "again", 3).await;
    rig.inbox.wait_for_kind("message.received", 3).await;
    rig.clock.advance(MONTHS);
    for (phone, leads) in [(in_use, true), (idle, false)] {
        let contact = rig.keyring.ids().contact(rig.conversation(&Handle::phone(phone)));
        let pointer = rig.store.read(vec![messaging::store::Key::Pointer(rig.tenant.id(), contact.0)]).await.unwrap().pop().flatten();
        assert_eq!(pointer.is_some(), leads, "{phone}");
    }
    rig.stop().await;
}

/// Rate limits of the platform hold the message back and let it go later, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limited_send_waits() {
    let rig = Rig::start().await;
    rig.customer_writes("16505551234", "hi", 1).await;
    rig.inbox.wait_for(2).await;
    rig.platform
        .answer_next(Answer::Body(429, r#"{"error":{"message":"(#130429) Rate limit hit","type":"OAuthException","code":130429}}"#.into()));
    let message = rig.send("16505551234", text("x")).await;
    rig.until(|rig| rig.platform.calls() == 1).await;
    rig.quiet().await;
    assert_eq!(rig.status_of(message).await, Status::Queued);
    rig.clock.advance(Duration::from_secs(30));
    rig.inbox.wait_for_kind("message.sent", 1).await;
    assert_eq!(rig.platform.calls(), 2);
    rig.stop().await;
}

fn auth_error() -> Answer {
    Answer::Body(401, r#"{"error":{"message":"x","type":"OAuthException","code":190}}"#.into())
}

/// A refused credential stops the account, is told once however many sends met it, and the sends wait: until their own deadline, or
/// until somebody connects the account again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_of_a_broken_account_wait() {
    let rig = Rig::start().await;
    let phones: Vec<String> = (0..6).map(|n| format!("1650555120{n}")).collect();
    for (n, phone) in phones.iter().enumerate() {
        rig.customer_writes(phone, "hi", n as u64).await;
        rig.platform.answer_next(auth_error());
    }
    rig.inbox.wait_for(2 * phones.len()).await;
    let mut waiting = Vec::new();
    for phone in &phones {
        waiting.push(rig.send(phone, text("hello")).await);
    }
    rig.until(|rig| rig.account_state() == AccountState::Broken).await;
    let told = rig.inbox.wait_for_kind("account.state_changed", 1).await;
    let change = &told[0].body["data"]["change"];
    assert_eq!((change["state"].as_str(), change["reason"].as_str()), (Some("broken"), Some("auth")));
    assert!(change["detail"].as_str().is_some_and(|detail| detail.starts_with("190")), "{change}");
    let until = rig.clock.now().plus(Duration::from_secs(600));
    let hasty = rig.send_with(&phones[0], text("in time or not at all"), |send| send.expires_at = Some(until)).await;
    rig.quiet().await;
    let calls = rig.platform.calls();
    rig.clock.advance(Duration::from_secs(599));
    rig.quiet().await;
    assert_eq!(rig.status_of(hasty).await, Status::Queued);
    rig.clock.advance(Duration::from_secs(2));
    rig.inbox.wait_for_kind("message.failed", 1).await;
    rig.quiet().await;
    // Although it stands behind the first message of its conversation, which has no deadline and waits on.
    assert_eq!((rig.status_of(hasty).await, rig.platform.calls()), (Status::Expired, calls), "a stopped account makes no calls");
    // The first refusal stops the account: how many sends were under way then, chance says.
    rig.platform.forget_answers();
    rig.reconnect("access_token", "another").await;
    rig.clock.advance(Duration::from_secs(5));
    rig.inbox.wait_for_kind("message.sent", waiting.len()).await;
    assert_eq!(rig.inbox.of_kind("account.state_changed").len(), 1);
    rig.stop().await;
}

/// News of an account are one event, however often they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_of_an_account_are_told_once() {
    let rig = Rig::start().await;
    let state = |state, reason| AccountChange::State { state, reason, detail: "x".into() };
    let ends_at = rig.clock.now();
    for _ in 0..3 {
        rig.news(7, state(AccountState::Broken, StateReason::Auth)).await;
        rig.news(8, state(AccountState::Active, StateReason::NewCredential)).await;
        rig.news(7, AccountChange::Expiring { ends_at }).await;
    }
    let told = rig.inbox.wait_for(3).await;
    rig.quiet().await;
    assert_eq!(rig.inbox.all().len(), 3);
    let states: Vec<_> = told.iter().map(|told| (told.kind.as_str(), told.body["data"]["change"]["state"].as_str())).collect();
    let changed = "account.state_changed";
    assert_eq!(states, [(changed, Some("broken")), (changed, Some("active")), ("account.credential_expiring", None)]);
    assert_eq!(told[2].body["data"]["credential"]["ends_at"], ends_at.to_string());
    rig.stop().await;
}

/// A log that gives a shard again without a word of its end is believed: the task that had it leaves, and the new one works on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_given_twice_is_worked_once() {
    let rig = Rig::start().await;
    rig.customer_writes("16505551234", "before", 0).await;
    rig.inbox.wait_for(2).await;
    rig.quiet().await;
    rig.log.assign_again();
    rig.customer_writes("16505551234", "after", 1).await;
    rig.inbox.wait_for(3).await;
    rig.stop().await;
}
