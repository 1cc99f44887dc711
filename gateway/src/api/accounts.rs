//! Channel accounts. Secrets are write-only: reading shows when each was set.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use messaging::accounts::{self, StateChange};
use messaging::channels::{self, AccountField, ChannelKind, Life, REFRESH_TOKEN};
use messaging::clock::Timestamp;
use messaging::directory::{
    Account, AccountRow, AccountState, CredentialRow, Directory, DirectoryRow, SecretPair, StateReason, account_aad,
};
use messaging::exchange::HttpResponse;
use messaging::ids::{AccountId, random10};
use messaging::keeper::Change;
use messaging::quota::Quota;
use messaging::seal::Secret;
use messaging::tenant::Tenant;
use serde_json::{Map, Value, json};

use super::json::{Reader, parse_object};
use super::query::Query;
use super::send::without_secrets;
use super::tenants::NAME_CHARS_MAX;
use super::{Call, cursor, etag};
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

/// Longest value of a field; each field has narrower rules of its own.
const FIELD_CHARS_MAX: usize = 8192;
/// Longest URL, in characters.
pub(super) const URL_CHARS_MAX: usize = 2048;
/// Most of a platform's answer that is shown, in bytes.
const PLATFORM_REPLY_BYTES_MAX: usize = 4096;

fn show(call: &Call<'_>, account: &Account) -> Value {
    let row = &account.row;
    let mut body = json!({
        "id": row.id,
        "channel": row.channel.name(),
        "name": row.name,
        "api_base": row.api_base,
        "state": row.state,
        "state_reason": row.state_reason,
        "hook_url": format!("{}/hooks/{}/{}", call.shared().options.public_url, row.channel.name(), row.id),
        "created_at": row.created_at,
    });
    let life = channels::channel(account.channel).life(account);
    if life != Life::ENDLESS {
        body["credential"] = json!({"expires_at": life.access_until, "refresh_at": life.due(account), "reconnect_by": life.ends_at});
    }
    for (name, value) in &row.public {
        body[name] = value.as_str().into();
    }
    for (name, pair) in &account.secrets {
        body[name] = json!({"set_at": pair.set_at});
    }
    body
}

fn shown(call: &Call<'_>, directory: &Directory, id: AccountId, status: StatusCode) -> Result<Reply, Problem> {
    let account = directory.account_of(call.tenant(), id).ok_or_else(Problem::not_found)?;
    Ok(etag::show(call, status, account.row.revision, &show(call, account)))
}

fn find(directory: &Directory, tenant: Tenant, id: AccountId) -> Result<&Arc<Account>, Problem> {
    directory.account_of(tenant, id).ok_or_else(Problem::not_found)
}

/// `GET /v1/accounts`
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["limit", "cursor"])?;
    let directory = call.directory();
    let all = directory.accounts_of(call.tenant().id()).iter().map(|account| (account.row.id.to_string(), account)).collect();
    cursor::page_of(call, all, query.limit()?, query.get("cursor"), |account| show(call, account))
}

/// `GET /v1/accounts/{id}`
pub(super) fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    shown(call, &call.directory(), call.id()?, StatusCode::OK)
}

/// What a request says of an account's fields. None: take it away.
struct Fields {
    name: Option<String>,
    api_base: Option<Option<String>>,
    public: BTreeMap<String, Option<String>>,
    secrets: BTreeMap<String, Secret>,
}

fn fields<'m>(call: &Call<'_>, reader: &mut Reader<'m>, channel: ChannelKind, map: &'m Map<String, Value>) -> Fields {
    let name = reader.text("name", NAME_CHARS_MAX).map(str::to_owned);
    let api_base = if map.get("api_base") == Some(&Value::Null) {
        reader.value("api_base");
        Some(None)
    } else {
        let text = reader.text("api_base", URL_CHARS_MAX).map(str::to_owned);
        if let Some(text) = &text
            && let Err(why) = (call.shared().parts.is_allowed_url)(text)
        {
            reader.fault("api_base", why);
        }
        text.map(Some)
    };
    let mut fields = Fields { name, api_base, public: BTreeMap::new(), secrets: BTreeMap::new() };
    for field in channels::channel(channel).fields() {
        field_of(reader, field, map, &mut fields);
    }
    fields
}

