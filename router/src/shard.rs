//! A shard: one task that owns the conversations of a partition. Prefetch, decide, write, then hand the effects to lanes.
//!
//! What holds after every step, at whatever instant the process dies: an effect is done, or stands in `later`, or its event
//! stands in the feed behind `FeedProgress::settled`, or its send's record is not finished. The next owner takes all of it up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::accounts::Accounts;
use messaging::channels::{ChannelKind, ChannelSettings};
use messaging::clock::{SharedClock, Timestamp};
use messaging::directory::Directory;
use messaging::ids::{AccountId, ConversationId, EndpointId, MessageId, QuarantineId, partition_of};
use messaging::keeper::DirectoryKeeper;
use messaging::log::{AppendError, Entry, Finished, Log, NewRecord, Position, ShardReader, Topic};
use messaging::metrics;
use messaging::outcome::{Outcome, Tracked, Verdict};
use messaging::outlook::Outlook;
use messaging::record::{Class, Record};
use messaging::seal::{Keyring, fill_random};
use messaging::state::{Conversation, EventData, EventRow, FeedPosition, FeedProgress, Pointer, Quarantined};
use messaging::store::{Durability, Held, Key, Lease, LeaseAnswer, LeaseOn, Queue, Scan, Store, StoreError, Write};
use messaging::supervise::{Panicked, caught, caught_here, lock};
use messaging::tenant::Tenant;
use tokio::sync::{mpsc, oneshot, watch};

use crate::census::{self, Census, Holdings};
use crate::crowd::{self, Intake};
use crate::decide::{self, Parsed};
use crate::desk::{Desk, States, Unfit, World, count};
use crate::fair::Turns;
use crate::faults::FaultPoint;
use crate::fleet::Fleet;
use crate::flows::{FlowKey, Flows, Pending};
use crate::lane::{FromLane, Home, Job, Lanes, LeaseClock};
use crate::later::{self, Later};
use crate::media::Media;
use crate::plan::{Delivery, Destination, Go, LaterRow, LaterWork, Task, TaskEnd, Work};
use crate::progress::{Place, Prefix, Progress, Slot};
use crate::waits::Waits;
use crate::{Options, ends};

mod aside;
mod commits;
mod count;
mod durable;
mod lease;
mod load;
mod records;
mod recover;
mod slow;
mod suspects;
mod tasks;

use aside::{Aside, Hand, Part};
pub use commits::{Commit, Commits};
use records::quarantined;
pub use suspects::{Item, STRIKES, Suspects};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Tries of a record, to parse it or to decide on it, before it is quarantined.
const TRIES: usize = STRIKES as usize;
/// Records taken in one step.
const BATCH_MAX: usize = crowd::STEP_ROOM;
/// Of a batch, at least so many of each topic when all have some: inbound, outbound, bulk.
const SHARES: [(Topic, usize); 3] = [(Topic::Inbound, 80), (Topic::Outbound, 36), (Topic::Bulk, 12)];
/// Messages of lanes taken in one step.
const LANE_BATCH_MAX: usize = 512;
/// Messages of lanes that wait.
const FROM_LANES_MAX: usize = 8192;
/// Timers fired in one step.
const TIMERS_MAX: usize = 256;
/// Tasks of one destination taken out of `later` that are under way at once, per shard.
const LATER_IN_FLIGHT_MAX: usize = 32;
/// Tasks taken out of `later` in one step, of all destinations together: however many a tenant has, others' records wait for one step only.
const READY_MAX: usize = 512;
/// Conversations that a shard remembers.
const STATES_MAX: usize = 2048;
/// Longest sleep between two looks.
const NAP: Duration = Duration::from_secs(1);
/// First and longest wait before a refused store or log write is tried again.
const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Records of a topic that are remembered from the first in work on, in multiples of those that may be in work.
const SPAN_FACTOR: usize = 64;
/// How soon a full lane, or a topic without room, is looked at again.
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
    /// Where the shard says what it holds.
    pub census: Arc<Census>,
    /// Where the sends that wait are counted.
    pub outlook: Arc<Outlook>,
    /// What the shards of this process do.
    pub fleet: Arc<Fleet>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// Its lease ran out, or is another's.
    Unleased,
    /// It panicked. What it had in hand is under suspicion.
    Panicked(Panicked),
}

