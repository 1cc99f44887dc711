//! Changes of accounts that nobody asked for: a platform refused a credential, a refresh brought a new one, signatures fail.
//!
//! A change and the news of it are one change of the directory, so that the news wait there when the process dies in between, and
//! whoever finds them puts them on the log. The event's id comes from the news' number: told twice, it is one event.

use std::sync::Arc;

use crate::channels::{ACCESS_TOKEN, REFRESH_TOKEN, Tokens};
use crate::clock::{SharedClock, Timestamp};
use crate::content::Handle;
use crate::directory::{
    Account, AccountChange, AccountNews, AccountRow, AccountState, CredentialRow, Directory, DirectoryRow, SecretPair, StateReason,
    account_aad,
};
use crate::ids::AccountId;
use crate::keeper::{Change, ChangeError, DirectoryKeeper};
use crate::log::{Log, Topic};
use crate::record::{Command, Record};
use crate::seal::Keyring;
use crate::store::StoreError;
use crate::tenant::Owned;

/// Longest detail of a change, in characters.
const DETAIL_CHARS_MAX: usize = 200;

/// A change of an account's state.
#[derive(Debug, Clone)]
pub struct StateChange {
    /// Of which account.
    pub owner: Owned,
    /// The new state.
    pub state: AccountState,
    /// Why.
    pub reason: StateReason,
    /// The platform's code, or what was seen. Never a secret, never personal data.
    pub detail: String,
    /// When the newest secret was set of the credential that this is about: a verdict on one that was replaced since counts for
    /// nothing. None: whatever the credential is.
    pub about: Option<Timestamp>,
}

/// Changes accounts and tells of it. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    keeper: DirectoryKeeper,
    log: Arc<dyn Log>,
    keyring: Keyring,
    clock: SharedClock,
}

impl Accounts {
    /// Over the directory and the log.
    pub fn new(keeper: DirectoryKeeper, log: Arc<dyn Log>, keyring: Keyring, clock: SharedClock) -> Self {
        Self { keeper, log, keyring, clock }
    }

    /// The present directory.
    pub fn directory(&self) -> Arc<Directory> {
        self.keeper.shared().load_full()
    }

    /// The directory as the store has it now.
    ///
    /// # Errors
    /// The store is away.
    pub async fn reload(&self) -> Result<Arc<Directory>, StoreError> {
        self.keeper.refresh().await?;
        Ok(self.directory())
    }

