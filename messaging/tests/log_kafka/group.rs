//! Shards between members.

use std::collections::BTreeMap;

use messaging::log::kafka::Role;
use messaging::log::{Finished, Log, Topic};

use crate::rig::{self, Member, append, record, texts, within};

fn finished(topic: Topic, shard: u16, position: messaging::log::Position) -> Finished {
    Finished { topic, shard, position }
}

/// Two members share the shards, each shard whole; what was finished does not come again, and what was not does, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_member_gets_whole_shards_and_nothing_is_lost() {
    let _shared = rig::shared().await;
    // Odd, so that an assignor which deals partitions out one by one would tear shards apart.
    const SHARDS: u16 = 5;
    const HALF: std::ops::RangeInclusive<usize> = 2..=3;
    let (settings, log) = rig::fresh_log("share", SHARDS, Role::Consume).await;
    let mut first = Member::new(log.clone());
    first.until_has(usize::from(SHARDS)).await;
    for shard in 0..SHARDS {
        for &topic in Topic::ALL {
            append(&log, (0..10).map(|number| record(topic, shard, format!("{} {number}", topic.name()))).collect()).await;
        }
    }
    for shard in 0..SHARDS {
        for &topic in Topic::ALL {
            let entries = first.take(shard, topic, 10).await;
            // The first six are finished at once; the seventh while the shard is being given back.
            within("finish", log.finish(vec![finished(topic, shard, entries[5].position)])).await.expect("finishing works");
        }
    }
    let seventh: BTreeMap<(u16, Topic), _> = (0..SHARDS)
        .flat_map(|shard| Topic::ALL.iter().map(move |topic| (shard, *topic)))
        .map(|place| (place, messaging::log::Position(7)))
        .collect();

    let other = rig::open(settings).await;
    let mut second = Member::new(other.clone());
    let joining = tokio::spawn(async move {
        second.until_has_about(HALF).await;
        second
    });
    let mut back = first.next().await;
    assert_eq!(back.len(), usize::from(SHARDS), "everything is given back: {:?}", first.changes);
    for reader in &mut back {
        assert!(reader.take(Topic::Inbound, 10).await.expect("taking works").is_empty(), "nothing is taken after a revocation");
    }
    assert!(!joining.is_finished(), "the second member waits for the first to drain");
    let last = seventh.into_iter().map(|((shard, topic), position)| finished(topic, shard, position)).collect();
    within("finish", log.finish(last)).await.expect("what is given back can still be finished");
    drop(back);
    let mut second = within("joining", joining).await.expect("the second member joins");
    first.until_has_about(HALF).await;

    let mut seen = Vec::new();
    for member in [&mut first, &mut second] {
        let shards: Vec<u16> = member.readers.keys().copied().collect();
        for shard in shards {
            seen.push(shard);
            for &topic in Topic::ALL {
                let wanted: Vec<String> = (7..10).map(|number| format!("{} {number}", topic.name())).collect();
                assert_eq!(texts(&member.take(shard, topic, 3).await), wanted, "shard {shard}");
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..SHARDS).collect::<Vec<_>>(), "each shard has one owner");

    // A member that leaves hands its shards on.
    drop(std::mem::take(&mut second.readers));
    other.close().await;
    while first.readers.len() != usize::from(SHARDS) {
        drop(first.next().await);
    }
    log.close().await;
}

/// A router that does not drain cannot hold up the group: after the wait the shards go, and what it finishes then moves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_drain_is_not_waited_for_for_ever() {
    let _shared = rig::shared().await;
    let (settings, log) = rig::fresh_log("stuck", 2, Role::Consume).await;
    let mut first = Member::new(log.clone());
    first.until_has(2).await;
    for shard in 0..2 {
        append(&log, (0..5).map(|number| record(Topic::Inbound, shard, format!("{number}"))).collect()).await;
        first.take(shard, Topic::Inbound, 5).await;
    }
    let other = rig::open(settings).await;
    let mut second = Member::new(other.clone());
    let joining = tokio::spawn(async move {
        second.until_has(1).await;
        second
    });
    let stuck = first.next().await;
    assert_eq!(stuck.len(), 2);
    let mut second = within("the second member", joining).await.expect("it joins");
    for reader in &stuck {
        let late = finished(Topic::Inbound, reader.shard(), messaging::log::Position(5));
        within("finish", log.finish(vec![late])).await.expect("what is not ours is left out");
    }
    let shard = *second.readers.keys().next().expect("it has one");
    assert_eq!(texts(&second.take(shard, Topic::Inbound, 5).await), ["0", "1", "2", "3", "4"]);
    drop(stuck);
    other.close().await;
    log.close().await;
}

