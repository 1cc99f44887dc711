//! What the shards of this process do, for readiness and the gauges.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use messaging::metrics::{self, Component, ShardState};
use messaging::supervise::lock;
use tokio::time::Instant;

/// How long a shard may take to begin until readiness says so: a former owner that died lets go within this time, as a rule.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The shards that this process holds.
#[derive(Debug, Default)]
pub struct Fleet {
    shards: Mutex<BTreeMap<u16, (ShardState, Instant)>>,
}

impl Fleet {
    /// A shard does this now; none: this process holds it no longer.
    pub(crate) fn note(&self, shard: u16, state: Option<ShardState>) {
        let mut shards = lock(&self.shards);
        match (state, shards.get(&shard)) {
            (Some(state), Some((former, _))) if *former == state => return,
            (Some(state), _) => {
                shards.insert(shard, (state, Instant::now()));
            }
            (None, _) => {
                shards.remove(&shard);
            }
        }
        for state in ShardState::ALL {
            let count = shards.values().filter(|(is, _)| is == state).count();
            metrics::SHARDS.at([state.index()]).set(count as f64);
        }
        let works = stopped(&shards).next().is_none();
        metrics::COMPONENT_READY.at([Component::Router.index()]).set(f64::from(u8::from(works)));
    }

    /// Shards that this process holds and that do not work. None of them: it is ready.
    pub fn stopped(&self) -> Vec<u16> {
        let stopped: Vec<u16> = stopped(&lock(&self.shards)).collect();
        metrics::COMPONENT_READY.at([Component::Router.index()]).set(f64::from(u8::from(stopped.is_empty())));
        stopped
    }
}

fn stopped(shards: &BTreeMap<u16, (ShardState, Instant)>) -> impl Iterator<Item = u16> + '_ {
    let stopped = |(state, since): &(ShardState, Instant)| match state {
        ShardState::Working | ShardState::Draining => false,
        ShardState::Starting => since.elapsed() > START_PATIENCE,
        ShardState::Restarting => true,
    };
    shards.iter().filter(move |(_, state)| stopped(state)).map(|(shard, _)| *shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_does_not_work_is_named() {
        use ShardState::*;
        let fleet = Fleet::default();
        let cases: &[(Option<ShardState>, u64, bool)] = &[
            (Some(Starting), 0, false),
            (Some(Starting), 31, true),
            (Some(Working), 0, false),
            (Some(Restarting), 0, true),
            (Some(Starting), 0, false),
            (Some(Draining), 60, false),
            (None, 0, false),
        ];
        for (state, seconds, stopped) in cases {
            fleet.note(3, *state);
            tokio::time::advance(Duration::from_secs(*seconds)).await;
            assert_eq!(fleet.stopped(), if *stopped { vec![3] } else { vec![] }, "{state:?} for {seconds} s");
        }
    }
}
