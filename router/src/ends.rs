//! How tasks end, and how they begin again: the bridge between lanes' answers, `later`'s rows and decisions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::accounts::{Accounts, StateChange};
use messaging::clock::Timestamp;
use messaging::directory::{DirectoryRow, EndpointState};
use messaging::event::EventType;
use messaging::ids::{ConversationId, EndpointId, MessageId};
use messaging::keeper::{Change, ChangeError, DirectoryKeeper};
use messaging::metrics;
use messaging::outcome::{Status, Step, Verdict};
use messaging::record::{Record, SendCommand};
use messaging::seal::{DataKey, random_unit};
use messaging::state::{Conversation, EventData, EventRow, MessageRow, Pointer};
use messaging::store::{Key, Queue};
use messaging::tenant::Tenant;

use crate::decide::outbound::After;
use crate::decide::{outbound, window};
use crate::desk::{Desk, Home, News, States};
use crate::faults::FaultPoint;
use crate::flows::{FlowKey, Pending};
use crate::plan::{Delivery, Destination, LaterRow, LaterWork, Task, TaskEnd, Work};
use crate::shard::{Shard, panicked};

impl Shard<'_> {
    /// A task ended at its lane.
    pub(crate) fn end(&mut self, desk: &mut Desk<'_>, ticket: u64, end: TaskEnd, now: Timestamp) {
        let Some(key) = self.flows.redeem(ticket) else { return };
        self.parts.options.faults.at(FaultPoint::End, [key.1]);
        match end {
            TaskEnd::Delivered { recovered } => self.delivered(desk, key, recovered, now),
            TaskEnd::DeliveryFailed { after, probe, disable } => self.delivery_failed(desk, key, Failure { after, probe, disable }, now),
            TaskEnd::EndpointGone => self.endpoint_gone(desk, key, now),
            TaskEnd::Judged { verdict, credential } => self.judged(desk, key, verdict, credential, now),
            TaskEnd::Deferred { until, whole } => {
                if whole {
                    self.later.hold(key.0, until);
                }
                self.park_flow(desk, key, until, now);
            }
            TaskEnd::Withdrawn => self.withdrawn(desk, key, now),
            TaskEnd::Panicked => match key.0 {
                Destination::Endpoint(_) => self.delivery_failed(desk, key, Failure { after: None, probe: None, disable: false }, now),
                Destination::Account(..) => self.judged(desk, key, panicked(), None, now),
            },
        }
    }

    /// The head of a flow is done; the next one goes to the lane.
    fn done(&mut self, desk: &mut Desk<'_>, key: FlowKey, now: Timestamp) -> Option<Pending> {
        let (mut head, more) = self.flows.pop(key);
        if let Some(pending) = &mut head {
            self.waits.leave(&pending.task);
            if let Some(order) = pending.order {
                let write = self.later.done(key.0.queue(), order, now);
                desk.write(write);
            }
            self.let_go(pending);
        }
        if more && !self.offer(key) {
            self.park_for_room(desk, key, now);
        }
        head
    }

    fn delivered(&mut self, desk: &mut Desk<'_>, key: FlowKey, recovered: Option<Timestamp>, now: Timestamp) {
        let Some(pending) = self.done(desk, key, now) else { return };
        metrics::WEBHOOK_DELIVERIES.at([metrics::DeliveryOutcome::Delivered.index()]).increment(1);
        let Work::Deliver(delivery) = &pending.task.work else { return };
        if let Some(account) = desk.world.directory.account_of(pending.task.tenant, delivery.event.account) {
            let took = now.since(pending.task.accepted_at).as_secs_f64();
            metrics::END_TO_END_DURATION_SECONDS.at([metrics::Direction::Inbound.index(), account.channel.index()]).record(took);
        }
        if let Some(since) = recovered {
            let url = desk.world.directory.endpoint(delivery.endpoint).map_or_else(String::new, |endpoint| endpoint.row.url.clone());
            let told = RecoveredEndpoint { id: delivery.endpoint.to_string(), url, state: "active", failing_since: since };
            let extra = format!(r#","endpoint":{}"#, serde_json::to_string(&told).expect("texts serialise"));
            let qualifier = format!("{} {} {}", delivery.endpoint, since.as_micros(), now.as_micros());
            endpoint_event(desk, &pending.task, delivery, EventType::EndpointRecovered, &qualifier, &extra);
        }
        if delivery.gap == 0 {
            return;
        }
        if let Some((_, state)) = desk.states.get_mut(&pending.task.conversation) {
            let sequence = state.sequence(delivery.endpoint);
            sequence.gap = sequence.gap.saturating_sub(delivery.gap);
            desk.touch(pending.task.conversation);
        }
    }

    /// The endpoint did not take it. While the endpoint as a whole fails, its own probes say when something is tried again; else the
    /// schedule of the delivery does. It is given up when its tries are used and the schedule's whole time has passed: probes use tries
    /// faster than the schedule does.
    fn delivery_failed(&mut self, desk: &mut Desk<'_>, key: FlowKey, failure: Failure, now: Timestamp) {
        let Some(pending) = self.flows.head(key) else { return };
        pending.task.attempts += 1;
        let attempts = pending.task.attempts as usize;
        let waited = if pending.task.parked_at == Timestamp::ZERO { Duration::ZERO } else { now.since(pending.task.parked_at) };
        let settings = self.parts.options.webhooks.clone();
        if failure.disable
            && let Destination::Endpoint(endpoint) = key.0
        {
            let reason = "failed without pause for longer than webhooks.disable_after";
            self.disable_endpoint(desk, key, endpoint, reason);
        }
        let whole: Duration = settings.schedule.iter().sum();
        if attempts >= settings.schedule.len() && waited >= whole.mul_f64((1.0 - settings.jitter).max(0.0)) {
            self.exhausted(desk, key, now);
            return;
        }
        if let Some(probe) = failure.probe {
            self.later.hold(key.0, probe);
            self.park_flow(desk, key, probe, now);
            return;
        }
        let delay = settings.schedule.get(attempts).or(settings.schedule.last()).copied().unwrap_or_default();
        let wait = jittered(delay, settings.jitter, random_unit()).max(failure.after.unwrap_or_default());
        self.park_flow(desk, key, now.plus(wait), now);
    }

    /// All tries of a delivery were used: it keeps its number, the next one says that it is missing, and the others are told.
    fn exhausted(&mut self, desk: &mut Desk<'_>, key: FlowKey, now: Timestamp) {
        let Some(pending) = self.done(desk, key, now) else { return };
        metrics::WEBHOOK_DELIVERIES.at([metrics::DeliveryOutcome::Exhausted.index()]).increment(1);
        let Work::Deliver(delivery) = &pending.task.work else { return };
        if let Some((_, state)) = desk.states.get_mut(&pending.task.conversation) {
            state.sequence(delivery.endpoint).gap += 1;
            desk.touch(pending.task.conversation);
        }
        let extra = format!(
            r#","delivery":{{"id":"{}","endpoint":"{}","event":"{}","event_type":"{}","sequence":{},"attempts":{}}}"#,
            delivery.id,
            delivery.endpoint,
            delivery.event.id,
            delivery.event.kind.name(),
            delivery.sequence,
            pending.task.attempts
        );
        let qualifier = delivery.id.to_string();
        endpoint_event(desk, &pending.task, delivery, EventType::DeliveryExhausted, &qualifier, &extra);
    }

    fn endpoint_gone(&mut self, desk: &mut Desk<'_>, key: FlowKey, now: Timestamp) {
        if let Destination::Endpoint(endpoint) = key.0 {
            self.disable_endpoint(desk, key, endpoint, "answered 410 Gone");
        }
        let Some(pending) = self.done(desk, key, now) else { return };
        metrics::WEBHOOK_DELIVERIES.at([metrics::DeliveryOutcome::Dropped.index()]).increment(1);
        // It was to get it: the next one that it gets says that this is missing.
        if let Work::Deliver(delivery) = &pending.task.work
            && let Some((_, state)) = desk.states.get_mut(&pending.task.conversation)
        {
            state.sequence(delivery.endpoint).gap += 1;
            desk.touch(pending.task.conversation);
        }
    }

    fn disable_endpoint(&mut self, desk: &mut Desk<'_>, key: FlowKey, endpoint: EndpointId, reason: &'static str) {
        let Some(row) = desk.world.directory.endpoint(endpoint).map(|endpoint| endpoint.row.clone()) else { return };
        if row.state == EndpointState::Disabled {
            return;
        }
        if self.parts.lanes.recoveries().is_first_to_disable(endpoint, row.revision)
            && let Some(pending) = self.flows.head(key)
            && let Work::Deliver(delivery) = &pending.task.work
        {
            let extra = format!(
                r#","endpoint":{{"id":"{endpoint}","url":{},"state":"disabled","reason":"{reason}"}}"#,
                crate::decide::quoted(&row.url)
            );
            // Its own id for each telling: a process that was killed before the directory changed tells it again, in another conversation.
            let qualifier = format!("{endpoint} {} {}", row.revision, desk.world.now.as_micros());
            endpoint_event(desk, &pending.task, delivery, EventType::EndpointDisabled, &qualifier, &extra);
        }
        tokio::spawn(stop_endpoint(self.parts.keeper.clone(), endpoint, reason));
    }

    fn judged(&mut self, desk: &mut Desk<'_>, key: FlowKey, verdict: Verdict, credential: Option<Timestamp>, now: Timestamp) {
        let Some(pending) = self.flows.head(key) else { return };
        let task = pending.task.clone();
        let after = match outbound::judged(desk, &task, verdict, credential) {
            Ok(after) => after,
            Err(unfit) => {
                tracing::error!(reason = unfit.name(), "a send's row does not open, its verdict is lost to the row");
                After::Settled
            }
        };
        match after {
            After::Settled => {
                self.done(desk, key, now);
            }
            After::Again { due, whole } => {
                if whole {
                    self.later.hold(key.0, due);
                }
                self.park_flow(desk, key, due, now);
            }
            After::Elsewhere(to) => {
                if let Some(pending) = self.flows.head(key)
                    && let Work::Send(sending) = &mut pending.task.work
                {
                    Arc::make_mut(sending).to = to;
                }
                if !self.offer(key) {
                    self.park_flow(desk, key, now, now);
                }
            }
        }
    }

    /// The lane did not write: the rules said no (the row is final), or the lease ran out after the intent (it may go again).
    fn withdrawn(&mut self, desk: &mut Desk<'_>, key: FlowKey, now: Timestamp) {
        let Some(pending) = self.flows.head(key) else { return };
        let (tenant, work) = (pending.task.tenant, pending.task.work.clone());
        if let Work::Send(sending) = work
            && let Ok(Some(mut message)) = desk.message(tenant, sending.command.message)
            && message.meta.status == Status::Sending
        {
            desk.delete(Key::Intent(desk.world.shard, tenant.id(), message.id));
            let attempt = message.meta.attempt;
            let detail = Some("not written: the lease had run out".to_owned());
            let step = Step { at: now, status: Status::Queued, reason: None, detail, attempt };
            if desk.advance(tenant, &mut message, step, "").is_ok() {
                self.park_flow(desk, key, now, now);
                return;
            }
        }
        self.done(desk, key, now);
    }

    /// The head must wait until `due`, and everything of its conversation behind it.
    fn park_flow(&mut self, desk: &mut Desk<'_>, key: FlowKey, due: Timestamp, now: Timestamp) {
        let mut due = due;
        for pending in self.flows.take(key) {
            self.park(desk, pending, due, now);
            due = Timestamp::ZERO;
        }
    }
}

