//! What the platform answered becomes rows and events, and says what follows for the task.

use std::time::Duration;

use messaging::accounts::StateChange;
use messaging::clock::Timestamp;
use messaging::content::Handle;
use messaging::directory::{AccountState, StateReason};
use messaging::metrics;
use messaging::outcome::{Reason, Status, Step, Throttled, Verdict};
use messaging::record::{Command, Record};
use messaging::state::Pointer;
use messaging::store::Key;
use messaging::tenant::{Owned, Tenant};

use super::{count_free, fail, needs_window};
use crate::decide::{watermark, window};
use crate::desk::{Desk, OpenMessage, Unfit};
use crate::plan::{Sending, Task, Work};

/// First wait after a platform said "later" without saying when; doubles with every try.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(600);
/// Tries of one message before it fails as exhausted.
pub const SEND_TRIES_MAX: u32 = 20;

/// What follows a platform's verdict for the task.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing: the message is settled, or its fate is unknown.
    Settled,
    /// Offer it again then.
    Again {
        /// When.
        due: Timestamp,
        /// Whether the whole account waits.
        whole: bool,
    },
    /// Offer it again now, to another address.
    Elsewhere(Handle),
}

/// The platform judged a message, which was sent with the credential of that time.
pub fn judged(desk: &mut Desk<'_>, task: &Task, verdict: Verdict, credential: Option<Timestamp>) -> Result<After, Unfit> {
    let Work::Send(sending) = &task.work else { return Ok(After::Settled) };
    let tenant = task.tenant;
    desk.begin(desk.world.now);
    desk.delete(Key::Intent(desk.world.shard, tenant.id(), sending.command.message));
    let Some(mut message) = desk.message(tenant, sending.command.message)? else { return Ok(After::Settled) };
    let now = desk.world.now;
    let attempt = message.meta.attempt;
    let step = |status, reason, detail| Step { at: now, status, reason, detail, attempt };
    let not_taken = matches!(verdict, Verdict::RetryLater { .. } | Verdict::Refused { .. } | Verdict::Moved { .. });
    if not_taken && needs_window(&sending.command.content) {
        count_free(desk, tenant, message.conversation, -1)?;
    }
    match verdict {
        Verdict::Sent { platform_id, handles } => {
            if let Some(platform_id) = platform_id {
                let reference = desk.world.ids.platform_ref(tenant.id(), sending.account, &platform_id);
                let pointer = Pointer { message: Some((message.conversation, message.at, message.id)), event: None };
                desk.put(Key::PlatformId(tenant.id(), sending.account, reference), pointer.encode());
                message.meta.platform_id = Some(platform_id);
            }
            if let Some((_, state)) = desk.states.get(&message.conversation) {
                let took = now.since(message.meta.accepted_at).as_secs_f64();
                metrics::END_TO_END_DURATION_SECONDS.at([metrics::Direction::Outbound.index(), state.channel.index()]).record(took);
            }
            if !desk.advance(tenant, &mut message, step(Status::Sent, None, None), "")? {
                desk.save(tenant, &mut message)?;
            }
            watermark::wait(desk, tenant, &mut message)?;
            learn(desk, tenant, sending, &message, &handles);
            Ok(After::Settled)
        }
        Verdict::RetryLater { reason, hold, after, detail } => {
            if attempt >= SEND_TRIES_MAX {
                fail(desk, tenant, &mut message, Reason::Exhausted, Some(detail))?;
                return Ok(After::Settled);
            }
            desk.advance(tenant, &mut message, step(Status::Queued, Some(reason), Some(detail)), "")?;
            let wait = after.unwrap_or_else(|| backoff(attempt));
            Ok(After::Again { due: now.plus(wait), whole: hold != Throttled::Conversation })
        }
        Verdict::Refused { reason, detail } => {
            let stops = match reason {
                Reason::WindowClosed => {
                    window::close(desk, tenant, message.conversation)?;
                    None
                }
                Reason::OptedOut => {
                    if let Some((_, state)) = desk.states.get_mut(&message.conversation) {
                        state.opted_out = true;
                    }
                    desk.touch(message.conversation);
                    None
                }
                Reason::Auth => Some((AccountState::Broken, StateReason::Auth)),
                Reason::AccountDisabled => Some((AccountState::Blocked, StateReason::AccountDisabled)),
                Reason::TemplateRequired
                | Reason::TemplateInvalid
                | Reason::NoConsent
                | Reason::Restricted
                | Reason::RecipientInvalid
                | Reason::QuotaExceeded
                | Reason::Unsendable
                | Reason::Expired
                | Reason::Cancelled
                | Reason::RateLimited
                | Reason::Rejected
                | Reason::ServerError
                | Reason::Connect
                | Reason::Timeout
                | Reason::Reset
                | Reason::Interrupted
                | Reason::Exhausted => None,
            };
            if let Some((state, why)) = stops {
                // Not the message's fault, and provably not taken: it waits until the account works again.
                let owner = Owned { tenant, account: sending.account };
                desk.effects.accounts.push(StateChange { owner, state, reason: why, detail: detail.clone(), about: credential });
                desk.advance(tenant, &mut message, step(Status::Queued, Some(reason), Some(detail)), "")?;
                return Ok(After::Again { due: now.plus(RETRY_FIRST), whole: true });
            }
            fail(desk, tenant, &mut message, reason, Some(detail))?;
            Ok(After::Settled)
        }
        Verdict::Moved { to } => {
            if attempt >= SEND_TRIES_MAX {
                fail(desk, tenant, &mut message, Reason::Exhausted, Some("the chat moves in a circle".into()))?;
                return Ok(After::Settled);
            }
            if let Some((_, state)) = desk.states.get_mut(&message.conversation) {
                state.handles.retain(|known| *known != to);
                state.handles.insert(0, to.clone());
            }
            desk.touch(message.conversation);
            learn(desk, tenant, sending, &message, std::slice::from_ref(&to));
            desk.advance(tenant, &mut message, step(Status::Queued, None, Some("the chat moved".into())), "")?;
            Ok(After::Elsewhere(to))
        }
        Verdict::Unknown { reason, detail } => {
            desk.advance(tenant, &mut message, step(Status::Unknown, Some(reason), Some(detail)), "")?;
            Ok(After::Settled)
        }
    }
}

/// The wait before try `attempt + 1` when the platform named none.
fn backoff(attempt: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(RETRY_MAX)
}

/// Other handles that the platform's answer names: the same person.
fn learn(desk: &mut Desk<'_>, tenant: Tenant, sending: &Sending, message: &OpenMessage, handles: &[Handle]) {
    let Some(account) = desk.world.directory.account_of(tenant, sending.account) else { return };
    let Some((_, state)) = desk.states.get_mut(&message.conversation) else { return };
    let mut links = Vec::new();
    for handle in handles {
        let known = state.handles.contains(handle);
        if !known {
            state.handles.push(handle.clone());
        }
        let other = desk.world.ids.conversation(tenant.id(), sending.account, handle.expose());
        if other != message.conversation && !known {
            links.push(other);
        }
    }
    if links.is_empty() {
        return;
    }
    for other in links {
        let command = Command::Link { to: message.conversation };
        desk.effects.records.push(Record::command(account.owner, account.channel, other, &command, desk.world.now));
    }
    desk.touch(message.conversation);
}
