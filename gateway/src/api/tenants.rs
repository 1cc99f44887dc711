//! Tenants: for administrators only.

use std::collections::BTreeMap;

use http::StatusCode;
use messaging::clock::Timestamp;
use messaging::directory::{Directory, DirectoryRow, KeyRow, QuotaRow, TenantRow, tenant_aad};
use messaging::ids::{KeyId, TenantId, random10};
use messaging::keeper::Change;
use messaging::quota::{OwnQuotas, Quota};
use messaging::seal::{DataKey, Keyring, Secret};
use messaging::tenant::{Scope, Tenant};
use serde::Serialize;
use serde_json::{Value, json};

use super::json::{Reader, parse_object};
use super::query::Query;
use super::quotas::Usage;
use super::{Call, cursor, quotas, token};
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

/// A tenant as it is shown. What is in `quotas` can be sent back.
#[derive(Serialize)]
struct Shown<'d> {
    id: TenantId,
    name: &'d str,
    created_at: Timestamp,
    /// Its own limits, those only.
    quotas: OwnQuotas,
    /// Every limit that holds for it, and what of it is used.
    usage: BTreeMap<Quota, Usage>,
}

fn show(call: &Call<'_>, directory: &Directory, row: &TenantRow) -> Value {
    let shown = Shown {
        id: row.id,
        name: &row.name,
        created_at: row.created_at,
        quotas: directory.quotas_of(row.id).cloned().unwrap_or_default(),
        usage: call.usage(directory, row.id),
    };
    serde_json::to_value(shown).expect("our own types serialise")
}

/// What a tenant is given.
struct Members {
    name: Option<String>,
    quotas: Vec<(Quota, Option<u32>)>,
}

fn members(call: &Call<'_>, required: &[&'static str]) -> Result<Members, Problem> {
    let map = parse_object(&call.body)?;
    let mut reader = Reader::new(&map, "");
    required.iter().for_each(|name| reader.require(name));
    let members = Members { name: reader.text("name", NAME_CHARS_MAX).map(str::to_owned), quotas: quotas::own(&mut reader) };
    reader.finish()?;
    Ok(members)
}

/// The row of a tenant's own limits after a change; none: it stays as it is.
fn quota_row(directory: &Directory, tenant: TenantId, change: &[(Quota, Option<u32>)]) -> Option<Change> {
    let before = directory.quotas_of(tenant);
    let own = quotas::changed(before, change);
    if before.map_or(own.is_empty(), |before| *before == own) {
        return None;
    }
    let is_gone = own.is_empty();
    Some(if is_gone { Change::Delete(QuotaRow::id_of(tenant)) } else { Change::put(DirectoryRow::Quotas(QuotaRow { tenant, own })) })
}

/// `GET /v1/tenants`
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["limit", "cursor"])?;
    let directory = call.directory();
    let all = directory.tenants().map(|row| (row.id.to_string(), row)).collect();
    cursor::page_of(call, all, query.limit()?, query.get("cursor"), |row| show(call, &directory, row))
}

/// `POST /v1/tenants`: a new tenant comes with its first key, which may do everything but administer.
pub(super) async fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let members = members(call, &["name"])?;
    let scopes = Scope::ALL.into_iter().filter(|scope| *scope != Scope::Admin);
    let newcomer = Newcomer::draw(&members.name.unwrap_or_default(), scopes, &call.shared().parts.keyring, call.now);
    let directory = call
        .change(|directory| {
            let quotas = quota_row(directory, newcomer.tenant.id, &members.quotas);
            Ok(newcomer.changes().into_iter().chain(quotas).collect())
        })
        .await?;
    let mut body = show(call, &directory, &newcomer.tenant);
    body["key"] = newcomer.secret.expose().into();
    body["key_id"] = json!(newcomer.key.id);
    Ok(reply::json(StatusCode::CREATED, &body))
}

/// `GET /v1/tenants/{id}`
pub(super) fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let directory = call.directory();
    let row = directory.tenant(call.id()?).ok_or_else(Problem::not_found)?;
    Ok(reply::json(StatusCode::OK, &show(call, &directory, row)))
}

/// `PATCH /v1/tenants/{id}`: what is left out stays as it is; a quota that is null goes back to the configured one.
pub(super) async fn change(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: TenantId = call.id()?;
    let members = members(call, &[])?;
    let directory = call
        .change(|directory| {
            let row = directory.tenant(id).ok_or_else(Problem::not_found)?;
            let renamed = members.name.clone().map(|name| Change::put(DirectoryRow::Tenant(TenantRow { name, ..row.clone() })));
            Ok(renamed.into_iter().chain(quota_row(directory, id, &members.quotas)).collect())
        })
        .await?;
    let row = directory.tenant(id).ok_or_else(Problem::not_found)?;
    Ok(reply::json(StatusCode::OK, &show(call, &directory, row)))
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
    let quotas = directory.quotas_of(tenant.id()).map(|_| QuotaRow::id_of(tenant.id()));
    keys.chain(accounts).chain(endpoints).chain(quotas).chain([tenant.id().to_string()]).map(Change::Delete).collect()
}
