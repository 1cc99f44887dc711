//! Subscriber endpoints. The signing secret is shown when it is made and after a rotation, never again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use messaging::clock::Timestamp;
use messaging::directory::{Directory, DirectoryRow, Endpoint, EndpointRow, EndpointState, SecretPair, endpoint_aad};
use messaging::event::{Event, EventFilter, EventType};
use messaging::exchange::HttpRequest;
use messaging::ids::{AccountId, EndpointId, EventId, random10};
use messaging::keeper::Change;
use messaging::quota::Quota;
use messaging::seal::Secret;
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::accounts::URL_CHARS_MAX;
use super::json::{Reader, parse_object, pointer};
use super::query::Query;
use super::tenants::NAME_CHARS_MAX;
use super::{Call, cursor, etag, span, token};
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

/// Entries of an endpoint's filter.
const EVENTS_MAX: usize = 64;
/// Accounts that an endpoint names.
const ACCOUNTS_MAX: usize = 500;
/// Headers that an endpoint adds.
const HEADERS_MAX: usize = 16;
/// Longest value of an added header, in characters.
const HEADER_CHARS_MAX: usize = 4096;
/// Most deliveries a second that can be asked for.
const RATE_MAX: u64 = 100_000;
/// Bounds of an attempt's time.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// How long a test may take when neither endpoint nor caller say otherwise.
const TEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the secret before the last rotation still signs.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// Headers that belong to us or to HTTP itself.
const RESERVED: [&str; 10] =
    ["host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding", "upgrade", "te", "trailer", "expect"];

fn show(endpoint: &Endpoint) -> Value {
    let row = &endpoint.row;
    let headers: Map<String, Value> = endpoint.headers.keys().map(|name| (name.clone(), json!({"set": true}))).collect();
    json!({
        "id": row.id,
        "name": row.name,
        "url": row.url,
        "events": row.events.entries(),
        "accounts": row.accounts,
        "format": "standard",
        "headers": headers,
        "rate": row.rate_per_second,
        "timeout": (row.timeout_ms > 0).then(|| span::format(Duration::from_millis(row.timeout_ms))),
        "state": row.state,
        "state_reason": row.state_reason,
        "secret_set_at": endpoint.secret.set_at,
        "created_at": row.created_at,
    })
}

fn find<'d>(call: &Call<'_>, directory: &'d Directory, id: EndpointId) -> Result<&'d Arc<Endpoint>, Problem> {
    directory.endpoint_of(call.tenant(), id).ok_or_else(Problem::not_found)
}

fn shown(call: &Call<'_>, directory: &Directory, id: EndpointId, status: StatusCode, secret: Option<&Secret>) -> Result<Reply, Problem> {
    let endpoint = find(call, directory, id)?;
    let mut body = show(endpoint);
    if let Some(secret) = secret {
        body["secret"] = secret.expose().into();
    }
    Ok(etag::show(call, status, endpoint.row.revision, &body))
}

/// `GET /v1/endpoints`
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["limit", "cursor"])?;
    let directory = call.directory();
    let all = directory.endpoints_of(call.tenant()).iter().map(|endpoint| (endpoint.row.id.to_string(), endpoint)).collect();
    cursor::page_of(call, all, query.limit()?, query.get("cursor"), |endpoint| show(endpoint))
}

/// `GET /v1/endpoints/{id}`
pub(super) fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    shown(call, &call.directory(), call.id()?, StatusCode::OK, None)
}

/// What a request says of an endpoint.
#[derive(Default)]
struct Members {
    name: Option<String>,
    url: Option<String>,
    events: Option<EventFilter>,
    accounts: Option<Vec<AccountId>>,
    headers: Option<BTreeMap<String, Secret>>,
    rate: Option<u32>,
    timeout_ms: Option<u64>,
}

fn members(call: &Call<'_>, reader: &mut Reader<'_>) -> Members {
    let mut members = Members { name: reader.text("name", NAME_CHARS_MAX).map(str::to_owned), ..Members::default() };
    members.url = reader.text("url", URL_CHARS_MAX).map(str::to_owned);
    if let Some(url) = &members.url
        && let Err(why) = (call.shared().parts.is_allowed_url)(url)
    {
        reader.fault("url", why);
    }
    if let Some(entries) = reader.texts("events", EVENTS_MAX) {
        if entries.is_empty() {
            reader.fault("events", "is to name at least one event, or \"*\"");
        }
        match EventFilter::parse(entries) {
            Ok(filter) => members.events = Some(filter),
            Err(unknown) => reader.fault("events", format!("names no event: {}", unknown.join(", "))),
        }
    }
    if let Some(entries) = reader.texts("accounts", ACCOUNTS_MAX) {
        members.accounts = Some(accounts(call, reader, &entries));
    }
    members.headers = headers(reader);
    members.rate = reader.whole("rate", 0..=RATE_MAX).map(|rate| rate as u32);
    if let Some(text) = reader.text("timeout", NAME_CHARS_MAX) {
        match span::parse(text).filter(|span| TIMEOUTS.contains(span)) {
            Some(span) => members.timeout_ms = Some(span.as_millis() as u64),
            None => reader.fault("timeout", "must be a length of time from 1s to 60s"),
        }
    }
    if reader.text("format", NAME_CHARS_MAX).is_some_and(|format| format != "standard") {
        reader.fault("format", "must be standard");
    }
    members
}

