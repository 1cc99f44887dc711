//! From customers' messages to endpoints: lost, invented, duplicated, reordered, downgraded, crossed.

use std::collections::{HashMap, HashSet};

use messaging::event::EventType;
use messaging::outcome::Status;

use super::{Answer, Delivery, History, Kind, Operation, Verdict, inversions};
use crate::mark::{Mark, Way};

type ByMark<'a> = HashMap<Mark, &'a Operation>;

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    let mut offered: ByMark<'_> = HashMap::with_capacity(history.offered.len());
    for operation in &history.offered {
        offered.insert(operation.mark, operation);
    }
    let mut by_endpoint: HashMap<&str, Vec<&Delivery>> = HashMap::new();
    for delivery in &history.deliveries {
        by_endpoint.entry(&delivery.endpoint).or_default().push(delivery);
    }
    let mut names: Vec<&str> = by_endpoint.keys().copied().chain(history.endpoints.iter().map(|name| &**name)).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let all = by_endpoint.get(name).map_or(&[][..], |all| all);
        let firsts = first_of_each_event(all, verdict);
        verdict.delivered += firsts.len() as u64;
        check_known(&firsts, &offered, verdict);
        check_one_event_each(&firsts, verdict);
        check_conversations(&firsts, verdict);
        check_order(&firsts, &offered, verdict);
        check_sequence(&firsts, history.complete, verdict);
        check_statuses(&firsts, verdict);
        if history.endpoints.iter().any(|endpoint| **endpoint == *name) {
            check_lost(name, all, history, verdict);
        }
    }
}

/// The first arrival of each event, in order; repeats must be marked by a higher attempt or as a replay.
fn first_of_each_event<'a>(all: &[&'a Delivery], verdict: &mut Verdict) -> Vec<&'a Delivery> {
    let mut attempts: HashMap<&str, u32> = HashMap::new();
    let mut firsts = Vec::new();
    for &delivery in all {
        let (Some(event), Some(attempt)) = (delivery.event.as_deref(), delivery.attempt) else {
            verdict.add(Kind::Malformed, || format!("{}: a delivery without webhook-id or trunkline-attempt", delivery.endpoint));
            continue;
        };
        let Some(highest) = attempts.get_mut(event) else {
            attempts.insert(event, attempt);
            if !delivery.replay {
                firsts.push(delivery);
            }
            continue;
        };
        if attempt > *highest || delivery.replay {
            verdict.marked_duplicates += 1;
        } else {
            let highest = *highest;
            verdict.add(Kind::Duplicated, || format!("{}: {event} came again as attempt {attempt} after {highest}", delivery.endpoint));
        }
        *highest = attempt.max(*highest);
    }
    firsts
}

/// What a customer said: a message, or to a shop a new order. Other events may quote a mark.
fn is_message(delivery: &Delivery) -> bool {
    [EventType::MessageReceived, EventType::OrderCreated].iter().any(|kind| &*delivery.kind == kind.name())
}

fn inbound_mark(delivery: &Delivery) -> Option<Mark> {
    delivery.mark.filter(|mark| mark.way == Way::In && is_message(delivery))
}

fn check_known(firsts: &[&Delivery], offered: &ByMark<'_>, verdict: &mut Verdict) {
    for delivery in firsts.iter().filter(|delivery| is_message(delivery)) {
        match inbound_mark(delivery) {
            Some(mark) if offered.contains_key(&mark) => {}
            Some(mark) => verdict.add(Kind::Invented, || format!("{}: {mark} was never offered", delivery.endpoint)),
            None => verdict.add(Kind::Invented, || format!("{}: {:?} holds no mark", delivery.endpoint, delivery.event)),
        }
    }
}

fn check_one_event_each(firsts: &[&Delivery], verdict: &mut Verdict) {
    let mut events: HashMap<Mark, &str> = HashMap::new();
    for delivery in firsts {
        let (Some(mark), Some(event)) = (inbound_mark(delivery), delivery.event.as_deref()) else { continue };
        if let Some(other) = events.insert(mark, event) {
            verdict.add(Kind::Duplicated, || format!("{}: {mark} came as {other} and as {event}", delivery.endpoint));
        }
    }
}

/// One conversation of the test is one of the gateway's, and the other way round.
fn check_conversations(firsts: &[&Delivery], verdict: &mut Verdict) {
    let mut theirs: HashMap<(u32, u32), &str> = HashMap::new();
    let mut ours: HashMap<&str, (u32, u32)> = HashMap::new();
    for delivery in firsts {
        let (Some(mark), Some(conversation)) = (inbound_mark(delivery), delivery.conversation.as_deref()) else { continue };
        let own = (mark.run, mark.conversation);
        let known = theirs.entry(own).or_insert(conversation);
        if *known != conversation {
            let known = *known;
            verdict.add(Kind::Duplicated, || format!("{}: {mark} opened {conversation} beside {known}", delivery.endpoint));
        }
        let holder = ours.entry(conversation).or_insert(own);
        if *holder != own {
            let holder = holder.1;
            verdict.add(Kind::Crossed, || format!("{}: {mark} stands in {conversation} of conversation {holder}", delivery.endpoint));
        }
    }
}

