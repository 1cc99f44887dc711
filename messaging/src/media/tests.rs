//! The directory conforms, and the vault seals, bounds and ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use proptest::prelude::*;

use super::*;
use crate::channels::MediaFault;
use crate::clock::{Clock, ManualClock};
use crate::ids::{IdHasher, MediaId, TenantId};
use crate::seal::DataKey;
use crate::tenant::Tenant;

const START: Timestamp = Timestamp::from_secs(1_795_168_800);
const CHUNK: usize = 64 * 1024;

struct Rig {
    vault: Vault,
    clock: Arc<ManualClock>,
    key: DataKey,
    dir: tempfile::TempDir,
}

fn rig(max_bytes: u64, max_total: u64) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(START);
    let settings = VaultSettings { max_bytes, max_total, lifetime: Duration::from_secs(3600) };
    let blobs = Arc::new(DirectoryBlobs::open(dir.path()).unwrap());
    let vault = Vault::new(blobs, IdHasher::new(b"x"), clock.clone(), settings);
    Rig { vault, clock, key: DataKey::generate(), dir }
}

fn tenant(number: u8) -> Tenant {
    Tenant::for_tests(TenantId([number; 16]))
}

fn about(at: Timestamp) -> About {
    About { kind: "image/png", filename: Some("a.png".into()), at }
}

impl Rig {
    async fn keep(&self, id: MediaId, content: &[u8], piece: usize) -> Result<Medium, MediaFault> {
        let mut incoming = self.vault.begin(tenant(1), &self.key).await?;
        for piece in content.chunks(piece) {
            incoming.write(piece).await?;
        }
        self.vault.keep(incoming, id, about(self.clock.now())).await
    }

    async fn read(&self, id: MediaId, from: u64, to: u64) -> Result<Bytes, BlobError> {
        let found = self.vault.find(tenant(1), id, &self.key).await?.expect("it is here");
        let pieces: Vec<Bytes> = self.vault.read(found, from..to).try_collect().await?;
        Ok(pieces.concat().into())
    }

    /// The one file that is kept.
    fn file(&self) -> std::path::PathBuf {
        let only = |folder: &Path| {
            let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.retain(|path| !path.ends_with("spool"));
            assert_eq!(entries.len(), 1, "{entries:?}");
            entries.remove(0)
        };
        only(&only(&only(self.dir.path())))
    }

    fn spooled(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("spool")).unwrap().count()
    }
}

#[tokio::test]
async fn the_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::suite(&|| Arc::new(DirectoryBlobs::open(dir.path()).unwrap()), START).await;
}

#[test]
fn names_and_paths_are_one() {
    let name = BlobName { folder: [0xab; 16], name: [0x01; 16] };
    let path = name.path();
    assert_eq!(BlobName::from_path(&path), Some(name));
    for odd in ["", "spool/x", &path[1..], &format!("{path}/x"), &path.to_uppercase(), &path.replace("/01/", "/02/")] {
        assert_eq!(BlobName::from_path(odd), None, "{odd}");
    }
}

#[tokio::test]
async fn what_is_kept_is_read_at_every_edge() {
    let rig = rig(1 << 30, 1 << 40);
    for (number, size) in [1, CHUNK - 1, CHUNK, CHUNK + 1, 8 * CHUNK, 17 * CHUNK + 5].into_iter().enumerate() {
        let id = MediaId([number as u8; 16]);
        let content: Vec<u8> = (0..size).map(|at| (at ^ (at / CHUNK)) as u8).collect();
        let medium = rig.keep(id, &content, 10_007).await.unwrap();
        assert_eq!((medium.size_bytes, medium.kind.as_str(), medium.filename.as_deref()), (size as u64, "image/png", Some("a.png")));
        let edges = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 8 * CHUNK, 8 * CHUNK + 1, size - 1, size, size + 9];
        for from in edges {
            for to in edges.into_iter().filter(|to| from <= *to) {
                let expected = content.get(from..to.min(size)).unwrap_or_default();
                assert!(rig.read(id, from as u64, to as u64).await.unwrap() == expected, "{from}..{to} of {size}");
            }
        }
        assert_eq!(rig.spooled(), 0);
    }
}

