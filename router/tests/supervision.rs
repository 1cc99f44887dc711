//! A panic anywhere in a shard: the installation goes on, neighbours feel a pause, and what panics again and again is a dead letter.

mod rig;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use messaging::clock::Clock as _;
use messaging::content::{Content, Handle, Template};
use messaging::ids::ConversationId;
use rig::{Answer, Rig};
use router::faults::{FaultPoint, Faults};

const POISON: &str = "16505550666";
/// Enough to have some in the shard of the poison.
const NEIGHBOURS: u64 = 10;

fn neighbour(n: u64) -> String {
    format!("1650555{n:04}")
}

fn conversation(phone: &str) -> ConversationId {
    let keyring = messaging::seal::Keyring::from_root(&[7; 32]);
    let (tenant, account) = (messaging::ids::TenantId([1; 16]), messaging::ids::AccountId([2; 16]));
    keyring.ids().conversation(tenant, account, Handle::phone(phone).expose())
}

/// Panics at a place for the poison's conversation, as often as `most` says. Counts.
fn planted(at: FaultPoint, most: u32) -> (Faults, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let (counted, poison) = (count.clone(), conversation(POISON));
    let faults = Faults::plant(move |point, conversation| {
        if point == at && conversation == poison && counted.load(Ordering::SeqCst) < most {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("planted at {point:?}");
        }
    });
    (faults, count)
}

/// What the poison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poison {
    /// A webhook, and its deliveries.
    Webhook,
    /// A send; at `Later` one whose time is set.
    Send,
}

impl Poison {
    async fn put(self, rig: &Rig, at: FaultPoint) {
        match self {
            Self::Webhook => rig.customer_writes(POISON, "poison", 100).await,
            Self::Send => {
                let template = Template { name: "poison".into(), language: "en".into(), params: vec![], components: None };
                let later = (at == FaultPoint::Later).then(|| rig.clock.now().plus(Duration::from_secs(5)));
                rig.send_with(POISON, Content::Template(template), |send| send.not_before = later).await;
            }
        }
    }
}

/// One world with one fault in it.
async fn goes_on(at: FaultPoint, poison: Poison, always: bool) {
    let name = format!("{poison:?} at {at:?}, {}", if always { "always" } else { "once" });
    let (faults, count) = planted(at, if always { u32::MAX } else { 1 });
    let mut rig = Rig::start_with(faults).await;
    match (at, poison) {
        // Taken up from `later`: the endpoint refuses it first.
        (FaultPoint::Later, Poison::Webhook) => {
            rig.inbox.answer_next(Answer::Status(500));
            poison.put(&rig, at).await;
            rig.inbox.wait_for(1).await;
            rig.quiet().await;
            rig.clock.advance(Duration::from_secs(10));
        }
        (FaultPoint::Later, Poison::Send) => {
            poison.put(&rig, at).await;
            rig.quiet().await;
            rig.clock.advance(Duration::from_secs(10));
        }
        // Under way when the process dies.
        (FaultPoint::Recover, _) => {
            let server = if poison == Poison::Send { rig.platform.clone() } else { rig.inbox.clone() };
            server.hold(0);
            poison.put(&rig, at).await;
            server.wait_for_call().await;
            rig = rig.die_and_restart().await;
            server.open();
        }
        _ => poison.put(&rig, at).await,
    }
    for round in 0..2 {
        for n in 0..NEIGHBOURS {
            rig.customer_writes(&neighbour(n), &format!("n{n} r{round}"), n + 10 * round).await;
        }
        for n in 0..NEIGHBOURS {
            rig.inbox.wait_for_body(&format!("n{n} r{round}")).await;
        }
    }
    // The platform may have what was interrupted, so nobody says that it was not sent; nor is it sent again.
    let is_unknown = poison == Poison::Send && (at == FaultPoint::End || (at == FaultPoint::Recover && !always));
    if is_unknown {
        rig.inbox.wait_for_kind("message.unknown", 1).await;
    } else if always {
        rig.until_dead_letters().await;
        let reasons = rig.dead_letters().await;
        assert!(reasons.iter().all(|reason| reason == "panicked"), "{name}: {reasons:?}");
        let count = count.load(Ordering::SeqCst);
        assert!(count >= 3, "{name}: set aside after {count} panics");
    } else {
        match poison {
            Poison::Webhook => drop(rig.inbox.wait_for_body("poison").await),
            Poison::Send => drop(rig.inbox.wait_for_kind("message.sent", 1).await),
        }
        assert_eq!(rig.dead_letters().await, [""; 0], "{name}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{name}: planted and met");
    }
    assert!(rig.platform.calls() <= 1, "{name}: sent once at most");
    rig.customer_writes(&neighbour(0), "the end", 50).await;
    rig.inbox.wait_for_body("the end").await;
    rig.until(|rig| rig.fleet.stopped().is_empty()).await;
    let of_neighbours = rig.inbox.of_kind("message.received").into_iter().filter(|delivery| !delivery.raw.contains("poison"));
    let ids: BTreeSet<_> = of_neighbours.map(|delivery| delivery.id).collect();
    assert_eq!(ids.len() as u64, 2 * NEIGHBOURS + 1, "{name}: everything of the neighbours, nothing invented");
    rig.stop().await;
}

macro_rules! places {
    ($($test:ident: $place:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                for poison in [Poison::Webhook, Poison::Send] {
                    for always in [false, true] {
                        goes_on(FaultPoint::$place, poison, always).await;
                    }
                }
            }
        )*

        #[test]
        fn every_place_has_its_test() {
            assert_eq!([$(FaultPoint::$place),*], FaultPoint::ALL);
        }
    };
}

places! {
    a_panic_in_parse: Parse,
    a_panic_in_decide: Decide,
    a_panic_in_place: Place,
    a_panic_in_apply: Apply,
    a_panic_in_end: End,
    a_panic_in_later: Later,
    a_panic_in_recover: Recover,
}
