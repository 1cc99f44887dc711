//! From a stranger's request to verified pieces.

use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

use super::envelope::{self, Batch, BatchEntry};
use super::people::{Ids, People};
use super::wire::{self, Event, List, Str};
use crate::channels::{About, Piece, PieceKind, Received, Refusal, Verifier, meta};
use crate::content::Handle;
use crate::exchange::WebhookRequest;

/// Each piece repeats the envelope, so splitting makes a body grow: a normal one not even twofold. A body made to grow
/// without bound is kept whole.
const SPLIT_GROWTH_MAX: usize = 16;
/// Growth that is always allowed, in bytes.
const SPLIT_SLACK_BYTES: usize = 256 * 1024;

pub(super) fn receive(request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
    if let Some(reply) = meta::authentic(request, verifier)? {
        return Ok(Received::Handshake(reply));
    }
    Ok(Received::Pieces(pieces(request.body)))
}

/// One piece per inner event of an authentic body.
fn pieces(body: &Bytes) -> Vec<Piece> {
    let Ok(text) = std::str::from_utf8(body) else { return vec![Piece::unparsable(body.clone())] };
    if let Some((handle, kind, about)) = envelope::peek(text) {
        return vec![Piece::new(handle, kind, body.clone()).about_whom(about)];
    }
    match split(text) {
        Some(mut pieces) => {
            // The platform's own bytes where they already have the one shape.
            match pieces.pop() {
                Some(piece) if pieces.is_empty() && (piece.is_unparsable() || envelope::single(text).is_some()) => {
                    vec![piece.with_body(body.clone())]
                }
                last => {
                    pieces.extend(last);
                    pieces
                }
            }
        }
        None => vec![Piece::unparsable(body.clone())],
    }
}

/// None: not an envelope, or one that cannot be split within bounds.
fn split(text: &str) -> Option<Vec<Piece>> {
    let batch: Batch<'_> = serde_json::from_str(text).ok()?;
    if &*batch.object != envelope::OBJECT {
        return None;
    }
    let mut splitter = Splitter { pieces: Vec::new(), about: None, bytes: 0, bytes_max: text.len() * SPLIT_GROWTH_MAX + SPLIT_SLACK_BYTES };
    for entry in &batch.entry {
        for change in &entry.changes {
            splitter.change(entry, &change.field, change.value)?;
        }
    }
    // An envelope without any event would vanish.
    if splitter.pieces.is_empty() { None } else { Some(splitter.pieces) }
}

/// Collects pieces. Its methods say none when the pieces grow beyond bounds.
struct Splitter {
    pieces: Vec<Piece>,
    /// What the present change is about.
    about: Option<About>,
    bytes: usize,
    bytes_max: usize,
}

impl Splitter {
    fn change(&mut self, entry: &BatchEntry<'_>, field: &Str<'_>, value: &RawValue) -> Option<()> {
        if !wire::is_split(field) {
            self.about = envelope::subject(metadata_of(value), entry.id);
            let event = Event::of_change(field, value);
            let handle = Ids::of(&event, |ids| ids.key_with(None));
            return self.put(Shell { entry, field }.around(value.get()), Some((handle, event.piece_kind(field))));
        }
        let Some(change) = Members::of(value) else {
            self.about = envelope::subject(None, entry.id);
            return self.put(Shell { entry, field }.around(value.get()), None);
        };
        self.about = envelope::subject(change.metadata, entry.id);
        if change.lists.iter().all(|(_, elements)| elements.is_empty()) {
            let known = (Handle::account(), Event::Whole.piece_kind(field));
            return self.put(Shell { entry, field }.around(value.get()), Some(known));
        }
        let people = People::of(change.contacts);
        for (list, elements) in &change.lists {
            for element in elements {
                self.element(&Shell { entry, field }, &change, &people, *list, element)?;
            }
        }
        Some(())
    }