/// The lease is not ours any more: nothing may be written, sent or finished.
#[derive(Debug, Clone, Copy)]
struct Lost;

/// A record on its way through a step.
struct Incoming {
    topic: Topic,
    position: Position,
    slot: Slot,
    record: Tracked<Record>,
    parsed: Result<Parsed, Unfit>,
}

/// A shard at work.
pub struct Shard<'a> {
    pub(crate) id: u16,
    pub(crate) parts: ShardParts,
    reader: &'a mut dyn ShardReader,
    /// What is in hand, and what was in hand at panics.
    suspects: &'a mut Suspects,
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
    pub(crate) waits: Waits,
    /// Whose turn it is in `later`.
    turns: Turns,
    to_me: mpsc::Sender<FromLane>,
    from_lanes: mpsc::Receiver<FromLane>,
    newest_log_time: Timestamp,
    /// When the inbound record that was taken last had been appended.
    inbound_at: Timestamp,
    /// The number of the last recovery of an endpoint that was looked at, and the version of the directory.
    recoveries_seen: u64,
    directory_seen: u64,
    /// When it is looked again for deliveries that are under way for long.
    slow_look_at: Duration,
    /// Time that went into steps since the last report to the census, and when that was.
    busy: Duration,
    reported_at: Duration,
}

impl<'a> Shard<'a> {
    /// Works until told to stop, then drains.
    pub async fn run(mut self, orders: &mut watch::Receiver<Order>) -> Ended {
        let ended = match caught(self.live(orders)).await {
            Ok(Ok(())) => Ended::Told,
            Ok(Err(Lost)) => Ended::Unleased,
            Err(panicked) => Ended::Panicked(panicked),
        };
        self.close(ended).await
    }

    async fn live(&mut self, orders: &mut watch::Receiver<Order>) -> Result<(), Lost> {
        match self.work(orders).await? {
            Order::Drain(most) => {
                self.parts.fleet.note(self.id, Some(metrics::ShardState::Draining));
                self.leave(most).await
            }
            Order::Work | Order::Leave => Ok(()),
        }
    }

    /// Gives the lease back, so that whoever comes next, perhaps this process, may begin at once.
    async fn close(self, ended: Ended) -> Ended {
        // What is still at lanes must not be sent under this lease.
        self.lease_clock.set(Duration::ZERO);
        match &ended {
            Ended::Told => {}
            Ended::Unleased => {
                tracing::warn!(shard = self.id, epoch = self.lease.epoch, "the shard stops here: its lease is lost, or the log is closed");
                self.parts.commits.forget(self.id);
            }
            // What was finished before stays so: the next beginning has less to repeat.
            Ended::Panicked(_) => crate::commit(&self.parts.store, &self.parts.log, &self.parts.commits, &self.parts.clock).await,
        }
        // One that is another's by now stays so.
        if let Err(error) = self.parts.store.release(self.lease).await {
            tracing::warn!(shard = self.id, %error, "lease not given back, it runs out by itself");
        }
        self.parts.census.forget(self.id);
        ended
    }

