//! Early answers: what the shard would refuse in a moment is refused now, with the reason, as far as the store can be asked.
//! The shard judges again; this spares the merchant the wait.

use messaging::channels;
use messaging::clock::Timestamp;
use messaging::content::Content;
use messaging::directory::{Account, AccountState};
use messaging::metrics::{self, SendRefusal};
use messaging::state::Conversation;
use serde_json::json;

use super::Call;
use super::compose::{Draft, To};
use super::conversations::{is_open, time_or_null};
use crate::problem::{Code, Problem};

/// Why free text is refused.
const NOT_RECENT: &str = "the person has not written recently enough for free text";

/// Whether free-form rules hold for a content: templates, receipts and typing notices are free of them.
pub(super) fn needs_window(content: &Content) -> bool {
    !matches!(content, Content::Template(_) | Content::Read(_) | Content::Typing(_))
}

/// Counts what is refused here, as the shard counts what it refuses.
fn counted<T>(account: &Account, judged: Result<T, (SendRefusal, Problem)>) -> Result<T, Problem> {
    judged.map_err(|(refusal, problem)| {
        metrics::SENDS_REFUSED.at([account.channel.index(), refusal.index()]).increment(1);
        problem
    })
}

/// Whether the account sends.
pub(super) fn account_works(call: &Call<'_>, account: &Account) -> Result<(), Problem> {
    counted(account, account_state(call, account).map_err(|problem| (SendRefusal::AccountDisabled, problem)))
}

fn account_state(call: &Call<'_>, account: &Account) -> Result<(), Problem> {
    if !call.shared().parts.channels.contains_key(&account.channel) {
        return Err(Problem::new(Code::AccountDisabled, "the account's channel is off on this node"));
    }
    let what = match account.row.state {
        AccountState::Active | AccountState::Unverified => return Ok(()),
        AccountState::Paused => "paused",
        AccountState::Broken => "broken: the platform refused its credential",
        AccountState::Blocked => "blocked by the platform",
    };
    let reason = account.row.state_reason.clone();
    Err(Problem::new(Code::AccountDisabled, format!("the account is {what}")).with("state_reason", json!(reason)))
}

/// How a message would go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As it is.
    AsIs,
    /// As its fallback template.
    Fallback,
}

/// Judges a message by the conversation's state; none when the person is not known.
pub(super) fn judge(call: &Call<'_>, draft: &Draft, account: &Account, state: Option<&Conversation>) -> Result<Way, Problem> {
    counted(account, way(call, draft, account, state))
}

fn way(call: &Call<'_>, draft: &Draft, account: &Account, state: Option<&Conversation>) -> Result<Way, (SendRefusal, Problem)> {
    if let Some(state) = state {
        if state.restricted {
            return Err((SendRefusal::Restricted, Problem::new(Code::Restricted, "the contact's data is restricted")));
        }
        if state.unreachable {
            let problem = Problem::new(Code::RecipientInvalid, "the recipient blocked the account or left");
            return Err((SendRefusal::RecipientInvalid, problem));
        }
    }
    let settings = call.shared().parts.channels.get(&account.channel);
    let nobody = channels::channel(account.channel).nobody();
    let of_draft = if let To::Handle(handle) = &draft.to { handle } else { &nobody };
    let to = state.and_then(|state| state.handles.first()).unwrap_or(of_draft);
    let rule = settings.and_then(|settings| channels::channel(account.channel).window_for(settings, account, to));
    let is_later = draft.not_before.is_some_and(|at| at > call.now);
    let until = state.map_or(Timestamp::ZERO, |state| state.window_until);
    let Some(rule) = rule else { return Ok(Way::AsIs) };
    let tagged = draft.tag.as_deref().and_then(|tag| rule.tag(tag)).zip(state.filter(|state| state.opened_at > Timestamp::ZERO));
    let by_tag = tagged.is_some_and(|(length, state)| is_open(call.now, state.opened_at.plus(length)));
    let used_up = rule.cap.zip(state).is_some_and(|(cap, state)| state.free_sent >= cap);
    // A scheduled message is judged when its time comes: the person may write until then.
    if !needs_window(&draft.content) || is_later || by_tag || (is_open(call.now, until) && !used_up) {
        return Ok(Way::AsIs);
    }
    if draft.fallback.is_some() {
        return Ok(Way::Fallback);
    }
    let (what, hint) = match rule.otherwise {
        _ if is_open(call.now, until) => {
            ("all messages that the platform allows were sent since the person's last word", "wait for an answer")
        }
        Some("template") => (NOT_RECENT, "send a template, or add fallback.template to the message"),
        Some("human_agent") => (NOT_RECENT, "a person of yours may answer for seven days: add \"tag\": \"human_agent\""),
        Some(_) | None => (NOT_RECENT, "wait until the person writes"),
    };
    let problem = Problem::new(Code::WindowClosed, what).with("expires_at", time_or_null(until)).with("fallback", json!({"hint": hint}));
    Err((SendRefusal::WindowClosed, problem))
}