    fn element(&mut self, shell: &Shell<'_>, change: &Members<'_>, people: &People<'_>, list: List, element: &RawValue) -> Option<()> {
        let Ok(event) = Event::of_element(list, element) else {
            return self.put(shell.around(&change.with(list, element, None)), None);
        };
        let (handle, contact) = Ids::of(&event, |ids| {
            let found = people.find(ids);
            (ids.key(found.map(|(contact, _)| contact)), found.map(|(_, raw)| raw))
        });
        let kind = event.piece_kind(shell.field);
        self.put(shell.around(&change.with(list, element, contact)), Some((handle, kind)))
    }

    fn put(&mut self, body: String, known: Option<(Handle, PieceKind)>) -> Option<()> {
        self.bytes += body.len();
        if self.bytes > self.bytes_max {
            return None;
        }
        let body = Bytes::from(body);
        let piece = match known {
            Some((handle, kind)) => Piece::new(handle, kind, body),
            None => Piece::unparsable(body),
        };
        self.pieces.push(piece.about_whom(self.about.clone()));
        Some(())
    }
}

/// The metadata of a value whose other members are its own affair.
fn metadata_of(value: &RawValue) -> Option<&RawValue> {
    #[derive(serde::Deserialize)]
    struct Beside<'a> {
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    serde_json::from_str::<Beside<'_>>(value.get()).ok()?.metadata
}

/// A change's value, taken apart.
struct Members<'a> {
    metadata: Option<&'a RawValue>,
    contacts: Option<&'a RawValue>,
    lists: Vec<(List, Vec<&'a RawValue>)>,
    /// All other members as JSON text, each with a comma behind it: they go with every event.
    rest: String,
}

impl<'a> Members<'a> {
    /// None: not an object, or a list that is none.
    fn of(value: &'a RawValue) -> Option<Self> {
        let mut members: BTreeMap<Str<'a>, &'a RawValue> = serde_json::from_str(value.get()).ok()?;
        let mut lists = Vec::new();
        for list in List::ALL {
            let Some(raw) = members.remove(list.name()) else { continue };
            let elements: Option<Vec<&RawValue>> = serde_json::from_str(raw.get()).ok()?;
            lists.push((list, elements.unwrap_or_default()));
        }
        let contacts = members.remove("contacts");
        let metadata = members.get("metadata").copied();
        let mut rest = String::new();
        for (name, raw) in members {
            push_text(&mut rest, &name);
            rest.push(':');
            rest.push_str(raw.get());
            rest.push(',');
        }
        Some(Self { metadata, contacts, lists, rest })
    }

    /// The value with one event only.
    fn with(&self, list: List, element: &RawValue, contact: Option<&RawValue>) -> String {
        let contact = contact.map_or("", RawValue::get);
        let mut out = String::with_capacity(self.rest.len() + contact.len() + element.get().len() + 64);
        out.push('{');
        out.push_str(&self.rest);
        if !contact.is_empty() {
            out.push_str("\"contacts\":[");
            out.push_str(contact);
            out.push_str("],");
        }
        push_text(&mut out, list.name());
        out.push_str(":[");
        out.push_str(element.get());
        out.push_str("]}");
        out
    }
}

/// The envelope around a value.
struct Shell<'a> {
    entry: &'a BatchEntry<'a>,
    field: &'a Str<'a>,
}

impl Shell<'_> {
    fn around(&self, value: &str) -> String {
        let mut out = String::with_capacity(value.len() + self.field.len() + 192);
        out.push_str("{\"object\":\"");
        out.push_str(envelope::OBJECT);
        out.push_str("\",\"entry\":[{");
        for (name, raw) in [("\"id\":", self.entry.id), ("\"time\":", self.entry.time)] {
            if let Some(raw) = raw {
                out.push_str(name);
                out.push_str(raw.get());
                out.push(',');
            }
        }
        out.push_str("\"changes\":[{\"value\":");
        out.push_str(value);
        out.push_str(",\"field\":");
        push_text(&mut out, self.field);
        out.push_str("}]}]}");
        out
    }
}

fn push_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("text serialises"));
}
