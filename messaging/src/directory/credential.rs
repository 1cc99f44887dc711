//! What is known of an account's credential, in a row beside the account's own; and the account's news that are not on the log yet.
//!
//! A change of an account's state and the news of it are one change of the directory, so that none of them is lost with the process
//! that made it: see `accounts`.

use serde::{Deserialize, Serialize};

use super::AccountState;
use crate::clock::Timestamp;
use crate::ids::{AccountId, TenantId};
use crate::outcome::named_enum;

/// News of one account that wait for the log; beyond, the oldest are left out.
pub const NEWS_MAX: usize = 16;

named_enum! {
/// Why an account's state changed.
StateReason {
    /// The platform refused the credential.
    Auth = "auth",
    /// The platform limits or blocked the account.
    AccountDisabled = "account_disabled",
    /// The platform refused to refresh the credential, or it ended before it was refreshed.
    RefreshRefused = "refresh_refused",
    /// Most of its webhooks fail the signature.
    BadSignature = "bad_signature",
    /// The tenant gave a new secret.
    NewCredential = "new_credential",
    /// The credential was refreshed.
    Refreshed = "refreshed",
    /// A check showed that the credential works.
    Checked = "checked",
    /// Its webhooks are authentic again.
    SignaturesGood = "signatures_good",
    /// The tenant resumed it.
    Resumed = "resumed",
}
}

/// Something about an account that subscribers are to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountNews {
    /// Tells it from the account's other news, and makes the event's id: told twice, it is one event.
    pub number: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What.
    pub change: AccountChange,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountChange {
    /// The account's state.
    State {
        /// The state that it has now.
        state: AccountState,
        /// Why.
        reason: StateReason,
        /// The platform's code, or what was seen. Never a secret, never personal data.
        detail: String,
    },
    /// Its credential ends soon and was not refreshed by itself.
    Expiring {
        /// When it ends.
        ends_at: Timestamp,
    },
}

/// A credential's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRow {
    /// Of which account.
    pub account: AccountId,
    /// Its owner.
    pub tenant: TenantId,
    /// When the access token that the ends are about was set. With another token nothing of them holds.
    pub of: Timestamp,
    /// When that token ends; none: never, or nobody knows.
    pub access_until: Option<Timestamp>,
    /// When what refreshes it ends, where the platform says so.
    pub refresh_until: Option<Timestamp>,
    /// Asking the platform for new tokens is of no use until a person gives others.
    pub given_up: bool,
    /// The end that subscribers were told of.
    pub warned_of: Option<Timestamp>,
    /// Whether a webhook of it was ever authentic: whoever never had a right signature has not lost it.
    pub verified: bool,
    /// News that are not on the log yet, oldest first.
    pub news: Vec<AccountNews>,
}

impl CredentialRow {
    /// Nothing is known yet.
    pub fn unknown(tenant: TenantId, account: AccountId) -> Self {
        Self {
            account,
            tenant,
            of: Timestamp::ZERO,
            access_until: None,
            refresh_until: None,
            given_up: false,
            warned_of: None,
            verified: false,
            news: Vec::new(),
        }
    }

    /// The row's key in the store.
    pub fn id_of(account: AccountId) -> String {
        format!("crd_{account}")
    }

    /// Forgets what is known of the tokens' ends: a person gave others.
    pub fn forget_ends(&mut self) {
        self.of = Timestamp::ZERO;
        (self.access_until, self.refresh_until) = (None, None);
        self.given_up = false;
    }

    /// Adds news.
    pub fn note(&mut self, news: AccountNews) {
        if self.news.len() >= NEWS_MAX {
            tracing::warn!(account = %self.account, "news of an account are left out: too many wait for the log");
            self.news.remove(0);
        }
        self.news.push(news);
    }
}
