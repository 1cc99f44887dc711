//! What shards have finished and is not durable yet.

use super::*;

/// Finished prefixes of all shards, gathered for the committer.
#[derive(Debug, Default)]
pub struct Commits {
    gathered: Mutex<BTreeMap<u16, Commit>>,
    turn: tokio::sync::Mutex<()>,
}

/// What one shard finished since the last commit.
#[derive(Debug, Default, Clone)]
pub struct Commit {
    /// Per topic.
    pub positions: [Option<Position>; 3],
    /// The settled prefix of the feed.
    pub settled: Option<u64>,
}

impl Commits {
    /// Held by who makes them durable.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    pub(super) fn note(&self, shard: u16, edit: impl FnOnce(&mut Commit)) {
        edit(lock(&self.gathered).entry(shard).or_default());
    }

    /// What was gathered of a shard does not count: its lease is lost.
    pub(super) fn forget(&self, shard: u16) {
        lock(&self.gathered).remove(&shard);
    }

    /// Could not be made durable: they are taken again with the next, unless more was finished since.
    pub fn put_back(&self, rows: &[Write], finished: &[Finished]) {
        let mut gathered = lock(&self.gathered);
        for row in rows {
            let (Key::Progress(shard), Some(Ok(progress))) =
                (row.key, row.value.as_ref().map(|value| postcard::from_bytes::<FeedProgress>(value)))
            else {
                continue;
            };
            gathered.entry(shard).or_default().settled.get_or_insert(progress.settled);
        }
        for one in finished {
            gathered.entry(one.shard).or_default().positions[one.topic.index()].get_or_insert(one.position);
        }
    }

    /// Takes everything gathered, as feed rows and finished positions.
    pub fn take(&self, now: Timestamp) -> (Vec<Write>, Vec<Finished>) {
        let gathered = std::mem::take(&mut *lock(&self.gathered));
        let (mut rows, mut finished) = (Vec::new(), Vec::new());
        for (shard, commit) in gathered {
            if let Some(settled) = commit.settled {
                let row = postcard::to_stdvec(&FeedProgress { settled }).expect("our own types serialise");
                rows.push(Write::put(Key::Progress(shard), row, now));
            }
            for topic in Topic::ALL {
                if let Some(position) = commit.positions[topic.index()] {
                    finished.push(Finished { topic: *topic, shard, position });
                }
            }
        }
        (rows, finished)
    }
}
