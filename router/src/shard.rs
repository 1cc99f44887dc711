//! A shard: one task that owns the conversations of a partition. Prefetch, decide, write, then hand the effects to lanes.
//!
//! What holds after every step, at whatever instant the process dies: an effect is done, or stands in `later`, or its event
//! stands in the feed behind `FeedProgress::settled`, or its send's record is not finished. The next owner takes all of it up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::accounts::Accounts;
use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::{SharedClock, Timestamp};
use messaging::directory::Directory;
use messaging::ids::{ConversationId, MessageId, QuarantineId, partition_of};
use messaging::keeper::DirectoryKeeper;
use messaging::log::{AppendError, Entry, Finished, Log, NewRecord, Position, ShardReader, Topic};
use messaging::metrics;
use messaging::outcome::{Outcome, Tracked, Verdict};
use messaging::record::Record;
use messaging::seal::{Keyring, fill_random};
use messaging::state::{Conversation, EventData, EventRow, FeedPosition, FeedProgress, Pointer, Quarantined};
use messaging::store::{Durability, Held, Key, Lease, LeaseAnswer, LeaseOn, Queue, Scan, Store, StoreError, Write};
use messaging::tenant::Tenant;
use tokio::sync::{mpsc, oneshot, watch};

use crate::decide::{self, Parsed};
use crate::desk::{Desk, States, Unfit, World, count};
use crate::flows::{FlowKey, Flows, Pending};
use crate::lane::{FromLane, Job, Lanes, LeaseClock};
use crate::later::{self, Later};
use crate::media::Media;
use crate::plan::{Delivery, Destination, Go, LaterRow, LaterWork, Task, TaskEnd, Work};
use crate::progress::{Place, Prefix, Progress, Slot};
use crate::{Options, ends};

mod recover;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Tries of a record's decision before it is quarantined.
const DECIDE_TRIES: usize = 3;
/// Records taken in one step.
const BATCH_MAX: usize = 512;
/// Of a batch, at least so many of each topic when all have some: inbound, outbound, bulk.
const SHARES: [(Topic, usize); 3] = [(Topic::Inbound, 320), (Topic::Outbound, 144), (Topic::Bulk, 48)];
/// Messages of lanes taken in one step.
const LANE_BATCH_MAX: usize = 512;
/// Messages of lanes that wait.
const FROM_LANES_MAX: usize = 8192;
/// Timers fired in one step.
const TIMERS_MAX: usize = 256;
/// Tasks of one destination taken out of `later` that are under way at once, per shard.
const LATER_IN_FLIGHT_MAX: usize = 32;
/// Conversations that a shard remembers.
const STATES_MAX: usize = 2048;
/// Longest sleep between two looks.
const NAP: Duration = Duration::from_secs(1);
/// First and longest wait before a refused store or log write is tried again.
const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How soon a full lane is looked at again.
const ROOM_LOOK: Duration = Duration::from_millis(50);
/// Rows of `later` read at once when a shard begins; a longer `later` is read queue by queue.
const LATER_AT_ONCE: usize = 100_000;
/// Rows read per page when a shard begins.
const PAGE: usize = 4096;
/// Bits of a feed order below the epoch.
const EPOCH_SHIFT: u32 = 44;

/// What a shard works with.
#[derive(Clone)]
pub struct ShardParts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The directory.
    pub keeper: DirectoryKeeper,
    /// Changes accounts that a platform refused.
    pub accounts: Accounts,
    /// Keys.
    pub keyring: Keyring,
    /// Time.
    pub clock: SharedClock,
    /// Channel settings.
    pub channels: Arc<BTreeMap<ChannelKind, ChannelSettings>>,
    /// The lanes.
    pub lanes: Lanes,
    /// Where media go.
    pub media: Media,
    /// Settings.
    pub options: Arc<Options>,
    /// Where finished prefixes are gathered.
    pub commits: Arc<Commits>,
}

/// Finished prefixes of all shards, gathered for the committer.
#[derive(Debug, Default)]
pub struct Commits {
    gathered: Mutex<BTreeMap<u16, Commit>>,
    turn: tokio::sync::Mutex<()>,
}

/// What one shard finished since the last commit.
#[derive(Debug, Default, Clone)]
pub struct Commit {
    /// Per topic.
    pub positions: [Option<Position>; 3],
    /// The settled prefix of the feed.
    pub settled: Option<u64>,
}

