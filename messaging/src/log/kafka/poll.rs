//! The poll loop: the only thread that polls the consumer, assigns, pauses and resumes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::group::{Client, Event, Group, LAST_FINISH, REVOKE_WAIT};
use super::shard::{Arrival, Shard};
use crate::clock::Timestamp;
use crate::log::Topic;
use crate::metrics::SupervisedTask;
use crate::metrics::{self, LogErrorType, LogOperation};
use crate::supervise::vital_here;

/// The longest wait for a record: how late the loop notices that the log closes.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// The same while a partition is paused or a revocation waits: how late these are noticed.
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// Longest wait for a seek.
const SEEK_WAIT: Duration = Duration::from_secs(1);
/// How often the loop looks for partitions that stand still.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Records that are handed on before the loop looks at anything else.
const BURST: usize = 512;
/// Rounds of `BUSY_WAIT` that the end of the subscription is given.
const GOODBYE_ROUNDS: usize = 40;
/// Rounds of `IDLE_WAIT` in which borrowers of the consumer let go of it at the end.
const LET_GO_ROUNDS: usize = 100;
/// Between a consumer that librdkafka gave up and the next, and between tries to make it.
const ANEW_AFTER: Duration = Duration::from_secs(1);
/// An instance id that is taken from us twice within this time is another process's.
const TAKEN_AGAIN_WITHIN: Duration = Duration::from_mins(5);

/// A revocation that waits for the router.
struct Draining {
    shards: Vec<Arc<Shard>>,
    deadline: Duration,
    /// Since when all readers are dropped.
    dropped_at: Option<Duration>,
}

struct Poller {
    group: Arc<Group>,
    consumer: Arc<Client>,
    /// By number: what the loop hands records to without a lock.
    shards: Vec<Option<Arc<Shard>>>,
    paused: Vec<(Arc<Shard>, Topic)>,
    draining: Option<Draining>,
    /// When partitions that stand still were looked for.
    asked_at: Timestamp,
    /// What librdkafka gave this consumer up for. It never works again.
    fatal: Option<RDKafkaErrorCode>,
}

/// Polls until told to stop, then leaves the group. Subscribes when the router wants shards and `ready` says that the topics are fit. A consumer
/// that librdkafka gave up is made anew: see [`Membership`].
pub(super) fn start(
    group: Arc<Group>,
    consumer: Arc<Client>,
    stopped: impl Fn() -> bool + Send + 'static,
    ready: impl Fn() -> bool + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let consume = move || {
        let mut membership = Membership::default();
        let mut next = Some(consumer);
        while let Some(consumer) = next {
            let Some(code) = Poller::new(group.clone(), consumer).run(&stopped, &ready) else { return };
            let keeps_instance = membership.keeps_instance(code, group.clock.monotonic());
            next = make_anew(&group, keeps_instance, &stopped);
        }
    };
    std::thread::Builder::new().name("kafka-consume".into()).spawn(move || vital_here(SupervisedTask::Kafka, consume))
}

/// Whether a member that was shut out comes back under its instance id.
///
/// The broker shuts a member out when another one joins with its instance id, and also when a commit of our own comes late: a member
/// that joined anew after its session ended has a new member id, and a commit that was queued before bears the old one. So the first time
/// we take our place back. If another process has it, that one is shut out now and does the same; who is shut out for the second time
/// goes on without an instance id, and both work.
#[derive(Default)]
struct Membership {
    taken_at: Option<Duration>,
    is_without: bool,
}

impl Membership {
    fn keeps_instance(&mut self, code: RDKafkaErrorCode, now: Duration) -> bool {
        if self.is_without || code != RDKafkaErrorCode::FencedInstanceId {
            tracing::warn!(%code, "librdkafka gave the kafka consumer up; the group is joined anew");
            return !self.is_without;
        }
        let again = self.taken_at.is_some_and(|at| now < at + TAKEN_AGAIN_WITHIN);
        self.taken_at = Some(now);
        self.is_without = again;
        if again {
            tracing::error!(
                "another process has our log.kafka.instance_id; this one goes on without it until it is started again: give each its own"
            );
        } else {
            tracing::warn!(%code, "kafka shut this member out; the group is joined anew");
        }
        !again
    }
}

/// Tries until a consumer is made, or the log closes.
fn make_anew(group: &Group, keeps_instance: bool, stopped: &impl Fn() -> bool) -> Option<Arc<Client>> {
    loop {
        let until = group.clock.monotonic() + ANEW_AFTER;
        while group.clock.monotonic() < until {
            if stopped() {
                return None;
            }
            std::thread::sleep(IDLE_WAIT);
        }
        match group.make_consumer(keeps_instance) {
            Ok(consumer) => return Some(consumer),
            Err(error) => tracing::warn!(%error, "tried again"),
        }
    }
}

impl Poller {
    fn new(group: Arc<Group>, consumer: Arc<Client>) -> Self {
        let asked_at = group.clock.now();
        Self { group, consumer, shards: Vec::new(), paused: Vec::new(), draining: None, asked_at, fatal: None }
    }

