//! Media of messages that came in: fetched at once, beside the shards; kept before the rows when their bytes came along.
//!
//! Nothing here holds a record or the log. What does not fit the queue, or was under way when the process died, is fetched when
//! somebody asks for it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use messaging::BoxFuture;
use messaging::channels::MediaFault;
use messaging::clock::SharedClock;
use messaging::media::{Library, LinkTerms, Wanted, record};
use messaging::metrics;
use messaging::metrics::SupervisedTask;
use messaging::record::MediaNews;
use messaging::supervise::again;
use tokio::task::JoinSet;

use crate::media::queue::Queue;
use crate::plan::{Effects, MediaJob};

mod queue;

/// Media that wait to be fetched.
const QUEUE_MAX: usize = 1024;
/// Media that are fetched at once for the shards; for one tenant at most half of them, so that the others find a free one.
const FETCHES_MAX: usize = 16;
/// Waits before a medium is asked for again.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Media whose bytes came along that are written at once.
const KEEPS_MAX: usize = 8;
/// How long a step may be held by all of them: well within the lease.
const KEEP_WAIT: Duration = Duration::from_secs(3);

/// What the shards hand media to.
#[derive(Clone)]
pub struct Media {
    library: Arc<Library>,
    queue: Arc<Queue<Wanted>>,
}

impl Media {
    /// Begins to fetch; ends when `running` is dropped.
    pub fn start(library: Arc<Library>, clock: SharedClock, running: &mut JoinSet<()>) -> Self {
        let queue = Queue::new(QUEUE_MAX, FETCHES_MAX);
        for _ in 0..FETCHES_MAX {
            let (library, clock, waiting) = (library.clone(), clock.clone(), queue.clone());
            running.spawn(again(SupervisedTask::MediaFetch, move || fetch(library.clone(), clock.clone(), waiting.clone())));
        }
        Self { library, queue }
    }

    /// How links are made.
    pub fn links(&self) -> &LinkTerms {
        self.library.links()
    }

    /// Keeps what came along, before the rows of its message are stored. What became of it goes out with the step's records.
    pub async fn keep(&self, effects: &mut Effects, clock: &SharedClock) {
        let (whole, rest): (Vec<MediaJob>, Vec<MediaJob>) =
            std::mem::take(&mut effects.media).into_iter().partition(|job| job.bytes.is_some());
        effects.media = rest;
        if whole.is_empty() {
            return;
        }
        let mut told: Vec<Option<MediaNews>> = whole.iter().map(|_| None).collect();
        let keeping = async {
            let keep = |(at, job): (usize, &'_ MediaJob)| -> BoxFuture<'_, (usize, MediaNews)> {
                let (library, wanted, bytes) = (self.library.clone(), job.wanted.clone(), job.bytes.clone().unwrap_or_default());
                Box::pin(async move { (at, library.keep(&wanted, bytes).await) })
            };
            let jobs: Vec<_> = whole.iter().enumerate().map(keep).collect();
            let mut kept = futures_util::stream::iter(jobs).buffer_unordered(KEEPS_MAX);
            while let Some((at, news)) = kept.next().await {
                told[at] = Some(news);
            }
        };
        if tokio::time::timeout(KEEP_WAIT, keeping).await.is_err() {
            tracing::error!("media that came with a mail are not kept in time");
        }
        for (job, news) in whole.iter().zip(told) {
            let news = news.unwrap_or(MediaNews::Failed { reason: MediaFault::StoreUnavailable });
            effects.records.push(record(&job.wanted, news, clock.now()));
        }
    }

    /// Hands on what is to be fetched, and deletes what was withdrawn, after the rows are stored.
    pub fn hand_on(&self, effects: &mut Effects) {
        for job in std::mem::take(&mut effects.media) {
            if self.queue.push(job.wanted.owner.tenant.id(), job.wanted).is_some() {
                metrics::MEDIA_FAILURES.at([MediaFault::Busy.index()]).increment(1);
            }
        }
        let forgotten = std::mem::take(&mut effects.forgotten);
        if forgotten.is_empty() {
            return;
        }
        let library = self.library.clone();
        tokio::spawn(async move {
            for (tenant, medium) in forgotten {
                library.forget(tenant, medium).await;
            }
        });
    }
}

async fn fetch(library: Arc<Library>, clock: SharedClock, waiting: Arc<Queue<Wanted>>) {
    loop {
        let (wanted, _slot) = waiting.next().await;
        let mut waits = WAITS.into_iter();
        loop {
            let wait = waits.next();
            match (library.fetch(wanted.clone(), wait.is_none()).await, wait) {
                (Err(fault), Some(wait)) if fault.is_passing() => clock.sleep(wait).await,
                (Ok(_) | Err(_), _) => break,
            }
        }
    }
}
