//! What is under suspicion has a step of its own; what panicked too often is set aside as a dead letter, and its neighbours go on.

use messaging::ids::{EndpointId, TenantId};

use super::*;

/// What a step works on.
#[derive(Default)]
pub(super) struct Hand {
    pub(super) entries: Vec<(Topic, Entry)>,
    pub(super) messages: Vec<FromLane>,
    pub(super) timers: Vec<(LaterRow, Write)>,
    pub(super) ready: Vec<(Queue, later::Entry)>,
}

impl Hand {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.messages.is_empty() && self.timers.is_empty() && self.ready.is_empty()
    }
}

/// A part of what there is to do.
pub(super) enum Part {
    /// Worked on in one step.
    Step(Hand),
    /// Not worked on any more.
    Aside(Aside),
}

/// Something that panicked too often.
pub(super) enum Aside {
    Record(Topic, Entry),
    Timer(LaterRow, Write),
    Later(Queue, later::Entry),
    /// The delivery of an unsettled event to an endpoint.
    Delivery(Queue, LaterRow),
    /// A send that asked whether it may go: it may not.
    Send(MessageId, LaterRow),
    /// An intent of the former owner.
    Intent(TenantId, MessageId, LaterRow),
}

/// Splits, in order: what is clean stays together up to `most`, what is under suspicion is alone.
pub(super) fn runs<T>(all: Vec<T>, most: usize, suspected: impl Fn(&T) -> bool) -> Vec<Vec<T>> {
    let mut runs: Vec<Vec<T>> = Vec::new();
    let mut open = false;
    for one in all {
        let alone = suspected(&one);
        match runs.last_mut() {
            Some(run) if open && !alone && run.len() < most => run.push(one),
            _ => runs.push(vec![one]),
        }
        open = !alone;
    }
    runs
}

fn item_of_timer(write: &Write) -> Item {
    match write.key {
        Key::Later(_, _, order) => Item::Timer(order),
        _ => unreachable!("a timer's write deletes its row"),
    }
}

