//! The sends of one shard that wait, told to the process's outlook. What the shard told is taken back when it ends.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use messaging::clock::Timestamp;
use messaging::ids::{AccountId, TenantId};
use messaging::outlook::Outlook;
use messaging::record::Class;
use messaging::store::Queue;

use crate::plan::{LaterRow, LaterWork, Task, Work};

/// Whose sends: one account's, of one class.
type Line = (TenantId, AccountId, Class);

/// The sends of a shard that wait.
#[derive(Debug)]
pub struct Waits {
    outlook: Arc<Outlook>,
    mine: HashMap<Line, u64, RandomState>,
}

impl Waits {
    /// None yet.
    pub fn new(outlook: Arc<Outlook>) -> Self {
        Self { outlook, mine: HashMap::default() }
    }

    /// A send was taken off the log.
    pub fn taken(&self, account: AccountId, class: Class, accepted_at: Timestamp) {
        self.outlook.taken(account, class, accepted_at);
    }

    /// A new task waits. Deliveries are not counted.
    pub fn join(&mut self, task: &Task) {
        if let Work::Send(sending) = &task.work {
            self.add((task.tenant.id(), sending.account, sending.command.class));
        }
    }

    /// A row of `later` that the former owner left.
    pub fn join_row(&mut self, queue: Queue, row: &LaterRow) {
        if let Some((account, class)) = line(queue, row) {
            self.add((row.tenant, account, class));
        }
    }

    /// A task has ended.
    pub fn leave(&mut self, task: &Task) {
        if let Work::Send(sending) = &task.work {
            self.remove((task.tenant.id(), sending.account, sending.command.class));
        }
    }

    /// A row of `later` has nothing left to do.
    pub fn leave_row(&mut self, queue: Queue, row: &LaterRow) {
        if let Some((account, class)) = line(queue, row) {
            self.remove((row.tenant, account, class));
        }
    }

    fn add(&mut self, line: Line) {
        *self.mine.entry(line).or_default() += 1;
        self.outlook.joined(line.0, line.1, line.2, 1);
    }

    fn remove(&mut self, line: Line) {
        let Some(waiting) = self.mine.get_mut(&line) else { return };
        *waiting -= 1;
        if *waiting == 0 {
            self.mine.remove(&line);
        }
        self.outlook.left(line.0, line.1, line.2, 1);
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        for ((tenant, account, class), sends) in self.mine.drain() {
            self.outlook.left(tenant, account, class, sends);
        }
    }
}

fn line(queue: Queue, row: &LaterRow) -> Option<(AccountId, Class)> {
    match (&row.what, queue) {
        (LaterWork::Send(..), Queue::Destination(id)) => Some((AccountId(id), Class::Interactive)),
        (LaterWork::Send(..), Queue::Bulk(id)) => Some((AccountId(id), Class::Bulk)),
        (LaterWork::Send(..), Queue::Timers) | (LaterWork::Deliver { .. } | LaterWork::Window | LaterWork::Scheduled(..), _) => None,
    }
}
