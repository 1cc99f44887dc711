//! The envelope around inner events: read in one pass when it holds exactly one, taken apart when it holds several.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::wire::{Call, Event, Message, Preference, Seconds, StatusNews, Str, is_split};

/// What every envelope calls itself.
pub(super) const OBJECT: &str = "whatsapp_business_account";

/// A list of at most one: reads without allocating, and gives up at the second element.
#[derive(Debug)]
pub(super) struct One<T>(pub Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for One<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = One<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of at most one")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<One<T>, A::Error> {
                let first = seq.next_element()?;
                if first.is_some() && seq.next_element::<IgnoredAny>()?.is_some() {
                    return Err(de::Error::custom("more than one"));
                }
                Ok(One(first))
            }
        }
        deserializer.deserialize_seq(Reader(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>"))]
struct Envelope<'a, V> {
    #[serde(borrow)]
    object: Str<'a>,
    #[serde(borrow)]
    entry: One<Entry<'a, V>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>"))]
struct Entry<'a, V> {
    time: Option<Seconds>,
    #[serde(borrow)]
    changes: One<Change<'a, V>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>"))]
struct Change<'a, V> {
    #[serde(borrow)]
    field: Str<'a>,
    value: V,
}

/// A change's value with at most one inner event.
#[derive(Deserialize)]
struct Lists<'a> {
    #[serde(borrow)]
    contacts: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<One<Message<'a>>>,
    #[serde(borrow)]
    statuses: Option<One<StatusNews<'a>>>,
    #[serde(borrow)]
    errors: Option<One<&'a RawValue>>,
    #[serde(borrow)]
    calls: Option<One<Call<'a>>>,
    #[serde(borrow)]
    message_echoes: Option<One<Message<'a>>>,
    #[serde(borrow)]
    user_preferences: Option<One<Preference<'a>>>,
}

impl<'a> Lists<'a> {
    /// The one event, if there is exactly one.
    fn event(self) -> Option<Event<'a>> {
        let mut found = None;
        let mut count = 0;
        let mut take = |event: Option<Event<'a>>| {
            count += usize::from(event.is_some());
            found = found.take().or(event);
        };
        take(self.messages.and_then(|list| list.0).map(Event::Message));
        take(self.statuses.and_then(|list| list.0).map(Event::Status));
        take(self.errors.and_then(|list| list.0).map(Event::Error));
        take(self.calls.and_then(|list| list.0).map(Event::Call));
        take(self.message_echoes.and_then(|list| list.0).map(Event::Echo));
        take(self.user_preferences.and_then(|list| list.0).map(Event::Preference));
        match count {
            0 => Some(Event::Whole),
            1 => found,
            _ => None,
        }
    }
}

/// A body with exactly one inner event.
#[derive(Debug)]
pub(super) struct Single<'a> {
    pub field: Str<'a>,
    /// When the platform sent it, where the envelope says so.
    pub sent_at: Option<Seconds>,
    pub contacts: Option<&'a RawValue>,
    pub event: Event<'a>,
}

/// Reads a body whose one change holds lists, with exactly one inner event, in one pass. None when it holds several or is
/// something else.
pub(super) fn single_of_lists(text: &str) -> Option<Single<'_>> {
    let (field, sent_at, lists) = only_change::<Lists<'_>>(text)?;
    if !is_split(&field) {
        return None;
    }
    let contacts = lists.contacts;
    Some(Single { field, sent_at, contacts, event: lists.event()? })
}

/// Reads any body that holds exactly one inner event.
pub(super) fn single(text: &str) -> Option<Single<'_>> {
    if let Some(single) = single_of_lists(text) {
        return Some(single);
    }
    // The lists of such a change are its own affair and may have any shape.
    let (field, sent_at, value) = only_change::<&RawValue>(text)?;
    if is_split(&field) {
        return None;
    }
    let event = Event::of_change(&field, value);
    Some(Single { field, sent_at, contacts: None, event })
}

fn only_change<'a, V: Deserialize<'a>>(text: &'a str) -> Option<(Str<'a>, Option<Seconds>, V)> {
    let envelope: Envelope<'a, V> = serde_json::from_str(text).ok()?;
    if &*envelope.object != OBJECT {
        return None;
    }
    let entry = envelope.entry.0?;
    let change = entry.changes.0?;
    Some((change.field, entry.time, change.value))
}

/// A body with any number of inner events.
#[derive(Deserialize)]
pub(super) struct Batch<'a> {
    #[serde(borrow)]
    pub object: Str<'a>,
    #[serde(borrow)]
    pub entry: Vec<BatchEntry<'a>>,
}

#[derive(Deserialize)]
pub(super) struct BatchEntry<'a> {
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub time: Option<&'a RawValue>,
    #[serde(borrow)]
    pub changes: Vec<BatchChange<'a>>,
}

#[derive(Deserialize)]
pub(super) struct BatchChange<'a> {
    #[serde(borrow)]
    pub field: Str<'a>,
    #[serde(borrow)]
    pub value: &'a RawValue,
}
