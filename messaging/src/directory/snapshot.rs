//! The directory as it is used. A new snapshot shares all that did not change with the one before, so that a change costs what it
//! changes and not what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    Account, CredentialRow, DirectoryRow, Endpoint, KeyRow, QuotaRow, SecretPair, Shards, TenantEntry, TenantRow, account_aad,
    endpoint_aad, tenant_aad,
};
use crate::channels::{self, ChannelKind};
use crate::clock::Timestamp;
use crate::ids::{AccountId, EndpointId, IdHasher, KeyHash, TenantId};
use crate::quota::OwnQuotas;
use crate::seal::{DataKey, Keyring, OpenError};
use crate::tenant::{Caller, Owned, Scope, Scopes, Tenant};

/// A row before and after a change; none: it was or is not there.
#[derive(Debug)]
pub(crate) struct RowChange {
    pub(crate) old: Option<DirectoryRow>,
    pub(crate) new: Option<DirectoryRow>,
}

/// What a tenant has.
#[derive(Debug, Clone, Default)]
struct Belongings {
    /// Each list in the order of ids.
    accounts: Vec<Arc<Account>>,
    endpoints: Vec<Arc<Endpoint>>,
    keys: Vec<Arc<KeyRow>>,
}

/// How much a tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Accounts.
    pub accounts: usize,
    /// Endpoints.
    pub endpoints: usize,
    /// Keys, those that have ended included.
    pub keys: usize,
}

/// One snapshot of the directory.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// The version that it shows.
    pub version: u64,
    tenants: Shards<TenantId, Arc<TenantEntry>>,
    accounts: Shards<AccountId, Arc<Account>>,
    credentials: Shards<AccountId, Arc<CredentialRow>>,
    by_identity: Shards<(ChannelKind, String), Vec<Arc<Account>>>,
    endpoints: Shards<EndpointId, Arc<Endpoint>>,
    by_tenant: Shards<TenantId, Arc<Belongings>>,
    keys: Shards<KeyHash, Arc<KeyRow>>,
    quotas: Shards<TenantId, Arc<QuotaRow>>,
    /// Rows that do not open, by id.
    broken: BTreeSet<String>,
}

impl Directory {
    /// Opens the rows. A row that does not open is left out and named: one damaged row does not take the rest down.
    pub fn build(version: u64, rows: Vec<DirectoryRow>, keyring: &Keyring) -> (Self, Vec<String>) {
        let changes = rows.into_iter().map(|row| RowChange { old: None, new: Some(row) }).collect();
        Self::default().changed(version, changes, keyring)
    }

    /// Whether what these changes touch reaches further than their own rows: then the directory is built anew from all rows.
    pub(crate) fn needs_building(&self, changes: &[RowChange]) -> bool {
        let tenant = |row: &Option<DirectoryRow>| match row {
            Some(DirectoryRow::Tenant(row)) => Some(row.key.clone()),
            Some(
                DirectoryRow::Account(_)
                | DirectoryRow::Endpoint(_)
                | DirectoryRow::Key(_)
                | DirectoryRow::Credential(_)
                | DirectoryRow::Quotas(_),
            )
            | None => None,
        };
        changes.iter().any(|change| match (tenant(&change.old), tenant(&change.new)) {
            // What it owns opens as before.
            (Some(old), Some(new)) => old != new,
            (Some(_), None) => true,
            // What was left out may be its own.
            (None, Some(_)) => !self.broken.is_empty(),
            (None, None) => false,
        })
    }

    /// The directory after some changes, and which of the changed rows do not open.
    pub(crate) fn changed(&self, version: u64, mut changes: Vec<RowChange>, keyring: &Keyring) -> (Self, Vec<String>) {
        let mut next = Self { version, ..self.clone() };
        let mut broken = Vec::new();
        // What others need to open goes first.
        changes.sort_by_key(|change| match change.new.as_ref().or(change.old.as_ref()) {
            Some(DirectoryRow::Tenant(_)) => 0,
            Some(DirectoryRow::Credential(_)) => 1,
            Some(DirectoryRow::Account(_) | DirectoryRow::Endpoint(_) | DirectoryRow::Key(_) | DirectoryRow::Quotas(_)) | None => 2,
        });
        let mut told = BTreeSet::new();
        for RowChange { old, new } in changes {
            if let Some(old) = old {
                next.broken.remove(&old.id());
                next.remove(&old, &mut told);
            }
            let Some(new) = new else { continue };
            let id = new.id();
            if next.insert(new, keyring, &mut told).is_err() {
                next.broken.insert(id.clone());
                broken.push(id);
            }
        }
        for account in told {
            next.renew(account);
        }
        (next, broken)
    }

