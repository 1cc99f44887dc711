//! What one piece says: messages, echoes, and where everything else goes.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::content::{content, part};
use super::envelope::{self, Single};
use super::news;
use super::people::{Contact, Ids, People, handle_of};
use super::wire::{Event, Message, Parts, STANDBY, Seconds, Str, System};
use crate::channels::{Inbound, InboundBody, Malformed};
use crate::clock::Timestamp;
use crate::content::{Content, Handle, Unsupported};

pub(super) fn parse(piece: &[u8]) -> Result<Inbound, Malformed> {
    // No detail: the parser's own words may quote personal data.
    let text = std::str::from_utf8(piece).map_err(|_| Malformed("is not UTF-8".into()))?;
    let single = envelope::single(text).ok_or_else(|| Malformed("is not an envelope around one event".into()))?;
    let people = People::of(single.contacts);
    Ids::of(&single.event, |ids| {
        let contact = people.find(ids).map(|(contact, _)| contact);
        Ok(Telling { text, single: &single, ids, contact }.inbound())
    })
}

/// One event and what stands around it.
pub(super) struct Telling<'a> {
    text: &'a str,
    pub single: &'a Single<'a>,
    ids: &'a Ids<'a>,
    contact: Option<&'a Contact<'a>>,
}

impl Telling<'_> {
    fn inbound(&self) -> Inbound {
        let mut inbound = match &self.single.event {
            Event::Message(message) => self.message(message),
            Event::Echo(echo) => self.echo(echo),
            Event::Status(status) => news::status(self, status),
            Event::Call(call) => news::call(self, call),
            Event::Preference(wish) => news::preference(self, wish),
            Event::Error(error) => news::stray_error(self, error),
            Event::Handover(handover) => news::handover(self, handover),
            Event::Whole => news::whole(self),
        };
        if &*self.single.field == STANDBY {
            inbound.opens_window = false;
            inbound.context.insert("standby".into(), true.into());
        }
        inbound
    }

    /// An event that opens no window.
    pub fn tell(&self, id: Option<&Str<'_>>, qualifier: String, at: Option<Seconds>, body: InboundBody) -> Inbound {
        let mut context = Map::new();
        self.ids.add_group(self.contact, &mut context);
        Inbound {
            platform_id: id.map_or_else(String::new, |id| id.to_string()),
            qualifier,
            at: at.or(self.single.sent_at).map_or(Timestamp::ZERO, |seconds| seconds.0),
            contact: self.ids.info(self.contact),
            opens_window: false,
            from_ad: false,
            body,
            context,
        }
    }

    /// The change's value, as it came.
    pub fn value(&self) -> Value {
        let mut whole: Value = serde_json::from_str(self.text).unwrap_or_default();
        whole.pointer_mut("/entry/0/changes/0/value").map(Value::take).unwrap_or_default()
    }

    /// The event's element of its list, as it came.
    pub fn element(&self) -> Value {
        part(self.single.element).unwrap_or_default()
    }

    fn parts(&self) -> Parts<'_> {
        parts_of(self.single.element)
    }

    fn message(&self, message: &Message<'_>) -> Inbound {
        let parts = self.parts();
        let kind = message.kind.as_deref().unwrap_or("unknown");
        let known = match kind {
            "reaction" => reaction(&parts),
            "edit" => edit(&parts),
            "revoke" => revoke(&parts),
            "system" => message.system_part().and_then(|system| rekeyed(&system)),
            _ => {
                let content = content(kind, &parts).unwrap_or_else(|| self.unsupported(kind));
                let mut inbound = self.of_message(message, &parts, InboundBody::Message { content, reply_to: reply_to(&parts) });
                inbound.opens_window = true;
                return inbound;
            }
        };
        let body = known.unwrap_or_else(|| {
            let part = message.system_part().and_then(|system| system.kind).map(|kind| format!("system.{}", &*kind));
            InboundBody::Platform { kind: part.unwrap_or_else(|| kind.to_owned()), raw: self.element() }
        });
        self.of_message(message, &parts, body)
    }

    fn echo(&self, echo: &Message<'_>) -> Inbound {
        let parts = self.parts();
        let kind = echo.kind.as_deref().unwrap_or("unknown");
        let known = match kind {
            "edit" => edit(&parts),
            "revoke" => revoke(&parts),
            // Ours, and our vocabulary has reactions of the person only.
            "reaction" | "system" => None,
            _ => {
                let content = content(kind, &parts).unwrap_or_else(|| self.unsupported(kind));
                Some(InboundBody::Echo { content, reply_to: reply_to(&parts) })
            }
        };
        let body = known.unwrap_or_else(|| InboundBody::Platform { kind: format!("message_echoes.{kind}"), raw: self.element() });
        self.of_message(echo, &parts, body)
    }

    fn unsupported(&self, kind: &str) -> Content {
        Content::Unsupported(Unsupported { kind: kind.to_owned(), raw: self.element() })
    }

    fn of_message(&self, message: &Message<'_>, parts: &Parts<'_>, body: InboundBody) -> Inbound {
        let mut inbound = self.tell(message.id.as_ref(), String::new(), message.timestamp, body);
        add_context(parts, &mut inbound.context);
        inbound
    }
}

