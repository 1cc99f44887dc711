//! Sends that this process accepted a short while ago: replays of idempotency keys are answered from here, also while the
//! store is away and before the shard has written the message's row. Beyond its bounds the store's row decides.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::clock::Timestamp;
use messaging::ids::{AccountId, ConversationId, MessageId, TenantId};
use messaging::record::Class;

/// Independent maps, so that threads seldom wait for each other.
const PARTS: usize = 16;
/// Sends that one map remembers: about 2 million bytes for all.
const PART_ENTRIES_MAX: usize = 8 * 1024;

/// An accepted send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) tenant: TenantId,
    pub(crate) account: AccountId,
    pub(crate) conversation: ConversationId,
    pub(crate) class: Class,
    pub(crate) fingerprint: [u8; 16],
    pub(crate) accepted_at: Timestamp,
    pub(crate) expected_by: Timestamp,
}

enum Entry {
    Running([u8; 16]),
    Done(Accepted),
}

#[derive(Default)]
struct Part {
    entries: HashMap<MessageId, Entry, RandomState>,
    /// Finished ones, oldest first.
    order: VecDeque<(Timestamp, MessageId)>,
}

/// The memory.
pub(crate) struct Recent {
    parts: Vec<Mutex<Part>>,
    ttl: Duration,
}

/// What a keyed send met.
pub(crate) enum Met<'r> {
    /// Nothing: it is the first, and holds the place until it is done or dropped.
    New(Running<'r>),
    /// The first is still running.
    InProgress,
    /// It was accepted.
    Accepted(Accepted),
    /// The key was used with another body.
    Mismatch,
}

/// The place of a keyed send that is under way. Dropping it gives the key free.
pub(crate) struct Running<'r> {
    recent: &'r Recent,
    message: MessageId,
    done: bool,
}

impl Running<'_> {
    /// It was accepted.
    pub(crate) fn done(mut self, accepted: Accepted) {
        self.done = true;
        self.recent.note(self.message, accepted);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.recent.part(self.message).entries.remove(&self.message);
        }
    }
}

impl Recent {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), ttl }
    }

    fn part(&self, message: MessageId) -> MutexGuard<'_, Part> {
        // Every change of a part is one insertion or removal, so a panic elsewhere leaves it whole.
        self.parts[usize::from(message.0[15]) % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A keyed send begins. Its id is computed from its tenant and key, so tenants cannot meet here.
    pub(crate) fn begin(&self, message: MessageId, fingerprint: [u8; 16], now: Timestamp) -> Met<'_> {
        let mut part = self.part(message);
        part.forget_old(now, self.ttl);
        match part.entries.get(&message) {
            Some(Entry::Running(other) | Entry::Done(Accepted { fingerprint: other, .. })) if *other != fingerprint => Met::Mismatch,
            Some(Entry::Running(_)) => Met::InProgress,
            Some(Entry::Done(accepted)) => Met::Accepted(*accepted),
            None => {
                part.entries.insert(message, Entry::Running(fingerprint));
                Met::New(Running { recent: self, message, done: false })
            }
        }
    }

    /// A send was accepted.
    pub(crate) fn note(&self, message: MessageId, accepted: Accepted) {
        let mut part = self.part(message);
        part.entries.insert(message, Entry::Done(accepted));
        part.order.push_back((accepted.accepted_at, message));
        while part.order.len() > PART_ENTRIES_MAX {
            part.forget_oldest();
        }
    }

    /// A send of this tenant that was accepted a short while ago.
    pub(crate) fn find(&self, tenant: TenantId, message: MessageId) -> Option<Accepted> {
        match self.part(message).entries.get(&message)? {
            Entry::Done(accepted) if accepted.tenant == tenant => Some(*accepted),
            Entry::Done(_) | Entry::Running(_) => None,
        }
    }
}

impl Part {
    fn forget_oldest(&mut self) {
        if let Some((_, message)) = self.order.pop_front() {
            self.entries.remove(&message);
        }
    }

    fn forget_old(&mut self, now: Timestamp, ttl: Duration) {
        while self.order.front().is_some_and(|(at, _)| now.since(*at) > ttl) {
            self.forget_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(tenant: u8, at: Timestamp) -> Accepted {
        Accepted {
            tenant: TenantId([tenant; 16]),
            account: AccountId([0; 16]),
            conversation: ConversationId([0; 16]),
            class: Class::Interactive,
            fingerprint: [1; 16],
            accepted_at: at,
            expected_by: at,
        }
    }

    #[test]
    fn the_life_of_a_key() {
        let recent = Recent::new(Duration::from_secs(60));
        let (message, now) = (MessageId([5; 16]), Timestamp::from_secs(1000));
        let Met::New(running) = recent.begin(message, [1; 16], now) else { panic!("first seen") };
        assert!(matches!(recent.begin(message, [1; 16], now), Met::InProgress));
        assert!(matches!(recent.begin(message, [2; 16], now), Met::Mismatch));
        drop(running);
        let Met::New(running) = recent.begin(message, [1; 16], now) else { panic!("a failed first gives the key free") };
        running.done(accepted(7, now));
        assert!(matches!(recent.begin(message, [1; 16], now), Met::Accepted(found) if found == accepted(7, now)));
        assert!(matches!(recent.begin(message, [2; 16], now), Met::Mismatch));
        assert!(recent.find(TenantId([7; 16]), message).is_some());
        assert!(recent.find(TenantId([8; 16]), message).is_none(), "another tenant's");
        let later = now.plus(Duration::from_secs(61));
        assert!(matches!(recent.begin(message, [2; 16], later), Met::New(_)));
    }

    #[test]
    fn memory_is_bounded() {
        let recent = Recent::new(Duration::from_secs(60));
        for count in 0..(PARTS * PART_ENTRIES_MAX * 2) as u128 {
            recent.note(MessageId(count.to_be_bytes()), accepted(1, Timestamp::from_secs(1)));
        }
        for part in &recent.parts {
            let part = part.lock().unwrap();
            assert_eq!((part.entries.len(), part.order.len()), (PART_ENTRIES_MAX, PART_ENTRIES_MAX));
        }
    }
}
