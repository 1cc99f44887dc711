//! Which prefix is finished: of a topic's records, and of the feed's events. Places are given up in order, when everything that
//! hangs on them is done or stands in `later`.

use std::collections::VecDeque;

use messaging::log::{Position, Topic};

/// An open place in a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(u64);

/// Rising numbers, each held by one or more holders; the finished prefix ends before the first that is still held.
#[derive(Debug, Default)]
pub struct Prefix {
    /// Number of the first place in `open`.
    first: u64,
    open: VecDeque<(u64, u32)>,
    finished: Option<u64>,
}

impl Prefix {
    /// A number is taken up, with one holder. Numbers rise.
    pub fn open(&mut self, number: u64) -> Place {
        debug_assert!(self.open.back().is_none_or(|(last, _)| *last < number), "numbers rise");
        self.open.push_back((number, 1));
        Place(self.first + self.open.len() as u64 - 1)
    }

    /// One more holder.
    pub fn hold(&mut self, place: Place) {
        self.entry(place).1 += 1;
    }

    /// A holder is done.
    pub fn release(&mut self, place: Place) {
        let entry = self.entry(place);
        entry.1 = entry.1.checked_sub(1).expect("a place is released as often as it is held");
        while let Some((number, 0)) = self.open.front() {
            self.finished = Some(*number);
            self.open.pop_front();
            self.first += 1;
        }
    }

    fn entry(&mut self, place: Place) -> &mut (u64, u32) {
        let at = place.0.checked_sub(self.first).expect("a held place is still open");
        self.open.get_mut(at as usize).expect("a held place is still open")
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The end of the finished prefix, once after each change.
    pub fn take_finished(&mut self) -> Option<u64> {
        self.finished.take()
    }
}

/// A record in work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    topic: Topic,
    place: Place,
}

/// The finished prefixes of one shard's topics.
#[derive(Debug, Default)]
pub struct Progress {
    topics: [Prefix; Topic::ALL.len()],
}

impl Progress {
    /// A record was taken: one holder, the step that works on it.
    pub fn open(&mut self, topic: Topic, position: Position) -> Slot {
        Slot { topic, place: self.topics[topic.index()].open(position.0) }
    }
    /// One more effect holds the record.
    pub fn hold(&mut self, slot: Slot) {
        self.topics[slot.topic.index()].hold(slot.place);
    }
    /// An effect, or the step itself, is done with the record.
    pub fn release(&mut self, slot: Slot) {
        self.topics[slot.topic.index()].release(slot.place);
    }
    /// Records in work.
    pub fn in_work(&self) -> usize {
        self.topics.iter().map(Prefix::len).sum()
    }
    /// The finished position of a topic, once after each change.
    pub fn take_finished(&mut self, topic: Topic) -> Option<Position> {
        self.topics[topic.index()].take_finished().map(Position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_finished_prefix_counts() {
        let mut progress = Progress::default();
        let slots: Vec<_> = (1..=3).map(|n| progress.open(Topic::Inbound, Position(n * 10))).collect();
        progress.hold(slots[0]);
        progress.release(slots[1]);
        progress.release(slots[0]);
        assert_eq!(progress.take_finished(Topic::Inbound), None, "the first is still held by an effect");
        progress.release(slots[0]);
        assert_eq!(progress.take_finished(Topic::Inbound), Some(Position(20)));
        assert_eq!(progress.take_finished(Topic::Inbound), None);
        progress.release(slots[2]);
        assert_eq!(progress.take_finished(Topic::Inbound), Some(Position(30)));
        assert_eq!(progress.in_work(), 0);
    }

    proptest! {
        #[test]
        fn finished_never_passes_an_open_record(order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut progress = Progress::default();
            let slots: Vec<_> = (0..20).map(|n| progress.open(Topic::Bulk, Position(n + 1))).collect();
            let mut done = std::collections::BTreeSet::new();
            for n in order {
                progress.release(slots[n]);
                done.insert(n as u64 + 1);
                let prefix = (1..=20).take_while(|p| done.contains(p)).last();
                if let Some(finished) = progress.take_finished(Topic::Bulk) {
                    prop_assert_eq!(Some(finished.0), prefix);
                }
            }
            prop_assert_eq!(progress.in_work(), 0);
        }
    }
}
