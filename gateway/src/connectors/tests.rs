//! Works of accounts: one process does each, under its lease.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use messaging::BoxFuture;
use messaging::channels::ChannelKind;
use messaging::clock::{Clock, ManualClock, Timestamp};
use messaging::directory::{Account, AccountRow, AccountState, DirectoryRow, SecretPair, TenantRow, account_aad, tenant_aad};
use messaging::ids::{AccountId, TenantId};
use messaging::keeper::{Change, DirectoryKeeper};
use messaging::seal::{DataKey, Secret};
use messaging::store::{Store, StoreError, Work};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::job::{Job, Over, Worker};
use super::keeper;
use super::slot::TTL;
use crate::options::Parts;
use crate::testing::{Fakes, Faulty, fakes};

const TENANT: TenantId = TenantId([1; 16]);
const ACCOUNT: AccountId = AccountId([2; 16]);
/// How far the clock moves at a time.
const STEP: Duration = Duration::from_millis(250);

/// How a work behaves once it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Works until it is told to stop.
    Good,
    /// Does not hear.
    Deaf,
    Again,
    Stuck,
    Panic,
}

/// What happened, in order: when, in which process, what.
type Story = Arc<Mutex<Vec<(Duration, String)>>>;

/// A work that only says what happens to it.
struct Teller {
    process: &'static str,
    manner: Manner,
    story: Story,
    clock: Arc<ManualClock>,
}

impl Teller {
    fn say(&self, what: &str) {
        self.story.lock().unwrap().push((self.clock.monotonic(), format!("{} {what}", self.process)));
    }
}

/// Says when the work is gone, however it went.
struct Gone<'a>(&'a Teller);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.say("ends");
    }
}

impl Worker for Teller {
    fn work(&self) -> Work {
        Work::Pull
    }
    fn wants(&self, account: &Account) -> bool {
        account.row.state == AccountState::Active
    }
    fn run(&self, mut job: Job) -> BoxFuture<'_, Over> {
        Box::pin(async move {
            let last = String::from_utf8_lossy(job.note.last()).into_owned();
            self.say(&format!("begins with {}{}", job.account.public("word"), last));
            let _gone = Gone(self);
            let kept = job.note.keep(format!(" after {}", self.process).into_bytes()).await;
            assert!(kept.is_ok(), "{kept:?}");
            match self.manner {
                Manner::Good => job.stop.told().await,
                Manner::Deaf => std::future::pending().await,
                Manner::Again => {}
                Manner::Stuck => return Over::Stuck,
                Manner::Panic => panic!("planted"),
            }
            // Nothing is written once the lease may be another's.
            if let Err(error) = job.note.keep(format!(" after {}", self.process).into_bytes()).await {
                assert!(matches!(error, StoreError::Unheld | StoreError::Unavailable(_)), "{error}");
            }
            Over::Again
        })
    }
}

/// A process with a keeper.
struct Process {
    name: &'static str,
    store: Arc<Faulty>,
    directory: DirectoryKeeper,
    stop: watch::Sender<bool>,
    keeper: JoinHandle<()>,
}

struct World {
    fakes: Fakes,
    key: DataKey,
    story: Story,
    processes: Vec<Process>,
}

impl World {
    async fn new() -> Self {
        let world = Self { fakes: fakes(), key: DataKey::generate(), story: Story::default(), processes: Vec::new() };
        let own_key = world.fakes.parts.keyring.kek().seal_value(&tenant_aad(TENANT), world.key.expose());
        let tenant = TenantRow { id: TENANT, name: "t".into(), key: own_key, created_at: Timestamp::ZERO };
        world.change(Some(DirectoryRow::Tenant(tenant))).await;
        world
    }

    /// Puts a row of the directory, or takes the account out.
    async fn change(&self, row: Option<DirectoryRow>) {
        let change = row.map_or_else(|| Change::Delete(ACCOUNT.to_string()), Change::put);
        self.fakes.parts.keeper.change(|_| Ok::<_, ()>(vec![change.clone()])).await.unwrap();
        for process in &self.processes {
            process.directory.refresh().await.unwrap();
        }
    }

