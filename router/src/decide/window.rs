//! The messaging window: opened by what the channel says opens it, judged with a margin, closed early by the platform's verdict,
//! told to subscribers.

use std::time::Duration;

use messaging::channels::{WindowRule, channel};
use messaging::clock::Timestamp;
use messaging::content::Handle;
use messaging::event::EventType;
use messaging::ids::ConversationId;
use messaging::metrics;
use messaging::outcome::Reason;
use messaging::record::Record;
use messaging::state::{Conversation, WindowTold};
use messaging::tenant::Tenant;

use super::{account_of, plain_data};
use crate::desk::{Desk, Home, News, Unfit};
use crate::plan::{LaterRow, LaterWork};

/// A send is refused this long before the window's end, so that clocks and the way to the platform cannot carry it over.
pub const MARGIN: Duration = Duration::from_secs(60);

/// How free text may be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// As it is: there is no window, or it is open.
    Free,
    /// Only with the tag that the merchant gave.
    Tagged,
}

/// The channel's rule for a conversation; none: no window.
pub fn rule(desk: &Desk<'_>, tenant: Tenant, conversation: &Conversation) -> Result<Option<WindowRule>, Unfit> {
    let settings = desk.settings(conversation.channel)?;
    let account = account_of(desk, tenant, conversation.account)?;
    let to = conversation.handles.first().cloned().unwrap_or_else(Handle::account);
    Ok(channel(conversation.channel).window_for(settings, account, &to))
}

/// Whether free text may be written now, or why not.
pub fn judge(
    desk: &Desk<'_>,
    tenant: Tenant,
    conversation: &Conversation,
    tag: Option<&str>,
) -> Result<Result<Leave, (Reason, String)>, Unfit> {
    let Some(rule) = rule(desk, tenant, conversation)? else { return Ok(Ok(Leave::Free)) };
    let soon = desk.world.now.plus(MARGIN);
    if soon <= conversation.window_until {
        return Ok(match rule.cap {
            Some(cap) if conversation.free_sent >= cap => {
                Err((Reason::QuotaExceeded, format!("{cap} messages were sent since the person's last word, all that the platform allows")))
            }
            _ => Ok(Leave::Free),
        });
    }
    if let Some(length) = tag.and_then(|tag| rule.tag(tag))
        && conversation.opened_at != Timestamp::ZERO
        && soon <= conversation.opened_at.plus(length)
    {
        return Ok(Ok(Leave::Tagged));
    }
    let detail = format!("window ended at {}, judged at {} with a margin of 60 s", conversation.window_until, desk.world.now);
    Ok(Err((Reason::WindowClosed, detail)))
}

/// The person did what opens the window: it runs from the earlier of the platform's time and ours.
pub fn open(desk: &mut Desk<'_>, record: &Record, platform_at: Timestamp, from_ad: bool) -> Result<(), Unfit> {
    let settings = desk.settings(record.channel)?;
    let (_, state) = desk.states.get(&record.conversation).ok_or(Unfit::Row)?;
    let Some(rule) = rule(desk, record.tenant, state)? else { return Ok(()) };
    let length = if from_ad { rule.after_ad } else { rule.length };
    let from = if platform_at == Timestamp::ZERO { record.accepted_at } else { platform_at.min(record.accepted_at) };
    let until = from.plus(length);
    let now = desk.world.now;
    let (_, state) = desk.states.get_mut(&record.conversation).ok_or(Unfit::Row)?;
    if from > state.opened_at {
        state.opened_at = from;
        state.free_sent = 0;
    }
    if until <= state.window_until {
        desk.touch(record.conversation);
        return Ok(());
    }
    state.window_until = until;
    if until <= now {
        desk.touch(record.conversation);
        return Ok(());
    }
    let transition = if state.window_told == WindowTold::Closed { 0 } else { 1 };
    metrics::WINDOW_TRANSITIONS.at([record.channel.index(), transition]).increment(1);
    let newly = state.window_told == WindowTold::Closed;
    state.window_told = WindowTold::Opened;
    let no_timer = state.timer_at == Timestamp::ZERO;
    desk.touch(record.conversation);
    if no_timer {
        set_timer(desk, record.tenant, record.conversation, until.minus(settings.window_warning).max(now));
    }
    if newly {
        tell(desk, record.tenant, record.conversation, EventType::WindowOpened, record.accepted_at)?;
    }
    Ok(())
}

