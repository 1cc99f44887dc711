//! What a shard holds, told to the census about once a second.

use messaging::metrics::{DeliveryState, PendingState};

use super::*;

impl Shard<'_> {
    /// Says what the shard holds, when it is time to.
    pub(super) fn report(&mut self) {
        let now = self.parts.clock.monotonic();
        let passed = now.saturating_sub(self.reported_at);
        if passed < census::EVERY {
            return;
        }
        let directory = self.parts.keeper.shared().load_full();
        let mut holdings = Holdings::default();
        holdings.conversations_blocked = self.later.conversations();
        holdings.conversations_cached = self.states.len();
        holdings.busy = (self.busy.as_secs_f64() / passed.as_secs_f64()).min(1.0);
        for (task, is_head) in self.flows.all() {
            match &task.work {
                Work::Deliver(_) => {
                    let state = if is_head { DeliveryState::InFlight } else { DeliveryState::Queued };
                    holdings.deliveries(state, 1, Some(task.accepted_at));
                }
                Work::Send(sending) => {
                    let Some(account) = directory.account(sending.account) else { continue };
                    let state = if is_head { PendingState::Sending } else { PendingState::Queued };
                    holdings.sends(account.channel, state, 1, Some(task.accepted_at));
                }
            }
        }
        for (destination, count, oldest) in self.later.waits() {
            holdings.deferred(&directory, destination, count, oldest);
        }
        for row in self.later.scheduled() {
            if let Some((_, state)) = self.states.get(&row.conversation) {
                holdings.sends(state.channel, PendingState::Scheduled, 1, None);
            }
        }
        self.parts.census.report(self.id, holdings);
        self.busy = Duration::ZERO;
        self.reported_at = now;
    }
}
