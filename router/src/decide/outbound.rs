//! What a merchant asks for becomes rows and tasks.

use std::sync::Arc;

use messaging::channels::Outgoing;
use messaging::clock::Timestamp;
use messaging::content::{Content, Handle};
use messaging::event::EventType;
use messaging::ids::{ConversationId, IdHasher, MessageId};
use messaging::metrics;
use messaging::outcome::{Outcome, Reason, Status, Step};
use messaging::record::{Command, Record, SendCommand};
use messaging::state::{Conversation, Direction, MessageMeta};
use messaging::store::Key;
use messaging::tenant::Tenant;

use super::{account, account_of, plain_data, state_for, window};
use crate::desk::{Desk, News, OpenMessage, Unfit};
use crate::plan::{Go, IntentRow, LaterRow, LaterWork, Sending, Task, Work};

mod verdict;

pub use verdict::{After, SEND_TRIES_MAX, judged};

fn referred(content: &Content) -> Option<MessageId> {
    let text = match content {
        Content::Reaction(reaction) => reaction.message.as_deref(),
        Content::Read(receipt) | Content::Typing(receipt) => receipt.message.as_deref(),
        Content::Text(_)
        | Content::Image(_)
        | Content::Video(_)
        | Content::Audio(_)
        | Content::Document(_)
        | Content::Sticker(_)
        | Content::Location(_)
        | Content::Contacts(_)
        | Content::Interactive(_)
        | Content::InteractiveReply(_)
        | Content::Template(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => None,
    };
    text?.parse().ok()
}

/// The pointers that the decision reads.
pub fn pointers(record: &Record, command: &Command, ids: &IdHasher) -> Vec<Key> {
    let tenant = record.tenant.id();
    match command {
        Command::Send(send) => {
            let mut keys = vec![Key::Pointer(tenant, send.message.0)];
            keys.extend(send.reply_to.iter().chain(referred(&send.content).iter()).map(|id| Key::Pointer(tenant, id.0)));
            keys
        }
        Command::Cancel { message } | Command::Resend { message } => vec![Key::Pointer(tenant, message.0)],
        Command::Account { news } => vec![account::seen_key(record, news, ids)],
        Command::Medium { medium, news, .. } => vec![super::media::seen_key(record, *medium, news, ids)],
        Command::Link { .. } | Command::Contact { .. } => Vec::new(),
    }
}

/// The pointers that a waiting message's task needs, once its command is known.
pub fn referred_pointers(tenant: Tenant, command: &SendCommand) -> Vec<Key> {
    command.reply_to.iter().chain(referred(&command.content).iter()).map(|id| Key::Pointer(tenant.id(), id.0)).collect()
}

/// Decides a command.
pub fn decide(desk: &mut Desk<'_>, record: &Record, command: &Command) -> Result<Outcome, Unfit> {
    match command {
        Command::Send(send) => decide_send(desk, record, send),
        Command::Cancel { message } => cancel(desk, record, *message),
        Command::Resend { message } => resend(desk, record, *message),
        Command::Link { to } => Ok(link(desk, record, *to)),
        Command::Account { news } => account::decide(desk, record, news),
        Command::Medium { medium, message, news } => super::media::tell(desk, record, *medium, *message, news),
        Command::Contact { to, name, restricted, opted_out } => contact(desk, record, to, name.as_deref(), *restricted, *opted_out),
    }
}

fn decide_send(desk: &mut Desk<'_>, record: &Record, send: &SendCommand) -> Result<Outcome, Unfit> {
    account_of(desk, record.tenant, record.account)?;
    state_for(desk, record.tenant, record.account, record.channel, record.conversation, &send.to);
    if let Some(message) = desk.message(record.tenant, send.message)? {
        return resume(desk, record.tenant, message);
    }
    if desk.pointer(&Key::Pointer(record.tenant.id(), send.message.0)).is_some() {
        return Ok(Outcome::Duplicate);
    }
    let accepted = Step { at: record.accepted_at, status: Status::Accepted, reason: None, detail: None, attempt: 0 };
    let meta = MessageMeta {
        direction: Direction::Out,
        kind: send.content.kind().to_owned(),
        status: Status::Accepted,
        account: record.account,
        to: Some(send.to.clone()),
        platform_id: None,
        history: vec![accepted],
        reason: None,
        accepted_at: record.accepted_at,
        expires_at: send.expires_at,
        not_before: send.not_before,
        attempt: 0,
        epoch: 0,
        possible_duplicate: send.possible_duplicate,
        parked: false,
        fingerprint: send.fingerprint,
    };
    super::in_use(desk, record.tenant, record.conversation, record.accepted_at)?;
    let (_, state) = desk.states.get(&record.conversation).ok_or(Unfit::Row)?;
    let contact_key = state.contact_key();
    let content = serde_json::to_string(send).expect("commands serialise");
    let place = (record.conversation, record.accepted_at, send.message);
    let mut message = desk.new_message(record.tenant, place, &contact_key, meta, &content, None)?;
    if let Some((reason, detail)) = refusal(desk, record.tenant, &message, send, desk.world.now)? {
        count_refusal(record.channel, reason);
        fail(desk, record.tenant, &mut message, reason, Some(detail))?;
        return Ok(Outcome::Refused);
    }
    let queued = Step { at: desk.world.now, status: Status::Queued, reason: None, detail: None, attempt: 0 };
    message.meta.advance(queued);
    if let Some(due) = send.not_before.filter(|due| *due > desk.world.now) {
        message.meta.parked = true;
        desk.save(record.tenant, &mut message)?;
        let row = timer_row(record.tenant, &message, due, desk.world.now, LaterWork::Scheduled(message.id, message.at));
        desk.effects.timers.push(row);
        return Ok(Outcome::Done);
    }
    desk.save(record.tenant, &mut message)?;
    enqueue(desk, record.tenant, &message, send)?;
    Ok(Outcome::Done)
}

/// A record that comes again: its message is finished, stands in `later`, or must be taken up once more because the process
/// died between the row and the effect.
fn resume(desk: &mut Desk<'_>, tenant: Tenant, message: OpenMessage) -> Result<Outcome, Unfit> {
    let waiting = match message.meta.status {
        Status::Accepted | Status::Queued => true,
        Status::Sending
        | Status::Unknown
        | Status::Sent
        | Status::Delivered
        | Status::Read
        | Status::Failed
        | Status::Cancelled
        | Status::Expired => false,
    };
    if !waiting || message.meta.parked || message.meta.direction != Direction::Out {
        return Ok(Outcome::Duplicate);
    }
    let Some(command) = desk.command_of(tenant, &message)? else { return Ok(Outcome::Duplicate) };
    enqueue(desk, tenant, &message, &command)?;
    Ok(Outcome::Done)
}

fn timer_row(tenant: Tenant, message: &OpenMessage, due: Timestamp, now: Timestamp, what: LaterWork) -> LaterRow {
    LaterRow {
        tenant: tenant.id(),
        conversation: message.conversation,
        due,
        deadline: Timestamp::MAX,
        attempts: 0,
        repeats: 0,
        epoch: 0,
        accepted_at: message.meta.accepted_at,
        parked_at: now,
        what,
    }
}

/// Why a message may not be sent now, by the rules alone. Judged when it is accepted and again right before the socket write.
fn refusal(
    desk: &Desk<'_>,
    tenant: Tenant,
    message: &OpenMessage,
    send: &SendCommand,
    now: Timestamp,
) -> Result<Option<(Reason, String)>, Unfit> {
    let (_, state) = desk.states.get(&message.conversation).ok_or(Unfit::Row)?;
    if state.restricted {
        return Ok(Some((Reason::Restricted, "the contact's data is restricted".into())));
    }
    if let Some(until) = message.meta.expires_at
        && now >= until
    {
        return Ok(Some((Reason::Expired, format!("expired at {until}"))));
    }
    if state.unreachable {
        return Ok(Some((Reason::RecipientInvalid, "the recipient blocked the account or left".into())));
    }
    // Whatever its state: a stopped account's sends wait.
    account_of(desk, tenant, message.meta.account)?;
    if !needs_window(&send.content) || send.fallback.is_some() {
        return Ok(None);
    }
    Ok(window::judge(desk, tenant, state, send.tag.as_deref())?.err())
}

fn count_refusal(kind: messaging::channels::ChannelKind, reason: Reason) {
    if let Some(refusal) = metrics::SendRefusal::of(reason) {
        metrics::SENDS_REFUSED.at([kind.index(), refusal.index()]).increment(1);
    }
}

/// Whether a content is free-form: templates, receipts and typing notices are not.
pub fn needs_window(content: &Content) -> bool {
    !matches!(content, Content::Template(_) | Content::Read(_) | Content::Typing(_))
}

fn fail(desk: &mut Desk<'_>, tenant: Tenant, message: &mut OpenMessage, reason: Reason, detail: Option<String>) -> Result<(), Unfit> {
    let status = match reason {
        Reason::Expired => Status::Expired,
        Reason::Cancelled => Status::Cancelled,
        Reason::WindowClosed
        | Reason::TemplateRequired
        | Reason::TemplateInvalid
        | Reason::OptedOut
        | Reason::NoConsent
        | Reason::Restricted
        | Reason::AccountDisabled
        | Reason::RecipientInvalid
        | Reason::QuotaExceeded
        | Reason::Unsendable
        | Reason::RateLimited
        | Reason::Auth
        | Reason::Rejected
        | Reason::ServerError
        | Reason::Connect
        | Reason::Timeout
        | Reason::Reset
        | Reason::Interrupted
        | Reason::Exhausted => Status::Failed,
    };
    message.meta.parked = false;
    let attempt = message.meta.attempt;
    let step = Step { at: desk.world.now, status, reason: Some(reason), detail, attempt };
    desk.advance(tenant, message, step, "")?;
    Ok(())
}

/// Plans the task of a waiting message.
pub fn enqueue(desk: &mut Desk<'_>, tenant: Tenant, message: &OpenMessage, command: &SendCommand) -> Result<(), Unfit> {
    let task = task_of(desk, tenant, message, command)?;
    desk.effects.tasks.push(task);
    Ok(())
}

/// The task of a waiting message: references resolved to the platform's ids.
pub fn task_of(desk: &Desk<'_>, tenant: Tenant, message: &OpenMessage, command: &SendCommand) -> Result<Task, Unfit> {
    let (_, state) = desk.states.get(&message.conversation).ok_or(Unfit::Row)?;
    let platform_id =
        |id: MessageId| -> Result<Option<String>, Unfit> { Ok(desk.message(tenant, id)?.and_then(|message| message.meta.platform_id)) };
    let reply_to = match command.reply_to {
        Some(id) => platform_id(id)?,
        None => None,
    };
    let mut command = command.clone();
    let target = match referred(&command.content) {
        Some(id) => platform_id(id)?,
        None => None,
    };
    match &mut command.content {
        Content::Reaction(reaction) if reaction.platform_id.is_none() => reaction.platform_id = target,
        Content::Read(receipt) | Content::Typing(receipt) if receipt.platform_id.is_none() => {
            receipt.platform_id = target.or_else(|| state.newest_inbound.clone());
        }
        _ => {}
    }
    let sending = Sending { account: message.meta.account, to: recipient(state, &command.to), reply_to, command };
    Ok(Task {
        tenant,
        conversation: message.conversation,
        accepted_at: message.meta.accepted_at,
        parked_at: Timestamp::ZERO,
        attempts: message.meta.attempt,
        repeats: 0,
        work: Work::Send(Arc::new(sending)),
    })
}

/// Where to write now: the merchant's handle, unless the person has another of that scheme by now.
fn recipient(state: &Conversation, to: &Handle) -> Handle {
    if state.handles.contains(to) {
        return to.clone();
    }
    state.handle(to.scheme()).cloned().unwrap_or_else(|| to.clone())
}

/// The lane has a slot: may the message go, and with what content? On `Some` the row says `sending` and the intent stands
/// beside it; both are to be durable before the socket is written.
pub fn intent(desk: &mut Desk<'_>, task: &Task) -> Result<Option<Go>, Unfit> {
    let Work::Send(sending) = &task.work else { return Ok(None) };
    let tenant = task.tenant;
    desk.begin(desk.world.now);
    let Some(mut message) = desk.message(tenant, sending.command.message)? else { return Ok(None) };
    match message.meta.status {
        Status::Accepted | Status::Queued => {}
        Status::Sending
        | Status::Unknown
        | Status::Sent
        | Status::Delivered
        | Status::Read
        | Status::Failed
        | Status::Cancelled
        | Status::Expired => return Ok(None),
    }
    if let Some((reason, detail)) = refusal(desk, tenant, &message, &sending.command, desk.world.now)? {
        let kind = desk.states.get(&message.conversation).map(|(_, state)| state.channel).ok_or(Unfit::Row)?;
        count_refusal(kind, reason);
        fail(desk, tenant, &mut message, reason, Some(detail))?;
        return Ok(None);
    }
    let now = desk.world.now;
    let (_, state) = desk.states.get(&message.conversation).ok_or(Unfit::Row)?;
    let via = state.usable_via(now.plus(window::MARGIN)).map(str::to_owned);
    let free = needs_window(&sending.command.content);
    let leave = window::judge(desk, tenant, state, sending.command.tag.as_deref())?;
    let content = match &sending.command.fallback {
        Some(template) if free && leave.is_err() => Content::Template(template.clone()),
        _ => sending.command.content.clone(),
    };
    let tag = sending.command.tag.clone().filter(|_| free && leave == Ok(window::Leave::Tagged));
    if needs_window(&content) && tag.is_none() {
        count_free(desk, tenant, message.conversation, 1)?;
    }
    message.meta.attempt += 1;
    message.meta.epoch = desk.world.epoch;
    message.meta.parked = false;
    let attempt = message.meta.attempt;
    message.meta.advance(Step { at: desk.world.now, status: Status::Sending, reason: None, detail: None, attempt });
    desk.save(tenant, &mut message)?;
    let row = IntentRow { conversation: message.conversation, at: message.at, epoch: desk.world.epoch, attempt };
    let key = Key::Intent(desk.world.shard, tenant.id(), message.id);
    desk.put(key, postcard::to_stdvec(&row).expect("our own types serialise"));
    Ok(Some(Go { content, tag, via }))
}

/// Counts a free message against the channel's cap, or (`-1`) takes it back when it provably was not taken.
fn count_free(desk: &mut Desk<'_>, tenant: Tenant, id: ConversationId, by: i32) -> Result<(), Unfit> {
    let (_, state) = desk.states.get(&id).ok_or(Unfit::Row)?;
    if window::rule(desk, tenant, state)?.is_none_or(|rule| rule.cap.is_none()) {
        return Ok(());
    }
    let (_, state) = desk.states.get_mut(&id).ok_or(Unfit::Row)?;
    state.free_sent = state.free_sent.saturating_add_signed(by);
    desk.touch(id);
    Ok(())
}

/// The former owner of the shard died or lost it while the platform may have had the message.
pub fn interrupted(desk: &mut Desk<'_>, tenant: Tenant, id: MessageId) -> Result<(), Unfit> {
    desk.begin(desk.world.now);
    desk.delete(Key::Intent(desk.world.shard, tenant.id(), id));
    let Some(mut message) = desk.message(tenant, id)? else { return Ok(()) };
    let attempt = message.meta.attempt;
    let detail = "the process ended while the platform may have had the message".to_owned();
    let step = Step { at: desk.world.now, status: Status::Unknown, reason: Some(Reason::Interrupted), detail: Some(detail), attempt };
    desk.advance(tenant, &mut message, step, "")?;
    Ok(())
}

/// A waiting message is taken out of `later`: its row says so no more.
pub fn unpark(desk: &mut Desk<'_>, tenant: Tenant, id: MessageId) -> Result<Option<Task>, Unfit> {
    desk.begin(desk.world.now);
    let Some(message) = desk.message(tenant, id)? else { return Ok(None) };
    let Some(command) = desk.command_of(tenant, &message)? else { return Ok(None) };
    match message.meta.status {
        Status::Accepted | Status::Queued => task_of(desk, tenant, &message, &command).map(Some),
        Status::Sending
        | Status::Unknown
        | Status::Sent
        | Status::Delivered
        | Status::Read
        | Status::Failed
        | Status::Cancelled
        | Status::Expired => Ok(None),
    }
}

/// Marks a message as standing in `later`.
pub fn park(desk: &mut Desk<'_>, tenant: Tenant, id: MessageId) -> Result<(), Unfit> {
    if let Some(mut message) = desk.message(tenant, id)?
        && !message.meta.parked
    {
        message.meta.parked = true;
        desk.save(tenant, &mut message)?;
    }
    Ok(())
}

fn cancel(desk: &mut Desk<'_>, record: &Record, id: MessageId) -> Result<Outcome, Unfit> {
    let Some(mut message) = desk.message(record.tenant, id)? else { return Ok(Outcome::Refused) };
    match message.meta.status {
        Status::Accepted | Status::Queued => {}
        Status::Sending
        | Status::Unknown
        | Status::Sent
        | Status::Delivered
        | Status::Read
        | Status::Failed
        | Status::Cancelled
        | Status::Expired => return Ok(Outcome::Refused),
    }
    desk.effects.cancelled.push((message.meta.account, id));
    fail(desk, record.tenant, &mut message, Reason::Cancelled, None)?;
    Ok(Outcome::Done)
}

/// The tenant's word: send a message of unknown fate again, marked.
fn resend(desk: &mut Desk<'_>, record: &Record, id: MessageId) -> Result<Outcome, Unfit> {
    let Some(mut message) = desk.message(record.tenant, id)? else { return Ok(Outcome::Refused) };
    if message.meta.status != Status::Unknown || !desk.states.contains_key(&message.conversation) {
        return Ok(Outcome::Refused);
    }
    let Some(command) = desk.command_of(record.tenant, &message)? else { return Ok(Outcome::Refused) };
    message.meta.possible_duplicate = true;
    // The one step down the lattice, on the tenant's explicit word.
    message.meta.status = Status::Queued;
    let attempt = message.meta.attempt;
    let detail = Some("sent again on request, possibly a duplicate".to_owned());
    message.meta.note(Step { at: desk.world.now, status: Status::Queued, reason: None, detail, attempt });
    desk.save(record.tenant, &mut message)?;
    enqueue(desk, record.tenant, &message, &command)?;
    Ok(Outcome::Done)
}

fn link(desk: &mut Desk<'_>, record: &Record, to: ConversationId) -> Outcome {
    state_for(desk, record.tenant, record.account, record.channel, record.conversation, &Handle::account());
    if let Some((_, state)) = desk.states.get_mut(&record.conversation) {
        if state.alias_of == Some(to) || to == record.conversation {
            return Outcome::Duplicate;
        }
        state.alias_of = Some(to);
        desk.touch(record.conversation);
    }
    Outcome::Done
}

fn contact(
    desk: &mut Desk<'_>,
    record: &Record,
    to: &Handle,
    name: Option<&str>,
    restricted: Option<bool>,
    opted_out: Option<bool>,
) -> Result<Outcome, Unfit> {
    account_of(desk, record.tenant, record.account)?;
    state_for(desk, record.tenant, record.account, record.channel, record.conversation, to);
    let (_, state) = desk.states.get_mut(&record.conversation).ok_or(Unfit::Row)?;
    if let Some(name) = name {
        state.name = Some(name.to_owned());
    }
    if let Some(restricted) = restricted {
        state.restricted = restricted;
    }
    let mut kind = EventType::ContactUpdated;
    if let Some(out) = opted_out {
        state.opted_out = out;
        kind = if out { EventType::ContactOptedOut } else { EventType::ContactOptedIn };
    }
    desk.touch(record.conversation);
    let (_, state) = desk.states.get(&record.conversation).ok_or(Unfit::Row)?;
    let data = plain_data(state, &format!(r#","restricted":{},"opted_out":{}"#, state.restricted, state.opted_out));
    let hash = desk.world.ids.content(record.tenant.id(), record.account, &record.body);
    let at = record.accepted_at;
    let id = desk.world.ids.event(record.tenant.id(), record.account, "contact", &hash, &at.as_micros().to_string());
    desk.emit(News::of(record, kind, id, &data))?;
    Ok(Outcome::Done)
}

/// The send of a task, as its channel sees it.
pub fn outgoing<'a>(sending: &'a Sending, message: &'a str, go: &'a Go, now: Timestamp) -> Outgoing<'a> {
    Outgoing {
        message,
        to: &sending.to,
        content: &go.content,
        reply_to: sending.reply_to.as_deref(),
        via: go.via.as_deref(),
        tag: go.tag.as_deref(),
        now,
    }
}
