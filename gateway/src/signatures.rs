//! Whether an account's webhooks are authentic: of its last ones more than half must be. A secret that was changed at the platform
//! shows here first, and some platforms unsubscribe after an hour of refusals.
//!
//! Only accounts with a refusal among their last webhooks are watched, so that a good webhook costs a look at two words.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use messaging::clock::Timestamp;
use messaging::directory::{Account, AccountState, Directory};
use messaging::ids::AccountId;

/// Webhooks of an account that are remembered.
const LAST: u32 = 16;
/// Fewer refusals than these say nothing.
const BAD_MIN: u32 = 3;
/// After such a silence, what was before says little: only as many are remembered as do not say anything alone.
const SILENCE: Duration = Duration::from_secs(10 * 60);
/// An account that was silent for so long is watched no more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// Accounts that are watched at once; more are left out.
const WATCHED_MAX: usize = 4096;
/// Accounts with a first authentic webhook that wait to be noted; more are noted by a later webhook.
const FRESH_MAX: usize = 1024;

/// The last webhooks of one account.
#[derive(Debug, Clone, Copy, Default)]
struct Lately {
    /// One bit a webhook, the newest lowest; set: refused.
    bits: u32,
    len: u32,
    at: Timestamp,
}

impl Lately {
    fn push(&mut self, refused: bool, now: Timestamp) {
        if now.since(self.at) > SILENCE {
            self.len = self.len.min(BAD_MIN - 1);
        }
        self.bits = (self.bits << 1) | u32::from(refused);
        self.len = (self.len + 1).min(LAST);
        self.at = now;
    }

    fn refused(self) -> u32 {
        (self.bits & ((1 << self.len) - 1)).count_ones()
    }

    fn is_failing(self) -> bool {
        let refused = self.refused();
        refused >= BAD_MIN && refused * 2 > self.len
    }

    /// Not at the first good one: three in four, so that a mixture does not make the account change to and fro.
    fn is_good_again(self) -> bool {
        let good = self.len - self.refused();
        good >= BAD_MIN && good * 4 >= self.len * 3
    }

    fn is_over(self, now: Timestamp) -> bool {
        (self.len == LAST && self.refused() == 0) || now.since(self.at) > FORGOTTEN_AFTER
    }
}

/// What the signatures of an account say that its state does not say yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Most are refused.
    Begins,
    /// They are authentic again.
    Ends,
}

/// The signatures of all accounts, as this process sees them.
#[derive(Debug, Default)]
pub(crate) struct Signatures {
    watched: Mutex<HashMap<AccountId, Lately>>,
    count: AtomicUsize,
    /// Accounts whose first authentic webhook came.
    fresh: Mutex<HashSet<AccountId>>,
}

impl Signatures {
    /// An authentic webhook.
    pub(crate) fn good(&self, account: &Account, now: Timestamp) {
        if !account.credential.as_ref().is_some_and(|row| row.verified) {
            let mut fresh = self.fresh.lock().expect("no holder of the fresh ones panics");
            if fresh.len() < FRESH_MAX {
                fresh.insert(account.row.id);
            }
        }
        let is_unverified = account.row.state == AccountState::Unverified;
        if self.count.load(Ordering::Relaxed) == 0 && !is_unverified {
            return;
        }
        let mut watched = self.watched.lock().expect("no holder of the watched panics");
        if let Some(lately) = watched.get_mut(&account.row.id) {
            lately.push(false, now);
        } else if is_unverified {
            self.watch(&mut watched, account.row.id, false, now);
        }
    }

    /// A webhook that fails the signature.
    pub(crate) fn bad(&self, account: &Account, now: Timestamp) {
        let mut watched = self.watched.lock().expect("no holder of the watched panics");
        self.watch(&mut watched, account.row.id, true, now);
    }

    fn watch(&self, watched: &mut HashMap<AccountId, Lately>, id: AccountId, refused: bool, now: Timestamp) {
        if watched.len() >= WATCHED_MAX && !watched.contains_key(&id) {
            return;
        }
        watched.entry(id).or_default().push(refused, now);
        self.count.store(watched.len(), Ordering::Relaxed);
    }

    /// Accounts whose first authentic webhook came since the last call.
    pub(crate) fn take_fresh(&self) -> Vec<AccountId> {
        std::mem::take(&mut *self.fresh.lock().expect("no holder of the fresh ones panics")).into_iter().collect()
    }

    /// The accounts whose state is to be changed, and how many of how many were refused. Whoever never had an authentic webhook has
    /// lost nothing.
    pub(crate) fn troubles(&self, directory: &Directory, now: Timestamp) -> Vec<(AccountId, Trouble, String)> {
        let mut watched = self.watched.lock().expect("no holder of the watched panics");
        watched.retain(|id, lately| {
            // Whoever is unverified is looked at until its state has changed.
            directory.account(*id).is_some_and(|account| account.row.state == AccountState::Unverified || !lately.is_over(now))
        });
        self.count.store(watched.len(), Ordering::Relaxed);
        let mut found = Vec::new();
        for (id, lately) in watched.iter() {
            let Some(account) = directory.account(*id) else { continue };
            let was_verified = account.credential.as_ref().is_some_and(|row| row.verified);
            let trouble = match account.row.state {
                AccountState::Active if was_verified && lately.is_failing() => Trouble::Begins,
                AccountState::Unverified if lately.is_good_again() => Trouble::Ends,
                AccountState::Active | AccountState::Unverified | AccountState::Paused | AccountState::Broken | AccountState::Blocked => {
                    continue;
                }
            };
            found.push((*id, trouble, format!("{} of the last {} webhooks were refused", lately.refused(), lately.len)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the last webhooks say, each a word of `g` (good), `b` (refused) and `.` (eleven minutes of silence).
    #[test]
    fn more_than_half_of_the_last_decide() {
        let cases = [
            ("g", false, false),
            ("bb", false, false),
            ("bbb", true, false),
            ("gbbb", true, false),
            ("gggbbb", false, false),
            ("gggbbbb", true, false),
            ("ggggggggggggggggbbbbbbbb", false, false),
            ("ggggggggggggggggbbbbbbbbb", true, false),
            ("gggggggggggggggg.bbb", true, false),
            ("b.b.b", true, false),
            ("bbb.g", false, false),
            ("bbbggg", false, false),
            ("bbbbbbbbbbbbbbbbggggggggggg", false, false),
            ("bbbbbbbbbbbbbbbbgggggggggggg", false, true),
        ];
        for (word, failing, good) in cases {
            let (mut lately, mut now) = (Lately::default(), Timestamp::from_secs(1_000_000));
            for letter in word.chars() {
                match letter {
                    '.' => now = now.plus(SILENCE + Duration::from_secs(60)),
                    letter => lately.push(letter == 'b', now),
                }
            }
            let is_good = lately.is_good_again() && lately.refused() > 0;
            assert_eq!((lately.is_failing(), is_good), (failing, good), "{word}");
        }
    }

    #[test]
    fn a_good_account_is_watched_no_more() {
        let (mut lately, now) = (Lately::default(), Timestamp::from_secs(1_000_000));
        lately.push(true, now);
        for _ in 0..LAST {
            assert!(!lately.is_over(now));
            lately.push(false, now);
        }
        assert!(lately.is_over(now));
    }
}
