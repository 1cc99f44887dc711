//! Tenants, accounts, endpoints and keys: data in the store, held by every process as one snapshot that is swapped whole.
//!
//! The rows are what is stored (secrets sealed); the snapshot is what is used (secrets open, verifiers prepared).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::channels::{self, ACCESS_TOKEN, ChannelKind, Verifier};
use crate::clock::Timestamp;
use crate::event::{EventFilter, EventType};
use crate::ids::{AccountId, EndpointId, IdHasher, KeyHash, KeyId, TenantId};
use crate::seal::{DataKey, Keyring, OpenError, Sealed, Secret};
use crate::tenant::{Caller, Owned, Scope, Scopes, Tenant};

mod credential;

pub use credential::{AccountChange, AccountNews, CredentialRow, StateReason};

type Map<K, V> = HashMap<K, V, RandomState>;

/// A tenant's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRow {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its key, wrapped under the KEK.
    pub key: Sealed<[u8; 32]>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Whether an account works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// In use.
    Active,
    /// The tenant paused it: inbound goes on, sends are refused.
    Paused,
    /// The platform refused its credential.
    Broken,
    /// The platform limits or blocked it.
    Blocked,
    /// Most of its webhooks fail the signature: what comes in is refused, sends go on. (Its address is all that a stranger needs for
    /// that, so it must not stop sends.)
    Unverified,
}

impl AccountState {
    /// Whether sends go out.
    pub fn sends(self) -> bool {
        match self {
            Self::Active | Self::Unverified => true,
            Self::Paused | Self::Broken | Self::Blocked => false,
        }
    }
}

/// A secret with the one before, still valid.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecretPair {
    /// The present one.
    pub current: Secret,
    /// The one before the last rotation, until it is revoked.
    pub previous: Option<Secret>,
    /// When the present one was set.
    pub set_at: Timestamp,
}

impl SecretPair {
    /// A first secret.
    pub fn new(secret: Secret, now: Timestamp) -> Self {
        Self { current: secret, previous: None, set_at: now }
    }
    /// Puts a new one in front; the present one stays valid.
    pub fn rotate(&mut self, secret: Secret, now: Timestamp) {
        self.previous = Some(std::mem::replace(&mut self.current, secret));
        self.set_at = now;
    }
    /// The present one and the one before.
    pub fn both(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.current).chain(self.previous.as_ref())
    }
}

/// An account's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Its id.
    pub id: AccountId,
    /// Its owner.
    pub tenant: TenantId,
    /// Its channel.
    pub channel: ChannelKind,
    /// Its name.
    pub name: String,
    /// Another address of the platform (proxies, simulators).
    pub api_base: Option<String>,
    /// What is no secret, by the channel's field names.
    pub public: BTreeMap<String, String>,
    /// What is, sealed with the tenant's key.
    pub secrets: Sealed<BTreeMap<String, SecretPair>>,
    /// Whether it works.
    pub state: AccountState,
    /// Why, when it does not.
    pub state_reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes: the strong ETag.
    pub revision: u64,
}

/// Whether an endpoint takes deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// In use.
    Active,
    /// Paused by the tenant: deliveries wait.
    Paused,
    /// Answered 410, or failed for too long: deliveries are not made any more.
    Disabled,
}

/// An endpoint's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Its id.
    pub id: EndpointId,
    /// Its owner.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// Where deliveries go.
    pub url: String,
    /// Which events.
    pub events: EventFilter,
    /// Of which accounts; empty means all.
    pub accounts: Vec<AccountId>,
    /// Headers added to each delivery, sealed (they may hold credentials).
    pub headers: Sealed<BTreeMap<String, Secret>>,
    /// Signing secrets (`whsec_…`), sealed.
    pub secret: Sealed<SecretPair>,
    /// Most deliveries a second; 0 means no limit.
    pub rate_per_second: u32,
    /// How long an attempt may take, in milliseconds; 0 means the node's default.
    pub timeout_ms: u64,
    /// Whether it takes deliveries.
    pub state: EndpointState,
    /// Why it does not.
    pub state_reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes: the strong ETag.
    pub revision: u64,
}

