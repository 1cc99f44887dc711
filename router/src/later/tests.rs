use super::*;
use messaging::ids::TenantId;
use messaging::state::FeedPosition;
use proptest::prelude::*;

const DESTINATION: Queue = Queue::Destination([9; 16]);

fn row(conversation: u8, number: u64) -> LaterRow {
    LaterRow {
        tenant: TenantId([1; 16]),
        conversation: ConversationId([conversation; 16]),
        due: Timestamp::ZERO,
        deadline: Timestamp::MAX,
        attempts: 0,
        repeats: 0,
        epoch: 0,
        accepted_at: Timestamp::ZERO,
        parked_at: Timestamp::ZERO,
        what: LaterWork::Deliver { feed: FeedPosition { shard: 0, order: number }, sequence: number },
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8),
    Take(usize),
    Done,
    Again(u64),
    PutBack,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..5u8).prop_map(Step::Push),
        3 => (1..6usize).prop_map(Step::Take),
        3 => Just(Step::Done),
        1 => (1..50u64).prop_map(Step::Again),
        1 => Just(Step::PutBack),
        1 => (1..40u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever happens, a conversation's rows come out in the order in which they went in, one at a time, and all of them.
    #[test]
    fn order_holds_per_conversation(steps in steps()) {
        let mut later = Later::new(0, 1);
        let mut now = Timestamp::from_secs(1000);
        let mut number = 0;
        let mut waiting: HashMap<ConversationId, VecDeque<u64>> = HashMap::new();
        let mut under_way: Vec<Entry> = Vec::new();
        for step in steps {
            match step {
                Step::Push(conversation) => {
                    number += 1;
                    let row = row(conversation, number);
                    waiting.entry(row.conversation).or_default().push_back(number);
                    later.push(DESTINATION, row, now);
                }
                Step::Take(max) => {
                    for entry in later.take_ready(DESTINATION, now, max, usize::MAX, |_| false) {
                        let LaterWork::Deliver { sequence, .. } = entry.row.what else { unreachable!() };
                        let expected = waiting[&entry.row.conversation].front();
                        prop_assert_eq!(Some(&sequence), expected, "the oldest of its conversation");
                        let busy = under_way.iter().any(|other| other.row.conversation == entry.row.conversation);
                        prop_assert!(!busy, "one at a time");
                        under_way.push(entry);
                    }
                    prop_assert!(under_way.len() <= 32);
                }
                Step::Done => if let Some(entry) = under_way.pop() {
                    waiting.get_mut(&entry.row.conversation).unwrap().pop_front();
                    later.done(DESTINATION, entry.order, now);
                },
                Step::Again(seconds) => if let Some(entry) = under_way.pop() {
                    later.again(DESTINATION, entry.order, now.plus(std::time::Duration::from_secs(seconds)), 1, now);
                },
                Step::PutBack => if let Some(entry) = under_way.pop() {
                    later.put_back(DESTINATION, entry.order, now);
                },
                Step::Pass(seconds) => now = now.plus(std::time::Duration::from_secs(seconds)),
            }
            for (conversation, rows) in &waiting {
                prop_assert_eq!(later.blocks(DESTINATION, *conversation), !rows.is_empty());
            }
        }
        for entry in under_way.drain(..) {
            waiting.get_mut(&entry.row.conversation).unwrap().pop_front();
            later.done(DESTINATION, entry.order, now);
        }
        now = now.plus(std::time::Duration::from_secs(1000));
        let mut left: usize = waiting.values().map(VecDeque::len).sum();
        while left > 0 {
            let ready = later.take_ready(DESTINATION, now, 100, usize::MAX, |_| false);
            prop_assert!(!ready.is_empty(), "nothing is forgotten");
            left -= ready.len();
            for entry in ready {
                later.done(DESTINATION, entry.order, now);
            }
        }
        prop_assert!(later.is_empty());
    }
}

/// Many timers of one instant, more than the index holds, by two owners: each has a place of its own.
#[test]
fn timers_of_one_instant_have_places_of_their_own() {
    let due = Timestamp::from_secs(1_800_000_000);
    let mut places = HashSet::new();
    for epoch in [1, 2] {
        let mut later = Later::new(0, epoch);
        for number in 0..TIMERS_MAX as u64 * 2 {
            let mut row = row(1, number);
            row.due = due;
            places.insert(later.set_timer(row, Timestamp::ZERO).key);
        }
    }
    assert_eq!(places.len(), TIMERS_MAX * 4);
}