    fn remove(&mut self, row: &DirectoryRow, told: &mut BTreeSet<AccountId>) {
        match row {
            DirectoryRow::Tenant(row) => drop(self.tenants.remove(&row.id)),
            DirectoryRow::Credential(row) => {
                self.credentials.remove(&row.account);
                told.insert(row.account);
            }
            DirectoryRow::Account(row) => {
                let Some(account) = self.accounts.remove(&row.id) else { return };
                take(&mut self.belongings(row.tenant).accounts, |account| account.row.id == row.id);
                let Some(name) = account.identity() else { return };
                let key = (account.channel, name.to_owned());
                let left = self.by_identity.entry(key.clone());
                take(left, |account| account.row.id == row.id);
                if left.is_empty() {
                    self.by_identity.remove(&key);
                }
            }
            DirectoryRow::Endpoint(row) => {
                self.endpoints.remove(&row.id);
                take(&mut self.belongings(row.tenant).endpoints, |endpoint| endpoint.row.id == row.id);
            }
            DirectoryRow::Key(row) => {
                self.keys.remove(&row.hash);
                take(&mut self.belongings(row.tenant).keys, |key| key.id == row.id);
            }
            DirectoryRow::Quotas(row) => drop(self.quotas.remove(&row.tenant)),
        }
    }

    fn insert(&mut self, row: DirectoryRow, keyring: &Keyring, told: &mut BTreeSet<AccountId>) -> Result<(), OpenError> {
        match row {
            // Goes with its account; that of an account that is gone goes with nobody.
            DirectoryRow::Credential(row) => {
                told.insert(row.account);
                self.credentials.insert(row.account, Arc::new(row));
            }
            DirectoryRow::Tenant(row) => {
                let key = DataKey::from_bytes(keyring.kek().open_value(&tenant_aad(row.id), row.key.as_bytes())?);
                self.tenants.insert(row.id, Arc::new(TenantEntry { row, key }));
            }
            DirectoryRow::Account(row) => {
                let key = &self.tenants.get(&row.tenant).ok_or(OpenError)?.key;
                let secrets: BTreeMap<String, SecretPair> = key.open_value(&account_aad(row.tenant, row.id), row.secrets.as_bytes())?;
                let verifier = channels::channel(row.channel).verifier(&row.public, &secrets);
                let owner = Owned { tenant: Tenant::verified(row.tenant), account: row.id };
                told.remove(&row.id);
                let credential = self.credential_of(row.tenant, row.id);
                self.place(Account { owner, channel: row.channel, secrets, verifier, credential, row });
            }
            DirectoryRow::Endpoint(row) => {
                let key = &self.tenants.get(&row.tenant).ok_or(OpenError)?.key;
                let secret = key.open_value(&endpoint_aad(row.tenant, row.id, "secret"), row.secret.as_bytes())?;
                let headers = key.open_value(&endpoint_aad(row.tenant, row.id, "headers"), row.headers.as_bytes())?;
                let endpoint = Arc::new(Endpoint { tenant: Tenant::verified(row.tenant), secret, headers, row });
                put(&mut self.belongings(endpoint.row.tenant).endpoints, &endpoint, |endpoint| endpoint.row.id);
                self.endpoints.insert(endpoint.row.id, endpoint);
            }
            DirectoryRow::Key(row) => {
                self.tenants.get(&row.tenant).ok_or(OpenError)?;
                let row = Arc::new(row);
                put(&mut self.belongings(row.tenant).keys, &row, |key| key.id);
                self.keys.insert(row.hash, row);
            }
            DirectoryRow::Quotas(row) => drop(self.quotas.insert(row.tenant, Arc::new(row))),
        }
        Ok(())
    }