/// A key's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// Its owner.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// What is stored of the secret.
    pub hash: KeyHash,
    /// What it may do, by name.
    pub scopes: Vec<String>,
    /// Not valid after this.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A row of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryRow {
    /// A tenant.
    Tenant(TenantRow),
    /// An account.
    Account(AccountRow),
    /// An endpoint.
    Endpoint(EndpointRow),
    /// A key.
    Key(KeyRow),
    /// What is known of an account's credential.
    Credential(CredentialRow),
}

impl DirectoryRow {
    /// The text form of its id: the row's key in the store.
    pub fn id(&self) -> String {
        match self {
            Self::Tenant(row) => row.id.to_string(),
            Self::Account(row) => row.id.to_string(),
            Self::Endpoint(row) => row.id.to_string(),
            Self::Key(row) => row.id.to_string(),
            Self::Credential(row) => CredentialRow::id_of(row.account),
        }
    }
}

/// Associated data of an account's secrets.
pub fn account_aad(tenant: TenantId, account: AccountId) -> Vec<u8> {
    [b"account.secrets".as_slice(), &tenant.0, &account.0].concat()
}
/// Associated data of an endpoint's secret or headers.
pub fn endpoint_aad(tenant: TenantId, endpoint: EndpointId, field: &str) -> Vec<u8> {
    [b"endpoint.".as_slice(), field.as_bytes(), &tenant.0, &endpoint.0].concat()
}
/// Associated data of a tenant's wrapped key.
pub fn tenant_aad(tenant: TenantId) -> Vec<u8> {
    [b"tenant.key".as_slice(), &tenant.0].concat()
}

/// A tenant, ready for use.
#[derive(Debug)]
pub struct TenantEntry {
    /// Its row.
    pub row: TenantRow,
    /// Its key.
    pub key: DataKey,
}

/// An account, ready for use.
#[derive(Debug)]
pub struct Account {
    /// Whose it is, and its id.
    pub owner: Owned,
    /// Its channel.
    pub channel: ChannelKind,
    /// Its row.
    pub row: AccountRow,
    /// Its secrets by the channel's field names.
    pub secrets: BTreeMap<String, SecretPair>,
    /// Prepared for the channel's verification.
    pub verifier: Verifier,
    /// What is known of its credential, when anything is.
    pub credential: Option<CredentialRow>,
}

impl Account {
    /// A public field, or empty.
    pub fn public(&self, field: &str) -> &str {
        self.row.public.get(field).map_or("", String::as_str)
    }
    /// The platform's own id of it, where the channel has one.
    pub fn identity(&self) -> Option<&str> {
        let name = channels::channel(self.channel).identity()?;
        Some(self.public(name)).filter(|id| !id.is_empty())
    }
    /// The platform's own id of what it belongs to, where the channel has that and the account says it.
    pub fn group(&self) -> Option<&str> {
        let name = channels::channel(self.channel).group()?;
        Some(self.public(name)).filter(|id| !id.is_empty())
    }
    /// The present value of a secret, or empty.
    pub fn secret(&self, field: &str) -> &str {
        self.secrets.get(field).map_or("", |pair| pair.current.expose())
    }
    /// When the access token was set; the epoch where there is none.
    pub fn token_set_at(&self) -> Timestamp {
        self.secrets.get(ACCESS_TOKEN).map_or(Timestamp::ZERO, |pair| pair.set_at)
    }
    /// When the newest of its secrets was set: tells whether a verdict on a call is about the credential of today.
    pub fn secrets_set_at(&self) -> Timestamp {
        self.secrets.values().map(|pair| pair.set_at).max().unwrap_or_default()
    }
    /// What the platform said of the ends of the present access token, when it did.
    pub fn known(&self) -> Option<&CredentialRow> {
        self.credential.as_ref().filter(|row| row.of != Timestamp::ZERO && row.of == self.token_set_at())
    }
    /// Its credential's row, to be changed.
    pub fn credential_row(&self) -> CredentialRow {
        self.credential.clone().unwrap_or_else(|| CredentialRow::unknown(self.row.tenant, self.row.id))
    }
}

/// An endpoint, ready for use.
#[derive(Debug)]
pub struct Endpoint {
    /// Whose it is.
    pub tenant: Tenant,
    /// Its row.
    pub row: EndpointRow,
    /// Its signing secrets.
    pub secret: SecretPair,
    /// Headers added to each delivery.
    pub headers: BTreeMap<String, Secret>,
}