#[tokio::test]
async fn files_are_sealed_and_bound_to_their_place() {
    let rig = rig(1 << 30, 1 << 40);
    let (id, canary) = (MediaId([1; 16]), b"canary in the clear");
    let content = [canary.as_slice(), &vec![5; 2 * CHUNK], canary].concat();
    rig.keep(id, &content, 1000).await.unwrap();
    let file = rig.file();
    let sealed = std::fs::read(&file).unwrap();
    assert!(!sealed.windows(canary.len()).any(|window| window == canary), "in the clear");
    let names = file.display().to_string();
    assert!(!names.contains(&id.to_string()) && !names.contains(&tenant(1).id().to_string()), "{names}");

    // Nobody else's key, tenant or id opens it.
    let found = |of: Tenant, id: MediaId, key: DataKey| {
        let vault = &rig.vault;
        async move { vault.find(of, id, &key).await }
    };
    assert!(found(tenant(1), id, rig.key.clone()).await.unwrap().is_some());
    assert!(found(tenant(2), id, rig.key.clone()).await.unwrap().is_none());
    assert!(found(tenant(1), MediaId([2; 16]), rig.key.clone()).await.unwrap().is_none());
    assert!(found(tenant(1), id, DataKey::generate()).await.is_err());

    // Bent, cut, lengthened, or with chunks in another order: an error, never other bytes.
    let head = 2048;
    let step = CHUNK + crate::seal::OVERHEAD_BYTES;
    let swapped = [&sealed[..head], &sealed[head + step..head + 2 * step], &sealed[head..head + step], &sealed[head + 2 * step..]].concat();
    let bent = |at: usize| {
        let mut bent = sealed.clone();
        bent[at] ^= 1;
        bent
    };
    let table = [
        ("mark", bent(0)),
        ("head", bent(100)),
        ("first chunk", bent(head + 50)),
        ("last byte", bent(sealed.len() - 1)),
        ("cut in a chunk", sealed[..sealed.len() - 1].to_vec()),
        ("cut between chunks", sealed[..head + 2 * step].to_vec()),
        ("chunks swapped", swapped),
        ("nothing", Vec::new()),
    ];
    for (what, bytes) in table {
        std::fs::write(&file, bytes).unwrap();
        let read = match rig.vault.find(tenant(1), id, &rig.key).await {
            Ok(Some(found)) => rig.vault.read(found, 0..content.len() as u64).try_collect::<Vec<_>>().await.map(|pieces| pieces.concat()),
            Ok(None) => panic!("{what}: it is there"),
            Err(error) => Err(error),
        };
        assert!(matches!(read, Err(BlobError::Damaged(_))), "{what}: {:?}", read.map(|bytes| bytes.len()));
    }
}

#[tokio::test]
async fn bounds_hold_and_leave_nothing_behind() {
    let rig = rig(1000, 10_000);
    let id = MediaId([1; 16]);
    assert_eq!(rig.keep(id, &[1; 1001], 100).await, Err(MediaFault::TooLarge));
    assert_eq!(rig.spooled(), 0, "refused in the middle");
    let mut kept = 0;
    let full = loop {
        match rig.keep(MediaId([kept; 16]), &[1; 1000], 100).await {
            Ok(_) => kept += 1,
            Err(fault) => break fault,
        }
    };
    assert_eq!((full, kept), (MediaFault::Full, 4), "ten thousand bytes hold four with their heads");
    rig.vault.forget(tenant(1), MediaId([0; 16])).await.unwrap();
    rig.vault.sweep().await.unwrap();
    assert!(rig.keep(id, &[1; 1000], 100).await.is_ok(), "there is room again");
}

#[tokio::test]
async fn a_lifetime_counts_from_the_message() {
    let rig = rig(1000, 1 << 30);
    let id = MediaId([1; 16]);
    rig.clock.advance(Duration::from_secs(1800));
    let mut incoming = rig.vault.begin(tenant(1), &rig.key).await.unwrap();
    incoming.write(b"x").await.unwrap();
    rig.vault.keep(incoming, id, about(START)).await.unwrap();
    let is_here = async || rig.vault.find(tenant(1), id, &rig.key).await.unwrap().is_some();
    rig.clock.advance(Duration::from_secs(1799));
    rig.vault.sweep().await.unwrap();
    assert!(is_here().await && rig.vault.used_bytes() > 2048);
    rig.clock.advance(Duration::from_secs(1));
    assert!(!is_here().await, "over before the sweep");
    rig.vault.sweep().await.unwrap();
    assert_eq!(rig.vault.used_bytes(), 0);
    assert_eq!(std::fs::read_dir(rig.file_folder()).unwrap().count(), 0, "and gone with it");
}

impl Rig {
    fn file_folder(&self) -> std::path::PathBuf {
        let only = |folder: &Path| {
            let mut entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.find(|path| !path.ends_with("spool")).expect("a folder")
        };
        only(&only(self.dir.path()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_range_of_any_file(size in 1_usize..400_000, piece in 1_usize..100_000, from in 0_u64..400_000, len in 0_u64..400_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = rig(1 << 30, 1 << 40);
            let content: Vec<u8> = (0..size).map(|at| (at % 253) as u8).collect();
            rig.keep(MediaId([1; 16]), &content, piece).await.unwrap();
            let read = rig.read(MediaId([1; 16]), from, from + len).await.unwrap();
            let expected = content.get(from as usize..((from + len) as usize).min(size)).unwrap_or_default();
            assert!(read == expected);
        });
    }
}
