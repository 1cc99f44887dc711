//! A shard's `later`: what cannot be done now, per destination in order of arrival, and timers by due time.
//!
//! The rows are the truth; here stands an index over the head of each queue. A queue longer than the index goes on in the store
//! only (`tail`) and is read in as the head drains.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::clock::Timestamp;
use messaging::ids::{ConversationId, MessageId, TenantId};
use messaging::record::Class;
use messaging::store::{Key, Queue, Write};

use crate::plan::{Destination, LaterRow, LaterWork};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Entries of one destination's queue that are indexed.
pub const WINDOW_MAX: usize = 4096;
/// Timers that are indexed.
pub const TIMERS_MAX: usize = 16_384;
/// A timer's place: hundredths of a second above, then 8 bits of the lease's epoch, then a counter.
const TIMER_SLOT_SHIFT: u32 = 26;
const TIMER_COUNT_BITS: u32 = 18;
/// How soon an entry is looked at again whose conversation is busy in memory.
const BUSY_LOOK: Duration = Duration::from_millis(20);

/// A row at its place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the queue.
    pub order: u64,
    /// The row.
    pub row: LaterRow,
    in_flight: bool,
}

#[derive(Debug, Default)]
struct DestinationQueue {
    window: VecDeque<Entry>,
    /// How many entries of the window each conversation has.
    conversations: Map<ConversationId, u32>,
    /// First place that stands in the store only.
    tail: Option<u64>,
    in_flight: usize,
    hold_until: Timestamp,
    /// The endpoint's revision when it was looked at last.
    revision: u64,
    /// When the next entry may be ready.
    next: Timestamp,
    /// When entries were taken up last, in `Later::taken`.
    served: u64,
}

/// A shard's index over its `later`.
#[derive(Debug)]
pub struct Later {
    shard: u16,
    queues: Map<Queue, DestinationQueue>,
    timers: BTreeMap<u64, LaterRow>,
    timers_tail: Option<u64>,
    last_order: u64,
    epoch: u64,
    timer_count: u64,
    /// Counts how often entries were taken up.
    taken: u64,
}

fn encode(row: &LaterRow) -> Vec<u8> {
    postcard::to_stdvec(row).expect("our own types serialise")
}

/// From the store; none when it is of another version.
pub fn decode(bytes: &[u8]) -> Option<LaterRow> {
    postcard::from_bytes(bytes).ok()
}

impl Later {
    /// An empty index of a shard, under a lease.
    pub fn new(shard: u16, epoch: u64) -> Self {
        Self { shard, queues: Map::default(), timers: BTreeMap::new(), timers_tail: None, last_order: 0, epoch, timer_count: 0, taken: 0 }
    }

    /// Lays a stored row in at the start, in key order. What does not fit goes on in the store.
    pub fn load(&mut self, queue: Queue, order: u64, row: LaterRow) {
        match queue {
            Queue::Timers => {
                if self.timers.len() < TIMERS_MAX && self.timers_tail.is_none() {
                    self.timers.insert(order, row);
                } else {
                    self.timers_tail.get_or_insert(order);
                }
            }
            Queue::Destination(_) | Queue::Bulk(_) => {
                self.last_order = self.last_order.max(order);
                self.index(queue, order, row);
            }
        }
    }

    fn index(&mut self, destination: Queue, order: u64, row: LaterRow) {
        let queue = self.queues.entry(destination).or_default();
        if queue.tail.is_some() || queue.window.len() >= WINDOW_MAX {
            queue.tail.get_or_insert(order);
            return;
        }
        *queue.conversations.entry(row.conversation).or_default() += 1;
        queue.next = queue.next.min(row.due);
        queue.window.push_back(Entry { order, row, in_flight: false });
    }

    /// Whether something of this conversation, or the destination's unread tail, stands in the way.
    pub fn blocks(&self, destination: Queue, conversation: ConversationId) -> bool {
        self.queues.get(&destination).is_some_and(|queue| queue.tail.is_some() || queue.conversations.contains_key(&conversation))
    }

    /// Puts a row at the end of a destination's queue.
    pub fn push(&mut self, destination: Queue, row: LaterRow, now: Timestamp) -> Write {
        self.last_order = (self.last_order + 1).max(now.as_micros());
        let order = self.last_order;
        let write = Write::put(Key::Later(self.shard, destination, order), encode(&row), now);
        self.index(destination, order, row);
        write
    }

