//! How a shard begins: it takes up what the former owner left.

use super::aside::runs;
use super::*;

/// Deliveries that stand in `later` though the feed's settled prefix does not reach them yet.
type Parked = HashSet<(FeedPosition, [u8; 16]), RandomState>;

fn note_parked(found: &[messaging::store::Found], settled: u64, parked: &mut Parked) {
    for (key, bytes) in found {
        if let Key::Later(_, Queue::Destination(destination), _) = key
            && let Some(LaterRow { what: LaterWork::Deliver { feed, .. }, .. }) = later::decode(bytes)
            && feed.order > settled
        {
            parked.insert((feed, *destination));
        }
    }
}

/// A row that says what was to be done, and nothing of how often it was tried.
fn bare_row(tenant: Tenant, conversation: ConversationId, what: LaterWork) -> LaterRow {
    LaterRow {
        tenant: tenant.id(),
        conversation,
        due: Timestamp::ZERO,
        deadline: Timestamp::MAX,
        attempts: 0,
        repeats: 0,
        epoch: 0,
        accepted_at: Timestamp::ZERO,
        parked_at: Timestamp::ZERO,
        what,
    }
}

fn row_of_intent(tenant: Tenant, message: MessageId, row: &crate::plan::IntentRow) -> LaterRow {
    bare_row(tenant, row.conversation, LaterWork::Send(message, row.at))
}

