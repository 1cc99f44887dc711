//! From merchants' sends to the platform: lost, invented, duplicated, reordered, downgraded, out of window, stuck.

use std::collections::HashMap;

use messaging::outcome::Status;

use super::{Answer, End, History, Kind, Operation, Taken, Verdict, inversions};
use crate::mark::Mark;

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    let sends = Sends::new(history);
    let mut taken: HashMap<Mark, Vec<&Taken>> = HashMap::new();
    for took in &history.taken {
        if took.out_of_window {
            verdict.add(Kind::OutOfWindow, || format!("{} reached the platform after its window", name(took)));
        }
        match sends.of(took) {
            None => verdict.add(Kind::Invented, || format!("the platform took {}, which nobody sent", name(took))),
            Some(send) if send.answer == Answer::Refused => {
                verdict.add(Kind::Invented, || format!("the platform took {}, which was refused", name(took)));
            }
            Some(send) => taken.entry(send.mark).or_default().push(took),
        }
    }
    for send in &history.sends {
        let took = taken.get(&send.mark).map_or(&[][..], |took| took);
        let end = send.id.as_deref().and_then(|id| sends.ends.get(id).copied());
        check_once(send, took, end, verdict);
        check_end(send, took, end, history, verdict);
    }
    for end in &history.ends {
        check_steps(end, verdict);
    }
    check_order(history, &sends, verdict);
}

struct Sends<'a> {
    by_mark: HashMap<Mark, &'a Operation>,
    by_id: HashMap<&'a str, &'a Operation>,
    ends: HashMap<&'a str, &'a End>,
}

impl<'a> Sends<'a> {
    fn new(history: &'a History) -> Self {
        let mut sends = Self { by_mark: HashMap::new(), by_id: HashMap::new(), ends: HashMap::new() };
        for send in &history.sends {
            sends.by_mark.insert(send.mark, send);
            if let Some(id) = &send.id {
                sends.by_id.insert(id, send);
            }
        }
        for end in &history.ends {
            sends.ends.insert(&end.message, end);
        }
        sends
    }

    /// The send behind what the platform took: by its mark, else by the id that it carries (templates have no text).
    fn of(&self, took: &Taken) -> Option<&'a Operation> {
        match took.mark {
            Some(mark) => self.by_mark.get(&mark).copied(),
            None => self.by_id.get(took.callback.as_deref()?).copied(),
        }
    }
}

fn name(took: &Taken) -> String {
    match (&took.mark, &took.callback) {
        (Some(mark), _) => mark.to_string(),
        (None, Some(callback)) => callback.clone(),
        (None, None) => "a message without mark and id".to_owned(),
    }
}

fn check_once(send: &Operation, took: &[&Taken], end: Option<&End>, verdict: &mut Verdict) {
    if took.len() < 2 {
        return;
    }
    if end.is_some_and(|end| end.possible_duplicate) {
        verdict.marked_resends += took.len() as u64 - 1;
    } else {
        verdict.add(Kind::Duplicated, || format!("the platform took {} {} times, unmarked", send.mark, took.len()));
    }
}

fn check_end(send: &Operation, took: &[&Taken], end: Option<&End>, history: &History, verdict: &mut Verdict) {
    if send.answer != Answer::Accepted || history.excused.contains(&send.mark) {
        return;
    }
    let Some(end) = end else {
        if took.is_empty() {
            verdict.add(Kind::Lost, || format!("{} was accepted, never sent, and has no end", send.mark));
        } else if !history.ends.is_empty() {
            verdict.add(Kind::Stuck, || format!("{} was sent and has no end", send.mark));
        }
        return;
    };
    match end.steps.last().copied().unwrap_or(Status::Accepted) {
        Status::Accepted | Status::Queued | Status::Sending if end.has_due_time => {}
        status @ (Status::Accepted | Status::Queued | Status::Sending) => {
            verdict.add(Kind::Stuck, || format!("{} stays {status:?} without a due time", send.mark));
        }
        status @ (Status::Sent | Status::Delivered | Status::Read) if took.is_empty() => {
            verdict.add(Kind::Misreported, || format!("{} ends {status:?}, but the platform never took it", send.mark));
        }
        status @ (Status::Failed | Status::Cancelled | Status::Expired) if took.iter().any(|took| !took.failed_later) => {
            verdict.add(Kind::Misreported, || format!("{} ends {status:?}, but the platform took it", send.mark));
        }
        Status::Sent | Status::Delivered | Status::Read | Status::Failed | Status::Cancelled | Status::Expired | Status::Unknown => {}
    }
}

fn check_steps(end: &End, verdict: &mut Verdict) {
    for pair in end.steps.windows(2) {
        if pair[0] != pair[1] && !pair[0].may_become(pair[1]) {
            verdict.add(Kind::Downgraded, || format!("{} went from {:?} to {:?}", end.message, pair[0], pair[1]));
        }
    }
}

/// The platform's order inside a conversation is the order of acceptance; a marked second send has no place in it.
fn check_order(history: &History, sends: &Sends<'_>, verdict: &mut Verdict) {
    let mut by_conversation: HashMap<(u32, u32), Vec<&Operation>> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for took in &history.taken {
        let Some(send) = sends.of(took).filter(|send| seen.insert(send.mark)) else { continue };
        by_conversation.entry((send.mark.run, send.mark.conversation)).or_default().push(send);
    }
    for arrivals in by_conversation.values() {
        for overtaken in inversions(arrivals) {
            verdict.add(Kind::Reordered, || format!("the platform took {} before an earlier send", overtaken.mark));
        }
    }
}
