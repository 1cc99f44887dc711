//! What subscribers receive: the public contract. A CloudEvents-shaped JSON object.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{AccountId, ConversationId, EventId, MessageId, TenantId};

macro_rules! event_types {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kinds of event that exist so far. Open for clients: they ignore what they do not know.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum EventType { $($(#[$doc])* $name,)* }

        impl EventType {
            /// All of them, with what they mean.
            pub const ALL: &'static [EventType] = &[$(EventType::$name,)*];
            /// The name in `type`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            /// The type of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

event_types! {
    /// A person wrote.
    MessageReceived = "message.received",
    /// The business wrote by another way (phone app, other program).
    MessageEchoed = "message.echoed",
    /// The platform took a message of ours.
    MessageSent = "message.sent",
    /// It reached the person's device.
    MessageDelivered = "message.delivered",
    /// The person read it (or played a voice message).
    MessageRead = "message.read",
    /// It will not reach the person; `reason` says why.
    MessageFailed = "message.failed",
    /// Whether the platform took it cannot be told (yet).
    MessageUnknown = "message.unknown",
    /// An emoji was put on a message, or taken away.
    MessageReaction = "message.reaction",
    /// A message was changed by its author.
    MessageEdited = "message.edited",
    /// A message was withdrawn by its author: forget its content.
    MessageDeleted = "message.deleted",
    /// Free text is allowed from now on.
    WindowOpened = "conversation.window.opened",
    /// Free text will soon end.
    WindowClosing = "conversation.window.closing",
    /// Free text has ended.
    WindowClosed = "conversation.window.closed",
    /// The person wants no (marketing) messages.
    ContactOptedOut = "contact.opted_out",
    /// The person wants them again.
    ContactOptedIn = "contact.opted_in",
    /// Name, number, id, reachability or a flag changed.
    ContactUpdated = "contact.updated",
    /// A medium of a message is stored here: `media.url` leads to its bytes.
    MediaReady = "media.ready",
    /// A medium was not had; `media.reason` names the rule.
    MediaFailed = "media.failed",
    /// A template was approved, rejected, paused or re-rated.
    TemplateChanged = "template.changed",
    /// An account was limited, flagged, broken or restored.
    AccountStateChanged = "account.state_changed",
    /// An endpoint takes no more deliveries.
    EndpointDisabled = "endpoint.disabled",
    /// An endpoint answers again.
    EndpointRecovered = "endpoint.recovered",
    /// A delivery was given up.
    DeliveryExhausted = "delivery.exhausted",
    /// An order was made in the shop.
    OrderCreated = "order.created",
    /// An order was changed in the shop.
    OrderUpdated = "order.updated",
    /// An order was removed from the shop.
    OrderDeleted = "order.deleted",
    /// An order came back from the bin.
    OrderRestored = "order.restored",
    /// A customer was made in the shop.
    CustomerCreated = "customer.created",
    /// A customer was changed in the shop.
    CustomerUpdated = "customer.updated",
    /// A customer was removed from the shop.
    CustomerDeleted = "customer.deleted",
    /// A customer came back from the bin.
    CustomerRestored = "customer.restored",
    /// A product was made in the shop.
    ProductCreated = "product.created",
    /// A product was changed in the shop.
    ProductUpdated = "product.updated",
    /// A product was removed from the shop.
    ProductDeleted = "product.deleted",
    /// A product came back from the bin.
    ProductRestored = "product.restored",
    /// A coupon was made in the shop.
    CouponCreated = "coupon.created",
    /// A coupon was changed in the shop.
    CouponUpdated = "coupon.updated",
    /// A coupon was removed from the shop.
    CouponDeleted = "coupon.deleted",
    /// A coupon came back from the bin.
    CouponRestored = "coupon.restored",
    /// An authentic notice that has no type of its own, with its raw part.
    PlatformEvent = "platform.event",
    /// A test, asked for by `POST /v1/endpoints/{id}/test`.
    Test = "trunkline.test",
    /// An account's credential ends soon and was not refreshed by itself: connect the account again.
    AccountCredentialExpiring = "account.credential_expiring",
}

/// An event's head. `data` is JSON text and stands beside it: inline in the event's row, or as the content of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Computed: the same occurrence has the same id, and it is the `webhook-id`.
    pub id: EventId,
    /// What happened.
    pub kind: EventType,
    /// Whose.
    pub tenant: TenantId,
    /// On which account.
    pub account: AccountId,
    /// In which conversation, when it belongs to one.
    pub conversation: Option<ConversationId>,
    /// The message that it is about.
    pub message: Option<MessageId>,
    /// When it happened, by the platform where it says so.
    pub at: Timestamp,
}

impl Event {
    /// The body of the webhook and of the feed, byte for byte the same every time.
    pub fn render(&self, data: &str) -> Bytes {
        let mut out = String::with_capacity(data.len() + 384);
        out.push_str(r#"{"specversion":"1.0","id":""#);
        let _ = write!(out, "{}", self.id);
        let _ = write!(out, r#"","source":"/accounts/{}","type":"{}","time":"{}""#, self.account, self.kind.name(), self.at);
        if let Some(conversation) = self.conversation {
            let _ = write!(out, r#","subject":"{conversation}""#);
        }
        let _ = write!(out, r#","datacontenttype":"application/json","dataschema":"/v1/event-types/{}/schema""#, self.kind.name());
        let _ = write!(out, r#","tenant":"{}","data":{data}}}"#, self.tenant);
        Bytes::from(out)
    }
}

/// Which events an endpoint wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventFilter(Vec<String>);

impl EventFilter {
    /// From the API's list: names, `prefix.*`, or `*`. Says which entries name nothing.
    pub fn parse(entries: Vec<String>) -> Result<Self, Vec<String>> {
        let known = |entry: &String| match entry.strip_suffix(".*") {
            _ if entry == "*" => true,
            Some(prefix) => EventType::ALL.iter().any(|kind| kind.name().starts_with(&format!("{prefix}."))),
            None => EventType::from_name(entry).is_some(),
        };
        let unknown: Vec<String> = entries.iter().filter(|entry| !known(entry)).cloned().collect();
        if unknown.is_empty() { Ok(Self(entries)) } else { Err(unknown) }
    }

    /// Whether the filter lets a type through.
    pub fn takes(&self, kind: EventType) -> bool {
        self.0.iter().any(|entry| match entry.strip_suffix(".*") {
            _ if entry == "*" => true,
            Some(prefix) => kind.name().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')),
            None => entry == kind.name(),
        })
    }

    /// The entries.
    pub fn entries(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_renders_as_a_cloud_event() {
        let event = Event {
            id: EventId([1; 16]),
            kind: EventType::MessageReceived,
            tenant: TenantId([2; 16]),
            account: AccountId([3; 16]),
            conversation: Some(ConversationId([4; 16])),
            message: None,
            at: Timestamp::from_secs(1_795_168_800),
        };
        let value: serde_json::Value = serde_json::from_slice(&event.render(r#"{"a":1}"#)).unwrap();
        assert_eq!(value["specversion"], "1.0");
        assert_eq!(value["type"], "message.received");
        assert_eq!(value["data"]["a"], 1);
        assert_eq!(value["id"], event.id.to_string());
        assert!(!value["id"].as_str().unwrap().contains('.'), "standard webhooks forbid dots in ids");
    }

    #[test]
    fn filters() {
        let filter = |entries: &[&str]| EventFilter::parse(entries.iter().map(|e| (*e).to_owned()).collect());
        assert!(filter(&["*"]).unwrap().takes(EventType::Test));
        assert!(filter(&["message.*"]).unwrap().takes(EventType::MessageRead));
        assert!(!filter(&["message.*"]).unwrap().takes(EventType::WindowClosed));
        assert!(filter(&["conversation.window.*"]).unwrap().takes(EventType::WindowClosed));
        assert!(filter(&["message.read"]).unwrap().takes(EventType::MessageRead));
        assert_eq!(filter(&["message.read", "mesage.read", "x.*"]).unwrap_err(), ["mesage.read", "x.*"]);
    }
}
