//! A torn tail is cut, whatever a power loss left of the last group.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::support::*;
use crate::log::{Fsync, Log, Topic};

/// A log as a crash leaves it: ten records in earlier groups, three in the last. Returns where the last group stands.
async fn crashed_log() -> (Place, std::ops::Range<u64>) {
    let place = Place::with(|settings| settings.fsync = Fsync::Never);
    let opened = place.open().await;
    for number in 0..10 {
        opened.append_numbers(Topic::Inbound, 0, number..number + 1, 50).await;
    }
    let start = opened.log.core.state().end;
    opened.append_numbers(Topic::Inbound, 0, 10..13, 50).await;
    let end = opened.log.core.state().end;
    let crashed = place.crashed();
    opened.log.close().await;
    (crashed, start..end)
}

fn overwrite(file: &Path, bytes: &[u8], offset: u64) {
    std::fs::File::options().write(true).open(file).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Opens what is left, expects the durable records and all or nothing of the torn group, and that the log goes on from there.
async fn check(crashed: &Place, torn: &str) -> usize {
    let mut opened = crashed.open().await;
    let numbers = opened.drain_numbers(Topic::Inbound, 0).await;
    assert!(numbers == (0..10).collect::<Vec<_>>() || numbers == (0..13).collect::<Vec<_>>(), "{torn}: {numbers:?}");
    opened.append_numbers(Topic::Inbound, 0, 100..101, 10).await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, [100], "{torn}");
    opened.log.close().await;
    let mut opened = crashed.open().await;
    let again = opened.drain_numbers(Topic::Inbound, 0).await;
    assert_eq!(again.len(), numbers.len() + 1, "{torn}");
    opened.log.close().await;
    numbers.len()
}

#[tokio::test]
async fn cut_at_every_byte() {
    let (crashed, last) = crashed_log().await;
    let segment = crashed.segments().remove(0);
    let whole = std::fs::read(&segment).unwrap();
    let mut kept = Vec::new();
    for cut in last.clone() {
        let mut torn = whole.clone();
        torn[cut as usize..].fill(0);
        std::fs::write(&segment, &torn).unwrap();
        kept.push(check(&crashed, &format!("cut at {cut}")).await);
    }
    // The padding at the end is zeros: only with nothing else missing does the group count as whole.
    assert_eq!(kept[0], 10);
    let written = whole[..last.end as usize].iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    assert!(kept[..(written - last.start) as usize].iter().all(|&count| count == 10));
    assert!(kept[(written - last.start) as usize..].iter().all(|&count| count == 13));
}

#[tokio::test]
async fn blocks_of_the_last_write_that_are_missing_in_any_order() {
    let (crashed, last) = crashed_log().await;
    let segment = crashed.segments().remove(0);
    let whole = std::fs::read(&segment).unwrap();
    const BLOCK: usize = 32;
    let blocks = (last.end - last.start) as usize / BLOCK;
    for missing in 1..1usize << blocks.min(7) {
        let mut torn = whole.clone();
        for block in (0..blocks).filter(|block| missing >> block & 1 == 1) {
            let from = last.start as usize + block * BLOCK;
            torn[from..from + BLOCK].fill(0);
        }
        std::fs::write(&segment, &torn).unwrap();
        assert_eq!(check(&crashed, &format!("blocks {missing:b}")).await, 10);
    }
}

#[tokio::test]
async fn what_was_cut_cannot_be_read_later() {
    let (crashed, last) = crashed_log().await;
    let segment = crashed.segments().remove(0);
    overwrite(&segment, &[0xff], last.start + 20);
    let opened = crashed.open().await;
    opened.log.close().await;
    let content = std::fs::read(&segment).unwrap();
    assert!(content[last.start as usize..].iter().all(|&byte| byte == 0), "the torn group was overwritten with zeros");
}

#[tokio::test]
async fn a_first_group_that_is_torn_leaves_an_empty_log() {
    let place = Place::with(|settings| settings.fsync = Fsync::Never);
    let opened = place.open().await;
    opened.append_numbers(Topic::Bulk, 3, 0..2, 100).await;
    let crashed = place.crashed();
    opened.log.close().await;
    overwrite(&crashed.segments()[0], &[1], 60);
    let mut opened = crashed.open().await;
    assert_eq!(opened.drain_numbers(Topic::Bulk, 3).await, [] as [usize; 0]);
    opened.append_numbers(Topic::Bulk, 3, 7..8, 100).await;
    assert_eq!(opened.drain_numbers(Topic::Bulk, 3).await, [7]);
    opened.log.close().await;
}

#[tokio::test]
async fn a_torn_group_at_the_beginning_of_a_segment_is_cut() {
    let place = Place::with(|settings| settings.fsync = Fsync::Never);
    let mut opened = place.open().await;
    opened.append_numbers(Topic::Inbound, 0, 0..1, 30 << 10).await;
    opened.append_numbers(Topic::Inbound, 0, 1..2, 30 << 10).await;
    opened.append_numbers(Topic::Inbound, 0, 2..3, 30 << 10).await;
    let last = opened.drain(Topic::Inbound, 0).await[2].position.0;
    assert!((64 << 10..65 << 10).contains(&last), "the third record begins the second segment: {last}");
    let crashed = place.crashed();
    opened.log.close().await;
    for torn in [0, 30, 100] {
        let again = crashed.crashed();
        overwrite(&again.segments()[1], &[0x55; 8], torn);
        let mut opened = again.open().await;
        assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, [0, 1]);
        opened.append_numbers(Topic::Inbound, 0, 9..10, 30 << 10).await;
        opened.log.close().await;
        let mut opened = again.open().await;
        assert_eq!(opened.drain_numbers(Topic::Inbound, 0).await, [0, 1, 9]);
        opened.log.close().await;
    }
}