/// How a delivery failed.
struct Failure {
    /// `Retry-After` of the endpoint.
    after: Option<Duration>,
    /// The next probe of an endpoint that fails as a whole.
    probe: Option<Timestamp>,
    /// The endpoint failed for too long.
    disable: bool,
}

/// What `endpoint.recovered` says of the endpoint.
#[derive(serde::Serialize)]
struct RecoveredEndpoint {
    id: String,
    url: String,
    state: &'static str,
    failing_since: Timestamp,
}

/// A wait with its share of chance: between `1 - jitter` and `1 + jitter` of it.
pub fn jittered(delay: Duration, jitter: f64, unit: f64) -> Duration {
    delay.mul_f64((1.0 + jitter * (2.0 * unit - 1.0)).max(0.0))
}

fn endpoint_event(desk: &mut Desk<'_>, task: &Task, delivery: &Delivery, kind: EventType, qualifier: &str, extra: &str) {
    let Some((_, state)) = desk.states.get(&task.conversation) else { return };
    let account = delivery.event.account;
    let data = format!(r#"{{"channel":"{}","account":"{account}"{extra}}}"#, state.channel.name());
    let id = desk.world.ids.event(task.tenant.id(), account, kind.name(), &delivery.endpoint.0, qualifier);
    let now = desk.world.now;
    let emitted = desk.emit(News {
        tenant: task.tenant,
        account,
        conversation: task.conversation,
        personal: false,
        kind,
        id,
        message: None,
        at: now,
        accepted_at: now,
        data: &data,
        home: Home::Event,
        feed: None,
        only: Some(delivery.endpoint),
    });
    if emitted.is_err() {
        tracing::error!(event = kind.name(), "event not told: its conversation does not open");
    }
}

/// The row of a task that waits.
pub fn later_row(task: &Task, due: Timestamp, now: Timestamp, epoch: u64) -> LaterRow {
    let (what, deadline) = match &task.work {
        Work::Deliver(delivery) => (LaterWork::Deliver { feed: delivery.feed, sequence: delivery.sequence }, Timestamp::MAX),
        Work::Send(sending) => {
            let deadline = sending.command.expires_at.unwrap_or(Timestamp::MAX);
            (LaterWork::Send(sending.command.message, task.accepted_at), deadline)
        }
    };
    let parked_at = if task.parked_at == Timestamp::ZERO { now } else { task.parked_at };
    LaterRow {
        tenant: task.tenant.id(),
        conversation: task.conversation,
        due,
        deadline,
        attempts: task.attempts,
        repeats: task.repeats,
        epoch,
        accepted_at: task.accepted_at,
        parked_at,
        what,
    }
}

/// A timer fired.
pub fn timer(desk: &mut Desk<'_>, row: &LaterRow) {
    let Some(tenant) = desk.world.directory.tenant_of_row(row.tenant) else { return };
    desk.begin(desk.world.now);
    let result = match &row.what {
        LaterWork::Window => window::timer(desk, tenant, row.conversation),
        LaterWork::Scheduled(id, _) => match outbound::unpark(desk, tenant, *id) {
            Ok(Some(task)) => {
                // Its timer row goes with this step; from here on the send's own row and `later` hold it.
                desk.effects.scheduled.push(task);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(unfit) => Err(unfit),
        },
        LaterWork::Deliver { .. } | LaterWork::Send(..) => Ok(()),
    };
    if let Err(unfit) = result {
        tracing::error!(reason = unfit.name(), conversation = %row.conversation, "timer without effect");
    }
}

/// The task of a row in `later`; none when there is nothing left to do.
pub fn rebuild(desk: &mut Desk<'_>, row: &LaterRow, destination: Queue) -> Option<Task> {
    let tenant = desk.world.directory.tenant_of_row(row.tenant)?;
    let mut task = match &row.what {
        LaterWork::Deliver { feed, sequence } => {
            let key = Key::Event(row.tenant, *feed);
            let event = EventRow::decode(desk.row(&key)?).ok()?;
            let data = data_on_desk(desk, tenant, &event)?;
            let Queue::Destination(endpoint) = destination else { return None };
            let endpoint = EndpointId(endpoint);
            let gap = match desk.states.get_mut(&row.conversation) {
                Some((_, state)) => state.sequence(endpoint).gap,
                None => 0,
            };
            let delivery = Delivery {
                id: desk.world.ids.delivery(event.event.id, endpoint),
                body: event.event.render(&data),
                event: event.event,
                feed: *feed,
                endpoint,
                sequence: *sequence,
                gap,
            };
            Task {
                tenant,
                conversation: row.conversation,
                accepted_at: row.accepted_at,
                parked_at: row.parked_at,
                attempts: row.attempts,
                repeats: row.repeats,
                work: Work::Deliver(Arc::new(delivery)),
            }
        }
        LaterWork::Send(id, _) => outbound::unpark(desk, tenant, *id).ok().flatten()?,
        LaterWork::Window | LaterWork::Scheduled(..) => return None,
    };
    task.parked_at = row.parked_at;
    Some(task)
}

fn data_on_desk(desk: &Desk<'_>, tenant: Tenant, row: &EventRow) -> Option<String> {
    match &row.data {
        EventData::Plain(data) => Some(data.clone()),
        EventData::Sealed(sealed) => {
            let (_, state) = desk.states.get(&row.event.conversation?)?;
            EventData::open(sealed, tenant.id(), row.event.id, &state.contact_key()).ok()
        }
        EventData::Message => {
            let message = desk.message(tenant, row.event.message?).ok()??;
            desk.content_of(tenant, &message).ok()?
        }
    }
}

/// The data of a stored event; none when its content was withdrawn or does not open.
pub fn data_of(states: &States, rows: &HashMap<Key, Option<Vec<u8>>, RandomState>, tenant: Tenant, row: &EventRow) -> Option<String> {
    match &row.data {
        EventData::Plain(data) => Some(data.clone()),
        EventData::Sealed(sealed) => {
            let (_, state) = states.get(&row.event.conversation?)?;
            EventData::open(sealed, tenant.id(), row.event.id, &state.contact_key()).ok()
        }
        EventData::Message => {
            let id = row.event.message?;
            let pointer = Pointer::decode(rows.get(&Key::Pointer(tenant.id(), id.0))?.as_deref()?).ok()?;
            let (conversation, at, id) = pointer.message?;
            let bytes = rows.get(&Key::Message(tenant.id(), conversation, at, id))?.as_deref()?;
            let (_, state) = states.get(&conversation)?;
            MessageRow::decode(bytes).ok()?.open_content(tenant.id(), id, &state.contact_key()).ok()?
        }
    }
}

/// The send command of a waiting message's row.
pub fn command_of_row(tenant: Tenant, id: MessageId, bytes: &[u8], key: &DataKey, state: &Conversation) -> Option<SendCommand> {
    let row = MessageRow::decode(bytes).ok()?;
    let meta = row.open_meta(tenant.id(), id, key).ok()?;
    if meta.direction != messaging::state::Direction::Out {
        return None;
    }
    serde_json::from_str(&row.open_content(tenant.id(), id, &state.contact_key()).ok()??).ok()
}

/// A conversation that begins here is one that is known under another handle.
pub fn make_alias(desk: &mut Desk<'_>, tenant: Tenant, id: ConversationId, to: ConversationId, record: &Record) {
    let contact = desk.world.ids.contact(id);
    let key = desk.fresh_key();
    let handle = messaging::content::Handle::account();
    let mut alias = Conversation::new(id, record.account, record.channel, contact, handle, key);
    alias.alias_of = Some(to);
    desk.states.insert(id, (tenant, alias));
    desk.touch(id);
}

/// Stops an account that the platform refused, and tells it once. What the store does not take now is tried again with the next send.
pub async fn stop_account(accounts: Accounts, change: StateChange) {
    if let Err(error) = accounts.change_state(&change).await {
        tracing::error!(account = %change.owner.account, %error, "directory not changed");
    }
}

async fn stop_endpoint(keeper: DirectoryKeeper, endpoint: EndpointId, reason: &'static str) {
    let changed = keeper
        .change(|directory| {
            let Some(found) = directory.endpoint(endpoint) else { return Err(()) };
            if found.row.state == EndpointState::Disabled {
                return Err(());
            }
            let mut row = found.row.clone();
            row.state = EndpointState::Disabled;
            row.state_reason = Some(reason.to_owned());
            row.revision += 1;
            Ok(vec![Change::put(DirectoryRow::Endpoint(row))])
        })
        .await;
    report(changed.map(|_| ()), &endpoint.to_string(), "endpoint disabled");
}

fn report(changed: Result<(), ChangeError<()>>, id: &str, what: &str) {
    match changed {
        Ok(()) => tracing::warn!(endpoint = id, "{what}"),
        Err(ChangeError::Refused(())) => {}
        Err(ChangeError::Store(error)) => tracing::error!(id, %error, "directory not changed"),
    }
}
