//! `GET /v1/events`: the pull feed. Each shard's events in the order of its log, merged round by round; the cursor holds a
//! place per shard, so a client that comes back gets exactly what it has not seen.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::try_join_all;
use http::StatusCode;
use messaging::event::EventFilter;
use messaging::state::{EventRow, FeedPosition};
use messaging::store::{Key, Scan};

use super::query::Query;
use super::{Call, away, cursor, damaged, events};
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply};

/// Longest wait for the next event, in seconds.
const WAIT_MAX_S: usize = 30;
/// How often a waiting request looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Entries of `types`.
const TYPES_MAX: usize = 64;
/// Rows of one shard that are read in one look. A shard that has more is read on in the next.
const ROWS_MAX: usize = 500;

/// Looks of one request that find nothing that the client wants: then it comes again, from where they ended.
const BARREN_LOOKS_MAX: usize = 32;

/// A place per shard: all up to and including it was seen.
type Places = Vec<u64>;

/// `GET /v1/events?after=&types=&limit=&wait=`
pub(super) async fn feed(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(call.query, &["after", "types", "limit", "wait"])?;
    let limit = query.limit()?;
    let wait = Duration::from_secs(query.whole("wait", 0..=WAIT_MAX_S, 0)? as u64);
    let types = filter(query.get("types"))?;
    let shards = usize::from(call.shared().parts.log.partitions());
    let mut places: Places = match query.get("after") {
        Some("latest") => ends(call, shards).await?,
        // A client may come back after a long time: these cursors do not age.
        Some(text) => cursor::open(call, "", "after", text, None)?,
        None => Vec::new(),
    };
    places.resize(shards, 0);
    let deadline = tokio::time::Instant::now() + wait;
    let mut barren = 0;
    let mut waiting = None;
    loop {
        let (rows, is_behind) = look(call, &mut places, types.as_ref(), limit).await?;
        let must_answer = tokio::time::Instant::now() + LOOK_EVERY > deadline || call.shared().draining.load(Ordering::Relaxed);
        barren += usize::from(is_behind);
        if !rows.is_empty() || barren >= BARREN_LOOKS_MAX || (must_answer && !is_behind) {
            return answer(call, &rows, &places).await;
        }
        if !is_behind {
            // Counted from its first wait to its end: one that waits is not refused midway.
            if waiting.is_none() {
                let too_many = || Problem::new(Code::QuotaExceeded, "too many polls of this tenant wait for events");
                waiting = Some(call.shared().bounds.poll(call.tenant().id()).ok_or_else(too_many)?);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Where each shard's feed ends now. The store reads forward only, so the end is closed in on by halving: what lies behind a
/// place is empty from the end on.
async fn ends(call: &Call<'_>, shards: usize) -> Result<Places, Problem> {
    try_join_all((0..shards).map(|shard| end(call, shard as u16))).await
}

async fn end(call: &Call<'_>, shard: u16) -> Result<u64, Problem> {
    let next_after = async |order: u64| -> Result<Option<u64>, Problem> {
        let scan = Scan::Events(call.tenant().id(), FeedPosition { shard, order });
        let found = call.shared().parts.store.scan(scan, 1).await.map_err(|error| away(&error))?;
        Ok(found.into_iter().find_map(|(key, _)| if let Key::Event(_, place) = key { Some(place.order) } else { None }))
    };
    // `low` was found, or is the beginning; nothing lies behind `high`.
    let (mut low, mut high) = (0u64, u64::MAX);
    let mut step = 1u64;
    while low.saturating_add(1) < high {
        let middle = if high == u64::MAX { low.saturating_add(step) } else { low + (high - low) / 2 };
        match next_after(middle).await? {
            Some(order) => low = order,
            None => high = middle,
        }
        step = step.saturating_mul(2);
    }
    // The one place between the two, if something is there, or the last that was found.
    Ok(next_after(low).await?.unwrap_or(low))
}

fn filter(types: Option<&str>) -> Result<Option<EventFilter>, Problem> {
    let Some(types) = types else { return Ok(None) };
    let entries: Vec<String> = types.split(',').take(TYPES_MAX + 1).map(str::to_owned).collect();
    if entries.len() > TYPES_MAX {
        return Err(Problem::fault("?types", format!("has more than {TYPES_MAX} entries")));
    }
    let unknown = |names: Vec<String>| Problem::fault("?types", format!("names no event: {}", names.join(", ")));
    EventFilter::parse(entries).map(Some).map_err(unknown)
}

/// Reads what comes next, and moves the places past it. Also says whether there may be more at once.
async fn look(call: &Call<'_>, places: &mut Places, types: Option<&EventFilter>, limit: usize) -> Result<(Vec<EventRow>, bool), Problem> {
    let tenant = call.tenant().id();
    let store = &call.shared().parts.store;
    let scans = places.iter().enumerate().map(|(shard, order)| {
        let from = FeedPosition { shard: shard as u16, order: *order };
        store.scan(Scan::Events(tenant, from), limit.min(ROWS_MAX))
    });
    let found = try_join_all(scans).await.map_err(|error| away(&error))?;
    let is_behind = found.iter().any(|rows| rows.len() >= limit.min(ROWS_MAX));
    let mut rounds: Vec<_> = found.into_iter().map(Vec::into_iter).collect();
    let mut rows = Vec::new();
    let mut is_more = true;
    while is_more && rows.len() < limit {
        is_more = false;
        for round in &mut rounds {
            if rows.len() == limit {
                break;
            }
            let Some((key, bytes)) = round.next() else { continue };
            is_more = true;
            let Key::Event(_, place) = key else { continue };
            if let Some(seen) = places.get_mut(usize::from(place.shard)) {
                *seen = place.order;
            }
            let row = EventRow::decode(&bytes).map_err(|_| damaged("event"))?;
            if types.is_none_or(|types| types.takes(row.event.kind)) {
                rows.push(row);
            }
        }
    }
    Ok((rows, is_behind))
}

async fn answer(call: &Call<'_>, rows: &[EventRow], places: &Places) -> Result<Reply, Problem> {
    let texts = events::render(call, rows).await?;
    let next = cursor::seal(call, "", places);
    let text = format!(r#"{{"data":[{}],"next_cursor":"{next}"}}"#, texts.join(","));
    Ok(reply::json_text(StatusCode::OK, text))
}