fn field_of<'m>(reader: &mut Reader<'m>, field: &AccountField, map: &'m Map<String, Value>, fields: &mut Fields) {
    if map.get(field.name) == Some(&Value::Null) && !field.secret && !field.required {
        reader.value(field.name);
        fields.public.insert(field.name.to_owned(), None);
        return;
    }
    let Some(text) = reader.text(field.name, FIELD_CHARS_MAX) else { return };
    if let Err(why) = (field.check)(text) {
        reader.fault(field.name, format!("{why}: it is {}", field.help));
    } else if field.secret {
        fields.secrets.insert(field.name.to_owned(), Secret::new(text));
    } else {
        fields.public.insert(field.name.to_owned(), Some(text.to_owned()));
    }
}

/// `POST /v1/accounts`
pub(super) async fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let map = parse_object(&call.body)?;
    let mut reader = Reader::new(&map, "");
    let channel = channel(call, &mut reader)?;
    reader.require("name");
    for field in channels::channel(channel).fields().iter().filter(|field| field.required && !map.contains_key(field.name)) {
        reader.fault(field.name, format!("is missing: {}", field.help));
    }
    let fields = fields(call, &mut reader, channel, &map);
    reader.finish()?;
    let (id, tenant, key) = (AccountId::draw(call.now, random10()), call.tenant().id(), call.tenant_key()?);
    let secrets: BTreeMap<String, SecretPair> =
        fields.secrets.into_iter().map(|(name, secret)| (name, SecretPair::new(secret, call.now))).collect();
    let row = AccountRow {
        id,
        tenant,
        channel,
        name: fields.name.unwrap_or_default(),
        api_base: fields.api_base.flatten(),
        public: fields.public.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        secrets: key.seal_value(&account_aad(tenant, id), &secrets),
        state: AccountState::Active,
        state_reason: None,
        created_at: call.now,
        revision: 1,
    };
    let directory = call
        .change(|directory| {
            call.one_more(directory, tenant, Quota::Accounts)?;
            Ok(vec![Change::put(DirectoryRow::Account(row.clone()))])
        })
        .await?;
    shown(call, &directory, id, StatusCode::CREATED)
}

/// The channel must be known before anything else can be read.
fn channel(call: &Call<'_>, reader: &mut Reader<'_>) -> Result<ChannelKind, Problem> {
    let names = || call.shared().parts.channels.keys().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let kind = reader.text("channel", NAME_CHARS_MAX).and_then(ChannelKind::from_name);
    kind.filter(|kind| call.shared().parts.channels.contains_key(kind))
        .ok_or_else(|| Problem::fault("/channel", format!("must be one of {}", names())))
}

/// Changes one account, by what `edit` does to its row, its open secrets and what is known of its credential.
async fn edit(
    call: &Call<'_>,
    mut edit: impl FnMut(&mut AccountRow, &mut BTreeMap<String, SecretPair>, &mut CredentialRow),
) -> Result<Reply, Problem> {
    let id: AccountId = call.id()?;
    let tenant = call.tenant();
    let key = call.tenant_key()?;
    let directory = call
        .change(|directory| {
            let account = find(directory, tenant, id)?;
            etag::check(call, account.row.revision)?;
            let (mut row, mut secrets, mut credential) = (account.row.clone(), account.secrets.clone(), account.credential_row());
            edit(&mut row, &mut secrets, &mut credential);
            row.secrets = key.seal_value(&account_aad(tenant.id(), id), &secrets);
            row.revision += 1;
            let mut changes = vec![Change::put(DirectoryRow::Account(row))];
            if credential != account.credential_row() {
                changes.push(Change::put(DirectoryRow::Credential(credential)));
            }
            Ok(changes)
        })
        .await?;
    shown(call, &directory, id, StatusCode::OK)
}

/// `PATCH /v1/accounts/{id}`: a secret is rotated, the one before stays valid beside it. A broken account works again by a new
/// secret, until the platform says otherwise.
pub(super) async fn change(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let map = parse_object(&call.body)?;
    let channel = find(&call.directory(), call.tenant(), call.id()?)?.channel;
    let mut reader = Reader::new(&map, "");
    let fields = fields(call, &mut reader, channel, &map);
    reader.finish()?;
    let now = call.now;
    edit(call, |row, secrets, credential| {
        if let Some(name) = &fields.name {
            row.name.clone_from(name);
        }
        if let Some(base) = &fields.api_base {
            row.api_base.clone_from(base);
        }
        for (name, value) in &fields.public {
            match value {
                Some(value) => drop(row.public.insert(name.clone(), value.clone())),
                None => drop(row.public.remove(name)),
            }
        }
        let rotated: Vec<&str> =
            fields.secrets.iter().filter(|(name, secret)| rotate(secrets, name, secret, now)).map(|(name, _)| name.as_str()).collect();
        let is_another = !rotated.is_empty() || !fields.public.is_empty();
        if (credential.given_up && is_another) || rotated.contains(&REFRESH_TOKEN) {
            credential.forget_ends();
        }
        if !rotated.is_empty() && row.state == AccountState::Broken {
            accounts::set_state(row, credential, AccountState::Active, StateReason::NewCredential, "", now);
        }
    })
    .await
}

