//! The way to the log for what works bring: as ingress does it, with the same records, ids, metrics and spool.

use std::sync::Arc;

use messaging::accounts::StateChange;
use messaging::channels::Piece;
use messaging::directory::{Account, AccountState, StateReason};
use messaging::log::{AppendError, NewRecord, Topic};
use messaging::metrics::{self, IngressOutcome, IngressRejection};
use messaging::record::{News, Notice, Record};
use serde_json::{Map, Value};

use crate::batcher::worse;
use crate::hooks::record_of;
use crate::options::Parts;

/// For one account.
#[derive(Clone)]
pub(super) struct Inlet {
    pub parts: Parts,
    pub account: Arc<Account>,
}

impl Inlet {
    /// Appends verified pieces, in order; `Ok` when all are durable. One that the log never takes because of its size is left out, and
    /// told in the log of the process.
    pub async fn append(&self, pieces: &[Piece]) -> Result<(), AppendError> {
        let (kind, now, largest) = (self.account.channel.index(), self.parts.clock.now(), self.parts.log.max_record());
        let (mut records, mut kinds) = (Vec::with_capacity(pieces.len()), Vec::with_capacity(pieces.len()));
        for piece in pieces {
            let record = record_of(&self.parts, &self.account, piece, now);
            if record.payload.len() > largest {
                tracing::error!(account = %self.account.owner.account, "an authentic event is larger than log.max_record, left out");
                metrics::INGRESS_REJECTIONS.at([kind, IngressRejection::TooLarge.index()]).increment(1);
                continue;
            }
            records.push(record);
            kinds.push(piece.kind());
        }
        let result = self.to_log(records).await;
        let outcome = if result.is_ok() { IngressOutcome::Accepted } else { IngressOutcome::Refused };
        for piece in kinds {
            metrics::INGRESS_EVENTS.at([kind, piece.index(), outcome.index()]).increment(1);
        }
        result
    }

    async fn to_log(&self, records: Vec<NewRecord>) -> Result<(), AppendError> {
        if records.is_empty() {
            return Ok(());
        }
        let failures = self.parts.log.append(records).await.into_iter().filter_map(Result::err);
        failures.fold(None, |worst, error| Some(worse(worst, error))).map_or(Ok(()), Err)
    }

    /// Tells the account's subscribers what was found out; the same finding (`subject`, `instance`) once. Best effort: a log that does
    /// not take it leaves a line in the log of the process, and the next finding tells it.
    pub async fn tell(&self, subject: &str, instance: String, news: News) {
        let notice = Notice { subject: subject.to_owned(), instance, news };
        let (parts, account) = (&self.parts, &self.account);
        let record = Record::notice(account.owner, account.channel, parts.keyring.ids(), &notice, parts.clock.now());
        let record = record.to_new(Topic::Inbound, parts.log.partitions(), parts.keyring.log());
        if let Err(error) = self.to_log(vec![record]).await {
            tracing::warn!(account = %account.owner.account, subject, %error, "the account's subscribers are not told");
        }
    }

    /// Tells that the account does not work as it should: `account.state_changed`, once per state of its row.
    pub async fn tell_stuck(&self, subject: &str, state: &str, detail: &str) {
        let change = [("state", state), ("reason", subject), ("detail", detail)];
        let change: Map<String, Value> = change.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect();
        let instance = format!("{state}:{}", self.account.row.revision);
        tracing::warn!(account = %self.account.owner.account, subject, detail, "an account's work cannot go on before the account is changed");
        self.tell(subject, instance, News::AccountState(change)).await;
    }

    /// Marks the account broken and tells it, if it still has the credential that was refused.
    pub async fn mark_broken(&self, why: &str) {
        let (owner, about) = (self.account.owner, Some(self.account.secrets_set_at()));
        let change = StateChange { owner, state: AccountState::Broken, reason: StateReason::Auth, detail: why.to_owned(), about };
        if let Err(error) = self.parts.accounts().change_state(&change).await {
            tracing::error!(account = %owner.account, %error, "account not marked as broken");
        }
    }
}
