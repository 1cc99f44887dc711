//! Tenants, accounts, endpoints and keys: data in the store, held by every process as one snapshot that is swapped whole.
//!
//! The rows are what is stored (secrets sealed); the snapshot is what is used (secrets open, verifiers prepared).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::channels::{self, ACCESS_TOKEN, ChannelKind, Verifier};
use crate::clock::Timestamp;
use crate::event::{EventFilter, EventType};
use crate::ids::{AccountId, EndpointId, KeyHash, KeyId, TenantId};
use crate::quota::OwnQuotas;
use crate::seal::{DataKey, Sealed, Secret};
use crate::tenant::{Owned, Tenant};

mod credential;
mod shards;
mod snapshot;

pub use credential::{AccountChange, AccountNews, CredentialRow, StateReason};
pub(crate) use shards::Shards;
pub(crate) use snapshot::RowChange;
pub use snapshot::{Counts, Directory, SharedDirectory};

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

/// The row of the limits that one tenant has of its own: beside the tenant's, which holds its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRow {
    /// Whose.
    pub tenant: TenantId,
    /// The limits.
    pub own: OwnQuotas,
}

impl QuotaRow {
    /// The row's key in the store.
    pub fn id_of(tenant: TenantId) -> String {
        format!("quo_{tenant}")
    }
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
    /// Limits of a tenant's own.
    Quotas(QuotaRow),
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
            Self::Quotas(row) => QuotaRow::id_of(row.tenant),
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
