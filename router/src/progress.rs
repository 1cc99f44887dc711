//! Which prefix is finished: of a topic's records, and of the feed's events. Places are given up in order, when everything that
//! hangs on them is done or stands in `later`.

use std::collections::VecDeque;

use messaging::log::{Position, Topic};

/// A hold on a number of a prefix: it stays open until every hold on it was given back. Not to be copied: whoever has one knows that
/// its number is still open, and can give it back once only.
#[derive(Debug)]
#[must_use = "a hold that is not released holds the prefix for ever"]
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
    pub fn hold(&mut self, place: &Place) -> Place {
        self.entry(place).1 += 1;
        Place(place.0)
    }

    /// A holder is done.
    pub fn release(&mut self, place: Place) {
        self.entry(&place).1 -= 1;
        while let Some((number, 0)) = self.open.front() {
            self.finished = Some(*number);
            self.open.pop_front();
            self.first += 1;
        }
    }

    fn entry(&mut self, place: &Place) -> &mut (u64, u32) {
        let open = place.0.checked_sub(self.first).and_then(|at| self.open.get_mut(at as usize));
        open.expect("a hold keeps its number open, and stays with its prefix")
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

/// A hold on a record in work, see [`Place`].
#[derive(Debug)]
#[must_use = "a hold that is not released holds the log's position for ever"]
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
    pub fn hold(&mut self, slot: &Slot) -> Slot {
        Slot { topic: slot.topic, place: self.topics[slot.topic.index()].hold(&slot.place) }
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
        let [first, second, third] = [10, 20, 30].map(|n| progress.open(Topic::Inbound, Position(n)));
        let effect = progress.hold(&first);
        progress.release(second);
        progress.release(first);
        assert_eq!(progress.take_finished(Topic::Inbound), None, "the first is still held by an effect");
        progress.release(effect);
        assert_eq!(progress.take_finished(Topic::Inbound), Some(Position(20)));
        assert_eq!(progress.take_finished(Topic::Inbound), None);
        progress.release(third);
        assert_eq!(progress.take_finished(Topic::Inbound), Some(Position(30)));
        assert_eq!(progress.in_work(), 0);
    }

    proptest! {
        #[test]
        fn finished_never_passes_an_open_record(order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut progress = Progress::default();
            let mut slots: Vec<_> = (0..20).map(|n| Some(progress.open(Topic::Bulk, Position(n + 1)))).collect();
            let mut done = std::collections::BTreeSet::new();
            for n in order {
                progress.release(slots[n].take().expect("each once"));
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
