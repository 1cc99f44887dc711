//! What a simulator answers: chosen by the test, or by chance.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use crate::chance::Chance;
use crate::locked;

/// Answers and rules that a script holds at most; more are a mistake of the test.
const SCRIPT_MAX: usize = 1_000_000;
const RULES_MAX: usize = 10_000;

/// What happens to one send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Taken and answered, unless the platform's own rules refuse it.
    Ok,
    /// Refused with the platform's code at an HTTP status.
    Error {
        /// The platform's code.
        code: u32,
        /// The HTTP status.
        http: u16,
    },
    /// Not taken; a status with a body that no client understands.
    Status(u16),
    /// The connection is reset before the body is read. Not taken.
    ResetBeforeBody,
    /// Taken; then the connection is reset without an answer.
    ResetAfterBody,
    /// Not taken, though the whole body was read; then the connection closes without an answer.
    LostAfterBody,
    /// Taken, answered only after this long.
    Hang(Duration),
    /// Taken, never answered: the connection stays open until the caller gives up.
    AcceptThenHang,
    /// Taken; answered 200 with a body that is not JSON.
    Garbage2xx,
    /// Not taken: slow down. The wait is told where the platform tells it (Telegram).
    RateLimited {
        /// How long to wait.
        after: Duration,
    },
    /// Taken and answered; a status tells later that it failed with this code (WhatsApp; Telegram takes it as `Ok`).
    AcceptThenFail {
        /// The platform's code.
        code: u32,
    },
}

struct Rule {
    part: String,
    times: u32,
    answer: Answer,
}

struct State {
    next: VecDeque<Answer>,
    rules: Vec<Rule>,
    standing: Answer,
    chaos: f64,
    chance: Chance,
}

/// The answers to come.
pub(crate) struct Script(Mutex<State>);

impl Script {
    pub fn new(seed: u64) -> Self {
        let chance = Chance::new(seed ^ 0x5c21);
        Self(Mutex::new(State { next: VecDeque::new(), rules: Vec::new(), standing: Answer::Ok, chaos: 0.0, chance }))
    }

    pub fn next(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut state = locked(&self.0);
        state.next.extend(answers);
        assert!(state.next.len() <= SCRIPT_MAX, "a script holds at most {SCRIPT_MAX} answers");
    }

    pub fn stand(&self, answer: Answer) {
        locked(&self.0).standing = answer;
    }

    pub fn when(&self, part: &str, times: u32, answer: Answer) {
        let mut state = locked(&self.0);
        assert!(state.rules.len() < RULES_MAX, "a script holds at most {RULES_MAX} rules");
        state.rules.push(Rule { part: part.to_owned(), times, answer });
    }

    pub fn set_chaos(&self, probability: f64) {
        locked(&self.0).chaos = probability.clamp(0.0, 1.0);
    }

    /// Whether the next call, whatever it holds, is to be reset before its body is read.
    pub fn resets_before_body(&self) -> bool {
        let mut state = locked(&self.0);
        if state.next.front() == Some(&Answer::ResetBeforeBody) {
            state.next.pop_front();
            return true;
        }
        state.next.is_empty() && state.standing == Answer::ResetBeforeBody
    }

    /// The answer for a send with this text: a rule that fits, else the next of the script, else chaos, else the standing one.
    pub fn take(&self, text: &str) -> Answer {
        let mut state = locked(&self.0);
        if let Some(rule) = state.rules.iter_mut().find(|rule| rule.times > 0 && text.contains(&rule.part)) {
            rule.times -= 1;
            let answer = rule.answer.clone();
            state.rules.retain(|rule| rule.times > 0);
            return answer;
        }
        if let Some(answer) = state.next.pop_front() {
            return answer;
        }
        let probability = state.chaos;
        if !state.chance.happens(probability) {
            return state.standing.clone();
        }
        match state.chance.below(6) {
            0 => Answer::Error { code: 131_000, http: 500 },
            1 => Answer::RateLimited { after: Duration::from_secs(1) },
            2 => Answer::ResetAfterBody,
            3 => Answer::LostAfterBody,
            4 => Answer::Hang(Duration::from_secs(2)),
            _ => Answer::Status(502),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_before_the_script_and_the_script_before_the_standing_answer() {
        let script = Script::new(1);
        script.stand(Answer::Garbage2xx);
        script.next([Answer::Status(500), Answer::ResetBeforeBody, Answer::Ok]);
        script.when("seven", 2, Answer::LostAfterBody);
        assert!(!script.resets_before_body());
        assert_eq!(script.take("number seven"), Answer::LostAfterBody);
        assert_eq!(script.take("number eight"), Answer::Status(500));
        assert!(script.resets_before_body());
        assert_eq!(script.take("seven"), Answer::LostAfterBody);
        assert_eq!(script.take("seven"), Answer::Ok);
        assert_eq!(script.take("seven"), Answer::Garbage2xx);
    }

    #[test]
    fn chaos_follows_the_seed() {
        let faults = |seed| {
            let script = Script::new(seed);
            script.set_chaos(0.2);
            (0..1_000).map(|_| script.take("")).collect::<Vec<_>>()
        };
        let one = faults(3);
        assert_eq!(one, faults(3));
        let bad = one.iter().filter(|answer| **answer != Answer::Ok).count();
        assert!((150..250).contains(&bad), "{bad}");
    }
}
