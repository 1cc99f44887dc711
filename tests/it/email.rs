//! E-mail over the real binary: in by the bridge and by each provider that can be simulated, out by SMTP with TLS.

use std::path::Path;
use std::time::Duration;

use bench::platform::email::{EmailSim, Protection, Provider};
use bench::platform::{Answer, SimOptions};
use data_encoding::BASE64;
use serde_json::{Value, json};
use system_tests::{PATIENCE, Setup, System, body, fast};

const ADA: &str = "ada@example.com";
const GRACE: &str = "grace@example.com";
/// Each provider, with a relay of either kind of TLS.
const WAYS: [(Provider, Protection); 4] = [
    (Provider::Bridge, Protection::StartTls),
    (Provider::Mailgun, Protection::Tls),
    (Provider::Postmark, Protection::StartTls),
    (Provider::Sendgrid, Protection::Tls),
];

async fn simulator(provider: Provider, protection: Protection, copies: u32) -> EmailSim {
    let options = SimOptions { statuses: fast(), copies, account: "shop".to_owned(), seed: provider as u64 + 1, ..SimOptions::default() };
    EmailSim::start_with(options, protection, provider).await.expect("a simulator starts")
}

/// A system that trusts these relays. Their clock is not the system's: no test here moves it.
async fn trusting(sims: &[EmailSim], folder: &Path) -> System {
    let pem = |sim: &EmailSim| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(&sim.authority()));
    let file = folder.join("authorities.pem");
    std::fs::write(&file, sims.iter().map(pem).collect::<String>()).expect("the folder takes a file");
    System::with(Setup { tls_ca_file: Some(file), ..Setup::default() }).await
}

/// The mailbox before a simulator, connected.
async fn connect(system: &System, sim: &EmailSim) -> String {
    let mut account = sim.account();
    (account["channel"], account["name"]) = ("email".into(), "mailbox".into());
    let made = system.ok("POST", "/v1/accounts", &account).await;
    let account = made["id"].as_str().expect("an account has an id").to_owned();
    sim.set_hook(&system.hook("email", &account));
    account
}