/// What cannot go before something else ends must not wake the shard: it would spin.
#[test]
fn nothing_wakes_for_what_cannot_go() {
    let now = Timestamp::from_secs(1000);
    let mut later = Later::new(0, 1);
    for conversation in 0..8 {
        later.push(DESTINATION, row(conversation, u64::from(conversation)), now);
    }
    assert!(later.next_wake(Timestamp::MAX) <= now);
    let taken = later.take_ready(DESTINATION, now, 4, usize::MAX, |_| false);
    assert_eq!((taken.len(), later.next_wake(Timestamp::MAX)), (4, Timestamp::MAX), "as many under way as may be");
    later.again(DESTINATION, taken[0].order, Timestamp::from_secs(2000), 1, now);
    assert!(later.next_wake(Timestamp::MAX) <= now, "one may go now");
    assert_eq!(later.take_ready(DESTINATION, now, 4, usize::MAX, |_| false).len(), 1);
    later.done(DESTINATION, taken[1].order, now);
    assert!(later.next_wake(Timestamp::MAX) <= now, "one may go now");
    assert_eq!(later.take_ready(DESTINATION, now, 8, usize::MAX, |_| true).len(), 0);
    assert!(later.next_wake(Timestamp::MAX) > now, "busy in memory: a little later");
}

#[test]
fn timers_fire_in_order_and_once() {
    let mut later = Later::new(0, 1);
    let now = Timestamp::from_secs(1000);
    for seconds in [30, 10, 20, 10] {
        let mut row = row(1, seconds);
        row.due = now.plus(std::time::Duration::from_secs(seconds));
        later.set_timer(row, now);
    }
    assert!(later.due_timers(now, 10).is_empty());
    let due = later.due_timers(now.plus(std::time::Duration::from_secs(20)), 10);
    let order: Vec<u64> = due.iter().map(|(row, _)| row.due.since(now).as_secs()).collect();
    assert_eq!(order, [10, 10, 20]);
    assert_eq!(later.next_wake(Timestamp::MAX), now.plus(std::time::Duration::from_secs(30)));
}

fn destination(number: u8) -> Queue {
    Queue::Destination([number; 16])
}

/// One step's turns: gives what was taken, by destination. What was taken ends before the next step.
fn turn(later: &mut Later, turns: &mut crate::fair::Turns, now: Timestamp, most: usize) -> BTreeMap<Queue, usize> {
    let mut taken: Vec<(Queue, u64)> = Vec::new();
    turns.serve(later.lines(now), 4, most, |destination, most| {
        let ready = later.take_ready(*destination, now, 4, most, |_| false);
        taken.extend(ready.iter().map(|entry| (*destination, entry.order)));
        ready.len()
    });
    let mut by_destination = BTreeMap::new();
    for (destination, order) in taken {
        later.done(destination, order, now);
        *by_destination.entry(destination).or_default() += 1;
    }
    by_destination
}

/// A tenant's hundred endpoints are well again, all at once; of another tenant a few entries wait.
#[test]
fn a_tenant_with_many_destinations_leaves_room_in_every_step() {
    const QUIET: u8 = 200;
    let mut later = Later::new(0, 1);
    let now = Timestamp::from_secs(1000);
    for number in 0..100 {
        (0..40).for_each(|conversation| drop(later.push(destination(number), row(conversation, 0), now)));
    }
    for conversation in 0..6 {
        let row = LaterRow { tenant: TenantId([2; 16]), ..row(conversation, 0) };
        later.push(destination(QUIET), row, now);
    }
    let mut turns = crate::fair::Turns::default();
    let mut sums: BTreeMap<Queue, usize> = BTreeMap::new();
    for (step, of_quiet) in [4, 2, 0, 0, 0, 0, 0].into_iter().enumerate() {
        let got = turn(&mut later, &mut turns, now, 64);
        assert_eq!(got.values().sum::<usize>(), 64, "step {step} has so much to do, and no more");
        assert_eq!(got.get(&destination(QUIET)).copied().unwrap_or_default(), of_quiet, "step {step}");
        assert!(later.next_wake(Timestamp::MAX) <= now, "what had no turn goes at once");
        got.into_iter().for_each(|(destination, count)| *sums.entry(destination).or_default() += count);
    }
    assert_eq!(sums.len(), 101, "no destination is served twice before each was once");
    while !later.is_empty() {
        assert!(!turn(&mut later, &mut turns, now, 64).is_empty(), "all of it comes out");
    }
}
