//! The test bench of the router.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use messaging::channels::ChannelKind;
use messaging::clock::{Clock, ManualClock, SystemClock, Timestamp};
use messaging::content::{Content, Handle};
use messaging::directory::*;
use messaging::exchange::WebhookRequest;
use messaging::ids::*;
use messaging::keeper::{Change, DirectoryKeeper};
use messaging::log::*;
use messaging::outcome::Status;
use messaging::outlook::Outlook;
use messaging::record::{Command, Record, SendCommand};
use messaging::seal::{Keyring, Secret};
use messaging::state::{Conversation, MessageRow, Pointer, Quarantined};
use messaging::store::{Key, Scan, Store};
use messaging::tenant::{Owned, Tenant};

mod log;
mod make;
mod neighbour;
mod server;

pub use log::MemLog;
use log::PARTITIONS;
use make::{open, rows, run};
pub use server::Server;
#[allow(unused_imports, reason = "each test uses its part")]
pub use server::{Answer, Delivery};

/// What the platform calls the account.
pub const ACCOUNT_ID: &str = "106540352242922";
pub const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Waits before the attempts of a delivery.
const SCHEDULE: [Duration; 4] = [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(300), Duration::from_secs(1800)];

pub struct Rig {
    pub kind: ChannelKind,
    pub clock: Arc<ManualClock>,
    pub inbox: Arc<Server>,
    pub platform: Arc<Server>,
    pub keeper: DirectoryKeeper,
    /// The account is taken away while its webhooks are on their way, and put back when they are parked.
    pub account_goes: bool,
    pub store: Arc<dyn Store>,
    pub keyring: Keyring,
    pub log: Arc<MemLog>,
    pub tenant: Tenant,
    pub account: AccountId,
    pub endpoint: EndpointId,
    /// What stands before a send.
    pub outlook: Arc<Outlook>,
    pub fleet: Arc<router::fleet::Fleet>,
    faults: router::faults::Faults,
    schedule: Vec<Duration>,
    router: router::Router,
    runtime: Option<tokio::runtime::Runtime>,
    dir: tempfile::TempDir,
    next_message: std::sync::atomic::AtomicU64,
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_on(ChannelKind::Whatsapp).await
    }

    /// With an account of this channel (WhatsApp, Messenger or Instagram).
    pub async fn start_on(kind: ChannelKind) -> Self {
        Self::start_over(kind, |store| store).await
    }

    /// With planted panics.
    pub async fn start_with(faults: router::faults::Faults) -> Self {
        Self::start_all(ChannelKind::Whatsapp, |store| store, faults, &SCHEDULE).await
    }

    /// With other waits between the attempts of a delivery.
    pub async fn start_scheduled(schedule: &[Duration]) -> Self {
        Self::start_all(ChannelKind::Whatsapp, |store| store, router::faults::Faults::default(), schedule).await
    }

    /// The same, over what `wrap` makes of the store.
    pub async fn start_over(kind: ChannelKind, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self::start_all(kind, wrap, router::faults::Faults::default(), &SCHEDULE).await
    }

    async fn start_all(
        kind: ChannelKind,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
        faults: router::faults::Faults,
        schedule: &[Duration],
    ) -> Self {
        let schedule = schedule.to_vec();
        let fleet = Arc::default();
        let clock = ManualClock::at(SystemClock::default().now());
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::from_root(&[7; 32]);
        let log = MemLog::new(clock.clone());
        let inbox = Server::start(|_| String::new()).await;
        let platform = Server::start(move |n| match kind {
            ChannelKind::Whatsapp => format!(r#"{{"messaging_product":"whatsapp","contacts":[],"messages":[{{"id":"wamid.{n}"}}]}}"#),
            _ => format!(r#"{{"recipient_id":"42","message_id":"m_{n}"}}"#),
        })
        .await;
        let store = wrap(open(&dir, &clock));
        let keeper = DirectoryKeeper::new(store.clone(), keyring.clone());
        let tenant_id = TenantId([1; 16]);
        let (account, endpoint) = (AccountId([2; 16]), EndpointId([3; 16]));
        let rows = rows(kind, &keyring, (tenant_id, account, endpoint), &platform.url, &inbox.url, clock.now());
        keeper.change::<()>(|_| Ok(rows.iter().cloned().map(Change::put).collect())).await.unwrap();
        let (router, runtime, outlook) =
            run(&log, &store, &keeper, &keyring, &clock, &dir.path().join("media"), &faults, &fleet, &schedule);
        Self {
            outlook,
            schedule,
            fleet,
            faults,
            kind,
            tenant: Tenant::for_tests(tenant_id),
            clock,
            inbox,
            platform,
            keeper,
            account_goes: false,
            store,
            keyring,
            log,
            account,
            endpoint,
            router,
            runtime: Some(runtime),
            dir,
            next_message: std::sync::atomic::AtomicU64::new(1),
        }
    }

    /// Adds an account of the tenant; `public` are its members, all its secrets are `secret`.
    pub async fn add_account(&self, id: AccountId, channel: ChannelKind, public: &[(&str, &str)], secrets: &[(&str, &str)]) {
        let (tenant, now) = (self.tenant.id(), self.clock.now());
        let directory = self.keeper.shared().load_full();
        let key = directory.tenant_key(self.tenant).unwrap();
        let pair = |value: &str| SecretPair::new(Secret::new(value), now);
        let secrets: BTreeMap<String, SecretPair> = secrets.iter().map(|(name, value)| ((*name).to_owned(), pair(value))).collect();
        let row = AccountRow {
            id,
            tenant,
            channel,
            name: channel.name().into(),
            api_base: None,
            public: public.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            secrets: messaging::seal::Sealed::from_stored(key.seal_value(&account_aad(tenant, id), &secrets).into_bytes()),
            state: AccountState::Active,
            state_reason: None,
            created_at: now,
            revision: 1,
        };
        self.keeper.change::<()>(|_| Ok(vec![Change::put(DirectoryRow::Account(row.clone()))])).await.unwrap();
    }

    /// Adds an endpoint of the tenant that takes everything.
    pub async fn add_endpoint(&self, id: EndpointId, url: String, state: EndpointState) {
        let directory = self.keeper.shared().load_full();
        let key = directory.tenant_key(self.tenant).unwrap();
        let row = make::endpoint(key, (self.tenant.id(), id), url, state, self.clock.now());
        self.keeper.change::<()>(|_| Ok(vec![Change::put(DirectoryRow::Endpoint(row.clone()))])).await.unwrap();
    }

    /// From here on this side is another process: the router learns of its changes by the store only.
    pub async fn change_elsewhere(&mut self) {
        self.keeper = DirectoryKeeper::new(self.store.clone(), self.keyring.clone());
        self.keeper.refresh().await.unwrap();
    }

    /// Puts the pieces of an authentic webhook of an account onto the log.
    pub async fn hook(&self, id: AccountId, headers: &[(&str, &str)], body: impl Into<Bytes>) {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            map.insert(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        let (body, directory) = (body.into(), self.keeper.shared().load_full());
        let account = directory.account(id).unwrap().clone();
        let request = WebhookRequest { is_post: true, query: "", headers: &map, body: &body, now: self.clock.now(), fetched: None };
        let received = messaging::channels::channel(account.channel).receive(&request, &account.verifier).unwrap();
        let messaging::channels::Received::Pieces(pieces) = received else { panic!("no pieces") };
        for piece in pieces {
            let conversation = self.keyring.ids().conversation(self.tenant.id(), id, piece.handle().expose());
            let record = Record::inbound(account.owner, account.channel, conversation, &piece, self.clock.now());
            self.append(record, Topic::Inbound).await;
        }
    }

    /// Sends through an account.
    pub async fn send_from(
        &self,
        id: AccountId,
        channel: ChannelKind,
        to: &Handle,
        content: Content,
        reply_to: Option<MessageId>,
    ) -> MessageId {
        let n = self.next_message.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let message = self.keyring.ids().keyed_message(self.tenant.id(), &n.to_string());
        let send = SendCommand { reply_to, ..SendCommand::plain(message, to.clone(), content) };
        let conversation = self.keyring.ids().conversation(self.tenant.id(), id, to.expose());
        let owned = Owned { tenant: self.tenant, account: id };
        let record = Record::command(owned, channel, conversation, &Command::Send(Box::new(send)), self.clock.now());
        self.append(record, Topic::Outbound).await;
        message
    }

    pub async fn stop(mut self) {
        self.router.stop().await;
        self.runtime.take().unwrap().shutdown_background();
        self.store.close().await;
    }

    /// Long enough for what should not happen to have happened.
    pub async fn quiet(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    pub async fn until(&self, done: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("waited in vain");
    }

    /// The tenant resumes its endpoint.
    pub async fn resume_endpoint(&self) {
        let mut row = self.keeper.shared().load().endpoint(self.endpoint).unwrap().row.clone();
        row.state = EndpointState::Active;
        row.revision += 1;
        self.keeper.change::<()>(|_| Ok(vec![Change::put(DirectoryRow::Endpoint(row.clone()))])).await.unwrap();
    }

    pub fn endpoint_disabled(&self) -> bool {
        let directory = self.keeper.shared().load();
        directory.endpoint(self.endpoint).is_some_and(|endpoint| endpoint.row.state == EndpointState::Disabled)
    }

    fn owned(&self) -> Owned {
        Owned { tenant: self.tenant, account: self.account }
    }

    pub fn conversation(&self, handle: &Handle) -> ConversationId {
        self.keyring.ids().conversation(self.tenant.id(), self.account, handle.expose())
    }

    /// The dead letters' reasons.
    pub async fn dead_letters(&self) -> Vec<String> {
        let found = self.store.scan(Scan::Quarantine(Some(self.tenant.id()), None), 100).await.unwrap();
        found.iter().map(|(_, row)| postcard::from_bytes::<Quarantined>(row).unwrap().reason).collect()
    }

    /// Waits for the first dead letter.
    pub async fn until_dead_letters(&self) {
        for _ in 0..500 {
            if self.parked().await > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no dead letter");
    }

    /// Records in quarantine.
    pub async fn parked(&self) -> usize {
        self.store.scan(Scan::Quarantine(Some(self.tenant.id()), None), 100).await.unwrap().len()
    }

    pub async fn until_linked(&self, handle: Handle) {
        let id = self.conversation(&handle);
        for _ in 0..500 {
            let bytes = self.store.read(vec![Key::Conversation(self.tenant.id(), id)]).await.unwrap().pop().flatten();
            let directory = self.keeper.shared().load_full();
            let key = directory.tenant_key(self.tenant).unwrap();
            if bytes.is_some_and(|bytes| Conversation::open(self.tenant.id(), id, key, &bytes).unwrap().alias_of.is_some()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never linked");
    }

    /// A webhook as Meta would send it, through the real channel, onto the log.
    pub async fn webhook(&self, body: String) {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(APP_SECRET.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = format!("sha256={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()));
        let mut headers = http::HeaderMap::new();
        headers.insert("x-hub-signature-256", signature.parse().unwrap());
        let body = Bytes::from(body);
        let directory = self.keeper.shared().load_full();
        let account = directory.account(self.account).unwrap().clone();
        let request = WebhookRequest { is_post: true, query: "", headers: &headers, body: &body, now: Timestamp::ZERO, fetched: None };
        let received = messaging::channels::channel(self.kind).receive(&request, &account.verifier).unwrap();
        let messaging::channels::Received::Pieces(pieces) = received else { panic!("no handshake") };
        if self.account_goes {
            self.keeper.change::<()>(|_| Ok(vec![Change::Delete(self.account.to_string())])).await.unwrap();
        }
        for piece in pieces {
            let conversation = self.conversation(piece.handle());
            let record = Record::inbound(self.owned(), self.kind, conversation, &piece, self.clock.now());
            self.append(record, Topic::Inbound).await;
        }
        if self.account_goes {
            self.until_parked(1).await;
            self.keeper.change::<()>(|_| Ok(vec![Change::put(DirectoryRow::Account(account.row.clone()))])).await.unwrap();
        }
    }

    /// Lets everything that is parked in again, as an operator does.
    pub async fn requeue_all(&self) {
        for (_, row) in self.store.scan(Scan::Quarantine(Some(self.tenant.id()), None), 100).await.unwrap() {
            let row: Quarantined = postcard::from_bytes(&row).unwrap();
            let record = Record::decode(&row.record, self.keyring.log()).unwrap().requeued_at(self.clock.now());
            let topic = record.topic();
            self.append(record, topic).await;
        }
    }

    pub async fn until_parked(&self, count: usize) {
        for _ in 0..500 {
            if self.parked().await == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} are parked, not {count}", self.parked().await);
    }

    /// News of the account, as whoever changes it puts them on the log.
    pub async fn news(&self, number: u64, change: AccountChange) {
        let command = Command::Account { news: AccountNews { number, at: self.clock.now(), change } };
        let conversation = self.conversation(&Handle::account());
        self.append(Record::command(self.owned(), self.kind, conversation, &command, self.clock.now()), Topic::Outbound).await;
    }

    pub fn account_state(&self) -> AccountState {
        self.keeper.shared().load().account(self.account).unwrap().row.state
    }

    /// A person gives the account a secret, as the API does it.
    pub async fn reconnect(&self, field: &str, value: &str) {
        let now = self.clock.now();
        let change = |directory: &messaging::directory::Directory| {
            let account = directory.account(self.account).unwrap();
            let (mut row, mut secrets, key) = (account.row.clone(), account.secrets.clone(), directory.tenant_key(self.tenant).unwrap());
            secrets.get_mut(field).unwrap().rotate(Secret::new(value), now);
            row.secrets = key.seal_value(&account_aad(row.tenant, row.id), &secrets);
            row.state = AccountState::Active;
            Ok(vec![Change::put(DirectoryRow::Account(row))])
        };
        self.keeper.change::<()>(change).await.unwrap();
    }

    async fn append(&self, record: Record, topic: Topic) {
        let new = record.to_new(topic, PARTITIONS, self.keyring.log());
        assert!(self.log.append(vec![new]).await[0].is_ok());
    }

    pub async fn customer_writes(&self, phone: &str, text: &str, n: u64) {
        self.customer_writes_as(Some(phone), None, text, n).await;
    }

    pub async fn customer_writes_as(&self, phone: Option<&str>, bsuid: Option<&str>, text: &str, n: u64) {
        let at = self.clock.now().as_secs() + n;
        let mut contact = serde_json::json!({"profile": {"name": "Test"}});
        let id = format!("wamid.in{n}");
        let mut message = serde_json::json!({"id": id, "timestamp": at.to_string(), "type": "text", "text": {"body": text}});
        if let Some(phone) = phone {
            contact["wa_id"] = phone.into();
            message["from"] = phone.into();
        }
        if let Some(bsuid) = bsuid {
            contact["user_id"] = bsuid.into();
            message["from_user_id"] = bsuid.into();
        }
        self.webhook(envelope(serde_json::json!({"contacts": [contact], "messages": [message]}))).await;
    }

    pub async fn status(&self, platform_id: &str, phone: &str, status: &str, callback: Option<MessageId>) {
        let at = self.clock.now().as_secs().to_string();
        let mut one = serde_json::json!({"id": platform_id, "status": status, "timestamp": at, "recipient_id": phone});
        if let Some(message) = callback {
            one["biz_opaque_callback_data"] = message.to_string().into();
        }
        self.webhook(envelope(serde_json::json!({"statuses": [one]}))).await;
    }

    pub async fn send(&self, phone: &str, content: Content) -> MessageId {
        self.send_with(phone, content, |_| {}).await
    }

    pub async fn send_with(&self, phone: &str, content: Content, edit: impl Fn(&mut SendCommand)) -> MessageId {
        let n = self.next_message.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let message = self.keyring.ids().keyed_message(self.tenant.id(), &n.to_string());
        let to = match self.kind {
            ChannelKind::Messenger => Handle::new("psid", phone),
            ChannelKind::Instagram => Handle::new("igsid", phone),
            _ => Handle::phone(phone),
        };
        let mut send = SendCommand::plain(message, to.clone(), content);
        edit(&mut send);
        let (to, topic) = (send.to.clone(), send.class.topic());
        let command = Command::Send(Box::new(send));
        let conversation = self.conversation(&to);
        let record = Record::command(self.owned(), self.kind, conversation, &command, self.clock.now());
        self.append(record, topic).await;
        message
    }

    pub async fn status_of(&self, message: MessageId) -> Status {
        let tenant = self.tenant.id();
        let pointer = self.store.read(vec![Key::Pointer(tenant, message.0)]).await.unwrap().pop().flatten().expect("a pointer");
        let (conversation, at, id) = Pointer::decode(&pointer).unwrap().message.unwrap();
        let row = self.store.read(vec![Key::Message(tenant, conversation, at, id)]).await.unwrap().pop().flatten().expect("a row");
        let directory = self.keeper.shared().load_full();
        let key = directory.tenant_key(self.tenant).unwrap();
        MessageRow::decode(&row).unwrap().open_meta(tenant, id, key).unwrap().status
    }

    /// Judged by the public library, not by our own code. (Its clock is the system's, so the rig's begins there.)
    pub fn verify(&self, delivery: &Delivery) {
        let hook = standardwebhooks::Webhook::new(WEBHOOK_SECRET).unwrap();
        let mut headers = http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, delivery.headers[name].parse().unwrap());
        }
        hook.verify(delivery.raw.as_bytes(), &headers).expect("the public library takes the signature");
    }
}

fn envelope(mut value: serde_json::Value) -> String {
    value["messaging_product"] = "whatsapp".into();
    value["metadata"] = serde_json::json!({"display_phone_number": "15550783881", "phone_number_id": "106540352242922"});
    serde_json::json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"value": value, "field": "messages"}]}]})
        .to_string()
}
