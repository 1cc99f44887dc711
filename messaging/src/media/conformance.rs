//! What every backend of [`Blobs`] must do.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{BlobName, Blobs, Listed, Swept};
use crate::clock::Timestamp;

/// Opens the backend under test; every time the same one.
pub type Open<'a> = &'a dyn Fn() -> Arc<dyn Blobs>;

fn name(folder: u8, name: u8) -> BlobName {
    BlobName { folder: [folder; 16], name: [name; 16] }
}

/// Bytes that differ from place to place.
fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at / 251) as u8 ^ at as u8 ^ seed).collect()
}

fn spooled(blobs: &dyn Blobs, content: &[u8]) -> PathBuf {
    let mut random = [0; 8];
    crate::seal::fill_random(&mut random);
    let path = blobs.spool().join(data_encoding::HEXLOWER.encode(&random));
    std::fs::write(&path, content).expect("the spool takes files");
    path
}

async fn put(blobs: &dyn Blobs, name: BlobName, content: &[u8], at: Timestamp) {
    let file = spooled(blobs, content);
    blobs.put(name, &file, at).await.expect("put");
    let _ = std::fs::remove_file(file);
}

async fn whole(blobs: &dyn Blobs, name: BlobName) -> Option<Bytes> {
    let mut all = Vec::new();
    loop {
        let piece = blobs.read(name, all.len() as u64, 4 << 20).await.expect("read")?;
        if piece.is_empty() {
            return Some(all.into());
        }
        all.extend_from_slice(&piece);
    }
}

async fn sweep(blobs: &dyn Blobs, is_over: impl Fn(&Listed) -> bool + Send + Sync + 'static) -> Swept {
    blobs.sweep(Arc::new(is_over)).await.expect("sweep")
}

/// Runs all of it. `now`: the time by the backend's own clock.
pub async fn suite(open: Open<'_>, now: Timestamp) {
    reads_and_ranges(open, now).await;
    files_are_replaced_and_deleted(open, now).await;
    large_files_come_back_whole(open, now).await;
    a_sweep_sees_everything_once(open, now).await;
}

/// What is put is read, whole and in parts, also after the backend is opened again.
pub async fn reads_and_ranges(open: Open<'_>, now: Timestamp) {
    let content = bytes(10_000, 1);
    put(&*open(), name(1, 1), &content, now).await;
    let blobs = open();
    assert_eq!(whole(&*blobs, name(1, 1)).await.as_deref(), Some(&content[..]));
    for (from, len) in [(0, 1), (0, 10_000), (9_999, 1), (5_000, 100_000), (1, 2_047)] {
        let expected = &content[from..(from + len).min(content.len())];
        assert_eq!(blobs.read(name(1, 1), from as u64, len).await.unwrap().as_deref(), Some(expected), "{len} from {from}");
    }
    assert_eq!(blobs.read(name(1, 1), 10_000, 5).await.unwrap().as_deref(), Some(&[][..]), "at the end there is nothing");
    for other in [name(1, 2), name(2, 1)] {
        assert_eq!(whole(&*blobs, other).await, None);
    }
    blobs.delete(name(1, 1)).await.unwrap();
}

/// The newest has the name; a deleted one is gone, and may be deleted again.
pub async fn files_are_replaced_and_deleted(open: Open<'_>, now: Timestamp) {
    let blobs = open();
    for seed in [1, 2] {
        put(&*blobs, name(3, 1), &bytes(1_000 * usize::from(seed), seed), now).await;
        assert_eq!(whole(&*blobs, name(3, 1)).await.as_deref(), Some(&bytes(1_000 * usize::from(seed), seed)[..]));
    }
    for _ in 0..2 {
        blobs.delete(name(3, 1)).await.unwrap();
        assert_eq!(whole(&*blobs, name(3, 1)).await, None);
    }
}

/// Also what goes up in parts.
pub async fn large_files_come_back_whole(open: Open<'_>, now: Timestamp) {
    let blobs = open();
    let content = bytes((17 << 20) + 3, 7);
    put(&*blobs, name(4, 1), &content, now).await;
    assert!(whole(&*blobs, name(4, 1)).await.is_some_and(|found| found == content));
    let (from, len) = ((8 << 20) - 5, 10);
    assert_eq!(blobs.read(name(4, 1), from as u64, len).await.unwrap().as_deref(), Some(&content[from..from + len]));
    blobs.delete(name(4, 1)).await.unwrap();
}

/// A sweep sees each file once, with its size and time, deletes what is over and counts what is not.
pub async fn a_sweep_sees_everything_once(open: Open<'_>, now: Timestamp) {
    let blobs = open();
    for at in 0..12 {
        put(&*blobs, name(5 + at % 3, at), &bytes(100 + usize::from(at), at), now).await;
    }
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (noted, is_past) = (seen.clone(), move |at: Timestamp| at.plus(std::time::Duration::from_secs(60)) < now);
    let swept = sweep(&*blobs, move |listed| {
        noted.lock().expect("a lock of the test").push(*listed);
        listed.name.name[0] % 2 == 1
    })
    .await;
    let mut seen = seen.lock().expect("a lock of the test").clone();
    seen.sort_by_key(|listed| listed.name.name);
    let names: Vec<u8> = seen.iter().map(|listed| listed.name.name[0]).collect();
    assert_eq!(names, (0..12).collect::<Vec<u8>>());
    for listed in &seen {
        assert_eq!(listed.bytes, 100 + u64::from(listed.name.name[0]));
        assert!(!is_past(listed.at), "{listed:?}");
    }
    assert_eq!(swept, Swept { kept_bytes: [0, 2, 4, 6, 8, 10].iter().map(|at| 100 + at).sum(), deleted: 6 });
    assert_eq!(whole(&*blobs, name(6, 1)).await, None);
    assert!(whole(&*blobs, name(5, 0)).await.is_some());
    assert_eq!(sweep(&*blobs, |_| true).await, Swept { kept_bytes: 0, deleted: 6 });
    assert_eq!(sweep(&*blobs, |_| true).await, Swept::default());
}
