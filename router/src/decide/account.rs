//! News of an account become events of its own conversation, the one without a person.

use messaging::content::Handle;
use messaging::directory::{AccountChange, AccountNews};
use messaging::event::EventType;
use messaging::ids::{EventId, IdHasher};
use messaging::outcome::Outcome;
use messaging::record::Record;
use messaging::store::Key;

use super::{account_of, quoted, state_for};
use crate::desk::{Desk, News, Unfit};

/// The event's id: the same news are the same event, however often they are told.
fn event_id(record: &Record, news: &AccountNews, ids: &IdHasher) -> EventId {
    let (tenant, account) = (record.tenant.id(), record.account);
    let kind = match news.change {
        AccountChange::State { .. } => "account.state",
        AccountChange::Expiring { .. } => "account.expiring",
    };
    ids.event(tenant, account, kind, &account.0, &news.number.to_string())
}

/// The row that says whether these news were told before.
pub fn seen_key(record: &Record, news: &AccountNews, ids: &IdHasher) -> Key {
    Key::Pointer(record.tenant.id(), event_id(record, news, ids).0)
}

/// Decides news.
pub fn decide(desk: &mut Desk<'_>, record: &Record, news: &AccountNews) -> Result<Outcome, Unfit> {
    account_of(desk, record.tenant, record.account)?;
    if desk.row(&seen_key(record, news, desk.world.ids)).is_some() {
        return Ok(Outcome::Duplicate);
    }
    state_for(desk, record.tenant, record.account, record.channel, record.conversation, &Handle::account());
    let (kind, extra) = match &news.change {
        AccountChange::State { state, reason, detail } => {
            let state = serde_json::to_string(state).expect("a name serialises");
            let change = format!(r#""change":{{"state":{state},"reason":"{}","detail":{}}}"#, reason.name(), quoted(detail));
            (EventType::AccountStateChanged, change)
        }
        AccountChange::Expiring { ends_at } => (EventType::AccountCredentialExpiring, format!(r#""credential":{{"ends_at":"{ends_at}"}}"#)),
    };
    let data = format!(r#"{{"channel":"{}","account":"{}",{extra}}}"#, record.channel.name(), record.account);
    let id = event_id(record, news, desk.world.ids);
    desk.emit(News { personal: false, at: news.at, ..News::of(record, kind, id, &data) })?;
    Ok(Outcome::Done)
}
