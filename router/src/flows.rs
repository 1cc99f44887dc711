//! Tasks in memory: per (destination, conversation) a short queue whose head is at its lane. What does not fit stands in `later`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::ids::{ConversationId, TenantId};
use messaging::record::Class;

use crate::crowd::{Crowd, Intake};
use crate::plan::{Destination, Task};
use crate::progress::{Place, Slot};

/// Tasks of one conversation that wait in memory behind the one under way.
const QUEUE_MAX: usize = 32;

/// A task and what waits for it.
#[derive(Debug)]
pub struct Pending {
    /// The task.
    pub task: Task,
    /// The record that is held until it is done.
    pub slot: Option<Slot>,
    /// The event that is held until it is delivered.
    pub place: Option<Place>,
    /// Its place in `later`, when it came from there.
    pub order: Option<u64>,
}

/// The key of a flow.
pub type FlowKey = (Destination, ConversationId);

/// The tasks of one shard that are in memory.
#[derive(Debug, Default)]
pub struct Flows {
    flows: HashMap<FlowKey, VecDeque<Pending>, RandomState>,
    crowd: Crowd,
    /// How many of the tasks hold a record, by tenant and class, and by class.
    holders: HashMap<(TenantId, Class), usize, RandomState>,
    held: [usize; Class::ALL.len()],
    tickets: HashMap<u64, FlowKey, RandomState>,
    next_ticket: u64,
}

impl Flows {
    /// Whether one more fits.
    pub fn has_room(&self, key: FlowKey) -> bool {
        self.crowd.has_room(key.0) && self.flows.get(&key).is_none_or(|flow| flow.len() < QUEUE_MAX)
    }

    /// Whether a send of this tenant may hold its record while it waits in memory, where `max` may be held: as many as are free beside. So
    /// one tenant alone has half of the room, two have a third each, and there is always room for one more.
    pub fn may_hold(&self, tenant: TenantId, class: Class, max: usize) -> bool {
        let own = self.holders.get(&(tenant, class)).copied().unwrap_or_default();
        own < max.saturating_sub(self.held[class.index()])
    }

    fn count(&mut self, pending: &Pending, joins: bool) {
        if pending.slot.is_none() {
            return;
        }
        let (tenant, class) = (pending.task.tenant.id(), pending.task.destination().class());
        let own = self.holders.entry((tenant, class)).or_default();
        let held = &mut self.held[class.index()];
        if joins {
            (*own, *held) = (*own + 1, *held + 1);
        } else {
            (*own, *held) = (*own - 1, *held - 1);
        }
        if *own == 0 {
            self.holders.remove(&(tenant, class));
        }
    }

    /// How many records to take, see [`Crowd::intake`].
    pub fn intake(&mut self, age: Duration, ended: bool, behind: impl Fn(Destination) -> bool) -> Intake {
        self.crowd.intake(age, ended, behind)
    }

    /// Whether the conversation has something under way or waiting at the destination.
    pub fn is_busy(&self, key: FlowKey) -> bool {
        self.flows.contains_key(&key)
    }

    /// Puts a task at the end of its flow. Says whether it is the head, to be offered to its lane.
    pub fn push(&mut self, pending: Pending) -> bool {
        let key = (pending.task.destination(), pending.task.conversation);
        self.crowd.add(key.0);
        self.count(&pending, true);
        let flow = self.flows.entry(key).or_default();
        flow.push_back(pending);
        flow.len() == 1
    }

