//! API keys. Only a hash is stored; the secret is shown once.

use http::StatusCode;
use messaging::directory::{DirectoryRow, KeyRow};
use messaging::ids::{KeyId, TenantId, random10};
use messaging::keeper::Change;
use messaging::quota::Quota;
use messaging::tenant::Scope;
use serde_json::{Value, json};

use super::json::{Reader, parse_object};
use super::query::Query;
use super::tenants::NAME_CHARS_MAX;
use super::{Call, cursor, token};
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

fn show(row: &KeyRow) -> Value {
    json!({
        "id": row.id,
        "tenant": row.tenant,
        "name": row.name,
        "scopes": row.scopes,
        "expires_at": row.expires_at,
        "created_at": row.created_at,
    })
}

/// `GET /v1/keys`
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["limit", "cursor"])?;
    let directory = call.directory();
    let all = directory.keys_of(call.tenant().id()).iter().map(|row| (row.id.to_string(), row)).collect();
    cursor::page_of(call, all, query.limit()?, query.get("cursor"), |row| show(row))
}

/// `POST /v1/keys`
pub(super) async fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let map = parse_object(&call.body)?;
    let mut reader = Reader::new(&map, "");
    reader.require("name");
    reader.require("scopes");
    let for_tenant: Option<TenantId> = reader.id("tenant", TenantId::PREFIX);
    let name = reader.text("name", NAME_CHARS_MAX).unwrap_or_default().to_owned();
    let names = reader.texts("scopes", Scope::ALL.len()).unwrap_or_default();
    let expires_at = reader.time("expires_at");
    if reader.has("scopes") && names.is_empty() {
        reader.fault("scopes", "is to name at least one scope");
    }
    for (index, name) in names.iter().enumerate().filter(|(_, name)| Scope::from_name(name).is_none()) {
        reader.fault("scopes", format!("entry {index}, {name:?}, names no scope"));
    }
    if expires_at.is_some_and(|at| at <= call.now) {
        reader.fault("expires_at", "has passed already");
    }
    reader.finish()?;
    // A key cannot make a key that may do more than itself.
    if let Some(beyond) = names.iter().filter_map(|name| Scope::from_name(name)).find(|scope| !call.caller.scopes.contains(*scope)) {
        return Err(Problem::new(Code::Forbidden, format!("this key does not have the scope {}", beyond.name())));
    }
    let tenant = owner(call, for_tenant)?;
    let secret = token::new_key();
    let row = KeyRow {
        id: KeyId::draw(call.now, random10()),
        tenant,
        name,
        hash: call.shared().parts.keyring.ids().api_key(secret.expose()),
        scopes: names,
        expires_at,
        created_at: call.now,
    };
    call.change(|directory| {
        call.one_more(directory, tenant, Quota::Keys)?;
        Ok(vec![Change::put(DirectoryRow::Key(row.clone()))])
    })
    .await?;
    let mut body = show(&row);
    body["key"] = secret.expose().into();
    Ok(reply::json(StatusCode::CREATED, &body))
}

fn owner(call: &Call<'_>, asked: Option<TenantId>) -> Result<TenantId, Problem> {
    let Some(asked) = asked.filter(|asked| *asked != call.tenant().id()) else { return Ok(call.tenant().id()) };
    if !call.is_admin() {
        return Err(Problem::new(Code::Forbidden, "a key for another tenant needs the scope admin"));
    }
    let exists = call.directory().tenant(asked).is_some();
    if exists { Ok(asked) } else { Err(Problem::fault("/tenant", "there is no tenant with this id")) }
}

/// `DELETE /v1/keys/{id}`: it is refused from the next look at the directory on.
pub(super) async fn delete(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: KeyId = call.id()?;
    let tenant = call.tenant().id();
    call.change(|directory| {
        let is_ours = directory.keys_of(tenant).iter().any(|row| row.id == id);
        if is_ours { Ok(vec![Change::Delete(id.to_string())]) } else { Err(Problem::not_found()) }
    })
    .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
