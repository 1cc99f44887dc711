//! What one piece says.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::content::{Body, reply};
use super::envelope::{self, Place};
use super::wire::{Change, Comment, Entry, Envelope, Id, Messaging, party, time};
use super::{COMMENT, Product};
use crate::channels::{ContactInfo, Inbound, InboundBody, Malformed, StatusUpdate};
use crate::clock::Timestamp;
use crate::content::{Content, Handle, Text};
use crate::event::EventType;
use crate::ids::MessageId;
use crate::outcome::Status;

pub(in crate::channels) fn parse(product: &Product, piece: &[u8]) -> Result<Inbound, Malformed> {
    // No detail: the parser's own words may quote personal data.
    let malformed = |what: &str| Malformed(what.to_owned());
    let text = std::str::from_utf8(piece).map_err(|_| malformed("is not UTF-8"))?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|_| malformed("is not an envelope"))?;
    let [raw] = envelope.entry[..] else { return Err(malformed("has not one entry")) };
    let entry: Entry<'_> = serde_json::from_str(raw.get()).map_err(|_| malformed("has an odd entry"))?;
    let account = entry.id.clone().unwrap_or_default();
    let sent_at = time(entry.time);
    let lists = [(Place::Messaging, entry.messaging), (Place::Standby, entry.standby), (Place::Changes, entry.changes)];
    let (place, list) = lists.into_iter().find_map(|(place, list)| Some((place, list?))).ok_or_else(|| malformed("has no event"))?;
    let elements: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| malformed("has no list of events"))?;
    let [element] = elements[..] else { return Err(malformed("has not one event")) };
    match place {
        Place::Messaging | Place::Standby => {
            let event: Messaging<'_> = serde_json::from_str(element.get()).map_err(|_| malformed("is no event"))?;
            let telling = Telling { product, account: &account, event: &event, element, sent_at };
            let mut inbound = telling.inbound();
            if place == Place::Standby {
                inbound.opens_window = false;
                inbound.context.insert("standby".into(), true.into());
            }
            Ok(inbound)
        }
        Place::Changes => {
            let change: Change<'_> = serde_json::from_str(element.get()).map_err(|_| malformed("is no change"))?;
            Ok(changed(&change, sent_at))
        }
    }
}

/// One event and what stands around it.
struct Telling<'a> {
    product: &'a Product,
    account: &'a Id<'a>,
    event: &'a Messaging<'a>,
    element: &'a RawValue,
    sent_at: Timestamp,
}

/// A part of an event as an object; none when it is not there or something else.
fn part(raw: Option<&RawValue>) -> Option<Map<String, Value>> {
    serde_json::from_str(raw?.get()).ok()
}

fn text_of<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A number as the platform writes it, as text.
fn number_of(map: &Map<String, Value>, name: &str) -> String {
    match map.get(name) {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(_) | None => String::new(),
    }
}

