//! Accounts whose webhooks this process refused a moment ago, where the platform brings nothing again: they are pulled soon.

use std::collections::BTreeSet;
use std::sync::Mutex;

use messaging::ids::AccountId;
use tokio::sync::Notify;

/// Accounts remembered at once. Others are pulled in their usual turn.
const ACCOUNTS_MAX: usize = 1_024;

/// The accounts.
#[derive(Default)]
pub(crate) struct Refused {
    accounts: Mutex<BTreeSet<AccountId>>,
    news: Notify,
}

impl Refused {
    /// A webhook of this account was refused.
    pub fn note(&self, account: AccountId) {
        let mut accounts = self.accounts.lock().expect("no holder of the accounts panics");
        if accounts.len() < ACCOUNTS_MAX && accounts.insert(account) {
            drop(accounts);
            self.news.notify_waiters();
        }
    }

    /// Returns when one of this account was, and forgets it.
    pub async fn taken(&self, account: AccountId) {
        loop {
            let news = self.news.notified();
            if self.accounts.lock().expect("no holder of the accounts panics").remove(&account) {
                return;
            }
            news.await;
        }
    }
}
