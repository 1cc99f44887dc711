//! The envelope around inner events: read in one pass when it holds exactly one, taken apart when it holds several.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::people::Ids;
use super::wire::{Event, List, Seconds, Str, is_split};
use crate::channels::{About, PieceKind};
use crate::content::Handle;

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
    #[serde(borrow)]
    id: Option<&'a RawValue>,
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

/// An element of a list, read as the list's kind.
trait Element<'a>: Sized {
    /// The list's only element; none when it is empty or null.
    fn only<A: MapAccess<'a>>(list: List, map: &mut A) -> Result<Option<Self>, A::Error>;
}

impl<'a> Element<'a> for (List, &'a RawValue) {
    fn only<A: MapAccess<'a>>(list: List, map: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(element(map)?.map(|raw| (list, raw)))
    }
}

/// What a receiver needs of an event. Small, since it is handed up through all layers of the envelope.
pub(super) enum Peeked<'a> {
    Keyed(Handle, PieceKind),
    /// Only the contacts tell the key.
    Open(Box<Event<'a>>),
}

impl<'a> Peeked<'a> {
    fn of(event: Event<'a>) -> Self {
        match Ids::of(&event, |ids| ids.key_by_itself()) {
            Some(key) => Self::Keyed(key, event.piece_kind("")),
            None => Self::Open(Box::new(event)),
        }
    }
}

impl<'a> Element<'a> for Peeked<'a> {
    fn only<A: MapAccess<'a>>(list: List, map: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(match list {
            List::Messages => element(map)?.map(|message| Self::of(Event::Message(message))),
            List::Statuses => element(map)?.map(|status| Self::of(Event::Status(status))),
            List::Errors => element(map)?.map(|error| Self::of(Event::Error(error))),
            List::Calls => element(map)?.map(|call| Self::of(Event::Call(call))),
            List::Echoes => element(map)?.map(|echo| Self::of(Event::Echo(echo))),
            List::Preferences => element(map)?.map(|wish| Self::of(Event::Preference(wish))),
        })
    }
}

fn element<'a, T: Deserialize<'a>, A: MapAccess<'a>>(map: &mut A) -> Result<Option<T>, A::Error> {
    let list: Option<One<T>> = map.next_value()?;
    Ok(list.and_then(|list| list.0))
}

/// A change's value with at most one inner event. Written out, so that there is one place for the event and not one per list.
struct Lists<'a, E> {
    metadata: Option<&'a RawValue>,
    contacts: Option<&'a RawValue>,
    element: Option<E>,
}

impl<'de: 'a, 'a, E: Element<'de>> Deserialize<'de> for Lists<'a, E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<'a, E>(PhantomData<Lists<'a, E>>);
        impl<'de: 'a, 'a, E: Element<'de>> Visitor<'de> for Reader<'a, E> {
            type Value = Lists<'a, E>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lists<'a, E>, A::Error> {
                let mut lists = Lists { metadata: None, contacts: None, element: None };
                while let Some(key) = map.next_key::<Str<'de>>()? {
                    if let Some(list) = List::of_name(&key) {
                        let element = E::only(list, &mut map)?;
                        if element.is_some() && lists.element.is_some() {
                            return Err(de::Error::custom("more than one"));
                        }
                        lists.element = lists.element.or(element);
                    } else if &*key == "contacts" {
                        lists.contacts = map.next_value()?;
                    } else if &*key == "metadata" {
                        lists.metadata = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(lists)
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
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

/// The key, kind and subject of a body whose one change holds lists, with exactly one inner event, in one pass. None when it holds
/// several or is something else.
pub(super) fn peek(text: &str) -> Option<(Handle, PieceKind, Option<About>)> {
    let only = only_change::<Lists<'_, Peeked<'_>>>(text)?;
    let (field, lists) = (only.field, only.value);
    if !is_split(&field) {
        return None;
    }
    let about = subject(lists.metadata, only.id);
    Some(match lists.element {
        Some(Peeked::Keyed(handle, kind)) => (handle, kind, about),
        Some(Peeked::Open(event)) => (Ids::of(&event, |ids| ids.key_with(lists.contacts)), event.piece_kind(&field), about),
        None => (Handle::account(), Event::Whole.piece_kind(&field), about),
    })
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    phone_number_id: Option<&'a RawValue>,
}

/// Which number a change is about: the one that its metadata names, else any of the business account that its entry names. What is
/// neither text nor number names nothing.
pub(super) fn subject(metadata: Option<&RawValue>, entry_id: Option<&RawValue>) -> Option<About> {
    let number = metadata.and_then(|raw| serde_json::from_str::<Metadata<'_>>(raw.get()).ok()).and_then(|found| found.phone_number_id);
    if let Some(id) = number.and_then(id_of) {
        return Some(About::Account(id));
    }
    entry_id.and_then(id_of).map(About::Group)
}

/// An id, as text or number; `0` is Meta's placeholder in the tests of its dashboard.
fn id_of(raw: &RawValue) -> Option<Box<str>> {
    let text = raw.get();
    let id = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let is_id = !id.is_empty() && id != "0" && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && id != "null";
    is_id.then(|| id.into())
}

/// Reads any body that holds exactly one inner event.
pub(super) fn single(text: &str) -> Option<Single<'_>> {
    if let Some(Only { field, sent_at, value: lists, .. }) = only_change::<Lists<'_, (List, &RawValue)>>(text)
        && is_split(&field)
    {
        let contacts = lists.contacts;
        let event = lists.element.map_or(Ok(Event::Whole), |(list, raw)| Event::of_element(list, raw)).ok()?;
        return Some(Single { field, sent_at, contacts, event, element: lists.element.map(|(_, raw)| raw) });
    }
    // The lists of such a change are its own affair and may have any shape.
    let Only { field, sent_at, value, .. } = only_change::<&RawValue>(text)?;
    if is_split(&field) {
        return None;
    }
    let event = Event::of_change(&field, value);
    Some(Single { field, sent_at, contacts: None, event, element: None })
}

/// The one change of an envelope.
struct Only<'a, V> {
    id: Option<&'a RawValue>,
    sent_at: Option<Seconds>,
    field: Str<'a>,
    value: V,
}

fn only_change<'a, V: Deserialize<'a>>(text: &'a str) -> Option<Only<'a, V>> {
    let envelope: Envelope<'a, V> = serde_json::from_str(text).ok()?;
    if &*envelope.object != OBJECT {
        return None;
    }
    let entry = envelope.entry.0?;
    let change = entry.changes.0?;
    Some(Only { id: entry.id, sent_at: entry.time, field: change.field, value: change.value })
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
