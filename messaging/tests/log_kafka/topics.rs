//! Topics: made, altered, refused; and logs over topics that are not as they should.

use std::sync::Arc;
use std::time::Duration;

use messaging::clock::SystemClock;
use messaging::log::LogError;
use messaging::log::kafka::topics::{Admin, Overrides, parse, plan};
use messaging::log::kafka::{KafkaLog, Role};

use crate::rig;

const OVERRIDES: Overrides = Overrides { partitions: Some(3), replication_factor: Some(1) };

#[tokio::test]
async fn a_plan_that_was_applied_is_empty() {
    let _shared = rig::shared().await;
    let settings = rig::settings(&rig::fresh("plan"));
    let admin = Admin::connect(&settings).expect("a client is made");
    let names = settings.topic_names();
    let wanted = parse(rig::TOPICS, &settings.topic_prefix, OVERRIDES, settings.max_record).expect("the file is right");
    let current = admin.current(&names).await.expect("the cluster answers");
    assert!(current.is_empty());
    let changes = plan(&current, &wanted, false);
    assert_eq!(changes.len(), 3);
    admin.apply(&changes).await.expect("the topics are made");
    let current = admin.current(&names).await.expect("the cluster answers");
    assert_eq!(plan(&current, &wanted, false), []);

    // A setting of our own beside the file's stays when one of the file's is altered.
    let text = rig::TOPICS.replacen("[config]", "[config]\n\"max.compaction.lag.ms\" = 86400000", 1);
    let refused = plan(&current, &parse(&text, &settings.topic_prefix, OVERRIDES, settings.max_record).expect("it is right"), false);
    assert!(refused.iter().all(|change| change.is_refusal()) && refused.len() == 3, "{refused:?}");
    let error = admin.apply(&refused).await.expect_err("refusals are not applied");
    assert!(error.to_string().contains("nothing was changed"), "{error}");

    let text = rig::TOPICS.replacen("604_800_000", "259_200_000", 1);
    let shorter = parse(&text, &settings.topic_prefix, OVERRIDES, settings.max_record).expect("it is right");
    let changes = plan(&current, &shorter, false);
    assert!(changes.iter().all(|change| change.to_string().contains("retention.ms 604800000 -> 259200000")), "{changes:?}");
    admin.apply(&changes).await.expect("it is altered");
    let current = admin.current(&names).await.expect("the cluster answers");
    assert_eq!(plan(&current, &shorter, false), []);

    // More partitions: only with a new generation.
    let more = Overrides { partitions: Some(5), ..OVERRIDES };
    let wanted = parse(&text, &settings.topic_prefix, more, settings.max_record).expect("it is right");
    assert!(plan(&current, &wanted, false).iter().all(|change| change.is_refusal()));
    admin.apply(&plan(&current, &wanted, true)).await.expect("they are added");
    let current = admin.current(&names).await.expect("the cluster answers");
    assert!(current.iter().all(|topic| topic.partitions == 5));
    let log = rig::open(settings).await;
    assert_eq!(messaging::log::Log::partitions(log.as_ref()), 5);
}

/// Opening names what is wrong and the cure.
#[tokio::test]
async fn a_log_over_unfit_topics_does_not_open() {
    let _shared = rig::shared().await;
    let clock = Arc::new(SystemClock::default());
    let settings = rig::settings(&rig::fresh("unfit"));
    let refused = async |settings: &messaging::log::kafka::KafkaSettings| match KafkaLog::open(settings.clone(), clock.clone()).await {
        Err(LogError::Mismatch(what)) => what,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    };
    let what = refused(&settings).await;
    assert!(what.contains(&settings.topic_names()[0]) && what.contains("trunkline topics apply"), "{what}");

    let admin = Admin::connect(&settings).expect("a client is made");
    let mut wanted = parse(rig::TOPICS, &settings.topic_prefix, OVERRIDES, settings.max_record).expect("the file is right");
    wanted[2].partitions = 2;
    admin.apply(&plan(&[], &wanted, false)).await.expect("the topics are made");
    let what = refused(&settings).await;
    assert!(what.contains("bulk has 2") && what.contains("inbound has 3"), "{what}");
}

/// A count that was kept from the last run lets the log open at once; when the cluster disagrees, it says so and takes nothing.
#[tokio::test]
async fn a_kept_partition_count_is_checked_in_the_background() {
    let _shared = rig::shared().await;
    use messaging::log::kafka::Standing;
    use messaging::log::{AppendError, Log, Topic};

    let mut settings = rig::settings(&rig::fresh("kept"));
    settings.role = Role::Produce;
    rig::make_topics(&settings, 3).await;
    for (kept, right) in [(3, true), (2, false)] {
        settings.partitions = Some(kept);
        let log = rig::open(settings.clone()).await;
        assert_eq!((log.partitions(), log.writable()), (kept, false), "nothing is known yet");
        let results = log.append(vec![rig::record(Topic::Inbound, 0, "x")]).await;
        assert!(matches!(results[..], [Err(AppendError::Away)] | [Ok(_)] | [Err(AppendError::Closed)]), "{results:?}");
        rig::until("the cluster answers", || log.standing() != Standing::Unconfirmed).await;
        if right {
            assert_eq!(log.standing(), Standing::Confirmed(3));
            rig::until("it is writable", || log.writable()).await;
            rig::append(&log, vec![rig::record(Topic::Inbound, 2, "x")]).await;
        } else {
            assert!(matches!(log.standing(), Standing::Unfit(what) if what.contains("3 partitions and 2")));
            assert_eq!(log.append(vec![rig::record(Topic::Inbound, 0, "x")]).await, [Err(AppendError::Closed)]);
            assert!(!log.writable());
        }
        log.close().await;
    }
    settings.partitions = None;
    settings.brokers = vec!["127.0.0.1:1".into()];
    settings.open_wait = Duration::from_secs(1);
    let error = KafkaLog::open(settings, Arc::new(SystemClock::default())).await.err().expect("nobody is there").to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains("log.url"), "{error}");
}
