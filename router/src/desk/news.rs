//! What subscribers are told: events, their places in the feed, and a delivery for each endpoint that wants one.

use std::sync::Arc;

use messaging::clock::Timestamp;
use messaging::directory::{Endpoint, EndpointState};
use messaging::event::{Event, EventType};
use messaging::ids::{AccountId, ConversationId, EndpointId, EventId, MessageId};
use messaging::outcome::{Reason, Status, Step};
use messaging::record::Record;
use messaging::state::{Direction, EventData, EventRow, FeedPosition, Pointer};
use messaging::store::Key;
use messaging::tenant::Tenant;

use super::{Desk, OpenMessage, Unfit};
use crate::plan::{Delivery, Task, Work};

impl Desk<'_> {
    /// The next place in the feed of this shard.
    pub fn next_feed(&mut self) -> FeedPosition {
        *self.feed += 1;
        FeedPosition { shard: self.world.shard, order: *self.feed }
    }

    /// Stores an event and plans its deliveries. `home` says where its data is kept; `None` keeps it sealed in the event's row.
    pub fn emit(&mut self, news: News<'_>) -> Result<(), Unfit> {
        let feed = news.feed.unwrap_or_else(|| self.next_feed());
        let event = Event {
            id: news.id,
            kind: news.kind,
            tenant: news.tenant.id(),
            account: news.account,
            conversation: news.personal.then_some(news.conversation),
            message: news.message,
            at: news.at,
        };
        let tenant = news.tenant;
        let data = match news.home {
            Home::Message => EventData::Message,
            Home::Event if !news.personal => EventData::Plain(news.data.to_owned()),
            Home::Event => {
                let (_, conversation) = self.states.get(&news.conversation).ok_or(Unfit::Row)?;
                EventData::seal(tenant.id(), event.id, news.data, &conversation.contact_key())
            }
        };
        if matches!(news.home, Home::Event) {
            let pointer = Pointer { message: None, event: Some(feed) };
            self.put(Key::Pointer(tenant.id(), event.id.0), pointer.encode());
        }
        let numbered_in = (!news.personal).then_some(news.conversation);
        let sequences = self.fan_out(tenant, &event, feed, news)?;
        let row = EventRow { event, data, sequences, numbered_in };
        self.put_blind(Key::Event(tenant.id(), feed), row.encode());
        Ok(())
    }

    fn fan_out(&mut self, tenant: Tenant, event: &Event, feed: FeedPosition, news: News<'_>) -> Result<Vec<(EndpointId, u64)>, Unfit> {
        let mut sequences = Vec::new();
        let endpoints = self.world.directory.endpoints_of(tenant);
        if !endpoints.iter().any(|endpoint| takes(endpoint, event.kind, news.account, news.only)) {
            return Ok(sequences);
        }
        let (_, conversation) = self.states.get_mut(&news.conversation).ok_or(Unfit::Row)?;
        let body = event.render(news.data);
        for endpoint in endpoints {
            if !takes(endpoint, event.kind, news.account, news.only) {
                continue;
            }
            let sequence = conversation.next_sequence(endpoint.row.id);
            // What it was to get and does not costs its number all the same: the next delivery says how many are missing.
            if conversation.restricted || !is_served(endpoint) {
                conversation.sequence(endpoint.row.id).gap += 1;
                continue;
            }
            sequences.push((endpoint.row.id, sequence));
            let gap = conversation.sequence(endpoint.row.id).gap;
            let delivery = Delivery {
                id: self.world.ids.delivery(event.id, endpoint.row.id),
                event: event.clone(),
                feed,
                body: body.clone(),
                endpoint: endpoint.row.id,
                sequence,
                gap,
            };
            self.effects.tasks.push(Task {
                tenant,
                conversation: news.conversation,
                accepted_at: news.accepted_at,
                parked_at: Timestamp::ZERO,
                attempts: 0,
                repeats: 0,
                work: Work::Deliver(Arc::new(delivery)),
            });
        }
        self.touch(news.conversation);
        Ok(sequences)
    }

    /// Moves a message along the lattice, tells subscribers, and saves it. Says whether it moved.
    pub fn advance(&mut self, tenant: Tenant, message: &mut OpenMessage, step: Step, extra: &str) -> Result<bool, Unfit> {
        let status = step.status;
        let reason = step.reason;
        let detail = step.detail.clone();
        let at = step.at;
        if !message.meta.advance(step) {
            return Ok(false);
        }
        self.save(tenant, message)?;
        let Some(kind) = event_of(status) else { return Ok(true) };
        if matches!(message.meta.kind.as_str(), "read" | "typing") {
            return Ok(true); // receipts are no messages: nobody waits for news of them
        }
        let data = self.status_data(tenant, message, status, reason, detail.as_deref(), extra)?;
        let account = message.meta.account;
        let id = self.world.ids.event(tenant.id(), account, "message", &message.id.0, qualifier(status));
        let accepted_at = message.meta.accepted_at;
        self.emit(News {
            tenant,
            account,
            conversation: message.conversation,
            personal: true,
            kind,
            id,
            message: Some(message.id),
            at,
            accepted_at,
            data: &data,
            home: Home::Event,
            feed: None,
            only: None,
        })?;
        Ok(true)
    }

    fn status_data(
        &self,
        tenant: Tenant,
        message: &OpenMessage,
        status: Status,
        reason: Option<Reason>,
        detail: Option<&str>,
        extra: &str,
    ) -> Result<String, Unfit> {
        let command = if message.meta.direction == Direction::Out { self.command_of(tenant, message)? } else { None };
        let (_, conversation) = self.states.get(&message.conversation).ok_or(Unfit::Row)?;
        let mut head = serde_json::json!({
            "id": message.id, "status": status.name(), "type": message.meta.kind, "attempt": message.meta.attempt,
        });
        let members = head.as_object_mut().expect("an object");
        let mut put = |name: &str, value: serde_json::Value| {
            members.insert(name.to_owned(), value);
        };
        if let Some(platform_id) = &message.meta.platform_id {
            put("platform_id", platform_id.as_str().into());
        }
        if message.meta.possible_duplicate {
            put("possible_duplicate", true.into());
        }
        if let Some(reason) = reason {
            put("reason", reason.name().into());
        }
        if let Some(detail) = detail {
            put("detail", detail.into());
        }
        if let Some(command) = command {
            if let Some(data) = command.callback_data {
                put("callback_data", data.into());
            }
            if let Some(metadata) = command.metadata {
                put("metadata", metadata);
            }
        }
        Ok(crate::decide::data(conversation, &head.to_string(), extra))
    }
}