fn mail(account: &str, to: &str, text: &str) -> Value {
    json!({"account": account, "to": {"email": to}, "type": "email", "email": {"subject": "Your order", "text": text}})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_both_ways() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut sims = Vec::new();
    for (provider, protection) in WAYS {
        sims.push(simulator(provider, protection, 3).await);
    }
    let system = trusting(&sims, folder.path()).await;
    for ((provider, _), sim) in WAYS.iter().zip(&sims) {
        let account = connect(&system, sim).await;
        let ours = |e: &Value| e["data"]["account"] == account.as_str();
        assert!(sim.customer_writes(ADA, "A question", "hello shop").await.accepted, "{provider:?}");
        let received = system.event("message.received", |e| ours(e) && e.to_string().contains("hello shop")).await;
        system.verify(&received);
        let told = body(&received);
        assert_eq!(told["data"]["contact"]["email"], ADA, "{provider:?}");
        assert_eq!(told["data"]["message"]["email"]["subject"], "A question", "{provider:?}");

        let id = system.send(mail(&account, ADA, "hello customer")).await;
        system.until_status(&id, "sent").await;
        let taken = sim.accepted();
        assert_eq!(taken.len(), 1, "{provider:?}");
        assert_eq!((taken[0].callback.as_deref(), taken[0].text.as_deref()), (Some(id.as_str()), Some("hello customer")));
        let sent = taken[0].platform_id.clone().expect("a mail has an id");
        assert!(sim.report(&sent, ADA, "delivered", "2.0.0").await.accepted);
        system.until_status(&id, "delivered").await;
        assert!(sim.customer_answers(ADA, "thank you", &sent).await.accepted);
        let answered = body(&system.event("message.received", |e| ours(e) && e.to_string().contains("thank you")).await);
        assert_eq!(answered["data"]["message"]["reply_to"]["id"], id.as_str(), "{provider:?}: {answered:#}");

        let id = system.send(mail(&account, GRACE, "to an address that is gone")).await;
        system.until_status(&id, "sent").await;
        let sent = sim.accepted()[1].platform_id.clone().expect("a mail has an id");
        assert!(sim.report(&sent, GRACE, "failed", "5.1.1").await.accepted);
        let failed = system.until_status(&id, "failed").await;
        assert_eq!(failed["reason"], "recipient_invalid", "{provider:?}: {failed:#}");
        let received = |received: &&bench::inbox::Received| body(received)["type"] == "message.received" && ours(&body(received));
        assert_eq!(system.inbox.received().iter().filter(received).count(), 2, "{provider:?}: every webhook came three times");
        assert_eq!(sim.dropped(), 0);
    }
    for sim in sims {
        sim.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_are_refused() {
    let system = System::start().await;
    let client = bench::http::Client::new(Duration::from_secs(5));
    for (provider, protection) in WAYS {
        let (sim, stranger) = (simulator(provider, protection, 1).await, stranger(provider).await);
        let account = connect(&system, &sim).await;
        let hook = system.hook("email", &account);
        let (kind, genuine) = sim.mail_body(ADA, "genuine");
        let (_, forged) = stranger.mail_body(ADA, "forged");
        for (what, proof) in [("no proof", Vec::new()), ("another secret's proof", stranger.proof(&forged))] {
            let mut headers: Vec<(&str, &str)> = proof.iter().map(|(name, value)| (*name, value.as_str())).collect();
            headers.push(("content-type", &kind));
            let answer = client.post(&hook, &headers, forged.clone()).await.expect("an answer");
            assert_eq!(answer.status, 401, "{provider:?}: {what}");
        }
        if matches!(provider, Provider::Bridge | Provider::Sendgrid) {
            let proof = sim.proof(&genuine);
            let mut headers: Vec<(&str, &str)> = proof.iter().map(|(name, value)| (*name, value.as_str())).collect();
            headers.push(("content-type", &kind));
            let answer = client.post(&hook, &headers, [&genuine[..], b" "].concat()).await.expect("an answer");
            assert_eq!(answer.status, 401, "{provider:?}: another body");
        }
        assert!(sim.customer_writes(ADA, "Hi", "from a person").await.accepted);
        system.event("message.received", |e| e["data"]["account"] == account.as_str()).await;
        sim.stop().await;
        stranger.stop().await;
    }
    // Only Amazon can sign for SES; what is of another topic is refused without a call to anybody.
    let topic = "arn:aws:sns:eu-west-1:000000000000:mail";
    let made = json!({"channel": "email", "name": "ses", "address": "ses@example.net", "provider": "ses", "topic": topic});
    let account = system.ok("POST", "/v1/accounts", &made).await;
    let notice = json!({"Type": "Notification", "MessageId": "1", "TopicArn": format!("{topic}-of-another"), "Message": "{}",
        "Timestamp": "2026-11-20T10:00:00.000Z", "SignatureVersion": "2", "Signature": "AAAA",
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/a.pem"});
    let answer = client.post(&system.hook("email", account["id"].as_str().unwrap()), &[], notice.to_string()).await.expect("an answer");
    assert_eq!(answer.status, 401);
    assert_eq!(system.kinds().iter().filter(|kind| *kind == "message.received").count(), WAYS.len(), "{:?}", system.kinds());
}

/// The same provider with a secret, password or key of somebody else.
async fn stranger(provider: Provider) -> EmailSim {
    let options = SimOptions { secret: "of-somebody-else".to_owned(), ..SimOptions::default() };
    EmailSim::start_with(options, Protection::Plain, provider).await.expect("a simulator starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_relay_says_decides() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sims = [simulator(Provider::Bridge, Protection::StartTls, 1).await];
    let system = trusting(&sims, folder.path()).await;
    let [sim] = sims;
    let account = connect(&system, &sim).await;
    sim.refuse_recipient(GRACE, Some("550 5.1.1 no such user"));
    let id = system.send(mail(&account, GRACE, "to nobody")).await;
    let failed = system.until_status(&id, "failed").await;
    assert_eq!(failed["reason"], "recipient_invalid", "{failed:#}");
    // The mail's end left, and no answer came: it is not sent again by itself.
    sim.script([Answer::ResetAfterBody]);
    let id = system.send(mail(&account, ADA, "perhaps")).await;
    system.until_status(&id, "unknown").await;
    // A report from the way on settles it.
    let sent = sim.accepted()[0].platform_id.clone().expect("a mail has an id");
    assert!(sim.report(&sent, ADA, "delivered", "2.0.0").await.accepted);
    system.until_status(&id, "delivered").await;
    sim.script([Answer::AcceptThenFail { code: 550 }]);
    let id = system.send(mail(&account, ADA, "bounces")).await;
    system.until_status(&id, "failed").await;
    assert_eq!(sim.accepted().len(), 2, "each once");
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_to_a_relay_that_cannot_prove_its_name() {
    let system = System::start().await;
    let sim = simulator(Provider::Bridge, Protection::Tls, 1).await;
    let account = connect(&system, &sim).await;
    let id = system.send(mail(&account, ADA, "private")).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let message = system.try_call("GET", &format!("/v1/messages/{id}"), &[], "").await.expect("the API answers");
        let message: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        if message["reason"] == "connect" {
            assert_eq!(message["status"], "queued", "nothing of it left: it waits for a better day");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "never tried: {message:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sim.calls().is_empty(), "neither the mail nor the password was shown");
    sim.stop().await;
}
