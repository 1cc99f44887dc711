//! Refreshes of a credential that changes when it is used: no new token is lost, and none is asked for twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use messaging::BoxFuture;
use messaging::accounts::{Accounts, StateChange};
use messaging::channels::{ChannelKind, ChannelSettings, channel};
use messaging::directory::{Account, AccountRow, AccountState, DirectoryRow, SecretPair, StateReason, account_aad};
use messaging::exchange::{HttpRequest, HttpResponse};
use messaging::ids::AccountId;
use messaging::keeper::Change;
use messaging::record::{Command, Record};
use messaging::seal::Secret;
use messaging::tenant::Owned;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Fakes, START, fakes};
use crate::connectors::Connectors;
use crate::connectors::refresh::{Ended, Parts, refresh};
use crate::options::{self, OutboundCall};

/// A token endpoint as strict as TikTok's: the refresh token that it takes changes with every use.
#[derive(Default)]
struct Platform {
    pub calls: AtomicUsize,
    /// Answers in place of its own, once each.
    script: Mutex<Vec<(u16, String)>>,
    /// While there, answers wait for it, after the tokens have changed.
    gate: Mutex<Option<Arc<Notify>>>,
    revoked: Mutex<bool>,
}

impl OutboundCall for Platform {
    fn call_up_to(&self, request: HttpRequest, _: Duration, _: usize) -> BoxFuture<'_, Result<HttpResponse, String>> {
        let given: Value = serde_json::from_slice(&request.body).unwrap();
        let answer = |status: u16, body: String| HttpResponse { status, body: Bytes::from(body), ..HttpResponse::default() };
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        if let Some((status, body)) = self.script.lock().unwrap().pop() {
            return Box::pin(async move { Ok(answer(status, body)) });
        }
        let is_good = given["refresh_token"] == format!("rft.{number}") && !*self.revoked.lock().unwrap();
        let body = if is_good {
            json!({"code": 0, "data": {"access_token": format!("act.{}", number + 1), "expires_in": 86_400,
                "refresh_token": format!("rft.{}", number + 1), "refresh_token_expires_in": 31_536_000, "open_id": "me"}})
        } else {
            json!({"code": 40_105, "message": "used up"})
        };
        let gate = self.gate.lock().unwrap().clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            Ok(answer(200, body.to_string()))
        })
    }
}

struct Rig {
    pub fakes: Fakes,
    pub parts: Parts,
    pub platform: Arc<Platform>,
    pub owner: Owned,
}

