//! The checker is checked: a clean history passes, and each planted fault is found, as its kind and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use messaging::outcome::Status;

use super::*;
use crate::mark::Mark;

const RUN: u32 = 9;

fn operation(mark: Mark, begun_us: u64) -> Operation {
    let id = match mark.way {
        crate::mark::Way::In => None,
        crate::mark::Way::Out => Some(id(mark)),
    };
    Operation { mark, begun_us, answered_us: begun_us + 5, answer: Answer::Accepted, id }
}

fn id(mark: Mark) -> String {
    format!("msg_{}_{}", mark.conversation, mark.sequence)
}

fn delivery(mark: Mark, endpoint: &str, at_us: u64) -> Delivery {
    Delivery {
        endpoint: Arc::from(endpoint),
        event: Some(format!("evt_{mark}").into()),
        kind: "message.received".into(),
        attempt: Some(1),
        conversation: Some(format!("cnv_{}", mark.conversation).into()),
        sequence: Some(u64::from(mark.sequence)),
        gap: 0,
        replay: false,
        mark: Some(mark),
        message: None,
        acknowledged: true,
        at_us,
    }
}

fn status_event(kind: &str, sequence: u64) -> Delivery {
    let mark = Mark::inbound(RUN, 7, 1);
    let event = Some(format!("evt_{kind}_{sequence}").into());
    Delivery { event, kind: kind.into(), mark: None, message: Some("msg_1_1".into()), sequence: Some(sequence), ..delivery(mark, "a", 0) }
}

fn taken(mark: Mark, at_us: u64) -> Taken {
    Taken { mark: Some(mark), callback: Some(id(mark)), at_us, out_of_window: false, failed_later: false }
}

/// Two conversations of three messages each way, two endpoints, everything right.
fn clean() -> History {
    let mut history = History { endpoints: vec![Arc::from("a"), Arc::from("b")], complete: true, ..History::default() };
    for sequence in 1..=3 {
        for conversation in 0..2 {
            let begun_us = u64::from(sequence) * 100 + u64::from(conversation);
            let inbound = Mark::inbound(RUN, conversation, sequence);
            history.offered.push(operation(inbound, begun_us));
            history.deliveries.extend(["a", "b"].map(|endpoint| delivery(inbound, endpoint, begun_us + 50)));
            let outbound = Mark::outbound(RUN, conversation, sequence);
            history.sends.push(operation(outbound, begun_us));
            history.taken.push(taken(outbound, begun_us + 50));
            let steps = vec![Status::Accepted, Status::Queued, Status::Sending, Status::Sent];
            history.ends.push(End { message: id(outbound), steps, possible_duplicate: false, has_due_time: false });
        }
    }
    history
}

#[test]
fn a_clean_history_passes() {
    let verdict = check(&clean());
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.accepted, verdict.delivered, verdict.marked_duplicates), (12, 12, 0));
    assert!(check(&History::default()).is_clean());
}

type Plant = fn(&mut History);