/// An event to be emitted.
pub struct News<'n> {
    /// Whose.
    pub tenant: Tenant,
    /// On which account.
    pub account: AccountId,
    /// The unit of order. Must be loaded.
    pub conversation: ConversationId,
    /// Whether it concerns a person: its data is sealed, the conversation is named.
    pub personal: bool,
    /// What.
    pub kind: EventType,
    /// Computed.
    pub id: EventId,
    /// About which message.
    pub message: Option<MessageId>,
    /// When.
    pub at: Timestamp,
    /// When what caused it was accepted.
    pub accepted_at: Timestamp,
    /// JSON.
    pub data: &'n str,
    /// Where the data is kept.
    pub home: Home,
    /// Its place in the feed, when it was given out already.
    pub feed: Option<FeedPosition>,
    /// Not to this endpoint (it is the one that fails).
    pub only: Option<EndpointId>,
}

impl<'n> News<'n> {
    /// Of a record: about its person, of its own time, kept in the event's row.
    pub fn of(record: &Record, kind: EventType, id: EventId, data: &'n str) -> Self {
        Self {
            tenant: record.tenant,
            account: record.account,
            conversation: record.conversation,
            personal: true,
            kind,
            id,
            message: None,
            at: record.accepted_at,
            accepted_at: record.accepted_at,
            data,
            home: Home::Event,
            feed: None,
            only: None,
        }
    }
}

/// Where an event's data is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In the message's row.
    Message,
    /// In the event's row.
    Event,
}

fn takes(endpoint: &Endpoint, kind: EventType, account: AccountId, except: Option<EndpointId>) -> bool {
    except != Some(endpoint.row.id) && endpoint.wants(kind, account)
}

/// Whether deliveries are made to an endpoint, now or when it is resumed.
fn is_served(endpoint: &Endpoint) -> bool {
    match endpoint.row.state {
        EndpointState::Active | EndpointState::Paused => true,
        EndpointState::Disabled => false,
    }
}

fn event_of(status: Status) -> Option<EventType> {
    match status {
        Status::Accepted | Status::Queued | Status::Sending => None,
        Status::Unknown => Some(EventType::MessageUnknown),
        Status::Sent => Some(EventType::MessageSent),
        Status::Delivered => Some(EventType::MessageDelivered),
        Status::Read => Some(EventType::MessageRead),
        Status::Failed | Status::Cancelled | Status::Expired => Some(EventType::MessageFailed),
    }
}

fn qualifier(status: Status) -> &'static str {
    status.name()
}
