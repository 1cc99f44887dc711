//! Carries out the answer that a script chose: note the call, let its consequences begin, answer or cut.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::{Call, Fate};
use super::{Answer, HANG_MAX, Sim};
use crate::http::{Reply, reply};

/// What a platform says in its own words.
pub(crate) struct Words<'a> {
    /// The answer to a send that was taken.
    pub taken: Reply,
    /// The answer with a code at an HTTP status.
    pub error: &'a (dyn Fn(u32, u16) -> Reply + Sync),
    /// The answer that asks to slow down, and its code.
    pub slow_down: &'a (dyn Fn(Duration) -> (u32, Reply) + Sync),
}

/// Acts on a valid send. `consequences` is called once when the send is taken, with the code of a later failure.
pub(crate) async fn act(
    sim: &Arc<Sim>,
    answer: Answer,
    mut call: Call,
    words: Words<'_>,
    consequences: impl FnOnce(Option<u32>) + Send,
) -> Reply {
    let (fate, code) = match &answer {
        Answer::Ok | Answer::Hang(_) => (Fate::Accepted, None),
        Answer::ResetAfterBody | Answer::AcceptThenHang | Answer::Garbage2xx => (Fate::AcceptedUnanswered, None),
        Answer::AcceptThenFail { code } => (Fate::AcceptedThenFailed(*code), Some(*code)),
        Answer::Error { code, .. } => (Fate::Refused(*code), None),
        Answer::RateLimited { after } => (Fate::Refused((words.slow_down)(*after).0), None),
        Answer::Status(_) | Answer::ResetBeforeBody | Answer::LostAfterBody => (Fate::Lost, None),
    };
    call.fate = fate;
    if !fate.is_accepted() {
        call.platform_id = None;
    }
    sim.ledger.call(call);
    if fate.is_accepted() {
        consequences(code);
    }
    tokio::time::sleep(sim.options.answer_delay.min(HANG_MAX)).await;
    match answer {
        Answer::Ok | Answer::AcceptThenFail { .. } => words.taken,
        Answer::Hang(time) => {
            tokio::time::sleep(time.min(HANG_MAX)).await;
            words.taken
        }
        Answer::Error { code, http } => (words.error)(code, http),
        Answer::RateLimited { after } => (words.slow_down)(after).1,
        Answer::Status(status) => reply(status, "text/html", "<html>upstream trouble</html>"),
        Answer::Garbage2xx => reply(200, "text/html", "<html>ok?"),
        Answer::ResetBeforeBody | Answer::ResetAfterBody => Reply::Reset,
        Answer::LostAfterBody => Reply::Close,
        Answer::AcceptThenHang => {
            tokio::time::sleep(HANG_MAX).await;
            Reply::Close
        }
    }
}