fn accounts(call: &Call<'_>, reader: &mut Reader<'_>, entries: &[String]) -> Vec<AccountId> {
    let directory = call.directory();
    let mut found = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let id = entry.parse::<AccountId>().ok().filter(|id| directory.account_of(call.tenant(), *id).is_some());
        match id {
            Some(id) => found.push(id),
            None => reader.fault("accounts", format!("entry {index}: there is no account with this id")),
        }
    }
    found
}

fn headers(reader: &mut Reader<'_>) -> Option<BTreeMap<String, Secret>> {
    let given = reader.object("headers")?;
    let mut found = BTreeMap::new();
    if given.len() > HEADERS_MAX {
        reader.fault("headers", format!("has more than {HEADERS_MAX} entries"));
    }
    let mut faults = Vec::new();
    for (name, value) in given {
        let at = pointer(&reader.at("headers"), name);
        let lower = name.to_ascii_lowercase();
        let is_ours = RESERVED.contains(&lower.as_str()) || lower.starts_with("webhook-") || lower.starts_with("trunkline-");
        let sound = value.as_str().filter(|text| text.len() <= HEADER_CHARS_MAX && HeaderValue::from_str(text).is_ok());
        match sound {
            _ if HeaderName::try_from(&lower).is_err() => faults.push(messaging::channels::Fault::new(at, "is no name of a header")),
            _ if is_ours => faults.push(messaging::channels::Fault::new(at, "is set by the gateway or by HTTP itself")),
            Some(text) => drop(found.insert(lower, Secret::new(text))),
            None => faults.push(messaging::channels::Fault::new(at, "must be a text that a header can hold")),
        }
    }
    reader.faults(faults);
    Some(found)
}

/// `POST /v1/endpoints`
pub(super) async fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let map = parse_object(&call.body)?;
    let mut reader = Reader::new(&map, "");
    reader.require("url");
    reader.require("events");
    let members = members(call, &mut reader);
    reader.finish()?;
    let (id, tenant, key) = (EndpointId::draw(call.now, random10()), call.tenant().id(), call.tenant_key()?);
    let secret = token::new_endpoint_secret();
    let row = EndpointRow {
        id,
        tenant,
        name: members.name.unwrap_or_default(),
        url: members.url.unwrap_or_default(),
        events: members.events.unwrap_or_default(),
        accounts: members.accounts.unwrap_or_default(),
        headers: key.seal_value(&endpoint_aad(tenant, id, "headers"), &members.headers.unwrap_or_default()),
        secret: key.seal_value(&endpoint_aad(tenant, id, "secret"), &SecretPair::new(secret.clone(), call.now)),
        rate_per_second: members.rate.unwrap_or(0),
        timeout_ms: members.timeout_ms.unwrap_or(0),
        state: EndpointState::Active,
        state_reason: None,
        created_at: call.now,
        revision: 1,
    };
    let directory = call
        .change(|directory| {
            call.one_more(directory, tenant, Quota::Endpoints)?;
            Ok(vec![Change::put(DirectoryRow::Endpoint(row.clone()))])
        })
        .await?;
    shown(call, &directory, id, StatusCode::CREATED, Some(&secret))
}

async fn edit(
    call: &Call<'_>,
    secret: Option<&Secret>,
    mut edit: impl FnMut(&Endpoint, &mut EndpointRow) -> Result<(), Problem>,
) -> Result<Reply, Problem> {
    let id: EndpointId = call.id()?;
    let directory = call
        .change(|directory| {
            let endpoint = find(call, directory, id)?;
            etag::check(call, endpoint.row.revision)?;
            let mut row = endpoint.row.clone();
            edit(endpoint, &mut row)?;
            row.revision += 1;
            Ok(vec![Change::put(DirectoryRow::Endpoint(row))])
        })
        .await?;
    shown(call, &directory, id, StatusCode::OK, secret)
}

/// `PATCH /v1/endpoints/{id}`
pub(super) async fn change(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: EndpointId = call.id()?;
    find(call, &call.directory(), id)?;
    let map = parse_object(&call.body)?;
    let mut reader = Reader::new(&map, "");
    let members = members(call, &mut reader);
    reader.finish()?;
    let (tenant, key) = (call.tenant().id(), call.tenant_key()?);
    edit(call, None, |_, row| {
        row.name = members.name.clone().unwrap_or_else(|| row.name.clone());
        row.url = members.url.clone().unwrap_or_else(|| row.url.clone());
        row.events = members.events.clone().unwrap_or_else(|| row.events.clone());
        row.accounts = members.accounts.clone().unwrap_or_else(|| row.accounts.clone());
        row.rate_per_second = members.rate.unwrap_or(row.rate_per_second);
        row.timeout_ms = members.timeout_ms.unwrap_or(row.timeout_ms);
        if let Some(headers) = &members.headers {
            row.headers = key.seal_value(&endpoint_aad(tenant, id, "headers"), headers);
        }
        Ok(())
    })
    .await
}