    /// Works until the log closes, or until librdkafka gives the consumer up: then for what.
    fn run(mut self, stopped: &impl Fn() -> bool, ready: &impl Fn() -> bool) -> Option<RDKafkaErrorCode> {
        let mut subscribed = false;
        while !stopped() {
            if !subscribed && self.group.wanted.load(Ordering::Acquire) && ready() {
                match self.group.subscribe(&self.consumer) {
                    Ok(()) => subscribed = true,
                    Err(error) => tracing::warn!(%error, "the group was not joined; tried again"),
                }
            }
            self.round();
            if let Some(code) = self.fatal {
                self.lose();
                self.leave();
                return Some(code);
            }
        }
        self.leave();
        None
    }

    fn round(&mut self) {
        let busy = self.draining.is_some() || !self.paused.is_empty() || self.consumer.context().is_waiting();
        let consumer = self.consumer.clone();
        let mut wait = if busy { BUSY_WAIT } else { IDLE_WAIT };
        for _ in 0..BURST {
            match consumer.poll(wait) {
                Some(Ok(message)) => self.hand_on(&message),
                Some(Err(error)) => self.report(&error),
                None => break,
            }
            wait = Duration::ZERO;
        }
        self.drain();
        self.act();
        self.restart();
        self.resume();
        self.ask_anew();
    }

    /// Seeks where nothing comes though there is more. A fetch that librdkafka left standing, as after a leader that came and went, begins again.
    fn ask_anew(&mut self) {
        let now = self.group.clock.now();
        if self.draining.is_some() || now.since(self.asked_at) < ASK_EVERY {
            return;
        }
        self.asked_at = now;
        for shard in self.shards.iter().flatten().filter(|shard| !shard.is_restarting()) {
            for &topic in Topic::ALL {
                if self.is_paused(shard, topic) {
                    shard.is_not_asked(topic);
                    continue;
                }
                let Some(fetched) = shard.stands_still(topic, now) else { continue };
                let error = self.seek(shard, topic, fetched).err().map(tracing::field::display);
                let (shard, topic) = (shard.id, topic.name());
                tracing::warn!(shard, topic, fetched, error, "kafka has more of a partition and none of it comes; it was asked for anew");
            }
        }
    }

    /// Seeks where the router wants to go back to what is finished.
    fn restart(&mut self) {
        for shard in self.shards.iter().flatten().filter(|shard| shard.is_restarting()) {
            let places = shard.unfinished();
            let mut sought = true;
            for topic in Topic::ALL {
                if let Err(error) = self.seek(shard, *topic, places[topic.index()]) {
                    tracing::warn!(%error, shard = shard.id, "kafka did not go back; tried again");
                    sought = false;
                }
            }
            if sought {
                shard.restarted();
            }
        }
    }

    /// Goes on behind a position.
    fn seek(&self, shard: &Shard, topic: Topic, position: u64) -> Result<(), KafkaError> {
        let offset = Offset::Offset(i64::try_from(position).unwrap_or(i64::MAX));
        self.consumer.seek(self.group.topic_name(topic), i32::from(shard.id), offset, SEEK_WAIT)
    }