impl Rig {
    pub async fn start() -> Self {
        let fakes = fakes();
        let (keeper, keyring, clock) = (fakes.parts.keeper.clone(), fakes.parts.keyring.clone(), fakes.parts.clock.clone());
        crate::admin::first_key(&keeper, &keyring, &clock).await.unwrap().unwrap();
        let directory = keeper.shared().load_full();
        let tenant = directory.tenant_of_row(directory.tenants().next().unwrap().id).unwrap();
        let id = AccountId([9; 16]);
        let pair = |value: &str| SecretPair::new(Secret::new(value), START);
        let secrets: BTreeMap<String, SecretPair> =
            [("access_token", pair("act.0")), ("refresh_token", pair("rft.0")), ("client_secret", pair("s"))]
                .map(|(name, pair)| (name.to_owned(), pair))
                .into();
        let row = AccountRow {
            id,
            tenant: tenant.id(),
            channel: ChannelKind::Tiktok,
            name: "shop".into(),
            api_base: None,
            public: [("business_id", "me"), ("client_key", "app")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            secrets: directory.tenant_key(tenant).unwrap().seal_value(&account_aad(tenant.id(), id), &secrets),
            state: AccountState::Active,
            state_reason: None,
            created_at: START,
            revision: 1,
        };
        keeper.change::<()>(|_| Ok(vec![Change::put(DirectoryRow::Account(row.clone()))])).await.unwrap();
        let platform = Arc::new(Platform::default());
        let parts = Parts {
            accounts: Accounts::new(keeper, fakes.parts.log.clone(), keyring, clock.clone()),
            caller: platform.clone(),
            channels: [(ChannelKind::Tiktok, ChannelSettings { api_base: "https://tiktok.example".into(), ..ChannelSettings::default() })]
                .into(),
            clock,
        };
        Self { fakes, parts, platform, owner: Owned { tenant, account: id } }
    }

    pub fn account(&self) -> Arc<Account> {
        self.parts.accounts.directory().account(self.owner.account).unwrap().clone()
    }

    fn tokens(&self) -> (String, String) {
        let account = self.account();
        (account.secret("access_token").to_owned(), account.secret("refresh_token").to_owned())
    }

    async fn edit(&self, edit: impl Fn(&mut AccountRow, &mut BTreeMap<String, SecretPair>)) {
        let keeper = &self.fakes.parts.keeper;
        let change = |directory: &messaging::directory::Directory| {
            let account = directory.account(self.owner.account).unwrap();
            let (mut row, mut secrets) = (account.row.clone(), account.secrets.clone());
            edit(&mut row, &mut secrets);
            let key = directory.tenant_key(self.owner.tenant).unwrap();
            row.secrets = key.seal_value(&account_aad(row.tenant, row.id), &secrets);
            Ok(vec![Change::put(DirectoryRow::Account(row))])
        };
        keeper.change::<()>(change).await.unwrap();
    }

    /// How many news are on the log.
    fn told(&self) -> usize {
        let records = self.fakes.log.records();
        let key = self.fakes.parts.keyring.log();
        let commands = records.iter().map(|record| serde_json::from_slice(&Record::decode(&record.payload, key).unwrap().body).unwrap());
        commands.filter(|command: &Command| matches!(command, Command::Account { .. })).count()
    }
}

fn both(number: u32) -> (String, String) {
    (format!("act.{number}"), format!("rft.{number}"))
}

#[tokio::test]
async fn new_tokens_take_the_place_of_dead_ones() {
    let rig = Rig::start().await;
    rig.fakes.clock.advance(Duration::from_secs(19 * 3_600));
    assert_eq!(refresh(&rig.parts, rig.account()).await, Ended::Settled);
    let account = rig.account();
    assert_eq!(rig.tokens(), both(1));
    assert!(account.secrets.iter().all(|(_, pair)| pair.previous.is_none()), "a dead token is kept by nobody");
    let life = channel(ChannelKind::Tiktok).life(&account);
    let (now, hour) = (rig.fakes.parts.clock.now(), Duration::from_secs(3_600));
    assert_eq!((life.due(&account), life.access_until), (Some(now.plus(18 * hour)), Some(now.plus(24 * hour))));
    assert_eq!(life.ends_at, Some(now.plus(Duration::from_secs(31_536_000))));
    assert_eq!((account.row.state, rig.told()), (AccountState::Active, 0), "a token that is refreshed in time is no news");
    rig.edit(|row, _| row.state = AccountState::Broken).await;
    assert_eq!(refresh(&rig.parts, rig.account()).await, Ended::Settled);
    assert_eq!((rig.account().row.state, rig.told()), (AccountState::Active, 1), "it works again");
}

#[tokio::test]
async fn a_refused_refresh_is_told_once_and_given_up() {
    let rig = Rig::start().await;
    *rig.platform.revoked.lock().unwrap() = true;
    assert_eq!(refresh(&rig.parts, rig.account()).await, Ended::Settled);
    let account = rig.account();
    assert_eq!((account.row.state, account.row.state_reason.as_deref()), (AccountState::Broken, Some("refresh_refused: 40105")));
    assert_eq!(channel(ChannelKind::Tiktok).life(&account).due(&account), None, "asking again is of no use");
    assert_eq!(rig.told(), 1);
    assert_eq!(rig.tokens(), both(0));
}

#[tokio::test]
async fn what_is_not_settled_is_tried_again_with_the_same_token() {
    let code = |code: u32| json!({"code": code, "message": "qpm"}).to_string();
    let cases = [
        (200, code(40_100), Ended::Again(Some(Duration::from_secs(300)))),
        (200, code(51_065), Ended::Again(None)),
        (502, String::new(), Ended::Again(None)),
    ];
    let rig = Rig::start().await;
    for (status, body, expected) in cases {
        rig.platform.calls.store(0, Ordering::SeqCst);
        rig.platform.script.lock().unwrap().push((status, body.clone()));
        assert_eq!(refresh(&rig.parts, rig.account()).await, expected, "{status} {body}");
        assert_eq!((rig.tokens(), rig.account().row.state, rig.told()), (both(0), AccountState::Active, 0));
    }
    rig.platform.calls.store(0, Ordering::SeqCst);
    assert_eq!(refresh(&rig.parts, rig.account()).await, Ended::Settled);
    assert_eq!(rig.tokens(), both(1));
}

/// Waits for what must come.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain");
}

#[tokio::test]
async fn an_answer_outlives_whoever_waits_for_it() {
    let rig = Rig::start().await;
    let gate = Arc::new(Notify::new());
    *rig.platform.gate.lock().unwrap() = Some(gate.clone());
    let waiting = tokio::spawn({
        let (parts, account) = (rig.parts.clone(), rig.account());
        async move { refresh(&parts, account).await }
    });
    until(|| rig.platform.calls.load(Ordering::SeqCst) == 1).await;
    // The lease is lost, or the process drains.
    waiting.abort();
    assert!(waiting.await.is_err());
    gate.notify_one();
    until(|| rig.tokens() == both(1)).await;
}

#[tokio::test]
async fn new_tokens_wait_for_a_store_that_is_away() {
    let rig = Rig::start().await;
    let account = rig.account();
    rig.fakes.store.away.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn({
        let (parts, account) = (rig.parts.clone(), account.clone());
        async move { refresh(&parts, account).await }
    });
    until(|| rig.platform.calls.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!waiting.is_finished(), "they exist nowhere else");
    rig.fakes.store.away.store(false, Ordering::SeqCst);
    assert_eq!(waiting.await.unwrap(), Ended::Settled);
    assert_eq!((rig.tokens(), rig.platform.calls.load(Ordering::SeqCst)), (both(1), 1));
}