#[test]
fn every_planted_fault_is_found() {
    let first = Mark::outbound(RUN, 0, 1);
    assert_eq!(clean().sends[0].mark, first);
    let cases: &[(&str, Kind, Plant)] = &[
        ("a delivery is missing", Kind::Lost, |h| {
            h.complete = false;
            h.deliveries.remove(4);
        }),
        ("a delivery was never acknowledged", Kind::Lost, |h| h.deliveries[4].acknowledged = false),
        ("an endpoint got nothing", Kind::Lost, |h| h.endpoints.push(Arc::from("c"))),
        ("a number is missing before the last", Kind::Lost, |h| h.deliveries[8].sequence = Some(7)),
        ("a send vanished", Kind::Lost, |h| {
            h.taken.remove(0);
            h.ends.remove(0);
        }),
        ("a message from nowhere", Kind::Invented, |h| h.deliveries.push(delivery(Mark::inbound(RUN, 5, 1), "a", 0))),
        ("a message of another run", Kind::Invented, |h| h.deliveries.push(delivery(Mark::inbound(8, 5, 1), "a", 0))),
        ("a message whose text was lost", Kind::Invented, |h| {
            h.deliveries.push(Delivery { mark: None, ..delivery(Mark::inbound(RUN, 5, 1), "a", 0) });
        }),
        ("a send from nowhere", Kind::Invented, |h| h.taken.push(taken(Mark::outbound(RUN, 5, 1), 0))),
        ("a send without a name", Kind::Invented, |h| h.taken.push(Taken { mark: None, callback: None, ..h.taken[0].clone() })),
        ("a refused send went out", Kind::Invented, |h| h.sends[0].answer = Answer::Refused),
        ("the same attempt came twice", Kind::Duplicated, |h| h.deliveries.push(h.deliveries[0].clone())),
        ("a repeat with a falling attempt", Kind::Duplicated, |h| {
            h.deliveries[0].attempt = Some(2);
            h.deliveries.push(Delivery { attempt: Some(1), ..h.deliveries[0].clone() });
        }),
        ("one message as two events", Kind::Duplicated, |h| {
            h.deliveries.push(Delivery { event: Some("evt_other".into()), sequence: Some(4), ..h.deliveries[0].clone() });
        }),
        ("one person, two conversations", Kind::Duplicated, |h| {
            h.deliveries[8].conversation = Some("cnv_9".into());
            h.deliveries[8].sequence = Some(1);
        }),
        ("a transition told twice", Kind::Duplicated, |h| {
            h.deliveries.extend([status_event("message.sent", 1), status_event("message.sent", 2)]);
        }),
        ("a second send, unmarked", Kind::Duplicated, |h| h.taken.push(h.taken[0].clone())),
        ("a second send by id, unmarked", Kind::Duplicated, |h| h.taken.push(Taken { mark: None, ..h.taken[0].clone() })),
        ("deliveries in the wrong order", Kind::Reordered, |h| {
            h.deliveries.swap(0, 4);
            for at in [0, 4] {
                h.deliveries[at].sequence = Some(at as u64 / 4 + 1);
            }
        }),
        ("numbers in the wrong order", Kind::Reordered, |h| {
            h.complete = false;
            h.deliveries[0].sequence = Some(2);
            h.deliveries[4].sequence = Some(1);
        }),
        ("sends in the wrong order", Kind::Reordered, |h| h.taken.swap(0, 2)),
        ("delivered after read", Kind::Downgraded, |h| {
            h.deliveries.extend([status_event("message.read", 1), status_event("message.delivered", 2)]);
        }),
        ("failed after delivered", Kind::Downgraded, |h| {
            h.deliveries.extend([status_event("message.delivered", 1), status_event("message.failed", 2)]);
        }),
        ("a stored status went back", Kind::Downgraded, |h| h.ends[0].steps.extend([Status::Read, Status::Delivered])),
        ("a send after its window", Kind::OutOfWindow, |h| h.taken[0].out_of_window = true),
        ("another's canary", Kind::Crossed, |h| {
            h.canaries.push(Canary { kind: CanaryKind::Tenant("t1".to_owned()), text: "canary-1".to_owned() });
            for tenant in ["t1", "t2"] {
                let bytes = Bytes::from("see canary-1 here");
                h.outputs.push(Output { tenant: Some(tenant.to_owned()), place: "an endpoint".to_owned(), bytes });
            }
        }),
        ("another's conversation", Kind::Crossed, |h| {
            for delivery in h.deliveries.iter_mut().filter(|delivery| &*delivery.endpoint == "a") {
                let mark = delivery.mark.unwrap();
                delivery.conversation = Some("cnv_0".into());
                delivery.sequence = Some(u64::from(mark.sequence * 2 - 1 + mark.conversation));
            }
        }),
        ("a secret in a log", Kind::Leaked, |h| {
            h.canaries.push(Canary { kind: CanaryKind::Secret, text: "s3cret".to_owned() });
            h.outputs.push(Output { tenant: None, place: "the log".to_owned(), bytes: Bytes::from("token=s3cret") });
        }),
        ("an erased person", Kind::Resurrected, |h| {
            h.canaries.push(Canary { kind: CanaryKind::Erased, text: "Ada".to_owned() });
            h.outputs.push(Output { tenant: Some("t".to_owned()), place: "the store".to_owned(), bytes: Bytes::from("Ada") });
        }),
        ("books", Kind::Unbalanced, |h| h.book = Some(Book { accepted: 10, stored: 7, repeated: 1, quarantined: 1, erased: 0 })),
        ("a send that stays queued", Kind::Stuck, |h| {
            h.taken.remove(0);
            h.ends[0].steps.truncate(2);
        }),
        ("a send without an end", Kind::Stuck, |h| drop(h.ends.remove(0))),
        ("sent, but not taken", Kind::Misreported, |h| drop(h.taken.remove(0))),
        ("failed, but taken", Kind::Misreported, |h| h.ends[0].steps[3] = Status::Failed),
        ("no attempt number", Kind::Malformed, |h| {
            let last = h.deliveries.len() - 1;
            h.deliveries[last].attempt = None;
        }),
        ("no sequence", Kind::Malformed, |h| {
            let last = h.deliveries.len() - 1;
            h.deliveries[last].sequence = None;
        }),
    ];
    for (what, kind, plant) in cases {
        let mut history = clean();
        plant(&mut history);
        let verdict = check(&history);
        assert_eq!(verdict.kinds(), [*kind], "{what}: {verdict}");
    }
}

