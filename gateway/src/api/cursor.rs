//! Cursors: opaque to clients, sealed, bound to the tenant, the route and what was asked for.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use http::{HeaderValue, StatusCode, header};
use messaging::clock::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Call;
use crate::problem::Problem;
use crate::reply::{self, Reply};

/// How long a cursor of a list is good for.
pub const VALID_FOR: Duration = Duration::from_secs(24 * 3600);
/// Longest cursor that is looked at.
const TEXT_MAX: usize = 4096;

fn aad(call: &Call<'_>, about: &str) -> Vec<u8> {
    [b"cursor".as_slice(), &call.tenant().id().0, call.route.as_bytes(), b"\0", about.as_bytes()].concat()
}

/// Makes a cursor. `about` is what else it is bound to.
pub fn seal<T: Serialize>(call: &Call<'_>, about: &str, place: &T) -> String {
    let plain = postcard::to_stdvec(&(call.now, place)).expect("our own types serialise");
    BASE64URL_NOPAD.encode(&call.shared().parts.keyring.cursor().seal(&aad(call, about), &plain))
}

/// Reads a cursor. `valid_for` is none for cursors that stay good.
pub fn open<T: DeserializeOwned>(
    call: &Call<'_>,
    about: &str,
    parameter: &str,
    text: &str,
    valid_for: Option<Duration>,
) -> Result<T, Problem> {
    let bad = || Problem::fault(format!("?{parameter}"), "is not a cursor of this list, or too old");
    if text.len() > TEXT_MAX {
        return Err(bad());
    }
    let sealed = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| bad())?;
    let plain = call.shared().parts.keyring.cursor().open(&aad(call, about), &sealed).map_err(|_| bad())?;
    let (made_at, place): (Timestamp, T) = postcard::from_bytes(&plain).map_err(|_| bad())?;
    if valid_for.is_some_and(|valid_for| call.now.since(made_at) > valid_for) {
        return Err(bad());
    }
    Ok(place)
}

/// One page of a list.
pub fn page(call: &Call<'_>, data: Vec<Value>, next: Option<String>) -> Reply {
    let mut reply = reply::json(StatusCode::OK, &json!({"data": data, "next_cursor": next}));
    if let Some(next) = next {
        let kept = call.query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let query = kept.map(str::to_owned).chain([format!("cursor={next}")]).collect::<Vec<_>>().join("&");
        let link = format!("<{}{}?{query}>; rel=\"next\"", call.shared().options.public_url, call.route);
        if let Ok(value) = HeaderValue::try_from(link) {
            reply.headers_mut().insert(header::LINK, value);
        }
    }
    reply
}

/// A page of a list that is held in memory, by rising id.
pub fn page_of<T>(
    call: &Call<'_>,
    mut all: Vec<(String, T)>,
    limit: usize,
    cursor: Option<&str>,
    show: impl Fn(&T) -> Value,
) -> Result<Reply, Problem> {
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let after: Option<String> = cursor.map(|text| open(call, "", "cursor", text, Some(VALID_FOR))).transpose()?;
    let start = after.map_or(0, |after| all.partition_point(|(id, _)| *id <= after));
    let shown: Vec<&(String, T)> = all[start..].iter().take(limit).collect();
    let has_more = start + shown.len() < all.len();
    let next = shown.last().filter(|_| has_more).map(|(id, _)| seal(call, "", id));
    Ok(page(call, shown.iter().map(|(_, row)| show(row)).collect(), next))
}