impl Shard<'_> {
    /// Takes up what the former owner left: `later`, intents whose fate is unknown, and unsettled events of the feed.
    pub(super) async fn recover(&mut self) -> Result<(), Lost> {
        self.suspects.at("recover");
        let stored = self.read(vec![Key::Progress(self.id)]).await.pop().flatten();
        let settled = stored.and_then(|bytes| postcard::from_bytes::<FeedProgress>(&bytes).ok()).unwrap_or_default().settled;
        let mut parked = Parked::default();
        let all = self.scan(Scan::AllLater(self.id), LATER_AT_ONCE).await;
        if all.len() < LATER_AT_ONCE {
            note_parked(&all, settled, &mut parked);
            self.load_later(all);
        } else {
            drop(all);
            self.load_queues(settled, &mut parked).await;
        }
        let now = self.parts.clock.now();
        self.recover_intents(now).await?;
        self.recover_feed(settled, &parked, now).await?;
        self.note_progress();
        Ok(())
    }

    fn load_later(&mut self, found: Vec<messaging::store::Found>) {
        for (key, bytes) in found {
            if let (Key::Later(_, queue, order), Some(row)) = (key, later::decode(&bytes)) {
                self.waits.join_row(queue, &row);
                self.later.load(queue, order, risen(row, self.lease.epoch));
            }
        }
    }

    /// Every queue that the directory knows, page by page: the index keeps the heads, a long `later` stays in the store.
    async fn load_queues(&mut self, settled: u64, parked: &mut Parked) {
        let directory = self.parts.keeper.shared().load_full();
        let endpoints = directory.endpoints().map(|endpoint| endpoint.row.id.0);
        let accounts = directory.accounts().map(|account| account.row.id.0);
        let bulk = directory.accounts().map(|account| Queue::Bulk(account.row.id.0));
        let queues: Vec<Queue> = endpoints.chain(accounts).map(Queue::Destination).chain(bulk).chain([Queue::Timers]).collect();
        for queue in queues {
            let mut from = 0;
            loop {
                let page = self.scan(Scan::Later(self.id, queue, from), PAGE).await;
                let full = page.len() == PAGE;
                if let Some((Key::Later(_, _, order), _)) = page.last() {
                    from = order + 1;
                }
                note_parked(&page, settled, parked);
                self.load_later(page);
                if !full {
                    break;
                }
            }
        }
    }

    async fn recover_intents(&mut self, now: Timestamp) -> Result<(), Lost> {
        let directory = self.parts.keeper.shared().load_full();
        let found = self.scan(Scan::Intents(self.id), usize::MAX).await;
        let mut intents = Vec::new();
        for (key, bytes) in found {
            let Key::Intent(_, tenant, message) = key else { continue };
            let Ok(row) = postcard::from_bytes::<crate::plan::IntentRow>(&bytes) else { continue };
            let Some(tenant) = directory.tenant_of_row(tenant) else { continue };
            intents.push((tenant, message, row));
        }
        if intents.is_empty() {
            return Ok(());
        }
        tracing::warn!(shard = self.id, count = intents.len(), "sends of unknown fate left by the former owner");
        for run in runs(intents, PAGE, |(_, message, _)| self.suspects.suspected(Item::Intent(*message))) {
            if let [(tenant, message, row)] = &run[..]
                && self.suspects.condemned(Item::Intent(*message))
            {
                let row = row_of_intent(*tenant, *message, row);
                self.set_aside(Aside::Intent(tenant.id(), *message, row), now).await?;
                continue;
            }
            for (_, message, _) in &run {
                self.suspects.take_up(Item::Intent(*message));
            }
            self.interrupt(&directory, run, now).await?;
            self.suspects.put_down();
        }
        Ok(())
    }

    async fn interrupt(
        &mut self,
        directory: &Directory,
        intents: Vec<(Tenant, MessageId, crate::plan::IntentRow)>,
        now: Timestamp,
    ) -> Result<(), Lost> {
        let wanted = intents.iter().map(|(tenant, message, _)| Key::Pointer(tenant.id(), message.0)).collect();
        let conversations = intents.iter().map(|(tenant, _, row)| (*tenant, row.conversation)).collect();
        self.fetch_states(directory, conversations).await;
        let mut rows = Map::default();
        self.fetch_rows(wanted, &mut rows).await;
        self.follow(directory, &mut rows).await;
        let writes = self.at_desk(directory, rows, now, |shard, desk| {
            for (tenant, message, row) in intents {
                shard.parts.options.faults.at(FaultPoint::Recover, [row.conversation]);
                if decide::outbound::interrupted(desk, tenant, message).is_err() {
                    tracing::error!(shard = shard.id, %message, "interrupted send does not open");
                }
            }
            // Their events stand in the feed behind `settled`: `recover_feed` takes them up with the rest.
            desk.effects.tasks.clear();
        });
        self.apply(writes, Durability::Synced).await
    }

    async fn recover_feed(&mut self, settled: u64, parked: &Parked, now: Timestamp) -> Result<(), Lost> {
        let directory = self.parts.keeper.shared().load_full();
        let mut found: Vec<(Tenant, EventRow, FeedPosition)> = Vec::new();
        for row in directory.tenants() {
            let Some(tenant) = directory.tenant_of_row(row.id) else { continue };
            let mut after = FeedPosition { shard: self.id, order: settled };
            loop {
                let page = self.scan(Scan::Events(tenant.id(), after), PAGE).await;
                let full = page.len() == PAGE;
                for (key, bytes) in page {
                    let Key::Event(_, place) = key else { continue };
                    after = place;
                    if let Ok(row) = EventRow::decode(&bytes) {
                        found.push((tenant, row, place));
                    }
                }
                if !full {
                    break;
                }
            }
        }
        found.sort_by_key(|(_, _, place)| place.order);
        let mut offers = Vec::new();
        for run in runs(found, PAGE, |(_, _, place)| self.suspects.suspected(Item::Event(place.order))) {
            let (mut tasks, mut asides) = (Vec::new(), Vec::new());
            let condemned = match &run[..] {
                [(_, _, place)] => Some(Item::Event(place.order)).filter(|item| self.suspects.condemned(*item)),
                _ => None,
            };
            if let Some(item) = condemned {
                if !self.suspects.is_aside(item) {
                    asides = self.deliveries_aside(&run[0], parked);
                }
            } else {
                for (_, _, place) in &run {
                    self.suspects.take_up(Item::Event(place.order));
                }
                for task in self.rebuild_deliveries(&directory, &run, parked).await {
                    let destination = task.destination().queue();
                    if let Work::Deliver(delivery) = &task.work
                        && self.suspects.condemned(Item::Delivery(delivery.feed.order, destination))
                    {
                        if self.suspects.is_aside(Item::Delivery(delivery.feed.order, destination)) {
                            continue;
                        }
                        asides.push(Aside::Delivery(destination, ends::later_row(&task, Timestamp::ZERO, now, self.lease.epoch)));
                    } else {
                        tasks.push(task);
                    }
                }
            }
            for aside in asides {
                self.set_aside(aside, now).await?;
            }
            if let Some(item) = condemned {
                self.suspects.set_aside(item);
            }
            self.suspects.at("recover");
            let owners = vec![None; tasks.len()];
            let writes = self.at_desk(&directory, Map::default(), now, |shard, desk| {
                shard.place_tasks(desk, tasks, &owners, &[], &mut offers, now);
            });
            self.apply(writes, Durability::Buffered).await?;
            self.suspects.put_down();
        }
        self.offer_all(offers, now).await
    }

    /// All deliveries of an event that cannot be taken up.
    fn deliveries_aside(&self, (tenant, row, feed): &(Tenant, EventRow, FeedPosition), parked: &Parked) -> Vec<Aside> {
        let account = self.parts.keyring.ids().conversation(tenant.id(), row.event.account, "account:");
        let left = row.sequences.iter().filter(|(endpoint, _)| !parked.contains(&(*feed, endpoint.0)));
        let aside = |(endpoint, sequence): &(messaging::ids::EndpointId, u64)| {
            let what = LaterWork::Deliver { feed: *feed, sequence: *sequence };
            let conversation = row.flow().unwrap_or(account);
            Aside::Delivery(Queue::Destination(endpoint.0), LaterRow { accepted_at: row.event.at, ..bare_row(*tenant, conversation, what) })
        };
        left.map(aside).collect()
    }

    async fn rebuild_deliveries(
        &mut self,
        directory: &Directory,
        found: &[(Tenant, EventRow, FeedPosition)],
        parked: &Parked,
    ) -> Vec<Task> {
        let mut conversations = Vec::new();
        let mut keys = Vec::new();
        for (tenant, row, _) in found {
            conversations.extend(row.event.conversation.map(|id| (*tenant, id)));
            if let (EventData::Message, Some(id)) = (&row.data, row.event.message) {
                keys.push(Key::Pointer(tenant.id(), id.0));
            }
        }
        self.fetch_states(directory, conversations).await;
        let mut rows = Map::default();
        self.fetch_rows(keys, &mut rows).await;
        self.follow(directory, &mut rows).await;
        let mut tasks = Vec::new();
        for (tenant, row, feed) in found {
            self.parts.options.faults.at(FaultPoint::Recover, row.event.conversation);
            let Some(data) = ends::data_of(&self.states, &rows, *tenant, row) else { continue };
            let body = row.event.render(&data);
            let account = self.parts.keyring.ids().conversation(tenant.id(), row.event.account, "account:");
            for (endpoint, sequence) in &row.sequences {
                if parked.contains(&(*feed, endpoint.0)) {
                    continue;
                }
                let delivery = Delivery {
                    id: self.parts.keyring.ids().delivery(row.event.id, *endpoint),
                    event: row.event.clone(),
                    feed: *feed,
                    body: body.clone(),
                    endpoint: *endpoint,
                    sequence: *sequence,
                    gap: 0,
                };
                tasks.push(Task {
                    tenant: *tenant,
                    conversation: row.flow().unwrap_or(account),
                    accepted_at: row.event.at,
                    parked_at: Timestamp::ZERO,
                    attempts: 0,
                    // Each owner since it was planned may have tried it.
                    repeats: u32::try_from(self.lease.epoch.saturating_sub(feed.order >> EPOCH_SHIFT)).unwrap_or(u32::MAX),
                    work: Work::Deliver(Arc::new(delivery)),
                });
            }
        }
        tasks
    }
}
