//! Writes and syncs that fail: nothing is acknowledged that is not durable, before or after.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::support::*;
use crate::log::embedded::disk::{Fault, Site};
use crate::log::{AppendError, Finished, Log, LogError, Topic};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EMFILE: i32 = 24;
const HALF: usize = 30 << 10;

/// A disk that fails at one site, on command.
#[derive(Clone)]
struct Sick {
    site: Arc<Mutex<Option<Site>>>,
    errno: Arc<AtomicI32>,
    written: Arc<AtomicUsize>,
    struck: Arc<AtomicUsize>,
}

impl Sick {
    fn new(place: &mut Place) -> Self {
        let sick =
            Self { site: Arc::default(), errno: Arc::default(), written: Arc::new(AtomicUsize::new(usize::MAX)), struck: Arc::default() };
        let planted = sick.clone();
        place.faults = Some(Arc::new(move |site| {
            if *planted.site.lock().unwrap() != Some(site) {
                return None;
            }
            planted.struck.fetch_add(1, Ordering::SeqCst);
            Some(Fault { written: planted.written.load(Ordering::SeqCst), errno: planted.errno.load(Ordering::SeqCst) })
        }));
        sick
    }

    fn fail(&self, site: Site, errno: i32, written: usize) {
        self.errno.store(errno, Ordering::SeqCst);
        self.written.store(written, Ordering::SeqCst);
        *self.site.lock().unwrap() = Some(site);
    }

    fn heal(&self) {
        *self.site.lock().unwrap() = None;
    }

    fn struck(&self) -> usize {
        self.struck.load(Ordering::SeqCst)
    }
}

/// Appends, takes and finishes a few times, rolling segments and dropping old ones. Returns what was acknowledged and finished.
async fn work(place: &Place, opened: &mut Opened, numbers: std::ops::Range<usize>) -> (Vec<usize>, usize) {
    let mut acknowledged = Vec::new();
    let mut finished = 0;
    for number in numbers {
        place.clock.advance(std::time::Duration::from_secs(4000));
        let result = opened.try_append(vec![record(Topic::Inbound, 0, payload(number, HALF))]).await.remove(0);
        if result.is_ok() {
            acknowledged.push(number);
        }
        for entry in opened.drain(Topic::Inbound, 0).await {
            let done = Finished { topic: Topic::Inbound, shard: 0, position: entry.position };
            if number % 3 == 0 {
                match opened.log.finish(vec![done]).await {
                    Ok(()) => finished = self::number(&entry) + 1,
                    // Asked for and not confirmed: it may have come about, and the caller had no more use for the records.
                    Err(_) => place.asked.set(self::number(&entry) + 1),
                }
            }
        }
    }
    (acknowledged, finished)
}

async fn came_after(place: &Place) -> Vec<usize> {
    let mut opened = Place::of(place).open().await;
    let came = opened.drain_numbers(Topic::Inbound, 0).await;
    opened.log.close().await;
    came
}

/// At every site, an i/o error: what was acknowledged before is there after, nothing is acknowledged that is not, and
/// once a write that mattered failed, the log takes nothing more though the disk seems well again.
#[tokio::test]
async fn an_io_error_is_never_retried_into_success() {
    for site in Site::ALL {
        for written in [0, 1, 100, usize::MAX] {
            let mut place = Place::new();
            let sick = Sick::new(&mut place);
            let mut opened = place.open().await;
            let (mut acknowledged, mut finished) = work(&place, &mut opened, 0..7).await;
            sick.fail(site, EIO, written);
            let during = work(&place, &mut opened, 7..14).await;
            sick.heal();
            let after = work(&place, &mut opened, 14..20).await;
            assert!(sick.struck() > 0, "{site:?} was never used");
            acknowledged.extend(during.0);
            acknowledged.extend(&after.0);
            finished = finished.max(during.1).max(after.1);
            // What cannot be deleted only takes room.
            let harmless = site == Site::SegmentRemove || (site == Site::FolderSync && opened.log.writable());
            if !harmless {
                assert!(!opened.log.writable(), "{site:?}");
                assert_eq!(after.0, [] as [usize; 0], "{site:?}");
                let result = opened.try_append(vec![record(Topic::Bulk, 0, "")]).await;
                assert_eq!(result, [Err(AppendError::Closed)], "{site:?}");
            }
            let crashed = place.crashed();
            opened.log.close().await;
            for left in [&place, &crashed] {
                let came = came_after(left).await;
                // Only where the finished positions themselves are written may an unconfirmed finish have come about.
                let unsure = if site == Site::FinishedWrite { finished.max(place.asked.get()) } else { finished };
                let owed: Vec<_> = acknowledged.iter().copied().filter(|&number| number >= unsure).collect();
                assert!(owed.iter().all(|number| came.contains(number)), "{site:?} {written}: owed {owed:?}, came {came:?}");
                assert!(came.is_sorted(), "{site:?} {written}: {came:?}");
            }
        }
    }
}

