//! A merchant's message, read strictly: every fault is named, and members that are not known are refused.

use std::sync::Arc;
use std::time::Duration;

use messaging::channels::{self, ChannelKind, Fault};
use messaging::clock::Timestamp;
use messaging::content::{Content, Handle, Template};
use messaging::directory::{Account, Directory};
use messaging::ids::{AccountId, ContactId, ConversationId, MessageId};
use messaging::record::{Class, SendCommand};
use messaging::tenant::Tenant;
use serde_json::{Map, Value};

use super::Call;
use super::json::Reader;
use super::span;
use crate::media;
use crate::problem::Problem;

/// Longest `callback_data`, in characters.
const CALLBACK_CHARS_MAX: usize = 512;
/// Largest `metadata`, in bytes of JSON.
const METADATA_BYTES_MAX: usize = 4096;
/// Longest id text that is looked at.
const ID_CHARS_MAX: usize = 64;
/// How far ahead a message may be scheduled, or expire.
const AHEAD_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The types that can be sent. The others only come in.
const SENDABLE: [&str; 15] = [
    "text",
    "image",
    "video",
    "audio",
    "document",
    "sticker",
    "location",
    "contacts",
    "interactive",
    "template",
    "reaction",
    "read",
    "typing",
    "email",
    "mixed",
];

/// To whom.
#[derive(Debug, Clone)]
pub(super) enum To {
    /// A person by the channel's own address.
    Handle(Handle),
    /// A conversation that exists.
    Conversation(ConversationId),
    /// A contact that exists.
    Contact(ContactId),
}

/// A message that was understood.
pub(super) struct Draft {
    /// None: the conversation's.
    pub(super) account: Option<Arc<Account>>,
    pub(super) to: To,
    pub(super) content: Content,
    pub(super) reply_to: Option<MessageId>,
    pub(super) fallback: Option<Template>,
    /// Allows it outside the window.
    pub(super) tag: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) callback_data: Option<String>,
    pub(super) metadata: Option<Value>,
    pub(super) class: Class,
}

impl Draft {
    /// What is wrong with the content for this recipient.
    pub(super) fn faults_for(&self, account: &Account, to: &Handle) -> Vec<Fault> {
        faults_of(account.channel, &self.content, self.fallback.as_ref(), to)
    }

    /// The command for the shard.
    pub(super) fn command(self, message: MessageId, to: Handle, fingerprint: [u8; 16]) -> SendCommand {
        SendCommand {
            message,
            to,
            content: self.content,
            reply_to: self.reply_to,
            fallback: self.fallback,
            tag: self.tag,
            expires_at: self.expires_at,
            not_before: self.not_before,
            callback_data: self.callback_data,
            metadata: self.metadata,
            fingerprint,
            possible_duplicate: false,
            class: self.class,
        }
    }
}

fn faults_of(channel: ChannelKind, content: &Content, fallback: Option<&Template>, to: &Handle) -> Vec<Fault> {
    let channel = channels::channel(channel);
    let mut faults = channel.check(content, to);
    if let Some(template) = fallback {
        let of_fallback = channel.check(&Content::Template(template.clone()), to);
        faults.extend(of_fallback.into_iter().map(|fault| Fault::new(format!("/fallback{}", fault.pointer), fault.detail)));
    }
    faults
}

/// Reads a message.
pub(super) async fn compose(call: &Call<'_>, map: &Map<String, Value>) -> Result<Draft, Problem> {
    let (directory, tenant, now) = (&*call.directory(), call.tenant(), call.now);
    let mut reader = Reader::new(map, "");
    let account = account(&mut reader, directory, tenant);
    let to = to(&mut reader, account.as_deref());
    let content = content(&mut reader, map).map(|content| linked(&mut reader, call, content));
    let reply_to = reader.id("reply_to", MessageId::PREFIX);
    let fallback = fallback(&mut reader);
    let tag = tag(&mut reader, account.as_deref());
    let not_before = ahead(&mut reader, "send_at", now);
    let expires_at = expires_at(&mut reader, now, not_before);
    let callback_data = reader.text("callback_data", CALLBACK_CHARS_MAX).map(str::to_owned);
    let metadata = reader.object("metadata").cloned().map(Value::Object);
    if metadata.as_ref().is_some_and(|metadata| metadata.to_string().len() > METADATA_BYTES_MAX) {
        reader.fault("metadata", format!("has more than {METADATA_BYTES_MAX} bytes of JSON"));
    }
    let class = if reader.flag("bulk").unwrap_or(false) { Class::Bulk } else { Class::Interactive };

    // What is wrong with the content is told also when the recipient is not understood.
    if let (Some(account), Some(content)) = (&account, &content) {
        let handle = match &to {
            Some(To::Handle(handle)) => Some(handle.clone()),
            Some(To::Conversation(_) | To::Contact(_)) => None,
            None => Some(channels::channel(account.channel).nobody()),
        };
        let faults = handle.map(|handle| faults_of(account.channel, content, fallback.as_ref(), &handle));
        reader.faults(faults.unwrap_or_default());
    }
    let draft = match (to, content) {
        (Some(to), Some(content)) => {
            Some(Draft { account, to, content, reply_to, fallback, tag, expires_at, not_before, callback_data, metadata, class })
        }
        _ => None,
    };
    reader.finish()?;
    let draft = draft.ok_or_else(|| Problem::fault("", "is no message"))?;
    media::check_named(call, &draft.content).await?;
    Ok(draft)
}

