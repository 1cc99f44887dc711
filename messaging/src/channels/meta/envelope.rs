//! Splitting: one piece per inner event, each an envelope with one entry and one event, rebuilt around the event's exact bytes.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::signed_request::{CONNECTOR, Callback};
use super::wire::{Change, Comment, Entry, Envelope, Id, Messaging, party};
use super::{COMMENT, Product};
use crate::channels::{Piece, PieceKind};
use crate::content::Handle;

/// Most inner events of one request: ten times what Meta says it sends.
const EVENTS_MAX: usize = 10_000;

/// Where an event stood in its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `messaging`.
    Messaging,
    /// `standby`: another app owns the thread, we only listen.
    Standby,
    /// `changes`.
    Changes,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Messaging => "messaging",
            Self::Standby => "standby",
            Self::Changes => "changes",
        }
    }
}

/// The pieces of an authentic body. What cannot be split is a piece as well.
pub(in crate::channels) fn pieces(product: &Product, body: &Bytes) -> Vec<Piece> {
    let whole = || vec![Piece::unparsable(body.clone())];
    let Ok(text) = std::str::from_utf8(body) else { return whole() };
    usual(product, text).or_else(|| any(product, text)).unwrap_or_else(whole)
}

/// The pieces of whatever can be split. None: nothing can.
fn any(product: &Product, text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    for envelope in &envelopes(text)? {
        if &*envelope.object != product.object {
            return None;
        }
        for raw in &envelope.entry {
            split_entry(product, raw, &mut pieces);
            if pieces.len() > EVENTS_MAX {
                return None;
            }
        }
    }
    (!pieces.is_empty()).then_some(pieces)
}

/// What nearly all bodies are, so that one pass reads it: lists of events in entries, nothing odd. Whatever else there is, is looked at
/// more closely by what follows; both give the same pieces (`both_readings_are_one`).
#[derive(Deserialize)]
struct Usual<'a> {
    #[serde(borrow)]
    object: Cow<'a, str>,
    #[serde(borrow)]
    entry: Vec<UsualEntry<'a>>,
}

#[derive(Deserialize)]
struct UsualEntry<'a> {
    #[serde(borrow)]
    id: Id<'a>,
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messaging: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    standby: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    changes: Vec<&'a RawValue>,
    /// A change without a list.
    #[serde(default)]
    field: Option<IgnoredAny>,
}

fn usual(product: &Product, text: &str) -> Option<Vec<Piece>> {
    let envelope: Usual<'_> = serde_json::from_str(text).ok()?;
    let mut pieces = Vec::with_capacity(1);
    if envelope.object != product.object {
        return None;
    }
    for entry in &envelope.entry {
        let lists = [(Place::Messaging, &entry.messaging), (Place::Standby, &entry.standby), (Place::Changes, &entry.changes)];
        if entry.id.is_empty() || entry.field.is_some() || lists.iter().all(|(_, list)| list.is_empty()) {
            return None;
        }
        for (place, list) in lists {
            for element in list {
                let (handle, kind) = key(product, &entry.id, place, element.get())?;
                let body = Bytes::from(around(product, Some(&entry.id), entry.time, place, element.get()));
                pieces.push(Piece::new(handle, kind, body).about(&entry.id));
            }
        }
    }
    (!pieces.is_empty() && pieces.len() <= EVENTS_MAX).then_some(pieces)
}

/// The envelope; some samples of the platform wrap it in a list.
fn envelopes(text: &str) -> Option<Vec<Envelope<'_>>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    serde_json::from_str(text).ok().map(|envelope| vec![envelope])
}