    async fn work(&mut self, orders: &mut watch::Receiver<Order>) -> Result<Order, Lost> {
        loop {
            let order = *orders.borrow();
            if order != Order::Work {
                return Ok(order);
            }
            let wake = self.later.next_wake(self.parts.clock.now().plus(NAP));
            let (age, ended, later) = (self.parts.clock.now().since(self.inbound_at), !self.from_lanes.is_empty(), &self.later);
            let intake = self.flows.intake(age, ended, |destination| later.under_way(destination.queue()) >= LATER_IN_FLIGHT_MAX);
            // Records of a topic without room may be there all the time: then it is looked again after a moment.
            let full = Topic::ALL.iter().any(|topic| self.room(*topic) == 0);
            let takes = Topic::ALL.iter().any(|topic| self.room(*topic) > 0);
            let held = match intake {
                Intake::Free | Intake::AtMost(_) => None,
                Intake::Held(until) => Some(until),
            };
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
                () = self.reader.ready(), if takes && !full && held.is_none() => {}
                () = tokio::time::sleep(ROOM_LOOK), if full => {}
                () = self.parts.clock.sleep_until(wake) => {}
                () = tokio::time::sleep_until(held.unwrap_or_else(tokio::time::Instant::now)), if held.is_some() => {}
            }
            self.drain_messages(&mut messages);
            self.renew().await?;
            self.release_recovered();
            let entries = if takes { self.take_records(intake).await } else { Vec::new() };
            self.step(entries, messages, false).await?;
            self.write_down_slow().await?;
            self.report();
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
            self.step(Vec::new(), messages, true).await?;
        }
        self.write_down_all().await?;
        crate::commit(&self.parts.store, &self.parts.log, &self.parts.commits, &self.parts.clock).await;
        Ok(())
    }

    fn drain_messages(&mut self, messages: &mut Vec<FromLane>) {
        while messages.len() < LANE_BATCH_MAX {
            let Ok(message) = self.from_lanes.try_recv() else { return };
            messages.push(message);
        }
    }

    /// How many more records of a topic may be in work. Each topic has its own bound: a campaign that waits holds up neither answers nor
    /// what people write.
    fn room(&self, topic: Topic) -> usize {
        let max = self.parts.options.max_in_flight_per_shard;
        if self.progress.span(topic) >= max.saturating_mul(SPAN_FACTOR) {
            return 0;
        }
        max.saturating_sub(self.progress.held(topic))
    }

    /// A weighted batch: inbound before outbound before bulk, none starves; what one does not use the others get.
    /// What endpoints have to get away first is held up; sends are not.
    async fn take_records(&mut self, intake: Intake) -> Vec<(Topic, Entry)> {
        let inbound_max = match intake {
            Intake::Free => BATCH_MAX,
            Intake::AtMost(max) => max,
            Intake::Held(_) => 0,
        };
        let mut batch = Vec::new();
        let mut taken = [0; Topic::ALL.len()];
        for round in 0..2 {
            for (topic, share) in SHARES {
                let mut max = if round == 0 { share } else { BATCH_MAX - batch.len() };
                if topic == Topic::Inbound {
                    max = max.min(inbound_max);
                }
                max = max.min(self.room(topic).saturating_sub(taken[topic.index()]));
                if max == 0 {
                    continue;
                }
                match self.reader.take(topic, max).await {
                    Ok(entries) => {
                        metrics::LOG_CONSUMED_RECORDS.at([topic.index(), 0]).increment(entries.len() as u64);
                        if let Some(oldest) = entries.first() {
                            let direction = match topic {
                                Topic::Inbound => metrics::Direction::Inbound,
                                Topic::Outbound | Topic::Bulk => metrics::Direction::Outbound,
                            };
                            let waited = self.parts.clock.now().since(oldest.appended_at).as_secs_f64();
                            metrics::ROUTER_QUEUE_DURATION_SECONDS.at([direction.index()]).record(waited);
                        }
                        taken[topic.index()] += entries.len();
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

    /// A step with all that there is to do; what is under suspicion has a step of its own.
    async fn step(&mut self, entries: Vec<(Topic, Entry)>, messages: Vec<FromLane>, draining: bool) -> Result<(), Lost> {
        let now = self.parts.clock.now().max(self.newest_log_time);
        let timers = if draining { Vec::new() } else { self.later.due_timers(now, TIMERS_MAX) };
        let ready = if draining { Vec::new() } else { self.take_ready(now) };
        let hand = Hand { entries, messages, timers, ready };
        if hand.is_empty() {
            self.read_on(now).await;
            return Ok(());
        }
        for part in self.apart(hand) {
            match part {
                Part::Step(hand) => self.step_with(hand).await?,
                Part::Aside(aside) => self.set_aside(aside, now).await?,
            }
            self.suspects.put_down();
        }
        Ok(())
    }

    #[allow(clippy::too_many_lines, reason = "the step is a recipe: it reads top to bottom")]
    async fn step_with(&mut self, hand: Hand) -> Result<(), Lost> {
        self.take_up(&hand);
        let Hand { entries, messages, timers, ready } = hand;
        self.suspects.at("parse");
        let mut incoming = self.parse(entries);
        self.know_owners(&incoming).await;
        let directory = self.parts.keeper.shared().load_full();
        let now = self.parts.clock.now().max(self.newest_log_time);
        let started = std::time::Instant::now();

        // 1. What the decisions read.
        self.suspects.at("load");
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
        let mut owners: Vec<Option<usize>> = Vec::new();
        let mut goes: Vec<(oneshot::Sender<Option<Go>>, Option<Go>)> = Vec::new();
        self.suspects.at("end");
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
        self.suspects.at("decide");
        let mut held = Vec::new();
        for incoming in incoming {
            let outcome = self.decide(&mut desk, &incoming);
            let (record, outcome) = incoming.record.finish(outcome);
            count(&record, outcome);
            owners.resize(desk.effects.tasks.len(), Some(held.len()));
            held.push(incoming.slot);
        }
        self.suspects.at("later");
        for (row, write) in timers {
            desk.write(write);
            self.parts.options.faults.at(FaultPoint::Later, [row.conversation]);
            ends::timer(&mut desk, &row);
            owners.resize(desk.effects.tasks.len(), None);
        }
        let mut offers: Vec<FlowKey> = Vec::new();
        for (destination, entry) in ready {
            self.parts.options.faults.at(FaultPoint::Later, [entry.row.conversation]);
            match ends::rebuild(&mut desk, &entry.row, destination) {
                Some(task) => {
                    let key = (task.destination(), task.conversation);
                    if self.flows.push(Pending { task, slot: None, place: None, order: Some(entry.order) }) {
                        offers.push(key);
                    }
                }
                None => {
                    self.waits.leave_row(destination, &entry.row);
                    let write = self.later.done(destination, entry.order, now);
                    desk.write(write);
                }
            }
            owners.resize(desk.effects.tasks.len(), None);
        }

        // 3. Where the new tasks wait.
        self.suspects.at("place");
        let tasks = std::mem::take(&mut desk.effects.tasks);
        self.place_tasks(&mut desk, tasks, &owners, &held, &mut offers, now);
        // A scheduled send has no record to hold it: it goes on from `later`.
        for task in std::mem::take(&mut desk.effects.scheduled) {
            self.waits.join(&task);
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
        self.suspects.at("apply");
        let durability = if goes.is_empty() { Durability::Buffered } else { Durability::Synced };
        self.parts.media.keep(&mut effects, &self.parts.clock).await;
        self.tell(std::mem::take(&mut effects.records), &mut writes).await?;
        self.apply(writes, durability).await?;
        self.parts.media.hand_on(&mut effects);
        for change in effects.accounts {
            tokio::spawn(ends::stop_account(self.parts.accounts.clone(), change));
        }
        self.suspects.at("offer");
        for (go, content) in goes {
            let _ = go.send(content);
        }
        for slot in held {
            self.progress.release(slot);
        }
        self.offer_all(offers, now).await?;
        self.note_progress();
        self.evict();
        let took = started.elapsed();
        self.busy += took;
        metrics::ROUTER_PROCESS_DURATION_SECONDS.at([0]).record(took.as_secs_f64());
        self.read_on(now).await;
        Ok(())
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

    fn evict(&mut self) {
        if self.states.len() <= STATES_MAX {
            return;
        }
        let excess: Vec<ConversationId> = self.states.keys().take(self.states.len() - STATES_MAX * 3 / 4).copied().collect();
        for id in excess {
            self.states.remove(&id);
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

/// The verdict for a send whose try panicked.
pub(crate) fn panicked() -> Verdict {
    Verdict::Unknown { reason: messaging::outcome::Reason::Interrupted, detail: "the try panicked".into() }
}
