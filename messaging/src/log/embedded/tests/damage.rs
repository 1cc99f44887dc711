//! Damage of durable bytes is found, refused, and passed over only on the operator's word.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::support::*;
use crate::log::{Fsync, Log, LogError, Topic};

const GROUPS: usize = 60;

/// A closed log of several segments, one record a group. Returns where its groups stand.
async fn log_of_groups(fsync: Fsync) -> (Place, Vec<std::ops::Range<u64>>) {
    let place = Place::with(|settings| settings.fsync = fsync);
    let opened = place.open().await;
    let mut groups = Vec::new();
    for group in 0..GROUPS {
        let positions = opened.append_numbers(Topic::Inbound, 1, group..group + 1, 2500).await;
        groups.push(positions[0].0 - 48..opened.log.core.state().end);
    }
    opened.log.close().await;
    assert!(place.segments().len() >= 3);
    (place, groups)
}

/// Changes the byte at a place of the log, and says what it was.
fn change(place: &Place, at: u64, to: impl Fn(u8) -> u8) -> u8 {
    let segment = place.settings.segment_bytes;
    let file = std::fs::File::options().read(true).write(true).open(&place.segments()[(at / segment) as usize]).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at % segment).unwrap();
    file.write_all_at(&[to(byte[0])], at % segment).unwrap();
    byte[0]
}

fn assert_damaged(place: &Place, what: &str) -> u64 {
    match place.try_open() {
        Err(LogError::Damaged { intact_until, .. }) => intact_until,
        Err(other) => panic!("{what}: {other}"),
        Ok(_) => panic!("{what}: opened"),
    }
}

async fn numbers_when_skipped(place: &mut Place) -> Vec<usize> {
    place.settings.skip_damage = true;
    let mut opened = place.open().await;
    let numbers = opened.drain_numbers(Topic::Inbound, 1).await;
    // The log goes on: what is appended now comes, at once and at the next opening.
    opened.append_numbers(Topic::Inbound, 1, 9000..9001, 10).await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 1).await, [9000]);
    opened.log.close().await;
    let mut opened = place.open().await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 1).await.last(), Some(&9000));
    opened.log.close().await;
    numbers
}

fn all_but(groups: std::ops::Range<usize>) -> Vec<usize> {
    (0..GROUPS).filter(|group| !groups.contains(group)).collect()
}

/// Every group, the last as well: the close noted how far the log went.
#[tokio::test]
async fn a_thousand_flipped_bits_are_all_found() {
    let (place, groups) = log_of_groups(Fsync::Group).await;
    let mut random = 88172645463325252u64;
    let mut flip = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..1000 {
        let group = &groups[flip(groups.len() as u64) as usize];
        let at = group.start + flip(group.end - group.start);
        let bit = 1 << flip(8);
        let before = change(&place, at, |byte| byte ^ bit);
        assert_damaged(&place, &format!("bit {bit} of byte {at}"));
        change(&place, at, |_| before);
    }
    let mut opened = place.open().await;
    assert_eq!(opened.drain_numbers(Topic::Inbound, 1).await, all_but(0..0));
    opened.log.close().await;
}

#[tokio::test]
async fn a_damaged_group_is_refused_or_passed_over_alone() {
    for damaged in [0, 1, 17, GROUPS - 2, GROUPS - 1] {
        for offset in [0, 9, 33, 45, 50, 100] {
            let (mut place, groups) = log_of_groups(Fsync::Never).await;
            change(&place, groups[damaged].start + offset, |byte| !byte);
            if damaged < GROUPS - 1 {
                let intact_until = assert_damaged(&place, &format!("group {damaged} at {offset}"));
                assert_eq!(intact_until, groups[GROUPS - 1].end);
            }
            assert_eq!(numbers_when_skipped(&mut place).await, all_but(damaged..damaged + 1));
        }
    }
}

#[tokio::test]
async fn groups_overwritten_with_zeros_are_missed() {
    for missing in [0..1, 5..9, 10..30, GROUPS - 3..GROUPS] {
        let (mut place, groups) = log_of_groups(Fsync::Group).await;
        for group in &groups[missing.clone()] {
            for at in group.clone() {
                change(&place, at, |_| 0);
            }
        }
        assert_damaged(&place, &format!("groups {missing:?}"));
        assert_eq!(numbers_when_skipped(&mut place).await, all_but(missing));
    }
}

