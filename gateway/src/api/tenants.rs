//! Tenants: for administrators only.

use http::StatusCode;
use messaging::clock::Timestamp;
use messaging::directory::{Directory, DirectoryRow, KeyRow, TenantRow, tenant_aad};
use messaging::ids::{KeyId, TenantId, random10};
use messaging::keeper::Change;
use messaging::seal::{DataKey, Keyring, Secret};
use messaging::tenant::{Scope, Tenant};
use serde_json::{Value, json};

use super::json::{Reader, parse_object};
use super::query::Query;
use super::{Call, cursor, token};
use crate::problem::Problem;
use crate::reply::{self, Reply};

/// Longest name of anything in the directory, in characters.
pub(super) const NAME_CHARS_MAX: usize = 200;

/// A new tenant's rows, and the secret of its first key.
pub(crate) struct Newcomer {
    pub(crate) tenant: TenantRow,
    pub(crate) key: KeyRow,
    pub(crate) secret: Secret,
}

impl Newcomer {
    /// Draws a tenant with a key of its own and a first API key.
    pub(crate) fn draw(name: &str, scopes: impl IntoIterator<Item = Scope>, keyring: &Keyring, now: Timestamp) -> Self {
        let id = TenantId::draw(now, random10());
        let sealed = keyring.kek().seal_value(&tenant_aad(id), DataKey::generate().expose());
        let tenant = TenantRow { id, name: name.to_owned(), key: sealed, created_at: now };
        let secret = token::new_key();
        let key = KeyRow {
            id: KeyId::draw(now, random10()),
            tenant: id,
            name: "first key".to_owned(),
            hash: keyring.ids().api_key(secret.expose()),
            scopes: scopes.into_iter().map(|scope| scope.name().to_owned()).collect(),
            expires_at: None,
            created_at: now,
        };
        Self { tenant, key, secret }
    }

    /// What puts them into the directory.
    pub(crate) fn changes(&self) -> Vec<Change> {
        vec![Change::put(DirectoryRow::Tenant(self.tenant.clone())), Change::put(DirectoryRow::Key(self.key.clone()))]
    }
}

fn show(row: &TenantRow) -> Value {
    json!({"id": row.id, "name": row.name, "created_at": row.created_at})
}

fn name(call: &Call<'_>) -> Result<String, Problem> {
    let map = parse_object(&call.body)?;
    let mut reader = Reader::new(&map, "");
    reader.require("name");
    let name = reader.text("name", NAME_CHARS_MAX).map(str::to_owned);
    reader.finish()?;
    name.ok_or_else(|| Problem::fault("/name", "is missing"))
}

/// `GET /v1/tenants`
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["limit", "cursor"])?;
    let directory = call.directory();
    let all = directory.tenants().map(|row| (row.id.to_string(), row)).collect();
    cursor::page_of(call, all, query.limit()?, query.get("cursor"), |row| show(row))
}

/// `POST /v1/tenants`: a new tenant comes with its first key, which may do everything but administer.
pub(super) async fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let name = name(call)?;
    let scopes = Scope::ALL.into_iter().filter(|scope| *scope != Scope::Admin);
    let newcomer = Newcomer::draw(&name, scopes, &call.shared().parts.keyring, call.now);
    call.change(|_| Ok(newcomer.changes())).await?;
    let mut body = show(&newcomer.tenant);
    body["key"] = newcomer.secret.expose().into();
    body["key_id"] = json!(newcomer.key.id);
    Ok(reply::json(StatusCode::CREATED, &body))
}

/// `GET /v1/tenants/{id}`
pub(super) fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let directory = call.directory();
    let row = directory.tenant(call.id()?).ok_or_else(Problem::not_found)?;
    Ok(reply::json(StatusCode::OK, &show(row)))
}

/// `PATCH /v1/tenants/{id}`
pub(super) async fn change(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: TenantId = call.id()?;
    let name = name(call)?;
    let directory = call
        .change(|directory| {
            let row = directory.tenant(id).ok_or_else(Problem::not_found)?;
            Ok(vec![Change::put(DirectoryRow::Tenant(TenantRow { name: name.clone(), ..row.clone() }))])
        })
        .await?;
    Ok(reply::json(StatusCode::OK, &show(directory.tenant(id).ok_or_else(Problem::not_found)?)))
}

/// `DELETE /v1/tenants/{id}`: with everything that it owns in the directory. Its key goes, so what is stored opens no more.
pub(super) async fn delete(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: TenantId = call.id()?;
    call.change(|directory| {
        let tenant = directory.act_for(&call.caller, id).ok_or_else(Problem::not_found)?;
        if directory.keys_of(id).iter().any(|key| key.id == call.caller.key) {
            return Err(Problem::fault("", "this is the tenant of the key that asks: it would lock itself out"));
        }
        Ok(owned_rows(directory, tenant))
    })
    .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn owned_rows(directory: &Directory, tenant: Tenant) -> Vec<Change> {
    let keys = directory.keys_of(tenant.id()).iter().map(|row| row.id.to_string());
    let accounts = directory.accounts_of(tenant.id()).iter().map(|account| account.row.id.to_string());
    let endpoints = directory.endpoints_of(tenant).iter().map(|endpoint| endpoint.row.id.to_string());
    keys.chain(accounts).chain(endpoints).chain([tenant.id().to_string()]).map(Change::Delete).collect()
}
