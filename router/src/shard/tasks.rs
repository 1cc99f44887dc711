//! Where a step's tasks wait: with their flow, at a lane, or in `later`.

use super::*;

impl Shard<'_> {
    /// What waits in `later` and may go now: of all destinations together no more than a step can take, in turns between tenants.
    pub(super) fn take_ready(&mut self, now: Timestamp) -> Vec<(Queue, later::Entry)> {
        let mut ready = Vec::new();
        let (flows, later) = (&self.flows, &mut self.later);
        self.turns.serve(later.lines(now), LATER_IN_FLIGHT_MAX, READY_MAX, |destination, most| {
            let busy = |conversation| match *destination {
                Queue::Destination(id) => {
                    let account = Destination::Account(AccountId(id), Class::Interactive);
                    flows.is_busy((Destination::Endpoint(EndpointId(id)), conversation)) || flows.is_busy((account, conversation))
                }
                Queue::Bulk(id) => flows.is_busy((Destination::Account(AccountId(id), Class::Bulk), conversation)),
                Queue::Timers => false,
            };
            let taken = later.take_ready(*destination, now, LATER_IN_FLIGHT_MAX, most, busy);
            let count = taken.len();
            ready.extend(taken.into_iter().map(|entry| (*destination, entry)));
            count
        });
        ready
    }

    /// Lets go what waits for endpoints that are well again, or that somebody changed: resumed, asked to be tried, given another address.
    pub(super) fn release_recovered(&mut self) {
        let now = self.parts.clock.now();
        let (seen, well) = self.parts.lanes.recoveries().since(self.recoveries_seen);
        self.recoveries_seen = seen;
        for endpoint in well {
            self.later.release(Queue::Destination(endpoint.0), now);
        }
        let directory = self.parts.keeper.shared().load();
        if std::mem::replace(&mut self.directory_seen, directory.version) == directory.version {
            return;
        }
        let changed = self.later.changed(|id| directory.endpoint(EndpointId(id)).map(|endpoint| endpoint.row.revision));
        for queue in changed {
            self.later.release(queue, now);
        }
    }

    pub(super) fn intent(&mut self, desk: &mut Desk<'_>, ticket: u64) -> Option<Go> {
        let key = self.flows.of(ticket)?;
        let pending = self.flows.head(key)?;
        pending.task.attempts += 1;
        decide::outbound::intent(desk, &pending.task).ok().flatten()
    }

    /// Finds each task its place. `owners` says which of the records in hand a task comes from, by its place in `held`.
    ///
    /// A task that is parked lets go at once, and the others of its event are still to come: so the step itself holds every event whose
    /// tasks it places, until all of them have their place.
    pub(super) fn place_tasks(
        &mut self,
        desk: &mut Desk<'_>,
        tasks: Vec<Task>,
        owners: &[Option<usize>],
        held: &[Slot],
        offers: &mut Vec<FlowKey>,
        now: Timestamp,
    ) {
        let mut events: Vec<Place> = Vec::new();
        let mut last = None;
        for (task, owner) in tasks.into_iter().zip(owners) {
            self.waits.join(&task);
            let destination = task.destination();
            let key = (destination, task.conversation);
            self.parts.options.faults.at(FaultPoint::Place, [task.conversation]);
            let (slot, place) = match &task.work {
                Work::Send(_) => (owner.map(|at| self.progress.hold(&held[at])), None),
                Work::Deliver(delivery) => {
                    // The tasks of one event stand side by side.
                    let order = delivery.feed.order;
                    if last != Some(order) {
                        events.push(self.feed_open.open(order));
                        last = Some(order);
                    }
                    (None, events.last().map(|event| self.feed_open.hold(event)))
                }
            };
            let pending = Pending { task, slot, place, order: None };
            let waits = self.later.blocks(destination.queue(), key.1) || self.later.held(destination.queue(), now);
            let most = self.parts.options.max_in_flight_per_shard;
            let may_hold = pending.slot.is_none() || self.flows.may_hold(pending.task.tenant.id(), destination.class(), most);
            if waits || !may_hold || !self.flows.has_room(key) {
                self.shadow(desk, key, now);
                self.park(desk, pending, Timestamp::ZERO, now);
            } else if self.flows.push(pending) {
                offers.push(key);
            }
        }
        for event in events {
            self.feed_open.release(event);
        }
    }

    /// Puts a task into `later` and lets go of what waits for it (after this step's rows are written).
    pub(crate) fn park(&mut self, desk: &mut Desk<'_>, mut pending: Pending, due: Timestamp, now: Timestamp) {
        let destination = pending.task.destination().queue();
        if let Some(order) = pending.order {
            if let Some(write) = self.later.again(destination, order, due, pending.task.attempts, now) {
                desk.write(write);
            }
            return;
        }
        let row = ends::later_row(&pending.task, due, now, self.lease.epoch);
        if let Work::Send(sending) = &pending.task.work
            && decide::outbound::park(desk, pending.task.tenant, sending.command.message).is_err()
        {
            tracing::error!(shard = self.id, message = %sending.command.message, "message row does not open");
        }
        let write = self.later.push(destination, row, now);
        desk.write(write);
        self.let_go(&mut pending);
    }

    /// Something of this flow is about to be parked: everything before it is parked first, the head too although it is under way.
    /// So `later` holds all of a conversation or nothing of it, and whoever takes over after a crash finds the order there.
    pub(super) fn shadow(&mut self, desk: &mut Desk<'_>, key: FlowKey, now: Timestamp) {
        let mut flow = self.flows.take(key);
        let Some(mut head) = flow.pop_front() else { return };
        if head.order.is_none() {
            let row = ends::later_row(&head.task, Timestamp::ZERO, now, self.lease.epoch);
            let (write, order) = self.later.push_in_flight(key.0.queue(), row, now);
            desk.write(write);
            self.let_go(&mut head);
            head.order = Some(order);
        }
        for pending in flow {
            self.park(desk, pending, Timestamp::ZERO, now);
        }
        self.flows.push(head);
    }

    /// Releases what waited for a task.
    pub(crate) fn let_go(&mut self, pending: &mut Pending) {
        if let Some(slot) = pending.slot.take() {
            self.progress.release(slot);
        }
        if let Some(place) = pending.place.take() {
            self.feed_open.release(place);
        }
    }

    /// Offers heads of flows to their lanes; what does not fit is parked.
    pub(super) async fn offer_all(&mut self, offers: Vec<FlowKey>, now: Timestamp) -> Result<(), Lost> {
        let mut full = Vec::new();
        for key in offers {
            if !self.offer(key) {
                full.push(key);
            }
        }
        if full.is_empty() {
            return Ok(());
        }
        self.park_flows(full, now).await
    }

    /// Offers the head of a flow. Says whether its lane took it.
    pub(crate) fn offer(&mut self, key: FlowKey) -> bool {
        let Some((ticket, task)) = self.flows.issue(key) else { return true };
        let home = Home::new(ticket, self.to_me.clone());
        let job = Job { task, ticket, owner: self.to_me.clone(), lease: self.lease_clock.clone(), home };
        let Err(job) = self.parts.lanes.offer(job) else { return true };
        job.home.reached();
        self.flows.redeem(ticket);
        false
    }

    /// Parks whole flows whose lane is full.
    async fn park_flows(&mut self, keys: Vec<FlowKey>, now: Timestamp) -> Result<(), Lost> {
        let directory = self.parts.keeper.shared().load_full();
        let mut rows = Map::default();
        let mut wanted = Vec::new();
        for key in &keys {
            for task in self.flows.tasks(*key) {
                if let Work::Send(sending) = &task.work {
                    wanted.push(Key::Pointer(task.tenant.id(), sending.command.message.0));
                }
            }
        }
        self.fetch_rows(wanted, &mut rows).await;
        self.follow(&directory, &mut rows).await;
        let writes = self.at_desk(&directory, rows, now, |shard, desk| {
            for key in keys {
                shard.park_for_room(desk, key, now);
            }
        });
        self.apply(writes, Durability::Buffered).await
    }

    /// Parks a flow whose lane has no room now: a short while later it may.
    pub(crate) fn park_for_room(&mut self, desk: &mut Desk<'_>, key: FlowKey, now: Timestamp) {
        let due = now.plus(ROOM_LOOK);
        for pending in self.flows.take(key) {
            match pending.order {
                Some(order) => self.later.put_back(key.0.queue(), order, due),
                None => self.park(desk, pending, due, now),
            }
        }
    }

    pub(super) fn cancel(&mut self, desk: &mut Desk<'_>, now: Timestamp) {
        for (account, message) in std::mem::take(&mut desk.effects.cancelled) {
            for line in Class::ALL.map(|class| Destination::Account(account, class).queue()) {
                if let Some(row) = self.later.find_send(line, message) {
                    let (order, row) = (row.order, row.row.clone());
                    self.waits.leave_row(line, &row);
                    let write = self.later.done(line, order, now);
                    desk.write(write);
                }
            }
            // In memory: its turn comes, the intent says no.
        }
    }

    /// Reads on where a queue's index has room.
    pub(super) async fn read_on(&mut self, now: Timestamp) {
        if let Some(from) = self.later.timers_to_read() {
            let found = self.scan(Scan::Later(self.id, Queue::Timers, from), PAGE).await;
            let more = found.len() == PAGE;
            self.later.timers_read(rows_of(found, self.lease.epoch), more);
        }
        for destination in self.later.waiting(now) {
            if let Some(from) = self.later.to_read(destination) {
                let found = self.scan(Scan::Later(self.id, destination, from), PAGE / 2).await;
                let more = found.len() == PAGE / 2;
                self.later.read_on(destination, rows_of(found, self.lease.epoch), more);
            }
        }
    }
}
