//! The read half: one consumer, one poll loop, shards handed out and taken back.
//!
//! # Co-partitioning
//!
//! A shard is a partition number of all three topics. With equal partition counts and subscriptions, the `range` assignor gives the same
//! numbers of every topic to the same member. An assignment that is not so is not handed out, and says so.
//!
//! # A rebalance
//!
//! Callbacks of librdkafka only note what happened; the poll loop acts on it and keeps polling. So while a revocation waits for the
//! router to drain, heartbeats, commits and the answers to them go on. The partitions are given back when the router has dropped the
//! readers and everything that it took is finished, or shortly after the drop ([`LAST_FINISH`]), or at the latest after [`REVOKE_WAIT`]; until then
//! no other member gets them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::claims::Claims;
use super::commit::Commits;
use super::settings::KafkaSettings;
use super::shard::{Lane, Shard};
use super::{broker_error, forward_log};
use crate::clock::SharedClock;
use crate::log::{Finished, Lag, LogError, ShardReader, Topic};
use crate::metrics::{self, ConsumerGroup, RebalanceKind};

/// How long a revocation waits for the router.
pub const REVOKE_WAIT: Duration = Duration::from_secs(5);
/// How long after the drop of a revoked reader its last positions may still be finished.
pub const LAST_FINISH: Duration = Duration::from_millis(500);
/// Longest wait for the committed positions at an assignment, before it is tried again.
const COMMITTED_WAIT: Duration = Duration::from_secs(3);
/// Longest wait for the ends of partitions.
const ENDS_WAIT: Duration = Duration::from_secs(2);

/// The consumer, with our callbacks.
pub(super) type Client = BaseConsumer<Rebalances>;

/// What the group's coordinator decided.
#[derive(Debug)]
pub(super) enum Event {
    /// Partitions are ours, by topic name and number.
    Assigned(Vec<(String, i32)>),
    /// All partitions are to be given back.
    Revoked,
}

/// The callbacks.
#[derive(Default)]
pub(super) struct Rebalances {
    events: Mutex<VecDeque<Event>>,
    /// The consumer closes: nothing is waited for any more.
    pub closing: AtomicBool,
}

impl Rebalances {
    /// What came first and was not acted on.
    pub fn next(&self) -> Option<Event> {
        self.lock().pop_front()
    }

    /// An assignment could not be acted on; next time, if no other came meanwhile.
    pub fn put_back(&self, partitions: Vec<(String, i32)>) {
        let mut events = self.lock();
        if !events.iter().any(|event| matches!(event, Event::Assigned(_))) {
            events.push_front(Event::Assigned(partitions));
        }
    }

    /// An assignment came. One before it that was not acted on is void: while librdkafka waits for the answer to an assignment, it joins anew
    /// without a word when the group changes again or loses us.
    fn assigned(&self, partitions: Vec<(String, i32)>) {
        let mut events = self.lock();
        events.retain(|event| !matches!(event, Event::Assigned(_)));
        events.push_back(Event::Assigned(partitions));
    }