/// Says whether the secret is another one now.
fn rotate(secrets: &mut BTreeMap<String, SecretPair>, name: &str, secret: &Secret, now: Timestamp) -> bool {
    match secrets.get_mut(name) {
        // The same value again is no rotation: it would push out the one before.
        Some(pair) if pair.current == *secret => return false,
        Some(pair) => pair.rotate(secret.clone(), now),
        None => drop(secrets.insert(name.to_owned(), SecretPair::new(secret.clone(), now))),
    }
    true
}

/// `DELETE /v1/accounts/{id}`
pub(super) async fn delete(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: AccountId = call.id()?;
    call.change(|directory| {
        etag::check(call, find(directory, call.tenant(), id)?.row.revision)?;
        Ok(vec![Change::Delete(id.to_string()), Change::Delete(CredentialRow::id_of(id))])
    })
    .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST /v1/accounts/{id}/pause` and `/resume`
pub(super) async fn set_state(call: &Call<'_>, state: AccountState) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let now = call.now;
    edit(call, |row, _, credential| {
        // What the tenant does himself is no news; that an account which had stopped goes on is.
        if row.state != state && state == AccountState::Active && row.state != AccountState::Paused {
            accounts::set_state(row, credential, state, StateReason::Resumed, "", now);
        }
        row.state = state;
        row.state_reason = None;
    })
    .await
}

/// `POST /v1/accounts/{id}/revoke-previous`: only the present secrets are valid from now on.
pub(super) async fn revoke_previous(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    edit(call, |_, secrets, _| {
        for pair in secrets.values_mut() {
            pair.previous = None;
        }
    })
    .await
}

/// `POST /v1/accounts/{id}/check`: asks the platform whether the credential works, and sets the account's state by the answer.
pub(super) async fn check(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let account = find(&call.directory(), call.tenant(), call.id()?)?.clone();
    let parts = &call.shared().parts;
    let settings = parts
        .channels
        .get(&account.channel)
        .ok_or_else(|| Problem::new(Code::AccountDisabled, "the account's channel is off on this node"))?;
    let request = channels::channel(account.channel).probe(&account, settings);
    let body = match parts.caller.call(request, settings.timeout).await {
        Ok(response) => {
            note_probe(call, &account, &response).await;
            let is_small = response.body.len() <= PLATFORM_REPLY_BYTES_MAX;
            let text = std::str::from_utf8(&response.body).ok().filter(|_| is_small).map(|text| without_secrets(&account, text));
            let platform: Option<Value> = text.and_then(|text| serde_json::from_str(&text).ok());
            json!({"ok": channels::channel(account.channel).probed(&response), "status": response.status, "platform": platform})
        }
        Err(why) => json!({"ok": false, "status": null, "detail": without_secrets(&account, &why)}),
    };
    Ok(reply::json(StatusCode::OK, &body))
}

/// What the answer to a probe says of the account's state. Nothing is failed by it: the caller asked for the answer, not for that.
async fn note_probe(call: &Call<'_>, account: &Account, response: &HttpResponse) {
    let channel = channels::channel(account.channel);
    if !channel.probes_credential() {
        return;
    }
    let (state, reason, detail) = if channel.probed(response) {
        (AccountState::Active, StateReason::Checked, String::new())
    } else if channel.refuses_credential(response) {
        (AccountState::Broken, StateReason::Auth, format!("http {} to a check", response.status))
    } else {
        return;
    };
    let change = StateChange { owner: account.owner, state, reason, detail, about: Some(account.secrets_set_at()) };
    if let Err(error) = call.shared().accounts.change_state(&change).await {
        tracing::warn!(account = %account.row.id, %error, "the state of an account is not changed");
    }
}
