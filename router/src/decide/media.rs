//! Media of messages: what they are called, that they are to be had, and what became of them.

use std::borrow::Cow;

use messaging::channels::{FoundMedia, Inbound, MediaSource, channel};
use messaging::clock::Timestamp;
use messaging::content::Content;
use messaging::event::EventType;
use messaging::ids::{ConversationId, EventId, IdHasher, MediaId, MessageId};
use messaging::media::{Wanted, media_of};
use messaging::outcome::Outcome;
use messaging::record::{MediaNews, Record};
use messaging::state::Pointer;
use messaging::store::Key;
use messaging::tenant::Tenant;
use serde_json::{Value, json};

use super::{account_of, plain_data};
use crate::desk::{Desk, News, OpenMessage, Unfit};
use crate::plan::MediaJob;

/// Media of one message that are called and fetched; further ones keep what the platform says of them.
const MEDIA_MAX: usize = 100;

/// Where a message's row stands.
type Row = (ConversationId, Timestamp, MessageId);

/// Gives each medium that can be had its id and link, leads the id to its message's row, and asks for the bytes.
pub fn announce<'c>(
    desk: &mut Desk<'_>,
    record: &Record,
    inbound: &Inbound,
    platform_id: &str,
    row: Row,
    content: &'c Content,
) -> Result<Cow<'c, Content>, Unfit> {
    if content.media().is_empty() {
        return Ok(Cow::Borrowed(content));
    }
    let (_, _, message) = row;
    let account = account_of(desk, record.tenant, record.account)?;
    let settings = desk.settings(record.channel)?;
    let handle = inbound.contact.handles.first().cloned().unwrap_or_else(messaging::content::Handle::account);
    let kind = channel(record.channel);
    let mut parts = None;
    let mut named = content.clone();
    for (place, ((of, media), named)) in content.media().into_iter().zip(named.media_mut()).enumerate().take(MEDIA_MAX) {
        let found = FoundMedia { kind: of, media, message: platform_id, from: &handle };
        let bytes = match kind.media(&found, account, settings) {
            Some(MediaSource::Ask(_) | MediaSource::Get(_)) => None,
            Some(MediaSource::Piece) => {
                let parts = parts.get_or_insert_with(|| kind.media_parts(&record.body));
                let Some(bytes) = parts.get(place) else { continue };
                Some(bytes.clone())
            }
            None => continue,
        };
        let reference = media.id.as_deref().or(media.link.as_deref()).unwrap_or_default();
        let id = desk.world.ids.medium(record.tenant.id(), message, place, reference);
        named.media = Some(id);
        named.url = desk.world.links.link(desk.world.ids, record.tenant.id(), id, record.accepted_at);
        let pointer = Pointer { message: Some(row), event: None };
        desk.put_blind(Key::Pointer(record.tenant.id(), id.0), pointer.encode());
        let wanted = Wanted {
            owner: account.owner,
            channel: record.channel,
            conversation: record.conversation,
            message,
            platform_id: platform_id.to_owned(),
            from: handle.clone(),
            id,
            kind: of,
            media: media.clone(),
            at: record.accepted_at,
        };
        desk.effects.media.push(MediaJob { wanted, bytes });
    }
    Ok(Cow::Owned(named))
}

/// A message's content is withdrawn: its media are to be deleted as well. Asked before the content is taken away.
pub fn withdraw(desk: &mut Desk<'_>, tenant: Tenant, message: &OpenMessage) -> Result<(), Unfit> {
    let Some(content) = desk.content_of(tenant, message)? else { return Ok(()) };
    let ids = media_of(&content).into_iter().filter_map(|(_, media)| media.media);
    desk.effects.forgotten.extend(ids.map(|id| (tenant, id)));
    Ok(())
}

/// The row that says whether this news was told already.
pub fn seen_key(record: &Record, medium: MediaId, news: &MediaNews, ids: &IdHasher) -> Key {
    Key::Pointer(record.tenant.id(), event_id(record, medium, news, ids).0)
}

fn event_id(record: &Record, medium: MediaId, news: &MediaNews, ids: &IdHasher) -> EventId {
    let what = match news {
        MediaNews::Ready { .. } => "ready",
        MediaNews::Failed { reason } => reason.name(),
    };
    ids.event(record.tenant.id(), record.account, "media", &medium.0, what)
}

/// Tells what became of a medium, once.
pub fn tell(desk: &mut Desk<'_>, record: &Record, medium: MediaId, message: MessageId, news: &MediaNews) -> Result<Outcome, Unfit> {
    account_of(desk, record.tenant, record.account)?;
    if desk.row(&seen_key(record, medium, news, desk.world.ids)).is_some() {
        return Ok(Outcome::Duplicate);
    }
    // Its person was forgotten meanwhile.
    let Some((_, state)) = desk.states.get(&record.conversation) else { return Ok(Outcome::Refused) };
    let (kind, about) = match news {
        MediaNews::Ready { mime_type, size_bytes, sha256 } => {
            let mut about = json!({"id": medium, "message": message, "mime_type": mime_type, "size_bytes": size_bytes, "sha256": sha256});
            let link = desk.world.links.link(desk.world.ids, record.tenant.id(), medium, record.accepted_at);
            if let (Some(link), Value::Object(members)) = (link, &mut about) {
                members.insert("url".to_owned(), link.into());
            }
            (EventType::MediaReady, about)
        }
        MediaNews::Failed { reason } => {
            let about = json!({"id": medium, "message": message, "reason": reason.name(), "may_pass": reason.is_passing()});
            (EventType::MediaFailed, about)
        }
    };
    let data = plain_data(state, &format!(r#","media":{about}"#));
    let id = event_id(record, medium, news, desk.world.ids);
    desk.emit(News { message: Some(message), ..News::of(record, kind, id, &data) })?;
    Ok(Outcome::Done)
}