    /// Puts a row at the end of a destination's queue whose task is at its lane already. Gives its place.
    pub fn push_in_flight(&mut self, destination: Queue, row: LaterRow, now: Timestamp) -> (Write, u64) {
        let write = self.push(destination, row, now);
        let order = self.last_order;
        if let Some(queue) = self.queues.get_mut(&destination)
            && let Some(entry) = queue.window.back_mut().filter(|entry| entry.order == order)
        {
            entry.in_flight = true;
            queue.in_flight += 1;
        }
        (write, order)
    }

    /// Sets a timer.
    pub fn set_timer(&mut self, row: LaterRow, now: Timestamp) -> Write {
        let mut order = self.timer_place(row.due);
        while self.timers.contains_key(&order) {
            order = self.timer_place(row.due);
        }
        let write = Write::put(Key::Later(self.shard, Queue::Timers, order), encode(&row), now);
        if self.timers_tail.is_none_or(|tail| order < tail) {
            self.timers.insert(order, row);
            if self.timers.len() > TIMERS_MAX
                && let Some((last, _)) = self.timers.pop_last()
            {
                self.timers_tail = Some(self.timers_tail.map_or(last, |tail| tail.min(last)));
            }
        }
        write
    }

    /// A place for a timer: by due time in hundredths of a second, then by lease and a counter. Platforms tell time in whole seconds,
    /// so many timers are due at one instant; the place must be new without a look at those that stand in the store only.
    fn timer_place(&mut self, due: Timestamp) -> u64 {
        self.timer_count = self.timer_count.wrapping_add(1);
        let slot = (due.as_micros() / 10_000).min(u64::MAX >> TIMER_SLOT_SHIFT);
        let lease = (self.epoch & 0xff) << TIMER_COUNT_BITS;
        slot << TIMER_SLOT_SHIFT | lease | self.timer_count & ((1 << TIMER_COUNT_BITS) - 1)
    }

    /// Takes due timers out, with the writes that delete their rows.
    pub fn due_timers(&mut self, now: Timestamp, max: usize) -> Vec<(LaterRow, Write)> {
        let mut due = Vec::new();
        while due.len() < max {
            let Some(first) = self.timers.first_entry() else { break };
            if first.get().due > now {
                break;
            }
            let order = *first.key();
            let row = first.remove();
            due.push((row, Write::delete(Key::Later(self.shard, Queue::Timers, order), now)));
        }
        due
    }

    /// Where to read on when the indexed timers are used up.
    pub fn timers_to_read(&self) -> Option<u64> {
        self.timers_tail.filter(|_| self.timers.is_empty())
    }

    /// Timers read on from the tail.
    pub fn timers_read(&mut self, rows: Vec<(u64, LaterRow)>, more: bool) {
        self.timers_tail = None;
        let next = rows.last().map(|(order, _)| order + 1);
        for (order, row) in rows {
            self.timers.insert(order, row);
        }
        if more {
            self.timers_tail = next;
        }
    }

    /// Holds a whole destination, with all its lines.
    pub fn hold(&mut self, destination: Destination, until: Timestamp) {
        let lines = match destination {
            Destination::Endpoint(_) => vec![destination],
            Destination::Account(id, _) => Class::ALL.map(|class| Destination::Account(id, class)).to_vec(),
        };
        for line in lines {
            let queue = self.queues.entry(line.queue()).or_default();
            queue.hold_until = queue.hold_until.max(until);
            queue.next = queue.next.max(until);
        }
    }

    /// Whether the destination is held.
    pub fn held(&self, destination: Queue, now: Timestamp) -> bool {
        self.queues.get(&destination).is_some_and(|queue| queue.hold_until > now)
    }

    /// A destination is well again: what waits for it may go now, whatever it was to wait for.
    pub fn release(&mut self, destination: Queue, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(&destination) else { return };
        queue.hold_until = Timestamp::ZERO;
        queue.next = Timestamp::ZERO;
        for entry in &mut queue.window {
            entry.row.due = entry.row.due.min(now);
        }
    }

