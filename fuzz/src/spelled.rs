//! What a body names: every text and number of it, also of the JSON inside its texts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// JSON inside texts is followed this deep.
const INNER_MAX: u8 = 3;

/// Collects even what stands twice, which a `Value` would forget, and what came before an error.
struct Spelled<'a> {
    found: &'a mut Vec<String>,
    inner: u8,
}

/// Everything that the bytes spell.
pub fn spelled(body: &[u8]) -> Vec<String> {
    let mut found = vec![String::from_utf8_lossy(body).into_owned()];
    read(body, &mut found, INNER_MAX);
    found
}

fn read(body: &[u8], found: &mut Vec<String>, inner: u8) {
    let mut reader = serde_json::Deserializer::from_slice(body);
    // Damage is no news here: what was read until then counts.
    let _ = Spelled { found, inner }.deserialize(&mut reader);
}

impl Spelled<'_> {
    fn again(&mut self) -> Spelled<'_> {
        Spelled { found: self.found, inner: self.inner }
    }
}

impl<'de> DeserializeSeed<'de> for Spelled<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Spelled<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.found.push(number.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.found.push(number.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.found.push(serde_json::Value::from(number).to_string());
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.found.push(text.to_owned());
        if self.inner > 0 {
            read(text.as_bytes(), self.found, self.inner - 1);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while members.next_key_seed(self.again())?.is_some() {
            members.next_value_seed(self.again())?;
        }
        Ok(())
    }
}
