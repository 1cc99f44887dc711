//! Encryption and identity.
//!
//! Needs a broker of its own, so it runs when it is asked for: `cargo test -p messaging --features kafka --test log_kafka secure -- --ignored`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use messaging::clock::SystemClock;
use messaging::log::Topic;
use messaging::log::kafka::{KafkaLog, Sasl, SaslMechanism, Tls};
use messaging::seal::Secret;

use crate::rig::{self, Member, append, record, texts};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is missing: name a SASL_SSL listener in TRUNKLINE_TEST_KAFKA_SECURE (host:port), its authority in \
             TRUNKLINE_TEST_KAFKA_CA (PEM), and who we are, for SCRAM-SHA-512 and PLAIN, in TRUNKLINE_TEST_KAFKA_USER and _PASSWORD"
        )
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker with TLS and SASL, named in TRUNKLINE_TEST_KAFKA_SECURE"]
async fn secured_listeners_are_reached_and_strangers_are_not_let_in() {
    let mut settings = rig::settings_at(vec![variable("TRUNKLINE_TEST_KAFKA_SECURE")], &rig::fresh("secure"));
    let authorities = Tls::Authorities(PathBuf::from(variable("TRUNKLINE_TEST_KAFKA_CA")));
    let sasl =
        |mechanism, password: &str| Some(Sasl { mechanism, user: variable("TRUNKLINE_TEST_KAFKA_USER"), password: Secret::new(password) });
    let password = variable("TRUNKLINE_TEST_KAFKA_PASSWORD");
    settings.tls = authorities.clone();
    settings.sasl = sasl(SaslMechanism::ScramSha512, &password);
    rig::make_topics(&settings, 2).await;
    for mechanism in [SaslMechanism::ScramSha512, SaslMechanism::Plain] {
        settings.sasl = sasl(mechanism, &password);
        let log = rig::open(settings.clone()).await;
        append(&log, vec![record(Topic::Inbound, 0, mechanism.name())]).await;
        let mut member = Member::new(log.clone());
        member.until_has(2).await;
        let entries = member.take(0, Topic::Inbound, 1).await;
        assert_eq!(texts(&entries)[0], SaslMechanism::ScramSha512.name(), "nothing was finished, so the first comes each time");
        drop(member);
        messaging::log::Log::close(log.as_ref()).await;
    }
    settings.open_wait = Duration::from_secs(2);
    let strangers = [
        (authorities, sasl(SaslMechanism::ScramSha512, "a guess"), "authentication"),
        (Tls::System, sasl(SaslMechanism::ScramSha512, &password), "certificate"),
        (Tls::Off, None, ""),
    ];
    for (tls, sasl, why) in strangers {
        settings.tls = tls.clone();
        settings.sasl = sasl;
        let error = KafkaLog::open(settings.clone(), Arc::new(SystemClock::default())).await.err().expect("it is not let in").to_string();
        assert!(
            error.contains("does not answer")
                && error.to_lowercase().contains(why)
                && !error.contains(&password)
                && !error.contains("a guess"),
            "{tls:?}: {error}"
        );
    }
}