fn check_order(firsts: &[&Delivery], offered: &ByMark<'_>, verdict: &mut Verdict) {
    let mut by_conversation: HashMap<(u32, u32), Vec<&Operation>> = HashMap::new();
    let mut seen = HashSet::new();
    for delivery in firsts {
        let Some(mark) = inbound_mark(delivery).filter(|mark| seen.insert(*mark)) else { continue };
        let Some(operation) = offered.get(&mark) else { continue };
        by_conversation.entry((mark.run, mark.conversation)).or_default().push(operation);
    }
    let endpoint = firsts.first().map_or("", |delivery| &delivery.endpoint);
    for arrivals in by_conversation.values() {
        for overtaken in inversions(arrivals) {
            verdict.add(Kind::Reordered, || format!("{endpoint}: {} came before an earlier message", overtaken.mark));
        }
    }
}

/// `trunkline-sequence` rises by one, or by what `trunkline-gap` confesses.
fn check_sequence(firsts: &[&Delivery], complete: bool, verdict: &mut Verdict) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for delivery in firsts {
        let Some(conversation) = delivery.conversation.as_deref() else { continue };
        let Some(sequence) = delivery.sequence else {
            verdict.add(Kind::Malformed, || format!("{}: {:?} has no trunkline-sequence", delivery.endpoint, delivery.event));
            continue;
        };
        let before = last.get(conversation).copied().unwrap_or(0);
        if sequence <= before {
            verdict.add(Kind::Reordered, || format!("{}: {conversation} had number {sequence} after {before}", delivery.endpoint));
            continue;
        }
        if complete && sequence - before - 1 != delivery.gap {
            let missing = sequence - before - 1;
            verdict.add(Kind::Lost, || format!("{}: {conversation} misses {missing} before {sequence}", delivery.endpoint));
        }
        last.insert(conversation, sequence);
    }
}

/// The state that an event reports of a message of ours.
fn reported(kind: &str) -> Option<Status> {
    match EventType::from_name(kind)? {
        EventType::MessageSent => Some(Status::Sent),
        EventType::MessageDelivered => Some(Status::Delivered),
        EventType::MessageRead => Some(Status::Read),
        EventType::MessageFailed => Some(Status::Failed),
        EventType::MessageUnknown => Some(Status::Unknown),
        EventType::MessageReceived
        | EventType::MessageEchoed
        | EventType::MessageReaction
        | EventType::MessageEdited
        | EventType::MessageDeleted
        | EventType::WindowOpened
        | EventType::WindowClosing
        | EventType::WindowClosed
        | EventType::ContactOptedOut
        | EventType::ContactOptedIn
        | EventType::ContactUpdated
        | EventType::MediaReady
        | EventType::MediaFailed
        | EventType::TemplateChanged
        | EventType::AccountStateChanged
        | EventType::AccountCredentialExpiring
        | EventType::EndpointDisabled
        | EventType::EndpointRecovered
        | EventType::DeliveryExhausted
        | EventType::OrderCreated
        | EventType::OrderUpdated
        | EventType::OrderDeleted
        | EventType::OrderRestored
        | EventType::CustomerCreated
        | EventType::CustomerUpdated
        | EventType::CustomerDeleted
        | EventType::CustomerRestored
        | EventType::ProductCreated
        | EventType::ProductUpdated
        | EventType::ProductDeleted
        | EventType::ProductRestored
        | EventType::CouponCreated
        | EventType::CouponUpdated
        | EventType::CouponDeleted
        | EventType::CouponRestored
        | EventType::PlatformEvent
        | EventType::Test => None,
    }
}

fn check_statuses(firsts: &[&Delivery], verdict: &mut Verdict) {
    let mut last: HashMap<&str, Status> = HashMap::new();
    for delivery in firsts {
        let (Some(message), Some(next)) = (delivery.message.as_deref(), reported(&delivery.kind)) else { continue };
        let Some(before) = last.insert(message, next) else { continue };
        if before == next {
            verdict.add(Kind::Duplicated, || format!("{}: {message} became {next:?} twice", delivery.endpoint));
        } else if !before.may_become(next) {
            verdict.add(Kind::Downgraded, || format!("{}: {message} went from {before:?} to {next:?}", delivery.endpoint));
            last.insert(message, before);
        }
    }
}

fn check_lost(endpoint: &str, all: &[&Delivery], history: &History, verdict: &mut Verdict) {
    let arrived: HashSet<Mark> =
        all.iter().filter(|delivery| delivery.acknowledged).filter_map(|delivery| inbound_mark(delivery)).collect();
    for operation in &history.offered {
        let is_due = operation.answer == Answer::Accepted && !history.excused.contains(&operation.mark);
        if is_due && !arrived.contains(&operation.mark) {
            verdict.add(Kind::Lost, || format!("{endpoint}: {} was accepted and never arrived", operation.mark));
        }
    }
}