#[tokio::test]
async fn what_a_person_gave_meanwhile_stays() {
    let rig = Rig::start().await;
    let used = rig.account();
    rig.edit(|_, secrets| {
        for (name, value) in [("access_token", "act.mine"), ("refresh_token", "rft.mine")] {
            secrets.get_mut(name).unwrap().rotate(Secret::new(value), START.plus(Duration::from_secs(1)));
        }
    })
    .await;
    assert_eq!(refresh(&rig.parts, used.clone()).await, Ended::Settled);
    assert_eq!(rig.tokens(), ("act.mine".to_owned(), "rft.mine".to_owned()));
    // A verdict on the old ones says nothing of the new ones.
    assert_eq!(refresh(&rig.parts, used).await, Ended::Settled);
    let account = rig.account();
    assert_eq!((account.row.state, rig.told()), (AccountState::Active, 0));
    assert!(channel(ChannelKind::Tiktok).life(&account).due(&account).is_some(), "not given up");
}

/// The keeper's works of one process, with a directory of its own.
async fn process(rig: &Rig) -> (Connectors, Accounts) {
    let keeper = messaging::keeper::DirectoryKeeper::new(rig.fakes.parts.store.clone(), rig.fakes.parts.keyring.clone());
    keeper.refresh().await.unwrap();
    let parts = options::Parts { keeper, caller: rig.platform.clone(), channels: rig.parts.channels.clone(), ..rig.fakes.parts.clone() };
    (Connectors::start(&parts, &Arc::default()), parts.accounts())
}

/// Lets time pass until it is done, at most an hour.
async fn pass_until(rig: &Rig, done: impl Fn() -> bool) {
    for _ in 0..3_600 {
        if done() {
            return;
        }
        rig.fakes.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

#[tokio::test]
async fn a_hundred_triggers_make_one_call() {
    let rig = Rig::start().await;
    let processes = [process(&rig).await, process(&rig).await, process(&rig).await];
    // A hundred sends of three processes meet a token that is refused.
    let about = Some(rig.account().secrets_set_at());
    let detail = "40105".to_owned();
    let change = StateChange { owner: rig.owner, state: AccountState::Broken, reason: StateReason::Auth, detail, about };
    let trigger = |number: usize| {
        let (accounts, change) = (processes[number % 3].1.clone(), change.clone());
        tokio::spawn(async move { accounts.change_state(&change).await })
    };
    let triggers: Vec<_> = (0..100).map(trigger).collect();
    let (mut stopped, mut beside) = (0, 0);
    for one in triggers {
        // Many at once: some are told that the directory changed too often, and would come again with the next send.
        match one.await.unwrap() {
            Ok(changed) => stopped += usize::from(changed),
            Err(_) => beside += 1,
        }
    }
    assert!(stopped == 1 && beside < 100, "{stopped} {beside}");
    pass_until(&rig, || rig.platform.calls.load(Ordering::SeqCst) > 0).await;
    for _ in 0..60 {
        rig.fakes.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (connectors, accounts) in processes {
        let directory = accounts.reload().await.unwrap();
        let account = directory.account(rig.owner.account).unwrap();
        assert_eq!((account.secret("access_token"), account.row.state), ("act.1", AccountState::Active));
        connectors.stop().await;
    }
    assert_eq!(rig.platform.calls.load(Ordering::SeqCst), 1);
    assert_eq!(rig.told(), 2, "broken, and well again");
}

#[tokio::test]
async fn what_is_due_is_refreshed_and_a_drain_waits_for_it() {
    let rig = Rig::start().await;
    let (connectors, accounts) = process(&rig).await;
    rig.fakes.clock.advance(Duration::from_secs(17 * 3_600));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.platform.calls.load(Ordering::SeqCst), 0, "not due yet");
    rig.platform.script.lock().unwrap().push((200, json!({"code": 51_065, "message": "system"}).to_string()));
    rig.fakes.clock.advance(Duration::from_secs(2 * 3_600));
    pass_until(&rig, || rig.platform.calls.load(Ordering::SeqCst) == 1).await;
    rig.platform.calls.store(0, Ordering::SeqCst);
    let gate = Arc::new(Notify::new());
    *rig.platform.gate.lock().unwrap() = Some(gate.clone());
    for _ in 0..10 {
        rig.fakes.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rig.platform.calls.load(Ordering::SeqCst), 0, "not at once after a failure");
    pass_until(&rig, || rig.platform.calls.load(Ordering::SeqCst) == 1).await;
    let stopping = tokio::spawn(connectors.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stopping.is_finished(), "the answer is on its way");
    gate.notify_one();
    stopping.await.unwrap();
    let directory = accounts.reload().await.unwrap();
    assert_eq!(directory.account(rig.owner.account).unwrap().secret("refresh_token"), "rft.1");
}
