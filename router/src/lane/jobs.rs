//! What waits at one lane, by class: interactive work goes first, bulk work takes what is left, with a floor.

use messaging::record::Class;
use tokio::sync::mpsc;

use super::Job;

/// Of so many units bulk work gets at least one, while some waits: a floor of 5 %.
const FLOOR_OF: u32 = 20;

/// The ends of a lane's queues that shards hold.
#[derive(Clone)]
pub struct Senders([mpsc::Sender<Job>; Class::ALL.len()]);

/// The other ends, with the first of each class in hand.
pub struct Jobs {
    receivers: [mpsc::Receiver<Job>; Class::ALL.len()],
    first: [Option<Job>; Class::ALL.len()],
    turns: Turns,
}

/// Whose turn it is. Interactive work goes first; after nineteen units in a row that it took while bulk work waited, bulk work has one.
#[derive(Debug, Default)]
pub struct Turns {
    /// Units that interactive work took while bulk work waited.
    passed: u32,
}

impl Turns {
    /// The class that goes next, of those that wait.
    pub fn next(&self, interactive: bool, bulk: bool) -> Option<Class> {
        match (interactive, bulk) {
            (true, true) if self.passed + 1 >= FLOOR_OF => Some(Class::Bulk),
            (true, _) => Some(Class::Interactive),
            (false, true) => Some(Class::Bulk),
            (false, false) => None,
        }
    }

    /// A unit went to a class, while bulk work waited or not.
    pub fn went(&mut self, class: Class, bulk: bool) {
        self.passed = match class {
            Class::Interactive if bulk => self.passed + 1,
            Class::Interactive | Class::Bulk => 0,
        };
    }
}

/// Both ends of a lane's queues, each of so many jobs.
pub fn queues(max: usize) -> (Senders, Jobs) {
    let (interactive, of_interactive) = mpsc::channel(max);
    let (bulk, of_bulk) = mpsc::channel(max);
    let jobs = Jobs { receivers: [of_interactive, of_bulk], first: [None, None], turns: Turns::default() };
    (Senders([interactive, bulk]), jobs)
}

impl Senders {
    /// Gives a job to its class's queue, or back when that is full.
    pub fn offer(&self, job: Job) -> Result<(), Box<Job>> {
        let class = job.task.destination().class();
        self.0[class.index()].try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job) => Box::new(job),
        })
    }

    /// Whether the lane has ended.
    pub fn is_closed(&self) -> bool {
        self.0.iter().all(mpsc::Sender::is_closed)
    }
}

impl Jobs {
    /// Waits until there is a job, and says of which class the next one is. None: no more will come.
    pub async fn wait(&mut self) -> Option<Class> {
        loop {
            self.look();
            let [interactive, bulk] = &self.first;
            if let Some(class) = self.turns.next(interactive.is_some(), bulk.is_some()) {
                return Some(class);
            }
            let [of_interactive, of_bulk] = &mut self.receivers;
            let (class, job) = tokio::select! {
                biased;
                Some(job) = of_interactive.recv() => (Class::Interactive, job),
                Some(job) = of_bulk.recv() => (Class::Bulk, job),
                else => return None,
            };
            self.first[class.index()] = Some(job);
        }
    }

    /// Waits until a more urgent job than the first of this class has come. Never ends for the most urgent one.
    pub async fn overtaken(&mut self, class: Class) {
        let urgent = Class::Interactive.index();
        if class == Class::Bulk
            && self.first[urgent].is_none()
            && let Some(job) = self.receivers[urgent].recv().await
        {
            self.first[urgent] = Some(job);
            return;
        }
        std::future::pending().await
    }

    /// The first job of a class.
    pub fn first(&self, class: Class) -> Option<&Job> {
        self.first[class.index()].as_ref()
    }

    /// Takes the first job of a class out; `goes`: it takes a unit.
    pub fn take(&mut self, class: Class, goes: bool) -> Option<Job> {
        self.look();
        let job = self.first[class.index()].take();
        if goes {
            self.turns.went(class, self.first[Class::Bulk.index()].is_some());
        }
        job
    }

    fn look(&mut self) {
        for (first, receiver) in self.first.iter_mut().zip(&mut self.receivers) {
            if first.is_none() {
                *first = receiver.try_recv().ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves units while both classes wait as the closure says; gives how many each got, and the longest run without bulk.
    fn serve(units: u32, waits: impl Fn(u32) -> (bool, bool)) -> ([u32; 2], u32) {
        let (mut turns, mut got, mut run, mut longest) = (Turns::default(), [0, 0], 0, 0);
        for unit in 0..units {
            let (interactive, bulk) = waits(unit);
            let Some(class) = turns.next(interactive, bulk) else { continue };
            turns.went(class, bulk);
            got[class.index()] += 1;
            run = if class == Class::Bulk { 0 } else { run + 1 };
            longest = longest.max(run);
        }
        (got, longest)
    }

    #[test]
    fn interactive_goes_first_and_bulk_has_a_floor() {
        assert_eq!(serve(1000, |_| (true, true)), ([950, 50], 19), "both always: 5 %");
        assert_eq!(serve(1000, |_| (false, true)).0, [0, 1000], "bulk alone has all");
        assert_eq!(serve(1000, |_| (true, false)).0, [1000, 0], "interactive alone has all");
        assert_eq!(serve(1000, |unit| (unit % 10 == 0, true)).0, [100, 900], "a few in a campaign wait for nobody");
    }
}