impl Telling<'_> {
    fn at(&self) -> Timestamp {
        let own = time(self.event.timestamp);
        if own == Timestamp::ZERO { self.sent_at } else { own }
    }

    fn person(&self) -> Handle {
        envelope::person(self.product, self.account, self.event)
    }

    /// Whether the account itself did it.
    fn is_ours(&self) -> bool {
        envelope::is_echo(self.event) || (!self.account.is_empty() && party(self.event.sender) == *self.account)
    }

    /// An event that opens no window.
    fn tell(&self, platform_id: String, qualifier: String, body: InboundBody) -> Inbound {
        let contact = ContactInfo { handles: vec![self.person()], ..ContactInfo::default() };
        Inbound { platform_id, qualifier, at: self.at(), contact, opens_window: false, from_ad: false, body, context: Map::new() }
    }

    /// An id for what has none: the same when it comes again.
    fn made_id(&self, kind: &str, rest: &str) -> String {
        format!("{kind}:{}:{}:{rest}", self.person().value(), self.at().as_micros() / 1_000)
    }

    fn inbound(&self) -> Inbound {
        let event = self.event;
        if let Some(message) = part(event.message) {
            return self.message(&message);
        }
        if let Some(edit) = part(event.message_edit)
            && let Some(inbound) = self.edit(&edit)
        {
            return inbound;
        }
        if let Some(reaction) = part(event.reaction)
            && let Some(inbound) = self.reaction(&reaction)
        {
            return inbound;
        }
        if let Some(postback) = part(event.postback) {
            return self.postback(&postback);
        }
        if let Some(delivery) = part(event.delivery)
            && let Some(inbound) = self.watermark(Status::Delivered, event.delivery, &delivery)
        {
            return inbound;
        }
        if let Some(read) = part(event.read)
            && let Some(inbound) = self.watermark(Status::Read, event.read, &read)
        {
            return inbound;
        }
        if let Some(referral) = part(event.referral) {
            return self.referral(referral);
        }
        if let Some(optin) = part(event.optin) {
            return self.optin(optin);
        }
        if let Some(notice) = part(event.policy_enforcement) {
            let mut data = Map::new();
            let id = format!("policy_enforcement:{}", self.at().as_micros());
            data.insert("policy_enforcement".into(), Value::Object(notice));
            return self.tell(id, String::new(), InboundBody::Account { event: EventType::AccountStateChanged, data });
        }
        self.other()
    }

    /// Handovers of the thread, and what has no name here.
    fn other(&self) -> Inbound {
        let raw: Value = serde_json::from_str(self.element.get()).unwrap_or_default();
        let frame = ["sender", "recipient", "timestamp"];
        let kind = raw.as_object().and_then(|map| map.keys().find(|key| !frame.contains(&key.as_str())).cloned());
        let kind = kind.unwrap_or_else(|| "unknown".to_owned());
        let part = raw.get(&kind).cloned().unwrap_or(raw);
        // Without a time the bytes tell it apart.
        let id = if self.at() == Timestamp::ZERO { String::new() } else { self.made_id(&kind, &part.to_string()) };
        self.tell(id, String::new(), InboundBody::Platform { kind, raw: part })
    }

    fn message(&self, message: &Map<String, Value>) -> Inbound {
        let body = Body(message);
        let mid = body.text("mid").unwrap_or_default().to_owned();
        if body.flag("is_deleted") && !mid.is_empty() {
            return self.tell(mid.clone(), String::new(), InboundBody::Delete { targets: vec![mid] });
        }
        let ours = self.is_ours();
        if ours && let Some(callback) = body.text("metadata").filter(|text| text.parse::<MessageId>().is_ok()) {
            return self.own_send(&mid, callback);
        }
        let mut context = Map::new();
        let content = body.content(&mut context);
        let reply_to = message.get("reply_to").and_then(|to| to.get("mid")).and_then(Value::as_str).map(str::to_owned);
        if let Some(story) = message.get("reply_to").and_then(|to| to.get("story")) {
            context.insert("story".into(), story.clone());
        }
        let referral = message.get("referral").filter(|referral| referral.is_object());
        if let Some(referral) = referral {
            context.insert("referral".into(), referral.clone());
        }
        if ours {
            for name in ["app_id", "metadata", "is_self"] {
                if let Some(value) = message.get(name) {
                    context.insert(name.into(), value.clone());
                }
            }
        }
        let said = if ours { InboundBody::Echo { content, reply_to } } else { InboundBody::Message { content, reply_to } };
        let mut inbound = self.tell(mid, String::new(), said);
        inbound.opens_window = !ours;
        inbound.from_ad = !ours && is_ad(referral);
        inbound.context = context;
        inbound
    }

    /// The echo of a message of ours: it settles a send whose answer was lost.
    fn own_send(&self, mid: &str, callback: &str) -> Inbound {
        let update = StatusUpdate {
            message: mid.to_owned(),
            status: Status::Sent,
            platform_status: "echo".to_owned(),
            reason: None,
            detail: None,
            callback: Some(callback.to_owned()),
            extra: Map::new(),
        };
        self.tell(mid.to_owned(), "echo".to_owned(), InboundBody::Status(update))
    }

    fn edit(&self, edit: &Map<String, Value>) -> Option<Inbound> {
        let mid = text_of(edit, "mid")?.to_owned();
        let body = text_of(edit, "text").unwrap_or_default().to_owned();
        let content = Content::Text(Text { body, preview_url: None });
        Some(self.tell(mid.clone(), number_of(edit, "num_edit"), InboundBody::Edit { target: mid, content }))
    }

    fn reaction(&self, reaction: &Map<String, Value>) -> Option<Inbound> {
        let mid = text_of(reaction, "mid")?.to_owned();
        // Our vocabulary has reactions of the person only.
        if self.is_ours() {
            return None;
        }
        let action = text_of(reaction, "action").unwrap_or("react").to_owned();
        let emoji = text_of(reaction, "emoji").or_else(|| text_of(reaction, "reaction")).filter(|_| action == "react");
        let qualifier = format!("{action}:{}", self.at().as_micros() / 1_000);
        let body = InboundBody::Reaction { target: mid.clone(), emoji: emoji.map(str::to_owned) };
        let opens = action == "react";
        Some(Inbound { opens_window: opens, ..self.tell(mid, qualifier, body) })
    }

    fn postback(&self, postback: &Map<String, Value>) -> Inbound {
        let payload = text_of(postback, "payload").map(str::to_owned);
        let title = text_of(postback, "title").map(str::to_owned);
        let made = || self.made_id("postback", payload.as_deref().or(title.as_deref()).unwrap_or_default());
        let id = text_of(postback, "mid").map_or_else(made, str::to_owned);
        let referral = postback.get("referral").filter(|referral| referral.is_object());
        let content = reply("postback", payload.clone(), title.clone());
        let mut inbound = self.tell(id, String::new(), InboundBody::Message { content, reply_to: None });
        inbound.opens_window = true;
        inbound.from_ad = is_ad(referral);
        if let Some(referral) = referral {
            inbound.context.insert("referral".into(), referral.clone());
        }
        inbound
    }

    fn referral(&self, referral: Map<String, Value>) -> Inbound {
        let id = self.made_id("referral", text_of(&referral, "ref").unwrap_or_default());
        let raw = Value::Object(referral);
        let by_ad = is_ad(Some(&raw));
        let body = InboundBody::Platform { kind: "referral".to_owned(), raw };
        // An ad opens by the message that follows it, not by itself.
        Inbound { opens_window: self.product.referral_opens && !by_ad, ..self.tell(id, String::new(), body) }
    }

    fn optin(&self, optin: Map<String, Value>) -> Inbound {
        let id = self.made_id("optin", text_of(&optin, "notification_messages_token").or(text_of(&optin, "ref")).unwrap_or_default());
        if text_of(&optin, "type") != Some("notification_messages") {
            // A plugin on a web page: what the person does there opens the window, when it says who.
            let is_person = self.person().scheme() != "account";
            let body = InboundBody::Platform { kind: "optin".to_owned(), raw: Value::Object(optin) };
            return Inbound { opens_window: is_person, ..self.tell(id, String::new(), body) };
        }
        let status = text_of(&optin, "notification_messages_status").unwrap_or_default().to_owned();
        let opted_out = status == "STOP_NOTIFICATIONS";
        let body = InboundBody::Preference { opted_out, category: "notification_messages".to_owned() };
        let mut inbound = self.tell(id, status, body);
        inbound.context.insert("optin".into(), Value::Object(optin));
        inbound
    }

    fn watermark(&self, status: Status, raw: Option<&RawValue>, told: &Map<String, Value>) -> Option<Inbound> {
        let mids = told.get("mids").and_then(Value::as_array).into_iter().flatten();
        let mut messages: Vec<String> = mids.filter_map(Value::as_str).map(str::to_owned).collect();
        // Instagram names the message that was seen.
        messages.extend(text_of(told, "mid").map(str::to_owned));
        let upto = watermark_of(raw);
        if upto == Timestamp::ZERO && messages.is_empty() {
            return None;
        }
        let mark = if upto == Timestamp::ZERO { messages.join(",") } else { (upto.as_micros() / 1_000).to_string() };
        let id = format!("{}:{}:{mark}", status.name(), self.person().value());
        let mut inbound = self.tell(id, String::new(), InboundBody::Watermark { status, upto, messages });
        if time(self.event.timestamp) == Timestamp::ZERO && upto != Timestamp::ZERO {
            inbound.at = upto;
        }
        Some(inbound)
    }
}

