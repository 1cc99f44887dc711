//! Watermarks: "all of ours until then was delivered", or read. A conversation remembers its newest sends that are not known to
//! be read, and how far the platform has told: what is told late or early meets the other all the same. Bounded by
//! `state::AWAITING_MAX`; what is forgotten beyond stays where it stood.

use messaging::channels::channel;
use messaging::clock::Timestamp;
use messaging::ids::{ConversationId, TenantId};
use messaging::outcome::{Outcome, Status, Step};
use messaging::record::Record;
use messaging::state::{Awaiting, Conversation, Direction, MessageMeta};
use messaging::store::Key;
use messaging::tenant::Tenant;

use crate::desk::{Desk, OpenMessage, Unfit};

/// The rows of the messages that wait.
pub fn keys(tenant: TenantId, conversation: ConversationId, state: &Conversation) -> impl Iterator<Item = Key> + '_ {
    state.awaiting.iter().map(move |one| Key::Message(tenant, conversation, one.at, one.message))
}

/// When a message's request was written: at or before the platform's own time of it.
fn sent_at(meta: &MessageMeta) -> Timestamp {
    let written = meta.history.iter().rev().find(|step| step.status == Status::Sending);
    written.map_or(meta.accepted_at, |step| step.at)
}

fn step(at: Timestamp, status: Status, message: &OpenMessage) -> Step {
    Step { at, status, reason: None, detail: None, attempt: message.meta.attempt }
}

/// A message went out: it waits for a watermark, unless that came already. Without effect where the platform has none.
pub fn wait(desk: &mut Desk<'_>, tenant: Tenant, message: &mut OpenMessage) -> Result<(), Unfit> {
    let Some((_, state)) = desk.states.get_mut(&message.conversation) else { return Ok(()) };
    if !channel(state.channel).has_watermarks() || matches!(message.meta.kind.as_str(), "read" | "typing" | "reaction") {
        return Ok(());
    }
    let sent_at = sent_at(&message.meta);
    let told = [(Status::Read, state.read_upto), (Status::Delivered, state.delivered_upto)];
    if state.read_upto < sent_at {
        state.await_watermark(Awaiting { message: message.id, at: message.at, sent_at });
    }
    desk.touch(message.conversation);
    if let Some((status, _)) = told.into_iter().find(|(_, upto)| *upto >= sent_at) {
        let now = desk.world.now;
        desk.advance(tenant, message, step(now, status, message), "")?;
    }
    Ok(())
}

/// The platform told a watermark. `upto` of `ZERO`: until the newest of the named messages.
pub fn apply(
    desk: &mut Desk<'_>,
    record: &Record,
    told_at: Timestamp,
    status: Status,
    upto: Timestamp,
    messages: &[String],
) -> Result<Outcome, Unfit> {
    let tenant = record.tenant;
    let at = if told_at == Timestamp::ZERO { record.accepted_at } else { told_at };
    let mut named = Vec::new();
    for platform_id in messages {
        let reference = desk.world.ids.platform_ref(tenant.id(), record.account, platform_id);
        let found = desk.message_by_platform_id(tenant, record.account, reference)?;
        named.extend(found.filter(|message| message.meta.direction == Direction::Out));
    }
    // Never ahead of our own clock: a platform's mistake must not read what is yet to be sent.
    let of_named = named.iter().map(|message| sent_at(&message.meta)).max().unwrap_or(Timestamp::ZERO);
    let mark = if upto == Timestamp::ZERO { of_named } else { upto }.min(desk.world.now);
    let (_, state) = desk.states.get_mut(&record.conversation).ok_or(Unfit::Row)?;
    state.delivered_upto = state.delivered_upto.max(mark);
    if status == Status::Read {
        state.read_upto = state.read_upto.max(mark);
    }
    let reached: Vec<Awaiting> = state.awaiting.iter().copied().filter(|one| one.sent_at <= mark).collect();
    if status == Status::Read {
        state.awaiting.retain(|one| one.sent_at > mark);
    }
    desk.touch(record.conversation);
    let mut moved = false;
    for one in &reached {
        let Some(mut message) = desk.message_at(tenant, (record.conversation, one.at, one.message))? else { continue };
        let step = step(at, status, &message);
        moved |= desk.advance(tenant, &mut message, step, "")?;
    }
    // Named, and not among those that wait: a conversation with many sends, or one that was found under another handle.
    for mut message in named {
        if reached.iter().any(|one| one.message == message.id) || !desk.states.contains_key(&message.conversation) {
            continue;
        }
        let step = step(at, status, &message);
        moved |= desk.advance(tenant, &mut message, step, "")?;
    }
    Ok(if moved { Outcome::Done } else { Outcome::Duplicate })
}
