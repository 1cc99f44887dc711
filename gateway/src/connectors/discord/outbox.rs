//! What was read and is not on the log yet: in order, bounded, tried again until the log takes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use messaging::BoxFuture;
use messaging::channels::Piece;
use messaging::exchange::HttpRequest;
use messaging::log::AppendError;

use super::Sink;

/// Events that wait; beyond them nothing more is read.
const WAITING_MAX: usize = 4_096;
/// Bytes that wait.
const BYTES_MAX: usize = 8 << 20;
/// Events of one append.
const BATCH_MAX: usize = 256;
/// Waits between tries while the log takes nothing: doubled from the first to the longest.
const WAIT_FIRST: Duration = Duration::from_millis(50);
const WAIT_LONGEST: Duration = Duration::from_secs(5);

/// An event on its way.
pub(super) struct Item {
    pub session: Arc<str>,
    pub number: u64,
    /// None: nothing to keep, but its number counts.
    pub piece: Option<Piece>,
    /// The call to make once it is kept.
    pub callback: Option<HttpRequest>,
}

/// What became of an append.
pub(super) struct Flushed {
    items: Vec<Item>,
    result: Result<(), AppendError>,
}

/// What is safe now.
pub(super) enum Settled {
    /// These are on the log.
    Kept(Vec<Item>),
    /// Not now: to be tried again.
    Later,
    /// Never again in this process.
    Closed,
}

/// Events on their way to the log.
pub(super) struct Outbox {
    sink: Arc<dyn Sink>,
    waiting: VecDeque<Item>,
    bytes: usize,
    wait: Duration,
    /// Nothing is tried before.
    not_before: Duration,
    under_way: bool,
}

fn size(item: &Item) -> usize {
    item.piece.as_ref().map_or(0, |piece| piece.body().len())
}

impl Outbox {
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, waiting: VecDeque::new(), bytes: 0, wait: WAIT_FIRST, not_before: Duration::ZERO, under_way: false }
    }

    pub fn push(&mut self, item: Item) {
        self.bytes += size(&item);
        self.waiting.push_back(item);
    }

    /// Whether nothing more should be read.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.under_way
    }

    /// When the next append is due; none: nothing waits, or one is under way.
    pub fn deadline(&self) -> Option<Duration> {
        (!self.under_way && !self.waiting.is_empty()).then_some(self.not_before)
    }

    /// The next append, when it is due.
    pub fn flush(&mut self, now: Duration) -> Option<BoxFuture<'static, Flushed>> {
        self.deadline().filter(|due| *due <= now)?;
        self.under_way = true;
        let items: Vec<Item> = self.waiting.drain(..self.waiting.len().min(BATCH_MAX)).collect();
        let sink = self.sink.clone();
        Some(Box::pin(async move {
            let pieces: Vec<Piece> = items.iter().filter_map(|item| item.piece.clone()).collect();
            let result = if pieces.is_empty() { Ok(()) } else { sink.append(&pieces).await };
            Flushed { items, result }
        }))
    }

    /// Takes an append's end.
    pub fn settle(&mut self, flushed: Flushed, now: Duration) -> Settled {
        self.under_way = false;
        match flushed.result {
            Ok(()) => {
                self.bytes -= flushed.items.iter().map(size).sum::<usize>();
                self.wait = WAIT_FIRST;
                Settled::Kept(flushed.items)
            }
            Err(AppendError::Closed) => Settled::Closed,
            // `TooLarge` and `Partition` are the sink's own matter: where they come all the same, waiting loses nothing.
            Err(AppendError::Full | AppendError::Away | AppendError::TooLarge { .. } | AppendError::Partition) => {
                for item in flushed.items.into_iter().rev() {
                    self.waiting.push_front(item);
                }
                self.not_before = now + self.wait;
                self.wait = (self.wait * 2).min(WAIT_LONGEST);
                Settled::Later
            }
        }
    }
}