impl Commits {
    /// Held by who makes them durable.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn note(&self, shard: u16, edit: impl FnOnce(&mut Commit)) {
        edit(self.gathered.lock().expect("no holder of the commits panics").entry(shard).or_default());
    }

    /// What was gathered of a shard does not count: its lease is lost.
    fn forget(&self, shard: u16) {
        self.gathered.lock().expect("no holder of the commits panics").remove(&shard);
    }

    /// Could not be made durable: they are taken again with the next, unless more was finished since.
    pub fn put_back(&self, rows: &[Write], finished: &[Finished]) {
        let mut gathered = self.gathered.lock().expect("no holder of the commits panics");
        for row in rows {
            let (Key::Progress(shard), Some(Ok(progress))) =
                (row.key, row.value.as_ref().map(|value| postcard::from_bytes::<FeedProgress>(value)))
            else {
                continue;
            };
            gathered.entry(shard).or_default().settled.get_or_insert(progress.settled);
        }
        for one in finished {
            gathered.entry(one.shard).or_default().positions[one.topic.index()].get_or_insert(one.position);
        }
    }

    /// Takes everything gathered, as feed rows and finished positions.
    pub fn take(&self, now: Timestamp) -> (Vec<Write>, Vec<Finished>) {
        let gathered = std::mem::take(&mut *self.gathered.lock().expect("no holder of the commits panics"));
        let (mut rows, mut finished) = (Vec::new(), Vec::new());
        for (shard, commit) in gathered {
            if let Some(settled) = commit.settled {
                let row = postcard::to_stdvec(&FeedProgress { settled }).expect("our own types serialise");
                rows.push(Write::put(Key::Progress(shard), row, now));
            }
            for topic in Topic::ALL {
                if let Some(position) = commit.positions[topic.index()] {
                    finished.push(Finished { topic: *topic, shard, position });
                }
            }
        }
        (rows, finished)
    }
}

/// What a shard is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Work.
    Work,
    /// Take nothing new, let what is under way end for so long, finish, leave.
    Drain(Duration),
    /// Another has it already: leave at once, finish nothing.
    Leave,
}

/// Why a shard ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// Its lease ran out, or is another's.
    Unleased,
}

/// The lease is not ours any more: nothing may be written, sent or finished.
#[derive(Debug, Clone, Copy)]
struct Lost;

/// A record on its way through a step.
struct Incoming {
    slot: Slot,
    record: Tracked<Record>,
    parsed: Result<Parsed, Unfit>,
}

/// A shard at work.
pub struct Shard<'a> {
    pub(crate) id: u16,
    pub(crate) parts: ShardParts,
    reader: &'a mut dyn ShardReader,
    /// Drawn anew at every beginning, so that the epoch rises even when this process had the shard before.
    owner: [u8; 16],
    lease: Lease,
    lease_clock: Arc<LeaseClock>,
    renew_at: Duration,
    states: States,
    progress: Progress,
    feed: u64,
    feed_open: Prefix,
    pub(crate) later: Later,
    pub(crate) flows: Flows,
    to_me: mpsc::Sender<FromLane>,
    from_lanes: mpsc::Receiver<FromLane>,
    newest_log_time: Timestamp,
}