/// The parts of a message. All of them are raw, so that reading them fails with none that could be read before.
fn parts_of(message: Option<&RawValue>) -> Parts<'_> {
    message.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContextPart<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    forwarded: Option<bool>,
    frequently_forwarded: Option<bool>,
    #[serde(borrow)]
    referred_product: Option<&'a RawValue>,
}

fn context_part<'a>(parts: &Parts<'a>) -> Option<ContextPart<'a>> {
    serde_json::from_str(parts.context?.get()).ok()
}

fn reply_to(parts: &Parts<'_>) -> Option<String> {
    context_part(parts)?.id.filter(|id| !id.is_empty()).map(|id| id.to_string())
}

fn add_context(parts: &Parts<'_>, out: &mut Map<String, Value>) {
    let context = context_part(parts).unwrap_or_default();
    let raws = [("referral", parts.referral), ("referred_product", context.referred_product), ("identity", parts.identity)];
    for (name, raw) in raws {
        if let Some(value) = part::<Value>(raw) {
            out.insert(name.into(), value);
        }
    }
    for (name, flag) in [("forwarded", context.forwarded), ("frequently_forwarded", context.frequently_forwarded)] {
        if flag == Some(true) {
            out.insert(name.into(), true.into());
        }
    }
}

fn reaction(parts: &Parts<'_>) -> Option<InboundBody> {
    #[derive(Deserialize)]
    struct Part {
        message_id: String,
        emoji: Option<String>,
    }
    let reaction: Part = part(parts.reaction)?;
    let emoji = reaction.emoji.filter(|emoji| !emoji.is_empty());
    Some(InboundBody::Reaction { target: reaction.message_id, emoji })
}

fn edit(parts: &Parts<'_>) -> Option<InboundBody> {
    #[derive(Deserialize)]
    struct Part<'a> {
        original_message_id: String,
        #[serde(borrow)]
        message: &'a RawValue,
    }
    let edit: Part<'_> = serde_json::from_str(parts.edit?.get()).ok()?;
    let head: Message<'_> = serde_json::from_str(edit.message.get()).ok()?;
    let kind = head.kind.as_deref().unwrap_or("unknown");
    let content = content(kind, &parts_of(Some(edit.message))).or_else(|| {
        let raw = part(Some(edit.message))?;
        Some(Content::Unsupported(Unsupported { kind: kind.to_owned(), raw }))
    })?;
    Some(InboundBody::Edit { target: edit.original_message_id, content })
}

fn revoke(parts: &Parts<'_>) -> Option<InboundBody> {
    #[derive(Deserialize)]
    struct Part {
        original_message_id: String,
    }
    let revoke: Part = part(parts.revoke)?;
    Some(InboundBody::Delete { targets: vec![revoke.original_message_id] })
}

/// The handles that the person has from now on, when the system message says so.
fn rekeyed(system: &System<'_>) -> Option<InboundBody> {
    if !system.is_rekeying() {
        return None;
    }
    let new = [&system.wa_id, &system.user_id].into_iter().flatten().filter(|id| !id.is_empty());
    let handles: Vec<Handle> = new.map(|id| handle_of(id)).collect();
    if handles.is_empty() { None } else { Some(InboundBody::Rekeyed { handles }) }
}