fn account(reader: &mut Reader<'_>, directory: &Directory, tenant: Tenant) -> Option<Arc<Account>> {
    let by_conversation = reader.object("to").is_some_and(|to| to.contains_key("conversation"));
    if !by_conversation {
        reader.require("account");
    }
    let id: AccountId = reader.id("account", AccountId::PREFIX)?;
    let account = directory.account_of(tenant, id).cloned();
    if account.is_none() {
        reader.fault("account", "there is no account with this id");
    }
    account
}

fn to(reader: &mut Reader<'_>, account: Option<&Account>) -> Option<To> {
    reader.require("to");
    // `account` has looked at it already, and noted what is wrong with its type.
    let to = reader.value("to")?.as_object()?;
    let ours = [("conversation", ConversationId::PREFIX), ("contact", ContactId::PREFIX)];
    let Some((name, prefix)) = ours.into_iter().find(|(name, _)| to.contains_key(*name)) else {
        let account = account?;
        return match channels::channel(account.channel).recipient(to) {
            Ok(handle) => Some(To::Handle(handle)),
            Err(fault) => {
                reader.faults([Fault::new(format!("/to{}", fault.pointer), fault.detail)]);
                None
            }
        };
    };
    let mut inner = Reader::new(to, "/to");
    let text = inner.text(name, ID_CHARS_MAX);
    let found = text.and_then(|text| match name {
        "conversation" => text.parse().ok().map(To::Conversation),
        _ => text.parse().ok().map(To::Contact),
    });
    if text.is_some() && found.is_none() {
        inner.fault(name, format!("must be an id of the form {prefix}…"));
    }
    reader.faults(inner.end());
    found
}

fn content<'m>(reader: &mut Reader<'m>, map: &'m Map<String, Value>) -> Option<Content> {
    reader.require("type");
    let kind = reader.text("type", ID_CHARS_MAX)?;
    if !SENDABLE.contains(&kind) {
        reader.fault("type", format!("must be one of {}", SENDABLE.join(", ")));
        return None;
    }
    reader.require(kind);
    reader.value(kind)?;
    match Content::from_members(map) {
        Ok(content) => Some(content),
        Err(error) => {
            reader.fault(kind, error);
            None
        }
    }
}

/// Media that are here go to platforms by a link of ours; the link of the moment of sending takes the place of this one.
fn linked(reader: &mut Reader<'_>, call: &Call<'_>, mut content: Content) -> Content {
    let kind = content.kind();
    for media in content.media_mut() {
        if media.url.take().is_some() {
            reader.fault(kind, "names a url, which only media that came in have: give media, id or link");
        }
        let Some(id) = media.media else { continue };
        if media.id.is_some() || media.link.is_some() {
            reader.fault(kind, "names media beside id or link: give one of the three");
        }
        media.link = call.shared().parts.media.link(call.tenant(), id);
    }
    content
}

/// One of the channel's tags. When the account is only known by its conversation, the shard judges.
fn tag(reader: &mut Reader<'_>, account: Option<&Account>) -> Option<String> {
    let tag = reader.text("tag", ID_CHARS_MAX)?.to_owned();
    let tags = account.map_or(&[][..], |account| channels::channel(account.channel).tags());
    if account.is_some() && !tags.iter().any(|known| known.name == tag) {
        let names: Vec<&str> = tags.iter().map(|known| known.name).collect();
        let rule = if names.is_empty() { "the channel has no tags".to_owned() } else { format!("must be one of {}", names.join(", ")) };
        reader.fault("tag", rule);
        return None;
    }
    Some(tag)
}

fn fallback(reader: &mut Reader<'_>) -> Option<Template> {
    let fallback = reader.object("fallback")?;
    let mut inner = Reader::new(fallback, "/fallback");
    inner.require("template");
    let template = inner.value("template").and_then(|value| match serde_json::from_value(value.clone()) {
        Ok(template) => Some(template),
        Err(error) => {
            inner.fault("template", error.to_string());
            None
        }
    });
    reader.faults(inner.end());
    template
}

fn ahead<'m>(reader: &mut Reader<'m>, name: &'m str, now: Timestamp) -> Option<Timestamp> {
    let at = reader.time(name)?;
    if at > now.plus(AHEAD_MAX) {
        reader.fault(name, "lies more than 365 days ahead");
        return None;
    }
    Some(at)
}

fn expires_at(reader: &mut Reader<'_>, now: Timestamp, not_before: Option<Timestamp>) -> Option<Timestamp> {
    let both = reader.has("expires_in") && reader.has("expires_at");
    let at = ahead(reader, "expires_at", now);
    let span = reader.text("expires_in", ID_CHARS_MAX);
    if both {
        reader.fault("expires_in", "stands beside expires_at: give one of the two");
        return None;
    }
    let at = match span {
        None => at?,
        Some(text) => match span::parse(text).filter(|span| *span <= AHEAD_MAX) {
            // Counted from when the message may go.
            Some(span) => not_before.unwrap_or(now).max(now).plus(span),
            None => {
                reader.fault("expires_in", "must be a length of time such as 90s, 2h or 1d, at most 365 days");
                return None;
            }
        },
    };
    let name = if span.is_some() { "expires_in" } else { "expires_at" };
    if at <= now {
        reader.fault(name, "has passed already");
    } else if not_before.is_some_and(|not_before| at <= not_before) {
        reader.fault(name, "is not after send_at");
    }
    Some(at)
}
