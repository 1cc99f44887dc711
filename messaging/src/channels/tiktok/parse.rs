//! What one piece says.

use serde_json::{Map, Value};

use super::content::content;
use super::wire::{self, Event, id, object, text, time};
use crate::channels::{ContactInfo, Inbound, InboundBody, Malformed};
use crate::clock::Timestamp;
use crate::event::EventType;
use crate::outcome::Status;

/// Members of a message that go with it as they are.
const BESIDE: [&str; 4] = ["is_follower", "scene_type", "auto_message_type", "referral"];

pub(super) fn parse(piece: &[u8]) -> Result<Inbound, Malformed> {
    // No detail: the parser's own words may quote personal data.
    let event = Event::read(piece).ok_or_else(|| Malformed("is not an event".to_owned()))?;
    Ok(event.tell())
}

impl Event {
    fn tell(&self) -> Inbound {
        match self.kind.as_str() {
            wire::RECEIVED => self.received(),
            wire::SENT => self.echoed(),
            wire::READ => self.read_by_person().unwrap_or_else(|| self.notice()),
            wire::REFERRAL => self.referral(),
            wire::HIGH_INTENT | wire::COMMENT_UPDATE => self.comment(),
            wire::REMOVED => self.removed(),
            _ => self.notice(),
        }
    }

    /// An event that opens no window.
    fn of(&self, platform_id: String, qualifier: String, body: InboundBody) -> Inbound {
        let contact = ContactInfo { handles: vec![self.handle()], ..ContactInfo::default() };
        Inbound { platform_id, qualifier, at: self.at(), contact, opens_window: false, from_ad: false, body, context: Map::new() }
    }

    /// An id for what has none: the same when it comes again. Without a time the bytes tell it apart.
    fn made_id(&self, rest: &str) -> String {
        let at = self.at();
        if at == Timestamp::ZERO {
            return String::new();
        }
        format!("{}:{}:{}:{rest}", self.kind, self.handle().value(), at.as_millis())
    }

    /// Who wrote, what stands beside, and the message's own id.
    fn message(&self, person: &str, body: InboundBody) -> Inbound {
        let message = text(&self.content, "message_id").unwrap_or_default().to_owned();
        let mut inbound = self.of(message, String::new(), body);
        inbound.contact.username = text(&self.content, person).map(str::to_owned);
        for name in BESIDE {
            if let Some(value) = self.content.get(name).filter(|value| !value.is_null()) {
                inbound.context.insert(name.into(), value.clone());
            }
        }
        if let Some(source) = object(&self.content, "message_tag").and_then(|tag| text(tag, "source")) {
            inbound.context.insert("source".into(), source.into());
        }
        if let Some(user) = id(&self.content, "unique_identifier") {
            inbound.context.insert("user_id".into(), user.into());
        }
        inbound
    }

    /// The message that this one answers: one that is quoted, or the card whose button was pressed.
    fn reply_to(&self) -> Option<String> {
        let quoted = object(&self.content, "referenced_message_info").and_then(|info| text(info, "referenced_message_id"));
        let card = || object(&self.content, "reply_source_payload").and_then(|source| text(source, "reply_source_msg_id"));
        quoted.or_else(card).map(str::to_owned)
    }

    fn received(&self) -> Inbound {
        if self.reactions().is_some() {
            return self.reaction().unwrap_or_else(|| self.notice());
        }
        let body = InboundBody::Message { content: content(&self.content), reply_to: self.reply_to() };
        let mut inbound = self.message("from", body);
        // Without a conversation nothing can be answered.
        inbound.opens_window = self.handle().scheme() == super::CONVERSATION;
        inbound.from_ad = is_ad(object(&self.content, "referral"));
        inbound
    }

    fn echoed(&self) -> Inbound {
        // Our vocabulary has reactions of the person only.
        if self.reactions().is_some() {
            return self.notice();
        }
        self.message("to", InboundBody::Echo { content: content(&self.content), reply_to: self.reply_to() })
    }

