//! What a piece says: an interaction, a webhook event, or a frame of the Gateway.

use serde_json::Map;

use super::receive::{Said, locate};
use super::wire::{Object, malformed, not_json};
use super::{interaction, message, news};
use crate::channels::{ContactInfo, Inbound, InboundBody, Malformed};
use crate::clock::Timestamp;
use crate::content::Handle;

pub(super) fn parse(piece: &[u8]) -> Result<Inbound, Malformed> {
    let members: Object = serde_json::from_slice(piece).map_err(|error| not_json(&error))?;
    // Whatever comes by HTTP has a type.
    if members.contains_key("t") && !members.contains_key("type") {
        return message::parse(members);
    }
    let located = locate(piece).ok_or_else(|| malformed("neither an interaction nor a webhook event"))?;
    match located.said {
        Said::Event => news::parse(members, located.handle),
        Said::Interaction(kind) => interaction::parse(kind, members, located.handle),
        Said::Ping | Said::EventPing => Err(malformed("a ping says nothing")),
    }
}

/// An event without anything special: the caller fills in the rest.
pub(super) fn inbound(handle: Handle, platform_id: String, at: Timestamp, body: InboundBody) -> Inbound {
    let contact = ContactInfo { handles: vec![handle], ..ContactInfo::default() };
    Inbound { platform_id, qualifier: String::new(), at, contact, opens_window: false, from_ad: false, body, context: Map::new() }
}