    /// Moves an account to a state and tells it, once: says whether this call did. An account that is gone, is there already, was
    /// paused by its tenant, or has another credential by now stays as it is.
    ///
    /// # Errors
    /// The store does not take the change. (News that the log does not take wait in the directory.)
    pub async fn change_state(&self, change: &StateChange) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let changed = self.change(change.owner, |account| {
            let stale = change.about.is_some_and(|about| about != account.secrets_set_at());
            if stale || !may_move(account.row.state, change.state, change.reason) {
                return None;
            }
            let (mut row, mut credential) = (account.row.clone(), account.credential_row());
            set_state(&mut row, &mut credential, change.state, change.reason, &change.detail, now);
            Some((Some(row), credential))
        });
        let changed = changed.await?;
        if changed {
            tracing::warn!(account = %change.owner.account, reason = change.reason.name(), "an account's state changed");
            self.tell(change.owner).await;
        }
        Ok(changed)
    }

    /// Puts new tokens in the place of those that `used` has, durable when this returns; what was used is forgotten, for it may be
    /// dead. A broken account works again by it. Says whether it did: tokens that a person gave meanwhile stay.
    ///
    /// # Errors
    /// The store does not take the change.
    pub async fn renew(&self, used: &Account, tokens: &Tokens) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut works_again = false;
        let changed = self.change(used.owner, |account| {
            if !has_tokens_of(account, used) {
                return None;
            }
            let key = self.directory().tenant_key(account.owner.tenant).cloned()?;
            let mut secrets = account.secrets.clone();
            secrets.insert(ACCESS_TOKEN.to_owned(), SecretPair::new(tokens.access.clone(), now));
            if let Some(refresh) = &tokens.refresh {
                secrets.insert(REFRESH_TOKEN.to_owned(), SecretPair::new(refresh.clone(), now));
            }
            let (mut row, mut credential) = (account.row.clone(), account.credential_row());
            row.secrets = key.seal_value(&account_aad(row.tenant, row.id), &secrets);
            row.revision += 1;
            credential.of = now;
            credential.access_until = tokens.access_until;
            // A refresh token that stays is as old as it was.
            credential.refresh_until = match (&tokens.refresh, tokens.refresh_until) {
                (_, Some(until)) => Some(until),
                (None, None) => account.known().and_then(|known| known.refresh_until),
                (Some(_), None) => None,
            };
            credential.given_up = false;
            works_again = row.state == AccountState::Broken;
            if works_again {
                set_state(&mut row, &mut credential, AccountState::Active, StateReason::Refreshed, "", now);
            }
            Some((Some(row), credential))
        });
        let changed = changed.await?;
        if changed && works_again {
            self.tell(used.owner).await;
        }
        Ok(changed)
    }

    /// Asking the platform for other tokens than those that `used` has is of no use any more.
    ///
    /// # Errors
    /// The store does not take the change.
    pub async fn give_up(&self, used: &Account) -> Result<bool, StoreError> {
        let changed = self.change(used.owner, |account| {
            let mut credential = account.credential_row();
            if !has_tokens_of(account, used) || (credential.given_up && account.known().is_some()) {
                return None;
            }
            if account.known().is_none() {
                credential.forget_ends();
            }
            credential.of = account.token_set_at();
            credential.given_up = true;
            Some((None, credential))
        });
        changed.await
    }

    /// Tells that an account's credential ends, once for each end.
    ///
    /// # Errors
    /// The store does not take the change.
    pub async fn warn(&self, owner: Owned, ends_at: Timestamp) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let changed = self.change(owner, |account| {
            let mut credential = account.credential_row();
            if credential.warned_of == Some(ends_at) {
                return None;
            }
            credential.warned_of = Some(ends_at);
            credential.note(AccountNews { number: ends_at.as_micros(), at: now, change: AccountChange::Expiring { ends_at } });
            Some((None, credential))
        });
        let changed = changed.await?;
        if changed {
            self.tell(owner).await;
        }
        Ok(changed)
    }

    /// Remembers that webhooks of these accounts were authentic.
    ///
    /// # Errors
    /// The store does not take the change.
    pub async fn verified(&self, accounts: &[AccountId]) -> Result<(), StoreError> {
        let changed = self.keeper.change(|directory| {
            let found = accounts.iter().filter_map(|id| directory.account(*id));
            let rows = found.map(|account| account.credential_row()).filter(|row| !row.verified);
            let changes: Vec<Change> =
                rows.map(|row| Change::put(DirectoryRow::Credential(CredentialRow { verified: true, ..row }))).collect();
            if changes.is_empty() { Err(()) } else { Ok(changes) }
        });
        unrefused(changed.await).map(drop)
    }

    /// Puts an account's news on the log, and takes them out of the directory. What fails stays there, and is told by whoever looks next.
    pub async fn tell(&self, owner: Owned) {
        let directory = self.directory();
        let Some(account) = directory.account_of(owner.tenant, owner.account) else { return };
        let news = account.credential.as_ref().map_or(&[][..], |row| &row.news);
        if news.is_empty() {
            return;
        }
        let conversation = self.keyring.ids().conversation(owner.tenant.id(), owner.account, Handle::account().expose());
        let (partitions, key) = (self.log.partitions(), self.keyring.log());
        let record = |news: &AccountNews| {
            let command = Command::Account { news: news.clone() };
            Record::command(owner, account.channel, conversation, &command, news.at).to_new(Topic::Outbound, partitions, key)
        };
        let results = self.log.append(news.iter().map(record).collect()).await;
        if results.iter().any(Result::is_err) {
            tracing::warn!(account = %owner.account, "news of an account are not on the log yet");
            return;
        }
        let told: Vec<u64> = news.iter().map(|news| news.number).collect();
        let taken = self.change(owner, |account| {
            let mut credential = account.credential_row();
            let before = credential.news.len();
            credential.news.retain(|news| !told.contains(&news.number));
            (credential.news.len() < before).then_some((None, credential))
        });
        if let Err(error) = taken.await {
            tracing::warn!(account = %owner.account, %error, "news of an account stay in the directory, and are told once more");
        }
    }

    /// Changes an account's rows. None: nothing is to be changed.
    async fn change(
        &self,
        owner: Owned,
        mut edit: impl FnMut(&Account) -> Option<(Option<AccountRow>, CredentialRow)>,
    ) -> Result<bool, StoreError> {
        let changed = self.keeper.change(|directory| {
            let account = directory.account_of(owner.tenant, owner.account).ok_or(())?;
            let (row, credential) = edit(account).ok_or(())?;
            let row = row.map(|row| Change::put(DirectoryRow::Account(row)));
            Ok(row.into_iter().chain([Change::put(DirectoryRow::Credential(credential))]).collect())
        });
        unrefused(changed.await)
    }
}