    /// A ticket for the head of a flow, with its task.
    pub fn issue(&mut self, key: FlowKey) -> Option<(u64, Task)> {
        let task = self.flows.get(&key)?.front()?.task.clone();
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, key);
        Some((self.next_ticket, task))
    }

    /// The flow that a ticket belongs to; the ticket stays valid.
    pub fn of(&self, ticket: u64) -> Option<FlowKey> {
        self.tickets.get(&ticket).copied()
    }

    /// Uses a ticket up.
    pub fn redeem(&mut self, ticket: u64) -> Option<FlowKey> {
        self.tickets.remove(&ticket)
    }

    /// The head of a flow.
    pub fn head(&mut self, key: FlowKey) -> Option<&mut Pending> {
        self.flows.get_mut(&key)?.front_mut()
    }

    /// The head of a flow, to be looked at.
    pub fn first(&self, key: FlowKey) -> Option<&Pending> {
        self.flows.get(&key)?.front()
    }

    /// All tasks of a flow.
    pub fn tasks(&self, key: FlowKey) -> impl Iterator<Item = &Task> {
        self.flows.get(&key).into_iter().flatten().map(|pending| &pending.task)
    }

    /// The flows to endpoints whose head is of a kind.
    pub fn at_endpoints(&self, is_meant: impl Fn(&Pending) -> bool) -> Vec<FlowKey> {
        let endpoints = self.flows.iter().filter(|((destination, _), _)| matches!(destination, Destination::Endpoint(_)));
        endpoints.filter(|(_, flow)| flow.front().is_some_and(&is_meant)).map(|(key, _)| *key).collect()
    }

    /// Every task in memory, and whether it is the head of its flow.
    pub fn all(&self) -> impl Iterator<Item = (&Task, bool)> {
        self.flows.values().flat_map(|flow| flow.iter().enumerate().map(|(at, pending)| (&pending.task, at == 0)))
    }

    /// Takes the head away. Says whether another follows.
    pub fn pop(&mut self, key: FlowKey) -> (Option<Pending>, bool) {
        let Some(flow) = self.flows.get_mut(&key) else { return (None, false) };
        let head = flow.pop_front();
        let more = !flow.is_empty();
        if !more {
            self.flows.remove(&key);
        }
        if let Some(head) = &head {
            self.crowd.end(key.0);
            self.count(head, false);
        }
        (head, more)
    }

    /// Takes a whole flow away, in order.
    pub fn take(&mut self, key: FlowKey) -> VecDeque<Pending> {
        let flow = self.flows.remove(&key).unwrap_or_default();
        self.crowd.remove(key.0, flow.len());
        flow.iter().for_each(|pending| self.count(pending, false));
        flow
    }

    /// Tasks at lanes.
    pub fn in_flight(&self) -> usize {
        self.tickets.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use messaging::clock::Timestamp;
    use messaging::content::{Content, Handle, Template};
    use messaging::ids::{AccountId, MessageId};
    use messaging::log::{Position, Topic};
    use messaging::record::SendCommand;
    use messaging::tenant::Tenant;

    use super::*;
    use crate::plan::{Sending, Work};
    use crate::progress::Progress;

    /// A send of a tenant, to a person of its own, which holds a record.
    fn send(tenant: u8, person: u64, class: Class) -> Pending {
        let content = Content::Template(Template { name: "offer".into(), language: "en".into(), params: Vec::new(), components: None });
        let command = SendCommand { class, ..SendCommand::plain(MessageId([0; 16]), Handle::phone("1"), content) };
        let sending = Sending { command, account: AccountId([tenant; 16]), to: Handle::phone("1"), reply_to: None };
        let mut conversation = [tenant; 16];
        conversation[..8].copy_from_slice(&person.to_be_bytes());
        let task = Task {
            tenant: Tenant::for_tests(TenantId([tenant; 16])),
            conversation: ConversationId(conversation),
            accepted_at: Timestamp::ZERO,
            parked_at: Timestamp::ZERO,
            attempts: 0,
            repeats: 0,
            work: Work::Send(Arc::new(sending)),
        };
        Pending { task, slot: Some(Progress::default().open(Topic::Outbound, Position(person + 1))), place: None, order: None }
    }

    /// Pushes sends of a tenant as long as they may hold their records; gives how many that were.
    fn fill(flows: &mut Flows, tenant: u8, class: Class, max: usize) -> usize {
        let before = flows.held[class.index()];
        for person in 0.. {
            let pending = send(tenant, person, class);
            if !flows.may_hold(pending.task.tenant.id(), class, max) {
                break;
            }
            flows.push(pending);
        }
        flows.held[class.index()] - before
    }

    #[test]
    fn who_holds_much_leaves_as_much_free() {
        let cases: [(usize, &[usize]); 4] = [(1024, &[512, 256, 128, 64]), (12, &[6, 3, 2, 1, 0]), (1, &[1, 0]), (0, &[0])];
        for (max, expected) in cases {
            for class in Class::ALL {
                let mut flows = Flows::default();
                let got: Vec<usize> = (0..expected.len()).map(|tenant| fill(&mut flows, tenant as u8, class, max)).collect();
                assert_eq!(got, expected, "of {max}");
                // Each class has its own room.
                let other = if class == Class::Bulk { Class::Interactive } else { Class::Bulk };
                assert_eq!(fill(&mut flows, 0, other, max), expected[0], "of {max}");
            }
        }
    }

    #[test]
    fn what_leaves_memory_holds_nothing() {
        let mut flows = Flows::default();
        fill(&mut flows, 1, Class::Interactive, 64);
        let keys: Vec<FlowKey> = flows.all().map(|(task, _)| (task.destination(), task.conversation)).collect();
        for (number, key) in keys.iter().enumerate() {
            if number % 2 == 0 {
                assert!(flows.pop(*key).0.is_some());
            } else {
                assert_eq!(flows.take(*key).len(), 1);
            }
        }
        assert!(flows.holders.is_empty() && flows.held == [0, 0]);
        assert_eq!(fill(&mut flows, 1, Class::Interactive, 64), 32);
    }
}