    /// The one reaction of the list: it opens nothing, as only a message is said to.
    fn reaction(&self) -> Option<Inbound> {
        let [Value::Object(one)] = self.reactions()?.as_slice() else { return None };
        let target = text(one, "original_msg_id")?.to_owned();
        let removed = text(one, "operation") == Some("REMOVE");
        // One without an emoji is a picture made by the platform: never taken for its removal.
        let emoji = text(one, "emoji").or_else(|| text(one, "ai_emoji_url")).or_else(|| text(one, "type")).unwrap_or("unknown");
        let own = time(one, "timestamp");
        let at = if own == Timestamp::ZERO { self.at() } else { own };
        let operation = if removed { "remove" } else { "add" };
        let body = InboundBody::Reaction { target: target.clone(), emoji: (!removed).then(|| emoji.to_owned()) };
        let mut inbound = self.message("from", body);
        inbound.qualifier = format!("{operation}:{target}:{emoji}:{}", at.as_millis());
        inbound.at = at;
        Some(inbound)
    }

    /// All of ours until then was read. None: it does not say until when.
    fn read_by_person(&self) -> Option<Inbound> {
        let upto = time(object(&self.content, "read")?, "last_read_timestamp");
        let by_business = object(&self.content, "from_user").and_then(|user| text(user, "role")) == Some("business_account");
        if upto == Timestamp::ZERO || by_business || self.handle().scheme() != super::CONVERSATION {
            return None;
        }
        let platform_id = format!("read:{}:{}", self.handle().value(), upto.as_millis());
        let mut inbound = self.of(platform_id, String::new(), InboundBody::Watermark { status: Status::Read, upto, messages: Vec::new() });
        inbound.contact.username = text(&self.content, "from").map(str::to_owned);
        Some(inbound)
    }

    /// The person came by something, and has not written yet.
    fn referral(&self) -> Inbound {
        let referral = self.content.get("referral").cloned().unwrap_or_default();
        let from_ad = is_ad(referral.as_object());
        let source = referral.get("source").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut inbound = self.message("from", InboundBody::Platform { kind: "referral".to_owned(), raw: referral });
        inbound.context.remove("referral");
        if inbound.platform_id.is_empty() {
            inbound.platform_id = self.made_id(&source);
        }
        inbound.from_ad = from_ad;
        inbound
    }

    fn comment(&self) -> Inbound {
        let action = text(&self.content, "comment_action").unwrap_or_default().to_owned();
        let body = InboundBody::Platform { kind: self.kind.clone(), raw: Value::Object(self.content.clone()) };
        let mut inbound = self.of(self.made_id(&action), String::new(), body);
        // What is gone or hidden cannot be answered.
        let is_there = matches!(action.as_str(), "" | "insert" | "set_to_public");
        inbound.opens_window = is_there && self.handle().scheme() == super::COMMENT;
        inbound
    }

    /// The account is no longer ours to act for: sends will be refused by the platform from now on.
    fn removed(&self) -> Inbound {
        let mut data = Map::new();
        data.insert("authorization_removed".into(), Value::Object(self.content.clone()));
        let body = InboundBody::Account { event: EventType::AccountStateChanged, data };
        self.of(self.made_id(""), String::new(), body)
    }

    /// Everything else, as it came: also messages of people in Europe, of which nothing is told.
    fn notice(&self) -> Inbound {
        let raw = Value::Object(self.content.clone());
        let message = text(&self.content, "message_id");
        let platform_id = message.map_or_else(|| self.made_id(&raw.to_string()), str::to_owned);
        self.of(platform_id, self.kind.clone(), InboundBody::Platform { kind: self.kind.clone(), raw })
    }
}

fn is_ad(referral: Option<&Map<String, Value>>) -> bool {
    referral.and_then(|referral| text(referral, "source")) == Some("ad")
}
