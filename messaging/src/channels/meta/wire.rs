//! The shapes of events, borrowed from the webhook's bytes. What the splitter looks at is typed and lenient; everything else stays
//! raw until somebody asks.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::clock::Timestamp;

/// Above this a number is milliseconds and not seconds: the year 5138 in seconds, 1973 in milliseconds.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// An id, as text or number; empty when it is neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Id<'a>(pub Cow<'a, str>);

impl Deref for Id<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Id<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Id<'de>, E> {
                Ok(Id(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Id<'de>, E> {
                Ok(Id(Cow::Owned(text.to_owned())))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Id<'de>, E> {
                Ok(Id(Cow::Owned(number.to_string())))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Id<'de>, E> {
                Ok(Id::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Id<'de>, E> {
                Ok(Id::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Id<'de>, E> {
                Ok(Id::default())
            }
            fn visit_unit<E>(self) -> Result<Id<'de>, E> {
                Ok(Id::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Id<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Id::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Id<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Id::default())
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A time in milliseconds, or in seconds where the platform slips.
pub(super) fn time(raw: Option<&RawValue>) -> Timestamp {
    let text = raw.map_or("", RawValue::get).trim_matches('"');
    let Ok(number) = text.parse::<u64>() else { return Timestamp::ZERO };
    let micros = if number >= MILLISECONDS_FROM { number.checked_mul(1_000) } else { number.checked_mul(1_000_000) };
    micros.map_or(Timestamp::ZERO, Timestamp)
}

/// `{"id": …}`; anything else has none.
pub(super) fn party<'a>(raw: Option<&'a RawValue>) -> Id<'a> {
    #[derive(Deserialize)]
    struct Party<'a> {
        #[serde(borrow)]
        id: Option<Id<'a>>,
    }
    let party: Option<Party<'a>> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
    party.and_then(|party| party.id).unwrap_or_default()
}

/// One element of `messaging` or `standby`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Messaging<'a> {
    #[serde(borrow)]
    pub sender: Option<&'a RawValue>,
    #[serde(borrow)]
    pub recipient: Option<&'a RawValue>,
    #[serde(borrow)]
    pub timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    pub message: Option<&'a RawValue>,
    #[serde(borrow)]
    pub message_edit: Option<&'a RawValue>,
    #[serde(borrow)]
    pub reaction: Option<&'a RawValue>,
    #[serde(borrow)]
    pub postback: Option<&'a RawValue>,
    #[serde(borrow)]
    pub referral: Option<&'a RawValue>,
    #[serde(borrow)]
    pub optin: Option<&'a RawValue>,
    #[serde(borrow)]
    pub delivery: Option<&'a RawValue>,
    #[serde(borrow)]
    pub read: Option<&'a RawValue>,
    #[serde(borrow)]
    pub policy_enforcement: Option<&'a RawValue>,
}

/// One element of `changes`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Change<'a> {
    #[serde(borrow)]
    pub field: Option<Id<'a>>,
    #[serde(borrow)]
    pub value: Option<&'a RawValue>,
}

/// A comment, on a page's post or on media.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Comment<'a> {
    #[serde(borrow)]
    pub id: Option<Id<'a>>,
    #[serde(borrow)]
    pub comment_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub item: Option<Id<'a>>,
    #[serde(borrow)]
    pub verb: Option<Id<'a>>,
    #[serde(borrow)]
    pub created_time: Option<&'a RawValue>,
    #[serde(borrow)]
    pub from: Option<&'a RawValue>,
}

/// An entry of the envelope.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entry<'a> {
    #[serde(borrow)]
    pub id: Option<Id<'a>>,
    #[serde(borrow)]
    pub time: Option<&'a RawValue>,
    #[serde(borrow)]
    pub messaging: Option<&'a RawValue>,
    #[serde(borrow)]
    pub standby: Option<&'a RawValue>,
    #[serde(borrow)]
    pub changes: Option<&'a RawValue>,
    /// Some deliveries put a change directly on the entry.
    #[serde(borrow)]
    pub field: Option<Id<'a>>,
    #[serde(borrow)]
    pub value: Option<&'a RawValue>,
}

/// The envelope.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub object: Id<'a>,
    #[serde(borrow, default)]
    pub entry: Vec<&'a RawValue>,
}