    /// Puts the account.
    async fn account(&self, revision: u64, name: &str, word: &str, secret: &str, state: AccountState) {
        let secrets: BTreeMap<String, SecretPair> =
            [("app_secret".to_owned(), SecretPair::new(Secret::new(secret), Timestamp::ZERO))].into();
        let row = AccountRow {
            id: ACCOUNT,
            tenant: TENANT,
            channel: ChannelKind::Whatsapp,
            name: name.to_owned(),
            api_base: None,
            public: [("word".to_owned(), word.to_owned())].into(),
            secrets: self.key.seal_value(&account_aad(TENANT, ACCOUNT), &secrets),
            state,
            state_reason: None,
            created_at: Timestamp::ZERO,
            revision,
        };
        self.change(Some(DirectoryRow::Account(row))).await;
    }

    async fn start(&mut self, name: &'static str, manner: Manner) {
        let base: Arc<dyn Store> = self.fakes.store.clone();
        let store = Faulty::over(base);
        let as_store: Arc<dyn Store> = store.clone();
        let directory = DirectoryKeeper::new(as_store.clone(), self.fakes.parts.keyring.clone());
        directory.refresh().await.unwrap();
        let parts = Parts { store: as_store, keeper: directory.clone(), ..self.fakes.parts.clone() };
        let worker = Teller { process: name, manner, story: self.story.clone(), clock: self.fakes.clock.clone() };
        let (stop, stopped) = watch::channel(false);
        let keeper = tokio::spawn(keeper::run(parts, vec![Arc::new(worker)], stopped));
        self.processes.push(Process { name, store, directory, stop, keeper });
        self.settle().await;
    }

    fn process(&self, name: &str) -> &Process {
        self.processes.iter().find(|process| process.name == name).unwrap()
    }

    /// As power loss: nothing is given back.
    async fn kill(&mut self, name: &str) {
        let at = self.processes.iter().position(|process| process.name == name).unwrap();
        let process = self.processes.remove(at);
        process.keeper.abort();
        let _ = process.keeper.await;
        self.settle().await;
    }

    /// As a drain does.
    async fn stop(&mut self, name: &str) {
        let at = self.processes.iter().position(|process| process.name == name).unwrap();
        let process = self.processes.remove(at);
        process.stop.send_replace(true);
        while !process.keeper.is_finished() {
            self.pass(STEP).await;
        }
        process.keeper.await.unwrap();
    }