fn unrefused<T>(changed: Result<T, ChangeError<()>>) -> Result<bool, StoreError> {
    match changed {
        Ok(_) => Ok(true),
        Err(ChangeError::Refused(())) => Ok(false),
        Err(ChangeError::Store(error)) => Err(error),
    }
}

/// Sets an account's state in its row, and notes the news beside it. Both rows are to be stored in one change.
pub fn set_state(
    row: &mut AccountRow,
    credential: &mut CredentialRow,
    state: AccountState,
    reason: StateReason,
    detail: &str,
    now: Timestamp,
) {
    let detail: String = detail.chars().take(DETAIL_CHARS_MAX).collect();
    row.state = state;
    row.state_reason = match state {
        AccountState::Active | AccountState::Paused => None,
        AccountState::Broken | AccountState::Blocked | AccountState::Unverified if detail.is_empty() => Some(reason.name().to_owned()),
        AccountState::Broken | AccountState::Blocked | AccountState::Unverified => Some(format!("{}: {detail}", reason.name())),
    };
    row.revision += 1;
    credential.note(AccountNews { number: row.revision, at: now, change: AccountChange::State { state, reason, detail } });
}

/// Whether what was seen moves an account from one state to another. The tenant's word is not asked here.
fn may_move(from: AccountState, to: AccountState, reason: StateReason) -> bool {
    use AccountState::{Active, Blocked, Broken, Paused, Unverified};
    match (from, to) {
        (Active | Unverified, Broken | Blocked) | (Active, Unverified) => true,
        (Unverified, Active) => reason == StateReason::SignaturesGood,
        (Broken, Active) => reason != StateReason::SignaturesGood,
        (Active, Active | Paused)
        | (Unverified, Unverified | Paused)
        | (Broken, Broken | Blocked | Unverified | Paused)
        | (Blocked | Paused, Active | Broken | Blocked | Unverified | Paused) => false,
    }
}

/// Whether an account still has the tokens that a call was made with.
fn has_tokens_of(account: &Account, used: &Account) -> bool {
    [ACCESS_TOKEN, REFRESH_TOKEN].iter().all(|name| account.secret(name) == used.secret(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_moves_accounts_and_never_past_the_tenant() {
        use AccountState::{Active, Blocked, Broken, Paused, Unverified};
        use StateReason::{Auth, BadSignature, Checked, Refreshed, SignaturesGood};
        let moves = [
            (Active, Broken, Auth, true),
            (Active, Blocked, StateReason::AccountDisabled, true),
            (Active, Unverified, BadSignature, true),
            (Active, Active, Checked, false),
            (Unverified, Broken, Auth, true),
            (Unverified, Active, SignaturesGood, true),
            (Unverified, Active, Checked, false),
            (Broken, Broken, Auth, false),
            (Broken, Active, Refreshed, true),
            (Broken, Active, SignaturesGood, false),
            (Broken, Unverified, BadSignature, false),
            (Blocked, Active, Checked, false),
            (Paused, Broken, Auth, false),
            (Paused, Active, Refreshed, false),
        ];
        for (from, to, reason, moved) in moves {
            assert_eq!(may_move(from, to, reason), moved, "{from:?} -> {to:?} by {}", reason.name());
        }
    }
}