fn watermark_of(raw: Option<&RawValue>) -> Timestamp {
    #[derive(serde::Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        watermark: Option<&'a RawValue>,
    }
    let part: Option<Part<'_>> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
    part.map_or(Timestamp::ZERO, |part| time(part.watermark))
}

fn is_ad(referral: Option<&Value>) -> bool {
    referral.and_then(|referral| referral.get("source")).and_then(Value::as_str) == Some("ADS")
}

/// A comment, or another change of the page or the media.
fn changed(change: &Change<'_>, sent_at: Timestamp) -> Inbound {
    let field = change.field.as_deref().unwrap_or("unknown");
    let raw: Value = change.value.and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default();
    let comment: Comment<'_> = change.value.and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default();
    let handle = envelope::change_handle(change);
    let is_comment = handle.scheme() == COMMENT;
    let verb = comment.verb.as_deref().unwrap_or("add");
    let kind = match comment.item.as_deref() {
        Some(item) if field == "feed" => format!("feed.{item}"),
        Some(_) | None => field.to_owned(),
    };
    let from = comment.from.and_then(|from| serde_json::from_str::<Value>(from.get()).ok()).unwrap_or_default();
    let said = |name: &str| from.get(name).and_then(Value::as_str).map(str::to_owned);
    let own = time(comment.created_time);
    let at = if own == Timestamp::ZERO { sent_at } else { own };
    // A callback may come again; its code is the same.
    let code = raw.get("confirmation_code").and_then(Value::as_str).filter(|_| !is_comment);
    let platform_id = if is_comment { handle.value().to_owned() } else { code.unwrap_or_default().to_owned() };
    // A comment is edited more than once; each time has its own entry.
    let qualifier =
        if is_comment { format!("{field}:{verb}:{}", if verb == "add" { 0 } else { sent_at.as_secs() }) } else { String::new() };
    Inbound {
        platform_id,
        qualifier,
        at,
        contact: ContactInfo { handles: vec![handle], name: said("name"), username: said("username"), ..ContactInfo::default() },
        // What it opens is one private reply.
        opens_window: is_comment && verb == "add" && field != "mentions",
        from_ad: false,
        body: InboundBody::Platform { kind, raw },
        context: Map::new(),
    }
}
