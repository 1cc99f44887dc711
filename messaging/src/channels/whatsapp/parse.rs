//! What one piece says: messages, echoes, and where everything else goes.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::content::{content, part};
use super::envelope::{self, Single};
use super::news;
use super::people::{Contact, Ids, People, handle_of};
use super::wire::{Event, List, Message, STANDBY, Seconds, Str, System};
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
    pub fn element(&self, list: List) -> Value {
        let mut value = self.value();
        value.pointer_mut(&format!("/{}/0", list.name())).map(Value::take).unwrap_or_default()
    }

    fn message(&self, message: &Message<'_>) -> Inbound {
        let kind = message.kind.as_deref().unwrap_or("unknown");
        let known = match kind {
            "reaction" => reaction(message),
            "edit" => edit(message),
            "revoke" => revoke(message),
            "system" => message.system_part().and_then(|system| rekeyed(&system)),
            _ => {
                let content = content(message).unwrap_or_else(|| self.unsupported(kind, List::Messages));
                let mut inbound = self.of_message(message, InboundBody::Message { content, reply_to: reply_to(message) });
                inbound.opens_window = true;
                return inbound;
            }
        };
        let body = known.unwrap_or_else(|| {
            let part = message.system_part().and_then(|system| system.kind).map(|kind| format!("system.{}", &*kind));
            InboundBody::Platform { kind: part.unwrap_or_else(|| kind.to_owned()), raw: self.element(List::Messages) }
        });
        self.of_message(message, body)
    }

    fn echo(&self, echo: &Message<'_>) -> Inbound {
        let kind = echo.kind.as_deref().unwrap_or("unknown");
        let known = match kind {
            "edit" => edit(echo),
            "revoke" => revoke(echo),
            // Ours, and our vocabulary has reactions of the person only.
            "reaction" | "system" => None,
            _ => {
                let content = content(echo).unwrap_or_else(|| self.unsupported(kind, List::Echoes));
                Some(InboundBody::Echo { content, reply_to: reply_to(echo) })
            }
        };
        let body =
            known.unwrap_or_else(|| InboundBody::Platform { kind: format!("message_echoes.{kind}"), raw: self.element(List::Echoes) });
        self.of_message(echo, body)
    }

    fn unsupported(&self, kind: &str, list: List) -> Content {
        Content::Unsupported(Unsupported { kind: kind.to_owned(), raw: self.element(list) })
    }

    fn of_message(&self, message: &Message<'_>, body: InboundBody) -> Inbound {
        let mut inbound = self.tell(message.id.as_ref(), String::new(), message.timestamp, body);
        add_context(message, &mut inbound.context);
        inbound
    }
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

fn context_part<'a>(message: &Message<'a>) -> Option<ContextPart<'a>> {
    serde_json::from_str(message.context?.get()).ok()
}

fn reply_to(message: &Message<'_>) -> Option<String> {
    context_part(message)?.id.filter(|id| !id.is_empty()).map(|id| id.to_string())
}

fn add_context(message: &Message<'_>, out: &mut Map<String, Value>) {
    let context = context_part(message).unwrap_or_default();
    let raws = [("referral", message.referral), ("referred_product", context.referred_product), ("identity", message.identity)];
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

fn reaction(message: &Message<'_>) -> Option<InboundBody> {
    #[derive(Deserialize)]
    struct Part {
        message_id: String,
        emoji: Option<String>,
    }
    let reaction: Part = part(message.reaction)?;
    let emoji = reaction.emoji.filter(|emoji| !emoji.is_empty());
    Some(InboundBody::Reaction { target: reaction.message_id, emoji })
}

fn edit(message: &Message<'_>) -> Option<InboundBody> {
    #[derive(Deserialize)]
    struct Part<'a> {
        original_message_id: String,
        #[serde(borrow)]
        message: &'a RawValue,
    }
    let edit: Part<'_> = serde_json::from_str(message.edit?.get()).ok()?;
    let edited: Message<'_> = serde_json::from_str(edit.message.get()).ok()?;
    let content = content(&edited).or_else(|| {
        let kind = edited.kind.as_deref().unwrap_or("unknown").to_owned();
        Some(Content::Unsupported(Unsupported { kind, raw: part(Some(edit.message))? }))
    })?;
    Some(InboundBody::Edit { target: edit.original_message_id, content })
}

fn revoke(message: &Message<'_>) -> Option<InboundBody> {
    #[derive(Deserialize)]
    struct Part {
        original_message_id: String,
    }
    let revoke: Part = part(message.revoke)?;
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