impl Shard<'_> {
    fn item_of(&self, message: &FromLane) -> Option<Item> {
        let (FromLane::Intent { ticket, .. } | FromLane::End { ticket, .. }) = message;
        let pending = self.flows.first(self.flows.of(*ticket)?)?;
        Some(match (&pending.task.work, pending.order) {
            (_, Some(order)) => Item::Parked(pending.task.destination().queue(), order),
            (Work::Deliver(delivery), None) => Item::Delivery(delivery.feed.order, Queue::Destination(delivery.endpoint.0)),
            (Work::Send(sending), None) => Item::Send(sending.command.message),
        })
    }

    /// The steps that a hand is worked on in: one, as long as nothing is under suspicion.
    pub(super) fn apart(&mut self, hand: Hand) -> Vec<Part> {
        if self.suspects.is_empty() {
            return vec![Part::Step(hand)];
        }
        let mut clean = Hand::default();
        let mut parts = Vec::new();
        for message in hand.messages {
            let item = self.item_of(&message);
            if !item.is_some_and(|item| self.suspects.suspected(item)) {
                clean.messages.push(message);
                continue;
            }
            match (&message, item) {
                (FromLane::Intent { ticket, .. }, Some(Item::Send(id))) if self.suspects.condemned(Item::Send(id)) => {
                    // Not answered is no: the lane says that it was withdrawn.
                    let pending = self.flows.of(*ticket).and_then(|key| self.flows.first(key));
                    let row = pending.map(|pending| ends::later_row(&pending.task, Timestamp::ZERO, Timestamp::ZERO, self.lease.epoch));
                    parts.extend(row.map(|row| Part::Aside(Aside::Send(id, row))));
                }
                _ => parts.push(Part::Step(Hand { messages: vec![message], ..Hand::default() })),
            }
        }
        let suspected = |(topic, entry): &(Topic, Entry)| self.suspects.suspected(Item::Record(*topic, entry.position));
        for run in runs(hand.entries, usize::MAX, suspected) {
            match <[_; 1]>::try_from(run) {
                Ok([(topic, entry)]) if self.suspects.condemned(Item::Record(topic, entry.position)) => {
                    parts.push(Part::Aside(Aside::Record(topic, entry)));
                }
                Ok(one) => parts.push(Part::Step(Hand { entries: one.into(), ..Hand::default() })),
                Err(entries) => parts.push(Part::Step(Hand { entries, ..Hand::default() })),
            }
        }
        for (row, write) in hand.timers {
            let item = item_of_timer(&write);
            if self.suspects.condemned(item) {
                parts.push(Part::Aside(Aside::Timer(row, write)));
            } else if self.suspects.suspected(item) {
                parts.push(Part::Step(Hand { timers: vec![(row, write)], ..Hand::default() }));
            } else {
                clean.timers.push((row, write));
            }
        }
        for (destination, entry) in hand.ready {
            let (item, parked) = (Item::Later(destination, entry.order), Item::Parked(destination, entry.order));
            if self.suspects.condemned(item) || self.suspects.condemned(parked) {
                parts.push(Part::Aside(Aside::Later(destination, entry)));
            } else if self.suspects.suspected(item) {
                parts.push(Part::Step(Hand { ready: vec![(destination, entry)], ..Hand::default() }));
            } else {
                clean.ready.push((destination, entry));
            }
        }
        if !clean.is_empty() {
            parts.insert(0, Part::Step(clean));
        }
        parts
    }

    /// From here on a panic has these under suspicion.
    pub(super) fn take_up(&mut self, hand: &Hand) {
        for message in &hand.messages {
            if let Some(item) = self.item_of(message) {
                self.suspects.take_up(item);
            }
        }
        for (topic, entry) in &hand.entries {
            self.suspects.take_up(Item::Record(*topic, entry.position));
        }
        for (_, write) in &hand.timers {
            self.suspects.take_up(item_of_timer(write));
        }
        for (destination, entry) in &hand.ready {
            self.suspects.take_up(Item::Later(*destination, entry.order));
        }
    }

    /// Makes a dead letter of it. Whoever waits for it is told as well as can be, after it stands and can do no harm any more.
    pub(super) async fn set_aside(&mut self, aside: Aside, now: Timestamp) -> Result<(), Lost> {
        self.suspects.at("set aside");
        let (row, destination, write, items) = match aside {
            Aside::Record(topic, entry) => return self.set_record_aside(topic, entry).await,
            Aside::Timer(row, write) => {
                let item = item_of_timer(&write);
                (row, None, Some(write), vec![item])
            }
            Aside::Later(destination, entry) => {
                self.waits.leave_row(destination, &entry.row);
                let write = self.later.done(destination, entry.order, now);
                let items = vec![Item::Later(destination, entry.order), Item::Parked(destination, entry.order)];
                (entry.row, Some(destination), Some(write), items)
            }
            Aside::Delivery(destination, row) => {
                let LaterWork::Deliver { feed, .. } = row.what else { return Ok(()) };
                (row, Some(destination), None, vec![Item::Delivery(feed.order, destination)])
            }
            Aside::Send(id, row) => (row, None, None, vec![Item::Send(id)]),
            Aside::Intent(tenant, id, row) => {
                (row, None, Some(Write::delete(Key::Intent(self.id, tenant, id), now)), vec![Item::Intent(id)])
            }
        };
        let mut writes: Vec<Write> = write.into_iter().collect();
        writes.extend(self.letter(&row, destination, now));
        self.apply(writes, Durability::Synced).await?;
        let is_intent = items.iter().any(|item| matches!(item, Item::Intent(_)));
        for item in items {
            self.suspects.set_aside(item);
        }
        tracing::error!(shard = self.id, conversation = %row.conversation, "work that panicked too often is set aside as a dead letter");
        // An intent's own row is what could not be worked on.
        if is_intent { Ok(()) } else { self.tell_aside(&row, destination, now).await }
    }

    async fn set_record_aside(&mut self, topic: Topic, entry: Entry) -> Result<(), Lost> {
        let slot = self.progress.open(topic, entry.position);
        let (topic_name, position) = (topic.name(), entry.position.0);
        if let Ok(Ok(record)) = caught_here(|| Record::decode(&entry.payload, self.parts.keyring.log())) {
            let write = quarantined(&record, Unfit::Panic, &self.parts.keyring);
            self.apply(vec![write], Durability::Buffered).await?;
            let (record, outcome) = Tracked::new(record).finish(Outcome::Quarantined);
            count(&record, outcome);
            tracing::error!(
                shard = self.id,
                topic = topic_name,
                position,
                "a record that panicked too often is set aside as a dead letter"
            );
        } else {
            metrics::DEAD_LETTERS_TOTAL
                .at([metrics::DeadLetterQueue::Inbound.index(), metrics::DeadLetterReason::Unreadable.index()])
                .increment(1);
            tracing::error!(shard = self.id, topic = topic_name, position, "record left out: it cannot be read");
        }
        self.suspects.set_aside(Item::Record(topic, entry.position));
        self.progress.release(slot);
        self.note_progress();
        Ok(())
    }

    /// The dead letter of a row; none when its tenant is gone, and with it whoever could read it.
    fn letter(&self, row: &LaterRow, destination: Option<Queue>, now: Timestamp) -> Option<Write> {
        let directory = self.parts.keeper.shared().load_full();
        let tenant = directory.tenant_of_row(row.tenant)?;
        let known = self.states.get(&row.conversation).map(|(_, state)| (state.account, state.channel));
        let account = destination.and_then(|queue| match queue {
            Queue::Destination(id) | Queue::Bulk(id) => directory.account(AccountId(id)),
            Queue::Timers => None,
        });
        let any = || directory.accounts_of(tenant.id()).first();
        let of = |account: &Arc<messaging::directory::Account>| (account.row.id, account.channel);
        let (account, channel) = known.or_else(|| account.or_else(any).map(of))?;
        let queue = match row.what {
            LaterWork::Deliver { .. } => metrics::DeadLetterQueue::Webhook,
            LaterWork::Send(..) | LaterWork::Scheduled(..) | LaterWork::Window => metrics::DeadLetterQueue::Outbound,
        };
        metrics::DEAD_LETTERS_TOTAL.at([queue.index(), metrics::DeadLetterReason::Panicked.index()]).increment(1);
        let record = postcard::to_stdvec(row).expect("our own types serialise");
        let id = QuarantineId(self.parts.keyring.ids().content(row.tenant, account, &record));
        let letter = Quarantined { account, channel, reason: Unfit::Panic.name().to_owned(), at: now, record };
        let value = postcard::to_stdvec(&letter).expect("our own types serialise");
        Some(Write::put(Key::Quarantine(row.tenant, id), value, now))
    }

    /// A delivery that is not made is a gap; a send that was not judged is unknown. A panic here begins the shard again, and then the row
    /// is gone.
    async fn tell_aside(&mut self, row: &LaterRow, destination: Option<Queue>, now: Timestamp) -> Result<(), Lost> {
        let directory = self.parts.keeper.shared().load_full();
        let Some(tenant) = directory.tenant_of_row(row.tenant) else { return Ok(()) };
        self.fetch_states(&directory, vec![(tenant, row.conversation)]).await;
        let mut rows = Map::default();
        if let LaterWork::Send(id, _) | LaterWork::Scheduled(id, _) = row.what {
            self.fetch_rows(vec![Key::Pointer(row.tenant, id.0)], &mut rows).await;
            self.follow(&directory, &mut rows).await;
        }
        let mut offers = Vec::new();
        let writes = self.at_desk(&directory, rows, now, |shard, desk| {
            match (&row.what, destination) {
                (LaterWork::Deliver { .. }, Some(Queue::Destination(endpoint))) => {
                    if let Some((_, state)) = desk.states.get_mut(&row.conversation) {
                        state.sequence(EndpointId(endpoint)).gap += 1;
                        desk.touch(row.conversation);
                    }
                }
                (LaterWork::Send(id, _) | LaterWork::Scheduled(id, _), _) => {
                    if decide::outbound::interrupted(desk, tenant, *id).is_err() {
                        tracing::error!(shard = shard.id, message = %id, "the row of a send that was set aside does not open");
                    }
                }
                (LaterWork::Deliver { .. } | LaterWork::Window, _) => {}
            }
            let tasks = std::mem::take(&mut desk.effects.tasks);
            let owners = vec![None; tasks.len()];
            shard.place_tasks(desk, tasks, &owners, &[], &mut offers, now);
        });
        self.apply(writes, Durability::Buffered).await?;
        self.offer_all(offers, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspects_are_alone_and_the_order_is_kept() {
        let cases = [
            (vec![], 9, "[]"),
            (vec![1, 2, 3], 9, "[[1, 2, 3]]"),
            (vec![1, 2, 3], 2, "[[1, 2], [3]]"),
            (vec![1, 10, 2, 3], 9, "[[1], [10], [2, 3]]"),
            (vec![10, 11, 1], 9, "[[10], [11], [1]]"),
        ];
        for (all, most, expected) in cases {
            assert_eq!(format!("{:?}", runs(all.clone(), most, |n| *n >= 10)), expected, "{all:?}");
        }
    }
}