#[test]
fn what_is_allowed_is_not_flagged() {
    let cases: &[(&str, Plant)] = &[
        ("a retry after a refusal", |h| {
            h.deliveries[0].acknowledged = false;
            h.deliveries.push(Delivery { attempt: Some(2), acknowledged: true, ..h.deliveries[0].clone() });
        }),
        ("a marked repeat", |h| h.deliveries.push(Delivery { attempt: Some(2), ..h.deliveries[0].clone() })),
        ("a replay", |h| h.deliveries.push(Delivery { replay: true, ..h.deliveries[0].clone() })),
        ("a marked second send", |h| {
            h.taken.push(h.taken[0].clone());
            h.ends[0].possible_duplicate = true;
        }),
        ("what overlapped has no order", |h| {
            for operation in &mut h.offered {
                operation.answered_us = 1_000;
            }
            h.deliveries.swap(0, 4);
            for at in [0, 4] {
                h.deliveries[at].sequence = Some(at as u64 / 4 + 1);
            }
        }),
        ("an unanswered message may be missing", |h| {
            h.complete = false;
            h.offered[0].answer = Answer::Unknown;
            h.deliveries.drain(0..2);
        }),
        ("an unanswered message may arrive", |h| h.offered[0].answer = Answer::Unknown),
        ("an excused message", |h| {
            h.complete = false;
            h.excused.insert(h.offered[0].mark);
            h.deliveries.drain(0..2);
        }),
        ("a confessed gap", |h| {
            h.excused.insert(h.offered[2].mark);
            h.deliveries.drain(4..6);
            for delivery in h.deliveries.iter_mut().filter(|delivery| delivery.sequence == Some(3)) {
                delivery.gap = u64::from(delivery.mark.unwrap().conversation == 0);
            }
        }),
        ("unknown, then settled", |h| h.ends[0].steps.insert(3, Status::Unknown)),
        ("unknown for good", |h| {
            h.taken.remove(0);
            h.ends[0].steps[3] = Status::Unknown;
        }),
        ("a later failure of the platform's", |h| {
            h.taken[0].failed_later = true;
            h.ends[0].steps.push(Status::Failed);
        }),
        ("a skipped status", |h| h.deliveries.extend([status_event("message.sent", 1), status_event("message.read", 2)])),
        ("books", |h| h.book = Some(Book { accepted: 10, stored: 7, repeated: 1, quarantined: 1, erased: 1 })),
    ];
    for (what, plant) in cases {
        let mut history = clean();
        plant(&mut history);
        let verdict = check(&history);
        assert!(verdict.is_clean(), "{what}: {verdict}");
    }
}

#[test]
fn deliveries_are_read_from_requests() {
    let mark = Mark::inbound(1, 2, 3);
    let mut headers = hyper::HeaderMap::new();
    for (name, value) in [
        ("webhook-id", "evt_x"),
        ("trunkline-attempt", "2"),
        ("trunkline-conversation", "cnv_y"),
        ("trunkline-sequence", "17"),
        ("trunkline-gap", "1"),
        ("trunkline-replay", "true"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let body = format!(r#"{{"id":"evt_x","type":"message.received","data":{{"message":"msg_abc","text":{{"body":"{mark}"}}}}}}"#);
    let received = crate::inbox::Received {
        number: 0,
        at: messaging::clock::Timestamp::ZERO,
        at_us: 5,
        path: "/".to_owned(),
        headers,
        body: Bytes::from(body),
        status: Some(200),
    };
    let expected = Delivery {
        endpoint: Arc::from("a"),
        event: Some("evt_x".into()),
        kind: "message.received".into(),
        attempt: Some(2),
        conversation: Some("cnv_y".into()),
        sequence: Some(17),
        gap: 1,
        replay: true,
        mark: Some(mark),
        message: Some("msg_abc".into()),
        acknowledged: true,
        at_us: 5,
    };
    assert_eq!(Delivery::from_received(&Arc::from("a"), &received), expected);
}

#[test]
fn only_so_many_violations_are_listed() {
    let mut history = clean();
    history.taken.extend((0..2_000).map(|sequence| taken(Mark::outbound(RUN, 77, sequence), 0)));
    let verdict = check(&history);
    assert_eq!((verdict.violations.len(), verdict.violation_count), (VIOLATIONS_LISTED_MAX, 2_000));
}
