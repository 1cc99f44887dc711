//! The order in which the rows of a batch are written. Pure.
//!
//! A batch over many partitions is not atomic here, so it goes out in waves, each after the one before is acknowledged: at
//! whatever instant the process dies or the cluster goes away, what stands is harmless.
//!
//! The record that led to the batch is not finished before its batch is whole, so a half-applied batch is decided again from
//! the log, by this owner or the next. The second decision must not take the first for done, and must come to the same rows:
//! 1. [`Wave::Content`]: rows that nothing leads to yet. Message ids are computed, so the same rows are written again. Events
//!    may come a second time under another place of the feed, with the same event id: subscribers are promised at least once.
//!    `later`, intents and quarantine are of the same kind: too much of them is looked at again, too little would be lost.
//! 2. [`Wave::State`]: the conversation, which counts and numbers what the content says.
//! 3. [`Wave::Marks`]: pointers and platform ids. They are what the decision asks "was it seen before?", and how far a shard is:
//!    where they stand, everything else does.
//! 4. [`Wave::Deletions`]: what the rows above have taken the place of. Deleted last, so that work is never neither here nor
//!    there.
//!
//! The index row of a bucket is written in the wave of its row.

use super::keys::Table;
use crate::store::{Key, Write};

/// A wave of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wave {
    Content,
    State,
    Marks,
    Deletions,
}

impl Wave {
    pub(super) const COUNT: usize = 4;
}

/// The wave of a write.
pub(super) fn wave(write: &Write) -> Wave {
    if write.value.is_none() {
        return Wave::Deletions;
    }
    match write.key {
        Key::Message(..) | Key::Event(..) | Key::Later(..) | Key::Intent(..) | Key::Quarantine(..) => Wave::Content,
        Key::Conversation(..) => Wave::State,
        Key::Pointer(..) | Key::PlatformId(..) | Key::Progress(_) | Key::Work(..) => Wave::Marks,
    }
}

/// Whether a deletion takes the index row along. Buckets are shared; ids of the quarantine are not.
pub(super) fn deletes_index(index: Table) -> bool {
    index == Table::QuarantineIds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::{AccountId, ConversationId, MessageId, PlatformRef, QuarantineId, TenantId};
    use crate::state::FeedPosition;
    use crate::store::{Queue, Work};

    #[test]
    fn what_others_depend_on_comes_after_them_and_deletions_last() {
        let tenant = TenantId([1; 16]);
        for (key, expected) in [
            (Key::Message(tenant, ConversationId([1; 16]), Timestamp(1), MessageId([1; 16])), Wave::Content),
            (Key::Event(tenant, FeedPosition { shard: 1, order: 1 }), Wave::Content),
            (Key::Later(1, Queue::Timers, 1), Wave::Content),
            (Key::Intent(1, tenant, MessageId([1; 16])), Wave::Content),
            (Key::Quarantine(tenant, QuarantineId([1; 16])), Wave::Content),
            (Key::Conversation(tenant, ConversationId([1; 16])), Wave::State),
            (Key::Pointer(tenant, [1; 16]), Wave::Marks),
            (Key::PlatformId(tenant, AccountId([1; 16]), PlatformRef([1; 16])), Wave::Marks),
            (Key::Progress(1), Wave::Marks),
            (Key::Work(tenant, AccountId([1; 16]), Work::Pull), Wave::Marks),
        ] {
            assert_eq!(wave(&Write::put(key, vec![], Timestamp(1))), expected, "{key:?}");
            assert_eq!(wave(&Write::delete(key, Timestamp(1))), Wave::Deletions, "{key:?}");
        }
        assert!(Wave::Content < Wave::State && Wave::State < Wave::Marks && Wave::Marks < Wave::Deletions);
        assert_eq!(Wave::Deletions as usize + 1, Wave::COUNT);
    }
}