    /// Lets everybody run who can without the clock.
    async fn settle(&self) {
        for _ in 0..2 {
            loop {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                if self.fakes.store.is_idle() {
                    break;
                }
                // The store's own threads work.
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
    }

    /// Lets time pass.
    async fn pass(&self, span: Duration) {
        let end = self.fakes.clock.monotonic() + span;
        while self.fakes.clock.monotonic() < end {
            self.fakes.clock.advance(STEP);
            self.settle().await;
        }
    }

    async fn secs(&self, secs: u64) {
        self.pass(Duration::from_secs(secs)).await;
    }

    fn told(&self) -> Vec<String> {
        self.story.lock().unwrap().iter().map(|(_, line)| line.clone()).collect()
    }

    /// When a line was said last.
    fn when(&self, line: &str) -> Duration {
        self.story.lock().unwrap().iter().rev().find(|(_, said)| said == line).unwrap_or_else(|| panic!("{line}: {:?}", self.told())).0
    }
}

/// A world with the account and processes of these manners.
async fn world(processes: &[(&'static str, Manner)]) -> World {
    let mut world = World::new().await;
    world.account(1, "shop", "x", "s", AccountState::Active).await;
    for (name, manner) in processes {
        world.start(name, *manner).await;
    }
    world
}

#[tokio::test]
async fn one_of_two_processes_works_and_the_other_follows() {
    let mut world = world(&[("a", Manner::Good), ("b", Manner::Good)]).await;
    world.secs(300).await;
    assert_eq!(world.told(), ["a begins with x"], "and goes on");
    let stopped = world.fakes.clock.monotonic();
    world.stop("a").await;
    world.secs(15).await;
    assert_eq!(world.told(), ["a begins with x", "a ends", "b begins with x after a"]);
    assert!(world.when("b begins with x after a") - stopped <= Duration::from_secs(11), "the lease was given back");
    let killed = world.fakes.clock.monotonic();
    world.kill("b").await;
    world.start("c", Manner::Good).await;
    world.secs(45).await;
    let waited = world.when("c begins with x after b") - killed;
    assert!(waited > TTL / 2 && waited <= TTL + Duration::from_secs(10), "{waited:?}: after the lease of who died");
}

#[tokio::test]
async fn who_cannot_renew_stops_before_another_begins() {
    for (manner, limit) in [(Manner::Good, TTL * 2 / 3), (Manner::Deaf, TTL - TTL / 10)] {
        let mut world = world(&[("a", manner), ("b", Manner::Good)]).await;
        world.secs(60).await;
        let cut_off = world.fakes.clock.monotonic();
        world.process("a").store.away.store(true, Ordering::SeqCst);
        world.secs(60).await;
        assert_eq!(world.told(), ["a begins with x", "a ends", "b begins with x after a"], "{manner:?}");
        let (ends, begins) = (world.when("a ends"), world.when("b begins with x after a"));
        assert!(ends - cut_off <= limit, "{manner:?}: {:?}", ends - cut_off);
        assert!(ends < begins && begins - cut_off <= TTL + Duration::from_secs(11), "{manner:?}: {ends:?} {begins:?}");
        // It comes back, and finds that another works.
        world.process("a").store.away.store(false, Ordering::SeqCst);
        world.secs(120).await;
        assert_eq!(world.told().len(), 3, "{manner:?}: {:?}", world.told());
        world.stop("b").await;
        world.secs(75).await;
        assert_eq!(world.told()[4..], ["a begins with x after b"], "{manner:?}");
    }
}

#[tokio::test]
async fn a_change_of_the_members_begins_anew_and_no_other() {
    let world = world(&[("a", Manner::Good)]).await;
    type Row = (&'static str, &'static str, &'static str, AccountState, &'static [&'static str]);
    let rows: [Row; 6] = [
        ("renamed", "x", "s", AccountState::Active, &[]),
        ("renamed", "y", "s", AccountState::Active, &["a ends", "a begins with y after a"]),
        ("renamed", "y", "t", AccountState::Active, &["a ends", "a begins with y after a"]),
        ("renamed", "y", "t", AccountState::Broken, &["a ends"]),
        ("again", "y", "t", AccountState::Broken, &[]),
        ("again", "y", "t", AccountState::Active, &["a begins with y after a"]),
    ];
    for (revision, (name, word, secret, state, expected)) in (2..).zip(rows) {
        let before = world.told().len();
        world.account(revision, name, word, secret, state).await;
        world.secs(2).await;
        assert_eq!(world.told()[before..], *expected, "{name} {word} {secret} {state:?}");
    }
    world.change(None).await;
    world.secs(2).await;
    assert_eq!(world.told().last().unwrap(), "a ends", "the account is gone");
}

#[tokio::test]
async fn what_cannot_go_on_waits_for_a_person() {
    let mut world = world(&[("a", Manner::Stuck), ("b", Manner::Stuck)]).await;
    world.secs(600).await;
    assert_eq!(world.told(), ["a begins with x", "a ends"], "and no other process tries in vain");
    world.account(2, "somebody looked at it", "x", "s", AccountState::Active).await;
    world.secs(2).await;
    assert_eq!(world.told()[2..], ["a begins with x after a", "a ends"]);
    world.stop("a").await;
    world.secs(15).await;
    assert_eq!(world.told()[4..], ["b begins with x after a", "b ends"]);
}

#[tokio::test]
async fn what_ends_again_and_again_is_begun_less_and_less() {
    for (manner, most) in [(Manner::Again, 30), (Manner::Panic, 20)] {
        let world = world(&[("a", manner)]).await;
        world.secs(600).await;
        let runs = world.told().len() / 2;
        assert!((5..=most).contains(&runs), "{manner:?}: {runs} runs in ten minutes");
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_not_asked_without_end() {
    let mut world = World::new().await;
    world.account(1, "shop", "x", "s", AccountState::Active).await;
    world.start("a", Manner::Good).await;
    world.secs(30).await;
    let store = world.process("a").store.clone();
    store.away.store(true, Ordering::SeqCst);
    let before = store.calls.load(Ordering::SeqCst);
    world.secs(600).await;
    let calls = store.calls.load(Ordering::SeqCst) - before;
    assert!(calls <= 45, "{calls} calls in ten minutes");
    store.away.store(false, Ordering::SeqCst);
    world.secs(70).await;
    assert_eq!(world.told().last().unwrap(), "a begins with x after a");
}
