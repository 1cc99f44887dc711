//! Tasks in memory: per (destination, conversation) a short queue whose head is at its lane. What does not fit stands in `later`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::ids::ConversationId;

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
    tickets: HashMap<u64, FlowKey, RandomState>,
    next_ticket: u64,
}

impl Flows {
    /// Whether one more fits.
    pub fn has_room(&self, key: FlowKey) -> bool {
        self.crowd.has_room(key.0) && self.flows.get(&key).is_none_or(|flow| flow.len() < QUEUE_MAX)
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
        if head.is_some() {
            self.crowd.end(key.0);
        }
        (head, more)
    }

    /// Takes a whole flow away, in order.
    pub fn take(&mut self, key: FlowKey) -> VecDeque<Pending> {
        let flow = self.flows.remove(&key).unwrap_or_default();
        self.crowd.remove(key.0, flow.len());
        flow
    }

    /// Tasks at lanes.
    pub fn in_flight(&self) -> usize {
        self.tickets.len()
    }
}
