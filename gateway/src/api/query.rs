//! Query strings. Unknown and repeated parameters are refused, so that a typing error cannot pass.

use std::borrow::Cow;
use std::str::FromStr;

use messaging::channels::Fault;
use percent_encoding::percent_decode_str;

use crate::problem::Problem;

/// Most parameters of a request.
const PARAMETERS_MAX: usize = 16;
/// Entries of a list when none is asked for.
pub const LIMIT_DEFAULT: usize = 50;
/// Most entries of a list.
pub const LIMIT_MAX: usize = 500;

/// The parameters of a request.
#[derive(Debug)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads a raw query that may hold these parameters.
    pub fn parse(raw: &str, allowed: &[&'static str]) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        let mut faults = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()).take(PARAMETERS_MAX + 1) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                faults.push(Fault::new("?", "a parameter is not UTF-8"));
                continue;
            };
            let Some(known) = allowed.iter().copied().find(|known| *known == name) else {
                faults.push(Fault::new(format!("?{name}"), "is not a parameter that is known here"));
                continue;
            };
            if found.iter().any(|(name, _)| *name == known) {
                faults.push(Fault::new(format!("?{known}"), "stands twice"));
                continue;
            }
            found.push((known, value));
        }
        if faults.is_empty() { Ok(Self(found)) } else { Err(Problem::invalid(faults)) }
    }

    /// A parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that must be there.
    pub fn require(&self, name: &'static str) -> Result<&str, Problem> {
        self.get(name).ok_or_else(|| Problem::fault(format!("?{name}"), "is missing"))
    }

    /// An id.
    pub fn id<T: FromStr>(&self, name: &'static str, prefix: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Problem::fault(format!("?{name}"), format!("must be an id of the form {prefix}…")))
    }

    /// A whole number within bounds, or the default.
    pub fn whole(&self, name: &'static str, range: std::ops::RangeInclusive<usize>, default: usize) -> Result<usize, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number
            .ok_or_else(|| Problem::fault(format!("?{name}"), format!("must be a whole number from {} to {}", range.start(), range.end())))
    }

    /// `limit`.
    pub fn limit(&self) -> Result<usize, Problem> {
        self.whole("limit", 1..=LIMIT_MAX, LIMIT_DEFAULT)
    }

    /// True or false; false when it is not there.
    pub fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::fault(format!("?{name}"), "must be true or false")),
        }
    }
}

fn decode(text: &str) -> Option<String> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_once_and_decoded() {
        let query = Query::parse("to=%2B1555&limit=7&a+b=", &["to", "limit", "a b"]).unwrap();
        assert_eq!(query.get("to"), Some("+1555"));
        assert_eq!(query.get("a b"), Some(""));
        assert_eq!(query.limit().unwrap(), 7);
        assert_eq!(Query::parse("", &[]).unwrap().limit().unwrap(), LIMIT_DEFAULT);
        for bad in ["limit=1&limit=2", "limt=1", "limit=%ff"] {
            assert!(Query::parse(bad, &["limit"]).is_err(), "{bad}");
        }
        for bad in ["limit=0", "limit=501", "limit=x", "limit=-1", "limit="] {
            assert!(Query::parse(bad, &["limit"]).unwrap().limit().is_err(), "{bad}");
        }
        let many = "x&".repeat(PARAMETERS_MAX + 1);
        assert!(Query::parse(&many, &["x"]).is_err());
    }
}