fn split_entry(product: &Product, raw: &RawValue, pieces: &mut Vec<Piece>) {
    let unparsable = || Piece::unparsable(Bytes::copy_from_slice(raw.get().as_bytes()));
    let Ok(entry) = serde_json::from_str::<Entry<'_>>(raw.get()) else {
        pieces.push(unparsable());
        return;
    };
    let account = entry.id.clone().unwrap_or_default();
    let before = pieces.len();
    let mut add = |place: Place, element: &str| {
        let Some((handle, kind)) = key(product, &account, place, element) else {
            let piece = Piece::unparsable(Bytes::copy_from_slice(element.as_bytes()));
            pieces.push(if account.is_empty() { piece } else { piece.about(&account) });
            return;
        };
        let body = Bytes::from(around(product, entry.id.as_ref(), entry.time, place, element));
        let piece = Piece::new(handle, kind, body);
        pieces.push(if account.is_empty() { piece } else { piece.about(&account) });
    };
    let mut broken = false;
    for (place, list) in [(Place::Messaging, entry.messaging), (Place::Standby, entry.standby), (Place::Changes, entry.changes)] {
        let Some(list) = list else { continue };
        match serde_json::from_str::<Vec<&RawValue>>(list.get()) {
            Ok(elements) => elements.iter().for_each(|element| add(place, element.get())),
            Err(_) => broken = true,
        }
    }
    if let (Some(field), Some(value)) = (&entry.field, entry.value) {
        let field = serde_json::to_string(&*field.0).expect("text serialises");
        add(Place::Changes, &format!(r#"{{"field":{field},"value":{}}}"#, value.get()));
    }
    if broken {
        pieces.push(unparsable());
    }
    // Lists of a name that is not known yet, or no event at all.
    if pieces.len() == before {
        pieces.push(if account.is_empty() { unparsable() } else { unparsable().about(&account) });
    }
}

fn around(product: &Product, id: Option<&Id<'_>>, time: Option<&RawValue>, place: Place, element: &str) -> String {
    let mut out = String::with_capacity(element.len() + 160);
    out.push_str(r#"{"object":""#);
    out.push_str(product.object);
    out.push_str(r#"","entry":[{"#);
    if let Some(id) = id {
        out.push_str(r#""id":"#);
        out.push_str(&serde_json::to_string(&*id.0).expect("text serialises"));
        out.push(',');
    }
    if let Some(time) = time {
        out.push_str(r#""time":"#);
        out.push_str(time.get());
        out.push(',');
    }
    out.push('"');
    out.push_str(place.name());
    out.push_str(r#"":["#);
    out.push_str(element);
    out.push_str("]}]}");
    out
}

/// Whom an event concerns, and what it is. None: not an object.
fn key(product: &Product, account: &Id<'_>, place: Place, element: &str) -> Option<(Handle, PieceKind)> {
    match place {
        Place::Messaging | Place::Standby => {
            let event: Messaging<'_> = serde_json::from_str(element).ok()?;
            Some((person(product, account, &event), kind(&event)))
        }
        Place::Changes => {
            let change: Change<'_> = serde_json::from_str(element).ok()?;
            Some((change_handle(&change), PieceKind::Other))
        }
    }
}

/// The person of an event: whoever of sender and recipient is not the account.
pub(super) fn person(product: &Product, account: &Id<'_>, event: &Messaging<'_>) -> Handle {
    let (sender, recipient) = (party(event.sender), party(event.recipient));
    let other = if sender == *account || (account.is_empty() && is_echo(event)) { recipient } else { sender };
    if other.is_empty() {
        return Handle::account();
    }
    Handle::new(product.scheme, &other)
}

/// Whether the account itself wrote.
pub(super) fn is_echo(event: &Messaging<'_>) -> bool {
    #[derive(serde::Deserialize)]
    struct Part {
        #[serde(default)]
        is_echo: bool,
    }
    let part: Option<Part> = event.message.and_then(|raw| serde_json::from_str(raw.get()).ok());
    part.is_some_and(|part| part.is_echo)
}

/// The comment of a change, or the account.
pub(super) fn change_handle(change: &Change<'_>) -> Handle {
    let comment: Option<Comment<'_>> = change.value.and_then(|value| serde_json::from_str(value.get()).ok());
    let field = change.field.as_deref().unwrap_or_default();
    if let Some(user) = connector(field, change) {
        return Handle::new(CONNECTOR, &user);
    }
    let Some(comment) = comment.filter(|comment| is_comment(field, comment)) else { return Handle::account() };
    let id = comment.comment_id.or(comment.id).filter(|id| !id.is_empty());
    id.map_or_else(Handle::account, |id| Handle::new(COMMENT, &id))
}

/// The person whose callback it is (`signed_request`).
fn connector(field: &str, change: &Change<'_>) -> Option<String> {
    if ![Callback::DataDeletion, Callback::Deauthorize].iter().any(|callback| callback.name() == field) {
        return None;
    }
    #[derive(serde::Deserialize)]
    struct Part {
        user_id: String,
    }
    let part: Part = serde_json::from_str(change.value?.get()).ok()?;
    Some(part.user_id).filter(|user| !user.is_empty())
}

/// Whether a change is about a comment.
pub(super) fn is_comment(field: &str, comment: &Comment<'_>) -> bool {
    match field {
        "feed" => comment.item.as_deref() == Some("comment"),
        _ => matches!(field, "comments" | "live_comments" | "mentions"),
    }
}

fn kind(event: &Messaging<'_>) -> PieceKind {
    if event.message.is_some() || event.postback.is_some() {
        PieceKind::Message
    } else if event.delivery.is_some() || event.read.is_some() {
        PieceKind::Status
    } else if event.reaction.is_some() {
        PieceKind::Reaction
    } else if event.policy_enforcement.is_some() {
        PieceKind::Account
    } else {
        PieceKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::{instagram, messenger};

    fn seen(pieces: &[Piece]) -> Vec<String> {
        pieces.iter().map(|piece| format!("{:?} {:?} {:?} {:?}", piece.handle(), piece.kind(), piece.account(), piece.body())).collect()
    }

    /// Every sample, and a thousand damaged forms of each: where one pass suffices it gives what the closer look gives.
    #[test]
    fn both_readings_are_one() {
        let mut usuals = 0;
        for (product, name) in [(&messenger::PRODUCT, "messenger"), (&instagram::PRODUCT, "instagram")] {
            let folder = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
            for file in std::fs::read_dir(folder).expect("fixtures") {
                let sample = std::fs::read_to_string(file.expect("an entry").path()).expect("text");
                let sample = serde_json::from_str::<serde_json::Value>(&sample).expect("JSON").to_string();
                let mut seed = 7_u64;
                for round in 0..1000 {
                    let mut bytes = sample.clone().into_bytes();
                    if round > 0 {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let at = (seed >> 33) as usize % bytes.len();
                        bytes[at] = b"\"{}[],:0n x"[(seed >> 20) as usize % 11];
                    }
                    let Ok(text) = std::str::from_utf8(&bytes) else { continue };
                    let Some(pieces) = usual(product, text) else { continue };
                    usuals += usize::from(round == 0);
                    let closer = any(product, text).expect("what is usual can be split");
                    assert_eq!(seen(&pieces), seen(&closer), "{text}");
                }
            }
        }
        assert!(usuals > 20, "most samples are usual: {usuals}");
    }
}
