//! How much of each destination a shard has in memory, and how many records it should take beside that.
//!
//! Records wait cheaply in the log. What finds no room in memory is written to `later` and read back, which costs more than the
//! delivery itself: a process that has too much to do would have twice as much. So what goes to one endpoint only is held up in the log
//! while the endpoint is crowded and gets on. What others have to get is not: an endpoint that does not get on holds nothing up, nor
//! does one beside which others have work, but for a moment now and then. Sends are never held up.
//!
//! A record is held up for a few seconds at most, for it says more than the endpoint has to know: until it is worked on the person's
//! window does not open, and nobody reads of it. An endpoint that is too slow for longer has its deliveries wait in `later`.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use messaging::metrics;
use messaging::record::Class;
use tokio::time::Instant;

use crate::plan::Destination;

/// Tasks of one destination that always have room in memory, per shard.
const OWN_MAX: usize = 128;
/// Bulk sends of one account in memory, per shard: enough to keep its lane busy. The others are deferred, and hold no record.
const BULK_MAX: usize = 16;
/// Tasks in memory, per shard, with which only those have room.
const TASKS_MAX: usize = 384;
/// Tasks for one endpoint that a step may bring; more is rare, and goes to `later`.
pub const STEP_ROOM: usize = 128;
/// With more tasks in memory endpoints with more than their own are crowded: what the next step brings still has room.
const CROWDED: usize = TASKS_MAX - STEP_ROOM;
/// A destination gets on that has ended a task within this time.
const GETS_ON: Duration = Duration::from_millis(500);
/// No record is held up that has waited so long.
const AGE_MAX: Duration = Duration::from_secs(5);
/// How long crowded endpoints may hold records up until the shard looks whether there are any for others.
const HOLD_MAX: Duration = Duration::from_millis(250);
/// So many records it takes for this look.
const LOOK: usize = 16;
/// How long they may not hold any up when there are: what they do not get away meanwhile goes to `later`.
const HOLD_REST: Duration = Duration::from_secs(1);

/// How many records with news for endpoints a shard takes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// As many as it likes.
    Free,
    /// At most so many.
    AtMost(usize),
    /// None until then, or until a task ends.
    Held(Instant),
}

/// What one destination has in memory.
#[derive(Debug)]
struct Load {
    tasks: usize,
    /// When a task ended last; when the first one came, as long as none has.
    ended_at: Instant,
    /// When it held records up last.
    held_at: Option<Instant>,
}

impl Load {
    fn gets_on(&self, now: Instant) -> bool {
        now.duration_since(self.ended_at) < GETS_ON
    }

    fn held_lately(&self, now: Instant) -> bool {
        self.held_at.is_some_and(|at| now.duration_since(at) < HOLD_REST)
    }
}

/// The destinations of one shard that have tasks in memory.
#[derive(Debug, Default)]
pub struct Crowd {
    loads: HashMap<Destination, Load, RandomState>,
    /// Tasks of all destinations.
    tasks: usize,
    /// Since when records are held up, without a look.
    held_since: Option<Instant>,
    /// When any were held up last.
    held_at: Option<Instant>,
    /// Until when none may be held up.
    rest_until: Option<Instant>,
}

impl Crowd {
    /// Whether one more task has room in memory.
    pub fn has_room(&self, destination: Destination) -> bool {
        if let Destination::Account(_, Class::Bulk) = destination {
            return self.loads.get(&destination).is_none_or(|load| load.tasks < BULK_MAX);
        }
        let fits = |load: &Load| load.tasks < OWN_MAX || (self.tasks < TASKS_MAX && load.gets_on(Instant::now()));
        self.loads.get(&destination).is_none_or(fits)
    }

    /// One more task is in memory.
    pub fn add(&mut self, destination: Destination) {
        let load = self.loads.entry(destination).or_insert_with(|| Load { tasks: 0, ended_at: Instant::now(), held_at: None });
        load.tasks += 1;
        self.tasks += 1;
        let (Destination::Endpoint(_), Some(held_at)) = (destination, self.held_at) else { return };
        let now = Instant::now();
        if now.duration_since(held_at) < HOLD_REST && !load.held_lately(now) {
            self.rest_until = Some(now + HOLD_REST);
            self.held_at = None;
        }
    }

    /// A task has ended: its destination gets on.
    pub fn end(&mut self, destination: Destination) {
        if let Some(load) = self.loads.get_mut(&destination) {
            load.ended_at = Instant::now();
        }
        self.remove(destination, 1);
    }

    /// Tasks are no longer in memory.
    pub fn remove(&mut self, destination: Destination, tasks: usize) {
        let Some(load) = self.loads.get_mut(&destination) else { return };
        load.tasks -= tasks;
        self.tasks -= tasks;
        if load.tasks == 0 && load.held_at.is_none() {
            self.loads.remove(&destination);
        }
    }