    /// Endpoints that have something waiting and whose revision is another than at the last look.
    pub fn changed(&mut self, revision: impl Fn([u8; 16]) -> Option<u64>) -> Vec<Queue> {
        let mut changed = Vec::new();
        for (queue, waiting) in &mut self.queues {
            let Queue::Destination(id) = queue else { continue };
            let Some(now) = revision(*id) else { continue };
            if std::mem::replace(&mut waiting.revision, now) != now {
                changed.push(*queue);
            }
        }
        changed
    }

    /// Destinations that have something and may be ready.
    pub fn waiting(&self, now: Timestamp) -> Vec<Queue> {
        let ready = self.queues.iter().filter(|(_, queue)| queue.next <= now && (!queue.window.is_empty() || queue.tail.is_some()));
        ready.map(|(destination, _)| *destination).collect()
    }

    /// The same by tenant, as far as they are indexed: those that were not served for longest come first.
    pub fn lines(&self, now: Timestamp) -> BTreeMap<TenantId, Vec<Queue>> {
        let mut lines: BTreeMap<TenantId, Vec<(u64, Queue)>> = BTreeMap::new();
        for (destination, queue) in self.queues.iter().filter(|(_, queue)| queue.next <= now) {
            // A destination belongs to one tenant.
            let Some(first) = queue.window.front() else { continue };
            lines.entry(first.row.tenant).or_default().push((queue.served, *destination));
        }
        let in_order = |mut lines: Vec<(u64, Queue)>| {
            lines.sort_unstable();
            lines.into_iter().map(|(_, destination)| destination).collect()
        };
        lines.into_iter().map(|(tenant, lines)| (tenant, in_order(lines))).collect()
    }

    /// How many of a destination's entries are under way.
    pub fn under_way(&self, destination: Queue) -> usize {
        self.queues.get(&destination).map_or(0, |queue| queue.in_flight)
    }

    /// Takes up ready entries: the first of each conversation that is not `busy`, in order, so many that `in_flight_max` are
    /// under way, and `most` of them. What is past its deadline is ready, held or not and wherever it stands: it only waits to be failed.
    pub fn take_ready(
        &mut self,
        destination: Queue,
        now: Timestamp,
        in_flight_max: usize,
        most: usize,
        busy: impl Fn(ConversationId) -> bool,
    ) -> Vec<Entry> {
        let Some(queue) = self.queues.get_mut(&destination) else { return Vec::new() };
        let held = queue.hold_until > now;
        let mut blocked: HashSet<ConversationId, RandomState> = HashSet::default();
        let mut ready = Vec::new();
        let mut next = if held { queue.hold_until } else { Timestamp::MAX };
        for entry in &mut queue.window {
            let conversation = entry.row.conversation;
            let overdue = entry.row.deadline <= now;
            if blocked.contains(&conversation) && !overdue {
                next = next.min(entry.row.deadline);
                continue;
            }
            let busy = !entry.in_flight && busy(conversation);
            if entry.in_flight || busy || ((held || entry.row.due > now) && !overdue) {
                if busy {
                    next = next.min(now.plus(BUSY_LOOK));
                } else if !entry.in_flight {
                    next = next.min(entry.row.due.max(if held { queue.hold_until } else { Timestamp::ZERO })).min(entry.row.deadline);
                }
                blocked.insert(conversation);
                continue;
            }
            if queue.in_flight >= in_flight_max {
                // The end of one of them looks again: until then there is nothing to wake for.
                next = Timestamp::MAX;
                break;
            }
            if ready.len() >= most {
                // It has its turn again.
                next = now;
                break;
            }
            entry.in_flight = true;
            queue.in_flight += 1;
            blocked.insert(conversation);
            ready.push(entry.clone());
        }
        queue.next = next;
        if !ready.is_empty() {
            self.taken += 1;
            queue.served = self.taken;
        }
        ready
    }