impl Endpoint {
    /// Whether it wants an event of this type on this account.
    pub fn wants(&self, kind: EventType, account: AccountId) -> bool {
        self.row.events.takes(kind) && (self.row.accounts.is_empty() || self.row.accounts.contains(&account))
    }
}

/// One snapshot of the directory.
#[derive(Debug, Default)]
pub struct Directory {
    /// The version that it shows.
    pub version: u64,
    tenants: Map<TenantId, Arc<TenantEntry>>,
    accounts: Map<AccountId, Arc<Account>>,
    by_identity: Map<(ChannelKind, String), Vec<Arc<Account>>>,
    endpoints: Map<EndpointId, Arc<Endpoint>>,
    by_tenant: Map<TenantId, Vec<Arc<Endpoint>>>,
    keys: Map<KeyHash, KeyRow>,
}

impl Directory {
    /// Opens the rows. A row that does not open is left out and named: one damaged row does not take the rest down.
    pub fn build(version: u64, rows: Vec<DirectoryRow>, keyring: &Keyring) -> (Self, Vec<String>) {
        let mut directory = Self { version, ..Self::default() };
        let mut broken = Vec::new();
        let mut credentials = Map::default();
        let (mut tenants, mut rest) = (Vec::new(), Vec::with_capacity(rows.len()));
        for row in rows {
            match row {
                DirectoryRow::Tenant(_) => tenants.push(row),
                DirectoryRow::Credential(row) => drop(credentials.insert(row.account, row)),
                DirectoryRow::Account(_) | DirectoryRow::Endpoint(_) | DirectoryRow::Key(_) => rest.push(row),
            }
        }
        for row in tenants.into_iter().chain(rest) {
            let id = row.id();
            if directory.insert(row, &mut credentials, keyring).is_err() {
                broken.push(id);
            }
        }
        for list in directory.by_tenant.values_mut() {
            list.sort_by_key(|endpoint| endpoint.row.id);
        }
        for list in directory.by_identity.values_mut() {
            list.sort_by_key(|account| account.row.id);
        }
        (directory, broken)
    }

    fn insert(&mut self, row: DirectoryRow, credentials: &mut Map<AccountId, CredentialRow>, keyring: &Keyring) -> Result<(), OpenError> {
        match row {
            // Goes with its account; that of an account that is gone goes with nobody.
            DirectoryRow::Credential(row) => drop(credentials.insert(row.account, row)),
            DirectoryRow::Tenant(row) => {
                let key = DataKey::from_bytes(keyring.kek().open_value(&tenant_aad(row.id), row.key.as_bytes())?);
                self.tenants.insert(row.id, Arc::new(TenantEntry { row, key }));
            }
            DirectoryRow::Account(row) => {
                let key = &self.tenants.get(&row.tenant).ok_or(OpenError)?.key;
                let secrets: BTreeMap<String, SecretPair> = key.open_value(&account_aad(row.tenant, row.id), row.secrets.as_bytes())?;
                let verifier = channels::channel(row.channel).verifier(&row.public, &secrets);
                let owner = Owned { tenant: Tenant::verified(row.tenant), account: row.id };
                let credential = credentials.remove(&row.id).filter(|credential| credential.tenant == row.tenant);
                let account = Account { owner, channel: row.channel, secrets, verifier, credential, row };
                let account = Arc::new(account);
                if let Some(name) = account.identity() {
                    self.by_identity.entry((account.channel, name.to_owned())).or_default().push(account.clone());
                }
                self.accounts.insert(account.row.id, account);
            }
            DirectoryRow::Endpoint(row) => {
                let key = &self.tenants.get(&row.tenant).ok_or(OpenError)?.key;
                let secret = key.open_value(&endpoint_aad(row.tenant, row.id, "secret"), row.secret.as_bytes())?;
                let headers = key.open_value(&endpoint_aad(row.tenant, row.id, "headers"), row.headers.as_bytes())?;
                let endpoint = Arc::new(Endpoint { tenant: Tenant::verified(row.tenant), secret, headers, row });
                self.by_tenant.entry(endpoint.row.tenant).or_default().push(endpoint.clone());
                self.endpoints.insert(endpoint.row.id, endpoint);
            }
            DirectoryRow::Key(row) => {
                self.tenants.get(&row.tenant).ok_or(OpenError)?;
                self.keys.insert(row.hash, row);
            }
        }
        Ok(())
    }