impl<'a> Shard<'a> {
    /// Takes the lease and takes up what the former owner left. Returns none when told to stop meanwhile, or when the lease was lost
    /// before all was taken up.
    pub async fn begin(parts: ShardParts, reader: &'a mut dyn ShardReader, orders: &mut watch::Receiver<Order>) -> Option<Self> {
        let id = reader.shard();
        let mut owner = [0; 16];
        fill_random(&mut owner);
        let (waits_since, mut told) = (parts.clock.monotonic(), false);
        let (lease, asked_at) = loop {
            if *orders.borrow() != Order::Work {
                return None;
            }
            let asked_at = parts.clock.monotonic();
            match parts.store.lease(LeaseOn::Shard(id), owner, parts.options.lease_ttl).await {
                Ok(LeaseAnswer::Held(lease)) => break (lease, asked_at),
                Ok(LeaseAnswer::HeldByOther(other)) => {
                    tracing::debug!(shard = id, until = %other.until, "another process holds the shard, waiting");
                    // One that died lets go within this time: whoever renews it still believes that the shard is his.
                    if !told && asked_at.saturating_sub(waits_since) > parts.options.lease_ttl * 3 {
                        told = true;
                        tracing::warn!(shard = id, until = %other.until, "another process has not let go of a shard that the log gave to us");
                    }
                }
                Err(error) => tracing::warn!(shard = id, %error, "no lease yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                _ = orders.changed() => {}
            }
        };
        let (to_me, from_lanes) = mpsc::channel(FROM_LANES_MAX);
        let lease_clock = Arc::new(LeaseClock::default());
        let mut shard = Self {
            id,
            reader,
            owner,
            lease,
            lease_clock,
            renew_at: Duration::ZERO,
            states: States::default(),
            progress: Progress::default(),
            feed: lease.epoch << EPOCH_SHIFT,
            feed_open: Prefix::default(),
            later: Later::new(id, lease.epoch),
            flows: Flows::default(),
            to_me,
            from_lanes,
            newest_log_time: Timestamp::ZERO,
            parts,
        };
        shard.note_lease(lease, asked_at);
        if shard.recover().await.is_err() {
            tracing::warn!(shard = id, "lease lost while the former owner's work was taken up");
            return None;
        }
        Some(shard)
    }

    /// The store counts from some instant after it was asked: counted from before, our end is never later than the row's.
    fn note_lease(&mut self, lease: Lease, asked_at: Duration) {
        let ttl = self.parts.options.lease_ttl;
        self.lease = lease;
        self.lease_clock.set(asked_at + ttl - ttl / 5);
        self.renew_at = asked_at + ttl / 3;
    }

    /// Renews the lease when it is time to.
    async fn renew(&mut self) -> Result<(), Lost> {
        if self.parts.clock.monotonic() < self.renew_at {
            return Ok(());
        }
        let asked_at = self.parts.clock.monotonic();
        match self.parts.store.lease(LeaseOn::Shard(self.id), self.owner, self.parts.options.lease_ttl).await {
            // It ran out, another had it meanwhile, and that one's ran out too: what it did is not in our memory.
            Ok(LeaseAnswer::Held(lease)) if lease.epoch != self.lease.epoch => Err(Lost),
            Ok(LeaseAnswer::Held(lease)) => {
                self.note_lease(lease, asked_at);
                Ok(())
            }
            Ok(LeaseAnswer::HeldByOther(_)) => Err(Lost),
            Err(error) => {
                tracing::warn!(shard = self.id, %error, "lease not renewed");
                self.renew_at = self.parts.clock.monotonic() + STORE_RETRY.1;
                Ok(())
            }
        }
    }

    /// Works until told to stop, then drains.
    pub async fn run(mut self, orders: &mut watch::Receiver<Order>) -> Ended {
        let ended = match self.work(orders).await {
            Ok(Order::Drain(most)) => self.leave(most).await,
            Ok(Order::Work | Order::Leave) => Ok(()),
            Err(Lost) => Err(Lost),
        };
        // What is still at lanes must not be sent under this lease.
        self.lease_clock.set(Duration::ZERO);
        if ended.is_err() {
            tracing::warn!(shard = self.id, epoch = self.lease.epoch, "the shard stops here: its lease is lost, or the log is closed");
            self.parts.commits.forget(self.id);
        }
        // One that is another's by now stays so.
        if let Err(error) = self.parts.store.release(self.lease).await {
            tracing::warn!(shard = self.id, %error, "lease not given back, it runs out by itself");
        }
        if ended.is_err() {
            return Ended::Unleased;
        }
        Ended::Told
    }

    async fn work(&mut self, orders: &mut watch::Receiver<Order>) -> Result<Order, Lost> {
        loop {
            let order = *orders.borrow();
            if order != Order::Work {
                return Ok(order);
            }
            let wake = self.later.next_wake(self.parts.clock.now().plus(NAP));
            let takes = self.takes_records();
            let mut messages = Vec::new();
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    // Nobody is left who could tell us anything.
                    if changed.is_err() {
                        return Ok(Order::Leave);
                    }
                    continue;
                }
                Some(message) = self.from_lanes.recv() => messages.push(message),
                () = self.reader.ready(), if takes => {}
                () = self.parts.clock.sleep_until(wake) => {}
            }
            self.drain_messages(&mut messages);
            self.renew().await?;
            let entries = if takes { self.take_records().await } else { Vec::new() };
            self.step(entries, messages).await?;
        }
    }

    /// No new records; what is at lanes may end. Then what was finished is made durable, before another may take over.
    async fn leave(&mut self, most: Duration) -> Result<(), Lost> {
        let deadline = tokio::time::Instant::now() + most;
        while self.flows.in_flight() > 0 {
            let mut messages = Vec::new();
            match tokio::time::timeout_at(deadline, self.from_lanes.recv()).await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) | Err(_) => break,
            }
            self.drain_messages(&mut messages);
            self.renew().await?;
            self.step_with(Vec::new(), messages, true).await?;
        }
        crate::commit(&self.parts.store, &self.parts.log, &self.parts.commits, &self.parts.clock).await;
        Ok(())
    }

    fn drain_messages(&mut self, messages: &mut Vec<FromLane>) {
        while messages.len() < LANE_BATCH_MAX {
            let Ok(message) = self.from_lanes.try_recv() else { return };
            messages.push(message);
        }
    }

    fn takes_records(&self) -> bool {
        self.progress.in_work() < self.parts.options.max_in_flight_per_shard
    }

    /// A weighted batch: inbound before outbound before bulk, none starves; what one does not use the others get.
    async fn take_records(&mut self) -> Vec<(Topic, Entry)> {
        let mut batch = Vec::new();
        for round in 0..2 {
            for (topic, share) in SHARES {
                let max = if round == 0 { share } else { BATCH_MAX - batch.len() };
                if max == 0 {
                    continue;
                }
                match self.reader.take(topic, max).await {
                    Ok(entries) => {
                        metrics::LOG_CONSUMED_RECORDS.at([topic.index(), 0]).increment(entries.len() as u64);
                        batch.extend(entries.into_iter().map(|entry| (topic, entry)));
                    }
                    Err(error) => {
                        tracing::error!(shard = self.id, topic = topic.name(), %error, "reading the log failed");
                        tokio::time::sleep(STORE_RETRY.1).await;
                    }
                }
            }
            if batch.is_empty() || batch.len() < SHARES[0].1 {
                break;
            }
        }
        batch
    }

    async fn step(&mut self, entries: Vec<(Topic, Entry)>, messages: Vec<FromLane>) -> Result<(), Lost> {
        self.step_with(entries, messages, false).await
    }

    #[allow(clippy::too_many_lines, reason = "the step is a recipe: it reads top to bottom")]
    async fn step_with(&mut self, entries: Vec<(Topic, Entry)>, messages: Vec<FromLane>, draining: bool) -> Result<(), Lost> {
        let mut incoming = self.parse(entries);
        self.know_owners(&incoming).await;
        let directory = self.parts.keeper.shared().load_full();
        let now = self.parts.clock.now().max(self.newest_log_time);
        let timers = if draining { Vec::new() } else { self.later.due_timers(now, TIMERS_MAX) };
        let ready = if draining { Vec::new() } else { self.take_ready(now) };
        if incoming.is_empty() && messages.is_empty() && timers.is_empty() && ready.is_empty() {
            self.read_on(now).await;
            return Ok(());
        }
        let started = std::time::Instant::now();

        // 1. What the decisions read.
        let aliases = self.load_states(&directory, &mut incoming, &messages, &timers, &ready).await;
        let rows = self.load_rows(&directory, &incoming, &messages, &timers, &ready).await;

        // 2. Decide.
        let (channels, ids) = (self.parts.channels.clone(), self.parts.keyring.ids().clone());
        let mut feed = self.feed;
        let mut fresh_key = || {
            let mut key = [0; 32];
            fill_random(&mut key);
            key
        };
        let media = self.parts.media.clone();
        let world = World {
            now,
            shard: self.id,
            epoch: self.lease.epoch,
            directory: &directory,
            ids: &ids,
            channels: &channels,
            links: media.links(),
        };
        let mut states = std::mem::take(&mut self.states);
        let mut desk = Desk::new(world, &mut states, &mut feed, &mut fresh_key);
        for (key, value) in rows {
            desk.lay(key, value);
        }
        for (id, to, tenant, record) in aliases {
            ends::make_alias(&mut desk, tenant, id, to, &record);
        }
        let mut owners: Vec<Option<Slot>> = Vec::new();
        let mut goes: Vec<(oneshot::Sender<Option<Go>>, Option<Go>)> = Vec::new();
        for message in messages {
            match message {
                FromLane::Intent { ticket, go } => {
                    let content = self.intent(&mut desk, ticket);
                    goes.push((go, content));
                }
                FromLane::End { ticket, end } => self.end(&mut desk, ticket, end, now),
            }
            owners.resize(desk.effects.tasks.len(), None);
        }
        let mut held = Vec::new();
        for incoming in incoming {
            let slot = incoming.slot;
            let outcome = self.decide(&mut desk, &incoming);
            let (record, outcome) = incoming.record.finish(outcome);
            count(&record, outcome);
            owners.resize(desk.effects.tasks.len(), Some(slot));
            held.push(slot);
        }
        for (row, write) in timers {
            desk.write(write);
            ends::timer(&mut desk, &row);
            owners.resize(desk.effects.tasks.len(), None);
        }
        let mut offers: Vec<FlowKey> = Vec::new();
        for (destination, entry) in ready {
            match ends::rebuild(&mut desk, &entry.row, destination) {
                Some(task) => {
                    let key = (task.destination(), task.conversation);
                    if self.flows.push(Pending { task, slot: None, place: None, order: Some(entry.order) }) {
                        offers.push(key);
                    }
                }
                None => {
                    let write = self.later.done(destination, entry.order, now);
                    desk.write(write);
                }
            }
            owners.resize(desk.effects.tasks.len(), None);
        }

        // 3. Where the new tasks wait.
        let tasks = std::mem::take(&mut desk.effects.tasks);
        self.place_tasks(&mut desk, tasks, owners, &mut offers, now);
        // A scheduled send has no record to hold it: it goes on from `later`.
        for task in std::mem::take(&mut desk.effects.scheduled) {
            self.park(&mut desk, Pending { task, slot: None, place: None, order: None }, Timestamp::ZERO, now);
        }
        for row in std::mem::take(&mut desk.effects.timers) {
            let write = self.later.set_timer(row, now);
            desk.write(write);
        }
        self.cancel(&mut desk, now);
        let (mut writes, mut effects) = desk.finish();
        self.states = states;
        self.feed = feed;

        // 4. Tell other shards, write, then let go. In this order: what is written makes the records duplicates, and a crash between
        // would leave nobody to tell them; what is told twice does nothing the second time.
        let durability = if goes.is_empty() { Durability::Buffered } else { Durability::Synced };
        self.parts.media.keep(&mut effects, &self.parts.clock).await;
        self.tell(std::mem::take(&mut effects.records), &mut writes).await?;
        self.apply(writes, durability).await?;
        self.parts.media.hand_on(&mut effects);
        for change in effects.accounts {
            tokio::spawn(ends::stop_account(self.parts.accounts.clone(), change));
        }
        for (go, content) in goes {
            let _ = go.send(content);
        }
        for slot in held {
            self.progress.release(slot);
        }
        self.offer_all(offers, now).await?;
        self.note_progress();
        self.evict();
        metrics::ROUTER_PROCESS_DURATION_SECONDS.at([0]).record(started.elapsed().as_secs_f64());
        self.read_on(now).await;
        Ok(())
    }

    fn parse(&mut self, entries: Vec<(Topic, Entry)>) -> Vec<Incoming> {
        let mut incoming = Vec::with_capacity(entries.len());
        for (topic, entry) in entries {
            self.newest_log_time = self.newest_log_time.max(entry.appended_at);
            let slot = self.progress.open(topic, entry.position);
            match Record::decode(&entry.payload, self.parts.keyring.log()) {
                Ok(record) => {
                    let parse = || decide::parse(&record, self.parts.keyring.ids());
                    let parsed = std::panic::catch_unwind(AssertUnwindSafe(parse)).unwrap_or(Err(Unfit::Panic));
                    incoming.push(Incoming { slot, record: Tracked::new(record), parsed });
                }
                Err(error) => {
                    // Not ours, or damaged beyond its checksum: nothing in it can be trusted, not even whose it is.
                    tracing::error!(shard = self.id, position = entry.position.0, %error, "record left out");
                    metrics::DEAD_LETTERS_TOTAL
                        .at([metrics::DeadLetterQueue::Inbound.index(), metrics::DeadLetterReason::Unreadable.index()])
                        .increment(1);
                    self.progress.release(slot);
                }
            }
        }
        incoming
    }

    fn decide(&mut self, desk: &mut Desk<'_>, incoming: &Incoming) -> Outcome {
        let record = incoming.record.get();
        let parsed = match &incoming.parsed {
            Ok(parsed) => parsed,
            Err(unfit) => return quarantine(desk, record, *unfit, &self.parts.keyring),
        };
        if let Some((_, Conversation { alias_of: Some(to), .. })) = desk.states.get(&record.conversation)
            && !record.moved
            && !matches!(parsed, Parsed::Command(command) if matches!(**command, messaging::record::Command::Link { .. }))
        {
            // Known under another handle: its own shard decides. (Same shard: `load_states` moved it already.)
            desk.effects.records.push(record.moved_to(*to));
            return Outcome::Moved;
        }
        let mut unfit = Unfit::Panic;
        for _ in 0..DECIDE_TRIES {
            let mark = desk.mark(record.conversation);
            match std::panic::catch_unwind(AssertUnwindSafe(|| decide::record(desk, record, parsed))) {
                Ok(Ok(outcome)) => {
                    if record.requeued {
                        desk.delete(Key::Quarantine(record.tenant.id(), parked_id(record, &self.parts.keyring)));
                    }
                    return outcome;
                }
                Ok(Err(found)) => unfit = found,
                Err(_) => {
                    unfit = Unfit::Panic;
                    metrics::PANICS.at([]).increment(1);
                }
            }
            desk.roll_back(&mark);
        }
        quarantine(desk, record, unfit, &self.parts.keyring)
    }

    /// Work at a desk beside the steps, where no conversation begins. Gives the writes; effects are taken off the desk by the work.
    fn at_desk(
        &mut self,
        directory: &Directory,
        rows: Map<Key, Option<Vec<u8>>>,
        now: Timestamp,
        work: impl FnOnce(&mut Self, &mut Desk<'_>),
    ) -> Vec<Write> {
        let (channels, ids) = (self.parts.channels.clone(), self.parts.keyring.ids().clone());
        let (mut states, mut feed, media) = (std::mem::take(&mut self.states), self.feed, self.parts.media.clone());
        let (shard, epoch, links) = (self.id, self.lease.epoch, media.links());
        let world = World { now, shard, epoch, directory, ids: &ids, channels: &channels, links };
        let mut no_key = || unreachable!("no conversation begins here");
        let mut desk = Desk::new(world, &mut states, &mut feed, &mut no_key);
        for (key, value) in rows {
            desk.lay(key, value);
        }
        work(self, &mut desk);
        let (writes, _) = desk.finish();
        self.states = states;
        self.feed = feed;
        writes
    }

    /// An account that is not known may have been made by another process a moment ago: whoever took its record knew it. So the
    /// directory is looked at once more, however long the store is away, before such a record is parked.
    async fn know_owners(&self, incoming: &[Incoming]) {
        let keeper = &self.parts.keeper;
        let directory = keeper.shared().load_full();
        let is_known = |record: &Record| directory.account_of(record.tenant, record.account).is_some();
        if incoming.iter().all(|one| is_known(one.record.get())) {
            return;
        }
        let mut wait = STORE_RETRY.0;
        while let Err(error) = keeper.refresh().await {
            tracing::warn!(shard = self.id, %error, "directory not read, trying again");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(STORE_RETRY.1);
        }
    }

    // ---- loading --------------------------------------------------------------------------------------------------

    /// Loads the conversations of everything in the step. Gives the conversations that turn out to be aliases of ones known under
    /// another handle.
    async fn load_states(
        &mut self,
        directory: &Directory,
        incoming: &mut [Incoming],
        messages: &[FromLane],
        timers: &[(LaterRow, Write)],
        ready: &[([u8; 16], later::Entry)],
    ) -> Vec<(ConversationId, ConversationId, Tenant, Record)> {
        let mut wanted: Vec<(Tenant, ConversationId)> = Vec::new();
        wanted.extend(incoming.iter().map(|one| (one.record.get().tenant, one.record.get().conversation)));
        for message in messages {
            let ticket = match message {
                FromLane::Intent { ticket, .. } | FromLane::End { ticket, .. } => *ticket,
            };
            if let Some(key) = self.flows.of(ticket) {
                wanted.extend(self.flows.tasks(key).next().map(|task| (task.tenant, task.conversation)));
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

    async fn fetch_states(&mut self, directory: &Directory, wanted: Vec<(Tenant, ConversationId)>) {
        let mut seen = HashSet::<ConversationId, RandomState>::default();
        let missing: Vec<_> = wanted.into_iter().filter(|(_, id)| !self.states.contains_key(id) && seen.insert(*id)).collect();
        metrics::CACHE_REQUESTS.at([0, 1]).increment(missing.len() as u64);
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
    async fn load_rows(
        &mut self,
        directory: &Directory,
        incoming: &[Incoming],
        messages: &[FromLane],
        timers: &[(LaterRow, Write)],
        ready: &[([u8; 16], later::Entry)],
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
                FromLane::End { end: TaskEnd::Delivered, .. } => continue,
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
    async fn follow(&mut self, directory: &Directory, rows: &mut Map<Key, Option<Vec<u8>>>) {
        for _ in 0..3 {
            let mut next = Vec::new();
            for (key, value) in rows.iter() {
                let Some(value) = value else { continue };
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

    async fn fetch_rows(&mut self, keys: Vec<Key>, rows: &mut Map<Key, Option<Vec<u8>>>) {
        let mut seen = HashSet::<Key, RandomState>::default();
        let keys: Vec<Key> = keys.into_iter().filter(|key| !rows.contains_key(key) && seen.insert(*key)).collect();
        if keys.is_empty() {
            return;
        }
        let values = self.read(keys.clone()).await;
        rows.extend(keys.into_iter().zip(values));
    }

    /// Reads, however long the store is away: a step cannot be decided without.
    async fn read(&self, keys: Vec<Key>) -> Vec<Option<Vec<u8>>> {
        let mut wait = STORE_RETRY.0;
        loop {
            match self.parts.store.read(keys.clone()).await {
                Ok(values) => return values,
                Err(error) => {
                    tracing::warn!(shard = self.id, %error, "store read failed, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(STORE_RETRY.1);
                }
            }
        }
    }

    async fn scan(&self, scan: Scan, limit: usize) -> Vec<messaging::store::Found> {
        let mut wait = STORE_RETRY.0;
        loop {
            match self.parts.store.scan(scan, limit).await {
                Ok(found) => return found,
                Err(error) => {
                    tracing::warn!(shard = self.id, %error, "store scan failed, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(STORE_RETRY.1);
                }
            }
        }
    }

    /// Writes, however long the store is away: nothing is let go before. Not past the end of the lease, though: then it is asked for
    /// anew, and only the same lease goes on.
    async fn apply(&mut self, writes: Vec<Write>, durability: Durability) -> Result<(), Lost> {
        if writes.is_empty() {
            return Ok(());
        }
        let (lease_clock, clock) = (self.lease_clock.clone(), self.parts.clock.clone());
        let holds: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(move || lease_clock.holds(clock.monotonic()));
        let mut wait = STORE_RETRY.0;
        loop {
            let held = Held { lease: self.lease, holds: holds.clone() };
            let Err(error) = self.parts.store.apply_step(&held, writes.clone(), durability).await else { return Ok(()) };
            let ran_out = match error {
                StoreError::Unheld => true,
                StoreError::Unavailable(_) | StoreError::Full | StoreError::Damaged(_) | StoreError::Conflict | StoreError::Closed => {
                    tracing::warn!(shard = self.id, %error, "store write failed, trying again");
                    false
                }
            };
            if ran_out {
                self.renew_at = Duration::ZERO;
            }
            self.renew().await?;
            // Only a lease that came back is reason to go on at once: a store that is away would keep a core busy being asked.
            if !(ran_out && self.lease_clock.holds(self.parts.clock.monotonic())) {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(STORE_RETRY.1);
            }
        }
    }

    // ---- tasks ----------------------------------------------------------------------------------------------------

    fn take_ready(&mut self, now: Timestamp) -> Vec<([u8; 16], later::Entry)> {
        let mut ready = Vec::new();
        for destination in self.later.waiting(now) {
            let flows = &self.flows;
            let busy = |conversation| {
                let endpoint = Destination::Endpoint(messaging::ids::EndpointId(destination));
                let account = Destination::Account(messaging::ids::AccountId(destination));
                flows.is_busy((endpoint, conversation)) || flows.is_busy((account, conversation))
            };
            for entry in self.later.take_ready(destination, now, LATER_IN_FLIGHT_MAX, busy) {
                ready.push((destination, entry));
            }
        }
        ready
    }

    fn intent(&mut self, desk: &mut Desk<'_>, ticket: u64) -> Option<Go> {
        let key = self.flows.of(ticket)?;
        let pending = self.flows.head(key)?;
        pending.task.attempts += 1;
        decide::outbound::intent(desk, &pending.task).ok().flatten()
    }

    fn place_tasks(&mut self, desk: &mut Desk<'_>, tasks: Vec<Task>, owners: Vec<Option<Slot>>, offers: &mut Vec<FlowKey>, now: Timestamp) {
        let mut places: Map<u64, Place> = Map::default();
        for (task, owner) in tasks.into_iter().zip(owners) {
            let destination = task.destination();
            let key = (destination, task.conversation);
            let (slot, place) = match &task.work {
                Work::Send(_) => {
                    if let Some(slot) = owner {
                        self.progress.hold(slot);
                    }
                    (owner, None)
                }
                Work::Deliver(delivery) => {
                    let order = delivery.feed.order;
                    let place = match places.get(&order) {
                        Some(place) => {
                            self.feed_open.hold(*place);
                            *place
                        }
                        None => {
                            let place = self.feed_open.open(order);
                            places.insert(order, place);
                            place
                        }
                    };
                    (None, Some(place))
                }
            };
            let pending = Pending { task, slot, place, order: None };
            let waits = self.later.blocks(destination.bytes(), key.1) || self.later.held(destination.bytes(), now);
            if waits || !self.flows.has_room(key) {
                self.shadow(desk, key, now);
                self.park(desk, pending, Timestamp::ZERO, now);
            } else if self.flows.push(pending) {
                offers.push(key);
            }
        }
    }

    /// Puts a task into `later` and lets go of what waits for it (after this step's rows are written).
    pub(crate) fn park(&mut self, desk: &mut Desk<'_>, pending: Pending, due: Timestamp, now: Timestamp) {
        let destination = pending.task.destination().bytes();
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
        self.let_go(&pending);
    }

    /// Something of this flow is about to be parked: everything before it is parked first, the head too although it is under way.
    /// So `later` holds all of a conversation or nothing of it, and whoever takes over after a crash finds the order there.
    fn shadow(&mut self, desk: &mut Desk<'_>, key: FlowKey, now: Timestamp) {
        let mut flow = self.flows.take(key);
        let Some(mut head) = flow.pop_front() else { return };
        if head.order.is_none() {
            let row = ends::later_row(&head.task, Timestamp::ZERO, now, self.lease.epoch);
            let (write, order) = self.later.push_in_flight(key.0.bytes(), row, now);
            desk.write(write);
            self.let_go(&head);
            head.order = Some(order);
            head.slot = None;
            head.place = None;
        }
        for pending in flow {
            self.park(desk, pending, Timestamp::ZERO, now);
        }
        self.flows.push(head);
    }

    /// Releases what waited for a task.
    pub(crate) fn let_go(&mut self, pending: &Pending) {
        if let Some(slot) = pending.slot {
            self.progress.release(slot);
        }
        if let Some(place) = pending.place {
            self.feed_open.release(place);
        }
    }

    /// Offers heads of flows to their lanes; what does not fit is parked.
    async fn offer_all(&mut self, offers: Vec<FlowKey>, now: Timestamp) -> Result<(), Lost> {
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
        let job = Job { task, ticket, owner: self.to_me.clone(), lease: self.lease_clock.clone() };
        if self.parts.lanes.offer(job).is_ok() {
            return true;
        }
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
                Some(order) => self.later.put_back(key.0.bytes(), order, due),
                None => self.park(desk, pending, due, now),
            }
        }
    }

    fn cancel(&mut self, desk: &mut Desk<'_>, now: Timestamp) {
        for (account, message) in std::mem::take(&mut desk.effects.cancelled) {
            if let Some(order) = self.later.find_send(account.0, message) {
                let write = self.later.done(account.0, order, now);
                desk.write(write);
            }
            // In memory: its turn comes, the intent says no.
        }
    }

    /// Appends records for other shards, however long the log is away. Not past the end of the lease, though, nor when the log is
    /// closed: then nothing of the step counts, and the next owner does it. What the log never takes is parked.
    async fn tell(&mut self, records: Vec<Record>, writes: &mut Vec<Write>) -> Result<(), Lost> {
        let partitions = self.parts.log.partitions();
        let mut left: Vec<(Record, NewRecord)> = Vec::with_capacity(records.len());
        for record in records {
            let new = record.to_new(record.topic(), partitions, self.parts.keyring.log());
            left.push((record, new));
        }
        let mut wait = STORE_RETRY.0;
        while !left.is_empty() {
            let results = self.parts.log.append(left.iter().map(|(_, new)| new.clone()).collect()).await;
            let mut again = Vec::new();
            for (one, result) in left.into_iter().zip(results) {
                match result {
                    Ok(_) => {}
                    Err(AppendError::Full | AppendError::Away | AppendError::Partition) => again.push(one),
                    Err(error @ AppendError::TooLarge { .. }) => {
                        tracing::error!(shard = self.id, %error, "a record for another shard is parked: the log does not take it");
                        writes.push(quarantined(&one.0, Unfit::TooLarge, &self.parts.keyring));
                    }
                    Err(AppendError::Closed) => return Err(Lost),
                }
            }
            left = again;
            if !left.is_empty() {
                self.renew().await?;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(STORE_RETRY.1);
            }
        }
        Ok(())
    }

    fn note_progress(&mut self) {
        let mut commit = Commit::default();
        for topic in Topic::ALL {
            commit.positions[topic.index()] = self.progress.take_finished(*topic);
        }
        commit.settled = self.feed_open.take_finished();
        if self.feed_open.is_empty() {
            commit.settled = Some(self.feed);
        }
        self.parts.commits.note(self.id, |kept| {
            for (kept, new) in kept.positions.iter_mut().zip(commit.positions) {
                *kept = new.or(*kept);
            }
            kept.settled = commit.settled.or(kept.settled);
        });
    }

    fn evict(&mut self) {
        if self.states.len() <= STATES_MAX {
            return;
        }
        let excess: Vec<ConversationId> = self.states.keys().take(self.states.len() - STATES_MAX * 3 / 4).copied().collect();
        for id in excess {
            self.states.remove(&id);
        }
    }

    /// Reads on where a queue's index has room.
    async fn read_on(&mut self, now: Timestamp) {
        if let Some(from) = self.later.timers_to_read() {
            let found = self.scan(Scan::Later(self.id, Queue::Timers, from), PAGE).await;
            let more = found.len() == PAGE;
            self.later.timers_read(rows_of(found, self.lease.epoch), more);
        }
        for destination in self.later.waiting(now) {
            if let Some(from) = self.later.to_read(destination) {
                let found = self.scan(Scan::Later(self.id, Queue::Destination(destination), from), PAGE / 2).await;
                let more = found.len() == PAGE / 2;
                self.later.read_on(destination, rows_of(found, self.lease.epoch), more);
            }
        }
    }
}

/// A row as it stands for this owner: every owner since it was written may have tried it once without a trace.
fn risen(mut row: LaterRow, epoch: u64) -> LaterRow {
    let owners = u32::try_from(epoch.saturating_sub(row.epoch)).unwrap_or(u32::MAX);
    row.repeats = row.repeats.saturating_add(owners);
    row.epoch = epoch;
    row
}

fn rows_of(found: Vec<messaging::store::Found>, epoch: u64) -> Vec<(u64, LaterRow)> {
    let row = |(key, bytes): messaging::store::Found| match key {
        Key::Later(_, _, order) => later::decode(&bytes).map(|row| (order, risen(row, epoch))),
        _ => None,
    };
    found.into_iter().filter_map(row).collect()
}

/// Parks a record that cannot be decided.
fn quarantine(desk: &mut Desk<'_>, record: &Record, unfit: Unfit, keyring: &Keyring) -> Outcome {
    desk.write(quarantined(record, unfit, keyring));
    Outcome::Quarantined
}

/// The row of a parked record, counted.
fn quarantined(record: &Record, unfit: Unfit, keyring: &Keyring) -> Write {
    let row = Quarantined {
        account: record.account,
        channel: record.channel,
        reason: unfit.name().to_owned(),
        at: record.accepted_at,
        record: record.encode(keyring.log()).to_vec(),
    };
    let reason = match unfit {
        Unfit::Body => metrics::DeadLetterReason::Unparsable,
        Unfit::Owner | Unfit::Row | Unfit::TooLarge => metrics::DeadLetterReason::Unreadable,
        Unfit::Panic => metrics::DeadLetterReason::Panicked,
    };
    metrics::DEAD_LETTERS_TOTAL.at([metrics::DeadLetterQueue::Inbound.index(), reason.index()]).increment(1);
    let value = postcard::to_stdvec(&row).expect("our own types serialise");
    Write::put(Key::Quarantine(record.tenant.id(), parked_id(record, keyring)), value, record.accepted_at)
}

/// Under which id a record is parked: by what it says, so that one that comes again is parked once.
fn parked_id(record: &Record, keyring: &Keyring) -> QuarantineId {
    QuarantineId(keyring.ids().content(record.tenant.id(), record.account, &record.body))
}

/// The verdict for a send whose try panicked.
pub(crate) fn panicked() -> Verdict {
    Verdict::Unknown { reason: messaging::outcome::Reason::Interrupted, detail: "the try panicked".into() }
}
