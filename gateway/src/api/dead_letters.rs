//! Dead letters: records that were accepted and that the router could not work on. Nothing accepted is lost: they stand here, sealed,
//! with the reason, until an operator lets them in again or drops them. For administrators only, over all tenants.

use data_encoding::BASE64;
use http::StatusCode;
use messaging::ids::{QuarantineId, TenantId};
use messaging::record::{Record, RecordKind};
use messaging::state::Quarantined;
use messaging::store::{Durability, Key, Scan, Write};
use serde_json::{Value, json};

use super::query::Query;
use super::{Call, away, cursor, damaged, not_appended};
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

/// A parked record: its row, and itself, where it opens.
struct Parked {
    tenant: TenantId,
    id: QuarantineId,
    row: Quarantined,
    record: Option<Record>,
}

impl Parked {
    fn read(call: &Call<'_>, tenant: TenantId, id: QuarantineId, bytes: &[u8]) -> Result<Self, Problem> {
        let row: Quarantined = postcard::from_bytes(bytes).map_err(|_| damaged("dead letter"))?;
        let record = Record::decode(&row.record, call.shared().parts.keyring.log()).ok();
        Ok(Self { tenant, id, row, record })
    }

    fn show(&self) -> Value {
        json!({
            "id": self.id,
            "tenant": self.tenant,
            "account": self.row.account,
            "channel": self.row.channel.name(),
            "kind": self.record.as_ref().map_or("unreadable", |record| record.kind.name()),
            "reason": self.row.reason,
            "conversation": self.record.as_ref().map(|record| record.conversation),
            "at": self.row.at,
        })
    }
}

/// The dead letter of the path; 404 when there is none.
async fn parked(call: &Call<'_>) -> Result<Parked, Problem> {
    let tenant: TenantId = call.id()?;
    let id: QuarantineId = call.params[1].parse().map_err(|_| Problem::not_found())?;
    let rows = call.shared().parts.store.read(vec![Key::Quarantine(tenant, id)]).await.map_err(|error| away(&error))?;
    let row = rows.into_iter().next().flatten().ok_or_else(Problem::not_found)?;
    Parked::read(call, tenant, id, &row)
}

/// `GET /v1/dead-letters?limit=&cursor=`: what they are, not what they say.
pub(super) async fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["limit", "cursor"])?;
    let limit = query.limit()?;
    let after: Option<QuarantineId> =
        query.get("cursor").map(|text| cursor::open(call, "", "cursor", text, Some(cursor::VALID_FOR))).transpose()?;
    // One more than is shown says whether there are more.
    let mut found = call.shared().parts.store.scan(Scan::Quarantine(None, after), limit + 1).await.map_err(|error| away(&error))?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let mut data = Vec::with_capacity(found.len());
    let mut last = None;
    for (key, bytes) in &found {
        let Key::Quarantine(tenant, id) = key else { continue };
        data.push(Parked::read(call, *tenant, *id, bytes)?.show());
        last = Some(*id);
    }
    let next = last.filter(|_| has_more).map(|id| cursor::seal(call, "", &id));
    Ok(cursor::page(call, data, next))
}

/// `GET /v1/dead-letters/{tenant}/{id}`: with what it says.
pub(super) async fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let parked = parked(call).await?;
    let mut shown = parked.show();
    let body = parked.record.as_ref().map(|record| &record.body);
    match body.map(|body| std::str::from_utf8(body).map_err(|_| body)) {
        Some(Ok(text)) => shown["body"] = text.into(),
        Some(Err(body)) => shown["body_base64"] = BASE64.encode(body).into(),
        None => shown["body"] = Value::Null,
    }
    Ok(reply::json(StatusCode::OK, &shown))
}

/// `POST /v1/dead-letters/{tenant}/{id}/requeue`: onto the log once more, as of now. It leaves the quarantine in the step that works
/// it; one that fails again stays.
pub(super) async fn requeue(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let parked = parked(call).await?;
    let Some(record) = parked.record.filter(|record| record.kind != RecordKind::Unparsable) else {
        return Err(Problem::new(Code::ValidationFailed, "it could not be taken apart when it came: there is nothing to work on"));
    };
    let parts = &call.shared().parts;
    let record = record.requeued_at(call.now);
    let new = record.to_new(record.topic(), parts.log.partitions(), parts.keyring.log());
    call.worker.appends.append([new]).await.map_err(not_appended)?;
    Ok(reply::json(StatusCode::ACCEPTED, &json!({"id": parked.id, "tenant": parked.tenant, "status": "requeued"})))
}

/// `DELETE /v1/dead-letters/{tenant}/{id}`: forgotten for ever.
pub(super) async fn drop(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let parked = parked(call).await?;
    let write = Write::delete(Key::Quarantine(parked.tenant, parked.id), call.now);
    call.shared().parts.store.apply(vec![write], Durability::Synced).await.map_err(|error| away(&error))?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