    /// Removes an entry that is done.
    pub fn done(&mut self, destination: Queue, order: u64, now: Timestamp) -> Write {
        let write = Write::delete(Key::Later(self.shard, destination, order), now);
        if let Some(queue) = self.queues.get_mut(&destination) {
            if let Ok(at) = queue.window.binary_search_by_key(&order, |entry| entry.order) {
                let entry = queue.window.remove(at).expect("found there");
                queue.in_flight -= usize::from(entry.in_flight);
                match queue.conversations.get_mut(&entry.row.conversation) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => {
                        queue.conversations.remove(&entry.row.conversation);
                    }
                }
            }
            queue.next = Timestamp::ZERO;
            if queue.window.is_empty() && queue.tail.is_none() && queue.hold_until <= now {
                self.queues.remove(&destination);
            }
        }
        write
    }

    /// Puts an entry back at its place, to be tried again.
    pub fn again(&mut self, destination: Queue, order: u64, due: Timestamp, attempts: u32, now: Timestamp) -> Option<Write> {
        let queue = self.queues.get_mut(&destination)?;
        let at = queue.window.binary_search_by_key(&order, |entry| entry.order).ok()?;
        let entry = &mut queue.window[at];
        queue.in_flight -= usize::from(std::mem::take(&mut entry.in_flight));
        entry.row.due = due;
        entry.row.attempts = attempts;
        // One less under way: another may go now.
        queue.next = Timestamp::ZERO;
        Some(Write::put(Key::Later(self.shard, destination, order), encode(&entry.row), now))
    }

    /// An entry was taken up and its lane had no room: it stays where it is, unchanged.
    pub fn put_back(&mut self, destination: Queue, order: u64, look_again: Timestamp) {
        let Some(queue) = self.queues.get_mut(&destination) else { return };
        if let Ok(at) = queue.window.binary_search_by_key(&order, |entry| entry.order) {
            queue.in_flight -= usize::from(std::mem::take(&mut queue.window[at].in_flight));
        }
        queue.next = look_again;
    }

    /// The place of a waiting send, if it is not under way.
    pub fn find_send(&self, destination: Queue, message: MessageId) -> Option<&Entry> {
        let queue = self.queues.get(&destination)?;
        let waits = |entry: &&Entry| !entry.in_flight && matches!(entry.row.what, LaterWork::Send(id, _) if id == message);
        queue.window.iter().find(waits)
    }

    /// Where to read on for a destination whose window has room.
    pub fn to_read(&self, destination: Queue) -> Option<u64> {
        let queue = self.queues.get(&destination)?;
        queue.tail.filter(|_| queue.window.len() <= WINDOW_MAX / 2)
    }

    /// Entries read on from the tail.
    pub fn read_on(&mut self, destination: Queue, rows: Vec<(u64, LaterRow)>, more: bool) {
        let Some(queue) = self.queues.get_mut(&destination) else { return };
        queue.tail = None;
        let last = rows.last().map(|(order, _)| order + 1);
        for (order, row) in rows {
            self.index(destination, order, row);
        }
        if more && let Some(queue) = self.queues.get_mut(&destination) {
            let tail = queue.tail.or(last);
            queue.tail = tail;
        }
        if let Some(queue) = self.queues.get_mut(&destination) {
            queue.next = Timestamp::ZERO;
        }
    }

    /// When something may be ready: never later than `cap`.
    pub fn next_wake(&self, cap: Timestamp) -> Timestamp {
        let timer = self.timers.first_key_value().map_or(Timestamp::MAX, |(_, row)| row.due);
        let timer = if self.timers_to_read().is_some() { Timestamp::ZERO } else { timer };
        let waiting = self.queues.values().filter(|queue| !queue.window.is_empty() || queue.tail.is_some());
        waiting.map(|queue| queue.next).min().unwrap_or(Timestamp::MAX).min(timer).min(cap)
    }

    /// By destination, how many entries wait that are not at their lane, and when the oldest was accepted; as far as they are indexed.
    pub fn waits(&self) -> impl Iterator<Item = (Queue, usize, Option<Timestamp>)> {
        self.queues.iter().map(|(destination, queue)| {
            let oldest = queue.window.front().map(|entry| entry.row.accepted_at);
            (*destination, queue.window.len() - queue.in_flight, oldest)
        })
    }

    /// Scheduled sends, as far as they are indexed.
    pub fn scheduled(&self) -> impl Iterator<Item = &LaterRow> {
        self.timers.values().filter(|row| matches!(row.what, LaterWork::Scheduled(..)))
    }

    /// Conversations that have an entry, as far as they are indexed.
    pub fn conversations(&self) -> usize {
        self.queues.values().map(|queue| queue.conversations.len()).sum()
    }

    /// Entries that wait, as far as they are indexed.
    pub fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.window.len()).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.timers.is_empty()
    }
}

#[cfg(test)]
mod tests;
