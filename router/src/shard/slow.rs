//! Deliveries that are under way for long get a row in `later` meanwhile. The feed's settled prefix then goes on, and whoever takes the shard
//! over has nothing to repeat at the endpoints that got theirs.

use super::*;

/// Events from the first that is not finished on, before anything is written down: so few may be repeated.
const OPEN_MAX: usize = 16;
/// How old what is under way has to be for it, so that a moment of much work writes nothing down.
const SLOW_AFTER: Duration = Duration::from_secs(5);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Shard<'_> {
    /// Writes down what is under way for long, where more hangs on it.
    pub(super) async fn write_down_slow(&mut self) -> Result<(), Lost> {
        let at = self.parts.clock.monotonic();
        if at < self.slow_look_at || self.feed_open.len() <= OPEN_MAX {
            return Ok(());
        }
        self.slow_look_at = at + LOOK_EVERY;
        let now = self.parts.clock.now();
        let slow = self.flows.at_endpoints(|head| head.place.is_some() && now.since(head.task.accepted_at) >= SLOW_AFTER);
        self.write_down(slow).await
    }

    /// Before the shard leaves: what is still under way to endpoints is the next owner's, and only that.
    pub(super) async fn write_down_all(&mut self) -> Result<(), Lost> {
        let under_way = self.flows.at_endpoints(|_| true);
        self.write_down(under_way).await
    }

    async fn write_down(&mut self, keys: Vec<FlowKey>) -> Result<(), Lost> {
        if keys.is_empty() {
            return Ok(());
        }
        let directory = self.parts.keeper.shared().load_full();
        // As in a step: rows are never older than the records that they come of.
        let now = self.parts.clock.now().max(self.newest_log_time);
        let writes = self.at_desk(&directory, Map::default(), now, |shard, desk| {
            for key in keys {
                shard.shadow(desk, key, now);
            }
        });
        self.apply(writes, Durability::Buffered).await?;
        self.note_progress();
        Ok(())
    }
}
