//! What a webhook is about: `order.created`, `action.woocommerce_low_stock`, or what a plugin adds.

use crate::event::EventType;

/// A kind of thing in the shop that has events of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Order,
    Customer,
    Product,
    Coupon,
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Created,
    Updated,
    Deleted,
    Restored,
}

/// A topic, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic<'a> {
    /// One that every shop has.
    Known(Resource, Change),
    /// A thing of a plugin: its resource.
    Other(&'a str),
    /// A hook of WordPress, or nothing that names a resource.
    Action,
}

impl Resource {
    /// As in topics; the member in the event's data as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Customer => "customer",
            Self::Product => "product",
            Self::Coupon => "coupon",
        }
    }
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Restored => "restored",
        }
    }
}

const RESOURCES: [Resource; 4] = [Resource::Order, Resource::Customer, Resource::Product, Resource::Coupon];
const CHANGES: [Change; 4] = [Change::Created, Change::Updated, Change::Deleted, Change::Restored];

pub(super) fn read(topic: &str) -> Topic<'_> {
    let Some((resource, change)) = topic.split_once('.') else { return Topic::Action };
    let known = RESOURCES.into_iter().find(|known| known.name() == resource);
    let change = CHANGES.into_iter().find(|known| known.name() == change);
    match (known, change) {
        (Some(resource), Some(change)) => Topic::Known(resource, change),
        _ if resource == "action" => Topic::Action,
        _ => Topic::Other(resource),
    }
}

/// The event that subscribers get.
pub(super) fn event(resource: Resource, change: Change) -> EventType {
    match (resource, change) {
        (Resource::Order, Change::Created) => EventType::OrderCreated,
        (Resource::Order, Change::Updated) => EventType::OrderUpdated,
        (Resource::Order, Change::Deleted) => EventType::OrderDeleted,
        (Resource::Order, Change::Restored) => EventType::OrderRestored,
        (Resource::Customer, Change::Created) => EventType::CustomerCreated,
        (Resource::Customer, Change::Updated) => EventType::CustomerUpdated,
        (Resource::Customer, Change::Deleted) => EventType::CustomerDeleted,
        (Resource::Customer, Change::Restored) => EventType::CustomerRestored,
        (Resource::Product, Change::Created) => EventType::ProductCreated,
        (Resource::Product, Change::Updated) => EventType::ProductUpdated,
        (Resource::Product, Change::Deleted) => EventType::ProductDeleted,
        (Resource::Product, Change::Restored) => EventType::ProductRestored,
        (Resource::Coupon, Change::Created) => EventType::CouponCreated,
        (Resource::Coupon, Change::Updated) => EventType::CouponUpdated,
        (Resource::Coupon, Change::Deleted) => EventType::CouponDeleted,
        (Resource::Coupon, Change::Restored) => EventType::CouponRestored,
    }
}
