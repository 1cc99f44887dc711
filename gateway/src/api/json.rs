//! Strict JSON: bounded depth, no member twice; and a reader of objects that names every fault and every unknown member.

use std::fmt;
use std::str::FromStr;

use messaging::channels::Fault;
use messaging::clock::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::options::JSON_DEPTH_MAX;
use crate::problem::{Code, Problem};

/// Parses a body.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let malformed = |detail: String| Problem::new(Code::Malformed, detail);
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the body is not UTF-8".into()))?;
    if !is_shallow(text) {
        return Err(malformed(format!("the body is nested deeper than {JSON_DEPTH_MAX} levels")));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut deserializer).map_err(|error| malformed(format!("the body is not JSON: {error}")))?;
    deserializer.end().map_err(|error| malformed(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// Parses a body that is to be an object.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    match parse(bytes)? {
        Value::Object(map) => Ok(map),
        _ => Err(Problem::fault("", "must be an object")),
    }
}

/// Parses a body that is to be an object, and may be left out.
pub fn parse_optional_object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    if bytes.is_empty() { Ok(Map::new()) } else { parse_object(bytes) }
}

/// Whether brackets nest within bounds. Judged before parsing, so that depth costs no stack.
pub fn is_shallow(text: &str) -> bool {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// A JSON value in which no object names a member twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom("a member stands twice in one object"));
            }
            map.insert(name, members.next_value_seed(Strict)?);
        }
        Ok(Value::Object(map))
    }
}

/// Escapes a member's name for a JSON pointer.
pub fn pointer(base: &str, name: &str) -> String {
    format!("{base}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Reads the members of an object, and gathers every fault.
pub struct Reader<'m> {
    map: &'m Map<String, Value>,
    base: String,
    known: Vec<&'m str>,
    faults: Vec<Fault>,
}

impl<'m> Reader<'m> {
    /// Of an object that stands at a pointer.
    pub fn new(map: &'m Map<String, Value>, base: impl Into<String>) -> Self {
        Self { map, base: base.into(), known: Vec::new(), faults: Vec::new() }
    }

    /// The pointer of a member.
    pub fn at(&self, name: &str) -> String {
        pointer(&self.base, name)
    }

    /// Notes a fault at a member.
    pub fn fault(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = self.at(name);
        self.faults.push(Fault::new(pointer, detail));
    }

    /// Takes over faults whose pointers are complete.
    pub fn faults(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.extend(faults);
    }

    /// Whether a member is there.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// A member, whatever it is.
    pub fn value(&mut self, name: &'m str) -> Option<&'m Value> {
        self.known.push(name);
        self.map.get(name)
    }

    fn typed<T>(&mut self, name: &'m str, what: &str, read: impl FnOnce(&'m Value) -> Option<T>) -> Option<T> {
        let value = self.value(name)?;
        let found = read(value);
        if found.is_none() {
            self.fault(name, format!("must be {what}"));
        }
        found
    }

    /// A text of 1 to `max` characters.
    pub fn text(&mut self, name: &'m str, max: usize) -> Option<&'m str> {
        let text = self.typed(name, "a text", Value::as_str)?;
        let chars = text.chars().count();
        if (1..=max).contains(&chars) {
            return Some(text);
        }
        self.fault(name, format!("must have 1 to {max} characters"));
        None
    }

    /// Notes that a member is missing, unless it is there.
    pub fn require(&mut self, name: &'m str) {
        if !self.has(name) {
            self.fault(name, "is missing");
        }
    }

    /// True or false.
    pub fn flag(&mut self, name: &'m str) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// A whole number within bounds.
    pub fn whole(&mut self, name: &'m str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        self.typed(name, &what, |value| value.as_u64().filter(|number| range.contains(number)))
    }

    /// An RFC 3339 time.
    pub fn time(&mut self, name: &'m str) -> Option<Timestamp> {
        self.typed(name, "an RFC 3339 time, such as 2026-11-22T15:04:05Z", |value| value.as_str()?.parse().ok())
    }

    /// An id.
    pub fn id<T: FromStr>(&mut self, name: &'m str, prefix: &str) -> Option<T> {
        self.typed(name, &format!("an id of the form {prefix}…"), |value| value.as_str()?.parse().ok())
    }

    /// An object.
    pub fn object(&mut self, name: &'m str) -> Option<&'m Map<String, Value>> {
        self.typed(name, "an object", Value::as_object)
    }

    /// A list of at most `max` texts.
    pub fn texts(&mut self, name: &'m str, max: usize) -> Option<Vec<String>> {
        let what = format!("a list of at most {max} texts");
        self.typed(name, &what, |value| {
            let list = value.as_array().filter(|list| list.len() <= max)?;
            list.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
        })
    }

    /// Names what is left as unknown, and gives every fault.
    pub fn end(mut self) -> Vec<Fault> {
        for name in self.map.keys() {
            if !self.known.contains(&name.as_str()) {
                self.faults.push(Fault::new(pointer(&self.base, name), "is not a member that is known here"));
            }
        }
        self.faults
    }

    /// As `end`, but a problem when there is any fault.
    pub fn finish(self) -> Result<(), Problem> {
        let faults = self.end();
        if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_strict_json_is_malformed() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let good = ["{}", "[1,\"a\\\"]]]\",null,true,1.5,-3]", " {\"a\":{\"b\":[]}} ", &deep(JSON_DEPTH_MAX)];
        for text in good {
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
        let bad: [&[u8]; 9] =
            [b"", b"{", b"{}{}", b"{\"a\":1,\"a\":2}", b"{\"x\":[{\"a\":1,\"b\":2,\"a\":1}]}", b"nul", b"\xff", b"{\"a\":1e999}", b"'a'"];
        for text in bad.into_iter().chain([deep(JSON_DEPTH_MAX + 1).as_bytes(), deep(100_000).as_bytes()]) {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.code(), Code::Malformed, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_reader_names_every_fault() {
        let map = parse_object(br#"{"name":"","count":7,"flag":"yes","when":"soon","typo/x":1}"#).unwrap();
        let mut reader = Reader::new(&map, "/base");
        assert_eq!(reader.text("name", 10), None);
        assert_eq!(reader.whole("count", 0..=5), None);
        assert_eq!(reader.flag("flag"), None);
        assert_eq!(reader.time("when"), None);
        reader.require("gone");
        let pointers: Vec<String> = reader.end().into_iter().map(|fault| fault.pointer).collect();
        assert_eq!(pointers, ["/base/name", "/base/count", "/base/flag", "/base/when", "/base/gone", "/base/typo~1x"]);
    }
}