    fn hand_on(&mut self, message: &BorrowedMessage<'_>) {
        let Some(topic) = self.group.topic_of(message.topic()) else { return };
        let shard = usize::try_from(message.partition()).ok().and_then(|place| self.shards.get(place)?.as_ref());
        let (Some(shard), Ok(offset)) = (shard, u64::try_from(message.offset())) else { return };
        let at = message.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok()).unwrap_or_default();
        let (arrival, over) = shard.arrive(topic, offset + 1, Timestamp::from_millis(at), message.payload().unwrap_or_default());
        if let Arrival::Gap(records) = arrival {
            metrics::LOST_RECORDS.at([]).increment(records);
            tracing::error!(
                topic = topic.name(),
                shard = shard.id,
                records,
                "records are missing from kafka: deleted by retention, or compacted"
            );
        }
        if over && arrival != Arrival::Again {
            self.pause(shard.clone(), topic);
        }
    }

    fn report(&mut self, error: &KafkaError) {
        metrics::LOG_ERRORS.at([LogOperation::Read.index(), LogErrorType::Io.index()]).increment(1);
        if let KafkaError::MessageConsumptionFatal(code) = error {
            self.fatal = Some(*code);
            return;
        }
        // While brokers are away this comes with every try to reach them; that they are, the health says once.
        let away = [RDKafkaErrorCode::AllBrokersDown, RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::Resolve];
        if error.rdkafka_error_code().is_some_and(|code| away.contains(&code)) {
            tracing::debug!(%error, "kafka consumer");
        } else {
            tracing::warn!(%error, "kafka consumer");
        }
    }

    /// Acts on what the group decided.
    fn act(&mut self) {
        if self.draining.is_some() {
            return;
        }
        let Some(event) = self.consumer.context().next() else { return };
        match event {
            Event::Assigned(partitions) => {
                self.resume_all();
                if self.group.assign(&self.consumer, &partitions) {
                    self.shards = self.by_number(&partitions);
                } else {
                    self.consumer.context().put_back(partitions);
                }
            }
            Event::Revoked if self.consumer.assignment_lost() => self.lose(),
            Event::Revoked => {
                let deadline = self.group.clock.monotonic() + REVOKE_WAIT;
                self.draining = Some(Draining { shards: self.group.revoke(), deadline, dropped_at: None });
                self.drain();
            }
        }
    }

    fn by_number(&self, partitions: &[(String, i32)]) -> Vec<Option<Arc<Shard>>> {
        let numbers = partitions.iter().filter_map(|(_, number)| u16::try_from(*number).ok());
        let count = numbers.max().map_or(0, |highest| usize::from(highest) + 1);
        (0..count).map(|number| self.group.owned(u16::try_from(number).ok()?)).collect()
    }

    /// Gives partitions back once the router is done with them.
    fn drain(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        if self.consumer.assignment_lost() {
            self.draining = None;
            self.lose();
            return;
        }
        let now = self.group.clock.monotonic();
        // A shard that the router never saw has no reader any more.
        if draining.dropped_at.is_none() && draining.shards.iter().all(|shard| shard.is_let_go()) {
            draining.dropped_at = Some(now);
        }
        let settled = draining.shards.iter().all(|shard| shard.is_settled());
        let done = draining.dropped_at.is_some_and(|at| settled || now >= at + LAST_FINISH);
        if !done && now < draining.deadline {
            return;
        }
        if !done {
            tracing::warn!("the router did not drain revoked shards in time; what is open there comes again elsewhere");
        }
        self.draining = None;
        self.group.let_go();
        self.unassign();
    }

    fn lose(&mut self) {
        self.draining = None;
        self.group.lose();
        self.unassign();
    }

    fn unassign(&mut self) {
        self.shards = Vec::new();
        self.resume_all();
        if let Err(error) = self.consumer.unassign() {
            tracing::warn!(%error, "kafka partitions were not given back");
        }
    }

    /// A pause would outlive the assignment, and the partition would come back deaf.
    fn resume_all(&mut self) {
        for (shard, topic) in std::mem::take(&mut self.paused) {
            if let Err(error) = self.consumer.resume(&self.partition(&shard, topic)) {
                tracing::warn!(%error, "a partition was not resumed before its assignment changed");
            }
        }
    }

    fn is_paused(&self, shard: &Shard, topic: Topic) -> bool {
        self.paused.iter().any(|(paused, of)| paused.id == shard.id && *of == topic)
    }

    fn pause(&mut self, shard: Arc<Shard>, topic: Topic) {
        if self.is_paused(&shard, topic) {
            return;
        }
        match self.consumer.pause(&self.partition(&shard, topic)) {
            Ok(()) => self.paused.push((shard, topic)),
            Err(error) => tracing::warn!(%error, "a partition was not paused"),
        }
    }

    /// Fetching begins again behind the last record that was handed on: what was fetched ahead is fetched anew.
    fn resume(&mut self) {
        let mut at = 0;
        while let Some((shard, topic)) = self.paused.get(at) {
            if !shard.has_room(*topic) {
                at += 1;
                continue;
            }
            let partition = self.partition(shard, *topic);
            match self.consumer.resume(&partition) {
                Ok(()) => drop(self.paused.swap_remove(at)),
                Err(error) => {
                    tracing::warn!(%error, "a partition was not resumed; tried again");
                    at += 1;
                }
            }
        }
    }

    fn partition(&self, shard: &Shard, topic: Topic) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(self.group.topic_name(topic), i32::from(shard.id));
        list
    }

    /// Leaves the group. A member with an instance id whose log was not closed stays a member until its session ends or it comes back.
    fn leave(self) {
        self.group.let_go();
        self.consumer.context().closing.store(true, Ordering::Release);
        let leaving = self.group.leaving.load(Ordering::Acquire);
        if leaving {
            // The end of a consumer says nothing to the group for a member with an instance id; the end of its subscription does. It comes
            // first: a rebalance under way would else end in joining anew.
            self.consumer.unsubscribe();
        }
        // A rebalance that nobody acted on yet would hold up the end for ever.
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(%error, "kafka partitions were not given back before leaving the group");
        }
        if leaving {
            // Until the request is on its way; the end of the consumer waits for its answer.
            for _ in 0..GOODBYE_ROUNDS {
                let _ = self.consumer.poll(BUSY_WAIT);
            }
        }
        let mut consumer = self.consumer;
        for _ in 0..LET_GO_ROUNDS {
            // A commit or a look may have borrowed it. Dropping it waits for the group, so that is done here and not where they run.
            match Arc::try_unwrap(consumer) {
                Ok(only) => return drop(only),
                Err(shared) => consumer = shared,
            }
            std::thread::sleep(IDLE_WAIT);
        }
        tracing::warn!("the kafka consumer is still in use; it leaves the group when it is let go of");
    }
}
