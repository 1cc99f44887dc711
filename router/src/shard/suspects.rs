//! What a shard had in hand when it panicked. It outlives the shard, in its supervisor: what is under suspicion is then tried alone,
//! and set aside when it panicked [`STRIKES`] times.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use messaging::ids::MessageId;
use messaging::log::{Position, Topic};
use messaging::store::Queue;

/// Panics until something is set aside.
pub const STRIKES: u8 = 3;
/// Instead of strikes: it was set aside.
const ASIDE: u8 = u8::MAX;
/// Things under suspicion that are remembered; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 16_384;

/// One thing that a shard works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// A record of the log.
    Record(Topic, Position),
    /// A row in `later` that becomes a task, by its destination and place.
    Later(Queue, u64),
    /// A timer that fires, by its place.
    Timer(u64),
    /// An event whose deliveries are taken up again, by its place in the feed.
    Event(u64),
    /// A send that the former owner left with its fate unknown.
    Intent(MessageId),
    /// What a lane says of an event's delivery to an endpoint.
    Delivery(u64, Queue),
    /// What a lane says of a send.
    Send(MessageId),
    /// What a lane says of a task that stands in `later`.
    Parked(Queue, u64),
}

/// What is in hand, and what was in hand at panics.
#[derive(Debug, Default)]
pub struct Suspects {
    /// What is being done with what is in hand.
    place: &'static str,
    cured: bool,
    in_hand: Vec<Item>,
    strikes: HashMap<Item, u8, RandomState>,
    oldest: VecDeque<Item>,
}

impl Suspects {
    /// This is done now.
    pub fn at(&mut self, place: &'static str) {
        self.place = place;
    }

    /// What was done last.
    pub fn place(&self) -> &'static str {
        self.place
    }

    /// One more thing is in hand.
    pub fn take_up(&mut self, item: Item) {
        self.in_hand.push(item);
    }

    /// What is in hand went well.
    pub fn put_down(&mut self) {
        for item in self.in_hand.drain(..) {
            if !self.strikes.is_empty() {
                self.strikes.remove(&item);
            }
        }
    }

    /// The shard panicked. Gives what it had in hand.
    pub fn strike(&mut self) -> Vec<Item> {
        for item in &self.in_hand {
            let strikes = self.strikes.entry(*item).or_insert_with(|| {
                self.oldest.push_back(*item);
                0
            });
            *strikes = (*strikes + 1).min(STRIKES);
        }
        while self.oldest.len() > REMEMBERED_MAX {
            if let Some(item) = self.oldest.pop_front() {
                self.strikes.remove(&item);
            }
        }
        std::mem::take(&mut self.in_hand)
    }

    /// It was set aside. It is remembered: until what comes after it is finished too, it comes again with every beginning.
    pub fn set_aside(&mut self, item: Item) {
        if let Some(strikes) = self.strikes.get_mut(&item) {
            *strikes = ASIDE;
        }
        self.cured = true;
    }

    /// Whether it was set aside before.
    pub fn is_aside(&self, item: Item) -> bool {
        self.strikes.get(&item).is_some_and(|strikes| *strikes == ASIDE)
    }

    /// Whether something was set aside since the last time.
    pub fn take_cured(&mut self) -> bool {
        std::mem::take(&mut self.cured)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.strikes.is_empty()
    }

    /// Whether it is to be tried alone.
    pub fn suspected(&self, item: Item) -> bool {
        self.strikes.contains_key(&item)
    }

    /// Whether it is to be set aside.
    pub fn condemned(&self, item: Item) -> bool {
        self.strikes.get(&item).is_some_and(|strikes| *strikes >= STRIKES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_three_times_is_set_aside_and_its_neighbours_are_cleared() {
        let [bad, good] = [1, 2].map(|n| Item::Record(Topic::Inbound, Position(n)));
        let mut suspects = Suspects::default();
        for (round, hand) in [vec![bad, good], vec![bad], vec![bad]].into_iter().enumerate() {
            assert!(!suspects.condemned(bad), "round {round}");
            hand.iter().for_each(|item| suspects.take_up(*item));
            assert_eq!(suspects.strike(), hand);
        }
        assert!(suspects.condemned(bad));
        assert!(suspects.suspected(good) && !suspects.condemned(good));
        suspects.take_up(good);
        suspects.put_down();
        assert!(!suspects.suspected(good));
        assert!(!suspects.take_cured() && !suspects.is_aside(bad));
        suspects.set_aside(bad);
        assert!(suspects.take_cured() && suspects.is_aside(bad) && suspects.condemned(bad), "it is remembered");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let item = |n: usize| Item::Timer(n as u64);
        let mut suspects = Suspects::default();
        for n in 0..=REMEMBERED_MAX {
            suspects.take_up(item(n));
            suspects.strike();
        }
        assert!(!suspects.suspected(item(0)) && suspects.suspected(item(1)));
    }
}