    /// Who a presented key belongs to.
    pub fn authenticate(&self, presented: &str, ids: &IdHasher, now: Timestamp) -> Option<Caller> {
        let row = self.keys.get(&ids.api_key(presented))?;
        if row.expires_at.is_some_and(|until| now >= until) {
            return None;
        }
        let scopes = Scopes::of(row.scopes.iter().filter_map(|name| Scope::from_name(name)));
        Some(Caller { tenant: Tenant::verified(row.tenant), key: row.id, scopes })
    }

    /// The account of a webhook path. The tenant that comes with it may be used once the request is verified.
    pub fn account(&self, id: AccountId) -> Option<&Arc<Account>> {
        self.accounts.get(&id)
    }

    /// The accounts that the platform knows under this id, in a fixed order. Several tenants may have connected the same one:
    /// whoever asks proves for each that the request is authentic by that account's secrets.
    pub fn accounts_by_identity(&self, channel: ChannelKind, identity: &str) -> &[Arc<Account>] {
        self.by_identity.get(&(channel, identity.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// An account, only if it is this tenant's.
    pub fn account_of(&self, tenant: Tenant, id: AccountId) -> Option<&Arc<Account>> {
        self.accounts.get(&id).filter(|account| account.owner.tenant == tenant)
    }

    /// An endpoint, only if it is this tenant's.
    pub fn endpoint_of(&self, tenant: Tenant, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id).filter(|endpoint| endpoint.tenant == tenant)
    }

    /// An endpoint by id, for lanes (the tenant was checked when the delivery was planned).
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }

    /// The tenant's endpoints, in a fixed order.
    pub fn endpoints_of(&self, tenant: Tenant) -> &[Arc<Endpoint>] {
        self.by_tenant.get(&tenant.id()).map_or(&[], Vec::as_slice)
    }

    /// The tenant's key.
    pub fn tenant_key(&self, tenant: Tenant) -> Option<&DataKey> {
        self.tenants.get(&tenant.id()).map(|entry| &entry.key)
    }

    /// The tenant's row.
    pub fn tenant(&self, tenant: TenantId) -> Option<&TenantRow> {
        self.tenants.get(&tenant).map(|entry| &entry.row)
    }

    /// The context of a tenant that exists, for an administrator who acts for it.
    pub fn act_for(&self, caller: &Caller, tenant: TenantId) -> Option<Tenant> {
        let exists = self.tenants.contains_key(&tenant);
        (exists && caller.scopes.contains(Scope::Admin)).then(|| Tenant::verified(tenant))
    }

    /// The context of a tenant named in a row of a shard's own tables (`later`, intents): written by us for a verified one.
    pub fn tenant_of_row(&self, tenant: TenantId) -> Option<Tenant> {
        self.tenants.contains_key(&tenant).then(|| Tenant::verified(tenant))
    }

    /// All tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantRow> {
        self.tenants.values().map(|entry| &entry.row)
    }
    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }
    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }
    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &KeyRow> {
        self.keys.values()
    }
}

/// The snapshot that a process uses, swapped whole. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SharedDirectory(Arc<ArcSwap<Directory>>);

impl SharedDirectory {
    /// The present snapshot. Do not hold it across a wait.
    pub fn load(&self) -> arc_swap::Guard<Arc<Directory>> {
        self.0.load()
    }
    /// The present snapshot, to be kept.
    pub fn load_full(&self) -> Arc<Directory> {
        self.0.load_full()
    }
    /// Puts a newer one in its place. An older one is left out: who read first may come last.
    pub fn swap(&self, directory: Directory) {
        let directory = Arc::new(directory);
        self.0.rcu(|present| if directory.version >= present.version { directory.clone() } else { present.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_goes_forward_only() {
        let keyring = Keyring::from_root(&[7; 32]);
        let shared = SharedDirectory::default();
        for (version, holds) in [(3, 3), (2, 3), (3, 3), (4, 4), (1, 4)] {
            shared.swap(Directory::build(version, Vec::new(), &keyring).0);
            assert_eq!(shared.load().version, holds, "after version {version} was read");
        }
    }
}
