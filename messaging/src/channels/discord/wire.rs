//! Reading Discord's JSON: members that may be missing, ids that are texts, times inside ids.

use serde_json::{Map, Value};

use crate::channels::Malformed;
use crate::clock::Timestamp;

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// Milliseconds from the Unix epoch to Discord's.
const EPOCH_MS: u64 = 1_420_070_400_000;
/// Bits of a snowflake below its time.
const SNOWFLAKE_TIME_SHIFT: u32 = 22;

pub(super) fn object<'a>(of: &'a Object, member: &str) -> Option<&'a Object> {
    of.get(member).and_then(Value::as_object)
}

pub(super) fn array<'a>(of: &'a Object, member: &str) -> &'a [Value] {
    of.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text that says something.
pub(super) fn text<'a>(of: &'a Object, member: &str) -> Option<&'a str> {
    of.get(member).and_then(Value::as_str).filter(|text| !text.is_empty())
}

pub(super) fn owned(of: &Object, member: &str) -> Option<String> {
    text(of, member).map(str::to_owned)
}

pub(super) fn count(of: &Object, member: &str) -> Option<u64> {
    of.get(member).and_then(Value::as_u64)
}

pub(super) fn flag(of: &Object, member: &str) -> bool {
    of.get(member).and_then(Value::as_bool).unwrap_or(false)
}

/// The time that an id was made; `ZERO` when it is no snowflake.
pub(super) fn time_of(id: &str) -> Timestamp {
    let millis = id.parse::<u64>().ok().map(|id| (id >> SNOWFLAKE_TIME_SHIFT) + EPOCH_MS);
    millis.map_or(Timestamp::ZERO, Timestamp::from_millis)
}

/// A time as Discord writes it: RFC 3339, and in webhook events without a zone, which is UTC. `ZERO` when it says none.
pub(super) fn time(of: &Object, member: &str) -> Timestamp {
    let Some(said) = text(of, member) else { return Timestamp::ZERO };
    said.parse().or_else(|_| format!("{said}Z").parse()).unwrap_or(Timestamp::ZERO)
}

/// The parser's own words may quote the text, so only the place is told.
pub(super) fn not_json(error: &serde_json::Error) -> Malformed {
    Malformed(format!("not JSON at line {} column {}", error.line(), error.column()))
}

pub(super) fn malformed(what: &str) -> Malformed {
    Malformed(what.to_owned())
}