/// The platform says it is closed, whatever we think.
pub fn close_early(desk: &mut Desk<'_>, record: &Record) -> Result<(), Unfit> {
    close(desk, record.tenant, record.conversation)
}

/// Closes the window now and tells.
pub fn close(desk: &mut Desk<'_>, tenant: Tenant, id: ConversationId) -> Result<(), Unfit> {
    let now = desk.world.now;
    let Some((_, state)) = desk.states.get_mut(&id) else { return Ok(()) };
    let kind = state.channel;
    state.window_until = state.window_until.min(now);
    let told = std::mem::replace(&mut state.window_told, WindowTold::Closed);
    desk.touch(id);
    if told == WindowTold::Closed {
        return Ok(());
    }
    metrics::WINDOW_TRANSITIONS.at([kind.index(), 3]).increment(1);
    tell(desk, tenant, id, EventType::WindowClosed, now)
}

/// A window timer fired.
pub fn timer(desk: &mut Desk<'_>, tenant: Tenant, id: ConversationId) -> Result<(), Unfit> {
    let now = desk.world.now;
    let Some((_, state)) = desk.states.get_mut(&id) else { return Ok(()) };
    state.timer_at = Timestamp::ZERO;
    let (kind, until, told) = (state.channel, state.window_until, state.window_told);
    desk.touch(id);
    let warning = desk.settings(kind)?.window_warning;
    if told == WindowTold::Closed {
        return Ok(());
    }
    if now >= until {
        metrics::WINDOW_TRANSITIONS.at([kind.index(), 2]).increment(1);
        if let Some((_, state)) = desk.states.get_mut(&id) {
            state.window_told = WindowTold::Closed;
        }
        return tell(desk, tenant, id, EventType::WindowClosed, now);
    }
    if now < until.minus(warning) {
        set_timer(desk, tenant, id, until.minus(warning));
        return Ok(());
    }
    set_timer(desk, tenant, id, until);
    if told == WindowTold::Closing {
        return Ok(());
    }
    if let Some((_, state)) = desk.states.get_mut(&id) {
        state.window_told = WindowTold::Closing;
    }
    tell(desk, tenant, id, EventType::WindowClosing, now)
}

fn set_timer(desk: &mut Desk<'_>, tenant: Tenant, id: ConversationId, due: Timestamp) {
    if let Some((_, state)) = desk.states.get_mut(&id) {
        state.timer_at = due;
    }
    desk.touch(id);
    let now = desk.world.now;
    desk.effects.timers.push(LaterRow {
        tenant: tenant.id(),
        conversation: id,
        due,
        deadline: Timestamp::MAX,
        attempts: 0,
        repeats: 0,
        epoch: desk.world.epoch,
        accepted_at: now,
        parked_at: now,
        what: LaterWork::Window,
    });
}

fn tell(desk: &mut Desk<'_>, tenant: Tenant, id: ConversationId, kind: EventType, accepted_at: Timestamp) -> Result<(), Unfit> {
    let (_, state) = desk.states.get(&id).ok_or(Unfit::Row)?;
    let until = state.window_until;
    let account = state.account;
    let open = kind != EventType::WindowClosed;
    let otherwise = match rule(desk, tenant, state)?.and_then(|rule| rule.otherwise) {
        Some(way) if !open => format!(r#","otherwise":"{way}""#),
        Some(_) | None => String::new(),
    };
    let data = plain_data(state, &format!(r#","window":{{"open":{open},"expires_at":"{until}"{otherwise}}}"#));
    let event = desk.world.ids.event(tenant.id(), account, kind.name(), &id.0, &until.as_micros().to_string());
    let at = desk.world.now;
    desk.emit(News {
        tenant,
        account,
        conversation: id,
        personal: true,
        kind,
        id: event,
        message: None,
        at,
        accepted_at,
        data: &data,
        home: Home::Event,
        feed: None,
        only: None,
    })
}
