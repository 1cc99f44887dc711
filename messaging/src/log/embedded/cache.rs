//! Groups in memory: the newest ones, that the writer hands over, and a few that lagging shards read back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::format::Group;

/// Most bytes of new groups that wait in memory for their readers. A shard that is further behind reads the file.
pub(super) const RING_BYTES_MAX: u64 = 32 << 20;
/// Most bytes of groups that were read back. Shards that lag together share them.
pub(super) const READ_BACK_BYTES_MAX: u64 = 8 << 20;

struct Slot {
    group: Arc<Group>,
    /// Lanes that have not taken all their records of it.
    untaken: usize,
}

/// Groups in memory, found by their place.
pub(super) struct GroupCache {
    /// Most bytes of new groups; [`RING_BYTES_MAX`] but in tests.
    pub ring_bytes_max: u64,
    ring: VecDeque<Slot>,
    ring_bytes: u64,
    read_back: BTreeMap<u64, Arc<Group>>,
    read_order: VecDeque<u64>,
    read_bytes: u64,
}

fn length(group: &Group) -> u64 {
    group.end - group.start
}

impl Default for GroupCache {
    fn default() -> Self {
        Self {
            ring_bytes_max: RING_BYTES_MAX,
            ring: VecDeque::new(),
            ring_bytes: 0,
            read_back: BTreeMap::new(),
            read_order: VecDeque::new(),
            read_bytes: 0,
        }
    }
}

impl GroupCache {
    /// Takes a new group for a number of lanes; the oldest go when there is no room.
    pub(super) fn publish(&mut self, group: Arc<Group>, untaken: usize) {
        self.ring_bytes += length(&group);
        self.ring.push_back(Slot { group, untaken });
        while self.ring_bytes > self.ring_bytes_max {
            self.drop_oldest();
        }
        self.drop_taken();
    }

    fn drop_oldest(&mut self) {
        if let Some(slot) = self.ring.pop_front() {
            self.ring_bytes -= length(&slot.group);
        }
    }

    /// A group that every lane took is needed no more.
    fn drop_taken(&mut self) {
        while self.ring.front().is_some_and(|slot| slot.untaken == 0) {
            self.drop_oldest();
        }
    }

    fn ring_index(&self, start: u64) -> Option<usize> {
        self.ring.binary_search_by_key(&start, |slot| slot.group.start).ok()
    }

    /// A lane took, or skipped, all its records of a group.
    pub(super) fn release(&mut self, start: u64) {
        if let Some(index) = self.ring_index(start) {
            let slot = &mut self.ring[index];
            slot.untaken = slot.untaken.saturating_sub(1);
            self.drop_taken();
        }
    }

    /// The group at a place, when it is here.
    pub(super) fn get(&self, start: u64) -> Option<Arc<Group>> {
        if let Some(index) = self.ring_index(start) {
            return Some(self.ring[index].group.clone());
        }
        self.read_back.get(&start).cloned()
    }

    /// Up to `max` new groups from a place on, when none between was dropped.
    pub(super) fn newest_from(&self, from: u64, max: usize) -> Vec<Arc<Group>> {
        if self.ring.front().is_none_or(|slot| slot.group.start > from) {
            return Vec::new();
        }
        let index = self.ring.partition_point(|slot| slot.group.start < from);
        self.ring.range(index..).take(max).map(|slot| slot.group.clone()).collect()
    }

    /// Keeps a group that was read back.
    pub(super) fn keep(&mut self, group: Arc<Group>) {
        let (start, bytes) = (group.start, length(&group));
        if self.read_back.insert(start, group).is_some() {
            return;
        }
        self.read_order.push_back(start);
        self.read_bytes += bytes;
        while self.read_bytes > READ_BACK_BYTES_MAX && self.read_order.len() > 1 {
            let oldest = self.read_order.pop_front().expect("more than one");
            if let Some(group) = self.read_back.remove(&oldest) {
                self.read_bytes -= length(&group);
            }
        }
    }

    /// Whether groups that were read back are here.
    pub(super) fn has_read_back(&self) -> bool {
        !self.read_back.is_empty()
    }

    /// Lets go what was read back.
    pub(super) fn forget_read_back(&mut self) {
        self.read_back = BTreeMap::new();
        self.read_order = VecDeque::new();
        self.read_bytes = 0;
    }

    /// Bytes of new groups, and of groups that were read back.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.ring_bytes, self.read_bytes)
    }
}