/// At every site, no room on the disk or for one more open file: appends are refused, the process stays up, and serves again when there is
/// room.
#[tokio::test]
async fn what_has_no_room_heals() {
    for (site, errno) in Site::ALL.into_iter().flat_map(|site| [(site, ENOSPC), (site, EMFILE)]) {
        for written in [0, 1, 100, usize::MAX] {
            let mut place = Place::new();
            let sick = Sick::new(&mut place);
            let mut opened = place.open().await;
            let (mut acknowledged, mut finished) = work(&place, &mut opened, 0..7).await;
            sick.fail(site, errno, written);
            let during = work(&place, &mut opened, 7..14).await;
            assert!(sick.struck() > 0, "{site:?} was never used");
            sick.heal();
            opened.until("it takes again", |log| log.writable()).await;
            let after = work(&place, &mut opened, 14..20).await;
            assert_eq!(after.0, (14..20).collect::<Vec<_>>(), "{site:?}");
            acknowledged.extend(during.0);
            acknowledged.extend(after.0);
            finished = finished.max(during.1).max(after.1);
            let crashed = place.crashed();
            opened.log.close().await;
            for left in [&place, &crashed] {
                let owed: Vec<_> = acknowledged.iter().copied().filter(|&number| number >= finished).collect();
                let came: Vec<_> = came_after(left).await.into_iter().filter(|&number| number >= finished).collect();
                assert_eq!(came, owed, "{site:?} {written}: refused records do not come, acknowledged ones do");
            }
        }
    }
}

/// A group that failed in the middle of a call fails only the records that are not durable.
#[tokio::test]
async fn a_call_over_several_groups_tells_which_records_are_durable() {
    for errno in [EIO, ENOSPC] {
        let mut place = Place::new();
        let groups = Arc::new(AtomicUsize::new(0));
        let count = groups.clone();
        place.faults = Some(Arc::new(move |site| {
            let third = site == Site::GroupWrite && count.fetch_add(1, Ordering::SeqCst) == 2;
            third.then_some(Fault { written: 70, errno })
        }));
        let mut opened = place.open().await;
        let batch = (0..8).map(|number| record(Topic::Inbound, 0, payload(number, HALF)));
        let results = opened.try_append(batch.collect()).await;
        let error = if errno == EIO { AppendError::Closed } else { AppendError::Full };
        assert!(results[..4].iter().all(Result::is_ok), "{results:?}");
        assert!(results[4..].iter().all(|result| *result == Err(error)), "{results:?}");
        assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, [0, 1, 2, 3]);
        opened.log.close().await;
        place.faults = None;
        assert_eq!(came_after(&place).await, [0, 1, 2, 3]);
    }
}

/// What a refused group left behind, whole or in part, is gone before a later group begins the next segment: it must not look
/// like damage, nor come as a record.
#[tokio::test]
async fn leftovers_of_a_refused_group_do_not_look_like_damage() {
    for written in [1, 60, 300, usize::MAX] {
        for lengths in [vec![HALF; 2], vec![10, HALF, HALF], vec![10, 10, 4000, HALF, HALF]] {
            let mut place = Place::new();
            let sick = Sick::new(&mut place);
            let opened = place.open().await;
            opened.append_numbers(Topic::Inbound, 0, 0..1, HALF).await;
            sick.fail(Site::GroupWrite, ENOSPC, written);
            let refused = opened.try_append(vec![record(Topic::Inbound, 0, payload(77, 20_000))]).await;
            assert_eq!(refused, [Err(AppendError::Full)]);
            sick.heal();
            opened.until("it takes again", |log| log.writable()).await;
            for (index, &length) in lengths.iter().enumerate() {
                opened.append_numbers(Topic::Inbound, 0, index + 1..index + 2, length).await;
            }
            let crashed = place.crashed();
            opened.log.close().await;
            for left in [&place, &crashed] {
                assert_eq!(came_after(left).await, (0..=lengths.len()).collect::<Vec<_>>(), "{written} {lengths:?}");
            }
        }
    }
}

/// A finish that failed has not happened, and later ones do not pretend that it has.
#[tokio::test]
async fn a_finish_that_failed_is_not_done() {
    for (errno, heals) in [(EIO, false), (ENOSPC, true)] {
        let mut place = Place::new();
        let sick = Sick::new(&mut place);
        let mut opened = place.open().await;
        opened.append_numbers(Topic::Inbound, 0, 0..10, 100).await;
        let entries = opened.drain(Topic::Inbound, 0).await;
        let finish = |index: usize| vec![Finished { topic: Topic::Inbound, shard: 0, position: entries[index].position }];
        opened.log.finish(finish(2)).await.unwrap();
        sick.fail(Site::FinishedWrite, errno, 30);
        assert!(matches!(opened.log.finish(finish(5)).await, Err(LogError::Io(_))));
        assert_eq!(opened.log.lag()[0].records, 7);
        sick.heal();
        assert_eq!(opened.log.finish(finish(5)).await.is_ok(), heals);
        let crashed = place.crashed();
        opened.log.close().await;
        let left = if heals { 6..10 } else { 3..10 };
        assert_eq!(came_after(&crashed).await, left.collect::<Vec<_>>());
    }
}