    /// How many records to take. `age`: for how long those that come now have waited. `ended`: whether ends of tasks wait to be taken
    /// in, which is getting on too. `behind`: whether much of an endpoint's work is in `later`, which should come first.
    pub fn intake(&mut self, age: Duration, ended: bool, behind: impl Fn(Destination) -> bool) -> Intake {
        let now = Instant::now();
        self.loads.retain(|_, load| load.tasks > 0 || load.held_lately(now));
        if age > AGE_MAX || self.rest_until.is_some_and(|until| now < until) {
            self.held_since = None;
            return Intake::Free;
        }
        let full = self.tasks > CROWDED;
        let mut until = None;
        for (destination, load) in &mut self.loads {
            let crowded = match destination {
                Destination::Endpoint(_) => (full && load.tasks > OWN_MAX) || behind(*destination),
                Destination::Account(..) => false,
            };
            if crowded && (ended || load.gets_on(now)) {
                load.held_at = Some(now);
                until = until.max(Some(load.ended_at + GETS_ON));
            }
        }
        let Some(until) = until else {
            self.held_since = None;
            return Intake::Free;
        };
        self.held_at = Some(now);
        if self.held_since.is_none() {
            metrics::ROUTER_HOLDS.at([]).increment(1);
        }
        let look_at = *self.held_since.get_or_insert(now) + HOLD_MAX;
        if now < look_at {
            return Intake::Held(until.min(look_at));
        }
        self.held_since = None;
        Intake::AtMost(LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use messaging::ids::{AccountId, EndpointId};

    const ENDPOINT: Destination = Destination::Endpoint(EndpointId([1; 16]));
    const OTHER: Destination = Destination::Endpoint(EndpointId([2; 16]));
    const ACCOUNT: Destination = Destination::Account(AccountId([3; 16]), Class::Interactive);

    /// What happens to a crowd.
    enum Do {
        Add(Destination, usize),
        End(Destination, usize),
        Pass(u64),
        Behind(bool),
        /// Records have waited for so many seconds.
        Age(u64),
        /// `Held` for so many milliseconds.
        Held(u64),
        Free,
        Look,
        Room(Destination, bool),
    }

    async fn check(name: &str, story: &[Do]) {
        let (mut crowd, mut is_behind, mut age) = (Crowd::default(), false, Duration::ZERO);
        for (at, step) in story.iter().enumerate() {
            let intake = |crowd: &mut Crowd| crowd.intake(age, false, |destination| is_behind && destination == ENDPOINT);
            match step {
                Do::Add(destination, tasks) => (0..*tasks).for_each(|_| crowd.add(*destination)),
                Do::End(destination, tasks) => (0..*tasks).for_each(|_| crowd.end(*destination)),
                Do::Pass(millis) => tokio::time::advance(Duration::from_millis(*millis)).await,
                Do::Behind(value) => is_behind = *value,
                Do::Age(seconds) => age = Duration::from_secs(*seconds),
                Do::Held(millis) => {
                    let until = Instant::now() + Duration::from_millis(*millis);
                    assert_eq!(intake(&mut crowd), Intake::Held(until), "{name}, step {at}");
                }
                Do::Free => assert_eq!(intake(&mut crowd), Intake::Free, "{name}, step {at}"),
                Do::Look => assert_eq!(intake(&mut crowd), Intake::AtMost(LOOK), "{name}, step {at}"),
                Do::Room(destination, room) => assert_eq!(crowd.has_room(*destination), *room, "{name}, step {at}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowded_endpoint_holds_up_what_is_its_own() {
        use Do::*;
        let cases: &[(&str, &[Do])] = &[
            ("up to here all is taken", &[Free, Add(ENDPOINT, CROWDED), Free, Add(ENDPOINT, 1), Held(250)]),
            ("an end makes room", &[Add(ENDPOINT, CROWDED + 1), Held(250), Pass(20), End(ENDPOINT, 1), Free]),
            (
                "a look after a while, then it goes on",
                &[Add(ENDPOINT, 300), Held(250), Pass(200), End(ENDPOINT, 1), Held(50), Pass(50), Look, Add(ENDPOINT, 16), Held(250)],
            ),
            ("one that ends nothing holds nothing up", &[Add(ENDPOINT, 300), Pass(499), Held(1), Pass(1), Free, Pass(9_000), Free]),
            (
                "what others have is seen at the look, and they have their time",
                &[
                    Add(ENDPOINT, 300),
                    Held(250),
                    Pass(250),
                    Look,
                    Add(OTHER, 1),
                    Free,
                    Pass(999),
                    End(ENDPOINT, 1),
                    Free,
                    Pass(1),
                    End(ENDPOINT, 1),
                    Held(250),
                ],
            ),
            ("two crowds are no others", &[Add(ENDPOINT, 150), Add(OTHER, 150), Held(250), Pass(250), Look, Add(OTHER, 16), Held(250)]),
            (
                "its own later tasks are no others'",
                &[Add(ENDPOINT, 300), Held(250), End(ENDPOINT, 300), Free, Add(ENDPOINT, 300), Held(250)],
            ),
            ("for a few seconds", &[Age(5), Add(ENDPOINT, 300), Held(250), Age(6), Free, Behind(true), Free, Age(1), Held(250)]),
            ("accounts hold nothing up", &[Add(ACCOUNT, 384), Free]),
            ("nor are they others", &[Add(ENDPOINT, 300), Held(250), Pass(250), Look, Add(ACCOUNT, 1), Held(250)]),
            ("what is in later comes first", &[Add(ENDPOINT, 32), Free, Behind(true), Held(250), Behind(false), Free]),
        ];
        for (name, story) in cases {
            check(name, story).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_get_on_has_less_room() {
        use Do::*;
        let cases: &[(&str, &[Do])] = &[
            ("gets on", &[Add(ENDPOINT, TASKS_MAX - 1), Room(ENDPOINT, true), Add(ENDPOINT, 1), Room(ENDPOINT, false)]),
            ("others have their own", &[Add(ENDPOINT, TASKS_MAX), Room(OTHER, true), Add(OTHER, OWN_MAX), Room(OTHER, false)]),
            (
                "does not",
                &[Add(ENDPOINT, OWN_MAX), Room(ENDPOINT, true), Pass(500), Room(ENDPOINT, false), End(ENDPOINT, 1), Room(ENDPOINT, true)],
            ),
        ];
        for (name, story) in cases {
            check(name, story).await;
        }
    }
}
