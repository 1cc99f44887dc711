//! Media that wait to be fetched, in turns between tenants. What is under way counts too: a tenant may have as many slots as it leaves free,
//! so that one whose platform is slow cannot take them all.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex};

use messaging::ids::TenantId;
use messaging::supervise::lock;
use tokio::sync::Notify;

/// A tenant's part.
#[derive(Debug)]
struct Line<T> {
    items: VecDeque<T>,
    under_way: usize,
}

/// What waits and what is under way. At most `max` wait, of at most so many tenants.
#[derive(Debug)]
struct Lines<T> {
    lines: BTreeMap<TenantId, Line<T>>,
    /// Whose turn was the last.
    last: Option<TenantId>,
    waiting: usize,
    under_way: usize,
    max: usize,
    slots: usize,
}

impl<T> Lines<T> {
    fn new(max: usize, slots: usize) -> Self {
        Self { lines: BTreeMap::new(), last: None, waiting: 0, under_way: 0, max, slots }
    }

    /// Puts one at the end of its tenant's line. Gives what has no room: the newest of the tenant that has most.
    fn push(&mut self, tenant: TenantId, item: T) -> Option<T> {
        let line = self.lines.entry(tenant).or_insert_with(|| Line { items: VecDeque::new(), under_way: 0 });
        line.items.push_back(item);
        self.waiting += 1;
        if self.waiting <= self.max {
            return None;
        }
        // Of several that have as much it is the one that came now, when it is one of them.
        let (most, _) = self.lines.iter().max_by_key(|(of, line)| (line.items.len(), **of == tenant))?;
        let most = *most;
        let lost = self.lines.get_mut(&most)?.items.pop_back();
        self.waiting -= 1;
        self.tidy(most);
        lost
    }

    /// The next that may go now.
    fn take(&mut self) -> Option<(TenantId, T)> {
        let free = self.slots.saturating_sub(self.under_way);
        let may = |line: &Line<T>| !line.items.is_empty() && line.under_way < free;
        let after = self.last.map_or(Unbounded, Excluded);
        let mut in_turn = self.lines.range((after, Unbounded)).chain(self.lines.iter());
        let tenant = in_turn.find(|(_, line)| may(line)).map(|(tenant, _)| *tenant)?;
        let line = self.lines.get_mut(&tenant)?;
        let item = line.items.pop_front()?;
        line.under_way += 1;
        self.under_way += 1;
        self.waiting -= 1;
        self.last = Some(tenant);
        Some((tenant, item))
    }

    /// One of a tenant's has ended.
    fn end(&mut self, tenant: TenantId) {
        if let Some(line) = self.lines.get_mut(&tenant) {
            line.under_way -= 1;
            self.under_way -= 1;
        }
        self.tidy(tenant);
    }

    fn tidy(&mut self, tenant: TenantId) {
        if self.lines.get(&tenant).is_some_and(|line| line.items.is_empty() && line.under_way == 0) {
            self.lines.remove(&tenant);
        }
    }
}

/// The queue, for those who put in and those who take out.
#[derive(Debug)]
pub struct Queue<T> {
    lines: Mutex<Lines<T>>,
    news: Notify,
}

impl<T> Queue<T> {
    /// At most `max` wait, and `slots` are under way.
    pub fn new(max: usize, slots: usize) -> Arc<Self> {
        Arc::new(Self { lines: Mutex::new(Lines::new(max, slots)), news: Notify::new() })
    }

    /// Puts one in. Gives what has no room.
    pub fn push(&self, tenant: TenantId, item: T) -> Option<T> {
        let lost = lock(&self.lines).push(tenant, item);
        self.news.notify_one();
        lost
    }

    /// Waits for the next one. It is under way as long as the slot is kept.
    pub async fn next(self: &Arc<Self>) -> (T, InSlot<T>) {
        loop {
            let news = self.news.notified();
            let taken = lock(&self.lines).take();
            if let Some((tenant, item)) = taken {
                // Others may go as well: one word of news stands for several.
                self.news.notify_one();
                return (item, InSlot { queue: self.clone(), tenant });
            }
            news.await;
        }
    }
}

