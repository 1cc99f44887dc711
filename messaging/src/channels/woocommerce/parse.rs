//! What one piece says, and how a repeat of it is known.
//!
//! The platform's delivery id is not unique (two events within a second share it) and no header is signed. So:
//!
//! * a thing is created once: its id and the time of its making;
//! * a change is known by the time that the thing says, and by all that it says: partial refunds and sold stock leave the time as it is;
//! * a deletion says nothing but the id, and may follow a restoration: there the delivery tells them apart.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::topic::{self, Change, Resource, Topic};
use super::wire::{self, Told};
use crate::channels::{ContactInfo, Inbound, InboundBody, Malformed, PieceKind};
use crate::clock::Timestamp;
use crate::content::Handle;
use crate::event::EventType;

/// Bytes of a fingerprint: nobody has a reason to make two things look alike, and could not tell the shop's own secret apart.
const FINGERPRINT_BYTES: usize = 16;

pub(super) fn parse(piece: &[u8]) -> Result<Inbound, Malformed> {
    // No detail: the parser's own words may quote personal data.
    let malformed = |what: &str| Malformed(what.to_owned());
    let told: Told<'_> = serde_json::from_slice(piece).map_err(|_| malformed("is not a piece"))?;
    let (handle, kind) = wire::place(&told.topic, told.data).ok_or_else(|| malformed("is a thing without an id"))?;
    let data: Value = serde_json::from_str(told.data.get()).map_err(|_| malformed("is too deep"))?;
    let telling = Telling { told: &told, handle, data };
    Ok(match (kind, topic::read(&told.topic)) {
        (PieceKind::Account, _) => telling.rights_lost(),
        (_, Topic::Known(resource, change)) => telling.thing(resource, change),
        (_, Topic::Other(_) | Topic::Action) => telling.notice(),
    })
}

/// A piece on its way to an event.
struct Telling<'a> {
    told: &'a Told<'a>,
    handle: Handle,
    data: Value,
}

impl Telling<'_> {
    fn event(self, platform_id: String, qualifier: String, at: Timestamp, contact: ContactInfo, body: InboundBody) -> Inbound {
        let mut context = Map::new();
        if !self.told.source.is_empty() {
            context.insert("source".into(), self.told.source.as_str().into());
        }
        if self.told.pulled {
            context.insert("pulled".into(), true.into());
        }
        Inbound { platform_id, qualifier, at, contact, opens_window: false, from_ad: false, body, context }
    }

    /// The delivery's id, for what nothing else tells apart. Without one the bytes do (an empty platform id).
    fn by_delivery(&self, what: String) -> (String, String) {
        if self.told.delivery.is_empty() { (String::new(), what) } else { (what, self.told.delivery.clone()) }
    }

    fn thing(self, resource: Resource, change: Change) -> Inbound {
        let id = match &self.data["id"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let name = format!("{}:{id}", resource.name());
        let (created, modified) = (gmt(&self.data, "date_created_gmt"), gmt(&self.data, "date_modified_gmt"));
        let at = if change == Change::Created { created } else { modified };
        let (platform_id, qualifier) = match change {
            Change::Created if created > Timestamp::ZERO => (name, format!("created:{}", created.as_secs())),
            Change::Created | Change::Updated => (name, format!("{}:{}:{}", change.name(), modified.as_secs(), fingerprint(&self.data))),
            // Asked for: the time of the bin tells two of them apart.
            Change::Deleted | Change::Restored if self.told.pulled => (name, format!("{}:{}", change.name(), modified.as_secs())),
            Change::Deleted | Change::Restored => self.by_delivery(format!("{name}:{}", change.name())),
        };
        let contact = contact(&self.handle, resource, &self.data);
        let data = if change == Change::Deleted { only_id(&self.data) } else { self.data.clone() };
        let body = InboundBody::Resource { event: topic::event(resource, change), name: resource.name(), data };
        self.event(platform_id, qualifier, at, contact, body)
    }

    /// A hook of WordPress or a thing of a plugin: told as it came.
    fn notice(self) -> Inbound {
        let kind = if self.told.topic.is_empty() { "unknown".to_owned() } else { self.told.topic.clone() };
        let id = self.data.get("id").map_or(String::new(), Value::to_string);
        let (platform_id, qualifier) = self.by_delivery(format!("{kind}:{id}"));
        let contact = ContactInfo { handles: vec![self.handle.clone()], ..ContactInfo::default() };
        let (at, raw) = (gmt(&self.data, "date_modified_gmt"), self.data.clone());
        self.event(platform_id, qualifier, at, contact, InboundBody::Platform { kind, raw })
    }

    /// The shop may not tell us any more, and says so in the place of every thing.
    fn rights_lost(self) -> Inbound {
        let (platform_id, qualifier) = self.by_delivery(format!("error:{}", self.told.topic));
        let mut error = Map::new();
        error.insert("code".into(), self.data["code"].clone());
        error.insert("message".into(), self.data["message"].clone());
        error.insert("status".into(), self.data["data"]["status"].clone());
        error.insert("topic".into(), self.told.topic.as_str().into());
        let data = Map::from_iter([("webhook_error".to_owned(), Value::Object(error))]);
        let contact = ContactInfo { handles: vec![self.handle.clone()], ..ContactInfo::default() };
        let body = InboundBody::Account { event: EventType::AccountStateChanged, data };
        self.event(platform_id, qualifier, Timestamp::ZERO, contact, body)
    }
}

/// A time of the thing. The platform's times have no zone; those named so are UTC. `ZERO`: none, or an odd one.
pub(super) fn gmt(data: &Value, name: &str) -> Timestamp {
    let Some(text) = data.get(name).and_then(Value::as_str) else { return Timestamp::ZERO };
    let zoned = if text.ends_with('Z') { text.to_owned() } else { format!("{text}Z") };
    zoned.parse().unwrap_or(Timestamp::ZERO)
}

/// All that a thing says of itself, in few characters. Links are about the shop, and differ by who asks.
fn fingerprint(data: &Value) -> String {
    let mut own = data.clone();
    if let Some(members) = own.as_object_mut() {
        members.remove("_links");
    }
    HEXLOWER.encode(&Sha256::digest(own.to_string().as_bytes())[..FINGERPRINT_BYTES])
}

fn only_id(data: &Value) -> Value {
    Value::Object(Map::from_iter([("id".to_owned(), data["id"].clone())]))
}

fn contact(handle: &Handle, resource: Resource, data: &Value) -> ContactInfo {
    let who = match resource {
        Resource::Order => data.get("billing"),
        Resource::Customer => Some(data),
        Resource::Product | Resource::Coupon => None,
    };
    let said = |name: &str| who.and_then(|who| who.get(name)).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let name = match (said("first_name"), said("last_name")) {
        (Some(first), Some(last)) => Some(format!("{first} {last}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
        (None, None) => None,
    };
    let username = said("username").filter(|_| resource == Resource::Customer).map(str::to_owned);
    ContactInfo { handles: vec![handle.clone()], name, username, ..ContactInfo::default() }
}
