//! Any process may die at any instant; a stop drains.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use system_tests::load::{Load, Spread, judge, platforms};
use system_tests::world::World;
use system_tests::{Setup, System, quick};

/// kill -9 in a loop under load: nothing lost, nothing sent twice unmarked, nothing out of order.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again() {
    let rounds = if quick() { 4 } else { 20 };
    // The pair budget would hold this load for minutes: it has a test of its own.
    let config = "[channels.whatsapp]\nper_pair = \"1000/s\"\nper_number = \"1000/s\"\n".to_owned();
    let system = System::with(Setup { platforms: platforms(), config, world: World::crowded(), ..Setup::default() }).await;
    let system = Arc::new(tokio::sync::RwLock::new(system));
    let load = Load::start(&system, 1, Spread::EachCall).await;
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(150 + 97 * (round % 7))).await;
        let mut system = system.write().await;
        system.process.kill();
        system.restart().await;
    }
    let sends = load.finish().await;
    let mut system = Arc::into_inner(system).expect("the load is over").into_inner();
    // What waits for its schedule goes out now.
    for _ in 0..3 {
        system.advance(Duration::from_secs(20)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    judge(&system, sends).await;
    assert_eq!(system.process.terminate().await, Some(0));
}

/// SIGTERM under load: readiness drops first, requests under way are answered, exit 0, nothing repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_drains() {
    let config = "[channels.whatsapp]\nper_pair = \"1000/s\"\nper_number = \"1000/s\"\n".to_owned();
    let system = System::with(Setup { platforms: platforms(), config, world: World::crowded(), ..Setup::default() }).await;
    let system = Arc::new(tokio::sync::RwLock::new(system));
    let load = Load::start(&system, 2, Spread::EachCall).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut system = system.write().await;
        assert_eq!(system.process.terminate().await, Some(0));
        system.restart().await;
    }
    let sends = load.finish().await;
    let system = Arc::into_inner(system).expect("the load is over").into_inner();
    system.advance(Duration::from_secs(10)).await;
    judge(&system, sends).await;
}

/// Data survives a restart: messages, windows, endpoints, keys.
#[tokio::test(flavor = "multi_thread")]
async fn data_survives() {
    let mut system = System::start().await;
    system.whatsapp.customer_writes(system_tests::PHONE, "remember me").await;
    system.event("message.received", |_| true).await;
    let id = system.send(system.text(system_tests::PHONE, "noted")).await;
    system.until_status(&id, "read").await;
    system.process.kill();
    system.restart().await;
    assert_eq!(system.get(&format!("/v1/messages/{id}")).await["status"], "read");
    let path = format!("/v1/windows?account={}&to=%2B{}", system.wa_account, system_tests::PHONE);
    assert_eq!(system.get(&path).await["open"], true);
    let response = system.call("POST", "/v1/messages", &[], &system.text(system_tests::PHONE, "and again").to_string()).await;
    assert_eq!(response.status, 202);
    let body = json!({"account": system.wa_account});
    assert_eq!(system.call("POST", "/v1/messages", &[], &body.to_string()).await.status, 422);
}

/// A second process over the same data is refused, with a sentence that says why.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_do_not_share_data() {
    let system = System::start().await;
    let config = system.data_dir().parent().unwrap().join("trunkline.toml");
    let output = std::process::Command::new(system_tests::binary()).args(["serve", "--config"]).arg(&config).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"), "{}", String::from_utf8_lossy(&output.stderr));
}