/// A slot that is taken, until it is dropped.
pub struct InSlot<T> {
    queue: Arc<Queue<T>>,
    tenant: TenantId,
}

impl<T> Drop for InSlot<T> {
    fn drop(&mut self) {
        lock(&self.queue.lines).end(self.tenant);
        self.queue.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn tenant(number: u8) -> TenantId {
        TenantId([number; 16])
    }

    /// What happens, and what is seen of it.
    enum Do {
        Push(u8, u32),
        /// What has no room then.
        Lost(u8, u32, u32),
        Take(u8, u32),
        Nothing,
        End(u8),
    }

    #[test]
    fn tenants_have_turns_and_leave_slots_free() {
        use Do::*;
        let cases: &[(&str, usize, usize, &[Do])] = &[
            ("in order", 9, 9, &[Push(1, 1), Push(1, 2), Take(1, 1), Take(1, 2), Nothing]),
            (
                "in turns",
                9,
                9,
                &[Push(1, 1), Push(1, 2), Push(1, 3), Push(2, 4), Push(3, 5), Take(1, 1), Take(2, 4), Take(3, 5), Take(1, 2), Take(1, 3)],
            ),
            (
                "as many slots as it leaves free",
                9,
                4,
                &[Push(1, 1), Push(1, 2), Push(1, 3), Take(1, 1), Take(1, 2), Nothing, Push(2, 4), Take(2, 4), Nothing, End(1), Take(1, 3)],
            ),
            (
                "without room the one that has most loses its newest",
                4,
                9,
                &[Push(1, 1), Push(1, 2), Push(1, 3), Push(2, 4), Lost(2, 5, 3), Lost(2, 6, 6), Lost(3, 7, 5), Take(1, 1), Take(2, 4)],
            ),
            ("one slot is for whoever comes", 9, 1, &[Push(1, 1), Push(2, 2), Take(1, 1), Nothing, End(1), Take(2, 2), Nothing]),
        ];
        for (name, max, slots, story) in cases {
            let mut lines = Lines::new(*max, *slots);
            for (at, step) in story.iter().enumerate() {
                let what = format!("{name}, step {at}");
                match step {
                    Push(of, item) => assert_eq!(lines.push(tenant(*of), *item), None, "{what}"),
                    Lost(of, item, lost) => assert_eq!(lines.push(tenant(*of), *item), Some(*lost), "{what}"),
                    Take(of, item) => assert_eq!(lines.take(), Some((tenant(*of), *item)), "{what}"),
                    Nothing => assert_eq!(lines.take(), None, "{what}"),
                    End(of) => lines.end(tenant(*of)),
                }
            }
        }
    }

    /// One tenant's never end; another's go on, one after the other, and nothing is left behind.
    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_does_not_get_on_holds_nobody_up() {
        let queue = Queue::new(1_000, 8);
        (0..100).for_each(|item| assert_eq!(queue.push(tenant(1), item), None));
        let mut held = Vec::new();
        while let Ok((item, slot)) = tokio::time::timeout(Duration::from_secs(1), queue.next()).await {
            held.push((item, slot));
        }
        assert_eq!(held.iter().map(|(item, _)| *item).collect::<Vec<_>>(), [0, 1, 2, 3]);
        for item in 1_000..1_020 {
            assert_eq!(queue.push(tenant(2), item), None);
            let (got, slot) = tokio::time::timeout(Duration::from_secs(1), queue.next()).await.expect("a free slot");
            assert_eq!(got, item);
            drop(slot);
        }
        // Whoever waits for a slot hears of it.
        let waits = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await.0 }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(held);
        assert_eq!(tokio::time::timeout(Duration::from_secs(1), waits).await.expect("a free slot").unwrap(), 4);
        for item in 5..100 {
            let (got, _slot) = tokio::time::timeout(Duration::from_secs(1), queue.next()).await.expect("slots are free again");
            assert_eq!(got, item);
        }
        assert!(lock(&queue.lines).lines.is_empty());
    }
}