#[tokio::test]
async fn a_missing_or_shortened_segment_is_missed() {
    type Breaking = fn(&Path);
    let cases: [(&str, Breaking); 3] = [
        ("deleted", |file| std::fs::remove_file(file).unwrap()),
        ("emptied", |file| drop(std::fs::File::create(file).unwrap())),
        ("cut short", |file| std::fs::File::options().write(true).open(file).unwrap().set_len(20_000).unwrap()),
    ];
    for (what, break_it) in cases {
        for segment in 0..3 {
            let (mut place, groups) = log_of_groups(Fsync::Group).await;
            let length = place.settings.segment_bytes;
            break_it(&place.segments()[segment as usize]);
            assert_damaged(&place, &format!("segment {segment} {what}"));
            let gone =
                |group: &std::ops::Range<u64>| group.start / length == segment && (what != "cut short" || group.end % length > 20_000);
            let left: Vec<_> = (0..GROUPS).filter(|&group| !gone(&groups[group])).collect();
            assert_eq!(numbers_when_skipped(&mut place).await, left, "segment {segment} {what}");
        }
    }
}

/// Damage that comes while the log is open is found when the range is read, not handed out.
#[tokio::test]
async fn damage_is_found_when_a_lagging_shard_reads() {
    for skip in [false, true] {
        let (mut place, groups) = log_of_groups(Fsync::Group).await;
        place.settings.skip_damage = skip;
        let mut opened = place.open().await;
        change(&place, groups[20].start + 500, |byte| byte ^ 4);
        let mut numbers = Vec::new();
        let error = loop {
            match opened.readers[1].take(Topic::Inbound, 5).await {
                Ok(entries) if entries.is_empty() => break None,
                Ok(entries) => numbers.extend(entries.iter().map(number)),
                Err(error) => break Some(error),
            }
        };
        match (skip, error) {
            (true, None) => assert_eq!(numbers, all_but(20..21)),
            (false, Some(LogError::Damaged { intact_until, .. })) => {
                assert_eq!(numbers, (0..20).collect::<Vec<_>>());
                assert_eq!(intact_until, groups[GROUPS - 1].end);
            }
            (_, other) => panic!("{other:?}"),
        }
        opened.log.close().await;
    }
}

/// What was lost at the end may have been finished: new records must not stand where finished ones stood.
#[tokio::test]
async fn new_records_after_a_lost_end_are_not_taken_for_finished() {
    let (mut place, groups) = log_of_groups(Fsync::Group).await;
    let mut opened = place.open().await;
    let last = opened.drain(Topic::Inbound, 1).await.pop().unwrap();
    opened.finish(Topic::Inbound, 1, last.position).await;
    let crashed = place.crashed();
    opened.log.close().await;
    for at in groups[GROUPS - 5].start..groups[GROUPS - 1].end {
        change(&crashed, at, |_| 0);
    }
    place.settings.dir = crashed.dir().to_path_buf();
    // Recovery begins behind what is finished, so nothing that anybody needs is lost.
    place.settings.skip_damage = true;
    let mut opened = place.open().await;
    let position = opened.append_numbers(Topic::Inbound, 1, 500..501, 10).await[0];
    assert!(position > last.position);
    let came = opened.drain_numbers(Topic::Inbound, 1).await;
    assert_eq!(came, [500]);
    opened.log.close().await;
}

#[tokio::test]
async fn the_small_files_are_checked_too() {
    for name in ["log.json", "finished"] {
        let (mut place, _) = log_of_groups(Fsync::Group).await;
        let file = place.dir().join(name);
        let whole = std::fs::read(&file).unwrap();
        for broken in [Vec::new(), whole[..whole.len() / 3].to_vec(), whole.iter().map(|byte| byte ^ 1).collect()] {
            std::fs::write(&file, &broken).unwrap();
            assert_damaged(&place, name);
        }
        std::fs::remove_file(&file).unwrap();
        assert_damaged(&place, name);
        if name == "finished" {
            assert_eq!(numbers_when_skipped(&mut place).await, all_but(0..0));
        }
    }
}

#[tokio::test]
async fn every_flipped_bit_of_the_fixed_settings_is_found() {
    let (place, _) = log_of_groups(Fsync::Never).await;
    let file = place.dir().join("log.json");
    let whole = std::fs::read(&file).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, &flipped).unwrap();
        assert!(place.try_open().is_err(), "bit {bit}");
    }
}