/// `DELETE /v1/endpoints/{id}`
pub(super) async fn delete(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: EndpointId = call.id()?;
    call.change(|directory| {
        etag::check(call, find(call, directory, id)?.row.revision)?;
        Ok(vec![Change::Delete(id.to_string())])
    })
    .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST /v1/endpoints/{id}/pause` and `/resume`
pub(super) async fn set_state(call: &Call<'_>, state: EndpointState) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    edit(call, None, |_, row| {
        row.state = state;
        row.state_reason = None;
        Ok(())
    })
    .await
}

/// `POST /v1/endpoints/{id}/retry`: what waits for the endpoint is tried now. The row's revision rises, which every router process sees.
pub(super) async fn retry(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let mut reply = edit(call, None, |_, _| Ok(())).await?;
    *reply.status_mut() = StatusCode::ACCEPTED;
    Ok(reply)
}

/// `POST /v1/endpoints/{id}/rotate-secret`: the one before still signs beside the new one for a day.
pub(super) async fn rotate_secret(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: EndpointId = call.id()?;
    let (tenant, key) = (call.tenant().id(), call.tenant_key()?);
    let secret = token::new_endpoint_secret();
    edit(call, Some(&secret), |endpoint, row| {
        let mut pair = endpoint.secret.clone();
        pair.rotate(secret.clone(), call.now);
        row.secret = key.seal_value(&endpoint_aad(tenant, id, "secret"), &pair);
        Ok(())
    })
    .await
}

/// `POST /v1/endpoints/{id}/test`: one signed `trunkline.test` event, sent at once and once.
pub(super) async fn test(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let directory = call.directory();
    let endpoint = find(call, &directory, call.id()?)?;
    let account = endpoint.row.accounts.first().copied();
    let any = || directory.accounts_of(call.tenant().id()).first().map(|account| account.owner.account);
    let event = Event {
        id: EventId::draw(call.now, random10()),
        kind: EventType::Test,
        tenant: call.tenant().id(),
        account: account.or_else(any).unwrap_or(AccountId([0; 16])),
        conversation: None,
        message: None,
        at: call.now,
    };
    let body = event.render(r#"{"text":"this is a test event"}"#);
    let headers = signed(endpoint, &event.id.to_string(), call.now, &body)?;
    let request = HttpRequest { method: Method::POST, url: endpoint.row.url.clone(), headers, body };
    let timeout = if endpoint.row.timeout_ms > 0 { Duration::from_millis(endpoint.row.timeout_ms) } else { TEST_TIMEOUT };
    let started = Instant::now();
    let called = call.shared().parts.caller.call(request, timeout).await;
    let millis = started.elapsed().as_millis() as u64;
    let body = match called {
        Ok(response) => {
            let delivered = (200..300).contains(&response.status);
            json!({"delivered": delivered, "status": response.status, "duration_ms": millis, "event": event.id})
        }
        Err(why) => json!({"delivered": false, "status": null, "detail": why, "duration_ms": millis, "event": event.id}),
    };
    Ok(reply::json(StatusCode::OK, &body))
}

/// The headers of a delivery by Standard Webhooks.
fn signed(endpoint: &Endpoint, id: &str, now: Timestamp, body: &Bytes) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let stamp = now.as_secs().to_string();
    let pair = &endpoint.secret;
    let previous = pair.previous.as_ref().filter(|_| now.since(pair.set_at) < OVERLAP);
    let mut signatures = Vec::new();
    for secret in std::iter::once(&pair.current).chain(previous) {
        let text = secret.expose();
        let text = text.strip_prefix(token::ENDPOINT_SECRET_PREFIX).unwrap_or(text);
        let key = BASE64.decode(text.as_bytes()).map_err(|_| super::damaged("endpoint secret"))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        for part in [id.as_bytes(), b".", stamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        signatures.push(format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes())));
    }
    let value = |text: &str| HeaderValue::try_from(text).map_err(|_| Problem::new(Code::Internal, "a header could not be made"));
    let mut headers = vec![
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("webhook-id"), value(id)?),
        (HeaderName::from_static("webhook-timestamp"), value(&stamp)?),
        (HeaderName::from_static("webhook-signature"), value(&signatures.join(" "))?),
        (HeaderName::from_static("trunkline-attempt"), HeaderValue::from_static("1")),
    ];
    for (name, secret) in &endpoint.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(secret.expose())) {
            headers.push((name, value));
        }
    }
    Ok(headers)
}
