//! The shape of a piece: what stood in the headers, around the exact bytes of the body.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::topic::{self, Resource, Topic};
use super::{CUSTOMER, ORDER};
use crate::channels::{Piece, PieceKind};
use crate::content::Handle;

/// Longest id, in characters.
const ID_CHARS_MAX: usize = 64;
/// Longest name of a plugin's resource, in characters.
const RESOURCE_CHARS_MAX: usize = 40;

/// A piece.
#[derive(Serialize, Deserialize)]
pub(super) struct Told<'a> {
    /// Such as `order.created`; empty when no header says it.
    #[serde(default)]
    pub topic: String,
    /// The platform's id of the delivery: not unique, and the only thing that tells two deletions apart.
    #[serde(default)]
    pub delivery: String,
    /// Which shop says so.
    #[serde(default)]
    pub source: String,
    /// Asked for, and not told.
    #[serde(default)]
    pub pulled: bool,
    /// The body.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

impl Told<'_> {
    /// The piece that this is, or one that is not to be understood.
    pub fn piece(&self) -> Piece {
        let bytes = Bytes::from(serde_json::to_vec(self).expect("text and raw JSON serialise"));
        match place(&self.topic, self.data) {
            Some((handle, kind)) => Piece::new(handle, kind, bytes),
            None => Piece::unparsable(bytes),
        }
    }
}

/// Whom it concerns, and what kind of thing it is. None: a thing of the shop without an id.
pub(super) fn place(topic: &str, data: &RawValue) -> Option<(Handle, PieceKind)> {
    let members: Members<'_> = serde_json::from_str(data.get()).unwrap_or_default();
    if is_error(&members) {
        return Some((Handle::account(), PieceKind::Account));
    }
    let id = members.get("id").and_then(|raw| id(raw));
    let handle = match topic::read(topic) {
        Topic::Known(Resource::Order, _) => Handle::new(ORDER, &id?),
        Topic::Known(Resource::Customer, _) => Handle::new(CUSTOMER, &id?),
        // May name people (`used_by`), so it is sealed as theirs.
        Topic::Known(Resource::Coupon, _) => Handle::new("coupon", &id?),
        Topic::Known(Resource::Product, _) => id.map(|_| Handle::account())?,
        Topic::Other(resource) => match id.filter(|_| is_plain(resource)) {
            Some(id) => Handle::new(resource, &id),
            None => notice(),
        },
        Topic::Action => notice(),
    };
    Some((handle, PieceKind::Other))
}

/// What belongs to nobody in particular, and may say anything of anybody: sealed all the same.
fn notice() -> Handle {
    Handle::new("notice", "shop")
}

/// The members of an object, as they came.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The shop says that it may not tell: the webhook's owner lost their rights. Signed like anything else.
fn is_error(members: &Members<'_>) -> bool {
    let is_text = |name: &str| members.get(name).is_some_and(|raw| raw.get().starts_with('"'));
    !members.contains_key("id") && is_text("code") && is_text("message") && members.contains_key("data")
}

/// An id, which stands as a whole number or as text.
fn id(raw: &RawValue) -> Option<String> {
    if let Ok(number) = serde_json::from_str::<u64>(raw.get()) {
        return Some(number.to_string());
    }
    let text: String = serde_json::from_str(raw.get()).ok()?;
    let fits = (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(text)
}

/// Whether a plugin's resource may be a handle's scheme.
fn is_plain(resource: &str) -> bool {
    let fits = (1..=RESOURCE_CHARS_MAX).contains(&resource.len()) && resource != "account";
    fits && resource.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}