    /// Whether something waits.
    pub fn is_waiting(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().expect("no holder of the events panics")
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Rebalances {
    /// Notes what happened. librdkafka waits with the rebalance until `assign` or `unassign` is called, whoever calls it; there is one
    /// event at a time, so what waits here is bounded.
    fn rebalance(&self, consumer: &Client, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !self.closing.load(Ordering::Acquire) {
            let listed = partitions.elements();
            let listed = listed.iter().map(|element| (element.topic().to_owned(), element.partition()));
            self.assigned(listed.collect());
        } else if self.closing.load(Ordering::Acquire) {
            if let Err(error) = consumer.unassign() {
                tracing::debug!(%error, "kafka partitions were not given back while leaving the group");
            }
        } else {
            self.lock().push_back(Event::Revoked);
        }
    }
}

/// What the poll thread, the readers, the commits and the lag share.
pub(super) struct Group {
    pub settings: Arc<KafkaSettings>,
    pub clock: SharedClock,
    pub claims: Claims,
    pub commits: Commits,
    /// Whether the router wants shards.
    pub wanted: AtomicBool,
    /// The log is closed as it should be: others shall have the shards at once. A process that just ends keeps its membership.
    pub leaving: AtomicBool,
    topics: [String; Topic::ALL.len()],
    owned: Mutex<BTreeMap<u16, Arc<Shard>>>,
    /// The poll thread holds it; the others borrow it.
    consumer: Mutex<Weak<Client>>,
    closed: Arc<AtomicBool>,
}

impl Group {
    pub fn new(settings: Arc<KafkaSettings>, clock: SharedClock) -> Self {
        Self {
            topics: settings.topic_names(),
            settings,
            clock,
            claims: Claims::default(),
            commits: Commits::default(),
            wanted: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            owned: Mutex::new(BTreeMap::new()),
            consumer: Mutex::new(Weak::new()),
            closed: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Makes the consumer. It joins nothing before `subscribe`. With `keeps_instance` it bears the instance id of the settings, if they have one.
    pub fn make_consumer(&self, keeps_instance: bool) -> Result<Arc<Client>, LogError> {
        let made: Result<Client, KafkaError> = self.settings.consumer(keeps_instance).create_with_context(Rebalances::default());
        let consumer = Arc::new(made.map_err(|error| broker_error("the kafka consumer is not made", &error))?);
        *self.consumer.lock().expect("no holder of the consumer panics") = Arc::downgrade(&consumer);
        Ok(consumer)
    }

    /// Joins the group.
    pub fn subscribe(&self, consumer: &Client) -> Result<(), LogError> {
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|error| broker_error("the topics were not subscribed to", &error))
    }

    /// The consumer while it is there.
    pub fn consumer(&self) -> Option<Arc<Client>> {
        self.consumer.lock().expect("no holder of the consumer panics").upgrade()
    }

    pub fn topic_name(&self, topic: Topic) -> &str {
        &self.topics[topic.index()]
    }

    pub fn topic_of(&self, name: &str) -> Option<Topic> {
        Topic::ALL.iter().copied().find(|topic| self.topics[topic.index()] == name)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nothing is taken or finished from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub fn owned(&self, id: u16) -> Option<Arc<Shard>> {
        self.lock_owned().get(&id).cloned()
    }

    pub fn may_finish(&self, finished: &Finished) -> bool {
        self.owned(finished.shard).is_some_and(|shard| shard.may_finish(finished.topic, finished.position.0))
    }

    pub fn lag(&self) -> Vec<Lag> {
        self.lock_owned().values().flat_map(|shard| shard.lag()).collect()
    }

    /// Acts on an assignment: reads where to begin, begins there, and hands out the readers. False: no answer, try again.
    pub fn assign(&self, consumer: &Client, partitions: &[(String, i32)]) -> bool {
        let starts = match self.starts(consumer, partitions) {
            Ok(starts) => starts,
            Err(error) => {
                tracing::warn!(%error, "kafka did not tell where shards begin; tried again");
                return false;
            }
        };
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for ((topic, id), start) in &starts {
            let offset = Offset::Offset(i64::try_from(start.finished).unwrap_or(i64::MAX));
            if let Err(error) = list.add_partition_offset(self.topic_name(*topic), i32::from(*id), offset) {
                tracing::warn!(%error, "a partition cannot be assigned; tried again");
                return false;
            }
        }
        if let Err(error) = consumer.assign(&list) {
            tracing::warn!(%error, "kafka partitions were not assigned; tried again");
            return false;
        }
        let mut shards = BTreeMap::new();
        let ids: std::collections::BTreeSet<u16> = starts.keys().map(|(_, id)| *id).collect();
        for id in ids {
            let lanes = [Topic::Inbound, Topic::Outbound, Topic::Bulk].map(|topic| starts.get(&(topic, id)));
            let [Some(inbound), Some(outbound), Some(bulk)] = lanes else {
                tracing::error!(
                    shard = id,
                    "the group gave us a shard's topics in part: all members must use the range assignor and these topics"
                );
                continue;
            };
            let lanes = [inbound, outbound, bulk].map(|start| Lane::new(start.finished, start.end));
            shards.insert(id, Shard::new(id, lanes, self.closed.clone()));
        }
        let readers: Vec<Box<dyn ShardReader>> = shards.values().map(Shard::reader).collect();
        tracing::info!(shards = readers.len(), "kafka gave us shards");
        // An assignment that was not taken back before: see `Rebalances::assigned`. What is replaced must not work on.
        self.lose();
        *self.lock_owned() = shards;
        count(RebalanceKind::Assigned);
        self.claims.assigned(readers);
        true
    }

    /// Where each partition begins and ends: behind what is committed, and not before what is still there.
    fn starts(&self, consumer: &Client, partitions: &[(String, i32)]) -> Result<BTreeMap<(Topic, u16), Start>, LogError> {
        let mut places = Vec::with_capacity(partitions.len());
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (name, number) in partitions {
            let (Some(topic), Ok(id)) = (self.topic_of(name), u16::try_from(*number)) else { continue };
            places.push((topic, id));
            list.add_partition(name, *number);
        }
        if places.is_empty() {
            return Ok(BTreeMap::new());
        }
        let committed = consumer.committed_offsets(list, COMMITTED_WAIT).map_err(|error| broker_error("committed positions", &error))?;
        let committed = self.offsets(&committed)?;
        let first = self.bounds(consumer, &places, Offset::Beginning)?;
        let ends = self.bounds(consumer, &places, Offset::End)?;
        let mut starts = BTreeMap::new();
        for place in places {
            let first = first.get(&place).copied().unwrap_or_default();
            let finished = committed.get(&place).copied().unwrap_or(first);
            if finished < first {
                // Retention took records that were not finished.
                let (topic, shard) = (place.0.name(), place.1);
                metrics::LOST_RECORDS.at([]).increment(first - finished);
                tracing::error!(topic, shard, records = first - finished, "records were deleted by retention before they were finished");
            }
            let end = ends.get(&place).copied().unwrap_or_default();
            starts.insert(place, Start { finished: finished.max(first), end });
        }
        Ok(starts)
    }

    /// The first or last places of partitions.
    fn bounds(&self, consumer: &Client, places: &[(Topic, u16)], which: Offset) -> Result<BTreeMap<(Topic, u16), u64>, LogError> {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (topic, id) in places {
            list.add_partition_offset(self.topic_name(*topic), i32::from(*id), which)
                .map_err(|error| broker_error("an offset cannot be named", &error))?;
        }
        let bounds = consumer.offsets_for_times(list, ENDS_WAIT).map_err(|error| broker_error("ends of partitions", &error))?;
        self.offsets(&bounds)
    }

    fn offsets(&self, list: &TopicPartitionList) -> Result<BTreeMap<(Topic, u16), u64>, LogError> {
        let mut offsets = BTreeMap::new();
        for element in list.elements() {
            element.error().map_err(|error| broker_error("a partition's offset", &error))?;
            let (Some(topic), Ok(id)) = (self.topic_of(element.topic()), u16::try_from(element.partition())) else { continue };
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert((topic, id), u64::try_from(offset).unwrap_or_default());
            }
        }
        Ok(offsets)
    }

    /// Begins to give all shards back. What is to be waited for.
    pub fn revoke(&self) -> Vec<Arc<Shard>> {
        let shards: Vec<Arc<Shard>> = self.lock_owned().values().cloned().collect();
        for shard in &shards {
            shard.revoke();
        }
        count(RebalanceKind::Revoked);
        self.claims.revoked(shards.iter().map(|shard| shard.id).collect());
        shards
    }

    /// The shards are gone without a word.
    pub fn lose(&self) {
        let shards = self.let_go();
        if shards.is_empty() {
            return;
        }
        count(RebalanceKind::Lost);
        tracing::warn!(shards = shards.len(), "kafka gave our shards to others, or the group lost us");
        self.claims.lost(shards);
    }

    /// Nothing is ours any more.
    pub fn let_go(&self) -> Vec<u16> {
        let shards = std::mem::take(&mut *self.lock_owned());
        for shard in shards.values() {
            shard.release();
        }
        shards.into_keys().collect()
    }

    /// Looks where the partitions end now, for the lag. Blocks.
    pub fn look_at_ends(&self) {
        let shards: Vec<Arc<Shard>> = self.lock_owned().values().cloned().collect();
        let Some(consumer) = self.consumer() else { return };
        let places: Vec<(Topic, u16)> = shards.iter().flat_map(|shard| Topic::ALL.iter().map(|topic| (*topic, shard.id))).collect();
        if places.is_empty() {
            return;
        }
        match self.bounds(&consumer, &places, Offset::End) {
            Ok(ends) => {
                let now = self.clock.now();
                for shard in &shards {
                    for &topic in Topic::ALL {
                        if let Some(end) = ends.get(&(topic, shard.id)) {
                            shard.looked(topic, *end, now);
                        }
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "kafka did not tell where partitions end"),
        }
    }

    fn lock_owned(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Shard>>> {
        self.owned.lock().expect("no holder of the shards panics")
    }
}

/// Where a lane begins, as positions.
struct Start {
    finished: u64,
    end: u64,
}

fn count(kind: RebalanceKind) {
    metrics::LOG_REBALANCES.at([ConsumerGroup::Router.index(), kind.index()]).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_assignment_counts() {
        let at = |number: i32| vec![("t.inbound".to_owned(), number)];
        let rest = |events: &Rebalances| {
            let mut seen = Vec::new();
            while let Some(event) = events.next() {
                seen.push(match event {
                    Event::Assigned(partitions) => format!("assigned {}", partitions[0].1),
                    Event::Revoked => "revoked".to_owned(),
                });
            }
            seen
        };
        let events = Rebalances::default();
        events.assigned(at(1));
        events.assigned(at(2));
        assert_eq!(rest(&events), ["assigned 2"], "the group changed before the first was acted on");
        events.assigned(at(1));
        assert!(matches!(events.next(), Some(Event::Assigned(_))));
        events.put_back(at(1));
        events.lock().push_back(Event::Revoked);
        assert_eq!(rest(&events), ["assigned 1", "revoked"], "it is tried again, before what came after it");
        events.assigned(at(2));
        events.put_back(at(1));
        assert_eq!(rest(&events), ["assigned 2"], "the group changed while the first was acted on");
    }
}
