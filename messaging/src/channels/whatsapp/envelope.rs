//! The envelope around inner events: read in one pass when it holds exactly one, taken apart when it holds several.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::wire::{Event, List, Seconds, Str, is_split};

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

/// A change's value with at most one inner event. That stays raw: it is read once the list is known to be its only one.
#[derive(Deserialize)]
struct Lists<'a> {
    #[serde(borrow)]
    contacts: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<One<&'a RawValue>>,
    #[serde(borrow)]
    statuses: Option<One<&'a RawValue>>,
    #[serde(borrow)]
    errors: Option<One<&'a RawValue>>,
    #[serde(borrow)]
    calls: Option<One<&'a RawValue>>,
    #[serde(borrow)]
    message_echoes: Option<One<&'a RawValue>>,
    #[serde(borrow)]
    user_preferences: Option<One<&'a RawValue>>,
}

impl<'a> Lists<'a> {
    /// The elements of all lists.
    fn elements(self) -> impl Iterator<Item = (List, &'a RawValue)> {
        let lists = [
            (List::Messages, self.messages),
            (List::Statuses, self.statuses),
            (List::Errors, self.errors),
            (List::Calls, self.calls),
            (List::Echoes, self.message_echoes),
            (List::Preferences, self.user_preferences),
        ];
        lists.into_iter().filter_map(|(list, elements)| Some((list, elements?.0?)))
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
    /// The event's element of its list, where it is one.
    pub element: Option<&'a RawValue>,
}

/// Reads a body whose one change holds lists, with exactly one inner event, in one pass. None when it holds several or is
/// something else.
pub(super) fn single_of_lists(text: &str) -> Option<Single<'_>> {
    let (field, sent_at, lists) = only_change::<Lists<'_>>(text)?;
    if !is_split(&field) {
        return None;
    }
    let contacts = lists.contacts;
    let mut elements = lists.elements();
    let Some((list, element)) = elements.next() else {
        return Some(Single { field, sent_at, contacts: None, event: Event::Whole, element: None });
    };
    if elements.next().is_some() {
        return None;
    }
    let event = Event::of_element(list, element).ok()?;
    Some(Single { field, sent_at, contacts, event, element: Some(element) })
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
    Some(Single { field, sent_at, contacts: None, event, element: None })
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
