//! What became of accepted messages over time: what kept up with the schedule, what came late, and what did not come at all.

use std::collections::HashMap;

use serde::Serialize;

use super::record::LoadRun;
use crate::checker::{Answer, Delivery};

const SECOND_US: u64 = 1_000_000;
/// Seconds over which the lowest rate is looked for, and those at the beginning that are left out of it.
const WINDOW_S: usize = 5;

/// How a run's deliveries kept up. Repeats are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Flow {
    /// Delivered before the last request was due, a second.
    pub per_second: f64,
    /// The same over the five seconds in which the least was delivered. The first five are left out.
    pub lowest_per_second: f64,
    /// Delivered after the last request was due.
    pub late: u64,
    /// How long after the last request was due the last delivery came, in seconds.
    pub late_for_s: f64,
    /// Accepted and not delivered when waiting for it ended.
    pub lost: u64,
}

impl Flow {
    /// Of a run's accepted messages and what one subscriber received.
    pub fn of(run: &LoadRun, deliveries: &[Delivery]) -> Self {
        let (start, end) = run.schedule_us;
        let mut arrived = HashMap::with_capacity(deliveries.len());
        for delivery in deliveries {
            if let Some(mark) = delivery.mark {
                arrived.entry(mark).or_insert(delivery.at_us);
            }
        }
        let seconds = (end.saturating_sub(start) / SECOND_US) as usize;
        let mut by_second = vec![0_u64; seconds];
        let mut flow = Self::default();
        let mut in_time = 0_u64;
        for operation in run.operations.iter().filter(|operation| operation.answer == Answer::Accepted) {
            let Some(&at) = arrived.get(&operation.mark) else {
                flow.lost += 1;
                continue;
            };
            if at > end {
                flow.late += 1;
                flow.late_for_s = flow.late_for_s.max((at - end) as f64 / 1e6);
                continue;
            }
            in_time += 1;
            if let Some(second) = by_second.get_mut((at.saturating_sub(start) / SECOND_US) as usize) {
                *second += 1;
            }
        }
        flow.per_second = in_time as f64 / (end.saturating_sub(start).max(1) as f64 / 1e6);
        let settled = by_second.get(WINDOW_S..).unwrap_or_default();
        let lowest = settled.windows(WINDOW_S).map(|window| window.iter().sum::<u64>()).min();
        flow.lowest_per_second = lowest.map_or(flow.per_second, |sum| sum as f64 / WINDOW_S as f64);
        flow
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::checker::Operation;
    use crate::load::record::Recorder;
    use crate::mark::{Mark, Way};

    fn delivery(mark: Mark, at_us: u64) -> Delivery {
        Delivery {
            endpoint: Arc::from("sink"),
            event: None,
            kind: "message.received".into(),
            attempt: Some(1),
            conversation: None,
            sequence: None,
            gap: 0,
            replay: false,
            mark: Some(mark),
            message: None,
            acknowledged: true,
            at_us,
        }
    }

    /// Twenty seconds, one message a second; what is due is delivered after a delay, or not at all.
    fn flow(delay_us: impl Fn(u32) -> Option<u64>) -> Flow {
        let mut run = Recorder::new(0, Arc::default()).finish(20.0, 0.0);
        run.schedule_us = (1_000, 1_000 + 20 * SECOND_US);
        let mut deliveries = Vec::new();
        for sequence in 0..20 {
            let mark = Mark { way: Way::In, run: 1, conversation: 1, sequence };
            let at = 1_000 + u64::from(sequence) * SECOND_US;
            run.operations.push(Operation { mark, begun_us: at, answered_us: at, answer: Answer::Accepted, id: None });
            if let Some(delay) = delay_us(sequence) {
                deliveries.push(delivery(mark, at + delay));
            }
        }
        Flow::of(&run, &deliveries)
    }

    #[test]
    fn late_is_told_from_lost() {
        let even = flow(|_| Some(100));
        assert_eq!(even, Flow { per_second: 1.0, lowest_per_second: 1.0, ..Flow::default() });
        let lost = flow(|sequence| (sequence != 3).then_some(100));
        assert_eq!((lost.lost, lost.late), (1, 0));
        let stopped = flow(|sequence| Some(if sequence < 10 { 100 } else { 15 * SECOND_US }));
        assert_eq!((stopped.lost, stopped.late, stopped.lowest_per_second), (0, 10, 0.0));
        assert_eq!((stopped.per_second, stopped.late_for_s), (0.5, 14.0));
    }
}