/// With an instance id, a member that ended without a word and comes back within its session has its shards at once, and the others keep
/// theirs. One that is closed gives its shards to the others at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_with_an_instance_id_moves_nothing_and_a_close_everything() {
    let _shared = rig::shared().await;
    let (mut settings, log) = rig::fresh_log("static", 4, Role::Produce).await;
    log.close().await;
    settings.role = Role::Consume;
    // Longer than a test waits: nothing here comes from a session's end.
    settings.session_timeout = 2 * rig::HANGS_AFTER;
    let with = |name: &str| {
        let mut settings = settings.clone();
        settings.instance_id = Some(name.to_owned());
        settings
    };
    let one = rig::open(with("one")).await;
    let mut first = Member::new(one.clone());
    first.until_has(4).await;
    let two = rig::open(with("two")).await;
    let mut second = Member::new(two.clone());
    let joining = tokio::spawn(async move {
        second.until_has(2).await;
        second
    });
    drop(first.next().await);
    first.until_has(2).await;
    let second = within("joining", joining).await.expect("it joins");
    let had: Vec<u16> = second.readers.keys().copied().collect();

    drop((second, two));
    let two = rig::open(with("two")).await;
    let mut second = Member::new(two.clone());
    second.until_has(2).await;
    assert_eq!(second.readers.keys().copied().collect::<Vec<_>>(), had);
    let nothing = futures_util::FutureExt::now_or_never(one.claims());
    assert!(nothing.is_none(), "the first member saw nothing of it");
    assert_eq!(first.changes, ["assigned 4", "revoked 4", "assigned 2"]);
    drop(second);
    two.close().await;
    drop(first.next().await);
    within("the closed one's shards", first.until_has(4)).await;
    assert_eq!(first.changes, ["assigned 4", "revoked 4", "assigned 2", "revoked 2", "assigned 4"]);
    one.close().await;
}

/// Two processes with one instance id shut each other out once; then one goes on without it, and both have shards. So a member that is shut out
/// for a commit of its own that came late comes back, and none stays out for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_with_one_instance_id_both_work_in_the_end() {
    let _shared = rig::shared().await;
    let (mut settings, log) = rig::fresh_log("fenced", 2, Role::Produce).await;
    log.close().await;
    settings.role = Role::Consume;
    settings.instance_id = Some("same".into());
    let one = rig::open(settings.clone()).await;
    let mut first = Member::new(one.clone());
    first.until_has(2).await;
    let two = rig::open(settings).await;
    let mut second = Member::new(two.clone());
    second.until_has(2).await;
    first.until_has(0).await;
    assert_eq!(first.changes, ["assigned 2", "lost 2"]);
    append(&one, vec![record(Topic::Inbound, 0, "appended by who is out")]).await;
    while (first.readers.len(), second.readers.len()) != (1, 1) {
        tokio::select! {
            back = first.next() => drop(back),
            back = second.next() => drop(back),
        }
    }
    let changes = (&first.changes, &second.changes);
    assert!(second.changes.contains(&"lost 2".to_owned()), "the first took its place back: {changes:?}");
    for shard in 0..2 {
        append(&one, vec![record(Topic::Bulk, shard, "shared")]).await;
        let member = if first.readers.contains_key(&shard) { &mut first } else { &mut second };
        assert_eq!(texts(&member.take(shard, Topic::Bulk, 1).await), ["shared"]);
        if shard == 0 {
            assert_eq!(texts(&member.take(shard, Topic::Inbound, 1).await), ["appended by who is out"]);
        }
    }
    one.close().await;
    two.close().await;
}

/// A shard that is not read holds nothing up: its partition is paused, the others go on, and nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_shard_is_paused_and_resumed() {
    let _shared = rig::shared().await;
    const RECORDS: usize = 30_000;
    let (_, log) = rig::fresh_log("full", 2, Role::Consume).await;
    let mut member = Member::new(log.clone());
    member.until_has(2).await;
    for batch in 0..RECORDS / 1_000 {
        let records = (0..1_000).map(|number| record(Topic::Bulk, 0, format!("{}", batch * 1_000 + number)));
        append(&log, records.collect()).await;
    }
    for number in 0..20 {
        append(&log, vec![record(Topic::Bulk, 1, format!("{number}"))]).await;
        assert_eq!(texts(&member.take(1, Topic::Bulk, 1).await), [number.to_string()]);
    }
    let mut next = 0;
    while next < RECORDS {
        let count = (RECORDS - next).min(700);
        let wanted: Vec<String> = (next..next + count).map(|number| number.to_string()).collect();
        let entries = member.take(0, Topic::Bulk, count).await;
        assert_eq!(texts(&entries), wanted);
        within("finish", log.finish(vec![finished(Topic::Bulk, 0, entries[count - 1].position)])).await.expect("finishing works");
        next += count;
    }
    rig::until("the lag ends", || {
        log.lag().iter().find(|lag| (lag.topic, lag.partition) == (Topic::Bulk, 0)).is_some_and(|lag| lag.records == 0)
    })
    .await;
    log.close().await;
}

/// The lag has what is in the cluster, not only what was fetched, and the age of the oldest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_counts_what_is_not_fetched() {
    let _shared = rig::shared().await;
    const RECORDS: u64 = 10_000;
    let (settings, log) = rig::fresh_log("lag", 1, Role::Consume).await;
    for _ in 0..10 {
        append(&log, (0..RECORDS / 10).map(|number| record(Topic::Outbound, 0, format!("{number}"))).collect()).await;
    }
    let mut member = Member::new(log.clone());
    member.until_has(1).await;
    let of = |log: &messaging::log::kafka::KafkaLog| *log.lag().iter().find(|lag| lag.topic == Topic::Outbound).expect("the shard is ours");
    rig::until("the lag is told", || of(&log).records == RECORDS).await;
    let entries = member.take(0, Topic::Outbound, 100).await;
    assert_eq!(of(&log).oldest_at, Some(entries[0].appended_at));
    within("finish", log.finish(vec![finished(Topic::Outbound, 0, entries[99].position)])).await.expect("finishing works");
    assert_eq!(of(&log).records, RECORDS - 100);
    // Another process appends; here nothing takes, and the lane is full.
    let other = rig::open(settings).await;
    append(&other, vec![record(Topic::Outbound, 0, "one more")]).await;
    rig::until("the lag is told", || of(&log).records == RECORDS - 99).await;
    other.close().await;
    log.close().await;
}
