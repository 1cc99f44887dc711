//! What the decisions of a step read: conversations, pointers and what they lead to.

use messaging::BoxFuture;

use super::*;

impl Shard<'_> {
    /// An account that is not known may have been made by another process a moment ago: whoever took its record knew it. So the
    /// directory is looked at once more before such a record is parked.
    pub(super) async fn know_owners(&self, incoming: &[Incoming]) {
        let keeper = &self.parts.keeper;
        let directory = keeper.shared().load_full();
        let is_known = |record: &Record| directory.account_of(record.tenant, record.account).is_some();
        if !incoming.iter().all(|one| is_known(one.record.get())) {
            self.insist("directory", || Box::pin(keeper.refresh())).await;
        }
    }

    /// Loads the conversations of everything in the step. Gives the conversations that turn out to be aliases of ones known under
    /// another handle.
    pub(super) async fn load_states(
        &mut self,
        directory: &Directory,
        incoming: &mut [Incoming],
        messages: &[FromLane],
        timers: &[(LaterRow, Write)],
        ready: &[(Queue, later::Entry)],
    ) -> Vec<(ConversationId, ConversationId, Tenant, Record)> {
        let mut wanted: Vec<(Tenant, ConversationId)> = Vec::new();
        wanted.extend(incoming.iter().map(|one| (one.record.get().tenant, one.record.get().conversation)));
        for message in messages {
            let (ticket, is_delivered) = match message {
                FromLane::Intent { ticket, .. } => (*ticket, false),
                FromLane::End { ticket, end } => (*ticket, matches!(end, TaskEnd::Delivered { .. })),
            };
            let Some(task) = self.flows.of(ticket).and_then(|key| self.flows.tasks(key).next()) else { continue };
            // A delivery that closed no gap changes nothing in its conversation, which may have left memory since.
            let leaves_it = is_delivered && matches!(&task.work, Work::Deliver(delivery) if delivery.gap == 0);
            if !leaves_it {
                wanted.push((task.tenant, task.conversation));
            }
        }
        for row in timers.iter().map(|(row, _)| row).chain(ready.iter().map(|(_, entry)| &entry.row)) {
            wanted.extend(directory.tenant_of_row(row.tenant).map(|tenant| (tenant, row.conversation)));
        }
        self.fetch_states(directory, wanted).await;

        // Aliases within this shard are followed at once.
        let mut targets = Vec::new();
        for one in incoming.iter_mut() {
            let record = one.record.get();
            let Some((_, Conversation { alias_of: Some(to), .. })) = self.states.get(&record.conversation) else { continue };
            let is_link =
                matches!(&one.parsed, Ok(Parsed::Command(command)) if matches!(**command, messaging::record::Command::Link { .. }));
            if record.moved || is_link || partition_of(*to, self.parts.log.partitions()) != self.id {
                continue;
            }
            targets.push((record.tenant, *to));
            let moved = record.moved_to(*to);
            std::mem::replace(&mut one.record, Tracked::new(moved)).abandon();
        }
        self.fetch_states(directory, targets).await;

        // A person seen for the first time under this handle may be known under another one that the piece names.
        let mut questions: Vec<(usize, Key)> = Vec::new();
        for (at, one) in incoming.iter().enumerate() {
            let (record, Ok(parsed)) = (one.record.get(), &one.parsed) else { continue };
            if record.moved || self.states.contains_key(&record.conversation) {
                continue;
            }
            for other in decide::strangers(record, parsed, None, self.parts.keyring.ids()) {
                questions.push((at, Key::Conversation(record.tenant.id(), other)));
            }
        }
        if questions.is_empty() {
            return Vec::new();
        }
        let answers = self.read(questions.iter().map(|(_, key)| *key).collect()).await;
        let mut aliases = Vec::new();
        for ((at, key), answer) in questions.into_iter().zip(answers) {
            let record = incoming[at].record.get();
            let (Key::Conversation(tenant, other), Some(bytes)) = (key, answer) else { continue };
            let Some(tenant_key) = directory.tenant_key(record.tenant) else { continue };
            let Ok(found) = Conversation::open(tenant, other, tenant_key, &bytes) else { continue };
            if found.alias_of.is_none() {
                aliases.push((record.conversation, other, record.tenant, record.clone()));
            }
        }
        aliases
    }

    pub(super) async fn fetch_states(&mut self, directory: &Directory, wanted: Vec<(Tenant, ConversationId)>) {
        let mut seen = HashSet::<ConversationId, RandomState>::default();
        let mut hits = 0;
        let mut missing = Vec::new();
        for (tenant, id) in wanted {
            if self.states.contains_key(&id) {
                hits += 1;
            } else if seen.insert(id) {
                missing.push((tenant, id));
            }
        }
        let cache = metrics::CacheName::Conversations.index();
        metrics::CACHE_REQUESTS.at([cache, metrics::CacheResult::Hit.index()]).increment(hits);
        metrics::CACHE_REQUESTS.at([cache, metrics::CacheResult::Miss.index()]).increment(missing.len() as u64);
        if missing.is_empty() {
            return;
        }
        let keys = missing.iter().map(|(tenant, id)| Key::Conversation(tenant.id(), *id)).collect();
        for ((tenant, id), bytes) in missing.into_iter().zip(self.read(keys).await) {
            let (Some(bytes), Some(key)) = (bytes, directory.tenant_key(tenant)) else { continue };
            match Conversation::open(tenant.id(), id, key, &bytes) {
                Ok(conversation) => {
                    self.states.insert(id, (tenant, conversation));
                }
                Err(error) => tracing::error!(shard = self.id, conversation = %id, %error, "conversation left out"),
            }
        }
    }

    /// Loads the rows that the decisions look at: pointers first, then what they point to, then what those refer to.
    pub(super) async fn load_rows(
        &mut self,
        directory: &Directory,
        incoming: &[Incoming],
        messages: &[FromLane],
        timers: &[(LaterRow, Write)],
        ready: &[(Queue, later::Entry)],
    ) -> Map<Key, Option<Vec<u8>>> {
        let mut rows = Map::default();
        let mut keys: Vec<Key> = Vec::new();
        for one in incoming {
            let (record, Ok(parsed)) = (one.record.get(), &one.parsed) else { continue };
            let state = self.states.get(&record.conversation).map(|(_, state)| state);
            keys.extend(decide::pointers(record, parsed, state, self.parts.keyring.ids()));
        }
        for message in messages {
            let (ticket, parks) = match message {
                FromLane::Intent { ticket, .. } => (*ticket, false),
                FromLane::End { end: TaskEnd::Delivered { .. }, .. } => continue,
                FromLane::End { ticket, .. } => (*ticket, true),
            };
            let Some(key) = self.flows.of(ticket) else { continue };
            for task in self.flows.tasks(key).take(if parks { usize::MAX } else { 1 }) {
                if let Work::Send(sending) = &task.work {
                    keys.push(Key::Pointer(task.tenant.id(), sending.command.message.0));
                }
            }
        }
        for row in timers.iter().map(|(row, _)| row).chain(ready.iter().map(|(_, entry)| &entry.row)) {
            match &row.what {
                LaterWork::Deliver { feed, .. } => keys.push(Key::Event(row.tenant, *feed)),
                LaterWork::Send(id, _) | LaterWork::Scheduled(id, _) => keys.push(Key::Pointer(row.tenant, id.0)),
                LaterWork::Window => {}
            }
        }
        self.fetch_rows(keys, &mut rows).await;
        self.follow(directory, &mut rows).await;
        rows
    }

    /// Reads what the loaded rows lead to, in at most three rounds: event -> message pointer -> message -> messages it refers to.
    pub(super) async fn follow(&mut self, directory: &Directory, rows: &mut Map<Key, Option<Vec<u8>>>) {
        // What was followed leads nowhere new.
        let mut fresh: Vec<Key> = rows.keys().copied().collect();
        for _ in 0..3 {
            let mut next = Vec::new();
            for key in &fresh {
                let Some(Some(value)) = rows.get(key) else { continue };
                match key {
                    Key::Pointer(tenant, _) | Key::PlatformId(tenant, _, _) => {
                        if let Ok(Pointer { message: Some((conversation, at, id)), .. }) = Pointer::decode(value) {
                            next.push(Key::Message(*tenant, conversation, at, id));
                        }
                    }
                    Key::Event(tenant, _) => {
                        if let Ok(EventRow { data: EventData::Message, event, .. }) = EventRow::decode(value)
                            && let Some(id) = event.message
                        {
                            next.push(Key::Pointer(*tenant, id.0));
                        }
                    }
                    Key::Message(tenant, conversation, _, id) => {
                        next.extend(self.referred(directory, *tenant, *conversation, *id, value));
                    }
                    Key::Conversation(..) | Key::Later(..) | Key::Intent(..) | Key::Progress(_) | Key::Quarantine(..) | Key::Work(..) => {}
                }
            }
            next.retain(|key| !rows.contains_key(key));
            if next.is_empty() {
                return;
            }
            fresh.clone_from(&next);
            self.fetch_rows(next, rows).await;
        }
    }

    /// Pointers to the messages that a waiting send answers or reacts to.
    fn referred(
        &self,
        directory: &Directory,
        tenant: messaging::ids::TenantId,
        conversation: ConversationId,
        id: MessageId,
        value: &[u8],
    ) -> Vec<Key> {
        let (Some(tenant), Some((_, state))) = (directory.tenant_of_row(tenant), self.states.get(&conversation)) else {
            return Vec::new();
        };
        let Some(key) = directory.tenant_key(tenant) else { return Vec::new() };
        ends::command_of_row(tenant, id, value, key, state)
            .map(|command| decide::outbound::referred_pointers(tenant, &command))
            .unwrap_or_default()
    }

    pub(super) async fn fetch_rows(&mut self, keys: Vec<Key>, rows: &mut Map<Key, Option<Vec<u8>>>) {
        let mut seen = HashSet::<Key, RandomState>::default();
        let keys: Vec<Key> = keys.into_iter().filter(|key| !rows.contains_key(key) && seen.insert(*key)).collect();
        if keys.is_empty() {
            return;
        }
        let values = self.read(keys.clone()).await;
        rows.extend(keys.into_iter().zip(values));
    }

    pub(super) async fn read(&self, keys: Vec<Key>) -> Vec<Option<Vec<u8>>> {
        self.insist("rows", || self.parts.store.read(keys.clone())).await
    }

    pub(super) async fn scan(&self, scan: Scan, limit: usize) -> Vec<messaging::store::Found> {
        self.insist("a range", || self.parts.store.scan(scan, limit)).await
    }

    /// Reads, however long the store is away: a step cannot be decided without.
    async fn insist<'s, T>(&'s self, what: &'static str, read: impl Fn() -> BoxFuture<'s, Result<T, StoreError>>) -> T {
        let mut wait = STORE_RETRY.0;
        loop {
            match read().await {
                Ok(found) => return found,
                Err(error) => {
                    tracing::warn!(shard = self.id, what, %error, "store read failed, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(STORE_RETRY.1);
                }
            }
        }
    }
}