    fn credential_of(&self, tenant: TenantId, account: AccountId) -> Option<CredentialRow> {
        self.credentials.get(&account).filter(|credential| credential.tenant == tenant).map(|credential| CredentialRow::clone(credential))
    }

    fn place(&mut self, account: Account) {
        let account = Arc::new(account);
        if let Some(name) = account.identity() {
            put(self.by_identity.entry((account.channel, name.to_owned())), &account, |account| account.row.id);
        }
        put(&mut self.belongings(account.row.tenant).accounts, &account, |account| account.row.id);
        self.accounts.insert(account.row.id, account);
    }

    /// Gives an account that is as it was what is known of its credential now.
    fn renew(&mut self, id: AccountId) {
        let Some(account) = self.accounts.get(&id) else { return };
        let (row, credential) = (account.row.clone(), self.credential_of(account.row.tenant, id));
        let secrets = account.secrets.clone();
        let verifier = channels::channel(row.channel).verifier(&row.public, &secrets);
        self.place(Account { owner: account.owner, channel: row.channel, secrets, verifier, credential, row });
    }

    fn belongings(&mut self, tenant: TenantId) -> &mut Belongings {
        Arc::make_mut(self.by_tenant.entry(tenant))
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

    /// The tenant's accounts, in a fixed order.
    pub fn accounts_of(&self, tenant: TenantId) -> &[Arc<Account>] {
        self.by_tenant.get(&tenant).map_or(&[], |has| has.accounts.as_slice())
    }

    /// The tenant's endpoints, in a fixed order.
    pub fn endpoints_of(&self, tenant: Tenant) -> &[Arc<Endpoint>] {
        self.by_tenant.get(&tenant.id()).map_or(&[], |has| has.endpoints.as_slice())
    }

    /// The tenant's API keys, in a fixed order.
    pub fn keys_of(&self, tenant: TenantId) -> &[Arc<KeyRow>] {
        self.by_tenant.get(&tenant).map_or(&[], |has| has.keys.as_slice())
    }

    /// How much a tenant has, without a look at any of it.
    pub fn counts_of(&self, tenant: TenantId) -> Counts {
        let has = self.by_tenant.get(&tenant);
        let count = |of: fn(&Belongings) -> usize| has.map_or(0, |has| of(has));
        Counts { accounts: count(|has| has.accounts.len()), endpoints: count(|has| has.endpoints.len()), keys: count(|has| has.keys.len()) }
    }

    /// The limits that a tenant has of its own.
    pub fn quotas_of(&self, tenant: TenantId) -> Option<&OwnQuotas> {
        self.quotas.get(&tenant).map(|row| &row.own)
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
        let exists = self.tenants.get(&tenant).is_some();
        (exists && caller.scopes.contains(Scope::Admin)).then(|| Tenant::verified(tenant))
    }

    /// The context of a tenant named in a row of a shard's own tables (`later`, intents): written by us for a verified one.
    pub fn tenant_of_row(&self, tenant: TenantId) -> Option<Tenant> {
        self.tenants.get(&tenant).map(|_| Tenant::verified(tenant))
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
        self.keys.values().map(|row| &**row)
    }
}

/// Puts an entry in its place of a list in order.
fn put<T, K: Ord>(list: &mut Vec<Arc<T>>, entry: &Arc<T>, key: impl Fn(&T) -> K) {
    match list.binary_search_by_key(&key(entry), |other| key(other)) {
        Ok(place) => list[place] = entry.clone(),
        Err(place) => list.insert(place, entry.clone()),
    }
}

fn take<T>(list: &mut Vec<Arc<T>>, is_it: impl Fn(&T) -> bool) {
    list.retain(|entry| !is_it(entry));
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
    /// Puts a new one in its place. For the keeper, which lets it go forward only.
    pub(crate) fn swap(&self, directory: Arc<Directory>) {
        self.0.store(directory);
    }
}
